//! A lost share, remade by the holders of k others without their sender, and without anybody seeing
//! more than one share.
//!
//! Who is to have the share asks the holders of k others ([`Plan`]). Each computes what its shares
//! add to the lost one and masks it: with every other helper it has a seed in common, and what the
//! seed is drawn out to is added by both, so that the masks of all parts cancel and their sum is the
//! share. A part alone, and any sum of some of them, is random to who does not know the seeds.
//!
//! What each may see, and why:
//!
//! - **Helpers** see seeds.
//! - **The new holder** sees k masked parts: their sum, its share, and nothing else. Masks are bound
//!   to all of the plan, so that parts of helpers that were told different things do not fit. With
//!   other helpers in league it sees the sum of what the honest ones add, which is what it can
//!   compute from its share and theirs.
//! - **Which shares a member may ever have** so is fixed beforehand by [`may_take`], for each member
//!   by itself: fewer than k, however often it asks, whomever, and whatever it says. One honest
//!   helper among the k is enough.
//!
//! A helper acts on what the message's sender itself told it about where shares are, and on its own
//! view of who is away; [`Helper::begin`] checks the former. A helper that lies spoils the sum: the
//! share does not have its digest. Who it was can't be told from masked parts; the next attempt is
//! made with other helpers.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand_core::CryptoRng;
use vmdt_wire::{MessageId, NodeId};
use zeroize::{Zeroize as _, Zeroizing};

use crate::announcement::Announcement;

/// The most shares that may be combined: the greatest k with which shares are remade.
pub const MAX_HELPERS: usize = 128;
/// Octets of a seed.
pub const SEED_LEN: usize = 32;

const FORMAT: u8 = 1;
const TAKE: u8 = 1;
const HELP: u8 = 2;
const SEED: u8 = 3;
const MASK_CONTEXT: &str = "vmdt 1.1 repair mask";

/// Why a repair does not begin, or something of it is refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemakeError {
    /// The octets are none of ours.
    #[error("{found} octets are no message of a repair")]
    Malformed {
        /// How many there are.
        found: usize,
    },
    /// Not as many helpers as the threshold, one twice, or one that is the lost share itself.
    #[error("{found} shares do not make share {index}: {needed} others are needed")]
    Helpers {
        /// Shares named.
        found: usize,
        /// The share that is lost.
        index: NonZeroU8,
        /// The threshold, k.
        needed: u8,
    },
    /// The sender of the message did not say that the share is there.
    #[error("share {index} is not announced at {holder}")]
    NotAnnounced {
        /// The share.
        index: NonZeroU8,
        /// Who was said to hold it.
        holder: NodeId,
    },
    /// The member may not have the share: see [`may_take`].
    #[error("{member} may not have share {index}")]
    MayNotTake {
        /// Who asks.
        member: NodeId,
        /// The share.
        index: NonZeroU8,
    },
    /// Who sent it takes no part in this, or not this one.
    #[error("{from} has nothing to say here")]
    NotAsked {
        /// Who sent it.
        from: NodeId,
    },
    /// A part is not as long as the share.
    #[error("a part has {found} octets, {needed} are needed")]
    Length {
        /// Its length.
        found: usize,
        /// The length of a part.
        needed: usize,
    },
}

/// Whether a member may be given a lost share of a message, where its sender placed the shares like
/// this and never moved one.
///
/// Beside the shares that were placed with it, a member may have the next k - 1 less so many others,
/// counted in a circle from a point that message and member determine. So it stays below k whoever
/// asks, in whatever order. Sender and receiver take none.
#[must_use]
pub fn may_take(announcement: &Announcement, member: NodeId, index: NonZeroU8) -> bool {
    if announcement.version != 1 || announcement.is_owner(member) {
        return false;
    }
    let n = announcement.n;
    let placed: BTreeSet<NonZeroU8> = announcement.placed_at(member).collect();
    let room = usize::from(announcement.k.saturating_sub(1)).saturating_sub(placed.len());
    // FNV-1a: it only has to spread
    let hash = announcement
        .message
        .field()
        .into_iter()
        .chain(member.field())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
        });
    let first = (hash >> 32) % u64::from(n.max(1));
    (0..u64::from(n))
        .filter_map(|step| {
            let at = (first + step) % u64::from(n.max(1));
            u8::try_from(at + 1).ok().and_then(NonZeroU8::new)
        })
        .filter(|index| !placed.contains(index))
        .take(room)
        .any(|allowed| allowed == index)
}

/// Shares and who has them.
pub type Holders = Vec<(NonZeroU8, NodeId)>;

/// What k holders and a new one are to do. Sorted by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Names this attempt; no other has the same.
    pub attempt: MessageId,
    /// The message.
    pub message: MessageId,
    /// The share that is lost.
    pub index: NonZeroU8,
    /// Who is to have it.
    pub to: NodeId,
    /// The k shares that it is made of, and their holders.
    pub helpers: Holders,
}

impl Plan {
    /// The nodes that help; one may do so with several shares.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.helpers.iter().map(|(_, node)| *node).collect()
    }

    /// The indices of the shares that are combined.
    #[must_use]
    pub fn indices(&self) -> Vec<NonZeroU8> {
        self.helpers.iter().map(|(index, _)| *index).collect()
    }

    fn check(&self, n: u8, k: u8) -> Result<(), RemakeError> {
        let distinct: BTreeSet<NonZeroU8> = self.helpers.iter().map(|(index, _)| *index).collect();
        let good = distinct.len() == self.helpers.len()
            && distinct.len() == usize::from(k)
            && distinct.len() <= MAX_HELPERS
            && !distinct.contains(&self.index)
            && distinct.last().is_some_and(|last| last.get() <= n)
            && self.index.get() <= n
            // one alone would not be masked
            && self.nodes().len() > 1;
        if good {
            return Ok(());
        }
        Err(RemakeError::Helpers {
            found: self.helpers.len(),
            index: self.index,
            needed: k,
        })
    }

    /// What masks are bound to: all of it, in one order.
    fn context(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 17 * self.helpers.len());
        out.extend(self.attempt.field());
        out.extend(self.message.field());
        out.push(self.index.get());
        out.extend(self.to.field());
        let sorted: BTreeSet<_> = self.helpers.iter().copied().collect();
        for (index, node) in sorted {
            out.push(index.get());
            out.extend(node.field());
        }
        out
    }
}

/// What two helpers have in common. Zeroized on drop, opaque to `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; SEED_LEN]);

impl Seed {
    /// Adds to `octets` what the seed is drawn out to for a plan.
    fn mask(&self, context: &[u8], octets: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_derive_key(MASK_CONTEXT);
        hasher.update(&self.0);
        hasher.update(context);
        let mut stream = hasher.finalize_xof();
        let mut drawn = Zeroizing::new([0; 1024]);
        for chunk in octets.chunks_mut(drawn.len()) {
            stream.fill(drawn.as_mut());
            add(chunk, drawn.as_ref());
        }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Adds in GF(2^8), octet by octet.
pub fn add(sum: &mut [u8], octets: &[u8]) {
    for (sum, octet) in sum.iter_mut().zip(octets) {
        *sum ^= octet;
    }
}

/// What nodes say to each other about a repair, one control line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// A holder to who may have a lost share: take it. These holders are there.
    Take {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// k others or more, at most [`MAX_HELPERS`].
        holders: Holders,
    },
    /// Who is to have the share to each helper. [`Plan::to`] is who says it.
    Help(Plan),
    /// A helper to another one with a greater id.
    Seed {
        /// [`Plan::attempt`].
        attempt: MessageId,
        /// The seed.
        seed: Seed,
    },
}

impl Remark {
    /// The octets. Lists beyond [`MAX_HELPERS`] are cut.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        let list = |out: &mut Vec<u8>, holders: &Holders| {
            let count = holders.len().min(MAX_HELPERS);
            out.push(u8::try_from(count).unwrap_or(u8::MAX));
            for (index, node) in holders.iter().take(count) {
                out.push(index.get());
                out.extend(node.field());
            }
        };
        match self {
            Remark::Take {
                message,
                index,
                holders,
            } => {
                out.push(TAKE);
                out.extend(message.field());
                out.push(index.get());
                list(&mut out, holders);
            }
            Remark::Help(plan) => {
                out.push(HELP);
                out.extend(plan.attempt.field());
                out.extend(plan.message.field());
                out.push(plan.index.get());
                list(&mut out, &plan.helpers);
            }
            Remark::Seed { attempt, seed } => {
                out.push(SEED);
                out.extend(attempt.field());
                out.extend(seed.0);
            }
        }
        out
    }

    /// Reads what `from` said.
    ///
    /// # Errors
    ///
    /// [`RemakeError::Malformed`].
    pub fn parse(from: NodeId, octets: &[u8]) -> Result<Remark, RemakeError> {
        let found = octets.len();
        Remark::read(from, octets).ok_or(RemakeError::Malformed { found })
    }

    fn read(from: NodeId, octets: &[u8]) -> Option<Remark> {
        let (&[format, kind], mut rest) = octets.split_first_chunk()?;
        (format == FORMAT).then_some(())?;
        let rest = &mut rest;
        let remark = match kind {
            TAKE => Remark::Take {
                message: message(rest)?,
                index: index(rest)?,
                holders: holders(rest)?,
            },
            HELP => Remark::Help(Plan {
                attempt: message(rest)?,
                message: message(rest)?,
                index: index(rest)?,
                to: from,
                helpers: holders(rest)?,
            }),
            SEED => Remark::Seed {
                attempt: message(rest)?,
                seed: Seed(take(rest)?),
            },
            _ => return None,
        };
        rest.is_empty().then_some(remark)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn message(rest: &mut &[u8]) -> Option<MessageId> {
    MessageId::from_field(take(rest)?).ok()
}

fn index(rest: &mut &[u8]) -> Option<NonZeroU8> {
    let [index] = take(rest)?;
    NonZeroU8::new(index)
}

/// Ascending, so that there is one way to write them.
fn holders(rest: &mut &[u8]) -> Option<Holders> {
    let [count] = take(rest)?;
    let mut all: Holders = Vec::new();
    for _ in 0..count {
        let index = index(rest)?;
        let node = NodeId::from_field(take(rest)?).ok()?;
        all.last()
            .is_none_or(|(last, _)| *last < index)
            .then_some(())?;
        all.push((index, node));
    }
    (all.len() <= MAX_HELPERS).then_some(all)
}

/// A node that helps.
#[derive(Debug)]
pub struct Helper {
    plan: Plan,
    local: NodeId,
    /// Of the other helpers.
    seeds: BTreeMap<NodeId, Seed>,
}

impl Helper {
    /// Begins to help. `announcement` is the sender's own: a node that has it from another holder
    /// must not help. Returns the seeds to send, one for each helper with a greater id.
    ///
    /// # Errors
    ///
    /// The plan is not for k other shares where the sender placed them, this node has none of them,
    /// or the new holder may not have the share.
    pub fn begin(
        plan: Plan,
        local: NodeId,
        announcement: &Announcement,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Helper, Vec<(NodeId, Seed)>), RemakeError> {
        plan.check(announcement.n, announcement.k)?;
        for (index, holder) in plan.helpers.iter().copied() {
            let placed = announcement.placement(index);
            if placed.is_none_or(|share| share.holder != holder) {
                return Err(RemakeError::NotAnnounced { index, holder });
            }
        }
        if announcement.message != plan.message || !may_take(announcement, plan.to, plan.index) {
            return Err(RemakeError::MayNotTake {
                member: plan.to,
                index: plan.index,
            });
        }
        let nodes = plan.nodes();
        if !nodes.contains(&local) {
            return Err(RemakeError::NotAsked { from: plan.to });
        }
        let mut seeds = BTreeMap::new();
        for node in nodes.into_iter().filter(|node| *node > local) {
            let mut seed = Seed([0; SEED_LEN]);
            rng.fill_bytes(&mut seed.0);
            seeds.insert(node, seed);
        }
        let send = seeds.iter().map(|(node, seed)| (*node, seed.clone()));
        let send = send.collect();
        Ok((Helper { plan, local, seeds }, send))
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The shares of this node that are to be combined.
    pub fn own(&self) -> impl Iterator<Item = NonZeroU8> + '_ {
        let own = self.plan.helpers.iter();
        own.filter(|(_, node)| *node == self.local).map(|(i, _)| *i)
    }

    /// Takes the seed of a helper with a lesser id; the first one counts.
    ///
    /// # Errors
    ///
    /// [`RemakeError::NotAsked`].
    pub fn receive(&mut self, from: NodeId, seed: Seed) -> Result<(), RemakeError> {
        if from >= self.local || !self.plan.nodes().contains(&from) {
            return Err(RemakeError::NotAsked { from });
        }
        self.seeds.entry(from).or_insert(seed);
        Ok(())
    }

    /// Whether all seeds are here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.seeds.len() + 1 == self.plan.nodes().len()
    }

    /// Masks what this node's shares add to the lost one: the part for the new holder. `None` while
    /// a seed is missing.
    #[must_use]
    pub fn masked(self, mut sum: Zeroizing<Vec<u8>>) -> Option<Bytes> {
        if !self.is_ready() {
            return None;
        }
        let context = self.plan.context();
        for seed in self.seeds.values() {
            seed.mask(&context, &mut sum);
        }
        Some(Bytes::from(core::mem::take(&mut *sum)))
    }
}

/// The node that is to have the share.
#[derive(Debug)]
pub struct NewHolder {
    missing: BTreeSet<NodeId>,
    sum: Zeroizing<Vec<u8>>,
}

impl NewHolder {
    /// Begins to wait for the helpers' parts of so many octets, for a message of n shares any k of
    /// which are enough.
    ///
    /// # Errors
    ///
    /// [`RemakeError::Helpers`].
    pub fn begin(plan: &Plan, n: u8, k: u8, len: usize) -> Result<NewHolder, RemakeError> {
        plan.check(n, k)?;
        Ok(NewHolder {
            missing: plan.nodes(),
            sum: Zeroizing::new(vec![0; len]),
        })
    }

    /// Takes a part. With the last one it returns the sum, whose digest is to be checked.
    ///
    /// # Errors
    ///
    /// It is of nobody that helps, came before, or has another length.
    pub fn receive(
        &mut self,
        from: NodeId,
        part: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, RemakeError> {
        if !self.missing.contains(&from) {
            return Err(RemakeError::NotAsked { from });
        }
        if part.len() != self.sum.len() {
            return Err(RemakeError::Length {
                found: part.len(),
                needed: self.sum.len(),
            });
        }
        self.missing.remove(&from);
        add(&mut self.sum, part);
        let done = self.missing.is_empty();
        Ok(done.then(|| core::mem::take(&mut self.sum)))
    }

    /// The nodes whose parts have not come.
    pub fn missing(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.missing.iter().copied()
    }
}
