//! The opening of sealed sessions (profile 1.1).
//!
//! A SYN carries a handshake message as its payload. Its header names the receiver's session id
//! where that is known, as in every datagram, and the sender's own where other datagrams have
//! their packet number. What a [`Syn`] says in the open profile goes as parameters inside the
//! handshake, which authenticates it.
//!
//! Two nodes that offer each other a session at once come to one: while its own offer is
//! outstanding, the node with the smaller id does not answer, but sends its offer also to where
//! the other's came from. Where it had answered before it offered itself, the session of its own
//! offer counts all the same: it opens no other that crossed with it, and the node with the larger
//! id takes what it has queued over to it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha12Rng;
use vmdt_seal::cookie::{CookieJar, Gate, GateConfig, LoadGate};
use vmdt_seal::identity::Credential;
use vmdt_seal::packet::TAG_LEN;
use vmdt_seal::session::{
    Answered, Crossing, HandshakeError, Initiator, Local, MessageType, OfferView, Responder,
    Suites, crossing, message_type,
};
use vmdt_wire::compact;
use vmdt_wire::segment::{Syn, SynKind};
use vmdt_wire::{FlowId, HEADER_LEN, Header, NodeId, Packet, PacketType};

use crate::answers::{Answer, Answers, Stage};
use crate::ecn::EcnCodepoint;
use crate::endpoint::Endpoint;
use crate::event::{CloseReason, Event, Transmit};
use crate::packet_number::{expand, first_number};
use crate::session::{Protection, Session, Taken, syn_of};
use crate::state::SessionState;

/// Credentials of other nodes that are kept; beyond it the one with the lowest id goes.
const MAX_CREDENTIALS: usize = 4096;
/// Cookies and restarts that wait to be sent; beyond it the oldest goes.
const MAX_REPLIES: usize = 64;
/// Confirmations per second that are read although one before them was none: each takes a tenth
/// of a millisecond, and whoever was answered can send them.
const AGAIN: GateConfig = GateConfig {
    free_per_s: 100,
    free_burst: 100,
    proven_per_s: 0,
    proven_burst: 0,
};

/// Offers per second that are looked into at all, without a cookie and with one: it takes a hash or
/// two. The others of a flood cost no more than their header.
const LOOKED_INTO: GateConfig = GateConfig {
    free_per_s: 20_000,
    free_burst: 2_000,
    proven_per_s: 20_000,
    proven_burst: 2_000,
};

/// A sealed datagram as it arrived.
pub(crate) enum Arrived {
    /// Possibly a piece of a buffer that has other owners.
    Shared(Bytes),
    /// Ours to change.
    Owned(BytesMut),
}

impl Arrived {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Shared(octets) => octets,
            Self::Owned(octets) => octets,
        }
    }

    /// The octets, to be opened in place; a copy where others own them too.
    fn into_owned(self) -> BytesMut {
        match self {
            Self::Owned(octets) => octets,
            Self::Shared(octets) => octets
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&*shared)),
        }
    }
}

/// A message that leaves no state behind.
#[derive(Debug)]
struct Reply {
    to: SocketAddr,
    peer: NodeId,
    session: u32,
    message: Vec<u8>,
}

/// What decides about the offers and confirmations of strangers.
#[derive(Debug)]
struct Gatekeeper {
    jar: CookieJar,
    offers: LoadGate,
    again: LoadGate,
    work: LoadGate,
}

impl Gatekeeper {
    fn new(now: Instant, rng: &mut ChaCha12Rng) -> Self {
        Self {
            jar: CookieJar::new(now, rng),
            offers: LoadGate::new(GateConfig::default(), now),
            again: LoadGate::new(AGAIN, now),
            work: LoadGate::new(LOOKED_INTO, now),
        }
    }
}

/// What an endpoint of profile 1.1 has beside its sessions.
#[derive(Debug)]
pub(crate) struct Sealing {
    local: Local,
    suites: Suites,
    credentials: BTreeMap<NodeId, Credential>,
    gate: Option<Gatekeeper>,
    pub(crate) answers: Answers,
    replies: VecDeque<Reply>,
}

impl Sealing {
    pub(crate) fn new(local: Local, suites: Suites, half_open: usize) -> Self {
        Self {
            local,
            suites,
            credentials: BTreeMap::new(),
            gate: None,
            answers: Answers::new(half_open),
            replies: VecDeque::new(),
        }
    }

    pub(crate) fn learn(&mut self, credential: &Credential) {
        let known = self.credentials.get(&credential.node_id());
        if known.is_some_and(|known| known.version_ms() > credential.version_ms()) {
            return;
        }
        self.credentials.insert(credential.node_id(), *credential);
        while self.credentials.len() > MAX_CREDENTIALS {
            self.credentials.pop_first();
        }
    }

    /// Begins a handshake with a peer.
    pub(crate) fn initiate(
        &self,
        peer: NodeId,
        syn: &Syn,
        rng: &mut ChaCha12Rng,
    ) -> Result<Initiator, HandshakeError> {
        let known = self.credentials.get(&peer);
        Initiator::new(&self.local, peer, known, self.suites, &params(syn), rng)
    }

    fn reply(&mut self, reply: Reply) {
        if self.replies.len() >= MAX_REPLIES {
            self.replies.pop_front();
        }
        self.replies.push_back(reply);
    }

    /// The next answer, cookie or restart to send.
    pub(crate) fn poll_transmit(&mut self, local: NodeId, buf: &mut Vec<u8>) -> Option<Transmit> {
        let (to, header, message): (_, _, Bytes) = match self.answers.next_due() {
            Some((id, answer)) => {
                let header = syn_header([local, answer.peer], answer.syn.session.get(), id);
                (answer.address, header, answer.message.clone())
            }
            None => {
                let reply = self.replies.pop_front()?;
                let header = syn_header([local, reply.peer], reply.session, 0);
                (reply.to, header, reply.message.into())
            }
        };
        write_handshake(buf, &header, &message);
        Some(Transmit {
            to,
            len: buf.len(),
            ecn: None,
            oversized: false,
        })
    }
}

/// The parameters of a handshake.
fn params(syn: &Syn) -> Vec<u8> {
    let mut octets = Vec::with_capacity(vmdt_wire::segment::SYN_LEN);
    syn.emit_into(&mut octets);
    octets
}

/// The header of a handshake message.
pub(crate) fn syn_header([local, peer]: [NodeId; 2], session: u32, own: u32) -> Header {
    let mut header = Header::new(PacketType::Syn, local, peer, FlowId::CONTROL);
    header.session = session;
    header.packet_number = own;
    header
}

/// Writes a handshake message.
pub(crate) fn write_handshake(buf: &mut Vec<u8>, header: &Header, message: &[u8]) {
    buf.clear();
    buf.extend_from_slice(&[0; HEADER_LEN]);
    buf.extend_from_slice(message);
    // At most 640 octets.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    if let Some(space) = buf.first_chunk_mut::<HEADER_LEN>() {
        header.emit(length, space);
    }
}

/// The session id of what looks like a datagram of this protocol.
fn session_of(octets: &[u8]) -> Option<u32> {
    if compact::is_compact(octets) {
        return compact::session_of(octets);
    }
    let id = octets.strip_prefix(b"VMDT")?.get(56..60)?;
    Some(u32::from_be_bytes(id.try_into().ok()?))
}

fn address_octets(address: SocketAddr) -> Vec<u8> {
    let mut octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets.extend_from_slice(&address.port().to_be_bytes());
    octets
}

impl Endpoint {
    /// Takes the credential of a peer, which saves half a round trip when a session with it is
    /// opened. Nothing happens in the open profile.
    pub fn set_credential(&mut self, credential: &Credential) {
        if let Some(sealing) = &mut self.sealing {
            sealing.learn(credential);
        }
    }

    /// Takes one datagram of profile 1.1.
    pub(crate) fn handle_sealed(
        &mut self,
        now: Instant,
        (from, ecn): (SocketAddr, Option<EcnCodepoint>),
        datagram: Arrived,
    ) {
        let octets = datagram.octets().len();
        if let Some(id) = session_of(datagram.octets())
            && id != 0
            && !self.by_id.contains_key(&id)
            && !self.has_answered(id)
        {
            // Most of a flood ends here, before ids are read.
            self.stats.unknown_session += 1;
            return;
        }
        if compact::is_compact(datagram.octets()) {
            self.handle_compact(now, (from, ecn), datagram);
            return;
        }
        let Ok(parsed) = Header::parse_sealed(datagram.octets()) else {
            self.stats.garbage += 1;
            return;
        };
        let header = parsed.header;
        let is_syn = header.kind == PacketType::Syn;
        let tag = if is_syn { 0 } else { TAG_LEN };
        if octets != HEADER_LEN + usize::from(parsed.payload_len) + tag {
            self.stats.garbage += 1;
            return;
        }
        if header.dest != self.local || header.source == self.local || !header.source.is_sealed() {
            self.stats.misaddressed += 1;
            return;
        }
        if is_syn {
            let message = datagram.octets().get(HEADER_LEN..).unwrap_or_default();
            self.on_handshake(now, from, &header, message);
            return;
        }
        let (id, peer) = (header.session, header.source);
        let (slot, packet) = match self.by_id.get(&id) {
            Some(&slot) => {
                // While we offer there are no keys: nothing can be of that session.
                let session = self.session_mut(slot).filter(|session| {
                    session.peer() == peer && session.state() != SessionState::Connecting
                });
                let Some(session) = session else {
                    self.stats.unknown_session += 1;
                    return;
                };
                let whole = (header, HEADER_LEN);
                (slot, session.unseal(now, whole, datagram.into_owned()))
            }
            None => match self.begin_by_packet(now, from, header, datagram) {
                Some((slot, packet)) => (slot, Some(packet)),
                None => {
                    self.stats.unknown_session += 1;
                    return;
                }
            },
        };
        let Some(packet) = packet else {
            return;
        };
        let room = self.room(octets);
        if let Some(session) = self.session_mut(slot) {
            session.handle(now, (from, ecn), packet, octets, room);
        }
        self.touch(slot);
    }

    /// Takes one datagram with a compact header: of a session that has begun, or nothing.
    fn handle_compact(
        &mut self,
        now: Instant,
        (from, ecn): (SocketAddr, Option<EcnCodepoint>),
        datagram: Arrived,
    ) {
        let octets = datagram.octets().len();
        let local = self.local;
        let id = compact::session_of(datagram.octets());
        let slot = id.and_then(|id| self.by_id.get(&id).copied());
        let session = slot
            .and_then(|slot| self.slots.get_mut(slot as usize)?.as_mut())
            .filter(|session| session.state() != SessionState::Connecting);
        let (Some(slot), Some(session)) = (slot, session) else {
            self.stats.unknown_session += 1;
            return;
        };
        let header = Header::parse_compact(datagram.octets(), session.peer(), local);
        let Some(header) = header.filter(|_| self.config.features() & Syn::COMPACT != 0) else {
            self.stats.garbage += 1;
            return;
        };
        if let Some(packet) = session.unseal(now, header, datagram.into_owned()) {
            let room = self.room(octets);
            if let Some(session) = self.session_mut(slot) {
                session.handle(now, (from, ecn), packet, octets, room);
            }
            self.touch(slot);
        }
    }

    fn on_handshake(&mut self, now: Instant, from: SocketAddr, header: &Header, message: &[u8]) {
        match message_type(message) {
            Some(MessageType::Offer(_)) if header.session == 0 => {
                self.on_sealed_offer(now, from, header, message);
            }
            Some(MessageType::Confirm) => self.on_confirm(now, from, header, message),
            Some(MessageType::Answer(_) | MessageType::Restart | MessageType::Cookie) => {
                self.on_answer(now, from, header, message);
            }
            _ => self.stats.bad_syn += 1,
        }
    }

    /// What answers an offer of ours.
    fn on_answer(&mut self, now: Instant, from: SocketAddr, header: &Header, message: &[u8]) {
        let Self { slots, rng, .. } = self;
        let slot = self.by_id.get(&header.session).copied();
        let session = slot
            .and_then(|slot| slots.get_mut(slot as usize)?.as_mut())
            .filter(|session| session.peer() == header.source);
        let (Some(slot), Some(session)) = (slot, session) else {
            self.stats.bad_syn += 1;
            return;
        };
        let from = (from, HEADER_LEN + message.len());
        match session.on_answer(now, from, (header.packet_number, rng), message) {
            Taken::Refused => {
                self.stats.bad_syn += 1;
                return;
            }
            Taken::Known => {}
            Taken::Established(peer) => {
                if let Some(sealing) = &mut self.sealing {
                    sealing.learn(&peer);
                }
            }
        }
        self.touch(slot);
    }

    fn on_sealed_offer(&mut self, now: Instant, from: SocketAddr, header: &Header, message: &[u8]) {
        let peer = header.source;
        let (Ok(view), Some(offered)) = (
            OfferView::parse(message),
            NonZeroU32::new(header.packet_number),
        ) else {
            self.stats.bad_syn += 1;
            return;
        };
        let Self { sealing, rng, .. } = self;
        let admitted = sealing.as_mut().map(|sealing| {
            let gate = sealing
                .gate
                .get_or_insert_with(|| Gatekeeper::new(now, rng));
            gate.work.offer(now, view.cookie().is_some())
        });
        if admitted != Some(Gate::Admit) {
            self.stats.syn_overflow += 1;
            return;
        }
        let known = self.by_peer.get(&peer).copied();
        let mut crossed = false;
        if let Some(slot) = known
            && let Some(session) = self.session_mut(slot)
        {
            if session.state() == SessionState::Established {
                if session.remote_id() == offered.get() {
                    // a late copy of the offer that this session came from
                    return;
                }
                if session.is_unconfirmed(now, offered) {
                    // The peer does not know yet that our offer was answered.
                    session.ask_confirmation(now, from, HEADER_LEN + message.len());
                    self.touch(slot);
                    return;
                }
            }
            crossed = session.state() == SessionState::Connecting
                && crossing(header.dest, peer) == Crossing::OwnWins;
        }
        let room = self.has_room(peer);
        let expires_at = now + self.config.connect_timeout + self.config.dead_after;
        let Self {
            sealing: Some(sealing),
            stats,
            rng,
            ..
        } = self
        else {
            return;
        };
        let gate = sealing
            .gate
            .get_or_insert_with(|| Gatekeeper::new(now, rng));
        let offer = (peer, offered);
        if !crossed && sealing.answers.repeat(offer, || view.digest(), from) {
            self.offers_cross(now, peer, offered);
            return;
        }
        if !room {
            stats.syn_overflow += 1;
            return;
        }
        let octets = address_octets(from);
        let proven = view
            .cookie()
            .is_some_and(|cookie| gate.jar.verify(now, &octets, &view.digest(), cookie));
        let reply = |message| Reply {
            to: from,
            peer,
            session: offered.get(),
            message,
        };
        match gate.offers.offer(now, proven) {
            Gate::Admit => {}
            Gate::Cookie => {
                let cookie = gate.jar.mint(now, &octets, &view.digest(), rng);
                sealing.reply(reply(view.cookie_message(&cookie)));
                stats.cookies_sent += 1;
                return;
            }
            _ => {
                stats.syn_overflow += 1;
                return;
            }
        }
        if crossed {
            if let Some(slot) = known
                && let Some(session) = self.session_mut(slot)
            {
                session.offer_also_to(now, from);
            }
            self.offers_cross(now, peer, offered);
            return;
        }
        let responder = match Responder::read(&sealing.local, peer, &view, rng) {
            Ok(responder) => responder,
            Err(HandshakeError::StaleKey) => {
                sealing.reply(reply(view.restart_message()));
                return;
            }
            Err(_) => {
                stats.bad_syn += 1;
                return;
            }
        };
        let theirs = Syn::parse(responder.params());
        let local_id = self.fresh_id();
        let syn = syn_of(&self.config, local_id, SynKind::Accept { echo: offered });
        let Self {
            sealing: Some(sealing),
            stats,
            ..
        } = self
        else {
            return;
        };
        let answered = responder.answer(sealing.suites, &params(&syn));
        let (Ok(theirs), Ok((answer, answered))) = (theirs, answered) else {
            stats.bad_syn += 1;
            return;
        };
        if theirs.session != offered || theirs.kind != SynKind::Offer {
            stats.bad_syn += 1;
            return;
        }
        let stage = match answered {
            Answered::Waiting(waiting) => Stage::Confirm(Box::new(waiting)),
            Answered::Established(established) => {
                let keys = established.keys.into_packet_keys(now);
                Stage::Packet(Box::new(Protection::accepted(keys)))
            }
        };
        let answer = Answer::new(now, (peer, from), theirs, view.digest(), answer, stage);
        if sealing.answers.note(local_id, answer, expires_at) {
            stats.syn_overflow += 1;
        }
        self.offers_cross(now, peer, offered);
    }

    /// An offer of the peer was let in: if ours is outstanding, the two cross.
    fn offers_cross(&mut self, now: Instant, peer: NodeId, offered: NonZeroU32) {
        if let Some(&slot) = self.by_peer.get(&peer)
            && let Some(session) = self.session_mut(slot)
        {
            session.crosses(now, offered);
            self.touch(slot);
        }
    }

    /// Whether a session with this peer may begin.
    fn has_room(&self, peer: NodeId) -> bool {
        self.by_peer.contains_key(&peer) || self.by_peer.len() < self.config.max_sessions
    }

    /// Whether a session that the peer offered, and that has this id of ours, may begin now, if the
    /// peer proves to be there: so many octets came from it.
    fn may_begin(
        &mut self,
        now: Instant,
        (from, octets): (SocketAddr, usize),
        (id, peer): (u32, NodeId),
    ) -> bool {
        // Two sessions may come of offers that crossed: the one of the smaller id's is kept. What
        // was answered before it began crossed with it; what was answered after, knowingly, is of
        // a peer that has begun anew.
        let answered = self
            .sealing
            .as_ref()
            .and_then(|s| s.answers.answered_at(id));
        if crossing(self.local, peer) == Crossing::OwnWins
            && let Some(&slot) = self.by_peer.get(&peer)
            && let Some(session) = self.session_mut(slot)
            && session.state() == SessionState::Established
            && session.offered_at() >= answered
        {
            if session.is_unheard() {
                // It will come to ours with our confirmation.
                session.ask_confirmation(now, from, octets);
                self.touch(slot);
            }
            return false;
        }
        self.has_room(peer) && self.has_event_room()
    }

    /// Whether an answer of ours bears this session id.
    fn has_answered(&self, id: u32) -> bool {
        let sealing = self.sealing.as_ref();
        sealing.is_some_and(|sealing| sealing.answers.contains(id))
    }

    /// The third message of a handshake.
    fn on_confirm(&mut self, now: Instant, from: SocketAddr, header: &Header, message: &[u8]) {
        let (id, peer) = (header.session, header.source);
        let octets = HEADER_LEN + message.len();
        if let Some(&slot) = self.by_id.get(&id) {
            let own = header.packet_number;
            let session = self.session_mut(slot);
            if let Some(session) = session.filter(|s| s.peer() == peer && s.remote_id() == own) {
                session.on_confirmed_again(from, octets);
                self.touch(slot);
            }
            return;
        }
        if !self.has_answered(id) {
            self.stats.unknown_session += 1;
            return;
        }
        let may_begin = self.may_begin(now, (from, octets), (id, peer));
        let Self { sealing, rng, .. } = self;
        let Some(sealing) = sealing.as_mut().filter(|_| may_begin) else {
            self.stats.unknown_session += 1;
            return;
        };
        let Some(Answer {
            stage: Stage::Confirm(waiting),
            tried,
            ..
        }) = sealing.answers.get_mut(id, peer)
        else {
            self.stats.unknown_session += 1;
            return;
        };
        let gate = sealing
            .gate
            .get_or_insert_with(|| Gatekeeper::new(now, rng));
        if std::mem::replace(tried, true) && gate.again.offer(now, false) != Gate::Admit {
            self.stats.bad_syn += 1;
            return;
        }
        let established = match waiting.read(message) {
            Ok(established) => established,
            Err(error) => {
                self.stats.bad_syn += 1;
                let hopeless = matches!(
                    error,
                    HandshakeError::Credential(_) | HandshakeError::GivenUp
                );
                if hopeless {
                    sealing.answers.take(id);
                }
                return;
            }
        };
        let Some(answer) = sealing.answers.take(id) else {
            return;
        };
        if Syn::parse(&established.params) != Ok(answer.syn) {
            self.stats.bad_syn += 1;
            return;
        }
        sealing.learn(&established.peer);
        let keys = established.keys.into_packet_keys(now);
        let slot = self.begin(now, (from, octets), id, &answer, Protection::accepted(keys));
        if let Some(slot) = slot {
            if let Some(session) = self.session_mut(slot) {
                session.greet();
            }
            self.touch(slot);
        }
    }

    /// A packet under a session id of the answers: of two messages, the handshake is complete if
    /// it opens.
    fn begin_by_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: Header,
        datagram: Arrived,
    ) -> Option<(u32, Packet)> {
        let (id, peer) = (header.session, header.source);
        if !self.has_answered(id) {
            return None;
        }
        let octets = datagram.octets().len();
        let may_begin = self.may_begin(now, (from, octets), (id, peer));
        let sealing = self.sealing.as_mut().filter(|_| may_begin)?;
        let answer = sealing.answers.get_mut(id, peer)?;
        let Stage::Packet(protection) = &mut answer.stage else {
            return None;
        };
        let first = first_number(answer.syn.session.get(), id);
        let number = expand(header.packet_number, first);
        let packet = protection
            .open(now, number, (header, HEADER_LEN), datagram.into_owned())
            .ok()?;
        let mut answer = sealing.answers.take(id)?;
        let Stage::Packet(protection) = std::mem::replace(&mut answer.stage, Stage::Begun) else {
            return None;
        };
        let slot = self.begin(now, (from, octets), id, &answer, *protection)?;
        Some((slot, packet))
    }

    /// A session that the peer opened begins, with a datagram of so many octets.
    fn begin(
        &mut self,
        now: Instant,
        (from, octets): (SocketAddr, usize),
        id: u32,
        answer: &Answer,
        protection: Protection,
    ) -> Option<u32> {
        let id = NonZeroU32::new(id)?;
        let peer = answer.peer;
        let proven = answer.proves(from);
        let mut unheard = None;
        if let Some(&old) = self.by_peer.get(&peer)
            && let Some(session) = self.session_mut(old)
        {
            if session.state() == SessionState::Connecting {
                // the offers crossed: what is queued goes on in the peer's session
                let before = session.local_id();
                session.cross(now, id, from, &answer.syn, protection);
                if !proven {
                    session.doubt(octets);
                }
                self.by_id.remove(&before.get());
                self.by_id.insert(id.get(), old);
                return Some(old);
            }
            if session.is_unheard() {
                // the offers crossed, and this one counts
                unheard = Some(old);
            } else {
                session.abort(CloseReason::Replaced);
                self.touch(old);
            }
        }
        let start = self.fresh_start();
        let config = Arc::clone(&self.config);
        let ids = [self.local, peer];
        let mut session = Session::accepted(now, config, ids, from, id, start, &answer.syn);
        session.protect(protection);
        if !proven {
            session.doubt(octets);
        }
        #[cfg(feature = "qlog")]
        if self.qlog.is_some() {
            session.record(now);
            session.trace_parameters(now, &answer.syn);
        }
        if let Some(old) = unheard {
            if let Some(before) = self.session_mut(old)
                && !session.go_on_from(now, before, &answer.syn)
            {
                before.abort(CloseReason::Replaced);
            }
            self.touch(old);
        }
        Some(self.insert(session))
    }

    /// Opens a session by a handshake.
    pub(crate) fn connect_sealed(&mut self, now: Instant, peer: NodeId, address: SocketAddr) {
        let id = self.fresh_id();
        let syn = syn_of(&self.config, id, SynKind::Offer);
        let initiator = self
            .sealing
            .as_ref()
            .filter(|_| peer.is_sealed())
            .and_then(|sealing| sealing.initiate(peer, &syn, &mut self.rng).ok());
        let Some(initiator) = initiator else {
            // a node of the open profile: never spoken to without a seal
            self.events
                .push_back(Event::ConnectFailed { peer, address });
            return;
        };
        let start = self.fresh_start();
        let config = Arc::clone(&self.config);
        let ids = [self.local, peer];
        let mut session = Session::connecting(now, config, ids, address, id, start);
        session.offer_by(initiator);
        #[cfg(feature = "qlog")]
        if self.qlog.is_some() {
            session.record(now);
        }
        self.insert(session);
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
