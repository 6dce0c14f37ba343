//! A whole datagram: headers, payload, and what may follow it.

use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf as _, Bytes};

use crate::checksum;
use crate::error::PacketError;
use crate::header::{CHECKSUM_OFFSET, Flags, HEADER_LEN, Header, MAX_PAYLOAD};

/// A datagram of the data layer. `Debug` shows how long payload and trailer are, not what they hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Both headers.
    pub header: Header,
    /// At most [`MAX_PAYLOAD`] octets; shares the datagram's memory.
    pub payload: Bytes,
    /// Octets after the payload, which profile 1.0 ignores; shares the datagram's memory.
    pub trailer: Bytes,
}

impl Packet {
    /// A packet without a trailer.
    #[must_use]
    pub const fn new(header: Header, payload: Bytes) -> Self {
        Self {
            header,
            payload,
            trailer: Bytes::new(),
        }
    }

    /// Takes a datagram apart without copying its payload, and verifies the checksum when the
    /// flags say that there is one.
    ///
    /// # Errors
    /// Names the first field that is missing or malformed; see [`PacketError`].
    pub fn parse(mut datagram: Bytes) -> Result<Self, PacketError> {
        let parsed = Header::parse(&datagram)?;
        let needed = usize::from(parsed.payload_len);
        let found = datagram.len() - HEADER_LEN;
        if found < needed {
            return Err(PacketError::PayloadTruncated {
                offset: HEADER_LEN,
                found,
                needed,
            });
        }
        if parsed.header.flags.contains(Flags::CHECKSUM) && !checksum::verify(&datagram) {
            return Err(bad_checksum(&datagram, parsed.checksum, needed));
        }
        datagram.advance(HEADER_LEN);
        // Without a trailer the datagram itself becomes the payload: no reference is counted.
        let trailer = if found == needed {
            Bytes::new()
        } else {
            datagram.split_off(needed)
        };
        Ok(Self {
            header: parsed.header,
            payload: datagram,
            trailer,
        })
    }

    /// Appends the datagram to `out`: headers with payload length, checksum if flagged, payload,
    /// trailer.
    ///
    /// # Panics
    /// If the payload has more than [`MAX_PAYLOAD`] octets; [`Packet::parse`] never makes one.
    pub fn emit_into(&self, out: &mut Vec<u8>) {
        assert!(
            self.payload.len() <= MAX_PAYLOAD,
            "payload of {} octets",
            self.payload.len()
        );
        let start = out.len();
        let mut header = [0; HEADER_LEN];
        self.header.emit(self.payload.len() as u16, &mut header);
        out.reserve(HEADER_LEN + self.payload.len() + self.trailer.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.payload);
        if let Some(datagram) = out.get_mut(start..) {
            checksum::fill(datagram);
        }
        out.extend_from_slice(&self.trailer);
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("header", &self.header)
            .field("payload", &format_args!("{} octets", self.payload.len()))
            .field("trailer", &format_args!("{} octets", self.trailer.len()))
            .finish()
    }
}

/// Off the hot path: what the checksum should have been.
#[cold]
fn bad_checksum(datagram: &[u8], found: u16, payload_len: usize) -> PacketError {
    // Taking the field's value out of the one's complement sum is adding its complement.
    let with_field =
        !checksum::internet(datagram.get(..HEADER_LEN + payload_len).unwrap_or(datagram));
    let sum = u32::from(with_field) + u32::from(!found);
    let folded = (sum & 0xffff) + (sum >> 16);
    let expected = !u16::try_from(folded).unwrap_or(u16::MAX);
    PacketError::BadChecksum {
        offset: CHECKSUM_OFFSET,
        found,
        expected,
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
