//! Segments: any order, any start, nothing missing, nothing moved.
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
use proptest::prelude::*;
use vmdt_ssms::stream::{
    Combiner, Expected, ManifestRefused, SEGMENT_MAX, Segment, ShareError, Splitter, SplitterError,
};
use vmdt_ssms::v2::{
    Envelope, Manifest, OpenError, PartyId, Recipient, Sealed, Sealer, ShareFault,
};

fn expected() -> Expected {
    Expected {
        message_id: [1; 16],
        sender: PartyId::new(b"alice").unwrap(),
        recipient: Recipient::Group(PartyId::new(b"crew").unwrap()),
        threshold: threshold(2, 3),
    }
}

fn sealer() -> Sealer {
    let Expected {
        message_id,
        sender,
        recipient,
        threshold,
    } = expected();
    Sealer::new(threshold, Envelope::new(message_id, sender, recipient))
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 89) ^ (i >> 7)) as u8).collect()
}

/// All segments of a message that is pushed `step` octets at a time.
fn split_from(mut splitter: Splitter, message: &[u8], step: usize) -> Vec<Sealed> {
    let mut rng = rng(3);
    let mut segments = Vec::new();
    for mut rest in message.chunks(step) {
        while !rest.is_empty() {
            let (taken, segment) = splitter.push(rest, &mut rng).unwrap();
            assert!(taken > 0 || segment.is_some());
            rest = &rest[taken..];
            segments.extend(segment);
        }
    }
    segments.push(splitter.finish(&mut rng).unwrap());
    assert_eq!(
        splitter.push(b"x", &mut rng).unwrap_err(),
        SplitterError::Finished
    );
    assert_eq!(
        splitter.finish(&mut rng).unwrap_err(),
        SplitterError::Finished
    );
    segments
}

fn segments_of(message: &[u8], segment_len: u32) -> Vec<Sealed> {
    split_from(Splitter::new(sealer(), segment_len).unwrap(), message, 700)
}

fn take(combiner: &mut Combiner, sealed: &Sealed) -> Segment {
    combiner.manifest(sealed.manifest.clone()).unwrap();
    assert_eq!(combiner.share(sealed.shares[2].to_bytes()), Ok(None));
    combiner
        .share(sealed.shares[0].to_bytes())
        .unwrap()
        .unwrap()
}

#[test]
fn segments_come_back_in_any_order_and_however_the_message_was_pushed() {
    for (len, count) in [
        (0, 1),
        (1, 1),
        (999, 1),
        (1_000, 1),
        (1_001, 2),
        (3_000, 3),
        (3_001, 4),
    ] {
        let message = text(len);
        for step in [1, 17, 1_000, 5_000] {
            let splitter = Splitter::new(sealer(), 1_000).unwrap();
            let segments = split_from(splitter, &message, step);
            assert_eq!(segments.len(), count);
            for backwards in [false, true] {
                let mut combiner = Combiner::new(expected(), 4, 1_000);
                let mut out = vec![0; len];
                for turn in 0..count {
                    let i = if backwards { count - 1 - turn } else { turn };
                    assert!(!combiner.is_complete());
                    let done = take(&mut combiner, &segments[i]);
                    assert_eq!(done.position.number, i as u64);
                    let from = done.position.offset as usize;
                    out[from..from + done.octets.len()].copy_from_slice(&done.octets);
                }
                assert!(combiner.is_complete());
                assert_eq!(combiner.last(), Some(count as u64 - 1));
                assert_eq!(out, message);
            }
        }
    }
}

#[test]
fn a_message_that_is_cut_off_is_never_complete() {
    let segments = segments_of(&text(3_000), 1_000);
    let mut combiner = Combiner::new(expected(), 4, 1_000);
    for segment in &segments[..2] {
        take(&mut combiner, segment);
    }
    assert!(!combiner.is_complete());
    assert_eq!((combiner.next(), combiner.last()), (2, None));
    assert_eq!(combiner.wanted().collect::<Vec<_>>(), [2, 3, 4, 5]);
    take(&mut combiner, &segments[2]);
    assert!(combiner.is_complete());
    assert_eq!(combiner.wanted().count(), 0);
}

#[test]
fn both_sides_resume_from_any_segment() {
    let message = text(5_500);
    let whole = segments_of(&message, 1_000);
    for from in 0..=5u64 {
        let splitter = Splitter::resume(sealer(), 1_000, from).unwrap();
        let rest = split_from(splitter, &message[from as usize * 1_000..], 300);
        assert_eq!(rest.len(), whole.len() - from as usize);
        let mut combiner = Combiner::resume(expected(), 2, 1_000, from);
        for segment in &rest {
            let done = take(&mut combiner, segment);
            let at = done.position.offset as usize;
            assert_eq!(done.octets, message[at..at + done.octets.len()]);
        }
        assert!(combiner.is_complete());
    }
}

#[test]
fn offsets_pass_four_gib() {
    let segment_len = 1 << 20;
    let number = (5u64 << 30) / u64::from(segment_len);
    let splitter = Splitter::resume(sealer(), segment_len, number).unwrap();
    let segments = split_from(splitter, &text((1 << 20) + 10), 1 << 16);
    let mut combiner = Combiner::resume(expected(), 2, segment_len, number);
    assert_eq!(take(&mut combiner, &segments[0]).position.offset, 5 << 30);
    let last = take(&mut combiner, &segments[1]).position;
    assert_eq!((last.offset, last.last), ((5 << 30) + (1 << 20), true));
    assert!(combiner.is_complete());

    let far = Splitter::resume(sealer(), segment_len, u64::MAX).unwrap_err();
    assert_eq!(far, SplitterError::TooLong);
}

#[test]
fn segment_lengths_have_bounds() {
    for given in [0, SEGMENT_MAX + 1] {
        let error = Splitter::new(sealer(), given).unwrap_err();
        assert_eq!(error, SplitterError::SegmentLength { given });
    }
    let segments = segments_of(&text(2_000), 1_000);
    let mut combiner = Combiner::new(expected(), 4, 999);
    assert_eq!(
        combiner.manifest(segments[0].manifest.clone()),
        Err(ManifestRefused::TooLarge {
            number: 0,
            size: 1_000,
            max: 999
        })
    );
}

#[test]
fn the_window_bounds_what_is_in_work() {
    let segments = segments_of(&text(10_000), 1_000);
    let mut combiner = Combiner::new(expected(), 3, 1_000);
    for segment in &segments[..3] {
        combiner.manifest(segment.manifest.clone()).unwrap();
    }
    let beyond = combiner.manifest(segments[3].manifest.clone());
    assert_eq!(
        beyond,
        Err(ManifestRefused::BeyondWindow { number: 3, end: 3 })
    );
    // The window moves with the first segment that is not done, not with the others.
    take(&mut combiner, &segments[1]);
    assert!(combiner.manifest(segments[3].manifest.clone()).is_err());
    take(&mut combiner, &segments[0]);
    assert_eq!(combiner.next(), 2);
    assert_eq!(combiner.manifest(segments[3].manifest.clone()), Ok(()));
    assert_eq!(combiner.manifest(segments[4].manifest.clone()), Ok(()));
    assert!(combiner.manifest(segments[5].manifest.clone()).is_err());
}

#[test]
fn manifests_of_other_messages_are_refused() {
    let segments = segments_of(b"x", 1_000);
    let others = [
        Expected {
            message_id: [2; 16],
            ..expected()
        },
        Expected {
            sender: PartyId::new(b"mallory").unwrap(),
            ..expected()
        },
        Expected {
            recipient: Recipient::One(PartyId::new(b"crew").unwrap()),
            ..expected()
        },
        Expected {
            threshold: threshold(3, 3),
            ..expected()
        },
    ];
    for other in others {
        let mut combiner = Combiner::new(other, 4, 1_000);
        let refused = combiner.manifest(segments[0].manifest.clone());
        assert_eq!(refused, Err(ManifestRefused::Unexpected));
    }
}

/// A manifest with other octets at `at`, as a cheating sender could sign it.
fn forged(manifest: &Manifest, at: usize, octets: &[u8]) -> Manifest {
    let mut encoded = manifest.encode();
    encoded[at..at + octets.len()].copy_from_slice(octets);
    Manifest::parse_unverified(&encoded).unwrap()
}

#[test]
fn a_sender_that_contradicts_itself_is_refused() {
    let segments = segments_of(&text(3_500), 1_000);
    let mut combiner = Combiner::new(expected(), 8, 5_000);
    let mut refuse = |manifest: Manifest| {
        let number = manifest.position().number;
        let refused = combiner.manifest(manifest);
        assert_eq!(refused, Err(ManifestRefused::Contradiction { number }));
    };
    // An offset that is not the number times the length.
    refuse(forged(&segments[1].manifest, 32, &1_001u64.to_be_bytes()));
    refuse(forged(&segments[0].manifest, 32, &1_000u64.to_be_bytes()));
    // A last segment that is empty, or longer than the others.
    refuse(forged(&segments[3].manifest, 40, &0u32.to_be_bytes()));
    refuse(forged(&segments[3].manifest, 40, &1_001u32.to_be_bytes()));

    let mut combiner = Combiner::new(expected(), 8, 5_000);
    combiner.manifest(segments[2].manifest.clone()).unwrap();
    let mut refuse = |manifest: Manifest| {
        let number = manifest.position().number;
        let refused = combiner.manifest(manifest);
        assert_eq!(refused, Err(ManifestRefused::Contradiction { number }));
    };
    // Another manifest for a segment in work; a last segment before one that is known; segments
    // of another length.
    refuse(forged(&segments[2].manifest, 60, &[9]));
    refuse(forged(&segments[1].manifest, 7, &[3]));
    refuse(segments_of(&text(3_500), 800)[1].manifest.clone());

    combiner.manifest(segments[3].manifest.clone()).unwrap();
    // Nothing comes after the last.
    let after = segments_of(&text(6_000), 1_000);
    for i in [3, 4] {
        let number = i as u64;
        let refused = combiner.manifest(after[i].manifest.clone());
        assert_eq!(refused, Err(ManifestRefused::Contradiction { number }));
    }
    assert_eq!(combiner.manifest(segments[3].manifest.clone()), Ok(()));
}

#[test]
fn shares_are_refused_by_segment_and_index() {
    let segments = segments_of(&text(2_500), 1_000);
    let mut combiner = Combiner::new(expected(), 4, 1_000);
    let octets = segments[1].shares[1].to_bytes();
    assert_eq!(
        combiner.share(octets.clone()),
        Err(ShareError::NoManifest { number: 1 })
    );
    assert_eq!(
        combiner.share(octets.slice(..31)),
        Err(ShareError::Truncated {
            given: 31,
            needed: 68
        })
    );
    for segment in &segments {
        combiner.manifest(segment.manifest.clone()).unwrap();
    }
    // Moved to another segment.
    let mut moved = octets.to_vec();
    moved[24..32].copy_from_slice(&0u64.to_be_bytes());
    match combiner.share(moved.into()) {
        Err(ShareError::Refused { number: 0, refused }) => {
            assert_eq!(refused.index(), NonZeroU8::new(2));
            assert_eq!(refused.fault(), ShareFault::Digest);
        }
        other => panic!("{other:?}"),
    }
    let swapped = combiner.share_from(NonZeroU8::new(3).unwrap(), octets.clone());
    assert!(matches!(
        swapped,
        Err(ShareError::Refused { number: 1, .. })
    ));
    assert_eq!(combiner.share(octets.clone()), Ok(None));
    assert!(
        combiner
            .share(segments[1].shares[0].to_bytes())
            .unwrap()
            .is_some()
    );
    // Late, and ignored.
    assert_eq!(combiner.share(octets), Ok(None));
}

#[test]
fn a_bound_secret_is_used_for_every_segment() {
    let splitter = Splitter::new(sealer().with_bound_secret(&[4; 32]), 1_000).unwrap();
    let segments = split_from(splitter, &text(1_500), 1_500);
    let mut combiner = Combiner::new(expected(), 4, 1_000).with_bound_secret(&[4; 32]);
    take(&mut combiner, &segments[0]);
    take(&mut combiner, &segments[1]);
    assert!(combiner.is_complete());

    let mut without = Combiner::new(expected(), 4, 1_000);
    without.manifest(segments[0].manifest.clone()).unwrap();
    without.share(segments[0].shares[0].to_bytes()).unwrap();
    assert_eq!(
        without.share(segments[0].shares[1].to_bytes()),
        Err(ShareError::Open {
            number: 0,
            error: OpenError::KeyCommitment
        })
    );
}

proptest! {
    #[test]
    fn shuffled_and_repeated_shares_give_the_message(
        len in 0usize..4_000,
        segment_len in 1u32..900,
        order in any::<u64>(),
    ) {
        let message = text(len);
        let segments = segments_of(&message, segment_len.max(40));
        let mut combiner = Combiner::new(expected(), 200, 1_000);
        let mut shares = Vec::new();
        for segment in segments.iter().rev() {
            combiner.manifest(segment.manifest.clone()).unwrap();
            shares.extend(segment.shares.iter().map(|share| share.to_bytes()));
            shares.push(segment.shares[0].to_bytes());
        }
        let mut state = order | 1;
        for i in (1..shares.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            shares.swap(i, (state >> 33) as usize % (i + 1));
        }
        let mut out = vec![0; len];
        for share in shares {
            if let Some(done) = combiner.share(share).unwrap() {
                let at = done.position.offset as usize;
                out[at..at + done.octets.len()].copy_from_slice(&done.octets);
            }
        }
        prop_assert!(combiner.is_complete());
        prop_assert_eq!(out, message);
    }
}
