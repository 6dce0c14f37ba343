//! What the machines report and what they ask of their drivers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use vmdt_wire::{
    Caps, ClusterEntry, ClusterId, ClusterInfo, ClusterOptions, MemberState, Message, NodeId,
};

use crate::error::{LinkError, Refusal, RequestError, ServerError};
use crate::state::ClusterState;

/// Names one connection of a registry. The driver chooses it and never uses one
/// twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Names one request of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the registry asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryOutput {
    /// Send these octets, whole lines, and report progress with `handle_sent`.
    Write {
        /// The connection.
        conn: ConnId,
        /// What to send.
        bytes: Bytes,
    },
    /// Close the connection, after sending what was written if that is possible
    /// at once. The registry has forgotten it: later calls that name it do
    /// nothing.
    Close {
        /// The connection.
        conn: ConnId,
    },
}

/// What happened in the registry, for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// A connection named its client.
    Bound {
        /// The connection.
        conn: ConnId,
        /// The client.
        id: NodeId,
    },
    /// A connection ended; `reason` is `None` when the other side closed it.
    Closed {
        /// The connection.
        conn: ConnId,
        /// The client, if one was named.
        id: Option<NodeId>,
        /// Why the registry closed it.
        reason: Option<Refusal>,
    },
    /// A request was answered with ERROR.
    Refused {
        /// The connection.
        conn: ConnId,
        /// The answer.
        refusal: Refusal,
    },
    /// A cluster was created.
    ClusterCreated {
        /// The cluster.
        cluster: ClusterId,
        /// By whom.
        creator: NodeId,
        /// Shares in all.
        n: u16,
        /// Shares needed.
        k: u16,
    },
    /// A cluster lost its last place and is gone.
    ClusterRemoved {
        /// The cluster.
        cluster: ClusterId,
    },
    /// A cluster's state changed.
    State {
        /// The cluster.
        cluster: ClusterId,
        /// Before.
        from: ClusterState,
        /// After.
        to: ClusterState,
    },
    /// A member joined, left, went away or came back.
    Member {
        /// The cluster.
        cluster: ClusterId,
        /// The member.
        id: NodeId,
        /// What it did.
        state: MemberState,
    },
}

/// A cluster as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Its id.
    pub id: ClusterId,
    /// Who created it.
    pub creator: NodeId,
    /// Shares in all.
    pub n: u16,
    /// Shares needed.
    pub k: u16,
    /// Its options, with the defaults filled in.
    pub options: ClusterOptions,
    /// Where it stands.
    pub state: ClusterState,
    /// Whether it has a descriptor: its members are known by their signatures.
    pub sealed: bool,
    /// Everybody with a place, ordered by id.
    pub members: Vec<MemberView>,
}

/// A member as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its id.
    pub id: NodeId,
    /// Whether it is connected; otherwise it is in its grace period.
    pub present: bool,
    /// Observed ip and registered port, once registered.
    pub address: Option<SocketAddr>,
    /// What it registered.
    pub caps: Option<Caps>,
    /// Where its profile says to be reachable; empty without a profile.
    pub claimed: Vec<SocketAddr>,
}

/// How much was relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relayed {
    /// Lines.
    pub lines: u64,
    /// Octets of those lines.
    pub octets: u64,
}

/// What one client has relayed in the present window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAccount {
    /// The client.
    pub id: NodeId,
    /// Shares of messages.
    pub shares: Relayed,
    /// Datagrams between two members that cannot reach each other.
    pub datagrams: Relayed,
    /// How long until the client starts anew.
    pub window_left: Duration,
}

/// Counters of a registry since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RegistryStats {
    /// Lines received.
    pub lines: u64,
    /// Requests answered with ERROR.
    pub refused: u64,
    /// Lines relayed.
    pub relayed_lines: u64,
    /// Octets of relayed lines.
    pub relayed_octets: u64,
    /// Of these lines, datagrams between two members that cannot reach each other.
    pub relayed_datagrams: u64,
    /// Octets of those.
    pub relayed_datagram_octets: u64,
    /// Lines not relayed because their sender's quota was used up.
    pub relay_refused: u64,
    /// Connections closed because they did not read.
    pub shed: u64,
    /// Events dropped because nobody took them.
    pub lost_events: u64,
    /// Records of other servers that could not be read.
    pub unread_records: u64,
}

/// What a member asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberOutput {
    /// Open a connection; answer with `handle_connected` or
    /// `handle_connect_failed`, naming the attempt.
    Connect {
        /// Numbers the attempts.
        attempt: u64,
        /// Where to.
        to: SocketAddr,
    },
    /// Send these octets and report progress with `handle_sent`.
    Write {
        /// What to send.
        bytes: Bytes,
    },
    /// Close the connection, or give up opening it. Nothing more of it may be
    /// reported.
    Close,
}

/// What a member can ask of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Create a cluster and become its first member.
    CreateCluster {
        /// Shares in all.
        n: u16,
        /// Shares needed.
        k: u16,
        /// Other than the defaults.
        options: Option<ClusterOptions>,
    },
    /// Join a cluster.
    JoinCluster(ClusterId),
    /// Leave a cluster.
    LeaveCluster(ClusterId),
    /// List the clusters.
    ListClusters,
    /// List a cluster's members.
    Members(ClusterId),
    /// Ask for a client's address.
    ClientInfo(NodeId),
    /// List the clusters that follow this one: the next page.
    ListClustersAfter(ClusterId),
    /// Create the cluster that a descriptor describes, or bring it back to a
    /// server that has lost it. This one and all that follow need a connection
    /// that proves the member's identity.
    CreateSealed {
        /// The signed descriptor.
        descriptor: Bytes,
        /// Our membership.
        membership: Bytes,
    },
    /// Join a cluster that has a descriptor. The answer comes when the descriptor
    /// was fetched and checked.
    JoinSealed {
        /// Its id.
        cluster: ClusterId,
        /// Our membership.
        membership: Bytes,
    },
    /// Publish our profile, now and after every reconnection.
    PutProfile(Bytes),
    /// Ask for the profile of a member of one of our clusters.
    GetProfile(NodeId),
    /// Hand in a list of removed members that the cluster's creator has signed.
    Revoke {
        /// The cluster.
        cluster: ClusterId,
        /// The list.
        list: Bytes,
    },
    /// Ask for a code number.
    CodeOpen,
    /// Meet who has opened a code number.
    CodeJoin(u16),
    /// Pass data to the other side of a code number, at most 4,096 octets. It
    /// arrives there as a CODE_PASS push.
    CodePass {
        /// The number.
        number: u16,
        /// The data.
        data: Bytes,
    },
    /// Give a code number back.
    CodeClose(u16),
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To `CreateCluster`.
    Created {
        /// The new cluster.
        cluster: ClusterId,
    },
    /// To `JoinCluster`.
    Joined {
        /// The cluster.
        cluster: ClusterId,
        /// Its threshold and options, if the server says them.
        info: Option<ClusterInfo>,
    },
    /// To `LeaveCluster`.
    Left {
        /// The cluster.
        cluster: ClusterId,
    },
    /// To `ListClusters` and `ListClustersAfter`.
    Clusters(Vec<ClusterEntry>),
    /// To `Members`.
    Members(Vec<NodeId>),
    /// To `ClientInfo`.
    ClientInfo {
        /// Where the client is.
        address: SocketAddr,
        /// What it can do.
        caps: Option<Caps>,
    },
    /// To `GetProfile`: checked, and in the roster too.
    Profile {
        /// Whose.
        id: NodeId,
        /// The signed profile.
        profile: Bytes,
    },
    /// To `CodeOpen`.
    Code {
        /// The number.
        number: u16,
    },
    /// To `PutProfile`, `Revoke`, `CodeJoin`, `CodePass` and `CodeClose`.
    Done,
}

/// What a member reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberEvent {
    /// Connected and registered; clusters are being rejoined.
    Registered {
        /// The server.
        server: SocketAddr,
    },
    /// A request has its result. Every request gets exactly one.
    Reply {
        /// Which.
        request: RequestId,
        /// The answer, or why there is none.
        result: Result<Reply, RequestError>,
    },
    /// A line that is not a reply: CLUSTER_READY, MEMBER, a relayed
    /// MESSAGE_SHARE or an ERROR about nothing in particular; of profile 1.1
    /// MEMBERSHIP, REVOKED, PROFILE, CODE_PASS and CODE_CLOSE. What is signed was
    /// checked; what does not verify is not reported. The roster has taken it in
    /// already.
    Push(Message),
    /// A cluster's state as far as this member knows changed.
    State {
        /// The cluster.
        cluster: ClusterId,
        /// The new state.
        state: ClusterState,
    },
    /// A member goes on under another key, by a statement that both keys have
    /// signed; its old id is no member any more.
    KeyChanged {
        /// The cluster.
        cluster: ClusterId,
        /// The id that was given up.
        old: NodeId,
        /// The id in its place.
        new: NodeId,
    },
    /// After a reconnection the place in this cluster is confirmed.
    Rejoined {
        /// The cluster.
        cluster: ClusterId,
    },
    /// This member is no longer in the cluster, without a `Reply::Left`: the
    /// server was restarted, the place was lost, or a LEAVE_CLUSTER whose request
    /// had timed out was carried out after all.
    ClusterLost {
        /// The cluster.
        cluster: ClusterId,
        /// What the server said; `None` when it removed us as announced or asked.
        reason: Option<ServerError>,
    },
    /// The server refused a relayed line.
    RelayRefused {
        /// Whom it was for.
        to: NodeId,
        /// Its index.
        index: u16,
        /// What the server said.
        error: ServerError,
    },
    /// The connection was lost or an attempt failed; the next attempt is due
    /// after `retry_in`.
    Disconnected {
        /// Why.
        reason: LinkError,
        /// How long the member waits.
        retry_in: Duration,
    },
}
