//! Three registries with one state against a model that is too simple to be wrong: after
//! every step, with whatever delay in between, all of them equal it, and so does what
//! their clients were told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Draw, base, id};
use vmdt_control::{
    ClusterState, ConnId, Record, RecordKey, Registry, RegistryConfig, RegistryOutput,
};
use vmdt_wire::{Caps, ClusterId, Framing, Line, MemberState, Message, NodeId};

const GRACE: Duration = Duration::from_secs(60);
const SERVERS: usize = 3;

/// What the servers share: a log, and what it adds up to.
#[derive(Default)]
struct Shared {
    /// By whom, and what; `SERVERS`: nobody.
    log: Vec<(usize, Vec<Record>)>,
    /// With the server that a presence belongs to.
    records: BTreeMap<RecordKey, (Bytes, usize)>,
}

impl Shared {
    fn commit(&mut self, server: usize, records: Vec<Record>) {
        for Record { key, value } in &records {
            match value {
                Some(value) => self.records.insert(*key, (value.clone(), server)),
                None => self.records.remove(key),
            };
        }
        if !records.is_empty() {
            self.log.push((server, records));
        }
    }

    /// The lease of a server ends.
    fn expire(&mut self, server: usize) {
        let of_server = |(key, (_, by)): (&RecordKey, &(Bytes, usize))| {
            (matches!(key, RecordKey::Presence(_)) && *by == server).then_some(*key)
        };
        let keys: Vec<RecordKey> = self.records.iter().filter_map(of_server).collect();
        let gone = |key| Record { key, value: None };
        self.commit(SERVERS, keys.into_iter().map(gone).collect());
    }
}

struct Server {
    registry: Registry,
    /// How much of the log it has seen.
    seen: usize,
}

/// A client as it sees the world.
#[derive(Default)]
struct Client {
    at: Option<(usize, ConnId)>,
    /// Its clusters, who is present there, and whether it was told that it may send.
    clusters: BTreeMap<ClusterId, (BTreeMap<NodeId, bool>, bool)>,
    replies: Vec<Message>,
}

struct World {
    now: Instant,
    shared: Shared,
    servers: Vec<Option<Server>>,
    clients: BTreeMap<NodeId, Client>,
    next: u64,
}

fn config() -> RegistryConfig {
    RegistryConfig::new()
        .grace(GRACE)
        .idle(Duration::from_secs(1_000_000))
        .rate(1_000_000, 1_000_000)
        .max_clusters_per_client(3)
}

impl World {
    fn new() -> World {
        let mut world = World {
            now: base(),
            shared: Shared::default(),
            servers: (0..SERVERS).map(|_| None).collect(),
            clients: BTreeMap::new(),
            next: 1,
        };
        for server in 0..SERVERS {
            world.start(server);
        }
        world
    }

    fn start(&mut self, at: usize) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        let mut registry = Registry::new(config(), seed);
        registry.begin_sharing();
        let records = self.shared.records.iter();
        let restored =
            registry.handle_attached(self.now, records.map(|(&k, (v, _))| (k, v.clone())));
        assert_eq!(restored.skipped, 0);
        let seen = self.shared.log.len();
        self.servers[at] = Some(Server { registry, seen });
    }

    /// The server is gone, with its connections; the others hear of that with its lease.
    fn kill(&mut self, at: usize) {
        self.servers[at] = None;
        for client in self.clients.values_mut() {
            if client.at.is_some_and(|(server, _)| server == at) {
                client.at = None;
            }
        }
        self.shared.expire(at);
    }

    /// Takes in what others have written.
    fn catch_up(&mut self, at: usize) {
        let Some(server) = &mut self.servers[at] else {
            return;
        };
        while let Some((by, records)) = self.shared.log.get(server.seen) {
            server.seen += 1;
            if *by != at {
                server.registry.handle_records(self.now, records.clone());
            }
        }
    }

    /// Does what a driver does after input: writes if it has to, then tells.
    fn pump(&mut self, at: usize) {
        if self.servers[at]
            .as_ref()
            .is_some_and(|s| s.registry.wants_write())
        {
            self.catch_up(at);
            let server = self.servers[at].as_mut().unwrap();
            server.registry.handle_write_granted(self.now);
            assert!(!server.registry.wants_write());
            let records = std::iter::from_fn(|| server.registry.poll_record()).collect();
            // All that others wrote is known, so our own entry is the next one.
            assert_eq!(server.seen, self.shared.log.len());
            self.shared.commit(at, records);
            server.seen = self.shared.log.len();
            server.registry.handle_write_ended();
        }
        let Some(server) = &mut self.servers[at] else {
            return;
        };
        assert_eq!(
            server.registry.poll_record(),
            None,
            "changed without the right to"
        );
        while let Some(output) = server.registry.poll_output() {
            let named = match &output {
                RegistryOutput::Write { conn, .. } | RegistryOutput::Close { conn } => *conn,
            };
            let client = self
                .clients
                .values_mut()
                .find(|c| c.at == Some((at, named)));
            let Some(client) = client else {
                continue;
            };
            match output {
                RegistryOutput::Close { .. } => client.at = None,
                RegistryOutput::Write { bytes, .. } => {
                    for line in bytes.split_inclusive(|&o| o == b'\n') {
                        client.read(Line::parse(line).unwrap().message);
                    }
                }
            }
        }
    }

    /// Everybody has heard everything.
    fn settle(&mut self) {
        loop {
            let before = self.shared.log.len();
            for at in 0..SERVERS {
                self.catch_up(at);
                self.pump(at);
            }
            if self.shared.log.len() == before {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for at in 0..SERVERS {
            if let Some(server) = &mut self.servers[at] {
                server.registry.handle_timeout(self.now);
            }
            self.pump(at);
        }
    }

    fn ask(&mut self, who: NodeId, message: Message) -> Message {
        let (at, conn) = self.clients[&who].at.unwrap();
        let line = Line {
            framing: Framing::Slash,
            tag: None,
            message,
        };
        let server = self.servers[at].as_mut().unwrap();
        server
            .registry
            .handle_bytes(self.now, conn, &line.emit().unwrap());
        self.pump(at);
        let client = self.clients.get_mut(&who).unwrap();
        let replies = std::mem::take(&mut client.replies);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.into_iter().next().unwrap()
    }

    fn connect(&mut self, who: NodeId, at: usize) {
        let conn = ConnId(self.next);
        self.next += 1;
        let host = who.as_str().bytes().last().unwrap();
        let peer = ([192, 0, 2, host], 40_000).into();
        let server = self.servers[at].as_mut().unwrap();
        server.registry.handle_open(self.now, conn, peer);
        self.clients.entry(who).or_default().at = Some((at, conn));
        let register = Message::RegisterP2pPort {
            client: who,
            port: 9_000 + u16::from(host),
            caps: Some(Caps::RDT),
        };
        assert!(matches!(self.ask(who, register), Message::Ok { .. }));
        let clusters: Vec<ClusterId> = self.clients[&who].clusters.keys().copied().collect();
        for cluster in clusters {
            self.join(who, cluster);
        }
    }

    fn join(&mut self, who: NodeId, cluster: ClusterId) -> bool {
        let client = self.clients.get_mut(&who).unwrap();
        client.clusters.insert(cluster, Default::default());
        let join = Message::JoinCluster {
            client: who,
            cluster,
        };
        match self.ask(who, join) {
            Message::ClusterJoined { .. } => true,
            Message::Error { .. } => {
                let client = self.clients.get_mut(&who).unwrap();
                // It asked in vain, or its place was lost meanwhile.
                client.clusters.remove(&cluster);
                false
            }
            other => panic!("{other:?}"),
        }
    }

    fn disconnect(&mut self, who: NodeId) {
        let (at, conn) = self.clients.get_mut(&who).unwrap().at.take().unwrap();
        let server = self.servers[at].as_mut().unwrap();
        server.registry.handle_closed(self.now, conn);
        self.pump(at);
    }
}

impl Client {
    fn read(&mut self, message: Message) {
        match message {
            Message::Member {
                cluster, id, state, ..
            } => {
                let Some((members, _)) = self.clusters.get_mut(&cluster) else {
                    return;
                };
                match state {
                    MemberState::Left => members.remove(&id),
                    MemberState::Away => members.insert(id, false),
                    _ => members.insert(id, true),
                };
            }
            Message::ClusterReady { cluster } => {
                if let Some((_, told)) = self.clusters.get_mut(&cluster) {
                    *told = true;
                }
            }
            other => self.replies.push(other),
        }
    }
}

#[derive(Default)]
struct ModelCluster {
    n: usize,
    k: usize,
    been_ready: bool,
    /// `None`: present; otherwise until when each server keeps the place.
    places: BTreeMap<NodeId, Option<[Instant; SERVERS]>>,
}

impl ModelCluster {
    fn present(&self) -> usize {
        self.places.values().filter(|until| until.is_none()).count()
    }

    fn state(&self) -> ClusterState {
        match self.present() {
            present if present >= self.n => ClusterState::Ready,
            _ if !self.been_ready => ClusterState::Creating,
            present if present >= self.k => ClusterState::Degraded,
            _ => ClusterState::Suspended,
        }
    }
}

type Model = BTreeMap<ClusterId, ModelCluster>;

fn tidy(model: &mut Model, now: Instant, running: &[usize]) {
    for cluster in model.values_mut() {
        // The first server that finds the grace over says so to all.
        cluster
            .places
            .retain(|_, until| until.is_none_or(|at| running.iter().all(|&s| at[s] > now)));
        cluster.been_ready |= cluster.present() >= cluster.n;
    }
    model.retain(|_, cluster| !cluster.places.is_empty());
}

fn check(world: &World, model: &Model, seed: u64, step: usize) {
    let about = format!("seed {seed}, step {step}");
    let mut views = Vec::new();
    for server in world.servers.iter().flatten() {
        let mut view: Vec<_> = server.registry.clusters().collect();
        // Where somebody was who is away is not kept.
        let members = view.iter_mut().flat_map(|cluster| &mut cluster.members);
        for member in members.filter(|member| !member.present) {
            member.address = None;
        }
        views.push(view);
    }
    for view in &views {
        assert_eq!(view, &views[0], "{about}");
        assert_eq!(view.len(), model.len(), "{about}");
        for (found, (cluster, expected)) in view.iter().zip(model) {
            assert_eq!(found.id, *cluster, "{about}");
            let places: Vec<_> = found.members.iter().map(|m| (m.id, m.present)).collect();
            let model = expected.places.iter();
            let model: Vec<_> = model.map(|(&id, until)| (id, until.is_none())).collect();
            assert_eq!(places, model, "{about}");
            assert_eq!(found.state, expected.state(), "{about}");
        }
    }
    for (who, client) in &world.clients {
        if client.at.is_none() {
            continue;
        }
        for (cluster, (members, told)) in &client.clusters {
            let expected = &model[cluster];
            let others = expected.places.iter().filter(|(id, _)| *id != who);
            let others: BTreeMap<_, _> = others.map(|(&id, until)| (id, until.is_none())).collect();
            assert_eq!(members, &others, "{about}: what {who} was told");
            assert!(*told || !expected.state().is_active(), "{about}: {who}");
        }
    }
}

fn away(model: &mut Model, who: NodeId, until: Instant) {
    for cluster in model.values_mut() {
        if let Some(place @ None) = cluster.places.get_mut(&who) {
            *place = Some([until; SERVERS]);
        }
    }
}

fn churn(seed: u64, steps: usize) {
    let mut draw = Draw::new(seed);
    let mut world = World::new();
    let mut model = Model::new();
    let names: Vec<NodeId> = (0..8).map(|i| id(&format!("client_{i}"))).collect();
    for step in 0..steps {
        let who = *draw.pick(&names);
        let running: Vec<usize> = (0..SERVERS)
            .filter(|&s| world.servers[s].is_some())
            .collect();
        let at = *draw.pick(&running);
        let connected = world.clients.get(&who).is_some_and(|c| c.at.is_some());
        match draw.below(12) {
            // Comes, comes back, or goes to another server while the old one still has it.
            0..=2 => {
                world.connect(who, at);
                let own = &world.clients[&who].clusters;
                for (cluster, found) in &mut model {
                    if own.contains_key(cluster) {
                        // Kept for it, or taken anew.
                        found.places.insert(who, None);
                    } else {
                        let lost = found.places.contains_key(&who);
                        assert!(!lost, "seed {seed}, step {step}: {who} was not let back in");
                    }
                }
            }
            3 if connected => {
                let (n, k) = *draw.pick(&[(2, 2), (3, 2), (4, 3)]);
                let create = Message::CreateCluster {
                    client: who,
                    n,
                    k,
                    options: None,
                };
                if let Message::ClusterCreated { cluster, .. } = world.ask(who, create) {
                    let client = world.clients.get_mut(&who).unwrap();
                    client.clusters.insert(cluster, Default::default());
                    let made = ModelCluster {
                        n: n.into(),
                        k: k.into(),
                        been_ready: false,
                        places: BTreeMap::from([(who, None)]),
                    };
                    model.insert(cluster, made);
                }
            }
            4..=6 if connected && !model.is_empty() => {
                let clusters: Vec<ClusterId> = model.keys().copied().collect();
                let cluster = *draw.pick(&clusters);
                if !world.clients[&who].clusters.contains_key(&cluster) && world.join(who, cluster)
                {
                    model.get_mut(&cluster).unwrap().places.insert(who, None);
                }
            }
            7 if connected => {
                let own = world.clients[&who].clusters.keys().next().copied();
                if let Some(cluster) = own {
                    let leave = Message::LeaveCluster {
                        client: who,
                        cluster: Some(cluster),
                    };
                    assert!(matches!(world.ask(who, leave), Message::Ok { .. }));
                    let client = world.clients.get_mut(&who).unwrap();
                    client.clusters.remove(&cluster);
                    model.get_mut(&cluster).unwrap().places.remove(&who);
                }
            }
            8 if connected => {
                world.disconnect(who);
                away(&mut model, who, world.now + GRACE);
            }
            9 if running.len() > 1 && draw.one_in(3) => {
                for (&id, client) in &world.clients {
                    if client.at.is_some_and(|(server, _)| server == at) {
                        away(&mut model, id, world.now + GRACE);
                    }
                }
                world.kill(at);
                // The others count its grace from when they hear of it.
                world.settle();
            }
            9 => {
                if let Some(down) = (0..SERVERS).find(|&s| world.servers[s].is_none()) {
                    world.start(down);
                    // It counts the grace of who is away from now.
                    let places = model.values_mut().flat_map(|c| c.places.values_mut());
                    for until in places.flatten() {
                        until[down] = world.now + GRACE;
                    }
                }
            }
            10 => {
                world.settle();
                world.pass(Duration::from_secs(25));
            }
            _ => world.catch_up(at),
        }
        let running: Vec<usize> = (0..SERVERS)
            .filter(|&s| world.servers[s].is_some())
            .collect();
        tidy(&mut model, world.now, &running);
        // Mostly the servers lag behind each other.
        if draw.one_in(3) {
            world.settle();
            check(&world, &model, seed, step);
        }
    }
    world.settle();
    check(&world, &model, seed, steps);
}

#[test]
fn all_servers_equal_the_model_whatever_the_delays() {
    for seed in 0..150 {
        churn(seed, 200);
    }
}
