//! Files of transfers: reading what is sent, writing what arrives.
//!
//! A file from the network is written beside its final name under a name that ends in `.part`,
//! synced, and then given its final name in one step that never replaces anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// The most octets of a name that are kept.
const MAX_NAME: usize = 200;
/// Numbers tried before a name is given up as taken.
const MAX_TRIES: u32 = 10_000;

/// Reduces a name from the network to a harmless last component.
///
/// Everything up to the last `/` or `\` is dropped, control characters, characters that steer
/// the direction of text and those that some file systems reserve become `_`, and so does a
/// leading dot. What is left is cut to 200 octets; an empty rest becomes `file`.
///
/// ```
/// use vmdt_node::safe_name;
/// assert_eq!(safe_name("../../etc/passwd"), "passwd");
/// assert_eq!(safe_name("C:\\Windows\\system.ini"), "system.ini");
/// assert_eq!(safe_name(".bashrc"), "_bashrc");
/// assert_eq!(safe_name("..\u{1b}[2J"), "_._[2J");
/// assert_eq!(safe_name("/"), "file");
/// ```
#[must_use]
pub fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut safe: String = last
        .chars()
        .map(|c| {
            let steers = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || steers || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*') {
                '_'
            } else {
                c
            }
        })
        .collect();
    while safe.ends_with([' ', '.']) {
        safe.pop();
    }
    if safe.starts_with('.') {
        safe.replace_range(..1, "_");
    }
    let mut cut = safe.len().min(MAX_NAME);
    while !safe.is_char_boundary(cut) {
        cut -= 1;
    }
    safe.truncate(cut);
    let stem = safe
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(|c: char| c.is_ascii_digit()));
    if device {
        safe.insert(0, '_');
    }
    if safe.is_empty() { "file".into() } else { safe }
}

/// Says what went wrong in words a person can act on.
pub(crate) fn explain(error: &io::Error, doing: &str, path: &Path) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("no space left in {path} while {doing}")
        }
        io::ErrorKind::PermissionDenied => format!("no permission for {doing} {path}"),
        io::ErrorKind::NotFound => format!("{path} does not exist ({doing})"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{path} is on a read-only file system"),
        _ => format!("{doing} {path} failed: {error}"),
    }
}

/// A file that is arriving.
#[derive(Debug)]
pub(crate) struct PartFile {
    folder: PathBuf,
    name: String,
    part: PathBuf,
    file: Option<File>,
}

impl PartFile {
    /// Makes the temporary file. `tag` keeps transfers of one name apart.
    pub(crate) fn create(folder: &Path, name: &str, tag: &str) -> Result<PartFile, String> {
        let name = safe_name(name);
        fs::create_dir_all(folder).map_err(|e| explain(&e, "making the folder", folder))?;
        let part = folder.join(format!("{name}.{tag}.part"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&part)
            .map_err(|e| explain(&e, "making", &part))?;
        Ok(PartFile {
            folder: folder.to_owned(),
            name,
            part,
            file: Some(file),
        })
    }

    pub(crate) fn write(&mut self, octets: &[u8]) -> Result<(), String> {
        match &mut self.file {
            Some(file) => file
                .write_all(octets)
                .map_err(|e| explain(&e, "writing to", &self.folder)),
            None => Err("the file is closed".into()),
        }
    }

    /// Syncs the file and gives it a name that nothing else has.
    pub(crate) fn finish(mut self) -> Result<PathBuf, String> {
        if let Some(file) = self.file.take() {
            file.sync_all()
                .map_err(|e| explain(&e, "syncing", &self.part))?;
        }
        name_it(&self.folder, &self.name, &self.part)
    }
}

/// Gives a part a name that nothing else has.
pub(crate) fn name_it(folder: &Path, name: &str, part: &Path) -> Result<PathBuf, String> {
    for number in 0..MAX_TRIES {
        let target = folder.join(numbered(name, number));
        match place(part, &target) {
            Ok(()) => {
                // the name itself is made durable where the system allows it
                if let Ok(folder) = File::open(folder) {
                    let _ = folder.sync_all();
                }
                return Ok(target);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(explain(&e, "naming", &target)),
        }
    }
    let folder = folder.display();
    Err(format!("too many files are named {name} in {folder}"))
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // after `finish` it has its final name and this finds nothing
        let _ = fs::remove_file(&self.part);
    }
}

/// Moves `part` to `target` unless something is there.
fn place(part: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(part, target) {
        Ok(()) => fs::remove_file(part),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => {
            // no hard links here: take the name first, then replace our own empty file
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(target)?;
            fs::rename(part, target).inspect_err(|_| {
                let _ = fs::remove_file(target);
            })
        }
    }
}

/// `name.ext`, `name (1).ext`, `name (2).ext`, …
pub(crate) fn numbered(name: &str, number: u32) -> String {
    if number == 0 {
        return name.to_owned();
    }
    match name.rsplit_once('.') {
        Some((stem, ext)) if !stem.is_empty() => format!("{stem} ({number}).{ext}"),
        _ => format!("{name} ({number})"),
    }
}

/// When a file was changed, in nanoseconds since 1970.
fn changed_ns(file: &File) -> Option<u128> {
    let at = file.metadata().ok()?.modified().ok()?;
    Some(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos())
}

/// A file that is being sent.
#[derive(Debug)]
pub(crate) struct SourceFile {
    file: File,
    path: PathBuf,
    size: u64,
    read: u64,
}

impl SourceFile {
    pub(crate) fn open(path: &Path) -> Result<SourceFile, String> {
        let file = File::open(path).map_err(|e| explain(&e, "opening", path))?;
        let meta = file.metadata().map_err(|e| explain(&e, "opening", path))?;
        if !meta.is_file() {
            return Err(format!("{} is not a regular file", path.display()));
        }
        Ok(SourceFile {
            file,
            path: path.to_owned(),
            size: meta.len(),
            read: 0,
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn name(&self) -> String {
        self.path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// By what the same file is found again after a restart: where it is, its size, and when it was
    /// changed. `None` for a path that is no text.
    pub(crate) fn reference(&self) -> Option<Bytes> {
        let path = std::path::absolute(&self.path).ok()?;
        let path = path.to_str()?;
        let changed = changed_ns(&self.file).unwrap_or(0);
        Some(format!("{} {changed} {path}", self.size).into())
    }

    /// Opens the file of a [`reference`](Self::reference), if it is still the same.
    pub(crate) fn reopen(reference: &[u8]) -> Result<SourceFile, String> {
        let text = std::str::from_utf8(reference).unwrap_or_default();
        let mut fields = text.splitn(3, ' ');
        let (size, changed) = (fields.next(), fields.next());
        let Some(path) = fields.next() else {
            return Err("what was being sent is not recorded".into());
        };
        let file = SourceFile::open(Path::new(path))?;
        let found = (file.size.to_string(), changed_ns(&file.file).unwrap_or(0));
        if (Some(found.0.as_str()), Some(found.1.to_string().as_str())) == (size, changed) {
            Ok(file)
        } else {
            Err(format!("{path} has changed since it was begun to be sent"))
        }
    }

    /// The next octets, and whether they are the last.
    pub(crate) fn next(&mut self, max: usize) -> Result<(Bytes, bool), String> {
        let want = (self.size - self.read).min(max as u64);
        let mut octets = Vec::with_capacity(want as usize);
        (&self.file)
            .take(want)
            .read_to_end(&mut octets)
            .map_err(|e| explain(&e, "reading", &self.path))?;
        self.read += octets.len() as u64;
        if octets.len() as u64 != want {
            return Err(format!(
                "{} became shorter while it was sent",
                self.path.display()
            ));
        }
        Ok((octets.into(), self.read == self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(test: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("vmdt-files-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn names_never_leave_the_folder_nor_steer_a_terminal() {
        for (name, safe) in [
            ("a.txt", "a.txt"),
            ("/etc/passwd", "passwd"),
            ("..", "file"),
            ("a/..", "file"),
            ("x\0y\r\nz", "x_y__z"),
            ("\u{202e}fdp.exe", "_fdp.exe"),
            ("NUL.txt", "_NUL.txt"),
            ("com1", "_com1"),
            ("trailing. . ", "trailing"),
            ("größe.txt", "größe.txt"),
            ("", "file"),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
        assert_eq!(safe_name(&"ß".repeat(150)).len(), 200);
    }

    #[test]
    fn a_finished_file_never_replaces_another() {
        let dir = folder("replace");
        let mut paths = Vec::new();
        for i in 0..3 {
            let mut part = PartFile::create(&dir, "a.txt", &format!("t{i}")).unwrap();
            part.write(format!("content {i}").as_bytes()).unwrap();
            paths.push(part.finish().unwrap());
        }
        let names: Vec<_> = paths
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.txt", "a (1).txt", "a (2).txt"]);
        for (i, path) in paths.iter().enumerate() {
            assert_eq!(fs::read_to_string(path).unwrap(), format!("content {i}"));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "no .part is left");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = folder("unfinished");
        let mut part = PartFile::create(&dir, "a.txt", "t").unwrap();
        part.write(b"half").unwrap();
        drop(part);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_named_in_the_error() {
        let dir = folder("blocked");
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("file");
        fs::write(&file, b"x").unwrap();
        let error = PartFile::create(&file.join("sub"), "a", "t").unwrap_err();
        assert!(error.contains("file"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_source_is_found_again_if_it_is_the_same() {
        let dir = folder("reference");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a file");
        fs::write(&path, b"12345").unwrap();
        let reference = SourceFile::open(&path).unwrap().reference().unwrap();
        assert_eq!(SourceFile::reopen(&reference).unwrap().size(), 5);
        fs::write(&path, b"123456").unwrap();
        let error = SourceFile::reopen(&reference).unwrap_err();
        assert!(error.contains("has changed"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(SourceFile::reopen(&reference).is_err());
        assert!(SourceFile::reopen(b"").is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_source_says_which_octets_are_the_last() {
        let dir = folder("source");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        fs::write(&path, b"12345").unwrap();
        let mut s = SourceFile::open(&path).unwrap();
        assert_eq!((s.size(), s.name().as_str()), (5, "s"));
        assert_eq!(s.next(3).unwrap(), (Bytes::from_static(b"123"), false));
        assert_eq!(s.next(3).unwrap(), (Bytes::from_static(b"45"), true));
        fs::write(&path, b"").unwrap();
        assert_eq!(
            SourceFile::open(&path).unwrap().next(3).unwrap(),
            (Bytes::new(), true)
        );
        fs::write(&path, b"12345").unwrap();
        let mut s = SourceFile::open(&path).unwrap();
        fs::write(&path, b"1").unwrap();
        assert!(s.next(9).unwrap_err().contains("shorter"));
        assert!(
            SourceFile::open(&dir)
                .unwrap_err()
                .contains("not a regular file")
        );
        assert!(
            SourceFile::open(&dir.join("none"))
                .unwrap_err()
                .contains("does not exist")
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
