//! One direction of an emulated path.

mod config;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

pub use config::{BurstLoss, LinkConfig};

use crate::SimRng;

/// A datagram that comes out of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it comes out.
    pub at: Instant,
    /// What comes out: what was sent, or a corrupted copy.
    pub bytes: Bytes,
}

/// What a link has done, in datagrams since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams handed to the link.
    pub sent: u64,
    /// Octets in them.
    pub sent_octets: u64,
    /// Datagrams that come out, copies included.
    pub arrived: u64,
    /// Dropped because they were larger than the MTU.
    pub oversized: u64,
    /// Dropped because the queue of the bottleneck was full.
    pub queue_full: u64,
    /// Lost by the independent loss.
    pub lost: u64,
    /// Lost by the burst loss.
    pub lost_in_bursts: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Held back so that later ones overtake.
    pub reordered: u64,
    /// Delivered with flipped bits.
    pub corrupted: u64,
}

/// One direction of a path: takes datagrams and says when, and as what, they
/// come out.
///
/// A datagram passes, in this order: the MTU, the bottleneck's queue, burst
/// loss, independent loss, duplication, and then for each copy corruption,
/// delay and jitter, and reordering. Each effect draws from a stream of its
/// own, so changing one setting does not move the others' choices.
///
/// Without reordering a link is first in, first out: jitter never makes a
/// datagram overtake another (where it would, the later one comes out at the
/// same instant as the earlier).
///
/// ```
/// use std::time::Duration;
/// use vmdt_testkit::{Clock, Link, LinkConfig, SimRng};
///
/// let clock = Clock::new();
/// let config = LinkConfig::new().delay(Duration::from_millis(20));
/// let mut link = Link::new(config, &SimRng::from_seed(1));
/// let arrivals: Vec<_> = link.send(clock.now(), "hello".into()).collect();
/// assert_eq!(arrivals.len(), 1);
/// assert_eq!(arrivals[0].at, clock.now() + Duration::from_millis(20));
/// ```
#[derive(Clone, Debug)]
pub struct Link {
    config: LinkConfig,
    dice: Dice,
    in_burst: bool,
    /// When each datagram in the bottleneck's queue leaves it, and its cost.
    queue: VecDeque<(Instant, u64)>,
    queued: u64,
    /// The last in-order arrival: nothing in order comes out before it.
    floor: Option<Instant>,
    stats: LinkStats,
}

/// A stream of randomness for each effect.
#[derive(Clone, Debug)]
struct Dice {
    loss: SimRng,
    burst: SimRng,
    duplicate: SimRng,
    corrupt: SimRng,
    jitter: SimRng,
    reorder: SimRng,
}

impl Link {
    /// An idle link. It takes streams of its own from `rng` (by
    /// [`SimRng::fork`]): two links need generators with different seeds.
    #[must_use]
    pub fn new(config: LinkConfig, rng: &SimRng) -> Self {
        Self {
            config,
            dice: Dice {
                loss: rng.fork("loss"),
                burst: rng.fork("burst"),
                duplicate: rng.fork("duplicate"),
                corrupt: rng.fork("corrupt"),
                jitter: rng.fork("jitter"),
                reorder: rng.fork("reorder"),
            },
            in_burst: false,
            queue: VecDeque::new(),
            queued: 0,
            floor: None,
            stats: LinkStats::default(),
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Changes the settings. Datagrams already accepted keep their times, and
    /// those sent later do not overtake them.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// What the link has done so far.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Octets waiting in the bottleneck's queue at `now`, the datagram being
    /// transmitted included.
    #[must_use]
    pub fn queued(&self, now: Instant) -> u64 {
        let waiting = self.queue.iter().filter(|(leaves, _)| *leaves > now);
        waiting.map(|(_, cost)| cost).sum()
    }

    /// Sends a datagram at `now`, which must not be earlier than in the call
    /// before. It comes out not at all, once or twice.
    pub fn send(&mut self, now: Instant, datagram: Bytes) -> impl Iterator<Item = Arrival> + use<> {
        self.stats.sent += 1;
        self.stats.sent_octets += datagram.len() as u64;
        let mut arrivals = [None, None];
        if let Some(leaves) = self.pass_bottleneck(now, datagram.len())
            && !self.lose()
        {
            if self.dice.duplicate.chance(self.config.duplicate) {
                self.stats.duplicated += 1;
                let first = self.propagate(leaves, datagram.clone());
                arrivals = [Some(first), Some(self.propagate(leaves, datagram))];
            } else {
                arrivals = [Some(self.propagate(leaves, datagram)), None];
            }
        }
        arrivals.into_iter().flatten()
    }

    /// When the datagram leaves the bottleneck; `None` when it does not.
    fn pass_bottleneck(&mut self, now: Instant, len: usize) -> Option<Instant> {
        if len > self.config.mtu {
            self.stats.oversized += 1;
            return None;
        }
        while let Some(&(leaves, cost)) = self.queue.front() {
            if leaves > now {
                break;
            }
            self.queue.pop_front();
            self.queued -= cost;
        }
        let Some(rate) = self.config.rate else {
            return Some(now);
        };
        // An empty datagram costs an octet, or the queue could hold any number.
        let cost = (len as u64).max(1);
        if self.queued + cost > rate.queue {
            self.stats.queue_full += 1;
            return None;
        }
        let free = self
            .queue
            .back()
            .map_or(now, |&(leaves, _)| leaves.max(now));
        let leaves = free + rate.transmission_time(cost);
        self.queue.push_back((leaves, cost));
        self.queued += cost;
        Some(leaves)
    }

    fn lose(&mut self) -> bool {
        if let Some(burst) = self.config.burst {
            let turn = if self.in_burst {
                burst.leave
            } else {
                burst.enter
            };
            self.in_burst ^= self.dice.burst.chance(turn);
            if self.in_burst && self.dice.burst.chance(burst.loss) {
                self.stats.lost_in_bursts += 1;
                return true;
            }
        }
        let lost = self.dice.loss.chance(self.config.loss);
        self.stats.lost += u64::from(lost);
        lost
    }

    fn propagate(&mut self, leaves: Instant, datagram: Bytes) -> Arrival {
        let transit = self.config.delay + self.dice.jitter.duration(self.config.jitter);
        let mut at = leaves + transit;
        if let Some(floor) = self.floor {
            at = at.max(floor);
        }
        if self.dice.reorder.chance(self.config.reorder) {
            self.stats.reordered += 1;
            at += self.dice.reorder.duration(self.config.reorder_by);
        } else {
            self.floor = Some(at);
        }
        let bytes = if self.dice.corrupt.chance(self.config.corrupt) && !datagram.is_empty() {
            self.stats.corrupted += 1;
            flip_bits(&mut self.dice.corrupt, &datagram)
        } else {
            datagram
        };
        self.stats.arrived += 1;
        Arrival { at, bytes }
    }
}

/// A copy with 1 to 4 different bits flipped. `datagram` must not be empty.
fn flip_bits(rng: &mut SimRng, datagram: &[u8]) -> Bytes {
    let mut copy = BytesMut::from(datagram);
    let count = rng.range(1..=4);
    let mut flipped = Vec::with_capacity(4);
    while (flipped.len() as u64) < count {
        let bit = rng.below(copy.len() as u64 * 8);
        // Flipping a bit twice would undo it.
        if flipped.contains(&bit) {
            continue;
        }
        if let Some(octet) = copy.get_mut((bit / 8) as usize) {
            *octet ^= 1 << (bit % 8);
        }
        flipped.push(bit);
    }
    copy.freeze()
}
