//! The receiver's machine.

mod persist;

use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::{Announcement, Digest, Standing};
use crate::config::CollectorConfig;
use crate::early::EarlyKey;
use crate::error::{AddError, Bound, EndError, ShareError};
use crate::estimator::Estimator;
use crate::event::{Announced, CollectorEvent, Ended, ShareOutcome};
use crate::frame::Frame;
use crate::gathering::{Ask, Gathering, Progress, Verdict, Waits};
use crate::hedging::{Budget, HedgeConfig, HedgeReport};
use crate::journal::{Journal, Key};
use crate::ledger::{Ledger, Usage};
use crate::paths::PathEstimate;
use crate::storage::Anchor;
use crate::timers::after;
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
    frame: Frame<End, Timer>,
    estimator: Estimator,
    paths: BTreeMap<NodeId, PathEstimate>,
    /// Of holders that `paths` has.
    progress: BTreeMap<NodeId, Progress>,
    /// Octets of a usual share, smoothed; 0 before the first.
    share_octets: u64,
    /// Present when shares are asked for early.
    budget: Option<Budget>,
    events: VecDeque<Queued>,
}

impl Collector {
    /// An empty collector that lives in memory. [`restore`](Self::restore) makes a durable one.
    pub fn new(config: CollectorConfig) -> Self {
        Collector::with_journal(config, None)
    }

    fn with_journal(config: CollectorConfig, anchor: Option<Anchor>) -> Self {
        let tombstones = Tombstones::new(config.max_tombstones, config.tombstone_ttl);
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
            frame: Frame::new(
                &config.early,
                tombstones,
                Journal::new(persist::SPACE, anchor),
            ),
            estimator: Estimator::new(config.unfreeze_after),
            paths: BTreeMap::new(),
            progress: BTreeMap::new(),
            share_octets: 0,
            budget: None,
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes an announcement; the caller has checked that it is its sender's: that it came from there,
    /// or that its signature covers it.
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
        self.announce_from(now, announcement.sender, announcement)
    }

    /// Takes an announcement that `from` passed on, a holder perhaps, which the caller cannot check.
    ///
    /// What is not the sender's own word begins a message, but changes nothing about one that is
    /// known, and gives way whole to what the sender says itself, whatever its version. Until then
    /// nobody is blamed for a share that does not match, and the share is kept among what came
    /// early.
    ///
    /// # Errors
    ///
    /// As [`announce`](Self::announce). If the sender's own word does not fit the bounds, what was
    /// heard in its place is given up, too.
    pub fn announce_from(
        &mut self,
        now: Instant,
        from: NodeId,
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
        if !announcement.is_receiver(self.config.local) {
            return Err(AddError::NotReceiver {
                receiver,
                local: self.config.local,
            });
        }
        if let Some((owner, end)) = self.frame.tombstones.get(message) {
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
        let mut newer = announcement.sorted();
        let hearsay = from != sender;
        let mut kept = Vec::new();
        if let Some(known) = self.gatherings.get_mut(&message) {
            if hearsay {
                return Ok(Announced::Known);
            }
            let confirmed = core::mem::take(&mut known.hearsay);
            if confirmed {
                self.frame.journal.mark(Key::Entry(message));
            }
            let replaced = confirmed && known.announcement != newer;
            if replaced && known.verdict == Verdict::Collecting {
                kept = self.forget(message);
            }
        }
        let floor = self.budget.map(|budget| budget.config().floor);
        let octets = self.octets_of_share(message);
        let waits = waits(&self.estimator, &self.paths, octets, floor);
        let outcome = if let Some(known) = self.gatherings.get_mut(&message) {
            if known.announcement.check_update(&newer)? == Standing::Stale {
                return Ok(Announced::Known);
            }
            newer.keep_active(&known.announcement);
            if newer == known.announcement {
                return Ok(Announced::Known);
            }
            let more = newer.cost().saturating_sub(known.announcement.cost());
            self.ledger.charge(sender, 0, more)?;
            for share in &known.announcement.shares {
                self.by_holder.remove(&(share.holder, message));
            }
            known.update(now, newer, waits);
            Announced::Updated
        } else {
            let withdrawn = |by| {
                let asked = self.frame.requests.get(message, by);
                asked.is_some_and(|asked| asked.removed)
            };
            if withdrawn(sender) || withdrawn(self.config.local) {
                self.frame.bury(now, message, sender, End::Given);
                return Ok(Announced::Ended);
            }
            self.ledger.charge(sender, 1, newer.cost())?;
            self.frame
                .timers
                .set(Timer::Expire(message), after(now, self.config.ttl));
            let mut gathering = Gathering::new(now, newer, waits);
            gathering.hearsay = hearsay;
            self.gatherings.insert(message, gathering);
            Announced::New
        };
        for share in &announcement.shares {
            self.by_holder.insert((share.holder, message));
        }
        self.frame.journal.mark(Key::Entry(message));
        for (holder, index, digest, share) in kept {
            // What does not match now is nobody's fault: it matched what was said then.
            let listed = announcement.placement(index);
            if listed.is_some_and(|listed| listed.digest == digest) {
                let _ = self.admit(now, holder, message, index, share, digest);
            }
        }
        self.take_early(now, message);
        self.complete(message);
        self.ask(now, message, false);
        Ok(outcome)
    }

    /// Takes back a message that was known from hearsay, and returns the shares that were in.
    fn forget(&mut self, message: MessageId) -> Vec<(NodeId, NonZeroU8, Digest, Bytes)> {
        let Some(gathering) = self.gatherings.remove(&message) else {
            return Vec::new();
        };
        let announcement = &gathering.announcement;
        self.ledger
            .refund(announcement.sender, 1, gathering.octets());
        for share in &announcement.shares {
            self.by_holder.remove(&(share.holder, message));
        }
        self.frame.timers.cancel(Timer::Look(message));
        self.frame.timers.cancel(Timer::Expire(message));
        self.frame.journal.mark(Key::Entry(message));
        let shares = gathering.arrived().filter_map(|index| {
            let listed = announcement.find(index)?;
            let share = gathering.octets_of(index)?;
            Some((listed.holder, index, listed.digest, share))
        });
        let shares: Vec<_> = shares.collect();
        for (_, index, ..) in &shares {
            self.frame.journal.mark(Key::Share(message, *index));
        }
        shares
    }

    fn take_early(&mut self, now: Instant, message: MessageId) {
        let waiting: Vec<EarlyKey> = self.frame.early.keys(message).collect();
        for key in waiting {
            if let Some(share) = self.frame.early.take(message, key) {
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
        if let Some((_, end)) = self.frame.tombstones.get(message) {
            return Ok(match end {
                End::Delivered => ShareOutcome::AlreadyDelivered,
                End::Given => ShareOutcome::Ended,
            });
        }
        if !self.gatherings.contains_key(&message) {
            self.frame
                .early
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
            if gathering.hearsay {
                let key = (from, index, digest);
                self.frame.early.insert(now, message, key, share)?;
                return Ok(ShareOutcome::Early);
            }
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
        let octets = share.len() as u64;
        if self.paths.contains_key(&from)
            && let Some(since) = gathering.since(index)
        {
            let progress = self.progress.entry(from);
            let progress = progress.or_insert(Progress { at: now, since });
            progress.at = now;
            progress.since = progress.since.max(since);
        }
        gathering.accept(now, index, share);
        self.share_octets = match self.share_octets {
            0 => octets,
            mean => mean - mean / 8 + octets / 8,
        };
        if let Some(budget) = &mut self.budget {
            budget.arrived(octets);
        }
        self.frame.journal.mark(Key::Share(message, index));
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
        if let Some((sender, _)) = self.frame.tombstones.get(message) {
            if by != sender && by != self.config.local {
                return Err(EndError::NotOwner { by });
            }
            return Ok(Ended::Already);
        }
        if let Some(gathering) = self.gatherings.get(&message) {
            if by != gathering.announcement.sender && by != self.config.local {
                return Err(EndError::NotOwner { by });
            }
            self.end(now, message, End::Given);
            if by != self.config.local {
                self.events
                    .push_back(Queued::Plain(CollectorEvent::Revoked { message }));
            }
            return Ok(Ended::Now);
        }
        self.frame.requests.of(now, message, by)?.removed = true;
        Ok(Ended::Early)
    }

    /// The verdict on [`CollectorEvent::Complete`]: the message is with its user. It leaves a
    /// tombstone, so that it is delivered once. A durable collector says when that is on disk
    /// ([`CollectorEvent::Settled`]): only then acknowledge it to the sender. Returns false when no polled set of this message is
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
        self.frame.next()
    }

    /// Does what is due: asks for late shares, expires.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.frame.expire(now);
        while let Some(timer) = self.frame.timers.pop_due(now) {
            match timer {
                Timer::Look(message) => self.ask(now, message, true),
                Timer::Expire(message) => self.expire(now, message),
            }
        }
    }

    /// Turns hedging on, with a full budget, or off. With it, a frozen share is asked for as soon as
    /// an active one is later than the [estimate](Self::set_path) of its path would have it, within
    /// the budget, and what is under way when k shares are in is cancelled
    /// ([`CollectorEvent::Cancel`]).
    pub fn set_hedging(&mut self, config: Option<HedgeConfig>) {
        self.budget = config.map(Budget::new);
    }

    /// What hedging has cost and brought, if it is on.
    pub fn hedging(&self) -> Option<HedgeReport> {
        self.budget.map(|budget| budget.report())
    }

    /// What the way from `holder` to here can do at present; `None` when nothing is known of it any
    /// more. It counts for shares that are announced or asked for from now on. The caller bounds
    /// the number of holders: one entry each is kept.
    pub fn set_path(&mut self, holder: NodeId, estimate: Option<PathEstimate>) {
        match estimate {
            Some(estimate) => self.paths.insert(holder, estimate),
            None => {
                self.progress.remove(&holder);
                self.paths.remove(&holder)
            }
        };
    }

    /// How many octets a share of `message` has, where its announcement tells the caller. Otherwise
    /// a share is taken to be as large as usual lately: too small for the first shares of a file
    /// after a chat, which would count as late before they could be here, and cost the budget of
    /// hedging next to nothing. Counts for the shares that were not asked for.
    pub fn set_share_octets(&mut self, now: Instant, message: MessageId, octets: u64) {
        let floor = self.budget.map(|budget| budget.config().floor);
        let waits = waits(&self.estimator, &self.paths, octets, floor);
        let Some(gathering) = self.gatherings.get_mut(&message) else {
            return;
        };
        if gathering.share_octets.replace(octets) != Some(octets) {
            gathering.wait_anew(waits);
            self.ask(now, message, false);
        }
    }

    /// How long active shares are waited for at present before frozen ones are asked for.
    pub fn unfreeze_after(&self) -> Duration {
        self.estimator.wait()
    }

    /// Whether a message has ended here: delivered, revoked or expired, and still remembered.
    pub fn is_ended(&self, message: MessageId) -> bool {
        self.frame.tombstones.get(message).is_some()
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
        self.frame.timers.cancel(Timer::Look(message));
        self.events.push_back(Queued::Complete(message));
        if let Some(budget) = &mut self.budget {
            for (index, holder) in gathering.unwanted() {
                budget.cancelled();
                self.events.push_back(Queued::Plain(CollectorEvent::Cancel {
                    message,
                    index,
                    holder,
                }));
            }
        }
    }

    /// What a share of `message` has, or what is usual.
    fn octets_of_share(&self, message: MessageId) -> u64 {
        let known = self.gatherings.get(&message).and_then(|g| g.share_octets);
        known.unwrap_or(self.share_octets)
    }

    /// Asks for what is missing and sets the time to look again.
    fn ask(&mut self, now: Instant, message: MessageId, last_resort: bool) {
        let floor = self.budget.map(|budget| budget.config().floor);
        let max_asks = self.config.max_asks;
        let octets = self.octets_of_share(message);
        let waits = waits(&self.estimator, &self.paths, octets, floor);
        let Some(gathering) = self.gatherings.get_mut(&message) else {
            return;
        };
        if self.budget.is_some() {
            gathering.allow_for(waits, &self.progress);
        }
        let budget = self.budget.as_mut();
        for ask in gathering.asks(now, waits, max_asks, last_resort, budget) {
            self.events.push_back(Queued::Ask(message, ask));
        }
        match gathering.next_look(now, waits.usual, max_asks) {
            Some(at) => self.frame.timers.set(Timer::Look(message), at),
            None => self.frame.timers.cancel(Timer::Look(message)),
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
        self.frame.timers.cancel(Timer::Look(message));
        self.frame.timers.cancel(Timer::Expire(message));
        self.frame.bury(now, message, sender, end);
        self.frame.journal.mark(Key::Entry(message));
        for index in gathering.arrived() {
            self.frame.journal.mark(Key::Share(message, index));
        }
    }
}

fn waits<'a>(
    estimator: &Estimator,
    paths: &'a BTreeMap<NodeId, PathEstimate>,
    octets: u64,
    floor: Option<Duration>,
) -> Waits<'a> {
    Waits {
        usual: estimator.wait(),
        paths: floor.map(|floor| (paths, octets, floor)),
    }
}
