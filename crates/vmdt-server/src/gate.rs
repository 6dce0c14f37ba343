//! How many connections an address may have and open.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::builder::Limits;

/// Addresses remembered at once.
const MAX_ADDRESSES: usize = 65_536;

/// Counts connections per address. An IPv6 address counts as its network of 64 bits, because its
/// owner has all the others in it too.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    shared: Arc<Mutex<Table>>,
}

#[derive(Debug)]
struct Table {
    limits: Limits,
    most: usize,
    entries: BTreeMap<IpAddr, Entry>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    open: usize,
    /// What may be opened at once, in time needed to earn it.
    credit: Duration,
    refilled: Instant,
}

/// A connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Gate,
    address: IpAddr,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Gate {
        Gate::with_most(limits, MAX_ADDRESSES)
    }

    fn with_most(limits: Limits, most: usize) -> Gate {
        let table = Table {
            limits,
            most,
            entries: BTreeMap::new(),
            swept: None,
        };
        Gate {
            shared: Arc::new(Mutex::new(table)),
        }
    }

    /// Lets a connection from `ip` in, or not.
    pub(crate) fn enter(&self, now: Instant, ip: IpAddr) -> Option<Pass> {
        let address = network(ip);
        self.table().enter(now, address).then(|| Pass {
            gate: self.clone(),
            address,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut table = self.gate.table();
        if let Some(entry) = table.entries.get_mut(&self.address) {
            entry.open = entry.open.saturating_sub(1);
        }
    }
}

impl Table {
    fn enter(&mut self, now: Instant, address: IpAddr) -> bool {
        let cost = Duration::from_secs(1) / self.limits.opens_per_second.max(1);
        let full = cost.saturating_mul(self.limits.opens_at_once.max(1));
        if !self.entries.contains_key(&address) && self.entries.len() >= self.most {
            self.sweep(now, full);
            if self.entries.len() >= self.most {
                return false;
            }
        }
        let most = self.limits.connections_per_address;
        let entry = self.entries.entry(address).or_insert(Entry {
            open: 0,
            credit: full,
            refilled: now,
        });
        let gained = now.saturating_duration_since(entry.refilled);
        entry.refilled = entry.refilled.max(now);
        entry.credit = entry.credit.saturating_add(gained).min(full);
        let Some(rest) = entry.credit.checked_sub(cost) else {
            return false;
        };
        entry.credit = rest;
        if entry.open >= most {
            return false;
        }
        entry.open += 1;
        true
    }

    /// Forgets addresses that have no connection and all their credit; at most once a second.
    fn sweep(&mut self, now: Instant, full: Duration) {
        let second = Duration::from_secs(1);
        if self
            .swept
            .is_some_and(|at| now.saturating_duration_since(at) < second)
        {
            return;
        }
        self.swept = Some(now);
        self.entries.retain(|_, entry| {
            let gained = now.saturating_duration_since(entry.refilled);
            entry.open > 0 || entry.credit.saturating_add(gained) < full
        });
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections_per_address: 3,
            opens_per_second: 10,
            opens_at_once: 5,
            ..Limits::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_connections_and_others_have_theirs() {
        let gate = Gate::new(limits());
        let now = crate::now();
        let mut held: Vec<_> = (0..3).map(|_| gate.enter(now, ip("192.0.2.1"))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(gate.enter(now, ip("192.0.2.1")).is_none());
        assert!(gate.enter(now, ip("::ffff:192.0.2.1")).is_none());
        assert!(gate.enter(now, ip("192.0.2.2")).is_some());
        held.pop();
        let later = now + Duration::from_secs(1);
        assert!(gate.enter(later, ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_address_opens_so_many_per_second() {
        let gate = Gate::new(limits());
        let now = crate::now();
        let opened = |at| {
            (0..20)
                .filter(|_| gate.enter(at, ip("2001:db8::1")).is_some())
                .count()
        };
        assert_eq!(opened(now), 5);
        assert_eq!(opened(now + Duration::from_millis(200)), 2);
        assert!(
            gate.enter(now, ip("2001:db8::2")).is_none(),
            "the same network"
        );
        assert!(gate.enter(now, ip("2001:db8:0:1::2")).is_some());
    }

    #[test]
    fn addresses_are_bounded_and_idle_ones_make_room() {
        let gate = Gate::with_most(limits(), 2);
        let now = crate::now();
        let kept = gate.enter(now, ip("192.0.2.1"));
        drop(gate.enter(now, ip("192.0.2.2")));
        assert!(gate.enter(now, ip("192.0.2.3")).is_none());
        let later = now + Duration::from_secs(2);
        assert!(gate.enter(later, ip("192.0.2.3")).is_some());
        let latest = later + Duration::from_secs(2);
        assert!(gate.enter(latest, ip("192.0.2.4")).is_some());
        assert!(kept.is_some() && gate.table().entries.contains_key(&ip("192.0.2.1")));
    }
}
