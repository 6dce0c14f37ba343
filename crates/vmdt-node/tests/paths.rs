//! Several paths at once, in virtual time: what they are worth, and what losing one costs.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::World;
use vmdt_node::CoreConfig;
use vmdt_testkit::LinkConfig;

const RTT: Duration = Duration::from_millis(50);

fn link(rate: u64, loss: f64) -> LinkConfig {
    LinkConfig::new()
        .delay(RTT / 2)
        .rate(rate, 256 * 1024)
        .loss(loss)
}

fn content(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i / 7) as u8 ^ i as u8)
        .collect::<Vec<u8>>()
        .into()
}

/// A cluster of so many nodes whose sessions are all up.
fn cluster(
    seed: u64,
    nodes: usize,
    (n, k): (u16, u16),
    link: LinkConfig,
    tune: impl Fn(&mut CoreConfig),
) -> World {
    let mut w = World::new(seed, nodes, link, |config| {
        config
            .set_request_timeout(Duration::from_secs(120))
            .unwrap();
        tune(config);
    });
    w.cluster(n, k, false);
    for _ in 0..8 {
        let id = w.send(0, 1, None, content(1_000)).unwrap();
        w.run_until(Duration::from_secs(120), |w| {
            w.hosts[0].done.contains_key(&id)
        })
        .unwrap();
        w.run_for(Duration::from_millis(300));
    }
    w
}

/// From sending to arriving, of messages sent one after the other.
fn delivery_times(w: &mut World, count: usize, size: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = w.now();
        let before = w.hosts[1].received.len();
        w.send(0, 1, None, content(size)).unwrap();
        w.run_until(Duration::from_secs(60), |w| {
            w.hosts[1].received.len() > before
        })
        .unwrap();
        times.push(w.now() - begun);
        w.run_for(Duration::from_millis(250));
    }
    times.sort();
    times
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

#[test]
fn measure_tail() {
    for loss in [0.0, 0.02] {
        let mut w = cluster(1, 8, (6, 3), link(10_000_000, loss), |_| {});
        let t = delivery_times(&mut w, 600, 1_000);
        println!("loss {loss}: p50 {:?} p90 {:?} p95 {:?} p99 {:?} max {:?}", percentile(&t, 50), percentile(&t, 90), percentile(&t, 95), percentile(&t, 99), t[t.len() - 1]);
    }
}

#[test]
fn measure_burst() {
    for loss in [0.0, 0.06] {
        for seed in 0..5 {
            let mut w = cluster(seed, 8, (6, 3), link(10_000_000, loss), |_| {});
            w.run_for(Duration::from_secs(2));
            let begun = w.now();
            let before = w.hosts[1].received.len();
            let sent = |w: &World| w.network.stats().datagrams_sent;
            let d = sent(&w);
            for _ in 0..59 {
                w.send(0, 1, None, content(1_392)).unwrap();
            }
            w.run_until(Duration::from_secs(60), |w| w.hosts[1].received.len() >= before + 59).unwrap();
            println!("loss {loss} seed {seed}: all 59 after {:?}, {} datagrams", w.now() - begun, sent(&w) - d);
        }
    }
}

#[test]
fn measure_bulk() {
    for loss in [0.0, 0.01, 0.06] {
        let mut w = cluster(1, 4, (4, 3), link(20_000_000, loss), |_| {});
        let whole = content(20 << 20);
        let id = w.send(0, 1, Some("f"), whole.clone()).unwrap();
        w.run_until(Duration::from_secs(600), |w| w.hosts[0].done.contains_key(&id)).unwrap();
        let r = w.hosts[0].done[&id].as_ref().unwrap();
        let rate = whole.len() as f64 * 8.0 / r.took.as_secs_f64();
        println!("loss {loss}: {:?}, {:.1} Mbit/s = {:.2} of the sum; {:?}", r.took, rate / 1e6, rate / 60e6, r.paths);
    }
}
