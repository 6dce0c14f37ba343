//! Receipts as a sender takes them: only what can be true, each from who can know it.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use vmdt_testkit::Clock;

use std::time::Duration;

use super::super::statements::{INTERVAL, MAX_NODES, MAX_PENDING, PATIENCE};
use super::*;

fn person(seed: u8) -> SecretIdentity {
    SecretIdentity::generate(&mut ChaCha20Rng::from_seed([seed; 32]))
}

fn index(index: u8) -> NonZeroU8 {
    NonZeroU8::new(index).unwrap()
}

fn id(of: u8) -> MessageId {
    MessageId::from_random([of; 12])
}

/// A sender that has sent a transfer of two segments to Bob; Carol was given share 1 of both, Dave
/// share 2.
struct Scene {
    sender: NodeId,
    bob: SecretIdentity,
    carol: SecretIdentity,
    dave: SecretIdentity,
    receipts: Receipts,
}

const TRANSFER: u8 = 9;

impl Scene {
    fn new() -> Scene {
        let mut scene = Scene {
            sender: person(1).node_id(),
            bob: person(2),
            carol: person(3),
            dave: person(4),
            receipts: Receipts::default(),
        };
        scene.send(1, 0, false);
        scene.send(2, 1, true);
        scene
    }

    fn send(&mut self, message: u8, number: u32, last: bool) {
        let shares = [(index(1), [message; 32]), (index(2), [message + 100; 32])];
        let digests = Digests {
            manifest: [message + 200; 32],
            shares: shares.to_vec(),
        };
        let to = vec![self.bob.node_id()];
        self.receipts
            .remember_sent((id(TRANSFER), id(message)), to, (number, last), digests);
        self.receipts
            .given(id(message), index(1), self.carol.node_id());
        self.receipts
            .given(id(message), index(2), self.dave.node_id());
    }

    fn accept(&mut self, by: &SecretIdentity, what: &[Statement]) -> Result<usize, Refused> {
        let signed = Signed::sign(by, self.sender, 5, what).unwrap();
        self.accept_octets(by, signed.octets())
    }

    fn accept_octets(&mut self, by: &SecretIdentity, octets: &[u8]) -> Result<usize, Refused> {
        let (from, key) = (by.node_id(), Some(by.public()));
        let taken = self.receipts.accept(self.sender, from, key, octets)?;
        Ok(taken.len())
    }

    fn shown(&self) -> SignedReceipts {
        self.receipts.find(id(TRANSFER)).unwrap()
    }

    fn nothing_is_confirmed(&self) -> bool {
        let shown = self.shown();
        let mut shares = shown.segments.iter().flat_map(|s| &s.shares);
        shown.delivered.is_none()
            && shares.all(|share| share.taken.is_none() && share.handed_on.is_none())
    }
}

fn taken(message: u8, share: u8) -> Statement {
    Statement {
        message: id(message),
        fact: Fact::Taken(index(share)),
        digest: [message + 100 * (share - 1); 32],
    }
}

fn handed_on(message: u8, share: u8) -> Statement {
    Statement {
        fact: Fact::HandedOn(index(share)),
        ..taken(message, share)
    }
}

fn delivered(message: u8) -> Statement {
    Statement {
        message: id(message),
        fact: Fact::Delivered,
        digest: [message + 200; 32],
    }
}

#[test]
fn what_holders_and_the_addressee_confirm_is_shown_with_its_signature() {
    let mut scene = Scene::new();
    assert!(scene.nothing_is_confirmed());
    let (bob, carol, dave) = (scene.bob.clone(), scene.carol.clone(), scene.dave.clone());
    let both = [taken(1, 1), handed_on(1, 1), taken(2, 1)];
    assert_eq!(scene.accept(&carol, &both), Ok(0));
    assert_eq!(scene.accept(&dave, &[taken(1, 2)]), Ok(0));
    assert_eq!(scene.accept(&bob, &[delivered(2)]), Ok(1));

    let shown = scene.shown();
    assert_eq!((shown.to, shown.forgotten), (bob.node_id(), 0));
    let numbers: Vec<u32> = shown.segments.iter().map(|s| s.number).collect();
    assert_eq!(numbers, [0, 1]);
    let confirmed: Vec<(u8, NodeId, bool, bool)> = shown
        .segments
        .iter()
        .flat_map(|s| &s.shares)
        .map(|s| {
            let (taken, on) = (s.taken.is_some(), s.handed_on.is_some());
            (s.index.get(), s.holder, taken, on)
        })
        .collect();
    let (c, d) = (carol.node_id(), dave.node_id());
    assert_eq!(
        confirmed,
        [
            (1, c, true, true),
            (2, d, true, false),
            (1, c, true, false),
            (2, d, false, false)
        ]
    );
    // the proof stands by itself
    let proof = shown.delivered.clone().unwrap();
    let read = Signed::parse(&proof.receipts).unwrap();
    assert_eq!(read.signer(), bob.public());
    assert_eq!(read.statements(), [delivered(2)]);
    // a segment's id finds its transfer
    assert_eq!(scene.receipts.find(id(1)), Some(shown));
    // again changes nothing, and is no news
    assert_eq!(scene.accept(&bob, &[delivered(2)]), Ok(0));
}

#[test]
fn nobody_confirms_for_another() {
    let mut scene = Scene::new();
    let (bob, carol) = (scene.bob.clone(), scene.carol.clone());
    // Bob brings what he says Carol signed
    let mut forged = Signed::sign(&bob, scene.sender, 5, &[taken(1, 1)])
        .unwrap()
        .octets()
        .to_vec();
    assert_eq!(
        scene.accept_octets(&bob, &forged),
        Err(Refused::NotGiven),
        "he was not given it"
    );
    forged[2..34].copy_from_slice(carol.public().as_octets());
    assert_eq!(scene.accept_octets(&bob, &forged), Err(Refused::Signature));
    // what she did sign counts only from her
    let hers = Signed::sign(&carol, scene.sender, 5, &[taken(1, 1)]).unwrap();
    assert_eq!(
        scene.accept_octets(&bob, hers.octets()),
        Err(Refused::OtherKey)
    );
    // nor does a second key under her id
    let other = Some(scene.dave.public());
    let sender = scene.sender;
    let accepted = scene
        .receipts
        .accept(sender, carol.node_id(), other, hers.octets());
    assert_eq!(accepted, Err(Refused::OtherKey));
    let unknown = scene
        .receipts
        .accept(sender, carol.node_id(), None, hers.octets());
    assert_eq!(unknown, Err(Refused::OtherKey));
    // and no holder confirms the delivery
    assert_eq!(
        scene.accept(&carol, &[delivered(2)]),
        Err(Refused::NotGiven)
    );
    assert!(scene.nothing_is_confirmed());
    assert_eq!(scene.accept_octets(&carol, hers.octets()), Ok(0));
}

#[test]
fn what_was_not_given_or_is_another_share_is_refused_whole() {
    let (carol, bob) = (person(3), person(2));
    let wrong = Statement {
        digest: [77; 32],
        ..taken(2, 1)
    };
    for (by, said, why) in [
        (&carol, vec![taken(1, 1), taken(1, 2)], Refused::NotGiven),
        (
            &carol,
            vec![taken(1, 1), handed_on(2, 2)],
            Refused::NotGiven,
        ),
        (&carol, vec![taken(1, 1), wrong], Refused::Digest),
        (&bob, vec![delivered(1)], Refused::NotGiven),
        (
            &bob,
            vec![Statement {
                digest: [77; 32],
                ..delivered(2)
            }],
            Refused::Digest,
        ),
    ] {
        let mut scene = Scene::new();
        assert_eq!(scene.accept(by, &said), Err(why), "{said:?}");
        assert!(scene.nothing_is_confirmed(), "{said:?}");
    }
    let mut scene = Scene::new();
    let other = Signed::sign(&carol, bob.node_id(), 5, &[taken(1, 1)]).unwrap();
    assert_eq!(
        scene.accept_octets(&carol, other.octets()),
        Err(Refused::OtherSender)
    );
    // of what is not known any more nothing is taken, and nothing refused
    let old = Statement {
        message: id(77),
        ..taken(1, 1)
    };
    assert_eq!(scene.accept(&carol, &[old, taken(1, 1)]), Ok(0));
    assert!(!scene.nothing_is_confirmed());
}

#[test]
fn receipts_kept_are_bounded_and_the_oldest_go_first() {
    let mut receipts = Receipts::default();
    let to = person(2).node_id();
    let message = |at: u32| {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&at.to_be_bytes());
        MessageId::from_random(id)
    };
    let count = MAX_SHARES as u32 / 5 + 50;
    for at in 0..count {
        let shares = (1..=5).map(|i| (index(i), [i; 32])).collect();
        let manifest = [1; 32];
        receipts.remember_sent(
            (id(TRANSFER), message(at)),
            vec![to],
            (at, false),
            Digests { manifest, shares },
        );
    }
    assert!(receipts.shares <= MAX_SHARES);
    let shown = receipts.find(id(TRANSFER)).unwrap();
    assert_eq!(shown.segments.len() as u64 + shown.forgotten, count.into());
    assert_eq!(shown.segments.last().unwrap().number, count - 1);
    assert_eq!(u64::from(shown.segments[0].number), shown.forgotten);
    assert_eq!(receipts.by_message.len(), shown.segments.len());
    assert_eq!(receipts.find(message(0)), None);
}

#[test]
fn a_stream_of_statements_costs_five_signatures_a_second_and_what_they_fill() {
    let clock = Clock::new();
    let (me, sender) = (person(1), person(2).node_id());
    let mut receipts = Receipts::default();
    let start = clock.now();
    let mut signed = 0;
    let mut statements = 0;
    for ms in 0..10_000u64 {
        let now = start + Duration::from_millis(ms);
        if ms % 10 == 0 {
            let mut message = [0; 12];
            message[..8].copy_from_slice(&ms.to_be_bytes());
            let share = (MessageId::from_random(message), index(1));
            receipts.remember(share, sender, [1; 32]);
            receipts.stored(now, share.0, share.1);
        }
        if receipts.poll_timeout().is_some_and(|at| at <= now) {
            for (to, octets) in receipts.sign(now, ms, &me, false, |_| true) {
                assert_eq!(to, sender);
                statements += Signed::parse(&octets).unwrap().statements().len();
                signed += 1;
            }
        }
    }
    assert!((45..=51).contains(&signed), "{signed}");
    assert!((950..=1_000).contains(&statements), "{statements}");
}

#[test]
fn what_waits_to_be_signed_is_bounded() {
    let clock = Clock::new();
    let (me, now) = (person(1), clock.now());
    let mut receipts = Receipts::default();
    for sender in 0..MAX_NODES as u32 + 10 {
        let sender = format!("s{sender}").parse().unwrap();
        receipts.pending.note(now, sender, taken(1, 1));
    }
    assert_eq!(receipts.pending.nodes(), MAX_NODES);
    let sender = "s0".parse().unwrap();
    for at in 0..MAX_PENDING as u64 + 100 {
        let mut message = [0; 12];
        message[..8].copy_from_slice(&at.to_be_bytes());
        let share = (MessageId::from_random(message), index(1));
        receipts.remember(share, sender, [1; 32]);
        receipts.stored(now, share.0, share.1);
    }
    assert_eq!(receipts.pending.waiting(sender), MAX_PENDING);
    // nobody can be reached: after a minute nothing is left
    let later = now + PATIENCE + INTERVAL;
    assert!(receipts.sign(later, 1, &me, false, |_| false).is_empty());
    assert_eq!(receipts.pending.nodes(), 0);
    for at in 0..2 * MAX_TAKEN as u64 {
        let mut message = [1; 12];
        message[..8].copy_from_slice(&at.to_be_bytes());
        receipts.remember((MessageId::from_random(message), index(1)), sender, [1; 32]);
        receipts.opened(MessageId::from_random(message), [1; 32]);
    }
    assert_eq!(receipts.taken.len(), MAX_TAKEN);
    assert_eq!(receipts.opened.len(), MAX_OPENED);
}

#[test]
fn a_delivery_is_confirmed_only_of_what_was_delivered() {
    let clock = Clock::new();
    let (me, sender, now) = (person(1), person(2).node_id(), clock.now());
    let mut receipts = Receipts::default();
    receipts.opened(id(1), [1; 32]);
    // its sender asks again before the application has it
    receipts.again(now, sender, id(1));
    receipts.delivered(now, sender, id(2));
    assert_eq!(receipts.pending.nodes(), 0);
    receipts.delivered(now, sender, id(1));
    let first = receipts.sign(now, 1, &me, true, |_| true);
    assert_eq!(first.len(), 1);
    receipts.again(now, sender, id(1));
    let second = receipts.sign(now, 1, &me, true, |_| true);
    assert_eq!(first, second, "a lost one is made again");
}
