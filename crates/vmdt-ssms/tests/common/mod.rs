//! What the test files share.
#![allow(dead_code)]

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_ssms::{Share, Threshold, split};

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn threshold(k: u8, n: u8) -> Threshold {
    Threshold::new(k, n).unwrap()
}

/// Shares of a message, from a fixed seed.
pub(crate) fn shares_of(message: &[u8], k: u8, n: u8, seed: u64) -> Vec<Share> {
    split(threshold(k, n), message.to_vec(), &mut rng(seed)).unwrap()
}

/// The share with octet `offset` of its travelling form changed by `mask`, parsed again.
pub(crate) fn altered(share: &Share, offset: usize, mask: u8) -> Share {
    let mut octets = share.to_bytes().to_vec();
    octets[offset] ^= mask;
    Share::parse(Bytes::from(octets)).unwrap()
}

/// The share as a receiver has it: parsed from a buffer of its own.
pub(crate) fn received(share: &Share) -> Share {
    Share::parse(share.to_bytes()).unwrap()
}

/// All subsets of `count` of the positions below `of`, ascending.
pub(crate) fn subsets(of: usize, count: usize) -> Vec<Vec<usize>> {
    (0u32..1 << of)
        .filter(|set| set.count_ones() as usize == count)
        .map(|set| (0..of).filter(|i| set & (1 << i) != 0).collect())
        .collect()
}

pub(crate) fn picked(shares: &[Share], positions: &[usize]) -> Vec<Share> {
    positions.iter().map(|&i| shares[i].clone()).collect()
}
