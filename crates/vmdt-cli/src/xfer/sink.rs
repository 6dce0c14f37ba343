//! What arrives: written once, in its place, checked against the sender's digests.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::earlier;
use super::entry::{Entry, Kind};
use super::source::MAX_TEXT;
use super::staging::{Staging, Taken, set_attributes};
use super::wire::{Message, Record, haves};
use super::{CHUNK, Digest, chunk_digest, file_digest};
use crate::failure::{Exit, Failure, Outcome};

/// Chunks of a stream that may arrive ahead of one that is missing.
const MAX_AHEAD: u64 = 256;
/// Files beyond which the whole file system is synced once instead of every file.
const SYNC_ONE_BY_ONE: usize = 64;

/// Where content goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Files in a folder.
    Folder { folder: PathBuf, taken: Taken },
    /// Standard output, in order.
    Stdout,
}

/// What stands on disk in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saved {
    /// Final names.
    pub(crate) paths: Vec<PathBuf>,
    /// Those of them that were there already, the same.
    pub(crate) already: Vec<PathBuf>,
    /// A text that is to be shown.
    pub(crate) text: Option<String>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
}

/// How far an entry is.
#[derive(Debug, Default)]
struct Arriving {
    /// Digests of chunks that are on disk.
    have: BTreeMap<u64, Digest>,
    /// Digests of chunks that were confirmed or written in this session.
    digests: BTreeMap<u64, Digest>,
    end: Option<(u64, Digest)>,
    file: Option<File>,
    whole: bool,
}

/// Takes records in any order and puts their content in its place.
#[derive(Debug)]
pub(crate) struct Sink {
    entries: Vec<Entry>,
    arriving: Vec<Arriving>,
    out: Output,
    missing: usize,
    files: usize,
    text: BTreeMap<u64, Bytes>,
}

#[derive(Debug)]
enum Output {
    Folder(Staging),
    Stdout {
        next: u64,
        ahead: BTreeMap<u64, Bytes>,
    },
}

fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK as u64)
}

impl Sink {
    /// Gets ready for what is offered: folders made, an earlier attempt read, space looked for.
    /// Gives the digests to tell the sender.
    ///
    /// # Errors
    /// The first thing that would not work, before anything is sent.
    pub(crate) fn prepare(entries: Vec<Entry>, target: &Target) -> Outcome<(Sink, Vec<Message>)> {
        let mut arriving: Vec<Arriving> = Vec::new();
        arriving.resize_with(entries.len(), Arriving::default);
        let mut runs = Vec::new();
        let out = match target {
            Target::Stdout => {
                let contents = entries.iter().filter(|entry| entry.has_content()).count();
                if contents != 1 || entries.len() != 1 {
                    return Err(Failure::usage(
                        "only one file fits standard output; the sender offers more",
                    )
                    .hint("choose a folder with --out DIR"));
                }
                Output::Stdout {
                    next: 0,
                    ahead: BTreeMap::new(),
                }
            }
            Target::Folder { folder, taken } => {
                let staging = Staging::new(folder, &entries, *taken)?;
                staging.make_folders(&entries)?;
                let mut there = 0u64;
                for ((number, entry), state) in (0u32..).zip(&entries).zip(&mut arriving) {
                    let Some(path) = staging.path(entry).filter(|_| entry.has_content()) else {
                        continue;
                    };
                    state.have = earlier::digests(&path, entry)?;
                    if !staging.is_compared(entry) {
                        there = there.saturating_add(earlier::allocated(&path));
                    }
                    runs.extend(earlier::runs(number, &state.have));
                }
                earlier::look_for_space(&staging, &entries, there)?;
                Output::Folder(staging)
            }
        };
        let files = entries.iter().filter(|entry| entry.has_content()).count();
        let sink = Sink {
            entries,
            arriving,
            out,
            missing: files,
            files,
            text: BTreeMap::new(),
        };
        Ok((sink, haves(runs)))
    }

    /// Puts a record in its place. Gives the octets of content that are there by it.
    ///
    /// # Errors
    /// What the disk says, or what the sender did wrong.
    pub(crate) fn apply(&mut self, record: Record) -> Outcome<u64> {
        let number = match &record {
            Record::Chunk { entry, .. }
            | Record::Same { entry, .. }
            | Record::End { entry, .. } => *entry,
        } as usize;
        let (Some(entry), Some(state)) = (self.entries.get(number), self.arriving.get_mut(number))
        else {
            return Err(wrong("content of something that was not offered"));
        };
        if !entry.has_content() || state.whole {
            return Err(wrong("content where none belongs"));
        }
        let done = match record {
            Record::Chunk { number, octets, .. } => {
                let expected = match entry.kind {
                    Kind::Stream => octets.len() as u64,
                    _ => entry
                        .size()
                        .saturating_sub(number.saturating_mul(CHUNK as u64))
                        .min(CHUNK as u64),
                };
                if octets.is_empty() || octets.len() as u64 != expected {
                    return Err(wrong("a chunk of another length"));
                }
                let first_missing = state.digests.len() as u64;
                if entry.kind == Kind::Stream && number > first_missing.saturating_add(MAX_AHEAD) {
                    return Err(wrong("a chunk far ahead of the others"));
                }
                let digest = chunk_digest(&octets);
                if state.digests.insert(number, digest).is_some() {
                    return Err(wrong("a chunk twice"));
                }
                if matches!(entry.kind, Kind::Text { .. }) {
                    if entry.size() > MAX_TEXT as u64 {
                        return Err(wrong("a text that is too long"));
                    }
                    self.text.insert(number, octets);
                } else {
                    write(&mut self.out, entry, state, number, &octets)?;
                }
                expected
            }
            Record::Same { number, .. } => {
                let Some(digest) = state.have.get(&number) else {
                    return Err(wrong("a chunk as known that is not"));
                };
                if state.digests.insert(number, *digest).is_some() {
                    return Err(wrong("a chunk twice"));
                }
                match entry.kind {
                    Kind::Stream => CHUNK as u64,
                    _ => entry
                        .size()
                        .saturating_sub(number.saturating_mul(CHUNK as u64))
                        .min(CHUNK as u64),
                }
            }
            Record::End { size, digest, .. } => {
                if state.end.replace((size, digest)).is_some() {
                    return Err(wrong("the end of a file twice"));
                }
                if entry.kind != Kind::Stream && size != entry.size() {
                    return Err(wrong("a file of another size than was offered"));
                }
                0
            }
        };
        if let Some((size, digest)) = state.end
            && state.digests.len() as u64 == chunks(size)
        {
            complete(
                &self.out,
                entry,
                state,
                size,
                digest,
                self.files <= SYNC_ONE_BY_ONE,
            )?;
            self.missing -= 1;
        }
        Ok(done)
    }

    /// Whether everything is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Makes everything durable and gives it its final name.
    ///
    /// # Errors
    /// What the disk says, or a name that was taken in the meantime.
    pub(crate) fn finish(mut self) -> Outcome<Saved> {
        let mut saved = Saved::default();
        if self.missing > 0 {
            return Err(wrong("less than was offered"));
        }
        let text: Vec<u8> = std::mem::take(&mut self.text)
            .into_values()
            .flatten()
            .collect();
        if self
            .entries
            .iter()
            .any(|entry| matches!(entry.kind, Kind::Text { .. }))
        {
            saved.text = Some(String::from_utf8_lossy(&text).into_owned());
        }
        match self.out {
            Output::Stdout { .. } => {
                if let Some(text) = &saved.text {
                    stdout(text.as_bytes())?;
                }
            }
            Output::Folder(staging) => {
                if self.files > SYNC_ONE_BY_ONE {
                    sync_all(&staging, &self.entries)?;
                }
                saved.notes = staging.make_links(&self.entries)?;
                staging.finish(&self.entries)?;
                for top in staging.targets() {
                    let list = if top.compare {
                        &mut saved.already
                    } else {
                        &mut saved.paths
                    };
                    list.push(top.target.clone());
                }
            }
        }
        Ok(saved)
    }
}

fn wrong(what: &str) -> Failure {
    Failure::new(Exit::Corrupt, format!("the sender sent {what}"))
        .hint("run the same command again; what arrived whole is not sent twice")
}

fn stdout(octets: &[u8]) -> Outcome<()> {
    let mut out = io::stdout().lock();
    out.write_all(octets)
        .and_then(|()| out.flush())
        .map_err(|e| Failure::new(Exit::Disk, format!("standard output can't be written: {e}")))
}

fn write(
    out: &mut Output,
    entry: &Entry,
    state: &mut Arriving,
    number: u64,
    octets: &Bytes,
) -> Outcome<()> {
    match out {
        Output::Stdout { next, ahead } => {
            ahead.insert(number, octets.clone());
            if ahead.len() as u64 > MAX_AHEAD {
                return Err(wrong("chunks far ahead of one that is missing"));
            }
            while let Some(octets) = ahead.remove(next) {
                stdout(&octets)?;
                *next += 1;
            }
            Ok(())
        }
        Output::Folder(staging) => {
            let Some(path) = staging.path(entry) else {
                return Ok(());
            };
            if staging.is_compared(entry) {
                return Err(differs(staging, entry, &path));
            }
            let file = open(state, &path)?;
            write_at(file, octets, number * CHUNK as u64)
                .map_err(|e| Failure::disk(&e, "writing", &path))
        }
    }
}

fn differs(staging: &Staging, entry: &Entry, path: &Path) -> Failure {
    let name = entry
        .path
        .first()
        .map(|name| String::from_utf8_lossy(name).into_owned());
    Failure::new(
        Exit::Exists,
        format!(
            "{} exists already in {} and is something else ({})",
            name.unwrap_or_default(),
            staging.folder().display(),
            path.display()
        ),
    )
    .hint("--rename keeps both, --overwrite replaces a file, --out DIR chooses another folder")
}

fn open<'a>(state: &'a mut Arriving, path: &Path) -> Outcome<&'a mut File> {
    if state.file.is_none() {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Failure::disk(&e, "writing", path))?;
        state.file = Some(file);
    }
    state
        .file
        .as_mut()
        .ok_or_else(|| Failure::failed("a file is not open"))
}

#[cfg(unix)]
fn write_at(file: &mut File, octets: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, octets, offset)
}

#[cfg(not(unix))]
fn write_at(file: &mut File, octets: &[u8], offset: u64) -> io::Result<()> {
    use std::io::{Seek as _, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(octets)
}

/// An entry has all of its chunks: checks it and closes its file.
fn complete(
    out: &Output,
    entry: &Entry,
    state: &mut Arriving,
    size: u64,
    digest: Digest,
    sync: bool,
) -> Outcome<()> {
    let numbered = state.digests.keys().copied().eq(0..chunks(size));
    if !numbered || file_digest(size, state.digests.values().copied()) != digest {
        return Err(Failure::new(
            Exit::Corrupt,
            format!(
                "{} is not what was sent: its digest differs",
                entry.display()
            ),
        )
        .hint("run the same command again"));
    }
    state.whole = true;
    state.have = BTreeMap::new();
    state.digests = BTreeMap::new();
    let Output::Folder(staging) = out else {
        return Ok(());
    };
    let Some(path) = staging.path(entry) else {
        return Ok(());
    };
    if matches!(entry.kind, Kind::Text { .. }) {
        return Ok(());
    }
    if staging.is_compared(entry) {
        let there = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == size);
        return if there {
            Ok(())
        } else {
            Err(differs(staging, entry, &path))
        };
    }
    open(state, &path)?;
    if let Some(file) = state.file.take() {
        let fail = |e: io::Error| Failure::disk(&e, "writing", &path);
        // an earlier attempt at a longer file
        if file.metadata().map_err(fail)?.len() != size {
            file.set_len(size).map_err(fail)?;
        }
        if sync {
            file.sync_all().map_err(fail)?;
        }
    }
    set_attributes(&path, entry);
    Ok(())
}

/// Makes many files durable at once.
fn sync_all(staging: &Staging, entries: &[Entry]) -> Outcome<()> {
    #[cfg(target_os = "linux")]
    if let Ok(folder) = File::open(staging.folder())
        && rustix::fs::syncfs(&folder).is_ok()
    {
        return Ok(());
    }
    for entry in entries
        .iter()
        .filter(|entry| entry.has_content() && !staging.is_compared(entry))
    {
        let Some(path) = staging.path(entry) else {
            continue;
        };
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|e| Failure::disk(&e, "syncing", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::source::{Have, Source};
    use super::*;

    fn folder(path: &Path) -> Target {
        Target::Folder {
            folder: path.to_owned(),
            taken: Taken::Compare,
        }
    }

    fn have_of(messages: &[Message]) -> Have {
        let mut have = Have::new();
        for message in messages {
            let Message::Have { runs } = message else {
                panic!()
            };
            for run in runs {
                have.entry(run.entry)
                    .or_default()
                    .extend((run.first..).zip(run.digests.iter().copied()));
            }
        }
        have
    }

    /// Records in reverse order of frames, at most `limit` of them.
    fn transfer(source: &Source, target: &Target, limit: usize) -> Outcome<(Option<Saved>, u64)> {
        let (mut sink, haves) = Sink::prepare(source.entries(), target)?;
        let mut frames = source.read(have_of(&haves));
        let mut records = Vec::new();
        let mut carried = 0;
        while let Some(frame) = frames.blocking_recv() {
            let frame = frame?;
            carried += frame.carried;
            records.extend(super::super::source::tests::records_of(frame));
        }
        records.reverse();
        for record in records.into_iter().take(limit) {
            sink.apply(record)?;
        }
        if sink.is_whole() {
            Ok((Some(sink.finish()?), carried))
        } else {
            Ok((None, carried))
        }
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 % 253) as u8).collect()
    }

    #[test]
    fn a_tree_arrives_whatever_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("sub/empty")).unwrap();
        fs::write(tree.join("big"), content(3 * CHUNK + 11)).unwrap();
        fs::write(tree.join("none"), b"").unwrap();
        fs::write(tree.join("sub/small"), b"hello").unwrap();
        let source = Source::paths(&[tree], "stdin").unwrap();
        let out = dir.path().join("out");
        let (saved, _) = transfer(&source, &folder(&out), usize::MAX).unwrap();
        assert_eq!(saved.unwrap().paths, [out.join("tree")]);
        assert_eq!(
            fs::read(out.join("tree/big")).unwrap(),
            content(3 * CHUNK + 11)
        );
        assert_eq!(fs::read(out.join("tree/none")).unwrap(), b"");
        assert!(out.join("tree/sub/empty").is_dir());
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "no part is left");
        // again: it is there already, and nothing is carried
        let (saved, carried) = transfer(&source, &folder(&out), usize::MAX).unwrap();
        assert_eq!((saved.unwrap().already.len(), carried), (1, 0));
    }

    #[test]
    fn an_interrupted_file_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, content(4 * CHUNK)).unwrap();
        let source = Source::paths(&[path], "stdin").unwrap();
        let out = dir.path().join("out");
        // the end and the last two chunks arrived, then it was killed
        let (saved, _) = transfer(&source, &folder(&out), 3).unwrap();
        assert!(saved.is_none() && !out.join("f").exists());
        assert!(out.join("f.vmdt.part").exists());
        let (saved, carried) = transfer(&source, &folder(&out), usize::MAX).unwrap();
        assert!(saved.is_some());
        assert!(carried <= 2 * CHUNK as u64, "{carried}");
        assert_eq!(fs::read(out.join("f")).unwrap(), content(4 * CHUNK));
    }

    #[test]
    fn an_existing_file_that_differs_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"theirs").unwrap();
        let source = Source::paths(&[path], "stdin").unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        for mine in [&b"mine!!"[..], b"", b"longer than theirs"] {
            fs::write(out.join("f"), mine).unwrap();
            let error = transfer(&source, &folder(&out), usize::MAX).unwrap_err();
            assert_eq!(error.exit, Exit::Exists, "{error}");
            assert_eq!(fs::read(out.join("f")).unwrap(), mine);
        }
    }

    #[test]
    fn a_sender_that_contradicts_itself_is_refused() {
        let entry = Entry {
            path: vec![b"f".to_vec()],
            kind: Kind::File { size: 5 },
            mode: 0o644,
            modified: (0, 0),
        };
        let chunk = |number, len: usize| Record::Chunk {
            entry: 0,
            number,
            octets: vec![0; len].into(),
        };
        let end = |size, digest| Record::End {
            entry: 0,
            size,
            digest,
        };
        let right = file_digest(5, [chunk_digest(&[0; 5])]);
        let scripts: [&[Record]; 7] = [
            &[chunk(0, 6)],
            &[chunk(1, 5)],
            &[chunk(0, 5), chunk(0, 5)],
            &[Record::Same {
                entry: 0,
                number: 0,
            }],
            &[chunk(0, 5), end(5, [0; 32])],
            &[end(6, right)],
            &[Record::End {
                entry: 1,
                size: 5,
                digest: right,
            }],
        ];
        for script in scripts {
            let dir = tempfile::tempdir().unwrap();
            let (mut sink, _) = Sink::prepare(vec![entry.clone()], &folder(dir.path())).unwrap();
            let results: Vec<_> = script
                .iter()
                .map(|record| sink.apply(record.clone()))
                .collect();
            assert_eq!(
                results.last().unwrap().as_ref().unwrap_err().exit,
                Exit::Corrupt,
                "{script:?}"
            );
            assert!(!dir.path().join("f").exists());
        }
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, _) = Sink::prepare(vec![entry], &folder(dir.path())).unwrap();
        sink.apply(chunk(0, 5)).unwrap();
        sink.apply(end(5, right)).unwrap();
        assert!(
            sink.apply(chunk(0, 5)).is_err(),
            "nothing comes after the end"
        );
        sink.finish().unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), [0; 5]);
    }

    #[test]
    fn a_text_is_shown_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::text("hi\n".into()).unwrap();
        let (saved, _) = transfer(&source, &folder(dir.path()), usize::MAX).unwrap();
        assert_eq!(saved.unwrap().text.as_deref(), Some("hi\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
