//! What a sender says about a message: which share is where, and what its digest is.

use core::num::NonZeroU8;
use std::collections::BTreeSet;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::error::{AddError, Changed};

/// The first 16 octets of a hash over a share's octets. Which hash is the caller's choice; both
/// machines only compare. The caller computes it from the octets it received and never takes it
/// from the network, except inside an [`Announcement`].
pub type Digest = [u8; 16];

/// The longest label, in octets.
pub const MAX_LABEL: usize = 512;

/// The longest details, in octets.
pub const MAX_DETAILS: usize = 32 << 10;

/// The most receivers one message may have.
pub const MAX_RECEIVERS: usize = 64;

/// What one listed share counts against the octet bounds for each receiver, beside the share
/// itself.
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
/// everything else is fixed by the first announcement. The highest [`version`](Self::version) says
/// where shares are, in whatever order the announcements come.
///
/// ```
/// use std::num::NonZeroU8;
/// use vmdt_pool::{Announcement, Placement};
/// use vmdt_wire::{MessageId, NodeId};
///
/// let node = |name: &str| name.parse::<NodeId>().unwrap();
/// let at = |i: u8, holder: &str| Placement {
///     index: NonZeroU8::new(i).unwrap(),
///     holder: node(holder),
///     digest: [i; 16],
///     active: true,
/// };
/// let id = MessageId::from_random([7; 12]);
/// let announcement = Announcement::new(id, node("alice"), node("bob"), 2)
///     .with_shares(2, vec![at(1, "carol"), at(2, "dave")])
///     .with_version(1)
///     .with_group([node("erin")]);
/// assert_eq!(announcement.check(), Ok(()));
/// assert!(announcement.is_receiver(node("erin")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The message.
    pub message: MessageId,
    /// Who sends it and alone may announce it.
    pub sender: NodeId,
    /// Who is to get it and, with the [`group`](Self::group), alone may claim it.
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
    /// Which placement this is: a higher one replaces a lower one, a lower one and another one with
    /// the same number are ignored. 0 is a sender that does not number its announcements: among
    /// those the last one to come counts, so they have to stay in order.
    pub version: u32,
    /// What the receiver needs to know beyond the shares (a signed manifest), at most
    /// [`MAX_DETAILS`] octets. Not interpreted, and fixed: another value for the same message is an
    /// error.
    pub details: Bytes,
    /// Whether the content is sealed end to end, so that k shares alone do not open it. The direct
    /// way from the sender to a receiver may then carry all of them; members still hold fewer than
    /// k, whatever stands here.
    pub sealed: bool,
    /// Further receivers: each claims and acknowledges for itself. With
    /// [`receiver`](Self::receiver) at most [`MAX_RECEIVERS`].
    pub group: Vec<NodeId>,
}

impl Default for Announcement {
    /// Without ids, shares or threshold: what `..` stands for when the other fields are given. It
    /// does not pass [`check`](Announcement::check) as it is.
    fn default() -> Self {
        Announcement {
            message: MessageId::ZERO,
            sender: NodeId::EMPTY,
            receiver: NodeId::EMPTY,
            n: 0,
            k: 0,
            shares: Vec::new(),
            label: String::new(),
            content: 0,
            version: 0,
            details: Bytes::new(),
            sealed: false,
            group: Vec::new(),
        }
    }
}

/// How an announcement stands to the one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It replaces what is known.
    Newer,
    /// It was overtaken, or is the one that is known.
    Stale,
}

impl Announcement {
    /// Message `message` with threshold `k`, without shares yet, for one receiver.
    pub fn new(message: MessageId, sender: NodeId, receiver: NodeId, k: u8) -> Self {
        Announcement {
            message,
            sender,
            receiver,
            k,
            ..Announcement::default()
        }
    }

    /// With these of its `n` shares.
    #[must_use]
    pub fn with_shares(mut self, n: u8, shares: Vec<Placement>) -> Self {
        self.n = n;
        self.shares = shares;
        self
    }

    /// With this placement version.
    #[must_use]
    pub fn with_version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// With this label and content type.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>, content: u8) -> Self {
        self.label = label.into();
        self.content = content;
        self
    }

    /// With these details.
    #[must_use]
    pub fn with_details(mut self, details: Bytes) -> Self {
        self.details = details;
        self
    }

    /// Says that the content is sealed end to end.
    #[must_use]
    pub fn with_sealed(mut self, sealed: bool) -> Self {
        self.sealed = sealed;
        self
    }

    /// With further receivers.
    #[must_use]
    pub fn with_group(mut self, group: impl IntoIterator<Item = NodeId>) -> Self {
        self.group = group.into_iter().collect();
        self
    }

    /// All receivers.
    pub fn receivers(&self) -> impl Iterator<Item = NodeId> + '_ {
        core::iter::once(self.receiver).chain(self.group.iter().copied())
    }

    /// Whether `node` is one of the receivers. Linear in their number.
    pub fn is_receiver(&self, node: NodeId) -> bool {
        self.receivers().any(|receiver| receiver == node)
    }

    /// The most shares that `node` may come to carry or keep: all of them at the sender and the
    /// receivers, fewer than k elsewhere.
    pub fn most_at(&self, node: NodeId) -> u8 {
        if self.is_owner(node) {
            self.n
        } else {
            self.k.saturating_sub(1)
        }
    }

    /// The most shares that the direct way from the sender to a receiver may carry: all of a sealed
    /// message, fewer than k of another.
    pub fn most_direct(&self) -> u8 {
        if self.sealed {
            self.n
        } else {
            self.k.saturating_sub(1)
        }
    }

    /// Checks what can be checked without knowing anything else.
    ///
    /// # Errors
    ///
    /// A reserved id, a threshold outside 2 <= k <= n, fewer than k or more than n shares, an index
    /// above n or listed twice, a receiver listed twice or too many of them, a label or details
    /// that are too long.
    pub fn check(&self) -> Result<(), AddError> {
        let (n, k) = (self.n, self.k);
        if self.message == MessageId::ZERO
            || self.sender == NodeId::EMPTY
            || self.receivers().any(|receiver| receiver == NodeId::EMPTY)
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
        if self.details.len() > MAX_DETAILS {
            return Err(AddError::DetailsTooLong {
                found: self.details.len(),
                allowed: MAX_DETAILS,
            });
        }
        let receivers = self.group.len().saturating_add(1);
        if receivers > MAX_RECEIVERS {
            return Err(AddError::TooManyReceivers {
                found: receivers,
                allowed: MAX_RECEIVERS,
            });
        }
        let mut named = BTreeSet::new();
        if let Some(receiver) = self.receivers().find(|receiver| !named.insert(*receiver)) {
            return Err(AddError::DuplicateReceiver { receiver });
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

    /// A copy with the shares in index order and the group in id order: how the machines keep and compare announcements.
    pub(crate) fn sorted(&self) -> Announcement {
        let mut copy = self.clone();
        copy.shares.sort_unstable_by_key(|share| share.index);
        copy.group.sort_unstable();
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

    /// Whether `node` is the sender or a receiver.
    pub(crate) fn is_owner(&self, node: NodeId) -> bool {
        node == self.sender || self.is_receiver(node)
    }

    /// What keeping this announcement counts against the octet bounds.
    pub(crate) fn cost(&self) -> u64 {
        let receivers = self.group.len() as u64 + 1;
        ENTRY_COST
            + PLACEMENT_COST * self.shares.len() as u64 * receivers
            + self.label.len() as u64
            + self.details.len() as u64
    }

    /// Checks that `newer`, from the same sender, changes only what it may, and says whether it
    /// replaces this one. Both are sorted.
    pub(crate) fn check_update(&self, newer: &Announcement) -> Result<Standing, AddError> {
        let message = newer.message;
        if newer.sender != self.sender {
            return Err(AddError::ForeignSender {
                message,
                from: newer.sender,
            });
        }
        if newer.details != self.details {
            return Err(AddError::DetailsDiffer { message });
        }
        let changed = if newer.receiver != self.receiver || newer.group != self.group {
            Some(Changed::Receiver)
        } else if newer.n != self.n {
            Some(Changed::Total)
        } else if newer.k != self.k {
            Some(Changed::Threshold)
        } else if newer.label != self.label {
            Some(Changed::Label)
        } else if newer.content != self.content {
            Some(Changed::Content)
        } else if newer.sealed != self.sealed {
            Some(Changed::Sealed)
        } else {
            newer.shares.iter().find_map(|new| {
                let old = self.find(new.index)?;
                (new.digest != old.digest).then_some(Changed::Digest(new.index))
            })
        };
        if let Some(what) = changed {
            return Err(AddError::Changed(what));
        }
        let overtaken = newer.version < self.version;
        if overtaken || newer.version == self.version && self.version > 0 {
            return Ok(Standing::Stale);
        }
        // Only now: an older announcement may list less.
        let left_out = self
            .shares
            .iter()
            .find(|old| newer.find(old.index).is_none());
        left_out.map_or(Ok(Standing::Newer), |old| {
            Err(AddError::Changed(Changed::Missing(old.index)))
        })
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
