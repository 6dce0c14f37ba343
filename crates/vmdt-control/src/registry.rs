//! The server's machine: connections, deadlines, backlogs.

mod requests;
mod sharing;
mod signed;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use vmdt_wire::{EmitError, Framing, Line, LineFramer, Message, NodeId};

use crate::accounts::Accounts;
use crate::bucket::Bucket;
use crate::codes::Codes;
use crate::config::RegistryConfig;
use crate::directory::Directory;
use crate::error::Refusal;
use crate::event::{
    ClusterView, ConnId, RegistryEvent, RegistryOutput, RegistryStats, RelayAccount,
};
use crate::record::{Record, RecordKey, Restored};
use crate::registry::sharing::Sharing;

/// The longest ERROR sentence, in octets.
const MAX_SENTENCE: usize = 300;

/// A line longer than this is followed by a new framer, so that an idle connection
/// does not keep the memory that a relayed share needed.
const LONG_LINE: usize = 4 * 1024;

/// Memory prepared at most for the replies to one piece of input.
const LARGEST_PIECE: usize = 16 * 1024;

/// The control server: which clients are connected, in which clusters, and where
/// they can be reached.
///
/// Four kinds of calls, in this order:
/// 1. the driver reports: [`handle_open`](Self::handle_open) or
///    [`handle_open_as`](Self::handle_open_as), [`handle_bytes`](Self::handle_bytes), [`handle_sent`](Self::handle_sent),
///    [`handle_closed`](Self::handle_closed), [`handle_timeout`](Self::handle_timeout);
/// 2. after each of them, or of several, it drains [`poll_record`](Self::poll_record) if it keeps
///    records, and then [`poll_output`](Self::poll_output),
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
    codes: Codes,
    accounts: Accounts,
    /// A moment and its wall clock time, in milliseconds since 1970.
    clock: Option<(Instant, u64)>,
    conns: BTreeMap<ConnId, Connection>,
    /// One entry per connection, at or before its deadline.
    timers: BTreeSet<(Instant, ConnId)>,
    /// Connections to be ended once the current changes are told.
    doomed: VecDeque<(ConnId, Refusal)>,
    outputs: VecDeque<Queued>,
    events: VecDeque<RegistryEvent>,
    stats: RegistryStats,
    /// What there is to know where other servers have the same state.
    sharing: Option<Sharing>,
    /// Octets of the input being answered: its replies are about as long.
    piece: usize,
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
    /// Who it has proven to be.
    proven: Option<NodeId>,
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
    /// What has arrived from the first line on that must wait for the right to write.
    held: Vec<u8>,
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
            codes: Codes::default(),
            accounts: Accounts::new(
                config.relay_quota,
                config.relay_datagram_quota,
                config.relay_window,
                config.max_clients.saturating_mul(2),
            ),
            clock: None,
            config,
            conns: BTreeMap::new(),
            timers: BTreeSet::new(),
            doomed: VecDeque::new(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            stats: RegistryStats::default(),
            sharing: None,
            piece: 0,
        }
    }

    /// Tells the wall clock time, in milliseconds since 1970: once in the
    /// beginning, and again when it was set anew. Without it nothing that is
    /// dated can be judged, and no cluster with a descriptor be made or joined.
    pub fn handle_clock(&mut self, now: Instant, unix_ms: u64) {
        self.clock = Some((now, unix_ms));
    }

    /// Takes in what [`poll_record`](Self::poll_record) gave before a restart, in
    /// any order. Call it before anything else happens. Members have the grace
    /// period from now on to come back.
    pub fn restore(
        &mut self,
        now: Instant,
        records: impl IntoIterator<Item = (RecordKey, Bytes)>,
    ) -> Restored {
        self.directory.restore(now, records)
    }

    /// From now on [`poll_record`](Self::poll_record) gives what changes. Only
    /// for those who drain it: nothing is dropped.
    pub fn begin_recording(&mut self) {
        self.directory.begin_recording();
    }

    /// What a store must be told. All records up to `None` belong together: write
    /// them in one transaction, and only then send what
    /// [`poll_output`](Self::poll_output) gives. A key changed several times
    /// gives one record.
    #[must_use]
    pub fn poll_record(&mut self) -> Option<Record> {
        self.directory.next_record()
    }

    /// A connection from `peer` was accepted that has proven no identity: it
    /// speaks profile 1.0, if the configuration allows that at all. The registry
    /// may answer with `Close` at once when it is full. A `conn` that is in use
    /// already is ignored.
    pub fn handle_open(&mut self, now: Instant, conn: ConnId, peer: SocketAddr) {
        self.open(now, conn, peer, None);
    }

    /// The same for a connection that has proven to be `identity`: it speaks for
    /// this client and no other.
    pub fn handle_open_as(
        &mut self,
        now: Instant,
        conn: ConnId,
        peer: SocketAddr,
        identity: NodeId,
    ) {
        self.open(now, conn, peer, Some(identity));
    }

    fn open(&mut self, now: Instant, conn: ConnId, peer: SocketAddr, proven: Option<NodeId>) {
        if self.conns.contains_key(&conn) {
            return;
        }
        let refusal = if self.is_detached() {
            Some(Refusal::Detached)
        } else if self.conns.len() >= self.config.max_connections {
            let limit = self.config.max_connections;
            Some(Refusal::TooManyClients { limit })
        } else {
            None
        };
        if let Some(refusal) = refusal {
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
                proven,
                id: None,
                framing: match proven {
                    None => Framing::Bar,
                    Some(_) => Framing::Slash,
                },
                framer: LineFramer::new(self.config.max_relay_line),
                bucket: Bucket::new(now, self.config.rate, self.config.burst),
                opened: now,
                last_line: None,
                timer,
                out: Vec::new(),
                held: Vec::new(),
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
        if !connection.held.is_empty() {
            self.hold(now, conn, octets);
            return;
        }
        self.piece = octets.len().min(LARGEST_PIECE);
        let mut rest = octets;
        if connection.framer.buffered() > 0 {
            // The line that began before: up to its end, or everything.
            let end = memchr::memchr(b'\n', octets).map_or(octets.len(), |at| at + 1);
            let (first, after) = octets.split_at_checked(end).unwrap_or((octets, &[]));
            rest = after;
            connection.framer.push(first);
            if !self.handle_buffered(now, conn) {
                return;
            }
            if self.holds(conn) {
                self.hold(now, conn, rest);
                return;
            }
        }
        // The others are read where they lie.
        while let Some((line, after)) = split_line(rest) {
            let whole = std::mem::replace(&mut rest, after);
            if is_blank(line) {
                continue;
            }
            let limit = self.config.max_relay_line;
            if line.len() > limit {
                self.end(now, conn, Refusal::LineTooLong { limit });
            } else if !self.handle_line(now, conn, line) {
                self.hold(now, conn, whole);
                return;
            }
            self.settle(now);
            // The connection may end while its lines are answered.
            if !self.conns.contains_key(&conn) {
                return;
            }
        }
        if let Some(connection) = self.conns.get_mut(&conn)
            && !rest.is_empty()
        {
            connection.framer.push(rest);
            self.handle_buffered(now, conn);
        }
    }

    /// Answers what the framer holds. Whether the connection goes on.
    fn handle_buffered(&mut self, now: Instant, conn: ConnId) -> bool {
        let mut longest = 0;
        while let Some(connection) = self.conns.get_mut(&conn) {
            match connection.framer.next_line() {
                Some(Ok(line)) => {
                    longest = longest.max(line.len());
                    if !self.handle_line(now, conn, &line) {
                        self.hold(now, conn, &[&line[..], b"\n"].concat());
                        break;
                    }
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
            return false;
        };
        let limit = self.line_limit(connection);
        let buffered = connection.framer.buffered();
        if buffered > limit {
            self.end(now, conn, Refusal::LineTooLong { limit });
            self.settle(now);
            return false;
        }
        if buffered == 0
            && longest > LONG_LINE
            && let Some(connection) = self.conns.get_mut(&conn)
        {
            connection.framer = LineFramer::new(self.config.max_relay_line);
        }
        true
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
        self.expire(now);
        for (id, number) in self.codes.expire(now) {
            self.code_closed(id, number);
        }
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
        let grace = grace.filter(|_| !self.expiry_waits());
        let code = self.codes.next_deadline();
        timer.into_iter().chain(grace).chain(code).min()
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

    /// The server ends: every connection is told so and closed. Places are kept,
    /// as if the connections were lost.
    pub fn handle_shutdown(&mut self, now: Instant) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            self.end(now, conn, Refusal::Stopping);
        }
        // There is nobody left to tell.
        while self.directory.next_change().is_some() {}
    }

    /// What clients have relayed in their present windows, ordered by id.
    pub fn relay_accounts(&self, now: Instant) -> impl Iterator<Item = RelayAccount> {
        self.accounts.views(now)
    }

    /// Code numbers in use.
    #[must_use]
    pub fn code_count(&self) -> usize {
        self.codes.len()
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

    /// The same for a line that is written only for this connection.
    fn write_line(&mut self, conn: ConnId, line: &Line) -> Result<(), EmitError> {
        let limit = self.config.max_backlog;
        let Some(connection) = self.conns.get_mut(&conn) else {
            return Ok(());
        };
        if connection.doomed {
            return Ok(());
        }
        let before = connection.out.len();
        if before == 0 {
            connection.out.reserve(self.piece);
        }
        line.emit_to(&mut connection.out)?;
        if connection.backlog() > limit {
            connection.out.truncate(before);
            connection.doomed = true;
            self.stats.shed += 1;
            self.doomed.push_back((conn, Refusal::SlowReader { limit }));
        } else if before == 0 {
            self.outputs.push_back(Queued::Flush(conn));
        }
        Ok(())
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
            self.directory.keep_bucket(id, &connection.bucket);
            self.codes.lost(now, id);
            self.lost(now, id, conn);
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

/// The first line, without its end, and what follows it.
fn split_line(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = octets.split_at_checked(memchr::memchr(b'\n', octets)?)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
}

fn is_blank(line: &[u8]) -> bool {
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r');
    line.iter().all(blank)
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
