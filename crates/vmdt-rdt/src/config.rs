//! Limits and tunables of an endpoint.

use std::sync::Arc;
use std::time::Duration;

use vmdt_seal::packet::TAG_LEN;
use vmdt_seal::session::{Local, Suites};
use vmdt_wire::segment::Syn;
use vmdt_wire::{MAX_PAYLOAD, MAX_SEALED_PAYLOAD};

use crate::congestion::{BbrConfig, ControllerFactory};
use crate::error::ConfigError;
use crate::first_flight::FirstFlight;
use crate::path_mtu;

/// Octets of both headers in front of a segment's payload.
pub(crate) const HEADER_OCTETS: usize = 80;

/// The largest payload of the open profile, and of a sealed datagram.
const OPEN_PAYLOAD: u16 = MAX_PAYLOAD as u16;
const SEALED_PAYLOAD: u16 = MAX_SEALED_PAYLOAD as u16;

/// How damage to a datagram on the way is noticed. Both ends must use the same: a datagram
/// without the protection configured here is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Integrity {
    /// Not at all: something below protects the datagrams. A datagram that is flagged to carry
    /// the Internet checksum must match it.
    Off,
    /// The header's Internet checksum (RFC 1071). About one in a hundred datagrams with two
    /// flipped bits passes it: two opposite flips in the same column of 16 cancel out.
    Internet,
    /// A CRC-32 (IEEE 802.3) of the datagram, big-endian, in the four octets after the payload,
    /// where a parser of profile 1.0 ignores them. Finds up to three flipped bits, and any other
    /// damage but once in 2^32.
    Crc32,
}

impl Integrity {
    /// Octets after the payload.
    pub(crate) fn trailer_octets(self) -> usize {
        match self {
            Self::Off | Self::Internet => 0,
            Self::Crc32 => 4,
        }
    }
}

/// What makes a packet count as lost, once a later one was acknowledged (RFC 9002 section 6.1).
/// The probe timeout, for when nothing is acknowledged any more, is always there, and so is the
/// detection by NAK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossDetection {
    /// Either of the two.
    #[default]
    Both,
    /// Three later packets were acknowledged, more on a path that reorders: what three duplicate
    /// ACKs are to TCP.
    Packets,
    /// A later packet was acknowledged, and 9/8 of a round trip has passed since it was sent,
    /// more on a path that reorders.
    Timeout,
}

impl LossDetection {
    pub(crate) fn by_packets(self) -> bool {
        self != Self::Timeout
    }

    pub(crate) fn by_time(self) -> bool {
        self != Self::Packets
    }
}

/// Limits and tunables of an [`Endpoint`](crate::Endpoint).
///
/// Every setter checks its bounds and leaves the configuration unchanged when it refuses.
///
/// ```
/// use std::time::Duration;
/// let mut config = vmdt_rdt::Config::default();
/// config.set_idle_timeout(Duration::from_secs(60))?;
/// assert!(config.set_max_payload(4_000).is_err());
/// # Ok::<(), vmdt_rdt::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) max_payload: u16,
    /// Base and ceiling of path MTU discovery.
    pub(crate) mtu_discovery: Option<(u16, u16)>,
    pub(crate) compact_headers: bool,
    pub(crate) integrity: Integrity,
    /// Who this node is, in profile 1.1.
    pub(crate) sealing: Option<(Local, Suites)>,
    pub(crate) flow_window: u32,
    pub(crate) session_window: u32,
    pub(crate) send_buffer: usize,
    pub(crate) control_buffer: usize,
    pub(crate) datagram_buffer: usize,
    pub(crate) datagram_backlog: usize,
    pub(crate) max_sessions: usize,
    pub(crate) max_half_open: usize,
    pub(crate) max_recv_flows: usize,
    pub(crate) max_send_flows: usize,
    pub(crate) max_active_flows: usize,
    pub(crate) max_tombstones: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) connect_retry: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) keep_alive_always: bool,
    pub(crate) dead_after: Duration,
    pub(crate) max_ack_delay: Duration,
    pub(crate) initial_rtt: Duration,
    pub(crate) max_pto: Duration,
    pub(crate) ecn: bool,
    pub(crate) first_flight: u64,
    pub(crate) loss_detection: LossDetection,
    pub(crate) congestion: Arc<dyn ControllerFactory>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_payload: 1392,
            mtu_discovery: None,
            compact_headers: true,
            integrity: Integrity::Crc32,
            sealing: None,
            flow_window: 1 << 20,
            session_window: 8 << 20,
            send_buffer: 4 << 20,
            control_buffer: 1 << 20,
            datagram_buffer: 64 << 10,
            datagram_backlog: 1 << 20,
            max_sessions: 4096,
            max_half_open: 256,
            max_recv_flows: 1024,
            max_send_flows: 4096,
            max_active_flows: 512,
            max_tombstones: 4096,
            connect_timeout: Duration::from_secs(3),
            connect_retry: Duration::from_millis(200),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            keep_alive_always: false,
            dead_after: Duration::from_secs(5),
            max_ack_delay: Duration::from_millis(5),
            initial_rtt: Duration::from_millis(200),
            max_pto: Duration::from_secs(1),
            ecn: true,
            first_flight: 64 << 10,
            loss_detection: LossDetection::default(),
            congestion: Arc::new(BbrConfig),
        }
    }
}

/// Checks `value` against `min..=max` and stores it.
fn set<T: Copy + PartialOrd + TryInto<u64>>(
    field: &'static str,
    slot: &mut T,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        let wide = |v: T| v.try_into().unwrap_or(u64::MAX);
        return Err(ConfigError::OutOfRange {
            field,
            value: wide(value),
            min: wide(min),
            max: wide(max),
        });
    }
    *slot = value;
    Ok(())
}

/// Checks a duration against bounds in milliseconds and stores it.
fn set_duration(
    field: &'static str,
    slot: &mut Duration,
    value: Duration,
    min_ms: u64,
    max_ms: u64,
) -> Result<(), ConfigError> {
    let min = Duration::from_millis(min_ms);
    let max = Duration::from_millis(max_ms);
    if value < min || value > max {
        return Err(ConfigError::DurationOutOfRange {
            field,
            value,
            min,
            max,
        });
    }
    *slot = value;
    Ok(())
}

impl Config {
    /// Octets of payload in the largest segment sent. Default 1392, so that a datagram is 1472
    /// octets and fits a 1500-octet link under IPv4 and UDP headers; a CRC takes its four octets
    /// out of them, a sealed datagram's tag its sixteen. The smaller of both ends' values is used.
    ///
    /// # Errors
    /// Outside 256..=1472.
    pub fn set_max_payload(&mut self, octets: u16) -> Result<&mut Self, ConfigError> {
        set("max_payload", &mut self.max_payload, octets, 256, 1472)?;
        Ok(self)
    }

    /// Discovers the largest payload a path carries (RFC 8899) instead of taking
    /// [`max_payload`](Self::set_max_payload) for granted: a session begins with `base` and
    /// looks for up to `ceiling` octets by padded HEARTBEATs; when larger datagrams stop arriving
    /// it falls back to `base`. Default off: it is right only where the driver forbids
    /// fragmentation.
    ///
    /// A segment keeps its content once cut. After such a fall, what was cut larger (at most what
    /// the peer's windows held) passes only if the network fragments it; when it doesn't within
    /// [`dead_after`](Self::set_dead_after), the session ends as unresponsive.
    ///
    /// # Errors
    /// Unless 256 <= `base` <= 1472 and `base` <= `ceiling` <= 16,296
    /// ([`MAX_SEALED_PAYLOAD`]; with a ceiling above 1472 a session of the open profile looks for
    /// 1392).
    pub fn set_mtu_discovery(&mut self, base: u16, ceiling: u16) -> Result<&mut Self, ConfigError> {
        let (mut checked_base, mut checked_ceiling) = (base, ceiling);
        set("base", &mut checked_base, base, 256, OPEN_PAYLOAD)?;
        set(
            "ceiling",
            &mut checked_ceiling,
            ceiling,
            base,
            SEALED_PAYLOAD,
        )?;
        self.mtu_discovery = Some((base, ceiling));
        Ok(self)
    }

    /// The largest payload taken from a peer, as told in SYN.
    pub(crate) fn accepted_payload(&self) -> u16 {
        self.mtu_bounds().1
    }

    /// The payloads that a session begins with and looks for: equal where nothing is looked for.
    pub(crate) fn mtu_bounds(&self) -> (u16, u16) {
        let (base, ceiling) = self
            .mtu_discovery
            .unwrap_or((self.max_payload, self.max_payload));
        if self.sealing.is_none() && ceiling > OPEN_PAYLOAD {
            return (base, base.max(path_mtu::ETHERNET));
        }
        (base, ceiling)
    }

    /// Octets of the datagrams that windows and bursts are counted in at the start of a session:
    /// the largest that it is likely to send before it has found out more.
    pub(crate) fn nominal_datagram(&self) -> u64 {
        let payload = match self.mtu_bounds() {
            (base, ceiling) if ceiling > OPEN_PAYLOAD => base.max(path_mtu::ETHERNET),
            (_, ceiling) => ceiling,
        };
        u64::from(payload) + HEADER_OCTETS as u64
    }

    /// Whether sealed datagrams may come, and leave where the peer reads it, with compact headers
    /// ([`vmdt_wire::compact`]): 30 octets in front of a segment instead of 80. Default true.
    pub fn set_compact_headers(&mut self, on: bool) -> &mut Self {
        self.compact_headers = on;
        self
    }

    /// What goes into a SYN's features.
    pub(crate) fn features(&self) -> u8 {
        if self.sealing.is_some() && self.compact_headers {
            Syn::COMPACT
        } else {
            0
        }
    }

    /// How damage to a datagram is noticed. Default [`Integrity::Crc32`].
    pub fn set_integrity(&mut self, integrity: Integrity) -> &mut Self {
        self.integrity = integrity;
        self
    }

    /// Octets one incoming flow may hold unread or out of order. Default 1 MiB.
    ///
    /// # Errors
    /// Outside 8 KiB..=63 MiB (the header's window field counts units of 1,024 octets).
    pub fn set_flow_window(&mut self, octets: u32) -> Result<&mut Self, ConfigError> {
        set(
            "flow_window",
            &mut self.flow_window,
            octets,
            8 << 10,
            63 << 20,
        )?;
        Ok(self)
    }

    /// Octets all incoming flows of one session may hold together; the control flow is bounded
    /// by its flow window alone and does not count here. Default 8 MiB.
    ///
    /// # Errors
    /// Outside 8 KiB..=1 GiB.
    pub fn set_session_window(&mut self, octets: u32) -> Result<&mut Self, ConfigError> {
        set(
            "session_window",
            &mut self.session_window,
            octets,
            8 << 10,
            1 << 30,
        )?;
        Ok(self)
    }

    /// Octets queued (not yet acknowledged) per session before
    /// [`write`](crate::Endpoint::write) answers `Blocked`. Default 4 MiB. A single larger write
    /// is taken when nothing is queued, so memory is bounded by the larger of the two.
    ///
    /// # Errors
    /// Outside 8 KiB..=1 GiB.
    pub fn set_send_buffer(&mut self, octets: usize) -> Result<&mut Self, ConfigError> {
        set(
            "send_buffer",
            &mut self.send_buffer,
            octets,
            8 << 10,
            1 << 30,
        )?;
        Ok(self)
    }

    /// The control flow's own allowance of queued octets per session. Default 1 MiB.
    ///
    /// # Errors
    /// Outside 8 KiB..=64 MiB.
    pub fn set_control_buffer(&mut self, octets: usize) -> Result<&mut Self, ConfigError> {
        set(
            "control_buffer",
            &mut self.control_buffer,
            octets,
            8 << 10,
            64 << 20,
        )?;
        Ok(self)
    }

    /// Octets of datagrams (headers and tags included) that may wait to leave, per session, before
    /// [`send_datagram`](crate::Endpoint::send_datagram) answers `Full`. Default 64 KiB.
    ///
    /// # Errors
    /// Outside 8 KiB..=16 MiB.
    pub fn set_datagram_buffer(&mut self, octets: usize) -> Result<&mut Self, ConfigError> {
        set(
            "datagram_buffer",
            &mut self.datagram_buffer,
            octets,
            8 << 10,
            16 << 20,
        )?;
        Ok(self)
    }

    /// Octets of arrived datagrams (headers and tags included) that may wait as events, of all
    /// sessions together. Default 1 MiB. At the bound a datagram is dropped and not acknowledged,
    /// so that its sender sees a loss and slows down.
    ///
    /// # Errors
    /// Outside 8 KiB..=1 GiB.
    pub fn set_datagram_backlog(&mut self, octets: usize) -> Result<&mut Self, ConfigError> {
        set(
            "datagram_backlog",
            &mut self.datagram_backlog,
            octets,
            8 << 10,
            1 << 30,
        )?;
        Ok(self)
    }

    /// Sessions (established, connecting or draining). Default 4096. At the bound new offers are
    /// dropped and counted, and `connect` reports `ConnectFailed`.
    ///
    /// # Errors
    /// Outside 1..=1,000,000.
    pub fn set_max_sessions(&mut self, count: usize) -> Result<&mut Self, ConfigError> {
        set("max_sessions", &mut self.max_sessions, count, 1, 1_000_000)?;
        Ok(self)
    }

    /// Offers answered but not yet confirmed. Default 256. At the bound the oldest is forgotten.
    ///
    /// # Errors
    /// Outside 1..=65,536.
    pub fn set_max_half_open(&mut self, count: usize) -> Result<&mut Self, ConfigError> {
        set("max_half_open", &mut self.max_half_open, count, 1, 65_536)?;
        Ok(self)
    }

    /// Incoming flows held per session. Default 1024. At the bound the segments of a further
    /// flow are dropped unacknowledged, so that its sender tries again later.
    ///
    /// # Errors
    /// Outside 1..=65,536.
    pub fn set_max_recv_flows(&mut self, count: usize) -> Result<&mut Self, ConfigError> {
        set("max_recv_flows", &mut self.max_recv_flows, count, 1, 65_536)?;
        Ok(self)
    }

    /// Outgoing flows held per session. Default 4096. At the bound `write` and `finish` answer
    /// `TooManyFlows`.
    ///
    /// # Errors
    /// Outside 1..=65,536.
    pub fn set_max_send_flows(&mut self, count: usize) -> Result<&mut Self, ConfigError> {
        set("max_send_flows", &mut self.max_send_flows, count, 1, 65_536)?;
        Ok(self)
    }

    /// Outgoing flows of one session in transit at a time; the others wait in order. Default
    /// 512, half of what a peer with default bounds is ready to receive.
    ///
    /// # Errors
    /// Outside 1..=65,536.
    pub fn set_max_active_flows(&mut self, count: usize) -> Result<&mut Self, ConfigError> {
        set(
            "max_active_flows",
            &mut self.max_active_flows,
            count,
            1,
            65_536,
        )?;
        Ok(self)
    }

    /// Finished flows remembered per session and direction. Default 4096. At the bound the
    /// oldest is forgotten.
    ///
    /// # Errors
    /// Outside 16..=1,000,000.
    pub fn set_max_tombstones(&mut self, count: usize) -> Result<&mut Self, ConfigError> {
        set(
            "max_tombstones",
            &mut self.max_tombstones,
            count,
            16,
            1_000_000,
        )?;
        Ok(self)
    }

    /// How long an offer goes unanswered before `ConnectFailed`. Default 3 s.
    ///
    /// # Errors
    /// Outside 100 ms..=5 min.
    pub fn set_connect_timeout(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration(
            "connect_timeout",
            &mut self.connect_timeout,
            value,
            100,
            300_000,
        )?;
        Ok(self)
    }

    /// Wait before an offer is repeated; doubles with each repetition, up to 2 s. The first repetition
    /// comes after a quarter of it already. Default 200 ms.
    ///
    /// # Errors
    /// Outside 10 ms..=10 s.
    pub fn set_connect_retry(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration("connect_retry", &mut self.connect_retry, value, 10, 10_000)?;
        Ok(self)
    }

    /// Silence after which a session ends. Default 30 s; the smaller of both ends' values holds.
    ///
    /// # Errors
    /// Outside 100 ms..=1 day.
    pub fn set_idle_timeout(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration(
            "idle_timeout",
            &mut self.idle_timeout,
            value,
            100,
            86_400_000,
        )?;
        Ok(self)
    }

    /// Silence after which a HEARTBEAT keeps a session with live flows. Default 10 s; never
    /// more than a third of the session's idle timeout.
    ///
    /// # Errors
    /// Outside 20 ms..=1 day.
    pub fn set_keep_alive(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration("keep_alive", &mut self.keep_alive, value, 20, 86_400_000)?;
        Ok(self)
    }

    /// Whether sessions without any flow are kept alive too. Default false.
    pub fn set_keep_alive_always(&mut self, on: bool) -> &mut Self {
        self.keep_alive_always = on;
        self
    }

    /// Speaks profile 1.1 as this node: every session is opened by a handshake that proves both
    /// ends' keys, and every datagram of it is sealed. Nothing else is heard then. Default: the
    /// open profile, with [`Integrity`] for protection.
    pub fn set_sealing(&mut self, local: Local) -> &mut Self {
        self.sealing = Some((local, Suites::detect()));
        self
    }

    /// The ciphers to offer and accept in profile 1.1, instead of those that this processor is
    /// good at. Nothing happens before [`set_sealing`](Self::set_sealing).
    pub fn set_suites(&mut self, suites: Suites) -> &mut Self {
        if let Some((_, chosen)) = &mut self.sealing {
            *chosen = suites;
        }
        self
    }

    /// Octets after the payload.
    pub(crate) fn trailer_octets(&self) -> usize {
        match self.sealing {
            Some(_) => TAG_LEN,
            None => self.integrity.trailer_octets(),
        }
    }

    /// How long nothing is acknowledged, while something is outstanding, before the peer counts
    /// as dead; at least three probe timeouts. Default 5 s.
    ///
    /// # Errors
    /// Outside 100 ms..=1 h.
    pub fn set_dead_after(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration("dead_after", &mut self.dead_after, value, 100, 3_600_000)?;
        Ok(self)
    }

    /// Longest wait before a received packet is acknowledged. Default 5 ms. Both ends must use
    /// the same value for the probe timeout to be right; it is not negotiated.
    ///
    /// # Errors
    /// Outside 1 ms..=200 ms.
    pub fn set_max_ack_delay(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration("max_ack_delay", &mut self.max_ack_delay, value, 1, 200)?;
        Ok(self)
    }

    /// Round-trip time assumed before the first sample. Default 200 ms.
    ///
    /// # Errors
    /// Outside 1 ms..=10 s.
    pub fn set_initial_rtt(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration("initial_rtt", &mut self.initial_rtt, value, 1, 10_000)?;
        Ok(self)
    }

    /// Ceiling of a backed-off probe timeout. Default 1 s, so that a path that comes back is
    /// noticed within a second. RFC 9002 has no ceiling; a timeout computed from the measured
    /// round trip is never shortened by it.
    ///
    /// # Errors
    /// Outside 50 ms..=60 s.
    pub fn set_max_pto(&mut self, value: Duration) -> Result<&mut Self, ConfigError> {
        set_duration("max_pto", &mut self.max_pto, value, 50, 60_000)?;
        Ok(self)
    }

    /// Whether datagrams are marked ECT(0), so that the network may mark instead of dropping
    /// (RFC 3168). Default true; on a path or with a driver that does not carry the marks a
    /// session stops marking by itself.
    pub fn set_ecn(&mut self, on: bool) -> &mut Self {
        self.ecn = on;
        self
    }

    /// How losses are detected. Default [`LossDetection::Both`].
    pub fn set_loss_detection(&mut self, detection: LossDetection) -> &mut Self {
        self.loss_detection = detection;
        self
    }

    /// Octets that a session which has measured its round trip, but has not been used to the full
    /// yet, may have in flight while datagrams wait, whatever its controller's window, paced over
    /// that round trip; 0: none. Default 64 KiB: a burst of small messages need not wait for a
    /// window to grow. Once that much was delivered, or a part of it lost, the controller decides
    /// alone. A controller may decline it ([`ControllerFactory::takes_first_flight`]).
    ///
    /// # Errors
    /// Above 1 MiB.
    pub fn set_first_flight(&mut self, octets: u64) -> Result<&mut Self, ConfigError> {
        set("first_flight", &mut self.first_flight, octets, 0, 1 << 20)?;
        Ok(self)
    }

    /// The first flight of a new path, in datagrams of at most `datagram` octets.
    pub(crate) fn new_flight(&self, datagram: u64) -> FirstFlight {
        let taken = self.congestion.takes_first_flight();
        FirstFlight::new(if taken { self.first_flight } else { 0 }, datagram)
    }

    /// The congestion controller of new sessions. Default [`BbrConfig`]: the crate's README has
    /// the measurements it was chosen by.
    pub fn set_congestion(&mut self, factory: Arc<dyn ControllerFactory>) -> &mut Self {
        self.congestion = factory;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_bounds_and_rejects_one_beyond() {
        let mut config = Config::default();
        assert!(config.set_max_payload(256).is_ok());
        assert!(config.set_max_payload(1472).is_ok());
        assert_eq!(
            config.set_max_payload(1473).unwrap_err(),
            ConfigError::OutOfRange {
                field: "max_payload",
                value: 1473,
                min: 256,
                max: 1472
            }
        );
        assert_eq!(config.max_payload, 1472, "a refused value changes nothing");
        assert!(config.set_flow_window(63 << 20).is_ok());
        assert!(config.set_flow_window((63 << 20) + 1).is_err());
        assert!(config.set_max_ack_delay(Duration::ZERO).is_err());
        assert!(config.set_max_ack_delay(Duration::from_millis(1)).is_ok());
    }

    #[test]
    fn a_default_datagram_fits_an_ethernet_link() {
        let config = Config::default();
        assert_eq!(usize::from(config.max_payload) + HEADER_OCTETS + 28, 1500);
    }
}
