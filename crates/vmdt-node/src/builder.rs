//! Settings of a node, and its start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket, lookup_host};
use tokio::sync::{Mutex, mpsc, watch};
use vmdt_wire::NodeId;

use crate::core::{Core, CoreConfig};
use crate::driver::{Driver, Loss};
use crate::handle::{Inner, Node, NodeError};
use crate::socket::Socket;

/// Commands that wait for the driver.
const COMMANDS: usize = 64;
/// Events that wait for the application. Beyond it messages wait unconfirmed at this node, and
/// other events are dropped.
const EVENTS: usize = 1024;

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
            let name = server
                .strip_prefix("vmdt://")
                .unwrap_or(server)
                .trim_end_matches('/');
            let found = lookup_host(name).await.map_err(|cause| NodeError::Server {
                server: server.clone(),
                cause,
            })?;
            servers.extend(found);
        }
        let (socket, listener) = bind_both(self.bind, self.allow_open_peers).await?;
        let local = socket.local_addr().map_err(|cause| NodeError::Bind {
            address: self.bind,
            cause,
        })?;

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
        config
            .set_allow_relay(self.allow_relay)
            .set_allow_open_peers(self.allow_open_peers);
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
            socket,
            listener,
            commands: inbox,
            events: events_in,
            changed,
            downloads: self.downloads,
            loss,
        };
        tokio::spawn(driver.run());
        Ok(Node::new(Inner {
            id,
            local,
            commands,
            events: Mutex::new(events),
            changed: watch,
            dropped,
            sent,
        }))
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
) -> Result<(Socket, Option<TcpListener>), NodeError> {
    let fail = |cause| NodeError::Bind { address, cause };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    // a free UDP port may be a taken TCP port: try others, unless one was asked for
    for _ in 0..if address.port() == 0 { 64 } else { 1 } {
        let socket = UdpSocket::bind(address).await.map_err(fail)?;
        let socket = Socket::new(socket).map_err(fail)?;
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
