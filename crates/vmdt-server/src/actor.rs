//! The task that owns the registry.
//!
//! Everything that happens passes through it in one order: input, then the records of what has
//! changed to the store, then the outputs. So no client is told of what a crash would undo.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use vmdt_control::{
    ClusterView, ConnId, Record, Registry, RegistryEvent, RegistryOutput, RegistryStats,
    RelayAccount,
};
use vmdt_wire::NodeId;

use crate::connection::Acceptor;
use crate::metrics::Counters;
use crate::notify::notify;
use crate::store::{News, Shared, Store};

/// Pieces of input that wait for the registry: whoever sends more waits.
pub(crate) const INBOUND: usize = 512;
/// Commands that wait.
pub(crate) const COMMANDS: usize = 64;
/// Events that wait for the application; later ones are dropped.
pub(crate) const EVENTS: usize = 1_024;

/// Inputs taken before outputs are sent.
const BATCH: usize = 128;
/// How long a store that failed is left alone.
const RETRY: Duration = Duration::from_millis(500);
/// How often the wall clock is read, for the case that it was set.
const CLOCK: Duration = Duration::from_secs(60);

/// What connections report.
#[derive(Debug)]
pub(crate) enum Input {
    Opened {
        conn: ConnId,
        peer: SocketAddr,
        identity: Option<NodeId>,
        writer: mpsc::UnboundedSender<Bytes>,
    },
    Bytes {
        conn: ConnId,
        bytes: Bytes,
    },
    Closed {
        conn: ConnId,
    },
}

/// What the handle and the HTTP port want.
#[derive(Debug)]
pub(crate) enum Command {
    /// Close, and say when it is done.
    Close(Option<oneshot::Sender<()>>),
    Figures(oneshot::Sender<Figures>),
    Clusters(oneshot::Sender<Vec<ClusterView>>),
    Relay(oneshot::Sender<Vec<RelayAccount>>),
}

/// The registry in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) connections: usize,
    pub(crate) clients: usize,
    pub(crate) clusters: usize,
    pub(crate) codes: usize,
    pub(crate) stats: RegistryStats,
}

pub(crate) struct Actor {
    registry: Registry,
    store: Option<Box<dyn Store>>,
    shared: Option<Shared>,
    /// Whether the shared store was asked for the right to write.
    asked: bool,
    granted: bool,
    /// Input that waits because an earlier one waits for the right to write.
    waiting: VecDeque<Input>,
    conns: BTreeMap<ConnId, mpsc::UnboundedSender<Bytes>>,
    events: mpsc::Sender<RegistryEvent>,
    counters: Arc<Counters>,
    closing: Option<Vec<oneshot::Sender<()>>>,
}

impl Actor {
    pub(crate) fn new(
        registry: Registry,
        store: Option<Box<dyn Store>>,
        shared: Option<Shared>,
        events: mpsc::Sender<RegistryEvent>,
        counters: Arc<Counters>,
    ) -> Actor {
        Actor {
            registry,
            store,
            shared,
            asked: false,
            granted: false,
            waiting: VecDeque::new(),
            conns: BTreeMap::new(),
            events,
            counters,
            closing: None,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Input>,
        mut progress: mpsc::UnboundedReceiver<(ConnId, usize)>,
        mut commands: mpsc::Receiver<Command>,
        acceptor: Acceptor,
        mut tasks: JoinSet<()>,
        drain: Duration,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut reports = Vec::with_capacity(BATCH);
        let mut clock = Instant::now() + CLOCK;
        let timer = sleep_until(clock);
        tokio::pin!(timer);
        let detached = self.registry.is_detached();
        self.counters.ready.store(!detached, Relaxed);
        while self.closing.is_none() {
            self.pump(&mut commands).await;
            if self.closing.is_some() {
                break;
            }
            if !self.registry.wants_write() {
                if !self.waiting.is_empty() {
                    self.inputs(&mut commands).await;
                    continue;
                }
            } else if !self.asked
                && let Some(store) = &mut self.store
            {
                store.want_write();
                self.asked = true;
            }
            let due = self.registry.poll_timeout().map(Instant::from_std);
            let due = due.map_or(clock, |due| due.min(clock));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                _ = progress.recv_many(&mut reports, BATCH) => {
                    for (conn, octets) in reports.drain(..) {
                        self.registry.handle_sent(crate::now(), conn, octets);
                    }
                }
                // While one piece of input waits for the right to write, all do.
                _ = arrivals.recv_many(&mut batch, BATCH), if !self.asked => {
                    self.waiting.extend(batch.drain(..));
                    self.inputs(&mut commands).await;
                }
                news = news(&mut self.shared) => {
                    let granted = matches!(news, Some(News::Granted));
                    self.news(news);
                    if granted {
                        // What has arrived meanwhile is written together.
                        while self.waiting.len() < BATCH
                            && let Ok(input) = arrivals.try_recv()
                        {
                            self.waiting.push_back(input);
                        }
                        self.inputs(&mut commands).await;
                    }
                }
                () = &mut timer => {
                    let now = crate::now();
                    if clock.into_std() <= now {
                        clock += CLOCK;
                        self.registry.handle_clock(now, crate::unix_ms());
                    }
                    self.registry.handle_timeout(now);
                }
            }
        }
        self.counters.ready.store(false, Relaxed);
        notify("STOPPING=1");
        // Nobody new, nor who is still in a handshake.
        tasks.abort_all();
        acceptor.turn_away();
        self.registry.handle_shutdown(crate::now());
        let ended = async {
            self.pump(&mut commands).await;
            self.conns.clear();
            if let Some(mut store) = self.store.take() {
                let _ = tokio::task::spawn_blocking(move || store.close()).await;
            }
            drop(arrivals);
            acceptor.all_gone().await;
        };
        if timeout(drain, ended).await.is_err() {
            tracing::warn!("connections were cut off: they did not end in time");
            acceptor.cut();
        }
        for done in self.closing.into_iter().flatten() {
            let _ = done.send(());
        }
    }

    /// Takes in what waits, until something of it has to wait for the right to write.
    async fn inputs(&mut self, commands: &mut mpsc::Receiver<Command>) {
        while !self.registry.wants_write()
            && let Some(input) = self.waiting.pop_front()
        {
            self.input(input, commands).await;
        }
    }

    /// `None`: the shared store has ended, as if it were lost.
    fn news(&mut self, news: Option<News>) {
        let now = crate::now();
        match news {
            Some(News::Attached(records)) => {
                let restored = self.registry.handle_attached(now, records);
                tracing::info!(?restored, "the state that is shared is back");
                self.counters.ready.store(true, Relaxed);
            }
            Some(News::Records(records)) => self.registry.handle_records(now, records),
            Some(News::Granted) => {
                self.granted = true;
                self.registry.handle_write_granted(now);
            }
            Some(News::Detached) => self.detach(),
            None => {
                self.shared = None;
                self.detach();
            }
        }
    }

    /// The shared state is lost for now.
    fn detach(&mut self) {
        self.asked = false;
        self.granted = false;
        self.counters.ready.store(false, Relaxed);
        self.registry.handle_detached(crate::now());
    }

    async fn input(&mut self, input: Input, commands: &mut mpsc::Receiver<Command>) {
        let now = crate::now();
        match input {
            Input::Opened {
                conn,
                peer,
                identity,
                writer,
            } => {
                self.conns.insert(conn, writer);
                match identity {
                    None => self.registry.handle_open(now, conn, peer),
                    Some(id) => self.registry.handle_open_as(now, conn, peer, id),
                }
            }
            Input::Bytes { conn, bytes } => {
                self.counters
                    .received
                    .fetch_add(bytes.len() as u64, Relaxed);
                self.registry.handle_bytes(now, conn, &bytes);
            }
            Input::Closed { conn } => {
                // Its replies are still written: it may have closed one direction only.
                self.pump(commands).await;
                self.conns.remove(&conn);
                self.registry.handle_closed(now, conn);
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Close(done) => {
                self.closing.get_or_insert_default().extend(done);
            }
            Command::Figures(reply) => {
                let _ = reply.send(Figures {
                    connections: self.registry.connection_count(),
                    clients: self.registry.client_count(),
                    clusters: self.registry.clusters().count(),
                    codes: self.registry.code_count(),
                    stats: self.registry.stats(),
                });
            }
            Command::Clusters(reply) => {
                let _ = reply.send(self.registry.clusters().collect());
            }
            Command::Relay(reply) => {
                let _ = reply.send(self.registry.relay_accounts(crate::now()).collect());
            }
        }
    }

    /// Records first, then outputs.
    async fn pump(&mut self, commands: &mut mpsc::Receiver<Command>) {
        if self.shared.is_some() {
            if self.granted {
                self.commit_shared().await;
            }
        } else if self.store.is_some() {
            let mut batch = Vec::new();
            while let Some(record) = self.registry.poll_record() {
                batch.push(record);
            }
            if !batch.is_empty() && !self.commit(batch, commands).await {
                // The server ends, and nobody is told what is not kept.
                while self.registry.poll_output().is_some() {}
                self.conns.clear();
            }
        }
        while let Some(output) = self.registry.poll_output() {
            match output {
                RegistryOutput::Write { conn, bytes } => {
                    if let Some(writer) = self.conns.get(&conn) {
                        self.counters.sent.fetch_add(bytes.len() as u64, Relaxed);
                        let _ = writer.send(bytes);
                    }
                }
                RegistryOutput::Close { conn } => {
                    self.conns.remove(&conn);
                }
            }
        }
        while let Some(event) = self.registry.poll_event() {
            let _ = self.events.try_send(event);
        }
    }

    /// Writes what has changed, and gives the right to do so back.
    async fn commit_shared(&mut self) {
        let batch: Vec<Record> = std::iter::from_fn(|| self.registry.poll_record()).collect();
        let Some(mut store) = self.store.take() else {
            return;
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = store.commit(&batch);
            (store, result)
        });
        match done.await {
            Ok((store, result)) => {
                self.store = Some(store);
                match result {
                    Ok(()) => {
                        self.counters.commits.fetch_add(1, Relaxed);
                        self.registry.handle_write_ended();
                        self.asked = false;
                        self.granted = false;
                    }
                    Err(error) => {
                        tracing::error!(%error, "what has changed could not be written");
                        self.counters.store_errors.fetch_add(1, Relaxed);
                        self.detach();
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the store has panicked: the server ends");
                self.closing.get_or_insert_default();
                self.detach();
            }
        }
    }

    /// Commits a batch. While the store fails nothing is answered, and it is tried again until
    /// it works or the server closes. Whether it has worked.
    async fn commit(&mut self, batch: Vec<Record>, commands: &mut mpsc::Receiver<Command>) -> bool {
        let batch = Arc::new(batch);
        while let Some(mut store) = self.store.take() {
            let work = Arc::clone(&batch);
            let done = tokio::task::spawn_blocking(move || {
                let result = store.commit(&work);
                (store, result)
            });
            match done.await {
                Ok((store, Ok(()))) => {
                    self.store = Some(store);
                    self.counters.commits.fetch_add(1, Relaxed);
                    self.counters.ready.store(self.closing.is_none(), Relaxed);
                    return true;
                }
                Ok((store, Err(error))) => {
                    self.store = Some(store);
                    tracing::error!(%error, "the state cannot be kept; nothing is answered until it can");
                }
                Err(error) => {
                    tracing::error!(%error, "the store has panicked: the server ends");
                    self.closing.get_or_insert_default();
                }
            }
            self.counters.store_errors.fetch_add(1, Relaxed);
            self.counters.ready.store(false, Relaxed);
            if self.closing.is_some() {
                return false;
            }
            let pause = sleep(RETRY);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    command = commands.recv() => match command {
                        Some(command) => self.command(command),
                        None => return false,
                    },
                    () = &mut pause => break,
                }
            }
        }
        false
    }
}

/// What a shared store tells; never anything where there is none.
async fn news(shared: &mut Option<Shared>) -> Option<News> {
    match shared {
        Some(shared) => shared.news.recv().await,
        None => std::future::pending().await,
    }
}
