//! Datagrams that wait to leave, and whose turn it is.
//!
//! A datagram is sent once or not at all: nothing here survives its transmission.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::DatagramError;

/// Datagrams sent for each segment while both wait.
const TURNS: u8 = 3;

/// The unsent datagrams of one session. Octets are those of whole datagrams, headers and tag
/// included, so that small ones are bounded in number too.
#[derive(Debug, Default)]
pub(crate) struct DatagramQueue {
    waiting: VecDeque<Bytes>,
    octets: usize,
    /// Sent ahead of segments since it was a segment's turn.
    turns: u8,
    /// The application was told that there is no room, and not yet that there is some.
    awaited: bool,
}

impl DatagramQueue {
    /// Octets that wait.
    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a datagram whose headers and tag are `framing` octets, if no more than `limit`
    /// octets wait then. `target`: what is worth having in the queue.
    pub(crate) fn push(
        &mut self,
        payload: Bytes,
        framing: usize,
        limit: usize,
        target: usize,
    ) -> Result<(), DatagramError> {
        let octets = self.octets + payload.len() + framing;
        if octets > limit {
            self.awaited = true;
            let queued = self.octets;
            return Err(DatagramError::Full { queued, limit });
        }
        self.octets = octets;
        self.awaited |= octets >= target;
        self.waiting.push_back(payload);
        Ok(())
    }

    /// The oldest datagram.
    pub(crate) fn pop(&mut self, framing: usize) -> Option<Bytes> {
        let payload = self.waiting.pop_front()?;
        self.octets = self.octets.saturating_sub(payload.len() + framing);
        Some(payload)
    }

    /// Whether the application waits for room and there is some: less than `target` octets. Says
    /// so once.
    pub(crate) fn has_room_again(&mut self, target: usize) -> bool {
        self.awaited && self.octets < target && std::mem::take(&mut self.awaited)
    }

    /// Whether a datagram goes before a segment that may also wait: three times in four.
    pub(crate) fn take_turn(&mut self) -> bool {
        let next = self.turns < TURNS && !self.waiting.is_empty();
        self.turns = if next { self.turns + 1 } else { 0 };
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 8192;
    const FRAMING: usize = 96;

    #[test]
    fn three_turns_of_four_are_a_datagrams() {
        let mut queue = DatagramQueue::default();
        assert!(!queue.take_turn(), "nothing waits");
        for _ in 0..10 {
            let payload = Bytes::from_static(b"one");
            queue.push(payload, FRAMING, LIMIT, LIMIT).unwrap();
        }
        let turns: Vec<bool> = (0..8).map(|_| queue.take_turn()).collect();
        let expected = [true, true, true, false, true, true, true, false];
        assert_eq!(turns, expected);
    }

    proptest! {
        /// As a plain list, bounded; room is told once after every time that it was used up.
        #[test]
        fn behaves_as_a_bounded_list(
            steps in prop::collection::vec(prop::option::of(1usize..3000), 0..200),
            target in 1usize..LIMIT,
        ) {
            let mut queue = DatagramQueue::default();
            let mut model: VecDeque<usize> = VecDeque::new();
            let octets = |model: &VecDeque<usize>| -> usize {
                model.iter().map(|octets| octets + FRAMING).sum()
            };
            let mut awaited = false;
            for step in steps {
                if let Some(size) = step {
                    let queued = octets(&model);
                    let fits = queued + size + FRAMING <= LIMIT;
                    let pushed = queue.push(vec![0; size].into(), FRAMING, LIMIT, target);
                    if fits {
                        prop_assert_eq!(pushed, Ok(()));
                        model.push_back(size);
                    } else {
                        prop_assert_eq!(pushed, Err(DatagramError::Full { queued, limit: LIMIT }));
                    }
                    awaited |= !fits || octets(&model) >= target;
                } else {
                    let popped = queue.pop(FRAMING).map(|payload| payload.len());
                    prop_assert_eq!(popped, model.pop_front());
                }
                prop_assert_eq!(queue.octets(), octets(&model));
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                let room = awaited && octets(&model) < target;
                prop_assert_eq!(queue.has_room_again(target), room);
                awaited &= !room;
            }
        }
    }
}
