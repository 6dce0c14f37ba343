//! Sequence numbers of a flow's segments.

use core::fmt;

/// A 16-bit segment sequence number with serial arithmetic (RFC 1982).
///
/// The numbers run in a circle, so there is no total order and the type does not implement
/// `Ord`: [`precedes`](Self::precedes) is the question that has an answer.
///
/// ```
/// use vmdt_wire::Seq;
///
/// let last = Seq(u16::MAX);
/// assert_eq!(last.next(), Seq(0));
/// assert!(last.precedes(Seq(0)));
/// assert_eq!(Seq(3).distance(last), 4);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u16);

impl Seq {
    /// The first number of a flow.
    pub const ZERO: Self = Self(0);

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        self.wrapping_add(1)
    }

    /// The number `count` further on, modulo 2^16.
    #[must_use]
    pub const fn wrapping_add(self, count: u16) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// The number `count` further back, modulo 2^16.
    #[must_use]
    pub const fn wrapping_sub(self, count: u16) -> Self {
        Self(self.0.wrapping_sub(count))
    }

    /// How many steps forward lead from `from` to `self`, 0 to 65,535.
    #[must_use]
    pub const fn distance(self, from: Self) -> u16 {
        self.0.wrapping_sub(from.0)
    }

    /// Whether `self` comes before `other`: fewer than 2^15 steps forward lead to it.
    ///
    /// Two numbers exactly 2^15 apart are not ordered (RFC 1982 section 3.2): neither precedes.
    #[must_use]
    pub const fn precedes(self, other: Self) -> bool {
        let ahead = other.distance(self);
        ahead != 0 && ahead < 0x8000
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seq({})", self.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u16> for Seq {
    fn from(number: u16) -> Self {
        Self(number)
    }
}

impl From<Seq> for u16 {
    fn from(seq: Seq) -> Self {
        seq.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wraps_at_the_end() {
        assert_eq!(Seq(u16::MAX).next(), Seq(0));
        assert_eq!(Seq(0).wrapping_sub(1), Seq(u16::MAX));
        assert_eq!(Seq(65_000).wrapping_add(1_000), Seq(464));
    }

    #[test]
    fn nothing_precedes_itself_or_its_antipode() {
        assert!(!Seq(7).precedes(Seq(7)));
        assert!(!Seq(0).precedes(Seq(0x8000)));
        assert!(!Seq(0x8000).precedes(Seq(0)));
        assert!(Seq(0).precedes(Seq(0x7fff)));
        assert!(!Seq(0).precedes(Seq(0x8001)));
    }

    proptest! {
        #[test]
        fn distance_undoes_addition(start: u16, count: u16) {
            prop_assert_eq!(Seq(start).wrapping_add(count).distance(Seq(start)), count);
        }

        #[test]
        fn at_most_one_of_two_precedes(a: u16, b: u16) {
            prop_assert!(!(Seq(a).precedes(Seq(b)) && Seq(b).precedes(Seq(a))));
            let ordered = Seq(a).precedes(Seq(b)) || Seq(b).precedes(Seq(a));
            prop_assert_eq!(ordered, a != b && a.wrapping_sub(b) != 0x8000);
        }
    }
}
