//! Properties over random parameters, messages, subsets and damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{received, rng, shares_of, threshold};
use proptest::prelude::*;
use vmdt_ssms::{HEAD_LEN, Share, reconstruct, split, split_slice};

/// k, n, and all positions below n in random order.
fn parameters() -> impl Strategy<Value = (u8, u8, Vec<usize>)> {
    let small = (2u8..=12, 0u8..=12).prop_map(|(k, more)| (k, k + more));
    let any = (2u8..=255).prop_flat_map(|k| (Just(k), k..=255));
    prop_oneof![8 => small, 1 => any].prop_flat_map(|(k, n)| {
        let order = Just((0..usize::from(n)).collect::<Vec<_>>()).prop_shuffle();
        (Just(k), Just(n), order)
    })
}

/// Lengths around block and chunk boundaries, and others.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        0usize..70,
        0usize..3_000,
        prop::sample::select(vec![
            1_392, 1_393, 4_096, 8_191, 8_192, 8_193, 16_384, 40_000
        ]),
    ];
    (length, any::<u64>()).prop_map(|(length, seed)| {
        let mut message = vec![0; length];
        rand_chacha::rand_core::Rng::fill_bytes(&mut rng(seed), &mut message);
        message
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_k_or_more_shares_rebuild(
        (k, n, order) in parameters(), message in message(), more in any::<u8>(), seed in any::<u64>()
    ) {
        let shares = split(threshold(k, n), message.clone(), &mut rng(seed)).unwrap();
        prop_assert_eq!(shares.len(), usize::from(n));
        let count = usize::from(k) + usize::from(more) % (usize::from(n - k) + 1);
        let set: Vec<Share> = order[..count].iter().map(|&i| received(&shares[i])).collect();
        prop_assert_eq!(reconstruct(&set).unwrap(), message);
    }

    #[test]
    fn below_k_is_always_refused((k, n, order) in parameters(), fewer in any::<u8>()) {
        let shares = shares_of(b"secret", k, n, 1);
        let count = usize::from(fewer % k);
        let set: Vec<Share> = order[..count].iter().map(|&i| shares[i].clone()).collect();
        prop_assert!(reconstruct(&set).is_err());
    }

    #[test]
    fn slice_and_buffer_split_alike(message in message(), seed in any::<u64>()) {
        let a = split_slice(threshold(3, 5), &message, &mut rng(seed)).unwrap();
        let b = split(threshold(3, 5), message, &mut rng(seed)).unwrap();
        prop_assert_eq!(a, b);
    }

    #[test]
    fn arbitrary_octets_never_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Share::parse(Bytes::from(octets));
    }

    #[test]
    fn plausible_octets_parse_exactly_when_legal(
        index in any::<u8>(), size in 0u32..150, k in any::<u8>(), key_size in 30u32..34,
        rest in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut octets = vec![index];
        octets.extend(size.to_be_bytes());
        octets.push(k);
        octets.extend(key_size.to_be_bytes());
        octets.extend(&rest);
        let legal = index != 0 && k >= 2 && key_size == 32
            && octets.len() >= HEAD_LEN + size as usize;
        let parsed = Share::parse(Bytes::from(octets.clone()));
        prop_assert_eq!(parsed.is_ok(), legal);
        if let Ok(share) = parsed {
            prop_assert_eq!(&share.to_bytes()[..], &octets[..HEAD_LEN + size as usize]);
        }
    }

    #[test]
    fn damage_to_one_of_more_than_k_shares_never_yields_a_wrong_message(
        (k, n, order) in parameters(), message in message(),
        bad in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), mask in 1u8..
    ) {
        prop_assume!(k < n);
        let shares = shares_of(&message, k, n, 7);
        let count = usize::from(k) + 1;
        let mut set: Vec<Bytes> = order[..count].iter().map(|&i| shares[i].to_bytes()).collect();
        let victim = bad.get_mut(&mut set);
        let mut octets = victim.to_vec();
        *at.get_mut(&mut octets) ^= mask;
        *victim = Bytes::from(octets);
        let parsed: Result<Vec<Share>, _> = set.into_iter().map(Share::parse).collect();
        if let Ok(set) = parsed {
            prop_assert!(reconstruct(&set).is_err());
        }
    }
}
