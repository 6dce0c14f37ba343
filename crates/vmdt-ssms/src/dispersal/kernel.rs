//! Linear combinations of octet strings over GF(2^8): the inner loop of all coding.
//!
//! Three forms of one loop, chosen at run time by what the processor has:
//!
//! - AVX-512 with GFNI: an instruction multiplies in this very field (0x11b).
//! - SSSE3, AVX2, NEON, WebAssembly: a product is two look-ups of 16 entries, one per half octet,
//!   and a byte shuffle is 16 to 64 such look-ups at once.
//! - Anything else: doubling in `u64` lanes, which the compiler vectorises for the baseline.
//!
//! `fearless_simd` makes both detection and the shuffles safe to call. The data are pieces of
//! ciphertext and the coefficients follow from share indices: nothing here is secret.

use core::ops::Range;

use alloc::vec::Vec;

#[cfg(feature = "std")]
use fearless_simd::{Level, Simd, prelude::*};

use crate::gf256::{double, splat};

/// What one coefficient does to the 16 values of the low and of the high half of an octet.
/// The coefficient itself stands at `[0][1]`.
type Products = [[u8; 16]; 2];

fn products(coefficient: u8) -> Products {
    // Octets 0..8 of the words stand for the half octets 0..8; a bit of the half octet adds the
    // coefficient times that power of x.
    const BIT: [u64; 3] = [
        0xff00_ff00_ff00_ff00,
        0xffff_0000_ffff_0000,
        0xffff_ffff_0000_0000,
    ];
    let mut power = splat(coefficient);
    let mut tables = [[0; 16]; 2];
    for table in &mut tables {
        let mut word = 0;
        for mask in BIT {
            word ^= power & mask;
            power = double(power);
        }
        let (first, _) = table.as_chunks_mut::<8>();
        for (octets, value) in first.iter_mut().zip([word, word ^ power]) {
            *octets = value.to_le_bytes();
        }
        power = double(power);
    }
    tables
}

/// At most this many rows are computed in one pass over the sources: their sums stay in registers.
const ROWS: usize = 4;

/// A matrix over GF(2^8), ready to be applied.
pub(crate) struct Matrix {
    columns: usize,
    rows: usize,
    /// Groups of up to [`ROWS`] rows; within a group column by column.
    products: Vec<Products>,
}

impl Matrix {
    /// The matrix whose element in row `r`, column `c` is `element(r, c)`.
    pub(crate) fn from_fn(
        rows: usize,
        columns: usize,
        element: impl Fn(usize, usize) -> u8,
    ) -> Matrix {
        let mut all = Vec::with_capacity(rows * columns);
        for first in (0..rows).step_by(ROWS) {
            let group = first..rows.min(first + ROWS);
            for column in 0..columns {
                all.extend(group.clone().map(|row| products(element(row, column))));
            }
        }
        Matrix {
            columns,
            rows,
            products: all,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }
}

/// Which form of the loop runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    /// `u64` lanes.
    Portable,
    /// What the processor has.
    #[cfg(feature = "std")]
    Vector(Level),
}

impl Kernel {
    /// The best one here. Costs an atomic load after the first call.
    pub(crate) fn detect() -> Kernel {
        #[cfg(feature = "std")]
        return Kernel::of(Level::new());
        #[cfg(not(feature = "std"))]
        return Kernel::Portable;
    }

    #[cfg(feature = "std")]
    fn of(level: Level) -> Kernel {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let shuffles = level.as_sse4_2().is_some();
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
        let shuffles = !level.is_fallback();
        if shuffles {
            Kernel::Vector(level)
        } else {
            Kernel::Portable
        }
    }

    /// `outs[r]` becomes the sum over `c` of `matrix[r][c] * ins[c]`.
    ///
    /// All octet strings have one length, and there are as many as the matrix has columns and
    /// rows: callers have checked it, and anything else is left undone.
    pub(crate) fn combine(self, matrix: &Matrix, ins: &[&[u8]], outs: &mut [&mut [u8]]) {
        let len = outs.first().map_or(0, |out| out.len());
        self.combine_range(matrix, ins, outs, 0..len);
    }

    /// As [`Kernel::combine`], only for the octets in `range` of all strings.
    pub(crate) fn combine_range<I: AsRef<[u8]>, O: AsMut<[u8]>>(
        self,
        matrix: &Matrix,
        ins: &[I],
        outs: &mut [O],
        range: Range<usize>,
    ) {
        debug_assert_eq!(ins.len(), matrix.columns);
        debug_assert_eq!(outs.len(), matrix.rows);
        match self {
            Kernel::Portable => each_group(Lanes, matrix, ins, outs, range),
            #[cfg(all(feature = "std", any(target_arch = "x86", target_arch = "x86_64")))]
            Kernel::Vector(Level::Avx512(token)) => token.vectorize(
                #[inline(always)]
                || each_group(gfni::Gfni(token), matrix, ins, outs, range),
            ),
            #[cfg(feature = "std")]
            Kernel::Vector(level) => {
                fearless_simd::dispatch!(level, simd => each_group(Shuffle(simd), matrix, ins, outs, range));
            }
        }
    }

    #[cfg(all(test, not(feature = "std")))]
    pub(crate) fn all() -> Vec<Kernel> {
        alloc::vec![Kernel::Portable]
    }

    /// Every form that runs on this machine, for tests and comparisons.
    #[cfg(all(test, feature = "std"))]
    pub(crate) fn all() -> Vec<Kernel> {
        let level = Level::new();
        let mut all = alloc::vec![Kernel::Portable, Kernel::of(level)];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            all.extend(level.as_avx2().map(|t| Kernel::Vector(t.level())));
            all.extend(level.as_sse4_2().map(|t| Kernel::Vector(t.level())));
        }
        all
    }
}

/// The operations of one form of the loop.
trait Form: Copy {
    /// Some octets of a piece.
    type Octets: Copy;
    /// How many octets there are in `Octets`: 64 at most.
    const LEN: usize;
    /// Whether four `Octets` of each of four rows fit in the registers.
    const WIDE: bool;

    fn zero(self) -> Self::Octets;
    /// `octets` has `LEN` octets, here and in `store`.
    fn load(self, octets: &[u8]) -> Self::Octets;
    fn store(self, value: Self::Octets, octets: &mut [u8]);
    /// `sums[r] += products[r] * values` for all rows.
    ///
    /// Loops over slices only: what `array::map` is made of is compiled without the vector
    /// instructions of its caller when it is not inlined.
    fn multiply_add<const M: usize, const U: usize>(
        self,
        sums: &mut [[Self::Octets; U]; M],
        products: &[Products; M],
        values: &[Self::Octets; U],
    );
}

/// How many octets of all sources together are gone through before the next group of rows: they
/// are to stay in the second-level cache.
const STRIP: usize = 128 << 10;

#[inline(always)]
fn each_group<F: Form, I: AsRef<[u8]>, O: AsMut<[u8]>>(
    form: F,
    matrix: &Matrix,
    ins: &[I],
    outs: &mut [O],
    range: Range<usize>,
) {
    let len = range.end;
    let strip = if matrix.rows <= ROWS {
        len
    } else {
        (STRIP / matrix.columns.max(1))
            .next_multiple_of(256)
            .max(1024)
    };
    let mut from = range.start;
    while from < len {
        let to = len.min(from.saturating_add(strip));
        let groups = matrix.products.chunks(ROWS * matrix.columns.max(1));
        for (products, outs) in groups.zip(outs.chunks_mut(ROWS)) {
            match outs {
                [a, b, c, d] if F::WIDE => {
                    group::<F, I, 4, 4>(
                        form,
                        products,
                        ins,
                        [a.as_mut(), b.as_mut(), c.as_mut(), d.as_mut()],
                        from,
                        to,
                    );
                }
                [a, b, c] if F::WIDE => {
                    group::<F, I, 3, 4>(
                        form,
                        products,
                        ins,
                        [a.as_mut(), b.as_mut(), c.as_mut()],
                        from,
                        to,
                    );
                }
                [a, b] if F::WIDE => {
                    group::<F, I, 2, 4>(form, products, ins, [a.as_mut(), b.as_mut()], from, to)
                }
                [a, b, c, d] => group::<F, I, 4, 1>(
                    form,
                    products,
                    ins,
                    [a.as_mut(), b.as_mut(), c.as_mut(), d.as_mut()],
                    from,
                    to,
                ),
                [a, b, c] => group::<F, I, 3, 1>(
                    form,
                    products,
                    ins,
                    [a.as_mut(), b.as_mut(), c.as_mut()],
                    from,
                    to,
                ),
                [a, b] => {
                    group::<F, I, 2, 2>(form, products, ins, [a.as_mut(), b.as_mut()], from, to)
                }
                [a] => group::<F, I, 1, 4>(form, products, ins, [a.as_mut()], from, to),
                _ => {}
            }
        }
        from = to;
    }
}

/// `M` rows over the octets `from..to`, `U` vectors at a time.
#[inline(always)]
fn group<F: Form, I: AsRef<[u8]>, const M: usize, const U: usize>(
    form: F,
    products: &[Products],
    ins: &[I],
    mut outs: [&mut [u8]; M],
    from: usize,
    to: usize,
) {
    let (columns, _) = products.as_chunks::<M>();
    let mut at = from;
    while to - at >= U * F::LEN {
        step::<F, I, M, U>(form, columns, ins, &mut outs, at);
        at += U * F::LEN;
    }
    while to - at >= F::LEN {
        step::<F, I, M, 1>(form, columns, ins, &mut outs, at);
        at += F::LEN;
    }
    match to.checked_sub(F::LEN) {
        _ if at == to => {}
        // Some octets are computed twice, which is harmless: no row reads another's result.
        Some(last) => step::<F, I, M, 1>(form, columns, ins, &mut outs, last),
        None => short(form, columns, ins, &mut outs, at, to),
    }
}

/// `U` vectors of each row, from the octet `at` on.
#[inline(always)]
fn step<F: Form, I: AsRef<[u8]>, const M: usize, const U: usize>(
    form: F,
    columns: &[[Products; M]],
    ins: &[I],
    outs: &mut [&mut [u8]; M],
    at: usize,
) {
    let mut sums = [[form.zero(); U]; M];
    for (column, source) in columns.iter().zip(ins) {
        let Some(octets) = source.as_ref().get(at..at + U * F::LEN) else {
            return;
        };
        let mut values = [form.zero(); U];
        for (value, octets) in values.iter_mut().zip(octets.chunks_exact(F::LEN)) {
            *value = form.load(octets);
        }
        form.multiply_add(&mut sums, column, &values);
    }
    for (sum, out) in sums.iter().zip(outs) {
        let Some(octets) = out.get_mut(at..at + U * F::LEN) else {
            return;
        };
        for (value, octets) in sum.iter().zip(octets.chunks_exact_mut(F::LEN)) {
            form.store(*value, octets);
        }
    }
}

/// Fewer octets than a vector has, through a buffer.
#[inline(always)]
fn short<F: Form, I: AsRef<[u8]>, const M: usize>(
    form: F,
    columns: &[[Products; M]],
    ins: &[I],
    outs: &mut [&mut [u8]; M],
    from: usize,
    to: usize,
) {
    let mut buffer = [0; 64];
    let mut sums = [[form.zero(); 1]; M];
    for (column, source) in columns.iter().zip(ins) {
        let (Some(octets), Some(head)) =
            (source.as_ref().get(from..to), buffer.get_mut(..to - from))
        else {
            return;
        };
        head.copy_from_slice(octets);
        let value = form.load(buffer.split_at(F::LEN).0);
        form.multiply_add(&mut sums, column, &[value]);
    }
    for ([sum], out) in sums.iter().zip(outs) {
        form.store(*sum, buffer.split_at_mut(F::LEN).0);
        if let (Some(octets), Some(result)) = (out.get_mut(from..to), buffer.get(..to - from)) {
            octets.copy_from_slice(result);
        }
    }
}

/// Multiplication by two shuffles.
#[cfg(feature = "std")]
#[derive(Clone, Copy)]
struct Shuffle<S>(S);

#[cfg(feature = "std")]
impl<S: Simd> Form for Shuffle<S> {
    type Octets = S::u8s;
    const LEN: usize = S::u8s::LEN;
    const WIDE: bool = false;

    #[inline(always)]
    fn zero(self) -> S::u8s {
        S::u8s::splat(self.0, 0)
    }

    #[inline(always)]
    fn load(self, octets: &[u8]) -> S::u8s {
        S::u8s::from_slice(self.0, octets)
    }

    #[inline(always)]
    fn store(self, value: S::u8s, octets: &mut [u8]) {
        value.store_slice(octets);
    }

    #[inline(always)]
    fn multiply_add<const M: usize, const U: usize>(
        self,
        sums: &mut [[S::u8s; U]; M],
        products: &[Products; M],
        values: &[S::u8s; U],
    ) {
        let mask = S::u8s::splat(self.0, 0x0f);
        let (mut lows, mut highs) = (*values, *values);
        for low in &mut lows {
            *low &= mask;
        }
        for high in &mut highs {
            *high = (*high >> 4u32) & mask;
        }
        for (sums, [low, high]) in sums.iter_mut().zip(products) {
            if low[1] == 1 {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum ^= *value;
                }
                continue;
            }
            let low = S::u8s::block_splat(fearless_simd::u8x16::from_slice(self.0, low));
            let high = S::u8s::block_splat(fearless_simd::u8x16::from_slice(self.0, high));
            for ((sum, l), h) in sums.iter_mut().zip(&lows).zip(&highs) {
                *sum ^= low.swizzle_dyn_within_blocks(*l) ^ high.swizzle_dyn_within_blocks(*h);
            }
        }
    }
}

#[cfg(all(feature = "std", any(target_arch = "x86", target_arch = "x86_64")))]
mod gfni {
    //! Multiplication by the instruction made for it.

    use super::{Form, Products};
    use fearless_simd::{Avx512, prelude::*, u8x64};

    #[derive(Clone, Copy)]
    pub(super) struct Gfni(pub(super) Avx512);

    fearless_simd::kernel!(
        #[inline(always)]
        fn multiply(token: Avx512, a: u8x64<Avx512>, b: u8x64<Avx512>) -> u8x64<Avx512> {
            #[cfg(target_arch = "x86")]
            use core::arch::x86::_mm512_gf2p8mul_epi8;
            #[cfg(target_arch = "x86_64")]
            use core::arch::x86_64::_mm512_gf2p8mul_epi8;

            _mm512_gf2p8mul_epi8(a.into(), b.into()).simd_into(token)
        }
    );

    impl Form for Gfni {
        type Octets = u8x64<Avx512>;
        const LEN: usize = 64;
        const WIDE: bool = true;

        #[inline(always)]
        fn zero(self) -> Self::Octets {
            u8x64::splat(self.0, 0)
        }

        #[inline(always)]
        fn load(self, octets: &[u8]) -> Self::Octets {
            u8x64::from_slice(self.0, octets)
        }

        #[inline(always)]
        fn store(self, value: Self::Octets, octets: &mut [u8]) {
            value.store_slice(octets);
        }

        #[inline(always)]
        fn multiply_add<const M: usize, const U: usize>(
            self,
            sums: &mut [[Self::Octets; U]; M],
            products: &[Products; M],
            values: &[Self::Octets; U],
        ) {
            for (sums, [low, _]) in sums.iter_mut().zip(products) {
                let factor = u8x64::splat(self.0, low[1]);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum ^= multiply(self.0, *value, factor);
                }
            }
        }
    }
}

/// Multiplication bit by bit, in words.
#[derive(Clone, Copy)]
struct Lanes;

impl Form for Lanes {
    type Octets = [u64; 4];
    const LEN: usize = 32;
    const WIDE: bool = false;

    #[inline(always)]
    fn zero(self) -> [u64; 4] {
        [0; 4]
    }

    #[inline(always)]
    fn load(self, octets: &[u8]) -> [u64; 4] {
        let mut words = [0; 4];
        for (word, octets) in words.iter_mut().zip(octets.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*octets);
        }
        words
    }

    #[inline(always)]
    fn store(self, value: [u64; 4], octets: &mut [u8]) {
        for (octets, word) in octets.as_chunks_mut::<8>().0.iter_mut().zip(value) {
            *octets = word.to_le_bytes();
        }
    }

    #[inline(always)]
    fn multiply_add<const M: usize, const U: usize>(
        self,
        sums: &mut [[[u64; 4]; U]; M],
        products: &[Products; M],
        values: &[[u64; 4]; U],
    ) {
        let mut values = *values;
        for bit in 0..8 {
            for (sums, [low, _]) in sums.iter_mut().zip(products) {
                let mask = 0u64.wrapping_sub(u64::from(low[1] >> bit) & 1);
                for (sum, value) in sums
                    .as_flattened_mut()
                    .iter_mut()
                    .zip(values.as_flattened())
                {
                    *sum ^= value & mask;
                }
            }
            for value in values.as_flattened_mut() {
                *value = double(*value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispersal::field;

    #[test]
    fn products_are_those_of_the_field() {
        for coefficient in 0..=255u8 {
            let [low, high] = products(coefficient);
            for half in 0..16u8 {
                assert_eq!(low[usize::from(half)], field::mul(coefficient, half));
                assert_eq!(high[usize::from(half)], field::mul(coefficient, half << 4));
            }
        }
    }

    #[test]
    fn every_form_agrees_with_the_definition_at_every_length_and_shape() {
        let octet = |i: usize, j: usize| (i.wrapping_mul(197) ^ j.wrapping_mul(83)) as u8;
        let shapes = [(1, 2), (2, 3), (3, 3), (4, 2), (5, 7), (9, 4), (13, 17)];
        for (rows, columns) in shapes {
            let element = |r: usize, c: usize| octet(r + 1, c + 5).wrapping_mul(31);
            let matrix = Matrix::from_fn(rows, columns, element);
            for len in (0..200).chain([255, 256, 257, 511, 512, 1023, 4096, 70_001]) {
                let sources: Vec<Vec<u8>> = (0..columns)
                    .map(|c| {
                        (0..len)
                            .map(|i| octet(c + 11, i) ^ (i >> 8) as u8)
                            .collect()
                    })
                    .collect();
                let ins: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
                let mut want = alloc::vec![alloc::vec![0; len]; rows];
                // Long ones are compared form against form: the definition is slow.
                let defined = len <= 600;
                for (r, want) in want.iter_mut().enumerate().filter(|_| defined) {
                    for (i, want) in want.iter_mut().enumerate() {
                        for (c, source) in sources.iter().enumerate() {
                            *want ^= field::mul(element(r, c), source[i]);
                        }
                    }
                }
                if !defined {
                    let mut outs: Vec<&mut [u8]> = want.iter_mut().map(Vec::as_mut_slice).collect();
                    Kernel::Portable.combine(&matrix, &ins, &mut outs);
                }
                for kernel in Kernel::all() {
                    let mut got = alloc::vec![alloc::vec![0xaa; len]; rows];
                    let mut outs: Vec<&mut [u8]> = got.iter_mut().map(Vec::as_mut_slice).collect();
                    kernel.combine(&matrix, &ins, &mut outs);
                    assert!(got == want, "{kernel:?}: {rows} by {columns}, {len} octets");
                }
            }
        }
    }
}
