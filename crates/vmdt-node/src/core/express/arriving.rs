//! Arriving by express: pieces for this node, pieces to hand on, and what others confirm.

use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{ErrorCode, Message, MessageId, MessageName, NodeId};

use super::datagram::{Datagram, HEAD, PREFIX};
use super::inbox::{Outcome, Whole};
use super::sending::{TRANSFER, receipt_digest};
use crate::core::Core;
use crate::core::envelope::{Envelope, Kind};
use crate::core::peer::Path;
use crate::core::placement::Carrier;
use crate::core::receive::Expected;

/// Octets of datagrams, headers and tags included, that may wait in the transport for one receiver
/// when more are handed on; half of it for one sender.
const MAX_WAITING: usize = 48 * 1024;
/// What waits at most when a path counts as empty.
const NEARLY_EMPTY: usize = 4 * 1024;

impl Core {
    /// A datagram of a member.
    pub(in crate::core) fn on_express(&mut self, now: Instant, from: NodeId, payload: &Bytes) {
        if !self.config.express || self.seal.is_none() || !self.is_member(from) {
            self.stats.bad_pieces += 1;
            return;
        }
        match Datagram::parse(payload) {
            Ok(Datagram::HandOn { to, pieces }) => self.hand_pieces_on(now, from, to, &pieces),
            Ok(Datagram::HereIs {
                from: sender,
                pieces,
            }) => {
                self.on_pieces(now, from, sender, &pieces);
            }
            Ok(Datagram::Delivered { opening, ranges }) => {
                self.on_express_delivered(now, from, opening, &ranges);
            }
            Ok(Datagram::Opening(opening)) => self.on_express_open(now, from, &opening),
            Ok(Datagram::Opened { id }) => self.on_express_ok(now, from, id),
            Err(error) => {
                self.stats.bad_pieces += 1;
                tracing::debug!(%error, "a datagram was refused");
            }
        }
    }

    fn share_a_cluster(&self, one: NodeId, other: NodeId) -> bool {
        self.member
            .roster()
            .any(|(_, c)| c.member(one).is_some() && c.member(other).is_some())
    }

    /// A session with a peer is there: what waited for it is handed on.
    pub(in crate::core) fn hand_on_held(&mut self, now: Instant, to: NodeId) {
        for (from, pieces) in self.express.held.take(now, to) {
            self.hand_pieces_on(now, from, to, &pieces);
        }
    }

    /// Hands pieces on to their receiver at once, or as soon as the session with it is there that is
    /// being opened.
    fn hand_pieces_on(&mut self, now: Instant, from: NodeId, to: NodeId, pieces: &[Bytes]) {
        let up = |peer: &crate::core::peer::Peer| peer.path == Path::Up && !peer.relayed;
        if to == self.config.id || to == from || !self.share_a_cluster(from, to) {
            self.stats.bad_pieces += 1;
            return;
        }
        if !self.peers.get(&to).is_some_and(up) || !self.knows_express(to) {
            self.ensure_path(now, to);
            self.open_express(now, to);
            let connecting = |peer: &crate::core::peer::Peer| peer.path == Path::Connecting;
            let dropped = match self.peers.get(&to).is_some_and(connecting) {
                true => self.express.held.hold(now, from, to, pieces),
                // its sender repeats it, and the way may be there then
                false => pieces.len(),
            };
            self.stats.pieces_dropped += dropped as u64;
            return;
        }
        let octets = pieces.iter().map(|p| PREFIX + p.len()).sum::<usize>() + HEAD;
        let waiting = self.rdt.stats(to).map_or(0, |stats| stats.datagrams_queued);
        let by_sender = self.express.handed_on.entry(to).or_default();
        if waiting <= NEARLY_EMPTY {
            by_sender.clear();
        }
        let of_sender = by_sender.entry(from).or_default();
        let too_much = waiting + octets > MAX_WAITING || *of_sender + octets > MAX_WAITING / 2;
        let limited = self
            .limits
            .holds(now, self.config.rate_limit, octets as u64);
        if too_much || limited {
            self.stats.pieces_dropped += pieces.len() as u64;
            return;
        }
        *of_sender += octets;
        let Some(limit) = self.rdt.max_datagram(to) else {
            return;
        };
        let mut rest = pieces;
        while !rest.is_empty() {
            let mut room = limit.saturating_sub(HEAD);
            let mut count = 0;
            for piece in rest {
                let Some(left) = room.checked_sub(PREFIX + piece.len()) else {
                    break;
                };
                room = left;
                count += 1;
            }
            if count == 0 {
                self.stats.pieces_dropped += 1;
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let (these, others) = rest.split_at(count);
            rest = others;
            let payload = Datagram::here_is(from, these.iter());
            match self.rdt.send_datagram(now, to, payload) {
                Ok(()) => self.stats.pieces_handed_on += count as u64,
                Err(_) => self.stats.pieces_dropped += count as u64,
            }
        }
    }

    /// Pieces for this node, said to be of this sender.
    fn on_pieces(&mut self, now: Instant, from: NodeId, sender: NodeId, pieces: &[Bytes]) {
        if sender == self.config.id || (sender != from && !self.share_a_cluster(sender, from)) {
            self.stats.bad_pieces += pieces.len() as u64;
            return;
        }
        let carrier = if sender == from {
            Carrier::Direct
        } else {
            Carrier::Member(from)
        };
        for piece in pieces {
            match self.express.inbox.piece(now, sender, carrier, piece) {
                Outcome::Kept | Outcome::Again => {}
                Outcome::Whole(whole) => self.on_express_whole(now, sender, whole),
                // nobody is to blame: the sender can make such pieces as well as its bringer
                Outcome::Bad | Outcome::Unreadable => {
                    self.stats.bad_pieces += 1;
                    if let Some(peer) = self.peers.get_mut(&from) {
                        peer.bad_pieces += 1;
                    }
                }
                Outcome::Unknown => self.stats.pieces_dropped += 1,
            }
        }
    }

    /// A message is whole.
    fn on_express_whole(&mut self, now: Instant, from: NodeId, whole: Whole) {
        let Whole {
            plain,
            origins,
            place,
        } = whole;
        let transfer = plain
            .first_chunk::<TRANSFER>()
            .and_then(|id| MessageId::from_field(*id).ok())
            .filter(|id| !id.is_zero());
        let Some(transfer) = transfer else {
            self.stats.bad_pieces += 1;
            return;
        };
        for (carrier, _) in origins.values() {
            if let Carrier::Member(id) = carrier {
                self.reputation.success(now, *id);
            }
        }
        match self.ended_set.get(&(from, transfer)) {
            Some(true) => {
                self.express.inbox.at_application(from, transfer, place);
                self.express.inbox.delivered(now, from, transfer);
                return;
            }
            Some(false) => {
                // it failed here, as its sender may not have heard
                let line = Message::Error {
                    code: ErrorCode::Aborted,
                    text: "the transfer has ended at the receiver".into(),
                    about: Some(MessageName::from(transfer)),
                };
                return self.send_line(now, from, line);
            }
            None => {}
        }
        if self.incoming_by_id.contains_key(&(from, transfer)) {
            // it comes the ordinary way by now, and is confirmed that way
            return;
        }
        let payload = Bytes::from(plain).slice(TRANSFER..);
        let digest = *blake3::hash(&payload).as_bytes();
        let envelope = Envelope {
            kind: Kind::Octets,
            transfer,
            number: 0,
            offset: 0,
            total: Some(payload.len() as u64),
            name: String::new(),
            last: Some(digest),
        };
        self.stats.express_received += 1;
        self.express.inbox.at_application(from, transfer, place);
        self.receipts
            .opened(transfer, receipt_digest(transfer, &digest));
        let expected = Expected::of(now, from, transfer, origins);
        self.on_segment(now, transfer, &expected, envelope, payload);
    }

    /// The application has a message. Returns whether it is confirmed by express.
    pub(in crate::core) fn express_taken(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
    ) -> bool {
        self.express.inbox.delivered(now, from, message)
    }

    pub(super) fn confirm_express(&mut self, now: Instant) {
        for (to, opening, ranges) in self.express.inbox.confirmations(now) {
            let payload = Datagram::confirm(opening, ranges.into_iter());
            self.charge(now, payload.len());
            // if it is lost, the next piece of one of them asks for it again
            let _ = self.rdt.send_datagram(now, to, payload);
        }
    }
}
