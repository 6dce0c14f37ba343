//! Offers answered and not yet confirmed: the only memory an unproven address can claim.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use vmdt_wire::NodeId;
use vmdt_wire::segment::Syn;

/// An offer we have answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HalfOpen {
    pub(crate) peer: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) syn: Syn,
    /// In the queue of answers to send.
    due: bool,
}

/// What noting an offer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// A new entry; at the bound it pushed out the oldest.
    New { overflow: bool },
    /// The same offer again.
    Again,
}

/// The table, bounded, oldest out first.
#[derive(Debug)]
pub(crate) struct HalfOpenTable {
    capacity: usize,
    by_id: BTreeMap<u32, HalfOpen>,
    by_offer: BTreeMap<(NodeId, NonZeroU32), NonZeroU32>,
    /// In order of expiry.
    order: VecDeque<(Instant, u32)>,
    due: VecDeque<u32>,
}

impl HalfOpenTable {
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

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Our id for this offer, if it is known.
    pub(crate) fn find(&self, peer: NodeId, offer: NonZeroU32) -> Option<NonZeroU32> {
        self.by_offer.get(&(peer, offer)).copied()
    }

    /// Notes an offer that gets `id` as our session id, and queues the answer.
    pub(crate) fn note(
        &mut self,
        id: NonZeroU32,
        peer: NodeId,
        address: SocketAddr,
        syn: Syn,
        expires_at: Instant,
    ) -> Noted {
        if let Some(entry) = self.by_id.get_mut(&id.get()) {
            entry.address = address;
            // A later expiry goes to the end; the table is small.
            self.order.retain(|other| other.1 != id.get());
            self.order.push_back((expires_at, id.get()));
            if !std::mem::replace(&mut entry.due, true) {
                self.due.push_back(id.get());
            }
            return Noted::Again;
        }
        let overflow = self.by_id.len() >= self.capacity;
        if overflow && let Some(&oldest) = self.order.front() {
            self.order.pop_front();
            self.remove(oldest.1);
        }
        self.by_offer.insert((peer, syn.session), id);
        self.order.push_back((expires_at, id.get()));
        self.due.push_back(id.get());
        self.by_id.insert(
            id.get(),
            HalfOpen {
                peer,
                address,
                syn,
                due: true,
            },
        );
        Noted::New { overflow }
    }

    /// Takes the entry that a datagram of `peer` with our id confirms.
    pub(crate) fn confirm(&mut self, id: u32, peer: NodeId) -> Option<HalfOpen> {
        if self.by_id.get(&id)?.peer != peer {
            return None;
        }
        self.order.retain(|entry| entry.1 != id);
        self.remove(id)
    }

    /// Takes all entries of a peer; returns our id in the newest, which the peer may hold for
    /// ours already.
    pub(crate) fn take(&mut self, peer: NodeId) -> Option<NonZeroU32> {
        let span = (peer, NonZeroU32::MIN)..=(peer, NonZeroU32::MAX);
        let ids: Vec<NonZeroU32> = self.by_offer.range(span).map(|(_, id)| *id).collect();
        let newest = self
            .order
            .iter()
            .rev()
            .find_map(|entry| ids.iter().find(|id| id.get() == entry.1).copied());
        for id in ids {
            self.order.retain(|entry| entry.1 != id.get());
            self.remove(id.get());
        }
        newest
    }

    fn remove(&mut self, id: u32) -> Option<HalfOpen> {
        let entry = self.by_id.remove(&id)?;
        self.by_offer.remove(&(entry.peer, entry.syn.session));
        if entry.due {
            self.due.retain(|other| *other != id);
        }
        Some(entry)
    }

    /// The next answer to send, with our id.
    pub(crate) fn next_due(&mut self) -> Option<(u32, HalfOpen)> {
        while let Some(id) = self.due.pop_front() {
            if let Some(entry) = self.by_id.get_mut(&id) {
                entry.due = false;
                return Some((id, *entry));
            }
        }
        None
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
}
