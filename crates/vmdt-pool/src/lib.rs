//! The share pool of VMDT: who keeps which share of a message, who may have it, and how a receiver
//! comes by enough of them.
//!
//! A message is split into `n` shares of which any `k` are enough. Its sender announces to every
//! holder and to the receiver where each share is and what its digest is, and gives share `i` to
//! its holder. Active shares are pushed to the receiver at once; frozen ones wait until somebody
//! unfreezes them. Two machines follow from that:
//!
//! - [`Pool`], the holder's: keeps shares as ACTIVE, FROZEN or CLAIMED, lets only the sender
//!   announce and store, only the receiver claim (a lease) and acknowledge, only the two of them
//!   unfreeze and remove, and refuses to come to hold `k` shares of a message of others.
//! - [`Collector`], the receiver's: checks what comes against the announced digests, asks for frozen
//!   shares when active ones are later than experience says, and hands over `k` good shares once.
//!
//! Shares are opaque octets; digests are compared, never computed. Both machines do no input or
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
//!     message: MessageId::from_random([7; 12]),
//!     sender: node("alice"),
//!     receiver: node("bob"),
//!     n: 3,
//!     k: 2,
//!     shares: (1..=3)
//!         .map(|i| Placement {
//!             index: NonZeroU8::new(i).unwrap(),
//!             holder: node(["carol", "dave", "erin"][usize::from(i) - 1]),
//!             digest: digest(&shares[usize::from(i) - 1]),
//!             active: i <= 2,
//!         })
//!         .collect(),
//!     label: String::new(),
//!     content: 0,
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
//! peer; see [`PoolConfig`], [`CollectorConfig`] and [`EarlyConfig`]. At a bound a request is
//! refused with a typed error and nothing is evicted. Every operation takes time logarithmic in the
//! number of messages, and at most linear in the 255 shares of the one it is about.
//!
//! A share's `Bytes` may be a slice of a larger buffer, which stays in memory with it: copy it first
//! when that buffer is much larger than the share.

mod announcement;
mod collector;
mod config;
mod early;
mod entry;
mod error;
mod estimator;
mod event;
mod gathering;
mod ledger;
mod pool;
mod state;
mod subsets;
mod timers;
mod tombstone;

pub use announcement::{Announcement, Digest, MAX_LABEL, Placement};
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
pub use pool::Pool;
pub use state::ShareState;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
