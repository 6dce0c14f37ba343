//! A model-based controller in the manner of BBRv3 (draft-ietf-ccwg-bbr), with another answer to
//! loss.
//!
//! The controller keeps a model of the path, the largest delivery rate of the last two probing
//! cycles and the smallest round-trip time of the last ten seconds, and sends at that rate with
//! about their product in flight. Names in capitals below are the draft's.
//!
//! # Loss
//!
//! The draft takes more than 2% loss in a round trip for congestion, which a radio link with 6%
//! random loss trips in nearly every round. What tells the two apart is the queue: a full queue
//! shows in the round-trip time before it drops, and its losses come and go with what is in
//! flight; random loss is there without any queue. So:
//!
//! - The *background loss* of the path is measured in rounds without a queue of ours: at the end
//!   of each draining phase and while probing the round-trip time, and there of the losses that come to light with ACKs whose round-trip time
//!   is within an eighth of the path's smallest: what left before a queue was gone may be what
//!   that queue dropped. It counts for at most a quarter, and fades when it can't be measured again.
//! - A round is *congested* when its largest round-trip time shows a queue and it lost more than
//!   the background loss and 2%, and so did the last few such rounds together by twice the
//!   standard error of both measurements; or, whatever the round-trip time, when that is a quarter
//!   more than the background (a policer, a very short queue). For a single round of 85 datagrams
//!   at 6% that is some 14%, three standard deviations off, and four rounds together 11%; without
//!   background loss it is little more than 2%.
//! - A round in which the network marked a packet (ECN) is congested, whatever it lost.
//! - A congested round bounds what may be in flight to seven tenths (BETA), ends a probe or the
//!   startup, and lowers the rate until the next probe, as in the draft.
//! - A rate sample counts what the background loss took with what was delivered: otherwise the
//!   path would be filled by its rate less the loss. Startup knows of no background loss yet: when
//!   the first draining phase finds more than 3%, a probe follows at once.
//!
//! Without loss, the bound is the model itself: two products of rate and round-trip time.

use std::time::{Duration, Instant};

use super::tally::Tally;
use super::{Acked, Controller, ControllerFactory, Lost, Marked, RateSample};

/// More than the ten of RFC 9002 section 7.2, as content networks have long sent: they leave paced
/// over four tenths of a round trip, and finding the rate takes one round trip less.
const INITIAL_DATAGRAMS: u64 = 32;
const MINIMUM_DATAGRAMS: u64 = 4;
const MAXIMUM_DATAGRAMS: u64 = 65_536;
/// 4 ln 2: the smallest gain that doubles the rate each round.
const STARTUP_PACING: f64 = 2.77;
const DRAIN_PACING: f64 = 0.35;
const DOWN_PACING: f64 = 0.9;
const UP_PACING: f64 = 1.25;
const CWND_GAIN: f64 = 2.0;
const UP_CWND_GAIN: f64 = 2.25;
const PROBE_RTT_CWND_GAIN: f64 = 0.5;
/// What remains of a bound after a congested round.
const BETA: f64 = 0.7;
/// What cruising leaves free below the bound, for others.
const HEADROOM: f64 = 0.85;
/// Startup ends when the rate grew by less than a quarter for three rounds.
const FULL_BW_GROWTH: f64 = 1.25;
const FULL_BW_ROUNDS: u32 = 3;
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);
/// Rounds of Reno between two losses that a probe must not come before.
const MAX_RENO_ROUNDS: u64 = 63;
/// Time's worth of octets that may leave, or be acknowledged, in one piece.
const QUANTUM: Duration = Duration::from_millis(1);
const MAX_QUANTUM: u64 = 64 * 1024;

/// Loss above the background that counts as congestion while there is a queue, and without one.
const LOSS_WITH_QUEUE: f64 = 0.02;
const LOSS_WITHOUT_QUEUE: f64 = 0.25;
const MAX_BACKGROUND: f64 = 0.25;
/// Background loss from which on the rate that startup found, before any of it was known, is too
/// low to wait with the first probe.
const LOSS_UNCOUNTED: f64 = 0.03;
/// Datagrams that a background loss must be seen in to count in full.
const MIN_BACKGROUND_DATAGRAMS: f64 = 60.0;
/// What a measurement of the background loss still weighs one cycle later.
const BACKGROUND_MEMORY: f64 = 0.85;
/// What a round with a queue still weighs one round later.
const BUSY_MEMORY: f64 = 0.75;
/// Losses in a round below which nothing is concluded.
const MIN_LOST_DATAGRAMS: u64 = 3;

/// Builds [`Bbr`] controllers. Windows: 32 datagrams at the start, at least 4, at most 65,536.
#[derive(Clone, Copy, Debug, Default)]
pub struct BbrConfig;

impl ControllerFactory for BbrConfig {
    fn build(&self, now: Instant, datagram: u64) -> Box<dyn Controller> {
        Box::new(Bbr::new(now, datagram))
    }
}

/// Where the controller stands in its cycle.
///
/// ```text
/// Startup -> Drain -> Down -> Cruise -> Refill -> Up -> Down ...
///     the first Down -> Refill when there is background loss
///     any but Startup -> ProbeRtt -> Cruise
///     any -> Startup after persistent congestion
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Looks for the path's rate, doubling.
    Startup,
    /// Lets the queue that startup made run off.
    Drain,
    /// Leaves room: sends less than the path delivers.
    Down,
    /// Sends what the path delivers.
    Cruise,
    /// Fills the path without a queue, before a probe.
    Refill,
    /// Probes for more.
    Up,
    /// Empties the path to see its smallest round-trip time.
    ProbeRtt,
}

/// What is observed within one round trip.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    delivered: u64,
    lost: u64,
    /// The network marked a packet.
    marked: bool,
    /// What was lost and delivered where the round-trip time showed no queue.
    calm: Tally,
    min_rtt: Option<Duration>,
    max_rtt: Duration,
    bw: u64,
    inflight: u64,
    window_limited: bool,
}

/// How much more than its rate the path acknowledges at once (aggregation).
#[derive(Clone, Copy, Debug)]
struct Aggregation {
    since: Instant,
    acked: u64,
    /// Largest excess in the present and in the previous ten rounds.
    excess: [u64; 2],
    rounds: u32,
}

/// Bandwidth and round-trip time as the guide.
#[derive(Clone, Debug)]
pub struct Bbr {
    datagram: u64,
    phase: Phase,
    phase_since: Instant,
    cwnd: u64,
    /// Window to return to after probing the round-trip time or persistent congestion.
    prior_cwnd: u64,

    /// Largest delivery rates of the previous and of the present cycle.
    max_bw: [u64; 2],
    bw_lo: u64,
    inflight_hi: u64,
    inflight_lo: u64,
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    /// When the minimum was last confirmed, or probed for.
    probe_rtt_at: Instant,
    probe_rtt_until: Option<Instant>,

    next_round: u64,
    round_start: bool,
    round: Round,
    background: Tally,
    busy: Tally,
    /// Octets lost since the last ACK was judged.
    fresh_lost: u64,
    aggregation: Aggregation,

    full_bw: u64,
    full_bw_rounds: u32,
    full_bw_reached: bool,

    rounds_in_phase: u64,
    rounds_since_probe: u64,
    probe_wait: Duration,
    cycle_since: Instant,
    up_acked: u64,
    drained: bool,
    /// The rate that startup found was looked at again.
    probed: bool,
}

impl Bbr {
    /// A controller for a path with datagrams of at most `datagram` octets.
    #[must_use]
    pub fn new(now: Instant, datagram: u64) -> Self {
        Self {
            datagram,
            phase: Phase::Startup,
            phase_since: now,
            cwnd: INITIAL_DATAGRAMS * datagram,
            prior_cwnd: 0,
            max_bw: [0; 2],
            bw_lo: u64::MAX,
            inflight_hi: u64::MAX,
            inflight_lo: u64::MAX,
            min_rtt: None,
            min_rtt_at: now,
            probe_rtt_at: now,
            probe_rtt_until: None,
            next_round: 0,
            round_start: false,
            round: Round::default(),
            background: Tally::default(),
            busy: Tally::default(),
            fresh_lost: 0,
            aggregation: Aggregation {
                since: now,
                acked: 0,
                excess: [0; 2],
                rounds: 0,
            },
            full_bw: 0,
            full_bw_rounds: 0,
            full_bw_reached: false,
            rounds_in_phase: 0,
            rounds_since_probe: 0,
            probe_wait: Duration::from_secs(2),
            cycle_since: now,
            up_acked: 0,
            drained: false,
            probed: false,
        }
    }

    // ---- the model

    fn max_bw(&self) -> u64 {
        let [previous, present] = self.max_bw;
        previous.max(present)
    }

    fn bw(&self) -> u64 {
        self.max_bw().min(self.bw_lo)
    }

    fn minimum(&self) -> u64 {
        MINIMUM_DATAGRAMS * self.datagram
    }

    /// Product of rate and smallest round-trip time, times `gain`.
    fn bdp(&self, bw: u64, gain: f64) -> u64 {
        match self.min_rtt {
            Some(rtt) => scale(bw, rtt.as_secs_f64() * gain),
            None => INITIAL_DATAGRAMS * self.datagram,
        }
    }

    fn quantum(&self) -> u64 {
        scale(self.bw(), QUANTUM.as_secs_f64()).clamp(2 * self.datagram, MAX_QUANTUM)
    }

    /// Octets in flight that carry `gain` products, with room for what leaves and is
    /// acknowledged in one piece.
    fn inflight(&self, gain: f64) -> u64 {
        let quanta = 3 * self.quantum();
        (self.bdp(self.bw(), gain) + quanta).max(self.minimum())
    }

    /// The path's background loss. Without recent evidence it is none.
    #[allow(clippy::cast_precision_loss)]
    fn background(&self) -> f64 {
        let floor = MIN_BACKGROUND_DATAGRAMS * self.datagram as f64;
        self.background.ratio(floor).min(MAX_BACKGROUND)
    }

    /// A round-trip time above this shows a queue.
    fn queue_rtt(&self) -> Duration {
        let min = self.min_rtt.unwrap_or_default();
        min + min / 8 + Duration::from_micros(500)
    }

    // ---- what is learned from an ACK

    #[allow(clippy::cast_precision_loss)]
    fn observe(&mut self, acked: &Acked, sample: &RateSample) {
        if sample.prior_delivered >= self.next_round {
            self.next_round = sample.delivered;
            self.round_start = true;
            self.rounds_in_phase += 1;
            self.rounds_since_probe += 1;
        }
        self.round.delivered += acked.octets;
        self.round.inflight = self.round.inflight.max(sample.octets);
        let bw = self.carried(sample);
        if !sample.app_limited || bw >= self.max_bw() {
            self.round.bw = self.round.bw.max(bw);
            let [_, present] = &mut self.max_bw;
            *present = (*present).max(bw);
        }
        let rtt = acked.now.saturating_duration_since(acked.sent_at);
        self.observe_rtt(acked.now, rtt);
        // Losses that come to light with this ACK left at about the time of what it acknowledges.
        // Had there been a queue then, it may be what dropped them.
        let lost = std::mem::take(&mut self.fresh_lost);
        if rtt <= self.queue_rtt() {
            self.round.calm.add(Tally {
                lost: lost as f64,
                total: (lost + acked.octets) as f64,
            });
        }
        self.observe_aggregation(acked);
    }

    /// The rate the path carried: what it delivered, and of what was lost meanwhile as much as
    /// the background loss explains (a quarter more, for its variation).
    #[allow(clippy::cast_precision_loss)]
    fn carried(&self, sample: &RateSample) -> u64 {
        let background = self.background();
        let explained = sample.octets as f64 * 1.25 * background / (1.0 - background);
        let lost = explained.min(sample.lost as f64);
        let octets = (sample.octets as f64).max(1.0);
        scale(sample.octets_per_second, 1.0 + lost / octets)
    }

    fn observe_rtt(&mut self, now: Instant, rtt: Duration) {
        self.round.min_rtt = Some(self.round.min_rtt.map_or(rtt, |min| min.min(rtt)));
        self.round.max_rtt = self.round.max_rtt.max(rtt);
        let expired = now >= self.min_rtt_at + MIN_RTT_WINDOW;
        match self.min_rtt {
            Some(min) if rtt >= min && !expired => {
                // As good as the minimum: no need to empty the path to see it again.
                if rtt <= min + min / 32 + Duration::from_micros(50) {
                    self.min_rtt_at = now;
                    self.probe_rtt_at = now;
                }
            }
            _ => {
                self.min_rtt = Some(rtt);
                self.min_rtt_at = now;
                if !expired {
                    self.probe_rtt_at = now;
                }
            }
        }
    }

    fn observe_aggregation(&mut self, acked: &Acked) {
        let bw = self.bw();
        let aggregation = &mut self.aggregation;
        let elapsed = acked.now.saturating_duration_since(aggregation.since);
        let expected = scale(bw, elapsed.as_secs_f64());
        if aggregation.acked <= expected {
            aggregation.since = acked.now;
            aggregation.acked = 0;
        }
        aggregation.acked += acked.octets;
        let expected = if aggregation.acked == acked.octets {
            0
        } else {
            expected
        };
        let excess = aggregation.acked.saturating_sub(expected).min(self.cwnd);
        let [previous, present] = &mut aggregation.excess;
        *present = (*present).max(excess);
        if self.round_start {
            aggregation.rounds += 1;
            if aggregation.rounds >= 10 {
                aggregation.rounds = 0;
                *previous = std::mem::take(present);
            }
        }
    }

    /// Judges a finished round; true when it was congested.
    #[allow(clippy::cast_precision_loss)]
    fn judge_round(&mut self) -> bool {
        let round = Tally {
            lost: self.round.lost as f64,
            total: (self.round.lost + self.round.delivered) as f64,
        };
        let queue = self.round.max_rtt > self.queue_rtt();
        // Rounds with a queue are judged together with those before, so that a sender with few
        // datagrams per round sees what one with many does.
        if queue {
            self.busy.scale(BUSY_MEMORY);
            self.busy.add(round);
        } else {
            self.busy = round;
        }
        let datagram = self.datagram as f64;
        // Standard error of the difference between two shares.
        let pooled = Tally {
            lost: self.background.lost + self.busy.lost,
            total: self.background.total + self.busy.total,
        };
        let p = pooled.ratio(0.0);
        let here = (self.busy.total / datagram).max(1.0);
        let there = (self.background.total / datagram).max(MIN_BACKGROUND_DATAGRAMS);
        let error = (p * (1.0 - p) * (1.0 / here + 1.0 / there)).max(0.0).sqrt();
        let background = self.background();
        let excess = (self.busy.ratio(0.0) - 2.0 * error).min(round.ratio(0.0)) - background;
        let limit = if queue {
            LOSS_WITH_QUEUE
        } else {
            LOSS_WITHOUT_QUEUE
        };
        let enough = self.round.lost >= MIN_LOST_DATAGRAMS * self.datagram;
        let calm = match self.phase {
            Phase::Down | Phase::Drain => self.drained,
            Phase::ProbeRtt => self.probe_rtt_until.is_some(),
            _ => false,
        };
        if calm {
            self.background.add(self.round.calm);
        }
        // Marks are never random: one is the word of the network.
        let congested = (enough && excess > limit) || self.round.marked;
        if congested {
            self.busy = Tally::default();
        }
        congested
    }

    // ---- what follows

    fn enter(&mut self, now: Instant, phase: Phase) {
        self.phase = phase;
        self.phase_since = now;
        self.rounds_in_phase = 0;
    }

    fn enter_down(&mut self, now: Instant) {
        self.enter(now, Phase::Down);
        self.drained = false;
        self.rounds_since_probe = 0;
        self.cycle_since = now;
        self.background.scale(BACKGROUND_MEMORY);
        // Two to three seconds, so that several senders do not stay in step; the draft draws
        // them, here they come from what was delivered so far.
        let mixed = self.next_round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        self.probe_wait = Duration::from_millis(2000 + mixed);
        let [previous, present] = &mut self.max_bw;
        if *present > 0 {
            *previous = std::mem::take(present);
        }
    }

    fn reset_lower_bounds(&mut self) {
        self.bw_lo = u64::MAX;
        self.inflight_lo = u64::MAX;
    }

    fn on_congested(&mut self, now: Instant, sample: &RateSample) {
        match self.phase {
            Phase::Startup => {
                self.full_bw_reached = true;
                self.inflight_hi = self.bdp(self.max_bw(), 1.0).max(self.round.inflight);
            }
            Phase::Up | Phase::Refill => {
                let target = scale(self.bdp(self.max_bw(), 1.0).min(self.cwnd), BETA);
                if !sample.app_limited {
                    let seen = scale(sample.sent_in_flight, BETA);
                    self.inflight_hi = self.inflight_hi.min(seen.max(target).max(self.minimum()));
                }
                if self.phase == Phase::Up {
                    self.enter_down(now);
                }
            }
            Phase::Drain | Phase::Down | Phase::Cruise | Phase::ProbeRtt => {
                let bw = if self.bw_lo == u64::MAX {
                    self.max_bw()
                } else {
                    self.bw_lo
                };
                self.bw_lo = self.round.bw.max(scale(bw, BETA));
                let inflight = if self.inflight_lo == u64::MAX {
                    self.cwnd
                } else {
                    self.inflight_lo
                };
                self.inflight_lo = self.round.inflight.max(scale(inflight, BETA));
            }
        }
    }

    fn check_full_bw(&mut self, app_limited: bool) {
        if self.full_bw_reached || app_limited {
            return;
        }
        if self.max_bw() >= scale(self.full_bw, FULL_BW_GROWTH) {
            self.full_bw = self.max_bw();
            self.full_bw_rounds = 0;
            return;
        }
        self.full_bw_rounds += 1;
        self.full_bw_reached = self.full_bw_rounds >= FULL_BW_ROUNDS;
    }

    fn is_time_to_probe(&self, now: Instant) -> bool {
        let reno = (self.bdp(self.bw(), 1.0) / self.datagram).clamp(4, MAX_RENO_ROUNDS);
        now >= self.cycle_since + self.probe_wait || self.rounds_since_probe >= reno
    }

    fn advance(&mut self, acked: &Acked) {
        let now = acked.now;
        match self.phase {
            Phase::Startup if self.full_bw_reached => self.enter(now, Phase::Drain),
            Phase::Drain if acked.in_flight <= self.inflight(1.0) => self.enter_down(now),
            Phase::Down => {
                if self.is_time_to_probe(now) {
                    self.start_refill(now);
                } else if self.drained && self.round_start && self.rounds_in_phase > 1 {
                    let uncounted = !self.probed && self.background() > LOSS_UNCOUNTED;
                    self.probed = true;
                    if uncounted {
                        self.start_refill(now);
                    } else {
                        self.enter(now, Phase::Cruise);
                    }
                } else if !self.drained && acked.in_flight <= self.drain_target() {
                    // One more round shows the path without our queue.
                    self.drained = true;
                    self.rounds_in_phase = 0;
                }
            }
            Phase::Cruise if self.is_time_to_probe(now) => self.start_refill(now),
            Phase::Refill if self.round_start && self.rounds_in_phase > 1 => {
                self.up_acked = 0;
                self.full_bw = self.max_bw();
                self.enter(now, Phase::Up);
            }
            Phase::Up => self.advance_up(acked),
            _ => {}
        }
    }

    /// What is in flight when nothing of ours waits in a queue and others have room.
    fn drain_target(&self) -> u64 {
        let model = self.bdp(self.bw(), 1.0).max(self.minimum());
        if self.inflight_hi == u64::MAX {
            return model;
        }
        model.min(scale(self.inflight_hi, HEADROOM).max(self.minimum()))
    }

    fn start_refill(&mut self, now: Instant) {
        self.reset_lower_bounds();
        self.enter(now, Phase::Refill);
    }

    fn advance_up(&mut self, acked: &Acked) {
        if self.inflight_hi != u64::MAX
            && self.round.window_limited
            && self.cwnd >= self.inflight_hi
        {
            // One datagram per window, then two, four ...: slowly at the known bound, fast
            // when it turns out to be no bound.
            self.up_acked += acked.octets;
            let growth = 1u64 << self.rounds_in_phase.min(16);
            let step = (self.cwnd / growth).max(self.datagram);
            while self.up_acked >= step {
                self.up_acked -= step;
                self.inflight_hi = self.inflight_hi.saturating_add(self.datagram);
            }
        }
        let full = acked.in_flight >= self.inflight(UP_PACING);
        let grown = self.max_bw() >= scale(self.full_bw, FULL_BW_GROWTH);
        if self.round_start && grown {
            self.full_bw = self.max_bw();
            self.rounds_in_phase = 1;
        }
        let stuck = self.rounds_in_phase > FULL_BW_ROUNDS.into() && self.inflight_hi == u64::MAX;
        if self.rounds_in_phase > 1 && !grown && (full || stuck) {
            self.enter_down(acked.now);
        }
    }

    fn check_probe_rtt(&mut self, acked: &Acked) {
        let now = acked.now;
        if self.phase != Phase::ProbeRtt {
            let due = now >= self.probe_rtt_at + PROBE_RTT_INTERVAL;
            if due && self.full_bw_reached {
                self.prior_cwnd = self.cwnd;
                self.probe_rtt_until = None;
                self.enter(now, Phase::ProbeRtt);
            }
            return;
        }
        match self.probe_rtt_until {
            None if acked.in_flight <= self.probe_rtt_cwnd() || self.rounds_in_phase > 3 => {
                self.probe_rtt_until = Some(now + PROBE_RTT_TIME);
                self.min_rtt = self.round.min_rtt.or(self.min_rtt);
                self.rounds_in_phase = 0;
            }
            Some(until) if now >= until && self.rounds_in_phase > 0 => {
                self.probe_rtt_at = now;
                self.min_rtt_at = now;
                self.cwnd = self.cwnd.max(self.prior_cwnd);
                self.reset_lower_bounds();
                self.enter_down(now);
                self.enter(now, Phase::Cruise);
            }
            _ => {}
        }
    }

    fn probe_rtt_cwnd(&self) -> u64 {
        self.bdp(self.bw(), PROBE_RTT_CWND_GAIN).max(self.minimum())
    }

    fn update_cwnd(&mut self, acked: &Acked) {
        let gain = if self.phase == Phase::Up {
            UP_CWND_GAIN
        } else {
            CWND_GAIN
        };
        let [previous, present] = self.aggregation.excess;
        let most = self.inflight(gain) + previous.max(present);
        if self.full_bw_reached {
            self.cwnd = (self.cwnd + acked.octets).min(most);
        } else if self.cwnd < most || self.next_round < 2 * INITIAL_DATAGRAMS * self.datagram {
            self.cwnd += acked.octets;
        }
        let hi = match self.phase {
            Phase::Startup | Phase::Refill | Phase::Up => self.inflight_hi,
            _ if self.inflight_hi == u64::MAX => u64::MAX,
            _ => scale(self.inflight_hi, HEADROOM),
        };
        let mut bound = hi
            .min(self.inflight_lo)
            .min(MAXIMUM_DATAGRAMS * self.datagram);
        if self.phase == Phase::ProbeRtt {
            bound = bound.min(self.probe_rtt_cwnd());
        }
        self.cwnd = self.cwnd.min(bound).max(self.minimum());
    }
}

/// `octets` times `factor`, without overflow.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn scale(octets: u64, factor: f64) -> u64 {
    if octets == u64::MAX {
        return octets;
    }
    (octets as f64 * factor) as u64
}

impl Controller for Bbr {
    fn on_sent(&mut self, _now: Instant, _octets: u64, in_flight: u64) {
        self.round.window_limited |= in_flight + self.datagram > self.cwnd;
    }

    fn on_ack(&mut self, acked: &Acked) {
        let Some(sample) = acked.rate else {
            return;
        };
        self.round_start = false;
        self.observe(acked, &sample);
        if self.round_start {
            let congested = self.judge_round();
            if congested {
                self.on_congested(acked.now, &sample);
            }
            self.check_full_bw(sample.app_limited);
        }
        self.advance(acked);
        self.check_probe_rtt(acked);
        self.update_cwnd(acked);
        if self.round_start {
            self.round = Round::default();
        }
    }

    fn on_loss(&mut self, lost: &Lost) {
        self.round.lost += lost.octets;
        self.fresh_lost += lost.octets;
    }

    fn on_marked(&mut self, _marked: &Marked) {
        self.round.marked = true;
    }

    fn on_persistent_congestion(&mut self, now: Instant) {
        // The path may be another one now: find its rate as at the start, with the smallest
        // window.
        self.cwnd = self.minimum();
        self.full_bw = 0;
        self.full_bw_rounds = 0;
        self.full_bw_reached = false;
        self.probed = false;
        self.inflight_hi = u64::MAX;
        self.reset_lower_bounds();
        self.enter(now, Phase::Startup);
    }

    fn on_spurious_loss(&mut self, _now: Instant) {
        self.reset_lower_bounds();
    }

    fn on_late_arrival(&mut self, _now: Instant, octets: u64) {
        self.round.lost = self.round.lost.saturating_sub(octets);
        self.fresh_lost = self.fresh_lost.saturating_sub(octets);
    }

    fn on_datagram_size(&mut self, octets: u64) {
        self.datagram = octets;
        self.cwnd = self.cwnd.max(self.minimum());
    }

    fn window(&self) -> u64 {
        self.cwnd
    }

    fn in_slow_start(&self) -> bool {
        !self.full_bw_reached
    }

    fn bandwidth(&self) -> Option<u64> {
        let bw = self.bw();
        (self.full_bw_reached && bw > 0).then_some(bw)
    }

    fn pacing_rate(&self) -> Option<u64> {
        let bw = self.bw();
        if bw == 0 {
            return None;
        }
        let gain = match self.phase {
            Phase::Startup => STARTUP_PACING,
            Phase::Drain => DRAIN_PACING,
            Phase::Down => DOWN_PACING,
            Phase::Cruise | Phase::Refill | Phase::ProbeRtt => 1.0,
            Phase::Up => UP_PACING,
        };
        // The smallest window may leave within a round trip whatever the model says: else a
        // model of an outage, when a packet passed now and then, would outlive it.
        let floor = self.min_rtt.map_or(1.0, |rtt| {
            1.0 / rtt.max(Duration::from_millis(1)).as_secs_f64()
        });
        Some(scale(bw, gain).max(scale(self.minimum(), floor)))
    }
}

#[cfg(test)]
#[path = "bbr_tests.rs"]
mod tests;
