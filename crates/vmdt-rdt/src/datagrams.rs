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
