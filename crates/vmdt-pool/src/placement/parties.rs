//! Which carriers count as one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Candidate, Carrier};

/// What makes two carriers one party.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trait {
    Host(u64),
    Network([u8; 6], bool),
    Operator(Arc<str>),
}

/// Parties by number. Carriers that share a trait, directly or through others, are one party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parties {
    grouped: bool,
    traits: BTreeMap<Trait, usize>,
    of: BTreeMap<Carrier, usize>,
    next: usize,
}

/// The numbers of the direct way and the server, and of a member that never joined.
const DIRECT: usize = 0;
const SERVER: usize = 1;
const NOBODY: usize = usize::MAX;

impl Parties {
    pub(super) fn new(grouped: bool) -> Self {
        Parties {
            grouped,
            traits: BTreeMap::new(),
            of: BTreeMap::new(),
            next: SERVER + 1,
        }
    }

    pub(super) fn of(&self, carrier: Carrier) -> usize {
        match carrier {
            Carrier::Direct => DIRECT,
            Carrier::Server => SERVER,
            Carrier::Member(_) => self.of.get(&carrier).copied().unwrap_or(NOBODY),
        }
    }

    /// Takes in what is known of a member now, on top of what was known before.
    pub(super) fn join(&mut self, carrier: Carrier, candidate: &Candidate) {
        let mut traits: BTreeSet<Trait> = BTreeSet::new();
        if self.grouped {
            traits.extend(candidate.host.map(Trait::Host));
            traits.extend(candidate.operator.clone().map(Trait::Operator));
            traits.extend(candidate.addresses.iter().map(|address| network(*address)));
        }
        let mut same: BTreeSet<usize> = traits
            .iter()
            .filter_map(|one| self.traits.get(one).copied())
            .collect();
        same.extend(self.of.get(&carrier));
        let party = same.first().copied().unwrap_or(self.next);
        self.next = self.next.max(party.saturating_add(1));
        for known in self.traits.values_mut().chain(self.of.values_mut()) {
            if same.contains(known) {
                *known = party;
            }
        }
        self.of.insert(carrier, party);
        self.traits
            .extend(traits.into_iter().map(|one| (one, party)));
    }
}

/// The /24 of an IPv4 address, the /48 of an IPv6 address.
fn network(address: IpAddr) -> Trait {
    let address = match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let mut prefix = [0; 6];
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, _] = four.octets();
            prefix = [a, b, c, 0, 0, 0];
            Trait::Network(prefix, false)
        }
        IpAddr::V6(six) => {
            for (to, from) in prefix.iter_mut().zip(six.octets()) {
                *to = from;
            }
            Trait::Network(prefix, true)
        }
    }
}
