//! Who stands beside or on the path of sealed sessions: nothing forged, altered or repeated has an
//! effect, nobody is flooded by us, and a flood costs bounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{MS, SEC, Taped, World, flow, identity};
use vmdt_rdt::vmdt_seal::session::{Local, Suites};
use vmdt_rdt::{Config, Endpoint, Event, SessionState};
use vmdt_testkit::{LinkConfig, SimRng};
use vmdt_wire::compact::{self, MAX_COMPACT_LEN};
use vmdt_wire::{FlowId, HEADER_LEN, Header, NodeId, PacketType};

/// The number of a test's repetitions: a small one, or that of the variable in a soak.
fn count(usual: u64, variable: &str) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(usual, |asked| asked.parse().unwrap())
}

fn is_syn(taped: &Taped) -> bool {
    common::header_of(&taped.bytes).kind == PacketType::Syn
}

/// A datagram with this header and these octets behind it.
fn datagram(header: &Header, payload_len: usize, rest: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; HEADER_LEN];
    header.emit(
        u16::try_from(payload_len).unwrap(),
        octets.first_chunk_mut().unwrap(),
    );
    octets.extend_from_slice(rest);
    octets
}

/// A random datagram that bears the right ids, of any kind.
fn forged(rng: &mut SimRng, [source, dest]: [NodeId; 2], session: u32) -> Vec<u8> {
    let kinds = [
        PacketType::Data,
        PacketType::Ack,
        PacketType::Nak,
        PacketType::Fin,
        PacketType::Heartbeat,
        PacketType::Datagram,
        PacketType::Syn,
    ];
    let kind = kinds[rng.below(7) as usize];
    let mut header = Header::new(kind, source, dest, flow(1));
    header.session = session;
    header.packet_number = rng.below(1 << 32) as u32;
    let payload = rng.below(80) as usize;
    let tag = if kind == PacketType::Syn { 0 } else { 16 };
    let mut rest = rng.bytes(payload + tag);
    if kind == PacketType::Syn && payload > 0 {
        // Answers, confirmations, restarts and cookies.
        rest[0] = rng.range(3..=7) as u8;
    }
    let mut lead = [0; MAX_COMPACT_LEN];
    match header.emit_compact(&mut lead) {
        Some(len) if rng.chance(0.5) => [&lead[..len], &rest].concat(),
        _ => datagram(&header, payload, &rest),
    }
}

/// What an endpoint shows of its sessions.
fn visible(world: &World, host: usize) -> (usize, Vec<NodeId>, u64, u64, SocketAddr) {
    let other = world.hosts[1 - host].id;
    let endpoint = &world.hosts[host].endpoint;
    let stats = endpoint.stats(other).unwrap();
    (
        world.hosts[host].events.len(),
        endpoint.peers().collect(),
        stats.packets_received,
        stats.address_changes,
        world.hosts[1 - host].address,
    )
}

#[test]
fn off_path_datagrams_with_right_ids_change_nothing() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut world = World::sealed_pair(1, &link);
    world.establish();
    world.run_for(SEC);
    let mut rng = SimRng::from_seed(5);
    let ids = [world.hosts[1].id, world.hosts[0].id];
    let (from, now) = (world.hosts[1].address, world.now());
    let before = visible(&world, 0);
    let sent = world.datagrams;
    let total = count(1_000_000, "VMDT_OFF_PATH");
    for n in 0..total {
        let session = rng.below(1 << 32) as u32;
        let octets = Bytes::from(forged(&mut rng, ids, session));
        let endpoint = &mut world.hosts[0].endpoint;
        endpoint.handle_datagram(now, from, octets);
        if n % 1024 == 0 {
            world.drive(0);
        }
    }
    world.drive(0);
    assert_eq!(visible(&world, 0), before);
    assert_eq!(world.datagrams, sent, "and nothing is sent for them");
    let counters = world.hosts[0].endpoint.counters();
    assert_eq!(counters.unknown_session + counters.bad_syn, total);
    world.carry(0, 1, flow(1), 100_000);
    world.carry(1, 0, flow(2), 100_000);
}

#[test]
fn forgeries_under_the_right_session_id_change_nothing() {
    // An observer knows all ids and numbers, and alters what it sees.
    let link = LinkConfig::new().delay(10 * MS);
    let mut world = World::sealed_pair(2, &link);
    world.tape = Some(Vec::new());
    world.establish();
    world.carry(1, 0, flow(1), 50_000);
    world.run_for(SEC);
    let tape = world.tape.take().unwrap();
    let mut rng = SimRng::from_seed(6);
    let (from, now) = (world.hosts[1].address, world.now());
    let before = visible(&world, 0);
    let mut tried = 0;
    for taped in tape
        .iter()
        .filter(|taped| taped.from == from && !is_syn(taped))
    {
        for _ in 0..20 {
            let mut octets = taped.bytes.to_vec();
            // Another number, so that it is not simply a repetition; and any other octet.
            let last = if compact::is_compact(&octets) { 9 } else { 68 };
            octets[last - rng.below(8) as usize] ^= 1 << rng.below(8);
            let at = rng.below(octets.len() as u64) as usize;
            octets[at] ^= 1 << rng.below(8);
            if octets != taped.bytes {
                let endpoint = &mut world.hosts[0].endpoint;
                endpoint.handle_datagram(now, from, octets.into());
                tried += 1;
            }
        }
    }
    world.drive(0);
    assert!(tried > 500, "{tried}");
    assert_eq!(visible(&world, 0), before);
    world.carry(0, 1, flow(2), 100_000);
}

#[test]
fn a_recorded_session_delivers_nothing_at_once_or_an_hour_later_or_to_a_new_life() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut config = Config::default();
    config.set_keep_alive_always(true);
    for known in [false, true] {
        let mut world = World::sealed(3, vec![config.clone(), config.clone()], &link);
        if known {
            world.introduce();
        }
        world.tape = Some(Vec::new());
        world.establish();
        world.carry(0, 1, flow(1), 200_000);
        world.send(0, 1, FlowId::CONTROL, vec![9; 500]);
        world.run_for(SEC);
        let tape = world.tape.take().unwrap();
        let (from, to) = (world.hosts[0].address, world.hosts[1].address);
        let replay = |world: &mut World| {
            let before = (
                world.hosts[1].events.len(),
                world.hosts[1].octets_received,
                world.hosts[1].endpoint.peers().collect::<Vec<_>>(),
            );
            for taped in tape.iter().filter(|taped| taped.to == to) {
                world.inject(from, 1, taped.bytes.clone());
            }
            let after = (
                world.hosts[1].events.len(),
                world.hosts[1].octets_received,
                world.hosts[1].endpoint.peers().collect::<Vec<_>>(),
            );
            assert_eq!(before, after);
        };
        replay(&mut world);
        world.run_for(3600 * SEC);
        assert!(world.hosts[1].endpoint.state(world.hosts[0].id).is_some());
        replay(&mut world);
        world.restart(1, config.clone());
        replay(&mut world);
        world.run_for(60 * SEC);
        assert_eq!(world.hosts[1].events, [], "nobody is there");
        assert_eq!(
            world.hosts[1].endpoint.poll_timeout(),
            None,
            "nothing is kept"
        );
    }
}

#[test]
fn a_number_never_seals_two_packets_of_a_session() {
    let wanted = count(30_000, "VMDT_RETRANSMISSIONS");
    let mut retransmitted = 0;
    let mut seed = 0;
    while retransmitted < wanted {
        seed += 1;
        let link = LinkConfig::new()
            .delay(5 * MS)
            .rate(200_000_000, 1 << 20)
            .loss(0.4);
        let mut config = Config::default();
        config.set_connect_timeout(60 * SEC).unwrap();
        let mut world = World::sealed(seed, vec![config.clone(), config], &link);
        world.connect(0, 1);
        world.tape = Some(Vec::new());
        world.hosts[1].counts_only = true;
        world.send_endless(0, 1, flow(1));
        let mut last = BTreeMap::new();
        for _ in 0..20 {
            world.run_for(SEC / 4);
            for taped in world.tape.replace(Vec::new()).unwrap() {
                let header = common::header_of(&taped.bytes);
                if header.kind == PacketType::Syn {
                    continue;
                }
                // Numbers ascend, so none comes twice: a repeated one would be 2^32 - 1 ahead.
                let last = last.entry(taped.from).or_insert(header.packet_number);
                let step = header.packet_number.wrapping_sub(*last);
                assert!(
                    step < 1 << 24,
                    "number {} after {last}",
                    header.packet_number
                );
                *last = header.packet_number.wrapping_add(1);
            }
        }
        let peer = world.hosts[1].id;
        let stats = world.hosts[0].endpoint.stats(peer).unwrap();
        retransmitted += stats.segments_retransmitted;
        assert_eq!(world.hosts[0].closed(), []);
    }
    println!("{retransmitted} retransmissions in {seed} sessions");
}

/// A node that is not in the world.
struct Stranger {
    endpoint: Endpoint,
    id: NodeId,
    address: SocketAddr,
}

fn stranger(n: u64, suites: Option<Suites>) -> Stranger {
    let local = Local::new(identity(n, 0), 1);
    let mut config = Config::default();
    config.set_sealing(local.clone());
    if let Some(suites) = suites {
        config.set_suites(suites);
    }
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    Stranger {
        endpoint: Endpoint::new(config, local.node_id(), seed),
        id: local.node_id(),
        address: SocketAddr::from(([10, 7, (n >> 8) as u8, n as u8], 1)),
    }
}

/// The offer of a stranger.
fn offer(world: &World, stranger: &mut Stranger, known: bool) -> Bytes {
    let (now, peer) = (world.now(), world.hosts[1].id);
    if known {
        let local = Local::new(identity(world.identities.unwrap(), 1), 1);
        stranger.endpoint.set_credential(local.credential());
    }
    stranger.endpoint.connect(now, peer, world.hosts[1].address);
    let mut buf = Vec::new();
    assert!(stranger.endpoint.poll_transmit(now, &mut buf).is_some());
    buf.into()
}

/// What leaves host 1 for a datagram from an address, at once and over ten seconds.
fn answered(world: &mut World, from: SocketAddr, octets: &[u8]) -> usize {
    world.tape = Some(Vec::new());
    world.inject(from, 1, Bytes::copy_from_slice(octets));
    world.run_for(10 * SEC);
    let tape = world.tape.take().unwrap();
    let to = tape.iter().filter(|taped| taped.to == from);
    to.map(|taped| taped.bytes.len()).sum()
}

#[test]
fn no_first_datagram_is_answered_by_more_than_three_times_its_octets() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut worst = BTreeMap::new();
    let mut note = |kind: &'static str, sent: usize, back: usize| {
        let factor = back as f64 / sent as f64;
        let entry = worst.entry(kind).or_insert(0.0f64);
        *entry = entry.max(factor);
        assert!(factor <= 3.0, "{kind}: {back} octets for {sent}");
    };
    for loaded in [false, true] {
        let mut world = World::sealed_pair(4, &link);
        let server = world.hosts[1].id;
        let mut strangers = 1000;
        let mut load = |world: &mut World| {
            for _ in 0..if loaded { 150 } else { 0 } {
                strangers += 1;
                let mut one = stranger(strangers, None);
                let octets = offer(world, &mut one, false);
                world.inject(one.address, 1, octets);
            }
        };
        for (kind, known) in [("offer XX", false), ("offer IK", true)] {
            load(&mut world);
            let mut one = stranger(7, None);
            let full = offer(&world, &mut one, known);
            let back = answered(&mut world, one.address, &full);
            assert!(back > 0);
            note(
                if loaded { "offer under load" } else { kind },
                full.len(),
                back,
            );
            // The same again, and again.
            for _ in 0..3 {
                note(
                    "offer again",
                    full.len(),
                    answered(&mut world, one.address, &full),
                );
            }
            for cut in (0..full.len()).step_by(37) {
                load(&mut world);
                let back = answered(&mut world, one.address, &full[..cut]);
                note("cut off", cut.max(1), back);
                // With a length that fits.
                if cut > HEADER_LEN {
                    let header = Header::parse(&full).unwrap().header;
                    let rest = &full[HEADER_LEN..cut];
                    let octets = datagram(&header, rest.len(), rest);
                    note("cut", cut, answered(&mut world, one.address, &octets));
                }
            }
            let mut altered = full.to_vec();
            altered[HEADER_LEN + 60] ^= 1;
            let back = answered(&mut world, one.address, &altered);
            note("altered offer", altered.len(), back);
        }
        let mut rng = SimRng::from_seed(8);
        let source = stranger(9, None);
        for _ in 0..2_000 {
            let session = rng.below(3) as u32;
            let octets = forged(&mut rng, [source.id, server], session);
            note(
                "garbage",
                octets.len(),
                answered(&mut world, source.address, &octets),
            );
        }
    }
    println!("octets back for each octet: {worst:.2?}");
}

#[test]
fn an_answer_that_proves_no_address_opens_no_flood() {
    // A peer, itself honest about who it is, offers and confirms as if from a victim's address.
    let link = LinkConfig::new().delay(10 * MS);
    for known in [false, true] {
        let mut world = World::sealed_pair(5, &link);
        let (server, at) = (world.hosts[1].id, world.hosts[1].address);
        let victim: SocketAddr = "10.66.0.1:66".parse().unwrap();
        let mut one = stranger(7, None);
        let octets = offer(&world, &mut one, known);
        world.inject(one.address, 1, octets.clone());
        // The second copy seems to come from the victim.
        world.tape = Some(Vec::new());
        world.inject(victim, 1, octets.clone());
        let answer = world.tape.as_ref().unwrap()[0].bytes.clone();
        let now = world.now();
        one.endpoint.handle_datagram(now, at, answer);
        let mut buf = Vec::new();
        let mut spent = octets.len();
        while one.endpoint.poll_transmit(now, &mut buf).is_some() {
            spent += buf.len();
            world.inject(victim, 1, Bytes::copy_from_slice(&buf));
        }
        assert_eq!(
            world.hosts[1].endpoint.state(one.id),
            Some(SessionState::Established)
        );
        let (now, data) = (world.now(), Bytes::from(vec![1; 1 << 20]));
        world.hosts[1]
            .endpoint
            .write(now, one.id, flow(1), data)
            .unwrap();
        world.drive(1);
        world.run_for(20 * SEC);
        let tape = world.tape.as_ref().unwrap();
        let back: usize = tape
            .iter()
            .filter(|taped| taped.to == victim)
            .map(|taped| taped.bytes.len())
            .sum();
        assert!(back <= 3 * spent, "{back} octets for {spent}");
        assert_ne!(server, one.id);
    }
}

#[test]
fn an_offering_session_only_repeats_its_offer_whatever_comes() {
    let link = LinkConfig::new().delay(10 * MS);
    let gone = LinkConfig::new().delay(10 * MS).loss(1.0);
    for seed in 0..6 {
        let mut world = World::sealed_pair(seed, &link);
        world.set_link(&gone);
        world.tape = Some(Vec::new());
        world.connect(0, 1);
        let own = world.tape.as_ref().unwrap()[0].bytes.clone();
        let session = Header::parse(&own).unwrap().header.packet_number;
        let ids = [world.hosts[1].id, world.hosts[0].id];
        let right = world.hosts[1].address;
        let elsewhere: SocketAddr = "10.66.0.1:66".parse().unwrap();
        let mut rng = SimRng::from_seed(seed);
        for _ in 0..1000 {
            let from = if rng.chance(0.5) { right } else { elsewhere };
            let octets = forged(&mut rng, ids, session);
            world.inject(from, 0, octets.into());
            world.run_for(MS);
        }
        let tape = world.tape.as_ref().unwrap();
        assert!(
            tape.iter()
                .all(|taped| taped.bytes[HEADER_LEN..] == own[HEADER_LEN..])
        );
        assert!(tape.iter().all(|taped| taped.to == right));
        assert!(tape.len() <= 4, "{} offers", tape.len());
        // Offers of the same node, from elsewhere: as many are answered as by anybody.
        world.tape = Some(Vec::new());
        let peer = offer_to(&world, 0, seed);
        for _ in 0..2_000 {
            world.inject(elsewhere, 0, peer.clone());
        }
        let tape = world.tape.take().unwrap();
        let back: usize = tape.iter().map(|taped| taped.bytes.len()).sum();
        assert!(back <= 2_000 * peer.len());
        world.set_link(&link);
        world.carry(0, 1, flow(1), 10_000);
        assert_eq!(world.hosts[0].closed(), []);
    }
}

/// An offer to a host in the name of the other one, recorded in another life.
fn offer_to(world: &World, to: usize, seed: u64) -> Bytes {
    let local = Local::new(identity(seed, 1 - to), 1);
    let mut config = Config::default();
    config.set_sealing(local.clone());
    let mut endpoint = Endpoint::new(config, local.node_id(), [77; 32]);
    let host = &world.hosts[to];
    endpoint.connect(world.now(), host.id, host.address);
    let mut buf = Vec::new();
    assert!(endpoint.poll_transmit(world.now(), &mut buf).is_some());
    buf.into()
}

#[test]
fn another_node_under_a_known_id_is_no_peer() {
    // A meddler who owns the path, and answers offers for the node in its place.
    let link = LinkConfig::new().delay(10 * MS);
    for known in [false, true] {
        let mut world = World::sealed_pair(6, &link);
        if known {
            world.introduce();
        }
        let honest = world.hosts[1].id;
        let mut impostor = stranger(8, None);
        let address = world.hosts[1].address;
        world.set_link(&LinkConfig::new().delay(10 * MS).loss(1.0));
        world.tape = Some(Vec::new());
        world.connect(0, 1);
        let (now, mut buf) = (world.now(), Vec::new());
        for _ in 0..4 {
            for taped in world.tape.replace(Vec::new()).unwrap() {
                // Readdressed, since it would drop what is for another id.
                let mut header = Header::parse(&taped.bytes).unwrap().header;
                header.dest = impostor.id;
                let rest = &taped.bytes[HEADER_LEN..];
                let octets = datagram(&header, rest.len(), rest);
                let from = world.hosts[0].address;
                impostor.endpoint.handle_datagram(now, from, octets.into());
            }
            while impostor.endpoint.poll_transmit(now, &mut buf).is_some() {
                let mut header = Header::parse(&buf).unwrap().header;
                header.source = honest;
                let rest = &buf[HEADER_LEN..];
                let octets = datagram(&header, rest.len(), rest);
                world.inject(address, 0, octets.into());
            }
        }
        assert!(world.hosts[0].endpoint.counters().bad_syn > 0);
        world.run_for(10 * SEC);
        assert_eq!(world.hosts[0].connected(), 0);
        // And offers in the name of another node are not confirmed by it.
        let mut world = World::sealed_pair(6, &link);
        let mut octets = offer(&world, &mut impostor_again(), known).to_vec();
        let id = world.hosts[0].id;
        octets[8..24].copy_from_slice(&id.field());
        let address = world.hosts[0].address;
        world.inject(address, 1, octets.into());
        world.run_for(10 * SEC);
        assert_eq!(world.hosts[1].connected(), 0);
    }
}

fn impostor_again() -> Stranger {
    stranger(8, None)
}

#[test]
fn the_suites_offered_cannot_be_changed_on_the_way() {
    let link = LinkConfig::new().delay(10 * MS);
    for known in [false, true] {
        let mut world = World::sealed_pair(7, &link);
        let mut one = stranger(9, Some(Suites::ALL));
        let mut octets = offer(&world, &mut one, known).to_vec();
        assert_eq!(octets[HEADER_LEN + 3], 3);
        octets[HEADER_LEN + 3] = 2;
        world.tape = Some(Vec::new());
        world.inject(one.address, 1, octets.into());
        let (now, at) = (world.now(), world.hosts[1].address);
        for taped in world.tape.take().unwrap() {
            one.endpoint.handle_datagram(now, at, taped.bytes);
        }
        let mut buf = Vec::new();
        while one.endpoint.poll_transmit(now, &mut buf).is_some() {
            world.inject(one.address, 1, Bytes::copy_from_slice(&buf));
        }
        assert_eq!(
            one.endpoint.state(world.hosts[1].id),
            Some(SessionState::Connecting)
        );
        assert_eq!(world.hosts[1].connected(), 0);
        // Without a suite in common there is no session.
        let mut world = World::sealed_pair(7, &link);
        let mut config = Config::default();
        let local = Local::new(identity(7, 1), 1);
        config.set_sealing(local.clone()).set_suites(Suites::CHACHA);
        world.hosts[1].endpoint = Endpoint::new(config, local.node_id(), [5; 32]);
        let mut one = stranger(9, Some(Suites::AES));
        let octets = offer(&world, &mut one, known);
        world.inject(one.address, 1, octets);
        assert_eq!(world.datagrams, 0);
        assert_eq!(world.hosts[1].endpoint.counters().bad_syn, 1);
    }
}

#[test]
fn the_profiles_do_not_hear_each_other() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut open = World::pair(8, &link);
    open.tape = Some(Vec::new());
    open.establish();
    open.carry(0, 1, flow(1), 5_000);
    let mut sealed = World::sealed_pair(8, &link);
    sealed.tape = Some(Vec::new());
    sealed.establish();
    sealed.carry(0, 1, flow(1), 5_000);
    let (from, now) = (open.hosts[0].address, open.now());
    // Open datagrams, as they are and under the sealed hosts' ids.
    let ids = [0, 1].map(|at: usize| sealed.hosts[at].id);
    let before = visible(&sealed, 1);
    for taped in open.tape.take().unwrap() {
        let parsed = Header::parse(&taped.bytes).unwrap();
        let mut header = parsed.header;
        [header.source, header.dest] = ids;
        let rest = &taped.bytes[HEADER_LEN..];
        let renamed = datagram(&header, parsed.payload_len.into(), rest);
        for octets in [taped.bytes.clone(), renamed.into()] {
            sealed.hosts[1].endpoint.handle_datagram(now, from, octets);
        }
    }
    sealed.drive(1);
    assert_eq!(visible(&sealed, 1), before);
    // And the reverse.
    let ids = [0, 1].map(|at: usize| open.hosts[at].id);
    let before = visible(&open, 1);
    for taped in sealed.tape.take().unwrap() {
        if compact::is_compact(&taped.bytes) {
            // names nobody
            open.hosts[1]
                .endpoint
                .handle_datagram(now, from, taped.bytes);
            continue;
        }
        let mut renamed = taped.bytes.to_vec();
        renamed[8..24].copy_from_slice(&ids[0].field());
        renamed[24..40].copy_from_slice(&ids[1].field());
        for octets in [taped.bytes.clone(), renamed.into()] {
            open.hosts[1].endpoint.handle_datagram(now, from, octets);
        }
    }
    open.drive(1);
    assert_eq!(visible(&open, 1), before);
}

#[test]
fn a_session_keeps_its_goodput_under_a_flood_of_ten_for_one() {
    // Processing takes no time here: this is about state, queues and what is sent in answer.
    let link = LinkConfig::new().delay(10 * MS).rate(50_000_000, 200_000);
    let goodput = |flooded: bool| {
        let mut world = World::sealed_pair(9, &link);
        world.establish();
        world.hosts[1].counts_only = true;
        world.send_endless(0, 1, flow(1));
        let mut rng = SimRng::from_seed(10);
        let ids = [world.hosts[0].id, world.hosts[1].id];
        let from = world.hosts[0].address;
        let mut strangers: Vec<Bytes> = Vec::new();
        for n in 0..400 {
            strangers.push(offer(&world, &mut stranger(n, None), n % 2 == 0));
        }
        let mut before = 0;
        for _ in 0..1_000 {
            world.run_for(MS);
            let peer = world.hosts[1].id;
            let sent = world.hosts[0].endpoint.stats(peer).unwrap().packets_sent;
            let real = sent - before;
            before = sent;
            for _ in 0..if flooded { 10 * real } else { 0 } {
                let octets = if rng.chance(0.5) {
                    let session = rng.below(1 << 32) as u32;
                    Bytes::from(forged(&mut rng, ids, session))
                } else {
                    strangers[rng.below(400) as usize].clone()
                };
                let at = SocketAddr::from(([10, 9, rng.below(200) as u8, 1], 7));
                world.inject(if rng.chance(0.5) { from } else { at }, 1, octets);
            }
        }
        let counters = world.hosts[1].endpoint.counters();
        if flooded {
            assert!(counters.cookies_sent > 1_000 && counters.unknown_session > 1_000);
        }
        world.hosts[1].octets_received
    };
    let (free, flooded) = (goodput(false), goodput(true));
    println!("{flooded} octets under the flood, {free} without");
    assert!(flooded * 10 > free * 9, "{flooded} of {free}");
}

#[test]
fn a_flood_of_offers_leaves_no_more_than_the_bound_of_half_open_sessions() {
    let mut world = World::sealed_pair(10, &LinkConfig::new());
    let mut config = Config::default();
    config.set_max_half_open(20).unwrap();
    let local = Local::new(identity(10, 1), 1);
    config.set_sealing(local.clone());
    world.hosts[1].endpoint = Endpoint::new(config, local.node_id(), [5; 32]);
    let mut answered = BTreeSet::new();
    for n in 0..90 {
        let mut one = stranger(n, None);
        let octets = offer(&world, &mut one, n % 2 == 0);
        world.tape = Some(Vec::new());
        world.inject(one.address, 1, octets);
        for taped in world.tape.take().unwrap() {
            answered.insert(taped.to);
        }
    }
    assert_eq!(answered.len(), 90, "each is answered");
    let counters = world.hosts[1].endpoint.counters();
    assert_eq!(counters.syn_overflow, 70, "and the oldest are forgotten");
    world.run_for(60 * SEC);
    assert_eq!(world.hosts[1].endpoint.poll_timeout(), None);
}

#[test]
fn random_octets_never_panic_and_never_begin_anything() {
    let mut world = World::sealed_pair(11, &LinkConfig::new().delay(MS));
    world.establish();
    world.run_for(SEC);
    let before = visible(&world, 0);
    let mut rng = SimRng::from_seed(12);
    let offer = offer_to(&world, 0, 11);
    let (now, from) = (world.now(), world.hosts[1].address);
    for _ in 0..50_000 {
        let octets = if rng.chance(0.3) {
            let len = rng.below(400) as usize;
            rng.bytes(len)
        } else {
            let mut octets = offer.to_vec();
            for _ in 0..rng.range(1..=4) {
                let at = rng.below(octets.len() as u64) as usize;
                octets[at] = rng.below(256) as u8;
            }
            octets.truncate(rng.range(0..=octets.len() as u64) as usize);
            octets
        };
        let octets = BytesMut::from(&octets[..]);
        let endpoint = &mut world.hosts[0].endpoint;
        endpoint.handle_owned_datagram(now, from, None, octets);
    }
    world.drive(0);
    assert_eq!(visible(&world, 0), before);
    assert!(!world.hosts[0].has(&Event::Connected {
        peer: world.hosts[1].id,
        address: "10.66.0.1:66".parse().unwrap(),
    }));
    world.run_for(Duration::from_secs(1));
}
