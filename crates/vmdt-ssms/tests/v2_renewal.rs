//! Refreshing the shares of a sealed segment and replacing a holder, without the key.
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
use vmdt_ssms::dispersal::CodeError;
use vmdt_ssms::shamir::{CombineError, KeyShare, contribution, refreshed, summed, zero_sharing};
use vmdt_ssms::v2::{
    Collector, Envelope, Form, Manifest, OpenError, PartyId, RebuildError, Recipient, ReissueError,
    Sealed, Sealer, Share, ShareFault,
};

const K: usize = 3;
const N: usize = 5;

fn index(value: u8) -> NonZeroU8 {
    NonZeroU8::new(value).unwrap()
}

fn sealed(form: Form, message: &[u8]) -> Sealed {
    let party = |name: &[u8]| PartyId::new(name).unwrap();
    let envelope = Envelope::new([1; 16], party(b"alice"), Recipient::One(party(b"bob")));
    Sealer::new(threshold(3, 5), envelope)
        .with_form(form)
        .seal(message, &mut rng(5))
        .unwrap()
}

fn open(manifest: &Manifest, shares: &[&Share]) -> Result<Vec<u8>, OpenError> {
    let mut collector = Collector::new(manifest.clone());
    for share in shares {
        collector.add(share.to_bytes()).unwrap();
    }
    collector.open()
}

/// Three holders deal zeros, and each of `shares` adds its points.
fn renewed(shares: &[Share]) -> Vec<Share> {
    let mut rng = rng(9);
    let dealt: Vec<Vec<KeyShare>> = (0..K)
        .map(|_| zero_sharing(threshold(3, 5), &mut rng))
        .collect();
    shares
        .iter()
        .map(|share| {
            let at = usize::from(share.index().get()) - 1;
            let received: Vec<KeyShare> = dealt
                .iter()
                .map(|points| KeyShare::new(points[at].index(), points[at].value()))
                .collect();
            let point = refreshed(&share.point(), &received).unwrap();
            share.with_point(&point).unwrap()
        })
        .collect()
}

fn digests(shares: &[Share]) -> Vec<(NonZeroU8, [u8; 32])> {
    shares.iter().map(|s| (s.index(), s.digest())).collect()
}

/// The point at `new`, made by the holders of `helpers`, none of whom sees it.
fn made(helpers: &[&Share], new: NonZeroU8) -> KeyShare {
    let mut rng = rng(3);
    let indices: Vec<NonZeroU8> = helpers.iter().map(|s| s.index()).collect();
    let parts: Vec<Vec<KeyShare>> = helpers
        .iter()
        .map(|s| contribution(&s.point(), &indices, new, &mut rng).unwrap())
        .collect();
    let sums: Vec<KeyShare> = indices
        .iter()
        .enumerate()
        .map(|(to, helper)| {
            let received: Vec<KeyShare> = parts
                .iter()
                .map(|of| KeyShare::new(*helper, of[to].value()))
                .collect();
            summed(*helper, &received)
        })
        .collect();
    summed(new, &sums)
}

#[test]
fn a_share_has_the_digest_that_its_manifest_lists() {
    for form in [Form::Replicated, Form::Dispersed] {
        let sealed = sealed(form, &[7; 1_000]);
        for share in &sealed.shares {
            assert_eq!(
                sealed.manifest.share_digest(share.index()),
                Some(&share.digest())
            );
        }
    }
}

#[test]
fn refreshed_shares_open_under_the_new_manifest_and_old_ones_are_refused() {
    for form in [Form::Replicated, Form::Dispersed] {
        let message = vec![7; 1_000];
        let sealed = sealed(form, &message);
        let new = renewed(&sealed.shares);
        let manifest = sealed.manifest.reissued(&digests(&new)).unwrap();
        assert!(manifest.is_reissue_of(&sealed.manifest));
        assert_ne!(manifest.digest(), sealed.manifest.digest());
        let parsed = Manifest::parse_unverified(&manifest.encode()).unwrap();
        assert_eq!(parsed, manifest);
        for set in subsets(N, K) {
            let shares: Vec<&Share> = set.iter().map(|&i| &new[i]).collect();
            assert_eq!(open(&manifest, &shares).unwrap(), message);
        }
        for (old, new) in sealed.shares.iter().zip(&new) {
            let refused = Collector::new(manifest.clone()).add(old.to_bytes());
            assert_eq!(refused.unwrap_err().fault(), ShareFault::Digest);
            let refused = Collector::new(sealed.manifest.clone()).add(new.to_bytes());
            assert_eq!(refused.unwrap_err().fault(), ShareFault::Digest);
        }
    }
}

#[test]
fn old_and_new_shares_do_not_open_together_even_if_a_manifest_lists_both() {
    let sealed = sealed(Form::Dispersed, &[7; 1_000]);
    let new = renewed(&sealed.shares);
    let mut listed = digests(&new);
    listed[1].1 = sealed.shares[1].digest();
    let manifest = sealed.manifest.reissued(&listed).unwrap();
    assert_eq!(
        open(&manifest, &[&new[0], &sealed.shares[1], &new[2]]),
        Err(OpenError::KeyCommitment)
    );
    assert!(open(&manifest, &[&new[0], &new[3], &new[2]]).is_ok());
}

#[test]
fn a_replaced_holder_gets_a_share_of_its_own_and_the_former_one_is_out() {
    for form in [Form::Replicated, Form::Dispersed] {
        let message: Vec<u8> = (0..1_001).map(|i| i as u8).collect();
        let sealed = sealed(form, &message);
        for lost in 1..=5u8 {
            // The holder of `lost` takes no part in the refresh; the others' shares are new.
            let all = renewed(&sealed.shares);
            let kept: Vec<Share> = all
                .iter()
                .filter(|s| s.index() != index(lost))
                .cloned()
                .collect();
            let manifest = sealed.manifest.reissued(&digests(&kept)).unwrap();
            let former =
                Collector::new(manifest.clone()).add(all[usize::from(lost) - 1].to_bytes());
            assert_eq!(former.unwrap_err().fault(), ShareFault::Digest);

            let helpers: Vec<&Share> = kept.iter().skip(1).collect();
            let point = made(&helpers, index(lost));
            let bodies: Vec<(NonZeroU8, Bytes)> = helpers
                .iter()
                .map(|s| (s.index(), s.body().clone()))
                .collect();
            let body = manifest.rebuild_body(&bodies, index(lost)).unwrap();
            assert_eq!(&body, sealed.shares[usize::from(lost) - 1].body());
            let share = Share::from_point(&manifest, &point, body).unwrap();

            let mut listed = digests(&kept);
            listed.push((index(lost), share.digest()));
            let manifest = manifest.reissued(&listed).unwrap();
            assert_eq!(
                open(&manifest, &[&share, &kept[0], &kept[2]]).unwrap(),
                message
            );
        }
    }
}

#[test]
fn a_share_made_again_without_a_refresh_is_the_one_that_was_lost() {
    let sealed = sealed(Form::Dispersed, &[9; 500]);
    let helpers: Vec<&Share> = sealed.shares[..3].iter().collect();
    let bodies: Vec<(NonZeroU8, Bytes)> = helpers
        .iter()
        .map(|s| (s.index(), s.body().clone()))
        .collect();
    let body = sealed.manifest.rebuild_body(&bodies, index(5)).unwrap();
    let again = Share::from_point(&sealed.manifest, &made(&helpers, index(5)), body).unwrap();
    assert_eq!(again.to_bytes(), sealed.shares[4].to_bytes());
}

#[test]
fn altered_bodies_are_not_built_upon() {
    for form in [Form::Replicated, Form::Dispersed] {
        let sealed = sealed(form, &[9; 500]);
        let manifest = &sealed.manifest;
        let mut bodies: Vec<(NonZeroU8, Bytes)> = sealed.shares[..3]
            .iter()
            .map(|s| (s.index(), s.body().clone()))
            .collect();
        assert_eq!(
            manifest.rebuild_body(&bodies, index(6)),
            Err(RebuildError::Code(CodeError::NoSuchPiece {
                index: index(6),
                n: 5
            }))
        );
        assert!(manifest.rebuild_body(&[], index(1)).is_err());
        let mut altered = bodies[0].1.to_vec();
        altered[17] ^= 4;
        bodies[0].1 = altered.into();
        assert_eq!(
            manifest.rebuild_body(&bodies, index(4)),
            Err(RebuildError::Content)
        );
    }
}

#[test]
fn impossible_lists_and_points_are_refused() {
    let sealed = sealed(Form::Dispersed, &[9; 500]);
    let all = digests(&sealed.shares);
    let reissue = |list: &[(NonZeroU8, [u8; 32])]| sealed.manifest.reissued(list).unwrap_err();
    assert_eq!(
        reissue(&all[..2]),
        ReissueError::TooFew {
            given: 2,
            needed: 3
        }
    );
    assert_eq!(
        reissue(&[all[0], all[1], all[0]]),
        ReissueError::Duplicate { index: index(1) }
    );
    assert_eq!(
        reissue(&[all[0], all[1], (index(6), [0; 32])]),
        ReissueError::NoSuchShare {
            index: index(6),
            n: 5
        }
    );
    assert_eq!(
        sealed.manifest.reissued(&all).unwrap(),
        sealed.manifest,
        "the same digests make the same manifest"
    );

    let [one, two] = [&sealed.shares[0], &sealed.shares[1]];
    assert_eq!(
        one.with_point(&two.point()).unwrap_err(),
        CombineError::OtherIndex {
            index: index(2),
            expected: index(1)
        }
    );
    let far = KeyShare::new(index(6), one.point().value());
    let refused = Share::from_point(&sealed.manifest, &far, one.body().clone()).unwrap_err();
    assert_eq!(refused.fault(), ShareFault::Index { found: 6, n: 5 });
    let refused = Share::from_point(&sealed.manifest, &one.point(), Bytes::new()).unwrap_err();
    assert_eq!(
        refused.fault(),
        ShareFault::BodyLength {
            given: 0,
            needed: 167
        }
    );
}

#[test]
fn a_manifest_of_something_else_is_no_reissue() {
    let one = sealed(Form::Dispersed, &[9; 500]).manifest;
    let other = sealed(Form::Dispersed, &[8; 500]).manifest;
    assert!(one.is_reissue_of(&one));
    assert!(!one.is_reissue_of(&other));
}
