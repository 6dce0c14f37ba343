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

use std::collections::BTreeSet;

use bytes::Bytes;
use common::{MS, SEC, World, flow};
use proptest::prelude::*;
use vmdt_rdt::{Config, DatagramError, Event, PathStats, RateLimit};
use vmdt_testkit::LinkConfig;
use vmdt_wire::{FlowId, HEADER_LEN, Header, NodeId, PacketType};

/// Octets of a datagram around its payload.
const FRAMING: usize = HEADER_LEN + 16;

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

fn max(world: &World) -> Option<usize> {
    world.hosts[0].endpoint.max_datagram(world.hosts[1].id)
}

/// What host `at` counts of its session with the other.
fn stats(world: &World, at: usize) -> PathStats {
    let peer = world.hosts[1 - at].id;
    world.hosts[at].endpoint.stats(peer).unwrap()
}

fn room_events(world: &World) -> usize {
    let room = Event::DatagramRoom {
        peer: world.hosts[1].id,
    };
    let events = world.hosts[0].events.iter();
    events.filter(|(_, event)| *event == room).count()
}

fn numbered(n: u32, octets: usize) -> Bytes {
    let mut payload = vec![0x6d; octets.max(4)];
    payload[..4].copy_from_slice(&n.to_be_bytes());
    payload.into()
}

/// Hands `count` datagrams over as there is room for them.
fn feed(world: &mut World, count: u32, octets: usize) {
    let peer = world.hosts[1].id;
    let payloads = (0..count).map(|n| (peer, numbered(n, octets)));
    world.hosts[0].datagrams.extend(payloads);
    world.drive(0);
}

/// A session between two hosts that know each other's address.
fn established(seed: u64, config: Config, link: &LinkConfig) -> World {
    let mut world = World::sealed(seed, vec![config.clone(), config], link);
    world.establish();
    world.run_for(SEC);
    world
}

/// Packets of this kind that host 0 has sent.
fn taped(world: &World, kind: PacketType) -> usize {
    let tape = world.tape.as_ref().unwrap();
    tape.iter()
        .filter(|taped| taped.from == world.hosts[0].address)
        .filter(|taped| common::header_of(&taped.bytes).kind == kind)
        .count()
}

#[test]
fn datagrams_arrive_whole_and_once_on_a_clean_path() {
    let mut world = established(1, Config::default(), &LinkConfig::new().delay(10 * MS));
    let limit = max(&world).unwrap();
    assert_eq!(limit, 1472 - 30 - 16);
    let octets = |n: u32| if n.is_multiple_of(2) { limit } else { 4 };
    let sent: Vec<Bytes> = (0..20).map(|n| numbered(n, octets(n))).collect();
    for payload in &sent {
        try_send(&mut world, payload.clone()).unwrap();
    }
    world.drive(0);
    world.run_for(SEC);
    assert_eq!(arrived(&world, 1), sent);
    let stats = stats(&world, 0);
    assert_eq!((stats.datagrams_sent, stats.datagrams_lost), (20, 0));
    assert_eq!((stats.datagrams_queued, stats.bytes_in_flight), (0, 0));
}

#[test]
fn an_open_session_has_no_datagrams() {
    let mut world = World::pair(2, &LinkConfig::new().delay(MS));
    let refused = try_send(&mut world, numbered(0, 4));
    assert_eq!(refused, Err(DatagramError::NoSession));
    world.establish();
    let refused = try_send(&mut world, numbered(0, 4));
    assert_eq!(refused, Err(DatagramError::NotSealed));
    assert_eq!(max(&world), None);
    let peer = world.hosts[1].id;
    assert_eq!(world.hosts[0].endpoint.datagram_room(peer), 0);

    // One that is forged into it is as any octets that are no packet.
    world.tape = Some(Vec::new());
    world.carry(0, 1, flow(1), 1000);
    let (from, before) = (world.hosts[0].address, world.hosts[1].events.len());
    let tape = world.tape.take().unwrap();
    let data = tape.iter().find(|taped| taped.from == from).unwrap();
    let mut header = Header::parse(&data.bytes).unwrap().header;
    (header.kind, header.flow) = (PacketType::Datagram, FlowId::CONTROL);
    header.packet_number = header.packet_number.wrapping_add(50);
    let mut octets = vec![0; HEADER_LEN];
    header.emit(4, octets.first_chunk_mut().unwrap());
    octets.extend_from_slice(b"evil");
    let crc = crc32fast::hash(&octets);
    octets.extend_from_slice(&crc.to_be_bytes());
    let garbage = world.hosts[1].endpoint.counters().garbage;
    world.inject(from, 1, octets.into());
    assert_eq!(world.hosts[1].endpoint.counters().garbage, garbage + 1);
    assert_eq!(world.hosts[1].events.len(), before);
}

#[test]
fn only_an_established_session_takes_datagrams() {
    let mut world = World::sealed_pair(3, &LinkConfig::new().delay(10 * MS));
    let payload = numbered(0, 4);
    let refused = Err(DatagramError::NoSession);
    assert_eq!(try_send(&mut world, payload.clone()), refused);
    world.connect(0, 1);
    assert_eq!(try_send(&mut world, payload.clone()), refused);
    assert_eq!(max(&world), None);
    world.establish();
    assert_eq!(try_send(&mut world, payload.clone()), Ok(()));
    let (now, peer) = (world.now(), world.hosts[1].id);
    world.hosts[0].endpoint.close(now, peer, 0, "");
    let refused = Err(DatagramError::Closing);
    assert_eq!(try_send(&mut world, payload.clone()), refused);
    assert_eq!(max(&world), None);
    world.drive(0);
    world.run_for(10 * SEC);
    let refused = Err(DatagramError::NoSession);
    assert_eq!(try_send(&mut world, payload), refused);
    assert_eq!(arrived(&world, 1), [] as [Bytes; 0]);
}

#[test]
fn a_datagram_has_one_octet_to_as_many_as_fit() {
    let mut world = established(4, Config::default(), &LinkConfig::new().delay(MS));
    let limit = max(&world).unwrap();
    let mut send = |octets: usize| try_send(&mut world, vec![7; octets].into());
    assert_eq!(send(0), Err(DatagramError::Empty));
    assert_eq!(send(1), Ok(()));
    assert_eq!(send(limit), Ok(()));
    let octets = limit + 1;
    assert_eq!(send(octets), Err(DatagramError::TooLarge { octets, limit }));
    world.drive(0);
    world.run_for(SEC);
    let lengths: Vec<usize> = arrived(&world, 1).iter().map(Bytes::len).collect();
    assert_eq!(lengths, [1, limit]);
}

#[test]
fn the_queue_is_bounded_and_room_is_told_once() {
    let mut config = Config::default();
    config.set_datagram_buffer(8 << 10).unwrap();
    assert!(config.set_datagram_buffer((8 << 10) - 1).is_err());
    assert!(config.set_datagram_backlog((8 << 10) - 1).is_err());
    let mut world = established(5, config, &LinkConfig::new().delay(10 * MS));
    // 8 of 1,024 octets with headers and tag: exactly the bound.
    let payload = numbered(0, 1024 - FRAMING);
    for _ in 0..8 {
        assert_eq!(try_send(&mut world, payload.clone()), Ok(()));
    }
    assert_eq!(stats(&world, 0).datagrams_queued, 8 << 10);
    let full = DatagramError::Full {
        queued: 8 << 10,
        limit: 8 << 10,
    };
    assert_eq!(try_send(&mut world, numbered(0, 4)), Err(full));
    let peer = world.hosts[1].id;
    assert_eq!(world.hosts[0].endpoint.datagram_room(peer), 0);
    assert_eq!(room_events(&world), 0);
    world.drive(0);
    world.run_for(SEC);
    assert_eq!(room_events(&world), 1);
    assert!(world.hosts[0].endpoint.datagram_room(peer) > 0);
    assert_eq!(arrived(&world, 1).len(), 8, "what was refused was not sent");

    // Nobody is told who did not run out of it.
    assert_eq!(try_send(&mut world, payload), Ok(()));
    world.drive(0);
    world.run_for(SEC);
    assert_eq!(room_events(&world), 1);
}

#[test]
fn whoever_hands_over_as_told_keeps_little_waiting_and_the_path_busy() {
    let link = LinkConfig::new().delay(10 * MS).rate(20_000_000, 64 << 10);
    let mut world = established(6, Config::default(), &link);
    feed(&mut world, 20_000, 1000);
    let mut most = [0; 2];
    for step in 0..400 {
        world.run_for(10 * MS);
        let half = &mut most[usize::from(step >= 200)];
        *half = (*half).max(stats(&world, 0).datagrams_queued);
    }
    // What leaves in 2 ms and the one that made it enough; a start paces at up to 2.8 times the
    // rate, a probe for more at 5/4.
    let [start, later] = most.map(|octets| octets as f64 - 1096.0);
    assert!(start <= 5000.0 * 2.9, "{start} octets wait at the start");
    assert!(later <= 5000.0 * 1.3, "{later} octets wait later");
    let octets: usize = arrived(&world, 1).iter().map(|p| p.len() + FRAMING).sum();
    assert!(octets as f64 > 0.9 * 4.0 * 2_500_000.0, "{octets} octets");
}

#[test]
fn a_datagram_is_sent_once_whatever_becomes_of_it() {
    for (seed, loss) in [(7, 0.0), (8, 0.06), (9, 0.3)] {
        let link = LinkConfig::new().delay(20 * MS).loss(loss);
        let mut world = established(seed, Config::default(), &link);
        world.tape = Some(Vec::new());
        feed(&mut world, 2000, 500);
        world.run_for(20 * SEC);
        let came = arrived(&world, 1);
        let distinct: BTreeSet<&Bytes> = came.iter().collect();
        assert_eq!(distinct.len(), came.len(), "one came twice");
        assert_eq!(taped(&world, PacketType::Datagram), 2000);
        let (sent, received) = (stats(&world, 0), stats(&world, 1));
        assert_eq!(sent.datagrams_sent, 2000);
        assert_eq!(received.datagrams_received, came.len() as u64);
        // What is lost leaves the flight: nothing is, once all is settled. A loss that was none
        // is counted too.
        assert_eq!(sent.bytes_in_flight, 0, "{sent:?}");
        let lost = 2000 - came.len() as u64;
        assert!((lost..=lost + sent.packets_spurious).contains(&sent.datagrams_lost));
        assert!(
            sent.datagrams_lost as f64 <= 2000.0 * loss * 1.3 + 40.0,
            "{sent:?}"
        );
        assert_eq!(sent.segments_retransmitted, 0);
    }
}

#[test]
fn what_is_repeated_on_the_way_or_later_is_handed_up_once() {
    let link = LinkConfig::new().delay(10 * MS).reorder(0.3, 30 * MS);
    let mut world = World::sealed_pair(10, &link);
    world.copies = 3;
    world.establish();
    world.tape = Some(Vec::new());
    feed(&mut world, 100, 100);
    world.run_for(5 * SEC);
    assert_eq!(arrived(&world, 1).len(), 100);
    let (from, before) = (world.hosts[0].address, stats(&world, 1).datagrams_received);
    for taped in world.tape.take().unwrap() {
        if taped.from == from {
            world.inject(from, 1, taped.bytes);
        }
    }
    world.run_for(SEC);
    assert_eq!(arrived(&world, 1).len(), 100);
    assert_eq!(stats(&world, 1).datagrams_received, before);
}

#[test]
fn datagrams_and_shares_leave_each_other_room_and_control_goes_first() {
    let link = LinkConfig::new().delay(10 * MS).rate(10_000_000, 64 << 10);
    let mut world = established(11, Config::default(), &link);
    world.send_endless(0, 1, flow(1));
    world.run_for(2 * SEC);
    world.tape = Some(Vec::new());
    feed(&mut world, 50_000, 1376);
    world.run_for(2 * SEC);
    let [datagrams, data] =
        [PacketType::Datagram, PacketType::Data].map(|kind| taped(&world, kind) as f64);
    assert!(
        (2.8..=3.05).contains(&(datagrams / data)),
        "{datagrams} for {data}"
    );
    world.send(0, 1, FlowId::CONTROL, vec![1; 50 * 1376]);
    world.run_for(150 * MS);
    let key = (world.hosts[0].id, FlowId::CONTROL);
    assert_eq!(world.hosts[1].received[&key].len(), 50 * 1376);
}

#[test]
fn more_than_may_wait_for_the_application_is_dropped_and_slows_the_sender_down() {
    let mut config = Config::default();
    config.set_datagram_backlog(20 << 10).unwrap();
    let mut world = established(12, config, &LinkConfig::new().delay(10 * MS));
    feed(&mut world, 200, 1376);
    world.run_for(5 * SEC);
    world.hosts[1].events.clear();
    let before = stats(&world, 1).datagrams_received;
    assert_eq!(before, 200);
    world.tape = Some(Vec::new());
    feed(&mut world, 25, 1376);
    // A copy of the receiver that nobody polls: what was taken goes to the endpoint only.
    world.run_until(5 * MS, |_| false);
    let tape = world.tape.take().unwrap();
    let (now, from) = (world.now(), world.hosts[0].address);
    let peer = world.hosts[0].id;
    let endpoint = &mut world.hosts[1].endpoint;
    for _ in 0..2 {
        for taped in &tape {
            endpoint.handle_datagram(now, from, taped.bytes.clone());
        }
    }
    let count = |endpoint: &vmdt_rdt::Endpoint| {
        let stats = endpoint.stats(peer).unwrap();
        let received = stats.datagrams_received - before;
        (received, stats.datagrams_refused)
    };
    let (received, refused) = count(endpoint);
    assert_eq!(received, (20 << 10) / 1472, "as many as fit");
    assert_eq!(received + refused, tape.len() as u64);
    assert!(refused > 0);
    // Events that wait do not keep flows from opening, and room comes back as they are polled.
    world.drive(1);
    world.run_for(SEC);
    assert_eq!(arrived(&world, 1).len() as u64, received);
    assert_eq!(stats(&world, 0).datagrams_lost, refused);
    feed(&mut world, 5, 1376);
    world.run_for(SEC);
    assert_eq!(arrived(&world, 1).len() as u64, received + 5);
    world.carry(0, 1, flow(1), 10_000);
}

#[test]
fn the_limit_of_a_session_holds_datagrams_too() {
    let mut world = established(13, Config::default(), &LinkConfig::new().delay(10 * MS));
    let (now, peer) = (world.now(), world.hosts[1].id);
    let limit = RateLimit::new(10_000, 100_000).unwrap();
    let endpoint = &mut world.hosts[0].endpoint;
    endpoint.set_session_limit(now, peer, Some(limit)).unwrap();
    feed(&mut world, 2000, 1000);
    world.run_for(5 * SEC);
    let octets = stats(&world, 0).datagrams_sent * (1000 + 10 + 16);
    assert!((480_000..=520_000).contains(&octets), "{octets}");
}

#[test]
fn what_a_shrunken_path_no_longer_carries_is_dropped_and_counted() {
    let mut config = Config::default();
    config.set_mtu_discovery(1200, 1472).unwrap();
    let link = LinkConfig::new()
        .delay(10 * MS)
        .rate(5_000_000, 256 << 10)
        .mtu(1552);
    let mut world = established(14, config, &link);
    feed(&mut world, 300, 1000);
    world.run_for(3 * SEC);
    let large = max(&world).unwrap();
    assert_eq!(large, 1552 - 30 - 16);
    assert_eq!(stats(&world, 0).datagrams_outgrown, 0);
    world.hosts[1].events.clear();
    let payloads = || (0..40).map(|n| numbered(n, large));
    for payload in payloads() {
        try_send(&mut world, payload).unwrap();
    }
    world.set_link(&link.mtu(1300));
    world.drive(0);
    // Small ones between them show that the path works otherwise.
    for n in 100..200 {
        world.run_for(20 * MS);
        let _ = try_send(&mut world, numbered(n, 100));
        if stats(&world, 0).datagrams_queued == 0 && max(&world) == Some(large) {
            let _ = try_send(&mut world, numbered(99, large));
        }
        world.drive(0);
    }
    let stats = stats(&world, 0);
    assert_eq!(stats.black_holes, 1);
    assert!(max(&world).unwrap() <= 1300 - 30 - 16);
    let largest = arrived(&world, 1).iter().map(Bytes::len).max();
    assert_eq!(largest, Some(100), "and the session goes on");
    assert_eq!(world.hosts[0].closed(), []);
}

#[test]
fn a_session_that_only_carries_datagrams_notices_a_dead_peer() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut world = established(15, Config::default(), &link);
    world.set_link(&link.loss(1.0));
    feed(&mut world, 5, 100);
    world.run_for(7 * SEC);
    assert_eq!(
        world.hosts[0].closed(),
        [vmdt_rdt::CloseReason::Unresponsive]
    );
    let nobody: NodeId = world.hosts[1].id;
    assert_eq!(world.hosts[0].endpoint.max_datagram(nobody), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// On any path: what arrives was sent, no more than once, and what is sent is settled.
    #[test]
    fn any_path_delivers_a_part_of_what_was_sent(
        seed in 0u64..1 << 32,
        loss in 0.0..0.3f64,
        lengths in prop::collection::vec(1usize..=1376, 1..200),
        jitter in 0u32..40,
        shares in any::<bool>(),
    ) {
        let link = LinkConfig::new()
            .delay(20 * MS)
            .jitter(MS * jitter)
            .loss(loss)
            .duplicate(0.05)
            .corrupt(0.01)
            .rate(10_000_000, 64 << 10);
        let mut config = Config::default();
        config.set_connect_timeout(60 * SEC).unwrap();
        let mut world = World::sealed(seed, vec![config.clone(), config], &link);
        world.establish();
        let sent: Vec<Bytes> = lengths
            .iter()
            .enumerate()
            .map(|(n, octets)| {
                let mut payload = n.to_be_bytes().to_vec();
                payload.resize(payload.len().max(*octets), 0x7a);
                Bytes::from(payload)
            })
            .collect();
        let peer = world.hosts[1].id;
        world.hosts[0].datagrams.extend(sent.iter().map(|payload| (peer, payload.clone())));
        if shares {
            world.carry(0, 1, flow(1), 50_000);
        }
        world.drive(0);
        world.run_for(20 * SEC);
        let came = arrived(&world, 1);
        let distinct: BTreeSet<&Bytes> = came.iter().collect();
        prop_assert_eq!(distinct.len(), came.len());
        let known: BTreeSet<&Bytes> = sent.iter().collect();
        prop_assert!(distinct.is_subset(&known));
        let counted = stats(&world, 0);
        prop_assert_eq!(counted.datagrams_sent, sent.len() as u64);
        prop_assert_eq!((counted.bytes_in_flight, counted.datagrams_queued), (0, 0));
        prop_assert!(came.len() as u64 + counted.datagrams_lost >= sent.len() as u64);
    }
}
