//! What the payloads of SYN, ACK, NAK and FIN hold. DATA carries octets of a flow, HEARTBEAT
//! nothing.
//!
//! Every segment starts with a format octet, [`FORMAT`]; integers are big-endian. Each type
//! parses from a payload with `parse` and appends itself to a buffer with `emit_into`. Fields
//! that must obey a rule are private behind a checked constructor, so whatever is emitted parses.
//!
//! ```
//! use vmdt_wire::segment::{Fin, FinKind};
//!
//! let fin = Fin::new(FinKind::CloseSession, 7, "going home");
//! let mut payload = Vec::new();
//! fin.emit_into(&mut payload);
//! assert_eq!(payload, b"\x01\x00\x00\x07going home");
//! assert_eq!(Fin::parse(&payload)?, fin);
//! # Ok::<(), vmdt_wire::SegmentError>(())
//! ```

mod ack;
mod fin;
mod nak;
mod syn;

use nom::number::complete::{be_u8, be_u16, be_u32};

pub use self::ack::{Ack, AckBlock, AckView, EcnCounts, MAX_RANGES, Ranges, ViewRanges};
pub use self::fin::{Fin, FinKind, MAX_REASON};
pub use self::nak::{Hole, MAX_HOLES, Nak};
pub use self::syn::{SYN_LEN, Syn, SynKind};

use crate::error::SegmentError;
use crate::read::Short;

/// The first octet of every segment payload.
pub const FORMAT: u8 = 1;

/// What one unit of [`Header::window`](crate::Header::window) stands for, in octets.
pub const FLOW_WINDOW_UNIT: u32 = 1_024;

/// Reads fields one after another and knows where it stands, for errors.
struct Fields<'a> {
    payload: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Begins with the format octet.
    fn begin(payload: &'a [u8]) -> Result<Self, SegmentError> {
        let mut fields = Self {
            payload,
            rest: payload,
        };
        let format = fields.u8("format")?;
        fields.in_range(
            "format",
            1,
            u32::from(format),
            u32::from(FORMAT),
            u32::from(FORMAT),
        )?;
        Ok(fields)
    }

    fn offset(&self) -> usize {
        self.payload.len() - self.rest.len()
    }

    fn read<T>(
        &mut self,
        field: &'static str,
        parser: impl FnOnce(&'a [u8]) -> nom::IResult<&'a [u8], T, Short>,
    ) -> Result<T, SegmentError> {
        let (rest, value) = parser(self.rest).map_err(|_| SegmentError::Truncated {
            field,
            offset: self.offset(),
            found: self.payload.len(),
        })?;
        self.rest = rest;
        Ok(value)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, SegmentError> {
        self.read(field, be_u8)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, SegmentError> {
        self.read(field, be_u16)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, SegmentError> {
        self.read(field, be_u32)
    }

    /// Judges a number that was just read from `width` octets.
    fn in_range(
        &self,
        field: &'static str,
        width: usize,
        found: u32,
        min: u32,
        max: u32,
    ) -> Result<(), SegmentError> {
        if (min..=max).contains(&found) {
            return Ok(());
        }
        Err(SegmentError::OutOfRange {
            field,
            offset: self.offset() - width,
            found,
            min,
            max,
        })
    }

    /// Nothing may follow.
    fn end(self) -> Result<(), SegmentError> {
        match self.rest.len() {
            0 => Ok(()),
            found => Err(SegmentError::Trailing {
                offset: self.offset(),
                found,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
