//! Receiving: what the control flow says, shares as they arrive, messages as they become whole,
//! segments as they fall into order. The same lines make this node a holder for others.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::{
    Announced, Announcement, CollectorEvent, Placement as Placed, PoolEvent, ShareOutcome, Stored,
};
use vmdt_ssms::Share;
use vmdt_ssms::v2::Position;
use vmdt_wire::{
    ContentType, ErrorCode, FlowId, Message, MessageId, MessageName, NodeId, ShareEntry,
    SharePoolAdd,
};

use super::envelope::{Envelope, Kind};
use super::event::TransferError;
use super::incoming::{Incoming, Taken};
use super::links::{Parcel, code};
use super::outgoing::digest_of;
use super::peer::{Turn, share_index};
use super::placement::Carrier;
use super::{Core, Event, Output, SinkOp};

/// Octets of shares kept while their announcement is missing.
const MAX_EARLY_OCTETS: usize = 16 * 1024 * 1024;
/// Shares kept while their announcement is missing.
const MAX_EARLY: usize = 1024;
/// Octets of a share from which on its holder is told that it is not needed.
const WORTH_CANCELLING: usize = 8 * 1024;
/// How long one waits before who brought it is asked to tell.
const ASK_AFTER: Duration = Duration::from_millis(150);
/// How long they are kept.
const EARLY_TTL: Duration = Duration::from_secs(10);

/// A message that is to come to this node.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) sender: NodeId,
    pub(crate) transfer: MessageId,
    pub(crate) origins: BTreeMap<NonZeroU8, (Carrier, usize)>,
    /// Since when it is announced.
    since: Instant,
    /// The shares that others were to send at once and that have not come, and who was.
    awaited: BTreeMap<NonZeroU8, NodeId>,
}

impl Expected {
    /// What came without an announcement, as pieces.
    pub(crate) fn of(
        now: Instant,
        sender: NodeId,
        transfer: MessageId,
        origins: BTreeMap<NonZeroU8, (Carrier, usize)>,
    ) -> Expected {
        Expected {
            sender,
            transfer,
            origins,
            since: now,
            awaited: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
struct EarlyShare {
    from: NodeId,
    carrier: Carrier,
    index: NonZeroU8,
    octets: Bytes,
    until: Instant,
    /// Who brought it was asked for its announcement.
    asked: bool,
}

/// Shares that came before their announcement. Bounded; at the bound the share is dropped, and
/// comes again when its receiver claims it.
#[derive(Debug, Default)]
pub(crate) struct Early {
    by_message: BTreeMap<MessageId, Vec<EarlyShare>>,
    octets: usize,
    count: usize,
}

impl Early {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    fn keep(&mut self, message: MessageId, share: EarlyShare) -> bool {
        if self.count >= MAX_EARLY || self.octets + share.octets.len() > MAX_EARLY_OCTETS {
            return false;
        }
        self.count += 1;
        self.octets += share.octets.len();
        self.by_message.entry(message).or_default().push(share);
        true
    }

    fn take(&mut self, message: MessageId) -> Vec<EarlyShare> {
        let shares = self.by_message.remove(&message).unwrap_or_default();
        self.count -= shares.len();
        self.octets -= shares.iter().map(|s| s.octets.len()).sum::<usize>();
        shares
    }

    /// Whether a share from this peer waits.
    pub(crate) fn has(&self, message: MessageId, index: NonZeroU8, from: NodeId) -> bool {
        let shares = self.by_message.get(&message).into_iter().flatten();
        shares
            .into_iter()
            .any(|s| (s.index, s.from) == (index, from))
    }

    /// Forgets the shares of a message.
    pub(crate) fn drop_all(&mut self, message: MessageId) {
        let _ = self.take(message);
    }

    /// Shares that have waited for a while: one of each message, to ask who brought it.
    fn untold(&mut self, now: Instant) -> Vec<(NodeId, MessageId, NonZeroU8)> {
        let mut ask = Vec::new();
        for (message, shares) in &mut self.by_message {
            let long = |s: &&mut EarlyShare| now + EARLY_TTL >= s.until + ASK_AFTER;
            if let Some(share) = shares.iter_mut().find(|s| !s.asked).filter(long) {
                share.asked = true;
                ask.push((share.from, *message, share.index));
            }
        }
        ask
    }

    fn expire(&mut self, now: Instant) {
        let (mut count, mut octets) = (0, 0);
        for shares in self.by_message.values_mut() {
            shares.retain(|s| s.until > now);
            count += shares.len();
            octets += shares.iter().map(|s| s.octets.len()).sum::<usize>();
        }
        self.by_message.retain(|_, s| !s.is_empty());
        (self.count, self.octets) = (count, octets);
    }
}

/// The control line that carries an announcement.
pub(crate) fn add_line(ann: &Announcement) -> Message {
    // active shares first: the line says how many of its entries are active
    let (active, frozen): (Vec<&Placed>, Vec<&Placed>) = ann.shares.iter().partition(|s| s.active);
    Message::SharePoolAdd(SharePoolAdd {
        message: MessageName::from(ann.message),
        sender: ann.sender,
        receiver: ann.receiver,
        total: ann.n.into(),
        active: u16::try_from(active.len()).unwrap_or(u16::MAX),
        content: ContentType::Stream,
        filename: format!("{}.{}", ann.label, ann.k),
        version: ann.version,
        details: ann.details.to_vec(),
        shares: active
            .into_iter()
            .chain(frozen)
            .map(|s| ShareEntry::Placed {
                index: s.index.get().into(),
                holder: s.holder,
                digest: s.digest,
            })
            .collect(),
    })
}

/// Reads an announcement from its control line; `None` when it is not one of ours.
pub(crate) fn read_add_line(add: &SharePoolAdd) -> Option<Announcement> {
    if add.content != ContentType::Stream {
        return None;
    }
    let (label, k) = add.filename.rsplit_once('.')?;
    let shares: Option<Vec<Placed>> = add
        .shares
        .iter()
        .enumerate()
        .map(|(at, entry)| match entry {
            ShareEntry::Placed {
                index,
                holder,
                digest,
            } => Some(Placed {
                index: u8::try_from(*index).ok().and_then(NonZeroU8::new)?,
                holder: *holder,
                digest: *digest,
                active: at < usize::from(add.active),
            }),
            _ => None,
        })
        .collect();
    Some(Announcement {
        message: add.message.to_message_id()?,
        sender: add.sender,
        receiver: add.receiver,
        n: u8::try_from(add.total).ok()?,
        k: k.parse().ok()?,
        shares: shares?,
        label: label.to_owned(),
        content: 0,
        version: add.version,
        details: Bytes::copy_from_slice(&add.details),
        sealed: !add.details.is_empty(),
        ..Announcement::default()
    })
}

impl Core {
    /// A control line of a peer.
    pub(super) fn on_line(&mut self, now: Instant, from: NodeId, message: Message) {
        match message {
            Message::SharePoolAdd(add) => match read_add_line(&add) {
                Some(ann) => self.on_announcement(now, from, ann),
                None => self.stats.bad_lines += 1,
            },
            Message::SharePoolAck { message, receiver } if receiver == from => {
                if let Some(id) = message.to_message_id() {
                    self.acknowledged(now, from, id);
                }
            }
            Message::SharePoolUnfreeze { message, index } => {
                let index = u8::try_from(index).ok().and_then(NonZeroU8::new);
                if let Some((id, index)) = message.to_message_id().zip(index) {
                    if self.spreads.get(&id).is_some_and(|s| s.awaits(from)) {
                        self.own_share_wanted(now, from, id, index);
                        return;
                    }
                    self.pool.ask_again(now, id, from);
                    match self.pool.unfreeze(now, id, index, from) {
                        Ok(_) => self.ask_for_lost(now, from, id, index),
                        Err(_) => self.stats.bad_lines += 1,
                    }
                }
            }
            Message::SharePoolClaim {
                message,
                claimer,
                index,
            } if claimer == from => {
                let index = u8::try_from(index).ok().and_then(NonZeroU8::new);
                if let Some((id, index)) = message.to_message_id().zip(index) {
                    if self.spreads.get(&id).is_some_and(|s| s.awaits(from)) {
                        self.own_share_wanted(now, from, id, index);
                    } else if self.pool.announcement(id).is_none() {
                        self.holder_lacks(now, from, id, index);
                    } else {
                        self.pool.ask_again(now, id, from);
                        self.hand_on(now, id, from, index, true);
                    }
                }
            }
            Message::SharePoolRemove { message } => {
                if let Some(id) = message.to_message_id() {
                    self.removed(now, from, id);
                }
            }
            Message::Error {
                code,
                text,
                about: Some(about),
            } => {
                if let Some(id) = about.to_message_id() {
                    if self.spreads.contains_key(&id) {
                        return self.holder_refused(now, from, id);
                    }
                    match self.incoming_by_id.get(&(from, id)) {
                        Some(handle) => {
                            let error = TransferError::Remote {
                                peer: from,
                                code,
                                text,
                            };
                            self.fail_incoming(now, *handle, error);
                        }
                        None => self.refused_by_receiver(now, from, id, code, text),
                    }
                }
            }
            Message::SharePoolStored {
                message,
                holder,
                index,
            } if holder == from => {
                let index = u8::try_from(index).ok().and_then(NonZeroU8::new);
                if let Some((id, index)) = message.to_message_id().zip(index)
                    && !self.note_remade(from, id, index)
                    && !self.is_unknown_to_us(now, from, id)
                {
                    let transfer = self.spreads.get(&id).map(|spread| spread.transfer);
                    self.on_stored(from, id, index);
                    self.tell_moved(now, id);
                    if let Some(transfer) = transfer {
                        self.pump_source(now, transfer);
                    }
                }
            }
            Message::Profile { id, profile } => self.on_profile(now, id, &profile),
            Message::ShareRepair { repair } => self.on_repair(now, from, &repair.0),
            Message::Receipts { receipts } => self.on_receipts(now, from, &receipts),
            Message::ExpressOpen { opening } => self.on_express_open(now, from, &opening),
            Message::ExpressOk { id } => self.on_express_ok(now, from, id),
            _ => self.stats.bad_lines += 1,
        }
    }

    fn removed(&mut self, now: Instant, from: NodeId, id: MessageId) {
        if let Some(handle) = self.incoming_by_id.get(&(from, id)).copied() {
            self.fail_incoming(now, handle, TransferError::Cancelled { peer: from });
            return;
        }
        if self.labels.get(&id).is_some_and(|e| e.sender == from) {
            let _ = self.collector.remove(now, id, from);
        }
        let held: Option<(Vec<NodeId>, Vec<NonZeroU8>)> = self
            .pool
            .announcement(id)
            .filter(|a| a.sender == from || a.is_receiver(from))
            .map(|a| {
                let all = a.sender == from;
                let wanted = a.receivers().filter(|receiver| all || *receiver == from);
                (wanted.collect(), a.shares.iter().map(|s| s.index).collect())
            });
        let known = self.pool.announcement(id);
        if known.is_some_and(|a| a.sender != from && a.is_receiver(from)) {
            // it has enough for now, and nobody's word yet that it is safe there: the lease begins,
            // so that it gets the share when it turns out to need it
            let here: Vec<NonZeroU8> = self.pool.indices(id).collect();
            for index in here {
                let _ = self.pool.claim(now, id, from, index);
            }
        } else {
            let _ = self.pool.remove(now, id, from);
        }
        let (receivers, indices) = held.unwrap_or_default();
        for receiver in receivers {
            for index in &indices {
                self.cancel_share(now, receiver, id, *index);
            }
            if let Some(peer) = self.peers.get_mut(&receiver) {
                peer.forget(id);
            }
        }
        let _ = self.early.take(id);
    }

    pub(super) fn on_announcement(&mut self, now: Instant, from: NodeId, mut ann: Announcement) {
        let message = ann.message;
        let forwarded = from != ann.sender;
        if forwarded && !ann.details.is_empty() {
            // what is signed is true whoever brings it; where shares are is the sender's to say,
            // and a holder's word counts while there is none of the sender
            ann.version = 0;
        }
        let known = self
            .member
            .roster()
            .any(|(_, c)| c.member(ann.sender).is_some() && c.member(from).is_some());
        if !known {
            self.stats.bad_lines += 1;
            return;
        }
        let details = match &self.seal {
            None if ann.details.is_empty() => None,
            None => {
                self.stats.bad_lines += 1;
                return;
            }
            Some(seal) => match seal.check(now, &mut ann, self.pool.announcement(message)) {
                Ok(details) => details,
                Err(error) => {
                    self.stats.bad_lines += 1;
                    tracing::debug!(%error, "an announcement was refused");
                    return;
                }
            },
        };
        if let Some(details) = &details
            && self
                .pinned_key(ann.sender)
                .is_some_and(|key| key != details.sender())
        {
            self.stats.bad_lines += 1;
            return;
        }
        let receives = ann.is_receiver(self.config.id);
        let listed = details.as_ref();
        let share_octets = listed.map(|details| details.manifest().body_len() as u64);
        let holds = || ann.placed_at(self.config.id).next().is_some();
        // one of several receivers may hold a share for the others
        if !receives || holds() || self.pool.announcement(message).is_some() {
            let added = self.pool.add(now, from, &ann);
            if let Some(details) = listed.filter(|_| added.is_ok()) {
                self.note_listed(message, details);
            }
            match added {
                // what came early is for both, below
                Ok(_) if receives && !self.collector.is_ended(message) => {}
                Ok(_) => {
                    for early in self.early.take(message) {
                        self.store(now, early.from, message, early.index, early.octets);
                    }
                }
                // anyone could announce in the sender's name: only it is told
                Err(error) if from == ann.sender => {
                    self.tell_no_room(now, from, message, &error.to_string());
                }
                Err(_) if receives => {}
                Err(_) => {
                    self.stats.refused_shares += 1;
                    self.note_told(from, ann.clone());
                }
            }
        }
        if !receives {
            return;
        }
        let Ok(transfer) = ann.label.parse::<MessageId>() else {
            self.stats.bad_lines += 1;
            return;
        };
        if self.ended_set.get(&(ann.sender, transfer)) == Some(&false) {
            // it failed here: its sender did not hear of it, or did not stop yet
            let line = Message::Error {
                code: ErrorCode::Aborted,
                text: "the transfer has ended at the receiver".into(),
                about: Some(MessageName::from(transfer)),
            };
            self.send_line(now, ann.sender, line);
            return;
        }
        // it came by express, or in an earlier run
        if (self.is_durable() || !self.collector.is_ended(message))
            && self.ended_set.get(&(ann.sender, transfer)) == Some(&true)
        {
            self.acknowledge(now, ann.sender, message);
            if forwarded {
                self.tell_have(now, from, message);
            }
            return;
        }
        if !self.labels.contains_key(&message)
            && !self.collector.is_ended(message)
            && let Some(details) = &details
            && self.is_too_early(now, from, &ann, transfer, details.number())
        {
            return;
        }
        if !self.collector.is_ended(message)
            && let Some((seal, details)) = self.seal.as_mut().zip(details)
            && let Err(error) = seal.expect(&ann, transfer, &details)
        {
            self.stats.bad_lines += 1;
            if error == super::seal::Refused::NoKey && from == ann.sender {
                let error = TransferError::Local(error.to_string());
                self.tell_refusal(now, from, transfer, &error);
                self.send_profile(now, from);
            }
            return;
        }
        if !self.labels.contains_key(&message) {
            let holders: BTreeSet<NodeId> = ann.shares.iter().map(|s| s.holder).collect();
            self.estimate_holders(holders);
        }
        let announced = if forwarded && ann.details.is_empty() {
            self.collector.announce_from(now, from, &ann)
        } else {
            self.collector.announce(now, &ann)
        };
        match announced {
            Ok(Announced::AlreadyDelivered) => self.acknowledge_again(now, &ann, transfer),
            Ok(_) => {
                if let Some(octets) = share_octets {
                    self.collector.set_share_octets(now, message, octets);
                }
                let sender = ann.sender;
                let local = self.config.id;
                self.labels.entry(message).or_insert_with(|| Expected {
                    sender,
                    transfer,
                    origins: BTreeMap::new(),
                    since: now,
                    awaited: ann
                        .shares
                        .iter()
                        .filter(|share| share.active && share.holder != local)
                        .map(|share| (share.index, share.holder))
                        .collect(),
                });
                for early in self.early.take(message) {
                    self.share_arrived(
                        now,
                        early.from,
                        early.carrier,
                        message,
                        early.index,
                        early.octets,
                    );
                }
                self.judge_early(now, message);
            }
            Err(error) => {
                self.stats.bad_lines += 1;
                tracing::debug!(%error, "an announcement was refused");
                if !self.labels.contains_key(&message)
                    && let Some(seal) = &mut self.seal
                {
                    seal.forget(message);
                }
            }
        }
    }

    /// A message that is here already was announced again: its confirmation was lost, unless it
    /// waits for its turn.
    fn acknowledge_again(&mut self, now: Instant, ann: &Announcement, transfer: MessageId) {
        let waits = self
            .incoming_by_id
            .get(&(ann.sender, transfer))
            .and_then(|h| self.incoming.get(h))
            .is_some_and(|i| i.holds(ann.message));
        if !waits && !self.waits_again(ann.sender, transfer, ann.message) {
            self.acknowledge(now, ann.sender, ann.message);
            self.receipts.again(now, ann.sender, ann.message);
        }
    }

    pub(super) fn acknowledge(&mut self, now: Instant, sender: NodeId, message: MessageId) {
        self.note_confirmed(now, sender, message);
        if self.express_taken(now, sender, message) {
            return;
        }
        self.confirm_to_group(now, message);
        let receiver = self.config.id;
        let line = Message::SharePoolAck {
            message: MessageName::from(message),
            receiver,
        };
        self.send_line(now, sender, line);
    }

    /// Whether a flow brings something that is here already, or is not wanted any more.
    pub(super) fn is_not_needed(&self, flow: FlowId) -> bool {
        let ended = self.collector.is_ended(flow.message)
            || self
                .labels
                .get(&flow.message)
                .is_some_and(|e| self.ended_set.contains_key(&(e.sender, e.transfer)));
        ended && !self.holds_for_others(flow) || self.comes_too_early(flow)
    }

    /// A share came, by a session or through the server.
    pub(super) fn share_arrived(
        &mut self,
        now: Instant,
        from: NodeId,
        carrier: Carrier,
        message: MessageId,
        index: NonZeroU8,
        octets: Bytes,
    ) {
        if self.part_arrived(now, from, message, &octets) {
            return;
        }
        self.expect_what_is_held(now, message);
        if self.labels.contains_key(&message) {
            self.keep_for_others(now, from, message, index, &octets);
            self.collect(now, from, carrier, message, index, octets);
        } else if self.pool.announcement(message).is_some() {
            self.store(now, from, message, index, octets);
        } else if !self.collector.is_ended(message) {
            let until = now + EARLY_TTL;
            if !self.early.keep(
                message,
                EarlyShare {
                    from,
                    carrier,
                    index,
                    octets,
                    until,
                    asked: false,
                },
            ) {
                self.stats.refused_shares += 1;
            }
        } else {
            self.proofs.another_copy(from, message, index);
        }
    }

    /// Keeps a share for its receiver.
    pub(super) fn store(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
        octets: Bytes,
    ) {
        let (whole, digest) = match &self.seal {
            Some(_) => {
                let (whole, digest) = super::seal::share_digest(&octets);
                (Some(whole), digest)
            }
            None => (None, digest_of(&[&octets])),
        };
        match self.pool.store(now, from, message, index, octets, digest) {
            Ok(outcome) => {
                if outcome == Stored::Duplicate {
                    // its confirmation was lost
                    self.confirm_stored(now, message, index, from);
                } else {
                    self.handovers.stored((message, index));
                }
                self.note_taken(now, (message, index), outcome, whole);
            }
            Err(error) => self.tell_no_room(now, from, message, &error.to_string()),
        }
    }

    /// Tells a sender that this node does not hold what it was given.
    pub(super) fn tell_no_room(
        &mut self,
        now: Instant,
        sender: NodeId,
        message: MessageId,
        why: &str,
    ) {
        self.stats.refused_shares += 1;
        tracing::debug!(why, "a share is not held");
        let line = Message::Error {
            code: ErrorCode::QuotaExceeded,
            text: why.to_owned(),
            about: Some(MessageName::from(message)),
        };
        self.send_line(now, sender, line);
    }

    /// Takes a share of a message for this node.
    pub(super) fn collect(
        &mut self,
        now: Instant,
        from: NodeId,
        carrier: Carrier,
        message: MessageId,
        index: NonZeroU8,
        octets: Bytes,
    ) {
        let len = octets.len();
        let mut bad = None;
        let digest = match &mut self.seal {
            Some(seal) => match seal.add(message, index, octets.clone()) {
                Some(digest) => digest,
                None => {
                    let (came, _) = super::seal::share_digest(&octets);
                    if seal.is_as_signed(message, index, came) {
                        // its sender has sealed what can't be used: who brought it has done its part
                        self.stats.bad_shares += 1;
                        tracing::debug!(%message, %index, "a share is as it was sealed, and none");
                        return;
                    }
                    bad = self.bad_share(from, message, index, came);
                    // what is not genuine has no digest that was announced
                    Default::default()
                }
            },
            None => digest_of(&[&octets]),
        };
        match self
            .collector
            .share(now, from, message, index, octets, digest)
        {
            Ok(ShareOutcome::Accepted) => {
                self.proofs.another_copy(from, message, index);
                if let Some(expected) = self.labels.get_mut(&message) {
                    let carrier = match carrier {
                        Carrier::Member(id) if id == expected.sender => Carrier::Direct,
                        other => other,
                    };
                    expected.origins.insert(index, (carrier, len));
                    let awaited = expected.awaited.remove(&index);
                    let took = now.saturating_duration_since(expected.since);
                    if awaited == Some(from) {
                        self.lagged(from, took);
                    }
                    self.reputation.success(now, from);
                }
            }
            Ok(ShareOutcome::Mismatch { .. }) => {
                if let Some(bad) = bad {
                    self.proofs.bad_share(now, bad);
                }
            }
            Ok(_) => self.proofs.another_copy(from, message, index),
            Err(error) => {
                self.stats.refused_shares += 1;
                tracing::debug!(%error, "a share was refused");
            }
        }
    }

    pub(super) fn on_pool(&mut self, now: Instant, event: PoolEvent) {
        if let PoolEvent::Stored { message, index, .. } = event {
            self.receipts.stored(now, message, index);
        }
        match event {
            PoolEvent::Offer {
                message,
                index,
                receiver,
                // what is offered to this node it has
            } if receiver == self.config.id => {
                tracing::trace!(%message, %index, "a share that is held is for this node as well");
            }
            PoolEvent::Offer {
                message,
                index,
                receiver,
            } => self.offered(now, message, index, receiver),
            other => self.on_kept(now, other),
        }
    }

    /// Hands a share that is held here on to its receiver. The sender tells the receiver where
    /// shares are; in case it can't, so does the holder of the first of them, and who is asked.
    pub(super) fn hand_on(
        &mut self,
        now: Instant,
        message: MessageId,
        receiver: NodeId,
        index: NonZeroU8,
        asked: bool,
    ) {
        let octets = match self.pool.claim(now, message, receiver, index) {
            Ok(octets) => octets,
            Err(error) => {
                tracing::debug!(%error, "a share can't be handed on");
                if matches!(error, vmdt_pool::ClaimError::Missing { .. }) {
                    self.own_share_late(now, message, index);
                }
                return;
            }
        };
        if !self.answers_for((message, index), &octets) {
            // it is as good as lost: its receiver goes on without it
            self.stats.refused_shares += 1;
            tracing::debug!(%message, %index, "a share that is held is not what its sender signed");
            return;
        }
        let Some(ann) = self.pool.announcement(message) else {
            return;
        };
        let k = ann.k;
        let held = ann
            .shares
            .iter()
            // who is to get it may hold the first itself, and tells itself nothing
            .filter(|s| s.active && s.holder != ann.sender && s.holder != receiver);
        let first = held
            .map(|s| s.index)
            .min()
            .is_none_or(|first| first >= index);
        let version = ann.version;
        let add = (first || asked).then(|| add_line(ann));
        if let Some(add) = add
            && self.peer(now, receiver).tell(message, version)
        {
            self.send_line(now, receiver, add);
        }
        let parcel = Parcel {
            receiver,
            message,
            index,
            k,
            parts: vec![octets],
            from_pool: true,
            turn: if asked { Turn::Urgent } else { Turn::Active },
            priority: vmdt_rdt::Priority::Normal,
            segment: None,
        };
        if !self.send_share(now, receiver, parcel) {
            // the lease ends by itself; then it is offered again
            tracing::debug!("a share has no way to its receiver now");
        }
    }

    pub(super) fn on_collector(&mut self, now: Instant, event: CollectorEvent) {
        match event {
            CollectorEvent::Complete { message, shares } => self.rebuild(now, message, shares),
            CollectorEvent::Unfreeze {
                message,
                index,
                holder,
            }
            | CollectorEvent::Claim {
                message,
                index,
                holder,
            } if holder == self.config.id => self.own_share_late(now, message, index),
            CollectorEvent::Unfreeze {
                message,
                index,
                holder,
            } => {
                let line = Message::SharePoolUnfreeze {
                    message: MessageName::from(message),
                    index: index.get().into(),
                };
                self.send_line(now, holder, line);
            }
            CollectorEvent::Claim {
                message,
                index,
                holder,
            } => {
                self.event(Event::ShareLate {
                    message,
                    index: index.get(),
                    holder,
                });
                let line = Message::SharePoolClaim {
                    message: MessageName::from(message),
                    claimer: self.config.id,
                    index: index.get().into(),
                };
                self.send_line(now, holder, line);
            }
            CollectorEvent::Cancel {
                message,
                index,
                holder,
            } => self.not_needed(now, message, index, holder),
            CollectorEvent::BadShare {
                message,
                index,
                from,
            } => {
                self.stats.bad_shares += 1;
                self.reputation.failure(now, from);
                self.event(Event::BadShare {
                    message,
                    index: index.get(),
                    from,
                });
            }
            CollectorEvent::Revoked { message } | CollectorEvent::Expired { message } => {
                self.labels.remove(&message);
                if let Some(seal) = &mut self.seal {
                    seal.forget(message);
                }
            }
            _ => {}
        }
    }

    /// A message is complete without a share that `holder` was to bring: it need not begin.
    fn not_needed(&mut self, now: Instant, message: MessageId, index: NonZeroU8, holder: NodeId) {
        let Some((whole, sender, octets)) = self.last_rebuilt else {
            return;
        };
        // a small one is on its way already, and what its sender has is acknowledged to it
        if holder == self.config.id {
            return;
        }
        if whole != message || holder == sender || octets < WORTH_CANCELLING {
            return;
        }
        if self.is_durable() && !self.is_present(sender) {
            // it is not on disk here yet, and nobody could give it again
            return;
        }
        tracing::trace!(%index, %holder, "a share is not needed any more");
        let line = Message::SharePoolRemove {
            message: MessageName::from(message),
        };
        self.send_line(now, holder, line);
    }

    fn rebuild(&mut self, now: Instant, message: MessageId, shares: Vec<(NonZeroU8, Bytes)>) {
        if let Some(opened) = self.seal.as_mut().and_then(|seal| seal.open(message)) {
            return match opened {
                Ok(opened) => {
                    if opened.position.last {
                        self.receipts.opened(message, opened.manifest_digest);
                    }
                    let position = Some(opened.position);
                    self.rebuilt(now, message, position, opened.plain.into());
                }
                // every share was genuine: it is the sender's doing
                Err(error) => {
                    tracing::debug!(%error, "genuine shares do not make a message");
                    self.collector.delivered(now, message);
                    if let Some(expected) = self.labels.remove(&message) {
                        self.malformed_segment(now, &expected);
                    }
                }
            };
        }
        let parsed: Result<Vec<Share>, _> = shares
            .into_iter()
            .map(|(_, octets)| Share::parse(octets))
            .collect();
        match parsed
            .map_err(|e| e.to_string())
            .and_then(|shares| vmdt_ssms::reconstruct(&shares).map_err(|e| e.to_string()))
        {
            Ok(plain) => self.rebuilt(now, message, None, Bytes::from(plain)),
            Err(error) => {
                tracing::debug!(error, "shares do not make a message");
                self.collector.failed(now, message);
            }
        }
    }

    /// The sender made a segment that can't be used.
    fn malformed_segment(&mut self, now: Instant, expected: &Expected) {
        let error = TransferError::Malformed {
            peer: expected.sender,
            what: "a segment does not open, or contradicts what was signed about it",
        };
        match self
            .incoming_by_id
            .get(&(expected.sender, expected.transfer))
        {
            Some(handle) => self.fail_incoming(now, *handle, error),
            None => {
                self.tell_refusal(now, expected.sender, expected.transfer, &error);
                self.remember_ended(expected.sender, expected.transfer, false);
                self.event(Event::ReceiveFailed {
                    id: expected.transfer,
                    from: expected.sender,
                    error,
                });
            }
        }
    }

    /// The octets of a message are here. In profile 1.1 its sender signed where they stand.
    fn rebuilt(
        &mut self,
        now: Instant,
        message: MessageId,
        position: Option<Position>,
        plain: Bytes,
    ) {
        self.note_holders(message);
        self.note_group(message);
        self.collector.delivered(now, message);
        let Some(expected) = self.labels.remove(&message) else {
            return;
        };
        let octets = expected.origins.values().map(|(_, octets)| *octets).max();
        self.last_rebuilt = Some((message, expected.sender, octets.unwrap_or(0)));
        self.still_awaited(now, &expected);
        self.stop_arriving(now, message);
        match Envelope::parse(&plain) {
            Ok((envelope, at))
                if envelope.transfer == expected.transfer
                    && position.is_none_or(|p| {
                        (p.number, p.offset, p.last)
                            == (
                                u64::from(envelope.number),
                                envelope.offset,
                                envelope.last.is_some(),
                            )
                    }) =>
            {
                self.on_segment(now, message, &expected, envelope, plain.slice(at..));
            }
            _ if position.is_some() => self.malformed_segment(now, &expected),
            _ => self.stats.bad_lines += 1,
        }
    }

    /// A message is here, and some of its shares are not: their holders take at least so long.
    fn still_awaited(&mut self, now: Instant, expected: &Expected) {
        let took = now.saturating_duration_since(expected.since);
        for holder in expected.awaited.values() {
            let late = self.peers.get(holder).and_then(|peer| peer.lag);
            if late.is_some_and(|(lag, deviation)| took > lag + deviation * 4) {
                self.lagged(*holder, took);
                self.reputation.failure(now, *holder);
            }
        }
    }

    /// Tells whoever still sends shares of a message that it is here.
    pub(super) fn stop_arriving(&mut self, now: Instant, message: MessageId) {
        let flows: Vec<(NodeId, FlowId)> = self
            .peers
            .iter()
            .flat_map(|(id, p)| p.arriving.keys().map(|f| (*id, *f)))
            .filter(|(_, f)| f.message == message && share_index(*f).is_some())
            .filter(|(_, f)| !self.holds_for_others(*f))
            .collect();
        for (id, flow) in flows {
            if let Some(p) = self.peers.get_mut(&id)
                && let Some(a) = p.arriving.remove(&flow)
            {
                p.arriving_octets -= a.octets.len();
                self.arriving -= a.octets.len();
            }
            self.share_unread(id, flow);
            self.rdt.stop(now, id, flow, code::NOT_NEEDED);
        }
    }

    pub(super) fn on_segment(
        &mut self,
        now: Instant,
        message: MessageId,
        expected: &Expected,
        envelope: Envelope,
        payload: Bytes,
    ) {
        let (from, transfer) = (expected.sender, expected.transfer);
        match self.ended_set.get(&(from, transfer)) {
            Some(true) => return self.acknowledge(now, from, message),
            Some(false) => return,
            None => {}
        }
        let handle = match self.incoming_by_id.get(&(from, transfer)) {
            Some(handle) => *handle,
            None => match self.begin_incoming(now, from, &envelope) {
                Ok(handle) => handle,
                Err(error) => {
                    self.tell_refusal(now, from, transfer, &error);
                    self.remember_ended(from, transfer, false);
                    self.event(Event::ReceiveFailed {
                        id: transfer,
                        from,
                        error,
                    });
                    return;
                }
            },
        };
        let Some(incoming) = self.incoming.get_mut(&handle) else {
            return;
        };
        for (carrier, octets) in expected.origins.values() {
            incoming.carried(*carrier, *octets);
        }
        let number = envelope.number;
        match incoming.segment(now, message, envelope, payload) {
            Ok(Taken::Kept) => {
                self.drain_incoming(now, handle);
                // in memory it is not safe enough for those who rely on a restart
                let durable = self.is_durable();
                let waiting = match self.incoming.get_mut(&handle).filter(|_| !durable) {
                    Some(incoming) => incoming.acknowledge_waiting(),
                    None => Vec::new(),
                };
                for message in waiting {
                    self.acknowledge(now, from, message);
                }
            }
            Ok(Taken::Again) => {
                if !self.keep_again(handle, number, message) {
                    self.acknowledge(now, from, message);
                }
            }
            Err(error) => self.fail_incoming(now, handle, error),
        }
    }

    fn begin_incoming(
        &mut self,
        now: Instant,
        from: NodeId,
        envelope: &Envelope,
    ) -> Result<u64, TransferError> {
        let limit = self.config.max_incoming;
        if self.incoming.len() >= limit {
            return Err(TransferError::TooMany { limit });
        }
        let (what, limit) = match envelope.kind {
            Kind::File => ("a file", self.config.max_file),
            Kind::Octets => ("a message", self.config.max_message as u64),
        };
        if envelope.total.is_some_and(|t| t > limit) {
            return Err(TransferError::TooLarge { what, limit });
        }
        let handle = self.next_handle;
        self.next_handle += 1;
        let incoming = Incoming::new(now, from, handle, envelope);
        self.incoming.insert(handle, incoming);
        self.incoming_by_id
            .insert((from, envelope.transfer), handle);
        let part = self.keep_arrival(now, handle, from, envelope);
        if envelope.kind == Kind::File {
            let op = SinkOp::Open {
                name: envelope.name.clone(),
                size: envelope.total,
                part,
            };
            self.outputs.push_back(Output::Sink { handle, op });
            self.event(Event::FileStarted {
                id: envelope.transfer,
                from,
                name: crate::safe_name(&envelope.name),
                size: envelope.total,
            });
        }
        Ok(handle)
    }

    /// Hands on what is in order, and takes what its turn has come for then.
    pub(super) fn drain_incoming(&mut self, now: Instant, handle: u64) {
        let transfer = self.incoming.get(&handle).map(|i| (i.from, i.id));
        self.hand_on_in_order(now, handle);
        if let Some(transfer) = transfer {
            self.take_later(now, transfer);
        }
    }

    fn hand_on_in_order(&mut self, now: Instant, handle: u64) {
        let durable = self.is_durable();
        loop {
            let Some(incoming) = self.incoming.get_mut(&handle) else {
                return;
            };
            let piece = match incoming.next_piece() {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(error) => return self.fail_incoming(now, handle, error),
            };
            match incoming.kind {
                Kind::File => {
                    if !piece.payload.is_empty() || durable {
                        let op = SinkOp::Write(piece.payload);
                        self.outputs.push_back(Output::Sink { handle, op });
                    } else if !piece.last {
                        self.written(now, handle);
                    }
                    // a durable node names it when all of it is synced
                    if piece.last && !durable {
                        self.outputs.push_back(Output::Sink {
                            handle,
                            op: SinkOp::Finish,
                        });
                    }
                }
                Kind::Octets => {
                    incoming.content.extend_from_slice(&piece.payload);
                    let (len, last) = (incoming.content.len(), piece.last);
                    let limit = self.config.max_message;
                    if len > limit || self.held_content() > 4 * limit {
                        let limit = limit as u64;
                        let error = TransferError::TooLarge {
                            what: "a message",
                            limit,
                        };
                        return self.fail_incoming(now, handle, error);
                    }
                    if last {
                        if !self.keep_delivery(now, handle) {
                            self.deliver(handle);
                        }
                    } else if !self.keep_piece(handle, &piece.payload) {
                        self.written(now, handle);
                    }
                }
            }
        }
    }

    /// Octets of messages that are not whole yet.
    fn held_content(&self) -> usize {
        self.incoming.values().map(|i| i.content.len()).sum()
    }

    pub(super) fn deliver(&mut self, handle: u64) {
        let Some(incoming) = self.incoming.get_mut(&handle) else {
            return;
        };
        let event = Event::Message {
            id: incoming.id,
            from: incoming.from,
            data: Bytes::from(std::mem::take(&mut incoming.content)),
            paths: incoming.paths.clone(),
            open: false,
        };
        self.outputs.push_back(Output::Deliver { handle, event });
    }

    /// The first of the pieces that were handed on was taken.
    pub(super) fn written(&mut self, now: Instant, handle: u64) {
        let Some(incoming) = self.incoming.get_mut(&handle) else {
            return;
        };
        if incoming.finishing && incoming.untaken.len() <= 1 {
            // the last piece is confirmed when all is done with it
            let (digest, last) = (incoming.digest(), incoming.untaken.front().map(|(_, o)| *o));
            self.keep_whole(handle, digest, last.unwrap_or(0));
            return;
        }
        let Some((message, octets)) = incoming.untaken.pop_front() else {
            return;
        };
        incoming.taken += octets as u64;
        incoming.moved = now;
        let from = incoming.from;
        if !self.keep_written(handle, octets, message)
            && let Some(message) = message
        {
            self.acknowledge(now, from, message);
        }
    }

    /// The octets of one [`SinkOp::Write`] are in the file.
    pub fn sink_written(&mut self, now: Instant, handle: u64) {
        self.written(now, handle);
        if let Some(i) = self.incoming.get(&handle) {
            let event = Event::FileProgress {
                id: i.id,
                received: i.taken,
                size: i.total,
            };
            self.event(event);
        }
        self.settle(now);
    }

    /// The file can't be written. Its sender is told why.
    pub fn sink_failed(&mut self, now: Instant, handle: u64, why: &str) {
        self.fail_incoming(now, handle, TransferError::Local(why.to_owned()));
        self.settle(now);
    }

    /// The application has a message that [`Output::Deliver`] gave out.
    pub fn taken(&mut self, now: Instant, handle: u64) {
        if !self.open_taken(now, handle)
            && let Some(incoming) = self.end_incoming(now, handle, true)
        {
            self.confirm_all(now, incoming);
        }
        self.settle(now);
    }

    pub(super) fn finish_incoming(&mut self, now: Instant, handle: u64, path: PathBuf) {
        let Some(incoming) = self.end_incoming(now, handle, true) else {
            return;
        };
        self.event(Event::FileReceived {
            id: incoming.id,
            from: incoming.from,
            path,
            size: incoming.size(),
            digest: incoming.digest(),
            paths: incoming.paths.clone(),
        });
        self.confirm_all(now, incoming);
    }

    fn confirm_all(&mut self, now: Instant, incoming: Incoming) {
        if let Some((Some(last), _)) = incoming.untaken.back() {
            self.receipts.delivered(now, incoming.from, *last);
        }
        for message in incoming
            .untaken
            .into_iter()
            .filter_map(|(message, _)| message)
        {
            self.acknowledge(now, incoming.from, message);
        }
    }

    fn end_incoming(&mut self, now: Instant, handle: u64, whole: bool) -> Option<Incoming> {
        let again = self.arrival_ended(now, handle);
        let mut incoming = self.incoming.remove(&handle)?;
        incoming
            .untaken
            .extend(again.into_iter().map(|message| (Some(message), 0)));
        self.incoming_by_id.remove(&(incoming.from, incoming.id));
        if let Some(seal) = &mut self.seal {
            seal.forget_transfer(incoming.from, incoming.id);
        }
        self.later.forget((incoming.from, incoming.id));
        self.remember_ended(incoming.from, incoming.id, whole);
        Some(incoming)
    }

    fn tell_refusal(
        &mut self,
        now: Instant,
        to: NodeId,
        transfer: MessageId,
        error: &TransferError,
    ) {
        let code = match error {
            TransferError::TooLarge { .. } | TransferError::TooMany { .. } => {
                ErrorCode::QuotaExceeded
            }
            TransferError::Local(_) => ErrorCode::Refused,
            _ => ErrorCode::Aborted,
        };
        let line = Message::Error {
            code,
            text: error.to_string(),
            about: Some(MessageName::from(transfer)),
        };
        self.send_line(now, to, line);
    }

    pub(super) fn fail_incoming(&mut self, now: Instant, handle: u64, error: TransferError) {
        let Some(incoming) = self.end_incoming(now, handle, false) else {
            return;
        };
        if incoming.kind == Kind::File {
            self.outputs.push_back(Output::Sink {
                handle,
                op: SinkOp::Abort,
            });
        }
        if !matches!(
            error,
            TransferError::Cancelled { .. } | TransferError::Remote { .. }
        ) {
            self.tell_refusal(now, incoming.from, incoming.id, &error);
        }
        self.event(Event::ReceiveFailed {
            id: incoming.id,
            from: incoming.from,
            error,
        });
    }

    pub(super) fn tick_incoming(&mut self, now: Instant) {
        self.early.expire(now);
        self.proofs.expire(now);
        for (from, message, index) in self.early.untold(now) {
            if self.pool.announcement(message).is_none() && self.is_member(from) {
                let line = Message::SharePoolClaim {
                    message: MessageName::from(message),
                    claimer: self.config.id,
                    index: index.get().into(),
                };
                self.send_line(now, from, line);
            }
        }
        let waiting: Vec<u64> = self
            .incoming
            .values()
            .filter(|i| self.may_wait_for(i.handle, i.from))
            .map(|i| i.handle)
            .collect();
        for handle in waiting {
            if let Some(incoming) = self.incoming.get_mut(&handle) {
                // to wait for a sender that is away is no standstill
                incoming.moved = now;
            }
        }
        // the sender knows better what is wrong: it is given the time to say so
        let timeout = self.config.stall_timeout * 3 / 2;
        let late: Vec<(u64, NodeId, Duration)> = self
            .incoming
            .values()
            .map(|i| {
                (
                    i.handle,
                    i.from,
                    now.saturating_duration_since(i.moved),
                    i.finishing,
                )
            })
            .filter(|(_, _, still, finishing)| *still >= timeout && !finishing)
            .map(|(handle, from, still, _)| (handle, from, Duration::from_secs(still.as_secs())))
            .collect();
        for (handle, peer, after) in late {
            self.fail_incoming(now, handle, TransferError::SenderSilent { peer, after });
        }
    }
}
