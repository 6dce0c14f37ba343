//! Errors of identifiers, packets and segments. Those of control lines are in
//! [`crate::control`].

use thiserror::Error;

/// Why octets or text are not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// Nothing stands where at least one octet must.
    #[error("is empty, at least 1 octet is needed")]
    Empty,
    /// More octets than the field holds.
    #[error("has {found} octets, at most {allowed} are allowed")]
    TooLong {
        /// Octets given.
        found: usize,
        /// Octets the field holds.
        allowed: usize,
    },
    /// An octet outside the alphabet.
    #[error("has octet {octet:#04x} at {offset}, allowed are {allowed}")]
    BadOctet {
        /// Position inside the identifier.
        offset: usize,
        /// The octet found.
        octet: u8,
        /// The alphabet, in words.
        allowed: &'static str,
    },
    /// Something follows the NUL that ends the identifier in its field.
    #[error("has octet {octet:#04x} at {offset} after its NUL padding began")]
    AfterPadding {
        /// Position inside the field.
        offset: usize,
        /// The octet found.
        octet: u8,
    },
}

impl IdError {
    /// The same error in a text that begins `by` octets earlier.
    pub(crate) fn moved(self, by: usize) -> Self {
        match self {
            Self::BadOctet {
                offset,
                octet,
                allowed,
            } => Self::BadOctet {
                offset: offset + by,
                octet,
                allowed,
            },
            other => other,
        }
    }
}

/// Why four octets or a number are not a share index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShareIndexError {
    /// The field is not ASCII digits ended by NUL or the field's end.
    #[error("is {found:02x?}, needed are 1 to 4 ASCII digits padded with NUL")]
    BadField {
        /// The field as found.
        found: [u8; 4],
    },
    /// The number does not fit in four digits.
    #[error("is {found}, at most {allowed} is allowed")]
    OutOfRange {
        /// The number given.
        found: u16,
        /// The largest share index.
        allowed: u16,
    },
}

/// Why a datagram is not a packet.
///
/// [`field`](Self::field) and [`offset`](Self::offset) say where, for every variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The datagram ends inside the headers.
    #[error(
        "datagram of {found} octets ends inside {field} at octet {offset}, the headers need {needed}"
    )]
    Truncated {
        /// The first field that is not complete.
        field: &'static str,
        /// Where that field starts.
        offset: usize,
        /// Octets in the datagram.
        found: usize,
        /// Octets the headers need.
        needed: usize,
    },
    /// The first four octets are not `VMDT`.
    #[error("magic at octet 0 is {found:02x?}, allowed is \"VMDT\"")]
    BadMagic {
        /// The octets found.
        found: [u8; 4],
    },
    /// The version is not `1.0` and a NUL.
    #[error("version at octet 4 is {found:02x?}, allowed is \"1.0\\0\"")]
    BadVersion {
        /// The octets found.
        found: [u8; 4],
    },
    /// An identifier field is malformed.
    #[error("{field} at octet {offset} {cause}")]
    BadId {
        /// Which identifier.
        field: &'static str,
        /// Where its field starts.
        offset: usize,
        /// What is wrong with it.
        #[source]
        cause: IdError,
    },
    /// The share index field is malformed.
    #[error("share index at octet {offset} {cause}")]
    BadShareIndex {
        /// Where the field starts.
        offset: usize,
        /// What is wrong with it.
        #[source]
        cause: ShareIndexError,
    },
    /// The packet type is none of the seven.
    #[error("packet type at octet {offset} is {found}, allowed are 1 to 7")]
    UnknownType {
        /// Where the octet stands.
        offset: usize,
        /// The octet found.
        found: u8,
    },
    /// The payload length is larger than any payload may be.
    #[error("payload length at octet {offset} is {found}, at most {allowed} is allowed")]
    PayloadTooLong {
        /// Where the field starts.
        offset: usize,
        /// The length found.
        found: u16,
        /// The largest payload.
        allowed: u16,
    },
    /// The datagram ends before its payload does.
    #[error("payload at octet {offset} has {found} octets, its header says {needed}")]
    PayloadTruncated {
        /// Where the payload starts.
        offset: usize,
        /// Octets present.
        found: usize,
        /// Octets the header announces.
        needed: usize,
    },
    /// The packet says that it carries a checksum, and the checksum is wrong.
    #[error("checksum at octet {offset} is {found:#06x}, the octets give {expected:#06x}")]
    BadChecksum {
        /// Where the field starts.
        offset: usize,
        /// The checksum found.
        found: u16,
        /// The checksum computed.
        expected: u16,
    },
}

impl PacketError {
    /// Name of the field that is wrong.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Truncated { field, .. } | Self::BadId { field, .. } => field,
            Self::BadMagic { .. } => "magic",
            Self::BadVersion { .. } => "version",
            Self::BadShareIndex { .. } => "share index",
            Self::UnknownType { .. } => "packet type",
            Self::PayloadTooLong { .. } => "payload length",
            Self::PayloadTruncated { .. } => "payload",
            Self::BadChecksum { .. } => "checksum",
        }
    }

    /// Octet of the datagram at which that field starts.
    #[must_use]
    pub const fn offset(&self) -> usize {
        match self {
            Self::BadMagic { .. } => 0,
            Self::BadVersion { .. } => 4,
            Self::Truncated { offset, .. }
            | Self::BadId { offset, .. }
            | Self::BadShareIndex { offset, .. }
            | Self::UnknownType { offset, .. }
            | Self::PayloadTooLong { offset, .. }
            | Self::PayloadTruncated { offset, .. }
            | Self::BadChecksum { offset, .. } => *offset,
        }
    }
}

/// Why a payload is not the segment that its packet type announces.
///
/// [`field`](Self::field) and [`offset`](Self::offset) say where, for every variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The payload ends too early.
    #[error("payload of {found} octets ends inside {field} at octet {offset}")]
    Truncated {
        /// The first field that is not complete.
        field: &'static str,
        /// Where that field starts in the payload.
        offset: usize,
        /// Octets in the payload.
        found: usize,
    },
    /// A number is outside its range.
    #[error("{field} at octet {offset} is {found}, allowed is {min} to {max}")]
    OutOfRange {
        /// Which number.
        field: &'static str,
        /// Where it starts in the payload.
        offset: usize,
        /// The number found.
        found: u32,
        /// The smallest allowed.
        min: u32,
        /// The largest allowed.
        max: u32,
    },
    /// The ranges together cover more packet numbers than there are.
    #[error("{field} at octet {offset} reaches past the 2^32 packet numbers below the largest")]
    RangesTooLong {
        /// Which number went over.
        field: &'static str,
        /// Where it starts in the payload.
        offset: usize,
    },
    /// The reason is not UTF-8.
    #[error("{field} at octet {offset} is not UTF-8")]
    BadUtf8 {
        /// Which text.
        field: &'static str,
        /// Position in the payload of the first octet that is not UTF-8.
        offset: usize,
    },
    /// Octets follow the segment's last field.
    #[error("{found} octets follow the segment's end at octet {offset}, allowed are none")]
    Trailing {
        /// Where the segment ends in the payload.
        offset: usize,
        /// Octets that follow.
        found: usize,
    },
}

impl SegmentError {
    /// Name of the field that is wrong.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Truncated { field, .. }
            | Self::OutOfRange { field, .. }
            | Self::RangesTooLong { field, .. }
            | Self::BadUtf8 { field, .. } => field,
            Self::Trailing { .. } => "trailing octets",
        }
    }

    /// Octet of the payload at which that field starts.
    #[must_use]
    pub const fn offset(&self) -> usize {
        match self {
            Self::Truncated { offset, .. }
            | Self::OutOfRange { offset, .. }
            | Self::RangesTooLong { offset, .. }
            | Self::BadUtf8 { offset, .. }
            | Self::Trailing { offset, .. } => *offset,
        }
    }
}
