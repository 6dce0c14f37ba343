//! What a durable collector keeps on disk, and how it comes back.

use core::num::NonZeroU8;
use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::MessageId;

use super::{Collector, End, Queued, Timer, waits};
use crate::announcement::{Announcement, Digest};
use crate::codec::{Reader, Writer};
use crate::config::CollectorConfig;
use crate::event::CollectorEvent;
use crate::gathering::Gathering;
use crate::journal::Key;
use crate::pool::Restored;
use crate::storage::{Anchor, OpId, Persist, StorageError};
use crate::timers::after;

/// The first octet of a collector's keys.
pub(super) const SPACE: u8 = b'c';

impl Collector {
    /// The keys of a collector's records begin with this.
    pub const RECORDS: &'static [u8] = &[SPACE];

    /// A durable collector with what an earlier one left on disk, as
    /// [`Pool::restore`](crate::Pool::restore). Messages of which k shares are there are completed
    /// at once ([`CollectorEvent::Complete`]); what was settled as delivered is not.
    pub fn restore(
        config: CollectorConfig,
        anchor: Anchor,
        records: impl IntoIterator<Item = (Bytes, Bytes)>,
        digest: impl Fn(&[u8]) -> Digest,
    ) -> (Collector, Restored) {
        let mut bob = Collector::with_journal(config, Some(anchor));
        let now = anchor.at;
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
                Key::Tombstone(message) => bob
                    .restore_tombstone(anchor, message, value, &mut report)
                    .is_some(),
            };
            if !good {
                report.damaged += 1;
                bob.frame.journal.mark(key);
            }
        }
        for (announcement, expires, hearsay) in entries {
            let message = announcement.message;
            let left = anchor.until(expires).min(bob.config.ttl);
            if bob.frame.tombstones.get(message).is_some() {
                bob.frame.journal.mark(Key::Entry(message));
                continue;
            }
            if left.is_zero() {
                // Ended at once, with its event.
                report.expired += 1;
                bob.resume(now, now, announcement, hearsay);
                bob.handle_timeout(now);
                for (index, _) in shares.remove(&message).unwrap_or_default() {
                    bob.frame.journal.mark(Key::Share(message, index));
                }
                continue;
            }
            report.messages += 1;
            bob.resume(now, after(now, left), announcement, hearsay);
            for (index, octets) in shares.remove(&message).unwrap_or_default() {
                let digest = digest(&octets);
                if bob.keep_restored(now, message, index, octets, digest) {
                    report.shares += 1;
                } else {
                    report.damaged += 1;
                    bob.frame.journal.mark(Key::Share(message, index));
                }
            }
            bob.complete(message);
            bob.ask(now, message, false);
        }
        for (message, orphans) in shares {
            for (index, _) in orphans {
                report.damaged += 1;
                bob.frame.journal.mark(Key::Share(message, index));
            }
        }
        (bob, report)
    }

    fn resume(
        &mut self,
        now: Instant,
        expires: Instant,
        announcement: Announcement,
        hearsay: bool,
    ) {
        let message = announcement.message;
        let waits = waits(&self.estimator, &self.paths, 0, None);
        self.ledger
            .count(announcement.sender, 1, announcement.cost());
        self.frame.timers.set(Timer::Expire(message), expires);
        for share in &announcement.shares {
            self.by_holder.insert((share.holder, message));
        }
        let mut gathering = Gathering::new(now, announcement, waits);
        gathering.hearsay = hearsay;
        self.gatherings.insert(message, gathering);
    }

    fn keep_restored(
        &mut self,
        now: Instant,
        message: MessageId,
        index: NonZeroU8,
        octets: Bytes,
        digest: Digest,
    ) -> bool {
        let Some(gathering) = self.gatherings.get_mut(&message) else {
            return false;
        };
        let listed = gathering.announcement.find(index);
        if listed.is_none_or(|share| share.digest != digest) {
            return false;
        }
        let (sender, len) = (gathering.announcement.sender, octets.len() as u64);
        self.ledger.count(sender, 0, len);
        gathering.accept_restored(now, index, octets)
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
        let end = if reader.flag()? {
            End::Delivered
        } else {
            End::Given
        };
        reader.finish()?;
        let left = anchor.until(until).min(self.frame.tombstones.ttl());
        if left.is_zero() {
            self.frame.journal.mark(Key::Tombstone(message));
            return Some(());
        }
        report.ended += 1;
        let until = after(anchor.at, left);
        let stones = &mut self.frame.tombstones;
        for gone in stones.insert_until(until, message, sender, end) {
            self.frame.journal.mark(Key::Tombstone(gone));
        }
        Some(())
    }

    /// The next batch for the store, as [`Pool::poll_persist`](crate::Pool::poll_persist).
    #[must_use]
    pub fn poll_persist(&mut self) -> Option<Persist> {
        let anchor = self.frame.journal.anchor()?;
        let (gatherings, timers) = (&self.gatherings, &self.frame.timers);
        let tombstones = &self.frame.tombstones;
        self.frame.journal.poll(|key| match key {
            Key::Entry(message) => {
                let expires = anchor.unix_ms(timers.at(Timer::Expire(message))?);
                let gathering = gatherings.get(&message)?;
                let mut writer = Writer::new();
                writer.u64(expires);
                writer.announcement(&gathering.announcement);
                writer.u8(u8::from(gathering.hearsay));
                Some(writer.finish())
            }
            Key::Share(message, index) => gatherings.get(&message)?.octets_of(index),
            Key::Tombstone(message) => {
                let (sender, until, end) = tombstones.record(message)?;
                let mut writer = Writer::new();
                writer.u64(anchor.unix_ms(until));
                writer.node(sender);
                writer.u8(u8::from(*end == End::Delivered));
                Some(writer.finish())
            }
        })
    }

    /// The batch is durable: delivered messages in it are [`CollectorEvent::Settled`].
    pub fn handle_persisted(&mut self, op: OpId) {
        for key in self.frame.journal.persisted(op) {
            let Key::Tombstone(message) = key else {
                continue;
            };
            let stone = self.frame.tombstones.get(message);
            if matches!(stone, Some((_, End::Delivered))) && self.frame.journal.is_clean(key) {
                self.events
                    .push_back(Queued::Plain(CollectorEvent::Settled { message }));
            }
        }
    }

    /// The batch is not durable. It is written again after a pause; until then shares live in memory
    /// and deliveries are not settled.
    pub fn handle_persist_failed(&mut self, now: Instant, op: OpId, reason: StorageError) {
        self.handle_timeout(now);
        self.frame.journal.failed(now, op, reason);
    }

    /// Whether a message was delivered and that is on disk, so that it may be acknowledged. In a
    /// collector that lives in memory every delivered message is.
    pub fn is_settled(&self, message: MessageId) -> bool {
        let stone = self.frame.tombstones.get(message);
        matches!(stone, Some((_, End::Delivered)))
            && self.frame.journal.is_clean(Key::Tombstone(message))
    }

    /// Why the store failed last, until it is tried again.
    pub fn storage_failure(&self) -> Option<StorageError> {
        self.frame.journal.failure()
    }
}

fn read_entry(message: MessageId, value: Bytes) -> Option<(Announcement, u64, bool)> {
    let mut reader = Reader::new(value)?;
    let expires = reader.u64()?;
    let announcement = reader.announcement()?;
    let hearsay = reader.flag()?;
    reader.finish()?;
    (announcement.message == message).then_some((announcement, expires, hearsay))
}
