//! What VMDT keeps on disk: named tables of octet keys and values in one file, changed in atomic
//! batches.
//!
//! [`RedbStore`] holds everything of one node or server: the shares its pool keeps for others, what
//! it sends and receives, and whatever else is put in a [`Table`]. A batch is durable when
//! [`RedbStore::apply`] returns, all of it or nothing; several batches of the machines of
//! `vmdt-pool` are written with one sync.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use vmdt_pool::{Pool, PoolConfig, Anchor, Store};
//! use vmdt_store::{Options, RedbStore};
//!
//! # #[allow(clippy::disallowed_methods)]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let mut store = RedbStore::open(dir.path().join("node.vmdt"), Options::default())?;
//!
//! // A pool comes back as it was when its last batch was committed.
//! let anchor = Anchor { at: Instant::now(), unix: Duration::from_secs(1_700_000_000) };
//! let records = store.records(Pool::RECORDS)?;
//! let config = PoolConfig::new("carol".parse()?);
//! let digest = |octets: &[u8]| [u8::try_from(octets.len()).unwrap_or(0); 16];
//! let (mut pool, restored) = Pool::restore(config, anchor, records, digest);
//! assert_eq!(restored.messages, 0);
//!
//! // After every request and timeout:
//! while let Some(batch) = pool.poll_persist() {
//!     match store.commit(&batch.changes) {
//!         Ok(()) => pool.handle_persisted(batch.op),
//!         Err(reason) => pool.handle_persist_failed(anchor.at, batch.op, reason),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Bounds
//!
//! [`Options::max_octets`] bounds the file, [`Options::cache_octets`] the memory for cached pages.
//! Keys have at most [`MAX_KEY`] octets, values at most [`MAX_VALUE`]; what is longer is refused
//! with [`StorageError::Io`] of kind `InvalidInput`. Nothing is evicted.

mod backend;
mod error;
mod store;
mod table;

pub use error::OpenError;
pub use store::{Options, RedbStore};
pub use table::{Batch, MAX_KEY, MAX_VALUE, Table, TableNameError};
pub use vmdt_pool::{Change, StorageError, Store};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
