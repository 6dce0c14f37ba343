//! Which carrier gets which share, and what that means.
//!
//! The privacy rule binds over the whole life of a message, also when shares move: a carrier that
//! was given a share once has it for good.

mod explain;
mod parties;

use core::fmt;
use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use vmdt_wire::NodeId;

pub use explain::{Explanation, Limit, Party};

use crate::policy::{OnUnmet, Policy, PolicyError};
use parties::Parties;

/// One way of a share to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// From the sender to the receiver itself.
    Direct,
    /// A member that holds the share and hands it on.
    Member(NodeId),
    /// The server, by relay.
    Server,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Carrier::Direct => f.write_str("direct"),
            Carrier::Member(id) => write!(f, "via {id}"),
            Carrier::Server => f.write_str("via the server"),
        }
    }
}

/// What is measured of a way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// From 0.0 to 1.0, as [`Reputation`](crate::reputation::Reputation) says; 0.0 is not used.
    pub reliability: f64,
    /// Smoothed round trip of the whole way, if measured.
    pub srtt: Option<Duration>,
    /// Part of what is sent that is lost, 0.0 to 1.0.
    pub loss: f64,
    /// How busy it is, 0.0 to 1.0.
    pub load: f64,
}

impl Default for Quality {
    /// Nothing is known.
    fn default() -> Self {
        Quality {
            reliability: 0.5,
            srtt: None,
            loss: 0.0,
            load: 0.0,
        }
    }
}

impl Quality {
    /// Expected time of one success, in a measure where less is better.
    fn cost(&self) -> f64 {
        // A way that was never measured ranks as one of 200 ms.
        let rtt = self.srtt.unwrap_or(Duration::from_millis(200));
        let rtt = rtt.as_secs_f64().clamp(0.001, 60.0);
        let unit = |value: f64| {
            if value.is_finite() {
                value.clamp(0.0, 1.0)
            } else {
                1.0
            }
        };
        let success = unit(self.reliability) * (1.0 - unit(self.loss));
        rtt * (1.0 + 3.0 * unit(self.load)) / success.max(0.01)
    }

    fn is_usable(&self) -> bool {
        self.reliability > 0.0
    }
}

/// A member that may hold shares: neither the sender nor a receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The member.
    pub id: NodeId,
    /// Its addresses, as far as they are known.
    pub addresses: Vec<IpAddr>,
    /// How good the way through it is.
    pub quality: Quality,
    /// Who operates it, as the cluster says.
    pub operator: Option<Arc<str>>,
    /// What names its host, if it is known that several nodes share one.
    pub host: Option<u64>,
}

impl Candidate {
    /// A member of which nothing is known.
    pub fn new(id: NodeId) -> Self {
        Candidate {
            id,
            addresses: Vec::new(),
            quality: Quality::default(),
            operator: None,
            host: None,
        }
    }
}

/// The carriers to choose from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Carriers {
    /// The direct way, if sender and receiver reach each other.
    pub direct: Option<Quality>,
    /// The members that are up.
    pub members: Vec<Candidate>,
    /// Whether the server relays.
    pub server: bool,
    /// Whether the content is sealed end to end, so that the direct way may carry all shares.
    pub sealed: bool,
}

/// Why a message cannot be placed as the policy demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The policy contradicts itself.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There is not enough room within the privacy rule.
    #[error(
        "only {placeable} of {needed} shares can be placed: {parties} distinct carrier(s) may take \
         at most {cap} each, so that nobody on the way can read the message"
    )]
    TooFewCarriers {
        /// Shares that could be placed.
        placeable: usize,
        /// Shares that are needed.
        needed: usize,
        /// Distinct parties there are.
        parties: usize,
        /// Shares one party may have, k - 1.
        cap: usize,
    },
    /// The carriers are in too few networks.
    #[error("the carriers are in {found} distinct network(s), {needed} are demanded")]
    TooFewNetworks {
        /// Networks there are.
        found: usize,
        /// Networks demanded.
        needed: usize,
    },
    /// A share cannot be moved: whoever could take it already has as many as it may.
    #[error(
        "share {index} cannot be moved: none of {parties} distinct carrier(s) may take another one \
         (at most {cap} each)"
    )]
    NoRoom {
        /// The share.
        index: NonZeroU8,
        /// Distinct parties there are.
        parties: usize,
        /// Shares one party may have, k - 1.
        cap: usize,
    },
}

/// Where the shares of one message are, and who ever had which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    policy: Policy,
    sealed: bool,
    at: BTreeMap<NonZeroU8, Carrier>,
    ever: BTreeMap<Carrier, BTreeSet<NonZeroU8>>,
    parties: Parties,
    limit: Limit,
}

impl Placement {
    /// Chooses carriers for the n shares of a message: the best ones first, every party once before
    /// any is used twice, so that the first k shares, which are the active ones, are on as many
    /// distinct parties as there are.
    ///
    /// # Errors
    ///
    /// [`PlacementError`], with the numbers. With [`OnUnmet::Degrade`] only when not even k shares
    /// can be placed so that no member gets k.
    pub fn choose(policy: Policy, carriers: &Carriers) -> Result<Placement, PlacementError> {
        policy.check()?;
        let grouped = policy.min_distinct_networks > 0;
        let strict = Placement::attempt(policy, carriers, grouped, policy.n);
        let (Err(error), OnUnmet::Degrade) = (&strict, policy.on_unmet) else {
            return strict;
        };
        let limit = Limit::of(error);
        let fewer = (policy.k..policy.n).rev();
        let degraded = fewer
            .map(|n| (grouped, n))
            .chain((policy.k..=policy.n).rev().map(|n| (false, n)))
            .find_map(|(grouped, n)| Placement::attempt(policy, carriers, grouped, n).ok());
        degraded.map_or(strict, |mut placement| {
            placement.limit = limit;
            Ok(placement)
        })
    }

    fn attempt(
        policy: Policy,
        carriers: &Carriers,
        grouped: bool,
        wanted: u8,
    ) -> Result<Placement, PlacementError> {
        let cap = usize::from(policy.k.saturating_sub(1));
        let mut placement = Placement {
            policy,
            sealed: carriers.sealed,
            at: BTreeMap::new(),
            ever: BTreeMap::new(),
            parties: Parties::new(grouped),
            limit: Limit::Nothing,
        };
        let ranked = placement.rank(carriers);
        let mut parties: Vec<usize> = Vec::new();
        for (carrier, _) in &ranked {
            let party = placement.parties.of(*carrier);
            if !parties.contains(&party) {
                parties.push(party);
            }
        }
        // The order of use: rounds over the parties, each giving the one of its members that has
        // the fewest shares.
        let mut order = Vec::new();
        for _ in 0..usize::from(wanted) {
            if order.len() >= usize::from(wanted) {
                break;
            }
            for &party in &parties {
                let next = ranked
                    .iter()
                    .filter(|(carrier, _)| placement.parties.of(*carrier) == party)
                    .map(|(carrier, _)| *carrier)
                    .min_by_key(|carrier| order.iter().filter(|used| *used == carrier).count());
                let used = order
                    .iter()
                    .filter(|used| placement.parties.of(**used) == party)
                    .count();
                if let Some(carrier) = next
                    && used < placement.most(carrier)
                {
                    order.push(carrier);
                }
            }
        }
        order.truncate(usize::from(wanted));
        // The server fills what is missing to k, with the first indices: it passes no others.
        let missing = usize::from(policy.k).saturating_sub(order.len());
        let relays = policy.allow_server && carriers.server;
        let server = if relays { missing.min(cap) } else { 0 };
        let order: Vec<_> = std::iter::repeat_n(Carrier::Server, server)
            .chain(order)
            .collect();
        if server > 0 && order.len() >= usize::from(policy.k) && placement.limit == Limit::Nothing {
            placement.limit = Limit::ServerNeeded { shares: server };
        }
        // With the server there are just k: more than that it does not make possible.
        let needed = if server > 0 {
            usize::from(policy.k)
        } else {
            usize::from(wanted)
        };
        if order.len() < needed {
            return Err(PlacementError::TooFewCarriers {
                placeable: order.len(),
                needed,
                parties: parties.len() + usize::from(relays),
                cap,
            });
        }
        for (index, carrier) in (1..=wanted).filter_map(NonZeroU8::new).zip(order) {
            placement.give(index, carrier);
        }
        let needed = usize::from(policy.min_distinct_networks);
        let used: BTreeSet<_> = placement
            .at
            .values()
            .map(|carrier| placement.parties.of(*carrier))
            .collect();
        if grouped && used.len() < needed {
            return Err(PlacementError::TooFewNetworks {
                found: used.len(),
                needed,
            });
        }
        Ok(placement)
    }

    /// The usable carriers but the server, best first, which are put into their parties.
    fn rank(&mut self, carriers: &Carriers) -> Vec<(Carrier, f64)> {
        let mut ranked: Vec<(Carrier, f64)> = Vec::new();
        if let Some(direct) = carriers.direct
            && self.policy.allow_direct
        {
            ranked.push((Carrier::Direct, direct.cost()));
        }
        for candidate in &carriers.members {
            if candidate.quality.is_usable() {
                let carrier = Carrier::Member(candidate.id);
                self.parties.join(carrier, candidate);
                ranked.push((carrier, candidate.quality.cost()));
            }
        }
        ranked.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
        ranked.dedup_by_key(|(carrier, _)| *carrier);
        ranked
    }

    /// The most shares that the party of `carrier` may have.
    fn most(&self, carrier: Carrier) -> usize {
        usize::from(match carrier {
            Carrier::Direct if self.sealed => self.policy.n,
            _ => self.policy.k.saturating_sub(1),
        })
    }

    fn give(&mut self, index: NonZeroU8, carrier: Carrier) {
        self.at.insert(index, carrier);
        self.ever.entry(carrier).or_default().insert(index);
    }

    /// Distinct shares that the party of `carrier` ever had.
    fn had_by_party(&self, carrier: Carrier) -> BTreeSet<NonZeroU8> {
        let party = self.parties.of(carrier);
        self.ever
            .iter()
            .filter(|(other, _)| self.parties.of(**other) == party)
            .flat_map(|(_, shares)| shares.iter().copied())
            .collect()
    }

    /// Moves a share to another carrier, the best of those that had the fewest. A share may go back
    /// to a party that had it before: that party learns nothing new.
    ///
    /// # Errors
    ///
    /// [`PlacementError::NoRoom`]: everyone that is left has as many shares as it may ever have.
    pub fn relocate(
        &mut self,
        index: NonZeroU8,
        carriers: &Carriers,
    ) -> Result<Carrier, PlacementError> {
        let old = self.carrier(index);
        let mut options = self.rank(carriers);
        if carriers.server && self.policy.allow_server && index.get() < self.policy.k {
            options.push((Carrier::Server, f64::MAX));
        }
        let parties: BTreeSet<_> = options.iter().map(|(c, _)| self.parties.of(*c)).collect();
        let best = options
            .iter()
            .enumerate()
            .filter_map(|(rank, (carrier, _))| {
                let mut had = self.had_by_party(*carrier);
                had.insert(index);
                let fits = Some(*carrier) != old && had.len() <= self.most(*carrier);
                let last = *carrier == Carrier::Server;
                fits.then_some((last, had.len(), rank, *carrier))
            })
            .min();
        let Some((.., carrier)) = best else {
            return Err(PlacementError::NoRoom {
                index,
                parties: parties.len(),
                cap: usize::from(self.policy.k.saturating_sub(1)),
            });
        };
        self.give(index, carrier);
        Ok(carrier)
    }

    /// The carrier of a share, if it has one.
    pub fn carrier(&self, index: NonZeroU8) -> Option<Carrier> {
        self.at.get(&index).copied()
    }

    /// All shares that have a carrier, in index order.
    pub fn iter(&self) -> impl Iterator<Item = (NonZeroU8, Carrier)> + '_ {
        self.at.iter().map(|(index, carrier)| (*index, *carrier))
    }

    /// The shares that go on to the receiver at once: the first k.
    pub fn active(&self) -> impl Iterator<Item = NonZeroU8> + '_ {
        let k = usize::from(self.policy.k);
        self.at.keys().copied().take(k)
    }

    /// How many distinct shares a carrier ever had.
    pub fn given(&self, carrier: Carrier) -> usize {
        self.ever.get(&carrier).map_or(0, BTreeSet::len)
    }

    /// The policy that was asked for.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Who holds what, and who could learn something.
    pub fn explain(&self) -> Explanation {
        Explanation::of(self)
    }
}
