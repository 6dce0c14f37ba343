//! A token bucket: how many requests a connection may make.

use std::time::Instant;

/// Holds up to `burst` tokens and gains `rate` of them per second.
///
/// Counts in nanoseconds of refill so that no rounding accumulates.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Nanoseconds needed to gain one token: at most 10^9.
    cost: u64,
    /// The credit a full bucket holds: at most 10^9 * 2^32, which fits.
    capacity: i64,
    /// Negative when tokens are owed, by a full bucket at most.
    credit: i64,
    refilled: Instant,
}

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1 per second, a burst of 0 as 1.
    pub(crate) fn new(now: Instant, rate: u32, burst: u32) -> Bucket {
        let cost = 1_000_000_000 / u64::from(rate.max(1));
        let capacity = nanoseconds(cost, burst.max(1));
        Bucket {
            cost,
            capacity,
            credit: capacity,
            refilled: now,
        }
    }

    /// Takes `tokens` if there are as many; a full bucket pays for anything.
    pub(crate) fn take(&mut self, now: Instant, tokens: u32) -> bool {
        if now > self.refilled {
            let gained = now.saturating_duration_since(self.refilled).as_nanos();
            let gained = i64::try_from(gained).unwrap_or(i64::MAX);
            self.credit = self.credit.saturating_add(gained).min(self.capacity);
            self.refilled = now;
        }
        let cost = nanoseconds(self.cost, tokens).min(self.capacity);
        let enough = self.credit >= cost;
        if enough {
            self.credit -= cost;
        }
        enough
    }

    /// Takes `tokens` that need not be there, and are missed later: no more than a
    /// full bucket below nothing.
    pub(crate) fn owe(&mut self, tokens: u32) {
        let cost = nanoseconds(self.cost, tokens);
        self.credit = self.credit.saturating_sub(cost).max(-self.capacity);
    }
}

fn nanoseconds(cost: u64, tokens: u32) -> i64 {
    i64::try_from(cost.saturating_mul(u64::from(tokens))).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn what_is_owed_is_paid_before_anything_else_and_is_bounded() {
        let start = base();
        let mut bucket = Bucket::new(start, 10, 10);
        bucket.owe(15);
        assert!(!bucket.take(start + Duration::from_millis(599), 1));
        assert!(bucket.take(start + Duration::from_millis(600), 1));
        bucket.owe(u32::MAX);
        let later = start + Duration::from_millis(1_600);
        assert!(!bucket.take(later, 1));
        assert!(bucket.take(later + Duration::from_millis(100), 1));
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
