//! What is known of the ways to others: who has been reliable, how good a path is, which one seems
//! dead, and what became of the latest messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use vmdt_pool::hedging::HedgeReport;
use vmdt_pool::paths::{PathEstimate, Redundancy, share_loss};
use vmdt_pool::placement::{Candidate, Carrier, Carriers, Explanation, Placement, Quality};
use vmdt_pool::policy::Policy;
use vmdt_pool::reputation::{Evidence, PeerReport};
use vmdt_rdt::PathStats;
use vmdt_wire::{Caps, MessageId, NodeId};

use super::Core;
use super::event::Event;
use super::outgoing::Outgoing;
use super::peer::Path;

/// Transfers whose last placement is remembered after their end.
const MAX_EXPLAINED: usize = 256;
/// What a path is taken for before it is measured.
const UNKNOWN_RTT: Duration = Duration::from_millis(100);
const UNKNOWN_RATE: f64 = 1_250_000.0;
/// Packets that count before a path's own losses do.
const PRIOR_PACKETS: f64 = 30.0;
/// Probes in a row without a sign of life after which a path seems dead.
const SUSPECT_PROBES: u64 = 2;
/// Octets under way of which something would have come back: with so many, one probe is enough.
const FULL_FLIGHT: u64 = 10 * PACKET as u64;
/// The reliability of a path that seems dead: it is the last to be chosen.
const SUSPECT: f64 = 0.02;
/// Packets that an announcement takes, about.
const LINE_PACKETS: u32 = 2;
/// How often paths are looked at for one that seems dead.
const LOOK: Duration = Duration::from_millis(2);
/// How far ahead of its sending a path is given shares of a long transfer.
const AHEAD: Duration = Duration::from_millis(40);
/// What a segment of a long transfer may take on its paths, and how many such should be left.
const SEGMENT_TIME: Duration = Duration::from_millis(40);
const SEGMENTS_LEFT: u64 = 4;
/// The largest of them. Any receiver takes twice that.
const LARGEST_SEGMENT: u64 = 512 * 1024;
/// Octets that fit a packet, about.
const PACKET: usize = 1_200;

/// What the looks at a path's counters have shown.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    received: u64,
    /// Packets of the session that came by a detour.
    detoured: u64,
    /// Something came directly since the detour began.
    direct: bool,
    probes: u64,
    /// Nothing comes back although it is asked for.
    pub(crate) suspect: bool,
    /// Part of the packets that was lost lately, and of how many.
    counted: (u64, u64),
    lately: Option<f64>,
}

impl Pulse {
    /// Looks again. Returns whether the path has begun to seem dead.
    pub(crate) fn look(&mut self, stats: &PathStats) -> bool {
        let (sent, lost) = (stats.packets_sent, stats.packets_lost);
        if sent < self.counted.0 {
            // another session
            *self = Pulse::default();
        }
        if sent >= self.counted.0 + 200 {
            let part = lost.saturating_sub(self.counted.1) as f64 / (sent - self.counted.0) as f64;
            self.lately = Some(self.lately.map_or(part, |old| old * 0.5 + part * 0.5));
            self.counted = (sent, lost);
        }
        let received = arrivals(stats).saturating_sub(self.detoured);
        if received != self.received {
            self.received = received;
            self.direct = true;
            self.probes = stats.probe_timeouts;
            self.suspect = false;
            return false;
        }
        let enough = if stats.bytes_in_flight >= FULL_FLIGHT {
            1
        } else {
            SUSPECT_PROBES
        };
        let silent = stats.probe_timeouts.saturating_sub(self.probes) >= enough;
        silent && !std::mem::replace(&mut self.suspect, true)
    }

    /// So many packets of the session came by its detour.
    pub(crate) fn by_detour(&mut self, packets: u64) {
        self.detoured += packets;
    }

    /// A detour begins, when so many packets have come in all.
    pub(crate) fn begin_detour(&mut self, received: u64) {
        self.received = received.saturating_sub(self.detoured);
        self.direct = false;
    }

    /// Whether something has come directly since the detour began.
    pub(crate) fn has_come_directly(&self) -> bool {
        self.direct
    }
}

/// Packets of a session that came, repetitions included: what came by a detour first still shows, when
/// it comes directly as well, that the path is there.
pub(crate) fn arrivals(stats: &PathStats) -> u64 {
    stats.packets_received + stats.duplicates
}

/// Octets per second that a path carries. Until it was full once, the window says what can be tried.
fn rate_of(stats: &PathStats) -> f64 {
    match stats.bandwidth {
        Some(measured) => measured as f64,
        None => stats.cwnd as f64 / stats.srtt.as_secs_f64().max(0.001),
    }
}

/// Where the latest messages went.
#[derive(Debug, Default)]
pub(crate) struct Explained {
    last: BTreeMap<MessageId, (MessageId, Placement)>,
    order: VecDeque<MessageId>,
}

impl Explained {
    pub(crate) fn keep(&mut self, transfer: MessageId, message: MessageId, placement: Placement) {
        if self.last.insert(transfer, (message, placement)).is_none() {
            self.order.push_back(transfer);
        }
        while self.order.len() > MAX_EXPLAINED {
            if let Some(old) = self.order.pop_front() {
                self.last.remove(&old);
            }
        }
    }

    fn find(&self, id: MessageId) -> Option<&Placement> {
        let by_message = || self.last.values().find(|(message, _)| *message == id);
        self.last
            .get(&id)
            .or_else(by_message)
            .map(|(_, placement)| placement)
    }
}

impl Core {
    /// Who holds what of a message, and which sets of parties could learn something of it. The id
    /// is that of a transfer, of whose segments the latest is explained, or that of one message.
    /// Those under way are known, and the last segment of each of the last 256 transfers.
    #[must_use]
    pub fn explain(&self, id: MessageId) -> Option<Explanation> {
        let latest = self.outgoing.get(&id).and_then(|out| {
            let spreads = out.in_flight.iter().filter_map(|m| self.spreads.get(m));
            spreads.max_by_key(|spread| spread.number)
        });
        let spread = latest.or_else(|| self.spreads.get(&id));
        spread
            .map(|spread| &spread.placement)
            .or_else(|| self.express_placement(id))
            .or_else(|| self.explained.find(id))
            .map(Placement::explain)
    }

    /// What is known of the peers this node has dealt with, in id order: scores, round trips,
    /// successes and failures, bans.
    #[must_use]
    pub fn peer_reports(&self, now: Instant) -> Vec<PeerReport> {
        let measured = |mut report: PeerReport| {
            if let Some(stats) = self.measured(report.peer) {
                report.srtt = Some(stats.srtt);
                report.rttvar = Some(stats.rttvar);
            }
            report
        };
        self.reputation.list(now).map(measured).collect()
    }

    /// Bans a peer from carrying shares, on evidence that the caller has checked the signature of.
    /// Returns whether it was: evidence that shows no contradiction is refused.
    ///
    /// This node bans members that have signed a falsehood about a share that they brought here by
    /// itself; [`convictions`](Self::convictions) shows what they signed.
    pub fn ban(&mut self, now: Instant, peer: NodeId, evidence: Evidence) -> bool {
        let banned = self.ban_now(now, peer, evidence);
        if banned {
            self.settle(now);
        }
        banned
    }

    /// Bans a peer, and takes away what it was to carry.
    pub(super) fn ban_now(&mut self, now: Instant, peer: NodeId, evidence: Evidence) -> bool {
        let banned = self.reputation.ban(now, peer, evidence);
        if banned {
            self.collector.holder_lost(now, peer);
            self.replace_carrier(now, peer);
        }
        banned
    }

    /// Ends a ban.
    pub fn pardon(&mut self, peer: NodeId) {
        self.reputation.pardon(peer);
    }

    /// What hedging has cost and brought at this node.
    pub(super) fn hedging(&self) -> HedgeReport {
        self.collector.hedging().unwrap_or_default()
    }

    fn measured(&self, peer: NodeId) -> Option<PathStats> {
        self.rdt.stats(peer).filter(|stats| !stats.srtt.is_zero())
    }

    /// Part of the packets to all peers that is lost, with what is not known yet counted as none.
    pub(super) fn usual_loss(&self) -> f64 {
        let mut all = (0, PRIOR_PACKETS);
        for stats in self.rdt.peers().filter_map(|peer| self.rdt.stats(peer)) {
            all.0 += stats.packets_lost;
            all.1 += stats.packets_sent as f64;
        }
        all.0 as f64 / all.1
    }

    /// The way to a peer as measured from here.
    pub(super) fn estimate(&self, peer: NodeId, usual_loss: f64) -> PathEstimate {
        let mut path = PathEstimate::new(UNKNOWN_RTT, UNKNOWN_RATE);
        path.loss = usual_loss;
        let known = self.peers.get(&peer);
        if let Some(stats) = self.measured(peer) {
            path.srtt = stats.srtt;
            path.rttvar = stats.rttvar;
            path.rate = rate_of(&stats);
            path.queued = stats.queued as u64;
            let lost = stats.packets_lost as f64 + usual_loss * PRIOR_PACKETS;
            path.loss = lost / (stats.packets_sent as f64 + PRIOR_PACKETS);
            if let Some(lately) = known.and_then(|p| p.pulse.lately) {
                path.loss = lately;
            }
        }
        if let Some(known) = known {
            path.queued = path.queued.saturating_add(known.waiting_octets() as u64);
        }
        path
    }

    /// Whether the path on which the next share of a transfer would go has enough to send for now.
    /// What is not yet given to a path can still go by whichever is free first, and need not be
    /// moved when one dies.
    pub(super) fn is_ahead(&self, out: &Outgoing) -> bool {
        if out.open || out.group.is_some() || out.is_small() {
            return false;
        }
        let (usual, octets) = (self.usual_loss(), out.next_share() as u64);
        let members = self.member.cluster(out.cluster);
        let members = members.into_iter().flat_map(|c| c.members());
        let members = members.map(|(id, _)| (id, Carrier::Member(id)));
        let direct = self.config.allow_direct;
        let direct = direct.then_some((out.to, Carrier::Direct));
        direct
            .into_iter()
            .chain(members.filter(|(id, _)| out.may_hold(*id)))
            .filter_map(|(peer, carrier)| {
                let known = self.peers.get(&peer)?;
                let up = known.path == Path::Up && !known.pulse.suspect;
                self.measured(peer).filter(|_| up)?;
                let lane = self.lane(out.to, carrier, usual, octets);
                let most = lane.goodput() * AHEAD.as_secs_f64();
                let busy = known.waiting_of(out.id) as f64 > most;
                Some((lane.completion(octets), busy))
            })
            .min()
            .is_some_and(|(_, busy)| busy)
    }

    /// Octets of the next segment: what the paths carry in a time that nobody notices, so that
    /// what each segment costs is little of it, and a small part of what is left, since a member
    /// hands a share on when it has all of it.
    pub(super) fn segment_by_rate(&self, out: &Outgoing) -> usize {
        let least = self.config.segment;
        let left = out
            .total
            .map_or(0, |total| total.saturating_sub(out.offset));
        let most = (left / SEGMENTS_LEFT).min(LARGEST_SEGMENT);
        if !out.sealed || out.group.is_some() || most < 2 * least as u64 {
            return least;
        }
        let members = self.member.cluster(out.cluster);
        let members = members.into_iter().flat_map(|c| c.members());
        let members = members.map(|(id, _)| id).filter(|id| out.may_hold(*id));
        let rates = std::iter::once(out.to).chain(members).filter_map(|id| {
            let up = self.peers.get(&id)?.path == Path::Up;
            let stats = self.measured(id).filter(|_| up)?;
            Some(rate_of(&stats))
        });
        let carried = rates.sum::<f64>() * SEGMENT_TIME.as_secs_f64();
        let mut segment = least as u64;
        while segment * 2 <= most && segment as f64 * 2.0 <= carried {
            segment *= 2;
        }
        usize::try_from(segment).unwrap_or(least)
    }

    /// The whole way of a share: through a member it takes two hops, of which the second is taken to
    /// be like the first.
    pub(super) fn way(&self, to: NodeId, carrier: Carrier, usual_loss: f64) -> PathEstimate {
        match carrier {
            Carrier::Direct | Carrier::Server => self.estimate(to, usual_loss),
            Carrier::Member(id) => {
                let hop = self.estimate(id, usual_loss);
                PathEstimate {
                    srtt: hop.srtt * 2,
                    rttvar: hop.rttvar * 2,
                    loss: 1.0 - (1.0 - hop.loss).powi(2),
                    ..hop
                }
            }
        }
    }

    /// The way of a share of so many octets among many: what is under way already is not waited
    /// for, and a member has to have all of it before it hands it on.
    pub(super) fn lane(
        &self,
        to: NodeId,
        carrier: Carrier,
        usual_loss: f64,
        octets: u64,
    ) -> PathEstimate {
        let mut lane = self.way(to, carrier, usual_loss);
        let peer = match carrier {
            Carrier::Member(id) => id,
            Carrier::Direct | Carrier::Server => to,
        };
        let under_way = self.measured(peer).map_or(0, |stats| stats.bytes_in_flight);
        lane.queued = lane.queued.saturating_sub(under_way);
        if peer != to {
            let again = Duration::try_from_secs_f64(octets as f64 / lane.goodput());
            // the estimate counts half of a round trip
            lane.srtt += again.unwrap_or_default() * 2;
        }
        lane
    }

    fn quality(&self, now: Instant, to: NodeId, carrier: Carrier, usual_loss: f64) -> Quality {
        let peer = match carrier {
            Carrier::Member(id) => id,
            Carrier::Direct | Carrier::Server => to,
        };
        let way = self.way(to, carrier, usual_loss);
        let score = match carrier {
            Carrier::Member(id) => self.reputation.score(now, id),
            // nobody else has a part in it
            Carrier::Direct | Carrier::Server => 1.0,
        };
        Quality {
            reliability: if self.is_suspect(peer) {
                score * SUSPECT
            } else {
                score
            },
            // what waits there already comes first
            srtt: Some(way.completion(PACKET as u64) * 2),
            loss: way.loss,
            load: 0.0,
        }
    }

    /// Whether the path to a peer seems dead.
    pub(super) fn is_suspect(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.pulse.suspect)
    }

    /// What is demanded of the placement of a transfer.
    pub(super) fn policy_of(&self, out: &Outgoing) -> Policy {
        Policy {
            min_distinct_networks: self.config.min_distinct_networks,
            allow_direct: self.config.allow_direct,
            allow_server: self.config.allow_relay,
            ..Policy::k_of_n(out.threshold.k(), out.threshold.n())
        }
    }

    /// Who could carry shares of a transfer now.
    pub(super) fn carriers_for(&self, now: Instant, out: &Outgoing) -> Carriers {
        let usual = self.usual_loss();
        let mut members: Vec<Candidate> = self
            .member
            .cluster(out.cluster)
            .into_iter()
            .flat_map(|c| c.members())
            .filter(|(id, m)| {
                *id != self.config.id
                    && out.may_hold(*id)
                    && m.present
                    && m.caps.is_some_and(|c| c.contains(Caps::RDT))
                    && !self.path_is_down(*id)
                    && !self.reputation.is_banned(now, *id)
            })
            .map(|(id, m)| Candidate {
                addresses: m.address.map(|address| address.ip()).into_iter().collect(),
                quality: self.quality(now, out.to, Carrier::Member(id), usual),
                operator: self.config.operators.get(&id).cloned(),
                ..Candidate::new(id)
            })
            .collect();
        members.sort_by_key(|candidate| candidate.id);
        // to several there is always a way, to each its own
        let direct = out.group.is_some() || !self.path_is_down(out.to) && !self.is_away(out);
        Carriers {
            direct: direct.then(|| self.quality(now, out.to, Carrier::Direct, usual)),
            members,
            // a sealed session through the server is a path like any other
            server: !out.sealed && self.config.allow_relay && self.member.is_registered(),
            sealed: out.sealed,
        }
    }

    /// How many shares of a small message go on to its receiver at once, beyond k: `paths` are the
    /// carriers of its shares in order, `octets` what one of them holds.
    pub(super) fn redundancy(
        &mut self,
        now: Instant,
        to: NodeId,
        (k, n): (u8, u8),
        paths: &[Carrier],
        octets: usize,
    ) -> usize {
        let wanted = self.config.delivery;
        if wanted <= 0.0 {
            return 0;
        }
        let usual = self.usual_loss();
        let packets = u32::try_from(octets.div_ceil(PACKET)).unwrap_or(u32::MAX);
        // a holder has to be told of a share as well before it hands it on
        let told = packets.saturating_add(LINE_PACKETS);
        let lost = |carrier: &Carrier| match carrier {
            Carrier::Member(id) => {
                let hop = self.estimate(*id, usual).loss;
                1.0 - (1.0 - share_loss(hop, told)) * (1.0 - share_loss(hop, packets))
            }
            Carrier::Direct | Carrier::Server => share_loss(self.estimate(to, usual).loss, packets),
        };
        let loss: Vec<f64> = paths.iter().map(lost).collect();
        let peer = self.peer(now, to);
        let kept = peer.redundancy.take().filter(|kept| kept.0 == (k, n));
        let (_, mut redundancy) = kept.unwrap_or_else(|| ((k, n), Redundancy::new(k, n, wanted)));
        let more = redundancy.decide(&loss);
        peer.redundancy = Some(((k, n), redundancy));
        more.into()
    }

    /// Looks whether paths have died or come back, long before their sessions end.
    pub(super) fn look_at_paths(&mut self, now: Instant) {
        if self.looked_at.is_some_and(|at| now < at + LOOK) {
            return;
        }
        self.looked_at = Some(now);
        let dead: Vec<NodeId> = self
            .peers
            .iter_mut()
            .filter_map(|(id, peer)| {
                let stats = self.rdt.stats(*id)?;
                peer.pulse.look(&stats).then_some(*id)
            })
            .collect();
        for id in dead {
            self.stats.late_paths += 1;
            self.reputation.failure(now, id);
            self.event(Event::PathLate { peer: id });
            self.begin_detour(now, id);
            self.collector.holder_lost(now, id);
            self.replace_carrier(now, id);
        }
        self.look_at_detours(now);
    }

    /// Tells the collector what the ways from these holders can do.
    pub(super) fn estimate_holders(&mut self, holders: impl IntoIterator<Item = NodeId>) {
        for holder in holders {
            let known = self.peers.get(&holder).and_then(|p| p.lag);
            let estimate = self.measured(holder).map(|stats| {
                let rate = stats.cwnd as f64 / stats.srtt.as_secs_f64().max(0.001);
                let mut path = PathEstimate::new(stats.srtt, rate);
                path.rttvar = stats.rttvar;
                if let Some((lag, deviation)) = known {
                    (path.srtt, path.rttvar) = (lag, deviation);
                }
                path
            });
            self.collector.set_path(holder, estimate);
        }
    }

    /// A share came from a holder so long after it was expected, or has not for so long.
    pub(super) fn lagged(&mut self, holder: NodeId, took: Duration) {
        if let Some(peer) = self.peers.get_mut(&holder) {
            peer.lag = Some(match peer.lag {
                None => (took, took / 2),
                Some((smoothed, deviation)) => {
                    let error = smoothed.abs_diff(took);
                    (smoothed * 7 / 8 + took / 8, deviation * 3 / 4 + error / 4)
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_suspect_after_probes_without_an_answer_and_until_one_comes() {
        let mut pulse = Pulse::default();
        let mut stats = PathStats::default();
        stats.packets_received = 5;
        assert!(!pulse.look(&stats));
        stats.probe_timeouts = 1;
        assert!(!pulse.look(&stats), "one may be a loss");
        stats.probe_timeouts = 2;
        assert!(pulse.look(&stats));
        assert!(!pulse.look(&stats), "said once");
        assert!(pulse.suspect);
        stats.packets_received = 6;
        assert!(!pulse.look(&stats));
        assert!(!pulse.suspect);
        stats.probe_timeouts = 3;
        assert!(!pulse.look(&stats), "counted anew");
        stats.packets_received = 7;
        stats.bytes_in_flight = FULL_FLIGHT;
        assert!(!pulse.look(&stats));
        stats.probe_timeouts = 4;
        assert!(
            pulse.look(&stats),
            "of so much something would have come back"
        );
    }

    #[test]
    fn placements_of_ended_transfers_are_kept_in_a_bounded_number() {
        let id = |number: usize| {
            let mut octets = [0; 12];
            octets[..8].copy_from_slice(&number.to_be_bytes());
            MessageId::from_random(octets)
        };
        let placement = || {
            let carriers = Carriers {
                direct: Some(Quality::default()),
                sealed: true,
                ..Carriers::default()
            };
            Placement::choose(Policy::k_of_n(2, 3), &carriers).unwrap()
        };
        let mut explained = Explained::default();
        for number in 0..MAX_EXPLAINED + 10 {
            explained.keep(id(number), id(number + 10_000), placement());
        }
        assert_eq!(explained.last.len(), MAX_EXPLAINED);
        assert!(explained.find(id(9)).is_none());
        assert!(explained.find(id(10)).is_some());
        assert!(explained.find(id(10_010)).is_some(), "by its message too");
    }
}
