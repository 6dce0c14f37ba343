//! What sealing costs, without IO: handshakes per second, datagrams per second through both ends
//! of a session against the open profile, and what a flood leaves of them. Everything runs on one
//! core and is measured in its processor time; cases take turns, ratios are taken within a round and their medians given.
//!
//! `cargo bench -p vmdt-rdt --bench sealed [--features ring]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use vmdt_rdt::vmdt_seal::identity::SecretIdentity;
use vmdt_rdt::vmdt_seal::session::{Local, Suites};
use vmdt_rdt::{Config, Endpoint, Event};
use vmdt_wire::{FlowId, Header, MessageId, NodeId, PacketType, ShareIndex};

const OCTETS: usize = 16 << 20;
const ROUNDS: usize = 7;
/// Bad datagrams for each good one.
const FLOOD: usize = 10;

fn local(n: u64) -> Local {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    Local::new(SecretIdentity::from_seed(&seed), 1)
}

fn endpoint(n: u64, suites: Option<Suites>) -> (Endpoint, NodeId) {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    let mut config = Config::default();
    config.set_send_buffer(64 << 20).unwrap();
    let mut id = format!("node{n}").parse().unwrap();
    if let Some(suites) = suites {
        let local = local(n);
        id = local.node_id();
        config.set_sealing(local).set_suites(suites);
    }
    (Endpoint::new(config, id, seed), id)
}

fn addresses() -> [SocketAddr; 2] {
    ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap())
}

/// The processor time of this thread where the system tells it, else the time.
fn clock() -> Duration {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let began = BEGAN.get_or_init(Instant::now);
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .map_or_else(|| began.elapsed(), Duration::from_nanos)
}

/// Handshakes per second, both ends on this core.
fn handshakes(known: bool) -> f64 {
    const COUNT: u64 = 1_000;
    let (mut server, id) = endpoint(0, Some(Suites::ALL));
    let credential = *local(0).credential();
    let mut clients: Vec<(Endpoint, NodeId)> = (1..=COUNT)
        .map(|n| endpoint(n, Some(Suites::ALL)))
        .collect();
    let [at, server_at] = addresses();
    let mut now = Instant::now();
    let mut buf = Vec::with_capacity(2048);
    let begin = clock();
    for (client, _) in &mut clients {
        // As many as are let in without a cookie.
        now += Duration::from_millis(20);
        if known {
            client.set_credential(&credential);
        }
        client.connect(now, id, server_at);
        for _ in 0..3 {
            while client.poll_transmit(now, &mut buf).is_some() {
                server.handle_datagram(now, at, Bytes::copy_from_slice(&buf));
            }
            while server.poll_transmit(now, &mut buf).is_some() {
                client.handle_datagram(now, server_at, Bytes::copy_from_slice(&buf));
            }
        }
    }
    let elapsed = clock() - begin;
    let connected = std::iter::from_fn(|| server.poll_event())
        .filter(|event| matches!(event, Event::Connected { .. }))
        .count();
    assert_eq!(connected as u64, COUNT);
    COUNT as f64 / elapsed.as_secs_f64()
}

/// What comes beside a transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flood {
    Nothing,
    /// Random octets.
    Garbage,
    /// Right ids, another session.
    OffPath,
    /// The right session too, and a tag that is not right: only who sees the datagrams can.
    Forged,
    /// Offers of a few hundred nodes, over and over.
    Offers,
    Confirmations,
}

struct Pair {
    ends: [Endpoint; 2],
    ids: [NodeId; 2],
    now: Instant,
    buf: Vec<u8>,
    arena: BytesMut,
    bad: Vec<Bytes>,
    next_bad: usize,
    datagrams: u64,
}

impl Pair {
    fn new(suites: Option<Suites>, flood: Flood) -> Self {
        let ((a, id_a), (b, id_b)) = (endpoint(1, suites), endpoint(2, suites));
        let mut pair = Self {
            ends: [a, b],
            ids: [id_a, id_b],
            now: Instant::now(),
            buf: Vec::with_capacity(2048),
            arena: BytesMut::new(),
            bad: Vec::new(),
            next_bad: 0,
            datagrams: 0,
        };
        pair.ends[0].connect(pair.now, id_b, addresses()[1]);
        let mut session = 0;
        for _ in 0..10 {
            pair.exchange(&mut |header| {
                if header.dest == id_b && header.kind != PacketType::Syn {
                    session = header.session;
                }
            });
        }
        pair.bad = pair.make(flood, session);
        pair
    }

    fn make(&self, flood: Flood, session: u32) -> Vec<Bytes> {
        let mut state = 1u64;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u32
        };
        let datagram = |kind, session, payload: usize, rest: Vec<u8>, number| {
            let mut header = Header::new(kind, self.ids[0], self.ids[1], flow(1));
            header.session = session;
            header.packet_number = number;
            let mut octets = vec![0; 80];
            header.emit(payload as u16, octets.first_chunk_mut().unwrap());
            octets.extend_from_slice(&rest);
            Bytes::from(octets)
        };
        (0..if flood == Flood::Nothing { 0 } else { 300u64 })
            .map(|n| match flood {
                Flood::Nothing => Bytes::new(),
                Flood::Garbage => (0..1472).map(|_| random() as u8).collect(),
                Flood::OffPath => {
                    datagram(PacketType::Data, random(), 1376, vec![7; 1392], random())
                }
                Flood::Forged => datagram(PacketType::Data, session, 1376, vec![7; 1392], random()),
                Flood::Confirmations => {
                    let mut rest = vec![7; 171];
                    rest[0] = 5;
                    datagram(PacketType::Syn, random(), 171, rest, random())
                }
                Flood::Offers => {
                    let (mut end, _) = endpoint(100 + n, Some(Suites::ALL));
                    end.connect(self.now, self.ids[1], addresses()[1]);
                    let mut buf = Vec::new();
                    assert!(end.poll_transmit(self.now, &mut buf).is_some());
                    buf.into()
                }
            })
            .collect()
    }

    /// Carries all datagrams of one direction after the other; a round trip takes 100 us.
    fn exchange(&mut self, see: &mut dyn FnMut(&Header)) -> bool {
        let mut delivered = false;
        for from in 0..2 {
            self.now += Duration::from_micros(50);
            let to = 1 - from;
            self.ends[from].handle_timeout(self.now);
            while let Some(transmit) = self.ends[from].poll_transmit(self.now, &mut self.buf) {
                if transmit.to != addresses()[to] {
                    // To those who flood.
                    continue;
                }
                if self.bad.is_empty() && !vmdt_wire::compact::is_compact(&self.buf) {
                    see(&Header::parse(&self.buf).unwrap().header);
                }
                self.datagrams += 1;
                if self.arena.capacity() < self.buf.len() {
                    self.arena = BytesMut::with_capacity(64 << 10);
                }
                self.arena.extend_from_slice(&self.buf);
                let datagram = self.arena.split();
                let at = addresses()[from];
                self.ends[to].handle_owned_datagram(self.now, at, None, datagram);
                if to == 1 && !self.bad.is_empty() {
                    for _ in 0..FLOOD {
                        let bad = &self.bad[self.next_bad];
                        self.next_bad = (self.next_bad + 1) % self.bad.len();
                        let at = SocketAddr::from(([10, 9, 0, 1], self.next_bad as u16));
                        self.ends[1].handle_datagram(self.now, at, bad.clone());
                    }
                }
                while let Some(event) = self.ends[to].poll_event() {
                    match event {
                        Event::Readable { peer, flow } => {
                            while self.ends[to].read(self.now, peer, flow).is_some() {}
                        }
                        Event::FlowDelivered { .. } => delivered = true,
                        _ => {}
                    }
                }
            }
        }
        delivered
    }

    /// Octets of a flow per second.
    fn transfer(&mut self, n: u16, data: &Bytes) -> f64 {
        let peer = self.ids[1];
        let begin = clock();
        self.ends[0]
            .write(self.now, peer, flow(n), data.clone())
            .unwrap();
        self.ends[0].finish(self.now, peer, flow(n)).unwrap();
        while !self.exchange(&mut |_| {}) {}
        data.len() as f64 / (clock() - begin).as_secs_f64()
    }
}

fn flow(n: u16) -> FlowId {
    let message: MessageId = "message".parse().unwrap();
    FlowId::new(message, ShareIndex::new(n).unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let backend = if cfg!(feature = "ring") {
        "ring"
    } else {
        "portable"
    };
    for (name, known) in [("XX", false), ("IK", true)] {
        let rates = (0..3).map(|_| handshakes(known)).collect();
        println!(
            "handshakes {name}, both ends: {:.0} per second",
            median(rates)
        );
    }
    let data = Bytes::from(vec![0x5a; OCTETS]);
    let mut cases = vec![
        ("open, CRC-32", Pair::new(None, Flood::Nothing)),
        (
            "sealed, AES-256-GCM",
            Pair::new(Some(Suites::AES), Flood::Nothing),
        ),
        (
            "sealed, ChaCha20-Poly1305",
            Pair::new(Some(Suites::CHACHA), Flood::Nothing),
        ),
    ];
    for flood in [
        Flood::Garbage,
        Flood::OffPath,
        Flood::Offers,
        Flood::Confirmations,
        Flood::Forged,
    ] {
        let name = match flood {
            Flood::Nothing => "",
            Flood::Garbage => "AES, ten random datagrams beside each",
            Flood::OffPath => "AES, ten with right ids and another session",
            Flood::Offers => "AES, ten offers",
            Flood::Confirmations => "AES, ten confirmations of nothing",
            Flood::Forged => "AES, ten forged under the right session",
        };
        cases.push((name, Pair::new(Some(Suites::AES), flood)));
    }
    let mut rates = vec![Vec::new(); cases.len()];
    for round in 0..=ROUNDS {
        for (rates, (_, pair)) in rates.iter_mut().zip(&mut cases) {
            let rate = pair.transfer(round as u16 + 1, &data);
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    println!("{backend}:");
    for (index, (name, _)) in cases.iter().enumerate() {
        let base = usize::from(index > 2);
        let over = |base: usize| {
            let ratios = rates[index].iter().zip(&rates[base]).map(|(a, b)| a / b);
            median(ratios.collect())
        };
        println!(
            "{name:45} {:6.0} MB/s, {:.2} of {}",
            median(rates[index].clone()) / 1e6,
            over(base),
            cases[base].0
        );
    }
}
