//! SYN: begins a session.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::{FORMAT, Fields};
use crate::error::SegmentError;

/// Octets that every SYN payload has; one more is read where it is there, and others that follow
/// are ignored.
pub const SYN_LEN: usize = 24;

/// Which half of the handshake a SYN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SynKind {
    /// Offers a session. Octet 0, echo 0.
    Offer,
    /// Accepts one. Octet 1.
    Accept {
        /// The session id of the offer that is accepted.
        echo: NonZeroU32,
    },
}

/// Begins a session.
///
/// | offset | octets | field |
/// |---|---|---|
/// | 0 | 1 | format, 1 |
/// | 1 | 1 | kind: 0 offer, 1 accept |
/// | 2 | 2 | largest payload the sender of the SYN accepts, octets |
/// | 4 | 4 | session id of the sender, not 0 |
/// | 8 | 4 | echo: the offer's session id in an accept, 0 in an offer |
/// | 12 | 4 | session window, octets |
/// | 16 | 4 | flow window, octets |
/// | 20 | 4 | idle timeout, milliseconds |
/// | 24 | 1 | what its sender reads beyond profile 1.0, [`Syn::COMPACT`]; may be left out when 0 |
///
/// Later octets are ignored, so that a later version may add fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Syn {
    /// Offer or accept.
    pub kind: SynKind,
    /// The largest payload its sender accepts, in octets. Any number is carried: the reader takes
    /// the least of it, its own limit and [`MAX_PAYLOAD`](crate::MAX_PAYLOAD), and judges whether
    /// that is enough.
    pub max_payload: u16,
    /// The session id its sender wants to see in headers.
    pub session: NonZeroU32,
    /// Octets its sender buffers for the whole session.
    pub session_window: u32,
    /// Octets its sender buffers for one flow.
    pub flow_window: u32,
    /// Silence after which its sender forgets the session, in milliseconds.
    pub idle_timeout_ms: u32,
    /// What its sender reads beyond profile 1.0; unknown bits are carried.
    pub features: u8,
}

impl Syn {
    /// In [`features`](Self::features): compact headers ([`compact`](crate::compact)).
    pub const COMPACT: u8 = 1;

    /// Reads a SYN's payload.
    ///
    /// # Errors
    /// Another format or kind, a session id of 0, an echo in an offer or none in an accept, or
    /// fewer than [`SYN_LEN`] octets.
    pub fn parse(payload: &[u8]) -> Result<Self, SegmentError> {
        let mut fields = Fields::begin(payload)?;
        let kind = fields.u8("kind")?;
        fields.in_range("kind", 1, u32::from(kind), 0, 1)?;
        let max_payload = fields.u16("max payload")?;
        let session = fields.u32("session id")?;
        let session = non_zero(&fields, "session id", session)?;
        let echo = fields.u32("echo")?;
        let kind = if kind == 0 {
            fields.in_range("echo", 4, echo, 0, 0)?;
            SynKind::Offer
        } else {
            SynKind::Accept {
                echo: non_zero(&fields, "echo", echo)?,
            }
        };
        Ok(Self {
            kind,
            max_payload,
            session,
            session_window: fields.u32("session window")?,
            flow_window: fields.u32("flow window")?,
            idle_timeout_ms: fields.u32("idle timeout")?,
            features: fields.u8("features").unwrap_or(0),
        })
    }

    /// Appends the payload to `out`.
    pub fn emit_into(&self, out: &mut Vec<u8>) {
        let (kind, echo) = match self.kind {
            SynKind::Offer => (0, 0),
            SynKind::Accept { echo } => (1, echo.get()),
        };
        out.reserve(SYN_LEN);
        out.extend_from_slice(&[FORMAT, kind]);
        out.extend_from_slice(&self.max_payload.to_be_bytes());
        for number in [
            self.session.get(),
            echo,
            self.session_window,
            self.flow_window,
            self.idle_timeout_ms,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        if self.features != 0 {
            out.push(self.features);
        }
    }
}

/// The number just read, which must not be 0.
fn non_zero(
    fields: &Fields<'_>,
    field: &'static str,
    found: u32,
) -> Result<NonZeroU32, SegmentError> {
    NonZeroU32::new(found).ok_or(SegmentError::OutOfRange {
        field,
        offset: fields.offset() - 4,
        found,
        min: 1,
        max: u32::MAX,
    })
}
