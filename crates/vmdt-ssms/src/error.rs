//! What can go wrong, one type per operation.

use core::fmt;
use core::num::NonZeroU8;

/// Why a [`Threshold`](crate::Threshold) was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThresholdError {
    /// `k` is 0 or 1: a single share would be enough to read the message.
    #[error("threshold k = {k} is too low: at least 2 shares must be needed")]
    TooLow {
        /// The `k` that was asked for.
        k: u8,
    },
    /// `k` is above `n`: the message could never be rebuilt.
    #[error("threshold k = {k} is above n = {n}, the number of shares made")]
    AboveTotal {
        /// The `k` that was asked for.
        k: u8,
        /// The `n` that was asked for.
        n: u8,
    },
}

/// A field of a version 1 share, with its place in the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Field {
    /// Share index, octet 0.
    Index,
    /// Original size, octets 1 to 4.
    Size,
    /// Threshold k, octet 5.
    Threshold,
    /// Key share size, octets 6 to 9.
    KeyShareSize,
    /// Nonce, octets 10 to 21.
    Nonce,
    /// Key share, octets 22 to 53.
    KeyShare,
    /// Ciphertext, from octet 54 on.
    Body,
}

impl Field {
    /// The offset of the field's first octet within the share.
    #[must_use]
    pub const fn offset(self) -> usize {
        match self {
            Field::Index => 0,
            Field::Size => 1,
            Field::Threshold => 5,
            Field::KeyShareSize => 6,
            Field::Nonce => 10,
            Field::KeyShare => 22,
            Field::Body => 54,
        }
    }

    /// The field of the head that octet `offset` belongs to.
    pub(crate) const fn at(offset: usize) -> Field {
        match offset {
            0 => Field::Index,
            1..=4 => Field::Size,
            5 => Field::Threshold,
            6..=9 => Field::KeyShareSize,
            10..=21 => Field::Nonce,
            22..=53 => Field::KeyShare,
            _ => Field::Body,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Index => "share index",
            Field::Size => "original size",
            Field::Threshold => "threshold k",
            Field::KeyShareSize => "key share size",
            Field::Nonce => "nonce",
            Field::KeyShare => "key share",
            Field::Body => "ciphertext",
        })
    }
}

/// Why octets are not a version 1 share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The octets end inside the head.
    #[error("share of {given} octets ends at the {field}: its head alone is {needed} octets")]
    Truncated {
        /// The first field that is not all there.
        field: Field,
        /// The length of a head in octets, [`HEAD_LEN`](crate::HEAD_LEN).
        needed: usize,
        /// How many octets there were.
        given: usize,
    },
    /// The index is 0. No version 1 share has it (it would be the key itself); a first octet of 0
    /// marks formats that this version does not read.
    #[error("share index is 0: not a version 1 share")]
    IndexZero,
    /// The threshold is 0 or 1.
    #[error("threshold k is {k} in share {index}: at least 2 shares must be needed")]
    Threshold {
        /// The share's index.
        index: NonZeroU8,
        /// The `k` found.
        k: u8,
    },
    /// The key share size is not 32.
    #[error("key share size is {found} in share {index}: version 1 has 32")]
    KeyShareSize {
        /// The share's index.
        index: NonZeroU8,
        /// The size found, in octets.
        found: u32,
    },
    /// The share announces a longer message than it has octets of ciphertext.
    #[error("original size is {size} in share {index}, but {present} octets of ciphertext follow")]
    SizeBeyondBody {
        /// The share's index.
        index: NonZeroU8,
        /// The size that the share announces, in octets.
        size: u32,
        /// The octets that follow the head.
        present: usize,
    },
}

impl ShareError {
    /// The field that is at fault.
    #[must_use]
    pub const fn field(&self) -> Field {
        match self {
            ShareError::Truncated { field, .. } => *field,
            ShareError::IndexZero => Field::Index,
            ShareError::Threshold { .. } => Field::Threshold,
            ShareError::KeyShareSize { .. } => Field::KeyShareSize,
            ShareError::SizeBeyondBody { .. } => Field::Size,
        }
    }
}

/// Why a message was not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The message is longer than the 32-bit size field of a version 1 share can say. Split it in
    /// segments.
    #[error("message of {len} octets is too long: a share holds at most {max} octets")]
    TooLong {
        /// The length of the message in octets.
        len: usize,
        /// The greatest length in octets, [`MAX_MESSAGE_LEN`](crate::MAX_MESSAGE_LEN).
        max: u32,
    },
}

/// Why shares were not put together.
///
/// No variant holds an octet of a key share or of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReconstructError {
    /// Fewer shares than the threshold they carry; with no share at all, `needed` is 2, the
    /// least threshold there is.
    #[error("{given} shares given, {needed} needed")]
    TooFew {
        /// How many shares there were.
        given: usize,
        /// How many are needed.
        needed: u8,
    },
    /// The same share was given twice.
    #[error("share {index} was given twice")]
    Duplicate {
        /// The index of both shares.
        index: NonZeroU8,
    },
    /// Two different shares carry the same index, and differ first in `field`. Which one is the
    /// true one cannot be told from them.
    #[error("two different shares carry index {index}: they differ in the {field}")]
    Conflict {
        /// The index of both shares.
        index: NonZeroU8,
        /// The first field in which they differ.
        field: Field,
    },
    /// Two shares do not belong to the same message, or one of them was altered. Which one cannot
    /// be told from them.
    #[error("shares {against} and {index} differ in the {field}")]
    Mismatch {
        /// The index of the share that differs from the first share given.
        index: NonZeroU8,
        /// The index of the first share given.
        against: NonZeroU8,
        /// The field in which they differ: threshold, size, nonce or ciphertext.
        field: Field,
    },
    /// More shares than the threshold were given, and their key shares do not all lie on one
    /// polynomial: at least one of them was altered or belongs to another message.
    #[error("the key shares of the {given} shares given contradict each other")]
    Inconsistent {
        /// How many shares there were.
        given: usize,
    },
}
