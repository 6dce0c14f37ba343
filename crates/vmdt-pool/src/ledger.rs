//! Who uses how much, checked before anything is kept.

use std::collections::BTreeMap;

use vmdt_wire::NodeId;

use crate::error::{Bound, QuotaError};

/// How much a machine keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Messages, ended ones not counted.
    pub entries: u64,
    /// Octets as counted against the bounds: shares and announcements.
    pub octets: u64,
}

/// One sort of thing with a bound on all of it and a bound per peer.
#[derive(Debug, Clone)]
struct Account {
    all: u64,
    all_max: u64,
    all_bound: Bound,
    peer_max: u64,
    peer_bound: Bound,
}

impl Account {
    fn check(&self, more: u64, of_peer: Option<u64>) -> Result<(), QuotaError> {
        let fits = |bound, used: u64, allowed| {
            let would_be = used.saturating_add(more);
            if more > 0 && would_be > allowed {
                return Err(QuotaError {
                    bound,
                    would_be,
                    allowed,
                });
            }
            Ok(())
        };
        if let Some(used) = of_peer {
            fits(self.peer_bound, used, self.peer_max)?;
        }
        fits(self.all_bound, self.all, self.all_max)
    }
}

/// Counts of items and octets, in all and per peer.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    items: Account,
    octets: Account,
    by_peer: BTreeMap<NodeId, Usage>,
    /// Bound by the totals only.
    exempt: Option<NodeId>,
}

/// A bound in all and one per peer.
pub(crate) type Limit = ((Bound, u64), (Bound, u64));

impl Ledger {
    pub(crate) fn new(items: Limit, octets: Limit, exempt: Option<NodeId>) -> Self {
        let account = |((all_bound, all_max), (peer_bound, peer_max)): Limit| Account {
            all: 0,
            all_max,
            all_bound,
            peer_max,
            peer_bound,
        };
        Ledger {
            items: account(items),
            octets: account(octets),
            by_peer: BTreeMap::new(),
            exempt,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            entries: self.items.all,
            octets: self.octets.all,
        }
    }

    /// Counts `items` and `octets` to `peer`, or refuses both.
    pub(crate) fn charge(
        &mut self,
        peer: NodeId,
        items: u64,
        octets: u64,
    ) -> Result<(), QuotaError> {
        let used = self.by_peer.get(&peer).copied().unwrap_or_default();
        let bound = self.exempt != Some(peer);
        self.items.check(items, bound.then_some(used.entries))?;
        self.octets.check(octets, bound.then_some(used.octets))?;
        self.count(peer, items, octets);
        Ok(())
    }

    /// Counts what is there already, whatever the bounds say.
    pub(crate) fn count(&mut self, peer: NodeId, items: u64, octets: u64) {
        self.items.all = self.items.all.saturating_add(items);
        self.octets.all = self.octets.all.saturating_add(octets);
        let used = self.by_peer.entry(peer).or_default();
        used.entries = used.entries.saturating_add(items);
        used.octets = used.octets.saturating_add(octets);
    }

    /// Takes back what was charged.
    pub(crate) fn refund(&mut self, peer: NodeId, items: u64, octets: u64) {
        self.items.all = self.items.all.saturating_sub(items);
        self.octets.all = self.octets.all.saturating_sub(octets);
        if let Some(used) = self.by_peer.get_mut(&peer) {
            used.entries = used.entries.saturating_sub(items);
            used.octets = used.octets.saturating_sub(octets);
            if *used == Usage::default() {
                self.by_peer.remove(&peer);
            }
        }
    }
}
