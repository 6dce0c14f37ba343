//! Pieces: a small message sealed to its receiver and cut so that any k of n open it.

use core::fmt;
use core::num::NonZeroU8;

use bytes::Bytes;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use vmdt_ssms::dispersal::Code;
use vmdt_ssms::shamir::{KeyShare, combine_key, split_key};
use vmdt_ssms::{KEY_LEN, Threshold};
use vmdt_wire::NodeId;
use zeroize::{Zeroize as _, Zeroizing};

use crate::aead::AeadKey;
use crate::codec::Reader;
use crate::e2e::Secret;
use crate::error::ParseError;
use crate::packet::{Backend, Suite, TAG_LEN};

/// Octets of a piece besides its part of the ciphertext.
pub const PIECE_FIXED: usize = HEAD_LEN + KEY_LEN + TAG_LEN;
/// The most octets that are sealed as one message.
pub const MAX_PLAIN: usize = u16::MAX as usize - TAG_LEN;

const HEAD_LEN: usize = 4 + 4 + 1 + 1 + 1 + 1 + 2;

const PIECE_KEY: &str = "vmdt 1.1 express pieces";
const MESSAGE_SECRET: &str = "vmdt 1.1 express message";
const CONTENT_KEY: &str = "vmdt 1.1 express content";

/// Why octets are no piece of this pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PieceError {
    /// They are not a piece.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It is of another opening.
    #[error("the piece is of opening {found}, expected was {expected}")]
    OtherOpening {
        /// The opening that it names.
        found: u32,
        /// This one.
        expected: u32,
    },
    /// It was altered, or made by somebody else.
    #[error("the piece's tag is not right")]
    Tag,
}

/// Why a message was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// It is longer than [`MAX_PLAIN`].
    #[error("a message of {found} octets, allowed are at most {MAX_PLAIN}")]
    TooLong {
        /// Its octets.
        found: usize,
    },
}

/// Why pieces do not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Fewer different ones than are needed.
    #[error("{given} pieces given, {needed} needed")]
    TooFew {
        /// How many different ones there were.
        given: usize,
        /// How many are needed.
        needed: usize,
    },
    /// They are not of one message.
    #[error("the pieces are not of one message")]
    Mixed,
    /// Genuine pieces do not make a message: their sender made them so.
    #[error("the pieces are genuine and do not open: their sender made them so")]
    Sealed,
}

/// What stands in front of a piece, unchecked: enough to find whose opening it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHead {
    /// The opening it names.
    pub opening: u32,
    /// The message it says that it is of.
    pub counter: u32,
}

impl PieceHead {
    /// Reads the first octets of a piece; `None` when there are too few.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<PieceHead> {
        let mut reader = Reader::new(octets);
        Some(PieceHead {
            opening: reader.u32("opening").ok()?,
            counter: reader.u32("counter").ok()?,
        })
    }
}

/// A piece whose tag was checked.
///
/// | octets | field |
/// |---|---|
/// | 4 | id of the opening |
/// | 4 | counter: which message under this opening, from 0 |
/// | 1 | index, 1 to n |
/// | 1 + 1 | k, n |
/// | 1 | 0 |
/// | 2 | c, octets of the ciphertext |
/// | 32 | key share |
/// | ceil(c / k) | piece of the ciphertext |
/// | 16 | tag |
pub struct Piece {
    counter: u32,
    threshold: Threshold,
    size: u16,
    share: KeyShare,
    data: Bytes,
}

impl Piece {
    /// The message it is of.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// Which piece it is, from 1.
    #[must_use]
    pub fn index(&self) -> NonZeroU8 {
        self.share.index()
    }

    /// How many pieces there are, and how many of them are needed.
    #[must_use]
    pub const fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Octets of the whole ciphertext.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Octets of the piece as it was sent.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        PIECE_FIXED + self.data.len()
    }

    /// Whether both are of one message, as far as can be seen.
    #[must_use]
    pub fn fits(&self, other: &Piece) -> bool {
        (self.counter, self.threshold, self.size) == (other.counter, other.threshold, other.size)
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("counter", &self.counter)
            .field("index", &self.index())
            .field("threshold", &self.threshold)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The secret of a pair: seals at one end and opens at the other. Wiped when dropped; `Debug` shows
/// nothing of it.
pub struct Channel {
    id: u32,
    sender: NodeId,
    receiver: NodeId,
    secret: Secret,
    piece_key: Secret,
}

impl Channel {
    pub(super) fn new(id: u32, sender: NodeId, receiver: NodeId, secret: &Secret) -> Channel {
        Channel {
            id,
            sender,
            receiver,
            secret: secret.clone(),
            piece_key: derive(PIECE_KEY, &[&***secret]),
        }
    }

    /// The opening it came from.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Octets of one piece of a message of so many octets, any `k` of which open it.
    #[must_use]
    pub fn piece_len(plain: usize, k: u8) -> usize {
        PIECE_FIXED + (plain + TAG_LEN).div_ceil(usize::from(k).max(1))
    }

    /// Seals a message: its n pieces, in order of their indices. No two messages may have one
    /// counter under one opening, unless they are the same; the content is safe even so, since
    /// each has a random key of its own, but the receiver takes one of them only.
    ///
    /// # Errors
    /// [`SealError::TooLong`].
    pub fn seal(
        &self,
        code: &Code,
        counter: u32,
        plain: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Bytes>, SealError> {
        let found = plain.len();
        let too_long = |_| SealError::TooLong { found };
        let size = u16::try_from(found + TAG_LEN).map_err(too_long)?;
        let threshold = code.threshold();
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(&mut *secret);
        let shares = split_key(&secret, threshold, rng);
        let key = self.content_key(counter, &secret);
        let mut ciphertext = Vec::with_capacity(usize::from(size));
        ciphertext.extend_from_slice(plain);
        let associated = self.associated(counter, threshold);
        let tag = AeadKey::new(Suite::ChaCha20Poly1305, &key, Backend::default())
            .seal(0, &associated, &mut ciphertext)
            .map_err(|_| SealError::TooLong { found })?;
        ciphertext.extend_from_slice(&tag);
        let data = code.disperse(&ciphertext);
        let pieces = shares.iter().zip(data).map(|(share, data)| {
            let mut out = Vec::with_capacity(PIECE_FIXED + data.len());
            out.extend_from_slice(&self.id.to_be_bytes());
            out.extend_from_slice(&counter.to_be_bytes());
            out.extend([share.index().get(), threshold.k(), threshold.n(), 0]);
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(share.value());
            out.extend_from_slice(&data);
            let tag = self.tag(&out);
            out.extend_from_slice(&tag);
            Bytes::from(out)
        });
        Ok(pieces.collect())
    }

    /// Reads a piece and checks its tag.
    ///
    /// # Errors
    /// [`PieceError`]: nothing of it is to be used, and nobody in particular is to blame.
    pub fn check(&self, octets: &Bytes) -> Result<Piece, PieceError> {
        let mut reader = Reader::new(octets);
        let found = reader.u32("opening")?;
        let counter = reader.u32("counter")?;
        let at = reader.offset();
        let [index, k, n, flags] = reader.array("index, k, n and flags")?;
        let size = reader.u16("size")?;
        let value = Zeroizing::new(reader.array("key share")?);
        let bad = |field, offset, found: u8, allowed| ParseError::Value {
            field,
            offset,
            found: u64::from(found),
            allowed,
        };
        let threshold =
            Threshold::new(k, n).map_err(|_| bad("k and n", at + 1, k, "2 to n of n"))?;
        let index = NonZeroU8::new(index)
            .filter(|index| index.get() <= n)
            .ok_or(bad("index", at, index, "1 to n"))?;
        if flags != 0 {
            return Err(bad("flags", at + 3, flags, "0").into());
        }
        let from = reader.offset();
        let len = usize::from(size).div_ceil(usize::from(k));
        reader.take("data", len)?;
        let end = reader.offset();
        let tag: [u8; TAG_LEN] = reader.array("tag")?;
        reader.end()?;
        if usize::from(size) < TAG_LEN {
            return Err(ParseError::Value {
                field: "size",
                offset: at + 4,
                found: u64::from(size),
                allowed: "16 and more",
            }
            .into());
        }
        if found != self.id {
            return Err(PieceError::OtherOpening {
                found,
                expected: self.id,
            });
        }
        let right = self.tag(octets.get(..end).unwrap_or_default());
        if !bool::from(right.ct_eq(&tag)) {
            return Err(PieceError::Tag);
        }
        Ok(Piece {
            counter,
            threshold,
            size,
            share: KeyShare::new(index, &value),
            data: octets.slice(from..end),
        })
    }

    /// Opens a message from k or more of its pieces.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, pieces: &[Piece]) -> Result<Vec<u8>, OpenError> {
        let first = pieces.first().ok_or(OpenError::TooFew {
            given: 0,
            needed: 2,
        })?;
        if !pieces.iter().all(|piece| piece.fits(first)) {
            return Err(OpenError::Mixed);
        }
        let needed = usize::from(first.threshold.k());
        let mut chosen: Vec<&Piece> = Vec::with_capacity(needed);
        for piece in pieces {
            if chosen.len() < needed && chosen.iter().all(|c| c.index() != piece.index()) {
                chosen.push(piece);
            }
        }
        if chosen.len() < needed {
            return Err(OpenError::TooFew {
                given: chosen.len(),
                needed,
            });
        }
        let points: Vec<(NonZeroU8, &[u8; KEY_LEN])> = chosen
            .iter()
            .map(|piece| (piece.index(), piece.share.value()))
            .collect();
        let data: Vec<(NonZeroU8, &[u8])> = chosen
            .iter()
            .map(|piece| (piece.index(), &piece.data[..]))
            .collect();
        let secret = combine_key(&points).map_err(|_| OpenError::Sealed)?;
        let mut ciphertext = Code::new(first.threshold)
            .gather(&data, usize::from(first.size))
            .map_err(|_| OpenError::Sealed)?;
        let at = ciphertext.len().saturating_sub(TAG_LEN);
        let tag = ciphertext.split_off(at);
        let tag: [u8; TAG_LEN] = tag.try_into().map_err(|_| OpenError::Sealed)?;
        let key = self.content_key(first.counter, secret.as_bytes());
        let associated = self.associated(first.counter, first.threshold);
        AeadKey::new(Suite::ChaCha20Poly1305, &key, Backend::default())
            .open(0, &associated, &mut ciphertext, &tag)
            .map_err(|_| OpenError::Sealed)?;
        Ok(ciphertext)
    }

    fn tag(&self, octets: &[u8]) -> [u8; TAG_LEN] {
        let hash = blake3::keyed_hash(&self.piece_key, octets);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(hash.as_bytes().split_at(TAG_LEN).0);
        tag
    }

    fn content_key(&self, counter: u32, secret: &[u8; KEY_LEN]) -> Secret {
        let number = u64::from(counter).to_be_bytes();
        let bound = derive(MESSAGE_SECRET, &[&**self.secret, &number]);
        derive(CONTENT_KEY, &[secret, &**bound])
    }

    fn associated(&self, counter: u32, threshold: Threshold) -> Vec<u8> {
        [
            &self.sender.field()[..],
            &self.receiver.field(),
            &self.id.to_be_bytes(),
            &counter.to_be_bytes(),
            &[threshold.k(), threshold.n()],
        ]
        .concat()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn derive(context: &str, parts: &[&[u8]]) -> Secret {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let mut secret = Secret::default();
    let mut output = hasher.finalize_xof();
    output.fill(&mut **secret);
    output.zeroize();
    hasher.zeroize();
    secret
}
