//! Random scripts against a collector: what must hold whatever happens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::*;
use proptest::prelude::*;
use vmdt_pool::{Announcement, Collector, CollectorConfig, CollectorEvent, Usage};

const HOLDERS: [&str; 4] = ["carol", "dave", "erin", "frank"];
const N: u8 = 6;
const K: u8 = 3;
const MAX_ASKS: u8 = 3;

#[derive(Debug, Clone)]
enum Op {
    /// Where the six shares are, how many of them are active, whether alice says so.
    Announce {
        id: u8,
        holders: [u8; 6],
        active: u8,
        genuine: bool,
    },
    Share {
        id: u8,
        own: u8,
        from: u8,
        good: bool,
    },
    Lost {
        holder: u8,
    },
    Remove {
        id: u8,
        genuine: bool,
    },
    /// The verdict on what is out: whether it opened.
    Verdict {
        id: u8,
        opened: bool,
    },
    Wait {
        ms: u64,
    },
}

fn any_op() -> impl Strategy<Value = Op> {
    let id = || 1_u8..4;
    prop_oneof![
        3 => (id(), any::<[u8; 6]>(), 0_u8..5, prop::bool::weighted(0.9)).prop_map(
            |(id, holders, active, genuine)| Op::Announce {
                id,
                holders: holders.map(|at| at % 4),
                active,
                genuine,
            }
        ),
        10 => (id(), 1..=N, 0_u8..4, prop::bool::weighted(0.85))
            .prop_map(|(id, own, from, good)| Op::Share { id, own, from, good }),
        2 => (0_u8..4).prop_map(|holder| Op::Lost { holder }),
        1 => (id(), prop::bool::weighted(0.3)).prop_map(|(id, genuine)| Op::Remove { id, genuine }),
        5 => (id(), prop::bool::weighted(0.4))
            .prop_map(|(id, opened)| Op::Verdict { id, opened }),
        5 => prop_oneof![0_u64..200, 500_u64..10_000, Just(31_000), Just(300_000)]
            .prop_map(|ms| Op::Wait { ms }),
    ]
}

fn announce(id: u8, holders: [u8; 6], active: u8) -> Announcement {
    let names = holders.map(|at| HOLDERS[usize::from(at)]);
    announcement(id, K, usize::from(active), &names)
}

fn bob() -> Collector {
    Collector::new(CollectorConfig {
        max_asks: MAX_ASKS,
        // Longer than any script: no message begins again.
        tombstone_ttl: secs(1_000_000),
        ..CollectorConfig::new(node("bob"))
    })
}

fn apply(bob: &mut Collector, now: Instant, op: &Op) -> String {
    match *op {
        Op::Announce {
            id,
            holders,
            active,
            genuine,
        } => {
            let mut ann = announce(id, holders, active);
            if !genuine {
                ann.sender = node("mallory");
            }
            format!("{:?}", bob.announce(now, &ann))
        }
        Op::Share {
            id,
            own,
            from,
            good,
        } => {
            let octets = share(if good { id } else { 88 }, own);
            let digest = digest(&octets);
            let from = node(HOLDERS[usize::from(from)]);
            let outcome = bob.share(now, from, message(id), index(own), octets, digest);
            format!("{outcome:?}")
        }
        Op::Lost { holder } => {
            bob.holder_lost(now, node(HOLDERS[usize::from(holder)]));
            String::new()
        }
        Op::Remove { id, genuine } => {
            let by = node(if genuine { "alice" } else { "mallory" });
            format!("{:?}", bob.remove(now, message(id), by))
        }
        Op::Verdict { id, opened: true } => bob.delivered(now, message(id)).to_string(),
        Op::Verdict { id, opened: false } => bob.failed(now, message(id)).to_string(),
        Op::Wait { .. } => {
            bob.handle_timeout(now);
            String::new()
        }
    }
}

fn wait_of(op: &Op) -> Duration {
    match op {
        Op::Wait { ms: wait } => ms(*wait),
        _ => Duration::ZERO,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_a_collector_hands_over_and_asks_for_keeps_the_rules(
        ops in prop::collection::vec(any_op(), 1..120),
    ) {
        let (mut bob, mut now) = (bob(), base());
        let mut sets: BTreeMap<u8, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let mut asks: BTreeMap<(u8, u8), u8> = BTreeMap::new();
        let mut over: BTreeSet<u8> = BTreeSet::new();
        for op in &ops {
            now += wait_of(op);
            let said = apply(&mut bob, now, op);
            if let (Op::Verdict { id, opened: true }, "true") = (op, said.as_str()) {
                prop_assert!(over.insert(*id), "message {id} was delivered twice");
            }
            while let Some(event) = bob.poll_event() {
                let (id, ask) = match &event {
                    CollectorEvent::Complete { message, shares } => {
                        let id = (1..4).find(|id| common::message(*id) == *message).unwrap();
                        let set: Vec<u8> = shares.iter().map(|(own, _)| own.get()).collect();
                        prop_assert_eq!(set.len(), usize::from(K));
                        prop_assert!(set.is_sorted());
                        for (own, octets) in shares {
                            prop_assert_eq!(octets, &share(id, own.get()));
                        }
                        prop_assert!(sets.entry(id).or_default().insert(set), "a set came twice");
                        (id, None)
                    }
                    CollectorEvent::Unfreeze { message, index, holder }
                    | CollectorEvent::Claim { message, index, holder } => {
                        let id = (1..4).find(|id| common::message(*id) == *message).unwrap();
                        let known = bob.announcement(*message).unwrap();
                        prop_assert_eq!(known.placement(*index).unwrap().holder, *holder);
                        (id, Some(index.get()))
                    }
                    CollectorEvent::BadShare { .. } => continue,
                    CollectorEvent::Revoked { message } | CollectorEvent::Expired { message } => {
                        let id = (1..4).find(|id| common::message(*id) == *message).unwrap();
                        prop_assert!(over.insert(id), "message {id} ended twice");
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                prop_assert!(!over.contains(&id), "{event:?} after the end");
                if let Some(own) = ask {
                    let count = asks.entry((id, own)).or_default();
                    *count += 1;
                    prop_assert!(*count <= MAX_ASKS, "share {own} was asked for too often");
                }
            }
            let served = matches!(op, Op::Wait { .. });
            let overdue = bob.poll_timeout().is_some_and(|next| next <= now);
            prop_assert!(!(served && overdue), "a deadline that was served is still there");
            prop_assert!(bob.usage().entries <= 3);
        }
        // Served at each deadline it comes to rest, with nothing kept.
        let mut steps = 0;
        while let Some(next) = bob.poll_timeout() {
            prop_assert!(next > now, "a deadline that is over");
            now = next;
            bob.handle_timeout(now);
            while bob.poll_event().is_some() {}
            steps += 1;
            prop_assert!(steps < 500, "it does not come to rest");
        }
        prop_assert_eq!(bob.usage(), Usage::default());
    }

    #[test]
    fn every_request_applied_twice_equals_once(ops in prop::collection::vec(any_op(), 1..80)) {
        let (mut bob, mut now) = (bob(), base());
        for op in &ops {
            now += wait_of(op);
            apply(&mut bob, now, op);
            let mut twice = bob.clone();
            apply(&mut twice, now, op);
            // Each bad delivery is reported; nothing else is said twice.
            let events = |bob: &mut Collector| {
                let mut events = told(bob);
                events.dedup();
                events.retain(|event| !event.starts_with("BadShare"));
                events
            };
            prop_assert_eq!(events(&mut twice), events(&mut bob), "{:?}", op);
            prop_assert_eq!(format!("{twice:?}"), format!("{bob:?}"), "{:?}", op);
        }
    }

    #[test]
    fn the_same_script_leads_to_the_same_events(ops in prop::collection::vec(any_op(), 1..80)) {
        let start = base();
        let run = |order: &mut dyn FnMut(&mut Collector, Instant)| {
            let (mut bob, mut now, mut log) = (bob(), start, Vec::new());
            for op in &ops {
                now += wait_of(op);
                order(&mut bob, now);
                log.push(apply(&mut bob, now, op));
                log.extend(told(&mut bob));
            }
            log
        };
        let plain = run(&mut |_, _| {});
        // Serving the timer at the same instant, before the request, makes no difference.
        let served = run(&mut |bob, now| bob.handle_timeout(now));
        prop_assert_eq!(plain, served);
    }

    #[test]
    fn k_good_shares_are_enough_whatever_else_comes(
        order in Just((1..=N).collect::<Vec<_>>()).prop_shuffle(),
        noise in prop::collection::vec((1..=N, 0_u8..4), 0..10),
        announced_after in 0_usize..6,
        lost in 0_u8..4,
    ) {
        let (mut bob, now) = (bob(), base());
        let mut told = Vec::new();
        let mut noise = noise.into_iter();
        for (at, own) in order.into_iter().enumerate() {
            if at == announced_after {
                bob.announce(now, &announce(1, [0, 1, 2, 3, 0, 1], 3)).unwrap();
                bob.holder_lost(now, node(HOLDERS[usize::from(lost)]));
            }
            for (own, from) in noise.by_ref().take(2) {
                apply(&mut bob, now, &Op::Share { id: 1, own, from, good: false });
            }
            apply(&mut bob, now, &Op::Share { id: 1, own, from: 0, good: true });
            told.extend(common::told(&mut bob));
            let done = told.iter().any(|event| event.starts_with("Complete"));
            prop_assert_eq!(done, at + 1 >= 3 && at >= announced_after, "after {} shares", at + 1);
        }
    }
}
