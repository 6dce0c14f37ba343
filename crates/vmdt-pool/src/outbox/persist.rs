//! What a durable outbox keeps on disk, and how it comes back.

use core::num::NonZeroU8;
use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::MessageId;

use super::{Outbox, OutboxConfig, Outcome, Sent, Timer};
use crate::announcement::Digest;
use crate::codec::{Reader, Writer};
use crate::journal::Key;
use crate::pool::Restored;
use crate::storage::{Anchor, OpId, Persist, StorageError};
use crate::timers::after;

/// The first octet of an outbox's keys.
pub(super) const SPACE: u8 = b'o';

impl Outbox {
    /// The keys of an outbox's records begin with this.
    pub const RECORDS: &'static [u8] = &[SPACE];

    /// A durable outbox with what an earlier one left on disk, as
    /// [`Pool::restore`](crate::Pool::restore). What is open is asked for at once.
    pub fn restore(
        config: OutboxConfig,
        anchor: Anchor,
        records: impl IntoIterator<Item = (Bytes, Bytes)>,
        digest: impl Fn(&[u8]) -> Digest,
    ) -> (Outbox, Restored) {
        let mut outbox = Outbox::with_journal(config, Some(anchor));
        let mut report = Restored::default();
        let mut shares: BTreeMap<MessageId, BTreeMap<NonZeroU8, Bytes>> = BTreeMap::new();
        let mut entries = Vec::new();
        for (name, value) in records {
            if name.first() != Some(&SPACE) {
                continue;
            }
            match Key::read(SPACE, &name) {
                Some(Key::Share(message, index)) => {
                    shares.entry(message).or_default().insert(index, value);
                }
                Some(key @ Key::Entry(message)) => match read_sent(message, value) {
                    Some(entry) => entries.push(entry),
                    None => {
                        report.damaged += 1;
                        outbox.journal.mark(key);
                    }
                },
                Some(key @ Key::Tombstone(_)) => {
                    report.damaged += 1;
                    outbox.journal.mark(key);
                }
                None => report.damaged += 1,
            }
        }
        for (mut sent, expires) in entries {
            let message = sent.announcement.message;
            sent.shares = shares.remove(&message).unwrap_or_default();
            let complete = sent.announcement.shares.iter().all(|share| {
                let octets = sent.shares.get(&share.index);
                octets.is_some_and(|octets| digest(octets) == share.digest)
            });
            if !complete || sent.announcement.sender != config.local {
                // Without its shares a message cannot be given again.
                report.damaged += 1 + sent.shares.len();
                outbox.journal.mark(Key::Entry(message));
                for index in sent.shares.keys() {
                    outbox.journal.mark(Key::Share(message, *index));
                }
                continue;
            }
            let left = anchor.until(expires).min(config.ttl);
            let (messages, count) = (usize::from(!left.is_zero()), sent.shares.len());
            report.messages += messages;
            report.shares += count * messages;
            report.expired += 1 - messages;
            outbox.resume(anchor.at, left, sent);
        }
        for (message, orphans) in shares {
            for index in orphans.into_keys() {
                report.damaged += 1;
                outbox.journal.mark(Key::Share(message, index));
            }
        }
        outbox.handle_timeout(anchor.at);
        (outbox, report)
    }

    fn resume(&mut self, now: Instant, left: std::time::Duration, sent: Sent) {
        let message = sent.announcement.message;
        self.ledger.count(self.config.local, 1, sent.octets());
        let expires = if left.is_zero() {
            now
        } else {
            after(now, left)
        };
        self.timers.set(Timer::Expire(message), expires);
        self.messages.insert(message, sent);
        if !left.is_zero() {
            self.push(now, message);
        }
    }

    /// The next batch for the store, as [`Pool::poll_persist`](crate::Pool::poll_persist).
    #[must_use]
    pub fn poll_persist(&mut self) -> Option<Persist> {
        let anchor = self.journal.anchor()?;
        let (messages, timers) = (&self.messages, &self.timers);
        self.journal.poll(|key| match key {
            Key::Entry(message) => {
                let expires = anchor.unix_ms(timers.at(Timer::Expire(message))?);
                Some(write_sent(messages.get(&message)?, expires))
            }
            Key::Share(message, index) => messages.get(&message)?.shares.get(&index).cloned(),
            Key::Tombstone(_) => None,
        })
    }

    /// The batch is durable: messages in it are sent now.
    pub fn handle_persisted(&mut self, now: Instant, op: OpId) {
        self.handle_timeout(now);
        for key in self.journal.persisted(op) {
            let Key::Entry(message) = key else {
                continue;
            };
            let sent = self.messages.get_mut(&message);
            if sent.is_some_and(|sent| !core::mem::replace(&mut sent.stored, true)) {
                self.push(now, message);
            }
        }
    }

    /// The batch is not durable. Messages that were to begin with it, or with the next one, end
    /// with [`Outcome::NotStored`]; everything else is written again after a pause.
    pub fn handle_persist_failed(&mut self, now: Instant, op: OpId, reason: StorageError) {
        self.handle_timeout(now);
        if self.journal.failed(now, op, reason).is_empty() {
            return;
        }
        let new: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, sent)| !sent.stored)
            .map(|(message, _)| *message)
            .collect();
        for message in new {
            self.end(message, Outcome::NotStored(reason));
        }
    }

    /// Whether a message is on disk, so that its sender may rely on it.
    pub fn is_stored(&self, message: MessageId) -> bool {
        let sent = self.messages.get(&message);
        sent.is_some_and(|sent| sent.stored)
    }
}

fn write_sent(sent: &Sent, expires: u64) -> Bytes {
    let mut writer = Writer::new();
    writer.u64(expires);
    writer.announcement(&sent.announcement);
    writer.indices(sent.confirmed.iter().copied());
    writer.nodes(sent.delivered.iter().copied());
    writer.nodes(sent.holders.iter().copied());
    writer.finish()
}

fn read_sent(message: MessageId, value: Bytes) -> Option<(Sent, u64)> {
    let mut reader = Reader::new(value)?;
    let expires = reader.u64()?;
    let announcement = reader.announcement()?;
    (announcement.message == message).then_some(())?;
    let sent = Sent {
        announcement,
        shares: BTreeMap::new(),
        confirmed: reader.indices()?.into_iter().collect(),
        delivered: reader.nodes()?.into_iter().collect(),
        holders: reader.nodes()?.into_iter().collect(),
        tries: 0,
        stored: true,
        placed: false,
    };
    reader.finish()?;
    Some((sent, expires))
}
