//! What arrives in a session.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use vmdt_wire::segment::{Fin, FinKind, Nak};
use vmdt_wire::{Flags, Header, Packet, PacketType, Seq};

use super::Session;
use super::protection::Closed;
use crate::ecn::EcnCodepoint;
use crate::event::{CloseReason, Event};
use crate::pacing::Pacer;
use crate::packet_number::expand_seq;
use crate::ranges::Noted;
use crate::recv_flows::Notice;
use crate::rtt::RttEstimator;
use crate::state::SessionState;

/// What the endpoint has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Another flow.
    pub(crate) flow: bool,
    /// Another datagram that waits as an event.
    pub(crate) datagram: bool,
}

/// Segments one NAK can make us look at.
const NAK_LIMIT: usize = 256;

impl Session {
    /// Opens a sealed datagram, of which the first octets are the header: all of it, or its compact
    /// form. `None`: it is not the peer's, or came before.
    pub(crate) fn unseal(
        &mut self,
        now: Instant,
        (header, lead): (Header, usize),
        datagram: BytesMut,
    ) -> Option<Packet> {
        let number = self.ack.expand(header.packet_number);
        let protection = self.protection.as_mut()?;
        let unheard = protection.unheard_since().is_some();
        let late = protection.has_repeated();
        match protection.open(now, number, (header, lead), datagram) {
            Ok(packet) => {
                if unheard {
                    // headers may be compact now
                    self.adopt_payload();
                }
                if late && packet.header.kind != PacketType::Ack {
                    self.on_late_start(now);
                }
                Some(packet)
            }
            Err(Closed::Replayed) => {
                self.stats.duplicates += 1;
                None
            }
            Err(Closed::Forged) => {
                self.stats.forged += 1;
                None
            }
        }
    }

    /// The peer's first word came after our confirmation was repeated: before one of these came
    /// through it could read nothing, so what is in flight is most likely lost, and nothing of it
    /// could be acknowledged. Probes leave now, and the wait for an ACK begins anew.
    fn on_late_start(&mut self, now: Instant) {
        if self.sent.any_eliciting() {
            self.pto_count = 0;
            self.outstanding_since = Some(now);
            self.probe();
        }
    }

    /// Takes a datagram other than SYN whose session id, source and destination fit.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        (from, ecn): (SocketAddr, Option<EcnCodepoint>),
        mut packet: Packet,
        octets: usize,
        room: Room,
    ) {
        let header = &packet.header;
        let number = self.ack.expand(header.packet_number);
        if !self.ack.is_plausible(number) {
            // of an earlier session, most likely
            self.stats.malformed += 1;
            return;
        }
        let eliciting = matches!(
            header.kind,
            PacketType::Data | PacketType::Fin | PacketType::Heartbeat | PacketType::Datagram
        );
        if !matches!(self.ack.peek(number), Noted::New { .. }) {
            self.stats.duplicates += 1;
            if eliciting {
                // Our ACK may be what was lost.
                self.ack.force();
            }
            return;
        }
        if self.state.get() == SessionState::Draining {
            self.handle_draining(now, &packet);
            return;
        }
        let newest = self.ack.largest().is_none_or(|largest| number > largest);
        let traced = self.is_traced().then(|| packet.clone());
        let Some(at_once) = self.dispatch(now, &mut packet, number, room) else {
            return;
        };
        if let Some(packet) = traced {
            self.trace_received(now, number, &packet, octets);
        }
        let congested = self.ecn_received.on_packet(ecn);
        self.stats.ce_received += u64::from(congested);
        // The sender should hear of a mark soon (RFC 9000 section 13.2.1).
        let at_once = at_once || congested;
        self.ack
            .on_packet(now, number, eliciting, at_once, self.config.max_ack_delay);
        self.stats.packets_received += 1;
        self.stats.octets_received += octets as u64;
        self.last_received = now;
        self.idle_from = now;
        if let Some(unproven) = &mut self.unproven
            && from == self.address
        {
            unproven.received += octets as u64;
        }
        self.sent_since_arrival = false;
        if newest && from != self.address {
            self.move_path(now, from, octets);
        }
    }

    /// Acts on a packet, and takes what a flow keeps of it. `None`: it must not be acknowledged;
    /// else whether to do so at once.
    fn dispatch(
        &mut self,
        now: Instant,
        packet: &mut Packet,
        number: u64,
        room: Room,
    ) -> Option<bool> {
        match packet.header.kind {
            PacketType::Data => self.on_data(now, packet, number, room.flow),
            PacketType::Ack => {
                self.on_ack(now, &packet.header, &packet.payload, number);
                Some(false)
            }
            PacketType::Nak => {
                self.on_nak(now, &packet.header, &packet.payload);
                Some(false)
            }
            PacketType::Fin => self.on_fin(now, packet, number),
            PacketType::Heartbeat => {
                self.last_flow = packet.header.flow;
                self.recv.request_announcement(packet.header.flow);
                Some(true)
            }
            PacketType::Datagram => self.on_datagram(packet, room.datagram),
            // The endpoint keeps SYN to itself.
            PacketType::Syn => None,
        }
    }

    fn on_data(
        &mut self,
        now: Instant,
        packet: &mut Packet,
        number: u64,
        may_open: bool,
    ) -> Option<bool> {
        if self.ack.is_too_late(number) {
            self.stats.too_late += 1;
            return None;
        }
        let header = &packet.header;
        let last = header.flags.contains(Flags::FINAL);
        // Stops we still have to tell are what is left of flows.
        let may_open = may_open && self.notices.len() < self.notice_limit();
        let flow = header.flow;
        let received = self.recv.on_data(
            flow,
            header.seq.get(),
            std::mem::take(&mut packet.payload),
            last,
            number,
            may_open,
        );
        if !received.accepted {
            self.stats.refused += 1;
            return None;
        }
        self.last_flow = flow;
        let peer = self.peer;
        match received.notice {
            Some(Notice::Readable) => self.events.push_back(Event::Readable { peer, flow }),
            Some(Notice::Finished) => self.events.push_back(Event::Finished { peer, flow }),
            None => {}
        }
        if received.stored {
            let at = now + self.hole_patience(0);
            self.recv.watch_hole(flow, at);
        }
        Some(last || !received.stored)
    }

    /// Hands a datagram up, if there is room for it.
    fn on_datagram(&mut self, packet: &mut Packet, room: bool) -> Option<bool> {
        let header = &packet.header;
        let plain = header.flow.is_control()
            && header.seq == Seq::ZERO
            && header.ack == Seq::ZERO
            && header.window == 0;
        if self.protection.is_none() || !plain || packet.payload.is_empty() {
            self.stats.malformed += 1;
            return None;
        }
        if !room {
            self.stats.datagrams_refused += 1;
            return None;
        }
        self.stats.datagrams_received += 1;
        self.events.push_back(Event::Datagram {
            peer: self.peer,
            payload: std::mem::take(&mut packet.payload),
        });
        Some(false)
    }

    /// How long a hole may stand before the next NAK about it: two round trips, since the
    /// sender's own detection takes about one, doubling with each NAK.
    pub(super) fn hole_patience(&self, naks: u32) -> Duration {
        let round = self.rtt.smoothed() + self.config.max_ack_delay;
        (round * 2 * (1 << naks.min(5))).max(Duration::from_millis(10))
    }

    fn on_nak(&mut self, now: Instant, header: &Header, payload: &[u8]) {
        self.stats.naks_received += 1;
        let Ok(nak) = Nak::parse(payload) else {
            self.stats.malformed += 1;
            return;
        };
        let Some(slot) = self.send.slot(&header.flow) else {
            return;
        };
        let next = self.send.next_seq(slot);
        let mut room = NAK_LIMIT;
        for hole in nak.holes() {
            let count = u64::from(hole.count.get());
            let Some(first) = expand_seq(hole.first.get(), next) else {
                continue;
            };
            if first >= next || room == 0 {
                continue;
            }
            let age = self.rtt.smoothed();
            let numbers = self.send.overdue(now, slot, first, count, age, room);
            room -= usize::try_from(count).unwrap_or(room).min(room);
            for number in numbers {
                self.declare_lost(now, number);
            }
        }
    }

    fn on_fin(&mut self, now: Instant, packet: &Packet, number: u64) -> Option<bool> {
        let Ok(fin) = Fin::parse(&packet.payload) else {
            self.stats.malformed += 1;
            return None;
        };
        let flow = packet.header.flow;
        let peer = self.peer;
        match fin.kind {
            FinKind::CloseSession => {
                let reason = CloseReason::PeerClosed {
                    code: fin.code,
                    reason: fin.reason().to_owned(),
                };
                let answer = Fin::new(FinKind::CloseSession, 0, "");
                self.drain(now, answer, reason);
            }
            FinKind::ResetFlow => {
                if self.recv.on_reset(flow, number) {
                    let code = fin.code;
                    self.events.push_back(Event::FlowReset { peer, flow, code });
                }
                self.announce_if_freed();
            }
            FinKind::StopFlow => {
                let (existed, writable) = if flow.is_control() {
                    (false, false)
                } else {
                    self.send.abandon(flow)
                };
                if existed {
                    let code = fin.code;
                    self.events
                        .push_back(Event::FlowStopped { peer, flow, code });
                    // So that the peer knows which packets are the last of this flow.
                    self.notify(flow, FinKind::ResetFlow, code);
                }
                self.tell_writable(writable);
            }
        }
        Some(true)
    }

    /// While draining only FIN matters: the answer to ours, or the peer's repeated one.
    fn handle_draining(&mut self, now: Instant, packet: &Packet) {
        if packet.header.kind != PacketType::Fin {
            return;
        }
        let closes = Fin::parse(&packet.payload).is_ok_and(|fin| fin.kind == FinKind::CloseSession);
        let Some(closing) = &mut self.closing else {
            return;
        };
        if !closes || now >= closing.until {
            return;
        }
        if closing.again_at.is_some() {
            // Ours is answered.
            self.ended = true;
        } else {
            closing.due = true;
        }
    }

    /// The peer is at another address.
    fn move_path(&mut self, now: Instant, to: SocketAddr, octets: usize) {
        if self.protection.is_some() {
            let back = match self.unproven {
                None => Some(self.address),
                Some(unproven) => unproven.back.map(|back| back.0),
            };
            self.unproven = None;
            if back != Some(to) {
                self.doubt(octets);
                let patience = self.rtt.pto_base(self.config.max_ack_delay) * 3;
                if let Some(unproven) = &mut self.unproven {
                    unproven.back = back.map(|back| (back, now + patience));
                }
            }
        }
        self.take_path(now, to);
    }

    /// Sends to another address. What was learnt of the old path is worth nothing on a path to
    /// another host (RFC 9000 section 9.4).
    pub(super) fn take_path(&mut self, now: Instant, to: SocketAddr) {
        let same_host = self.address.ip() == to.ip();
        self.address = to;
        self.stats.address_changes += 1;
        if !same_host {
            self.rtt = RttEstimator::new(self.config.initial_rtt);
            self.forget_path(now);
        }
    }

    /// What was measured of late was another way to the same address: the path is as a new one, but
    /// for its smallest round trip.
    pub(crate) fn restart_path(&mut self, now: Instant) {
        self.rtt.restart();
        self.forget_path(now);
    }

    fn forget_path(&mut self, now: Instant) {
        let datagram = self.config.nominal_datagram();
        self.controller = self.config.congestion.build(now, datagram);
        self.first_flight = self.config.new_flight(datagram);
        self.train = None;
        self.pacer = Pacer::new(datagram);
        if self.config.mtu_discovery.is_some() {
            // What the old path carried the new one may not; the peer's bound stays.
            self.search_mtu(now, self.mtu.ceiling());
        }
        self.update_pacing(now);
        self.pto_count = 0;
        self.ecn.restart(self.config.ecn);
    }
}
