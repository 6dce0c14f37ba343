//! The sender's machine: messages under way, until every receiver has them.

mod persist;

use core::fmt;
use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::{Announcement, Standing};
use crate::error::{AddError, Bound, QuotaError};
use crate::journal::{Journal, Key};
use crate::ledger::{Ledger, Usage};
use crate::storage::{Anchor, StorageError};
use crate::timers::{Timers, after};

/// Configuration of an [`Outbox`]. Octets count as in [`PoolConfig`](crate::PoolConfig).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxConfig {
    /// This node: the sender of every message here.
    pub local: NodeId,
    /// Messages under way. Default 8,192.
    pub max_messages: u64,
    /// Octets under way. Default 256 MiB.
    pub max_octets: u64,
    /// How long a message is tried. Default 7 days.
    pub ttl: Duration,
    /// How long after a share was given to its holder without a confirmation it is given again,
    /// and how long after that the receivers that have not acknowledged are told again. Doubles
    /// each time, up to 64 times this. Default 2 s.
    pub retry: Duration,
}

impl OutboxConfig {
    /// The defaults for node `local`.
    pub fn new(local: NodeId) -> Self {
        OutboxConfig {
            local,
            max_messages: 8192,
            max_octets: 256 << 20,
            ttl: Duration::from_secs(7 * 24 * 3600),
            retry: Duration::from_secs(2),
        }
    }
}

/// Why a message was not taken. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The announcement is not this node's, contradicts itself or what was announced before.
    #[error(transparent)]
    Announcement(#[from] AddError),
    /// A listed share was not given, or one was given that is not listed.
    #[error("share {index} is listed or given, but not both")]
    Shares {
        /// The share.
        index: NonZeroU8,
    },
    /// The message is not under way.
    #[error("message {message} is not under way")]
    Unknown {
        /// The message.
        message: MessageId,
    },
    /// The version is not above that of the placement in force.
    #[error("placement {version} does not replace placement {known}")]
    Version {
        /// The version given.
        version: u32,
        /// The version in force.
        known: u32,
    },
    /// A bound is reached.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The store did not take an earlier message and is not tried again yet.
    #[error("the message cannot be kept: {0}")]
    Storage(StorageError),
}

/// What an [`Outbox`] asks for or reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxEvent {
    /// Tell `to`, a holder or receiver, the [announcement](Outbox::announcement) as it is now.
    Announce {
        /// The message.
        message: MessageId,
        /// Whom to tell.
        to: NodeId,
    },
    /// Give `to` its [share](Outbox::share).
    Give {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Its holder.
        to: NodeId,
    },
    /// Every listed share is confirmed by its holder: the sender may leave.
    Placed {
        /// The message.
        message: MessageId,
    },
    /// A receiver has the message.
    Delivered {
        /// The message.
        message: MessageId,
        /// The receiver.
        receiver: NodeId,
    },
    /// All receivers have the message, it was withdrawn or its time is over: tell `holders` to
    /// remove it.
    Ended {
        /// The message.
        message: MessageId,
        /// How.
        how: Outcome,
        /// Everyone that may keep something of it.
        holders: Vec<NodeId>,
    },
}

/// How a message ended at its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All receivers have it.
    Delivered,
    /// The sender withdrew it.
    Revoked,
    /// Its time is over.
    Expired,
    /// The store did not take it: nothing was promised and nothing sent.
    NotStored(StorageError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Expire(MessageId),
    Retry(MessageId),
}

#[derive(Clone)]
struct Sent {
    announcement: Announcement,
    shares: BTreeMap<NonZeroU8, Bytes>,
    confirmed: BTreeSet<NonZeroU8>,
    delivered: BTreeSet<NodeId>,
    /// Everyone that was ever a holder.
    holders: BTreeSet<NodeId>,
    tries: u8,
    /// On disk, or in an outbox that lives in memory.
    stored: bool,
    placed: bool,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.shares.iter().map(|(i, share)| (i.get(), share.len()));
        f.debug_struct("Sent")
            .field("announcement", &self.announcement)
            .field("octets", &octets.collect::<Vec<_>>())
            .field("confirmed", &self.confirmed)
            .field("delivered", &self.delivered)
            .field("stored", &self.stored)
            .finish()
    }
}

impl Sent {
    fn octets(&self) -> u64 {
        let shares: u64 = self.shares.values().map(|share| share.len() as u64).sum();
        self.announcement.cost() + shares
    }

    /// Shares that their holder has not confirmed. This node's own need no confirmation.
    fn open(&self, local: NodeId) -> impl Iterator<Item = (NonZeroU8, NodeId)> + '_ {
        self.announcement
            .shares
            .iter()
            .filter(move |share| share.holder != local && !self.confirmed.contains(&share.index))
            .map(|share| (share.index, share.holder))
    }
}

/// What this node sends and has not seen arrive: which share is to be where, who has confirmed
/// what, which receivers have the message. It asks for announcements and shares to be repeated
/// until they are confirmed, also after a restart.
///
/// Nothing is sent before it is on disk, so a message that was once begun is finished, withdrawn or
/// reported as expired.
#[derive(Debug, Clone)]
pub struct Outbox {
    config: OutboxConfig,
    messages: BTreeMap<MessageId, Sent>,
    ledger: Ledger,
    timers: Timers<Timer>,
    journal: Journal,
    events: VecDeque<OutboxEvent>,
}

impl Outbox {
    /// An empty outbox that lives in memory. [`restore`](Self::restore) makes a durable one.
    pub fn new(config: OutboxConfig) -> Self {
        Outbox::with_journal(config, None)
    }

    fn with_journal(config: OutboxConfig, anchor: Option<Anchor>) -> Self {
        Outbox {
            messages: BTreeMap::new(),
            ledger: Ledger::new(
                (
                    (Bound::Entries, config.max_messages),
                    (Bound::EntriesOfSender, config.max_messages),
                ),
                (
                    (Bound::Octets, config.max_octets),
                    (Bound::OctetsOfSender, config.max_octets),
                ),
                Some(config.local),
            ),
            timers: Timers::new(),
            journal: Journal::new(persist::SPACE, anchor),
            events: VecDeque::new(),
            config,
        }
    }

    /// Begins a message: `shares` are exactly those that the announcement lists.
    ///
    /// # Errors
    ///
    /// The announcement is not this node's or is not sound, the message is under way already with
    /// another content, a share is missing, a bound, a store that is failing.
    pub fn send(
        &mut self,
        now: Instant,
        announcement: &Announcement,
        shares: BTreeMap<NonZeroU8, Bytes>,
    ) -> Result<(), SendError> {
        self.handle_timeout(now);
        self.check(announcement)?;
        let message = announcement.message;
        if let Some(known) = self.messages.get(&message) {
            known.announcement.check_update(&announcement.sorted())?;
            return Ok(());
        }
        let listed: BTreeSet<_> = announcement.shares.iter().map(|s| s.index).collect();
        let given: BTreeSet<_> = shares.keys().copied().collect();
        if let Some(&index) = listed.symmetric_difference(&given).next() {
            return Err(SendError::Shares { index });
        }
        if let Some(reason) = self.journal.failure() {
            return Err(SendError::Storage(reason));
        }
        let durable = self.journal.anchor().is_some();
        let announcement = announcement.sorted();
        let sent = Sent {
            holders: self.holders_of(&announcement),
            announcement,
            shares,
            confirmed: BTreeSet::new(),
            delivered: BTreeSet::new(),
            tries: 0,
            stored: !durable,
            placed: false,
        };
        self.ledger.charge(self.config.local, 1, sent.octets())?;
        self.timers
            .set(Timer::Expire(message), after(now, self.config.ttl));
        // Shares first: the message's own record says that it is complete.
        for index in sent.shares.keys() {
            self.journal.mark(Key::Share(message, *index));
        }
        self.journal.mark(Key::Entry(message));
        self.messages.insert(message, sent);
        if !durable {
            self.push(now, message);
        }
        Ok(())
    }

    fn check(&self, announcement: &Announcement) -> Result<(), SendError> {
        announcement.check()?;
        let sender = announcement.sender;
        let from = self.config.local;
        if sender != from {
            return Err(AddError::NotSender { from, sender }.into());
        }
        Ok(())
    }

    fn holders_of(&self, announcement: &Announcement) -> BTreeSet<NodeId> {
        let holders = announcement.shares.iter().map(|share| share.holder);
        holders
            .filter(|holder| *holder != self.config.local)
            .collect()
    }

    /// Replaces the placement of a message that is under way: shares at new holders are given there,
    /// and everyone is told.
    ///
    /// # Errors
    ///
    /// The message is not under way, the version is not higher, or something is changed that may
    /// not be; a share is listed that this outbox does not have.
    pub fn place(&mut self, now: Instant, announcement: &Announcement) -> Result<(), SendError> {
        self.handle_timeout(now);
        self.check(announcement)?;
        let message = announcement.message;
        let mut holders = self.holders_of(announcement);
        let Some(sent) = self.messages.get_mut(&message) else {
            return Err(SendError::Unknown { message });
        };
        let mut newer = announcement.sorted();
        if let Some(share) = newer
            .shares
            .iter()
            .find(|share| !sent.shares.contains_key(&share.index))
        {
            return Err(SendError::Shares { index: share.index });
        }
        if newer.version <= sent.announcement.version
            || sent.announcement.check_update(&newer)? == Standing::Stale
        {
            return Err(SendError::Version {
                version: newer.version,
                known: sent.announcement.version,
            });
        }
        newer.keep_active(&sent.announcement);
        let more = newer.cost().saturating_sub(sent.announcement.cost());
        self.ledger.charge(self.config.local, 0, more)?;
        for share in &newer.shares {
            let old = sent.announcement.find(share.index);
            if old.is_none_or(|old| old.holder != share.holder) {
                sent.confirmed.remove(&share.index);
            }
        }
        sent.holders.append(&mut holders);
        sent.announcement = newer;
        sent.tries = 0;
        sent.placed = false;
        self.journal.mark(Key::Entry(message));
        if sent.stored {
            self.push(now, message);
        }
        Ok(())
    }

    /// A holder has confirmed that it keeps a share. Returns whether that was expected of it.
    pub fn confirmed(
        &mut self,
        now: Instant,
        message: MessageId,
        index: NonZeroU8,
        by: NodeId,
    ) -> bool {
        self.handle_timeout(now);
        let local = self.config.local;
        let Some(sent) = self.messages.get_mut(&message) else {
            return false;
        };
        let listed = sent.announcement.find(index);
        if listed.is_none_or(|share| share.holder != by) {
            return false;
        }
        if sent.confirmed.insert(index) {
            self.journal.mark(Key::Entry(message));
        }
        let placed = sent.open(local).next().is_none();
        if placed && !core::mem::replace(&mut sent.placed, true) {
            self.events.push_back(OutboxEvent::Placed { message });
        }
        true
    }

    /// A receiver has the message. Returns whether it is one of its receivers.
    pub fn acknowledged(&mut self, now: Instant, message: MessageId, by: NodeId) -> bool {
        self.handle_timeout(now);
        let Some(sent) = self.messages.get_mut(&message) else {
            return false;
        };
        if !sent.announcement.is_receiver(by) {
            return false;
        }
        if sent.delivered.insert(by) {
            self.journal.mark(Key::Entry(message));
            let receiver = by;
            self.events
                .push_back(OutboxEvent::Delivered { message, receiver });
            let delivered = &sent.delivered;
            let open = |receiver: &NodeId| !delivered.contains(receiver);
            let all = sent.announcement.receivers().find(open).is_none();
            if all {
                self.end(message, Outcome::Delivered);
            }
        }
        true
    }

    /// Withdraws a message. Returns whether it was under way.
    pub fn revoke(&mut self, now: Instant, message: MessageId) -> bool {
        self.handle_timeout(now);
        self.end(message, Outcome::Revoked)
    }

    /// `peer` can be reached again: what it has not confirmed, and what it may not have heard, is
    /// sent at once. Linear in the number of messages.
    pub fn reachable(&mut self, now: Instant, peer: NodeId) {
        self.handle_timeout(now);
        let about: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, sent)| {
                let waits = sent.announcement.is_receiver(peer) && !sent.delivered.contains(&peer);
                sent.stored && (waits || sent.announcement.placed_at(peer).next().is_some())
            })
            .map(|(message, _)| *message)
            .collect();
        for message in about {
            self.push_to(message, Some(peer));
        }
    }

    /// Asks for everything that is open to be sent, and sets the time to repeat that.
    fn push(&mut self, now: Instant, message: MessageId) {
        self.push_to(message, None);
        let Some(sent) = self.messages.get_mut(&message) else {
            return;
        };
        let wait = self.config.retry.saturating_mul(1 << sent.tries.min(6));
        sent.tries = sent.tries.saturating_add(1);
        self.timers.set(Timer::Retry(message), after(now, wait));
    }

    fn push_to(&mut self, message: MessageId, only: Option<NodeId>) {
        let local = self.config.local;
        let Some(sent) = self.messages.get(&message) else {
            return;
        };
        let wanted = |node: &NodeId| *node != local && only.is_none_or(|only| only == *node);
        let waiting = sent.announcement.receivers();
        let waiting = waiting.filter(|receiver| !sent.delivered.contains(receiver));
        // Once every share is placed, only the receivers may not have heard: a receiver that was
        // killed, or whose ACK was lost with a restart, is reached by this alone.
        let holders = sent
            .holders
            .iter()
            .filter(|_| only.is_some() || !sent.placed);
        let told: BTreeSet<_> = waiting.chain(holders.copied()).filter(wanted).collect();
        for to in told {
            self.events.push_back(OutboxEvent::Announce { message, to });
        }
        for (index, to) in sent.open(local).filter(|(_, to)| wanted(to)) {
            self.events
                .push_back(OutboxEvent::Give { message, index, to });
        }
    }

    fn end(&mut self, message: MessageId, how: Outcome) -> bool {
        let Some(sent) = self.messages.remove(&message) else {
            return false;
        };
        self.ledger.refund(self.config.local, 1, sent.octets());
        self.timers.cancel(Timer::Expire(message));
        self.timers.cancel(Timer::Retry(message));
        self.journal.mark(Key::Entry(message));
        for index in sent.shares.keys() {
            self.journal.mark(Key::Share(message, *index));
        }
        let holders = if sent.stored {
            sent.holders.into_iter().collect()
        } else {
            Vec::new()
        };
        self.events.push_back(OutboxEvent::Ended {
            message,
            how,
            holders,
        });
        true
    }

    /// The next event, if any. What was overtaken is left out.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<OutboxEvent> {
        while let Some(event) = self.events.pop_front() {
            let current = match &event {
                OutboxEvent::Announce { message, .. } => self.messages.contains_key(message),
                OutboxEvent::Give { message, index, to } => {
                    let sent = self.messages.get(message);
                    sent.is_some_and(|sent| {
                        sent.open(self.config.local).any(|o| o == (*index, *to))
                    })
                }
                _ => true,
            };
            if current {
                return Some(event);
            }
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let both = [self.timers.next(), self.journal.next()];
        both.into_iter().flatten().min()
    }

    /// Does what is due: gives shares again, expires.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.journal.handle_timeout(now);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Expire(message) => {
                    self.end(message, Outcome::Expired);
                }
                Timer::Retry(message) => self.push(now, message),
            }
        }
    }

    /// The placement of a message that is under way.
    pub fn announcement(&self, message: MessageId) -> Option<&Announcement> {
        self.messages.get(&message).map(|sent| &sent.announcement)
    }

    /// A share of a message that is under way.
    pub fn share(&self, message: MessageId, index: NonZeroU8) -> Option<Bytes> {
        self.messages.get(&message)?.shares.get(&index).cloned()
    }

    /// The messages under way, in id order.
    pub fn messages(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.messages.keys().copied()
    }

    /// The receivers that have a message that is under way.
    pub fn delivered_to(&self, message: MessageId) -> impl Iterator<Item = NodeId> + '_ {
        let sent = self.messages.get(&message);
        sent.into_iter()
            .flat_map(|sent| sent.delivered.iter().copied())
    }

    /// How much is under way.
    pub fn usage(&self) -> Usage {
        self.ledger.usage()
    }
}
