//! Virtual time.

use std::time::{Duration, Instant};

/// Virtual time: one base `Instant` and how far the test has moved from it.
///
/// Only differences from the base mean anything: two runs have different
/// bases, so what must be equal between runs (traces, snapshots) is
/// [`elapsed`](Clock::elapsed).
///
/// ```
/// use std::time::Duration;
/// use vmdt_testkit::Clock;
///
/// let mut clock = Clock::new();
/// let deadline = clock.now() + Duration::from_secs(3_600);
/// clock.advance_to(deadline);
/// assert_eq!(clock.elapsed(), Duration::from_secs(3_600));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
    offset: Duration,
}

impl Clock {
    /// A clock at zero. It reads the machine's clock once, only because there
    /// is no other way to come by an `Instant`.
    #[allow(clippy::disallowed_methods)]
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(Instant::now())
    }

    /// A clock at zero whose zero is `base`.
    #[must_use]
    pub const fn starting_at(base: Instant) -> Self {
        Self {
            base,
            offset: Duration::ZERO,
        }
    }

    /// The zero of this clock.
    #[must_use]
    pub fn base(&self) -> Instant {
        self.base
    }

    /// The current virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.base + self.offset
    }

    /// The virtual time that has passed since the clock was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.offset
    }

    /// The instant `offset` after the base, whatever the time is now.
    #[must_use]
    pub fn at(&self, offset: Duration) -> Instant {
        self.base + offset
    }

    /// Moves to `instant`. An instant that is already past moves nothing: a
    /// deadline may be overdue, time does not go back.
    pub fn advance_to(&mut self, instant: Instant) {
        self.offset = self
            .offset
            .max(instant.saturating_duration_since(self.base));
    }

    /// Moves `by` onwards.
    pub fn advance(&mut self, by: Duration) {
        self.offset += by;
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn moves_forwards_only() {
        let mut clock = Clock::new();
        clock.advance(SECOND * 2);
        clock.advance_to(clock.at(SECOND));
        assert_eq!(clock.elapsed(), SECOND * 2);
        clock.advance_to(clock.base() + SECOND * 3);
        assert_eq!(clock.elapsed(), SECOND * 3);
        assert_eq!(clock.now(), clock.base() + SECOND * 3);
    }

    #[test]
    fn stands_still_between_reads() {
        let clock = Clock::new();
        assert_eq!(clock.now(), clock.now());
    }
}
