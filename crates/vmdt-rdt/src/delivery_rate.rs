//! Delivery-rate samples (draft-cheng-iccrg-delivery-rate-estimation-02): how fast the path
//! carried what was sent, and whether the sender gave it enough to carry.

use std::time::{Duration, Instant};

use crate::congestion::RateSample;
use crate::sent::Settled;

/// What a packet remembers of the connection at the time it left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// Octets delivered, and when the newest of them were acknowledged.
    delivered: u64,
    delivered_at: Instant,
    /// Octets declared lost.
    lost: u64,
    /// When the first packet of the present flight left.
    first_sent_at: Instant,
    /// Octets in flight, this packet included.
    in_flight: u64,
    app_limited: bool,
}

impl Stamp {
    /// Of a packet that will not be acknowledged.
    pub(crate) fn unused(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            lost: 0,
            first_sent_at: now,
            in_flight: 0,
            app_limited: false,
        }
    }
}

/// The newest acknowledged packet of the ACK being processed.
#[derive(Clone, Copy, Debug)]
struct Newest {
    number: u64,
    sent_at: Instant,
    stamp: Stamp,
}

/// The estimator of one path.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRate {
    delivered: u64,
    delivered_at: Instant,
    lost: u64,
    first_sent_at: Instant,
    /// Samples are app-limited until so many octets are delivered; 0: they aren't.
    app_limited_until: u64,
    newest: Option<Newest>,
}

impl DeliveryRate {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            lost: 0,
            first_sent_at: now,
            app_limited_until: 0,
            newest: None,
        }
    }

    /// A packet of `octets` leaves; `in_flight` is without it.
    pub(crate) fn on_sent(&mut self, now: Instant, octets: u64, in_flight: u64) -> Stamp {
        if in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        Stamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            lost: self.lost,
            first_sent_at: self.first_sent_at,
            in_flight: in_flight + octets,
            app_limited: self.app_limited_until > 0,
        }
    }

    /// Octets delivered since the path began.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Octets were declared lost.
    pub(crate) fn on_lost(&mut self, octets: u64) {
        self.lost += octets;
    }

    /// There is nothing to send although window and pacer would permit it.
    pub(crate) fn on_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = (self.delivered + in_flight).max(1);
    }

    /// A packet was acknowledged. One that had been declared lost counts as delivered, but is no
    /// measure of the present rate.
    pub(crate) fn on_settled(&mut self, now: Instant, packet: &Settled) {
        self.delivered += u64::from(packet.octets);
        self.delivered_at = now;
        let newer = self
            .newest
            .is_none_or(|newest| packet.number > newest.number);
        if newer && !packet.spurious {
            self.newest = Some(Newest {
                number: packet.number,
                sent_at: packet.sent_at,
                stamp: packet.stamp,
            });
        }
    }

    /// The sample of the ACK whose packets were just settled.
    pub(crate) fn sample(&mut self, now: Instant) -> Option<RateSample> {
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let Newest { sent_at, stamp, .. } = self.newest.take()?;
        self.first_sent_at = sent_at;
        let send_elapsed = sent_at.saturating_duration_since(stamp.first_sent_at);
        let ack_elapsed = now.saturating_duration_since(stamp.delivered_at);
        // The slower of both: neither a burst out nor a burst of ACKs in is the path's rate.
        let interval = send_elapsed.max(ack_elapsed);
        let octets = self.delivered.saturating_sub(stamp.delivered);
        Some(RateSample {
            octets_per_second: rate(octets, interval)?,
            octets,
            lost: self.lost.saturating_sub(stamp.lost),
            delivered: self.delivered,
            prior_delivered: stamp.delivered,
            sent_in_flight: stamp.in_flight,
            app_limited: stamp.app_limited,
        })
    }
}

fn rate(octets: u64, interval: Duration) -> Option<u64> {
    let nanos = interval.as_nanos();
    if nanos == 0 {
        return None;
    }
    u64::try_from(u128::from(octets) * 1_000_000_000 / nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sent::Content;

    const MS: Duration = Duration::from_millis(1);

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    fn settled(number: u64, sent_at: Instant, stamp: Stamp) -> Settled {
        Settled {
            number,
            sent_at,
            octets: 1000,
            content: Content::Heartbeat,
            spurious: false,
            stamp,
        }
    }

    /// Sends a packet every `spacing`, acknowledges each `rtt` later; the last sample.
    fn steady(spacing: Duration, rtt: u32) -> RateSample {
        let t = base();
        let mut estimator = DeliveryRate::new(t);
        let mut stamps = Vec::new();
        let mut last = None;
        for n in 0..100u32 {
            let now = t + spacing * n;
            if n >= rtt {
                let (sent_at, stamp): (Instant, Stamp) = stamps[(n - rtt) as usize];
                estimator.on_settled(now, &settled(u64::from(n - rtt), sent_at, stamp));
                last = estimator.sample(now);
            }
            let in_flight = u64::from(n.min(rtt)) * 1000;
            stamps.push((now, estimator.on_sent(now, 1000, in_flight)));
        }
        last.unwrap()
    }

    #[test]
    fn a_steady_stream_is_measured_at_its_rate() {
        assert_eq!(steady(MS, 10).octets_per_second, 1_000_000);
        assert_eq!(steady(MS * 5, 3).octets_per_second, 200_000);
    }

    #[test]
    fn acks_in_a_burst_do_not_raise_the_rate() {
        let t = base();
        let mut estimator = DeliveryRate::new(t);
        let mut stamps = Vec::new();
        for n in 0..10u32 {
            let now = t + MS * n;
            stamps.push((now, estimator.on_sent(now, 1000, u64::from(n) * 1000)));
        }
        let now = t + MS * 20;
        for (number, (sent_at, stamp)) in (0..).zip(stamps) {
            estimator.on_settled(now, &settled(number, sent_at, stamp));
        }
        let sample = estimator.sample(now).unwrap();
        assert_eq!(sample.octets_per_second, 500_000, "10 packets in 20 ms");
        assert_eq!(estimator.sample(now), None, "no packet, no sample");
    }

    #[test]
    fn what_left_while_the_application_was_idle_is_marked() {
        let t = base();
        let mut estimator = DeliveryRate::new(t);
        let full = estimator.on_sent(t, 1000, 0);
        estimator.on_app_limited(1000);
        let limited = estimator.on_sent(t + MS, 1000, 1000);
        estimator.on_settled(t + MS * 10, &settled(0, t, full));
        assert!(!estimator.sample(t + MS * 10).unwrap().app_limited);
        estimator.on_settled(t + MS * 11, &settled(1, t + MS, limited));
        assert!(estimator.sample(t + MS * 11).unwrap().app_limited);
        let after = estimator.on_sent(t + MS * 12, 1000, 0);
        assert!(!after.app_limited, "the limited flight is through");
    }
}
