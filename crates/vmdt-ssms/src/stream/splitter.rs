//! Cutting and sealing.

use core::fmt;

use alloc::vec::Vec;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::SEGMENT_MAX;
use crate::v2::{Position, SealError, Sealed, Sealer};

/// Why a splitter did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitterError {
    /// The segment length is 0 or above [`SEGMENT_MAX`].
    #[error("segment length {given} is not in 1..={max}", max = SEGMENT_MAX)]
    SegmentLength {
        /// The length in octets.
        given: u32,
    },
    /// Numbers or offsets would need more than 64 bits.
    #[error("the message is longer than 2^64 octets")]
    TooLong,
    /// The last segment has been made.
    #[error("the message is finished")]
    Finished,
    /// The segment was not sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Cuts a message into segments and seals them.
///
/// Holds at most one segment of plaintext, which is overwritten once it is sealed and on drop.
pub struct Splitter {
    sealer: Sealer,
    segment_len: usize,
    buffer: Zeroizing<Vec<u8>>,
    number: u64,
    offset: u64,
    finished: bool,
}

impl Splitter {
    /// Segments of `segment_len` octets; the last one may be shorter. All of a message's octets
    /// follow.
    ///
    /// Digests are fastest when pieces are multiples of 16 KiB, so `k` times that, or some multiple
    /// of it, is a good length: at 3 of 5, 192 KiB seals a fifth faster per octet than 64 KiB.
    ///
    /// # Errors
    ///
    /// [`SplitterError::SegmentLength`].
    pub fn new(sealer: Sealer, segment_len: u32) -> Result<Splitter, SplitterError> {
        Splitter::resume(sealer, segment_len, 0)
    }

    /// Starts at segment `number`: the octets that follow are the message's from octet
    /// `number * segment_len` on. Sealer and length must be those of the segments before.
    ///
    /// # Errors
    ///
    /// [`SplitterError::SegmentLength`], [`SplitterError::TooLong`].
    pub fn resume(
        sealer: Sealer,
        segment_len: u32,
        number: u64,
    ) -> Result<Splitter, SplitterError> {
        let invalid = SplitterError::SegmentLength { given: segment_len };
        if segment_len == 0 || segment_len > SEGMENT_MAX {
            return Err(invalid);
        }
        let offset = number
            .checked_mul(u64::from(segment_len))
            .ok_or(SplitterError::TooLong)?;
        Ok(Splitter {
            sealer,
            segment_len: usize::try_from(segment_len).map_err(|_| invalid)?,
            buffer: Zeroizing::default(),
            number,
            offset,
            finished: false,
        })
    }

    /// The number of the segment that comes next.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Takes octets of the message: how many were taken, and a segment if one is known not to be
    /// the last. Call again with the rest until all are taken.
    ///
    /// # Errors
    ///
    /// [`SplitterError::Finished`], [`SplitterError::TooLong`].
    pub fn push(
        &mut self,
        octets: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(usize, Option<Sealed>), SplitterError> {
        if self.finished {
            return Err(SplitterError::Finished);
        }
        let room = self.segment_len.saturating_sub(self.buffer.len());
        let (taken, rest) = octets.split_at(room.min(octets.len()));
        // Reserved at once: growing would leave copies of the plaintext behind.
        if self.buffer.capacity() == 0 && !taken.is_empty() {
            self.buffer.reserve_exact(self.segment_len);
        }
        self.buffer.extend_from_slice(taken);
        if rest.is_empty() {
            return Ok((taken.len(), None));
        }
        let segment = self.seal(false, rng)?;
        Ok((taken.len(), Some(segment)))
    }

    /// Makes the last segment. It is empty only if the message is.
    ///
    /// # Errors
    ///
    /// [`SplitterError::Finished`] the second time.
    pub fn finish(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Result<Sealed, SplitterError> {
        if self.finished {
            return Err(SplitterError::Finished);
        }
        let segment = self.seal(true, rng)?;
        self.finished = true;
        Ok(segment)
    }

    fn seal(
        &mut self,
        last: bool,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Sealed, SplitterError> {
        let position = Position {
            number: self.number,
            offset: self.offset,
            last,
        };
        let len = u64::try_from(self.buffer.len()).map_err(|_| SplitterError::TooLong)?;
        let number = self.number.checked_add(1).ok_or(SplitterError::TooLong)?;
        let offset = self.offset.checked_add(len).ok_or(SplitterError::TooLong)?;
        let sealed = self.sealer.seal_segment(position, &self.buffer, rng)?;
        (self.number, self.offset) = (number, offset);
        self.buffer.clear();
        Ok(sealed)
    }
}

impl fmt::Debug for Splitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splitter")
            .field("sealer", &self.sealer)
            .field("segment_len", &self.segment_len)
            .field("number", &self.number)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
