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
    Added, Anchor, Announced, Announcement, Collector, CollectorConfig, CollectorEvent,
    MemoryStore, Pool, PoolConfig, PoolEvent, Store, Usage,
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
    /// Mallory, who is neither sender nor receiver nor holder, tries everything at once.
    Meddle,
}

/// 4 of 6; carol holds 1 (active) and 4 (frozen), and 5 (frozen) after the move.
fn before() -> Announcement {
    announcement(
        1,
        4,
        4,
        &["carol", "dave", "erin", "carol", "frank", "grace"],
    )
    .with_version(1)
}

fn after() -> Announcement {
    moved().with_version(2)
}

fn moved() -> Announcement {
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
            let _ = pool.add(now, alice, &before());
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
        Event::Meddle => {
            let mallory = node("mallory");
            let mut own = before().with_version(9);
            for share in &mut own.shares {
                share.holder = mallory;
            }
            assert!(pool.add(now, mallory, &own).is_err());
            own.sender = mallory;
            own.receiver = mallory;
            let _ = pool.add(now, mallory, &own);
            for own in 1..=6 {
                let _ = pool.unfreeze(now, id, index(own), mallory);
                let _ = pool.claim(now, id, mallory, index(own));
            }
            let _ = pool.ack(now, id, mallory);
            let _ = pool.remove(now, id, mallory);
            let octets = share(9, 1);
            let digest = digest(&octets);
            let _ = pool.store(now, mallory, id, index(1), octets, digest);
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
fn a_stranger_changes_nothing_whenever_it_meddles() {
    use Event::*;
    for end in [Ack, Remove, Claim(1)] {
        let events = [Add, Move, Store(1), Unfreeze(4), end];
        let alone = one_outcome(&events, 1);
        let meddled = one_outcome(&[&events[..], &[Meddle]].concat(), 1);
        assert_eq!(meddled, alone);
    }
}

/// Runs `events` on a pool on disk, which is committed after each; at `crash` the process ends and
/// the pool comes back from disk.
fn crashed(events: &[Event], crash: usize) -> String {
    let start = base();
    let anchor = |now| Anchor {
        at: now,
        unix: secs(1_000_000) + (now - start),
    };
    let mut store = MemoryStore::new();
    let config = PoolConfig::new(node("carol"));
    let mut now = start;
    let mut pool = Pool::restore(config, anchor(now), store.records(), digest).0;
    for (at, event) in events.iter().enumerate() {
        if at == crash {
            pool = Pool::restore(config, anchor(now), store.records(), digest).0;
        }
        now = apply(&mut pool, now, *event);
        while let Some(batch) = pool.poll_persist() {
            store.commit(&batch.changes).unwrap();
            pool.handle_persisted(batch.op);
        }
    }
    // The longest lease: how often one lapsed before is not remembered.
    now += secs(160);
    pool.handle_timeout(now);
    outcome(&pool, now)
}

#[test]
fn with_repeated_requests_a_crash_at_any_point_of_any_order_changes_nothing() {
    use Event::*;
    for end in [
        &[Ack][..],
        &[Remove],
        &[Claim(1), Release(1)],
        &[StoreBad(1), Claim(4)],
    ] {
        let events = [&[Add, Move, Store(1), Unfreeze(4)], end].concat();
        let mut outcomes = std::collections::BTreeSet::new();
        for order in permutations(&events) {
            // Whoever heard no answer asks again.
            let twice = [&order[..], &order[..]].concat();
            for crash in 0..=order.len() {
                outcomes.insert(crashed(&twice, crash));
            }
            outcomes.insert(crashed(&twice, usize::MAX));
        }
        assert_eq!(outcomes.len(), 1, "{end:?}: {outcomes:#?}");
    }
}

#[test]
fn an_end_that_is_on_disk_outlasts_a_crash_without_any_repetition() {
    use Event::*;
    for end in [Ack, Remove, Expire] {
        for order in permutations(&[Store(1), Store(4), Unfreeze(4), end]) {
            let order = [&[Add], &order[..]].concat();
            for crash in 0..=order.len() {
                let seen = crashed(&order, crash);
                let at = order.iter().position(|event| *event == end).unwrap();
                if crash > 0 && at > 0 {
                    assert!(
                        seen.ends_with(&format!("{:?}", Usage::default())),
                        "{order:?}"
                    );
                    assert!(seen.contains("Finished"), "{order:?} {crash}: {seen}");
                }
            }
        }
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

/// How a holder that does not keep to the protocol behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Other octets, every time.
    Bad,
    /// Nothing at all.
    Silent,
    /// Other octets first, the right ones when asked again.
    Wavers,
    /// The right octets of its own share, and other octets in the names of all others.
    Smears,
}

#[test]
fn fewer_than_k_lying_holders_never_stop_a_message_and_only_liars_are_blamed() {
    use Lie::*;
    let holders = ["carol", "dave", "erin", "frank", "grace"];
    let mut runs = 0;
    for first in 0..5 {
        for second in 0..5 {
            for lies in [Bad, Silent, Wavers, Smears]
                .into_iter()
                .flat_map(|one| [Bad, Silent, Wavers, Smears].map(|other| [one, other]))
            {
                let lie = |at: usize| match at {
                    _ if at == first => Some(lies[0]),
                    _ if at == second => Some(lies[1]),
                    _ => None,
                };
                let mut bob = Collector::new(CollectorConfig::new(node("bob")));
                let (id, mut now) = (message(1), base());
                bob.announce(now, &announcement(1, 3, 3, &holders)).unwrap();
                let mut asked: Vec<(usize, bool)> = vec![(0, false), (1, false), (2, false)];
                let mut complete = false;
                let mut steps = 0;
                while !complete {
                    steps += 1;
                    assert!(steps < 100, "{lies:?} at {first} and {second}");
                    for (at, again) in std::mem::take(&mut asked) {
                        let mut bring = |own: usize, good: bool| {
                            let own = u8::try_from(own + 1).unwrap();
                            let octets = share(if good { 1 } else { 9 }, own);
                            let digest = digest(&octets);
                            let from = node(holders[at]);
                            let _ = bob.share(now, from, id, index(own), octets, digest);
                        };
                        match lie(at) {
                            None => bring(at, true),
                            Some(Bad) => bring(at, false),
                            Some(Silent) => {}
                            Some(Wavers) => bring(at, again),
                            Some(Smears) => {
                                (0..5)
                                    .filter(|own| *own != at)
                                    .for_each(|own| bring(own, false));
                                bring(at, true);
                            }
                        }
                    }
                    while let Some(event) = bob.poll_event() {
                        match event {
                            CollectorEvent::Complete { shares, .. } => {
                                for (own, octets) in shares {
                                    assert_eq!(octets, share(1, own.get()));
                                }
                                complete = true;
                            }
                            CollectorEvent::Unfreeze { holder, .. } => {
                                let at = holders.iter().position(|name| node(name) == holder);
                                asked.push((at.unwrap(), false));
                            }
                            CollectorEvent::Claim { holder, .. } => {
                                let at = holders.iter().position(|name| node(name) == holder);
                                asked.push((at.unwrap(), true));
                            }
                            CollectorEvent::BadShare { from, .. } => {
                                let at = holders.iter().position(|name| node(name) == from);
                                assert!(lie(at.unwrap()).is_some(), "{from} is honest");
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    if asked.is_empty() && !complete {
                        now = bob.poll_timeout().unwrap();
                        bob.handle_timeout(now);
                    }
                }
                assert!(bob.delivered(now, id));
                runs += 1;
            }
        }
    }
    assert_eq!(runs, 5 * 5 * 16);
}
