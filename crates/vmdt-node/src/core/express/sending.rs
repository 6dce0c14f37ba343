//! Sending by express: which messages may, who carries their pieces, and what becomes of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::paths::Redundancy;
use vmdt_rdt::Priority;
use vmdt_seal::express::Channel;
use vmdt_wire::{MessageId, NodeId};

use super::datagram::{Datagram, HEAD, PREFIX};
use super::outbox::{Due, InFlight, Key, Next, neighbour};
use crate::core::envelope::Kind;
use crate::core::outgoing::{Outgoing, Unplaced};
use crate::core::peer::Path;
use crate::core::placement::{self, Carrier, Carriers, Placement};
use crate::core::{Core, Output};

/// Octets of the transfer's id in front of the content.
pub(crate) const TRANSFER: usize = 16;
/// Beyond the round trip and its deviation: what timers, the receiver and its application take.
const SLACK: Duration = Duration::from_millis(25);
const SLACK_SOON: Duration = Duration::from_millis(8);
/// A path of which little is known yet is taken for one that loses this part of its packets, with
/// the weight of so many packets.
const PRIOR_LOSS: f64 = 0.04;
const PRIOR_PACKETS: f64 = 50.0;
/// Messages that are to arrive together at the first attempt, with the probability that is wanted:
/// those of a burst are waited for, and the first of them do not know how many follow.
const TOGETHER: f64 = 32.0;

/// What a receipt about a message that came by express confirms.
pub(crate) fn receipt_digest(transfer: MessageId, content: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("vmdt 1.1 express delivered");
    hasher.update(&transfer.field());
    hasher.update(content);
    *hasher.finalize().as_bytes()
}

impl Core {
    /// Sends what was read of a transfer by express, if that is all of it and may go that way.
    /// Returns whether it does.
    pub(in crate::core) fn place_express(&mut self, now: Instant, id: MessageId) -> bool {
        let Some(out) = self.outgoing.get(&id) else {
            return false;
        };
        if !self.config.express || !may_be_express(out) || self.express.ordinary.contains(&id) {
            return false;
        }
        let to = out.to;
        if self.is_away(out) || !self.is_present(to) {
            return false;
        }
        self.open_express(now, to);
        if !self.is_express_able(to) {
            return self.wait_for_express(now, id);
        }
        if !self.express.outbox.has_room(to) {
            return false;
        }
        // what is held back is held back the ordinary way
        let held = |out: &mut Outgoing| out.held_until(now).is_some();
        if self.outgoing.get_mut(&id).is_some_and(held) {
            return false;
        }
        match self.try_express(now, id, to) {
            Some(()) => true,
            None if self.wait_for_express(now, id) => true,
            None => {
                // so that its next segment, or it after a change, is not thought over again
                self.express.ordinary.insert(id);
                false
            }
        }
    }

    /// Lets a message wait if express is about to be possible. Returns whether it does. The first one
    /// to a receiver does not: alone it is there sooner the ordinary way.
    fn wait_for_express(&mut self, now: Instant, id: MessageId) -> bool {
        let Some(to) = self.outgoing.get(&id).map(|out| out.to) else {
            return false;
        };
        let first = !self
            .outgoing
            .values()
            .any(|other| other.to == to && other.id != id && !other.in_flight.is_empty());
        if first {
            return false;
        }
        let again = self.express_awaits(now, id);
        if let Some(at) = again {
            self.limits.wait(at);
        }
        again.is_some()
    }

    fn try_express(&mut self, now: Instant, id: MessageId, to: NodeId) -> Option<()> {
        let out = self.outgoing.get(&id)?;
        let threshold = out.threshold;
        let (k, n) = (threshold.k(), threshold.n());
        let data = out.unplaced.as_ref()?.data.clone();
        let urgency = match out.priority {
            Priority::Highest => 0,
            Priority::High => 1,
            Priority::Normal => 2,
        };
        let piece = Channel::piece_len(TRANSFER + data.len(), k);
        let policy = self.policy_of(out);
        let carriers = self.carriers_for(now, out);
        let count = |c: &Carriers| c.members.len() + usize::from(c.direct.is_some());
        let available = count(&carriers);
        let carriers = self.express_carriers(now, to, carriers, HEAD + PREFIX + piece);
        // it is not to be carried by fewer than the ordinary way would have carry it
        if count(&carriers) < available.min(k.into()) {
            return None;
        }
        let placement = placement::spread(policy, &carriers).ok()?;
        let order: Vec<Carrier> = placement.iter().map(|(_, carrier)| carrier).collect();
        let more = self.express_redundancy(to, (k, n), &order);
        let patience = self.express_patience(to, &order);
        let open = self.express_open(now, to)?;
        let counter = open.next;
        let opening = open.channel.id();
        open.next += 1;
        let mut plain = Vec::with_capacity(TRANSFER + data.len());
        plain.extend_from_slice(&id.field());
        plain.extend_from_slice(&data);
        let pair = self.express.pairs.get_mut(&to)?;
        let _ = pair.code(threshold);
        let (code, open) = pair.code.as_ref().zip(pair.open.as_ref())?;
        let sealed = open
            .channel
            .seal(code, counter, &plain, &mut self.rng)
            .ok()?;
        let pieces: Vec<_> = placement
            .iter()
            .filter_map(|(index, carrier)| {
                let octets = sealed.get(usize::from(index.get()).checked_sub(1)?)?;
                Some((index, carrier, octets.clone()))
            })
            .collect();
        self.stats.redundant_shares += more as u64;
        self.stats.express_sent += 1;
        let message = InFlight::new(
            (id, to, data.clone()),
            placement,
            pieces,
            (k, more, urgency),
            (now, patience),
        );
        self.express
            .outbox
            .add(now, (to, opening, counter), message);
        let digest = *blake3::hash(&data).as_bytes();
        self.receipts
            .sent_express(id, to, receipt_digest(id, &digest));
        let out = self.outgoing.get_mut(&id)?;
        out.unplaced = None;
        out.last_problem = None;
        out.digest = Some(digest);
        out.in_flight.insert(id);
        if let Some(bucket) = &mut out.bucket {
            bucket.take(data.len() as u64);
        }
        Some(())
    }

    /// Of those who could carry shares, those that can take pieces of so many octets now.
    fn express_carriers(
        &mut self,
        now: Instant,
        to: NodeId,
        mut carriers: Carriers,
        octets: usize,
    ) -> Carriers {
        let members: Vec<NodeId> = carriers.members.iter().map(|c| c.id).collect();
        for member in members {
            self.open_express(now, member);
        }
        let can = |id: NodeId| {
            let up = |p: &crate::core::peer::Peer| p.path == Path::Up && !p.relayed;
            self.peers.get(&id).is_some_and(up)
                && self.knows_express(id)
                && !self.is_suspect(id)
                && self.rdt.max_datagram(id).is_some_and(|max| octets <= max)
        };
        carriers.members.retain(|candidate| can(candidate.id));
        carriers.direct = carriers.direct.filter(|_| can(to));
        carriers.server = false;
        carriers
    }

    /// How many pieces beyond k leave at once.
    fn express_redundancy(&mut self, to: NodeId, (k, n): (u8, u8), order: &[Carrier]) -> usize {
        let most = order.len().saturating_sub(usize::from(k));
        if self.config.delivery <= 0.0 || most == 0 {
            return 0;
        }
        let wanted = 1.0 - (1.0 - self.config.delivery) / TOGETHER;
        let usual = self.usual_loss();
        let hop = |peer: NodeId| {
            let sent = self.rdt.stats(peer).map_or(0, |stats| stats.packets_sent) as f64;
            let weight = PRIOR_PACKETS / (PRIOR_PACKETS + sent);
            self.estimate(peer, usual).loss * (1.0 - weight) + PRIOR_LOSS * weight
        };
        let lost = |carrier: &Carrier| {
            let hop = hop(neighbour(to, *carrier));
            match carrier {
                Carrier::Member(_) => 1.0 - (1.0 - hop).powi(2),
                Carrier::Direct | Carrier::Server => hop,
            }
        };
        let loss: Vec<f64> = order.iter().map(lost).collect();
        let Some(pair) = self.express.pairs.get_mut(&to) else {
            return 0;
        };
        let kept = pair.redundancy.take().filter(|kept| kept.0 == (k, n));
        let (_, mut redundancy) = kept.unwrap_or_else(|| ((k, n), Redundancy::new(k, n, wanted)));
        let more = usize::from(redundancy.decide(&loss));
        pair.redundancy = Some(((k, n), redundancy));
        more.min(most)
    }

    /// After how long without a word the pieces follow that did not leave at first, which cost
    /// little if it was too soon, and after how long a message is taken for lost.
    fn express_patience(&self, to: NodeId, order: &[Carrier]) -> (Duration, Duration) {
        let usual = self.usual_loss();
        let (mut soon, mut late) = (Duration::ZERO, Duration::ZERO);
        for carrier in order {
            let way = self.way(to, *carrier, usual);
            soon = soon.max(way.srtt + way.srtt / 8);
            late = late.max(way.srtt + way.rttvar * 4);
        }
        let soon = soon + SLACK_SOON;
        (soon, (late + SLACK).max(soon * 3 / 2))
    }

    /// Hands the transport what it can send soon. Returns whether it took something.
    pub(in crate::core) fn pump_express(&mut self, now: Instant) -> bool {
        let mut took = false;
        let mut wake: Option<Instant> = None;
        for path in self.express.outbox.waiting() {
            while self.rdt.datagram_room(path) > 0 {
                let Some(limit) = self.rdt.max_datagram(path) else {
                    break;
                };
                if self
                    .limits
                    .is_held(now, self.config.rate_limit, limit as u64)
                {
                    break;
                }
                match self.express.outbox.next(now, path, limit) {
                    Next::Nothing => break,
                    Next::At(at) => {
                        wake = Some(wake.map_or(at, |other| other.min(at)));
                        break;
                    }
                    Next::TooLarge(piece) => {
                        self.express.outbox.left(now, &piece);
                    }
                    Next::Send(pieces) => {
                        took = true;
                        self.send_pieces(now, path, &pieces);
                    }
                }
            }
        }
        self.express.outbox.wake(now, wake);
        took
    }

    fn send_pieces(&mut self, now: Instant, path: NodeId, pieces: &[super::outbox::Queued]) {
        let Some(to) = pieces.first().map(|piece| piece.key.0) else {
            return;
        };
        let octets = pieces.iter().map(|piece| &piece.octets);
        let payload = if path == to {
            Datagram::here_is(self.config.id, octets)
        } else {
            Datagram::hand_on(to, octets)
        };
        self.charge(now, payload.len());
        // what is not taken is as lost as what is lost on the way
        let _ = self.rdt.send_datagram(now, path, payload);
        for piece in pieces {
            let first = self.express.outbox.left(now, piece);
            let Some(message) = self.express.outbox.get_mut(piece.key) else {
                continue;
            };
            let carrier = message.placement.carrier(piece.index);
            if let Some((out, carrier)) = self.outgoing.get_mut(&message.transfer).zip(carrier)
                && first
            {
                out.carried(carrier, piece.octets.len());
            }
        }
    }

    /// Counts octets against the node's rate limit.
    pub(super) fn charge(&mut self, now: Instant, octets: usize) {
        let _ = self
            .limits
            .holds(now, self.config.rate_limit, octets as u64);
    }

    /// Repeats what was not confirmed, or lets it take the ordinary way.
    pub(super) fn look_after_express(&mut self, now: Instant) {
        while let Some((key, due)) = self.express.outbox.due(now) {
            match due {
                Due::Hurried => {}
                Due::Repeated => self.stats.express_repeated += 1,
                Due::GiveUp => self.give_up_express(now, key),
            }
        }
    }

    fn give_up_express(&mut self, now: Instant, key: Key) {
        let Some(message) = self.express.outbox.remove(key) else {
            return;
        };
        let id = message.transfer;
        self.stats.express_fallbacks += 1;
        self.express.ordinary.insert(id);
        let Some(out) = self.outgoing.get_mut(&id) else {
            return;
        };
        out.in_flight.remove(&id);
        out.digest = None;
        out.unplaced = Some(Unplaced {
            data: message.data,
            last: true,
        });
        self.place(now, id);
    }

    /// The receiver says which messages it has.
    pub(super) fn on_express_delivered(
        &mut self,
        now: Instant,
        from: NodeId,
        opening: u32,
        ranges: &[(u32, u32)],
    ) {
        for range in ranges {
            for key in self.express.outbox.range(from, opening, *range) {
                self.express_arrived(now, key);
            }
        }
    }

    /// A receiver confirms a transfer on the control flow: what it may do with one that came by
    /// express when it can't by express any more. Returns whether it was one.
    pub(in crate::core) fn express_acknowledged(
        &mut self,
        now: Instant,
        from: NodeId,
        transfer: MessageId,
    ) -> bool {
        let key = self.express.outbox.key_of(transfer);
        let Some(key) = key.filter(|key| key.0 == from) else {
            return false;
        };
        self.express_arrived(now, key);
        true
    }

    fn express_arrived(&mut self, now: Instant, key: Key) {
        let Some(message) = self.express.outbox.remove(key) else {
            return;
        };
        let (id, octets) = (message.transfer, message.data.len() as u64);
        self.explained.keep(id, id, message.placement);
        self.kept_acknowledged(id, 0, octets);
        let Some(out) = self.outgoing.get_mut(&id) else {
            return;
        };
        out.in_flight.remove(&id);
        out.delivered += octets;
        out.moved = now;
        let progress = out.progress();
        self.outputs.push_back(Output::Progress {
            transfer: id,
            progress,
        });
        self.finish_outgoing(now, id);
    }

    /// A transfer has ended, however.
    pub(in crate::core) fn express_ended(&mut self, id: MessageId) {
        self.express.ordinary.remove(&id);
        if let Some(key) = self.express.outbox.key_of(id)
            && let Some(message) = self.express.outbox.remove(key)
        {
            self.explained.keep(id, id, message.placement);
        }
    }

    /// Where the pieces of a message under way are.
    pub(in crate::core) fn express_placement(&self, id: MessageId) -> Option<&Placement> {
        self.express
            .outbox
            .find(id)
            .map(|message| &message.placement)
    }
}

/// Whether all of a transfer is known, and nothing but octets.
fn may_be_express(out: &Outgoing) -> bool {
    let whole = |piece: &Unplaced| {
        let octets: &Bytes = &piece.data;
        piece.last && out.total == Some(octets.len() as u64)
    };
    out.sealed
        && !out.open
        && out.group.is_none()
        && out.kind == Kind::Octets
        && out.name.is_empty()
        && (out.next, out.offset) == (0, 0)
        && out.in_flight.is_empty()
        && out.unplaced.as_ref().is_some_and(whole)
}
