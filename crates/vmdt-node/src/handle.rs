//! The node as an application holds it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{lookup_host, TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch, Mutex};
use vmdt_control::{Reply, Request, RequestError};
use vmdt_wire::{ClusterId, ClusterOptions, MessageId, NodeId};

use crate::core::{ConfigError, Core, CoreConfig, Event, Progress, Receipt, TransferError};
use crate::driver::{Command, Content, Driver, Loss};
use crate::files::SourceFile;

/// Commands that wait for the driver.
const COMMANDS: usize = 64;
/// Events that wait for the application. Beyond it messages wait unconfirmed at this node, and
/// other events are dropped.
const EVENTS: usize = 1024;
/// Socket buffers asked of the system, in octets.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Why a node could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A local socket could not be had.
    #[error("the local address {address} can't be used: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server's name has no address.
    #[error("the server {server} can't be found: {source}")]
    Server {
        /// What was given.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// No server was given.
    #[error("no server is configured; call NodeBuilder::server(\"host:port\")")]
    NoServer,
    /// The id is not `[A-Za-z0-9_-]{1,16}`.
    #[error("{0:?} can't be an id: 1 to 16 of the characters A-Z a-z 0-9 _ - are allowed")]
    Id(String),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Randomness(getrandom::Error),
    /// A setting is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server refused, or could not be asked.
    #[error("{what}: {source}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// The answer.
        source: RequestError,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    k: u8,
    n: u8,
    open_peers: bool,
    max_members: Option<u16>,
}

impl Policy {
    /// Any k of n shares rebuild a message; 2 <= k <= n <= 255. The cluster is ready when n
    /// members are present. The server checks the bounds.
    #[must_use]
    pub fn k_of_n(k: u8, n: u8) -> Policy {
        Policy { k, n, open_peers: false, max_members: None }
    }

    /// Lets peers of profile 1.0 join, which speak without any protection.
    #[must_use]
    pub fn open_peers(mut self, allow: bool) -> Policy {
        self.open_peers = allow;
        self
    }

    /// The most members, n to 65,535; n + 1 when not set.
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

/// Builds a [`Node`].
#[derive(Debug, Clone)]
pub struct NodeBuilder {
    id: Option<String>,
    servers: Vec<String>,
    bind: SocketAddr,
    downloads: Option<PathBuf>,
    loss: (f64, u64),
    segment: Option<usize>,
    window: Option<usize>,
    max_message: Option<usize>,
    max_file: Option<u64>,
    pool_octets: Option<usize>,
    stall_timeout: Option<Duration>,
    request_timeout: Option<Duration>,
    allow_relay: bool,
    allow_open_peers: bool,
    transport: Option<vmdt_rdt::Config>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        NodeBuilder {
            id: None,
            servers: Vec::new(),
            bind: SocketAddr::from(([0, 0, 0, 0], 0)),
            downloads: None,
            loss: (0.0, 0),
            segment: None,
            window: None,
            max_message: None,
            max_file: None,
            pool_octets: None,
            stall_timeout: None,
            request_timeout: None,
            allow_relay: true,
            allow_open_peers: false,
            transport: None,
        }
    }
}

impl NodeBuilder {
    /// A server to register with, `host:port`, also as `vmdt://host:port`. May be called again:
    /// the servers are tried in turn.
    #[must_use]
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// The node's id, 1 to 16 of `A-Z a-z 0-9 _ -`. A random one by default.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The local address for datagrams and 1.0 peers; any address and a port that the system
    /// picks by default.
    #[must_use]
    pub fn local(mut self, address: SocketAddr) -> Self {
        self.bind = address;
        self
    }

    /// The folder that received files go to. Without one, files are refused.
    #[must_use]
    pub fn downloads(mut self, folder: impl Into<PathBuf>) -> Self {
        self.downloads = Some(folder.into());
        self
    }

    /// Octets of content in one segment; see [`CoreConfig::set_segment`].
    #[must_use]
    pub fn segment(mut self, octets: usize) -> Self {
        self.segment = Some(octets);
        self
    }

    /// Unconfirmed segments of one transfer; see [`CoreConfig::set_window`].
    #[must_use]
    pub fn window(mut self, segments: usize) -> Self {
        self.window = Some(segments);
        self
    }

    /// The largest message that is taken whole; see [`CoreConfig::set_max_message`].
    #[must_use]
    pub fn max_message(mut self, octets: usize) -> Self {
        self.max_message = Some(octets);
        self
    }

    /// The largest file that is accepted, in octets; no limit by default.
    #[must_use]
    pub fn max_file(mut self, octets: u64) -> Self {
        self.max_file = Some(octets);
        self
    }

    /// Octets held for other members; see [`CoreConfig::set_pool_octets`].
    #[must_use]
    pub fn pool_octets(mut self, octets: usize) -> Self {
        self.pool_octets = Some(octets);
        self
    }

    /// How long a transfer may stand still; see [`CoreConfig::set_stall_timeout`].
    #[must_use]
    pub fn stall_timeout(mut self, time: Duration) -> Self {
        self.stall_timeout = Some(time);
        self
    }

    /// How long the server may take to answer; see [`CoreConfig::set_request_timeout`].
    #[must_use]
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.request_timeout = Some(time);
        self
    }

    /// Whether the server may relay; see [`CoreConfig::set_allow_relay`]. True by default.
    #[must_use]
    pub fn allow_relay(mut self, allow: bool) -> Self {
        self.allow_relay = allow;
        self
    }

    /// Whether to talk to peers of profile 1.0, unprotected; see
    /// [`CoreConfig::set_allow_open_peers`]. False by default.
    #[must_use]
    pub fn allow_open_peers(mut self, allow: bool) -> Self {
        self.allow_open_peers = allow;
        self
    }

    /// Settings of the transport.
    #[must_use]
    pub fn transport(mut self, config: vmdt_rdt::Config) -> Self {
        self.transport = Some(config);
        self
    }

    /// Loses this fraction of the datagrams that leave this node, on purpose: for demonstrations
    /// and tests. The seed makes the losses repeatable for one order of datagrams.
    #[must_use]
    pub fn inject_loss(mut self, fraction: f64, seed: u64) -> Self {
        self.loss = (fraction, seed);
        self
    }

    /// Opens the sockets and begins to register with the server, which goes on in the background:
    /// the first request waits for it.
    ///
    /// # Errors
    /// [`NodeError`] when an id, a setting, a server's name or the local address is no good.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn bind(self) -> Result<Node, NodeError> {
        let id = match &self.id {
            Some(id) => id.parse().map_err(|_| NodeError::Id(id.clone()))?,
            None => random_id()?,
        };
        if self.servers.is_empty() {
            return Err(NodeError::NoServer);
        }
        let mut servers = Vec::new();
        for server in &self.servers {
            let name = server.strip_prefix("vmdt://").unwrap_or(server).trim_end_matches('/');
            let found = lookup_host(name)
                .await
                .map_err(|source| NodeError::Server { server: server.clone(), source })?;
            servers.extend(found);
        }
        let (socket, listener) = bind_both(self.bind, self.allow_open_peers).await?;
        let local = socket
            .local_addr()
            .map_err(|source| NodeError::Bind { address: self.bind, source })?;

        let mut config = CoreConfig::new(id, local.port(), servers);
        if let Some(octets) = self.segment {
            config.set_segment(octets)?;
        }
        if let Some(segments) = self.window {
            config.set_window(segments)?;
        }
        if let Some(octets) = self.max_message {
            config.set_max_message(octets)?;
        }
        if let Some(octets) = self.max_file {
            config.set_max_file(octets);
        }
        if let Some(octets) = self.pool_octets {
            config.set_pool_octets(octets)?;
        }
        if let Some(time) = self.stall_timeout {
            config.set_stall_timeout(time)?;
        }
        if let Some(time) = self.request_timeout {
            config.set_request_timeout(time)?;
        }
        config.set_allow_relay(self.allow_relay).set_allow_open_peers(self.allow_open_peers);
        if let Some(transport) = self.transport {
            config.set_transport(transport);
        }

        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events_in, events) = mpsc::channel(EVENTS);
        let (changed, watch) = watch::channel(0);
        let loss = Loss::new(self.loss.0, self.loss.1);
        let (dropped, sent) = (Arc::clone(&loss.dropped), Arc::clone(&loss.sent));
        let driver = Driver {
            core: Core::new(config, seed()?),
            socket: Arc::new(socket),
            listener,
            commands: inbox,
            events: events_in,
            changed,
            downloads: self.downloads,
            loss,
        };
        tokio::spawn(driver.run());
        Ok(Node {
            inner: Arc::new(Inner {
                id,
                local,
                commands,
                events: Mutex::new(events),
                changed: watch,
                dropped,
                sent,
            }),
        })
    }
}

fn seed() -> Result<[u8; 32], NodeError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(NodeError::Randomness)?;
    Ok(seed)
}

/// `n` and 15 base64url characters: 90 random bits.
fn random_id() -> Result<NodeId, NodeError> {
    let text = data_encoding::BASE64URL_NOPAD.encode(seed()?.get(..12).unwrap_or_default());
    let id = format!("n{}", text.get(..15).unwrap_or_default());
    id.parse().map_err(|_| NodeError::Id(id.clone()))
}

/// A UDP socket, and a TCP listener on the same port where 1.0 peers are allowed.
async fn bind_both(
    address: SocketAddr,
    tcp: bool,
) -> Result<(UdpSocket, Option<TcpListener>), NodeError> {
    let fail = |source| NodeError::Bind { address, source };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    // a free UDP port may be a taken TCP port: try others, unless one was asked for
    for _ in 0..if address.port() == 0 { 64 } else { 1 } {
        let socket = UdpSocket::bind(address).await.map_err(fail)?;
        enlarge(&socket);
        if !tcp {
            return Ok((socket, None));
        }
        match TcpListener::bind(socket.local_addr().map_err(fail)?).await {
            Ok(listener) => return Ok((socket, Some(listener))),
            Err(error) => last = error,
        }
    }
    Err(fail(last))
}

/// Asks for large socket buffers; the system may give less.
fn enlarge(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    if let Ok(size) = socket.recv_buffer_size()
        && size < SOCKET_BUFFER / 4
    {
        tracing::debug!(size, "the system gives a small receive buffer; bursts may be lost");
    }
}

#[derive(Debug)]
struct Inner {
    id: NodeId,
    local: SocketAddr,
    commands: mpsc::Sender<Command>,
    events: Mutex<mpsc::Receiver<Event>>,
    changed: watch::Receiver<u64>,
    dropped: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
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

    async fn command(&self, command: Command) -> Result<(), NodeError> {
        self.inner.commands.send(command).await.map_err(|_| NodeError::Closed)
    }

    async fn ask(&self, what: &'static str, request: Request) -> Result<Reply, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Request { request, reply }).await?;
        match answer.await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(source)) => Err(NodeError::Request { what, source }),
            Err(_) => Err(NodeError::Closed),
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
            Reply::Created { cluster } => {
                Ok(Cluster { node: self.clone(), id: cluster })
            }
            _ => Err(NodeError::UnexpectedReply { what }),
        }
    }

    /// Joins a cluster.
    ///
    /// # Errors
    /// [`NodeError::Request`] with the server's answer (unknown, full, not for this kind of
    /// member), or why it could not be asked in time.
    ///
    /// # Cancel safety
    /// As for [`create_cluster`](Self::create_cluster).
    pub async fn join_cluster(&self, cluster: &ClusterId) -> Result<Cluster, NodeError> {
        let what = "joining a cluster";
        match self.ask(what, Request::JoinCluster(*cluster)).await? {
            Reply::Joined { cluster, .. } => Ok(Cluster { node: self.clone(), id: cluster }),
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
        (self.inner.sent.load(Ordering::Relaxed), self.inner.dropped.load(Ordering::Relaxed))
    }

    async fn start(&self, to: NodeId, content: Content) -> Result<Sending, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Send { to, content, reply }).await?;
        let started = answer.await.map_err(|_| NodeError::Closed)??;
        Ok(Sending {
            id: started.id,
            progress: started.progress,
            done: Some(started.done),
            commands: self.inner.commands.clone(),
        })
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
        self.start(to, Content::Octets(octets)).await
    }

    /// Sends a file to a member. It is read as it goes: memory does not grow with it.
    ///
    /// # Errors
    /// [`NodeError::File`] when it can't be opened, [`NodeError::Transfer`] when the transfer
    /// can't begin.
    ///
    /// # Cancel safety
    /// As for [`send`](Self::send).
    pub async fn send_path(&self, to: NodeId, path: impl AsRef<Path>) -> Result<Sending, NodeError> {
        let path = path.as_ref().to_owned();
        let file = tokio::task::spawn_blocking(move || SourceFile::open(&path))
            .await
            .map_err(|_| NodeError::Closed)?
            .map_err(NodeError::File)?;
        self.start(to, Content::File(file)).await
    }

    /// What happens at this node, in order. All handles share one queue of 1,024 events: each
    /// event goes to one reader. Messages that find it full wait, unconfirmed; other events are
    /// dropped.
    #[must_use]
    pub fn events(&self) -> Events {
        Events { inner: Arc::clone(&self.inner) }
    }

    /// Closes the node: transfers under way fail, the server and the peers are told. Takes at
    /// most about a second. Everything afterwards fails with [`NodeError::Closed`]; closing again
    /// does nothing.
    ///
    /// # Cancel safety
    /// The node closes also when the future is dropped.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.inner.commands.send(Command::Close(reply)).await.is_ok() {
            let _ = done.await;
        }
    }
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
    node: Node,
    id: ClusterId,
}

impl Cluster {
    /// Its id, which others need to join.
    #[must_use]
    pub fn id(&self) -> &ClusterId {
        &self.id
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
        Ok(self.node.clusters().await?.into_iter().find(|c| c.id == self.id))
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

/// A transfer under way. Dropping it does not stop it; [`cancel`](Self::cancel) does.
#[derive(Debug)]
pub struct Sending {
    id: MessageId,
    progress: watch::Receiver<Progress>,
    done: Option<oneshot::Receiver<Result<Receipt, TransferError>>>,
    commands: mpsc::Sender<Command>,
}

impl Sending {
    /// The transfer's id; the receiver's events bear it too.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// How far it is, as it goes.
    #[must_use]
    pub fn progress(&self) -> ProgressStream {
        ProgressStream { progress: self.progress.clone() }
    }

    /// Waits until the receiver has everything: a message in its application's hands, a file
    /// whole and under its final name.
    ///
    /// # Errors
    /// [`TransferError`] with what went wrong.
    ///
    /// # Cancel safety
    /// Cancel safe; call it again.
    pub async fn delivered(&mut self) -> Result<Receipt, TransferError> {
        match &mut self.done {
            None => Err(TransferError::Closed),
            Some(done) => {
                let result = done.await.unwrap_or(Err(TransferError::Closed));
                self.done = None;
                result
            }
        }
    }

    /// Takes the transfer back; [`delivered`](Self::delivered) then gives
    /// [`TransferError::Cancelled`], unless it was too late.
    ///
    /// # Cancel safety
    /// When the future is dropped the transfer may go on.
    pub async fn cancel(&self) {
        let _ = self.commands.send(Command::Cancel(self.id)).await;
    }
}

/// How far a transfer is, as it goes.
#[derive(Debug, Clone)]
pub struct ProgressStream {
    progress: watch::Receiver<Progress>,
}

impl ProgressStream {
    /// The state after the next change, skipping those that were missed; `None` when the
    /// transfer has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Progress> {
        self.progress.changed().await.ok()?;
        Some(self.progress.borrow_and_update().clone())
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
            send(&sending.delivered());
        };
        send(&Node::builder().bind());
    }

    #[tokio::test]
    async fn bind_names_what_is_wrong() {
        let error = Node::builder().bind().await.unwrap_err();
        assert!(matches!(error, NodeError::NoServer));
        let error = Node::builder().server("127.0.0.1:1").id("not an id").bind().await.unwrap_err();
        assert!(error.to_string().contains("not an id"));
        let error = Node::builder().server("127.0.0.1:1").segment(1).bind().await.unwrap_err();
        assert!(error.to_string().contains("segment"));
        let error = Node::builder().server("no port").bind().await.unwrap_err();
        assert!(error.to_string().contains("no port"));
    }
}
