//! Version 1 shares of a small message, in one buffer.

use core::fmt;

use alloc::vec::Vec;

use bytes::Bytes;
use rand_core::CryptoRng;
use zeroize::Zeroize as _;

use crate::error::SplitError;
use crate::params::Threshold;
use crate::scheme::{share_heads, size_field};
use crate::share::{HEAD_LEN, Share};

/// The shares of a message as they travel, one after the other: head and ciphertext each.
///
/// The key shares are overwritten when it is dropped. `Debug` shows no octets.
pub struct Packed {
    octets: Vec<u8>,
    share_len: usize,
}

/// As [`split_slice`](crate::split_slice), but every share has a ciphertext of its own, and all lie
/// in one buffer, ready to be sent.
///
/// Up to about 1 KiB, copying the ciphertext `n` times costs less than counting references to it,
/// and far less than putting `n` shares together with [`Share::to_bytes`]. Beyond, and for large
/// `n`, it takes `n` times the memory for nothing.
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_ssms::{Share, Threshold, reconstruct, split_packed};
///
/// let mut rng = ChaCha20Rng::from_seed([7; 32]);
/// let packed = split_packed(Threshold::new(2, 3)?, b"noon", &mut rng)?;
/// let sent: Vec<&[u8]> = packed.iter().collect();
/// assert_eq!(sent.len(), 3);
///
/// let received = |octets: &[u8]| Share::parse(octets.to_vec().into());
/// assert_eq!(reconstruct(&[received(sent[2])?, received(sent[0])?])?, b"noon");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`split`](crate::split).
pub fn split_packed(
    threshold: Threshold,
    message: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Packed, SplitError> {
    let size = size_field(message.len())?;
    let share_len = HEAD_LEN + message.len();
    let mut octets = Vec::with_capacity(share_len * usize::from(threshold.n()));
    share_heads(threshold, size, rng, |head, cipher| {
        octets.extend_from_slice(head);
        match cipher {
            Some(cipher) => {
                octets.extend_from_slice(message);
                if let Some(body) = octets.get_mut(HEAD_LEN..) {
                    cipher.apply(body);
                }
            }
            None => octets.extend_from_within(HEAD_LEN..share_len),
        }
    });
    Ok(Packed { octets, share_len })
}

impl Packed {
    /// The shares as they travel, in order of their indices.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.octets.chunks_exact(self.share_len)
    }

    /// The shares, each with a copy of its ciphertext.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        self.iter().filter_map(|octets| {
            let (head, body) = octets.split_first_chunk::<HEAD_LEN>()?;
            Share::from_parts(*head, Bytes::copy_from_slice(body)).ok()
        })
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        for share in self.octets.chunks_exact_mut(self.share_len) {
            share.split_at_mut(HEAD_LEN.min(share.len())).0.zeroize();
        }
    }
}

impl zeroize::ZeroizeOnDrop for Packed {}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed")
            .field("shares", &self.iter().len())
            .field("share_len", &self.share_len)
            .finish()
    }
}
