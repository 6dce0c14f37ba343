//! CUBIC (RFC 9438), without HyStart++.

use std::time::{Duration, Instant};

use super::{Acked, Controller, ControllerFactory, Lost, Marked};

/// Aggressiveness (RFC 9438 section 5).
const C: f64 = 0.4;
/// Multiplicative decrease (RFC 9438 section 4.6).
const BETA: f64 = 0.7;
const INITIAL_DATAGRAMS: u64 = 10;
const MINIMUM_DATAGRAMS: u64 = 4;
const MAXIMUM_DATAGRAMS: u64 = 65_536;

/// Builds [`Cubic`] controllers. Windows: 10 datagrams at the start, at least 4, at most 65,536.
#[derive(Clone, Copy, Debug, Default)]
pub struct CubicConfig;

impl ControllerFactory for CubicConfig {
    fn build(&self, _now: Instant, datagram: u64) -> Box<dyn Controller> {
        Box::new(Cubic::new(datagram))
    }
}

/// What a reduction replaced.
#[derive(Clone, Copy, Debug)]
struct Before {
    window: u64,
    threshold: u64,
    w_max: f64,
    epoch: Option<Epoch>,
}

/// A period of congestion avoidance between two reductions.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds from the epoch's start until the window is back at `w_max`.
    k: f64,
    /// Window a Reno flow would have, in datagrams.
    w_est: f64,
}

/// Window growth as a cubic function of the time since the last reduction.
#[derive(Clone, Debug)]
pub struct Cubic {
    datagram: u64,
    window: u64,
    threshold: u64,
    /// Window at the last reduction, in datagrams.
    w_max: f64,
    epoch: Option<Epoch>,
    /// Fractions of an octet the window has still to grow by.
    carry: f64,
    recovery_start: Option<Instant>,
    before: Option<Before>,
}

impl Cubic {
    /// A controller for a path with datagrams of at most `datagram` octets.
    #[must_use]
    pub fn new(datagram: u64) -> Self {
        Self {
            datagram,
            window: INITIAL_DATAGRAMS * datagram,
            threshold: u64::MAX,
            w_max: 0.0,
            epoch: None,
            carry: 0.0,
            recovery_start: None,
            before: None,
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn datagrams(&self, octets: u64) -> f64 {
        octets as f64 / self.datagram as f64
    }

    fn in_recovery(&self, sent_at: Instant) -> bool {
        self.recovery_start.is_some_and(|start| sent_at <= start)
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    fn avoid(&mut self, acked: &Acked) {
        let window = self.datagrams(self.window);
        let w_max = self.w_max.max(window);
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: acked.now,
            k: ((w_max - window) / C).cbrt(),
            w_est: window,
        });
        let w_cubic = |t: Duration| {
            let offset = t.as_secs_f64() - epoch.k;
            C * offset * offset * offset + w_max
        };
        let elapsed = acked.now.saturating_duration_since(epoch.start);
        let segments = acked.octets as f64 / self.datagram as f64;
        // RFC 9438 section 4.3: alpha until the window at the last reduction, then 1.
        let alpha = if epoch.w_est < w_max {
            3.0 * (1.0 - BETA) / (1.0 + BETA)
        } else {
            1.0
        };
        epoch.w_est += alpha * segments / window;
        let growth = if w_cubic(elapsed) < epoch.w_est {
            (epoch.w_est - window).max(0.0)
        } else {
            let target = w_cubic(elapsed + acked.smoothed_rtt).clamp(window, 1.5 * window);
            (target - window) / window * segments
        };
        self.carry += growth * self.datagram as f64;
        let whole = self.carry.floor().max(0.0);
        self.carry -= whole;
        self.window = self.window.saturating_add(whole as u64);
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    fn reduce(&mut self, now: Instant) {
        self.before = Some(Before {
            window: self.window,
            threshold: self.threshold,
            w_max: self.w_max,
            epoch: self.epoch,
        });
        self.recovery_start = Some(now);
        let window = self.datagrams(self.window);
        // Fast convergence (section 4.7).
        self.w_max = if window < self.w_max {
            window * (1.0 + BETA) / 2.0
        } else {
            window
        };
        let reduced = (self.window as f64 * BETA) as u64;
        self.window = reduced.max(MINIMUM_DATAGRAMS * self.datagram);
        self.threshold = self.window;
        self.epoch = None;
        self.carry = 0.0;
    }
}

impl Controller for Cubic {
    fn on_sent(&mut self, _now: Instant, _octets: u64, _in_flight: u64) {}

    fn on_ack(&mut self, acked: &Acked) {
        if self.in_recovery(acked.sent_at) {
            return;
        }
        if acked.app_limited {
            // The cubic clock must not run while the window is not used.
            self.epoch = None;
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + acked.octets).min(self.threshold);
        } else {
            self.avoid(acked);
        }
        self.window = self.window.min(MAXIMUM_DATAGRAMS * self.datagram);
    }

    fn on_loss(&mut self, lost: &Lost) {
        if !self.in_recovery(lost.sent_at) {
            self.reduce(lost.now);
        }
    }

    fn on_marked(&mut self, marked: &Marked) {
        if !self.in_recovery(marked.sent_at) {
            self.reduce(marked.now);
            // A mark is never a mistake.
            self.before = None;
        }
    }

    fn on_persistent_congestion(&mut self, _now: Instant) {
        self.window = MINIMUM_DATAGRAMS * self.datagram;
        self.recovery_start = None;
        self.epoch = None;
        self.before = None;
        self.carry = 0.0;
    }

    fn on_spurious_loss(&mut self, _now: Instant) {
        if let Some(before) = self.before.take() {
            self.window = self.window.max(before.window);
            self.threshold = self.threshold.max(before.threshold);
            self.w_max = before.w_max;
            self.epoch = before.epoch;
            self.recovery_start = None;
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn on_datagram_size(&mut self, octets: u64) {
        let ratio = self.datagram as f64 / octets as f64;
        self.datagram = octets;
        self.w_max *= ratio;
        if let Some(before) = &mut self.before {
            before.w_max *= ratio;
        }
        // the curve is in datagrams
        if ratio != 1.0 {
            self.epoch = None;
        }
        self.window = self.window.max(MINIMUM_DATAGRAMS * octets);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::super::newreno::tests::{acked, base, lost};
    use super::*;

    const DATAGRAM: u64 = 1472;
    const RTT: Duration = Duration::from_millis(50);

    /// Acknowledges one whole window per round trip for `rounds`.
    fn run(cubic: &mut Cubic, start: Instant, rounds: u32) -> Instant {
        let mut now = start;
        for _ in 0..rounds {
            now += RTT;
            for _ in 0..cubic.window() / DATAGRAM {
                cubic.on_ack(&acked(now, now - RTT, DATAGRAM));
            }
        }
        now
    }

    #[test]
    fn returns_to_the_old_window_after_k_seconds_and_then_goes_beyond() {
        let t = base();
        let mut cubic = Cubic::new(DATAGRAM);
        let now = run(&mut cubic, t, 5);
        let full = cubic.window();
        assert_eq!(full, 320 * DATAGRAM, "slow start doubles");
        cubic.on_loss(&lost(now, now - RTT));
        assert!(cubic.window().abs_diff(full * 7 / 10) < DATAGRAM);
        // K = cbrt(320 * 0.3 / 0.4) = 6.2 s = 124 round trips
        let now = run(&mut cubic, now + RTT, 124);
        let back = cubic.window();
        assert!(back.abs_diff(full) < full / 20, "{back} against {full}");
        run(&mut cubic, now, 80);
        assert!(cubic.window() > full * 11 / 10);
    }

    #[test]
    fn never_falls_below_four_datagrams() {
        let t = base();
        let mut cubic = Cubic::new(DATAGRAM);
        for round in 1..30 {
            cubic.on_loss(&lost(t + RTT * round, t + RTT * round - RTT / 2));
        }
        assert_eq!(cubic.window(), 4 * DATAGRAM);
    }

    #[test]
    fn a_spurious_loss_is_undone() {
        let t = base();
        let mut cubic = Cubic::new(DATAGRAM);
        let now = run(&mut cubic, t, 3);
        let full = cubic.window();
        cubic.on_loss(&lost(now, now - RTT / 2));
        assert!(cubic.window() < full);
        cubic.on_spurious_loss(now);
        assert_eq!(cubic.window(), full);
    }
}
