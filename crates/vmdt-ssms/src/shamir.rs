//! Plain Shamir sharing of a 32-octet key: points (x, y) over GF(2^8).
//!
//! Each octet of the key is the constant term of a polynomial of its own, of degree `k - 1` over
//! GF(2^8) modulo 0x11b, whose other coefficients are uniform over all 256 values. The highest
//! one is no exception: forcing it to be non-zero, as some implementations do, would tell a holder
//! of `k - 1` shares which key octets are impossible. A key share is the point (x, y): x is the
//! share's index, y the 32 polynomials' values there. Any implementation of Shamir's scheme over
//! this field that takes such pairs can combine them (A. Shamir, "How to share a secret", CACM
//! 22(11), 1979).
//!
//! Points carry no threshold and no check value: fewer than `k` of them, or altered ones, combine
//! to an unrelated key without an error.
//!
//! ```
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! use vmdt_ssms::{Threshold, shamir};
//!
//! let mut rng = ChaCha20Rng::from_seed([1; 32]);
//! let key = [0x42; 32];
//! let shares = shamir::split_key(&key, Threshold::new(2, 3)?, &mut rng);
//!
//! let points = [&shares[2], &shares[0]].map(|share| (share.index(), share.value()));
//! assert_eq!(shamir::combine_key(&points)?.as_bytes(), &key);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::fmt;
use core::num::NonZeroU8;

use alloc::vec::Vec;

use rand_core::CryptoRng;
use zeroize::{DefaultIsZeroes, Zeroize as _, ZeroizeOnDrop, Zeroizing};

mod renew;

pub use renew::{contribution, refreshed, summand, summed, zero_sharing};

use crate::dispersal::field;
use crate::gf256::Lanes;
use crate::params::Threshold;
use crate::share::KEY_LEN;

/// A key that was put together. Zeroized on drop, opaque to `Debug`.
pub struct Key(Octets<KEY_LEN>);

impl Key {
    pub(crate) fn from_lanes(lanes: &Lanes) -> Key {
        let mut key = Key(Octets::default());
        lanes.write_to(&mut key.0.0);
        key
    }

    /// The key's octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// One point of a shared key. Zeroized on drop, opaque to `Debug`.
pub struct KeyShare {
    index: NonZeroU8,
    value: Octets<KEY_LEN>,
}

impl KeyShare {
    /// A point from octets that were stored or received.
    #[must_use]
    pub fn new(index: NonZeroU8, value: &[u8; KEY_LEN]) -> KeyShare {
        KeyShare {
            index,
            value: Octets(*value),
        }
    }

    pub(crate) fn of(index: NonZeroU8, value: &Lanes) -> KeyShare {
        let mut share = KeyShare {
            index,
            value: Octets::default(),
        };
        value.write_to(&mut share.value.0);
        share
    }

    pub(crate) fn lanes(&self) -> Lanes {
        Lanes::from_octets(&self.value.0)
    }

    /// The point's x, 1..=255.
    #[must_use]
    pub fn index(&self) -> NonZeroU8 {
        self.index
    }

    /// The point's y: the value at x of each key octet's polynomial. A secret.
    #[must_use]
    pub fn value(&self) -> &[u8; KEY_LEN] {
        &self.value.0
    }
}

impl Drop for KeyShare {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl ZeroizeOnDrop for KeyShare {}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyShare")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Why points were not combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CombineError {
    /// No point or a single one: no threshold is below 2.
    #[error("{given} points given: at least 2 are needed")]
    TooFew {
        /// How many points there were.
        given: usize,
    },
    /// Two points have the same x.
    #[error("two points have the index {index}")]
    Duplicate {
        /// The x of both.
        index: NonZeroU8,
    },
    /// A point is of another index than the operation is about.
    #[error("a point has the index {index} where {expected} was expected")]
    OtherIndex {
        /// The point's x.
        index: NonZeroU8,
        /// The x that was expected.
        expected: NonZeroU8,
    },
}

/// Shares a key: `n` points with x = 1..=n, any `k` of which give it back.
///
/// Draws `32 * (k - 1)` octets from `rng`, in calls of up to 256 octets.
pub fn split_key(
    key: &[u8; KEY_LEN],
    threshold: Threshold,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<KeyShare> {
    let polynomials = Polynomials::random(key, threshold, rng);
    // The capacity is exact so that no share is moved, which would leave a copy behind.
    let mut shares = Vec::with_capacity(usize::from(threshold.n()));
    polynomials.each(threshold.n(), |index, value| {
        shares.push(KeyShare {
            index,
            value: Octets::default(),
        });
        if let Some(share) = shares.last_mut() {
            value.write_to(&mut share.value.0);
        }
    });
    shares
}

/// Combines points to the key they share, by Lagrange interpolation at 0 over all of them.
///
/// The points must be at least as many as the threshold of their split, which they do not carry;
/// more are welcome, in any order. Points that are too few or altered give an unrelated key.
///
/// # Errors
///
/// [`CombineError::TooFew`] for fewer than 2 points, [`CombineError::Duplicate`] when two have the
/// same x.
pub fn combine_key(points: &[(NonZeroU8, &[u8; KEY_LEN])]) -> Result<Key, CombineError> {
    if points.len() < 2 {
        return Err(CombineError::TooFew {
            given: points.len(),
        });
    }
    for (position, (index, _)) in points.iter().enumerate() {
        // At most 255 rounds: the 256th point repeats an index.
        if points
            .iter()
            .take(position)
            .any(|(earlier, _)| earlier == index)
        {
            return Err(CombineError::Duplicate { index: *index });
        }
    }
    let points = points
        .iter()
        .map(|(index, value)| (*index, Lanes::from_octets(value)));
    let mut key = Interpolation::through(points).at(0);
    let combined = Key::from_lanes(&key);
    key.zeroize();
    Ok(combined)
}

/// Octets on the stack that are overwritten on drop, all in one write.
#[derive(Clone, Copy)]
pub(crate) struct Octets<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Default for Octets<N> {
    fn default() -> Self {
        Octets([0; N])
    }
}

impl<const N: usize> DefaultIsZeroes for Octets<N> {}

/// The 32 polynomials of a key, one per octet, coefficient by coefficient.
pub(crate) struct Polynomials {
    key: Zeroizing<Lanes>,
    /// The coefficients of x, x^2, … x^(k-1) if they are few: no allocation then.
    few: Zeroizing<Few>,
    /// And otherwise.
    many: Zeroizing<Vec<Lanes>>,
    count: usize,
}

#[derive(Clone, Copy, Default)]
struct Few([Lanes; Few::MAX]);

impl Few {
    const MAX: usize = 2;
}

impl DefaultIsZeroes for Few {}

#[derive(Clone, Copy)]
struct Bits<const BITS: usize>([Lanes; BITS]);

impl<const BITS: usize> Default for Bits<BITS> {
    fn default() -> Self {
        Bits([Lanes::default(); BITS])
    }
}

impl<const BITS: usize> DefaultIsZeroes for Bits<BITS> {}

impl Polynomials {
    /// How many coefficients are drawn with one call of the generator if there are many.
    const BATCH: usize = 8;

    /// Polynomials of degree `k - 1` that are `key` at 0 and otherwise uniformly random.
    pub(crate) fn random(
        key: &[u8; KEY_LEN],
        threshold: Threshold,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Polynomials {
        let count = usize::from(threshold.k()).saturating_sub(1);
        let mut polynomials = Polynomials {
            key: Zeroizing::new(Lanes::from_octets(key)),
            few: Zeroizing::default(),
            many: Zeroizing::default(),
            count,
        };
        if count <= Few::MAX {
            let mut drawn = Zeroizing::new(Octets::<{ KEY_LEN * Few::MAX }>::default());
            let (blocks, _) = drawn.0.as_chunks_mut::<KEY_LEN>();
            let (blocks, _) = blocks.split_at_mut(count);
            rng.fill_bytes(blocks.as_flattened_mut());
            for (coefficient, block) in polynomials.few.0.iter_mut().zip(blocks) {
                *coefficient = Lanes::from_octets(block);
            }
            return polynomials;
        }
        // The capacity is exact so that no coefficient is moved, which would leave a copy behind.
        polynomials.many.reserve_exact(count);
        let mut drawn = Zeroizing::new(Octets::<{ KEY_LEN * Self::BATCH }>::default());
        let mut missing = count;
        while missing > 0 {
            let (blocks, _) = drawn.0.as_chunks_mut::<KEY_LEN>();
            let batch = missing.min(Self::BATCH);
            let (blocks, _) = blocks.split_at_mut(batch);
            rng.fill_bytes(blocks.as_flattened_mut());
            let blocks = blocks.iter().map(Lanes::from_octets);
            polynomials.many.extend(blocks);
            missing -= batch;
        }
        polynomials
    }

    fn coefficients(&self) -> &[Lanes] {
        let few = self.few.0.get(..self.count);
        few.unwrap_or(&self.many)
    }

    /// The polynomials' values at the indices `1..=n`, in order.
    pub(crate) fn each(&self, n: u8, mut take: impl FnMut(NonZeroU8, &Lanes)) {
        let indices = (1..=n).filter_map(NonZeroU8::new);
        let none = Lanes::default();
        let linear = match self.coefficients() {
            [first] => Some((first, &none)),
            [first, second] => Some((first, second)),
            _ => None,
        };
        // Less memory is cleared for few bits.
        match linear {
            Some((first, second)) if n < 8 => {
                self.step_by_step::<3>(first, second, indices, take);
            }
            Some((first, second)) => self.step_by_step::<8>(first, second, indices, take),
            None => {
                for index in indices {
                    let mut value = self.at(index);
                    take(index, &value);
                    value.zeroize();
                }
            }
        }
    }

    /// Up to degree 2, f(x) - f(0) is linear in the bits of x, since squaring is in a field of
    /// characteristic 2: from one index to the next, what the bits that change contribute is added.
    /// `BITS` are as many as the greatest index has.
    fn step_by_step<const BITS: usize>(
        &self,
        first: &Lanes,
        second: &Lanes,
        indices: impl Iterator<Item = NonZeroU8>,
        mut take: impl FnMut(NonZeroU8, &Lanes),
    ) {
        // What each bit of x contributes, as far as it is known; then that of the next bit.
        let mut bits = Zeroizing::new(Bits([Lanes::default(); BITS]));
        let (mut once, mut twice) = (Zeroizing::new(*first), Zeroizing::new(*second));
        let mut known = 0;
        let mut value = Zeroizing::new(*self.key);
        for index in indices {
            let lowest = index.trailing_zeros() as usize;
            if lowest == known {
                if let Some(bit) = bits.0.get_mut(known) {
                    *bit = *once;
                    bit.add(&twice);
                }
                once.double();
                twice.double();
                twice.double();
                known += 1;
            }
            for bit in bits.0.iter().take(lowest + 1) {
                value.add(bit);
            }
            take(index, &value);
        }
    }

    /// The polynomials' values at `index`, by Horner's rule.
    pub(crate) fn at(&self, index: NonZeroU8) -> Lanes {
        let mut value = Lanes::default();
        for coefficient in self.coefficients().iter().rev() {
            value.add(coefficient);
            value = value.times_public(index.get());
        }
        value.add(&self.key);
        value
    }
}

/// One point of an interpolation.
#[derive(Clone, Copy, Default)]
struct Point {
    y: Lanes,
    x: u8,
    /// The product of the differences between this x and the others.
    differences: u8,
}

impl DefaultIsZeroes for Point {}

/// The polynomials of least degree through given points.
pub(crate) struct Interpolation {
    points: Zeroizing<Vec<Point>>,
}

impl Interpolation {
    /// Through points whose x are all different.
    pub(crate) fn through(
        points: impl ExactSizeIterator<Item = (NonZeroU8, Lanes)>,
    ) -> Interpolation {
        let mut all = Zeroizing::new(Vec::with_capacity(points.len()));
        all.extend(points.map(|(x, y)| Point {
            y,
            x: x.get(),
            differences: 0,
        }));
        for position in 0..all.len() {
            let own = all.get(position).map_or(0, |point| point.x);
            let others = all.iter().filter(|point| point.x != own);
            let product = others.fold(1, |p, point| field::mul(p, own ^ point.x));
            if let Some(point) = all.get_mut(position) {
                point.differences = product;
            }
        }
        Interpolation { points: all }
    }

    /// The polynomials' values at `x`, which is none of the points' own.
    ///
    /// The weight of point i is the product of (x - x_j) / (x_i - x_j) over all j other than i;
    /// it depends on indices only, which are public, so tables may serve for it.
    pub(crate) fn at(&self, x: u8) -> Lanes {
        let distances = self.points.iter().map(|point| x ^ point.x);
        let total = distances.fold(1, field::mul);
        let mut value = Lanes::default();
        for point in self.points.iter() {
            let weight = field::div(total, field::mul(x ^ point.x, point.differences));
            value.add(&point.y.times_public(weight));
        }
        value
    }
}

/// Interpolation weights alone.
struct Weights;

impl Weights {
    /// For each of the indices, all different, its point's weight in the value at `x`, which is
    /// none of them. Indices are public.
    fn at(indices: &[NonZeroU8], x: NonZeroU8) -> impl Iterator<Item = (NonZeroU8, u8)> {
        indices.iter().map(move |&own| {
            let others = indices.iter().filter(move |&&other| other != own);
            let weight = others.fold(1, |weight, other| {
                let above = field::mul(weight, x.get() ^ other.get());
                field::div(above, own.get() ^ other.get())
            });
            (own, weight)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gf256::{mul, splat};

    const fn zeroizes_on_drop<T: ZeroizeOnDrop>() {}
    const _: () = {
        zeroizes_on_drop::<Key>();
        zeroizes_on_drop::<KeyShare>();
        zeroizes_on_drop::<Zeroizing<Octets<KEY_LEN>>>();
    };

    #[test]
    fn wiped_values_hold_nothing() {
        let mut octets = Octets([0xff; 44]);
        octets.zeroize();
        assert_eq!(octets.0, [0; 44]);

        let mut point = Point {
            y: Lanes::from_octets(&[0xff; 32]),
            x: 1,
            differences: 2,
        };
        point.zeroize();
        assert!(point.y.equals(&Lanes::default()));
    }

    #[test]
    fn step_by_step_and_by_horner_the_values_are_the_same() {
        for k in 2..=7 {
            let mut octet = 0u8;
            let mut rng = Script(|| {
                octet = octet.wrapping_mul(91).wrapping_add(113);
                octet
            });
            let threshold = Threshold::new(k, 255).unwrap();
            let polynomials = Polynomials::random(&[0x5c; KEY_LEN], threshold, &mut rng);
            let mut next;
            for n in [7, 8, 255u8] {
                next = 1;
                polynomials.each(n, |index, value| {
                    assert_eq!(index.get(), next);
                    assert!(value.equals(&polynomials.at(index)), "{k} at {index}");
                    next = next.wrapping_add(1);
                });
                assert_eq!(next, n.wrapping_add(1));
            }
        }
    }

    struct Script<F>(F);

    impl<F: FnMut() -> u8> rand_core::TryRng for Script<F> {
        type Error = core::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(u32::from((self.0)()))
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(u64::from((self.0)()))
        }
        fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
            to.fill_with(&mut self.0);
            Ok(())
        }
    }

    impl<F: FnMut() -> u8> rand_core::TryCryptoRng for Script<F> {}

    #[test]
    fn an_interpolation_meets_every_further_point_of_its_polynomial() {
        // f(x) = 7 + 9x + x^2 in all lanes, and 1..=3 given.
        let f = |x: u8| {
            let x = splat(x);
            let value = splat(7) ^ mul(splat(9), x) ^ mul(x, x);
            Lanes::from_octets(&[value as u8; KEY_LEN])
        };
        let given = [1, 2, 3].map(|x| (NonZeroU8::new(x).unwrap(), f(x)));
        let interpolation = Interpolation::through(given.into_iter());
        for x in (4..=255).chain([0]) {
            assert!(interpolation.at(x).equals(&f(x)), "at {x}");
        }
    }
}
