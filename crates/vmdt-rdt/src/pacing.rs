//! Pacing: a token bucket filled at a multiple of the congestion window per round trip
//! (RFC 9002 section 7.7).

use std::time::{Duration, Instant};

/// Datagrams that may always leave at once.
const BURST_DATAGRAMS: u64 = 10;
/// The bucket holds at least what this time fills, so that round trips below it, and timers
/// that are no finer, never limit the rate.
const QUANTUM: Duration = Duration::from_millis(2);
/// A wait ends when this much time's worth of tokens is there, so that a fast path is not
/// served by one wake-up per datagram.
const WAKE: Duration = Duration::from_millis(1);

/// Token bucket in octets.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    tokens: u64,
    /// Octets per second.
    rate: u64,
    capacity: u64,
    datagram: u64,
    filled_at: Option<Instant>,
}

impl Pacer {
    pub(crate) fn new(datagram: u64) -> Self {
        let capacity = BURST_DATAGRAMS * datagram;
        Self {
            tokens: capacity,
            rate: u64::MAX,
            capacity,
            datagram,
            filled_at: None,
        }
    }

    /// Sends datagrams of up to `datagram` octets from now on. A burst is that of `nominal` ones
    /// still, or two of these.
    pub(crate) fn set_datagram(&mut self, nominal: u64, datagram: u64) {
        self.datagram = nominal.max(datagram * 2 / BURST_DATAGRAMS);
        self.capacity = self.capacity.max(BURST_DATAGRAMS * self.datagram);
    }

    /// Sets the rate in octets per second.
    pub(crate) fn set_rate(&mut self, now: Instant, rate: u64) {
        if rate == self.rate {
            return;
        }
        self.refill(now);
        self.rate = rate.max(1);
        self.capacity = self.per(QUANTUM).max(BURST_DATAGRAMS * self.datagram);
        self.tokens = self.tokens.min(self.capacity);
    }

    /// Rate for a window and round trip: 1.25 windows per round trip, twice that in slow start
    /// where the window doubles within the round trip.
    pub(crate) fn rate_for(window: u64, smoothed_rtt: Duration, slow_start: bool) -> u64 {
        let nanos = smoothed_rtt.as_nanos().max(1);
        let gain_quarters: u128 = if slow_start { 10 } else { 5 };
        let rate = u128::from(window) * 1_000_000_000 * gain_quarters / 4 / nanos;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// Octets that `time` fills.
    pub(crate) fn per(&self, time: Duration) -> u64 {
        let octets = u128::from(self.rate) * time.as_nanos() / 1_000_000_000;
        u64::try_from(octets).unwrap_or(u64::MAX)
    }

    fn refill(&mut self, now: Instant) {
        let Some(at) = self.filled_at else {
            self.filled_at = Some(now);
            return;
        };
        let elapsed = now.saturating_duration_since(at);
        let add = self.per(elapsed);
        if add > 0 {
            self.tokens = self.tokens.saturating_add(add).min(self.capacity);
            self.filled_at = Some(now);
        }
    }

    /// `None` when `octets` may leave now, else when to ask again.
    pub(crate) fn delay(&mut self, now: Instant, octets: u64) -> Option<Instant> {
        if self.tokens >= octets {
            return None;
        }
        self.refill(now);
        if self.tokens >= octets {
            return None;
        }
        let target = self.per(WAKE).clamp(octets, self.capacity.max(octets));
        let missing = u128::from(target - self.tokens.min(target));
        let nanos = (missing * 1_000_000_000).div_ceil(u128::from(self.rate));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1));
        Some(self.filled_at.unwrap_or(now).max(now) + wait.min(Duration::from_secs(1)))
    }

    /// Takes what left.
    pub(crate) fn on_sent(&mut self, octets: u64) {
        self.tokens = self.tokens.saturating_sub(octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    /// Octets that leave within `span` when every permitted datagram is taken at once.
    fn drain(pacer: &mut Pacer, start: Instant, span: Duration) -> u64 {
        let mut now = start;
        let mut sent = 0;
        while now < start + span {
            match pacer.delay(now, 1472) {
                None => {
                    pacer.on_sent(1472);
                    sent += 1472;
                }
                Some(at) => {
                    assert!(at > now, "a wait must lie in the future");
                    now = at;
                }
            }
        }
        sent
    }

    #[test]
    fn a_burst_of_ten_leaves_at_once_and_the_eleventh_waits() {
        let now = base();
        let mut pacer = Pacer::new(1472);
        pacer.set_rate(now, 1_000_000);
        for _ in 0..10 {
            assert_eq!(pacer.delay(now, 1472), None);
            pacer.on_sent(1472);
        }
        assert!(pacer.delay(now, 1472).is_some());
    }

    #[test]
    fn the_long_term_rate_is_the_rate_set() {
        let now = base();
        for rate in [50_000u64, 2_500_000, 125_000_000] {
            let mut pacer = Pacer::new(1472);
            pacer.set_rate(now, rate);
            let sent = drain(&mut pacer, now, Duration::from_secs(10));
            let ideal = rate * 10;
            assert!(
                sent.abs_diff(ideal) < ideal / 50 + 20 * 1472,
                "{rate}: {sent} of {ideal}"
            );
        }
    }

    #[test]
    fn a_round_trip_below_the_quantum_never_waits_for_a_window() {
        let now = base();
        let window = 100 * 1472;
        let mut pacer = Pacer::new(1472);
        pacer.set_rate(
            now,
            Pacer::rate_for(window, Duration::from_micros(100), false),
        );
        let later = now + Duration::from_millis(10);
        for _ in 0..100 {
            assert_eq!(pacer.delay(later, 1472), None);
            pacer.on_sent(1472);
        }
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let now = base();
        let mut pacer = Pacer::new(1472);
        pacer.set_rate(now, Pacer::rate_for(u64::MAX, Duration::ZERO, true));
        assert_eq!(pacer.delay(now + Duration::from_secs(1 << 30), 1472), None);
        pacer.set_rate(now, 1);
        pacer.on_sent(1 << 40);
        assert!(pacer.delay(now, 1472).is_some());
    }
}
