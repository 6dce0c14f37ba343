//! What waits to leave: for each path the pieces that are to take it, and the messages they are of
//! until these are confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use super::datagram::{HEAD, PREFIX};
use crate::core::placement::{Carrier, Placement};

/// Messages to one receiver that may be unconfirmed; more take the ordinary way.
pub(crate) const MAX_IN_FLIGHT: usize = 1024;
/// How long a piece waits for others to share its datagram, when one has just left.
pub(crate) const COMPANY: Duration = Duration::from_millis(1);
/// How long it may take until k pieces of a message have left.
const STUCK: Duration = Duration::from_secs(3);
/// How long pieces in addition to k wait for those of other messages that are among the first k.
const STAND_BACK: Duration = Duration::from_millis(40);
/// When none of those has left for so long, their paths are full, and others may as well be used.
const STALLED: Duration = Duration::from_millis(4);
/// Pieces that are looked at for one that still fits a datagram.
const LOOK_AHEAD: usize = 8;

/// Which message: its receiver, the opening it is sealed under, and its counter.
pub(crate) type Key = (NodeId, u32, u32);

/// A piece that waits for its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) key: Key,
    pub(crate) index: NonZeroU8,
    pub(crate) octets: Bytes,
    pub(crate) since: Instant,
}

/// The place of a piece among those of its path: first those that are the first k of a message,
/// then each message's first one in addition, and so on; of equal ones the more urgent, and then
/// the oldest message's.
type Place = (u8, u8, u64, NonZeroU8);

/// The pieces that wait for one path.
#[derive(Debug, Default)]
pub(crate) struct PathQueue {
    pieces: BTreeMap<Place, Queued>,
    sent_at: Option<Instant>,
}

/// What a path is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing waits.
    Nothing,
    /// Look again then: more may come to fill the datagram.
    At(Instant),
    /// These pieces, all for one receiver, fill a datagram or have waited long enough.
    Send(Vec<Queued>),
    /// A piece that no datagram of this path can hold any more.
    TooLarge(Queued),
}

impl PathQueue {
    /// Takes what is to leave in the next datagram, which holds so many octets. Pieces in addition
    /// stand back for others until then: their way may share a link with theirs.
    fn next(&mut self, now: Instant, limit: usize, others: Option<Instant>) -> Next {
        let Some((place, first)) = self.pieces.first_key_value() else {
            return Next::Nothing;
        };
        let (first_place, to) = (*place, first.key.0);
        let until = others.map(|others| others.min(first.since + STAND_BACK));
        if let Some(until) = until.filter(|until| first_place.0 > 0 && now < *until) {
            return Next::At(until);
        }
        let mut room = limit.saturating_sub(HEAD);
        if PREFIX + first.octets.len() > room {
            return match self.pieces.remove(&first_place) {
                Some(piece) => Next::TooLarge(piece),
                None => Next::Nothing,
            };
        }
        let mut chosen = Vec::new();
        let mut oldest = first.since;
        let mut full = false;
        let alike = |(place, q): &(&Place, &Queued)| {
            q.key.0 == to && (place.0 == 0) == (first_place.0 == 0)
        };
        let mut keys = BTreeSet::new();
        for (place, piece) in self.pieces.iter().filter(alike).take(LOOK_AHEAD) {
            // two of one message would be lost together
            if !keys.insert(piece.key) {
                continue;
            }
            let needed = PREFIX + piece.octets.len();
            if needed > room {
                full = true;
                continue;
            }
            room -= needed;
            oldest = oldest.min(piece.since);
            chosen.push(*place);
        }
        // who was alone for a while need not wait: it is the others that come in its wake
        let alone = self.sent_at.is_none_or(|at| now >= at + COMPANY);
        if !full && !alone && now < oldest + COMPANY {
            let wake = self.sent_at.map_or(now, |at| at + COMPANY);
            return Next::At(wake.min(oldest + COMPANY));
        }
        self.sent_at = Some(now);
        let pieces = chosen.iter().filter_map(|place| self.pieces.remove(place));
        Next::Send(pieces.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// A message that is not confirmed yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) transfer: MessageId,
    to: NodeId,
    /// What it says, for the ordinary way.
    pub(crate) data: Bytes,
    pub(crate) placement: Placement,
    /// All pieces that have a carrier, in order.
    pub(crate) pieces: Vec<(NonZeroU8, Carrier, Bytes)>,
    pub(crate) k: u8,
    /// How many pieces beyond k leave at first: whichever of them finds room on its path.
    pub(crate) more: usize,
    /// How many of these have left.
    extra: usize,
    /// After how long without a word the pieces follow that did not leave at first, and after how
    /// long all of them once more.
    pub(crate) patience: (Duration, Duration),
    /// Which pieces have left at least once.
    pub(crate) left: BTreeSet<NonZeroU8>,
    /// All pieces were sent for a second time, or are about to be.
    pub(crate) repeated: bool,
    /// The pieces that did not leave at first have followed, or are about to.
    hurried: bool,
    /// When k pieces had left.
    left_at: Instant,
    /// There is no way to its receiver any more.
    lost: bool,
    /// 0 goes first.
    urgency: u8,
    turn: u64,
    /// Pieces of this round that left.
    count: usize,
    deadline: Instant,
}

impl InFlight {
    pub(crate) fn new(
        (transfer, to, data): (MessageId, NodeId, Bytes),
        placement: Placement,
        pieces: Vec<(NonZeroU8, Carrier, Bytes)>,
        (k, more, urgency): (u8, usize, u8),
        (now, patience): (Instant, (Duration, Duration)),
    ) -> InFlight {
        InFlight {
            transfer,
            to,
            data,
            placement,
            pieces,
            k,
            more,
            extra: 0,
            patience,
            left: BTreeSet::new(),
            repeated: false,
            hurried: false,
            left_at: now,
            lost: false,
            urgency,
            turn: 0,
            count: 0,
            deadline: now + STUCK,
        }
    }

    /// Where the pieces beyond the first k wait.
    fn spare_places(&self) -> Vec<(usize, NodeId, Place)> {
        let beyond = self.pieces.iter().enumerate().skip(self.k.into());
        beyond
            .map(|(at, (index, carrier, _))| {
                (at, neighbour(self.to, *carrier), self.place(at, *index))
            })
            .collect()
    }

    /// The place of one of its pieces on its path.
    fn place(&self, at: usize, index: NonZeroU8) -> Place {
        let rank = if at < usize::from(self.k) || self.repeated || self.hurried {
            0
        } else {
            self.extra + 1
        };
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        (rank, self.urgency, self.turn, index)
    }
}

/// What to do about a message whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The pieces that had not left were queued.
    Hurried,
    /// All its pieces were queued once more.
    Repeated,
    /// It is to take the ordinary way.
    GiveUp,
}

/// All that waits to leave, or to be confirmed.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    messages: BTreeMap<Key, InFlight>,
    by_transfer: BTreeMap<MessageId, Key>,
    counts: BTreeMap<NodeId, usize>,
    deadlines: BTreeSet<(Instant, Key)>,
    paths: BTreeMap<NodeId, PathQueue>,
    turn: u64,
    /// Pieces of the lowest rank that wait, on all paths.
    pressing: usize,
    /// When the last of these left, or came.
    pressed_at: Option<Instant>,
    /// When a path is to be looked at again.
    wake: Option<Instant>,
}

/// The neighbour that a piece with this carrier goes to.
pub(crate) fn neighbour(to: NodeId, carrier: Carrier) -> NodeId {
    match carrier {
        Carrier::Member(id) => id,
        Carrier::Direct | Carrier::Server => to,
    }
}

impl Outbox {
    /// Whether there is room for another message to this receiver.
    pub(crate) fn has_room(&self, to: NodeId) -> bool {
        self.counts.get(&to).is_none_or(|n| *n < MAX_IN_FLIGHT)
    }

    pub(crate) fn find(&self, transfer: MessageId) -> Option<&InFlight> {
        self.messages.get(self.by_transfer.get(&transfer)?)
    }

    pub(crate) fn key_of(&self, transfer: MessageId) -> Option<Key> {
        self.by_transfer.get(&transfer).copied()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut InFlight> {
        self.messages.get_mut(&key)
    }

    /// Queues the first pieces of a message.
    pub(crate) fn add(&mut self, now: Instant, key: Key, mut message: InFlight) {
        self.turn += 1;
        message.turn = self.turn;
        self.deadlines.insert((message.deadline, key));
        self.by_transfer.insert(message.transfer, key);
        *self.counts.entry(key.0).or_default() += 1;
        self.queue(now, key, &message, |message, at, _| {
            at < usize::from(message.k) || message.more > 0
        });
        self.messages.insert(key, message);
    }

    fn queue(
        &mut self,
        now: Instant,
        key: Key,
        message: &InFlight,
        which: impl Fn(&InFlight, usize, NonZeroU8) -> bool,
    ) {
        let all = message.pieces.iter().enumerate();
        for (at, (index, carrier, octets)) in all {
            if !which(message, at, *index) {
                continue;
            }
            let piece = Queued {
                key,
                index: *index,
                octets: octets.clone(),
                since: now,
            };
            let path = self.paths.entry(neighbour(key.0, *carrier)).or_default();
            let place = message.place(at, *index);
            if place.0 == 0 {
                self.pressing += 1;
                self.pressed_at = Some(now);
            }
            path.pieces.insert(place, piece);
        }
    }

    /// The paths on which something waits.
    pub(crate) fn waiting(&self) -> Vec<NodeId> {
        let waiting = self.paths.iter().filter(|(_, path)| !path.is_empty());
        waiting.map(|(id, _)| *id).collect()
    }

    /// What a path is to do: takes what is to leave in the next datagram of so many octets.
    pub(crate) fn next(&mut self, now: Instant, neighbour: NodeId, limit: usize) -> Next {
        let pressed = self.pressed_at.filter(|_| self.pressing > 0);
        let others = pressed.map(|at| at + STALLED);
        self.paths
            .get_mut(&neighbour)
            .map_or(Next::Nothing, |path| path.next(now, limit, others))
    }

    /// A piece has left, or will not leave any more. Returns whether it was the first time.
    pub(crate) fn left(&mut self, now: Instant, piece: &Queued) -> bool {
        let Some(message) = self.messages.get_mut(&piece.key) else {
            return false;
        };
        message.count += 1;
        let first = message.left.insert(piece.index);
        let at = message
            .pieces
            .iter()
            .position(|(index, ..)| *index == piece.index);
        let first_k = at.is_some_and(|at| at < usize::from(message.k));
        if first_k || message.repeated || message.hurried {
            self.pressing = self.pressing.saturating_sub(1);
            self.pressed_at = Some(now);
        } else {
            // the others of its spare pieces stand back, or are not needed
            let before = message.spare_places();
            message.extra += 1;
            let enough = message.extra >= message.more;
            for (at, neighbour, place) in before {
                let Some(path) = self.paths.get_mut(&neighbour) else {
                    continue;
                };
                if let Some(waiting) = path.pieces.remove(&place)
                    && !enough
                {
                    path.pieces.insert(message.place(at, place.3), waiting);
                }
            }
        }
        if message.count == usize::from(message.k) {
            let (soon, late) = message.patience;
            let wait = match (message.repeated, message.hurried) {
                (true, _) => late * 2,
                (false, true) => late,
                (false, false) => soon,
            };
            message.left_at = now;
            self.deadlines.remove(&(message.deadline, piece.key));
            message.deadline = now + wait;
            self.deadlines.insert((message.deadline, piece.key));
        }
        first
    }

    /// Forgets a message and what waits of it.
    pub(crate) fn remove(&mut self, key: Key) -> Option<InFlight> {
        let message = self.messages.remove(&key)?;
        self.deadlines.remove(&(message.deadline, key));
        self.by_transfer.remove(&message.transfer);
        if let Some(count) = self.counts.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key.0);
            }
        }
        self.withdraw(key, &message);
        Some(message)
    }

    /// The messages to a receiver under one opening whose counters lie in a range.
    pub(crate) fn range(&self, to: NodeId, opening: u32, (first, last): (u32, u32)) -> Vec<Key> {
        let range = (to, opening, first)..=(to, opening, last);
        self.messages.range(range).map(|(key, _)| *key).collect()
    }

    /// All messages to a receiver.
    fn to(&self, to: NodeId) -> Vec<Key> {
        let range = (to, 0, 0)..=(to, u32::MAX, u32::MAX);
        self.messages.range(range).map(|(key, _)| *key).collect()
    }

    /// A message whose time has come, and what to do about it.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(Key, Due)> {
        let (at, key) = self.deadlines.first().copied()?;
        if at > now {
            return None;
        }
        self.deadlines.pop_first();
        let mut message = self.messages.remove(&key)?;
        let stuck = message.count < usize::from(message.k);
        if message.repeated || message.lost || stuck {
            self.messages.insert(key, message);
            return Some((key, Due::GiveUp));
        }
        self.withdraw(key, &message);
        let spare = message
            .pieces
            .iter()
            .any(|(i, ..)| !message.left.contains(i));
        let due = if spare && !message.hurried {
            message.hurried = true;
            message.deadline = message.left_at + message.patience.1;
            Due::Hurried
        } else {
            message.repeated = true;
            message.count = 0;
            message.deadline = now + STUCK;
            Due::Repeated
        };
        self.deadlines.insert((message.deadline, key));
        self.queue(now, key, &message, |message, _, index| {
            message.repeated || !message.left.contains(&index)
        });
        self.messages.insert(key, message);
        Some((key, due))
    }

    /// Takes back what waits of a message.
    fn withdraw(&mut self, key: Key, message: &InFlight) {
        for (at, (index, carrier, _)) in message.pieces.iter().enumerate() {
            let place = message.place(at, *index);
            if let Some(path) = self.paths.get_mut(&neighbour(key.0, *carrier))
                && path.pieces.remove(&place).is_some()
                && place.0 == 0
            {
                self.pressing = self.pressing.saturating_sub(1);
            }
        }
    }

    /// The paths were looked at, and are to be looked at again then.
    pub(crate) fn wake(&mut self, now: Instant, at: Option<Instant>) {
        self.wake = at;
        let quiet = |path: &PathQueue| path.sent_at.is_none_or(|sent| now >= sent + COMPANY);
        self.paths
            .retain(|_, path| !path.is_empty() || !quiet(path));
    }

    /// What is under way to a receiver is to be given up as soon as it is looked at.
    pub(crate) fn receiver_lost(&mut self, now: Instant, to: NodeId) {
        for key in self.to(to) {
            if let Some(message) = self.messages.get_mut(&key) {
                self.deadlines.remove(&(message.deadline, key));
                message.lost = true;
                message.deadline = now;
                self.deadlines.insert((now, key));
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        self.wake.into_iter().chain(deadline).min()
    }

    /// The path to a neighbour is gone: what waited for it is lost.
    pub(crate) fn path_lost(&mut self, now: Instant, neighbour: NodeId) {
        let Some(lost) = self.paths.remove(&neighbour) else {
            return;
        };
        for (place, piece) in lost.pieces {
            // pieces in addition may leave elsewhere
            if place.0 == 0 {
                self.left(now, &piece);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.by_transfer.is_empty()
            && self.counts.is_empty()
            && self.deadlines.is_empty()
            && self.paths.values().all(PathQueue::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use vmdt_pool::placement::{Candidate, Carriers, Quality};
    use vmdt_pool::policy::Policy;

    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn message(now: Instant, number: u8, len: usize) -> InFlight {
        let carriers = Carriers {
            direct: Some(Quality::default()),
            members: vec![Candidate::new(node("x")), Candidate::new(node("y"))],
            server: false,
            sealed: true,
        };
        let placement = Placement::choose(Policy::k_of_n(2, 4), &carriers).unwrap();
        let pieces = placement
            .iter()
            .map(|(index, carrier)| (index, carrier, Bytes::from(vec![number; len])))
            .collect();
        InFlight::new(
            (
                MessageId::from_random([number; 12]),
                node("b"),
                Bytes::new(),
            ),
            placement,
            pieces,
            (2, 1, 0),
            (now, (Duration::from_millis(50), Duration::from_millis(100))),
        )
    }

    fn key(number: u8) -> Key {
        (node("b"), 1, number.into())
    }

    fn send(outbox: &mut Outbox, neighbour: NodeId, now: Instant, limit: usize) -> Vec<u8> {
        match outbox.next(now, neighbour, limit) {
            Next::Send(pieces) => {
                for piece in &pieces {
                    outbox.left(now, piece);
                }
                pieces.iter().map(|p| p.octets[0]).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_piece_leaves_at_once_and_the_next_ones_share_a_datagram() {
        let now = now();
        let mut outbox = Outbox::default();
        outbox.add(now, key(1), message(now, 1, 100));
        for neighbour in outbox.waiting() {
            while let Next::Send(pieces) = outbox.next(now, neighbour, 1000) {
                pieces.iter().for_each(|piece| {
                    outbox.left(now, piece);
                });
            }
        }
        let soon = now + COMPANY / 4;
        outbox.add(soon, key(2), message(now, 2, 100));
        let neighbour = outbox.waiting()[0];
        assert_eq!(outbox.next(soon, neighbour, 1000), Next::At(now + COMPANY));
        outbox.add(soon, key(3), message(now, 3, 100));
        assert_eq!(send(&mut outbox, neighbour, now + COMPANY, 1000), [2, 3]);
    }

    #[test]
    fn a_full_datagram_does_not_wait() {
        let now = now();
        let mut outbox = Outbox::default();
        for number in 1..=5 {
            outbox.add(now, key(number), message(now, number, 400));
        }
        let neighbour = outbox.waiting()[0];
        assert_eq!(send(&mut outbox, neighbour, now, 1000), [1, 2]);
        assert_eq!(send(&mut outbox, neighbour, now, 1000), [3, 4]);
        assert_eq!(outbox.next(now, neighbour, 1000), Next::At(now + COMPANY));
    }

    #[test]
    fn pieces_beyond_k_leave_after_the_first_ones_of_all_messages() {
        let now = now();
        let mut outbox = Outbox::default();
        for number in 1..=3 {
            let mut message = message(now, number, 400);
            // all on one path
            for piece in &mut message.pieces {
                piece.1 = Carrier::Direct;
            }
            outbox.add(now, key(number), message);
        }
        let mut order = Vec::new();
        while let Next::Send(pieces) = outbox.next(now + COMPANY, node("b"), 500) {
            for piece in pieces {
                outbox.left(now, &piece);
                order.push(piece.octets[0]);
            }
        }
        assert_eq!(
            order,
            [1, 1, 2, 2, 3, 3, 1, 2, 3],
            "one of each in addition"
        );
    }

    #[test]
    fn a_datagram_is_for_one_receiver_and_what_fits_none_is_given_back() {
        let now = now();
        let mut outbox = Outbox::default();
        let path = outbox.paths.entry(node("x")).or_default();
        for (turn, to) in [(1, "b"), (2, "c"), (3, "b")] {
            let piece = Queued {
                key: (node(to), 1, turn),
                index: NonZeroU8::MIN,
                octets: Bytes::from(vec![turn as u8; 100]),
                since: now,
            };
            path.pieces
                .insert((0, 0, turn.into(), NonZeroU8::MIN), piece);
        }
        assert_eq!(send(&mut outbox, node("x"), now, 1000), [1, 3]);
        let next = outbox.next(now, node("x"), 118);
        assert!(matches!(next, Next::TooLarge(_)));
        assert!(outbox.is_empty());
    }

    #[test]
    fn without_a_word_all_pieces_are_sent_once_more_and_then_it_is_given_up() {
        let now = now();
        let mut outbox = Outbox::default();
        outbox.add(now, key(1), message(now, 1, 100));
        let leave = |outbox: &mut Outbox, at: Instant| {
            let mut count = 0;
            for neighbour in outbox.waiting() {
                while let Next::Send(pieces) = outbox.next(at, neighbour, 1000) {
                    for piece in &pieces {
                        outbox.left(at, piece);
                        count += 1;
                    }
                }
            }
            outbox.wake(at, None);
            count
        };
        assert_eq!(leave(&mut outbox, now), 3, "k and one more");
        let soon = outbox.poll_timeout().unwrap();
        assert_eq!(soon, now + Duration::from_millis(50));
        assert_eq!(outbox.due(now), None);
        assert_eq!(outbox.due(soon), Some((key(1), Due::Hurried)));
        assert_eq!(leave(&mut outbox, soon), 1, "the one that had not left");
        let at = outbox.poll_timeout().unwrap();
        assert_eq!(at, now + Duration::from_millis(100));
        assert_eq!(outbox.due(at), Some((key(1), Due::Repeated)));
        let all = leave(&mut outbox, at) + leave(&mut outbox, at + COMPANY);
        assert_eq!(all, 4, "two of one path in two datagrams");
        let end = outbox.poll_timeout().unwrap();
        let twice = Duration::from_millis(200);
        assert!((at + twice..=at + twice + COMPANY).contains(&end));
        assert_eq!(outbox.due(end), Some((key(1), Due::GiveUp)));
        assert!(outbox.remove(key(1)).is_some());
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_can_not_leave_is_given_up() {
        let now = now();
        let mut outbox = Outbox::default();
        outbox.add(now, key(1), message(now, 1, 100));
        assert_eq!(outbox.due(now + STUCK), Some((key(1), Due::GiveUp)));
        assert!(outbox.remove(key(1)).is_some());
        outbox.add(now, key(2), message(now, 2, 100));
        for neighbour in outbox.waiting() {
            outbox.path_lost(now, neighbour);
        }
        let soon = now + Duration::from_millis(50);
        assert_eq!(outbox.due(soon), Some((key(2), Due::Hurried)));
        let at = now + Duration::from_millis(100);
        assert_eq!(outbox.due(at), Some((key(2), Due::Repeated)));
    }

    #[test]
    fn what_is_confirmed_waits_no_more() {
        let now = now();
        let mut outbox = Outbox::default();
        for number in 1..=4 {
            outbox.add(now, key(number), message(now, number, 100));
        }
        assert_eq!(outbox.range(node("b"), 1, (2, 3)), [key(2), key(3)]);
        assert!(outbox.range(node("b"), 2, (0, 9)).is_empty());
        for number in 1..=4 {
            assert!(outbox.remove(key(number)).is_some());
            assert!(outbox.remove(key(number)).is_none());
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn messages_under_way_to_one_receiver_are_bounded() {
        let now = now();
        let mut outbox = Outbox::default();
        for number in 0..MAX_IN_FLIGHT {
            assert!(outbox.has_room(node("b")));
            let number = u32::try_from(number).unwrap();
            outbox.add(now, (node("b"), 1, number), message(now, 1, 1));
        }
        assert!(!outbox.has_room(node("b")) && outbox.has_room(node("c")));
    }

    #[test]
    fn pieces_in_addition_stand_back_for_others_but_not_for_long() {
        let now = now();
        let mut outbox = Outbox::default();
        outbox.add(now, key(1), message(now, 1, 400));
        let carrier = |at: usize, outbox: &Outbox| {
            let message = &outbox.messages[&key(1)];
            neighbour(node("b"), message.pieces[at].1)
        };
        let (first, spare) = (carrier(0, &outbox), carrier(2, &outbox));
        assert_ne!(first, spare);
        assert_eq!(outbox.next(now, spare, 1000), Next::At(now + STALLED));
        // others come and leave all the time
        let mut later = now;
        for number in 2..40 {
            later += Duration::from_millis(2);
            if later >= now + STAND_BACK {
                break;
            }
            outbox.add(later, key(number), message(later, number, 400));
            let next = outbox.next(later, spare, 1000);
            assert!(matches!(next, Next::At(_)), "{next:?}");
        }
        assert!(matches!(outbox.next(later, spare, 1000), Next::Send(_)));
        let mut outbox = Outbox::default();
        outbox.add(now, key(1), message(now, 1, 400));
        let second = carrier(1, &outbox);
        assert_eq!(send(&mut outbox, first, now, 1000), [1]);
        assert_eq!(send(&mut outbox, second, now, 1000), [1]);
        assert_eq!(
            send(&mut outbox, spare, now, 1000),
            [1],
            "nobody is before it"
        );
        assert!(outbox.waiting().is_empty(), "one in addition was wanted");
    }
}
