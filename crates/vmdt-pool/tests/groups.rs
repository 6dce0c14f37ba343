//! One message to several receivers, and announcements in any order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::*;
use vmdt_pool::{
    AddError, Added, Announced, Announcement, Changed, ClaimError, Collector, CollectorConfig,
    EndError, Ended, MAX_DETAILS, MAX_RECEIVERS, Pool, PoolEvent, ShareOutcome, ShareState,
    UnfreezeError, Unfrozen, Usage,
};
use vmdt_wire::NodeId;

const HOLDERS: [&str; 4] = ["carol", "dave", "erin", "carol"];

/// 3 of 4 for bob, bert and bea; carol holds 1 (active) and 4 (frozen).
fn spread() -> Announcement {
    announcement(1, 3, 3, &HOLDERS).with_group([node("bert"), node("bea")])
}

fn held() -> (Pool, std::time::Instant) {
    let (mut pool, now) = (pool(), base());
    pool.add(now, node("alice"), &spread()).unwrap();
    for own in [1, 4] {
        let octets = share(1, own);
        let digest = digest(&octets);
        pool.store(now, node("alice"), message(1), index(own), octets, digest)
            .unwrap();
    }
    (pool, now)
}

fn offered(pool: &mut Pool) -> Vec<(u8, NodeId)> {
    pool_events(pool)
        .into_iter()
        .map(|event| match event {
            PoolEvent::Offer {
                index, receiver, ..
            } => (index.get(), receiver),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn each_receiver_is_offered_the_share_and_claims_for_itself() {
    let (mut pool, now) = held();
    let all = ["bea", "bert", "bob"].map(|name| (1, node(name)));
    assert_eq!(offered(&mut pool), all);
    for (_, receiver) in all {
        assert_eq!(
            pool.claim(now, message(1), receiver, index(1)),
            Ok(share(1, 1))
        );
    }
    let stranger = pool.claim(now, message(1), node("mallory"), index(1));
    assert!(matches!(stranger, Err(ClaimError::NotReceiver { .. })));
    // One transfer fails: only that receiver is offered it again.
    assert!(pool.release_for(now, message(1), index(1), node("bert")));
    pool.handle_timeout(now + secs(1));
    assert_eq!(offered(&mut pool), [(1, node("bert"))]);
}

#[test]
fn a_receiver_unfreezes_for_itself_and_the_sender_for_all() {
    let (mut pool, now) = held();
    offered(&mut pool);
    let unfreeze = |pool: &mut Pool, by| pool.unfreeze(now, message(1), index(4), node(by));
    assert_eq!(unfreeze(&mut pool, "bert"), Ok(Unfrozen::Now));
    assert_eq!(unfreeze(&mut pool, "bert"), Ok(Unfrozen::Already));
    assert_eq!(offered(&mut pool), [(4, node("bert"))]);
    let state = |pool: &Pool, of| pool.state_for(message(1), index(4), node(of));
    assert_eq!(state(&pool, "bob"), Some(ShareState::Frozen));
    assert_eq!(
        pool.claim(now, message(1), node("bob"), index(4)),
        Err(ClaimError::Frozen { index: index(4) })
    );
    assert_eq!(
        unfreeze(&mut pool, "mallory"),
        Err(UnfreezeError::NotOwner {
            by: node("mallory")
        })
    );
    assert_eq!(unfreeze(&mut pool, "alice"), Ok(Unfrozen::Now));
    assert_eq!(state(&pool, "bob"), Some(ShareState::Active));
    // bert's offer was polled and is not repeated by the sender's request.
    let others = ["bea", "bob"].map(|name| (4, node(name)));
    assert_eq!(offered(&mut pool), others);
    let known = pool.announcement(message(1)).unwrap();
    assert!(known.placement(index(4)).unwrap().active);
}

#[test]
fn what_receivers_asked_for_before_the_announcement_counts_for_each() {
    let (mut pool, now) = (pool(), base());
    let id = message(1);
    pool.unfreeze(now, id, index(4), node("bert")).unwrap();
    pool.ack(now, id, node("bea")).unwrap();
    pool.ack(now, id, node("mallory")).unwrap();
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::New));
    let state = |own, of| pool.state_for(id, index(own), node(of));
    assert_eq!(state(4, "bert"), Some(ShareState::Active));
    assert_eq!(state(4, "bob"), Some(ShareState::Frozen));
    assert_eq!(state(4, "bea"), None);
    assert_eq!(
        pool.claim(now, id, node("bea"), index(1)),
        Err(ClaimError::Finished { message: id })
    );
}

#[test]
fn the_message_ends_when_the_last_receiver_has_it_in_every_order() {
    for order in permutations(&["bob", "bert", "bea"]) {
        let (mut pool, now) = held();
        for (at, name) in order.iter().enumerate() {
            let last = at + 1 == order.len();
            let expected = if last { Ended::Now } else { Ended::ForOne };
            // A receiver that gives up counts for itself only.
            let ended = if at == 1 {
                pool.remove(now, message(1), node(name))
            } else {
                pool.ack(now, message(1), node(name))
            };
            assert_eq!(ended, Ok(expected), "{order:?}");
            assert_eq!(pool.ack(now, message(1), node(name)), Ok(Ended::Already));
            assert_eq!(pool.announcement(message(1)).is_none(), last);
        }
        assert_eq!(pool.usage(), Usage::default());
        let again = pool.ack(now, message(1), node("mallory"));
        assert_eq!(
            again,
            Err(EndError::NotReceiver {
                by: node("mallory")
            })
        );
    }
}

#[test]
fn the_sender_ends_it_for_all_and_a_receiver_that_has_it_gets_nothing_more() {
    let (mut pool, now) = held();
    pool.ack(now, message(1), node("bob")).unwrap();
    let two = ["bea", "bert"].map(|name| (1, node(name)));
    assert_eq!(offered(&mut pool), two);
    assert_eq!(
        pool.unfreeze(now, message(1), index(4), node("bob")),
        Ok(Unfrozen::Finished)
    );
    // A share that moves here later is not for it either.
    let mut newer = spread().with_version(1);
    newer.shares[1].active = true;
    assert_eq!(pool.add(now, node("alice"), &newer), Ok(Added::Updated));
    assert_eq!(pool.state_for(message(1), index(1), node("bob")), None);
    assert_eq!(pool.remove(now, message(1), node("alice")), Ok(Ended::Now));
}

#[test]
fn a_receiver_that_lost_what_it_acknowledged_asks_again_while_others_wait() {
    let (mut pool, now) = held();
    let bob = node("bob");
    assert!(!pool.ask_again(now, message(1), bob), "it has not got it");
    pool.ack(now, message(1), bob).unwrap();
    offered(&mut pool);
    assert!(!pool.ask_again(now, message(1), node("mallory")));
    assert!(pool.ask_again(now, message(1), bob));
    assert_eq!(
        offered(&mut pool),
        [(1, bob)],
        "what is active, to it alone"
    );
    assert!(pool.claim(now, message(1), bob, index(1)).is_ok());
    assert_eq!(
        pool.state_for(message(1), index(4), bob),
        Some(ShareState::Frozen)
    );
    // it counts again: the message ends with the last of them
    for (name, expected) in [
        ("bert", Ended::ForOne),
        ("bea", Ended::ForOne),
        ("bob", Ended::Now),
    ] {
        let ended = pool.ack(now, message(1), node(name));
        assert_eq!(ended, Ok(expected), "{name}");
    }
    assert!(!pool.ask_again(now, message(1), bob), "it is gone");
}

#[test]
fn a_message_without_all_acks_expires() {
    let (mut pool, now) = held();
    pool.ack(now, message(1), node("bob")).unwrap();
    pool.handle_timeout(now + secs(600));
    let expired = PoolEvent::Expired {
        message: message(1),
    };
    assert!(pool_events(&mut pool).contains(&expired));
    assert_eq!(pool.usage(), Usage::default());
}

#[test]
fn every_receiver_collects_and_only_the_sender_withdraws() {
    let now = base();
    for name in ["bob", "bert", "bea"] {
        let mut collector = Collector::new(CollectorConfig::new(node(name)));
        assert_eq!(collector.announce(now, &spread()), Ok(Announced::New));
        let other = if name == "bob" { "bert" } else { "bob" };
        let refused = collector.remove(now, message(1), node(other));
        assert_eq!(refused, Err(EndError::NotOwner { by: node(other) }));
        let ended = collector.remove(now, message(1), node("alice"));
        assert_eq!(ended, Ok(Ended::Now));
    }
    let mut stranger = Collector::new(CollectorConfig::new(node("carol")));
    assert!(matches!(
        stranger.announce(now, &spread()),
        Err(AddError::NotReceiver { .. })
    ));
}

#[test]
fn an_overtaken_announcement_moves_nothing_back() {
    let now = base();
    let first = announcement(1, 3, 3, &["carol", "dave", "erin", "frank"]).with_version(1);
    let second = announcement(1, 3, 3, &["carol", "carol", "erin", "frank"]).with_version(2);
    let mut twin = announcement(1, 3, 3, &["carol", "grace", "erin", "frank"]);
    twin.version = 2;
    let mut pool = pool();
    let mut bob = Collector::new(CollectorConfig::new(node("bob")));
    assert_eq!(pool.add(now, node("alice"), &second), Ok(Added::New));
    assert_eq!(bob.announce(now, &second), Ok(Announced::New));
    for old in [&first, &twin, &second] {
        assert_eq!(pool.add(now, node("alice"), old), Ok(Added::Known));
        assert_eq!(bob.announce(now, old), Ok(Announced::Known));
        assert_eq!(pool.announcement(message(1)), Some(&second));
        assert_eq!(bob.announcement(message(1)), Some(&second));
    }
    // An older one may list less, but may not contradict.
    let mut less = first.clone();
    less.shares.pop();
    assert_eq!(pool.add(now, node("alice"), &less), Ok(Added::Known));
    less.shares[0].digest = [9; 16];
    assert_eq!(
        pool.add(now, node("alice"), &less),
        Err(AddError::Changed(Changed::Digest(index(1))))
    );
    let third = announcement(1, 3, 3, &["carol", "erin", "carol", "frank"]).with_version(3);
    assert!(matches!(
        pool.add(now, node("alice"), &third),
        Err(AddError::Privacy { would_hold: 3, .. })
    ));
}

#[test]
fn details_are_bounded_and_fixed() {
    let (mut pool, now) = (pool(), base());
    let with = |details: Bytes| {
        announcement(1, 3, 3, &HOLDERS)
            .with_version(1)
            .with_details(details)
    };
    let long = with(vec![0; MAX_DETAILS + 1].into());
    assert_eq!(
        pool.add(now, node("alice"), &long),
        Err(AddError::DetailsTooLong {
            found: MAX_DETAILS + 1,
            allowed: MAX_DETAILS
        })
    );
    let full = with(vec![0; MAX_DETAILS].into());
    assert_eq!(pool.add(now, node("alice"), &full), Ok(Added::New));
    for other in [with(Bytes::new()).with_version(2), with(vec![1].into())] {
        let differ = AddError::DetailsDiffer {
            message: message(1),
        };
        assert_eq!(pool.add(now, node("alice"), &other), Err(differ));
    }
    let unsealed = full.clone().with_sealed(true).with_version(2);
    assert_eq!(
        pool.add(now, node("alice"), &unsealed),
        Err(AddError::Changed(Changed::Sealed))
    );
    pool.remove(now, message(1), node("alice")).unwrap();
    assert_eq!(pool.usage(), Usage::default());
}

#[test]
fn receivers_are_named_once_bounded_and_fixed() {
    let (mut pool, now) = (pool(), base());
    let with = |group: Vec<NodeId>| announcement(1, 3, 3, &HOLDERS).with_group(group);
    for twice in [vec![node("bob")], vec![node("bert"), node("bert")]] {
        let receiver = twice[0];
        assert_eq!(
            pool.add(now, node("alice"), &with(twice)),
            Err(AddError::DuplicateReceiver { receiver })
        );
    }
    let many = |count| (1..=count).map(|i| node(&format!("r{i}"))).collect();
    assert_eq!(
        with(many(MAX_RECEIVERS)).check(),
        Err(AddError::TooManyReceivers {
            found: MAX_RECEIVERS + 1,
            allowed: MAX_RECEIVERS
        })
    );
    assert_eq!(with(many(MAX_RECEIVERS - 1)).check(), Ok(()));
    assert_eq!(with(vec![NodeId::EMPTY]).check(), Err(AddError::ReservedId));
    pool.add(now, node("alice"), &spread()).unwrap();
    let mut reordered = spread();
    reordered.group.reverse();
    assert_eq!(pool.add(now, node("alice"), &reordered), Ok(Added::Known));
    assert_eq!(
        pool.add(now, node("alice"), &with(vec![node("bert")])),
        Err(AddError::Changed(Changed::Receiver))
    );
}

#[test]
fn a_sealed_message_may_go_directly_but_members_still_hold_fewer_than_k() {
    let ann = spread().with_sealed(true);
    assert_eq!(ann.most_direct(), 4);
    assert_eq!(spread().most_direct(), 2);
    assert_eq!(ann.most_at(node("carol")), 2);
    assert_eq!(ann.most_at(node("bert")), 4);
    let mut pool = pool();
    let mut greedy = announcement(1, 3, 3, &["carol", "carol", "carol", "dave"]);
    greedy.sealed = true;
    assert!(matches!(
        pool.add(base(), node("alice"), &greedy),
        Err(AddError::Privacy { would_hold: 3, .. })
    ));
}

#[test]
fn what_a_holder_passes_on_moves_nothing_and_gives_way_to_the_senders_word() {
    let now = base();
    let genuine = announcement(1, 3, 3, &["carol", "dave", "erin", "frank"]).with_version(2);
    let mut forged = announcement(1, 3, 3, &["eve", "eve", "erin", "frank"]).with_version(u32::MAX);
    forged.shares[0].digest = [9; 16];
    let bring = |bob: &mut Collector, own: u8, from: &str| {
        let octets = share(1, own);
        let digest = digest(&octets);
        bob.share(now, node(from), message(1), index(own), octets, digest)
            .unwrap()
    };
    let fresh = || Collector::new(CollectorConfig::new(node("bob")));

    // The sender spoke first.
    let mut bob = fresh();
    bob.announce(now, &genuine).unwrap();
    let heard = bob.announce_from(now, node("eve"), &forged);
    assert_eq!(heard, Ok(Announced::Known));
    assert_eq!(bob.announcement(message(1)), Some(&genuine));

    // The forgery came first: nobody is blamed, nothing is lost, and the sender's word counts.
    let mut bob = fresh();
    let heard = bob.announce_from(now, node("eve"), &forged);
    assert_eq!(heard, Ok(Announced::New));
    assert_eq!(bring(&mut bob, 1, "carol"), ShareOutcome::Early);
    assert_eq!(bring(&mut bob, 3, "erin"), ShareOutcome::Accepted);
    assert_eq!(bring(&mut bob, 4, "frank"), ShareOutcome::Accepted);
    assert!(told(&mut bob).is_empty());
    assert_eq!(bob.announce(now, &genuine), Ok(Announced::New));
    assert_eq!(bob.announcement(message(1)), Some(&genuine));
    assert_eq!(told(&mut bob), ["Complete 1 3 4"]);
    assert!(bob.delivered(now, message(1)));
    assert_eq!(bob.usage(), Usage::default());

    // Heard truly, the message completes without the sender.
    let mut bob = fresh();
    bob.announce_from(now, node("carol"), &genuine).unwrap();
    for (own, from) in [(1, "carol"), (2, "dave"), (3, "erin")] {
        assert_eq!(bring(&mut bob, own, from), ShareOutcome::Accepted);
    }
    assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
    // The user has the set: the sender's word, whatever it is, comes too late to take it back.
    assert_eq!(bob.announce(now, &genuine), Ok(Announced::Known));
    assert!(bob.delivered(now, message(1)));
}
