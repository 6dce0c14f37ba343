//! Shares held for others: confirmed when they are on disk, kept until their receiver is there, and
//! dropped when it says that it has the message.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use vmdt_pool::{Announcement, PoolEvent};
use vmdt_wire::{FlowId, Message, MessageId, MessageName, NodeId};

use super::MAX_CONFIRMED;
use crate::core::Core;
use crate::core::placement::Carrier;
use crate::core::seal::segment_number;

/// How often senders are asked about what is held of theirs.
pub(super) const NOTES_EVERY: Duration = Duration::from_secs(600);
/// Shares that are spoken of at once, fewer than there may be lines for one peer; of others another
/// time.
const MAX_NOTES: usize = 512;
/// Shares that are in the queue of a receiver that comes back, at the most.
const MAX_HANDED: usize = 256;

impl Core {
    /// A share that is held is to go to its receiver: at once if that is there, or when it is.
    pub(in crate::core) fn offered(
        &mut self,
        now: Instant,
        message: MessageId,
        index: NonZeroU8,
        receiver: NodeId,
    ) {
        let there = self.is_present(receiver) || self.rdt.stats(receiver).is_some();
        let wait = self.durable.is_some() && !there;
        let details = self.pool.announcement(message).filter(|_| wait);
        let number = details.map_or(0, |ann| segment_number(&ann.details));
        match &mut self.durable {
            Some(durable) if wait => {
                let waiting = durable.waiting.entry(receiver).or_default();
                waiting.insert((number, message, index));
            }
            _ => self.hand_on(now, message, receiver, index, false),
        }
    }

    /// A member is there: what waited for it goes on, and it is asked about what is held of its own.
    pub(in crate::core) fn peer_came(&mut self, now: Instant, peer: NodeId) {
        self.holder_back(peer);
        self.watch_health(now, peer);
        self.hand_what_waited(now, peer);
        self.receiver_came(now, peer);
        self.compare_notes(now, Some(peer));
    }

    /// Hands on what waited for a receiver that is there, the first segments first: it puts them in
    /// order. So many at once as its queue takes well; the rest follows as they are delivered.
    pub(in crate::core) fn hand_what_waited(&mut self, now: Instant, receiver: NodeId) {
        loop {
            let Some(durable) = &mut self.durable else {
                return;
            };
            let Some(waiting) = durable.waiting.get_mut(&receiver) else {
                return;
            };
            let peer = self.peers.get(&receiver);
            if peer.is_some_and(|peer| peer.queue.len() >= MAX_HANDED) {
                return;
            }
            let Some((_, message, index)) = waiting.pop_first() else {
                durable.waiting.remove(&receiver);
                return;
            };
            self.hand_on(now, message, receiver, index, false);
        }
    }

    /// Tells senders which of their shares are here, and asks for those that are not: a line that
    /// said that a message has ended may have been lost with a session, or with a process. What a
    /// sender does not know any more it answers with SHARE_POOL_REMOVE.
    fn compare_notes(&mut self, now: Instant, only: Option<NodeId>) {
        let local = self.config.id;
        let Some(durable) = &self.durable else {
            return;
        };
        let after = durable.notes_after.filter(|_| only.is_none());
        let own = |ann: &&Announcement| only.is_none_or(|only| only == ann.sender);
        let held: Vec<(NodeId, MessageId, NonZeroU8)> = self
            .pool
            .messages()
            .filter(own)
            .filter(|ann| after.is_none_or(|after| ann.message > after))
            .flat_map(|ann| {
                let mut here = self.pool.indices(ann.message).peekable();
                // all that was here was moved: whether it has ended is asked about any of them
                let other = here.peek().is_none().then(|| ann.shares.first());
                let other = other.flatten().map(|share| share.index);
                here.chain(other).map(|i| (ann.sender, ann.message, i))
            })
            .take(MAX_NOTES)
            .collect();
        if let Some(durable) = self.durable.as_mut().filter(|_| only.is_none()) {
            // the rest the next time, then from the beginning
            let last = held.last().map(|(_, message, _)| *message);
            durable.notes_after = last.filter(|_| held.len() == MAX_NOTES);
        }
        for (sender, message, index) in held {
            if !self.is_present(sender) {
                continue;
            }
            if self.pool.has_stored(message, index) {
                self.confirm_stored(now, message, index, sender);
            } else {
                let line = Message::SharePoolClaim {
                    message: MessageName::from(message),
                    claimer: local,
                    index: index.get().into(),
                };
                self.send_line(now, sender, line);
            }
        }
    }

    /// When senders are asked next about what is held of theirs.
    pub(super) fn notes_at(&self) -> Option<Instant> {
        let durable = self.durable.as_ref()?;
        let held = self.pool.usage().entries > 0;
        held.then_some(durable.notes_at)
    }

    /// Repairs, and asks about what has been held for long.
    pub(in crate::core) fn look_after_shares(&mut self, now: Instant) {
        self.repair(now);
        self.look_for_lost(now);
        if self.notes_at().is_none_or(|at| at > now) {
            return;
        }
        if let Some(durable) = &mut self.durable {
            durable.notes_at = now + NOTES_EVERY;
        }
        self.compare_notes(now, None);
    }

    /// A holder speaks of a share of ours that nothing is known of here: it need not keep it.
    pub(in crate::core) fn is_unknown_to_us(
        &mut self,
        now: Instant,
        holder: NodeId,
        message: MessageId,
    ) -> bool {
        let durable = self.durable.as_ref();
        let known = self.spreads.contains_key(&message)
            || durable.is_some_and(|durable| durable.spreads.contains_key(&message));
        if !known {
            let line = Message::SharePoolRemove {
                message: MessageName::from(message),
            };
            self.send_line(now, holder, line);
        }
        !known
    }

    /// The sender of a message asks for a share that it gave this node to hold. If it is not here,
    /// since it was lost with a disk or a process, it is asked for again.
    pub(in crate::core) fn ask_for_lost(
        &mut self,
        now: Instant,
        sender: NodeId,
        message: MessageId,
        index: NonZeroU8,
    ) {
        let local = self.config.id;
        let placed = self.pool.announcement(message).is_some_and(|ann| {
            let share = ann.placement(index);
            ann.sender == sender && share.is_some_and(|share| share.holder == local)
        });
        if placed && !self.pool.indices(message).any(|here| here == index) {
            let line = Message::SharePoolClaim {
                message: MessageName::from(message),
                claimer: local,
                index: index.get().into(),
            };
            self.send_line(now, sender, line);
        }
    }

    /// A holder has no share that was given to it: it gets it again.
    pub(in crate::core) fn holder_lacks(
        &mut self,
        now: Instant,
        holder: NodeId,
        message: MessageId,
        index: NonZeroU8,
    ) {
        let Some(spread) = self.spreads.get_mut(&message) else {
            let _ = self.is_unknown_to_us(now, holder, message);
            return;
        };
        let under_way = self
            .peers
            .get(&holder)
            .is_some_and(|peer| peer.under_way(message, index).is_some());
        if spread.placement.carrier(index) == Some(Carrier::Member(holder))
            && !under_way
            && let Some(own) = spread.shares.get_mut(&index)
        {
            own.sent = false;
            self.not_stored(message, index, holder);
            self.hand_out(now, message);
        }
    }

    /// What the durable pool says beyond its offers.
    pub(in crate::core) fn on_kept(&mut self, now: Instant, event: PoolEvent) {
        match event {
            PoolEvent::Stored {
                message,
                index,
                from,
            } => {
                self.remade_stored(now, message, index);
                self.confirm_stored(now, message, index, from);
            }
            PoolEvent::StoreFailed {
                message,
                index,
                from,
                reason,
            } => {
                self.remade_lost(message, index);
                self.tell_no_room(now, from, message, &reason.to_string());
            }
            _ => {}
        }
    }

    /// Tells a sender that a share of its is on disk here.
    pub(in crate::core) fn confirm_stored(
        &mut self,
        now: Instant,
        message: MessageId,
        index: NonZeroU8,
        sender: NodeId,
    ) {
        if self.durable.is_some() && self.is_present(sender) {
            let line = Message::SharePoolStored {
                message: MessageName::from(message),
                holder: self.config.id,
                index: index.get().into(),
            };
            self.send_line(now, sender, line);
        }
    }

    /// A receiver says that it has a message: if this node holds shares of it for that receiver,
    /// they are not needed any more.
    pub(in crate::core) fn receiver_has(
        &mut self,
        now: Instant,
        message: MessageId,
        receiver: NodeId,
    ) {
        // only of what is known: an ack that overtakes everything is repeated
        if self.pool.announcement(message).is_some()
            && let Err(error) = self.pool.ack(now, message, receiver)
        {
            self.stats.bad_lines += 1;
            tracing::debug!(%error, "an acknowledgement was refused");
        }
    }

    // ---- the receiver's part

    /// Remembers who holds shares of a message that was rebuilt, until it is confirmed.
    pub(in crate::core) fn note_holders(&mut self, message: MessageId) {
        let local = self.config.id;
        let Some(durable) = &mut self.durable else {
            return;
        };
        let Some(ann) = self.collector.announcement(message) else {
            return;
        };
        let others = |holder: &NodeId| *holder != local && *holder != ann.sender;
        let holders = ann.shares.iter().map(|share| share.holder).filter(others);
        durable.holders.insert(message, holders.collect());
        while durable.holders.len() > MAX_CONFIRMED {
            durable.holders.pop_first();
        }
    }

    /// A message is confirmed to its sender; where that is away, to the holders of its shares as
    /// well, who would wait for the sender's word otherwise.
    pub(in crate::core) fn note_confirmed(
        &mut self,
        now: Instant,
        sender: NodeId,
        message: MessageId,
    ) {
        let there = self.is_present(sender);
        let Some(durable) = &mut self.durable else {
            return;
        };
        if durable.confirmed.insert(message) {
            durable.confirmed_order.push_back(message);
        }
        while durable.confirmed_order.len() > MAX_CONFIRMED {
            if let Some(old) = durable.confirmed_order.pop_front() {
                durable.confirmed.remove(&old);
            }
        }
        let holders = durable.holders.remove(&message).unwrap_or_default();
        for holder in holders.into_iter().filter(|_| !there) {
            self.tell_have(now, holder, message);
        }
    }

    /// A share comes that is not needed: who brings it did not hear that its message is confirmed.
    pub(in crate::core) fn not_needed_from(&mut self, now: Instant, from: NodeId, flow: FlowId) {
        let confirmed = self
            .durable
            .as_ref()
            .is_some_and(|durable| durable.confirmed.contains(&flow.message));
        if confirmed {
            self.tell_have(now, from, flow.message);
        }
    }

    pub(in crate::core) fn tell_have(&mut self, now: Instant, to: NodeId, message: MessageId) {
        let line = Message::SharePoolAck {
            message: MessageName::from(message),
            receiver: self.config.id,
        };
        self.send_line(now, to, line);
    }
}
