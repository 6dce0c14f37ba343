//! Messages that are too early: segments so far ahead of the one that is missing that a receiver
//! can't put them in order yet. A sender that is there does not get so far ahead, but what it left
//! with holders may come in any order, and be more than a receiver keeps in memory.
//!
//! Their shares stay where they are. The announcements are kept, and when their turn has come they
//! are taken as if they came then, and the shares asked for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use vmdt_pool::Announcement;
use vmdt_wire::{FlowId, Message, MessageId, MessageName, NodeId};

use super::Core;
use super::config::MAX_WINDOW;

/// Octets of announcements that are kept, about; beyond it the oldest are forgotten: their holders
/// offer the shares again.
const MAX_OCTETS: usize = 8 * 1024 * 1024;

/// A message and who told of it.
#[derive(Debug)]
struct Early {
    transfer: (NodeId, MessageId),
    number: u64,
    from: NodeId,
    announcement: Announcement,
}

/// Announcements of messages that are too early.
#[derive(Debug, Default)]
pub(crate) struct Later {
    by_message: BTreeMap<MessageId, Early>,
    by_transfer: BTreeMap<(NodeId, MessageId), BTreeMap<u64, MessageId>>,
    order: VecDeque<MessageId>,
    octets: usize,
}

fn cost(announcement: &Announcement) -> usize {
    let listed = announcement.shares.len() * 48;
    256 + announcement.details.len() + announcement.label.len() + listed
}

impl Later {
    fn keep(&mut self, early: Early) {
        let message = early.announcement.message;
        // the sender's own word stays
        let known = self.by_message.get(&message);
        if known.is_some_and(|known| known.announcement.version > early.announcement.version) {
            return;
        }
        self.remove(message);
        self.octets += cost(&early.announcement);
        let numbers = self.by_transfer.entry(early.transfer).or_default();
        let replaced = numbers.insert(early.number, message);
        self.by_message.insert(message, early);
        self.order.push_back(message);
        if let Some(replaced) = replaced {
            // sealed anew by its sender
            self.remove(replaced);
        }
        while self.octets > MAX_OCTETS {
            let Some(oldest) = self.order.front().copied() else {
                return;
            };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, message: MessageId) -> Option<Early> {
        let early = self.by_message.remove(&message)?;
        self.octets -= cost(&early.announcement);
        self.order.retain(|kept| *kept != message);
        if let Some(numbers) = self.by_transfer.get_mut(&early.transfer) {
            numbers.retain(|_, kept| *kept != message);
            if numbers.is_empty() {
                self.by_transfer.remove(&early.transfer);
            }
        }
        Some(early)
    }

    /// The first message of a transfer, if it is before this number.
    fn next(&mut self, transfer: (NodeId, MessageId), before: u64) -> Option<Early> {
        let first = self.by_transfer.get(&transfer)?.first_key_value();
        let message = first.filter(|(number, _)| **number < before)?.1;
        self.remove(*message)
    }

    /// Forgets a transfer that has ended.
    pub(crate) fn forget(&mut self, transfer: (NodeId, MessageId)) {
        for message in self
            .by_transfer
            .remove(&transfer)
            .unwrap_or_default()
            .into_values()
        {
            self.remove(message);
        }
    }

    /// Whether a message is too early.
    pub(crate) fn holds(&self, message: MessageId) -> bool {
        self.by_message.contains_key(&message)
    }
}

impl Core {
    /// The first segment of a transfer that can't be put in order yet.
    fn too_early_from(&self, from: NodeId, transfer: MessageId) -> u64 {
        let handle = self.incoming_by_id.get(&(from, transfer));
        let incoming = handle.and_then(|handle| self.incoming.get(handle));
        let next = incoming.map_or(0, super::incoming::Incoming::next);
        u64::from(next) + MAX_WINDOW as u64
    }

    /// Keeps an announcement whose message is too early. Returns whether it is.
    pub(super) fn is_too_early(
        &mut self,
        now: Instant,
        from: NodeId,
        announcement: &Announcement,
        transfer: MessageId,
        number: u64,
    ) -> bool {
        let sender = announcement.sender;
        if number < self.too_early_from(sender, transfer) {
            return false;
        }
        let message = announcement.message;
        self.later.keep(Early {
            transfer: (sender, transfer),
            number,
            from,
            announcement: announcement.clone(),
        });
        self.stop_arriving(now, message);
        self.early.drop_all(message);
        true
    }

    /// Takes the messages of a transfer whose turn has come, and asks for their shares.
    pub(super) fn take_later(&mut self, now: Instant, transfer: (NodeId, MessageId)) {
        let before = self.too_early_from(transfer.0, transfer.1);
        while let Some(early) = self.later.next(transfer, before) {
            let message = early.announcement.message;
            let active = early
                .announcement
                .shares
                .iter()
                .filter(|share| share.active);
            let claims: Vec<_> = active.map(|share| (share.holder, share.index)).collect();
            self.on_announcement(now, early.from, early.announcement);
            if !self.labels.contains_key(&message) {
                continue;
            }
            for (holder, index) in claims {
                if holder == self.config.id || !self.is_present(holder) {
                    continue;
                }
                let line = Message::SharePoolClaim {
                    message: MessageName::from(message),
                    claimer: self.config.id,
                    index: index.get().into(),
                };
                self.send_line(now, holder, line);
            }
        }
    }

    /// Whether a flow brings a share of a message that is too early.
    pub(super) fn comes_too_early(&self, flow: FlowId) -> bool {
        self.later.holds(flow.message) && !self.holds_for_others(flow)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn id(n: u32) -> MessageId {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&n.to_be_bytes());
        MessageId::from_random(octets)
    }

    fn early(message: u32, transfer: u32, number: u64, version: u32) -> Early {
        Early {
            transfer: ("alice".parse().unwrap(), id(transfer)),
            number,
            from: "carol".parse().unwrap(),
            announcement: Announcement {
                message: id(message),
                version,
                details: Bytes::from_static(&[0; 700]),
                ..Announcement::default()
            },
        }
    }

    #[test]
    fn messages_are_given_out_in_order_once_their_turn_has_come() {
        let mut later = Later::default();
        let transfer = early(1, 9, 0, 0).transfer;
        for (message, number) in [(1, 80), (2, 70), (3, 75)] {
            later.keep(early(message, 9, number, 0));
        }
        later.keep(early(4, 10, 66, 0));
        assert!(later.next(transfer, 70).is_none());
        assert_eq!(later.next(transfer, 76).unwrap().number, 70);
        assert_eq!(later.next(transfer, 76).unwrap().number, 75);
        assert!(later.next(transfer, 76).is_none());
        assert!(later.holds(id(1)) && !later.holds(id(2)));
        later.forget(transfer);
        assert!(!later.holds(id(1)) && later.holds(id(4)));
    }

    #[test]
    fn the_senders_word_stays_and_a_segment_sealed_anew_takes_the_place_of_the_old_one() {
        let mut later = Later::default();
        later.keep(early(1, 9, 70, 2));
        later.keep(early(1, 9, 70, 0));
        assert_eq!(later.by_message[&id(1)].announcement.version, 2);
        later.keep(early(2, 9, 70, 0));
        assert!(later.holds(id(2)) && !later.holds(id(1)));
        assert_eq!(
            later.by_transfer.values().map(BTreeMap::len).sum::<usize>(),
            1
        );
    }

    #[test]
    fn their_octets_are_bounded_and_all_is_counted_back() {
        let mut later = Later::default();
        for message in 0..20_000 {
            later.keep(early(message, message % 7, message.into(), 0));
        }
        assert!(later.octets <= MAX_OCTETS);
        assert!(later.holds(id(19_999)) && !later.holds(id(0)));
        for transfer in 0..7 {
            later.forget(early(0, transfer, 0, 0).transfer);
        }
        assert_eq!(later.octets, 0);
        assert!(later.order.is_empty() && later.by_message.is_empty());
    }
}
