//! The 80 octets before every payload: the VMDT header and the RDT header.
//!
//! | offset | octets | field |
//! |---|---|---|
//! | 0 | 4 | magic `VMDT` |
//! | 4 | 4 | version `1.0` and a NUL |
//! | 8 | 16 | source id, ASCII, NUL-padded |
//! | 24 | 16 | destination id |
//! | 40 | 16 | message id |
//! | 56 | 4 | share index, ASCII digits |
//! | 60 | 4 | session id (reserved in profile 1.0) |
//! | 64 | 2 | sequence number |
//! | 66 | 2 | acknowledgment number |
//! | 68 | 1 | packet type |
//! | 69 | 1 | flags |
//! | 70 | 2 | window |
//! | 72 | 2 | checksum, RFC 1071, when flagged |
//! | 74 | 2 | payload length in octets |
//! | 76 | 4 | packet number (reserved in profile 1.0) |
//!
//! Integers are big-endian.

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign};

use nom::IResult;
use nom::number::complete::{be_u8, be_u16, be_u32};

use crate::error::PacketError;
use crate::id::{FlowId, MessageId, NodeId, ShareIndex};
use crate::read::{Short, array};
use crate::seq::Seq;

/// Octets of the VMDT header and the RDT header together.
pub const HEADER_LEN: usize = 80;

/// Octets of the VMDT header, the first part.
pub const VMDT_HEADER_LEN: usize = 64;

/// The longest payload that a parser of profile 1.0 accepts, in octets.
pub const MAX_PAYLOAD: usize = 1_472;

/// The longest payload of a sealed datagram (profile 1.1), its tag included, in octets: four such
/// datagrams fill the 65,507 octets that one system call can send.
pub const MAX_SEALED_PAYLOAD: usize = 16_296;

/// The first four octets of every datagram.
pub const MAGIC: [u8; 4] = *b"VMDT";

/// The version octets of both profiles.
pub const VERSION: [u8; 4] = *b"1.0\0";

pub(crate) const FLAGS_OFFSET: usize = 69;
pub(crate) const CHECKSUM_OFFSET: usize = 72;
pub(crate) const PAYLOAD_LEN_OFFSET: usize = 74;

const SOURCE_OFFSET: usize = 8;
const DEST_OFFSET: usize = 24;
const MESSAGE_OFFSET: usize = 40;
const SHARE_INDEX_OFFSET: usize = 56;
const TYPE_OFFSET: usize = 68;

/// Where each field starts, last first: names the field in which a short datagram ends.
const FIELDS: [(usize, &str); 15] = [
    (76, "packet number"),
    (PAYLOAD_LEN_OFFSET, "payload length"),
    (CHECKSUM_OFFSET, "checksum"),
    (70, "window"),
    (FLAGS_OFFSET, "flags"),
    (TYPE_OFFSET, "packet type"),
    (66, "acknowledgment number"),
    (64, "sequence number"),
    (60, "session id"),
    (SHARE_INDEX_OFFSET, "share index"),
    (MESSAGE_OFFSET, "message id"),
    (DEST_OFFSET, "destination id"),
    (SOURCE_OFFSET, "source id"),
    (4, "version"),
    (0, "magic"),
];

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Octets of a flow.
    Data = 1,
    /// What has arrived ([`crate::segment::Ack`]).
    Ack = 2,
    /// What is missing ([`crate::segment::Nak`]).
    Nak = 3,
    /// Begins a session ([`crate::segment::Syn`]).
    Syn = 4,
    /// Ends a session or a flow ([`crate::segment::Fin`]).
    Fin = 5,
    /// Shows that the sender is alive; no payload.
    Heartbeat = 6,
    /// Octets of the application that are sent once and belong to no flow. Profile 1.1.
    Datagram = 7,
}

impl PacketType {
    /// All types in the order of their octets.
    pub const ALL: [Self; 7] = [
        Self::Data,
        Self::Ack,
        Self::Nak,
        Self::Syn,
        Self::Fin,
        Self::Heartbeat,
        Self::Datagram,
    ];

    /// The type of an octet, or `None` for one that is not 1 to 7.
    #[must_use]
    pub const fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Data,
            2 => Self::Ack,
            3 => Self::Nak,
            4 => Self::Syn,
            5 => Self::Fin,
            6 => Self::Heartbeat,
            7 => Self::Datagram,
            _ => return None,
        })
    }

    /// The octet on the wire.
    #[must_use]
    pub const fn octet(self) -> u8 {
        self as u8
    }
}

/// The flags of a packet. Bits without a meaning survive decoding and encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The last segment of its flow.
    pub const FINAL: Self = Self(1);
    /// The segment was sent before.
    pub const RETRANSMIT: Self = Self(2);
    /// The checksum field holds the datagram's checksum.
    pub const CHECKSUM: Self = Self(4);
    /// The phase of the keys that a sealed datagram is protected with: it changes with each key
    /// update. Profile 1.1.
    pub const KEY_PHASE: Self = Self(0x80);

    /// Flags from their octet.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The octet on the wire.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags except those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.with(other);
    }
}

impl BitAnd for Flags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flags(")?;
        let names = [
            (Self::FINAL, "FINAL"),
            (Self::RETRANSMIT, "RETRANSMIT"),
            (Self::KEY_PHASE, "KEY_PHASE"),
            (Self::CHECKSUM, "CHECKSUM"),
        ];
        let mut rest = *self;
        let mut separator = "";
        for (flag, name) in names {
            if rest.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest = rest.without(flag);
            }
        }
        if rest != Self::NONE {
            write!(f, "{separator}{:#04x}", rest.0)?;
        }
        f.write_str(")")
    }
}

/// The fields of both headers that say something of their own. Payload length and checksum
/// follow from the rest of the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// The sender, or [`NodeId::EMPTY`].
    pub source: NodeId,
    /// The addressee, or [`NodeId::EMPTY`].
    pub dest: NodeId,
    /// The flow that the packet belongs to.
    pub flow: FlowId,
    /// The receiver's session id; 0 in a SYN offer and from a 1.0 peer.
    pub session: u32,
    /// The number of this segment in its flow.
    pub seq: Seq,
    /// The next number expected of that flow.
    pub ack: Seq,
    /// What the packet is for.
    pub kind: PacketType,
    /// Flags.
    pub flags: Flags,
    /// What the flow accepts beyond `ack`, in units of
    /// [`FLOW_WINDOW_UNIT`](crate::segment::FLOW_WINDOW_UNIT) octets.
    pub window: u16,
    /// The low 32 bits of the packet number, fresh for every transmission; 0 from a 1.0 peer.
    pub packet_number: u32,
}

/// A header as it stood in a datagram, with the two fields that follow from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParsedHeader {
    /// The fields that say something of their own.
    pub header: Header,
    /// Octets of payload after the header, at most what the parser was told to accept.
    pub payload_len: u16,
    /// The checksum field; without meaning unless [`Flags::CHECKSUM`] is set.
    pub checksum: u16,
}

/// The fields of both headers in the order of the wire, before any is judged.
struct Raw {
    magic: [u8; 4],
    version: [u8; 4],
    source: [u8; 16],
    dest: [u8; 16],
    message: [u8; 16],
    share_index: [u8; 4],
    session: u32,
    seq: u16,
    ack: u16,
    kind: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    payload_len: u16,
    packet_number: u32,
}

impl Raw {
    fn parse(input: &[u8]) -> IResult<&[u8], Self, Short> {
        let (input, magic) = array(input)?;
        let (input, version) = array(input)?;
        let (input, source) = array(input)?;
        let (input, dest) = array(input)?;
        let (input, message) = array(input)?;
        let (input, share_index) = array(input)?;
        let (input, session) = be_u32(input)?;
        let (input, seq) = be_u16(input)?;
        let (input, ack) = be_u16(input)?;
        let (input, kind) = be_u8(input)?;
        let (input, flags) = be_u8(input)?;
        let (input, window) = be_u16(input)?;
        let (input, checksum) = be_u16(input)?;
        let (input, payload_len) = be_u16(input)?;
        let (input, packet_number) = be_u32(input)?;
        let raw = Self {
            magic,
            version,
            source,
            dest,
            message,
            share_index,
            session,
            seq,
            ack,
            kind,
            flags,
            window,
            checksum,
            payload_len,
            packet_number,
        };
        Ok((input, raw))
    }
}

impl Header {
    /// A header of the given type and flow with every other field empty or zero.
    #[must_use]
    pub const fn new(kind: PacketType, source: NodeId, dest: NodeId, flow: FlowId) -> Self {
        Self {
            source,
            dest,
            flow,
            session: 0,
            seq: Seq::ZERO,
            ack: Seq::ZERO,
            kind,
            flags: Flags::NONE,
            window: 0,
            packet_number: 0,
        }
    }

    /// Reads the first 80 octets of a datagram. Neither the payload nor the checksum is looked
    /// at: [`Packet::parse`](crate::Packet::parse) does that.
    ///
    /// Nothing is allocated.
    ///
    /// # Errors
    /// Names the first field, in the order of the wire, that is missing or malformed.
    pub fn parse(datagram: &[u8]) -> Result<ParsedHeader, PacketError> {
        Self::parse_within(datagram, MAX_PAYLOAD)
    }

    /// As [`parse`](Self::parse), for a sealed datagram: its payload has up to
    /// [`MAX_SEALED_PAYLOAD`] octets.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn parse_sealed(datagram: &[u8]) -> Result<ParsedHeader, PacketError> {
        Self::parse_within(datagram, MAX_SEALED_PAYLOAD)
    }

    fn parse_within(datagram: &[u8], max_payload: usize) -> Result<ParsedHeader, PacketError> {
        let (_, raw) = Raw::parse(datagram).map_err(|_| truncated(datagram.len()))?;
        if raw.magic != MAGIC {
            return Err(PacketError::BadMagic { found: raw.magic });
        }
        if raw.version != VERSION {
            return Err(PacketError::BadVersion { found: raw.version });
        }
        let source = node_id(raw.source, "source id", SOURCE_OFFSET)?;
        let dest = node_id(raw.dest, "destination id", DEST_OFFSET)?;
        let message = MessageId::from_field(raw.message).map_err(|cause| PacketError::BadId {
            field: "message id",
            offset: MESSAGE_OFFSET,
            cause,
        })?;
        let index = ShareIndex::from_field(raw.share_index).map_err(|cause| {
            PacketError::BadShareIndex {
                offset: SHARE_INDEX_OFFSET,
                cause,
            }
        })?;
        let kind = PacketType::from_octet(raw.kind).ok_or(PacketError::UnknownType {
            offset: TYPE_OFFSET,
            found: raw.kind,
        })?;
        if usize::from(raw.payload_len) > max_payload {
            return Err(PacketError::PayloadTooLong {
                offset: PAYLOAD_LEN_OFFSET,
                found: raw.payload_len,
                allowed: u16::try_from(max_payload).unwrap_or(u16::MAX),
            });
        }
        let header = Self {
            source,
            dest,
            flow: FlowId { message, index },
            session: raw.session,
            seq: Seq(raw.seq),
            ack: Seq(raw.ack),
            kind,
            flags: Flags(raw.flags),
            window: raw.window,
            packet_number: raw.packet_number,
        };
        Ok(ParsedHeader {
            header,
            payload_len: raw.payload_len,
            checksum: raw.checksum,
        })
    }

    /// Writes the 80 octets, with a checksum field of zero.
    ///
    /// When [`Flags::CHECKSUM`] is set, call [`checksum::fill`](crate::checksum::fill) once the
    /// payload stands behind the header. `payload_len` is to be at most [`MAX_PAYLOAD`], sealed
    /// [`MAX_SEALED_PAYLOAD`], or no parser will accept the datagram. Nothing is allocated.
    pub fn emit(&self, payload_len: u16, out: &mut [u8; HEADER_LEN]) {
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&VERSION);
        out[8..24].copy_from_slice(&self.source.field());
        out[24..40].copy_from_slice(&self.dest.field());
        out[40..56].copy_from_slice(&self.flow.message.field());
        out[56..60].copy_from_slice(&self.flow.index.field());
        out[60..64].copy_from_slice(&self.session.to_be_bytes());
        out[64..66].copy_from_slice(&self.seq.get().to_be_bytes());
        out[66..68].copy_from_slice(&self.ack.get().to_be_bytes());
        out[68] = self.kind.octet();
        out[69] = self.flags.bits();
        out[70..72].copy_from_slice(&self.window.to_be_bytes());
        out[72..74].fill(0);
        out[74..76].copy_from_slice(&payload_len.to_be_bytes());
        out[76..80].copy_from_slice(&self.packet_number.to_be_bytes());
    }
}

fn node_id(field: [u8; 16], name: &'static str, offset: usize) -> Result<NodeId, PacketError> {
    NodeId::from_field(field).map_err(|cause| PacketError::BadId {
        field: name,
        offset,
        cause,
    })
}

fn truncated(found: usize) -> PacketError {
    let (offset, field) = FIELDS
        .into_iter()
        .find(|(offset, _)| *offset <= found)
        .unwrap_or((0, "magic"));
    PacketError::Truncated {
        field,
        offset,
        found,
        needed: HEADER_LEN,
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
