//! Datagrams of sealed sessions: sent once, at most once delivered, bounded on both sides, and
//! counted by congestion control as anything else is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{MS, SEC, World, flow};
use vmdt_rdt::{DatagramError, Event};
use vmdt_testkit::LinkConfig;

/// Datagrams that a host was given.
fn arrived(world: &World, at: usize) -> Vec<Bytes> {
    world.hosts[at]
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Datagram { payload, .. } => Some(payload.clone()),
            _ => None,
        })
        .collect()
}

fn try_send(world: &mut World, payload: Bytes) -> Result<(), DatagramError> {
    let (now, peer) = (world.now(), world.hosts[1].id);
    world.hosts[0].endpoint.send_datagram(now, peer, payload)
}

fn numbered(n: u32, octets: usize) -> Bytes {
    let mut payload = vec![0x6d; octets.max(4)];
    payload[..4].copy_from_slice(&n.to_be_bytes());
    payload.into()
}

#[test]
fn datagrams_arrive_whole_and_once_on_a_clean_path() {
    let mut world = World::sealed_pair(1, &LinkConfig::new().delay(10 * MS));
    world.establish();
    world.run_for(SEC);
    let limit = world.hosts[0]
        .endpoint
        .max_datagram(world.hosts[1].id)
        .unwrap();
    assert_eq!(limit, 1392 - 16);
    let sent: Vec<Bytes> = (0..20)
        .map(|n| numbered(n, if n % 2 == 0 { limit } else { 4 }))
        .collect();
    for payload in &sent {
        try_send(&mut world, payload.clone()).unwrap();
    }
    world.drive(0);
    world.run_for(SEC);
    assert_eq!(arrived(&world, 1), sent);
    let stats = world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
    assert_eq!((stats.datagrams_sent, stats.datagrams_lost), (20, 0));
    assert_eq!((stats.datagrams_queued, stats.bytes_in_flight), (0, 0));
}

#[test]
fn an_open_session_has_no_datagrams() {
    let mut world = World::pair(2, &LinkConfig::new().delay(MS));
    assert_eq!(
        try_send(&mut world, numbered(0, 4)),
        Err(DatagramError::NoSession)
    );
    world.establish();
    assert_eq!(
        try_send(&mut world, numbered(0, 4)),
        Err(DatagramError::NotSealed)
    );
    let peer = world.hosts[1].id;
    assert_eq!(world.hosts[0].endpoint.max_datagram(peer), None);
    assert_eq!(world.hosts[0].endpoint.datagram_room(peer), 0);
    world.carry(0, 1, flow(1), 1000);
}
