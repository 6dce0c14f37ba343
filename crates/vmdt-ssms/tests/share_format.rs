//! The layout of a share: what parses, what does not, and what an error says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{received, shares_of};
use vmdt_ssms::{Field, HEAD_LEN, Share, ShareError, reconstruct};

fn parse(octets: &[u8]) -> Result<Share, ShareError> {
    Share::parse(Bytes::copy_from_slice(octets))
}

/// A well-formed share of 9 octets.
fn octets() -> Vec<u8> {
    shares_of(b"nine chrs", 3, 5, 1)[1].to_bytes().to_vec()
}

fn with(offset: usize, field: &[u8]) -> Vec<u8> {
    let mut octets = octets();
    octets[offset..offset + field.len()].copy_from_slice(field);
    octets
}

#[test]
fn fields_stand_where_the_table_says() {
    let share = parse(&octets()).unwrap();
    let head = share.head();
    assert_eq!(head[0], 2);
    assert_eq!(head[1..5], [0, 0, 0, 9]);
    assert_eq!(head[5], 3);
    assert_eq!(head[6..10], [0, 0, 0, 32]);
    assert_eq!(head[10..22], share.nonce());
    assert_eq!(share.len(), HEAD_LEN + 9);
    assert_eq!(share.body().len(), 9);
}

#[test]
fn parse_and_to_bytes_are_inverse() {
    for message in [&b""[..], b"x", &[7; 5000]] {
        for share in shares_of(message, 2, 4, 2) {
            let again = received(&share);
            assert_eq!(again, share);
            assert_eq!(again.to_bytes(), share.to_bytes());
        }
    }
}

#[test]
fn the_body_is_a_slice_of_the_buffer_not_a_copy() {
    let buffer = Bytes::from(octets());
    let share = Share::parse(buffer.clone()).unwrap();
    assert_eq!(share.body().as_ptr(), buffer[HEAD_LEN..].as_ptr());
}

#[test]
fn all_shares_of_a_split_refer_to_one_ciphertext() {
    let message = vec![1; 4096];
    let buffer = message.as_ptr();
    let shares = vmdt_ssms::split(common::threshold(3, 9), message, &mut common::rng(3)).unwrap();
    assert!(shares.iter().all(|share| share.body().as_ptr() == buffer));
}

#[test]
fn octets_after_the_body_are_ignored_and_left_out() {
    let shares = shares_of(b"trailer", 2, 2, 4);
    let long: Vec<Share> = shares
        .iter()
        .map(|share| parse(&[&share.to_bytes()[..], b"whatever follows"].concat()).unwrap())
        .collect();
    assert_eq!(long, shares);
    assert_eq!(long[0].body().len(), 7);
    assert_eq!(long[0].to_bytes(), shares[0].to_bytes());
    assert_eq!(reconstruct(&long).unwrap(), b"trailer");
}

#[test]
fn from_parts_checks_and_cuts_as_parse_does() {
    let octets = [&octets()[..], b"more"].concat();
    let head: [u8; HEAD_LEN] = octets[..HEAD_LEN].try_into().unwrap();
    let body = Bytes::copy_from_slice(&octets[HEAD_LEN..]);
    assert_eq!(Share::from_parts(head, body.clone()), parse(&octets));

    let mut bad = head;
    bad[0] = 0;
    assert_eq!(
        Share::from_parts(bad, body.clone()),
        Err(ShareError::IndexZero)
    );
    assert!(matches!(
        Share::from_parts(head, body.slice(..8)),
        Err(ShareError::SizeBeyondBody {
            size: 9,
            present: 8,
            ..
        })
    ));
}

#[test]
fn rejects_every_truncation_of_the_head_and_names_the_field() {
    let octets = octets();
    for len in 0..HEAD_LEN {
        let field = match len {
            0 => Field::Index,
            1..5 => Field::Size,
            5 => Field::Threshold,
            6..10 => Field::KeyShareSize,
            10..22 => Field::Nonce,
            _ => Field::KeyShare,
        };
        let error = ShareError::Truncated {
            field,
            needed: 54,
            given: len,
        };
        assert_eq!(parse(&octets[..len]), Err(error));
        assert_eq!(error.field(), field);
    }
}

#[test]
fn rejects_every_truncation_of_the_body() {
    let octets = octets();
    for len in HEAD_LEN..octets.len() {
        let error = parse(&octets[..len]).unwrap_err();
        assert!(
            matches!(error, ShareError::SizeBeyondBody { index, size: 9, present }
                if index.get() == 2 && present == len - HEAD_LEN),
            "{error:?}"
        );
        assert_eq!(error.field(), Field::Size);
    }
    assert!(parse(&octets).is_ok());
}

#[test]
fn rejects_index_zero_however_short() {
    assert_eq!(parse(&with(0, &[0])), Err(ShareError::IndexZero));
    assert_eq!(parse(&[0]), Err(ShareError::IndexZero));
    assert_eq!(parse(&[0; 53]), Err(ShareError::IndexZero));
    assert_eq!(ShareError::IndexZero.field(), Field::Index);
    assert!(parse(&with(0, &[1])).is_ok());
    assert!(parse(&with(0, &[255])).is_ok());
}

#[test]
fn rejects_thresholds_zero_and_one() {
    for k in [0, 1] {
        let error = parse(&with(5, &[k])).unwrap_err();
        assert!(matches!(error, ShareError::Threshold { index, k: found }
            if index.get() == 2 && found == k));
        assert_eq!(error.field(), Field::Threshold);
    }
    for k in 2..=255 {
        assert_eq!(parse(&with(5, &[k])).unwrap().k(), k);
    }
}

#[test]
fn rejects_key_share_sizes_other_than_32() {
    for size in [0, 1, 31, 33, 255, 0x2000_0000, 0x2000, u32::MAX] {
        let error = parse(&with(6, &size.to_be_bytes())).unwrap_err();
        assert!(matches!(error, ShareError::KeyShareSize { index, found }
            if index.get() == 2 && found == size));
        assert_eq!(error.field(), Field::KeyShareSize);
    }
}

#[test]
fn rejects_sizes_beyond_the_octets_present() {
    for size in [10, 11, 0x0100_0009, u32::MAX] {
        assert!(matches!(
            parse(&with(1, &size.to_be_bytes())),
            Err(ShareError::SizeBeyondBody { size: found, present: 9, .. }) if found == size
        ));
    }
}

#[test]
fn field_offsets_follow_the_table() {
    let fields = [
        (Field::Index, 0),
        (Field::Size, 1),
        (Field::Threshold, 5),
        (Field::KeyShareSize, 6),
        (Field::Nonce, 10),
        (Field::KeyShare, 22),
        (Field::Body, 54),
    ];
    for (field, offset) in fields {
        assert_eq!(field.offset(), offset);
    }
}

#[test]
fn no_single_bit_flip_panics() {
    let shares = shares_of(b"every bit of this share", 2, 3, 5);
    let octets = shares[0].to_bytes();
    for bit in 0..octets.len() * 8 {
        let mut flipped = octets.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(share) = parse(&flipped) else { continue };
        // Beside one good share the flip may go unseen (nothing authenticates version 1), beside
        // two it always shows.
        let _ = reconstruct(&[share.clone(), shares[1].clone()]);
        let all = reconstruct(&[share, shares[1].clone(), shares[2].clone()]);
        assert!(all.is_err(), "bit {bit} went unseen beside two good shares");
    }
}

#[test]
fn debug_shows_no_secret_octet() {
    let (k, n, size) = (2, 3, 2);
    // The decimal form of these octets cannot come from an index, k, n or size.
    let share = share_of_large_octets(k, n, size);
    let text = format!("{share:?} {share:#?}");
    for octet in share.head()[22..].iter().chain(share.body().iter()) {
        assert!(!text.contains(&octet.to_string()), "{octet} in {text}");
        assert!(
            !text.contains(&format!("{octet:02x}")),
            "{octet:02x} in {text}"
        );
    }
    assert!(text.starts_with("Share { index: 1, k: 2, size: 2, .. }"));
}

/// The first share of a split whose secret octets are all above 9 in decimal and in hex, so that
/// finding one in a text means that it leaked.
fn share_of_large_octets(k: u8, n: u8, size: usize) -> Share {
    (0..)
        .map(|seed| shares_of(&vec![0; size], k, n, seed).swap_remove(0))
        .find(|share| {
            share.head()[22..]
                .iter()
                .chain(share.body().iter())
                .all(|octet| *octet >= 0x10)
        })
        .unwrap()
}

#[test]
fn packed_shares_are_the_same_octets() {
    for len in [0, 1, 64, 1_000] {
        let message = vec![0x5a; len];
        let shares = common::shares_of(&message, 3, 5, 8);
        let packed =
            vmdt_ssms::split_packed(common::threshold(3, 5), &message, &mut common::rng(8))
                .unwrap();
        assert_eq!(packed.iter().len(), 5);
        for (octets, share) in packed.iter().zip(&shares) {
            assert_eq!(octets, &share.to_bytes()[..]);
        }
        assert!(packed.shares().eq(shares));
        let shown = format!("{packed:?}");
        assert_eq!(
            shown,
            format!("Packed {{ shares: 5, share_len: {} }}", 54 + len)
        );
    }
}
