//! Which k of the shares that came are tried next.

/// Walks through the k-subsets of positions 0, 1, 2, … in colexicographic order: all subsets of the
/// first m positions come before any that needs position m. Each is visited once, and the walk
/// simply waits at the first that needs a share which has not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subsets {
    /// Ascending.
    chosen: Vec<u8>,
}

impl Subsets {
    pub(crate) fn new(k: u8) -> Self {
        Subsets {
            chosen: (0..k).collect(),
        }
    }

    /// How many shares must have come for the current subset.
    pub(crate) fn reach(&self) -> usize {
        self.chosen.last().map_or(0, |last| usize::from(*last) + 1)
    }

    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.chosen.iter().map(|position| usize::from(*position))
    }

    /// Goes on to the next subset.
    pub(crate) fn advance(&mut self) {
        let mut rest = self.chosen.as_mut_slice();
        let mut reset = 0;
        // The first position that can move up without meeting the next one does; those below it
        // start anew.
        while let [first, tail @ ..] = rest {
            if tail.first().is_none_or(|next| *first + 1 < *next) {
                *first = first.saturating_add(1);
                break;
            }
            *first = reset;
            reset += 1;
            rest = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_subset_comes_once_and_earlier_shares_first() {
        for (k, n) in [(2_u8, 2_u8), (2, 5), (3, 5), (3, 7), (5, 6), (4, 4)] {
            let mut subsets = Subsets::new(k);
            let mut seen = BTreeSet::new();
            let mut reach = usize::from(k);
            while subsets.reach() <= usize::from(n) {
                let now: Vec<_> = subsets.positions().collect();
                assert_eq!(now.len(), usize::from(k));
                assert!(now.windows(2).all(|pair| pair[0] < pair[1]), "{now:?}");
                assert!(subsets.reach() >= reach, "{now:?}");
                reach = subsets.reach();
                assert!(seen.insert(now));
                subsets.advance();
            }
            let binomial = (0..u64::from(k)).fold(1, |acc, i| acc * (u64::from(n) - i) / (i + 1));
            assert_eq!(seen.len() as u64, binomial, "{k} of {n}");
        }
    }

    #[test]
    fn the_largest_threshold_does_not_overflow() {
        let mut subsets = Subsets::new(255);
        assert_eq!(subsets.reach(), 255);
        subsets.advance();
        assert_eq!(subsets.reach(), 256);
    }
}
