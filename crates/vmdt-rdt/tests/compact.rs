//! Compact headers of sealed sessions (docs/protocol.md, section 12.8).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod common;

use bytes::Bytes;
use common::{MS, SEC, World, flow, header_of};
use vmdt_rdt::Config;
use vmdt_testkit::LinkConfig;
use vmdt_wire::compact::is_compact;
use vmdt_wire::{HEADER_LEN, PacketType};

const TAG: usize = 16;

fn configs(reads: [bool; 2]) -> Vec<Config> {
    reads
        .map(|on| {
            let mut config = Config::default();
            config.set_compact_headers(on);
            config
        })
        .to_vec()
}

/// A session over which both ends have said something, with what was on the way.
fn world(seed: u64, reads: [bool; 2], link: &LinkConfig) -> World {
    let mut world = World::sealed(seed, configs(reads), link);
    world.tape = Some(Vec::new());
    world.establish();
    world.run_for(SEC);
    world.carry(0, 1, flow(1), 100_000);
    world.carry(1, 0, flow(2), 100_000);
    world
}

#[test]
fn once_the_peer_was_heard_headers_are_compact_and_segments_longer() {
    let mut world = world(1, [true, true], &LinkConfig::new().delay(10 * MS));
    let tape = world.tape.take().unwrap();
    let count = |short: bool, kind: PacketType| {
        tape.iter()
            .filter(|taped| {
                is_compact(&taped.bytes) == short && header_of(&taped.bytes).kind == kind
            })
            .count()
    };
    assert!(count(false, PacketType::Syn) > 0 && count(true, PacketType::Syn) == 0);
    assert_eq!(
        count(false, PacketType::Data),
        0,
        "the peer was heard before"
    );
    assert!(count(true, PacketType::Ack) > count(false, PacketType::Ack));
    assert!(count(true, PacketType::Data) >= 2 * 100_000 / 1_426);
    let longest = tape.iter().map(|taped| taped.bytes.len()).max();
    assert_eq!(longest, Some(1_472), "as long as with whole headers");
    for (at, host) in world.hosts.iter().enumerate() {
        let stats = host.endpoint.stats(world.hosts[1 - at].id).unwrap();
        assert_eq!(stats.max_payload, 1_472 - 30 - TAG);
        assert_eq!(stats.forged, 0);
    }
}

#[test]
fn who_does_not_read_them_gets_none_and_sends_none() {
    for reads in [[true, false], [false, true], [false, false]] {
        let mut world = world(2, reads, &LinkConfig::new().delay(10 * MS));
        let tape = world.tape.take().unwrap();
        assert!(tape.iter().all(|taped| !is_compact(&taped.bytes)));
        let peer = world.hosts[1].id;
        let stats = world.hosts[0].endpoint.stats(peer).unwrap();
        assert_eq!(stats.max_payload, 1_472 - HEADER_LEN - TAG);
    }
}

#[test]
fn they_survive_loss_reordering_and_duplication() {
    for seed in 0..20 {
        let link = LinkConfig::new()
            .delay(10 * MS)
            .jitter(5 * MS)
            .loss(0.1)
            .duplicate(0.1)
            .corrupt(0.02);
        let mut configs = configs([true, true]);
        for config in &mut configs {
            config.set_connect_timeout(60 * SEC).unwrap();
        }
        let mut world = World::sealed(seed, configs, &link);
        world.establish();
        for n in 1..5 {
            world.carry(0, 1, flow(n), 100_000);
            world.carry(1, 0, flow(10 + n), 100_000);
        }
        for host in &world.hosts {
            assert_eq!(host.closed(), [], "seed {seed}");
        }
    }
}

#[test]
fn an_altered_octet_of_one_opens_nothing() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut world = world(3, [true, true], &link);
    // What arrives has not arrived before.
    world.set_link(&link.clone().loss(1.0));
    world.tape = Some(Vec::new());
    let (now, peer) = (world.now(), world.hosts[1].id);
    let text = Bytes::from_static(b"not for you to change");
    world.hosts[0]
        .endpoint
        .write(now, peer, flow(9), text)
        .unwrap();
    world.drive(0);
    let tape = world.tape.take().unwrap();
    let sent = tape
        .iter()
        .find(|taped| header_of(&taped.bytes).kind == PacketType::Data)
        .unwrap();
    assert!(is_compact(&sent.bytes));
    let from = world.hosts[0].address;
    let received = |world: &World| {
        let stats = world.hosts[1].endpoint.stats(world.hosts[0].id).unwrap();
        stats.packets_received
    };
    let before = received(&world);
    for at in 0..sent.bytes.len() {
        for bit in 0..8 {
            let mut octets = sent.bytes.to_vec();
            octets[at] ^= 1 << bit;
            world.inject(from, 1, octets.into());
        }
    }
    for len in 0..sent.bytes.len() {
        world.inject(from, 1, sent.bytes.slice(..len));
    }
    assert_eq!(received(&world), before);
    world.inject(from, 1, sent.bytes.clone());
    assert_eq!(received(&world), before + 1, "as it was sent it opens");
    world.inject(from, 1, sent.bytes.clone());
    assert_eq!(received(&world), before + 1, "and once");
}
