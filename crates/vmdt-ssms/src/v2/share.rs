//! The version 2 share.

use core::fmt;
use core::num::NonZeroU8;

use bytes::Bytes;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

use super::digest;
use super::error::{ShareFault, ShareRefused};
use super::manifest::{MARK, Manifest, SUITE, VERSION};
use crate::gf256::Lanes;
use crate::share::{KEY_LEN, joined};

/// The length of a version 2 share's head in octets.
pub const HEAD_LEN: usize = 68;
/// Octet 2 of a share.
const KIND: u8 = b'S';
/// Everything before the key share.
const PUBLIC_LEN: usize = HEAD_LEN - KEY_LEN;

/// The digest that the manifest lists for the share with these octets, so that a holder, which has
/// no use for the rest of the manifest, can check what it is given. `None` for fewer octets than a
/// head has.
#[must_use]
pub fn share_digest(octets: &[u8]) -> Option<[u8; 32]> {
    let (head, body) = octets.split_first_chunk::<HEAD_LEN>()?;
    Some(digest::share(head, &digest::body(body)))
}

/// One share of a segment.
///
/// | octets | field | value |
/// |---|---|---|
/// | 0 | mark | 0, which no version 1 share has |
/// | 1 | version | 2 |
/// | 2 | kind | `S` |
/// | 3 | suite | 1 |
/// | 4 | form | 1 replicated, 2 dispersed |
/// | 5 | threshold k | |
/// | 6 | n | |
/// | 7 | share index | 1..=n |
/// | 8..24 | message id | |
/// | 24..32 | segment number | big-endian, as all numbers |
/// | 32..36 | size | octets of the segment |
/// | 36..68 | key share | |
/// | 68.. | body | the whole ciphertext or a piece of it |
///
/// Everything but index, key share and body is also in the manifest, and must agree with it. The
/// head is overwritten when the share is dropped; `Debug` shows neither key share nor body.
#[derive(Clone)]
pub struct Share {
    head: [u8; HEAD_LEN],
    body: Bytes,
}

impl Share {
    /// A share without a key share.
    pub(crate) fn blank(manifest: &Manifest, index: NonZeroU8, body: Bytes) -> Share {
        let mut head = [0; HEAD_LEN];
        write_public(&mut head, manifest, index.get());
        Share { head, body }
    }

    pub(crate) fn set_key_share(&mut self, key_share: &Lanes) {
        if let Some(field) = self.head.last_chunk_mut::<KEY_LEN>() {
            key_share.write_to(field);
        }
    }

    pub(crate) fn key_share(&self) -> Lanes {
        self.head
            .last_chunk::<KEY_LEN>()
            .map(Lanes::from_octets)
            .unwrap_or_default()
    }

    /// Reads a share and holds everything but its digest against the manifest.
    pub(crate) fn parse(octets: Bytes, manifest: &Manifest) -> Result<Share, ShareRefused> {
        let refused = |index, fault| ShareRefused { index, fault };
        let Some(head) = octets.first_chunk::<HEAD_LEN>() else {
            let claimed = octets.get(7).copied().and_then(NonZeroU8::new);
            let fault = ShareFault::Truncated {
                given: octets.len(),
                needed: HEAD_LEN,
            };
            return Err(refused(claimed, fault));
        };
        let share = Share {
            head: *head,
            body: octets.slice(HEAD_LEN..),
        };
        let claimed = NonZeroU8::new(share.head[7]);
        let mut expected = [0; HEAD_LEN];
        write_public(&mut expected, manifest, share.head[7]);
        let differs =
            |range: core::ops::Range<usize>| share.head.get(range.clone()) != expected.get(range);
        let fault = if differs(0..3) {
            ShareFault::NotAShare
        } else if differs(8..24) {
            ShareFault::OtherMessage
        } else if differs(24..32) {
            let found = share.head.get(24..32).and_then(|f| f.first_chunk());
            ShareFault::OtherSegment {
                found: found.copied().map_or(0, u64::from_be_bytes),
            }
        } else if differs(3..7) || differs(32..PUBLIC_LEN) {
            ShareFault::Parameters
        } else if claimed.is_none_or(|index| index.get() > manifest.threshold().n()) {
            ShareFault::Index {
                found: share.head[7],
                n: manifest.threshold().n(),
            }
        } else if share.body.len() != manifest.body_len() {
            ShareFault::BodyLength {
                given: share.body.len(),
                needed: manifest.body_len(),
            }
        } else {
            return Ok(share);
        };
        Err(refused(claimed, fault))
    }

    /// The share's index, 1..=n.
    #[must_use]
    pub fn index(&self) -> NonZeroU8 {
        // Every constructor takes or checks a non-zero index, so the fallback is never reached.
        NonZeroU8::new(self.head[7]).unwrap_or(NonZeroU8::MAX)
    }

    /// The head as it travels. Its last 32 octets are the key share: a secret.
    #[must_use]
    pub fn head(&self) -> &[u8; HEAD_LEN] {
        &self.head
    }

    /// The ciphertext, or this share's piece of it.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The length of the share as it travels, in octets.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a share is never empty, it has a head"
    )]
    pub fn len(&self) -> usize {
        HEAD_LEN + self.body.len()
    }

    /// The share as it travels, head and body in one new buffer.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        joined(&[&self.head, &self.body])
    }
}

fn write_public(head: &mut [u8; HEAD_LEN], manifest: &Manifest, index: u8) {
    let threshold = manifest.threshold();
    head[..8].copy_from_slice(&[
        MARK,
        VERSION,
        KIND,
        SUITE,
        manifest.form().code(),
        threshold.k(),
        threshold.n(),
        index,
    ]);
    head[8..24].copy_from_slice(&manifest.envelope.message_id);
    head[24..32].copy_from_slice(&manifest.position.number.to_be_bytes());
    head[32..36].copy_from_slice(&manifest.size.to_be_bytes());
}

impl Drop for Share {
    fn drop(&mut self) {
        self.head.zeroize();
    }
}

impl ZeroizeOnDrop for Share {}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("index", &self.index())
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}
