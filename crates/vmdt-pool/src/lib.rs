//! The share pool of VMDT: who keeps which share of a message, who may have it, and how a receiver
//! comes by enough of them.
//!
//! A message is split into `n` shares of which any `k` are enough. Its sender announces to every
//! holder and to the receiver where each share is and what its digest is, and gives share `i` to
//! its holder. Active shares are pushed to the receiver at once; frozen ones wait until somebody
//! unfreezes them. Three machines follow from that:
//!
//! - [`Pool`], the holder's: keeps shares as ACTIVE, FROZEN or CLAIMED, lets only the sender
//!   announce and store, only the receiver claim (a lease) and acknowledge, only the two of them
//!   unfreeze and remove, and refuses to come to hold `k` shares of a message of others.
//! - [`Collector`], the receiver's: checks what comes against the announced digests, asks for frozen
//!   shares when active ones are later than experience or their paths' estimates say, and hands over
//!   `k` good shares once.
//! - [`Outbox`], the sender's: asks for announcements and shares to be sent until every holder has
//!   confirmed its share and every receiver has the message.
//!
//! Beside them are the decisions that are not about one message's state: [`policy`] and [`placement`] (who
//! holds what, and who could learn something), [`reputation`] (who has been reliable), [`paths`]
//! (which share goes where, how much redundancy), [`hedging`] (what asking early may cost) and
//! [`repair`] (remaking the shares of a holder that is gone, without putting the key together).
//!
//! Shares are opaque octets; digests are compared, never computed. The machines do no input or
//! output, read no clock and draw no randomness: time is an argument, and the same calls always
//! lead to the same events.
//!
//! ```
//! use std::num::NonZeroU8;
//! use std::time::Instant;
//! use bytes::Bytes;
//! use vmdt_pool::{
//!     Added, Announcement, Collector, CollectorConfig, CollectorEvent, Ended, Placement, Pool,
//!     PoolConfig, PoolEvent,
//! };
//! use vmdt_wire::{MessageId, NodeId};
//!
//! let node = |name: &str| name.parse::<NodeId>().unwrap();
//! // Stands for the first 16 octets of a hash.
//! let digest = |share: &Bytes| [share.first().copied().unwrap_or(0); 16];
//! let now = Instant::now();
//!
//! // alice has split a message for bob into three shares, any two of which are enough.
//! let shares = [Bytes::from("1st"), Bytes::from("2nd"), Bytes::from("3rd")];
//! let announcement = Announcement {
//!     n: 3,
//!     shares: (1..=3)
//!         .map(|i| Placement {
//!             index: NonZeroU8::new(i).unwrap(),
//!             holder: node(["carol", "dave", "erin"][usize::from(i) - 1]),
//!             digest: digest(&shares[usize::from(i) - 1]),
//!             active: i <= 2,
//!         })
//!         .collect(),
//!     ..Announcement::new(MessageId::from_random([7; 12]), node("alice"), node("bob"), 2)
//! };
//! let message = announcement.message;
//! let mut bob = Collector::new(CollectorConfig::new(node("bob")));
//! bob.announce(now, &announcement)?;
//!
//! // Each holder gets its share, is told to push it, and claims it for bob.
//! for (holder, share) in [("carol", &shares[0]), ("dave", &shares[1])] {
//!     let mut pool = Pool::new(PoolConfig::new(node(holder)));
//!     assert_eq!(pool.add(now, node("alice"), &announcement)?, Added::New);
//!     let index = announcement.placed_at(node(holder)).next().unwrap();
//!     pool.store(now, node("alice"), message, index, share.clone(), digest(share))?;
//!     assert!(matches!(pool.poll_event(), Some(PoolEvent::Offer { .. })));
//!     let pushed = pool.claim(now, message, node("bob"), index)?;
//!     let computed = digest(&pushed);
//!     bob.share(now, node(holder), message, index, pushed, computed)?;
//!     // bob acknowledges to alice, and alice removes the message at its holders.
//!     assert_eq!(pool.remove(now, message, node("alice"))?, Ended::Now);
//! }
//! let Some(CollectorEvent::Complete { shares, .. }) = bob.poll_event() else { panic!() };
//! assert_eq!(shares.len(), 2);
//! assert!(bob.delivered(now, message));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Order does not matter
//!
//! Announcements, shares and requests travel on different flows, so each may overtake the others. A
//! share that comes before its announcement waits; an unfreeze, an ack or a remove that comes first
//! is remembered. All is kept under the peer that brought it and takes effect only if the
//! announcement says that this peer was entitled to it. Repeating any request changes nothing.
//!
//! Announcements of one message are numbered ([`Announcement::version`]): the highest number says
//! where shares are, whichever copy came last. A sender that leaves the number 0 has to keep them in
//! order.
//!
//! # Several receivers
//!
//! A message may have up to [`MAX_RECEIVERS`] receivers ([`Announcement::group`]). Its shares are
//! placed once; each receiver is offered them, claims, unfreezes and acknowledges for itself, and
//! the holder forgets the message when all have acknowledged it, the sender removes it, or its time
//! is over.
//!
//! # On disk
//!
//! [`Pool::restore`], [`Collector::restore`] and [`Outbox::restore`] make durable machines. They call
//! no store: after every request and timeout, `poll_persist` gives a [`Persist`] batch that the
//! caller commits to a [`Store`] ([`MemoryStore`], or the one of `vmdt-store` on disk) and answers
//! with `handle_persisted` or `handle_persist_failed`. One batch of each machine is out at a time;
//! what changes meanwhile goes with the next one, so that many changes cost one sync. After a crash
//! a machine is in a state that it was in when its last batch was asked for, and:
//!
//! - a holder confirms a share ([`PoolEvent::Stored`]) only when it and its announcement are on
//!   disk. If they cannot be, it says so ([`PoolEvent::StoreFailed`]), keeps nothing of it, and
//!   refuses shares until the store is tried again;
//! - a receiver acknowledges a message only when its delivery is on disk
//!   ([`CollectorEvent::Settled`]). Between the delivery and that, a crash repeats
//!   [`CollectorEvent::Complete`]: who needs exactly once commits the content in the same store, or
//!   compares message ids;
//! - a sender sends nothing before the message is on disk, and then goes on with it after any
//!   restart until it ends.
//!
//! Leases, and what came before its announcement, are not kept. Times are kept as wall-clock time
//! ([`Anchor`]): a clock that was set back makes a message live longer, but never longer than its
//! configured time from the restart.
//!
//! # Exactly once
//!
//! An ended message leaves a tombstone, so that late copies do not begin it anew. Tombstones are
//! bounded in number and time. When one goes (by time; or, with all of them in use, the oldest of
//! a sender that has more than a quarter, else the oldest of all), the guarantee ends for that
//! message: if its sender announces it again *and* `k` of its shares come again, a [`Collector`]
//! delivers it again. Shares alone never do: without an announcement they only wait and expire. So
//! a sender must not repeat an announcement for longer than the receiver's tombstones live, and
//! `tombstone_ttl` should be longer than any holder's `ttl`. At a holder, a lost tombstone costs the
//! room that a repeated announcement takes until it expires, and the privacy rule no longer counts
//! what was held before.
//!
//! # Bounds
//!
//! Messages and octets are bounded in all and per sender, what came early is bounded in all and per
//! peer; see [`OutboxConfig`], [`PoolConfig`], [`CollectorConfig`] and [`EarlyConfig`]. At a bound a request is
//! refused with a typed error and nothing is evicted. Every operation takes time logarithmic in the
//! number of messages, and at most linear in the 255 shares of the one it is about.
//!
//! A share's `Bytes` may be a slice of a larger buffer, which stays in memory with it: copy it first
//! when that buffer is much larger than the share.

mod announcement;
mod codec;
mod collector;
mod config;
mod early;
mod entry;
mod error;
mod estimator;
mod event;
mod frame;
mod gathering;
pub mod hedging;
mod journal;
mod ledger;
mod outbox;
pub mod paths;
pub mod placement;
pub mod policy;
mod pool;
pub mod repair;
pub mod reputation;
mod state;
mod storage;
mod subsets;
mod timers;
mod tombstone;

pub use announcement::{Announcement, Digest, MAX_DETAILS, MAX_LABEL, MAX_RECEIVERS, Placement};
pub use collector::Collector;
pub use config::{CollectorConfig, EarlyConfig, PoolConfig};
pub use error::{
    AddError, Bound, Changed, ClaimError, EndError, QuotaError, ShareError, StoreError,
    UnfreezeError,
};
pub use event::{
    Added, Announced, CollectorEvent, Ended, PoolEvent, ShareOutcome, Stored, Unfrozen,
};
pub use ledger::Usage;
pub use outbox::{Outbox, OutboxConfig, OutboxEvent, Outcome, SendError};
pub use pool::{Pool, Restored};
pub use state::ShareState;
pub use storage::{Anchor, Change, MemoryStore, OpId, Persist, StorageError, Store};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
