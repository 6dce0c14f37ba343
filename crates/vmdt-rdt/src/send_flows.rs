//! The outgoing flows of one session and the order in which they are served.
//!
//! The control flow goes first, then lost segments, then the other flows in turn: one segment
//! of full size each, two or three for those of higher priority. A flow that can't send is in
//! no queue, so finding the next segment costs no scan.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::FlowId;

use crate::error::WriteError;
use crate::limiter::{RateLimit, TokenBucket};
use crate::send_flow::{Held, Outgoing, Priority, SendFlow};
use crate::tombstones::Tombstones;

/// Bounds of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendLimits {
    pub(crate) flows: usize,
    pub(crate) active: usize,
    pub(crate) buffer: usize,
    pub(crate) control_buffer: usize,
    pub(crate) tombstones: usize,
}

/// Names a segment of a flow that may be gone by the time it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRef {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) seq: u64,
}

/// What an acknowledgment did to the table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckEffect {
    /// The flow that is now wholly acknowledged.
    pub(crate) delivered: Option<FlowId>,
    /// The buffer has drained to half after a refused write.
    pub(crate) writable: bool,
}

/// Outgoing flows by slot, with their queues.
#[derive(Debug)]
pub(crate) struct SendFlows {
    limits: SendLimits,
    slots: Vec<Option<SendFlow>>,
    free: Vec<u32>,
    by_id: BTreeMap<FlowId, u32>,
    generation: u32,
    control: Option<u32>,
    ready: VecDeque<u32>,
    /// Flows that wait for an active one to end.
    waiting: VecDeque<u32>,
    /// Flows that their user's limit holds back, and until when.
    limited: BTreeSet<(Instant, u32)>,
    active: usize,
    lost: VecDeque<SegmentRef>,
    lost_control: VecDeque<SegmentRef>,
    /// Flows whose window was found used up, to be probed in turn, and how many still are.
    probe_queue: VecDeque<u32>,
    blocked: usize,
    session_blocked: bool,
    ended: Tombstones<()>,
    queued: usize,
    control_queued: usize,
    unacked: u64,
    refused: bool,
    control_refused: bool,
    /// Octets a new flow may send before its first window arrives.
    initial_window: u32,
    session_window: u64,
    session_window_packet: Option<u64>,
}

impl SendFlows {
    pub(crate) fn new(limits: SendLimits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            generation: 0,
            control: None,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            limited: BTreeSet::new(),
            active: 0,
            lost: VecDeque::new(),
            lost_control: VecDeque::new(),
            probe_queue: VecDeque::new(),
            blocked: 0,
            session_blocked: false,
            ended: Tombstones::new(limits.tombstones),
            queued: 0,
            control_queued: 0,
            unacked: 0,
            refused: false,
            control_refused: false,
            initial_window: 0,
            session_window: 0,
            session_window_packet: None,
        }
    }

    /// The peer's offer or accept told its windows.
    pub(crate) fn set_windows(&mut self, flow: u32, session: u32) {
        self.initial_window = flow;
        self.session_window = u64::from(session);
        // Flows written to before the session stood.
        for held in self.slots.iter_mut().flatten() {
            held.on_window(0, u64::from(flow), 0);
        }
    }

    /// Whether any flow but the control flow is in the table.
    pub(crate) fn any_data_flow(&self) -> bool {
        self.by_id.len() > usize::from(self.control.is_some())
    }

    /// Flows in the table.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Octets queued and not acknowledged, control flow included.
    pub(crate) fn queued(&self) -> usize {
        self.queued + self.control_queued
    }

    /// Whether a segment waits to be retransmitted.
    pub(crate) fn any_lost(&self) -> bool {
        !self.lost.is_empty() || !self.lost_control.is_empty()
    }

    /// Whether a segment of the control flow does.
    pub(crate) fn any_lost_control(&self) -> bool {
        !self.lost_control.is_empty()
    }

    fn flow(&self, slot: u32) -> Option<&SendFlow> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn flow_mut(&mut self, slot: u32) -> Option<&mut SendFlow> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    fn current(&mut self, segment: SegmentRef) -> Option<&mut SendFlow> {
        self.flow_mut(segment.slot)
            .filter(|flow| flow.generation == segment.generation)
    }

    fn open(&mut self, id: FlowId) -> Result<u32, WriteError> {
        if let Some(&slot) = self.by_id.get(&id) {
            return Ok(slot);
        }
        if self.ended.find(&id).is_some() {
            return Err(WriteError::FlowEnded);
        }
        if !id.is_control() && self.by_id.len() >= self.limits.flows {
            return Err(WriteError::TooManyFlows {
                limit: self.limits.flows,
            });
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                // The table is bounded far below 2^32 flows.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.generation = self.generation.wrapping_add(1);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(SendFlow::new(id, self.generation, self.initial_window));
        }
        self.by_id.insert(id, slot);
        if id.is_control() {
            self.control = Some(slot);
        }
        Ok(slot)
    }

    /// Queues octets on a flow, opening it if it is new.
    pub(crate) fn write(&mut self, id: FlowId, data: Bytes) -> Result<(), WriteError> {
        let (queued, limit) = if id.is_control() {
            (self.control_queued, self.limits.control_buffer)
        } else {
            (self.queued, self.limits.buffer)
        };
        let octets = data.len();
        if octets > 0 && queued > 0 && queued + octets > limit {
            if id.is_control() {
                self.control_refused = true;
            } else {
                self.refused = true;
            }
            return Err(WriteError::Blocked { queued, limit });
        }
        let slot = self.open(id)?;
        let accepted = self.flow_mut(slot).is_some_and(|flow| flow.write(data));
        if !accepted {
            return Err(WriteError::FlowEnded);
        }
        if id.is_control() {
            self.control_queued += octets;
        } else {
            self.queued += octets;
        }
        self.schedule(slot);
        Ok(())
    }

    /// Ends a flow after what is queued.
    pub(crate) fn finish(&mut self, id: FlowId) -> Result<(), WriteError> {
        if id.is_control() {
            return Err(WriteError::ControlFlow);
        }
        let slot = self.open(id)?;
        if !self.flow_mut(slot).is_some_and(SendFlow::finish) {
            return Err(WriteError::FlowEnded);
        }
        self.schedule(slot);
        Ok(())
    }

    /// Sets a flow's share, opening it if it is new.
    pub(crate) fn set_priority(
        &mut self,
        id: FlowId,
        priority: Priority,
    ) -> Result<(), WriteError> {
        if id.is_control() {
            return Err(WriteError::ControlFlow);
        }
        let slot = self.open(id)?;
        if let Some(flow) = self.flow_mut(slot) {
            flow.priority = priority;
        }
        Ok(())
    }

    /// Sets or lifts a flow's limit, opening it if it is new.
    pub(crate) fn set_limit(
        &mut self,
        now: Instant,
        id: FlowId,
        limit: Option<RateLimit>,
    ) -> Result<(), WriteError> {
        if id.is_control() {
            return Err(WriteError::ControlFlow);
        }
        let slot = self.open(id)?;
        self.unlimit(slot);
        if let Some(flow) = self.flow_mut(slot) {
            flow.limit = limit.map(|limit| Box::new(TokenBucket::new(now, limit)));
        }
        Ok(())
    }

    /// Puts a flow that its limit holds back into its queue again.
    fn unlimit(&mut self, slot: u32) {
        if let Some(flow) = self.flow_mut(slot)
            && let Some(at) = flow.limited_until.take()
        {
            self.limited.remove(&(at, slot));
            self.ready.push_back(slot);
        }
    }

    /// Lets the flows go on whose limits permit it by now.
    pub(crate) fn release_limited(&mut self, now: Instant) {
        while let Some(&(at, slot)) = self.limited.first()
            && at <= now
        {
            self.unlimit(slot);
        }
    }

    /// When the next flow's limit lets it go on.
    pub(crate) fn limited_until(&self) -> Option<Instant> {
        self.limited.first().map(|entry| entry.0)
    }

    /// Puts a flow into the queue it belongs to, unless it is in one.
    fn schedule(&mut self, slot: u32) {
        let Some(flow) = self.flow_mut(slot) else {
            return;
        };
        if flow.scheduled || flow.id.is_control() || !flow.has_pending() {
            return;
        }
        flow.scheduled = true;
        self.ready.push_back(slot);
    }

    /// Notes whether a flow's window is used up.
    fn set_blocked(&mut self, slot: u32, blocked: bool) {
        let Some(flow) = self.flow_mut(slot) else {
            return;
        };
        let was = std::mem::replace(&mut flow.blocked, blocked);
        let list = blocked && !flow.listed;
        flow.listed |= blocked;
        match (was, blocked) {
            (false, true) => self.blocked += 1,
            (true, false) => self.blocked -= 1,
            _ => {}
        }
        if list {
            self.probe_queue.push_back(slot);
        }
    }

    /// A flow left the active ones: the next in line may start.
    fn release_active(&mut self) {
        self.active = self.active.saturating_sub(1);
        if self.active < self.limits.active
            && let Some(slot) = self.waiting.pop_front()
        {
            self.ready.push_back(slot);
        }
    }

    /// Whether there may be new data to send. It can turn out that a window forbids it.
    pub(crate) fn wants_to_send(&self) -> bool {
        let control = self
            .control
            .and_then(|slot| self.flow(slot))
            .is_some_and(|flow| flow.has_pending() && !flow.blocked);
        control || (!self.session_blocked && !self.ready.is_empty())
    }

    /// The next lost segment that is still wanted.
    pub(crate) fn next_lost(&mut self) -> Option<(SegmentRef, FlowId, Outgoing)> {
        while let Some(segment) = self
            .lost_control
            .pop_front()
            .or_else(|| self.lost.pop_front())
        {
            if let Some(flow) = self.current(segment)
                && let Some(outgoing) = flow.again(segment.seq, true)
            {
                return Some((segment, flow.id, outgoing));
            }
        }
        None
    }

    /// A segment in transit, to probe with.
    pub(crate) fn probe(&mut self, segment: SegmentRef) -> Option<(FlowId, Outgoing)> {
        let flow = self.current(segment)?;
        Some((flow.id, flow.again(segment.seq, false)?))
    }

    /// Cuts the next new segment of the control flow.
    pub(crate) fn next_control(&mut self, max: usize) -> Option<(SegmentRef, FlowId, Outgoing)> {
        let slot = self.control?;
        let flow = self.flow_mut(slot).filter(|flow| flow.has_pending())?;
        let (id, generation) = (flow.id, flow.generation);
        let cut = flow.next_segment(max, u64::MAX, true);
        self.set_blocked(slot, matches!(cut, Err(Held::FlowWindow)));
        let outgoing = cut.ok()?;
        let segment = SegmentRef {
            slot,
            generation,
            seq: outgoing.seq,
        };
        Some((segment, id, outgoing))
    }

    /// Cuts the next new segment: control flow first, then the others in turn.
    pub(crate) fn next_new(
        &mut self,
        now: Instant,
        max: usize,
    ) -> Option<(SegmentRef, FlowId, Outgoing)> {
        if let Some(control) = self.next_control(max) {
            return Some(control);
        }
        if self.session_blocked {
            return None;
        }
        while let Some(slot) = self.ready.pop_front() {
            let credit = self.session_window.saturating_sub(self.unacked);
            let idle = self.unacked == 0;
            let no_start = self.active >= self.limits.active;
            let Some(flow) = self.flow_mut(slot) else {
                continue;
            };
            if no_start && !flow.started {
                self.waiting.push_back(slot);
                continue;
            }
            let size = flow.next_size(max);
            if let Some(at) = flow
                .limit
                .as_mut()
                .and_then(|bucket| bucket.delay(now, size))
            {
                flow.limited_until = Some(at);
                self.limited.insert((at, slot));
                continue;
            }
            if flow.deficit <= 0 {
                flow.deficit += flow.priority.weight() * i64::try_from(max).unwrap_or(i64::MAX / 8);
            }
            let cut = flow.next_segment(max, credit, idle);
            let generation = flow.generation;
            let id = flow.id;
            match cut {
                Ok(outgoing) => {
                    let more = flow.has_pending();
                    let first = !std::mem::replace(&mut flow.started, true);
                    flow.scheduled = more;
                    flow.deficit = flow
                        .deficit
                        .saturating_sub_unsigned(outgoing.data.len() as u64);
                    if let Some(bucket) = &mut flow.limit {
                        bucket.take(outgoing.data.len() as u64);
                    }
                    if !more {
                        flow.deficit = 0;
                    } else if flow.deficit > 0 {
                        self.ready.push_front(slot);
                    } else {
                        self.ready.push_back(slot);
                    }
                    self.active += usize::from(first);
                    self.set_blocked(slot, false);
                    let seq = outgoing.seq;
                    return Some((
                        SegmentRef {
                            slot,
                            generation,
                            seq,
                        },
                        id,
                        outgoing,
                    ));
                }
                Err(Held::SessionWindow) => {
                    self.session_blocked = true;
                    self.ready.push_front(slot);
                    return None;
                }
                Err(held) => {
                    flow.deficit = 0;
                    flow.scheduled = false;
                    self.set_blocked(slot, held == Held::FlowWindow);
                }
            }
        }
        None
    }

    /// Notes the first transmission of a segment from [`next_new`](Self::next_new).
    pub(crate) fn on_sent(
        &mut self,
        now: Instant,
        segment: SegmentRef,
        outgoing: Outgoing,
        packet: u64,
    ) {
        let octets = outgoing.data.len() as u64;
        if let Some(flow) = self.current(segment) {
            let control = flow.id.is_control();
            flow.on_sent(now, outgoing, packet);
            if !control {
                self.unacked += octets;
            }
        }
    }

    /// Notes a retransmission.
    pub(crate) fn on_sent_again(&mut self, now: Instant, segment: SegmentRef, packet: u64) {
        if let Some(flow) = self.current(segment) {
            flow.on_sent_again(now, segment.seq, packet);
        }
    }

    /// A packet with this segment was lost.
    pub(crate) fn on_lost(&mut self, segment: SegmentRef, packet: u64) {
        let Some(flow) = self.current(segment) else {
            return;
        };
        let control = flow.id.is_control();
        if flow.on_lost(segment.seq, packet) {
            if control {
                self.lost_control.push_back(segment);
            } else {
                self.lost.push_back(segment);
            }
        }
    }

    /// A packet with this segment was acknowledged.
    pub(crate) fn on_acked(&mut self, segment: SegmentRef) -> AckEffect {
        let Some(flow) = self.current(segment) else {
            return AckEffect::default();
        };
        let freed = flow.on_acked(segment.seq);
        self.after_ack(segment.slot, freed)
    }

    /// The slot of a flow.
    pub(crate) fn slot(&self, id: &FlowId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// Sequence number after the newest segment sent on this flow.
    pub(crate) fn next_seq(&self, slot: u32) -> u64 {
        self.flow(slot).map_or(0, SendFlow::next_seq)
    }

    /// An ACK named this flow. `None` when it acknowledges what was never sent.
    pub(crate) fn on_flow_ack(
        &mut self,
        slot: u32,
        seq: u64,
        window: u64,
        packet: u64,
    ) -> Option<AckEffect> {
        let Some(flow) = self.flow_mut(slot) else {
            return Some(AckEffect::default());
        };
        let freed = flow.on_cumulative(seq)?;
        flow.on_window(seq, window, packet);
        Some(self.after_ack(slot, freed))
    }

    fn after_ack(&mut self, slot: u32, freed: usize) -> AckEffect {
        let Some(flow) = self.flow(slot) else {
            return AckEffect::default();
        };
        let id = flow.id;
        let delivered = flow.is_delivered();
        self.uncount(id, freed, freed);
        if id.is_control() {
            self.set_blocked(slot, false);
        }
        if delivered {
            self.ended.bury(id, ());
            self.remove(slot);
        } else {
            self.schedule(slot);
        }
        AckEffect {
            delivered: delivered.then_some(id),
            writable: self.became_writable(),
        }
    }

    fn uncount(&mut self, id: FlowId, queued: usize, unacked: usize) {
        if id.is_control() {
            self.control_queued -= queued;
        } else {
            self.queued -= queued;
            self.unacked -= unacked as u64;
            if unacked > 0 {
                self.session_blocked = false;
            }
        }
    }

    /// Whether a buffer that refused a write is half free now; told once.
    fn became_writable(&mut self) -> bool {
        let data = self.refused && self.queued <= self.limits.buffer / 2;
        let control = self.control_refused && self.control_queued <= self.limits.control_buffer / 2;
        self.refused &= !data;
        self.control_refused &= !control;
        data || control
    }

    fn remove(&mut self, slot: u32) {
        let Some(flow) = self.slots.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        self.by_id.remove(&flow.id);
        if flow.scheduled {
            self.ready.retain(|&other| other != slot);
            self.waiting.retain(|&other| other != slot);
            if let Some(at) = flow.limited_until {
                self.limited.remove(&(at, slot));
            }
        }
        if flow.listed {
            self.probe_queue.retain(|&other| other != slot);
        }
        self.blocked -= usize::from(flow.blocked);
        self.free.push(slot);
        if flow.started {
            self.release_active();
        }
    }

    /// Drops a flow and all it has queued. True if it existed; the second value tells whether
    /// a refused writer may try again. The id stays closed until [`reopen`](Self::reopen).
    pub(crate) fn abandon(&mut self, id: FlowId) -> (bool, bool) {
        let Some(slot) = self.by_id.get(&id).copied() else {
            return (false, false);
        };
        if let Some(flow) = self.flow(slot) {
            let (queued, unacked) = (flow.queued(), flow.unacked());
            self.uncount(id, queued, unacked);
        }
        self.remove(slot);
        self.ended.bury(id, ());
        (true, self.became_writable())
    }

    /// The peer knows that the flow was reset: its id may be used again.
    pub(crate) fn reopen(&mut self, id: FlowId) {
        self.ended.remove(&id);
    }

    /// The newest ACK told the session window.
    pub(crate) fn on_session_window(&mut self, octets: u64, packet: u64) {
        if self
            .session_window_packet
            .is_some_and(|newest| packet < newest)
        {
            return;
        }
        self.session_window_packet = Some(packet);
        self.session_window = octets;
        self.session_blocked = false;
    }

    /// Whether a window keeps data from being sent, so that it has to be probed for.
    pub(crate) fn is_window_blocked(&self) -> bool {
        self.session_blocked || self.blocked > 0
    }

    /// The flow to name in the next window probe; flows take turns.
    pub(crate) fn next_to_probe(&mut self) -> Option<FlowId> {
        while let Some(slot) = self.probe_queue.pop_front() {
            let Some(flow) = self.flow_mut(slot) else {
                continue;
            };
            let id = flow.id;
            flow.listed = flow.blocked;
            if flow.blocked {
                self.probe_queue.push_back(slot);
                return Some(id);
            }
        }
        if !self.session_blocked {
            return None;
        }
        let slot = self.ready.front().copied()?;
        self.flow(slot).map(|flow| flow.id)
    }

    /// Octets of the largest segment that is sent and not acknowledged. Looks at all of them.
    pub(crate) fn largest_in_transit(&self) -> usize {
        let flows = self.slots.iter().flatten();
        flows.map(SendFlow::largest_in_transit).max().unwrap_or(0)
    }

    /// Packets of segments the receiver names as missing and that are older than `age`.
    pub(crate) fn overdue(
        &self,
        now: Instant,
        slot: u32,
        first: u64,
        count: u64,
        age: std::time::Duration,
        limit: usize,
    ) -> Vec<u64> {
        self.flow(slot)
            .map(|flow| flow.overdue(now, first, count, age, limit))
            .unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "send_flows_tests.rs"]
mod tests;
