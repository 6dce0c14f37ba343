//! Members and servers wired together in memory, in virtual time.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vmdt_control::{
    ClusterView, ConnId, Member, MemberConfig, MemberEvent, MemberOutput, Registry, RegistryConfig,
    RegistryOutput, Reply, Request, RequestError, RequestId,
};
use vmdt_wire::ClusterId;

use super::{Draw, base, id};

/// How a server meets those who connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Up,
    /// Connections are refused.
    Refusing,
    /// Connections are neither accepted nor refused.
    Silent,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) mode: Mode,
    pub(crate) registry: Registry,
    config: RegistryConfig,
    restarts: u8,
}

struct Link {
    server: usize,
    conn: ConnId,
}

pub(crate) struct Peer {
    pub(crate) member: Member,
    address: SocketAddr,
    link: Option<Link>,
    /// Whether what the server writes stays in between, unread.
    pub(crate) stalled: bool,
    held: Vec<u8>,
    /// Whether what the member writes is lost in between.
    pub(crate) muted: bool,
    pub(crate) events: Vec<MemberEvent>,
    pub(crate) connects: Vec<(Duration, SocketAddr)>,
}

pub(crate) struct World {
    start: Instant,
    pub(crate) now: Instant,
    pub(crate) servers: Vec<Server>,
    pub(crate) peers: Vec<Peer>,
    next_conn: u64,
    /// Streams are delivered in pieces of this many octets.
    pub(crate) piece: usize,
    /// Closed by a server.
    pub(crate) closed: Vec<ConnId>,
}

impl World {
    pub(crate) fn new(config: RegistryConfig, servers: usize) -> World {
        let start = base();
        let servers = (0..servers).map(|i| Server {
            address: format!("203.0.113.{i}:8080").parse().unwrap(),
            mode: Mode::Up,
            registry: Registry::new(config.clone(), [i as u8; 32]),
            config: config.clone(),
            restarts: 0,
        });
        World {
            start,
            now: start,
            servers: servers.collect(),
            peers: Vec::new(),
            next_conn: 0,
            piece: usize::MAX,
            closed: Vec::new(),
        }
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|s| s.address).collect()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn config(&self, name: &str) -> MemberConfig {
        let port = 9_000 + self.peers.len() as u16;
        MemberConfig::new(id(name), port, self.addresses())
    }

    /// Adds a member; its number is also its address and seed.
    pub(crate) fn add(&mut self, config: MemberConfig) -> usize {
        let number = self.peers.len();
        self.peers.push(Peer {
            member: Member::new(config, [number as u8; 32]),
            address: format!("192.0.2.{number}:4000").parse().unwrap(),
            link: None,
            stalled: false,
            held: Vec::new(),
            muted: false,
            events: Vec::new(),
            connects: Vec::new(),
        });
        self.pump();
        number
    }

    /// `count` members called `peer_0`…, all registered.
    pub(crate) fn members(&mut self, count: usize) {
        for i in 0..count {
            let config = self.config(&format!("peer_{i}"));
            self.add(config);
            assert!(self.peers[i].member.is_registered());
        }
    }

    pub(crate) fn request(&mut self, peer: usize, request: Request) -> RequestId {
        let id = self.peers[peer].member.request(self.now, request);
        self.pump();
        id
    }

    /// The results a request has had so far.
    pub(crate) fn results(
        &self,
        peer: usize,
        wanted: RequestId,
    ) -> Vec<Result<Reply, RequestError>> {
        let results = self.peers[peer].events.iter().filter_map(|e| match e {
            MemberEvent::Reply { request, result } if *request == wanted => Some(result.clone()),
            _ => None,
        });
        results.collect()
    }

    /// Asks and expects the answer at once.
    pub(crate) fn ask(&mut self, peer: usize, request: Request) -> Reply {
        let id = self.request(peer, request);
        let mut results = self.results(peer, id);
        assert_eq!(results.len(), 1);
        results.remove(0).unwrap()
    }

    pub(crate) fn create(&mut self, peer: usize, n: u16, k: u16) -> ClusterId {
        let options = None;
        match self.ask(peer, Request::CreateCluster { n, k, options }) {
            Reply::Created { cluster } => cluster,
            other => panic!("{other:?}"),
        }
    }

    /// A cluster of the first `count` peers.
    pub(crate) fn cluster(&mut self, count: usize, n: u16, k: u16) -> ClusterId {
        let cluster = self.create(0, n, k);
        for peer in 1..count {
            self.ask(peer, Request::JoinCluster(cluster));
        }
        cluster
    }

    /// The connection breaks; both sides notice.
    pub(crate) fn cut(&mut self, peer: usize) {
        let Some(link) = self.peers[peer].link.take() else {
            return;
        };
        self.peers[peer].held.clear();
        self.servers[link.server]
            .registry
            .handle_closed(self.now, link.conn);
        self.peers[peer].member.handle_closed(self.now);
        self.pump();
    }

    /// The server starts anew and remembers nothing; all its connections break.
    pub(crate) fn restart(&mut self, server: usize) {
        let s = &mut self.servers[server];
        s.restarts += 1;
        s.registry = Registry::new(s.config.clone(), [100 + s.restarts; 32]);
        for peer in &mut self.peers {
            if peer.link.as_ref().is_some_and(|l| l.server == server) {
                peer.link = None;
                peer.held.clear();
                peer.member.handle_closed(self.now);
            }
        }
        self.pump();
    }

    pub(crate) fn stall(&mut self, peer: usize, stalled: bool) {
        self.peers[peer].stalled = stalled;
        if !stalled {
            let held = std::mem::take(&mut self.peers[peer].held);
            self.deliver(peer, &held);
            self.pump();
        }
    }

    /// What was held back is lost with the connection.
    pub(crate) fn stall_and_cut(&mut self, peer: usize) {
        self.cut(peer);
        self.peers[peer].stalled = false;
    }

    /// A stream that has lost octets does not go on: the connection breaks.
    pub(crate) fn unmute(&mut self, peer: usize) {
        self.cut(peer);
        self.peers[peer].muted = false;
    }

    fn deliver(&mut self, peer: usize, octets: &[u8]) {
        let peer = &mut self.peers[peer];
        if let Some(link) = &peer.link {
            let registry = &mut self.servers[link.server].registry;
            registry.handle_sent(self.now, link.conn, octets.len());
        }
        for piece in octets.chunks(self.piece) {
            peer.member.handle_bytes(self.now, piece);
        }
    }

    /// Carries everything to where it goes until nothing moves.
    pub(crate) fn pump(&mut self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for peer in 0..self.peers.len() {
                while let Some(output) = self.peers[peer].member.poll_output() {
                    moved = true;
                    self.member_output(peer, output);
                }
            }
            for server in 0..self.servers.len() {
                while let Some(output) = self.servers[server].registry.poll_output() {
                    moved = true;
                    self.registry_output(server, output);
                }
            }
        }
        for peer in &mut self.peers {
            while let Some(event) = peer.member.poll_event() {
                peer.events.push(event);
            }
        }
    }

    fn member_output(&mut self, peer: usize, output: MemberOutput) {
        let elapsed = self.elapsed();
        match output {
            MemberOutput::Connect { attempt, to } => {
                self.peers[peer].connects.push((elapsed, to));
                let found = self.servers.iter().position(|s| s.address == to);
                let server = found.unwrap();
                match self.servers[server].mode {
                    Mode::Silent => {}
                    Mode::Refusing => self.peers[peer].member.handle_connect_failed(
                        self.now,
                        attempt,
                        ErrorKind::ConnectionRefused,
                    ),
                    Mode::Up => {
                        self.next_conn += 1;
                        let conn = ConnId(self.next_conn);
                        let from = self.peers[peer].address;
                        self.servers[server]
                            .registry
                            .handle_open(self.now, conn, from);
                        self.peers[peer].link = Some(Link { server, conn });
                        self.peers[peer].member.handle_connected(self.now, attempt);
                    }
                }
            }
            MemberOutput::Write { bytes } => {
                self.peers[peer].member.handle_sent(self.now, bytes.len());
                let Some(link) = &self.peers[peer].link else {
                    return;
                };
                let registry = &mut self.servers[link.server].registry;
                if !self.peers[peer].muted {
                    for piece in bytes.chunks(self.piece) {
                        registry.handle_bytes(self.now, link.conn, piece);
                    }
                }
            }
            MemberOutput::Close => {
                self.peers[peer].held.clear();
                if let Some(link) = self.peers[peer].link.take() {
                    self.servers[link.server]
                        .registry
                        .handle_closed(self.now, link.conn);
                }
            }
        }
    }

    fn registry_output(&mut self, server: usize, output: RegistryOutput) {
        let conn = match output {
            RegistryOutput::Write { conn, .. } | RegistryOutput::Close { conn } => conn,
        };
        let on_this = |peer: &Peer| {
            let link = peer.link.as_ref();
            link.is_some_and(|l| l.server == server && l.conn == conn)
        };
        let peer = self.peers.iter().position(on_this);
        match output {
            RegistryOutput::Write { bytes, .. } => {
                let Some(peer) = peer else {
                    return;
                };
                if self.peers[peer].stalled {
                    self.peers[peer].held.extend_from_slice(&bytes);
                } else {
                    self.deliver(peer, &bytes);
                }
            }
            RegistryOutput::Close { .. } => {
                self.closed.push(conn);
                if let Some(peer) = peer {
                    self.peers[peer].link = None;
                    self.peers[peer].held.clear();
                    self.peers[peer].member.handle_closed(self.now);
                }
            }
        }
    }

    /// Lets time pass, with everything due at its time.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let members = self.peers.iter().filter_map(|p| p.member.poll_timeout());
            let servers = self
                .servers
                .iter()
                .filter_map(|s| s.registry.poll_timeout());
            let Some(at) = members.chain(servers).min().filter(|&at| at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            for peer in &mut self.peers {
                peer.member.handle_timeout(self.now);
            }
            for server in &mut self.servers {
                server.registry.handle_timeout(self.now);
            }
            self.pump();
        }
        self.now = end;
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    pub(crate) fn take_events(&mut self, peer: usize) -> Vec<MemberEvent> {
        std::mem::take(&mut self.peers[peer].events)
    }

    pub(crate) fn view(&self, server: usize, cluster: ClusterId) -> Option<ClusterView> {
        let mut views = self.servers[server].registry.clusters();
        views.find(|view| view.id == cluster)
    }

    /// Checks that what every connected member knows of its clusters is what the
    /// server knows.
    pub(crate) fn assert_rosters_agree(&self, context: &str) {
        for peer in &self.peers {
            let me = peer.member.id();
            let mine: BTreeMap<ClusterId, _> = peer.member.roster().collect();
            for server in &self.servers {
                for view in server.registry.clusters() {
                    let listed = view.members.iter().any(|m| m.id == me);
                    assert_eq!(listed, mine.contains_key(&view.id), "{context}: {me}");
                }
            }
            for (cluster, roster) in mine {
                let view = self.view(0, cluster);
                let view = view.unwrap_or_else(|| panic!("{context}: {me} believes in {cluster}"));
                assert!(roster.is_confirmed(), "{context}: {me}");
                // A joiner does not learn that a suspended cluster was ready before.
                if roster.state().is_active() || view.state.is_active() {
                    assert_eq!(roster.state(), view.state, "{context}: {me} {cluster}");
                }
                let known: Vec<_> = roster
                    .members()
                    .map(|(id, m)| (id, m.present, m.address, m.caps))
                    .collect();
                let real: Vec<_> = view
                    .members
                    .iter()
                    .filter(|m| m.id != me)
                    .map(|m| (m.id, m.present, m.address, m.caps))
                    .collect();
                assert_eq!(known, real, "{context}: {me} {cluster}");
            }
        }
    }
}

/// A world that does what it likes; used by the random tests.
pub(crate) fn disturb(world: &mut World, draw: &mut Draw) {
    let peer = draw.below(world.peers.len());
    match draw.below(8) {
        0 => world.cut(peer),
        1 => world.stall(peer, true),
        2 => world.stall(peer, false),
        3 if world.peers[peer].muted => world.unmute(peer),
        3 => world.peers[peer].muted = true,
        4 => world.servers[0].mode = *draw.pick(&[Mode::Up, Mode::Refusing, Mode::Silent]),
        5 => world.piece = 1 + draw.below(100),
        _ => world.pass(Duration::from_millis(draw.below(20_000) as u64)),
    }
}
