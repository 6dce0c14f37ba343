//! The server's driver: accepts connections and feeds the [`Registry`].

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use vmdt_control::{ConnId, Registry, RegistryConfig, RegistryEvent, RegistryOutput};

use crate::driver::now;
use crate::handle::NodeError;

/// Pieces of input that wait for the registry: whoever sends more waits.
const INBOUND: usize = 256;
/// Events that wait for the application; later ones are dropped.
const EVENTS: usize = 1024;
/// How long closing waits for what is still to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

enum Input {
    Opened {
        conn: ConnId,
        peer: SocketAddr,
        writer: mpsc::UnboundedSender<Bytes>,
        stop: oneshot::Sender<()>,
    },
    Bytes {
        conn: ConnId,
        bytes: Bytes,
    },
    Closed {
        conn: ConnId,
    },
}

/// A running server.
///
/// A handle; the server closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Server {
    local: SocketAddr,
    close: mpsc::Sender<oneshot::Sender<()>>,
    events: Arc<Mutex<mpsc::Receiver<RegistryEvent>>>,
}

struct Conn {
    writer: mpsc::UnboundedSender<Bytes>,
    /// Dropped to end the connection's task.
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// Listens on an address (`host:port`; port 0 lets the system pick) with the default limits.
    ///
    /// # Errors
    /// [`NodeError::Bind`] when the address can't be used.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn bind(address: SocketAddr) -> Result<Server, NodeError> {
        Server::bind_with(address, RegistryConfig::default()).await
    }

    /// Listens with other limits.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn bind_with(
        address: SocketAddr,
        config: RegistryConfig,
    ) -> Result<Server, NodeError> {
        let fail = |cause| NodeError::Bind { address, cause };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let local = listener.local_addr().map_err(fail)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(NodeError::Randomness)?;
        let (close, closing) = mpsc::channel(1);
        let (events_in, events) = mpsc::channel(EVENTS);
        let registry = Registry::new(config, seed);
        tokio::spawn(run(registry, listener, closing, events_in));
        Ok(Server {
            local,
            close,
            events: Arc::new(Mutex::new(events)),
        })
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What happens at the server, for logs; `None` once it is closed. Events nobody reads are
    /// dropped.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_event(&self) -> Option<RegistryEvent> {
        self.events.lock().await.recv().await
    }

    /// Stops listening and closes all connections, within about a second. Closing again does
    /// nothing.
    ///
    /// # Cancel safety
    /// The server closes also when the future is dropped.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.close.send(reply).await.is_ok() {
            let _ = done.await;
        }
    }
}

async fn run(
    mut registry: Registry,
    listener: TcpListener,
    mut closing: mpsc::Receiver<oneshot::Sender<()>>,
    events: mpsc::Sender<RegistryEvent>,
) {
    let (inputs, mut arrivals) = mpsc::channel(INBOUND);
    let (sent, mut progress) = mpsc::unbounded_channel::<(ConnId, usize)>();
    let mut conns: BTreeMap<ConnId, Conn> = BTreeMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut next = 0u64;
    let reply = loop {
        while let Some(output) = registry.poll_output() {
            match output {
                RegistryOutput::Write { conn, bytes } => {
                    if let Some(c) = conns.get(&conn) {
                        let _ = c.writer.send(bytes);
                    }
                }
                RegistryOutput::Close { conn } => {
                    conns.remove(&conn);
                }
            }
        }
        while let Some(event) = registry.poll_event() {
            let _ = events.try_send(event);
        }
        let deadline = registry.poll_timeout();
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reply = closing.recv() => break reply,
            Some((conn, octets)) = progress.recv() => {
                registry.handle_sent(now(), conn, octets);
            }
            Some(input) = arrivals.recv() => match input {
                Input::Opened { conn, peer, writer, stop } => {
                    conns.insert(conn, Conn { writer, _stop: stop });
                    registry.handle_open(now(), conn, peer);
                }
                Input::Bytes { conn, bytes } => registry.handle_bytes(now(), conn, &bytes),
                Input::Closed { conn } => {
                    conns.remove(&conn);
                    registry.handle_closed(now(), conn);
                }
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    next += 1;
                    tasks.spawn(connection(ConnId(next), peer, stream, inputs.clone(), sent.clone()));
                }
                Err(error) => {
                    // out of descriptors, mostly: let some connections end first
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = tasks.join_next(), if !tasks.is_empty() => {}
            () = sleep => registry.handle_timeout(now()),
        }
    };
    conns.clear();
    drop(listener);
    arrivals.close();
    let rest = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
    if let Some(reply) = reply {
        let _ = reply.send(());
    }
}

/// One connection, from its beginning to its end.
async fn connection(
    conn: ConnId,
    peer: SocketAddr,
    stream: TcpStream,
    inputs: mpsc::Sender<Input>,
    sent: mpsc::UnboundedSender<(ConnId, usize)>,
) {
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.into_split();
    let (lines, mut queue) = mpsc::unbounded_channel::<Bytes>();
    let (stop, stopped) = oneshot::channel();
    if inputs
        .send(Input::Opened {
            conn,
            peer,
            writer: lines,
            stop,
        })
        .await
        .is_err()
    {
        return;
    }
    let write = async move {
        while let Some(bytes) = queue.recv().await {
            writer.write_all(&bytes).await?;
            let _ = sent.send((conn, bytes.len()));
        }
        writer.shutdown().await
    };
    let forward = inputs.clone();
    let read = async move {
        loop {
            let mut bytes = BytesMut::with_capacity(16 * 1024);
            match reader.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    if forward
                        .send(Input::Bytes {
                            conn,
                            bytes: bytes.freeze(),
                        })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        }
    };
    tokio::pin!(write);
    let _: io::Result<()> = tokio::select! {
        () = read => Ok(()),
        done = &mut write => done,
        // what was queued before the close is still written, within a bound
        _ = stopped => tokio::time::timeout(CLOSE_TIMEOUT, write).await.unwrap_or(Ok(())),
    };
    let _ = inputs.send(Input::Closed { conn }).await;
}
