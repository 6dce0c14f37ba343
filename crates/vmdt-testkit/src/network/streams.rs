//! The machine behind a network's streams.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::pipe::{Item, Pipe, SEGMENT};
use super::stream::{
    CloseReason, RefuseReason, Side, StreamConfig, StreamEnd, StreamEvent, StreamEventKind,
    StreamId, WriteError,
};
use super::topology::{HostId, Topology};
use crate::SimRng;

/// All streams of a network. Streams are taken out of the map while they are
/// worked on and put back, with their timers set anew, by [`Streams::settle`].
#[derive(Debug)]
pub(super) struct Streams {
    config: StreamConfig,
    rng: SimRng,
    streams: BTreeMap<StreamId, Stream>,
    next_id: u64,
    timers: BTreeMap<TimerKey, Timer>,
    next_timer: u64,
    ready: VecDeque<StreamEvent>,
}

type TimerKey = (Instant, u64);

#[derive(Clone, Copy, Debug)]
enum Timer {
    Wake(StreamEnd),
    Break(StreamId),
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    dialer: End,
    listener: End,
    break_timer: Option<TimerKey>,
}

#[derive(Debug)]
struct End {
    host: HostId,
    address: SocketAddr,
    state: EndState,
    /// What is on its way to this end.
    inbox: Pipe,
    wake: Option<TimerKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndState {
    /// The dialer waits for an answer; the listener does not know yet.
    Unopened,
    Open,
    /// Its host went silent: the peer does not know.
    Lost,
    Gone,
}

impl End {
    fn new(now: Instant, host: HostId, address: SocketAddr, rng: &SimRng) -> Self {
        Self {
            host,
            address,
            state: EndState::Unopened,
            inbox: Pipe::new(now, rng),
            wake: None,
        }
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, EndState::Lost | EndState::Gone)
    }

    fn leave(&mut self, state: EndState) {
        self.state = state;
        self.inbox.discard_arrived();
    }
}

impl Stream {
    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Dialer => &mut self.dialer,
            Side::Listener => &mut self.listener,
        }
    }

    fn end_ref(&self, side: Side) -> &End {
        match side {
            Side::Dialer => &self.dialer,
            Side::Listener => &self.listener,
        }
    }

    /// Sends `item` to the end at `to`.
    fn send(&mut self, now: Instant, to: Side, item: Item, topology: &Topology) {
        let from = self.end(to.other()).host;
        let to = self.end(to);
        to.inbox.send(now, item, topology.config(from, to.host));
    }

    /// Loses what is on its way to the end at `to`, which learns of a reset.
    fn abort(&mut self, now: Instant, to: Side, topology: &Topology) {
        let from = self.end(to.other()).host;
        let to = self.end(to);
        to.inbox
            .abort(now, CloseReason::Reset, topology.config(from, to.host));
    }

    /// Whether what is sent to the end at `to` gets there.
    fn carries(&self, to: Side, topology: &Topology) -> bool {
        let (from, to) = (self.end_ref(to.other()), self.end_ref(to));
        let at_home = |end: &End| topology.host_of(end.address.ip()) == Some(end.host);
        at_home(from) && at_home(to) && !topology.is_blocked(from.host, to.host)
    }

    fn is_obstructed(&self, topology: &Topology) -> bool {
        let lost = [&self.dialer, &self.listener]
            .iter()
            .any(|end| end.state == EndState::Lost);
        lost || !self.carries(Side::Dialer, topology) || !self.carries(Side::Listener, topology)
    }

    fn is_over(&self) -> bool {
        let never_opens =
            self.listener.state == EndState::Unopened && self.listener.inbox.is_idle();
        self.dialer.is_dead() && (self.listener.is_dead() || never_opens)
    }
}

impl Streams {
    pub(super) fn new(rng: SimRng) -> Self {
        Self {
            config: StreamConfig::new(),
            rng,
            streams: BTreeMap::new(),
            next_id: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            ready: VecDeque::new(),
        }
    }

    pub(super) fn set_config(&mut self, config: StreamConfig) {
        self.config = config;
    }

    pub(super) fn open(
        &mut self,
        now: Instant,
        from: (HostId, SocketAddr),
        to: (Option<HostId>, SocketAddr),
        topology: &Topology,
    ) -> StreamId {
        let id = StreamId(self.next_id);
        self.next_id += 1;
        let rng = self.rng.fork_indexed("stream", id.0);
        // An address of nobody: the request goes nowhere, as to a silent host.
        let nobody = HostId(u32::MAX);
        let mut stream = Stream {
            id,
            dialer: End::new(now, from.0, from.1, &rng.fork("to dialer")),
            listener: End::new(now, to.0.unwrap_or(nobody), to.1, &rng.fork("to listener")),
            break_timer: None,
        };
        stream.send(now, Side::Listener, Item::Open, topology);
        let deadline = now + self.config.connect_timeout;
        stream.break_timer = Some(self.set_timer(deadline, Timer::Break(id)));
        self.settle(now, stream, topology);
        id
    }

    pub(super) fn write(
        &mut self,
        now: Instant,
        at: StreamEnd,
        mut data: Bytes,
        topology: &Topology,
    ) -> Result<usize, WriteError> {
        let room = self.room(at)?;
        let Some(mut stream) = self.streams.remove(&at.stream) else {
            return Err(WriteError::Closed);
        };
        data.truncate(room);
        let taken = data.len();
        let to = at.side.other();
        stream.end(to).inbox.outstanding += taken;
        while !data.is_empty() {
            let segment = data.split_to(data.len().min(SEGMENT));
            stream.send(now, to, Item::Data(segment), topology);
        }
        self.settle(now, stream, topology);
        Ok(taken)
    }

    /// How many octets a write at this end would take now.
    pub(super) fn room(&self, at: StreamEnd) -> Result<usize, WriteError> {
        let stream = self.streams.get(&at.stream).ok_or(WriteError::Closed)?;
        match stream.end_ref(at.side).state {
            EndState::Open => {}
            EndState::Unopened => return Err(WriteError::NotOpen),
            EndState::Lost | EndState::Gone => return Err(WriteError::Closed),
        }
        let outstanding = stream.end_ref(at.side.other()).inbox.outstanding;
        Ok(self.config.buffer.saturating_sub(outstanding))
    }

    pub(super) fn close(&mut self, now: Instant, at: StreamEnd, topology: &Topology) {
        self.leave(now, at, topology, |stream, to| {
            stream.send(now, to, Item::End(CloseReason::Finished), topology);
        });
    }

    pub(super) fn reset(&mut self, now: Instant, at: StreamEnd, topology: &Topology) {
        self.leave(now, at, topology, |stream, to| {
            stream.abort(now, to, topology)
        });
    }

    /// The process at `at` gives its end up; `tell` lets the other side know.
    fn leave(
        &mut self,
        now: Instant,
        at: StreamEnd,
        topology: &Topology,
        tell: impl FnOnce(&mut Stream, Side),
    ) {
        let Some(mut stream) = self.streams.remove(&at.stream) else {
            // It may be over already with its last events not yet popped.
            self.forget_ready(at);
            return;
        };
        if !stream.end(at.side).is_dead() {
            stream.end(at.side).leave(EndState::Gone);
            tell(&mut stream, at.side.other());
        }
        self.forget_ready(at);
        self.settle(now, stream, topology);
    }

    pub(super) fn set_reading(
        &mut self,
        now: Instant,
        at: StreamEnd,
        reading: bool,
        topology: &Topology,
    ) {
        let Some(mut stream) = self.streams.remove(&at.stream) else {
            return;
        };
        let end = stream.end(at.side);
        end.inbox.reading = reading;
        if reading && !end.is_dead() {
            end.inbox.flush_by(now);
        }
        self.settle(now, stream, topology);
    }

    /// The processes of a host die. `silently`: nobody is told.
    pub(super) fn host_down(
        &mut self,
        now: Instant,
        host: HostId,
        silently: bool,
        topology: &Topology,
    ) {
        for at in self.ends_of(host) {
            if silently {
                if let Some(stream) = self.streams.get_mut(&at.stream)
                    && !stream.end(at.side).is_dead()
                    && !(at.side == Side::Listener && stream.listener.state == EndState::Unopened)
                {
                    stream.end(at.side).leave(EndState::Lost);
                }
                self.forget_ready(at);
            } else if !self.is_unaware(at) {
                self.reset(now, at, topology);
            }
        }
        self.ready.retain(|event| event.host != host);
        self.paths_changed(now, topology);
    }

    /// The host answers again, with processes that know nothing of the streams
    /// of those before.
    pub(super) fn host_up(&mut self, now: Instant, host: HostId, topology: &Topology) {
        for at in self.ends_of(host) {
            if let Some(stream) = self.streams.get_mut(&at.stream)
                && stream.end(at.side).state == EndState::Lost
            {
                stream.end(at.side).state = EndState::Gone;
                stream.abort(now, at.side.other(), topology);
            }
        }
        self.paths_changed(now, topology);
    }

    /// Partitions or addresses have changed: starts and stops the time after
    /// which streams break, and lets go on what can.
    pub(super) fn paths_changed(&mut self, now: Instant, topology: &Topology) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            let Some(mut stream) = self.streams.remove(&id) else {
                continue;
            };
            for to in [Side::Dialer, Side::Listener] {
                if stream.carries(to, topology) {
                    let from = stream.end(to.other()).host;
                    let end = stream.end(to);
                    end.inbox.resume(now, topology.config(from, end.host));
                }
            }
            self.settle(now, stream, topology);
        }
    }

    /// When the next event may be due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        match self.ready.front() {
            Some(event) => Some(event.at),
            None => self.timers.first_key_value().map(|((at, _), _)| *at),
        }
    }

    pub(super) fn pop_due(&mut self, now: Instant, topology: &Topology) -> Option<StreamEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let first = self
                .timers
                .first_entry()
                .filter(|first| first.key().0 <= now)?;
            let (at, _) = *first.key();
            match first.remove() {
                Timer::Wake(end) => self.wake(at, end, topology),
                Timer::Break(id) => self.break_stream(at, id),
            }
        }
    }

    fn wake(&mut self, at: Instant, end: StreamEnd, topology: &Topology) {
        let Some(mut stream) = self.streams.remove(&end.stream) else {
            return;
        };
        stream.end(end.side).wake = None;
        if !stream.carries(end.side, topology) {
            stream.end(end.side).inbox.stall();
        }
        loop {
            if stream.end(end.side).inbox.take_flush(at) {
                self.flush(at, &mut stream, end, topology);
            }
            let Some(item) = stream.end(end.side).inbox.pop(at) else {
                break;
            };
            self.arrive(at, &mut stream, end, item, topology);
        }
        if stream.end(end.side).inbox.take_flush(at) {
            self.flush(at, &mut stream, end, topology);
        }
        self.settle(at, stream, topology);
    }

    fn arrive(
        &mut self,
        at: Instant,
        stream: &mut Stream,
        end: StreamEnd,
        item: Item,
        topology: &Topology,
    ) {
        let state = stream.end(end.side).state;
        match (item, state) {
            (Item::Open, EndState::Unopened) => self.arrive_open(at, stream, end, topology),
            (Item::Accept, EndState::Unopened) => {
                stream.dialer.state = EndState::Open;
                if let Some(key) = stream.break_timer.take() {
                    self.timers.remove(&key);
                }
                self.emit_opened(at, stream, end);
            }
            (Item::Refuse(reason), EndState::Unopened) => {
                stream.dialer.state = EndState::Gone;
                self.emit(at, stream, end, StreamEventKind::Refused(reason));
            }
            (Item::Data(octets), EndState::Open) => {
                stream
                    .end(end.side)
                    .inbox
                    .arrive(at, &octets, self.config.chunking);
            }
            (Item::Credit(octets), EndState::Open) => {
                let outstanding = &mut stream.end(end.side.other()).inbox.outstanding;
                *outstanding = outstanding.saturating_sub(octets);
                self.emit(at, stream, end, StreamEventKind::Progress(octets));
            }
            (Item::End(CloseReason::Finished), EndState::Open) => {
                let inbox = &mut stream.end(end.side).inbox;
                inbox.ending = Some(CloseReason::Finished);
                inbox.flush_by(at);
            }
            (Item::End(reason), EndState::Open) => {
                stream.end(end.side).leave(EndState::Gone);
                self.emit(at, stream, end, StreamEventKind::Closed(reason));
            }
            (Item::End(_), EndState::Unopened) => {
                stream.end(end.side).state = EndState::Gone;
                if end.side == Side::Dialer {
                    self.emit(
                        at,
                        stream,
                        end,
                        StreamEventKind::Refused(RefuseReason::Refused),
                    );
                }
            }
            // What is left travels to a process that has given its end up.
            _ => {}
        }
    }

    fn arrive_open(
        &mut self,
        at: Instant,
        stream: &mut Stream,
        end: StreamEnd,
        topology: &Topology,
    ) {
        let (host, address) = (stream.listener.host, stream.listener.address);
        if !topology.is_up(host) {
            // No answer: the dialer finds out by its timeout.
            stream.listener.state = EndState::Gone;
        } else if !topology.listens(address) {
            stream.listener.state = EndState::Gone;
            stream.send(
                at,
                Side::Dialer,
                Item::Refuse(RefuseReason::Refused),
                topology,
            );
        } else {
            stream.listener.state = EndState::Open;
            stream.send(at, Side::Dialer, Item::Accept, topology);
            self.emit_opened(at, stream, end);
        }
    }

    /// The reader looks: it reads all there is, piece by piece.
    fn flush(&mut self, at: Instant, stream: &mut Stream, end: StreamEnd, topology: &Topology) {
        let chunking = self.config.chunking;
        let mut total = 0;
        while let Some(piece) = stream.end(end.side).inbox.read(chunking) {
            total += piece.len();
            self.emit(at, stream, end, StreamEventKind::Data(piece));
        }
        if total > 0 && !stream.end(end.side.other()).is_dead() {
            stream.send(at, end.side.other(), Item::Credit(total), topology);
        }
        let reader = stream.end(end.side);
        if reader.inbox.reading
            && !reader.inbox.has_unread()
            && let Some(reason) = reader.inbox.ending.take()
        {
            reader.leave(EndState::Gone);
            self.emit(at, stream, end, StreamEventKind::Closed(reason));
        }
    }

    fn break_stream(&mut self, at: Instant, id: StreamId) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        for (end, state) in [
            (id.dialer(), stream.dialer.state),
            (id.listener(), stream.listener.state),
        ] {
            match (state, end.side) {
                (EndState::Open, _) => {
                    self.emit(
                        at,
                        &stream,
                        end,
                        StreamEventKind::Closed(CloseReason::TimedOut),
                    );
                }
                (EndState::Unopened, Side::Dialer) => {
                    self.emit(
                        at,
                        &stream,
                        end,
                        StreamEventKind::Refused(RefuseReason::TimedOut),
                    );
                }
                _ => {}
            }
        }
        stream.break_timer = None;
        self.drop_timers(&mut stream);
    }

    fn emit_opened(&mut self, at: Instant, stream: &Stream, end: StreamEnd) {
        let local = stream.end_ref(end.side).address;
        let peer = stream.end_ref(end.side.other()).address;
        self.emit(at, stream, end, StreamEventKind::Opened { local, peer });
    }

    fn emit(&mut self, at: Instant, stream: &Stream, end: StreamEnd, kind: StreamEventKind) {
        let host = stream.end_ref(end.side).host;
        self.ready.push_back(StreamEvent {
            at,
            host,
            end,
            kind,
        });
    }

    fn forget_ready(&mut self, at: StreamEnd) {
        self.ready.retain(|event| event.end != at);
    }

    /// A listener that has not heard of its stream has no end to lose.
    fn is_unaware(&self, at: StreamEnd) -> bool {
        let stream = self.streams.get(&at.stream);
        at.side == Side::Listener
            && stream.is_some_and(|stream| stream.listener.state == EndState::Unopened)
    }

    fn ends_of(&self, host: HostId) -> Vec<StreamEnd> {
        let ends = self.streams.values().flat_map(|stream| {
            [
                (stream.dialer.host, stream.id.dialer()),
                (stream.listener.host, stream.id.listener()),
            ]
        });
        ends.filter(|(at, _)| *at == host)
            .map(|(_, end)| end)
            .collect()
    }

    /// Puts a stream back with its timers set, or drops it when it is over.
    fn settle(&mut self, now: Instant, mut stream: Stream, topology: &Topology) {
        if stream.is_over() {
            self.drop_timers(&mut stream);
            return;
        }
        let connecting = stream.dialer.state == EndState::Unopened;
        let obstructed = stream.is_obstructed(topology);
        if obstructed && stream.break_timer.is_none() {
            let deadline = now + self.config.break_after;
            stream.break_timer = Some(self.set_timer(deadline, Timer::Break(stream.id)));
        } else if !obstructed
            && !connecting
            && let Some(key) = stream.break_timer.take()
        {
            self.timers.remove(&key);
        }
        for end in [stream.id.dialer(), stream.id.listener()] {
            let slot = stream.end(end.side);
            let due = slot.inbox.next_at().map(|due| due.max(now));
            if due == slot.wake.map(|(at, _)| at) {
                continue;
            }
            if let Some(key) = slot.wake.take() {
                self.timers.remove(&key);
            }
            slot.wake = due.map(|due| self.set_timer(due, Timer::Wake(end)));
        }
        self.streams.insert(stream.id, stream);
    }

    fn drop_timers(&mut self, stream: &mut Stream) {
        let keys = [
            stream.break_timer.take(),
            stream.dialer.wake.take(),
            stream.listener.wake.take(),
        ];
        for key in keys.into_iter().flatten() {
            self.timers.remove(&key);
        }
    }

    fn set_timer(&mut self, at: Instant, timer: Timer) -> TimerKey {
        let key = (at, self.next_timer);
        self.next_timer += 1;
        self.timers.insert(key, timer);
        key
    }
}
