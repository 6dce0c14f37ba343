//! Version 2 shares of a file on disk: one file holds one share of every segment.
//!
//! `VMDTSHR` 0x02 | index u8 | k u8 | n u8 | name length u8 | name, then for every segment:
//! manifest length u32 | manifest | share length u32 | share. Numbers are big-endian. A segment is
//! [`SEGMENT`] octets of the file; the last one is shorter, or empty for an empty file.
//!
//! The manifests are not signed: whoever holds all files of a combination could forge them
//! together. Files that do not agree on a manifest are found, and so is every share that its
//! manifest does not list.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vmdt_ssms::v2::{MANIFEST_MAX_LEN, Manifest, Sealed};

use crate::failure::{Exit, Failure, Outcome};

/// What a share file begins with.
pub(crate) const MARK: &[u8; 8] = b"VMDTSHR\x02";
/// Octets of the file in one segment.
pub(crate) const SEGMENT: usize = 1 << 22;
/// The longest share of a segment: the segment whole, and a head.
const MAX_SHARE: usize = SEGMENT + 1024;

/// What stands at the beginning of a share file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) index: u8,
    pub(crate) k: u8,
    pub(crate) n: u8,
    /// The name of the file that was split.
    pub(crate) name: String,
}

/// Writes a share file.
pub(crate) struct Writer {
    file: BufWriter<File>,
    pub(crate) path: PathBuf,
    index: NonZeroU8,
}

impl Writer {
    pub(crate) fn create(path: &Path, head: &Head, overwrite: bool) -> Outcome<Writer> {
        let fail = |e: io::Error| Failure::disk(&e, "making", path);
        let mut options = File::options();
        options.write(true);
        if overwrite {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let mut file = BufWriter::with_capacity(1 << 18, options.open(path).map_err(fail)?);
        let mut name = head.name.as_bytes();
        while name.len() > 255 {
            name = name.get(..255).unwrap_or_default();
        }
        let mut octets = MARK.to_vec();
        octets.extend([head.index, head.k, head.n, name.len() as u8]);
        octets.extend(name);
        file.write_all(&octets).map_err(fail)?;
        let index =
            NonZeroU8::new(head.index).ok_or_else(|| Failure::failed("a share needs an index"))?;
        Ok(Writer {
            file,
            path: path.to_owned(),
            index,
        })
    }

    /// Adds this file's share of a segment.
    pub(crate) fn add(&mut self, manifest: &[u8], sealed: &Sealed) -> Outcome<()> {
        let Some(share) = sealed
            .shares
            .iter()
            .find(|share| share.index() == self.index)
        else {
            return Err(Failure::failed("a segment has no share for this file"));
        };
        let mut write = || -> io::Result<()> {
            self.file
                .write_all(&(manifest.len() as u32).to_be_bytes())?;
            self.file.write_all(manifest)?;
            self.file.write_all(&(share.len() as u32).to_be_bytes())?;
            self.file.write_all(share.head())?;
            self.file.write_all(share.body())
        };
        write().map_err(|e| Failure::disk(&e, "writing", &self.path))
    }

    /// Makes it durable.
    pub(crate) fn finish(mut self) -> Outcome<PathBuf> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(|e| Failure::disk(&e, "writing", &self.path))?;
        Ok(self.path)
    }
}

/// Reads a share file.
#[derive(Debug)]
pub(crate) struct Reader {
    file: BufReader<File>,
    pub(crate) path: PathBuf,
    pub(crate) head: Head,
}

/// One segment of a share file.
pub(crate) struct Piece {
    pub(crate) manifest: Manifest,
    pub(crate) share: Bytes,
}

impl Reader {
    /// Opens a share file; `None` when it is no version 2 share.
    pub(crate) fn open(path: &Path) -> Outcome<Option<Reader>> {
        let fail = |e: io::Error| Failure::disk(&e, "reading", path);
        let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(fail)?);
        let mut mark = [0; 8];
        match file.read_exact(&mut mark) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(fail(e)),
            Ok(()) if &mark != MARK => return Ok(None),
            Ok(()) => {}
        }
        let cut = |_| damaged(path, "it ends within its head");
        let mut fixed = [0; 4];
        file.read_exact(&mut fixed).map_err(cut)?;
        let [index, k, n, len] = fixed;
        let mut name = vec![0; usize::from(len)];
        file.read_exact(&mut name).map_err(cut)?;
        if k < 2 || n < k || index == 0 || index > n {
            return Err(damaged(path, "its head contradicts itself"));
        }
        let head = Head {
            index,
            k,
            n,
            name: String::from_utf8_lossy(&name).into_owned(),
        };
        Ok(Some(Reader {
            file,
            path: path.to_owned(),
            head,
        }))
    }

    /// The next segment; `None` at the end.
    pub(crate) fn next(&mut self) -> Outcome<Option<Piece>> {
        let Some(manifest) = self.block(MANIFEST_MAX_LEN)? else {
            return Ok(None);
        };
        let manifest = Manifest::parse_unverified(&manifest)
            .map_err(|e| damaged(&self.path, &format!("a manifest can't be read: {e}")))?;
        let share = self
            .block(MAX_SHARE)?
            .ok_or_else(|| damaged(&self.path, "it ends within a segment"))?;
        Ok(Some(Piece {
            manifest,
            share: share.into(),
        }))
    }

    fn block(&mut self, max: usize) -> Outcome<Option<Vec<u8>>> {
        let mut len = [0; 4];
        match self.file.read_exact(&mut len) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(Failure::disk(&e, "reading", &self.path)),
            Ok(()) => {}
        }
        let len = u32::from_be_bytes(len) as usize;
        if len > max {
            return Err(damaged(&self.path, "a length in it is impossible"));
        }
        let mut octets = vec![0; len];
        self.file
            .read_exact(&mut octets)
            .map_err(|_| damaged(&self.path, "it ends within a segment"))?;
        Ok(Some(octets))
    }
}

pub(crate) fn damaged(path: &Path, why: &str) -> Failure {
    Failure::new(
        Exit::Corrupt,
        format!("{} is damaged: {why}", path.display()),
    )
    .hint("leave it out and give another share in its place")
}
