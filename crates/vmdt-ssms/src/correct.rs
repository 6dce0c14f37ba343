//! Rebuilding a version 1 message from shares of which some are wrong.

use core::num::NonZeroU8;

use alloc::vec;
use alloc::vec::Vec;

use zeroize::{Zeroize as _, Zeroizing};

use crate::cipher::Cipher;
use crate::dispersal::field::{div, mul};
use crate::gf256::Lanes;
use crate::scheme::interpolated_key;
use crate::share::{KEY_LEN, Share};

/// A message, and the shares that were wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corrected {
    /// The message.
    pub message: Vec<u8>,
    /// The indices of the shares that contradict it, ascending.
    pub bad: Vec<NonZeroU8>,
}

/// Why no message was rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorrectError {
    /// Fewer shares than the threshold that most of them carry; 2 when there are none.
    #[error("{given} shares given, {needed} needed")]
    TooFew {
        /// How many there were.
        given: usize,
        /// How many are needed.
        needed: u8,
    },
    /// Two shares have the same index. Give the one that is to count.
    #[error("two shares carry index {index}")]
    Repeated {
        /// The index of both.
        index: NonZeroU8,
    },
    /// The shares contradict each other in more places than can be told apart: with `m` shares, at
    /// most `(m - k) / 2` may be wrong.
    #[error("more than {correctable} of the {given} shares contradict the others")]
    Ambiguous {
        /// How many shares there were.
        given: usize,
        /// How many wrong ones could have been named.
        correctable: usize,
    },
}

/// Rebuilds a message from `m` shares of which up to `(m - k) / 2` are wrong in any way, and names
/// those: wrong key share, wrong ciphertext, wrong fields, or of another message.
///
/// What comes out is **not authenticated**, but within that number it is certain: no two messages
/// can each have `m - (m - k) / 2` of the same `m` shares on their side. Beyond it the result is an
/// error, or, if the wrong shares were made to agree with each other, their message. `m = k` allows
/// no wrong share and finds none.
///
/// Key shares are corrected as a Reed-Solomon code. Its syndromes are computed without branches or
/// tables; from there on time depends on the errors alone, which are not the message's secret.
///
/// # Errors
///
/// [`CorrectError`].
pub fn reconstruct_correcting(shares: &[Share]) -> Result<Corrected, CorrectError> {
    for (position, share) in shares.iter().enumerate() {
        let index = share.index();
        // At most 255 rounds: the 256th share repeats an index.
        if shares.iter().take(position).any(|s| s.index() == index) {
            return Err(CorrectError::Repeated { index });
        }
    }
    let given = shares.len();
    let (group, k) = largest_group(shares);
    if given < usize::from(k) {
        return Err(CorrectError::TooFew { given, needed: k });
    }
    let correctable = (given - usize::from(k)) / 2;
    let ambiguous = CorrectError::Ambiguous { given, correctable };
    let outside = given - group.len();
    if outside > correctable {
        return Err(ambiguous);
    }
    // Those outside were erasures to the key shares inside, so 2 * (correctable - outside) + k
    // shares are left at least.
    let wrong = wrong_key_shares(&group, usize::from(k), correctable - outside).ok_or(ambiguous)?;
    let good: Vec<Share> = group
        .iter()
        .filter(|share| !wrong.contains(&share.index()))
        .map(|share| (*share).clone())
        .collect();
    let first = good.first().ok_or(ambiguous)?;
    let key = interpolated_key(&good, usize::from(k)).map_err(|_| ambiguous)?;
    let message = Cipher::new(key.as_bytes(), &first.nonce()).apply_to_copy(first.body());
    let mut bad: Vec<NonZeroU8> = shares
        .iter()
        .map(Share::index)
        .filter(|index| good.iter().all(|share| share.index() != *index))
        .collect();
    bad.sort_unstable();
    Ok(Corrected { message, bad })
}

/// The largest set of shares that agree in threshold, size, nonce and ciphertext, the first such
/// if there are several, and its threshold.
fn largest_group(shares: &[Share]) -> (Vec<&Share>, u8) {
    let mut hashes: Vec<blake3::Hash> = Vec::with_capacity(shares.len());
    for share in shares {
        // Shares of one split refer to the same octets, which are hashed once.
        let twin = shares.iter().zip(&hashes).find(|(earlier, _)| {
            earlier.body().as_ptr() == share.body().as_ptr()
                && earlier.body().len() == share.body().len()
        });
        let hash = twin.map_or_else(|| blake3::hash(share.body()), |(_, hash)| *hash);
        hashes.push(hash);
    }
    let all = || shares.iter().zip(&hashes);
    let mut largest = Vec::new();
    for (leader, leader_hash) in all() {
        let group: Vec<&Share> = all()
            .filter(|(share, hash)| *hash == leader_hash && share.head_difference(leader).is_none())
            .map(|(share, _)| share)
            .collect();
        if group.len() > largest.len() {
            largest = group;
        }
    }
    let k = largest.first().map_or(2, |share| share.k());
    (largest, k)
}

/// The shares, at most `limit`, without which all key shares lie on polynomials of degree `k - 1`;
/// `None` if there is no such set.
fn wrong_key_shares(shares: &[&Share], k: usize, limit: usize) -> Option<Vec<NonZeroU8>> {
    let xs: Vec<u8> = shares.iter().map(|share| share.index().get()).collect();
    // The dual of the code that key shares form has the column factors
    // 1 / product of (x_i - x_j) over j other than i.
    let mut weights: Vec<u8> = xs
        .iter()
        .map(|&x| {
            let others = xs.iter().filter(|&&other| other != x);
            div(1, others.fold(1, |p, &other| mul(p, x ^ other)))
        })
        .collect();
    let count = shares.len().checked_sub(k)?;
    let mut syndromes = vec![[0; KEY_LEN]; count];
    for syndrome in &mut syndromes {
        let mut sum = Zeroizing::new(Lanes::default());
        for ((share, weight), &x) in shares.iter().zip(&mut weights).zip(&xs) {
            let mut term = share.key_share().times_public(*weight);
            sum.add(&term);
            term.zeroize();
            *weight = mul(*weight, x);
        }
        sum.write_to(syndrome);
    }
    let mut wrong = Vec::new();
    for lane in 0..KEY_LEN {
        let of_lane: Vec<u8> = syndromes
            .iter()
            .filter_map(|syndrome| syndrome.get(lane).copied())
            .collect();
        let locator = error_locator(&of_lane);
        let degree = locator.len() - 1;
        if degree > limit {
            return None;
        }
        let mut found = 0;
        for (share, &x) in shares.iter().zip(&xs) {
            // The locator is the product of (1 - x z): its value at z = 1 / x, by Horner's rule.
            let z = div(1, x);
            if locator.iter().rev().fold(0, |v, &c| mul(v, z) ^ c) == 0 {
                found += 1;
                if !wrong.contains(&share.index()) {
                    wrong.push(share.index());
                }
            }
        }
        if found != degree {
            return None;
        }
    }
    (wrong.len() <= limit).then_some(wrong)
}

/// The shortest linear recurrence of a sequence (E. Berlekamp, J. Massey), as a polynomial with
/// the constant term first, which is 1, and without leading zeros.
fn error_locator(syndromes: &[u8]) -> Vec<u8> {
    let (mut current, mut previous) = (vec![1u8], vec![1u8]);
    let (mut length, mut shift, mut last) = (0usize, 1usize, 1u8);
    for step in 0..syndromes.len() {
        let discrepancy = current
            .iter()
            .enumerate()
            .filter_map(|(i, &c)| Some(mul(c, *syndromes.get(step.checked_sub(i)?)?)))
            .fold(0, |sum, term| sum ^ term);
        if discrepancy == 0 {
            shift += 1;
            continue;
        }
        let before = current.clone();
        let factor = div(discrepancy, last);
        if current.len() < previous.len() + shift {
            current.resize(previous.len() + shift, 0);
        }
        for (c, &p) in current.iter_mut().skip(shift).zip(&previous) {
            *c ^= mul(factor, p);
        }
        if 2 * length <= step {
            length = step + 1 - length;
            previous = before;
            last = discrepancy;
            shift = 1;
        } else {
            shift += 1;
        }
    }
    while current.len() > 1 && current.last() == Some(&0) {
        current.pop();
    }
    // A recurrence longer than its polynomial has no error pattern: make its degree say so.
    if current.len() <= length {
        current.resize(length + 1, 0);
    }
    current
}
