//! Rules of the model, against a path that delivers a given rate.

use super::super::newreno::tests::base;
use super::*;

const DATAGRAM: u64 = 1472;
const MS: Duration = Duration::from_millis(1);

/// A path with a fixed rate and an endless queue, in rounds of its round-trip time.
struct Path {
    bbr: Bbr,
    now: Instant,
    rate: u64,
    rtt: Duration,
    delivered: u64,
}

impl Path {
    fn new(rate: u64, rtt: Duration) -> Self {
        let now = base();
        Self {
            bbr: Bbr::new(now, DATAGRAM),
            now,
            rate,
            rtt,
            delivered: 0,
        }
    }

    /// One round: a window, or what the pacing rate permits, passes; a share of it is lost.
    fn round(&mut self, loss: f64, queue: Duration) {
        let rtt = self.rtt + queue;
        let paced = self
            .bbr
            .pacing_rate()
            .map_or(u64::MAX, |rate| scale(rate, rtt.as_secs_f64()));
        let sent = self.bbr.window().min(paced).max(DATAGRAM);
        let passed = sent.min(scale(self.rate, rtt.as_secs_f64()).max(DATAGRAM));
        let sent_at = self.now;
        self.now += rtt;
        let lost = scale(passed, loss);
        if lost > 0 {
            self.bbr.on_loss(&Lost {
                now: self.now,
                sent_at,
                octets: lost,
                in_flight: passed - lost,
            });
        }
        let prior_delivered = self.delivered;
        self.delivered += passed - lost;
        let rate = RateSample {
            octets_per_second: scale(passed - lost, 1.0 / rtt.as_secs_f64()),
            octets: passed - lost,
            lost,
            delivered: self.delivered,
            prior_delivered,
            sent_in_flight: sent,
            app_limited: false,
        };
        self.bbr.on_ack(&Acked {
            now: self.now,
            sent_at,
            octets: passed - lost,
            in_flight: 0,
            app_limited: false,
            latest_rtt: rtt,
            smoothed_rtt: rtt,
            min_rtt: self.rtt,
            rate: Some(rate),
        });
    }

    fn rounds(&mut self, count: u32, loss: f64) {
        for _ in 0..count {
            self.round(loss, Duration::ZERO);
        }
    }
}

#[test]
fn startup_finds_the_rate_and_then_probes_around_it() {
    let mut path = Path::new(2_500_000, MS * 50);
    assert!(path.bbr.in_slow_start());
    path.rounds(20, 0.0);
    assert!(!path.bbr.in_slow_start());
    let mut phases = Vec::new();
    for _ in 0..200 {
        path.rounds(1, 0.0);
        if phases.last() != Some(&path.bbr.phase) {
            phases.push(path.bbr.phase);
        }
        let rate = path.bbr.pacing_rate().unwrap();
        assert!((2_200_000..3_200_000).contains(&rate), "{rate}");
    }
    for phase in [Phase::Down, Phase::Cruise, Phase::Refill, Phase::Up] {
        assert!(phases.contains(&phase), "{phase:?} not in {phases:?}");
    }
    assert!(
        !phases.contains(&Phase::ProbeRtt),
        "the minimum is in sight"
    );
}

#[test]
fn loss_without_a_queue_is_background_and_bounds_nothing() {
    for loss in [0.01, 0.06, 0.1, 0.2] {
        let mut path = Path::new(2_500_000, MS * 50);
        path.rounds(300, loss);
        assert_eq!(path.bbr.inflight_hi, u64::MAX, "at {loss}");
        let rate = path.bbr.max_bw();
        assert!((2_300_000..2_700_000).contains(&rate), "{rate} at {loss}");
        assert!(
            (path.bbr.background() - loss).abs() < 0.02,
            "{:?}",
            path.bbr.background
        );
    }
}

#[test]
fn loss_with_a_queue_lowers_the_bounds() {
    let mut path = Path::new(2_500_000, MS * 50);
    path.rounds(60, 0.06);
    let (window, rate) = (path.bbr.window(), path.bbr.bw());
    for _ in 0..6 {
        path.round(0.2, MS * 50);
    }
    assert!(
        path.bbr.window() < window * 9 / 10,
        "{} of {window}",
        path.bbr.window()
    );
    assert!(path.bbr.bw() <= rate);
    assert!(
        path.bbr.inflight_lo < u64::MAX || path.bbr.inflight_hi < u64::MAX,
        "no bound was set"
    );
}

#[test]
fn loss_far_above_the_background_counts_even_without_a_queue() {
    let mut path = Path::new(2_500_000, MS * 50);
    path.rounds(60, 0.0);
    path.rounds(3, 0.5);
    assert!(path.bbr.inflight_lo < u64::MAX || path.bbr.inflight_hi < u64::MAX);
}

#[test]
fn a_minimum_out_of_sight_is_probed_for_with_half_a_window() {
    let mut path = Path::new(2_500_000, MS * 50);
    path.rounds(60, 0.0);
    let mut smallest = u64::MAX;
    for _ in 0..100 {
        path.round(0.0, MS * 30);
        if path.bbr.phase == Phase::ProbeRtt {
            smallest = smallest.min(path.bbr.window());
        }
    }
    assert!(smallest <= scale(2_500_000, 0.05), "{smallest}");
    assert_ne!(path.bbr.phase, Phase::ProbeRtt, "it ends");
}

#[test]
fn the_window_stays_within_its_bounds() {
    let mut path = Path::new(1_000, MS * 10);
    path.rounds(100, 0.9);
    assert!(path.bbr.window() >= MINIMUM_DATAGRAMS * DATAGRAM);
    path.bbr.on_persistent_congestion(path.now);
    assert_eq!(path.bbr.window(), MINIMUM_DATAGRAMS * DATAGRAM);
    let mut path = Path::new(u64::MAX / 4, MS * 1000);
    path.rounds(100, 0.0);
    assert!(path.bbr.window() <= MAXIMUM_DATAGRAMS * DATAGRAM);
}

#[test]
fn a_late_arrival_takes_its_loss_back() {
    let mut bbr = Bbr::new(base(), DATAGRAM);
    let now = base();
    bbr.on_loss(&Lost {
        now,
        sent_at: now,
        octets: 3 * DATAGRAM,
        in_flight: 0,
    });
    bbr.on_late_arrival(now, 2 * DATAGRAM);
    assert_eq!(bbr.round.lost, DATAGRAM);
    bbr.on_late_arrival(now, 2 * DATAGRAM);
    assert_eq!(bbr.round.lost, 0);
}
