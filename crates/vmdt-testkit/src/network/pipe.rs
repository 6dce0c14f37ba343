//! One direction of a stream: what is on its way, in order, and what has
//! arrived and was not read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::stream::{Chunking, CloseReason, RefuseReason};
use crate::{LinkConfig, SimRng};

/// Octets of a segment: what TCP carries in an Ethernet frame.
pub(super) const SEGMENT: usize = 1_460;

/// The retransmission timeout of the emulated TCP, and how often it doubles.
const RTO: Duration = Duration::from_millis(200);
const MAX_BACKOFFS: u32 = 6;

/// How late a reader may wake to find more octets at once.
const LATE_READER: Duration = Duration::from_millis(1);

/// What travels towards an end.
#[derive(Debug)]
pub(super) enum Item {
    Open,
    Accept,
    Refuse(RefuseReason),
    Data(Bytes),
    /// The peer has read so many octets written here.
    Credit(usize),
    End(CloseReason),
}

/// Everything on its way to one end of a stream.
#[derive(Debug)]
pub(super) struct Pipe {
    items: VecDeque<(Instant, Item)>,
    /// Nothing sent later arrives before this.
    floor: Instant,
    /// When the bottleneck has transmitted everything sent so far.
    busy_until: Instant,
    /// The path does not carry: items wait for it, whatever their time.
    stalled: bool,
    /// Octets written and not yet known to the writer as read.
    pub(super) outstanding: usize,
    arrived: BytesMut,
    pub(super) reading: bool,
    /// Set when the peer has closed; it takes effect after the last octet.
    pub(super) ending: Option<CloseReason>,
    flush_at: Option<Instant>,
    wire: SimRng,
    chunks: SimRng,
}

impl Pipe {
    pub(super) fn new(now: Instant, rng: &SimRng) -> Self {
        Self {
            items: VecDeque::new(),
            floor: now,
            busy_until: now,
            stalled: false,
            outstanding: 0,
            arrived: BytesMut::new(),
            reading: true,
            ending: None,
            flush_at: None,
            wire: rng.fork("wire"),
            chunks: rng.fork("chunks"),
        }
    }

    /// Sends an item over a path with the settings of `link`; it arrives after
    /// everything sent before. What the link would lose arrives later instead.
    pub(super) fn send(&mut self, now: Instant, item: Item, link: &LinkConfig) {
        let mut leaves = now;
        if let Item::Data(octets) = &item {
            leaves = leaves.max(self.busy_until) + link.transmission_time(octets.len());
            self.busy_until = leaves;
        }
        let mut at = leaves + link.transit_time(&mut self.wire);
        let loss = link.mean_loss();
        for backoff in 0..MAX_BACKOFFS {
            if !self.wire.chance(loss) {
                break;
            }
            at += RTO * (1 << backoff);
        }
        self.floor = self.floor.max(at);
        self.items.push_back((self.floor, item));
    }

    /// Loses everything on its way and lets `reason` arrive instead.
    pub(super) fn abort(&mut self, now: Instant, reason: CloseReason, link: &LinkConfig) {
        self.items.clear();
        self.floor = now;
        self.send(now, Item::End(reason), link);
    }

    /// The next item that has arrived by `at`.
    pub(super) fn pop(&mut self, at: Instant) -> Option<Item> {
        if self.stalled || self.items.front().is_none_or(|(due, _)| *due > at) {
            return None;
        }
        self.items.pop_front().map(|(_, item)| item)
    }

    /// When to look at this pipe again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let item = self.items.front().filter(|_| !self.stalled);
        let item = item.map(|(at, _)| *at);
        match (item, self.flush_at) {
            (Some(item), Some(flush)) => Some(item.min(flush)),
            (item, flush) => item.or(flush),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn stall(&mut self) {
        self.stalled = true;
    }

    /// The path carries again: what waited arrives once a retransmission has
    /// found that out.
    pub(super) fn resume(&mut self, now: Instant, link: &LinkConfig) {
        if !std::mem::take(&mut self.stalled) {
            return;
        }
        let resumed = now + self.wire.duration(RTO) + link.transit_time(&mut self.wire);
        for (at, _) in &mut self.items {
            *at = resumed.max(*at);
        }
        self.floor = self.floor.max(resumed);
    }

    /// Takes octets in at `at`. They are due for reading at once, or a little
    /// later with random chunking.
    pub(super) fn arrive(&mut self, at: Instant, octets: &[u8], chunking: Chunking) {
        self.arrived.extend_from_slice(octets);
        if self.flush_at.is_none() {
            let late = chunking == Chunking::Random && self.chunks.chance(0.25);
            let by = if late {
                self.chunks.duration(LATE_READER)
            } else {
                Duration::ZERO
            };
            self.flush_at = Some(at + by);
        }
    }

    /// Makes the reader look at `at`, unless it already does earlier.
    pub(super) fn flush_by(&mut self, at: Instant) {
        self.flush_at = Some(self.flush_at.map_or(at, |flush| flush.min(at)));
    }

    /// Whether the reader looks by `at`; it then no longer waits to.
    pub(super) fn take_flush(&mut self, at: Instant) -> bool {
        self.flush_at.take_if(|flush| *flush <= at).is_some()
    }

    /// The next piece to read.
    pub(super) fn read(&mut self, chunking: Chunking) -> Option<Bytes> {
        let len = self.arrived.len();
        if len == 0 || !self.reading {
            return None;
        }
        let take = match chunking {
            Chunking::Whole => len,
            Chunking::Octets => 1,
            Chunking::Random => random_chunk(&mut self.chunks, len),
        };
        Some(self.arrived.split_to(take).freeze())
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// The reader is gone.
    pub(super) fn discard_arrived(&mut self) {
        self.arrived.clear();
        self.flush_at = None;
    }
}

/// Mostly everything, often a part, sometimes a crumb.
fn random_chunk(rng: &mut SimRng, len: usize) -> usize {
    let len = len as u64;
    let take = match rng.below(8) {
        0 => 1,
        1 | 2 => rng.range(1..=len.min(16)),
        3 | 4 => rng.range(1..=len),
        _ => len,
    };
    take as usize
}
