//! Who gets which share, what is refused, and what the explanation says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;

use common::*;
use proptest::prelude::*;
use vmdt_pool::placement::{
    Candidate, Carrier, Carriers, Limit, Placement, PlacementError, Quality,
};
use vmdt_pool::policy::{OnUnmet, Policy, PolicyError};

fn member(number: usize) -> Candidate {
    Candidate::new(node(&format!("m{number}")))
}

fn members(count: usize) -> Vec<Candidate> {
    (0..count).map(member).collect()
}

fn at(number: usize, address: &str) -> Candidate {
    Candidate {
        addresses: vec![address.parse().unwrap()],
        ..member(number)
    }
}

fn carriers(members: Vec<Candidate>, direct: bool, server: bool) -> Carriers {
    Carriers {
        direct: direct.then(Quality::default),
        members,
        server,
        sealed: false,
    }
}

fn distinct(k: u8, n: u8, networks: u8) -> Policy {
    Policy {
        min_distinct_networks: networks,
        ..Policy::k_of_n(k, n)
    }
}

#[test]
fn the_active_shares_are_on_distinct_carriers_and_the_best_come_first() {
    let mut all = members(4);
    for (at, candidate) in all.iter_mut().enumerate() {
        candidate.quality.srtt = Some(ms([80, 20, 40, 20][at]));
        candidate.quality.reliability = [1.0, 1.0, 1.0, 0.4][at];
    }
    let placed = Placement::choose(Policy::k_of_n(3, 5), &carriers(all, false, true)).unwrap();
    let order: Vec<_> = placed.iter().map(|(_, carrier)| carrier).collect();
    let via = |number: usize| Carrier::Member(node(&format!("m{number}")));
    assert_eq!(order, [via(1), via(2), via(3), via(0), via(1)]);
    assert_eq!(
        placed.active().map(NonZeroU8::get).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(placed.explain().limit, Limit::Nothing);
}

#[test]
fn load_loss_and_a_ban_put_a_carrier_back_or_out() {
    let mut all = members(4);
    all[0].quality.load = 1.0;
    all[1].quality.loss = 0.5;
    all[2].quality.reliability = 0.0;
    let placed = Placement::choose(Policy::k_of_n(2, 2), &carriers(all, false, false)).unwrap();
    let order: Vec<_> = placed.iter().map(|(_, carrier)| carrier).collect();
    assert_eq!(order[0], Carrier::Member(node("m3")));
    assert_eq!(order[1], Carrier::Member(node("m1")));
}

#[test]
fn one_host_one_network_and_one_operator_count_as_one() {
    let policy = distinct(3, 4, 2);
    let pairs: [(Candidate, Candidate); 4] = [
        (at(0, "192.0.2.1"), at(1, "192.0.2.250")),
        (at(0, "2001:db8:1:1::1"), at(1, "2001:db8:1:ffff::9")),
        (
            Candidate {
                host: Some(7),
                ..member(0)
            },
            Candidate {
                host: Some(7),
                ..member(1)
            },
        ),
        (
            Candidate {
                operator: Some("acme".into()),
                ..member(0)
            },
            Candidate {
                operator: Some("acme".into()),
                ..member(1)
            },
        ),
    ];
    for (one, other) in pairs {
        let same = carriers(vec![one, other, at(2, "198.51.100.1")], false, false);
        let placed = Placement::choose(policy, &same).unwrap();
        let together =
            placed.given(Carrier::Member(node("m0"))) + placed.given(Carrier::Member(node("m1")));
        assert_eq!(together, 2, "{placed:?}");
        let explained = placed.explain();
        assert_eq!(explained.parties.len(), 2);
        assert!(
            explained
                .to_string()
                .contains("counted as one: via m0, via m1")
        );
    }
    // Neighbours beyond the prefix are distinct.
    let apart = carriers(
        vec![
            at(0, "192.0.2.1"),
            at(1, "192.0.3.1"),
            at(2, "2001:db8:1::1"),
            at(3, "2001:db8:2::1"),
        ],
        false,
        false,
    );
    assert_eq!(
        Placement::choose(distinct(3, 4, 4), &apart)
            .unwrap()
            .explain()
            .parties
            .len(),
        4
    );
}

#[test]
fn parties_that_are_joined_through_a_third_are_one() {
    let mut bridge = at(2, "198.51.100.1");
    bridge.addresses.push("192.0.2.9".parse().unwrap());
    let all = carriers(
        vec![at(0, "192.0.2.1"), at(1, "198.51.100.7"), bridge],
        false,
        false,
    );
    assert_eq!(
        Placement::choose(distinct(2, 2, 1), &all).unwrap_err(),
        PlacementError::TooFewCarriers {
            placeable: 1,
            needed: 2,
            parties: 1,
            cap: 1
        }
    );
}

#[test]
fn refusals_say_the_numbers() {
    let policy = Policy::k_of_n(3, 5);
    let alone = carriers(Vec::new(), true, false);
    assert_eq!(
        Placement::choose(policy, &alone).unwrap_err(),
        PlacementError::TooFewCarriers {
            placeable: 2,
            needed: 5,
            parties: 1,
            cap: 2
        }
    );
    let indirect = Policy {
        allow_direct: false,
        allow_server: false,
        ..policy
    };
    let all = carriers(members(1), true, true);
    assert_eq!(
        Placement::choose(indirect, &all).unwrap_err().to_string(),
        "only 2 of 5 shares can be placed: 1 distinct carrier(s) may take at most 2 each, so that \
         nobody on the way can read the message"
    );
    let near = carriers(
        vec![at(0, "192.0.2.1"), at(1, "198.51.100.1")],
        false,
        false,
    );
    assert_eq!(
        Placement::choose(distinct(2, 2, 2), &near).map(|_| ()),
        Ok(())
    );
    assert_eq!(
        Placement::choose(
            Policy {
                min_distinct_networks: 3,
                ..Policy::k_of_n(3, 4)
            },
            &near
        )
        .unwrap_err(),
        PlacementError::TooFewNetworks {
            found: 2,
            needed: 3
        }
    );
    let nonsense = Policy::k_of_n(1, 2);
    assert_eq!(
        Placement::choose(nonsense, &near).unwrap_err(),
        PlacementError::Policy(PolicyError::Threshold { k: 1, n: 2 })
    );
}

#[test]
fn degrading_gives_up_shares_then_distinctness_and_says_so() {
    let policy = Policy {
        on_unmet: OnUnmet::Degrade,
        ..distinct(3, 9, 2)
    };
    let all = carriers(
        vec![at(0, "192.0.2.1"), at(1, "198.51.100.1")],
        false,
        false,
    );
    let placed = Placement::choose(policy, &all).unwrap();
    assert_eq!(placed.iter().count(), 4);
    assert_eq!(
        placed.explain().limit,
        Limit::Privacy {
            placeable: 4,
            wanted: 9
        }
    );
    let near = carriers(vec![at(0, "192.0.2.1"), at(1, "192.0.2.2")], false, false);
    let placed = Placement::choose(policy, &near).unwrap();
    assert!(placed.iter().count() >= 3);
    assert!(placed.given(Carrier::Member(node("m0"))) < 3);
    let alone = carriers(vec![at(0, "192.0.2.1")], false, false);
    assert!(Placement::choose(policy, &alone).is_err());
}

#[test]
fn the_server_is_used_only_when_it_must_be_and_with_indices_below_k() {
    for k in 2..=6 {
        let placed =
            Placement::choose(Policy::k_of_n(k, k), &carriers(Vec::new(), true, true)).unwrap();
        for (index, carrier) in placed.iter() {
            assert!(carrier != Carrier::Server || index.get() < k);
        }
        assert_eq!(placed.explain().limit, Limit::ServerNeeded { shares: 1 });
        let enough =
            Placement::choose(Policy::k_of_n(k, k), &carriers(members(2), true, true)).unwrap();
        assert_eq!(enough.given(Carrier::Server), 0);
    }
}

#[test]
fn a_sealed_message_may_go_directly_alone() {
    let alone = Carriers {
        sealed: true,
        ..carriers(Vec::new(), true, false)
    };
    let placed = Placement::choose(Policy::k_of_n(3, 5), &alone).unwrap();
    assert_eq!(placed.given(Carrier::Direct), 5);
    let text = placed.explain().to_string();
    assert!(
        text.contains("nobody but the receiver can read it"),
        "{text}"
    );
    let open = Carriers {
        sealed: false,
        ..alone
    };
    assert!(Placement::choose(Policy::k_of_n(3, 5), &open).is_err());
}

#[test]
fn the_explanation_reads_well() {
    let placed =
        Placement::choose(Policy::k_of_n(2, 3), &carriers(members(2), true, false)).unwrap();
    assert_eq!(
        placed.explain().to_string(),
        "3 shares are placed, any 2 of them are enough\n  direct: share 1\n  via m0: share 2\n  \
         via m1: share 3\ncould read it if they worked together:\n  direct with via m0\n  direct \
         with via m1\n  via m0 with via m1\n"
    );
}

#[test]
fn a_share_that_cannot_be_moved_stays_lost_and_the_reason_is_told() {
    let two = carriers(members(1), true, false);
    let mut placed = Placement::choose(Policy::k_of_n(2, 2), &two).unwrap();
    let at_member = placed
        .iter()
        .find(|(_, c)| *c != Carrier::Direct)
        .unwrap()
        .0;
    let left = carriers(Vec::new(), true, false);
    assert_eq!(
        placed.relocate(at_member, &left),
        Err(PlacementError::NoRoom {
            index: at_member,
            parties: 1,
            cap: 1
        })
    );
    let fresh = carriers(vec![member(9)], true, false);
    assert_eq!(
        placed.relocate(at_member, &fresh),
        Ok(Carrier::Member(node("m9")))
    );
    // Back to where it was: nothing new is learnt there.
    assert_eq!(
        placed.relocate(at_member, &two),
        Ok(Carrier::Member(node("m0")))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_party_ever_has_enough_through_all_moves(
        k in 2_u8..6,
        more in 0_u8..6,
        networks in prop::collection::vec(0_u8..4, 0..7),
        grouped in 0_u8..3,
        direct in any::<bool>(),
        server in any::<bool>(),
        degrade in any::<bool>(),
        lost in prop::collection::vec(0_usize..7, 0..8),
    ) {
        let on_unmet = if degrade { OnUnmet::Degrade } else { OnUnmet::Refuse };
        let n = k + more;
        let policy = Policy { on_unmet, ..distinct(k, n, grouped.min(n)) };
        let all: Vec<_> = networks
            .iter()
            .enumerate()
            .map(|(number, network)| at(number, &format!("10.0.{network}.{number}")))
            .collect();
        let Ok(mut placed) = Placement::choose(policy, &carriers(all.clone(), direct, server)) else {
            return Ok(());
        };
        prop_assert!(placed.iter().count() >= usize::from(k));
        let strict = grouped > 0 && placed.explain().limit == Limit::Nothing;
        let mut gone = BTreeSet::new();
        for lost in [None].into_iter().chain(lost.into_iter().map(Some)) {
            gone.extend(lost);
            let left = all.iter().enumerate().filter(|(at, _)| !gone.contains(at));
            let left = carriers(left.map(|(_, c)| c.clone()).collect(), direct, server);
            let dead = lost.map(|at| Carrier::Member(node(&format!("m{at}"))));
            let moved: Vec<_> = placed.iter().filter(|(_, c)| Some(*c) == dead).collect();
            for (index, _) in moved {
                let _ = placed.relocate(index, &left);
            }
            let mut by_network: BTreeMap<u8, BTreeSet<NonZeroU8>> = BTreeMap::new();
            for party in placed.explain().parties {
                prop_assert!(party.shares.len() < usize::from(k), "{party:?}");
                for carrier in &party.carriers {
                    if let Carrier::Member(id) = carrier {
                        let number: usize = id.as_str()[1..].parse().unwrap();
                        by_network.entry(networks[number]).or_default().extend(&party.shares);
                    }
                }
            }
            if strict {
                for shares in by_network.values() {
                    prop_assert!(shares.len() < usize::from(k));
                }
            }
        }
    }
}
