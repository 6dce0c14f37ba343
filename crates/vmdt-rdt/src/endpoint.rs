//! The endpoint: every peer session of a node behind one UDP socket.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use vmdt_seal::packet::TAG_LEN;
use vmdt_wire::segment::{Syn, SynKind};
use vmdt_wire::{Flags, FlowId, Header, NodeId, Packet, PacketType};

use crate::config::{Config, HEADER_OCTETS, Integrity};
use crate::ecn::EcnCodepoint;
use crate::error::{DatagramError, WriteError};
use crate::event::{CloseReason, Event, Transmit};
use crate::half_open::{HalfOpenTable, Noted};
use crate::limiter::RateLimit;
use crate::sealed::{Arrived, Sealing};
use crate::send_flow::Priority;
use crate::session::{Room, Session, syn_of, write_syn};
use crate::state::SessionState;
use crate::stats::{EndpointStats, PathStats};
use crate::timers::Timers;

/// All sessions of a node: a machine without sockets, clock or threads.
///
/// Its calls are of four kinds:
/// - *arrivals*: [`handle_datagram`](Self::handle_datagram) and
///   [`handle_timeout`](Self::handle_timeout),
/// - *verbs* of the application: [`connect`](Self::connect), [`write`](Self::write),
///   [`read`](Self::read) and the others,
/// - *output*: [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event),
/// - the *deadline*: [`poll_timeout`](Self::poll_timeout).
///
/// The law for the caller: after any arrival or verb call `poll_transmit` and `poll_event` until
/// both return `None`; the deadline that `poll_timeout` then gives is exact, and
/// `handle_timeout` is due at it. Instants passed never decrease.
///
/// The same calls with the same arguments and seed give the same results.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) config: Arc<Config>,
    pub(crate) local: NodeId,
    pub(crate) rng: ChaCha12Rng,
    /// Only in profile 1.1.
    pub(crate) sealing: Option<Box<Sealing>>,
    pub(crate) slots: Vec<Option<Box<Session>>>,
    free: Vec<u32>,
    pub(crate) by_peer: BTreeMap<NodeId, u32>,
    pub(crate) by_id: BTreeMap<u32, u32>,
    half_open: HalfOpenTable,
    timers: Timers,
    /// Sessions that may have something to send, in turn.
    transmit: VecDeque<u32>,
    pub(crate) events: VecDeque<Event>,
    /// Datagrams among the events, and their octets with headers and tags.
    datagrams: (usize, usize),
    pub(crate) stats: EndpointStats,
    /// Records that wait, and how many found no room; `None`: nothing is recorded.
    #[cfg(feature = "qlog")]
    pub(crate) qlog: Option<(VecDeque<crate::qlog::QlogRecord>, u64)>,
    #[cfg(test)]
    pub(crate) packet_start: Option<u32>,
}

impl Endpoint {
    /// An endpoint of node `local` without sessions. Session ids and packet-number starts come
    /// from `seed`, which must be unpredictable where the network is not trusted; in profile 1.1
    /// the handshakes' secrets come from it too, so it must be secret and never used twice. There
    /// the node's id is the one of its identity, and `local` is not looked at.
    #[must_use]
    pub fn new(config: Config, local: NodeId, seed: [u8; 32]) -> Self {
        let sealing = config.sealing.as_ref();
        let local = sealing.map_or(local, |(identity, _)| identity.node_id());
        Self {
            half_open: HalfOpenTable::new(config.max_half_open),
            sealing: config
                .sealing
                .clone()
                .map(|(local, suites)| Box::new(Sealing::new(local, suites, config.max_half_open))),
            config: Arc::new(config),
            local,
            rng: ChaCha12Rng::from_seed(seed),
            slots: Vec::new(),
            free: Vec::new(),
            by_peer: BTreeMap::new(),
            by_id: BTreeMap::new(),
            timers: Timers::default(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            datagrams: (0, 0),
            stats: EndpointStats::default(),
            #[cfg(feature = "qlog")]
            qlog: None,
            #[cfg(test)]
            packet_start: None,
        }
    }

    // ---- arrivals

    /// Takes one datagram as it came from the socket. Garbage is counted in
    /// [`counters`](Self::counters) and dropped.
    ///
    /// Received flow data are slices of `datagram`; a caller that cuts datagrams out of one
    /// large buffer keeps the whole buffer alive while any of them is unread. In profile 1.1 a
    /// datagram is opened in place if nobody else holds its buffer, and copied otherwise;
    /// [`handle_owned_datagram`](Self::handle_owned_datagram) never copies.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: Bytes) {
        self.handle_marked_datagram(now, from, None, datagram);
    }

    /// [`handle_datagram`](Self::handle_datagram) with the ECN mark of the IP header. A driver
    /// that knows the marks uses this for every datagram: a marked one that is reported without
    /// its mark ends the marking.
    pub fn handle_marked_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        ecn: Option<EcnCodepoint>,
        datagram: Bytes,
    ) {
        if self.sealing.is_some() {
            self.handle_sealed(now, (from, ecn), Arrived::Shared(datagram));
        } else {
            self.handle_open(now, (from, ecn), datagram);
        }
    }

    /// [`handle_marked_datagram`](Self::handle_marked_datagram) with a datagram that can be
    /// changed, such as one split off a larger buffer: in profile 1.1 it is opened in place.
    pub fn handle_owned_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        ecn: Option<EcnCodepoint>,
        datagram: BytesMut,
    ) {
        if self.sealing.is_some() {
            self.handle_sealed(now, (from, ecn), Arrived::Owned(datagram));
        } else {
            self.handle_open(now, (from, ecn), datagram.freeze());
        }
    }

    /// Takes one datagram of the open profile.
    fn handle_open(
        &mut self,
        now: Instant,
        (from, ecn): (SocketAddr, Option<EcnCodepoint>),
        datagram: Bytes,
    ) {
        let octets = datagram.len();
        let Some(packet) = open(self.config.integrity, datagram) else {
            self.stats.garbage += 1;
            return;
        };
        let header = &packet.header;
        if header.dest != self.local || header.source == self.local || header.source.is_empty() {
            self.stats.misaddressed += 1;
            return;
        }
        if header.kind == PacketType::Syn {
            self.on_syn(now, from, &packet);
            return;
        }
        if header.kind == PacketType::Datagram {
            // The open profile has none: whoever sees a session could put octets into it.
            self.stats.garbage += 1;
            return;
        }
        let (id, peer) = (header.session, header.source);
        let slot = match self.by_id.get(&id) {
            Some(&slot) => slot,
            None => match self.confirm(now, id, peer) {
                Some(slot) => slot,
                None => {
                    self.stats.unknown_session += 1;
                    return;
                }
            },
        };
        let room = self.room(octets);
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.peer() != peer {
            self.stats.unknown_session += 1;
            return;
        }
        if session.state() == SessionState::Connecting {
            session.hurry_offer(now, from);
        } else {
            session.handle(now, (from, ecn), packet, octets, room);
        }
        self.touch(slot);
    }

    /// Lets everything due by `now` happen. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.half_open.handle_timeout(now);
        if let Some(sealing) = &mut self.sealing {
            sealing.answers.handle_timeout(now);
        }
        while let Some((at, slot)) = self.timers.first()
            && at <= now
        {
            self.timers.set(slot, None);
            if let Some(session) = self.session_mut(slot) {
                session.handle_timeout(now);
            }
            self.touch(slot);
        }
    }

    // ---- output

    /// Writes the next datagram into `buf`, which it clears first. `None`: nothing to send
    /// before the next arrival, verb or timeout.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(transmit) = self
            .sealing
            .as_mut()
            .and_then(|sealing| sealing.poll_transmit(self.local, buf))
        {
            return Some(transmit);
        }
        if let Some((id, entry)) = self.half_open.next_due() {
            let id = NonZeroU32::new(id)?;
            let offer = entry.syn.session;
            let syn = syn_of(&self.config, id, SynKind::Accept { echo: offer });
            let ids = [self.local, entry.peer];
            write_syn(buf, ids, self.config.integrity, offer.get(), &syn);
            return Some(Transmit {
                to: entry.address,
                len: buf.len(),
                ecn: None,
                oversized: false,
            });
        }
        while let Some(slot) = self.transmit.pop_front() {
            let Self { slots, rng, .. } = self;
            let Some(session) = slots.get_mut(slot as usize).and_then(Option::as_mut) else {
                continue;
            };
            if let Some(transmit) = session.poll_transmit(now, buf, || rng.next_u32()) {
                self.transmit.push_back(slot);
                self.collect_trace(slot);
                self.collect_events(slot);
                return Some(transmit);
            }
            session.queued = false;
            if session.has_ended() {
                self.touch(slot);
                continue;
            }
            self.collect_events(slot);
            self.rearm(slot);
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.timers.first().map(|entry| entry.0);
        let sealing = self.sealing.as_ref();
        let answers = sealing.and_then(|sealing| sealing.answers.next_timeout());
        [session, self.half_open.next_timeout(), answers]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Datagram { payload, .. }) = &event {
            let (count, octets) = &mut self.datagrams;
            *count = count.saturating_sub(1);
            *octets = octets.saturating_sub(datagram_octets(payload));
        }
        event
    }

    /// Records sessions that begin from now on as qlog traces, or no longer. Whoever switches it
    /// on polls [`poll_qlog`](Self::poll_qlog) as often as the events: at 65,536 records that
    /// wait further ones are dropped and counted.
    #[cfg(feature = "qlog")]
    pub fn set_qlog(&mut self, on: bool) {
        self.qlog = on.then(|| self.qlog.take().unwrap_or_default());
    }

    /// The next record of a trace. The records of one session, in order, are its trace: a file
    /// `*.sqlog`.
    #[cfg(feature = "qlog")]
    #[must_use]
    pub fn poll_qlog(&mut self) -> Option<crate::qlog::QlogRecord> {
        self.qlog.as_mut()?.0.pop_front()
    }

    /// Records dropped for want of room.
    #[cfg(feature = "qlog")]
    #[must_use]
    pub fn qlog_dropped(&self) -> u64 {
        self.qlog.as_ref().map_or(0, |entry| entry.1)
    }

    // ---- sessions

    /// Opens a session with `peer` at `address`. Does nothing while one is being opened or
    /// stands, wherever that peer is; replaces one that is draining. `Connected` or
    /// `ConnectFailed` follows.
    pub fn connect(&mut self, now: Instant, peer: NodeId, address: SocketAddr) {
        if let Some(&slot) = self.by_peer.get(&peer) {
            let draining = self
                .session(slot)
                .is_some_and(|session| session.state() == SessionState::Draining);
            if !draining {
                return;
            }
            self.remove(slot);
        }
        let possible = peer != self.local && !peer.is_empty();
        if !possible || self.by_peer.len() >= self.config.max_sessions {
            self.events
                .push_back(Event::ConnectFailed { peer, address });
            return;
        }
        if self.sealing.is_some() {
            self.connect_sealed(now, peer, address);
            return;
        }
        // An offer of the peer that we have answered crosses with ours: under the same id both
        // ends come to one session.
        let id = match self.half_open.take(peer) {
            Some(answered) => answered,
            None => self.fresh_id(),
        };
        let start = self.fresh_start();
        let config = Arc::clone(&self.config);
        #[cfg_attr(not(feature = "qlog"), allow(unused_mut))]
        let mut session = Session::connecting(now, config, [self.local, peer], address, id, start);
        #[cfg(feature = "qlog")]
        if self.qlog.is_some() {
            session.record(now);
        }
        self.insert(session);
    }

    /// Closes a session: FIN to the peer, `Closed` with `Local` at once. What is queued and not
    /// acknowledged is lost; to end in order finish the flows, wait for `FlowDelivered`, then
    /// close. `reason` is cut at 256 octets, or where the
    /// session's payload size ends. The session drains for three probe timeouts or
    /// until the peer answers; [`state`](Self::state) is `None` after that.
    pub fn close(&mut self, now: Instant, peer: NodeId, code: u16, reason: &str) {
        self.with_session(peer, |session| session.close(now, code, reason));
    }

    /// Where the session with `peer` stands; `None` without one.
    #[must_use]
    pub fn state(&self, peer: NodeId) -> Option<SessionState> {
        let slot = *self.by_peer.get(&peer)?;
        Some(self.session(slot)?.state())
    }

    /// Where the session with `peer` sends to; `None` without one that is established.
    #[must_use]
    pub fn address(&self, peer: NodeId) -> Option<SocketAddr> {
        let session = self.session(*self.by_peer.get(&peer)?)?;
        let established = session.state() == SessionState::Established;
        established.then(|| session.address())
    }

    /// Counters and gauges of the session with `peer`.
    #[must_use]
    pub fn stats(&self, peer: NodeId) -> Option<PathStats> {
        let slot = *self.by_peer.get(&peer)?;
        Some(self.session(slot)?.stats())
    }

    /// Counters of datagrams that belong to no session.
    #[must_use]
    pub fn counters(&self) -> EndpointStats {
        self.stats
    }

    /// The peers with a session in any state, in order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.by_peer.keys().copied()
    }

    // ---- flows

    /// Queues octets on a flow, which opens with its first write or its finish. A flow is a
    /// stream: the boundaries of writes are not kept. A flow's id must not be used again within
    /// a session, except after a reset or stop that the peer has acknowledged.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was queued then.
    pub fn write(
        &mut self,
        now: Instant,
        peer: NodeId,
        flow: FlowId,
        data: Bytes,
    ) -> Result<(), WriteError> {
        self.with_session(peer, |session| session.write(now, flow, data))
            .unwrap_or(Err(WriteError::NoSession))
    }

    /// Ends a flow after what is queued; `FlowDelivered` follows when all of it is acknowledged.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(&mut self, _now: Instant, peer: NodeId, flow: FlowId) -> Result<(), WriteError> {
        self.with_session(peer, |session| session.finish(flow))
            .unwrap_or(Err(WriteError::NoSession))
    }

    /// Gives an outgoing flow up: what is queued is forgotten, the peer gets `FlowReset`. The
    /// control flow can't be reset.
    pub fn reset(&mut self, _now: Instant, peer: NodeId, flow: FlowId, code: u16) {
        self.with_session(peer, |session| session.reset(flow, code));
    }

    /// The next piece of an incoming flow, in order; frees its window. `None`: nothing more now,
    /// `Readable` tells when there is.
    pub fn read(&mut self, _now: Instant, peer: NodeId, flow: FlowId) -> Option<Bytes> {
        self.with_session(peer, |session| session.read(flow))
            .flatten()
    }

    /// Refuses the rest of an incoming flow: what is unread is dropped, the peer gets
    /// `FlowStopped`. The control flow can't be stopped.
    pub fn stop(&mut self, _now: Instant, peer: NodeId, flow: FlowId, code: u16) {
        self.with_session(peer, |session| session.stop(flow, code));
    }

    /// Sets an outgoing flow's share of its session (default [`Priority::Normal`]), opening the
    /// flow if it is new.
    ///
    /// # Errors
    /// See [`WriteError`]; the control flow goes first anyway.
    pub fn set_flow_priority(
        &mut self,
        _now: Instant,
        peer: NodeId,
        flow: FlowId,
        priority: Priority,
    ) -> Result<(), WriteError> {
        self.with_session(peer, |session| session.set_flow_priority(flow, priority))
            .unwrap_or(Err(WriteError::NoSession))
    }

    /// Limits what an outgoing flow sends, in octets of the flow; `None` lifts the limit. Opens
    /// the flow if it is new. Retransmissions are not held back. What a limited flow has queued
    /// counts against the session's send buffer, which other flows share.
    ///
    /// # Errors
    /// See [`WriteError`]; the control flow can't be limited by itself.
    pub fn set_flow_limit(
        &mut self,
        now: Instant,
        peer: NodeId,
        flow: FlowId,
        limit: Option<RateLimit>,
    ) -> Result<(), WriteError> {
        self.with_session(peer, |session| session.set_flow_limit(now, flow, limit))
            .unwrap_or(Err(WriteError::NoSession))
    }

    /// Limits what is sent to `peer`, in octets of datagrams that carry flows, control flow and
    /// retransmissions included; `None` lifts the limit. ACKs are not counted, probes are
    /// counted but not held back. The limit ends with the session.
    ///
    /// # Errors
    /// `NoSession` without a session.
    pub fn set_session_limit(
        &mut self,
        now: Instant,
        peer: NodeId,
        limit: Option<RateLimit>,
    ) -> Result<(), WriteError> {
        self.with_session(peer, |session| session.set_limit(now, limit))
            .ok_or(WriteError::NoSession)
    }

    // ---- datagrams

    /// Queues a datagram on a sealed session: octets that are sent once, in a packet of their own,
    /// and belong to no flow. It is authentic, confidential and delivered at most once, as
    /// [`Event::Datagram`]; it may be lost and may overtake others, and nothing tells which. It
    /// counts for congestion control, pacing and the session's limit as any packet does, and goes
    /// before shares: three datagrams for each segment where both wait.
    ///
    /// A peer of an older version drops datagrams: ask it first, on a flow.
    ///
    /// # Errors
    /// See [`DatagramError`]; nothing was queued then.
    pub fn send_datagram(
        &mut self,
        now: Instant,
        peer: NodeId,
        payload: Bytes,
    ) -> Result<(), DatagramError> {
        self.with_session(peer, |session| session.send_datagram(now, payload))
            .unwrap_or(Err(DatagramError::NoSession))
    }

    /// Asks `peer` for a sign of life at once. While something is unacknowledged two packets leave
    /// whatever the window says, as after a probe timeout (RFC 9002 section 6.2), else a HEARTBEAT.
    /// For whoever knows better than the timers that a path may have changed.
    pub fn probe(&mut self, peer: NodeId) {
        let _ = self.with_session(peer, Session::probe);
    }

    /// Says that what was measured of the path to `peer` of late was another way to the same
    /// address: rate, window and MTU begin as on a new path (RFC 9000 section 9.4), the round trip with
    /// the smallest one that was seen.
    pub fn restart_path(&mut self, now: Instant, peer: NodeId) {
        let _ = self.with_session(peer, |session| session.restart_path(now));
    }

    /// Says that how fast the path to `peer` is will be of use: once it was quiet for a round trip
    /// and 25 ms, ten full packets leave together, and how far apart their acknowledgments come
    /// shows how fast the first flight of datagrams may leave
    /// ([`Config::set_first_flight`](crate::Config::set_first_flight)). The result holds for ten
    /// minutes; sooner, and on a session that is not sealed, that is limited, or whose first flight
    /// is over, this does nothing.
    pub fn measure_rate(&mut self, now: Instant, peer: NodeId) {
        let _ = self.with_session(peer, |session| session.measure_rate(now));
    }

    /// Says that the system refused to send a datagram of `octets` to this address because no
    /// interface carries it. Path MTU discovery then does not wait for the probe to be missed.
    pub fn refused(&mut self, now: Instant, to: SocketAddr, octets: usize) {
        let peers: Vec<NodeId> = self.by_peer.keys().copied().collect();
        for peer in peers {
            let _ = self.with_session(peer, |session| {
                if session.address() == to {
                    session.on_refused(now, octets);
                }
            });
        }
    }

    /// The most octets that a datagram to `peer` can have now; `None` without an established
    /// sealed session. It grows as path MTU discovery finds more, and falls back to the base size
    /// when larger packets stop arriving: what waits and is larger then is dropped and counted
    /// ([`PathStats::datagrams_outgrown`]).
    #[must_use]
    pub fn max_datagram(&self, peer: NodeId) -> Option<usize> {
        let slot = *self.by_peer.get(&peer)?;
        self.session(slot)?.max_datagram()
    }

    /// Octets of datagrams, headers and tags included, that are worth handing over now: what
    /// leaves within 2 ms, at least three datagrams, less what waits already. 0 without an
    /// established sealed session.
    ///
    /// An application that orders its datagrams hands them over while this is not 0, and goes on
    /// at [`Event::DatagramRoom`]; more is taken too, up to the session's bound.
    #[must_use]
    pub fn datagram_room(&self, peer: NodeId) -> usize {
        let session = self.by_peer.get(&peer).and_then(|slot| self.session(*slot));
        session.map_or(0, Session::datagram_room)
    }

    // ---- inside

    pub(crate) fn session(&self, slot: u32) -> Option<&Session> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(crate) fn session_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    fn with_session<T>(&mut self, peer: NodeId, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let slot = *self.by_peer.get(&peer)?;
        let result = act(self.session_mut(slot)?);
        self.touch(slot);
        Some(result)
    }

    /// Whether so few events wait that a new flow or session may be taken from the network.
    /// Datagrams have a bound of their own.
    pub(crate) fn has_event_room(&self) -> bool {
        let limit =
            self.config.max_sessions + self.config.max_recv_flows + self.config.max_send_flows;
        self.events.len().saturating_sub(self.datagrams.0) < limit
    }

    /// What there is room for when a datagram of so many octets arrives.
    pub(crate) fn room(&self, octets: usize) -> Room {
        Room {
            flow: self.has_event_room(),
            datagram: self.datagrams.1 + octets <= self.config.datagram_backlog,
        }
    }

    /// A session id that is in no use.
    pub(crate) fn fresh_id(&mut self) -> NonZeroU32 {
        loop {
            let id = self.rng.next_u32();
            if let Some(id) = NonZeroU32::new(id)
                && !self.by_id.contains_key(&id.get())
                && !self.half_open.contains(id.get())
                && !self
                    .sealing
                    .as_ref()
                    .is_some_and(|sealing| sealing.answers.contains(id.get()))
            {
                return id;
            }
        }
    }

    pub(crate) fn fresh_start(&mut self) -> u32 {
        let start = self.rng.next_u32();
        #[cfg(test)]
        let start = self.packet_start.unwrap_or(start);
        start
    }

    #[cfg(feature = "qlog")]
    fn collect_trace(&mut self, slot: u32) {
        let Some((records, dropped)) = &mut self.qlog else {
            return;
        };
        let Some(session) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        while let Some(line) = session.pop_line() {
            if records.len() >= crate::qlog::MAX_RECORDS {
                *dropped += 1;
                continue;
            }
            records.push_back(crate::qlog::QlogRecord {
                peer: session.peer(),
                session: session.local_id().get(),
                line,
            });
        }
    }

    #[cfg(not(feature = "qlog"))]
    #[allow(clippy::unused_self)]
    fn collect_trace(&mut self, _slot: u32) {}

    pub(crate) fn insert(&mut self, session: Session) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                // The table is bounded far below 2^32 sessions.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_peer.insert(session.peer(), slot);
        self.by_id.insert(session.local_id().get(), slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(Box::new(session));
        }
        self.touch(slot);
        slot
    }

    fn remove(&mut self, slot: u32) {
        let Some(session) = self.slots.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        self.by_peer.remove(&session.peer());
        self.by_id.remove(&session.local_id().get());
        self.timers.set(slot, None);
        if session.queued {
            self.transmit.retain(|other| *other != slot);
        }
        self.free.push(slot);
    }

    /// After anything was done to a session: collects its events, and has it asked for output.
    pub(crate) fn touch(&mut self, slot: u32) {
        self.collect_trace(slot);
        self.collect_events(slot);
        let Some(session) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        if session.has_ended() {
            self.remove(slot);
        } else if !std::mem::replace(&mut session.queued, true) {
            self.transmit.push_back(slot);
        }
    }

    fn collect_events(&mut self, slot: u32) {
        let Some(session) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        while let Some(event) = session.pop_event() {
            if let Event::Datagram { payload, .. } = &event {
                self.datagrams.0 += 1;
                self.datagrams.1 += datagram_octets(payload);
            }
            self.events.push_back(event);
        }
    }

    /// Registers a session's deadline.
    fn rearm(&mut self, slot: u32) {
        let Some(session) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        let next = session.next_timeout();
        self.timers.set(slot, next);
    }

    // ---- opening of sessions

    fn on_syn(&mut self, now: Instant, from: SocketAddr, packet: &Packet) {
        let Ok(syn) = Syn::parse(&packet.payload) else {
            self.stats.bad_syn += 1;
            return;
        };
        match syn.kind {
            SynKind::Offer => self.on_offer(now, from, &packet.header, syn),
            SynKind::Accept { echo } => {
                let slot = self.by_id.get(&echo.get()).copied();
                let session = slot.and_then(|slot| self.session_mut(slot));
                match session {
                    Some(session) if session.peer() == packet.header.source => {
                        session.on_accept(now, from, &syn);
                    }
                    _ => self.stats.bad_syn += 1,
                }
                if let Some(slot) = slot {
                    self.touch(slot);
                }
            }
        }
    }

    fn on_offer(&mut self, now: Instant, from: SocketAddr, header: &Header, offer: Syn) {
        let peer = header.source;
        let id = offer.session;
        if let Some(&slot) = self.by_peer.get(&peer)
            && let Some(session) = self.session_mut(slot)
        {
            let crossed = session.state() == SessionState::Connecting;
            let again =
                session.state() == SessionState::Established && session.remote_id() == id.get();
            if crossed || again {
                session.answer_offer(from, id);
                self.touch(slot);
                return;
            }
            // Another id: the peer has restarted, if it proves to be there.
        }
        let room =
            self.by_peer.contains_key(&peer) || self.by_peer.len() < self.config.max_sessions;
        if !room {
            self.stats.syn_overflow += 1;
            return;
        }
        let local_id = match self.half_open.find(peer, id) {
            Some(known) => known,
            None => self.fresh_id(),
        };
        // The peer may have our answer and go on trying to confirm it for as long as it would
        // try anything.
        let expires_at = now + self.config.connect_timeout + self.config.dead_after;
        let noted = self.half_open.note(local_id, peer, from, offer, expires_at);
        if noted == (Noted::New { overflow: true }) {
            self.stats.syn_overflow += 1;
        }
    }

    /// A datagram with an id of the half-open table: the session begins.
    fn confirm(&mut self, now: Instant, id: u32, peer: NodeId) -> Option<u32> {
        let room =
            self.by_peer.contains_key(&peer) || self.by_peer.len() < self.config.max_sessions;
        if !room || !self.has_event_room() {
            return None;
        }
        let entry = self.half_open.confirm(id, peer)?;
        if let Some(&old) = self.by_peer.get(&peer) {
            if let Some(session) = self.session_mut(old) {
                session.abort(CloseReason::Replaced);
            }
            self.touch(old);
        }
        let local_id = NonZeroU32::new(id)?;
        let start = self.fresh_start();
        #[cfg_attr(not(feature = "qlog"), allow(unused_mut))]
        let mut session = Session::accepted(
            now,
            Arc::clone(&self.config),
            [self.local, peer],
            entry.address,
            local_id,
            start,
            &entry.syn,
        );
        #[cfg(feature = "qlog")]
        if self.qlog.is_some() {
            session.record(now);
            session.trace_parameters(now, &entry.syn);
        }
        Some(self.insert(session))
    }
}

/// Octets of the packet that brought a datagram.
fn datagram_octets(payload: &Bytes) -> usize {
    HEADER_OCTETS + payload.len() + TAG_LEN
}

/// Parses a datagram that carries the protection asked for.
fn open(integrity: Integrity, mut datagram: Bytes) -> Option<Packet> {
    if integrity == Integrity::Crc32 {
        let (content, crc) = datagram.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_be_bytes(*crc) {
            return None;
        }
        datagram.truncate(datagram.len() - 4);
    }
    let packet = Packet::parse(datagram).ok()?;
    let flagged = packet.header.flags.contains(Flags::CHECKSUM);
    (flagged || integrity != Integrity::Internet).then_some(packet)
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
