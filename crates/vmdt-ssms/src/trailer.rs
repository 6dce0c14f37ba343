//! Version 1 shares with an authentication trailer.
//!
//! Readers of version 1 ignore octets after the ciphertext, so a tag fits there: these shares can
//! be rebuilt by any version 1 implementation, and verified by one that knows the trailer.
//!
//! | octets | field | value |
//! |---|---|---|
//! | 0..54 + size | version 1 share | head and ciphertext |
//! | next 8 | mark | `SSMSTAG1` |
//! | next 32 | tag | the same in all shares of a message |
//!
//! The tag is BLAKE3, keyed with a domain, of the message's key, nonce, threshold and size and the
//! BLAKE3 hash of the ciphertext. It commits to the key, so no second key opens the same shares,
//! and nobody can make one without the key: a holder of fewer than `k` shares who alters anything
//! is found out. Whoever holds `k` shares can make a tag for another message. The tag says *that*
//! something was altered, not what; [`v2`](crate::v2) names the share, and binds the sender.
//!
//! ```
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! use vmdt_ssms::{Threshold, trailer};
//!
//! let mut rng = ChaCha20Rng::from_seed([7; 32]);
//! let shares = trailer::split(Threshold::new(2, 3)?, b"noon".to_vec(), &mut rng)?;
//! assert_eq!(trailer::reconstruct(&shares[1..])?, b"noon");
//!
//! let mut altered = shares[2].to_bytes().to_vec();
//! altered[30] ^= 1;
//! let altered = trailer::TaggedShare::parse(altered.into())?;
//! assert!(trailer::reconstruct(&[shares[0].clone(), altered]).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::vec::Vec;

use bytes::Bytes;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use crate::cipher::Cipher;
use crate::error::{ReconstructError, ShareError, SplitError};
use crate::params::Threshold;
use crate::scheme::{agreeing, interpolated_key, share_out, size_field};
use crate::share::{KEY_LEN, NONCE_LEN, Share, joined};

/// The length of a trailer in octets.
pub const TRAILER_LEN: usize = MARK.len() + TAG_LEN;
const MARK: &[u8; 8] = b"SSMSTAG1";
const TAG_LEN: usize = 32;
const DOMAIN: &[u8; 32] = b"vmdt-ssms v1 trailer            ";

/// A version 1 share and its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedShare {
    share: Share,
    tag: [u8; TAG_LEN],
}

/// Why octets are not a version 1 share with a trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaggedShareError {
    /// Not even a version 1 share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// What follows the ciphertext is not a trailer: too short, or without its mark.
    #[error("no trailer follows the ciphertext, but {given} octets")]
    NoTrailer {
        /// How many octets follow.
        given: usize,
    },
}

/// Why tagged shares were not put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticatedError {
    /// The shares contradict each other, or are too few.
    #[error(transparent)]
    Reconstruct(#[from] ReconstructError),
    /// The tag is not that of the rebuilt key and ciphertext, or not the same in all shares:
    /// something was altered.
    #[error("the tag does not match: something was altered")]
    Tag,
}

impl TaggedShare {
    /// Reads a share and its trailer. Octets after the trailer are ignored.
    ///
    /// # Errors
    ///
    /// [`TaggedShareError`].
    pub fn parse(octets: Bytes) -> Result<TaggedShare, TaggedShareError> {
        let share = Share::parse(octets.clone())?;
        let rest = octets.get(share.len()..).unwrap_or_default();
        let no_trailer = TaggedShareError::NoTrailer { given: rest.len() };
        let tag = rest
            .strip_prefix(MARK)
            .and_then(|rest| rest.first_chunk::<TAG_LEN>())
            .ok_or(no_trailer)?;
        Ok(TaggedShare { share, tag: *tag })
    }

    /// The version 1 share.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// The trailer, for vectored writes after head and body of [`TaggedShare::share`].
    #[must_use]
    pub fn trailer(&self) -> [u8; TRAILER_LEN] {
        let mut trailer = [0; TRAILER_LEN];
        let (mark, tag) = trailer.split_at_mut(MARK.len());
        mark.copy_from_slice(MARK);
        tag.copy_from_slice(&self.tag);
        trailer
    }

    /// Share and trailer as they travel, in one new buffer.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        joined(&[self.share.head(), self.share.body(), &self.trailer()])
    }
}

/// As [`crate::split`], with a trailer in each share.
///
/// # Errors
///
/// As [`crate::split`].
pub fn split(
    threshold: Threshold,
    mut message: Vec<u8>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<TaggedShare>, SplitError> {
    let size = size_field(message.len())?;
    let mut tag = [0; TAG_LEN];
    let shares = share_out(threshold, size, rng, |key, nonce, cipher| {
        cipher.apply(&mut message);
        tag = tag_of(key, nonce, threshold.k(), size, &message);
        message
    });
    Ok(shares
        .into_iter()
        .map(|share| TaggedShare { share, tag })
        .collect())
}

/// As [`crate::reconstruct`], and verifies the tag before anything is decrypted.
///
/// # Errors
///
/// [`AuthenticatedError`].
pub fn reconstruct(shares: &[TaggedShare]) -> Result<Vec<u8>, AuthenticatedError> {
    let plain: Vec<Share> = shares.iter().map(|tagged| tagged.share.clone()).collect();
    let first = agreeing(&plain)?;
    let key = interpolated_key(&plain, usize::from(first.k()))?;
    let nonce = first.nonce();
    let expected = tag_of(
        key.as_bytes(),
        &nonce,
        first.k(),
        first.size(),
        first.body(),
    );
    let genuine = shares.iter().fold(subtle::Choice::from(1), |all, tagged| {
        all & tagged.tag.ct_eq(&expected)
    });
    if !bool::from(genuine) {
        return Err(AuthenticatedError::Tag);
    }
    Ok(Cipher::new(key.as_bytes(), &nonce).apply_to_copy(first.body()))
}

fn tag_of(
    key: &[u8; KEY_LEN],
    nonce: &[u8; NONCE_LEN],
    k: u8,
    size: u32,
    body: &[u8],
) -> [u8; TAG_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(DOMAIN);
    hasher.update(key);
    hasher.update(nonce);
    hasher.update(&[k]);
    hasher.update(&size.to_be_bytes());
    hasher.update(blake3::hash(body).as_bytes());
    let tag = *hasher.finalize().as_bytes();
    hasher.zeroize();
    tag
}
