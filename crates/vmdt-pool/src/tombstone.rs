//! The memory of messages that have ended.
//!
//! A tombstone answers late copies of announcements and shares, so that an ended message does not
//! begin again. Its loss, by time or by the bound on their number, re-opens that door: see the
//! crate's documentation on exactly-once delivery.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vmdt_wire::{MessageId, NodeId};

use crate::timers::after;

#[derive(Debug, Clone)]
struct Tombstone<T> {
    sender: NodeId,
    until: Instant,
    about: T,
}

/// At most `max` tombstones for `ttl` each. When full, a sender that has more than a quarter of
/// them loses its own oldest; otherwise the oldest of all goes.
#[derive(Debug, Clone)]
pub(crate) struct Tombstones<T> {
    max: usize,
    ttl: Duration,
    by_message: BTreeMap<MessageId, Tombstone<T>>,
    by_age: BTreeSet<(Instant, MessageId)>,
    by_sender: BTreeMap<NodeId, BTreeSet<(Instant, MessageId)>>,
}

impl<T> Tombstones<T> {
    pub(crate) fn new(max: usize, ttl: Duration) -> Self {
        Tombstones {
            max,
            ttl,
            by_message: BTreeMap::new(),
            by_age: BTreeSet::new(),
            by_sender: BTreeMap::new(),
        }
    }

    /// The sender of an ended message and what is known about it.
    pub(crate) fn get(&self, message: MessageId) -> Option<(NodeId, &T)> {
        let stone = self.by_message.get(&message)?;
        Some((stone.sender, &stone.about))
    }

    /// The sender, until when it is remembered and what is known about an ended message.
    pub(crate) fn record(&self, message: MessageId) -> Option<(NodeId, Instant, &T)> {
        let stone = self.by_message.get(&message)?;
        Some((stone.sender, stone.until, &stone.about))
    }

    /// How long a new tombstone lasts.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Remembers an ended message and returns those that had to be forgotten for it.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        message: MessageId,
        sender: NodeId,
        about: T,
    ) -> Vec<MessageId> {
        self.insert_until(after(now, self.ttl), message, sender, about)
    }

    /// As [`insert`](Self::insert), for a given time.
    pub(crate) fn insert_until(
        &mut self,
        until: Instant,
        message: MessageId,
        sender: NodeId,
        about: T,
    ) -> Vec<MessageId> {
        let mut gone = Vec::new();
        self.remove(message);
        if self.max == 0 {
            return gone;
        }
        while self.by_message.len() >= self.max {
            let own = self
                .by_sender
                .get(&sender)
                .filter(|own| own.len() > self.max / 4)
                .and_then(|own| own.first());
            let Some(&(_, oldest)) = own.or_else(|| self.by_age.first()) else {
                break;
            };
            self.remove(oldest);
            gone.push(oldest);
        }
        self.by_age.insert((until, message));
        self.by_sender
            .entry(sender)
            .or_default()
            .insert((until, message));
        self.by_message.insert(
            message,
            Tombstone {
                sender,
                until,
                about,
            },
        );
        gone
    }

    /// Forgets those whose time is over and returns them.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<MessageId> {
        let mut gone = Vec::new();
        while let Some(&(until, message)) = self.by_age.first() {
            if until > now {
                break;
            }
            self.remove(message);
            gone.push(message);
        }
        gone
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_age.first().map(|(until, _)| *until)
    }

    fn remove(&mut self, message: MessageId) {
        let Some(stone) = self.by_message.remove(&message) else {
            return;
        };
        self.by_age.remove(&(stone.until, message));
        if let Some(own) = self.by_sender.get_mut(&stone.sender) {
            own.remove(&(stone.until, message));
            if own.is_empty() {
                self.by_sender.remove(&stone.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    fn message(number: u8) -> MessageId {
        MessageId::from_random([number; 12])
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn the_oldest_goes_first_when_full() {
        let now = base();
        let mut stones = Tombstones::new(2, Duration::from_secs(60));
        for (age, sender) in [(1, "a"), (2, "b"), (3, "c")] {
            let at = now + Duration::from_secs(age.into());
            stones.insert(at, message(age), node(sender), age);
        }
        assert_eq!(stones.get(message(1)), None);
        assert_eq!(stones.get(message(2)), Some((node("b"), &2)));
        assert_eq!(stones.get(message(3)), Some((node("c"), &3)));
    }

    #[test]
    fn a_sender_that_floods_loses_its_own() {
        let now = base();
        let mut stones = Tombstones::new(8, Duration::from_secs(60));
        stones.insert(now, message(0), node("quiet"), ());
        for number in 1..=100 {
            stones.insert(
                now + Duration::from_millis(number.into()),
                message(number),
                node("loud"),
                (),
            );
        }
        assert!(stones.get(message(0)).is_some());
        assert!(stones.get(message(100)).is_some());
        assert!(stones.get(message(1)).is_none());
        assert_eq!(stones.by_message.len(), 8);
    }

    #[test]
    fn time_ends_them_exactly_at_their_deadline() {
        let now = base();
        let mut stones = Tombstones::new(8, Duration::from_secs(60));
        stones.insert(now, message(1), node("a"), ());
        let until = stones.next().unwrap();
        assert_eq!(until, now + Duration::from_secs(60));
        stones.expire(until - Duration::from_nanos(1));
        assert!(stones.get(message(1)).is_some());
        stones.expire(until);
        assert!(stones.get(message(1)).is_none());
        assert!(stones.by_age.is_empty() && stones.by_sender.is_empty());
    }
}
