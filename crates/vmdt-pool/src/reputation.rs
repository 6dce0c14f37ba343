//! How reliable each peer has been, from 0.0 to 1.0, and when to look after it again.
//!
//! A score is the mean of a beta distribution: a prior of [`PRIOR_WEIGHT`] observations with mean
//! [`ReputationConfig::prior`], plus what was observed, whose weight halves with every
//! [`half_life`](ReputationConfig::half_life) (A. Jøsang and R. Ismail, "The beta reputation
//! system", 2002). So a score rises with success, falls with failure, and drifts back to the prior
//! in silence; a peer that has long been good is not thrown out by one failure.
//!
//! A ban needs [`Evidence`] that the peer itself signed: being slow, lossy or absent is no crime.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use vmdt_wire::{MessageId, NodeId};

use crate::announcement::Digest;
use crate::timers::{Timers, after};

/// How many observations the prior counts as.
pub const PRIOR_WEIGHT: f64 = 4.0;

/// Configuration of a [`Reputation`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReputationConfig {
    /// The score of a peer of which nothing is known, kept between 0.0 and 1.0. Default 0.5.
    pub prior: f64,
    /// After how long an observation counts half. Default 1 h.
    pub half_life: Duration,
    /// Peers that are remembered. When there are more, the one heard of least recently is
    /// forgotten; banned ones last. Default 4,096.
    pub max_peers: usize,
    /// How often a peer is checked while it answers. Default 30 s.
    pub check_every: Duration,
    /// How long an answer to a check is awaited. Default 2 s.
    pub check_timeout: Duration,
    /// After how many unanswered checks in a row a peer counts as down. Default 3.
    pub max_failures: u32,
    /// The wait after the first unanswered check; it doubles with each further one. Default 1 s.
    pub backoff: Duration,
    /// The longest wait between checks of a peer that does not answer. Default 5 min.
    pub max_backoff: Duration,
    /// How long a ban lasts. Default 24 h.
    pub ban: Duration,
}

impl Default for ReputationConfig {
    fn default() -> Self {
        ReputationConfig {
            prior: 0.5,
            half_life: Duration::from_secs(3600),
            max_peers: 4096,
            check_every: Duration::from_secs(30),
            check_timeout: Duration::from_secs(2),
            max_failures: 3,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(300),
            ban: Duration::from_secs(24 * 3600),
        }
    }
}

/// That a peer misbehaved, as the caller has checked: the peer has signed what contradicts something
/// here, so nobody can make a peer look bad but itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// It signed that it delivered a share whose octets are not those that were announced.
    BadShare {
        /// The message.
        message: MessageId,
        /// The digest that was announced.
        announced: Digest,
        /// The digest of what it delivered and signed.
        delivered: Digest,
    },
    /// It signed that it delivered the share that was announced, and what it delivered was another
    /// one. Only who was given that knows it; to nobody else is it proof.
    FalseDelivery {
        /// The message.
        message: MessageId,
        /// The digest that it signed, which is the announced one.
        signed: Digest,
        /// The digest of what it delivered.
        delivered: Digest,
    },
    /// It signed two different statements where only one can be true, two announcements of one
    /// version for example.
    Equivocation {
        /// The message they are about.
        message: MessageId,
        /// Digests of the two statements.
        statements: [Digest; 2],
    },
}

impl Evidence {
    /// Whether it shows a contradiction at all.
    pub fn is_conclusive(&self) -> bool {
        match self {
            Evidence::BadShare {
                announced,
                delivered,
                ..
            } => announced != delivered,
            Evidence::FalseDelivery {
                signed, delivered, ..
            } => signed != delivered,
            Evidence::Equivocation { statements, .. } => {
                let [one, other] = statements;
                one != other
            }
        }
    }
}

/// A ban and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// When it ends.
    pub until: Instant,
    /// Why.
    pub evidence: Evidence,
}

/// Whether a peer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It was not checked yet.
    Unknown,
    /// It answered the last check.
    Up,
    /// Checks went unanswered, but not enough of them in a row.
    Doubtful,
    /// It counts as down.
    Down,
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerReport {
    /// The peer.
    pub peer: NodeId,
    /// From 0.0 to 1.0; 0.0 while it is banned.
    pub score: f64,
    /// Whether it answers.
    pub health: Health,
    /// Smoothed round trip, once measured (RFC 6298).
    pub srtt: Option<Duration>,
    /// Its mean deviation.
    pub rttvar: Option<Duration>,
    /// Everything that went well, ever.
    pub successes: u64,
    /// Everything that did not, ever.
    pub failures: u64,
    /// Unanswered checks in a row.
    pub unanswered: u32,
    /// The ban in force.
    pub ban: Option<Ban>,
}

/// What a [`Reputation`] asks for or reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReputationEvent {
    /// Send `peer` something that it answers, and say [`answered`](Reputation::answered) when it
    /// does.
    Check {
        /// The peer.
        peer: NodeId,
    },
    /// It answers, for the first time or again.
    Up {
        /// The peer.
        peer: NodeId,
    },
    /// It does not answer any more.
    Down {
        /// The peer.
        peer: NodeId,
    },
    /// It was banned.
    Banned {
        /// The peer.
        peer: NodeId,
        /// Why.
        evidence: Evidence,
    },
}

#[derive(Debug, Clone)]
struct Peer {
    /// Weights of what went well and what did not, as of `since`.
    good: f64,
    bad: f64,
    since: Instant,
    health: Health,
    rtt: Option<(Duration, Duration)>,
    successes: u64,
    failures: u64,
    unanswered: u32,
    /// A check is out, since then.
    checked: Option<Instant>,
    watched: bool,
    ban: Option<Ban>,
    /// Its place in the order of forgetting: banned ones last, then by when it was heard of.
    age: (bool, Instant),
}

/// Scores, health and bans of peers.
///
/// Deterministic and without input or output: the caller sends checks, reports what it sees, and
/// serves [`poll_timeout`](Self::poll_timeout).
#[derive(Debug, Clone)]
pub struct Reputation {
    config: ReputationConfig,
    peers: BTreeMap<NodeId, Peer>,
    by_age: BTreeSet<(bool, Instant, NodeId)>,
    timers: Timers<NodeId>,
    events: VecDeque<ReputationEvent>,
}

impl Reputation {
    /// Nothing is known of anybody.
    pub fn new(config: ReputationConfig) -> Self {
        let prior = if config.prior.is_finite() {
            config.prior.clamp(0.0, 1.0)
        } else {
            0.5
        };
        Reputation {
            config: ReputationConfig { prior, ..config },
            peers: BTreeMap::new(),
            by_age: BTreeSet::new(),
            timers: Timers::new(),
            events: VecDeque::new(),
        }
    }

    /// Begins to check `peer`. Its first check is due at once.
    pub fn watch(&mut self, now: Instant, peer: NodeId) {
        let known = self.peer(now, peer);
        if !core::mem::replace(&mut known.watched, true) {
            known.checked = None;
            self.timers.set(peer, now);
        }
    }

    /// Ends the checks of `peer`; what is known of it stays.
    pub fn unwatch(&mut self, peer: NodeId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.watched = false;
            known.checked = None;
        }
        self.timers.cancel(peer);
    }

    /// Something went well: a share was delivered, a request answered.
    pub fn success(&mut self, now: Instant, peer: NodeId) {
        self.observe(now, peer, true);
    }

    /// Something did not: a share came late or never, a lease lapsed.
    pub fn failure(&mut self, now: Instant, peer: NodeId) {
        self.observe(now, peer, false);
    }

    fn observe(&mut self, now: Instant, peer: NodeId, good: bool) {
        let config = self.config;
        let known = self.peer(now, peer);
        known.decay(now, config.half_life);
        if good {
            known.good += 1.0;
            known.successes = known.successes.saturating_add(1);
        } else {
            known.bad += 1.0;
            known.failures = known.failures.saturating_add(1);
        }
    }

    /// A round trip to `peer` was measured.
    pub fn round_trip(&mut self, now: Instant, peer: NodeId, took: Duration) {
        let known = self.peer(now, peer);
        known.rtt = Some(match known.rtt {
            None => (took, took / 2),
            Some((smoothed, deviation)) => {
                let error = smoothed.abs_diff(took);
                (smoothed * 7 / 8 + took / 8, deviation * 3 / 4 + error / 4)
            }
        });
    }

    /// `peer` answered a check, or gave another sign of life.
    pub fn answered(&mut self, now: Instant, peer: NodeId) {
        self.observe(now, peer, true);
        let next = after(now, self.config.check_every);
        let known = self.peer(now, peer);
        let checked = known.checked.take();
        known.unanswered = 0;
        let news = core::mem::replace(&mut known.health, Health::Up);
        if known.watched {
            self.timers.set(peer, next);
        }
        if let Some(sent) = checked {
            self.round_trip(now, peer, now.saturating_duration_since(sent));
        }
        if matches!(news, Health::Unknown | Health::Down) {
            self.events.push_back(ReputationEvent::Up { peer });
        }
    }

    /// Bans `peer` on evidence that the caller has checked the signature of. Returns whether it was:
    /// evidence that shows no contradiction is refused.
    pub fn ban(&mut self, now: Instant, peer: NodeId, evidence: Evidence) -> bool {
        if !evidence.is_conclusive() {
            return false;
        }
        let until = after(now, self.config.ban);
        let known = self.peer(now, peer);
        known.ban = Some(Ban { until, evidence });
        self.touch(now, peer);
        self.events
            .push_back(ReputationEvent::Banned { peer, evidence });
        true
    }

    /// Ends a ban, on an operator's word.
    pub fn pardon(&mut self, peer: NodeId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.ban = None;
        }
    }

    /// Whether `peer` is banned at `now`.
    pub fn is_banned(&self, now: Instant, peer: NodeId) -> bool {
        let known = self.peers.get(&peer);
        known.is_some_and(|known| known.banned(now).is_some())
    }

    /// The score of `peer` at `now`, from 0.0 to 1.0.
    pub fn score(&self, now: Instant, peer: NodeId) -> f64 {
        self.report(now, peer)
            .map_or(self.config.prior, |report| report.score)
    }

    /// What is known of `peer`.
    pub fn report(&self, now: Instant, peer: NodeId) -> Option<PeerReport> {
        let known = self.peers.get(&peer)?;
        let ban = known.banned(now);
        let mut current = known.clone();
        current.decay(now, self.config.half_life);
        let score = if ban.is_some() {
            0.0
        } else {
            let prior = PRIOR_WEIGHT * self.config.prior;
            (prior + current.good) / (PRIOR_WEIGHT + current.good + current.bad)
        };
        Some(PeerReport {
            peer,
            score,
            health: known.health,
            srtt: known.rtt.map(|(smoothed, _)| smoothed),
            rttvar: known.rtt.map(|(_, deviation)| deviation),
            successes: known.successes,
            failures: known.failures,
            unanswered: known.unanswered,
            ban,
        })
    }

    /// What is known of everybody, in id order.
    pub fn list(&self, now: Instant) -> impl Iterator<Item = PeerReport> + '_ {
        let peers = self.peers.keys();
        peers.filter_map(move |peer| self.report(now, *peer))
    }

    /// The next event, if any.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<ReputationEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Asks for the checks that are due, and counts those that went unanswered.
    pub fn handle_timeout(&mut self, now: Instant) {
        let config = self.config;
        while let Some(peer) = self.timers.pop_due(now) {
            let Some(known) = self.peers.get_mut(&peer) else {
                continue;
            };
            if known.checked.take().is_none() {
                known.checked = Some(now);
                self.timers.set(peer, after(now, config.check_timeout));
                self.events.push_back(ReputationEvent::Check { peer });
                continue;
            }
            let doublings = known.unanswered.min(30);
            known.unanswered = known.unanswered.saturating_add(1);
            let down = known.unanswered >= config.max_failures;
            let health = if down { Health::Down } else { Health::Doubtful };
            if core::mem::replace(&mut known.health, health) != Health::Down && down {
                self.events.push_back(ReputationEvent::Down { peer });
            }
            let wait = config.backoff.saturating_mul(1 << doublings);
            self.timers
                .set(peer, after(now, wait.min(config.max_backoff)));
            known.decay(now, config.half_life);
            known.bad += 1.0;
            known.failures = known.failures.saturating_add(1);
        }
    }

    /// What is kept about `peer`, and that it was heard of.
    fn peer(&mut self, now: Instant, peer: NodeId) -> &mut Peer {
        self.touch(now, peer);
        self.peers.entry(peer).or_insert_with(|| Peer {
            good: 0.0,
            bad: 0.0,
            since: now,
            health: Health::Unknown,
            rtt: None,
            successes: 0,
            failures: 0,
            unanswered: 0,
            checked: None,
            watched: false,
            ban: None,
            age: (false, now),
        })
    }

    fn touch(&mut self, now: Instant, peer: NodeId) {
        let age = (self.is_banned(now, peer), now);
        match self.peers.get_mut(&peer) {
            Some(known) => {
                let old = core::mem::replace(&mut known.age, age);
                self.by_age.remove(&(old.0, old.1, peer));
            }
            None => {
                while self.peers.len() >= self.config.max_peers.max(1) {
                    let Some((_, _, oldest)) = self.by_age.pop_first() else {
                        break;
                    };
                    self.peers.remove(&oldest);
                    self.timers.cancel(oldest);
                }
            }
        }
        self.by_age.insert((age.0, age.1, peer));
    }
}

impl Peer {
    /// Lets what was observed fade.
    fn decay(&mut self, now: Instant, half_life: Duration) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        let half_life = half_life.as_secs_f64().max(0.001);
        let factor = (-passed / half_life).exp2();
        self.good *= factor;
        self.bad *= factor;
        self.since = self.since.max(now);
    }

    fn banned(&self, now: Instant) -> Option<Ban> {
        self.ban.filter(|ban| ban.until > now)
    }
}
