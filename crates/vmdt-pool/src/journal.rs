//! What a machine has changed and not yet seen on disk.
//!
//! The journal keeps no values: it keeps keys whose value on disk is out of date. When a batch is
//! asked for, the machine renders the present value of each, so many changes of one message cost
//! one write, and what is on disk after a batch is a state that the machine was in.
//!
//! One batch is out at a time, and keys are written in the order of their first change. So a holder
//! that marks a message's own record before its shares never has a share on disk without it, and a
//! sender that marks it after them never has a message on disk without its shares.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::MessageId;

use crate::storage::{Anchor, Change, OpId, Persist, StorageError};
use crate::timers::after;

/// A batch is closed when it has reached this many octets.
const BATCH_OCTETS: usize = 4 << 20;
/// A batch is closed when it has this many changes.
const BATCH_CHANGES: usize = 4096;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Names a record of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A message: its announcement and what happened to it.
    Entry(MessageId),
    /// The octets of one share.
    Share(MessageId, NonZeroU8),
    /// A message that has ended.
    Tombstone(MessageId),
}

impl Key {
    /// The machine's letter, `e`, `s` or `t`, the message id's 16 octets, for a share its index.
    pub(crate) fn octets(self, space: u8) -> Bytes {
        let (kind, message, index) = match self {
            Key::Entry(message) => (b'e', message, None),
            Key::Share(message, index) => (b's', message, Some(index)),
            Key::Tombstone(message) => (b't', message, None),
        };
        let mut octets = vec![space, kind];
        octets.extend(message.field());
        octets.extend(index.map(NonZeroU8::get));
        Bytes::from(octets)
    }

    /// Reads what [`octets`](Self::octets) wrote; `None` for anything else.
    pub(crate) fn read(space: u8, octets: &[u8]) -> Option<Key> {
        let (&[own, kind], rest) = octets.split_first_chunk()?;
        let (field, rest) = rest.split_first_chunk::<16>()?;
        let message = MessageId::from_field(*field).ok()?;
        match (own == space, kind, rest) {
            (true, b'e', []) => Some(Key::Entry(message)),
            (true, b't', []) => Some(Key::Tombstone(message)),
            (true, b's', [index]) => Some(Key::Share(message, NonZeroU8::new(*index)?)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Journal {
    /// `None`: the machine lives in memory only.
    anchor: Option<Anchor>,
    space: u8,
    queue: VecDeque<Key>,
    queued: BTreeSet<Key>,
    out: Option<(OpId, Vec<Key>)>,
    next: u64,
    failures: u32,
    /// Until when nothing is written, and why.
    pause: Option<(Instant, StorageError)>,
}

impl Journal {
    pub(crate) fn new(space: u8, anchor: Option<Anchor>) -> Self {
        Journal {
            anchor,
            space,
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            out: None,
            next: 1,
            failures: 0,
            pause: None,
        }
    }

    /// Present when the machine is durable.
    pub(crate) fn anchor(&self) -> Option<Anchor> {
        self.anchor
    }

    /// The record under `key` is out of date.
    pub(crate) fn mark(&mut self, key: Key) {
        if self.anchor.is_some() && self.queued.insert(key) {
            self.queue.push_back(key);
        }
    }

    /// Whether `key` will be written again after the batch that is out.
    pub(crate) fn is_queued(&self, key: Key) -> bool {
        self.queued.contains(&key)
    }

    /// Whether `key` is neither queued nor out.
    pub(crate) fn is_clean(&self, key: Key) -> bool {
        let out = self.out.as_ref();
        !self.is_queued(key) && !out.is_some_and(|(_, keys)| keys.contains(&key))
    }

    /// Whether everything is on disk.
    pub(crate) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.out.is_none()
    }

    /// Why the last batch failed, until the pause after it is over.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.pause.map(|(_, reason)| reason)
    }

    /// The keys that the next batches will write, in key order.
    pub(crate) fn queued(&self) -> impl Iterator<Item = Key> + '_ {
        self.queued.iter().copied()
    }

    /// The next batch; `render` gives the present value of a key, or `None` if it has none.
    pub(crate) fn poll(&mut self, mut render: impl FnMut(Key) -> Option<Bytes>) -> Option<Persist> {
        if self.out.is_some() || self.pause.is_some() || self.queue.is_empty() {
            return None;
        }
        let (mut keys, mut changes, mut octets) = (Vec::new(), Vec::new(), 0_usize);
        while octets < BATCH_OCTETS && changes.len() < BATCH_CHANGES {
            let Some(key) = self.queue.pop_front() else {
                break;
            };
            self.queued.remove(&key);
            let name = key.octets(self.space);
            let change = match render(key) {
                Some(value) => Change::Put { key: name, value },
                None => Change::Delete { key: name },
            };
            octets = octets.saturating_add(change.octets());
            keys.push(key);
            changes.push(change);
        }
        let op = OpId(self.next);
        self.next = self.next.saturating_add(1);
        self.out = Some((op, keys));
        Some(Persist { op, changes })
    }

    /// The batch is on disk: its keys. Nothing for a batch that is not out.
    pub(crate) fn persisted(&mut self, op: OpId) -> Vec<Key> {
        let Some((_, keys)) = self.out.take_if(|(out, _)| *out == op) else {
            return Vec::new();
        };
        self.failures = 0;
        keys
    }

    /// The batch is not on disk: its keys, which are queued again before all others and tried after
    /// a pause.
    pub(crate) fn failed(&mut self, now: Instant, op: OpId, reason: StorageError) -> Vec<Key> {
        let Some((_, keys)) = self.out.take_if(|(out, _)| *out == op) else {
            return Vec::new();
        };
        let again: BTreeSet<Key> = keys.iter().copied().collect();
        self.queue.retain(|queued| !again.contains(queued));
        for &key in keys.iter().rev() {
            self.queued.insert(key);
            self.queue.push_front(key);
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        self.pause = Some((after(now, pause.min(LONGEST_PAUSE)), reason));
        self.failures = self.failures.saturating_add(1);
        keys
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.pause.map(|(until, _)| until)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.pause.is_some_and(|(until, _)| until <= now) {
            self.pause = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn journal() -> (Journal, Instant) {
        let at = Instant::now();
        let unix = Duration::from_secs(1);
        (Journal::new(b'p', Some(Anchor { at, unix })), at)
    }

    fn entry(number: u8) -> Key {
        Key::Entry(MessageId::from_random([number; 12]))
    }

    fn keys(persist: &Persist) -> Vec<Key> {
        let read = |change: &Change| Key::read(b'p', change.key());
        persist.changes.iter().filter_map(read).collect()
    }

    #[test]
    fn keys_are_read_as_they_were_written_and_others_are_refused() {
        let message = MessageId::from_random([3; 12]);
        let index = NonZeroU8::new(7).unwrap();
        for key in [
            Key::Entry(message),
            Key::Share(message, index),
            Key::Tombstone(message),
        ] {
            let octets = key.octets(b'p');
            assert_eq!(Key::read(b'p', &octets), Some(key));
            assert_eq!(Key::read(b'c', &octets), None);
            assert_eq!(Key::read(b'p', &octets[..octets.len() - 1]), None);
            let longer = [&octets[..], &[1]].concat();
            assert_ne!(Key::read(b'p', &longer), Some(key));
        }
        assert_eq!(Key::read(b'p', b""), None);
    }

    #[test]
    fn one_batch_is_out_at_a_time_and_many_marks_make_one_write() {
        let (mut journal, _) = journal();
        journal.mark(entry(1));
        journal.mark(entry(2));
        journal.mark(entry(1));
        let first = journal.poll(|_| None).unwrap();
        assert_eq!(keys(&first), [entry(1), entry(2)]);
        journal.mark(entry(3));
        assert_eq!(journal.poll(|_| None), None);
        assert!(journal.persisted(OpId(99)).is_empty());
        assert_eq!(journal.persisted(first.op), [entry(1), entry(2)]);
        assert!(journal.persisted(first.op).is_empty());
        let second = journal.poll(|_| None).unwrap();
        assert_eq!(keys(&second), [entry(3)]);
        assert!(!journal.is_settled());
        journal.persisted(second.op);
        assert!(journal.is_settled());
    }

    #[test]
    fn a_failed_batch_comes_again_first_after_a_growing_pause() {
        let (mut journal, now) = journal();
        journal.mark(entry(1));
        journal.mark(entry(2));
        let first = journal.poll(|_| None).unwrap();
        journal.mark(entry(3));
        journal.mark(entry(2));
        assert_eq!(
            journal.failed(now, first.op, StorageError::NoSpace).len(),
            2
        );
        assert_eq!(journal.failure(), Some(StorageError::NoSpace));
        assert_eq!(journal.poll(|_| None), None);
        let until = journal.next().unwrap();
        assert_eq!(until, now + FIRST_PAUSE);
        journal.handle_timeout(until);
        let again = journal.poll(|_| None).unwrap();
        assert_eq!(keys(&again), [entry(1), entry(2), entry(3)]);
        journal.failed(now, again.op, StorageError::Damaged);
        assert_eq!(journal.next(), Some(now + FIRST_PAUSE * 2));
    }

    #[test]
    fn a_batch_is_closed_at_its_bounds() {
        let (mut journal, _) = journal();
        for number in 0..4 {
            journal.mark(entry(number));
        }
        let value = Bytes::from(vec![0; BATCH_OCTETS / 2]);
        let batch = journal.poll(|_| Some(value.clone())).unwrap();
        assert_eq!(keys(&batch), [entry(0), entry(1)]);
    }

    #[test]
    fn a_machine_in_memory_keeps_no_journal() {
        let mut journal = Journal::new(b'p', None);
        journal.mark(entry(1));
        assert_eq!(journal.poll(|_| None), None);
        assert!(journal.is_settled());
    }
}
