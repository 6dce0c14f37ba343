//! How people come to belong: trust, tickets, spoken codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{EXPIRES, World, golden, terms};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_seal::code::{
    Code, CodeError, FINISH_LEN, PLAIN_MAX_LEN, Pake, Role, SEALED_MAX_LEN, START_LEN, completions,
    suggest,
};
use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::invite::{Invite, InviteError, InviteTerms, MAX_CHAIN, Rights};
use vmdt_seal::membership::{Membership, MembershipError};
use vmdt_seal::revocation::{RevocationDetails, RevocationList};
use vmdt_seal::rotation::Rotation;
use vmdt_seal::ticket::{ServerAddress, Ticket, TicketError};
use vmdt_seal::trust::{Admitted, ClusterTrust, TrustError};

fn list(world: &World, version: u64) -> RevocationDetails {
    RevocationDetails {
        cluster: world.descriptor.hash(),
        version,
        removed: Vec::new(),
        invites: Vec::new(),
        kept: Vec::new(),
    }
}

#[test]
fn creator_invite_member_is_a_chain_that_everybody_can_check() {
    let mut world = World::new();
    let deepest = world.deepest();
    assert_eq!(deepest.depth(), MAX_CHAIN);
    assert_eq!(deepest.root(), world.alice.public());
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    assert_eq!(trust.rights(world.alice.node_id()), Some(Rights::ALL));
    assert_eq!(trust.admit(&world.membership), Ok(Admitted::New));
    assert_eq!(trust.admit(&world.membership), Ok(Admitted::Known));
    assert_eq!(trust.admit(&deepest), Ok(Admitted::New));
    let own = Membership::of_creator(&world.alice, &world.descriptor, 1).unwrap();
    assert_eq!(Membership::parse(own.octets()).unwrap(), own);
    assert_eq!(trust.admit(&own), Ok(Admitted::Known));
    assert!(trust.is_member(world.bob.node_id()));
    assert_eq!(trust.key(world.bob.node_id()), Some(world.bob.public()));
    assert!(!trust.is_member(world.carol.node_id()));
    assert_eq!(trust.members().count(), 2);
    let issuer = SecretIdentity::from_seed(&[6; 32]);
    let further = Invite::issue(
        &issuer,
        Some(&deepest),
        &world.descriptor,
        &terms(Rights::MEMBER),
        &mut world.rng,
    );
    assert_eq!(further.unwrap_err(), InviteError::ChainTooLong);
}

#[test]
fn a_server_can_make_no_member() {
    let mut world = World::new();
    let server = SecretIdentity::from_seed(&[66; 32]);
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    // A cluster of its own, and a certificate of itself as if it had created this one.
    let details = DescriptorDetails {
        k: 2,
        n: 3,
        options: 0,
        name: "friends".into(),
        created_ms: 1,
    };
    let other = Descriptor::sign(&server, &details, &mut world.rng).unwrap();
    let foreign = Membership::of_creator(&server, &other, 1).unwrap();
    assert_eq!(trust.admit(&foreign), Err(TrustError::OtherCluster));
    assert!(Membership::of_creator(&server, &world.descriptor, 1).is_err());
    let invited = Invite::issue(
        &server,
        None,
        &world.descriptor,
        &terms(Rights::MEMBER),
        &mut world.rng,
    );
    assert_eq!(invited.unwrap_err(), InviteError::NotAMember);
    // Bob's certificate does not serve the server.
    let borrowed = Invite::issue(
        &server,
        Some(&world.membership),
        &world.descriptor,
        &terms(Rights::MEMBER),
        &mut world.rng,
    );
    assert_eq!(borrowed.unwrap_err(), InviteError::NotAMember);
    let mut secret = world.secret.seed().to_owned();
    secret[0] ^= 1;
    let secret = vmdt_seal::invite::InviteSecret::from_seed(&secret);
    let guessed = Membership::accept(&world.invite, &secret, server.public(), 1);
    assert_eq!(guessed.unwrap_err(), MembershipError::OtherSecret);
}

#[test]
fn nobody_gives_rights_that_it_does_not_have() {
    let mut world = World::new();
    let (plain, secret) = Invite::issue(
        &world.alice,
        None,
        &world.descriptor,
        &terms(Rights::MEMBER),
        &mut world.rng,
    )
    .unwrap();
    let member = Membership::accept(&plain, &secret, world.carol.public(), 2_000).unwrap();
    let refused = Invite::issue(
        &world.carol,
        Some(&member),
        &world.descriptor,
        &terms(Rights::MEMBER),
        &mut world.rng,
    );
    assert_eq!(refused.unwrap_err(), InviteError::Rights);
    let more = Invite::issue(
        &world.bob,
        Some(&world.membership),
        &world.descriptor,
        &terms(Rights::from_bits(7)),
        &mut world.rng,
    );
    assert_eq!(more.unwrap_err(), InviteError::Rights);
}

#[test]
fn an_invite_expires_and_is_used_up_for_those_who_join_now() {
    let mut world = World::new();
    let limited = InviteTerms {
        max_uses: 1,
        ..terms(Rights::MEMBER)
    };
    let (invite, secret) = Invite::issue(
        &world.alice,
        None,
        &world.descriptor,
        &limited,
        &mut world.rng,
    )
    .unwrap();
    let join = |who: &SecretIdentity, when| {
        Membership::accept(&invite, &secret, who.public(), when).unwrap()
    };
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    let bob = join(&world.bob, 5_000);
    let id = world.bob.node_id();
    assert_eq!(
        trust.admit_joining(&bob, EXPIRES),
        Err(TrustError::InviteExpired { id })
    );
    let far = join(&world.bob, 0);
    assert_eq!(trust.admit_joining(&far, EXPIRES - 1), Ok(Admitted::New));
    assert_eq!(trust.admit_joining(&bob, 5_000), Ok(Admitted::Updated));
    assert_eq!(
        trust.admit_joining(&join(&world.carol, 5_000), 5_000),
        Err(TrustError::InviteUsedUp {
            id: world.carol.node_id()
        })
    );
    let late = join(&world.carol, EXPIRES);
    assert_eq!(
        trust.admit(&late),
        Err(TrustError::InviteExpired {
            id: world.carol.node_id()
        })
    );
}

#[test]
fn a_newcomer_with_a_wrong_clock_is_told_so() {
    let mut world = World::new();
    let open = InviteTerms {
        expires_ms: u64::MAX,
        ..terms(Rights::MEMBER)
    };
    let (invite, secret) =
        Invite::issue(&world.alice, None, &world.descriptor, &open, &mut world.rng).unwrap();
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    let id = world.bob.node_id();
    let join = |when| Membership::accept(&invite, &secret, world.bob.public(), when).unwrap();
    let now = 1 << 40;
    for when in [now - 3_600_001, now + 3_600_001] {
        assert_eq!(
            trust.admit_joining(&join(when), now),
            Err(TrustError::Clock { id })
        );
    }
    assert_eq!(trust.admit_joining(&join(now + 1), now), Ok(Admitted::New));
}

#[test]
fn who_is_removed_stays_out_with_those_it_invited() {
    let mut world = World::new();
    let bob = world.bob.clone();
    let chain = world.membership.clone();
    let dave = SecretIdentity::from_seed(&[4; 32]);
    let erin = SecretIdentity::from_seed(&[5; 32]);
    let by_bob = world.invited_by(&bob, &chain, &dave);
    let kept = world.invited_by(&bob, &chain, &erin);
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    for membership in [&world.membership, &by_bob, &kept] {
        assert_eq!(trust.admit(membership), Ok(Admitted::New));
    }
    let mut details = list(&world, 1);
    details.removed = vec![bob.node_id()];
    details.kept = vec![erin.node_id()];
    let revocation = RevocationList::sign(&world.alice, &details).unwrap();
    let mut expected = vec![bob.node_id(), dave.node_id()];
    expected.sort_unstable();
    assert_eq!(trust.revoke(&revocation), Ok(expected));
    assert_eq!(trust.revoke(&revocation), Ok(Vec::new()));
    assert!(trust.is_member(erin.node_id()));
    assert_eq!(
        trust.admit(&world.membership),
        Err(TrustError::Removed { id: bob.node_id() })
    );
    assert_eq!(
        trust.admit(&by_bob),
        Err(TrustError::InviteVoid { id: dave.node_id() })
    );
}

#[test]
fn a_void_invite_makes_no_members_whatever_the_date() {
    let world = World::new();
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    trust.admit(&world.membership).unwrap();
    let mut details = list(&world, 3);
    details.invites = vec![world.invite.id()];
    details.kept = vec![world.bob.node_id()];
    let revocation = RevocationList::sign(&world.alice, &details).unwrap();
    assert_eq!(trust.revoke(&revocation), Ok(Vec::new()));
    let thief = Membership::accept(&world.invite, &world.secret, world.carol.public(), 1).unwrap();
    assert!(matches!(
        trust.admit(&thief),
        Err(TrustError::InviteVoid { .. })
    ));
    assert!(trust.is_member(world.bob.node_id()));
}

#[test]
fn only_the_creators_newest_list_counts() {
    let world = World::new();
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    let sign = |who: &SecretIdentity, details: &RevocationDetails| {
        RevocationList::sign(who, details).unwrap()
    };
    assert!(matches!(
        trust.revoke(&sign(&world.bob, &list(&world, 1))),
        Err(TrustError::NotFromCreator { .. })
    ));
    trust.revoke(&sign(&world.alice, &list(&world, 5))).unwrap();
    assert_eq!(
        trust.revoke(&sign(&world.alice, &list(&world, 4))),
        Err(TrustError::OldRevocation { found: 4, known: 5 })
    );
    let mut fork = list(&world, 5);
    fork.removed = vec![world.bob.node_id()];
    assert_eq!(
        trust.revoke(&sign(&world.alice, &fork)),
        Err(TrustError::RevocationFork { version: 5 })
    );
    let mut creator = list(&world, 6);
    creator.removed = vec![world.alice.node_id()];
    trust.revoke(&sign(&world.alice, &creator)).unwrap();
    assert!(trust.is_member(world.alice.node_id()), "it is the root");
}

#[test]
fn a_new_key_has_the_place_of_the_old_one() {
    let world = World::new();
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    let rotation = Rotation::sign(&world.bob, &world.carol, 1);
    assert_eq!(trust.rotate(&rotation), Err(TrustError::UnknownKey));
    trust.admit(&world.membership).unwrap();
    trust.rotate(&rotation).unwrap();
    trust.rotate(&rotation).unwrap();
    assert!(!trust.is_member(world.bob.node_id()));
    assert_eq!(trust.key(world.carol.node_id()), Some(world.carol.public()));
    let id = world.bob.node_id();
    assert_eq!(
        trust.admit(&world.membership),
        Err(TrustError::KeyChanged { id })
    );
    assert!(!trust.is_member(world.bob.node_id()));
    let mut details = list(&world, 1);
    details.removed = vec![world.carol.node_id()];
    let revocation = RevocationList::sign(&world.alice, &details).unwrap();
    assert_eq!(trust.revoke(&revocation), Ok(vec![world.carol.node_id()]));
    assert_eq!(
        trust.rotate(&rotation),
        Err(TrustError::Removed {
            id: world.carol.node_id()
        })
    );
    assert!(!trust.is_member(world.carol.node_id()));

    let new = SecretIdentity::from_seed(&[9; 32]);
    trust
        .rotate(&Rotation::sign(&world.alice, &new, 1))
        .unwrap();
    assert_eq!(trust.rights(new.node_id()), Some(Rights::ALL));
}

#[test]
fn a_membership_goes_on_under_the_keys_its_member_changes_to() {
    let world = World::new();
    let (bob, dave) = (&world.bob, SecretIdentity::from_seed(&[9; 32]));
    let first = Rotation::sign(bob, &world.carol, 1);
    let second = Rotation::sign(&world.carol, &dave, 2);
    let moved = world.membership.clone().with_change(&first).unwrap();
    let moved = Membership::parse(moved.octets()).unwrap();
    assert_eq!(moved.member(), world.carol.public());
    assert_eq!(moved.first_key(), bob.public());
    let twice = moved.clone().with_change(&second).unwrap();
    assert_eq!(Membership::parse(twice.octets()).unwrap(), twice);

    // to who knew the old key, and to who did not
    for known in [true, false] {
        let mut trust = ClusterTrust::new(world.descriptor.clone());
        if known {
            assert_eq!(trust.admit(&world.membership), Ok(Admitted::New));
        }
        let expected = if known {
            Admitted::Updated
        } else {
            Admitted::New
        };
        assert_eq!(trust.admit(&moved), Ok(expected));
        assert_eq!(trust.admit(&moved), Ok(Admitted::Known));
        assert!(!trust.is_member(bob.node_id()));
        assert_eq!(trust.key(world.carol.node_id()), Some(world.carol.public()));
        // the old certificate is worth nothing now, to a thief of the old key neither
        let id = bob.node_id();
        assert_eq!(
            trust.admit(&world.membership),
            Err(TrustError::KeyChanged { id })
        );
        let thief = Rotation::sign(bob, &dave, 3);
        let stolen = world.membership.clone().with_change(&thief).unwrap();
        assert!(trust.admit(&stolen).is_err(), "one key has one successor");
        assert!(!trust.is_member(dave.node_id()));
        assert_eq!(trust.admit(&twice), Ok(Admitted::Updated));
        assert!(!trust.is_member(world.carol.node_id()));
        assert!(trust.is_member(dave.node_id()));
        // who removes any of its ids removes the member
        let mut details = list(&world, 1);
        details.removed = vec![bob.node_id()];
        let revocation = RevocationList::sign(&world.alice, &details).unwrap();
        assert_eq!(trust.revoke(&revocation), Ok(vec![dave.node_id()]));
        assert!(matches!(
            trust.admit(&twice),
            Err(TrustError::Removed { .. })
        ));
    }
}

#[test]
fn a_member_that_changed_its_key_need_not_have_a_fresh_invite() {
    let world = World::new();
    let mut trust = ClusterTrust::new(world.descriptor.clone());
    let late = world.invite.terms().expires_ms + 1;
    let change = Rotation::sign(&world.bob, &world.carol, late);
    let moved = world.membership.clone().with_change(&change).unwrap();
    assert!(matches!(
        trust.admit_joining(&moved, late),
        Err(TrustError::InviteExpired { .. })
    ));
    trust.admit(&world.membership).unwrap();
    assert_eq!(trust.admit_joining(&moved, late), Ok(Admitted::Updated));
}

#[test]
fn changes_of_key_behind_a_membership_follow_each_other() {
    let world = World::new();
    let error = |octets: &[u8]| Membership::parse(octets).unwrap_err();
    let ab = Rotation::sign(&world.alice, &world.bob, 1);
    let bc = Rotation::sign(&world.bob, &world.carol, 1);
    let cb = Rotation::sign(&world.carol, &world.bob, 1);
    let with = |changes: &[&Rotation]| {
        let mut octets = world.membership.octets().to_vec();
        for change in changes {
            octets.extend_from_slice(change.octets());
        }
        octets
    };
    assert!(Membership::parse(&with(&[&bc])).is_ok());
    for wrong in [&[&ab][..], &[&bc, &bc], &[&bc, &cb]] {
        assert_eq!(error(&with(wrong)), MembershipError::Changes);
    }
    // a forged one: the old key did not sign
    let mut forged = with(&[&bc]);
    let at = world.membership.octets().len() + 2 + 32 + 32 + 8;
    forged[at] ^= 1;
    assert!(matches!(error(&forged), MembershipError::Verify(_)));
    // so many and no more
    let keys: Vec<SecretIdentity> = (50..60)
        .map(|seed| SecretIdentity::from_seed(&[seed; 32]))
        .collect();
    let mut chain = vec![Rotation::sign(&world.bob, &keys[0], 1)];
    chain.extend(keys.windows(2).map(|w| Rotation::sign(&w[0], &w[1], 1)));
    let most: Vec<&Rotation> = chain
        .iter()
        .take(vmdt_seal::membership::MAX_CHANGES)
        .collect();
    assert!(Membership::parse(&with(&most)).is_ok());
    let more: Vec<&Rotation> = chain.iter().take(most.len() + 1).collect();
    assert_eq!(error(&with(&more)), MembershipError::Changes);
}

#[test]
fn members_are_bounded() {
    let world = World::new();
    let mut trust = ClusterTrust::new(world.descriptor.clone()).with_max_members(1);
    trust.admit(&world.membership).unwrap();
    let carol = Membership::accept(&world.invite, &world.secret, world.carol.public(), 1).unwrap();
    assert_eq!(trust.admit(&carol), Err(TrustError::Full { most: 1 }));
}

fn ticket(world: &World) -> Ticket {
    let servers = vec![
        "vmdt.example:7000".parse().unwrap(),
        "192.0.2.1:7000".parse().unwrap(),
        "[2001:db8::1]:7000".parse().unwrap(),
    ];
    Ticket::new(
        servers,
        world.carol.public(),
        world.invite.clone(),
        world.secret.clone(),
    )
    .unwrap()
}

#[test]
fn a_ticket_is_one_line_and_survives_case_and_line_breaks() {
    let world = World::new();
    let ticket = ticket(&world);
    let text = ticket.encode();
    golden("ticket", text.as_bytes());
    assert!(text.starts_with("vmdt1"));
    assert!(text.bytes().all(|octet| octet.is_ascii_alphanumeric()));
    let mut broken = text.to_ascii_uppercase();
    broken.insert_str(60, "\r\n  ");
    for text in [text.as_str(), &broken] {
        let read: Ticket = text.parse().unwrap();
        assert_eq!(read.encode(), ticket.encode());
        assert_eq!(read.cluster(), world.descriptor.cluster());
        assert_eq!(read.server_key(), world.carol.public());
        assert_eq!(read.servers(), ticket.servers());
        assert_eq!(read.invite(), &world.invite);
        let joined =
            Membership::accept(read.invite(), read.secret(), world.carol.public(), 1).unwrap();
        let mut trust = ClusterTrust::new(world.descriptor.clone());
        assert_eq!(trust.admit(&joined), Ok(Admitted::New));
    }
    let short = Ticket::new(
        vec!["192.0.2.1:7000".parse().unwrap()],
        world.carol.public(),
        world.invite.clone(),
        world.secret.clone(),
    );
    assert!(short.unwrap().encode().len() <= 320);
}

#[test]
fn a_ticket_of_a_member_holds_its_chain() {
    let mut world = World::new();
    let bob = world.bob.clone();
    let (invite, secret) = Invite::issue(
        &bob,
        Some(&world.membership),
        &world.descriptor,
        &terms(Rights::MEMBER),
        &mut world.rng,
    )
    .unwrap();
    let servers = vec!["192.0.2.1:7000".parse().unwrap()];
    let ticket = Ticket::new(servers, world.carol.public(), invite, secret).unwrap();
    let read: Ticket = ticket.encode().parse().unwrap();
    assert_eq!(read.invite().root(), world.alice.public());
    assert_eq!(read.invite().depth(), 2);
}

#[test]
fn every_typing_error_in_a_ticket_is_found() {
    let world = World::new();
    let text = ticket(&world).encode();
    for at in 0..text.len() {
        let mut octets = text.as_bytes().to_vec();
        octets[at] = if octets[at] == b'a' { b'b' } else { b'a' };
        let typo = String::from_utf8(octets).unwrap();
        let expected = if at < 5 {
            TicketError::NotATicket
        } else {
            TicketError::Checksum
        };
        assert_eq!(typo.parse::<Ticket>().unwrap_err(), expected, "at {at}");
        let error = text[..at].parse::<Ticket>().unwrap_err();
        assert!(matches!(
            error,
            TicketError::NotATicket | TicketError::Checksum
        ));
    }
    let mut digit = text.to_string();
    digit.replace_range(9..10, "1");
    assert_eq!(
        digit.parse::<Ticket>().unwrap_err(),
        TicketError::Character { position: 10 }
    );
    assert!("vmdt1é".parse::<Ticket>().is_err());
    let long = "a".repeat(8_193);
    assert_eq!(
        long.parse::<Ticket>().unwrap_err(),
        TicketError::TooLong { found: 8_193 }
    );
}

#[test]
fn tickets_that_make_no_sense_are_not_made() {
    let world = World::new();
    let make = |servers: Vec<ServerAddress>| {
        let (invite, secret) = (world.invite.clone(), world.secret.clone());
        Ticket::new(servers, world.carol.public(), invite, secret)
    };
    let server: ServerAddress = "a.example:1".parse().unwrap();
    assert!(make(vec![]).is_err());
    assert!(make(vec![server.clone(); 4]).is_ok());
    assert!(make(vec![server; 5]).is_err());
    let odd = ServerAddress::Name {
        host: "a b".into(),
        port: 1,
    };
    assert!(make(vec![odd]).is_err());
    for bad in ["", "host", "host:", "host:99999", ":1", "a b:1", "a/b:1"] {
        assert!(bad.parse::<ServerAddress>().is_err(), "{bad}");
    }
    for good in ["a.example:1", "192.0.2.1:80", "[::1]:443"] {
        let address: ServerAddress = good.parse().unwrap();
        assert_eq!(address.to_string(), good);
    }
}

fn exchange(
    one: &Code,
    two: &Code,
) -> Result<(vmdt_seal::code::CodeChannel, vmdt_seal::code::CodeChannel), CodeError> {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let (opener, from_opener) = Pake::start(Role::Opener, one, &mut rng);
    let (joiner, from_joiner) = Pake::start(Role::Joiner, two, &mut rng);
    assert_eq!(
        (from_opener.len(), from_joiner.len()),
        (START_LEN, START_LEN)
    );
    let (opener, first) = opener.finish(&from_joiner)?;
    let (joiner, second) = joiner.finish(&from_opener)?;
    assert_eq!((first.len(), second.len()), (FINISH_LEN, FINISH_LEN));
    assert_ne!(first, second);
    let opener = opener.confirm(&second);
    let joiner = joiner.confirm(&first);
    assert_eq!(opener.is_ok(), joiner.is_ok(), "both sides see it");
    Ok((opener?, joiner?))
}

#[test]
fn the_same_code_makes_a_channel_and_another_is_void() {
    let code: Code = "7-bison-caravan".parse().unwrap();
    let (mut opener, mut joiner) = exchange(&code, &code).unwrap();
    let there = opener.seal(b"ticket").unwrap();
    assert_eq!(**joiner.open(&there).unwrap(), *b"ticket");
    assert_eq!(joiner.open(&there).unwrap_err(), CodeError::NotAuthentic);
    let back = joiner.seal(&[0; PLAIN_MAX_LEN]).unwrap();
    assert_eq!(back.len(), SEALED_MAX_LEN);
    assert_eq!(opener.open(&back).unwrap().len(), PLAIN_MAX_LEN);
    let found = PLAIN_MAX_LEN + 1;
    assert_eq!(
        opener.seal(&vec![0; found]).unwrap_err(),
        CodeError::TooLong { found }
    );
    assert_eq!(
        opener.open(&vec![0; SEALED_MAX_LEN + 1]).unwrap_err(),
        CodeError::Malformed
    );
    for other in ["7-bison-celebrate", "7-zulu-caravan", "8-bison-caravan"] {
        let other: Code = other.parse().unwrap();
        assert_eq!(
            exchange(&code, &other).err(),
            Some(CodeError::WrongCode),
            "{other}"
        );
    }
}

#[test]
fn ones_own_message_sent_back_is_refused() {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let code = Code::generate(1, &mut rng).unwrap();
    let (opener, message) = Pake::start(Role::Opener, &code, &mut rng);
    assert_eq!(opener.finish(&message).err(), Some(CodeError::Malformed));
    let (opener, _) = Pake::start(Role::Opener, &code, &mut rng);
    assert_eq!(opener.finish(&[0x42; 7]).err(), Some(CodeError::Malformed));
    let (opener, _) = Pake::start(Role::Opener, &code, &mut rng);
    let (_, from_joiner) = Pake::start(Role::Joiner, &code, &mut rng);
    let (confirming, own) = opener.finish(&from_joiner).unwrap();
    assert_eq!(confirming.confirm(&own).err(), Some(CodeError::WrongCode));
}

#[test]
fn codes_are_read_leniently_and_wrong_ones_say_where() {
    let code: Code = "7-bison-caravan".parse().unwrap();
    for text in ["7 bison caravan", " 7  Bison_CARAVAN\n", "07-bison-caravan"] {
        assert_eq!(text.parse(), Ok(code.clone()), "{text}");
    }
    assert_eq!(code.to_string(), "7-bison-caravan");
    for (text, error) in [
        ("", CodeError::Form),
        ("bison-caravan", CodeError::Form),
        ("7-bison", CodeError::Form),
        ("7-bison-caravan-zulu", CodeError::Form),
        ("x-bison-caravan", CodeError::Form),
        ("-7-bison+caravan", CodeError::Form),
        ("0-bison-caravan", CodeError::Number),
        ("10000-bison-caravan", CodeError::Number),
        ("7-caravan-bison", CodeError::UnknownWord { position: 1 }),
        ("7-bison-bison", CodeError::UnknownWord { position: 2 }),
    ] {
        assert_eq!(text.parse::<Code>(), Err(error), "{text}");
    }
    assert_eq!(suggest(1, "bisson"), Some("bison"));
    assert_eq!(suggest(2, "Carvan"), Some("caravan"));
    assert_eq!(suggest(1, "xylophone"), None);
    assert_eq!(suggest(3, "bison"), None);
    let found: Vec<_> = completions(1, "bl").collect();
    assert_eq!(found, ["blackjack", "blockade", "blowtorch", "bluebird"]);
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    assert_eq!(Code::generate(0, &mut rng), Err(CodeError::Number));
    assert_eq!(Code::generate(10_000, &mut rng), Err(CodeError::Number));
}

#[test]
fn the_words_are_two_lists_without_a_word_in_common() {
    let all: std::collections::BTreeSet<_> = completions(1, "").chain(completions(2, "")).collect();
    assert_eq!(all.len(), 512);
    assert!(
        all.iter()
            .all(|word| word.bytes().all(|octet| octet.is_ascii_lowercase()))
    );
}

proptest! {
    #[test]
    fn any_code_round_trips(number in 1..=9_999_u16, seed: [u8; 32]) {
        let code = Code::generate(number, &mut ChaCha20Rng::from_seed(seed)).unwrap();
        prop_assert_eq!(code.to_string().parse(), Ok(code));
    }

    #[test]
    fn any_text_is_read_without_panic(text in ".{0,80}") {
        let _ = text.parse::<Code>();
        prop_assert!(text.parse::<Ticket>().is_err());
        let marked = ["vmdt1", text.as_str()].concat();
        prop_assert!(marked.parse::<Ticket>().is_err());
        let _ = text.parse::<ServerAddress>();
        let _ = suggest(1, &text);
    }
}
