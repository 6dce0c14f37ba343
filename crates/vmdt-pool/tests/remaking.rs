//! A lost share made of masked parts: it is the one that was lost, and what anybody sees on the way
//! tells no more than what it may have.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;

use bytes::Bytes;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_pool::repair::share::{
    Helper, MAX_HELPERS, NewHolder, Plan, RemakeError, Remark, Seed, add, may_take,
};
use vmdt_pool::{Announcement, Placement, Pool, PoolConfig, StoreError, Stored};
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::{self, Collector, Envelope, Manifest, PartyId, Recipient, Sealer};
use vmdt_wire::{MessageId, NodeId};
use zeroize::Zeroizing;

fn node(n: usize) -> NodeId {
    format!("node{n:03}").parse().unwrap()
}

fn index(i: u8) -> NonZeroU8 {
    NonZeroU8::new(i).unwrap()
}

struct Sealed {
    manifest: Manifest,
    shares: Vec<v2::Share>,
}

/// Any k of n shares of so many octets.
fn sealed(k: u8, n: u8, len: usize, rng: &mut ChaCha20Rng) -> Sealed {
    let party = |octet| PartyId::new(&[octet; 32]).unwrap();
    let envelope = Envelope::new([1; 16], party(1), Recipient::One(party(2)));
    let sealer = Sealer::new(Threshold::new(k, n).unwrap(), envelope);
    let octets: Vec<u8> = (0..len).map(|i| i as u8).collect();
    let sealed = sealer.seal(&octets, rng).unwrap();
    Sealed {
        manifest: sealed.manifest,
        shares: sealed.shares,
    }
}

/// Share i is with node `at(i)`.
fn announced(k: u8, n: u8, at: impl Fn(u8) -> usize) -> Announcement {
    let shares = (1..=n)
        .map(|i| Placement {
            index: index(i),
            holder: node(at(i)),
            digest: [i; 16],
            active: true,
        })
        .collect();
    Announcement::new(MessageId::from_random([9; 12]), node(900), node(901), k)
        .with_shares(n, shares)
        .with_version(1)
}

/// A member that holds nothing and may take the share.
fn taker(ann: &Announcement, lost: NonZeroU8) -> NodeId {
    let mut others = (100..400).map(node);
    others.find(|id| may_take(ann, *id, lost)).unwrap()
}

fn plan(ann: &Announcement, to: NodeId, lost: NonZeroU8, helpers: &[u8]) -> Plan {
    Plan {
        attempt: MessageId::from_random([3; 12]),
        message: ann.message,
        index: lost,
        to,
        helpers: helpers
            .iter()
            .map(|i| (index(*i), ann.placement(index(*i)).unwrap().holder))
            .collect(),
    }
}

/// What the shares of a node add.
fn summands(sealed: &Sealed, helper: &Helper) -> Zeroizing<Vec<u8>> {
    let mut sum = Zeroizing::new(vec![0; v2::Share::sum_len(&sealed.manifest)]);
    for own in helper.own() {
        let share = &sealed.shares[usize::from(own.get()) - 1];
        let plan = helper.plan();
        let all = plan.indices();
        add(
            &mut sum,
            &share.summand(&sealed.manifest, &all, plan.index).unwrap(),
        );
    }
    sum
}

/// Runs an exchange, each helper with the plan that it is told. All parts, and what is under them.
fn parts(
    sealed: &Sealed,
    ann: &Announcement,
    plans: &BTreeMap<NodeId, Plan>,
    rng: &mut ChaCha20Rng,
) -> BTreeMap<NodeId, (Bytes, Vec<u8>)> {
    let mut helpers = BTreeMap::new();
    let mut seeds: Vec<(NodeId, NodeId, Seed)> = Vec::new();
    for (own, plan) in plans {
        let (helper, send) = Helper::begin(plan.clone(), *own, ann, rng).unwrap();
        helpers.insert(*own, helper);
        seeds.extend(send.into_iter().map(|(to, seed)| (*own, to, seed)));
    }
    for (from, to, seed) in seeds {
        if let Some(helper) = helpers.get_mut(&to) {
            let _ = helper.receive(from, seed);
        }
    }
    helpers
        .into_iter()
        .filter_map(|(own, helper)| {
            let sum = summands(sealed, &helper);
            let bare = sum.to_vec();
            Some((own, (helper.masked(sum)?, bare)))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_sum_of_the_parts_is_the_lost_share_and_no_fewer_tell_anything(
        k in 2u8..6,
        more in 1u8..5,
        len in prop_oneof![1usize..256, 257usize..3000],
        lost in any::<u8>(),
        seed in any::<[u8; 32]>(),
    ) {
        let n = k + more;
        let lost = index(lost % n + 1);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let sealed = sealed(k, n, len, &mut rng);
        let ann = announced(k, n, usize::from);
        let to = taker(&ann, lost);
        let helpers: Vec<u8> = (1..=n).filter(|i| *i != lost.get()).take(k.into()).collect();
        let plan = plan(&ann, to, lost, &helpers);
        let plans = plan.nodes().into_iter().map(|id| (id, plan.clone())).collect();
        let parts = parts(&sealed, &ann, &plans, &mut rng);
        prop_assert_eq!(parts.len(), usize::from(k));

        let len = v2::Share::sum_len(&sealed.manifest);
        let mut holder = NewHolder::begin(&plan, n, k, len).unwrap();
        let mut sum = None;
        for (from, (part, _)) in &parts {
            prop_assert!(sum.is_none());
            sum = holder.receive(*from, part).unwrap();
        }
        let share = v2::Share::from_sum(&sealed.manifest, lost, &sum.unwrap()).unwrap();
        let original = &sealed.shares[usize::from(lost.get()) - 1];
        prop_assert_eq!(share.to_bytes(), original.to_bytes());
        let mut collector = Collector::new(sealed.manifest.clone());
        prop_assert!(collector.add(share.to_bytes()).is_ok());

        // the new holder sees no helper's summand, alone or summed with others
        let all: Vec<&(Bytes, Vec<u8>)> = parts.values().collect();
        for some in 1..(1u32 << k) - 1 {
            let (mut seen, mut bare) = (vec![0; len], vec![0; len]);
            for (at, (part, summand)) in all.iter().enumerate() {
                if some & (1 << at) > 0 {
                    add(&mut seen, part);
                    add(&mut bare, summand);
                }
            }
            prop_assert_ne!(&seen[..32], &bare[..32], "of the key");
            prop_assert_ne!(&seen[32..], &bare[32..], "of the body");
        }
    }

    #[test]
    fn nobody_may_ever_have_k_shares_whoever_is_asked_in_whatever_order(
        k in 2u8..9,
        more in 0u8..9,
        spread in 1usize..12,
        message in any::<[u8; 12]>(),
    ) {
        let n = k + more;
        let mut ann = announced(k, n, |i| usize::from(i) % spread.max(n.div_ceil(k - 1).into()));
        ann.message = MessageId::from_random(message);
        for member in (0..40).map(node) {
            let placed: BTreeSet<_> = ann.placed_at(member).collect();
            let more: BTreeSet<_> = (1..=n).map(index).filter(|i| may_take(&ann, member, *i)).collect();
            prop_assert!(placed.is_disjoint(&more));
            prop_assert_eq!(placed.len() + more.len(), usize::from(k) - 1);
        }
        for owner in [ann.sender, ann.receiver] {
            prop_assert!(!(1..=n).any(|i| may_take(&ann, owner, index(i))));
        }
        // where shares were moved, what a member had is not known
        ann.version = 2;
        prop_assert!(!(1..=n).any(|i| may_take(&ann, node(30), index(i))));
    }

    #[test]
    fn remarks_are_read_as_they_were_written_and_nothing_else_is(
        helpers in 0u8..130,
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let holders: Vec<_> = (1..=helpers).map(|i| (index(i), node(i.into()))).collect();
        let message = MessageId::from_random([4; 12]);
        let take = Remark::Take { message, index: index(7), holders: holders.clone() };
        let help = Remark::Help(Plan {
            attempt: message, message, index: index(9), to: node(5), helpers: holders,
        });
        for remark in [take, help] {
            let octets = remark.octets();
            prop_assert!(octets.len() <= 4_096, "a control line holds it");
            let read = Remark::parse(node(5), &octets).unwrap();
            if usize::from(helpers) <= MAX_HELPERS {
                prop_assert_eq!(&read, &remark);
            }
            prop_assert_eq!(read.octets(), &octets[..]);
            for cut in 0..octets.len() {
                prop_assert!(Remark::parse(node(5), &octets[..cut]).is_err());
            }
            prop_assert!(Remark::parse(node(5), &[&octets[..], &[0]].concat()).is_err());
        }
        if let Ok(read) = Remark::parse(node(5), &noise) {
            prop_assert_eq!(read.octets(), noise);
        }
    }
}

#[test]
fn parts_of_helpers_that_were_told_different_things_do_not_fit() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let lost = index(6);
    let sealed = sealed(3, 6, 1_000, &mut rng);
    // two nodes with two shares each: there is one mask, which the new holder does not know
    let ann = announced(3, 6, |i| usize::from(i.div_ceil(2)));
    let to = taker(&ann, lost);
    let plans = |first: &[u8], second: &[u8]| {
        let (first, second) = (plan(&ann, to, lost, first), plan(&ann, to, lost, second));
        BTreeMap::from([(node(1), first), (node(2), second)])
    };
    for (plans, fits) in [
        (plans(&[1, 2, 3], &[1, 2, 3]), true),
        (plans(&[1, 2, 3], &[2, 3, 4]), false),
    ] {
        let parts = parts(&sealed, &ann, &plans, &mut rng);
        let ((a, bare_a), (b, bare_b)) = (&parts[&node(1)], &parts[&node(2)]);
        let (mut seen, mut bare) = (a.to_vec(), bare_a.clone());
        add(&mut seen, b);
        add(&mut bare, bare_b);
        assert_eq!(seen == bare, fits, "the masks go out");
    }
}

#[test]
fn a_helper_helps_only_with_what_the_sender_placed_and_who_may_have_it() {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let ann = announced(3, 6, usize::from);
    let lost = index(6);
    let to = taker(&ann, lost);
    let good = plan(&ann, to, lost, &[1, 2, 3]);
    let mut begin = |plan: &Plan, ann: &Announcement| {
        Helper::begin(plan.clone(), node(2), ann, &mut rng).map(drop)
    };
    assert_eq!(begin(&good, &ann), Ok(()));
    let elsewhere = Plan {
        helpers: vec![
            (index(1), node(1)),
            (index(2), node(2)),
            (index(3), node(4)),
        ],
        ..good.clone()
    };
    assert!(matches!(
        begin(&elsewhere, &ann),
        Err(RemakeError::NotAnnounced { .. })
    ));
    for helpers in [&[1, 2][..], &[1, 2, 3, 4], &[1, 2, 6], &[1, 2, 2]] {
        let other = plan(&ann, to, lost, helpers);
        assert!(
            matches!(begin(&other, &ann), Err(RemakeError::Helpers { .. })),
            "{helpers:?}"
        );
    }
    let mut strangers = (100..400).map(node);
    let not = strangers.find(|id| !may_take(&ann, *id, lost)).unwrap();
    for not in [not, ann.sender, ann.receiver] {
        let other = Plan {
            to: not,
            ..good.clone()
        };
        assert!(matches!(
            begin(&other, &ann),
            Err(RemakeError::MayNotTake { .. })
        ));
    }
    let told = ann.clone().with_version(0);
    assert!(begin(&good, &told).is_err(), "another holder told it");
    let other = plan(&ann, to, lost, &[1, 3, 4]);
    assert!(matches!(
        begin(&other, &ann),
        Err(RemakeError::NotAsked { .. })
    ));
    // one node alone would give its shares away
    let one = announced(3, 6, |i| if i < 4 { 2 } else { i.into() });
    let other = plan(&one, taker(&one, lost), lost, &[1, 2, 3]);
    assert!(matches!(
        begin(&other, &one),
        Err(RemakeError::Helpers { .. })
    ));
}

#[test]
fn seeds_and_parts_of_others_are_refused_and_one_that_comes_twice_counts_once() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let ann = announced(3, 6, usize::from);
    let plan = plan(&ann, taker(&ann, index(6)), index(6), &[1, 2, 3]);
    let (_, seeds) = Helper::begin(plan.clone(), node(1), &ann, &mut rng).unwrap();
    let to: Vec<NodeId> = seeds.iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [node(2), node(3)]);
    let seed = seeds[0].1.clone();
    assert!(!format!("{seed:?}").contains("["));
    let (mut helper, _) = Helper::begin(plan.clone(), node(2), &ann, &mut rng).unwrap();
    for other in [node(3), node(4), node(2)] {
        assert!(helper.receive(other, seed.clone()).is_err(), "{other}");
    }
    assert!(!helper.is_ready());
    helper.receive(node(1), seed).unwrap();
    assert!(helper.is_ready());

    let mut holder = NewHolder::begin(&plan, 6, 3, 40).unwrap();
    assert!(holder.receive(node(4), &[0; 40]).is_err());
    assert!(holder.receive(node(1), &[0; 39]).is_err());
    assert_eq!(holder.receive(node(1), &[1; 40]).unwrap(), None);
    assert!(holder.receive(node(1), &[1; 40]).is_err());
    assert_eq!(holder.missing().collect::<Vec<_>>(), [node(2), node(3)]);
}

#[test]
fn a_pool_adopts_a_remade_share_within_the_rule_and_the_bounds() {
    #[allow(clippy::disallowed_methods)]
    let now = std::time::Instant::now();
    let ann = announced(3, 6, usize::from);
    let share = Bytes::from_static(b"a share");
    let mut pool = Pool::new(PoolConfig::new(node(50)));
    let adopt = |pool: &mut Pool, i: u8, digest: u8| {
        pool.adopt(now, &ann, index(i), share.clone(), [digest; 16])
    };
    assert!(matches!(
        adopt(&mut pool, 6, 5),
        Err(StoreError::Mismatch { .. })
    ));
    assert_eq!(pool.usage().entries, 0);
    assert_eq!(adopt(&mut pool, 6, 6), Ok(Stored::New));
    assert_eq!(adopt(&mut pool, 6, 6), Ok(Stored::Duplicate));
    assert_eq!(adopt(&mut pool, 5, 5), Ok(Stored::New));
    assert!(matches!(
        adopt(&mut pool, 4, 4),
        Err(StoreError::Privacy { .. })
    ));
    assert_eq!(
        pool.indices(ann.message).collect::<Vec<_>>(),
        [index(5), index(6)]
    );
    // the receiver may have it, and ends it
    assert_eq!(
        pool.claim(now, ann.message, ann.receiver, index(6)),
        Ok(share.clone())
    );
    // the sender's word replaces what another holder said, and places no more here than may be
    let mut placed = announced(3, 6, |i| if i == 1 { 50 } else { i.into() });
    assert!(pool.add(now, ann.sender, &placed).is_err());
    placed = announced(3, 6, |i| if i == 6 { 50 } else { i.into() });
    pool.add(now, ann.sender, &placed).unwrap();
    assert_eq!(
        pool.indices(ann.message).collect::<Vec<_>>(),
        [index(6)],
        "5 is elsewhere"
    );
    pool.ack(now, ann.message, ann.receiver).unwrap();
    assert!(pool.is_ended(ann.message));
    assert_eq!(adopt(&mut pool, 6, 6), Ok(Stored::Finished));
    let mut owner = Pool::new(PoolConfig::new(ann.receiver));
    assert!(matches!(
        adopt(&mut owner, 6, 6),
        Err(StoreError::Privacy { .. })
    ));
    let mut small = PoolConfig::new(node(51));
    small.max_octets = 10;
    let mut full = Pool::new(small);
    assert!(matches!(adopt(&mut full, 6, 6), Err(StoreError::Quota(_))));
    assert_eq!(full.usage().entries, 0);
}
