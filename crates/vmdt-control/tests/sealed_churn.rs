//! A day of churn in clusters that have descriptors: joins, leaves, removals, crashes, members cut
//! off, servers restarted from their records. After every step the registry equals a model that
//! knows only what went over the connections.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Draw, base};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_control::{
    ClusterState, ConnId, Member, MemberConfig, MemberEvent, MemberOutput, Record, RecordKey,
    Registry, RegistryConfig, RegistryOutput, Reply, Request, RequestError,
};
use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::invite::{Invite, InviteSecret, InviteTerms, Rights};
use vmdt_seal::membership::Membership;
use vmdt_seal::revocation::{RevocationDetails, RevocationList};
use vmdt_wire::{ClusterId, ErrorCode, NodeId};

/// Some day in 2023, in milliseconds.
const TODAY: u64 = 1_700_000_000_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);
const GRACE: Duration = Duration::from_secs(2 * 3_600);
const IDLE: Duration = Duration::from_secs(90);
/// How long whom the server has not announced since a return is remembered.
const RETURN_TIME: Duration = Duration::from_secs(30);
/// The first peers create a cluster each and stay in it.
const CREATORS: usize = 3;
const PEERS: usize = 8;
const K: usize = 2;
const N: usize = 3;

fn config() -> RegistryConfig {
    RegistryConfig::new().grace_sealed(GRACE).idle(IDLE)
}

struct Signed {
    descriptor: Descriptor,
    invite: Invite,
    secret: InviteSecret,
}

fn signed(creator: &SecretIdentity, seed: u8) -> Signed {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let details = DescriptorDetails {
        k: K as u8,
        n: N as u8,
        options: 0,
        name: format!("garden {seed}"),
        created_ms: TODAY,
    };
    let descriptor = Descriptor::sign(creator, &details, &mut rng).unwrap();
    let terms = InviteTerms {
        rights: Rights::MEMBER,
        expires_ms: TODAY + 2 * DAY.as_millis() as u64,
        max_uses: 0,
    };
    let (invite, secret) = Invite::issue(creator, None, &descriptor, &terms, &mut rng).unwrap();
    Signed {
        descriptor,
        invite,
        secret,
    }
}

/// What the model knows of a cluster: since when each place's member is away, if it is.
#[derive(Debug, Default)]
struct Model {
    places: BTreeMap<usize, Option<Instant>>,
    removed: BTreeSet<usize>,
    /// Whom the server, since it was started, knows to have joined some time.
    known: BTreeSet<usize>,
    been_ready: bool,
}

impl Model {
    fn present(&self) -> usize {
        self.places.values().filter(|away| away.is_none()).count()
    }

    fn state(&self) -> ClusterState {
        match self.present() {
            present if present >= N => ClusterState::Ready,
            _ if !self.been_ready => ClusterState::Creating,
            present if present >= K => ClusterState::Degraded,
            _ => ClusterState::Suspended,
        }
    }
}

struct Peer {
    identity: SecretIdentity,
    member: Member,
    /// The connection as the peer sees it.
    near: Option<ConnId>,
    /// The connection as the server sees it.
    far: Option<ConnId>,
    /// Nothing passes in either direction.
    cut: bool,
    /// Not running until then.
    down_until: Option<Instant>,
    /// When the server last got a line on `far`.
    last_line: Instant,
    /// When it last returned to a cluster.
    returned: Instant,
    /// The clusters it has joined and not left.
    wants: BTreeSet<usize>,
    events: Vec<MemberEvent>,
}

struct World {
    seed: u64,
    draw: Draw,
    start: Instant,
    now: Instant,
    registry: Registry,
    up_again: Option<Instant>,
    kept: BTreeMap<RecordKey, Bytes>,
    peers: Vec<Peer>,
    clusters: Vec<Signed>,
    models: Vec<Model>,
    conns: u64,
    steps: usize,
    seen: BTreeMap<&'static str, usize>,
}

fn member(peer: usize, identity: &SecretIdentity) -> Member {
    let server = "192.0.2.1:8080".parse().unwrap();
    let config = MemberConfig::new(identity.node_id(), 9_000, vec![server]);
    Member::new(config, [peer as u8; 32])
}

impl World {
    fn new(seed: u64) -> World {
        let start = base();
        let peers = (0..PEERS).map(|peer| {
            let identity = SecretIdentity::from_seed(&[peer as u8 + 1; 32]);
            Peer {
                member: member(peer, &identity),
                identity,
                near: None,
                far: None,
                cut: false,
                down_until: None,
                last_line: start,
                returned: start,
                wants: BTreeSet::new(),
                events: Vec::new(),
            }
        });
        let peers: Vec<Peer> = peers.collect();
        let clusters = (0..CREATORS).map(|c| signed(&peers[c].identity, 100 + c as u8));
        let mut registry = Registry::new(config(), [9; 32]);
        registry.handle_clock(start, TODAY);
        registry.begin_recording();
        let mut world = World {
            seed,
            draw: Draw::new(seed),
            start,
            now: start,
            registry,
            up_again: None,
            kept: BTreeMap::new(),
            clusters: clusters.collect(),
            models: (0..CREATORS).map(|_| Model::default()).collect(),
            peers,
            conns: 0,
            steps: 0,
            seen: BTreeMap::new(),
        };
        world.settle();
        for c in 0..CREATORS {
            let descriptor = &world.clusters[c].descriptor;
            let own = Membership::of_creator(&world.peers[c].identity, descriptor, TODAY);
            let request = Request::CreateSealed {
                descriptor: descriptor.octets().clone(),
                membership: own.unwrap().octets().clone(),
            };
            world.ask(c, request).unwrap();
            world.took_place(c, c);
        }
        world
    }

    fn place(&self) -> String {
        format!("seed {}, step {}", self.seed, self.steps)
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn id(&self, peer: usize) -> NodeId {
        self.peers[peer].identity.node_id()
    }

    fn cluster(&self, c: usize) -> ClusterId {
        self.clusters[c].descriptor.cluster()
    }

    fn took_place(&mut self, c: usize, peer: usize) {
        self.models[c].places.insert(peer, None);
        self.models[c].known.insert(peer);
        self.peers[peer].wants.insert(c);
        self.note_readiness();
    }

    fn note_readiness(&mut self) {
        for model in &mut self.models {
            model.been_ready |= model.present() >= N;
        }
    }

    /// The server has a connection with this peer, who takes its places again.
    fn arrived(&mut self, peer: usize, conn: ConnId) {
        self.peers[peer].far = Some(conn);
        let wants = self.peers[peer].wants.clone();
        for c in wants {
            let model = &mut self.models[c];
            // Who was removed hears of it now. A membership of long ago is good for a place that
            // is kept, or with a server that has seen it before; the creator's always is.
            let known = peer == c || model.known.contains(&peer);
            if known && !model.removed.contains(&peer) {
                model.places.insert(peer, None);
            } else {
                self.peers[peer].wants.remove(&c);
            }
        }
        self.note_readiness();
    }

    /// The server has lost its connection with this peer.
    fn lost(&mut self, peer: usize) {
        self.peers[peer].far = None;
        for model in &mut self.models {
            if let Some(away) = model.places.get_mut(&peer) {
                away.get_or_insert(self.now);
            }
        }
    }

    fn settle(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for peer in 0..PEERS {
                while self.peers[peer].down_until.is_none()
                    && let Some(output) = self.peers[peer].member.poll_output()
                {
                    busy = true;
                    self.member_output(peer, output);
                }
                while let Some(event) = self.peers[peer].member.poll_event() {
                    if let MemberEvent::ClusterLost { cluster, reason } = &event {
                        let c = (0..CREATORS)
                            .find(|&c| self.cluster(c) == *cluster)
                            .unwrap();
                        let lost = !self.peers[peer].wants.contains(&c);
                        assert!(lost, "{}: {peer} lost {c}: {reason:?}", self.place());
                    }
                    if matches!(event, MemberEvent::Rejoined { .. }) {
                        self.peers[peer].returned = self.now;
                    }
                    self.peers[peer].events.push(event);
                }
            }
            while let Some(Record { key, value }) = self.registry.poll_record() {
                match value {
                    Some(value) => self.kept.insert(key, value),
                    None => self.kept.remove(&key),
                };
            }
            while let Some(output) = self.registry.poll_output() {
                busy = true;
                self.registry_output(output);
            }
        }
    }

    fn member_output(&mut self, index: usize, output: MemberOutput) {
        let up = self.up_again.is_none();
        let now = self.now;
        let peer = &mut self.peers[index];
        match output {
            // Neither accepted nor refused.
            MemberOutput::Connect { .. } if peer.cut => {}
            MemberOutput::Connect { attempt, .. } if !up => {
                let kind = std::io::ErrorKind::ConnectionRefused;
                peer.member.handle_connect_failed(now, attempt, kind);
            }
            MemberOutput::Connect { attempt, .. } => {
                self.conns += 1;
                let conn = ConnId(self.conns);
                let from = "198.51.100.7:4000".parse().unwrap();
                let id = peer.identity.node_id();
                self.registry.handle_open_as(now, conn, from, id);
                peer.near = Some(conn);
                peer.last_line = now;
                peer.member.handle_connected(now, attempt);
                self.arrived(index, conn);
            }
            MemberOutput::Write { bytes } => {
                peer.member.handle_sent(now, bytes.len());
                if let Some(conn) = peer.near.filter(|_| !peer.cut) {
                    peer.last_line = now;
                    self.registry.handle_bytes(now, conn, &bytes);
                }
            }
            MemberOutput::Close => {
                let conn = peer.near.take().filter(|_| !peer.cut);
                if let Some(conn) = conn {
                    self.registry.handle_closed(now, conn);
                    if self.peers[index].far == Some(conn) {
                        self.lost(index);
                    }
                }
            }
        }
    }

    fn registry_output(&mut self, output: RegistryOutput) {
        match output {
            RegistryOutput::Write { conn, bytes } => {
                self.registry.handle_sent(self.now, conn, bytes.len());
                let now = self.now;
                let near = |p: &&mut Peer| p.near == Some(conn) && !p.cut;
                if let Some(peer) = self.peers.iter_mut().find(near) {
                    peer.member.handle_bytes(now, &bytes);
                }
            }
            RegistryOutput::Close { conn } => {
                // Either the peer has a newer connection, or it was silent for too long.
                let far = self.peers.iter().position(|p| p.far == Some(conn));
                if let Some(peer) = far {
                    let since = self.now - self.peers[peer].last_line;
                    assert_eq!(since, IDLE, "{}", self.place());
                    let silent = self.peers[peer].cut || self.peers[peer].near != Some(conn);
                    assert!(silent, "{}", self.place());
                    self.saw("cut off by the server");
                    self.lost(peer);
                }
                let now = self.now;
                let near = |p: &&mut Peer| p.near == Some(conn) && !p.cut;
                if let Some(peer) = self.peers.iter_mut().find(near) {
                    peer.near = None;
                    peer.member.handle_closed(now);
                }
            }
        }
    }

    /// Lets time pass, with everything due at its time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let running = self.peers.iter().filter(|p| p.down_until.is_none());
            let members = running.filter_map(|p| p.member.poll_timeout());
            let starts = self.peers.iter().filter_map(|p| p.down_until);
            let server = match self.up_again {
                None => self.registry.poll_timeout(),
                at => at,
            };
            let next = members.chain(starts).chain(server).min();
            let Some(next) = next.filter(|&at| at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            let now = self.now;
            if self.up_again.is_some_and(|at| at <= now) {
                self.restart();
            }
            if self.up_again.is_none() {
                self.registry.handle_timeout(now);
                for model in &mut self.models {
                    let before = model.places.len();
                    let gone = |away: &Option<Instant>| away.is_some_and(|at| at + GRACE <= now);
                    model.places.retain(|_, away| !gone(away));
                    *self.seen.entry("expired").or_default() += before - model.places.len();
                }
            }
            for peer in &mut self.peers {
                match peer.down_until {
                    None => peer.member.handle_timeout(now),
                    Some(at) if at <= now => peer.down_until = None,
                    Some(_) => {}
                }
            }
            self.settle();
        }
        self.now = end;
    }

    /// The server is killed, and comes back later.
    fn kill_server(&mut self) {
        let away = Duration::from_secs(1 + self.draw.below(600) as u64);
        self.up_again = Some(self.now + away);
        let now = self.now;
        self.registry = Registry::new(config(), [10; 32]);
        for index in 0..PEERS {
            let peer = &mut self.peers[index];
            if !peer.cut && peer.near.take().is_some() {
                peer.member.handle_closed(now);
            }
            if self.peers[index].far.is_some() {
                self.lost(index);
            }
        }
        self.settle();
    }

    fn restart(&mut self) {
        self.up_again = None;
        let passed = self.now.duration_since(self.start).as_millis() as u64;
        let mut registry = Registry::new(config(), [11; 32]);
        registry.handle_clock(self.now, TODAY + passed);
        let restored = registry.restore(self.now, self.kept.clone());
        assert_eq!(restored.skipped, 0, "{}", self.place());
        registry.begin_recording();
        self.registry = registry;
        let now = self.now;
        for model in &mut self.models {
            // Everybody has the grace period from now on.
            model.places.values_mut().for_each(|away| *away = Some(now));
            model.known = model.places.keys().copied().collect();
        }
        self.saw("restart");
    }

    /// The process of a peer is not scheduled: its connection breaks.
    fn crash(&mut self, index: usize) {
        // Creators are away too short a time to lose their places.
        let most = if index < CREATORS { 3_000 } else { 20_000 };
        let away = Duration::from_secs(1 + self.draw.below(most) as u64);
        let now = self.now;
        let peer = &mut self.peers[index];
        peer.down_until = Some(now + away);
        let near = peer.near.take();
        if near.is_some() {
            peer.member.handle_closed(now);
        }
        if let Some(conn) = near.filter(|_| !self.peers[index].cut)
            && self.peers[index].far == Some(conn)
        {
            self.registry.handle_closed(now, conn);
            self.lost(index);
        }
        self.settle();
    }

    /// What was lost on the way breaks the connection.
    fn heal(&mut self, index: usize) {
        let now = self.now;
        let peer = &mut self.peers[index];
        peer.cut = false;
        if let Some(conn) = peer.near.take() {
            peer.member.handle_closed(now);
            if peer.far == Some(conn) {
                self.registry.handle_closed(now, conn);
                self.lost(index);
            }
        }
        self.settle();
    }

    fn ask(&mut self, peer: usize, request: Request) -> Result<Reply, RequestError> {
        let id = self.peers[peer].member.request(self.now, request);
        self.settle();
        let mut events = self.peers[peer].events.drain(..);
        let result = events.find_map(|event| match event {
            MemberEvent::Reply { request, result } if request == id => Some(result),
            _ => None,
        });
        drop(events);
        result.unwrap_or_else(|| panic!("{}: no reply", self.place()))
    }

    fn join(&mut self, peer: usize, c: usize) {
        let signed = &self.clusters[c];
        let who = self.peers[peer].identity.public();
        let today = TODAY + self.now.duration_since(self.start).as_millis() as u64;
        let membership = Membership::accept(&signed.invite, &signed.secret, who, today).unwrap();
        let request = Request::JoinSealed {
            cluster: self.cluster(c),
            membership: membership.octets().clone(),
        };
        let result = self.ask(peer, request);
        if self.models[c].removed.contains(&peer) {
            self.saw("removed for good");
            assert!(result.is_err(), "{}: {result:?}", self.place());
        } else if self.models[c].places.contains_key(&peer) {
            let refused = |e: &RequestError| matches!(e, RequestError::Refused(e) if e.code == ErrorCode::AlreadyMember);
            assert!(
                result.as_ref().is_err_and(refused),
                "{}: {result:?}",
                self.place()
            );
        } else {
            assert!(result.is_ok(), "{}: {result:?}", self.place());
            self.saw("join");
            self.took_place(c, peer);
        }
    }

    fn leave(&mut self, peer: usize, c: usize) {
        let cluster = self.cluster(c);
        let left = self.ask(peer, Request::LeaveCluster(cluster)).is_ok();
        let was_in = self.models[c].places.remove(&peer).is_some();
        self.peers[peer].wants.remove(&c);
        assert_eq!(left, was_in, "{}", self.place());
    }

    /// The creator removes a member for ever.
    fn remove(&mut self, peer: usize, c: usize) {
        if self.models[c].removed.len() > 1 || !self.is_on(c) {
            return;
        }
        self.models[c].removed.insert(peer);
        let removed: Vec<NodeId> = self.models[c].removed.iter().map(|&p| self.id(p)).collect();
        let details = RevocationDetails {
            cluster: self.clusters[c].descriptor.hash(),
            version: removed.len() as u64,
            removed,
            invites: vec![],
            kept: vec![],
        };
        let list = RevocationList::sign(&self.peers[c].identity, &details).unwrap();
        let request = Request::Revoke {
            cluster: self.cluster(c),
            list: list.octets().clone(),
        };
        self.ask(c, request).unwrap();
        self.models[c].places.remove(&peer);
        if self.is_on(peer) {
            self.peers[peer].wants.remove(&c);
        }
        self.saw("removed");
    }

    /// Whether what the peer asks is answered at once.
    fn is_on(&self, peer: usize) -> bool {
        let p = &self.peers[peer];
        let running = p.down_until.is_none() && !p.cut && self.up_again.is_none();
        running && p.near.is_some() && p.member.is_registered()
    }

    fn step(&mut self) {
        self.steps += 1;
        let peer = self.draw.below(PEERS);
        let c = self.draw.below(CREATORS);
        let down = self.peers[peer].down_until.is_some();
        match self.draw.below(40) {
            0 if self.up_again.is_none() && self.draw.one_in(3) => self.kill_server(),
            1..=2 if !down => self.crash(peer),
            3 if !down && !self.peers[peer].cut => {
                self.saw("partition");
                self.peers[peer].cut = true;
            }
            4..=12 if self.peers[peer].cut => self.heal(peer),
            13..=17 if peer != c && self.is_on(peer) => self.join(peer, c),
            18..=19 if peer != c && self.is_on(peer) => self.leave(peer, c),
            20 if peer >= CREATORS && self.draw.one_in(8) => self.remove(peer, c),
            _ => {
                let seconds = 1 + self.draw.below(120) as u64;
                self.pass(Duration::from_secs(seconds));
            }
        }
        self.compare();
    }

    fn compare(&mut self) {
        let place = self.place();
        for peer in &mut self.peers {
            peer.events.clear();
            let heard = peer.far.is_none() || self.now - peer.last_line <= IDLE;
            assert!(heard, "{place}: a silent connection is kept");
        }
        if self.up_again.is_some() {
            return;
        }
        assert_eq!(self.registry.clusters().count(), CREATORS, "{place}");
        for view in self.registry.clusters() {
            let c = (0..CREATORS).find(|&c| self.cluster(c) == view.id).unwrap();
            let model = &self.models[c];
            let found: BTreeMap<NodeId, bool> =
                view.members.iter().map(|m| (m.id, m.present)).collect();
            let places = model.places.iter();
            let expected: BTreeMap<NodeId, bool> = places
                .map(|(&peer, away)| (self.id(peer), away.is_none()))
                .collect();
            assert_eq!(found, expected, "{place}, cluster {c}: {model:?}");
            assert_eq!(view.state, model.state(), "{place}, cluster {c}: {model:?}");
            // Members that hear the server know the same.
            for peer in (0..PEERS).filter(|&peer| self.is_on(peer)) {
                let roster = self.peers[peer].member.cluster(view.id);
                let has_place = model.places.contains_key(&peer);
                assert_eq!(roster.is_some(), has_place, "{place}, {c}: peer {peer}");
                let Some(roster) = roster else {
                    continue;
                };
                let me = self.id(peer);
                // Whom it knew before it returned, it counts for a time.
                let announced = roster.members().filter(|(_, m)| m.is_announced());
                let known: BTreeMap<NodeId, bool> =
                    announced.map(|(id, m)| (id, m.present)).collect();
                let all = known.len() == roster.members().count();
                let returned = self.now - self.peers[peer].returned;
                assert!(all || returned <= RETURN_TIME, "{place}, {c}: peer {peer}");
                let mut others = expected.clone();
                others.remove(&me);
                assert_eq!(known, others, "{place}, {c}: the roster of peer {peer}");
            }
        }
        for state in self.models.iter().map(Model::state) {
            *self
                .seen
                .entry(match state {
                    ClusterState::Ready => "ready",
                    ClusterState::Degraded => "degraded",
                    ClusterState::Suspended => "suspended",
                    _ => "creating",
                })
                .or_default() += 1;
        }
    }
}

#[test]
fn a_day_in_clusters_with_descriptors_equals_the_model_after_every_step() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..4 {
        let mut world = World::new(seed);
        while world.now < world.start + DAY {
            world.step();
        }
        for (what, count) in world.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    // The day had everything in it.
    let everything = [
        ("join", 50),
        ("removed", 8),
        ("removed for good", 1),
        ("partition", 50),
        ("cut off by the server", 50),
        ("restart", 10),
        ("expired", 5),
        ("creating", 1),
        ("ready", 500),
        ("degraded", 500),
        ("suspended", 20),
    ];
    for (what, least) in everything {
        assert!(seen.get(what) >= Some(&least), "{what}: {seen:?}");
    }
}
