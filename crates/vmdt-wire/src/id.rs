//! Identifiers: nodes, messages, clusters, share indices, flows.
//!
//! All are `Copy` and hold their octets inline, NUL-padded as on the wire, so that order and
//! equality are those of the text.

use core::fmt;
use core::num::NonZeroU8;
use core::str::FromStr;

use crate::error::{IdError, ShareIndexError};

/// Octets of an identifier field in the header.
pub const ID_LEN: usize = 16;

/// Octets of the longest message name and cluster id in a control line.
pub const NAME_LEN: usize = 64;

/// A set of ASCII octets, one bit each, and how to say it in words.
struct Alphabet {
    /// Two words: shifting one of 128 bits takes several instructions.
    bits: [u64; 2],
    words: &'static str,
}

impl Alphabet {
    /// ASCII letters, digits and `others`.
    const fn alphanumeric_and(others: &[u8], words: &'static str) -> Self {
        let mut bits = set(others);
        let mut octet = 0_u8;
        while octet < 128 {
            if octet.is_ascii_alphanumeric() {
                bits |= 1 << octet;
            }
            octet += 1;
        }
        Self {
            bits: halves(bits),
            words,
        }
    }

    /// Printable ASCII except the blank and `others`.
    const fn graphic_except(others: &[u8], words: &'static str) -> Self {
        let mut bits = 0;
        let mut octet = 0_u8;
        while octet < 128 {
            if octet.is_ascii_graphic() {
                bits |= 1 << octet;
            }
            octet += 1;
        }
        Self {
            bits: halves(bits & !set(others)),
            words,
        }
    }

    const fn holds(&self, octet: u8) -> bool {
        let [low, high] = self.bits;
        let word = if octet < 64 { low } else { high };
        octet < 128 && word >> (octet & 63) & 1 == 1
    }
}

const fn halves(bits: u128) -> [u64; 2] {
    [bits as u64, (bits >> 64) as u64]
}

const fn set(mut octets: &[u8]) -> u128 {
    let mut bits = 0;
    while let [octet, rest @ ..] = octets {
        bits |= 1 << *octet;
        octets = rest;
    }
    bits
}

static PLAIN: Alphabet = Alphabet::alphanumeric_and(b"_-", "A-Z a-z 0-9 _ -");
static NAME: Alphabet = Alphabet::alphanumeric_and(b"_-.:", "A-Z a-z 0-9 _ - . :");
static FIELD: Alphabet =
    Alphabet::graphic_except(b"|/%:,~", "printable ASCII without blank and | / % : , ~");

/// ASCII text of at most `N` octets, padded with NUL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Padded<const N: usize>([u8; N]);

impl<const N: usize> Padded<N> {
    const EMPTY: Self = Self([0; N]);

    fn from_text(text: &str, alphabet: &Alphabet) -> Result<Self, IdError> {
        let found = text.len();
        if found == 0 {
            return Err(IdError::Empty);
        }
        let mut octets = [0; N];
        match octets.get_mut(..found) {
            Some(place) => place.copy_from_slice(text.as_bytes()),
            None => return Err(IdError::TooLong { found, allowed: N }),
        }
        match text.bytes().position(|octet| !alphabet.holds(octet)) {
            Some(offset) => Err(IdError::BadOctet {
                offset,
                octet: text.as_bytes().get(offset).copied().unwrap_or_default(),
                allowed: alphabet.words,
            }),
            None => Ok(Self(octets)),
        }
    }

    fn from_field(field: [u8; N], alphabet: &Alphabet) -> Result<Self, IdError> {
        let mut ended = false;
        for (offset, &octet) in field.iter().enumerate() {
            if octet == 0 {
                ended = true;
            } else if ended {
                return Err(IdError::AfterPadding { offset, octet });
            } else if !alphabet.holds(octet) {
                return Err(IdError::BadOctet {
                    offset,
                    octet,
                    allowed: alphabet.words,
                });
            }
        }
        Ok(Self(field))
    }

    fn octets(&self) -> &[u8] {
        let len = self.0.iter().position(|&octet| octet == 0).unwrap_or(N);
        self.0.get(..len).unwrap_or_default()
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(self.octets()).unwrap_or_default()
    }
}

fn plain_text<const N: usize>(text: &str) -> Result<Padded<N>, IdError> {
    Padded::from_text(text, &PLAIN)
}

fn name_text<const N: usize>(text: &str) -> Result<Padded<N>, IdError> {
    Padded::from_text(text, &NAME)
}

macro_rules! text_traits {
    ($type:ident, $parse:ident) => {
        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $parse(text).map(Self)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = IdError;

            fn try_from(text: &str) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.as_str())
            }
        }
    };
}

/// The identifier of a node: at most 16 octets of ASCII.
///
/// Text is held to `[A-Za-z0-9_-]{1,16}`, or to the form of profile 1.1: `@` and 15 characters of
/// base64url, 90 bits of a hash of the node's key. No id of profile 1.0 begins with `@`, so whoever
/// sees one knows that its node always speaks sealed. A header field may hold any printable ASCII
/// without the separators of control lines, because deployed 1.0 software does not check, and may
/// be empty, because its ACKs are.
///
/// ```
/// use vmdt_wire::NodeId;
///
/// let id: NodeId = "client_12345".parse()?;
/// assert_eq!(id.field(), *b"client_12345\0\0\0\0");
/// assert!("client 12345".parse::<NodeId>().is_err());
/// # Ok::<(), vmdt_wire::IdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Padded<ID_LEN>);

text_traits!(NodeId, node_text);

/// What marks the id of a node that always speaks sealed.
const SEALED_MARK: u8 = b'@';
/// Octets of hash that a sealed id is made from; the last 6 of their 96 bits are not used.
const SEALED_HASH: usize = 12;

fn node_text(text: &str) -> Result<Padded<ID_LEN>, IdError> {
    match text.strip_prefix(char::from(SEALED_MARK)) {
        Some(rest) if rest.len() == ID_LEN - 1 => {
            let Padded(mut field) = plain_text::<ID_LEN>(rest).map_err(|error| error.moved(1))?;
            // The last octet is free: the text is one shorter than the field.
            field.rotate_right(1);
            if let Some(first) = field.first_mut() {
                *first = SEALED_MARK;
            }
            Ok(Padded(field))
        }
        _ => plain_text(text),
    }
}

impl NodeId {
    /// Sixteen NUL octets. A header may carry it, a control line may not.
    pub const EMPTY: Self = Self(Padded::EMPTY);

    /// Reads a header field.
    ///
    /// # Errors
    /// An octet that is not printable ASCII, a separator, or anything after the padding began.
    pub fn from_field(field: [u8; ID_LEN]) -> Result<Self, IdError> {
        Padded::from_field(field, &FIELD).map(Self)
    }

    /// The header field: the text, padded with NUL.
    #[must_use]
    pub const fn field(&self) -> [u8; ID_LEN] {
        self.0.0
    }

    /// The text without its padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether this is [`NodeId::EMPTY`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// The id of profile 1.1 that stands for a hash: `@` and the first 90 bits of it in base64url.
    ///
    /// ```
    /// let id = vmdt_wire::NodeId::sealed([0; 12]);
    /// assert_eq!(id.as_str(), "@AAAAAAAAAAAAAAA");
    /// assert!(id.is_sealed());
    /// ```
    #[must_use]
    pub fn sealed(hash: [u8; SEALED_HASH]) -> Self {
        let mut text = [0; ID_LEN];
        data_encoding::BASE64URL_NOPAD.encode_mut(&hash, &mut text);
        // 16 characters, the last of which makes room for the mark.
        text.rotate_right(1);
        if let Some(first) = text.first_mut() {
            *first = SEALED_MARK;
        }
        Self(Padded(text))
    }

    /// Whether the id has the form of profile 1.1, so that its node is never spoken to in the open
    /// profile.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self.0.octets(), [SEALED_MARK, rest @ ..]
            if rest.len() == ID_LEN - 1 && rest.iter().all(|&octet| PLAIN.holds(octet)))
    }

    /// Whether the text is one that [`FromStr`] takes, so that a control line can carry it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = !self.is_empty() && self.0.octets().iter().all(|&octet| PLAIN.holds(octet));
        plain || self.is_sealed()
    }
}

/// The identifier of a message in a header: at most 16 octets of `[A-Za-z0-9_.:-]`.
///
/// Our own are 96 random bits, 16 characters of base64url. Text is held to
/// `[A-Za-z0-9_-]{1,16}`; a header field may also hold the `.` and `:` that occur in names of
/// deployed 1.0 software.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Padded<ID_LEN>);

text_traits!(MessageId, plain_text);

impl MessageId {
    /// Sixteen NUL octets: the message id of the control flow.
    pub const ZERO: Self = Self(Padded::EMPTY);

    /// Makes an id of 96 random bits: 16 characters of base64url.
    ///
    /// ```
    /// let id = vmdt_wire::MessageId::from_random([0xff; 12]);
    /// assert_eq!(id.as_str(), "________________");
    /// ```
    #[must_use]
    pub fn from_random(random: [u8; 12]) -> Self {
        let mut field = [0; ID_LEN];
        data_encoding::BASE64URL_NOPAD.encode_mut(&random, &mut field);
        Self(Padded(field))
    }

    /// Reads a header field.
    ///
    /// # Errors
    /// An octet outside `[A-Za-z0-9_.:-]`, or anything after the padding began.
    pub fn from_field(field: [u8; ID_LEN]) -> Result<Self, IdError> {
        Padded::from_field(field, &NAME).map(Self)
    }

    /// The header field: the text, padded with NUL.
    #[must_use]
    pub const fn field(&self) -> [u8; ID_LEN] {
        self.0.0
    }

    /// The text without its padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether this is [`MessageId::ZERO`].
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

/// A message's identifier as it stands in control lines: 1 to 64 octets of `[A-Za-z0-9_.:-]`.
///
/// Deployed 1.0 software names a message `<sender>_<receiver>_<unix seconds>`, which does not fit
/// in the header's 16 octets; hence a type of its own.
///
/// ```
/// use vmdt_wire::{MessageId, MessageName};
///
/// let long: MessageName = "client_1_client_2_1700000000".parse()?;
/// assert_eq!(long.to_message_id(), None);
/// let id = MessageId::from_random([7; 12]);
/// assert_eq!(MessageName::from(id).to_message_id(), Some(id));
/// # Ok::<(), vmdt_wire::IdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageName(Padded<NAME_LEN>);

text_traits!(MessageName, name_text);

impl MessageName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether this is the name of [`MessageId::ZERO`], the only empty one. A control line does
    /// not carry it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == Padded::EMPTY
    }

    /// The same identifier for a header, when it has at most 16 octets.
    #[must_use]
    pub fn to_message_id(&self) -> Option<MessageId> {
        let mut field = [0; ID_LEN];
        let octets = self.0.octets();
        field.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(MessageId(Padded(field)))
    }
}

impl From<MessageId> for MessageName {
    fn from(id: MessageId) -> Self {
        let mut octets = [0; NAME_LEN];
        octets[..ID_LEN].copy_from_slice(&id.field());
        Self(Padded(octets))
    }
}

/// The identifier of a cluster: 1 to 64 octets of `[A-Za-z0-9_-]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(Padded<NAME_LEN>);

text_traits!(ClusterId, plain_text);

impl ClusterId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Which share of a message a packet belongs to: 0 to 9,999. Shares count from 1; 0 is the
/// control flow's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareIndex(u16);

impl ShareIndex {
    /// Index 0: the control flow.
    pub const CONTROL: Self = Self(0);

    /// The largest index that four digits hold.
    pub const MAX: Self = Self(9_999);

    /// An index from its number, when that is at most 9,999.
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index <= Self::MAX.0 {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Reads a header field: 1 to 4 ASCII digits ended by NUL or the field's end. Deployed 1.0
    /// software writes four digits, or three and a NUL.
    ///
    /// # Errors
    /// No digit, another octet, or anything but NUL after a NUL.
    pub fn from_field(field: [u8; 4]) -> Result<Self, ShareIndexError> {
        let bad = ShareIndexError::BadField { found: field };
        let mut index = 0;
        let mut digits = 0_usize;
        let mut ended = false;
        for octet in field {
            match octet {
                0 => ended = true,
                b'0'..=b'9' if !ended => {
                    index = index * 10 + u16::from(octet - b'0');
                    digits += 1;
                }
                _ => return Err(bad),
            }
        }
        if digits == 0 {
            Err(bad)
        } else {
            Ok(Self(index))
        }
    }

    /// The header field: four digits.
    #[must_use]
    pub fn field(self) -> [u8; 4] {
        let digit = |unit: u16| b'0' + u8::try_from(self.0 / unit % 10).unwrap_or_default();
        [digit(1_000), digit(100), digit(10), digit(1)]
    }
}

impl From<NonZeroU8> for ShareIndex {
    fn from(index: NonZeroU8) -> Self {
        Self(u16::from(index.get()))
    }
}

impl TryFrom<u16> for ShareIndex {
    type Error = ShareIndexError;

    fn try_from(index: u16) -> Result<Self, ShareIndexError> {
        Self::new(index).ok_or(ShareIndexError::OutOfRange {
            found: index,
            allowed: Self::MAX.0,
        })
    }
}

/// The share's own index octet, when the index is 1 to 255.
impl TryFrom<ShareIndex> for NonZeroU8 {
    type Error = ShareIndexError;

    fn try_from(index: ShareIndex) -> Result<Self, ShareIndexError> {
        u8::try_from(index.0)
            .ok()
            .and_then(Self::new)
            .ok_or(ShareIndexError::OutOfRange {
                found: index.0,
                allowed: u16::from(u8::MAX),
            })
    }
}

impl fmt::Debug for ShareIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareIndex({})", self.0)
    }
}

impl fmt::Display for ShareIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a flow between two nodes: a message and one of its shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    /// The message.
    pub message: MessageId,
    /// The share of it.
    pub index: ShareIndex,
}

impl FlowId {
    /// The ordered control flow between two nodes: the zero message, index 0.
    pub const CONTROL: Self = Self {
        message: MessageId::ZERO,
        index: ShareIndex::CONTROL,
    };

    /// Names the flow of one share.
    #[must_use]
    pub const fn new(message: MessageId, index: ShareIndex) -> Self {
        Self { message, index }
    }

    /// Whether this is the control flow.
    #[must_use]
    pub fn is_control(&self) -> bool {
        *self == Self::CONTROL
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_control() {
            f.write_str("control")
        } else {
            write!(f, "{}/{}", self.message, self.index)
        }
    }
}

#[cfg(test)]
#[path = "id_tests.rs"]
mod tests;
