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

/// The place of a piece among those of its path: first those that the first k of a message are,
/// then the ones in addition; of equal ones the more urgent, and then the oldest message's.
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
    /// Takes what is to leave in the next datagram, which holds so many octets.
    pub(crate) fn next(&mut self, now: Instant, limit: usize) -> Next {
        let Some((place, first)) = self.pieces.first_key_value() else {
            return Next::Nothing;
        };
        let (first_place, to) = (*place, first.key.0);
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
        let of_receiver = |(_, q): &(&Place, &Queued)| q.key.0 == to;
        for (place, piece) in self.pieces.iter().filter(of_receiver).take(LOOK_AHEAD) {
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

    /// Takes all that waits.
    pub(crate) fn drain(&mut self) -> Vec<Queued> {
        std::mem::take(&mut self.pieces).into_values().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// A message that is not confirmed yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) transfer: MessageId,
    /// What it says, for the ordinary way.
    pub(crate) data: Bytes,
    pub(crate) placement: Placement,
    /// All pieces that have a carrier, in order.
    pub(crate) pieces: Vec<(NonZeroU8, Carrier, Bytes)>,
    pub(crate) k: u8,
    /// How many pieces leave at first.
    pub(crate) first: usize,
    /// After how long without a word the others follow.
    pub(crate) patience: Duration,
    /// Which pieces have left at least once.
    pub(crate) left: BTreeSet<NonZeroU8>,
    /// All pieces were sent for a second time, or are about to be.
    pub(crate) repeated: bool,
    /// 0 goes first.
    urgency: u8,
    turn: u64,
    /// Pieces of this round that left.
    count: usize,
    deadline: Instant,
}

impl InFlight {
    pub(crate) fn new(
        (transfer, data): (MessageId, Bytes),
        placement: Placement,
        pieces: Vec<(NonZeroU8, Carrier, Bytes)>,
        (k, first, urgency): (u8, usize, u8),
        (now, patience): (Instant, Duration),
    ) -> InFlight {
        InFlight {
            transfer,
            data,
            placement,
            pieces,
            k,
            first,
            patience,
            left: BTreeSet::new(),
            repeated: false,
            urgency,
            turn: 0,
            count: 0,
            deadline: now + STUCK,
        }
    }

    /// The place of one of its pieces on its path.
    fn place(&self, at: usize, index: NonZeroU8) -> Place {
        let rank = (at + 1).saturating_sub(usize::from(self.k));
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        (rank, self.urgency, self.turn, index)
    }
}

/// What to do about a message whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
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
        let first = message.first;
        self.queue(now, key, &message, 0..first);
        self.messages.insert(key, message);
    }

    fn queue(
        &mut self,
        now: Instant,
        key: Key,
        message: &InFlight,
        which: std::ops::Range<usize>,
    ) {
        let all = message.pieces.iter().enumerate();
        for (at, (index, carrier, octets)) in all.filter(|(at, _)| which.contains(at)) {
            let piece = Queued {
                key,
                index: *index,
                octets: octets.clone(),
                since: now,
            };
            let path = self.paths.entry(neighbour(key.0, *carrier)).or_default();
            path.pieces.insert(message.place(at, *index), piece);
        }
    }

    /// The paths on which something waits.
    pub(crate) fn waiting(&self) -> Vec<NodeId> {
        let waiting = self.paths.iter().filter(|(_, path)| !path.is_empty());
        waiting.map(|(id, _)| *id).collect()
    }

    pub(crate) fn path(&mut self, neighbour: NodeId) -> Option<&mut PathQueue> {
        self.paths.get_mut(&neighbour)
    }

    /// A piece has left, or will not leave any more. Returns whether it was the first time.
    pub(crate) fn left(&mut self, now: Instant, piece: &Queued) -> bool {
        let Some(message) = self.messages.get_mut(&piece.key) else {
            return false;
        };
        message.count += 1;
        let first = message.left.insert(piece.index);
        if message.count == usize::from(message.k) {
            let patience = message.patience * if message.repeated { 2 } else { 1 };
            self.deadlines.remove(&(message.deadline, piece.key));
            message.deadline = now + patience;
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
        for (at, (index, carrier, _)) in message.pieces.iter().enumerate() {
            if let Some(path) = self.paths.get_mut(&neighbour(key.0, *carrier)) {
                path.pieces.remove(&message.place(at, *index));
            }
        }
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
        if message.repeated || stuck {
            self.messages.insert(key, message);
            return Some((key, Due::GiveUp));
        }
        message.repeated = true;
        message.count = 0;
        message.deadline = now + STUCK;
        self.deadlines.insert((message.deadline, key));
        let all = message.pieces.len();
        self.queue(now, key, &message, 0..all);
        self.messages.insert(key, message);
        Some((key, Due::Repeated))
    }

    /// The paths were looked at, and are to be looked at again then.
    pub(crate) fn wake(&mut self, now: Instant, at: Option<Instant>) {
        self.wake = at;
        let quiet = |path: &PathQueue| path.sent_at.is_none_or(|sent| now >= sent + COMPANY);
        self.paths.retain(|_, path| !path.is_empty() || !quiet(path));
    }

    /// What is under way to a receiver is to be given up as soon as it is looked at.
    pub(crate) fn receiver_lost(&mut self, now: Instant, to: NodeId) {
        for key in self.to(to) {
            if let Some(message) = self.messages.get_mut(&key) {
                self.deadlines.remove(&(message.deadline, key));
                message.repeated = true;
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
        let lost = self.paths.remove(&neighbour);
        for piece in lost.map(|mut path| path.drain()).unwrap_or_default() {
            self.left(now, &piece);
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
            (MessageId::from_random([number; 12]), Bytes::new()),
            placement,
            pieces,
            (2, 3, 0),
            (now, Duration::from_millis(100)),
        )
    }

    fn key(number: u8) -> Key {
        (node("b"), 1, number.into())
    }

    fn send(path: &mut PathQueue, now: Instant, limit: usize) -> Vec<u8> {
        match path.next(now, limit) {
            Next::Send(pieces) => pieces.iter().map(|p| p.octets[0]).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_piece_leaves_at_once_and_the_next_ones_share_a_datagram() {
        let now = now();
        let mut outbox = Outbox::default();
        outbox.add(now, key(1), message(now, 1, 100));
        for neighbour in outbox.waiting() {
            assert_eq!(send(outbox.path(neighbour).unwrap(), now, 1000), [1]);
        }
        let soon = now + COMPANY / 4;
        outbox.add(soon, key(2), message(now, 2, 100));
        let neighbour = outbox.waiting()[0];
        let path = outbox.path(neighbour).unwrap();
        assert_eq!(path.next(soon, 1000), Next::At(now + COMPANY));
        outbox.add(soon, key(3), message(now, 3, 100));
        let path = outbox.path(neighbour).unwrap();
        assert_eq!(send(path, now + COMPANY, 1000), [2, 3]);
        assert_eq!(path.next(now + COMPANY, 1000), Next::Nothing);
    }

    #[test]
    fn a_full_datagram_does_not_wait() {
        let now = now();
        let mut outbox = Outbox::default();
        for number in 1..=5 {
            outbox.add(now, key(number), message(now, number, 400));
        }
        let neighbour = outbox.waiting()[0];
        let path = outbox.path(neighbour).unwrap();
        assert_eq!(send(path, now, 1000), [1, 2]);
        assert_eq!(send(path, now, 1000), [3, 4]);
        assert_eq!(path.next(now, 1000), Next::At(now + COMPANY));
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
        let path = outbox.path(node("b")).unwrap();
        let mut order = Vec::new();
        while let Next::Send(pieces) = path.next(now + COMPANY, 500) {
            order.extend(pieces.iter().map(|p| p.octets[0]));
        }
        assert_eq!(order, [1, 1, 2, 2, 3, 3, 1, 2, 3]);
    }

    #[test]
    fn a_datagram_is_for_one_receiver_and_what_fits_none_is_given_back() {
        let now = now();
        let mut path = PathQueue::default();
        for (turn, to) in [(1, "b"), (2, "c"), (3, "b")] {
            let piece = Queued {
                key: (node(to), 1, turn),
                index: NonZeroU8::MIN,
                octets: Bytes::from(vec![turn as u8; 100]),
                since: now,
            };
            path.pieces.insert((0, 0, turn.into(), NonZeroU8::MIN), piece);
        }
        assert_eq!(send(&mut path, now, 1000), [1, 3]);
        assert!(matches!(path.next(now, 118), Next::TooLarge(_)));
        assert!(path.is_empty());
    }

    #[test]
    fn without_a_word_all_pieces_are_sent_once_more_and_then_it_is_given_up() {
        let now = now();
        let mut outbox = Outbox::default();
        outbox.add(now, key(1), message(now, 1, 100));
        let leave = |outbox: &mut Outbox, at: Instant| {
            let mut count = 0;
            for neighbour in outbox.waiting() {
                while let Next::Send(pieces) = outbox.path(neighbour).unwrap().next(at, 1000) {
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
        let at = outbox.poll_timeout().unwrap();
        assert_eq!(at, now + Duration::from_millis(100));
        assert_eq!(outbox.due(now), None);
        assert_eq!(outbox.due(at), Some((key(1), Due::Repeated)));
        assert_eq!(leave(&mut outbox, at), 4, "all of them");
        let end = outbox.poll_timeout().unwrap();
        assert_eq!(end, at + Duration::from_millis(200), "twice as long");
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
}
