//! Incoming transfers: segments that were rebuilt, put back in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use super::config::MAX_WINDOW;
use super::envelope::{Envelope, Kind};
use super::event::{Paths, TransferError};
use super::placement::Carrier;

/// A rebuilt segment that waits for its turn.
#[derive(Debug)]
struct Waiting {
    message: MessageId,
    payload: Bytes,
    offset: u64,
    last: Option<[u8; 32]>,
    /// Its sender has been told that it is here.
    acknowledged: bool,
}

/// A piece of content in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) payload: Bytes,
    pub(crate) last: bool,
}

/// What [`Incoming::segment`] made of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is kept, or was the next in order: ask [`Incoming::next_piece`].
    Kept,
    /// It was taken before.
    Again,
}

/// A transfer from one sender.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) id: MessageId,
    pub(crate) from: NodeId,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) total: Option<u64>,
    next: u32,
    offset: u64,
    waiting: BTreeMap<u32, Waiting>,
    hasher: blake3::Hasher,
    digest: Option<[u8; 32]>,
    /// Pieces handed on and not yet taken: the message to acknowledge then, unless that was
    /// done, and the piece's octets.
    pub(crate) untaken: VecDeque<(Option<MessageId>, usize)>,
    /// Octets that have been taken by the sink.
    pub(crate) taken: u64,
    /// The content so far, of a message.
    pub(crate) content: Vec<u8>,
    pub(crate) paths: Paths,
    pub(crate) moved: Instant,
    /// The number the driver knows this transfer by.
    pub(crate) handle: u64,
    /// All of it has been handed on; what is missing is the confirmation.
    pub(crate) finishing: bool,
    /// What an earlier run left of its content is not there yet.
    reopening: bool,
}

impl Incoming {
    pub(crate) fn new(now: Instant, from: NodeId, handle: u64, envelope: &Envelope) -> Incoming {
        Incoming {
            id: envelope.transfer,
            from,
            kind: envelope.kind,
            name: envelope.name.clone(),
            total: envelope.total,
            next: 0,
            offset: 0,
            waiting: BTreeMap::new(),
            hasher: blake3::Hasher::new(),
            digest: None,
            untaken: VecDeque::new(),
            taken: 0,
            content: Vec::new(),
            paths: Paths::new(),
            moved: now,
            handle,
            finishing: false,
            reopening: false,
        }
    }

    /// Goes on where an earlier run was: a file waits for [`resumed`](Self::resumed), of a message
    /// the content so far is given.
    pub(crate) fn restore(
        &mut self,
        (next, offset): (u32, u64),
        whole: Option<[u8; 32]>,
        content: Vec<u8>,
    ) {
        (self.next, self.offset, self.taken) = (next, offset, offset);
        self.finishing = whole.is_some();
        self.digest = whole;
        self.reopening = self.kind == Kind::File && whole.is_none();
        self.hasher.update(&content);
        self.content = content;
    }

    /// The file of an earlier run is there, and this is the running digest of what it holds.
    pub(crate) fn resumed(&mut self, now: Instant, hasher: blake3::Hasher) {
        if std::mem::take(&mut self.reopening) {
            self.hasher = hasher;
            self.moved = now;
        }
    }

    fn malformed(&self, what: &'static str) -> TransferError {
        TransferError::Malformed {
            peer: self.from,
            what,
        }
    }

    pub(crate) fn carried(&mut self, carrier: Carrier, octets: usize) {
        let c = self.paths.entry(carrier).or_default();
        c.shares += 1;
        c.octets += octets as u64;
    }

    /// Whether a message is here and its acknowledgement is yet to come.
    pub(crate) fn holds(&self, message: MessageId) -> bool {
        self.waiting
            .values()
            .any(|w| w.message == message && !w.acknowledged)
            || self.untaken.iter().any(|(m, _)| *m == Some(message))
    }

    /// The messages that wait for an earlier one and can be acknowledged: they are safe here, and
    /// their holders need the room. The last of a transfer is acknowledged only at its end.
    pub(crate) fn acknowledge_waiting(&mut self) -> Vec<MessageId> {
        self.waiting
            .values_mut()
            .filter(|w| !w.acknowledged && w.last.is_none())
            .map(|w| {
                w.acknowledged = true;
                w.message
            })
            .collect()
    }

    /// The first segment that is not in order yet.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Octets in order so far.
    pub(crate) fn size(&self) -> u64 {
        self.offset
    }

    /// The digest of the whole content, once the last piece was handed on.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest.unwrap_or_default()
    }

    /// Takes a rebuilt segment.
    pub(crate) fn segment(
        &mut self,
        now: Instant,
        message: MessageId,
        envelope: Envelope,
        payload: Bytes,
    ) -> Result<Taken, TransferError> {
        if envelope.kind != self.kind || envelope.total != self.total || envelope.name != self.name
        {
            return Err(self.malformed("its segments describe different contents"));
        }
        if envelope.number < self.next || self.waiting.contains_key(&envelope.number) {
            return Ok(Taken::Again);
        }
        if envelope.number - self.next >= MAX_WINDOW as u32 {
            return Err(self.malformed("a segment is too far ahead"));
        }
        if self.digest.is_some() {
            return Err(self.malformed("a segment follows the last one"));
        }
        self.moved = now;
        self.waiting.insert(
            envelope.number,
            Waiting {
                message,
                payload,
                offset: envelope.offset,
                last: envelope.last,
                acknowledged: false,
            },
        );
        Ok(Taken::Kept)
    }

    /// The next piece in order, if it is there. The last one is given out only when the digest of
    /// the whole content is the one its sender announced.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>, TransferError> {
        if self.reopening {
            return Ok(None);
        }
        let Some(segment) = self.waiting.remove(&self.next) else {
            return Ok(None);
        };
        if segment.offset != self.offset {
            return Err(self.malformed("a segment does not begin where the one before it ended"));
        }
        self.hasher.update(&segment.payload);
        self.offset += segment.payload.len() as u64;
        self.next = self.next.wrapping_add(1);
        if self.total.is_some_and(|t| self.offset > t) {
            return Err(self.malformed("it holds more than its announced size"));
        }
        if let Some(announced) = segment.last {
            if self.total.is_some_and(|t| self.offset != t) {
                return Err(self.malformed("it holds less than its announced size"));
            }
            if !self.waiting.is_empty() {
                return Err(self.malformed("a segment follows the last one"));
            }
            if *self.hasher.finalize().as_bytes() != announced {
                return Err(TransferError::DigestMismatch { peer: self.from });
            }
            self.digest = Some(announced);
            self.finishing = true;
        }
        let message = (!segment.acknowledged).then_some(segment.message);
        self.untaken.push_back((message, segment.payload.len()));
        Ok(Some(Piece {
            payload: segment.payload,
            last: segment.last.is_some(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> MessageId {
        MessageId::from_random([n; 12])
    }

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    fn envelopes(parts: &[&[u8]]) -> Vec<(Envelope, Bytes)> {
        let whole = parts.concat();
        let mut offset = 0;
        parts
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let e = Envelope {
                    kind: Kind::File,
                    transfer: id(0),
                    number: i as u32,
                    offset,
                    total: Some(whole.len() as u64),
                    name: "f".into(),
                    last: (i + 1 == parts.len()).then(|| *blake3::hash(&whole).as_bytes()),
                };
                offset += p.len() as u64;
                (e, Bytes::copy_from_slice(p))
            })
            .collect()
    }

    fn incoming(e: &Envelope) -> Incoming {
        Incoming::new(now(), "s".parse().unwrap(), 1, e)
    }

    #[test]
    fn segments_in_any_order_come_out_in_order_once() {
        let parts = envelopes(&[b"one ", b"two ", b"three"]);
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut inc = incoming(&parts[0].0);
            let mut out = Vec::new();
            for i in order {
                let (e, p) = parts[i].clone();
                let taken = inc
                    .segment(now(), id(i as u8 + 1), e.clone(), p.clone())
                    .unwrap();
                assert_eq!(taken, Taken::Kept);
                let again = inc.segment(now(), id(i as u8 + 1), e, p).unwrap();
                assert_eq!(again, Taken::Again);
                while let Some(piece) = inc.next_piece().unwrap() {
                    out.extend_from_slice(&piece.payload);
                    assert_eq!(piece.last, out.len() == 13);
                }
            }
            assert_eq!(out, b"one two three");
            assert_eq!(inc.digest(), *blake3::hash(b"one two three").as_bytes());
        }
    }

    #[test]
    fn refuses_a_wrong_digest_size_or_offset() {
        let parts = envelopes(&[b"one ", b"two"]);
        let feed = |a: (Envelope, Bytes), b: (Envelope, Bytes)| {
            let mut inc = incoming(&a.0);
            inc.segment(now(), id(1), a.0, a.1)?;
            inc.next_piece()?;
            inc.segment(now(), id(2), b.0, b.1)?;
            inc.next_piece().map(|p| p.map(|p| p.last))
        };
        let (a, b) = (parts[0].clone(), parts[1].clone());
        assert_eq!(feed(a.clone(), b.clone()), Ok(Some(true)));
        let changed = (b.0.clone(), Bytes::from_static(b"tWo"));
        assert!(matches!(
            feed(a.clone(), changed),
            Err(TransferError::DigestMismatch { .. })
        ));
        let longer = (b.0.clone(), Bytes::from_static(b"two "));
        assert!(matches!(
            feed(a.clone(), longer),
            Err(TransferError::Malformed { .. })
        ));
        let shorter = (b.0.clone(), Bytes::from_static(b"tw"));
        assert!(matches!(
            feed(a.clone(), shorter),
            Err(TransferError::Malformed { .. })
        ));
        let mut moved = b.clone();
        moved.0.offset += 1;
        assert!(matches!(
            feed(a.clone(), moved),
            Err(TransferError::Malformed { .. })
        ));
        let mut renamed = b;
        renamed.0.name = "g".into();
        assert!(matches!(
            feed(a, renamed),
            Err(TransferError::Malformed { .. })
        ));
    }

    #[test]
    fn refuses_a_segment_far_ahead() {
        let parts = envelopes(&[b"x"]);
        let mut inc = incoming(&parts[0].0);
        let (mut e, p) = parts[0].clone();
        e.last = None;
        e.number = MAX_WINDOW as u32 - 1;
        assert!(inc.segment(now(), id(1), e.clone(), p.clone()).is_ok());
        e.number += 1;
        assert!(inc.segment(now(), id(1), e, p).is_err());
    }
}
