//! Offers of sealed sessions that were answered and are not yet confirmed: the only memory that a
//! stranger can claim, and only for an offer that the gate let in.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use bytes::Bytes;
use vmdt_seal::session::AwaitConfirm;
use vmdt_wire::NodeId;
use vmdt_wire::segment::Syn;

use crate::session::Protection;

/// How far the handshake is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Of three messages, the third is missing.
    Confirm(Box<AwaitConfirm>),
    /// Complete; the first packet that opens under the keys begins the session.
    Packet(Box<Protection>),
    /// The session has begun.
    Begun,
}

/// An answered offer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) peer: NodeId,
    pub(crate) address: SocketAddr,
    /// When the offer was answered first.
    pub(crate) at: Instant,
    /// The offer came from more than one address, so that the answer proves none.
    pub(crate) wandered: bool,
    /// What the offer says; of three messages, not authentic before the third.
    pub(crate) syn: Syn,
    pub(crate) message: Bytes,
    pub(crate) stage: Stage,
    /// A confirmation that was none has come.
    pub(crate) tried: bool,
    digest: [u8; 32],
    due: bool,
}

impl Answer {
    pub(crate) fn new(
        at: Instant,
        (peer, address): (NodeId, SocketAddr),
        syn: Syn,
        digest: [u8; 32],
        message: Vec<u8>,
        stage: Stage,
    ) -> Self {
        Self {
            peer,
            address,
            at,
            wandered: false,
            syn,
            message: message.into(),
            stage,
            tried: false,
            digest,
            due: true,
        }
    }

    /// Whether what answers the answer from this address shows that the peer is there.
    pub(crate) fn proves(&self, address: SocketAddr) -> bool {
        !self.wandered && self.address == address
    }
}

/// The table, bounded, oldest out first.
#[derive(Debug)]
pub(crate) struct Answers {
    capacity: usize,
    by_id: BTreeMap<u32, Answer>,
    /// The newest answer to a node's offer of this session id.
    by_offer: BTreeMap<(NodeId, NonZeroU32), u32>,
    /// In order of expiry.
    order: VecDeque<(Instant, u32)>,
    due: VecDeque<u32>,
}

impl Answers {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            by_id: BTreeMap::new(),
            by_offer: BTreeMap::new(),
            order: VecDeque::new(),
            due: VecDeque::new(),
        }
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Answers the same offer of a session id again, to where it came from now. False when it is
    /// not known. `digest` is asked for only where the id is.
    pub(crate) fn repeat(
        &mut self,
        (peer, offered): (NodeId, NonZeroU32),
        digest: impl FnOnce() -> [u8; 32],
        from: SocketAddr,
    ) -> bool {
        let Some(&id) = self.by_offer.get(&(peer, offered)) else {
            return false;
        };
        let Some(answer) = self.by_id.get_mut(&id) else {
            return false;
        };
        if answer.digest != digest() {
            return false;
        }
        answer.wandered |= answer.address != from;
        answer.address = from;
        if !std::mem::replace(&mut answer.due, true) {
            self.due.push_back(id);
        }
        true
    }

    /// Notes an answer under our session id, and queues it. True when it pushed out the oldest.
    pub(crate) fn note(&mut self, id: NonZeroU32, answer: Answer, expires_at: Instant) -> bool {
        let overflow = self.by_id.len() >= self.capacity;
        if overflow && let Some((_, oldest)) = self.order.pop_front() {
            self.remove(oldest);
        }
        let offer = (answer.peer, answer.syn.session);
        self.by_offer.insert(offer, id.get());
        self.by_id.insert(id.get(), answer);
        self.order.push_back((expires_at, id.get()));
        self.due.push_back(id.get());
        overflow
    }

    /// The answer to an offer of `peer` under our session id.
    pub(crate) fn get_mut(&mut self, id: u32, peer: NodeId) -> Option<&mut Answer> {
        self.by_id.get_mut(&id).filter(|answer| answer.peer == peer)
    }

    /// When the offer was answered that has this session id of ours.
    pub(crate) fn answered_at(&self, id: u32) -> Option<Instant> {
        self.by_id.get(&id).map(|answer| answer.at)
    }

    pub(crate) fn take(&mut self, id: u32) -> Option<Answer> {
        self.order.retain(|entry| entry.1 != id);
        self.remove(id)
    }

    fn remove(&mut self, id: u32) -> Option<Answer> {
        let answer = self.by_id.remove(&id)?;
        let offer = (answer.peer, answer.syn.session);
        if self.by_offer.get(&offer) == Some(&id) {
            self.by_offer.remove(&offer);
        }
        if answer.due {
            self.due.retain(|other| *other != id);
        }
        Some(answer)
    }

    /// The next answer to send, with our id.
    pub(crate) fn next_due(&mut self) -> Option<(u32, &Answer)> {
        let id = self.due.pop_front()?;
        let answer = self.by_id.get_mut(&id)?;
        answer.due = false;
        Some((id, answer))
    }

    /// When the oldest entry expires.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.order.front().map(|entry| entry.0)
    }

    /// Forgets what has expired.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.order.front()
            && at <= now
        {
            self.order.pop_front();
            self.remove(id);
        }
    }

    /// Entries of the largest of its tables.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_id
            .len()
            .max(self.by_offer.len())
            .max(self.order.len())
            .max(self.due.len())
    }
}
