//! Transfers that arrive and outlive the process.
//!
//! A file goes on where its last synced and recorded piece ends; the pieces of a message are kept
//! until it is whole. Shares are not kept: what is not confirmed is still at its sender or its
//! holders, who send it again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use super::records::{Arriving, Key};
use super::{Arrival, Then};
use crate::core::envelope::{Envelope, Kind};
use crate::core::event::{Event, TransferError};
use crate::core::{Core, Output, SinkOp};

/// The running digest of a content, for [`Core::sink_resumed`].
#[derive(Debug, Clone, Default)]
pub struct ContentHash(pub(in crate::core) Box<blake3::Hasher>);

impl ContentHash {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> ContentHash {
        ContentHash::default()
    }

    #[cfg(test)]
    pub(crate) fn finish(&self) -> blake3::Hash {
        self.0.finalize()
    }

    /// With these octets behind what was there.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }
}

/// Segments of one transfer that came again and wait to be confirmed; others are confirmed when they
/// come once more.
const MAX_AGAIN: usize = 256;

/// What the part of a file is called on disk: it is found again after a restart.
fn part_name(local: NodeId, from: NodeId, id: MessageId) -> String {
    format!(".vmdt-{local}-{from}-{id}.part")
}

impl Core {
    /// A transfer begins to arrive. What its file is called while it is not whole, if it is kept.
    pub(in crate::core) fn keep_arrival(
        &mut self,
        now: Instant,
        handle: u64,
        from: NodeId,
        envelope: &Envelope,
    ) -> Option<String> {
        let expiry = u64::try_from(self.config.expiry.as_millis()).unwrap_or(u64::MAX);
        let local = self.config.id;
        let durable = self.durable.as_mut()?;
        let record = Arriving {
            kind: envelope.kind,
            name: envelope.name.clone(),
            total: envelope.total,
            next: (0, 0),
            expires_ms: durable.unix_ms(now).saturating_add(expiry),
            whole: None,
        };
        let arrival = Arrival {
            from,
            id: envelope.transfer,
            record,
            pieces: BTreeMap::new(),
            again: Vec::new(),
            handed: false,
        };
        durable.arrivals.insert(handle, arrival);
        durable.mark(Key::Arriving(from, envelope.transfer));
        Some(part_name(local, from, envelope.transfer))
    }

    /// A piece of a message, not the last, is to be kept. Returns whether it is: otherwise it is
    /// taken at once.
    pub(in crate::core) fn keep_piece(&mut self, handle: u64, piece: &Bytes) -> bool {
        let Some(durable) = &mut self.durable else {
            return false;
        };
        let Some(arrival) = durable.arrivals.get_mut(&handle) else {
            return false;
        };
        let waiting = arrival.pieces.len();
        let number = arrival.record.next.0;
        arrival.record.next = (
            number.wrapping_add(1),
            arrival.record.next.1 + piece.len() as u64,
        );
        arrival.pieces.insert(number, piece.clone());
        debug_assert!(waiting <= 2 * crate::core::MAX_WINDOW);
        let (from, id) = (arrival.from, arrival.id);
        durable.mark(Key::Arriving(from, id));
        durable.mark_then(Key::Piece(from, id, number), Then::Written(handle));
        true
    }

    /// A piece of a file is synced: it is confirmed when the record of it is on disk. Returns false
    /// if nothing is kept: then it is confirmed at once.
    pub(in crate::core) fn keep_written(
        &mut self,
        handle: u64,
        octets: usize,
        message: Option<MessageId>,
    ) -> bool {
        let Some(durable) = &mut self.durable else {
            return false;
        };
        let Some(arrival) = durable.arrivals.get_mut(&handle) else {
            return false;
        };
        if arrival.record.kind != Kind::File {
            // its piece is on disk
            return false;
        }
        let (number, offset) = arrival.record.next;
        arrival.record.next = (number.wrapping_add(1), offset + octets as u64);
        let (from, id) = (arrival.from, arrival.id);
        durable.mark(Key::Arriving(from, id));
        if let Some(message) = message {
            durable.then.push(Then::Confirm(handle, from, message));
        }
        self.confirm_again(handle);
        true
    }

    /// A segment came again under another name. It is confirmed when what it brought first is on
    /// disk. Returns false if nothing is kept.
    pub(in crate::core) fn keep_again(
        &mut self,
        handle: u64,
        number: u32,
        message: MessageId,
    ) -> bool {
        let Some(durable) = &mut self.durable else {
            return false;
        };
        let Some(arrival) = durable.arrivals.get_mut(&handle) else {
            return false;
        };
        if arrival.again.len() < MAX_AGAIN {
            arrival.again.push((number, message));
        }
        self.confirm_again(handle);
        true
    }

    /// Confirms what came again and is kept by now.
    fn confirm_again(&mut self, handle: u64) {
        let finishing = self.incoming.get(&handle).is_none_or(|i| i.finishing);
        let Some(durable) = &mut self.durable else {
            return;
        };
        let Some(arrival) = durable.arrivals.get_mut(&handle).filter(|_| !finishing) else {
            return;
        };
        let next = arrival.record.next.0;
        let (from, id) = (arrival.from, arrival.id);
        let kept = arrival.again.extract_if(.., |(number, _)| *number < next);
        let kept: Vec<MessageId> = kept.map(|(_, message)| message).collect();
        if kept.is_empty() {
            return;
        }
        // behind the record of what is kept, which may not be on disk yet
        durable.mark(Key::Arriving(from, id));
        let then = kept.into_iter().map(|m| Then::Confirm(handle, from, m));
        durable.then.extend(then);
    }

    /// Whether a message that was rebuilt waits to be confirmed: as it came again, or until what it
    /// brought is on disk.
    pub(in crate::core) fn waits_again(
        &self,
        from: NodeId,
        transfer: MessageId,
        message: MessageId,
    ) -> bool {
        let Some(durable) = &self.durable else {
            return false;
        };
        let handle = self.incoming_by_id.get(&(from, transfer));
        let arrival = handle.and_then(|handle| self.arrival(*handle));
        let again = arrival.is_some_and(|a| a.again.iter().any(|(_, m)| *m == message));
        let out = durable.out.iter().flat_map(|out| &out.then);
        let mut confirms = durable.then.iter().chain(out);
        again || confirms.any(|then| matches!(then, Then::Confirm(.., m) if *m == message))
    }

    /// The last piece of a file is synced: when that is on disk, it gets its name.
    pub(in crate::core) fn keep_whole(&mut self, handle: u64, digest: [u8; 32], octets: usize) {
        if let Some(durable) = &mut self.durable
            && let Some(arrival) = durable.arrivals.get_mut(&handle)
        {
            if arrival.record.kind != Kind::File || arrival.record.whole.replace(digest).is_some() {
                return;
            }
            let (number, offset) = arrival.record.next;
            arrival.record.next = (number.wrapping_add(1), offset + octets as u64);
            let key = Key::Arriving(arrival.from, arrival.id);
            durable.mark_then(key, Then::Name(handle));
        }
    }

    pub(super) fn name_kept(&mut self, handle: u64) {
        if self.incoming.contains_key(&handle) {
            let op = SinkOp::Finish;
            self.outputs.push_back(Output::Sink { handle, op });
        }
    }

    /// A file has its name. Returns whether that is to be on disk before it is told.
    pub(in crate::core) fn keep_named(&mut self, now: Instant, handle: u64, path: &Path) -> bool {
        let Some(arrival) = self.arrival(handle) else {
            return false;
        };
        let key = (arrival.from, arrival.id);
        self.end_kept(now, key);
        if let Some(durable) = &mut self.durable
            && let Some(arrival) = durable.arrivals.get_mut(&handle)
        {
            arrival.handed = true;
        }
        // as it will be when the file is told of: a crash before that loses the word, not the file
        self.ended_set.insert(key, true);
        self.ended.push_back(key);
        if let Some(durable) = &mut self.durable {
            let then = Then::Named(handle, path.to_owned());
            durable.mark_then(Key::Ended(key.0, key.1), then);
        }
        true
    }

    pub(super) fn named_kept(&mut self, now: Instant, handle: u64, path: PathBuf) {
        self.finish_incoming(now, handle, path);
    }

    /// A message is whole. Returns whether it is handed over later, when it is on disk that it was.
    pub(in crate::core) fn keep_delivery(&mut self, now: Instant, handle: u64) -> bool {
        let Some(arrival) = self.arrival(handle) else {
            return false;
        };
        let key = (arrival.from, arrival.id);
        self.end_kept(now, key);
        if let Some(durable) = &mut self.durable {
            if let Some(arrival) = durable.arrivals.get_mut(&handle) {
                arrival.handed = true;
            }
            durable.handed.insert(key);
            durable.mark_then(Key::Ended(key.0, key.1), Then::Hand(handle));
        }
        true
    }

    fn arrival(&self, handle: u64) -> Option<&Arrival> {
        self.durable.as_ref()?.arrivals.get(&handle)
    }

    /// The records of a transfer go, and that it ended comes in their place.
    fn end_kept(&mut self, now: Instant, key: (NodeId, MessageId)) {
        // longer than its sender may repeat it
        let until = u64::try_from(self.config.expiry.as_millis()).unwrap_or(u64::MAX / 4);
        let Some(durable) = &mut self.durable else {
            return;
        };
        let until = durable.unix_ms(now).saturating_add(until.saturating_mul(2));
        durable.ended_until.insert(key, until);
        let (from, id) = key;
        durable.mark(Key::Ended(from, id));
        durable.mark(Key::Arriving(from, id));
        if let Some(handle) = self.incoming_by_id.get(&key)
            && let Some(arrival) = durable.arrivals.get(handle)
            && arrival.record.kind == Kind::Octets
        {
            for number in 0..arrival.record.next.0 {
                durable.mark(Key::Piece(from, id, number));
            }
        }
    }

    pub(super) fn hand_kept(&mut self, handle: u64) {
        self.deliver(handle);
    }

    /// A message was not handed over: its end is not on disk.
    pub(super) fn not_handed(&mut self, handle: u64) {
        if let Some(durable) = &mut self.durable
            && let Some(arrival) = durable.arrivals.get(&handle)
        {
            durable.handed.remove(&(arrival.from, arrival.id));
        }
    }

    /// An incoming transfer has ended, one way or the other. Called before it is forgotten.
    ///
    /// The messages that came again and are not confirmed yet.
    pub(in crate::core) fn arrival_ended(&mut self, now: Instant, handle: u64) -> Vec<MessageId> {
        let Some(arrival) = self.arrival(handle) else {
            return Vec::new();
        };
        let key = (arrival.from, arrival.id);
        self.end_kept(now, key);
        let Some(durable) = &mut self.durable else {
            return Vec::new();
        };
        durable.handed.remove(&key);
        let arrival = durable.arrivals.remove(&handle);
        let again = arrival.map(|arrival| arrival.again).unwrap_or_default();
        again.into_iter().map(|(_, message)| message).collect()
    }

    /// A transfer that ended is not remembered any more.
    pub(in crate::core) fn end_forgotten(&mut self, key: (NodeId, MessageId)) {
        if let Some(durable) = &mut self.durable
            && durable.ended_until.remove(&key).is_some()
        {
            durable.mark(Key::Ended(key.0, key.1));
        }
    }

    /// Ended transfers that are remembered.
    pub(in crate::core) fn max_ended(&self) -> usize {
        if self.durable.is_some() {
            super::MAX_ENDED
        } else {
            crate::core::MAX_ENDED
        }
    }

    /// Whether an incoming transfer that stands still may wait for its sender and its holders.
    pub(in crate::core) fn may_wait_for(&self, handle: u64, from: NodeId) -> bool {
        self.arrival(handle).is_some() && (!self.member.is_registered() || !self.is_present(from))
    }

    /// Gives up what did not become whole in time.
    pub(super) fn tick_arrivals(&mut self, now: Instant) {
        let Some(durable) = &self.durable else {
            return;
        };
        let unix_ms = durable.unix_ms(now);
        let over: Vec<(u64, NodeId)> = durable
            .arrivals
            .iter()
            .filter(|(_, arrival)| arrival.record.expires_ms <= unix_ms && !arrival.handed)
            .map(|(handle, arrival)| (*handle, arrival.from))
            .collect();
        for (handle, peer) in over {
            self.fail_incoming(now, handle, TransferError::Expired { peer });
        }
    }

    /// What the parts of the files are called that go on arriving.
    #[must_use]
    pub fn kept_parts(&self) -> std::collections::BTreeSet<String> {
        let arrivals = self.durable.iter().flat_map(|d| d.arrivals.values());
        arrivals
            .filter(|arrival| arrival.record.kind == Kind::File)
            .map(|arrival| part_name(self.config.id, arrival.from, arrival.id))
            .collect()
    }

    /// The part of a file that [`SinkOp::Resume`] asked for is there, cut to its length; `hash` is
    /// that of what it holds. If it isn't: [`Core::sink_failed`].
    pub fn sink_resumed(&mut self, now: Instant, handle: u64, hash: ContentHash) {
        let Some(incoming) = self.incoming.get_mut(&handle) else {
            return;
        };
        incoming.resumed(now, *hash.0);
        self.drain_incoming(now, handle);
        self.settle(now);
    }

    /// Goes on with a transfer of an earlier run.
    pub(super) fn resume_arrival(
        &mut self,
        now: Instant,
        (from, id): (NodeId, MessageId),
        record: Arriving,
        content: Vec<u8>,
    ) {
        let handle = self.next_handle;
        self.next_handle += 1;
        let envelope = Envelope {
            kind: record.kind,
            transfer: id,
            number: 0,
            offset: 0,
            total: record.total,
            name: record.name.clone(),
            last: None,
        };
        let mut incoming = crate::core::incoming::Incoming::new(now, from, handle, &envelope);
        incoming.restore(record.next, record.whole, content);
        self.incoming.insert(handle, incoming);
        self.incoming_by_id.insert((from, id), handle);
        if record.kind == Kind::File {
            let op = SinkOp::Resume {
                name: record.name.clone(),
                part: part_name(self.config.id, from, id),
                length: record.next.1,
                whole: record.whole.is_some(),
            };
            self.outputs.push_back(Output::Sink { handle, op });
            self.event(Event::FileStarted {
                id,
                from,
                name: crate::safe_name(&record.name),
                size: record.total,
            });
            if record.whole.is_some() {
                let op = SinkOp::Finish;
                self.outputs.push_back(Output::Sink { handle, op });
            }
        }
        if let Some(durable) = &mut self.durable {
            let arrival = Arrival {
                from,
                id,
                record,
                pieces: BTreeMap::new(),
                again: Vec::new(),
                handed: false,
            };
            durable.arrivals.insert(handle, arrival);
        }
    }
}
