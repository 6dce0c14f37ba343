//! Settings of a node's core, with their bounds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmdt_pool::hedging::HedgeConfig;
use vmdt_rdt::RateLimit;
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::prekey::PrekeyStore;
use vmdt_wire::NodeId;

/// Octets of content in one segment (128 KiB).
pub const DEFAULT_SEGMENT: usize = 128 * 1024;
/// Octets of shares handed to the transport for one path at once (768 KiB).
const PATH_OCTETS: usize = 768 * 1024;
/// The largest segment a node accepts, envelope included (1 MiB).
pub const MAX_SEGMENT: usize = 1024 * 1024;

/// A setting outside of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must lie in {min}..={max}, not {found}")]
pub struct ConfigError {
    /// Which setting.
    pub setting: &'static str,
    /// What was given.
    pub found: u64,
    /// The smallest value allowed.
    pub min: u64,
    /// The largest value allowed.
    pub max: u64,
}

/// What a node of profile 1.1 is: its key, and what it says of itself.
#[derive(Debug, Clone)]
pub struct Sealing {
    pub(crate) identity: SecretIdentity,
    pub(crate) prekeys: Option<PrekeyStore>,
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) at: Instant,
    pub(crate) unix_ms: u64,
}

/// The longest name of a node, in octets.
pub const MAX_NODE_NAME: usize = 64;
/// The most addresses of a node.
pub const MAX_ADDRESSES: usize = 8;

impl Sealing {
    /// With this identity; `unix_ms` is what the clock on the wall says at `now`, in milliseconds
    /// since 1970. The core counts on from there.
    #[must_use]
    pub fn new(identity: SecretIdentity, now: Instant, unix_ms: u64) -> Sealing {
        Sealing {
            identity,
            prekeys: None,
            name: String::new(),
            addresses: Vec::new(),
            at: now,
            unix_ms,
        }
    }

    /// With the prekeys that an earlier run kept. Without them, what was sealed to those can't be
    /// opened any more.
    #[must_use]
    pub fn prekeys(mut self, prekeys: PrekeyStore) -> Sealing {
        self.prekeys = Some(prekeys);
        self
    }

    /// With a name for people, cut at [`MAX_NODE_NAME`] octets. Names are not unique.
    #[must_use]
    pub fn name(mut self, name: &str) -> Sealing {
        let mut cut = name.len().min(MAX_NODE_NAME);
        while !name.is_char_boundary(cut) {
            cut -= 1;
        }
        self.name = name.get(..cut).unwrap_or_default().to_owned();
        self
    }

    /// With addresses under which the node can be reached, beside the one the server sees; the
    /// first [`MAX_ADDRESSES`] count.
    #[must_use]
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Sealing {
        self.addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
        self
    }
}

/// Settings of a node. Every setter checks its bounds.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    pub(crate) id: NodeId,
    pub(crate) port: u16,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) segment: usize,
    /// Whether segments may be larger on fast paths.
    pub(crate) segment_grows: bool,
    pub(crate) window: usize,
    pub(crate) max_transfers: usize,
    pub(crate) max_incoming: usize,
    pub(crate) max_message: usize,
    pub(crate) max_file: u64,
    pub(crate) pool_octets: usize,
    pub(crate) stall_timeout: Duration,
    pub(crate) retry_after: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) allow_relay: bool,
    pub(crate) allow_open_peers: bool,
    pub(crate) hedging: HedgeConfig,
    pub(crate) delivery: f64,
    pub(crate) express: bool,
    pub(crate) allow_direct: bool,
    pub(crate) min_distinct_networks: u8,
    pub(crate) operators: BTreeMap<NodeId, Arc<str>>,
    pub(crate) expiry: Duration,
    pub(crate) health_checks: Option<Duration>,
    pub(crate) repair_after: Duration,
    pub(crate) rdt: vmdt_rdt::Config,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) sealing: Option<Sealing>,
}

/// The longest time for which anything is kept for a receiver that is away.
pub const MAX_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Members whose operator is known.
const MAX_OPERATORS: usize = 4096;

/// Kept between 0 and 1; what is no number is 0.
fn unit(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

fn within(setting: &'static str, found: u64, min: u64, max: u64) -> Result<u64, ConfigError> {
    if (min..=max).contains(&found) {
        Ok(found)
    } else {
        Err(ConfigError {
            setting,
            found,
            min,
            max,
        })
    }
}

/// The longest pause between probes of a path that has gone silent, unless its round trip is longer.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// How long an offer of a session is waited for before it is repeated, at first.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// The payload of datagrams until more is known to arrive: all of it is 1,280 octets under IPv6,
/// which every path carries (RFC 8200 section 5).
const BASE_PAYLOAD: u16 = 1152;

/// The transport's settings that suit a node: what waits for a path waits in the node's queue,
/// in the order of segments, rather than in many flows at once.
#[must_use]
pub fn default_transport() -> vmdt_rdt::Config {
    let mut config = vmdt_rdt::Config::default();
    // within its bounds, so never refused
    let _ = config.set_send_buffer(PATH_OCTETS);
    // the driver forbids fragmentation; what every path carries, and what loopback does
    let _ = config.set_mtu_discovery(BASE_PAYLOAD, vmdt_wire::MAX_SEALED_PAYLOAD as u16);
    // an offer is small, and a burst waits for it
    let _ = config.set_connect_retry(OFFER_AGAIN);
    // a path that comes back is found by a probe that is acknowledged
    let _ = config.set_max_pto(PROBE_PAUSE);
    config
}

impl CoreConfig {
    /// Goes on with the prekeys of an earlier run, in profile 1.1.
    pub fn set_prekeys(&mut self, prekeys: PrekeyStore) -> &mut Self {
        if let Some(sealing) = &mut self.sealing {
            sealing.prekeys = Some(prekeys);
        }
        self
    }

    /// Settings for a node of profile 1.0 with this id, that is reached on this port and knows these servers.
    #[must_use]
    pub fn new(id: NodeId, port: u16, servers: Vec<SocketAddr>) -> CoreConfig {
        CoreConfig {
            id,
            port,
            servers,
            segment: DEFAULT_SEGMENT,
            segment_grows: true,
            window: 32,
            max_transfers: 256,
            max_incoming: 256,
            max_message: 16 * 1024 * 1024,
            max_file: u64::MAX,
            pool_octets: 32 * 1024 * 1024,
            stall_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            allow_relay: true,
            allow_open_peers: false,
            hedging: HedgeConfig::default(),
            delivery: 0.995,
            express: true,
            allow_direct: true,
            min_distinct_networks: 0,
            operators: BTreeMap::new(),
            expiry: MAX_EXPIRY,
            health_checks: None,
            repair_after: Duration::from_secs(600),
            rdt: default_transport(),
            rate_limit: None,
            sealing: None,
        }
    }

    /// Settings for a node of profile 1.1, whose id is that of its key.
    #[must_use]
    pub fn sealed(sealing: Sealing, port: u16, servers: Vec<SocketAddr>) -> CoreConfig {
        let id = sealing.identity.node_id();
        CoreConfig {
            sealing: Some(sealing),
            ..CoreConfig::new(id, port, servers)
        }
    }

    /// Octets of content in one segment, 1 KiB to 256 KiB (what a relayed line of profile 1.0 can
    /// hold). Unless it is set, a segment has 128 KiB, and up to 512 KiB of a long transfer that is
    /// sealed, to one receiver, and not kept, when its paths carry as much within 40 ms. A sender
    /// keeps [`window`](Self::set_window) segments in memory, a receiver may keep
    /// [`MAX_WINDOW`].
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_segment(&mut self, octets: usize) -> Result<&mut Self, ConfigError> {
        self.segment = within("segment", octets as u64, 1024, 256 * 1024)? as usize;
        self.segment_grows = false;
        Ok(self)
    }

    /// Unacknowledged segments of one transfer, 1 to 64; 32 by default.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_window(&mut self, segments: usize) -> Result<&mut Self, ConfigError> {
        self.window = within("window", segments as u64, 1, MAX_WINDOW as u64)? as usize;
        Ok(self)
    }

    /// The largest message handed to the application in one piece, 1 octet to 1 GiB; 16 MiB by
    /// default. Larger content is sent as a file.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_max_message(&mut self, octets: usize) -> Result<&mut Self, ConfigError> {
        self.max_message = within("max_message", octets as u64, 1, 1 << 30)? as usize;
        Ok(self)
    }

    /// The largest file that is accepted, in octets; no limit by default.
    pub fn set_max_file(&mut self, octets: u64) -> &mut Self {
        self.max_file = octets;
        self
    }

    /// Octets of other members' shares this node holds at the most, 1 MiB to 64 GiB; 32 MiB by
    /// default.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_pool_octets(&mut self, octets: usize) -> Result<&mut Self, ConfigError> {
        self.pool_octets = within("pool_octets", octets as u64, 1 << 20, 64 << 30)? as usize;
        Ok(self)
    }

    /// How long a transfer may stand still before it fails, 1 s to 1 hour; 30 s by default. A
    /// receiver waits half as long again, so that a sender that knows the cause can tell it.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_stall_timeout(&mut self, time: Duration) -> Result<&mut Self, ConfigError> {
        within(
            "stall_timeout (ms)",
            time.as_millis() as u64,
            1_000,
            3_600_000,
        )?;
        self.stall_timeout = time;
        Ok(self)
    }

    /// How long the server may take to answer a request, connecting included, 1 s to 10 min; 10 s
    /// by default.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_request_timeout(&mut self, time: Duration) -> Result<&mut Self, ConfigError> {
        within(
            "request_timeout (ms)",
            time.as_millis() as u64,
            1_000,
            600_000,
        )?;
        self.request_timeout = time;
        Ok(self)
    }

    /// Whether shares and control lines may go through the server where no direct path works.
    /// Never k shares of a message. True by default.
    pub fn set_allow_relay(&mut self, allow: bool) -> &mut Self {
        self.allow_relay = allow;
        self
    }

    /// Whether to exchange messages with peers of profile 1.0, in clusters that allow them. Such
    /// a message goes to the peer with all of its shares over one unprotected connection: whoever
    /// is on that path can read it. False by default.
    pub fn set_allow_open_peers(&mut self, allow: bool) -> &mut Self {
        self.allow_open_peers = allow;
        self
    }

    /// How much more than what arrives may be asked for early, as a fraction of its octets: a share
    /// that is later than its path would have it is replaced by a frozen one at once, and whoever
    /// brings what is not needed any more is told. 0.0 turns that off. Kept between 0.0 and 1.0;
    /// 0.1 by default. What it cost stands in [`CoreStats::hedging`](super::CoreStats::hedging).
    pub fn set_hedging(&mut self, fraction: f64) -> &mut Self {
        self.hedging.fraction = unit(fraction);
        self
    }

    /// Whether small messages are sent as pieces that need no announcement, to members that take
    /// them, and taken from others; only in profile 1.1. True by default.
    pub fn set_express(&mut self, on: bool) -> &mut Self {
        self.express = on;
        self
    }

    /// With which probability a small message is to arrive without waiting for a retransmission:
    /// as many of its shares beyond k, up to n, go on to the receiver at once as the measured loss
    /// asks for. One that goes by express is taken for one of a burst, of which 32 are to arrive so
    /// together. 0.0 sends k. Kept between 0.0 and 1.0; 0.995 by default. Large content is not sent
    /// twice for it. What it cost stands in
    /// [`CoreStats::redundant_shares`](super::CoreStats::redundant_shares).
    pub fn set_delivery(&mut self, probability: f64) -> &mut Self {
        self.delivery = unit(probability);
        self
    }

    /// Whether the direct way to a receiver may carry shares. True by default. Control lines go
    /// there in any case.
    pub fn set_allow_direct(&mut self, allow: bool) -> &mut Self {
        self.allow_direct = allow;
        self
    }

    /// In how many distinct networks the carriers of a message are to be; it is refused when they
    /// are in fewer. Members at one address, in one /24 (IPv4) or /48 (IPv6), or of one
    /// [operator](Self::set_operator) count as one, which gets fewer than k shares. 0 by default:
    /// every member counts for itself.
    pub fn set_min_distinct_networks(&mut self, networks: u8) -> &mut Self {
        self.min_distinct_networks = networks;
        self
    }

    /// Who operates a member. It counts when distinct networks are demanded. The last 4,096 labels
    /// by id are kept.
    pub fn set_operator(&mut self, member: NodeId, operator: impl Into<Arc<str>>) -> &mut Self {
        self.operators.insert(member, operator.into());
        while self.operators.len() > MAX_OPERATORS {
            self.operators.pop_first();
        }
        self
    }

    /// The most that this node sends: in datagrams to each peer, and in shares, its own and those
    /// it carries for others, to all of them together. Control lines and what is sent again count
    /// per peer only, acknowledgments not at all. No limit by default.
    ///
    /// A transfer is given up when no segment of it arrives for the
    /// [stall timeout](Self::set_stall_timeout): make [segments](Self::set_segment) small for low
    /// rates.
    pub fn set_rate_limit(&mut self, limit: Option<RateLimit>) -> &mut Self {
        self.rate_limit = limit;
        self
    }

    /// How long a [durable](super::Core::is_durable) node keeps what is not delivered: shares for
    /// others, its own transfers, and what arrives. 1 min to 7 days; 7 days by default, which is also
    /// how long a sealed message is valid.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_expiry(&mut self, time: Duration) -> Result<&mut Self, ConfigError> {
        let max = MAX_EXPIRY.as_secs();
        within("expiry (s)", time.as_secs(), 60, max)?;
        self.expiry = time;
        Ok(self)
    }

    /// How often each member is asked whether it answers, in profile 1.1: 1 s to 1 day. An unanswered
    /// check is repeated after 1 s, doubling to 5 min; after 3 the member counts as down. `None` turns
    /// that off, as it is by default here.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_health_checks(&mut self, every: Option<Duration>) -> Result<&mut Self, ConfigError> {
        if let Some(every) = every {
            within("health_checks (s)", every.as_secs(), 1, 86_400)?;
        }
        self.health_checks = every;
        Ok(self)
    }

    /// How long a holder that has shares of ours on disk may be away before they are placed
    /// elsewhere, while the receiver is away too; 1 s to 7 days, 10 min by default. While the
    /// receiver waits for them there is no such grace.
    ///
    /// # Errors
    /// [`ConfigError`] when out of bounds.
    pub fn set_repair_after(&mut self, time: Duration) -> Result<&mut Self, ConfigError> {
        let max = MAX_EXPIRY.as_secs();
        within("repair_after (s)", time.as_secs(), 1, max)?;
        self.repair_after = time;
        Ok(self)
    }

    /// Settings of the transport; [`default_transport`] is what to begin with.
    pub fn set_transport(&mut self, config: vmdt_rdt::Config) -> &mut Self {
        self.rdt = config;
        self
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }
}

/// The most segments of a transfer a receiver keeps while an earlier one is missing.
pub const MAX_WINDOW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setters_refuse_what_is_out_of_bounds() {
        let mut c = CoreConfig::new("a".parse().unwrap(), 1, vec![]);
        assert!(c.set_segment(1024).is_ok());
        assert_eq!(
            c.set_segment(1023).unwrap_err().to_string(),
            "segment must lie in 1024..=262144, not 1023"
        );
        assert!(c.set_window(64).is_ok());
        assert!(c.set_window(0).is_err());
        assert!(c.set_window(65).is_err());
        assert!(c.set_stall_timeout(Duration::from_millis(999)).is_err());
        assert!(c.set_max_message(0).is_err());
        assert!(c.set_pool_octets(0).is_err());
    }

    #[test]
    fn fractions_are_kept_between_nothing_and_all() {
        let mut c = CoreConfig::new("a".parse().unwrap(), 1, vec![]);
        for (given, kept) in [(-1.0, 0.0), (0.25, 0.25), (7.0, 1.0), (f64::NAN, 0.0)] {
            c.set_hedging(given).set_delivery(given);
            assert!((c.hedging.fraction - kept).abs() < 1e-12, "{given}");
            assert!((c.delivery - kept).abs() < 1e-12, "{given}");
        }
    }
}
