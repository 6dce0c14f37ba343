//! One incoming flow: reassembly in order, within a window.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use vmdt_wire::segment::{Hole, MAX_HOLES};
use vmdt_wire::{FlowId, Seq};

use crate::packet_number::truncate_seq;
use crate::send_flow::MAX_SEGMENTS;

/// Payloads below this are copied together, so that what a small segment holds in memory is
/// in proportion to its octets, not to its datagram.
const SMALL: usize = 512;
/// Capacity of the buffer small payloads are copied into.
const JOIN: usize = 4096;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Stored: octets now held, and whether the in-order end moved.
    Stored { octets: usize, advanced: bool },
    /// Had arrived before.
    Duplicate,
    /// Beyond the window or against the flow's end: dropped.
    Refused,
}

/// An incoming flow.
#[derive(Debug)]
pub(crate) struct RecvFlow {
    pub(crate) id: FlowId,
    window: u32,
    /// Next segment in order.
    next: u64,
    /// Number of segments, once FINAL has arrived.
    end: Option<u64>,
    /// Segments beyond `next`.
    early: BTreeMap<u64, Bytes>,
    early_octets: usize,
    ready: VecDeque<Bytes>,
    joined: BytesMut,
    ready_octets: usize,
    /// Octets read by the application, and as of the last window announced.
    read: u64,
    announced_read: u64,
    /// A `Readable` is out and the application has not read to the end since.
    pub(crate) signalled: bool,
    /// Packets up to this number belong to an earlier flow of the same id.
    pub(crate) valid_after: u64,
    /// Number of the packet that reset the flow after it was complete.
    pub(crate) reset_packet: Option<u64>,
    /// In the queue of windows to announce.
    pub(crate) announce_queued: bool,
    /// NAKs sent for the present hole.
    pub(crate) naks: u32,
    /// In the queue of flows with holes.
    pub(crate) hole_queued: bool,
}

impl RecvFlow {
    pub(crate) fn new(id: FlowId, window: u32, valid_after: u64) -> Self {
        Self {
            id,
            window,
            next: 0,
            end: None,
            early: BTreeMap::new(),
            early_octets: 0,
            ready: VecDeque::new(),
            joined: BytesMut::new(),
            ready_octets: 0,
            read: 0,
            announced_read: 0,
            signalled: false,
            valid_after,
            reset_packet: None,
            announce_queued: false,
            naks: 0,
            hole_queued: false,
        }
    }

    /// Begins at another sequence number, as if that many segments had passed.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, seq: u64) {
        self.next = seq;
    }

    /// Next segment in order: the cumulative acknowledgment.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next
    }

    /// Octets held, in order or not.
    pub(crate) fn held(&self) -> usize {
        self.early_octets + self.ready_octets
    }

    /// Segments held out of order.
    pub(crate) fn early_segments(&self) -> usize {
        self.early.len()
    }

    /// Whether every segment has arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.end == Some(self.next)
    }

    /// Whether in-order octets wait to be read.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready_octets > 0
    }

    /// Whether segments beyond a hole are held.
    pub(crate) fn has_hole(&self) -> bool {
        !self.early.is_empty()
    }

    /// Octets accepted beyond the in-order end.
    pub(crate) fn window(&self) -> u64 {
        u64::from(self.window).saturating_sub(self.ready_octets as u64)
    }

    /// Whether reading has freed half a window since the last announcement.
    pub(crate) fn wants_announcement(&self) -> bool {
        self.end.is_none() && self.read - self.announced_read >= u64::from(self.window) / 2
    }

    /// The window was announced.
    pub(crate) fn on_announced(&mut self) {
        self.announced_read = self.read;
    }

    /// Takes a segment. `early_room` is how many segments out of order the session still holds,
    /// `octet_room` how many octets.
    pub(crate) fn take(
        &mut self,
        seq: u64,
        data: Bytes,
        last: bool,
        early_room: usize,
        octet_room: u64,
    ) -> Taken {
        if seq < self.next || self.early.contains_key(&seq) {
            return Taken::Duplicate;
        }
        let beyond_end = self
            .end
            .is_some_and(|end| seq >= end || (last && seq + 1 != end));
        let before_known = last
            && self
                .early
                .last_key_value()
                .is_some_and(|(&top, _)| top > seq);
        let octets = data.len();
        let too_far = seq - self.next >= MAX_SEGMENTS as u64;
        let no_room = octets as u64 > octet_room
            || (self.held() + octets) as u64 > u64::from(self.window)
            || (seq != self.next && early_room == 0);
        if beyond_end || before_known || too_far || no_room {
            return Taken::Refused;
        }
        if last {
            self.end = Some(seq + 1);
        }
        if seq != self.next {
            let data = if octets < SMALL {
                Bytes::copy_from_slice(&data)
            } else {
                data
            };
            self.early.insert(seq, data);
            self.early_octets += octets;
            return Taken::Stored {
                octets,
                advanced: false,
            };
        }
        self.append(data);
        while let Some(entry) = self.early.first_entry()
            && *entry.key() == self.next
        {
            let data = entry.remove();
            self.early_octets -= data.len();
            self.append(data);
        }
        self.naks = 0;
        Taken::Stored {
            octets,
            advanced: true,
        }
    }

    fn append(&mut self, data: Bytes) {
        self.next += 1;
        self.ready_octets += data.len();
        if data.is_empty() {
            return;
        }
        if data.len() >= SMALL {
            self.flush_joined();
            self.ready.push_back(data);
            return;
        }
        if self.joined.len() + data.len() > JOIN {
            self.flush_joined();
        }
        if self.joined.capacity() == 0 {
            // A flow with a single small segment should not cost a whole buffer.
            self.joined.reserve(data.len());
        } else if self.joined.capacity() < self.joined.len() + data.len() {
            self.joined.reserve(JOIN - self.joined.len());
        }
        self.joined.extend_from_slice(&data);
    }

    fn flush_joined(&mut self) {
        if !self.joined.is_empty() {
            self.ready
                .push_back(std::mem::take(&mut self.joined).freeze());
        }
    }

    /// The next piece in order.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.flush_joined();
        }
        let piece = self.ready.pop_front()?;
        self.ready_octets -= piece.len();
        self.read += piece.len() as u64;
        Some(piece)
    }

    /// The missing ranges below the newest segment held.
    pub(crate) fn holes(&self) -> Vec<Hole> {
        let mut holes = Vec::new();
        let mut expected = self.next;
        for &seq in self.early.keys() {
            if seq > expected {
                let count = u16::try_from(seq - expected).ok().and_then(NonZeroU16::new);
                if let Some(count) = count {
                    holes.push(Hole {
                        first: Seq(truncate_seq(expected)),
                        count,
                    });
                }
                if holes.len() == MAX_HOLES {
                    break;
                }
            }
            expected = seq + 1;
        }
        holes
    }
}

#[cfg(test)]
#[path = "recv_flow_tests.rs"]
mod tests;
