//! Tables, batches, failures of the disk, and files that are not what they should be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redb::{Database, ReadableDatabase as _, StorageBackend, TableDefinition};
use vmdt_store::{
    Batch, Change, MAX_KEY, OpenError, Options, RedbStore, StorageError, Store, Table,
};

fn open(path: &Path) -> Result<RedbStore, OpenError> {
    RedbStore::open(path, Options::default())
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.vmdt");
    (dir, path)
}

fn put(key: &str, value: impl Into<Bytes>) -> Change {
    Change::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
    }
}

fn records(store: &RedbStore) -> Vec<(Bytes, Bytes)> {
    store.records(b"").unwrap()
}

#[test]
fn a_batch_over_several_tables_is_there_after_reopening() {
    let (_dir, path) = place();
    let (names, keys) = (
        Table::named("names").unwrap(),
        Table::named("keys").unwrap(),
    );
    let mut store = open(&path).unwrap();
    let mut batch = Batch::new();
    batch.put(&names, "bob", "1");
    batch.put(&names, "alice", "2");
    batch.put(&names, "bob", "3");
    batch.put(&keys, "bob", vec![0; 100_000]);
    batch.put(&keys, "gone", "x");
    batch.delete(&keys, "gone");
    assert_eq!(batch.len(), 6);
    store.apply(&batch).unwrap();
    store.commit(&[put("bob", "machines")]).unwrap();
    assert_eq!(open(&path).unwrap_err(), OpenError::InUse);
    drop(store);

    let mut store = open(&path).unwrap();
    let read = |table: &Table, key: &str| store.read(table, key.as_bytes()).unwrap();
    assert_eq!(read(&names, "bob").unwrap(), "3");
    assert_eq!(read(&keys, "bob").unwrap().len(), 100_000);
    assert_eq!(read(&keys, "gone"), None);
    let mut seen = Vec::new();
    store
        .scan_table(&names, b"", &mut |key, value| {
            seen.push((key.to_vec(), value))
        })
        .unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], (b"alice".to_vec(), Bytes::from("2")));
    assert_eq!(records(&store), [("bob".into(), "machines".into())]);
    let nowhere = Table::named("nowhere").unwrap();
    assert_eq!(store.read(&nowhere, b"x"), Ok(None));
    assert_eq!(store.verify(), Ok(true));
}

#[test]
fn a_key_that_is_too_long_is_refused_with_its_batch_and_the_store_goes_on() {
    let (_dir, path) = place();
    let mut store = open(&path).unwrap();
    let long = put(&"x".repeat(MAX_KEY + 1), "1");
    assert_eq!(
        store.commit(&[put("a", "1"), long]),
        Err(StorageError::Io(io::ErrorKind::InvalidInput))
    );
    assert!(records(&store).is_empty());
    store.commit(&[put(&"x".repeat(MAX_KEY), "1")]).unwrap();
    assert_eq!(records(&store).len(), 1);
}

#[test]
fn a_store_that_may_not_grow_says_so_and_takes_what_fits_again() {
    let (_dir, path) = place();
    let options = Options {
        max_octets: Some(2 << 20),
        ..Options::default()
    };
    let mut store = RedbStore::open(&path, options).unwrap();
    let mut kept = 0;
    let full = loop {
        match store.commit(&[put(&format!("{kept:04}"), vec![7; 50_000])]) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "more than fits");
    };
    assert_eq!(full, StorageError::NoSpace);
    assert!(kept > 5, "{kept}");
    assert!(std::fs::metadata(&path).unwrap().len() <= 2 << 20);
    // What was there is there, nothing of what was refused is, and removing makes room.
    assert_eq!(records(&store).len(), kept);
    for number in 0..kept {
        let key = Bytes::from(format!("{number:04}"));
        store.commit(&[Change::Delete { key }]).unwrap();
    }
    store.commit(&[put("again", vec![7; 50_000])]).unwrap();
    assert_eq!(records(&store).len(), 1);
}

/// A disk in memory that fails when it is told to.
#[derive(Debug, Clone, Default)]
struct Disk {
    data: Arc<Mutex<Vec<u8>>>,
    /// Calls that change something until they fail; `u64::MAX` for never.
    left: Arc<AtomicU64>,
}

impl Disk {
    fn spend(&self) -> io::Result<()> {
        let spent = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
                u64::MAX => Some(left),
                left => left.checked_sub(1),
            });
        spent.map_or(Err(io::ErrorKind::StorageFull.into()), |_| Ok(()))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.data.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let data = self.data.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let found = data.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        let mut data = self.data.lock().unwrap();
        data.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.spend()
    }

    fn write(&self, offset: u64, octets: &[u8]) -> io::Result<()> {
        self.spend()?;
        let mut data = self.data.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        data[from..from + octets.len()].copy_from_slice(octets);
        Ok(())
    }
}

#[test]
fn a_disk_that_is_full_at_any_point_keeps_every_confirmed_batch_whole() {
    for fails_after in 0..60 {
        let disk = Disk::default();
        disk.left.store(u64::MAX, Ordering::SeqCst);
        let backend = disk.clone();
        let mut store =
            RedbStore::with_backend(Options::default(), move || Ok(backend.clone())).unwrap();
        store.commit(&[put("first", "1")]).unwrap();
        disk.left.store(fails_after, Ordering::SeqCst);
        let mut confirmed = 0_u32;
        let mut failed = None;
        for number in 0..6_u32 {
            let batch = [
                put(&format!("{number} a"), vec![1; 3_000]),
                put(&format!("{number} b"), vec![2; 3_000]),
            ];
            match store.commit(&batch) {
                Ok(()) => confirmed += 1,
                Err(reason) => {
                    failed = Some(reason);
                    break;
                }
            }
        }
        disk.left.store(u64::MAX, Ordering::SeqCst);
        if let Some(reason) = failed {
            assert_eq!(reason, StorageError::NoSpace, "{fails_after}");
        }
        // It goes on by itself, and after a restart.
        store.commit(&[put("later", "1")]).unwrap();
        drop(store);
        let backend = disk.clone();
        let store =
            RedbStore::with_backend(Options::default(), move || Ok(backend.clone())).unwrap();
        let found = records(&store);
        for number in 0..6_u32 {
            let halves = [format!("{number} a"), format!("{number} b")];
            let here = halves.map(|key| found.iter().any(|(found, _)| *found == key));
            assert_eq!(here[0], here[1], "{fails_after}: half a batch");
            assert!(
                here[0] || number >= confirmed,
                "{fails_after}: {number} is lost"
            );
        }
        assert!(found.iter().any(|(key, _)| key == "later"));
    }
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let (_dir, path) = place();
    for content in [
        b"hello".to_vec(),
        vec![0; 5_000],
        vec![0xa5; 1 << 20],
        b"redb".repeat(2_000),
    ] {
        std::fs::write(&path, &content).unwrap();
        let refused = open(&path).unwrap_err();
        assert_eq!(refused, OpenError::Damaged, "{} octets", content.len());
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    let missing = path.join("no such directory").join("file");
    assert!(matches!(open(&missing), Err(OpenError::Io(_))));
}

#[test]
fn a_database_of_another_program_is_refused() {
    let (_dir, path) = place();
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("something");
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(table).unwrap().insert("x", 1).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(open(&path).unwrap_err(), OpenError::Foreign);
    let database = Database::create(&path).unwrap();
    let read = database.begin_read().unwrap();
    assert_eq!(read.list_tables().unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused_with_both_numbers() {
    let (_dir, path) = place();
    drop(open(&path).unwrap());
    let meta: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("vmdt.meta");
    let set = |octets: &[u8]| {
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let key: &[u8] = b"format";
        drop(write.open_table(meta).unwrap().insert(key, octets).unwrap());
        write.commit().unwrap();
    };
    set(&7_u32.to_be_bytes());
    assert_eq!(
        open(&path).unwrap_err(),
        OpenError::TooNew {
            found: 7,
            supported: 1
        }
    );
    set(&[1, 2]);
    assert_eq!(open(&path).unwrap_err(), OpenError::Damaged);
    set(&1_u32.to_be_bytes());
    assert!(open(&path).is_ok());
}

#[test]
fn damage_anywhere_is_an_error_or_is_found_and_never_panics_or_invents_a_record() {
    let (_dir, path) = place();
    let mut store = open(&path).unwrap();
    for number in 0..40_u8 {
        let value = vec![number; 300];
        store
            .commit(&[put(&format!("{number:02}"), value)])
            .unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let step = good.len() / 60;
    for at in (0..good.len()).step_by(step).chain(0..64) {
        let mut damaged = good.clone();
        for octet in damaged.iter_mut().skip(at).take(16) {
            *octet ^= 0xff;
        }
        std::fs::write(&path, &damaged).unwrap();
        let Ok(mut store) = open(&path) else {
            continue;
        };
        // The checksums tell; only then is what it says relied on.
        if store.verify() == Ok(true) {
            for (key, value) in records(&store) {
                let number: u8 = std::str::from_utf8(&key).unwrap().parse().unwrap();
                assert_eq!(value, vec![number; 300], "damage at {at}");
            }
        }
    }
    for len in [0, 1, 100, good.len() / 2, good.len() - 1] {
        std::fs::write(&path, &good[..len]).unwrap();
        if let Ok(store) = open(&path) {
            assert!(len == 0 || records(&store).len() <= 40);
        }
    }
}
