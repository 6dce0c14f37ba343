//! A rate the user sets: a token bucket for a session or a flow.

use std::time::{Duration, Instant};

use crate::error::ConfigError;

/// A token bucket: what may leave at once, and how fast it fills.
///
/// ```
/// use vmdt_rdt::RateLimit;
///
/// let limit = RateLimit::new(64 * 1024, 1_000_000)?;
/// assert_eq!(limit.octets_per_second(), 1_000_000);
/// assert!(RateLimit::new(100, 1_000_000).is_err(), "less than a datagram never passes");
/// # Ok::<(), vmdt_rdt::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    bucket: u64,
    rate: u64,
}

impl RateLimit {
    /// `bucket_octets` may leave at once, refilled at `octets_per_second`.
    ///
    /// # Errors
    /// A bucket outside 2,048 octets..=1 GiB, a rate outside 1,000..=2^40 octets per second.
    pub fn new(bucket_octets: u64, octets_per_second: u64) -> Result<Self, ConfigError> {
        let checks = [
            ("bucket_octets", bucket_octets, 2048, 1 << 30),
            ("octets_per_second", octets_per_second, 1000, 1 << 40),
        ];
        for (field, value, min, max) in checks {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::OutOfRange {
                    field,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(Self {
            bucket: bucket_octets,
            rate: octets_per_second,
        })
    }

    /// What may leave at once.
    #[must_use]
    pub fn bucket_octets(self) -> u64 {
        self.bucket
    }

    /// The long-term rate.
    #[must_use]
    pub fn octets_per_second(self) -> u64 {
        self.rate
    }
}

/// A [`RateLimit`] at work. What leaves regardless of it (probes, retransmissions) is owed.
///
/// ```
/// # #![allow(clippy::disallowed_methods)]
/// use std::time::{Duration, Instant};
/// use vmdt_rdt::{RateLimit, TokenBucket};
///
/// let now = Instant::now();
/// let mut bucket = TokenBucket::new(now, RateLimit::new(4096, 1000)?);
/// assert_eq!(bucket.delay(now, 4096), None);
/// bucket.take(4096);
/// assert_eq!(bucket.delay(now, 1000), Some(now + Duration::from_secs(1)));
/// # Ok::<(), vmdt_rdt::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenBucket {
    limit: RateLimit,
    tokens: i64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant, limit: RateLimit) -> Self {
        Self {
            limit,
            tokens: limit.bucket.cast_signed(),
            filled_at: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_nanos();
        let rate = u128::from(self.limit.rate);
        let add = elapsed * rate / 1_000_000_000;
        if add == 0 {
            return;
        }
        let room = self.limit.bucket.cast_signed().saturating_sub(self.tokens);
        match i64::try_from(add) {
            Ok(add) if add < room => {
                self.tokens += add;
                // The fraction of an octet that is left over is not lost.
                let nanos = u128::from(add.unsigned_abs()) * 1_000_000_000 / rate;
                self.filled_at += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
            _ => {
                self.tokens = self.limit.bucket.cast_signed();
                self.filled_at = now;
            }
        }
    }

    /// `None` when `octets` may leave now (more than a bucket: when it is full), else when to ask
    /// again, at the latest.
    pub fn delay(&mut self, now: Instant, octets: u64) -> Option<Instant> {
        let wanted = octets.min(self.limit.bucket).cast_signed();
        if self.tokens < wanted {
            self.refill(now);
        }
        let missing = wanted.saturating_sub(self.tokens);
        if missing <= 0 {
            return None;
        }
        let missing = u128::from(missing.unsigned_abs());
        let nanos = (missing * 1_000_000_000).div_ceil(u128::from(self.limit.rate));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1));
        // A long wait is asked about again, so that no arithmetic on instants overflows.
        Some(
            (self.filled_at + wait.min(Duration::from_secs(60))).max(now + Duration::from_nanos(1)),
        )
    }

    /// Takes what left. It may be more than there is: the rest is owed.
    pub fn take(&mut self, octets: u64) {
        self.tokens = self.tokens.saturating_sub_unsigned(octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_bucket_leaves_at_once_and_then_the_rate_holds() {
        let t = base();
        let limit = RateLimit::new(10_000, 123_457).unwrap();
        let mut bucket = TokenBucket::new(t, limit);
        let (mut now, mut sent) = (t, 0u64);
        while now < t + Duration::from_secs(10) {
            match bucket.delay(now, 1472) {
                None => {
                    bucket.take(1472);
                    sent += 1472;
                }
                Some(at) => {
                    assert!(at > now, "a wait lies in the future");
                    now = at;
                }
            }
        }
        let ideal = 10_000 + 1_234_570;
        assert!(sent.abs_diff(ideal) <= 1472, "{sent} of {ideal}");
    }

    #[test]
    fn what_is_owed_is_paid_back() {
        let t = base();
        let mut bucket = TokenBucket::new(t, RateLimit::new(2048, 1000).unwrap());
        bucket.take(4096);
        let at = bucket.delay(t, 1000).unwrap();
        assert_eq!(at, t + Duration::from_millis(3048));
        assert_eq!(bucket.delay(at, 1000), None);
    }

    #[test]
    fn bounds_are_checked() {
        assert!(RateLimit::new(2048, 1000).is_ok());
        assert!(RateLimit::new(2047, 1000).is_err());
        assert!(RateLimit::new(2048, 999).is_err());
        assert!(RateLimit::new((1 << 30) + 1, 1000).is_err());
        assert!(RateLimit::new(1 << 30, (1 << 40) + 1).is_err());
    }

    #[test]
    fn a_clock_that_jumps_ahead_fills_no_more_than_the_bucket() {
        let t = base();
        let mut bucket = TokenBucket::new(t, RateLimit::new(2048, 1 << 40).unwrap());
        bucket.take(u64::MAX);
        let later = t + Duration::from_secs(1 << 30);
        let _ = bucket.delay(later, 2048);
        bucket.take(1);
        assert!(bucket.delay(later, 2048).is_some());
    }
}
