//! Connections: accepted, proven, read, written, ended.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use vmdt_control::ConnId;
use vmdt_seal::identity::PublicIdentity;
use vmdt_tls::Failure;
use vmdt_wire::NodeId;

use crate::actor::Input;
use crate::gate::{Gate, Pass};
use crate::metrics::Counters;

/// Octets read at once: on the stack of whoever polls, not in the connection.
const CHUNK: usize = 16 * 1024;
/// How long an ended connection may take to take its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the other side has to close after us, so that the system does not throw away what it
/// has not read yet.
const LINGER: Duration = Duration::from_millis(500);

/// Said to who speaks plainly at the TLS port.
const TLS_ONLY: &[u8] = b"ERROR|unauthenticated: this port speaks TLS only\n";
/// What every TLS connection starts with.
const TLS_HANDSHAKE: u8 = 0x16;

/// How connections of a port begin.
#[derive(Clone)]
pub(crate) enum Door {
    Plain,
    Tls(TlsAcceptor),
}

/// Accepts connections and runs them.
#[derive(Clone)]
pub(crate) struct Acceptor {
    inputs: mpsc::Sender<Input>,
    sent: mpsc::UnboundedSender<(ConnId, usize)>,
    gate: Gate,
    counters: Arc<Counters>,
    handshake: Duration,
    places: Arc<Semaphore>,
    most: u32,
    next: Arc<AtomicU64>,
    phase: watch::Sender<Phase>,
}

/// How far the server is with closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// Handshakes are given up.
    Closing,
    /// Everything is.
    Cut,
}

impl Acceptor {
    /// `most`: connections open at once. Nobody is accepted while there are so many.
    pub(crate) fn new(
        inputs: mpsc::Sender<Input>,
        sent: mpsc::UnboundedSender<(ConnId, usize)>,
        gate: Gate,
        counters: Arc<Counters>,
        handshake: Duration,
        most: usize,
    ) -> Acceptor {
        let most = u32::try_from(most.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Acceptor {
            inputs,
            sent,
            gate,
            counters,
            handshake,
            places: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX))),
            most,
            next: Arc::new(AtomicU64::new(1)),
            phase: watch::Sender::new(Phase::Open),
        }
    }

    /// Until it is aborted.
    pub(crate) async fn run(self, listener: TcpListener, door: Door) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: let some connections end first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            self.counters.accepted.fetch_add(1, Relaxed);
            let Some(pass) = self.gate.enter(crate::now(), peer.ip()) else {
                self.counters.turned_away.fetch_add(1, Relaxed);
                continue;
            };
            let conn = ConnId(self.next.fetch_add(1, Relaxed));
            let guest = Guest {
                conn,
                peer,
                inputs: self.inputs.clone(),
                sent: self.sent.clone(),
                phase: self.phase.subscribe(),
                _pass: pass,
            };
            let (door, counters, handshake) =
                (door.clone(), Arc::clone(&self.counters), self.handshake);
            tokio::spawn(async move {
                let _place = place;
                let tls = match door {
                    Door::Plain => return guest.serve(stream, None).await,
                    Door::Tls(tls) => tls,
                };
                let mut phase = guest.phase.clone();
                let entered = tokio::select! {
                    // Boxed: the handshake's memory goes with it.
                    entered = Box::pin(enter(tls, stream, handshake)) => entered,
                    _ = phase.wait_for(|phase| *phase > Phase::Open) => return,
                };
                drop(phase);
                match entered {
                    Ok((stream, id)) => guest.serve(stream, Some(id)).await,
                    Err(failure) => {
                        counters.handshakes_failed.fetch_add(1, Relaxed);
                        tracing::debug!(%peer, %failure, "a handshake failed");
                    }
                }
            });
        }
    }

    /// Waits until all connections have ended.
    pub(crate) async fn all_gone(&self) {
        let _ = self.places.acquire_many(self.most).await;
    }

    /// Ends what has not finished its handshake.
    pub(crate) fn turn_away(&self) {
        self.phase.send_replace(Phase::Closing);
    }

    /// Ends all connections at once.
    pub(crate) fn cut(&self) {
        self.phase.send_replace(Phase::Cut);
    }
}

/// Does the handshake and says who the client is.
async fn enter(
    tls: TlsAcceptor,
    mut stream: TcpStream,
    limit: Duration,
) -> Result<(Box<tokio_rustls::server::TlsStream<TcpStream>>, NodeId), Failure> {
    let handshake = async {
        let mut first = [0];
        stream.peek(&mut first).await.map_err(|e| Failure::of(&e))?;
        if first != [TLS_HANDSHAKE] {
            let farewell = async {
                stream.write_all(TLS_ONLY).await?;
                end(&mut stream).await
            };
            let _: Result<io::Result<()>, _> = timeout(LAST_WORDS, farewell).await;
            return Err(Failure::NotTls);
        }
        let _ = stream.set_nodelay(true);
        let stream = tls.accept(stream).await.map_err(|e| Failure::of(&e))?;
        let key = vmdt_tls::peer_key(stream.get_ref().1).map_err(|_| Failure::Incompatible)?;
        // A key of small order passes no signature check; said here once more.
        let key = PublicIdentity::from_octets(key).map_err(|_| Failure::NoClientKey)?;
        Ok((Box::new(stream), key.node_id()))
    };
    timeout(limit, handshake)
        .await
        .unwrap_or(Err(Failure::Ended))
}

/// Closes our direction and waits a little for the other side to close its own.
async fn end<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let rest = std::future::poll_fn(|cx| {
        loop {
            if ready!(read(Pin::new(stream), cx))?.is_empty() {
                return Poll::Ready(io::Result::Ok(()));
            }
        }
    });
    timeout(LINGER, rest).await.unwrap_or(Ok(()))
}

/// Reads what is there, through a buffer on the stack; empty at the end.
fn read<S: AsyncRead>(stream: Pin<&mut S>, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut chunk = [std::mem::MaybeUninit::uninit(); CHUNK];
    let mut chunk = ReadBuf::uninit(&mut chunk);
    ready!(stream.poll_read(cx, &mut chunk))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(chunk.filled())))
}

/// An open connection.
struct Guest {
    conn: ConnId,
    peer: SocketAddr,
    inputs: mpsc::Sender<Input>,
    sent: mpsc::UnboundedSender<(ConnId, usize)>,
    phase: watch::Receiver<Phase>,
    _pass: Pass,
}

/// Why polling a connection has ended.
enum Step {
    Read(Bytes),
    /// The other side sends no more, or the connection broke.
    Ended,
    /// The registry has ended it, and everything is written.
    Written,
}

impl Guest {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        mut stream: S,
        identity: Option<NodeId>,
    ) {
        let (writer, mut queue) = mpsc::unbounded_channel();
        let opened = Input::Opened {
            conn: self.conn,
            peer: self.peer,
            identity,
            writer,
        };
        if self.inputs.send(opened).await.is_err() {
            return;
        }
        let mut current = Bytes::new();
        let mut phase = self.phase.clone();
        // Polled often, registered once.
        let cut = phase.wait_for(|phase| *phase == Phase::Cut);
        tokio::pin!(cut);
        let written = loop {
            let step = std::future::poll_fn(|cx| {
                self.poll(Pin::new(&mut stream), &mut queue, &mut current, cx)
            });
            let step = tokio::select! {
                step = step => step,
                _ = &mut cut => return,
            };
            match step {
                Step::Read(bytes) => {
                    let conn = self.conn;
                    if self
                        .inputs
                        .send(Input::Bytes { conn, bytes })
                        .await
                        .is_err()
                    {
                        break false;
                    }
                }
                Step::Ended => break false,
                Step::Written => break true,
            }
        };
        if !written {
            let conn = self.conn;
            let _ = self.inputs.send(Input::Closed { conn }).await;
        }
        let last_words = async {
            if !written {
                stream.write_all(&current).await?;
                while let Some(bytes) = queue.recv().await {
                    stream.write_all(&bytes).await?;
                }
                stream.flush().await?;
            }
            end(&mut stream).await
        };
        let _: Result<io::Result<()>, _> = timeout(LAST_WORDS, last_words).await;
    }

    /// Writes what there is to write, then reads.
    fn poll<S: AsyncRead + AsyncWrite>(
        &self,
        mut stream: Pin<&mut S>,
        queue: &mut mpsc::UnboundedReceiver<Bytes>,
        current: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Step> {
        let mut done = 0;
        let ended = loop {
            if current.is_empty() {
                match queue.poll_recv(cx) {
                    Poll::Ready(Some(bytes)) => *current = bytes,
                    Poll::Ready(None) => break true,
                    Poll::Pending => break false,
                }
            }
            match stream.as_mut().poll_write(cx, current) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Step::Ended),
                Poll::Ready(Ok(written)) => {
                    current.advance(written);
                    done += written;
                }
                Poll::Pending => break false,
            }
        };
        if done > 0 {
            let _ = self.sent.send((self.conn, done));
        }
        // Costs nothing where nothing is buffered.
        let flushed = match stream.as_mut().poll_flush(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return Poll::Ready(Step::Ended),
            Poll::Pending => false,
        };
        if ended {
            return match flushed {
                true => Poll::Ready(Step::Written),
                false => Poll::Pending,
            };
        }
        match ready!(read(stream, cx)) {
            Ok(bytes) if !bytes.is_empty() => Poll::Ready(Step::Read(bytes)),
            Ok(_) | Err(_) => Poll::Ready(Step::Ended),
        }
    }
}
