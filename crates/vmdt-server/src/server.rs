//! The handle.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use vmdt_control::{RegistryConfig, RegistryEvent};
use vmdt_seal::identity::PublicIdentity;
use zeroize::Zeroizing;

use crate::actor::Command;
use crate::builder::{Addresses, ServerBuilder};
use crate::error::ServerError;

/// A running server.
///
/// A handle, cheap to clone; the server closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Server {
    addresses: Addresses,
    commands: mpsc::Sender<Command>,
    events: Arc<Mutex<mpsc::Receiver<RegistryEvent>>>,
    /// Dropped with the last handle: other senders of commands do not keep the server up.
    _alive: Arc<Alive>,
}

#[derive(Debug)]
struct Alive(mpsc::Sender<Command>);

impl Drop for Alive {
    fn drop(&mut self) {
        // Full only of requests of the HTTP port, which the actor answers in no time.
        let commands = self.0.clone();
        if commands.try_send(Command::Close(None)).is_err()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { commands.send(Command::Close(None)).await.is_ok() });
        }
    }
}

impl Server {
    pub(crate) fn new(
        addresses: Addresses,
        commands: mpsc::Sender<Command>,
        events: mpsc::Receiver<RegistryEvent>,
    ) -> Server {
        Server {
            addresses,
            _alive: Arc::new(Alive(commands.clone())),
            commands,
            events: Arc::new(Mutex::new(events)),
        }
    }

    /// A server to be configured.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Listens for profile 1.1 under TLS, with the default limits and a key made for this run:
    /// [`url`](Self::url) tells it. Port 0 lets the system pick. A server that is to keep its key
    /// comes from the [`builder`](Self::builder).
    ///
    /// # Errors
    /// [`ServerError::Bind`] when the address cannot be used.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn bind(address: SocketAddr) -> Result<Server, ServerError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(ServerError::Randomness)?;
        Server::builder().tls(address, &seed).start().await
    }

    /// Listens for profile 1.0 only, unprotected, with the default limits. Port 0 lets the system
    /// pick.
    ///
    /// # Errors
    /// [`ServerError::Bind`] when the address cannot be used.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn open(address: SocketAddr) -> Result<Server, ServerError> {
        Server::open_with(address, RegistryConfig::default()).await
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn open_with(
        address: SocketAddr,
        config: RegistryConfig,
    ) -> Result<Server, ServerError> {
        Server::builder()
            .plain(address)
            .registry(config)
            .start()
            .await
    }

    /// The address of the port for clients: that for TLS, or the plain one if there is no other.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let Addresses { plain, tls, .. } = self.addresses;
        // A server without a port does not start.
        tls.or(plain)
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// The address of the plain port.
    #[must_use]
    pub fn plain_addr(&self) -> Option<SocketAddr> {
        self.addresses.plain
    }

    /// The address of the TLS port.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.addresses.tls
    }

    /// The address of the HTTP port.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.addresses.http
    }

    /// The public key that clients of the TLS port pin.
    #[must_use]
    pub fn public_key(&self) -> Option<&[u8; 32]> {
        self.addresses.key.as_ref()
    }

    /// What a node of profile 1.1 needs to find and recognise the server,
    /// `vmdt://KEY@address:port`; `None` without a TLS port. The address is the one listened on:
    /// for `0.0.0.0` say one that others can reach.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let key = PublicIdentity::from_octets(*self.public_key()?).ok()?;
        Some(format!("vmdt://{key}@{}", self.tls_addr()?))
    }

    /// What happens at the server, for logs; `None` once it is closed. Events that nobody reads
    /// are dropped.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_event(&self) -> Option<RegistryEvent> {
        self.events.lock().await.recv().await
    }

    /// Stops accepting, tells every client that the server ends, writes what is still to be
    /// written, and closes: within [`Limits::drain`](crate::Limits::drain). Closing again does
    /// nothing.
    ///
    /// # Cancel safety
    /// The server closes also when the future is dropped.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self
            .commands
            .send(Command::Close(Some(reply)))
            .await
            .is_ok()
        {
            let _ = done.await;
        }
    }
}
