//! What the binary parsers share.

use nom::error::{ErrorKind, ParseError};
use nom::{IResult, Parser as _, bytes::complete::take};

/// The input ended too early. Where is known from the octets that were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

impl ParseError<&[u8]> for Short {
    fn from_error_kind(_: &[u8], _: ErrorKind) -> Self {
        Self
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// The next `N` octets.
pub(crate) fn array<const N: usize>(input: &[u8]) -> IResult<&[u8], [u8; N], Short> {
    take(N)
        .map_opt(|octets: &[u8]| octets.first_chunk().copied())
        .parse(input)
}
