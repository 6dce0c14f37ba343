//! What the test files share.
#![allow(dead_code)]

use core::convert::Infallible;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{SeedableRng as _, TryCryptoRng, TryRng};
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

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// A generator that gives out the octets it was made of, once.
pub(crate) struct Script(pub(crate) Vec<u8>);

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut octets = [0; 4];
        self.try_fill_bytes(&mut octets)?;
        Ok(u32::from_le_bytes(octets))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut octets = [0; 8];
        self.try_fill_bytes(&mut octets)?;
        Ok(u64::from_le_bytes(octets))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        assert!(
            out.len() <= self.0.len(),
            "more randomness drawn than the scheme needs"
        );
        out.copy_from_slice(&self.0[..out.len()]);
        self.0.drain(..out.len());
        Ok(())
    }
}

impl TryCryptoRng for Script {}
