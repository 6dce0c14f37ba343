//! The control messages.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::{Caps, ClusterInfo, ClusterOptions, ErrorCode, Line};
use crate::id::{ClusterId, MessageName, NodeId};

/// A control message: the requests and pushes of profile 1.0, its replies, and MEMBER.
///
/// Numbers are carried as written; whether n and k make sense is for the receiver to judge.
/// `Debug` leaves out texts and shares.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// CREATE_CLUSTER: creates a cluster of n shares per message, k of which rebuild it.
    CreateCluster {
        /// Who asks.
        client: NodeId,
        /// Shares per message.
        n: u16,
        /// Shares needed.
        k: u16,
        /// Choices beyond profile 1.0.
        options: Option<ClusterOptions>,
    },
    /// JOIN_CLUSTER: joins a cluster.
    JoinCluster {
        /// Who asks.
        client: NodeId,
        /// Which cluster.
        cluster: ClusterId,
    },
    /// LEAVE_CLUSTER: leaves a cluster.
    LeaveCluster {
        /// Who asks.
        client: NodeId,
        /// Which cluster; the client's only one if left out, as profile 1.0 does.
        cluster: Option<ClusterId>,
    },
    /// LIST_CLUSTERS: asks for the clusters that are not private.
    ListClusters {
        /// Who asks.
        client: NodeId,
        /// The last cluster of the page before; the first page if left out, as profile 1.0 does.
        after: Option<ClusterId>,
    },
    /// GET_CLUSTER_MEMBERS: asks for the members of a cluster.
    GetClusterMembers {
        /// Who asks.
        client: NodeId,
        /// Which cluster; the client's only one if left out, as profile 1.0 does.
        cluster: Option<ClusterId>,
    },
    /// REGISTER_P2P_PORT: tells the server where the client listens.
    RegisterP2pPort {
        /// Who tells.
        client: NodeId,
        /// The port; the address is that of the connection.
        port: u16,
        /// What the client can do beyond profile 1.0.
        caps: Option<Caps>,
    },
    /// GET_CLIENT_INFO: asks where a client listens.
    GetClientInfo {
        /// Who asks.
        client: NodeId,
        /// About whom.
        target: NodeId,
    },
    /// SEND_MESSAGE: asks for a text to be sent.
    SendMessage {
        /// Who asks.
        client: NodeId,
        /// Who is to receive it.
        target: NodeId,
        /// The text.
        text: String,
    },
    /// MESSAGE_SHARE: relays a share through the server.
    MessageShare {
        /// The sender.
        from: NodeId,
        /// The next hop.
        to: NodeId,
        /// The addressee.
        target: NodeId,
        /// The share's index; 0 is a line between nodes.
        index: u16,
        /// The share, as text; base64 by custom.
        data: String,
    },
    /// MESSAGE_RECEIVED: a message was rebuilt.
    MessageReceived {
        /// Which one.
        message: MessageName,
    },
    /// SHARE_POOL_ADD: announces a message's shares.
    SharePoolAdd(SharePoolAdd),
    /// SHARE_POOL_CLAIM: claims a share.
    SharePoolClaim {
        /// Of which message.
        message: MessageName,
        /// For whom.
        claimer: NodeId,
        /// Which share.
        index: u16,
    },
    /// SHARE_POOL_ACK: the receiver has rebuilt the message.
    SharePoolAck {
        /// Which one.
        message: MessageName,
        /// The receiver.
        receiver: NodeId,
    },
    /// SHARE_POOL_STORED: a holder has a share on disk, where it outlives the holder's process
    /// (profile 1.1).
    SharePoolStored {
        /// Of which message.
        message: MessageName,
        /// The holder.
        holder: NodeId,
        /// Which share.
        index: u16,
    },
    /// SHARE_POOL_UNFREEZE: a frozen share is wanted.
    SharePoolUnfreeze {
        /// Of which message.
        message: MessageName,
        /// Which share.
        index: u16,
    },
    /// SHARE_POOL_REMOVE: the shares are no longer needed.
    SharePoolRemove {
        /// Of which message.
        message: MessageName,
    },
    /// CLUSTER_READY: the cluster has enough members.
    ClusterReady {
        /// Which cluster.
        cluster: ClusterId,
    },
    /// ERROR: something was refused or failed.
    Error {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        text: String,
        /// Which message it is about; slash form only.
        about: Option<MessageName>,
    },
    /// OK: done.
    Ok {
        /// A sentence that 1.0 servers add.
        text: Option<String>,
    },
    /// CLUSTER_CREATED: the cluster exists now.
    ClusterCreated {
        /// Its id.
        cluster: ClusterId,
        /// More about it.
        info: Option<ClusterInfo>,
    },
    /// CLUSTER_JOINED: the client is a member now.
    ClusterJoined {
        /// Of this cluster.
        cluster: ClusterId,
        /// More about it.
        info: Option<ClusterInfo>,
    },
    /// CLUSTER_LIST: the clusters there are.
    ClusterList {
        /// One entry each; at most 300 with the tag.
        clusters: Vec<ClusterEntry>,
    },
    /// CLUSTER_MEMBERS: the members of a cluster.
    ClusterMembers {
        /// Their ids; at most 300 with the tag.
        members: Vec<NodeId>,
    },
    /// CLIENT_INFO: where a client listens.
    ClientInfo {
        /// Its address.
        ip: IpAddr,
        /// Its port.
        port: u16,
        /// What it can do beyond profile 1.0.
        caps: Option<Caps>,
    },
    /// MEMBER: tells a member what became of another one. Not in profile 1.0.
    Member {
        /// In which cluster.
        cluster: ClusterId,
        /// The other one.
        id: NodeId,
        /// What became of it.
        state: MemberState,
        /// Where it listens, if that is known.
        address: Option<SocketAddr>,
        /// What it can do beyond profile 1.0.
        caps: Option<Caps>,
    },
    /// PUT_PROFILE: publishes the client's profile. This and all that follow are of profile 1.1;
    /// what is binary in them holds at most [`MAX_BINARY`] octets, which `vmdt-seal` reads.
    PutProfile {
        /// Who publishes.
        client: NodeId,
        /// Its signed profile.
        profile: Vec<u8>,
    },
    /// GET_PROFILE: asks for a client's profile.
    GetProfile {
        /// Who asks.
        client: NodeId,
        /// About whom.
        target: NodeId,
    },
    /// RECEIPTS: what a holder or an addressee confirms to the sender of messages, or a holder to
    /// their receiver, between nodes.
    Receipts {
        /// The signed statements.
        receipts: Vec<u8>,
    },
    /// EXPRESS_OPEN: what the small messages that follow are sealed with, between nodes.
    ExpressOpen {
        /// The signed opening.
        opening: Vec<u8>,
    },
    /// EXPRESS_OK: an opening was taken, between nodes.
    ExpressOk {
        /// The opening's id.
        id: u32,
    },
    /// SHARE_REPAIR: holders remake a lost share among themselves, between nodes.
    ShareRepair {
        /// What is said.
        repair: Opaque,
    },
    /// PROFILE: a client's profile, as a reply or because it is new.
    Profile {
        /// Whose.
        id: NodeId,
        /// Its signed profile.
        profile: Vec<u8>,
    },
    /// CREATE_SEALED: creates the cluster that a descriptor describes.
    CreateSealed {
        /// Who asks: the descriptor's creator.
        client: NodeId,
        /// The signed descriptor, whose hash is the cluster's id.
        descriptor: Vec<u8>,
        /// The creator's own membership.
        membership: Vec<u8>,
    },
    /// GET_DESCRIPTOR: asks for a cluster's descriptor.
    GetDescriptor {
        /// Who asks.
        client: NodeId,
        /// Which cluster.
        cluster: ClusterId,
    },
    /// DESCRIPTOR: a cluster's descriptor.
    Descriptor {
        /// Which cluster.
        cluster: ClusterId,
        /// Its signed descriptor.
        descriptor: Vec<u8>,
    },
    /// JOIN_SEALED: joins a cluster that has a descriptor.
    JoinSealed {
        /// Who asks.
        client: NodeId,
        /// Which cluster.
        cluster: ClusterId,
        /// The client's signed membership.
        membership: Vec<u8>,
    },
    /// GET_MEMBERSHIP: asks for a member's membership.
    GetMembership {
        /// Who asks.
        client: NodeId,
        /// In which cluster.
        cluster: ClusterId,
        /// About whom.
        target: NodeId,
    },
    /// MEMBERSHIP: a member's membership, as a reply or because it is new.
    Membership {
        /// In which cluster.
        cluster: ClusterId,
        /// Whose.
        id: NodeId,
        /// The signed membership.
        membership: Vec<u8>,
    },
    /// REVOKE: removes members and voids invites.
    Revoke {
        /// Who asks.
        client: NodeId,
        /// In which cluster.
        cluster: ClusterId,
        /// The list, signed by the cluster's creator.
        list: Vec<u8>,
    },
    /// REVOKED: who was removed and what was voided.
    Revoked {
        /// In which cluster.
        cluster: ClusterId,
        /// The list, signed by the cluster's creator.
        list: Vec<u8>,
    },
    /// CODE_OPEN: asks for a number at which another client can be met.
    CodeOpen {
        /// Who asks.
        client: NodeId,
    },
    /// CODE: the number.
    Code {
        /// From 1 to [`MAX_CODE_NUMBER`].
        number: u16,
    },
    /// CODE_JOIN: meets the client that has opened a number.
    CodeJoin {
        /// Who asks.
        client: NodeId,
        /// Which number.
        number: u16,
    },
    /// CODE_PASS: data for the other one at a number, and its arrival there.
    CodePass {
        /// Who sends; left out where the data arrives.
        client: Option<NodeId>,
        /// At which number.
        number: u16,
        /// The data.
        data: Vec<u8>,
    },
    /// CODE_CLOSE: gives a number back, or tells the other one that this has happened.
    CodeClose {
        /// Who closes; left out where the other one is told.
        client: Option<NodeId>,
        /// Which number.
        number: u16,
    },
}

/// The most octets of a binary parameter of profile 1.1, before it is written as base64url.
pub const MAX_BINARY: usize = 4 * 1024;

/// The largest number that CODE_OPEN gives out.
pub const MAX_CODE_NUMBER: u16 = 9_999;

impl Message {
    /// The word for the message's type on the wire.
    #[must_use]
    pub const fn type_word(&self) -> &'static str {
        match self {
            Self::CreateCluster { .. } => "CREATE_CLUSTER",
            Self::JoinCluster { .. } => "JOIN_CLUSTER",
            Self::LeaveCluster { .. } => "LEAVE_CLUSTER",
            Self::ListClusters { .. } => "LIST_CLUSTERS",
            Self::GetClusterMembers { .. } => "GET_CLUSTER_MEMBERS",
            Self::RegisterP2pPort { .. } => "REGISTER_P2P_PORT",
            Self::GetClientInfo { .. } => "GET_CLIENT_INFO",
            Self::SendMessage { .. } => "SEND_MESSAGE",
            Self::MessageShare { .. } => "MESSAGE_SHARE",
            Self::MessageReceived { .. } => "MESSAGE_RECEIVED",
            Self::SharePoolAdd(_) => "SHARE_POOL_ADD",
            Self::SharePoolClaim { .. } => "SHARE_POOL_CLAIM",
            Self::SharePoolAck { .. } => "SHARE_POOL_ACK",
            Self::SharePoolStored { .. } => "SHARE_POOL_STORED",
            Self::SharePoolUnfreeze { .. } => "SHARE_POOL_UNFREEZE",
            Self::SharePoolRemove { .. } => "SHARE_POOL_REMOVE",
            Self::ClusterReady { .. } => "CLUSTER_READY",
            Self::Error { .. } => "ERROR",
            Self::Ok { .. } => "OK",
            Self::ClusterCreated { .. } => "CLUSTER_CREATED",
            Self::ClusterJoined { .. } => "CLUSTER_JOINED",
            Self::ClusterList { .. } => "CLUSTER_LIST",
            Self::ClusterMembers { .. } => "CLUSTER_MEMBERS",
            Self::ClientInfo { .. } => "CLIENT_INFO",
            Self::Member { .. } => "MEMBER",
            Self::PutProfile { .. } => "PUT_PROFILE",
            Self::GetProfile { .. } => "GET_PROFILE",
            Self::Receipts { .. } => "RECEIPTS",
            Self::ExpressOpen { .. } => "EXPRESS_OPEN",
            Self::ExpressOk { .. } => "EXPRESS_OK",
            Self::ShareRepair { .. } => "SHARE_REPAIR",
            Self::Profile { .. } => "PROFILE",
            Self::CreateSealed { .. } => "CREATE_SEALED",
            Self::GetDescriptor { .. } => "GET_DESCRIPTOR",
            Self::Descriptor { .. } => "DESCRIPTOR",
            Self::JoinSealed { .. } => "JOIN_SEALED",
            Self::GetMembership { .. } => "GET_MEMBERSHIP",
            Self::Membership { .. } => "MEMBERSHIP",
            Self::Revoke { .. } => "REVOKE",
            Self::Revoked { .. } => "REVOKED",
            Self::CodeOpen { .. } => "CODE_OPEN",
            Self::Code { .. } => "CODE",
            Self::CodeJoin { .. } => "CODE_JOIN",
            Self::CodePass { .. } => "CODE_PASS",
            Self::CodeClose { .. } => "CODE_CLOSE",
        }
    }
}

/// The line in slash form, except texts, data and shares, of which the length is shown.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SendMessage {
                client,
                target,
                text,
            } => f
                .debug_struct("SEND_MESSAGE")
                .field("client", client)
                .field("target", target)
                .field("octets", &text.len())
                .finish(),
            Self::MessageShare {
                from,
                to,
                target,
                index,
                data,
            } => f
                .debug_struct("MESSAGE_SHARE")
                .field("from", from)
                .field("to", to)
                .field("target", target)
                .field("index", index)
                .field("octets", &data.len())
                .finish(),
            Self::SharePoolAdd(add) => add.fmt(f),
            Self::CodePass {
                client,
                number,
                data,
            } => f
                .debug_struct("CODE_PASS")
                .field("client", client)
                .field("number", number)
                .field("octets", &data.len())
                .finish(),
            other => match Line::slash(other.clone()).emit() {
                Ok(line) => {
                    let line = core::str::from_utf8(&line).unwrap_or_default();
                    f.write_str(line.trim_end().trim_start_matches("VMDT/TCP/1.0/"))
                }
                Err(error) => write!(f, "{} ({error})", other.type_word()),
            },
        }
    }
}

/// The parameters of SHARE_POOL_ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharePoolAdd {
    /// The message.
    pub message: MessageName,
    /// Who sent it.
    pub sender: NodeId,
    /// Whom it is for.
    pub receiver: NodeId,
    /// Shares in all, n.
    pub total: u16,
    /// Shares that are active from the start, k.
    pub active: u16,
    /// What the message is. Old 1.0 software leaves it out; then it is a text.
    pub content: ContentType,
    /// The file's name, empty for a text; the transfer's id for a stream. Text of the peer: not a
    /// path.
    pub filename: String,
    /// Which placement of the shares this is: a later one has a higher number. Profile 1.1;
    /// 0, and left out, in profile 1.0.
    pub version: u32,
    /// What the sender says about the message and signs, as `vmdt-node` knows to read it.
    /// Profile 1.1; empty, and left out, in profile 1.0. At most [`MAX_DETAILS`] octets.
    pub details: Vec<u8>,
    /// The shares, or where they are; at most 255.
    pub shares: Vec<ShareEntry>,
}

/// The most octets of [`SharePoolAdd::details`].
pub const MAX_DETAILS: usize = 16 * 1024;

/// Octets that may be secret: `Debug` shows how many there are.
#[derive(Clone, PartialEq, Eq)]
pub struct Opaque(pub Vec<u8>);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opaque").field(&self.0.len()).finish()
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentType {
    /// `TEXT`.
    Text,
    /// `FILE`.
    File,
    /// `STREAM`: a segment of a transfer; not in profile 1.0.
    Stream,
}

impl ContentType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::File, Self::Stream];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::File => "FILE",
            Self::Stream => "STREAM",
        }
    }
}

/// One share in a SHARE_POOL_ADD.
#[derive(Clone, PartialEq, Eq)]
pub enum ShareEntry {
    /// `index:base64`: the share itself, as profile 1.0 sends it.
    Inline {
        /// Counts from 0, so 0 to 254; one less than the share's own index.
        index: u16,
        /// The share's octets.
        share: Vec<u8>,
    },
    /// `index:holder:digest`: where the share is.
    Placed {
        /// The share's own index, 1 to 255.
        index: u16,
        /// The node that holds it.
        holder: NodeId,
        /// The first 16 octets of its digest; 22 characters of base64url.
        digest: [u8; 16],
    },
}

impl fmt::Debug for ShareEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline { index, share } => f
                .debug_struct("Inline")
                .field("index", index)
                .field("octets", &share.len())
                .finish(),
            Self::Placed {
                index,
                holder,
                digest,
            } => f
                .debug_struct("Placed")
                .field("index", index)
                .field("holder", holder)
                .field(
                    "digest",
                    &format_args!("{:032x}", u128::from_be_bytes(*digest)),
                )
                .finish(),
        }
    }
}

/// One cluster in a CLUSTER_LIST: `id:creator:n:k:members:active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterEntry {
    /// Its id.
    pub cluster: ClusterId,
    /// Who created it.
    pub creator: NodeId,
    /// Shares per message.
    pub n: u16,
    /// Shares needed.
    pub k: u16,
    /// How many members it has.
    pub members: u16,
    /// Whether messages can be sent in it: 0 or 1.
    pub active: bool,
}

/// What became of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// `joined`: is a member from now on.
    Joined,
    /// `back`: its connection was lost and is there again, or its address has changed.
    Back,
    /// `away`: its connection is lost; it keeps its place for a while.
    Away,
    /// `left`: is no longer a member.
    Left,
}

impl MemberState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Joined, Self::Back, Self::Away, Self::Left];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Back => "back",
            Self::Away => "away",
            Self::Left => "left",
        }
    }
}
