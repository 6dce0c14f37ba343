//! Who this node is: the key in the state directory, or one for a single run.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::keyfile;

use crate::failure::{Failure, Outcome};
use crate::settings::{Settings, state_dir};
use crate::state::private_folder;

/// Who a node is.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// The key in a file, which no other program uses meanwhile.
    Own(Arc<Held>),
    /// A key for this run.
    Passing,
    /// An id of profile 1.0, unproven.
    Open(String),
}

/// A key file that is this program's while it runs.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) path: PathBuf,
    /// Locked until it is dropped.
    _lock: File,
}

/// The file with this person's key; `None` when every run is to have a new one.
pub(crate) fn file(settings: &Settings) -> Option<PathBuf> {
    match settings.text("identity") {
        "none" => None,
        "" => Some(state_dir().join("identity")),
        path => Some(PathBuf::from(path)),
    }
}

/// Reads the key, or makes one where there is none.
///
/// # Errors
/// When it can't be read, or others may read it.
pub(crate) fn load(path: &Path) -> Outcome<SecretIdentity> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        private_folder(folder).map_err(|e| Failure::disk(&e, "making", folder))?;
    }
    keyfile::load_or_create(path, &mut UnwrapErr(SysRng))
        .map(|(identity, _)| identity)
        .map_err(|e| {
            Failure::usage(format!("the identity can't be used: {e}"))
                .hint("VMDT_IDENTITY or `identity` in config.toml names another file; `none` does without")
        })
}

impl Who {
    /// The configured id: of the open profile, the one in the file, or, when another program of
    /// this person runs under that one now, a passing one.
    ///
    /// # Errors
    /// When the file can't be used.
    pub(crate) fn of(settings: &Settings) -> Outcome<Who> {
        if settings.is_on("open") {
            return Ok(Who::Open(match settings.id() {
                Some(id) => id,
                None => random_id()?,
            }));
        }
        Ok(Who::held(settings)?.map_or(Who::Passing, Who::Own))
    }

    /// The key in the file, unless another program has it.
    fn held(settings: &Settings) -> Outcome<Option<Arc<Held>>> {
        let Some(path) = file(settings) else {
            return Ok(None);
        };
        load(&path)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".lock");
        let beside = PathBuf::from(beside);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&beside)
            .map_err(|e| Failure::disk(&e, "opening", &beside))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Arc::new(Held { path, _lock: lock }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Failure::disk(&e, "locking", &beside)),
        }
    }

    /// Whether it is profile 1.0.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Who::Open(_))
    }
}

/// An id of profile 1.0 that nobody else has.
fn random_id() -> Outcome<String> {
    let octets: [u8; 6] = crate::random()?;
    let mut id = BASE32_NOPAD.encode(&octets);
    id.make_ascii_lowercase();
    Ok(format!("n-{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_of_one_person_are_two_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/identity");
        let mut settings = Settings::load(Some(Path::new("/dev/null"))).unwrap();
        settings.flag("identity", path.to_str()).unwrap();
        let first = Who::of(&settings).unwrap();
        assert!(matches!(first, Who::Own(_)));
        assert!(matches!(Who::of(&settings).unwrap(), Who::Passing));
        drop(first);
        assert!(matches!(Who::of(&settings).unwrap(), Who::Own(_)));
        let id = load(&path).unwrap().node_id();
        assert_eq!(load(&path).unwrap().node_id(), id);
        settings.flag("identity", Some("none")).unwrap();
        assert!(matches!(Who::of(&settings).unwrap(), Who::Passing));
    }

    #[test]
    fn the_open_profile_has_an_id_without_a_key() {
        let mut settings = Settings::load(Some(Path::new("/dev/null"))).unwrap();
        settings.flag("open", Some("true")).unwrap();
        let Who::Open(id) = Who::of(&settings).unwrap() else {
            panic!("not open")
        };
        assert!(
            id.parse::<crate::net::Peer>()
                .is_ok_and(|id| !id.is_sealed()),
            "{id}"
        );
        settings.flag("id", Some("alice")).unwrap();
        assert!(matches!(Who::of(&settings).unwrap(), Who::Open(id) if id == "alice"));
    }
}
