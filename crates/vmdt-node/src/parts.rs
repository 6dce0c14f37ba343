//! Files that arrive and outlive the process: their parts have names by which the next run finds
//! them, and what is reported as written is synced.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vmdt_wire::NodeId;

use crate::core::ContentHash;
use crate::files::{explain, name_it, numbered, safe_name};

/// Names tried to find a file that has its name already.
const MAX_TRIES: u32 = 1000;
/// Octets read at once.
const CHUNK: usize = 256 * 1024;

/// A file that arrives, under the name of its part.
#[derive(Debug)]
pub(crate) struct KeptPart {
    folder: PathBuf,
    name: String,
    part: PathBuf,
    /// `None`: it is whole, and may have its name already.
    file: Option<File>,
}

impl KeptPart {
    /// Makes the part, empty.
    pub(crate) fn create(folder: &Path, name: &str, part: &str) -> Result<KeptPart, String> {
        fs::create_dir_all(folder).map_err(|e| explain(&e, "making the folder", folder))?;
        let mut kept = KeptPart::of(folder, name, part);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&kept.part)
            .map_err(|e| explain(&e, "making", &kept.part))?;
        kept.file = Some(file);
        // its name has to be there after a crash, too
        if let Ok(folder) = File::open(folder) {
            let _ = folder.sync_all();
        }
        Ok(kept)
    }

    /// Finds the part of an earlier run, cuts it to `length` and reads it.
    pub(crate) fn resume(
        folder: &Path,
        name: &str,
        part: &str,
        length: u64,
    ) -> Result<(KeptPart, ContentHash), String> {
        let mut kept = KeptPart::of(folder, name, part);
        let fail = |e: std::io::Error| explain(&e, "going on with", &kept.part);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&kept.part)
            .map_err(fail)?;
        let found = file.metadata().map_err(fail)?.len();
        if found < length {
            let part = kept.part.display();
            return Err(format!("{part} has {found} octets, {length} were written"));
        }
        file.set_len(length).map_err(fail)?;
        let mut hash = ContentHash::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).map_err(fail)?;
            if read == 0 {
                break;
            }
            hash.update(chunk.get(..read).unwrap_or_default());
        }
        kept.file = Some(file);
        Ok((kept, hash))
    }

    /// A part that is whole.
    pub(crate) fn of(folder: &Path, name: &str, part: &str) -> KeptPart {
        KeptPart {
            folder: folder.to_owned(),
            name: safe_name(name),
            part: folder.join(part),
            file: None,
        }
    }

    pub(crate) fn write(&mut self, octets: &Bytes) -> Result<(), String> {
        match &mut self.file {
            Some(file) => file
                .write_all(octets)
                .map_err(|e| explain(&e, "writing to", &self.folder)),
            None => Err("the file is closed".into()),
        }
    }

    /// What was written is on disk when this returns.
    pub(crate) fn sync(&mut self) -> Result<(), String> {
        match &mut self.file {
            Some(file) => file
                .sync_data()
                .map_err(|e| explain(&e, "syncing", &self.part)),
            None => Ok(()),
        }
    }

    /// Gives it a name that nothing else has; again after a crash in the middle: the same.
    pub(crate) fn finish(mut self) -> Result<PathBuf, String> {
        if let Some(file) = self.file.take() {
            file.sync_all()
                .map_err(|e| explain(&e, "syncing", &self.part))?;
        }
        match self.named_before() {
            Some(path) => {
                let _ = fs::remove_file(&self.part);
                Ok(path)
            }
            None => name_it(&self.folder, &self.name, &self.part),
        }
    }

    /// The name that an earlier run gave it.
    fn named_before(&self) -> Option<PathBuf> {
        let Ok(part) = fs::symlink_metadata(&self.part) else {
            // taking the part's name away was the last that was done
            return Some(self.folder.join(&self.name));
        };
        same_file(&part, |number| {
            let path = self.folder.join(numbered(&self.name, number));
            Some((fs::symlink_metadata(&path).ok()?, path))
        })
    }

    /// Removes it.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(&self.part);
    }
}

/// Finds the name of a file that has two.
#[cfg(unix)]
fn same_file(
    part: &fs::Metadata,
    at: impl Fn(u32) -> Option<(fs::Metadata, PathBuf)>,
) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    if part.nlink() < 2 {
        return None;
    }
    let same = |(meta, path): (fs::Metadata, PathBuf)| {
        ((meta.dev(), meta.ino()) == (part.dev(), part.ino())).then_some(path)
    };
    (0..MAX_TRIES).find_map(|number| same(at(number)?))
}

/// Where files can't be told apart, a crash between naming a file and taking the part's name away
/// leaves it under two names.
#[cfg(not(unix))]
fn same_file(
    _: &fs::Metadata,
    _: impl Fn(u32) -> Option<(fs::Metadata, PathBuf)>,
) -> Option<PathBuf> {
    None
}

/// Removes parts of this node that no transfer goes on with.
pub(crate) fn clean(folder: &Path, local: NodeId, keep: &BTreeSet<String>) {
    let own = format!(".vmdt-{local}-");
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            continue;
        };
        if name.starts_with(&own) && name.ends_with(".part") && !keep.contains(name) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(test: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("vmdt-parts-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    fn octets(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn hash(text: &str) -> blake3::Hash {
        blake3::hash(text.as_bytes())
    }

    #[test]
    fn a_part_goes_on_where_it_was_recorded_and_not_where_it_ends() {
        let dir = folder("resume");
        let mut part = KeptPart::create(&dir, "../a.txt", ".vmdt-a-b-c.part").unwrap();
        part.write(&octets("one two torn")).unwrap();
        part.sync().unwrap();
        drop(part);
        let (mut part, found) = KeptPart::resume(&dir, "../a.txt", ".vmdt-a-b-c.part", 8).unwrap();
        assert_eq!(found.finish(), hash("one two "));
        part.write(&octets("three")).unwrap();
        let path = part.finish().unwrap();
        assert_eq!(path, dir.join("a.txt"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two three");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no part is left");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_part_that_is_shorter_than_recorded_or_gone_is_refused() {
        let dir = folder("short");
        let mut part = KeptPart::create(&dir, "a", "p").unwrap();
        part.write(&octets("one")).unwrap();
        drop(part);
        let error = KeptPart::resume(&dir, "a", "p", 4).unwrap_err();
        assert!(error.contains("has 3 octets, 4 were written"), "{error}");
        assert!(KeptPart::resume(&dir, "a", "p", 3).is_ok());
        let error = KeptPart::resume(&dir, "a", "q", 3).unwrap_err();
        assert!(error.contains("does not exist"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn naming_again_after_a_crash_in_the_middle_gives_one_file() {
        let dir = folder("naming");
        // something else has the first name
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("a.txt"), "another").unwrap();
        let mut part = KeptPart::create(&dir, "a.txt", "p").unwrap();
        part.write(&octets("content")).unwrap();
        part.sync().unwrap();
        drop(part);
        // killed after the file got its name, and before the part lost its own
        fs::hard_link(dir.join("p"), dir.join("a (1).txt")).unwrap();
        let path = KeptPart::of(&dir, "a.txt", "p").finish().unwrap();
        if cfg!(unix) {
            assert_eq!(path, dir.join("a (1).txt"));
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        }
        // killed after both
        let again = KeptPart::of(&dir, "b.txt", "p").finish().unwrap();
        assert_eq!(again, dir.join("b.txt"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn parts_of_nobody_are_removed_and_nothing_else() {
        let dir = folder("clean");
        fs::create_dir_all(&dir).unwrap();
        for name in [
            ".vmdt-me-b-c.part",
            ".vmdt-me-b-d.part",
            ".vmdt-you-b-c.part",
            "a.part",
        ] {
            fs::write(dir.join(name), "x").unwrap();
        }
        let keep = BTreeSet::from([".vmdt-me-b-d.part".to_owned()]);
        clean(&dir, "me".parse().unwrap(), &keep);
        let mut left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".vmdt-me-b-d.part", ".vmdt-you-b-c.part", "a.part"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
