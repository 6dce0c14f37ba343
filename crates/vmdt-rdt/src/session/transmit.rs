//! What a session sends, and in which order.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use vmdt_seal::packet::TAG_LEN;
use vmdt_wire::compact::{MAX_COMPACT_LEN, compact_len};
use vmdt_wire::segment::{Ack, EcnCounts, FLOW_WINDOW_UNIT, Fin, Nak, Syn, SynKind};
use vmdt_wire::{Flags, FlowId, HEADER_LEN, Header, NodeId, PacketType, Seq, checksum};

use super::protection::Protection;
use super::{FIN_FIXED, Session};
use crate::config::Integrity;
use crate::event::{CloseReason, Event, Transmit};
use crate::limiter::TokenBucket;
use crate::packet_number::{truncate, truncate_seq};
use crate::sealed::{syn_header, write_handshake};
use crate::send_flow::Outgoing;
use crate::send_flows::SegmentRef;
use crate::sent::Content;
use crate::state::SessionState;

/// Where the flags stand in a header.
const FLAGS_OFFSET: usize = 69;
/// Octets of an ACK with one range, and of each further one.
const ACK_FIXED: usize = 20;
const ACK_BLOCK: usize = 8;
/// Octets of an ACK with one range and ECN counts.
const ACK_SMALL: usize = ACK_FIXED + EcnCounts::LEN;
/// At least the octets of a datagram with the third message of a handshake.
const CONFIRMATION: usize = 256;
/// What of an allowance is kept for probes and confirmations: full packets leave so much of it. It
/// is what six probe timeouts send, about as many as there are before a peer counts as dead.
/// Without it one lost ACK leaves nothing to ask for another with.
const PROBE_RESERVE: usize = 2 * 6 * (HEADER_LEN + TAG_LEN);
/// Longest wait between two offers, unless the first one is longer.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// The first repetition of an offer comes after this part of the first wait: whoever waits for a session
/// has little else to go on with, and an offer is one packet.
const EARLY_REPEAT: u32 = 4;
/// Octets of a NAK without holes, and of each hole.
const NAK_FIXED: usize = 2;
const NAK_HOLE: usize = 4;
/// Losses before the last packet of a pause is repeated.
const TAIL_LOSSES: u64 = 3;

/// Writes one datagram into `buf`, which it clears first.
fn write_datagram(
    buf: &mut Vec<u8>,
    integrity: Integrity,
    mut header: Header,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    buf.clear();
    if integrity == Integrity::Internet {
        header.flags |= Flags::CHECKSUM;
    }
    buf.extend_from_slice(&[0; HEADER_LEN]);
    payload(buf);
    // Payloads are at most 1,472 octets.
    let length = u16::try_from(buf.len() - HEADER_LEN).unwrap_or(u16::MAX);
    if let Some(space) = buf.first_chunk_mut::<HEADER_LEN>() {
        header.emit(length, space);
    }
    match integrity {
        Integrity::Off => {}
        Integrity::Internet => checksum::fill(buf),
        Integrity::Crc32 => {
            let crc = crc32fast::hash(buf);
            buf.extend_from_slice(&crc.to_be_bytes());
        }
    }
}

/// Puts the compact form of its header in front of a sealed datagram, if it has one.
fn shorten(buf: &mut Vec<u8>, mut header: Header) {
    // sealing may have set the key phase
    if let Some(sealed) = buf.get(FLAGS_OFFSET) {
        header.flags = Flags::from_bits(*sealed);
    }
    let mut compact = [0; MAX_COMPACT_LEN];
    if let Some(len) = header.emit_compact(&mut compact)
        && let Some(compact) = compact.get(..len)
        && let Some(space) = buf.get_mut(HEADER_LEN - len..HEADER_LEN)
    {
        space.copy_from_slice(compact);
        buf.copy_within(HEADER_LEN - len.., 0);
        buf.truncate(buf.len() - (HEADER_LEN - len));
    }
}

/// Writes a SYN datagram.
pub(crate) fn write_syn(
    buf: &mut Vec<u8>,
    [local, peer]: [NodeId; 2],
    integrity: Integrity,
    session: u32,
    syn: &Syn,
) {
    let mut header = Header::new(PacketType::Syn, local, peer, FlowId::CONTROL);
    header.session = session;
    write_datagram(buf, integrity, header, |out| syn.emit_into(out));
}

impl Session {
    /// Writes the next datagram. `None`: nothing to send now.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        random: impl FnOnce() -> u32,
    ) -> Option<Transmit> {
        if self.ended {
            return None;
        }
        let number = self.sent.next_number();
        let established = self.state.is_established();
        if established && self.skips.is_due(now, number, random) {
            self.sent.push_untracked(now);
            self.stats.numbers_skipped += 1;
        }
        let number = self.sent.next_number();
        if established && self.needs_ack() && self.heartbeat.is_none() {
            self.heartbeat = Some(FlowId::CONTROL);
        }
        let room = self.allowance();
        let to = if room < self.full_allowance() {
            self.pick_small(now, buf, room)?
        } else {
            self.pick(now, buf)?
        };
        if self.ended {
            return None;
        }
        if let Some(unproven) = &mut self.unproven {
            unproven.sent += buf.len() as u64;
        }
        // SYN has no number, and nothing could come of a mark on the last FIN.
        let numbered = self.sent.next_number() > number;
        let ecn = if numbered && established {
            self.ecn.mark(number, self.pto_count)
        } else {
            None
        };
        if !numbered {
            self.trace_sent(now, number, buf, buf.len());
        }
        self.stats.packets_sent += 1;
        self.stats.octets_sent += buf.len() as u64;
        Some(Transmit {
            to,
            len: buf.len(),
            ecn,
            oversized: buf.len() as u64 > self.datagram(),
        })
    }

    fn pick(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<SocketAddr> {
        if let Some((to, offer)) = self.accept.take() {
            self.write_accept(buf, offer);
            return Some(to);
        }
        if self.send_confirmation(now, buf) {
            return Some(self.address);
        }
        if let Some(to) = self.offer_also.take()
            && let Some(initiator) = &self.initiator
        {
            let header = syn_header([self.local, self.peer], 0, self.local_id.get());
            write_handshake(buf, &header, initiator.offer());
            return Some(to);
        }
        let sent = match self.state.get() {
            SessionState::Connecting => self.send_offer(now, buf),
            SessionState::Draining => self.send_close(now, buf),
            SessionState::Established => {
                self.send_challenge(now, buf)
                    || self.send_ack(now, buf, self.max_payload)
                    || self.send_nak(now, buf)
                    || self.send_probe(now, buf)
                    || self.send_content(now, buf)
            }
        };
        sent.then_some(self.address)
    }

    /// What may be sent where little may be sent: to an address that is not proven.
    fn pick_small(&mut self, now: Instant, buf: &mut Vec<u8>, room: u64) -> Option<SocketAddr> {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let payload = room.checked_sub(self.framing())?;
        let sent = match self.state.get() {
            SessionState::Connecting => false,
            SessionState::Draining => {
                let fin = self
                    .closing
                    .as_ref()
                    .map(|closing| closing.fin.reason().len());
                fin.is_some_and(|words| FIN_FIXED + words <= payload) && self.send_close(now, buf)
            }
            SessionState::Established => {
                (room >= CONFIRMATION && self.send_confirmation(now, buf))
                    || self.send_challenge(now, buf)
                    || (payload >= ACK_SMALL && self.send_ack(now, buf, payload))
                    || self.send_small_probe(now, buf)
            }
        };
        sent.then_some(self.address)
    }

    fn send_confirmation(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let own = self.local_id.get();
        let header = syn_header([self.local, self.peer], self.remote_id, own);
        let due = self
            .protection
            .as_mut()
            .and_then(|protection| protection.due_confirmation(now));
        if let Some(message) = due {
            write_handshake(buf, &header, message);
        }
        due.is_some()
    }

    /// Asks the peer to prove its address. Congestion control does not hold that back.
    fn send_challenge(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let challenge = self.unproven.as_mut().map(|u| &mut u.challenge);
        if !challenge.is_some_and(std::mem::take) {
            return false;
        }
        let flow = self.heartbeat.take().unwrap_or(FlowId::CONTROL);
        self.write_heartbeat(now, buf, flow);
        true
    }

    fn send_small_probe(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        if self.probes == 0 {
            return false;
        }
        self.probes -= 1;
        let flow = self.heartbeat.take().unwrap_or(FlowId::CONTROL);
        self.write_heartbeat(now, buf, flow);
        true
    }

    /// Octets that may be sent to the peer's address now.
    pub(super) fn allowance(&self) -> u64 {
        self.unproven.map_or(u64::MAX, |u| {
            u.received.saturating_mul(3).saturating_sub(u.sent)
        })
    }

    /// Below this allowance only small packets are sent.
    pub(super) fn full_allowance(&self) -> u64 {
        self.datagram().max(CONFIRMATION as u64) + PROBE_RESERVE as u64
    }

    /// Whether an allowance permits an ACK, and a confirmation.
    pub(super) fn permits(&self, room: u64) -> (bool, bool) {
        let ack = (self.framing() + ACK_SMALL) as u64;
        (room >= ack, room >= CONFIRMATION as u64)
    }

    /// Whether the peer has to acknowledge something for the key to be renewed, and is not asked
    /// to anyway.
    fn needs_ack(&self) -> bool {
        !self.sent.any_eliciting() && self.protection.as_ref().is_some_and(|p| p.needs_ack())
    }

    fn write_accept(&self, buf: &mut Vec<u8>, offer: NonZeroU32) {
        let syn = self.syn(SynKind::Accept { echo: offer });
        let ids = [self.local, self.peer];
        write_syn(buf, ids, self.config.integrity, offer.get(), &syn);
    }

    fn send_offer(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let Some(offer) = &mut self.offer else {
            return false;
        };
        let regular = offer.next_at <= now;
        if !regular && !offer.hurry {
            return false;
        }
        offer.hurry = false;
        offer.sample_from = match offer.sent {
            0 => Some(now),
            1 => offer.sample_from,
            _ => None,
        };
        offer.sent += 1;
        offer.last_sent = Some(now);
        if regular && offer.sent == 1 {
            offer.next_at = now + offer.interval / EARLY_REPEAT;
        } else if regular {
            offer.next_at = now + offer.interval;
            offer.interval = (offer.interval * 2).min(LONGEST_RETRY.max(offer.interval));
        }
        if let Some(initiator) = &self.initiator {
            let header = syn_header([self.local, self.peer], 0, self.local_id.get());
            write_handshake(buf, &header, initiator.offer());
            return true;
        }
        let syn = self.syn(SynKind::Offer);
        write_syn(buf, [self.local, self.peer], self.config.integrity, 0, &syn);
        true
    }

    fn send_close(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let Some(closing) = &mut self.closing else {
            return false;
        };
        if !std::mem::take(&mut closing.due) {
            return false;
        }
        let fin = closing.fin.clone();
        let number = self.sent.push_untracked(now);
        let header = self.header(PacketType::Fin, FlowId::CONTROL, number);
        self.put(now, buf, (header, number), |out| fin.emit_into(out))
    }

    fn header(&self, kind: PacketType, flow: FlowId, number: u64) -> Header {
        let mut header = Header::new(kind, self.local, self.peer, flow);
        header.session = self.remote_id;
        header.packet_number = truncate(number);
        header
    }

    /// Writes a datagram under its packet number; false when the session has ended instead.
    fn put(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        (header, number): (Header, u64),
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        write_datagram(buf, self.plain_integrity(), header, payload);
        self.seal_up(now, buf, (header, number))
    }

    /// Seals what stands in `buf` behind this header, and shortens the header where the peer reads
    /// that; false when the session has ended instead.
    fn seal_up(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        (header, number): (Header, u64),
    ) -> bool {
        let sealed = self.guard(now, buf, number);
        if sealed && self.speaks_compact() {
            shorten(buf, header);
        }
        sealed
    }

    /// Whether headers leave in their compact form: the peer reads it, and is known to have the
    /// session.
    pub(super) fn speaks_compact(&self) -> bool {
        let heard = |protection: &Protection| protection.unheard_since().is_none();
        self.compact && self.protection.as_deref().is_some_and(heard)
    }

    /// Octets in front of the payload of a packet.
    fn lead(&self, kind: PacketType, with_flow: bool) -> usize {
        compact_len(kind, with_flow)
            .filter(|_| self.speaks_compact())
            .unwrap_or(HEADER_LEN)
    }

    /// How a datagram is protected before it is sealed, if it is.
    fn plain_integrity(&self) -> Integrity {
        match self.protection {
            Some(_) => Integrity::Off,
            None => self.config.integrity,
        }
    }

    /// Seals a datagram where there are keys. False: no key may seal any more, since the peer has
    /// not let them be renewed, and the session has ended.
    fn guard(&mut self, now: Instant, buf: &mut Vec<u8>, number: u64) -> bool {
        let tag = self.protection.as_ref().map_or(0, |_| TAG_LEN);
        self.trace_sent(now, number, buf, buf.len() + tag);
        let Some(protection) = &mut self.protection else {
            return true;
        };
        let sealed = protection.seal(now, number, buf).is_ok();
        if !sealed {
            buf.clear();
            self.abort(CloseReason::KeysUsedUp);
        }
        sealed
    }

    /// Octets of a datagram around the payload of a segment.
    pub(super) fn framing(&self) -> usize {
        self.framing_of(PacketType::Data, true)
    }

    /// Octets of a datagram around a payload of this type.
    pub(super) fn framing_of(&self, kind: PacketType, with_flow: bool) -> usize {
        self.lead(kind, with_flow) + self.config.trailer_octets()
    }

    /// Octets around a datagram that waits, whatever header it will leave with.
    pub(super) fn queued_framing(&self) -> usize {
        HEADER_LEN + self.config.trailer_octets()
    }

    /// Octets of the largest datagram.
    pub(super) fn datagram(&self) -> u64 {
        (self.max_payload + self.framing()) as u64
    }

    /// Sends an ACK that is due, of at most `most` octets of payload.
    fn send_ack(&mut self, now: Instant, buf: &mut Vec<u8>, most: usize) -> bool {
        if !self.ack.is_due(now) && !self.recv.any_announcement() {
            return false;
        }
        let flow = self.recv.next_announcement().unwrap_or(self.last_flow);
        let (delay, session) = (self.ack.delay_micros(now), self.recv.session_window());
        // An ACK is no larger than the segments agreed on.
        let ecn = self.ecn_received.counts();
        let fixed = ACK_FIXED + ecn.map_or(0, |_| EcnCounts::LEN);
        let fit = most.min(self.max_payload).saturating_sub(fixed) / ACK_BLOCK + 1;
        if self.ack.largest().is_none() {
            return false;
        }
        self.ack.on_ack_sent();
        self.recv.on_session_window_told();
        let (seq, window) = self.recv.announce(flow);
        let number = self.sent.push_untracked(now);
        let mut header = self.header(PacketType::Ack, flow, number);
        header.ack = Seq(truncate_seq(seq));
        let units = window / u64::from(FLOW_WINDOW_UNIT);
        header.window = u16::try_from(units).unwrap_or(u16::MAX);
        write_datagram(buf, self.plain_integrity(), header, |out| {
            Ack::emit_ranges(out, delay, session, self.ack.ranges().take(fit), ecn);
        });
        self.seal_up(now, buf, (header, number))
    }

    fn send_nak(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        if self.recv.hole_deadline().is_none_or(|at| at > now) {
            return false;
        }
        let round = self.hole_patience(0);
        let hole = self
            .recv
            .next_hole(now, |naks| now + round * (1 << naks.min(5)));
        let Some((flow, next, mut holes)) = hole else {
            return false;
        };
        holes.truncate(self.max_payload.saturating_sub(NAK_FIXED) / NAK_HOLE);
        let Ok(nak) = Nak::new(holes) else {
            return false;
        };
        self.stats.naks_sent += 1;
        let number = self.sent.push_untracked(now);
        let mut header = self.header(PacketType::Nak, flow, number);
        header.ack = Seq(truncate_seq(next));
        self.put(now, buf, (header, number), |out| nak.emit_into(out))
    }

    /// A probe leaves whatever window and pacer say (RFC 9002 section 7.5).
    fn send_probe(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        if self.probes == 0 {
            return false;
        }
        self.probes -= 1;
        if self.send_notice(now, buf) || self.send_lost(now, buf) {
            return true;
        }
        // The first probe repeats the oldest content in flight; the second carries new data or
        // the next oldest.
        let second = self.probes == 0;
        if second && self.pto_count > 1 && self.mtu.is_raised() {
            // Should only large packets vanish, a small one shows it.
            let flow = self.heartbeat.take().unwrap_or(FlowId::CONTROL);
            self.write_heartbeat(now, buf, flow);
            return true;
        }
        if second && (self.send_new(now, buf) || self.send_queued_datagram(now, buf)) {
            return true;
        }
        let content = self.sent.repeatable().nth(usize::from(second));
        match content.or_else(|| self.sent.repeatable().next()) {
            Some(Content::Segment {
                slot,
                generation,
                seq,
            }) => {
                let segment = SegmentRef {
                    slot,
                    generation,
                    seq,
                };
                if let Some((flow, outgoing)) = self.send.probe(segment) {
                    self.write_segment(now, buf, segment, flow, &outgoing);
                    return true;
                }
            }
            Some(Content::Notice(number)) if self.notices.contains_key(&number) => {
                self.notice_queue.push_back(number);
                return self.send_notice(now, buf);
            }
            Some(
                Content::Notice(_)
                | Content::Heartbeat
                | Content::Datagram
                | Content::MtuProbe(_)
                | Content::Train,
            )
            | None => {}
        }
        let flow = self.heartbeat.take().unwrap_or(FlowId::CONTROL);
        self.write_heartbeat(now, buf, flow);
        true
    }

    /// Everything that congestion control and pacing hold back.
    fn send_content(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        self.send.release_limited(now);
        let waiting = !self.notice_queue.is_empty()
            || self.heartbeat.is_some()
            || self
                .datagrams
                .as_ref()
                .is_some_and(|queue| !queue.is_empty())
            || self.send.any_lost()
            || self.send.wants_to_send()
            || self.is_mtu_probe_due(now);
        if !waiting {
            self.note_app_limited();
            self.arm_persist(now);
            return self.repeat_tail(now, buf) || self.send_train(now, buf);
        }
        let datagram = self.datagram();
        if self.sent.in_flight() + datagram > self.window() {
            self.app_limited = false;
            return false;
        }
        if let Some(at) = self.pacer.delay(now, datagram) {
            self.app_limited = false;
            self.pacing_at = Some(at);
            return false;
        }
        if let Some(at) = self
            .limiter
            .as_mut()
            .and_then(|limiter| limiter.delay(now, datagram))
        {
            // The user's limit says nothing about the path.
            self.note_app_limited();
            self.pacing_at = Some(at);
            return false;
        }
        self.pacing_at = None;
        if self.sent.is_full() {
            self.shed_records(now);
        }
        let sent = self.send_notice(now, buf)
            || self.send_mtu_probe(now, buf)
            || self.send_heartbeat(now, buf)
            || self.send_control(now, buf)
            || self.send_lost_control(now, buf)
            || self.send_in_turn(now, buf);
        if !sent {
            self.note_app_limited();
            self.arm_persist(now);
        }
        sent
    }

    /// Sends what left last a second time, on a path that loses packets: no other packet behind it
    /// shows that it was lost, and without that it is missed for a probe timeout (what RFC 8985
    /// section 7 shortens). It costs one packet a pause, while nothing else waits.
    fn repeat_tail(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let Some(content) = self.tail.filter(|_| self.is_lossy()) else {
            return false;
        };
        let datagram = self.datagram();
        if self.sent.in_flight() + datagram > self.window() {
            return false;
        }
        let limited = |limiter: &mut Box<TokenBucket>| limiter.delay(now, datagram);
        let later = self.pacer.delay(now, datagram);
        if let Some(at) = later.or_else(|| self.limiter.as_mut().and_then(limited)) {
            self.pacing_at = Some(at);
            return false;
        }
        let sent = match content {
            Content::Segment {
                slot,
                generation,
                seq,
            } => {
                let segment = SegmentRef {
                    slot,
                    generation,
                    seq,
                };
                let again = self.send.probe(segment);
                if let Some((flow, outgoing)) = &again {
                    self.write_segment(now, buf, segment, *flow, outgoing);
                }
                again.is_some()
            }
            Content::Notice(number) if self.notices.contains_key(&number) => {
                self.notice_queue.push_back(number);
                self.send_notice(now, buf)
            }
            _ => false,
        };
        self.tail = None;
        sent
    }

    /// Whether the path loses a packet of fifty in either direction, as far as that can be said: who
    /// sends little is not told much of its own losses.
    fn is_lossy(&self) -> bool {
        let lost = self
            .stats
            .packets_lost
            .saturating_sub(self.stats.packets_spurious);
        let missing = self.ack.missing(self.stats.packets_received);
        [(lost, self.stats.packets_sent), missing]
            .into_iter()
            .any(|(lost, of)| lost >= TAIL_LOSSES && lost * 50 >= of)
    }

    /// There is nothing that may be sent.
    fn note_app_limited(&mut self) {
        self.app_limited = true;
        let in_flight = self.sent.in_flight();
        if in_flight + self.datagram() <= self.window() {
            self.delivery.on_app_limited(in_flight);
        }
    }

    /// Notes a packet that asks for an acknowledgment; returns its number.
    fn track(&mut self, now: Instant, octets: usize, content: Content) -> u64 {
        let octets = u16::try_from(octets).unwrap_or(u16::MAX);
        let in_flight = self.sent.in_flight();
        let stamp = self.delivery.on_sent(now, u64::from(octets), in_flight);
        let number = self.sent.push(now, octets, content, stamp);
        self.outstanding_since.get_or_insert(now);
        self.tail = Some(content);
        if !std::mem::replace(&mut self.sent_since_arrival, true) {
            self.idle_from = now;
        }
        self.pacer.on_sent(u64::from(octets));
        if let Some(limiter) = &mut self.limiter {
            limiter.take(u64::from(octets));
        }
        if content == Content::Train {
            return number;
        }
        if let Some(train) = &mut self.train {
            train.on_other();
        }
        let in_flight = self.sent.in_flight();
        self.controller.on_sent(now, u64::from(octets), in_flight);
        if !matches!(content, Content::MtuProbe(_)) {
            let datagram = content == Content::Datagram;
            self.first_flight.on_sent(now, in_flight, datagram);
        }
        number
    }

    fn send_notice(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        while let Some(notice_number) = self.notice_queue.pop_front() {
            let Some(notice) = self.notices.get(&notice_number) else {
                continue;
            };
            let flow = notice.flow;
            let fin = Fin::new(notice.kind, notice.code, "");
            let number = self.track(
                now,
                self.framing_of(PacketType::Fin, flow != FlowId::CONTROL) + FIN_FIXED,
                Content::Notice(notice_number),
            );
            let header = self.header(PacketType::Fin, flow, number);
            return self.put(now, buf, (header, number), |out| fin.emit_into(out));
        }
        false
    }

    fn send_heartbeat(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let Some(flow) = self.heartbeat.take() else {
            return false;
        };
        self.write_heartbeat(now, buf, flow);
        true
    }

    fn is_mtu_probe_due(&mut self, now: Instant) -> bool {
        self.unproven.is_none() && self.mtu.due(now, self.delivery.delivered()).is_some()
    }

    /// Asks the path for a larger size, while there is something to gain from it.
    fn send_mtu_probe(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        if self.unproven.is_some() {
            return false;
        }
        let Some(size) = self.mtu.due(now, self.delivery.delivered()) else {
            return false;
        };
        self.mtu.on_probe_sent(size);
        let framing = self.framing_of(PacketType::Heartbeat, false);
        let padding = (usize::from(size) + HEADER_LEN).saturating_sub(framing);
        let number = self.track(now, framing + padding, Content::MtuProbe(size));
        let header = self.header(PacketType::Heartbeat, FlowId::CONTROL, number);
        let fill = |out: &mut Vec<u8>| out.resize(out.len() + padding, 0);
        self.put(now, buf, (header, number), fill)
    }

    /// Measures a path on which there is nothing else to send.
    fn send_train(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let leaving = self.train.as_ref().is_some_and(|train| train.is_leaving());
        if !leaving || !self.may_measure() {
            return false;
        }
        // It is no longer than what the pacer lets leave at once.
        let datagram = self.datagram();
        if let Some(at) = self.pacer.delay(now, datagram) {
            self.pacing_at = Some(at);
            return false;
        }
        if let Some(train) = &mut self.train {
            train.on_sent(now, self.rtt.min());
        }
        let framing = self.framing_of(PacketType::Heartbeat, false);
        let padding = (self.max_payload + self.framing()).saturating_sub(framing);
        let number = self.track(now, framing + padding, Content::Train);
        let header = self.header(PacketType::Heartbeat, FlowId::CONTROL, number);
        let fill = |out: &mut Vec<u8>| out.resize(out.len() + padding, 0);
        self.put(now, buf, (header, number), fill)
    }

    fn write_heartbeat(&mut self, now: Instant, buf: &mut Vec<u8>, flow: FlowId) {
        let framing = self.framing_of(PacketType::Heartbeat, flow != FlowId::CONTROL);
        let number = self.track(now, framing, Content::Heartbeat);
        let header = self.header(PacketType::Heartbeat, flow, number);
        let _ = self.put(now, buf, (header, number), |_| {});
    }

    /// Sends a datagram or a segment of a share; where both wait, three datagrams for each
    /// segment.
    fn send_in_turn(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let next = self
            .datagrams
            .as_mut()
            .is_some_and(|queue| queue.take_turn());
        if next && self.send_queued_datagram(now, buf) {
            return true;
        }
        self.send_lost(now, buf) || self.send_new(now, buf) || self.send_queued_datagram(now, buf)
    }

    /// Sends the oldest datagram that fits.
    fn send_queued_datagram(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let (queued, target) = (self.queued_framing(), self.datagram_target());
        let Some(queue) = &mut self.datagrams else {
            return false;
        };
        let mut next = None;
        while let Some(payload) = queue.pop(queued) {
            if payload.len() <= self.max_payload {
                next = Some(payload);
                break;
            }
            self.stats.datagrams_outgrown += 1;
        }
        if queue.has_room_again(target) {
            self.events
                .push_back(Event::DatagramRoom { peer: self.peer });
        }
        let Some(payload) = next else {
            return false;
        };
        self.stats.datagrams_sent += 1;
        let framing = self.framing_of(PacketType::Datagram, false);
        let number = self.track(now, framing + payload.len(), Content::Datagram);
        let header = self.header(PacketType::Datagram, FlowId::CONTROL, number);
        let fill = |out: &mut Vec<u8>| out.extend_from_slice(&payload);
        let _ = self.put(now, buf, (header, number), fill);
        if self
            .datagrams
            .as_ref()
            .is_some_and(|queue| queue.is_empty())
        {
            self.update_pacing(now);
        }
        true
    }

    fn send_lost_control(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        self.send.any_lost_control() && self.send_lost(now, buf)
    }

    fn send_lost(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let Some((segment, flow, outgoing)) = self.send.next_lost() else {
            return false;
        };
        self.write_segment(now, buf, segment, flow, &outgoing);
        true
    }

    /// Sends a segment again: same sequence number and content, new packet number.
    fn write_segment(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        segment: SegmentRef,
        flow: FlowId,
        outgoing: &Outgoing,
    ) {
        let number = self.write_data(now, buf, segment, flow, outgoing, Flags::RETRANSMIT);
        self.send.on_sent_again(now, segment, number);
        self.stats.segments_retransmitted += 1;
    }

    fn send_control(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let cut = self.send.next_control(self.max_payload);
        cut.is_some_and(|cut| self.write_new(now, buf, cut))
    }

    fn send_new(&mut self, now: Instant, buf: &mut Vec<u8>) -> bool {
        let cut = self.send.next_new(now, self.max_payload);
        cut.is_some_and(|cut| self.write_new(now, buf, cut))
    }

    /// Sends a segment for the first time.
    fn write_new(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        (segment, flow, outgoing): (SegmentRef, FlowId, Outgoing),
    ) -> bool {
        let number = self.write_data(now, buf, segment, flow, &outgoing, Flags::NONE);
        self.stats.data_octets_sent += outgoing.data.len() as u64;
        // a window has room: only now do probes begin anew, an ACK by itself proves nothing
        self.persist_count = 0;
        self.send.on_sent(now, segment, outgoing, number);
        true
    }

    fn write_data(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        segment: SegmentRef,
        flow: FlowId,
        outgoing: &Outgoing,
        flags: Flags,
    ) -> u64 {
        let content = Content::Segment {
            slot: segment.slot,
            generation: segment.generation,
            seq: segment.seq,
        };
        let framing = self.framing_of(PacketType::Data, flow != FlowId::CONTROL);
        let number = self.track(now, framing + outgoing.data.len(), content);
        let mut header = self.header(PacketType::Data, flow, number);
        header.seq = Seq(truncate_seq(outgoing.seq));
        header.flags |= flags;
        if outgoing.last {
            header.flags |= Flags::FINAL;
        }
        let fill = |out: &mut Vec<u8>| out.extend_from_slice(&outgoing.data);
        let _ = self.put(now, buf, (header, number), fill);
        number
    }
}
