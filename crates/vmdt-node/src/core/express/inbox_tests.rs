use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_ssms::Threshold;
use vmdt_ssms::dispersal::Code;

use super::*;

/// A sender, and what its receiver has.
struct World {
    rng: ChaCha20Rng,
    alice: SecretIdentity,
    bob: SecretIdentity,
    prekeys: PrekeyStore,
    inbox: Inbox,
    now: Instant,
}

impl World {
    #[allow(clippy::disallowed_methods)]
    fn new() -> World {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        World {
            alice: SecretIdentity::generate(&mut rng),
            bob: SecretIdentity::generate(&mut rng),
            prekeys: PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng),
            rng,
            inbox: Inbox::default(),
            now: Instant::now(),
        }
    }

    fn from(&self) -> NodeId {
        self.alice.node_id()
    }

    /// A new opening that the receiver has taken.
    fn open(&mut self) -> (Opening, Channel) {
        let prekey = self.prekeys.current().public();
        let (opening, channel) =
            Opening::sign(&self.alice, self.bob.public(), &prekey, 1, &mut self.rng).unwrap();
        let taken = opening.accept(self.prekeys.current()).unwrap();
        assert!(self.inbox.open(self.now, &opening, taken));
        (opening, channel)
    }

    fn seal(&mut self, channel: &Channel, counter: u32, len: usize) -> Vec<Bytes> {
        let code = Code::new(Threshold::new(2, 3).unwrap());
        let plain = vec![counter as u8; len];
        channel.seal(&code, counter, &plain, &mut self.rng).unwrap()
    }

    fn piece(&mut self, octets: &Bytes) -> Outcome {
        let (now, from) = (self.now, self.from());
        self.inbox.piece(now, from, Carrier::Direct, octets)
    }

    fn deliver(&mut self, channel: &Channel, counter: u32) {
        let pieces = self.seal(channel, counter, 20);
        assert!(matches!(self.piece(&pieces[0]), Outcome::Kept));
        let Outcome::Whole(whole) = self.piece(&pieces[2]) else {
            panic!("k pieces");
        };
        assert_eq!(whole.place, (channel.id(), counter));
        assert_eq!(whole.plain, vec![counter as u8; 20]);
        let transfer = id(counter);
        let (now, from) = (self.now, self.from());
        self.inbox.at_application(from, transfer, whole.place);
        assert!(self.inbox.delivered(now, from, transfer));
    }

    fn confirmations(&mut self) -> Vec<Vec<(u32, u32)>> {
        let all = self.inbox.confirmations(self.now);
        all.into_iter().map(|(_, _, ranges)| ranges).collect()
    }
}

fn id(number: u32) -> MessageId {
    let mut octets = [0; 12];
    octets[..4].copy_from_slice(&number.to_be_bytes());
    MessageId::from_random(octets)
}

#[test]
fn k_pieces_make_a_message_once_whoever_brings_more() {
    let mut w = World::new();
    let (_, channel) = w.open();
    w.deliver(&channel, 0);
    let again = w.seal(&channel, 0, 20);
    assert!(matches!(w.piece(&again[1]), Outcome::Again));
    let from = w.from();
    let now = w.now;
    assert!(!w.inbox.delivered(now, from, id(0)), "said once");
    assert_eq!(w.inbox.octets(), 0);
}

#[test]
fn a_piece_that_comes_twice_or_altered_makes_nothing() {
    let mut w = World::new();
    let (_, channel) = w.open();
    let pieces = w.seal(&channel, 0, 20);
    assert!(matches!(w.piece(&pieces[0]), Outcome::Kept));
    assert!(matches!(w.piece(&pieces[0]), Outcome::Kept));
    let mut altered = pieces[1].to_vec();
    altered[30] ^= 1;
    assert!(matches!(w.piece(&altered.into()), Outcome::Bad));
    assert!(matches!(w.piece(&Bytes::from_static(b"x")), Outcome::Bad));
    assert!(matches!(w.piece(&pieces[1]), Outcome::Whole(_)));
}

#[test]
fn an_opening_is_taken_for_a_while_after_the_next_one() {
    let mut w = World::new();
    let (first, one) = w.open();
    let (second, two) = w.open();
    assert!(w.inbox.knows(w.from(), &second) && !w.inbox.knows(w.from(), &first));
    w.deliver(&one, 0);
    w.deliver(&two, 0);
    let late = w.seal(&one, 1, 20);
    assert!(matches!(w.piece(&late[0]), Outcome::Kept));
    w.now += GRACE;
    assert!(matches!(w.piece(&late[1]), Outcome::Unknown));
    assert_eq!(w.inbox.octets(), 0, "with what was kept of it");
    let stranger = SecretIdentity::generate(&mut w.rng).node_id();
    let now = w.now;
    let outcome = w.inbox.piece(now, stranger, Carrier::Direct, &late[1]);
    assert!(matches!(outcome, Outcome::Unknown));
}

#[test]
fn an_id_in_use_is_not_opened_again() {
    let mut w = World::new();
    let (opening, _) = w.open();
    let again = opening.accept(w.prekeys.current()).unwrap();
    let now = w.now;
    assert!(!w.inbox.open(now, &opening, again));
    w.open();
    let again = opening.accept(w.prekeys.current()).unwrap();
    assert!(!w.inbox.open(now, &opening, again), "nor the one before");
}

#[test]
fn messages_that_are_not_whole_are_bounded_in_number_octets_and_time() {
    let mut w = World::new();
    let (_, channel) = w.open();
    for counter in 0..3_000 {
        let pieces = w.seal(&channel, counter, 20);
        assert!(matches!(w.piece(&pieces[0]), Outcome::Kept));
    }
    let one = Channel::piece_len(20, 2);
    assert_eq!(w.inbox.octets(), MAX_PARTIAL * one);
    for counter in 3_000..3_100 {
        let pieces = w.seal(&channel, counter, 60_000);
        w.piece(&pieces[0]);
    }
    assert!(w.inbox.octets() <= MAX_PARTIAL_OCTETS);
    // the oldest went, the newest is there
    let pieces = w.seal(&channel, 5_000, 20);
    w.piece(&pieces[0]);
    w.now += PARTIAL_TTL;
    let other = w.seal(&channel, 5_001, 20);
    w.piece(&other[0]);
    assert_eq!(w.inbox.octets(), one, "all but the last one are too old");
    let from = w.from();
    w.inbox.forget(from);
    assert_eq!(w.inbox.octets(), 0);
}

#[test]
fn what_is_far_behind_is_taken_for_delivered() {
    let mut w = World::new();
    let (_, channel) = w.open();
    w.deliver(&channel, 0);
    w.deliver(&channel, WINDOW + 10);
    let old = w.seal(&channel, 3, 20);
    assert!(matches!(w.piece(&old[0]), Outcome::Again));
    w.deliver(&channel, 20);
}

#[test]
fn what_was_delivered_is_confirmed_soon_and_once_more() {
    let mut w = World::new();
    let (_, channel) = w.open();
    for counter in [0, 1, 2, 5] {
        w.deliver(&channel, counter);
    }
    assert_eq!(w.inbox.poll_timeout(), Some(w.now + CONFIRM));
    assert!(w.confirmations().is_empty(), "others may follow");
    w.now += CONFIRM;
    assert_eq!(w.confirmations(), [[(5, 5), (0, 2)]]);
    assert_eq!(w.inbox.poll_timeout(), Some(w.now + CONFIRM_AGAIN));
    w.now += CONFIRM_AGAIN;
    assert_eq!(w.confirmations(), [[(5, 5), (0, 2)]]);
    assert_eq!(w.inbox.poll_timeout(), None);
    // a piece of one of them: the confirmation was lost
    let again = w.seal(&channel, 1, 20);
    w.piece(&again[0]);
    w.now += CONFIRM;
    assert_eq!(w.confirmations(), [[(5, 5), (0, 2)]]);
}

#[test]
fn what_the_application_does_not_have_is_not_confirmed() {
    let mut w = World::new();
    let (_, channel) = w.open();
    let pieces = w.seal(&channel, 0, 20);
    w.piece(&pieces[0]);
    assert!(matches!(w.piece(&pieces[1]), Outcome::Whole(_)));
    assert!(matches!(w.piece(&pieces[2]), Outcome::Again));
    assert_eq!(w.inbox.poll_timeout(), None);
}
