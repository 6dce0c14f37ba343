//! What a node knows of another member: how to reach it, and what waits to go there.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use vmdt_pool::paths::Redundancy;
use vmdt_rdt::Priority;
use vmdt_wire::{FlowId, LineFramer, MessageId, RELAY_MAX_LINE, ShareIndex};

use super::limits::Fair;

/// Control lines that wait for a path, per peer; the oldest are dropped beyond it (all of them
/// are repeated by whoever still needs an answer).
const MAX_LINES: usize = 1024;
/// Shares that wait for a path, per peer.
pub(crate) const MAX_QUEUE: usize = 1024;
/// Shares whose sending is remembered, per peer and session.
const MAX_SENT: usize = 16_384;
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Whether a direct path works.
///
/// ```text
///  Idle --something to send--> Connecting --accepted--> Up
///   ^                              |                     |
///   |                           unanswered            unresponsive
///   |                              v                     |
///   +--------closed, idle-------- Down <-----------------+
///                                  |  (after a backoff, with something to send)
///                                  +--> Connecting
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Idle,
    Connecting,
    Up,
    Down { until: Instant },
}

/// The order in which shares leave on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// What stands in for something that is late: the receiver waits for it. Among the shares of its
    /// own transfer it has the place of its segment, since what comes before is waited for sooner.
    Urgent,
    /// What goes on to the receiver at once.
    Active,
    /// What its holder keeps for now.
    Frozen,
}

/// A share on its way to a peer.
#[derive(Debug)]
pub(crate) struct QueuedShare {
    pub(crate) flow: FlowId,
    /// Octets still to be written.
    pub(crate) parts: VecDeque<Bytes>,
    /// Taken from the pool for the receiver, rather than a share of our own message.
    pub(crate) from_pool: bool,
    /// Its place in the queue.
    pub(crate) turn: Turn,
    pub(crate) priority: Priority,
    /// The transfer and segment it is of, where they are known.
    pub(crate) segment: Option<(MessageId, u32)>,
    /// Its place among those of its turn.
    tag: u64,
    /// Some of it may have been written.
    pub(crate) begun: bool,
}

impl QueuedShare {
    /// A share of which nothing was written yet.
    pub(crate) fn new(
        flow: FlowId,
        parts: Vec<Bytes>,
        from_pool: bool,
        (turn, priority): (Turn, Priority),
    ) -> QueuedShare {
        QueuedShare {
            flow,
            parts: parts.into(),
            from_pool,
            turn,
            priority,
            segment: None,
            tag: 0,
            begun: false,
        }
    }

    /// A share of this segment of this transfer.
    pub(crate) fn of(self, segment: Option<(MessageId, u32)>) -> QueuedShare {
        QueuedShare { segment, ..self }
    }

    /// Octets still to be written.
    pub(crate) fn octets(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// A share that is arriving.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    pub(crate) octets: BytesMut,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// It was reached at an address of its profile, and not where the server sees it.
    pub(crate) claimed: bool,
    /// Which of its addresses is being tried.
    pub(crate) tried: u8,
    pub(crate) path: Path,
    /// The session is held, or tried, through the server.
    pub(crate) relayed: bool,
    /// When the server was asked for its profile.
    pub(crate) profile_asked: Option<Instant>,
    backoff: Duration,
    up_since: Instant,
    /// Lines that wait for the path.
    pub(crate) lines: VecDeque<Bytes>,
    /// Shares that wait for the path or for room in its send buffer, in order.
    pub(crate) queue: VecDeque<QueuedShare>,
    fair: Fair,
    /// Shares written to the transport and not yet delivered; the value says whether the share
    /// came from the pool.
    pub(crate) written: BTreeMap<FlowId, bool>,
    /// How often each share was sent in this session.
    sent: BTreeMap<(MessageId, NonZeroU8), u16>,
    /// The announcements that were handed on to it in this session, and their versions.
    told: BTreeMap<MessageId, u32>,
    /// Whether it answers.
    pub(crate) pulse: super::rating::Pulse,
    /// Its session makes a detour, as long as its direct path is silent.
    pub(crate) detour: Option<super::detour::Detour>,
    /// How long after they are expected its shares come, smoothed, and the mean deviation.
    pub(crate) lag: Option<(Duration, Duration)>,
    /// How many shares beyond k its messages take, for the k and n they were last sent with.
    pub(crate) redundancy: Option<((u8, u8), Redundancy)>,
    /// Pieces from it that were no genuine pieces.
    pub(crate) bad_pieces: u64,
    pub(crate) framer: LineFramer,
    pub(crate) arriving: BTreeMap<FlowId, Arriving>,
    pub(crate) arriving_octets: usize,
    /// Octets of the last share that came: of a transfer most are alike.
    pub(crate) usual_share: usize,
}

impl Peer {
    pub(crate) fn new(now: Instant) -> Peer {
        Peer {
            up_since: now,
            address: None,
            claimed: false,
            tried: 0,
            path: Path::Idle,
            relayed: false,
            profile_asked: None,
            backoff: FIRST_BACKOFF,
            lines: VecDeque::new(),
            queue: VecDeque::new(),
            fair: Fair::default(),
            written: BTreeMap::new(),
            sent: BTreeMap::new(),
            told: BTreeMap::new(),
            pulse: super::rating::Pulse::default(),
            detour: None,
            lag: None,
            redundancy: None,
            bad_pieces: 0,
            framer: LineFramer::new(RELAY_MAX_LINE),
            arriving: BTreeMap::new(),
            arriving_octets: 0,
            usual_share: 0,
        }
    }

    /// A fresh flow for a share; `None` when it was sent too often already.
    pub(crate) fn flow_for(&mut self, message: MessageId, index: NonZeroU8) -> Option<FlowId> {
        let times = self.sent.entry((message, index)).or_insert(0);
        if *times > MAX_REPETITIONS {
            return None;
        }
        let flow = ShareIndex::new(u16::from(index.get()) + REPETITION * *times)?;
        *times += 1;
        while self.sent.len() > MAX_SENT {
            self.sent.pop_first();
        }
        Some(FlowId {
            message,
            index: flow,
        })
    }

    /// Forgets that shares of a message were sent.
    pub(crate) fn forget(&mut self, message: MessageId) {
        let first = (message, NonZeroU8::MIN);
        let last = (message, NonZeroU8::MAX);
        let keys: Vec<_> = self.sent.range(first..=last).map(|(k, _)| *k).collect();
        for key in keys {
            self.sent.remove(&key);
        }
        self.told.remove(&message);
    }

    /// Whether it is yet to be told of a message in this version; it is taken to be told now.
    pub(crate) fn tell(&mut self, message: MessageId, version: u32) -> bool {
        if self.told.get(&message).is_some_and(|told| *told >= version) {
            return false;
        }
        while self.told.len() >= MAX_SENT {
            self.told.pop_first();
        }
        self.told.insert(message, version);
        true
    }

    /// Octets of shares that wait for the path.
    pub(crate) fn waiting_octets(&self) -> usize {
        self.queue.iter().map(QueuedShare::octets).sum()
    }

    /// Octets of shares of a transfer that wait for the path.
    pub(crate) fn waiting_of(&self, transfer: MessageId) -> usize {
        let own = |q: &&QueuedShare| q.segment.is_some_and(|(id, _)| id == transfer);
        self.queue.iter().filter(own).map(QueuedShare::octets).sum()
    }

    /// Puts a share in its place: behind those that began, and among those of its turn as its
    /// priority says. One that is urgent goes before whatever its own transfer has for later
    /// segments, and behind what it has for earlier ones.
    pub(crate) fn enqueue(&mut self, mut share: QueuedShare) {
        if let Some(at) = self.among_its_own(&share) {
            let neighbour = |at: usize| self.queue.get(at).map(|other| (other.turn, other.tag));
            // it takes the turn of the one it goes before, or else behind
            if let Some(place) = neighbour(at).filter(|_| self.is_its_own(&share, at)) {
                (share.turn, share.tag) = place;
            } else if let Some(place) = at.checked_sub(1).and_then(neighbour) {
                (share.turn, share.tag) = place;
            }
            self.queue.insert(at, share);
            return;
        }
        share.tag = self.fair.tag(share.priority, share.octets());
        let place = (share.turn, share.tag);
        let before = |other: &QueuedShare| other.begun || (other.turn, other.tag) <= place;
        let at = self.queue.partition_point(before);
        self.queue.insert(at, share);
    }

    /// Whether a share in the queue is of the same transfer and wanted at once.
    fn is_its_own(&self, share: &QueuedShare, at: usize) -> bool {
        let transfer = |share: &QueuedShare| share.segment.map(|(transfer, _)| transfer);
        self.queue.get(at).is_some_and(|other| {
            !other.begun && other.turn < Turn::Frozen && transfer(other) == transfer(share)
        })
    }

    /// The place of an urgent share among those of its transfer, where some wait.
    fn among_its_own(&self, share: &QueuedShare) -> Option<usize> {
        if share.turn != Turn::Urgent || share.segment.is_none() {
            return None;
        }
        let own = || (0..self.queue.len()).filter(|at| self.is_its_own(share, *at));
        let later = |at: &usize| {
            self.queue
                .get(*at)
                .is_some_and(|q| q.segment > share.segment)
        };
        own()
            .find(later)
            .or_else(|| own().next_back().map(|last| last + 1))
    }

    /// The first share in the queue begins to be written.
    pub(crate) fn begin(&mut self) {
        if let Some(share) = self.queue.front_mut() {
            share.begun = true;
            self.fair.begins(share.tag);
        }
    }

    /// The flow that brings a share now, if one does.
    pub(crate) fn under_way(&self, message: MessageId, index: NonZeroU8) -> Option<FlowId> {
        let written = self.written.keys().find(|f| carries(f, message, index));
        let queued = || {
            self.queue
                .iter()
                .map(|q| &q.flow)
                .find(|f| carries(f, message, index))
        };
        written.or_else(queued).copied()
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.lines.is_empty() || !self.queue.is_empty()
    }

    pub(crate) fn push_line(&mut self, line: Bytes) {
        if self.lines.len() >= MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Marks the path as not working; the next attempt comes after a growing pause.
    pub(crate) fn down(&mut self, now: Instant) {
        self.path = Path::Down {
            until: now + self.backoff,
        };
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
    }

    pub(crate) fn up(&mut self, now: Instant) {
        self.path = Path::Up;
        self.up_since = now;
        self.backoff = FIRST_BACKOFF;
    }

    /// How long the path has worked; zero when it does not.
    pub(crate) fn up_for(&self, now: Instant) -> Duration {
        if self.path == Path::Up {
            now.saturating_duration_since(self.up_since)
        } else {
            Duration::ZERO
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        matches!(self.path, Path::Down { .. })
    }

    /// Forgets what belonged to a session that has ended. The flows that were under way are
    /// returned: written and queued alike.
    pub(crate) fn session_ended(&mut self) -> Vec<(FlowId, bool)> {
        self.framer = LineFramer::new(RELAY_MAX_LINE);
        self.sent.clear();
        self.told.clear();
        self.pulse = super::rating::Pulse::default();
        self.detour = None;
        self.arriving.clear();
        self.arriving_octets = 0;
        self.fair = Fair::default();
        let mut lost: Vec<(FlowId, bool)> = std::mem::take(&mut self.written).into_iter().collect();
        lost.extend(self.queue.drain(..).map(|q| (q.flow, q.from_pool)));
        lost
    }
}

/// A share that is sent again in one session takes a flow of its own, since a flow that has ended
/// can't be opened again: its index is the share's plus this times the number of the repetition.
const REPETITION: u16 = 1000;
/// Repetitions in one session.
const MAX_REPETITIONS: u16 = 9;

/// The share index of a flow, where it is one.
pub(crate) fn share_index(flow: FlowId) -> Option<NonZeroU8> {
    u8::try_from(flow.index.get() % REPETITION)
        .ok()
        .and_then(NonZeroU8::new)
}

/// Whether a flow carries this share.
pub(crate) fn carries(flow: &FlowId, message: MessageId, index: NonZeroU8) -> bool {
    flow.message == message && share_index(*flow) == Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: usize = 1000;

    fn transfer(number: u8) -> MessageId {
        MessageId::from_random([number; 12])
    }

    fn share(of: Option<(u8, u32)>, turn: Turn) -> QueuedShare {
        let (number, segment) = of.unwrap_or((99, 99));
        let flow = FlowId {
            message: MessageId::from_random([number, segment as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            index: ShareIndex::new(1).unwrap(),
        };
        QueuedShare::new(
            flow,
            vec![Bytes::from_static(&[0; SHARE])],
            false,
            (turn, Priority::Normal),
        )
        .of(of.map(|(number, segment)| (transfer(number), segment)))
    }

    fn peer() -> Peer {
        #[allow(clippy::disallowed_methods)]
        Peer::new(Instant::now())
    }

    /// Transfer and segment of what waits, in order.
    fn order(peer: &Peer) -> Vec<(u8, u32)> {
        let of = |q: &QueuedShare| {
            let (id, segment) = q.segment?;
            (0..9).find(|n| transfer(*n) == id).map(|n| (n, segment))
        };
        peer.queue
            .iter()
            .map(|q| of(q).unwrap_or((99, 99)))
            .collect()
    }

    #[test]
    fn what_stands_in_for_a_late_share_has_the_place_of_its_segment() {
        let mut peer = peer();
        for segment in [3, 5, 7] {
            peer.enqueue(share(Some((1, segment)), Turn::Active));
        }
        for segment in [6, 2, 8, 4] {
            peer.enqueue(share(Some((1, segment)), Turn::Urgent));
        }
        peer.enqueue(share(Some((1, 9)), Turn::Active));
        let expected: Vec<(u8, u32)> = (2..10).map(|segment| (1, segment)).collect();
        assert_eq!(order(&peer), expected);
    }

    #[test]
    fn what_is_urgent_goes_before_other_transfers_and_behind_what_began() {
        let mut peer = peer();
        peer.enqueue(share(Some((2, 1)), Turn::Active));
        peer.begin();
        peer.enqueue(share(Some((2, 2)), Turn::Active));
        peer.enqueue(share(Some((1, 8)), Turn::Urgent));
        peer.enqueue(share(Some((1, 5)), Turn::Urgent));
        peer.enqueue(share(None, Turn::Urgent));
        peer.enqueue(share(Some((2, 3)), Turn::Frozen));
        peer.enqueue(share(Some((2, 9)), Turn::Active));
        let expected = [(2, 1), (1, 5), (1, 8), (99, 99), (2, 2), (2, 9), (2, 3)];
        assert_eq!(order(&peer), expected);
    }
}
