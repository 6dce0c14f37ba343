//! The holder's machine.

use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::{Announcement, Digest, Placement};
use crate::config::PoolConfig;
use crate::early::{EarlyKey, EarlyRequests, EarlyShares};
use crate::entry::{Entry, Slot};
use crate::error::{AddError, Bound, ClaimError, EndError, StoreError, UnfreezeError};
use crate::event::{Added, Ended, PoolEvent, Stored, Unfrozen};
use crate::ledger::{Ledger, Usage};
use crate::state::{Effect, Input, ShareState};
use crate::timers::{Timers, after};
use crate::tombstone::Tombstones;

/// A lease grows with each lapse up to this power of two.
const MAX_LEASE_DOUBLINGS: u8 = 4;

/// A deadline. A share has one at a time: the end of its lease when claimed, of the pause after a
/// release when active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Entry(MessageId),
    Share(MessageId, NonZeroU8),
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
    early: EarlyShares,
    requests: EarlyRequests,
    /// With the receiver, who may repeat its ack.
    tombstones: Tombstones<NodeId>,
    timers: Timers<Timer>,
    events: VecDeque<PoolEvent>,
}

impl Pool {
    /// An empty pool.
    pub fn new(config: PoolConfig) -> Self {
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
            early: EarlyShares::new(&config.early),
            requests: EarlyRequests::new(&config.early),
            tombstones: Tombstones::new(config.max_tombstones, config.tombstone_ttl),
            timers: Timers::new(),
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes an announcement from `from`.
    ///
    /// The same announcement again is [`Added::Known`]. The sender may move shares: one that moves
    /// away is dropped here, one that moves here is awaited. A frozen share that is announced as
    /// active is unfrozen; an active one announced as frozen stays active. The time to live counts
    /// from the first announcement. Announcements of one message are to be handed in in the order in
    /// which they were sent (they share an ordered flow): the last one says where shares are.
    ///
    /// # Errors
    ///
    /// `from` is not the sender, or not the one that announced the message first; the announcement
    /// contradicts itself or changes what is fixed; no share was ever placed here; the privacy rule
    /// (the distinct shares ever placed at this node would reach k while it is neither sender nor
    /// receiver); a bound. Nothing is changed then.
    pub fn add(
        &mut self,
        now: Instant,
        from: NodeId,
        announcement: &Announcement,
    ) -> Result<Added, AddError> {
        self.handle_timeout(now);
        let &Announcement {
            message, sender, ..
        } = announcement;
        if from != sender {
            return Err(AddError::NotSender { from, sender });
        }
        announcement.check()?;
        if let Some((owner, _)) = self.tombstones.get(message) {
            if owner != sender {
                return Err(AddError::ForeignSender { message, from });
            }
            return Ok(Added::Finished);
        }
        let mut newer = announcement.sorted();
        self.activate_requested(&mut newer);
        if self.entries.contains_key(&message) {
            self.update(now, newer)
        } else {
            self.add_new(now, newer)
        }
    }

    /// Marks as active what its sender or receiver unfroze before it was announced.
    fn activate_requested(&self, newer: &mut Announcement) {
        for owner in [newer.sender, newer.receiver] {
            if let Some(asked) = self.requests.get(newer.message, owner) {
                let here = |share: &&mut Placement| share.holder == self.config.local;
                for share in newer.shares.iter_mut().filter(here) {
                    share.active |= asked.unfreeze.contains(&share.index);
                }
            }
        }
    }

    fn add_new(&mut self, now: Instant, newer: Announcement) -> Result<Added, AddError> {
        let local = self.config.local;
        let &Announcement {
            message,
            sender,
            receiver,
            ..
        } = &newer;
        if newer.placed_at(local).next().is_none() {
            return Err(AddError::NotAHolder { local });
        }
        let ever = self.ever_with(BTreeSet::new(), &newer);
        self.check_privacy(&newer, &ever)?;
        let ended_by = |by, acked| {
            self.requests
                .get(message, by)
                .is_some_and(|asked| asked.removed || acked && asked.acked)
        };
        if ended_by(sender, false) || ended_by(receiver, true) {
            self.bury(now, message, sender, receiver);
            return Ok(Added::Finished);
        }
        self.ledger.charge(sender, 1, newer.cost())?;
        let slots = newer
            .shares
            .iter()
            .filter(|share| share.holder == local)
            .map(|share| (share.index, Slot::new(share.active)))
            .collect();
        self.timers
            .set(Timer::Entry(message), after(now, self.config.ttl));
        self.entries.insert(
            message,
            Entry {
                announcement: newer,
                slots,
                ever,
            },
        );
        self.take_early(now, message);
        Ok(Added::New)
    }

    fn update(&mut self, now: Instant, mut newer: Announcement) -> Result<Added, AddError> {
        let local = self.config.local;
        let message = newer.message;
        let Some(entry) = self.entries.get(&message) else {
            return self.add_new(now, newer);
        };
        entry.announcement.check_update(&newer)?;
        newer.keep_active(&entry.announcement);
        if newer == entry.announcement {
            return Ok(Added::Known);
        }
        let ever = self.ever_with(entry.ever.clone(), &newer);
        self.check_privacy(&newer, &ever)?;
        // An update lists at least what was listed before: it never costs less.
        let more = newer.cost().saturating_sub(entry.announcement.cost());
        self.ledger.charge(newer.sender, 0, more)?;

        let Some(entry) = self.entries.get_mut(&message) else {
            return Ok(Added::Known);
        };
        let mut effects = Vec::new();
        let mut freed = 0;
        entry.slots.retain(|&index, slot| {
            let stays = newer.find(index).is_some_and(|share| share.holder == local);
            if !stays {
                freed += slot.octets();
                self.timers.cancel(Timer::Share(message, index));
            }
            stays
        });
        for share in newer.shares.iter().filter(|share| share.holder == local) {
            let slot = entry
                .slots
                .entry(share.index)
                .or_insert_with(|| Slot::new(share.active));
            if share.active {
                effects.push((share.index, slot.step(Input::Unfreeze)));
            }
        }
        self.ledger.refund(newer.sender, 0, freed);
        entry.ever = ever;
        entry.announcement = newer;
        for (index, effect) in effects {
            self.apply(now, message, index, effect);
        }
        self.take_early(now, message);
        Ok(Added::Updated)
    }

    /// The shares of `newer` that are placed here or wait here, on top of `ever`.
    fn ever_with(
        &self,
        mut ever: BTreeSet<NonZeroU8>,
        newer: &Announcement,
    ) -> BTreeSet<NonZeroU8> {
        ever.extend(newer.placed_at(self.config.local));
        ever.extend(self.early.indices_from(newer.message, newer.sender));
        ever
    }

    fn check_privacy(
        &self,
        announcement: &Announcement,
        ever: &BTreeSet<NonZeroU8>,
    ) -> Result<(), AddError> {
        let (would_hold, threshold) = (ever.len(), announcement.k);
        if would_hold >= usize::from(threshold) && !announcement.is_owner(self.config.local) {
            return Err(AddError::Privacy {
                would_hold,
                threshold,
            });
        }
        Ok(())
    }

    /// Moves what came early to where the announcement says it belongs.
    fn take_early(&mut self, now: Instant, message: MessageId) {
        let waiting: Vec<EarlyKey> = self.early.keys(message).collect();
        for key in waiting {
            let (from, index, digest) = key;
            let Some(entry) = self.entries.get(&message) else {
                return;
            };
            let listed = entry.announcement.find(index);
            let settled = from != entry.announcement.sender
                || entry.slots.contains_key(&index)
                || listed.is_some_and(|share| share.digest != digest);
            // A share that is placed elsewhere may be on its way ahead of the announcement that
            // moves it here.
            if !settled {
                continue;
            }
            if let Some(share) = self.early.take(message, key)
                && let Err(reason) = self.store(now, from, message, index, share, digest)
            {
                self.events.push_back(PoolEvent::Dropped {
                    message,
                    index,
                    from,
                    reason,
                });
            }
        }
    }

    /// Takes a share from `from`; `digest` is computed by the caller over the octets of `share`.
    ///
    /// A share may come before the announcement, or before the one that moves it here: it then
    /// waits, within bounds.
    ///
    /// # Errors
    ///
    /// `from` is not the sender; the digest is not the announced one; the privacy rule; a bound.
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
        if let Some((sender, _)) = self.tombstones.get(message) {
            if sender != from {
                return Err(StoreError::NotSender { from });
            }
            return Ok(Stored::Finished);
        }
        let Some(entry) = self.entries.get_mut(&message) else {
            self.early
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
            return Ok(Stored::Duplicate);
        }
        self.ledger.charge(from, 0, share.len() as u64)?;
        let effect = slot.arrive(share);
        self.apply(now, message, index, effect);
        Ok(Stored::New)
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
            ever.extend(self.early.indices_from(message, sender));
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
        self.early.insert(now, message, key, share)?;
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
        if self.tombstones.get(message).is_some() {
            return Err(ClaimError::Finished { message });
        }
        let Some(entry) = self.entries.get_mut(&message) else {
            return Err(ClaimError::UnknownMessage { message });
        };
        if entry.announcement.receiver != claimer {
            return Err(ClaimError::NotReceiver { claimer });
        }
        let Some(slot) = entry.slots.get_mut(&index) else {
            return Err(ClaimError::NotPlacedHere { index });
        };
        let effect = slot.step(Input::Claim);
        if effect == Effect::RefuseFrozen {
            return Err(ClaimError::Frozen { index });
        }
        let Some(share) = slot.share().cloned() else {
            return Err(ClaimError::Missing { index });
        };
        self.apply(now, message, index, effect);
        Ok(share)
    }

    /// Makes a frozen share active, now or, when it is not announced or placed here yet, as soon as
    /// it is.
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
        if let Some((sender, &receiver)) = self.tombstones.get(message) {
            if by != sender && by != receiver {
                return Err(UnfreezeError::NotOwner { by });
            }
            return Ok(Unfrozen::Finished);
        }
        if let Some(entry) = self.entries.get_mut(&message) {
            if !entry.announcement.is_owner(by) {
                return Err(UnfreezeError::NotOwner { by });
            }
            if let Some(slot) = entry.slots.get_mut(&index)
                && let Some(listed) = entry.announcement.find_mut(index)
            {
                let was = core::mem::replace(&mut listed.active, true);
                let effect = slot.step(Input::Unfreeze);
                self.apply(now, message, index, effect);
                return Ok(if was {
                    Unfrozen::Already
                } else {
                    Unfrozen::Now
                });
            }
        }
        let asked = self.requests.of(now, message, by)?;
        asked.unfreeze.insert(index);
        Ok(Unfrozen::Early)
    }

    /// The receiver has the message: everything about it is dropped and a tombstone stays. An ack
    /// that overtakes the announcement is remembered.
    ///
    /// # Errors
    ///
    /// `by` is not the receiver; a bound.
    pub fn ack(&mut self, now: Instant, message: MessageId, by: NodeId) -> Result<Ended, EndError> {
        self.handle_timeout(now);
        if let Some((_, receiver)) = self.tombstones.get(message) {
            if by != *receiver {
                return Err(EndError::NotReceiver { by });
            }
            return Ok(Ended::Already);
        }
        if let Some(entry) = self.entries.get(&message) {
            if by != entry.announcement.receiver {
                return Err(EndError::NotReceiver { by });
            }
            self.end(now, message);
            return Ok(Ended::Now);
        }
        self.requests.of(now, message, by)?.acked = true;
        Ok(Ended::Early)
    }

    /// The sender or the receiver withdraws the message: as [`ack`](Self::ack).
    ///
    /// # Errors
    ///
    /// `by` is neither the sender nor the receiver; a bound.
    pub fn remove(
        &mut self,
        now: Instant,
        message: MessageId,
        by: NodeId,
    ) -> Result<Ended, EndError> {
        self.handle_timeout(now);
        if let Some((sender, &receiver)) = self.tombstones.get(message) {
            if by != sender && by != receiver {
                return Err(EndError::NotOwner { by });
            }
            return Ok(Ended::Already);
        }
        if let Some(entry) = self.entries.get(&message) {
            if !entry.announcement.is_owner(by) {
                return Err(EndError::NotOwner { by });
            }
            self.end(now, message);
            return Ok(Ended::Now);
        }
        self.requests.of(now, message, by)?.removed = true;
        Ok(Ended::Early)
    }

    /// The transfer to the claimer failed: the share is active again, and is offered again after a
    /// pause that doubles each time, so that an unreachable receiver costs little. Returns whether
    /// the share was claimed.
    pub fn release(&mut self, now: Instant, message: MessageId, index: NonZeroU8) -> bool {
        self.handle_timeout(now);
        let Some(slot) = self
            .entries
            .get_mut(&message)
            .and_then(|entry| entry.slots.get_mut(&index))
        else {
            return false;
        };
        let effect = slot.step(Input::Release);
        self.apply(now, message, index, effect);
        effect == Effect::OfferLater
    }

    /// The next event, if any. Offers that were overtaken (the share was claimed, moved or removed
    /// in the meantime) are left out.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<PoolEvent> {
        while let Some(event) = self.events.pop_front() {
            let PoolEvent::Offer { message, index, .. } = event else {
                return Some(event);
            };
            let slot = self
                .entries
                .get_mut(&message)
                .and_then(|entry| entry.slots.get_mut(&index));
            if let Some(slot) = slot
                && core::mem::take(&mut slot.offered)
                && slot.is_offerable()
            {
                return Some(event);
            }
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.timers.next(),
            self.early.next(),
            self.requests.next(),
            self.tombstones.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: ends leases, offers again, expires.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tombstones.expire(now);
        self.early.expire(now);
        self.requests.expire(now);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Entry(message) => {
                    self.end(now, message);
                    self.events.push_back(PoolEvent::Expired { message });
                }
                Timer::Share(message, index) => {
                    let Some(slot) = self
                        .entries
                        .get_mut(&message)
                        .and_then(|entry| entry.slots.get_mut(&index))
                    else {
                        continue;
                    };
                    let effect = slot.step(match slot.state() {
                        ShareState::Claimed => Input::LeaseEnd,
                        ShareState::Active | ShareState::Frozen => Input::Retry,
                    });
                    self.apply(now, message, index, effect);
                }
            }
        }
    }

    /// What is known about a message that has not ended: shares in index order, those that were
    /// unfrozen as active.
    pub fn announcement(&self, message: MessageId) -> Option<&Announcement> {
        self.entries.get(&message).map(|entry| &entry.announcement)
    }

    /// The state of a share that is placed here.
    pub fn state(&self, message: MessageId, index: NonZeroU8) -> Option<ShareState> {
        let slot = self.entries.get(&message)?.slots.get(&index)?;
        Some(slot.state())
    }

    /// How much is kept, without what waits for an announcement.
    pub fn usage(&self) -> Usage {
        self.ledger.usage()
    }

    fn apply(&mut self, now: Instant, message: MessageId, index: NonZeroU8, effect: Effect) {
        let Some(entry) = self.entries.get_mut(&message) else {
            return;
        };
        let receiver = entry.announcement.receiver;
        let Some(slot) = entry.slots.get_mut(&index) else {
            return;
        };
        let timer = Timer::Share(message, index);
        let PoolConfig {
            lease, offer_retry, ..
        } = self.config;
        match effect {
            Effect::Nothing | Effect::RefuseFrozen | Effect::RefuseMissing => return,
            Effect::Grant => {
                let doublings = slot.failures.min(MAX_LEASE_DOUBLINGS);
                let lease = lease.saturating_mul(1 << doublings);
                self.timers.set(timer, after(now, lease));
                return;
            }
            Effect::OfferLater => {
                let pause = offer_retry.saturating_mul(1 << slot.failures.min(30));
                self.timers.set(timer, after(now, pause.min(lease)));
                slot.failures = slot.failures.saturating_add(1);
                return;
            }
            Effect::Lapse => slot.failures = slot.failures.saturating_add(1),
            Effect::Offer => {}
        }
        if !core::mem::replace(&mut slot.offered, true) {
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
        let Announcement {
            sender, receiver, ..
        } = entry.announcement;
        self.ledger.refund(sender, 1, entry.octets());
        self.timers.cancel(Timer::Entry(message));
        for &index in entry.slots.keys() {
            self.timers.cancel(Timer::Share(message, index));
        }
        self.bury(now, message, sender, receiver);
    }

    /// Leaves a tombstone and nothing else.
    fn bury(&mut self, now: Instant, message: MessageId, sender: NodeId, receiver: NodeId) {
        self.early.forget(message);
        self.requests.forget(message);
        self.tombstones.insert(now, message, sender, receiver);
    }
}
