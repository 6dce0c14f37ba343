//! Pieces for a receiver to whom a session is just being opened: they wait for it, not for long.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::NodeId;

/// Octets of pieces that wait for one receiver; half of it of one sender.
const MAX_FOR_ONE: usize = 48 * 1024;
/// The same, for all receivers.
const MAX_OCTETS: usize = 1024 * 1024;
/// How long a piece waits. Its sender repeats it sooner or later.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Waiting {
    until: Instant,
    from: NodeId,
    piece: Bytes,
}

/// What waits to be handed on.
#[derive(Debug, Default)]
pub(crate) struct Held {
    waiting: BTreeMap<NodeId, VecDeque<Waiting>>,
    octets: usize,
}

impl Held {
    /// Lets pieces wait, as many as there is room for. Returns how many there is none for.
    pub(crate) fn hold(
        &mut self,
        now: Instant,
        from: NodeId,
        to: NodeId,
        pieces: &[Bytes],
    ) -> usize {
        let mut refused = self.expire(now);
        let waiting = self.waiting.entry(to).or_default();
        let sum = |own: bool| {
            let counts = waiting.iter().filter(|w| !own || w.from == from);
            counts.map(|w| w.piece.len()).sum::<usize>()
        };
        let (mut all, mut own) = (sum(false), sum(true));
        for piece in pieces {
            let len = piece.len();
            let full = all + len > MAX_FOR_ONE
                || own + len > MAX_FOR_ONE / 2
                || self.octets + len > MAX_OCTETS;
            if full {
                refused += 1;
                continue;
            }
            (all, own) = (all + len, own + len);
            self.octets += len;
            waiting.push_back(Waiting {
                until: now + PATIENCE,
                from,
                piece: piece.clone(),
            });
        }
        if waiting.is_empty() {
            self.waiting.remove(&to);
        }
        refused
    }

    /// What waits for a receiver, by sender, in order; it does not wait any more.
    pub(crate) fn take(&mut self, now: Instant, to: NodeId) -> Vec<(NodeId, Vec<Bytes>)> {
        let mut all: Vec<(NodeId, Vec<Bytes>)> = Vec::new();
        for waiting in self.waiting.remove(&to).into_iter().flatten() {
            self.octets -= waiting.piece.len();
            if waiting.until <= now {
                continue;
            }
            match all.iter_mut().find(|(from, _)| *from == waiting.from) {
                Some((_, pieces)) => pieces.push(waiting.piece),
                None => all.push((waiting.from, vec![waiting.piece])),
            }
        }
        all
    }

    /// Forgets what has waited too long. Returns how many pieces.
    fn expire(&mut self, now: Instant) -> usize {
        let mut gone = 0;
        for waiting in self.waiting.values_mut() {
            while waiting.front().is_some_and(|first| first.until <= now) {
                if let Some(first) = waiting.pop_front() {
                    self.octets -= first.piece.len();
                    gone += 1;
                }
            }
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        gone
    }

    #[cfg(test)]
    fn octets(&self) -> usize {
        let all = self.waiting.values().flatten();
        let octets = all.map(|waiting| waiting.piece.len()).sum();
        assert_eq!(octets, self.octets);
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn start() -> Instant {
        #[allow(clippy::disallowed_methods)]
        Instant::now()
    }

    #[test]
    fn pieces_come_out_by_sender_in_order_and_once() {
        let (mut held, now) = (Held::default(), start());
        let piece = |octet: u8| Bytes::from(vec![octet; 100]);
        assert_eq!(held.hold(now, id("a"), id("r"), &[piece(1), piece(2)]), 0);
        assert_eq!(held.hold(now, id("b"), id("r"), &[piece(3)]), 0);
        assert_eq!(held.hold(now, id("a"), id("r"), &[piece(4)]), 0);
        assert_eq!(held.hold(now, id("a"), id("s"), &[piece(5)]), 0);
        let expected = vec![
            (id("a"), vec![piece(1), piece(2), piece(4)]),
            (id("b"), vec![piece(3)]),
        ];
        assert_eq!(held.take(now, id("r")), expected);
        assert_eq!(held.take(now, id("r")), vec![]);
        assert_eq!(held.octets(), 100);
    }

    #[test]
    fn nothing_waits_longer_than_it_may() {
        let (mut held, now) = (Held::default(), start());
        let piece = Bytes::from_static(b"piece");
        held.hold(now, id("a"), id("r"), std::slice::from_ref(&piece));
        let later = now + PATIENCE / 2;
        held.hold(later, id("a"), id("r"), std::slice::from_ref(&piece));
        let end = now + PATIENCE;
        assert_eq!(
            held.take(end, id("r")),
            vec![(id("a"), vec![piece.clone()])]
        );
        held.hold(now, id("a"), id("r"), std::slice::from_ref(&piece));
        // found out when others come to wait, for whomever
        assert_eq!(held.hold(end, id("a"), id("s"), &[]), 1);
        assert_eq!(held.octets(), 0);
    }

    #[test]
    fn no_sender_and_no_receiver_takes_more_than_its_part() {
        let (mut held, now) = (Held::default(), start());
        let pieces = vec![Bytes::from(vec![0; 1024]); 100];
        assert_eq!(held.hold(now, id("a"), id("r"), &pieces), 100 - 24);
        assert_eq!(held.hold(now, id("b"), id("r"), &pieces), 100 - 24);
        assert_eq!(held.hold(now, id("c"), id("r"), &pieces), 100);
        assert_eq!(held.octets(), MAX_FOR_ONE);
        for number in 0..100 {
            held.hold(now, id("a"), id(&format!("r{number}")), &pieces);
        }
        assert_eq!(held.octets(), MAX_OCTETS);
    }
}
