//! The erasure code: any k of n pieces, at every length, and what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use core::num::NonZeroU8;

use common::{subsets, threshold};
use proptest::prelude::*;
use vmdt_ssms::dispersal::{Code, CodeError};

fn index(value: u8) -> NonZeroU8 {
    NonZeroU8::new(value).unwrap()
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 151) ^ (i >> 8)) as u8).collect()
}

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

#[test]
fn every_subset_of_k_pieces_gathers_for_small_n() {
    for n in 2..=7u8 {
        for k in 2..=n {
            let code = Code::new(threshold(k, n));
            for len in [0, 1, 2, 5, 31, 64, 200, 777] {
                let message = text(len);
                let pieces = code.disperse(&message);
                assert_eq!(pieces.len(), usize::from(n));
                for set in subsets(usize::from(n), usize::from(k)) {
                    let given: Vec<_> = set
                        .iter()
                        .rev()
                        .map(|&i| (index(i as u8 + 1), &pieces[i][..]))
                        .collect();
                    assert_eq!(
                        code.gather(&given, len).unwrap(),
                        message,
                        "{k} of {n}: {set:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_largest_parameters_gather_from_parity_alone_and_from_the_ends() {
    for (k, n) in [(2, 255), (127, 254), (128, 255), (254, 255), (255, 255)] {
        let code = Code::new(threshold(k, n));
        let message = text(1_000);
        let pieces = code.disperse(&message);
        let all: Vec<_> = (1..=n)
            .map(index)
            .zip(pieces.iter().map(|p| &p[..]))
            .collect();
        let last = &all[usize::from(n - k)..];
        assert_eq!(code.gather(last, 1_000).unwrap(), message, "{k} of {n}");
        let mixed = all
            .iter()
            .rev()
            .step_by(2)
            .chain(all.iter().rev().skip(1).step_by(2));
        let mixed: Vec<_> = mixed.take(usize::from(k)).copied().collect();
        assert_eq!(code.gather(&mixed, 1_000).unwrap(), message, "{k} of {n}");
    }
}

/// An independent derivation of the code: Lagrange interpolation through the data points with
/// schoolbook arithmetic, then the two normalisations that the documentation names.
#[test]
fn golden_coefficients_of_3_of_5() {
    let inverse = |a: u8| (1..=255u8).find(|&b| mul(a, b) == 1).unwrap();
    let weight = |j: u8, x: u8| {
        (1..=3)
            .filter(|&i| i != j)
            .fold(1, |p, i| mul(p, mul(x ^ i, inverse(j ^ i))))
    };
    let scaled: Vec<u8> = (1..=3)
        .map(|j| mul(weight(j, 5), inverse(weight(j, 4))))
        .collect();
    let want: Vec<u8> = scaled.iter().map(|&c| mul(c, inverse(scaled[0]))).collect();

    let code = Code::new(threshold(3, 5));
    for (j, &want) in want.iter().enumerate() {
        let mut unit = [0; 3];
        unit[j] = 1;
        let pieces = code.disperse(&unit);
        assert_eq!(pieces[3][0], 1, "piece 4 is the exclusive or");
        assert_eq!(pieces[4][0], want);
    }
    assert_eq!(want, [0x01, 0x4e, 0xc6]);
}

#[test]
fn parity_does_not_depend_on_n() {
    let message = text(100);
    let few = Code::new(threshold(4, 6)).disperse(&message);
    let many = Code::new(threshold(4, 200)).disperse(&message);
    assert_eq!(few[..], many[..6]);
}

#[test]
fn a_lost_parity_piece_is_made_again() {
    let code = Code::new(threshold(3, 6));
    let pieces = code.disperse(&text(500));
    let recovery = code
        .recovery(&[5, 1, 4].map(index), &[6, 2].map(index))
        .unwrap();
    let (mut sixth, mut second) = (vec![0; 167], vec![0; 167]);
    recovery
        .apply(
            &[&pieces[4], &pieces[0], &pieces[3]],
            &mut [&mut sixth, &mut second],
        )
        .unwrap();
    assert_eq!((&sixth[..], &second[..]), (&pieces[5][..], &pieces[1][..]));
}

#[test]
fn refuses_wrong_counts_lengths_and_indices() {
    let code = Code::new(threshold(2, 3));
    let pieces = code.disperse(&text(10));
    let [a, b, c] = [0, 1, 2].map(|i| &pieces[i][..]);
    let (x, y) = (index(1), index(2));

    assert_eq!(
        code.gather(&[(x, a)], 10),
        Err(CodeError::Count {
            given: 1,
            needed: 2
        })
    );
    assert_eq!(
        code.gather(&[(x, a), (x, a)], 10),
        Err(CodeError::Duplicate { index: x })
    );
    assert_eq!(
        code.gather(&[(x, a), (index(4), b)], 10),
        Err(CodeError::NoSuchPiece {
            index: index(4),
            n: 3
        })
    );
    assert_eq!(
        code.gather(&[(x, &a[1..]), (y, b)], 10),
        Err(CodeError::Length {
            given: 4,
            needed: 5
        })
    );
    assert_eq!(
        code.gather(&[(x, a), (y, b)], 13),
        Err(CodeError::Length {
            given: 5,
            needed: 7
        })
    );
    assert!(code.gather(&[(index(3), c), (y, b)], 9).is_ok());

    let mut short = [0; 4];
    assert_eq!(
        code.encode(&[a, b], &mut [&mut short]),
        Err(CodeError::Length {
            given: 4,
            needed: 5
        })
    );
    assert_eq!(
        code.encode(&[a, b], &mut []),
        Err(CodeError::Count {
            given: 0,
            needed: 1
        })
    );
    assert_eq!(
        code.recovery(&[x, y], &[x]).err(),
        Some(CodeError::Duplicate { index: x })
    );
    assert_eq!(
        code.recovery(&[x], &[]).err(),
        Some(CodeError::Count {
            given: 1,
            needed: 2
        })
    );
}

proptest! {
    #[test]
    fn any_k_of_n_gather(
        (k, n) in (2u8..=40).prop_flat_map(|k| (Just(k), k..=60)),
        message in proptest::collection::vec(any::<u8>(), 0..3000),
        order in any::<u64>(),
    ) {
        let code = Code::new(threshold(k, n));
        let pieces = code.disperse(&message);
        let mut all: Vec<_> = (1..=n).map(index).zip(pieces.iter().map(|p| &p[..])).collect();
        // A permutation from one number.
        let mut state = order | 1;
        for i in (1..all.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            all.swap(i, (state >> 33) as usize % (i + 1));
        }
        prop_assert_eq!(code.gather(&all[..usize::from(k)], message.len()).unwrap(), message);
    }
}

#[test]
fn sealed_pieces_open_from_every_subset_and_at_every_length() {
    let key = [0x17; 32];
    for (k, n) in [(2, 3), (3, 5), (5, 5), (4, 7)] {
        let code = Code::new(threshold(k, n));
        for len in [0, 1, 2, 3, 15, 16, 17, 100, 1_024, 40_000] {
            let message = text(len);
            let pieces = code.seal(&key, &message);
            assert_eq!(pieces, code.seal_owned(&key, message.clone()));
            for set in subsets(usize::from(n), usize::from(k)) {
                let given: Vec<_> = set
                    .iter()
                    .map(|&i| (index(i as u8 + 1), &pieces[i][..]))
                    .collect();
                assert_eq!(
                    code.open(&key, &given, len).unwrap(),
                    message,
                    "{k}/{n} {set:?}"
                );
            }
        }
    }
}

#[test]
fn long_sealed_pieces_are_those_of_a_plain_cipher_and_a_plain_code() {
    use aes::Aes256;
    use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
    let (key, message) = ([0x23; 32], text(300_001));
    let code = Code::new(threshold(3, 5));
    let piece_len = code.piece_len(message.len());
    let mut ciphertext = message.clone();
    for (i, piece) in ciphertext.chunks_mut(piece_len).enumerate() {
        let mut counter_block = [0; 16];
        counter_block[0] = i as u8 + 1;
        ctr::Ctr32BE::<Aes256>::new(&key.into(), &counter_block.into()).apply_keystream(piece);
    }
    assert_eq!(code.seal(&key, &message), code.disperse(&ciphertext));
}
