//! Whole transfers over emulated links: exact octets, at most once, at a sensible rate.
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

use common::{MS, SEC, World, flow};
use vmdt_rdt::Config;
use vmdt_rdt::congestion::{BbrConfig, CubicConfig, NewRenoConfig};
use vmdt_testkit::{BurstLoss, LinkConfig, SimRng};

/// Sends `octets` from `a` to `b` and returns the time it took.
fn transfer(world: &mut World, octets: usize, limit: Duration) -> Duration {
    let data = SimRng::from_seed(99).bytes(octets);
    let start = world.clock.elapsed();
    world.send(0, 1, flow(1), data.clone());
    let key = (world.hosts[1].id, flow(1));
    let done = world.run_until(limit, |world| world.hosts[0].delivered.contains(&key));
    let stats = world.hosts[0].endpoint.stats(world.hosts[1].id);
    assert!(
        done,
        "not delivered in {limit:?}: {:?} {stats:#?}",
        world.hosts[0].events
    );
    let key = (world.hosts[0].id, flow(1));
    assert!(world.hosts[1].finished.contains(&key));
    assert!(
        world.hosts[1].received[&key] == data,
        "other octets arrived"
    );
    world.clock.elapsed() - start
}

/// Goodput in percent of the link's rate.
fn goodput(config: &Config, mbit: u64, rtt_ms: u32, loss: f64, octets: usize) -> u64 {
    let rate = mbit * 1_000_000;
    let bdp = rate / 8 * u64::from(rtt_ms) / 1000;
    let link = LinkConfig::new()
        .delay(MS * rtt_ms / 2)
        .loss(loss)
        .rate(rate, bdp.max(64 * 1024));
    let mut world = World::new(7, vec![config.clone(), config.clone()], &link);
    world.establish();
    let took = transfer(&mut world, octets, 600 * SEC);
    let percent = octets as f64 * 8.0 / took.as_secs_f64() / rate as f64 * 100.0;
    let stats = world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
    println!(
        "{mbit} Mbit/s {rtt_ms} ms {:.1}%: {percent:.1}% of the link; lost {} spurious {} pto {}",
        loss * 100.0,
        stats.packets_lost,
        stats.packets_spurious,
        stats.probe_timeouts
    );
    percent as u64
}

/// Flows of one packet each, one after the other, that took longer than the way there, of 400.
fn late_flows(loss: f64) -> usize {
    let delay = 25 * MS;
    let link = LinkConfig::new().delay(delay).rate(20_000_000, 256 << 10);
    let mut world = World::sealed_pair(9, &link);
    world.establish();
    world.set_link(&link.loss(loss));
    // what is lost of a transfer in either direction tells both ends how the path is
    world.carry(0, 1, flow(1), 1 << 20);
    let me = world.hosts[0].id;
    let mut late = 0;
    for n in 2..402 {
        world.send(0, 1, flow(n), vec![7; 1_000]);
        let there = |world: &World| world.hosts[1].finished.contains(&(me, flow(n)));
        late += usize::from(!world.run_until(delay + 5 * MS, there));
        assert!(world.run_until(10 * SEC, there), "{n}");
        world.run_for(200 * MS);
    }
    late
}

/// No packet follows that shows that it was lost: without a second one each waits for a probe
/// timeout, six of a hundred.
#[test]
fn on_a_lossy_path_the_last_packet_before_a_pause_is_sent_twice() {
    assert_eq!(late_flows(0.0), 0);
    let late = late_flows(0.06);
    assert!(late <= 6, "{late} of 400");
}

#[test]
fn a_clean_link_is_filled() {
    let config = Config::default();
    assert!(goodput(&config, 20, 20, 0.0, 10 << 20) >= 90);
    assert!(goodput(&config, 100, 20, 0.0, 20 << 20) >= 85);
    assert!(goodput(&config, 100, 1, 0.0, 20 << 20) >= 90);
}

#[test]
fn random_loss_costs_newreno_what_its_formula_says_and_no_more() {
    let config = with(Arc::new(NewRenoConfig::default()));
    // 1.22 * 1472 octets / (20 ms * sqrt(0.01)) is 7.2 Mbit/s.
    assert!(goodput(&config, 20, 20, 0.01, 4 << 20) >= 25);
    assert!(goodput(&config, 20, 20, 0.06, 2 << 20) >= 8);
    assert!(goodput(&config, 20, 1, 0.06, 4 << 20) >= 60);
    assert!(goodput(&config, 20, 20, 0.30, 1 << 20) >= 3);
}

#[test]
fn cubic_fills_a_clean_link_too() {
    let mut config = Config::default();
    config.set_congestion(Arc::new(CubicConfig));
    assert!(goodput(&config, 20, 20, 0.0, 10 << 20) >= 90);
    assert!(goodput(&config, 100, 20, 0.0, 20 << 20) >= 85);
    assert!(goodput(&config, 20, 20, 0.01, 4 << 20) >= 25);
}

#[test]
fn a_lan_is_not_limited_by_timers() {
    let config = Config::default();
    let link = LinkConfig::new()
        .delay(Duration::from_micros(50))
        .rate(1_000_000_000, 1 << 20);
    let mut world = World::new(7, vec![config.clone(), config], &link);
    world.establish();
    let took = transfer(&mut world, 40 << 20, 10 * SEC);
    let percent = f64::from(40 << 20) * 8.0 / took.as_secs_f64() / 1e9 * 100.0;
    println!("1 Gbit/s 0.1 ms: {percent:.1}%");
    assert!(percent > 85.0);
}

fn with(factory: Arc<dyn vmdt_rdt::congestion::ControllerFactory>) -> Config {
    let mut config = Config::default();
    config.set_congestion(factory);
    config
}

#[test]
fn random_loss_does_not_slow_the_model_down() {
    let config = with(Arc::new(BbrConfig));
    // The bound is 88.6%: 94% of the datagrams arrive, and 94.3% of a datagram are data.
    assert!(goodput(&config, 20, 50, 0.06, 20 << 20) >= 85);
    assert!(goodput(&config, 20, 50, 0.10, 20 << 20) >= 79);
    assert!(goodput(&config, 20, 20, 0.01, 10 << 20) >= 90);
    let mut discovering = config.clone();
    discovering.set_mtu_discovery(1392, 1472).unwrap();
    // With 1,468 octets of data in 1,552 the bound is 88.9%.
    assert!(goodput(&discovering, 20, 50, 0.06, 20 << 20) >= 85);
    assert!(goodput(&config, 20, 50, 0.0, 20 << 20) >= 90);
}

#[test]
fn a_fast_lan_loses_nothing_to_the_model() {
    let links = [
        LinkConfig::new()
            .delay(Duration::from_micros(50))
            .rate(1_000_000_000, 1 << 20),
        // Loopback: nothing but windows limits the rate.
        LinkConfig::new().delay(Duration::from_micros(50)),
        LinkConfig::new().delay(MS / 2).rate(100_000_000, 64 << 10),
    ];
    for (index, link) in links.iter().enumerate() {
        let time = |config: Config| {
            let mut world = World::new(7, vec![config.clone(), config], link);
            world.establish();
            transfer(&mut world, 20 << 20, 10 * SEC)
        };
        let model = time(with(Arc::new(BbrConfig)));
        let reno = time(with(Arc::new(NewRenoConfig::default())));
        println!("{index}: BBR {model:?}, NewReno {reno:?}");
        assert!(model < reno * 21 / 20 + MS, "{model:?} against {reno:?}");
    }
}

#[test]
fn an_application_with_little_to_send_does_not_shrink_the_model() {
    let link = LinkConfig::new()
        .delay(10 * MS)
        .loss(0.02)
        .rate(20_000_000, 64 << 10);
    let time = |config: Config, chatter: bool| {
        let mut world = World::new(7, vec![config.clone(), config], &link);
        world.establish();
        for n in 2..if chatter { 102 } else { 2 } {
            world.send(0, 1, flow(n), vec![1; 3000]);
            world.run_for(50 * MS);
        }
        transfer(&mut world, 2 << 20, 20 * SEC)
    };
    let fresh = time(with(Arc::new(BbrConfig)), false);
    let after = time(with(Arc::new(BbrConfig)), true);
    println!("fresh {fresh:?}, after 5 s of small messages {after:?}");
    assert!(after < fresh * 5 / 4);
    // 2 MiB at 20 Mbit/s, headers and loss are 0.91 s.
    assert!(after < MS * 1150);
}

#[test]
fn a_path_that_becomes_slower_is_noticed() {
    let link = |rate: u64| {
        LinkConfig::new()
            .delay(10 * MS)
            .loss(0.03)
            .rate(rate, 64 << 10)
    };
    let config = with(Arc::new(BbrConfig));
    let mut world = World::new(7, vec![config.clone(), config], &link(20_000_000));
    world.establish();
    world.hosts[1].counts_only = true;
    world.send_endless(0, 1, flow(1));
    world.run_for(5 * SEC);
    world.set_link(&link(2_000_000));
    world.run_for(5 * SEC);
    let stats = |world: &World| world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
    let (before, octets) = (stats(&world), world.hosts[1].octets_received);
    world.run_for(10 * SEC);
    let after = stats(&world);
    let goodput = (world.hosts[1].octets_received - octets) as f64 * 8.0 / 10.0 / 2e6;
    let lost = (after.packets_lost - before.packets_lost) as f64
        / (after.packets_sent - before.packets_sent) as f64;
    println!(
        "goodput {goodput:.3}, lost {lost:.3}, srtt {:?}",
        after.srtt
    );
    assert!(goodput > 0.75, "{goodput}");
    assert!(lost < 0.12, "{lost}: what the queue drops is not random");
}

#[test]
fn arrives_through_any_loss_up_to_forty_percent() {
    for loss in [0.0, 0.05, 0.1, 0.2, 0.3, 0.4] {
        let link = LinkConfig::new().delay(10 * MS).loss(loss);
        let mut world = World::pair(3, &link);
        world.establish();
        let took = transfer(&mut world, 200_000, 120 * SEC);
        println!("{loss}: {took:?}");
    }
}

#[test]
fn arrives_through_bursts_reordering_duplication_and_damage() {
    let links = [
        LinkConfig::new()
            .delay(10 * MS)
            .burst_loss(BurstLoss::new(0.02, 0.1)),
        LinkConfig::new().delay(10 * MS).reorder(0.3, 50 * MS),
        LinkConfig::new().delay(10 * MS).duplicate(0.5),
        LinkConfig::new().delay(10 * MS).corrupt(0.3),
        LinkConfig::new().delay(10 * MS).jitter(30 * MS),
        LinkConfig::new()
            .delay(20 * MS)
            .loss(0.1)
            .reorder(0.1, 40 * MS)
            .duplicate(0.1)
            .corrupt(0.1)
            .rate(5_000_000, 32 * 1024),
    ];
    for (index, link) in links.iter().enumerate() {
        // Bursts end by datagrams, not by time: while only probes are sent they last long.
        let mut config = Config::default();
        config
            .set_dead_after(60 * SEC)
            .unwrap()
            .set_idle_timeout(90 * SEC)
            .unwrap();
        let mut world = World::new(11, vec![config.clone(), config], link);
        world.establish();
        let took = transfer(&mut world, 500_000, 300 * SEC);
        let stats = world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
        println!(
            "{index}: {took:?} lost {} spurious {} again {}",
            stats.packets_lost, stats.packets_spurious, stats.segments_retransmitted
        );
    }
}

#[test]
fn reordering_without_loss_stops_causing_retransmissions() {
    let link = LinkConfig::new().delay(20 * MS).reorder(0.2, 15 * MS);
    let mut world = World::pair(5, &link);
    world.establish();
    transfer(&mut world, 4_000_000, 120 * SEC);
    let stats = world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
    assert!(
        stats.segments_retransmitted < stats.packets_sent / 50,
        "{} of {} were sent again",
        stats.segments_retransmitted,
        stats.packets_sent
    );
}

#[test]
fn many_flows_share_a_session_fairly() {
    let link = LinkConfig::new().delay(10 * MS).rate(20_000_000, 64 * 1024);
    let mut world = World::pair(3, &link);
    world.establish();
    let mut rng = SimRng::from_seed(4);
    for n in 1..=50 {
        world.send(0, 1, flow(n), rng.bytes(60_000));
    }
    let all = world.run_until(60 * SEC, |world| world.hosts[0].delivered.len() == 50);
    assert!(all);
    let times: Vec<Duration> = world.hosts[0]
        .events
        .iter()
        .filter(|(_, event)| matches!(event, vmdt_rdt::Event::FlowDelivered { .. }))
        .map(|(at, _)| *at)
        // The first flow had the initial window to itself.
        .skip(1)
        .collect();
    let spread = *times.last().unwrap() - times[0];
    assert!(
        spread < times[0] / 3,
        "first {:?}, spread {spread:?}",
        times[0]
    );
}

#[test]
fn a_flow_longer_than_its_sequence_space_arrives() {
    let mut config = Config::default();
    config.set_max_payload(256).unwrap();
    let link = LinkConfig::new().delay(MS).loss(0.01);
    let mut world = World::new(3, vec![config.clone(), config], &link);
    world.establish();
    // 252 octets a segment: about 80,000 segments.
    transfer(&mut world, 252 * 80_000, 300 * SEC);
}

#[test]
fn empty_one_octet_and_boundary_flows_arrive() {
    let link = LinkConfig::new().delay(5 * MS).loss(0.2);
    let mut world = World::pair(8, &link);
    world.establish();
    let sizes = [0usize, 1, 1387, 1388, 1389, 1392, 1393, 100_000];
    for (n, size) in (1u16..).zip(sizes) {
        world.send(0, 1, flow(n), vec![7; size]);
    }
    assert!(
        world.run_until(60 * SEC, |world| world.hosts[0].delivered.len()
            == sizes.len())
    );
    for (n, size) in (1u16..).zip(sizes) {
        let key = (world.hosts[0].id, flow(n));
        assert!(world.hosts[1].finished.contains(&key));
        assert_eq!(world.hosts[1].received[&key].len(), size);
    }
}
