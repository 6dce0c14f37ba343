//! Proofs of misbehaviour, at a receiver (`docs/protocol.md`, section 12.11): shares that were not
//! what their sender signed are held against what those who brought them sign about them, and who
//! has signed a falsehood is banned.
//!
//! | a holder signs that it brought | which is | so it is |
//! |---|---|---|
//! | another share than the sender signed | false by two signatures, for anybody | banned |
//! | the share that was signed, and brought nothing but another one | false for this node, which alone knows what came | banned |
//! | the same, and another copy came that was right or was not read | perhaps true | rated lower |
//! | nothing | | rated lower, for the bad share |
//!
//! The statement and the bad share may come in either order, and the announcement after both.

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::reputation::Evidence;
use vmdt_seal::handover::{Handover, Handovers};
use vmdt_seal::identity::PublicIdentity;
use vmdt_wire::{FlowId, MessageId, NodeId};

use super::Core;
use super::peer::share_index;
use super::seal::{Listed, short};

/// Bad shares that are remembered, of all holders and of one; beyond it the oldest are forgotten.
const MAX_BAD: usize = 256;
const MAX_BAD_OF_ONE: usize = 16;
/// How long a bad share is remembered: who brought it signs within a second, or within a minute of
/// losing its session.
const BAD_TTL: Duration = Duration::from_secs(60);
/// Statements that wait for an announcement, of all holders and of one; beyond it the oldest are
/// forgotten.
const MAX_SAID: usize = 256;
const MAX_SAID_OF_ONE: usize = 64;
/// How long they wait: as long as a share does.
const SAID_TTL: Duration = Duration::from_secs(10);
/// Convictions whose proofs are kept; beyond it the oldest are forgotten. A ban does not need them.
const MAX_CONVICTIONS: usize = 64;

/// Why this node has banned a member of its own accord, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conviction {
    /// The member.
    pub peer: NodeId,
    /// Which share it was about.
    pub index: NonZeroU8,
    /// What contradicts what. [`Evidence::BadShare`] is proof for anybody;
    /// [`Evidence::FalseDelivery`] is known to this node alone.
    pub evidence: Evidence,
    /// What the member signed ([`Handovers`]).
    pub handovers: Bytes,
    /// What the sender signed about the message. With it
    /// [`Contradiction::find`](vmdt_seal::handover::Contradiction::find) checks
    /// [`Evidence::BadShare`].
    pub details: Bytes,
}

/// A share that was not what its sender signed.
#[derive(Debug)]
pub(crate) struct BadShare {
    pub(crate) holder: NodeId,
    pub(crate) message: MessageId,
    pub(crate) index: NonZeroU8,
    /// What the sender signed.
    pub(crate) listed: Listed,
    /// The digest of what came.
    pub(crate) came: [u8; 32],
    /// The right share is, or may be, here from the same holder as well.
    pub(crate) unsure: bool,
}

/// Something of a holder's that is forgotten after a while.
#[derive(Debug)]
struct Kept<T> {
    holder: NodeId,
    until: Instant,
    what: T,
}

/// Keeps one more, within bounds.
fn keep<T>(list: &mut VecDeque<Kept<T>>, (all, of_one): (usize, usize), new: Kept<T>) {
    let own = |kept: &Kept<T>| kept.holder == new.holder;
    if list.iter().filter(|kept| own(kept)).count() >= of_one
        && let Some(oldest) = list.iter().position(own)
    {
        list.remove(oldest);
    }
    if list.len() >= all {
        list.pop_front();
    }
    list.push_back(new);
}

/// A statement about a message that is not announced yet, and the signed octets.
type Said = (Handover, Bytes);

/// Why hand-overs were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("they are malformed, or their signature is not right")]
    Signature,
    #[error("they are not of the key of who brought them")]
    OtherKey,
    #[error("they are for another receiver")]
    OtherReceiver,
    #[error("they are about shares that were not brought here")]
    Unknown,
}

/// What was brought here and is not right, and what was said about it.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    bad: VecDeque<Kept<BadShare>>,
    said: VecDeque<Kept<Said>>,
    convictions: VecDeque<Conviction>,
}

impl Proofs {
    /// Forgets what is old.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.bad.retain(|kept| kept.until > now);
        self.said.retain(|kept| kept.until > now);
    }

    /// A share is not what its sender signed.
    pub(crate) fn bad_share(&mut self, now: Instant, bad: BadShare) {
        self.expire(now);
        let same = |kept: &&mut Kept<BadShare>| {
            (kept.what.holder, kept.what.message, kept.what.index)
                == (bad.holder, bad.message, bad.index)
        };
        let until = now + BAD_TTL;
        if let Some(known) = self.bad.iter_mut().find(same) {
            // a second bad copy makes the first no better
            known.until = until;
            known.what.unsure |= bad.unsure;
            return;
        }
        let holder = bad.holder;
        let kept = Kept {
            holder,
            until,
            what: bad,
        };
        keep(&mut self.bad, (MAX_BAD, MAX_BAD_OF_ONE), kept);
    }

    /// A holder has brought a share again, and it was right, or it was not read.
    pub(crate) fn another_copy(&mut self, holder: NodeId, message: MessageId, index: NonZeroU8) {
        for kept in &mut self.bad {
            let bad = &mut kept.what;
            if (bad.holder, bad.message, bad.index) == (holder, message, index) {
                bad.unsure = true;
            }
        }
    }

    /// Takes out the bad share that a holder's statement is about.
    fn take_bad(&mut self, holder: NodeId, said: &Handover) -> Option<BadShare> {
        let at = self.bad.iter().position(|kept| {
            let bad = &kept.what;
            bad.holder == holder && bad.index == said.index && bad.listed.manifest == said.manifest
        })?;
        self.bad.remove(at).map(|kept| kept.what)
    }

    /// Keeps a statement until its message is announced.
    fn wait(&mut self, now: Instant, holder: NodeId, said: Said) {
        let until = now + SAID_TTL;
        let kept = Kept {
            holder,
            until,
            what: said,
        };
        keep(&mut self.said, (MAX_SAID, MAX_SAID_OF_ONE), kept);
    }

    /// Takes out the statements about a message that waited for it.
    fn take_said(&mut self, message: MessageId) -> Vec<(NodeId, Said)> {
        let all = std::mem::take(&mut self.said);
        let (taken, left): (VecDeque<_>, VecDeque<_>) = all
            .into_iter()
            .partition(|kept| kept.what.0.message() == message);
        self.said = left;
        let out = taken.into_iter().map(|kept| (kept.holder, kept.what));
        out.collect()
    }

    fn convicted(&mut self, conviction: Conviction) {
        self.convictions
            .retain(|known| known.peer != conviction.peer);
        if self.convictions.len() >= MAX_CONVICTIONS {
            self.convictions.pop_front();
        }
        self.convictions.push_back(conviction);
    }
}

/// Reads what a member says it has brought here.
fn read(
    local: NodeId,
    from: NodeId,
    key: Option<PublicIdentity>,
    octets: &[u8],
) -> Result<Handovers, Refused> {
    let signed = Handovers::parse(octets).map_err(|_| Refused::Signature)?;
    if signed.holder().node_id() != from || key != Some(signed.holder()) {
        return Err(Refused::OtherKey);
    }
    if signed.receiver() != local {
        return Err(Refused::OtherReceiver);
    }
    Ok(signed)
}

/// What a false statement shows, if it does.
fn contradiction(said: &Handover, bad: &BadShare) -> Option<Evidence> {
    let message = bad.message;
    let (listed, came) = (short(&bad.listed.digest), short(&bad.came));
    if said.digest != bad.listed.digest {
        return Some(Evidence::BadShare {
            message,
            announced: listed,
            delivered: short(&said.digest),
        });
    }
    (!bad.unsure).then_some(Evidence::FalseDelivery {
        message,
        signed: listed,
        delivered: came,
    })
}

impl Core {
    /// Whom this node has banned of its own accord, and what shows it: of the last 64, the oldest
    /// first. A pardon or the end of a ban leaves them.
    pub fn convictions(&self) -> impl Iterator<Item = &Conviction> {
        self.proofs.convictions.iter()
    }

    /// What is to be remembered of a share that is not what its sender signed. What senders bring
    /// themselves they don't sign for.
    pub(super) fn bad_share(
        &self,
        holder: NodeId,
        message: MessageId,
        index: NonZeroU8,
        came: [u8; 32],
    ) -> Option<BadShare> {
        let expected = self.labels.get(&message)?;
        let (listed, unsure) = self.seal.as_ref()?.blame(message, index)?;
        (expected.sender != holder).then_some(BadShare {
            holder,
            message,
            index,
            listed,
            came,
            unsure,
        })
    }

    /// A flow's share is not read.
    pub(super) fn share_unread(&mut self, from: NodeId, flow: FlowId) {
        if let Some(index) = share_index(flow) {
            self.proofs.another_copy(from, flow.message, index);
        }
    }

    /// A member says what it has brought here.
    pub(super) fn on_handovers(&mut self, now: Instant, from: NodeId, octets: &[u8]) {
        let key = self.pinned_key(from);
        let judged = read(self.config.id, from, key, octets).and_then(|signed| {
            let mut known = true;
            for said in signed.entries() {
                known &= self.judge(now, from, said, signed.octets());
            }
            known.then_some(()).ok_or(Refused::Unknown)
        });
        match judged {
            Ok(()) => self.stats.receipts += 1,
            Err(error) => {
                self.stats.bad_receipts += 1;
                tracing::debug!(%error, %from, "hand-overs were refused");
            }
        }
    }

    /// A message was announced: what was said about it before is judged now.
    pub(super) fn judge_early(&mut self, now: Instant, message: MessageId) {
        if self.proofs.said.is_empty() {
            return;
        }
        for (holder, (said, octets)) in self.proofs.take_said(message) {
            self.judge(now, holder, &said, &octets);
        }
    }

    /// Holds what a holder has signed against what came and what the sender signed. Returns whether
    /// it is about anything that is known here.
    fn judge(&mut self, now: Instant, from: NodeId, said: &Handover, octets: &Bytes) -> bool {
        self.proofs.expire(now);
        if let Some(bad) = self.proofs.take_bad(from, said) {
            match contradiction(said, &bad) {
                Some(evidence) => self.convict(now, from, said, evidence, octets, bad.listed),
                None => self.reputation.failure(now, from),
            }
            return true;
        }
        let message = said.message();
        if let Some(listed) = self.seal.as_ref().and_then(|seal| seal.listed(said)) {
            if listed.digest != said.digest {
                // nothing bad is here of it, and its own word says that it was bad
                let evidence = Evidence::BadShare {
                    message,
                    announced: short(&listed.digest),
                    delivered: short(&said.digest),
                };
                self.convict(now, from, said, evidence, octets, listed);
            }
            return true;
        }
        if self.early.has(message, said.index, from) {
            self.proofs.wait(now, from, (*said, octets.clone()));
            return true;
        }
        // it ended before its holders had signed for it, or has to wait for its turn
        self.collector.is_ended(message) || self.later.holds(message)
    }

    fn convict(
        &mut self,
        now: Instant,
        peer: NodeId,
        said: &Handover,
        evidence: Evidence,
        octets: &Bytes,
        listed: Listed,
    ) {
        if self.reputation.is_banned(now, peer) || !self.ban_now(now, peer, evidence) {
            return;
        }
        tracing::warn!(%peer, "a member has signed a falsehood and is banned");
        self.proofs.convicted(Conviction {
            peer,
            index: said.index,
            evidence,
            handovers: octets.clone(),
            details: listed.details,
        });
    }
}

#[cfg(test)]
#[path = "proofs_tests.rs"]
mod tests;
