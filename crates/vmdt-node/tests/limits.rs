//! Rate limits and priorities, in virtual time.
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
use vmdt_node::{CoreConfig, MessageId, Priority, RateLimit, SendOptions};
use vmdt_testkit::LinkConfig;

fn world(seed: u64, nodes: usize, tune: impl Fn(&mut CoreConfig)) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(5))
        .rate(20_000_000, 256 * 1024);
    World::new(seed, nodes, link, tune)
}

fn content(len: usize) -> Bytes {
    vec![7; len].into()
}

fn send(w: &mut World, to: usize, octets: usize, options: SendOptions) -> MessageId {
    let to = w.id(to);
    let content = content(octets);
    w.send_with(0, to, content, options).unwrap()
}

/// Until all of these were delivered.
fn time_of(w: &mut World, ids: &[MessageId]) -> Duration {
    let begun = w.now();
    w.run_until(Duration::from_secs(600), |w| {
        ids.iter().all(|id| w.hosts[0].done.contains_key(id))
    })
    .unwrap();
    for id in ids {
        assert!(w.hosts[0].done[id].is_ok(), "{:?}", w.hosts[0].done[id]);
    }
    w.now() - begun
}

fn limit(bucket: u64, rate: u64) -> RateLimit {
    RateLimit::new(bucket, rate).unwrap()
}

#[test]
fn a_limited_node_sends_as_fast_as_it_may_and_no_faster() {
    // 2 MB at 200 kB/s: ten seconds, and what the bucket lets out at once is 0.3 s of it
    for receivers in [1, 2] {
        let mut w = world(1, 3, |config| {
            config.set_segment(16 * 1024).unwrap();
            config.set_rate_limit(Some(limit(64 * 1024, 200_000)));
        });
        w.cluster(2, 2, false);
        let each = 2_000_000 / receivers;
        let ids: Vec<_> = (1..=receivers)
            .map(|to| send(&mut w, to, each, SendOptions::new()))
            .collect();
        let took = time_of(&mut w, &ids).as_secs_f64();
        assert!((9.5..=11.5).contains(&took), "{receivers}: {took} s");
    }
}

#[test]
fn a_node_without_a_limit_is_as_fast_as_its_link() {
    let mut w = world(1, 2, |_| {});
    w.cluster(2, 2, false);
    let id = send(&mut w, 1, 2_000_000, SendOptions::new());
    let took = time_of(&mut w, &[id]).as_secs_f64();
    assert!(took < 1.0, "{took} s");
}

#[test]
fn a_limited_transfer_leaves_the_others_alone() {
    let mut w = world(2, 2, |config| {
        config.set_segment(16 * 1024).unwrap();
    });
    w.cluster(2, 2, false);
    let slow = SendOptions::new().rate_limit(limit(32 * 1024, 100_000));
    let slow = send(&mut w, 1, 1_000_000, slow);
    let begun = w.now();
    let fast = send(&mut w, 1, 1_000_000, SendOptions::new());
    let took = time_of(&mut w, &[fast]).as_secs_f64();
    assert!(took < 1.0, "{took} s");
    time_of(&mut w, &[slow]);
    let took = (w.now() - begun).as_secs_f64();
    assert!((9.2..=10.8).contains(&took), "{took} s");
}

#[test]
fn a_low_rate_takes_small_segments() {
    // 1,000 octets per second: a segment of 4 KiB in 4 s, one of 16 KiB in 16 s
    let slowly = |segment| {
        let mut w = world(3, 2, |config| {
            config.set_segment(segment).unwrap();
            config.set_stall_timeout(Duration::from_secs(10)).unwrap();
        });
        w.cluster(2, 2, false);
        let slow = SendOptions::new().rate_limit(limit(4096, 1_000));
        let id = send(&mut w, 1, 60_000, slow);
        let begun = w.now();
        w.run_until(Duration::from_secs(600), |w| {
            w.hosts[0].done.contains_key(&id)
        })
        .unwrap();
        (w.hosts[0].done[&id].is_ok(), (w.now() - begun).as_secs())
    };
    let (arrived, took) = slowly(4096);
    assert!(arrived && (50..=62).contains(&took), "{took} s");
    let (arrived, took) = slowly(16 * 1024);
    assert!(
        !arrived && took < 30,
        "what stands still is given up: {took} s"
    );
}

#[test]
fn a_higher_priority_gets_more_of_a_path_while_others_want_it() {
    let mut w = world(4, 2, |config| {
        config.set_rate_limit(Some(limit(64 * 1024, 1_000_000)));
    });
    w.cluster(2, 2, false);
    let of = |priority| SendOptions::new().priority(priority);
    let normal = send(&mut w, 1, 6_000_000, of(Priority::Normal));
    let highest = send(&mut w, 1, 6_000_000, of(Priority::Highest));
    // alone it would take 6 s, with half of the path 12
    let took = time_of(&mut w, &[highest]).as_secs_f64();
    assert!((6.0..=9.6).contains(&took), "{took} s");
    assert!(!w.hosts[0].done.contains_key(&normal), "it waits its turn");
    // and is not starved: both took 12 s together
    let rest = time_of(&mut w, &[normal]).as_secs_f64();
    assert!((10.5..=14.0).contains(&(took + rest)), "{took} + {rest} s");
}
