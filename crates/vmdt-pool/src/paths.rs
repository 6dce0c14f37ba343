//! Which share goes on which path, and how many shares more than k are sent at once.
//!
//! [`Scheduler`] gives each share of a segment to the path on which it will be complete first,
//! counting what is queued there already (earliest completion first). Over many segments every path
//! gets shares in proportion to its rate, all queues end together, and the rates add up.
//!
//! [`Redundancy`] says how many shares beyond k are worth sending at once: the fewest with which k
//! arrive in time with the wanted probability, given what is lost at present.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::placement::Carrier;

/// What a path can do, as measured by the transport. For a way through a member, the sum of the
/// round trips, the greater loss and the lesser rate of both hops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathEstimate {
    /// Smoothed round trip.
    pub srtt: Duration,
    /// Its mean deviation.
    pub rttvar: Duration,
    /// Part of the packets that is lost, 0.0 to 1.0.
    pub loss: f64,
    /// Octets per second.
    pub rate: f64,
    /// Octets that wait or are under way on it now.
    pub queued: u64,
}

impl PathEstimate {
    /// A path without loss or queue.
    pub fn new(srtt: Duration, rate: f64) -> Self {
        PathEstimate {
            srtt,
            rttvar: srtt / 4,
            loss: 0.0,
            rate,
            queued: 0,
        }
    }

    /// Octets per second that arrive: what is lost has to be sent again.
    pub fn goodput(&self) -> f64 {
        let rate = if self.rate.is_finite() {
            self.rate
        } else {
            0.0
        };
        (rate * (1.0 - unit(self.loss))).max(1.0)
    }

    /// How long from now until `octets`, sent behind what is queued, are there: half a round trip
    /// and the time to send them.
    pub fn completion(&self, octets: u64) -> Duration {
        let sending = octets.saturating_add(self.queued) as f64 / self.goodput();
        seconds(self.srtt.as_secs_f64() / 2.0 + sending)
    }

    /// How long after it was asked for a share of `octets` is late: SRTT + 4 RTTVAR (RFC 6298) and
    /// the time to send it.
    pub fn late_after(&self, octets: u64) -> Duration {
        let sending = seconds(octets as f64 / self.goodput());
        self.srtt
            .saturating_add(self.rttvar.saturating_mul(4))
            .saturating_add(sending)
    }
}

fn unit(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

/// A duration of so many seconds, at most a day.
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 86_400.0)
    })
}

/// Gives shares to paths. It keeps what it gave until the transport's next estimate tells it what is
/// queued.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    paths: BTreeMap<Carrier, PathEstimate>,
}

impl Scheduler {
    /// Without paths.
    pub fn new() -> Self {
        Scheduler::default()
    }

    /// A path is there, or was measured again. `estimate` counts in what is queued on it.
    pub fn update(&mut self, path: Carrier, estimate: PathEstimate) {
        self.paths.insert(path, estimate);
    }

    /// A path is gone.
    pub fn remove(&mut self, path: Carrier) {
        self.paths.remove(&path);
    }

    /// The paths and what is queued on them.
    pub fn paths(&self) -> impl Iterator<Item = (Carrier, &PathEstimate)> + '_ {
        self.paths.iter().map(|(path, estimate)| (*path, estimate))
    }

    /// Octets per second of all paths together.
    pub fn rate(&self) -> f64 {
        self.paths.values().map(PathEstimate::goodput).sum()
    }

    /// The share that a path has in the sum of the rates, 0.0 to 1.0.
    pub fn weight(&self, path: Carrier) -> f64 {
        let all = self.rate();
        let own = self.paths.get(&path).map(PathEstimate::goodput);
        own.filter(|_| all > 0.0).map_or(0.0, |own| own / all)
    }

    /// Paths for the next `shares` shares of one segment, of `octets` each, in the order of their
    /// indices: each on the path where it will be complete first, `most` of them on one path (k - 1,
    /// or all on the direct path of a sealed message). Fewer paths are returned when there is no
    /// room for more. What was given counts as queued.
    pub fn assign(
        &mut self,
        shares: usize,
        octets: u64,
        most: impl Fn(Carrier) -> usize,
    ) -> Vec<Carrier> {
        let mut given: BTreeMap<Carrier, usize> = BTreeMap::new();
        let mut order = Vec::with_capacity(shares.min(255));
        for _ in 0..shares.min(255) {
            let best = self
                .paths
                .iter_mut()
                .filter(|(path, _)| given.get(path).copied().unwrap_or(0) < most(**path))
                .min_by_key(|(path, estimate)| (estimate.completion(octets), **path));
            let Some((path, estimate)) = best else {
                break;
            };
            estimate.queued = estimate.queued.saturating_add(octets);
            *given.entry(*path).or_default() += 1;
            order.push(*path);
        }
        order
    }

    /// So many octets left the queue of a path: they were sent, or are not wanted any more.
    pub fn sent(&mut self, path: Carrier, octets: u64) {
        if let Some(estimate) = self.paths.get_mut(&path) {
            estimate.queued = estimate.queued.saturating_sub(octets);
        }
    }
}

/// The probability that at least `k` of the shares arrive, when share `i` is lost with probability
/// `loss[i]`, independently of the others.
pub fn delivery(k: usize, loss: &[f64]) -> f64 {
    // chance[i]: exactly i of the shares so far arrive; the last one: k or more do.
    let mut chance = vec![0.0; k.saturating_add(1).min(257)];
    if let Some(first) = chance.first_mut() {
        *first = 1.0;
    }
    for &lost in loss {
        let lost = unit(lost);
        let mut below = 0.0;
        let last = chance.len().saturating_sub(1);
        for (count, chance) in chance.iter_mut().enumerate() {
            let before = *chance;
            let stays = if count == last { 1.0 } else { lost };
            *chance = before * stays + below * (1.0 - lost);
            below = before;
        }
    }
    chance.last().copied().unwrap_or(0.0)
}

/// The probability that a share of `packets` packets needs a retransmission, if each packet is lost
/// with probability `loss`.
pub fn share_loss(loss: f64, packets: u32) -> f64 {
    1.0 - (1.0 - unit(loss)).powi(i32::try_from(packets).unwrap_or(i32::MAX))
}

/// How many shares more than k are sent at once, between 0 and n - k.
///
/// It rises as soon as the measured loss asks for it, and falls by one at a time after
/// [`CALM`](Self::CALM) segments that would have done with less, so that it does not swing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Redundancy {
    k: u8,
    n: u8,
    wanted: f64,
    shares: u8,
    calm: u32,
    delivery: f64,
}

impl Redundancy {
    /// After how many segments that would have done with less it falls.
    pub const CALM: u32 = 16;

    /// For k of n shares, to arrive at the first attempt with probability `wanted` (0.0 to 1.0). It
    /// begins with none.
    pub fn new(k: u8, n: u8, wanted: f64) -> Self {
        Redundancy {
            k,
            n: n.max(k),
            wanted: unit(wanted),
            shares: 0,
            calm: 0,
            delivery: 1.0,
        }
    }

    /// Decides for the next segment: `loss` is, for each of its shares in the order in which they
    /// would be sent, the probability that it does not arrive at the first attempt. Returns how many
    /// are to be sent beyond k.
    pub fn decide(&mut self, loss: &[f64]) -> u8 {
        let k = usize::from(self.k);
        let most = usize::from(self.n).min(loss.len());
        let chance = |shares: usize| delivery(k, loss.get(..shares).unwrap_or(loss));
        let enough = (k..=most).find(|shares| chance(*shares) >= self.wanted);
        let needed = enough.unwrap_or(most.max(k)).saturating_sub(k);
        let needed = u8::try_from(needed).unwrap_or(u8::MAX);
        if needed >= self.shares {
            self.shares = needed;
            self.calm = 0;
        } else {
            self.calm += 1;
            if self.calm >= Self::CALM {
                self.shares = self.shares.saturating_sub(1);
                self.calm = 0;
            }
        }
        self.delivery = chance(k.saturating_add(usize::from(self.shares)).min(most));
        self.shares
    }

    /// How many shares beyond k are sent at present.
    pub fn shares(&self) -> u8 {
        self.shares
    }

    /// The part of what is sent that is redundant, 0.0 to 1.0.
    pub fn overhead(&self) -> f64 {
        let all = f64::from(self.k) + f64::from(self.shares);
        f64::from(self.shares) / all.max(1.0)
    }

    /// The probability that the last segment arrived at the first attempt.
    pub fn delivery(&self) -> f64 {
        self.delivery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: u8) -> Carrier {
        Carrier::Member(format!("m{number}").parse().unwrap())
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends `segments` of 3 active shares over paths with these rates, as fast as they take them:
    /// no path is given more than a fifth of a second ahead. Returns octets per second.
    fn simulate(rates: &[f64], segments: usize, share: u64) -> f64 {
        let mut scheduler = Scheduler::new();
        for (rate, number) in rates.iter().zip(1..) {
            scheduler.update(path(number), PathEstimate::new(ms(50), *rate));
        }
        let (mut time, mut left) = (0.0, segments);
        // What a path has sent of its present octet.
        let mut part = vec![0.0; rates.len()];
        let step = 0.001;
        loop {
            let ahead = scheduler.paths().map(|(_, e)| e.queued as f64).sum::<f64>();
            if left > 0 && ahead < scheduler.rate() * 0.2 {
                assert_eq!(scheduler.assign(3, share, |_| 2).len(), 3);
                left -= 1;
                continue;
            }
            if left == 0 && ahead == 0.0 {
                break;
            }
            for (at, rate) in rates.iter().enumerate() {
                part[at] += rate * step;
                let whole = part[at] as u64;
                part[at] -= whole as f64;
                scheduler.sent(path(at as u8 + 1), whole);
            }
            time += step;
        }
        (segments * 3) as f64 * share as f64 / time
    }

    #[test]
    fn the_rates_of_all_paths_add_up() {
        for rates in [
            vec![2.5e6, 2.5e6, 2.5e6],
            vec![1e6, 2e6, 3e6],
            vec![5e5, 5e5, 2e6, 4e6],
            vec![1e6, 1.5e6],
        ] {
            let sum: f64 = rates.iter().sum();
            let reached = simulate(&rates, 400, 20_000);
            assert!(reached >= 0.9 * sum, "{reached} of {sum} with {rates:?}");
        }
    }

    #[test]
    fn a_share_goes_where_it_is_complete_first_and_queues_end_together() {
        let mut scheduler = Scheduler::new();
        scheduler.update(path(1), PathEstimate::new(ms(20), 1e6));
        scheduler.update(path(2), PathEstimate::new(ms(20), 3e6));
        for _ in 0..100 {
            scheduler.assign(4, 10_000, |_| 3);
        }
        let ends: Vec<f64> = scheduler
            .paths()
            .map(|(_, estimate)| estimate.completion(0).as_secs_f64())
            .collect();
        assert!((ends[0] - ends[1]).abs() < 0.02, "{ends:?}");
        assert!((scheduler.weight(path(2)) - 0.75).abs() < 1e-9);
        // A long way is worth it only when the short one is full.
        scheduler.update(path(1), PathEstimate::new(ms(2), 1e6));
        scheduler.update(path(2), PathEstimate::new(ms(600), 1e6));
        assert_eq!(scheduler.assign(2, 1_000, |_| 2), [path(1), path(1)]);
    }

    #[test]
    fn no_path_gets_more_of_a_segment_than_it_may() {
        let mut scheduler = Scheduler::new();
        scheduler.update(Carrier::Direct, PathEstimate::new(ms(1), 1e9));
        scheduler.update(path(1), PathEstimate::new(ms(90), 1e3));
        let most = |path| if path == Carrier::Direct { 2 } else { 1 };
        let order = scheduler.assign(5, 1_000, most);
        assert_eq!(order, [Carrier::Direct, Carrier::Direct, path(1)]);
        scheduler.remove(path(1));
        assert_eq!(scheduler.assign(5, 1_000, most).len(), 2);
        assert!(Scheduler::new().assign(3, 1, |_| 9).is_empty());
    }

    #[test]
    fn loss_takes_from_a_path_what_has_to_be_sent_again() {
        let mut lossy = PathEstimate::new(ms(50), 1e6);
        lossy.loss = 0.5;
        assert!((lossy.goodput() - 5e5).abs() < 1.0);
        assert_eq!(lossy.completion(500_000), ms(1_025));
        assert_eq!(
            PathEstimate::new(ms(40), 1e6).late_after(10_000),
            ms(40 + 40 + 10)
        );
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            let path = PathEstimate {
                rate: odd,
                loss: odd,
                ..lossy
            };
            assert!(path.completion(u64::MAX) <= Duration::from_secs(86_401));
        }
    }

    #[test]
    fn delivery_is_the_binomial_when_all_paths_are_alike() {
        let p: f64 = 0.06;
        let q = 1.0 - p;
        // 3 of 5: 10 q3 p2 + 5 q4 p + q5.
        let expected = 10.0 * q.powi(3) * p.powi(2) + 5.0 * q.powi(4) * p + q.powi(5);
        assert!((delivery(3, &[p; 5]) - expected).abs() < 1e-12);
        assert!((delivery(1, &[0.5, 0.2]) - 0.9).abs() < 1e-12);
        assert!(delivery(3, &[0.0, 0.0]) == 0.0);
        assert!((delivery(0, &[]) - 1.0).abs() < 1e-12);
        assert!((share_loss(0.1, 2) - 0.19).abs() < 1e-12);
    }

    #[test]
    fn redundancy_follows_loss_up_at_once_and_down_slowly_and_stays_in_bounds() {
        let mut redundancy = Redundancy::new(3, 6, 0.99);
        assert_eq!(redundancy.decide(&[0.0; 6]), 0);
        assert_eq!(redundancy.decide(&[0.06; 6]), 2);
        assert!(redundancy.delivery() >= 0.99);
        assert!((redundancy.overhead() - 0.4).abs() < 1e-9);
        assert_eq!(redundancy.decide(&[0.9; 6]), 3);
        for _ in 0..Redundancy::CALM - 1 {
            assert_eq!(redundancy.decide(&[0.0; 6]), 3);
        }
        assert_eq!(redundancy.decide(&[0.0; 6]), 2);
        assert_eq!(Redundancy::new(3, 6, 1.0).decide(&[0.5; 6]), 3);
        assert_eq!(Redundancy::new(3, 6, 0.99).decide(&[0.5; 4]), 1);
    }
}
