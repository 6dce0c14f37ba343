//! Signed receipts between nodes, in worlds: who carried which share, and that it arrived.
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
use common::World;
use vmdt_node::{Carrier, Event, MessageId, NodeId, SignedReceipts};
use vmdt_seal::receipt::{Fact, Receipts};
use vmdt_testkit::LinkConfig;

/// Five nodes, k = 3, segments of 16 KiB.
fn five(seed: u64, loss: f64) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024)
        .loss(loss);
    let mut w = World::new(seed, 5, link, |config| {
        config.set_segment(16 * 1024).unwrap();
    });
    w.cluster(5, 3, false);
    w
}

fn sent(w: &mut World, from: usize, to: usize, content: &Bytes) -> MessageId {
    let id = w.send(from, to, Some("f"), content.clone()).unwrap();
    w.run_until(Duration::from_secs(120), |w| {
        w.hosts[from].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[from].done[&id].as_ref().unwrap();
    // what was confirmed last is signed within a second
    w.run_for(Duration::from_secs(2));
    id
}

/// Reads every signed confirmation and holds it against what it is said to confirm.
fn proven(w: &World, from: usize, shown: &SignedReceipts) {
    let check = |by: NodeId, message: MessageId, fact: Fact, octets: &Bytes| {
        let read = Receipts::parse(octets).unwrap();
        assert_eq!(read.signer().node_id(), by);
        assert_eq!(read.sender(), w.id(from));
        let says = |s: &vmdt_seal::receipt::Statement| (s.message, s.fact) == (message, fact);
        assert!(read.statements().iter().any(says), "{fact:?} of {message}");
    };
    for segment in &shown.segments {
        for share in &segment.shares {
            if let Some(taken) = &share.taken {
                let fact = Fact::Taken(share.index);
                check(share.holder, segment.message, fact, &taken.receipts);
            }
            if let Some(on) = &share.handed_on {
                let fact = Fact::HandedOn(share.index);
                check(share.holder, segment.message, fact, &on.receipts);
            }
        }
    }
    if let Some(delivered) = &shown.delivered {
        let last = shown.segments.last().unwrap().message;
        check(shown.to, last, Fact::Delivered, &delivered.receipts);
    }
}

#[test]
fn a_sender_can_show_who_carried_what_and_that_it_arrived() {
    let mut w = five(1, 0.0);
    let content = Bytes::from(vec![7; 300_000]);
    let id = sent(&mut w, 0, 1, &content);
    let shown = w.hosts[0].core.receipts(id).expect("it is kept");
    assert_eq!((shown.transfer, shown.to), (id, w.id(1)));
    assert!(shown.delivered.is_some(), "the addressee has signed");
    assert_eq!(shown.segments.len(), 300_000_usize.div_ceil(16 * 1024));
    proven(&w, 0, &shown);

    let shares: Vec<_> = shown.segments.iter().flat_map(|s| &s.shares).collect();
    let carriers: BTreeSet<NodeId> = shares.iter().map(|s| s.holder).collect();
    let others: BTreeSet<NodeId> = (2..5).map(|i| w.id(i)).collect();
    assert!(carriers.is_subset(&others) && !carriers.is_empty());
    let taken = shares.iter().filter(|s| s.taken.is_some()).count();
    assert_eq!(taken, shares.len(), "nothing was lost, so all is confirmed");
    assert!(shares.iter().any(|s| s.handed_on.is_some()));
    // each of them is in what the sender itself counted
    let paths = w.hosts[0].done[&id].as_ref().unwrap().paths().clone();
    for holder in &carriers {
        let given = shares.iter().filter(|s| s.holder == *holder).count();
        assert_eq!(paths[&Carrier::Member(*holder)].shares, given as u64);
    }
    let told =
        |e: &Event| matches!(e, Event::Confirmed { id: i, by } if (*i, *by) == (id, w.id(1)));
    assert_eq!(w.hosts[0].events.iter().filter(|e| told(e)).count(), 1);
    assert!(w.hosts.iter().all(|h| h.core.stats().bad_receipts == 0));
    // the others know nothing of it
    assert!((1..5).all(|i| w.hosts[i].core.receipts(id).is_none()));
    // one signature stands for many statements
    let statements: Vec<&Bytes> = shares
        .iter()
        .flat_map(|s| s.taken.iter().chain(&s.handed_on))
        .map(|confirmed| &confirmed.receipts)
        .collect();
    let batches: BTreeSet<&Bytes> = statements.iter().copied().collect();
    assert!(
        batches.len() * 4 < statements.len(),
        "{} batches of {} statements",
        batches.len(),
        statements.len()
    );
}

#[test]
fn receipts_come_through_loss_as_messages_do() {
    for seed in 0..10 {
        let mut w = five(seed, 0.15);
        let content = Bytes::from(vec![seed as u8; 100_000]);
        let id = sent(&mut w, 2, 4, &content);
        w.run_for(Duration::from_secs(5));
        let shown = w.hosts[2].core.receipts(id).unwrap();
        assert!(shown.delivered.is_some(), "seed {seed}");
        proven(&w, 2, &shown);
    }
}

#[test]
fn a_small_message_is_confirmed_too() {
    let mut w = five(3, 0.0);
    let id = w.send(0, 1, None, Bytes::from_static(b"hi")).unwrap();
    w.run_for(Duration::from_secs(2));
    let shown = w.hosts[0].core.receipts(id).unwrap();
    proven(&w, 0, &shown);
    assert!(shown.delivered.is_some());
    assert_eq!(shown.segments.len(), 1);
    let taken = shown.segments[0]
        .shares
        .iter()
        .filter(|s| s.taken.is_some());
    assert!(taken.count() >= 2, "{shown:?}");
}

#[test]
fn a_message_that_did_not_arrive_is_not_confirmed() {
    let mut w = five(4, 0.0);
    w.kill(1);
    let id = w
        .send(0, 1, None, Bytes::from_static(b"is anybody there?"))
        .unwrap();
    w.run_for(Duration::from_secs(5));
    let shown = w.hosts[0].core.receipts(id);
    assert!(shown.is_none_or(|shown| shown.delivered.is_none()));
}

#[test]
fn the_open_profile_has_no_receipts() {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::of(false, 5, 3, link, |_| {});
    w.cluster(3, 2, false);
    let id = w.send(0, 1, None, Bytes::from_static(b"hi")).unwrap();
    w.run_for(Duration::from_secs(2));
    w.hosts[0].done[&id].as_ref().unwrap();
    assert_eq!(w.hosts[0].core.receipts(id), None);
    assert!(w.hosts.iter().all(|h| h.core.stats().receipts == 0));
}
