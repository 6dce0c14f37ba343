//! What is kept between runs: codes of unfinished sends, invitations of unfinished receives, and
//! receipts.
//!
//! Everything lies in the state directory, readable by its owner only, and may be deleted at any
//! time.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::unix_seconds;
use crate::failure::{Failure, Outcome};
use crate::net::link::Carried;
use crate::settings::state_dir;

/// How long an unfinished send or receive is remembered.
const REMEMBERED: u64 = 7 * 86_400;
/// The most receipts that are kept; beyond it the older half goes.
const MAX_RECEIPTS: usize = 10_000;
/// The longest line of the receipts that is read.
const MAX_LINE: u64 = 64 * 1024;

/// A send that has not ended: the same command shows the same code again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    pub(crate) code: String,
    pub(crate) port: u16,
}

/// A receive by a code that the server has used up, and that has not ended. It holds a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entered {
    pub(crate) invitation: String,
}

/// What is remembered, and since when.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    since: u64,
    #[serde(flatten)]
    what: T,
}

/// The memory of one send or receive.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    path: PathBuf,
}

impl Memory {
    /// Of a send of these paths; the order counts, and where they are.
    pub(crate) fn of(paths: &[PathBuf]) -> Memory {
        let mut hasher = blake3::Hasher::new_derive_key("vmdt send 1 paths");
        for path in paths {
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&[0]);
        }
        let name: String = hasher.finalize().to_hex().chars().take(32).collect();
        Memory {
            path: state_dir().join("sends").join(name + ".json"),
        }
    }

    /// Of a receive by this code.
    pub(crate) fn of_code(code: &str) -> Memory {
        let digest = blake3::derive_key("vmdt receive 1 code", code.as_bytes());
        let name = crate::text::hex(&digest);
        Memory {
            path: state_dir().join("receives").join(name + ".json"),
        }
    }

    pub(crate) fn recall<T: DeserializeOwned>(&self) -> Option<T> {
        let text = fs::read_to_string(&self.path).ok()?;
        let kept: Kept<T> = serde_json::from_str(&text).ok()?;
        (unix_seconds().saturating_sub(kept.since) < REMEMBERED).then_some(kept.what)
    }

    /// Remembers; without a place to, everything else works all the same.
    pub(crate) fn keep<T: Serialize>(&self, what: T) {
        let since = unix_seconds();
        if let Ok(text) = serde_json::to_string(&Kept { since, what }) {
            let _ = write_private(&self.path, text.as_bytes());
        }
    }

    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A transfer that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) when: u64,
    /// `sent` or `received`.
    pub(crate) direction: String,
    pub(crate) peer: String,
    pub(crate) names: Vec<String>,
    pub(crate) octets: u64,
    /// Of these, there before.
    pub(crate) same: u64,
    pub(crate) seconds: f64,
    /// Shares of which k rebuild a message; 0 when not known.
    pub(crate) k: u16,
    pub(crate) n: u16,
    /// Shares and octets by carrier.
    pub(crate) paths: Carried,
    /// What the peer calls itself.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Whether it was sealed: profile 1.1.
    #[serde(default)]
    pub(crate) sealed: bool,
    /// Why it failed; nothing when it did not.
    pub(crate) error: Option<String>,
}

impl Receipt {
    /// Adds it to the list; without a place to, nothing happens.
    pub(crate) fn keep(&self) {
        let path = receipts_file();
        if receipts().len() >= MAX_RECEIPTS {
            let kept = receipts();
            let lines: Vec<String> = kept
                .iter()
                .skip(MAX_RECEIPTS / 2)
                .filter_map(|receipt| serde_json::to_string(receipt).ok())
                .collect();
            let _ = write_private(&path, (lines.join("\n") + "\n").as_bytes());
        }
        if let (Ok(mut line), Ok(mut file)) = (serde_json::to_string(self), private(&path, false)) {
            line.push('\n');
            let _ = file.write_all(line.as_bytes());
        }
    }
}

fn receipts_file() -> PathBuf {
    state_dir().join("receipts.jsonl")
}

/// All receipts, the oldest first. Lines that can't be read are left out.
pub(crate) fn receipts() -> Vec<Receipt> {
    let Ok(file) = File::open(receipts_file()) else {
        return Vec::new();
    };
    let mut reader = BufReader::new(file);
    let mut all = Vec::new();
    loop {
        let mut line = String::new();
        match std::io::Read::take(&mut reader, MAX_LINE).read_line(&mut line) {
            Ok(0) | Err(_) => return all,
            Ok(_) => all.extend(serde_json::from_str(&line)),
        }
    }
}

/// Makes a folder that only its owner can enter, where there is none.
pub(crate) fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens a file that only its owner can read, for adding or anew.
fn private(path: &Path, anew: bool) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        private_folder(folder)?;
    }
    let mut options = OpenOptions::new();
    options
        .create(true)
        .append(!anew)
        .write(anew)
        .truncate(anew);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, octets: &[u8]) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = private(&draft, true)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// The folder for the history of lines.
///
/// # Errors
/// When it can't be made.
pub(crate) fn history_file(name: &str) -> Outcome<PathBuf> {
    let path = state_dir().join(name);
    private(&path, false).map_err(|e| Failure::disk(&e, "making", &path))?;
    Ok(path)
}
