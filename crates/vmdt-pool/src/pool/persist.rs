//! What a durable pool keeps on disk, and how it comes back.

use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use super::{Pool, Timer};
use crate::announcement::{Announcement, Digest};
use crate::codec::{Reader, Writer};
use crate::config::PoolConfig;
use crate::entry::{Entry, Slot};
use crate::error::StoreError;
use crate::event::PoolEvent;
use crate::journal::Key;
use crate::state::ShareState;
use crate::storage::{Anchor, OpId, Persist, StorageError};
use crate::timers::after;

/// The first octet of a pool's keys.
pub(super) const SPACE: u8 = b'p';

/// What [`Pool::restore`] and its like found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Messages that are there again.
    pub messages: usize,
    /// Shares that are there again.
    pub shares: usize,
    /// Messages that are known to have ended.
    pub ended: usize,
    /// Messages whose time ended meanwhile.
    pub expired: usize,
    /// Records that cannot be read, shares that do not match their digest or belong to nothing.
    /// They will be removed.
    pub damaged: usize,
}

impl Pool {
    /// The keys of a pool's records begin with this.
    pub const RECORDS: &'static [u8] = &[SPACE];

    /// A durable pool with what an earlier one left on disk: `records` are all keys and values that
    /// begin with [`RECORDS`](Self::RECORDS) (others are passed over), `digest` is how the caller
    /// computes digests. With no records it is empty.
    ///
    /// Everything that was confirmed is there again, and nothing that was not confirmed is relied
    /// on. Active shares are offered anew, with fresh leases. What is over the bounds of `config`
    /// stays; only what is new is refused. The state of damaged records is what it would be had
    /// they never been written.
    pub fn restore(
        config: PoolConfig,
        anchor: Anchor,
        records: impl IntoIterator<Item = (Bytes, Bytes)>,
        digest: impl Fn(&[u8]) -> Digest,
    ) -> (Pool, Restored) {
        let mut pool = Pool::with_journal(config, Some(anchor));
        let mut report = Restored::default();
        let mut shares: BTreeMap<MessageId, Vec<(NonZeroU8, Bytes)>> = BTreeMap::new();
        let mut entries = Vec::new();
        for (name, value) in records {
            if name.first() != Some(&SPACE) {
                continue;
            }
            let Some(key) = Key::read(SPACE, &name) else {
                report.damaged += 1;
                continue;
            };
            let good = match key {
                Key::Share(message, index) => {
                    shares.entry(message).or_default().push((index, value));
                    true
                }
                Key::Entry(message) => read_entry(message, value)
                    .map(|entry| entries.push(entry))
                    .is_some(),
                Key::Tombstone(message) => pool
                    .restore_tombstone(anchor, message, value, &mut report)
                    .is_some(),
            };
            if !good {
                report.damaged += 1;
                pool.frame.journal.mark(key);
            }
        }
        for (mut entry, expires, unfrozen) in entries {
            let message = entry.announcement.message;
            let left = anchor.until(expires).min(pool.config.ttl);
            if pool.frame.tombstones.get(message).is_some() {
                pool.frame.journal.mark(Key::Entry(message));
                continue;
            }
            let mut kept = 0;
            for (index, octets) in shares.remove(&message).unwrap_or_default() {
                let matching = entry.announcement.find(index);
                let matching = matching.is_some_and(|share| share.digest == digest(&octets));
                match entry.slots.get_mut(&index).filter(|_| matching) {
                    Some(slot) => {
                        slot.arrive(octets);
                        kept += 1;
                    }
                    None => {
                        report.damaged += 1;
                        pool.frame.journal.mark(Key::Share(message, index));
                    }
                }
            }
            for (index, receiver) in unfrozen {
                entry.unfreeze(index, Some(receiver));
            }
            if left.is_zero() {
                report.expired += 1;
                pool.resume(anchor.at, anchor.at, message, entry);
            } else {
                report.messages += 1;
                report.shares += kept;
                pool.resume(anchor.at, after(anchor.at, left), message, entry);
            }
        }
        pool.handle_timeout(anchor.at);
        for (message, orphans) in shares {
            for (index, _) in orphans {
                report.damaged += 1;
                pool.frame.journal.mark(Key::Share(message, index));
            }
        }
        (pool, report)
    }

    fn restore_tombstone(
        &mut self,
        anchor: Anchor,
        message: MessageId,
        value: Bytes,
        report: &mut Restored,
    ) -> Option<()> {
        let mut reader = Reader::new(value)?;
        let (until, sender) = (reader.u64()?, reader.node()?);
        let receivers = reader.nodes()?;
        reader.finish()?;
        let left = anchor.until(until).min(self.frame.tombstones.ttl());
        if left.is_zero() {
            self.frame.journal.mark(Key::Tombstone(message));
            return Some(());
        }
        report.ended += 1;
        let until = after(anchor.at, left);
        let stones = &mut self.frame.tombstones;
        for gone in stones.insert_until(until, message, sender, receivers.into()) {
            self.frame.journal.mark(Key::Tombstone(gone));
        }
        Some(())
    }

    /// Takes a restored entry in, and offers what is active.
    fn resume(&mut self, now: Instant, expires: Instant, message: MessageId, entry: Entry) {
        self.ledger
            .count(entry.announcement.sender, 1, entry.octets());
        self.frame.timers.set(Timer::Entry(message), expires);
        let offers: Vec<_> = entry
            .slots
            .iter()
            .flat_map(|(index, slot)| slot.deliveries().map(move |d| (*index, d)))
            .filter(|(_, (_, delivery))| delivery.is_offerable())
            .map(|(index, (receiver, _))| (index, receiver))
            .collect();
        self.entries.insert(message, entry);
        for (index, receiver) in offers {
            self.apply(now, message, index, receiver, crate::state::Effect::Offer);
        }
    }

    /// The next batch for the store, if something is to be written and no batch is out. Ask after
    /// every request and timeout; in a pool that lives in memory there is never one.
    #[must_use]
    pub fn poll_persist(&mut self) -> Option<Persist> {
        let anchor = self.frame.journal.anchor()?;
        let (entries, timers) = (&self.entries, &self.frame.timers);
        let tombstones = &self.frame.tombstones;
        self.frame.journal.poll(|key| match key {
            Key::Entry(message) => {
                let expires = anchor.unix_ms(timers.at(Timer::Entry(message))?);
                Some(write_entry(entries.get(&message)?, expires))
            }
            Key::Share(message, index) => {
                entries.get(&message)?.slots.get(&index)?.share().cloned()
            }
            Key::Tombstone(message) => {
                let (sender, until, receivers) = tombstones.record(message)?;
                let mut writer = Writer::new();
                writer.u64(anchor.unix_ms(until));
                writer.node(sender);
                writer.nodes(receivers.iter().copied());
                Some(writer.finish())
            }
        })
    }

    /// The batch is durable: shares in it are confirmed by [`PoolEvent::Stored`].
    pub fn handle_persisted(&mut self, op: OpId) {
        for key in self.frame.journal.persisted(op) {
            let Key::Share(message, index) = key else {
                continue;
            };
            let again = self.frame.journal.is_queued(key);
            let Some(entry) = self.entries.get_mut(&message) else {
                continue;
            };
            let from = entry.announcement.sender;
            if let Some(slot) = entry.slots.get_mut(&index)
                && !again
                && core::mem::take(&mut slot.pending)
            {
                self.events.push_back(PoolEvent::Stored {
                    message,
                    index,
                    from,
                });
            }
        }
    }

    /// The batch is not durable. Shares that were not confirmed are given up, those of the batch and
    /// those that waited for the next one ([`PoolEvent::StoreFailed`]); everything else is written
    /// again after a pause, during which no share is taken.
    pub fn handle_persist_failed(&mut self, now: Instant, op: OpId, reason: StorageError) {
        self.handle_timeout(now);
        if self.frame.journal.failed(now, op, reason).is_empty() {
            return;
        }
        let keys: Vec<Key> = self.frame.journal.queued().collect();
        for key in keys {
            let Key::Share(message, index) = key else {
                continue;
            };
            let Some(entry) = self.entries.get_mut(&message) else {
                continue;
            };
            let from = entry.announcement.sender;
            let Some(slot) = entry.slots.get_mut(&index).filter(|slot| slot.pending) else {
                continue;
            };
            self.ledger.refund(from, 0, slot.vanish());
            for (receiver, _) in slot.deliveries() {
                let timer = Timer::Share(message, index, receiver);
                self.frame.timers.cancel(timer);
            }
            self.events.push_back(PoolEvent::StoreFailed {
                message,
                index,
                from,
                reason: StoreError::Storage(reason),
            });
        }
    }

    /// Whether everything is on disk. A pool that lives in memory always says so.
    pub fn is_settled(&self) -> bool {
        self.frame.journal.is_settled()
    }

    /// Why the store failed last, until it is tried again.
    pub fn storage_failure(&self) -> Option<StorageError> {
        self.frame.journal.failure()
    }
}

fn write_entry(entry: &Entry, expires: u64) -> Bytes {
    let mut writer = Writer::new();
    writer.u64(expires);
    writer.announcement(&entry.announcement);
    writer.indices(entry.ever.iter().copied());
    writer.nodes(entry.done.iter().copied());
    // Which of the shares placed here are to go to whom.
    writer.u8(u8::try_from(entry.slots.len()).unwrap_or(u8::MAX));
    for (index, slot) in &entry.slots {
        let unfrozen = slot
            .deliveries()
            .filter(|(_, delivery)| delivery.state() != ShareState::Frozen);
        writer.u8(index.get());
        writer.nodes(unfrozen.map(|(receiver, _)| receiver));
    }
    writer.finish()
}

type Unfrozen = Vec<(NonZeroU8, NodeId)>;

fn read_entry(message: MessageId, value: Bytes) -> Option<(Entry, u64, Unfrozen)> {
    let mut reader = Reader::new(value)?;
    let expires = reader.u64()?;
    let announcement: Announcement = reader.announcement()?;
    (announcement.message == message).then_some(())?;
    let ever = reader.indices()?.into_iter().collect();
    let done: BTreeSet<NodeId> = reader.nodes()?.into_iter().collect();
    let (mut slots, mut unfrozen) = (BTreeMap::new(), Vec::new());
    for _ in 0..reader.u8()? {
        let index = reader.index()?;
        let open = announcement
            .receivers()
            .filter(|receiver| !done.contains(receiver));
        slots.insert(index, Slot::new(false, open));
        unfrozen.extend(reader.nodes()?.into_iter().map(|node| (index, node)));
    }
    reader.finish()?;
    let entry = Entry {
        announcement,
        slots,
        ever,
        done,
    };
    Some((entry, expires, unfrozen))
}
