//! How much more may be asked for to be sooner.
//!
//! Asking for a frozen share because an active one is later than its path would have it is a
//! *hedge*: usually both arrive, and one of them was for nothing. [`Budget`] keeps hedges below a
//! fraction of what arrives (as J. Dean and L. A. Barroso, "The tail at scale", 2013, advise); a
//! share whose holder is gone, or that is later than experience with whole messages allows, is
//! replaced without one.

use std::time::Duration;

/// Configuration of hedging.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HedgeConfig {
    /// Octets asked for early, as a fraction of the octets that arrive. 0.0 turns hedging off.
    /// Default 0.1.
    pub fraction: f64,
    /// Octets that may be asked for early beyond the fraction, at the beginning and after a quiet
    /// time. Default 64 KiB.
    pub burst: u64,
    /// The shortest wait for a share, whatever its path's estimate says. Default 10 ms.
    pub floor: Duration,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        HedgeConfig {
            fraction: 0.1,
            burst: 64 << 10,
            floor: Duration::from_millis(10),
        }
    }
}

/// What hedging has cost and brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HedgeReport {
    /// Shares that were asked for early.
    pub hedges: u64,
    /// Octets that were asked for early, as far as their size was known.
    pub octets: u64,
    /// Shares that would have been asked for early, had the budget allowed it.
    pub denied: u64,
    /// Octets of all shares that arrived.
    pub traffic: u64,
    /// Shares that arrived after their message was complete, or were cancelled then.
    pub cancelled: u64,
}

impl HedgeReport {
    /// Octets asked for early as a fraction of those that arrived.
    pub fn fraction(&self) -> f64 {
        self.octets as f64 / (self.traffic as f64).max(1.0)
    }
}

/// A token bucket in octets: what arrives fills it, hedges empty it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    config: HedgeConfig,
    tokens: f64,
    report: HedgeReport,
}

impl Budget {
    /// A full bucket.
    pub fn new(config: HedgeConfig) -> Self {
        let fraction = if config.fraction.is_finite() {
            config.fraction.max(0.0)
        } else {
            0.0
        };
        let burst = if fraction > 0.0 { config.burst } else { 0 };
        Budget {
            config: HedgeConfig {
                fraction,
                burst,
                ..config
            },
            tokens: burst as f64,
            report: HedgeReport::default(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &HedgeConfig {
        &self.config
    }

    /// A share arrived.
    pub fn arrived(&mut self, octets: u64) {
        self.report.traffic = self.report.traffic.saturating_add(octets);
        let more = self.tokens + octets as f64 * self.config.fraction;
        self.tokens = more.min(self.config.burst as f64);
    }

    /// A share of about `octets` is wanted early. Returns whether the budget allows it, and takes it
    /// from it.
    pub fn spend(&mut self, octets: u64) -> bool {
        if self.config.fraction <= 0.0 || self.tokens < octets as f64 {
            self.report.denied = self.report.denied.saturating_add(1);
            return false;
        }
        self.tokens -= octets as f64;
        self.report.hedges = self.report.hedges.saturating_add(1);
        self.report.octets = self.report.octets.saturating_add(octets);
        true
    }

    /// A share is not wanted any more.
    pub fn cancelled(&mut self) {
        self.report.cancelled = self.report.cancelled.saturating_add(1);
    }

    /// What it has cost and brought.
    pub fn report(&self) -> HedgeReport {
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_stay_below_the_fraction_and_the_burst() {
        let mut budget = Budget::new(HedgeConfig {
            fraction: 0.1,
            burst: 5_000,
            ..HedgeConfig::default()
        });
        for _ in 0..10_000 {
            budget.arrived(1_000);
            budget.spend(1_000);
        }
        let report = budget.report();
        assert!(report.octets <= 10_000 * 100 + 5_000, "{report:?}");
        assert!(report.octets >= 990_000, "{report:?}");
        assert_eq!(report.hedges + report.denied, 10_000);
        assert!(report.fraction() <= 0.1006);
    }

    #[test]
    fn a_quiet_time_saves_no_more_than_the_burst() {
        let mut budget = Budget::new(HedgeConfig {
            burst: 2_000,
            ..HedgeConfig::default()
        });
        budget.arrived(u64::MAX);
        assert!(budget.spend(1_500));
        assert!(!budget.spend(1_500));
    }

    #[test]
    fn without_a_fraction_there_are_no_hedges() {
        for fraction in [0.0, -1.0, f64::NAN] {
            let mut budget = Budget::new(HedgeConfig {
                fraction,
                ..HedgeConfig::default()
            });
            assert!(!budget.spend(0));
        }
    }
}
