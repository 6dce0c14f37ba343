//! What a datagram of the transport holds (`docs/protocol.md`, section 12.14).
//!
//! | kind | then |
//! |---|---|
//! | 1, hand on | receiver's id (16), pieces |
//! | 2, here is | sender's id (16), pieces |
//! | 3, delivered | id of the opening (4), ranges of counters: first (4), last (4), the largest first |
//! | 4, opening | what EXPRESS_OPEN says as well |
//! | 5, opened | id of the opening (4), what EXPRESS_OK says as well |
//!
//! Each piece stands behind its length of 2 octets.

use bytes::{BufMut as _, Bytes, BytesMut};
use vmdt_wire::NodeId;

/// Octets in front of pieces.
pub(crate) const HEAD: usize = 1 + 16;
/// Octets in front of each piece.
pub(crate) const PREFIX: usize = 2;
/// The most ranges in one confirmation.
pub(crate) const MAX_RANGES: usize = 32;

const HAND_ON: u8 = 1;
const HERE_IS: u8 = 2;
const DELIVERED: u8 = 3;
const OPENING: u8 = 4;
const OPENED: u8 = 5;
/// The longest opening that is looked at.
const MAX_OPENING: usize = 256;

/// What a datagram says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// Pieces for somebody else, from their sender.
    HandOn { to: NodeId, pieces: Vec<Bytes> },
    /// Pieces for this node.
    HereIs { from: NodeId, pieces: Vec<Bytes> },
    /// Messages of this node under one opening that were delivered, as ranges of counters.
    Delivered {
        opening: u32,
        ranges: Vec<(u32, u32)>,
    },
    /// What messages of the sender of this datagram will be sealed under.
    Opening(Bytes),
    /// This opening was taken.
    Opened { id: u32 },
}

/// Why octets are no datagram of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it ends too early")]
    Truncated,
    #[error("its kind is not known")]
    Kind,
    #[error("it names no node")]
    Id,
    #[error("it holds an empty piece, or none")]
    Empty,
    #[error("its ranges are not in order, or too many")]
    Ranges,
    #[error("it is longer than it can be")]
    TooLong,
}

impl Datagram {
    /// Reads a datagram. Pieces are slices of it.
    pub(crate) fn parse(octets: &Bytes) -> Result<Datagram, Malformed> {
        let (kind, rest) = octets.split_first().ok_or(Malformed::Truncated)?;
        match *kind {
            HAND_ON | HERE_IS => {
                let id = rest.first_chunk::<16>().ok_or(Malformed::Truncated)?;
                let id = NodeId::from_field(*id)
                    .ok()
                    .filter(|id| !id.is_empty())
                    .ok_or(Malformed::Id)?;
                let pieces = pieces(octets)?;
                Ok(if *kind == HAND_ON {
                    Datagram::HandOn { to: id, pieces }
                } else {
                    Datagram::HereIs { from: id, pieces }
                })
            }
            DELIVERED => delivered(rest),
            OPENING if rest.len() > MAX_OPENING => Err(Malformed::TooLong),
            OPENING => Ok(Datagram::Opening(octets.slice(1..))),
            OPENED => {
                let id = rest.first_chunk::<4>().ok_or(Malformed::Truncated)?;
                match rest.len() {
                    4 => Ok(Datagram::Opened {
                        id: u32::from_be_bytes(*id),
                    }),
                    _ => Err(Malformed::TooLong),
                }
            }
            _ => Err(Malformed::Kind),
        }
    }

    /// Pieces that a holder is to hand on.
    pub(crate) fn hand_on<'a>(to: NodeId, pieces: impl Iterator<Item = &'a Bytes>) -> Bytes {
        write(HAND_ON, to, pieces)
    }

    /// Pieces at their receiver.
    pub(crate) fn here_is<'a>(from: NodeId, pieces: impl Iterator<Item = &'a Bytes>) -> Bytes {
        write(HERE_IS, from, pieces)
    }

    /// An opening, beside the line that says the same.
    pub(crate) fn opening(octets: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + octets.len());
        out.put_u8(OPENING);
        out.put_slice(octets);
        out.freeze()
    }

    /// The answer to an opening, beside the line that says the same.
    pub(crate) fn opened(id: u32) -> Bytes {
        let mut out = BytesMut::with_capacity(5);
        out.put_u8(OPENED);
        out.put_u32(id);
        out.freeze()
    }

    /// The first [`MAX_RANGES`] of these ranges, largest first.
    pub(crate) fn confirm(opening: u32, ranges: impl Iterator<Item = (u32, u32)>) -> Bytes {
        let mut out = BytesMut::with_capacity(5 + 8 * MAX_RANGES);
        out.put_u8(DELIVERED);
        out.put_u32(opening);
        for (first, last) in ranges.take(MAX_RANGES) {
            out.put_u32(first);
            out.put_u32(last);
        }
        out.freeze()
    }
}

fn write<'a>(kind: u8, id: NodeId, pieces: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut out = BytesMut::with_capacity(1400);
    out.put_u8(kind);
    out.put_slice(&id.field());
    for piece in pieces {
        // no piece is longer than a datagram
        out.put_u16(u16::try_from(piece.len()).unwrap_or(u16::MAX));
        out.put_slice(piece);
    }
    out.freeze()
}

fn pieces(octets: &Bytes) -> Result<Vec<Bytes>, Malformed> {
    let mut at = HEAD;
    let mut pieces = Vec::new();
    while at < octets.len() {
        let len = octets
            .get(at..at + PREFIX)
            .and_then(|len| len.first_chunk::<2>())
            .ok_or(Malformed::Truncated)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (from, to) = (at + PREFIX, at + PREFIX + len);
        if len == 0 {
            return Err(Malformed::Empty);
        }
        if to > octets.len() {
            return Err(Malformed::Truncated);
        }
        pieces.push(octets.slice(from..to));
        at = to;
    }
    if pieces.is_empty() {
        return Err(Malformed::Empty);
    }
    Ok(pieces)
}

fn delivered(rest: &[u8]) -> Result<Datagram, Malformed> {
    let (opening, rest) = rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let (chunks, left) = rest.as_chunks::<8>();
    if !left.is_empty() {
        return Err(Malformed::Truncated);
    }
    if chunks.is_empty() || chunks.len() > MAX_RANGES {
        return Err(Malformed::Ranges);
    }
    let mut ranges: Vec<(u32, u32)> = Vec::with_capacity(chunks.len());
    for [a, b, c, d, e, f, g, h] in chunks {
        let (first, last) = (
            u32::from_be_bytes([*a, *b, *c, *d]),
            u32::from_be_bytes([*e, *f, *g, *h]),
        );
        // descending, and with a gap between them
        let after = ranges
            .last()
            .is_none_or(|(before, _)| last.checked_add(1).is_some_and(|next| next < *before));
        if first > last || !after {
            return Err(Malformed::Ranges);
        }
        ranges.push((first, last));
    }
    Ok(Datagram::Delivered {
        opening: u32::from_be_bytes(*opening),
        ranges,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> NodeId {
        "@AbCdEfGhIjKlMn0".parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let pieces = vec![Bytes::from_static(b"one"), Bytes::from_static(b"another")];
        let to = id();
        let read = Datagram::parse(&Datagram::hand_on(to, pieces.iter()));
        let pieces_again = pieces.clone();
        assert_eq!(read, Ok(Datagram::HandOn { to, pieces }));
        let read = Datagram::parse(&Datagram::here_is(to, pieces_again.iter()));
        let pieces = pieces_again;
        assert_eq!(read, Ok(Datagram::HereIs { from: to, pieces }));
        let ranges = vec![(9, u32::MAX), (4, 7), (0, 0)];
        let octets = Datagram::confirm(7, ranges.iter().copied());
        let read = Datagram::parse(&octets);
        assert_eq!(read, Ok(Datagram::Delivered { opening: 7, ranges }));
        let opening = Bytes::from_static(b"opening");
        let read = Datagram::parse(&Datagram::opening(&opening));
        assert_eq!(read, Ok(Datagram::Opening(opening)));
        let read = Datagram::parse(&Datagram::opened(7));
        assert_eq!(read, Ok(Datagram::Opened { id: 7 }));
    }

    #[test]
    fn openings_and_answers_of_another_length_are_refused() {
        let longest = Datagram::opening(&[7; MAX_OPENING]);
        assert!(Datagram::parse(&longest).is_ok());
        let longer = Datagram::opening(&[7; MAX_OPENING + 1]);
        assert_eq!(Datagram::parse(&longer), Err(Malformed::TooLong));
        let opened = Datagram::opened(7);
        let shorter = Datagram::parse(&opened.slice(..4));
        assert_eq!(shorter, Err(Malformed::Truncated));
        let longer = Bytes::from([&opened[..], &[0]].concat());
        assert_eq!(Datagram::parse(&longer), Err(Malformed::TooLong));
    }

    #[test]
    fn truncations_empty_pieces_and_unknown_kinds_are_refused() {
        let whole = Datagram::hand_on(id(), [Bytes::from_static(b"one")].iter());
        for cut in 0..whole.len() {
            assert!(Datagram::parse(&whole.slice(..cut)).is_err(), "{cut}");
        }
        let mut other = whole.to_vec();
        other[0] = 9;
        assert_eq!(Datagram::parse(&other.into()), Err(Malformed::Kind));
        let mut other = whole.to_vec();
        other.extend([0, 0]);
        assert_eq!(Datagram::parse(&other.into()), Err(Malformed::Empty));
        let none = Datagram::hand_on(id(), std::iter::empty());
        assert_eq!(Datagram::parse(&none), Err(Malformed::Empty));
    }

    #[test]
    fn ranges_descend_with_gaps_and_are_bounded() {
        for bad in [
            vec![],
            vec![(2, 1)],
            vec![(1, 2), (4, 5)],
            vec![(4, 5), (1, 3)],
            vec![(4, 5), (4, 5)],
        ] {
            let octets = Datagram::confirm(7, bad.iter().copied());
            assert_eq!(Datagram::parse(&octets), Err(Malformed::Ranges), "{bad:?}");
        }
        let many = (0..100u32).rev().map(|n| (n * 2, n * 2));
        let octets = Datagram::confirm(7, many);
        let Ok(Datagram::Delivered { ranges, .. }) = Datagram::parse(&octets) else {
            panic!("as many as may be");
        };
        assert_eq!((ranges.len(), ranges[0]), (MAX_RANGES, (198, 198)));
        let mut more = octets.to_vec();
        more.extend([0; 8]);
        assert_eq!(Datagram::parse(&more.into()), Err(Malformed::Ranges));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(octets in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            let mut octets = octets;
            if let Some(first) = octets.first_mut() {
                *first = kind;
            }
            let octets = Bytes::from(octets);
            if let Ok(datagram) = Datagram::parse(&octets) {
                let again = match datagram {
                    Datagram::HandOn { to, pieces } => Datagram::hand_on(to, pieces.iter()),
                    Datagram::HereIs { from, pieces } => Datagram::here_is(from, pieces.iter()),
                    Datagram::Delivered { opening, ranges } => {
                        Datagram::confirm(opening, ranges.into_iter())
                    }
                    Datagram::Opening(opening) => Datagram::opening(&opening),
                    Datagram::Opened { id } => Datagram::opened(id),
                };
                prop_assert_eq!(again, octets);
            }
        }
    }
}
