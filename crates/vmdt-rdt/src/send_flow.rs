//! One outgoing flow: what is queued, what is in transit, what the receiver allows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use vmdt_wire::FlowId;

use crate::limiter::TokenBucket;

/// A flow's share of its session: flows with something to send get octets in proportion 1, 2
/// and 3. The control flow goes before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// One share.
    #[default]
    Normal,
    /// Two shares.
    High,
    /// Three shares.
    Highest,
}

impl Priority {
    /// Shares.
    pub(crate) fn weight(self) -> i64 {
        match self {
            Self::Normal => 1,
            Self::High => 2,
            Self::Highest => 3,
        }
    }
}

/// Segments of one flow in transit: three quarters of what serial arithmetic on 16 bits can tell
/// apart. The rest is left for packets that are late, see [`MAX_LATE`].
pub(crate) const MAX_SEGMENTS: usize = 24_576;

/// How far behind the newest packet number a DATA packet may be.
///
/// When a packet leaves, its segment is less than `MAX_SEGMENTS` behind the newest of its flow.
/// To be taken for a segment 2^16 later it has to arrive when more than 2^15 newer ones have,
/// hence more than `2^15 - MAX_SEGMENTS` packets that left after it.
pub(crate) const MAX_LATE: u64 = (1 << 15) - MAX_SEGMENTS as u64;

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SegmentState {
    InTransit,
    /// Declared lost; waits in the session's retransmission queue.
    Lost,
    Acked,
}

/// A segment that was sent at least once.
#[derive(Debug)]
struct Segment {
    data: Bytes,
    state: SegmentState,
    last: bool,
    /// Number and time of its newest packet.
    packet: u64,
    sent_at: Instant,
}

/// What to put into a DATA packet.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) seq: u64,
    pub(crate) data: Bytes,
    pub(crate) last: bool,
}

/// How far the end of the flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// `finish` was called, the FINAL segment is not out.
    Wanted,
    Sent,
}

/// Why there is no new segment to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nothing is queued.
    Empty,
    /// The flow's window is used up.
    FlowWindow,
    /// The session's window is used up.
    SessionWindow,
    /// Too many segments in transit; an ACK reopens it.
    Segments,
}

/// An outgoing flow.
#[derive(Debug)]
pub(crate) struct SendFlow {
    pub(crate) id: FlowId,
    pub(crate) generation: u32,
    segments: VecDeque<Segment>,
    /// Sequence number of the front segment: everything before it is acknowledged.
    base: u64,
    /// Octets before `base`, and octets sent.
    base_offset: u64,
    sent_offset: u64,
    pending: VecDeque<Bytes>,
    pending_octets: usize,
    end: End,
    /// Octets of the flow the receiver accepts, from its start.
    window_end: u64,
    /// Number of the packet that announced it.
    window_packet: Option<u64>,
    /// In the scheduler's ready queue.
    pub(crate) scheduled: bool,
    /// Counts as active: something was sent.
    pub(crate) started: bool,
    /// Its window is used up.
    pub(crate) blocked: bool,
    /// In the queue of flows to probe for.
    pub(crate) listed: bool,
    pub(crate) priority: Priority,
    /// Octets left of this turn (deficit round robin, Shreedhar and Varghese 1995).
    pub(crate) deficit: i64,
    /// The user's limit, and until when it holds the flow back.
    pub(crate) limit: Option<Box<TokenBucket>>,
    pub(crate) limited_until: Option<Instant>,
}

impl SendFlow {
    pub(crate) fn new(id: FlowId, generation: u32, window: u32) -> Self {
        Self {
            id,
            generation,
            segments: VecDeque::new(),
            base: 0,
            base_offset: 0,
            sent_offset: 0,
            pending: VecDeque::new(),
            pending_octets: 0,
            end: End::Open,
            window_end: u64::from(window),
            window_packet: None,
            scheduled: false,
            started: false,
            blocked: false,
            listed: false,
            priority: Priority::Normal,
            deficit: 0,
            limit: None,
            limited_until: None,
        }
    }

    /// Begins the flow at another sequence number, as if that many segments had passed.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, seq: u64) {
        self.base = seq;
    }

    pub(crate) fn write(&mut self, data: Bytes) -> bool {
        if self.end != End::Open {
            return false;
        }
        if !data.is_empty() {
            self.pending_octets += data.len();
            self.pending.push_back(data);
        }
        true
    }

    pub(crate) fn finish(&mut self) -> bool {
        if self.end != End::Open {
            return false;
        }
        self.end = End::Wanted;
        true
    }

    /// Octets of the next segment, should the windows permit a whole one.
    pub(crate) fn next_size(&self, max: usize) -> u64 {
        self.pending_octets.min(max) as u64
    }

    /// Sequence number after the newest segment sent.
    pub(crate) fn next_seq(&self) -> u64 {
        self.base + self.segments.len() as u64
    }

    /// Octets not acknowledged yet, sent or not.
    pub(crate) fn queued(&self) -> usize {
        let in_transit: usize = self
            .segments
            .iter()
            .filter(|segment| segment.state != SegmentState::Acked)
            .map(|segment| segment.data.len())
            .sum();
        in_transit + self.pending_octets
    }

    /// Octets of the largest segment sent and not acknowledged.
    pub(crate) fn largest_in_transit(&self) -> usize {
        self.segments
            .iter()
            .filter(|segment| segment.state != SegmentState::Acked)
            .map(|segment| segment.data.len())
            .max()
            .unwrap_or(0)
    }

    /// Octets sent and not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        self.queued() - self.pending_octets
    }

    /// Whether everything, FINAL included, is acknowledged.
    pub(crate) fn is_delivered(&self) -> bool {
        self.end == End::Sent && self.segments.is_empty()
    }

    /// Whether octets or FINAL wait to be sent for the first time.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending_octets > 0 || self.end == End::Wanted
    }

    /// Octets that may be sent now under the flow's window.
    fn credit(&self) -> u64 {
        self.window_end.saturating_sub(self.sent_offset)
    }

    /// Cuts the next segment of at most `max` octets. A segment is cut short by a window only
    /// when nothing in transit could open it (the sender's side of RFC 1122 section 4.2.3.4).
    pub(crate) fn next_segment(
        &mut self,
        max: usize,
        session_credit: u64,
        session_idle: bool,
    ) -> Result<Outgoing, Held> {
        if !self.has_pending() {
            return Err(Held::Empty);
        }
        if self.segments.len() >= MAX_SEGMENTS {
            return Err(Held::Segments);
        }
        let mut size = self.pending_octets.min(max);
        let as_octets = |credit: u64| usize::try_from(credit).unwrap_or(usize::MAX);
        let flow_credit = as_octets(self.credit());
        if size > flow_credit {
            if flow_credit == 0 || !self.segments.is_empty() {
                return Err(Held::FlowWindow);
            }
            size = flow_credit;
        }
        let session_credit = as_octets(session_credit);
        if size > session_credit {
            if session_credit == 0 || !session_idle {
                return Err(Held::SessionWindow);
            }
            size = session_credit;
        }
        let data = self.take(size);
        let last = self.end == End::Wanted && self.pending_octets == 0;
        if last {
            self.end = End::Sent;
        }
        Ok(Outgoing {
            seq: self.next_seq(),
            data,
            last,
        })
    }

    /// Takes `size` pending octets: a slice of one write, or a copy where writes meet.
    fn take(&mut self, size: usize) -> Bytes {
        self.pending_octets -= size;
        if size == 0 {
            return Bytes::new();
        }
        if let Some(front) = self.pending.front_mut()
            && front.len() >= size
        {
            let piece = front.split_to(size);
            if front.is_empty() {
                self.pending.pop_front();
            }
            return piece;
        }
        let mut joined = BytesMut::with_capacity(size);
        while joined.len() < size {
            let Some(front) = self.pending.front_mut() else {
                break;
            };
            let piece = front.split_to(front.len().min(size - joined.len()));
            joined.extend_from_slice(&piece);
            if front.is_empty() {
                self.pending.pop_front();
            }
        }
        joined.freeze()
    }

    /// Notes the first transmission of a segment just cut.
    pub(crate) fn on_sent(&mut self, now: Instant, outgoing: Outgoing, packet: u64) {
        self.sent_offset += outgoing.data.len() as u64;
        self.segments.push_back(Segment {
            data: outgoing.data,
            state: SegmentState::InTransit,
            last: outgoing.last,
            packet,
            sent_at: now,
        });
    }

    fn segment_mut(&mut self, seq: u64) -> Option<&mut Segment> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.segments.get_mut(index)
    }

    fn segment(&self, seq: u64) -> Option<&Segment> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.segments.get(index)
    }

    /// A segment that is still wanted by the receiver, for retransmission. With `lost_only`
    /// only if it was declared lost.
    pub(crate) fn again(&self, seq: u64, lost_only: bool) -> Option<Outgoing> {
        let segment = self.segment(seq)?;
        match segment.state {
            SegmentState::Acked => return None,
            SegmentState::InTransit if lost_only => return None,
            SegmentState::InTransit | SegmentState::Lost => {}
        }
        Some(Outgoing {
            seq,
            data: segment.data.clone(),
            last: segment.last,
        })
    }

    /// Notes a retransmission.
    pub(crate) fn on_sent_again(&mut self, now: Instant, seq: u64, packet: u64) {
        if let Some(segment) = self.segment_mut(seq) {
            segment.packet = packet;
            segment.sent_at = now;
            segment.state = SegmentState::InTransit;
        }
    }

    /// The packet that carried this segment was lost. True when the segment has to be queued
    /// for retransmission: it isn't acknowledged, nor queued, nor carried by a newer packet.
    pub(crate) fn on_lost(&mut self, seq: u64, packet: u64) -> bool {
        match self.segment_mut(seq) {
            Some(segment)
                if segment.state == SegmentState::InTransit && segment.packet == packet =>
            {
                segment.state = SegmentState::Lost;
                true
            }
            _ => false,
        }
    }

    /// A segment was acknowledged. Returns the octets this freed.
    pub(crate) fn on_acked(&mut self, seq: u64) -> usize {
        let freed = match self.segment_mut(seq) {
            Some(segment) if segment.state != SegmentState::Acked => {
                segment.state = SegmentState::Acked;
                segment.data.len()
            }
            _ => return 0,
        };
        self.trim();
        freed
    }

    /// Everything before `seq` was acknowledged. Returns the octets this freed, or `None` when
    /// `seq` is beyond what was sent.
    pub(crate) fn on_cumulative(&mut self, seq: u64) -> Option<usize> {
        if seq > self.next_seq() {
            return None;
        }
        let count = usize::try_from(seq.saturating_sub(self.base)).ok()?;
        let mut freed = 0;
        for segment in self.segments.iter_mut().take(count) {
            if segment.state != SegmentState::Acked {
                segment.state = SegmentState::Acked;
                freed += segment.data.len();
            }
        }
        self.trim();
        Some(freed)
    }

    fn trim(&mut self) {
        while let Some(front) = self.segments.front()
            && front.state == SegmentState::Acked
        {
            self.base_offset += front.data.len() as u64;
            self.base += 1;
            self.segments.pop_front();
        }
    }

    /// The receiver announced a window, `octets` beyond segment `seq`, in packet `packet`.
    /// Announcements older than the newest are ignored.
    pub(crate) fn on_window(&mut self, seq: u64, octets: u64, packet: u64) {
        if seq < self.base || self.window_packet.is_some_and(|newest| packet < newest) {
            return;
        }
        let Ok(count) = usize::try_from(seq - self.base) else {
            return;
        };
        if count > self.segments.len() {
            return;
        }
        let before: u64 = self
            .segments
            .iter()
            .take(count)
            .map(|segment| segment.data.len() as u64)
            .sum();
        self.window_packet = Some(packet);
        self.window_end = self.base_offset + before + octets;
    }

    /// Segments in `first..first + count` that are in transit since before `now - age`, with the
    /// numbers of their packets; at most `limit`.
    pub(crate) fn overdue(
        &self,
        now: Instant,
        first: u64,
        count: u64,
        age: Duration,
        limit: usize,
    ) -> Vec<u64> {
        let start = usize::try_from(first.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let end = first.saturating_add(count).saturating_sub(self.base);
        let end = usize::try_from(end)
            .unwrap_or(usize::MAX)
            .min(self.segments.len());
        if start >= end {
            return Vec::new();
        }
        self.segments
            .range(start..end)
            .take(limit)
            .filter(|segment| segment.state == SegmentState::InTransit)
            .filter(|segment| now.saturating_duration_since(segment.sent_at) > age)
            .map(|segment| segment.packet)
            .collect()
    }
}

#[cfg(test)]
#[path = "send_flow_tests.rs"]
mod tests;
