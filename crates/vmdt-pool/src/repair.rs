//! Remaking shares whose holder is gone.
//!
//! [`Watch`] says when a holder has been gone for longer than the grace period. [`plan`] chooses, for
//! each of its shares, a new holder, the k holders that help, and from whom the pieces of the body
//! come. The sender or a receiver then announces the new placement; with that in hand the helpers
//! and the new holder run the [`key`] exchange, after which the new holder has its own point of the
//! key and nobody has anything else: the key is never put together.
//!
//! Where the sender is away, holders do it among themselves: [`share`] remakes a whole share, point
//! and body, and says who may have it.
//!
//! A remade share has the same octets as the lost one, and so the same digest: what does not match
//! the announcement is not kept.

pub mod key;
pub mod share;

use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vmdt_wire::{MessageId, NodeId};

use crate::announcement::Announcement;
use crate::timers::{Timers, after};

/// How the body of a message stands in its shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Every share has all of the ciphertext: one source is enough.
    Replicated,
    /// Every share has its own piece of the ciphertext: any k pieces give each other one.
    Dispersed,
}

/// What is to be done about one lost share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The message.
    pub message: MessageId,
    /// The share.
    pub index: NonZeroU8,
    /// Who had it.
    pub from: NodeId,
    /// Who is to have it.
    pub to: NodeId,
    /// The k shares whose holders make the new point of the key.
    pub helpers: Vec<(NonZeroU8, NodeId)>,
    /// The shares whose ciphertext is sent to the new holder, without their points: it alone opens
    /// nothing.
    pub pieces: Vec<(NonZeroU8, NodeId)>,
}

/// Why a share cannot be remade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// Fewer than k shares are left: the message is lost unless its sender or a receiver has it.
    #[error("{left} shares of message {message} are left, {needed} are needed to remake one")]
    TooFewLeft {
        /// The message.
        message: MessageId,
        /// Shares whose holders are there.
        left: usize,
        /// The threshold, k.
        needed: u8,
    },
    /// Everyone that could take the share has, or had, as many as a member may.
    #[error(
        "none of {candidates} members may take share {index}: each may ever have at most {most}"
    )]
    NoRoom {
        /// The share.
        index: NonZeroU8,
        /// Members asked.
        candidates: usize,
        /// Shares that a member may have, k - 1.
        most: u8,
    },
}

/// Plans how the shares of the holders in `gone` are remade: at the first of `spare` that may take
/// another one, the least used first. `ever` are the shares that were placed at a member before and
/// are not there now; what it has now is in the announcement.
///
/// Shares that can be remade are planned even if others cannot; the reasons for those come with
/// them.
///
/// # Errors
///
/// [`RepairError::TooFewLeft`] when nothing can be remade at all.
pub fn plan(
    announcement: &Announcement,
    gone: &BTreeSet<NodeId>,
    spare: &[NodeId],
    ever: &BTreeMap<NodeId, BTreeSet<NonZeroU8>>,
    body: Body,
) -> Result<(Vec<Task>, Vec<RepairError>), RepairError> {
    let announcement = announcement.sorted();
    let (message, k) = (announcement.message, announcement.k);
    let is_gone = |holder: &NodeId| gone.contains(holder);
    let live: Vec<(NonZeroU8, NodeId)> = announcement
        .shares
        .iter()
        .filter(|share| !is_gone(&share.holder))
        .map(|share| (share.index, share.holder))
        .collect();
    let lost: Vec<(NonZeroU8, NodeId)> = announcement
        .shares
        .iter()
        .filter(|share| is_gone(&share.holder))
        .map(|share| (share.index, share.holder))
        .collect();
    if lost.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let Some(helpers) = helpers(&live, usize::from(k)) else {
        return Err(RepairError::TooFewLeft {
            message,
            left: live.len(),
            needed: k,
        });
    };
    let pieces = match body {
        Body::Replicated => helpers.first().copied().into_iter().collect(),
        Body::Dispersed => helpers.clone(),
    };
    let mut had = ever.clone();
    for (index, holder) in live.iter().chain(&lost) {
        had.entry(*holder).or_default().insert(*index);
    }
    let (mut tasks, mut unmet) = (Vec::new(), Vec::new());
    for (index, from) in lost {
        let best = spare
            .iter()
            .enumerate()
            .filter(|(_, member)| !is_gone(member))
            .filter_map(|(rank, member)| {
                let mut would = had.get(member).cloned().unwrap_or_default();
                would.insert(index);
                let fits = would.len() <= usize::from(announcement.most_at(*member));
                fits.then_some((would.len(), rank, *member))
            })
            .min();
        let Some((.., to)) = best else {
            unmet.push(RepairError::NoRoom {
                index,
                candidates: spare.len(),
                most: k.saturating_sub(1),
            });
            continue;
        };
        had.entry(to).or_default().insert(index);
        tasks.push(Task {
            message,
            index,
            from,
            to,
            helpers: helpers.clone(),
            pieces: pieces.clone(),
        });
    }
    Ok((tasks, unmet))
}

/// The first `k` shares, so that as many distinct holders as possible help: one share of each in
/// turn.
fn helpers(live: &[(NonZeroU8, NodeId)], k: usize) -> Option<Vec<(NonZeroU8, NodeId)>> {
    let mut by_round: BTreeSet<(usize, NonZeroU8, NodeId)> = BTreeSet::new();
    let mut seen: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (index, holder) in live {
        let round = seen.entry(*holder).or_default();
        by_round.insert((*round, *index, *holder));
        *round += 1;
    }
    let chosen: Vec<_> = by_round
        .into_iter()
        .take(k)
        .map(|(_, index, holder)| (index, holder))
        .collect();
    (chosen.len() == k).then_some(chosen)
}

/// Says when a holder has been gone for longer than the grace period.
#[derive(Debug, Clone)]
pub struct Watch {
    grace: Duration,
    timers: Timers<NodeId>,
}

impl Watch {
    /// With this grace period.
    pub fn new(grace: Duration) -> Self {
        Watch {
            grace,
            timers: Timers::new(),
        }
    }

    /// `peer` cannot be reached. Again while it is gone already: nothing changes. The caller bounds
    /// the number of peers.
    pub fn lost(&mut self, now: Instant, peer: NodeId) {
        if self.timers.at(peer).is_none() {
            self.timers.set(peer, after(now, self.grace));
        }
    }

    /// `peer` is back.
    pub fn back(&mut self, peer: NodeId) {
        self.timers.cancel(peer);
    }

    /// When the next grace period ends.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next peer whose grace period is over: [`plan`] for what it held. Each is returned once.
    #[must_use]
    pub fn poll_gone(&mut self, now: Instant) -> Option<NodeId> {
        self.timers.pop_due(now)
    }
}
