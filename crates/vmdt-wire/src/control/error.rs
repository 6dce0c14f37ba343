//! Why a line does not parse, and why a message cannot be written.

use core::fmt;

use thiserror::Error;

use super::ErrorCode;
use crate::error::IdError;

/// The beginning of what was found, for an error to show: at most 24 octets of ASCII, anything
/// else shown as `?`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    octets: [u8; Self::MAX],
    len: u8,
    cut: bool,
}

impl Excerpt {
    const MAX: usize = 24;

    pub(super) fn of(text: &str) -> Self {
        let mut octets = [0; Self::MAX];
        let mut len = 0;
        for (place, octet) in octets.iter_mut().zip(text.bytes()) {
            *place = if octet.is_ascii_graphic() || octet == b' ' {
                octet
            } else {
                b'?'
            };
            len += 1;
        }
        Self {
            octets,
            len,
            cut: text.len() > Self::MAX,
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.octets.get(..usize::from(self.len)).unwrap_or_default();
        let text = core::str::from_utf8(octets).unwrap_or_default();
        write!(f, "\"{text}{}\"", if self.cut { "…" } else { "" })
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why octets are not a control line: what is wrong, in which field, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{field} at octet {offset} {kind}")]
#[non_exhaustive]
pub struct LineError {
    /// What is wrong.
    #[source]
    pub kind: LineErrorKind,
    /// Name of the parameter, or of the part of the line.
    pub field: &'static str,
    /// Octet of the line, as it was given, at which that starts or the fault lies.
    pub offset: usize,
}

impl LineError {
    /// The code of the ERROR that answers such a line.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self.kind {
            LineErrorKind::UnknownType { .. } => ErrorCode::UnknownType,
            LineErrorKind::BadVersion { .. } => ErrorCode::BadVersion,
            LineErrorKind::NotANumber { .. } => ErrorCode::NotANumber,
            LineErrorKind::OutOfRange { .. } => ErrorCode::OutOfRange,
            LineErrorKind::BadId(_) => ErrorCode::BadId,
            LineErrorKind::Blank
            | LineErrorKind::BadUtf8
            | LineErrorKind::BadOctet { .. }
            | LineErrorKind::Missing
            | LineErrorKind::TooMany { .. }
            | LineErrorKind::BadWord { .. }
            | LineErrorKind::BadAddress { .. }
            | LineErrorKind::BadEscape
            | LineErrorKind::BadBase64
            | LineErrorKind::BadLength { .. }
            | LineErrorKind::BadEntry { .. } => ErrorCode::BadRequest,
        }
    }
}

/// What is wrong with a control line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LineErrorKind {
    /// Nothing but blanks.
    #[error("is blank")]
    Blank,
    /// Not UTF-8, as it stands or after escapes were resolved.
    #[error("is not UTF-8")]
    BadUtf8,
    /// NUL, or a line end inside the line.
    #[error("is octet {octet:#04x}, which a line does not hold")]
    BadOctet {
        /// The octet found.
        octet: u8,
    },
    /// The message type is not known.
    #[error("is {found}, which is no known message")]
    UnknownType {
        /// What stands in its place.
        found: Excerpt,
    },
    /// The line starts like slash form, and does not go on with `TCP/1.0/`.
    #[error("is {found}, allowed is \"TCP/1.0\"")]
    BadVersion {
        /// What stands in its place.
        found: Excerpt,
    },
    /// A parameter is missing.
    #[error("is missing")]
    Missing,
    /// There are more parameters or entries than allowed.
    #[error("has {found} of them, at most {allowed} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many may be.
        allowed: usize,
    },
    /// A parameter is to be a decimal number.
    #[error("is {found}, needed are decimal digits")]
    NotANumber {
        /// What stands in its place.
        found: Excerpt,
    },
    /// A number is outside its range.
    #[error("is {found}, allowed is {min} to {max}")]
    OutOfRange {
        /// The number as written.
        found: Excerpt,
        /// The smallest allowed.
        min: u32,
        /// The largest allowed.
        max: u32,
    },
    /// A parameter is to be an identifier.
    #[error("{0}")]
    BadId(IdError),
    /// A parameter is to be one of a few words.
    #[error("is {found}, allowed are {allowed}")]
    BadWord {
        /// What stands in its place.
        found: Excerpt,
        /// The words.
        allowed: &'static str,
    },
    /// A parameter is to be an IP address, with or without a port.
    #[error("is {found}, needed is {needed}")]
    BadAddress {
        /// What stands in its place.
        found: Excerpt,
        /// What kind of address.
        needed: &'static str,
    },
    /// `%` without two hexadecimal digits.
    #[error("is not % and two hexadecimal digits")]
    BadEscape,
    /// Not base64 of the alphabet and length needed.
    #[error("is not base64")]
    BadBase64,
    /// The wrong number of octets.
    #[error("has {found} octets, needed are {needed}")]
    BadLength {
        /// How many there are.
        found: usize,
        /// How many must be.
        needed: usize,
    },
    /// A list entry does not have the parts it needs.
    #[error("has {found} parts, needed is {needed}")]
    BadEntry {
        /// How many parts there are.
        found: usize,
        /// The entry's layout.
        needed: &'static str,
    },
}

/// Why a framing cannot carry a message. Always the fault of the one who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The bar form escapes nothing, so a parameter must hold no separator and no line end.
    #[error("{field} holds octet {octet:#04x} at {offset}, which the bar form cannot carry")]
    BadOctet {
        /// Which parameter.
        field: &'static str,
        /// Where in the parameter.
        offset: usize,
        /// The octet.
        octet: u8,
    },
    /// The bar form loses blanks at the end of a line.
    #[error("{field} ends in a blank at the line's end, which the bar form cannot carry")]
    EdgeBlank {
        /// Which parameter.
        field: &'static str,
    },
    /// The bar form cannot tell this last parameter from a tag.
    #[error("{field} would be read as a tag in bar form")]
    LooksLikeTag {
        /// Which parameter.
        field: &'static str,
    },
    /// The framing or the format has no place for it.
    #[error("{field} has no place in this line")]
    NotCarried {
        /// What it is.
        field: &'static str,
    },
    /// An identifier that is empty or not of `[A-Za-z0-9_-]`.
    #[error("{field} is empty or holds an octet outside A-Z a-z 0-9 _ -")]
    BadId {
        /// Which identifier.
        field: &'static str,
    },
    /// A number outside its range.
    #[error("{field} is {found}, allowed is {min} to {max}")]
    OutOfRange {
        /// Which number.
        field: &'static str,
        /// The number.
        found: u32,
        /// The smallest allowed.
        min: u32,
        /// The largest allowed.
        max: u32,
    },
    /// More parameters or entries than a parser accepts.
    #[error("{found} {field}, at most {allowed} are allowed")]
    TooMany {
        /// What there are too many of.
        field: &'static str,
        /// How many there are.
        found: usize,
        /// How many may be.
        allowed: usize,
    },
}
