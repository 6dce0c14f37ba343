//! Random churn against a model that is too simple to be wrong: after every step
//! the registry equals it.

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
    ClusterState, ClusterView, ConnId, Record, RecordKey, Registry, RegistryConfig, RegistryOutput,
};
use vmdt_wire::{ErrorCode, Line, Message, NodeId};

const GRACE: Duration = Duration::from_secs(60);

/// What the model knows of a place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Back by any request, a client of profile 1.0 may still join again.
    Present { may_join: bool },
    /// Present or away, must join again until then.
    Until { at: Instant, present: bool },
}

#[derive(Debug)]
struct ModelCluster {
    n: usize,
    k: usize,
    max: usize,
    open: bool,
    been_ready: bool,
    places: BTreeMap<NodeId, Place>,
}

impl ModelCluster {
    fn present(&self) -> usize {
        let present = |p: &&Place| !matches!(p, Place::Until { present: false, .. });
        self.places.values().filter(present).count()
    }

    fn state(&self) -> ClusterState {
        let present = self.present();
        if present >= self.n {
            ClusterState::Ready
        } else if !self.been_ready {
            ClusterState::Creating
        } else if present >= self.k {
            ClusterState::Degraded
        } else {
            ClusterState::Suspended
        }
    }
}

/// A client: ours if it has capabilities, of profile 1.0 otherwise.
#[derive(Debug)]
struct ModelClient {
    id: NodeId,
    ours: bool,
    conn: Option<u64>,
    /// Whether a request named the client on this connection.
    bound: bool,
}

struct World {
    seed: u64,
    draw: Draw,
    now: Instant,
    registry: Registry,
    clusters: BTreeMap<String, ModelCluster>,
    clients: Vec<ModelClient>,
    conns: u64,
    /// Connections that lost their client to another one.
    closing: Vec<u64>,
    /// What each connection has been sent.
    received: BTreeMap<u64, Vec<Message>>,
    /// What a store holds.
    kept: BTreeMap<RecordKey, Bytes>,
    steps: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let clients = (0..12).map(|i| ModelClient {
            id: id(&format!("client_{i}")),
            ours: i % 3 != 0,
            conn: None,
            bound: false,
        });
        let idle = Duration::from_secs(1_000_000);
        let config = RegistryConfig::new()
            .grace(GRACE)
            .idle(idle)
            .idle_open(idle);
        let mut registry = Registry::new(config.first_line(idle), [seed as u8; 32]);
        registry.begin_recording();
        World {
            seed,
            draw: Draw::new(seed),
            now: base(),
            registry,
            kept: BTreeMap::new(),
            clusters: BTreeMap::new(),
            clients: clients.collect(),
            conns: 0,
            closing: Vec::new(),
            received: BTreeMap::new(),
            steps: 0,
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                RegistryOutput::Write { conn, bytes } => {
                    self.registry.handle_sent(self.now, conn, bytes.len());
                    let lines = bytes.split(|&o| o == b'\n').filter(|l| !l.is_empty());
                    let messages = lines.map(|line| Line::parse(line).unwrap().message);
                    self.received.entry(conn.0).or_default().extend(messages);
                }
                RegistryOutput::Close { conn } => {
                    let at = self.closing.iter().position(|&c| c == conn.0);
                    let at = at.unwrap_or_else(|| panic!("seed {}: {conn:?} closed", self.seed));
                    self.closing.remove(at);
                }
            }
        }
    }

    /// Sends a request of client `c` and returns the reply.
    fn ask(&mut self, c: usize, request: &str) -> Message {
        let client = &mut self.clients[c];
        let conn = client.conn.unwrap();
        let first = !std::mem::replace(&mut client.bound, true);
        let before = self.received.entry(conn).or_default().len();
        let line = match client.ours {
            true => format!("VMDT/TCP/1.0/{}\n", request.replace('|', "/")),
            false => format!("{request}\n"),
        };
        self.registry
            .handle_bytes(self.now, ConnId(conn), line.as_bytes());
        self.drain();
        if first {
            self.returned(c);
        }
        let reply = self.received[&conn].get(before).cloned();
        reply.unwrap_or_else(|| panic!("seed {}: no reply to {request}", self.seed))
    }

    /// The model's view of a client that names itself on a new connection.
    fn returned(&mut self, c: usize) {
        let (id, ours) = (self.clients[c].id, self.clients[c].ours);
        for cluster in self.clusters.values_mut() {
            if let Some(place) = cluster.places.get_mut(&id) {
                *place = match *place {
                    _ if !ours => Place::Present { may_join: true },
                    // It took over its own live connection.
                    Place::Present { .. } => Place::Until {
                        at: self.now + GRACE,
                        present: true,
                    },
                    until => until,
                };
            }
        }
    }

    fn connect(&mut self, c: usize) {
        self.conns += 1;
        let conn = self.conns;
        let peer = format!("192.0.2.{c}:4000").parse().unwrap();
        self.registry.handle_open(self.now, ConnId(conn), peer);
        self.clients[c].conn = Some(conn);
        self.clients[c].bound = false;
        if self.clients[c].ours {
            let id = self.clients[c].id;
            let reply = self.ask(c, &format!("REGISTER_P2P_PORT|{id}|9000|rdt"));
            assert!(matches!(reply, Message::Ok { .. }), "{reply:?}");
        }
    }

    /// The client opens another connection before the old one is lost.
    fn reconnect(&mut self, c: usize) {
        let old = self.clients[c].conn.unwrap();
        if self.clients[c].bound {
            self.closing.push(old);
            self.connect(c);
            let id = self.clients[c].id;
            self.ask(c, &format!("LIST_CLUSTERS|{id}"));
            assert!(self.closing.is_empty(), "seed {}", self.seed);
        }
    }

    fn crash(&mut self, c: usize) {
        let conn = self.clients[c].conn.take().unwrap();
        let id = self.clients[c].id;
        self.registry.handle_closed(self.now, ConnId(conn));
        self.drain();
        if !std::mem::take(&mut self.clients[c].bound) {
            return;
        }
        let until = self.now + GRACE;
        for cluster in self.clusters.values_mut() {
            if let Some(place) = cluster.places.get_mut(&id) {
                let at = match *place {
                    Place::Present { .. } => until,
                    Place::Until { at, .. } => at.min(until),
                };
                *place = Place::Until { at, present: false };
            }
        }
    }

    fn create(&mut self, c: usize) {
        let id = self.clients[c].id;
        let ours = self.clients[c].ours;
        let k = 2 + self.draw.below(2);
        let n = k + self.draw.below(3);
        let open = self.draw.one_in(2);
        let options = if ours && open { "|open=1" } else { "" };
        let reply = self.ask(c, &format!("CREATE_CLUSTER|{id}|{n}|{k}{options}"));
        let elsewhere = self.clusters.values().any(|m| m.places.contains_key(&id));
        match reply {
            Message::ClusterCreated { cluster, .. } => {
                assert!(ours || !elsewhere, "seed {}", self.seed);
                let made = ModelCluster {
                    n,
                    k,
                    max: n + 1,
                    open: open || !ours,
                    been_ready: false,
                    places: BTreeMap::from([(id, Place::Present { may_join: false })]),
                };
                self.clusters.insert(cluster.to_string(), made);
            }
            Message::Error { code, .. } => {
                assert_eq!(code, ErrorCode::AlreadyMember, "seed {}", self.seed);
                assert!(!ours && elsewhere, "seed {}", self.seed);
            }
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    fn join(&mut self, c: usize, name: &str) {
        let id = self.clients[c].id;
        let ours = self.clients[c].ours;
        let reply = self.ask(c, &format!("JOIN_CLUSTER|{id}|{name}"));
        let elsewhere = self.clusters.values().any(|m| m.places.contains_key(&id));
        let cluster = self.clusters.get_mut(name).unwrap();
        let expected = match cluster.places.get(&id) {
            _ if !cluster.open && !ours => Err(ErrorCode::Refused),
            Some(Place::Until { .. } | Place::Present { may_join: true }) => Ok(()),
            Some(Place::Present { may_join: false }) => Err(ErrorCode::AlreadyMember),
            None if !ours && elsewhere => Err(ErrorCode::AlreadyMember),
            None if cluster.places.len() >= cluster.max => Err(ErrorCode::ClusterFull),
            None => Ok(()),
        };
        match reply {
            Message::ClusterJoined { .. } => {
                assert_eq!(expected, Ok(()), "seed {}", self.seed);
                cluster
                    .places
                    .insert(id, Place::Present { may_join: false });
                // Whoever joins an active cluster hears so right after the reply.
                self.note_readiness();
                let conn = self.clients[c].conn.unwrap();
                if self.clusters[name].state().is_active() {
                    let last = self.received[&conn].last().unwrap();
                    assert!(matches!(last, Message::ClusterReady { .. }), "{last:?}");
                }
            }
            Message::Error { code, .. } => {
                assert_eq!(expected, Err(code), "seed {}", self.seed);
            }
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    fn leave(&mut self, c: usize, name: &str) {
        let id = self.clients[c].id;
        let reply = self.ask(c, &format!("LEAVE_CLUSTER|{id}|{name}"));
        let cluster = self.clusters.get_mut(name).unwrap();
        let was_in = cluster.places.remove(&id).is_some();
        let left = matches!(reply, Message::Ok { .. });
        assert_eq!(left, was_in, "seed {}: {reply:?}", self.seed);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        while let Some(at) = self.registry.poll_timeout().filter(|&at| at <= self.now) {
            self.registry.handle_timeout(at);
            self.drain();
        }
        let now = self.now;
        for cluster in self.clusters.values_mut() {
            let gone = |p: &Place| matches!(p, Place::Until { at, .. } if *at <= now);
            cluster.places.retain(|_, place| !gone(place));
        }
    }

    fn note_readiness(&mut self) {
        for cluster in self.clusters.values_mut() {
            cluster.been_ready |= cluster.present() >= cluster.n;
        }
    }

    fn step(&mut self) {
        let c = self.draw.below(self.clients.len());
        let connected = self.clients[c].conn.is_some();
        let names: Vec<String> = self.clusters.keys().cloned().collect();
        match self.draw.below(10) {
            _ if !connected => self.connect(c),
            0 => self.crash(c),
            1 if names.len() < 4 => self.create(c),
            2..=6 if !names.is_empty() => {
                let name = self.draw.pick(&names).clone();
                self.join(c, &name);
            }
            7 if !names.is_empty() => {
                let name = self.draw.pick(&names).clone();
                self.leave(c, &name);
            }
            8 => {
                let seconds = self.draw.below(50) as u64;
                self.pass(Duration::from_secs(seconds));
            }
            9 => self.reconnect(c),
            _ => {}
        }
        self.note_readiness();
        self.clusters
            .retain(|_, cluster| !cluster.places.is_empty());
        self.steps += 1;
        self.compare();
        self.compare_kept();
    }

    /// What a store has kept is the state, whenever the server is killed.
    fn compare_kept(&mut self) {
        while let Some(Record { key, value }) = self.registry.poll_record() {
            match value {
                Some(value) => self.kept.insert(key, value),
                None => self.kept.remove(&key),
            };
        }
        if !self.steps.is_multiple_of(10) {
            return;
        }
        let place = format!("seed {}, step {}", self.seed, self.steps);
        let mut again = Registry::new(RegistryConfig::new().grace(GRACE), [0; 32]);
        let restored = again.restore(self.now, self.kept.clone());
        assert_eq!(restored.skipped, 0, "{place}: {restored:?}");
        let mut before = self.registry.clusters();
        for found in again.clusters() {
            let known = before.next().unwrap();
            let head = |v: &ClusterView| (v.id, v.creator, v.n, v.k, v.options);
            assert_eq!(head(&found), head(&known), "{place}");
            let ids = |v: &ClusterView| v.members.iter().map(|m| m.id).collect::<Vec<_>>();
            assert_eq!(ids(&found), ids(&known), "{place}");
            assert!(found.members.iter().all(|m| !m.present), "{place}");
            let been_ready = self.clusters[&found.id.to_string()].been_ready;
            let state = match been_ready {
                true => ClusterState::Suspended,
                false => ClusterState::Creating,
            };
            assert_eq!(found.state, state, "{place}");
        }
        assert_eq!(before.next(), None, "{place}");
        again.handle_timeout(self.now + GRACE);
        assert_eq!(
            again.clusters().count() + again.client_count(),
            0,
            "{place}"
        );
    }

    fn compare(&self) {
        let place = format!("seed {}, step {}", self.seed, self.steps);
        let found: BTreeMap<String, _> = self
            .registry
            .clusters()
            .map(|view| (view.id.to_string(), view))
            .collect();
        assert!(found.keys().eq(self.clusters.keys()), "{place}");
        for (name, model) in &self.clusters {
            let view = &found[name];
            assert_eq!(view.state, model.state(), "{place}: {model:?}");
            assert_eq!(view.options.open_peers, model.open, "{place}");
            let members: BTreeMap<NodeId, bool> =
                view.members.iter().map(|m| (m.id, m.present)).collect();
            let expected: BTreeMap<NodeId, bool> = model
                .places
                .iter()
                .map(|(&id, p)| (id, !matches!(p, Place::Until { present: false, .. })))
                .collect();
            assert_eq!(members, expected, "{place}");
        }
        let bound = self.clients.iter().filter(|c| c.bound).count();
        assert!(self.registry.client_count() >= bound, "{place}");
        assert!(
            self.registry.client_count() <= self.clients.len(),
            "{place}"
        );
    }
}

#[test]
fn the_registry_equals_its_model_after_every_step() {
    let mut states = BTreeMap::new();
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
            for cluster in world.clusters.values() {
                *states.entry(cluster.state()).or_insert(0) += 1;
            }
        }
    }
    // The churn went everywhere.
    let visited = [
        ClusterState::Creating,
        ClusterState::Ready,
        ClusterState::Degraded,
        ClusterState::Suspended,
    ];
    for state in visited {
        assert!(states.get(&state) > Some(&500), "{state}: {states:?}");
    }
}

#[test]
fn nothing_is_left_when_everybody_is_gone() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
        }
        for c in 0..world.clients.len() {
            if world.clients[c].conn.is_some() {
                world.crash(c);
            }
        }
        world.pass(GRACE);
        assert_eq!(world.registry.clusters().count(), 0, "seed {seed}");
        assert_eq!(world.registry.client_count(), 0, "seed {seed}");
        assert_eq!(world.registry.connection_count(), 0, "seed {seed}");
        assert_eq!(world.registry.poll_timeout(), None, "seed {seed}");
    }
}
