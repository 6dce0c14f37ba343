//! Packets per second through a pair of machines, without IO.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vmdt_rdt::{Config, Endpoint, Event};
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

/// Octets transferred in one iteration.
const OCTETS: u64 = 8 << 20;

struct Pair {
    endpoints: [Endpoint; 2],
    ids: [NodeId; 2],
    addresses: [SocketAddr; 2],
    now: Instant,
    buf: Vec<u8>,
    arena: BytesMut,
    packets: u64,
    next_flow: u16,
    delivered: u64,
}

impl Pair {
    fn new() -> Self {
        let ids: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
        let addresses = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
        let mut config = Config::default();
        config.set_send_buffer(64 << 20).unwrap();
        let endpoints = [
            Endpoint::new(config.clone(), ids[0], [1; 32]),
            Endpoint::new(config, ids[1], [2; 32]),
        ];
        let mut pair = Self {
            endpoints,
            ids,
            addresses,
            now: Instant::now(),
            buf: Vec::new(),
            arena: BytesMut::new(),
            packets: 0,
            next_flow: 1,
            delivered: 0,
        };
        pair.endpoints[0].connect(pair.now, ids[1], addresses[1]);
        for _ in 0..10 {
            pair.exchange();
        }
        pair
    }

    /// Carries all datagrams of one direction after the other; a round trip takes 100 us.
    fn exchange(&mut self) {
        for from in 0..2 {
            self.now += Duration::from_micros(50);
            let to = 1 - from;
            self.endpoints[from].handle_timeout(self.now);
            while self.endpoints[from]
                .poll_transmit(self.now, &mut self.buf)
                .is_some()
            {
                self.packets += 1;
                // As a driver would: one large buffer, cut into datagrams.
                if self.arena.capacity() < self.buf.len() {
                    self.arena = BytesMut::with_capacity(64 << 10);
                }
                self.arena.extend_from_slice(&self.buf);
                let datagram = self.arena.split().freeze();
                self.endpoints[to].handle_datagram(self.now, self.addresses[from], datagram);
                while let Some(event) = self.endpoints[to].poll_event() {
                    match event {
                        Event::Readable { peer, flow } => {
                            while self.endpoints[to].read(self.now, peer, flow).is_some() {}
                        }
                        Event::FlowDelivered { .. } => self.delivered += 1,
                        _ => {}
                    }
                }
            }
        }
    }

    fn transfer(&mut self, data: &Bytes) {
        let message: MessageId = format!("m{}", self.next_flow).parse().unwrap();
        self.next_flow = self.next_flow.wrapping_add(1);
        let flow = FlowId::new(message, ShareIndex::new(1).unwrap());
        let peer = self.ids[1];
        self.endpoints[0]
            .write(self.now, peer, flow, data.clone())
            .unwrap();
        self.endpoints[0].finish(self.now, peer, flow).unwrap();
        let before = self.delivered;
        while self.delivered == before {
            self.exchange();
        }
    }
}

fn machine(criterion: &mut Criterion) {
    let data = Bytes::from(vec![0x5a; usize::try_from(OCTETS).unwrap()]);
    let mut pair = Pair::new();
    pair.transfer(&data);
    let before = pair.packets;
    pair.transfer(&data);
    let packets = pair.packets - before;
    let mut group = criterion.benchmark_group("machine");
    group.sample_size(20);
    group.throughput(Throughput::Elements(packets));
    group.bench_function("transfer of 8 MiB, packets through both ends", |bencher| {
        bencher.iter(|| pair.transfer(&data));
    });
    group.finish();
}

criterion_group!(benches, machine);
criterion_main!(benches);
