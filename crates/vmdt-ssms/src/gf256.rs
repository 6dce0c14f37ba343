//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (0x11b, the field of AES).
//!
//! All of it works on eight field elements at a time, the octets of a `u64`, with shifts, masks
//! and exclusive or: no table, no branch, and no time that depends on a value. Where an operand is
//! public (a share index, a Lagrange weight) its doc says so, and the number of steps may depend
//! on it.

use zeroize::DefaultIsZeroes;

/// The low bit of each octet.
const LOW: u64 = 0x0101_0101_0101_0101;
/// The high bit of each octet.
const HIGH: u64 = 0x8080_8080_8080_8080;
/// What x^8 reduces to, in each octet: x^4 + x^3 + x + 1.
const REDUCE: u64 = 0x1b1b_1b1b_1b1b_1b1b;

/// `value` in all eight octets.
#[inline]
pub(crate) const fn splat(value: u8) -> u64 {
    (value as u64) * LOW
}

/// Each octet times x.
#[inline]
pub(crate) const fn double(v: u64) -> u64 {
    let carry = v & HIGH;
    // Per octet 0x80 - 0x01 = 0x7f, which covers all bits of 0x1b; no borrow leaves an octet.
    ((v ^ carry) << 1) ^ ((carry - (carry >> 7)) & REDUCE)
}

/// 0xff in the octets whose bit `bit` is set, 0 in the others.
#[cfg(test)]
const fn spread_bit(v: u64, bit: u32) -> u64 {
    ((v >> bit) & LOW) * 0xff
}

/// Octet by octet product: what tests hold the other ways to multiply against.
#[cfg(test)]
pub(crate) const fn mul(mut a: u64, b: u64) -> u64 {
    let mut product = a & spread_bit(b, 0);
    let mut bit = 1;
    while bit < 8 {
        a = double(a);
        product ^= a & spread_bit(b, bit);
        bit += 1;
    }
    product
}

/// 32 field elements: a key, a key share, or one coefficient of each of a key's 32 polynomials.
///
/// It is `Copy` for the arithmetic's sake; whoever keeps one zeroizes it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lanes([u64; 4]);

/// Lets `zeroize` overwrite a whole value with one wide volatile write.
impl DefaultIsZeroes for Lanes {}

impl Lanes {
    #[inline]
    pub(crate) fn from_octets(octets: &[u8; 32]) -> Lanes {
        let mut words = [0; 4];
        let (chunks, _) = octets.as_chunks::<8>();
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_le_bytes(*chunk);
        }
        Lanes(words)
    }

    #[inline]
    pub(crate) fn write_to(&self, octets: &mut [u8; 32]) {
        let (chunks, _) = octets.as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(&self.0) {
            *chunk = word.to_le_bytes();
        }
    }

    /// `self += other`.
    #[inline]
    pub(crate) fn add(&mut self, other: &Lanes) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a ^= b;
        }
    }

    /// `self *= x`.
    #[inline]
    pub(crate) fn double(&mut self) {
        for word in &mut self.0 {
            *word = double(*word);
        }
    }

    /// `self * scalar`, where the scalar is public: the number of steps follows its bit length.
    #[inline]
    pub(crate) fn times_public(&self, scalar: u8) -> Lanes {
        let mut product = Lanes::default();
        for bit in (0..8 - scalar.leading_zeros()).rev() {
            let mask = 0u64.wrapping_sub(u64::from(scalar >> bit) & 1);
            for (p, v) in product.0.iter_mut().zip(&self.0) {
                *p = double(*p) ^ (v & mask);
            }
        }
        product
    }

    /// Whether both hold the same elements, in a time that does not depend on where they differ.
    #[inline]
    pub(crate) fn equals(&self, other: &Lanes) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |d, (a, b)| d | (a ^ b));
        core::hint::black_box(difference) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as in a textbook: long multiplication, then long division by 0x11b.
    fn schoolbook(a: u8, b: u8) -> u8 {
        let mut product: u16 = 0;
        for i in 0..8 {
            if b & (1 << i) != 0 {
                product ^= u16::from(a) << i;
            }
        }
        for i in (8..16).rev() {
            if product & (1 << i) != 0 {
                product ^= 0x11b << (i - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn schoolbook_agrees_with_fips_197_section_4_2() {
        assert_eq!(schoolbook(0x57, 0x83), 0xc1);
        assert_eq!(schoolbook(0x57, 0x13), 0xfe);
    }

    #[test]
    fn multiplication_agrees_with_schoolbook_on_all_pairs() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let want = schoolbook(a, b);
                assert_eq!(mul(splat(a), splat(b)), splat(want), "{a:#x} * {b:#x}");
                let lanes = Lanes::from_octets(&[a; 32]).times_public(b);
                assert!(
                    lanes.equals(&Lanes::from_octets(&[want; 32])),
                    "{a:#x} * {b:#x}"
                );
            }
        }
    }

    #[test]
    fn lanes_do_not_touch_each_other() {
        let (mut a, mut b) = ([0u8; 8], [0u8; 8]);
        for i in 0..=65_535u32 {
            for j in 0..8u32 {
                let x = i
                    .wrapping_mul(0x9e37_79b9)
                    .wrapping_add(j.wrapping_mul(0x85eb_ca6b));
                a[j as usize] = (x >> 8) as u8;
                b[j as usize] = (x >> 21) as u8;
            }
            let product = mul(u64::from_le_bytes(a), u64::from_le_bytes(b)).to_le_bytes();
            for j in 0..8 {
                assert_eq!(product[j], schoolbook(a[j], b[j]));
            }
        }
    }

    #[test]
    fn lanes_keep_octet_order() {
        let octets: [u8; 32] = core::array::from_fn(|i| i as u8 * 7 + 1);
        let mut back = [0; 32];
        Lanes::from_octets(&octets).write_to(&mut back);
        assert_eq!(back, octets);
        for i in 0..32 {
            let mut other = octets;
            other[i] ^= 0x40;
            assert!(!Lanes::from_octets(&octets).equals(&Lanes::from_octets(&other)));
        }
    }
}
