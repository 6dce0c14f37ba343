//! Where received files stand until they are whole.
//!
//! Each outermost name gets a file or folder beside it that ends in `.vmdt.part`; it is locked
//! while it is written and given its final name in one step at the end. Nothing is replaced
//! unless that was asked for.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::entry::{Entry, Kind, target_stays_inside};
use crate::failure::{Exit, Failure, Outcome};

/// What stands behind a name until it is whole.
const SUFFIX: &str = ".vmdt.part";
/// The longest name that leaves room for the suffix.
const MAX_PART_NAME: usize = 240;
/// Numbers tried before a name is given up as taken.
const MAX_TRIES: u32 = 10_000;

/// What to do about a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Taken {
    /// Fine if it is the same; else an error.
    #[default]
    Compare,
    /// Replace a file.
    Overwrite,
    /// Choose another name.
    Rename,
}

/// One outermost entry.
#[derive(Debug)]
pub(crate) struct Top {
    name: PathBuf,
    /// Its final name as it will be printed.
    pub(crate) target: PathBuf,
    part: PathBuf,
    /// It is there already, and only compared.
    pub(crate) compare: bool,
    replace: bool,
    is_folder: bool,
    _lock: Option<File>,
}

/// The folder that files arrive in.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    tops: Vec<Top>,
}

#[cfg(unix)]
pub(crate) fn name_of(octets: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(octets.to_vec())
}

#[cfg(not(unix))]
pub(crate) fn name_of(octets: &[u8]) -> OsString {
    String::from_utf8_lossy(octets).into_owned().into()
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

impl Staging {
    /// Chooses names for the outermost entries that have a place on disk and locks what stands
    /// for them until they are whole.
    ///
    /// # Errors
    /// The folder can't be made, a name is taken by something of another kind, another process
    /// receives the same name here.
    pub(crate) fn new(folder: &Path, entries: &[Entry], taken: Taken) -> Outcome<Staging> {
        fs::create_dir_all(folder).map_err(|e| Failure::disk(&e, "making", folder))?;
        let mut staging = Staging {
            folder: folder.to_owned(),
            tops: Vec::new(),
        };
        for entry in entries.iter().filter(|entry| entry.path.len() == 1) {
            let Some(name) = entry
                .path
                .first()
                .filter(|_| !matches!(entry.kind, Kind::Text { .. }))
            else {
                continue;
            };
            staging.add(name, entry, taken)?;
        }
        Ok(staging)
    }

    fn add(&mut self, octets: &[u8], entry: &Entry, taken: Taken) -> Outcome<()> {
        let name = PathBuf::from(name_of(octets));
        let is_folder = entry.kind == Kind::Folder;
        let mut target = self.folder.join(&name);
        let part = self.folder.join(part_name(octets));
        let (mut compare, mut replace) = (false, false);
        if exists(&target) {
            let same_kind = fs::symlink_metadata(&target).is_ok_and(|meta| {
                if is_folder {
                    meta.is_dir()
                } else {
                    meta.is_file()
                }
            });
            match taken {
                Taken::Rename => target = self.free_name(octets)?,
                Taken::Overwrite if same_kind && !is_folder => replace = true,
                // a resumed transfer may have ended already
                Taken::Compare if same_kind && entry.kind != Kind::Stream => compare = true,
                _ => return Err(taken_failure(&target)),
            }
        }
        let mut top = Top {
            name,
            target,
            part,
            compare,
            replace,
            is_folder,
            _lock: None,
        };
        if !compare {
            top._lock = Some(self.open_part(&top)?);
        }
        self.tops.push(top);
        Ok(())
    }

    /// `name (1).ext`, `name (2).ext`, …
    fn free_name(&self, octets: &[u8]) -> Outcome<PathBuf> {
        let name = String::from_utf8_lossy(octets);
        for number in 1..=MAX_TRIES {
            let numbered = match name.rsplit_once('.') {
                Some((stem, ext)) if !stem.is_empty() => format!("{stem} ({number}).{ext}"),
                _ => format!("{name} ({number})"),
            };
            let path = self.folder.join(numbered);
            if !exists(&path) {
                return Ok(path);
            }
        }
        Err(taken_failure(&self.folder.join(name.as_ref())))
    }

    /// Makes or finds what stands for an entry until it is whole, and locks it.
    fn open_part(&self, top: &Top) -> Outcome<File> {
        let part = &top.part;
        let fail = |e: io::Error| Failure::disk(&e, "making", part);
        if let Ok(meta) = fs::symlink_metadata(part)
            && (meta.is_dir() != top.is_folder || meta.is_symlink())
        {
            return Err(
                Failure::new(Exit::Exists, format!("{} is in the way", part.display()))
                    .hint("remove it, or choose another folder with --out DIR"),
            );
        }
        let file = if top.is_folder {
            match fs::create_dir(part) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
                _ => {}
            }
            writable(part);
            File::open(part).map_err(fail)?
        } else {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(part)
                .map_err(fail)?
        };
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                Exit::Exists,
                format!("another vmdt receives {} here now", top.name.display()),
            )
            .hint("choose another folder with --out DIR")),
            // no locks on this file system
            Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    fn top(&self, entry: &Entry) -> Option<&Top> {
        let name = PathBuf::from(name_of(entry.path.first()?));
        self.tops.iter().find(|top| top.name == name)
    }

    /// Whether an entry belongs to something that is only compared.
    pub(crate) fn is_compared(&self, entry: &Entry) -> bool {
        self.top(entry).is_some_and(|top| top.compare)
    }

    /// Where an entry stands until the end.
    pub(crate) fn path(&self, entry: &Entry) -> Option<PathBuf> {
        let top = self.top(entry)?;
        let mut path = if top.compare {
            top.target.clone()
        } else {
            top.part.clone()
        };
        path.extend(
            entry
                .path
                .iter()
                .skip(1)
                .map(|component| name_of(component)),
        );
        Some(path)
    }

    /// What a name of this transfer is called when it is whole.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Top> {
        self.tops.iter()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folders inside. What an earlier attempt left in the place of one, a link above
    /// all, is removed: nothing is written through it.
    pub(crate) fn make_folders(&self, entries: &[Entry]) -> Outcome<()> {
        for entry in entries.iter().filter(|entry| !self.is_compared(entry)) {
            let Some(path) = self.path(entry) else {
                continue;
            };
            if entry.path.len() == 1 {
                continue;
            }
            match (fs::symlink_metadata(&path), &entry.kind) {
                (Ok(meta), Kind::Folder) if meta.is_dir() => {
                    writable(&path);
                    continue;
                }
                (Ok(meta), Kind::File { .. } | Kind::Stream) if meta.is_file() => {
                    writable(&path);
                    continue;
                }
                (Ok(meta), _) if meta.is_dir() => {
                    return Err(Failure::new(
                        Exit::Exists,
                        format!("{} is in the way", path.display()),
                    )
                    .hint("remove it and run the command again"));
                }
                (Ok(_), _) => {
                    fs::remove_file(&path).map_err(|e| Failure::disk(&e, "removing", &path))?;
                }
                (Err(_), _) => {}
            }
            if entry.kind == Kind::Folder {
                fs::create_dir(&path).map_err(|e| Failure::disk(&e, "making", &path))?;
            }
        }
        Ok(())
    }

    /// Makes the links that stay inside; gives back those that were left out.
    pub(crate) fn make_links(&self, entries: &[Entry]) -> Outcome<Vec<String>> {
        let mut left_out = Vec::new();
        for entry in entries.iter().filter(|entry| !self.is_compared(entry)) {
            let Kind::Link { target } = &entry.kind else {
                continue;
            };
            if !target_stays_inside(target, entry.path.len() - 1) {
                left_out.push(format!(
                    "{} points outside of what was sent, to {}: left out",
                    entry.display(),
                    String::from_utf8_lossy(target)
                ));
                continue;
            }
            let Some(path) = self.path(entry) else {
                continue;
            };
            make_link(&name_of(target), &path).map_err(|e| Failure::disk(&e, "making", &path))?;
        }
        Ok(left_out)
    }

    /// Gives folders their modes and times, innermost first, and everything its final name.
    pub(crate) fn finish(&self, entries: &[Entry]) -> Outcome<()> {
        let folders = entries
            .iter()
            .filter(|e| e.kind == Kind::Folder && !self.is_compared(e));
        for entry in folders.rev() {
            if let Some(path) = self.path(entry) {
                sync_folder(&path);
                set_attributes(&path, entry);
            }
        }
        for top in self.tops.iter().filter(|top| !top.compare) {
            place(top).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => taken_failure(&top.target),
                _ => Failure::disk(&e, "naming", &top.target),
            })?;
        }
        // the names themselves are made durable where the system allows it
        sync_folder(&self.folder);
        Ok(())
    }
}

impl Drop for Staging {
    /// What nothing was written to is not left behind.
    fn drop(&mut self) {
        for top in self.tops.iter().filter(|top| !top.compare) {
            if top.is_folder {
                // removes it only when it is empty
                let _ = fs::remove_dir(&top.part);
            } else if fs::symlink_metadata(&top.part)
                .is_ok_and(|meta| meta.is_file() && meta.len() == 0)
            {
                let _ = fs::remove_file(&top.part);
            }
        }
    }
}

fn part_name(octets: &[u8]) -> OsString {
    let mut name = if octets.len() <= MAX_PART_NAME {
        name_of(octets)
    } else {
        blake3::hash(octets).to_hex().as_str().into()
    };
    name.push(SUFFIX);
    name
}

fn taken_failure(target: &Path) -> Failure {
    Failure::new(
        Exit::Exists,
        format!("{} exists already and is something else", target.display()),
    )
    .hint("--rename keeps both, --overwrite replaces a file, --out DIR chooses another folder")
}

/// Moves a whole file or folder to its final name.
fn place(top: &Top) -> io::Result<()> {
    if top.replace {
        return fs::rename(&top.part, &top.target);
    }
    if exists(&top.target) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if top.is_folder {
        return fs::rename(&top.part, &top.target);
    }
    // a link never replaces what appeared in the meantime
    match fs::hard_link(&top.part, &top.target) {
        Ok(()) => fs::remove_file(&top.part),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => fs::rename(&top.part, &top.target),
    }
}

fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
}

#[cfg(unix)]
fn make_link(target: &std::ffi::OsStr, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn make_link(_: &std::ffi::OsStr, _: &Path) -> io::Result<()> {
    Err(io::Error::other("links can't be made on this system"))
}

/// What an earlier attempt finished may be read-only.
fn writable(path: &Path) {
    #[cfg(unix)]
    if let Ok(meta) = fs::metadata(path) {
        use std::os::unix::fs::PermissionsExt as _;
        let mut permissions = meta.permissions();
        let mode = permissions.mode() | if meta.is_dir() { 0o700 } else { 0o600 };
        permissions.set_mode(mode);
        let _ = fs::set_permissions(path, permissions);
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Mode and time as the sender had them. Failing to is no failure of the transfer: file systems
/// without modes are common.
pub(crate) fn set_attributes(path: &Path, entry: &Entry) {
    if entry.modified != (0, 0) {
        let (seconds, nanos) = entry.modified;
        let epoch = std::time::UNIX_EPOCH;
        let whole = std::time::Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            epoch.checked_sub(whole)
        } else {
            epoch.checked_add(whole)
        };
        let time =
            time.and_then(|time| time.checked_add(std::time::Duration::from_nanos(nanos.into())));
        if let (Some(time), Ok(file)) = (time, File::open(path)) {
            let _ = file.set_modified(time);
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(entry.mode & 0o777));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[&str], kind: Kind) -> Entry {
        Entry {
            path: path.iter().map(|c| c.as_bytes().to_vec()).collect(),
            kind,
            mode: 0o755,
            modified: (1_000_000_000, 0),
        }
    }

    #[test]
    fn a_name_that_is_taken_is_not_replaced_unless_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.txt"), b"mine").unwrap();
        let offer = [entry(&["x.txt"], Kind::File { size: 4 })];
        let staging = Staging::new(dir.path(), &offer, Taken::Compare).unwrap();
        assert!(staging.is_compared(&offer[0]));
        let staging = Staging::new(dir.path(), &offer, Taken::Rename).unwrap();
        assert!(staging.tops[0].target.ends_with("x (1).txt"));
        drop(staging);
        assert!(
            Staging::new(dir.path(), &offer, Taken::Overwrite)
                .unwrap()
                .tops[0]
                .replace
        );
        // a folder is never replaced by a file, nor a file by a folder
        let folder = [entry(&["x.txt"], Kind::Folder)];
        for taken in [Taken::Compare, Taken::Overwrite] {
            let error = Staging::new(dir.path(), &folder, taken).unwrap_err();
            assert_eq!(error.exit, Exit::Exists);
        }
    }

    #[test]
    fn one_name_is_received_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [Kind::File { size: 4 }, Kind::Folder] {
            let offer = [entry(&[if kind == Kind::Folder { "d" } else { "f" }], kind)];
            let first = Staging::new(dir.path(), &offer, Taken::Compare).unwrap();
            let error = Staging::new(dir.path(), &offer, Taken::Compare).unwrap_err();
            assert!(error.message.contains("another vmdt"), "{error}");
            drop(first);
            assert!(Staging::new(dir.path(), &offer, Taken::Compare).is_ok());
        }
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link_that_an_earlier_attempt_left() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let folder = dir.path().join("in");
        fs::create_dir_all(folder.join("d.vmdt.part")).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("d.vmdt.part/sub")).unwrap();
        let offer = [
            entry(&["d"], Kind::Folder),
            entry(&["d", "sub"], Kind::Folder),
            entry(&["d", "sub", "x"], Kind::File { size: 1 }),
        ];
        let staging = Staging::new(&folder, &offer, Taken::Compare).unwrap();
        staging.make_folders(&offer).unwrap();
        assert!(
            fs::symlink_metadata(folder.join("d.vmdt.part/sub"))
                .unwrap()
                .is_dir()
        );
        // and a link in the place of the whole is refused
        std::os::unix::fs::symlink(&outside, folder.join("e.vmdt.part")).unwrap();
        for kind in [Kind::Folder, Kind::File { size: 1 }] {
            let error = Staging::new(&folder, &[entry(&["e"], kind)], Taken::Compare).unwrap_err();
            assert!(error.message.contains("in the way"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_tree_gets_its_links_modes_times_and_name_at_the_end() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut sub = entry(&["d", "sub"], Kind::Folder);
        sub.mode = 0o500;
        let offer = [
            entry(&["d"], Kind::Folder),
            sub,
            entry(
                &["d", "sub", "up"],
                Kind::Link {
                    target: b"../sub".to_vec(),
                },
            ),
            entry(
                &["d", "out"],
                Kind::Link {
                    target: b"../../etc".to_vec(),
                },
            ),
        ];
        let staging = Staging::new(dir.path(), &offer, Taken::Compare).unwrap();
        staging.make_folders(&offer).unwrap();
        assert_eq!(staging.make_links(&offer).unwrap().len(), 1);
        staging.finish(&offer).unwrap();
        let sub = dir.path().join("d/sub");
        assert_eq!(
            fs::metadata(&sub).unwrap().permissions().mode() & 0o777,
            0o500
        );
        assert_eq!(fs::read_link(sub.join("up")).unwrap(), Path::new("../sub"));
        assert!(!exists(&dir.path().join("d/out")));
        let time = fs::metadata(dir.path().join("d"))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(
            time.duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
            1_000_000_000
        );
        fs::set_permissions(&sub, fs::Permissions::from_mode(0o700)).unwrap();
    }
}
