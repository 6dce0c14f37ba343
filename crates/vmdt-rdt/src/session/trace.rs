//! What a session tells its qlog trace, with the feature `qlog`; nothing without it.

use std::time::Instant;

use vmdt_wire::Packet;
use vmdt_wire::segment::Syn;

use super::Session;

#[cfg(feature = "qlog")]
impl Session {
    /// Begins the trace.
    pub(crate) fn record(&mut self, now: Instant) {
        let opened = self.offer.is_some();
        let ids = [self.local, self.peer];
        let mut log = crate::qlog::Log::new(now, ids, self.local_id.get(), opened);
        log.parameters(
            now,
            crate::qlog::Parameters {
                owner: "local",
                max_payload: self.config.accepted_payload(),
                flow_window: self.config.flow_window,
                session_window: self.config.session_window,
                idle_timeout: self.config.idle_timeout,
            },
        );
        self.log = Some(Box::new(log));
    }

    /// The next line of the trace.
    pub(crate) fn pop_line(&mut self) -> Option<String> {
        self.log.as_mut()?.pop()
    }

    pub(crate) fn trace_parameters(&mut self, now: Instant, syn: &Syn) {
        if let Some(log) = &mut self.log {
            let idle = u64::from(syn.idle_timeout_ms);
            log.parameters(
                now,
                crate::qlog::Parameters {
                    owner: "remote",
                    max_payload: syn.max_payload,
                    flow_window: syn.flow_window,
                    session_window: syn.session_window,
                    idle_timeout: std::time::Duration::from_millis(idle),
                },
            );
        }
    }

    /// A datagram is about to leave, as one of so many octets; it is not encrypted yet.
    pub(super) fn trace_sent(&mut self, now: Instant, number: u64, datagram: &[u8], octets: usize) {
        let near = self.ack.largest().unwrap_or(0);
        if let Some(log) = &mut self.log {
            log.sent(now, number, near, (datagram, octets));
        }
    }

    pub(super) fn is_traced(&self) -> bool {
        self.log.is_some()
    }

    pub(super) fn trace_received(
        &mut self,
        now: Instant,
        number: u64,
        packet: &Packet,
        octets: usize,
    ) {
        let near = self.sent.next_number();
        if let Some(log) = &mut self.log {
            log.received(now, number, near, &packet.header, &packet.payload, octets);
        }
    }

    pub(super) fn trace_metrics(&mut self, now: Instant) {
        let Some(log) = &mut self.log else {
            return;
        };
        let state = if self.app_limited {
            "application_limited"
        } else if self.controller.in_slow_start() {
            "slow_start"
        } else {
            "congestion_avoidance"
        };
        let metrics = crate::qlog::Metrics {
            window: self.controller.window(),
            in_flight: self.sent.in_flight(),
            latest_rtt: self.rtt.latest(),
            smoothed_rtt: self.rtt.smoothed(),
            min_rtt: self.rtt.min(),
            rtt_var: self.rtt.var(),
            pacing_rate: self.controller.pacing_rate(),
        };
        log.metrics(now, metrics, state);
    }
}

#[cfg(not(feature = "qlog"))]
#[allow(clippy::unused_self)]
impl Session {
    pub(crate) fn trace_parameters(&mut self, _now: Instant, _syn: &Syn) {}

    pub(super) fn trace_sent(
        &mut self,
        _now: Instant,
        _number: u64,
        _datagram: &[u8],
        _octets: usize,
    ) {
    }

    pub(super) fn is_traced(&self) -> bool {
        false
    }

    pub(super) fn trace_received(
        &mut self,
        _now: Instant,
        _number: u64,
        _packet: &Packet,
        _octets: usize,
    ) {
    }

    pub(super) fn trace_metrics(&mut self, _now: Instant) {}
}
