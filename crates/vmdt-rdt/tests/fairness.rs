//! Sessions that share a bottleneck: with their own kind, and beside a CUBIC sender.
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
use vmdt_rdt::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use vmdt_testkit::LinkConfig;

fn config(factory: Arc<dyn ControllerFactory>) -> Config {
    let mut config = Config::default();
    config.set_congestion(factory);
    config.set_flow_window(16 << 20).unwrap();
    config.set_session_window(64 << 20).unwrap();
    config
}

fn bbr() -> Arc<dyn ControllerFactory> {
    Arc::new(BbrConfig)
}

fn cubic() -> Arc<dyn ControllerFactory> {
    Arc::new(CubicConfig)
}

/// Senders that start a second apart and share one bottleneck towards the last host. Returns
/// what each got in the second half, as a share of the link.
fn share(
    seed: u64,
    senders: &[Arc<dyn ControllerFactory>],
    mbit: u64,
    rtt: Duration,
    queue_bdps: f64,
    loss: f64,
    time: Duration,
) -> Vec<f64> {
    let rate = mbit * 1_000_000;
    let bdp = rate as f64 / 8.0 * rtt.as_secs_f64();
    let queue = (bdp * queue_bdps) as u64;
    let link = LinkConfig::new()
        .delay(rtt / 2)
        .loss(loss)
        .rate(rate, queue.max(3000));
    let receiver = senders.len();
    let mut configs: Vec<Config> = senders
        .iter()
        .map(|factory| config(factory.clone()))
        .collect();
    configs.push(config(bbr()));
    let mut world = World::new(seed, configs, &link);
    for from in 1..receiver {
        world.routes.insert((from, receiver), (0, receiver));
    }
    world.hosts[receiver].counts_only = true;
    for from in 0..receiver {
        world.connect(from, receiver);
        world.send_endless(from, receiver, flow(1));
        world.run_for(SEC);
    }
    world.run_for(time / 2);
    let counted = |world: &World| -> Vec<u64> {
        let peers: Vec<_> = (0..receiver).map(|from| world.hosts[from].id).collect();
        peers
            .iter()
            .map(|peer| {
                world.hosts[receiver]
                    .octets_by_peer
                    .get(peer)
                    .copied()
                    .unwrap_or(0)
            })
            .collect()
    };
    let before = counted(&world);
    world.run_for(time / 2);
    let after = counted(&world);
    before
        .iter()
        .zip(&after)
        .map(|(before, after)| {
            (after - before) as f64 * 8.0 / (time / 2).as_secs_f64() / rate as f64
        })
        .collect()
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn sessions_of_one_kind_share_a_clean_bottleneck() {
    for (mbit, rtt, queue) in [(20, 50, 1.0), (50, 20, 0.5), (20, 50, 4.0)] {
        let shares = share(5, &vec![bbr(); 4], mbit, MS * rtt, queue, 0.0, 60 * SEC);
        let jain = jain(&shares);
        println!(
            "4 sessions, {mbit} Mbit/s, {rtt} ms, queue {queue}: {shares:.3?}, Jain {jain:.3}"
        );
        assert!(jain > 0.9, "{shares:?}");
        assert!(shares.iter().sum::<f64>() > 0.85, "{shares:?}");
    }
}

#[test]
fn sessions_of_one_kind_share_a_lossy_bottleneck() {
    let shares = share(5, &vec![bbr(); 4], 20, MS * 50, 1.0, 0.06, 240 * SEC);
    let jain = jain(&shares);
    println!("4 sessions, 20 Mbit/s, 50 ms, 6% loss: {shares:.3?}, Jain {jain:.3}");
    assert!(jain > 0.9, "{shares:?}");
    assert!(shares.iter().sum::<f64>() > 0.8, "{shares:?}");
}

#[test]
fn a_cubic_sender_keeps_half_of_its_fair_share() {
    for (mbit, rtt, queue) in [
        (20, 50, 0.5),
        (20, 50, 1.0),
        (50, 20, 1.0),
        (20, 50, 2.0),
        (50, 20, 4.0),
    ] {
        let shares = share(5, &[cubic(), bbr()], mbit, MS * rtt, queue, 0.0, 60 * SEC);
        println!("CUBIC and BBR, {mbit} Mbit/s, {rtt} ms, queue {queue}: {shares:.3?}");
        assert!(shares[0] > 0.25, "CUBIC is starved: {shares:?}");
        assert!(shares[1] > 0.2, "BBR is starved: {shares:?}");
    }
}
