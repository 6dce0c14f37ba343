//! Shares made by an independent implementation (`vectors/make_vectors.py`), both ways: they
//! rebuild their message here, and a split with the same randomness gives the same octets.
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
use common::{Script, threshold, unhex};
use vmdt_ssms::{Share, reconstruct, shamir, split, split_slice};

#[derive(Default, Clone)]
struct Case {
    name: String,
    k: u8,
    n: u8,
    message: Vec<u8>,
    key: Vec<u8>,
    nonce: Vec<u8>,
    coefficients: Vec<Vec<u8>>,
    body: Vec<u8>,
    heads: Vec<Vec<u8>>,
}

impl Case {
    fn share_octets(&self, position: usize) -> Vec<u8> {
        [&self.heads[position][..], &self.body].concat()
    }

    fn shares(&self) -> Vec<Share> {
        (0..self.heads.len())
            .map(|i| Share::parse(Bytes::from(self.share_octets(i))).unwrap())
            .collect()
    }

    fn key(&self) -> [u8; 32] {
        self.key.clone().try_into().unwrap()
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("vectors/v1.txt").lines() {
        let Some((word, value)) = line.split_once(' ') else {
            continue;
        };
        if word == "name" {
            cases.push(Case {
                name: value.to_owned(),
                ..Case::default()
            });
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        match word {
            "name" => {}
            "k" => case.k = value.parse().unwrap(),
            "n" => case.n = value.parse().unwrap(),
            "message" => case.message = unhex(value),
            "key" => case.key = unhex(value),
            "nonce" => case.nonce = unhex(value),
            "coefficient" => case.coefficients.push(unhex(value)),
            "body" => case.body = unhex(value),
            "head" => case.heads.push(unhex(value)),
            other => panic!("unknown word {other}"),
        }
    }
    cases
}

#[test]
fn the_file_holds_every_case() {
    let cases = cases();
    assert_eq!(cases.len(), 10);
    for case in &cases {
        assert_eq!(case.heads.len(), usize::from(case.n), "{}", case.name);
        assert_eq!(
            case.coefficients.len(),
            usize::from(case.k) - 1,
            "{}",
            case.name
        );
        assert_eq!(case.body.len(), case.message.len(), "{}", case.name);
    }
}

#[test]
fn foreign_shares_rebuild_their_message() {
    for case in cases() {
        let shares = case.shares();
        let k = usize::from(case.k);
        assert_eq!(
            reconstruct(&shares).unwrap(),
            case.message,
            "{} all",
            case.name
        );
        assert_eq!(
            reconstruct(&shares[..k]).unwrap(),
            case.message,
            "{} first",
            case.name
        );
        let mut last = shares[shares.len() - k..].to_vec();
        last.reverse();
        assert_eq!(
            reconstruct(&last).unwrap(),
            case.message,
            "{} last",
            case.name
        );
    }
}

#[test]
fn foreign_fields_are_read_as_written() {
    for case in cases() {
        for (i, share) in case.shares().iter().enumerate() {
            assert_eq!(usize::from(share.index().get()), i + 1);
            assert_eq!(share.k(), case.k);
            assert_eq!(share.size() as usize, case.message.len());
            assert_eq!(share.nonce()[..], case.nonce);
            assert_eq!(share.head()[..], case.heads[i]);
            assert_eq!(share.body()[..], case.body);
            assert_eq!(share.to_bytes()[..], case.share_octets(i));
        }
    }
}

#[test]
fn the_same_randomness_gives_the_same_octets() {
    for case in cases() {
        let script = [&case.key[..], &case.nonce, &case.coefficients.concat()].concat();
        let t = threshold(case.k, case.n);

        let mut rng = Script(script.clone());
        let owned = split(t, case.message.clone(), &mut rng).unwrap();
        assert!(
            rng.0.is_empty(),
            "{}: less randomness drawn than the scheme needs",
            case.name
        );
        let borrowed = split_slice(t, &case.message, &mut Script(script)).unwrap();

        for i in 0..usize::from(case.n) {
            assert_eq!(
                owned[i].to_bytes()[..],
                case.share_octets(i),
                "{} {i}",
                case.name
            );
            assert_eq!(
                borrowed[i].to_bytes()[..],
                case.share_octets(i),
                "{} {i}",
                case.name
            );
        }
    }
}

#[test]
fn key_sharing_alone_agrees_both_ways() {
    for case in cases() {
        let mut rng = Script(case.coefficients.concat());
        let shares = shamir::split_key(&case.key(), threshold(case.k, case.n), &mut rng);
        for (share, head) in shares.iter().zip(&case.heads) {
            assert_eq!(share.index().get(), head[0]);
            assert_eq!(share.value()[..], head[22..]);
        }

        let values: Vec<[u8; 32]> = case
            .heads
            .iter()
            .map(|head| head[22..].try_into().unwrap())
            .collect();
        let points: Vec<(NonZeroU8, &[u8; 32])> = case
            .heads
            .iter()
            .zip(&values)
            .map(|(head, value)| (NonZeroU8::new(head[0]).unwrap(), value))
            .collect();
        for points in [&points[..], &points[..usize::from(case.k)]] {
            assert_eq!(
                shamir::combine_key(points).unwrap().as_bytes()[..],
                case.key
            );
        }
    }
}
