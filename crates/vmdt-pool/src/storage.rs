//! What the machines ask of a store on disk, and one in memory.
//!
//! The machines never call a store: they hand out [`Persist`] batches and are told when one is
//! durable. Whoever drives them calls [`Store::commit`] with one batch or with many at once.

use core::fmt;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Why a store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk, or what the store may use of it, is full.
    #[error("no space left in the store")]
    NoSpace,
    /// What is on disk is not what was written.
    #[error("the store is damaged")]
    Damaged,
    /// The store was closed, or gave up after an earlier error.
    #[error("the store is closed")]
    Closed,
    /// Another error of the operating system.
    #[error("the store failed: {0}")]
    Io(io::ErrorKind),
}

impl From<io::ErrorKind> for StorageError {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => StorageError::NoSpace,
            other => StorageError::Io(other),
        }
    }
}

/// One change of a store.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a value, in place of an earlier one.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes a value, if there is one.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Change {
    /// The key that is changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }

    /// Octets of key and value.
    pub fn octets(&self) -> usize {
        match self {
            Change::Put { key, value } => key.len().saturating_add(value.len()),
            Change::Delete { key } => key.len(),
        }
    }
}

// Values hold shares: their octets stay out of logs.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Put { key, value } => write!(f, "Put({key:?}, {} octets)", value.len()),
            Change::Delete { key } => write!(f, "Delete({key:?})"),
        }
    }
}

/// Names a [`Persist`] batch of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Changes that a machine wants on disk, all of them or none. Commit the batches of one machine in
/// the order in which it handed them out and answer each with `handle_persisted` or
/// `handle_persist_failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persist {
    /// Its name, for the answer.
    pub op: OpId,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// Octets under octet keys, changed in batches.
pub trait Store {
    /// The value under `key`.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Calls `each` for all keys that begin with `prefix`, in key order.
    ///
    /// # Errors
    ///
    /// The store cannot be read; what was passed to `each` until then is good.
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], Bytes)) -> Result<(), StorageError>;

    /// Makes all `changes`, in order, or none; they are durable when this returns.
    ///
    /// # Errors
    ///
    /// Nothing was changed.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StorageError>;

    /// Makes the batches of several machines durable together: one sync for all of them.
    ///
    /// # Errors
    ///
    /// None of them was made.
    fn commit_group(&mut self, batches: &[Persist]) -> Result<(), StorageError> {
        let changes = batches.iter().flat_map(|batch| batch.changes.clone());
        self.commit(&changes.collect::<Vec<_>>())
    }
}

/// A [`Store`] in memory: for tests, and for nodes that need to survive no restart.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    values: BTreeMap<Bytes, Bytes>,
    octets: usize,
    limit: Option<usize>,
}

impl MemoryStore {
    /// An empty store without a limit.
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// An empty store that takes at most `octets` of keys and values, then answers
    /// [`StorageError::NoSpace`].
    pub fn with_limit(octets: usize) -> Self {
        MemoryStore {
            limit: Some(octets),
            ..MemoryStore::default()
        }
    }

    /// Changes the limit; what is there stays.
    pub fn set_limit(&mut self, octets: Option<usize>) {
        self.limit = octets;
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Octets of keys and values.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// All keys and values in key order, as the machines' `restore` takes them.
    pub fn records(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        self.values.iter().map(|(k, v)| (k.clone(), v.clone()))
    }

    fn size_of(&self, key: &Bytes) -> usize {
        let value = self.values.get(key);
        value.map_or(0, |value| key.len().saturating_add(value.len()))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("values", &self.values.len())
            .field("octets", &self.octets)
            .field("limit", &self.limit)
            .finish()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.values.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], Bytes)) -> Result<(), StorageError> {
        let from = Bytes::copy_from_slice(prefix);
        let matching = self.values.range(from..);
        for (key, value) in matching.take_while(|(key, _)| key.starts_with(prefix)) {
            each(key, value.clone());
        }
        Ok(())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        let mut after = self.octets;
        let mut last = BTreeMap::new();
        for change in changes {
            let size = match change {
                Change::Put { .. } => change.octets(),
                Change::Delete { .. } => 0,
            };
            let before = last.insert(change.key(), size);
            let before = before.unwrap_or_else(|| self.size_of(change.key()));
            after = after.saturating_sub(before).saturating_add(size);
        }
        if self
            .limit
            .is_some_and(|limit| after > limit && after > self.octets)
        {
            return Err(StorageError::NoSpace);
        }
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    self.values.insert(key.clone(), value.clone());
                }
                Change::Delete { key } => {
                    self.values.remove(key);
                }
            }
        }
        self.octets = after;
        Ok(())
    }
}

/// Ties the monotonic clock of this run to wall-clock time, so that deadlines survive a restart.
/// The caller reads both clocks once, when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// A moment on the monotonic clock.
    pub at: Instant,
    /// The same moment as time since the Unix epoch.
    pub unix: Duration,
}

impl Anchor {
    /// The wall-clock time of `moment`, in milliseconds since the Unix epoch.
    pub fn unix_ms(&self, moment: Instant) -> u64 {
        let unix = match moment.checked_duration_since(self.at) {
            Some(later) => self.unix.saturating_add(later),
            None => self
                .unix
                .saturating_sub(self.at.saturating_duration_since(moment)),
        };
        u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
    }

    /// The time from the anchor to `unix_ms`: zero if that is over.
    pub fn until(&self, unix_ms: u64) -> Duration {
        Duration::from_millis(unix_ms).saturating_sub(self.unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Change {
        Change::Put {
            key: Bytes::from(key),
            value: Bytes::from(value),
        }
    }

    fn delete(key: &'static str) -> Change {
        Change::Delete {
            key: Bytes::from(key),
        }
    }

    #[test]
    fn a_scan_sees_a_prefix_in_key_order() {
        let mut store = MemoryStore::new();
        let batch = [put("b2", "x"), put("a", "x"), put("b1", "y"), put("c", "x")];
        store.commit(&batch).unwrap();
        let mut seen = Vec::new();
        store
            .scan(b"b", &mut |key, value| seen.push((key.to_vec(), value)))
            .unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], (b"b1".to_vec(), Bytes::from("y")));
    }

    #[test]
    fn a_batch_that_does_not_fit_changes_nothing_and_a_smaller_state_always_fits() {
        let mut store = MemoryStore::with_limit(10);
        store.commit(&[put("a", "12345")]).unwrap();
        assert_eq!(store.octets(), 6);
        let too_much = [delete("a"), put("b", "123456789")];
        store.commit(&too_much).unwrap();
        assert_eq!(store.octets(), 10);
        assert_eq!(
            store.commit(&[put("b", "1"), put("c", "1234567890")]),
            Err(StorageError::NoSpace)
        );
        assert_eq!(store.get(b"b"), Ok(Some(Bytes::from("123456789"))));
        store.set_limit(Some(1));
        store.commit(&[put("b", "1")]).unwrap();
        assert_eq!(store.octets(), 2);
        store.commit(&[put("b", "2"), delete("b")]).unwrap();
        assert_eq!((store.octets(), store.len()), (0, 0));
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn an_anchor_maps_times_both_ways() {
        let anchor = Anchor {
            at: Instant::now(),
            unix: Duration::from_secs(1000),
        };
        let later = anchor.at + Duration::from_secs(5);
        assert_eq!(anchor.unix_ms(later), 1_005_000);
        assert_eq!(anchor.until(1_005_000), Duration::from_secs(5));
        assert_eq!(anchor.until(999_000), Duration::ZERO);
    }
}
