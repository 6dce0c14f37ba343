//! Packet numbers left out on purpose, so that a receiver that acknowledges what has not arrived
//! gives itself away (RFC 9000 section 21.4).

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Skipped numbers remembered.
const REMEMBERED: usize = 16;
/// Mean distance between two skipped numbers, at first, at least and at most.
const MIN_MEAN: u64 = 64;
const MAX_MEAN: u64 = 1 << 17;
/// The distance is adapted so that about this much time lies between two: each is a hole in the
/// peer's ranges for as long as it remembers them.
const SPACING: Duration = Duration::from_millis(500);

/// Which numbers to skip, and which were.
#[derive(Clone, Debug)]
pub(crate) struct Skips {
    /// Skip at this number or the next one after it; `None` until the numbers have begun.
    next: Option<u64>,
    mean: u64,
    last_at: Option<Instant>,
    skipped: VecDeque<u64>,
}

impl Skips {
    pub(crate) fn new() -> Self {
        Self {
            next: None,
            mean: MIN_MEAN,
            last_at: None,
            skipped: VecDeque::new(),
        }
    }

    /// Whether `number`, the next to be given out, is to be skipped. `random` is asked only when
    /// a distance has to be drawn, uniformly from 1 to twice the mean, so that no number is safe
    /// to guess.
    pub(crate) fn is_due(
        &mut self,
        now: Instant,
        number: u64,
        random: impl FnOnce() -> u32,
    ) -> bool {
        let due = self.next.is_some_and(|next| number >= next);
        if due {
            if self.skipped.len() >= REMEMBERED {
                self.skipped.pop_front();
            }
            self.skipped.push_back(number);
            if let Some(at) = self.last_at.replace(now) {
                let elapsed = now.saturating_duration_since(at);
                if elapsed < SPACING {
                    self.mean = (self.mean * 2).min(MAX_MEAN);
                } else if elapsed > SPACING * 4 {
                    self.mean = (self.mean / 2).max(MIN_MEAN);
                }
            }
        }
        if due || self.next.is_none() {
            let distance = 1 + u64::from(random()) % (2 * self.mean);
            self.next = Some(number + distance);
        }
        due
    }

    /// A skipped number in this range.
    pub(crate) fn named_by(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        self.skipped
            .iter()
            .copied()
            .find(|number| range.contains(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    /// Sends `count` packets `micros` apart; the numbers skipped.
    fn skipped(count: u64, micros: u64) -> Vec<u64> {
        let t = base();
        let mut skips = Skips::new();
        let mut state = 1u32;
        let mut number = 1000;
        let mut all = Vec::new();
        for packet in 0..count {
            let random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            if skips.is_due(t + Duration::from_micros(packet * micros), number, random) {
                assert_eq!(skips.named_by(&(number..=number)), Some(number));
                assert_eq!(skips.named_by(&(number + 1..=number + 9)), None);
                all.push(number);
                number += 1;
            }
            number += 1;
        }
        assert!(skips.skipped.len() <= REMEMBERED);
        all
    }

    #[test]
    fn a_slow_path_skips_one_number_in_a_hundred_or_so() {
        let all = skipped(10_000, 10_000);
        assert!((40..250).contains(&all.len()), "{}", all.len());
        assert!(all[0] <= 1000 + 2 * MIN_MEAN);
    }

    #[test]
    fn a_fast_path_skips_a_few_numbers_per_second() {
        // 100,000 packets a second for ten seconds.
        let all = skipped(1_000_000, 10);
        assert!((8..60).contains(&all.len()), "{}", all.len());
    }
}
