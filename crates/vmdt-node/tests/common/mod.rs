//! A whole world in one thread: nodes and a server on an emulated network, in virtual time.
#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_control::{
    ConnId, MemberOutput, Registry, RegistryConfig, RegistryOutput, Reply, Request, RequestId,
};
use vmdt_node::core::{
    ClusterPlan, Content, ContentHash, Core, CoreConfig, Event, Kind, Output, Receipt, Sealing,
    SinkOp, TransferError,
};
use vmdt_node::{ClusterId, MessageId, NodeId, SendOptions};
use vmdt_pool::{Anchor, MemoryStore, Persist, Store};
use vmdt_rdt::{Endpoint, SessionState};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::invite::{InviteTerms, Rights};
use vmdt_seal::session::Local;
use vmdt_seal::ticket::{ServerAddress, Ticket};
use vmdt_testkit::{
    Clock, HostId, LinkConfig, Network, NetworkEvent, SimRng, StreamEnd, StreamEvent,
    StreamEventKind,
};
use vmdt_wire::{ClusterOptions, FlowId, Header, Line, LineFramer, Message, PacketType};

pub const PORT: u16 = 4000;
pub const SERVER_PORT: u16 = 8080;
/// Where the wall clocks begin.
const UNIX_MS: u64 = 1_790_000_000_000;

/// One end of an emulated TCP connection, with what it could not write yet.
struct Pipe {
    end: StreamEnd,
    unwritten: VecDeque<Bytes>,
    close_when_empty: bool,
}

/// What arrived at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Message {
        id: MessageId,
        from: NodeId,
        data: Bytes,
    },
    File {
        id: MessageId,
        from: NodeId,
        name: String,
        content: Bytes,
    },
}

pub struct Host {
    pub id: NodeId,
    pub host: HostId,
    pub address: SocketAddr,
    pub core: Core,
    pub config: CoreConfig,
    lives: u64,
    pub alive: bool,
    control: Option<(u64, Pipe)>,
    dialing: Option<(u64, StreamEnd)>,
    sources: BTreeMap<MessageId, (Bytes, usize)>,
    sinks: BTreeMap<u64, (String, Vec<u8>)>,
    pub replies: BTreeMap<RequestId, Result<Reply, vmdt_control::RequestError>>,
    pub received: Vec<Received>,
    pub done: BTreeMap<MessageId, Result<Receipt, TransferError>>,
    /// How transfers ended in a life that was killed before that was on disk: they go on in the
    /// next one, and end there as they did.
    pub ended_before: BTreeMap<MessageId, Result<Receipt, TransferError>>,
    pub events: Vec<Event>,
    pub puppet: Option<Puppet>,
    /// Lines that were to go to peers of profile 1.0.
    pub open_lines: u64,
    port: u16,
    /// What outlives the process, of a durable node.
    pub disk: Option<Disk>,
    /// Killed while something was being written, and that was not, or while something was to be
    /// written next.
    pub unwritten: bool,
    /// Killed while something was being written, and that was, which the process did not hear.
    pub unheard: bool,
}

/// What `kill -9` leaves.
#[derive(Default)]
pub struct Disk {
    pub store: MemoryStore,
    /// The batch that is being written, and when it will be.
    writing: Option<(Instant, Persist)>,
    /// Files that are sent, by their references.
    files: BTreeMap<Bytes, Bytes>,
    /// Files that are not whole.
    pub parts: BTreeMap<String, Vec<u8>>,
    /// The part that a sink writes to.
    open: BTreeMap<u64, String>,
}

impl Disk {
    /// How a content that is sent is found again.
    fn keep(&mut self, kind: Kind, content: &Bytes) -> Content {
        if kind == Kind::Octets {
            return Content::Octets(content.clone());
        }
        let reference = Bytes::from(self.files.len().to_string());
        self.files.insert(reference.clone(), content.clone());
        Content::Reference(reference)
    }
}

/// How long a batch takes to be written.
const WRITE: Duration = Duration::from_millis(3);

/// Whose transfer a part is.
fn owner_of(part: &str) -> (NodeId, MessageId) {
    let part = part.strip_suffix(".part").unwrap();
    let (rest, id) = part.split_at(part.len() - 16);
    let from = &rest[rest.len() - 17..rest.len() - 1];
    (from.parse().unwrap(), id.parse().unwrap())
}

struct ServerHost {
    host: HostId,
    address: SocketAddr,
    registry: Registry,
    pipes: BTreeMap<ConnId, Pipe>,
    conns: BTreeMap<StreamEnd, ConnId>,
    next: u64,
}

/// Which shares of which message went from where to where.
pub type Carriage = BTreeMap<(NodeId, NodeId, MessageId), BTreeSet<u16>>;

/// Reads a header on the way, where `from` sends it: a compact one names neither end, but a session
/// whose beginning was seen.
fn header_of(
    sessions: &mut BTreeMap<u32, NodeId>,
    octets: &[u8],
    from: NodeId,
    at: Option<NodeId>,
) -> Header {
    if let Some(id) = vmdt_wire::compact::session_of(octets) {
        // one that began through the server goes on to where its peer is
        let known = sessions.get(&id).copied().or(at);
        let to = known.expect("a session begins with its ids");
        let (header, _) =
            Header::parse_compact(octets, from, to).expect("we send what can be read");
        return header;
    }
    let header = Header::parse_sealed(octets)
        .expect("we send what can be read")
        .header;
    if header.kind == PacketType::Syn && header.packet_number != 0 {
        sessions.insert(header.packet_number, header.source);
    }
    if header.session != 0 {
        sessions.insert(header.session, header.dest);
    }
    header
}

pub struct World {
    /// What a reader of every datagram saw.
    pub carriage: Carriage,
    /// Whose the session ids are that were seen.
    sessions: BTreeMap<u32, NodeId>,
    /// Every datagram that was sent, from where and where to, where somebody records them.
    pub recorded: Option<Vec<(SocketAddr, SocketAddr, Bytes)>>,
    /// What lets a node into the sealed cluster.
    pub ticket: Option<Ticket>,
    /// Somebody lies and signs: otherwise no node may convict another.
    pub convicts: bool,
    pub clock: Clock,
    pub network: Network,
    pub hosts: Vec<Host>,
    server: ServerHost,
    rng: SimRng,
    steps: u64,
    started: Instant,
}

impl Host {
    fn owns(&self, end: StreamEnd) -> bool {
        self.control.as_ref().is_some_and(|(_, p)| p.end == end)
            || self.dialing.is_some_and(|(_, e)| e == end)
    }
}

impl World {
    /// A world of `count` nodes of profile 1.1, each with the settings that `tune` gives it.
    pub fn new(seed: u64, count: usize, link: LinkConfig, tune: impl Fn(&mut CoreConfig)) -> World {
        World::of(true, seed, count, link, tune)
    }

    /// The same of either profile.
    pub fn of(
        sealed: bool,
        seed: u64,
        count: usize,
        link: LinkConfig,
        tune: impl Fn(&mut CoreConfig),
    ) -> World {
        World::build((sealed, |_| false), seed, count, link, tune)
    }

    /// Of profile 1.1, with nodes that keep what they have on disk; `durable` says which.
    pub fn durable(
        seed: u64,
        count: usize,
        link: LinkConfig,
        durable: impl Fn(usize) -> bool,
        tune: impl Fn(&mut CoreConfig),
    ) -> World {
        World::build((true, durable), seed, count, link, tune)
    }

    fn build(
        (sealed, durable): (bool, impl Fn(usize) -> bool),
        seed: u64,
        count: usize,
        link: LinkConfig,
        tune: impl Fn(&mut CoreConfig),
    ) -> World {
        let rng = SimRng::from_seed(seed);
        let clock = Clock::new();
        let clock_start = clock.now();
        let mut network = Network::new(clock.now(), &rng.fork("network"));
        network.set_default_link(link);
        network.set_stream_config(
            vmdt_testkit::StreamConfig::new()
                .buffer(256 * 1024)
                .break_after(Duration::from_secs(20)),
        );
        let server_ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let host = network.add_host(server_ip);
        let address = SocketAddr::new(server_ip, SERVER_PORT);
        network.listen(address);
        let mut registry = Registry::new(RegistryConfig::default(), rng.fork("registry").seed32());
        registry.handle_clock(clock.now(), UNIX_MS);
        let server = ServerHost {
            host,
            address,
            registry,
            pipes: BTreeMap::new(),
            conns: BTreeMap::new(),
            next: 0,
        };
        let mut hosts = Vec::new();
        for i in 0..count {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 1, i as u8 + 1));
            let host = network.add_host(ip);
            let mut config = if sealed {
                let seed = rng.fork_indexed("identity", i as u64).seed32();
                let identity = SecretIdentity::from_seed(&seed);
                let sealing = Sealing::new(identity, clock.now(), UNIX_MS);
                CoreConfig::sealed(sealing, PORT, vec![address])
            } else {
                CoreConfig::new(format!("node{i}").parse().unwrap(), PORT, vec![address])
            };
            let id = config.id();
            tune(&mut config);
            let seed = rng.fork_indexed("core", i as u64).seed32();
            let disk = durable(i).then(Disk::default);
            let core = boot(&config, seed, disk.as_ref(), clock.now(), clock.now());
            hosts.push(Host {
                id,
                host,
                address: SocketAddr::new(ip, PORT),
                core,
                disk,
                config,
                lives: 0,
                unwritten: false,
                unheard: false,
                alive: true,
                control: None,
                dialing: None,
                sources: BTreeMap::new(),
                sinks: BTreeMap::new(),
                replies: BTreeMap::new(),
                received: Vec::new(),
                done: BTreeMap::new(),
                ended_before: BTreeMap::new(),
                events: Vec::new(),
                puppet: None,
                open_lines: 0,
                port: 40_000,
            });
        }
        let mut world = World {
            carriage: Carriage::new(),
            sessions: BTreeMap::new(),
            recorded: None,
            ticket: None,
            convicts: false,
            clock,
            network,
            hosts,
            server,
            rng,
            steps: 0,
            started: clock_start,
        };
        for i in 0..count {
            let now = world.now();
            world.hosts[i].core.handle_timeout(now);
            world.drain(i);
        }
        world
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn id(&self, i: usize) -> NodeId {
        self.hosts[i].id
    }

    /// Lets a node's core do something, and does what it then wants done.
    pub fn with<T>(&mut self, i: usize, f: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let now = self.now();
        let result = f(&mut self.hosts[i].core, now);
        self.drain(i);
        result
    }

    /// Sends a message or a file; what it holds is supplied as it is asked for.
    pub fn send(
        &mut self,
        i: usize,
        to: usize,
        name: Option<&str>,
        content: Bytes,
    ) -> Result<MessageId, TransferError> {
        let to = self.id(to);
        let kind = if name.is_some() {
            Kind::File
        } else {
            Kind::Octets
        };
        let now = self.now();
        let total = Some(content.len() as u64);
        let Host { core, disk, .. } = &mut self.hosts[i];
        let name = name.unwrap_or("");
        let id = match disk {
            None => core.send(now, to, kind, name, total)?,
            Some(disk) => {
                let kept = disk.keep(kind, &content);
                core.send_kept(now, to, kind, name, total, kept, SendOptions::new())?
            }
        };
        self.hosts[i].sources.insert(id, (content, 0));
        self.drain(i);
        Ok(id)
    }

    /// Sends a message or a file to several nodes at once.
    pub fn send_group(
        &mut self,
        i: usize,
        to: &[usize],
        name: Option<&str>,
        content: Bytes,
    ) -> Result<MessageId, TransferError> {
        let to: Vec<NodeId> = to.iter().map(|to| self.id(*to)).collect();
        let kind = if name.is_some() {
            Kind::File
        } else {
            Kind::Octets
        };
        let (now, total) = (self.now(), Some(content.len() as u64));
        let Host { core, disk, .. } = &mut self.hosts[i];
        let (name, options) = (name.unwrap_or(""), SendOptions::new());
        let id = match disk {
            None => core.send_group(now, &to, kind, name, total, options)?,
            Some(disk) => {
                let kept = disk.keep(kind, &content);
                core.send_group_kept(now, &to, kind, name, total, kept, options)?
            }
        };
        self.hosts[i].sources.insert(id, (content, 0));
        self.drain(i);
        Ok(id)
    }

    /// Sends a message with options.
    pub fn send_with(
        &mut self,
        i: usize,
        to: NodeId,
        content: Bytes,
        options: SendOptions,
    ) -> Result<MessageId, TransferError> {
        let (now, total) = (self.now(), Some(content.len() as u64));
        let core = &mut self.hosts[i].core;
        let id = core.send_with(now, to, Kind::Octets, "", total, options)?;
        self.hosts[i].sources.insert(id, (content, 0));
        self.drain(i);
        Ok(id)
    }

    /// A cluster of all nodes; returns when it is ready for all of them.
    pub fn cluster(&mut self, n: u16, k: u16, open_peers: bool) -> ClusterId {
        if self.id(0).is_sealed() {
            return self.cluster_of(self.hosts.len(), n, k);
        }
        let max_members = Some(u16::try_from(self.hosts.len()).unwrap().max(n + 1));
        let options = Some(ClusterOptions {
            open_peers,
            max_members,
        });
        let request = self.with(0, |core, now| {
            core.request(now, Request::CreateCluster { n, k, options })
        });
        let cluster = match self.reply(0, request) {
            Ok(Reply::Created { cluster }) => cluster,
            other => panic!("no cluster: {other:?}"),
        };
        for i in 1..self.hosts.len() {
            let request = self.with(i, |core, now| {
                core.request(now, Request::JoinCluster(cluster))
            });
            let reply = self.reply(i, request);
            assert!(matches!(reply, Ok(Reply::Joined { .. })), "{reply:?}");
        }
        self.until_ready(cluster, self.hosts.len());
        cluster
    }

    /// A cluster of profile 1.1 of the first `members` nodes.
    pub fn cluster_of(&mut self, members: usize, n: u16, k: u16) -> ClusterId {
        let cluster = self.sealed_cluster(members, n, k);
        self.until_ready(cluster, members);
        cluster
    }

    /// The key of a node of profile 1.1.
    pub fn identity(&self, i: usize) -> SecretIdentity {
        let seed = self.rng.fork_indexed("identity", i as u64).seed32();
        SecretIdentity::from_seed(&seed)
    }

    fn until_ready(&mut self, cluster: ClusterId, everyone: usize) {
        self.run_until(Duration::from_secs(60), |w| {
            w.hosts.iter().take(everyone).all(|h| {
                h.core
                    .member()
                    .cluster(cluster)
                    .is_some_and(|c| c.state().is_active() && c.present() == everyone)
            })
        })
        .expect("the cluster becomes ready");
    }

    /// The same of profile 1.1.
    fn sealed_cluster(&mut self, members: usize, n: u16, k: u16) -> ClusterId {
        let plan = ClusterPlan {
            k: k as u8,
            n: n as u8,
            name: "test".into(),
            listed: false,
        };
        let request = self.with(0, |core, now| core.create_sealed(now, &plan).unwrap());
        let cluster = match self.reply(0, request) {
            Ok(Reply::Created { cluster }) => cluster,
            other => panic!("no cluster: {other:?}"),
        };
        let terms = InviteTerms {
            rights: Rights::MEMBER,
            expires_ms: u64::MAX,
            max_uses: 0,
        };
        let server = SecretIdentity::from_seed(&[7; 32]).public();
        let servers = vec![ServerAddress::Ip(self.server.address)];
        let ticket = self.with(0, |core, _| {
            core.invite(cluster, &terms, servers, server).unwrap()
        });
        self.ticket = Some(ticket.clone());
        for i in 1..members {
            let request = self.with(i, |core, now| core.join_sealed(now, &ticket).unwrap());
            let reply = self.reply(i, request);
            assert!(matches!(reply, Ok(Reply::Joined { .. })), "{reply:?}");
        }
        cluster
    }

    pub fn reply(
        &mut self,
        i: usize,
        request: RequestId,
    ) -> Result<Reply, vmdt_control::RequestError> {
        self.run_until(Duration::from_secs(200), |w| {
            w.hosts[i].replies.contains_key(&request)
        })
        .expect("every request has an end");
        self.hosts[i].replies.remove(&request).unwrap()
    }

    /// Runs until the condition holds; `Err` when it does not within the time.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&World) -> bool,
    ) -> Result<(), String> {
        let end = self.now() + limit;
        loop {
            if condition(self) {
                return Ok(());
            }
            if !self.step(end) {
                return Err(format!("not within {limit:?} (step {})", self.steps));
            }
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.step(end) {}
    }

    /// The next thing that happens, if it does before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let next = self
            .hosts
            .iter()
            .filter(|h| h.alive)
            .flat_map(|h| {
                let puppet = h.puppet.as_ref().and_then(|p| p.endpoint.poll_timeout());
                h.core.poll_timeout().into_iter().chain(puppet)
            })
            .chain(self.network.next_at())
            .chain(self.hosts.iter().filter_map(|h| {
                let disk = h.disk.as_ref().filter(|_| h.alive)?;
                disk.writing.as_ref().map(|(at, _)| *at)
            }))
            .chain(self.server.registry.poll_timeout())
            .min();
        match next {
            Some(at) if at < end => self.clock.advance_to(at),
            _ => {
                self.clock.advance_to(end);
                return false;
            }
        }
        self.steps += 1;
        assert!(self.steps < 50_000_000, "the world does not come to rest");
        let now = self.now();
        if self
            .server
            .registry
            .poll_timeout()
            .is_some_and(|t| t <= now)
        {
            self.server.registry.handle_timeout(now);
            self.drain_server();
        }
        for i in 0..self.hosts.len() {
            let host = &mut self.hosts[i];
            if let Some(puppet) = &mut host.puppet
                && puppet.endpoint.poll_timeout().is_some_and(|t| t <= now)
            {
                puppet.endpoint.handle_timeout(now);
                self.drain(i);
            }
            let host = &mut self.hosts[i];
            if let Some(disk) = host.disk.as_mut().filter(|_| host.alive)
                && let Some((_, batch)) = disk.writing.take_if(|(at, _)| *at <= now)
            {
                let result = disk.store.commit(&batch.changes);
                host.core.persisted(now, batch.op, result);
                self.drain(i);
            }
            let host = &mut self.hosts[i];
            if host.alive && host.core.poll_timeout().is_some_and(|t| t <= now) {
                host.core.handle_timeout(now);
                self.drain(i);
            }
        }
        while let Some(event) = self.network.poll(now) {
            match event {
                NetworkEvent::Datagram(d) => {
                    if let Some(i) = self.hosts.iter().position(|h| h.host == d.host)
                        && self.hosts[i].alive
                        && d.to.port() == PORT
                    {
                        let host = &mut self.hosts[i];
                        match &mut host.puppet {
                            Some(puppet) => puppet.endpoint.handle_datagram(now, d.from, d.bytes),
                            None => host.core.handle_datagram(now, d.from, d.bytes),
                        }
                        self.drain(i);
                    }
                }
                NetworkEvent::Stream(event) => self.on_stream(event),
            }
        }
        true
    }

    fn on_stream(&mut self, event: StreamEvent) {
        let now = self.now();
        if event.host == self.server.host {
            self.on_server_stream(event);
            return;
        }
        let Some(i) = self.hosts.iter().position(|h| h.host == event.host) else {
            return;
        };
        if !self.hosts[i].alive || !self.hosts[i].owns(event.end) {
            return;
        }
        let host = &mut self.hosts[i];
        match event.kind {
            StreamEventKind::Opened { .. } => {
                let (attempt, end) = host.dialing.take().unwrap();
                let pipe = Pipe {
                    end,
                    unwritten: VecDeque::new(),
                    close_when_empty: false,
                };
                host.control = Some((attempt, pipe));
                host.core.handle_control_connected(now, attempt);
            }
            StreamEventKind::Refused(_) => {
                let (attempt, _) = host.dialing.take().unwrap();
                let kind = std::io::ErrorKind::ConnectionRefused;
                host.core.handle_control_failed(now, attempt, kind);
            }
            StreamEventKind::Data(bytes) => host.core.handle_control_bytes(now, &bytes),
            StreamEventKind::Progress(_) => {
                if let Some((_, pipe)) = &mut host.control {
                    let sent = write_out(&mut self.network, now, pipe);
                    host.core.handle_control_sent(now, sent);
                }
            }
            StreamEventKind::Closed(_) => {
                host.control = None;
                host.core.handle_control_closed(now);
            }
        }
        self.drain(i);
    }

    fn on_server_stream(&mut self, event: StreamEvent) {
        let now = self.now();
        let server = &mut self.server;
        match event.kind {
            StreamEventKind::Opened { peer, .. } => {
                server.next += 1;
                let conn = ConnId(server.next);
                let pipe = Pipe {
                    end: event.end,
                    unwritten: VecDeque::new(),
                    close_when_empty: false,
                };
                server.pipes.insert(conn, pipe);
                server.conns.insert(event.end, conn);
                // TLS would prove it
                let proven = self
                    .hosts
                    .iter()
                    .find(|h| h.address.ip() == peer.ip() && h.id.is_sealed());
                match proven {
                    Some(host) => server.registry.handle_open_as(now, conn, peer, host.id),
                    None => server.registry.handle_open(now, conn, peer),
                }
            }
            StreamEventKind::Data(bytes) => {
                if let Some(conn) = server.conns.get(&event.end) {
                    server.registry.handle_bytes(now, *conn, &bytes);
                }
            }
            StreamEventKind::Progress(_) => {
                if let Some(conn) = server.conns.get(&event.end).copied()
                    && let Some(pipe) = server.pipes.get_mut(&conn)
                {
                    let sent = write_out(&mut self.network, now, pipe);
                    server.registry.handle_sent(now, conn, sent);
                }
            }
            StreamEventKind::Closed(_) => {
                if let Some(conn) = server.conns.remove(&event.end) {
                    server.pipes.remove(&conn);
                    server.registry.handle_closed(now, conn);
                }
            }
            StreamEventKind::Refused(_) => {}
        }
        self.drain_server();
    }

    fn drain_server(&mut self) {
        let now = self.now();
        let server = &mut self.server;
        while let Some(output) = server.registry.poll_output() {
            match output {
                RegistryOutput::Write { conn, bytes } => {
                    if let Some(pipe) = server.pipes.get_mut(&conn) {
                        pipe.unwritten.push_back(bytes);
                        let sent = write_out(&mut self.network, now, pipe);
                        server.registry.handle_sent(now, conn, sent);
                    }
                }
                RegistryOutput::Close { conn } => {
                    if let Some(pipe) = server.pipes.remove(&conn) {
                        server.conns.remove(&pipe.end);
                        self.network.close(now, pipe.end);
                    }
                }
            }
        }
        while server.registry.poll_event().is_some() {}
    }

    /// Does what a node wants done.
    fn drain(&mut self, i: usize) {
        let now = self.now();
        let all = self.hosts.iter();
        let ids: BTreeMap<SocketAddr, NodeId> = all.map(|h| (h.address, h.core.id())).collect();
        let at = |address: SocketAddr| ids.get(&address).copied();
        let host = &mut self.hosts[i];
        let mut buf = Vec::new();
        loop {
            let mut quiet = true;
            while let Some(output) = host.core.poll_output() {
                quiet = false;
                match output {
                    Output::Control(MemberOutput::Connect { attempt, to }) => {
                        if let Some((_, pipe)) = host.control.take() {
                            self.network.close(now, pipe.end);
                        }
                        host.port = host.port.checked_add(1).unwrap_or(40_000);
                        let from = SocketAddr::new(host.address.ip(), host.port);
                        let stream = self.network.open_stream(now, from, to);
                        host.dialing = Some((attempt, stream.dialer()));
                    }
                    Output::Control(MemberOutput::Write { bytes }) => {
                        if let Some((_, pipe)) = &mut host.control {
                            pipe.unwritten.push_back(bytes);
                            let sent = write_out(&mut self.network, now, pipe);
                            host.core.handle_control_sent(now, sent);
                        }
                    }
                    Output::Control(MemberOutput::Close) => {
                        if let Some((_, pipe)) = host.control.take() {
                            self.network.close(now, pipe.end);
                        }
                        if let Some((_, end)) = host.dialing.take() {
                            self.network.close(now, end);
                        }
                    }
                    Output::Reply { request, result } => {
                        host.replies.insert(request, result);
                    }
                    Output::Persist(batch) => {
                        let disk = host.disk.as_mut().expect("a durable node");
                        assert!(disk.writing.is_none(), "one batch is out at a time");
                        disk.writing = Some((now + WRITE, batch));
                    }
                    Output::Resumed {
                        transfer, content, ..
                    } => {
                        let disk = host.disk.as_ref().expect("a durable node");
                        let content = match content {
                            Content::Octets(octets) => octets,
                            Content::Reference(reference) => disk.files[&reference].clone(),
                        };
                        host.sources.insert(transfer, (content, 0));
                    }
                    Output::Sink { handle, op } if host.disk.is_some() => {
                        kept_sink(host, now, handle, op);
                    }
                    Output::Event(event) => {
                        if let Event::FileReceived { id, from, path, .. } = &event
                            && host.disk.is_none()
                        {
                            let handle = path.to_str().unwrap().parse().unwrap();
                            let (name, content) = host.sinks.remove(&handle).unwrap();
                            host.received.push(Received::File {
                                id: *id,
                                from: *from,
                                name,
                                content: content.into(),
                            });
                        }
                        host.events.push(event);
                    }
                    Output::Deliver { handle, event } => {
                        if let Event::Message { id, from, data, .. } = event {
                            host.received.push(Received::Message { id, from, data });
                        }
                        host.core.taken(now, handle);
                    }
                    Output::NeedData { transfer, max } => {
                        if let Some((content, at)) = host.sources.get_mut(&transfer) {
                            let end = content.len().min(*at + max);
                            let piece = content.slice(*at..end);
                            *at = end;
                            let last = end == content.len();
                            host.core.supply(now, transfer, piece, last);
                        }
                    }
                    Output::Sink { handle, op } => match op {
                        SinkOp::Open { name, .. } => {
                            host.sinks.insert(handle, (name, Vec::new()));
                        }
                        SinkOp::Write(octets) => {
                            host.sinks
                                .get_mut(&handle)
                                .unwrap()
                                .1
                                .extend_from_slice(&octets);
                            host.core.sink_written(now, handle);
                        }
                        SinkOp::Finish => {
                            // the event that follows names the handle
                            host.core
                                .sink_finished(now, handle, PathBuf::from(handle.to_string()));
                        }
                        SinkOp::Abort => {
                            host.sinks.remove(&handle);
                        }
                        SinkOp::Resume { .. } => unreachable!("nothing is kept"),
                    },
                    Output::Progress { .. } => {}
                    Output::Done { transfer, result } => {
                        host.sources.remove(&transfer);
                        if let Some(before) = host.ended_before.remove(&transfer) {
                            let whole = |end: &Result<Receipt, TransferError>| {
                                let receipt = end.as_ref().ok()?;
                                Some((receipt.octets, receipt.digest))
                            };
                            assert_eq!(whole(&before), whole(&result), "it ends as it did");
                        }
                        let again = host.done.insert(transfer, result);
                        assert!(again.is_none(), "a transfer ends once");
                    }
                    Output::SendLine { op, .. } => {
                        host.open_lines += 1;
                        host.core
                            .line_sent(now, op, Err("no such peers here".into()));
                    }
                    _ => {}
                }
            }
            if let Some(puppet) = &mut host.puppet {
                while host.core.poll_transmit(now, &mut buf).is_some() {}
                puppet.collect(now);
                while let Some(transmit) = puppet.endpoint.poll_transmit(now, &mut buf) {
                    let bytes = Bytes::copy_from_slice(&buf);
                    self.network.send(now, host.address, transmit.to, bytes);
                }
            }
            while let Some(transmit) = host.core.poll_transmit(now, &mut buf) {
                quiet = false;
                assert_eq!(transmit.len, buf.len());
                let bytes = Bytes::copy_from_slice(&buf);
                let to = at(transmit.to);
                let header = header_of(&mut self.sessions, &bytes, host.core.id(), to);
                if header.kind == PacketType::Data && !header.flow.is_control() {
                    self.carriage
                        .entry((header.source, header.dest, header.flow.message))
                        .or_default()
                        .insert(header.flow.index.get() % 1000);
                }
                if let Some(recorded) = &mut self.recorded {
                    recorded.push((host.address, transmit.to, bytes.clone()));
                }
                self.network.send(now, host.address, transmit.to, bytes);
            }
            if quiet {
                return;
            }
        }
    }

    /// `kill -9`: the process is gone, its connections are reset.
    pub fn kill(&mut self, i: usize) {
        let now = self.now();
        self.network.kill(now, self.hosts[i].host);
        let host = &mut self.hosts[i];
        host.alive = false;
        host.control = None;
        host.dialing = None;
        host.sources.clear();
        host.sinks.clear();
        let written = self.rng.fork_indexed("torn", self.steps).chance(0.5);
        if let Some(disk) = &mut host.disk {
            disk.open.clear();
            host.unwritten = !host.core.is_settled();
            host.unheard = written && disk.writing.is_some();
            // what was being written is there or not
            if let Some((_, batch)) = disk.writing.take().filter(|_| written) {
                let _ = disk.store.commit(&batch.changes);
            }
        }
    }

    /// Whether a node has convicted nobody, unless there is who lies and signs.
    fn check_convictions(&self, i: usize) {
        let found: Vec<_> = self.hosts[i].core.convictions().collect();
        assert!(self.convicts || found.is_empty(), "node {i}: {found:?}");
    }

    /// A fresh process at the same address.
    pub fn restart(&mut self, i: usize) {
        self.check_convictions(i);
        let now = self.now();
        self.network.bring_up(now, self.hosts[i].host);
        let host = &mut self.hosts[i];
        host.lives += 1;
        let seed = self
            .rng
            .fork_indexed("core again", (i as u64) << 32 | host.lives)
            .seed32();
        if let Some(prekeys) = host.core.prekeys() {
            host.config.set_prekeys(prekeys.clone());
        }
        host.core = boot(&host.config, seed, host.disk.as_ref(), self.started, now);
        let ended = std::mem::take(&mut host.done);
        for (id, end) in ended {
            let ends_again = host.core.is_sending(id);
            assert!(!ends_again || host.unwritten, "its end is on disk");
            let ends = if ends_again {
                &mut host.ended_before
            } else {
                &mut host.done
            };
            ends.insert(id, end);
        }
        host.alive = true;
        host.core.handle_timeout(now);
        self.drain(i);
    }

    /// Stops everything between a node and the rest, server included.
    pub fn isolate(&mut self, nodes: &[usize]) {
        let island: Vec<HostId> = nodes.iter().map(|i| self.hosts[*i].host).collect();
        let now = self.now();
        self.network.isolate(now, &island);
    }

    pub fn block_pair(&mut self, a: usize, b: usize) {
        let now = self.now();
        let (a, b) = (self.hosts[a].host, self.hosts[b].host);
        self.network.block(now, a, b);
        self.network.block(now, b, a);
    }

    pub fn heal(&mut self) {
        let now = self.now();
        self.network.heal(now);
    }

    /// `kill -9` of the server; its memory is gone.
    pub fn kill_server(&mut self) {
        let now = self.now();
        self.network.kill(now, self.server.host);
        let seed = self.rng.fork("registry again").seed32();
        self.server.registry = Registry::new(RegistryConfig::default(), seed);
        self.server.pipes.clear();
        self.server.conns.clear();
    }

    /// A fresh server at the same address.
    pub fn restart_server(&mut self) {
        let now = self.now();
        self.network.bring_up(now, self.server.host);
        self.network.listen(self.server.address);
        self.server.registry.handle_clock(now, UNIX_MS);
    }

    /// Whether no link carried k shares of a message, and no member had k except `ends`, which
    /// are the senders and receivers.
    pub fn check_privacy(&self, k: usize, ends: &[usize]) -> Result<(), String> {
        let ends: Vec<NodeId> = ends.iter().map(|i| self.id(*i)).collect();
        let mut held: BTreeMap<(NodeId, MessageId), BTreeSet<u16>> = BTreeMap::new();
        for ((from, to, message), shares) in &self.carriage {
            // the direct link may, when the message is sealed to its receiver
            let direct = from.is_sealed() && ends.contains(from) && ends.contains(to);
            if shares.len() >= k && !direct {
                return Err(format!("{from} -> {to} carried {shares:?} of {message}"));
            }
            held.entry((*to, *message)).or_default().extend(shares);
        }
        for ((member, message), shares) in &held {
            if shares.len() >= k && !ends.contains(member) {
                return Err(format!("{member} had {shares:?} of {message}"));
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            (0..self.hosts.len()).for_each(|i| self.check_convictions(i));
        }
    }
}

/// A process begins.
fn boot(
    config: &CoreConfig,
    seed: [u8; 32],
    disk: Option<&Disk>,
    started: Instant,
    now: Instant,
) -> Core {
    let Some(disk) = disk else {
        return Core::new(config.clone(), seed);
    };
    let anchor = Anchor {
        at: now,
        unix: Duration::from_millis(UNIX_MS) + (now - started),
    };
    let (core, found) = Core::restore(config.clone(), seed, anchor, &disk.store).unwrap();
    assert_eq!(found.damaged, 0, "everything on disk can be read");
    core
}

/// Does what a durable node wants done with a file. A write is on disk at once.
fn kept_sink(host: &mut Host, now: Instant, handle: u64, op: SinkOp) {
    let disk = host.disk.as_mut().unwrap();
    match op {
        SinkOp::Open { name, part, .. } => {
            let part = part.expect("a durable node names its parts");
            host.sinks.insert(handle, (name, Vec::new()));
            disk.parts.insert(part.clone(), Vec::new());
            disk.open.insert(handle, part);
        }
        SinkOp::Resume {
            name,
            part,
            length,
            whole,
        } => {
            host.sinks.insert(handle, (name, Vec::new()));
            disk.open.insert(handle, part.clone());
            if !whole {
                let kept = disk.parts.get_mut(&part).expect("the part is there");
                assert!(kept.len() as u64 >= length, "what is recorded is there");
                kept.truncate(usize::try_from(length).unwrap());
                let mut hash = ContentHash::new();
                hash.update(kept);
                host.core.sink_resumed(now, handle, hash);
            }
        }
        SinkOp::Write(octets) => {
            let part = &disk.open[&handle];
            disk.parts.get_mut(part).unwrap().extend_from_slice(&octets);
            host.core.sink_written(now, handle);
        }
        SinkOp::Finish => {
            let part = disk.open.remove(&handle).unwrap();
            let (name, _) = host.sinks.remove(&handle).unwrap();
            // an earlier run may have named it
            if let Some(content) = disk.parts.remove(&part) {
                let (from, id) = owner_of(&part);
                host.received.push(Received::File {
                    id,
                    from,
                    name,
                    content: content.into(),
                });
            }
            host.core
                .sink_finished(now, handle, PathBuf::from(handle.to_string()));
        }
        SinkOp::Abort => {
            host.sinks.remove(&handle);
            if let Some(part) = disk.open.remove(&handle) {
                disk.parts.remove(&part);
            }
        }
    }
}

/// Writes what the stream takes.
fn write_out(network: &mut Network, now: Instant, pipe: &mut Pipe) -> usize {
    let mut sent = 0;
    while let Some(bytes) = pipe.unwritten.pop_front() {
        match network.write(now, pipe.end, bytes.clone()) {
            Ok(taken) => {
                sent += taken;
                if taken < bytes.len() {
                    pipe.unwritten.push_front(bytes.slice(taken..));
                    break;
                }
            }
            Err(_) => break,
        }
    }
    sent
}

/// A node in the hands of a test, with the key and in the place of a host: the host's own core
/// keeps the connection to the server and is cut off from the other nodes.
pub struct Puppet {
    pub endpoint: Endpoint,
    framers: BTreeMap<NodeId, LineFramer>,
    partial: BTreeMap<(NodeId, FlowId), Vec<u8>>,
    /// Shares that came whole: from whom, and which.
    pub shares: Vec<(NodeId, FlowId, Bytes)>,
    /// Control lines that came.
    pub lines: Vec<(NodeId, Message)>,
    /// Datagrams that came.
    pub datagrams: Vec<(NodeId, Bytes)>,
}

impl Puppet {
    fn collect(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                vmdt_rdt::Event::Readable { peer, flow } => self.read(now, peer, flow),
                vmdt_rdt::Event::Finished { peer, flow } => {
                    self.read(now, peer, flow);
                    if let Some(octets) = self.partial.remove(&(peer, flow)) {
                        self.shares.push((peer, flow, octets.into()));
                    }
                }
                vmdt_rdt::Event::Datagram { peer, payload } => {
                    self.datagrams.push((peer, payload));
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, now: Instant, peer: NodeId, flow: FlowId) {
        while let Some(octets) = self.endpoint.read(now, peer, flow) {
            if flow == FlowId::CONTROL {
                let framer = self.framers.entry(peer);
                let framer = framer.or_insert_with(|| LineFramer::new(1 << 20));
                framer.push(&octets);
                while let Some(Ok(line)) = framer.next_line() {
                    if let Ok(line) = Line::parse(&line) {
                        self.lines.push((peer, line.message));
                    }
                }
            } else {
                let partial = self.partial.entry((peer, flow)).or_default();
                partial.extend_from_slice(&octets);
            }
        }
    }

    /// Says something on the control flow.
    pub fn say(&mut self, now: Instant, to: NodeId, message: Message) {
        let line = Line::slash(message).emit().unwrap();
        self.endpoint
            .write(now, to, FlowId::CONTROL, line.into())
            .unwrap();
    }

    /// Hands over a share; what can't be written is not.
    pub fn hand(&mut self, now: Instant, to: NodeId, flow: FlowId, octets: Bytes) {
        if self.endpoint.write(now, to, flow, octets).is_ok() {
            let _ = self.endpoint.finish(now, to, flow);
        }
    }
}

impl World {
    /// Takes a node over.
    pub fn seize(&mut self, i: usize) {
        let mut config = vmdt_node::core::default_transport();
        config.set_sealing(Local::new(self.identity(i), UNIX_MS));
        let seed = self.rng.fork_indexed("puppet", i as u64).seed32();
        self.hosts[i].puppet = Some(Puppet {
            endpoint: Endpoint::new(config, self.id(i), seed),
            framers: BTreeMap::new(),
            partial: BTreeMap::new(),
            shares: Vec::new(),
            lines: Vec::new(),
            datagrams: Vec::new(),
        });
    }

    /// Has a node that was taken over do something.
    pub fn puppet<T>(&mut self, i: usize, f: impl FnOnce(&mut Puppet, Instant) -> T) -> T {
        let now = self.now();
        let result = f(self.hosts[i].puppet.as_mut().unwrap(), now);
        self.drain(i);
        result
    }

    /// Opens a session of a node that was taken over with another.
    pub fn reach(&mut self, i: usize, to: usize) {
        let (peer, address) = (self.id(to), self.hosts[to].address);
        self.puppet(i, |p, now| p.endpoint.connect(now, peer, address));
        self.run_until(Duration::from_secs(30), |w| {
            let puppet = w.hosts[i].puppet.as_ref().unwrap();
            puppet.endpoint.state(peer) == Some(SessionState::Established)
        })
        .expect("a session");
    }
}
