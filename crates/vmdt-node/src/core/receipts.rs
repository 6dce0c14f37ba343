//! Signed receipts (`docs/protocol.md`, section 12.11): as a holder this node confirms the shares
//! it took and passed on, as an addressee the messages it has; as a sender it checks and keeps
//! what others confirm, so that it can show who carried what.
//!
//! Nobody waits for a receipt. A signature covers up to 64 statements and is made at most five
//! times a second for each sender, so that a stream of messages costs next to nothing.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU8;
use std::time::Instant;

use bytes::Bytes;
use vmdt_pool::Stored;
use vmdt_seal::handover::Handovers;
use vmdt_seal::identity::{PublicIdentity, SecretIdentity};
use vmdt_seal::receipt::{Fact, MAX_STATEMENTS, Receipts as Signed, Statement};
use vmdt_wire::{Message, MessageId, NodeId};

use super::outgoing::Spread;
use super::peer::{Path, Peer};
use super::seal::Digests;
use super::statements::Queue;
use super::{Core, Event};

/// Shares taken whose handing on may still be confirmed; beyond it the oldest are forgotten.
const MAX_TAKEN: usize = 8192;
/// Last segments of incoming transfers; beyond it the oldest are forgotten.
const MAX_OPENED: usize = 1024;
/// Shares at holders that receipts are kept of, over all transfers; beyond it the oldest segments
/// are forgotten.
const MAX_SHARES: usize = 32 * 1024;
/// Segments that receipts are kept of, over all transfers.
const MAX_SEGMENTS: usize = 16 * 1024;

/// A signed confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confirmed {
    /// When, in milliseconds since 1970, by the clock of who confirms.
    pub when_ms: u64,
    /// The signed octets ([`vmdt_seal::receipt::Receipts`]), which prove it to others. They may
    /// confirm other messages of this node beside it.
    pub receipts: Bytes,
}

/// A share that was given to a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedShare {
    /// Which.
    pub index: NonZeroU8,
    /// Who was given it.
    pub holder: NodeId,
    /// Its word that it took the share.
    pub taken: Option<Confirmed>,
    /// Its word that it has passed the share on to the addressee.
    pub handed_on: Option<Confirmed>,
}

/// One segment of a transfer: a message of its own on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedSegment {
    /// Its message id.
    pub message: MessageId,
    /// Its number, from 0.
    pub number: u32,
    /// The shares that members were given. Those that went to the addressee directly have no
    /// holder and do not stand here.
    pub shares: Vec<SignedShare>,
}

/// What others have confirmed of a transfer that this node sent, signed by them. What is missing
/// was not confirmed, or not yet: receipts follow what they confirm within a second.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedReceipts {
    /// The transfer.
    pub transfer: MessageId,
    /// The addressee; of several the first.
    pub to: NodeId,
    /// Its word that it has all of it.
    pub delivered: Option<Confirmed>,
    /// The other addressees of a message to several, and their words.
    pub others: Vec<(NodeId, Option<Confirmed>)>,
    /// The segments, in order.
    pub segments: Vec<SignedSegment>,
    /// Segments whose receipts are not kept any more.
    pub forgotten: u64,
}

#[derive(Debug)]
struct Given {
    digest: [u8; 32],
    /// Who was given it: more than one if it was moved.
    holders: BTreeMap<NodeId, (Option<Confirmed>, Option<Confirmed>)>,
}

#[derive(Debug)]
struct Segment {
    number: u32,
    manifest_digest: [u8; 32],
    shares: BTreeMap<NonZeroU8, Given>,
}

#[derive(Debug)]
struct Sent {
    /// The addressees, the first one first.
    to: Vec<NodeId>,
    segments: BTreeMap<MessageId, Segment>,
    delivered: BTreeMap<NodeId, Confirmed>,
    /// The last segment, once it was sent.
    last: Option<MessageId>,
    forgotten: u64,
}

/// Why receipts were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("they are malformed, or their signature is not right")]
    Signature,
    #[error("they are not of the key of who brought them")]
    OtherKey,
    #[error("they are for another sender")]
    OtherSender,
    #[error("they confirm what their signer was not given")]
    NotGiven,
    #[error("they confirm another share or message than was sent")]
    Digest,
}

/// All receipts of a node: to be given, and given to it.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    pending: Queue<Statement>,
    taken: BTreeMap<(MessageId, NonZeroU8), (NodeId, [u8; 32])>,
    taken_order: VecDeque<(MessageId, NonZeroU8)>,
    /// Last segments that were opened: the digest of each one's manifest, and whether the
    /// application has the whole transfer.
    opened: BTreeMap<MessageId, ([u8; 32], bool)>,
    opened_order: VecDeque<MessageId>,
    sent: BTreeMap<MessageId, Sent>,
    by_message: BTreeMap<MessageId, MessageId>,
    sent_order: VecDeque<MessageId>,
    /// Entries of holders, over all segments.
    shares: usize,
}

impl Receipts {
    // ---- to be given

    /// A share of `sender` is here.
    fn remember(&mut self, share: (MessageId, NonZeroU8), sender: NodeId, digest: [u8; 32]) {
        if self.taken.insert(share, (sender, digest)).is_none() {
            self.taken_order.push_back(share);
        }
        while self.taken_order.len() > MAX_TAKEN {
            if let Some(oldest) = self.taken_order.pop_front() {
                self.taken.remove(&oldest);
            }
        }
    }

    /// A share is kept, on disk where that is asked for.
    pub(crate) fn stored(&mut self, now: Instant, message: MessageId, index: NonZeroU8) {
        self.note_share(now, (message, index), Fact::Taken(index));
    }

    /// A share that was taken is at its receiver.
    pub(crate) fn handed_on(&mut self, now: Instant, message: MessageId, index: NonZeroU8) {
        self.note_share(now, (message, index), Fact::HandedOn(index));
    }

    fn note_share(&mut self, now: Instant, share: (MessageId, NonZeroU8), fact: Fact) {
        if let Some((sender, digest)) = self.taken.get(&share).copied() {
            let statement = Statement {
                message: share.0,
                fact,
                digest,
            };
            self.pending.note(now, sender, statement);
        }
    }

    /// The last segment of a transfer was opened.
    pub(crate) fn opened(&mut self, message: MessageId, manifest_digest: [u8; 32]) {
        if self
            .opened
            .insert(message, (manifest_digest, false))
            .is_none()
        {
            self.opened_order.push_back(message);
        }
        while self.opened_order.len() > MAX_OPENED {
            if let Some(oldest) = self.opened_order.pop_front() {
                self.opened.remove(&oldest);
            }
        }
    }

    /// The application has the transfer that ends with this segment.
    pub(crate) fn delivered(&mut self, now: Instant, sender: NodeId, message: MessageId) {
        if let Some((digest, delivered)) = self.opened.get_mut(&message) {
            *delivered = true;
            let statement = Statement {
                message,
                fact: Fact::Delivered,
                digest: *digest,
            };
            self.pending.note(now, sender, statement);
        }
    }

    /// The sender has not heard that a segment is here.
    pub(crate) fn again(&mut self, now: Instant, sender: NodeId, message: MessageId) {
        if self.opened.get(&message).is_some_and(|(_, whole)| *whole) {
            self.delivered(now, sender, message);
        }
    }

    /// When something is to be signed, or forgotten.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.poll_timeout()
    }

    /// Signs what is due; `all`: what is not, too. `reaches` says whether a sender can be told
    /// now.
    fn sign(
        &mut self,
        now: Instant,
        unix_ms: u64,
        identity: &SecretIdentity,
        all: bool,
        reaches: impl Fn(NodeId) -> bool,
    ) -> Vec<(NodeId, Bytes)> {
        let due = self.pending.take_due(now, all, MAX_STATEMENTS, reaches);
        let sign = |(sender, statements): (NodeId, Vec<Statement>)| {
            // between one and as many as may be
            let signed = Signed::sign(identity, sender, unix_ms, &statements).ok()?;
            Some((sender, signed.octets().clone()))
        };
        due.into_iter().filter_map(sign).collect()
    }

    // ---- given to this node

    /// A segment was sealed and spread.
    pub(crate) fn sent(&mut self, spread: &mut Spread) {
        if let Some(digests) = spread.digests.take() {
            let place = (spread.number, spread.last);
            let group = spread
                .group
                .as_ref()
                .map(|group| group.receivers().to_vec());
            let to = group.unwrap_or_else(|| vec![spread.to]);
            self.remember_sent((spread.transfer, spread.id), to, place, digests);
        }
    }

    /// A message was sent by express: its receipt is about the transfer itself.
    pub(crate) fn sent_express(&mut self, transfer: MessageId, to: NodeId, digest: [u8; 32]) {
        let digests = Digests {
            manifest: digest,
            shares: Vec::new(),
        };
        self.remember_sent((transfer, transfer), vec![to], (0, true), digests);
    }

    fn remember_sent(
        &mut self,
        (transfer, message): (MessageId, MessageId),
        to: Vec<NodeId>,
        (number, last): (u32, bool),
        Digests { manifest, shares }: Digests,
    ) {
        let sent = self.sent.entry(transfer).or_insert_with(|| Sent {
            to,
            segments: BTreeMap::new(),
            delivered: BTreeMap::new(),
            last: None,
            forgotten: 0,
        });
        if last {
            sent.last = Some(message);
        }
        self.shares += shares.len();
        let given = |(index, digest)| {
            let holders = BTreeMap::new();
            (index, Given { digest, holders })
        };
        let segment = Segment {
            number,
            manifest_digest: manifest,
            shares: shares.into_iter().map(given).collect(),
        };
        sent.segments.insert(message, segment);
        self.by_message.insert(message, transfer);
        self.sent_order.push_back(message);
        while self.sent_order.len() > 1
            && (self.sent_order.len() > MAX_SEGMENTS || self.shares > MAX_SHARES)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(message) = self.sent_order.pop_front() else {
            return;
        };
        let Some(transfer) = self.by_message.remove(&message) else {
            return;
        };
        let Some(sent) = self.sent.get_mut(&transfer) else {
            return;
        };
        if let Some(segment) = sent.segments.remove(&message) {
            self.shares -= segment.shares.len();
            sent.forgotten += 1;
        }
        if sent.segments.is_empty() {
            self.sent.remove(&transfer);
        }
    }

    /// A share went to a holder.
    pub(crate) fn given(&mut self, message: MessageId, index: NonZeroU8, holder: NodeId) {
        let transfer = self.by_message.get(&message);
        if let Some(given) = transfer
            .and_then(|transfer| self.sent.get_mut(transfer))
            .and_then(|sent| sent.segments.get_mut(&message))
            .and_then(|segment| segment.shares.get_mut(&index))
            // a share is moved a few times at most, each to another member
            && given.holders.len() < usize::from(u8::MAX)
        {
            given.holders.entry(holder).or_default();
        }
    }

    /// Takes what a member confirms. Those transfers are returned that their addressee has
    /// confirmed now. Nothing is taken of receipts in which anything is wrong; what they say of
    /// messages that are not known any more is left out.
    fn accept(
        &mut self,
        local: NodeId,
        from: NodeId,
        key: Option<PublicIdentity>,
        octets: &[u8],
    ) -> Result<Vec<MessageId>, Refused> {
        let signed = Signed::parse(octets).map_err(|_| Refused::Signature)?;
        if signed.signer().node_id() != from || key != Some(signed.signer()) {
            return Err(Refused::OtherKey);
        }
        if signed.sender() != local {
            return Err(Refused::OtherSender);
        }
        for statement in signed.statements() {
            self.judge(from, statement)?;
        }
        let confirmed = Confirmed {
            when_ms: signed.when_ms(),
            receipts: signed.octets().clone(),
        };
        let mut delivered = Vec::new();
        for statement in signed.statements() {
            let message = statement.message;
            let Some(transfer) = self.by_message.get(&message).copied() else {
                continue;
            };
            let Some(sent) = self.sent.get_mut(&transfer) else {
                continue;
            };
            match statement.fact {
                Fact::Delivered if !sent.delivered.contains_key(&from) => {
                    sent.delivered.insert(from, confirmed.clone());
                    delivered.push(transfer);
                }
                Fact::Delivered => {}
                Fact::Taken(index) | Fact::HandedOn(index) => {
                    let holder = sent
                        .segments
                        .get_mut(&message)
                        .and_then(|segment| segment.shares.get_mut(&index))
                        .and_then(|given| given.holders.get_mut(&from));
                    let Some((taken, handed_on)) = holder else {
                        continue;
                    };
                    let slot = match statement.fact {
                        Fact::Taken(_) => taken,
                        _ => handed_on,
                    };
                    // what was said first stays
                    slot.get_or_insert_with(|| confirmed.clone());
                }
            }
        }
        Ok(delivered)
    }

    /// Whether a statement can be true, as far as it is known here.
    fn judge(&self, from: NodeId, statement: &Statement) -> Result<(), Refused> {
        let Some(sent) = self
            .by_message
            .get(&statement.message)
            .and_then(|transfer| self.sent.get(transfer))
        else {
            return Ok(());
        };
        let Some(segment) = sent.segments.get(&statement.message) else {
            return Ok(());
        };
        let (index, digest) = match statement.fact {
            // what went by express before it took the ordinary way may have arrived both ways
            Fact::Delivered
                if !sent.to.contains(&from)
                    || (sent.last != Some(statement.message)
                        && self.by_message.get(&statement.message) != Some(&statement.message)) =>
            {
                return Err(Refused::NotGiven);
            }
            Fact::Delivered => (None, Some(segment.manifest_digest)),
            Fact::Taken(index) | Fact::HandedOn(index) => {
                let given = segment.shares.get(&index);
                (Some(given), given.map(|given| given.digest))
            }
        };
        if let Some(given) = index
            && given.is_none_or(|given| !given.holders.contains_key(&from))
        {
            return Err(Refused::NotGiven);
        }
        if digest != Some(statement.digest) {
            return Err(Refused::Digest);
        }
        Ok(())
    }

    /// What is known of a transfer, or of the transfer that a segment belongs to.
    fn find(&self, id: MessageId) -> Option<SignedReceipts> {
        let transfer = self.by_message.get(&id).copied().unwrap_or(id);
        let sent = self.sent.get(&transfer)?;
        let mut segments: Vec<SignedSegment> = sent
            .segments
            .iter()
            .map(|(message, segment)| SignedSegment {
                message: *message,
                number: segment.number,
                shares: segment
                    .shares
                    .iter()
                    .flat_map(|(index, given)| {
                        let share = |(holder, slots): (&NodeId, &(_, _))| SignedShare {
                            index: *index,
                            holder: *holder,
                            taken: Option::clone(&slots.0),
                            handed_on: Option::clone(&slots.1),
                        };
                        given.holders.iter().map(share)
                    })
                    .collect(),
            })
            .collect();
        segments.sort_by_key(|segment| segment.number);
        let (to, others) = sent.to.split_first()?;
        let word = |id: &NodeId| sent.delivered.get(id).cloned();
        Some(SignedReceipts {
            transfer,
            to: *to,
            delivered: word(to),
            others: others.iter().map(|id| (*id, word(id))).collect(),
            segments,
            forgotten: sent.forgotten,
        })
    }
}

/// Whether a peer can be told something now.
pub(super) fn reaches(peers: &BTreeMap<NodeId, Peer>, id: NodeId) -> bool {
    peers.get(&id).is_some_and(|peer| peer.path == Path::Up)
}

impl Core {
    /// What others have confirmed of a transfer that this node sent, each with a signature; the
    /// id is the transfer's, or that of one of its segments. `None` in profile 1.0, for what this
    /// node did not send, and for what is not kept any more: receipts of the last 32,768 shares
    /// at holders are.
    #[must_use]
    pub fn receipts(&self, id: MessageId) -> Option<SignedReceipts> {
        self.receipts.find(id)
    }

    /// The pool has a share, or will have it. It is confirmed when it is kept.
    pub(super) fn note_taken(
        &mut self,
        now: Instant,
        (message, index): (MessageId, NonZeroU8),
        stored: Stored,
        digest: Option<[u8; 32]>,
    ) {
        let sender = self.pool.announcement(message).map(|ann| ann.sender);
        if let (Some(sender), Some(digest)) = (sender, digest) {
            match stored {
                Stored::New | Stored::Duplicate => {
                    self.receipts.remember((message, index), sender, digest);
                    self.receipts.stored(now, message, index);
                }
                Stored::Pending => self.receipts.remember((message, index), sender, digest),
                _ => {}
            }
        }
    }

    /// Signs and sends what is due, or all there is.
    pub(super) fn send_receipts(&mut self, now: Instant, all: bool) {
        let Some(seal) = &self.seal else { return };
        let peers = &self.peers;
        let reaches = |id| reaches(peers, id);
        let unix_ms = seal.unix_ms(now);
        let signed = self
            .receipts
            .sign(now, unix_ms, seal.identity(), all, reaches);
        for (sender, octets) in signed {
            let receipts = octets.to_vec();
            self.send_line(now, sender, Message::Receipts { receipts });
        }
    }

    /// A member confirms something, to the sender of messages or to their receiver.
    pub(super) fn on_receipts(&mut self, now: Instant, from: NodeId, octets: &[u8]) {
        if Handovers::is_one(octets) {
            return self.on_handovers(now, from, octets);
        }
        let key = self.pinned_key(from);
        match self.receipts.accept(self.config.id, from, key, octets) {
            Ok(delivered) => {
                self.stats.receipts += 1;
                for id in delivered {
                    self.event(Event::Confirmed { id, by: from });
                }
            }
            Err(error) => {
                self.stats.bad_receipts += 1;
                tracing::debug!(%error, %from, "receipts were refused");
            }
        }
    }
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
