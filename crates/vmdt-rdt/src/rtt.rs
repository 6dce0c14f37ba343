//! Round-trip estimation (RFC 9002 section 5) and the probe timeout (section 6.2.1).

use std::time::Duration;

/// Timer granularity (RFC 9002 section 6.1.2).
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);

/// Smoothed round-trip time of one path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RttEstimator {
    initial: Duration,
    latest: Duration,
    smoothed: Option<Duration>,
    var: Duration,
    min: Duration,
}

impl RttEstimator {
    pub(crate) fn new(initial: Duration) -> Self {
        Self {
            initial,
            latest: initial,
            smoothed: None,
            var: initial / 2,
            min: initial,
        }
    }

    /// Begins anew with the least that was seen of the path.
    pub(crate) fn restart(&mut self) {
        if self.smoothed.is_some() {
            self.smoothed = Some(self.min);
            self.var = self.min / 2;
            self.latest = self.min;
        }
    }

    /// Takes a sample. `ack_delay` is what the peer says it waited; it is capped at
    /// `max_ack_delay` and never makes the sample smaller than the path's minimum.
    pub(crate) fn update(
        &mut self,
        sample: Duration,
        ack_delay: Duration,
        max_ack_delay: Duration,
    ) {
        self.latest = sample;
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.var = sample / 2;
            self.min = sample;
            return;
        };
        self.min = self.min.min(sample);
        let delay = ack_delay.min(max_ack_delay);
        let adjusted = match sample.checked_sub(delay) {
            Some(adjusted) if adjusted >= self.min => adjusted,
            _ => sample,
        };
        let deviation = smoothed.abs_diff(adjusted);
        self.var = (self.var * 3 + deviation) / 4;
        self.smoothed = Some((smoothed * 7 + adjusted) / 8);
    }

    /// Whether a sample was ever taken.
    pub(crate) fn has_sample(&self) -> bool {
        self.smoothed.is_some()
    }

    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(self.initial)
    }

    pub(crate) fn var(&self) -> Duration {
        self.var
    }

    pub(crate) fn latest(&self) -> Duration {
        self.latest
    }

    pub(crate) fn min(&self) -> Duration {
        self.min
    }

    /// Probe timeout without backoff.
    pub(crate) fn pto_base(&self, max_ack_delay: Duration) -> Duration {
        self.smoothed() + (self.var * 4).max(GRANULARITY) + max_ack_delay
    }

    /// Age at which a packet sent before an acknowledged one is lost: 9/8 of the round trip
    /// (RFC 9002 section 6.1.2).
    pub(crate) fn loss_delay(&self) -> Duration {
        (self.smoothed().max(self.latest) * 9 / 8).max(GRANULARITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn first_sample_replaces_the_initial_guess() {
        let mut rtt = RttEstimator::new(MS * 200);
        assert!(!rtt.has_sample());
        assert_eq!(rtt.smoothed(), MS * 200);
        rtt.update(MS * 40, MS * 5, MS * 5);
        assert_eq!(rtt.smoothed(), MS * 40);
        assert_eq!(rtt.var(), MS * 20);
        assert_eq!(rtt.min(), MS * 40);
        assert_eq!(rtt.pto_base(MS * 5), MS * (40 + 80 + 5));
    }

    #[test]
    fn ack_delay_is_subtracted_but_not_below_the_minimum() {
        let mut rtt = RttEstimator::new(MS * 200);
        rtt.update(MS * 40, Duration::ZERO, MS * 5);
        rtt.update(MS * 48, MS * 100, MS * 5);
        // the delay counts as 5 ms: 43 ms enters the average
        assert_eq!(rtt.smoothed(), (MS * 40 * 7 + MS * 43) / 8);
        let before = rtt.smoothed();
        rtt.update(MS * 42, MS * 5, MS * 5);
        assert_eq!(rtt.smoothed(), (before * 7 + MS * 42) / 8);
    }

    #[test]
    fn constant_samples_converge_and_the_deviation_vanishes() {
        let mut rtt = RttEstimator::new(MS * 200);
        for _ in 0..100 {
            rtt.update(MS * 20, Duration::ZERO, MS * 5);
        }
        assert_eq!(rtt.smoothed(), MS * 20);
        assert!(rtt.var() < MS);
        assert_eq!(rtt.loss_delay(), MS * 20 * 9 / 8);
    }
}
