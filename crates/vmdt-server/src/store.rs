//! Where the state that survives a restart is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use thiserror::Error;
use vmdt_control::{Record, RecordKey};

/// Keeps the records of a registry.
///
/// The server calls it from a thread of its own, never twice at once. A batch is committed before
/// any client is told of what it holds.
pub trait Store: Send + 'static {
    /// Everything that was committed.
    ///
    /// # Errors
    /// It cannot be read. Then the server does not start: it would forget everything.
    fn load(&mut self) -> Result<Vec<(RecordKey, Bytes)>, StoreError>;

    /// Commits a batch, the whole or nothing of it. When this returns, it survives a crash.
    ///
    /// # Errors
    /// Nothing was committed. The server tries the same batch again.
    fn commit(&mut self, batch: &[Record]) -> Result<(), StoreError>;

    /// What a server needs to share this store with others; `None` (the default) when it has it
    /// for itself. Called once, before anything else.
    ///
    /// Of a shared store `load` is never called: the records come as [`News::Attached`].
    /// `commit` is called once for each [`News::Granted`], perhaps with nothing to write, and
    /// gives the right to write back; an error of it is final, and the server takes its state
    /// for lost until the next [`News::Attached`].
    fn share(&mut self) -> Option<Shared> {
        None
    }

    /// Asks a shared store for the right to write. Does not block.
    fn want_write(&mut self) {}

    /// The server ends. May block for a moment.
    fn close(&mut self) {}
}

/// What a shared store tells its server.
#[derive(Debug)]
pub struct Shared {
    pub(crate) news: tokio::sync::mpsc::Receiver<News>,
}

impl Shared {
    /// From the channel on which the store sends. A server that ends drops it.
    #[must_use]
    pub fn new(news: tokio::sync::mpsc::Receiver<News>) -> Shared {
        Shared { news }
    }
}

/// One thing that a shared store tells, in the order in which it was written.
#[derive(Debug)]
#[non_exhaustive]
pub enum News {
    /// Everything that is kept. What follows follows from this.
    Attached(Vec<(RecordKey, Bytes)>),
    /// Another server has written this at once.
    Records(Vec<Record>),
    /// This server may write: nobody else does until it has.
    Granted,
    /// This server is taken for dead, or cannot know that it is not.
    Detached,
}

/// Why a store has not done what it was to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database says so.
    #[error(transparent)]
    Database(Box<redb::Error>),
    /// Another kind of store says so.
    #[error("{0}")]
    Other(String),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(cause: E) -> StoreError {
        StoreError::Database(Box::new(cause.into()))
    }
}

/// Keeps records in memory: they survive the [`Server`](crate::Server), and not the process.
///
/// Clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<BTreeMap<RecordKey, Bytes>>>,
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RecordKey, Bytes>> {
        // No panic leaves a batch half done.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<(RecordKey, Bytes)>, StoreError> {
        let records = self.lock();
        Ok(records
            .iter()
            .map(|(&key, value)| (key, value.clone()))
            .collect())
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), StoreError> {
        let mut records = self.lock();
        for Record { key, value } in batch {
            match value {
                Some(value) => records.insert(*key, value.clone()),
                None => records.remove(key),
            };
        }
        Ok(())
    }
}

/// The mode of the file.
#[cfg(unix)]
const OWNER_ONLY: u32 = 0o600;

/// Key and value as [`RecordKey::to_text`] and the registry write them.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Keeps records in a [`redb`] database: one file, transactions that survive a crash. Only the
/// owner of the file may read it, on systems where that can be said.
///
/// After a failed commit the file is opened anew for the next one: the library refuses everything
/// once its disk has failed, though there may be room on it again.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    /// `None` after a failure.
    database: Option<Database>,
}

impl RedbStore {
    /// Opens the database at `path`, or makes a new one there. One process may have it open.
    ///
    /// # Errors
    /// The file cannot be opened, is in use, or is no database.
    pub fn open(path: &Path) -> Result<RedbStore, StoreError> {
        Ok(RedbStore {
            path: path.to_owned(),
            database: Some(open(path)?),
        })
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        match &mut self.database {
            Some(database) => Ok(database),
            closed => Ok(closed.insert(open(&self.path)?)),
        }
    }

    fn write(&mut self, batch: &[Record]) -> Result<(), StoreError> {
        let transaction = self.database()?.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for Record { key, value } in batch {
                let key = key.to_text();
                match value {
                    Some(value) => table.insert(key.as_str(), value.as_ref())?,
                    None => table.remove(key.as_str())?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, OWNER_ONLY);
    let file = options.open(path).map_err(redb::Error::Io)?;
    // One that was made with another mode.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(OWNER_ONLY))
        .map_err(redb::Error::Io)?;
    Ok(Database::builder().create_file(file)?)
}

impl Store for RedbStore {
    fn load(&mut self) -> Result<Vec<(RecordKey, Bytes)>, StoreError> {
        let transaction = self.database()?.begin_read()?;
        let table = match transaction.open_table(RECORDS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut records = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            match RecordKey::parse(key.value()) {
                Ok(key) => records.push((key, Bytes::copy_from_slice(value.value()))),
                // Of a later version: it stays where it is.
                Err(_) => tracing::warn!(key = key.value(), "a record of an unknown kind"),
            }
        }
        Ok(records)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), StoreError> {
        let done = self.write(batch);
        if done.is_err() {
            self.database = None;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(id: &str, value: &'static [u8]) -> Record {
        Record {
            key: RecordKey::Profile(id.parse().unwrap()),
            value: Some(Bytes::from_static(value)),
        }
    }

    fn delete(id: &str) -> Record {
        Record {
            value: None,
            ..put(id, b"")
        }
    }

    fn keeps_what_was_committed_last(store: &mut dyn Store) {
        assert!(store.load().unwrap().is_empty());
        store.commit(&[put("a", b"1"), put("b", b"2")]).unwrap();
        store
            .commit(&[put("a", b"3"), delete("b"), put("c", b"4")])
            .unwrap();
        store.commit(&[delete("z")]).unwrap();
        let found: Vec<_> = store
            .load()
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key.to_text(), value))
            .collect();
        let expected = [("p/a", "3"), ("p/c", "4")];
        let expected = expected.map(|(key, value)| (key.to_owned(), Bytes::from(value)));
        assert_eq!(found, expected);
    }

    #[test]
    fn memory_keeps_what_was_committed_last() {
        let mut store = MemoryStore::new();
        keeps_what_was_committed_last(&mut store);
        assert_eq!(store.clone().len(), 2, "clones share");
    }

    #[test]
    fn a_database_keeps_what_was_committed_last_and_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let mut store = RedbStore::open(&path).unwrap();
        keeps_what_was_committed_last(&mut store);
        assert!(RedbStore::open(&path).is_err(), "one process at a time");
        drop(store);
        assert_eq!(RedbStore::open(&path).unwrap().load().unwrap().len(), 2);
    }

    #[test]
    fn a_failed_database_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let mut store = RedbStore::open(&path).unwrap();
        store.commit(&[put("a", b"1")]).unwrap();
        store.database = None;
        store.path = folder.path().join("none").join("state.redb");
        assert!(store.commit(&[put("b", b"2")]).is_err());
        store.path = path;
        store.commit(&[put("b", b"2")]).unwrap();
        assert_eq!(store.load().unwrap().len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_reads_a_database_new_or_old() {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(RedbStore::open(&path).unwrap());
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(RedbStore::open(&path).unwrap());
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        std::fs::write(&path, [7; 10_000]).unwrap();
        assert!(RedbStore::open(&path).is_err());
    }
}
