//! What shares may and may not tell: the distribution of their octets.
//!
//! All of it runs from fixed seeds, so a pass is a pass for good; the bounds are those that a
//! fresh seed would miss less often than once in a million runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use core::num::NonZeroU8;

use common::{rng, threshold};
use vmdt_ssms::shamir::{combine_key, split_key};
use vmdt_ssms::{Share, split};

/// Multiplication in GF(2^8) modulo 0x11b as in a textbook.
fn mul(a: u8, b: u8) -> u8 {
    let mut product: u16 = 0;
    for i in 0..8 {
        if b >> i & 1 == 1 {
            product ^= u16::from(a) << i;
        }
    }
    for i in (8..16).rev() {
        if product >> i & 1 == 1 {
            product ^= 0x11b << (i - 8);
        }
    }
    product as u8
}

fn inverse(a: u8) -> u8 {
    (1..=255).find(|&b| mul(a, b) == 1).unwrap()
}

/// Pearson's statistic of 256 counts against the uniform distribution (255 degrees of freedom).
fn chi_square(counts: &[u64; 256]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / 256.0;
    counts
        .iter()
        .map(|&c| (c as f64 - expected).powi(2) / expected)
        .sum()
}

/// Above this and below its mirror lies a uniform sample less often than once in 10^7: by the
/// Wilson-Hilferty approximation of chi-square with 255 degrees of freedom at 5.2 sigma.
fn assert_uniform(counts: &[u64; 256], what: &str) {
    let bound = |sigma: f64| {
        let v = 2.0 / (9.0 * 255.0);
        255.0 * (1.0 - v + sigma * f64::sqrt(v)).powi(3)
    };
    let statistic = chi_square(counts);
    assert!(
        bound(-5.2) < statistic && statistic < bound(5.2),
        "{what}: chi-square {statistic:.1} outside {:.1}..{:.1}",
        bound(-5.2),
        bound(5.2)
    );
}

#[test]
fn the_statistic_tells_a_missing_value() {
    let mut counts = [1000; 256];
    counts[0] = 0;
    assert!(chi_square(&counts) > 900.0);
}

#[test]
fn a_share_octet_equals_the_secret_octet_at_the_rate_of_chance() {
    // A top coefficient that is never 0 would make this rate 0 in a 2-of-n split.
    let key: [u8; 32] = core::array::from_fn(|i| (i * 37) as u8);
    let mut rng = rng(100);
    for index in 0..3usize {
        let (mut hits, mut trials) = (0u32, 0u32);
        for _ in 0..20_000 {
            let shares = split_key(&key, threshold(2, 3), &mut rng);
            hits += shares[index]
                .value()
                .iter()
                .zip(&key)
                .filter(|(a, b)| a == b)
                .count() as u32;
            trials += 32;
        }
        let p = 1.0 / 256.0;
        let mean = f64::from(trials) * p;
        let sigma = (mean * (1.0 - p)).sqrt();
        let off = (f64::from(hits) - mean) / sigma;
        assert!(
            off.abs() < 5.0,
            "share {}: {hits} hits, {off:.2} sigma off",
            index + 1
        );
    }
}

#[test]
fn every_share_octet_of_a_fixed_key_is_uniform() {
    let key = [0x5a; 32];
    let mut rng = rng(101);
    let mut counts = [[0u64; 256]; 5];
    for _ in 0..8_000 {
        for (share, counts) in split_key(&key, threshold(3, 5), &mut rng)
            .iter()
            .zip(&mut counts)
        {
            for octet in share.value() {
                counts[usize::from(*octet)] += 1;
            }
        }
    }
    for (i, counts) in counts.iter().enumerate() {
        assert_uniform(counts, &format!("share {}", i + 1));
    }
}

#[test]
fn every_coefficient_the_top_one_included_is_uniform() {
    // Of a 3-of-3 split with key s: y1 = s + a + b and y2 = s + 2a + 4b (times x = 2), from which
    // both coefficients follow.
    let key: [u8; 32] = core::array::from_fn(|i| 255 - i as u8);
    let sixth = inverse(mul(2, 1) ^ mul(4, 1));
    let mut rng = rng(102);
    let (mut first, mut top) = ([0u64; 256], [0u64; 256]);
    for _ in 0..16_000 {
        let shares = split_key(&key, threshold(3, 3), &mut rng);
        for ((s, y1), y2) in key.iter().zip(shares[0].value()).zip(shares[1].value()) {
            let (u, v) = (y1 ^ s, y2 ^ s);
            // u = a + b, v = 2a + 4b: v + 2u = (2 + 4) b.
            let b = mul(v ^ mul(2, u), sixth);
            let a = u ^ b;
            let y3 = s ^ mul(a, 3) ^ mul(b, 5);
            first[usize::from(a)] += 1;
            top[usize::from(b)] += 1;
            // The third share follows from them, so they are the coefficients.
            let position = (s ^ 255) as usize;
            assert_eq!(shares[2].value()[position], y3);
        }
    }
    assert_uniform(&first, "coefficient of x");
    assert_uniform(&top, "coefficient of x^2");
}

#[test]
fn message_keys_and_nonces_are_uniform() {
    let mut rng = rng(103);
    let (mut keys, mut nonces) = ([0u64; 256], [0u64; 256]);
    for _ in 0..8_000 {
        let shares = split(threshold(2, 2), Vec::new(), &mut rng).unwrap();
        let values: Vec<[u8; 32]> = shares
            .iter()
            .map(|share| share.head()[22..].try_into().unwrap())
            .collect();
        let points = [0, 1].map(|i: usize| (shares[i].index(), &values[i]));
        for octet in combine_key(&points).unwrap().as_bytes() {
            keys[usize::from(*octet)] += 1;
        }
        for octet in shares[0].nonce() {
            nonces[usize::from(octet)] += 1;
        }
    }
    assert_uniform(&keys, "key");
    assert_uniform(&nonces, "nonce");
}

#[test]
fn k_minus_1_shares_leave_every_key_octet_possible() {
    // Shares 1 and 2 of a 3-of-n split are fixed. For each candidate key octet there is exactly
    // one third share that leads there, so the two rule nothing out.
    let key: [u8; 32] = core::array::from_fn(|i| (i * 5 + 1) as u8);
    let shares = split_key(&key, threshold(3, 3), &mut rng(104));
    let x3 = NonZeroU8::new(3).unwrap();
    let mut seen = [[false; 256]; 32];
    for candidate in 0..=255u8 {
        let third = [candidate; 32];
        let points = [
            (shares[0].index(), shares[0].value()),
            (shares[1].index(), shares[1].value()),
            (x3, &third),
        ];
        let combined = combine_key(&points).unwrap();
        for (seen, octet) in seen.iter_mut().zip(combined.as_bytes()) {
            assert!(
                !seen[usize::from(*octet)],
                "two third shares lead to one key"
            );
            seen[usize::from(*octet)] = true;
        }
    }
    assert!(seen.as_flattened().iter().all(|seen| *seen));
}

#[test]
fn ciphertexts_of_a_constant_message_are_uniform() {
    let shares: Vec<Share> = split(threshold(2, 2), vec![0; 1 << 18], &mut rng(105)).unwrap();
    let mut counts = [0u64; 256];
    for octet in shares[0].body() {
        counts[usize::from(*octet)] += 1;
    }
    assert_uniform(&counts, "ciphertext");
}
