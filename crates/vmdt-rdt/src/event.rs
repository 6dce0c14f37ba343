//! What the machine tells its application and its driver.

use std::net::SocketAddr;

use bytes::Bytes;
use vmdt_wire::{FlowId, NodeId};

use crate::ecn::EcnCodepoint;

/// One datagram to send, standing in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Octets of the buffer to send.
    pub len: usize,
    /// The mark to put into the IP header. A driver that can't may leave it out: the session
    /// notices and stops marking.
    pub ecn: Option<EcnCodepoint>,
    /// Larger than the path is known to carry: the system may refuse it, so it must not leave in
    /// one call with others ([`Endpoint::refused`](crate::Endpoint::refused)).
    pub oversized: bool,
}

/// The code of the FIN that ends a session for [`CloseReason::FalseAck`]. Codes from 0xff00 on are
/// the transport's own.
pub const CODE_FALSE_ACK: u16 = 0xff01;

/// Something that happened to a session or a flow.
///
/// The queue is bounded by construction: a flow has at most one `Readable` waiting and one
/// final event, and no new flow or session is taken from the network while
/// more events than the configured flows and sessions wait to be polled. Datagrams that wait have a
/// bound of their own ([`Config::set_datagram_backlog`](crate::Config::set_datagram_backlog)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session was established, by us or by the peer.
    Connected {
        /// The peer.
        peer: NodeId,
        /// Its address at this time.
        address: SocketAddr,
    },
    /// Our offer went unanswered for the configured time, or there was no room for a session.
    ConnectFailed {
        /// The peer.
        peer: NodeId,
        /// The address tried.
        address: SocketAddr,
    },
    /// In-order data arrived since the last `read` that returned `None`.
    Readable {
        /// The peer.
        peer: NodeId,
        /// The flow.
        flow: FlowId,
    },
    /// The flow's last octet was read (or it was empty).
    Finished {
        /// The peer.
        peer: NodeId,
        /// The flow.
        flow: FlowId,
    },
    /// The sender gave the flow up; what was unread is gone.
    FlowReset {
        /// The peer.
        peer: NodeId,
        /// The flow.
        flow: FlowId,
        /// The sender's reason.
        code: u16,
    },
    /// The receiver refused the rest of the flow; what was queued is gone.
    FlowStopped {
        /// The peer.
        peer: NodeId,
        /// The flow.
        flow: FlowId,
        /// The receiver's reason.
        code: u16,
    },
    /// Every octet of a finished flow was acknowledged.
    FlowDelivered {
        /// The peer.
        peer: NodeId,
        /// The flow.
        flow: FlowId,
    },
    /// After `Blocked`: at least half of the send buffer is free.
    Writable {
        /// The peer.
        peer: NodeId,
    },
    /// A datagram of the peer, from a sealed session: authentic, at most once, in no order. It is
    /// a slice of the buffer it arrived in.
    Datagram {
        /// The peer.
        peer: NodeId,
        /// 1 octet or more.
        payload: Bytes,
    },
    /// There is room for datagrams again
    /// ([`Endpoint::datagram_room`](crate::Endpoint::datagram_room)) after there was none, or one
    /// was refused as `Full`.
    DatagramRoom {
        /// The peer.
        peer: NodeId,
    },
    /// The session ended and all its flows with it, and datagrams that had not left.
    Closed {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The keys have sealed as much as they may, and the peer did not let them be renewed.
    KeysUsedUp,
    /// The peer closed it.
    PeerClosed {
        /// The peer's code.
        code: u16,
        /// The peer's words, at most 256 octets.
        reason: String,
    },
    /// Nothing arrived for the idle timeout.
    Idle,
    /// Nothing was acknowledged for `dead_after` while something was outstanding.
    Unresponsive,
    /// The peer restarted: a new session follows as `Connected`.
    Replaced,
    /// The peer acknowledged a packet that was never sent, or one whose number was left out to
    /// catch a receiver that acknowledges in advance (RFC 9000 section 21.4).
    FalseAck {
        /// The packet number.
        number: u64,
    },
    /// The application closed it.
    Local,
}
