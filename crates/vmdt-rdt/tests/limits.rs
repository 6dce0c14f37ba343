//! What the user sets: rates of sessions and flows, and their shares of a path.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{MS, SEC, World, flow};
use vmdt_rdt::{Config, Priority, RateLimit, WriteError};
use vmdt_testkit::LinkConfig;
use vmdt_wire::{FlowId, NodeId};

fn world() -> World {
    let link = LinkConfig::new().delay(10 * MS).rate(20_000_000, 64 << 10);
    // The send buffer is the session's: a limited flow must not fill it.
    let mut config = Config::default();
    config.set_send_buffer(128 << 20).unwrap();
    let mut world = World::new(3, vec![config.clone(), config], &link);
    world.establish();
    world.hosts[1].counts_only = true;
    world
}

fn received(world: &World, n: u16) -> u64 {
    let key = (world.hosts[0].id, flow(n));
    world.hosts[1]
        .octets_by_flow
        .get(&key)
        .copied()
        .unwrap_or(0)
}

#[test]
fn a_session_keeps_to_its_limit_and_control_passes_first() {
    let mut world = world();
    let (now, peer) = (world.now(), world.hosts[1].id);
    let limit = RateLimit::new(32 << 10, 100_000).unwrap();
    let endpoint = &mut world.hosts[0].endpoint;
    endpoint.set_session_limit(now, peer, Some(limit)).unwrap();
    world.send_endless(0, 1, flow(1));
    world.run_for(5 * SEC);
    world.send(0, 1, FlowId::CONTROL, vec![7; 100]);
    world.run_for(60 * MS);
    let control = (world.hosts[0].id, FlowId::CONTROL);
    assert_eq!(world.hosts[1].octets_by_flow.get(&control), Some(&100));
    world.run_for(5 * SEC);
    let sent = world.hosts[0].endpoint.stats(peer).unwrap().octets_sent;
    assert!(sent <= 32_768 + 1_006_000 + 3_000, "{sent}");
    assert!(received(&world, 1) > 900_000, "the limit is used");
    let (now, endpoint) = (world.now(), &mut world.hosts[0].endpoint);
    endpoint.set_session_limit(now, peer, None).unwrap();
    world.drive(0);
    let before = received(&world, 1);
    world.run_for(3 * SEC);
    let rate = (received(&world, 1) - before) * 8 / 3;
    assert!(rate > 16_000_000, "{rate} bit/s after the limit was lifted");
}

#[test]
fn a_flow_keeps_to_its_limit_and_leaves_the_rest_to_others() {
    let mut world = world();
    let (now, peer) = (world.now(), world.hosts[1].id);
    let limit = RateLimit::new(10_000, 50_000).unwrap();
    let endpoint = &mut world.hosts[0].endpoint;
    endpoint
        .set_flow_limit(now, peer, flow(1), Some(limit))
        .unwrap();
    world.send(0, 1, flow(1), vec![1; 2 << 20]);
    world.send(0, 1, flow(2), vec![2; 30 << 20]);
    world.run_for(10 * SEC);
    let (limited, free) = (received(&world, 1), received(&world, 2));
    assert!((450_000..=512_000).contains(&limited), "{limited}");
    assert!(free > 20_000_000, "{free}");
}

#[test]
fn flows_share_a_path_in_proportion_to_their_priorities() {
    let mut world = world();
    let (now, peer) = (world.now(), world.hosts[1].id);
    let endpoint = &mut world.hosts[0].endpoint;
    for (n, priority) in [(2, Priority::High), (3, Priority::Highest)] {
        endpoint
            .set_flow_priority(now, peer, flow(n), priority)
            .unwrap();
    }
    for n in 1..=3 {
        world.send(0, 1, flow(n), vec![3; 20 << 20]);
    }
    world.run_for(10 * SEC);
    let base = received(&world, 1) as f64;
    for n in 2..=3u16 {
        let ratio = received(&world, n) as f64 / base / f64::from(n);
        assert!(
            (0.9..1.1).contains(&ratio),
            "flow {n}: {ratio} of its share"
        );
    }
}

#[test]
fn setters_refuse_what_they_can_not_do() {
    let mut world = world();
    let (now, peer) = (world.now(), world.hosts[1].id);
    let nobody: NodeId = "nobody".parse().unwrap();
    let endpoint = &mut world.hosts[0].endpoint;
    assert_eq!(
        endpoint.set_flow_priority(now, peer, FlowId::CONTROL, Priority::High),
        Err(WriteError::ControlFlow)
    );
    assert_eq!(
        endpoint.set_flow_limit(now, peer, FlowId::CONTROL, None),
        Err(WriteError::ControlFlow)
    );
    assert_eq!(
        endpoint.set_session_limit(now, nobody, None),
        Err(WriteError::NoSession)
    );
    assert_eq!(
        endpoint.set_flow_priority(now, nobody, flow(1), Priority::High),
        Err(WriteError::NoSession)
    );
}
