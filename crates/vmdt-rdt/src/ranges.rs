//! Received packet numbers as a bounded set of ranges.

use std::collections::VecDeque;

/// Result of noting a packet number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Never seen. `gap` says that it did not extend the newest range at its upper end.
    New { gap: bool },
    /// Seen already.
    Duplicate,
    /// So old that it can't be told from a duplicate.
    Forgotten,
}

/// Packet numbers received, newest `capacity` ranges.
///
/// Invariant: ranges ascend, are inclusive, and neither touch nor overlap; everything below
/// `floor` is forgotten.
#[derive(Clone, Debug)]
pub(crate) struct RangeSet {
    ranges: VecDeque<(u64, u64)>,
    floor: u64,
    capacity: usize,
}

impl RangeSet {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            ranges: VecDeque::new(),
            floor: 0,
            capacity: capacity.max(1),
        }
    }

    /// The largest number noted.
    pub(crate) fn largest(&self) -> Option<u64> {
        self.ranges.back().map(|range| range.1)
    }

    /// What [`insert`](Self::insert) would answer.
    pub(crate) fn peek(&self, value: u64) -> Noted {
        if value < self.floor {
            return Noted::Forgotten;
        }
        if self.largest().is_none_or(|largest| value > largest) {
            return Noted::New {
                gap: self.largest().is_some_and(|largest| value > largest + 1),
            };
        }
        let at = self.ranges.partition_point(|range| range.1 < value);
        match self.ranges.get(at) {
            Some(range) if range.0 <= value => Noted::Duplicate,
            _ => Noted::New { gap: true },
        }
    }

    /// Notes a number. Constant time at the upper end, else logarithmic plus a move of at most
    /// `capacity` ranges.
    pub(crate) fn insert(&mut self, value: u64) -> Noted {
        if value < self.floor {
            return Noted::Forgotten;
        }
        match self.ranges.back_mut() {
            None => {
                self.ranges.push_back((value, value));
                return Noted::New { gap: false };
            }
            Some(last) if value == last.1 + 1 => {
                last.1 = value;
                return Noted::New { gap: false };
            }
            Some(last) if value > last.1 => {
                self.ranges.push_back((value, value));
                self.trim();
                return Noted::New { gap: true };
            }
            Some(_) => {}
        }
        // First range that ends at or after `value - 1`: the only ones it can touch are this
        // one and the next.
        let at = self
            .ranges
            .partition_point(|range| range.1.saturating_add(1) < value);
        let Some(&(lo, hi)) = self.ranges.get(at) else {
            return Noted::Duplicate;
        };
        if (lo..=hi).contains(&value) {
            return Noted::Duplicate;
        }
        if value == hi + 1 {
            let next = self.ranges.get(at + 1).copied();
            match next {
                Some((next_lo, _)) if next_lo == value => return Noted::Duplicate,
                Some((next_lo, next_hi)) if next_lo == value + 1 => {
                    self.ranges.remove(at + 1);
                    if let Some(range) = self.ranges.get_mut(at) {
                        range.1 = next_hi;
                    }
                }
                _ => {
                    if let Some(range) = self.ranges.get_mut(at) {
                        range.1 = value;
                    }
                }
            }
        } else if value + 1 == lo {
            if let Some(range) = self.ranges.get_mut(at) {
                range.0 = value;
            }
        } else {
            self.ranges.insert(at, (value, value));
            self.trim();
        }
        Noted::New { gap: true }
    }

    /// Ranges, newest first, as inclusive `(low, high)`.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().rev().copied()
    }

    /// Forgets the ranges that end below `number`, but never the newest.
    pub(crate) fn forget_below(&mut self, number: u64) {
        while self.ranges.len() > 1 && self.ranges.front().is_some_and(|range| range.1 < number) {
            if let Some((_, hi)) = self.ranges.pop_front() {
                self.floor = hi + 1;
            }
        }
    }

    fn trim(&mut self) {
        while self.ranges.len() > self.capacity {
            if let Some((_, hi)) = self.ranges.pop_front() {
                self.floor = hi + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn consecutive_numbers_are_one_range() {
        let mut set = RangeSet::new(4);
        for n in 10..20 {
            assert_eq!(set.insert(n), Noted::New { gap: false });
        }
        assert_eq!(set.newest_first().collect::<Vec<_>>(), [(10, 19)]);
        assert_eq!(set.insert(15), Noted::Duplicate);
    }

    #[test]
    fn a_filled_hole_joins_its_neighbours() {
        let mut set = RangeSet::new(4);
        for n in [1, 2, 4, 5] {
            set.insert(n);
        }
        assert_eq!(set.newest_first().collect::<Vec<_>>(), [(4, 5), (1, 2)]);
        assert_eq!(set.insert(3), Noted::New { gap: true });
        assert_eq!(set.newest_first().collect::<Vec<_>>(), [(1, 5)]);
    }

    #[test]
    fn the_oldest_range_is_forgotten_at_the_bound() {
        let mut set = RangeSet::new(2);
        for n in [1, 3, 5] {
            set.insert(n);
        }
        assert_eq!(set.newest_first().collect::<Vec<_>>(), [(5, 5), (3, 3)]);
        assert_eq!(set.insert(1), Noted::Forgotten);
        assert_eq!(set.insert(2), Noted::New { gap: true });
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(values in proptest::collection::vec(0u64..200, 0..300)) {
            let mut set = RangeSet::new(1000);
            let mut model = BTreeSet::new();
            for value in values {
                let peeked = set.peek(value);
                let noted = set.insert(value);
                prop_assert_eq!(peeked, noted);
                prop_assert_eq!(matches!(noted, Noted::New { .. }), model.insert(value));
            }
            let listed: Vec<u64> = set
                .newest_first()
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .flat_map(|(lo, hi)| lo..=hi)
                .collect();
            prop_assert_eq!(listed, model.into_iter().collect::<Vec<_>>());
            let ranges: Vec<_> = set.newest_first().collect();
            for pair in ranges.windows(2) {
                prop_assert!(pair[1].1 + 1 < pair[0].0, "ranges must not touch");
            }
        }

        #[test]
        fn never_holds_more_than_its_capacity(
            capacity in 1usize..8,
            values in proptest::collection::vec(0u64..500, 0..300),
        ) {
            let mut set = RangeSet::new(capacity);
            for value in values {
                set.insert(value);
                prop_assert!(set.ranges.len() <= capacity);
            }
        }
    }
}
