//! Errors of the application's verbs; nothing that arrives from the network is an error here.

use std::time::Duration;

/// Why a configuration value was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number outside its bounds.
    #[error("{field} is {value}, allowed are {min} to {max}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// Smallest value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// A duration outside its bounds.
    #[error("{field} is {value:?}, allowed are {min:?} to {max:?}")]
    DurationOutOfRange {
        /// The setting.
        field: &'static str,
        /// What was asked for.
        value: Duration,
        /// Smallest value allowed.
        min: Duration,
        /// Largest value allowed.
        max: Duration,
    },
}

/// Why `write` or `finish` was refused. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The send buffer is full; an event `Writable` follows when half of it is free again.
    #[error("{queued} octets are queued of {limit} allowed")]
    Blocked {
        /// Octets queued and not acknowledged.
        queued: usize,
        /// The configured bound.
        limit: usize,
    },
    /// There is no session with this peer and none is being opened.
    #[error("no session with this peer")]
    NoSession,
    /// The session is being closed.
    #[error("the session is closing")]
    Closing,
    /// The flow was finished, reset or stopped; its id can't be used again in this session
    /// (after a reset or stop: not before the peer has acknowledged the reset).
    #[error("the flow has ended")]
    FlowEnded,
    /// The session has its maximum of outgoing flows.
    #[error("the session has its maximum of {limit} outgoing flows")]
    TooManyFlows {
        /// The configured bound.
        limit: usize,
    },
    /// The control flow never finishes.
    #[error("the control flow can't be finished")]
    ControlFlow,
}

/// Why a datagram was refused. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// There is no established session with this peer; `Connected` tells when there is.
    #[error("no established session with this peer: connect first and wait for Connected")]
    NoSession,
    /// The session is being closed.
    #[error("the session is closing")]
    Closing,
    /// The session is of the open profile, which has no datagrams.
    #[error("the session is not sealed, and only sealed sessions have datagrams: use a flow")]
    NotSealed,
    /// There is nothing in it.
    #[error("a datagram has at least one octet")]
    Empty,
    /// It does not fit into one packet.
    #[error("a datagram of {octets} octets does not fit, at most {limit} do now")]
    TooLarge {
        /// Octets given.
        octets: usize,
        /// The largest payload that the session carries now.
        limit: usize,
    },
    /// The queue is full; an event `DatagramRoom` follows.
    #[error("{queued} octets of datagrams wait of {limit} allowed: try after DatagramRoom")]
    Full {
        /// Octets that wait, headers and tags included.
        queued: usize,
        /// The configured bound.
        limit: usize,
    },
}
