//! The handshake, with everybody who might meddle with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{base, golden};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use vmdt_seal::cookie::CookieJar;
use vmdt_seal::error::VerifyError;
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::packet::{OpenError, Suite};
use vmdt_seal::session::{
    Answered, AwaitConfirm, Crossing, Established, HandshakeError, Initiator, Local,
    MESSAGE_MAX_LEN, MessageType, OFFER_MIN_LEN, OfferView, Pattern, Responder, Step, Suites,
    crossing, message_type,
};

struct Pair {
    rng: ChaCha20Rng,
    alice: Local,
    bob: Local,
    carol: Local,
}

impl Pair {
    fn new() -> Self {
        let local = |seed| Local::new(SecretIdentity::from_seed(&[seed; 32]), 1_000);
        Self {
            rng: ChaCha20Rng::from_seed([9; 32]),
            alice: local(1),
            bob: local(2),
            carol: local(3),
        }
    }

    /// Alice offers Bob a session.
    fn offer(&mut self, pattern: Pattern, suites: Suites) -> Initiator {
        let known = (pattern == Pattern::Ik).then(|| self.bob.credential());
        let bob = self.bob.node_id();
        Initiator::new(
            &self.alice,
            bob,
            known,
            suites,
            b"from alice",
            &mut self.rng,
        )
        .unwrap()
    }

    /// What Bob makes of an offer that is said to be of Alice.
    fn answer(
        &mut self,
        offer: &[u8],
        suites: Suites,
    ) -> Result<(Vec<u8>, Answered), HandshakeError> {
        let view = OfferView::parse(offer)?;
        Responder::read(&self.bob, self.alice.node_id(), &view, &mut self.rng)?
            .answer(suites, b"from bob")
    }

    /// A whole handshake, and all its messages.
    fn complete(&mut self, pattern: Pattern, suites: Suites) -> Complete {
        let mut initiator = self.offer(pattern, suites);
        let offer = initiator.offer().to_vec();
        let (answer, answered) = self.answer(&offer, Suites::ALL).unwrap();
        let at_alice = established(initiator.read(&answer, &mut self.rng).unwrap());
        let at_bob = match answered {
            Answered::Established(established) => *established,
            Answered::Waiting(mut waiting) => {
                waiting.read(at_alice.confirm.as_ref().unwrap()).unwrap()
            }
        };
        Complete {
            offer,
            answer,
            at_alice,
            at_bob,
        }
    }
}

struct Complete {
    offer: Vec<u8>,
    answer: Vec<u8>,
    at_alice: Established,
    at_bob: Established,
}

fn established(step: Step) -> Established {
    match step {
        Step::Established(established) => *established,
        Step::OfferAgain => panic!("not established"),
    }
}

fn waiting(answered: Answered) -> AwaitConfirm {
    match answered {
        Answered::Waiting(waiting) => waiting,
        Answered::Established(_) => panic!("not XX"),
    }
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    [&[7; 80][..], payload].concat()
}

/// The same answer of the same Bob.
fn pair_again(offer: &[u8]) -> Answered {
    let mut pair = Pair::new();
    pair.offer(Pattern::Xx, Suites::ALL);
    pair.answer(offer, Suites::ALL).unwrap().1
}

const PATTERNS: [Pattern; 2] = [Pattern::Xx, Pattern::Ik];

#[test]
fn both_patterns_give_both_sides_the_same_keys_and_parameters() {
    let now = base();
    for pattern in PATTERNS {
        for (suites, suite) in [
            (Suites::ALL, Suite::Aes256Gcm),
            (Suites::AES, Suite::Aes256Gcm),
            (Suites::CHACHA, Suite::ChaCha20Poly1305),
        ] {
            let mut pair = Pair::new();
            let done = pair.complete(pattern, suites);
            assert_eq!(done.at_alice.peer, *pair.bob.credential());
            assert_eq!(done.at_bob.peer, *pair.alice.credential());
            assert_eq!(done.at_alice.params, b"from bob");
            assert_eq!(done.at_bob.params, b"from alice");
            assert_eq!(done.at_alice.confirm.is_some(), pattern == Pattern::Xx);
            assert_eq!(done.at_alice.keys.binding(), done.at_bob.keys.binding());
            assert_eq!(done.at_alice.keys.suite(), suite);
            let mut alice = done.at_alice.keys.into_packet_keys(now);
            let mut bob = done.at_bob.keys.into_packet_keys(now);
            for number in 0..3 {
                let mut there = datagram(b"there");
                alice.seal_datagram(now, number, &mut there).unwrap();
                assert_ne!(there[80..85], *b"there");
                assert_eq!(
                    bob.open_datagram(now, number, &mut there).unwrap(),
                    b"there"
                );
                let mut back = datagram(b"back");
                bob.seal_datagram(now, number, &mut back).unwrap();
                assert_eq!(
                    alice.open_datagram(now, number, &mut back).unwrap(),
                    b"back"
                );
            }
        }
    }
}

#[test]
fn handshakes_are_golden() {
    let now = base();
    for (pattern, name) in [(Pattern::Xx, "xx"), (Pattern::Ik, "ik")] {
        let done = Pair::new().complete(pattern, Suites::ALL);
        golden(&format!("{name}-offer"), &done.offer);
        golden(&format!("{name}-answer"), &done.answer);
        if let Some(confirm) = &done.at_alice.confirm {
            golden(&format!("{name}-confirm"), confirm);
        }
        golden(&format!("{name}-binding"), done.at_alice.keys.binding());
        let mut keys = done.at_alice.keys.into_packet_keys(now);
        let mut first = datagram(b"hello");
        keys.seal_datagram(now, 1, &mut first).unwrap();
        golden(&format!("{name}-datagram"), &first);
    }
    let chacha = Pair::new().complete(Pattern::Ik, Suites::CHACHA);
    let mut keys = chacha.at_alice.keys.into_packet_keys(now);
    let mut first = datagram(b"hello");
    keys.seal_datagram(now, 1, &mut first).unwrap();
    golden("ik-chacha-datagram", &first);
}

#[test]
fn every_flip_of_one_bit_ends_the_handshake() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let mut initiator = pair.offer(pattern, Suites::ALL);
        let offer = initiator.offer().to_vec();
        for bit in 0..offer.len() * 8 {
            let mut altered = offer.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            // An altered offer of XX is found out by the initiator.
            if let Ok((answer, _)) = pair.answer(&altered, Suites::ALL) {
                // Sixty-four failures end a machine.
                let mut initiator = pair.offer(pattern, Suites::ALL);
                let refused = initiator.read(&answer, &mut pair.rng);
                assert!(refused.is_err(), "{pattern:?} offer, bit {bit}");
            }
        }
        let mut pair = Pair::new();
        pair.offer(pattern, Suites::ALL);
        let (answer, answered) = pair.answer(&offer, Suites::ALL).unwrap();
        for bit in 0..answer.len() * 8 {
            let mut altered = answer.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let mut fresh = Pair::new().offer(pattern, Suites::ALL);
            assert_eq!(fresh.offer(), offer, "the same randomness, the same offer");
            let refused = fresh.read(&altered, &mut pair.rng);
            assert!(refused.is_err(), "{pattern:?} answer, bit {bit}");
        }
        if pattern == Pattern::Xx {
            let confirm = established(initiator.read(&answer, &mut pair.rng).unwrap())
                .confirm
                .unwrap();
            let mut machine = waiting(answered);
            for bit in 0..confirm.len() * 8 {
                if bit % 60 == 59 {
                    assert!(machine.read(&confirm).is_ok(), "forgeries spoil nothing");
                    machine = waiting(pair_again(&offer));
                }
                let mut altered = confirm.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                assert!(machine.read(&altered).is_err(), "confirm, bit {bit}");
            }
        }
    }
}

#[test]
fn truncations_and_garbage_are_refused() {
    let mut pair = Pair::new();
    for pattern in PATTERNS {
        let done = pair.complete(pattern, Suites::ALL);
        for len in 0..done.offer.len() {
            assert!(pair.answer(&done.offer[..len], Suites::ALL).is_err());
        }
        let mut initiator = pair.offer(pattern, Suites::ALL);
        for len in 0..done.answer.len().min(60) {
            assert!(initiator.read(&done.answer[..len], &mut pair.rng).is_err());
        }
    }
    for len in [0, 1, 5, 40, 255, 256, 300, MESSAGE_MAX_LEN, 1_500] {
        for kind in 0..=8 {
            let mut garbage = vec![0; len];
            pair.rng.fill_bytes(&mut garbage);
            if let Some(first) = garbage.first_mut() {
                *first = kind;
            }
            let mut initiator = pair.offer(Pattern::Ik, Suites::ALL);
            assert!(initiator.read(&garbage, &mut pair.rng).is_err());
            if let Some(cookie_len) = garbage.get_mut(1..5) {
                cookie_len.copy_from_slice(&[1, 0, 3, 0]);
            }
            // What looks like an offer of XX with parameters may be answered; nothing follows.
            if let Ok((_, answered)) = pair.answer(&garbage, Suites::ALL) {
                assert!(waiting(answered).read(&garbage).is_err());
            }
        }
    }
}

#[test]
fn a_downgrade_of_the_suites_offered_is_found_out() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let mut initiator = pair.offer(pattern, Suites::ALL);
        let mut offer = initiator.offer().to_vec();
        offer[3] = 2;
        assert_eq!(OfferView::parse(&offer).unwrap().suites(), Suites::CHACHA);
        match pair.answer(&offer, Suites::ALL) {
            Ok((answer, _)) => assert_eq!(
                initiator.read(&answer, &mut pair.rng).unwrap_err(),
                HandshakeError::NotAuthentic
            ),
            Err(error) => assert_eq!(error, HandshakeError::StaleKey),
        }
    }
}

#[test]
fn sides_without_a_common_suite_do_not_speak() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let offer = pair.offer(pattern, Suites::AES).offer().to_vec();
        let refused = pair.answer(&offer, Suites::CHACHA).unwrap_err();
        assert_eq!(refused, HandshakeError::NoSuite);
        let offer = pair
            .offer(pattern, Suites::from_bits(0x8000))
            .offer()
            .to_vec();
        let refused = pair.answer(&offer, Suites::ALL).unwrap_err();
        assert_eq!(refused, HandshakeError::NoSuite);
    }
}

#[test]
fn an_unknown_key_is_answered_with_a_restart_to_xx() {
    let mut pair = Pair::new();
    // Bob's key has changed: what Alice knows is another's, under Bob's id only in her book.
    let view_offer = pair.offer(Pattern::Ik, Suites::ALL);
    let offer = OfferView::parse(view_offer.offer()).unwrap();
    let refused = Responder::read(&pair.carol, pair.alice.node_id(), &offer, &mut pair.rng);
    assert_eq!(refused.unwrap_err(), HandshakeError::StaleKey);
    let restart = offer.restart_message();
    assert_eq!(message_type(&restart), Some(MessageType::Restart));

    let mut initiator = pair.offer(Pattern::Ik, Suites::ALL);
    let foreign = initiator.read(&restart, &mut pair.rng).unwrap_err();
    assert_eq!(foreign, HandshakeError::Unexpected, "of another offer");
    let restart = OfferView::parse(initiator.offer())
        .unwrap()
        .restart_message();
    let step = initiator.read(&restart, &mut pair.rng).unwrap();
    assert!(matches!(step, Step::OfferAgain));
    assert_eq!(initiator.pattern(), Pattern::Xx);
    let offer = initiator.offer().to_vec();
    assert!(
        initiator.read(&restart, &mut pair.rng).is_err(),
        "only once"
    );
    let (answer, answered) = pair.answer(&offer, Suites::ALL).unwrap();
    let at_alice = established(initiator.read(&answer, &mut pair.rng).unwrap());
    let at_bob = waiting(answered).read(&at_alice.confirm.unwrap()).unwrap();
    assert_eq!(at_bob.keys.binding(), at_alice.keys.binding());
}

#[test]
fn an_offer_comes_again_with_the_cookie_and_is_the_same() {
    let now = base();
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let mut jar = CookieJar::new(now, &mut pair.rng);
        let address = b"192.0.2.1:9";
        let mut initiator = pair.offer(pattern, Suites::ALL);
        let first = initiator.offer().to_vec();
        let view = OfferView::parse(&first).unwrap();
        assert_eq!(view.cookie(), None);
        let digest = view.digest();
        let cookie = jar.mint(now, address, &digest, &mut pair.rng);
        let asked = view.cookie_message(&cookie);
        assert_eq!(message_type(&asked), Some(MessageType::Cookie));
        let step = initiator.read(&asked, &mut pair.rng).unwrap();
        assert!(matches!(step, Step::OfferAgain));
        let again = initiator.offer().to_vec();
        let view = OfferView::parse(&again).unwrap();
        assert_eq!(view.digest(), digest);
        assert!(jar.verify(now, address, &digest, view.cookie().unwrap()));
        let (answer, _) = pair.answer(&again, Suites::ALL).unwrap();
        established(initiator.read(&answer, &mut pair.rng).unwrap());

        let mut other = pair.offer(pattern, Suites::ALL);
        let refused = other.read(&asked, &mut pair.rng).unwrap_err();
        assert_eq!(refused, HandshakeError::Unexpected, "who did not see it");
    }
}

#[test]
fn no_answer_is_three_times_as_long_as_the_offer() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let bob = pair.bob.node_id();
        let known = (pattern == Pattern::Ik).then(|| pair.bob.credential());
        let initiator =
            Initiator::new(&pair.alice, bob, known, Suites::ALL, b"", &mut pair.rng).unwrap();
        assert_eq!(initiator.offer().len(), OFFER_MIN_LEN);
        let view = OfferView::parse(initiator.offer()).unwrap();
        let responder =
            Responder::read(&pair.bob, pair.alice.node_id(), &view, &mut pair.rng).unwrap();
        // The most that can be answered, and the headers of 80 octets left out.
        let (answer, _) = responder.answer(Suites::ALL, &[0; 256]).unwrap();
        assert!(answer.len() <= 3 * OFFER_MIN_LEN);
        assert!(answer.len() <= MESSAGE_MAX_LEN);
        let jar_cookie = vmdt_seal::cookie::Cookie([0; 20]);
        assert!(view.cookie_message(&jar_cookie).len() < OFFER_MIN_LEN);
        assert!(view.restart_message().len() < OFFER_MIN_LEN);
        let unpadded = &initiator.offer()[..OFFER_MIN_LEN - 1];
        assert!(OfferView::parse(unpadded).is_err());
    }
}

#[test]
fn parameters_have_their_bound_and_the_longest_fit() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let bob = pair.bob.node_id();
        let known = (pattern == Pattern::Ik).then(|| pair.bob.credential());
        let long = [1; 257];
        let offer = |params: &[u8], rng: &mut ChaCha20Rng| {
            Initiator::new(&pair.alice, bob, known, Suites::ALL, params, rng)
        };
        let refused = offer(&long, &mut pair.rng).unwrap_err();
        assert_eq!(refused, HandshakeError::Params { found: 257 });
        let mut initiator = offer(&long[..256], &mut pair.rng).unwrap();
        let view = OfferView::parse(initiator.offer()).unwrap();
        let read = |rng: &mut ChaCha20Rng| {
            Responder::read(&pair.bob, pair.alice.node_id(), &view, rng).unwrap()
        };
        let refused = read(&mut pair.rng).answer(Suites::ALL, &long).unwrap_err();
        assert_eq!(refused, HandshakeError::Params { found: 257 });
        let (answer, _) = read(&mut pair.rng)
            .answer(Suites::ALL, &long[..256])
            .unwrap();
        let done = established(initiator.read(&answer, &mut pair.rng).unwrap());
        assert_eq!(done.params, long[..256]);
    }
}

#[test]
fn an_offer_sent_back_to_its_sender_leads_nowhere() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let mut initiator = pair.offer(pattern, Suites::ALL);
        let offer = initiator.offer().to_vec();
        assert_eq!(
            initiator.read(&offer, &mut pair.rng).unwrap_err(),
            HandshakeError::Unexpected
        );
        let view = OfferView::parse(&offer).unwrap();
        // Alice gets her own offer as if it were Bob's, and her own answer to it.
        let reflected = Responder::read(&pair.alice, pair.bob.node_id(), &view, &mut pair.rng);
        if let Ok(responder) = reflected {
            let (answer, _) = responder.answer(Suites::ALL, b"").unwrap();
            assert!(initiator.read(&answer, &mut pair.rng).is_err());
        }
        // And as if it were her own.
        let oneself = Responder::read(&pair.alice, pair.alice.node_id(), &view, &mut pair.rng);
        assert_eq!(oneself.unwrap_err(), HandshakeError::Oneself);
    }
    let mut pair = Pair::new();
    let (alice, id) = (pair.alice.clone(), pair.alice.node_id());
    let oneself = Initiator::new(&alice, id, None, Suites::ALL, b"", &mut pair.rng);
    assert_eq!(oneself.unwrap_err(), HandshakeError::Oneself);
}

#[test]
fn messages_of_another_handshake_are_refused() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let other = pair.complete(pattern, Suites::ALL);
        let mut initiator = pair.offer(pattern, Suites::ALL);
        let refused = initiator.read(&other.answer, &mut pair.rng).unwrap_err();
        assert_eq!(refused, HandshakeError::NotAuthentic);
        let offer = initiator.offer().to_vec();
        let (answer, answered) = pair.answer(&offer, Suites::ALL).unwrap();
        if let Answered::Waiting(mut waiting) = answered {
            let confirm = other.at_alice.confirm.unwrap();
            assert_eq!(
                waiting.read(&confirm).unwrap_err(),
                HandshakeError::NotAuthentic
            );
        }
        established(initiator.read(&answer, &mut pair.rng).unwrap());
    }
}

#[test]
fn packets_of_another_session_or_direction_do_not_open() {
    let now = base();
    let mut pair = Pair::new();
    let one = pair.complete(Pattern::Ik, Suites::ALL);
    let two = pair.complete(Pattern::Ik, Suites::ALL);
    let mut alice = one.at_alice.keys.into_packet_keys(now);
    let mut bob = one.at_bob.keys.into_packet_keys(now);
    let mut other = two.at_bob.keys.into_packet_keys(now);
    let mut sealed = datagram(b"hello");
    alice.seal_datagram(now, 1, &mut sealed).unwrap();
    for keys in [&mut other, &mut alice] {
        let mut copy = sealed.clone();
        let refused = keys.open_datagram(now, 1, &mut copy);
        assert_eq!(refused.unwrap_err(), OpenError::NotAuthentic);
    }
    assert!(bob.open_datagram(now, 1, &mut sealed).is_ok());
}

#[test]
fn a_recorded_handshake_played_again_opens_nothing() {
    let now = base();
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let recorded = pair.complete(pattern, Suites::ALL);
        let mut alice = recorded.at_alice.keys.into_packet_keys(now);
        let mut sealed = datagram(b"pay");
        alice.seal_datagram(now, 1, &mut sealed).unwrap();

        let (answer, answered) = pair.answer(&recorded.offer, Suites::ALL).unwrap();
        assert_ne!(answer, recorded.answer);
        match answered {
            Answered::Waiting(mut waiting) => {
                assert!(waiting.read(&recorded.at_alice.confirm.unwrap()).is_err());
            }
            Answered::Established(established) => {
                let mut bob = established.keys.into_packet_keys(now);
                assert!(bob.open_datagram(now, 1, &mut sealed).is_err());
            }
        }
    }
}

#[test]
fn who_answers_for_another_id_is_refused() {
    let mut pair = Pair::new();
    // Mallory (Carol) sits on the path and answers in Bob's place, with her own identity.
    let mut initiator = pair.offer(Pattern::Xx, Suites::ALL);
    let offer = initiator.offer().to_vec();
    let view = OfferView::parse(&offer).unwrap();
    let responder = Responder::read(&pair.carol, pair.alice.node_id(), &view, &mut pair.rng);
    // Her prologue would have to name her: both sides must see the same ids.
    let (answer, _) = responder.unwrap().answer(Suites::ALL, b"").unwrap();
    let refused = initiator.read(&answer, &mut pair.rng).unwrap_err();
    assert_eq!(refused, HandshakeError::NotAuthentic);
    // The true answer still counts.
    let (answer, _) = pair.answer(&offer, Suites::ALL).unwrap();
    established(initiator.read(&answer, &mut pair.rng).unwrap());
}

#[test]
fn who_offers_for_another_id_is_refused() {
    let mut pair = Pair::new();
    let (bob, carol) = (pair.bob.node_id(), pair.carol.clone());
    for known in [None, Some(*pair.bob.credential())] {
        let mut mallory =
            Initiator::new(&carol, bob, known.as_ref(), Suites::ALL, b"", &mut pair.rng).unwrap();
        let offer = mallory.offer().to_vec();
        // The header says it is Alice's.
        match pair.answer(&offer, Suites::ALL) {
            Ok((answer, _)) => {
                assert!(mallory.read(&answer, &mut pair.rng).is_err());
            }
            Err(error) => assert_eq!(error, HandshakeError::StaleKey),
        }
    }
}

#[test]
fn a_known_credential_must_be_the_peers() {
    let mut pair = Pair::new();
    let refused = Initiator::new(
        &pair.alice,
        pair.bob.node_id(),
        Some(pair.carol.credential()),
        Suites::ALL,
        b"",
        &mut pair.rng,
    );
    assert_eq!(
        refused.unwrap_err(),
        HandshakeError::Credential(VerifyError::OtherNode {
            found: pair.carol.node_id(),
            expected: pair.bob.node_id(),
        })
    );
}

#[test]
fn false_answers_do_not_spoil_the_true_one_until_there_are_64() {
    for pattern in PATTERNS {
        let mut pair = Pair::new();
        let mut initiator = pair.offer(pattern, Suites::ALL);
        let offer = initiator.offer().to_vec();
        let (answer, _) = pair.answer(&offer, Suites::ALL).unwrap();
        let mut forged = answer.clone();
        *forged.last_mut().unwrap() ^= 1;
        for _ in 0..63 {
            assert!(initiator.read(&forged, &mut pair.rng).is_err());
        }
        assert_eq!(initiator.offer(), offer);
        established(initiator.read(&answer, &mut pair.rng).unwrap());
        assert!(initiator.read(&forged, &mut pair.rng).is_err());
        assert_eq!(
            initiator.read(&answer, &mut pair.rng).unwrap_err(),
            HandshakeError::GivenUp
        );
    }
}

#[test]
fn of_crossing_offers_both_sides_choose_the_same() {
    let pair = Pair::new();
    let (alice, bob) = (pair.alice.node_id(), pair.bob.node_id());
    assert_ne!(crossing(alice, bob), crossing(bob, alice));
    let smaller = alice.min(bob);
    let larger = alice.max(bob);
    assert_eq!(crossing(smaller, larger), Crossing::OwnWins);
}

#[test]
fn message_types_are_told_by_the_first_octet() {
    let mut pair = Pair::new();
    for pattern in PATTERNS {
        let done = pair.complete(pattern, Suites::ALL);
        assert_eq!(message_type(&done.offer), Some(MessageType::Offer(pattern)));
        assert_eq!(
            message_type(&done.answer),
            Some(MessageType::Answer(pattern))
        );
        let confirm = done.at_alice.confirm.map(|octets| message_type(&octets));
        let expected = (pattern == Pattern::Xx).then_some(Some(MessageType::Confirm));
        assert_eq!(confirm, expected);
    }
    assert_eq!(message_type(&[]), None);
    assert_eq!(message_type(&[8]), None);
}
