//! What can be refused, one type per operation, with the numbers and names that explain it.

use core::fmt;
use core::num::NonZeroU8;

use vmdt_wire::{MessageId, NodeId};

use crate::storage::StorageError;

/// A bound of a [`Pool`](crate::Pool) or a [`Collector`](crate::Collector).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound {
    /// Messages in all.
    Entries,
    /// Octets in all.
    Octets,
    /// Messages of one sender.
    EntriesOfSender,
    /// Octets of one sender.
    OctetsOfSender,
    /// Shares that came before their announcement, in all.
    EarlyShares,
    /// Octets that came before their announcement, in all.
    EarlyOctets,
    /// Shares that came before their announcement, from one peer.
    EarlySharesOfPeer,
    /// Octets that came before their announcement, from one peer.
    EarlyOctetsOfPeer,
    /// Requests (unfreeze, ack, remove) that came before their announcement, in all.
    EarlyRequests,
    /// Requests that came before their announcement, from one peer.
    EarlyRequestsOfPeer,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Entries => "messages",
            Bound::Octets => "octets",
            Bound::EntriesOfSender => "messages of this sender",
            Bound::OctetsOfSender => "octets of this sender",
            Bound::EarlyShares => "unannounced shares",
            Bound::EarlyOctets => "unannounced octets",
            Bound::EarlySharesOfPeer => "unannounced shares of this peer",
            Bound::EarlyOctetsOfPeer => "unannounced octets of this peer",
            Bound::EarlyRequests => "requests about unannounced messages",
            Bound::EarlyRequestsOfPeer => "requests about unannounced messages by this peer",
        })
    }
}

/// A bound would be passed. Nothing was evicted and nothing was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room: {bound} would be {would_be}, at most {allowed} are allowed")]
pub struct QuotaError {
    /// Which bound.
    pub bound: Bound,
    /// What the count would have become.
    pub would_be: u64,
    /// The most it may be.
    pub allowed: u64,
}

/// What a re-announcement may not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changed {
    /// The receiver, or the group.
    Receiver,
    /// The number of shares, n.
    Total,
    /// The threshold, k.
    Threshold,
    /// The digest of one share.
    Digest(NonZeroU8),
    /// A share that was announced before is left out.
    Missing(NonZeroU8),
    /// The label.
    Label,
    /// The content type.
    Content,
    /// Whether the content is sealed end to end.
    Sealed,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Changed::Receiver => f.write_str("the receiver"),
            Changed::Total => f.write_str("the number of shares"),
            Changed::Threshold => f.write_str("the threshold"),
            Changed::Digest(index) => write!(f, "the digest of share {index}"),
            Changed::Missing(index) => write!(f, "the list of shares: {index} is left out"),
            Changed::Label => f.write_str("the label"),
            Changed::Content => f.write_str("the content type"),
            Changed::Sealed => f.write_str("whether the content is sealed"),
        }
    }
}

/// Why an announcement was refused. Nothing was changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// Only the sender announces a message.
    #[error("{from} announces a message of {sender}: only the sender may")]
    NotSender {
        /// Who announced it.
        from: NodeId,
        /// Whom the announcement names as the sender.
        sender: NodeId,
    },
    /// The message id belongs to another sender.
    #[error("message {message} is known here from another sender than {from}")]
    ForeignSender {
        /// The message.
        message: MessageId,
        /// Who announced it now.
        from: NodeId,
    },
    /// A collector takes only what is for its own node.
    #[error("the announcement is for {receiver}, this is {local}")]
    NotReceiver {
        /// Whom the announcement names as the receiver.
        receiver: NodeId,
        /// This node.
        local: NodeId,
    },
    /// The all-zero message id (the control flow's) or an empty node id.
    #[error(
        "a message needs a message id other than zero, and a named sender, receiver and holders"
    )]
    ReservedId,
    /// Not 2 <= k <= n.
    #[error("threshold {k} of {n}: 2 <= k <= n is required")]
    Threshold {
        /// The threshold.
        k: u8,
        /// The number of shares.
        n: u8,
    },
    /// Fewer shares than k or more than n are listed.
    #[error("{found} shares are listed, at least {min} (k) and at most {max} (n) are allowed")]
    ShareCount {
        /// Shares listed.
        found: usize,
        /// The threshold.
        min: u8,
        /// The number of shares.
        max: u8,
    },
    /// A share index above n.
    #[error("share {index} is listed, the highest index is {n}")]
    IndexOutOfRange {
        /// The index.
        index: NonZeroU8,
        /// The number of shares.
        n: u8,
    },
    /// One index stands there twice.
    #[error("share {index} is listed twice")]
    DuplicateIndex {
        /// The index.
        index: NonZeroU8,
    },
    /// The label is too long.
    #[error("the label has {found} octets, at most {allowed} are allowed")]
    LabelTooLong {
        /// Its length in octets.
        found: usize,
        /// The most it may have.
        allowed: usize,
    },
    /// The details are too long.
    #[error("the details have {found} octets, at most {allowed} are allowed")]
    DetailsTooLong {
        /// Their length in octets.
        found: usize,
        /// The most they may have.
        allowed: usize,
    },
    /// The details are not those of the first announcement.
    #[error("the details of message {message} differ from those announced first: they are fixed")]
    DetailsDiffer {
        /// The message.
        message: MessageId,
    },
    /// More receivers than one message may have.
    #[error("{found} receivers are named, at most {allowed} are allowed")]
    TooManyReceivers {
        /// Receivers named.
        found: usize,
        /// The most there may be.
        allowed: usize,
    },
    /// One receiver stands there twice.
    #[error("receiver {receiver} is named twice")]
    DuplicateReceiver {
        /// The receiver.
        receiver: NodeId,
    },
    /// A re-announcement changes what is fixed.
    #[error("a re-announcement may move shares, but it changes {0}")]
    Changed(Changed),
    /// None of the shares is placed at this node.
    #[error("no share of the message is placed at {local}")]
    NotAHolder {
        /// This node.
        local: NodeId,
    },
    /// The privacy rule: one member would come to hold enough to read the message.
    #[error("this node would have held {would_hold} shares of the message; {threshold} are enough to read it, so at most {} are allowed", threshold.saturating_sub(1))]
    Privacy {
        /// Distinct shares over the entry's lifetime, with this announcement.
        would_hold: usize,
        /// The threshold, k.
        threshold: u8,
    },
    /// A bound is reached.
    #[error(transparent)]
    Quota(#[from] QuotaError),
}

/// Why a holder refused a share. Nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Only the sender stores shares.
    #[error("{from} is not the sender of the message")]
    NotSender {
        /// Who brought the share.
        from: NodeId,
    },
    /// The octets are not those that were announced.
    #[error("share {index} does not match its announced digest")]
    Mismatch {
        /// The share.
        index: NonZeroU8,
    },
    /// The privacy rule, as in [`AddError::Privacy`].
    #[error(
        "this node would have held {would_hold} shares of the message; {threshold} are enough to read it"
    )]
    Privacy {
        /// Distinct shares over the entry's lifetime, with this one.
        would_hold: usize,
        /// The threshold, k.
        threshold: u8,
    },
    /// A bound is reached.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The store behind the pool does not take it; see [`StorageError::NoSpace`] for a full disk.
    #[error("the share cannot be kept: {0}")]
    Storage(#[from] StorageError),
}

/// Why a claim was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The message was never announced here.
    #[error("message {message} is not known here")]
    UnknownMessage {
        /// The message.
        message: MessageId,
    },
    /// The message was acknowledged, removed or has expired.
    #[error("message {message} has ended")]
    Finished {
        /// The message.
        message: MessageId,
    },
    /// Only the receiver may claim.
    #[error("{claimer} is not a receiver of the message")]
    NotReceiver {
        /// Who claimed.
        claimer: NodeId,
    },
    /// The share is placed elsewhere.
    #[error("share {index} is not placed here")]
    NotPlacedHere {
        /// The share.
        index: NonZeroU8,
    },
    /// The share was announced but has not come yet.
    #[error("share {index} has not arrived yet")]
    Missing {
        /// The share.
        index: NonZeroU8,
    },
    /// The share is frozen: unfreeze it first.
    #[error("share {index} is frozen")]
    Frozen {
        /// The share.
        index: NonZeroU8,
    },
}

/// Why an unfreeze was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnfreezeError {
    /// Only the sender and the receiver may unfreeze.
    #[error("{by} is neither the sender nor a receiver of the message")]
    NotOwner {
        /// Who asked.
        by: NodeId,
    },
    /// A bound is reached (only for a message that is not announced yet).
    #[error(transparent)]
    Quota(#[from] QuotaError),
}

/// Why an ack or a remove was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndError {
    /// Only the receiver acknowledges.
    #[error("{by} is not a receiver of the message")]
    NotReceiver {
        /// Who acknowledged.
        by: NodeId,
    },
    /// Only an owner removes: the sender or the receiver.
    #[error("{by} is neither the sender nor a receiver of the message")]
    NotOwner {
        /// Who removed.
        by: NodeId,
    },
    /// A bound is reached (only for a message that is not announced yet).
    #[error(transparent)]
    Quota(#[from] QuotaError),
}

/// Why a collector refused a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The announcement lists no such share.
    #[error("share {index} of the message was not announced")]
    UnknownIndex {
        /// The share.
        index: NonZeroU8,
    },
    /// A bound is reached.
    #[error(transparent)]
    Quota(#[from] QuotaError),
}
