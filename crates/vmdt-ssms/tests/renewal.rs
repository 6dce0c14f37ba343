//! Refreshing key shares and adding one, without the key.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use core::num::NonZeroU8;

use common::{rng, subsets, threshold};
use vmdt_ssms::shamir::{
    CombineError, Key, KeyShare, combine_key, contribution, refreshed, split_key, summed,
    zero_sharing,
};

const KEY: [u8; 32] = *b"the key that is never assembled.";

fn index(value: u8) -> NonZeroU8 {
    NonZeroU8::new(value).unwrap()
}

fn combined<'a>(shares: impl IntoIterator<Item = &'a KeyShare>) -> Key {
    let points: Vec<_> = shares.into_iter().map(|s| (s.index(), s.value())).collect();
    combine_key(&points).unwrap()
}

#[test]
fn refreshed_points_hold_the_same_key_and_do_not_mix_with_old_ones() {
    let t = threshold(3, 5);
    let mut rng = rng(1);
    let old = split_key(&KEY, t, &mut rng);
    // Three holders deal zeros.
    let dealt: Vec<Vec<KeyShare>> = (0..3).map(|_| zero_sharing(t, &mut rng)).collect();
    let new: Vec<KeyShare> = (0..5)
        .map(|i| {
            let received: Vec<KeyShare> = dealt
                .iter()
                .map(|d| KeyShare::new(d[i].index(), d[i].value()))
                .collect();
            refreshed(&old[i], &received).unwrap()
        })
        .collect();
    for set in subsets(5, 3) {
        assert_eq!(combined(set.iter().map(|&i| &new[i])).as_bytes(), &KEY);
        for stale in 0..3 {
            let mixed = set.iter().enumerate().map(
                |(turn, &i)| {
                    if turn == stale { &old[i] } else { &new[i] }
                },
            );
            assert_ne!(combined(mixed).as_bytes(), &KEY);
        }
    }
    assert_eq!(
        refreshed(&old[0], &dealt[0][1..2]).unwrap_err(),
        CombineError::OtherIndex {
            index: index(2),
            expected: index(1)
        }
    );
}

#[test]
fn any_k_holders_make_a_point_for_another_index() {
    for (k, n) in [(2, 3), (3, 5), (4, 4)] {
        let mut rng = rng(2);
        let shares = split_key(&KEY, threshold(k, n), &mut rng);
        for set in subsets(usize::from(n), usize::from(k)) {
            for new in [1, 2, n, n + 1, 255] {
                let helpers: Vec<NonZeroU8> = set.iter().map(|&i| shares[i].index()).collect();
                if helpers.contains(&index(new)) {
                    continue;
                }
                // Each helper cuts up its summand, each sums what it got.
                let parts: Vec<Vec<KeyShare>> = set
                    .iter()
                    .map(|&i| contribution(&shares[i], &helpers, index(new), &mut rng).unwrap())
                    .collect();
                let sums: Vec<KeyShare> = helpers
                    .iter()
                    .enumerate()
                    .map(|(to, helper)| {
                        let received: Vec<KeyShare> = parts
                            .iter()
                            .map(|of| {
                                assert_eq!(of[to].index(), *helper);
                                KeyShare::new(*helper, of[to].value())
                            })
                            .collect();
                        summed(*helper, &received)
                    })
                    .collect();
                let point = summed(index(new), &sums);
                assert_eq!(point.index(), index(new));
                match shares.iter().find(|share| share.index() == index(new)) {
                    // The lost share itself.
                    Some(lost) => assert_eq!(lost.value(), point.value()),
                    None => {
                        let with_new = set[1..].iter().map(|&i| &shares[i]).chain([&point]);
                        assert_eq!(combined(with_new).as_bytes(), &KEY);
                    }
                }
            }
        }
    }
}

#[test]
fn impossible_helpers_are_refused() {
    let mut rng = rng(3);
    let shares = split_key(&KEY, threshold(2, 3), &mut rng);
    let refuse = |helpers: &[u8], new: u8| {
        let helpers: Vec<NonZeroU8> = helpers.iter().map(|&i| index(i)).collect();
        contribution(&shares[0], &helpers, index(new), &mut common::rng(4)).unwrap_err()
    };
    assert_eq!(refuse(&[1], 3), CombineError::TooFew { given: 1 });
    assert_eq!(
        refuse(&[1, 1], 3),
        CombineError::Duplicate { index: index(1) }
    );
    assert_eq!(
        refuse(&[1, 2], 2),
        CombineError::Duplicate { index: index(2) }
    );
    assert!(matches!(
        refuse(&[2, 3], 4),
        CombineError::OtherIndex { .. }
    ));
}
