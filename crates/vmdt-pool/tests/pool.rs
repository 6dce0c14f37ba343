//! The holder's rules, one by one.
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
    AddError, Added, Announcement, Bound, Changed, ClaimError, EarlyConfig, EndError, Ended, Pool,
    PoolConfig, PoolEvent, QuotaError, ShareState, StoreError, Stored, UnfreezeError, Unfrozen,
    Usage,
};

type Change = fn(&mut Announcement);

/// 3 of 5; carol holds 1 (active) and 4 (frozen).
fn spread() -> Announcement {
    announcement(1, 3, 3, &["carol", "dave", "erin", "carol", "frank"])
}

fn store(pool: &mut Pool, now: Instant, number: u8, own: u8) -> Result<Stored, StoreError> {
    let share = share(number, own);
    let digest = digest(&share);
    pool.store(
        now,
        node("alice"),
        message(number),
        index(own),
        share,
        digest,
    )
}

fn held(now: Instant) -> Pool {
    let mut pool = pool();
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::New));
    assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::New));
    assert_eq!(store(&mut pool, now, 1, 4), Ok(Stored::New));
    pool
}

#[test]
fn an_active_share_is_offered_when_it_comes_and_a_frozen_one_is_not() {
    let now = base();
    let mut pool = held(now);
    assert_eq!(offers(&mut pool), [1]);
    assert_eq!(pool.state(message(1), index(1)), Some(ShareState::Active));
    assert_eq!(pool.state(message(1), index(4)), Some(ShareState::Frozen));
    assert_eq!(pool.state(message(1), index(2)), None);
}

#[test]
fn only_the_sender_announces() {
    let now = base();
    let mut pool = pool();
    for from in ["bob", "carol", "mallory"] {
        let (from, sender) = (node(from), node("alice"));
        assert_eq!(
            pool.add(now, from, &spread()),
            Err(AddError::NotSender { from, sender })
        );
    }
    assert_eq!(pool.usage(), Usage::default());
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::New));
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::Known));
}

#[test]
fn a_known_id_belongs_to_its_first_sender_even_after_the_end() {
    let now = base();
    let mut pool = held(now);
    let mut stolen = spread();
    stolen.sender = node("mallory");
    let refused = Err(AddError::ForeignSender {
        message: message(1),
        from: node("mallory"),
    });
    assert_eq!(pool.add(now, node("mallory"), &stolen), refused);
    assert_eq!(pool.ack(now, message(1), node("bob")), Ok(Ended::Now));
    assert_eq!(pool.add(now, node("mallory"), &stolen), refused);
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::Finished));
}

#[test]
fn only_the_sender_stores_and_only_what_it_announced() {
    let now = base();
    let mut pool = pool();
    pool.add(now, node("alice"), &spread()).unwrap();
    let good = share(1, 1);
    let fits = digest(&good);
    for from in ["mallory", "bob"] {
        let from = node(from);
        assert_eq!(
            pool.store(now, from, message(1), index(1), good.clone(), fits),
            Err(StoreError::NotSender { from })
        );
    }
    let bad = share(1, 9);
    let differs = digest(&bad);
    assert_eq!(
        pool.store(now, node("alice"), message(1), index(1), bad, differs),
        Err(StoreError::Mismatch { index: index(1) })
    );
    assert_eq!(
        pool.store(now, node("alice"), message(1), index(1), good, fits),
        Ok(Stored::New)
    );
    assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::Duplicate));
    assert_eq!(offers(&mut pool), [1]);
}

#[test]
fn only_the_receiver_claims_and_only_what_is_active_and_here() {
    let now = base();
    let mut pool = pool();
    let id = message(1);
    assert_eq!(
        pool.claim(now, id, node("bob"), index(1)),
        Err(ClaimError::UnknownMessage { message: id })
    );
    pool.add(now, node("alice"), &spread()).unwrap();
    assert_eq!(
        pool.claim(now, id, node("bob"), index(1)),
        Err(ClaimError::Missing { index: index(1) })
    );
    store(&mut pool, now, 1, 1).unwrap();
    store(&mut pool, now, 1, 4).unwrap();
    for claimer in ["alice", "carol", "mallory"] {
        let claimer = node(claimer);
        assert_eq!(
            pool.claim(now, id, claimer, index(1)),
            Err(ClaimError::NotReceiver { claimer })
        );
    }
    assert_eq!(
        pool.claim(now, id, node("bob"), index(2)),
        Err(ClaimError::NotPlacedHere { index: index(2) })
    );
    assert_eq!(
        pool.claim(now, id, node("bob"), index(4)),
        Err(ClaimError::Frozen { index: index(4) })
    );
    assert_eq!(pool.claim(now, id, node("bob"), index(1)), Ok(share(1, 1)));
    assert_eq!(pool.state(id, index(1)), Some(ShareState::Claimed));
    assert_eq!(pool.claim(now, id, node("bob"), index(1)), Ok(share(1, 1)));
    pool.remove(now, id, node("alice")).unwrap();
    assert_eq!(
        pool.claim(now, id, node("bob"), index(1)),
        Err(ClaimError::Finished { message: id })
    );
}

#[test]
fn only_owners_unfreeze() {
    let now = base();
    for by in ["alice", "bob"] {
        let mut pool = held(now);
        assert_eq!(offers(&mut pool), [1]);
        for stranger in ["carol", "mallory"] {
            let stranger = node(stranger);
            assert_eq!(
                pool.unfreeze(now, message(1), index(4), stranger),
                Err(UnfreezeError::NotOwner { by: stranger })
            );
        }
        assert_eq!(
            pool.unfreeze(now, message(1), index(4), node(by)),
            Ok(Unfrozen::Now)
        );
        assert_eq!(
            pool.unfreeze(now, message(1), index(4), node(by)),
            Ok(Unfrozen::Already)
        );
        assert_eq!(offers(&mut pool), [4]);
    }
}

#[test]
fn only_the_receiver_acks_and_only_owners_remove() {
    let now = base();
    let mut pool = held(now);
    for by in ["alice", "mallory", "carol"] {
        let by = node(by);
        assert_eq!(
            pool.ack(now, message(1), by),
            Err(EndError::NotReceiver { by })
        );
    }
    for by in ["mallory", "carol"] {
        let by = node(by);
        assert_eq!(
            pool.remove(now, message(1), by),
            Err(EndError::NotOwner { by })
        );
    }
    assert!(pool.announcement(message(1)).is_some());
    assert_eq!(pool.ack(now, message(1), node("bob")), Ok(Ended::Now));
    assert_eq!(pool.ack(now, message(1), node("bob")), Ok(Ended::Already));
    assert_eq!(
        pool.remove(now, message(1), node("alice")),
        Ok(Ended::Already)
    );
    let by = node("mallory");
    assert_eq!(
        pool.ack(now, message(1), by),
        Err(EndError::NotReceiver { by })
    );
    assert_eq!(
        pool.remove(now, message(1), by),
        Err(EndError::NotOwner { by })
    );
    assert_eq!(pool.usage(), Usage::default());
    assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::Finished));
    assert_eq!(
        offers(&mut pool),
        [],
        "an offer that was overtaken is not made"
    );
}

#[test]
fn a_member_may_hold_one_share_less_than_the_threshold_and_not_one_more() {
    let now = base();
    let two = announcement(1, 3, 3, &["carol", "carol", "dave", "erin", "frank"]);
    assert_eq!(pool().add(now, node("alice"), &two), Ok(Added::New));
    let three = announcement(1, 3, 3, &["carol", "carol", "dave", "erin", "carol"]);
    let refused = pool().add(now, node("alice"), &three).unwrap_err();
    assert_eq!(
        refused,
        AddError::Privacy {
            would_hold: 3,
            threshold: 3
        }
    );
    assert_eq!(
        refused.to_string(),
        "this node would have held 3 shares of the message; 3 are enough to read it, so at most 2 \
         are allowed"
    );
}

#[test]
fn the_privacy_rule_counts_shares_that_moved_away() {
    let now = base();
    let mut pool = pool();
    let at = |holders: &[&str]| announcement(1, 3, 3, holders);
    let first = at(&["carol", "dave", "erin", "frank", "grace"]);
    let second = at(&["dave", "carol", "erin", "frank", "grace"]);
    let third = at(&["dave", "erin", "carol", "frank", "grace"]);
    assert_eq!(pool.add(now, node("alice"), &first), Ok(Added::New));
    assert_eq!(pool.add(now, node("alice"), &second), Ok(Added::Updated));
    assert_eq!(
        pool.add(now, node("alice"), &third),
        Err(AddError::Privacy {
            would_hold: 3,
            threshold: 3
        })
    );
    assert_eq!(pool.announcement(message(1)), Some(&second));
    assert_eq!(pool.add(now, node("alice"), &first), Ok(Added::Updated));
}

#[test]
fn the_privacy_rule_does_not_bind_the_sender_and_the_receiver() {
    let now = base();
    for local in ["alice", "bob"] {
        let mut pool = Pool::new(PoolConfig::new(node(local)));
        let all = announcement(1, 3, 3, &[local; 5]);
        assert_eq!(pool.add(now, node("alice"), &all), Ok(Added::New));
        for own in 1..=5 {
            assert_eq!(store(&mut pool, now, 1, own), Ok(Stored::New));
        }
        assert_eq!(offers(&mut pool), [1, 2, 3]);
    }
}

#[test]
fn shares_that_come_ahead_of_an_announcement_count_for_the_privacy_rule() {
    let now = base();
    let mut pool = pool();
    for own in 1..=3 {
        assert_eq!(store(&mut pool, now, 1, own), Ok(Stored::Early));
    }
    assert_eq!(
        pool.add(now, node("alice"), &spread()),
        Err(AddError::Privacy {
            would_hold: 4,
            threshold: 3
        })
    );
    // And when the announcement is known: 1 and 4 are placed here, 2 would be the third.
    let mut pool = held(now);
    assert_eq!(
        store(&mut pool, now, 1, 2),
        Err(StoreError::Privacy {
            would_hold: 3,
            threshold: 3
        })
    );
}

#[test]
fn a_reannouncement_moves_shares_in_and_out() {
    let now = base();
    let mut pool = held(now);
    assert_eq!(offers(&mut pool), [1]);
    let full = pool.usage().octets;
    let moved = announcement(1, 3, 3, &["dave", "dave", "erin", "carol", "frank"]);
    assert_eq!(pool.add(now, node("alice"), &moved), Ok(Added::Updated));
    assert_eq!(pool.add(now, node("alice"), &moved), Ok(Added::Known));
    assert_eq!(pool.usage().octets, full - 4);
    assert_eq!(
        pool.claim(now, message(1), node("bob"), index(1)),
        Err(ClaimError::NotPlacedHere { index: index(1) })
    );
    // It moves back; its octets come ahead of the announcement that says so.
    assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::Early));
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::Updated));
    assert_eq!(offers(&mut pool), [1]);
    assert_eq!(pool.usage().octets, full);
}

#[test]
fn a_reannouncement_unfreezes_but_never_freezes() {
    let now = base();
    let mut pool = held(now);
    assert_eq!(offers(&mut pool), [1]);
    let mut all = spread();
    all.shares[3].active = true;
    assert_eq!(pool.add(now, node("alice"), &all), Ok(Added::Updated));
    assert_eq!(offers(&mut pool), [4]);
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::Known));
    assert_eq!(pool.state(message(1), index(4)), Some(ShareState::Active));
}

#[test]
fn a_reannouncement_may_not_change_what_is_fixed() {
    let now = base();
    let mut pool = held(now);
    let before = format!("{pool:?}");
    let cases: [(Change, Changed); 7] = [
        (|a| a.receiver = node("mallory"), Changed::Receiver),
        (|a| a.n = 6, Changed::Total),
        (|a| a.k = 4, Changed::Threshold),
        (|a| a.shares[1].digest[0] ^= 1, Changed::Digest(index(2))),
        (
            |a| {
                a.shares.remove(4);
            },
            Changed::Missing(index(5)),
        ),
        (|a| a.label.push('x'), Changed::Label),
        (|a| a.content = 1, Changed::Content),
    ];
    for (change, what) in cases {
        let mut changed = spread();
        change(&mut changed);
        assert_eq!(
            pool.add(now, node("alice"), &changed),
            Err(AddError::Changed(what))
        );
    }
    assert_eq!(format!("{pool:?}"), before);
}

#[test]
fn a_reannouncement_may_list_more_shares() {
    let now = base();
    let mut pool = pool();
    let mut four = spread();
    let last = four.shares.pop().unwrap();
    assert_eq!(pool.add(now, node("alice"), &four), Ok(Added::New));
    four.shares.insert(0, last);
    assert_eq!(pool.add(now, node("alice"), &four), Ok(Added::Updated));
    // In another order it is the same.
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::Known));
}

#[test]
fn announcements_that_contradict_themselves_are_refused() {
    let now = base();
    let cases: [(Change, AddError); 11] = [
        (|a| a.k = 1, AddError::Threshold { k: 1, n: 5 }),
        (|a| a.k = 0, AddError::Threshold { k: 0, n: 5 }),
        (|a| a.k = 6, AddError::Threshold { k: 6, n: 5 }),
        (
            |a| a.shares.truncate(2),
            AddError::ShareCount {
                found: 2,
                min: 3,
                max: 5,
            },
        ),
        (
            |a| a.shares.push(a.shares[0]),
            AddError::ShareCount {
                found: 6,
                min: 3,
                max: 5,
            },
        ),
        (
            |a| a.shares[4].index = index(1),
            AddError::DuplicateIndex { index: index(1) },
        ),
        (
            |a| a.shares[4].index = index(6),
            AddError::IndexOutOfRange {
                index: index(6),
                n: 5,
            },
        ),
        (
            |a| a.label = "x".repeat(513),
            AddError::LabelTooLong {
                found: 513,
                allowed: 512,
            },
        ),
        (
            |a| a.message = vmdt_wire::MessageId::ZERO,
            AddError::ReservedId,
        ),
        (
            |a| a.receiver = vmdt_wire::NodeId::EMPTY,
            AddError::ReservedId,
        ),
        (
            |a| a.shares[0].holder = vmdt_wire::NodeId::EMPTY,
            AddError::ReservedId,
        ),
    ];
    for (change, error) in cases {
        let mut changed = spread();
        change(&mut changed);
        let mut pool = pool();
        assert_eq!(pool.add(now, node("alice"), &changed), Err(error));
        assert_eq!(pool.usage(), Usage::default());
    }
    let mut longest = spread();
    longest.label = "x".repeat(512);
    assert_eq!(pool().add(now, node("alice"), &longest), Ok(Added::New));
}

#[test]
fn a_node_without_a_share_keeps_nothing() {
    let now = base();
    let mut pool = pool();
    let elsewhere = announcement(1, 2, 2, &["dave", "erin", "frank"]);
    let local = node("carol");
    assert_eq!(
        pool.add(now, node("alice"), &elsewhere),
        Err(AddError::NotAHolder { local })
    );
    assert_eq!(pool.usage(), Usage::default());
    assert_eq!(pool.poll_timeout(), None);
}

#[test]
fn a_lease_that_ends_offers_the_share_again_and_the_next_is_longer() {
    let start = base();
    let mut pool = held(start);
    assert_eq!(offers(&mut pool), [1]);
    let mut now = start;
    for lease in [10, 20, 40, 80, 160, 160] {
        pool.claim(now, message(1), node("bob"), index(1)).unwrap();
        pool.handle_timeout(now + secs(lease) - ms(1));
        assert_eq!(pool.state(message(1), index(1)), Some(ShareState::Claimed));
        assert_eq!(offers(&mut pool), []);
        now += secs(lease);
        assert_eq!(pool.poll_timeout(), Some(now));
        pool.handle_timeout(now);
        assert_eq!(pool.state(message(1), index(1)), Some(ShareState::Active));
        assert_eq!(offers(&mut pool), [1]);
    }
}

#[test]
fn a_second_claim_renews_the_lease() {
    let now = base();
    let mut pool = held(now);
    pool.claim(now, message(1), node("bob"), index(1)).unwrap();
    pool.claim(now + secs(6), message(1), node("bob"), index(1))
        .unwrap();
    pool.handle_timeout(now + secs(15));
    assert_eq!(pool.state(message(1), index(1)), Some(ShareState::Claimed));
    pool.handle_timeout(now + secs(16));
    assert_eq!(pool.state(message(1), index(1)), Some(ShareState::Active));
}

#[test]
fn a_release_offers_the_share_again_after_a_growing_pause() {
    let mut now = base();
    let mut pool = held(now);
    assert_eq!(offers(&mut pool), [1]);
    for pause in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        pool.claim(now, message(1), node("bob"), index(1)).unwrap();
        assert!(pool.release(now, message(1), index(1)));
        assert!(!pool.release(now, message(1), index(1)));
        assert_eq!(pool.state(message(1), index(1)), Some(ShareState::Active));
        pool.handle_timeout(now + ms(pause - 1));
        assert_eq!(offers(&mut pool), []);
        now += ms(pause);
        pool.handle_timeout(now);
        assert_eq!(offers(&mut pool), [1]);
    }
    // A claim need not wait for the offer.
    pool.claim(now, message(1), node("bob"), index(1)).unwrap();
    pool.release(now, message(1), index(1));
    assert!(pool.claim(now, message(1), node("bob"), index(1)).is_ok());
    assert!(!pool.release(now, message(2), index(1)));
    assert!(!pool.release(now, message(1), index(4)));
}

#[test]
fn an_entry_expires_at_its_time_and_not_before() {
    let now = base();
    let mut pool = held(now);
    assert_eq!(offers(&mut pool), [1]);
    pool.handle_timeout(now + secs(600) - ms(1));
    assert!(pool.announcement(message(1)).is_some());
    pool.handle_timeout(now + secs(600));
    assert_eq!(
        pool_events(&mut pool),
        [PoolEvent::Expired {
            message: message(1)
        }]
    );
    assert_eq!(pool.usage(), Usage::default());
    let later = now + secs(601);
    assert_eq!(
        pool.add(later, node("alice"), &spread()),
        Ok(Added::Finished)
    );
    // The tombstone goes last, and with it every timer.
    assert_eq!(pool.poll_timeout(), Some(now + secs(600 + 3600)));
    pool.handle_timeout(now + secs(600 + 3600));
    assert_eq!(pool.poll_timeout(), None);
}

#[test]
fn a_claim_sees_what_is_due_even_if_no_timeout_was_served() {
    let now = base();
    let mut pool = held(now);
    assert_eq!(
        pool.claim(now + secs(600), message(1), node("bob"), index(1)),
        Err(ClaimError::Finished {
            message: message(1)
        })
    );
}

#[test]
fn what_comes_early_takes_effect_with_the_announcement() {
    let now = base();
    let mut pool = pool();
    assert_eq!(store(&mut pool, now, 1, 4), Ok(Stored::Early));
    assert_eq!(store(&mut pool, now, 1, 4), Ok(Stored::Early));
    assert_eq!(
        pool.unfreeze(now, message(1), index(4), node("bob")),
        Ok(Unfrozen::Early)
    );
    assert_eq!(pool.usage(), Usage::default());
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::New));
    assert_eq!(offers(&mut pool), [4]);
}

#[test]
fn what_strangers_bring_early_has_no_effect() {
    let now = base();
    let mut pool = pool();
    let (stranger, id) = (node("mallory"), message(1));
    let good = share(1, 1);
    let fits = digest(&good);
    assert_eq!(
        pool.store(now, stranger, id, index(1), good, fits),
        Ok(Stored::Early)
    );
    assert_eq!(
        pool.unfreeze(now, id, index(4), stranger),
        Ok(Unfrozen::Early)
    );
    assert_eq!(pool.ack(now, id, stranger), Ok(Ended::Early));
    assert_eq!(pool.remove(now, id, stranger), Ok(Ended::Early));
    // Nor does an ack by the sender: only the receiver knows.
    assert_eq!(pool.ack(now, id, node("alice")), Ok(Ended::Early));
    assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::New));
    assert_eq!(
        pool_events(&mut pool),
        [PoolEvent::Dropped {
            message: id,
            index: index(1),
            from: stranger,
            reason: StoreError::NotSender { from: stranger },
        }]
    );
    assert_eq!(
        pool.claim(now, id, node("bob"), index(1)),
        Err(ClaimError::Missing { index: index(1) })
    );
    assert_eq!(pool.state(id, index(4)), Some(ShareState::Frozen));
}

#[test]
fn an_end_that_overtakes_the_announcement_is_honoured() {
    let now = base();
    type End = fn(&mut Pool, Instant) -> Result<Ended, EndError>;
    let ends: [End; 3] = [
        |pool, now| pool.ack(now, message(1), node("bob")),
        |pool, now| pool.remove(now, message(1), node("bob")),
        |pool, now| pool.remove(now, message(1), node("alice")),
    ];
    for end in ends {
        let mut pool = pool();
        assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::Early));
        assert_eq!(end(&mut pool, now), Ok(Ended::Early));
        assert_eq!(end(&mut pool, now), Ok(Ended::Early));
        assert_eq!(pool.add(now, node("alice"), &spread()), Ok(Added::Finished));
        assert_eq!(pool.usage(), Usage::default());
        assert_eq!(end(&mut pool, now), Ok(Ended::Already));
        assert_eq!(offers(&mut pool), []);
    }
}

#[test]
fn an_early_share_with_another_digest_is_dropped_by_name_and_does_not_keep_the_good_one_out() {
    let now = base();
    for bad_first in [true, false] {
        let mut pool = pool();
        let bad = share(1, 77);
        let differs = digest(&bad);
        let put_bad = |pool: &mut Pool| {
            pool.store(
                now,
                node("alice"),
                message(1),
                index(1),
                bad.clone(),
                differs,
            )
        };
        if bad_first {
            assert_eq!(put_bad(&mut pool), Ok(Stored::Early));
        }
        assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::Early));
        if !bad_first {
            assert_eq!(put_bad(&mut pool), Ok(Stored::Early));
        }
        pool.add(now, node("alice"), &spread()).unwrap();
        let events = pool_events(&mut pool);
        assert!(events.contains(&PoolEvent::Dropped {
            message: message(1),
            index: index(1),
            from: node("alice"),
            reason: StoreError::Mismatch { index: index(1) },
        }));
        assert_eq!(events.len(), 2);
        assert_eq!(
            pool.claim(now, message(1), node("bob"), index(1)),
            Ok(share(1, 1))
        );
    }
}

#[test]
fn early_things_expire() {
    let now = base();
    let mut pool = pool();
    store(&mut pool, now, 1, 1).unwrap();
    pool.remove(now, message(1), node("alice")).unwrap();
    assert_eq!(pool.poll_timeout(), Some(now + secs(30)));
    pool.handle_timeout(now + secs(30));
    assert_eq!(pool.poll_timeout(), None);
    assert_eq!(
        pool.add(now + secs(30), node("alice"), &spread()),
        Ok(Added::New)
    );
    assert_eq!(offers(&mut pool), []);
}

fn quota(bound: Bound, would_be: u64, allowed: u64) -> QuotaError {
    QuotaError {
        bound,
        would_be,
        allowed,
    }
}

#[test]
fn entries_are_bounded_per_sender_and_in_all() {
    let now = base();
    let mut pool = Pool::new(PoolConfig {
        max_entries: 3,
        max_entries_per_sender: 2,
        ..PoolConfig::new(node("carol"))
    });
    let from = |sender: &str, number| {
        let mut ann = announcement(number, 2, 2, &["carol", "dave", "erin"]);
        ann.sender = node(sender);
        ann
    };
    for number in [1, 2] {
        assert_eq!(
            pool.add(now, node("alice"), &from("alice", number)),
            Ok(Added::New)
        );
    }
    assert_eq!(
        pool.add(now, node("alice"), &from("alice", 3)),
        Err(AddError::Quota(quota(Bound::EntriesOfSender, 3, 2)))
    );
    assert_eq!(
        pool.add(now, node("dave"), &from("dave", 4)),
        Ok(Added::New)
    );
    let refused = pool.add(now, node("erin"), &from("erin", 5)).unwrap_err();
    assert_eq!(refused, AddError::Quota(quota(Bound::Entries, 4, 3)));
    assert_eq!(
        refused.to_string(),
        "no room: messages would be 4, at most 3 are allowed"
    );
    // Room that was freed can be used, and re-announcing needs none.
    assert_eq!(
        pool.add(now, node("alice"), &from("alice", 1)),
        Ok(Added::Known)
    );
    pool.remove(now, message(1), node("alice")).unwrap();
    assert_eq!(
        pool.add(now, node("alice"), &from("alice", 3)),
        Ok(Added::New)
    );
}

#[test]
fn octets_are_bounded_per_sender_and_in_all_and_the_own_node_only_in_all() {
    let now = base();
    let cost = {
        let mut pool = pool();
        pool.add(now, node("alice"), &spread()).unwrap();
        pool.usage().octets
    };
    let config = |local, max_octets, max_octets_per_sender| PoolConfig {
        max_octets,
        max_octets_per_sender,
        ..PoolConfig::new(node(local))
    };
    // Room for the announcement and one share of four octets.
    let mut pool = Pool::new(config("carol", 1 << 20, cost + 7));
    pool.add(now, node("alice"), &spread()).unwrap();
    assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::New));
    assert_eq!(
        store(&mut pool, now, 1, 4),
        Err(StoreError::Quota(quota(
            Bound::OctetsOfSender,
            cost + 8,
            cost + 7
        )))
    );
    assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::Duplicate));
    assert_eq!(pool.usage().octets, cost + 4);

    let mut pool = Pool::new(config("carol", cost - 1, 1 << 20));
    assert_eq!(
        pool.add(now, node("alice"), &spread()),
        Err(AddError::Quota(quota(Bound::Octets, cost, cost - 1)))
    );

    let own = announcement(1, 3, 3, &["alice", "alice", "dave", "erin", "frank"]);
    let mut pool = Pool::new(config("alice", cost + 4, 1));
    assert_eq!(pool.add(now, node("alice"), &own), Ok(Added::New));
    assert_eq!(store(&mut pool, now, 1, 1), Ok(Stored::New));
    assert_eq!(
        store(&mut pool, now, 1, 2),
        Err(StoreError::Quota(quota(Bound::Octets, cost + 8, cost + 4)))
    );
}

#[test]
fn early_shares_and_requests_are_bounded_per_peer_and_in_all() {
    let now = base();
    let mut pool = Pool::new(PoolConfig {
        early: EarlyConfig {
            max_octets: 1000,
            max_octets_per_peer: 8,
            max_shares: 3,
            max_shares_per_peer: 2,
            max_requests: 3,
            max_requests_per_peer: 2,
            ttl: secs(30),
        },
        ..PoolConfig::new(node("carol"))
    });
    let mut put = |from: &str, own: u8, len: usize| {
        let share = bytes::Bytes::from(vec![own; len]);
        let digest = digest(&share);
        pool.store(now, node(from), message(1), index(own), share, digest)
    };
    assert_eq!(
        put("alice", 1, 9),
        Err(StoreError::Quota(quota(Bound::EarlyOctetsOfPeer, 9, 8)))
    );
    assert_eq!(put("alice", 1, 4), Ok(Stored::Early));
    assert_eq!(put("alice", 2, 4), Ok(Stored::Early));
    assert_eq!(
        put("alice", 3, 0),
        Err(StoreError::Quota(quota(Bound::EarlySharesOfPeer, 3, 2)))
    );
    assert_eq!(put("dave", 1, 1), Ok(Stored::Early));
    assert_eq!(
        put("erin", 1, 1),
        Err(StoreError::Quota(quota(Bound::EarlyShares, 4, 3)))
    );
    let mut ask = |by: &str, number| pool.ack(now, message(number), node(by));
    assert_eq!(ask("bob", 1), Ok(Ended::Early));
    assert_eq!(ask("bob", 2), Ok(Ended::Early));
    assert_eq!(
        ask("bob", 3),
        Err(EndError::Quota(quota(Bound::EarlyRequestsOfPeer, 3, 2)))
    );
    assert_eq!(ask("bob", 2), Ok(Ended::Early));
    assert_eq!(ask("dave", 1), Ok(Ended::Early));
    assert_eq!(
        ask("erin", 1),
        Err(EndError::Quota(quota(Bound::EarlyRequests, 4, 3)))
    );
}

#[test]
fn debug_output_shows_no_octets_of_shares() {
    let now = base();
    let mut pool = pool();
    let secret = bytes::Bytes::from_static(b"topsecret");
    let other = bytes::Bytes::from_static(b"alsosecret");
    let mut ann = spread();
    ann.shares[0].digest = [0; 16];
    pool.add(now, node("alice"), &ann).unwrap();
    pool.store(now, node("alice"), message(1), index(1), secret, [0; 16])
        .unwrap();
    pool.store(now, node("alice"), message(2), index(1), other, [0; 16])
        .unwrap();
    let shown = format!("{pool:?}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_share_that_moves_away_takes_its_lease_with_it() {
    let now = base();
    let mut pool = held(now);
    pool.claim(now, message(1), node("bob"), index(1)).unwrap();
    assert_eq!(pool.poll_timeout(), Some(now + secs(10)));
    let moved = announcement(1, 3, 3, &["dave", "dave", "erin", "carol", "frank"]);
    pool.add(now, node("alice"), &moved).unwrap();
    assert_eq!(pool.poll_timeout(), Some(now + secs(600)));
}
