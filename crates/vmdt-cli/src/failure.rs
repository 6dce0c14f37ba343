//! How a command fails: a sentence, what to try, and the exit code.

use std::fmt;
use std::io;
use std::path::Path;

/// Exit codes. They are documented in the README and stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something else went wrong.
    Failed = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// Nobody was found: no server, no sender behind that code.
    NotFound = 3,
    /// The other side vanished halfway; the same command continues.
    Vanished = 4,
    /// The code or the ticket is wrong.
    WrongCode = 5,
    /// Something is in the way under that name.
    Exists = 6,
    /// The disk: no space, no permission, read-only, not there.
    Disk = 7,
    /// The other side, or the person here, said no.
    Refused = 8,
    /// What arrived is not what was sent, or shares do not fit.
    Corrupt = 9,
    /// Ctrl-C or a request to terminate.
    Interrupted = 130,
}

impl Exit {
    /// The word that stands for it in JSON lines.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotFound => "not-found",
            Exit::Vanished => "vanished",
            Exit::WrongCode => "wrong-code",
            Exit::Exists => "exists",
            Exit::Disk => "disk",
            Exit::Refused => "refused",
            Exit::Corrupt => "corrupt",
            Exit::Interrupted => "interrupted",
        }
    }

    /// The one with this number, as a peer tells it.
    pub(crate) fn from_number(number: u8) -> Exit {
        [
            Exit::Usage,
            Exit::NotFound,
            Exit::Vanished,
            Exit::WrongCode,
            Exit::Exists,
            Exit::Disk,
            Exit::Refused,
            Exit::Corrupt,
            Exit::Interrupted,
        ]
        .into_iter()
        .find(|exit| *exit as u8 == number)
        .unwrap_or(Exit::Failed)
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What failed, and where. May hold text from a peer: it is escaped when shown.
    pub(crate) message: String,
    /// What a person can try.
    pub(crate) hint: Option<String>,
}

/// What a step of a command comes to.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn failed(message: impl fmt::Display) -> Failure {
        Failure::new(Exit::Failed, message.to_string())
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn interrupted() -> Failure {
        Failure::new(Exit::Interrupted, "stopped")
    }

    /// What the system said about a file, in words a person can act on.
    pub(crate) fn disk(error: &io::Error, doing: &str, path: &Path) -> Failure {
        let at = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Failure::new(Exit::Disk, format!("no space left for {at} ({doing})"))
                    .hint("make room or choose another folder with --out DIR; the same command then continues")
            }
            io::ErrorKind::PermissionDenied => {
                Failure::new(Exit::Disk, format!("no permission for {doing} {at}"))
                    .hint("choose another folder with --out DIR")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                Failure::new(Exit::Disk, format!("{at} is on a read-only file system ({doing})"))
                    .hint("choose another folder with --out DIR")
            }
            io::ErrorKind::NotFound => {
                Failure::new(Exit::Disk, format!("{at} does not exist ({doing})"))
            }
            io::ErrorKind::AlreadyExists => {
                Failure::new(Exit::Exists, format!("{at} exists already ({doing})"))
            }
            _ => Failure::new(Exit::Disk, format!("{doing} {at} failed: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_error_names_the_file_and_its_cause() {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let failure = Failure::disk(&error, "writing", Path::new("/x/y"));
        assert_eq!(failure.exit, Exit::Disk);
        assert!(failure.message.contains("/x/y") && failure.message.contains("no space"));
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        assert_eq!(
            Failure::disk(&error, "making", Path::new("y")).exit,
            Exit::Exists
        );
    }

    #[test]
    fn numbers_from_peers_become_codes_and_unknown_ones_a_plain_failure() {
        assert_eq!(Exit::from_number(7), Exit::Disk);
        assert_eq!(Exit::from_number(200), Exit::Failed);
        assert_eq!(Exit::from_number(0), Exit::Failed);
    }
}
