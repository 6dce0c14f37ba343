//! Version 1 with a trailer, and with wrong shares among the right ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use core::num::NonZeroU8;

use bytes::Bytes;
use common::{altered, picked, received, rng, shares_of, subsets, threshold};
use proptest::prelude::*;
use vmdt_ssms::trailer::{self, AuthenticatedError, TRAILER_LEN, TaggedShare, TaggedShareError};
use vmdt_ssms::{
    CorrectError, HEAD_LEN, Share, reconstruct, reconstruct_correcting, reconstruct_owned,
};

const MESSAGE: &[u8] = b"most of these shares are right";

fn index(value: u8) -> NonZeroU8 {
    NonZeroU8::new(value).unwrap()
}

#[test]
fn up_to_half_of_the_surplus_may_be_wrong_and_is_named() {
    let offsets = [1usize, 5, 12, 22, 53, HEAD_LEN, HEAD_LEN + 7];
    for (k, n) in [(2, 4), (3, 5), (2, 7), (3, 7), (4, 4)] {
        let shares = shares_of(MESSAGE, k, n, 3);
        for wrong in 0..=usize::from(n - k) / 2 {
            for set in subsets(usize::from(n), wrong) {
                for first in 0..offsets.len() {
                    let mut given = shares.clone();
                    for (turn, &i) in set.iter().enumerate() {
                        let offset = offsets[(first + turn) % offsets.len()];
                        // A smaller size or another threshold still parses.
                        let mask = if offset == 5 { 8 } else { 2 };
                        let offset = if offset == 1 { 4 } else { offset };
                        given[i] = altered(&shares[i], offset, mask);
                    }
                    let corrected = reconstruct_correcting(&given).unwrap();
                    assert_eq!(corrected.message, MESSAGE);
                    let bad: Vec<_> = set.iter().map(|&i| index(i as u8 + 1)).collect();
                    assert_eq!(corrected.bad, bad, "{k} of {n}");
                }
            }
        }
    }
}

#[test]
fn one_more_wrong_share_is_ambiguous() {
    let shares = shares_of(MESSAGE, 3, 6, 3);
    let mut given = shares.clone();
    given[1] = altered(&shares[1], 25, 1);
    assert!(reconstruct_correcting(&given).is_ok());
    given[4] = altered(&shares[4], 40, 9);
    let ambiguous = CorrectError::Ambiguous {
        given: 6,
        correctable: 1,
    };
    assert_eq!(reconstruct_correcting(&given), Err(ambiguous));
    // Two different octets of two shares: each octet alone could be corrected.
    given[4] = altered(&shares[4], HEAD_LEN, 9);
    assert_eq!(reconstruct_correcting(&given), Err(ambiguous));
}

#[test]
fn two_messages_in_equal_parts_are_ambiguous() {
    let ours = shares_of(MESSAGE, 2, 4, 1);
    let theirs = shares_of(b"another message of this length", 2, 4, 2);
    let mixed = [
        ours[0].clone(),
        ours[1].clone(),
        theirs[2].clone(),
        theirs[3].clone(),
    ];
    assert_eq!(
        reconstruct_correcting(&mixed),
        Err(CorrectError::Ambiguous {
            given: 4,
            correctable: 1
        })
    );
    let majority = [
        ours[0].clone(),
        ours[1].clone(),
        theirs[2].clone(),
        ours[3].clone(),
    ];
    let corrected = reconstruct_correcting(&majority).unwrap();
    assert_eq!(
        (&corrected.message[..], &corrected.bad[..]),
        (MESSAGE, &[index(3)][..])
    );
}

#[test]
fn too_few_and_repeated_shares_are_refused() {
    let shares = shares_of(MESSAGE, 3, 5, 1);
    assert_eq!(
        reconstruct_correcting(&shares[..2]),
        Err(CorrectError::TooFew {
            given: 2,
            needed: 3
        })
    );
    assert_eq!(
        reconstruct_correcting(&[]),
        Err(CorrectError::TooFew {
            given: 0,
            needed: 2
        })
    );
    assert_eq!(
        reconstruct_correcting(&picked(&shares, &[0, 1, 2, 1])),
        Err(CorrectError::Repeated { index: index(2) })
    );
}

#[test]
fn the_largest_case_is_corrected() {
    let shares = shares_of(MESSAGE, 3, 255, 9);
    let mut given = shares.clone();
    for i in (0..255).step_by(2).take(126) {
        given[i] = altered(&shares[i], 22 + i % 32, 0x80 | i as u8);
    }
    let corrected = reconstruct_correcting(&given).unwrap();
    assert_eq!(corrected.message, MESSAGE);
    assert_eq!(corrected.bad.len(), 126);
}

proptest! {
    #[test]
    fn random_errors_within_the_bound_are_named(
        (k, n) in (2u8..=9).prop_flat_map(|k| (Just(k), k..=25)),
        masks in proptest::collection::vec(any::<[u8; 32]>(), 12),
        first in 0usize..25,
    ) {
        let shares = shares_of(MESSAGE, k, n, 4);
        let wrong = usize::from(n - k) / 2;
        let mut given = shares.clone();
        let mut bad = Vec::new();
        for (turn, mask) in masks.iter().take(wrong).enumerate() {
            let i = (first + 2 * turn) % usize::from(n);
            if bad.contains(&index(i as u8 + 1)) || mask == &[0; 32] {
                continue;
            }
            let mut octets = shares[i].to_bytes().to_vec();
            octets[22..54].iter_mut().zip(mask).for_each(|(o, m)| *o ^= m);
            given[i] = Share::parse(octets.into()).unwrap();
            bad.push(index(i as u8 + 1));
        }
        bad.sort();
        let corrected = reconstruct_correcting(&given).unwrap();
        prop_assert_eq!(&corrected.message[..], MESSAGE);
        prop_assert_eq!(corrected.bad, bad);
    }
}

fn tagged(k: u8, n: u8) -> Vec<TaggedShare> {
    trailer::split(threshold(k, n), MESSAGE.to_vec(), &mut rng(6)).unwrap()
}

#[test]
fn tagged_shares_are_version_1_shares_to_others() {
    let shares = tagged(2, 3);
    let plain: Vec<Share> = shares
        .iter()
        .map(|share| Share::parse(share.to_bytes()).unwrap())
        .collect();
    assert_eq!(reconstruct(&plain).unwrap(), MESSAGE);
    for share in &shares {
        assert_eq!(
            share.to_bytes().len(),
            HEAD_LEN + MESSAGE.len() + TRAILER_LEN
        );
        assert_eq!(&TaggedShare::parse(share.to_bytes()).unwrap(), share);
    }
    assert_eq!(trailer::reconstruct(&shares[..2]).unwrap(), MESSAGE);
    assert_eq!(trailer::reconstruct(&shares).unwrap(), MESSAGE);
}

#[test]
fn every_bit_flip_of_a_tagged_share_is_refused() {
    let shares = tagged(2, 2);
    let octets = shares[1].to_bytes().to_vec();
    for bit in 0..octets.len() * 8 {
        let mut flipped = octets.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(share) = TaggedShare::parse(flipped.into()) {
            let set = [shares[0].clone(), share];
            assert!(trailer::reconstruct(&set).is_err(), "bit {bit}");
        }
    }
    // In all shares alike, so that they do not contradict each other.
    for bit in HEAD_LEN * 8..octets.len() * 8 {
        let set: Vec<TaggedShare> = shares
            .iter()
            .filter_map(|share| {
                let mut flipped = share.to_bytes().to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                TaggedShare::parse(flipped.into()).ok()
            })
            .collect();
        if set.len() == 2 {
            assert_eq!(trailer::reconstruct(&set), Err(AuthenticatedError::Tag));
        }
    }
}

#[test]
fn every_truncation_of_a_tagged_share_is_refused() {
    let octets = tagged(2, 2)[0].to_bytes();
    for len in 0..octets.len() {
        let error = TaggedShare::parse(octets.slice(..len)).unwrap_err();
        let body_end = HEAD_LEN + MESSAGE.len();
        if len >= body_end {
            assert_eq!(
                error,
                TaggedShareError::NoTrailer {
                    given: len - body_end
                }
            );
        }
    }
}

#[test]
fn owned_shares_are_decrypted_where_they_lie() {
    let shares = shares_of(MESSAGE, 3, 5, 1);
    let parsed: Vec<Share> = shares[..3].iter().map(received).collect();
    let bodies: Vec<*const u8> = parsed.iter().map(|s| s.body().as_ptr()).collect();
    let message = reconstruct_owned(parsed).unwrap();
    assert_eq!(message, MESSAGE);
    assert!(bodies.contains(&message.as_ptr()));

    // A body that someone still refers to is not touched.
    let kept: Bytes = shares[0].body().clone();
    let before = kept.to_vec();
    assert_eq!(reconstruct_owned(shares).unwrap(), MESSAGE);
    assert_eq!(kept, before);
}
