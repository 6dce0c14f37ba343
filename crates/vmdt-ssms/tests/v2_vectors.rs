//! Manifests and shares made by an independent implementation (`vectors/make_v2_vectors.py`), both
//! ways: they open here, and sealing with the same randomness gives the same octets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{Script, unhex};
use vmdt_ssms::v2::{Collector, Envelope, Form, HEAD_LEN, Manifest, Sealed, Sealer};

#[derive(Default)]
struct Case {
    name: String,
    message: Vec<u8>,
    form: u8,
    bound: Option<[u8; 32]>,
    /// Secret and coefficients: what a sealer draws.
    drawn: Vec<u8>,
    manifest: Vec<u8>,
    digest: Vec<u8>,
    shares: Vec<Vec<u8>>,
    heads: Vec<Vec<u8>>,
    bodies: Vec<Vec<u8>>,
}

impl Case {
    fn manifest(&self) -> Manifest {
        Manifest::parse_unverified(&self.manifest).unwrap()
    }

    /// Seals what the case says with the case's randomness.
    fn sealed(&self) -> Sealed {
        let said = self.manifest();
        let envelope = Envelope::new(said.message_id(), said.sender(), said.recipient());
        let form = match self.form {
            1 => Form::Replicated,
            _ => Form::Dispersed,
        };
        let mut sealer =
            Sealer::new(said.threshold(), envelope.expires(said.expires())).with_form(form);
        if let Some(secret) = &self.bound {
            sealer = sealer.with_bound_secret(secret);
        }
        let mut rng = Script(self.drawn.clone());
        let sealed = sealer
            .seal_segment(said.position(), &self.message, &mut rng)
            .unwrap();
        assert!(rng.0.is_empty(), "{}: less was drawn", self.name);
        sealed
    }

    fn open(&self, shares: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
        let mut collector = Collector::new(self.manifest());
        for share in shares {
            collector.add(share).unwrap();
        }
        match &self.bound {
            Some(secret) => collector.open_bound(secret).unwrap(),
            None => collector.open().unwrap(),
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("vectors/v2.txt").lines() {
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
            "message" => case.message = unhex(value),
            "text" => {
                let len: usize = value.parse().unwrap();
                case.message = (0..len).map(|i| ((i * 89) ^ (i >> 7)) as u8).collect();
            }
            "form" => case.form = value.parse().unwrap(),
            "bound" => case.bound = Some(unhex(value).try_into().unwrap()),
            "secret" | "coefficient" => case.drawn.extend(unhex(value)),
            "manifest" => case.manifest = unhex(value),
            "digest" => case.digest = unhex(value),
            "share" => case.shares.push(unhex(value)),
            "head" => case.heads.push(unhex(value)),
            "body-blake3" => case.bodies.push(unhex(value)),
            other => panic!("unknown word {other}"),
        }
    }
    assert_eq!(cases.len(), 13);
    cases
}

#[test]
fn every_manifest_is_read_and_written_octet_for_octet() {
    for case in cases() {
        let manifest = case.manifest();
        assert_eq!(manifest.encode(), case.manifest, "{}", case.name);
        assert_eq!(manifest.digest()[..], case.digest, "{}", case.name);
        assert_eq!(manifest.size() as usize, case.message.len());
    }
}

#[test]
fn the_first_and_the_last_shares_open() {
    for case in cases().iter().filter(|case| !case.shares.is_empty()) {
        let k = usize::from(case.manifest().threshold().k());
        let shares = || case.shares.iter().map(|share| Bytes::from(share.clone()));
        assert_eq!(case.open(shares().take(k)), case.message, "{}", case.name);
        assert_eq!(
            case.open(shares().rev().take(k)),
            case.message,
            "{}",
            case.name
        );
    }
}

#[test]
fn sealing_with_the_same_randomness_gives_the_same_octets() {
    for case in cases() {
        let sealed = case.sealed();
        assert_eq!(sealed.manifest.encode(), case.manifest, "{}", case.name);
        for (share, want) in sealed.shares.iter().zip(&case.shares) {
            assert_eq!(share.to_bytes(), want, "{}", case.name);
        }
        let long = case.heads.iter().zip(&case.bodies);
        for (share, (head, body)) in sealed.shares.iter().zip(long) {
            assert_eq!(share.to_bytes()[..HEAD_LEN], head[..], "{}", case.name);
            assert_eq!(
                blake3::hash(share.body()).as_bytes()[..],
                body[..],
                "{}",
                case.name
            );
        }
        let made = case.shares.len() + case.heads.len();
        assert_eq!(sealed.shares.len(), made, "{}", case.name);
        let last = sealed.shares.iter().rev().map(|share| share.to_bytes());
        let k = usize::from(sealed.manifest.threshold().k());
        assert_eq!(case.open(last.take(k)), case.message, "{}", case.name);
    }
}
