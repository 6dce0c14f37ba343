//! The node as an application holds it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use vmdt_control::{MemoryError, Reply, Request, RequestError, RequestId};
use vmdt_seal::identity::PublicIdentity;
use vmdt_seal::invite::{InviteTerms, Rights};
use vmdt_seal::keyfile::KeyFileError;
use vmdt_seal::ticket::{ServerAddress, Ticket};
use vmdt_wire::{ClusterId, ClusterOptions, ErrorCode, MessageId, NodeId};

use crate::builder::NodeBuilder;
use crate::code::CodeFailure;
use crate::core::{
    ClusterError, ClusterPlan, ConfigError, Conviction, Core, CoreStats, Event, Explanation,
    KeyChange, PeerReport, PetnameError, SendOptions, SignedReceipts, TransferError,
};
use crate::driver::{Command, Content, To};
use crate::files::SourceFile;
use crate::sending::Sending;

/// How long a ticket can be used that says nothing else.
const TICKET_LIFETIME_MS: u64 = 30 * 24 * 3600 * 1000;

/// Why a node could not do what was asked. Each text names the root cause; there is no chain of
/// sources to walk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A local socket could not be had.
    #[error("the local address {address} can't be used: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The server's name has no address.
    #[error("the server {server} can't be found: {cause}")]
    Server {
        /// What was given.
        server: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A server was given without the key that it must prove.
    #[error(
        "the key of the server {server} is missing: give vmdt://KEY@HOST:PORT or a ticket, or \
         choose the open profile"
    )]
    NoServerKey {
        /// What was given.
        server: String,
    },
    /// The key in a server's address is none.
    #[error("{text:?} is not a server's key: {cause}")]
    ServerKey {
        /// What was given.
        text: String,
        /// What is wrong.
        cause: vmdt_seal::identity::KeyError,
    },
    /// A cluster can't be created, joined or opened to others.
    #[error("{what}: {cause}")]
    Cluster {
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        cause: ClusterError,
    },
    /// A petname was not taken.
    #[error(transparent)]
    Petname(PetnameError),
    /// A cluster can't be recalled.
    #[error("the cluster can't be recalled: {0}")]
    Memory(#[source] MemoryError),
    /// This needs a ticket in profile 1.1.
    #[error("a cluster of profile 1.1 is joined with a ticket, not by its id")]
    TicketNeeded,
    /// An exchange under a spoken code failed.
    #[error(transparent)]
    Code(CodeFailure),
    /// The library for TLS failed.
    #[error("TLS can't be set up: {0}")]
    Tls(vmdt_tls::ConfigError),
    /// No server was given.
    #[error("no server is configured; call NodeBuilder::server(\"host:port\")")]
    NoServer,
    /// The id is not `[A-Za-z0-9_-]{1,16}`.
    #[error("{0:?} can't be an id: 1 to 16 of the characters A-Z a-z 0-9 _ - are allowed")]
    Id(String),
    /// The file with the node's key can't be used.
    #[error("the identity can't be used: {0}")]
    Identity(KeyFileError),
    /// The folder of [`NodeBuilder::storage`] can't be used.
    #[error("the storage in {} can't be used: {cause}", folder.display())]
    Storage {
        /// The folder.
        folder: std::path::PathBuf,
        /// What is wrong.
        cause: vmdt_store::OpenError,
    },
    /// What an earlier run left can't be used.
    #[error(transparent)]
    Restore(crate::core::RestoreError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Randomness(getrandom::Error),
    /// A setting is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server refused, or could not be asked.
    #[error("{what}: {cause}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// The answer.
        cause: RequestError,
    },
    /// Sending failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The file can't be sent.
    #[error("{0}")]
    File(String),
    /// The server answered something else than what was asked.
    #[error("the server gave an answer that does not fit the question ({what})")]
    UnexpectedReply {
        /// What was asked.
        what: &'static str,
    },
    /// The node was closed.
    #[error("the node is closed")]
    Closed,
}

/// How messages of a cluster are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    k: u8,
    n: u8,
    open_peers: bool,
    max_members: Option<u16>,
    name: String,
    listed: bool,
}

impl Policy {
    /// Any k of n shares rebuild a message; 2 <= k <= n <= 255. The cluster is ready when n
    /// members are present. The server checks the bounds.
    #[must_use]
    pub fn k_of_n(k: u8, n: u8) -> Policy {
        Policy {
            k,
            n,
            open_peers: false,
            max_members: None,
            name: String::new(),
            listed: false,
        }
    }

    /// A name for people, at most 64 octets; in profile 1.1.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Policy {
        self.name = name.into();
        self
    }

    /// Lets the server list the cluster to everybody; in profile 1.1, where only members see it
    /// otherwise.
    #[must_use]
    pub fn listed(mut self, listed: bool) -> Policy {
        self.listed = listed;
        self
    }

    /// Lets peers of profile 1.0 join, which speak without any protection.
    #[must_use]
    pub fn open_peers(mut self, allow: bool) -> Policy {
        self.open_peers = allow;
        self
    }

    /// The most members, n to what the server allows (512 by default); n + 1 when
    /// not set.
    #[must_use]
    pub fn max_members(mut self, members: u16) -> Policy {
        self.max_members = Some(members);
        self
    }
}

/// A cluster as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Its id.
    pub id: ClusterId,
    /// Shares of a message.
    pub n: u16,
    /// Shares that rebuild it.
    pub k: u16,
    /// Whether messages can be sent.
    pub ready: bool,
    /// Whether peers of profile 1.0 may be in it.
    pub open_peers: bool,
    /// The other members.
    pub members: Vec<MemberStatus>,
}

/// A member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// Whether it is connected to the server.
    pub present: bool,
    /// Where it is reached.
    pub address: Option<SocketAddr>,
    /// What it calls itself, in profile 1.1, as far as known: it proves nothing.
    pub name: Option<String>,
}

/// A direct path to a member.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PathReport {
    /// The member.
    pub peer: NodeId,
    /// The transport's figures.
    pub stats: vmdt_rdt::PathStats,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: NodeId,
    /// The servers, as tickets name them, and the key that they prove; in profile 1.1.
    pub(crate) servers: Option<(Vec<ServerAddress>, PublicIdentity)>,
    pub(crate) local: SocketAddr,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: Mutex<mpsc::Receiver<Event>>,
    pub(crate) changed: watch::Receiver<u64>,
    pub(crate) dropped: Arc<AtomicU64>,
    pub(crate) sent: Arc<AtomicU64>,
}

/// A VMDT node: member of clusters, sender, receiver, and holder of shares for others.
///
/// A handle that is cheap to clone. When the last one is dropped the node closes by itself in the
/// background; [`close`](Self::close) does it in order and waits.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

impl Node {
    pub(crate) fn new(inner: Inner) -> Node {
        Node {
            inner: Arc::new(inner),
        }
    }

    /// Settings for a new node.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// The address its datagrams leave from.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local
    }

    /// Tells the driver something, without waiting; nothing happens when the node is closed.
    pub(crate) fn tell(&self, command: Command) {
        let commands = self.inner.commands.clone();
        if let Err(mpsc::error::TrySendError::Full(command)) = commands.try_send(command)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { commands.send(command).await.is_ok() });
        }
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), NodeError> {
        self.inner
            .commands
            .send(command)
            .await
            .map_err(|_| NodeError::Closed)
    }

    pub(crate) async fn ask(
        &self,
        what: &'static str,
        request: Request,
    ) -> Result<Reply, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Request { request, reply }).await?;
        match answer.await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(cause)) => Err(NodeError::Request { what, cause }),
            Err(_) => Err(NodeError::Closed),
        }
    }

    /// Asks the server for what the core makes.
    async fn ask_signed(
        &self,
        what: &'static str,
        make: impl FnOnce(&mut Core, Instant) -> Result<RequestId, ClusterError> + Send + 'static,
    ) -> Result<Reply, NodeError> {
        let (reply, answer) = oneshot::channel();
        let make = Box::new(make);
        self.command(Command::Ask { make, reply }).await?;
        match answer.await {
            Ok(Ok(Ok(reply))) => Ok(reply),
            Ok(Ok(Err(cause))) => Err(NodeError::Request { what, cause }),
            Ok(Err(cause)) => Err(NodeError::Cluster { what, cause }),
            Err(_) => Err(NodeError::Closed),
        }
    }

    /// Has the driver look at the core.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Core, Instant) -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        let act = move |core: &mut Core, now: Instant| drop(reply.send(look(core, now)));
        self.command(Command::With(Box::new(act))).await?;
        answer.await.map_err(|_| NodeError::Closed)
    }

    /// Who carried which share of a transfer that this node sent, and that its addressee has it,
    /// each confirmed by a signature that can be shown to others. The id is the transfer's.
    /// Receipts follow what they confirm within a second, and [`Event::Confirmed`] says when the
    /// addressee's came. `None` for what this node did not send and what is not kept any more: the
    /// receipts of the last 32,768 shares are.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn receipts(&self, id: MessageId) -> Result<Option<SignedReceipts>, NodeError> {
        self.with(move |core, _| core.receipts(id)).await
    }

    /// Who holds what of a message, and which sets of parties could learn something of it; it prints
    /// as text for people. The id is that of a transfer, of whose segments the latest is explained.
    /// `None` for what this node did not send: those under way and the last 256 are known.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn explain(&self, id: MessageId) -> Result<Option<Explanation>, NodeError> {
        self.with(move |core, _| core.explain(id)).await
    }

    /// What is known of the peers this node has dealt with, in id order: scores from 0.0 to 1.0,
    /// round trips, successes and failures, bans.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn peers(&self) -> Result<Vec<PeerReport>, NodeError> {
        self.with(|core, now| core.peer_reports(now)).await
    }

    /// Whom this node has banned of its own accord, and what they signed that shows it: of the last
    /// 64, the oldest first. [`Event::Banned`] says when one is.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn convictions(&self) -> Result<Vec<Conviction>, NodeError> {
        self.with(|core, _| core.convictions().cloned().collect())
            .await
    }

    /// What this node dropped, and what it did to be sooner.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stats(&self) -> Result<CoreStats, NodeError> {
        self.with(|core, _| core.stats()).await
    }

    /// Whether this node speaks profile 1.1.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.inner.servers.is_some()
    }

    /// What another node calls itself, once its profile is known. A name proves nothing; the id
    /// does.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn name_of(&self, peer: NodeId) -> Result<Option<String>, NodeError> {
        self.with(move |core, _| Some(core.profile_of(peer)?.name().to_owned()))
            .await
    }

    /// What this node's user calls another node. Petnames live as long as the node: an application
    /// keeps them, and gives them again.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn petname(&self, peer: NodeId) -> Result<Option<String>, NodeError> {
        self.with(move |core, _| core.petname(peer).map(str::to_owned))
            .await
    }

    /// Gives a node a petname, or takes it back. It follows the node when that changes its key.
    ///
    /// # Errors
    /// [`NodeError::Petname`] when it can't be called so, [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn set_petname(&self, peer: NodeId, name: Option<&str>) -> Result<(), NodeError> {
        let name = name.map(str::to_owned);
        self.with(move |core, _| core.set_petname(peer, name.as_deref()))
            .await?
            .map_err(NodeError::Petname)
    }

    /// States that this node goes on under another key, and makes its memberships out to it. Close
    /// this node then, build one with the new identity and let it [`rejoin`](Self::rejoin): to the
    /// other members it is the same one. What is under way to this node is lost.
    ///
    /// # Errors
    /// [`NodeError::Cluster`] when the key has been changed too often, [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn change_key(
        &self,
        new: vmdt_seal::identity::SecretIdentity,
    ) -> Result<KeyChange, NodeError> {
        let what = "changing the key";
        self.with(move |core, now| core.change_key(now, &new))
            .await?
            .map_err(|cause| NodeError::Cluster { what, cause })
    }

    /// Takes this node's place in a cluster that it joined under a former key, with one of
    /// [`KeyChange::memberships`].
    ///
    /// # Errors
    /// As for [`join`](Self::join).
    ///
    /// # Cancel safety
    /// As for [`create_cluster`](Self::create_cluster).
    pub async fn rejoin(&self, membership: impl AsRef<[u8]>) -> Result<Cluster, NodeError> {
        let what = "rejoining a cluster";
        let membership = membership.as_ref().to_vec();
        let make = move |core: &mut Core, now| core.rejoin(now, &membership);
        match self.ask_signed(what, make).await? {
            Reply::Joined { cluster, .. } => Ok(Cluster {
                node: self.clone(),
                id: cluster,
            }),
            _ => Err(NodeError::UnexpectedReply { what }),
        }
    }

    /// Joins the cluster of a ticket, in profile 1.1. The node must have been built with the
    /// ticket's server: see [`NodeBuilder::ticket`](crate::NodeBuilder::ticket). A node that is in
    /// it already, as one that was started again with its storage, is told so at once.
    ///
    /// # Errors
    /// [`NodeError::Cluster`] when the ticket is no good, [`NodeError::Request`] with the server's
    /// answer or why it could not be asked in time.
    ///
    /// # Cancel safety
    /// As for [`create_cluster`](Self::create_cluster).
    pub async fn join(&self, ticket: &Ticket) -> Result<Cluster, NodeError> {
        let what = "joining a cluster";
        let ticket = ticket.clone();
        let id = ticket.cluster();
        let is_in = move |core: &mut Core, _| core.member().cluster(id).is_some();
        if self.with(is_in).await? {
            return Ok(Cluster {
                node: self.clone(),
                id,
            });
        }
        let make = move |core: &mut Core, now| core.join_sealed(now, &ticket);
        let joined = Cluster {
            node: self.clone(),
            id,
        };
        match self.ask_signed(what, make).await {
            Ok(Reply::Joined { .. }) => Ok(joined),
            Ok(_) => Err(NodeError::UnexpectedReply { what }),
            // its place was being taken again just now
            Err(NodeError::Request {
                cause: RequestError::Refused(error),
                ..
            }) if error.code == ErrorCode::AlreadyMember => Ok(joined),
            Err(error) => Err(error),
        }
    }

    /// Creates a cluster with this node as its first member.
    ///
    /// # Errors
    /// [`NodeError::Request`] with the server's answer, or why it could not be asked in time.
    ///
    /// # Cancel safety
    /// When the future is dropped the cluster may have been created all the same; this node is
    /// then in it, which [`clusters`](Self::clusters) shows.
    pub async fn create_cluster(&self, policy: Policy) -> Result<Cluster, NodeError> {
        let what = "creating a cluster";
        if self.is_sealed() {
            let plan = ClusterPlan {
                k: policy.k,
                n: policy.n,
                name: policy.name,
                listed: policy.listed,
            };
            let make = move |core: &mut Core, now| core.create_sealed(now, &plan);
            return match self.ask_signed(what, make).await? {
                Reply::Created { cluster } => Ok(Cluster {
                    node: self.clone(),
                    id: cluster,
                }),
                _ => Err(NodeError::UnexpectedReply { what }),
            };
        }
        let options = Some(ClusterOptions {
            open_peers: policy.open_peers,
            max_members: policy.max_members,
        });
        let request = Request::CreateCluster {
            n: policy.n.into(),
            k: policy.k.into(),
            options,
        };
        match self.ask(what, request).await? {
            Reply::Created { cluster } => Ok(Cluster {
                node: self.clone(),
                id: cluster,
            }),
            _ => Err(NodeError::UnexpectedReply { what }),
        }
    }

    /// Joins a cluster by its id, in profile 1.0.
    ///
    /// # Errors
    /// [`NodeError::TicketNeeded`] in profile 1.1.
    /// [`NodeError::Request`] with the server's answer (unknown, full, not for this kind of
    /// member), or why it could not be asked in time.
    ///
    /// # Cancel safety
    /// As for [`create_cluster`](Self::create_cluster).
    pub async fn join_cluster(&self, cluster: &ClusterId) -> Result<Cluster, NodeError> {
        let what = "joining a cluster";
        if self.is_sealed() {
            return Err(NodeError::TicketNeeded);
        }
        match self.ask(what, Request::JoinCluster(*cluster)).await? {
            Reply::Joined { cluster, .. } => Ok(Cluster {
                node: self.clone(),
                id: cluster,
            }),
            _ => Err(NodeError::UnexpectedReply { what }),
        }
    }

    /// The clusters the server lists.
    ///
    /// # Errors
    /// [`NodeError::Request`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn list_clusters(&self) -> Result<Vec<vmdt_wire::ClusterEntry>, NodeError> {
        let what = "listing the clusters";
        match self.ask(what, Request::ListClusters).await? {
            Reply::Clusters(clusters) => Ok(clusters),
            _ => Err(NodeError::UnexpectedReply { what }),
        }
    }

    /// The clusters this node is in.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn clusters(&self) -> Result<Vec<ClusterStatus>, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Status(reply)).await?;
        answer.await.map_err(|_| NodeError::Closed)
    }

    /// The direct paths to members, with what the transport measures on them.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn paths(&self) -> Result<Vec<PathReport>, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Paths(reply)).await?;
        answer.await.map_err(|_| NodeError::Closed)
    }

    /// Datagrams that left this node and how many of them were lost on purpose.
    #[must_use]
    pub fn injected_loss(&self) -> (u64, u64) {
        (
            self.inner.sent.load(Ordering::Relaxed),
            self.inner.dropped.load(Ordering::Relaxed),
        )
    }

    pub(crate) async fn start(
        &self,
        to: To,
        content: Content,
        options: SendOptions,
    ) -> Result<Sending, NodeError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Send {
            to,
            content,
            options,
            reply,
        };
        self.command(command).await?;
        let started = answer.await.map_err(|_| NodeError::Closed)??;
        Ok(Sending::new(started, self.inner.commands.clone()))
    }

    /// Sends octets to a member, who gets them as one [`Event::Message`]. An empty message is a
    /// message.
    ///
    /// # Errors
    /// [`NodeError::Transfer`] when it can't begin.
    ///
    /// # Cancel safety
    /// When the future is dropped the message may be on its way all the same.
    pub async fn send(&self, to: NodeId, message: impl AsRef<[u8]>) -> Result<Sending, NodeError> {
        let octets = Bytes::copy_from_slice(message.as_ref());
        self.send_with(to, octets, SendOptions::new()).await
    }

    /// As [`send`](Self::send), with options, and without copying.
    ///
    /// # Errors
    /// [`NodeError::Transfer`] when it can't begin.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn send_with(
        &self,
        to: NodeId,
        message: Bytes,
        options: SendOptions,
    ) -> Result<Sending, NodeError> {
        self.start(To::One(to), Content::Octets(message), options)
            .await
    }

    /// Sends a file to a member. It is read as it goes: memory does not grow with it.
    ///
    /// # Errors
    /// [`NodeError::File`] when it can't be opened, [`NodeError::Transfer`] when the transfer
    /// can't begin.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn send_path(
        &self,
        to: NodeId,
        path: impl AsRef<Path>,
    ) -> Result<Sending, NodeError> {
        self.send_path_with(to, path, SendOptions::new()).await
    }

    /// As [`send_path`](Self::send_path), with options.
    ///
    /// # Errors
    /// As for [`send_path`](Self::send_path).
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn send_path_with(
        &self,
        to: NodeId,
        path: impl AsRef<Path>,
        options: SendOptions,
    ) -> Result<Sending, NodeError> {
        let file = open_source(path.as_ref()).await?;
        self.start(To::One(to), Content::File(file), options).await
    }

    /// Handles for transfers that an earlier run of this node began and that go on now, as its
    /// [`storage`](NodeBuilder::storage) was kept; each is given out once. Sending the same file to
    /// the same member, or the same group, again gives the same handle. How such a transfer ends is also an event,
    /// [`Event::Delivered`] or [`Event::SendFailed`].
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// When the future is dropped the handles may be gone; the transfers go on.
    pub async fn resumed(&self) -> Result<Vec<Sending>, NodeError> {
        let (reply, answer) = oneshot::channel();
        let commands = &self.inner.commands;
        commands
            .send(Command::Resumed(reply))
            .await
            .map_err(|_| NodeError::Closed)?;
        let started = answer.await.map_err(|_| NodeError::Closed)?;
        let held = started.into_iter();
        Ok(held.map(|s| Sending::new(s, commands.clone())).collect())
    }

    /// What happens at this node, in order. All handles share one queue of 1,024 events: each
    /// event goes to one reader. Messages that find it full wait, unconfirmed; other events are
    /// dropped.
    #[must_use]
    pub fn events(&self) -> Events {
        Events {
            inner: Arc::clone(&self.inner),
        }
    }

    /// Closes the node: transfers under way fail, unless its [`storage`](NodeBuilder::storage) keeps
    /// them for the next run; the server and the peers are told. Takes at
    /// most about a second. Everything afterwards fails with [`NodeError::Closed`]; closing again
    /// does nothing.
    ///
    /// # Cancel safety
    /// The node closes also when the future is dropped.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self
            .inner
            .commands
            .send(Command::Close(reply))
            .await
            .is_ok()
        {
            let _ = done.await;
        }
    }
}

/// Opens a file that is to be sent.
pub(crate) async fn open_source(path: &Path) -> Result<SourceFile, NodeError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || SourceFile::open(&path))
        .await
        .map_err(|_| NodeError::Closed)?
        .map_err(NodeError::File)
}

/// What happens at a node.
#[derive(Debug, Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

impl Events {
    /// The next event; `None` once the node is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.inner.events.lock().await.recv().await
    }
}

/// A cluster this node is a member of.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) node: Node,
    pub(crate) id: ClusterId,
}

impl Cluster {
    /// Its id, which others need to join.
    #[must_use]
    pub fn id(&self) -> &ClusterId {
        &self.id
    }

    /// A ticket for new members, in profile 1.1: whoever has it can join within 30 days. Its text
    /// is a secret. What else an invitation can be: [`invite`](Self::invite).
    ///
    /// # Errors
    /// As for [`invite`](Self::invite).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ticket(&self) -> Result<Ticket, NodeError> {
        self.invite(InviteTerms {
            rights: Rights::MEMBER,
            expires_ms: crate::driver::unix_ms().saturating_add(TICKET_LIFETIME_MS),
            max_uses: 0,
        })
        .await
    }

    /// A ticket on these terms.
    ///
    /// # Errors
    /// [`NodeError::Cluster`] when this node is not in the cluster, may not invite, or speaks
    /// profile 1.0.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn invite(&self, terms: InviteTerms) -> Result<Ticket, NodeError> {
        let fail = |cause| NodeError::Cluster {
            what: "making a ticket",
            cause,
        };
        let Some((servers, key)) = self.node.inner.servers.clone() else {
            return Err(fail(ClusterError::OpenProfile));
        };
        let id = self.id;
        self.node
            .with(move |core, _| core.invite(id, &terms, servers, key))
            .await?
            .map_err(fail)
    }

    /// Removes members, in profile 1.1, at the node that created the cluster. Whom they invited
    /// goes with them.
    ///
    /// # Errors
    /// [`NodeError::Cluster`] when this node did not create it, [`NodeError::Request`].
    ///
    /// # Cancel safety
    /// When the future is dropped the members may have been removed all the same.
    pub async fn remove(&self, members: &[NodeId]) -> Result<(), NodeError> {
        let (id, members) = (self.id, members.to_vec());
        let make = move |core: &mut Core, now| core.remove_members(now, id, &members);
        self.node
            .ask_signed("removing members", make)
            .await
            .map(drop)
    }

    /// Waits until the cluster can carry messages: until n members are present.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&self) -> Result<(), NodeError> {
        let mut changed = self.node.inner.changed.clone();
        loop {
            changed.borrow_and_update();
            if self.status().await?.is_some_and(|c| c.ready) {
                return Ok(());
            }
            changed.changed().await.map_err(|_| NodeError::Closed)?;
        }
    }

    /// The cluster as this node knows it; `None` when it is not a member any more.
    ///
    /// # Errors
    /// [`NodeError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn status(&self) -> Result<Option<ClusterStatus>, NodeError> {
        Ok(self
            .node
            .clusters()
            .await?
            .into_iter()
            .find(|c| c.id == self.id))
    }

    /// Leaves the cluster.
    ///
    /// # Errors
    /// [`NodeError::Request`].
    ///
    /// # Cancel safety
    /// When the future is dropped the node may have left all the same.
    pub async fn leave(&self) -> Result<(), NodeError> {
        self.node
            .ask("leaving the cluster", Request::LeaveCluster(self.id))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_and_their_futures_can_move_between_threads() {
        fn send<T: Send>(_: &T) {}
        fn check<T: Send + Sync + Clone>() {}
        check::<Node>();
        check::<Events>();
        check::<Cluster>();
        // built, never run
        let _ = |node: Node, mut events: Events, mut sending: Sending, cluster: Cluster| {
            let id = node.id();
            send(&node.send(id, b""));
            send(&node.send_path(id, ""));
            send(&node.close());
            send(&events.next());
            send(&cluster.ready());
            send(&node.send_to_group(&[id], b""));
            send(&cluster.send_path_to_all(""));
            send(&sending.delivered());
        };
        send(&Node::builder().bind());
    }

    #[tokio::test]
    async fn bind_names_what_is_wrong() {
        let error = Node::builder().bind().await.unwrap_err();
        assert!(matches!(error, NodeError::NoServer));
        let error = Node::builder()
            .server("127.0.0.1:1")
            .open_profile("not an id")
            .bind()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not an id"));
        let error = Node::builder()
            .server("127.0.0.1:1")
            .open_profile("a")
            .segment(1)
            .bind()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("segment"));
        let error = Node::builder().server("no port").bind().await.unwrap_err();
        assert!(error.to_string().contains("no port"));
        let error = Node::builder().server("127.0.0.1:1").bind().await;
        assert!(matches!(error, Err(NodeError::NoServerKey { .. })));
        let error = Node::builder()
            .server("vmdt://AAAA@127.0.0.1:1")
            .bind()
            .await;
        assert!(matches!(error, Err(NodeError::ServerKey { .. })));
    }
}
