//! Why a server refused, and why a member's call failed.

use std::io;
use std::time::Duration;

use thiserror::Error;
use vmdt_seal::error::VerifyError;
use vmdt_seal::membership::MembershipError;
use vmdt_seal::trust::TrustError;
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
    /// The connection has proven no identity, and the request needs one.
    #[error("this needs a TLS connection that proves the identity of the client")]
    Unauthenticated,
    /// The connection has proven another identity.
    #[error("this connection has proven to be {proven}, not {named}")]
    NotProven {
        /// Who it has proven to be.
        proven: NodeId,
        /// Whom the request names.
        named: NodeId,
    },
    /// Something signed does not verify.
    #[error("the {what} does not verify: {cause}")]
    BadSignature {
        /// What it is.
        what: &'static str,
        /// Why.
        cause: VerifyError,
    },
    /// A membership does not verify.
    #[error("the membership does not verify: {0}")]
    BadMembership(MembershipError),
    /// Something signed is about another client or another cluster.
    #[error("the {what} is about somebody or something else")]
    OtherSubject {
        /// What it is.
        what: &'static str,
    },
    /// A membership does not follow from the cluster's descriptor.
    #[error("the membership is not valid in {cluster}: {cause}")]
    NotAdmitted {
        /// The cluster.
        cluster: ClusterId,
        /// Why.
        cause: TrustError,
    },
    /// The client was removed from the cluster by its creator.
    #[error("{id} was removed from {cluster}")]
    Removed {
        /// The client.
        id: NodeId,
        /// The cluster.
        cluster: ClusterId,
    },
    /// The server has something newer.
    #[error("a newer {what} is known already")]
    Stale {
        /// What it is.
        what: &'static str,
    },
    /// A cluster that has a descriptor is joined with a membership.
    #[error("{cluster} is joined with JOIN_SEALED and a membership")]
    NeedsMembership {
        /// The cluster.
        cluster: ClusterId,
    },
    /// The cluster has no descriptor: it was made with CREATE_CLUSTER.
    #[error("{cluster} has no descriptor")]
    NotSealed {
        /// The cluster.
        cluster: ClusterId,
    },
    /// The client has published no profile.
    #[error("{id} has published no profile")]
    NoProfile {
        /// The client.
        id: NodeId,
    },
    /// Nobody has that code number open, or it was used up.
    #[error("nobody waits at number {number}")]
    UnknownNumber {
        /// The number.
        number: u16,
    },
    /// No more code numbers for this client, or at all.
    #[error("{limit} code numbers are open already")]
    TooManyNumbers {
        /// How many there may be.
        limit: usize,
    },
    /// More was passed at a code number than an exchange of keys needs.
    #[error("at most {limit} lines are passed at one number")]
    NumberUsedUp {
        /// How many may be.
        limit: u32,
    },
    /// The other side of a code number is not there yet, or not at the moment.
    #[error("nobody is at the other side of number {number}")]
    NobodyThere {
        /// The number.
        number: u16,
    },
    /// The client's octets for relayed lines are used up.
    #[error("{id} has relayed its {limit} octets of {what}; more in {} s", wait.as_secs())]
    RelayQuota {
        /// The client.
        id: NodeId,
        /// Of what: each has a quota of its own.
        what: &'static str,
        /// Octets per window.
        limit: u64,
        /// Until the next window.
        wait: Duration,
    },
    /// The server ends.
    #[error("the server is stopping")]
    Stopping,
    /// The server has lost the state that it shares with others.
    #[error("the server has lost its state for now: try another one, or again later")]
    Detached,
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
            Refusal::Silent { .. } | Refusal::Stopping | Refusal::Detached => ErrorCode::Aborted,
            Refusal::Unauthenticated => ErrorCode::Unauthenticated,
            Refusal::NotProven { .. } => ErrorCode::BadId,
            Refusal::BadSignature { .. }
            | Refusal::BadMembership(_)
            | Refusal::OtherSubject { .. }
            | Refusal::NotAdmitted { .. } => ErrorCode::BadSignature,
            Refusal::Removed { .. } => ErrorCode::Removed,
            Refusal::Stale { .. } => ErrorCode::Stale,
            Refusal::NeedsMembership { .. } => ErrorCode::Refused,
            Refusal::NotSealed { .. } => ErrorCode::NotSupported,
            Refusal::NoProfile { .. } => ErrorCode::UnknownClient,
            Refusal::UnknownNumber { .. } => ErrorCode::UnknownNumber,
            Refusal::TooManyNumbers { .. }
            | Refusal::NumberUsedUp { .. }
            | Refusal::RelayQuota { .. } => ErrorCode::QuotaExceeded,
            Refusal::NobodyThere { .. } => ErrorCode::NotRegistered,
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
    /// A TLS handshake failed: this is not the server meant, or it refuses us.
    #[error("the server's identity is not confirmed: {0}")]
    Handshake(String),
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
    /// The connection was lost before the reply to something that is not
    /// repeated: CREATE_CLUSTER (a cluster may have been made, and goes when the
    /// grace ends), CODE_OPEN and CODE_PASS.
    #[error("the connection was lost before the reply: {0}")]
    Interrupted(LinkError),
    /// More requests than the member may hold.
    #[error("{limit} requests are waiting already")]
    QueueFull {
        /// How many there may be.
        limit: usize,
    },
    /// An id in the request cannot stand on a control line, or a parameter is too
    /// long for one.
    #[error("the request holds something that no control line can carry")]
    Unwritable,
    /// What the request is to publish, or what the server answered, is signed
    /// wrongly.
    #[error("the {what} does not verify")]
    BadSignature {
        /// What it is.
        what: &'static str,
    },
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
