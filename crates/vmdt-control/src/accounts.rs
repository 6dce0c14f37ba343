//! What each client has relayed, and may still relay.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vmdt_wire::NodeId;

use crate::error::Refusal;
use crate::event::RelayAccount;

/// Octets relayed per client, in windows that begin with a client's first line.
#[derive(Debug)]
pub(crate) struct Accounts {
    quota: u64,
    window: Duration,
    limit: usize,
    accounts: BTreeMap<NodeId, Account>,
    /// When accounts were last looked through for those that are over.
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    since: Instant,
    lines: u64,
    octets: u64,
}

impl Accounts {
    /// `limit`: accounts at once. A client without one is refused at the bound.
    pub(crate) fn new(quota: u64, window: Duration, limit: usize) -> Accounts {
        Accounts {
            quota,
            window,
            limit,
            accounts: BTreeMap::new(),
            swept: None,
        }
    }

    /// Books `octets`, or says that it is too much.
    pub(crate) fn charge(&mut self, now: Instant, id: NodeId, octets: u64) -> Result<(), Refusal> {
        let (quota, window) = (self.quota, self.window);
        let refusal = |wait| Refusal::RelayQuota {
            id,
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
            lines: 0,
            octets: 0,
        };
        let account = self.accounts.entry(id).or_insert(fresh);
        let age = now.saturating_duration_since(account.since);
        if age >= window {
            *account = fresh;
        }
        let octets = account.octets.saturating_add(octets);
        if octets > quota {
            let age = now.saturating_duration_since(account.since);
            return Err(refusal(window.saturating_sub(age)));
        }
        account.octets = octets;
        account.lines += 1;
        Ok(())
    }

    /// Accounts whose window is not over.
    pub(crate) fn views(&self, now: Instant) -> impl Iterator<Item = RelayAccount> {
        self.accounts
            .iter()
            .filter(move |(_, a)| now.saturating_duration_since(a.since) < self.window)
            .map(move |(&id, a)| RelayAccount {
                id,
                lines: a.lines,
                octets: a.octets,
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
        let mut accounts = Accounts::new(1_000, window, 10);
        assert_eq!(accounts.charge(start, id("a"), 600), Ok(()));
        let later = start + Duration::from_secs(40);
        let refused = accounts.charge(later, id("a"), 401).unwrap_err();
        let wait = Duration::from_secs(60);
        assert!(matches!(refused, Refusal::RelayQuota { wait: w, .. } if w == wait));
        assert_eq!(accounts.charge(later, id("a"), 400), Ok(()));
        assert_eq!(accounts.charge(later, id("b"), 1_000), Ok(()));
        let views: Vec<_> = accounts.views(later).collect();
        assert_eq!((views[0].octets, views[0].lines), (1_000, 2));
        assert_eq!(accounts.charge(start + window, id("a"), 1_000), Ok(()));
    }

    #[test]
    fn accounts_are_bounded_and_old_ones_make_room() {
        let start = base();
        let mut accounts = Accounts::new(1_000, Duration::from_secs(100), 2);
        accounts.charge(start, id("a"), 1).unwrap();
        accounts.charge(start, id("b"), 1).unwrap();
        assert!(accounts.charge(start, id("c"), 1).is_err());
        let later = start + Duration::from_secs(100);
        assert_eq!(accounts.charge(later, id("c"), 1), Ok(()));
        assert_eq!(accounts.views(later).count(), 1);
    }
}
