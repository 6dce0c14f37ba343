//! Shares that were not given by their sender but remade among holders.

use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use super::{Pool, Timer};
use crate::announcement::{Announcement, Digest};
use crate::entry::{Entry, Slot};
use crate::error::StoreError;
use crate::event::Stored;
use crate::journal::Key;
use crate::timers::after;

impl Pool {
    /// Keeps a share that is remade, and offers it to the receivers: it is active. `digest` is
    /// computed by the caller over the octets of `share`.
    ///
    /// What is known of the message stays as it is, the placement included; if nothing is known yet,
    /// `announcement` is taken, which another holder told, so without its version: every
    /// announcement of the sender replaces it. If the sender then places the share elsewhere, it is
    /// dropped here.
    ///
    /// # Errors
    ///
    /// The digest is not the announced one; the privacy rule; a bound; the store behind a durable
    /// pool is failing at present.
    pub fn adopt(
        &mut self,
        now: Instant,
        announcement: &Announcement,
        index: NonZeroU8,
        share: Bytes,
        digest: Digest,
    ) -> Result<Stored, StoreError> {
        self.handle_timeout(now);
        let local = self.config.local;
        let message = announcement.message;
        if self.frame.tombstones.get(message).is_some() {
            return Ok(Stored::Finished);
        }
        let known = self.entries.get(&message);
        let told = known.map_or(announcement, |entry| &entry.announcement);
        let listed = told.placement(index);
        if listed.is_none_or(|listed| listed.digest != digest)
            || known.is_none() && announcement.check().is_err()
        {
            return Err(StoreError::Mismatch { index });
        }
        if let Some(slot) = known.and_then(|entry| entry.slots.get(&index))
            && slot.share().is_some()
        {
            return Ok(Stored::Duplicate);
        }
        let mut ever = known.map_or_else(BTreeSet::new, |entry| entry.ever.clone());
        ever.insert(index);
        let (would_hold, threshold) = (ever.len(), told.k);
        if would_hold >= usize::from(threshold) || told.is_owner(local) {
            return Err(StoreError::Privacy {
                would_hold,
                threshold,
            });
        }
        if let Some(reason) = self.frame.journal.failure() {
            return Err(StoreError::Storage(reason));
        }
        let sender = told.sender;
        let new = known.is_none();
        let cost = if new { announcement.cost() } else { 0 };
        let octets = cost + share.len() as u64;
        self.ledger.charge(sender, u64::from(new), octets)?;
        if new {
            let mut announcement = announcement.sorted();
            announcement.version = 0;
            let entry = Entry {
                announcement,
                slots: BTreeMap::new(),
                ever: BTreeSet::new(),
                done: BTreeSet::new(),
            };
            self.entries.insert(message, entry);
            let until = after(now, self.config.ttl);
            self.frame.timers.set(Timer::Entry(message), until);
        }
        let pending = self.frame.journal.anchor().is_some();
        let Some(entry) = self.entries.get_mut(&message) else {
            return Ok(Stored::Finished);
        };
        let open: Vec<NodeId> = entry
            .announcement
            .receivers()
            .filter(|receiver| !entry.done.contains(receiver))
            .collect();
        entry.ever = ever;
        let slot = entry
            .slots
            .entry(index)
            .or_insert_with(|| Slot::new(true, open));
        slot.pending = pending;
        let effects = slot.arrive(share);
        self.frame.journal.mark(Key::Entry(message));
        self.frame.journal.mark(Key::Share(message, index));
        for (receiver, effect) in effects {
            self.apply(now, message, index, receiver, effect);
        }
        Ok(if pending {
            Stored::Pending
        } else {
            Stored::New
        })
    }

    /// The shares of a message that are, or are to be, here: those that its sender placed here and
    /// those that were remade.
    pub fn indices(&self, message: MessageId) -> impl Iterator<Item = NonZeroU8> + '_ {
        let entry = self.entries.get(&message).into_iter();
        entry.flat_map(|entry| entry.slots.keys().copied())
    }

    /// The shares of a message that were ever placed, brought or remade here: what the privacy rule
    /// counts.
    pub fn ever(&self, message: MessageId) -> impl Iterator<Item = NonZeroU8> + '_ {
        let entry = self.entries.get(&message).into_iter();
        entry.flat_map(|entry| entry.ever.iter().copied())
    }

    /// A share that is here and, in a durable pool, on disk.
    pub fn share(&self, message: MessageId, index: NonZeroU8) -> Option<&Bytes> {
        let slot = self.entries.get(&message)?.slots.get(&index)?;
        slot.share().filter(|_| !slot.pending)
    }

    /// Whether a message is known to have ended.
    pub fn is_ended(&self, message: MessageId) -> bool {
        self.frame.tombstones.get(message).is_some()
    }
}
