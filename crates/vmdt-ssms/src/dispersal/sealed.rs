//! Encryption and coding in one pass.

use core::num::NonZeroU8;
use core::ops::Range;

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Code, CodeError};
use crate::cipher::{PieceKey, PieceStream};
use crate::share::KEY_LEN;

/// How many octets of all pieces together are encrypted before they are coded: they are to be
/// found in the first-level cache. Streams advance by multiples of 1024 octets, which every
/// backend of the cipher takes without a remainder.
const STRIP: usize = 24 << 10;

impl Code {
    /// Encrypts a message with AES-256-CTR and disperses the ciphertext: all `n` pieces, in order
    /// of their indices. Nothing is authenticated; [`v2`](crate::v2) is built on this and is what
    /// to use where octets can be altered on their way.
    ///
    /// Each data piece `i` is encrypted under counter blocks of its own, `i` followed by eleven
    /// zero octets and a 32-bit big-endian counter, so that pieces can be worked on apart. Zeros
    /// that fill up the last pieces are not encrypted. **A key must serve one message only.**
    ///
    /// Encryption and coding go hand in hand, strip by strip, so that the ciphertext is coded
    /// while it is in the first-level cache.
    #[must_use]
    pub fn seal(&self, key: &[u8; KEY_LEN], message: &[u8]) -> Vec<Bytes> {
        let len = self.piece_len(message.len());
        let (k, n) = self.counts();
        if len == 0 {
            return vec![Bytes::new(); n];
        }
        // One allocation, not one per piece: measured to be faster up to a megabyte.
        let mut all = vec![0; n * len];
        let (data, parity) = all.split_at_mut(k * len);
        let mut data: Vec<&mut [u8]> = data.chunks_mut(len).collect();
        let mut parity: Vec<&mut [u8]> = parity.chunks_mut(len).collect();
        self.in_strips(key, len, |streams, range| {
            let mut sources = message.chunks(len);
            for (stream, piece) in streams.iter_mut().zip(&mut data) {
                let source = sources.next().unwrap_or_default();
                let end = range.end.min(source.len());
                let range = range.start.min(end)..end;
                if let (Some(from), Some(to)) = (source.get(range.clone()), piece.get_mut(range)) {
                    stream.apply_between(from, to);
                }
            }
            self.kernel
                .combine_range(&self.parity, &data, &mut parity, range);
        });
        let all = Bytes::from(all);
        (0..n).map(|i| all.slice(i * len..(i + 1) * len)).collect()
    }

    /// As [`Code::seal`], in the buffer that is handed over: the data pieces become slices of it.
    /// Up to `k - 1` octets are added to it; without spare capacity it is moved.
    #[must_use]
    pub fn seal_owned(&self, key: &[u8; KEY_LEN], mut message: Vec<u8>) -> Vec<Bytes> {
        let size = message.len();
        let len = self.piece_len(size);
        let (k, n) = self.counts();
        if len == 0 {
            return vec![Bytes::new(); n];
        }
        message.resize(k * len, 0);
        let mut coded = vec![0; (n - k) * len];
        let mut data: Vec<&mut [u8]> = message.chunks_mut(len).collect();
        let mut parity: Vec<&mut [u8]> = coded.chunks_mut(len).collect();
        self.in_strips(key, len, |streams, range| {
            let mut left = size;
            for (stream, piece) in streams.iter_mut().zip(&mut data) {
                let end = range.end.min(left);
                if let Some(octets) = piece.get_mut(range.start.min(end)..end) {
                    stream.apply(octets);
                }
                left = left.saturating_sub(len);
            }
            self.kernel
                .combine_range(&self.parity, &data, &mut parity, range);
        });
        let (data, parity) = (Bytes::from(message), Bytes::from(coded));
        let cut = |all: &Bytes, i: usize| all.slice(i * len..(i + 1) * len);
        let data = (0..k).map(|i| cut(&data, i));
        data.chain((0..n - k).map(|i| cut(&parity, i))).collect()
    }

    /// Rebuilds the message of `len` octets from `k` or more pieces of [`Code::seal`], in any
    /// order, under the same key. A wrong key or altered pieces give noise, not an error.
    ///
    /// # Errors
    ///
    /// As [`Code::gather`].
    pub fn open(
        &self,
        key: &[u8; KEY_LEN],
        pieces: &[(NonZeroU8, &[u8])],
        len: usize,
    ) -> Result<Vec<u8>, CodeError> {
        let rebuilt = self.rebuild(pieces, len)?;
        Ok(rebuilt.decrypt(&PieceKey::new(key)))
    }

    /// Computes the data pieces that are missing.
    pub(crate) fn rebuild<'p>(
        &self,
        pieces: &[(NonZeroU8, &'p [u8])],
        len: usize,
    ) -> Result<Rebuilt<'p>, CodeError> {
        let piece_len = self.piece_len(len);
        for (_, piece) in pieces {
            if piece.len() != piece_len {
                return Err(CodeError::Length {
                    given: piece.len(),
                    needed: piece_len,
                });
            }
        }
        let indices: Vec<NonZeroU8> = pieces.iter().map(|(index, _)| *index).collect();
        let choice = self.choose(&indices)?;
        let (k, _) = self.counts();
        let mut out = vec![0; k * piece_len];
        let mut present = vec![None; k];
        for (index, piece) in choice.positions.iter().filter_map(|&at| pieces.get(at)) {
            if let Some(slot) = present.get_mut(usize::from(index.get()) - 1) {
                *slot = Some(*piece);
            }
        }
        if !choice.missing.is_empty() && piece_len > 0 {
            let recovery = self.recovery(&choice.present, &choice.missing)?;
            let sources: Vec<&[u8]> = choice
                .positions
                .iter()
                .filter_map(|&at| pieces.get(at).map(|(_, piece)| *piece))
                .collect();
            let parts = out.chunks_mut(piece_len).zip(&present);
            let mut wanted: Vec<&mut [u8]> = parts
                .filter(|(_, piece)| piece.is_none())
                .map(|(part, _)| part)
                .collect();
            recovery.apply(&sources, &mut wanted)?;
        }
        Ok(Rebuilt {
            out,
            present,
            piece_len,
            len,
        })
    }

    fn counts(&self) -> (usize, usize) {
        let threshold = self.threshold();
        (usize::from(threshold.k()), usize::from(threshold.n()))
    }

    /// Hands the streams of all data pieces to `work`, with one range of octets after the other.
    fn in_strips(
        &self,
        key: &[u8; KEY_LEN],
        len: usize,
        mut work: impl FnMut(&mut [PieceStream], Range<usize>),
    ) {
        let key = PieceKey::new(key);
        let k = self.threshold().k();
        let mut streams = Vec::with_capacity(usize::from(k));
        streams.extend((1..=k).map(|index| key.stream(index)));
        let strip = (STRIP / usize::from(k)).next_multiple_of(1024);
        let mut from = 0;
        while from < len {
            let to = len.min(from + strip);
            work(&mut streams, from..to);
            from = to;
        }
    }
}

/// The ciphertext of a message, in data pieces.
pub(crate) struct Rebuilt<'p> {
    /// Room for all pieces; those that were missing are in their places.
    out: Vec<u8>,
    present: Vec<Option<&'p [u8]>>,
    piece_len: usize,
    len: usize,
}

impl Rebuilt<'_> {
    /// The pieces that had to be computed, with their indices.
    pub(crate) fn computed(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let missing = (1..=u8::MAX).zip(&self.present);
        missing
            .filter(|(_, present)| present.is_none())
            .filter_map(|(index, _)| {
                let from = (usize::from(index) - 1) * self.piece_len;
                Some((index, self.out.get(from..from + self.piece_len)?))
            })
    }

    pub(crate) fn decrypt(mut self, key: &PieceKey) -> Vec<u8> {
        let mut left = self.len;
        let parts = self.out.chunks_mut(self.piece_len.max(1));
        for (index, (part, present)) in (1..=u8::MAX).zip(parts.zip(&self.present)) {
            // What fills up the last pieces is not part of the message.
            let (part, _) = part.split_at_mut(left.min(part.len()));
            match present.map(|piece| piece.split_at(part.len().min(piece.len())).0) {
                Some(piece) => key.stream(index).apply_between(piece, part),
                None => key.stream(index).apply(part),
            }
            left -= part.len();
        }
        self.out.truncate(self.len);
        self.out
    }
}
