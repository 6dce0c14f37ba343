//! Splits files into shares and puts them together again.
//!
//! ```text
//! cargo run --release -p vmdt-ssms --example ssms -- split report.pdf -k 3 -n 5
//! cargo run --release -p vmdt-ssms --example ssms -- verify -m report.manifest report_share*.bin
//! cargo run --release -p vmdt-ssms --example ssms -- combine -m report.manifest report_share{2,4,5}.bin -o copy.pdf
//! ```
//!
//! Version 2 is the default: a manifest says what every share must be, shares carry a part of the
//! file each, and files of any size are worked on segment by segment. A manifest file holds the
//! manifests of all segments, each after its length in 32 bits; a share file the shares of all
//! segments, one after the other. With `--v1` there is no manifest, and nothing is authenticated.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a terminal"
)]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use getrandom::SysRng;
use getrandom::rand_core::{Rng as _, UnwrapErr};
use vmdt_ssms::shamir::{KeyShare, refreshed, zero_sharing};
use vmdt_ssms::stream::{Combiner, Expected, Splitter};
use vmdt_ssms::v2::{self, Collector, Envelope, Manifest, PartyId, Recipient, Sealer};
use vmdt_ssms::{HEAD_LEN, MAX_MESSAGE_LEN, Share, Threshold, reconstruct, split};

const USAGE: &str = "\
Splits a file into n shares, any k of which rebuild it.

usage:
  ssms split FILE -k K -n N [-o DIR]          writes DIR/STEM.manifest and DIR/STEM_share1.bin ...
  ssms combine -m MANIFEST SHARE... -o FILE   rebuilds FILE; bad shares are named and left out
  ssms verify -m MANIFEST SHARE...            checks every share alone
  ssms refresh -m MANIFEST SHARE... -o DIR    new shares and a new manifest; old shares are void
  ssms inspect FILE...                        prints what is public about shares and manifests

  ssms split --v1 FILE -k K -n N [-o DIR]     the same in version 1, which has no manifest
  ssms combine SHARE... -o FILE               and authenticates nothing
  ssms refresh SHARE... -o DIR

DIR is the folder of FILE unless given. No file is ever overwritten.
Whoever alters the manifest decides what is accepted: keep it, or its digest, in a safe place.
`refresh` deals for all holders in one place; apart from each other they would deal one by one.";

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Arguments::of(&words) {
        Ok(arguments) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("ssms: {failure}");
                ExitCode::FAILURE
            }
        },
        Err(why) => {
            eprintln!("ssms: {why}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments<'_>) -> Result<(), Failure> {
    match (arguments.command, arguments.manifest) {
        ("split", None) if arguments.v1 => split_v1(arguments),
        ("split", None) => split_v2(arguments),
        ("combine", None) => combine_v1(arguments),
        ("combine", Some(manifest)) => combine_v2(arguments, manifest),
        ("verify", Some(manifest)) => verify(arguments, manifest),
        ("refresh", None) => refresh_v1(arguments),
        ("refresh", Some(manifest)) => refresh_v2(arguments, manifest),
        ("inspect", None) => inspect(arguments),
        ("verify", None) => Err("verify needs -m MANIFEST".into()),
        (command, _) => Err(format!("{command} takes no manifest").into()),
    }
}

/// The command line: a command, its files, and the options given.
struct Arguments<'a> {
    command: &'a str,
    files: Vec<&'a Path>,
    k: Option<u8>,
    n: Option<u8>,
    v1: bool,
    manifest: Option<&'a Path>,
    output: Option<&'a Path>,
}

impl<'a> Arguments<'a> {
    fn of(words: &'a [String]) -> Result<Arguments<'a>, &'static str> {
        const COMMANDS: [&str; 5] = ["split", "combine", "verify", "refresh", "inspect"];
        let mut words = words.iter();
        let command = words.next().ok_or("a command is missing")?.as_str();
        if !COMMANDS.contains(&command) {
            return Err("the commands are split, combine, verify, refresh and inspect");
        }
        let mut arguments = Arguments {
            command,
            files: Vec::new(),
            k: None,
            n: None,
            v1: false,
            manifest: None,
            output: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or("an option lacks its value");
            match word.as_str() {
                "-k" => arguments.k = Some(number(value()?)?),
                "-n" => arguments.n = Some(number(value()?)?),
                "-m" => arguments.manifest = Some(Path::new(value()?)),
                "-o" => arguments.output = Some(Path::new(value()?)),
                "--v1" => arguments.v1 = true,
                option if option.starts_with('-') => {
                    return Err("the options are -k, -n, -m, -o and --v1");
                }
                file => arguments.files.push(Path::new(file)),
            }
        }
        if arguments.files.is_empty() {
            return Err("a file is missing");
        }
        Ok(arguments)
    }

    fn output(&self) -> Result<&'a Path, Failure> {
        self.output
            .ok_or_else(|| format!("{} needs -o", self.command).into())
    }

    /// What `split` works on, where its files go, and how many there are to be.
    fn to_split(&self) -> Result<(&'a Path, PathBuf, Threshold), Failure> {
        let ([path], Some(k), Some(n)) = (self.files.as_slice(), self.k, self.n) else {
            return Err("split takes one FILE, -k and -n".into());
        };
        let folder = self.output.or(path.parent()).unwrap_or(Path::new(""));
        Ok((path, folder.to_path_buf(), Threshold::new(k, n)?))
    }
}

fn number(word: &str) -> Result<u8, &'static str> {
    word.parse()
        .map_err(|_| "-k and -n need a number from 2 to 255")
}

fn split_v2(arguments: &Arguments<'_>) -> Result<(), Failure> {
    let (path, folder, threshold) = arguments.to_split()?;
    let mut input = File::open(path).map_err(at(path))?;
    let mut rng = UnwrapErr(SysRng);
    let mut message_id = [0; 16];
    rng.fill_bytes(&mut message_id);
    // A signature would say who sends to whom; a file in a drawer has no parties.
    let nobody = PartyId::new(b"")?;
    let envelope = Envelope::new(message_id, nobody, Recipient::One(nobody));
    // 256 KiB a piece: whole strips for the digests, and little to hold in memory.
    let segment = u32::from(threshold.k()) << 18;
    let mut splitter = Splitter::new(Sealer::new(threshold, envelope), segment)?;

    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let manifest_path = folder.join(format!("{stem}.manifest"));
    let mut manifests = create(&manifest_path)?;
    let mut shares = Vec::new();
    for index in threshold.indices() {
        let path = folder.join(format!("{stem}_share{index}.bin"));
        shares.push((create(&path)?, path));
    }
    let mut digest = Digest::default();
    let mut keep = |sealed: v2::Sealed| -> Result<(), Failure> {
        write_manifest(&mut manifests, &sealed.manifest, &mut digest)?;
        for (share, (file, path)) in sealed.shares.iter().zip(&mut shares) {
            file.write_all(share.head()).map_err(at(path))?;
            file.write_all(share.body()).map_err(at(path))?;
        }
        Ok(())
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = input.read(&mut buffer).map_err(at(path))?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let (taken, sealed) = splitter.push(rest, &mut rng)?;
            if let Some(sealed) = sealed {
                keep(sealed)?;
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
    }
    keep(splitter.finish(&mut rng)?)?;
    manifests.sync_all().map_err(at(&manifest_path))?;
    for (file, path) in &shares {
        file.sync_all().map_err(at(path))?;
        println!("{}", path.display());
    }
    println!("{}: digest {}", manifest_path.display(), digest.hex());
    Ok(())
}

/// A share file and where it has been read to.
struct ShareFile<'a> {
    path: &'a Path,
    file: File,
    good: bool,
}

impl ShareFile<'_> {
    fn open<'a>(paths: &[&'a Path]) -> Result<Vec<ShareFile<'a>>, Failure> {
        let open = |path: &&'a Path| {
            Ok(ShareFile {
                path,
                file: File::open(path).map_err(at(path))?,
                good: true,
            })
        };
        paths.iter().map(open).collect()
    }

    /// The share of the next segment, as long as its manifest says or cut short.
    fn next(&mut self, manifest: &Manifest) -> Result<Bytes, Failure> {
        let len = v2::HEAD_LEN + manifest.body_len();
        let mut octets = Vec::new();
        let part = (&self.file).take(len as u64);
        { part }.read_to_end(&mut octets).map_err(at(self.path))?;
        Ok(octets.into())
    }

    /// Says once why this file is not used any more.
    fn give_up(&mut self, why: &dyn Error) {
        self.good = false;
        eprintln!("ssms: {}: {why}", self.path.display());
    }

    /// Whether nothing follows the last segment.
    fn is_at_end(&mut self) -> Result<bool, Failure> {
        Ok(self.file.read(&mut [0]).map_err(at(self.path))? == 0)
    }
}

fn combine_v2(arguments: &Arguments<'_>, manifest: &Path) -> Result<(), Failure> {
    let target = arguments.output()?;
    let manifests = read_manifests(manifest)?;
    let first = manifests.first().ok_or("the manifest file is empty")?;
    let expected = Expected {
        message_id: first.message_id(),
        sender: first.sender(),
        recipient: first.recipient(),
        threshold: first.threshold(),
    };
    // One segment at a time.
    let mut combiner = Combiner::new(expected, 1, u32::MAX);
    let mut files = ShareFile::open(&arguments.files)?;
    let mut output = create(target)?;
    let mut size = 0;
    for manifest in &manifests {
        combiner.manifest(manifest.clone())?;
        let mut done = false;
        for share in &mut files {
            // Shares that are not needed are read over, so that all files stay in step.
            let octets = share.next(manifest)?;
            if done || !share.good {
                continue;
            }
            match combiner.share(octets) {
                Ok(Some(segment)) => {
                    output.write_all(&segment.octets).map_err(at(target))?;
                    size += segment.octets.len();
                    done = true;
                }
                Ok(None) => {}
                Err(error) => share.give_up(&error),
            }
        }
        if !done {
            fs::remove_file(target).map_err(at(target))?;
            let number = manifest.position().number;
            return Err(format!("segment {number}: not enough good shares").into());
        }
    }
    if !combiner.is_complete() {
        fs::remove_file(target).map_err(at(target))?;
        return Err("the manifest file is cut short".into());
    }
    output.sync_all().map_err(at(target))?;
    println!("{}: {size} octets", target.display());
    Ok(())
}

fn verify(arguments: &Arguments<'_>, manifest: &Path) -> Result<(), Failure> {
    let manifests = read_manifests(manifest)?;
    let mut bad = 0;
    for mut share in ShareFile::open(&arguments.files)? {
        for manifest in &manifests {
            let octets = share.next(manifest)?;
            if let Err(error) = Collector::new(manifest.clone()).add(octets) {
                share.give_up(&error);
                break;
            }
        }
        if share.good && !share.is_at_end()? {
            share.give_up(&*Failure::from("octets follow the last segment"));
        }
        if share.good {
            println!("{}: good", share.path.display());
        } else {
            bad += 1;
        }
    }
    match bad {
        0 => Ok(()),
        bad => Err(format!("{bad} of {} shares are bad", arguments.files.len()).into()),
    }
}

fn refresh_v2(arguments: &Arguments<'_>, manifest_path: &Path) -> Result<(), Failure> {
    let folder = arguments.output()?;
    let manifests = read_manifests(manifest_path)?;
    let mut rng = UnwrapErr(SysRng);
    let name = |path: &Path| folder.join(path.file_name().unwrap_or_default());
    let new_path = name(manifest_path);
    let mut files = ShareFile::open(&arguments.files)?;
    let mut outputs = Vec::new();
    for share in &files {
        outputs.push((create(&name(share.path))?, name(share.path)));
    }
    let mut new_manifests = create(&new_path)?;
    let mut digest = Digest::default();
    for manifest in &manifests {
        // A dealer per share that takes part: one honest one is enough.
        let dealers = 0..files.len();
        let dealt: Vec<Vec<KeyShare>> = dealers
            .map(|_| zero_sharing(manifest.threshold(), &mut rng))
            .collect();
        let mut digests = Vec::new();
        for (share, (output, path)) in files.iter_mut().zip(&mut outputs) {
            let mut collector = Collector::new(manifest.clone());
            collector.add(share.next(manifest)?)?;
            let old = collector.shares().next().ok_or("no share")?;
            let point = refreshed(&old.point(), &received(&dealt, old.index()))?;
            let new = old.with_point(&point)?;
            output.write_all(new.head()).map_err(at(path))?;
            output.write_all(new.body()).map_err(at(path))?;
            digests.push((new.index(), new.digest()));
        }
        let manifest = manifest.reissued(&digests)?;
        write_manifest(&mut new_manifests, &manifest, &mut digest)?;
    }
    new_manifests.sync_all().map_err(at(&new_path))?;
    for (file, path) in &outputs {
        file.sync_all().map_err(at(path))?;
        println!("{}", path.display());
    }
    println!("{}: digest {}", new_path.display(), digest.hex());
    Ok(())
}

/// What all dealers dealt to the holder of share `index`.
fn received(dealt: &[Vec<KeyShare>], index: NonZeroU8) -> Vec<KeyShare> {
    let own = |points: &Vec<KeyShare>| {
        let point = points.iter().find(|point| point.index() == index)?;
        Some(KeyShare::new(index, point.value()))
    };
    dealt.iter().filter_map(own).collect()
}

fn split_v1(arguments: &Arguments<'_>) -> Result<(), Failure> {
    let (path, folder, threshold) = arguments.to_split()?;
    let len = fs::metadata(path).map_err(at(path))?.len();
    if len > u64::from(MAX_MESSAGE_LEN) {
        return Err(format!("version 1 carries {MAX_MESSAGE_LEN} octets at most").into());
    }
    let message = fs::read(path).map_err(at(path))?;
    let shares = split(threshold, message, &mut UnwrapErr(SysRng))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    for share in &shares {
        write_v1(
            &folder.join(format!("{stem}_share{}.bin", share.index())),
            share,
        )?;
    }
    Ok(())
}

fn combine_v1(arguments: &Arguments<'_>) -> Result<(), Failure> {
    let target = arguments.output()?;
    let shares = read_v1(&arguments.files)?;
    let message = reconstruct(&shares)?;
    create(target)?.write_all(&message).map_err(at(target))?;
    let (len, count) = (message.len(), shares.len());
    println!("{}: {len} octets from {count} shares", target.display());
    Ok(())
}

fn refresh_v1(arguments: &Arguments<'_>) -> Result<(), Failure> {
    let folder = arguments.output()?;
    let shares = read_v1(&arguments.files)?;
    // Contradictions show before anything is made of them.
    drop(reconstruct(&shares)?);
    let k = shares.first().map_or(0, Share::k);
    let greatest = shares.iter().map(|share| share.index().get()).max();
    let threshold = Threshold::new(k, greatest.unwrap_or(k).max(k))?;
    let dealt: Vec<Vec<KeyShare>> = (0..shares.len())
        .map(|_| zero_sharing(threshold, &mut UnwrapErr(SysRng)))
        .collect();
    for (share, path) in shares.iter().zip(&arguments.files) {
        let mut head = *share.head();
        let (_, value) = head.split_at_mut(HEAD_LEN - 32);
        let old = <&[u8; 32]>::try_from(&*value)?;
        let point = refreshed(
            &KeyShare::new(share.index(), old),
            &received(&dealt, share.index()),
        )?;
        value.copy_from_slice(point.value());
        let new = Share::from_parts(head, share.body().clone())?;
        write_v1(&folder.join(path.file_name().unwrap_or_default()), &new)?;
    }
    Ok(())
}

fn read_v1(paths: &[&Path]) -> Result<Vec<Share>, Failure> {
    let read = |path: &&Path| {
        let octets = Bytes::from(fs::read(path).map_err(at(path))?);
        Share::parse(octets).map_err(|error| format!("{}: {error}", path.display()).into())
    };
    paths.iter().map(read).collect()
}

fn write_v1(path: &Path, share: &Share) -> Result<(), Failure> {
    let mut file = create(path)?;
    file.write_all(share.head()).map_err(at(path))?;
    file.write_all(share.body()).map_err(at(path))?;
    file.sync_all().map_err(at(path))?;
    println!("{}", path.display());
    Ok(())
}

fn inspect(arguments: &Arguments<'_>) -> Result<(), Failure> {
    for path in &arguments.files {
        let octets = fs::read(path).map_err(at(path))?;
        let name = path.display();
        match octets.first_chunk::<{ v2::HEAD_LEN }>() {
            Some(&[0, 2, b'S', _, form, k, n, index, ..]) => {
                let form = if form == 1 { "replicated" } else { "dispersed" };
                println!("{name}: version 2 share {index}, {k} of {n}, {form}");
            }
            Some(&[_, _, _, _, 0, 2, b'M', ..]) => {
                let manifests = read_manifests(path)?;
                let size: u64 = manifests.iter().map(|m| u64::from(m.size())).sum();
                let count = manifests.len();
                let threshold = manifests.first().map(Manifest::threshold);
                let threshold = threshold.map_or(String::new(), |t| format!("{t}, "));
                println!("{name}: manifest, {threshold}{size} octets in {count} segments");
            }
            _ => {
                for share in read_v1(&[path])? {
                    let (index, k, size) = (share.index(), share.k(), share.size());
                    println!("{name}: version 1 share {index}, {k} needed, {size} octets");
                }
            }
        }
    }
    Ok(())
}

/// The digest of a manifest file: that of all manifests' digests, as one line to write down.
#[derive(Default)]
struct Digest(blake3::Hasher);

impl Digest {
    fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

fn write_manifest(
    file: &mut File,
    manifest: &Manifest,
    digest: &mut Digest,
) -> Result<(), Failure> {
    let octets = manifest.encode();
    digest.0.update(&manifest.digest());
    file.write_all(&u32::try_from(octets.len())?.to_be_bytes())?;
    Ok(file.write_all(&octets)?)
}

fn read_manifests(path: &Path) -> Result<Vec<Manifest>, Failure> {
    let octets = fs::read(path).map_err(at(path))?;
    let mut rest = &octets[..];
    let mut manifests = Vec::new();
    while !rest.is_empty() {
        let cut = || format!("{}: cut short", path.display());
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let len = u32::from_be_bytes(*len) as usize;
        let (manifest, after) = after.split_at_checked(len).ok_or_else(cut)?;
        manifests.push(Manifest::parse_unverified(manifest)?);
        rest = after;
    }
    Ok(manifests)
}

/// Creates a file that must not exist yet.
fn create(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    Ok(file.map_err(at(path))?)
}

/// Says which file an error is about.
fn at(path: &Path) -> impl Fn(std::io::Error) -> std::io::Error {
    move |error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
