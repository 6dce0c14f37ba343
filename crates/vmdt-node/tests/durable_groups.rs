//! Messages to several receivers that outlive their nodes: whoever is killed or away, each receiver
//! gets what was sent, whole and once, or is named with the reason.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::{Disk, Received, World};
use vmdt_node::core::CoreConfig;
use vmdt_node::{Event, MessageId, NodeId, TransferError};
use vmdt_testkit::{LinkConfig, SimRng, run_seeds};

const SENDER: usize = 0;
const RECEIVERS: [usize; 3] = [1, 2, 3];

fn link() -> LinkConfig {
    LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024)
}

fn tune(config: &mut CoreConfig) {
    config.set_segment(16 * 1024).unwrap();
    config.set_request_timeout(Duration::from_secs(30)).unwrap();
    config.set_stall_timeout(Duration::from_secs(60)).unwrap();
}

/// Seven nodes, any 3 of 5 shares; all keep what they have.
fn seven(seed: u64, tune: impl Fn(&mut CoreConfig)) -> World {
    let mut w = World::durable(seed, 7, link(), |_| true, tune);
    w.cluster(5, 3, false);
    w
}

fn content(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn copies<'a>(w: &'a World, i: usize, wanted: &MessageId) -> Vec<&'a Bytes> {
    let of = |r: &'a Received| match r {
        Received::Message { id, data, .. } => (id == wanted).then_some(data),
        Received::File { id, content, .. } => (id == wanted).then_some(content),
    };
    w.hosts[i].received.iter().filter_map(of).collect()
}

/// Whom the sender's application was told to have it, in all its lives.
fn told(w: &World, of: MessageId) -> Vec<NodeId> {
    let reached = |event: &Event| match event {
        Event::DeliveredTo { id, to } if *id == of => Some(*to),
        _ => None,
    };
    w.hosts[SENDER].events.iter().filter_map(reached).collect()
}

fn until_done(w: &mut World, id: MessageId, within: u64) -> Result<(), String> {
    let within = Duration::from_secs(within);
    w.run_until(within, |w| w.hosts[SENDER].done.contains_key(&id))?;
    match &w.hosts[SENDER].done[&id] {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn nothing_is_left(w: &World) -> Result<(), String> {
    for host in w.hosts.iter().filter(|host| host.alive) {
        let usage = host.core.pool_usage();
        if (usage.entries, usage.octets) != (0, 0) {
            return Err(format!("{} still holds {usage:?}", host.id));
        }
        let parts = host.disk.as_ref().map(|disk| disk.parts.len());
        if parts.unwrap_or(0) != 0 {
            return Err(format!("parts are left at {}", host.id));
        }
    }
    Ok(())
}

/// Whether a receiver that was killed is named as the only one that has it not, since nobody knows:
/// it was killed while its application was being given a message, which it is not given again.
fn is_unsure(w: &World, who: usize, id: MessageId) -> bool {
    let Some(Err(TransferError::Group(failure))) = w.hosts[SENDER].done.get(&id) else {
        return false;
    };
    let [(peer, error)] = failure.failed.as_slice() else {
        return false;
    };
    let ended = error.to_string().contains("has ended at the receiver");
    w.hosts[who].unheard && *peer == w.id(who) && ended && copies(w, who, &id).is_empty()
}

/// Kills a node at a random moment, brings it back after a random while, and holds the outcome
/// against the promise.
fn killed(who: usize, file: bool, seed: u64) -> Result<(), String> {
    let mut dice = SimRng::from_seed(seed).fork("kill");
    let mut w = seven(seed, tune);
    let size = match file {
        true => 1_200_000,
        false => dice.range(1..=400_000u64) as usize,
    };
    let data = content(size);
    let id = w
        .send_group(SENDER, &RECEIVERS, file.then_some("f"), data.clone())
        .map_err(|e| e.to_string())?;
    w.run_for(dice.duration(Duration::from_millis(if file { 1500 } else { 600 })));
    w.kill(who);
    w.run_for(dice.duration(Duration::from_secs(20)));
    w.restart(who);
    let kept = w.hosts[SENDER].done.contains_key(&id)
        || who != SENDER
        || w.hosts[SENDER].core.is_sending(id);
    let mut reached = RECEIVERS.to_vec();
    if kept {
        let done = until_done(&mut w, id, 600);
        if done.is_err() && !file && is_unsure(&w, who, id) {
            reached.retain(|receiver| *receiver != who);
        } else {
            done?;
        }
    } else {
        w.run_for(Duration::from_secs(200));
    }
    w.run_for(Duration::from_secs(30));
    for receiver in RECEIVERS {
        match (kept, copies(&w, receiver, &id).as_slice()) {
            (true, [one]) if **one == data => {}
            (true, []) if !reached.contains(&receiver) => {}
            (false, []) => {}
            (kept, copies) => return Err(format!("kept: {kept}, {} copies", copies.len())),
        }
    }
    if kept {
        let told = told(&w, id);
        let all: BTreeSet<NodeId> = reached.iter().map(|i| w.id(*i)).collect();
        if told.len() < all.len() || told.into_iter().collect::<BTreeSet<_>>() != all {
            return Err("not every receiver was named".into());
        }
    }
    w.check_privacy(3, &[SENDER, 1, 2, 3])?;
    // holders whose word was lost with a process compare notes with the sender
    w.run_for(Duration::from_secs(1300));
    nothing_is_left(&w)
}

#[test]
fn a_sender_killed_at_any_point_goes_on_for_all_receivers() {
    run_seeds(0..15, |seed| killed(SENDER, true, seed));
    run_seeds(100..115, |seed| killed(SENDER, false, seed));
}

/// A sender is killed in the instant in which its application was told that all have it.
fn killed_at_its_end(file: bool, seed: u64) -> Result<(), String> {
    let mut w = seven(seed, tune);
    let data = content(100_000);
    let id = w
        .send_group(SENDER, &RECEIVERS, file.then_some("f"), data.clone())
        .map_err(|e| e.to_string())?;
    until_done(&mut w, id, 60)?;
    w.kill(SENDER);
    w.run_for(Duration::from_secs(5));
    w.restart(SENDER);
    // it may have to go on, as that was not on disk
    until_done(&mut w, id, 150)?;
    w.run_for(Duration::from_secs(5));
    for receiver in RECEIVERS {
        if copies(&w, receiver, &id) != [&data] {
            return Err(format!("node {receiver} has another number of copies"));
        }
    }
    Ok(())
}

#[test]
fn a_sender_killed_at_the_end_of_a_transfer_ends_it_as_before_and_sends_nobody_a_copy() {
    run_seeds(0..20, |seed| killed_at_its_end(true, seed));
    run_seeds(20..40, |seed| killed_at_its_end(false, seed));
}

#[test]
fn a_receiver_killed_at_any_point_goes_on() {
    run_seeds(200..215, |seed| killed(1, true, seed));
    run_seeds(300..315, |seed| killed(1, false, seed));
}

#[test]
fn a_holder_killed_at_any_point_costs_no_receiver_anything() {
    run_seeds(400..410, |seed| killed(5, true, seed));
}

/// A receiver is killed early on. What it has not got is at holders in part, and there alone, and in
/// part at its sender as well. The holders lose what they have, and it comes back.
fn holders_lose_what_was_left(seed: u64) -> Result<(), String> {
    let mut dice = SimRng::from_seed(seed).fork("lost");
    let mut w = seven(seed, tune);
    let data = content(1_200_000);
    let id = w
        .send_group(SENDER, &RECEIVERS, Some("f"), data.clone())
        .map_err(|e| e.to_string())?;
    w.run_for(Duration::from_millis(150) + dice.duration(Duration::from_millis(300)));
    w.kill(1);
    w.run_for(Duration::from_secs(20));
    empty_disks(&mut w);
    w.restart(1);
    until_done(&mut w, id, 150)?;
    for receiver in RECEIVERS {
        if copies(&w, receiver, &id) != [&data] {
            return Err(format!("node {receiver} has another number of copies"));
        }
    }
    Ok(())
}

#[test]
fn what_holders_lost_of_a_deposit_is_read_again_before_what_comes_after_it() {
    run_seeds(0..10, holders_lose_what_was_left);
}

/// Sends to all three receivers, of whom the first is away, until the others have it and the rest
/// waits at holders.
fn deposit(w: &mut World, name: Option<&str>, data: &Bytes) -> MessageId {
    w.kill(1);
    w.run_for(Duration::from_secs(5));
    let id = w
        .send_group(SENDER, &RECEIVERS, name, data.clone())
        .unwrap();
    let others: BTreeSet<NodeId> = [w.id(2), w.id(3)].into();
    w.run_until(Duration::from_secs(120), |w| {
        told(w, id).into_iter().collect::<BTreeSet<_>>() == others
            && w.hosts[SENDER]
                .events
                .iter()
                .any(|e| matches!(e, Event::Deposited { id: of, .. } if *of == id))
    })
    .unwrap();
    id
}

/// The holders of what waits for a receiver come back with empty disks, before it does.
fn empty_disks(w: &mut World) {
    for holder in 4..7 {
        w.kill(holder);
        w.hosts[holder].disk = Some(Disk::default());
        w.restart(holder);
        let ticket = w.ticket.clone().unwrap();
        w.with(holder, |core, now| core.join_sealed(now, &ticket).unwrap());
    }
    w.run_for(Duration::from_secs(5));
}

#[test]
fn what_holders_lost_of_what_its_sender_still_has_is_given_to_them_again() {
    for (seed, name) in [(74, None), (75, Some("f"))] {
        let mut w = seven(seed, tune);
        // fewer segments than the window: its sender has the shares in memory
        let data = content(90_000);
        let id = deposit(&mut w, name, &data);
        empty_disks(&mut w);
        w.restart(1);
        until_done(&mut w, id, 30).unwrap();
        for receiver in RECEIVERS {
            assert_eq!(copies(&w, receiver, &id), [&data], "node {receiver}");
        }
        w.check_privacy(3, &[SENDER, 1, 2, 3]).unwrap();
    }
    // a receiver that was killed with two shares of three in its hands
    holders_lose_what_was_left(74).unwrap();
}

#[test]
fn a_receiver_that_was_away_fetches_without_the_sender_and_the_others_did_not_wait_for_it() {
    for (seed, name) in [(1, None), (2, Some("f"))] {
        let mut w = seven(seed, tune);
        let data = content(90_000);
        let id = deposit(&mut w, name, &data);
        w.kill(SENDER);
        w.run_for(Duration::from_secs(3600));
        for holder in 4..7 {
            w.kill(holder);
            w.run_for(Duration::from_secs(2));
            w.restart(holder);
        }
        w.run_for(Duration::from_secs(30));
        w.restart(1);
        w.run_until(Duration::from_secs(90), |w| !copies(w, 1, &id).is_empty())
            .unwrap();
        w.run_for(Duration::from_secs(30));
        w.restart(SENDER);
        until_done(&mut w, id, 150).unwrap();
        w.run_for(Duration::from_secs(1300));
        for receiver in RECEIVERS {
            assert_eq!(copies(&w, receiver, &id), [&data], "node {receiver}");
        }
        let delivered = |e: &Event| matches!(e, Event::Delivered { id: of, .. } if *of == id);
        assert!(w.hosts[SENDER].events.iter().any(delivered));
        let told: BTreeSet<NodeId> = told(&w, id).into_iter().collect();
        assert_eq!(told.len(), 3);
        w.check_privacy(3, &[SENDER, 1, 2, 3]).unwrap();
        nothing_is_left(&w).unwrap();
    }
}

#[test]
fn it_waits_for_a_receiver_while_its_sender_stays_and_is_there_for_it_at_once() {
    let mut w = seven(3, tune);
    let data = content(90_000);
    let id = deposit(&mut w, None, &data);
    w.run_for(Duration::from_secs(1800));
    assert!(!w.hosts[SENDER].done.contains_key(&id), "it waits");
    w.restart(1);
    until_done(&mut w, id, 30).unwrap();
    assert_eq!(copies(&w, 1, &id), [&data]);
}

#[test]
fn a_sender_that_is_restarted_takes_it_back_from_who_has_it_not() {
    let mut w = seven(4, tune);
    let data = content(90_000);
    let id = deposit(&mut w, None, &data);
    w.kill(SENDER);
    w.restart(SENDER);
    w.run_for(Duration::from_secs(5));
    w.with(SENDER, |core, now| core.cancel(now, id));
    w.run_for(Duration::from_secs(20));
    w.restart(1);
    w.run_for(Duration::from_secs(60));
    assert!(copies(&w, 1, &id).is_empty());
    assert_eq!(copies(&w, 2, &id), [&data]);
    nothing_is_left(&w).unwrap();
}

#[test]
fn who_does_not_fetch_in_time_is_named_and_the_others_have_it() {
    let mut w = seven(5, |config| {
        tune(config);
        config.set_expiry(Duration::from_secs(300)).unwrap();
    });
    let id = deposit(&mut w, None, &content(90_000));
    w.run_for(Duration::from_secs(100));
    w.kill(SENDER);
    w.restart(SENDER);
    w.run_for(Duration::from_secs(400));
    let Err(TransferError::Group(failure)) = &w.hosts[SENDER].done[&id] else {
        panic!("{:?}", w.hosts[SENDER].done[&id]);
    };
    assert_eq!(failure.delivered.len(), 2);
    let late = w.id(1);
    let [(who, TransferError::Expired { .. })] = failure.failed.as_slice() else {
        panic!("{failure}");
    };
    assert_eq!(*who, late);
    nothing_is_left(&w).unwrap();
    w.restart(1);
    w.run_for(Duration::from_secs(60));
    assert!(copies(&w, 1, &id).is_empty());
}

#[test]
fn a_receiver_that_failed_is_not_asked_again_after_a_restart() {
    let mut w = World::durable(6, 7, link(), |i| i != 3, tune);
    w.cluster(5, 3, false);
    w.kill(1);
    w.run_for(Duration::from_secs(5));
    // one says that it is too large for it, another is away
    let limit = 50_000;
    w.hosts[2].config.set_max_message(limit).unwrap();
    w.kill(2);
    w.restart(2);
    w.run_for(Duration::from_secs(5));
    let data = content(90_000);
    let id = w
        .send_group(SENDER, &RECEIVERS, None, data.clone())
        .unwrap();
    w.run_for(Duration::from_secs(20));
    let failed = |w: &World| {
        let of = |e: &&Event| matches!(e, Event::NotDeliveredTo { id: of, .. } if *of == id);
        w.hosts[SENDER].events.iter().filter(of).count()
    };
    assert_eq!(failed(&w), 1);
    w.kill(SENDER);
    w.restart(SENDER);
    w.run_for(Duration::from_secs(20));
    w.restart(1);
    w.run_until(Duration::from_secs(90), |w| {
        w.hosts[SENDER].done.contains_key(&id)
    })
    .unwrap();
    let Err(TransferError::Group(failure)) = &w.hosts[SENDER].done[&id] else {
        panic!("{:?}", w.hosts[SENDER].done[&id]);
    };
    assert_eq!(failure.delivered.len(), 2);
    let [(who, TransferError::Earlier { why, .. })] = failure.failed.as_slice() else {
        panic!("{failure}");
    };
    assert_eq!(*who, w.id(2));
    assert!(why.contains("limited"), "{why}");
    assert_eq!(failed(&w), 1, "told once");
    assert_eq!(copies(&w, 1, &id), [&data]);
}

/// A receiver dies around the moment in which it has enough shares, and is back at once: holders
/// have heard that it needs no more, its sender has not heard that it has it.
fn dies_with_enough(seed: u64) -> Result<(), String> {
    let mut dice = SimRng::from_seed(seed).fork("enough");
    // shares so large that it tells holders not to begin with what is left
    let mut w = seven(seed, |_| ());
    w.run_for(Duration::from_secs(2));
    let data = content(120_000);
    let id = w
        .send_group(SENDER, &RECEIVERS, None, data.clone())
        .map_err(|e| e.to_string())?;
    w.run_for(Duration::from_millis(40) + dice.duration(Duration::from_millis(160)));
    w.kill(1);
    w.run_for(Duration::from_millis(500));
    w.restart(1);
    // the stall timer would ring after 30
    let done = until_done(&mut w, id, 25);
    if is_unsure(&w, 1, id) {
        return Ok(());
    }
    done?;
    match copies(&w, 1, &id).as_slice() {
        [one] if **one == data => Ok(()),
        copies => Err(format!("{} copies", copies.len())),
    }
}

#[test]
fn a_receiver_that_dies_with_enough_shares_fetches_again_before_the_stall_timer() {
    run_seeds(0..120, dies_with_enough);
}
