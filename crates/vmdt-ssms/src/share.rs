//! The version 1 share: a head of its own and a ciphertext that all shares of a message have in
//! common.

use core::fmt;
use core::num::NonZeroU8;

use alloc::vec::Vec;

use bytes::Bytes;
use zeroize::{DefaultIsZeroes, Zeroize as _};

use crate::error::{Field, ShareError};
use crate::gf256::Lanes;

/// The length of a share's head in octets.
pub const HEAD_LEN: usize = 54;
/// The length of a key and of a key share in octets.
pub const KEY_LEN: usize = 32;
/// The length of a nonce in octets.
pub const NONCE_LEN: usize = 12;

/// One share of a message.
///
/// | octets | field | value |
/// |---|---|---|
/// | 0 | share index | 1..=255, the x of the key share |
/// | 1..5 | original size | octets of the message, big-endian |
/// | 5 | threshold k | 2..=255 |
/// | 6..10 | key share size | 32, big-endian |
/// | 10..22 | nonce | the same in all shares of a message |
/// | 22..54 | key share | one polynomial's value per key octet |
/// | 54.. | ciphertext | as long as the message, the same in all shares of a message |
///
/// The octets 0 to 53 are the *head*, the ciphertext is the *body*. A clone copies the head and
/// refers to the same body. The two can be written with one vectored write ([`Share::head`],
/// [`Share::body`]) or joined ([`Share::to_bytes`]).
///
/// The head is overwritten when the share is dropped, and `Debug` shows neither key share nor
/// body. Comparing two shares takes a time that does not depend on their key shares.
#[derive(Clone)]
pub struct Share {
    head: Head,
    body: Bytes,
}

#[derive(Clone, Copy)]
pub(crate) struct Head([u8; HEAD_LEN]);

impl Head {
    /// What all heads of a message have in common.
    pub(crate) fn public(size: u32, k: u8, nonce: &[u8; NONCE_LEN]) -> Head {
        let mut head = [0; HEAD_LEN];
        head[1..5].copy_from_slice(&size.to_be_bytes());
        head[5] = k;
        head[6..10].copy_from_slice(&(KEY_LEN as u32).to_be_bytes());
        head[10..22].copy_from_slice(nonce);
        Head(head)
    }

    /// Makes it the head of one share.
    pub(crate) fn set(&mut self, index: NonZeroU8, key_share: &Lanes) {
        self.0[0] = index.get();
        if let Some(field) = self.0.last_chunk_mut::<KEY_LEN>() {
            key_share.write_to(field);
        }
    }

    pub(crate) fn octets(&self) -> &[u8; HEAD_LEN] {
        &self.0
    }
}

impl Default for Head {
    fn default() -> Head {
        Head([0; HEAD_LEN])
    }
}

/// Lets `zeroize` overwrite a head with one wide volatile write.
impl DefaultIsZeroes for Head {}

impl Share {
    /// A share whose index and key share are still to be set: writing them where the share finally
    /// lies leaves no copy behind. `body` is as long as the head says.
    pub(crate) fn blank(head: &Head, body: Bytes) -> Share {
        Share { head: *head, body }
    }

    /// Writes index and key share of a blank share.
    pub(crate) fn set(&mut self, index: NonZeroU8, key_share: &Lanes) {
        self.head.set(index, key_share);
    }

    /// Reads a share. The body is a slice of `octets`, not a copy.
    ///
    /// Octets that follow head and body are legal and do not become part of the share: readers of
    /// version 1 ignore them.
    ///
    /// # Errors
    ///
    /// [`ShareError`], which names the field: a head that is cut short, index 0 (which marks other
    /// formats, so it is reported however short `octets` is), threshold 0 or 1, a key share size
    /// other than 32, an original size above the number of octets that follow the head.
    pub fn parse(octets: Bytes) -> Result<Share, ShareError> {
        let Some(head) = octets.first_chunk::<HEAD_LEN>() else {
            return Err(match octets.first() {
                Some(0) => ShareError::IndexZero,
                _ => ShareError::Truncated {
                    field: Field::at(octets.len()),
                    needed: HEAD_LEN,
                    given: octets.len(),
                },
            });
        };
        let head = *head;
        Share::from_parts(head, octets.slice(HEAD_LEN..))
    }

    /// Makes a share of a head and the octets that follow it, for callers that hold the two apart.
    ///
    /// `body` is cut to the original size that the head announces.
    ///
    /// # Errors
    ///
    /// As [`Share::parse`], except that a head cannot be cut short here.
    pub fn from_parts(head: [u8; HEAD_LEN], mut body: Bytes) -> Result<Share, ShareError> {
        let Some(index) = NonZeroU8::new(head[0]) else {
            return Err(ShareError::IndexZero);
        };
        let k = head[5];
        if k < 2 {
            return Err(ShareError::Threshold { index, k });
        }
        let key_share_size = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
        if key_share_size != KEY_LEN as u32 {
            return Err(ShareError::KeyShareSize {
                index,
                found: key_share_size,
            });
        }
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        match usize::try_from(size) {
            Ok(len) if len <= body.len() => body.truncate(len),
            _ => {
                return Err(ShareError::SizeBeyondBody {
                    index,
                    size,
                    present: body.len(),
                });
            }
        }
        Ok(Share {
            head: Head(head),
            body,
        })
    }

    /// The share's index, 1..=255.
    #[must_use]
    pub fn index(&self) -> NonZeroU8 {
        // Every constructor takes or checks a non-zero index, so the fallback is never reached.
        NonZeroU8::new(self.head.0[0]).unwrap_or(NonZeroU8::MAX)
    }

    /// How many shares rebuild the message, 2..=255.
    #[must_use]
    pub fn k(&self) -> u8 {
        self.head.0[5]
    }

    /// The length of the message, and of the body, in octets.
    #[must_use]
    pub fn size(&self) -> u32 {
        let head = &self.head.0;
        u32::from_be_bytes([head[1], head[2], head[3], head[4]])
    }

    /// The nonce, the same in all shares of a message.
    #[must_use]
    pub fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.head.0[10..22]);
        nonce
    }

    /// The head as it travels. Its last 32 octets are the key share: a secret.
    #[must_use]
    pub fn head(&self) -> &[u8; HEAD_LEN] {
        &self.head.0
    }

    /// The ciphertext. All shares of one split refer to the same octets.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The length of the share as it travels, head and body, in octets.
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
        joined(&[&self.head.0, &self.body])
    }

    /// The body alone, which the share then no longer refers to.
    pub(crate) fn take_body(&mut self) -> Bytes {
        core::mem::take(&mut self.body)
    }

    /// The key share's field elements.
    pub(crate) fn key_share(&self) -> Lanes {
        self.head
            .0
            .last_chunk::<KEY_LEN>()
            .map(Lanes::from_octets)
            .unwrap_or_default()
    }

    /// The first field of the head, other than index and key share, in which the two differ.
    pub(crate) fn head_difference(&self, other: &Share) -> Option<Field> {
        if self.k() != other.k() {
            Some(Field::Threshold)
        } else if self.size() != other.size() {
            Some(Field::Size)
        } else if self.nonce() != other.nonce() {
            Some(Field::Nonce)
        } else {
            None
        }
    }

    /// Whether both carry the same ciphertext; at no cost when they refer to the same octets.
    pub(crate) fn same_body(&self, other: &Share) -> bool {
        let (a, b) = (&self.body, &other.body);
        a.len() == b.len() && (a.as_ptr() == b.as_ptr() || a == b)
    }

    /// The first field after the index in which the two differ.
    pub(crate) fn difference(&self, other: &Share) -> Option<Field> {
        if let Some(field) = self.head_difference(other) {
            Some(field)
        } else if !self.key_share().equals(&other.key_share()) {
            Some(Field::KeyShare)
        } else if !self.same_body(other) {
            Some(Field::Body)
        } else {
            None
        }
    }
}

/// Parts of a share in one new buffer.
pub(crate) fn joined(parts: &[&[u8]]) -> Bytes {
    let mut octets = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        octets.extend_from_slice(part);
    }
    octets.into()
}

impl PartialEq for Share {
    fn eq(&self, other: &Share) -> bool {
        self.index() == other.index() && self.difference(other).is_none()
    }
}

impl Eq for Share {}

impl Drop for Share {
    fn drop(&mut self) {
        self.head.zeroize();
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("index", &self.index())
            .field("k", &self.k())
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wiped_head_holds_nothing() {
        let mut head = Head([0xff; HEAD_LEN]);
        head.zeroize();
        assert_eq!(head.0, [0; HEAD_LEN]);
        assert!(core::mem::needs_drop::<Share>());
    }

    #[test]
    fn fields_meet_without_gap() {
        for offset in 0..HEAD_LEN + 10 {
            let field = Field::at(offset);
            assert!(field.offset() <= offset);
            if offset > 0 && Field::at(offset - 1) != field {
                assert_eq!(field.offset(), offset);
            }
        }
        assert_eq!(Field::Body.offset(), HEAD_LEN);
        assert_eq!(Field::Nonce.offset() + NONCE_LEN, Field::KeyShare.offset());
        assert_eq!(Field::KeyShare.offset() + KEY_LEN, Field::Body.offset());
    }
}
