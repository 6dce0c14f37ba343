//! What a server is made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use vmdt_control::{Registry, RegistryConfig};
use vmdt_tls::Identity;

use crate::actor::{self, Actor};
use crate::connection::{Acceptor, Door};
use crate::error::ServerError;
use crate::gate::Gate;
use crate::http::{self, Http};
use crate::metrics::Counters;
use crate::notify::notify;
use crate::server::Server;
use crate::store::{News, Store};

/// Connections that may wait in the system's queue of a port.
const BACKLOG: u32 = 4_096;

/// Connections beyond those of the registry that may be open to be refused with a reason, or in
/// their handshake.
const MARGIN: usize = 256;

/// Limits that hold before a connection reaches the registry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Connections open at once from one address; an IPv6 address counts as its /64 (default
    /// 1,024).
    pub connections_per_address: usize,
    /// Connections that one address may open per second (default 50; at least 1).
    pub opens_per_second: u32,
    /// Connections that one address may open at once after a pause (default 1,024; at least 1).
    pub opens_at_once: u32,
    /// How long a TLS handshake may take (default 10 s).
    pub handshake: Duration,
    /// How long closing the server waits for what is still to be written (default 5 s).
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_per_address: 1_024,
            opens_per_second: 50,
            opens_at_once: 1_024,
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// A server about to be started.
#[derive(Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct ServerBuilder {
    plain: Option<SocketAddr>,
    tls: Option<(SocketAddr, Seed)>,
    http: Option<(SocketAddr, Option<String>)>,
    registry: RegistryConfig,
    limits: Limits,
    store: Option<Box<dyn Store>>,
    /// Endpoints and prefix.
    #[cfg(feature = "etcd")]
    etcd: Option<(Vec<String>, String)>,
}

/// An Ed25519 seed, wiped when it is not needed any more.
type Seed = vmdt_seal::identity::SecretIdentity;

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("plain", &self.plain)
            .field("tls", &self.tls.as_ref().map(|(address, _)| address))
            .field("http", &self.http.as_ref().map(|(address, _)| address))
            .field("registry", &self.registry)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Listens for profile 1.0, unprotected (default: no). Port 0 lets the system pick.
    pub fn plain(mut self, address: SocketAddr) -> ServerBuilder {
        self.plain = Some(address);
        self
    }

    /// Listens for profile 1.1 under TLS (default: no). `seed` is the Ed25519 seed of the server's
    /// identity key, whose public key clients pin.
    pub fn tls(mut self, address: SocketAddr, seed: &[u8; 32]) -> ServerBuilder {
        self.tls = Some((address, Seed::from_seed(seed)));
        self
    }

    /// Answers HTTP for operators (default: no), unprotected: listen on the loopback, or behind
    /// something that protects it. `/clusters.json` is given only to who shows `token` as bearer
    /// token, so without one to nobody.
    pub fn http(mut self, address: SocketAddr, token: Option<String>) -> ServerBuilder {
        self.http = Some((address, token));
        self
    }

    /// Limits of the registry.
    pub fn registry(mut self, config: RegistryConfig) -> ServerBuilder {
        self.registry = config;
        self
    }

    /// Limits before the registry.
    pub fn limits(mut self, limits: Limits) -> ServerBuilder {
        self.limits = limits;
        self
    }

    /// Keeps the state there (default: nowhere, so that a restart forgets it).
    pub fn store(mut self, store: impl Store) -> ServerBuilder {
        self.store = Some(Box::new(store));
        self
    }

    /// Keeps the state in the etcd of these endpoints, under a prefix, together with the other
    /// servers that do (default: no): as [`store`](Self::store) with an
    /// [`EtcdStore`](crate::EtcdStore) that is opened when the server starts.
    #[cfg(feature = "etcd")]
    pub fn etcd(mut self, endpoints: Vec<String>, prefix: &str) -> ServerBuilder {
        self.etcd = Some((endpoints, prefix.to_owned()));
        self
    }

    /// Reads the state kept before, opens the ports and begins to serve.
    ///
    /// # Errors
    /// No port is configured, one cannot be listened on, or the store cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start(self) -> Result<Server, ServerError> {
        if self.plain.is_none() && self.tls.is_none() {
            return Err(ServerError::NoPort);
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(ServerError::Randomness)?;
        let plain = self.plain.map(listen).transpose()?;
        let tls = match &self.tls {
            None => None,
            Some((address, identity)) => {
                let identity = Identity::from_seed(&identity.seed()).map_err(ServerError::Tls)?;
                let config = vmdt_tls::server_config(&identity).map_err(ServerError::Tls)?;
                let key = *identity.public_key();
                Some((listen(*address)?, TlsAcceptor::from(config), key))
            }
        };
        let http = match self.http {
            None => None,
            Some((address, token)) => Some((listen(address)?, token)),
        };

        let most = self.registry.connections();
        let mut registry = Registry::new(self.registry, seed);
        registry.handle_clock(crate::now(), crate::unix_ms());
        let mut store = self.store;
        #[cfg(feature = "etcd")]
        if let Some((endpoints, prefix)) = &self.etcd {
            let found = crate::EtcdStore::open(endpoints, prefix).await;
            store = Some(Box::new(found.map_err(ServerError::Store)?));
        }
        let mut shared = store.as_mut().and_then(|store| store.share());
        if let Some(shared) = &mut shared {
            registry.begin_sharing();
            // A store that was lost again meanwhile is told of later: clients are sent away.
            if let Some(News::Attached(records)) = shared.news.recv().await {
                let restored = registry.handle_attached(crate::now(), records);
                tracing::info!(?restored, "the state that is shared");
            }
        } else if let Some(found) = &mut store {
            let records = found.load().map_err(ServerError::Store)?;
            let restored = registry.restore(crate::now(), records);
            tracing::info!(?restored, "the state kept before");
            registry.begin_recording();
        }

        let counters = Arc::new(Counters::default());
        let (inputs, arrivals) = mpsc::channel(actor::INBOUND);
        let (sent, progress) = mpsc::unbounded_channel();
        let (commands, requests) = mpsc::channel(actor::COMMANDS);
        let (events, taken) = mpsc::channel(actor::EVENTS);
        let acceptor = Acceptor::new(
            inputs,
            sent,
            Gate::new(self.limits.clone()),
            Arc::clone(&counters),
            self.limits.handshake,
            most.saturating_add(MARGIN),
        );
        let addresses = Addresses {
            plain: plain.as_ref().map(local).transpose()?,
            tls: tls
                .as_ref()
                .map(|(listener, ..)| local(listener))
                .transpose()?,
            http: http
                .as_ref()
                .map(|(listener, _)| local(listener))
                .transpose()?,
            key: tls.as_ref().map(|(.., key)| *key),
        };
        let mut tasks = tokio::task::JoinSet::new();
        if let Some(listener) = plain {
            tasks.spawn(acceptor.clone().run(listener, Door::Plain));
        }
        if let Some((listener, tls, _)) = tls {
            tasks.spawn(acceptor.clone().run(listener, Door::Tls(tls)));
        }
        if let Some((listener, token)) = http {
            let http = Http::new(commands.clone(), Arc::clone(&counters), token);
            tasks.spawn(http::run(http, listener));
        }
        let actor = Actor::new(registry, store, shared, events, Arc::clone(&counters));
        let drain = self.limits.drain;
        tokio::spawn(actor.run(arrivals, progress, requests, acceptor, tasks, drain));
        notify("READY=1");
        Ok(Server::new(addresses, commands, taken))
    }
}

/// Where a server can be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) key: Option<[u8; 32]>,
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let open = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart does not wait for the connections of the last run to fade.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|cause| ServerError::Bind { address, cause })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, ServerError> {
    listener.local_addr().map_err(|cause| ServerError::Bind {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        cause,
    })
}
