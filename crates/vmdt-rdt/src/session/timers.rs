//! What time does to a session.

use std::time::{Duration, Instant};

use vmdt_wire::FlowId;

use super::Session;
use crate::event::{CloseReason, Event};
use crate::state::SessionState;

/// Probe timeouts without any acknowledgment that a peer is given at least.
const MIN_DEAD_PTOS: u32 = 3;
/// Packets sent at a probe timeout (RFC 9002 section 6.2.4).
const PROBES: u8 = 2;
/// Longest wait between two window probes.
const MAX_PERSIST: Duration = Duration::from_secs(5);

impl Session {
    /// Lets due timers act.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.state.get() {
            SessionState::Connecting => {
                if self.offer.is_some_and(|offer| offer.give_up_at <= now) {
                    self.ended = true;
                    self.events.push_back(Event::ConnectFailed {
                        peer: self.peer,
                        address: self.address,
                    });
                }
            }
            SessionState::Draining => self.drain_timeout(now),
            SessionState::Established => self.established_timeout(now),
        }
    }

    fn drain_timeout(&mut self, now: Instant) {
        let pto = self.rtt.pto_base(self.config.max_ack_delay);
        let Some(closing) = &mut self.closing else {
            return;
        };
        if closing.until <= now {
            self.ended = true;
        } else if let Some(at) = &mut closing.again_at
            && *at <= now
        {
            closing.due = true;
            *at = now + pto;
        }
    }

    fn established_timeout(&mut self, now: Instant) {
        if self.dead_at().is_some_and(|at| at <= now) {
            self.abort(CloseReason::Unresponsive);
            return;
        }
        if self.idle_at() <= now {
            self.abort(CloseReason::Idle);
            return;
        }
        if self.oversized_until.is_some_and(|at| at <= now) {
            self.oversized_until = None;
            if self.send.largest_in_transit() > self.max_payload {
                // Nothing that was cut for the former path can reach the peer any more.
                self.abort(CloseReason::Unresponsive);
                return;
            }
        }
        if let Some((back, at)) = self.unproven.and_then(|unproven| unproven.back)
            && at <= now
        {
            // Nothing has shown that the peer is where it seemed to move to.
            self.unproven = None;
            self.take_path(now, back);
        }
        if self.loss_at().is_some_and(|at| at <= now) {
            self.detect_lost(now);
        }
        let pto = self.loss_at().is_none() && self.pto_at().is_some_and(|at| at <= now);
        if pto {
            self.stats.probe_timeouts += 1;
            self.pto_count = self.pto_count.saturating_add(1);
            self.probes = PROBES;
            self.repeat_confirmation(now);
        }
        if self.pacing_at.is_some_and(|at| at <= now) {
            self.pacing_at = None;
        }
        if self.persist_at.is_some_and(|at| at <= now) {
            self.persist_at = None;
            self.persist_count = self.persist_count.saturating_add(1);
            if let Some(flow) = self.send.next_to_probe() {
                self.heartbeat = Some(flow);
            }
        }
        if self.train_at().is_some_and(|at| at <= now)
            && let Some(train) = &mut self.train
        {
            train.on_quiet();
        }
        if self.keep_alive_at().is_some_and(|at| at <= now) && self.heartbeat.is_none() {
            self.heartbeat = Some(FlowId::CONTROL);
        }
    }

    /// Probes now instead of when the timer says.
    pub(crate) fn probe(&mut self) {
        if self.state.get() != SessionState::Established {
            return;
        }
        if self.sent.any_eliciting() {
            self.probes = self.probes.max(PROBES);
        } else if self.heartbeat.is_none() {
            self.heartbeat = Some(FlowId::CONTROL);
        }
    }

    /// The earliest of all deadlines.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self.state.get() {
            SessionState::Connecting => self.offer.map(|offer| offer.next_at.min(offer.give_up_at)),
            SessionState::Draining => self.closing.as_ref().map(|closing| {
                closing
                    .again_at
                    .map_or(closing.until, |at| at.min(closing.until))
            }),
            SessionState::Established => self.established_deadline(),
        }
    }

    fn established_deadline(&self) -> Option<Instant> {
        let always = [
            Some(self.idle_at()),
            self.dead_at(),
            self.loss_at().or_else(|| self.pto_at()),
            self.oversized_until,
            self.unproven.and_then(|unproven| Some(unproven.back?.1)),
        ];
        let (mut ack, mut confirmation) = (
            self.ack.deadline(),
            self.protection
                .as_ref()
                .and_then(|protection| protection.confirmation_at()),
        );
        let mut content = [None; 6];
        let room = self.allowance();
        if room < self.full_allowance() {
            // What may not be sent has no deadline: it would pass without effect.
            let permitted = self.permits(room);
            ack = ack.filter(|_| permitted.0);
            confirmation = confirmation.filter(|_| permitted.1);
        } else {
            content = [
                self.pacing_at,
                self.send.limited_until(),
                self.persist_at,
                self.keep_alive_at(),
                self.recv.hole_deadline(),
                self.train_at(),
            ];
        }
        always
            .into_iter()
            .chain([ack, confirmation])
            .chain(content)
            .flatten()
            .min()
    }

    fn idle_at(&self) -> Instant {
        let floor = self.rtt.pto_base(self.config.max_ack_delay) * 3;
        self.idle_from + self.idle_timeout.max(floor)
    }

    fn dead_at(&self) -> Option<Instant> {
        let since = self.outstanding_since?;
        let floor = self.rtt.pto_base(self.config.max_ack_delay) * MIN_DEAD_PTOS;
        Some(since + self.config.dead_after.max(floor))
    }

    fn loss_at(&self) -> Option<Instant> {
        self.sent
            .loss_time(self.loss_delay(), self.config.loss_detection)
    }

    /// When to probe: a timeout after the newest packet that asks for an acknowledgment, doubled
    /// with each probe and held to the configured ceiling.
    fn pto_at(&self) -> Option<Instant> {
        if !self.sent.any_eliciting() || self.probes > 0 {
            return None;
        }
        let base = self.rtt.pto_base(self.config.max_ack_delay);
        let backed_off = base.saturating_mul(1 << self.pto_count.min(16));
        let timeout = backed_off.min(self.config.max_pto.max(base));
        Some(self.sent.last_eliciting_at()? + timeout)
    }

    /// Silence in both directions, while somebody wants the session to live.
    fn keep_alive_at(&self) -> Option<Instant> {
        let wanted =
            self.config.keep_alive_always || self.send.any_data_flow() || self.recv.any_data_flow();
        // A heartbeat that pacing or a limit holds back is not asked for again.
        if !wanted || self.sent.any_eliciting() || self.heartbeat.is_some() {
            return None;
        }
        let quiet_since = self
            .sent
            .last_eliciting_at()
            .map_or(self.last_received, |at| at.max(self.last_received));
        Some(quiet_since + self.config.keep_alive.min(self.idle_timeout / 3))
    }

    /// Starts the window probe timer when a window holds data back.
    pub(super) fn arm_persist(&mut self, now: Instant) {
        if self.persist_at.is_some() || !self.send.is_window_blocked() {
            return;
        }
        let base = self.rtt.pto_base(self.config.max_ack_delay);
        let wait = base.saturating_mul(1 << self.persist_count.min(10));
        self.persist_at = Some(now + wait.min(MAX_PERSIST.max(base)));
    }
}
