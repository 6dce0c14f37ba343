//! Links: getting lines and shares to a peer, over a session where there is one, through the
//! server where no direct path works.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use vmdt_rdt::{CloseReason, Priority, WriteError};
use vmdt_wire::{FlowId, Framing, Line, MemberState, Message, MessageId, NodeId};

use super::config::{MAX_ADDRESSES, MAX_SEGMENT};
use super::event::Event;
use super::peer::{MAX_QUEUE, Path, Peer, QueuedShare, Turn, share_index};
use super::placement::Carrier;
use super::relay::{is_datagram, is_relayed};
use super::{Core, Output};

/// The largest share that is accepted.
pub(crate) const MAX_SHARE: usize = MAX_SEGMENT + 1024;
/// So many shares of a peer get room for all of them at once when they begin to arrive; further
/// ones as they come.
const FEW_ARRIVING: usize = 64;
/// Octets of shares that may be arriving from one peer at once.
const MAX_ARRIVING: usize = 16 * 1024 * 1024;
/// Octets of shares that may be arriving from all peers at once.
const MAX_ARRIVING_TOTAL: usize = 64 * 1024 * 1024;
/// Octets that wait in the transport for a path before the next share begins. Shares in the transport
/// take turns and would all end late; one after the other, the first is handed on while the second
/// is sent.
const MAX_UNSENT: u64 = 24 * 1024;
/// How long a peer may stay connected whom the server has not named as a member: a member may be
/// faster than the server's word of it.
const STRANGER_TIME: Duration = Duration::from_secs(5);

/// Codes of FIN segments that end a flow.
pub(crate) mod code {
    /// The message is complete already.
    pub(crate) const NOT_NEEDED: u16 = 1;
    /// There is no room for it.
    pub(crate) const QUOTA: u16 = 2;
    /// It is not a share.
    pub(crate) const REFUSED: u16 = 3;
}

/// A share that is to go to a peer.
pub(crate) struct Parcel {
    pub(crate) receiver: NodeId,
    pub(crate) message: MessageId,
    pub(crate) index: NonZeroU8,
    pub(crate) k: u8,
    pub(crate) parts: Vec<Bytes>,
    /// Held for its sender, rather than a share of our own message.
    pub(crate) from_pool: bool,
    /// Its place among those that wait for the same path.
    pub(crate) turn: Turn,
    pub(crate) priority: Priority,
    /// The transfer and segment it is of, where they are known.
    pub(crate) segment: Option<(MessageId, u32)>,
}

impl Parcel {
    pub(crate) fn octets(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

impl Core {
    pub(super) fn peer(&mut self, now: Instant, id: NodeId) -> &mut Peer {
        self.peers.entry(id).or_insert_with(|| Peer::new(now))
    }

    /// Whether a peer speaks the data layer.
    pub(super) fn speaks_rdt(&self, peer: NodeId) -> bool {
        self.member
            .roster()
            .filter_map(|(_, c)| c.member(peer))
            .any(|m| m.caps.is_some_and(|c| c.contains(vmdt_wire::Caps::RDT)))
    }

    /// Whether the server says that a member is present.
    pub(super) fn is_present(&self, peer: NodeId) -> bool {
        self.member
            .roster()
            .filter_map(|(_, c)| c.member(peer))
            .any(|m| m.present)
    }

    fn address_of(&self, peer: NodeId) -> Option<std::net::SocketAddr> {
        self.member
            .roster()
            .filter_map(|(_, c)| c.member(peer))
            .find_map(|m| m.address)
    }

    /// Where a peer may be: where it was last, or the server sees it, and then where its signed
    /// profile says that it is.
    fn addresses_of(&mut self, now: Instant, id: NodeId) -> Vec<std::net::SocketAddr> {
        let observed = self.address_of(id);
        let peer = self.peer(now, id);
        if observed.is_some() && !peer.claimed {
            peer.address = observed;
        }
        let mut all: Vec<_> = peer.address.into_iter().chain(observed).collect();
        if let Some(profile) = self.seal.as_ref().and_then(|seal| seal.profile(id)) {
            let usable = |a: &&std::net::SocketAddr| {
                a.port() != 0 && !a.ip().is_unspecified() && !a.ip().is_multicast()
            };
            all.extend(
                profile
                    .addresses()
                    .iter()
                    .filter(usable)
                    .take(MAX_ADDRESSES),
            );
        }
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|address| seen.insert(*address));
        all
    }

    /// A peer did not answer at one of its addresses: tries the next one, if there is one that was
    /// not tried since it was last reached, or given up.
    fn try_next_address(&mut self, now: Instant, id: NodeId) -> bool {
        // whoever is no member is forgotten with each session, and what was tried with it
        if !self.is_member(id) {
            return false;
        }
        let addresses = self.addresses_of(now, id);
        let peer = self.peer(now, id);
        if peer.relayed || peer.path != Path::Connecting {
            return false;
        }
        let at = usize::from(peer.tried) + 1;
        let Some(next) = addresses.get(at).copied() else {
            peer.tried = 0;
            peer.claimed = false;
            return false;
        };
        peer.tried = peer.tried.saturating_add(1);
        self.session_over(now, id, false);
        self.peer(now, id).path = Path::Connecting;
        self.rdt.connect(now, id, next);
        true
    }

    /// Whether a direct path is known not to work.
    pub(super) fn path_is_down(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(Peer::is_down)
    }

    /// Begins to connect where that is due.
    pub(super) fn ensure_path(&mut self, now: Instant, id: NodeId) {
        let first = self.addresses_of(now, id).first().copied();
        let peer = self.peer(now, id);
        let due = match peer.path {
            Path::Idle => true,
            Path::Down { until } => until <= now,
            Path::Connecting | Path::Up => false,
        };
        if !due {
            return;
        }
        if let Some(address) = first {
            peer.path = Path::Connecting;
            peer.tried = 0;
            self.rdt.connect(now, id, address);
        } else if self.may_relay(id) {
            self.peer(now, id).path = Path::Connecting;
            self.connect_relayed(now, id);
        }
    }

    /// Sends a control line to a peer.
    pub(super) fn send_line(&mut self, now: Instant, to: NodeId, message: Message) {
        let line = Line {
            framing: Framing::Slash,
            tag: None,
            message,
        };
        match line.emit() {
            Ok(bytes) => self.send_line_bytes(now, to, Bytes::from(bytes)),
            Err(error) => tracing::warn!(%error, "a control line could not be written"),
        }
    }

    fn send_line_bytes(&mut self, now: Instant, to: NodeId, line: Bytes) {
        if self.path_is_down(to) && self.relay_line(now, to, &line) {
            self.ensure_path(now, to);
            return;
        }
        self.peer(now, to).push_line(line);
        self.ensure_path(now, to);
        self.pump(now, to);
    }

    fn relay_line(&mut self, now: Instant, to: NodeId, line: &Bytes) -> bool {
        // in profile 1.1 the server is given datagrams of a sealed session, and no line to read
        self.seal.is_none()
            && self.config.allow_relay
            && self.member.relay(now, to, to, 0, line).is_ok()
    }

    /// Sends a share to a peer; false when no permitted way is there.
    pub(super) fn send_share(&mut self, now: Instant, to: NodeId, parcel: Parcel) -> bool {
        let Parcel {
            message,
            index,
            from_pool,
            turn,
            priority,
            segment,
            ..
        } = parcel;
        if self.path_is_down(to) {
            self.ensure_path(now, to);
            return self.relay_share(now, to, &parcel);
        }
        let peer = self.peer(now, to);
        if peer.under_way(message, index).is_some() {
            return true;
        }
        if peer.queue.len() >= MAX_QUEUE {
            return false;
        }
        let Some(flow) = peer.flow_for(message, index) else {
            return false;
        };
        let share = QueuedShare::new(flow, parcel.parts, from_pool, (turn, priority));
        peer.enqueue(share.of(segment));
        self.ensure_path(now, to);
        self.pump(now, to);
        true
    }

    /// Sends a share through the server. Only indices below k go there, so that it never has k of
    /// them.
    pub(super) fn relay_share(&mut self, now: Instant, to: NodeId, parcel: &Parcel) -> bool {
        if self.seal.is_some() || !self.config.allow_relay || parcel.index.get() >= parcel.k {
            return false;
        }
        let mut data = Vec::with_capacity(16 + parcel.octets());
        data.extend_from_slice(&parcel.message.field());
        parcel.parts.iter().for_each(|p| data.extend_from_slice(p));
        let index = parcel.index.get().into();
        let sent = self
            .member
            .relay(now, to, parcel.receiver, index, &data)
            .is_ok();
        self.stats.relayed_shares += u64::from(sent);
        sent
    }

    /// Forgets a share that is on its way to a peer.
    pub(super) fn cancel_share(
        &mut self,
        now: Instant,
        to: NodeId,
        message: MessageId,
        index: NonZeroU8,
    ) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let Some(flow) = peer.under_way(message, index) else {
            return;
        };
        let before = peer.queue.len();
        let begun = peer
            .queue
            .front()
            .is_some_and(|q| q.flow == flow && q.begun);
        peer.queue.retain(|q| q.flow != flow);
        if peer.written.remove(&flow).is_some() || (begun && before != peer.queue.len()) {
            self.rdt.reset(now, to, flow, code::NOT_NEEDED);
        }
    }

    /// Writes what waits for a peer, as far as its session takes it. Returns whether it
    /// took something.
    pub(super) fn pump(&mut self, now: Instant, to: NodeId) -> bool {
        let Some(peer) = self.peers.get_mut(&to) else {
            return false;
        };
        if peer.path != Path::Up {
            return false;
        }
        let mut took = false;
        while let Some(line) = peer.lines.pop_front() {
            if self
                .rdt
                .write(now, to, FlowId::CONTROL, line.clone())
                .is_err()
            {
                peer.lines.push_front(line);
                break;
            }
        }
        'shares: while let Some(share) = peer.queue.front_mut() {
            if !share.begun {
                let stats = self.rdt.stats(to).unwrap_or_default();
                let unsent = (stats.queued as u64).saturating_sub(stats.bytes_in_flight);
                if unsent > MAX_UNSENT {
                    self.held_back.insert(to);
                    break;
                }
                let octets = share.octets() as u64;
                if self.limits.holds(now, self.config.rate_limit, octets) {
                    break;
                }
                let (flow, priority) = (share.flow, share.priority);
                if priority != Priority::Normal {
                    // what fails here fails again when it is written
                    let _ = self.rdt.set_flow_priority(now, to, flow, priority);
                }
                peer.begin();
                continue;
            }
            while let Some(part) = share.parts.pop_front() {
                match self.rdt.write(now, to, share.flow, part.clone()) {
                    Ok(()) => took = true,
                    Err(WriteError::Blocked { .. }) => {
                        share.parts.push_front(part);
                        break 'shares;
                    }
                    Err(_) => {
                        // the flow was ended by the other side: nothing more to bring it
                        peer.queue.pop_front();
                        continue 'shares;
                    }
                }
            }
            let (flow, from_pool) = (share.flow, share.from_pool);
            if self.rdt.finish(now, to, flow).is_ok() {
                peer.written.insert(flow, from_pool);
            }
            peer.queue.pop_front();
        }
        took
    }

    /// Goes on with what was held back while the transport had enough to send. Returns whether it
    /// took something.
    pub(super) fn pump_held_back(&mut self, now: Instant) -> bool {
        let held = std::mem::take(&mut self.held_back);
        let mut went_on = false;
        for peer in held {
            went_on |= self.pump(now, peer);
        }
        went_on
    }

    /// Goes on with what was held back by a rate limit.
    pub(super) fn pump_limited(&mut self, now: Instant) {
        self.pump_sources(now);
        let waiting = |(id, peer): (&NodeId, &Peer)| (!peer.queue.is_empty()).then_some(*id);
        let peers: Vec<NodeId> = self.peers.iter().filter_map(waiting).collect();
        for peer in peers {
            self.pump(now, peer);
        }
    }

    pub(super) fn on_transport(&mut self, now: Instant, event: vmdt_rdt::Event) {
        use vmdt_rdt::Event as E;
        match event {
            E::Connected { peer, address } => {
                let p = self.peer(now, peer);
                p.relayed = is_relayed(address);
                if !p.relayed {
                    p.address = Some(address);
                    // where it answered is where it is looked for first
                    p.claimed = p.tried > 0;
                    p.tried = 0;
                }
                p.up(now);
                if let Some(limit) = self.config.rate_limit {
                    // there is a session: it was just reported
                    let _ = self.rdt.set_session_limit(now, peer, Some(limit));
                }
                self.send_profile(now, peer);
                self.open_express(now, peer);
                self.hand_on_held(now, peer);
                self.peer_came(now, peer);
                if self.is_member(peer) {
                    self.event(Event::PathUp { peer, address });
                }
                self.pump(now, peer);
            }
            E::ConnectFailed { peer, .. } => self.path_lost(now, peer),
            E::Closed { peer, reason } => match reason {
                CloseReason::Unresponsive => self.path_lost(now, peer),
                CloseReason::Local if self.silent.remove(&peer) => self.path_lost(now, peer),
                CloseReason::Replaced => {
                    // it started anew: what it held is gone
                    self.session_over(now, peer, true);
                }
                _ => self.session_over(now, peer, false),
            },
            E::Readable { peer, flow } => self.read_flow(now, peer, flow),
            E::Finished { peer, flow } => {
                self.read_flow(now, peer, flow);
                self.flow_complete(now, peer, flow);
            }
            E::FlowReset { peer, flow, .. } => self.drop_arriving(peer, flow),
            E::FlowStopped { peer, flow, code } => self.flow_stopped(now, peer, flow, code),
            E::FlowDelivered { peer, flow } => {
                if let Some(p) = self.peers.get_mut(&peer)
                    && let Some(from_pool) = p.written.remove(&flow)
                {
                    self.reputation.success(now, peer);
                    if let Some(index) = share_index(flow).filter(|_| from_pool) {
                        self.receipts.handed_on(now, flow.message, index);
                        self.handovers.brought(now, peer, (flow.message, index));
                    }
                }
                self.hand_what_waited(now, peer);
                self.pump(now, peer);
            }
            E::Writable { peer } => {
                self.pump(now, peer);
            }
            E::Datagram { peer, payload } => self.on_express(now, peer, &payload),
            _ => {}
        }
    }

    fn drop_arriving(&mut self, peer: NodeId, flow: FlowId) {
        if let Some(p) = self.peers.get_mut(&peer)
            && let Some(a) = p.arriving.remove(&flow)
        {
            p.arriving_octets -= a.octets.len();
            self.arriving -= a.octets.len();
        }
    }

    /// Whether a peer is a member of a cluster of ours.
    pub(super) fn is_member(&self, peer: NodeId) -> bool {
        self.member.roster().any(|(_, c)| c.member(peer).is_some())
    }

    /// The direct path does not work: what may go through the server does, the rest is placed
    /// elsewhere.
    fn path_lost(&mut self, now: Instant, id: NodeId) {
        if self.try_next_address(now, id) {
            return;
        }
        let was_relayed = std::mem::take(&mut self.peer(now, id).relayed);
        if !was_relayed && self.may_relay(id) {
            self.session_over(now, id, false);
            let peer = self.peer(now, id);
            peer.relayed = true;
            peer.path = Path::Connecting;
            self.connect_relayed(now, id);
            return;
        }
        self.peer(now, id).down(now);
        self.reputation.failure(now, id);
        let lines: Vec<Bytes> = self.peer(now, id).lines.drain(..).collect();
        if self.is_member(id) {
            self.event(Event::PathDown { peer: id });
        }
        for line in lines {
            if !self.relay_line(now, id, &line) {
                self.peer(now, id).push_line(line);
            }
        }
        self.session_over(now, id, false);
        self.collector.holder_lost(now, id);
        self.replace_carrier(now, id);
    }

    /// A session ended; `forgot` says that the peer lost what it held.
    fn session_over(&mut self, now: Instant, id: NodeId, forgot: bool) {
        let peer = self.peer(now, id);
        if matches!(peer.path, Path::Up | Path::Connecting) {
            peer.path = Path::Idle;
        }
        let arriving = peer.arriving_octets;
        let flows = peer.session_ended();
        self.express_session_over(now, id);
        self.arriving -= arriving;
        if !self.is_member(id) {
            // whoever comes and goes under ever new names leaves nothing behind
            self.peers.remove(&id);
        }
        for (flow, from_pool) in flows {
            let Some(index) = share_index(flow) else {
                continue;
            };
            if from_pool {
                self.pool.release_for(now, flow.message, index, id);
            } else if let Some(spread) = self.spreads.get_mut(&flow.message) {
                if let Some(own) = spread.shares.get_mut(&index) {
                    own.sent = false;
                }
                if let Some(group) = &mut spread.group {
                    group.not_given(index, id);
                }
            }
        }
        if forgot {
            let stored = self.stored_at(id);
            for spread in self.spreads.values_mut() {
                let lost: Vec<_> = spread
                    .placement
                    .iter()
                    .filter(|(_, c)| *c == Carrier::Member(id))
                    .map(|(i, _)| i)
                    .collect();
                for index in lost {
                    // what it has on disk it has still
                    if stored.contains(&(spread.id, index)) {
                        continue;
                    }
                    if let Some(own) = spread.shares.get_mut(&index) {
                        own.sent = false;
                    }
                }
                spread.retry_at = now;
            }
        }
        let again: Vec<MessageId> = self
            .spreads
            .values()
            .filter(|s| s.shares.values().any(|o| !o.sent))
            .map(|s| s.id)
            .collect();
        for message in again {
            self.hand_out(now, message);
        }
    }

    fn read_flow(&mut self, now: Instant, id: NodeId, flow: FlowId) {
        if flow == FlowId::CONTROL {
            while let Some(bytes) = self.rdt.read(now, id, flow) {
                self.peer(now, id).framer.push(&bytes);
                self.read_lines(now, id);
            }
            return;
        }
        if self.is_not_needed(flow) {
            self.drop_arriving(id, flow);
            self.share_unread(id, flow);
            self.rdt.stop(now, id, flow, code::NOT_NEEDED);
            self.not_needed_from(now, id, flow);
            return;
        }
        while let Some(bytes) = self.rdt.read(now, id, flow) {
            self.arriving += bytes.len();
            let total = self.arriving;
            let peer = self.peer(now, id);
            peer.arriving_octets += bytes.len();
            let few = peer.arriving.len() < FEW_ARRIVING;
            let arriving = peer.arriving.entry(flow).or_default();
            if few && arriving.octets.is_empty() {
                arriving.octets.reserve(peer.usual_share.max(bytes.len()));
            }
            arriving.octets.extend_from_slice(&bytes);
            let (too_long, too_many) = (
                arriving.octets.len() > MAX_SHARE,
                peer.arriving_octets > MAX_ARRIVING || total > MAX_ARRIVING_TOTAL,
            );
            if too_long || too_many {
                self.drop_arriving(id, flow);
                self.share_unread(id, flow);
                self.stats.refused_shares += 1;
                let code = if too_long { code::REFUSED } else { code::QUOTA };
                self.rdt.stop(now, id, flow, code);
                return;
            }
        }
    }

    fn read_lines(&mut self, now: Instant, id: NodeId) {
        loop {
            let line = match self.peer(now, id).framer.next_line() {
                None => return,
                Some(Ok(line)) => Line::parse(&line),
                Some(Err(_)) => {
                    self.stats.bad_lines += 1;
                    self.rdt
                        .close(now, id, code::REFUSED, "a control line is too long");
                    return;
                }
            };
            match line {
                Ok(line) => self.on_line(now, id, line.message),
                Err(_) => self.stats.bad_lines += 1,
            }
        }
    }

    fn flow_complete(&mut self, now: Instant, id: NodeId, flow: FlowId) {
        let peer = self.peer(now, id);
        let Some(arrived) = peer.arriving.remove(&flow) else {
            return;
        };
        peer.arriving_octets -= arrived.octets.len();
        peer.usual_share = arrived.octets.len();
        self.arriving -= arrived.octets.len();
        if let Some(index) = share_index(flow) {
            self.share_arrived(
                now,
                id,
                Carrier::Member(id),
                flow.message,
                index,
                arrived.octets.freeze(),
            );
        }
    }

    fn flow_stopped(&mut self, now: Instant, id: NodeId, flow: FlowId, why: u16) {
        let peer = self.peer(now, id);
        let from_pool = match peer.written.remove(&flow) {
            Some(from_pool) => from_pool,
            None => match peer.queue.iter().position(|q| q.flow == flow) {
                Some(at) => peer.queue.remove(at).is_some_and(|q| q.from_pool),
                None => return,
            },
        };
        if why == code::NOT_NEEDED && !from_pool {
            self.holder_had_no_use(now, id, flow);
        } else if !from_pool && let Some(index) = share_index(flow) {
            let spread = self.spreads.get_mut(&flow.message);
            if let Some(group) = spread.and_then(|spread| spread.group.as_mut()) {
                group.not_given(index, id);
            }
            self.share_refused(now, flow.message, index);
        }
        self.pump(now, id);
    }

    /// A push of the server.
    pub(super) fn on_push(&mut self, now: Instant, message: Message) {
        match message {
            Message::ClusterReady { cluster } => {
                self.event(Event::ClusterReady { cluster });
                self.pump_sources(now);
            }
            Message::Member {
                cluster,
                id,
                state,
                address,
                ..
            } => {
                if id == self.config.id {
                    return;
                }
                match state {
                    MemberState::Away | MemberState::Left => {
                        self.holder_away(now, id);
                        if state == MemberState::Left {
                            self.unwatch_health(id);
                            self.express_left(id);
                        }
                        self.collector.holder_lost(now, id);
                        self.replace_carrier(now, id);
                    }
                    _ => {
                        let moved = self.peers.get_mut(&id).is_some_and(|p| {
                            let moved = address.is_some() && p.address != address;
                            if moved || p.is_down() {
                                // worth another try at once
                                if p.is_down() {
                                    p.path = Path::Idle;
                                }
                                p.address = address.or(p.address);
                            }
                            p.has_work()
                        });
                        if moved {
                            self.ensure_path(now, id);
                        }
                        self.peer_came(now, id);
                        self.pump_sources(now);
                    }
                }
                self.event(Event::Member { cluster, id, state });
            }
            Message::MessageShare {
                from,
                to,
                target: _,
                index,
                data,
            } if to == self.config.id => {
                self.on_relayed(now, from, index, &data);
            }
            Message::CodePass { number, data, .. } => self.outputs.push_back(Output::Code {
                number,
                data: Some(data.into()),
            }),
            Message::CodeClose { number, .. } => {
                self.outputs.push_back(Output::Code { number, data: None });
            }
            // checked by the member already, and again here, where it is pinned
            Message::Profile { id, profile } => self.on_profile(now, id, &profile),
            Message::Error { code, text, .. } => {
                tracing::debug!(%code, text, "the server refused something");
            }
            _ => {}
        }
    }

    fn on_relayed(&mut self, now: Instant, from: NodeId, index: u16, data: &str) {
        let Some(bytes) = vmdt_control::relayed_data(data) else {
            self.stats.bad_lines += 1;
            return;
        };
        if index == 0 {
            if is_datagram(&bytes) {
                self.on_relayed_datagram(now, from, bytes);
                return;
            }
            if self.seal.is_some() {
                // nobody vouches for it
                self.stats.bad_lines += 1;
                return;
            }
            match Line::parse(bytes.strip_suffix(b"\n").unwrap_or(&bytes)) {
                Ok(line) => self.on_line(now, from, line.message),
                Err(_) => self.stats.bad_lines += 1,
            }
            return;
        }
        let mut bytes = BytesMut::from(bytes.as_slice());
        let parsed = (bytes.len() > 16 && bytes.len() <= MAX_SHARE + 16).then(|| {
            let id = bytes.split_to(16);
            <[u8; 16]>::try_from(&id[..])
                .ok()
                .and_then(|id| MessageId::from_field(id).ok())
        });
        let index = u8::try_from(index).ok().and_then(NonZeroU8::new);
        let (Some(Some(message)), Some(index)) = (parsed, index) else {
            self.stats.bad_lines += 1;
            return;
        };
        if self.seal.is_none() {
            self.share_arrived(now, from, Carrier::Server, message, index, bytes.freeze());
        }
    }

    /// Tries again where a path was down and something waits; shows strangers the door.
    pub(super) fn tick_links(&mut self, now: Instant) {
        let strangers: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(id, p)| p.up_for(now) >= STRANGER_TIME && !self.is_member(**id))
            .map(|(id, _)| *id)
            .collect();
        for id in strangers {
            self.rdt
                .close(now, id, code::REFUSED, "not a member of a common cluster");
        }
        let waiting: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, p)| p.has_work())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            let lines: Vec<Bytes> = if self.path_is_down(id) {
                self.peer(now, id).lines.drain(..).collect()
            } else {
                Vec::new()
            };
            for line in lines {
                if !self.relay_line(now, id, &line) {
                    self.peer(now, id).push_line(line);
                }
            }
            self.ensure_path(now, id);
            self.pump(now, id);
        }
    }
}
