//! A session: everything two peers share. A machine inside the endpoint's machine.
//!
//! Weaknesses of the open profile, which a sealed session does not have: a datagram is taken as the peer's when its session id and
//! source id match, so whoever sees one datagram can forge others, and can move the session to
//! another address.

mod protection;
mod receive;
mod recovery;
mod timers;
mod trace;
mod transmit;

pub(crate) use protection::Protection;
pub(crate) use receive::Room;
pub(crate) use transmit::write_syn;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use vmdt_seal::identity::Credential;
use vmdt_seal::session::{Initiator, Step};
use vmdt_wire::segment::{Fin, FinKind, Syn, SynKind};
use vmdt_wire::{FlowId, NodeId};

use crate::ack::AckState;
use crate::config::{Config, HEADER_OCTETS};
use crate::congestion::Controller;
use crate::datagrams::DatagramQueue;
use crate::delivery_rate::DeliveryRate;
use crate::ecn::{EcnReceived, EcnSender};
use crate::error::{DatagramError, WriteError};
use crate::event::{CloseReason, Event};
use crate::first_flight::FirstFlight;
use crate::limiter::{RateLimit, TokenBucket};
use crate::pacing::Pacer;
use crate::packet_number::first_number;
use crate::path_mtu::{self, PathMtu};
use crate::recv_flows::{RecvFlows, RecvLimits};
use crate::rtt::RttEstimator;
use crate::send_flow::Priority;
use crate::send_flows::{SendFlows, SendLimits};
use crate::sent::{Content, SentPackets, Settled};
use crate::skip::Skips;
use crate::state::{SessionState, StateCell, Transition};
use crate::stats::PathStats;
use crate::train::Train;

/// Smallest payload a peer can hold us to.
const MIN_PAYLOAD: u16 = 64;
/// Octets of a FIN without words.
const FIN_FIXED: usize = 4;
/// Datagrams worth having in the queue: as many as leave in this time, and at least so many.
const DATAGRAM_TIME: Duration = Duration::from_millis(2);
const DATAGRAM_AHEAD: u64 = 3;
/// Shortest idle timeout a peer can hold us to.
const MIN_IDLE: Duration = Duration::from_millis(100);

/// Our offer, while it is unanswered.
#[derive(Clone, Copy, Debug)]
struct Offer {
    next_at: Instant,
    give_up_at: Instant,
    interval: Duration,
    /// First transmission; `None` before it and after a third one (Karn's rule). The second comes so early
    /// that a sample is too large by little if its answer is taken for that of the first.
    sample_from: Option<Instant>,
    sent: u32,
    last_sent: Option<Instant>,
    /// Repeat it at once, beside the regular repetitions.
    hurry: bool,
}

/// An end of session under way.
#[derive(Debug)]
struct Closing {
    fin: Fin,
    /// A FIN has to be sent.
    due: bool,
    /// Next repetition of our own FIN.
    again_at: Option<Instant>,
    until: Instant,
}

/// A peer's address, until it has acknowledged something that was sent there (RFC 9000 section
/// 8.2): no more than three times of what came from it is sent.
#[derive(Clone, Copy, Debug)]
struct Unproven {
    received: u64,
    sent: u64,
    /// What is acknowledged from this number on proves it.
    from: u64,
    /// A HEARTBEAT that asks for the proof has to be sent.
    challenge: bool,
    /// The last address that was proven, and when to return to it.
    back: Option<(SocketAddr, Instant)>,
}

/// A reset or stop the peer has not acknowledged.
#[derive(Debug)]
struct FlowNotice {
    flow: FlowId,
    kind: FinKind,
    code: u16,
}

/// The losses since the last reduction of the window, to notice when all were spurious.
#[derive(Clone, Copy, Debug, Default)]
struct LossEpoch {
    start: Option<Instant>,
    first_number: u64,
    lost: u64,
}

/// What became of a message to a side that offers.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It answers nothing.
    Refused,
    /// It was expected.
    Known,
    /// The session is established with this peer.
    Established(Box<Credential>),
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    local: NodeId,
    peer: NodeId,
    address: SocketAddr,
    state: StateCell,
    local_id: NonZeroU32,
    remote_id: u32,
    max_payload: usize,
    mtu: PathMtu,
    /// The peer reads compact headers.
    compact: bool,
    /// By when segments larger than the path's payload must be through.
    oversized_until: Option<Instant>,
    idle_timeout: Duration,

    rtt: RttEstimator,
    controller: Box<dyn Controller>,
    first_flight: FirstFlight,
    /// Once the path's rate was wanted.
    train: Option<Box<Train>>,
    pacer: Pacer,
    delivery: DeliveryRate,
    /// The user's limit.
    limiter: Option<Box<TokenBucket>>,
    sent: SentPackets,
    skips: Skips,
    ecn: EcnSender,
    ecn_received: EcnReceived,
    epoch: LossEpoch,
    pto_count: u32,
    probes: u8,
    app_limited: bool,

    send: SendFlows,
    /// Once there was a datagram to send.
    datagrams: Option<Box<DatagramQueue>>,
    recv: RecvFlows,
    ack: AckState,
    /// Flow of the newest DATA, to be named in the next ACK.
    last_flow: FlowId,
    notices: BTreeMap<u64, FlowNotice>,
    notice_queue: VecDeque<u64>,
    next_notice: u64,
    /// A HEARTBEAT to send, naming this flow.
    heartbeat: Option<FlowId>,

    offer: Option<Offer>,
    /// The handshake of an offer in profile 1.1.
    initiator: Option<Box<Initiator>>,
    /// Where else to send the offer, once.
    offer_also: Option<SocketAddr>,
    /// The session id of an offer of the peer that came while ours was outstanding.
    crossed: Option<NonZeroU32>,
    /// In profile 1.1, once established.
    protection: Option<Box<Protection>>,
    /// Set while the peer's address is not proven.
    unproven: Option<Unproven>,
    /// An accept to send: where, and the offer's session id.
    accept: Option<(SocketAddr, NonZeroU32)>,
    closing: Option<Box<Closing>>,
    ended: bool,

    last_received: Instant,
    /// Start of the idle period: the last arrival, or the first thing sent since.
    idle_from: Instant,
    sent_since_arrival: bool,
    outstanding_since: Option<Instant>,
    /// What left last and asks for an acknowledgment, unless it was repeated since.
    tail: Option<Content>,
    pacing_at: Option<Instant>,
    persist_at: Option<Instant>,
    persist_count: u32,

    events: VecDeque<Event>,
    settled: Vec<Settled>,
    stats: PathStats,

    #[cfg(feature = "qlog")]
    log: Option<Box<crate::qlog::Log>>,

    /// In the endpoint's transmit queue.
    pub(crate) queued: bool,
}

impl Session {
    fn new(
        now: Instant,
        config: Arc<Config>,
        [local, peer]: [NodeId; 2],
        address: SocketAddr,
        local_id: NonZeroU32,
        start: u32,
        state: StateCell,
    ) -> Self {
        let datagram = config.nominal_datagram();
        let (payload, _) = config.mtu_bounds();
        Self {
            local,
            peer,
            address,
            state,
            local_id,
            remote_id: 0,
            max_payload: usize::from(payload) - config.trailer_octets(),
            mtu: PathMtu::new(now, payload, payload, payload),
            compact: false,
            oversized_until: None,
            idle_timeout: config.idle_timeout,
            rtt: RttEstimator::new(config.initial_rtt),
            controller: config.congestion.build(now, datagram),
            first_flight: config.new_flight(datagram),
            train: None,
            pacer: Pacer::new(datagram),
            delivery: DeliveryRate::new(now),
            limiter: None,
            // One span of room keeps the expansion of wrapped numbers positive.
            sent: SentPackets::new((1 << 32) + u64::from(start)),
            skips: Skips::new(),
            ecn: EcnSender::new(config.ecn),
            ecn_received: EcnReceived::default(),
            epoch: LossEpoch::default(),
            pto_count: 0,
            probes: 0,
            app_limited: true,
            send: SendFlows::new(SendLimits {
                flows: config.max_send_flows,
                active: config.max_active_flows,
                buffer: config.send_buffer,
                control_buffer: config.control_buffer,
                tombstones: config.max_tombstones,
            }),
            datagrams: None,
            recv: RecvFlows::new(RecvLimits {
                flows: config.max_recv_flows,
                flow_window: config.flow_window,
                session_window: config.session_window,
                tombstones: config.max_tombstones,
            }),
            ack: AckState::new(),
            last_flow: FlowId::CONTROL,
            notices: BTreeMap::new(),
            notice_queue: VecDeque::new(),
            next_notice: 0,
            heartbeat: None,
            offer: None,
            initiator: None,
            offer_also: None,
            crossed: None,
            protection: None,
            unproven: None,
            accept: None,
            closing: None,
            ended: false,
            last_received: now,
            idle_from: now,
            sent_since_arrival: false,
            outstanding_since: None,
            tail: None,
            pacing_at: None,
            persist_at: None,
            persist_count: 0,
            events: VecDeque::new(),
            settled: Vec::new(),
            stats: PathStats::default(),
            #[cfg(feature = "qlog")]
            log: None,
            queued: false,
            config,
        }
    }

    /// A session we open: offers until answered.
    pub(crate) fn connecting(
        now: Instant,
        config: Arc<Config>,
        ids: [NodeId; 2],
        address: SocketAddr,
        local_id: NonZeroU32,
        start: u32,
    ) -> Self {
        let offer = Offer {
            next_at: now,
            give_up_at: now + config.connect_timeout,
            interval: config.connect_retry,
            sample_from: None,
            sent: 0,
            last_sent: None,
            hurry: false,
        };
        let state = StateCell::connecting();
        let mut session = Self::new(now, config, ids, address, local_id, start, state);
        session.offer = Some(offer);
        session
    }

    /// A session the peer opened and has just confirmed.
    pub(crate) fn accepted(
        now: Instant,
        config: Arc<Config>,
        ids: [NodeId; 2],
        address: SocketAddr,
        local_id: NonZeroU32,
        start: u32,
        syn: &Syn,
    ) -> Self {
        let state = StateCell::established();
        let mut session = Self::new(now, config, ids, address, local_id, start, state);
        session.adopt(now, syn);
        session.events.push_back(Event::Connected {
            peer: session.peer,
            address,
        });
        session
    }

    /// Seals the session from now on.
    pub(crate) fn protect(&mut self, protection: Protection) {
        self.protection = Some(Box::new(protection));
        self.adopt_payload();
    }

    /// Offers by this handshake.
    pub(crate) fn offer_by(&mut self, initiator: Initiator) {
        self.initiator = Some(Box::new(initiator));
    }

    /// Sends the offer also to where an offer of the peer came from.
    pub(crate) fn offer_also_to(&mut self, now: Instant, address: SocketAddr) {
        if address != self.address {
            self.offer_also = Some(address);
        }
        self.hurry(now);
    }

    /// Takes an answer to our offer, of so many octets.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        (from, octets): (SocketAddr, usize),
        (own, rng): (u32, &mut ChaCha12Rng),
        message: &[u8],
    ) -> Taken {
        let Some(initiator) = &mut self.initiator else {
            if own != self.remote_id || self.protection.is_none() {
                return Taken::Refused;
            }
            self.ask_confirmation(now, from, octets);
            return Taken::Known;
        };
        match initiator.read(message, rng) {
            Ok(Step::OfferAgain) => {
                if from != self.address {
                    // Nothing shows yet that the peer is there, so our address for it stays.
                    self.offer_also = Some(from);
                } else if let Some(offer) = &mut self.offer {
                    offer.hurry = true;
                }
                Taken::Known
            }
            Ok(Step::Established(established)) => {
                let echo = SynKind::Accept {
                    echo: self.local_id,
                };
                let Ok(syn) = Syn::parse(&established.params) else {
                    return Taken::Refused;
                };
                if syn.kind != echo {
                    return Taken::Refused;
                }
                let keys = established.keys.into_packet_keys(now);
                self.initiator = None;
                self.offer_also = None;
                self.protect(Protection::offered(now, keys, established.confirm));
                let expected = from == self.address;
                self.on_accept(now, from, &syn);
                if !expected {
                    self.doubt(octets);
                }
                Taken::Established(Box::new(established.peer))
            }
            Err(_) => Taken::Refused,
        }
    }

    /// The peer's offer crossed with ours, and is the one that counts.
    pub(crate) fn cross(
        &mut self,
        now: Instant,
        id: NonZeroU32,
        from: SocketAddr,
        syn: &Syn,
        protection: Protection,
    ) {
        self.local_id = id;
        self.initiator = None;
        self.offer_also = None;
        self.protect(protection);
        if let Some(offer) = &mut self.offer {
            offer.sample_from = None;
        }
        self.on_accept(now, from, syn);
    }

    /// Nothing has shown that the peer is at its address; so many octets came from there.
    pub(crate) fn doubt(&mut self, octets: usize) {
        self.unproven = Some(Unproven {
            received: octets as u64,
            sent: 0,
            from: self.sent.next_number(),
            challenge: true,
            back: None,
        });
    }

    /// The peer offers a session under this id while our own offer is outstanding: it is there, so
    /// a lost datagram of either handshake is not waited for longer than at first.
    pub(crate) fn crosses(&mut self, now: Instant, id: NonZeroU32) {
        let interval = self.config.connect_retry;
        if let Some(offer) = &mut self.offer {
            self.crossed = Some(id);
            offer.interval = offer.interval.min(interval);
            offer.next_at = offer.next_at.min(now + interval);
        }
    }

    /// When our offer began this session, if it did.
    pub(crate) fn offered_at(&self) -> Option<Instant> {
        self.protection.as_ref()?.offered_at()
    }

    /// Since when our offer has begun this session without a word of the peer, who may not know of
    /// it yet.
    fn unheard_since(&self) -> Option<Instant> {
        let since = self.protection.as_ref()?.unheard_since();
        since.filter(|_| self.state.is_established())
    }

    /// Whether our offer has begun this session, and the peer may not know of it yet.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard_since().is_some()
    }

    /// Whether an offer of the peer under this id says that it lacks our confirmation: it crossed
    /// with ours, or most likely did. Of a peer that has restarted it would be another offer.
    pub(crate) fn is_unconfirmed(&self, now: Instant, id: NonZeroU32) -> bool {
        self.unheard_since().is_some_and(|since| {
            self.crossed == Some(id) || now < since + self.config.connect_timeout / 2
        })
    }

    /// What was queued goes on from `before`, a session that we offered the same peer and that it
    /// never said a word in: whoever replaces it has got nothing of it, and the application heard
    /// nothing. False: what was cut for `before` does not fit.
    pub(crate) fn go_on_from(&mut self, now: Instant, before: &mut Session, syn: &Syn) -> bool {
        before.requeue_all();
        if before.send.largest_in_transit() > self.max_payload {
            return false;
        }
        std::mem::swap(&mut self.send, &mut before.send);
        self.send.set_windows(syn.flow_window, syn.session_window);
        self.datagrams = before.datagrams.take();
        self.limiter = before.limiter.take();
        self.notices = std::mem::take(&mut before.notices);
        self.notice_queue = std::mem::take(&mut before.notice_queue);
        self.next_notice = before.next_notice;
        self.stats = before.stats;
        // The application was told of a session already.
        self.events = std::mem::take(&mut before.events);
        before.ended = true;
        self.update_pacing(now);
        true
    }

    /// So many octets from this address, of a handshake that has brought us further than the
    /// peer, show that it may lack our confirmation.
    pub(crate) fn ask_confirmation(&mut self, now: Instant, from: SocketAddr, octets: usize) {
        if let Some(unproven) = &mut self.unproven
            && from == self.address
        {
            unproven.received += octets as u64;
        }
        self.repeat_confirmation(now);
    }

    /// Says a first word to the peer, whose confirmation has come, and which repeats that until it
    /// hears something. What it sent before was not understood and gets no ACK, so without this
    /// word it would hear nothing before its next probe timeout; and this word has one of its own.
    pub(crate) fn greet(&mut self) {
        if self.state.is_established() {
            self.heartbeat.get_or_insert(FlowId::CONTROL);
        }
    }

    /// The confirmation came again, so many octets from this address: the peer has heard nothing
    /// of the session, unless it has acknowledged something since. The word that answers it is no
    /// ACK: a late one would be the peer's first sample of the round trip, and far too long.
    pub(crate) fn on_confirmed_again(&mut self, from: SocketAddr, octets: usize) {
        if self.offered_at().is_some() || self.sent.largest_acked().is_some() {
            return;
        }
        if let Some(unproven) = &mut self.unproven
            && from == self.address
        {
            unproven.received += octets as u64;
        }
        self.greet();
    }

    /// The number after the largest that arrived, as on the wire.
    #[cfg(test)]
    pub(crate) fn next_arrival(&self) -> u32 {
        crate::packet_number::truncate(self.ack.largest().unwrap() + 1)
    }

    /// Seals so many packets that nobody gets.
    #[cfg(test)]
    pub(crate) fn burn(&mut self, now: Instant, count: u32) {
        let protection = self.protection.as_mut().unwrap();
        let mut buf = Vec::with_capacity(128);
        for _ in 0..count {
            buf.clear();
            buf.resize(80, 0);
            let number = self.sent.push_untracked(now);
            protection.seal(now, number, &mut buf).unwrap();
        }
    }

    fn repeat_confirmation(&mut self, now: Instant) {
        if let Some(protection) = &mut self.protection {
            protection.repeat_confirmation(now);
        }
    }

    /// Takes over what the peer's SYN says.
    fn adopt(&mut self, now: Instant, syn: &Syn) {
        self.trace_parameters(now, syn);
        self.remote_id = syn.session.get();
        let (ours, theirs) = (self.local_id.get(), self.remote_id);
        self.sent.begin(first_number(ours, theirs));
        self.ack.begin(first_number(theirs, ours));
        self.compact = syn.features & self.config.features() & Syn::COMPACT != 0;
        self.search_mtu(now, syn.max_payload.max(MIN_PAYLOAD));
        self.send.set_windows(syn.flow_window, syn.session_window);
        if syn.idle_timeout_ms > 0 {
            let theirs = Duration::from_millis(u64::from(syn.idle_timeout_ms)).max(MIN_IDLE);
            self.idle_timeout = self.config.idle_timeout.min(theirs);
        }
    }

    /// Looks for the largest size that the path carries, of those that the peer takes.
    pub(crate) fn search_mtu(&mut self, now: Instant, theirs: u16) {
        let (base, ceiling) = self.config.mtu_bounds();
        let ethernet = match self.address.ip().to_canonical() {
            IpAddr::V4(_) => path_mtu::ETHERNET,
            IpAddr::V6(_) => path_mtu::ETHERNET_V6,
        };
        self.mtu = PathMtu::new(now, base.min(theirs), ceiling.min(theirs), ethernet);
        self.adopt_payload();
    }

    /// Sends segments of the size the path is known to carry from now on.
    fn adopt_payload(&mut self) {
        let datagram = usize::from(self.mtu.current()) + HEADER_OCTETS;
        self.max_payload = datagram - self.framing();
        let nominal = self.config.nominal_datagram();
        let datagram = self.datagram().max(nominal);
        self.controller.on_datagram_size(datagram);
        self.pacer.set_datagram(nominal, datagram);
    }

    /// The system refused to send a datagram of so many octets to where this session sends:
    /// nothing so large leaves this machine.
    pub(crate) fn on_refused(&mut self, now: Instant, octets: usize) {
        let Some(size) = self.mtu.in_flight() else {
            return;
        };
        if usize::from(size) + HEADER_OCTETS != octets {
            return;
        }
        self.mtu.on_probe_refused(size);
        if let Some(number) = self.sent.find(Content::MtuProbe(size)) {
            self.declare_lost(now, number);
        }
    }

    /// Our SYN of this kind.
    fn syn(&self, kind: SynKind) -> Syn {
        syn_of(&self.config, self.local_id, kind)
    }

    /// The peer answered our offer.
    pub(crate) fn on_accept(&mut self, now: Instant, from: SocketAddr, syn: &Syn) {
        let Some(offer) = self.offer else {
            return;
        };
        if !self.state.apply(Transition::Accepted) {
            return;
        }
        self.offer = None;
        self.address = from;
        self.adopt(now, syn);
        self.last_received = now;
        self.idle_from = now;
        if let Some(sent_at) = offer.sample_from {
            let sample = now.saturating_duration_since(sent_at);
            self.rtt.update(sample, Duration::ZERO, Duration::ZERO);
        }
        self.update_pacing(now);
        // The peer learns from the first datagram that we have its accept.
        self.heartbeat = Some(FlowId::CONTROL);
        self.events.push_back(Event::Connected {
            peer: self.peer,
            address: from,
        });
    }

    /// An offer arrived that this session can answer: the one it was made from, or one that
    /// crossed with ours.
    pub(crate) fn answer_offer(&mut self, from: SocketAddr, id: NonZeroU32) {
        self.accept = Some((from, id));
        if self.state.get() == SessionState::Connecting {
            // The peer is seen at this address, which ours may not be.
            self.address = from;
        }
    }

    /// The peer uses our session id, but its accept has not arrived: ask again at once.
    pub(crate) fn hurry_offer(&mut self, now: Instant, from: SocketAddr) {
        if self.hurry(now) {
            self.address = from;
        }
    }

    /// Has the offer repeated at once, but not sooner than after an eighth of the first interval.
    fn hurry(&mut self, now: Instant) -> bool {
        let spacing = self.config.connect_retry / 8;
        match &mut self.offer {
            Some(offer) if offer.last_sent.is_none_or(|at| now >= at + spacing) => {
                offer.hurry = true;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn peer(&self) -> NodeId {
        self.peer
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn local_id(&self) -> NonZeroU32 {
        self.local_id
    }

    pub(crate) fn remote_id(&self) -> u32 {
        self.remote_id
    }

    pub(crate) fn state(&self) -> SessionState {
        self.state.get()
    }

    /// Whether nothing more will come of it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Ends without a word to the peer.
    pub(crate) fn abort(&mut self, reason: CloseReason) {
        // A draining session has told its end already.
        if self.state.get() != SessionState::Draining && !self.ended {
            self.events.push_back(Event::Closed {
                peer: self.peer,
                reason,
            });
        }
        self.ended = true;
    }

    /// The application closes.
    pub(crate) fn close(&mut self, now: Instant, code: u16, reason: &str) {
        if self.state.get() == SessionState::Connecting {
            self.abort(CloseReason::Local);
            return;
        }
        let mut room = reason.len().min(self.max_payload.saturating_sub(FIN_FIXED));
        while !reason.is_char_boundary(room) {
            room -= 1;
        }
        let reason = reason.get(..room).unwrap_or_default();
        let fin = Fin::new(FinKind::CloseSession, code, reason);
        if self.drain(now, fin, CloseReason::Local)
            && let Some(closing) = &mut self.closing
        {
            closing.again_at = Some(now + self.rtt.pto_base(self.config.max_ack_delay));
        }
    }

    /// Enters the draining state; false if it is there already.
    fn drain(&mut self, now: Instant, fin: Fin, reason: CloseReason) -> bool {
        if !self.state.apply(Transition::Close) {
            return false;
        }
        self.events.push_back(Event::Closed {
            peer: self.peer,
            reason,
        });
        self.closing = Some(Box::new(Closing {
            fin,
            due: true,
            again_at: None,
            until: now + self.rtt.pto_base(self.config.max_ack_delay) * 3,
        }));
        true
    }

    pub(crate) fn write(
        &mut self,
        now: Instant,
        flow: FlowId,
        data: Bytes,
    ) -> Result<(), WriteError> {
        self.check_writable()?;
        let rested = self.first_flight.window() > 0 && !self.send.wants_to_send();
        self.send.write(flow, data)?;
        if rested {
            // the first flight begins with it, and not with the first acknowledgment
            self.update_pacing(now);
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, flow: FlowId) -> Result<(), WriteError> {
        self.check_writable()?;
        self.send.finish(flow)
    }

    /// Queues a datagram.
    pub(crate) fn send_datagram(
        &mut self,
        now: Instant,
        payload: Bytes,
    ) -> Result<(), DatagramError> {
        match self.state.get() {
            SessionState::Connecting => return Err(DatagramError::NoSession),
            SessionState::Draining => return Err(DatagramError::Closing),
            SessionState::Established => {}
        }
        let limit = self.max_datagram().ok_or(DatagramError::NotSealed)?;
        let octets = payload.len();
        if octets == 0 {
            return Err(DatagramError::Empty);
        }
        if octets > limit {
            return Err(DatagramError::TooLarge { octets, limit });
        }
        let (framing, target) = (self.queued_framing(), self.datagram_target());
        let limit = self.config.datagram_buffer;
        let queue = self.datagrams.get_or_insert_default();
        let first = queue.is_empty();
        queue.push(payload, framing, limit, target)?;
        if first {
            self.update_pacing(now);
        }
        Ok(())
    }

    /// Octets of datagrams that wait.
    fn datagrams_queued(&self) -> usize {
        self.datagrams.as_ref().map_or(0, |queue| queue.octets())
    }

    /// The largest payload of a datagram now; `None`: the session has none, or not yet.
    pub(crate) fn max_datagram(&self) -> Option<usize> {
        let ready = self.protection.is_some() && self.state.is_established();
        ready.then_some(self.max_payload)
    }

    /// Octets of datagrams that are worth handing over now.
    pub(crate) fn datagram_room(&self) -> usize {
        self.max_datagram().map_or(0, |_| {
            self.datagram_target()
                .saturating_sub(self.datagrams_queued())
        })
    }

    /// Octets of datagrams that keep the path busy until the application is asked again: what is
    /// more waits better with the application, which can still change its mind.
    fn datagram_target(&self) -> usize {
        let least = DATAGRAM_AHEAD * self.datagram();
        let paced = self.pacer.per(DATAGRAM_TIME).max(least);
        usize::try_from(paced)
            .unwrap_or(usize::MAX)
            .min(self.config.datagram_buffer)
    }

    pub(crate) fn set_flow_priority(
        &mut self,
        flow: FlowId,
        priority: Priority,
    ) -> Result<(), WriteError> {
        self.check_writable()?;
        self.send.set_priority(flow, priority)
    }

    pub(crate) fn set_flow_limit(
        &mut self,
        now: Instant,
        flow: FlowId,
        limit: Option<RateLimit>,
    ) -> Result<(), WriteError> {
        self.check_writable()?;
        self.send.set_limit(now, flow, limit)
    }

    pub(crate) fn set_limit(&mut self, now: Instant, limit: Option<RateLimit>) {
        self.limiter = limit.map(|limit| Box::new(TokenBucket::new(now, limit)));
        self.pacing_at = None;
    }

    fn check_writable(&self) -> Result<(), WriteError> {
        if self.state.get() == SessionState::Draining {
            return Err(WriteError::Closing);
        }
        // Unacknowledged resets count as flows: they are what is left of flows.
        if self.notices.len() >= self.notice_limit() {
            return Err(WriteError::TooManyFlows {
                limit: self.config.max_send_flows,
            });
        }
        Ok(())
    }

    fn notice_limit(&self) -> usize {
        self.config.max_send_flows + self.config.max_recv_flows
    }

    pub(crate) fn reset(&mut self, flow: FlowId, code: u16) {
        if flow.is_control() || self.state.get() == SessionState::Draining {
            return;
        }
        let (existed, writable) = self.send.abandon(flow);
        if existed {
            self.notify(flow, FinKind::ResetFlow, code);
        }
        self.tell_writable(writable);
    }

    pub(crate) fn stop(&mut self, flow: FlowId, code: u16) {
        if self.state.is_established() && self.recv.stop(flow) {
            self.notify(flow, FinKind::StopFlow, code);
        }
        self.announce_if_freed();
    }

    pub(crate) fn read(&mut self, flow: FlowId) -> Option<Bytes> {
        if self.state.get() == SessionState::Draining {
            return None;
        }
        let read = self.recv.read(flow);
        if read.finished {
            self.events.push_back(Event::Finished {
                peer: self.peer,
                flow,
            });
        }
        if read.announce {
            self.ack.force();
        }
        read.piece
    }

    fn announce_if_freed(&mut self) {
        if self.recv.wants_session_announcement() {
            self.ack.force();
        }
    }

    fn notify(&mut self, flow: FlowId, kind: FinKind, code: u16) {
        let number = self.next_notice;
        self.next_notice += 1;
        self.notices.insert(number, FlowNotice { flow, kind, code });
        self.notice_queue.push_back(number);
    }

    fn tell_writable(&mut self, writable: bool) {
        if writable {
            self.events.push_back(Event::Writable { peer: self.peer });
        }
    }

    pub(crate) fn stats(&self) -> PathStats {
        PathStats {
            srtt: self.rtt.smoothed(),
            rttvar: self.rtt.var(),
            min_rtt: self.rtt.min(),
            cwnd: self.controller.window(),
            bandwidth: self.controller.bandwidth(),
            bytes_in_flight: self.sent.in_flight(),
            queued: self.send.queued(),
            datagrams_queued: self.datagrams_queued(),
            held: self.recv.held(),
            send_flows: self.send.len(),
            recv_flows: self.recv.len(),
            max_payload: self.max_payload,
            ecn_capable: self.ecn.is_capable(),
            ..self.stats
        }
    }

    fn update_pacing(&mut self, now: Instant) {
        let window = self.controller.window();
        let flight = self.first_flight_rate(now);
        let rate = match self.controller.pacing_rate() {
            Some(rate) => rate.max(flight),
            None if window <= self.first_flight.window() && flight > 0 => flight,
            None => {
                let slow_start = self.controller.in_slow_start();
                Pacer::rate_for(window, self.rtt.smoothed(), slow_start)
            }
        };
        self.pacer.set_rate(now, rate);
    }

    /// What may be in flight: as the controller says, and at first one flight over a round trip
    /// that was measured.
    fn window(&self) -> u64 {
        let flight = if self.takes_first_flight() {
            self.first_flight.window()
        } else {
            0
        };
        self.controller.window().max(flight)
    }

    fn first_flight_rate(&self, now: Instant) -> u64 {
        if self.takes_first_flight() {
            let measured = self.train.as_ref().and_then(|train| train.rate(now));
            self.first_flight.rate(self.rtt.smoothed(), measured)
        } else {
            0
        }
    }

    /// How fast the path is will be of use soon.
    pub(crate) fn measure_rate(&mut self, now: Instant) {
        let wanted = self.first_flight.window() > 0 && self.protection.is_some();
        if wanted && self.limiter.is_none() {
            let train = self.train.get_or_insert_with(|| Box::new(Train::new()));
            train.ask(now);
        }
    }

    /// Whether a train may leave on the path as it is.
    fn may_measure(&self) -> bool {
        self.unproven.is_none() && self.limiter.is_none() && self.rtt.has_sample()
    }

    /// When the path will have been quiet for so long that a train may leave.
    fn train_at(&self) -> Option<Instant> {
        let train = self.train.as_ref()?;
        if self.sent.in_flight() > 0 || !self.may_measure() {
            return None;
        }
        let sent = self.sent.last_eliciting_at();
        let quiet_since = sent.map_or(self.last_received, |at| at.max(self.last_received));
        let turns = 1 + u32::from(self.local > self.peer);
        train.due_at(quiet_since, self.rtt.smoothed(), turns)
    }

    /// Whether the first flight is for what waits: datagrams, on a path whose round trip was
    /// measured, and flows where its rate was as well. Otherwise flows begin as their controller
    /// says.
    fn takes_first_flight(&self) -> bool {
        let rated = || self.train.as_ref().is_some_and(|train| train.is_rated());
        let flows = || self.send.wants_to_send() && rated();
        self.rtt.has_sample() && (self.datagrams_queued() > 0 || flows())
    }
}

/// A SYN with this configuration's values.
pub(crate) fn syn_of(config: &Config, session: NonZeroU32, kind: SynKind) -> Syn {
    Syn {
        kind,
        max_payload: config.accepted_payload(),
        session,
        session_window: config.session_window,
        flow_window: config.flow_window,
        idle_timeout_ms: u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX),
        features: config.features(),
    }
}
