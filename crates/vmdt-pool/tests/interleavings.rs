//! Every order of a few events about one message ends in one outcome.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Instant;

use common::*;
use vmdt_pool::{
    Added, Announced, Announcement, Collector, CollectorConfig, CollectorEvent, Pool, PoolEvent,
    Usage,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Add,
    /// The announcement that moves share 5 here.
    Move,
    Store(u8),
    StoreBad(u8),
    Unfreeze(u8),
    Claim(u8),
    Release(u8),
    Ack,
    Remove,
    Expire,
}

/// 4 of 6; carol holds 1 (active) and 4 (frozen), and 5 (frozen) after the move.
fn before() -> Announcement {
    announcement(
        1,
        4,
        4,
        &["carol", "dave", "erin", "carol", "frank", "grace"],
    )
}

fn after() -> Announcement {
    announcement(
        1,
        4,
        4,
        &["carol", "dave", "erin", "carol", "carol", "grace"],
    )
}

/// Applies `event` and returns the time after it.
fn apply(pool: &mut Pool, now: Instant, event: Event) -> Instant {
    let id = message(1);
    let (alice, bob) = (node("alice"), node("bob"));
    let put = |pool: &mut Pool, own, octets: bytes::Bytes| {
        let digest = digest(&octets);
        let _ = pool.store(now, alice, id, index(own), octets, digest);
    };
    match event {
        Event::Add => {
            // An announcement sent before the move does not come after it: both are on one flow.
            let moved = pool
                .announcement(id)
                .and_then(|known| known.placement(index(5)));
            if moved.is_none_or(|share| share.holder != node("carol")) {
                let _ = pool.add(now, alice, &before());
            }
        }
        Event::Move => {
            let _ = pool.add(now, alice, &after());
        }
        Event::Store(own) => put(pool, own, share(1, own)),
        Event::StoreBad(own) => put(pool, own, share(7, own)),
        Event::Unfreeze(own) => {
            let _ = pool.unfreeze(now, id, index(own), bob);
        }
        Event::Claim(own) => {
            let _ = pool.claim(now, id, bob, index(own));
        }
        Event::Release(own) => {
            pool.release(now, id, index(own));
        }
        Event::Ack => {
            let _ = pool.ack(now, id, bob);
        }
        Event::Remove => {
            let _ = pool.remove(now, id, alice);
        }
        Event::Expire => {
            let later = now + secs(600);
            pool.handle_timeout(later);
            return later;
        }
    }
    now
}

/// What can be seen of a pool: states, what may be claimed, what it uses.
fn outcome(pool: &Pool, now: Instant) -> String {
    let mut seen = String::new();
    for own in 1..=6 {
        let state = pool.state(message(1), index(own));
        let claim = pool
            .clone()
            .claim(now, message(1), node("bob"), index(own))
            .map(|share| share.len());
        seen.push_str(&format!("{own}: {state:?} {claim:?}\n"));
    }
    seen + &format!("{:?}", pool.usage())
}

/// Runs every order of `events`, each event `times` times in a row, and returns the one outcome.
fn one_outcome(events: &[Event], times: usize) -> String {
    let start = base();
    let mut outcomes = std::collections::BTreeMap::new();
    for order in permutations(events) {
        let mut pool = pool();
        let mut now = start;
        for event in &order {
            for _ in 0..times {
                now = apply(&mut pool, now, *event);
            }
        }
        // Leases and pauses end; what expires with the entry stays.
        now += secs(10);
        pool.handle_timeout(now);
        outcomes.entry(outcome(&pool, now)).or_insert(order);
    }
    assert_eq!(outcomes.len(), 1, "{outcomes:#?}");
    outcomes.into_keys().next().unwrap()
}

#[test]
fn the_order_of_announcement_shares_and_unfreezes_does_not_matter() {
    use Event::*;
    for times in [1, 2] {
        let seen = one_outcome(
            &[
                Add,
                Store(1),
                Store(4),
                Unfreeze(4),
                StoreBad(1),
                StoreBad(4),
            ],
            times,
        );
        assert!(seen.contains("1: Some(Active) Ok(4)\n"), "{seen}");
        assert!(seen.contains("4: Some(Active) Ok(4)\n"), "{seen}");
    }
}

#[test]
fn the_order_of_a_move_and_what_belongs_to_it_does_not_matter() {
    use Event::*;
    for times in [1, 2] {
        let seen = one_outcome(&[Add, Move, Store(1), Store(5), Unfreeze(5)], times);
        assert!(seen.contains("5: Some(Active) Ok(4)\n"), "{seen}");
    }
}

#[test]
fn claims_and_releases_at_any_point_leave_the_shares_claimable() {
    use Event::*;
    let seen = one_outcome(
        &[
            Add,
            Store(1),
            Store(4),
            Unfreeze(4),
            Claim(1),
            Claim(4),
            Release(1),
        ],
        1,
    );
    assert!(seen.contains("1: Some(Active) Ok(4)\n"), "{seen}");
    assert!(seen.contains("4: Some(Active) Ok(4)\n"), "{seen}");
}

#[test]
fn an_ack_or_a_remove_at_any_point_ends_the_message() {
    use Event::*;
    for ends in [&[Ack][..], &[Remove], &[Ack, Remove]] {
        for times in [1, 2] {
            let mut events = vec![Add, Store(1), Store(4), Unfreeze(4), Claim(1)];
            events.extend(ends);
            let seen = one_outcome(&events, times);
            assert!(seen.ends_with(&format!("{:?}", Usage::default())), "{seen}");
            assert!(!seen.contains("Some") && !seen.contains("Ok"), "{seen}");
        }
    }
}

#[test]
fn with_an_expiry_at_any_point_nothing_outlives_the_last_one() {
    use Event::*;
    for end in [Ack, Remove, Claim(1)] {
        for order in permutations(&[Add, Store(1), Store(4), Unfreeze(4), end, Expire]) {
            let mut pool = pool();
            let mut now = base();
            for event in &order {
                now = apply(&mut pool, now, *event);
            }
            apply(&mut pool, now, Expire);
            assert_eq!(pool.usage(), Usage::default(), "{order:?}");
            let events = pool_events(&mut pool);
            let expired = |event: &&PoolEvent| matches!(event, PoolEvent::Expired { .. });
            let count = events.iter().filter(expired).count();
            assert!(count <= 1, "{order:?}");
            // It did not end otherwise only if the announcement found no end before it.
            let at = |wanted| order.iter().position(|event| *event == wanted).unwrap();
            if matches!(end, Claim(_)) || at(Add) < at(Expire) && at(Expire) < at(end) {
                assert_eq!(count, 1, "{order:?}");
            }
            let later = now + secs(601);
            assert_eq!(
                pool.add(later, node("alice"), &before()),
                Ok(Added::Finished),
                "{order:?}"
            );
        }
    }
}

#[test]
fn a_share_is_offered_whenever_it_is_active_here_and_not_ended() {
    use Event::*;
    for order in permutations(&[Add, Store(1), Store(4), Unfreeze(4), Unfreeze(1)]) {
        let mut pool = pool();
        let now = base();
        for event in &order {
            apply(&mut pool, now, *event);
        }
        let mut offered = offers(&mut pool);
        offered.sort_unstable();
        assert_eq!(offered, [1, 4], "{order:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Announce,
    Share(u8),
    Bad(u8),
    Lost,
    Revoke,
    Late,
}

/// Applies `order` to a collector for 3 of 5, taking every complete set as delivered. Returns how
/// often it was delivered and revoked.
fn collect(order: &[Arrival], times: usize) -> (usize, usize, Collector, Instant) {
    let holders = ["carol", "dave", "erin", "frank", "grace"];
    let mut collector = Collector::new(CollectorConfig::new(node("bob")));
    let (id, mut now) = (message(1), base());
    let (mut delivered, mut revoked) = (0, 0);
    for arrival in order {
        for _ in 0..times {
            let mut bring = |own: u8, octets: bytes::Bytes| {
                let from = node(holders[usize::from(own) - 1]);
                let digest = digest(&octets);
                let _ = collector.share(now, from, id, index(own), octets, digest);
            };
            match *arrival {
                Arrival::Announce => {
                    let _ = collector.announce(now, &announcement(1, 3, 3, &holders));
                }
                Arrival::Share(own) => bring(own, share(1, own)),
                Arrival::Bad(own) => bring(own, share(9, own)),
                Arrival::Lost => collector.holder_lost(now, node("carol")),
                Arrival::Revoke => {
                    let _ = collector.remove(now, id, node("alice"));
                }
                Arrival::Late => {
                    now += secs(2);
                    collector.handle_timeout(now);
                }
            }
            while let Some(event) = collector.poll_event() {
                match event {
                    CollectorEvent::Complete { shares, .. } => {
                        assert_eq!(shares.len(), 3);
                        for (own, octets) in shares {
                            assert_eq!(octets, share(1, own.get()), "{order:?}");
                        }
                        assert!(collector.delivered(now, id));
                        delivered += 1;
                    }
                    CollectorEvent::Revoked { .. } => revoked += 1,
                    _ => {}
                }
            }
        }
    }
    (delivered, revoked, collector, now)
}

#[test]
fn a_message_is_delivered_once_in_every_order() {
    use Arrival::*;
    for times in [1, 2] {
        for order in permutations(&[Announce, Share(1), Share(2), Share(4), Bad(2), Lost, Late]) {
            let (delivered, revoked, mut collector, now) = collect(&order, times);
            assert_eq!((delivered, revoked), (1, 0), "{order:?}");
            assert_eq!(collector.usage(), Usage::default(), "{order:?}");
            let again = announcement(1, 3, 3, &["carol", "dave", "erin", "frank", "grace"]);
            assert_eq!(
                collector.announce(now, &again),
                Ok(Announced::AlreadyDelivered),
                "{order:?}"
            );
        }
    }
}

#[test]
fn a_revoked_message_is_delivered_before_or_never() {
    use Arrival::*;
    for order in permutations(&[Announce, Share(1), Share(2), Share(3), Share(5), Revoke]) {
        let (delivered, revoked, collector, _) = collect(&order, 2);
        let revoke = order.iter().position(|event| *event == Revoke).unwrap();
        let announce = order.iter().position(|event| *event == Announce).unwrap();
        let shares = |event: &&Arrival| matches!(event, Share(_));
        let first = announce < revoke && order[..revoke].iter().filter(shares).count() >= 3;
        assert_eq!(delivered, usize::from(first), "{order:?}");
        assert_eq!(
            revoked,
            usize::from(!first && announce < revoke),
            "{order:?}"
        );
        assert_eq!(collector.usage(), Usage::default(), "{order:?}");
    }
}
