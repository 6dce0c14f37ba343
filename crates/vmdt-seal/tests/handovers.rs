//! Hand-overs: what a holder says to a receiver, and what of it convicts the holder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::num::NonZeroU8;

use common::World;
use proptest::prelude::*;
use vmdt_seal::announcement::{SealedDetails, envelope, message_id};
use vmdt_seal::e2e::{self, TransferContext};
use vmdt_seal::error::{BuildError, ParseError, VerifyError};
use vmdt_seal::group::{Group, GroupDetails};
use vmdt_seal::handover::{
    Contradiction, HANDOVER_LEN, HANDOVERS_FIXED, HANDOVERS_MAX_LEN, Handover, Handovers,
    MAX_HANDOVERS, NoContradiction,
};
use vmdt_seal::receipt::{Fact, Receipts, Statement};
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::{Manifest, Sealer};

fn index(index: u8) -> NonZeroU8 {
    NonZeroU8::new(index).unwrap()
}

fn entry(manifest: u8, of: u8) -> Handover {
    Handover {
        manifest: [manifest; 32],
        index: index(of),
        digest: [manifest ^ of; 32],
    }
}

/// Bob's word to Carol.
fn said(world: &World, entries: &[Handover]) -> Result<Handovers, BuildError> {
    Handovers::sign(&world.bob, world.carol.node_id(), 1_000, entries)
}

/// Alice's details of a message to Carol, 2 of 3.
fn details(world: &mut World, transfer: u8) -> SealedDetails {
    let context = TransferContext {
        sender: world.alice.public(),
        receiver: world.carol.public(),
        transfer: [transfer; 16],
        prekey_id: world.prekeys.current().public().id,
    };
    let sealer = Sealer::new(Threshold::new(2, 3).unwrap(), envelope(&context).unwrap());
    let manifest = sealer.seal(b"hello", &mut world.rng).unwrap().manifest;
    let prekey = world.prekeys.current().public();
    let (encapsulated, _) = e2e::encapsulate(&prekey, &context, &mut world.rng).unwrap();
    SealedDetails::sign(&world.alice, &context, encapsulated, &manifest, 0, None).unwrap()
}

fn group_details(world: &mut World) -> GroupDetails {
    let receivers = [world.carol.public(), world.bob.public()];
    let group = Group::new(world.alice.public(), [5; 16], &receivers).unwrap();
    let sealer = Sealer::new(Threshold::new(2, 3).unwrap(), group.envelope().unwrap());
    let manifest = sealer.seal(b"hello", &mut world.rng).unwrap().manifest;
    let secret = Group::secret(&mut world.rng);
    let prekey = world.prekeys.current().public();
    let wrapped: Vec<_> = receivers
        .iter()
        .map(|to| group.wrap(&secret, *to, &prekey, &mut world.rng).unwrap())
        .collect();
    GroupDetails::sign(&world.alice, &group, &wrapped, &manifest).unwrap()
}

/// The hand-over of a share as it was sealed.
fn honest(manifest: &Manifest, of: u8) -> Handover {
    Handover {
        manifest: manifest.digest(),
        index: index(of),
        digest: *manifest.share_digest(index(of)).unwrap(),
    }
}

/// The hand-over of a share of which one bit was turned.
fn altered(manifest: &Manifest, of: u8) -> Handover {
    let mut handover = honest(manifest, of);
    handover.digest[31] ^= 1;
    handover
}

#[test]
fn hand_overs_have_1_to_60_entries_in_one_order() {
    let world = World::new();
    assert!(matches!(said(&world, &[]), Err(BuildError::Value { .. })));
    let many: Vec<Handover> = (0..=MAX_HANDOVERS as u8).map(|at| entry(at, 1)).collect();
    assert!(matches!(
        said(&world, &many),
        Err(BuildError::TooLong { found: 61, .. })
    ));
    let most = said(&world, &many[1..]).unwrap();
    assert_eq!(most.octets().len(), HANDOVERS_MAX_LEN);
    const { assert!(HANDOVERS_MAX_LEN <= 4_096, "a control line holds them") };
    assert_eq!(Handovers::parse(most.octets()).unwrap(), most);

    let two = said(&world, &[entry(1, 1), entry(2, 1)]).unwrap();
    let backwards = [entry(2, 1), entry(1, 1), entry(2, 1)];
    assert_eq!(said(&world, &backwards).unwrap(), two);
    let mut swapped = two.octets().to_vec();
    let first = HANDOVERS_FIXED - 64;
    for at in first..first + HANDOVER_LEN {
        swapped.swap(at, at + HANDOVER_LEN);
    }
    assert!(matches!(
        Handovers::parse(&swapped),
        Err(VerifyError::Parse(ParseError::Order { .. }))
    ));
    for (at, found) in [(first - 1, 0), (first + 32, 0)] {
        let mut none = two.octets().to_vec();
        none[at] = found;
        assert!(matches!(
            Handovers::parse(&none),
            Err(VerifyError::Parse(ParseError::Value { found: 0, .. }))
        ));
    }
}

#[test]
fn what_is_said_to_a_sender_is_not_said_to_a_receiver() {
    let world = World::new();
    let to = world.carol.node_id();
    let handovers = said(&world, &[entry(1, 1)]).unwrap();
    let statement = Statement {
        message: entry(1, 1).message(),
        fact: Fact::HandedOn(index(1)),
        digest: [9; 32],
    };
    let receipts = Receipts::sign(&world.bob, to, 1_000, &[statement]).unwrap();
    assert!(Handovers::is_one(handovers.octets()) && !Handovers::is_one(receipts.octets()));
    assert!(Receipts::parse(handovers.octets()).is_err());
    assert!(Handovers::parse(receipts.octets()).is_err());
    // nor when the kind is exchanged and all else kept: the signatures have contexts of their own
    let mut octets = handovers.octets().to_vec();
    octets[0] = b'R';
    assert!(Receipts::parse(&octets).is_err());
    // the octets of one structure, signed as the other
    let body = handovers.octets().len() - 64;
    let signature = world
        .bob
        .sign_octets("vmdt 1.1 receipts", &handovers.octets()[..body]);
    let mut octets = handovers.octets().to_vec();
    octets[body..].copy_from_slice(&signature);
    assert!(matches!(
        Handovers::parse(&octets),
        Err(VerifyError::Signature { .. })
    ));
    let signature = world
        .bob
        .sign_octets("vmdt 1.1 hand-overs", &handovers.octets()[..body]);
    octets[body..].copy_from_slice(&signature);
    assert_eq!(Handovers::parse(&octets).unwrap(), handovers);
}

#[test]
fn who_signs_another_share_than_was_sealed_is_convicted_before_anybody() {
    let mut world = World::new();
    let one = details(&mut world, 5);
    let group = group_details(&mut world);
    let cases = [
        (one.manifest(), one.octets()),
        (group.manifest(), group.octets()),
    ];
    for (manifest, details) in cases {
        let false_word = said(&world, &[honest(manifest, 1), altered(manifest, 3)]).unwrap();
        let found = Contradiction::find(false_word.octets(), details).unwrap();
        assert_eq!(found.holder, world.bob.public());
        assert_eq!(found.sender, world.alice.public());
        assert_eq!(found.receiver, world.carol.node_id());
        assert_eq!(found.message, message_id(&manifest.digest()));
        assert_eq!((found.index, found.when_ms), (index(3), 1_000));
        assert_eq!(found.sealed, *manifest.share_digest(index(3)).unwrap());
        assert_eq!(found.brought, altered(manifest, 3).digest);

        let honest_word = said(&world, &[honest(manifest, 1), honest(manifest, 2)]).unwrap();
        assert_eq!(
            Contradiction::find(honest_word.octets(), details),
            Err(NoContradiction::Agree)
        );
    }
}

#[test]
fn nothing_but_the_holders_own_word_about_that_manifest_convicts_it() {
    let mut world = World::new();
    let (one, other) = (details(&mut world, 5), details(&mut world, 6));
    let manifest = one.manifest();
    // a true word about one message says nothing of another, whatever their ids are
    let about_other = said(&world, &[honest(other.manifest(), 1)]).unwrap();
    assert_eq!(
        Contradiction::find(about_other.octets(), one.octets()),
        Err(NoContradiction::Agree)
    );
    // of a share that does not exist nothing was sealed
    let none = Handover {
        index: index(4),
        ..honest(manifest, 1)
    };
    let none = said(&world, &[none]).unwrap();
    assert_eq!(
        Contradiction::find(none.octets(), one.octets()),
        Err(NoContradiction::Agree)
    );
    // what Alice writes in Bob's name
    let hers = Handovers::sign(
        &world.alice,
        world.carol.node_id(),
        1_000,
        &[altered(manifest, 1)],
    )
    .unwrap();
    let mut forged = hers.octets().to_vec();
    forged[2..34].copy_from_slice(world.bob.public().as_octets());
    assert!(matches!(
        Contradiction::find(&forged, one.octets()),
        Err(NoContradiction::Handovers(VerifyError::Signature { .. }))
    ));
    // details that nobody signed
    let mut unsigned = one.octets().to_vec();
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    let false_word = said(&world, &[altered(manifest, 1)]).unwrap();
    assert!(matches!(
        Contradiction::find(false_word.octets(), &unsigned),
        Err(NoContradiction::Details(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_hand_overs_round_trip(
        entries in prop::collection::btree_set((any::<[u8; 32]>(), 1..=255_u8, any::<[u8; 32]>()), 1..=MAX_HANDOVERS),
        when_ms: u64,
    ) {
        let world = World::new();
        let entries: Vec<Handover> = entries
            .into_iter()
            .map(|(manifest, at, digest)| Handover { manifest, index: index(at), digest })
            .collect();
        let to = world.carol.node_id();
        let signed = Handovers::sign(&world.bob, to, when_ms, &entries).unwrap();
        let read = Handovers::parse(signed.octets()).unwrap();
        prop_assert_eq!(read.entries(), &entries[..]);
        prop_assert_eq!((read.holder(), read.receiver(), read.when_ms()), (world.bob.public(), to, when_ms));
        prop_assert_eq!(read, signed);
    }
}
