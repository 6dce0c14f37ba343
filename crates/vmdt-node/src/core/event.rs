//! What the core tells the application, and why things fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use vmdt_control::ClusterState;
use vmdt_wire::{ClusterId, ErrorCode, MemberState, MessageId, NodeId};

use super::placement::{Carrier, PlacementError};

/// Something that happened at a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The server knows this node now.
    Registered,
    /// The connection to the server was lost; the node tries again by itself.
    ServerLost {
        /// What went wrong.
        reason: String,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// A cluster has n members and can carry messages.
    ClusterReady {
        /// Which.
        cluster: ClusterId,
    },
    /// The server no longer knows a cluster this node was in.
    ClusterLost {
        /// Which.
        cluster: ClusterId,
        /// What the server said.
        reason: String,
    },
    /// What a cluster can do changed.
    ClusterState {
        /// Which.
        cluster: ClusterId,
        /// Its state.
        state: ClusterState,
    },
    /// A member joined, left, was interrupted or came back. When this node enters a cluster, the
    /// members that are in it already are introduced as having joined.
    Member {
        /// In which cluster.
        cluster: ClusterId,
        /// Who.
        id: NodeId,
        /// What.
        state: MemberState,
    },
    /// A message arrived whole. It is confirmed to its sender when the application takes it.
    Message {
        /// Its id.
        id: MessageId,
        /// Who sent it.
        from: NodeId,
        /// What it says.
        data: Bytes,
        /// Who carried how much of it.
        paths: Paths,
        /// Set when it came from a peer of profile 1.0, unprotected.
        open: bool,
    },
    /// A file begins to arrive.
    FileStarted {
        /// Its transfer.
        id: MessageId,
        /// Who sends it.
        from: NodeId,
        /// The name the sender gave, made safe.
        name: String,
        /// Its size in octets, where the sender knew it.
        size: Option<u64>,
    },
    /// A file goes on arriving.
    FileProgress {
        /// Its transfer.
        id: MessageId,
        /// Octets written.
        received: u64,
        /// Its size in octets, where the sender knew it.
        size: Option<u64>,
    },
    /// A file stands whole, synced and checked under its final name.
    FileReceived {
        /// Its transfer.
        id: MessageId,
        /// Who sent it.
        from: NodeId,
        /// Where it is.
        path: PathBuf,
        /// Its size in octets.
        size: u64,
        /// BLAKE3 digest of the content, equal to the sender's.
        digest: [u8; 32],
        /// Who carried how much of it.
        paths: Paths,
    },
    /// An incoming transfer ended without its content. Nothing is left under the final name.
    ReceiveFailed {
        /// Its transfer.
        id: MessageId,
        /// Who sent it.
        from: NodeId,
        /// Why.
        error: TransferError,
    },
    /// A direct path to a member works.
    PathUp {
        /// The member.
        peer: NodeId,
        /// Its address.
        address: SocketAddr,
    },
    /// A direct path to a member stopped working, or could not be set up.
    PathDown {
        /// The member.
        peer: NodeId,
    },
    /// A path to a member seems dead: nothing comes back, and its session is not given up yet. Shares
    /// on it go elsewhere meanwhile.
    PathLate {
        /// The member.
        peer: NodeId,
    },
    /// A member answers health checks, for the first time or again.
    PeerUp {
        /// The member.
        peer: NodeId,
    },
    /// A member did not answer several health checks in a row.
    PeerDown {
        /// The member.
        peer: NodeId,
    },
    /// A share is later than it should be: its holder is asked for it again.
    ShareLate {
        /// The message.
        message: MessageId,
        /// Which share.
        index: u8,
        /// Who was to bring it.
        holder: NodeId,
    },
    /// Shares of a transfer whose carrier was lost were given to others. At a holder: they were remade
    /// while the sender is away, here or at a member that this node told to.
    Repaired {
        /// The transfer.
        id: MessageId,
        /// How many shares.
        shares: usize,
    },
    /// Shares of a transfer whose carrier was lost have no other that may take them: it goes on with
    /// fewer to spare. At a holder, once for each message: they cannot be remade, as fewer than k are
    /// left or no member may have them.
    Degraded {
        /// The transfer.
        id: MessageId,
        /// How many shares.
        shares: usize,
    },
    /// A member was banned from carrying shares: it has signed what is not so.
    /// [`Core::peer_reports`](super::Core::peer_reports) says until when, and
    /// [`Core::convictions`](super::Core::convictions) shows what it signed.
    Banned {
        /// The member.
        peer: NodeId,
    },
    /// A share did not match what its sender announced. It was not used.
    BadShare {
        /// The message.
        message: MessageId,
        /// Which share.
        index: u8,
        /// Who handed it over.
        from: NodeId,
    },
    /// A member goes on under another key, as both keys have signed. Its old id is no member any
    /// more; its petname goes with it.
    KeyChanged {
        /// In which cluster.
        cluster: ClusterId,
        /// The id that was given up.
        old: NodeId,
        /// The id in its place.
        new: NodeId,
        /// What this node's user calls it.
        petname: Option<String>,
    },
    /// The addressee of a transfer of this node has confirmed it with a signature, which
    /// [`Core::receipts`](super::Core::receipts) shows.
    Confirmed {
        /// The transfer.
        id: MessageId,
        /// The addressee.
        by: NodeId,
    },
    /// One of several receivers of a transfer of this node has all of it. After a crash it may be
    /// told once more.
    DeliveredTo {
        /// The transfer.
        id: MessageId,
        /// Who has it.
        to: NodeId,
    },
    /// One of several receivers of a transfer of this node will not have it; the others may.
    NotDeliveredTo {
        /// The transfer.
        id: MessageId,
        /// Who has it not.
        to: NodeId,
        /// Why.
        error: TransferError,
    },
    /// Every segment of a transfer is on disk at enough holders: its receivers can fetch it without
    /// this node. Only of transfers that are kept.
    Deposited {
        /// The transfer.
        id: MessageId,
        /// Who is to get it; of several receivers the first.
        to: NodeId,
    },
    /// A transfer that an earlier run of this node began has arrived. That run may have told it,
    /// if it crashed before that was on disk.
    Delivered {
        /// The transfer.
        id: MessageId,
        /// Who has it; of several receivers, who all have it, the first.
        to: NodeId,
    },
    /// A transfer that an earlier run of this node began has failed.
    SendFailed {
        /// The transfer.
        id: MessageId,
        /// Who was to get it; of several receivers the first.
        to: NodeId,
        /// Why.
        error: TransferError,
    },
    /// The store took nothing. It is tried again, and what was to be kept with it failed.
    StorageFailed {
        /// Why.
        reason: vmdt_pool::StorageError,
    },
    /// A message goes to or comes from a peer of profile 1.0 unprotected.
    OpenPeer {
        /// The peer.
        peer: NodeId,
    },
}

/// What one carrier brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Shares.
    pub shares: u64,
    /// Octets of shares.
    pub octets: u64,
}

/// Who carried how much of a transfer.
pub type Paths = BTreeMap<Carrier, Carried>;

/// How far an outgoing transfer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Octets of content the receiver has confirmed; of several receivers, what all of them have
    /// that have not failed.
    pub delivered: u64,
    /// Size of the content in octets, where it is known.
    pub total: Option<u64>,
    /// Shares handed to each carrier so far.
    pub paths: Paths,
    /// Of several receivers those who have all of it.
    pub reached: std::collections::BTreeSet<NodeId>,
}

impl Progress {
    /// Nothing yet, of this many octets.
    pub(crate) fn of(total: u64) -> Progress {
        Progress {
            total: Some(total),
            ..Progress::default()
        }
    }
}

/// The end of an outgoing transfer that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The transfer.
    pub id: MessageId,
    /// Octets of content.
    pub octets: u64,
    /// BLAKE3 digest of the content; the receiver found the same.
    pub digest: [u8; 32],
    /// Shares given to each carrier.
    pub paths: Paths,
    /// Time from the first segment to the last confirmation.
    pub took: Duration,
}

impl Receipt {
    /// Shares and octets given to each carrier.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// No cluster has both this node and the receiver.
    #[error("{peer} is in no cluster with this node; join one that it is a member of")]
    UnknownPeer {
        /// The receiver.
        peer: NodeId,
    },
    /// A message to oneself.
    #[error("a node can't send to itself")]
    ToSelf,
    /// The cluster has not had n members yet, or has fewer than k.
    #[error("cluster {cluster} is not ready: {present} of {needed} members are present")]
    ClusterNotReady {
        /// Which.
        cluster: ClusterId,
        /// Members that are present.
        present: usize,
        /// Members it takes: n to become ready, k to stay usable.
        needed: usize,
    },
    /// The privacy rule leaves too few carriers.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Nothing was confirmed for too long.
    #[error("nothing was confirmed by {peer} for {after:?}; {detail}")]
    Stalled {
        /// The receiver.
        peer: NodeId,
        /// For how long.
        after: Duration,
        /// What is known about the paths.
        detail: String,
    },
    /// Nothing came for too long.
    #[error("nothing came from {peer} for {after:?}")]
    SenderSilent {
        /// The sender.
        peer: NodeId,
        /// For how long.
        after: Duration,
    },
    /// The other side refused or failed.
    #[error("{peer} says: {text}")]
    Remote {
        /// The other side.
        peer: NodeId,
        /// Its code.
        code: ErrorCode,
        /// Its sentence.
        text: String,
    },
    /// The other side took it back.
    #[error("{peer} cancelled it")]
    Cancelled {
        /// The other side.
        peer: NodeId,
    },
    /// What was rebuilt is not what was sent.
    #[error("the content does not have the digest that {peer} announced")]
    DigestMismatch {
        /// The sender.
        peer: NodeId,
    },
    /// Segments of one transfer contradict each other, or are not well formed.
    #[error("{peer} sent a malformed transfer: {what}")]
    Malformed {
        /// The sender.
        peer: NodeId,
        /// What is wrong.
        what: &'static str,
    },
    /// More than this node accepts.
    #[error("{what} is limited to {limit} octets here")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Too many transfers at once.
    #[error("{limit} transfers are under way already")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Reading the source or writing the file failed.
    #[error("{0}")]
    Local(String),
    /// A peer of profile 1.0 can't be reached or can't take this.
    #[error("{peer} speaks profile 1.0: {what}")]
    OpenPeer {
        /// The peer.
        peer: NodeId,
        /// What is wrong.
        what: &'static str,
    },
    /// The two nodes speak different profiles, or a key is missing.
    #[error("nothing can be sealed to {peer}: {what}")]
    Profile {
        /// The peer.
        peer: NodeId,
        /// What is wrong.
        what: &'static str,
    },
    /// This node's store took nothing.
    #[error("it can't be kept here: {reason}")]
    Storage {
        /// Why.
        reason: vmdt_pool::StorageError,
    },
    /// Its time is over.
    #[error("the other side, {peer}, was not there in time")]
    Expired {
        /// The other side.
        peer: NodeId,
    },
    /// A message to a group without receivers.
    #[error("a message to a group needs at least one receiver")]
    EmptyGroup,
    /// More receivers than one message may have.
    #[error("{found} receivers are named, at most {limit} can get one message; send in parts")]
    TooManyReceivers {
        /// How many were named.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The receivers of one message are in no one cluster.
    #[error("no cluster has all of these receivers; send to those of one cluster at a time")]
    NoCommonCluster,
    /// It failed at one of several receivers before this node was restarted.
    #[error("{why}")]
    Earlier {
        /// The receiver.
        peer: NodeId,
        /// The reason that was given then.
        why: String,
    },
    /// Some of several receivers did not get it.
    #[error("{0}")]
    Group(Box<GroupFailure>),
    /// The node was closed.
    #[error("the node is closed")]
    Closed,
}

/// Who of several receivers has a message, and who has not and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupFailure {
    /// Who has all of it.
    pub delivered: Vec<NodeId>,
    /// Who has not, and why. Never empty.
    pub failed: Vec<(NodeId, TransferError)>,
}

impl std::fmt::Display for GroupFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (has, failed) = (self.delivered.len(), self.failed.len());
        write!(f, "{has} of {} receivers have it", has + failed)?;
        for (peer, error) in &self.failed {
            write!(f, "; {peer} has not: {error}")?;
        }
        Ok(())
    }
}

impl From<GroupFailure> for TransferError {
    fn from(failure: GroupFailure) -> TransferError {
        TransferError::Group(Box::new(failure))
    }
}
