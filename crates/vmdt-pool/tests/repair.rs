//! Lost shares: when, where and how they are remade.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use vmdt_pool::Announcement;
use vmdt_pool::repair::key::{ExchangeError, Helper, NewHolder, Outgoing};
use vmdt_pool::repair::{Body, RepairError, Task, Watch, plan};
use vmdt_ssms::Threshold;
use vmdt_ssms::shamir::{KeyShare, combine_key, split_key};
use vmdt_wire::NodeId;

const HOLDERS: [&str; 5] = ["carol", "dave", "erin", "frank", "carol"];

fn spread() -> Announcement {
    announcement(1, 3, 3, &HOLDERS).with_version(1)
}

fn gone(names: &[&str]) -> BTreeSet<NodeId> {
    names.iter().map(|name| node(name)).collect()
}

fn indices(list: &[(std::num::NonZeroU8, NodeId)]) -> Vec<u8> {
    list.iter().map(|(index, _)| index.get()).collect()
}

#[test]
fn a_lost_share_goes_to_a_new_holder_with_help_of_k_others() {
    let spare = [node("grace"), node("erin")];
    let (tasks, unmet) = plan(
        &spread(),
        &gone(&["dave"]),
        &spare,
        &BTreeMap::new(),
        Body::Dispersed,
    )
    .unwrap();
    assert!(unmet.is_empty());
    assert_eq!(tasks.len(), 1);
    let task = &tasks[0];
    assert_eq!(
        (task.index, task.from, task.to),
        (index(2), node("dave"), node("grace"))
    );
    assert_eq!(indices(&task.helpers), [1, 3, 4], "distinct holders first");
    assert_eq!(task.pieces, task.helpers);
    let one = plan(
        &spread(),
        &gone(&["dave"]),
        &spare,
        &BTreeMap::new(),
        Body::Replicated,
    );
    assert_eq!(one.unwrap().0[0].pieces.len(), 1);
}

#[test]
fn nobody_gets_k_shares_by_repairs_and_what_it_had_before_counts() {
    let lost = gone(&["carol"]);
    let spare = [node("grace")];
    let mut ever = BTreeMap::new();
    let plan = |ever: &BTreeMap<_, _>| plan(&spread(), &lost, &spare, ever, Body::Dispersed);
    assert_eq!(plan(&ever).unwrap().0.len(), 2);
    ever.insert(node("grace"), [index(2)].into());
    let (tasks, unmet) = plan(&ever).unwrap();
    assert_eq!(tasks.len(), 1);
    let full = RepairError::NoRoom {
        index: index(5),
        candidates: 1,
        most: 2,
    };
    assert_eq!(unmet, [full]);
    // What it had of these very shares is nothing new.
    ever.insert(node("grace"), [index(1), index(5)].into());
    assert_eq!(plan(&ever).unwrap().0.len(), 2);
}

#[test]
fn with_fewer_than_k_shares_left_nothing_can_be_remade() {
    let error = plan(
        &spread(),
        &gone(&["carol", "dave"]),
        &[node("grace")],
        &BTreeMap::new(),
        Body::Dispersed,
    );
    let too_few = RepairError::TooFewLeft {
        message: message(1),
        left: 2,
        needed: 3,
    };
    assert_eq!(error, Err(too_few));
    let nothing = plan(
        &spread(),
        &gone(&["mallory"]),
        &[],
        &BTreeMap::new(),
        Body::Dispersed,
    );
    assert_eq!(nothing, Ok((Vec::new(), Vec::new())));
}

#[test]
fn a_holder_counts_as_gone_after_the_grace_and_not_if_it_comes_back() {
    let (mut watch, now) = (Watch::new(secs(30)), base());
    watch.lost(now, node("carol"));
    watch.lost(now + secs(5), node("dave"));
    watch.lost(now + secs(20), node("carol"));
    watch.back(node("dave"));
    assert_eq!(watch.poll_timeout(), Some(now + secs(30)));
    assert_eq!(watch.poll_gone(now + secs(29)), None);
    assert_eq!(watch.poll_gone(now + secs(60)), Some(node("carol")));
    assert_eq!(watch.poll_gone(now + secs(60)), None);
}

fn task() -> (Task, Announcement) {
    let (tasks, _) = plan(
        &spread(),
        &gone(&["dave"]),
        &[node("grace")],
        &BTreeMap::new(),
        Body::Dispersed,
    )
    .unwrap();
    let mut moved = spread().with_version(2);
    moved.shares[1].holder = node("grace");
    (tasks[0].clone(), moved)
}

fn points() -> ([u8; 32], Vec<KeyShare>) {
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let key = [0xc3; 32];
    let points = split_key(&key, Threshold::new(3, 5).unwrap(), &mut rng);
    (key, points)
}

fn point(points: &[KeyShare], own: u8) -> &KeyShare {
    points.iter().find(|p| p.index() == index(own)).unwrap()
}

/// All helpers, by index, and their first messages, with who sends them.
fn helpers(attempt: u32) -> (BTreeMap<u8, Helper>, Vec<(NodeId, Outgoing)>) {
    let (task, announced) = task();
    let (_, points) = points();
    let (mut all, mut messages) = (BTreeMap::new(), Vec::new());
    for (own, holder) in &task.helpers {
        let mut rng = ChaCha20Rng::from_seed([own.get(); 32]);
        let share = point(&points, own.get());
        let (helper, out) = Helper::begin(&task, attempt, &announced, share, &mut rng).unwrap();
        all.insert(own.get(), helper);
        messages.extend(out.into_iter().map(|out| (*holder, out)));
    }
    (all, messages)
}

#[test]
fn the_new_point_is_the_lost_one_in_every_order_and_with_repeats() {
    let (task, announced) = task();
    let (key, points) = points();
    for (rotate, repeat) in (0..9).zip([1, 2].into_iter().cycle()) {
        let (mut all, mut messages) = helpers(7);
        messages.rotate_left(rotate);
        let mut new = NewHolder::begin(&task, 7, &announced).unwrap();
        let mut made = None;
        for (from, out) in messages {
            for _ in 0..repeat {
                let helper = all.get_mut(&out.index.get()).unwrap();
                let Some(sum) = helper.receive(from, &out.octets).unwrap() else {
                    continue;
                };
                assert_eq!((sum.to, sum.index), (node("grace"), index(2)));
                for _ in 0..repeat {
                    let point = new.receive(out.to, &sum.octets).unwrap();
                    made = made.or(point);
                }
            }
        }
        let made = made.unwrap();
        assert_eq!(made.index(), index(2));
        assert_eq!(made.value(), point(&points, 2).value());
        let whole = [&made, point(&points, 4), point(&points, 5)]
            .map(|point| (point.index(), point.value()));
        assert_eq!(combine_key(&whole).unwrap().as_bytes(), &key);
    }
}

#[test]
fn nobody_sees_a_point_but_its_own() {
    let (_, points) = points();
    let (mut all, messages) = helpers(1);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (from, out) in messages {
        seen.push(out.octets[7..].to_vec());
        let sum = all
            .get_mut(&out.index.get())
            .unwrap()
            .receive(from, &out.octets);
        seen.extend(sum.unwrap().map(|sum| sum.octets[7..].to_vec()));
        assert!(!format!("{out:?}").contains("octets"));
    }
    for point in &points {
        assert!(seen.iter().all(|octets| octets != point.value()));
    }
}

#[test]
fn an_exchange_that_was_not_announced_does_not_begin() {
    let (task, announced) = task();
    let (_, points) = points();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut begin = |task: &Task, announced: &Announcement, own: u8| {
        let share = point(&points, own);
        Helper::begin(task, 1, announced, share, &mut rng).map(|_| ())
    };
    assert_eq!(begin(&task, &announced, 1), Ok(()));
    // Mallory asks the holders for the point of dave's share.
    let greedy = Task {
        to: node("mallory"),
        ..task.clone()
    };
    let refused = ExchangeError::NotAnnounced {
        index: index(2),
        holder: node("mallory"),
    };
    assert_eq!(begin(&greedy, &announced, 1), Err(refused));
    assert!(begin(&task, &spread(), 1).is_err(), "the old placement");
    let mut fewer = task.clone();
    fewer.helpers.pop();
    let refused = ExchangeError::Helpers {
        found: 2,
        needed: 3,
    };
    assert_eq!(begin(&fewer, &announced, 1), Err(refused));
    assert!(matches!(
        begin(&task, &announced, 5),
        Err(ExchangeError::Points(_))
    ));
    let other = Task {
        message: message(2),
        ..task.clone()
    };
    assert!(begin(&other, &announced, 1).is_err());
    let mut itself = task;
    itself.helpers[0] = (index(2), node("grace"));
    assert!(matches!(
        begin(&itself, &announced, 3),
        Err(ExchangeError::Points(_))
    ));
}

#[test]
fn messages_of_others_of_other_attempts_and_contradictions_are_refused() {
    let (mut all, messages) = helpers(3);
    let (from, out) = messages[1].clone();
    let helper = all.get_mut(&out.index.get()).unwrap();
    let mut refuse = |from: NodeId, octets: &[u8]| helper.receive(from, octets).unwrap_err();
    let own = index(out.octets[6]);
    assert_eq!(
        refuse(node("mallory"), &out.octets),
        ExchangeError::NotHelper {
            from: node("mallory"),
            index: own
        }
    );
    for len in 0..out.octets.len() {
        let cut = refuse(from, &out.octets[..len]);
        assert_eq!(cut, ExchangeError::Malformed { found: len });
    }
    let mut changed = out.octets.to_vec();
    changed[1] = 2;
    assert_eq!(
        refuse(from, &changed),
        ExchangeError::Malformed { found: 39 }
    );
    changed = out.octets.to_vec();
    changed[5] = 9;
    assert_eq!(
        refuse(from, &changed),
        ExchangeError::Attempt {
            found: 9,
            attempt: 3
        }
    );
    assert!(helper.receive(from, &out.octets).is_ok());
    changed = out.octets.to_vec();
    changed[20] ^= 1;
    assert_eq!(
        helper.receive(from, &changed).unwrap_err(),
        ExchangeError::Contradiction { from, index: own }
    );
}
