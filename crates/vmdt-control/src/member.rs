//! The client's machine: one connection to one of several servers.

mod recall;
mod requests;
mod signed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::{BASE64, BASE64_NOPAD};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use vmdt_seal::profile::Profile;
use vmdt_wire::{ClusterId, Framing, Line, LineFramer, Message, NodeId, RELAY_MAX_LINE};

use crate::config::MemberConfig;
use crate::error::{LinkError, RelayError, RequestError, ServerError};
use crate::event::{MemberEvent, MemberOutput, Request, RequestId};
use crate::roster::{ClusterRoster, Roster};
use requests::{Purpose, Waiting};

/// A registration that lasted this long shows that the server is sound: the
/// backoff starts anew.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// Relayed lines whose refusal can still be attributed.
const RELAY_TAGS: usize = 256;

/// The octets in the data parameter of a relayed MESSAGE_SHARE, as
/// [`Member::relay`] encodes them; `None` if it is not base64. Padding is optional,
/// because software of profile 1.0 may leave it out.
#[must_use]
pub fn relayed_data(data: &str) -> Option<Vec<u8>> {
    BASE64_NOPAD
        .decode(data.trim_end_matches('=').as_bytes())
        .ok()
}

/// A client of the control server that keeps itself connected, registered and in
/// its clusters.
///
/// Four kinds of calls, in this order:
/// 1. the driver reports: [`handle_connected`](Self::handle_connected),
///    [`handle_connect_failed`](Self::handle_connect_failed),
///    [`handle_bytes`](Self::handle_bytes), [`handle_sent`](Self::handle_sent),
///    [`handle_closed`](Self::handle_closed), [`handle_timeout`](Self::handle_timeout);
///    the application calls [`request`](Self::request) and [`relay`](Self::relay);
/// 2. after each of them the driver drains [`poll_output`](Self::poll_output),
/// 3. then [`poll_event`](Self::poll_event),
/// 4. and sleeps until [`poll_timeout`](Self::poll_timeout).
///
/// A new member wants to connect at once: drain `poll_output` after creating it.
///
/// Every request gets exactly one [`MemberEvent::Reply`] within the request
/// timeout, connected or not. A connection lost meanwhile does not fail a request
/// that can be repeated; CREATE_CLUSTER cannot.
#[derive(Debug)]
pub struct Member {
    config: MemberConfig,
    rng: ChaCha20Rng,
    link: Link,
    attempt: u64,
    /// Failures in a row, for the backoff.
    failures: u32,
    /// Which server is tried, or in use.
    server: usize,
    last_error: Option<LinkError>,
    /// The last ERROR that answered nothing: why the server is about to close.
    parting: Option<ServerError>,
    framer: LineFramer,
    outputs: VecDeque<MemberOutput>,
    /// Whole lines not yet handed to the driver.
    out: Vec<u8>,
    in_flight: usize,
    waiting: BTreeMap<RequestId, Waiting>,
    tags: BTreeMap<u32, Purpose>,
    relay_tags: VecDeque<u32>,
    next_request: u64,
    next_tag: u32,
    roster: Roster,
    /// Profiles of the members of our clusters.
    profiles: BTreeMap<NodeId, Profile>,
    /// Our own, as published last.
    own_profile: Option<Bytes>,
    /// Whose profile is to be fetched, and how many are being fetched.
    wanted: BTreeSet<NodeId>,
    fetching: usize,
    events: VecDeque<MemberEvent>,
}

#[derive(Debug, Clone, Copy)]
enum Link {
    /// Just created: the first attempt has not been asked for.
    New,
    /// Between attempts.
    Waiting { until: Instant },
    /// The driver is opening a connection. The first attempt learns its deadline
    /// with the first call that says what time it is.
    Connecting { deadline: Option<Instant> },
    /// Connected, the registration is not confirmed yet.
    Registering { deadline: Instant },
    /// Registered.
    Up(Up),
    /// For good.
    Stopped,
}

#[derive(Debug, Clone, Copy)]
struct Up {
    since: Instant,
    last_received: Instant,
    /// When the connection is tested next, or since when a test is unanswered.
    ping: Ping,
}

#[derive(Debug, Clone, Copy)]
enum Ping {
    Due(Instant),
    Sent(Instant),
}

impl Member {
    /// A member that is about to connect. `seed` spreads the reconnections of
    /// many members over time: give each another one.
    #[must_use]
    pub fn new(config: MemberConfig, seed: [u8; 32]) -> Member {
        Member {
            roster: Roster::new(config.caps.is_some()),
            config,
            rng: ChaCha20Rng::from_seed(seed),
            link: Link::New,
            attempt: 0,
            failures: 0,
            server: 0,
            last_error: None,
            parting: None,
            framer: LineFramer::new(RELAY_MAX_LINE),
            outputs: VecDeque::new(),
            out: Vec::new(),
            in_flight: 0,
            waiting: BTreeMap::new(),
            tags: BTreeMap::new(),
            relay_tags: VecDeque::new(),
            next_request: 0,
            next_tag: 0,
            profiles: BTreeMap::new(),
            own_profile: None,
            wanted: BTreeSet::new(),
            fetching: 0,
            events: VecDeque::new(),
        }
    }

    /// This member's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Whether the member is connected and registered.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Why the last connection or attempt ended, if one has.
    #[must_use]
    pub fn last_error(&self) -> Option<&LinkError> {
        self.last_error.as_ref()
    }

    /// The clusters this member is in, ordered by id.
    pub fn roster(&self) -> impl Iterator<Item = (ClusterId, &ClusterRoster)> {
        self.roster.iter()
    }

    /// What is known about one of this member's clusters.
    #[must_use]
    pub fn cluster(&self, cluster: ClusterId) -> Option<&ClusterRoster> {
        self.roster.cluster(cluster)
    }

    /// The newest profile of a member of one of our clusters that has a
    /// descriptor. It is fetched by itself, kept while the server cannot be
    /// reached, and checked: it may be old, but it is that member's.
    #[must_use]
    pub fn profile(&self, id: NodeId) -> Option<&Profile> {
        self.profiles.get(&id)
    }

    /// The clusters' servers, in the order in which they are tried.
    #[must_use]
    pub fn servers(&self) -> &[SocketAddr] {
        &self.config.servers
    }

    /// Tries other servers from the next attempt on, from the first: those of a
    /// ticket, or what a name stands for now. The connection there is stays.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.config.servers = servers;
        self.server = 0;
    }

    /// Asks the server for something. The answer comes as
    /// [`MemberEvent::Reply`], at the latest after the request timeout.
    pub fn request(&mut self, now: Instant, request: Request) -> RequestId {
        self.wake(now);
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let refused = if matches!(self.link, Link::Stopped) {
            Some(RequestError::Stopped)
        } else if self.waiting.len() >= self.config.max_requests {
            let limit = self.config.max_requests;
            Some(RequestError::QueueFull { limit })
        } else {
            None
        };
        if let Some(error) = refused {
            self.reply(id, Err(error));
            return id;
        }
        let deadline = now + self.config.request_timeout;
        self.waiting.insert(id, Waiting::new(request, deadline));
        if self.is_registered() {
            self.send_request(id);
        }
        id
    }

    /// Sends `data` through the server to `to`, a member of a common cluster, as
    /// MESSAGE_SHARE; `target` is the member whose message it belongs to. Index 0
    /// is a line of control between the two, an index of 1 to k - 1 a share: the
    /// server refuses others ([`MemberEvent::RelayRefused`]).
    ///
    /// There is no confirmation: nothing says that the data arrived.
    ///
    /// # Errors
    /// Nothing was sent: there is no connection, too much is waiting, or the data
    /// has no place on one line.
    pub fn relay(
        &mut self,
        now: Instant,
        to: NodeId,
        target: NodeId,
        index: u16,
        data: &[u8],
    ) -> Result<(), RelayError> {
        self.wake(now);
        if !self.is_registered() {
            return Err(RelayError::NotConnected);
        }
        if index > 9_999 {
            return Err(RelayError::Index { index });
        }
        let limit = RELAY_MAX_LINE;
        if data.len() >= limit {
            let len = data.len();
            return Err(RelayError::TooLong { len, limit });
        }
        let tag = self.fresh_tag();
        let line = Line {
            framing: Framing::Slash,
            tag: Some(tag),
            message: Message::MessageShare {
                from: self.config.id,
                to,
                target,
                index,
                data: BASE64.encode(data),
            },
        };
        let line = line.emit().map_err(|_| RelayError::Unwritable)?;
        if line.len() > limit {
            let len = line.len();
            return Err(RelayError::TooLong { len, limit });
        }
        let queued = self.out.len() + self.in_flight;
        let limit = self.config.max_backlog;
        if queued + line.len() > limit {
            return Err(RelayError::Backlog { queued, limit });
        }
        self.out.extend_from_slice(&line);
        self.tags.insert(tag, Purpose::Relay { to, index });
        self.relay_tags.push_back(tag);
        if self.relay_tags.len() > RELAY_TAGS
            && let Some(oldest) = self.relay_tags.pop_front()
        {
            self.tags.remove(&oldest);
        }
        Ok(())
    }

    /// Ends the member: what is written is still handed out, the connection is
    /// closed, and every request fails with [`RequestError::Stopped`]. The
    /// server keeps our places for its grace period; leave the clusters first to
    /// give them up at once.
    pub fn stop(&mut self) {
        let connected = match std::mem::replace(&mut self.link, Link::Stopped) {
            Link::Stopped => return,
            Link::New | Link::Waiting { .. } => false,
            Link::Connecting { .. } | Link::Registering { .. } | Link::Up(_) => true,
        };
        if connected {
            if !self.out.is_empty() {
                let bytes = Bytes::from(std::mem::take(&mut self.out));
                self.outputs.push_back(MemberOutput::Write { bytes });
            }
            self.outputs.push_back(MemberOutput::Close);
        }
        self.last_error = Some(LinkError::Stopped);
        self.tags.clear();
        self.relay_tags.clear();
        while let Some((id, _)) = self.waiting.pop_first() {
            self.reply(id, Err(RequestError::Stopped));
        }
    }

    /// The attempt's connection is open.
    pub fn handle_connected(&mut self, now: Instant, attempt: u64) {
        self.wake(now);
        if attempt != self.attempt || !matches!(self.link, Link::Connecting { .. }) {
            return;
        }
        self.framer = LineFramer::new(RELAY_MAX_LINE);
        self.parting = None;
        let deadline = now + self.config.connect_timeout;
        self.link = Link::Registering { deadline };
        let register = Message::RegisterP2pPort {
            client: self.config.id,
            port: self.config.port,
            caps: self.config.caps,
        };
        if self.send(Purpose::Register, register).is_none() {
            self.drop_link(now, LinkError::BadId);
        }
    }

    /// The attempt failed, with `kind`.
    pub fn handle_connect_failed(&mut self, now: Instant, attempt: u64, kind: io::ErrorKind) {
        self.wake(now);
        if attempt == self.attempt && matches!(self.link, Link::Connecting { .. }) {
            self.down(now, LinkError::Connect(kind));
        }
    }

    /// The attempt reached somebody, and the TLS handshake failed, for `reason`.
    pub fn handle_handshake_failed(&mut self, now: Instant, attempt: u64, reason: String) {
        self.wake(now);
        if attempt == self.attempt && matches!(self.link, Link::Connecting { .. }) {
            self.down(now, LinkError::Handshake(reason));
        }
    }

    /// Octets arrived, cut anywhere.
    pub fn handle_bytes(&mut self, now: Instant, octets: &[u8]) {
        match &mut self.link {
            Link::Registering { .. } => {}
            Link::Up(up) => up.last_received = now,
            _ => return,
        }
        self.framer.push(octets);
        // The connection may end while its lines are read.
        while matches!(self.link, Link::Registering { .. } | Link::Up(_)) {
            match self.framer.next_line() {
                Some(Ok(line)) => self.handle_line(now, &line),
                Some(Err(error)) => {
                    let limit = error.allowed;
                    self.drop_link(now, LinkError::LineTooLong { limit });
                }
                None => break,
            }
        }
    }

    /// `octets` of what was written have left the driver's hands.
    pub fn handle_sent(&mut self, now: Instant, octets: usize) {
        self.wake(now);
        self.in_flight = self.in_flight.saturating_sub(octets);
    }

    /// The other side closed the connection, or it broke.
    pub fn handle_closed(&mut self, now: Instant) {
        match self.link {
            Link::Connecting { .. } | Link::Registering { .. } | Link::Up(_) => {
                let reason = self.parting.take();
                self.down(now, reason.map_or(LinkError::Closed, LinkError::Refused));
            }
            Link::New | Link::Waiting { .. } | Link::Stopped => {}
        }
    }

    /// Does what is due at `now`. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        match self.link {
            Link::Waiting { until } if until <= now => self.connect(now),
            Link::Connecting { deadline } if deadline.is_some_and(|at| at <= now) => {
                let after = self.config.connect_timeout;
                self.drop_link(now, LinkError::ConnectTimeout { after });
            }
            Link::Registering { deadline } if deadline <= now => {
                let after = self.config.connect_timeout;
                self.drop_link(now, LinkError::ConnectTimeout { after });
            }
            Link::Up(up) if self.ping_deadline(up) <= now => match up.ping {
                Ping::Due(_) => self.ping(now, up),
                Ping::Sent(_) => {
                    let after = self.config.ping_interval;
                    self.drop_link(now, LinkError::Silent { after });
                }
            },
            _ => {}
        }
        self.expire_requests(now);
        self.settle_rosters(now);
    }

    /// When to call [`Member::handle_timeout`]; `None` when nothing is due ever.
    /// The time may lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = match self.link {
            Link::New | Link::Stopped => None,
            Link::Waiting { until } => Some(until),
            Link::Connecting { deadline } => deadline,
            Link::Registering { deadline } => Some(deadline),
            Link::Up(up) => Some(self.ping_deadline(up)),
        };
        // Requests are numbered in the order in which they expire.
        let request = self.waiting.values().next().map(|w| w.deadline);
        let settles = self.roster.settles();
        link.into_iter().chain(request).chain(settles).min()
    }

    /// What the driver has to do next.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<MemberOutput> {
        if matches!(self.link, Link::New) && !self.config.servers.is_empty() {
            self.start_attempt(None);
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.out.is_empty() {
            return None;
        }
        self.in_flight += self.out.len();
        let bytes = Bytes::from(std::mem::take(&mut self.out));
        Some(MemberOutput::Write { bytes })
    }

    /// What has happened. Drain it after every call: nothing is dropped.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<MemberEvent> {
        self.events.pop_front()
    }

    /// Begins the first attempt, or gives it its deadline: `new` could not.
    fn wake(&mut self, now: Instant) {
        match &mut self.link {
            Link::New => self.connect(now),
            Link::Connecting { deadline } => {
                deadline.get_or_insert(now + self.config.connect_timeout);
            }
            _ => {}
        }
    }

    fn connect(&mut self, now: Instant) {
        if self.config.servers.is_empty() {
            self.down(now, LinkError::NoServers);
        } else {
            self.start_attempt(Some(now + self.config.connect_timeout));
        }
    }

    fn start_attempt(&mut self, deadline: Option<Instant>) {
        let Some(to) = self.current_server() else {
            return;
        };
        self.attempt += 1;
        self.link = Link::Connecting { deadline };
        let attempt = self.attempt;
        let connect = MemberOutput::Connect { attempt, to };
        self.outputs.push_back(connect);
    }

    fn current_server(&self) -> Option<SocketAddr> {
        let count = self.config.servers.len();
        let index = self.server.checked_rem(count)?;
        self.config.servers.get(index).copied()
    }

    /// The registration is confirmed: rejoin, then send what has waited.
    fn up(&mut self, now: Instant) {
        self.link = Link::Up(Up {
            since: now,
            last_received: now,
            ping: Ping::Due(now + self.config.ping_interval),
        });
        if let Some(server) = self.current_server() {
            self.events.push_back(MemberEvent::Registered { server });
        }
        self.republish();
        let leaving: Vec<ClusterId> = self.waiting.values().filter_map(Waiting::leaves).collect();
        let clusters: Vec<ClusterId> = self
            .roster
            .iter()
            .map(|(cluster, _)| cluster)
            .filter(|cluster| !leaving.contains(cluster))
            .collect();
        for cluster in clusters {
            self.rejoin(cluster);
        }
        let queued: Vec<RequestId> = self.waiting.keys().copied().collect();
        for id in queued {
            self.send_request(id);
        }
    }

    /// Closes the connection and begins to wait for the next attempt.
    fn drop_link(&mut self, now: Instant, reason: LinkError) {
        // Whatever stands in `outputs` is about this connection or an older one.
        self.outputs.push_back(MemberOutput::Close);
        self.down(now, reason);
    }

    /// The connection is gone: begins to wait for the next attempt.
    fn down(&mut self, now: Instant, reason: LinkError) {
        if let Link::Up(up) = self.link {
            // The same server again: it is the one that knows our clusters.
            if now.saturating_duration_since(up.since) >= STABLE_AFTER {
                self.failures = 0;
            }
        } else {
            self.server = self.server.wrapping_add(1);
        }
        let retry_in = self.backoff();
        self.failures = self.failures.saturating_add(1);
        self.link = Link::Waiting {
            until: now + retry_in,
        };
        self.out = Vec::new();
        self.in_flight = 0;
        self.framer = LineFramer::new(RELAY_MAX_LINE);
        self.tags.clear();
        self.relay_tags.clear();
        self.wanted.clear();
        self.fetching = 0;
        self.roster.disconnected();
        self.last_error = Some(reason.clone());
        self.interrupt_requests(&reason);
        self.forget_undescribed();
        self.events
            .push_back(MemberEvent::Disconnected { reason, retry_in });
    }

    /// Doubles per failure; drawn evenly from the upper half.
    fn backoff(&mut self) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        let longest = self
            .config
            .backoff_initial
            .saturating_mul(doubled)
            .min(self.config.backoff_max);
        let half = longest / 2;
        half + half.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX))
    }

    fn ping(&mut self, now: Instant, up: Up) {
        let id = self.config.id;
        let ask = Message::GetClientInfo {
            client: id,
            target: id,
        };
        self.link = Link::Up(Up {
            ping: Ping::Sent(now),
            ..up
        });
        self.send(Purpose::Ping, ask);
    }

    /// The server answered a test of the connection.
    fn pong(&mut self, now: Instant) {
        if let Link::Up(up) = &mut self.link {
            up.ping = Ping::Due(now + self.config.ping_interval);
        }
    }

    /// When the next test is due, or the unanswered one means silence. Whatever
    /// arrives counts as a sign of life: a long relayed line may be on its way
    /// before the answer.
    fn ping_deadline(&self, up: Up) -> Instant {
        match up.ping {
            Ping::Due(at) => at,
            Ping::Sent(at) => at.max(up.last_received) + self.config.ping_interval,
        }
    }
}
