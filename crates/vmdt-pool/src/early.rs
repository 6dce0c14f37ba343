//! What came before the announcement it belongs to.
//!
//! Everything is kept under the peer that brought it, so that a stranger can neither occupy nor
//! spoil what the sender brings; the announcement decides who counted.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::Digest;
use crate::config::EarlyConfig;
use crate::error::{Bound, QuotaError};
use crate::ledger::Ledger;
use crate::timers::{Timers, after};

/// One early share is named by who brought it and by its digest: a bad copy does not keep a good
/// one out, whichever comes first.
pub(crate) type EarlyKey = (NodeId, NonZeroU8, Digest);

/// Shares without an announcement.
#[derive(Clone)]
pub(crate) struct EarlyShares {
    ttl: Duration,
    by_message: BTreeMap<MessageId, BTreeMap<EarlyKey, Bytes>>,
    ledger: Ledger,
    timers: Timers<(MessageId, EarlyKey)>,
}

impl EarlyShares {
    pub(crate) fn new(config: &EarlyConfig) -> Self {
        EarlyShares {
            ttl: config.ttl,
            by_message: BTreeMap::new(),
            ledger: Ledger::new(
                (
                    (Bound::EarlyShares, config.max_shares),
                    (Bound::EarlySharesOfPeer, config.max_shares_per_peer),
                ),
                (
                    (Bound::EarlyOctets, config.max_octets),
                    (Bound::EarlyOctetsOfPeer, config.max_octets_per_peer),
                ),
                None,
            ),
            timers: Timers::new(),
        }
    }

    pub(crate) fn insert(
        &mut self,
        now: Instant,
        message: MessageId,
        key: EarlyKey,
        share: Bytes,
    ) -> Result<(), QuotaError> {
        let known = self.by_message.get(&message);
        if known.is_some_and(|shares| shares.contains_key(&key)) {
            return Ok(());
        }
        self.ledger.charge(key.0, 1, share.len() as u64)?;
        self.timers.set((message, key), after(now, self.ttl));
        self.by_message
            .entry(message)
            .or_default()
            .insert(key, share);
        Ok(())
    }

    /// Everything that waits for `message`, in the order of who brought it, then index.
    pub(crate) fn keys(&self, message: MessageId) -> impl Iterator<Item = EarlyKey> + '_ {
        self.by_message
            .get(&message)
            .into_iter()
            .flat_map(|shares| shares.keys().copied())
    }

    /// The shares that `from` brought for `message`.
    pub(crate) fn indices_from(
        &self,
        message: MessageId,
        from: NodeId,
    ) -> impl Iterator<Item = NonZeroU8> + '_ {
        let first = (from, NonZeroU8::MIN, [0; 16]);
        let last = (from, NonZeroU8::MAX, [u8::MAX; 16]);
        self.by_message
            .get(&message)
            .into_iter()
            .flat_map(move |shares| shares.range(first..=last))
            .map(|((_, index, _), _)| *index)
    }

    pub(crate) fn take(&mut self, message: MessageId, key: EarlyKey) -> Option<Bytes> {
        let shares = self.by_message.get_mut(&message)?;
        let share = shares.remove(&key)?;
        if shares.is_empty() {
            self.by_message.remove(&message);
        }
        self.ledger.refund(key.0, 1, share.len() as u64);
        self.timers.cancel((message, key));
        Some(share)
    }

    pub(crate) fn forget(&mut self, message: MessageId) {
        let keys: Vec<_> = self.keys(message).collect();
        for key in keys {
            self.take(message, key);
        }
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((message, key)) = self.timers.pop_due(now) {
            self.take(message, key);
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }
}

impl fmt::Debug for EarlyShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (message, shares) in &self.by_message {
            for ((from, index, _), share) in shares {
                map.entry(&(message, from, index), &share.len());
            }
        }
        map.finish()
    }
}

/// What one peer asked about one unannounced message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) acked: bool,
    pub(crate) removed: bool,
    pub(crate) unfreeze: BTreeSet<NonZeroU8>,
}

/// Requests without an announcement.
#[derive(Debug, Clone)]
pub(crate) struct EarlyRequests {
    ttl: Duration,
    by_message: BTreeMap<MessageId, BTreeMap<NodeId, Requests>>,
    ledger: Ledger,
    timers: Timers<(MessageId, NodeId)>,
}

impl EarlyRequests {
    pub(crate) fn new(config: &EarlyConfig) -> Self {
        EarlyRequests {
            ttl: config.ttl,
            by_message: BTreeMap::new(),
            ledger: Ledger::new(
                (
                    (Bound::EarlyRequests, config.max_requests),
                    (Bound::EarlyRequestsOfPeer, config.max_requests_per_peer),
                ),
                // Requests have no octets: this half is never charged.
                ((Bound::EarlyOctets, 0), (Bound::EarlyOctetsOfPeer, 0)),
                None,
            ),
            timers: Timers::new(),
        }
    }

    /// What `by` has asked about `message` so far, to be added to.
    pub(crate) fn of(
        &mut self,
        now: Instant,
        message: MessageId,
        by: NodeId,
    ) -> Result<&mut Requests, QuotaError> {
        let known = self.by_message.get(&message);
        if !known.is_some_and(|requests| requests.contains_key(&by)) {
            self.ledger.charge(by, 1, 0)?;
            self.timers.set((message, by), after(now, self.ttl));
        }
        Ok(self
            .by_message
            .entry(message)
            .or_default()
            .entry(by)
            .or_default())
    }

    /// What `by` has asked about `message`.
    pub(crate) fn get(&self, message: MessageId, by: NodeId) -> Option<&Requests> {
        self.by_message.get(&message)?.get(&by)
    }

    pub(crate) fn forget(&mut self, message: MessageId) {
        for by in self.by_message.remove(&message).into_iter().flatten() {
            self.ledger.refund(by.0, 1, 0);
            self.timers.cancel((message, by.0));
        }
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((message, by)) = self.timers.pop_due(now) {
            if let Some(requests) = self.by_message.get_mut(&message) {
                requests.remove(&by);
                if requests.is_empty() {
                    self.by_message.remove(&message);
                }
                self.ledger.refund(by, 1, 0);
            }
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }
}
