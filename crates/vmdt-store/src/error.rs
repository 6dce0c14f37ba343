//! Why a store cannot be opened, and how the library's errors are told.

use std::io;

use vmdt_pool::StorageError;

/// Why a store cannot be opened. A file that is not a store of a format that is understood is left as
/// it was; one that is damaged may have been repaired in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("the store is in use by another process")]
    InUse,
    /// The file was written by a newer version.
    #[error("the store has format {found}, this version reads up to {supported}")]
    TooNew {
        /// The format found.
        found: u32,
        /// The newest format that is understood.
        supported: u32,
    },
    /// The file was written by an old version of the library underneath.
    #[error("the store's file has the old format {found} and has to be upgraded first")]
    TooOld {
        /// The format found.
        found: u8,
    },
    /// The file is a database, but not one of ours.
    #[error("the file is not a VMDT store")]
    Foreign,
    /// The file is not what was written, or not a database at all.
    #[error("the store is damaged, or the file is no store")]
    Damaged,
    /// There is no room for it.
    #[error("no space left for the store")]
    NoSpace,
    /// Another error of the operating system.
    #[error("the store cannot be opened: {0}")]
    Io(io::ErrorKind),
}

impl From<redb::DatabaseError> for OpenError {
    fn from(error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse,
            redb::DatabaseError::UpgradeRequired(found) => OpenError::TooOld { found },
            redb::DatabaseError::Storage(error) => storage(error).into(),
            _ => OpenError::Damaged,
        }
    }
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NoSpace => OpenError::NoSpace,
            // What a cut-off or foreign file looks like to the library underneath.
            StorageError::Io(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                OpenError::Damaged
            }
            StorageError::Io(kind) => OpenError::Io(kind),
            _ => OpenError::Damaged,
        }
    }
}

pub(crate) fn storage(error: redb::StorageError) -> StorageError {
    match error {
        redb::StorageError::Io(error) => error.kind().into(),
        redb::StorageError::ValueTooLarge(_) => StorageError::Io(io::ErrorKind::InvalidInput),
        redb::StorageError::PreviousIo | redb::StorageError::DatabaseClosed => StorageError::Closed,
        _ => StorageError::Damaged,
    }
}

pub(crate) fn transaction(error: redb::TransactionError) -> StorageError {
    match error {
        redb::TransactionError::Storage(error) => storage(error),
        _ => StorageError::Closed,
    }
}

pub(crate) fn table(error: redb::TableError) -> StorageError {
    match error {
        redb::TableError::Storage(error) => storage(error),
        _ => StorageError::Damaged,
    }
}

pub(crate) fn commit(error: redb::CommitError) -> StorageError {
    match error {
        redb::CommitError::Storage(error) => storage(error),
        _ => StorageError::Closed,
    }
}
