//! AIMD: NewReno as RFC 9002 section 7 describes it, with its numbers open to configuration.

use std::time::Instant;

use super::{Acked, Controller, ControllerFactory, Lost, Marked};
use crate::error::ConfigError;

/// Numbers of the AIMD controller, in datagrams and percent.
#[derive(Clone, Copy, Debug)]
pub struct NewRenoConfig {
    initial: u32,
    minimum: u32,
    maximum: u32,
    increase: u32,
    decrease_percent: u32,
    /// The window at the start is one that was asked for.
    own_start: bool,
}

impl Default for NewRenoConfig {
    fn default() -> Self {
        Self {
            initial: 10,
            minimum: 4,
            maximum: 65_536,
            increase: 1,
            decrease_percent: 50,
            own_start: false,
        }
    }
}

impl NewRenoConfig {
    /// AIMD with the numbers of the protocol's first implementations, which count in KiB: a window
    /// of 32 KiB at the start, at least 8 KiB, at most 128 KiB, in datagrams of 1,472 octets; one
    /// more for each window acknowledged, half of it after a loss. A window of 128 KiB carries
    /// 21 Mbit/s at 50 ms. [`Config::set_loss_detection`](crate::Config::set_loss_detection)
    /// chooses between their two detectors of loss. There is no first flight beyond that window.
    #[must_use]
    pub fn aimd() -> Self {
        Self {
            initial: 23,
            minimum: 6,
            maximum: 89,
            own_start: true,
            ..Self::default()
        }
    }

    /// Window bounds in datagrams: at the start, at least, at most. Default 10, 4, 65,536. The
    /// minimum keeps a path with random loss from starving: it is never less than four. A window
    /// that was set is kept to from the start: there is no first flight beyond it.
    ///
    /// # Errors
    /// Unless 4 <= `minimum` <= `initial` <= `maximum` <= 2^20.
    pub fn set_window(
        &mut self,
        initial: u32,
        minimum: u32,
        maximum: u32,
    ) -> Result<&mut Self, ConfigError> {
        let checks = [
            ("minimum", minimum, 4, 1 << 20),
            ("initial", initial, minimum, 1 << 20),
            ("maximum", maximum, initial, 1 << 20),
        ];
        for (field, value, min, max) in checks {
            check(field, value, min, max)?;
        }
        self.initial = initial;
        self.minimum = minimum;
        self.maximum = maximum;
        self.own_start = true;
        Ok(self)
    }

    /// Datagrams added per window acknowledged. Default 1.
    ///
    /// # Errors
    /// Outside 1..=64.
    pub fn set_increase(&mut self, datagrams: u32) -> Result<&mut Self, ConfigError> {
        check("increase", datagrams, 1, 64)?;
        self.increase = datagrams;
        Ok(self)
    }

    /// Percent of the window that remains after a loss. Default 50.
    ///
    /// # Errors
    /// Outside 10..=95.
    pub fn set_decrease_percent(&mut self, percent: u32) -> Result<&mut Self, ConfigError> {
        check("decrease_percent", percent, 10, 95)?;
        self.decrease_percent = percent;
        Ok(self)
    }
}

fn check(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange {
            field,
            value: value.into(),
            min: min.into(),
            max: max.into(),
        })
    }
}

impl ControllerFactory for NewRenoConfig {
    fn build(&self, _now: Instant, datagram: u64) -> Box<dyn Controller> {
        Box::new(NewReno::new(*self, datagram))
    }

    fn takes_first_flight(&self) -> bool {
        !self.own_start
    }
}

/// Additive increase, multiplicative decrease.
#[derive(Clone, Debug)]
pub struct NewReno {
    config: NewRenoConfig,
    datagram: u64,
    window: u64,
    threshold: u64,
    /// Octets acknowledged towards the next additive increase (RFC 3465).
    counted: u64,
    recovery_start: Option<Instant>,
    /// Window and threshold before the last reduction.
    before: Option<(u64, u64)>,
}

impl NewReno {
    /// A controller for a path with datagrams of at most `datagram` octets.
    #[must_use]
    pub fn new(config: NewRenoConfig, datagram: u64) -> Self {
        Self {
            config,
            datagram,
            window: u64::from(config.initial) * datagram,
            threshold: u64::MAX,
            counted: 0,
            recovery_start: None,
            before: None,
        }
    }

    fn minimum(&self) -> u64 {
        u64::from(self.config.minimum) * self.datagram
    }

    fn maximum(&self) -> u64 {
        u64::from(self.config.maximum) * self.datagram
    }

    fn in_recovery(&self, sent_at: Instant) -> bool {
        self.recovery_start.is_some_and(|start| sent_at <= start)
    }

    fn reduce(&mut self, now: Instant) {
        self.before = Some((self.window, self.threshold));
        self.recovery_start = Some(now);
        let reduced = self.window / 100 * u64::from(self.config.decrease_percent);
        self.window = reduced.max(self.minimum());
        self.threshold = self.window;
        self.counted = 0;
    }
}

impl Controller for NewReno {
    fn on_sent(&mut self, _now: Instant, _octets: u64, _in_flight: u64) {}

    fn on_ack(&mut self, acked: &Acked) {
        if acked.app_limited || self.in_recovery(acked.sent_at) {
            return;
        }
        if self.window < self.threshold {
            self.window += acked.octets;
            if self.window >= self.threshold {
                self.counted = self.window - self.threshold;
                self.window = self.threshold;
            }
        } else {
            self.counted += acked.octets;
            if self.counted >= self.window {
                self.counted -= self.window;
                self.window += u64::from(self.config.increase) * self.datagram;
            }
        }
        self.window = self.window.min(self.maximum());
    }

    fn on_loss(&mut self, lost: &Lost) {
        if self.in_recovery(lost.sent_at) {
            return;
        }
        self.reduce(lost.now);
    }

    fn on_marked(&mut self, marked: &Marked) {
        if self.in_recovery(marked.sent_at) {
            return;
        }
        self.reduce(marked.now);
        // A mark is never a mistake.
        self.before = None;
    }

    fn on_persistent_congestion(&mut self, _now: Instant) {
        self.window = self.minimum();
        self.recovery_start = None;
        self.before = None;
        self.counted = 0;
    }

    fn on_spurious_loss(&mut self, _now: Instant) {
        if let Some((window, threshold)) = self.before.take() {
            self.window = self.window.max(window);
            self.threshold = self.threshold.max(threshold);
            self.recovery_start = None;
        }
    }

    fn on_datagram_size(&mut self, octets: u64) {
        self.datagram = octets;
        self.window = self.window.max(self.minimum());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    const DATAGRAM: u64 = 1472;

    #[allow(clippy::disallowed_methods)]
    pub(crate) fn base() -> Instant {
        Instant::now()
    }

    pub(crate) fn acked(now: Instant, sent_at: Instant, octets: u64) -> Acked {
        Acked {
            now,
            sent_at,
            octets,
            in_flight: 0,
            app_limited: false,
            latest_rtt: now - sent_at,
            smoothed_rtt: now - sent_at,
            min_rtt: now - sent_at,
            rate: None,
        }
    }

    pub(crate) fn lost(now: Instant, sent_at: Instant) -> Lost {
        Lost {
            now,
            sent_at,
            octets: DATAGRAM,
            in_flight: 0,
        }
    }

    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_datagram_per_window() {
        let t = base();
        let ms = Duration::from_millis(1);
        let mut reno = NewReno::new(NewRenoConfig::default(), DATAGRAM);
        assert_eq!(reno.window(), 10 * DATAGRAM);
        reno.on_ack(&acked(t + ms * 20, t, 10 * DATAGRAM));
        assert_eq!(reno.window(), 20 * DATAGRAM);
        assert!(reno.in_slow_start());
        reno.on_loss(&lost(t + ms * 40, t + ms * 21));
        assert!(!reno.in_slow_start());
        let reduced = reno.window();
        assert!(reduced <= 10 * DATAGRAM && reduced > 9 * DATAGRAM);
        reno.on_ack(&acked(t + ms * 70, t + ms * 50, reduced));
        assert_eq!(reno.window(), reduced + DATAGRAM);
    }

    #[test]
    fn one_reduction_per_round_trip_and_none_below_the_minimum() {
        let t = base();
        let ms = Duration::from_millis(1);
        let mut reno = NewReno::new(NewRenoConfig::default(), DATAGRAM);
        reno.on_loss(&lost(t + ms * 40, t + ms * 10));
        let once = reno.window();
        reno.on_loss(&lost(t + ms * 41, t + ms * 39));
        assert_eq!(reno.window(), once, "sent before the recovery began");
        for round in 1..20 {
            reno.on_loss(&lost(
                t + ms * (41 + round * 40),
                t + ms * (20 + round * 40),
            ));
        }
        assert_eq!(reno.window(), 4 * DATAGRAM);
        reno.on_persistent_congestion(t + ms * 1000);
        assert_eq!(reno.window(), 4 * DATAGRAM);
    }

    #[test]
    fn a_spurious_loss_is_undone() {
        let t = base();
        let ms = Duration::from_millis(1);
        let mut reno = NewReno::new(NewRenoConfig::default(), DATAGRAM);
        reno.on_loss(&lost(t + ms * 40, t + ms * 10));
        reno.on_spurious_loss(t + ms * 41);
        assert_eq!(reno.window(), 10 * DATAGRAM);
        assert!(reno.in_slow_start());
    }

    #[test]
    fn an_application_limited_window_does_not_grow() {
        let t = base();
        let mut reno = NewReno::new(NewRenoConfig::default(), DATAGRAM);
        let mut ack = acked(t + Duration::from_millis(20), t, 10 * DATAGRAM);
        ack.app_limited = true;
        reno.on_ack(&ack);
        assert_eq!(reno.window(), 10 * DATAGRAM);
    }

    #[test]
    fn aimd_counts_in_kibibytes() {
        let mut reno = NewReno::new(NewRenoConfig::aimd(), DATAGRAM);
        let near = |window: u64, kib: u64| window.abs_diff(kib << 10) <= DATAGRAM;
        assert!(near(reno.window(), 32));
        let t = base();
        let ms = Duration::from_millis(1);
        for round in 0..20 {
            reno.on_ack(&acked(t + ms * (round + 1), t + ms * round, reno.window()));
        }
        assert!(near(reno.window(), 128));
        for round in 0..10 {
            reno.on_loss(&lost(
                t + ms * (101 + round * 2),
                t + ms * (100 + round * 2),
            ));
        }
        assert!(near(reno.window(), 8));
    }

    #[test]
    fn configuration_keeps_its_order() {
        let mut config = NewRenoConfig::default();
        assert!(config.set_window(10, 3, 100).is_err());
        assert!(config.set_window(10, 11, 100).is_err());
        assert!(config.set_window(10, 4, 9).is_err());
        assert!(config.set_window(10, 4, 10).is_ok());
        assert!(config.set_decrease_percent(96).is_err());
        assert!(config.set_increase(0).is_err());
    }
}
