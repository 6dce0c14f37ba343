//! Splits a file into shares and combines shares to a file.
//!
//! ```text
//! cargo run --release -p vmdt-ssms --example ssms -- split report.pdf -k 3 -n 5
//! cargo run --release -p vmdt-ssms --example ssms -- combine report_share{2,4,5}.bin -o copy.pdf
//! ```

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a terminal"
)]

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use vmdt_ssms::{
    MAX_MESSAGE_LEN, ReconstructError, Share, ShareError, SplitError, Threshold, ThresholdError,
    reconstruct, split,
};

const USAGE: &str = "\
Splits a file into n shares, any k of which rebuild it.

usage:
  ssms split FILE -k K -n N [-o DIR]    writes DIR/STEM_share1.bin to DIR/STEM_shareN.bin
  ssms combine SHARE... -o FILE         rebuilds FILE from k or more shares
  ssms show SHARE...                    prints what is public about each share

DIR is the folder of FILE unless given. No file is ever overwritten.
Shares of version 1 are not authenticated: keep a digest of FILE to compare with.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(why)) => {
            eprintln!("ssms: {why}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(failure) => {
            eprintln!("ssms: {failure}");
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Usage(&'static str),
    Threshold(ThresholdError),
    TooLong(SplitError),
    File {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    Share {
        path: PathBuf,
        error: ShareError,
    },
    Reconstruct(ReconstructError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why) => f.write_str(why),
            Failure::Threshold(error) => error.fmt(f),
            Failure::TooLong(error) => error.fmt(f),
            Failure::File { doing, path, error } => {
                write!(f, "cannot {doing} {}: {error}", path.display())
            }
            Failure::Share { path, error } => write!(f, "{}: {error}", path.display()),
            Failure::Reconstruct(error) => error.fmt(f),
        }
    }
}

fn run(words: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::of(words)?;
    match arguments.command {
        "split" => split_file(&arguments),
        "combine" => combine_files(&arguments),
        "show" => show_files(&arguments),
        _ => Err(Failure::Usage("the command is split, combine or show")),
    }
}

/// The command line: a command, its files, and the options given.
struct Arguments<'a> {
    command: &'a str,
    files: Vec<&'a Path>,
    k: Option<u8>,
    n: Option<u8>,
    output: Option<&'a Path>,
}

impl<'a> Arguments<'a> {
    fn of(words: &'a [String]) -> Result<Arguments<'a>, Failure> {
        let mut words = words.iter();
        let command = words.next().ok_or(Failure::Usage("a command is missing"))?;
        let mut arguments = Arguments {
            command,
            files: Vec::new(),
            k: None,
            n: None,
            output: None,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "-k" => arguments.k = Some(number(words.next())?),
                "-n" => arguments.n = Some(number(words.next())?),
                "-o" => {
                    let value = words.next().ok_or(Failure::Usage("-o needs a value"))?;
                    arguments.output = Some(Path::new(value));
                }
                option if option.starts_with('-') => {
                    return Err(Failure::Usage("the options are -k, -n and -o"));
                }
                file => arguments.files.push(Path::new(file)),
            }
        }
        Ok(arguments)
    }
}

fn number(word: Option<&String>) -> Result<u8, Failure> {
    word.and_then(|word| word.parse().ok())
        .ok_or(Failure::Usage("-k and -n need a number from 2 to 255"))
}

fn split_file(arguments: &Arguments<'_>) -> Result<(), Failure> {
    let [path] = arguments.files.as_slice() else {
        return Err(Failure::Usage("split takes one FILE"));
    };
    let (Some(k), Some(n)) = (arguments.k, arguments.n) else {
        return Err(Failure::Usage("split needs -k and -n"));
    };
    let threshold = Threshold::new(k, n).map_err(Failure::Threshold)?;

    let failed = |doing| {
        move |error| Failure::File {
            doing,
            path: path.to_path_buf(),
            error,
        }
    };
    let len = fs::metadata(path).map_err(failed("read"))?.len();
    if len > u64::from(MAX_MESSAGE_LEN) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        return Err(Failure::TooLong(SplitError::TooLong {
            len,
            max: MAX_MESSAGE_LEN,
        }));
    }
    let message = fs::read(path).map_err(failed("read"))?;
    let shares = split(threshold, message, &mut UnwrapErr(SysRng)).map_err(Failure::TooLong)?;

    let folder = arguments.output.or(path.parent()).unwrap_or(Path::new(""));
    for share in &shares {
        let target = folder.join(share_name(path, share.index()));
        write_new(&target, &[share.head(), share.body()])?;
        println!("{}", target.display());
    }
    Ok(())
}

fn combine_files(arguments: &Arguments<'_>) -> Result<(), Failure> {
    let Some(target) = arguments.output else {
        return Err(Failure::Usage("combine needs -o FILE"));
    };
    let shares: Vec<Share> = arguments
        .files
        .iter()
        .map(|path| read_share(path))
        .collect::<Result<_, _>>()?;
    let message = reconstruct(&shares).map_err(Failure::Reconstruct)?;
    write_new(target, &[&message])?;
    println!(
        "{}: {} octets from {} shares",
        target.display(),
        message.len(),
        shares.len()
    );
    Ok(())
}

fn show_files(arguments: &Arguments<'_>) -> Result<(), Failure> {
    if arguments.files.is_empty() {
        return Err(Failure::Usage("show takes one SHARE or more"));
    }
    for path in &arguments.files {
        let share = read_share(path)?;
        let (index, k, size) = (share.index(), share.k(), share.size());
        println!(
            "{}: share {index}, {k} needed, message of {size} octets",
            path.display()
        );
    }
    Ok(())
}

/// `report_share3.bin` for share 3 of `report.pdf`.
fn share_name(path: &Path, index: NonZeroU8) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    format!("{stem}_share{index}.bin")
}

fn read_share(path: &Path) -> Result<Share, Failure> {
    let octets = fs::read(path).map_err(|error| Failure::File {
        doing: "read",
        path: path.to_path_buf(),
        error,
    })?;
    Share::parse(Bytes::from(octets)).map_err(|error| Failure::Share {
        path: path.to_path_buf(),
        error,
    })
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, parts: &[&[u8]]) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()
    };
    write().map_err(|error| Failure::File {
        doing: "write",
        path: path.to_path_buf(),
        error,
    })
}
