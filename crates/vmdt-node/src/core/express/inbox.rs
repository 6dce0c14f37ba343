//! What arrives: pieces of messages that are not whole yet, and which messages were delivered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_seal::express::{Channel, Opening, Piece, PieceHead};
use vmdt_wire::{MessageId, NodeId};

use super::ranges::Ranges;
use crate::core::placement::Carrier;

/// Counters below the highest that are told apart; what is older is taken for delivered.
pub(crate) const WINDOW: u32 = 4096;
/// Messages of one sender that are not whole.
pub(crate) const MAX_PARTIAL: usize = 1024;
/// Octets of pieces of such messages, of one sender.
pub(crate) const MAX_PARTIAL_OCTETS: usize = 1024 * 1024;
/// The same, of all senders.
pub(crate) const MAX_TOTAL_OCTETS: usize = 16 * 1024 * 1024;
/// How long a message that is not whole is kept.
const PARTIAL_TTL: Duration = Duration::from_secs(10);
/// How long an opening is taken after the next one came.
const GRACE: Duration = Duration::from_secs(10);
/// How long a confirmation waits for others.
const CONFIRM: Duration = Duration::from_millis(1);
/// How long after the last one it is repeated once: it may have been lost.
const CONFIRM_AGAIN: Duration = Duration::from_millis(15);
/// For how long a confirmation may have been lost and not asked for again.
const UNSURE: Duration = Duration::from_secs(2);
/// Messages at the application whose counters are remembered until it has them.
const MAX_AT_APPLICATION: usize = 4096;

/// What is confirmed: to whom, of which opening, and the ranges of counters.
pub(crate) type Confirmation = (NodeId, u32, Vec<(u32, u32)>);

/// Who brought a piece, and its octets.
pub(crate) type Origins = BTreeMap<NonZeroU8, (Carrier, usize)>;

/// A message of which k pieces are here.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Transfer id and content.
    pub(crate) plain: Vec<u8>,
    pub(crate) origins: Origins,
    pub(crate) place: (u32, u32),
}

/// What became of a piece.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is kept.
    Kept,
    /// Its message was here before.
    Again,
    /// It makes its message whole.
    Whole(Whole),
    /// Genuine pieces that do not open: their sender's doing.
    Unreadable,
    /// It is of an opening that is not known, or not any more.
    Unknown,
    /// It is none, or its tag is not right.
    Bad,
}

#[derive(Debug)]
struct Partial {
    pieces: Vec<Piece>,
    origins: Origins,
    octets: usize,
    since: Instant,
}

/// What came under one opening.
#[derive(Debug)]
struct Pair {
    opening: Bytes,
    channel: Channel,
    /// Messages that were opened.
    opened: Ranges,
    /// Those of them that were delivered.
    delivered: Ranges,
    partial: BTreeMap<u32, Partial>,
    /// There is something to confirm.
    news: bool,
}

#[derive(Debug, Default)]
struct Sender {
    current: Option<Pair>,
    /// The one before it, and until when.
    previous: Option<(Pair, Instant)>,
    /// Messages that are not whole, by age.
    order: VecDeque<(u32, u32)>,
    octets: usize,
    /// Messages whose confirmation may have been lost, and when they were delivered.
    unsure: VecDeque<(Instant, MessageId)>,
    /// When to confirm, and whether that is a repetition.
    confirm: Option<(Instant, bool)>,
}

impl Sender {
    fn pair(&mut self, now: Instant, opening: u32) -> Option<&mut Pair> {
        if self
            .previous
            .as_ref()
            .is_some_and(|(_, until)| *until <= now)
            && let Some((pair, _)) = self.previous.take()
        {
            self.octets -= pair.partial.values().map(|p| p.octets).sum::<usize>();
            self.order.retain(|(id, _)| *id != pair.channel.id());
        }
        let previous = self.previous.as_mut().map(|(pair, _)| pair);
        self.current
            .iter_mut()
            .chain(previous)
            .find(|pair| pair.channel.id() == opening)
    }

    fn drop_partial(&mut self, now: Instant, (opening, counter): (u32, u32)) {
        let partial = self
            .pair(now, opening)
            .and_then(|pair| pair.partial.remove(&counter));
        let octets = partial.map_or(0, |partial| partial.octets);
        self.octets -= octets;
        self.order.retain(|place| *place != (opening, counter));
    }

    fn confirm_at(&mut self, at: Instant) {
        let sooner = |(planned, again): (Instant, bool)| !again && planned <= at;
        if !self.confirm.is_some_and(sooner) {
            self.confirm = Some((at, false));
        }
    }
}

/// All that arrives by express.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    senders: BTreeMap<NodeId, Sender>,
    octets: usize,
    /// Messages that the application does not have yet.
    at_application: BTreeMap<(NodeId, MessageId), (u32, u32)>,
    confirming: BTreeSet<NodeId>,
}

impl Inbox {
    /// Whether this very opening is in use.
    pub(crate) fn knows(&self, sender: NodeId, opening: &Opening) -> bool {
        let current = self.senders.get(&sender).and_then(|s| s.current.as_ref());
        current.is_some_and(|pair| pair.opening == *opening.octets())
    }

    /// Takes an opening in place of the one before. Refused when its id is in use.
    pub(crate) fn open(&mut self, now: Instant, opening: &Opening, channel: Channel) -> bool {
        let from = opening.sender().node_id();
        self.expire(now, from);
        let sender = self.senders.entry(from).or_default();
        let before = self.octets - sender.octets;
        let known = sender.pair(now, opening.id()).is_some();
        self.octets = before + sender.octets;
        if known {
            return false;
        }
        let pair = Pair {
            opening: opening.octets().clone(),
            channel,
            opened: Ranges::default(),
            delivered: Ranges::default(),
            partial: BTreeMap::new(),
            news: false,
        };
        if let Some((old, _)) = sender.previous.take() {
            sender.octets -= old.partial.values().map(|p| p.octets).sum::<usize>();
            sender.order.retain(|(id, _)| *id != old.channel.id());
        }
        let replaced = sender.current.replace(pair);
        sender.previous = replaced.map(|pair| (pair, now + GRACE));
        self.octets = before + sender.octets;
        true
    }

    /// Forgets a sender.
    pub(crate) fn forget(&mut self, sender: NodeId) {
        if let Some(gone) = self.senders.remove(&sender) {
            self.octets -= gone.octets;
            self.confirming.remove(&sender);
        }
    }

    /// A piece came, said to be of this sender.
    pub(crate) fn piece(
        &mut self,
        now: Instant,
        from: NodeId,
        carrier: Carrier,
        octets: &Bytes,
    ) -> Outcome {
        self.expire(now, from);
        let Some(sender) = self.senders.get_mut(&from) else {
            return Outcome::Unknown;
        };
        let before = self.octets - sender.octets;
        let outcome = take(now, sender, carrier, octets);
        if matches!(outcome, Outcome::Again) && sender.confirm.is_some() {
            self.confirming.insert(from);
        }
        let over = |sender: &Sender| {
            sender.order.len() > MAX_PARTIAL
                || sender.octets > MAX_PARTIAL_OCTETS
                || before + sender.octets > MAX_TOTAL_OCTETS
        };
        while over(sender)
            && let Some(oldest) = sender.order.front().copied()
        {
            sender.drop_partial(now, oldest);
        }
        self.octets = before + sender.octets;
        outcome
    }

    /// Forgets what was not whole for too long.
    fn expire(&mut self, now: Instant, from: NodeId) {
        let Some(sender) = self.senders.get_mut(&from) else {
            return;
        };
        let before = self.octets - sender.octets;
        while let Some((opening, counter)) = sender.order.front().copied() {
            let since = sender
                .pair(now, opening)
                .and_then(|pair| pair.partial.get(&counter))
                .map(|partial| partial.since);
            if since.is_some_and(|since| now < since + PARTIAL_TTL) {
                break;
            }
            sender.drop_partial(now, (opening, counter));
        }
        self.octets = before + sender.octets;
    }

    /// A message goes to the application.
    pub(crate) fn at_application(&mut self, from: NodeId, transfer: MessageId, place: (u32, u32)) {
        self.at_application.insert((from, transfer), place);
        while self.at_application.len() > MAX_AT_APPLICATION {
            self.at_application.pop_first();
        }
    }

    /// The application has a message, or had it before: it is confirmed soon. False if it did not
    /// come by express.
    pub(crate) fn delivered(&mut self, now: Instant, from: NodeId, transfer: MessageId) -> bool {
        let Some((opening, counter)) = self.at_application.remove(&(from, transfer)) else {
            return false;
        };
        self.expire(now, from);
        let Some(sender) = self.senders.get_mut(&from) else {
            return false;
        };
        let before = self.octets - sender.octets;
        let known = sender.pair(now, opening).is_some();
        self.octets = before + sender.octets;
        let Some(pair) = sender.pair(now, opening).filter(|_| known) else {
            return false;
        };
        pair.delivered.insert(counter);
        pair.delivered.keep(WINDOW);
        pair.news = true;
        sender.confirm_at(now + CONFIRM);
        sender.unsure.push_back((now + UNSURE, transfer));
        while sender.unsure.len() > MAX_PARTIAL
            || sender
                .unsure
                .front()
                .is_some_and(|(until, _)| *until <= now)
        {
            sender.unsure.pop_front();
        }
        self.confirming.insert(from);
        true
    }

    /// What was delivered so lately that its sender may not know: this node says it no more.
    pub(crate) fn last_words(&mut self, now: Instant) -> Vec<(NodeId, MessageId)> {
        let unsure = |(id, sender): (&NodeId, &mut Sender)| {
            let id = *id;
            let unsure = std::mem::take(&mut sender.unsure).into_iter();
            unsure
                .filter(move |(until, _)| *until > now)
                .map(move |(_, transfer)| (id, transfer))
        };
        self.senders.iter_mut().flat_map(unsure).collect()
    }

    /// When something is to be confirmed.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.confirming
            .iter()
            .filter_map(|id| self.senders.get(id)?.confirm)
            .map(|(at, _)| at)
            .min()
    }

    /// What is to be confirmed now: to whom, of which opening, and the ranges.
    pub(crate) fn confirmations(&mut self, now: Instant) -> Vec<Confirmation> {
        let mut out = Vec::new();
        let senders = &mut self.senders;
        self.confirming.retain(|id| {
            let Some(sender) = senders.get_mut(id) else {
                return false;
            };
            let Some((at, again)) = sender.confirm else {
                return false;
            };
            if at > now {
                return true;
            }
            let previous = sender.previous.as_mut().map(|(pair, _)| pair);
            for pair in sender.current.iter_mut().chain(previous) {
                if pair.news {
                    pair.news = !again;
                    let ranges = pair.delivered.descending();
                    let ranges: Vec<_> = ranges.take(super::datagram::MAX_RANGES).collect();
                    if !ranges.is_empty() {
                        out.push((*id, pair.channel.id(), ranges));
                    }
                }
            }
            sender.confirm = (!again).then_some((now + CONFIRM_AGAIN, true));
            sender.confirm.is_some()
        });
        out
    }

    /// Octets of messages that are not whole.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        let sum: usize = self.senders.values().map(|s| s.octets).sum();
        assert_eq!(sum, self.octets);
        self.octets
    }
}

fn take(now: Instant, sender: &mut Sender, carrier: Carrier, octets: &Bytes) -> Outcome {
    let Some(head) = PieceHead::read(octets) else {
        return Outcome::Bad;
    };
    let place = (head.opening, head.counter);
    let Some(pair) = sender.pair(now, head.opening) else {
        return Outcome::Unknown;
    };
    let known = pair.opened.contains(head.counter);
    if known || pair.opened.is_below(head.counter) {
        // cheap, and harmless if it is a forgery
        if pair.delivered.contains(head.counter) {
            pair.news = true;
            sender.confirm_at(now + CONFIRM);
        }
        return Outcome::Again;
    }
    let Ok(piece) = pair.channel.check(octets) else {
        return Outcome::Bad;
    };
    let (k, len) = (usize::from(piece.threshold().k()), piece.encoded_len());
    let partial = pair.partial.entry(head.counter).or_insert_with(|| Partial {
        pieces: Vec::with_capacity(k),
        origins: Origins::new(),
        octets: 0,
        since: now,
    });
    let begun = partial.pieces.is_empty();
    let fits = partial
        .pieces
        .first()
        .is_none_or(|first| first.fits(&piece));
    if !fits || partial.origins.contains_key(&piece.index()) {
        return Outcome::Kept;
    }
    partial.origins.insert(piece.index(), (carrier, len));
    partial.octets += len;
    partial.pieces.push(piece);
    let whole = partial.pieces.len() >= k;
    sender.octets += len;
    if begun {
        sender.order.push_back(place);
    }
    if !whole {
        return Outcome::Kept;
    }
    let Some(pair) = sender.pair(now, head.opening) else {
        return Outcome::Unknown;
    };
    let Some(partial) = pair.partial.get(&head.counter) else {
        return Outcome::Unknown;
    };
    let opened = pair.channel.open(&partial.pieces);
    let origins = partial.origins.clone();
    pair.opened.insert(head.counter);
    pair.opened.keep(WINDOW);
    sender.drop_partial(now, place);
    match opened {
        Ok(plain) => Outcome::Whole(Whole {
            plain,
            origins,
            place,
        }),
        Err(_) => Outcome::Unreadable,
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
