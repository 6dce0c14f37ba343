//! What the chats of one person on this machine share: the key of their server, and the ticket of
//! their room. Whichever of them runs the server, the others know it by its key.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use vmdt_node::SecretIdentity;
use vmdt_node::seal::keyfile::{self, KeyFileError};

use super::{ROOM_K, ROOM_N};
use crate::session::Membership;

/// A folder that only its owner can enter.
#[derive(Debug)]
pub(crate) struct Local {
    /// The server's key.
    pub(crate) key: SecretIdentity,
    ticket: PathBuf,
}

impl Local {
    /// Opens the folder of this person, and makes it when it is not there.
    pub(crate) fn open() -> Result<Local> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        let folder = match (runtime, std::env::home_dir()) {
            (Some(runtime), _) => PathBuf::from(runtime).join("vmdt-chat"),
            (None, Some(home)) => home.join(".cache").join("vmdt-chat"),
            (None, None) => {
                return Err(anyhow!(
                    "there is no home folder to keep the room's ticket in; enter a room with --ticket"
                ));
            }
        };
        Local::open_in(&folder)
    }

    fn open_in(folder: &Path) -> Result<Local> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(folder)
            .with_context(|| format!("{} can't be made", folder.display()))?;
        Ok(Local {
            key: load_key(&folder.join("server.key"))?,
            ticket: folder.join("ticket"),
        })
    }

    /// How to come into the room, for whoever runs the server or does not.
    pub(crate) fn membership(&self, hosting: bool) -> Membership {
        if hosting {
            Membership::Create {
                n: ROOM_N,
                k: ROOM_K,
                ticket: Some(self.ticket.clone()),
            }
        } else {
            Membership::Find(self.ticket.clone())
        }
    }
}

/// Reads the key, or makes it; when two chats do so at once, both use what one has stored.
fn load_key(path: &Path) -> Result<SecretIdentity> {
    match keyfile::load(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        loaded => return Ok(loaded?),
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow!("the system gives no random numbers: {e}"))?;
    let key = SecretIdentity::from_seed(&seed);
    match keyfile::store(path, &key) {
        Ok(()) => Ok(key),
        Err(KeyFileError::Exists { .. }) => Ok(keyfile::load(path)?),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_chats_of_one_person_know_the_same_key_and_ticket() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join("a").join("b");
        let (first, second) = (
            Local::open_in(&folder).unwrap(),
            Local::open_in(&folder).unwrap(),
        );
        assert_eq!(first.key.public(), second.key.public());
        let (made, found) = (first.membership(true), second.membership(false));
        match (made, found) {
            (Membership::Create { ticket, .. }, Membership::Find(path)) => {
                assert_eq!(ticket, Some(path));
            }
            other => panic!("{other:?}"),
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = folder.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }
}
