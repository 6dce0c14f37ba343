//! Compact headers: what stands in front of a datagram of an established sealed session instead of
//! the 80 octets of both headers, most of which both ends know already (profile 1.1).
//!
//! | octets | field | present |
//! |---|---|---|
//! | 1 | bit 7 set (the magic has it clear), bits 4 to 6 the type, bit 3: a flow follows; bits 0 to 2 are 0 | always |
//! | 1 | flags | always |
//! | 4 | session id | always |
//! | 4 | packet number | always |
//! | 16 | message id | with a flow |
//! | 2 | share index | with a flow |
//! | 2 | sequence number | DATA |
//! | 2 | acknowledgment number | ACK, NAK |
//! | 2 | window | ACK, NAK |
//!
//! The receiver writes the 80 octets that this stands for, with the ids that the session has, and
//! holds the datagram's tag against those: an expansion that is not what the sender had does not
//! open. The payload's length is what remains of the datagram less the tag.

use crate::header::{Flags, Header, PacketType};
use crate::id::{FlowId, MessageId, NodeId, ShareIndex};
use crate::seq::Seq;

/// The most octets of a compact header: that of an ACK that names a flow.
pub const MAX_COMPACT_LEN: usize = FIXED + FLOW + 4;
/// Octets that every compact header has.
const FIXED: usize = 10;
/// Octets of a flow.
const FLOW: usize = 18;

/// Marks a compact header in its first octet.
const MARK: u8 = 0x80;
const HAS_FLOW: u8 = 0x08;
const RESERVED: u8 = 0x07;

/// Whether a datagram begins with a compact header, as far as its first octet says.
#[must_use]
pub fn is_compact(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & MARK != 0)
}

/// The session id of a datagram with a compact header, before anything else of it is read.
#[must_use]
pub fn session_of(datagram: &[u8]) -> Option<u32> {
    let id = datagram.get(2..6).filter(|_| is_compact(datagram))?;
    Some(u32::from_be_bytes(id.try_into().ok()?))
}

/// Octets of the compact header of a packet; `None` for a type that has none.
#[must_use]
pub const fn compact_len(kind: PacketType, with_flow: bool) -> Option<usize> {
    let flow = if with_flow { FLOW } else { 0 };
    Some(match kind {
        PacketType::Syn => return None,
        PacketType::Data => FIXED + flow + 2,
        PacketType::Ack | PacketType::Nak => FIXED + flow + 4,
        PacketType::Fin | PacketType::Heartbeat | PacketType::Datagram => FIXED + flow,
    })
}

impl Header {
    /// Writes the compact form into the front of `out` and returns its length; `None` when it
    /// would not say all that this header says, and for a SYN.
    pub fn emit_compact(&self, out: &mut [u8; MAX_COMPACT_LEN]) -> Option<usize> {
        let with_flow = self.flow != FlowId::CONTROL;
        let len = compact_len(self.kind, with_flow)?;
        let numbered = self.kind == PacketType::Data;
        let acknowledges = matches!(self.kind, PacketType::Ack | PacketType::Nak);
        if !numbered && self.seq != Seq::ZERO
            || !acknowledges && (self.ack != Seq::ZERO || self.window != 0)
            || self.flags.contains(Flags::CHECKSUM)
        {
            return None;
        }
        let flow_bit = if with_flow { HAS_FLOW } else { 0 };
        let [first, flags, rest @ ..] = out;
        (*first, *flags) = (MARK | self.kind.octet() << 4 | flow_bit, self.flags.bits());
        let mut rest = rest.as_mut_slice();
        put(&mut rest, &self.session.to_be_bytes());
        put(&mut rest, &self.packet_number.to_be_bytes());
        if with_flow {
            put(&mut rest, &self.flow.message.field());
            put(&mut rest, &self.flow.index.get().to_be_bytes());
        }
        if numbered {
            put(&mut rest, &self.seq.get().to_be_bytes());
        }
        if acknowledges {
            put(&mut rest, &self.ack.get().to_be_bytes());
            put(&mut rest, &self.window.to_be_bytes());
        }
        Some(len)
    }

    /// Reads the compact header in front of a datagram from `source` to `dest`, as the session
    /// knows them. Returns the header that it stands for and its own length.
    ///
    /// `None`: too short, of a type or form that has no compact header, or a flow that no full
    /// header could name.
    #[must_use]
    pub fn parse_compact(datagram: &[u8], source: NodeId, dest: NodeId) -> Option<(Self, usize)> {
        let (&[first, flags], rest) = datagram.split_first_chunk()?;
        if first & MARK == 0 || first & RESERVED != 0 {
            return None;
        }
        let kind = PacketType::from_octet(first >> 4 & 7)?;
        let with_flow = first & HAS_FLOW != 0;
        let len = compact_len(kind, with_flow)?;
        let (&session, rest) = rest.split_first_chunk()?;
        let (&number, mut rest) = rest.split_first_chunk()?;
        let mut flow = FlowId::CONTROL;
        if with_flow {
            let (&message, more) = rest.split_first_chunk()?;
            let (&index, more) = more.split_first_chunk()?;
            let message = MessageId::from_field(message).ok()?;
            let index = ShareIndex::new(u16::from_be_bytes(index))?;
            flow = FlowId { message, index };
            rest = more;
            if flow == FlowId::CONTROL {
                return None;
            }
        }
        let mut header = Self::new(kind, source, dest, flow);
        header.flags = Flags::from_bits(flags);
        header.session = u32::from_be_bytes(session);
        header.packet_number = u32::from_be_bytes(number);
        if header.flags.contains(Flags::CHECKSUM) {
            return None;
        }
        if kind == PacketType::Data {
            let (&seq, _) = rest.split_first_chunk()?;
            header.seq = Seq(u16::from_be_bytes(seq));
        } else if matches!(kind, PacketType::Ack | PacketType::Nak) {
            let (&ack, more) = rest.split_first_chunk()?;
            let (&window, _) = more.split_first_chunk()?;
            header.ack = Seq(u16::from_be_bytes(ack));
            header.window = u16::from_be_bytes(window);
        }
        Some((header, len))
    }
}

fn put(out: &mut &mut [u8], octets: &[u8]) {
    let whole = core::mem::take(out);
    if let Some((head, tail)) = whole.split_at_mut_checked(octets.len()) {
        head.copy_from_slice(octets);
        *out = tail;
    }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
