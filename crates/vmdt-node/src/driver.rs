//! The driver: sockets, timers and channels around the [`Core`]. It decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use vmdt_control::{MemberOutput, Reply, Request, RequestError, RequestId};
use vmdt_pool::{OpId, Persist, StorageError, Store};
use vmdt_wire::{MessageId, NodeId};

use crate::core::{
    ClusterError, Content as KeptContent, ContentHash, Core, Event, Kind, Output, PeerConn,
    Progress, Receipt, SendOptions, SinkOp, TransferError,
};
use crate::files::{PartFile, SourceFile};
use crate::handle::{ClusterStatus, MemberStatus, PathReport};
use crate::keeping::{self, Kept};
use crate::socket::{Received, Socket};

/// Reports taken before the sockets are looked at again.
const REPORT_BATCH: usize = 64;
/// Datagrams written before anything else is looked at.
const SEND_BATCH: usize = 256;
/// Pieces of TCP input that wait for the core.
const INBOUND: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a line to a 1.0 peer may take.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node that closes waits for its peers to have heard what they need to know.
const LINGER: Duration = Duration::from_millis(800);
/// How long the rest of closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection to the TCP port may stay open.
const PEER_CONN_TIMEOUT: Duration = Duration::from_secs(30);

/// The clock of everything above the machines.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, by the system's clock.
#[allow(clippy::disallowed_methods)]
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Who is to get something.
pub(crate) enum To {
    One(NodeId),
    Several(Vec<NodeId>),
}

impl To {
    fn all(&self) -> BTreeSet<NodeId> {
        match self {
            To::One(to) => BTreeSet::from([*to]),
            To::Several(to) => to.iter().copied().collect(),
        }
    }
}

/// What a handle asks of the driver.
pub(crate) enum Command {
    Request {
        request: Request,
        reply: oneshot::Sender<Result<Reply, RequestError>>,
    },
    Send {
        to: To,
        content: Content,
        options: SendOptions,
        reply: oneshot::Sender<Result<Started, TransferError>>,
    },
    /// Handles for the transfers of an earlier run that nobody holds one for.
    Resumed(oneshot::Sender<Vec<Started>>),
    Cancel(MessageId),
    /// Asks the server for what the core makes of this.
    Ask {
        make: MakeRequest,
        reply: Asked,
    },
    /// Hands on what arrives under a code number; `None` when it is void.
    CodeListen(u16, mpsc::UnboundedSender<Option<Bytes>>),
    /// Gives a code number back.
    CodeClose(u16),
    /// Looks at the core, or tells it something.
    With(Look),
    Status(oneshot::Sender<Vec<ClusterStatus>>),
    Paths(oneshot::Sender<Vec<PathReport>>),
    Close(oneshot::Sender<()>),
}

type Look = Box<dyn FnOnce(&mut Core, Instant) + Send>;
type MakeRequest = Box<dyn FnOnce(&mut Core, Instant) -> Result<RequestId, ClusterError> + Send>;
type Asked = oneshot::Sender<Result<Result<Reply, RequestError>, ClusterError>>;

/// Who waits for an answer of the server.
enum Waiting {
    Request(oneshot::Sender<Result<Reply, RequestError>>),
    Asked(Asked),
}

/// How connections to the server are sealed.
pub(crate) struct ControlTls {
    pub(crate) identity: vmdt_tls::Identity,
    /// The keys that the servers must prove.
    pub(crate) keys: BTreeMap<SocketAddr, [u8; 32]>,
}

/// What is to be sent.
pub(crate) enum Content {
    Octets(Bytes),
    File(SourceFile),
}

/// A transfer that was begun.
pub(crate) struct Started {
    pub(crate) id: MessageId,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) done: oneshot::Receiver<Result<Receipt, TransferError>>,
}

/// What the driver's own tasks report.
enum Internal {
    Connected {
        attempt: u64,
        writer: mpsc::UnboundedSender<Bytes>,
        stop: oneshot::Sender<()>,
    },
    ConnectFailed {
        attempt: u64,
        error: io::Error,
    },
    /// Something answered, and is not the server that was meant.
    Refused {
        attempt: u64,
        why: String,
    },
    ControlBytes {
        attempt: u64,
        bytes: Bytes,
    },
    ControlSent {
        attempt: u64,
        octets: usize,
    },
    ControlClosed {
        attempt: u64,
    },
    Data {
        transfer: MessageId,
        result: Result<(Bytes, bool), String>,
    },
    SinkWritten {
        handle: u64,
    },
    SinkFailed {
        handle: u64,
        why: String,
    },
    SinkFinished {
        handle: u64,
        path: PathBuf,
    },
    SinkResumed {
        handle: u64,
        hash: ContentHash,
    },
    Persisted {
        op: OpId,
        result: Result<(), StorageError>,
    },
    LineSent {
        op: u64,
        result: Result<(), String>,
    },
    PeerOpened {
        conn: PeerConn,
        stop: oneshot::Sender<()>,
    },
    PeerBytes {
        conn: PeerConn,
        bytes: Bytes,
    },
    PeerClosed {
        conn: PeerConn,
    },
}

struct OutgoingTransfer {
    /// Asks the reading task for the next octets.
    need: Option<mpsc::UnboundedSender<usize>>,
    octets: Option<Bytes>,
    progress: watch::Sender<Progress>,
    done: Option<oneshot::Sender<Result<Receipt, TransferError>>>,
    /// Of an earlier run: who is to get it, and the reference to its file.
    resumed: Option<(BTreeSet<NodeId>, Bytes)>,
}

struct Control {
    attempt: u64,
    writer: mpsc::UnboundedSender<Bytes>,
    /// Dropped to end the connection's tasks.
    _stop: oneshot::Sender<()>,
}

/// Drops datagrams on purpose, for demonstrations and tests.
pub(crate) struct Loss {
    threshold: u64,
    state: u64,
    pub(crate) dropped: Arc<std::sync::atomic::AtomicU64>,
    pub(crate) sent: Arc<std::sync::atomic::AtomicU64>,
}

impl Loss {
    pub(crate) fn new(fraction: f64, seed: u64) -> Loss {
        let threshold = (fraction.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Loss {
            threshold,
            state: seed | 1,
            dropped: Arc::default(),
            sent: Arc::default(),
        }
    }

    /// Whether the next datagram is lost. The generator is splitmix64.
    fn drops(&mut self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        self.sent.fetch_add(1, Relaxed);
        if self.threshold == 0 {
            return false;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let lost = (z ^ (z >> 31)) < self.threshold;
        if lost {
            self.dropped.fetch_add(1, Relaxed);
        }
        lost
    }
}

pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) socket: Socket,
    pub(crate) listener: Option<TcpListener>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) downloads: Option<PathBuf>,
    pub(crate) prekey_file: Option<PathBuf>,
    pub(crate) tls: Option<ControlTls>,
    pub(crate) loss: Loss,
    pub(crate) store: Option<Box<dyn Store + Send>>,
}

struct State {
    core: Core,
    socket: Socket,
    events: mpsc::Sender<Event>,
    changed: watch::Sender<u64>,
    downloads: Option<PathBuf>,
    prekey_file: Option<PathBuf>,
    tls: Option<ControlTls>,
    loss: Loss,
    /// The thread that commits what is to outlive the process.
    batches: Option<std::sync::mpsc::Sender<Persist>>,
    /// Reports whose number the core's own bounds limit.
    internal: mpsc::UnboundedSender<Internal>,
    /// Octets from outside: whoever sends them waits when the core is behind.
    inbound: mpsc::Sender<Internal>,
    tasks: JoinSet<()>,
    control: Option<Control>,
    requests: BTreeMap<RequestId, Waiting>,
    /// Who waits for what arrives under which code number.
    codes: BTreeMap<u16, mpsc::UnboundedSender<Option<Bytes>>>,
    outgoing: BTreeMap<MessageId, OutgoingTransfer>,
    sinks: BTreeMap<u64, std::sync::mpsc::Sender<SinkOp>>,
    peer_conns: BTreeMap<PeerConn, oneshot::Sender<()>>,
    /// Messages the application has had no room for; unconfirmed, so their number is bounded by
    /// the incoming transfers.
    undelivered: VecDeque<(u64, Event)>,
    buffer: Vec<u8>,
}

impl Driver {
    /// Runs until closed, or until every handle is gone.
    pub(crate) async fn run(self) {
        let (internal, mut reports) = mpsc::unbounded_channel();
        let (inbound, mut arrivals) = mpsc::channel(INBOUND);
        let mut commands = self.commands;
        let listener = self.listener;
        let mut tasks = JoinSet::new();
        let batches = self.store.map(|store| {
            let (batches, inbox) = std::sync::mpsc::channel();
            let internal = internal.clone();
            tasks.spawn_blocking(move || {
                keeping::commit(store, &inbox, |op, result| {
                    let _ = internal.send(Internal::Persisted { op, result });
                });
            });
            batches
        });
        let mut state = State {
            batches,
            core: self.core,
            socket: self.socket,
            events: self.events,
            changed: self.changed,
            downloads: self.downloads,
            prekey_file: self.prekey_file,
            tls: self.tls,
            loss: self.loss,
            internal,
            inbound,
            tasks,
            control: None,
            requests: BTreeMap::new(),
            codes: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            sinks: BTreeMap::new(),
            peer_conns: BTreeMap::new(),
            undelivered: VecDeque::new(),
            buffer: Vec::with_capacity(2048),
        };
        let mut conns = 0u64;
        let mut received: Vec<Received> = Vec::new();
        // the first look lets the control connection begin
        state.core.handle_timeout(now());
        loop {
            let more = state.flush();
            let deadline = state.core.poll_timeout();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let socket = state.socket.io();
            let blocked = state.socket.is_blocked();
            let waiting = !state.undelivered.is_empty();
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Close(reply)) => {
                        state.close(&mut reports).await;
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => state.on_command(command),
                    None => {
                        state.close(&mut reports).await;
                        return;
                    }
                },
                Some(report) = reports.recv() => {
                    state.on_internal(report);
                    // several at once: the machine settles for each, the sockets are looked at once
                    for _ in 0..REPORT_BATCH {
                        match reports.try_recv() {
                            Ok(report) => state.on_internal(report),
                            Err(_) => break,
                        }
                    }
                }
                Some(arrival) = arrivals.recv() => state.on_internal(arrival),
                ready = socket.readable() => {
                    if ready.is_ok() {
                        state.socket.receive(&mut received);
                        state.core.handle_datagrams(now(), received.drain(..));
                    }
                }
                _ = socket.writable(), if blocked => {}
                permit = state.events.clone().reserve_owned(), if waiting => {
                    if let (Ok(permit), Some((handle, event))) = (permit, state.undelivered.pop_front()) {
                        permit.send(event);
                        state.core.taken(now(), handle);
                    }
                }
                accepted = accept(listener.as_ref()) => {
                    conns += 1;
                    state.accepted(PeerConn(conns), accepted);
                }
                _ = state.tasks.join_next(), if !state.tasks.is_empty() => {}
                () = sleep => state.core.handle_timeout(now()),
                () = std::future::ready(()), if more => tokio::task::yield_now().await,
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    loop {
        match listener {
            Some(listener) => match listener.accept().await {
                Ok((stream, _)) => return stream,
                // out of descriptors, or the peer is gone already: look again a little later
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            None => std::future::pending().await,
        }
    }
}

impl State {
    /// Does what the core wants done; true when there is more than fits in one go.
    fn flush(&mut self) -> bool {
        while let Some(output) = self.core.poll_output() {
            self.on_output(output);
        }
        if self.socket.is_blocked() {
            self.send();
            if self.socket.is_blocked() {
                return false;
            }
        }
        for _ in 0..SEND_BATCH {
            let Some(transmit) = self.core.poll_transmit(now(), &mut self.buffer) else {
                self.send();
                return false;
            };
            if !self.loss.drops() {
                self.socket.queue(&transmit, &self.buffer);
            }
        }
        self.send();
        true
    }

    /// Writes what is queued.
    fn send(&mut self) {
        let core = &mut self.core;
        self.socket
            .send(|to, octets| core.datagram_refused(now(), to, octets));
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Control(control) => self.on_control(control),
            Output::Reply { request, result } => {
                match self.requests.remove(&request) {
                    Some(Waiting::Request(reply)) => drop(reply.send(result)),
                    Some(Waiting::Asked(reply)) => drop(reply.send(Ok(result))),
                    None => {}
                }
                self.touch();
            }
            Output::Event(event) => {
                if matches!(
                    event,
                    Event::Registered
                        | Event::ServerLost { .. }
                        | Event::ClusterReady { .. }
                        | Event::ClusterLost { .. }
                        | Event::ClusterState { .. }
                        | Event::Member { .. }
                ) {
                    self.touch();
                }
                if self.events.try_send(event).is_err() {
                    tracing::debug!("an event was dropped: nobody reads them");
                }
            }
            Output::Deliver { handle, event } => {
                if self.undelivered.is_empty() {
                    match self.events.try_send(event) {
                        Ok(()) => self.core.taken(now(), handle),
                        Err(
                            mpsc::error::TrySendError::Full(event)
                            | mpsc::error::TrySendError::Closed(event),
                        ) => self.undelivered.push_back((handle, event)),
                    }
                } else {
                    self.undelivered.push_back((handle, event));
                }
            }
            Output::NeedData { transfer, max } => self.need_data(transfer, max),
            Output::Sink { handle, op } => self.on_sink(handle, op),
            Output::Progress { transfer, progress } => {
                if let Some(out) = self.outgoing.get(&transfer) {
                    out.progress.send_replace(progress);
                }
            }
            Output::Done { transfer, result } => {
                if let Some(mut out) = self.outgoing.remove(&transfer)
                    && let Some(done) = out.done.take()
                {
                    let _ = done.send(result);
                }
            }
            Output::SendLine { op, to, line } => {
                let internal = self.internal.clone();
                self.tasks.spawn(async move {
                    let sent = tokio::time::timeout(LINE_TIMEOUT, async {
                        let mut stream = TcpStream::connect(to).await?;
                        stream.write_all(&line).await?;
                        stream.shutdown().await
                    });
                    let result = match sent.await {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err("no answer".to_owned()),
                    };
                    let _ = internal.send(Internal::LineSent { op, result });
                });
            }
            Output::ClosePeerConn(conn) => {
                self.peer_conns.remove(&conn);
            }
            Output::Code { number, data } => {
                let void = data.is_none();
                if let Some(listener) = self.codes.get(&number) {
                    let _ = listener.send(data);
                }
                if void {
                    self.codes.remove(&number);
                }
            }
            Output::PrekeysChanged => self.save_prekeys(),
            Output::Persist(batch) => {
                if let Some(batches) = &self.batches {
                    let _ = batches.send(batch);
                }
            }
            Output::Resumed {
                transfer,
                to,
                total,
                delivered,
                content,
            } => self.go_on(transfer, to, (delivered, total), content),
        }
    }

    /// Writes the prekeys beside the identity, in the background.
    fn save_prekeys(&mut self) {
        if let Some((path, prekeys)) = self.prekey_file.clone().zip(self.core.prekeys().cloned()) {
            self.tasks.spawn_blocking(move || {
                if let Err(error) = vmdt_seal::keyfile::store_prekeys(&path, &prekeys) {
                    tracing::error!(%error, "the prekeys could not be kept");
                }
            });
        }
    }

    fn touch(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn on_control(&mut self, output: MemberOutput) {
        match output {
            MemberOutput::Connect { attempt, to } => {
                self.control = None;
                let tls = match self.control_tls(to) {
                    Ok(tls) => tls,
                    Err(why) => {
                        let _ = self.internal.send(Internal::Refused { attempt, why });
                        return;
                    }
                };
                let (internal, inbound) = (self.internal.clone(), self.inbound.clone());
                self.tasks
                    .spawn(control_connection((attempt, to), tls, internal, inbound));
            }
            MemberOutput::Write { bytes } => {
                if let Some(control) = &self.control {
                    let _ = control.writer.send(bytes);
                }
            }
            MemberOutput::Close => self.control = None,
        }
    }

    /// How to seal a connection to a server; `None` in profile 1.0.
    fn control_tls(&self, to: SocketAddr) -> Result<Option<TlsConnector>, String> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let key = tls
            .keys
            .get(&to)
            .ok_or_else(|| format!("the key of the server {to} is not known"))?;
        let config = vmdt_tls::client_config(&tls.identity, key).map_err(|e| e.to_string())?;
        Ok(Some(TlsConnector::from(config)))
    }

    fn need_data(&mut self, transfer: MessageId, max: usize) {
        let Some(out) = self.outgoing.get_mut(&transfer) else {
            return;
        };
        if let Some(need) = &out.need {
            let _ = need.send(max);
        } else if let Some(octets) = &mut out.octets {
            let piece = octets.split_to(octets.len().min(max));
            let last = octets.is_empty();
            // not at once: the core is being drained
            let _ = self.internal.send(Internal::Data {
                transfer,
                result: Ok((piece, last)),
            });
        }
    }

    fn on_sink(&mut self, handle: u64, op: SinkOp) {
        if let SinkOp::Open { .. } | SinkOp::Resume { .. } = op {
            let kept = !matches!(op, SinkOp::Open { part: None, .. });
            let Some(folder) = self.downloads.clone() else {
                let why = "this node takes no files: it has no download folder".to_owned();
                let _ = self.internal.send(Internal::SinkFailed { handle, why });
                return;
            };
            let (sender, ops) = std::sync::mpsc::channel();
            let internal = self.internal.clone();
            self.tasks.spawn_blocking(move || match kept {
                true => write_kept(handle, &folder, &ops, &internal),
                false => write_file(handle, &folder, &ops, &internal),
            });
            self.sinks.insert(handle, sender);
        }
        let ends = matches!(op, SinkOp::Finish | SinkOp::Abort);
        if let Some(sink) = self.sinks.get(&handle) {
            let _ = sink.send(op);
        }
        if ends {
            self.sinks.remove(&handle);
        }
    }

    fn on_internal(&mut self, report: Internal) {
        let current = |attempt: u64, control: &Option<Control>| {
            control.as_ref().is_some_and(|c| c.attempt == attempt)
        };
        match report {
            Internal::Connected {
                attempt,
                writer,
                stop,
            } => {
                self.control = Some(Control {
                    attempt,
                    writer,
                    _stop: stop,
                });
                self.core.handle_control_connected(now(), attempt);
            }
            Internal::Refused { attempt, why } => {
                self.core.handle_control_refused(now(), attempt, &why);
            }
            Internal::ConnectFailed { attempt, error } => {
                tracing::debug!(%error, "the server can't be reached");
                self.core
                    .handle_control_failed(now(), attempt, error.kind());
            }
            Internal::ControlBytes { attempt, bytes } if current(attempt, &self.control) => {
                self.core.handle_control_bytes(now(), &bytes);
            }
            Internal::ControlSent { attempt, octets } if current(attempt, &self.control) => {
                self.core.handle_control_sent(now(), octets);
            }
            Internal::ControlClosed { attempt } if current(attempt, &self.control) => {
                self.control = None;
                self.core.handle_control_closed(now());
            }
            Internal::ControlBytes { .. }
            | Internal::ControlSent { .. }
            | Internal::ControlClosed { .. } => {}
            Internal::Data { transfer, result } => match result {
                Ok((data, last)) => self.core.supply(now(), transfer, data, last),
                Err(why) => self.core.source_failed(now(), transfer, &why),
            },
            Internal::SinkWritten { handle } => self.core.sink_written(now(), handle),
            Internal::SinkFailed { handle, why } => {
                self.core.sink_failed(now(), handle, &why);
            }
            Internal::SinkResumed { handle, hash } => {
                self.core.sink_resumed(now(), handle, hash);
            }
            Internal::Persisted { op, result } => self.core.persisted(now(), op, result),
            Internal::SinkFinished { handle, path } => {
                self.core.sink_finished(now(), handle, path);
            }
            Internal::LineSent { op, result } => self.core.line_sent(now(), op, result),
            Internal::PeerOpened { conn, stop } => {
                self.peer_conns.insert(conn, stop);
                self.core.handle_peer_opened(now(), conn);
            }
            Internal::PeerBytes { conn, bytes } => {
                self.core.handle_peer_bytes(now(), conn, &bytes);
            }
            Internal::PeerClosed { conn } => {
                self.peer_conns.remove(&conn);
                self.core.handle_peer_closed(now(), conn);
            }
        }
        while let Some(output) = self.core.poll_output() {
            self.on_output(output);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Request { request, reply } => {
                let id = self.core.request(now(), request);
                self.requests.insert(id, Waiting::Request(reply));
            }
            Command::Ask { make, reply } => match make(&mut self.core, now()) {
                Ok(id) => {
                    self.requests.insert(id, Waiting::Asked(reply));
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::CodeListen(number, listener) => {
                self.codes.insert(number, listener);
            }
            Command::CodeClose(number) => {
                if self.codes.remove(&number).is_some() {
                    let _ = self.core.request(now(), Request::CodeClose(number));
                }
            }
            Command::With(act) => act(&mut self.core, now()),
            Command::Send {
                to,
                content,
                options,
                reply,
            } => {
                let result = self.begin(to, content, options);
                let _ = reply.send(result);
            }
            Command::Resumed(reply) => {
                let unheld: Vec<MessageId> = self
                    .outgoing
                    .iter()
                    .filter(|(_, out)| out.resumed.is_some() && out.done.is_none())
                    .map(|(id, _)| *id)
                    .collect();
                let held = unheld.into_iter().filter_map(|id| self.hold(id));
                let _ = reply.send(held.collect());
            }
            Command::Cancel(transfer) => self.core.cancel(now(), transfer),
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Paths(reply) => {
                let reports = self
                    .core
                    .sessions()
                    .filter_map(|peer| {
                        let stats = self.core.path_stats(peer)?;
                        Some(PathReport { peer, stats })
                    })
                    .collect();
                let _ = reply.send(reports);
            }
            Command::Close(_) => {}
        }
    }

    fn begin(
        &mut self,
        to: To,
        content: Content,
        options: SendOptions,
    ) -> Result<Started, TransferError> {
        let (kind, name, total) = match &content {
            Content::Octets(octets) => (Kind::Octets, String::new(), octets.len() as u64),
            Content::File(file) => (Kind::File, file.name(), file.size()),
        };
        let kept = match &content {
            Content::Octets(octets) => Some(KeptContent::Octets(octets.clone())),
            Content::File(file) => file.reference().map(KeptContent::Reference),
        };
        if let Some(KeptContent::Reference(file)) = &kept
            && let Some(started) = self.same_again(&to.all(), file)
        {
            return Ok(started);
        }
        let (core, total_size) = (&mut self.core, Some(total));
        let id = match (to, kept) {
            (To::Several(to), Some(kept)) if core.is_durable() => {
                core.send_group_kept(now(), &to, kind, &name, total_size, kept, options)?
            }
            (To::Several(to), _) => {
                core.send_group(now(), &to, kind, &name, total_size, options)?
            }
            (To::One(to), Some(kept)) if core.is_durable() => {
                core.send_kept(now(), to, kind, &name, total_size, kept, options)?
            }
            (To::One(to), _) => core.send_with(now(), to, kind, &name, total_size, options)?,
        };
        let progress = Progress::of(total);
        let (progress, watch) = watch::channel(progress);
        let (done, result) = oneshot::channel();
        let (need, octets) = match content {
            Content::Octets(octets) => (None, Some(octets)),
            Content::File(file) => {
                let (need, wanted) = mpsc::unbounded_channel();
                let internal = self.internal.clone();
                self.tasks
                    .spawn_blocking(move || read_file(id, file, wanted, &internal));
                (Some(need), None)
            }
        };
        let transfer = OutgoingTransfer {
            need,
            octets,
            progress,
            done: Some(done),
            resumed: None,
        };
        self.outgoing.insert(id, transfer);
        Ok(Started {
            id,
            progress: watch,
            done: result,
        })
    }

    /// A transfer of an earlier run goes on.
    fn go_on(
        &mut self,
        transfer: MessageId,
        to: Vec<NodeId>,
        (delivered, total): (u64, Option<u64>),
        content: KeptContent,
    ) {
        let (need, octets, file) = match content {
            KeptContent::Octets(octets) => (None, Some(octets), Bytes::new()),
            KeptContent::Reference(file) => {
                let (need, wanted) = mpsc::unbounded_channel();
                let internal = self.internal.clone();
                let reference = file.clone();
                self.tasks.spawn_blocking(move || {
                    keeping::reread(transfer, &reference, wanted, |transfer, result| {
                        internal.send(Internal::Data { transfer, result }).is_ok()
                    });
                });
                (Some(need), None, file)
            }
        };
        match self.outgoing.get_mut(&transfer) {
            Some(known) => (known.need, known.octets) = (need, octets),
            None => {
                let mut progress = Progress::of(total.unwrap_or(0));
                (progress.delivered, progress.total) = (delivered, total);
                let known = OutgoingTransfer {
                    need,
                    octets,
                    progress: watch::channel(progress).0,
                    done: None,
                    resumed: Some((to.into_iter().collect(), file)),
                };
                self.outgoing.insert(transfer, known);
            }
        }
    }

    /// A handle to a transfer of an earlier run.
    fn hold(&mut self, id: MessageId) -> Option<Started> {
        let out = self.outgoing.get_mut(&id)?;
        let (done, result) = oneshot::channel();
        out.done = Some(done);
        Some(Started {
            id,
            progress: out.progress.subscribe(),
            done: result,
        })
    }

    /// The same file to the same receivers, that an earlier run did not finish and nobody waits for.
    fn same_again(&mut self, to: &BTreeSet<NodeId>, file: &Bytes) -> Option<Started> {
        let same = |out: &OutgoingTransfer| {
            let resumed = out.resumed.as_ref();
            out.done.is_none() && resumed.is_some_and(|(at, what)| at == to && what == file)
        };
        let found = self.outgoing.iter().find(|(_, out)| same(out));
        let id = found.map(|(id, _)| *id)?;
        self.hold(id)
    }

    fn status(&self) -> Vec<ClusterStatus> {
        self.core
            .member()
            .roster()
            .map(|(id, c)| ClusterStatus {
                id,
                n: c.info().map_or(0, |i| i.n),
                k: c.info().map_or(0, |i| i.k),
                ready: c.state().is_active(),
                open_peers: c.info().is_some_and(|i| i.options.open_peers),
                members: c
                    .members()
                    .map(|(id, m)| MemberStatus {
                        id,
                        present: m.present,
                        address: m.address,
                        name: self.core.profile_of(id).map(|p| p.name().to_owned()),
                    })
                    .collect(),
            })
            .collect()
    }

    fn accepted(&mut self, conn: PeerConn, mut stream: TcpStream) {
        let inbound = self.inbound.clone();
        self.tasks.spawn(async move {
            let (stop, mut stopped) = oneshot::channel();
            let _ = inbound.send(Internal::PeerOpened { conn, stop }).await;
            let read = async {
                loop {
                    let mut bytes = BytesMut::with_capacity(4096);
                    match stream.read_buf(&mut bytes).await {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {
                            let bytes = bytes.freeze();
                            let _ = inbound.send(Internal::PeerBytes { conn, bytes }).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = read => {}
                _ = &mut stopped => {}
                () = tokio::time::sleep(PEER_CONN_TIMEOUT) => {}
            }
            let _ = inbound.send(Internal::PeerClosed { conn }).await;
        });
    }

    /// Says good-bye: what peers need to know reaches them, within a bound.
    async fn close(&mut self, reports: &mut mpsc::UnboundedReceiver<Internal>) {
        self.core.close(now());
        let until = now() + LINGER;
        let mut received = Vec::new();
        loop {
            let more = self.flush();
            if (self.core.is_quiet() && self.core.is_settled()) || now() >= until {
                break;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let at = self.core.poll_timeout().map_or(until, |at| at.min(until));
            let socket = self.socket.io();
            tokio::select! {
                _ = socket.readable() => {
                    self.socket.receive(&mut received);
                    self.core.handle_datagrams(now(), received.drain(..));
                }
                Some(report) = reports.recv() => self.on_internal(report),
                () = tokio::time::sleep_until(at.into()) => self.core.handle_timeout(now()),
            }
        }
        self.core.hang_up(now());
        while self.flush() {}
        // the writer of the control connection ends when its channel is dropped and empty
        self.control = None;
        self.batches = None;
        self.sinks.clear();
        self.outgoing.clear();
        self.peer_conns.clear();
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
    }
}

/// One connection to the server, from attempt to end.
async fn control_connection(
    (attempt, to): (u64, SocketAddr),
    tls: Option<TlsConnector>,
    internal: mpsc::UnboundedSender<Internal>,
    inbound: mpsc::Sender<Internal>,
) {
    let failed = |error| {
        let _ = internal.send(Internal::ConnectFailed { attempt, error });
    };
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return failed(error),
        Err(_) => return failed(io::ErrorKind::TimedOut.into()),
    };
    let _ = stream.set_nodelay(true);
    let Some(connector) = tls else {
        let (reader, writer) = stream.into_split();
        return control_lines(attempt, (reader, writer), internal, inbound).await;
    };
    let handshake = connector.connect(vmdt_tls::server_name(), stream);
    match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => {
            let halves = tokio::io::split(stream);
            control_lines(attempt, halves, internal, inbound).await;
        }
        Ok(Err(error)) => {
            let why = vmdt_tls::Failure::of(&error).to_string();
            let _ = internal.send(Internal::Refused { attempt, why });
        }
        Err(_) => failed(io::ErrorKind::TimedOut.into()),
    }
}

/// Carries the lines of a connection that stands, until it ends.
async fn control_lines(
    attempt: u64,
    (mut reader, mut writer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    internal: mpsc::UnboundedSender<Internal>,
    inbound: mpsc::Sender<Internal>,
) {
    let (lines, mut queue) = mpsc::unbounded_channel::<Bytes>();
    let (stop, stopped) = oneshot::channel();
    let _ = internal.send(Internal::Connected {
        attempt,
        writer: lines,
        stop,
    });
    let report = internal.clone();
    let write = async move {
        while let Some(bytes) = queue.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            let _ = report.send(Internal::ControlSent {
                attempt,
                octets: bytes.len(),
            });
        }
        // the core closed: what was queued is written, the other side reads an end
        let _ = writer.shutdown().await;
    };
    let arrived = inbound.clone();
    let read = async move {
        loop {
            let mut bytes = BytesMut::with_capacity(16 * 1024);
            match reader.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let bytes = bytes.freeze();
                    let _ = arrived
                        .send(Internal::ControlBytes { attempt, bytes })
                        .await;
                }
            }
        }
    };
    tokio::pin!(write);
    tokio::select! {
        () = read => {}
        () = &mut write => {}
        _ = stopped => {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, write).await;
        }
    }
    // behind the octets that came before it
    let _ = inbound.send(Internal::ControlClosed { attempt }).await;
}

/// Reads a file as it is asked for. Runs on a thread of its own.
fn read_file(
    transfer: MessageId,
    mut file: SourceFile,
    mut wanted: mpsc::UnboundedReceiver<usize>,
    internal: &mpsc::UnboundedSender<Internal>,
) {
    while let Some(max) = wanted.blocking_recv() {
        let result = file.next(max);
        let ends = !matches!(result, Ok((_, false)));
        if internal.send(Internal::Data { transfer, result }).is_err() || ends {
            return;
        }
    }
}

/// Writes a file that is kept as it arrives. Runs on a thread of its own.
fn write_kept(
    handle: u64,
    folder: &std::path::Path,
    ops: &std::sync::mpsc::Receiver<SinkOp>,
    internal: &mpsc::UnboundedSender<Internal>,
) {
    keeping::write_file(folder, ops, |kept| {
        let _ = internal.send(match kept {
            Kept::Resumed(hash) => Internal::SinkResumed { handle, hash },
            Kept::Written => Internal::SinkWritten { handle },
            Kept::Failed(why) => Internal::SinkFailed { handle, why },
            Kept::Finished(path) => Internal::SinkFinished { handle, path },
        });
    });
}

/// Writes a file as it arrives. Runs on a thread of its own.
fn write_file(
    handle: u64,
    folder: &std::path::Path,
    ops: &std::sync::mpsc::Receiver<SinkOp>,
    internal: &mpsc::UnboundedSender<Internal>,
) {
    let mut file: Option<PartFile> = None;
    let fail = |why: String| {
        let _ = internal.send(Internal::SinkFailed { handle, why });
    };
    while let Ok(op) = ops.recv() {
        match op {
            SinkOp::Open { name, .. } => {
                match PartFile::create(folder, &name, &format!("{}-{handle}", std::process::id())) {
                    Ok(part) => file = Some(part),
                    Err(why) => return fail(why),
                }
            }
            SinkOp::Write(octets) => {
                if let Some(part) = &mut file {
                    if let Err(why) = part.write(&octets) {
                        return fail(why);
                    }
                    let _ = internal.send(Internal::SinkWritten { handle });
                }
            }
            SinkOp::Finish => {
                if let Some(part) = file.take() {
                    match part.finish() {
                        Ok(path) => {
                            let _ = internal.send(Internal::SinkFinished { handle, path });
                        }
                        Err(why) => fail(why),
                    }
                }
                return;
            }
            SinkOp::Abort => return,
            // of those that are kept
            SinkOp::Resume { .. } => {}
        }
    }
}
