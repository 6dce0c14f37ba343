//! The incoming flows of one session: their table, their common window, and the flows that
//! have something to tell their senders.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::FlowId;
use vmdt_wire::segment::Hole;

use crate::packet_number::expand_seq;
use crate::recv_flow::{RecvFlow, Taken};
use crate::tombstones::Tombstones;

/// Octets of session window for which one segment may be held out of order.
const OCTETS_PER_EARLY: usize = 256;

/// Bounds of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecvLimits {
    pub(crate) flows: usize,
    pub(crate) flow_window: u32,
    pub(crate) session_window: u32,
    pub(crate) tombstones: usize,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug)]
struct Stone {
    /// Cumulative acknowledgment to repeat.
    segments: u64,
    /// The packet that reset it: a later one may open the id anew.
    reset_packet: Option<u64>,
}

/// Something the application should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Readable,
    Finished,
}

/// What became of a DATA segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// The packet may be acknowledged.
    pub(crate) accepted: bool,
    /// New octets or FINAL were stored.
    pub(crate) stored: bool,
    /// To tell the application.
    pub(crate) notice: Option<Notice>,
}

impl Received {
    const DUPLICATE: Self = Self {
        accepted: true,
        stored: false,
        notice: None,
    };
}

/// Result of a read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) piece: Option<Bytes>,
    /// The flow's last octet was read.
    pub(crate) finished: bool,
    /// A window should be announced.
    pub(crate) announce: bool,
}

/// A flow with a hole and when to complain about it.
#[derive(Clone, Copy, Debug)]
struct HoleEntry {
    id: FlowId,
    at: Instant,
    /// In-order end when the entry was made: if it has moved, the hole is another one.
    next: u64,
}

/// Incoming flows.
#[derive(Debug)]
pub(crate) struct RecvFlows {
    limits: RecvLimits,
    /// Boxed: a map's node has room for eleven values.
    flows: BTreeMap<FlowId, Box<RecvFlow>>,
    ended: Tombstones<Stone>,
    /// Octets held by all flows but the control flow.
    held: usize,
    /// Segments held out of order, all flows.
    early: usize,
    announce: VecDeque<FlowId>,
    /// Ordered by time: every entry is made one patience ahead of its present.
    holes: VecDeque<HoleEntry>,
    /// Octets freed since the session window was last announced.
    freed: usize,
}

impl RecvFlows {
    pub(crate) fn new(limits: RecvLimits) -> Self {
        Self {
            limits,
            flows: BTreeMap::new(),
            ended: Tombstones::new(limits.tombstones),
            held: 0,
            early: 0,
            announce: VecDeque::new(),
            holes: VecDeque::new(),
            freed: 0,
        }
    }

    /// Octets all flows but the control flow may still take.
    pub(crate) fn session_window(&self) -> u32 {
        let held = u32::try_from(self.held).unwrap_or(u32::MAX);
        self.limits.session_window.saturating_sub(held)
    }

    /// Whether any flow but the control flow is in the table.
    pub(crate) fn any_data_flow(&self) -> bool {
        self.flows.len() > usize::from(self.flows.contains_key(&FlowId::CONTROL))
    }

    /// Flows in the table.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Octets held, control flow included.
    pub(crate) fn held(&self) -> usize {
        self.held
            + self
                .flows
                .get(&FlowId::CONTROL)
                .map_or(0, |flow| flow.held())
    }

    /// Finds or opens the flow of a DATA packet; `Err` when there is nothing to do with it but
    /// what the value says.
    fn admit(
        &mut self,
        id: FlowId,
        packet: u64,
        may_open: bool,
    ) -> Result<&mut RecvFlow, Received> {
        let mut valid_after = 0;
        if !self.flows.contains_key(&id) {
            if let Some(stone) = self.ended.find(&id) {
                match stone.reset_packet {
                    Some(reset) if packet > reset => valid_after = reset,
                    _ => return Err(Received::DUPLICATE),
                }
            }
            let data_flows =
                self.flows.len() - usize::from(self.flows.contains_key(&FlowId::CONTROL));
            if !may_open || (!id.is_control() && data_flows >= self.limits.flows) {
                return Err(Received::default());
            }
            self.ended.remove(&id);
        }
        let window = self.limits.flow_window;
        let flow = self
            .flows
            .entry(id)
            .or_insert_with(|| Box::new(RecvFlow::new(id, window, valid_after)));
        if packet <= flow.valid_after {
            return Err(Received::DUPLICATE);
        }
        if flow.reset_packet.is_some_and(|reset| packet > reset) {
            // The next flow of this id; the old one is complete but not read yet.
            return Err(Received::default());
        }
        Ok(flow)
    }

    /// Takes a DATA segment.
    pub(crate) fn on_data(
        &mut self,
        id: FlowId,
        seq: u16,
        data: Bytes,
        last: bool,
        packet: u64,
        may_open: bool,
    ) -> Received {
        let control = id.is_control();
        if control && last {
            return Received::default();
        }
        let octet_room = if control {
            u64::MAX
        } else {
            u64::from(self.session_window())
        };
        let early_limit = self.limits.session_window as usize / OCTETS_PER_EARLY;
        let early_room = early_limit.saturating_sub(self.early);
        let flow = match self.admit(id, packet, may_open) {
            Ok(flow) => flow,
            Err(received) => return received,
        };
        let Some(seq) = expand_seq(seq, flow.next_seq()) else {
            return Received::DUPLICATE;
        };
        let early_before = flow.early_segments();
        let taken = flow.take(seq, data, last, early_room, octet_room);
        let (octets, advanced) = match taken {
            Taken::Stored { octets, advanced } => (octets, advanced),
            Taken::Duplicate => return Received::DUPLICATE,
            Taken::Refused => return Received::default(),
        };
        let early_after = flow.early_segments();
        let mut notice = None;
        if advanced {
            if flow.has_ready() {
                if !std::mem::replace(&mut flow.signalled, true) {
                    notice = Some(Notice::Readable);
                }
            } else if flow.is_complete() {
                notice = Some(Notice::Finished);
            }
        }
        self.early = self.early + early_after - early_before;
        if !control {
            self.held += octets;
        }
        if notice == Some(Notice::Finished) {
            self.bury(id);
        }
        Received {
            accepted: true,
            stored: true,
            notice,
        }
    }

    fn bury(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.remove(&id) {
            self.forget_octets(&flow);
            self.ended.bury(
                id,
                Stone {
                    segments: flow.next_seq(),
                    reset_packet: flow.reset_packet,
                },
            );
        }
    }

    fn forget_octets(&mut self, flow: &RecvFlow) {
        self.early -= flow.early_segments();
        // What the flow had queued must not outlive it: a peer that opens and resets flows in
        // turn would grow the queues.
        if flow.hole_queued {
            self.holes.retain(|entry| entry.id != flow.id);
        }
        if flow.announce_queued {
            self.announce.retain(|id| *id != flow.id);
        }
        if !flow.id.is_control() {
            self.held -= flow.held();
            self.freed += flow.held();
        }
    }

    /// The next piece in order.
    pub(crate) fn read(&mut self, id: FlowId) -> Read {
        let mut result = Read {
            piece: None,
            finished: false,
            announce: false,
        };
        let Some(flow) = self.flows.get_mut(&id) else {
            return result;
        };
        result.piece = flow.read();
        let Some(piece) = &result.piece else {
            flow.signalled = false;
            return result;
        };
        let octets = piece.len();
        result.finished = flow.is_complete() && !flow.has_ready();
        if flow.wants_announcement() && !std::mem::replace(&mut flow.announce_queued, true) {
            self.announce.push_back(id);
            result.announce = true;
        }
        if !id.is_control() {
            self.held -= octets;
            self.freed += octets;
            result.announce |= self.wants_session_announcement();
        }
        if result.finished {
            self.bury(id);
        }
        result
    }

    /// The sender gave the flow up in packet `packet`. True when the application should hear.
    pub(crate) fn on_reset(&mut self, id: FlowId, packet: u64) -> bool {
        if id.is_control() {
            return false;
        }
        if let Some(flow) = self.flows.get_mut(&id) {
            if packet <= flow.valid_after {
                return false;
            }
            if flow.is_complete() {
                flow.reset_packet = flow.reset_packet.max(Some(packet));
                return false;
            }
            self.remove_with(id, Some(packet));
            return true;
        }
        match self.ended.find_mut(&id) {
            Some(stone) => stone.reset_packet = stone.reset_packet.max(Some(packet)),
            None => self.ended.bury(
                id,
                Stone {
                    segments: 0,
                    reset_packet: Some(packet),
                },
            ),
        }
        false
    }

    fn remove_with(&mut self, id: FlowId, reset_packet: Option<u64>) {
        if let Some(flow) = self.flows.remove(&id) {
            self.forget_octets(&flow);
            let stone = Stone {
                segments: flow.next_seq(),
                reset_packet: flow.reset_packet.max(reset_packet),
            };
            self.ended.bury(id, stone);
        }
    }

    /// The application refuses the rest. True when the sender has to be told.
    pub(crate) fn stop(&mut self, id: FlowId) -> bool {
        if id.is_control() {
            return false;
        }
        let Some(flow) = self.flows.get(&id) else {
            return false;
        };
        let complete = flow.is_complete();
        self.remove_with(id, None);
        !complete
    }

    /// Cumulative acknowledgment and window of a flow, as an ACK names them; notes that they
    /// were told.
    pub(crate) fn announce(&mut self, id: FlowId) -> (u64, u64) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.on_announced();
            return (flow.next_seq(), flow.window());
        }
        let window = u64::from(self.limits.flow_window);
        (
            self.ended.find(&id).map_or(0, |stone| stone.segments),
            window,
        )
    }

    /// Whether half the session window was freed since it was last told.
    pub(crate) fn wants_session_announcement(&self) -> bool {
        self.freed >= self.limits.session_window as usize / 2
    }

    /// Any ACK carries the session window.
    pub(crate) fn on_session_window_told(&mut self) {
        self.freed = 0;
    }

    /// Whether a window waits to be announced.
    pub(crate) fn any_announcement(&self) -> bool {
        !self.announce.is_empty()
    }

    /// A flow whose window has to be announced.
    pub(crate) fn next_announcement(&mut self) -> Option<FlowId> {
        while let Some(id) = self.announce.pop_front() {
            if let Some(flow) = self.flows.get_mut(&id)
                && std::mem::take(&mut flow.announce_queued)
            {
                return Some(id);
            }
        }
        None
    }

    /// The sender asks for this flow's window.
    pub(crate) fn request_announcement(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !std::mem::replace(&mut flow.announce_queued, true)
        {
            self.announce.push_back(id);
        }
    }

    /// Watches a flow that has a hole from now on; complains at `at` if it still stands.
    pub(crate) fn watch_hole(&mut self, id: FlowId, at: Instant) {
        if let Some(flow) = self.flows.get_mut(&id)
            && flow.has_hole()
            && !std::mem::replace(&mut flow.hole_queued, true)
        {
            let next = flow.next_seq();
            self.insert_hole(HoleEntry { id, at, next });
        }
    }

    fn insert_hole(&mut self, entry: HoleEntry) {
        let at = self.holes.partition_point(|other| other.at <= entry.at);
        self.holes.insert(at, entry);
    }

    /// When the next hole is due.
    pub(crate) fn hole_deadline(&self) -> Option<Instant> {
        self.holes.front().map(|entry| entry.at)
    }

    /// A hole that has stood until now: flow, in-order end and missing ranges. `again` gives the
    /// time of the next complaint from the number of those made.
    pub(crate) fn next_hole(
        &mut self,
        now: Instant,
        again: impl Fn(u32) -> Instant,
    ) -> Option<(FlowId, u64, Vec<Hole>)> {
        while self.hole_deadline().is_some_and(|at| at <= now) {
            let entry = self.holes.pop_front()?;
            let Some(flow) = self.flows.get_mut(&entry.id) else {
                continue;
            };
            flow.hole_queued = false;
            if !flow.has_hole() {
                continue;
            }
            let next = flow.next_seq();
            let stood = next == entry.next;
            if stood {
                flow.naks = flow.naks.saturating_add(1);
            }
            let at = again(if stood { flow.naks } else { 0 });
            let holes = if stood { flow.holes() } else { Vec::new() };
            flow.hole_queued = true;
            self.insert_hole(HoleEntry {
                id: entry.id,
                at,
                next,
            });
            if !holes.is_empty() {
                return Some((entry.id, next, holes));
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "recv_flows_tests.rs"]
mod tests;
