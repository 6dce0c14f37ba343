//! The store.

use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};
use vmdt_pool::{Change, StorageError, Store};

use crate::backend::Limited;
use crate::error::{self, OpenError};
use crate::table::{Batch, MAX_KEY, MAX_VALUE, Table};

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
/// What the file says about itself.
const META: &str = "vmdt.meta";
/// The records of the machines of `vmdt-pool`.
const MACHINES: &str = "vmdt.machines";

type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The most octets the file may have; `None` for what the disk has. Default `None`.
    pub max_octets: Option<u64>,
    /// Memory for cached pages, in octets. Default 16 MiB.
    pub cache_octets: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_octets: None,
            cache_octets: 16 << 20,
        }
    }
}

type Opener = Box<dyn Fn() -> Result<Database, OpenError> + Send + Sync>;

/// Named tables of octet keys and values in one file.
///
/// All calls block until the disk has answered. One process has a store open at a time.
///
/// When the disk fails, the call says so and the file is opened anew, so that the next call meets a
/// consistent state: that before the failed batch or, if only the last sync was lost, that after
/// it.
pub struct RedbStore {
    /// `None` after a failure, until it could be opened again.
    database: Option<Database>,
    opener: Opener,
}

impl RedbStore {
    /// Opens the store at `path`, or makes an empty one there.
    ///
    /// A new one is made under the same name with `.new` behind it and moved when it is complete.
    /// A file that was not closed properly is repaired, which takes time in proportion to its size.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which also says what becomes of the file.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<RedbStore, OpenError> {
        let path = path.as_ref().to_owned();
        if !io_result(path.try_exists())? {
            create(&path, options)?;
        }
        RedbStore::with_backend(options, move || {
            let file = io_result(File::options().read(true).write(true).open(&path))?;
            FileBackend::new(file).map_err(OpenError::from)
        })
    }

    /// Opens a store on something else than a file. `backend` is called now and after a failure.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn with_backend<B: StorageBackend>(
        options: Options,
        backend: impl Fn() -> Result<B, OpenError> + Send + Sync + 'static,
    ) -> Result<RedbStore, OpenError> {
        let opener: Opener = Box::new(move || initialise(backend()?, options));
        let database = Some(opener()?);
        Ok(RedbStore { database, opener })
    }

    /// Makes all changes of `batch`, or none. They are durable when this returns.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; none of the changes was made, or, if the disk failed at the very end, all
    /// of them were but may not last.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.write(batch.by_table())
    }

    /// The value under `key` in `table`.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn read(&self, table: &Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.get_in(table.inner(), key)
    }

    /// Calls `each` for all keys in `table` that begin with `prefix`, in key order.
    ///
    /// # Errors
    ///
    /// The store cannot be read; what was passed to `each` until then is good.
    pub fn scan_table(
        &self,
        table: &Table,
        prefix: &[u8],
        each: &mut dyn FnMut(&[u8], Bytes),
    ) -> Result<(), StorageError> {
        self.scan_in(table.inner(), prefix, each)
    }

    /// The records of a machine of `vmdt-pool`, for its `restore`.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn records(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let mut records = Vec::new();
        self.scan(prefix, &mut |key, value| {
            records.push((Bytes::copy_from_slice(key), value));
        })?;
        Ok(records)
    }

    /// Reads the whole file and compares all checksums. False when something was damaged and
    /// repaired, which may have lost the last commits.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] when it cannot be repaired, or the disk failed.
    pub fn verify(&mut self) -> Result<bool, StorageError> {
        let database = self.database.as_mut().ok_or(StorageError::Closed)?;
        match guarded(|| database.check_integrity()) {
            Some(Ok(good)) => Ok(good),
            Some(Err(redb::DatabaseError::Storage(error))) => Err(error::storage(error)),
            Some(Err(_)) | None => Err(StorageError::Damaged),
        }
    }

    fn write<'a>(
        &mut self,
        tables: impl Iterator<Item = (&'a str, &'a [Change])>,
    ) -> Result<(), StorageError> {
        let mut tables = tables.peekable();
        if tables.peek().is_none() {
            return Ok(());
        }
        if self.database.is_none() {
            self.database = (self.opener)().ok();
        }
        let database = self.database.as_ref().ok_or(StorageError::Closed)?;
        let outcome = guarded(|| write(database, tables)).unwrap_or(Err(StorageError::Damaged));
        if matches!(&outcome, Err(reason) if !is_refusal(*reason)) {
            // After an error the library answers nothing but errors.
            discard(self.database.take());
            self.database = (self.opener)().ok();
        }
        outcome
    }

    fn get_in(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        guarded(|| self.get_unguarded(table, key)).unwrap_or(Err(StorageError::Damaged))
    }

    fn scan_in(
        &self,
        table: &str,
        prefix: &[u8],
        each: &mut dyn FnMut(&[u8], Bytes),
    ) -> Result<(), StorageError> {
        guarded(|| self.scan_unguarded(table, prefix, each)).unwrap_or(Err(StorageError::Damaged))
    }

    fn get_unguarded(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let database = self.database.as_ref().ok_or(StorageError::Closed)?;
        let read = database.begin_read().map_err(error::transaction)?;
        let table = match read.open_table(Definition::new(table)) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error::table(error)),
        };
        let found = table.get(key).map_err(error::storage)?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn scan_unguarded(
        &self,
        table: &str,
        prefix: &[u8],
        each: &mut dyn FnMut(&[u8], Bytes),
    ) -> Result<(), StorageError> {
        let database = self.database.as_ref().ok_or(StorageError::Closed)?;
        let read = database.begin_read().map_err(error::transaction)?;
        let table = match read.open_table(Definition::new(table)) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error::table(error)),
        };
        for entry in table.range(prefix..).map_err(error::storage)? {
            let (key, value) = entry.map_err(error::storage)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            each(key.value(), Bytes::copy_from_slice(value.value()));
        }
        Ok(())
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        discard(self.database.take());
    }
}

/// Makes an empty store beside `path` and moves it there when it is complete, so that a process that
/// is killed meanwhile leaves nothing at `path`.
fn create(path: &Path, options: Options) -> Result<(), OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut how = File::options();
    how.read(true).write(true).create(true).truncate(false);
    let file = io_result(how.open(&fresh))?;
    let same = io_result(file.try_clone())?;
    let backend = FileBackend::new(file)?;
    if io_result(path.try_exists())? {
        // Another process was faster: what is open here may be its store.
        return Ok(());
    }
    // With the lock taken, what a killed process left there is nobody's.
    io_result(same.set_len(0))?;
    let database = initialise(backend, options)?;
    // Renamed while it is locked: two processes do not make it at once.
    let moved = io_result(std::fs::rename(&fresh, path));
    discard(Some(database));
    moved?;
    #[cfg(unix)]
    {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = io_result(File::open(parent.unwrap_or(Path::new("."))))?;
        io_result(parent.sync_all())?;
    }
    Ok(())
}

/// Opens what is behind `backend`, or makes it an empty store.
fn initialise<B: StorageBackend>(backend: B, options: Options) -> Result<Database, OpenError> {
    let limited = Limited {
        inner: backend,
        max: options.max_octets,
    };
    guarded(|| {
        let database = Database::builder()
            .set_cache_size(options.cache_octets)
            .create_with_backend(limited)?;
        if let Err(error) = check_format(&database) {
            discard(Some(database));
            return Err(error);
        }
        Ok(database)
    })
    .unwrap_or(Err(OpenError::Damaged))
}

/// Runs `work`. The library underneath asserts on some kinds of damage: that is `None`.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Closes a database that may be damaged.
fn discard(database: Option<Database>) {
    let _ = guarded(|| drop(database));
}

/// What is the caller's fault leaves the database as it was.
fn is_refusal(reason: StorageError) -> bool {
    reason == StorageError::Io(io::ErrorKind::InvalidInput)
}

fn write<'a>(
    database: &Database,
    tables: impl Iterator<Item = (&'a str, &'a [Change])>,
) -> Result<(), StorageError> {
    let transaction = database.begin_write().map_err(error::transaction)?;
    for (name, changes) in tables {
        let mut table = transaction
            .open_table(Definition::new(name))
            .map_err(error::table)?;
        for change in changes {
            if change.key().len() > MAX_KEY {
                return Err(StorageError::Io(io::ErrorKind::InvalidInput));
            }
            match change {
                Change::Put { value, .. } if value.len() > MAX_VALUE => {
                    return Err(StorageError::Io(io::ErrorKind::InvalidInput));
                }
                Change::Put { key, value } => {
                    let old = table.insert(key.as_ref(), value.as_ref());
                    drop(old.map_err(error::storage)?);
                }
                Change::Delete { key } => {
                    let old = table.remove(key.as_ref());
                    drop(old.map_err(error::storage)?);
                }
            }
        }
    }
    transaction.commit().map_err(error::commit)
}

/// Reads the format of an existing file, or writes it into an empty one.
fn check_format(database: &Database) -> Result<(), OpenError> {
    let read = database.begin_read().map_err(error::transaction)?;
    let found = match read.open_table(Definition::new(META)) {
        Ok(meta) => {
            let value = meta.get(FORMAT_KEY).map_err(error::storage)?;
            let octets = value.ok_or(OpenError::Foreign)?;
            let octets: [u8; 4] = octets.value().try_into().map_err(|_| OpenError::Damaged)?;
            u32::from_be_bytes(octets)
        }
        Err(TableError::TableDoesNotExist(_)) => {
            let mut tables = read.list_tables().map_err(error::storage)?;
            if tables.next().is_some() {
                return Err(OpenError::Foreign);
            }
            let change = Change::Put {
                key: Bytes::from_static(FORMAT_KEY),
                value: Bytes::copy_from_slice(&FORMAT.to_be_bytes()),
            };
            write(database, [(META, [change].as_slice())].into_iter())?;
            FORMAT
        }
        Err(TableError::Storage(error)) => return Err(error::storage(error).into()),
        Err(_) => return Err(OpenError::Foreign),
    };
    match found {
        1..=FORMAT => Ok(()),
        _ => Err(OpenError::TooNew {
            found,
            supported: FORMAT,
        }),
    }
}

fn io_result<T>(result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|error| StorageError::from(error.kind()).into())
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore")
            .field("open", &self.database.is_some())
            .finish()
    }
}

/// The records of the machines of `vmdt-pool`, in a table of their own.
impl Store for RedbStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.get_in(MACHINES, key)
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], Bytes)) -> Result<(), StorageError> {
        self.scan_in(MACHINES, prefix, each)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        self.write([(MACHINES, changes)].into_iter())
    }
}
