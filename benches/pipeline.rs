//! The whole way of a message through the machines of a cluster: split, sent as datagrams to the
//! members, handed on, collected and rebuilt. No socket, no runtime and no waiting: the network
//! is emulated and time is virtual, so what is measured is what the processor does for all five
//! nodes and the emulation, on one core. Profile 1.1 (sealed), and 1.0 (open) beside it.
//!
//! The digest of the same octets alone is the last line: quote the ratio, absolute figures do not
//! travel.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

// The world that the tests of the node run in.
#[path = "../crates/vmdt-node/tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use common::World;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vmdt_testkit::{LinkConfig, SimRng};

const NODES: usize = 5;
const SHARES: u16 = 5;
const THRESHOLD: u16 = 3;
const SIZES: [usize; 4] = [1, 1 << 10, 64 << 10, 4 << 20];

/// A cluster that is ready, on links that take a millisecond and lose this much.
fn cluster(sealed: bool, loss: f64) -> World {
    let link = LinkConfig::new().delay(Duration::from_millis(1)).loss(loss);
    let mut world = World::of(sealed, 1, NODES, link, |_| {});
    world.cluster(SHARES, THRESHOLD, false);
    world
}

/// Sends one message from the first node to the second and sees it arrive.
fn deliver(world: &mut World, content: &Bytes) {
    let id = world.send(0, 1, None, content.clone()).unwrap();
    let done = |world: &World| world.hosts[0].done.contains_key(&id);
    world.run_until(Duration::from_secs(300), done).unwrap();
    world.hosts[0].done.remove(&id).unwrap().unwrap();
    assert_eq!(world.hosts[1].received.len(), 1, "delivered once");
    world.hosts[1].received.clear();
    for host in &mut world.hosts {
        host.events.clear();
    }
}

fn pipeline(c: &mut Criterion) {
    for (name, sealed, loss) in [
        ("sealed, no loss", true, 0.0),
        ("sealed, 6% loss", true, 0.06),
        ("open, no loss", false, 0.0),
    ] {
        let mut group = c.benchmark_group(format!("pipeline/{name}"));
        group.sample_size(10);
        for size in SIZES {
            let content = Bytes::from(SimRng::from_seed(1).bytes(size));
            group.throughput(Throughput::Bytes(size as u64));
            let mut world = cluster(sealed, loss);
            group.bench_function(format!("{size} octets"), |b| {
                b.iter(|| deliver(&mut world, &content));
            });
        }
        group.finish();
    }

    let mut group = c.benchmark_group("pipeline/digest alone");
    let content = SimRng::from_seed(1).bytes(4 << 20);
    group.throughput(Throughput::Bytes(4 << 20));
    group.bench_function("4194304 octets", |b| {
        b.iter(|| blake3::hash(black_box(&content)));
    });
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
