//! The holder's machine.

mod adopt;
mod announce;
mod persist;

use core::num::NonZeroU8;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::{Announcement, Digest};
use crate::config::PoolConfig;
use crate::early::EarlyKey;
use crate::entry::Entry;
use crate::error::{Bound, ClaimError, EndError, StoreError, UnfreezeError};
use crate::event::{Ended, PoolEvent, Stored, Unfrozen};
use crate::frame::Frame;
use crate::journal::{Journal, Key};
use crate::ledger::{Ledger, Usage};
use crate::state::{Effect, Input, ShareState};
use crate::storage::Anchor;
use crate::timers::after;
use crate::tombstone::Tombstones;

pub use persist::Restored;

/// A lease grows with each lapse up to this power of two.
const MAX_LEASE_DOUBLINGS: u8 = 4;

/// A deadline. A share has one at a time for each receiver: the end of its lease when claimed, of
/// the pause after a release when active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Entry(MessageId),
    Share(MessageId, NonZeroU8, NodeId),
}

/// The shares that a node keeps for others, and who may do what with them.
///
/// Four kinds of methods, after the manner of all machines of this workspace: requests
/// ([`add`](Self::add), [`store`](Self::store), [`claim`](Self::claim),
/// [`unfreeze`](Self::unfreeze), [`ack`](Self::ack), [`remove`](Self::remove),
/// [`release`](Self::release)), time ([`poll_timeout`](Self::poll_timeout),
/// [`handle_timeout`](Self::handle_timeout)), events ([`poll_event`](Self::poll_event)) and views.
/// The caller's law: after any request or timeout, drain the events, then ask for the deadline.
///
/// Each request first does what is due at its `now`, so outcomes do not depend on whether a timer
/// was served just before or just after. Every request may be repeated: a second time changes
/// nothing. The caller vouches for `from`, `by` and `claimer`: the peer whose session brought the
/// request.
#[derive(Debug, Clone)]
pub struct Pool {
    config: PoolConfig,
    entries: BTreeMap<MessageId, Entry>,
    ledger: Ledger,
    /// Tombstones with the receivers, who may repeat their acks.
    frame: Frame<Box<[NodeId]>, Timer>,
    events: VecDeque<PoolEvent>,
}

impl Pool {
    /// An empty pool that lives in memory. [`restore`](Self::restore) makes a durable one.
    pub fn new(config: PoolConfig) -> Self {
        Pool::with_journal(config, None)
    }

    fn with_journal(config: PoolConfig, anchor: Option<Anchor>) -> Self {
        let tombstones = Tombstones::new(config.max_tombstones, config.tombstone_ttl);
        Pool {
            entries: BTreeMap::new(),
            ledger: Ledger::new(
                (
                    (Bound::Entries, config.max_entries),
                    (Bound::EntriesOfSender, config.max_entries_per_sender),
                ),
                (
                    (Bound::Octets, config.max_octets),
                    (Bound::OctetsOfSender, config.max_octets_per_sender),
                ),
                Some(config.local),
            ),
            frame: Frame::new(
                &config.early,
                tombstones,
                Journal::new(persist::SPACE, anchor),
            ),
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes a share from `from`; `digest` is computed by the caller over the octets of `share`.
    ///
    /// A share may come before the announcement, or before the one that moves it here: it then
    /// waits, within bounds.
    ///
    /// # Errors
    ///
    /// `from` is not the sender; the digest is not the announced one; the privacy rule; a bound; the
    /// store behind a durable pool is failing at present.
    pub fn store(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
        share: Bytes,
        digest: Digest,
    ) -> Result<Stored, StoreError> {
        self.handle_timeout(now);
        if let Some((sender, _)) = self.frame.tombstones.get(message) {
            if sender != from {
                return Err(StoreError::NotSender { from });
            }
            return Ok(Stored::Finished);
        }
        let Some(entry) = self.entries.get_mut(&message) else {
            self.frame
                .early
                .insert(now, message, (from, index, digest), share)?;
            return Ok(Stored::Early);
        };
        if entry.announcement.sender != from {
            return Err(StoreError::NotSender { from });
        }
        let listed = entry.announcement.find(index);
        if listed.is_some_and(|listed| listed.digest != digest) {
            return Err(StoreError::Mismatch { index });
        }
        let Some(slot) = entry.slots.get_mut(&index) else {
            return self.store_ahead(now, from, message, (from, index, digest), share);
        };
        if slot.share().is_some() {
            return Ok(if slot.pending {
                Stored::Pending
            } else {
                Stored::Duplicate
            });
        }
        if let Some(reason) = self.frame.journal.failure() {
            return Err(StoreError::Storage(reason));
        }
        self.ledger.charge(from, 0, share.len() as u64)?;
        slot.pending = self.frame.journal.anchor().is_some();
        let outcome = if slot.pending {
            Stored::Pending
        } else {
            Stored::New
        };
        let effects = slot.arrive(share);
        self.frame.journal.mark(Key::Share(message, index));
        for (receiver, effect) in effects {
            self.apply(now, message, index, receiver, effect);
        }
        Ok(outcome)
    }

    /// Keeps a share of a known message that no announcement places here yet.
    fn store_ahead(
        &mut self,
        now: Instant,
        sender: NodeId,
        message: MessageId,
        key: EarlyKey,
        share: Bytes,
    ) -> Result<Stored, StoreError> {
        if let Some(entry) = self.entries.get(&message) {
            let mut ever = entry.ever.clone();
            ever.extend(self.frame.early.indices_from(message, sender));
            ever.insert(key.1);
            let (would_hold, threshold) = (ever.len(), entry.announcement.k);
            if would_hold >= usize::from(threshold)
                && !entry.announcement.is_owner(self.config.local)
            {
                return Err(StoreError::Privacy {
                    would_hold,
                    threshold,
                });
            }
        }
        self.frame.early.insert(now, message, key, share)?;
        Ok(Stored::Early)
    }

    /// Hands a share out to its receiver, under a lease. Again by the same claimer: the same share,
    /// and the lease begins anew.
    ///
    /// # Errors
    ///
    /// The message is unknown or has ended, `claimer` is not its receiver, or the share is placed
    /// elsewhere, has not come, or is frozen.
    pub fn claim(
        &mut self,
        now: Instant,
        message: MessageId,
        claimer: NodeId,
        index: NonZeroU8,
    ) -> Result<Bytes, ClaimError> {
        self.handle_timeout(now);
        if self.frame.tombstones.get(message).is_some() {
            return Err(ClaimError::Finished { message });
        }
        let Some(entry) = self.entries.get_mut(&message) else {
            return Err(ClaimError::UnknownMessage { message });
        };
        if !entry.announcement.is_receiver(claimer) {
            return Err(ClaimError::NotReceiver { claimer });
        }
        if entry.done.contains(&claimer) {
            return Err(ClaimError::Finished { message });
        }
        let Some(slot) = entry.slots.get_mut(&index) else {
            return Err(ClaimError::NotPlacedHere { index });
        };
        let effect = slot.step(claimer, Input::Claim);
        if effect == Effect::RefuseFrozen {
            return Err(ClaimError::Frozen { index });
        }
        let Some(share) = slot.share().cloned() else {
            return Err(ClaimError::Missing { index });
        };
        self.apply(now, message, index, claimer, effect);
        Ok(share)
    }

    /// Makes a frozen share active, now or, when it is not announced or placed here yet, as soon as
    /// it is. By the sender for every receiver, by a receiver for itself.
    ///
    /// # Errors
    ///
    /// `by` is neither the sender nor the receiver; a bound.
    pub fn unfreeze(
        &mut self,
        now: Instant,
        message: MessageId,
        index: NonZeroU8,
        by: NodeId,
    ) -> Result<Unfrozen, UnfreezeError> {
        self.handle_timeout(now);
        if let Some((sender, receivers)) = self.frame.tombstones.get(message) {
            if by != sender && !receivers.contains(&by) {
                return Err(UnfreezeError::NotOwner { by });
            }
            return Ok(Unfrozen::Finished);
        }
        if let Some(entry) = self.entries.get_mut(&message) {
            if !entry.announcement.is_owner(by) {
                return Err(UnfreezeError::NotOwner { by });
            }
            let for_one = by != entry.announcement.sender;
            if for_one && entry.done.contains(&by) {
                return Ok(Unfrozen::Finished);
            }
            if let Some((was_frozen, effects)) = entry.unfreeze(index, for_one.then_some(by)) {
                if !was_frozen {
                    return Ok(Unfrozen::Already);
                }
                self.frame.journal.mark(Key::Entry(message));
                for (receiver, effect) in effects {
                    self.apply(now, message, index, receiver, effect);
                }
                return Ok(Unfrozen::Now);
            }
        }
        let asked = self.frame.requests.of(now, message, by)?;
        asked.unfreeze.insert(index);
        Ok(Unfrozen::Early)
    }

    /// A receiver has the message. When all have, everything about it is dropped and a tombstone
    /// stays. An ack that overtakes the announcement is remembered.
    ///
    /// # Errors
    ///
    /// `by` is not a receiver; a bound.
    pub fn ack(&mut self, now: Instant, message: MessageId, by: NodeId) -> Result<Ended, EndError> {
        self.handle_timeout(now);
        if let Some((_, receivers)) = self.frame.tombstones.get(message) {
            if !receivers.contains(&by) {
                return Err(EndError::NotReceiver { by });
            }
            return Ok(Ended::Already);
        }
        if let Some(entry) = self.entries.get(&message) {
            if !entry.announcement.is_receiver(by) {
                return Err(EndError::NotReceiver { by });
            }
            return Ok(self.finish_for(now, message, by));
        }
        self.frame.requests.of(now, message, by)?.acked = true;
        Ok(Ended::Early)
    }

    /// The sender withdraws the message, or a receiver wants it no more, which counts for itself as
    /// [`ack`](Self::ack) does.
    ///
    /// # Errors
    ///
    /// `by` is neither the sender nor a receiver; a bound.
    pub fn remove(
        &mut self,
        now: Instant,
        message: MessageId,
        by: NodeId,
    ) -> Result<Ended, EndError> {
        self.handle_timeout(now);
        if let Some((sender, receivers)) = self.frame.tombstones.get(message) {
            if by != sender && !receivers.contains(&by) {
                return Err(EndError::NotOwner { by });
            }
            return Ok(Ended::Already);
        }
        if let Some(entry) = self.entries.get(&message) {
            if by == entry.announcement.sender {
                self.end(now, message);
                return Ok(Ended::Now);
            }
            if !entry.announcement.is_receiver(by) {
                return Err(EndError::NotOwner { by });
            }
            return Ok(self.finish_for(now, message, by));
        }
        self.frame.requests.of(now, message, by)?.removed = true;
        Ok(Ended::Early)
    }

    /// A receiver that has acknowledged a message to several asks for it again: it lost the message
    /// before its sender heard of the ack. What is active is offered to it anew. Returns whether
    /// `by` is such a receiver; when the last receiver has acknowledged the message, it is gone.
    pub fn ask_again(&mut self, now: Instant, message: MessageId, by: NodeId) -> bool {
        self.handle_timeout(now);
        let Some(entry) = self.entries.get_mut(&message) else {
            return false;
        };
        if !entry.done.remove(&by) {
            return false;
        }
        let mut effects = Vec::new();
        for (&index, slot) in &mut entry.slots {
            let listed = entry.announcement.find(index);
            let active = listed.is_none_or(|listed| listed.active);
            effects.push((index, slot.admit(by, active)));
        }
        self.frame.journal.mark(Key::Entry(message));
        for (index, effect) in effects {
            self.apply(now, message, index, by, effect);
        }
        true
    }

    /// Receiver `by` wants nothing more of a message that is known.
    fn finish_for(&mut self, now: Instant, message: MessageId, by: NodeId) -> Ended {
        let Some(entry) = self.entries.get_mut(&message) else {
            return Ended::Already;
        };
        if !entry.done.insert(by) {
            return Ended::Already;
        }
        if entry.is_done() {
            self.end(now, message);
            return Ended::Now;
        }
        for (&index, slot) in &mut entry.slots {
            slot.forget(by);
            self.frame.timers.cancel(Timer::Share(message, index, by));
            if !slot.is_frozen()
                && let Some(listed) = entry.announcement.find_mut(index)
            {
                listed.active = true;
            }
        }
        self.frame.journal.mark(Key::Entry(message));
        Ended::ForOne
    }

    /// The transfer to the claimer failed: the share is active again, and is offered again after a
    /// pause that doubles each time, so that an unreachable receiver costs little. Returns whether
    /// the share was claimed. For a group this counts for all who claimed it: see
    /// [`release_for`](Self::release_for).
    pub fn release(&mut self, now: Instant, message: MessageId, index: NonZeroU8) -> bool {
        let receivers: Vec<NodeId> = self
            .entries
            .get(&message)
            .map(|entry| entry.announcement.receivers().collect())
            .unwrap_or_default();
        let mut released = false;
        for receiver in receivers {
            released |= self.release_for(now, message, index, receiver);
        }
        released
    }

    /// As [`release`](Self::release), for one receiver.
    pub fn release_for(
        &mut self,
        now: Instant,
        message: MessageId,
        index: NonZeroU8,
        receiver: NodeId,
    ) -> bool {
        self.handle_timeout(now);
        let Some(slot) = self
            .entries
            .get_mut(&message)
            .and_then(|entry| entry.slots.get_mut(&index))
        else {
            return false;
        };
        let effect = slot.step(receiver, Input::Release);
        self.apply(now, message, index, receiver, effect);
        effect == Effect::OfferLater
    }

    /// The next event, if any. Offers that were overtaken (the share was claimed, moved or removed
    /// in the meantime) are left out.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<PoolEvent> {
        while let Some(event) = self.events.pop_front() {
            let PoolEvent::Offer {
                message,
                index,
                receiver,
            } = event
            else {
                return Some(event);
            };
            let delivery = self
                .entries
                .get_mut(&message)
                .and_then(|entry| entry.slots.get_mut(&index)?.delivery_mut(receiver));
            if let Some(delivery) = delivery
                && core::mem::take(&mut delivery.offered)
                && delivery.is_offerable()
            {
                return Some(event);
            }
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.frame.next()
    }

    /// Does what is due: ends leases, offers again, expires.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.frame.expire(now);
        while let Some(timer) = self.frame.timers.pop_due(now) {
            match timer {
                Timer::Entry(message) => {
                    self.end(now, message);
                    self.events.push_back(PoolEvent::Expired { message });
                }
                Timer::Share(message, index, receiver) => {
                    let Some(delivery) = self
                        .entries
                        .get_mut(&message)
                        .and_then(|entry| entry.slots.get_mut(&index)?.delivery_mut(receiver))
                    else {
                        continue;
                    };
                    let effect = delivery.step(match delivery.state() {
                        ShareState::Claimed => Input::LeaseEnd,
                        ShareState::Active | ShareState::Frozen => Input::Retry,
                    });
                    self.apply(now, message, index, receiver, effect);
                }
            }
        }
    }

    /// What is known about a message that has not ended: shares in index order, those that were
    /// unfrozen as active.
    pub fn announcement(&self, message: MessageId) -> Option<&Announcement> {
        self.entries.get(&message).map(|entry| &entry.announcement)
    }

    /// The messages that have not ended, in id order.
    pub fn messages(&self) -> impl Iterator<Item = &Announcement> + '_ {
        self.entries.values().map(|entry| &entry.announcement)
    }

    /// Whether a share that is placed here has come, and, in a durable pool, is on disk.
    pub fn has_stored(&self, message: MessageId, index: NonZeroU8) -> bool {
        let entry = self.entries.get(&message);
        let slot = entry.and_then(|entry| entry.slots.get(&index));
        slot.is_some_and(|slot| slot.share().is_some() && !slot.pending)
    }

    /// The state of a share that is placed here, towards the first receiver that still wants it.
    pub fn state(&self, message: MessageId, index: NonZeroU8) -> Option<ShareState> {
        let entry = self.entries.get(&message)?;
        let mut open = entry.announcement.receivers();
        let receiver = open.find(|receiver| !entry.done.contains(receiver))?;
        self.state_for(message, index, receiver)
    }

    /// The state of a share that is placed here, towards one receiver that still wants it.
    pub fn state_for(
        &self,
        message: MessageId,
        index: NonZeroU8,
        receiver: NodeId,
    ) -> Option<ShareState> {
        let slot = self.entries.get(&message)?.slots.get(&index)?;
        Some(slot.delivery(receiver)?.state())
    }

    /// How much is kept, without what waits for an announcement.
    pub fn usage(&self) -> Usage {
        self.ledger.usage()
    }

    fn apply(
        &mut self,
        now: Instant,
        message: MessageId,
        index: NonZeroU8,
        receiver: NodeId,
        effect: Effect,
    ) {
        let Some(delivery) = self
            .entries
            .get_mut(&message)
            .and_then(|entry| entry.slots.get_mut(&index)?.delivery_mut(receiver))
        else {
            return;
        };
        let timer = Timer::Share(message, index, receiver);
        let timers = &mut self.frame.timers;
        let PoolConfig {
            lease, offer_retry, ..
        } = self.config;
        match effect {
            Effect::Nothing | Effect::RefuseFrozen | Effect::RefuseMissing => return,
            Effect::Grant => {
                let doublings = delivery.failures.min(MAX_LEASE_DOUBLINGS);
                let lease = lease.saturating_mul(1 << doublings);
                timers.set(timer, after(now, lease));
                return;
            }
            Effect::OfferLater => {
                let pause = offer_retry.saturating_mul(1 << delivery.failures.min(30));
                timers.set(timer, after(now, pause.min(lease)));
                delivery.failures = delivery.failures.saturating_add(1);
                return;
            }
            Effect::Lapse => delivery.failures = delivery.failures.saturating_add(1),
            Effect::Offer => {}
        }
        if !core::mem::replace(&mut delivery.offered, true) {
            self.events.push_back(PoolEvent::Offer {
                message,
                index,
                receiver,
            });
        }
    }

    fn end(&mut self, now: Instant, message: MessageId) {
        let Some(entry) = self.entries.remove(&message) else {
            return;
        };
        let sender = entry.announcement.sender;
        self.ledger.refund(sender, 1, entry.octets());
        self.frame.timers.cancel(Timer::Entry(message));
        let receivers = entry.announcement.receivers().collect();
        self.frame.bury(now, message, sender, receivers);
        self.frame.journal.mark(Key::Entry(message));
        for (&index, slot) in &entry.slots {
            for (receiver, _) in slot.deliveries() {
                let timer = Timer::Share(message, index, receiver);
                self.frame.timers.cancel(timer);
            }
            self.frame.journal.mark(Key::Share(message, index));
        }
    }
}
