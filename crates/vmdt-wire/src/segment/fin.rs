//! FIN: ends a session or a flow.

use alloc::string::String;
use alloc::vec::Vec;

use super::{FORMAT, Fields};
use crate::error::SegmentError;

/// The longest reason, in octets.
pub const MAX_REASON: usize = 256;

/// Octets before the reason.
const REASON_OFFSET: usize = 4;

/// What a FIN ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinKind {
    /// The session with all its flows. Octet 0.
    CloseSession,
    /// The flow in the header, by its sender: the rest will not come. Octet 1.
    ResetFlow,
    /// The flow in the header, by its receiver: the rest is not wanted. Octet 2.
    StopFlow,
}

/// Ends a session or a flow.
///
/// | offset | octets | field |
/// |---|---|---|
/// | 0 | 1 | format, 1 |
/// | 1 | 1 | kind: 0 session, 1 reset of a flow by its sender, 2 stop by its receiver |
/// | 2 | 2 | code |
/// | 4 | to the end | reason, UTF-8, at most 256 octets |
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fin {
    /// What ends.
    pub kind: FinKind,
    /// Why, for programs; the numbers are the application's.
    pub code: u16,
    reason: String,
}

impl Fin {
    /// A FIN; a reason longer than [`MAX_REASON`] octets is cut at a character.
    #[must_use]
    pub fn new(kind: FinKind, code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            kind,
            code,
            reason: String::from(reason.get(..end).unwrap_or_default()),
        }
    }

    /// Why, for people. Text of the peer: escape it before a terminal sees it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Reads a FIN's payload.
    ///
    /// # Errors
    /// Another format or kind, missing octets, and a reason too long or not UTF-8.
    pub fn parse(payload: &[u8]) -> Result<Self, SegmentError> {
        let mut fields = Fields::begin(payload)?;
        let kind = match fields.u8("kind")? {
            0 => FinKind::CloseSession,
            1 => FinKind::ResetFlow,
            2 => FinKind::StopFlow,
            found => {
                let found = u32::from(found);
                return Err(SegmentError::OutOfRange {
                    field: "kind",
                    offset: 1,
                    found,
                    min: 0,
                    max: 2,
                });
            }
        };
        let code = fields.u16("code")?;
        let text = fields.rest;
        if text.len() > MAX_REASON {
            return Err(SegmentError::OutOfRange {
                field: "reason length",
                offset: REASON_OFFSET,
                found: u32::try_from(text.len()).unwrap_or(u32::MAX),
                min: 0,
                max: MAX_REASON as u32,
            });
        }
        let reason = core::str::from_utf8(text).map_err(|error| SegmentError::BadUtf8 {
            field: "reason",
            offset: REASON_OFFSET + error.valid_up_to(),
        })?;
        Ok(Self {
            kind,
            code,
            reason: String::from(reason),
        })
    }

    /// Appends the payload to `out`.
    pub fn emit_into(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            FinKind::CloseSession => 0,
            FinKind::ResetFlow => 1,
            FinKind::StopFlow => 2,
        };
        out.reserve(REASON_OFFSET + self.reason.len());
        out.extend_from_slice(&[FORMAT, kind]);
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(self.reason.as_bytes());
    }
}
