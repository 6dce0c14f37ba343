//! The receiver's rules, one by one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use vmdt_pool::{
    AddError, Announced, Announcement, Bound, Changed, Collector, CollectorConfig, CollectorEvent,
    EarlyConfig, EndError, Ended, QuotaError, ShareError, ShareOutcome, Usage,
};

const HOLDERS: [&str; 5] = ["carol", "dave", "erin", "frank", "grace"];

/// 3 of 5, shares 1 to 3 active, each at another holder.
fn spread(number: u8) -> Announcement {
    announcement(number, 3, 3, &HOLDERS)
}

fn bob() -> Collector {
    Collector::new(CollectorConfig::new(node("bob")))
}

/// Share `own` of message `number`, from its holder.
fn deliver(
    collector: &mut Collector,
    now: Instant,
    number: u8,
    own: u8,
) -> Result<ShareOutcome, ShareError> {
    let from = node(HOLDERS[usize::from(own) - 1]);
    let share = share(number, own);
    let digest = digest(&share);
    collector.share(now, from, message(number), index(own), share, digest)
}

/// Octets that are not share `own`, from `from`.
fn deliver_bad(
    collector: &mut Collector,
    now: Instant,
    from: &str,
    own: u8,
) -> Result<ShareOutcome, ShareError> {
    let bad = share(99, own);
    let digest = digest(&bad);
    collector.share(now, node(from), message(1), index(own), bad, digest)
}

#[test]
fn k_shares_complete_a_message_once() {
    let now = base();
    let mut bob = bob();
    assert_eq!(bob.announce(now, &spread(1)), Ok(Announced::New));
    assert_eq!(bob.announce(now, &spread(1)), Ok(Announced::Known));
    assert_eq!(deliver(&mut bob, now, 1, 3), Ok(ShareOutcome::Accepted));
    assert_eq!(deliver(&mut bob, now, 1, 3), Ok(ShareOutcome::Duplicate));
    assert_eq!(deliver(&mut bob, now, 1, 1), Ok(ShareOutcome::Accepted));
    assert_eq!(bob.poll_event(), None);
    assert_eq!(deliver(&mut bob, now, 1, 2), Ok(ShareOutcome::Accepted));
    assert_eq!(
        bob.poll_event(),
        Some(CollectorEvent::Complete {
            message: message(1),
            shares: vec![
                (index(1), share(1, 1)),
                (index(2), share(1, 2)),
                (index(3), share(1, 3))
            ],
        })
    );
    assert_eq!(deliver(&mut bob, now, 1, 4), Ok(ShareOutcome::Accepted));
    assert_eq!(bob.poll_event(), None);
    assert!(bob.delivered(now, message(1)));
    assert!(!bob.delivered(now, message(1)));
    assert_eq!(bob.usage(), Usage::default());
}

#[test]
fn nothing_of_a_delivered_message_begins_it_again() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    for own in 1..=3 {
        deliver(&mut bob, now, 1, own).unwrap();
    }
    assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
    bob.delivered(now, message(1));
    let later = now + secs(1800);
    assert_eq!(
        bob.announce(later, &spread(1)),
        Ok(Announced::AlreadyDelivered)
    );
    for own in 1..=5 {
        assert_eq!(
            deliver(&mut bob, later, 1, own),
            Ok(ShareOutcome::AlreadyDelivered)
        );
    }
    assert_eq!(
        bob.remove(later, message(1), node("alice")),
        Ok(Ended::Already)
    );
    assert_eq!(told(&mut bob), [""; 0]);
    assert_eq!(bob.poll_timeout(), Some(now + secs(3600)));
    bob.handle_timeout(now + secs(3600));
    assert_eq!(bob.poll_timeout(), None);
}

#[test]
fn without_its_tombstone_a_message_begins_again_only_by_its_announcement() {
    let now = base();
    let mut bob = Collector::new(CollectorConfig {
        max_tombstones: 1,
        ..CollectorConfig::new(node("bob"))
    });
    for number in [1, 2] {
        bob.announce(now, &spread(number)).unwrap();
        for own in 1..=3 {
            deliver(&mut bob, now, number, own).unwrap();
        }
        assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
        bob.delivered(now, message(number));
    }
    for own in 1..=3 {
        assert_eq!(deliver(&mut bob, now, 1, own), Ok(ShareOutcome::Early));
    }
    assert_eq!(told(&mut bob), [""; 0]);
    assert_eq!(bob.announce(now, &spread(1)), Ok(Announced::New));
    assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
    assert_eq!(
        bob.announce(now, &spread(2)),
        Ok(Announced::AlreadyDelivered)
    );
}

#[test]
fn only_what_is_for_this_node_is_collected() {
    let now = base();
    let mut bob = bob();
    let mut other = spread(1);
    other.receiver = node("erin");
    assert_eq!(
        bob.announce(now, &other),
        Err(AddError::NotReceiver {
            receiver: node("erin"),
            local: node("bob")
        })
    );
    assert_eq!(bob.usage(), Usage::default());
}

#[test]
fn another_sender_and_other_contents_under_a_known_id_are_refused() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    let mut foreign = spread(1);
    foreign.sender = node("mallory");
    let refused = Err(AddError::ForeignSender {
        message: message(1),
        from: node("mallory"),
    });
    assert_eq!(bob.announce(now, &foreign), refused);
    let mut changed = spread(1);
    changed.shares[2].digest[3] ^= 1;
    assert_eq!(
        bob.announce(now, &changed),
        Err(AddError::Changed(Changed::Digest(index(3))))
    );
    bob.remove(now, message(1), node("alice")).unwrap();
    assert_eq!(bob.announce(now, &foreign), refused);
    assert_eq!(bob.announce(now, &spread(1)), Ok(Announced::Ended));
}

#[test]
fn a_bad_share_is_blamed_on_who_brought_it_and_may_still_come() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    let mismatch = Ok(ShareOutcome::Mismatch {
        holder: node("dave"),
    });
    // A stranger's lie says nothing about the holder.
    assert_eq!(deliver_bad(&mut bob, now, "mallory", 2), mismatch);
    assert_eq!(told(&mut bob), ["BadShare 2 mallory"]);
    // The holder's own does: another share is asked for at once.
    assert_eq!(deliver_bad(&mut bob, now, "dave", 2), mismatch);
    assert_eq!(told(&mut bob), ["BadShare 2 dave", "Unfreeze 4 frank"]);
    assert_eq!(deliver_bad(&mut bob, now, "dave", 2), mismatch);
    assert_eq!(told(&mut bob), ["BadShare 2 dave"]);
    for own in [2, 1, 3] {
        assert_eq!(deliver(&mut bob, now, 1, own), Ok(ShareOutcome::Accepted));
    }
    assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
    assert_eq!(
        deliver(&mut bob, now, 1, 5).map(|_| ()),
        Ok(()),
        "others may follow"
    );
    assert_eq!(
        bob.share(
            now,
            node("erin"),
            message(1),
            index(6),
            share(1, 6),
            [0; 16]
        ),
        Err(ShareError::UnknownIndex { index: index(6) })
    );
}

#[test]
fn shares_before_the_announcement_count_when_it_comes_whoever_spoils_them() {
    let now = base();
    let mut bob = bob();
    for own in [1, 2] {
        assert_eq!(deliver(&mut bob, now, 1, own), Ok(ShareOutcome::Early));
        assert_eq!(deliver(&mut bob, now, 1, own), Ok(ShareOutcome::Early));
    }
    assert_eq!(
        deliver_bad(&mut bob, now, "mallory", 3),
        Ok(ShareOutcome::Early)
    );
    assert_eq!(
        deliver_bad(&mut bob, now, "erin", 3),
        Ok(ShareOutcome::Early)
    );
    assert_eq!(deliver(&mut bob, now, 1, 3), Ok(ShareOutcome::Early));
    assert_eq!(bob.announce(now, &spread(1)), Ok(Announced::New));
    assert_eq!(
        told(&mut bob),
        ["BadShare 3 erin", "BadShare 3 mallory", "Complete 1 2 3"]
    );
}

#[test]
fn late_shares_are_replaced_by_frozen_ones_as_many_as_are_missing() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    deliver(&mut bob, now, 1, 1).unwrap();
    deliver(&mut bob, now, 1, 3).unwrap();
    assert_eq!(bob.poll_timeout(), Some(now + secs(1)));
    bob.handle_timeout(now + secs(1) - ms(1));
    assert_eq!(told(&mut bob), [""; 0]);
    bob.handle_timeout(now + secs(1));
    assert_eq!(told(&mut bob), ["Unfreeze 4 frank"]);
    bob.handle_timeout(now + secs(2));
    assert_eq!(told(&mut bob), ["Unfreeze 5 grace"]);
    deliver(&mut bob, now + secs(2), 1, 5).unwrap();
    assert_eq!(told(&mut bob), ["Complete 1 3 5"]);
}

#[test]
fn with_nothing_left_to_unfreeze_late_shares_are_claimed_in_turn_with_backoff() {
    let start = base();
    let mut bob = Collector::new(CollectorConfig {
        max_asks: 4,
        ttl: secs(10_000),
        ..CollectorConfig::new(node("bob"))
    });
    bob.announce(start, &announcement(1, 2, 2, &["carol", "dave", "erin"]))
        .unwrap();
    let mut log = Vec::new();
    while let Some(at) = bob.poll_timeout().filter(|at| *at < start + secs(10_000)) {
        bob.handle_timeout(at);
        let seconds = (at - start).as_secs();
        log.extend(
            told(&mut bob)
                .into_iter()
                .map(|event| format!("{seconds:>3} {event}")),
        );
    }
    assert_eq!(
        log,
        [
            "  1 Unfreeze 3 erin",
            "  1 Claim 1 carol",
            "  2 Claim 2 dave",
            "  2 Claim 1 carol",
            "  3 Claim 3 erin",
            "  4 Claim 2 dave",
            "  5 Claim 1 carol",
            "  6 Claim 3 erin",
            "  9 Claim 2 dave",
            " 10 Claim 1 carol",
            " 13 Claim 3 erin",
            " 18 Claim 2 dave",
        ],
    );
    for own in ["1 carol", "2 dave", "3 erin"] {
        let asks = log.iter().filter(|line| line.ends_with(own)).count();
        assert_eq!(asks, 4, "share {own}");
    }
}

#[test]
fn too_few_active_shares_are_made_up_for_at_once() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &announcement(1, 3, 1, &HOLDERS)).unwrap();
    assert_eq!(told(&mut bob), ["Unfreeze 2 dave", "Unfreeze 3 erin"]);
    // Not when the others have come already.
    deliver(&mut bob, now, 2, 4).unwrap();
    deliver(&mut bob, now, 2, 5).unwrap();
    bob.announce(now, &announcement(2, 3, 1, &HOLDERS)).unwrap();
    assert_eq!(told(&mut bob), [""; 0]);
}

#[test]
fn a_lost_holder_is_replaced_at_once_and_asked_only_when_nobody_else_is_left() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    deliver(&mut bob, now, 1, 1).unwrap();
    bob.holder_lost(now, node("carol"));
    assert_eq!(told(&mut bob), [""; 0], "what it had is here");
    bob.holder_lost(now, node("grace"));
    assert_eq!(told(&mut bob), [""; 0], "what it has is frozen");
    bob.holder_lost(now, node("erin"));
    assert_eq!(told(&mut bob), ["Unfreeze 4 frank"]);
    bob.holder_lost(now, node("erin"));
    assert_eq!(told(&mut bob), [""; 0]);
    bob.holder_lost(now, node("frank"));
    assert_eq!(told(&mut bob), [""; 0], "only lost ones are left");
    let at = bob.poll_timeout().unwrap();
    assert_eq!(at, now + secs(1));
    bob.handle_timeout(at);
    assert_eq!(told(&mut bob), ["Claim 2 dave", "Unfreeze 5 grace"]);
    bob.handle_timeout(bob.poll_timeout().unwrap());
    assert_eq!(told(&mut bob), ["Claim 3 erin", "Claim 2 dave"]);
}

#[test]
fn a_share_that_moves_is_expected_from_its_new_holder() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    deliver(&mut bob, now, 1, 1).unwrap();
    bob.holder_lost(now, node("dave"));
    assert_eq!(told(&mut bob), ["Unfreeze 4 frank"]);
    let mut moved = spread(1);
    moved.shares[1].holder = node("grace");
    let later = now + ms(500);
    assert_eq!(bob.announce(later, &moved), Ok(Announced::Updated));
    assert_eq!(bob.announce(later, &moved), Ok(Announced::Known));
    assert_eq!(told(&mut bob), [""; 0]);
    bob.holder_lost(later, node("dave"));
    assert_eq!(told(&mut bob), [""; 0]);
    // 3 and 4 are due at 1 s, 2 from its new holder at 1.5 s.
    bob.handle_timeout(now + secs(1));
    assert_eq!(told(&mut bob), ["Unfreeze 5 grace"]);
    bob.holder_lost(now + secs(1), node("grace"));
    assert_eq!(told(&mut bob), ["Claim 3 erin", "Claim 4 frank"]);
}

#[test]
fn a_frozen_share_that_moves_is_unfrozen_anew() {
    let now = base();
    let mut bob = bob();
    let first = announcement(1, 2, 2, &["carol", "dave", "erin"]);
    bob.announce(now, &first).unwrap();
    bob.holder_lost(now, node("carol"));
    assert_eq!(told(&mut bob), ["Unfreeze 3 erin"]);
    let moved = announcement(1, 2, 2, &["carol", "dave", "frank"]);
    assert_eq!(bob.announce(now, &moved), Ok(Announced::Updated));
    assert_eq!(told(&mut bob), ["Unfreeze 3 frank"]);
}

#[test]
fn an_ask_that_was_overtaken_is_left_out() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    deliver(&mut bob, now, 1, 1).unwrap();
    bob.handle_timeout(now + secs(1));
    deliver(&mut bob, now + secs(1), 1, 5).unwrap();
    deliver(&mut bob, now + secs(1), 1, 4).unwrap();
    assert_eq!(told(&mut bob), ["Complete 1 4 5"]);
}

#[test]
fn the_wait_follows_collection_times_down_and_up() {
    let mut now = base();
    let mut bob = bob();
    assert_eq!(bob.unfreeze_after(), secs(1));
    let mut collect = |number: u8, took: Duration| {
        bob.announce(now, &spread(number)).unwrap();
        now += took;
        for own in 1..=3 {
            deliver(&mut bob, now, number, own).unwrap();
        }
        while let Some(event) = bob.poll_event() {
            if let CollectorEvent::Complete { message, .. } = event {
                bob.delivered(now, message);
            }
        }
        bob.unfreeze_after()
    };
    assert_eq!(collect(1, ms(40)), ms(120));
    let mut last = Duration::ZERO;
    for number in 2..40 {
        last = collect(number, ms(10));
    }
    assert_eq!(last, ms(50), "the floor");
    // Slow from now on: each is hedged in vain, and still the wait grows to fit.
    for number in 40..80 {
        last = collect(number, ms(300));
    }
    assert!((ms(300)..ms(400)).contains(&last), "{last:?}");
    for number in 80..140 {
        last = collect(number, secs(60));
    }
    assert_eq!(last, secs(5), "the cap");
}

#[test]
fn a_dead_holder_does_not_make_the_wait_feed_on_itself() {
    let mut now = base();
    let mut bob = bob();
    for number in 1..100 {
        bob.announce(now, &spread(number)).unwrap();
        now += ms(20);
        deliver(&mut bob, now, number, 1).unwrap();
        deliver(&mut bob, now, number, 2).unwrap();
        // erin never delivers; frank does, 20 ms after he was asked.
        now = bob.poll_timeout().unwrap();
        bob.handle_timeout(now);
        assert_eq!(told(&mut bob), ["Unfreeze 4 frank"]);
        now += ms(20);
        deliver(&mut bob, now, number, 4).unwrap();
        assert_eq!(told(&mut bob), ["Complete 1 2 4"]);
        bob.delivered(now, message(number));
    }
    assert_eq!(bob.unfreeze_after(), ms(50));
}

#[test]
fn after_a_failure_every_other_set_is_tried_once() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    for own in 1..=3 {
        deliver(&mut bob, now, 1, own).unwrap();
    }
    assert!(!bob.failed(now, message(1)), "it was not handed out yet");
    assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
    assert!(bob.failed(now, message(1)));
    assert!(!bob.failed(now, message(1)), "one verdict per set");
    assert_eq!(told(&mut bob), ["Unfreeze 4 frank"]);
    deliver(&mut bob, now, 1, 4).unwrap();
    for set in ["1 2 4", "1 3 4", "2 3 4"] {
        assert_eq!(told(&mut bob), [format!("Complete {set}")]);
        assert!(bob.failed(now, message(1)));
    }
    assert_eq!(told(&mut bob), ["Unfreeze 5 grace"]);
    deliver(&mut bob, now, 1, 5).unwrap();
    for set in ["1 2 5", "1 3 5", "2 3 5", "1 4 5", "2 4 5", "3 4 5"] {
        assert_eq!(told(&mut bob), [format!("Complete {set}")]);
        assert!(bob.failed(now, message(1)));
    }
    assert_eq!(told(&mut bob), ["Expired"]);
    assert_eq!(bob.usage(), Usage::default());
    assert_eq!(bob.announce(now, &spread(1)), Ok(Announced::Ended));
    assert_eq!(deliver(&mut bob, now, 1, 1), Ok(ShareOutcome::Ended));
}

#[test]
fn a_set_that_opens_after_a_failure_is_delivered() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    for own in 1..=4 {
        deliver(&mut bob, now, 1, own).unwrap();
    }
    assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
    bob.failed(now, message(1));
    assert_eq!(told(&mut bob), ["Complete 1 2 4"]);
    assert!(bob.delivered(now, message(1)));
    assert_eq!(
        bob.announce(now, &spread(1)),
        Ok(Announced::AlreadyDelivered)
    );
}

#[test]
fn the_number_of_sets_tried_is_bounded() {
    let now = base();
    let mut bob = Collector::new(CollectorConfig {
        max_attempts: 2,
        ..CollectorConfig::new(node("bob"))
    });
    bob.announce(now, &spread(1)).unwrap();
    for own in 1..=5 {
        deliver(&mut bob, now, 1, own).unwrap();
    }
    assert_eq!(told(&mut bob), ["Complete 1 2 3"]);
    bob.failed(now, message(1));
    assert_eq!(told(&mut bob), ["Complete 1 2 4"]);
    bob.failed(now, message(1));
    assert_eq!(told(&mut bob), ["Expired"]);
}

#[test]
fn only_the_sender_and_this_node_end_a_message() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    for by in ["carol", "mallory"] {
        let by = node(by);
        assert_eq!(
            bob.remove(now, message(1), by),
            Err(EndError::NotOwner { by })
        );
    }
    assert_eq!(bob.remove(now, message(1), node("alice")), Ok(Ended::Now));
    assert_eq!(
        bob.remove(now, message(1), node("alice")),
        Ok(Ended::Already)
    );
    assert_eq!(told(&mut bob), ["Revoked"]);
    let by = node("mallory");
    assert_eq!(
        bob.remove(now, message(1), by),
        Err(EndError::NotOwner { by })
    );
    bob.announce(now, &spread(2)).unwrap();
    assert_eq!(bob.remove(now, message(2), node("bob")), Ok(Ended::Now));
    assert_eq!(told(&mut bob), [""; 0]);
    assert_eq!(bob.usage(), Usage::default());
}

#[test]
fn a_revoked_message_is_not_completed_even_if_its_shares_were_in() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    for own in 1..=3 {
        deliver(&mut bob, now, 1, own).unwrap();
    }
    bob.remove(now, message(1), node("alice")).unwrap();
    assert_eq!(told(&mut bob), ["Revoked"]);
    assert!(!bob.delivered(now, message(1)));
}

#[test]
fn a_revocation_that_overtakes_the_announcement_is_honoured_from_its_sender_only() {
    let now = base();
    let mut bob = bob();
    assert_eq!(bob.remove(now, message(1), node("alice")), Ok(Ended::Early));
    assert_eq!(bob.announce(now, &spread(1)), Ok(Announced::Ended));
    assert_eq!(
        bob.remove(now, message(2), node("mallory")),
        Ok(Ended::Early)
    );
    assert_eq!(bob.announce(now, &spread(2)), Ok(Announced::New));
    assert_eq!(told(&mut bob), [""; 0]);
}

#[test]
fn a_message_that_does_not_complete_expires() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &spread(1)).unwrap();
    deliver(&mut bob, now, 1, 1).unwrap();
    bob.handle_timeout(now + secs(600) - ms(1));
    assert!(!told(&mut bob).contains(&"Expired".to_owned()));
    bob.handle_timeout(now + secs(600));
    assert_eq!(told(&mut bob), ["Expired"]);
    assert_eq!(bob.usage(), Usage::default());
    assert_eq!(
        deliver(&mut bob, now + secs(601), 1, 2),
        Ok(ShareOutcome::Ended)
    );
}

fn quota(bound: Bound, would_be: u64, allowed: u64) -> QuotaError {
    QuotaError {
        bound,
        would_be,
        allowed,
    }
}

#[test]
fn messages_and_octets_are_bounded() {
    let now = base();
    let from = |sender: &str, number| Announcement {
        sender: node(sender),
        ..spread(number)
    };
    let mut bob = Collector::new(CollectorConfig {
        max_messages: 3,
        max_messages_per_sender: 2,
        ..CollectorConfig::new(node("bob"))
    });
    for number in [1, 2] {
        assert_eq!(
            bob.announce(now, &from("alice", number)),
            Ok(Announced::New)
        );
    }
    assert_eq!(
        bob.announce(now, &from("alice", 3)),
        Err(AddError::Quota(quota(Bound::EntriesOfSender, 3, 2)))
    );
    assert_eq!(bob.announce(now, &from("carol", 4)), Ok(Announced::New));
    assert_eq!(
        bob.announce(now, &from("dave", 5)),
        Err(AddError::Quota(quota(Bound::Entries, 4, 3)))
    );
    let cost = bob.usage().octets / 3;

    let mut bob = Collector::new(CollectorConfig {
        max_octets: cost + 5,
        ..CollectorConfig::new(node("bob"))
    });
    bob.announce(now, &spread(1)).unwrap();
    assert_eq!(deliver(&mut bob, now, 1, 1), Ok(ShareOutcome::Accepted));
    assert_eq!(
        deliver(&mut bob, now, 1, 2),
        Err(ShareError::Quota(quota(Bound::Octets, cost + 8, cost + 5)))
    );
    assert_eq!(bob.usage().octets, cost + 4);
}

#[test]
fn unannounced_shares_are_bounded_and_expire() {
    let now = base();
    let mut bob = Collector::new(CollectorConfig {
        early: EarlyConfig {
            max_shares: 3,
            max_octets_per_peer: 7,
            ..EarlyConfig::default()
        },
        ..CollectorConfig::new(node("bob"))
    });
    assert_eq!(deliver(&mut bob, now, 1, 1), Ok(ShareOutcome::Early));
    assert_eq!(
        deliver(&mut bob, now, 2, 1),
        Err(ShareError::Quota(quota(Bound::EarlyOctetsOfPeer, 8, 7)))
    );
    assert_eq!(deliver(&mut bob, now, 1, 2), Ok(ShareOutcome::Early));
    assert_eq!(deliver(&mut bob, now, 1, 3), Ok(ShareOutcome::Early));
    assert_eq!(
        deliver(&mut bob, now, 1, 4),
        Err(ShareError::Quota(quota(Bound::EarlyShares, 4, 3)))
    );
    bob.handle_timeout(now + secs(30));
    assert_eq!(bob.poll_timeout(), None);
    bob.announce(now + secs(30), &spread(1)).unwrap();
    assert_eq!(told(&mut bob), [""; 0]);
}

#[test]
fn debug_output_shows_no_octets_of_shares() {
    let now = base();
    let mut bob = bob();
    let secret = bytes::Bytes::from_static(b"topsecret");
    let mut ann = spread(1);
    for share in &mut ann.shares {
        share.digest = [0; 16];
    }
    for number in [1, 2] {
        for own in 1..=3 {
            bob.share(
                now,
                node("dave"),
                message(number),
                index(own),
                secret.clone(),
                [0; 16],
            )
            .unwrap();
        }
    }
    bob.announce(now, &ann).unwrap();
    let shown = format!("{bob:?} {:?}", bob.clone().poll_event());
    assert!(shown.contains("Complete"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn an_ask_of_a_holder_that_the_share_has_left_is_left_out() {
    let now = base();
    let mut bob = bob();
    bob.announce(now, &announcement(1, 2, 2, &["carol", "dave", "erin"]))
        .unwrap();
    bob.holder_lost(now, node("carol"));
    let moved = announcement(1, 2, 2, &["carol", "dave", "frank"]);
    bob.announce(now, &moved).unwrap();
    assert_eq!(told(&mut bob), ["Unfreeze 3 frank"]);
}
