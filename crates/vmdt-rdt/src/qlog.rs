//! Traces in qlog's main schema 0.3, as JSON-SEQ (RFC 7464), one trace for each session: what
//! viewers of QUIC traces draw of a path (packets, ACKs, losses, window, round trips).
//!
//! A flow is shown as a stream, numbered in order of its first appearance in the trace; DATA as a
//! STREAM frame with its segment number (`segment`) in place of an offset, HEARTBEAT as PING, DATAGRAM as DATAGRAM (RFC 9221), FIN
//! as CONNECTION_CLOSE, RESET_STREAM or STOP_SENDING, NAK as a frame of its own.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmdt_wire::segment::{AckView, Fin, FinKind, Nak};
use vmdt_wire::{Flags, FlowId, HEADER_LEN, Header, NodeId, PacketType};

/// Records of an endpoint that wait to be polled; beyond it they are dropped and counted.
pub(crate) const MAX_RECORDS: usize = 65_536;
/// Flows of a session that are told apart at a time.
const MAX_STREAMS: usize = 65_536;

/// One record of a trace, from [`Endpoint::poll_qlog`](crate::Endpoint::poll_qlog).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QlogRecord {
    /// The session's peer.
    pub peer: NodeId,
    /// Our id of the session: a trace of its own for each.
    pub session: u32,
    /// To be appended to the trace as it is: a record separator (0x1e), JSON, a line feed.
    pub line: String,
}

/// The gauges of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) window: u64,
    pub(crate) in_flight: u64,
    pub(crate) latest_rtt: Duration,
    pub(crate) smoothed_rtt: Duration,
    pub(crate) min_rtt: Duration,
    pub(crate) rtt_var: Duration,
    pub(crate) pacing_rate: Option<u64>,
}

/// What an end lets the other send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    pub(crate) owner: &'static str,
    pub(crate) max_payload: u16,
    pub(crate) flow_window: u32,
    pub(crate) session_window: u32,
    pub(crate) idle_timeout: Duration,
}

/// The trace of one session, while it is recorded.
#[derive(Debug)]
pub(crate) struct Log {
    start: Instant,
    lines: VecDeque<String>,
    streams: BTreeMap<FlowId, u64>,
    metrics: Option<Metrics>,
    state: Option<&'static str>,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Log {
    pub(crate) fn new(now: Instant, [local, peer]: [NodeId; 2], id: u32, opened: bool) -> Self {
        let mut log = Self {
            start: now,
            lines: VecDeque::new(),
            streams: BTreeMap::new(),
            metrics: None,
            state: None,
        };
        log.push(&json!({
            "qlog_version": "0.3",
            "qlog_format": "JSON-SEQ",
            "title": format!("VMDT session of {local} with {peer}"),
            "trace": {
                "vantage_point": {
                    "name": local.to_string(),
                    "type": if opened { "client" } else { "server" },
                },
                "common_fields": {
                    "ODCID": format!("{id:08x}"),
                    "time_format": "relative",
                    "reference_time": 0.0,
                    "protocol_type": ["VMDT"],
                },
            },
        }));
        log
    }

    fn push(&mut self, record: &Value) {
        if self.lines.len() < MAX_RECORDS {
            self.lines.push_back(format!("\u{1e}{record}\n"));
        }
    }

    fn event(&mut self, now: Instant, name: &str, data: &Value) {
        let time = millis(now.saturating_duration_since(self.start));
        self.push(&json!({ "time": time, "name": name, "data": data }));
    }

    pub(crate) fn pop(&mut self) -> Option<String> {
        self.lines.pop_front()
    }

    fn stream(&mut self, flow: FlowId) -> u64 {
        if self.streams.len() >= MAX_STREAMS {
            self.streams.clear();
        }
        let next = self.streams.len() as u64;
        *self.streams.entry(flow).or_insert(next)
    }

    /// `near` is a packet number near those that an ACK names.
    fn frames(&mut self, header: &Header, payload: &[u8], near: u64) -> Value {
        let stream = header.flow;
        let frame = match header.kind {
            PacketType::Data => json!({
                "frame_type": "stream",
                "stream_id": self.stream(stream),
                "segment": header.seq.get(),
                "length": payload.len(),
                "fin": header.flags.contains(Flags::FINAL),
            }),
            PacketType::Ack => match AckView::parse(payload) {
                Ok(ack) => {
                    let ranges: Vec<[u64; 2]> = ack
                        .ranges(near)
                        .map(|range| [*range.start(), *range.end()])
                        .collect();
                    let mut frame = json!({
                        "frame_type": "ack",
                        "ack_delay": f64::from(ack.delay_us) / 1000.0,
                        "acked_ranges": ranges,
                    });
                    if let (Some(ecn), Some(fields)) = (ack.ecn, frame.as_object_mut()) {
                        fields.insert("ect0".to_owned(), ecn.ect0.into());
                        fields.insert("ect1".to_owned(), ecn.ect1.into());
                        fields.insert("ce".to_owned(), ecn.ce.into());
                    }
                    let window = u64::from(header.window) * 1024;
                    let told = json!({
                        "frame_type": "max_stream_data",
                        "stream_id": self.stream(stream),
                        "window": window,
                    });
                    return json!([frame, told, {
                        "frame_type": "max_data",
                        "window": ack.session_window,
                    }]);
                }
                Err(_) => json!({ "frame_type": "unknown" }),
            },
            PacketType::Nak => {
                let holes = Nak::parse(payload).map_or(0, |nak| nak.holes().len());
                json!({ "frame_type": "unknown", "name": "nak", "holes": holes })
            }
            PacketType::Heartbeat if payload.is_empty() => json!({ "frame_type": "ping" }),
            PacketType::Heartbeat => {
                return json!([
                    { "frame_type": "ping" },
                    { "frame_type": "padding", "payload_length": payload.len() },
                ]);
            }
            PacketType::Fin => match Fin::parse(payload) {
                Ok(fin) => match fin.kind {
                    FinKind::CloseSession => json!({
                        "frame_type": "connection_close",
                        "error_space": "application",
                        "raw_error_code": fin.code,
                        "reason": fin.reason(),
                    }),
                    FinKind::ResetFlow => json!({
                        "frame_type": "reset_stream",
                        "stream_id": self.stream(stream),
                        "error_code": fin.code,
                    }),
                    FinKind::StopFlow => json!({
                        "frame_type": "stop_sending",
                        "stream_id": self.stream(stream),
                        "error_code": fin.code,
                    }),
                },
                Err(_) => json!({ "frame_type": "unknown" }),
            },
            PacketType::Datagram => {
                json!({ "frame_type": "datagram", "length": payload.len() })
            }
            PacketType::Syn => json!({ "frame_type": "crypto", "length": payload.len() }),
        };
        json!([frame])
    }

    fn packet(
        &mut self,
        header: &Header,
        number: u64,
        payload: &[u8],
        near: u64,
        octets: usize,
    ) -> Value {
        let packet_type = if header.kind == PacketType::Syn {
            "initial"
        } else {
            "1RTT"
        };
        json!({
            "header": { "packet_type": packet_type, "packet_number": number },
            "raw": { "length": octets, "payload_length": payload.len() },
            "frames": self.frames(header, payload, near),
        })
    }

    /// A datagram leaves, `datagram` before anything encrypts it. `near`: the newest number
    /// received.
    pub(crate) fn sent(
        &mut self,
        now: Instant,
        number: u64,
        near: u64,
        (datagram, octets): (&[u8], usize),
    ) {
        let Ok(parsed) = Header::parse_sealed(datagram) else {
            return;
        };
        let end = HEADER_LEN + usize::from(parsed.payload_len);
        let payload = datagram.get(HEADER_LEN..end).unwrap_or_default();
        let data = self.packet(&parsed.header, number, payload, near, octets);
        self.event(now, "transport:packet_sent", &data);
    }

    /// A packet was accepted. `near`: the newest number sent.
    pub(crate) fn received(
        &mut self,
        now: Instant,
        number: u64,
        near: u64,
        header: &Header,
        payload: &[u8],
        octets: usize,
    ) {
        let data = self.packet(header, number, payload, near, octets);
        self.event(now, "transport:packet_received", &data);
    }

    pub(crate) fn lost(&mut self, now: Instant, number: u64) {
        let header = json!({ "packet_type": "1RTT", "packet_number": number });
        self.event(now, "recovery:packet_lost", &json!({ "header": header }));
    }

    pub(crate) fn parameters(&mut self, now: Instant, parameters: Parameters) {
        let data = json!({
            "owner": parameters.owner,
            "max_udp_payload_size": usize::from(parameters.max_payload) + HEADER_LEN,
            "initial_max_data": parameters.session_window,
            "initial_max_stream_data_uni": parameters.flow_window,
            "max_idle_timeout": millis(parameters.idle_timeout),
        });
        self.event(now, "transport:parameters_set", &data);
    }

    /// The gauges, written when they have changed.
    pub(crate) fn metrics(&mut self, now: Instant, metrics: Metrics, state: &'static str) {
        if self.metrics.replace(metrics) != Some(metrics) {
            let mut data = json!({
                "congestion_window": metrics.window,
                "bytes_in_flight": metrics.in_flight,
                "latest_rtt": millis(metrics.latest_rtt),
                "smoothed_rtt": millis(metrics.smoothed_rtt),
                "min_rtt": millis(metrics.min_rtt),
                "rtt_variance": millis(metrics.rtt_var),
            });
            if let (Some(rate), Some(fields)) = (metrics.pacing_rate, data.as_object_mut()) {
                // In bits per second.
                fields.insert("pacing_rate".to_owned(), rate.saturating_mul(8).into());
            }
            self.event(now, "recovery:metrics_updated", &data);
        }
        let old = self.state.replace(state);
        if old != Some(state) {
            let data = match old {
                Some(old) => json!({ "old": old, "new": state }),
                None => json!({ "new": state }),
            };
            self.event(now, "recovery:congestion_state_updated", &data);
        }
    }
}
