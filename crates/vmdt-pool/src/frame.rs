//! What both machines are built around: what came early, what has ended, deadlines, the journal.

use std::time::Instant;

use vmdt_wire::{MessageId, NodeId};

use crate::config::EarlyConfig;
use crate::early::{EarlyRequests, EarlyShares};
use crate::journal::{Journal, Key};
use crate::timers::Timers;
use crate::tombstone::Tombstones;

/// `T` is what is remembered of an ended message, `K` names a deadline.
#[derive(Debug, Clone)]
pub(crate) struct Frame<T, K> {
    pub(crate) early: EarlyShares,
    pub(crate) requests: EarlyRequests,
    pub(crate) tombstones: Tombstones<T>,
    pub(crate) timers: Timers<K>,
    pub(crate) journal: Journal,
}

impl<T, K: Ord + Copy> Frame<T, K> {
    pub(crate) fn new(early: &EarlyConfig, tombstones: Tombstones<T>, journal: Journal) -> Self {
        Frame {
            early: EarlyShares::new(early),
            requests: EarlyRequests::new(early),
            tombstones,
            timers: Timers::new(),
            journal,
        }
    }

    /// The earliest deadline of all.
    pub(crate) fn next(&self) -> Option<Instant> {
        [
            self.timers.next(),
            self.early.next(),
            self.requests.next(),
            self.tombstones.next(),
            self.journal.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Forgets what is due; the machine's own deadlines are [`Timers::pop_due`]'s.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.early.expire(now);
        self.requests.expire(now);
        self.journal.handle_timeout(now);
        for message in self.tombstones.expire(now) {
            self.journal.mark(Key::Tombstone(message));
        }
    }

    /// Leaves a tombstone of `message` and nothing else.
    pub(crate) fn bury(&mut self, now: Instant, message: MessageId, sender: NodeId, about: T) {
        self.early.forget(message);
        self.requests.forget(message);
        self.journal.mark(Key::Tombstone(message));
        for gone in self.tombstones.insert(now, message, sender, about) {
            self.journal.mark(Key::Tombstone(gone));
        }
    }
}
