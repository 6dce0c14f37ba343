//! Nodes that are killed at any moment and come back with what they had on disk: what was being
//! sent arrives, whole and once, or both ends say why not.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use common::{Host, Received, World};
use vmdt_node::{Event, MessageId};
use vmdt_testkit::{LinkConfig, SimRng, run_seeds};

const SENDER: usize = 0;
const RECEIVER: usize = 1;
const HOLDER: usize = 2;

fn tune(config: &mut vmdt_node::CoreConfig) {
    config.set_segment(16 * 1024).unwrap();
    config.set_request_timeout(Duration::from_secs(30)).unwrap();
    config.set_stall_timeout(Duration::from_secs(60)).unwrap();
}

/// Five nodes on good links of 20 Mbit/s and 10 ms, any 3 of 5 shares.
fn five(seed: u64) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024);
    let mut w = World::durable(seed, 5, link, |_| true, tune);
    w.cluster(5, 3, false);
    w
}

fn content(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i / 7) as u8 ^ i as u8)
        .collect::<Vec<u8>>()
        .into()
}

fn copies<'a>(w: &'a World, i: usize, wanted: &MessageId) -> Vec<&'a Bytes> {
    let of = |r: &'a Received| match r {
        Received::Message { id, data, .. } => (id == wanted).then_some(data),
        Received::File { id, content, .. } => (id == wanted).then_some(content),
    };
    w.hosts[i].received.iter().filter_map(of).collect()
}

fn arrived(w: &World, i: usize, id: &MessageId) -> bool {
    !copies(w, i, id).is_empty()
}

/// Waits for the sender's end of a transfer.
fn until_done(w: &mut World, id: &MessageId, within: Duration) -> Result<(), String> {
    w.run_until(within, |w| w.hosts[SENDER].done.contains_key(id))?;
    match &w.hosts[SENDER].done[id] {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Kills a node at a random moment of a transfer, brings it back after a random while, and holds the
/// outcome against the promise.
fn killed(who: usize, file: bool, seed: u64) -> Result<(), String> {
    let mut dice = SimRng::from_seed(seed).fork("kill");
    let mut w = five(seed);
    let size = if file {
        1_500_000
    } else {
        dice.range(1..=600_000u64) as usize
    };
    let content = content(size);
    let id = w
        .send(SENDER, RECEIVER, file.then_some("f"), content.clone())
        .map_err(|e| e.to_string())?;
    // the whole takes about a second
    w.run_for(dice.duration(Duration::from_millis(if file { 1500 } else { 600 })));
    w.kill(who);
    w.run_for(dice.duration(Duration::from_secs(20)));
    w.restart(who);
    let kept = w.hosts[SENDER].done.contains_key(&id)
        || who != SENDER
        || w.hosts[SENDER].core.is_sending(id);
    // killed while the application was being given a message: whether it has it nobody knows any
    // more. It is not given it again, and its sender is told so.
    let mut unsure = false;
    if kept {
        let done = until_done(&mut w, &id, Duration::from_secs(600));
        let ended = |e: &String| e.contains("has ended at the receiver");
        unsure = who == RECEIVER && !file && done.as_ref().is_err_and(ended);
        done.or_else(|error| if unsure { Ok(()) } else { Err(error) })?;
    } else {
        // killed before it was on disk that it was to be sent: nothing of it was either
        w.run_for(Duration::from_secs(200));
    }
    w.run_for(Duration::from_secs(30));
    let copies = copies(&w, RECEIVER, &id);
    match (kept, copies.as_slice()) {
        (true, [one]) if **one == content => {}
        (true, []) if unsure => {}
        (false, []) => {}
        (kept, copies) => return Err(format!("kept: {kept}, {} copies", copies.len())),
    }
    w.check_privacy(3, &[SENDER, RECEIVER])?;
    for host in &w.hosts {
        let disk = host.disk.as_ref().unwrap();
        if !disk.parts.is_empty() {
            return Err(format!("parts are left: {:?}", disk.parts.keys()));
        }
    }
    // nothing is left behind: what a holder did not hear of it asks about every ten minutes
    let is_left = |host: &Host| host.core.pool_usage().entries > 0;
    let left = w.run_until(Duration::from_secs(11 * 60), |w| {
        !w.hosts.iter().any(is_left)
    });
    left.map_err(|_| {
        let held = w.hosts.iter().filter(|host| is_left(host));
        let held: Vec<_> = held.map(|h| (h.id, h.core.pool_usage())).collect();
        format!("still held: {held:?}")
    })
}

#[test]
fn a_sender_killed_at_any_point_of_a_file_goes_on() {
    run_seeds(0..25, |seed| killed(SENDER, true, seed));
}

#[test]
fn a_sender_killed_at_any_point_of_a_message_goes_on() {
    run_seeds(100..125, |seed| killed(SENDER, false, seed));
}

#[test]
fn a_receiver_killed_at_any_point_of_a_file_goes_on() {
    run_seeds(200..225, |seed| killed(RECEIVER, true, seed));
}

#[test]
fn a_receiver_killed_at_any_point_of_a_message_goes_on() {
    run_seeds(300..325, |seed| killed(RECEIVER, false, seed));
}

#[test]
fn a_holder_killed_at_any_point_costs_nothing() {
    run_seeds(400..425, |seed| killed(HOLDER, true, seed));
}

#[test]
fn a_holder_killed_at_any_point_of_a_message_costs_nothing() {
    run_seeds(500..525, |seed| killed(HOLDER, false, seed));
}

/// Small enough to wait at holders whole: a sender leaves as many segments there as fit its window.
fn deposit(w: &mut World, name: Option<&str>, content: &Bytes) -> MessageId {
    w.kill(RECEIVER);
    w.run_for(Duration::from_secs(5));
    let id = w.send(SENDER, RECEIVER, name, content.clone()).unwrap();
    let deposited = |w: &World| {
        let mut events = w.hosts[SENDER].events.iter();
        events.any(|e| matches!(e, Event::Deposited { id: i, .. } if *i == id))
    };
    w.run_until(Duration::from_secs(60), deposited).unwrap();
    id
}

#[test]
fn what_was_deposited_is_fetched_without_its_sender_and_confirmed_when_that_returns() {
    for (seed, name) in [(1, None), (2, Some("f"))] {
        let mut w = five(seed);
        let content = content(90_000);
        let id = deposit(&mut w, name, &content);
        w.kill(SENDER);
        w.run_for(Duration::from_secs(8 * 3600));
        // holders are restarted meanwhile
        for holder in 2..5 {
            w.kill(holder);
            w.run_for(Duration::from_secs(2));
            w.restart(holder);
        }
        w.run_for(Duration::from_secs(60));
        w.restart(RECEIVER);
        w.run_until(Duration::from_secs(60), |w| arrived(w, RECEIVER, &id))
            .unwrap();
        w.run_for(Duration::from_secs(30));
        for holder in 2..5 {
            let usage = w.hosts[holder].core.pool_usage();
            assert_eq!(
                usage.entries, 0,
                "the receiver has told them that it has it"
            );
        }
        w.restart(SENDER);
        until_done(&mut w, &id, Duration::from_secs(60)).unwrap();
        w.run_for(Duration::from_secs(30));
        assert_eq!(copies(&w, RECEIVER, &id), [&content]);
        let told = |e: &Event| matches!(e, Event::Delivered { id: i, .. } if *i == id);
        assert!(w.hosts[SENDER].events.iter().any(told));
        w.check_privacy(3, &[SENDER, RECEIVER]).unwrap();
    }
}

#[test]
fn what_was_deposited_waits_for_a_receiver_while_its_sender_stays() {
    let mut w = five(3);
    let content = content(90_000);
    let id = deposit(&mut w, None, &content);
    w.run_for(Duration::from_secs(1800));
    assert!(!w.hosts[SENDER].done.contains_key(&id), "it waits");
    w.restart(RECEIVER);
    until_done(&mut w, &id, Duration::from_secs(60)).unwrap();
    assert_eq!(copies(&w, RECEIVER, &id), [&content]);
}

#[test]
fn a_sender_takes_back_what_it_deposited() {
    let mut w = five(4);
    let id = deposit(&mut w, None, &content(90_000));
    assert!(w.hosts[2].core.pool_usage().entries > 0);
    w.kill(SENDER);
    w.restart(SENDER);
    w.run_for(Duration::from_secs(5));
    w.with(SENDER, |core, now| core.cancel(now, id));
    w.run_for(Duration::from_secs(20));
    for holder in 2..5 {
        assert_eq!(w.hosts[holder].core.pool_usage().entries, 0);
    }
    w.restart(RECEIVER);
    w.run_for(Duration::from_secs(60));
    assert!(copies(&w, RECEIVER, &id).is_empty());
}

#[test]
fn what_nobody_fetches_in_time_is_given_up_everywhere() {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::durable(
        5,
        5,
        link,
        |_| true,
        |config| {
            tune(config);
            config.set_expiry(Duration::from_secs(300)).unwrap();
        },
    );
    w.cluster(5, 3, false);
    let id = deposit(&mut w, None, &content(90_000));
    w.run_for(Duration::from_secs(400));
    let error = w.hosts[SENDER].done[&id].as_ref().unwrap_err();
    assert!(
        matches!(error, vmdt_node::TransferError::Expired { .. }),
        "{error}"
    );
    for host in &w.hosts {
        assert_eq!(host.core.pool_usage().entries, 0);
    }
    w.restart(RECEIVER);
    w.run_for(Duration::from_secs(60));
    assert!(copies(&w, RECEIVER, &id).is_empty());
}

#[test]
fn a_full_disk_of_the_sender_is_an_error_before_anything_is_sent() {
    let mut w = five(6);
    w.run_for(Duration::from_secs(1));
    let disk = w.hosts[SENDER].disk.as_mut().unwrap();
    let used = disk.store.octets();
    disk.store.set_limit(Some(used));
    let id = w.send(SENDER, RECEIVER, None, content(50_000)).unwrap();
    let error = until_done(&mut w, &id, Duration::from_secs(20)).unwrap_err();
    assert!(error.contains("no space left"), "{error}");
    assert!(w.carriage.keys().all(|(from, ..)| *from != w.id(SENDER)));
    let told = |e: &Event| matches!(e, Event::StorageFailed { .. });
    assert!(w.hosts[SENDER].events.iter().any(told));
    // and when there is room again
    w.hosts[SENDER].disk.as_mut().unwrap().store.set_limit(None);
    w.run_for(Duration::from_secs(60));
    let id = w.send(SENDER, RECEIVER, None, content(50_000)).unwrap();
    until_done(&mut w, &id, Duration::from_secs(60)).unwrap();
}

#[test]
fn a_full_disk_of_the_receiver_is_told_to_the_sender() {
    let mut w = five(7);
    w.run_for(Duration::from_secs(1));
    let disk = w.hosts[RECEIVER].disk.as_mut().unwrap();
    let used = disk.store.octets();
    disk.store.set_limit(Some(used));
    let id = w.send(SENDER, RECEIVER, None, content(50_000)).unwrap();
    let error = until_done(&mut w, &id, Duration::from_secs(60)).unwrap_err();
    assert!(error.contains("no space left"), "{error}");
    w.run_for(Duration::from_secs(60));
    assert!(copies(&w, RECEIVER, &id).is_empty(), "an error is an error");
}

#[test]
fn a_holder_with_a_full_disk_confirms_nothing_and_the_others_do() {
    let mut w = five(8);
    w.run_for(Duration::from_secs(1));
    let disk = w.hosts[HOLDER].disk.as_mut().unwrap();
    let used = disk.store.octets();
    disk.store.set_limit(Some(used));
    let content = content(60_000);
    let id = deposit(&mut w, None, &content);
    let host = &w.hosts[HOLDER];
    assert_eq!(host.disk.as_ref().unwrap().store.octets(), used);
    // so it can go without a loss
    w.kill(HOLDER);
    w.kill(SENDER);
    w.restart(RECEIVER);
    w.run_until(Duration::from_secs(60), |w| arrived(w, RECEIVER, &id))
        .unwrap();
    assert_eq!(copies(&w, RECEIVER, &id), [&content]);
}

/// Everybody is killed again and again, on bad links; several transfers in both directions.
fn carnage(seed: u64, arrivals: &Cell<(usize, usize)>) -> Result<(), String> {
    let mut dice = SimRng::from_seed(seed).fork("carnage");
    let link = LinkConfig::sample(&mut dice.fork("link"), 0.1);
    let mut w = World::durable(seed, 5, link, |_| true, tune);
    w.cluster(5, 3, false);
    let mut sent = Vec::new();
    for _ in 0..dice.range(2..=4u64) {
        let size = dice.range(1..=200_000u64) as usize;
        let content = Bytes::from(dice.bytes(size));
        let name = dice.chance(0.5).then_some("f");
        let (from, to) = if dice.chance(0.5) { (0, 1) } else { (1, 0) };
        let id = w.send(from, to, name, content.clone());
        sent.push((from, to, id.map_err(|e| e.to_string())?, content));
        w.run_for(dice.duration(Duration::from_millis(500)));
    }
    for _ in 0..dice.range(3..=8u64) {
        let who = dice.below(5) as usize;
        w.kill(who);
        w.run_for(dice.duration(Duration::from_secs(5)));
        w.restart(who);
        w.run_for(dice.duration(Duration::from_secs(5)));
    }
    let over = |w: &World| {
        sent.iter().all(|(from, _, id, _)| {
            let host = &w.hosts[*from];
            host.done.contains_key(id) || !host.core.is_sending(*id)
        })
    };
    w.run_until(Duration::from_secs(3600), over)?;
    w.run_for(Duration::from_secs(60));
    for (from, to, id, content) in &sent {
        let copies = copies(&w, *to, id);
        let confirmed = matches!(w.hosts[*from].done.get(id), Some(Ok(_)));
        let (sum, all) = arrivals.get();
        arrivals.set((sum + copies.len(), all + 1));
        match copies.as_slice() {
            [one] if *one == content => {}
            [] if !confirmed => {}
            copies => {
                let n = copies.len();
                return Err(format!("{id}: {n} copies, confirmed: {confirmed}"));
            }
        }
    }
    w.check_privacy(3, &[0, 1])
}

#[test]
fn whoever_is_killed_whenever_nothing_arrives_twice_or_in_part() {
    let arrivals = Cell::new((0, 0));
    run_seeds(1000..1060, |seed| carnage(seed, &arrivals));
    // what was on disk at its sender when that was killed goes on
    let (arrived, sent) = arrivals.get();
    assert!(arrived * 100 >= sent * 95, "{arrived} of {sent}");
}

#[test]
fn the_same_seed_gives_the_same_restarts() {
    let run = |seed| {
        let mut w = five(seed);
        let id = w.send(SENDER, RECEIVER, None, content(100_000)).unwrap();
        w.run_for(Duration::from_millis(70));
        w.kill(RECEIVER);
        w.restart(RECEIVER);
        until_done(&mut w, &id, Duration::from_secs(100)).unwrap();
        w.network.trace()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Deposits at four holders, of which one goes, and a while later another; then the sender. Whether
/// the receiver still gets it.
fn two_holders_lost(repair_after: Duration) -> (bool, World) {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::durable(
        9,
        6,
        link,
        |_| true,
        |config| {
            tune(config);
            config.set_repair_after(repair_after).unwrap();
        },
    );
    w.cluster(5, 3, false);
    let content = content(90_000);
    let id = deposit(&mut w, None, &content);
    for holder in [2, 3] {
        w.kill(holder);
        w.run_for(Duration::from_secs(120));
    }
    w.kill(SENDER);
    w.restart(RECEIVER);
    w.run_for(Duration::from_secs(300));
    w.check_privacy(3, &[SENDER, RECEIVER]).unwrap();
    (copies(&w, RECEIVER, &id) == [&content], w)
}

#[test]
fn shares_of_a_holder_that_stays_away_are_made_good_while_their_sender_is_there() {
    let (arrived, w) = two_holders_lost(Duration::from_secs(60));
    assert!(arrived);
    let repaired = |e: &Event| matches!(e, Event::Repaired { .. });
    assert!(w.hosts[SENDER].events.iter().any(repaired));
    // without a repair there are not enough
    let (arrived, _) = two_holders_lost(Duration::from_secs(3600));
    assert!(!arrived);
}

#[test]
fn members_are_asked_whether_they_answer_and_those_that_do_not_are_told_of() {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::new(10, 5, link, |config| {
        tune(config);
        config
            .set_health_checks(Some(Duration::from_secs(5)))
            .unwrap();
    });
    w.cluster(5, 3, false);
    w.run_for(Duration::from_secs(10));
    let (lost, of) = (w.id(4), |w: &World, up: bool| {
        let lost = w.id(4);
        let events = w.hosts[0].events.iter();
        let told = events.filter(|e| match e {
            Event::PeerUp { peer } => up && *peer == lost,
            Event::PeerDown { peer } => !up && *peer == lost,
            _ => false,
        });
        told.count()
    });
    assert_eq!((of(&w, true), of(&w, false)), (1, 0));
    let report = |w: &mut World| {
        let reports = w.with(0, |core, now| core.peer_reports(now));
        reports.into_iter().find(|r| r.peer == lost).unwrap()
    };
    let before = report(&mut w);
    assert_eq!(before.health, vmdt_node::Health::Up);
    assert!(before.srtt.is_some() && before.score > 0.5);
    w.kill(4);
    w.run_for(Duration::from_secs(60));
    assert_eq!((of(&w, true), of(&w, false)), (1, 1), "said once");
    let down = report(&mut w);
    assert_eq!(down.health, vmdt_node::Health::Down);
    assert!(down.unanswered >= 3 && down.score < before.score);
    w.restart(4);
    let rejoined = w.now();
    let up = |w: &World| {
        let events = w.hosts[0].events.iter();
        events
            .filter(|e| matches!(e, Event::PeerUp { peer } if *peer == lost))
            .count()
            == 2
    };
    // it is no member any more until it joins, and is asked all the same
    w.run_until(Duration::from_secs(400), up).unwrap();
    assert!(
        w.now() - rejoined < Duration::from_secs(310),
        "the pause is bounded"
    );
}

#[test]
fn holders_with_little_room_do_not_stop_a_transfer_whose_segments_are_confirmed_in_order() {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024)
        .loss(0.02);
    for (seed, direct) in [(11, true), (12, false), (13, false)] {
        let mut w = World::durable(
            seed,
            5,
            link.clone(),
            |_| true,
            |config| {
                tune(config);
                config.set_segment(64 * 1024).unwrap();
                config.set_pool_octets(1 << 20).unwrap();
                config.set_allow_direct(direct);
            },
        );
        w.cluster(5, 3, false);
        let content = content(4_000_000);
        let id = w
            .send(SENDER, RECEIVER, Some("f"), content.clone())
            .unwrap();
        until_done(&mut w, &id, Duration::from_secs(300)).unwrap();
        assert_eq!(copies(&w, RECEIVER, &id), [&content]);
    }
}
