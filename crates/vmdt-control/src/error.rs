//! Why a server refused, and why a member's call failed.

use std::io;
use std::time::Duration;

use thiserror::Error;
use vmdt_wire::{ClusterId, ErrorCode, LineError, NodeId};

/// Why the registry answered ERROR. [`Refusal::code`] is the stable word on the
/// line, the `Display` form is the sentence beside it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The line could not be read.
    #[error("{0}")]
    Malformed(LineError),
    /// A line longer than this connection may send; the connection is closed.
    #[error("a line is longer than the {limit} octets allowed")]
    LineTooLong {
        /// Octets allowed.
        limit: usize,
    },
    /// The message exists, but a server does not take it.
    #[error("{what} is not for a server: {instead}")]
    NotForServer {
        /// The message's type word.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// More requests than the connection's rate allows.
    #[error("more than {per_second} requests per second on this connection")]
    RateLimited {
        /// Requests per second allowed.
        per_second: u32,
    },
    /// The empty id names nobody.
    #[error("the empty id names nobody")]
    EmptyId,
    /// The request names another client than the connection's first request did.
    #[error("this connection speaks for {bound}, not for {named}")]
    WrongId {
        /// The id the connection is bound to.
        bound: NodeId,
        /// The id in the request.
        named: NodeId,
    },
    /// The id is in use by a live connection from another address.
    #[error("{id} is connected from another address")]
    IdInUse {
        /// The id.
        id: NodeId,
    },
    /// The client opened another connection; this one is closed.
    #[error("{id} opened another connection")]
    Superseded {
        /// The id.
        id: NodeId,
    },
    /// The connection has named no client yet.
    #[error("register first: this connection has named no client")]
    NotBound,
    /// No more connections or client ids.
    #[error("the server already has {limit} clients")]
    TooManyClients {
        /// How many there may be.
        limit: usize,
    },
    /// No more clusters on this server.
    #[error("the server already has {limit} clusters")]
    TooManyClusters {
        /// How many there may be.
        limit: usize,
    },
    /// No more clusters for this client.
    #[error("{id} is already in {limit} clusters")]
    TooManyForClient {
        /// The client.
        id: NodeId,
        /// In how many it may be.
        limit: usize,
    },
    /// n and k outside 2 <= k <= n <= 255.
    #[error("n = {n}, k = {k}: 2 <= k <= n <= 255 is required")]
    Threshold {
        /// Shares in all.
        n: u16,
        /// Shares needed.
        k: u16,
    },
    /// `max=` outside n..=limit.
    #[error("max = {max}: from n = {n} to {limit} is allowed")]
    MaxMembers {
        /// What was asked for.
        max: u16,
        /// Shares in all: the least.
        n: u16,
        /// The most.
        limit: u16,
    },
    /// Port 0 cannot be reached.
    #[error("port 0: from 1 to 65535 is allowed")]
    PortZero,
    /// No such cluster.
    #[error("there is no cluster {cluster}")]
    UnknownCluster {
        /// Its id.
        cluster: ClusterId,
    },
    /// No such client.
    #[error("there is no client {id}")]
    UnknownClient {
        /// Its id.
        id: NodeId,
    },
    /// The client is known but has registered no port.
    #[error("{id} has registered no port")]
    NoPort {
        /// The client.
        id: NodeId,
    },
    /// The recipient of a relayed line is not connected.
    #[error("{id} is not connected at the moment")]
    Away {
        /// The recipient.
        id: NodeId,
    },
    /// The client is not in that cluster.
    #[error("{id} is not a member of {cluster}")]
    NotAMember {
        /// The client.
        id: NodeId,
        /// The cluster.
        cluster: ClusterId,
    },
    /// The client is in no cluster.
    #[error("{id} is in no cluster")]
    InNoCluster {
        /// The client.
        id: NodeId,
    },
    /// The request named no cluster and the client is in several.
    #[error("{id} is in {count} clusters: name one")]
    NameACluster {
        /// The client.
        id: NodeId,
        /// In how many it is.
        count: usize,
    },
    /// The client is in that cluster already.
    #[error("{id} is already a member of {cluster}")]
    AlreadyMember {
        /// The client.
        id: NodeId,
        /// The cluster.
        cluster: ClusterId,
    },
    /// A client of profile 1.0 is in one cluster at a time.
    #[error("{id} is already a member of {cluster}: leave it first")]
    OneClusterOnly {
        /// The client.
        id: NodeId,
        /// Where it is.
        cluster: ClusterId,
    },
    /// No place is free.
    #[error("{cluster} has its {max} members")]
    ClusterFull {
        /// The cluster.
        cluster: ClusterId,
        /// How many it may have.
        max: u16,
    },
    /// The cluster takes no peers without the `rdt` capability.
    #[error("{cluster} takes only members with the rdt capability")]
    ClosedToOpenPeers {
        /// The cluster.
        cluster: ClusterId,
    },
    /// The server relays only share indices below k.
    #[error("share {index} is not relayed: the server carries shares 1 to {most} of this cluster")]
    RelayIndex {
        /// The share's index.
        index: u16,
        /// The largest index relayed: k - 1.
        most: u16,
    },
    /// Sender, recipient and target have no cluster in common.
    #[error("{from}, {to} and {target} have no cluster in common")]
    NoCommonCluster {
        /// The sender.
        from: NodeId,
        /// Whom the line is for.
        to: NodeId,
        /// Whose message it belongs to.
        target: NodeId,
    },
    /// The recipient reads too slowly for more relayed lines.
    #[error("{to} still has {queued} octets to read; a relayed line is taken up to {limit}")]
    RelayBacklog {
        /// The recipient.
        to: NodeId,
        /// Octets waiting for it.
        queued: usize,
        /// Octets that may wait.
        limit: usize,
    },
    /// A relayed line that the recipient's framing cannot carry, or only in a
    /// line longer than it accepts.
    #[error("the data cannot be carried on a line to {to}")]
    Uncarriable {
        /// The recipient.
        to: NodeId,
    },
    /// The client does not read what it is sent; the connection is closed.
    #[error("more than {limit} octets were sent and not read")]
    SlowReader {
        /// Octets that may wait.
        limit: usize,
    },
    /// No complete line in time; the connection is closed.
    #[error("no complete line for {} s", after.as_secs())]
    Silent {
        /// The deadline that passed.
        after: Duration,
    },
    /// The server failed to do its own part.
    #[error("the server could not answer")]
    Internal,
}

impl Refusal {
    /// The stable word that stands on the ERROR line.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Refusal::Malformed(error) => error.code(),
            Refusal::LineTooLong { .. } => ErrorCode::LineTooLong,
            Refusal::NotForServer { .. } => ErrorCode::NotSupported,
            Refusal::RateLimited { .. } => ErrorCode::RateLimited,
            Refusal::EmptyId | Refusal::WrongId { .. } => ErrorCode::BadId,
            Refusal::IdInUse { .. } | Refusal::Superseded { .. } => ErrorCode::IdInUse,
            Refusal::NotBound | Refusal::NoPort { .. } | Refusal::Away { .. } => {
                ErrorCode::NotRegistered
            }
            Refusal::TooManyClients { .. } => ErrorCode::TooManyClients,
            Refusal::TooManyClusters { .. } | Refusal::TooManyForClient { .. } => {
                ErrorCode::TooManyClusters
            }
            Refusal::Threshold { .. } | Refusal::MaxMembers { .. } | Refusal::PortZero => {
                ErrorCode::OutOfRange
            }
            Refusal::UnknownCluster { .. } => ErrorCode::UnknownCluster,
            Refusal::UnknownClient { .. } => ErrorCode::UnknownClient,
            Refusal::NotAMember { .. }
            | Refusal::InNoCluster { .. }
            | Refusal::NoCommonCluster { .. } => ErrorCode::NotAMember,
            Refusal::NameACluster { .. } | Refusal::Uncarriable { .. } => ErrorCode::BadRequest,
            Refusal::AlreadyMember { .. } | Refusal::OneClusterOnly { .. } => {
                ErrorCode::AlreadyMember
            }
            Refusal::ClusterFull { .. } => ErrorCode::ClusterFull,
            Refusal::ClosedToOpenPeers { .. } => ErrorCode::Refused,
            Refusal::RelayIndex { .. } => ErrorCode::RelayRefused,
            Refusal::RelayBacklog { .. } | Refusal::SlowReader { .. } => ErrorCode::QuotaExceeded,
            Refusal::Silent { .. } => ErrorCode::Aborted,
            Refusal::Internal => ErrorCode::Internal,
        }
    }
}

/// An ERROR line as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} ({code})")]
pub struct ServerError {
    /// The stable word.
    pub code: ErrorCode,
    /// The server's sentence.
    pub text: String,
}

/// Why a member has no connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The configuration names no server.
    #[error("no server is configured")]
    NoServers,
    /// This member's own id cannot stand on a control line.
    #[error("this member's id cannot stand on a control line")]
    BadId,
    /// The connection could not be opened.
    #[error("the server cannot be reached: {0}")]
    Connect(io::ErrorKind),
    /// The connection was not up, or the registration not confirmed, in time.
    #[error("the server did not answer within {after:?}")]
    ConnectTimeout {
        /// How long was waited.
        after: Duration,
    },
    /// The server refused the registration or ended the connection with an ERROR.
    #[error("the server refused: {0}")]
    Refused(ServerError),
    /// The server answered the registration, or a return to a cluster, with
    /// something else.
    #[error("the server's reply is of another kind than the request")]
    BadReply,
    /// The other side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// A test of the connection was not answered.
    #[error("the server has been silent for {after:?}")]
    Silent {
        /// How long was waited.
        after: Duration,
    },
    /// The server sent a line that is too long.
    #[error("the server sent a line of more than {limit} octets")]
    LineTooLong {
        /// Octets allowed.
        limit: usize,
    },
    /// [`Member::stop`](crate::Member::stop) was called.
    #[error("this member was stopped")]
    Stopped,
}

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The server said no.
    #[error("{0}")]
    Refused(ServerError),
    /// Sent, but not answered in time.
    #[error("no reply within {after:?}")]
    Timeout {
        /// The request timeout.
        after: Duration,
    },
    /// Not sent in time because there was no connection; `last` says why not.
    #[error("no connection within {after:?}{}", last.as_ref().map(|l| format!(": {l}")).unwrap_or_default())]
    NotConnected {
        /// The request timeout.
        after: Duration,
        /// What the last attempt failed with, if one has failed yet.
        last: Option<LinkError>,
    },
    /// The connection was lost before the reply to CREATE_CLUSTER, which is not
    /// repeated: a cluster may have been made, and goes when the grace ends.
    #[error("the connection was lost before the reply: {0}")]
    Interrupted(LinkError),
    /// More requests than the member may hold.
    #[error("{limit} requests are waiting already")]
    QueueFull {
        /// How many there may be.
        limit: usize,
    },
    /// An id in the request cannot stand on a control line.
    #[error("the request holds an id that no control line can carry")]
    Unwritable,
    /// The server answered with something else.
    #[error("the reply is of another kind than the request")]
    UnexpectedReply,
    /// The member was stopped.
    #[error("this member was stopped")]
    Stopped,
}

/// Why [`Member::relay`](crate::Member::relay) took nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Not registered with a server at the moment.
    #[error("not connected to a server")]
    NotConnected,
    /// Too much is waiting to be sent.
    #[error("{queued} octets are waiting; {limit} may")]
    Backlog {
        /// Octets waiting.
        queued: usize,
        /// Octets that may wait.
        limit: usize,
    },
    /// The line would be longer than a server takes.
    #[error("the line would have {len} octets; {limit} are allowed")]
    TooLong {
        /// Its length.
        len: usize,
        /// The most.
        limit: usize,
    },
    /// An id cannot stand on a control line.
    #[error("an id that no control line can carry")]
    Unwritable,
    /// The share index has no place on the line.
    #[error("share index {index}: 0 to 9999 is allowed")]
    Index {
        /// The index.
        index: u16,
    },
}
