//! Bounds and durations of both machines.

use std::time::Duration;

use vmdt_wire::NodeId;

/// Bounds on what may wait for an announcement that has not come yet. Shares and requests travel
/// on other flows than announcements do, so they may overtake them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyConfig {
    /// Octets of shares in all. Default 16 MiB.
    pub max_octets: u64,
    /// Octets of shares from one peer. Default 4 MiB.
    pub max_octets_per_peer: u64,
    /// Shares in all. Default 4,096.
    pub max_shares: u64,
    /// Shares from one peer. Default 1,024.
    pub max_shares_per_peer: u64,
    /// Requests (unfreeze, ack, remove), counted per message and peer, in all. Default 16,384.
    pub max_requests: u64,
    /// Requests by one peer. Default 2,048.
    pub max_requests_per_peer: u64,
    /// How long anything waits. Default 30 s.
    pub ttl: Duration,
}

impl Default for EarlyConfig {
    fn default() -> Self {
        EarlyConfig {
            max_octets: 16 << 20,
            max_octets_per_peer: 4 << 20,
            max_shares: 4096,
            max_shares_per_peer: 1024,
            max_requests: 16_384,
            max_requests_per_peer: 2048,
            ttl: Duration::from_secs(30),
        }
    }
}

/// Configuration of a holder's [`Pool`](crate::Pool). Durations are kept between a millisecond and
/// ten years. Octets count shares, plus 256 for each message, 160 for each share its announcement
/// lists and the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// This node.
    pub local: NodeId,
    /// Messages in all. Default 65,536.
    pub max_entries: u64,
    /// Octets in all. Default 64 MiB.
    pub max_octets: u64,
    /// Messages of one sender. Does not bind this node's own messages. Default 8,192.
    pub max_entries_per_sender: u64,
    /// Octets of one sender. Does not bind this node's own messages. Default 16 MiB.
    pub max_octets_per_sender: u64,
    /// How long a message is kept, from its first announcement. Default 10 min.
    pub ttl: Duration,
    /// How long a claim holds before the share is offered again. Each lease that ends without an
    /// acknowledgement doubles the next, up to 16 times this. Default 10 s.
    pub lease: Duration,
    /// How long after a [release](crate::Pool::release) a share is offered again. Each release or
    /// lapsed lease doubles it, up to `lease`. Default 200 ms.
    pub offer_retry: Duration,
    /// How long an ended message is remembered. Default 1 h.
    pub tombstone_ttl: Duration,
    /// How many ended messages are remembered. Default 65,536.
    pub max_tombstones: usize,
    /// What may wait for its announcement.
    pub early: EarlyConfig,
}

impl PoolConfig {
    /// The defaults for node `local`.
    pub fn new(local: NodeId) -> Self {
        PoolConfig {
            local,
            max_entries: 65_536,
            max_octets: 64 << 20,
            max_entries_per_sender: 8192,
            max_octets_per_sender: 16 << 20,
            ttl: Duration::from_secs(600),
            lease: Duration::from_secs(10),
            offer_retry: Duration::from_millis(200),
            tombstone_ttl: Duration::from_secs(3600),
            max_tombstones: 65_536,
            early: EarlyConfig::default(),
        }
    }
}

/// Configuration of a receiver's [`Collector`](crate::Collector). Durations are kept between a
/// millisecond and ten years. Octets count as in [`PoolConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectorConfig {
    /// This node: announcements for others are refused.
    pub local: NodeId,
    /// Messages being collected, in all. Default 8,192.
    pub max_messages: u64,
    /// Octets collected, in all. Default 64 MiB.
    pub max_octets: u64,
    /// Messages being collected from one sender. Default 4,096.
    pub max_messages_per_sender: u64,
    /// Octets collected from one sender. Default 32 MiB.
    pub max_octets_per_sender: u64,
    /// How long a message is collected before it is given up. Default 10 min.
    pub ttl: Duration,
    /// How long an ended message is remembered. Default 1 h.
    pub tombstone_ttl: Duration,
    /// How many ended messages are remembered. Default 65,536.
    pub max_tombstones: usize,
    /// How long to wait for active shares before frozen ones are asked for, until collection times
    /// have been measured. Kept between 50 ms and 5 s, as the measured value is. Default 1 s.
    pub unfreeze_after: Duration,
    /// How often one share may be asked for (one unfreeze and repeated claims, each after twice the
    /// time). Default 8.
    pub max_asks: u8,
    /// How many sets of shares are tried for one message when the caller reports that a set did not
    /// open. Default 256.
    pub max_attempts: u32,
    /// What may wait for its announcement.
    pub early: EarlyConfig,
}

impl CollectorConfig {
    /// The defaults for node `local`.
    pub fn new(local: NodeId) -> Self {
        CollectorConfig {
            local,
            max_messages: 8192,
            max_octets: 64 << 20,
            max_messages_per_sender: 4096,
            max_octets_per_sender: 32 << 20,
            ttl: Duration::from_secs(600),
            tombstone_ttl: Duration::from_secs(3600),
            max_tombstones: 65_536,
            unfreeze_after: Duration::from_secs(1),
            max_asks: 8,
            max_attempts: 256,
            early: EarlyConfig::default(),
        }
    }
}
