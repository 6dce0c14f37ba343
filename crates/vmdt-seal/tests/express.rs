//! Express: any k pieces of a message open it, for its receiver and nobody else, and nothing that
//! was altered, mixed or moved is taken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{World, golden};
use proptest::prelude::*;
use vmdt_seal::e2e::E2eError;
use vmdt_seal::error::{ParseError, VerifyError};
use vmdt_seal::express::{
    Channel, MAX_PLAIN, OPENING_LEN, OpenError, Opening, PIECE_FIXED, Piece, PieceError, PieceHead,
    SealError,
};
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_ssms::Threshold;
use vmdt_ssms::dispersal::Code;

const NOT_AFTER: u64 = 3_600_000;

fn opening(world: &mut World) -> (Opening, Channel) {
    let prekey = world.prekeys.current().public();
    let receiver = world.bob.public();
    Opening::sign(&world.alice, receiver, &prekey, NOT_AFTER, &mut world.rng).unwrap()
}

/// Both ends of a pair.
fn pair(world: &mut World) -> (Channel, Channel) {
    let (opening, at_alice) = opening(world);
    let opening = Opening::parse(opening.octets()).unwrap();
    let at_bob = opening.accept(world.prekeys.current()).unwrap();
    (at_alice, at_bob)
}

fn code(k: u8, n: u8) -> Code {
    Code::new(Threshold::new(k, n).unwrap())
}

fn check(channel: &Channel, pieces: &[Bytes]) -> Vec<Piece> {
    pieces.iter().map(|p| channel.check(p).unwrap()).collect()
}

#[test]
fn openings_and_pieces_have_golden_octets() {
    let mut world = World::new();
    let (opening, channel) = opening(&mut world);
    golden("express-opening", opening.octets());
    assert_eq!(opening.octets().len(), OPENING_LEN);
    let pieces = channel
        .seal(&code(2, 3), 7, b"hello", &mut world.rng)
        .unwrap();
    for (number, piece) in pieces.iter().enumerate() {
        golden(&format!("express-piece-{}", number + 1), piece);
        assert_eq!(piece.len(), Channel::piece_len(5, 2));
    }
    assert_eq!(
        PieceHead::read(&pieces[0]),
        Some(PieceHead {
            opening: opening.id(),
            counter: 7
        })
    );
    assert_eq!(PieceHead::read(&pieces[0][..7]), None);
}

#[test]
fn an_opening_says_whose_it_is() {
    let mut world = World::new();
    let (opening, channel) = opening(&mut world);
    assert_eq!(opening.sender(), world.alice.public());
    assert_eq!(opening.receiver(), world.bob.public());
    assert_eq!(opening.prekey_id(), world.prekeys.current().public().id);
    assert_eq!(opening.not_after_ms(), NOT_AFTER);
    assert_eq!(opening.id(), channel.id());
    assert_eq!(Opening::parse(opening.octets()).unwrap(), opening);
}

#[test]
fn an_opening_with_any_octet_altered_is_refused() {
    let mut world = World::new();
    let (opening, _) = opening(&mut world);
    for at in 0..OPENING_LEN {
        let mut other = opening.octets().to_vec();
        other[at] ^= 1;
        assert!(Opening::parse(&other).is_err(), "{at}");
    }
    for cut in 0..OPENING_LEN {
        assert!(Opening::parse(&opening.octets()[..cut]).is_err(), "{cut}");
    }
    let longer = [opening.octets(), &[0][..]].concat();
    assert_eq!(
        Opening::parse(&longer),
        Err(VerifyError::Parse(ParseError::Trailing { count: 1 }))
    );
}

#[test]
fn an_opening_is_accepted_with_its_own_prekey_only() {
    let mut world = World::new();
    let (opening, at_alice) = opening(&mut world);
    let mut later = PrekeyStore::new(PrekeyConfig::default(), 0, &mut world.rng);
    let wanted = opening.prekey_id();
    if later.current().public().id == wanted {
        later.rotate(u64::MAX / 4, &mut world.rng);
    }
    let given = later.current().public().id;
    let error = opening.accept(later.current()).unwrap_err();
    assert_eq!(error, E2eError::OtherPrekey { given, wanted });
    let at_bob = opening.accept(world.prekeys.current()).unwrap();
    let pieces = at_alice.seal(&code(2, 2), 0, b"x", &mut world.rng).unwrap();
    assert!(at_bob.check(&pieces[0]).is_ok());
}

#[test]
fn every_k_of_n_open_a_message_and_fewer_do_not() {
    let mut world = World::new();
    let (at_alice, at_bob) = pair(&mut world);
    for (k, n) in [(2, 2), (2, 3), (3, 6), (5, 5)] {
        let plain: Vec<u8> = (0..100).collect();
        let sealed = at_alice
            .seal(&code(k, n), 1, &plain, &mut world.rng)
            .unwrap();
        for set in 0..1u32 << n {
            let chosen: Vec<Bytes> = (0..n)
                .filter(|i| set >> i & 1 == 1)
                .map(|i| sealed[usize::from(i)].clone())
                .collect();
            let opened = at_bob.open(&check(&at_bob, &chosen));
            let (given, needed) = (chosen.len(), usize::from(k));
            if given >= needed {
                assert_eq!(opened.unwrap(), plain);
            } else if given > 0 {
                assert_eq!(opened, Err(OpenError::TooFew { given, needed }));
            } else {
                assert!(opened.is_err());
            }
        }
    }
}

#[test]
fn the_same_piece_twice_counts_once() {
    let mut world = World::new();
    let (at_alice, at_bob) = pair(&mut world);
    let sealed = at_alice.seal(&code(2, 3), 1, b"x", &mut world.rng).unwrap();
    let twice = check(&at_bob, &[sealed[0].clone(), sealed[0].clone()]);
    let few = OpenError::TooFew {
        given: 1,
        needed: 2,
    };
    assert_eq!(at_bob.open(&twice), Err(few));
}

#[test]
fn pieces_of_two_messages_do_not_mix() {
    let mut world = World::new();
    let (at_alice, at_bob) = pair(&mut world);
    let one = at_alice.seal(&code(2, 3), 1, b"x", &mut world.rng).unwrap();
    let two = at_alice.seal(&code(2, 3), 2, b"x", &mut world.rng).unwrap();
    let mixed = check(&at_bob, &[one[0].clone(), two[1].clone()]);
    assert_eq!(at_bob.open(&mixed), Err(OpenError::Mixed));
    // a sender that makes two messages of one counter gets neither through
    let other = at_alice.seal(&code(2, 3), 1, b"y", &mut world.rng).unwrap();
    let mixed = check(&at_bob, &[one[0].clone(), other[1].clone()]);
    assert_eq!(at_bob.open(&mixed), Err(OpenError::Sealed));
}

#[test]
fn a_piece_of_another_pair_or_opening_is_refused() {
    let mut world = World::new();
    let (at_alice, at_bob) = pair(&mut world);
    let (other, _) = pair(&mut world);
    let sealed = other.seal(&code(2, 3), 1, b"x", &mut world.rng).unwrap();
    let error = at_bob.check(&sealed[0]).unwrap_err();
    let (found, expected) = (other.id(), at_bob.id());
    assert_eq!(error, PieceError::OtherOpening { found, expected });
    // and under a false name
    let mut renamed = sealed[0].to_vec();
    renamed[..4].copy_from_slice(&at_alice.id().to_be_bytes());
    assert_eq!(
        at_bob.check(&renamed.into()).unwrap_err(),
        PieceError::Tag,
        "the tag is under the pair's key"
    );
}

#[test]
fn what_is_too_long_is_refused_and_the_longest_is_not() {
    let mut world = World::new();
    let (at_alice, at_bob) = pair(&mut world);
    let longest = vec![7; MAX_PLAIN];
    let sealed = at_alice
        .seal(&code(2, 3), 1, &longest, &mut world.rng)
        .unwrap();
    assert_eq!(at_bob.open(&check(&at_bob, &sealed)).unwrap(), longest);
    let longer = vec![7; MAX_PLAIN + 1];
    let error = at_alice.seal(&code(2, 3), 1, &longer, &mut world.rng);
    let found = MAX_PLAIN + 1;
    assert_eq!(error.unwrap_err(), SealError::TooLong { found });
}

#[test]
fn each_field_of_a_piece_has_its_bounds() {
    let mut world = World::new();
    let (at_alice, at_bob) = pair(&mut world);
    let sealed = at_alice.seal(&code(2, 3), 1, b"x", &mut world.rng).unwrap();
    let field = |at: usize, value: u8| {
        let mut piece = sealed[0].to_vec();
        piece[at] = value;
        match at_bob.check(&piece.into()) {
            Err(PieceError::Parse(ParseError::Value { field, .. })) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(field(8, 0), "index");
    assert_eq!(field(8, 4), "index");
    assert_eq!(field(9, 1), "k and n");
    assert_eq!(field(10, 1), "k and n");
    assert_eq!(field(11, 1), "flags");
    let mut short = sealed[0][..PIECE_FIXED].to_vec();
    short[12..14].copy_from_slice(&[0, 0]);
    assert!(matches!(
        at_bob.check(&short.into()),
        Err(PieceError::Parse(ParseError::Value { field: "size", .. }))
    ));
}

proptest! {
    #[test]
    fn an_altered_piece_is_refused(
        plain in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<proptest::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut world = World::new();
        let (at_alice, at_bob) = pair(&mut world);
        let sealed = at_alice.seal(&code(3, 5), 9, &plain, &mut world.rng).unwrap();
        let mut piece = sealed[4].to_vec();
        let at = at.index(piece.len());
        piece[at] ^= 1 << bit;
        prop_assert!(at_bob.check(&piece.into()).is_err());
        prop_assert!(at_bob.check(&sealed[4].slice(..at)).is_err());
    }

    #[test]
    fn whatever_is_sealed_is_opened(
        plain in proptest::collection::vec(any::<u8>(), 0..3000),
        counter in any::<u32>(),
        k in 2u8..8,
        more in 0u8..5,
    ) {
        let mut world = World::new();
        let (at_alice, at_bob) = pair(&mut world);
        let sealed = at_alice.seal(&code(k, k + more), counter, &plain, &mut world.rng).unwrap();
        prop_assert!(sealed.iter().all(|p| p.len() == Channel::piece_len(plain.len(), k)));
        let last = &sealed[usize::from(more)..];
        let pieces = check(&at_bob, last);
        prop_assert!(pieces.iter().all(|p| p.counter() == counter));
        prop_assert_eq!(at_bob.open(&pieces).unwrap(), plain);
    }

    #[test]
    fn arbitrary_octets_are_no_piece(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::new();
        let (_, at_bob) = pair(&mut world);
        prop_assert!(at_bob.check(&octets.into()).is_err());
    }
}

#[test]
fn debug_shows_no_key_share_and_no_content() {
    let mut world = World::new();
    let (at_alice, at_bob) = pair(&mut world);
    let plain = [0xab; 64];
    let sealed = at_alice
        .seal(&code(2, 3), 1, &plain, &mut world.rng)
        .unwrap();
    let piece = at_bob.check(&sealed[0]).unwrap();
    let share = &sealed[0][14..46];
    for text in [format!("{piece:?}"), format!("{at_bob:?}")] {
        let list: Vec<String> = share[..8].iter().map(u8::to_string).collect();
        assert!(!text.contains(&list.join(", ")), "{text}");
        assert!(text.len() < 200, "{text}");
    }
}
