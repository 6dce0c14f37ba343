//! Shares on disk: `split`, `combine`, `verify`, `inspect`, `refresh`.

mod container;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use serde_json::json;
use vmdt_ssms::shamir::{KeyShare, refreshed, zero_sharing};
use vmdt_ssms::v2::{Collector, Envelope, PartyId, Position, Recipient, Sealer};
use vmdt_ssms::{HEAD_LEN, MAX_MESSAGE_LEN, Share, Threshold, reconstruct, split};

use crate::cli::{CombineArgs, RefreshArgs, ShareVersion, SharesArgs, SplitArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::Out;
use crate::text::{count, hex, octets, printable};
use container::{Head, Piece, Reader, SEGMENT, Writer, damaged};

/// Where the key share stands in the head of a version 1 share.
const KEY_SHARE: std::ops::Range<usize> = 22..54;

fn share_path(folder: &Path, file: &Path, index: u8) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    folder.join(format!("{stem}_share{index}.bin"))
}

/// `vmdt split`
pub(crate) fn run_split(args: &SplitArgs, out: &Out) -> Outcome<()> {
    let threshold = Threshold::new(args.k, args.n).map_err(|e| Failure::usage(e.to_string()))?;
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => args.file.parent().unwrap_or(Path::new("")).to_owned(),
    };
    if !folder.as_os_str().is_empty() {
        fs::create_dir_all(&folder).map_err(|e| Failure::disk(&e, "making", &folder))?;
    }
    let paths: Vec<PathBuf> = (1..=args.n)
        .map(|index| share_path(&folder, &args.file, index))
        .collect();
    if !args.overwrite
        && let Some(taken) = paths.iter().find(|path| fs::symlink_metadata(path).is_ok())
    {
        return Err(
            Failure::new(Exit::Exists, format!("{} exists already", taken.display()))
                .hint("--overwrite replaces shares, --out DIR chooses another folder"),
        );
    }
    let result = match args.format {
        ShareVersion::V1 => split_v1(args, threshold, &paths),
        ShareVersion::V2 => split_v2(args, threshold, &paths),
    };
    if result.is_err() && !args.overwrite {
        // half a set of shares is of use to nobody
        for path in &paths {
            let _ = fs::remove_file(path);
        }
    }
    let size = result?;
    for path in &paths {
        out.result(printable(&path.to_string_lossy()))?;
    }
    out.say(format!(
        "any {} of these {} rebuild {} ({})",
        args.k,
        args.n,
        printable(&args.file.to_string_lossy()),
        octets(size)
    ));
    if args.format == ShareVersion::V1 {
        out.say("note: version 1 shares do not show when one was altered; version 2 shares do");
    }
    let list: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    out.event(
        "split",
        json!({ "octets": size, "k": args.k, "n": args.n, "shares": list }),
    );
    Ok(())
}

fn split_v1(args: &SplitArgs, threshold: Threshold, paths: &[PathBuf]) -> Outcome<u64> {
    let fail = |e: io::Error| Failure::disk(&e, "reading", &args.file);
    let size = fs::metadata(&args.file).map_err(fail)?.len();
    if size > u64::from(MAX_MESSAGE_LEN) {
        return Err(
            Failure::usage("version 1 shares are limited to files of 4 GiB")
                .hint("leave out --format 1"),
        );
    }
    let message = fs::read(&args.file).map_err(fail)?;
    let shares = split(threshold, message, &mut UnwrapErr(SysRng)).map_err(Failure::failed)?;
    for (share, path) in shares.iter().zip(paths) {
        write_all(path, &[share.head(), share.body()], args.overwrite)?;
    }
    Ok(size)
}

fn write_all(path: &Path, parts: &[&[u8]], overwrite: bool) -> Outcome<()> {
    let mut options = File::options();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = options
        .open(path)
        .map_err(|e| Failure::disk(&e, "making", path))?;
    parts
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| file.sync_all())
        .map_err(|e| Failure::disk(&e, "writing", path))
}

fn split_v2(args: &SplitArgs, threshold: Threshold, paths: &[PathBuf]) -> Outcome<u64> {
    let fail = |e: io::Error| Failure::disk(&e, "reading", &args.file);
    let mut file = File::open(&args.file).map_err(fail)?;
    let name = args
        .file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut writers = Vec::new();
    for (index, path) in (1u8..=255).zip(paths) {
        let head = Head {
            index,
            k: args.k,
            n: args.n,
            name: name.clone(),
        };
        writers.push(Writer::create(path, &head, args.overwrite)?);
    }
    let nobody = PartyId::new(b"").map_err(Failure::failed)?;
    let envelope = Envelope::new(crate::random()?, nobody, Recipient::One(nobody));
    let sealer = Sealer::new(threshold, envelope);
    let mut rng = UnwrapErr(SysRng);
    let mut offset = 0u64;
    let mut segment = read_segment(&mut file).map_err(fail)?;
    for number in 0u64.. {
        // whether a segment is the last one shows when the next one is empty
        let next = if segment.len() == SEGMENT {
            read_segment(&mut file).map_err(fail)?
        } else {
            Vec::new()
        };
        let position = Position {
            number,
            offset,
            last: next.is_empty(),
        };
        let sealed = sealer
            .seal_segment(position, &segment, &mut rng)
            .map_err(Failure::failed)?;
        let manifest = sealed.manifest.encode();
        for writer in &mut writers {
            writer.add(&manifest, &sealed)?;
        }
        offset += segment.len() as u64;
        if next.is_empty() {
            break;
        }
        segment = next;
    }
    for writer in writers {
        writer.finish()?;
    }
    Ok(offset)
}

fn read_segment(file: &mut File) -> io::Result<Vec<u8>> {
    let mut segment = Vec::new();
    file.take(SEGMENT as u64).read_to_end(&mut segment)?;
    Ok(segment)
}

/// Share files of one version.
enum Shares {
    V1(Vec<(PathBuf, Share)>),
    V2(Vec<Reader>),
}

fn open(paths: &[PathBuf]) -> Outcome<Shares> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for path in paths {
        match Reader::open(path)? {
            Some(reader) => second.push(reader),
            None => first.push((path.clone(), read_v1(path)?)),
        }
    }
    match (first.is_empty(), second.is_empty()) {
        (false, false) => Err(Failure::usage(
            "these are shares of version 1 and of version 2: they don't belong together",
        )),
        (false, true) => Ok(Shares::V1(first)),
        _ => Ok(Shares::V2(second)),
    }
}

fn read_v1(path: &Path) -> Outcome<Share> {
    let fail = |e: io::Error| Failure::disk(&e, "reading", path);
    let size = fs::metadata(path).map_err(fail)?.len();
    if size > u64::from(MAX_MESSAGE_LEN) + HEAD_LEN as u64 + 4096 {
        return Err(Failure::new(
            Exit::Corrupt,
            format!("{} is no share: it is too large", path.display()),
        ));
    }
    let octets = fs::read(path).map_err(fail)?;
    Share::parse(octets.into()).map_err(|e| {
        Failure::new(
            Exit::Corrupt,
            format!("{} is no share: {e}", path.display()),
        )
    })
}

/// `vmdt combine`
pub(crate) fn run_combine(args: &CombineArgs, out: &Out) -> Outcome<()> {
    let shares = open(&args.shares)?;
    let target = match (&args.out, &shares) {
        (Some(path), _) => path.clone(),
        (None, Shares::V2(readers)) => {
            let name = readers
                .first()
                .map_or("", |reader| reader.head.name.as_str());
            PathBuf::from(vmdt_node::safe_name(name))
        }
        (None, Shares::V1(_)) => {
            return Err(
                Failure::usage("version 1 shares do not know the name of the file")
                    .hint("--out FILE gives it"),
            );
        }
    };
    let to_stdout = target.as_os_str() == "-";
    if !to_stdout && !args.overwrite && fs::symlink_metadata(&target).is_ok() {
        return Err(
            Failure::new(Exit::Exists, format!("{} exists already", target.display()))
                .hint("--overwrite replaces it, --out FILE chooses another name"),
        );
    }
    let mut part = target.clone().into_os_string();
    part.push(".vmdt.part");
    let part = PathBuf::from(part);
    let mut writer: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(&part).map_err(|e| Failure::disk(&e, "making", &part))?)
    };
    let result = match shares {
        Shares::V1(shares) => combine_v1(&shares, &mut writer, &target),
        Shares::V2(readers) => combine_v2(readers, &mut writer, &target, out),
    };
    let result = result.and_then(|size| {
        writer
            .flush()
            .map_err(|e| Failure::disk(&e, "writing", &target))?;
        Ok(size)
    });
    drop(writer);
    if to_stdout {
        return result.map(drop);
    }
    let placed = result.and_then(|size| {
        let fail = |e: io::Error| Failure::disk(&e, "writing", &target);
        File::open(&part)
            .and_then(|file| file.sync_all())
            .map_err(fail)?;
        fs::rename(&part, &target).map_err(fail)?;
        Ok(size)
    });
    if placed.is_err() {
        let _ = fs::remove_file(&part);
    }
    let size = placed?;
    out.result(printable(&target.to_string_lossy()))?;
    out.say(format!(
        "{} from {}",
        octets(size),
        count(args.shares.len() as u64, "share")
    ));
    out.event(
        "combined",
        json!({ "path": target.to_string_lossy(), "octets": size }),
    );
    Ok(())
}

fn combine_v1(shares: &[(PathBuf, Share)], writer: &mut dyn Write, target: &Path) -> Outcome<u64> {
    let list: Vec<Share> = shares.iter().map(|(_, share)| share.clone()).collect();
    let message = reconstruct(&list).map_err(|e| Failure::new(Exit::Corrupt, e.to_string()))?;
    writer
        .write_all(&message)
        .map_err(|e| Failure::disk(&e, "writing", target))?;
    Ok(message.len() as u64)
}

/// What is known about the files of a set.
struct Set {
    readers: Vec<Reader>,
    /// Files that had something wrong, and what.
    bad: BTreeMap<PathBuf, String>,
}

impl Set {
    /// The next segment of all files that are still good: the manifest that most agree on, and
    /// the shares that it lists. `None` at the end.
    fn next(&mut self) -> Outcome<Option<Collector>> {
        let mut pieces: Vec<(PathBuf, Piece)> = Vec::new();
        for reader in &mut self.readers {
            if self.bad.contains_key(&reader.path) {
                continue;
            }
            match reader.next() {
                Ok(Some(piece)) => pieces.push((reader.path.clone(), piece)),
                Ok(None) => {
                    self.bad
                        .insert(reader.path.clone(), "it ends too early".into());
                }
                Err(failure) if failure.exit == Exit::Corrupt => {
                    self.bad.insert(reader.path.clone(), failure.message);
                }
                Err(failure) => return Err(failure),
            }
        }
        let mut votes: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        for (_, piece) in &pieces {
            *votes.entry(piece.manifest.digest()).or_default() += 1;
        }
        let Some((winner, most)) = votes
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(d, c)| (*d, *c))
        else {
            return Ok(None);
        };
        if votes.values().filter(|count| **count == most).count() > 1 {
            return Err(Failure::new(
                Exit::Corrupt,
                "the shares are of different files, or some were altered: they do not agree",
            )
            .hint("`vmdt inspect` shows which belong together; more shares decide who is right"));
        }
        let mut collector: Option<Collector> = None;
        for (path, piece) in pieces {
            if piece.manifest.digest() != winner {
                self.bad
                    .insert(path, "it belongs to another file, or was altered".into());
                continue;
            }
            let collector = collector.get_or_insert_with(|| Collector::new(piece.manifest));
            if let Err(refused) = collector.add(piece.share) {
                self.bad.insert(path, refused.to_string());
            }
        }
        Ok(collector)
    }

    /// Goes through all segments; `take` gets the content, when there is enough to open it.
    fn walk(&mut self, mut take: impl FnMut(&Collector) -> Outcome<()>) -> Outcome<u64> {
        let mut size = 0u64;
        for number in 0u64.. {
            let Some(collector) = self.next()? else {
                return Err(self.too_few(0));
            };
            let position = collector.manifest().position();
            if position.number != number || position.offset != size {
                return Err(Failure::new(
                    Exit::Corrupt,
                    "segments are missing or out of order",
                ));
            }
            take(&collector)?;
            size += u64::from(collector.manifest().size());
            if position.last {
                break;
            }
        }
        // a file that goes on after the end
        for reader in &mut self.readers {
            if !self.bad.contains_key(&reader.path) && !matches!(reader.next(), Ok(None)) {
                self.bad
                    .insert(reader.path.clone(), "something stands after its end".into());
            }
        }
        Ok(size)
    }

    fn too_few(&self, good: usize) -> Failure {
        let bad: Vec<String> = self
            .bad
            .iter()
            .map(|(path, why)| format!("{}: {why}", path.display()))
            .collect();
        let k = self.readers.first().map_or(2, |reader| reader.head.k);
        let because = if bad.is_empty() {
            String::new()
        } else {
            format!("; {}", bad.join("; "))
        };
        Failure::new(
            Exit::Corrupt,
            format!("{k} good shares are needed, {good} are there{because}"),
        )
        .hint("give more shares of the same file")
    }
}

fn combine_v2(
    readers: Vec<Reader>,
    writer: &mut dyn Write,
    target: &Path,
    out: &Out,
) -> Outcome<u64> {
    let mut set = Set {
        readers,
        bad: BTreeMap::new(),
    };
    let mut few = None;
    let walked = set.walk(|collector| {
        if !collector.is_ready() {
            few = Some(collector.shares().count());
            return Err(Failure::new(Exit::Corrupt, "too few"));
        }
        let segment = collector
            .open()
            .map_err(|e| Failure::new(Exit::Corrupt, e.to_string()))?;
        writer
            .write_all(&segment)
            .map_err(|e| Failure::disk(&e, "writing", target))
    });
    for (path, why) in &set.bad {
        out.insist(format!(
            "not used: {}: {}",
            printable(&path.to_string_lossy()),
            printable(why)
        ));
    }
    match few {
        Some(good) => Err(set.too_few(good)),
        None => walked,
    }
}

/// `vmdt verify`
pub(crate) fn run_verify(args: &SharesArgs, out: &Out) -> Outcome<()> {
    match open(&args.shares)? {
        Shares::V1(shares) => {
            let list: Vec<Share> = shares.into_iter().map(|(_, share)| share).collect();
            reconstruct(&list).map_err(|e| Failure::new(Exit::Corrupt, e.to_string()))?;
            out.result("the shares agree with each other")?;
            out.say("note: version 1 shares that were altered in agreement are not found; version 2 shares are");
            out.event("verified", json!({ "good": args.shares.len(), "bad": [] }));
            Ok(())
        }
        Shares::V2(readers) => {
            let mut set = Set {
                readers,
                bad: BTreeMap::new(),
            };
            let mut fewest = usize::MAX;
            set.walk(|collector| {
                fewest = fewest.min(collector.shares().count());
                if collector.is_ready() {
                    collector
                        .open()
                        .map_err(|e| Failure::new(Exit::Corrupt, e.to_string()))?;
                }
                Ok(())
            })?;
            let k = set.readers.first().map_or(0, |reader| reader.head.k);
            for reader in &set.readers {
                let verdict = set.bad.get(&reader.path).map_or("good", String::as_str);
                out.result(format!(
                    "{}: {}",
                    printable(&reader.path.to_string_lossy()),
                    printable(verdict)
                ))?;
            }
            let bad: Vec<_> = set
                .bad
                .keys()
                .map(|path| path.to_string_lossy().into_owned())
                .collect();
            let good = set.readers.len() - bad.len();
            out.event("verified", json!({ "good": good, "bad": bad, "k": k }));
            if !bad.is_empty() {
                return Err(Failure::new(
                    Exit::Corrupt,
                    format!("{} of {} shares are bad", bad.len(), set.readers.len()),
                )
                .hint(if good >= usize::from(k) {
                    "the good ones still rebuild the file"
                } else {
                    "the good ones are too few"
                }));
            }
            if fewest < usize::from(k) {
                out.say(format!(
                    "{fewest} good shares, {k} are needed to rebuild the file"
                ));
            }
            Ok(())
        }
    }
}

/// `vmdt inspect`
pub(crate) fn run_inspect(files: &[std::path::PathBuf], out: &Out) -> Outcome<()> {
    for path in files {
        let shown = printable(&path.to_string_lossy());
        match Reader::open(path)? {
            Some(mut reader) => {
                let Some(first) = reader.next()? else {
                    return Err(damaged(path, "it holds no segment"));
                };
                let (mut segments, mut size) = (1u64, u64::from(first.manifest.size()));
                while let Some(piece) = reader.next()? {
                    segments += 1;
                    size += u64::from(piece.manifest.size());
                }
                let head = &reader.head;
                let id = hex(&first.manifest.message_id());
                out.result(format!(
                    "{shown}: version 2, share {} of {}, {} needed, {} in {}, set {id}, of {}",
                    head.index,
                    head.n,
                    head.k,
                    octets(size),
                    count(segments, "segment"),
                    printable(&head.name)
                ))?;
                out.event(
                    "share",
                    json!({ "path": path.to_string_lossy(), "version": 2, "index": head.index, "k": head.k, "n": head.n,
                            "octets": size, "segments": segments, "set": id, "name": head.name }),
                );
            }
            None => {
                let share = read_v1(path)?;
                let nonce = hex(&share.nonce());
                out.result(format!(
                    "{shown}: version 1, share {}, {} needed, {}, set {nonce}",
                    share.index(),
                    share.k(),
                    octets(share.size().into())
                ))?;
                out.event(
                    "share",
                    json!({ "path": path.to_string_lossy(), "version": 1, "index": share.index().get(), "k": share.k(),
                            "octets": share.size(), "set": nonce }),
                );
            }
        }
    }
    Ok(())
}

/// `vmdt refresh`
pub(crate) fn run_refresh(args: &RefreshArgs, out: &Out) -> Outcome<()> {
    let Shares::V1(shares) = open(&args.shares)? else {
        return Err(Failure::usage(
            "version 2 shares are bound to their manifests and can't be refreshed in place",
        )
        .hint("`vmdt combine` and `vmdt split` make new ones"));
    };
    // shares that do not agree would be spoilt by it
    let list: Vec<Share> = shares.iter().map(|(_, share)| share.clone()).collect();
    reconstruct(&list).map_err(|e| Failure::new(Exit::Corrupt, e.to_string()))?;
    let k = list.first().map_or(2, Share::k);
    let highest = list
        .iter()
        .map(|share| share.index().get())
        .max()
        .unwrap_or(k)
        .max(k);
    let threshold = Threshold::new(k, highest).map_err(Failure::failed)?;
    let zero = zero_sharing(threshold, &mut UnwrapErr(SysRng));
    fs::create_dir_all(&args.out).map_err(|e| Failure::disk(&e, "making", &args.out))?;
    for (path, share) in &shares {
        let head = refresh_head(share, &zero)?;
        let fresh = Share::from_parts(head, Bytes::clone(share.body())).map_err(Failure::failed)?;
        let name = path.file_name().unwrap_or_default();
        let target = args.out.join(name);
        write_all(&target, &[fresh.head(), fresh.body()], false)?;
        out.result(printable(&target.to_string_lossy()))?;
    }
    out.say(format!(
        "{} renewed; destroy the old ones: they do not fit the new ones",
        count(shares.len() as u64, "share")
    ));
    out.event("refreshed", json!({ "shares": shares.len() }));
    Ok(())
}

fn refresh_head(share: &Share, zero: &[KeyShare]) -> Outcome<[u8; HEAD_LEN]> {
    let no = || Failure::failed("a share has no place for a key");
    let index: NonZeroU8 = share.index();
    let mut head = *share.head();
    let old: [u8; 32] = head
        .get(KEY_SHARE)
        .and_then(|octets| octets.try_into().ok())
        .ok_or_else(no)?;
    let summand = zero
        .iter()
        .find(|summand| summand.index() == index)
        .ok_or_else(no)?;
    let new = refreshed(&KeyShare::new(index, &old), std::slice::from_ref(summand))
        .map_err(Failure::failed)?;
    head.get_mut(KEY_SHARE)
        .ok_or_else(no)?
        .copy_from_slice(new.value());
    Ok(head)
}
