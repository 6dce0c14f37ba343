//! The first flight of datagrams: a session that was ready but hardly used may send more than its
//! controller's window, spread over the measured round trip.
//!
//! A burst of small messages on a session that has carried some control lines finds a controller
//! that knows nothing: its window is small, or its model has only seen single packets. Instead of
//! several round trips of growth the session sends one flight of a fixed size, paced over one round
//! trip (Jump Start, draft-liu-tcpm-tcp-jumpstart; the cautions are those of careful resume,
//! draft-ietf-tsvwg-careful-resume), or at nine tenths of what a [train](crate::train) showed that
//! the path carries. Only while datagrams wait, or flows where a train has measured the path; other
//! flows have much to send, gain little by it, and begin as their controller says.
//!
//! The controller sees the ACKs and losses of the flight as of any other packets, and is alone again
//! after one of these:
//!
//! - as much as the flight was delivered while more than any sender starts with was in flight: the
//!   controller has grown by it;
//! - a packet of that was lost or marked: the controller goes on from its own window, reduced as it
//!   would be without the flight.
//!
//! A flight that ended before either (the application had less to send) may be repeated. A new path
//! has a flight of its own.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Little is in flight.
    Ready,
    /// More is in flight than any sender starts with.
    Used {
        since: Instant,
        delivered: u64,
        /// There were datagrams in it.
        lent: bool,
    },
    /// The controller knows better, or was told to be careful.
    Over,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstFlight {
    /// Octets.
    size: u64,
    /// What any sender may start with (RFC 9002 section 7.2): less is no use of the flight.
    usual: u64,
    state: State,
}

impl FirstFlight {
    /// A flight of `size` octets (0: none) in datagrams of at most `datagram`.
    pub(crate) fn new(size: u64, datagram: u64) -> Self {
        let state = if size == 0 { State::Over } else { State::Ready };
        Self {
            size,
            usual: 10 * datagram,
            state,
        }
    }

    /// Octets that may be in flight whatever the controller says; 0 when it is over.
    pub(crate) fn window(&self) -> u64 {
        if self.state == State::Over {
            0
        } else {
            self.size
        }
    }

    /// The rate in octets per second that spreads the flight over a round trip, or nine tenths of
    /// what the path was measured to carry if that is more.
    pub(crate) fn rate(&self, round_trip: Duration, measured: Option<u64>) -> u64 {
        if self.window() == 0 {
            return 0;
        }
        let nanos = round_trip.as_nanos().max(1);
        let rate = u128::from(self.window()) * 1_000_000_000 / nanos;
        let measured = measured.map_or(0, |rate| rate - rate / 10);
        u64::try_from(rate).unwrap_or(u64::MAX).max(measured)
    }

    /// Whether more is in flight than any sender starts with, and datagrams are among it.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.state, State::Used { lent: true, .. })
    }

    /// A packet left, with a datagram or not; `in_flight` counts it.
    pub(crate) fn on_sent(&mut self, now: Instant, in_flight: u64, datagram: bool) {
        match &mut self.state {
            State::Ready if in_flight > self.usual => {
                self.state = State::Used {
                    since: now,
                    delivered: 0,
                    lent: datagram,
                };
            }
            State::Used { lent, .. } => *lent |= datagram,
            State::Ready | State::Over => {}
        }
    }

    /// So many octets were acknowledged, and so many are in flight now.
    pub(crate) fn on_acked(&mut self, octets: u64, in_flight: u64) {
        if let State::Used { delivered, .. } = &mut self.state {
            *delivered += octets;
            if *delivered >= self.size {
                self.state = State::Over;
            } else if in_flight <= self.usual {
                self.state = State::Ready;
            }
        }
    }

    /// A packet that left at `sent_at` was lost or marked.
    pub(crate) fn on_congested(&mut self, sent_at: Instant) {
        if let State::Used { since, .. } = self.state
            && sent_at >= since
        {
            self.state = State::Over;
        }
    }

    /// Nothing arrives any more.
    pub(crate) fn end(&mut self) {
        self.state = State::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: u64 = 1472;
    const SIZE: u64 = 64 << 10;
    const MS: Duration = Duration::from_millis(1);

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn is_spread_over_one_round_trip() {
        let flight = FirstFlight::new(SIZE, DATAGRAM);
        assert_eq!(flight.window(), SIZE);
        assert_eq!(flight.rate(MS * 500, None), 2 * SIZE);
        assert_eq!(flight.rate(Duration::ZERO, None), SIZE * 1_000_000_000);
        let none = FirstFlight::new(0, DATAGRAM);
        assert_eq!((none.window(), none.rate(MS, Some(SIZE))), (0, 0));
    }

    #[test]
    fn is_faster_where_the_path_was_measured_to_be() {
        let flight = FirstFlight::new(SIZE, DATAGRAM);
        assert_eq!(flight.rate(MS * 500, Some(10 * SIZE)), 9 * SIZE);
        assert_eq!(flight.rate(MS * 500, Some(SIZE)), 2 * SIZE, "no slower");
    }

    #[test]
    fn is_lent_to_datagrams_only() {
        let now = base();
        let mut flight = FirstFlight::new(SIZE, DATAGRAM);
        flight.on_sent(now, 10 * DATAGRAM, true);
        assert!(!flight.is_lent(), "no more than usual");
        flight.on_sent(now, 11 * DATAGRAM, false);
        assert!(!flight.is_lent());
        flight.on_sent(now, 12 * DATAGRAM, true);
        assert!(flight.is_lent());
        flight.on_acked(DATAGRAM, 10 * DATAGRAM);
        assert!(!flight.is_lent());
    }

    #[test]
    fn is_over_once_as_much_was_delivered() {
        let now = base();
        let mut flight = FirstFlight::new(SIZE, DATAGRAM);
        flight.on_sent(now, SIZE, true);
        flight.on_acked(SIZE - 1, 20 * DATAGRAM);
        assert_eq!(flight.window(), SIZE);
        flight.on_acked(1, 20 * DATAGRAM);
        assert_eq!(flight.window(), 0);
        flight.on_sent(now, SIZE, true);
        assert_eq!(flight.window(), 0, "for good");
    }

    #[test]
    fn is_not_used_up_by_what_any_sender_may_start_with() {
        let now = base();
        let mut flight = FirstFlight::new(SIZE, DATAGRAM);
        for round in 0..100 {
            let at = now + MS * round;
            flight.on_sent(at, 10 * DATAGRAM, true);
            flight.on_congested(at);
            flight.on_acked(10 * DATAGRAM, 0);
        }
        assert_eq!(flight.window(), SIZE);
        // A part of it, and then all is acknowledged: it may be had again.
        for round in 0..100 {
            flight.on_sent(now + MS * round, 20 * DATAGRAM, true);
            flight.on_acked(20 * DATAGRAM, 0);
        }
        assert_eq!(flight.window(), SIZE);
    }

    #[test]
    fn is_over_with_its_first_loss_and_not_with_one_before_it() {
        let now = base();
        let mut flight = FirstFlight::new(SIZE, DATAGRAM);
        flight.on_sent(now + MS, 11 * DATAGRAM, true);
        flight.on_congested(now);
        assert_eq!(flight.window(), SIZE);
        flight.on_congested(now + MS);
        assert_eq!(flight.window(), 0);
    }
}
