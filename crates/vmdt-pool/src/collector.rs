//! The receiver's machine.

use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::{Announcement, Digest};
use crate::config::CollectorConfig;
use crate::early::{EarlyKey, EarlyRequests, EarlyShares};
use crate::error::{AddError, Bound, EndError, ShareError};
use crate::estimator::Estimator;
use crate::event::{Announced, CollectorEvent, Ended, ShareOutcome};
use crate::gathering::{Ask, Gathering, Verdict};
use crate::ledger::{Ledger, Usage};
use crate::timers::{Timers, after};
use crate::tombstone::Tombstones;

/// What is remembered of an ended message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    /// Revoked or expired.
    Given,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Look for late shares.
    Look(MessageId),
    Expire(MessageId),
}

/// An event as it is queued: what is not current any more is left out when it is polled.
#[derive(Debug, Clone)]
enum Queued {
    Complete(MessageId),
    Ask(MessageId, Ask),
    Plain(CollectorEvent),
}

/// Collects the shares of messages for this node, and sees to it that k of them come.
///
/// Requests ([`announce`](Self::announce), [`share`](Self::share),
/// [`holder_lost`](Self::holder_lost), [`remove`](Self::remove), and the verdicts
/// [`delivered`](Self::delivered) and [`failed`](Self::failed)), time
/// ([`poll_timeout`](Self::poll_timeout), [`handle_timeout`](Self::handle_timeout)), events
/// ([`poll_event`](Self::poll_event)) and views. The caller's law: after any request or timeout,
/// drain the events, then ask for the deadline.
///
/// The caller vouches for who speaks: that an announcement came from its sender, and that a share
/// came from `from`.
#[derive(Debug, Clone)]
pub struct Collector {
    config: CollectorConfig,
    gatherings: BTreeMap<MessageId, Gathering>,
    by_holder: BTreeSet<(NodeId, MessageId)>,
    ledger: Ledger,
    early: EarlyShares,
    requests: EarlyRequests,
    tombstones: Tombstones<End>,
    timers: Timers<Timer>,
    estimator: Estimator,
    events: VecDeque<Queued>,
}

impl Collector {
    /// An empty collector.
    pub fn new(config: CollectorConfig) -> Self {
        Collector {
            gatherings: BTreeMap::new(),
            by_holder: BTreeSet::new(),
            ledger: Ledger::new(
                (
                    (Bound::Entries, config.max_messages),
                    (Bound::EntriesOfSender, config.max_messages_per_sender),
                ),
                (
                    (Bound::Octets, config.max_octets),
                    (Bound::OctetsOfSender, config.max_octets_per_sender),
                ),
                None,
            ),
            early: EarlyShares::new(&config.early),
            requests: EarlyRequests::new(&config.early),
            tombstones: Tombstones::new(config.max_tombstones, config.tombstone_ttl),
            timers: Timers::new(),
            estimator: Estimator::new(config.unfreeze_after),
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes an announcement; the caller has checked that it came from its sender.
    ///
    /// What may change in a re-announcement is what [`Pool::add`](crate::Pool::add) allows. A share
    /// that moves is expected anew from its new holder.
    ///
    /// # Errors
    ///
    /// The announcement is for another node, contradicts itself, comes from another sender than the
    /// first, changes what is fixed, or a bound is reached. Nothing is changed then.
    pub fn announce(
        &mut self,
        now: Instant,
        announcement: &Announcement,
    ) -> Result<Announced, AddError> {
        self.handle_timeout(now);
        announcement.check()?;
        let &Announcement {
            message,
            sender,
            receiver,
            ..
        } = announcement;
        if receiver != self.config.local {
            return Err(AddError::NotReceiver {
                receiver,
                local: self.config.local,
            });
        }
        if let Some((owner, end)) = self.tombstones.get(message) {
            if owner != sender {
                return Err(AddError::ForeignSender {
                    message,
                    from: sender,
                });
            }
            return Ok(match end {
                End::Delivered => Announced::AlreadyDelivered,
                End::Given => Announced::Ended,
            });
        }
        let wait = self.estimator.wait();
        let mut newer = announcement.sorted();
        let outcome = if let Some(known) = self.gatherings.get_mut(&message) {
            known.announcement.check_update(&newer)?;
            newer.keep_active(&known.announcement);
            if newer == known.announcement {
                return Ok(Announced::Known);
            }
            let more = newer.cost().saturating_sub(known.announcement.cost());
            self.ledger.charge(sender, 0, more)?;
            for share in &known.announcement.shares {
                self.by_holder.remove(&(share.holder, message));
            }
            known.update(now, newer, wait);
            Announced::Updated
        } else {
            let withdrawn = |by| {
                let asked = self.requests.get(message, by);
                asked.is_some_and(|asked| asked.removed)
            };
            if withdrawn(sender) || withdrawn(receiver) {
                self.bury(now, message, sender, End::Given);
                return Ok(Announced::Ended);
            }
            self.ledger.charge(sender, 1, newer.cost())?;
            self.timers
                .set(Timer::Expire(message), after(now, self.config.ttl));
            self.gatherings
                .insert(message, Gathering::new(now, newer, wait));
            Announced::New
        };
        for share in &announcement.shares {
            self.by_holder.insert((share.holder, message));
        }
        self.take_early(now, message);
        self.complete(message);
        self.ask(now, message, false);
        Ok(outcome)
    }

    fn take_early(&mut self, now: Instant, message: MessageId) {
        let waiting: Vec<EarlyKey> = self.early.keys(message).collect();
        for key in waiting {
            if let Some(share) = self.early.take(message, key) {
                let (from, index, digest) = key;
                // What is refused here was never promised a place.
                let _ = self.admit(now, from, message, index, share, digest);
            }
        }
    }

    /// Takes a share; `digest` is computed by the caller over the octets of `share`. Whoever brings
    /// octets that match the announced digest brings the share; `from` matters for blame only.
    ///
    /// # Errors
    ///
    /// The announcement lists no such share; a bound is reached.
    pub fn share(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
        share: Bytes,
        digest: Digest,
    ) -> Result<ShareOutcome, ShareError> {
        self.handle_timeout(now);
        if let Some((_, end)) = self.tombstones.get(message) {
            return Ok(match end {
                End::Delivered => ShareOutcome::AlreadyDelivered,
                End::Given => ShareOutcome::Ended,
            });
        }
        if !self.gatherings.contains_key(&message) {
            self.early
                .insert(now, message, (from, index, digest), share)?;
            return Ok(ShareOutcome::Early);
        }
        let outcome = self.admit(now, from, message, index, share, digest)?;
        match outcome {
            ShareOutcome::Accepted => self.complete(message),
            ShareOutcome::Mismatch { .. } => self.ask(now, message, false),
            _ => {}
        }
        Ok(outcome)
    }

    /// Checks a share of a known message and keeps it, without drawing conclusions.
    fn admit(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
        share: Bytes,
        digest: Digest,
    ) -> Result<ShareOutcome, ShareError> {
        let Some(gathering) = self.gatherings.get_mut(&message) else {
            return Ok(ShareOutcome::Ended);
        };
        let Some(listed) = gathering.announcement.find(index) else {
            return Err(ShareError::UnknownIndex { index });
        };
        let holder = listed.holder;
        if listed.digest != digest {
            // Only the holder's own failure says that the share is not to be relied on.
            if from == holder {
                gathering.lose(index);
            }
            self.events
                .push_back(Queued::Plain(CollectorEvent::BadShare {
                    message,
                    index,
                    from,
                }));
            return Ok(ShareOutcome::Mismatch { holder });
        }
        if gathering.has(index) {
            return Ok(ShareOutcome::Duplicate);
        }
        self.ledger
            .charge(gathering.announcement.sender, 0, share.len() as u64)?;
        gathering.accept(now, index, share);
        Ok(ShareOutcome::Accepted)
    }

    /// `peer` cannot be reached any more: what it was to deliver is asked for elsewhere at once.
    /// Takes time in proportion to the messages of which `peer` holds shares.
    pub fn holder_lost(&mut self, now: Instant, peer: NodeId) {
        self.handle_timeout(now);
        let messages: Vec<_> = self
            .by_holder
            .range((peer, MessageId::ZERO)..)
            .take_while(|(holder, _)| *holder == peer)
            .map(|(_, message)| *message)
            .collect();
        for message in messages {
            let gathering = self.gatherings.get_mut(&message);
            if gathering.is_some_and(|gathering| gathering.lose_holder(peer)) {
                self.ask(now, message, false);
            }
        }
    }

    /// The sender withdraws the message, or this node gives it up; only the former is reported as
    /// [`CollectorEvent::Revoked`]. One that overtakes the announcement is remembered. A message
    /// that was delivered stays so.
    ///
    /// # Errors
    ///
    /// `by` is neither the sender nor this node; a bound.
    pub fn remove(
        &mut self,
        now: Instant,
        message: MessageId,
        by: NodeId,
    ) -> Result<Ended, EndError> {
        self.handle_timeout(now);
        if let Some((sender, _)) = self.tombstones.get(message) {
            if by != sender && by != self.config.local {
                return Err(EndError::NotOwner { by });
            }
            return Ok(Ended::Already);
        }
        if let Some(gathering) = self.gatherings.get(&message) {
            if !gathering.announcement.is_owner(by) {
                return Err(EndError::NotOwner { by });
            }
            self.end(now, message, End::Given);
            if by != self.config.local {
                self.events
                    .push_back(Queued::Plain(CollectorEvent::Revoked { message }));
            }
            return Ok(Ended::Now);
        }
        self.requests.of(now, message, by)?.removed = true;
        Ok(Ended::Early)
    }

    /// The verdict on [`CollectorEvent::Complete`]: the message is with its user. It leaves a
    /// tombstone, so that it is delivered once. Returns false when no polled set of this message is
    /// waiting for a verdict.
    pub fn delivered(&mut self, now: Instant, message: MessageId) -> bool {
        let out = self.is_out(message);
        if out {
            self.end(now, message, End::Delivered);
        }
        out
    }

    /// The verdict on [`CollectorEvent::Complete`]: the shares match their digests but do not make a
    /// message. Other sets are tried as shares come in, each at most once; when none is left, the
    /// message expires. Returns false when no polled set of this message is waiting for a verdict.
    pub fn failed(&mut self, now: Instant, message: MessageId) -> bool {
        if !self.is_out(message) {
            return false;
        }
        let max_attempts = self.config.max_attempts;
        let more = self
            .gatherings
            .get_mut(&message)
            .is_some_and(|gathering| gathering.next_set(max_attempts));
        if more {
            self.complete(message);
            self.ask(now, message, false);
        } else {
            self.expire(now, message);
        }
        true
    }

    fn is_out(&self, message: MessageId) -> bool {
        let gathering = self.gatherings.get(&message);
        gathering.is_some_and(|gathering| gathering.verdict == Verdict::Out)
    }

    /// The next event, if any. What is not wanted any more (an ask for a share that came meanwhile,
    /// a set of a message that was revoked) is left out.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<CollectorEvent> {
        while let Some(event) = self.events.pop_front() {
            match event {
                Queued::Plain(event) => return Some(event),
                Queued::Complete(message) => {
                    if let Some(gathering) = self.gatherings.get_mut(&message)
                        && gathering.verdict == Verdict::Queued
                    {
                        gathering.verdict = Verdict::Out;
                        let shares = gathering.set();
                        return Some(CollectorEvent::Complete { message, shares });
                    }
                }
                Queued::Ask(message, ask) => {
                    let wanted = self
                        .gatherings
                        .get(&message)
                        .is_some_and(|gathering| gathering.wants(ask));
                    if !wanted {
                        continue;
                    }
                    let Ask {
                        index,
                        holder,
                        unfreeze,
                    } = ask;
                    return Some(if unfreeze {
                        CollectorEvent::Unfreeze {
                            message,
                            index,
                            holder,
                        }
                    } else {
                        CollectorEvent::Claim {
                            message,
                            index,
                            holder,
                        }
                    });
                }
            }
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) may have something to do.
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

    /// Does what is due: asks for late shares, expires.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tombstones.expire(now);
        self.early.expire(now);
        self.requests.expire(now);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Look(message) => self.ask(now, message, true),
                Timer::Expire(message) => self.expire(now, message),
            }
        }
    }

    /// How long active shares are waited for at present before frozen ones are asked for.
    pub fn unfreeze_after(&self) -> Duration {
        self.estimator.wait()
    }

    /// Whether a message has ended here: delivered, revoked or expired, and still remembered.
    pub fn is_ended(&self, message: MessageId) -> bool {
        self.tombstones.get(message).is_some()
    }

    /// What is known about a message that is being collected: shares in index order.
    pub fn announcement(&self, message: MessageId) -> Option<&Announcement> {
        let gathering = self.gatherings.get(&message)?;
        Some(&gathering.announcement)
    }

    /// How much is kept, without what waits for an announcement.
    pub fn usage(&self) -> Usage {
        self.ledger.usage()
    }

    /// Queues the next set if it is in.
    fn complete(&mut self, message: MessageId) {
        let Some(gathering) = self.gatherings.get_mut(&message) else {
            return;
        };
        if gathering.verdict != Verdict::Collecting || !gathering.is_ready() {
            return;
        }
        gathering.verdict = Verdict::Queued;
        if let Some(took) = gathering.collection_time() {
            self.estimator.sample(took);
        }
        self.timers.cancel(Timer::Look(message));
        self.events.push_back(Queued::Complete(message));
    }

    /// Asks for what is missing and sets the time to look again.
    fn ask(&mut self, now: Instant, message: MessageId, last_resort: bool) {
        let wait = self.estimator.wait();
        let max_asks = self.config.max_asks;
        let Some(gathering) = self.gatherings.get_mut(&message) else {
            return;
        };
        for ask in gathering.asks(now, wait, max_asks, last_resort) {
            self.events.push_back(Queued::Ask(message, ask));
        }
        match gathering.next_look(now, wait, max_asks) {
            Some(at) => self.timers.set(Timer::Look(message), at),
            None => self.timers.cancel(Timer::Look(message)),
        }
    }

    fn expire(&mut self, now: Instant, message: MessageId) {
        self.end(now, message, End::Given);
        self.events
            .push_back(Queued::Plain(CollectorEvent::Expired { message }));
    }

    fn end(&mut self, now: Instant, message: MessageId, end: End) {
        let Some(gathering) = self.gatherings.remove(&message) else {
            return;
        };
        let sender = gathering.announcement.sender;
        self.ledger.refund(sender, 1, gathering.octets());
        for share in &gathering.announcement.shares {
            self.by_holder.remove(&(share.holder, message));
        }
        self.timers.cancel(Timer::Look(message));
        self.timers.cancel(Timer::Expire(message));
        self.bury(now, message, sender, end);
    }

    fn bury(&mut self, now: Instant, message: MessageId, sender: NodeId, end: End) {
        self.early.forget(message);
        self.requests.forget(message);
        self.tombstones.insert(now, message, sender, end);
    }
}
