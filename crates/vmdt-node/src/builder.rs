//! Settings of a node, and its start.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::net::{TcpListener, UdpSocket, lookup_host};
use tokio::sync::{Mutex, mpsc, watch};
use vmdt_pool::{Anchor, StorageError, Store};
use vmdt_rdt::RateLimit;
use vmdt_seal::identity::{PublicIdentity, SecretIdentity};
use vmdt_seal::keyfile::{self, KeyFileError};
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::ticket::{MAX_SERVERS as MAX_TICKET_SERVERS, ServerAddress, Ticket};
use vmdt_store::{OpenError, Options, RedbStore};
use vmdt_wire::NodeId;

use crate::core::{Core, CoreConfig, Sealing};
use crate::driver::{ControlTls, Driver, Loss, now, unix_ms};
use crate::handle::{Inner, Node, NodeError};
use crate::socket::Socket;

/// Commands that wait for the driver.
const COMMANDS: usize = 64;
/// Events that wait for the application. Beyond it messages wait unconfirmed at this node, and
/// other events are dropped.
const EVENTS: usize = 1024;

/// The store in the folder of [`NodeBuilder::storage`].
const STORE_FILE: &str = "node.vmdt";
/// The key there, unless another is given.
const IDENTITY_FILE: &str = "identity";

/// Who the node is.
#[derive(Debug, Clone)]
enum Who {
    /// A key made for this run.
    Ephemeral,
    Key(Box<SecretIdentity>),
    /// A key in a file, which is made when it is not there.
    File(PathBuf),
    /// A name of profile 1.0.
    Open(String),
}

/// Builds a [`Node`].
///
/// A node speaks profile 1.1 (sealed) unless [`open_profile`](Self::open_profile) says otherwise.
/// Its id is that of its key: one made for this run, unless [`identity`](Self::identity) or
/// [`identity_file`](Self::identity_file) gives one.
#[derive(Debug, Clone)]
pub struct NodeBuilder {
    who: Who,
    name: String,
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
    express: bool,
    hedging: Option<f64>,
    delivery: Option<f64>,
    allow_direct: bool,
    min_distinct_networks: u8,
    operators: BTreeMap<NodeId, String>,
    transport: Option<vmdt_rdt::Config>,
    rate_limit: Option<RateLimit>,
    addresses: Vec<SocketAddr>,
    storage: Option<PathBuf>,
    expiry: Option<Duration>,
    repair_after: Option<Duration>,
    health_checks: Option<Duration>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        NodeBuilder {
            who: Who::Ephemeral,
            name: String::new(),
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
            express: true,
            hedging: None,
            delivery: None,
            allow_direct: true,
            min_distinct_networks: 0,
            operators: BTreeMap::new(),
            transport: None,
            rate_limit: None,
            addresses: Vec::new(),
            storage: None,
            expiry: None,
            repair_after: None,
            health_checks: Some(Duration::from_secs(30)),
        }
    }
}

impl NodeBuilder {
    /// A server to register with, `vmdt://KEY@host:port`, where the key is the one that the server
    /// must prove, as it prints it. In the open profile `host:port`. May be called again: the
    /// servers are tried in turn.
    #[must_use]
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// The node's key, which makes its id.
    #[must_use]
    pub fn identity(mut self, identity: SecretIdentity) -> Self {
        self.who = Who::Key(Box::new(identity));
        self
    }

    /// The node's key, kept in a file that only its owner can read; it is made when it is not
    /// there. What else has to outlive the process stands beside it.
    #[must_use]
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.who = Who::File(path.into());
        self
    }

    /// A name for people, told to other members; at most 64 octets count. It proves nothing and
    /// need not be unique.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// An address at which this node can be reached, beside the one that the server sees; may be
    /// called several times, for IPv4 and IPv6, and the first [`MAX_ADDRESSES`] count. Members try
    /// them, in this order, when there is no answer where the server sees the node. A node that
    /// listens on all addresses adds the one from which it reaches its first server, so that two
    /// behind one address translator find each other.
    ///
    /// [`MAX_ADDRESSES`]: crate::core::MAX_ADDRESSES
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Speaks profile 1.0 only, under this id: 1 to 16 of `A-Z a-z 0-9 _ -`. Nothing is
    /// authenticated then, and whoever sees k shares of a message, or forges lines, has the say.
    #[must_use]
    pub fn open_profile(mut self, id: impl Into<String>) -> Self {
        self.who = Who::Open(id.into());
        self
    }

    /// The servers of a ticket, to join with [`Node::join`].
    #[must_use]
    pub fn ticket(mut self, ticket: &Ticket) -> Self {
        let key = ticket.server_key();
        let servers = ticket.servers().iter();
        self.servers
            .extend(servers.map(|server| format!("vmdt://{key}@{server}")));
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

    /// Whether small messages may go as pieces without announcements, to members that do so too;
    /// see [`CoreConfig::set_express`]. True by default. Without it each message is announced,
    /// signed, to its receiver and its holders: more octets and more time for a small one, and a
    /// receipt that names its holders.
    #[must_use]
    pub fn express(mut self, on: bool) -> Self {
        self.express = on;
        self
    }

    /// The budget for asking early; see [`CoreConfig::set_hedging`]. 0.1 by default.
    #[must_use]
    pub fn hedging(mut self, fraction: f64) -> Self {
        self.hedging = Some(fraction);
        self
    }

    /// How surely a small message is to arrive at the first attempt; see
    /// [`CoreConfig::set_delivery`]. 0.995 by default.
    #[must_use]
    pub fn delivery(mut self, probability: f64) -> Self {
        self.delivery = Some(probability);
        self
    }

    /// Whether the direct way may carry shares; see [`CoreConfig::set_allow_direct`]. True by
    /// default.
    #[must_use]
    pub fn allow_direct(mut self, allow: bool) -> Self {
        self.allow_direct = allow;
        self
    }

    /// Distinct networks that every message is to be spread over; see
    /// [`CoreConfig::set_min_distinct_networks`]. 0 by default.
    #[must_use]
    pub fn min_distinct_networks(mut self, networks: u8) -> Self {
        self.min_distinct_networks = networks;
        self
    }

    /// Who operates a member; see [`CoreConfig::set_operator`].
    #[must_use]
    pub fn operator(mut self, member: NodeId, operator: impl Into<String>) -> Self {
        self.operators.insert(member, operator.into());
        self
    }

    /// The folder in which what outlives the process is kept: shares held for others, transfers
    /// under way in both directions, the clusters, and, unless [`identity`](Self::identity) or
    /// [`identity_file`](Self::identity_file) says otherwise, the node's key. A node that is started
    /// again with the same folder goes on where the last one was, whatever ended it. Without a
    /// folder all of that is in memory only.
    ///
    /// Files go to [`downloads`](Self::downloads); what is not whole of them lies there under names
    /// that begin with `.vmdt-`. One process uses a folder at a time.
    #[must_use]
    pub fn storage(mut self, folder: impl Into<PathBuf>) -> Self {
        self.storage = Some(folder.into());
        self
    }

    /// How long what is not delivered is kept; see [`CoreConfig::set_expiry`]. 7 days by default.
    #[must_use]
    pub fn expiry(mut self, time: Duration) -> Self {
        self.expiry = Some(time);
        self
    }

    /// How often members are asked whether they answer; see [`CoreConfig::set_health_checks`]. 30 s
    /// by default.
    #[must_use]
    pub fn health_checks(mut self, every: Option<Duration>) -> Self {
        self.health_checks = every;
        self
    }

    /// How long a holder may be away; see [`CoreConfig::set_repair_after`]. 10 minutes by default.
    #[must_use]
    pub fn repair_after(mut self, time: Duration) -> Self {
        self.repair_after = Some(time);
        self
    }

    /// Settings of the transport.
    #[must_use]
    pub fn transport(mut self, config: vmdt_rdt::Config) -> Self {
        self.transport = Some(config);
        self
    }

    /// The most that this node sends; see [`CoreConfig::set_rate_limit`].
    #[must_use]
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
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
        let who = self.resolve().await?;
        if self.servers.is_empty() {
            return Err(NodeError::NoServer);
        }
        let open = matches!(who, Resolved::Open(_));
        let mut servers = Vec::new();
        let mut keys = BTreeMap::new();
        let mut named: Option<(Vec<ServerAddress>, PublicIdentity)> = None;
        for server in &self.servers {
            let text = server.strip_prefix("vmdt://").unwrap_or(server);
            let (key, name) = match text.trim_end_matches('/').rsplit_once('@') {
                Some((key, name)) => {
                    let parsed = key.parse().map_err(|cause| NodeError::ServerKey {
                        text: key.to_owned(),
                        cause,
                    })?;
                    (Some(parsed), name)
                }
                None => (None, text.trim_end_matches('/')),
            };
            let found = lookup_host(name).await.map_err(|cause| NodeError::Server {
                server: server.clone(),
                cause,
            })?;
            let found: Vec<SocketAddr> = found.collect();
            let key: Option<PublicIdentity> = key;
            match key {
                Some(key) => {
                    keys.extend(found.iter().map(|address| (*address, *key.as_octets())));
                    // a ticket names the servers that prove one key
                    let (names, first) = named.get_or_insert_with(|| (Vec::new(), key));
                    if *first == key
                        && names.len() < MAX_TICKET_SERVERS
                        && let Ok(name) = name.parse()
                    {
                        names.push(name);
                    }
                }
                None if open => {}
                None => {
                    return Err(NodeError::NoServerKey {
                        server: server.clone(),
                    });
                }
            }
            servers.extend(found);
        }
        let (socket, listener) = bind_both(self.bind, self.allow_open_peers).await?;
        let local = socket.local_addr().map_err(|cause| NodeError::Bind {
            address: self.bind,
            cause,
        })?;

        let tls = match &who {
            Resolved::Open(_) => None,
            Resolved::Sealed(sealing, _) => Some(ControlTls {
                identity: vmdt_tls::Identity::from_seed(&sealing.identity.seed())
                    .map_err(NodeError::Tls)?,
                keys,
            }),
        };
        let (mut config, prekey_file) = match who {
            Resolved::Open(id) => (CoreConfig::new(id, local.port(), servers), None),
            Resolved::Sealed(sealing, prekey_file) => {
                let mut addresses = self.addresses;
                if local.ip().is_unspecified() {
                    addresses.extend(towards(servers.first(), local.port()));
                }
                (
                    CoreConfig::sealed(sealing.addresses(addresses), local.port(), servers),
                    prekey_file,
                )
            }
        };
        let id = config.id();
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
            .set_allow_open_peers(self.allow_open_peers)
            .set_allow_direct(self.allow_direct)
            .set_min_distinct_networks(self.min_distinct_networks)
            .set_rate_limit(self.rate_limit);
        config.set_express(self.express);
        if let Some(fraction) = self.hedging {
            config.set_hedging(fraction);
        }
        if let Some(probability) = self.delivery {
            config.set_delivery(probability);
        }
        for (member, operator) in self.operators {
            config.set_operator(member, operator);
        }
        if let Some(transport) = self.transport {
            config.set_transport(transport);
        }
        config.set_health_checks(self.health_checks)?;
        if let Some(time) = self.expiry {
            config.set_expiry(time)?;
        }
        if let Some(time) = self.repair_after {
            config.set_repair_after(time)?;
        }
        let downloads = self.downloads.clone();
        let (core, store) = open_core(config, self.storage, downloads).await?;

        if open || self.allow_open_peers {
            tracing::warn!(
                own = open,
                peers = self.allow_open_peers,
                "profile 1.0 is configured: what goes by it is neither encrypted nor authenticated"
            );
        }
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events_in, events) = mpsc::channel(EVENTS);
        let (changed, watch) = watch::channel(0);
        let loss = Loss::new(self.loss.0, self.loss.1);
        let (dropped, sent) = (Arc::clone(&loss.dropped), Arc::clone(&loss.sent));
        let driver = Driver {
            core,
            store,
            socket,
            listener,
            commands: inbox,
            events: events_in,
            changed,
            downloads: self.downloads,
            prekey_file,
            tls,
            loss,
        };
        tokio::spawn(driver.run());
        Ok(Node::new(Inner {
            id,
            servers: if open { None } else { named },
            local,
            commands,
            events: Mutex::new(events),
            changed: watch,
            dropped,
            sent,
        }))
    }
}

enum Resolved {
    Open(NodeId),
    Sealed(Box<Sealing>, Option<PathBuf>),
}

impl NodeBuilder {
    /// Reads or makes the key.
    async fn resolve(&self) -> Result<Resolved, NodeError> {
        let mut rng = ChaCha20Rng::from_seed(seed()?);
        let (identity, file) = match &self.who {
            Who::Open(id) => {
                let plain = id.parse().ok().filter(|id: &NodeId| !id.is_sealed());
                let id = plain.ok_or_else(|| NodeError::Id(id.clone()))?;
                return Ok(Resolved::Open(id));
            }
            Who::Ephemeral if self.storage.is_none() => (SecretIdentity::generate(&mut rng), None),
            Who::Key(identity) => (SecretIdentity::clone(identity), None),
            Who::File(_) | Who::Ephemeral => {
                let folder = self.storage.clone();
                let path = match &self.who {
                    Who::File(path) => path.clone(),
                    _ => folder.clone().unwrap_or_default().join(IDENTITY_FILE),
                };
                let loaded = tokio::task::spawn_blocking(move || {
                    if let Some(folder) = folder {
                        // if it can't be made, the key's file says why
                        let _ = std::fs::create_dir_all(folder);
                    }
                    let (identity, _) = keyfile::load_or_create(&path, &mut rng)?;
                    let mut prekey_file = path.into_os_string();
                    prekey_file.push(".prekeys");
                    let prekey_file = PathBuf::from(prekey_file);
                    let prekeys = match keyfile::load_prekeys(&prekey_file)? {
                        Some(prekeys) => prekeys,
                        None => {
                            // kept before anybody seals to them
                            let config = PrekeyConfig::default();
                            let prekeys = PrekeyStore::new(config, unix_ms(), &mut rng);
                            keyfile::store_prekeys(&prekey_file, &prekeys)?;
                            prekeys
                        }
                    };
                    Ok::<_, KeyFileError>((identity, prekeys, prekey_file))
                });
                let (identity, prekeys, prekey_file) = loaded
                    .await
                    .map_err(|_| NodeError::Closed)?
                    .map_err(NodeError::Identity)?;
                (identity, Some((prekeys, prekey_file)))
            }
        };
        let mut sealing = Sealing::new(identity, now(), unix_ms()).name(&self.name);
        let mut prekey_file = None;
        if let Some((prekeys, path)) = file {
            prekey_file = Some(path);
            sealing = sealing.prekeys(prekeys);
        }
        Ok(Resolved::Sealed(Box::new(sealing), prekey_file))
    }
}

/// The address from which this machine reaches a server, with this port. No packet is sent.
fn towards(server: Option<&SocketAddr>, port: u16) -> Option<SocketAddr> {
    let server = server?;
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then(|| SocketAddr::new(ip, port))
}

/// A core in memory, or one with what the last run left.
async fn open_core(
    config: CoreConfig,
    storage: Option<PathBuf>,
    downloads: Option<PathBuf>,
) -> Result<(Core, Option<Box<dyn Store + Send>>), NodeError> {
    let seed = seed()?;
    let Some(folder) = storage else {
        return Ok((Core::new(config, seed), None));
    };
    let anchor = Anchor {
        at: now(),
        unix: Duration::from_millis(unix_ms()),
    };
    let opened = tokio::task::spawn_blocking(move || {
        let fail = |cause| NodeError::Storage {
            folder: folder.clone(),
            cause,
        };
        std::fs::create_dir_all(&folder)
            .map_err(|e| fail(OpenError::from(StorageError::from(e.kind()))))?;
        let file = folder.join(STORE_FILE);
        let store = RedbStore::open(file, Options::default()).map_err(fail)?;
        let (core, recovered) =
            Core::restore(config, seed, anchor, &store).map_err(NodeError::Restore)?;
        tracing::debug!(?recovered, "went on with what was kept");
        if let Some(downloads) = downloads {
            crate::parts::clean(&downloads, core.id(), &core.kept_parts());
        }
        let store: Box<dyn Store + Send> = Box::new(store);
        Ok((core, Some(store)))
    });
    opened.await.map_err(|_| NodeError::Closed)?
}

fn seed() -> Result<[u8; 32], NodeError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(NodeError::Randomness)?;
    Ok(seed)
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
