//! Settings of the two machines: every bound with its default, unit and cost.

use std::net::SocketAddr;
use std::time::Duration;

use vmdt_wire::{Caps, NodeId};

/// The longest time that can be set: long enough for never, and short enough to be
/// added to any clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// Bounds and times of a [`Registry`](crate::Registry).
///
/// A setter never fails: a value outside what it documents is moved to the
/// nearest allowed one. No time is longer than 100 years.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    pub(crate) max_connections: usize,
    pub(crate) max_clients: usize,
    pub(crate) max_clusters: usize,
    pub(crate) max_clusters_per_client: usize,
    pub(crate) max_members: u16,
    pub(crate) max_line: usize,
    pub(crate) max_relay_line: usize,
    pub(crate) max_backlog: usize,
    pub(crate) max_events: usize,
    pub(crate) grace: Duration,
    pub(crate) grace_sealed: Duration,
    pub(crate) plain: bool,
    pub(crate) relay_quota: u64,
    pub(crate) relay_datagram_quota: u64,
    pub(crate) relay_window: Duration,
    pub(crate) first_line: Duration,
    pub(crate) idle: Duration,
    pub(crate) idle_open: Duration,
    pub(crate) rate: u32,
    pub(crate) burst: u32,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            max_connections: 16_384,
            max_clients: 16_384,
            max_clusters: 4_096,
            max_clusters_per_client: 64,
            max_members: 512,
            max_line: vmdt_wire::DEFAULT_MAX_LINE,
            max_relay_line: vmdt_wire::RELAY_MAX_LINE,
            max_backlog: 1024 * 1024,
            max_events: 4_096,
            grace: Duration::from_secs(60),
            grace_sealed: Duration::from_secs(30 * 24 * 3_600),
            plain: true,
            relay_quota: 4 * 1024 * 1024 * 1024,
            relay_datagram_quota: 4 * 1024 * 1024 * 1024,
            relay_window: Duration::from_secs(24 * 3_600),
            first_line: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            idle_open: Duration::from_secs(2 * 3_600),
            rate: 5_000,
            burst: 10_000,
        }
    }
}

impl RegistryConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Connections open at once (default 16,384; at least 1). The next one is
    /// answered `too-many-clients` and closed.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = limit.max(1);
        self
    }

    /// What [`max_connections`](Self::max_connections) has set.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.max_connections
    }

    /// Client ids known at once, present or in their grace period (default
    /// 16,384; at least 1).
    #[must_use]
    pub fn max_clients(mut self, limit: usize) -> Self {
        self.max_clients = limit.max(1);
        self
    }

    /// Clusters at once (default 4,096; at least 1).
    #[must_use]
    pub fn max_clusters(mut self, limit: usize) -> Self {
        self.max_clusters = limit.max(1);
        self
    }

    /// Clusters one client may be in (default 64; at least 1). A client of
    /// profile 1.0 is in one at most whatever stands here.
    #[must_use]
    pub fn max_clusters_per_client(mut self, limit: usize) -> Self {
        self.max_clusters_per_client = limit.max(1);
        self
    }

    /// The largest `max=` a cluster may ask for, and the cap of the default
    /// n + 1 (default 512; at least 256 so that n = 255 works).
    #[must_use]
    pub fn max_members(mut self, limit: u16) -> Self {
        self.max_members = limit.max(256);
        self
    }

    /// Octets of one line (default 64 KiB; at least 256). A longer one is
    /// answered `line-too-long` and its connection closed.
    #[must_use]
    pub fn max_line(mut self, octets: usize) -> Self {
        self.max_line = octets.max(256);
        self.max_relay_line = self.max_relay_line.max(self.max_line);
        self
    }

    /// Octets of a MESSAGE_SHARE line from a client that is in a cluster
    /// (default 512 KiB; at least `max_line`).
    #[must_use]
    pub fn max_relay_line(mut self, octets: usize) -> Self {
        self.max_relay_line = octets.max(self.max_line);
        self
    }

    /// Octets written for one connection and not yet taken by its reader
    /// (default 1 MiB; at least 16 KiB). Above it the connection is shed;
    /// relayed lines are refused to their sender from three quarters of it on,
    /// so that a member cannot have another one shed.
    #[must_use]
    pub fn max_backlog(mut self, octets: usize) -> Self {
        self.max_backlog = octets.max(16 * 1024);
        self
    }

    /// Events kept for [`Registry::poll_event`](crate::Registry::poll_event)
    /// (default 4,096). The oldest are dropped, and counted in the statistics.
    #[must_use]
    pub fn max_events(mut self, limit: usize) -> Self {
        self.max_events = limit;
        self
    }

    /// How long a member whose connection is lost keeps its place (default 60 s).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(LONGEST);
        self
    }

    /// The same for a cluster that has a descriptor (default 30 days): its
    /// members are known by what they have signed, and messages can be left for
    /// those who are away.
    #[must_use]
    pub fn grace_sealed(mut self, grace: Duration) -> Self {
        self.grace_sealed = grace.min(LONGEST);
        self
    }

    /// Whether connections that prove no identity are answered (default yes).
    /// They speak profile 1.0 for ids of profile 1.0 and nothing else; without
    /// them every request of theirs is refused with `unauthenticated`.
    #[must_use]
    pub fn plain(mut self, allowed: bool) -> Self {
        self.plain = allowed;
        self
    }

    /// Octets of relayed shares that one client may send in a window of that
    /// length (default 4 GiB a day; at least 1 s). Beyond it they are refused
    /// with `quota-exceeded` until the window ends.
    #[must_use]
    pub fn relay_quota(mut self, octets: u64, window: Duration) -> Self {
        self.relay_quota = octets;
        self.relay_window = window.clamp(Duration::from_secs(1), LONGEST);
        self
    }

    /// The same for datagrams between two members that cannot reach each other, lines with the
    /// index 0: a quota of their own, in the same windows (default 4 GiB).
    #[must_use]
    pub fn relay_datagram_quota(mut self, octets: u64) -> Self {
        self.relay_datagram_quota = octets;
        self
    }

    /// How long a new connection may take to its first complete line (default
    /// 10 s).
    #[must_use]
    pub fn first_line(mut self, deadline: Duration) -> Self {
        self.first_line = deadline.min(LONGEST);
        self
    }

    /// How long a connection may be without a complete line (default 90 s). A
    /// connection that has named no client id by then is closed too.
    #[must_use]
    pub fn idle(mut self, deadline: Duration) -> Self {
        self.idle = deadline.min(LONGEST);
        self
    }

    /// The idle deadline of a client without capabilities (default 2 hours):
    /// software of profile 1.0 sends nothing while its user is silent, so the
    /// ordinary deadline would throw it out of its cluster.
    #[must_use]
    pub fn idle_open(mut self, deadline: Duration) -> Self {
        self.idle_open = deadline.min(LONGEST);
        self
    }

    /// Requests per second of one connection, and how many may come at once
    /// (defaults 5,000 and 10,000; at least 1). Beyond it a request is answered
    /// `rate-limited` and does nothing. Some count more than once: what needs
    /// signatures verified 50 times, a code number 500 times. Each record that a
    /// request changes counts 20 times more (a quarter of a burst at most), which is
    /// taken when it is done and missed by those that follow.
    #[must_use]
    pub fn rate(mut self, per_second: u32, burst: u32) -> Self {
        self.rate = per_second.max(1);
        self.burst = burst.max(1);
        self
    }
}

/// Identity, servers and times of a [`Member`](crate::Member).
///
/// Setters behave as [`RegistryConfig`]'s.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    pub(crate) id: NodeId,
    pub(crate) port: u16,
    pub(crate) caps: Option<Caps>,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) backoff_initial: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) max_requests: usize,
    pub(crate) max_backlog: usize,
    pub(crate) max_members: usize,
}

impl MemberConfig {
    /// A member called `id` whose data port is `port`, registered with the
    /// `rdt` capability at the first of `servers` that answers.
    #[must_use]
    pub fn new(id: NodeId, port: u16, servers: Vec<SocketAddr>) -> Self {
        MemberConfig {
            id,
            port,
            caps: Some(Caps::RDT),
            servers,
            backoff_initial: Duration::from_millis(200),
            backoff_max: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(20),
            max_requests: 1_024,
            max_backlog: 1024 * 1024,
            max_members: 4_096,
        }
    }

    /// What the member registers as its capabilities (default `rdt`).
    #[must_use]
    pub fn caps(mut self, caps: Option<Caps>) -> Self {
        self.caps = caps;
        self
    }

    /// The first wait between connection attempts and the longest one (defaults
    /// 200 ms and 4 s, so that all are back within 5 s of a server's return; at least 1 ms and the first). It doubles per failure; the
    /// actual wait is drawn evenly from the upper half.
    #[must_use]
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.backoff_initial = initial.clamp(Duration::from_millis(1), LONGEST);
        self.backoff_max = max.clamp(self.backoff_initial, LONGEST);
        self
    }

    /// How long an attempt may take until the connection is up, and again until
    /// the server has confirmed the registration (default 5 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(LONGEST);
        self
    }

    /// How long a request may take, from the call to the reply, reconnections
    /// included (default 10 s).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout.min(LONGEST);
        self
    }

    /// How often an otherwise quiet connection is tested (default 20 s; at least
    /// 10 ms). A test unanswered for as long again means the connection is lost.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval.clamp(Duration::from_millis(10), LONGEST);
        self
    }

    /// Requests queued or awaiting their reply (default 1,024; at least 1).
    #[must_use]
    pub fn max_requests(mut self, limit: usize) -> Self {
        self.max_requests = limit.max(1);
        self
    }

    /// Octets written and not yet taken by the connection, from which
    /// [`Member::relay`](crate::Member::relay) refuses more (default 1 MiB; at
    /// least 16 KiB).
    #[must_use]
    pub fn max_backlog(mut self, octets: usize) -> Self {
        self.max_backlog = octets.max(16 * 1024);
        self
    }

    /// Members remembered per cluster (default 4,096; at least 256): what a
    /// server may make us store.
    #[must_use]
    pub fn max_members(mut self, limit: usize) -> Self {
        self.max_members = limit.max(256);
        self
    }
}
