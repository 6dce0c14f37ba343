//! Dispersal: octets cut into `k` pieces and coded to `n`, any `k` of which give them back.
//!
//! Each piece has `ceil(len / k)` octets, so all `n` together take `n / k` times the length
//! (M. Rabin, "Efficient dispersal of information", JACM 36(2), 1989). Dispersal hides nothing and
//! checks nothing: [`v2`](crate::v2) disperses ciphertext, next to a shared key (H. Krawczyk,
//! "Secret sharing made short", CRYPTO '93), and digests say which pieces are genuine.
//!
//! # The code
//!
//! A Reed-Solomon code over GF(2^8) modulo 0x11b, in Lagrange form. For each position in the
//! pieces, let f be the polynomial of degree below `k` with `s_i * f(i) = piece_i` at the `k` data
//! indices `i = 1..=k`; then `piece_i = s_i * f(i)` for every index `i` up to 255. The code is
//! *systematic*: pieces `1..=k` are the octets themselves, in order, the last ones filled up with
//! zeros, so nothing is computed when they all arrive. Any `k` pieces determine `k` values of f at
//! distinct points, hence f, hence every other piece: that is why **any** `k` of `n` decode, with
//! no exception to search for, and why a lost parity piece is made again in the same way.
//!
//! The factors `s_i` are never 0. They are chosen so that piece `k + 1` is the exclusive or of the
//! data pieces (all its coefficients are 1), and so that the first data piece counts once in every
//! further one: where products are not free, that saves half of them at 3 of 5. As a matrix, the
//! parity rows are a Cauchy matrix scaled by rows and columns. They do not depend on `n`: pieces
//! can be added later.
//!
//! # Cost
//!
//! [`Code::new`] computes `k * (n - k)` coefficients; keep the `Code` and there is no other
//! start-up cost, whatever the size of a piece. [`Recovery`] is the same for decoding: it depends
//! on which pieces are there, not on what they hold, and can be used for any number of messages.
//!
//! ```
//! use core::num::NonZeroU8;
//! use vmdt_ssms::{Threshold, dispersal::Code};
//!
//! let code = Code::new(Threshold::new(3, 5)?);
//! let pieces = code.disperse(b"any three of these five pieces");
//! assert_eq!(pieces[0].as_ref(), b"any three ");
//!
//! // The first two are lost.
//! let index = |i| NonZeroU8::new(i).unwrap();
//! let left = [(index(3), &pieces[2][..]), (index(4), &pieces[3]), (index(5), &pieces[4])];
//! assert_eq!(code.gather(&left, 30)?, b"any three of these five pieces");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::num::NonZeroU8;

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::params::Threshold;

pub(crate) mod field;
mod kernel;
mod sealed;

use field::{div, mul};
use kernel::{Kernel, Matrix};

/// Why pieces were not coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// Not as many pieces as the operation works on.
    #[error("{given} pieces given, {needed} needed")]
    Count {
        /// How many there were.
        given: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A piece is not as long as the others, or as the length that was named asks for.
    #[error("a piece has {given} octets where {needed} are needed")]
    Length {
        /// The length found, in octets.
        given: usize,
        /// The length needed, in octets.
        needed: usize,
    },
    /// The same index was given twice, or is both present and wanted.
    #[error("piece {index} was given twice")]
    Duplicate {
        /// The index of both.
        index: NonZeroU8,
    },
    /// The index is above `n`.
    #[error("there is no piece {index}: the code makes {n}")]
    NoSuchPiece {
        /// The index.
        index: NonZeroU8,
        /// How many pieces the code makes.
        n: u8,
    },
}

/// The code of one threshold: which coefficients make which piece.
pub struct Code {
    threshold: Threshold,
    parity: Matrix,
    /// `s_i` for the indices `1..=n`, in order.
    factors: Vec<u8>,
    kernel: Kernel,
}

impl core::fmt::Debug for Code {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Code").field(&self.threshold).finish()
    }
}

/// The Lagrange basis over given points.
struct Basis<'a> {
    points: &'a [u8],
    /// For each point the product of its differences from the others.
    differences: Vec<u8>,
}

impl<'a> Basis<'a> {
    fn over(points: &'a [u8]) -> Basis<'a> {
        let differences = points
            .iter()
            .map(|&own| {
                let others = points.iter().filter(|&&other| other != own);
                others.fold(1, |p, &other| mul(p, own ^ other))
            })
            .collect();
        Basis {
            points,
            differences,
        }
    }

    /// The weight of each point's value in the value at `x`, which is none of the points.
    fn at(&self, x: u8) -> impl Iterator<Item = u8> {
        let total = self.points.iter().fold(1, |p, &point| mul(p, x ^ point));
        let points = self.points.iter().zip(&self.differences);
        points.map(move |(&point, &difference)| div(total, mul(x ^ point, difference)))
    }
}

impl Code {
    /// The code that makes `threshold.n()` pieces, any `threshold.k()` of which suffice.
    #[must_use]
    pub fn new(threshold: Threshold) -> Code {
        Code::build(threshold, true)
    }

    /// A code that can only recover: without the parity rows, which that does not need.
    pub(crate) fn for_recovery(threshold: Threshold) -> Code {
        Code::build(threshold, false)
    }

    fn build(threshold: Threshold, with_parity: bool) -> Code {
        let (k, n) = (threshold.k(), threshold.n());
        let columns = usize::from(k);
        let data: Vec<u8> = (1..=k).collect();
        let basis = Basis::over(&data);
        // Row k + 1 is to be all ones, so its weights are the data's factors; with k = 255 there
        // is no such row, and any factors do.
        let mut factors = Vec::with_capacity(usize::from(n));
        match k.checked_add(1) {
            Some(x) => factors.extend(basis.at(x)),
            None => factors.resize(columns, 1),
        }
        let first = factors.first().copied().unwrap_or(1);
        let mut rows = Vec::new();
        for x in k..n {
            // The first coefficient is to be 1, which fixes the row's factor.
            let mut weights = basis.at(x + 1);
            let factor = div(first, weights.next().unwrap_or(1));
            if with_parity {
                rows.push(1);
                let rest = weights.zip(factors.iter().skip(1));
                rows.extend(rest.map(|(weight, &data)| mul(factor, div(weight, data))));
            }
            factors.push(factor);
        }
        let parity = Matrix::from_fn(rows.len() / columns, columns, |row, column| {
            rows.get(row * columns + column).copied().unwrap_or(0)
        });
        Code {
            threshold,
            parity,
            factors,
            kernel: Kernel::detect(),
        }
    }

    /// The code's parameters.
    #[must_use]
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// The length of a piece of `len` octets: `len / k`, rounded up.
    #[must_use]
    pub fn piece_len(&self, len: usize) -> usize {
        len.div_ceil(usize::from(self.threshold.k()))
    }

    /// Computes the parity pieces `k + 1 ..= n` of the data pieces `1..=k`, each in order of
    /// their indices.
    ///
    /// # Errors
    ///
    /// [`CodeError::Count`] unless there are `k` and `n - k` of them, [`CodeError::Length`] unless
    /// all have one length; nothing has been written then.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodeError> {
        check_shape(&self.parity, data, parity)?;
        self.kernel.combine(&self.parity, data, parity);
        Ok(())
    }

    /// Prepares to compute the pieces `wanted` from the pieces `present`: exactly `k` different
    /// indices, in the order in which the pieces will be given.
    ///
    /// # Errors
    ///
    /// [`CodeError::Count`] unless `present` has `k` indices, [`CodeError::Duplicate`] if an index
    /// occurs twice in both lists together, [`CodeError::NoSuchPiece`] for one above `n`.
    pub fn recovery(
        &self,
        present: &[NonZeroU8],
        wanted: &[NonZeroU8],
    ) -> Result<Recovery, CodeError> {
        let needed = usize::from(self.threshold.k());
        if present.len() != needed {
            return Err(CodeError::Count {
                given: present.len(),
                needed,
            });
        }
        let mut seen = [false; 256];
        for &index in present.iter().chain(wanted) {
            if index.get() > self.threshold.n() {
                return Err(CodeError::NoSuchPiece {
                    index,
                    n: self.threshold.n(),
                });
            }
            match seen.get_mut(usize::from(index.get())) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(CodeError::Duplicate { index }),
            }
        }
        let points: Vec<u8> = present.iter().map(|index| index.get()).collect();
        let basis = Basis::over(&points);
        let mut coefficients = Vec::with_capacity(wanted.len() * needed);
        for index in wanted {
            let own = self.factor(index.get());
            let row = basis.at(index.get()).zip(&points);
            coefficients
                .extend(row.map(|(weight, &point)| mul(own, div(weight, self.factor(point)))));
        }
        let matrix = Matrix::from_fn(wanted.len(), needed, |row, column| {
            coefficients
                .get(row * needed + column)
                .copied()
                .unwrap_or(0)
        });
        Ok(Recovery {
            matrix,
            kernel: self.kernel,
        })
    }

    /// Cuts octets into pieces and codes them: all `n` pieces, in order of their indices, as
    /// slices of one allocation.
    #[must_use]
    pub fn disperse(&self, octets: &[u8]) -> Vec<Bytes> {
        let len = self.piece_len(octets.len());
        let k = usize::from(self.threshold.k());
        let n = usize::from(self.threshold.n());
        let mut all = vec![0; n * len];
        if len > 0 {
            let (data, parity) = all.split_at_mut(k * len);
            if let Some(head) = data.get_mut(..octets.len()) {
                head.copy_from_slice(octets);
            }
            let data: Vec<&[u8]> = data.chunks(len).collect();
            let mut parity: Vec<&mut [u8]> = parity.chunks_mut(len).collect();
            self.kernel.combine(&self.parity, &data, &mut parity);
        }
        let all = Bytes::from(all);
        (0..n).map(|i| all.slice(i * len..(i + 1) * len)).collect()
    }

    /// Puts `len` octets together from `k` or more of their pieces, in any order. Data pieces are
    /// copied; only those that are missing are computed. Of more than `k` pieces, data pieces are
    /// used first, then those that come first.
    ///
    /// # Errors
    ///
    /// [`CodeError::Count`] for fewer than `k`, [`CodeError::Length`] for a piece that has not
    /// [`Code::piece_len`] octets, [`CodeError::Duplicate`] and [`CodeError::NoSuchPiece`].
    pub fn gather(&self, pieces: &[(NonZeroU8, &[u8])], len: usize) -> Result<Vec<u8>, CodeError> {
        let rebuilt = self.rebuild(pieces, len)?;
        let mut out = Vec::with_capacity(len);
        for piece in rebuilt.pieces() {
            // What fills up the last pieces is left out.
            out.extend_from_slice(piece.split_at(piece.len().min(len - out.len())).0);
        }
        Ok(out)
    }

    /// Which `k` of the given indices to use: data first. And which data indices are missing.
    pub(crate) fn choose(&self, given: &[NonZeroU8]) -> Result<Choice, CodeError> {
        let k = self.threshold.k();
        for (position, &index) in given.iter().enumerate() {
            if index.get() > self.threshold.n() {
                return Err(CodeError::NoSuchPiece {
                    index,
                    n: self.threshold.n(),
                });
            }
            // At most 255 rounds: the 256th index repeats one.
            if given.iter().take(position).any(|earlier| *earlier == index) {
                return Err(CodeError::Duplicate { index });
            }
        }
        let data = (0..given.len()).filter(|&i| given.get(i).is_some_and(|x| x.get() <= k));
        let parity = (0..given.len()).filter(|&i| given.get(i).is_some_and(|x| x.get() > k));
        let positions: Vec<usize> = data.chain(parity).take(usize::from(k)).collect();
        if positions.len() < usize::from(k) {
            return Err(CodeError::Count {
                given: given.len(),
                needed: usize::from(k),
            });
        }
        Ok(Choice {
            present: positions
                .iter()
                .filter_map(|&i| given.get(i).copied())
                .collect(),
            missing: (1..=k)
                .filter_map(NonZeroU8::new)
                .filter(|index| !given.contains(index))
                .collect(),
            positions,
        })
    }

    fn factor(&self, index: u8) -> u8 {
        let position = usize::from(index).wrapping_sub(1);
        self.factors.get(position).copied().unwrap_or(1)
    }
}

/// Which pieces a rebuilding uses.
pub(crate) struct Choice {
    /// Positions in the list given.
    pub(crate) positions: Vec<usize>,
    /// The indices at those positions.
    pub(crate) present: Vec<NonZeroU8>,
    /// The data indices that were not given at all, ascending.
    pub(crate) missing: Vec<NonZeroU8>,
}

/// How to compute some pieces from `k` others; from [`Code::recovery`].
pub struct Recovery {
    matrix: Matrix,
    kernel: Kernel,
}

impl core::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Recovery")
            .field("from", &self.matrix.columns())
            .field("pieces", &self.matrix.rows())
            .finish()
    }
}

impl Recovery {
    /// Computes the wanted pieces from the present ones, both in the order of
    /// [`Code::recovery`]'s lists.
    ///
    /// # Errors
    ///
    /// As [`Code::encode`].
    pub fn apply(&self, present: &[&[u8]], wanted: &mut [&mut [u8]]) -> Result<(), CodeError> {
        check_shape(&self.matrix, present, wanted)?;
        self.kernel.combine(&self.matrix, present, wanted);
        Ok(())
    }
}

fn check_shape(matrix: &Matrix, ins: &[&[u8]], outs: &[&mut [u8]]) -> Result<(), CodeError> {
    let counts = [(ins.len(), matrix.columns()), (outs.len(), matrix.rows())];
    for (given, needed) in counts {
        if given != needed {
            return Err(CodeError::Count { given, needed });
        }
    }
    let needed = ins.first().map_or(0, |piece| piece.len());
    let lengths = ins.iter().map(|piece| piece.len());
    for given in lengths.chain(outs.iter().map(|piece| piece.len())) {
        if given != needed {
            return Err(CodeError::Length { given, needed });
        }
    }
    Ok(())
}
