//! How fast a path is, before anything was sent in earnest: a short train of full packets, back to
//! back on an idle path, and how far apart their acknowledgments come.
//!
//! The bottleneck spreads packets that reach it together (packet trains: Dovrolis, Ramanathan and
//! Moore, "Packet-dispersion techniques and a capacity-estimation methodology", 2004; what a sender
//! may do with a rate it learnt before: draft-ietf-tsvwg-careful-resume). Only the
//! [first flight](crate::first_flight) uses the result, so what a wrong one costs is bounded by it.
//! Whatever disturbs the measurement is to make it smaller:
//!
//! - A train is as long as what any sender may start with, and leaves only after a pause.
//! - Acknowledgments that come in clumps (a receiver that was busy, acknowledgments that queued on
//!   the way back) say little by their spacing. So the train is taken to have needed all the time
//!   beyond the path's smallest round trip, and no less than the spacing.
//! - Of two peers the one with the larger id waits for twice as long, so that neither's
//!   acknowledgments queue behind the other's train.
//! - Nothing shorter than a millisecond is believed: timers and schedulers are no finer.
//! - Lost packets don't count as carried. Other traffic at the bottleneck spreads the train more.
//! - A shaper that lets a burst pass shows its line's rate. The flight is no longer than some.
//! - The result holds for ten minutes, and not for another path.

use std::time::{Duration, Instant};

/// Packets of a train: the initial window of RFC 6928, and what the pacer lets leave at once.
pub(crate) const PACKETS: u8 = 10;
/// Fewer that came show nothing.
const LEAST_PACKETS: u32 = 6;
/// The least time that is believed.
const LEAST_SPAN: Duration = Duration::from_millis(1);
/// How long a path is to be quiet before, beyond a round trip.
const QUIET: Duration = Duration::from_millis(25);
/// After how long a train that showed nothing may be followed by another.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a result holds.
const LIFETIME: Duration = Duration::from_secs(600);

/// A train under way.
#[derive(Clone, Copy, Debug)]
struct Out {
    left: u8,
    sent_at: Instant,
    /// The path's smallest round trip when it left.
    min_rtt: Duration,
    packets: u32,
    octets: u64,
    /// When the first acknowledgment came, and for how many octets.
    first: Option<(Instant, u64)>,
}

impl Out {
    /// The rate that the acknowledgments up to now show: of both measures the smaller one.
    fn rate(&self, now: Instant) -> Option<u64> {
        let (first_at, first_octets) = self.first?;
        if self.packets < LEAST_PACKETS {
            return None;
        }
        let took = now.saturating_duration_since(self.sent_at);
        let waited = per_second(self.octets, took.saturating_sub(self.min_rtt));
        let rest = self.octets.saturating_sub(first_octets);
        if rest == 0 {
            // all in one
            return Some(waited);
        }
        let spread = now.saturating_duration_since(first_at);
        Some(waited.min(per_second(rest, spread)))
    }
}

fn per_second(octets: u64, time: Duration) -> u64 {
    let nanos = time.max(LEAST_SPAN).as_nanos();
    u64::try_from(u128::from(octets) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nobody asked.
    Idle,
    /// It leaves when the path has been quiet for a while.
    Asked,
    /// The path has been quiet.
    Ready,
    /// Some of it has left.
    Out(Out),
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Train {
    state: State,
    rate: Option<(u64, Instant)>,
}

impl Train {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Idle,
            rate: None,
        }
    }

    /// The rate is wanted. No train follows another within a minute.
    pub(crate) fn ask(&mut self, now: Instant) {
        let lately = matches!(self.state, State::Out(out) if now < out.sent_at + AGAIN);
        if !lately && self.rate(now).is_none() {
            self.state = State::Asked;
        }
    }

    /// Octets per second, if the path was measured.
    pub(crate) fn rate(&self, now: Instant) -> Option<u64> {
        let (rate, at) = self.rate?;
        (now < at + LIFETIME).then_some(rate)
    }

    /// Whether the path was measured, lately or not.
    pub(crate) fn is_rated(&self) -> bool {
        self.rate.is_some()
    }

    /// When [`Train::on_quiet`] is to be told, if the path is quiet since then: after the pause,
    /// so many times.
    pub(crate) fn due_at(
        &self,
        quiet_since: Instant,
        round_trip: Duration,
        turns: u32,
    ) -> Option<Instant> {
        let asked = matches!(self.state, State::Asked);
        asked.then(|| quiet_since + (round_trip + QUIET) * turns)
    }

    /// The path was quiet for long enough.
    pub(crate) fn on_quiet(&mut self) {
        if matches!(self.state, State::Asked) {
            self.state = State::Ready;
        }
    }

    /// Something else left: the path is not quiet any more.
    pub(crate) fn on_other(&mut self) {
        if matches!(self.state, State::Ready) {
            self.state = State::Asked;
        }
    }

    /// Whether a packet of it may leave now.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Ready) || self.has_begun()
    }

    /// Whether some of it has left, and not all.
    fn has_begun(&self) -> bool {
        matches!(self.state, State::Out(out) if out.left > 0)
    }

    /// A packet of it left.
    pub(crate) fn on_sent(&mut self, now: Instant, min_rtt: Duration) {
        match &mut self.state {
            State::Out(out) => out.left = out.left.saturating_sub(1),
            State::Idle | State::Asked | State::Ready => {
                self.state = State::Out(Out {
                    left: PACKETS - 1,
                    sent_at: now,
                    min_rtt,
                    packets: 0,
                    octets: 0,
                    first: None,
                });
            }
        }
    }

    /// An acknowledgment came for so many packets of it, of so many octets together.
    pub(crate) fn on_acked(&mut self, now: Instant, packets: u32, octets: u64) {
        let State::Out(out) = &mut self.state else {
            return;
        };
        out.packets += packets;
        out.octets += octets;
        match &mut out.first {
            None => out.first = Some((now, octets)),
            // read together with the one before
            Some((at, first)) if *at == now => *first += octets,
            Some(_) => {}
        }
        if let Some(rate) = out.rate(now) {
            self.rate = Some((rate, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCTETS: u64 = 1472;
    const US: Duration = Duration::from_micros(1);

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    /// A train over a path of so many octets per second and 20 ms, whose acknowledgments are held
    /// back until `read` lets them through.
    fn measure(rate: u64, lost: &[u64], read: impl Fn(Duration) -> Duration) -> Option<u64> {
        let now = base();
        let rtt = Duration::from_millis(20);
        let mut train = Train::new();
        train.ask(now);
        let due = train.due_at(now, rtt, 1).unwrap();
        assert!(due > now + rtt, "after a pause");
        assert!(!train.is_leaving());
        train.on_quiet();
        for _ in 0..PACKETS {
            assert!(train.is_leaving());
            train.on_sent(due, rtt);
        }
        assert!(!train.is_leaving(), "one train");
        let mut step = None;
        for number in (1..=10).filter(|n| !lost.contains(n)) {
            let passed = Duration::from_nanos(number * OCTETS * 1_000_000_000 / rate);
            let at = due + rtt + read(passed);
            let (before, packets) = step.take().unwrap_or((at, 0));
            if before == at {
                step = Some((at, packets + 1));
            } else {
                train.on_acked(before, packets, u64::from(packets) * OCTETS);
                step = Some((at, 1));
            }
        }
        let (at, packets) = step.unwrap();
        train.on_acked(at, packets, u64::from(packets) * OCTETS);
        train.rate(at)
    }

    fn about(measured: Option<u64>, rate: u64, less: u64) {
        let measured = measured.unwrap();
        assert!(measured <= rate * 101 / 100, "{measured} of {rate}");
        assert!(measured >= rate * less / 100, "{measured} of {rate}");
    }

    #[test]
    fn the_spacing_of_the_acknowledgments_is_the_rate() {
        for rate in [60_000, 1_250_000, 12_500_000] {
            about(measure(rate, &[], |at| at), rate, 99);
        }
    }

    #[test]
    fn acknowledgments_that_queued_on_the_way_back_do_not_raise_it() {
        let rate = 1_250_000;
        let queue = Duration::from_millis(12);
        // as close together as ten times smaller packets are
        let behind = |at: Duration| at.max(queue) + at / 10;
        about(measure(rate, &[], behind), rate, 80);
    }

    #[test]
    fn acknowledgments_in_clumps_never_show_more_than_the_rate() {
        let rate = 1_250_000;
        for clump in [2, 3, 5, 7, 12, 30] {
            let clump = Duration::from_millis(clump);
            let late = |at: Duration| {
                let clumps = at.as_nanos().div_ceil(clump.as_nanos());
                clump * u32::try_from(clumps).unwrap()
            };
            about(measure(rate, &[], late), rate, 20);
        }
    }

    #[test]
    fn losses_make_it_less_and_too_many_of_them_nothing() {
        let rate = 1_250_000;
        about(measure(rate, &[2], |at| at), rate, 85);
        about(measure(rate, &[1, 9, 10], |at| at), rate, 85);
        about(measure(rate, &[3, 4, 5, 6], |at| at), rate, 50);
        assert_eq!(measure(rate, &[1, 2, 3, 4, 5], |at| at), None);
    }

    #[test]
    fn nothing_faster_than_a_train_in_a_millisecond_is_believed() {
        let measured = measure(1_000_000_000, &[], |at| at).unwrap();
        assert!(measured <= 10 * OCTETS * 1000, "{measured}");
        let together = measure(1_000_000_000, &[], |_| US).unwrap();
        assert!(together <= 10 * OCTETS * 1000, "{together}");
    }

    #[test]
    fn a_result_holds_for_ten_minutes_and_then_may_be_asked_for_again() {
        let now = base();
        let mut train = Train::new();
        assert_eq!(train.due_at(now, US, 1), None, "nobody asked");
        train.ask(now);
        train.on_quiet();
        train.on_other();
        assert!(!train.is_leaving() && train.due_at(now, US, 1).is_some());
        for _ in 0..PACKETS {
            train.on_sent(now, Duration::ZERO);
        }
        train.on_acked(now + LEAST_SPAN, 10, 10 * OCTETS);
        assert!(train.rate(now + LIFETIME).is_some());
        train.ask(now + LIFETIME);
        assert_eq!(train.due_at(now, US, 1), None, "it is known");
        let later = now + LIFETIME + LEAST_SPAN;
        assert_eq!(train.rate(later), None);
        train.ask(later);
        assert!(train.due_at(later, US, 1).is_some());
    }
}
