//! The first flight of a session that has carried little yet: how soon a burst of small messages is
//! away, and what it costs a path that is slower than it.
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
use std::time::Duration;

use bytes::Bytes;
use common::{MS, SEC, World, flow};
use vmdt_rdt::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use vmdt_rdt::{Config, Event};
use vmdt_testkit::LinkConfig;
use vmdt_wire::FlowId;

fn factories() -> [(&'static str, Arc<dyn ControllerFactory>); 3] {
    [
        ("bbr", Arc::new(BbrConfig)),
        ("cubic", Arc::new(CubicConfig)),
        ("newreno", Arc::new(NewRenoConfig::default())),
    ]
}

/// Full datagrams in a burst: 71 kB.
const BURST: usize = 48;

/// What a session has done before the burst.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    /// Some control lines, as peers exchange them when they meet.
    Lines,
    /// The same, and then half a minute of silence.
    Silence,
    /// A share of 4 MB, and then ten seconds of silence.
    Share,
    /// A burst as the one that is looked at.
    Burst,
}

#[derive(Debug)]
struct Outcome {
    /// Until the last datagram had left, and had arrived.
    left: Duration,
    arrived: Option<Duration>,
    lost: u64,
}

/// 71 kB in full datagrams.
fn burst(
    factory: &Arc<dyn ControllerFactory>,
    before: Before,
    path: (u64, Duration),
    loss: f64,
    queue: u64,
) -> Outcome {
    run(factory, before, path, loss, queue, 64 << 10, false)
}

/// The same after the path was measured.
fn measured(
    factory: &Arc<dyn ControllerFactory>,
    before: Before,
    path: (u64, Duration),
    loss: f64,
    queue: u64,
) -> Outcome {
    run(factory, before, path, loss, queue, 64 << 10, true)
}

/// The same with a first flight of so many octets.
fn run(
    factory: &Arc<dyn ControllerFactory>,
    before: Before,
    (rate, rtt): (u64, Duration),
    loss: f64,
    queue: u64,
    flight: u64,
    measure: bool,
) -> Outcome {
    let mut config = Config::default();
    config
        .set_congestion(factory.clone())
        .set_keep_alive_always(true);
    let clean = LinkConfig::new().delay(rtt / 2).rate(rate, queue);
    config.set_first_flight(flight).unwrap();
    let link = clean.loss(loss);
    let mut world = World::sealed(3, vec![config.clone(), config], &link);
    world.establish();
    world.run_for(rtt * 2);
    if measure {
        // both sides, as peers do
        for (at, other) in [(0, 1), (1, 0)] {
            let (now, peer) = (world.clock.now(), world.hosts[other].id);
            world.hosts[at].endpoint.measure_rate(now, peer);
            world.drive(at);
        }
        world.run_for(rtt * 8 + 300 * MS);
    }
    if before != Before::Nothing {
        for n in 0..8 {
            world.send(0, 1, FlowId::CONTROL, vec![b'l'; 80 + 100 * n]);
            world.send(1, 0, FlowId::CONTROL, vec![b'l'; 300]);
            world.run_for(rtt * 3 / 2);
        }
    }
    if before == Before::Share {
        world.carry(0, 1, flow(1), 4_000_000);
        world.run_for(10 * SEC);
    }
    if before == Before::Silence {
        world.run_for(29 * SEC);
    }
    if before == Before::Burst {
        let (_, arrived) = one_burst(&mut world);
        assert_eq!(arrived.len(), BURST);
        world.run_for(SEC);
    }
    let peer = world.hosts[1].id;
    let lost = |world: &World| {
        let stats = world.hosts[0].endpoint.stats(peer).unwrap();
        stats.packets_lost
    };
    let before = lost(&world);
    let (left, arrived) = one_burst(&mut world);
    Outcome {
        left,
        arrived: (arrived.len() == BURST).then(|| arrived[BURST - 1]),
        lost: lost(&world) - before,
    }
}

/// When the last datagram of a burst had left, and when those that came did.
fn one_burst(world: &mut World) -> (Duration, Vec<Duration>) {
    let peer = world.hosts[1].id;
    let began = world.clock.elapsed();
    let payloads = (0..BURST).map(|_| (peer, Bytes::from(vec![7; 1376])));
    world.hosts[0].datagrams.extend(payloads);
    world.drive(0);
    assert!(world.run_until(10 * SEC, |world| {
        let stats = world.hosts[0].endpoint.stats(peer).unwrap();
        world.hosts[0].datagrams.is_empty() && stats.datagrams_queued == 0
    }));
    let left = world.clock.elapsed() - began;
    world.run_for(3 * SEC);
    let arrived = world.hosts[1]
        .events
        .iter()
        .filter(|(at, event)| *at >= began && matches!(event, Event::Datagram { .. }))
        .map(|(at, _)| *at - began)
        .collect();
    (left, arrived)
}

const FRESH: [Before; 3] = [Before::Nothing, Before::Lines, Before::Silence];

#[test]
fn a_burst_is_away_within_a_round_trip_and_loses_nothing() {
    let rtt = 50 * MS;
    for (name, factory) in factories() {
        for before in FRESH.into_iter().chain([Before::Burst, Before::Share]) {
            let outcome = burst(&factory, before, (10_000_000, rtt), 0.0, 64 << 10);
            println!("{name:8} {before:8?} {outcome:?}");
            assert!(outcome.left <= 60 * MS, "{name} {before:?} {outcome:?}");
            // 48 datagrams of 1,472 octets at 10 Mbit/s take 56.5 ms, and 25 ms on the way.
            let arrived = outcome.arrived.unwrap();
            assert!(arrived <= 84 * MS, "{name} {before:?} {outcome:?}");
            assert_eq!(outcome.lost, 0, "{name} {before:?}");
        }
    }
}

#[test]
fn it_is_spread_over_the_round_trip_of_the_path() {
    for (name, factory) in factories() {
        for before in FRESH {
            for (rate, rtt) in [(100_000_000, 20 * MS), (10_000_000, 100 * MS)] {
                let outcome = burst(&factory, before, (rate, rtt), 0.0, 64 << 10);
                // Ten leave at once; the last of the 48 are beyond the flight and wait for ACKs.
                let left = outcome.left.as_secs_f64() / rtt.as_secs_f64();
                assert!((0.7..1.2).contains(&left), "{name} {before:?} {outcome:?}");
                assert_eq!(outcome.lost, 0, "{name} {before:?}");
            }
        }
    }
}

#[test]
fn a_path_with_random_loss_has_it_too() {
    for (name, factory) in factories() {
        for before in FRESH {
            let outcome = burst(&factory, before, (10_000_000, 50 * MS), 0.06, 64 << 10);
            println!("{name:8} {before:8?} {outcome:?}");
            assert!(outcome.left <= 120 * MS, "{name} {before:?} {outcome:?}");
            assert!(outcome.lost <= 10, "{name} {before:?} {outcome:?}");
        }
    }
}

#[test]
fn a_slow_path_loses_no_more_than_the_flight_exceeds_its_queue() {
    for (name, factory) in factories() {
        for before in FRESH {
            let slow = (1_000_000, 20 * MS);
            let outcome = burst(&factory, before, slow, 0.0, 64 << 10);
            println!("{name:8} {before:8?} {outcome:?}");
            assert_eq!(outcome.lost, 0, "a queue of its size takes it");
            // A queue of 16 KiB: 11 datagrams. What is lost is lost once, and then the sender is
            // as slow as the path.
            let outcome = burst(&factory, before, slow, 0.0, 16 << 10);
            println!("{name:8} {before:8?} {outcome:?}");
            assert!(outcome.lost <= 45 - 11, "{name} {before:?} {outcome:?}");
        }
    }
}

#[test]
fn on_a_path_that_was_measured_it_is_nearly_as_fast_as_the_path() {
    for (name, factory) in factories() {
        for before in FRESH {
            for (rate, rtt) in [(100_000_000, 50 * MS), (30_000_000, 100 * MS)] {
                let outcome = measured(&factory, before, (rate, rtt), 0.0, 64 << 10);
                println!("{name:8} {before:8?} {outcome:?}");
                // 44 of the 48 are the flight
                let line = Duration::from_secs_f64(48.0 * 1500.0 * 8.0 / rate as f64);
                let quick = rtt / 2 + line * 3 / 2 + 2 * MS;
                let flight = outcome.arrived.unwrap() - rtt;
                assert!(flight <= quick, "{name} {before:?} {outcome:?}");
                assert_eq!(outcome.lost, 0, "{name} {before:?}");
            }
        }
    }
}

#[test]
fn measuring_makes_it_no_faster_than_the_path() {
    for (name, factory) in factories() {
        for before in FRESH {
            // slower than a flight in a round trip: as without
            let slow = (1_000_000, 20 * MS);
            let outcome = measured(&factory, before, slow, 0.0, 16 << 10);
            assert!(outcome.lost <= 45 - 11, "{name} {before:?} {outcome:?}");
            // faster, with a queue of a few packets: the flight loses nothing
            let quick = (20_000_000, 100 * MS);
            let outcome = measured(&factory, before, quick, 0.0, 24 << 10);
            println!("{name:8} {before:8?} {outcome:?}");
            assert_eq!(outcome.lost, 0, "{name} {before:?} {outcome:?}");
        }
    }
}

#[test]
fn flows_on_a_measured_path_begin_with_the_flight_and_not_with_the_first_acknowledgment() {
    let link = LinkConfig::new().delay(25 * MS).rate(20_000_000, 256 << 10);
    let mut world = World::sealed_pair(5, &link);
    world.establish();
    let (peer, now) = (world.hosts[1].id, world.now());
    world.hosts[0].endpoint.measure_rate(now, peer);
    world.drive(0);
    // a chat: the controller has seen single packets, the path was quiet in between
    for n in 1..6 {
        world.carry(0, 1, flow(n), 1_000);
        world.run_for(400 * MS);
    }
    let sent = |world: &World| {
        world.hosts[0]
            .endpoint
            .stats(peer)
            .unwrap()
            .data_octets_sent
    };
    let before = sent(&world);
    world.send(0, 1, flow(6), vec![7; 1 << 20]);
    world.run_for(45 * MS);
    // at nine tenths of 2.5 MB/s, which the flight of 64 KiB takes 29 ms of
    let flight = sent(&world) - before;
    assert!((58_000..=66_000).contains(&flight), "{flight}");
}

#[test]
fn a_path_is_measured_once_when_it_is_quiet_and_only_if_that_is_of_use() {
    let link = LinkConfig::new().delay(10 * MS).rate(100_000_000, 64 << 10);
    let sent = |world: &World| {
        let stats = world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
        stats.packets_sent
    };
    let ask = |world: &mut World| {
        let (now, peer) = (world.clock.now(), world.hosts[1].id);
        world.hosts[0].endpoint.measure_rate(now, peer);
        world.drive(0);
    };
    for (flight, train) in [(64 << 10, 10), (0, 0)] {
        let mut config = Config::default();
        config.set_first_flight(flight).unwrap();
        let mut world = World::sealed(3, vec![config.clone(), config], &link);
        world.establish();
        world.run_for(SEC);
        let before = sent(&world);
        ask(&mut world);
        world.run_for(MS);
        assert_eq!(sent(&world), before + train, "it was quiet");
        ask(&mut world);
        world.run_for(SEC);
        assert_eq!(sent(&world), before + train, "it is known");
    }
    let config = Config::default();
    let mut world = World::sealed(3, vec![config.clone(), config], &link);
    world.establish();
    let before = sent(&world);
    ask(&mut world);
    for _ in 0..20 {
        world.send(0, 1, FlowId::CONTROL, vec![b'l'; 80]);
        world.run_for(20 * MS);
    }
    assert!(sent(&world) < before + 50, "what else there is goes first");
    let busy = sent(&world);
    world.run_for(SEC);
    assert!(sent(&world) >= busy + 10);
}

/// What the first flight changes: without it the same burst takes two round trips and more.
#[test]
fn without_it_a_burst_waits_for_the_window() {
    for (name, factory) in factories() {
        let path = (10_000_000, 50 * MS);
        let with = run(
            &factory,
            Before::Lines,
            path,
            0.0,
            64 << 10,
            64 << 10,
            false,
        );
        let without = run(&factory, Before::Lines, path, 0.0, 64 << 10, 0, false);
        assert!(
            without.arrived.unwrap() > with.arrived.unwrap() * 3 / 2,
            "{name}: {without:?} against {with:?}"
        );
    }
    // A window that was asked for is kept to.
    let mut own = NewRenoConfig::default();
    own.set_window(10, 4, 1000).unwrap();
    for config in [own, NewRenoConfig::aimd()] {
        let factory: Arc<dyn ControllerFactory> = Arc::new(config);
        let outcome = burst(
            &factory,
            Before::Lines,
            (10_000_000, 50 * MS),
            0.0,
            64 << 10,
        );
        assert!(outcome.left > 60 * MS, "{outcome:?}");
    }
    let mut config = Config::default();
    assert!(config.set_first_flight(1 << 20).is_ok());
    assert!(config.set_first_flight((1 << 20) + 1).is_err());
}
