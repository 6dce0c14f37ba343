//! Numbers as ranges, for the counters that were delivered.

use std::collections::BTreeMap;

/// A set of numbers that is kept as the ranges it consists of, the lowest forgotten beyond a window.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ranges {
    /// First and last of each range; ranges neither touch nor overlap.
    ranges: BTreeMap<u32, u32>,
    /// All below it are gone.
    floor: u32,
}

impl Ranges {
    pub(crate) fn contains(&self, number: u32) -> bool {
        let before = self.ranges.range(..=number).next_back();
        before.is_some_and(|(_, last)| *last >= number)
    }

    /// Whether a number is below what is remembered.
    pub(crate) fn is_below(&self, number: u32) -> bool {
        number < self.floor
    }

    /// Adds a number; false when it was there, or is below what is remembered.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        if self.contains(number) || self.is_below(number) {
            return false;
        }
        let (mut first, mut last) = (number, number);
        if let Some(next) = number.checked_add(1)
            && let Some(end) = self.ranges.remove(&next)
        {
            last = end;
        }
        if let Some((start, end)) = self.ranges.range(..number).next_back()
            && end.checked_add(1) == Some(number)
        {
            first = *start;
        }
        self.ranges.insert(first, last);
        true
    }

    /// Forgets what is `window` or more below the highest number. Returns the lowest that is
    /// remembered still.
    pub(crate) fn keep(&mut self, window: u32) -> u32 {
        let highest = self.ranges.values().next_back().copied().unwrap_or(0);
        let floor = highest.saturating_sub(window.saturating_sub(1));
        while let Some((first, last)) = self.ranges.first_key_value().map(|(f, l)| (*f, *l))
            && first < floor
        {
            self.ranges.remove(&first);
            if last >= floor {
                self.ranges.insert(floor, last);
            }
        }
        self.floor = self.floor.max(floor);
        self.floor
    }

    /// The ranges, the one with the largest numbers first.
    pub(crate) fn descending(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.ranges
            .iter()
            .rev()
            .map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(ranges: &Ranges) -> BTreeSet<u32> {
        ranges.descending().flat_map(|(f, l)| f..=l).collect()
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_inserted(all in proptest::collection::vec(0u32..60, 0..80), window in 1u32..70) {
            let (mut set, mut ranges) = (BTreeSet::new(), Ranges::default());
            for number in all {
                prop_assert_eq!(ranges.insert(number), set.insert(number));
            }
            prop_assert_eq!(&numbers(&ranges), &set);
            let all: Vec<_> = ranges.descending().collect();
            prop_assert!(all.is_sorted_by(|a, b| a.0 > b.1 + 1), "they neither touch nor overlap");
            let floor = ranges.keep(window);
            let highest = set.last().copied().unwrap_or(0);
            set.retain(|n| n + window > highest);
            prop_assert_eq!(&numbers(&ranges), &set);
            prop_assert!(floor == 0 || !ranges.insert(floor - 1), "what is below is not taken again");
        }
    }

    #[test]
    fn the_largest_number_has_none_after_it() {
        let mut ranges = Ranges::default();
        assert!(ranges.insert(u32::MAX) && ranges.insert(u32::MAX - 1) && !ranges.insert(u32::MAX));
        assert_eq!(ranges.descending().next(), Some((u32::MAX - 1, u32::MAX)));
    }
}
