//! What can go wrong with version 2, one type per operation.

use core::fmt;
use core::num::NonZeroU8;

use super::manifest::PARTY_ID_MAX;
use crate::error::ThresholdError;

/// A party's id is longer than [`PARTY_ID_MAX`] octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("party id of {given} octets is too long: {max} are allowed", max = PARTY_ID_MAX)]
pub struct PartyIdError {
    /// The length in octets.
    pub given: usize,
}

/// Why octets are not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The first three octets are not those of a version 2 manifest.
    #[error("not a version 2 manifest")]
    NotAManifest,
    /// The octets end too early.
    #[error("manifest cut short after {given} octets")]
    Truncated {
        /// How many octets there were.
        given: usize,
    },
    /// Octets follow the manifest.
    #[error("{count} octets follow the manifest")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// An unknown suite.
    #[error("suite {found} is unknown")]
    Suite {
        /// The octet found.
        found: u8,
    },
    /// An unknown form.
    #[error("form {found} is unknown")]
    Form {
        /// The octet found.
        found: u8,
    },
    /// Unknown flags.
    #[error("flags {found:#04x} are unknown")]
    Flags {
        /// The octet found.
        found: u8,
    },
    /// An impossible threshold.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    /// A party's id is too long.
    #[error(transparent)]
    PartyId(#[from] PartyIdError),
    /// The signature is longer than [`SIGNATURE_MAX`](super::SIGNATURE_MAX) octets.
    #[error("signature of {given} octets is too long")]
    SignatureTooLong {
        /// Its length in octets.
        given: usize,
    },
}

/// Why a message was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The message is longer than one segment can be. Use a [`Splitter`](crate::stream::Splitter).
    #[error("segment of {len} octets is too long: one holds at most {max} octets")]
    TooLong {
        /// The length of the message in octets.
        len: usize,
        /// The greatest length in octets.
        max: u32,
    },
}

/// A share that was refused, and whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareRefused {
    pub(crate) index: Option<NonZeroU8>,
    pub(crate) fault: ShareFault,
}

impl ShareRefused {
    /// The index to blame: that of the holder who was asked, if the caller named it, else the one
    /// that the share claims. `None` if it does not get as far as claiming one.
    #[must_use]
    pub fn index(&self) -> Option<NonZeroU8> {
        self.index
    }

    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self) -> ShareFault {
        self.fault
    }
}

impl fmt::Display for ShareRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "share {index} refused: {}", self.fault),
            None => write!(f, "share refused: {}", self.fault),
        }
    }
}

impl core::error::Error for ShareRefused {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// What is wrong with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareFault {
    /// The first octets are not those of a version 2 share.
    #[error("not a version 2 share")]
    NotAShare,
    /// The octets end inside the head.
    #[error("cut short after {given} octets: the head alone is {needed}")]
    Truncated {
        /// How many octets there were.
        given: usize,
        /// The length of a head in octets.
        needed: usize,
    },
    /// The index is 0 or above n.
    #[error("its index {found} is not one of 1..={n}")]
    Index {
        /// The index found.
        found: u8,
        /// The greatest index there is.
        n: u8,
    },
    /// It was given as another share than it claims to be: swapped between holders.
    #[error("it claims index {claimed}")]
    Swapped {
        /// The index that it claims.
        claimed: u8,
    },
    /// It belongs to another message.
    #[error("it belongs to another message")]
    OtherMessage,
    /// It belongs to another segment of the message.
    #[error("it belongs to segment {found}")]
    OtherSegment {
        /// The segment's number.
        found: u64,
    },
    /// Suite, form, threshold or size are not the manifest's.
    #[error("its parameters are not those of the manifest")]
    Parameters,
    /// The body is shorter or longer than the manifest says.
    #[error("its body has {given} octets: it must have {needed}")]
    BodyLength {
        /// Its length in octets.
        given: usize,
        /// The length that follows from the manifest.
        needed: usize,
    },
    /// Its digest is not the one in the manifest: it was altered or made up.
    #[error("its digest is not that in the manifest")]
    Digest,
}

/// Why a message was not opened, although it had enough genuine shares.
///
/// All but [`OpenError::TooFew`] mean that the sender made a manifest that contradicts itself, or
/// that the bound secret is another than the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not enough genuine shares yet.
    #[error("{given} genuine shares collected, {needed} needed")]
    TooFew {
        /// How many there are.
        given: usize,
        /// How many are needed.
        needed: u8,
    },
    /// The key does not match the key commitment: wrong bound secret, or a cheating sender.
    #[error("the rebuilt key is not the one committed to")]
    KeyCommitment,
    /// The ciphertext does not match the content digest: a cheating sender.
    #[error("the rebuilt ciphertext is not the one committed to")]
    Content,
}
