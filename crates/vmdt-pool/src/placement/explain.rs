//! What a placement means, for people and programs.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};

use super::{Carrier, Placement, PlacementError};

/// How many sets of parties an explanation lists.
const MAX_SETS: usize = 16;

/// What kept a placement from being all that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Nothing.
    Nothing,
    /// The server had to take shares, as there were too few other carriers.
    ServerNeeded {
        /// How many.
        shares: usize,
    },
    /// The privacy rule left no room for all shares: there are fewer than n, or carriers that may be
    /// one party were counted as several.
    Privacy {
        /// Shares that could be placed within the rule.
        placeable: usize,
        /// Shares that were wanted.
        wanted: usize,
    },
    /// The carriers are in too few networks.
    Networks {
        /// Networks there are.
        found: usize,
        /// Networks demanded.
        needed: usize,
    },
}

impl Limit {
    pub(super) fn of(error: &PlacementError) -> Limit {
        match *error {
            PlacementError::TooFewCarriers {
                placeable, needed, ..
            } => Limit::Privacy {
                placeable,
                wanted: needed,
            },
            PlacementError::TooFewNetworks { found, needed } => Limit::Networks { found, needed },
            PlacementError::Policy(_) | PlacementError::NoRoom { .. } => Limit::Nothing,
        }
    }
}

/// Carriers that count as one, and what they have or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The carriers.
    pub carriers: Vec<Carrier>,
    /// The shares that one of them has or ever had.
    pub shares: Vec<NonZeroU8>,
}

/// Who holds what, and which sets of parties could learn something. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The threshold.
    pub k: u8,
    /// Shares that were placed.
    pub placed: usize,
    /// Shares that were wanted.
    pub n: u8,
    /// Whether k shares alone do not open the message.
    pub sealed: bool,
    /// Who has which shares now.
    pub holders: BTreeMap<Carrier, Vec<NonZeroU8>>,
    /// Who counts as one.
    pub parties: Vec<Party>,
    /// The fewest parties that would have to join to have k shares; 0 if all of them have fewer.
    pub smallest: usize,
    /// The sets of so many parties (positions in [`parties`](Self::parties)) that have k shares
    /// together; at most 16 are listed.
    pub readers: Vec<Vec<usize>>,
    /// What kept the placement from being all that was asked for.
    pub limit: Limit,
}

impl Explanation {
    pub(super) fn of(placement: &Placement) -> Explanation {
        let mut holders: BTreeMap<Carrier, Vec<NonZeroU8>> = BTreeMap::new();
        for (index, carrier) in placement.iter() {
            holders.entry(carrier).or_default().push(index);
        }
        let mut by_party: BTreeMap<usize, (Vec<Carrier>, BTreeSet<NonZeroU8>)> = BTreeMap::new();
        for (carrier, shares) in &placement.ever {
            let party = by_party.entry(placement.parties.of(*carrier)).or_default();
            party.0.push(*carrier);
            party.1.extend(shares);
        }
        let sets: Vec<BTreeSet<NonZeroU8>> = by_party.values().map(|p| p.1.clone()).collect();
        let k = usize::from(placement.policy.k);
        let mut readers = Vec::new();
        let mut smallest = 0;
        for size in 1..=sets.len() {
            // Parties are few and k small; what would take too long is left out of the list, not
            // out of the count.
            let mut left = 100_000;
            grow(&sets, k, size, &mut Vec::new(), 0, &mut left, &mut readers);
            if !readers.is_empty() {
                smallest = size;
                break;
            }
        }
        let parties = by_party
            .into_values()
            .map(|(carriers, shares)| Party {
                carriers,
                shares: shares.into_iter().collect(),
            })
            .collect();
        Explanation {
            k: placement.policy.k,
            placed: placement.at.len(),
            n: placement.policy.n,
            sealed: placement.sealed,
            holders,
            parties,
            smallest,
            readers,
            limit: placement.limit,
        }
    }
}

/// Lists the sets of `size` parties that have `k` distinct shares together.
fn grow(
    sets: &[BTreeSet<NonZeroU8>],
    k: usize,
    size: usize,
    chosen: &mut Vec<usize>,
    from: usize,
    left: &mut u32,
    found: &mut Vec<Vec<usize>>,
) {
    if found.len() >= MAX_SETS || *left == 0 {
        return;
    }
    *left -= 1;
    if chosen.len() == size {
        let shares: BTreeSet<_> = chosen
            .iter()
            .filter_map(|party| sets.get(*party))
            .flatten()
            .collect();
        if shares.len() >= k {
            found.push(chosen.clone());
        }
        return;
    }
    for party in from..sets.len() {
        chosen.push(party);
        grow(sets, k, size, chosen, party + 1, left, found);
        chosen.pop();
    }
}

fn join<T: fmt::Display>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(between)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} shares are placed, any {} of them are enough",
            self.placed, self.k
        )?;
        for (carrier, shares) in &self.holders {
            let word = if shares.len() == 1 { "share" } else { "shares" };
            writeln!(f, "  {carrier}: {word} {}", join(shares, ", "))?;
        }
        for party in self.parties.iter().filter(|party| party.carriers.len() > 1) {
            writeln!(f, "counted as one: {}", join(&party.carriers, ", "))?;
        }
        if self.readers.is_empty() {
            writeln!(f, "all of them together do not have {} shares", self.k)?;
        } else if self.sealed {
            writeln!(f, "nobody but the receiver can read it: it is sealed")?;
        } else {
            writeln!(f, "could read it if they worked together:")?;
            for set in &self.readers {
                let names = set
                    .iter()
                    .filter_map(|party| self.parties.get(*party))
                    .map(|party| join(&party.carriers, ", "));
                writeln!(f, "  {}", join(names, " with "))?;
            }
        }
        match self.limit {
            Limit::Nothing => Ok(()),
            Limit::ServerNeeded { shares } => {
                writeln!(f, "limited: the server had to take {shares}")
            }
            Limit::Privacy { placeable, wanted } => writeln!(
                f,
                "limited: only {placeable} of {wanted} shares fit the privacy rule"
            ),
            Limit::Networks { found, needed } => writeln!(
                f,
                "limited: {found} distinct networks, {needed} were demanded"
            ),
        }
    }
}
