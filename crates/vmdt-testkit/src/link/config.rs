//! The settings of a link.

use std::time::Duration;

use crate::SimRng;

/// The settings of one direction of a path. The default is perfect: no delay,
/// no loss, no limit.
///
/// Every setter checks its bounds and panics, naming the caller's line, when a
/// value is outside: a wrong setting is a mistake in the test.
///
/// ```
/// use std::time::Duration;
/// use vmdt_testkit::{BurstLoss, LinkConfig};
///
/// let dsl = LinkConfig::new()
///     .delay(Duration::from_millis(15))
///     .jitter(Duration::from_millis(3))
///     .loss(0.01)
///     .burst_loss(BurstLoss::new(0.002, 0.25))
///     .rate(16_000_000, 64 * 1024)
///     .mtu(1_464);
/// assert_eq!(dsl.transmission_time(1_000), Duration::from_micros(500));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    pub(super) burst: Option<BurstLoss>,
    pub(super) duplicate: f64,
    pub(super) reorder: f64,
    pub(super) reorder_by: Duration,
    pub(super) corrupt: f64,
    pub(super) rate: Option<Rate>,
    pub(super) mtu: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            burst: None,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            corrupt: 0.0,
            rate: None,
            mtu: ETHERNET,
        }
    }
}

/// The largest datagram that a link of 1,500 octets carries, under IPv4 and UDP.
const ETHERNET: usize = 1_472;

/// The longest delay, jitter or reordering a setter takes: one hour.
const MAX_DELAY: Duration = Duration::from_secs(3_600);

impl LinkConfig {
    /// A link that carries every datagram of up to 1,472 octets at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One-way delay. Default 0, at most one hour.
    ///
    /// # Panics
    /// Above one hour.
    #[track_caller]
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = checked_delay("delay", delay);
        self
    }

    /// Extra delay, uniform over `0..=jitter` for each datagram. Default 0, at
    /// most one hour. It never reorders.
    ///
    /// # Panics
    /// Above one hour.
    #[track_caller]
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = checked_delay("jitter", jitter);
        self
    }

    /// Probability that a datagram is lost, independent of the others.
    /// Default 0.
    ///
    /// # Panics
    /// Outside `0.0..=1.0`.
    #[track_caller]
    #[must_use]
    pub fn loss(mut self, p: f64) -> Self {
        self.loss = checked_probability("loss", p);
        self
    }

    /// Loss in bursts, on top of the independent loss. Default none.
    #[must_use]
    pub fn burst_loss(mut self, burst: BurstLoss) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Probability that a datagram comes out twice. Default 0.
    ///
    /// # Panics
    /// Outside `0.0..=1.0`.
    #[track_caller]
    #[must_use]
    pub fn duplicate(mut self, p: f64) -> Self {
        self.duplicate = checked_probability("duplicate", p);
        self
    }

    /// Probability that a datagram is held back, and for how long at most
    /// (uniform over `0..=by`, so that later ones overtake). Default none.
    ///
    /// # Panics
    /// With a probability outside `0.0..=1.0` or a time above one hour.
    #[track_caller]
    #[must_use]
    pub fn reorder(mut self, p: f64, by: Duration) -> Self {
        self.reorder = checked_probability("reorder", p);
        self.reorder_by = checked_delay("reorder", by);
        self
    }

    /// Probability that 1 to 4 bits of a datagram are flipped. Default 0.
    ///
    /// # Panics
    /// Outside `0.0..=1.0`.
    #[track_caller]
    #[must_use]
    pub fn corrupt(mut self, p: f64) -> Self {
        self.corrupt = checked_probability("corrupt", p);
        self
    }

    /// A bottleneck of `bits_per_second` with a queue of `queue_octets`
    /// (datagram in transmission included), which drops what no longer fits.
    /// Default no limit. Counted in octets of datagrams, without headers of
    /// layers below.
    ///
    /// # Panics
    /// When either is 0: nothing would ever pass.
    #[track_caller]
    #[must_use]
    pub fn rate(mut self, bits_per_second: u64, queue_octets: u64) -> Self {
        assert!(bits_per_second > 0, "rate: 0 bits per second pass nothing");
        assert!(queue_octets > 0, "rate: a queue of 0 octets passes nothing");
        self.rate = Some(Rate {
            bits_per_second,
            queue: queue_octets,
        });
        self
    }

    /// The largest datagram that passes, in octets. Default 1,472: Ethernet's 1,500 less the headers
    /// of IPv4 and UDP.
    ///
    /// # Panics
    /// When 0.
    #[track_caller]
    #[must_use]
    pub fn mtu(mut self, octets: usize) -> Self {
        assert!(octets > 0, "mtu: 0 octets pass nothing");
        self.mtu = octets;
        self
    }

    /// A random unpleasant link for a world: delay up to 100 ms, and each
    /// other effect present half of the time, with independent loss up to
    /// `max_loss` in all (burst loss takes its share of it), duplication up to
    /// 5%, reordering up to 10% by up to 50 ms, corruption up to 2%, jitter up
    /// to 20 ms and a rate of 1 to 100 Mbit/s.
    ///
    /// # Panics
    /// When `max_loss` is outside `0.0..=1.0`.
    #[track_caller]
    #[must_use]
    pub fn sample(rng: &mut SimRng, max_loss: f64) -> Self {
        let loss = checked_probability("max_loss", max_loss) * rng.unit();
        let ms = Duration::from_millis;
        let mut config = Self::new().delay(rng.duration(ms(100)));
        if rng.chance(0.5) {
            config = config.loss(loss);
        } else if rng.chance(0.5) {
            // In the bad state 2 to 10 datagrams are lost in a row, on average.
            let leave = 1.0 / (2.0 + 8.0 * rng.unit());
            let enter = leave * loss / (1.0 - loss).max(0.1);
            config = config.burst_loss(BurstLoss::new(enter.min(1.0), leave));
        }
        if rng.chance(0.5) {
            config = config.jitter(rng.duration(ms(20)));
        }
        if rng.chance(0.5) {
            config = config.duplicate(0.05 * rng.unit());
        }
        if rng.chance(0.5) {
            config = config.reorder(0.1 * rng.unit(), rng.duration(ms(50)));
        }
        if rng.chance(0.5) {
            config = config.corrupt(0.02 * rng.unit());
        }
        if rng.chance(0.5) {
            config = config.rate(
                rng.range(1_000_000..=100_000_000),
                rng.range(20_000..=500_000),
            );
        }
        config
    }

    /// The one-way delay, without jitter.
    #[must_use]
    pub fn one_way_delay(&self) -> Duration {
        self.delay
    }

    /// The share of datagrams lost in the long run, by both kinds of loss.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        let burst = self.burst.map_or(0.0, |burst| burst.mean_loss());
        1.0 - (1.0 - burst) * (1.0 - self.loss)
    }

    /// How long the bottleneck takes to transmit so many octets, rounded up to
    /// a nanosecond; 0 without a rate.
    #[must_use]
    pub fn transmission_time(&self, octets: usize) -> Duration {
        self.rate
            .map_or(Duration::ZERO, |rate| rate.transmission_time(octets as u64))
    }

    /// Delay with jitter drawn from `rng`.
    pub(crate) fn transit_time(&self, rng: &mut SimRng) -> Duration {
        self.delay + rng.duration(self.jitter)
    }
}

/// Loss in bursts: the model of Gilbert and Elliott. The link is in a good or
/// a bad state; before each datagram it may change state, and in the bad state
/// datagrams are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurstLoss {
    pub(super) enter: f64,
    pub(super) leave: f64,
    pub(super) loss: f64,
}

impl BurstLoss {
    /// The bad state begins with probability `enter` and ends with probability
    /// `leave` at each datagram, and loses all: bursts are 1/`leave` datagrams
    /// long on average.
    ///
    /// # Panics
    /// When a probability is outside `0.0..=1.0`, or `leave` is 0: the burst
    /// would never end.
    #[track_caller]
    #[must_use]
    pub fn new(enter: f64, leave: f64) -> Self {
        let leave = checked_probability("leave", leave);
        assert!(leave > 0.0, "leave: with 0 the burst never ends");
        Self {
            enter: checked_probability("enter", enter),
            leave,
            loss: 1.0,
        }
    }

    /// The share of datagrams lost in the bad state. Default 1.
    ///
    /// # Panics
    /// Outside `0.0..=1.0`.
    #[track_caller]
    #[must_use]
    pub fn loss(mut self, p: f64) -> Self {
        self.loss = checked_probability("loss", p);
        self
    }

    /// The share of datagrams lost in the long run.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss * self.enter / (self.enter + self.leave)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) bits_per_second: u64,
    pub(super) queue: u64,
}

impl Rate {
    pub(super) fn transmission_time(self, octets: u64) -> Duration {
        let nanos = (u128::from(octets) * 8_000_000_000).div_ceil(u128::from(self.bits_per_second));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[track_caller]
fn checked_probability(name: &str, p: f64) -> f64 {
    assert!((0.0..=1.0).contains(&p), "{name}: {p} is not a probability");
    p
}

#[track_caller]
fn checked_delay(name: &str, delay: Duration) -> Duration {
    assert!(delay <= MAX_DELAY, "{name}: {delay:?} is above one hour");
    delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_ends_of_every_bound() {
        let _ = LinkConfig::new()
            .delay(MAX_DELAY)
            .loss(0.0)
            .loss(1.0)
            .duplicate(1.0)
            .corrupt(1.0)
            .reorder(1.0, MAX_DELAY)
            .rate(1, 1)
            .mtu(1)
            .burst_loss(BurstLoss::new(1.0, 1.0).loss(0.0));
    }

    #[test]
    #[should_panic(expected = "loss: 1.5 is not a probability")]
    fn rejects_a_loss_above_one() {
        let _ = LinkConfig::new().loss(1.5);
    }

    #[test]
    #[should_panic(expected = "corrupt: NaN is not a probability")]
    fn rejects_a_probability_that_is_no_number() {
        let _ = LinkConfig::new().corrupt(f64::NAN);
    }

    #[test]
    #[should_panic(expected = "above one hour")]
    fn rejects_an_endless_delay() {
        let _ = LinkConfig::new().delay(Duration::MAX);
    }

    #[test]
    #[should_panic(expected = "0 bits per second")]
    fn rejects_a_rate_of_zero() {
        let _ = LinkConfig::new().rate(0, 1_000);
    }

    #[test]
    #[should_panic(expected = "the burst never ends")]
    fn rejects_a_burst_without_end() {
        let _ = BurstLoss::new(0.1, 0.0);
    }

    #[test]
    fn transmission_time_rounds_up() {
        let config = LinkConfig::new().rate(3, 100);
        assert_eq!(config.transmission_time(3), Duration::from_secs(8));
        assert_eq!(
            config.transmission_time(1),
            Duration::from_nanos(2_666_666_667)
        );
        assert_eq!(
            LinkConfig::new().transmission_time(1_000_000),
            Duration::ZERO
        );
    }

    #[test]
    fn mean_loss_joins_both_kinds() {
        let config = LinkConfig::new()
            .loss(0.5)
            .burst_loss(BurstLoss::new(0.1, 0.3));
        assert!((config.mean_loss() - (1.0 - 0.5 * 0.75)).abs() < 1e-12);
    }

    #[test]
    fn samples_stay_below_the_loss_asked_for() {
        let mut rng = SimRng::from_seed(1);
        for _ in 0..1_000 {
            let config = LinkConfig::sample(&mut rng, 0.3);
            assert!(config.mean_loss() <= 0.3 + 1e-9, "{config:?}");
        }
    }
}
