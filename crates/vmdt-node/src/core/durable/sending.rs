//! Transfers of ours that outlive the process.
//!
//! Kept are: what is sent to whom, how to find the content again (a message's octets are kept
//! themselves), the low mark below which all is confirmed, and where the shares of each segment are.
//! No share and no key of ours is kept: after a restart the content is read again, what is confirmed
//! or safe at its holders is passed over, and the rest is sealed anew. Holders are told to drop what
//! was given to them of it before.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{Message, MessageId, MessageName, NodeId};

use super::records::{Key, Sending, SpreadRecord};
use super::{Send, Spread, Then};
use crate::core::envelope::Kind;
use crate::core::event::{Event, TransferError};
use crate::core::group::OutGroup;
use crate::core::outgoing::{Outgoing, Source, Unplaced};
use crate::core::placement::Carrier;
use crate::core::{Core, Output, SendOptions};

/// How a transfer that outlives the process finds its content again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// It is kept: the octets of a message.
    Octets(Bytes),
    /// The driver finds it again by this. At most 64 KiB.
    Reference(Bytes),
}

/// The longest [`Content::Reference`].
const MAX_REFERENCE: usize = 64 * 1024;

impl Core {
    /// As [`send`](Self::send), for a transfer that is to survive a restart of this node, if it is
    /// [durable](Self::is_durable). Content is asked for once that is ensured.
    ///
    /// # Errors
    /// As [`send`](Self::send); and when the reference to the content is too long.
    #[allow(
        clippy::too_many_arguments,
        reason = "as `send_with`, and what is kept"
    )]
    pub fn send_kept(
        &mut self,
        now: Instant,
        to: NodeId,
        kind: Kind,
        name: &str,
        total: Option<u64>,
        content: Content,
        options: SendOptions,
    ) -> Result<MessageId, TransferError> {
        self.keeping(content, |core| {
            core.send_with(now, to, kind, name, total, options)
        })
    }

    /// As [`send_group`](Self::send_group), for a transfer that is to survive a restart of this
    /// node, if it is [durable](Self::is_durable): it goes on for the receivers that have not
    /// confirmed all of it.
    ///
    /// # Errors
    /// As [`send_group`](Self::send_group); and when the reference to the content is too long.
    #[allow(
        clippy::too_many_arguments,
        reason = "as `send_group`, and what is kept"
    )]
    pub fn send_group_kept(
        &mut self,
        now: Instant,
        to: &[NodeId],
        kind: Kind,
        name: &str,
        total: Option<u64>,
        content: Content,
        options: SendOptions,
    ) -> Result<MessageId, TransferError> {
        self.keeping(content, |core| {
            core.send_group(now, to, kind, name, total, options)
        })
    }

    /// Begins a transfer whose content is kept.
    fn keeping(
        &mut self,
        content: Content,
        begin: impl FnOnce(&mut Core) -> Result<MessageId, TransferError>,
    ) -> Result<MessageId, TransferError> {
        if let Content::Reference(reference) = &content
            && reference.len() > MAX_REFERENCE
        {
            return Err(TransferError::TooLarge {
                what: "the reference to a content",
                limit: MAX_REFERENCE as u64,
            });
        }
        if let Some(durable) = &mut self.durable {
            durable.content = Some(content);
        }
        let begun = begin(self);
        if let Some(durable) = &mut self.durable {
            durable.content = None;
        }
        begun
    }

    /// A transfer begins: if it is to be kept, its content waits until its record is on disk.
    pub(in crate::core) fn keep_outgoing(&mut self, now: Instant, id: MessageId) {
        let expiry = self.config.expiry;
        let segment = self.config.segment;
        let Some((durable, out)) = self.durable.as_mut().zip(self.outgoing.get(&id)) else {
            return;
        };
        let Some(content) = durable.content.take().filter(|_| !out.open) else {
            return;
        };
        let (content, source) = match content {
            Content::Octets(octets) => (Some(octets), Bytes::new()),
            Content::Reference(reference) => (None, reference),
        };
        let expiry = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX);
        let record = Sending {
            cluster: out.cluster,
            to: out.to,
            kind: out.kind,
            name: out.name.clone(),
            total: out.total,
            k: out.threshold.k(),
            n: out.threshold.n(),
            segment: u32::try_from(segment).unwrap_or(u32::MAX),
            low: (0, 0),
            expires_ms: durable.unix_ms(now).saturating_add(expiry),
            source,
            group: out.group.as_ref().map(OutGroup::fates).unwrap_or_default(),
        };
        let send = Send {
            record,
            content,
            ready: false,
            resumed: false,
            done: BTreeMap::new(),
            told_safe: false,
        };
        durable.sends.insert(id, send);
        durable.mark(Key::Content(id));
        durable.mark_then(Key::Sending(id), Then::Begin(id));
    }

    pub(super) fn begin_kept(&mut self, now: Instant, id: MessageId) {
        if let Some(send) = self.kept_send(id) {
            send.ready = true;
            if let Some(out) = self.outgoing.get_mut(&id) {
                out.moved = now;
            }
            self.pump_source(now, id);
        }
    }

    /// Whether a transfer of ours is under way.
    #[must_use]
    pub fn is_sending(&self, id: MessageId) -> bool {
        self.outgoing.contains_key(&id)
    }

    fn kept_send(&mut self, id: MessageId) -> Option<&mut Send> {
        self.durable.as_mut()?.sends.get_mut(&id)
    }

    /// Whether the content of a transfer may be read now.
    pub(in crate::core) fn may_read(&self, id: MessageId) -> bool {
        let kept = self.durable.as_ref().and_then(|d| d.sends.get(&id));
        kept.is_none_or(|send| {
            let joined = || {
                let cluster = self.member.cluster(send.record.cluster);
                cluster.is_some_and(|c| c.info().is_some() && c.state().is_active())
            };
            send.ready && (!send.resumed || joined())
        })
    }

    /// Octets of a segment of a transfer.
    pub(in crate::core) fn segment_of(&self, id: MessageId) -> usize {
        let kept = self.durable.as_ref().and_then(|d| d.sends.get(&id));
        match (kept, self.outgoing.get(&id)) {
            // a later run cuts the content at the same places
            (Some(send), _) => usize::try_from(send.record.segment).unwrap_or(self.config.segment),
            (None, Some(out)) if self.config.segment_grows => self.segment_by_rate(out),
            (None, _) => self.config.segment,
        }
    }

    /// When the shares of a transfer expire, in seconds since 1970.
    pub(in crate::core) fn expires_at(&self, id: MessageId) -> Option<u64> {
        let kept = self.durable.as_ref()?.sends.get(&id)?;
        Some(kept.record.expires_ms / 1000)
    }

    /// Passes over a segment of an earlier run that is confirmed, or safe at its holders. Returns
    /// whether it did.
    pub(in crate::core) fn pass_over(&mut self, now: Instant, id: MessageId) -> bool {
        let Some(durable) = &self.durable else {
            return false;
        };
        let (Some(send), Some(out)) = (durable.sends.get(&id), self.outgoing.get_mut(&id)) else {
            return false;
        };
        let under_way = |message: &MessageId| {
            let here = self.spreads.get(message).map(|spread| spread.number);
            let left = || durable.spreads.get(message).map(|s| s.record.number);
            here.or_else(left) == Some(out.next)
        };
        let known = out.next < send.record.low.0
            || send.done.contains_key(&out.next)
            || (send.resumed && out.in_flight.iter().any(under_way));
        if !known {
            return false;
        }
        let Some(Unplaced { data, last }) = out.unplaced.take() else {
            return false;
        };
        out.hasher.update(&data);
        out.digest = last.then(|| *out.hasher.finalize().as_bytes());
        out.next = out.next.wrapping_add(1);
        out.offset += data.len() as u64;
        out.moved = now;
        self.finish_outgoing(now, id);
        true
    }

    /// The shares of a segment were placed, or placed anew.
    pub(in crate::core) fn keep_spread(&mut self, message: MessageId) {
        let Some((durable, spread)) = self.durable.as_mut().zip(self.spreads.get(&message)) else {
            return;
        };
        if !durable.sends.contains_key(&spread.transfer) {
            return;
        }
        let placed = spread.holders();
        let kept = durable.spreads.entry(message).or_insert_with(|| Spread {
            record: SpreadRecord {
                transfer: spread.transfer,
                to: spread.to,
                number: spread.number,
                octets: spread.octets,
                safe: false,
                holders: Vec::new(),
                open: match &spread.group {
                    None => Vec::new(),
                    Some(_) => spread.awaited(),
                },
            },
            stored: BTreeMap::new(),
            left: false,
        });
        // whoever had one may still have it
        let mut all: BTreeSet<NodeId> = kept.record.holders.iter().copied().collect();
        let before = all.len();
        all.extend(placed);
        if all.len() != before {
            kept.record.holders = all.into_iter().collect();
            durable.mark(Key::Spread(message));
        }
        self.weigh_safety(message);
    }

    /// Says anew whether enough shares of a segment are on disk at their holders.
    fn weigh_safety(&mut self, message: MessageId) {
        let Some((durable, spread)) = self.durable.as_mut().zip(self.spreads.get(&message)) else {
            return;
        };
        let Some(kept) = durable.spreads.get_mut(&message) else {
            return;
        };
        let here = |(index, holder): (&NonZeroU8, &NodeId)| {
            spread.placement.carrier(*index) == Some(Carrier::Member(*holder))
        };
        let stored = kept.stored.iter().filter(|share| here(*share)).count();
        let safe = stored >= usize::from(spread.k);
        if std::mem::replace(&mut kept.record.safe, safe) != safe {
            durable.mark(Key::Spread(message));
        }
    }

    /// Shares of ours that are on disk at this holder.
    pub(in crate::core) fn stored_at(&self, holder: NodeId) -> BTreeSet<(MessageId, NonZeroU8)> {
        let spreads = self.durable.iter().flat_map(|durable| &durable.spreads);
        spreads
            .flat_map(|(message, kept)| kept.stored.iter().map(|(i, at)| (*message, *i, *at)))
            .filter(|(_, _, at)| *at == holder)
            .map(|(message, index, _)| (message, index))
            .collect()
    }

    /// A holder has a share of ours on disk.
    pub(in crate::core) fn on_stored(
        &mut self,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
    ) {
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        if spread.placement.carrier(index) != Some(Carrier::Member(from)) {
            return;
        }
        let transfer = spread.transfer;
        let Some(durable) = &mut self.durable else {
            return;
        };
        if let Some(kept) = durable.spreads.get_mut(&message) {
            kept.stored.insert(index, from);
        }
        self.weigh_safety(message);
        self.tell_if_safe(transfer);
    }

    /// A holder says that a share of ours is not on disk there, or not any more.
    pub(super) fn not_stored(&mut self, message: MessageId, index: NonZeroU8, holder: NodeId) {
        let kept = self
            .durable
            .as_mut()
            .and_then(|durable| durable.spreads.get_mut(&message));
        if let Some(kept) = kept
            && kept.stored.get(&index) == Some(&holder)
        {
            kept.stored.remove(&index);
            self.weigh_safety(message);
        }
    }

    /// Tells the application once that a transfer does not need this node any more.
    fn tell_if_safe(&mut self, id: MessageId) {
        let Some((durable, out)) = self.durable.as_mut().zip(self.outgoing.get(&id)) else {
            return;
        };
        let safe = |message: &MessageId| {
            let kept = durable.spreads.get(message);
            kept.is_some_and(|kept| kept.record.safe)
        };
        let all =
            out.source == Source::Ended && out.unplaced.is_none() && out.in_flight.iter().all(safe);
        if !all {
            return;
        }
        let to = out.to;
        if let Some(send) = durable.sends.get_mut(&id)
            && !std::mem::replace(&mut send.told_safe, true)
        {
            self.event(Event::Deposited { id, to });
        }
    }

    /// A segment is confirmed.
    pub(in crate::core) fn kept_acknowledged(&mut self, id: MessageId, number: u32, octets: u64) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let Some(send) = durable.sends.get_mut(&id) else {
            return;
        };
        send.done.insert(number, octets);
        let mut moved = false;
        while let Some(octets) = send.done.remove(&send.record.low.0) {
            send.record.low.0 = send.record.low.0.wrapping_add(1);
            send.record.low.1 += octets;
            moved = true;
        }
        if moved {
            durable.mark(Key::Sending(id));
        }
    }

    /// What became of a transfer at its receivers has changed.
    pub(in crate::core) fn keep_fates(&mut self, id: MessageId) {
        let Some((durable, out)) = self.durable.as_mut().zip(self.outgoing.get(&id)) else {
            return;
        };
        let (Some(send), Some(group)) = (durable.sends.get_mut(&id), &out.group) else {
            return;
        };
        send.record.group = group.fates();
        durable.mark(Key::Sending(id));
    }

    /// Fewer receivers than before are to confirm a segment.
    pub(in crate::core) fn keep_open(&mut self, message: MessageId) {
        let Some((durable, spread)) = self.durable.as_mut().zip(self.spreads.get(&message)) else {
            return;
        };
        let open = spread.awaited();
        if let Some(kept) = durable.spreads.get_mut(&message)
            // the last one ends the record
            && !open.is_empty()
            && spread.group.is_some()
            && kept.record.open != open
        {
            kept.record.open = open;
            durable.mark(Key::Spread(message));
        }
    }

    /// A segment whose shares are with its holders alone.
    pub(in crate::core) fn left(&self, message: MessageId) -> Option<&SpreadRecord> {
        let kept = self.durable.as_ref()?.spreads.get(&message)?;
        kept.left.then_some(&kept.record)
    }

    /// Makes room in the window of a transfer whose receivers are away: what is at its holders, all
    /// of it on disk there, need not be kept here. The rest of the content follows in its place.
    pub(in crate::core) fn leave_with_holders(&mut self, id: MessageId) {
        let Some((durable, out)) = self.durable.as_ref().zip(self.outgoing.get(&id)) else {
            return;
        };
        let here = out.in_flight.iter().filter_map(|m| self.spreads.get(m));
        let count = here.clone().count();
        if count < out.window || out.source == Source::Ended || !durable.sends.contains_key(&id) {
            return;
        }
        let stored = |spread: &&crate::core::Spread| {
            let Some(kept) = durable.spreads.get(&spread.id) else {
                return false;
            };
            let at = |(index, carrier)| match carrier {
                Carrier::Member(holder) => kept.stored.get(&index) == Some(&holder),
                Carrier::Direct | Carrier::Server => false,
            };
            kept.record.safe && spread.placement.iter().all(at)
        };
        let mut leave: Vec<(u32, MessageId)> = here
            .filter(|spread| self.are_absent(&spread.awaited()))
            .filter(stored)
            .map(|spread| (spread.number, spread.id))
            .collect();
        leave.sort_unstable();
        leave.truncate(count + 1 - out.window);
        for (_, message) in leave {
            let Some(spread) = self.spreads.remove(&message) else {
                continue;
            };
            for peer in spread.holders() {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.forget(message);
                }
            }
            self.relayed = self.relayed.saturating_sub(spread.relayed);
            if let Some(kept) = self
                .durable
                .as_mut()
                .and_then(|durable| durable.spreads.get_mut(&message))
            {
                kept.left = true;
            }
            self.explained.keep(id, message, spread.placement);
        }
    }

    /// The receiver has a segment whose shares are with their holders alone. Returns whether it is
    /// one.
    pub(in crate::core) fn left_acknowledged(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
    ) -> bool {
        let Some(durable) = &mut self.durable else {
            return false;
        };
        let of_receiver = |kept: &&mut Spread| kept.left && kept.record.awaited().contains(&from);
        let Some(kept) = durable.spreads.get_mut(&message).filter(of_receiver) else {
            return false;
        };
        let record = &mut kept.record;
        let (id, number, octets) = (record.transfer, record.number, record.octets);
        let waits = record.open.len() > 1;
        if waits {
            record.open.retain(|node| *node != from);
            durable.mark(Key::Spread(message));
        }
        if let Some(group) = self
            .outgoing
            .get_mut(&id)
            .and_then(|out| out.group.as_mut())
            && group.awaits(from)
        {
            group.confirmed(now, from);
        }
        if waits {
            // others have not
            if let Some(out) = self.outgoing.get_mut(&id) {
                out.moved = now;
            }
            self.pump_source(now, id);
            self.note_reached(id);
            return true;
        }
        self.drop_left(now, message);
        self.kept_acknowledged(id, number, octets);
        if let Some(out) = self.outgoing.get_mut(&id) {
            out.delivered += octets;
            out.moved = now;
            let progress = out.progress();
            self.outputs.push_back(Output::Progress {
                transfer: id,
                progress,
            });
            self.pump_source(now, id);
            self.finish_outgoing(now, id);
        }
        true
    }

    /// Holders drop what they have of a segment of an earlier run.
    pub(super) fn drop_left(&mut self, now: Instant, message: MessageId) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let Some(kept) = durable.spreads.remove(&message) else {
            return;
        };
        durable.mark(Key::Spread(message));
        if let Some(out) = self.outgoing.get_mut(&kept.record.transfer) {
            out.in_flight.remove(&message);
        }
        for holder in kept.record.holders {
            let line = Message::SharePoolRemove {
                message: MessageName::from(message),
            };
            self.send_line(now, holder, line);
        }
    }

    /// A segment is not under way any more.
    pub(in crate::core) fn forget_spread(&mut self, message: MessageId) {
        if let Some(durable) = &mut self.durable
            && durable.spreads.remove(&message).is_some()
        {
            durable.mark(Key::Spread(message));
        }
    }

    /// A transfer has ended.
    pub(in crate::core) fn forget_outgoing(
        &mut self,
        now: Instant,
        id: MessageId,
        to: NodeId,
        error: Option<&TransferError>,
    ) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let Some(send) = durable.sends.remove(&id) else {
            return;
        };
        durable.mark(Key::Sending(id));
        if send.content.is_some() {
            durable.mark(Key::Content(id));
        }
        let left: Vec<MessageId> = durable
            .spreads
            .iter()
            .filter(|(_, kept)| kept.left && kept.record.transfer == id)
            .map(|(message, _)| *message)
            .collect();
        for message in left {
            self.drop_left(now, message);
        }
        if send.resumed {
            // nobody may hold a handle to it
            self.event(match error {
                None => Event::Delivered { id, to },
                Some(error) => Event::SendFailed {
                    id,
                    to,
                    error: error.clone(),
                },
            });
        }
    }

    /// Whether a transfer that stands still may wait: a receiver or the server is away, and its time
    /// is not over.
    pub(in crate::core) fn may_wait(&self, out: &Outgoing) -> bool {
        let away = || out.awaited().into_iter().any(|to| !self.is_present(to));
        self.is_kept(out.id) && (!self.member.is_registered() || away() || !self.may_read(out.id))
    }

    /// Whether one of several receivers may be silent: it, or the server, is away.
    pub(in crate::core) fn may_wait_for_receiver(&self, out: &Outgoing, peer: NodeId) -> bool {
        self.is_kept(out.id)
            && (!self.member.is_registered() || !self.is_present(peer) || !self.may_read(out.id))
    }

    fn is_kept(&self, id: MessageId) -> bool {
        let durable = self.durable.as_ref();
        durable.is_some_and(|durable| durable.sends.contains_key(&id))
    }

    /// Whether shares for the receivers are to be left with others, as they are all away.
    pub(in crate::core) fn is_away(&self, out: &Outgoing) -> bool {
        !out.open && self.are_absent(&out.awaited())
    }

    /// Whether a node is away, as far as a durable node knows: what it is to get can wait.
    pub(in crate::core) fn is_absent(&self, node: NodeId) -> bool {
        self.durable.is_some()
            && self.member.is_registered()
            && !self.is_present(node)
            && self.rdt.stats(node).is_none()
    }

    /// Whether all of these are.
    pub(in crate::core) fn are_absent(&self, nodes: &[NodeId]) -> bool {
        nodes.iter().all(|node| self.is_absent(*node))
    }

    /// Gives up transfers whose time is over, and takes back segments whose holders do not deliver.
    pub(in crate::core) fn tick_kept(&mut self, now: Instant) {
        let Some(durable) = &self.durable else {
            return;
        };
        let unix_ms = durable.unix_ms(now);
        let over: Vec<(MessageId, NodeId)> = durable
            .sends
            .iter()
            .filter(|(_, send)| send.record.expires_ms <= unix_ms)
            .map(|(id, send)| (*id, send.record.to))
            .collect();
        for (id, peer) in over {
            let group = self.outgoing.get(&id).filter(|out| out.group.is_some());
            let awaited = group.map(Outgoing::awaited).unwrap_or_default();
            for peer in awaited {
                // who has it has it
                let error = TransferError::Expired { peer };
                self.fail_one_of_several(now, id, peer, &error, true);
            }
            self.fail_outgoing(now, id, TransferError::Expired { peer }, true);
        }
        self.tick_arrivals(now);
    }

    /// A transfer stands still although its receiver is there: if segments of it were left with
    /// holders, these may be gone. What was left, at `holder` if one is named, is sent anew. Returns
    /// whether there was anything.
    pub(in crate::core) fn take_back(
        &mut self,
        now: Instant,
        id: MessageId,
        holder: Option<NodeId>,
    ) -> bool {
        let Some(durable) = &self.durable else {
            return false;
        };
        let left: Vec<MessageId> = durable
            .spreads
            .iter()
            .filter(|(_, kept)| kept.left && kept.record.transfer == id)
            .filter(|(_, kept)| holder.is_none_or(|at| kept.record.holders.contains(&at)))
            .map(|(message, _)| *message)
            .collect();
        let reading = |out: &Outgoing| out.source == Source::Asked;
        if left.is_empty() || self.outgoing.get(&id).is_none_or(reading) {
            return false;
        }
        for message in left {
            let open = self.left(message).map(|record| record.open.clone());
            let group = self
                .outgoing
                .get_mut(&id)
                .and_then(|out| out.group.as_mut());
            if let Some(group) = group {
                group.taken_back(now, &open.unwrap_or_default());
            }
            self.drop_left(now, message);
        }
        let Some(out) = self.outgoing.get_mut(&id) else {
            return false;
        };
        (out.next, out.offset, out.digest, out.unplaced) = (0, 0, None, None);
        out.hasher = blake3::Hasher::new();
        out.source = Source::Waiting;
        out.moved = now;
        if let Some(send) = self.kept_send(id) {
            send.resumed = true;
        }
        self.tell_resumed(id);
        self.pump_source(now, id);
        true
    }

    /// Tells the driver to supply the content of a transfer from its beginning.
    pub(super) fn tell_resumed(&mut self, id: MessageId) {
        let Some(durable) = &self.durable else {
            return;
        };
        if let Some(send) = durable.sends.get(&id) {
            let content = match &send.content {
                Some(octets) => Content::Octets(octets.clone()),
                None => Content::Reference(send.record.source.clone()),
            };
            let output = Output::Resumed {
                transfer: id,
                to: match send.record.group.as_slice() {
                    [] => vec![send.record.to],
                    group => group.iter().map(|(id, _)| *id).collect(),
                },
                total: send.record.total,
                delivered: send.record.low.1,
                content,
            };
            self.outputs.push_back(output);
        }
    }
}
