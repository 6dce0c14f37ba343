//! What is remembered of bad shares and statements, for how long, and what follows from them.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::receipt::{Fact, Receipts, Statement};
use vmdt_testkit::Clock;

use super::*;

fn person(seed: u8) -> SecretIdentity {
    SecretIdentity::generate(&mut ChaCha20Rng::from_seed([seed; 32]))
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// The hand-over of a share as it was sealed.
fn sealed(number: u32) -> Handover {
    let mut manifest = [0; 32];
    manifest[..4].copy_from_slice(&number.to_be_bytes());
    Handover {
        manifest,
        index: NonZeroU8::MIN,
        digest: [1; 32],
    }
}

fn bad(holder: NodeId, number: u32) -> BadShare {
    let said = sealed(number);
    BadShare {
        holder,
        message: said.message(),
        index: said.index,
        listed: Listed {
            manifest: said.manifest,
            digest: said.digest,
            details: Bytes::from_static(b"details"),
        },
        came: [2; 32],
        unsure: false,
    }
}

fn judged(proofs: &mut Proofs, holder: NodeId, said: Handover) -> Option<Option<Evidence>> {
    let bad = proofs.take_bad(holder, &said)?;
    Some(contradiction(&said, &bad))
}

#[test]
fn a_word_that_names_another_share_is_proof_and_one_that_names_the_sealed_one_is_known_here() {
    let (now, liar) = (Clock::new().now(), node("liar"));
    let mut proofs = Proofs::default();
    let message = sealed(1).message();
    for digest in [[2; 32], [3; 32]] {
        proofs.bad_share(now, bad(liar, 1));
        let said = Handover {
            digest,
            ..sealed(1)
        };
        let evidence = Evidence::BadShare {
            message,
            announced: [1; 16],
            delivered: short(&digest),
        };
        assert!(evidence.is_conclusive());
        assert_eq!(judged(&mut proofs, liar, said), Some(Some(evidence)));
        assert_eq!(judged(&mut proofs, liar, said), None, "once");
    }
    proofs.bad_share(now, bad(liar, 1));
    let evidence = Evidence::FalseDelivery {
        message,
        signed: [1; 16],
        delivered: [2; 16],
    };
    assert!(evidence.is_conclusive());
    assert_eq!(judged(&mut proofs, liar, sealed(1)), Some(Some(evidence)));
}

#[test]
fn who_may_have_brought_the_right_share_as_well_is_not_convicted_for_saying_so() {
    let (now, holder) = (Clock::new().now(), node("holder"));
    let mut proofs = Proofs::default();
    // before, after, and both ways around another bad copy
    for before in [true, false] {
        let first = BadShare {
            unsure: before,
            ..bad(holder, 1)
        };
        proofs.bad_share(now, first);
        if !before {
            proofs.another_copy(holder, sealed(1).message(), sealed(1).index);
        }
        proofs.bad_share(now, bad(holder, 1));
        assert_eq!(judged(&mut proofs, holder, sealed(1)), Some(None));
    }
    // another's copy, or one of another share, changes nothing
    proofs.bad_share(now, bad(holder, 1));
    proofs.another_copy(node("other"), sealed(1).message(), sealed(1).index);
    proofs.another_copy(holder, sealed(2).message(), sealed(1).index);
    assert!(matches!(
        judged(&mut proofs, holder, sealed(1)),
        Some(Some(Evidence::FalseDelivery { .. }))
    ));
    // and it is convicted all the same for a word that is false whatever came
    proofs.bad_share(
        now,
        BadShare {
            unsure: true,
            ..bad(holder, 1)
        },
    );
    let said = Handover {
        digest: [2; 32],
        ..sealed(1)
    };
    assert!(matches!(
        judged(&mut proofs, holder, said),
        Some(Some(Evidence::BadShare { .. }))
    ));
}

#[test]
fn a_word_counts_for_its_holder_and_its_manifest_alone() {
    let (now, liar) = (Clock::new().now(), node("liar"));
    let mut proofs = Proofs::default();
    proofs.bad_share(now, bad(liar, 1));
    let other_index = Handover {
        index: NonZeroU8::MAX,
        ..sealed(1)
    };
    assert_eq!(judged(&mut proofs, node("other"), sealed(1)), None);
    assert_eq!(judged(&mut proofs, liar, sealed(2)), None);
    assert_eq!(judged(&mut proofs, liar, other_index), None);
    assert!(judged(&mut proofs, liar, sealed(1)).is_some());
}

#[test]
fn only_hand_overs_to_this_node_under_the_key_of_who_brings_them_are_read() {
    let (liar, other) = (person(1), person(2));
    let (local, from) = (node("local"), liar.node_id());
    let sign = |by: &SecretIdentity, to| {
        let signed = Handovers::sign(by, to, 5, &[sealed(1)]).unwrap();
        signed.octets().clone()
    };
    let good = sign(&liar, local);
    assert!(read(local, from, Some(liar.public()), &good).is_ok());
    let mut forged = sign(&other, local).to_vec();
    forged[2..34].copy_from_slice(liar.public().as_octets());
    let statement = Statement {
        message: sealed(1).message(),
        fact: Fact::HandedOn(NonZeroU8::MIN),
        digest: [2; 32],
    };
    let receipts = Receipts::sign(&liar, local, 5, &[statement]).unwrap();
    for (octets, key, why) in [
        (&forged[..], Some(liar.public()), Refused::Signature),
        (receipts.octets(), Some(liar.public()), Refused::Signature),
        (&sign(&other, local), Some(liar.public()), Refused::OtherKey),
        (&good, Some(other.public()), Refused::OtherKey),
        (&good, None, Refused::OtherKey),
        (
            &sign(&liar, node("other")),
            Some(liar.public()),
            Refused::OtherReceiver,
        ),
    ] {
        assert_eq!(read(local, from, key, octets).unwrap_err(), why);
    }
    // and another member does not bring it
    assert_eq!(
        read(local, other.node_id(), Some(other.public()), &good).unwrap_err(),
        Refused::OtherKey
    );
}

#[test]
fn what_is_remembered_is_bounded_for_one_and_for_all_and_is_forgotten() {
    let (start, liar) = (Clock::new().now(), node("liar"));
    let mut proofs = Proofs::default();
    let honest_word: Said = (sealed(1), Bytes::new());
    proofs.bad_share(start, bad(node("other"), 1));
    proofs.wait(start, node("other"), honest_word.clone());
    for number in 0..1_000 {
        proofs.bad_share(start, bad(liar, number));
        proofs.wait(start, liar, (sealed(number), Bytes::new()));
    }
    // one alone does not drive out what is known of others
    assert_eq!(proofs.bad.len(), MAX_BAD_OF_ONE + 1);
    assert_eq!(proofs.said.len(), MAX_SAID_OF_ONE + 1);
    assert!(judged(&mut proofs, node("other"), sealed(1)).is_some());
    assert_eq!(judged(&mut proofs, liar, sealed(0)), None, "the oldest go");
    assert!(judged(&mut proofs, liar, sealed(999)).is_some());
    assert_eq!(proofs.take_said(sealed(999).message()).len(), 1);
    for number in 0..1_000_u32 {
        let one_of_many = node(&format!("n{number}"));
        proofs.bad_share(start, bad(one_of_many, number));
        proofs.wait(start, one_of_many, honest_word.clone());
    }
    assert_eq!(proofs.bad.len(), MAX_BAD);
    assert_eq!(proofs.said.len(), MAX_SAID);
    proofs.expire(start + SAID_TTL);
    assert_eq!((proofs.bad.len(), proofs.said.len()), (MAX_BAD, 0));
    proofs.expire(start + BAD_TTL);
    assert_eq!(proofs.bad.len(), 0);
    for number in 0..100_u32 {
        proofs.convicted(Conviction {
            peer: node(&format!("n{}", number / 2 * 2)),
            index: NonZeroU8::MIN,
            evidence: Evidence::Equivocation {
                message: MessageId::ZERO,
                statements: [[1; 16], [2; 16]],
            },
            handovers: Bytes::new(),
            details: Bytes::new(),
        });
    }
    assert_eq!(proofs.convictions.len(), 50, "one for each");
    for number in 0..100_u32 {
        let conviction = Conviction {
            peer: node(&format!("m{number}")),
            ..proofs.convictions[0].clone()
        };
        proofs.convicted(conviction);
    }
    assert_eq!(proofs.convictions.len(), MAX_CONVICTIONS);
}
