//! Encryption and coding in one pass.

use core::mem;
use core::num::NonZeroU8;
use core::ops::Range;

use alloc::vec;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::{Code, CodeError};
use crate::cipher::{PieceKey, PieceStream};
use crate::share::KEY_LEN;

/// How many octets of all data pieces together are encrypted before they are coded: few enough to
/// be found in the second-level cache, with what is coded from them, and enough for the processor
/// to see each piece as a stream.
const STRIP: usize = 192 << 10;

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
    /// while it is in the cache, and memory beyond the caches is written once.
    #[must_use]
    pub fn seal(&self, key: &[u8; KEY_LEN], message: &[u8]) -> Vec<Bytes> {
        self.seal_and(key, message, |_, _| ())
    }

    /// As [`Code::seal`], and shows every strip of all pieces to `done` while it is in the cache.
    /// Strips follow each other without a gap.
    pub(crate) fn seal_and(
        &self,
        key: &[u8; KEY_LEN],
        message: &[u8],
        mut done: impl FnMut(&[BytesMut], Range<usize>),
    ) -> Vec<Bytes> {
        let len = self.piece_len(message.len());
        let (k, n) = self.counts();
        if len == 0 {
            return vec![Bytes::new(); n];
        }
        let mut pieces = windows(n, len);
        self.in_strips(key, len, |streams, range| {
            let (data, parity) = pieces.split_at_mut(k);
            let mut sources = message.chunks(len);
            for (stream, piece) in streams.iter_mut().zip(&mut *data) {
                let source = sources.next().unwrap_or_default();
                let end = range.end.min(source.len());
                let part = source.get(range.start.min(end)..end).unwrap_or_default();
                stream.append(part, piece, message.len());
                piece.resize(range.end, 0);
            }
            // Zeros come strip by strip: the cache holds them until they are written over.
            for piece in &mut *parity {
                piece.resize(range.end, 0);
            }
            self.kernel
                .combine_range(&self.parity, data, parity, range.clone());
            done(&pieces, range);
        });
        pieces.into_iter().map(BytesMut::freeze).collect()
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
        let mut data: Vec<&mut [u8]> = message.chunks_mut(len).collect();
        let mut parity = windows(n - k, len);
        self.in_strips(key, len, |streams, range| {
            for piece in &mut parity {
                piece.resize(range.end, 0);
            }
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
        let data = Bytes::from(message);
        let data = (0..k).map(|i| data.slice(i * len..(i + 1) * len));
        data.chain(parity.into_iter().map(BytesMut::freeze))
            .collect()
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
        let mut message = Vec::new();
        let rebuilt = self.rebuild(pieces, len)?;
        rebuilt.decrypt_to(&PieceKey::new(key), &mut message);
        Ok(message)
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
        let mut present = vec![None; k];
        for (index, piece) in choice.positions.iter().filter_map(|&at| pieces.get(at)) {
            if let Some(slot) = present.get_mut(usize::from(index.get()) - 1) {
                *slot = Some(*piece);
            }
        }
        let mut computed = vec![Vec::new(); choice.missing.len()];
        if !choice.missing.is_empty() && piece_len > 0 {
            let recovery = self.recovery(&choice.present, &choice.missing)?;
            let sources: Vec<&[u8]> = choice
                .positions
                .iter()
                .filter_map(|&at| pieces.get(at).map(|(_, piece)| *piece))
                .collect();
            computed.fill_with(|| Vec::with_capacity(piece_len));
            for range in strips(k, piece_len) {
                for piece in &mut computed {
                    piece.resize(range.end, 0);
                }
                self.kernel
                    .combine_range(&recovery.matrix, &sources, &mut computed, range);
            }
        }
        Ok(Rebuilt {
            computed,
            present,
            len,
        })
    }

    /// Piece `index`, from all data pieces.
    pub(crate) fn piece(&self, data: &[&[u8]], index: NonZeroU8) -> Vec<u8> {
        let (k, _) = self.counts();
        if let Some(piece) = data.get(usize::from(index.get()) - 1) {
            return piece.to_vec();
        }
        let present: Vec<NonZeroU8> = self.threshold.indices().take(k).collect();
        let mut piece = vec![0; data.first().map_or(0, |piece| piece.len())];
        // The indices are different and there are k of them.
        if let Ok(recovery) = self.recovery(&present, &[index]) {
            let range = 0..piece.len();
            self.kernel
                .combine_range(&recovery.matrix, data, &mut [&mut piece[..]], range);
        }
        piece
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
        for range in strips(usize::from(k), len) {
            work(&mut streams, range);
        }
    }
}

/// The ranges of all of `k` pieces of `len` octets that are worked on together.
fn strips(k: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let strip = (STRIP / k.max(1)).next_power_of_two().max(1024);
    (0..len)
        .step_by(strip)
        .map(move |from| from..len.min(from + strip))
}

/// Empty buffers for `count` pieces of `len` octets: one allocation, not one per piece, which is
/// freed with the last of them.
fn windows(count: usize, len: usize) -> Vec<BytesMut> {
    let mut rest = BytesMut::with_capacity(count * len);
    let mut windows = Vec::with_capacity(count);
    windows.resize_with(count, || {
        let next = rest.split_off(len);
        mem::replace(&mut rest, next)
    });
    windows
}

/// The ciphertext of a message, in data pieces.
pub(crate) struct Rebuilt<'p> {
    /// The pieces that were missing, in order of their indices.
    computed: Vec<Vec<u8>>,
    /// The others, at their places.
    present: Vec<Option<&'p [u8]>>,
    len: usize,
}

impl Rebuilt<'_> {
    /// The pieces that had to be computed, with their indices.
    pub(crate) fn computed(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let missing = (1..=u8::MAX).zip(&self.present);
        let missing = missing.filter(|(_, present)| present.is_none());
        missing
            .zip(&self.computed)
            .map(|((index, _), piece)| (index, &piece[..]))
    }

    /// All data pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut computed = self.computed.iter();
        self.present.iter().map(move |present| match present {
            Some(piece) => *piece,
            None => computed.next().map(Vec::as_slice).unwrap_or_default(),
        })
    }

    /// Appends the message to `out`.
    pub(crate) fn decrypt_to(&self, key: &PieceKey, out: &mut Vec<u8>) {
        out.reserve_exact(self.len);
        let mut left = self.len;
        for (index, piece) in (1..=u8::MAX).zip(self.pieces()) {
            // What fills up the last pieces is not part of the message.
            let (piece, _) = piece.split_at(left.min(piece.len()));
            key.stream(index).append(piece, out, self.len);
            left -= piece.len();
        }
    }
}
