//! Sealed offers that cross: whatever is lost of either handshake, both ends come to one session, no
//! application hears of another, and what was queued goes on in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{MS, SEC, World, flow};
use vmdt_rdt::{Config, Event, SessionState};
use vmdt_testkit::{LinkConfig, SimRng, run_seeds};
use vmdt_wire::{HEADER_LEN, PacketType};

fn link() -> LinkConfig {
    LinkConfig::new().delay(30 * MS)
}

/// A pair, with the host first whose id is the smaller one or is not: the smaller one's offer wins.
fn pair(first_wins: bool, link: &LinkConfig, config: &Config) -> World {
    let world = |seed| World::sealed(seed, vec![config.clone(), config.clone()], link);
    (0..)
        .map(world)
        .find(|world| (world.hosts[0].id < world.hosts[1].id) == first_wins)
        .unwrap()
}

/// The waits that the moments in these tests are told by.
fn config() -> Config {
    let mut config = Config::default();
    config.set_connect_retry(200 * MS).unwrap();
    config
}

/// Whether what a host sends the other gets lost from now on.
fn cut(world: &mut World, from: usize, gone: bool) {
    let loss = if gone { 1.0 } else { 0.0 };
    let link = world.links.get_mut(&(from, 1 - from)).unwrap();
    link.set_config(self::link().loss(loss));
}

/// Opens a session with the other, who is not at that address.
fn connect_wrongly(world: &mut World, host: usize) {
    let (now, peer) = (world.now(), world.hosts[1 - host].id);
    let wrong = "10.9.9.9:9".parse().unwrap();
    world.hosts[host].endpoint.connect(now, peer, wrong);
    world.drive(host);
}

/// Handshake messages of these types that a host sent.
fn messages(world: &World, host: usize, types: [u8; 2]) -> Vec<Bytes> {
    let from = world.hosts[host].address;
    let is_one = |bytes: &Bytes| {
        let header = common::header_of(bytes);
        header.kind == PacketType::Syn && types.contains(&bytes[HEADER_LEN])
    };
    let tape = world.tape.iter().flatten();
    tape.filter(|taped| taped.from == from)
        .map(|taped| taped.bytes.clone())
        .filter(is_one)
        .collect()
}

/// Both have the one session that their applications know of, and all that was sent.
fn is_one_session(world: &World) -> Result<(), String> {
    for at in 0..2 {
        let (host, peer) = (&world.hosts[at], world.hosts[1 - at].id);
        let state = host.endpoint.state(peer);
        let ends = (host.connected(), host.closed(), state);
        if ends != (1, Vec::new(), Some(SessionState::Established)) {
            return Err(format!("host {at}: {ends:?}"));
        }
        if !host.delivered.contains(&(peer, flow(1 + at as u16))) {
            return Err(format!("host {at}: not all is delivered"));
        }
    }
    Ok(())
}

/// Both send something.
fn send(world: &mut World) {
    world.send(0, 1, flow(1), vec![7; 10_000]);
    world.send(1, 0, flow(2), vec![8; 10_000]);
}

#[test]
fn a_lost_ack_leaves_an_address_that_is_not_proven_enough_to_ask_again() {
    let mut world = pair(true, &link(), &config());
    connect_wrongly(&mut world, 0);
    world.connect(1, 0);
    world.send(0, 1, flow(1), vec![7; 10_000]);
    // the confirmation, which would have proven the address with its answer
    world.run_for(80 * MS);
    cut(&mut world, 0, true);
    world.run_for(50 * MS);
    cut(&mut world, 0, false);
    // the first acknowledgment
    assert!(world.run_until(SEC, |world| world.hosts[1].connected() > 0));
    world.run_for(5 * MS);
    cut(&mut world, 1, true);
    world.run_for(100 * MS);
    cut(&mut world, 1, false);
    world.run_for(10 * SEC);
    world.send(1, 0, flow(2), vec![8; 10_000]);
    world.run_for(SEC);
    is_one_session(&world).unwrap();
}

#[test]
fn both_come_to_the_session_of_the_smaller_id_when_each_got_an_answer_to_its_own_offer() {
    for (known, first_wins) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = pair(first_wins, &link(), &config());
        if known {
            world.introduce();
        }
        world.tape = Some(Vec::new());
        world.connect(0, 1);
        world.send(0, 1, flow(1), vec![7; 10_000]);
        cut(&mut world, 1, true);
        world.run_for(35 * MS);
        cut(&mut world, 1, false);
        let answer = messages(&world, 1, [3, 4]).remove(0);
        world.connect(1, 0);
        world.send(1, 0, flow(2), vec![8; 10_000]);
        // Its offer is answered, and then the answer comes that was late.
        world.run_for(35 * MS);
        assert_eq!(messages(&world, 0, [3, 4]).len(), usize::from(!first_wins));
        let from = world.hosts[1].address;
        world.inject(from, 0, answer);
        world.run_for(2 * SEC);
        is_one_session(&world).unwrap();
    }
}

#[test]
fn an_offer_that_crossed_asks_for_the_confirmation_for_as_long_as_that_is_missing() {
    let mut config = config();
    config.set_connect_timeout(2 * SEC).unwrap();
    let mut world = pair(true, &link(), &config);
    world.tape = Some(Vec::new());
    world.connect(0, 1);
    world.connect(1, 0);
    send(&mut world);
    // Confirmations are lost until an offer comes for the fifth time.
    world.run_for(45 * MS);
    cut(&mut world, 0, true);
    world.run_for(1455 * MS);
    assert_eq!(world.hosts[0].connected(), 1);
    assert_eq!(world.hosts[1].connected(), 0);
    cut(&mut world, 0, false);
    world.run_for(3 * SEC);
    assert_eq!(messages(&world, 0, [3, 4]), Vec::<Bytes>::new());
    is_one_session(&world).unwrap();
}

#[test]
fn a_peer_that_restarted_while_its_confirmation_was_missing_has_what_was_queued() {
    for first_wins in [true, false] {
        let mut world = pair(first_wins, &link(), &config());
        world.connect(0, 1);
        send(&mut world);
        world.run_for(45 * MS);
        cut(&mut world, 0, true);
        world.run_for(100 * MS);
        assert_eq!(world.hosts[0].connected(), 1);
        world.restart(1, config());
        world.connect(1, 0);
        world.send(1, 0, flow(2), vec![8; 10_000]);
        world.run_for(SEC);
        cut(&mut world, 0, false);
        world.run_for(5 * SEC);
        is_one_session(&world).unwrap();
    }
}

#[test]
fn an_offer_that_crosses_ends_the_long_waits_of_the_other() {
    let mut world = pair(true, &link(), &config());
    connect_wrongly(&mut world, 0);
    cut(&mut world, 1, true);
    world.connect(1, 0);
    // The wait is more than a second when an offer comes through for the first time.
    world.run_for(1440 * MS);
    cut(&mut world, 1, false);
    world.run_for(55 * MS);
    cut(&mut world, 1, true);
    world.run_for(100 * MS);
    cut(&mut world, 1, false);
    world.run_for(400 * MS);
    let connected = |e: &&(Duration, Event)| matches!(e.1, Event::Connected { .. });
    for host in &world.hosts {
        assert_eq!(host.events.iter().filter(connected).count(), 1);
    }
}

#[test]
fn offers_that_cross_become_one_session_whatever_is_lost_late_and_unknown() {
    let mut config = Config::default();
    config.set_connect_timeout(60 * SEC).unwrap();
    run_seeds(0..300, |seed| {
        let mut dice = SimRng::from_seed(seed).fork("crossing");
        let mut link = link().loss(dice.below(200) as f64 / 1000.0);
        if dice.chance(0.5) {
            link = link.jitter(40 * MS).reorder(0.2, 60 * MS);
        }
        let mut world = World::sealed(seed, vec![config.clone(), config.clone()], &link);
        if dice.chance(0.5) {
            world.introduce();
        }
        match dice.chance(0.5) {
            true => connect_wrongly(&mut world, 0),
            false => world.connect(0, 1),
        }
        world.run_for(dice.duration(500 * MS));
        world.connect(1, 0);
        send(&mut world);
        world.run_for(30 * SEC);
        is_one_session(&world)
    });
}
