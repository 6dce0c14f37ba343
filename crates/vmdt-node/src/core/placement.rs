//! Placement: who carries which share of a message.
//!
//! The privacy rule (`docs/protocol.md`, section 6): no member, no link and no server ever carries
//! k or more shares of one message, but for the direct link when the message is sealed to its
//! receiver. [`vmdt_pool::placement`] keeps it over the whole life of a message; here is what a
//! node asks of it. There are two ways to place:
//!
//! - [`spread`]: one share for each carrier in turn, the ones that will be done first before the
//!   others, and every share at its holder from the beginning: for what is small, and for what may
//!   not go directly.
//! - [`stripe`]: k shares over the paths in proportion to their rates, so that all of them are full
//!   and end together, and the others kept here until they are wanted: for large content that is
//!   sealed, whose frozen shares would take from the same paths.

use vmdt_pool::paths::Scheduler;
use vmdt_pool::policy::{OnUnmet, Policy};

pub use vmdt_pool::placement::{
    Candidate, Carrier, Carriers, Explanation, Placement, PlacementError, Quality,
};

/// Places up to n shares, one carrier after the other, so that the first k are on as many distinct
/// ones as there are. Fewer than n are placed when the rule leaves no room for more.
///
/// # Errors
/// [`PlacementError`] when not even k shares can be placed, or not in so many networks.
pub(crate) fn spread(policy: Policy, carriers: &Carriers) -> Result<Placement, PlacementError> {
    if policy.min_distinct_networks == 0 {
        let degrade = Policy {
            on_unmet: OnUnmet::Degrade,
            ..policy
        };
        return Placement::choose(degrade, carriers).or_else(|_| {
            // what is lacking to the fewest there may be
            let fewest = Policy {
                n: policy.k,
                on_unmet: OnUnmet::Refuse,
                ..policy
            };
            Placement::choose(fewest, carriers)
        });
    }
    // fewer shares may do, fewer networks not
    let fewest = policy.k.max(policy.min_distinct_networks).min(policy.n);
    let mut last = None;
    for n in (fewest..=policy.n).rev() {
        let strict = Policy {
            n,
            on_unmet: OnUnmet::Refuse,
            ..policy
        };
        match Placement::choose(strict, carriers) {
            Ok(placement) => return Ok(placement),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error),
        None => Placement::choose(policy, carriers),
    }
}

/// Places the first k shares of a sealed message of so many octets each where they will be complete
/// first, and leaves the others with their sender, for the direct link. `None` without one, or
/// when distinct networks are demanded.
pub(crate) fn stripe(
    policy: Policy,
    carriers: &Carriers,
    paths: &mut Scheduler,
    octets: u64,
) -> Option<Placement> {
    let direct = carriers.direct.filter(|_| policy.allow_direct)?;
    if !carriers.sealed || policy.min_distinct_networks > 0 {
        return None;
    }
    let only = |direct, members| Carriers {
        direct,
        members,
        server: false,
        sealed: true,
    };
    let policy = Policy {
        allow_server: false,
        on_unmet: OnUnmet::Degrade,
        ..policy
    };
    let mut placement = Placement::choose(policy, &only(Some(direct), Vec::new())).ok()?;
    let k = usize::from(policy.k);
    let order = paths.assign(k, octets, |path| match path {
        Carrier::Direct => k,
        Carrier::Member(_) => k.saturating_sub(1),
        Carrier::Server => 0,
    });
    let indices: Vec<_> = placement.iter().map(|(index, _)| index).take(k).collect();
    for (index, carrier) in indices.into_iter().zip(order) {
        if let Carrier::Member(id) = carrier
            && let Some(candidate) = carriers.members.iter().find(|c| c.id == id)
        {
            // the rule leaves room for it: no path was given k
            let _ = placement.relocate(index, &only(None, vec![candidate.clone()]));
        }
    }
    Some(placement)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use vmdt_pool::paths::PathEstimate;
    use vmdt_wire::NodeId;

    use super::*;

    fn members(n: usize) -> Vec<Candidate> {
        (0..n)
            .map(|i| Candidate::new(format!("m{i}").parse::<NodeId>().unwrap()))
            .collect()
    }

    fn carriers(direct: bool, n: usize, server: bool, sealed: bool) -> Carriers {
        Carriers {
            direct: direct.then(Quality::default),
            members: members(n),
            server,
            sealed,
        }
    }

    fn check(p: &Placement, k: u8, sealed: bool) {
        for party in &p.explain().parties {
            let direct = party.carriers == [Carrier::Direct];
            assert!(
                party.shares.len() < usize::from(k) || direct && sealed,
                "{party:?} of {k}"
            );
        }
    }

    #[test]
    fn no_carrier_ever_has_k_shares() {
        for n in 2..=7u8 {
            for k in 2..=n {
                for count in 0..=5 {
                    for bits in 0..8u8 {
                        let (direct, server, sealed) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
                        let mut c = carriers(direct, count, server, sealed);
                        let Ok(mut p) = spread(Policy::k_of_n(k, n), &c) else {
                            continue;
                        };
                        check(&p, k, sealed);
                        assert!(p.iter().count() >= usize::from(k));
                        // lose every member one after the other and move what it had
                        while let Some(lost) = c.members.pop() {
                            let lost = Carrier::Member(lost.id);
                            let moved: Vec<_> = p.iter().filter(|(_, c)| *c == lost).collect();
                            for (index, _) in moved {
                                let _ = p.relocate(index, &c);
                                check(&p, k, sealed);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn with_too_few_carriers_the_error_says_what_is_lacking_to_k() {
        let error = spread(Policy::k_of_n(3, 5), &carriers(true, 0, false, false)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("only 2 of 3 shares can be placed"),
            "{error}"
        );
        let fewer = spread(Policy::k_of_n(2, 5), &carriers(true, 1, false, false)).unwrap();
        assert_eq!(fewer.iter().count(), 2);
    }

    #[test]
    fn demanded_networks_are_kept_with_fewer_shares_or_it_is_refused() {
        let mut c = carriers(false, 4, false, true);
        for (number, member) in (0u8..).zip(&mut c.members) {
            // two in each of two networks
            member.addresses = vec![std::net::Ipv4Addr::new(10, 0, number / 2, number).into()];
        }
        let policy = Policy {
            min_distinct_networks: 2,
            ..Policy::k_of_n(2, 4)
        };
        let placed = spread(policy, &c).unwrap();
        assert_eq!(placed.iter().count(), 2, "one for each network");
        let policy = Policy {
            min_distinct_networks: 3,
            ..policy
        };
        assert!(spread(policy, &c).is_err());
    }

    #[test]
    fn a_stripe_uses_the_paths_by_their_rates_and_keeps_the_other_shares() {
        let c = carriers(true, 2, false, true);
        let mut count: BTreeMap<Carrier, usize> = BTreeMap::new();
        let mut paths = Scheduler::new();
        let rates = [
            (Carrier::Direct, 2e6),
            (Carrier::Member(c.members[0].id), 2e6),
            (Carrier::Member(c.members[1].id), 1e6),
        ];
        for (path, rate) in rates {
            paths.update(path, PathEstimate::new(Duration::from_millis(50), rate));
        }
        for _ in 0..100 {
            let p = stripe(Policy::k_of_n(3, 6), &c, &mut paths, 40_000).unwrap();
            assert_eq!(p.iter().count(), 6, "every share has a place");
            for (index, carrier) in p.iter() {
                if index.get() <= 3 {
                    *count.entry(carrier).or_default() += 1;
                } else {
                    assert_eq!(carrier, Carrier::Direct);
                }
            }
            check(&p, 3, true);
        }
        for (path, rate) in rates {
            let share = count[&path] as f64 / 300.0;
            assert!((share - rate / 5e6).abs() < 0.02, "{path}: {share}");
        }
        for other in [
            carriers(false, 2, false, true),
            carriers(true, 2, false, false),
        ] {
            assert!(stripe(Policy::k_of_n(3, 6), &other, &mut paths, 1).is_none());
        }
    }
}
