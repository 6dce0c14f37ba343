//! Verifiable shares: what is opened, what is refused, and who is blamed.
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
use common::{rng, subsets, threshold};
use proptest::prelude::*;
use vmdt_ssms::ThresholdError;
use vmdt_ssms::v2::{
    Added, Collector, Envelope, Form, HEAD_LEN, Manifest, ManifestError, OpenError, PartyId,
    PartyIdError, Position, REPLICATED_MAX, Recipient, Sealed, Sealer, ShareFault, SignedManifest,
    Signer, Verifier, VerifyError,
};

fn index(value: u8) -> NonZeroU8 {
    NonZeroU8::new(value).unwrap()
}

fn envelope(id: u8) -> Envelope {
    let party = |name: &[u8]| PartyId::new(name).unwrap();
    Envelope::new([id; 16], party(b"alice"), Recipient::One(party(b"bob")))
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 89) ^ (i >> 7)) as u8).collect()
}

fn sealed(k: u8, n: u8, message: &[u8]) -> Sealed {
    Sealer::new(threshold(k, n), envelope(1))
        .seal(message, &mut rng(5))
        .unwrap()
}

fn open(
    manifest: &Manifest,
    shares: impl IntoIterator<Item = Bytes>,
) -> Result<Vec<u8>, OpenError> {
    let mut collector = Collector::new(manifest.clone());
    for share in shares {
        collector.add(share).unwrap();
    }
    collector.open()
}

/// A keyed hash, where a real caller has a signature.
struct Mac([u8; 32]);

impl Signer for Mac {
    type Error = ();
    fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>, ()> {
        Ok(blake3::keyed_hash(&self.0, digest).as_bytes().to_vec())
    }
}

impl Verifier for Mac {
    type Error = ();
    fn verify(&self, sender: &[u8], digest: &[u8; 32], signature: &[u8]) -> Result<(), ()> {
        let genuine = *blake3::keyed_hash(&self.0, digest).as_bytes() == *signature;
        (sender == b"alice" && genuine).then_some(()).ok_or(())
    }
}

#[test]
fn every_subset_of_k_or_more_opens_in_both_forms_at_every_length() {
    for form in [Form::Replicated, Form::Dispersed] {
        for (k, n) in [(2, 2), (2, 4), (3, 5), (5, 6)] {
            let sealer = Sealer::new(threshold(k, n), envelope(1)).with_form(form);
            for len in [0, 1, 2, 3, 4, 63, 257, 5_000] {
                let message = text(len);
                let sealed = sealer.seal(&message, &mut rng(len as u64)).unwrap();
                assert_eq!(sealed.manifest.size() as usize, len);
                for count in usize::from(k)..=usize::from(n) {
                    for set in subsets(usize::from(n), count) {
                        let shares = set.iter().rev().map(|&i| sealed.shares[i].to_bytes());
                        assert_eq!(
                            open(&sealed.manifest, shares).unwrap(),
                            message,
                            "{form:?} {k} of {n}, {len} octets, {set:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_form_follows_from_the_size() {
    let small = sealed(3, 5, &text(REPLICATED_MAX));
    assert_eq!(small.manifest.form(), Form::Replicated);
    assert_eq!(small.shares[0].body().len(), REPLICATED_MAX);
    let large = sealed(3, 5, &text(REPLICATED_MAX + 1));
    assert_eq!(large.manifest.form(), Form::Dispersed);
    assert_eq!(
        large.shares[0].body().len(),
        (REPLICATED_MAX + 1).div_ceil(3)
    );
}

#[test]
fn the_largest_threshold_opens_from_the_last_shares() {
    let message = text(10_000);
    for (k, n) in [(128, 255), (255, 255), (2, 255)] {
        let sealed = sealed(k, n, &message);
        let shares = sealed.shares[usize::from(n - k)..]
            .iter()
            .map(|s| s.to_bytes());
        assert_eq!(open(&sealed.manifest, shares).unwrap(), message);
    }
}

#[test]
fn too_few_shares_are_not_opened() {
    let sealed = sealed(3, 5, b"x");
    let shares = sealed.shares[..2].iter().map(|s| s.to_bytes());
    assert_eq!(
        open(&sealed.manifest, shares),
        Err(OpenError::TooFew {
            given: 2,
            needed: 3
        })
    );
    let error = open(&sealed.manifest, []).unwrap_err();
    assert_eq!(
        error,
        OpenError::TooFew {
            given: 0,
            needed: 3
        }
    );
}

#[test]
fn a_share_given_twice_counts_once() {
    let sealed = sealed(2, 3, b"twice");
    let mut collector = Collector::new(sealed.manifest.clone());
    assert_eq!(collector.add(sealed.shares[1].to_bytes()), Ok(Added::New));
    assert_eq!(
        collector.add(sealed.shares[1].to_bytes()),
        Ok(Added::Duplicate)
    );
    assert_eq!(collector.missing(), 1);
}

#[test]
fn every_bit_flip_of_a_share_is_refused() {
    for len in [40, 300] {
        let sealed = sealed(2, 3, &text(len));
        let octets = sealed.shares[1].to_bytes().to_vec();
        let mut collector = Collector::new(sealed.manifest.clone());
        for bit in 0..octets.len() * 8 {
            let mut flipped = octets.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let claimed = NonZeroU8::new(flipped[7]);
            let refused = collector.add(flipped.clone().into()).unwrap_err();
            assert_eq!(refused.index(), claimed, "bit {bit}");
            let refused = collector.add_from(index(2), flipped.into()).unwrap_err();
            assert_eq!(refused.index(), Some(index(2)), "bit {bit}");
        }
        assert_eq!(collector.missing(), 2);
        assert_eq!(collector.add(octets.into()), Ok(Added::New));
    }
}

#[test]
fn every_truncation_and_extension_of_a_share_is_refused() {
    let sealed = sealed(2, 3, &text(300));
    let octets = sealed.shares[0].to_bytes();
    let mut collector = Collector::new(sealed.manifest.clone());
    for len in 0..octets.len() {
        let refused = collector.add(octets.slice(..len)).unwrap_err();
        let fault = if len < HEAD_LEN {
            ShareFault::Truncated {
                given: len,
                needed: HEAD_LEN,
            }
        } else {
            ShareFault::BodyLength {
                given: len - HEAD_LEN,
                needed: 150,
            }
        };
        assert_eq!(refused.fault(), fault);
        assert_eq!(refused.index(), (len > 7).then(|| index(1)));
    }
    let longer = [&octets[..], &[0]].concat();
    let fault = ShareFault::BodyLength {
        given: 151,
        needed: 150,
    };
    assert_eq!(collector.add(longer.into()).unwrap_err().fault(), fault);
}

#[test]
fn shares_swapped_between_indices_are_refused_and_the_holder_blamed() {
    let sealed = sealed(2, 3, &text(300));
    let mut collector = Collector::new(sealed.manifest.clone());
    let refused = collector
        .add_from(index(2), sealed.shares[0].to_bytes())
        .unwrap_err();
    assert_eq!(refused.index(), Some(index(2)));
    assert_eq!(refused.fault(), ShareFault::Swapped { claimed: 1 });
    // Relabelled, it is not the share that the manifest knows under that index.
    let mut relabelled = sealed.shares[0].to_bytes().to_vec();
    relabelled[7] = 2;
    let refused = collector.add_from(index(2), relabelled.into()).unwrap_err();
    assert_eq!(refused.fault(), ShareFault::Digest);
    assert_eq!(
        collector.add_from(index(2), sealed.shares[1].to_bytes()),
        Ok(Added::New)
    );
}

#[test]
fn shares_of_other_messages_segments_and_splits_are_refused() {
    let message = text(300);
    let sealer = Sealer::new(threshold(2, 3), envelope(1));
    let ours = sealer.seal(&message, &mut rng(1)).unwrap();
    let fault = |octets: Bytes| {
        Collector::new(ours.manifest.clone())
            .add(octets)
            .unwrap_err()
            .fault()
    };

    let other = Sealer::new(threshold(2, 3), envelope(2))
        .seal(&message, &mut rng(1))
        .unwrap();
    assert_eq!(fault(other.shares[0].to_bytes()), ShareFault::OtherMessage);

    let later = Position {
        number: 7,
        offset: 300,
        last: true,
    };
    let later = sealer.seal_segment(later, &message, &mut rng(1)).unwrap();
    assert_eq!(
        fault(later.shares[0].to_bytes()),
        ShareFault::OtherSegment { found: 7 }
    );

    let again = sealer.seal(&message, &mut rng(2)).unwrap();
    assert_eq!(fault(again.shares[0].to_bytes()), ShareFault::Digest);

    let wider = Sealer::new(threshold(2, 4), envelope(1))
        .seal(&message, &mut rng(1))
        .unwrap();
    assert_eq!(fault(wider.shares[0].to_bytes()), ShareFault::Parameters);

    let v1 = vmdt_ssms::split_slice(threshold(2, 3), &message, &mut rng(1)).unwrap();
    assert_eq!(fault(v1[0].to_bytes()), ShareFault::NotAShare);

    for i in [0, 4, 255] {
        let mut octets = ours.shares[0].to_bytes().to_vec();
        octets[7] = i;
        assert_eq!(fault(octets.into()), ShareFault::Index { found: i, n: 3 });
    }
}

/// `into` with the digest of each share in `indices` taken from `from`.
fn mixed(into: &Manifest, from: &Manifest, indices: &[usize]) -> Manifest {
    let (mut octets, other) = (into.encode(), from.encode());
    let first = octets.len() - 32 * usize::from(into.threshold().n());
    for &i in indices {
        let range = first + 32 * i..first + 32 * (i + 1);
        octets[range.clone()].copy_from_slice(&other[range]);
    }
    Manifest::parse_unverified(&octets).unwrap()
}

#[test]
fn a_sender_cannot_make_one_manifest_open_to_two_messages() {
    for len in [100, 400] {
        let (one, two) = (text(len), vec![7; len]);
        let sealer = Sealer::new(threshold(2, 4), envelope(1));
        let a = sealer.seal(&one, &mut rng(1)).unwrap();
        // Another key, and, with the same randomness, the same key for another message.
        for (seed, error) in [(2, OpenError::KeyCommitment), (1, OpenError::Content)] {
            let b = sealer.seal(&two, &mut rng(seed)).unwrap();
            let manifest = mixed(&a.manifest, &b.manifest, &[2, 3]);
            let of = |i: usize| if i < 2 { &a.shares[i] } else { &b.shares[i] };
            for set in subsets(4, 2) {
                let result = open(&manifest, set.iter().map(|&i| of(i).to_bytes()));
                match result {
                    // Replicated, one true body is enough, and it is the one committed to.
                    Ok(message) => assert_eq!(message, one, "{set:?}"),
                    Err(found) if set == [2, 3] => assert_eq!(found, error),
                    Err(_) => {}
                }
            }
            let both = (2..4).map(|i| b.shares[i].to_bytes());
            assert_eq!(open(&manifest, both), Err(error));
        }
    }
}

#[test]
fn a_bound_secret_is_needed_and_must_be_the_right_one() {
    let sealer = Sealer::new(threshold(2, 3), envelope(1)).with_bound_secret(&[9; 32]);
    let sealed = sealer.seal(b"for two", &mut rng(1)).unwrap();
    let mut collector = Collector::new(sealed.manifest.clone());
    for share in &sealed.shares {
        collector.add(share.to_bytes()).unwrap();
    }
    assert_eq!(collector.open(), Err(OpenError::KeyCommitment));
    assert_eq!(
        collector.open_bound(&[8; 32]),
        Err(OpenError::KeyCommitment)
    );
    assert_eq!(collector.open_bound(&[9; 32]).unwrap(), b"for two");
}

#[test]
fn segments_are_appended_and_a_failure_leaves_the_buffer_alone() {
    let message = text(1_000);
    let sealer = Sealer::new(threshold(2, 3), envelope(1)).with_bound_secret(&[9; 32]);
    let sealed = sealer.seal(&message, &mut rng(1)).unwrap();
    let mut collector = Collector::new(sealed.manifest.clone());
    let mut out = b"before".to_vec();
    collector.add(sealed.shares[2].to_bytes()).unwrap();
    assert!(collector.open_to(Some(&[9; 32]), &mut out).is_err());
    collector.add(sealed.shares[1].to_bytes()).unwrap();
    assert_eq!(
        collector.open_to(None, &mut out),
        Err(OpenError::KeyCommitment)
    );
    assert_eq!(out, b"before");
    collector.open_to(Some(&[9; 32]), &mut out).unwrap();
    collector.open_to(Some(&[9; 32]), &mut out).unwrap();
    assert_eq!(out, [&b"before"[..], &message, &message].concat());
}

#[test]
fn long_segments_open_from_any_shares_and_every_octet_counts() {
    // Long enough for several strips of encryption, coding and hashing.
    for (k, n, len) in [(3, 5, 700_001), (2, 3, 1 << 19), (7, 10, 400_000)] {
        let message = text(len);
        let sealed = sealed(k, n, &message);
        for from in 0..=usize::from(n - k) {
            let shares = sealed.shares[from..][..usize::from(k)].iter();
            let opened = open(&sealed.manifest, shares.map(|s| s.to_bytes()));
            assert!(opened.unwrap() == message, "{k} of {n} from {from}");
        }
        let octets = sealed.shares[1].to_bytes();
        for at in (0..octets.len()).step_by(10_007).chain([octets.len() - 1]) {
            let mut altered = octets.to_vec();
            altered[at] ^= 0x10;
            let mut collector = Collector::new(sealed.manifest.clone());
            assert!(collector.add(altered.into()).is_err(), "octet {at}");
        }
    }
}

#[test]
fn manifests_have_one_encoding() {
    let party = |name: &[u8]| PartyId::new(name).unwrap();
    let envelope = Envelope::new([3; 16], party(b""), Recipient::Group(party(&[0xff; 64])));
    let sealer = Sealer::new(threshold(2, 3), envelope.expires(77));
    let position = Position {
        number: u64::MAX,
        offset: 1 << 40,
        last: false,
    };
    let manifest = sealer
        .seal_segment(position, b"abc", &mut rng(1))
        .unwrap()
        .manifest;
    let octets = manifest.encode();
    assert_eq!(octets.len(), manifest.encoded_len());
    assert_eq!(octets.len(), 116 + 1 + 1 + 64 + 3 * 32);
    assert_eq!(
        octets[..24],
        [&[0, 2, b'M', 1, 1, 2, 3, 2][..], &[3; 16]].concat()
    );
    assert_eq!(octets[24..32], u64::MAX.to_be_bytes());
    assert_eq!(octets[32..40], (1u64 << 40).to_be_bytes());
    assert_eq!(octets[40..44], 3u32.to_be_bytes());
    assert_eq!(octets[44..52], 77u64.to_be_bytes());
    assert_eq!(Manifest::parse_unverified(&octets).unwrap(), manifest);
    assert!(!manifest.is_expired(76) && manifest.is_expired(77));
}

#[test]
fn manifests_with_impossible_values_are_refused() {
    let octets = sealed(2, 3, b"abc").manifest.encode();
    let with = |at: usize, value: u8| {
        let mut octets = octets.clone();
        octets[at] = value;
        Manifest::parse_unverified(&octets).unwrap_err()
    };
    for at in 0..3 {
        assert_eq!(with(at, 9), ManifestError::NotAManifest);
    }
    assert_eq!(with(3, 2), ManifestError::Suite { found: 2 });
    assert_eq!(with(4, 0), ManifestError::Form { found: 0 });
    assert_eq!(
        with(5, 1),
        ManifestError::Threshold(ThresholdError::TooLow { k: 1 })
    );
    assert_eq!(
        with(6, 1),
        ManifestError::Threshold(ThresholdError::AboveTotal { k: 2, n: 1 })
    );
    assert_eq!(
        with(6, 255),
        ManifestError::Truncated {
            given: octets.len()
        }
    );
    assert_eq!(with(6, 2), ManifestError::Trailing { count: 32 });
    assert_eq!(with(7, 4), ManifestError::Flags { found: 4 });
    assert_eq!(
        with(116, 65),
        ManifestError::PartyId(PartyIdError { given: 65 })
    );
    assert_eq!(PartyId::new(&[0; 65]), Err(PartyIdError { given: 65 }));
}

#[test]
fn every_truncation_of_a_manifest_is_refused() {
    let signed = SignedManifest::sign(sealed(2, 3, b"abc").manifest, &Mac([1; 32])).unwrap();
    let octets = signed.encode();
    for len in 0..octets.len() {
        assert!(
            SignedManifest::verify(&octets[..len], &Mac([1; 32])).is_err(),
            "{len}"
        );
    }
    let plain = signed.manifest().encode();
    for len in 0..plain.len() {
        assert!(Manifest::parse_unverified(&plain[..len]).is_err(), "{len}");
    }
    let longer = [&octets[..], &[0]].concat();
    assert_eq!(
        SignedManifest::verify(&longer, &Mac([1; 32])).unwrap_err(),
        VerifyError::Manifest(ManifestError::Trailing { count: 1 })
    );
}

#[test]
fn every_bit_flip_of_a_signed_manifest_is_refused() {
    let signed = SignedManifest::sign(sealed(2, 3, b"abc").manifest, &Mac([1; 32])).unwrap();
    let octets = signed.encode();
    assert_eq!(
        &SignedManifest::verify(&octets, &Mac([1; 32])).unwrap(),
        signed.manifest()
    );
    assert_eq!(
        SignedManifest::verify(&octets, &Mac([2; 32])),
        Err(VerifyError::Signature(()))
    );
    for bit in 0..octets.len() * 8 {
        let mut flipped = octets.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(
            SignedManifest::verify(&flipped, &Mac([1; 32])).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn no_bit_flip_of_an_unsigned_manifest_yields_a_wrong_plaintext() {
    for len in [20, 300] {
        let message = text(len);
        let sealed = sealed(2, 3, &message);
        let octets = sealed.manifest.encode();
        for bit in 0..octets.len() * 8 {
            let mut flipped = octets.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(manifest) = Manifest::parse_unverified(&flipped) else {
                continue;
            };
            let mut collector = Collector::new(manifest);
            for share in sealed.shares.iter().rev() {
                let _ = collector.add(share.to_bytes());
            }
            if let Ok(opened) = collector.open() {
                assert_eq!(opened, message, "bit {bit}");
            }
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let sealed = sealed(2, 2, b"hush");
    let shown = format!("{:?}", sealed.shares[0]);
    assert_eq!(shown, "Share { index: 1, body: 4, .. }");
}

/// Pins the format: any change of layout, hashing or coding shows here.
#[test]
fn golden_digest_of_a_manifest_and_its_shares() {
    let mut digests = Vec::new();
    for len in [12, 1_000] {
        let sealed = sealed(3, 5, &text(len));
        let mut all = blake3::Hasher::new();
        all.update(&sealed.manifest.encode());
        for share in &sealed.shares {
            all.update(&share.to_bytes());
        }
        digests.push(all.finalize().to_hex().to_string());
    }
    let want = [
        "9a6ac0e0f1e4ae8c88c5ded146429bb47d632d16abd21708079c740e011ab3d3",
        "39c9efe99d47707005082e5bf2b30765898bd17d7763b61bdc5e916b548da804",
    ];
    assert_eq!(digests, want);
}

proptest! {
    #[test]
    fn arbitrary_octets_are_refused_without_a_panic(
        octets in proptest::collection::vec(any::<u8>(), 0..600),
        valid_start in 0usize..120,
    ) {
        let sealed = sealed(3, 5, &text(500));
        let mut share = sealed.shares[2].to_bytes().to_vec();
        share.truncate(valid_start);
        share.extend_from_slice(&octets);
        prop_assert!(Collector::new(sealed.manifest.clone()).add(share.into()).is_err());

        let mut manifest = sealed.manifest.encode();
        manifest.truncate(valid_start);
        manifest.extend_from_slice(&octets);
        prop_assert!(SignedManifest::verify(&manifest, &Mac([1; 32])).is_err());
    }
}
