//! The server's machine: connections, deadlines, backlogs.

mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use vmdt_wire::{Framing, Line, LineFramer, Message, NodeId};

use crate::bucket::Bucket;
use crate::config::RegistryConfig;
use crate::directory::{Change, Directory};
use crate::error::Refusal;
use crate::event::{ClusterView, ConnId, RegistryEvent, RegistryOutput, RegistryStats};

/// The longest ERROR sentence, in octets.
const MAX_SENTENCE: usize = 300;

/// A line longer than this is followed by a new framer, so that an idle connection
/// does not keep the memory that a relayed share needed.
const LONG_LINE: usize = 4 * 1024;

/// The control server: which clients are connected, in which clusters, and where
/// they can be reached.
///
/// Four kinds of calls, in this order:
/// 1. the driver reports: [`handle_open`](Self::handle_open),
///    [`handle_bytes`](Self::handle_bytes), [`handle_sent`](Self::handle_sent),
///    [`handle_closed`](Self::handle_closed), [`handle_timeout`](Self::handle_timeout);
/// 2. after each of them it drains [`poll_output`](Self::poll_output),
/// 3. may drain [`poll_event`](Self::poll_event),
/// 4. and sleeps until [`poll_timeout`](Self::poll_timeout).
///
/// The registry never blocks and holds at most what its
/// [configuration](RegistryConfig) says. It never sees the text of a message: the
/// members exchange that among themselves, and the server only relays shares,
/// fewer of them than reveal anything.
#[derive(Debug)]
pub struct Registry {
    config: RegistryConfig,
    directory: Directory,
    conns: BTreeMap<ConnId, Connection>,
    /// One entry per connection, at or before its deadline.
    timers: BTreeSet<(Instant, ConnId)>,
    /// Connections to be ended once the current changes are told.
    doomed: VecDeque<(ConnId, Refusal)>,
    outputs: VecDeque<Queued>,
    events: VecDeque<RegistryEvent>,
    stats: RegistryStats,
}

#[derive(Debug)]
enum Queued {
    /// Write what stands in the connection's `out`.
    Flush(ConnId),
    /// The last octets and the end of a connection already forgotten.
    Last(RegistryOutput),
}

#[derive(Debug)]
struct Connection {
    ip: IpAddr,
    id: Option<NodeId>,
    /// The framing the client last used: that of pushes.
    framing: Framing,
    framer: LineFramer,
    bucket: Bucket,
    opened: Instant,
    last_line: Option<Instant>,
    /// The connection's entry in `timers`.
    timer: Instant,
    /// Whole lines not yet handed to the driver.
    out: Vec<u8>,
    /// Octets handed to the driver and not yet reported sent.
    in_flight: usize,
    doomed: bool,
}

impl Connection {
    fn backlog(&self) -> usize {
        self.out.len() + self.in_flight
    }
}

impl Registry {
    /// An empty registry. `seed` makes the cluster ids: take it from the
    /// operating system, or they can be guessed.
    #[must_use]
    pub fn new(config: RegistryConfig, seed: [u8; 32]) -> Registry {
        Registry {
            directory: Directory::new(&config, ChaCha20Rng::from_seed(seed)),
            config,
            conns: BTreeMap::new(),
            timers: BTreeSet::new(),
            doomed: VecDeque::new(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            stats: RegistryStats::default(),
        }
    }

    /// A connection from `peer` was accepted. The registry may answer with
    /// `Close` at once when it is full. A `conn` that is in use already is
    /// ignored.
    pub fn handle_open(&mut self, now: Instant, conn: ConnId, peer: SocketAddr) {
        if self.conns.contains_key(&conn) {
            return;
        }
        if self.conns.len() >= self.config.max_connections {
            let refusal = Refusal::TooManyClients {
                limit: self.config.max_connections,
            };
            let line = error_line(Framing::Bar, None, &refusal);
            self.event(RegistryEvent::Closed {
                conn,
                id: None,
                reason: Some(refusal),
            });
            self.last_words(conn, line);
            return;
        }
        let timer = now + self.config.first_line;
        self.timers.insert((timer, conn));
        self.conns.insert(
            conn,
            Connection {
                ip: peer.ip().to_canonical(),
                id: None,
                framing: Framing::Bar,
                framer: LineFramer::new(self.config.max_relay_line),
                bucket: Bucket::new(now, self.config.rate, self.config.burst),
                opened: now,
                last_line: None,
                timer,
                out: Vec::new(),
                in_flight: 0,
                doomed: false,
            },
        );
    }

    /// Octets arrived on `conn`, cut anywhere.
    pub fn handle_bytes(&mut self, now: Instant, conn: ConnId, octets: &[u8]) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        connection.framer.push(octets);
        let mut longest = 0;
        // The connection may end while its lines are answered.
        while let Some(connection) = self.conns.get_mut(&conn) {
            match connection.framer.next_line() {
                Some(Ok(line)) => {
                    longest = longest.max(line.len());
                    self.handle_line(now, conn, &line);
                    self.settle(now);
                }
                Some(Err(error)) => {
                    let limit = error.allowed;
                    self.end(now, conn, Refusal::LineTooLong { limit });
                    self.settle(now);
                }
                None => break,
            }
        }
        let Some(connection) = self.conns.get(&conn) else {
            return;
        };
        let limit = self.line_limit(connection);
        let buffered = connection.framer.buffered();
        if buffered > limit {
            self.end(now, conn, Refusal::LineTooLong { limit });
            self.settle(now);
        } else if buffered == 0
            && longest > LONG_LINE
            && let Some(connection) = self.conns.get_mut(&conn)
        {
            connection.framer = LineFramer::new(self.config.max_relay_line);
        }
    }

    /// The other side closed `conn`, or it broke. Its client keeps its places
    /// for the grace period.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        if let Some(connection) = self.forget(now, conn) {
            self.event(RegistryEvent::Closed {
                conn,
                id: connection.id,
                reason: None,
            });
            self.settle(now);
        }
    }

    /// `octets` of what was written to `conn` have left the driver's hands.
    pub fn handle_sent(&mut self, _now: Instant, conn: ConnId, octets: usize) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.in_flight = connection.in_flight.saturating_sub(octets);
        }
    }

    /// Does what is due at `now`. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.directory.expire(now);
        self.settle(now);
        while let Some(&(at, conn)) = self.timers.first() {
            if at > now {
                break;
            }
            let Some((deadline, after)) = self.conns.get(&conn).map(|c| self.deadline(c)) else {
                self.timers.remove(&(at, conn));
                continue;
            };
            if deadline > now {
                self.set_timer(conn, deadline);
            } else {
                self.end(now, conn, Refusal::Silent { after });
                self.settle(now);
            }
        }
    }

    /// When to call [`Registry::handle_timeout`]; `None` when nothing is due
    /// ever. The time may lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|&(at, _)| at);
        let grace = self.directory.next_deadline();
        timer.into_iter().chain(grace).min()
    }

    /// What the driver has to do next.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<RegistryOutput> {
        while let Some(queued) = self.outputs.pop_front() {
            match queued {
                Queued::Last(output) => return Some(output),
                Queued::Flush(conn) => {
                    let Some(connection) = self.conns.get_mut(&conn) else {
                        continue;
                    };
                    let bytes = Bytes::from(std::mem::take(&mut connection.out));
                    if bytes.is_empty() {
                        continue;
                    }
                    connection.in_flight += bytes.len();
                    return Some(RegistryOutput::Write { conn, bytes });
                }
            }
        }
        None
    }

    /// What has happened, for logs. Events nobody takes are dropped, oldest
    /// first, beyond the configured number.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        self.events.pop_front()
    }

    /// The clusters, ordered by id.
    pub fn clusters(&self) -> impl Iterator<Item = ClusterView> {
        self.directory.views()
    }

    /// Connections open at the moment.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.conns.len()
    }

    /// Client ids known at the moment, present or in their grace period.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.directory.client_count()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> RegistryStats {
        self.stats
    }

    /// The longest line `connection` may send.
    fn line_limit(&self, connection: &Connection) -> usize {
        match connection.id {
            Some(id) if self.directory.in_a_cluster(id) => self.config.max_relay_line,
            _ => self.config.max_line,
        }
    }

    /// When the connection is closed for silence, and after how long a silence.
    fn deadline(&self, connection: &Connection) -> (Instant, std::time::Duration) {
        let (from, after) = match (connection.id, connection.last_line) {
            (_, None) => (connection.opened, self.config.first_line),
            (None, Some(_)) => (connection.opened, self.config.idle),
            (Some(id), Some(at)) if self.directory.caps(id).is_some() => (at, self.config.idle),
            (Some(_), Some(at)) => (at, self.config.idle_open),
        };
        (from + after, after)
    }

    fn set_timer(&mut self, conn: ConnId, at: Instant) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            self.timers.remove(&(connection.timer, conn));
            connection.timer = at;
            self.timers.insert((at, conn));
        }
    }

    /// Tells everybody what has changed and ends the connections that cannot be
    /// told, until nothing is left to do.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(change) = self.directory.next_change() {
                self.tell(change);
            } else if let Some((conn, reason)) = self.doomed.pop_front() {
                self.end(now, conn, reason);
            } else {
                return;
            }
        }
    }

    fn tell(&mut self, change: Change) {
        match change {
            Change::Created {
                cluster,
                creator,
                n,
                k,
            } => self.event(RegistryEvent::ClusterCreated {
                cluster,
                creator,
                n,
                k,
            }),
            Change::Removed { cluster } => self.event(RegistryEvent::ClusterRemoved { cluster }),
            Change::State { cluster, from, to } => {
                self.event(RegistryEvent::State { cluster, from, to });
            }
            Change::Member { cluster, id, state } => {
                self.event(RegistryEvent::Member { cluster, id, state });
                let (address, caps) = self.directory.details(id);
                let others: Vec<NodeId> = self
                    .directory
                    .places(cluster)
                    .filter(|&(other, present)| present && other != id)
                    .map(|(other, _)| other)
                    .filter(|&other| self.directory.caps(other).is_some())
                    .collect();
                let message = Message::Member {
                    cluster,
                    id,
                    state,
                    address,
                    caps,
                };
                self.push(&others, &message);
            }
            Change::Roster { cluster, to } => {
                if self.directory.caps(to).is_none() {
                    return;
                }
                let members: Vec<(NodeId, bool)> = self.directory.places(cluster).collect();
                for (id, present) in members.into_iter().filter(|&(id, _)| id != to) {
                    let (address, caps) = self.directory.details(id);
                    let message = Message::Member {
                        cluster,
                        id,
                        state: if present {
                            vmdt_wire::MemberState::Joined
                        } else {
                            vmdt_wire::MemberState::Away
                        },
                        address,
                        caps,
                    };
                    self.push(&[to], &message);
                }
            }
            Change::Ready { cluster, to } => self.push(&to, &Message::ClusterReady { cluster }),
        }
    }

    /// Sends `message` to the connections of `ids`, each in its own framing.
    fn push(&mut self, ids: &[NodeId], message: &Message) {
        let mut bar = None;
        let mut slash = None;
        for &id in ids {
            let Some(conn) = self.directory.connection(id) else {
                continue;
            };
            let Some(framing) = self.conns.get(&conn).map(|c| c.framing) else {
                continue;
            };
            let encoded = match framing {
                Framing::Bar => &mut bar,
                Framing::Slash => &mut slash,
            };
            let line = encoded.get_or_insert_with(|| {
                let line = Line {
                    framing,
                    tag: None,
                    message: message.clone(),
                };
                line.emit().unwrap_or_default()
            });
            self.write(conn, line);
        }
    }

    /// Appends a line to what `conn` is sent; dooms the connection when it does
    /// not read.
    fn write(&mut self, conn: ConnId, line: &[u8]) {
        let limit = self.config.max_backlog;
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if connection.doomed {
            return;
        }
        if connection.backlog() + line.len() > limit {
            connection.doomed = true;
            self.stats.shed += 1;
            self.doomed.push_back((conn, Refusal::SlowReader { limit }));
            return;
        }
        if connection.out.is_empty() {
            self.outputs.push_back(Queued::Flush(conn));
        }
        connection.out.extend_from_slice(line);
    }

    /// Marks the connection for its end, after what is being told now.
    fn doom(&mut self, conn: ConnId, reason: Refusal) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.doomed = true;
            self.doomed.push_back((conn, reason));
        }
    }

    /// Ends a connection: what it has not taken of its replies, the reason as an
    /// ERROR, and the close.
    fn end(&mut self, now: Instant, conn: ConnId, reason: Refusal) {
        let Some(connection) = self.forget(now, conn) else {
            return;
        };
        let mut last = connection.out;
        if matches!(reason, Refusal::SlowReader { .. }) {
            // Nobody reads it: give the memory back instead.
            last = Vec::new();
        }
        last.extend(error_line(connection.framing, None, &reason));
        self.event(RegistryEvent::Closed {
            conn,
            id: connection.id,
            reason: Some(reason),
        });
        self.last_words(conn, last);
    }

    fn last_words(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let write = RegistryOutput::Write { conn, bytes };
        self.outputs.push_back(Queued::Last(write));
        let close = RegistryOutput::Close { conn };
        self.outputs.push_back(Queued::Last(close));
    }

    fn forget(&mut self, now: Instant, conn: ConnId) -> Option<Connection> {
        let connection = self.conns.remove(&conn)?;
        self.timers.remove(&(connection.timer, conn));
        if let Some(id) = connection.id
            && self.directory.connection(id) == Some(conn)
        {
            self.directory.lost(now, id);
        }
        Some(connection)
    }

    fn event(&mut self, event: RegistryEvent) {
        if self.events.len() >= self.config.max_events {
            self.stats.lost_events += 1;
            if self.events.pop_front().is_none() {
                return;
            }
        }
        self.events.push_back(event);
    }
}

/// The ERROR line for `refusal`. Its sentence may quote what a client wrote, so
/// what the bar form cannot carry is replaced.
fn error_line(framing: Framing, tag: Option<u32>, refusal: &Refusal) -> Vec<u8> {
    let sentence = |c: char| match c {
        '|' => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    let mut text: String = refusal.to_string().chars().map(sentence).collect();
    if let Some((end, _)) = text.char_indices().find(|&(at, _)| at > MAX_SENTENCE) {
        text.truncate(end);
    }
    let line = Line {
        framing,
        tag,
        message: Message::Error {
            code: refusal.code(),
            text,
            about: None,
        },
    };
    line.emit().unwrap_or_default()
}
