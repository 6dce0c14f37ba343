//! A line's parameters, one after another.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use nom::bytes::complete::take_while_m_n;
use nom::{IResult, Parser as _};

use super::{Excerpt, Framing, LineError, LineErrorKind};
use crate::error::IdError;

/// A parameter with its escapes resolved, and where it stands.
pub(super) struct Param<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) field: &'static str,
    pub(super) offset: usize,
}

impl Param<'_> {
    pub(super) fn error(&self, kind: LineErrorKind) -> LineError {
        LineError {
            kind,
            field: self.field,
            offset: self.offset,
        }
    }

    pub(super) fn excerpt(&self) -> Excerpt {
        Excerpt::of(&self.text)
    }

    pub(super) fn into_string(self) -> String {
        self.text.into_owned()
    }

    /// One of the parameter's parts, when it has an inner structure.
    pub(super) fn part<'b>(&self, text: &'b str, field: &'static str) -> Param<'b> {
        Param {
            text: Cow::Borrowed(text),
            field,
            offset: self.offset,
        }
    }

    pub(super) fn id<T: FromStr<Err = IdError>>(&self) -> Result<T, LineError> {
        self.text
            .parse()
            .map_err(|cause| self.error(LineErrorKind::BadId(cause)))
    }

    pub(super) fn number(&self, min: u16, max: u16) -> Result<u16, LineError> {
        let value = decimal(&self.text).map_err(|()| {
            self.error(LineErrorKind::NotANumber {
                found: self.excerpt(),
            })
        })?;
        value
            .and_then(|value| u16::try_from(value).ok())
            .filter(|value| (min..=max).contains(value))
            .ok_or_else(|| {
                self.error(LineErrorKind::OutOfRange {
                    found: self.excerpt(),
                    min: u32::from(min),
                    max: u32::from(max),
                })
            })
    }

    pub(super) fn wide_number(&self) -> Result<u32, LineError> {
        let value = decimal(&self.text).map_err(|()| {
            self.error(LineErrorKind::NotANumber {
                found: self.excerpt(),
            })
        })?;
        value.ok_or_else(|| {
            self.error(LineErrorKind::OutOfRange {
                found: self.excerpt(),
                min: 0,
                max: u32::MAX,
            })
        })
    }

    /// The octets that base64url without padding stands for, at most `max`.
    pub(super) fn binary(&self, max: usize) -> Result<Vec<u8>, LineError> {
        let (found, needed) = (self.text.len(), BASE64URL_NOPAD.encode_len(max));
        if found > needed {
            return Err(self.error(LineErrorKind::TooMany {
                found,
                allowed: needed,
            }));
        }
        BASE64URL_NOPAD
            .decode(self.text.as_bytes())
            .map_err(|_| self.error(LineErrorKind::BadBase64))
    }

    pub(super) fn word<T: Copy>(
        &self,
        words: &[T],
        name: impl Fn(T) -> &'static str,
        allowed: &'static str,
    ) -> Result<T, LineError> {
        words
            .iter()
            .copied()
            .find(|&word| name(word) == self.text)
            .ok_or_else(|| {
                self.error(LineErrorKind::BadWord {
                    found: self.excerpt(),
                    allowed,
                })
            })
    }
}

/// The number that decimal digits write: `Err` if there is anything else, `None` if it is too
/// large. The time is linear in the digits, and leading zeros change nothing.
fn decimal(text: &str) -> Result<Option<u32>, ()> {
    if text.is_empty() {
        return Err(());
    }
    text.bytes().try_fold(Some(0_u32), |value, octet| {
        if !octet.is_ascii_digit() {
            return Err(());
        }
        let digit = u32::from(octet - b'0');
        Ok(value.and_then(|value| value.checked_mul(10)?.checked_add(digit)))
    })
}

/// The number that a tag holds: `~` and decimal digits.
pub(super) fn as_tag(parameter: &str) -> Option<Option<u32>> {
    decimal(parameter.strip_prefix('~')?).ok()
}

/// The parameters of a line that have not been read yet.
pub(super) struct Params<'a> {
    /// Starts with a separator, or is empty.
    rest: &'a str,
    offset: usize,
    framing: Framing,
}

impl<'a> Params<'a> {
    /// `rest` is what follows the message type in the line, from octet `offset` on.
    pub(super) fn new(framing: Framing, rest: &'a str, offset: usize) -> Self {
        Self {
            rest,
            offset,
            framing,
        }
    }

    /// How many are left.
    pub(super) fn count(&self) -> usize {
        let separator = self.framing.separator();
        self.rest
            .bytes()
            .filter(|&octet| octet == separator)
            .count()
    }

    /// Whether there are more than `allowed`, and then how many.
    pub(super) fn more_than(&self, allowed: usize) -> Option<usize> {
        if self.rest.len() <= allowed {
            return None;
        }
        Some(self.count()).filter(|&found| found > allowed)
    }

    /// Takes the tag off the end, if there is one.
    pub(super) fn take_tag(&mut self) -> Result<Option<u32>, LineError> {
        let separator = self.framing.separator();
        let split = self.rest.bytes().rposition(|octet| octet == separator);
        let Some((before, last)) = split.and_then(|at| split_around(self.rest, at)) else {
            return Ok(None);
        };
        let Some(tag) = as_tag(last) else {
            return Ok(None);
        };
        let tag = tag.ok_or_else(|| LineError {
            kind: LineErrorKind::OutOfRange {
                found: Excerpt::of(last),
                min: 0,
                max: u32::MAX,
            },
            field: "tag",
            offset: self.offset + before.len() + 1,
        })?;
        self.rest = before;
        Ok(Some(tag))
    }

    /// The next parameter, if there is one.
    pub(super) fn optional(&mut self, field: &'static str) -> Result<Option<Param<'a>>, LineError> {
        let separator = self.framing.separator();
        let Some((_, after)) = split_around(self.rest, 0) else {
            return Ok(None);
        };
        let end = after.bytes().position(|octet| octet == separator);
        let (raw, rest) = end
            .and_then(|end| after.split_at_checked(end))
            .unwrap_or((after, ""));
        let offset = self.offset + 1;
        self.offset = offset + raw.len();
        self.rest = rest;
        let text = match self.framing {
            Framing::Bar => Cow::Borrowed(raw),
            Framing::Slash => unescape(raw, field, offset)?,
        };
        Ok(Some(Param {
            text,
            field,
            offset,
        }))
    }

    /// The next parameter.
    pub(super) fn required(&mut self, field: &'static str) -> Result<Param<'a>, LineError> {
        let offset = self.offset;
        self.optional(field)?.ok_or(LineError {
            kind: LineErrorKind::Missing,
            field,
            offset,
        })
    }

    /// Everything up to the line's end as one parameter: the bar form's last one.
    pub(super) fn rest_of_line(&mut self, field: &'static str) -> Result<Param<'a>, LineError> {
        let Some(text) = self.rest.strip_prefix(char::from(self.framing.separator())) else {
            return Err(LineError {
                kind: LineErrorKind::Missing,
                field,
                offset: self.offset,
            });
        };
        let offset = self.offset + 1;
        self.offset = offset + text.len();
        self.rest = "";
        Ok(Param {
            text: Cow::Borrowed(text),
            field,
            offset,
        })
    }

    /// The next entry of a list that goes on to the line's end. An empty last entry is none:
    /// deployed 1.0 software writes a separator behind every entry, or before none.
    pub(super) fn entry(&mut self, field: &'static str) -> Result<Option<Param<'a>>, LineError> {
        if self.rest.len() == 1 {
            self.rest = "";
        }
        self.optional(field)
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), LineError> {
        match self.more_than(0) {
            None => Ok(()),
            Some(found) => Err(LineError {
                kind: LineErrorKind::TooMany { found, allowed: 0 },
                field: "parameters after the last",
                offset: self.offset,
            }),
        }
    }
}

/// What stands before and behind the separator at `at`.
fn split_around(text: &str, at: usize) -> Option<(&str, &str)> {
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, rest.get(1..)?))
}

/// Resolves the escapes of a slash parameter.
fn unescape<'a>(
    raw: &'a str,
    field: &'static str,
    offset: usize,
) -> Result<Cow<'a, str>, LineError> {
    if !raw.as_bytes().contains(&b'%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut octets = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('%') {
        octets.extend_from_slice(before.as_bytes());
        let at = offset + raw.len() - after.len() - 1;
        let hex: IResult<&str, &str> =
            take_while_m_n(2, 2, |digit: char| digit.is_ascii_hexdigit()).parse(after);
        let (after, octet) = hex
            .ok()
            .and_then(|(after, digits)| Some((after, u8::from_str_radix(digits, 16).ok()?)))
            .ok_or(LineError {
                kind: LineErrorKind::BadEscape,
                field,
                offset: at,
            })?;
        octets.push(octet);
        rest = after;
    }
    octets.extend_from_slice(rest.as_bytes());
    String::from_utf8(octets)
        .map(Cow::Owned)
        .map_err(|_| LineError {
            kind: LineErrorKind::BadUtf8,
            field,
            offset,
        })
}
