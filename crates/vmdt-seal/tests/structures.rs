//! Every signed structure: golden octets, and nothing but the octets that were signed is accepted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::num::NonZeroU8;

use common::{World, golden};
use proptest::prelude::*;
use vmdt_seal::announcement::{DetailsError, Placement, SealedDetails, envelope};
use vmdt_seal::descriptor::{ClusterHash, Descriptor, DescriptorDetails};
use vmdt_seal::e2e::{self, Encapsulated, TransferContext};
use vmdt_seal::error::{BuildError, ParseError, VerifyError};
use vmdt_seal::group::{Group, GroupDetails};
use vmdt_seal::handover::{Handover, Handovers};
use vmdt_seal::identity::{Credential, KeyError, PublicIdentity, SecretIdentity};
use vmdt_seal::invite::Invite;
use vmdt_seal::membership::Membership;
use vmdt_seal::prekey::{PrekeyStore, PublicPrekey};
use vmdt_seal::profile::{Profile, ProfileDetails};
use vmdt_seal::receipt::{
    Fact, MAX_STATEMENTS, RECEIPTS_FIXED, RECEIPTS_MAX_LEN, Receipts, STATEMENT_LEN, Statement,
};
use vmdt_seal::revocation::{MAX_ENTRIES, RevocationDetails, RevocationList};
use vmdt_seal::rotation::{ROTATION_LEN, Rotation, RotationError, follow};
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::{Manifest, Sealer};
use vmdt_wire::MessageId;

fn message() -> MessageId {
    MessageId::from_random([7; 12])
}

fn index(index: u8) -> NonZeroU8 {
    NonZeroU8::new(index).unwrap()
}

fn context(world: &World) -> TransferContext {
    TransferContext {
        sender: world.alice.public(),
        receiver: world.bob.public(),
        transfer: [5; 16],
        prekey_id: world.prekeys.current().public().id,
    }
}

fn manifest(world: &mut World, context: &TransferContext) -> Manifest {
    let sealer = Sealer::new(Threshold::new(2, 3).unwrap(), envelope(context).unwrap());
    sealer.seal(b"hello", &mut world.rng).unwrap().manifest
}

fn details(world: &mut World) -> SealedDetails {
    let context = context(world);
    let manifest = manifest(world, &context);
    let prekey = world.prekeys.current().public();
    let (encapsulated, secret) = e2e::encapsulate(&prekey, &context, &mut world.rng).unwrap();
    let label = Some((&secret, &b"report.pdf"[..]));
    SealedDetails::sign(&world.alice, &context, encapsulated, &manifest, 3, label).unwrap()
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

fn placement(world: &World) -> Placement {
    let holders = [
        (index(2), world.bob.node_id()),
        (index(1), world.carol.node_id()),
        (index(255), world.bob.node_id()),
    ];
    Placement::sign(&world.alice, message(), 4, &holders).unwrap()
}

fn revocation(world: &World) -> RevocationList {
    let details = RevocationDetails {
        cluster: world.descriptor.hash(),
        version: 9,
        removed: vec![world.carol.node_id()],
        invites: vec![world.invite.id()],
        kept: vec![world.bob.node_id()],
    };
    RevocationList::sign(&world.alice, &details).unwrap()
}

fn statements() -> [Statement; 3] {
    let (message, digest) = (message(), [9; 32]);
    [
        Fact::Taken(index(2)),
        Fact::HandedOn(index(2)),
        Fact::Delivered,
    ]
    .map(|fact| Statement {
        message,
        fact,
        digest,
    })
}

fn receipts(world: &World) -> Receipts {
    Receipts::sign(&world.bob, world.alice.node_id(), 1_000, &statements()).unwrap()
}

fn handovers(world: &World) -> Handovers {
    let of = |index| Handover {
        manifest: [8; 32],
        index,
        digest: [9; 32],
    };
    let brought = [of(index(2)), of(index(3))];
    Handovers::sign(&world.bob, world.carol.node_id(), 1_000, &brought).unwrap()
}

/// A structure's name, an encoding of it, and a reader that says whether octets are one.
type Case = (&'static str, Vec<u8>, fn(&[u8]) -> bool);

fn cases() -> Vec<Case> {
    let mut world = World::new();
    let credential = world.alice.credential(1_000).encode();
    let profile = world.profile().octets().to_vec();
    let details = details(&mut world).octets().to_vec();
    let deep = world.deepest();
    let receipts = receipts(&world);
    let rotation = Rotation::sign(&world.alice, &world.bob, 1_000);
    vec![
        ("credential", credential, |o| Credential::parse(o).is_ok()),
        ("profile", profile, |o| Profile::parse(o).is_ok()),
        ("details", details, |o| SealedDetails::parse(o).is_ok()),
        (
            "group-details",
            group_details(&mut world).octets().to_vec(),
            |o| GroupDetails::parse(o).is_ok(),
        ),
        ("placement", placement(&world).octets().to_vec(), |o| {
            Placement::parse(o).is_ok()
        }),
        ("descriptor", world.descriptor.octets().to_vec(), |o| {
            Descriptor::parse(o).is_ok()
        }),
        ("invite", world.invite.octets().to_vec(), |o| {
            Invite::parse(o).is_ok()
        }),
        ("membership", world.membership.octets().to_vec(), |o| {
            Membership::parse(o).is_ok()
        }),
        ("membership-of-4", deep.octets().to_vec(), |o| {
            Membership::parse(o).is_ok()
        }),
        ("revocation", revocation(&world).octets().to_vec(), |o| {
            RevocationList::parse(o).is_ok()
        }),
        ("receipts", receipts.octets().to_vec(), |o| {
            Receipts::parse(o).is_ok()
        }),
        ("hand-overs", handovers(&world).octets().to_vec(), |o| {
            Handovers::parse(o).is_ok()
        }),
        ("rotation", rotation.octets().to_vec(), |o| {
            Rotation::parse(o).is_ok()
        }),
    ]
}

#[test]
fn encodings_are_golden() {
    for (name, octets, accepts) in cases() {
        assert!(accepts(&octets), "{name}");
        golden(name, &octets);
    }
    let world = World::new();
    golden("prekey-store", &world.prekeys.encode());
    golden("node-id", world.alice.node_id().as_str().as_bytes());
    golden("cluster-id", world.descriptor.cluster().as_str().as_bytes());
}

#[test]
fn every_truncation_is_refused() {
    for (name, octets, accepts) in cases() {
        for len in 0..octets.len() {
            assert!(!accepts(&octets[..len]), "{name} cut to {len}");
        }
    }
}

#[test]
fn octets_that_follow_are_refused() {
    for (name, mut octets, accepts) in cases() {
        octets.push(0);
        assert!(!accepts(&octets), "{name}");
    }
}

#[test]
fn every_flip_of_one_bit_is_refused() {
    for (name, mut octets, accepts) in cases() {
        for bit in 0..octets.len() * 8 {
            octets[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepts(&octets), "{name}, bit {bit}");
            octets[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn no_structure_is_taken_for_another() {
    let cases = cases();
    for (name, octets, _) in &cases {
        for (other, _, accepts) in &cases {
            let same = name.starts_with("membership") && other.starts_with("membership");
            assert_eq!(accepts(octets), same || name == other, "{name} as {other}");
        }
    }
}

#[test]
fn all_but_details_fit_a_control_line() {
    for (name, octets, _) in cases() {
        assert!(octets.len() <= 4_096 || name.ends_with("details"), "{name}");
    }
    let world = World::new();
    let ids: Vec<_> = (0..=MAX_ENTRIES)
        .map(|n| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&n.to_be_bytes());
            SecretIdentity::from_seed(&seed).node_id()
        })
        .collect();
    let mut details = RevocationDetails {
        cluster: world.descriptor.hash(),
        version: 1,
        removed: ids[..MAX_ENTRIES].to_vec(),
        invites: Vec::new(),
        kept: Vec::new(),
    };
    let list = RevocationList::sign(&world.alice, &details).unwrap();
    assert!(list.octets().len() <= 4_096);
    assert_eq!(RevocationList::parse(list.octets()).unwrap(), list);
    details.kept = ids[MAX_ENTRIES..].to_vec();
    assert!(matches!(
        RevocationList::sign(&world.alice, &details),
        Err(BuildError::TooLong { found: 241, .. })
    ));
}

#[test]
fn receipts_and_rotations_have_their_lengths() {
    let cases = cases();
    let len = |wanted| {
        let case = cases.iter().find(|(name, ..)| *name == wanted).unwrap();
        case.1.len()
    };
    assert_eq!(len("receipts"), RECEIPTS_FIXED + 3 * STATEMENT_LEN);
    assert_eq!(len("rotation"), ROTATION_LEN);
    assert_eq!(len("credential"), vmdt_seal::identity::CREDENTIAL_LEN);
    assert!(len("membership-of-4") <= vmdt_seal::invite::MEMBERSHIP_MAX_LEN);
}

#[test]
fn receipts_have_1_to_64_statements_in_one_order() {
    let world = World::new();
    let sign = |all: &[Statement]| Receipts::sign(&world.bob, world.alice.node_id(), 1_000, all);
    assert!(matches!(sign(&[]), Err(BuildError::Value { .. })));
    let many: Vec<Statement> = (0..=MAX_STATEMENTS as u8)
        .map(|at| Statement {
            message: vmdt_wire::MessageId::from_random([at; 12]),
            fact: Fact::Delivered,
            digest: [at; 32],
        })
        .collect();
    assert!(matches!(
        sign(&many),
        Err(BuildError::TooLong { found: 65, .. })
    ));
    let most = sign(&many[1..]).unwrap();
    assert_eq!(most.octets().len(), RECEIPTS_MAX_LEN);
    const { assert!(RECEIPTS_MAX_LEN <= 4_096, "a control line holds them") };
    assert_eq!(Receipts::parse(most.octets()).unwrap(), most);

    // whatever order they are given in, they have one encoding
    let mut backwards = statements();
    backwards.reverse();
    assert_eq!(sign(&backwards).unwrap(), receipts(&world));
    let twice = [statements(), statements()].concat();
    assert_eq!(sign(&twice).unwrap(), receipts(&world));
    // and no other is read, though it were signed
    let mut swapped = receipts(&world).octets().to_vec();
    let first = RECEIPTS_FIXED - 64;
    let (a, b) = (first, first + STATEMENT_LEN);
    for at in 0..STATEMENT_LEN {
        swapped.swap(a + at, b + at);
    }
    assert!(matches!(
        Receipts::parse(&swapped),
        Err(vmdt_seal::error::VerifyError::Parse(
            vmdt_seal::error::ParseError::Order { .. }
        ))
    ));
}

#[test]
fn receipts_name_what_they_confirm() {
    let world = World::new();
    let octets = receipts(&world).octets().to_vec();
    let first = RECEIPTS_FIXED - 64 + 16;
    for (what, index) in [(0, 2), (4, 2), (1, 0), (2, 0), (3, 1)] {
        let mut octets = octets.clone();
        octets[first] = what;
        octets[first + 1] = index;
        assert!(
            matches!(
                Receipts::parse(&octets),
                Err(vmdt_seal::error::VerifyError::Parse(
                    vmdt_seal::error::ParseError::Value { .. }
                ))
            ),
            "{what} of {index}"
        );
    }
}

#[test]
fn node_ids_have_the_mark_and_90_bits_of_the_hash() {
    let id = World::new().alice.node_id();
    assert!(id.is_sealed());
    assert_eq!(id.as_str().len(), 16);
    let key = World::new().alice.public();
    let hash = blake3::derive_key("vmdt 1.1 node id", key.as_octets());
    let text = data_encoding::BASE64URL_NOPAD.encode(&hash);
    assert_eq!(&id.as_str()[1..], &text[..15]);
}

#[test]
fn keys_of_small_order_and_second_forms_are_refused() {
    let mut identity_point = [0; 32];
    identity_point[0] = 1;
    let mut order_two = [0xff; 32];
    order_two[0] = 0xec;
    order_two[31] = 0x7f;
    // y = p + 1, a second form of the neutral element.
    let mut second_form = [0xff; 32];
    second_form[0] = 0xee;
    second_form[31] = 0x7f;
    for octets in [[0; 32], identity_point, order_two, second_form] {
        assert_eq!(
            PublicIdentity::from_octets(octets),
            Err(KeyError::NotAPoint)
        );
    }
}

#[test]
fn public_keys_have_a_text_and_a_der_form() {
    let world = World::new();
    let key = world.alice.public();
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!("AAAA".parse::<PublicIdentity>(), Err(KeyError::Text));
    assert_eq!(PublicIdentity::from_spki_der(&key.spki_der()), Ok(key));
    assert_eq!(
        PublicIdentity::from_spki_der(&key.spki_der()[1..]),
        Err(KeyError::Spki)
    );
    let der = world.alice.pkcs8_der();
    assert_eq!(der.len(), 48);
    assert_eq!(der[16..], *world.alice.seed());
}

#[test]
fn a_profile_of_another_node_is_refused() {
    let world = World::new();
    let profile = world.profile();
    let expected = world.bob.node_id();
    assert_eq!(
        Profile::parse_of(expected, profile.octets()),
        Err(VerifyError::OtherNode {
            found: world.alice.node_id(),
            expected,
        })
    );
    assert!(Profile::parse_of(world.alice.node_id(), profile.octets()).is_ok());
}

#[test]
fn the_newer_profile_of_the_same_node_replaces() {
    let world = World::new();
    let sign = |identity: &SecretIdentity, version| {
        let prekey = world.prekeys.current().public();
        Profile::sign(identity, &ProfileDetails::default(), prekey, version).unwrap()
    };
    let old = sign(&world.alice, 5);
    assert!(sign(&world.alice, 6).replaces(&old));
    assert!(!sign(&world.alice, 5).replaces(&old));
    assert!(!sign(&world.alice, 4).replaces(&old));
    assert!(!sign(&world.bob, 6).replaces(&old));
}

#[test]
fn profiles_beyond_their_bounds_are_not_made() {
    let world = World::new();
    let sign = |details: &ProfileDetails| {
        Profile::sign(&world.alice, details, world.prekeys.current().public(), 1)
    };
    let address = "[2001:db8::1]:9".parse().unwrap();
    let most = ProfileDetails {
        name: "n".repeat(64),
        addresses: vec![address; 8],
        capabilities: vec!["abcdefghijklmno1".into(); 16],
    };
    let profile = sign(&most).unwrap();
    assert!(profile.octets().len() <= 1_024);
    assert_eq!(Profile::parse(profile.octets()).unwrap(), profile);
    for wrong in [
        ProfileDetails {
            name: "n".repeat(65),
            ..most.clone()
        },
        ProfileDetails {
            name: "a\u{202e}b".into(),
            ..most.clone()
        },
        ProfileDetails {
            name: "a\nb".into(),
            ..most.clone()
        },
        ProfileDetails {
            addresses: vec![address; 9],
            ..most.clone()
        },
        ProfileDetails {
            capabilities: vec!["a".into(); 17],
            ..most.clone()
        },
        ProfileDetails {
            capabilities: vec!["Mailbox".into()],
            ..most.clone()
        },
        ProfileDetails {
            capabilities: vec![String::new()],
            ..most
        },
    ] {
        assert!(sign(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_descriptor_with_other_thresholds_is_another_cluster() {
    let mut world = World::new();
    let other = DescriptorDetails {
        k: 3,
        n: 3,
        options: 0,
        name: "friends".into(),
        created_ms: 1,
    };
    let other = Descriptor::sign(&world.alice, &other, &mut world.rng).unwrap();
    assert_ne!(other.cluster(), world.descriptor.cluster());
    assert!(Descriptor::parse_of(world.descriptor.cluster(), other.octets()).is_err());
    assert_eq!(
        ClusterHash::of_id(other.cluster()),
        Some(other.hash()),
        "an id is the text of its hash"
    );
    assert_eq!(ClusterHash::of_id("cluster_1".parse().unwrap()), None);
    for (k, n) in [(0, 3), (1, 3), (4, 3)] {
        let details = DescriptorDetails {
            k,
            n,
            options: 0,
            name: String::new(),
            created_ms: 1,
        };
        assert!(Descriptor::sign(&world.alice, &details, &mut world.rng).is_err());
    }
}

#[test]
fn details_open_at_the_receiver_and_nowhere_else() {
    let mut world = World::new();
    let details = details(&mut world);
    let read = SealedDetails::parse(details.octets()).unwrap();
    assert_eq!(read.sender(), world.alice.public());
    assert_eq!(read.receiver(), world.bob.public());
    let prekey = world.prekeys.find(read.context().prekey_id).unwrap();
    let secret = e2e::decapsulate(prekey, read.context(), read.encapsulated()).unwrap();
    assert_eq!(**read.open_label(&secret).unwrap(), *b"report.pdf");
    let holder = e2e::TransferSecret::from_octets(&[0; 32]);
    assert_eq!(read.open_label(&holder), Err(DetailsError::Label));
    let seen = read.octets().windows(6).any(|octets| octets == b"report");
    assert!(!seen, "holders must not see the label");
}

#[test]
fn details_and_manifest_must_speak_of_the_same() {
    let mut world = World::new();
    let right = context(&world);
    let manifest = manifest(&mut world, &right);
    let sign = |sender: &SecretIdentity, context: &TransferContext| {
        SealedDetails::sign(sender, context, Encapsulated([1; 32]), &manifest, 0, None)
    };
    assert!(sign(&world.alice, &right).is_ok());
    for (wrong, field) in [
        (
            TransferContext {
                sender: world.carol.public(),
                ..right
            },
            "sender",
        ),
        (
            TransferContext {
                receiver: world.carol.public(),
                ..right
            },
            "recipient",
        ),
        (
            TransferContext {
                transfer: [6; 16],
                ..right
            },
            "message id",
        ),
    ] {
        assert_eq!(
            sign(&world.alice, &wrong),
            Err(DetailsError::Mismatch { field })
        );
    }
    assert_eq!(
        sign(&world.carol, &right),
        Err(DetailsError::Mismatch { field: "sender" })
    );
}

#[test]
fn a_transfer_secret_depends_on_all_of_its_context() {
    let mut world = World::new();
    let right = context(&world);
    let prekey = world.prekeys.current().clone();
    let (encapsulated, secret) =
        e2e::encapsulate(&prekey.public(), &right, &mut world.rng).unwrap();
    let same = e2e::decapsulate(&prekey, &right, &encapsulated).unwrap();
    assert_eq!(same.as_octets(), secret.as_octets());
    assert_ne!(secret.segment(0).as_octets(), secret.segment(1).as_octets());
    for wrong in [
        TransferContext {
            sender: world.carol.public(),
            ..right
        },
        TransferContext {
            receiver: world.carol.public(),
            ..right
        },
        TransferContext {
            transfer: [6; 16],
            ..right
        },
    ] {
        let other = e2e::decapsulate(&prekey, &wrong, &encapsulated).unwrap();
        assert_ne!(other.as_octets(), secret.as_octets());
    }
    let other_prekey = TransferContext {
        prekey_id: right.prekey_id.wrapping_add(1),
        ..right
    };
    assert!(e2e::decapsulate(&prekey, &other_prekey, &encapsulated).is_err());
    assert!(e2e::decapsulate(&prekey, &right, &Encapsulated([0; 32])).is_err());
    let small = PublicPrekey {
        public: [0; 32],
        ..prekey.public()
    };
    assert!(e2e::encapsulate(&small, &right, &mut world.rng).is_err());
}

#[test]
fn the_higher_version_of_a_placement_replaces() {
    let world = World::new();
    let holders = [(index(1), world.bob.node_id())];
    let sign =
        |sender, message, version| Placement::sign(sender, message, version, &holders).unwrap();
    let old = sign(&world.alice, message(), 4);
    assert!(sign(&world.alice, message(), 5).replaces(&old));
    assert!(!sign(&world.alice, message(), 4).replaces(&old));
    assert!(!sign(&world.bob, message(), 5).replaces(&old));
    assert!(!sign(&world.alice, MessageId::from_random([8; 12]), 5).replaces(&old));
    assert!(Placement::sign(&world.alice, message(), 1, &[]).is_err());
    let twice = [holders[0], (index(1), world.carol.node_id())];
    assert!(Placement::sign(&world.alice, message(), 1, &twice).is_err());
    let placement = placement(&world);
    assert_eq!(placement.holder_of(index(1)), Some(world.carol.node_id()));
    assert_eq!(placement.holder_of(index(3)), None);
}

#[test]
fn rotations_are_followed_in_any_order() {
    let world = World::new();
    let ab = Rotation::sign(&world.alice, &world.bob, 1);
    let bc = Rotation::sign(&world.bob, &world.carol, 2);
    let ca = Rotation::sign(&world.carol, &world.alice, 3);
    let ac = Rotation::sign(&world.alice, &world.carol, 4);
    let from = world.alice.public();
    let to = follow(from, &[bc.clone(), ab.clone()]);
    assert_eq!(to, Ok(world.carol.public()));
    assert_eq!(follow(from, &[]), Ok(from));
    assert_eq!(
        follow(from, &[ab.clone(), ac]),
        Err(RotationError::Fork { key: from })
    );
    let round = follow(from, &[ab.clone(), bc, ca]);
    assert!(matches!(round, Err(RotationError::Loop { .. })));
    assert_eq!(
        follow(from, &vec![ab; 17]),
        Err(RotationError::TooMany { found: 17 })
    );
}

#[test]
fn a_prekey_is_forgotten_when_nothing_sealed_to_it_can_wait() {
    let mut world = World::new();
    let day = 86_400_000;
    let mut store = world.prekeys.clone();
    let first = store.current().public();
    assert!(first.is_usable(7 * day - 1));
    assert!(!first.is_usable(7 * day));
    assert_eq!(store.next_change_ms(), day);
    for now in 1..=30 {
        assert!(!store.rotate(now * day - 1, &mut world.rng));
        assert!(store.rotate(now * day, &mut world.rng));
        store.expire(now * day);
        assert_eq!(store.find(first.id).is_some(), now < 14);
        assert!(store.count() <= 15);
    }
    let read = PrekeyStore::parse(&store.encode()).unwrap();
    assert_eq!(*read.encode(), *store.encode());
    assert_eq!(read.current().public(), store.current().public());
}

#[test]
fn a_clock_set_back_makes_a_new_prekey_and_the_store_stays_bounded() {
    let mut world = World::new();
    let mut store = PrekeyStore::new(Default::default(), u64::MAX, &mut world.rng);
    assert!(store.rotate(5, &mut world.rng));
    for _ in 0..1_000 {
        store.replace(5, &mut world.rng);
    }
    assert_eq!(store.count(), 64);
    let octets = store.encode();
    assert!(PrekeyStore::parse(&octets).is_ok());
    for len in 0..octets.len() {
        assert!(PrekeyStore::parse(&octets[..len]).is_err());
    }
}

#[test]
fn errors_name_the_field_and_the_offset() {
    let world = World::new();
    let octets = world.profile().octets().clone();
    assert_eq!(
        Profile::parse(&octets[..141]),
        Err(VerifyError::Parse(ParseError::Truncated {
            field: "version",
            offset: 140,
        }))
    );
    let mut other = octets.to_vec();
    other[1] = 2;
    assert_eq!(
        Profile::parse(&other),
        Err(VerifyError::Parse(ParseError::Value {
            field: "format",
            offset: 1,
            found: 2,
            allowed: "1",
        }))
    );
}

proptest! {
    #[test]
    fn any_profile_round_trips(
        name in "[a-zA-Z é雪]{0,20}",
        addresses in prop::collection::vec(any::<std::net::SocketAddr>(), 0..=8),
        words in prop::collection::vec("[a-z0-9-]{1,16}", 0..=16),
        version: u64,
    ) {
        let world = World::new();
        // Scope ids and flow labels mean nothing at another node and are not carried.
        let addresses = addresses
            .into_iter()
            .map(|a| std::net::SocketAddr::new(a.ip(), a.port()))
            .collect();
        let details = ProfileDetails { name, addresses, capabilities: words };
        let prekey = world.prekeys.current().public();
        let profile = Profile::sign(&world.alice, &details, prekey, version).unwrap();
        let read = Profile::parse(profile.octets()).unwrap();
        prop_assert_eq!(read.details(), &details);
        prop_assert_eq!(read, profile);
    }

    #[test]
    fn any_placement_round_trips(
        holders in prop::collection::btree_map(1..=255_u8, 0..3_usize, 1..=255),
        version: u32,
    ) {
        let world = World::new();
        let nodes = [&world.alice, &world.bob, &world.carol].map(SecretIdentity::node_id);
        let holders: Vec<_> = holders
            .into_iter()
            .map(|(at, node)| (index(at), nodes[node]))
            .collect();
        let placement = Placement::sign(&world.alice, message(), version, &holders).unwrap();
        prop_assert_eq!(Placement::parse(placement.octets()).unwrap(), placement);
    }

    #[test]
    fn garbage_is_refused_without_panic(octets in prop::collection::vec(any::<u8>(), 0..600), kind in 0..12_usize) {
        let kinds = b"CPKALDIMXROH";
        let mut octets = octets;
        octets.splice(0..0, [kinds[kind], 1]);
        prop_assert!(Credential::parse(&octets).is_err());
        prop_assert!(Profile::parse(&octets).is_err());
        prop_assert!(PrekeyStore::parse(&octets).is_err());
        prop_assert!(SealedDetails::parse(&octets).is_err());
        prop_assert!(Placement::parse(&octets).is_err());
        prop_assert!(Descriptor::parse(&octets).is_err());
        prop_assert!(Invite::parse(&octets).is_err());
        prop_assert!(Membership::parse(&octets).is_err());
        prop_assert!(RevocationList::parse(&octets).is_err());
        prop_assert!(Receipts::parse(&octets).is_err());
        prop_assert!(Handovers::parse(&octets).is_err());
        prop_assert!(Rotation::parse(&octets).is_err());
    }
}
