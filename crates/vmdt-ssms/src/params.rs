//! The parameters of a split, checked once.

use core::fmt;
use core::num::NonZeroU8;

use crate::error::ThresholdError;

/// How many shares are made (`n`) and how many of them rebuild the message (`k`).
///
/// `2 <= k <= n <= 255` always holds: with `k = 1` every share would be the message, and the
/// share index is one octet that is never 0.
///
/// ```
/// use vmdt_ssms::Threshold;
///
/// let threshold = Threshold::new(3, 5)?;
/// assert_eq!((threshold.k(), threshold.n()), (3, 5));
/// assert!(Threshold::new(1, 5).is_err());
/// assert!(Threshold::new(6, 5).is_err());
/// # Ok::<(), vmdt_ssms::ThresholdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold {
    k: NonZeroU8,
    n: NonZeroU8,
}

impl Threshold {
    /// `k` of `n`.
    ///
    /// # Errors
    ///
    /// [`ThresholdError::TooLow`] when `k < 2`, [`ThresholdError::AboveTotal`] when `k > n`.
    pub const fn new(k: u8, n: u8) -> Result<Threshold, ThresholdError> {
        if k < 2 {
            return Err(ThresholdError::TooLow { k });
        }
        match (NonZeroU8::new(k), NonZeroU8::new(n)) {
            (Some(k), Some(n)) if k.get() <= n.get() => Ok(Threshold { k, n }),
            _ => Err(ThresholdError::AboveTotal { k, n }),
        }
    }

    /// The number of shares that rebuild the message, 2..=255.
    #[must_use]
    pub const fn k(self) -> u8 {
        self.k.get()
    }

    /// The number of shares that are made, `k`..=255.
    #[must_use]
    pub const fn n(self) -> u8 {
        self.n.get()
    }

    /// The indices of the shares that are made: `1..=n`, ascending.
    pub fn indices(self) -> impl Iterator<Item = NonZeroU8> {
        (1..=self.n.get()).filter_map(NonZeroU8::new)
    }
}

impl fmt::Debug for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threshold({} of {})", self.k, self.n)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.k, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_exactly_two_to_n() {
        for k in 0..=255u8 {
            for n in 0..=255u8 {
                let ok = 2 <= k && k <= n;
                assert_eq!(Threshold::new(k, n).is_ok(), ok, "k {k} n {n}");
            }
        }
    }

    #[test]
    fn errors_carry_the_numbers() {
        assert_eq!(Threshold::new(1, 9), Err(ThresholdError::TooLow { k: 1 }));
        assert_eq!(Threshold::new(0, 0), Err(ThresholdError::TooLow { k: 0 }));
        assert_eq!(
            Threshold::new(4, 3),
            Err(ThresholdError::AboveTotal { k: 4, n: 3 })
        );
    }

    #[test]
    fn indices_run_from_one_to_n() {
        let all: std::vec::Vec<u8> = Threshold::new(2, 255)
            .unwrap()
            .indices()
            .map(NonZeroU8::get)
            .collect();
        assert_eq!(all, (1..=255).collect::<std::vec::Vec<u8>>());
    }
}
