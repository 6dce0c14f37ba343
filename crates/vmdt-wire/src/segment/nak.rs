//! NAK: what is missing.

use alloc::vec::Vec;
use core::num::NonZeroU16;

use super::{FORMAT, Fields};
use crate::error::SegmentError;
use crate::seq::Seq;

/// The most holes that one NAK lists.
pub const MAX_HOLES: usize = 64;

/// Consecutive segments of a flow that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hole {
    /// The first missing segment.
    pub first: Seq,
    /// How many are missing from there on.
    pub count: NonZeroU16,
}

/// The holes in the flow that the header names.
///
/// | offset | octets | field |
/// |---|---|---|
/// | 0 | 1 | format, 1 |
/// | 1 | 1 | holes h, 1 to 64 |
/// | 2 | 4 h | first missing sequence number (2), how many are missing (2), at least 1 |
///
/// The order of the holes and whether they overlap is not judged: acting twice on one is
/// harmless.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nak {
    holes: Vec<Hole>,
}

impl Nak {
    /// A NAK of some holes.
    ///
    /// # Errors
    /// No hole or more than [`MAX_HOLES`].
    pub fn new(holes: Vec<Hole>) -> Result<Self, SegmentError> {
        if (1..=MAX_HOLES).contains(&holes.len()) {
            return Ok(Self { holes });
        }
        Err(SegmentError::OutOfRange {
            field: "hole count",
            offset: 1,
            found: u32::try_from(holes.len()).unwrap_or(u32::MAX),
            min: 1,
            max: MAX_HOLES as u32,
        })
    }

    /// The holes in the order of the wire; 1 to 64.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Reads a NAK's payload.
    ///
    /// # Errors
    /// Another format, a count out of range, and octets missing or left over.
    pub fn parse(payload: &[u8]) -> Result<Self, SegmentError> {
        let mut fields = Fields::begin(payload)?;
        let count = fields.u8("hole count")?;
        fields.in_range("hole count", 1, u32::from(count), 1, MAX_HOLES as u32)?;
        let mut holes = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let first = Seq(fields.u16("first missing")?);
            let missing = fields.u16("missing count")?;
            let count = NonZeroU16::new(missing).ok_or(SegmentError::OutOfRange {
                field: "missing count",
                offset: fields.offset() - 2,
                found: 0,
                min: 1,
                max: u32::from(u16::MAX),
            })?;
            holes.push(Hole { first, count });
        }
        fields.end()?;
        Ok(Self { holes })
    }

    /// Appends the payload to `out`.
    pub fn emit_into(&self, out: &mut Vec<u8>) {
        out.reserve(2 + 4 * self.holes.len());
        // The constructors keep the count at 64 or less.
        out.extend_from_slice(&[FORMAT, self.holes.len() as u8]);
        for hole in &self.holes {
            out.extend_from_slice(&hole.first.get().to_be_bytes());
            out.extend_from_slice(&hole.count.get().to_be_bytes());
        }
    }
}
