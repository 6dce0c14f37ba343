//! Secrets on disk: an identity and its prekeys, in files that only their owner can read.
//!
//! A file is made complete or not at all: it is written under another name in the same directory,
//! with mode 0600 from the start, flushed to the disk, and then linked or renamed to its place. A
//! file that others may read is refused.
//!
//! The calls block. On systems without Unix permissions the modes are neither set nor checked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::ParseError;
use crate::identity::{SEED_LEN, SecretIdentity};
use crate::prekey::{PrekeyStore, STORE_MAX_LEN};

const PREFIX: &str = "vmdt-identity-1:";
const CHECK_LEN: usize = 4;
/// The longest identity file that is read; a right one has 75 octets.
const IDENTITY_MAX_LEN: usize = 256;

/// Why a secret was not read or written. The texts name the file and hold none of its octets.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Others than the owner may read or write the file.
    #[error("{path} has mode {mode:04o}: others may use it. Run: chmod 600 {path}")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a plain file.
    #[error("{path} is not a plain file")]
    NotAFile {
        /// What it should be.
        path: PathBuf,
    },
    /// The file is longer than it can be.
    #[error("{path} is longer than {allowed} octets")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most octets.
        allowed: usize,
    },
    /// The file does not hold an identity, or a damaged one.
    #[error("{path} does not hold an identity, or was damaged")]
    NotAnIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold a prekey store.
    #[error("{path} does not hold prekeys: {source}")]
    NotPrekeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ParseError,
    },
    /// There is a file already: identities are not overwritten.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

/// Where an identity came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file was there.
    Loaded,
    /// It was made.
    Created,
}

/// Reads an identity.
///
/// # Errors
/// [`KeyFileError`]; a missing file is an `Io` error of kind `NotFound`.
pub fn load(path: &Path) -> Result<SecretIdentity, KeyFileError> {
    let octets = read_secret(path, IDENTITY_MAX_LEN)?;
    decode(&octets).ok_or_else(|| KeyFileError::NotAnIdentity { path: path.into() })
}

/// Reads an identity, or draws one and stores it when there is no file.
///
/// When two processes do this at once, one creates the file and both use what is in it.
///
/// # Errors
/// [`KeyFileError`]. A file that is there and cannot be read is never replaced.
pub fn load_or_create(
    path: &Path,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(SecretIdentity, Origin), KeyFileError> {
    match load(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let identity = SecretIdentity::generate(rng);
            match store(path, &identity) {
                Ok(()) => Ok((identity, Origin::Created)),
                Err(KeyFileError::Exists { .. }) => Ok((load(path)?, Origin::Loaded)),
                Err(error) => Err(error),
            }
        }
        loaded => loaded.map(|identity| (identity, Origin::Loaded)),
    }
}

/// Stores an identity in a file that is not there yet.
///
/// # Errors
/// [`KeyFileError::Exists`] and those of the operating system.
pub fn store(path: &Path, identity: &SecretIdentity) -> Result<(), KeyFileError> {
    let temporary = write_temporary(path, encode(identity).as_bytes())?;
    // A link fails when the name is taken, where a rename would overwrite.
    let linked = match fs::hard_link(&temporary, path) {
        Err(error) if no_links(&error) => match path.symlink_metadata() {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(&temporary, path),
        },
        linked => linked,
    };
    // After a rename there is nothing left to remove.
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeyFileError::Exists { path: path.into() })
        }
        Err(source) => Err(failed("creating", path, source)),
    }
}

/// Reads a prekey store; `None` when there is no file.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_prekeys(path: &Path) -> Result<Option<PrekeyStore>, KeyFileError> {
    match read_secret(path, STORE_MAX_LEN + 64) {
        Ok(octets) => {
            PrekeyStore::parse(&octets)
                .map(Some)
                .map_err(|source| KeyFileError::NotPrekeys {
                    path: path.into(),
                    source,
                })
        }
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Stores a prekey store, in place of the one before. The old file's octets may survive on the
/// medium: what a journal or a flash controller keeps is beyond the reach of a program.
///
/// # Errors
/// [`KeyFileError`].
pub fn store_prekeys(path: &Path, store: &PrekeyStore) -> Result<(), KeyFileError> {
    replace_secret(path, &store.encode())
}

/// Reads a file that only its owner can read, up to `allowed` octets.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_secret(path: &Path, allowed: usize) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut file = File::open(path).map_err(|source| failed("opening", path, source))?;
    check(path, &file)?;
    // One octet more than allowed, in one allocation: a growing vector would leave copies behind.
    let mut octets = Zeroizing::new(vec![0; allowed + 1]);
    let mut len = 0;
    while let Some(room) = octets.get_mut(len..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed("reading", path, source)),
        }
    }
    if len > allowed {
        return Err(KeyFileError::TooLong {
            path: path.into(),
            allowed,
        });
    }
    octets.truncate(len);
    Ok(octets)
}

/// Writes a file that only its owner can read, in place of the one before.
///
/// # Errors
/// [`KeyFileError`]. The file before is then still there.
pub fn replace_secret(path: &Path, octets: &[u8]) -> Result<(), KeyFileError> {
    let temporary = write_temporary(path, octets)?;
    if let Err(source) = fs::rename(&temporary, path) {
        let _ = fs::remove_file(&temporary);
        return Err(failed("replacing", path, source));
    }
    sync_directory(path)
}

fn encode(identity: &SecretIdentity) -> Zeroizing<String> {
    let seed = identity.seed();
    let mut octets = Zeroizing::new([0; SEED_LEN + CHECK_LEN]);
    let (head, tail) = octets.split_at_mut(SEED_LEN);
    head.copy_from_slice(&*seed);
    tail.copy_from_slice(&check_octets(&seed));
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(PREFIX);
    BASE32_NOPAD.encode_append(&*octets, &mut text);
    text.make_ascii_lowercase();
    text.push('\n');
    text
}

fn decode(octets: &[u8]) -> Option<SecretIdentity> {
    let text = core::str::from_utf8(octets).ok()?.trim();
    let encoded = Zeroizing::new(text.strip_prefix(PREFIX)?.to_ascii_uppercase());
    let decoded = Zeroizing::new(BASE32_NOPAD.decode(encoded.as_bytes()).ok()?);
    let (seed, check) = decoded.split_first_chunk::<SEED_LEN>()?;
    bool::from(check_octets(seed).ct_eq(check)).then(|| SecretIdentity::from_seed(seed))
}

/// Finds a typing error or a damaged file, before a node appears under an id that is not its own.
fn check_octets(seed: &[u8; SEED_LEN]) -> [u8; CHECK_LEN] {
    let [a, b, c, d, ..] = blake3::derive_key("vmdt 1.1 identity file check", seed);
    [a, b, c, d]
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        action,
        path: path.into(),
        source,
    }
}

/// Whether a file system has no hard links.
fn no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

/// Writes a new file beside `path`, of mode 0600, down to the disk.
fn write_temporary(path: &Path, octets: &[u8]) -> Result<PathBuf, KeyFileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let name = path
        .file_name()
        .ok_or_else(|| KeyFileError::NotAFile { path: path.into() })?;
    // A name left over from a crash is passed by.
    for attempt in 0..64_u8 {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(
            ".{}-{}",
            std::process::id(),
            HEXLOWER.encode(&[attempt])
        ));
        let temporary = path.with_file_name(hidden);
        match options.open(&temporary) {
            Ok(mut file) => {
                let written = file.write_all(octets).and_then(|()| file.sync_all());
                return match written {
                    Ok(()) => Ok(temporary),
                    Err(source) => {
                        let _ = fs::remove_file(&temporary);
                        Err(failed("writing", path, source))
                    }
                };
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed("creating", path, source)),
        }
    }
    Err(failed(
        "creating",
        path,
        io::ErrorKind::AlreadyExists.into(),
    ))
}

/// Makes the new name itself last.
fn sync_directory(path: &Path) -> Result<(), KeyFileError> {
    #[cfg(unix)]
    {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| failed("flushing the directory of", path, source))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Refuses what is not a plain file of its owner alone. Looks at the open file, not at the name.
fn check(path: &Path, file: &File) -> Result<(), KeyFileError> {
    let metadata = file
        .metadata()
        .map_err(|source| failed("inspecting", path, source))?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path.into() });
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Permissions {
                path: path.into(),
                mode,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
#[path = "keyfile_tests.rs"]
mod tests;
