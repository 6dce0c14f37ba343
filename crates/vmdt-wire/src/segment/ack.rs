//! ACK: what has arrived.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::{FORMAT, Fields};
use crate::error::SegmentError;

/// The most ranges that one ACK holds.
pub const MAX_RANGES: usize = 64;

/// A hole and the received packets below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AckBlock {
    /// Missing packet numbers below the previous range, at least 1.
    pub gap: u32,
    /// Received packet numbers below the gap, at least 1.
    pub len: u32,
}

/// Which packets have arrived, newest first, and how much room is left.
///
/// | offset | octets | field |
/// |---|---|---|
/// | 0 | 1 | format, 1 |
/// | 1 | 1 | ranges r, 1 to 64 |
/// | 2 | 2 | reserved, 0 |
/// | 4 | 4 | delay since the largest arrived, microseconds |
/// | 8 | 4 | session window: octets the receiver can still buffer |
/// | 12 | 4 | largest packet number received, low 32 bits |
/// | 16 | 4 | length of the first range, at least 1 |
/// | 20 | 8 (r - 1) | gap and length of each further range, each at least 1 |
/// | 12 + 8 r | 0 or 12 | ECN counts: packets that arrived marked ECT(0), ECT(1), CE |
///
/// The ECN counts (RFC 9000 section 19.3.2) are the low 32 bits of their totals. They follow only
/// when a marked packet has arrived, so a sender that marks nothing never meets them.
///
/// A range of length 1 is one packet. All ranges and gaps together span at most 2^32 - 1 packet
/// numbers, so none can meet itself from behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ack {
    /// Time from the arrival of the largest packet to this ACK, in microseconds.
    pub delay_us: u32,
    /// Octets that the receiver can still buffer for the session.
    pub session_window: u32,
    /// Marked packets that have arrived, if any has.
    pub ecn: Option<EcnCounts>,
    largest: u32,
    first: u32,
    blocks: Vec<AckBlock>,
}

/// Packets that arrived with each mark (RFC 3168), the low 32 bits of the totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EcnCounts {
    /// ECT(0).
    pub ect0: u32,
    /// ECT(1).
    pub ect1: u32,
    /// CE: congestion experienced.
    pub ce: u32,
}

impl EcnCounts {
    /// Octets of the three counts.
    pub const LEN: usize = 12;

    fn emit_into(self, out: &mut Vec<u8>) {
        for count in [self.ect0, self.ect1, self.ce] {
            out.extend_from_slice(&count.to_be_bytes());
        }
    }
}

/// Octets before the first block.
const FIXED: usize = 20;
/// Octets of a block.
const BLOCK: usize = 8;

impl Ack {
    /// An ACK of the packets `largest - first + 1 ..= largest` and those of the blocks below.
    ///
    /// # Errors
    /// A length or gap of 0, more than [`MAX_RANGES`] ranges, or a span beyond 2^32 - 1.
    pub fn new(
        delay_us: u32,
        session_window: u32,
        largest: u32,
        first: u32,
        blocks: Vec<AckBlock>,
    ) -> Result<Self, SegmentError> {
        let count = u32::try_from(blocks.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        at_least_one("range count", 1, count, MAX_RANGES as u32)?;
        let mut span = Span::new(first)?;
        for (block, offset) in blocks.iter().zip((20..).step_by(8)) {
            span.add("gap", offset, block.gap)?;
            span.add("range length", offset + 4, block.len)?;
        }
        Ok(Self {
            delay_us,
            session_window,
            ecn: None,
            largest,
            first,
            blocks,
        })
    }

    /// An ACK of whole packet numbers, given as ranges from the newest to the oldest with at
    /// least one missing number between any two.
    ///
    /// Ranges after the first 64 are left out, and so are those that begin 2^32 or more below
    /// the largest. `None` if there is no range, or they are empty, touch or do not descend.
    pub fn from_ranges(
        delay_us: u32,
        session_window: u32,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
    ) -> Option<Self> {
        let mut payload = Vec::new();
        Self::emit_ranges(&mut payload, delay_us, session_window, ranges, None)
            .then(|| Self::parse(&payload).ok())?
    }

    /// Appends what [`from_ranges`](Self::from_ranges) would make, with these ECN counts, without
    /// allocating beyond `out`. False if there is no such ACK: `out` is unchanged then.
    pub fn emit_ranges(
        out: &mut Vec<u8>,
        delay_us: u32,
        session_window: u32,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        ecn: Option<EcnCounts>,
    ) -> bool {
        let start = out.len();
        let done = emit_ranges(out, delay_us, session_window, ranges);
        if done.is_none() {
            out.truncate(start);
        } else if let Some(ecn) = ecn {
            ecn.emit_into(out);
        }
        done.is_some()
    }

    /// The low 32 bits of the largest packet number received.
    #[must_use]
    pub const fn largest(&self) -> u32 {
        self.largest
    }

    /// How many consecutive packets have arrived up to and including the largest; at least 1.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// The holes and ranges below the first range, newest first; at most 63.
    #[must_use]
    pub fn blocks(&self) -> &[AckBlock] {
        &self.blocks
    }

    /// The whole packet numbers, as ranges from the newest to the oldest.
    ///
    /// `near` is a packet number within 2^31 of the largest acknowledged one, best the largest
    /// that was sent (compare RFC 9000 appendix A.3). Numbers that would lie below 0 are left
    /// out. The caller is to refuse numbers that it never sent.
    #[must_use]
    pub fn ranges(&self, near: u64) -> Ranges<'_> {
        Ranges(Descent::new(
            expand(self.largest, near),
            self.first,
            self.blocks.iter().copied(),
        ))
    }

    /// Reads an ACK's payload. Allocates for at most 63 blocks, and not at all for one range.
    ///
    /// # Errors
    /// Another format, a reserved field that is not 0, a count, length or gap out of range, a
    /// span beyond 2^32 - 1, and octets missing or left over (but for twelve: the ECN counts).
    pub fn parse(payload: &[u8]) -> Result<Self, SegmentError> {
        let view = AckView::parse(payload)?;
        Ok(Self {
            delay_us: view.delay_us,
            session_window: view.session_window,
            ecn: view.ecn,
            largest: view.largest,
            first: view.first,
            blocks: view.blocks().collect(),
        })
    }

    /// Appends the payload to `out`.
    pub fn emit_into(&self, out: &mut Vec<u8>) {
        out.reserve(FIXED + BLOCK * self.blocks.len() + EcnCounts::LEN);
        // The constructors keep the count at 64 or less.
        out.extend_from_slice(&[FORMAT, self.blocks.len() as u8 + 1, 0, 0]);
        for number in [self.delay_us, self.session_window, self.largest, self.first] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for block in &self.blocks {
            out.extend_from_slice(&block.gap.to_be_bytes());
            out.extend_from_slice(&block.len.to_be_bytes());
        }
        if let Some(ecn) = self.ecn {
            ecn.emit_into(out);
        }
    }
}

/// An [`Ack`] that stays in the payload it was read from: nothing is allocated.
#[derive(Debug, Clone, Copy)]
pub struct AckView<'a> {
    /// As [`Ack::delay_us`].
    pub delay_us: u32,
    /// As [`Ack::session_window`].
    pub session_window: u32,
    /// As [`Ack::ecn`].
    pub ecn: Option<EcnCounts>,
    largest: u32,
    first: u32,
    /// Whole blocks, checked.
    blocks: &'a [u8],
}

impl<'a> AckView<'a> {
    /// Reads an ACK's payload.
    ///
    /// # Errors
    /// As [`Ack::parse`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, SegmentError> {
        let mut fields = Fields::begin(payload)?;
        let count = fields.u8("range count")?;
        fields.in_range("range count", 1, u32::from(count), 1, MAX_RANGES as u32)?;
        let reserved = fields.u16("reserved")?;
        fields.in_range("reserved", 2, u32::from(reserved), 0, 0)?;
        let delay_us = fields.u32("delay")?;
        let session_window = fields.u32("session window")?;
        let largest = fields.u32("largest")?;
        let mut span = Span::new(fields.u32("first range")?)?;
        let first = span.total;
        let begin = fields.offset();
        for _ in 1..count {
            let offset = fields.offset();
            let gap = fields.u32("gap")?;
            span.add("gap", offset, gap)?;
            let offset = fields.offset();
            let len = fields.u32("range length")?;
            span.add("range length", offset, len)?;
        }
        let blocks = payload.get(begin..fields.offset()).unwrap_or_default();
        let ecn = if fields.rest.len() == EcnCounts::LEN {
            Some(EcnCounts {
                ect0: fields.u32("ECT(0) count")?,
                ect1: fields.u32("ECT(1) count")?,
                ce: fields.u32("CE count")?,
            })
        } else {
            None
        };
        fields.end()?;
        Ok(Self {
            delay_us,
            session_window,
            ecn,
            largest,
            first,
            blocks,
        })
    }

    fn blocks(&self) -> Blocks<'a> {
        Blocks { rest: self.blocks }
    }

    /// As [`Ack::ranges`].
    #[must_use]
    pub fn ranges(&self, near: u64) -> ViewRanges<'a> {
        ViewRanges(Descent::new(
            expand(self.largest, near),
            self.first,
            self.blocks(),
        ))
    }
}

/// Blocks read from a payload.
#[derive(Debug, Clone)]
struct Blocks<'a> {
    rest: &'a [u8],
}

impl Iterator for Blocks<'_> {
    type Item = AckBlock;

    fn next(&mut self) -> Option<AckBlock> {
        let (gap, rest) = self.rest.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(AckBlock {
            gap: u32::from_be_bytes(*gap),
            len: u32::from_be_bytes(*len),
        })
    }
}

/// The ranges of an [`AckView`] as whole packet numbers, newest first.
#[derive(Debug, Clone)]
pub struct ViewRanges<'a>(Descent<Blocks<'a>>);

impl Iterator for ViewRanges<'_> {
    type Item = RangeInclusive<u64>;

    fn next(&mut self) -> Option<RangeInclusive<u64>> {
        self.0.next()
    }
}

/// The ranges of an [`Ack`] as whole packet numbers, newest first.
#[derive(Debug, Clone)]
pub struct Ranges<'a>(Descent<core::iter::Copied<core::slice::Iter<'a, AckBlock>>>);

impl Iterator for Ranges<'_> {
    type Item = RangeInclusive<u64>;

    fn next(&mut self) -> Option<RangeInclusive<u64>> {
        self.0.next()
    }
}

/// Goes down from the largest number, range by range.
#[derive(Debug, Clone)]
struct Descent<I> {
    end: Option<u64>,
    len: u32,
    blocks: I,
}

impl<I: Iterator<Item = AckBlock>> Descent<I> {
    fn new(largest: u64, first: u32, blocks: I) -> Self {
        Self {
            end: Some(largest),
            len: first,
            blocks,
        }
    }

    fn next(&mut self) -> Option<RangeInclusive<u64>> {
        let end = self.end.take()?;
        let start = end.saturating_sub(u64::from(self.len) - 1);
        if let Some(block) = self.blocks.next() {
            self.end = start.checked_sub(u64::from(block.gap) + 1);
            self.len = block.len;
        }
        Some(start..=end)
    }
}

/// Appends an ACK without ECN counts; what was appended is to be dropped when it returns `None`.
fn emit_ranges(
    out: &mut Vec<u8>,
    delay_us: u32,
    session_window: u32,
    ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
) -> Option<()> {
    let mut ranges = ranges.into_iter();
    let (mut low, largest) = ranges.next()?.into_inner();
    let first = u32::try_from(largest.checked_sub(low)?.checked_add(1)?).ok()?;
    let start = out.len();
    out.extend_from_slice(&[FORMAT, 1, 0, 0]);
    // The header carries the low half; `ranges` finds the rest again.
    let truncated = (largest & u64::from(u32::MAX)) as u32;
    for number in [delay_us, session_window, truncated, first] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let mut count = 1u8;
    for range in ranges.take(MAX_RANGES - 1) {
        let (start, end) = range.into_inner();
        let gap = low
            .checked_sub(end)?
            .checked_sub(1)
            .filter(|gap| *gap > 0)?;
        let len = end.checked_sub(start)?.checked_add(1)?;
        if largest - start >= u64::from(u32::MAX) {
            break;
        }
        // Both are parts of a span that was just found to fit.
        for number in [gap as u32, len as u32] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        count += 1;
        low = start;
    }
    *out.get_mut(start + 1)? = count;
    Some(())
}

/// The number nearest to `near` whose low 32 bits are `low`.
fn expand(low: u32, near: u64) -> u64 {
    const HALF: u64 = 1 << 31;
    const WHOLE: u64 = 1 << 32;
    let candidate = (near & !(WHOLE - 1)) | u64::from(low);
    if candidate.saturating_add(HALF) < near {
        candidate.checked_add(WHOLE).unwrap_or(candidate)
    } else if candidate > near.saturating_add(HALF) && candidate >= WHOLE {
        candidate - WHOLE
    } else {
        candidate
    }
}

/// How many packet numbers the ranges and gaps have covered so far.
struct Span {
    total: u32,
}

impl Span {
    fn new(first: u32) -> Result<Self, SegmentError> {
        at_least_one("first range", 16, first, u32::MAX)?;
        Ok(Self { total: first })
    }

    fn add(&mut self, field: &'static str, offset: usize, count: u32) -> Result<(), SegmentError> {
        at_least_one(field, offset, count, u32::MAX)?;
        self.total = self
            .total
            .checked_add(count)
            .ok_or(SegmentError::RangesTooLong { field, offset })?;
        Ok(())
    }
}

fn at_least_one(
    field: &'static str,
    offset: usize,
    found: u32,
    max: u32,
) -> Result<(), SegmentError> {
    if found >= 1 && found <= max {
        return Ok(());
    }
    Err(SegmentError::OutOfRange {
        field,
        offset,
        found,
        min: 1,
        max,
    })
}
