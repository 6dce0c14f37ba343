//! Splitting a message and putting it together again.

use alloc::vec::Vec;

use bytes::Bytes;
use rand_core::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use crate::cipher::Cipher;
use crate::error::{Field, ReconstructError, SplitError};
use crate::params::Threshold;
use crate::shamir::{Interpolation, Key, Octets, Polynomials};
use crate::share::{HEAD_LEN, Head, KEY_LEN, NONCE_LEN, Share};

/// The longest message that version 1 can carry, in octets: its size field has 32 bits.
pub const MAX_MESSAGE_LEN: u32 = u32::MAX;

/// Splits a message into `threshold.n()` shares, any `threshold.k()` of which rebuild it.
///
/// The message is encrypted in the buffer that is handed over, and all shares refer to that
/// buffer. The empty message is legal. A key and a nonce are drawn for this message alone:
/// `32 + 12 + 32 * (k - 1)` octets are taken from `rng`, in calls of up to 256 octets, so a
/// generator that asks the operating system each time is better buffered when messages are small.
///
/// # Errors
///
/// [`SplitError::TooLong`] for a message above [`MAX_MESSAGE_LEN`] octets, before any work.
pub fn split(
    threshold: Threshold,
    mut message: Vec<u8>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<Share>, SplitError> {
    let size = size_field(message.len())?;
    Ok(share_out(threshold, size, rng, |_, _, cipher| {
        cipher.apply(&mut message);
        message
    }))
}

/// As [`split`], from a borrowed message: one copy is made, in the same pass as the encryption.
///
/// # Errors
///
/// As [`split`].
pub fn split_slice(
    threshold: Threshold,
    message: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<Share>, SplitError> {
    let size = size_field(message.len())?;
    Ok(share_out(threshold, size, rng, |_, _, cipher| {
        cipher.apply_to_copy(message)
    }))
}

/// Rebuilds a message from `k` or more of its shares, in any order.
///
/// Every field of every share given is compared before a key is computed, and the shares beyond
/// the first `k` must lie on the polynomial of those. What comes out is **not authenticated**: see
/// the crate's documentation.
///
/// # Errors
///
/// [`ReconstructError`], which names shares by index, and the field. Checks are made in this
/// order: share by share, an index that an earlier share has ([`Duplicate`], or [`Conflict`] if
/// the two differ) and a threshold, size or nonce that is not the first share's ([`Mismatch`]);
/// then [`TooFew`]; then a ciphertext that is not the first share's ([`Mismatch`]); then
/// [`Inconsistent`]. Nothing is allocated for the message before all of them have passed.
///
/// [`Duplicate`]: ReconstructError::Duplicate
/// [`Conflict`]: ReconstructError::Conflict
/// [`Mismatch`]: ReconstructError::Mismatch
/// [`TooFew`]: ReconstructError::TooFew
/// [`Inconsistent`]: ReconstructError::Inconsistent
pub fn reconstruct(shares: &[Share]) -> Result<Vec<u8>, ReconstructError> {
    let first = agreeing(shares)?;
    let key = interpolated_key(shares, usize::from(first.k()))?;
    Ok(Cipher::new(key.as_bytes(), &first.nonce()).apply_to_copy(first.body()))
}

/// As [`reconstruct`], but decrypts in the buffer that a share's body lies in, if nothing else
/// refers to that buffer; otherwise a copy is made as there.
///
/// A body is free for it when the share was parsed from a buffer of its own, or when all shares
/// of a split that is still in one place are given.
///
/// # Errors
///
/// As [`reconstruct`].
pub fn reconstruct_owned(mut shares: Vec<Share>) -> Result<Bytes, ReconstructError> {
    let first = agreeing(&shares)?;
    let nonce = first.nonce();
    let key = interpolated_key(&shares, usize::from(first.k()))?;
    let mut cipher = Cipher::new(key.as_bytes(), &nonce);
    let mut bodies: Vec<Bytes> = shares.iter_mut().map(Share::take_body).collect();
    drop(shares);
    while let Some(body) = bodies.pop() {
        match body.try_into_mut() {
            Ok(mut message) => {
                cipher.apply(&mut message);
                return Ok(message.freeze());
            }
            Err(body) if bodies.is_empty() => return Ok(cipher.apply_to_copy(&body).into()),
            Err(_) => {}
        }
    }
    // Not reached: there are as many bodies as shares, two at least.
    Ok(Bytes::new())
}

pub(crate) fn size_field(len: usize) -> Result<u32, SplitError> {
    u32::try_from(len).map_err(|_| SplitError::TooLong {
        len,
        max: MAX_MESSAGE_LEN,
    })
}

/// A fresh key and nonce.
fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> (Zeroizing<Octets<KEY_LEN>>, [u8; NONCE_LEN]) {
    let mut drawn = Zeroizing::new(Octets::<{ KEY_LEN + NONCE_LEN }>::default());
    rng.fill_bytes(&mut drawn.0);
    let mut key = Zeroizing::new(Octets::<KEY_LEN>::default());
    key.0.copy_from_slice(&drawn.0[..KEY_LEN]);
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&drawn.0[KEY_LEN..]);
    (key, nonce)
}

/// Draws a key and a nonce, has the message encrypted under them, and shares the key.
pub(crate) fn share_out(
    threshold: Threshold,
    size: u32,
    rng: &mut (impl CryptoRng + ?Sized),
    encrypt: impl FnOnce(&[u8; KEY_LEN], &[u8; NONCE_LEN], &mut Cipher) -> Vec<u8>,
) -> Vec<Share> {
    let (key, nonce) = draw(rng);
    let polynomials = Polynomials::random(&key.0, threshold, rng);
    let mut cipher = Cipher::new(&key.0, &nonce);
    let body = Bytes::from(encrypt(&key.0, &nonce, &mut cipher));

    // The capacity is exact so that no share is moved, which would leave a copy behind.
    let mut shares = Vec::with_capacity(usize::from(threshold.n()));
    let head = Head::public(size, threshold.k(), &nonce);
    polynomials.each(threshold.n(), |index, value| {
        shares.push(Share::blank(&head, body.clone()));
        if let Some(share) = shares.last_mut() {
            share.set(index, value);
        }
    });
    shares
}

/// Draws a key and a nonce, shares the key, and hands out the heads one after the other, the first
/// one together with the cipher.
pub(crate) fn share_heads(
    threshold: Threshold,
    size: u32,
    rng: &mut (impl CryptoRng + ?Sized),
    mut take: impl FnMut(&[u8; HEAD_LEN], Option<&mut Cipher>),
) {
    let (key, nonce) = draw(rng);
    let polynomials = Polynomials::random(&key.0, threshold, rng);
    let mut cipher = Cipher::new(&key.0, &nonce);
    let mut first = Some(&mut cipher);
    let mut head = Zeroizing::new(Head::public(size, threshold.k(), &nonce));
    polynomials.each(threshold.n(), |index, value| {
        head.set(index, value);
        take(head.octets(), first.take());
    });
}

/// The first share, once all agree with it and they are enough.
pub(crate) fn agreeing(shares: &[Share]) -> Result<&Share, ReconstructError> {
    let Some((first, rest)) = shares.split_first() else {
        return Err(ReconstructError::TooFew {
            given: 0,
            needed: 2,
        });
    };
    let mismatch = |share: &Share, field| ReconstructError::Mismatch {
        index: share.index(),
        against: first.index(),
        field,
    };
    for (earlier, share) in (1..).zip(rest) {
        let index = share.index();
        // At most 255 rounds: the 256th share repeats an index.
        if let Some(twin) = shares.iter().take(earlier).find(|s| s.index() == index) {
            return Err(match share.difference(twin) {
                None => ReconstructError::Duplicate { index },
                Some(field) => ReconstructError::Conflict { index, field },
            });
        }
        if let Some(field) = share.head_difference(first) {
            return Err(mismatch(share, field));
        }
    }
    if shares.len() < usize::from(first.k()) {
        return Err(ReconstructError::TooFew {
            given: shares.len(),
            needed: first.k(),
        });
    }
    match rest.iter().find(|share| !share.same_body(first)) {
        Some(share) => Err(mismatch(share, Field::Body)),
        None => Ok(first),
    }
}

/// The key that the first `k` shares hold, if the others lie on the same polynomials.
pub(crate) fn interpolated_key(shares: &[Share], k: usize) -> Result<Key, ReconstructError> {
    let used = shares
        .iter()
        .take(k)
        .map(|share| (share.index(), share.key_share()));
    let interpolation = Interpolation::through(used);
    // All are looked at before a verdict, so that time does not tell which share disagrees.
    let mut consistent = true;
    for share in shares.iter().skip(k) {
        let mut expected = interpolation.at(share.index().get());
        consistent &= expected.equals(&share.key_share());
        expected.zeroize();
    }
    if !consistent {
        return Err(ReconstructError::Inconsistent {
            given: shares.len(),
        });
    }
    let mut value = interpolation.at(0);
    let key = Key::from_lanes(&value);
    value.zeroize();
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_field_takes_32_bits_and_no_more() {
        assert_eq!(size_field(0), Ok(0));
        assert_eq!(size_field(u32::MAX as usize), Ok(MAX_MESSAGE_LEN));
        #[cfg(target_pointer_width = "64")]
        for len in [1 << 32, usize::MAX] {
            let error = SplitError::TooLong {
                len,
                max: MAX_MESSAGE_LEN,
            };
            assert_eq!(size_field(len), Err(error));
        }
    }
}
