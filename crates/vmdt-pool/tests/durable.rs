//! A crash after any prefix of what was committed leaves a state that the pool was in, with
//! everything that was confirmed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use vmdt_pool::{
    Anchor, Announced, Announcement, Collector, CollectorConfig, CollectorEvent, Ended,
    MemoryStore, OpId, Persist, Pool, PoolConfig, PoolEvent, Restored, ShareState, StorageError,
    Store, StoreError, Stored,
};
use vmdt_wire::NodeId;

const EPOCH: Duration = Duration::from_secs(1_800_000_000);

fn anchor(start: Instant, now: Instant) -> Anchor {
    Anchor {
        at: now,
        unix: EPOCH + (now - start),
    }
}

fn carol(start: Instant, now: Instant, store: &MemoryStore) -> (Pool, Restored) {
    let config = PoolConfig::new(node("carol"));
    Pool::restore(config, anchor(start, now), store.records(), digest)
}

fn bob(start: Instant, now: Instant, store: &MemoryStore) -> (Collector, Restored) {
    let config = CollectorConfig::new(node("bob"));
    Collector::restore(config, anchor(start, now), store.records(), digest)
}

fn commit(pool: &mut Pool, store: &mut MemoryStore) {
    while let Some(batch) = pool.poll_persist() {
        store.commit(&batch.changes).unwrap();
        pool.handle_persisted(batch.op);
    }
}

fn put(pool: &mut Pool, now: Instant, own: u8) -> Result<Stored, StoreError> {
    let octets = share(1, own);
    let digest = digest(&octets);
    pool.store(now, node("alice"), message(1), index(own), octets, digest)
}

fn spread() -> Announcement {
    announcement(1, 3, 3, &["carol", "dave", "erin", "carol"])
        .with_version(1)
        .with_details(Bytes::from("manifest"))
}

#[test]
fn a_share_is_confirmed_when_it_is_on_disk_and_not_before() {
    let (now, mut store) = (base(), MemoryStore::new());
    let mut pool = carol(now, now, &store).0;
    pool.add(now, node("alice"), &spread()).unwrap();
    assert_eq!(put(&mut pool, now, 1), Ok(Stored::Pending));
    let stored = |event: &PoolEvent| matches!(event, PoolEvent::Stored { .. });
    assert!(!pool_events(&mut pool).iter().any(stored));
    let batch = pool.poll_persist().unwrap();
    assert_eq!(put(&mut pool, now, 1), Ok(Stored::Pending));
    assert!(!pool_events(&mut pool).iter().any(stored));
    store.commit(&batch.changes).unwrap();
    pool.handle_persisted(batch.op);
    let confirmed = PoolEvent::Stored {
        message: message(1),
        index: index(1),
        from: node("alice"),
    };
    assert_eq!(pool_events(&mut pool), [confirmed]);
    assert_eq!(put(&mut pool, now, 1), Ok(Stored::Duplicate));
    assert!(pool.is_settled());
}

#[test]
fn a_share_that_came_early_is_confirmed_once_it_is_announced_and_on_disk() {
    let (now, mut store) = (base(), MemoryStore::new());
    let mut pool = carol(now, now, &store).0;
    assert_eq!(put(&mut pool, now, 1), Ok(Stored::Early));
    assert_eq!(pool.poll_persist(), None);
    pool.add(now, node("alice"), &spread()).unwrap();
    commit(&mut pool, &mut store);
    let stored = |event: &PoolEvent| matches!(event, PoolEvent::Stored { .. });
    assert!(pool_events(&mut pool).iter().any(stored));
}

#[test]
fn a_full_disk_is_told_before_anything_is_confirmed_and_the_pool_recovers() {
    let (now, mut store) = (base(), MemoryStore::with_limit(10));
    let mut pool = carol(now, now, &store).0;
    pool.add(now, node("alice"), &spread()).unwrap();
    put(&mut pool, now, 1).unwrap();
    let batch = pool.poll_persist().unwrap();
    let full = store.commit(&batch.changes).unwrap_err();
    assert_eq!(full, StorageError::NoSpace);
    assert_eq!(put(&mut pool, now, 4), Ok(Stored::Pending));
    pool.handle_persist_failed(now, batch.op, full);
    let refused: Vec<_> = pool_events(&mut pool)
        .into_iter()
        .map(|event| match event {
            PoolEvent::StoreFailed { index, reason, .. } => (index.get(), reason),
            other => panic!("{other:?}"),
        })
        .collect();
    let reason = StoreError::Storage(StorageError::NoSpace);
    assert_eq!(refused, [(1, reason), (4, reason)]);
    // Until the store is tried again, shares are refused at once.
    assert_eq!(put(&mut pool, now, 1), Err(reason));
    assert_eq!(pool.poll_persist(), None);
    assert_eq!(pool.usage().octets, 256 + 4 * 160 + 2 + 8);

    store.set_limit(None);
    let later = pool.poll_timeout().unwrap();
    pool.handle_timeout(later);
    assert_eq!(pool.storage_failure(), None);
    assert_eq!(put(&mut pool, later, 1), Ok(Stored::Pending));
    commit(&mut pool, &mut store);
    let (restored, report) = carol(now, later, &store);
    assert_eq!((report.messages, report.shares), (1, 1));
    assert_eq!(
        restored.announcement(message(1)),
        pool.announcement(message(1))
    );
}

#[test]
fn an_answer_to_a_batch_that_is_not_out_changes_nothing() {
    let (now, store) = (base(), MemoryStore::new());
    let mut pool = carol(now, now, &store).0;
    pool.add(now, node("alice"), &spread()).unwrap();
    put(&mut pool, now, 1).unwrap();
    let before = format!("{pool:?}");
    pool.handle_persisted(OpId(77));
    pool.handle_persist_failed(now, OpId(77), StorageError::NoSpace);
    assert_eq!(format!("{pool:?}"), before);
}

#[test]
fn leases_end_with_the_process_and_active_shares_are_offered_again() {
    let (now, mut store) = (base(), MemoryStore::new());
    let mut pool = carol(now, now, &store).0;
    pool.add(now, node("alice"), &spread()).unwrap();
    put(&mut pool, now, 1).unwrap();
    put(&mut pool, now, 4).unwrap();
    pool.claim(now, message(1), node("bob"), index(1)).unwrap();
    commit(&mut pool, &mut store);
    let mut again = carol(now, now + secs(30), &store).0;
    assert_eq!(again.state(message(1), index(1)), Some(ShareState::Active));
    assert_eq!(again.state(message(1), index(4)), Some(ShareState::Frozen));
    assert_eq!(offers(&mut again), [1]);
}

#[test]
fn the_time_that_a_message_is_kept_counts_through_a_restart() {
    let (start, mut store) = (base(), MemoryStore::new());
    let mut pool = carol(start, start, &store).0;
    pool.add(start, node("alice"), &spread()).unwrap();
    put(&mut pool, start, 1).unwrap();
    commit(&mut pool, &mut store);
    let (mut again, report) = carol(start, start + secs(599), &store);
    assert_eq!(report.messages, 1);
    again.handle_timeout(start + secs(600));
    assert_eq!(again.announcement(message(1)), None);
    let (_, late) = carol(start, start + secs(600), &store);
    assert_eq!((late.messages, late.expired), (0, 1));
}

#[test]
fn records_that_cannot_be_read_are_counted_and_removed_and_cost_nothing_else() {
    let (now, mut store) = (base(), MemoryStore::new());
    let mut pool = carol(now, now, &store).0;
    pool.add(now, node("alice"), &spread()).unwrap();
    put(&mut pool, now, 1).unwrap();
    put(&mut pool, now, 4).unwrap();
    commit(&mut pool, &mut store);
    let good: Vec<_> = store.records().collect();
    for (key, value) in &good {
        let mut damaged = value.to_vec();
        damaged[0] ^= 0x40;
        let records = good.iter().map(|(other, value)| {
            let value = if other == key {
                damaged.clone().into()
            } else {
                value.clone()
            };
            (other.clone(), value)
        });
        let config = PoolConfig::new(node("carol"));
        let (mut again, report) = Pool::restore(config, anchor(now, now), records, digest);
        // Without its announcement a share belongs to nothing.
        let whole = key[1] == b's';
        assert_eq!(report.messages, usize::from(whole), "{key:?}");
        assert_eq!(report.shares, usize::from(whole), "{key:?}");
        assert_eq!(report.damaged, if whole { 1 } else { 3 }, "{key:?}");
        let batch = again.poll_persist().unwrap();
        assert!(batch.changes.iter().any(|change| change.key() == key));
        let mut healed = store.clone();
        healed.commit(&batch.changes).unwrap();
        assert_eq!(carol(now, now, &healed).1.damaged, 0);
    }
}

#[test]
fn a_delivery_is_settled_when_it_is_on_disk_and_is_not_repeated_after_a_crash() {
    let (start, mut store) = (base(), MemoryStore::new());
    let ann = announcement(1, 2, 2, &["carol", "dave", "erin"]);
    let bring = |bob: &mut Collector, own: u8| {
        let octets = share(1, own);
        let digest = digest(&octets);
        let from = node(["carol", "dave", "erin"][usize::from(own) - 1]);
        bob.share(start, from, message(1), index(own), octets, digest)
            .unwrap();
    };
    let save = |bob: &mut Collector, store: &mut MemoryStore| {
        while let Some(batch) = bob.poll_persist() {
            store.commit(&batch.changes).unwrap();
            bob.handle_persisted(batch.op);
        }
    };
    let mut first = bob(start, start, &store).0;
    first.announce(start, &ann).unwrap();
    bring(&mut first, 1);
    save(&mut first, &mut store);

    // A crash with one share in: the other one completes the message.
    let (mut second, report) = bob(start, start, &store);
    assert_eq!((report.messages, report.shares), (1, 1));
    bring(&mut second, 3);
    save(&mut second, &mut store);

    // A crash before the delivery was settled: it is completed again, at once.
    let mut third = bob(start, start, &store).0;
    assert_eq!(told(&mut third), ["Complete 1 3"]);
    assert!(third.delivered(start, message(1)));
    assert!(!third.is_settled(message(1)));
    assert_eq!(third.poll_event(), None);
    save(&mut third, &mut store);
    assert!(third.is_settled(message(1)));
    let settled = CollectorEvent::Settled {
        message: message(1),
    };
    assert_eq!(third.poll_event(), Some(settled));

    // A crash after it: never again.
    let (mut fourth, report) = bob(start, start + secs(60), &store);
    assert_eq!((report.messages, report.ended), (0, 1));
    assert_eq!(
        fourth.announce(start + secs(60), &ann),
        Ok(Announced::AlreadyDelivered)
    );
    assert!(fourth.is_settled(message(1)));
    assert_eq!(fourth.poll_event(), None);
    assert_eq!(store.len(), 1, "only the tombstone is left");
}

#[test]
fn a_collector_goes_on_in_memory_while_its_store_is_full() {
    let now = base();
    let mut store = MemoryStore::with_limit(1);
    let mut bob = bob(now, now, &store).0;
    bob.announce(now, &announcement(1, 2, 2, &["carol", "dave"]))
        .unwrap();
    let batch = bob.poll_persist().unwrap();
    let full = store.commit(&batch.changes).unwrap_err();
    bob.handle_persist_failed(now, batch.op, full);
    assert_eq!(bob.storage_failure(), Some(StorageError::NoSpace));
    for own in [1, 2] {
        let octets = share(1, own);
        let digest = digest(&octets);
        let from = node(["carol", "dave"][usize::from(own) - 1]);
        bob.share(now, from, message(1), index(own), octets, digest)
            .unwrap();
    }
    assert_eq!(told(&mut bob), ["Complete 1 2"]);
    assert!(bob.delivered(now, message(1)));
    assert!(!bob.is_settled(message(1)), "not acknowledged yet");
    store.set_limit(None);
    let later = now + secs(1);
    bob.handle_timeout(later);
    let batch = bob.poll_persist().unwrap();
    store.commit(&batch.changes).unwrap();
    bob.handle_persisted(batch.op);
    assert!(bob.is_settled(message(1)));
}

#[derive(Debug, Clone)]
enum Op {
    Add {
        id: u8,
        holders: [u8; 4],
        active: [bool; 4],
        version: u32,
    },
    Store {
        id: u8,
        own: u8,
    },
    Unfreeze {
        by: u8,
        id: u8,
        own: u8,
    },
    Claim {
        by: u8,
        id: u8,
        own: u8,
    },
    Ack {
        by: u8,
        id: u8,
    },
    Remove {
        id: u8,
    },
    Wait {
        ms: u64,
    },
    /// Hand a batch to the disk.
    Begin,
    /// The disk answers: done, or full.
    Answer {
        good: bool,
    },
}

const NODES: [&str; 4] = ["alice", "bob", "bert", "carol"];

fn any_op() -> impl Strategy<Value = Op> {
    let id = || 1_u8..4;
    let own = || 1_u8..5;
    let by = || 0_u8..3;
    let holder = || prop_oneof![Just(3_u8), Just(0)];
    prop_oneof![
        3 => (
            id(),
            [holder(), holder(), holder(), holder()],
            any::<[bool; 4]>(),
            0_u32..4
        )
            .prop_map(|(id, holders, active, version)| Op::Add { id, holders, active, version }),
        6 => (id(), own()).prop_map(|(id, own)| Op::Store { id, own }),
        2 => (by(), id(), own()).prop_map(|(by, id, own)| Op::Unfreeze { by, id, own }),
        2 => (by(), id(), own()).prop_map(|(by, id, own)| Op::Claim { by, id, own }),
        1 => (by(), id()).prop_map(|(by, id)| Op::Ack { by, id }),
        1 => id().prop_map(|id| Op::Remove { id }),
        2 => prop_oneof![0_u64..1_000, 1_000_u64..40_000, Just(400_000)]
            .prop_map(|ms| Op::Wait { ms }),
        6 => Just(Op::Begin),
        6 => prop::bool::weighted(0.8).prop_map(|good| Op::Answer { good }),
    ]
}

/// What can be seen of a pool that a crash may not change. Leases are no promise.
fn view(pool: &Pool, now: Instant) -> String {
    let mut seen = String::new();
    for id in 1..4 {
        seen.push_str(&format!("{:?}\n", pool.announcement(message(id))));
        for own in 1..=4 {
            for receiver in ["bob", "bert"] {
                let state = pool.state_for(message(id), index(own), node(receiver));
                let state = state.map(|state| match state {
                    ShareState::Claimed => ShareState::Active,
                    other => other,
                });
                let mut pool = pool.clone();
                let _ = pool.unfreeze(now, message(id), index(own), node("alice"));
                let octets = pool.claim(now, message(id), node(receiver), index(own));
                seen.push_str(&format!("{own} {receiver} {state:?} {octets:?}\n"));
            }
        }
        for (by, later) in [("bob", 0), ("bert", 0), ("bob", 300), ("bob", 600)] {
            let ended = pool.clone().ack(now + secs(later), message(id), node(by));
            seen.push_str(&format!("{by} {later} {ended:?}\n"));
        }
    }
    seen + &format!("{:?}", pool.usage())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_crash_at_any_point_leaves_what_was_committed_and_all_that_was_confirmed(
        ops in prop::collection::vec(any_op(), 1..100),
    ) {
        let (start, mut store) = (base(), MemoryStore::new());
        let mut now = start;
        let mut pool = carol(start, start, &store).0;
        let mut out: Option<(Persist, Pool)> = None;
        let mut on_disk = pool.clone();
        let mut confirmed: Vec<(u8, u8)> = Vec::new();
        for op in &ops {
            let who = |at: u8| node(NODES[usize::from(at)]);
            match *op {
                Op::Add { id, holders, active, version } => {
                    let names = holders.map(|at| NODES[usize::from(at)]);
                    let mut ann = announcement(id, 4, 0, &names)
                        .with_version(version)
                        .with_group([node("bert")]);
                    for (share, active) in ann.shares.iter_mut().zip(active) {
                        share.active = active;
                    }
                    let _ = pool.add(now, node("alice"), &ann);
                }
                Op::Store { id, own } => {
                    let octets = share(id, own);
                    let digest = digest(&octets);
                    let stored =
                        pool.store(now, node("alice"), message(id), index(own), octets, digest);
                    prop_assert_ne!(stored, Ok(Stored::New));
                    if stored == Ok(Stored::Duplicate) {
                        prop_assert!(confirmed.contains(&(id, own)), "confirmed too early");
                    }
                }
                Op::Unfreeze { by, id, own } => {
                    let _ = pool.unfreeze(now, message(id), index(own), who(by));
                }
                Op::Claim { by, id, own } => {
                    let _ = pool.claim(now, message(id), who(by), index(own));
                }
                Op::Ack { by, id } => {
                    let _ = pool.ack(now, message(id), who(by));
                }
                Op::Remove { id } => {
                    let _ = pool.remove(now, message(id), node("alice"));
                }
                Op::Wait { ms: wait } => {
                    now += ms(wait);
                    pool.handle_timeout(now);
                }
                Op::Begin => {
                    if let Some(batch) = pool.poll_persist() {
                        prop_assert!(out.is_none(), "two batches are out");
                        out = Some((batch, pool.clone()));
                    }
                }
                Op::Answer { good } => match out.take() {
                    Some((batch, state)) if good => {
                        store.commit(&batch.changes).unwrap();
                        pool.handle_persisted(batch.op);
                        on_disk = state;
                    }
                    Some((batch, _)) => {
                        pool.handle_persist_failed(now, batch.op, StorageError::NoSpace);
                    }
                    None => {}
                },
            }
            let number = |id| (1..4).find(|number| message(*number) == id).unwrap();
            for event in pool_events(&mut pool) {
                if let PoolEvent::Stored { message, index, .. } = event {
                    confirmed.push((number(message), index.get()));
                }
            }
            let (restored, report) = carol(start, now, &store);
            prop_assert_eq!(report.damaged, 0);
            on_disk.handle_timeout(now);
            prop_assert_eq!(view(&restored, now), view(&on_disk, now), "{:?}", op);
            // What was confirmed is there, until its sender moves it or ends the message.
            let here = |pool: &Pool, id, own| {
                let placed = pool.announcement(message(id)).and_then(|ann| ann.placement(index(own)));
                placed.is_some_and(|share| share.holder == node("carol"))
            };
            confirmed.retain(|(id, own)| here(&pool, *id, *own));
            for &(id, own) in &confirmed {
                if !here(&restored, id, own) {
                    continue;
                }
                let mut both = (pool.clone(), restored.clone());
                let claim = |pool: &mut Pool, receiver: NodeId| {
                    let _ = pool.unfreeze(now, message(id), index(own), node("alice"));
                    pool.claim(now, message(id), receiver, index(own))
                };
                for receiver in ["bob", "bert"] {
                    let live = claim(&mut both.0, node(receiver));
                    let back = claim(&mut both.1, node(receiver));
                    // Only an ack may have been lost with the crash.
                    prop_assert!(back == live || live.is_err(), "{live:?} {back:?}");
                }
            }
        }
    }
}

#[test]
fn a_message_that_has_ended_on_disk_does_not_begin_again() {
    let (now, mut store) = (base(), MemoryStore::new());
    let mut pool = carol(now, now, &store).0;
    pool.add(now, node("alice"), &spread()).unwrap();
    put(&mut pool, now, 1).unwrap();
    commit(&mut pool, &mut store);
    assert_eq!(pool.ack(now, message(1), node("bob")), Ok(Ended::Now));
    commit(&mut pool, &mut store);
    let (mut again, report) = carol(now, now, &store);
    assert_eq!((report.messages, report.ended), (0, 1));
    assert_eq!(
        again.add(now, node("alice"), &spread()),
        Ok(vmdt_pool::Added::Finished)
    );
    // The tombstone goes, on disk too.
    let later = now + secs(3600);
    again.handle_timeout(later);
    commit(&mut again, &mut store);
    assert!(store.is_empty());
}
