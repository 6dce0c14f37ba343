//! What outlives the process: shares held for others, what is sent, what arrives, and what has
//! ended. The core calls no store: it hands out batches ([`Output::Persist`]) and hears how they
//! went ([`Core::persisted`]). One batch is out at a time, and all that changes meanwhile goes with
//! the next one, so that many changes cost one sync.
//!
//! The pool of held shares is a durable machine of `vmdt-pool` with records of its own. The rest is
//! here, after the same manner: [`Durable`] keeps the keys of records that are out of date, and what
//! is to happen once they are on disk ([`Then`]).
//!
//! | promise | how it is kept |
//! |---|---|
//! | a holder's confirmation survives it | SHARE_POOL_STORED leaves when share and announcement are on disk |
//! | a segment that was confirmed is here after a restart | confirmed when the file is synced and the record of how far it is, or the piece itself, is on disk |
//! | a message is delivered at most once | the record that it ended is on disk before the application has it |
//! | its clusters are there before a server answers | what is known of them is written a second after it changed, and recalled |
//! | what is sent goes on | nothing is read before the transfer's record is on disk; what is confirmed moves its low mark |
//! | the end of what is sent is told | at once, and its record goes after that: a crash between has it told once more |

mod arriving;
mod holding;
pub(crate) mod records;
mod remaking;
mod repairing;
mod restore;
mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_control::RequestId;
use vmdt_pool::repair::Watch;
use vmdt_pool::{Anchor, Change, OpId, Persist, StorageError};
use vmdt_wire::{ClusterId, MessageId, NodeId};

pub use arriving::ContentHash;
pub use restore::{Recovered, RestoreError};
pub use sending::Content;

use super::event::{Event, TransferError};
use super::{Core, Output};
use records::{Arriving, End, Key, Sending, SpreadRecord};

/// The pause after the first failure of the store; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Ended transfers that are remembered on disk. Beyond it the oldest are forgotten.
pub(super) const MAX_ENDED: usize = 65_536;
/// Messages whose confirmation is remembered, to tell holders that offer their shares again.
const MAX_CONFIRMED: usize = 8192;

/// What is to happen when the records that are out of date are on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// Read the content of a transfer.
    Begin(MessageId),
    /// Confirm a segment of an incoming transfer to its sender.
    Confirm(u64, NodeId, MessageId),
    /// The first of the pieces that were handed on is kept.
    Written(u64),
    /// Hand a message to the application.
    Hand(u64),
    /// Give a file its name.
    Name(u64),
    /// A file has its name.
    Named(u64, PathBuf),
}

/// A transfer of ours.
struct Send {
    record: Sending,
    content: Option<Bytes>,
    /// Its record is on disk.
    ready: bool,
    /// From an earlier run.
    resumed: bool,
    /// Segments that are confirmed beyond the low mark, and their octets.
    done: BTreeMap<u32, u64>,
    /// The application was told that the sender may leave.
    told_safe: bool,
}

/// A segment of ours with its shares at others.
struct Spread {
    record: SpreadRecord,
    /// Shares on disk, and where.
    stored: BTreeMap<NonZeroU8, NodeId>,
    /// From an earlier run: its shares are with its holders alone.
    left: bool,
}

/// A transfer that arrives.
struct Arrival {
    from: NodeId,
    id: MessageId,
    record: Arriving,
    /// Pieces of a message that are not on disk yet.
    pieces: BTreeMap<u32, Bytes>,
    /// Segments that came again, under other names.
    again: Vec<(u32, MessageId)>,
    /// What was rebuilt of it is with the application, or about to be.
    handed: bool,
}

struct Out {
    op: OpId,
    pool: Option<OpId>,
    keys: Vec<Key>,
    then: Vec<Then>,
}

/// What a node keeps on disk beside its pool.
pub(crate) struct Durable {
    anchor: Anchor,
    queue: VecDeque<Key>,
    queued: BTreeSet<Key>,
    then: Vec<Then>,
    out: Option<Out>,
    next_op: u64,
    failures: u32,
    pause: Option<Instant>,
    clusters: BTreeMap<ClusterId, Bytes>,
    /// When what is known of the clusters is written down, if it has changed.
    memories_at: Option<Instant>,
    joining: BTreeMap<RequestId, ClusterId>,
    /// What the next transfer sends.
    content: Option<Content>,
    sends: BTreeMap<MessageId, Send>,
    spreads: BTreeMap<MessageId, Spread>,
    arrivals: BTreeMap<u64, Arrival>,
    /// Until when ended transfers are remembered.
    ended_until: BTreeMap<(NodeId, MessageId), u64>,
    /// Transfers about to be handed to the application.
    handed: BTreeSet<(NodeId, MessageId)>,
    /// Where shares of messages that are not confirmed yet are.
    holders: BTreeMap<MessageId, BTreeSet<NodeId>>,
    confirmed: BTreeSet<MessageId>,
    confirmed_order: VecDeque<MessageId>,
    /// Shares that wait for their receiver to be there, in the order of their segments.
    waiting: BTreeMap<NodeId, BTreeSet<(u64, MessageId, NonZeroU8)>>,
    /// When senders are asked about what is held of theirs.
    notes_at: Instant,
    /// The last message that they were asked about, if there were more.
    notes_after: Option<MessageId>,
    /// Says when members have been away for too long.
    watch: Watch,
    /// Those that have.
    gone: BTreeSet<NodeId>,
    /// Repairs among holders.
    remaking: remaking::Remaking,
}

impl Durable {
    fn new(anchor: Anchor, grace: Duration) -> Durable {
        Durable {
            anchor,
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            then: Vec::new(),
            out: None,
            next_op: 1,
            failures: 0,
            pause: None,
            clusters: BTreeMap::new(),
            memories_at: None,
            joining: BTreeMap::new(),
            content: None,
            sends: BTreeMap::new(),
            spreads: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            ended_until: BTreeMap::new(),
            handed: BTreeSet::new(),
            holders: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            confirmed_order: VecDeque::new(),
            waiting: BTreeMap::new(),
            notes_at: anchor.at + holding::NOTES_EVERY,
            notes_after: None,
            watch: Watch::new(grace),
            gone: BTreeSet::new(),
            remaking: remaking::Remaking::new(anchor.at),
        }
    }

    /// The record under `key` is out of date.
    fn mark(&mut self, key: Key) {
        if self.queued.insert(key) {
            self.queue.push_back(key);
        }
    }

    /// Marks a record, and says what is to happen when it is on disk.
    fn mark_then(&mut self, key: Key, then: Then) {
        self.mark(key);
        self.then.push(then);
    }

    /// Milliseconds since 1970.
    fn unix_ms(&self, now: Instant) -> u64 {
        self.anchor.unix_ms(now)
    }

    fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.then.is_empty() && self.out.is_none()
    }
}

impl Core {
    /// Whether this node keeps what it holds, sends and receives on disk.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// Whether everything that is to be on disk is there.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pool.is_settled() && self.durable.as_ref().is_none_or(Durable::is_settled)
    }

    /// When the store is to be tried again after a failure.
    pub(super) fn durable_timeout(&self) -> Option<Instant> {
        let durable = self.durable.as_ref()?;
        let pause = durable.pause.filter(|_| durable.out.is_none());
        let watch = durable.watch.poll_timeout();
        let all = pause.into_iter().chain(self.notes_at()).chain(watch);
        let all = all.chain(durable.memories_at);
        let all = all.chain(self.remaking_at());
        all.min()
    }

    /// Asks for the next batch to be written, if there is something to write and none is out.
    pub(super) fn keep(&mut self, now: Instant) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        if durable.out.is_some() || durable.pause.is_some_and(|until| until > now) {
            return;
        }
        durable.pause = None;
        let batch = self.pool.poll_persist();
        if batch.is_none() && durable.queue.is_empty() && durable.then.is_empty() {
            return;
        }
        let keys: Vec<Key> = durable.queue.drain(..).collect();
        durable.queued.clear();
        let then = std::mem::take(&mut durable.then);
        let op = OpId(durable.next_op);
        durable.next_op += 1;
        durable.out = Some(Out {
            op,
            pool: batch.as_ref().map(|batch| batch.op),
            keys: keys.clone(),
            then,
        });
        let mut changes = batch.map(|batch| batch.changes).unwrap_or_default();
        changes.extend(keys.into_iter().map(|key| match self.render(key) {
            Some(value) => Change::Put {
                key: key.octets(),
                value,
            },
            None => Change::Delete { key: key.octets() },
        }));
        self.outputs
            .push_back(Output::Persist(Persist { op, changes }));
    }

    /// The present value of a record; `None` when there is none any more.
    fn render(&self, key: Key) -> Option<Bytes> {
        let durable = self.durable.as_ref()?;
        let arrival = |from, id| {
            let handle = self.incoming_by_id.get(&(from, id))?;
            durable.arrivals.get(handle).filter(|a| !a.handed)
        };
        match key {
            Key::Owner => Some(restore::owner(self.config.id)),
            Key::Member(cluster) => durable.clusters.get(&cluster).cloned(),
            Key::Memory(cluster) => {
                durable.clusters.get(&cluster)?;
                Some(self.member.memory(cluster)?.encode())
            }
            Key::Sending(id) => Some(durable.sends.get(&id)?.record.emit()),
            Key::Content(id) => durable.sends.get(&id)?.content.clone(),
            Key::Spread(id) => Some(durable.spreads.get(&id)?.record.emit()),
            Key::Arriving(from, id) => Some(arrival(from, id)?.record.emit()),
            Key::Piece(from, id, number) => arrival(from, id)?.pieces.get(&number).cloned(),
            Key::Ended(from, id) => {
                let until = *durable.ended_until.get(&(from, id))?;
                let end = match self.ended_set.get(&(from, id)) {
                    Some(true) => End::Taken,
                    Some(false) => End::Failed,
                    None => durable
                        .handed
                        .contains(&(from, id))
                        .then_some(End::Handed)?,
                };
                Some(end.emit(until))
            }
        }
    }

    /// How a batch of [`Output::Persist`] went. `Ok` says that all of it is on disk and stays there
    /// whatever happens; after an error none of it counts.
    pub fn persisted(&mut self, now: Instant, op: OpId, result: Result<(), StorageError>) {
        let Some(out) = self
            .durable
            .as_mut()
            .and_then(|durable| durable.out.take_if(|out| out.op == op))
        else {
            return;
        };
        match result {
            Ok(()) => {
                if let Some(op) = out.pool {
                    self.pool.handle_persisted(op);
                }
                self.written_down(&out.keys);
                for then in out.then {
                    self.proceed(now, then);
                }
            }
            Err(reason) => self.not_written(now, out, reason),
        }
        self.settle(now);
    }

    /// What is on disk need not be kept in memory for it.
    fn written_down(&mut self, keys: &[Key]) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        durable.failures = 0;
        for key in keys {
            if let Key::Piece(from, id, number) = key
                && !durable.queued.contains(key)
                && let Some(handle) = self.incoming_by_id.get(&(*from, *id))
                && let Some(arrival) = durable.arrivals.get_mut(handle)
            {
                arrival.pieces.remove(number);
            }
        }
    }

    fn proceed(&mut self, now: Instant, then: Then) {
        match then {
            Then::Begin(id) => self.begin_kept(now, id),
            Then::Confirm(_, to, message) => self.acknowledge(now, to, message),
            Then::Written(handle) => self.written(now, handle),
            Then::Hand(handle) => self.hand_kept(handle),
            Then::Name(handle) => self.name_kept(handle),
            Then::Named(handle, path) => self.named_kept(now, handle, path),
        }
    }

    /// The store took nothing: it is tried again after a pause, and what was to begin or to be
    /// confirmed with it ends with an error.
    fn not_written(&mut self, now: Instant, out: Out, reason: StorageError) {
        if let Some(op) = out.pool {
            self.pool.handle_persist_failed(now, op, reason);
        }
        let Some(durable) = &mut self.durable else {
            return;
        };
        for key in out.keys.into_iter().rev() {
            if durable.queued.insert(key) {
                durable.queue.push_front(key);
            }
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << durable.failures.min(10));
        durable.pause = Some(now + pause.min(LONGEST_PAUSE));
        durable.failures = durable.failures.saturating_add(1);
        self.event(Event::StorageFailed { reason });
        let why = || TransferError::Storage { reason };
        for then in out.then {
            match then {
                Then::Begin(id) => self.fail_outgoing(now, id, why(), true),
                Then::Confirm(handle, ..) | Then::Written(handle) | Then::Name(handle) => {
                    self.fail_incoming(now, handle, why());
                }
                Then::Hand(handle) => {
                    self.not_handed(handle);
                    self.fail_incoming(now, handle, why());
                }
                // it stands under its name already
                named @ Then::Named(..) => {
                    if let Some(durable) = &mut self.durable {
                        durable.then.push(named);
                    }
                }
            }
        }
    }
}
