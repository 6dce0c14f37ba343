//! How sessions begin, end, move and survive: handshake, restart, silence, garbage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::net::SocketAddr;
use std::num::NonZeroU32;

use bytes::Bytes;
use common::{MS, SEC, World, flow};
use vmdt_rdt::{CloseReason, Config, Event, Integrity, SessionState, WriteError};
use vmdt_testkit::{LinkConfig, SimRng};
use vmdt_wire::segment::{Ack, AckBlock, Fin, Syn, SynKind};
use vmdt_wire::{FlowId, Header, NodeId, Packet, PacketType};

fn quiet() -> LinkConfig {
    LinkConfig::new().delay(10 * MS)
}

fn dead() -> LinkConfig {
    LinkConfig::new().delay(10 * MS).loss(1.0)
}

/// Configuration for tests that forge datagrams: no CRC to compute.
fn plain() -> Config {
    let mut config = Config::default();
    config.set_integrity(Integrity::Off);
    config
}

fn emit(header: Header, payload: &[u8]) -> Bytes {
    let mut out = Vec::new();
    Packet::new(header, Bytes::copy_from_slice(payload)).emit_into(&mut out);
    Bytes::from(out)
}

fn offer(from: NodeId, to: NodeId, session: u32) -> Bytes {
    let syn = Syn {
        kind: SynKind::Offer,
        max_payload: 1392,
        session: NonZeroU32::new(session).unwrap(),
        session_window: 1 << 20,
        flow_window: 1 << 20,
        idle_timeout_ms: 30_000,
        features: 0,
    };
    let mut payload = Vec::new();
    syn.emit_into(&mut payload);
    emit(
        Header::new(PacketType::Syn, from, to, FlowId::CONTROL),
        &payload,
    )
}

#[test]
fn a_session_opens_in_one_round_trip_and_carries_what_was_written_before() {
    let mut world = World::pair(1, &quiet());
    world.send(0, 1, FlowId::CONTROL, vec![]);
    assert_eq!(world.hosts[0].endpoint.state(world.hosts[1].id), None);
    world.connect(0, 1);
    world.send(0, 1, FlowId::CONTROL, b"early".to_vec());
    assert_eq!(
        world.hosts[0].endpoint.state(world.hosts[1].id),
        Some(SessionState::Connecting)
    );
    let key = (world.hosts[0].id, FlowId::CONTROL);
    assert!(world.run_until(31 * MS, |world| world.hosts[1].received.contains_key(&key)));
    assert_eq!(world.hosts[1].received[&key], b"early");
    assert_eq!(world.hosts[0].connected() + world.hosts[1].connected(), 2);
    let stats = world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
    assert_eq!(
        stats.min_rtt,
        20 * MS,
        "the handshake is a round-trip sample"
    );
}

#[test]
fn writing_without_a_session_is_refused() {
    let mut world = World::pair(1, &quiet());
    let now = world.now();
    let (peer, address) = (world.hosts[1].id, world.hosts[1].address);
    let endpoint = &mut world.hosts[0].endpoint;
    let refused = endpoint.write(now, peer, flow(1), Bytes::from_static(b"x"));
    assert_eq!(refused, Err(WriteError::NoSession));
    assert_eq!(
        endpoint.finish(now, peer, flow(1)),
        Err(WriteError::NoSession)
    );
    endpoint.connect(now, peer, address);
    assert_eq!(
        endpoint.finish(now, peer, FlowId::CONTROL),
        Err(WriteError::ControlFlow)
    );
    assert_eq!(endpoint.finish(now, peer, flow(1)), Ok(()));
    let refused = endpoint.write(now, peer, flow(1), Bytes::from_static(b"x"));
    assert_eq!(refused, Err(WriteError::FlowEnded));
}

#[test]
fn an_unanswered_offer_is_repeated_with_backoff_and_then_fails() {
    let mut world = World::pair(1, &dead());
    world.connect(0, 1);
    world.run_for(10 * SEC);
    // at 0, 50, 250, 650 and 1450 ms; after 3000 ms the attempt is over
    assert_eq!(world.datagrams, 5);
    let failed = Event::ConnectFailed {
        peer: world.hosts[1].id,
        address: world.hosts[1].address,
    };
    assert_eq!(world.hosts[0].events, [(3 * SEC, failed)]);
    assert_eq!(world.hosts[0].endpoint.state(world.hosts[1].id), None);
    assert_eq!(world.hosts[0].endpoint.poll_timeout(), None);
}

#[test]
fn lost_offers_accepts_and_confirmations_are_made_good() {
    for seed in 0..200 {
        let link = LinkConfig::new().delay(10 * MS).loss(0.4);
        let mut world = World::pair(seed, &link);
        world.connect(0, 1);
        world.send(0, 1, FlowId::CONTROL, b"hello".to_vec());
        let key = (world.hosts[0].id, FlowId::CONTROL);
        let arrived = world.run_until(30 * SEC, |world| world.hosts[1].received.contains_key(&key));
        let failed = world.hosts[0].connected() == 0;
        assert!(
            arrived || failed,
            "seed {seed}: {:?}",
            world.hosts[0].events
        );
    }
}

#[test]
fn simultaneous_open_is_one_session_on_both_sides() {
    for seed in 0..100 {
        let link = LinkConfig::new()
            .delay(10 * MS)
            .loss(if seed % 2 == 0 { 0.0 } else { 0.3 });
        let mut world = World::pair(seed, &link);
        world.connect(0, 1);
        if seed % 3 > 0 {
            world.run_for(MS * u32::try_from(seed % 15).unwrap());
        }
        world.connect(1, 0);
        world.send(0, 1, flow(1), b"from a".to_vec());
        world.send(1, 0, flow(1), b"from b".to_vec());
        let done = world.run_until(60 * SEC, |world| {
            world.hosts.iter().all(|host| host.finished.len() == 1)
        });
        let connected: Vec<usize> = world.hosts.iter().map(|host| host.connected()).collect();
        if seed % 2 == 0 {
            assert_eq!(connected, [1, 1], "seed {seed}");
            assert!(done, "seed {seed}");
        } else if connected == [1, 1] {
            assert!(done, "seed {seed}: {:?}", world.hosts[0].events);
        }
    }
}

#[test]
fn connecting_again_changes_nothing() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    let sent = world.datagrams;
    world.connect(0, 1);
    world.connect(1, 0);
    world.run_for(SEC);
    assert!(
        world.datagrams <= sent + 2,
        "only acknowledgments of the handshake"
    );
    assert_eq!(world.hosts[0].connected() + world.hosts[1].connected(), 2);
}

#[test]
fn a_restarted_peer_replaces_its_old_session() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    world.restart(0, Config::default());
    world.connect(0, 1);
    world.send(0, 1, flow(1), b"second life".to_vec());
    let key = (world.hosts[0].id, flow(1));
    assert!(world.run_until(SEC, |world| world.hosts[1].finished.contains(&key)));
    assert_eq!(world.hosts[1].received[&key], b"second life");
    let events: Vec<_> = world.hosts[1]
        .events
        .iter()
        .map(|(_, event)| event)
        .collect();
    let replaced = events.iter().position(|event| {
        matches!(
            event,
            Event::Closed {
                reason: CloseReason::Replaced,
                ..
            }
        )
    });
    let last = events
        .iter()
        .rposition(|event| matches!(event, Event::Connected { .. }));
    assert!(replaced.unwrap() < last.unwrap());
}

#[test]
fn a_forged_offer_does_not_disturb_a_live_session() {
    let mut world = World::new(1, vec![plain(), plain()], &quiet());
    world.establish();
    let forged = offer(world.hosts[0].id, world.hosts[1].id, 77);
    world.inject("10.9.9.9:1".parse().unwrap(), 1, forged);
    world.run_for(10 * SEC);
    assert!(world.hosts[1].closed().is_empty());
    world.send(0, 1, flow(1), b"still here".to_vec());
    assert!(world.run_until(SEC, |world| world.hosts[0].delivered.len() == 1));
}

#[test]
fn a_peer_that_lost_its_state_is_noticed() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    world.restart(1, Config::default());
    world.send(0, 1, flow(1), vec![1; 10_000]);
    world.run_for(20 * SEC);
    assert_eq!(world.hosts[0].closed(), [CloseReason::Unresponsive]);
    assert!(world.hosts[1].endpoint.counters().unknown_session > 0);
}

#[test]
fn a_never_acknowledging_peer_is_dead_after_five_seconds() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    world.run_for(SEC);
    world.set_link(&dead());
    let start = world.clock.elapsed();
    world.send(0, 1, flow(1), vec![1; 1_000_000]);
    world.run_for(60 * SEC);
    let (at, event) = world.hosts[0].events.last().unwrap();
    let closed = Event::Closed {
        peer: world.hosts[1].id,
        reason: CloseReason::Unresponsive,
    };
    assert_eq!((*at - start, event), (5 * SEC, &closed));
    let key = world.hosts[1].id;
    assert_eq!(world.hosts[0].endpoint.state(key), None);
}

#[test]
fn a_partition_shorter_than_that_heals() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    world.send(0, 1, flow(1), SimRng::from_seed(1).bytes(5_000_000));
    world.run_for(100 * MS);
    world.set_link(&dead());
    world.run_for(4 * SEC);
    world.set_link(&quiet());
    assert!(world.run_until(10 * SEC, |world| world.hosts[0].delivered.len() == 1));
    assert!(world.hosts[0].closed().is_empty());
}

#[test]
fn an_idle_session_ends_and_a_kept_one_does_not() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    world.run_for(40 * SEC);
    assert_eq!(world.hosts[0].closed(), [CloseReason::Idle]);
    assert_eq!(world.hosts[1].closed(), [CloseReason::Idle]);

    let mut kept = Config::default();
    kept.set_keep_alive_always(true);
    let mut world = World::new(1, vec![kept, Config::default()], &quiet());
    world.establish();
    let before = world.datagrams;
    world.run_for(300 * SEC);
    assert!(world.hosts.iter().all(|host| host.closed().is_empty()));
    // A HEARTBEAT and its ACK in every 10.02 s.
    assert_eq!(world.datagrams - before, 2 * 29);
}

#[test]
fn the_smaller_idle_timeout_holds_on_both_sides() {
    let mut short = Config::default();
    short.set_idle_timeout(2 * SEC).unwrap();
    let mut world = World::new(1, vec![short, Config::default()], &quiet());
    world.establish();
    world.run_for(4 * SEC);
    assert_eq!(world.hosts[0].closed(), [CloseReason::Idle]);
    assert_eq!(world.hosts[1].closed(), [CloseReason::Idle]);
}

#[test]
fn an_open_flow_keeps_the_session() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    let (now, peer) = (world.now(), world.hosts[1].id);
    let data = Bytes::from_static(b"part");
    world.hosts[0]
        .endpoint
        .write(now, peer, flow(1), data)
        .unwrap();
    world.drive(0);
    world.run_for(300 * SEC);
    assert!(world.hosts.iter().all(|host| host.closed().is_empty()));
}

#[test]
fn close_tells_the_peer_and_both_forget() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    let now = world.now();
    let [a, b] = [world.hosts[0].id, world.hosts[1].id];
    world.hosts[0].endpoint.close(now, b, 42, "enough");
    world.drive(0);
    assert_eq!(
        world.hosts[0].endpoint.state(b),
        Some(SessionState::Draining)
    );
    let refused = world.hosts[0]
        .endpoint
        .write(now, b, flow(1), Bytes::from_static(b"x"));
    assert_eq!(refused, Err(WriteError::Closing));
    world.run_for(5 * SEC);
    assert_eq!(world.hosts[0].closed(), [CloseReason::Local]);
    let reason = CloseReason::PeerClosed {
        code: 42,
        reason: "enough".to_owned(),
    };
    assert_eq!(world.hosts[1].closed(), [reason]);
    assert_eq!(world.hosts[0].endpoint.state(b), None);
    assert_eq!(world.hosts[1].endpoint.state(a), None);
    assert_eq!(world.hosts[0].endpoint.poll_timeout(), None);
    assert_eq!(world.hosts[1].endpoint.poll_timeout(), None);
    world.connect(1, 0);
    world.run_for(SEC);
    assert_eq!(world.hosts[0].connected(), 2, "a new session may follow");
}

#[test]
fn a_draining_peer_can_be_connected_to_at_once() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    let (now, b) = (world.now(), world.hosts[1].id);
    world.hosts[0].endpoint.close(now, b, 0, "");
    world.drive(0);
    world.connect(0, 1);
    world.run_for(SEC);
    assert_eq!(world.hosts[0].connected(), 2);
    assert_eq!(world.hosts[1].connected(), 2);
    assert_eq!(
        world.hosts[0].endpoint.state(b),
        Some(SessionState::Established)
    );
}

#[test]
fn an_address_change_keeps_the_session() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    world.send(0, 1, flow(1), SimRng::from_seed(1).bytes(3_000_000));
    world.run_for(50 * MS);
    let new = "10.0.7.7:7100".parse().unwrap();
    world.hosts[0].address = new;
    assert!(world.run_until(10 * SEC, |world| world.hosts[0].delivered.len() == 1));
    let stats = world.hosts[1].endpoint.stats(world.hosts[0].id).unwrap();
    assert_eq!(stats.address_changes, 1);
    assert!(
        world
            .hosts
            .iter()
            .all(|host| host.closed().is_empty() && host.connected() == 1)
    );
}

#[test]
fn garbage_changes_nothing() {
    let mut world = World::pair(1, &quiet());
    world.establish();
    world.run_for(SEC);
    let b = world.hosts[1].id;
    let before = world.hosts[0].endpoint.stats(b).unwrap();
    let mut rng = SimRng::from_seed(5);
    let from = world.hosts[1].address;
    for _ in 0..2_000 {
        let length = rng.below(200) as usize;
        let bytes = Bytes::from(rng.bytes(length));
        world.inject(from, 0, bytes);
    }
    assert_eq!(world.hosts[0].endpoint.stats(b).unwrap(), before);
    assert_eq!(world.hosts[0].endpoint.counters().garbage, 2_000);
}

#[test]
fn truncated_and_altered_datagrams_change_nothing() {
    for integrity in [Integrity::Crc32, Integrity::Internet] {
        let mut config = Config::default();
        config.set_integrity(integrity);
        let mut world = World::new(1, vec![config.clone(), config], &quiet());
        world.establish();
        world.run_for(SEC);
        let (now, b) = (world.now(), world.hosts[1].id);
        let data = Bytes::from_static(b"some octets");
        world.hosts[0]
            .endpoint
            .write(now, b, flow(1), data)
            .unwrap();
        let mut datagram = Vec::new();
        assert!(
            world.hosts[0]
                .endpoint
                .poll_transmit(now, &mut datagram)
                .is_some()
        );
        let from = world.hosts[0].address;
        for length in 0..datagram.len() {
            world.inject(from, 1, Bytes::copy_from_slice(&datagram[..length]));
        }
        for bit in 0..datagram.len() * 8 {
            let mut altered = datagram.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            world.inject(from, 1, Bytes::from(altered));
        }
        assert!(world.hosts[1].received.is_empty(), "{integrity:?}");
        world.inject(from, 1, Bytes::from(datagram));
        assert_eq!(world.hosts[1].received.len(), 1);
    }
}

#[test]
fn a_flood_of_offers_is_bounded_and_a_real_one_gets_through() {
    let mut config = plain();
    config.set_max_half_open(64).unwrap();
    let mut world = World::new(1, vec![plain(), config], &quiet());
    let b = world.hosts[1].id;
    for n in 0..10_000u32 {
        let from: NodeId = format!("x{n}").parse().unwrap();
        world.inject("10.9.9.9:1".parse().unwrap(), 1, offer(from, b, n + 1));
    }
    assert_eq!(
        world.hosts[1].endpoint.peers().count(),
        0,
        "no session without proof"
    );
    assert_eq!(world.hosts[1].endpoint.counters().syn_overflow, 10_000 - 64);
    world.establish();
    world.run_for(10 * SEC);
    assert_eq!(world.hosts[1].endpoint.peers().count(), 1);
}

#[test]
fn sessions_are_bounded() {
    let mut config = Config::default();
    config.set_max_sessions(2).unwrap();
    let configs = vec![
        Config::default(),
        Config::default(),
        Config::default(),
        config,
    ];
    let mut world = World::new(1, configs, &quiet());
    for from in 0..3 {
        world.connect(from, 3);
    }
    world.run_for(6 * SEC);
    assert_eq!(world.hosts[3].endpoint.peers().count(), 2);
    let closed = |index: &usize| world.hosts[*index].closed() == [CloseReason::Unresponsive];
    assert_eq!((0..3).filter(closed).count(), 1);
    // Once it is full, an offer is not even answered.
    let refused = (0..3).find(closed).unwrap();
    world.connect(refused, 3);
    world.run_for(4 * SEC);
    let last = &world.hosts[refused].events.last().unwrap().1;
    assert!(matches!(last, Event::ConnectFailed { .. }));
}

/// Endpoint `a` of an established pair, and what its peer needs to forge ACKs: the peer is played
/// by the test.
struct Liar {
    world: World,
    now: std::time::Instant,
    from: SocketAddr,
    header: Header,
    sent: Vec<u32>,
}

impl Liar {
    fn new() -> Self {
        let mut world = World::new(1, vec![plain(), plain()], &quiet());
        world.establish();
        world.run_for(SEC);
        let [a, b] = [world.hosts[0].id, world.hosts[1].id];
        let (now, from) = (world.now(), world.hosts[1].address);
        world.hosts[1]
            .endpoint
            .write(now, a, flow(2), Bytes::from_static(b"x"))
            .unwrap();
        let mut datagram = Vec::new();
        let sent = world.hosts[1].endpoint.poll_transmit(now, &mut datagram);
        assert!(sent.is_some());
        let mut header = Header::new(PacketType::Ack, b, a, flow(9));
        let theirs = Header::parse(&datagram).unwrap().header;
        header.session = theirs.session;
        header.packet_number = theirs.packet_number;
        let mut liar = Self {
            world,
            now,
            from,
            header,
            sent: Vec::new(),
        };
        let data = Bytes::from(vec![0; 1 << 20]);
        let endpoint = &mut liar.world.hosts[0].endpoint;
        endpoint.write(now, b, flow(1), data).unwrap();
        liar.collect();
        liar
    }

    fn stats(&self) -> vmdt_rdt::PathStats {
        let peer = self.header.source;
        self.world.hosts[0].endpoint.stats(peer).unwrap()
    }

    /// Takes what `a` sends, and when.
    fn collect(&mut self) {
        let mut datagram = Vec::new();
        let endpoint = &mut self.world.hosts[0].endpoint;
        while endpoint.poll_transmit(self.now, &mut datagram).is_some() {
            let header = Header::parse(&datagram).unwrap().header;
            self.sent.push(header.packet_number);
        }
    }

    fn acknowledge(&mut self, ack: &Ack) {
        self.now += MS;
        let mut payload = Vec::new();
        ack.emit_into(&mut payload);
        self.header.packet_number = self.header.packet_number.wrapping_add(1);
        let datagram = emit(self.header, &payload);
        let endpoint = &mut self.world.hosts[0].endpoint;
        endpoint.handle_timeout(self.now);
        endpoint.handle_datagram(self.now, self.from, datagram);
    }

    /// Why the session has ended.
    fn verdict(&mut self) -> Option<CloseReason> {
        let endpoint = &mut self.world.hosts[0].endpoint;
        std::iter::from_fn(|| endpoint.poll_event()).find_map(|event| match event {
            Event::Closed { reason, .. } => Some(reason),
            _ => None,
        })
    }

    /// Sends on, acknowledged truthfully, until a number has been left out; gives it.
    fn until_skip(&mut self) -> u32 {
        for _ in 0..1_000 {
            self.collect();
            let gap = self
                .sent
                .windows(2)
                .find(|pair| pair[1] != pair[0].wrapping_add(1));
            if let Some(pair) = gap {
                assert_eq!(pair[1], pair[0].wrapping_add(2));
                return pair[0].wrapping_add(1);
            }
            let (first, last) = (self.sent[0], *self.sent.last().unwrap());
            let count = last.wrapping_sub(first) + 1;
            self.acknowledge(&Ack::new(0, 1 << 30, last, count, Vec::new()).unwrap());
            assert_eq!(self.verdict(), None, "the truth is no offence");
            self.now += 5 * MS;
            self.world.hosts[0].endpoint.handle_timeout(self.now);
        }
        panic!("no number is ever left out");
    }
}

#[test]
fn an_ack_of_what_was_never_sent_ends_the_session_and_opens_nothing() {
    // Newest number, and how many with those before it, from the newest really sent.
    for (ahead, count) in [
        (1_000, 1),
        (1 << 30, 1 << 20),
        (0, 100_000),
        (-(1 << 30), 1),
    ] {
        let mut liar = Liar::new();
        let before = liar.stats();
        let largest = liar.sent.last().unwrap().wrapping_add_signed(ahead);
        liar.acknowledge(&Ack::new(0, u32::MAX, largest, count, Vec::new()).unwrap());
        let verdict = liar.verdict();
        assert!(
            matches!(verdict, Some(CloseReason::FalseAck { .. })),
            "{verdict:?}"
        );
        let after = liar.stats();
        assert_eq!(
            (after.cwnd, after.bytes_in_flight, after.srtt),
            (before.cwnd, before.bytes_in_flight, before.srtt)
        );
        // The peer is told why.
        let mut datagram = Vec::new();
        let endpoint = &mut liar.world.hosts[0].endpoint;
        assert!(endpoint.poll_transmit(liar.now, &mut datagram).is_some());
        let fin = Packet::parse(Bytes::from(datagram)).unwrap();
        assert_eq!(fin.header.kind, PacketType::Fin);
        let fin = Fin::parse(&fin.payload).unwrap();
        assert_eq!(fin.code, vmdt_rdt::CODE_FALSE_ACK);
    }
}

#[test]
fn an_ack_in_advance_meets_a_number_that_was_left_out() {
    let mut liar = Liar::new();
    let skipped = liar.until_skip();
    let before = liar.stats();
    assert!(before.numbers_skipped > 0);
    // All that was sent, and what lies between, as a receiver would that guesses.
    let last = *liar.sent.last().unwrap();
    let count = last.wrapping_sub(liar.sent[0]) + 1;
    liar.acknowledge(&Ack::new(0, 1 << 30, last, count, Vec::new()).unwrap());
    match liar.verdict() {
        Some(CloseReason::FalseAck { number }) => assert_eq!(number as u32, skipped),
        other => panic!("{other:?}"),
    }
    assert_eq!(liar.stats().cwnd, before.cwnd);
}

#[test]
fn an_ack_that_leaves_out_what_was_not_sent_is_taken() {
    let mut liar = Liar::new();
    let skipped = liar.until_skip();
    assert!(!liar.sent.contains(&skipped));
    // Runs of consecutive numbers, newest first.
    let mut runs: Vec<u32> = Vec::new();
    let mut next = None;
    for number in liar.sent.iter().rev() {
        match runs.last_mut() {
            Some(run) if next == Some(*number) => *run += 1,
            _ => runs.push(1),
        }
        next = Some(number.wrapping_sub(1));
    }
    let blocks = runs[1..].iter().map(|len| AckBlock { gap: 1, len: *len });
    let last = *liar.sent.last().unwrap();
    let ack = Ack::new(0, 1 << 30, last, runs[0], blocks.collect()).unwrap();
    liar.acknowledge(&ack);
    assert_eq!(liar.verdict(), None);
    assert_eq!(liar.stats().bytes_in_flight, 0);
}

/// The second offer leaves so early that a lost first one costs little, and the round trip is known
/// from the answer all the same; later it is taken to be 200 ms.
#[test]
fn a_lost_first_offer_costs_a_quarter_of_the_wait() {
    let link = LinkConfig::new().delay(20 * MS);
    // 40 ms after the offer that came through: the first, the second after 50 ms, the third after 250
    for (dead_for, after, srtt) in [(0, 40, 40), (30, 90, 90), (150, 290, 200)] {
        let mut world = World::sealed_pair(1, &link);
        if dead_for > 0 {
            world.set_link(&dead());
        }
        world.connect(0, 1);
        world.run_for(dead_for * MS);
        world.set_link(&link);
        let connected = |world: &World| world.hosts[0].connected() > 0;
        assert!(world.run_until(SEC, connected), "{dead_for}");
        assert_eq!(world.hosts[0].events[0].0, after * MS, "{dead_for}");
        let stats = world.hosts[0].endpoint.stats(world.hosts[1].id).unwrap();
        assert_eq!(stats.srtt, srtt * MS, "{dead_for}");
    }
}
