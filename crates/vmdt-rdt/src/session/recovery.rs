//! Acknowledgments, losses and the congestion controller.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use vmdt_wire::Header;
use vmdt_wire::segment::{AckView, FLOW_WINDOW_UNIT, Fin, FinKind};

use super::{FlowNotice, LossEpoch, Session};
use crate::config::HEADER_OCTETS;
use crate::congestion::{Acked, Lost, Marked};
use crate::ecn::EcnSender;
use crate::event::{CODE_FALSE_ACK, CloseReason, Event};
use crate::packet_number::expand_seq;
use crate::path_mtu::PathMtu;
use crate::send_flows::{AckEffect, SegmentRef, SendFlows};
use crate::sent::{Content, LossReport, Settled};
use crate::stats::PathStats;

/// Probe timeouts that losses without an ACK between them must span (RFC 9002 section 7.6.1).
const PERSISTENT_CONGESTION_THRESHOLD: u32 = 3;

impl Session {
    /// Takes an ACK that stood in packet `number`.
    pub(super) fn on_ack(&mut self, now: Instant, header: &Header, payload: &[u8], number: u64) {
        let Ok(ack) = AckView::parse(payload) else {
            self.stats.malformed += 1;
            return;
        };
        let next = self.sent.next_number();
        let start = self.sent.start();
        for range in ack.ranges(next) {
            let (low, high) = (*range.start(), *range.end());
            let unsent = [high, low]
                .into_iter()
                .find(|end| !(start..next).contains(end));
            if let Some(number) = unsent.or_else(|| self.skips.named_by(&range)) {
                self.on_false_ack(now, number);
                return;
            }
        }
        let known = self.sent.largest_acked();
        let mut settled = std::mem::take(&mut self.settled);
        settled.clear();
        let mut largest = 0;
        for range in ack.ranges(next) {
            largest = largest.max(*range.end());
            self.sent
                .on_ack(*range.start(), *range.end(), |packet| settled.push(packet));
        }
        let newest = settled.iter().find(|packet| packet.number == largest);
        // A train waits in a queue that it made itself.
        if let Some(packet) = newest.filter(|packet| packet.content != Content::Train) {
            let sample = now.saturating_duration_since(packet.sent_at);
            let delay = Duration::from_micros(u64::from(ack.delay_us));
            self.rtt.update(sample, delay, self.config.max_ack_delay);
        }
        if !settled.is_empty() {
            self.pto_count = 0;
            self.probes = 0;
            self.outstanding_since = self.sent.any_eliciting().then_some(now);
        }
        if !settled.is_empty() {
            if let Some(protection) = &mut self.protection {
                protection.on_acked(largest);
            }
            if self.unproven.is_some_and(|u| largest >= u.from) {
                self.unproven = None;
            }
        }
        for packet in &settled {
            if packet.content != Content::Train {
                self.delivery.on_settled(now, packet);
            }
            self.on_settled(now, packet);
        }
        if known.is_none_or(|known| largest > known) {
            self.on_marks(now, &ack, &settled);
        }
        let train = settled
            .iter()
            .filter(|packet| packet.content == Content::Train && !packet.spurious)
            .map(|packet| u64::from(packet.octets));
        let (packets, octets) =
            train.fold((0, 0), |(count, sum), octets| (count + 1, sum + octets));
        if packets > 0
            && let Some(train) = &mut self.train
        {
            train.on_acked(now, packets, octets);
        }
        self.detect_lost(now);
        self.reward(now, &settled);
        self.settled = settled;
        self.send
            .on_session_window(u64::from(ack.session_window), number);
        self.on_named_flow(header, number);
        if !self.send.is_window_blocked() {
            self.persist_at = None;
        }
        self.update_pacing(now);
        self.trace_metrics(now);
    }

    /// The peer acknowledged what it can't have received.
    #[cold]
    fn on_false_ack(&mut self, now: Instant, number: u64) {
        let fin = Fin::new(FinKind::CloseSession, CODE_FALSE_ACK, "false ACK");
        self.drain(now, fin, CloseReason::FalseAck { number });
    }

    /// What an ACK says of ECN marks. `settled` are the packets it newly acknowledged; it moved
    /// the largest number.
    fn on_marks(&mut self, now: Instant, ack: &AckView<'_>, settled: &[Settled]) {
        let marked = settled
            .iter()
            .filter(|packet| self.ecn.is_marked(packet.number))
            .count();
        let packets = self.ecn.on_ack(marked as u64, ack.ecn);
        let Some(sent_at) = settled.iter().map(|packet| packet.sent_at).max() else {
            return;
        };
        if packets > 0 {
            self.stats.ce_reported += packets;
            self.first_flight.on_congested(sent_at);
            self.controller.on_marked(&Marked {
                now,
                sent_at,
                packets,
                in_flight: self.sent.in_flight(),
            });
        }
    }

    /// What an ACK's header says of the flow it names.
    fn on_named_flow(&mut self, header: &Header, number: u64) {
        let Some(slot) = self.send.slot(&header.flow) else {
            return;
        };
        let Some(seq) = expand_seq(header.ack.get(), self.send.next_seq(slot)) else {
            return;
        };
        let window = u64::from(header.window) * u64::from(FLOW_WINDOW_UNIT);
        match self.send.on_flow_ack(slot, seq, window, number) {
            Some(effect) => self.on_effect(effect),
            None => self.stats.acks_of_unsent += 1,
        }
    }

    fn on_effect(&mut self, effect: AckEffect) {
        if let Some(flow) = effect.delivered {
            let peer = self.peer;
            self.events.push_back(Event::FlowDelivered { peer, flow });
        }
        self.tell_writable(effect.writable);
    }

    /// One packet was acknowledged.
    fn on_settled(&mut self, now: Instant, packet: &Settled) {
        if packet.spurious {
            self.stats.packets_spurious += 1;
            self.controller
                .on_late_arrival(now, u64::from(packet.octets));
            if packet.number >= self.epoch.first_number && self.epoch.lost > 0 {
                self.epoch.lost -= 1;
                if self.epoch.lost == 0 {
                    self.epoch.start = None;
                    self.controller.on_spurious_loss(now);
                }
            }
        }
        match packet.content {
            Content::Segment {
                slot,
                generation,
                seq,
            } => {
                let effect = self.send.on_acked(SegmentRef {
                    slot,
                    generation,
                    seq,
                });
                self.on_effect(effect);
            }
            Content::Notice(number) => {
                if let Some(notice) = self.notices.remove(&number)
                    && notice.kind == FinKind::ResetFlow
                {
                    self.send.reopen(notice.flow);
                }
            }
            Content::Heartbeat | Content::Datagram | Content::Train => {}
            Content::MtuProbe(size) => {
                self.mtu.on_probe_acked(now, size);
                self.adopt_payload();
            }
        }
        let payload = usize::from(packet.octets).saturating_sub(HEADER_OCTETS);
        if self.mtu.is_large(payload) {
            self.mtu.on_large_acked(now);
        }
    }

    /// Tells the controller what was newly acknowledged.
    fn reward(&mut self, now: Instant, settled: &[Settled]) {
        let rate = self.delivery.sample(now);
        // It was no part of what the controller let leave.
        let counts = |packet: &&Settled| !packet.spurious && packet.content != Content::Train;
        let octets: u64 = settled
            .iter()
            .filter(counts)
            .map(|packet| u64::from(packet.octets))
            .sum();
        let Some(sent_at) = settled
            .iter()
            .filter(counts)
            .map(|packet| packet.sent_at)
            .max()
        else {
            return;
        };
        let in_flight = self.sent.in_flight();
        // Of the first flight no less than a window was under way.
        let app_limited = self.app_limited && !self.first_flight.is_lent();
        self.first_flight.on_acked(octets, in_flight);
        self.controller.on_ack(&Acked {
            now,
            sent_at,
            octets,
            in_flight,
            app_limited,
            latest_rtt: self.rtt.latest(),
            smoothed_rtt: self.rtt.smoothed(),
            min_rtt: self.rtt.min(),
            rate,
        });
    }

    pub(super) fn loss_delay(&self) -> Duration {
        self.sent.loss_delay(self.rtt.loss_delay())
    }

    /// Declares overdue packets lost.
    pub(super) fn detect_lost(&mut self, now: Instant) {
        let delay = self.loss_delay();
        let Self {
            sent,
            send,
            notices,
            notice_queue,
            mtu,
            ecn,
            stats,
            config,
            #[cfg(feature = "qlog")]
            log,
            ..
        } = self;
        let detection = config.loss_detection;
        let report = sent.detect_lost(now, delay, detection, |packet| {
            #[cfg(feature = "qlog")]
            if let Some(log) = log {
                log.lost(now, packet.number);
            }
            requeue(&packet, send, notices, notice_queue, (mtu, ecn, stats));
        });
        self.on_losses(now, &report);
    }

    /// Declares one packet lost on the receiver's word.
    pub(super) fn declare_lost(&mut self, now: Instant, number: u64) {
        let Self {
            sent,
            send,
            notices,
            notice_queue,
            mtu,
            ecn,
            stats,
            #[cfg(feature = "qlog")]
            log,
            ..
        } = self;
        let report = sent.declare_lost(number, |packet| {
            #[cfg(feature = "qlog")]
            if let Some(log) = log {
                log.lost(now, packet.number);
            }
            requeue(&packet, send, notices, notice_queue, (mtu, ecn, stats));
        });
        self.on_losses(now, &report);
    }

    /// Makes room in a record table full of packets nobody acknowledges.
    pub(super) fn shed_records(&mut self, now: Instant) {
        let Self {
            sent,
            send,
            notices,
            notice_queue,
            mtu,
            ecn,
            stats,
            #[cfg(feature = "qlog")]
            log,
            ..
        } = self;
        let report = sent.declare_oldest_lost(|packet| {
            #[cfg(feature = "qlog")]
            if let Some(log) = log {
                log.lost(now, packet.number);
            }
            requeue(&packet, send, notices, notice_queue, (mtu, ecn, stats));
        });
        self.on_losses(now, &report);
    }

    /// Has everything in flight sent again: it went to where nobody can have read it, which says
    /// nothing of the path.
    pub(super) fn requeue_all(&mut self) {
        let Self {
            sent,
            send,
            notices,
            notice_queue,
            mtu,
            ecn,
            stats,
            ..
        } = self;
        while sent.any_eliciting() {
            sent.declare_oldest_lost(|packet| {
                requeue(&packet, send, notices, notice_queue, (mtu, ecn, stats));
            });
        }
    }

    fn on_losses(&mut self, now: Instant, report: &LossReport) {
        // Whatever was lost: nobody is waited for.
        if !self.sent.any_eliciting() {
            self.outstanding_since = None;
        }
        let Some(sent_at) = report.newest_sent_at else {
            return;
        };
        self.stats.packets_lost += report.packets;
        self.delivery.on_lost(report.octets);
        if self.epoch.start.is_none_or(|start| sent_at > start) {
            self.epoch = LossEpoch {
                start: Some(now),
                first_number: report.first_number.unwrap_or(0),
                lost: 0,
            };
        }
        self.epoch.lost += report.packets;
        let patience = self.rtt.pto_base(self.config.max_ack_delay) * 3;
        if self.mtu.check_black_hole(now, patience) {
            self.stats.black_holes += 1;
            self.adopt_payload();
            let until = now + self.config.dead_after.max(patience);
            self.oversized_until.get_or_insert(until);
        }
        self.first_flight.on_congested(sent_at);
        self.controller.on_loss(&Lost {
            now,
            sent_at,
            octets: report.octets,
            in_flight: self.sent.in_flight(),
        });
        let period = self.rtt.pto_base(self.config.max_ack_delay) * PERSISTENT_CONGESTION_THRESHOLD;
        if self.rtt.has_sample() && report.longest_run >= period {
            self.stats.persistent_congestion += 1;
            self.first_flight.end();
            self.controller.on_persistent_congestion(now);
        }
        self.update_pacing(now);
        self.trace_metrics(now);
    }
}

/// Puts what a lost packet carried into the queue it is sent again from.
fn requeue(
    packet: &Settled,
    send: &mut SendFlows,
    notices: &BTreeMap<u64, FlowNotice>,
    notice_queue: &mut VecDeque<u64>,
    (mtu, ecn, stats): (&mut PathMtu, &mut EcnSender, &mut PathStats),
) {
    ecn.on_lost(packet.number);
    let payload = usize::from(packet.octets).saturating_sub(HEADER_OCTETS);
    if mtu.is_large(payload) && !matches!(packet.content, Content::MtuProbe(_)) {
        mtu.on_large_lost();
    }
    match packet.content {
        Content::Segment {
            slot,
            generation,
            seq,
        } => send.on_lost(
            SegmentRef {
                slot,
                generation,
                seq,
            },
            packet.number,
        ),
        Content::Notice(number) => {
            if notices.contains_key(&number) && !notice_queue.contains(&number) {
                notice_queue.push_back(number);
            }
        }
        Content::Datagram => stats.datagrams_lost += 1,
        Content::Heartbeat => {}
        // no sign of congestion, and yet a loss
        Content::Train => stats.packets_lost += 1,
        Content::MtuProbe(size) => mtu.on_probe_lost(size),
    }
}
