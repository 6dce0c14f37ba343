//! A file that is larger than the window is left at holders whole, as far as they have room, by a
//! sender that then goes away.
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
use common::{Received, World};
use vmdt_node::core::CoreConfig;
use vmdt_node::{Event, MessageId};
use vmdt_testkit::LinkConfig;

const SENDER: usize = 0;
const RECEIVER: usize = 1;
const MIB: usize = 1024 * 1024;

/// Six nodes on links of 200 Mbit/s, any 2 of 3 shares.
fn six(seed: u64, tune: impl Fn(&mut CoreConfig)) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(5))
        .rate(200_000_000, 1024 * 1024);
    let mut w = World::durable(seed, 6, link, |_| true, tune);
    w.cluster(3, 2, false);
    w.kill(RECEIVER);
    w.run_for(Duration::from_secs(5));
    w
}

fn content(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn files(w: &World, id: MessageId) -> Vec<&Bytes> {
    let of = |r: &'_ Received| matches!(r, Received::File { id: of, .. } if *of == id);
    let received = w.hosts[RECEIVER].received.iter().filter(|r| of(r));
    received
        .map(|r| match r {
            Received::File { content, .. } => content,
            Received::Message { data, .. } => data,
        })
        .collect()
}

fn deposited(w: &World, id: MessageId) -> bool {
    let mut events = w.hosts[SENDER].events.iter();
    events.any(|e| matches!(e, Event::Deposited { id: of, .. } if *of == id))
}

fn held(w: &World) -> usize {
    let held = w.hosts.iter().filter(|host| host.alive);
    held.map(|host| host.core.pool_usage().octets as usize)
        .sum()
}

#[test]
fn sixteen_mebibytes_wait_for_a_receiver_and_reach_it_without_their_sender() {
    let mut w = six(1, |_| ());
    let data = content(16 * MIB);
    let id = w.send(SENDER, RECEIVER, Some("f"), data.clone()).unwrap();
    w.run_until(Duration::from_secs(120), |w| deposited(w, id))
        .unwrap();
    assert!(held(&w) > 16 * MIB * 3 / 2, "n / k of it");
    w.kill(SENDER);
    w.run_for(Duration::from_secs(7200));
    w.kill(2);
    w.restart(2);
    w.restart(RECEIVER);
    w.run_until(Duration::from_secs(300), |w| !files(w, id).is_empty())
        .unwrap();
    assert_eq!(files(&w, id), [&data]);
    w.check_privacy(2, &[SENDER, RECEIVER]).unwrap();
    w.restart(SENDER);
    w.run_until(Duration::from_secs(120), |w| {
        w.hosts[SENDER].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[SENDER].done[&id].as_ref().unwrap();
    w.run_for(Duration::from_secs(60));
    assert_eq!(files(&w, id), [&data], "once");
    assert_eq!(held(&w), 0);
}

#[test]
fn a_sender_that_stays_goes_on_with_what_is_left_when_the_receiver_comes() {
    let mut w = six(2, |_| ());
    let data = content(12 * MIB);
    let id = w.send(SENDER, RECEIVER, Some("f"), data.clone()).unwrap();
    // in the middle of it
    w.run_until(Duration::from_secs(60), |w| held(w) > 9 * MIB)
        .unwrap();
    assert!(!deposited(&w, id));
    w.restart(RECEIVER);
    w.run_until(Duration::from_secs(300), |w| {
        w.hosts[SENDER].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[SENDER].done[&id].as_ref().unwrap();
    assert_eq!(files(&w, id), [&data]);
    w.run_for(Duration::from_secs(60));
    assert_eq!(held(&w), 0);
}

#[test]
fn a_deposit_ends_where_its_holders_have_no_room_and_goes_on_with_its_sender() {
    let mut w = six(3, |config| {
        // half of it for one sender
        config.set_pool_octets(4 * MIB).unwrap();
    });
    let data = content(8 * MIB);
    let id = w.send(SENDER, RECEIVER, Some("f"), data.clone()).unwrap();
    w.run_for(Duration::from_secs(120));
    assert!(!deposited(&w, id), "there is no room for all of it");
    let full = held(&w);
    assert!(full > 5 * MIB && full <= 4 * 2 * MIB + MIB, "{full}");
    w.kill(SENDER);
    w.restart(RECEIVER);
    w.run_for(Duration::from_secs(60));
    assert!(
        files(&w, id).is_empty(),
        "what is missing only its sender has"
    );
    w.restart(SENDER);
    w.run_until(Duration::from_secs(300), |w| {
        w.hosts[SENDER].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[SENDER].done[&id].as_ref().unwrap();
    assert_eq!(files(&w, id), [&data]);
}
