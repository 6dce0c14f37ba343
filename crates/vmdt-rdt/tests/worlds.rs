//! Random worlds over seeds: whatever the link does, each flow arrives exactly, or the session
//! or flow ends with an event that says so; nothing is delivered twice; memory stays within
//! bounds; the same seed gives the same trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{MS, SEC, World, flow};
use vmdt_rdt::congestion::CubicConfig;
use vmdt_rdt::{Config, Event};
use vmdt_testkit::{LinkConfig, SimRng, run_seeds};
use vmdt_wire::FlowId;

fn config(rng: &mut SimRng) -> Config {
    let mut config = Config::default();
    config
        .set_max_payload(rng.range(256..=1392) as u16)
        .unwrap();
    if rng.chance(0.5) {
        config
            .set_flow_window(rng.range(8 << 10..=128 << 10) as u32)
            .unwrap();
        config
            .set_session_window(rng.range(8 << 10..=256 << 10) as u32)
            .unwrap();
        config
            .set_send_buffer(rng.range(16 << 10..=256 << 10) as usize)
            .unwrap();
    }
    if rng.chance(0.3) {
        config
            .set_max_active_flows(rng.range(1..=4) as usize)
            .unwrap();
    }
    if rng.chance(0.3) {
        config.set_congestion(Arc::new(CubicConfig));
    }
    config
}

/// Runs one world and returns its trace hash.
fn world(seed: u64) -> u64 {
    let mut rng = SimRng::from_seed(seed).fork("script");
    let link = LinkConfig::sample(&mut rng, 0.3);
    let configs = vec![config(&mut rng), config(&mut rng)];
    let mut world = World::new(seed, configs, &link);
    world.connect(0, 1);
    if rng.chance(0.2) {
        world.connect(1, 0);
    }
    let mut plan: Vec<BTreeMap<FlowId, Vec<u8>>> = vec![BTreeMap::new(), BTreeMap::new()];
    let mut given_up = Vec::new();
    for n in 1..=rng.range(1..=8) as u16 {
        let from = rng.below(2) as usize;
        if from == 1 && world.hosts[1].connected() == 0 {
            continue;
        }
        let octets = match rng.below(3) {
            0 => rng.below(3_000),
            1 => rng.below(60_000),
            _ => rng.below(300_000),
        };
        let data = rng.bytes(octets as usize);
        world.hosts[from].chunk = rng.range(1..=40_000) as usize;
        plan[from].insert(flow(n), data.clone());
        world.send(from, 1 - from, flow(n), data);
        world.run_for(rng.duration(300 * MS));
        if rng.chance(0.1) {
            let (now, peer) = (world.now(), world.hosts[1 - from].id);
            world.hosts[from].endpoint.reset(now, peer, flow(n), 1);
            world.drive(from);
            given_up.push((from, flow(n)));
        } else if rng.chance(0.05) {
            let (now, peer) = (world.now(), world.hosts[from].id);
            world.hosts[1 - from].endpoint.stop(now, peer, flow(n), 2);
            world.drive(1 - from);
            given_up.push((from, flow(n)));
        }
        if rng.chance(0.1) {
            world.set_link(&LinkConfig::new().delay(10 * MS).loss(1.0));
            world.run_for(rng.duration(3 * SEC));
            world.set_link(&link);
        }
    }
    let expected = |world: &World, from: usize, id: &FlowId| {
        let key = (world.hosts[1 - from].id, *id);
        let ended = world.hosts[from].events.iter().any(|(_, event)| {
            matches!(event, Event::Closed { .. } | Event::ConnectFailed { .. })
                || matches!(event, Event::FlowStopped { flow, .. } if flow == id)
        });
        ended || given_up.contains(&(from, *id)) || world.hosts[from].delivered.contains(&key)
    };
    let settled = world.run_until(600 * SEC, |world| {
        (0..2).all(|from| plan[from].keys().all(|id| expected(world, from, id)))
    });
    assert!(settled, "neither delivered nor refused");
    world.run_for(2 * SEC);
    for (from, flows) in plan.iter().enumerate() {
        for (id, data) in flows {
            check(&world, from, *id, data);
        }
    }
    for host in &world.hosts {
        for peer in host.endpoint.peers() {
            let stats = host.endpoint.stats(peer).unwrap();
            assert_eq!(stats.acks_of_unsent, 0);
            assert_eq!(stats.malformed, 0);
        }
    }
    world.trace.value()
}

/// What arrived is what was sent, or the beginning of it.
fn check(world: &World, from: usize, id: FlowId, data: &[u8]) {
    let to = &world.hosts[1 - from];
    let key = (world.hosts[from].id, id);
    let none = Vec::new();
    let received = to.received.get(&key).unwrap_or(&none);
    assert!(data.starts_with(received), "{id:?}: other octets arrived");
    if to.finished.contains(&key) {
        assert_eq!(received.len(), data.len(), "{id:?} finished early");
    }
    if world.hosts[from].delivered.contains(&(to.id, id)) {
        let closed = !to.closed().is_empty();
        let stopped = !to.finished.contains(&key);
        assert!(
            received.len() == data.len() || closed || stopped,
            "{id:?} cut short"
        );
    }
}

#[test]
fn every_world_ends_with_exact_octets_or_a_clean_error() {
    run_seeds(0..400, |seed| {
        world(seed);
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 17, 202] {
        assert_eq!(world(seed), world(seed), "seed {seed}");
    }
    assert_ne!(world(1), world(2));
}
