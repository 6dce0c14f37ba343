//! Scalars of GF(2^8) modulo 0x11b by logarithms, for coding matrices only.
//!
//! Matrices depend on share indices, which are public; nothing secret may pass through here,
//! because the tables are indexed by value.

/// Powers of the generator 3, twice around so that a sum of two logarithms needs no reduction.
const EXP: [u8; 512] = powers();
/// Logarithms to the base 3; the entry of 0 is never used.
const LOG: [u8; 256] = logarithms();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn powers() -> [u8; 512] {
    let mut table = [0; 512];
    let mut value: u8 = 1;
    let mut i = 0;
    while i < 512 {
        table[i] = value;
        // times 3: the value and its double
        value ^= (value << 1) ^ ((value >> 7) * 0x1b);
        i += 1;
    }
    table
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn logarithms() -> [u8; 256] {
    let exp = powers();
    let mut table = [0; 256];
    let mut i = 0;
    while i < 255 {
        table[exp[i] as usize] = i as u8;
        i += 1;
    }
    table
}

fn log(a: u8) -> usize {
    usize::from(LOG.get(usize::from(a)).copied().unwrap_or(0))
}

fn exp(log: usize) -> u8 {
    EXP.get(log).copied().unwrap_or(0)
}

/// The product of two public elements.
pub(crate) fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    exp(log(a) + log(b))
}

/// The quotient of two public elements; 0 when the divisor is 0, which no caller passes.
pub(crate) fn div(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    exp(log(a) + 255 - log(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gf256::{self, splat};

    #[test]
    fn products_and_quotients_agree_with_the_branch_free_field() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let product = mul(a, b);
                assert_eq!(splat(product), gf256::mul(splat(a), splat(b)));
                if b != 0 {
                    assert_eq!(div(product, b), a);
                }
            }
        }
    }
}
