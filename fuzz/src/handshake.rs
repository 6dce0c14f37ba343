//! Target for the handshake of profile 1.1.

use arbitrary::{Result, Unstructured};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_seal::cookie::{COOKIE_LEN, Cookie};
use vmdt_seal::session::{
    Answered, Initiator, Local, MESSAGE_MAX_LEN, OFFER_MIN_LEN, OfferView, Pattern, Responder,
    Step, Suites, message_type,
};

use crate::sealed::person;

/// The two sides' keys, and their choices.
pub(crate) struct Sides {
    pub(crate) alice: Local,
    pub(crate) bob: Local,
    pub(crate) rng: ChaCha20Rng,
}

impl Sides {
    pub(crate) fn new() -> Sides {
        Sides {
            alice: Local::new(person(1), 1),
            bob: Local::new(person(2), 1),
            rng: ChaCha20Rng::from_seed([7; 32]),
        }
    }

    /// Alice begins; the same each time.
    pub(crate) fn offer(&mut self, pattern: Pattern) -> Initiator {
        let known = (pattern == Pattern::Ik).then(|| self.bob.credential());
        let peer = self.bob.node_id();
        Initiator::new(
            &self.alice,
            peer,
            known,
            Suites::ALL,
            b"alice's",
            &mut self.rng,
        )
        .expect("an offer")
    }
}

/// Handshake messages, in one of two ways that the first octet chooses.
///
/// - The input to whoever reads messages: a session comes of the true answers alone, which are in
///   the corpus, and an offer that is read is bounded and has one digest.
/// - A handshake in which the input alters messages on the way: no altered answer or confirmation
///   is accepted, and however many false ones came, below the bound, the true one is accepted
///   after them, with the same keys on both sides.
pub fn session_messages(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let pattern = if choice & 2 == 0 {
        Pattern::Xx
    } else {
        Pattern::Ik
    };
    match choice % 2 {
        0 => any_message(rest, pattern),
        _ => {
            let _ = altered_handshake(&mut Unstructured::new(rest), pattern);
        }
    }
}

fn any_message(data: &[u8], pattern: Pattern) {
    let mut sides = Sides::new();
    let _ = message_type(data);
    if let Ok(offer) = OfferView::parse(data) {
        assert!(data.len() <= MESSAGE_MAX_LEN + COOKIE_LEN);
        assert!(data.len() >= OFFER_MIN_LEN);
        assert!(offer.restart_message().len() <= data.len());
        let cookie = offer.cookie_message(&Cookie([1; COOKIE_LEN]));
        assert!(cookie.len() <= data.len());
        let digest = offer.digest();
        assert_eq!(
            OfferView::parse(data).map(|again| again.digest()),
            Ok(digest)
        );
        let peer = sides.alice.node_id();
        if let Ok(responder) = Responder::read(&sides.bob, peer, &offer, &mut sides.rng)
            && let Ok((answer, answered)) = responder.answer(Suites::ALL, b"bob's")
        {
            assert!(answer.len() <= MESSAGE_MAX_LEN);
            assert!(answer.len() < 3 * data.len());
            if let Answered::Waiting(mut waiting) = answered {
                assert!(waiting.read(data).is_err(), "an offer confirms nothing");
            }
        }
    }
    let mut initiator = sides.offer(pattern);
    let before = initiator.offer().to_vec();
    match initiator.read(data, &mut sides.rng) {
        Ok(Step::OfferAgain) => {
            let offer = OfferView::parse(initiator.offer()).expect("an offer");
            assert!(offer.cookie().is_some() || offer.pattern() == Pattern::Xx);
        }
        // the corpus holds the true answers, and they alone are accepted
        Ok(Step::Established(established)) => {
            assert_eq!(established.peer.node_id(), sides.bob.node_id());
            assert!(established.params.is_empty());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(initiator.offer(), before);
        }
    }
}

fn altered_handshake(input: &mut Unstructured<'_>, pattern: Pattern) -> Result<()> {
    let mut sides = Sides::new();
    let mut initiator = sides.offer(pattern);
    let alice = sides.alice.node_id();
    let offer = initiator.offer().to_vec();

    // a responder that the altered offer reaches: it may answer, but nobody believes it
    let other = altered(input, &offer)?;
    if other != offer
        && let Ok(view) = OfferView::parse(&other)
        && let Ok(responder) = Responder::read(&sides.bob, alice, &view, &mut sides.rng)
        && let Ok((answer, _)) = responder.answer(Suites::ALL, b"bob's")
    {
        // a cookie is no part of what is agreed on
        let true_offer = OfferView::parse(&offer).expect("an offer");
        if view.digest() != true_offer.digest() {
            let step = initiator.read(&answer, &mut sides.rng);
            assert!(step.is_err(), "an altered offer was answered");
        }
    }

    let view = OfferView::parse(&offer).expect("an offer");
    let responder = Responder::read(&sides.bob, alice, &view, &mut sides.rng).expect("read");
    let (answer, answered) = responder.answer(Suites::ALL, b"bob's").expect("answered");
    for _ in 0..input.int_in_range(0..=3)? {
        let other = altered(input, &answer)?;
        if other != answer {
            let step = initiator.read(&other, &mut sides.rng);
            assert!(
                !matches!(step, Ok(Step::Established(_))),
                "an altered answer"
            );
            if step.is_ok() {
                // it was taken for a cookie or a restart, whose octets nobody signs
                return Ok(());
            }
        }
    }
    let Ok(Step::Established(at_alice)) = initiator.read(&answer, &mut sides.rng) else {
        panic!("the true answer is refused");
    };
    assert_eq!(at_alice.params, b"bob's");
    assert_eq!(at_alice.peer.node_id(), sides.bob.node_id());
    let at_bob = match answered {
        Answered::Established(established) => *established,
        Answered::Waiting(mut waiting) => {
            let confirm = at_alice.confirm.clone().expect("XX is confirmed");
            for _ in 0..input.int_in_range(0..=3)? {
                let other = altered(input, &confirm)?;
                if other != confirm {
                    assert!(waiting.read(&other).is_err(), "an altered confirmation");
                }
            }
            waiting.read(&confirm).expect("the true confirmation")
        }
    };
    assert_eq!(at_bob.params, b"alice's");
    assert_eq!(at_bob.peer.node_id(), alice);
    assert_eq!(at_bob.keys.binding(), at_alice.keys.binding());
    Ok(())
}

/// A message with some octets changed, cut or appended.
fn altered(input: &mut Unstructured<'_>, octets: &[u8]) -> Result<Vec<u8>> {
    let mut octets = octets.to_vec();
    for _ in 0..input.int_in_range(1..=3)? {
        if octets.is_empty() {
            break;
        }
        let at = input.choose_index(octets.len())?;
        match input.int_in_range(0..=3)? {
            0 => octets.truncate(at),
            1 => octets.push(input.arbitrary()?),
            _ => octets[at] ^= input.arbitrary::<u8>()?,
        }
    }
    Ok(octets)
}
