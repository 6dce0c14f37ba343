//! A token bucket: how many requests a connection may make.

use std::time::{Duration, Instant};

/// Holds up to `burst` tokens and gains `rate` of them per second.
///
/// Counts in nanoseconds of refill so that no rounding accumulates.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Time needed to gain one token.
    cost: Duration,
    /// The credit a full bucket holds.
    capacity: Duration,
    credit: Duration,
    refilled: Instant,
}

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1 per second, a burst of 0 as 1.
    pub(crate) fn new(now: Instant, rate: u32, burst: u32) -> Bucket {
        let cost = Duration::from_secs(1) / rate.max(1);
        let capacity = cost.saturating_mul(burst.max(1));
        Bucket {
            cost,
            capacity,
            credit: capacity,
            refilled: now,
        }
    }

    /// Takes `tokens` if there are as many; a full bucket pays for anything.
    pub(crate) fn take(&mut self, now: Instant, tokens: u32) -> bool {
        let gained = now.saturating_duration_since(self.refilled);
        self.refilled = self.refilled.max(now);
        self.credit = self.credit.saturating_add(gained).min(self.capacity);
        let cost = self.cost.saturating_mul(tokens).min(self.capacity);
        match self.credit.checked_sub(cost) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::base;

    #[test]
    fn a_burst_is_allowed_then_the_rate_holds() {
        let start = base();
        let mut bucket = Bucket::new(start, 10, 3);
        let taken = (0..5).filter(|_| bucket.take(start, 1)).count();
        assert_eq!(taken, 3);
        assert!(!bucket.take(start + Duration::from_millis(99), 1));
        assert!(bucket.take(start + Duration::from_millis(100), 1));
        assert!(!bucket.take(start + Duration::from_millis(100), 1));
    }

    #[test]
    fn costly_requests_take_more_and_a_full_bucket_pays_for_anything() {
        let start = base();
        let mut bucket = Bucket::new(start, 10, 10);
        assert!(bucket.take(start, 6));
        assert!(!bucket.take(start, 6));
        assert!(bucket.take(start, 4));
        let later = start + Duration::from_secs(10);
        assert!(bucket.take(later, 1_000));
        assert!(!bucket.take(later, 1));
    }

    #[test]
    fn idle_time_never_earns_more_than_the_burst() {
        let start = base();
        let mut bucket = Bucket::new(start, 1_000, 2);
        let later = start + Duration::from_secs(3_600);
        let taken = (0..10).filter(|_| bucket.take(later, 1)).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_earns_nothing() {
        let start = base() + Duration::from_secs(10);
        let mut bucket = Bucket::new(start, 1, 1);
        assert!(bucket.take(start, 1));
        assert!(!bucket.take(start - Duration::from_secs(5), 1));
        assert!(!bucket.take(start, 1));
    }
}
