//! Flows: windows, resets, stops, bounds and what an application may rely on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::num::NonZeroU16;

use bytes::Bytes;
use common::{MS, SEC, World, flow};
use vmdt_rdt::{Config, Event, Integrity, WriteError};
use vmdt_testkit::{LinkConfig, SimRng};
use vmdt_wire::segment::{Hole, Nak};
use vmdt_wire::{Flags, FlowId, Header, Packet, PacketType, Seq};

fn quiet() -> LinkConfig {
    LinkConfig::new().delay(10 * MS)
}

fn opened(config: &Config, link: &LinkConfig) -> World {
    let mut world = World::new(1, vec![config.clone(), config.clone()], link);
    world.establish();
    world
}

#[test]
fn a_reader_that_does_not_read_stops_the_sender_at_the_flow_window() {
    let mut config = Config::default();
    config.set_flow_window(64 << 10).unwrap();
    let mut world = opened(&config, &quiet());
    world.hosts[1].reads = false;
    let data = SimRng::from_seed(1).bytes(500_000);
    world.send(0, 1, flow(1), data.clone());
    world.run_for(60 * SEC);
    let [a, b] = [world.hosts[0].id, world.hosts[1].id];
    let held = world.hosts[1].endpoint.stats(a).unwrap().held;
    assert!(held <= 64 << 10 && held > 60 << 10, "{held}");
    assert!(
        world.hosts[0].closed().is_empty(),
        "window 0 for a minute is no reason to end"
    );
    let probes = world.hosts[0].endpoint.stats(b).unwrap().packets_sent;
    assert!(probes < 150, "{probes}: the wait between probes grows");
    world.hosts[1].reads = true;
    let now = world.now();
    world.hosts[1].read_all(now, a, flow(1));
    world.drive(1);
    assert!(world.run_until(10 * SEC, |world| world.hosts[0].delivered.len() == 1));
    assert!(world.hosts[1].received[&(a, flow(1))] == data);
}

#[test]
fn a_lost_window_update_is_made_good_by_a_probe() {
    let mut config = Config::default();
    config.set_flow_window(64 << 10).unwrap();
    let mut world = opened(&config, &quiet());
    world.hosts[1].reads = false;
    world.send(0, 1, flow(1), vec![5; 300_000]);
    world.run_for(2 * SEC);
    let a = world.hosts[0].id;
    world.set_link(&quiet().loss(1.0));
    world.hosts[1].reads = true;
    let now = world.now();
    world.hosts[1].read_all(now, a, flow(1));
    world.drive(1);
    world.set_link(&quiet());
    assert!(world.run_until(20 * SEC, |world| world.hosts[0].delivered.len() == 1));
}

#[test]
fn the_session_window_bounds_all_flows_together_but_not_the_control_flow() {
    let mut config = Config::default();
    config.set_session_window(100 << 10).unwrap();
    let mut world = opened(&config, &quiet());
    world.hosts[1].reads = false;
    for n in 1..=10 {
        world.send(0, 1, flow(n), vec![n as u8; 50_000]);
    }
    world.run_for(20 * SEC);
    let a = world.hosts[0].id;
    let held = world.hosts[1].endpoint.stats(a).unwrap().held;
    assert!(held <= 100 << 10 && held > 90 << 10, "{held}");
    world.hosts[1].reads = true;
    world.send(0, 1, FlowId::CONTROL, b"urgent".to_vec());
    let key = (a, FlowId::CONTROL);
    assert!(world.run_until(SEC, |world| world.hosts[1].received.contains_key(&key)));
    let now = world.now();
    for n in 1..=10 {
        world.hosts[1].read_all(now, a, flow(n));
    }
    world.drive(1);
    assert!(world.run_until(20 * SEC, |world| world.hosts[0].delivered.len() == 10));
}

#[test]
fn blocked_writes_are_told_when_half_is_free() {
    let mut config = Config::default();
    config.set_send_buffer(64 << 10).unwrap();
    let mut world = opened(&config, &quiet().rate(10_000_000, 64 << 10));
    let (now, b) = (world.now(), world.hosts[1].id);
    let endpoint = &mut world.hosts[0].endpoint;
    let piece = Bytes::from(vec![0; 40_000]);
    assert_eq!(endpoint.write(now, b, flow(1), piece.clone()), Ok(()));
    let blocked = WriteError::Blocked {
        queued: 40_000,
        limit: 64 << 10,
    };
    assert_eq!(endpoint.write(now, b, flow(1), piece.clone()), Err(blocked));
    assert_eq!(
        endpoint.write(now, b, FlowId::CONTROL, piece.clone()),
        Ok(())
    );
    world.drive(0);
    assert!(world.run_until(SEC, |world| {
        world.hosts[0].has(&Event::Writable { peer: b })
    }));
    let queued = world.hosts[0].endpoint.stats(b).unwrap().queued;
    assert!(queued <= 32 << 10);
    let now = world.now();
    assert_eq!(
        world.hosts[0]
            .endpoint
            .write(now, b, flow(1), piece.slice(..30_000)),
        Ok(())
    );
}

#[test]
fn small_writes_on_the_control_flow_share_datagrams() {
    let mut world = opened(&Config::default(), &quiet());
    let (now, b) = (world.now(), world.hosts[1].id);
    let before = world.hosts[0].endpoint.stats(b).unwrap().packets_sent;
    for n in 0..100u8 {
        let line = Bytes::from(vec![n; 50]);
        world.hosts[0]
            .endpoint
            .write(now, b, FlowId::CONTROL, line)
            .unwrap();
    }
    world.drive(0);
    world.run_for(SEC);
    let a = world.hosts[0].id;
    assert_eq!(world.hosts[1].received[&(a, FlowId::CONTROL)].len(), 5_000);
    let sent = world.hosts[0].endpoint.stats(b).unwrap().packets_sent - before;
    assert!(sent <= 6, "{sent} datagrams for 5,000 octets");
}

#[test]
fn a_reset_tells_the_receiver_and_the_id_can_be_used_again_once_it_is_known() {
    for loss in [0.0, 0.3] {
        let mut world = opened(
            &Config::default(),
            &quiet().loss(loss).rate(20_000_000, 64 << 10),
        );
        let [a, b] = [world.hosts[0].id, world.hosts[1].id];
        world.send(0, 1, flow(1), vec![1; 3_000_000]);
        world.run_for(200 * MS);
        let now = world.now();
        world.hosts[0].endpoint.reset(now, b, flow(1), 9);
        let refused = world.hosts[0].endpoint.finish(now, b, flow(1));
        assert_eq!(refused, Err(WriteError::FlowEnded));
        world.drive(0);
        world.run_for(10 * SEC);
        let reset = Event::FlowReset {
            peer: a,
            flow: flow(1),
            code: 9,
        };
        assert!(world.hosts[1].has(&reset));
        assert!(world.hosts[1].finished.is_empty());
        assert_eq!(world.hosts[1].endpoint.stats(a).unwrap().held, 0);
        world.hosts[1].received.clear();
        world.send(0, 1, flow(1), b"another".to_vec());
        assert!(world.run_until(20 * SEC, |world| world.hosts[0].delivered.len() == 1));
        assert_eq!(world.hosts[1].received[&(a, flow(1))], b"another");
    }
}

#[test]
fn a_stop_tells_the_sender_and_frees_both_ends() {
    let mut world = opened(&Config::default(), &quiet().loss(0.1));
    let [a, b] = [world.hosts[0].id, world.hosts[1].id];
    world.hosts[1].reads = false;
    world.send(0, 1, flow(1), vec![1; 3_000_000]);
    world.run_for(SEC);
    let now = world.now();
    world.hosts[1].endpoint.stop(now, a, flow(1), 3);
    world.drive(1);
    world.run_for(10 * SEC);
    let stopped = Event::FlowStopped {
        peer: b,
        flow: flow(1),
        code: 3,
    };
    assert!(world.hosts[0].has(&stopped));
    assert_eq!(world.hosts[0].endpoint.stats(b).unwrap().queued, 0);
    assert_eq!(world.hosts[0].endpoint.stats(b).unwrap().send_flows, 0);
    assert_eq!(world.hosts[1].endpoint.stats(a).unwrap().held, 0);
    assert_eq!(world.hosts[1].endpoint.stats(a).unwrap().recv_flows, 0);
}

#[test]
fn a_delivered_flow_is_not_written_again() {
    let mut world = opened(&Config::default(), &quiet());
    world.send(0, 1, flow(1), b"once".to_vec());
    world.run_for(SEC);
    let (now, b) = (world.now(), world.hosts[1].id);
    let again = world.hosts[0]
        .endpoint
        .write(now, b, flow(1), Bytes::from_static(b"twice"));
    assert_eq!(again, Err(WriteError::FlowEnded));
}

#[test]
fn more_flows_than_the_receiver_holds_all_arrive() {
    let mut config = Config::default();
    config
        .set_max_active_flows(20)
        .unwrap()
        .set_max_recv_flows(40)
        .unwrap();
    let mut world = opened(&config, &quiet().loss(0.02));
    for n in 1..=500 {
        world.send(0, 1, flow(n), vec![n as u8; 3_000]);
    }
    assert!(world.run_until(60 * SEC, |world| world.hosts[0].delivered.len() == 500));
    let b = world.hosts[1].id;
    let refused = world.hosts[1]
        .endpoint
        .stats(world.hosts[0].id)
        .unwrap()
        .refused;
    assert_eq!(refused, 0);
    assert_eq!(world.hosts[0].endpoint.stats(b).unwrap().send_flows, 0);
}

#[test]
fn outgoing_flows_are_bounded() {
    let mut config = Config::default();
    config.set_max_send_flows(10).unwrap();
    let mut world = opened(&config, &quiet());
    let (now, b) = (world.now(), world.hosts[1].id);
    for n in 1..=10 {
        world.hosts[0]
            .endpoint
            .write(now, b, flow(n), Bytes::from_static(b"x"))
            .unwrap();
    }
    let refused = world.hosts[0]
        .endpoint
        .write(now, b, flow(11), Bytes::from_static(b"x"));
    assert_eq!(refused, Err(WriteError::TooManyFlows { limit: 10 }));
    let control = world.hosts[0]
        .endpoint
        .write(now, b, FlowId::CONTROL, Bytes::from_static(b"x"));
    assert_eq!(control, Ok(()));
}

/// Two hosts without CRC, and a header with which `a`'s datagrams to `b` can be forged.
fn forgery(mut config: Config) -> (World, Header) {
    config.set_integrity(Integrity::Off);
    let mut world = opened(&config, &quiet());
    world.run_for(SEC);
    let (now, b) = (world.now(), world.hosts[1].id);
    world.hosts[0]
        .endpoint
        .write(now, b, flow(9_999), Bytes::from_static(b"x"))
        .unwrap();
    let mut datagram = Vec::new();
    assert!(
        world.hosts[0]
            .endpoint
            .poll_transmit(now, &mut datagram)
            .is_some()
    );
    let mut header = Header::parse(&datagram).unwrap().header;
    header.flags = Flags::NONE;
    (world, header)
}

fn forge(world: &mut World, header: &mut Header, kind: PacketType, payload: &[u8]) {
    header.kind = kind;
    header.packet_number = header.packet_number.wrapping_add(1);
    let mut out = Vec::new();
    Packet::new(*header, Bytes::copy_from_slice(payload)).emit_into(&mut out);
    let from = world.hosts[0].address;
    world.inject(from, 1, Bytes::from(out));
}

#[test]
fn a_flood_of_new_flows_is_bounded_and_not_acknowledged() {
    let mut config = Config::default();
    config.set_max_recv_flows(100).unwrap();
    let (mut world, mut header) = forgery(config);
    world.hosts[1].reads = false;
    for n in 0..5_000 {
        header.flow = flow(n);
        forge(&mut world, &mut header, PacketType::Data, b"octets");
    }
    let stats = world.hosts[1].endpoint.stats(world.hosts[0].id).unwrap();
    assert_eq!(stats.recv_flows, 100);
    assert_eq!(stats.refused, 4_900);
    assert_eq!(stats.held, 600);
}

#[test]
fn data_beyond_the_windows_is_dropped() {
    let mut config = Config::default();
    config
        .set_flow_window(16 << 10)
        .unwrap()
        .set_session_window(40 << 10)
        .unwrap();
    let (mut world, mut header) = forgery(config);
    world.hosts[1].reads = false;
    for n in 1..=5 {
        header.flow = flow(n);
        for seq in 0..100 {
            header.seq = Seq(seq);
            forge(&mut world, &mut header, PacketType::Data, &[0; 1000]);
        }
    }
    let stats = world.hosts[1].endpoint.stats(world.hosts[0].id).unwrap();
    assert_eq!(stats.held, 40_000);
    assert_eq!(stats.refused, 500 - 40);
}

#[test]
fn segments_out_of_order_are_bounded_in_number_too() {
    let (mut world, mut header) = forgery(Config::default());
    header.flow = flow(1);
    for round in 0..10u16 {
        for n in 0..6_000u16 {
            header.flow = flow(1 + round);
            header.seq = Seq(n * 2 + 1);
            forge(&mut world, &mut header, PacketType::Data, b"");
        }
    }
    let stats = world.hosts[1].endpoint.stats(world.hosts[0].id).unwrap();
    // 8 MiB / 256 octets a segment.
    assert_eq!(stats.refused, 60_000 - 32_768);
}

#[test]
fn contradicting_ends_are_refused() {
    let (mut world, mut header) = forgery(Config::default());
    let a = world.hosts[0].id;
    header.flow = flow(1);
    header.seq = Seq(5);
    header.flags = Flags::FINAL;
    forge(&mut world, &mut header, PacketType::Data, b"end");
    header.seq = Seq(3);
    forge(&mut world, &mut header, PacketType::Data, b"another end");
    header.flags = Flags::NONE;
    header.seq = Seq(6);
    forge(&mut world, &mut header, PacketType::Data, b"after the end");
    assert_eq!(world.hosts[1].endpoint.stats(a).unwrap().refused, 2);
    for seq in 0..5 {
        header.seq = Seq(seq);
        forge(&mut world, &mut header, PacketType::Data, b".");
    }
    assert_eq!(world.hosts[1].received[&(a, flow(1))], b".....end");
    assert_eq!(world.hosts[1].finished.len(), 1);
    // A late copy, even under a new packet number, is not delivered again.
    header.seq = Seq(0);
    forge(&mut world, &mut header, PacketType::Data, b".");
    assert_eq!(world.hosts[1].received[&(a, flow(1))], b".....end");
}

#[test]
fn a_flood_of_naks_causes_no_flood_of_retransmissions() {
    let mut config = Config::default();
    config.set_integrity(Integrity::Off);
    let mut world = opened(&config, &LinkConfig::new().delay(50 * MS));
    world.run_for(SEC);
    let [a, b] = [world.hosts[0].id, world.hosts[1].id];
    let from = world.hosts[1].address;
    world.send(0, 1, flow(1), vec![3; 1_000_000]);
    let now = world.now();
    world.hosts[1]
        .endpoint
        .write(now, a, flow(2), Bytes::from_static(b"x"))
        .unwrap();
    let mut datagram = Vec::new();
    assert!(
        world.hosts[1]
            .endpoint
            .poll_transmit(now, &mut datagram)
            .is_some()
    );
    let mut header = Header::parse(&datagram).unwrap().header;
    header.kind = PacketType::Nak;
    header.flow = flow(1);
    header.flags = Flags::NONE;
    let count = NonZeroU16::new(u16::MAX).unwrap();
    let holes = vec![
        Hole {
            first: Seq(0),
            count
        };
        64
    ];
    let mut payload = Vec::new();
    Nak::new(holes).unwrap().emit_into(&mut payload);
    for _ in 0..1_000 {
        header.packet_number = header.packet_number.wrapping_add(1);
        let mut out = Vec::new();
        Packet::new(header, Bytes::copy_from_slice(&payload)).emit_into(&mut out);
        world.inject(from, 0, Bytes::from(out));
    }
    let stats = world.hosts[0].endpoint.stats(b).unwrap();
    assert_eq!(stats.naks_received, 1_000);
    assert_eq!(
        stats.segments_retransmitted, 0,
        "none is older than a round trip"
    );
}

#[test]
fn a_hole_that_stands_is_named() {
    let (mut world, mut header) = forgery(Config::default());
    header.flow = flow(1);
    header.seq = Seq(3);
    forge(&mut world, &mut header, PacketType::Data, b"early");
    world.run_for(20 * MS);
    let a = world.hosts[0].id;
    assert_eq!(world.hosts[1].endpoint.stats(a).unwrap().naks_sent, 0);
    world.run_for(5 * SEC);
    let stats = world.hosts[1].endpoint.stats(a).unwrap();
    assert!((1..=10).contains(&stats.naks_sent), "{}", stats.naks_sent);
}
