//! What an earlier attempt left on the disk, and whether there is room for the rest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::entry::{Entry, Kind, total};
use super::staging::Staging;
use super::wire::{MAX_DIGESTS, Run};
use super::{CHUNK, Digest, chunk_digest};
use crate::failure::{Exit, Failure, Outcome};

/// Free space that is left to others.
const RESERVE: u64 = 1 << 20;

/// Digests of the chunks of a file that an earlier attempt, or somebody, left.
pub(crate) fn digests(path: &Path, entry: &Entry) -> Outcome<BTreeMap<u64, Digest>> {
    let mut digests = BTreeMap::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(digests),
        Err(e) => return Err(Failure::disk(&e, "reading", path)),
    };
    let limit = match entry.kind {
        Kind::Stream => u64::MAX,
        _ => entry.size(),
    };
    let mut file = file.take(limit);
    let mut octets = Vec::new();
    for number in 0u64.. {
        octets.clear();
        (&mut file)
            .take(CHUNK as u64)
            .read_to_end(&mut octets)
            .map_err(|e| Failure::disk(&e, "reading", path))?;
        let filled = octets.len();
        let expected = match entry.kind {
            // where a stream ends is not known: only whole chunks can be told to be the same
            Kind::Stream => CHUNK as u64,
            _ => limit
                .saturating_sub(number * CHUNK as u64)
                .min(CHUNK as u64),
        };
        if filled == 0 || (filled as u64) < expected {
            break;
        }
        digests.insert(number, chunk_digest(&octets));
    }
    Ok(digests)
}

/// Digests of an entry in runs that fit a message.
pub(crate) fn runs(entry: u32, have: &BTreeMap<u64, Digest>) -> Vec<Run> {
    let digests: Vec<Digest> = have.values().copied().collect();
    (0u64..)
        .step_by(MAX_DIGESTS)
        .zip(digests.chunks(MAX_DIGESTS))
        .map(|(first, digests)| Run {
            entry,
            first,
            digests: digests.to_vec(),
        })
        .collect()
}

/// Octets that a file takes on disk already.
pub(crate) fn allocated(path: &Path) -> u64 {
    let Ok(meta) = fs::metadata(path) else {
        return 0;
    };
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(&meta).saturating_mul(512);
    #[cfg(not(unix))]
    return meta.len();
}

/// Looks whether what is not there yet fits the disk; `there` octets are.
///
/// # Errors
/// [`Exit::Disk`], with what is needed and what is free.
pub(crate) fn look_for_space(staging: &Staging, entries: &[Entry], there: u64) -> Outcome<()> {
    let new: Vec<Entry> = entries
        .iter()
        .filter(|entry| !staging.is_compared(entry))
        .cloned()
        .collect();
    let Some(total) = total(&new) else {
        return Ok(());
    };
    let needed = total.saturating_sub(there);
    let Ok(free) = fs4::available_space(staging.folder()) else {
        return Ok(());
    };
    if needed > 0 && needed.saturating_add(RESERVE) > free {
        return Err(Failure::new(
            Exit::Disk,
            format!(
                "no space left in {}: {} are needed, {} are free",
                staging.folder().display(),
                crate::text::octets(needed),
                crate::text::octets(free)
            ),
        )
        .hint("make room or choose another folder with --out DIR"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sink::{Sink, Target};
    use super::super::staging::Taken;
    use super::*;

    #[test]
    fn too_little_space_is_told_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry {
            path: vec![b"huge".to_vec()],
            kind: Kind::File { size: u64::MAX / 2 },
            mode: 0o644,
            modified: (0, 0),
        };
        let target = Target::Folder {
            folder: dir.path().to_owned(),
            taken: Taken::Compare,
        };
        let error = Sink::prepare(vec![entry], &target).unwrap_err();
        assert_eq!(error.exit, Exit::Disk);
        assert!(error.message.contains("are needed"), "{error}");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }

    #[test]
    fn whole_chunks_of_an_earlier_attempt_are_told_and_pieces_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let entry = |size| Entry {
            path: vec![b"f".to_vec()],
            kind: Kind::File { size },
            mode: 0o644,
            modified: (0, 0),
        };
        assert!(digests(&path, &entry(9)).unwrap().is_empty(), "not there");
        fs::write(&path, vec![7; 2 * CHUNK + 5]).unwrap();
        let of = |size| digests(&path, &entry(size)).unwrap();
        assert_eq!(
            of(2 * CHUNK as u64 + 5).len(),
            3,
            "the last one may be short"
        );
        assert_eq!(of(3 * CHUNK as u64).len(), 2, "a piece of a chunk is none");
        assert_eq!(
            of(CHUNK as u64).len(),
            1,
            "what is beyond the end is not looked at"
        );
        let stream = Entry {
            kind: Kind::Stream,
            ..entry(0)
        };
        assert_eq!(digests(&path, &stream).unwrap().len(), 2);
        let told = runs(4, &of(3 * CHUNK as u64));
        assert_eq!((told.len(), told[0].entry, told[0].first), (1, 4, 0));
        assert_eq!(told[0].digests, [chunk_digest(&vec![7; CHUNK]); 2]);
    }
}
