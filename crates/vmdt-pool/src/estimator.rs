//! How long the shares of a message take to come in: the wait before frozen ones are asked for.
//!
//! RFC 6298's smoothing over collection times: how long the slowest of the k shares that completed
//! a message took, each from the moment it was asked for (by the announcement or by an unfreeze).
//! Counting from the announcement alone would count the wait itself whenever a holder is dead, and
//! the wait would feed on itself. A share that was asked for twice is left out, as RFC 6298 section
//! 3 (Karn's algorithm) leaves out retransmitted segments.

use std::time::Duration;

/// The shortest wait.
pub(crate) const FLOOR: Duration = Duration::from_millis(50);
/// The longest wait before the first ask.
pub(crate) const CAP: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct Estimator {
    initial: Duration,
    /// Smoothed time and its mean deviation, once measured.
    measured: Option<(Duration, Duration)>,
}

impl Estimator {
    pub(crate) fn new(initial: Duration) -> Self {
        Estimator {
            initial: initial.clamp(FLOOR, CAP),
            measured: None,
        }
    }

    /// SRTT + 4 RTTVAR, between [`FLOOR`] and [`CAP`].
    pub(crate) fn wait(&self) -> Duration {
        match self.measured {
            None => self.initial,
            Some((smoothed, deviation)) => smoothed
                .saturating_add(deviation.saturating_mul(4))
                .clamp(FLOOR, CAP),
        }
    }

    /// A collection took `took`; counted as at most [`CAP`], so that one message that lay with an
    /// absent holder for a day does not hold up those after it for longer than the cap.
    pub(crate) fn sample(&mut self, took: Duration) {
        let took = took.min(CAP);
        self.measured = Some(match self.measured {
            None => (took, took / 2),
            Some((smoothed, deviation)) => {
                let error = smoothed.abs_diff(took);
                (smoothed * 7 / 8 + took / 8, deviation * 3 / 4 + error / 4)
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sample_sets_three_times_itself() {
        let mut estimator = Estimator::new(ms(700));
        assert_eq!(estimator.wait(), ms(700));
        estimator.sample(ms(100));
        assert_eq!(estimator.wait(), ms(300));
    }

    #[test]
    fn later_samples_are_smoothed_by_an_eighth_and_a_quarter() {
        let mut estimator = Estimator::new(ms(700));
        estimator.sample(ms(80));
        estimator.sample(ms(160));
        // 80 * 7/8 + 160/8 = 90; 40 * 3/4 + 80/4 = 50.
        assert_eq!(estimator.wait(), ms(90 + 4 * 50));
    }

    #[test]
    fn steady_times_converge_and_stay_within_floor_and_cap() {
        let mut estimator = Estimator::new(Duration::MAX);
        assert_eq!(estimator.wait(), CAP);
        for _ in 0..100 {
            estimator.sample(ms(1));
        }
        assert_eq!(estimator.wait(), FLOOR);
        for _ in 0..100 {
            estimator.sample(ms(200));
        }
        assert!((ms(200)..ms(203)).contains(&estimator.wait()));
        for _ in 0..100 {
            estimator.sample(Duration::MAX);
        }
        assert_eq!(estimator.wait(), CAP);
    }
}
