//! Changing the holders of a key without putting the key together.
//!
//! **Refresh.** Adding a sharing of zero to a sharing of a key gives new points of the same key;
//! old points and new ones do not combine (A. Herzberg et al., "Proactive secret sharing",
//! CRYPTO '95). Each of `k` or more holders makes a [`zero_sharing`] and sends one point to each
//! holder; each adds what it received to its own point with [`refreshed`]. As long as one of those
//! who dealt is honest and forgets, what was stolen before is useless. A dealer who deals something
//! else than zero changes the key: a commitment to the key, as in [`v2`](crate::v2), shows it.
//!
//! **A share for a new or replaced holder.** Any `k` holders can compute the point at another
//! index: each computes its own summand of the interpolation there, blinds it by cutting it into
//! `k` random parts ([`contribution`]), sends one part to each of the `k`; each sums the parts it
//! received ([`summed`]) and sends the sum to the new holder, who sums the sums. Nobody sees more
//! than random octets and the new holder sees its own point only; the key never exists.
//!
//! Both assume honest but curious holders and channels between them that nobody else can read.

use core::num::NonZeroU8;

use alloc::vec::Vec;

use rand_core::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use super::{CombineError, KeyShare, Octets, Weights};
use crate::gf256::Lanes;
use crate::params::Threshold;
use crate::share::KEY_LEN;

/// Points of a sharing of zero, for the indices `1..=n`, to be added to points of a key.
///
/// Draws `32 * (k - 1)` octets from `rng`.
pub fn zero_sharing(threshold: Threshold, rng: &mut (impl CryptoRng + ?Sized)) -> Vec<KeyShare> {
    super::split_key(&[0; KEY_LEN], threshold, rng)
}

/// A point with points of zero sharings added: the new point, of the same key.
///
/// # Errors
///
/// [`CombineError::OtherIndex`] for a summand that is meant for another holder.
pub fn refreshed(share: &KeyShare, summands: &[KeyShare]) -> Result<KeyShare, CombineError> {
    let mut sum = Zeroizing::new(Lanes::from_octets(&share.value.0));
    for summand in summands {
        if summand.index != share.index {
            return Err(CombineError::OtherIndex {
                index: summand.index,
                expected: share.index,
            });
        }
        add(&mut sum, &summand.value);
    }
    Ok(KeyShare::of(share.index, &sum))
}

/// What one of `k` helpers sends to all of them, in the order of `helpers`, so that a point at
/// `new` can be made: parts of its summand, each of which alone is random.
///
/// `helpers` are the indices of all who help, as many as the threshold, `share`'s among them. Each
/// part carries the index of the helper that it is for. Draws 32 octets for every other helper.
///
/// # Errors
///
/// [`CombineError::TooFew`] for fewer than 2 helpers, [`CombineError::Duplicate`] for an index that
/// is there twice or is `new`, [`CombineError::OtherIndex`] if `share` is not a helper's.
pub fn contribution(
    share: &KeyShare,
    helpers: &[NonZeroU8],
    new: NonZeroU8,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<KeyShare>, CombineError> {
    let own = summand(share, helpers, new)?;
    let mut left = Zeroizing::new(own.lanes());
    let mut parts = Vec::with_capacity(helpers.len());
    for &helper in helpers {
        let mut part = Zeroizing::new(Lanes::default());
        if parts.len() + 1 == helpers.len() {
            *part = *left;
        } else {
            let mut drawn = Zeroizing::new(Octets::<KEY_LEN>::default());
            rng.fill_bytes(&mut drawn.0);
            *part = Lanes::from_octets(&drawn.0);
            left.add(&part);
        }
        parts.push(KeyShare::of(helper, &part));
    }
    Ok(parts)
}

/// One helper's summand of the interpolation at `new`: the sum of all helpers' is the new point.
/// It gives the helper's own point away and has to be masked before it leaves.
///
/// # Errors
///
/// As [`contribution`].
pub fn summand(
    share: &KeyShare,
    helpers: &[NonZeroU8],
    new: NonZeroU8,
) -> Result<KeyShare, CombineError> {
    if helpers.len() < 2 {
        return Err(CombineError::TooFew {
            given: helpers.len(),
        });
    }
    for (position, &index) in helpers.iter().enumerate() {
        // At most 255 rounds: the 256th index repeats one.
        if index == new || helpers.iter().take(position).any(|h| *h == index) {
            return Err(CombineError::Duplicate { index });
        }
    }
    let weight = Weights::at(helpers, new)
        .find(|(index, _)| *index == share.index)
        .map(|(_, weight)| weight)
        .ok_or(CombineError::OtherIndex {
            index: share.index,
            expected: new,
        })?;
    let own = Zeroizing::new(Lanes::from_octets(&share.value.0));
    let own = Zeroizing::new(own.times_public(weight));
    Ok(KeyShare::of(new, &own))
}

/// The sum of parts, for the holder `index`: at a helper, of the parts it received; at the new
/// holder, of the helpers' sums, which makes its point.
#[must_use]
pub fn summed(index: NonZeroU8, parts: &[KeyShare]) -> KeyShare {
    let mut sum = Zeroizing::new(Lanes::default());
    for part in parts {
        add(&mut sum, &part.value);
    }
    KeyShare::of(index, &sum)
}

fn add(sum: &mut Lanes, value: &Octets<KEY_LEN>) {
    let mut value = Lanes::from_octets(&value.0);
    sum.add(&value);
    value.zeroize();
}
