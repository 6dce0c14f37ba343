//! What the machines tell their caller: results and events.

use core::fmt;
use core::num::NonZeroU8;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::error::StoreError;

/// What an announcement did to a [`Pool`](crate::Pool).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Added {
    /// The message is new.
    New,
    /// The same was announced before.
    Known,
    /// Shares were moved, added or activated.
    Updated,
    /// The message has ended already; nothing is kept of it.
    Finished,
}

/// What became of a share given to a [`Pool`](crate::Pool).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// It is kept.
    New,
    /// It was here before.
    Duplicate,
    /// It waits for an announcement that places it here.
    Early,
    /// The message has ended already; the share was dropped.
    Finished,
    /// It is kept, but not on disk yet: an event [`Stored`](PoolEvent::Stored) or
    /// [`StoreFailed`](PoolEvent::StoreFailed) will say how that went. Do not confirm it before.
    /// Only a [restored](crate::Pool::restore) pool answers so.
    Pending,
}

/// What an unfreeze did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfrozen {
    /// The share was frozen and is active now.
    Now,
    /// It was active or claimed before.
    Already,
    /// It waits for an announcement that places the share here.
    Early,
    /// The message has ended already.
    Finished,
}

/// What an ack or a remove did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The message ended.
    Now,
    /// It had ended before.
    Already,
    /// It ended for this receiver; others still want it.
    ForOne,
    /// The message is not announced yet; if the one who ended it turns out to be entitled to, the
    /// announcement will find it ended.
    Early,
}

/// What a [`Pool`](crate::Pool) asks for or reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// An active share is here: [claim](crate::Pool::claim) it for its receiver and push it.
    Offer {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Whom it is for; may be this node itself. Each receiver of a group has an event of its
        /// own.
        receiver: NodeId,
    },
    /// A share that had come before its announcement was dropped when the announcement came.
    Dropped {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Who had brought it.
        from: NodeId,
        /// What [`Pool::store`](crate::Pool::store) would have answered.
        reason: StoreError,
    },
    /// A message was kept for the configured time and nobody removed it.
    Expired {
        /// The message.
        message: MessageId,
    },
    /// A share is on disk, and so is its announcement: confirm it to the sender.
    Stored {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Who brought it: the sender of the message.
        from: NodeId,
    },
    /// The store did not take a share. It is not kept: tell the sender.
    StoreFailed {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Who brought it: the sender of the message.
        from: NodeId,
        /// Why.
        reason: StoreError,
    },
}

/// What an announcement did to a [`Collector`](crate::Collector).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Announced {
    /// The message is new.
    New,
    /// The same was announced before.
    Known,
    /// Shares were moved, added or activated.
    Updated,
    /// The message was delivered before: acknowledge it again.
    AlreadyDelivered,
    /// The message was revoked or has expired.
    Ended,
}

/// What became of a share given to a [`Collector`](crate::Collector).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShareOutcome {
    /// It is good and new.
    Accepted,
    /// It is good and was here before.
    Duplicate,
    /// It waits for its announcement.
    Early,
    /// The message was delivered before.
    AlreadyDelivered,
    /// The message was revoked or has expired.
    Ended,
    /// Its octets are not those that were announced; an event
    /// [`BadShare`](CollectorEvent::BadShare) names who brought it. The share may still come.
    Mismatch {
        /// The announced holder of the share.
        holder: NodeId,
    },
}

/// What a [`Collector`](crate::Collector) asks for or reports.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectorEvent {
    /// k good shares are in. Answer with [`delivered`](crate::Collector::delivered) or
    /// [`failed`](crate::Collector::failed).
    Complete {
        /// The message.
        message: MessageId,
        /// Exactly k shares in index order.
        shares: Vec<(NonZeroU8, Bytes)>,
    },
    /// Ask `holder` to unfreeze a share.
    Unfreeze {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Who keeps it.
        holder: NodeId,
    },
    /// Ask `holder` again for a share that should have come.
    Claim {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Who keeps it.
        holder: NodeId,
    },
    /// k shares are in: `holder` need not bring this one any more. Only with
    /// [hedging](crate::Collector::set_hedging).
    Cancel {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Who was to bring it.
        holder: NodeId,
    },
    /// The sender withdrew the message.
    Revoked {
        /// The message.
        message: MessageId,
    },
    /// The message cannot be completed: its time is over, or every set of shares was tried.
    Expired {
        /// The message.
        message: MessageId,
    },
    /// A delivered message is on disk as delivered: acknowledge it to its sender. Only a
    /// [restored](crate::Collector::restore) collector says so.
    Settled {
        /// The message.
        message: MessageId,
    },
    /// A share came whose octets are not those that were announced.
    BadShare {
        /// The message.
        message: MessageId,
        /// The share.
        index: NonZeroU8,
        /// Who brought it.
        from: NodeId,
    },
}

// k shares are the message: their octets stay out of logs.
impl fmt::Debug for CollectorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ask = |f: &mut fmt::Formatter<'_>, name, message, index, key, node| {
            f.debug_struct(name)
                .field("message", message)
                .field("index", index)
                .field(key, node)
                .finish()
        };
        match self {
            CollectorEvent::Complete { message, shares } => {
                let indices: Vec<_> = shares.iter().map(|(index, _)| index.get()).collect();
                f.debug_struct("Complete")
                    .field("message", message)
                    .field("shares", &indices)
                    .finish()
            }
            CollectorEvent::Unfreeze {
                message,
                index,
                holder,
            } => ask(f, "Unfreeze", message, index, "holder", holder),
            CollectorEvent::Claim {
                message,
                index,
                holder,
            } => ask(f, "Claim", message, index, "holder", holder),
            CollectorEvent::Cancel {
                message,
                index,
                holder,
            } => ask(f, "Cancel", message, index, "holder", holder),
            CollectorEvent::BadShare {
                message,
                index,
                from,
            } => ask(f, "BadShare", message, index, "from", from),
            CollectorEvent::Revoked { message } => {
                f.debug_struct("Revoked").field("message", message).finish()
            }
            CollectorEvent::Settled { message } => {
                f.debug_struct("Settled").field("message", message).finish()
            }
            CollectorEvent::Expired { message } => {
                f.debug_struct("Expired").field("message", message).finish()
            }
        }
    }
}
