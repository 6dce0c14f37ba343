//! Memory: none is allocated per packet in the steady state, and an idle session is small.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use vmdt_rdt::vmdt_seal::identity::SecretIdentity;
use vmdt_rdt::vmdt_seal::session::Local;
use vmdt_rdt::{Config, Endpoint, Event};
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

fn flow() -> FlowId {
    let message: MessageId = "message".parse().unwrap();
    FlowId::new(message, ShareIndex::new(1).unwrap())
}

/// Octets of a write: 189 segments of 1,388 octets.
const WHOLE_SEGMENTS: usize = 189 * 1388;
/// The same of the 1,426 octets that a sealed segment has.
const WHOLE_SEALED: usize = 189 * 1426;

/// How datagrams are protected and handed over.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Open,
    /// Pieces of a large buffer that can be changed.
    Sealed,
    /// Pieces of a large buffer that are shared.
    SealedShared,
}

fn local(n: u64) -> Local {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    Local::new(SecretIdentity::from_seed(&seed), 1)
}

/// Two endpoints 50 us apart. Datagrams are cut out of large buffers, as a driver does, and what
/// that costs is not counted.
struct Pair {
    endpoints: [Endpoint; 2],
    addresses: [SocketAddr; 2],
    ids: [NodeId; 2],
    now: Instant,
    buf: Vec<u8>,
    arena: BytesMut,
    packets: u64,
    allocations: u64,
    filler: Bytes,
    mode: Mode,
    /// Sends datagrams instead of a flow.
    datagrams: bool,
}

impl Pair {
    fn new(mode: Mode) -> Self {
        let mut ids: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
        if mode != Mode::Open {
            ids = [0, 1].map(|n| local(n).node_id());
        }
        let endpoints = [0, 1].map(|at: usize| {
            let seed = [u8::try_from(at).unwrap(); 32];
            let mut config = Config::default();
            if mode != Mode::Open {
                config.set_sealing(local(at as u64));
            }
            Endpoint::new(config, ids[at], seed)
        });
        let mut pair = Self {
            endpoints,
            addresses: ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap()),
            ids,
            now: Instant::now(),
            buf: Vec::with_capacity(2048),
            arena: BytesMut::new(),
            packets: 0,
            allocations: 0,
            filler: Bytes::from(vec![
                0x5a;
                if mode == Mode::Open {
                    WHOLE_SEGMENTS
                } else {
                    WHOLE_SEALED
                }
            ]),
            mode,
            datagrams: false,
        };
        // The first clone of a buffer makes it shared, which allocates.
        let _ = pair.filler.clone();
        pair.endpoints[0].connect(pair.now, ids[1], pair.addresses[1]);
        for _ in 0..4 {
            pair.exchange(1, false);
        }
        pair
    }

    fn counted<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let mut result = None;
        let info = measure(|| result = Some(act(self)));
        self.allocations += info.count_total;
        result.unwrap()
    }

    /// Carries everything for one round trip; loses each `lose`th datagram (1: none).
    fn exchange(&mut self, lose: u64, bulk: bool) {
        for from in 0..2 {
            self.now += Duration::from_micros(50);
            let (to, now) = (1 - from, self.now);
            let peer = self.ids[1];
            if bulk && from == 0 {
                self.counted(|pair| {
                    let endpoint = &mut pair.endpoints[0];
                    let payload = pair.filler.slice(..1376);
                    while pair.datagrams
                        && endpoint.send_datagram(now, peer, payload.clone()).is_ok()
                    {
                    }
                    if pair.datagrams {
                        return;
                    }
                    let filler = pair.filler.clone();
                    while pair.endpoints[0]
                        .write(now, peer, flow(), filler.clone())
                        .is_ok()
                    {}
                });
            }
            self.counted(|pair| pair.endpoints[from].handle_timeout(now));
            loop {
                let sent = self.counted(|pair| {
                    let buf = &mut pair.buf;
                    pair.endpoints[from].poll_transmit(now, buf).is_some()
                });
                if !sent {
                    break;
                }
                self.packets += 1;
                if lose > 1 && self.packets.is_multiple_of(lose) {
                    continue;
                }
                if self.arena.capacity() < self.buf.len() {
                    self.arena = BytesMut::with_capacity(64 << 10);
                    self.arena.reserve(64 << 10);
                    // Shared from the start: splitting costs nothing later.
                    let _ = self.arena.split_to(0);
                }
                self.arena.extend_from_slice(&self.buf);
                let datagram = self.arena.split();
                let address = self.addresses[from];
                self.counted(|pair| {
                    let endpoint = &mut pair.endpoints[to];
                    if pair.mode == Mode::Sealed {
                        endpoint.handle_owned_datagram(now, address, None, datagram);
                    } else {
                        endpoint.handle_datagram(now, address, datagram.freeze());
                    }
                    while let Some(event) = pair.endpoints[to].poll_event() {
                        if let Event::Readable { peer, flow } = event {
                            while pair.endpoints[to].read(now, peer, flow).is_some() {}
                        }
                    }
                });
            }
        }
    }

    /// Allocations and packets over `rounds`.
    fn count(&mut self, rounds: u32, lose: u64) -> (u64, u64) {
        let (packets, allocations) = (self.packets, self.allocations);
        for _ in 0..rounds {
            self.exchange(lose, true);
        }
        let packets = self.packets - packets;
        assert!(packets > 10_000, "{packets} packets");
        let allocations = self.allocations - allocations;
        println!("{allocations} allocations for {packets} packets");
        (allocations, packets)
    }
}

#[test]
fn a_packet_costs_no_allocation_in_the_steady_state() {
    let mut pair = Pair::new(Mode::Open);
    pair.count(1000, 1);
    let (allocations, packets) = pair.count(1000, 1);
    // A queue may still grow to its final size.
    assert!(allocations <= 3, "{allocations} for {packets} packets");
}

#[test]
fn a_sealed_packet_costs_none_either_where_it_is_opened_in_place() {
    let mut pair = Pair::new(Mode::Sealed);
    pair.count(100, 1);
    let (allocations, packets) = pair.count(100, 1);
    assert!(allocations <= 3, "{allocations} for {packets} packets");
}

#[test]
fn a_datagram_costs_none_either() {
    let mut pair = Pair::new(Mode::Sealed);
    pair.datagrams = true;
    pair.count(1000, 1);
    let (allocations, packets) = pair.count(1000, 1);
    assert!(allocations <= 3, "{allocations} for {packets} packets");
    let stats = pair.endpoints[1].stats(pair.ids[0]).unwrap();
    assert!(stats.datagrams_received > packets / 2, "{stats:?}");
    assert_eq!(stats.datagrams_refused, 0);
}

#[test]
fn a_sealed_packet_in_a_shared_buffer_costs_its_copy() {
    let mut pair = Pair::new(Mode::SealedShared);
    pair.count(100, 1);
    let (allocations, packets) = pair.count(100, 1);
    // The copy, and what counts its owners.
    assert!(allocations <= 2 * packets, "{allocations} for {packets}");
}

#[test]
fn a_sealed_idle_session_costs_less_than_eight_kibibytes() {
    const SESSIONS: u64 = 500;
    let hub_local = local(0);
    let hub_id = hub_local.node_id();
    let mut config = Config::default();
    config.set_sealing(hub_local);
    let mut now = Instant::now();
    let hub_address: SocketAddr = "10.255.0.1:1".parse().unwrap();
    let mut hub = Endpoint::new(config, hub_id, [1; 32]);
    let mut buf = Vec::with_capacity(2048);
    let mut bytes = 0;
    for n in 1..=SESSIONS {
        now += Duration::from_millis(20);
        let mut config = Config::default();
        config.set_sealing(local(n));
        let address: SocketAddr = format!("10.0.{}.{}:1", n / 250, n % 250).parse().unwrap();
        let mut peer = Endpoint::new(config, local(n).node_id(), [2; 32]);
        peer.connect(now, hub_id, hub_address);
        peer.write(now, hub_id, FlowId::CONTROL, Bytes::from_static(b"hello"))
            .unwrap();
        for _ in 0..6 {
            while peer.poll_transmit(now, &mut buf).is_some() {
                let datagram = Bytes::copy_from_slice(&buf);
                bytes += measure(|| hub.handle_datagram(now, address, datagram)).bytes_current;
            }
            let info = measure(|| {
                while let Some(event) = hub.poll_event() {
                    if let Event::Readable { peer, flow } = event {
                        while hub.read(now, peer, flow).is_some() {}
                    }
                }
            });
            bytes += info.bytes_current;
            loop {
                let mut sent = false;
                let info = measure(|| sent = hub.poll_transmit(now, &mut buf).is_some());
                bytes += info.bytes_current;
                if !sent {
                    break;
                }
                peer.handle_datagram(now, hub_address, Bytes::copy_from_slice(&buf));
            }
        }
    }
    assert_eq!(hub.peers().count(), usize::try_from(SESSIONS).unwrap());
    let each = u64::try_from(bytes).unwrap() / SESSIONS;
    println!("{each} octets for each of {SESSIONS} sealed sessions");
    assert!(each < 8192, "{each} octets");
}

#[test]
fn a_write_that_ends_within_a_segment_costs_one_allocation() {
    // The segment across two writes is a copy.
    let mut pair = Pair::new(Mode::Open);
    pair.filler = Bytes::from(vec![0x5a; WHOLE_SEGMENTS - 1]);
    let _ = pair.filler.clone();
    pair.count(1000, 1);
    let (allocations, packets) = pair.count(1000, 1);
    let writes = packets / (WHOLE_SEGMENTS as u64 / 1388) + 1;
    assert!(
        allocations <= writes + 3,
        "{allocations} for {writes} writes"
    );
}

#[test]
fn with_loss_a_packet_costs_few_allocations() {
    // Segments beyond a hole wait in a map, whose nodes take some six of them each.
    let mut pair = Pair::new(Mode::Open);
    pair.count(1000, 50);
    let (allocations, packets) = pair.count(1000, 50);
    assert!(
        allocations * 4 < packets,
        "{allocations} for {packets} packets"
    );
}

#[test]
fn ten_thousand_idle_sessions_cost_less_than_four_kibibytes_each() {
    const SESSIONS: u64 = 10_000;
    let mut config = Config::default();
    config.set_max_sessions(20_000).unwrap();
    config
        .set_idle_timeout(Duration::from_secs(86_400))
        .unwrap();
    let hub_id: NodeId = "hub".parse().unwrap();
    let now = Instant::now();
    let hub_address: SocketAddr = "10.255.0.1:1".parse().unwrap();
    let mut hub = Endpoint::new(config.clone(), hub_id, [1; 32]);
    let mut buf = Vec::with_capacity(2048);
    let mut bytes = 0;
    for n in 0..SESSIONS {
        let id: NodeId = format!("peer{n}").parse().unwrap();
        let address: SocketAddr = format!("10.0.{}.{}:1", n / 250, n % 250).parse().unwrap();
        let mut peer = Endpoint::new(config.clone(), id, [2; 32]);
        peer.connect(now, hub_id, hub_address);
        peer.write(now, hub_id, FlowId::CONTROL, Bytes::from_static(b"hello"))
            .unwrap();
        for _ in 0..6 {
            while peer.poll_transmit(now, &mut buf).is_some() {
                let datagram = Bytes::copy_from_slice(&buf);
                let info = measure(|| hub.handle_datagram(now, address, datagram));
                bytes += info.bytes_current;
            }
            let info = measure(|| {
                while let Some(event) = hub.poll_event() {
                    if let Event::Readable { peer, flow } = event {
                        while hub.read(now, peer, flow).is_some() {}
                    }
                }
            });
            bytes += info.bytes_current;
            loop {
                let mut sent = false;
                let info = measure(|| sent = hub.poll_transmit(now, &mut buf).is_some());
                bytes += info.bytes_current;
                if !sent {
                    break;
                }
                peer.handle_datagram(now, hub_address, Bytes::copy_from_slice(&buf));
            }
        }
        assert!(peer.poll_event().is_some());
    }
    assert_eq!(hub.peers().count(), usize::try_from(SESSIONS).unwrap());
    let each = u64::try_from(bytes).unwrap() / SESSIONS;
    println!("{each} octets for each of {SESSIONS} sessions");
    assert!(each < 4096, "{each} octets");
    // No CPU: the next deadline is the idle timeout, a day ahead.
    let later = now + Duration::from_secs(1);
    hub.handle_timeout(later);
    while hub.poll_transmit(later, &mut buf).is_some() {}
    assert!(hub.poll_timeout().unwrap() > now + Duration::from_secs(3600));
}
