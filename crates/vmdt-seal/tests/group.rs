//! One message sealed to several receivers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::World;
use vmdt_seal::announcement::envelope;
use vmdt_seal::e2e::{E2eError, TransferContext, TransferSecret};
use vmdt_seal::error::BuildError;
use vmdt_seal::group::{
    GROUP_DETAILS_MAX_LEN, Group, GroupDetails, GroupError, MAX_RECEIVERS, RECEIVER_LEN, Wrapped,
};
use vmdt_seal::identity::{PublicIdentity, SecretIdentity};
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::{Manifest, Sealer};

fn person(seed: u8) -> SecretIdentity {
    SecretIdentity::from_seed(&[seed; 32])
}

/// Alice, and so many receivers with prekeys of their own.
struct Party {
    world: World,
    receivers: Vec<(SecretIdentity, PrekeyStore)>,
    group: Group,
    secret: TransferSecret,
}

impl Party {
    fn of(count: usize) -> Party {
        let mut world = World::new();
        let receivers: Vec<_> = (0..count)
            .map(|at| {
                let store = PrekeyStore::new(PrekeyConfig::default(), 0, &mut world.rng);
                (person(10 + at as u8), store)
            })
            .collect();
        let keys: Vec<_> = receivers.iter().map(|(id, _)| id.public()).collect();
        let group = Group::new(world.alice.public(), [5; 16], &keys).unwrap();
        let secret = Group::secret(&mut world.rng);
        Party {
            world,
            receivers,
            group,
            secret,
        }
    }

    fn manifest(&mut self, n: u8) -> Manifest {
        let threshold = Threshold::new(2, n).unwrap();
        let sealer = Sealer::new(threshold, self.group.envelope().unwrap())
            .with_bound_secret(self.secret.segment(0).as_octets());
        sealer.seal(b"hello", &mut self.world.rng).unwrap().manifest
    }

    fn wrapped(&mut self) -> Vec<Wrapped> {
        let (group, secret, rng) = (&self.group, &self.secret, &mut self.world.rng);
        self.receivers
            .iter()
            .map(|(id, store)| {
                let prekey = store.current().public();
                group.wrap(secret, id.public(), &prekey, rng).unwrap()
            })
            .collect()
    }

    fn details(&mut self, n: u8) -> GroupDetails {
        let (manifest, wrapped) = (self.manifest(n), self.wrapped());
        GroupDetails::sign(&self.world.alice, &self.group, &wrapped, &manifest).unwrap()
    }
}

#[test]
fn every_receiver_gets_the_same_secret_and_nobody_else_does() {
    for count in [1, 2, 5, MAX_RECEIVERS] {
        let mut party = Party::of(count);
        let details = party.details(3);
        let read = GroupDetails::parse(details.octets()).unwrap();
        assert_eq!(read, details);
        for (id, store) in &party.receivers {
            let opened = read.unwrap_for(id.public(), store.current()).unwrap();
            assert_eq!(opened.as_octets(), party.secret.as_octets());
        }
        let mallory = person(9);
        let own = PrekeyStore::new(PrekeyConfig::default(), 0, &mut party.world.rng);
        assert_eq!(
            read.unwrap_for(mallory.public(), own.current()).err(),
            Some(GroupError::NotReceiver(mallory.node_id()))
        );
        // with what is wrapped for another, its own prekey is no use
        let (first, store) = &party.receivers[0];
        let named = store.current().public().id;
        let error = read.unwrap_for(first.public(), own.current()).unwrap_err();
        if own.current().public().id == named {
            assert_eq!(error, GroupError::Wrapped { prekey_id: named });
        } else {
            assert!(matches!(
                error,
                GroupError::E2e(E2eError::OtherPrekey { wanted, .. }) if wanted == named
            ));
        }
    }
}

#[test]
fn the_most_receivers_and_shares_fit_the_bound_of_a_control_line() {
    let mut party = Party::of(MAX_RECEIVERS);
    let details = party.details(255);
    assert!(details.octets().len() <= GROUP_DETAILS_MAX_LEN);
    const { assert!(GROUP_DETAILS_MAX_LEN <= vmdt_wire::MAX_DETAILS) };
    assert_eq!(RECEIVER_LEN, 116);
    GroupDetails::parse(details.octets()).unwrap();
}

#[test]
fn a_group_has_1_to_64_receivers_without_its_sender_in_one_order() {
    let alice = person(1).public();
    let keys: Vec<PublicIdentity> = (10..75).map(|seed| person(seed).public()).collect();
    let group = |receivers: &[PublicIdentity]| Group::new(alice, [5; 16], receivers);
    assert!(matches!(
        group(&[]),
        Err(GroupError::Build(BuildError::Value { .. }))
    ));
    assert!(matches!(
        group(&keys),
        Err(GroupError::Build(BuildError::TooLong {
            found: 65,
            allowed: 64,
            ..
        }))
    ));
    assert_eq!(group(&[keys[0], alice]), Err(GroupError::SenderReceives));
    let both = group(&[keys[0], keys[1], keys[0]]).unwrap();
    assert_eq!(both, group(&[keys[1], keys[0]]).unwrap());
    assert_eq!(both.receivers().len(), 2);
    assert_ne!(both.id(), group(&[keys[0]]).unwrap().id());
}

#[test]
fn what_is_wrapped_belongs_to_its_receiver_transfer_sender_and_group() {
    let mut party = Party::of(2);
    let (manifest, wrapped) = (party.manifest(3), party.wrapped());
    let sign = |wrapped: &[Wrapped]| {
        GroupDetails::sign(&party.world.alice, &party.group, wrapped, &manifest)
    };
    let field = |result: Result<GroupDetails, GroupError>| match result {
        Err(GroupError::Mismatch { field }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(sign(&wrapped[..1])), "receivers");
    assert_eq!(
        field(sign(&[wrapped[0].clone(), wrapped[0].clone()])),
        "receivers"
    );
    let keys = party.group.receivers().to_vec();
    let others = [
        Group::new(party.world.alice.public(), [6; 16], &keys).unwrap(),
        Group::new(
            party.world.alice.public(),
            [5; 16],
            &[keys[0], person(9).public()],
        )
        .unwrap(),
        Group::new(party.world.bob.public(), [5; 16], &keys).unwrap(),
    ];
    for other in others {
        let sealer = Sealer::new(Threshold::new(2, 3).unwrap(), other.envelope().unwrap());
        let theirs = sealer
            .seal(b"hello", &mut party.world.rng)
            .unwrap()
            .manifest;
        let result = GroupDetails::sign(&party.world.alice, &party.group, &wrapped, &theirs);
        assert!(["message id", "recipient", "sender"].contains(&field(result)));
        // moved to another transfer, group or sender it does not open
        let signer = if other.sender() == party.world.alice.public() {
            &party.world.alice
        } else {
            &party.world.bob
        };
        let moved: Vec<Wrapped> = other
            .receivers()
            .iter()
            .map(|to| {
                let found = wrapped.iter().find(|one| one.receiver() == *to).cloned();
                let prekey = party.receivers[0].1.current().public();
                found.unwrap_or_else(|| {
                    let rng = &mut party.world.rng;
                    other.wrap(&party.secret, *to, &prekey, rng).unwrap()
                })
            })
            .collect();
        let details = GroupDetails::sign(signer, &other, &moved, &theirs).unwrap();
        let (id, store) = party
            .receivers
            .iter()
            .find(|(id, _)| id.public() == keys[0])
            .unwrap();
        assert!(matches!(
            details.unwrap_for(id.public(), store.current()),
            Err(GroupError::Wrapped { .. })
        ));
    }
}

#[test]
fn details_to_one_and_to_a_group_are_not_taken_for_each_other() {
    let mut party = Party::of(1);
    let (to, store) = (&party.receivers[0].0, &party.receivers[0].1);
    let context = TransferContext {
        sender: party.world.alice.public(),
        receiver: to.public(),
        transfer: [5; 16],
        prekey_id: store.current().public().id,
    };
    let sealer = Sealer::new(Threshold::new(2, 3).unwrap(), envelope(&context).unwrap());
    let manifest = sealer
        .seal(b"hello", &mut party.world.rng)
        .unwrap()
        .manifest;
    let wrapped = party.wrapped();
    let result = GroupDetails::sign(&party.world.alice, &party.group, &wrapped, &manifest);
    assert_eq!(result, Err(GroupError::Mismatch { field: "recipient" }));
    let details = party.details(3);
    assert!(GroupDetails::is_one(details.octets()));
    assert!(vmdt_seal::announcement::SealedDetails::parse(details.octets()).is_err());
}

#[test]
fn nothing_of_the_secret_shows() {
    let mut party = Party::of(1);
    let details = party.details(3);
    let secret = party.secret.as_octets();
    assert!(!details.octets().windows(32).any(|octets| octets == secret));
    assert_eq!(format!("{:?}", party.secret), "TransferSecret(..)");
}
