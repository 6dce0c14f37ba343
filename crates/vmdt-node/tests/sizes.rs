//! Datagrams are as large as the path carries, and no larger; segments follow the rate.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::time::Duration;

use common::{Received, World};
use vmdt_testkit::LinkConfig;

/// A world of three whose links carry datagrams of so many octets, in which 4 MiB went from 0 to 1.
fn carried(mtu: usize, rate: u64, sealed: bool) -> World {
    carried_all(mtu, rate, sealed, 4)
}

/// The same of so many MiB.
fn carried_all(mtu: usize, rate: u64, sealed: bool, mebibytes: u32) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(5))
        .rate(rate, 1 << 20)
        .mtu(mtu);
    let mut w = World::of(sealed, 1, 3, link, |_| {});
    w.cluster(3, 2, false);
    w.recorded = Some(Vec::new());
    let content: Vec<u8> = (0..mebibytes << 20).map(|i| (i % 251) as u8).collect();
    let id = w.send(0, 1, None, content.clone().into()).unwrap();
    w.run_until(Duration::from_secs(60), |w| {
        w.hosts[0].done.contains_key(&id)
    })
    .unwrap();
    assert!(w.hosts[0].done[&id].is_ok(), "{:?}", w.hosts[0].done[&id]);
    let came = |one: &Received| matches!(one, Received::Message { data, .. } if **data == content);
    assert!(w.hosts[1].received.iter().any(came));
    w
}

fn payload(w: &World) -> usize {
    let to = w.id(1);
    w.hosts[0].core.path_stats(to).unwrap().max_payload
}

#[test]
fn a_link_narrower_than_ethernet_carries_messages() {
    // IPv6's least, a VPN, PPPoE; with what IPv4 and UDP take
    for (mtu, least) in [(1_232, 1_232), (1_392, 1_376), (1_464, 1_448)] {
        let w = carried(mtu, 50_000_000, true);
        let datagram = payload(&w) + 30 + 16;
        assert!(
            (least..=mtu).contains(&datagram),
            "{datagram} octets over a path of {mtu}"
        );
    }
}

#[test]
fn ethernet_jumbo_frames_and_loopback_are_used_to_the_full() {
    for (mtu, datagram) in [
        (1_472, 1_472),
        (1_500, 1_472),
        (8_972, 8_848),
        (65_507, 16_376),
    ] {
        let w = carried(mtu, 200_000_000, true);
        assert_eq!(payload(&w) + 30 + 16, datagram, "over a path of {mtu}");
    }
}

#[test]
fn the_open_profile_sends_what_it_always_did() {
    let w = carried(65_507, 50_000_000, false);
    let recorded = w.recorded.as_ref().unwrap();
    let longest = recorded.iter().map(|(_, _, octets)| octets.len()).max();
    assert_eq!(longest, Some(1_472));
}

#[test]
fn nothing_but_a_probe_is_larger_than_the_path_carries() {
    let w = carried(1_472, 50_000_000, true);
    let recorded = w.recorded.as_ref().unwrap();
    let larger = recorded
        .iter()
        .filter(|(_, _, octets)| octets.len() > 1_472);
    // of each of the sessions that carried enough three, of one size
    let larger: Vec<usize> = larger.map(|(_, _, octets)| octets.len()).collect();
    assert!(!larger.is_empty() && larger.len() <= 3 * 6, "{larger:?}");
    // the path through the server is one of its own
    assert!(larger.iter().all(|len| *len > 8_000), "{larger:?}");
}

#[test]
fn segments_grow_on_fast_paths_only() {
    for (rate, segments) in [(10_000_000, 128..=128), (1_000_000_000, 40..=64)] {
        let w = carried_all(1_472, rate, true, 16);
        let receipt = w.hosts[0].done.values().next().unwrap().as_ref().unwrap();
        let shares: u64 = receipt.paths.values().map(|carried| carried.shares).sum();
        // of each segment two shares leave; those at the end are small in any case
        assert!(segments.contains(&(shares / 2)), "{rate}: {shares} shares");
    }
}
