//! Counters and gauges as plain values.

use std::time::Duration;

/// One session's path and flows, at the time of the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// Smoothed round-trip time.
    pub srtt: Duration,
    /// Mean deviation of the round-trip time.
    pub rttvar: Duration,
    /// Smallest round-trip time seen.
    pub min_rtt: Duration,
    /// Congestion window in octets, headers included.
    pub cwnd: u64,
    /// The rate the path delivers in octets per second, headers included, when the congestion
    /// controller has measured it.
    pub bandwidth: Option<u64>,
    /// Octets in flight, headers included.
    pub bytes_in_flight: u64,
    /// Datagrams sent.
    pub packets_sent: u64,
    /// Datagrams accepted.
    pub packets_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Of these, packets that had arrived after all.
    pub packets_spurious: u64,
    /// Segments sent again.
    pub segments_retransmitted: u64,
    /// Probe timeouts.
    pub probe_timeouts: u64,
    /// Persistent congestion established.
    pub persistent_congestion: u64,
    /// UDP payload octets sent.
    pub octets_sent: u64,
    /// UDP payload octets accepted.
    pub octets_received: u64,
    /// Flow octets sent for the first time.
    pub data_octets_sent: u64,
    /// Duplicate packets and packets too old to tell.
    pub duplicates: u64,
    /// DATA dropped for want of window or flow table room.
    pub refused: u64,
    /// ACKs whose header acknowledges segments that were never sent: that part was ignored.
    pub acks_of_unsent: u64,
    /// Payloads that could not be read, and datagrams without the agreed checksum.
    pub malformed: u64,
    /// NAKs sent.
    pub naks_sent: u64,
    /// NAKs received.
    pub naks_received: u64,
    /// Octets queued for sending and not acknowledged.
    pub queued: usize,
    /// Octets of datagrams that wait to leave, headers and tags included.
    pub datagrams_queued: usize,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams accepted.
    pub datagrams_received: u64,
    /// Datagrams sent and declared lost; those that had arrived after all are not taken back.
    pub datagrams_lost: u64,
    /// Datagrams dropped on arrival because too many waited for the application. They are not
    /// acknowledged.
    pub datagrams_refused: u64,
    /// Datagrams dropped before they left because the path's largest payload had shrunk below
    /// them.
    pub datagrams_outgrown: u64,
    /// Octets received and not read, or out of order.
    pub held: usize,
    /// Outgoing flows.
    pub send_flows: usize,
    /// Incoming flows.
    pub recv_flows: usize,
    /// Octets of payload a segment may have now.
    pub max_payload: usize,
    /// Times larger datagrams stopped arriving and the base size was returned to.
    pub black_holes: u64,
    /// Times the peer's address changed.
    pub address_changes: u64,
    /// DATA dropped because it came so late that its sequence number could mean another segment.
    pub too_late: u64,
    /// Datagrams that did not open under the session's keys.
    pub forged: u64,
    /// Packet numbers left out to catch false ACKs.
    pub numbers_skipped: u64,
    /// Packets that arrived with the mark CE.
    pub ce_received: u64,
    /// Packets that the peer reports to have arrived with the mark CE.
    pub ce_reported: u64,
    /// Whether the path is known to carry ECN marks.
    pub ecn_capable: bool,
}

/// Datagrams of an endpoint that belong to no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Not a VMDT datagram, or damaged.
    pub garbage: u64,
    /// Addressed to another node, or from ourselves or nobody.
    pub misaddressed: u64,
    /// With a session id that isn't ours, or not of that peer.
    pub unknown_session: u64,
    /// SYN payloads that could not be read or answer no offer of ours.
    pub bad_syn: u64,
    /// Offers that were answered with a cookie, to prove their address.
    pub cookies_sent: u64,
    /// Offers refused for want of room, and half-open entries pushed out by newer ones.
    pub syn_overflow: u64,
}
