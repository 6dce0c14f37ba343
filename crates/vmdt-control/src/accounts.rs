//! What each client has relayed, and may still relay.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vmdt_wire::NodeId;

use crate::error::Refusal;
use crate::event::{RelayAccount, Relayed};

/// What is relayed: each kind has a quota of its own, so that neither uses up the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A share of a message, for a pair whose direct link may not carry it.
    Share,
    /// What two members have between themselves: the datagrams of their session, where they
    /// cannot reach each other.
    Datagram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Share => "shares",
            Kind::Datagram => "datagrams",
        }
    }
}

/// Octets relayed per client, in windows that begin with a client's first line.
#[derive(Debug)]
pub(crate) struct Accounts {
    shares: u64,
    datagrams: u64,
    window: Duration,
    limit: usize,
    accounts: BTreeMap<NodeId, Account>,
    /// When accounts were last looked through for those that are over.
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    since: Instant,
    shares: Relayed,
    datagrams: Relayed,
}

impl Accounts {
    /// `limit`: accounts at once. A client without one is refused at the bound.
    pub(crate) fn new(shares: u64, datagrams: u64, window: Duration, limit: usize) -> Accounts {
        Accounts {
            shares,
            datagrams,
            window,
            limit,
            accounts: BTreeMap::new(),
            swept: None,
        }
    }

    /// Books `octets`, or says that it is too much.
    pub(crate) fn charge(
        &mut self,
        now: Instant,
        id: NodeId,
        kind: Kind,
        octets: u64,
    ) -> Result<(), Refusal> {
        let window = self.window;
        let quota = match kind {
            Kind::Share => self.shares,
            Kind::Datagram => self.datagrams,
        };
        let refusal = |wait| Refusal::RelayQuota {
            id,
            what: kind.word(),
            limit: quota,
            wait,
        };
        if !self.accounts.contains_key(&id) && self.accounts.len() >= self.limit {
            self.sweep(now);
            if self.accounts.len() >= self.limit {
                return Err(refusal(window));
            }
        }
        let fresh = Account {
            since: now,
            shares: Relayed::default(),
            datagrams: Relayed::default(),
        };
        let account = self.accounts.entry(id).or_insert(fresh);
        let age = now.saturating_duration_since(account.since);
        if age >= window {
            *account = fresh;
        }
        let relayed = match kind {
            Kind::Share => &mut account.shares,
            Kind::Datagram => &mut account.datagrams,
        };
        let octets = relayed.octets.saturating_add(octets);
        if octets > quota {
            let age = now.saturating_duration_since(account.since);
            return Err(refusal(window.saturating_sub(age)));
        }
        relayed.octets = octets;
        relayed.lines += 1;
        Ok(())
    }

    /// Accounts whose window is not over.
    pub(crate) fn views(&self, now: Instant) -> impl Iterator<Item = RelayAccount> {
        self.accounts
            .iter()
            .filter(move |(_, a)| now.saturating_duration_since(a.since) < self.window)
            .map(move |(&id, a)| RelayAccount {
                id,
                shares: a.shares,
                datagrams: a.datagrams,
                window_left: self
                    .window
                    .saturating_sub(now.saturating_duration_since(a.since)),
            })
    }

    /// Forgets accounts whose window is over, at most once a second.
    fn sweep(&mut self, now: Instant) {
        let second = Duration::from_secs(1);
        if self
            .swept
            .is_some_and(|at| now.saturating_duration_since(at) < second)
        {
            return;
        }
        self.swept = Some(now);
        let window = self.window;
        self.accounts
            .retain(|_, a| now.saturating_duration_since(a.since) < window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::base;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn a_quota_holds_for_its_window_and_for_its_client() {
        let start = base();
        let window = Duration::from_secs(100);
        let mut accounts = Accounts::new(1_000, 500, window, 10);
        assert_eq!(accounts.charge(start, id("a"), Kind::Share, 600), Ok(()));
        let later = start + Duration::from_secs(40);
        let refused = accounts
            .charge(later, id("a"), Kind::Share, 401)
            .unwrap_err();
        let wait = Duration::from_secs(60);
        assert!(matches!(refused, Refusal::RelayQuota { wait: w, .. } if w == wait));
        assert_eq!(accounts.charge(later, id("a"), Kind::Share, 400), Ok(()));
        assert_eq!(accounts.charge(later, id("b"), Kind::Share, 1_000), Ok(()));
        let views: Vec<_> = accounts.views(later).collect();
        let shares = views[0].shares;
        assert_eq!((shares.octets, shares.lines), (1_000, 2));
        assert_eq!(
            accounts.charge(start + window, id("a"), Kind::Share, 1_000),
            Ok(())
        );
    }

    #[test]
    fn shares_and_datagrams_have_quotas_of_their_own() {
        let now = base();
        let mut accounts = Accounts::new(1_000, 500, Duration::from_secs(100), 10);
        accounts.charge(now, id("a"), Kind::Share, 1_000).unwrap();
        accounts.charge(now, id("a"), Kind::Datagram, 300).unwrap();
        accounts.charge(now, id("a"), Kind::Datagram, 200).unwrap();
        for (kind, word) in [(Kind::Share, "shares"), (Kind::Datagram, "datagrams")] {
            let refused = accounts.charge(now, id("a"), kind, 1).unwrap_err();
            assert!(matches!(refused, Refusal::RelayQuota { what, .. } if what == word));
        }
        let view = accounts.views(now).next().unwrap();
        assert_eq!((view.shares.lines, view.shares.octets), (1, 1_000));
        assert_eq!((view.datagrams.lines, view.datagrams.octets), (2, 500));
    }

    #[test]
    fn accounts_are_bounded_and_old_ones_make_room() {
        let start = base();
        let mut accounts = Accounts::new(1_000, 500, Duration::from_secs(100), 2);
        accounts.charge(start, id("a"), Kind::Share, 1).unwrap();
        accounts.charge(start, id("b"), Kind::Share, 1).unwrap();
        assert!(accounts.charge(start, id("c"), Kind::Share, 1).is_err());
        let later = start + Duration::from_secs(100);
        assert_eq!(accounts.charge(later, id("c"), Kind::Share, 1), Ok(()));
        assert_eq!(accounts.views(later).count(), 1);
    }
}
