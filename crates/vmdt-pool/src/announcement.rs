//! What a sender says about a message: which share is where, and what its digest is.

use core::num::NonZeroU8;
use std::collections::BTreeSet;

use vmdt_wire::{MessageId, NodeId};

use crate::error::{AddError, Changed};

/// The first 16 octets of a hash over a share's octets. Which hash is the caller's choice; both
/// machines only compare. The caller computes it from the octets it received and never takes it
/// from the network, except inside an [`Announcement`].
pub type Digest = [u8; 16];

/// The longest label, in octets.
pub const MAX_LABEL: usize = 512;

/// What one listed share counts against the octet bounds, beside the share itself.
const PLACEMENT_COST: u64 = 160;

/// What one entry counts against the octet bounds, beside its shares.
const ENTRY_COST: u64 = 256;

/// Where one share is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Placement {
    /// The share's own index, 1 to n.
    pub index: NonZeroU8,
    /// The node that keeps it for the receiver.
    pub holder: NodeId,
    /// The digest of the share's octets.
    pub digest: Digest,
    /// Whether the holder pushes it to the receiver at once; otherwise it is frozen until somebody
    /// unfreezes it.
    pub active: bool,
}

/// The announcement of one message: `n` shares of which any `k` are enough.
///
/// At least `k` and at most `n` shares are listed, in any order. A sender may announce a message
/// again to move shares to other holders, to list more of its shares, or to activate frozen ones;
/// everything else is fixed by the first announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The message.
    pub message: MessageId,
    /// Who sends it and alone may announce it.
    pub sender: NodeId,
    /// Who is to get it and alone may claim it.
    pub receiver: NodeId,
    /// The number of shares, 2 to 255.
    pub n: u8,
    /// The threshold, 2 to n.
    pub k: u8,
    /// The shares.
    pub shares: Vec<Placement>,
    /// What the message belongs to (a transfer id), at most [`MAX_LABEL`] octets. Not interpreted.
    pub label: String,
    /// The content type. Not interpreted.
    pub content: u8,
}

impl Announcement {
    /// Checks what can be checked without knowing anything else.
    ///
    /// # Errors
    ///
    /// A reserved id, a threshold outside 2 <= k <= n, fewer than k or more than n shares, an index
    /// above n or listed twice, a label that is too long.
    pub fn check(&self) -> Result<(), AddError> {
        let (n, k) = (self.n, self.k);
        if self.message == MessageId::ZERO
            || self.sender == NodeId::EMPTY
            || self.receiver == NodeId::EMPTY
            || self
                .shares
                .iter()
                .any(|share| share.holder == NodeId::EMPTY)
        {
            return Err(AddError::ReservedId);
        }
        if k < 2 || k > n {
            return Err(AddError::Threshold { k, n });
        }
        let found = self.shares.len();
        if found < usize::from(k) || found > usize::from(n) {
            return Err(AddError::ShareCount {
                found,
                min: k,
                max: n,
            });
        }
        if self.label.len() > MAX_LABEL {
            return Err(AddError::LabelTooLong {
                found: self.label.len(),
                allowed: MAX_LABEL,
            });
        }
        let mut seen = BTreeSet::new();
        for &Placement { index, .. } in &self.shares {
            if index.get() > n {
                return Err(AddError::IndexOutOfRange { index, n });
            }
            if !seen.insert(index) {
                return Err(AddError::DuplicateIndex { index });
            }
        }
        Ok(())
    }

    /// Where share `index` is, if it is listed. Linear in the number of shares.
    pub fn placement(&self, index: NonZeroU8) -> Option<&Placement> {
        self.shares.iter().find(|share| share.index == index)
    }

    /// The indices that are placed at `holder`.
    pub fn placed_at(&self, holder: NodeId) -> impl Iterator<Item = NonZeroU8> + '_ {
        self.shares
            .iter()
            .filter(move |share| share.holder == holder)
            .map(|share| share.index)
    }

    /// A copy with the shares in index order: how the machines keep and compare announcements.
    pub(crate) fn sorted(&self) -> Announcement {
        let mut copy = self.clone();
        copy.shares.sort_unstable_by_key(|share| share.index);
        copy
    }

    /// Looks up a share in an announcement that is [sorted](Self::sorted).
    pub(crate) fn find(&self, index: NonZeroU8) -> Option<&Placement> {
        let at = self
            .shares
            .binary_search_by_key(&index, |share| share.index)
            .ok()?;
        self.shares.get(at)
    }

    /// As [`find`](Self::find), to change it.
    pub(crate) fn find_mut(&mut self, index: NonZeroU8) -> Option<&mut Placement> {
        let at = self
            .shares
            .binary_search_by_key(&index, |share| share.index)
            .ok()?;
        self.shares.get_mut(at)
    }

    /// Whether `node` is the sender or the receiver.
    pub(crate) fn is_owner(&self, node: NodeId) -> bool {
        node == self.sender || node == self.receiver
    }

    /// What keeping this announcement counts against the octet bounds.
    pub(crate) fn cost(&self) -> u64 {
        ENTRY_COST + PLACEMENT_COST * self.shares.len() as u64 + self.label.len() as u64
    }

    /// Checks that `newer`, from the same sender, changes only what it may. Both are sorted.
    pub(crate) fn check_update(&self, newer: &Announcement) -> Result<(), AddError> {
        if newer.sender != self.sender {
            return Err(AddError::ForeignSender {
                message: newer.message,
                from: newer.sender,
            });
        }
        let changed = if newer.receiver != self.receiver {
            Some(Changed::Receiver)
        } else if newer.n != self.n {
            Some(Changed::Total)
        } else if newer.k != self.k {
            Some(Changed::Threshold)
        } else if newer.label != self.label {
            Some(Changed::Label)
        } else if newer.content != self.content {
            Some(Changed::Content)
        } else {
            self.shares
                .iter()
                .find_map(|old| match newer.find(old.index) {
                    None => Some(Changed::Missing(old.index)),
                    Some(new) if new.digest != old.digest => Some(Changed::Digest(old.index)),
                    Some(_) => None,
                })
        };
        changed.map_or(Ok(()), |what| Err(AddError::Changed(what)))
    }

    /// Keeps active what was active at the same holder: an unfreeze is never taken back. A holder
    /// that a share moves to knows only what the newer announcement says.
    pub(crate) fn keep_active(&mut self, older: &Announcement) {
        for share in &mut self.shares {
            share.active |= older
                .find(share.index)
                .is_some_and(|old| old.active && old.holder == share.holder);
        }
    }
}
