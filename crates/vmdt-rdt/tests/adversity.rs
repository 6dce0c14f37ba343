//! Paths and peers at their worst: the transfer ends, exactly or with an error, in bounded time
//! and memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod common;

use std::sync::Arc;

use common::{MS, SEC, World, flow};
use vmdt_rdt::congestion::{ControllerFactory, CubicConfig, NewRenoConfig};
use vmdt_rdt::{CloseReason, Config, PathStats};
use vmdt_testkit::{LinkConfig, SimRng};

fn stats(world: &World) -> PathStats {
    world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap()
}

fn data(octets: usize) -> Vec<u8> {
    SimRng::from_seed(42).bytes(octets)
}

/// Starts a transfer of flow 1.
fn start(seed: u64, config: &Config, link: &LinkConfig, octets: usize) -> World {
    let mut world = World::new(seed, vec![config.clone(), config.clone()], link);
    world.establish();
    world.send(0, 1, flow(1), data(octets));
    world
}

fn is_delivered(world: &World) -> bool {
    let key = (world.hosts[1].id, flow(1));
    world.hosts[0].delivered.contains(&key)
}

fn is_over(world: &World) -> bool {
    is_delivered(world) || !world.hosts[0].closed().is_empty()
}

/// What arrived is the beginning of what was sent, and all of it when it was delivered.
fn check(world: &World, octets: usize) {
    let key = (world.hosts[0].id, flow(1));
    let none = Vec::new();
    let received = world.hosts[1].received.get(&key).unwrap_or(&none);
    assert!(data(octets).starts_with(received), "other octets arrived");
    if is_delivered(world) {
        assert_eq!(received.len(), octets);
    }
}

#[test]
fn ninety_percent_loss_ends_in_bounded_time() {
    let mut delivered = 0;
    for seed in 0..20 {
        let link = LinkConfig::new().delay(20 * MS);
        let mut world = start(seed, &Config::default(), &link, 0);
        world.send(0, 1, flow(2), data(100_000));
        world.set_link(&link.clone().loss(0.9));
        let over = world.run_until(3600 * SEC, |world| {
            world.hosts[0].delivered.len() == 2 || !world.hosts[0].closed().is_empty()
        });
        assert!(over, "seed {seed}: neither delivered nor given up");
        delivered += u32::from(world.hosts[0].delivered.len() == 2);
    }
    println!("{delivered} of 20 delivered at 90% loss");
}

#[test]
fn everything_five_times_is_delivered_once() {
    let link = LinkConfig::new()
        .delay(10 * MS)
        .loss(0.05)
        .rate(20_000_000, 64 << 10);
    let mut world = start(1, &Config::default(), &link, 2_000_000);
    world.copies = 5;
    assert!(world.run_until(60 * SEC, is_delivered));
    check(&world, 2_000_000);
    assert!(stats(&world).packets_sent < 3_000, "{:?}", stats(&world));
}

#[test]
fn reordering_by_a_thousand_packets_is_survived_by_every_controller() {
    let factories: [Arc<dyn ControllerFactory>; 2] =
        [Arc::new(NewRenoConfig::default()), Arc::new(CubicConfig)];
    let mut configs = vec![Config::default()];
    for factory in factories {
        let mut config = Config::default();
        config.set_congestion(factory);
        configs.push(config);
    }
    for config in configs {
        // 8,500 datagrams per second: 120 ms are a thousand.
        let link = LinkConfig::new()
            .delay(5 * MS)
            .reorder(0.2, 120 * MS)
            .rate(100_000_000, 256 << 10);
        let mut world = start(2, &config, &link, 5_000_000);
        assert!(world.run_until(120 * SEC, is_delivered));
        check(&world, 5_000_000);
    }
}

#[test]
fn withheld_acks_hold_the_sender_at_its_window_and_it_recovers() {
    let link = LinkConfig::new().delay(10 * MS).rate(20_000_000, 64 << 10);
    let mut world = start(3, &Config::default(), &link, 8_000_000);
    world.run_for(SEC);
    let (window, before) = (stats(&world).cwnd, stats(&world).packets_sent);
    let deaf = link.clone().loss(1.0);
    world.links.get_mut(&(1, 0)).unwrap().set_config(deaf);
    world.run_for(4 * SEC);
    let after = stats(&world);
    assert!(
        after.bytes_in_flight <= window + 64 * 1472,
        "{} in flight of {window}",
        after.bytes_in_flight
    );
    assert!(after.packets_sent - before < 400, "probes only");
    world.links.get_mut(&(1, 0)).unwrap().set_config(link);
    assert!(world.run_until(60 * SEC, is_delivered));
    check(&world, 8_000_000);
}

#[test]
fn a_blackhole_of_five_seconds_is_outlived() {
    let link = LinkConfig::new().delay(10 * MS).rate(20_000_000, 64 << 10);
    let mut config = Config::default();
    config.set_dead_after(10 * SEC).unwrap();
    let mut world = start(4, &config, &link, 8_000_000);
    world.run_for(SEC);
    world.set_link(&link.clone().loss(1.0));
    world.run_for(5 * SEC);
    world.set_link(&link);
    let resumed = world.clock.elapsed();
    assert!(world.run_until(60 * SEC, is_delivered));
    check(&world, 8_000_000);
    let took = world.clock.elapsed() - resumed;
    assert!(took < 5 * SEC, "{took:?} for the rest");
}

#[test]
fn a_window_closed_for_ever_costs_a_probe_now_and_then() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut world = World::pair(5, &link);
    world.establish();
    world.hosts[1].reads = false;
    world.send(0, 1, flow(1), data(3_000_000));
    world.run_for(10 * SEC);
    let before = stats(&world);
    world.run_for(3600 * SEC);
    let after = stats(&world);
    assert!(world.hosts[0].closed().is_empty(), "the session stands");
    let probes = after.packets_sent - before.packets_sent;
    assert!(
        (300..4_000).contains(&probes),
        "{probes} packets in an hour"
    );
    assert!(after.queued <= 4 << 20);
    let (now, peer) = (world.now(), world.hosts[0].id);
    world.hosts[1].reads = true;
    world.hosts[1].read_all(now, peer, flow(1));
    world.drive(1);
    assert!(world.run_until(60 * SEC, is_delivered));
    check(&world, 3_000_000);
}

#[test]
fn jumps_of_the_clock_end_sessions_cleanly_or_not_at_all() {
    for (jump, survives) in [(200 * MS, true), (4 * SEC, true), (86_400 * SEC, false)] {
        let link = LinkConfig::new().delay(10 * MS).rate(20_000_000, 64 << 10);
        let mut world = start(6, &Config::default(), &link, 4_000_000);
        world.run_for(500 * MS);
        // Both machines sleep: what was on the wire arrives late.
        let later = world.now() + jump;
        world.clock.advance_to(later);
        assert!(world.run_until(60 * SEC, is_over));
        check(&world, 4_000_000);
        assert_eq!(is_delivered(&world), survives, "a jump of {jump:?}");
    }
}

fn discovering() -> Config {
    let mut config = Config::default();
    config.set_mtu_discovery(1120, 1472).unwrap();
    config
}

#[test]
fn the_path_s_largest_datagram_is_found_and_used() {
    for (mtu, expected) in [
        (1552, 1468..=1468),
        (1472, 1373..=1388),
        (1300, 1200..=1216),
    ] {
        let link = LinkConfig::new()
            .delay(10 * MS)
            .loss(0.01)
            .rate(20_000_000, 64 << 10)
            .mtu(mtu);
        let mut world = start(7, &discovering(), &link, 4_000_000);
        assert!(world.run_until(30 * SEC, is_delivered));
        check(&world, 4_000_000);
        let stats = stats(&world);
        assert!(
            expected.contains(&stats.max_payload),
            "{} for a path of {mtu}",
            stats.max_payload
        );
        assert_eq!(stats.black_holes, 0);
    }
}

#[test]
fn random_loss_is_no_black_hole() {
    for loss in [0.06, 0.2, 0.4] {
        let link = LinkConfig::new()
            .delay(10 * MS)
            .loss(loss)
            .rate(20_000_000, 64 << 10);
        let mut world = start(8, &discovering(), &link, 3_000_000);
        assert!(world.run_until(120 * SEC, is_delivered));
        check(&world, 3_000_000);
        assert_eq!(stats(&world).black_holes, 0, "at {loss}");
    }
}

#[test]
fn a_path_that_shrinks_in_mid_transfer_is_noticed_and_ends_cleanly() {
    let link = LinkConfig::new()
        .delay(10 * MS)
        .rate(20_000_000, 64 << 10)
        .mtu(1552);
    let mut world = start(9, &discovering(), &link, 8_000_000);
    world.run_for(SEC);
    assert_eq!(stats(&world).max_payload, 1468);
    world.set_link(&link.clone().mtu(1300));
    world.run_for(3 * SEC);
    assert_eq!(stats(&world).black_holes, 1);
    assert!(stats(&world).max_payload <= 1216);
    let began = world.clock.elapsed();
    assert!(world.run_until(120 * SEC, is_over));
    check(&world, 8_000_000);
    assert_eq!(world.hosts[0].closed(), [CloseReason::Unresponsive]);
    assert!(world.clock.elapsed() - began < 10 * SEC);

    // Back in time, or with fragmentation: what was cut passes, and all of it arrives.
    let mut world = start(9, &discovering(), &link, 8_000_000);
    world.run_for(SEC);
    world.set_link(&link.clone().mtu(1300));
    world.run_for(3 * SEC);
    world.set_link(&link);
    assert!(world.run_until(60 * SEC, is_delivered));
    check(&world, 8_000_000);
}

#[test]
fn a_peer_without_discovery_keeps_its_bound() {
    let link = LinkConfig::new().delay(10 * MS);
    let configs = vec![discovering(), Config::default()];
    let mut world = World::new(10, configs, &link);
    world.establish();
    world.send(0, 1, flow(1), data(1_000_000));
    assert!(world.run_until(30 * SEC, is_delivered));
    assert_eq!(stats(&world).max_payload, 1388, "what the peer takes");
}
