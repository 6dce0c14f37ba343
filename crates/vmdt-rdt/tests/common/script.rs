//! A random world from a seed, and what must hold in it: exact octets or a clean end, at most
//! once, memory within bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vmdt_rdt::congestion::{CubicConfig, NewRenoConfig};
use vmdt_rdt::{Config, Event, Priority, RateLimit};
use vmdt_testkit::{LinkConfig, SimRng};
use vmdt_wire::FlowId;

use super::{MS, SEC, World, flow};

/// What a world came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub trace: u64,
    pub packets: u64,
    pub elapsed: Duration,
    pub flows: u64,
}

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
        let base = rng.range(256..=1200) as u16;
        config
            .set_mtu_discovery(base, rng.range(1200..=1472) as u16)
            .unwrap();
    }
    match rng.below(4) {
        0 => config.set_congestion(Arc::new(CubicConfig)),
        1 => config.set_congestion(Arc::new(NewRenoConfig::default())),
        _ => &mut config,
    };
    config
}

/// A share, a limit or nothing for a flow.
fn tune(world: &mut World, rng: &mut SimRng, from: usize, id: FlowId) {
    let (now, peer) = (world.now(), world.hosts[1 - from].id);
    let endpoint = &mut world.hosts[from].endpoint;
    // Refused when the session is gone or full: the flow then fails as well, or goes unlimited.
    match rng.below(8) {
        0 => {
            let _ = endpoint.set_flow_priority(now, peer, id, Priority::High);
        }
        1 => {
            let _ = endpoint.set_flow_priority(now, peer, id, Priority::Highest);
        }
        2 => {
            let limit = RateLimit::new(rng.range(2048..=20_000), rng.range(20_000..=500_000));
            let _ = endpoint.set_flow_limit(now, peer, id, Some(limit.unwrap()));
        }
        3 => {
            let limit = RateLimit::new(rng.range(2048..=20_000), rng.range(50_000..=5_000_000));
            let _ = endpoint.set_session_limit(now, peer, Some(limit.unwrap()));
        }
        _ => {}
    }
    world.drive(from);
}

/// Runs the world of a seed; panics when a rule is broken.
pub fn run(seed: u64) -> Outcome {
    run_as(seed, World::new)
}

/// The same in profile 1.1.
pub fn run_sealed(seed: u64) -> Outcome {
    run_as(seed, World::sealed)
}

fn run_as(seed: u64, build: fn(u64, Vec<Config>, &LinkConfig) -> World) -> Outcome {
    let mut rng = SimRng::from_seed(seed).fork("script");
    let link = LinkConfig::sample(&mut rng, 0.3);
    let configs = vec![config(&mut rng), config(&mut rng)];
    let mut world = build(seed, configs, &link);
    if world.identities.is_some() && rng.chance(0.5) {
        world.introduce();
    }
    world.connect(0, 1);
    if rng.chance(0.2) {
        world.connect(1, 0);
    }
    let mut plan: Vec<BTreeMap<FlowId, Vec<u8>>> = vec![BTreeMap::new(), BTreeMap::new()];
    let mut given_up = Vec::new();
    // A tenth of the worlds has many small flows.
    let many = rng.chance(0.1);
    let flows = if many {
        rng.range(40..=120)
    } else {
        rng.range(1..=8)
    };
    for n in 1..=flows as u16 {
        let from = rng.below(2) as usize;
        if from == 1 && world.hosts[1].connected() == 0 {
            continue;
        }
        let octets = match rng.below(3) {
            _ if many => rng.below(8_000),
            0 => rng.below(3_000),
            1 => rng.below(60_000),
            _ => rng.below(300_000),
        };
        let data = rng.bytes(octets as usize);
        world.hosts[from].chunk = rng.range(1..=40_000) as usize;
        plan[from].insert(flow(n), data.clone());
        tune(&mut world, &mut rng, from, flow(n));
        world.send(from, 1 - from, flow(n), data);
        world.run_for(rng.duration(if many { 20 * MS } else { 300 * MS }));
        check_bounds(&world);
        if rng.chance(0.1) {
            let (now, peer) = (world.now(), world.hosts[1 - from].id);
            world.hosts[from].endpoint.reset(now, peer, flow(n), 1);
            world.hosts[from].forget(peer, flow(n));
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
    Outcome {
        trace: world.trace.value(),
        packets: world.datagrams,
        elapsed: world.clock.elapsed(),
        flows,
    }
}

/// What the endpoints hold is within the largest windows and buffers a world is made with.
fn check_bounds(world: &World) {
    for host in &world.hosts {
        for peer in host.endpoint.peers() {
            let stats = host.endpoint.stats(peer).unwrap();
            assert!(
                stats.held <= (8 << 20) + (1 << 20),
                "{} octets held",
                stats.held
            );
            assert!(
                stats.queued <= (4 << 20) + (1 << 20),
                "{} octets queued",
                stats.queued
            );
            assert!(stats.bytes_in_flight <= 65_536 * 1472);
        }
    }
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
