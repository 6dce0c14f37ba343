//! What is sent: the walk over files and folders, and their octets as frames.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::entry::{Entry, Kind, MAX_DEPTH, MAX_ENTRIES};
use super::wire::{Packed, RECORD_HEAD, Record};
use super::{CHUNK, Digest, file_digest};
use crate::failure::{Exit, Failure, Outcome};

/// The longest text that is shown at the receiver's.
pub(crate) const MAX_TEXT: usize = 64 * 1024;
/// Frames that were read and wait to be sent.
const READ_AHEAD: usize = 1;

/// Where the octets of an entry come from.
#[derive(Debug, Clone)]
enum Content {
    None,
    Path(PathBuf),
    Stdin,
    Octets(Bytes),
}

/// An entry with its content.
#[derive(Debug, Clone)]
struct Item {
    entry: Entry,
    content: Content,
}

/// Everything that one `send` sends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    items: Vec<Item>,
    /// What was left out, for the person who sends.
    pub(crate) skipped: Vec<String>,
}

impl Source {
    /// A text to be shown.
    pub(crate) fn text(text: String) -> Outcome<Source> {
        if text.len() > MAX_TEXT {
            return Err(Failure::usage(format!(
                "a text may have {MAX_TEXT} octets, this one has {}",
                text.len()
            ))
            .hint("send it as a file, or through standard input: vmdt send -"));
        }
        let entry = Entry {
            path: vec![b"text".to_vec()],
            kind: Kind::Text {
                size: text.len() as u64,
            },
            mode: 0o600,
            modified: (0, 0),
        };
        Ok(Source {
            items: vec![Item {
                entry,
                content: Content::Octets(Bytes::from(text)),
            }],
            skipped: Vec::new(),
        })
    }

    /// Files and folders by their paths; `-` is standard input, which gets `stdin_name`.
    pub(crate) fn paths(paths: &[PathBuf], stdin_name: &str) -> Outcome<Source> {
        let mut source = Source::default();
        for path in paths {
            if path.as_os_str() == "-" {
                source.add_stdin(stdin_name)?;
            } else {
                source.add(path)?;
            }
        }
        let mut names = std::collections::BTreeSet::new();
        for item in source
            .items
            .iter()
            .filter(|item| item.entry.path.len() == 1)
        {
            if !names.insert(&item.entry.path) {
                return Err(Failure::usage(format!(
                    "two things named {} can't be sent at once",
                    item.entry.display()
                ))
                .hint("send the folder that holds them, or rename one"));
            }
        }
        Ok(source)
    }

    fn add_stdin(&mut self, name: &str) -> Outcome<()> {
        if self
            .items
            .iter()
            .any(|item| matches!(item.content, Content::Stdin))
        {
            return Err(Failure::usage("standard input can be sent once"));
        }
        let entry = Entry {
            path: vec![name.as_bytes().to_vec()],
            kind: Kind::Stream,
            mode: 0o644,
            modified: (0, 0),
        };
        self.push(entry, Content::Stdin)
    }

    /// A path that somebody named: a link stands for what it points to.
    fn add(&mut self, path: &Path) -> Outcome<()> {
        let meta = fs::metadata(path).map_err(|e| Failure::disk(&e, "reading", path))?;
        let name = match path.file_name() {
            Some(name) => name.to_owned(),
            None => fs::canonicalize(path)
                .ok()
                .and_then(|path| path.file_name().map(ToOwned::to_owned))
                .unwrap_or_else(|| "root".into()),
        };
        self.add_as(path, vec![name_octets(&name)], &meta)
    }

    fn add_as(&mut self, path: &Path, name: Vec<Vec<u8>>, meta: &Metadata) -> Outcome<()> {
        let mut entry = Entry {
            path: name,
            kind: Kind::Folder,
            mode: mode_of(meta),
            modified: modified_of(meta),
        };
        if meta.is_dir() {
            if entry.path.len() >= MAX_DEPTH {
                return Err(Failure::failed(format!(
                    "{} lies too deep: {MAX_DEPTH} folders are the limit",
                    path.display()
                )));
            }
            let folder = entry.path.clone();
            self.push(entry, Content::None)?;
            let fail = |e: io::Error| Failure::disk(&e, "reading", path);
            let mut inside = fs::read_dir(path)
                .map_err(fail)?
                .collect::<io::Result<Vec<_>>>()
                .map_err(fail)?;
            inside.sort_by_key(fs::DirEntry::file_name);
            for item in inside {
                let path = item.path();
                let meta =
                    fs::symlink_metadata(&path).map_err(|e| Failure::disk(&e, "reading", &path))?;
                let mut name = folder.clone();
                name.push(name_octets(&item.file_name()));
                self.add_as(&path, name, &meta)?;
            }
            return Ok(());
        }
        if meta.is_symlink() {
            let target = fs::read_link(path).map_err(|e| Failure::disk(&e, "reading", path))?;
            entry.kind = Kind::Link {
                target: name_octets(target.as_os_str()),
            };
            return self.push(entry, Content::None);
        }
        if meta.is_file() {
            // what can't be read is better known before anybody waits for it
            File::open(path).map_err(|e| Failure::disk(&e, "reading", path))?;
            entry.kind = Kind::File { size: meta.len() };
            return self.push(entry, Content::Path(path.to_owned()));
        }
        self.skipped.push(format!(
            "{} is neither file, folder nor link",
            path.display()
        ));
        Ok(())
    }

    fn push(&mut self, entry: Entry, content: Content) -> Outcome<()> {
        if self.items.len() >= MAX_ENTRIES {
            return Err(Failure::failed(format!(
                "more than {MAX_ENTRIES} files can't be sent at once"
            )));
        }
        self.items.push(Item { entry, content });
        Ok(())
    }

    /// The entries to offer.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.items.iter().map(|item| item.entry.clone()).collect()
    }

    /// Whether the content can be read more than once.
    pub(crate) fn is_repeatable(&self) -> bool {
        !self
            .items
            .iter()
            .any(|item| matches!(item.content, Content::Stdin))
    }

    /// Reads everything, on a thread of its own, as frames. Chunks that the receiver has are read
    /// and compared, not sent. Reading ends early when the frames' receiver is dropped.
    pub(crate) fn read(&self, have: Have) -> mpsc::Receiver<Outcome<Frame>> {
        let (frames, out) = mpsc::channel(READ_AHEAD);
        let items = self.items.clone();
        std::thread::spawn(move || {
            let mut packer = Packer {
                frames,
                frame: Frame::default(),
            };
            for (number, item) in (0..).zip(&items) {
                let result = match &item.content {
                    Content::None => continue,
                    Content::Path(path) => File::open(path)
                        .map_err(|e| Failure::disk(&e, "reading", path))
                        .and_then(|mut file| packer.read(number, &mut file, &item.entry, &have)),
                    Content::Stdin => {
                        packer.read(number, &mut io::stdin().lock(), &item.entry, &have)
                    }
                    Content::Octets(octets) => {
                        packer.read(number, &mut octets.as_ref(), &item.entry, &have)
                    }
                };
                match result {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(failure) => {
                        let _ = packer.frames.blocking_send(Err(failure));
                        return;
                    }
                }
            }
            packer.flush();
        });
        out
    }
}

/// Digests of chunks that the receiver has, by entry and chunk.
pub(crate) type Have = BTreeMap<u32, BTreeMap<u64, Digest>>;

/// Content that is sent as one message.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) packed: Packed,
    /// Octets of content that it carries.
    pub(crate) carried: u64,
    /// Octets of content that the receiver has already.
    pub(crate) same: u64,
}

struct Packer {
    frames: mpsc::Sender<Outcome<Frame>>,
    frame: Frame,
}

impl Packer {
    /// Sends what is collected; false when nobody wants it.
    fn flush(&mut self) -> bool {
        if self.frame.packed.is_empty() {
            return true;
        }
        self.frames
            .blocking_send(Ok(std::mem::take(&mut self.frame)))
            .is_ok()
    }

    /// Makes room for a record of so many octets; false when nobody wants more.
    fn room(&mut self, octets: usize) -> bool {
        let len = self.frame.packed.len();
        len == 0 || len + octets <= CHUNK + RECORD_HEAD || self.flush()
    }

    /// One entry, chunk by chunk; false when nobody wants more.
    fn read(
        &mut self,
        entry: u32,
        from: &mut impl Read,
        what: &Entry,
        have: &Have,
    ) -> Outcome<bool> {
        let have = have.get(&entry);
        let known = (what.kind != Kind::Stream).then(|| what.size());
        let mut left = known.unwrap_or(u64::MAX);
        let (mut size, mut digests) = (0u64, Vec::new());
        for number in 0u64.. {
            if left == 0 {
                break;
            }
            let most = left.min(CHUNK as u64) as usize;
            if !self.room(RECORD_HEAD + most) {
                return Ok(false);
            }
            let there = |digest: &Digest| have.and_then(|have| have.get(&number)) == Some(digest);
            let read = self.frame.packed.chunk((entry, number), most, from, there);
            let read =
                read.map_err(|e| Failure::disk(&e, "reading", Path::new(&what.display())))?;
            let Some((digest, len, same)) = read else {
                break;
            };
            let len = len as u64;
            left -= len;
            size += len;
            digests.push(digest);
            let count = if same {
                &mut self.frame.same
            } else {
                &mut self.frame.carried
            };
            *count += len;
        }
        if known.is_some_and(|known| known != size) {
            return Err(Failure::failed(format!(
                "{} became shorter while it was sent",
                what.display()
            )));
        }
        if !self.room(0) {
            return Ok(false);
        }
        self.frame.packed.record(&Record::End {
            entry,
            size,
            digest: file_digest(size, digests),
        });
        Ok(true)
    }
}

#[cfg(unix)]
fn name_octets(name: &std::ffi::OsStr) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec()
}

#[cfg(not(unix))]
fn name_octets(name: &std::ffi::OsStr) -> Vec<u8> {
    name.to_string_lossy().replace('\\', "/").into_bytes()
}

#[cfg(unix)]
fn mode_of(meta: &Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(meta) & 0o777
}

#[cfg(not(unix))]
fn mode_of(meta: &Metadata) -> u32 {
    match (meta.is_dir(), meta.permissions().readonly()) {
        (true, _) => 0o755,
        (false, true) => 0o444,
        (false, false) => 0o644,
    }
}

fn modified_of(meta: &Metadata) -> (i64, u32) {
    let Ok(time) = meta.modified() else {
        return (0, 0);
    };
    match time.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanos => (seconds - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// The failure of a source that gave other content the second time.
pub(crate) fn not_repeatable() -> Failure {
    Failure::new(
        Exit::Vanished,
        "the receiver vanished, and standard input can't be read again",
    )
    .hint("run both commands again; what arrived already is not sent twice")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::chunk_digest;
    use super::super::wire::Message;
    use super::*;

    /// What a frame holds, as the receiver reads it.
    pub(crate) fn records_of(frame: Frame) -> Vec<Record> {
        match Message::decode(&frame.packed.encode(0)) {
            Some((0, Message::Frame { records })) => records,
            other => panic!("{other:?}"),
        }
    }

    fn drain(source: &Source, have: Have) -> Outcome<Vec<Frame>> {
        let mut frames = source.read(have);
        let mut all = Vec::new();
        while let Some(frame) = frames.blocking_recv() {
            all.push(frame?);
        }
        Ok(all)
    }

    #[test]
    fn a_tree_is_walked_in_order_with_its_folders_first() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("b/empty")).unwrap();
        fs::write(tree.join("a"), b"1").unwrap();
        fs::write(tree.join("b/c"), b"22").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../a", tree.join("b/link")).unwrap();
        let source = Source::paths(&[tree], "stdin").unwrap();
        let names: Vec<_> = source.entries().iter().map(Entry::display).collect();
        #[cfg(unix)]
        assert_eq!(
            names,
            [
                "tree",
                "tree/a",
                "tree/b",
                "tree/b/c",
                "tree/b/empty",
                "tree/b/link"
            ]
        );
        assert_eq!(super::super::entry::total(&source.entries()), Some(3));
    }

    #[test]
    fn chunks_the_receiver_has_are_not_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..CHUNK * 2 + 5).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let source = Source::paths(&[path], "stdin").unwrap();
        let digests: Vec<_> = content.chunks(CHUNK).map(chunk_digest).collect();
        // the first chunk is right, the second one is something else
        let have = Have::from([(0, BTreeMap::from([(0, digests[0]), (1, [0; 32])]))]);
        let frames = drain(&source, have).unwrap();
        let (same, carried): (u64, u64) = frames
            .iter()
            .fold((0, 0), |sum, f| (sum.0 + f.same, sum.1 + f.carried));
        let records: Vec<_> = frames.into_iter().flat_map(records_of).collect();
        assert_eq!(
            records[0],
            Record::Same {
                entry: 0,
                number: 0
            }
        );
        assert!(matches!(records[1], Record::Chunk { number: 1, .. }));
        assert!(
            matches!(&records[2], Record::Chunk { number: 2, octets, .. } if octets.len() == 5)
        );
        let end = Record::End {
            entry: 0,
            size: content.len() as u64,
            digest: file_digest(content.len() as u64, digests),
        };
        assert_eq!(records[3], end);
        assert_eq!((same, carried), (CHUNK as u64, CHUNK as u64 + 5));
    }

    #[test]
    fn small_files_share_a_frame() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..100 {
            fs::write(dir.path().join(format!("{number:03}")), [7; 100]).unwrap();
        }
        let source = Source::paths(&[dir.path().to_owned()], "stdin").unwrap();
        assert_eq!(drain(&source, Have::new()).unwrap().len(), 1);
    }

    #[test]
    fn what_can_not_be_sent_is_said_before_anybody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        assert!(
            Source::paths(&[none], "stdin")
                .unwrap_err()
                .message
                .contains("does not exist")
        );
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for folder in [&a, &b] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("x"), b"").unwrap();
        }
        let error = Source::paths(&[a.join("x"), b.join("x")], "stdin").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(Source::paths(&["-".into(), "-".into()], "stdin").is_err());
        assert!(Source::text("x".repeat(MAX_TEXT + 1)).is_err());
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"12345").unwrap();
        let source = Source::paths(std::slice::from_ref(&path), "stdin").unwrap();
        fs::write(&path, b"1").unwrap();
        assert!(
            drain(&source, Have::new())
                .unwrap_err()
                .message
                .contains("shorter")
        );
    }
}
