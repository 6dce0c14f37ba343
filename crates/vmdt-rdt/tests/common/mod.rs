//! Two or more endpoints over emulated links in virtual time, each with a small application
//! that sends prepared flows and keeps what it receives.
#![allow(dead_code, unreachable_pub)]

pub mod script;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_rdt::vmdt_seal::identity::SecretIdentity;
use vmdt_rdt::vmdt_seal::session::Local;
use vmdt_rdt::{CloseReason, Config, Endpoint, Event, WriteError};
use vmdt_testkit::{Clock, Link, LinkConfig, SimRng, TraceHash};
use vmdt_wire::{FlowId, Header, MessageId, NodeId, ShareIndex, compact};

pub const MS: Duration = Duration::from_millis(1);
pub const SEC: Duration = Duration::from_secs(1);

pub fn flow(n: u16) -> FlowId {
    let message: MessageId = "message".parse().unwrap();
    FlowId::new(message, ShareIndex::new(n).unwrap())
}

/// What a flow's sender has still to hand over.
struct Outgoing {
    peer: NodeId,
    flow: FlowId,
    rest: Bytes,
    finish: bool,
}

pub struct Host {
    pub endpoint: Endpoint,
    pub id: NodeId,
    pub address: SocketAddr,
    /// Reads at once what is readable.
    pub reads: bool,
    pub received: BTreeMap<(NodeId, FlowId), Vec<u8>>,
    pub finished: BTreeSet<(NodeId, FlowId)>,
    pub delivered: BTreeSet<(NodeId, FlowId)>,
    pub events: Vec<(Duration, Event)>,
    outgoing: VecDeque<Outgoing>,
    pub chunk: usize,
    /// Datagrams to hand over when there is room for them.
    pub datagrams: VecDeque<(NodeId, Bytes)>,
    /// Flows that always have more to send.
    endless: Vec<(NodeId, FlowId)>,
    /// Counts what arrives instead of keeping it.
    pub counts_only: bool,
    pub octets_received: u64,
    pub octets_by_peer: BTreeMap<NodeId, u64>,
    pub octets_by_flow: BTreeMap<(NodeId, FlowId), u64>,
}

/// What endless flows send.
static FILLER: [u8; 64 * 1024] = [0x5a; 64 * 1024];

impl Host {
    pub fn closed(&self) -> Vec<CloseReason> {
        self.events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Closed { reason, .. } => Some(reason.clone()),
                _ => None,
            })
            .collect()
    }

    pub fn connected(&self) -> usize {
        let connected = |(_, event): &&(Duration, Event)| matches!(event, Event::Connected { .. });
        self.events.iter().filter(connected).count()
    }

    pub fn has(&self, event: &Event) -> bool {
        self.events.iter().any(|(_, other)| other == event)
    }
}

/// A datagram that a host sent, whether it arrives or not.
#[derive(Clone, Debug)]
pub struct Taped {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Bytes,
}

/// The identity of a host in sealed worlds of this seed.
pub fn identity(seed: u64, index: usize) -> SecretIdentity {
    let mut octets = [u8::try_from(index).unwrap() + 1; 32];
    octets[..8].copy_from_slice(&seed.to_be_bytes());
    SecretIdentity::from_seed(&octets)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Instant,
    order: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
}

pub struct World {
    pub clock: Clock,
    pub hosts: Vec<Host>,
    pub links: BTreeMap<(usize, usize), Link>,
    pub trace: TraceHash,
    pub datagrams: u64,
    /// How often each datagram arrives.
    pub copies: usize,
    /// The seed of the hosts' identities, in a sealed world.
    pub identities: Option<u64>,
    /// Everything sent is kept here, once it is set.
    pub tape: Option<Vec<Taped>>,
    /// Pairs of hosts that use the link of another pair.
    pub routes: BTreeMap<(usize, usize), (usize, usize)>,
    rng: SimRng,
    air: BinaryHeap<Reverse<InFlight>>,
    order: u64,
    buf: Vec<u8>,
}

impl World {
    /// Hosts `a`, `b`, ... with links of this kind between all of them.
    pub fn new(seed: u64, configs: Vec<Config>, link: &LinkConfig) -> Self {
        Self::build(seed, configs, link, None)
    }

    /// The same, speaking profile 1.1.
    pub fn sealed(seed: u64, configs: Vec<Config>, link: &LinkConfig) -> Self {
        Self::build(seed, configs, link, Some(seed))
    }

    pub fn sealed_pair(seed: u64, link: &LinkConfig) -> Self {
        Self::sealed(seed, vec![Config::default(), Config::default()], link)
    }

    fn build(seed: u64, configs: Vec<Config>, link: &LinkConfig, identities: Option<u64>) -> Self {
        let rng = SimRng::from_seed(seed);
        let mut world = Self {
            clock: Clock::new(),
            hosts: Vec::new(),
            links: BTreeMap::new(),
            trace: TraceHash::new(),
            datagrams: 0,
            copies: 1,
            identities,
            tape: None,
            routes: BTreeMap::new(),
            air: BinaryHeap::new(),
            order: 0,
            buf: Vec::new(),
            rng,
        };
        let count = configs.len();
        for (index, config) in configs.into_iter().enumerate() {
            let host = world.make_host(index, config, 0);
            world.hosts.push(host);
        }
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let label = format!("link {from} {to}");
                let link = Link::new(link.clone(), &world.rng.fork(&label));
                world.links.insert((from, to), link);
            }
        }
        world
    }

    pub fn pair(seed: u64, link: &LinkConfig) -> Self {
        Self::new(seed, vec![Config::default(), Config::default()], link)
    }

    fn make_host(&self, index: usize, mut config: Config, life: u64) -> Host {
        let id: NodeId = match self.identities {
            Some(seed) => {
                let local = Local::new(identity(seed, index), 1);
                config.set_sealing(local.clone());
                local.node_id()
            }
            None => {
                let name = char::from(b'a' + u8::try_from(index).unwrap());
                format!("node-{name}").parse().unwrap()
            }
        };
        let mut rng = self.rng.fork(&format!("host {index} {life}"));
        Host {
            endpoint: Endpoint::new(config, id, rng.seed32()),
            id,
            address: format!("10.0.0.{}:7000", index + 1).parse().unwrap(),
            reads: true,
            received: BTreeMap::new(),
            finished: BTreeSet::new(),
            delivered: BTreeSet::new(),
            events: Vec::new(),
            outgoing: VecDeque::new(),
            chunk: 64 * 1024,
            datagrams: VecDeque::new(),
            endless: Vec::new(),
            counts_only: false,
            octets_received: 0,
            octets_by_peer: BTreeMap::new(),
            octets_by_flow: BTreeMap::new(),
        }
    }

    /// The host loses all its state.
    pub fn restart(&mut self, index: usize, config: Config) {
        let mut host = self.make_host(index, config, 1 + self.order);
        host.address = self.hosts[index].address;
        self.hosts[index] = host;
    }

    pub fn set_link(&mut self, link: &LinkConfig) {
        for place in self.links.values_mut() {
            place.set_config(link.clone());
        }
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn connect(&mut self, from: usize, to: usize) {
        let (id, address) = (self.hosts[to].id, self.hosts[to].address);
        let now = self.now();
        self.hosts[from].endpoint.connect(now, id, address);
        self.drive(from);
    }

    /// Both hosts know each other's credentials before they meet.
    pub fn introduce(&mut self) {
        let seed = self.identities.unwrap();
        for at in 0..2 {
            let credential = *Local::new(identity(seed, 1 - at), 1).credential();
            self.hosts[at].endpoint.set_credential(&credential);
        }
    }

    /// Sends a whole flow and waits until all of it is delivered.
    pub fn carry(&mut self, from: usize, to: usize, flow: FlowId, octets: usize) {
        let data = SimRng::from_seed(99).bytes(octets);
        self.send(from, to, flow, data.clone());
        let key = (self.hosts[to].id, flow);
        let done = self.run_until(600 * SEC, |world| {
            world.hosts[from].delivered.contains(&key)
        });
        assert!(done, "not delivered: {:?}", self.hosts[from].events);
        let key = (self.hosts[from].id, flow);
        assert!(
            self.hosts[to].received[&key] == data,
            "other octets arrived"
        );
    }

    /// Connects `a` to `b` and waits until both know.
    pub fn establish(&mut self) {
        self.connect(0, 1);
        let both = |world: &World| world.hosts.iter().take(2).all(|host| host.connected() > 0);
        assert!(self.run_until(10 * SEC, both), "no session");
    }

    /// Prepares a whole flow for sending.
    pub fn send(&mut self, from: usize, to: usize, flow: FlowId, data: Vec<u8>) {
        let peer = self.hosts[to].id;
        self.hosts[from].outgoing.push_back(Outgoing {
            peer,
            flow,
            rest: Bytes::from(data),
            finish: !flow.is_control(),
        });
        self.drive(from);
    }

    /// Begins a flow that never ends.
    pub fn send_endless(&mut self, from: usize, to: usize, flow: FlowId) {
        let peer = self.hosts[to].id;
        self.hosts[from].endless.push((peer, flow));
        self.drive(from);
    }

    /// Puts a datagram on the wire that no endpoint made.
    pub fn inject(&mut self, from: SocketAddr, to: usize, bytes: Bytes) {
        let now = self.now();
        self.hosts[to].endpoint.handle_datagram(now, from, bytes);
        self.drive(to);
    }

    /// Runs until `done` or for `limit`; returns whether it was done.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now() + limit;
        loop {
            if done(self) {
                return true;
            }
            let Some(next) = self.next_event() else {
                self.clock.advance_to(end);
                return done(self);
            };
            if next > end {
                self.clock.advance_to(end);
                return done(self);
            }
            self.step(next);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn next_event(&self) -> Option<Instant> {
        let arrival = self.air.peek().map(|Reverse(first)| first.at);
        let timers = self
            .hosts
            .iter()
            .filter_map(|host| host.endpoint.poll_timeout());
        timers.chain(arrival).min()
    }

    fn step(&mut self, next: Instant) {
        self.clock.advance_to(next);
        let now = self.now();
        for index in 0..self.hosts.len() {
            if self.hosts[index]
                .endpoint
                .poll_timeout()
                .is_some_and(|at| at <= now)
            {
                self.trace.u64(index as u64);
                self.trace.time(self.clock.elapsed());
                self.hosts[index].endpoint.handle_timeout(now);
                self.drive(index);
                let again = self.hosts[index].endpoint.poll_timeout();
                assert!(
                    again.is_none_or(|at| at > now),
                    "a timer fires without effect"
                );
            }
        }
        while self
            .air
            .peek()
            .is_some_and(|Reverse(first)| first.at <= now)
        {
            let Some(Reverse(datagram)) = self.air.pop() else {
                break;
            };
            let to = self
                .hosts
                .iter()
                .position(|host| host.address == datagram.to);
            if let Some(to) = to {
                self.trace.time(self.clock.elapsed());
                self.trace.octets(&datagram.bytes);
                self.hosts[to]
                    .endpoint
                    .handle_datagram(now, datagram.from, datagram.bytes);
                self.drive(to);
            }
        }
    }

    /// Lets the application of a host act and collects its output, until there is no more of
    /// either.
    pub fn drive(&mut self, index: usize) {
        loop {
            self.act(index);
            if !self.transmit(index) {
                break;
            }
        }
    }

    fn act(&mut self, index: usize) {
        let now = self.now();
        let elapsed = self.clock.elapsed();
        loop {
            let host = &mut self.hosts[index];
            let mut acted = false;
            while let Some(event) = host.endpoint.poll_event() {
                acted = true;
                host.note(now, elapsed, event);
            }
            acted |= host.push(now);
            if !acted {
                break;
            }
        }
    }

    /// Returns whether anything was sent.
    fn transmit(&mut self, index: usize) -> bool {
        let now = self.now();
        let before = self.datagrams;
        let mut buf = std::mem::take(&mut self.buf);
        while let Some(transmit) = self.hosts[index].endpoint.poll_transmit(now, &mut buf) {
            assert_eq!(transmit.len, buf.len());
            assert!(buf.len() <= 1552, "a datagram of {} octets", buf.len());
            self.datagrams += 1;
            let from = self.hosts[index].address;
            if let Some(tape) = &mut self.tape {
                tape.push(Taped {
                    from,
                    to: transmit.to,
                    bytes: Bytes::copy_from_slice(&buf),
                });
            }
            let Some(to) = self
                .hosts
                .iter()
                .position(|host| host.address == transmit.to)
            else {
                continue;
            };
            let route = self.routes.get(&(index, to)).copied();
            let link = self.links.get_mut(&route.unwrap_or((index, to))).unwrap();
            for arrival in link.send(now, Bytes::copy_from_slice(&buf)) {
                for _ in 0..self.copies {
                    self.order += 1;
                    self.air.push(Reverse(InFlight {
                        at: arrival.at,
                        order: self.order,
                        from,
                        to: transmit.to,
                        bytes: arrival.bytes.clone(),
                    }));
                }
            }
        }
        self.buf = buf;
        self.datagrams > before
    }
}

impl Host {
    fn note(&mut self, now: Instant, elapsed: Duration, event: Event) {
        match &event {
            Event::Readable { peer, flow } if self.reads => self.read_all(now, *peer, *flow),
            Event::Finished { peer, flow } => {
                assert!(
                    self.finished.insert((*peer, *flow)),
                    "{flow:?} finished twice"
                );
                self.received.entry((*peer, *flow)).or_default();
            }
            // The id may soon name a new flow, which the rest is no part of.
            Event::FlowStopped { peer, flow, .. } => self.forget(*peer, *flow),
            Event::FlowDelivered { peer, flow } => {
                assert!(
                    self.delivered.insert((*peer, *flow)),
                    "{flow:?} delivered twice"
                );
            }
            _ => {}
        }
        self.events.push((elapsed, event));
    }

    /// Drops what is prepared for a flow that was given up.
    pub fn forget(&mut self, peer: NodeId, flow: FlowId) {
        self.outgoing
            .retain(|out| (out.peer, out.flow) != (peer, flow));
    }

    pub fn read_all(&mut self, now: Instant, peer: NodeId, flow: FlowId) {
        while let Some(piece) = self.endpoint.read(now, peer, flow) {
            assert!(!piece.is_empty());
            self.octets_received += piece.len() as u64;
            *self.octets_by_flow.entry((peer, flow)).or_default() += piece.len() as u64;
            *self.octets_by_peer.entry(peer).or_default() += piece.len() as u64;
            if self.counts_only {
                continue;
            }
            self.received
                .entry((peer, flow))
                .or_default()
                .extend_from_slice(&piece);
        }
    }

    /// Hands over as much as the endpoint takes. Returns whether anything was.
    fn push(&mut self, now: Instant) -> bool {
        let mut acted = false;
        while let Some((peer, payload)) = self.datagrams.front() {
            if self.endpoint.datagram_room(*peer) == 0 {
                break;
            }
            let sent = self.endpoint.send_datagram(now, *peer, payload.clone());
            assert_eq!(sent, Ok(()), "there is room");
            self.datagrams.pop_front();
            acted = true;
        }
        for (peer, flow) in self.endless.clone() {
            let filler = Bytes::from_static(&FILLER);
            while self.endpoint.write(now, peer, flow, filler.clone()).is_ok() {
                acted = true;
            }
        }
        for _ in 0..self.outgoing.len() {
            let Some(mut out) = self.outgoing.pop_front() else {
                break;
            };
            let mut blocked = false;
            while !out.rest.is_empty() {
                let piece = out.rest.slice(..out.rest.len().min(self.chunk));
                let octets = piece.len();
                match self.endpoint.write(now, out.peer, out.flow, piece) {
                    Ok(()) => {
                        acted = true;
                        out.rest = out.rest.slice(octets..);
                    }
                    Err(WriteError::Blocked { .. } | WriteError::TooManyFlows { .. }) => {
                        blocked = true;
                        break;
                    }
                    // The flow or session is gone: events tell.
                    Err(_) => {
                        out.finish = false;
                        out.rest = Bytes::new();
                    }
                }
            }
            if blocked {
                self.outgoing.push_front(out);
                break;
            }
            if out.finish {
                match self.endpoint.finish(now, out.peer, out.flow) {
                    Err(WriteError::TooManyFlows { .. }) => {
                        self.outgoing.push_front(out);
                        break;
                    }
                    _ => acted = true,
                }
            }
        }
        acted
    }
}

/// The header of a datagram, whole or compact; a compact one names neither end.
pub fn header_of(octets: &[u8]) -> Header {
    if compact::is_compact(octets) {
        let nobody = NodeId::EMPTY;
        return Header::parse_compact(octets, nobody, nobody).unwrap().0;
    }
    Header::parse_sealed(octets).unwrap().header
}
