//! What a sender keeps until it has arrived, also through a restart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use vmdt_pool::{
    AddError, Anchor, Announcement, MemoryStore, Outbox, OutboxConfig, OutboxEvent, Restored,
    SendError, StorageError, Store, Usage,
};

const HOLDERS: [&str; 3] = ["carol", "dave", "erin"];

fn spread(version: u32) -> Announcement {
    announcement(1, 2, 2, &HOLDERS).with_version(version)
}

fn shares() -> BTreeMap<NonZeroU8, Bytes> {
    (1..=3).map(|own| (index(own), share(1, own))).collect()
}

fn alice(start: Instant, now: Instant, store: &MemoryStore) -> (Outbox, Restored) {
    let anchor = Anchor {
        at: now,
        unix: Duration::from_secs(1_800_000_000) + (now - start),
    };
    let config = OutboxConfig::new(node("alice"));
    Outbox::restore(config, anchor, store.records(), digest)
}

/// `announce bob`, `give 1 carol`, `placed`, `delivered bob`, `ended Delivered 3`.
fn said(outbox: &mut Outbox) -> Vec<String> {
    std::iter::from_fn(|| outbox.poll_event())
        .map(|event| match event {
            OutboxEvent::Announce { to, .. } => format!("announce {to}"),
            OutboxEvent::Give { index, to, .. } => format!("give {index} {to}"),
            OutboxEvent::Placed { .. } => "placed".to_owned(),
            OutboxEvent::Delivered { receiver, .. } => format!("delivered {receiver}"),
            OutboxEvent::Ended { how, holders, .. } => format!("ended {how:?} {}", holders.len()),
            other => panic!("{other:?}"),
        })
        .collect()
}

const FIRST: [&str; 7] = [
    "announce bob",
    "announce carol",
    "announce dave",
    "announce erin",
    "give 1 carol",
    "give 2 dave",
    "give 3 erin",
];

fn save(outbox: &mut Outbox, now: Instant, store: &mut MemoryStore) {
    while let Some(batch) = outbox.poll_persist() {
        store.commit(&batch.changes).unwrap();
        outbox.handle_persisted(now, batch.op);
    }
}

#[test]
fn shares_are_given_until_they_are_confirmed_by_their_holder() {
    let now = base();
    let mut outbox = Outbox::new(OutboxConfig::new(node("alice")));
    outbox.send(now, &spread(1), shares()).unwrap();
    assert_eq!(said(&mut outbox), FIRST);
    assert!(outbox.confirmed(now, message(1), index(1), node("carol")));
    assert!(!outbox.confirmed(now, message(1), index(2), node("mallory")));
    let again = outbox.poll_timeout().unwrap();
    assert_eq!(again, now + secs(2));
    outbox.handle_timeout(again);
    let repeated = said(&mut outbox);
    assert!(repeated.contains(&"give 2 dave".to_owned()));
    assert!(!repeated.contains(&"give 1 carol".to_owned()));
    assert_eq!(outbox.poll_timeout(), Some(again + secs(4)));
    outbox.confirmed(again, message(1), index(2), node("dave"));
    outbox.confirmed(again, message(1), index(3), node("erin"));
    assert_eq!(said(&mut outbox), ["placed"]);
    assert!(!outbox.acknowledged(again, message(1), node("carol")));
    assert!(outbox.acknowledged(again, message(1), node("bob")));
    assert_eq!(said(&mut outbox), ["delivered bob", "ended Delivered 3"]);
    assert_eq!(outbox.usage(), Usage::default());
    assert_eq!(outbox.poll_timeout(), None);
}

#[test]
fn nothing_is_sent_before_it_is_on_disk() {
    let (now, mut store) = (base(), MemoryStore::new());
    let mut outbox = alice(now, now, &store).0;
    outbox.send(now, &spread(1), shares()).unwrap();
    assert!(said(&mut outbox).is_empty());
    assert!(!outbox.is_stored(message(1)));
    save(&mut outbox, now, &mut store);
    assert!(outbox.is_stored(message(1)));
    assert_eq!(said(&mut outbox), FIRST);
}

#[test]
fn a_message_that_does_not_fit_on_the_disk_is_refused_whole() {
    let (now, mut store) = (base(), MemoryStore::with_limit(100));
    let mut outbox = alice(now, now, &store).0;
    outbox.send(now, &spread(1), shares()).unwrap();
    let batch = outbox.poll_persist().unwrap();
    let full = store.commit(&batch.changes).unwrap_err();
    outbox.handle_persist_failed(now, batch.op, full);
    assert_eq!(said(&mut outbox), ["ended NotStored(NoSpace) 0"]);
    assert_eq!(outbox.usage(), Usage::default());
    assert_eq!(
        outbox.send(now, &spread(1), shares()),
        Err(SendError::Storage(StorageError::NoSpace))
    );
    store.set_limit(None);
    let later = outbox.poll_timeout().unwrap();
    outbox.handle_timeout(later);
    outbox.send(later, &spread(1), shares()).unwrap();
    save(&mut outbox, later, &mut store);
    assert_eq!(said(&mut outbox), FIRST);
}

#[test]
fn a_restart_at_any_point_resumes_or_forgets_whole_messages() {
    let start = base();
    // A crash after each number of committed changes, as if each were its own batch.
    for crash_after in 0..=12 {
        let mut store = MemoryStore::new();
        let mut left = crash_after;
        let mut outbox = alice(start, start, &store).0;
        let mut stored = false;
        let mut done = false;
        for step in 0..3 {
            match step {
                0 => outbox.send(start, &spread(1), shares()).unwrap(),
                1 => drop(outbox.confirmed(start, message(1), index(2), node("dave"))),
                _ => drop(outbox.acknowledged(start, message(1), node("bob"))),
            }
            while let Some(batch) = outbox.poll_persist() {
                let count = batch.changes.len().min(left);
                left -= count;
                store.commit(&batch.changes[..count]).unwrap();
                if count == batch.changes.len() {
                    outbox.handle_persisted(start, batch.op);
                } else {
                    break;
                }
            }
            stored |= outbox.is_stored(message(1));
            done |= step == 2 && left > 0;
        }
        let (mut again, report) = alice(start, start + secs(3600), &store);
        let known = again.announcement(message(1)).is_some();
        assert!(known || !stored || crash_after >= 6, "{crash_after}");
        assert_eq!(report.messages, usize::from(known));
        if known {
            let open = said(&mut again);
            assert!(open.contains(&"give 1 carol".to_owned()), "{crash_after}");
            assert_eq!(again.share(message(1), index(1)), Some(share(1, 1)));
        } else if done {
            save(&mut again, start, &mut store);
            assert!(store.is_empty(), "{crash_after}");
        }
    }
}

#[test]
fn a_moved_share_is_given_to_its_new_holder_and_the_old_one_is_told_to_the_end() {
    let now = base();
    let mut outbox = Outbox::new(OutboxConfig::new(node("alice")));
    outbox.send(now, &spread(1), shares()).unwrap();
    for (own, holder) in (1..).zip(HOLDERS) {
        outbox.confirmed(now, message(1), index(own), node(holder));
    }
    said(&mut outbox);
    let moved = announcement(1, 2, 2, &["carol", "frank", "erin"]);
    let stale = outbox.place(now, &moved.clone().with_version(1));
    assert_eq!(
        stale,
        Err(SendError::Version {
            version: 1,
            known: 1
        })
    );
    outbox.place(now, &moved.with_version(2)).unwrap();
    let told = said(&mut outbox);
    assert!(told.contains(&"give 2 frank".to_owned()));
    assert!(told.contains(&"announce dave".to_owned()));
    assert_eq!(told.iter().filter(|s| s.starts_with("give")).count(), 1);
    assert!(outbox.revoke(now, message(1)));
    assert_eq!(said(&mut outbox), ["ended Revoked 4"]);
}

#[test]
fn what_is_not_this_nodes_or_not_complete_is_refused() {
    let now = base();
    let mut outbox = Outbox::new(OutboxConfig::new(node("alice")));
    let mut foreign = spread(1);
    foreign.sender = node("mallory");
    assert!(matches!(
        outbox.send(now, &foreign, shares()),
        Err(SendError::Announcement(AddError::NotSender { .. }))
    ));
    let mut fewer = shares();
    fewer.remove(&index(3));
    assert_eq!(
        outbox.send(now, &spread(1), fewer),
        Err(SendError::Shares { index: index(3) })
    );
    let config = OutboxConfig {
        max_octets: 100,
        ..OutboxConfig::new(node("alice"))
    };
    let refused = Outbox::new(config).send(now, &spread(1), shares());
    assert!(matches!(refused, Err(SendError::Quota(_))));
    outbox.send(now, &spread(1), shares()).unwrap();
    outbox.send(now, &spread(1), shares()).unwrap();
    assert_eq!(outbox.usage().entries, 1);
    outbox.handle_timeout(now + secs(7 * 24 * 3600));
    let events = said(&mut outbox);
    assert_eq!(events.last().unwrap(), "ended Expired 3");
}

#[test]
fn a_group_message_ends_when_all_have_it_and_who_returns_is_told_again() {
    let now = base();
    let mut outbox = Outbox::new(OutboxConfig::new(node("alice")));
    let ann = spread(1).with_group([node("bert")]);
    outbox.send(now, &ann, shares()).unwrap();
    said(&mut outbox);
    outbox.acknowledged(now, message(1), node("bob"));
    outbox.acknowledged(now, message(1), node("bob"));
    assert_eq!(said(&mut outbox), ["delivered bob"]);
    outbox.reachable(now, node("bert"));
    outbox.reachable(now, node("bob"));
    outbox.reachable(now, node("dave"));
    let expected = ["announce bert", "announce dave", "give 2 dave"];
    assert_eq!(said(&mut outbox), expected);
    outbox.acknowledged(now, message(1), node("bert"));
    assert_eq!(said(&mut outbox), ["delivered bert", "ended Delivered 3"]);
}
