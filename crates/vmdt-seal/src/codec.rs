//! Reading and writing the fields of our own structures: big-endian, bounded, canonical.

use vmdt_wire::{MessageId, NodeId};

use crate::error::ParseError;
use crate::identity::{PublicIdentity, SIGNATURE_LEN};

/// Reads fields in order and knows where it is.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self {
            rest: octets,
            offset: 0,
        }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], ParseError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(ParseError::Truncated {
            field,
            offset: self.offset,
        })?;
        self.rest = rest;
        self.offset += N;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, ParseError> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, ParseError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, ParseError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, ParseError> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(crate) fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], ParseError> {
        let (octets, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(ParseError::Truncated {
                field,
                offset: self.offset,
            })?;
        self.rest = rest;
        self.offset += len;
        Ok(octets)
    }

    /// Octets behind a length of one octet.
    pub(crate) fn short(
        &mut self,
        field: &'static str,
        allowed: usize,
    ) -> Result<&'a [u8], ParseError> {
        let offset = self.offset;
        let found = usize::from(self.u8(field)?);
        self.bounded(field, offset, found, allowed)
    }

    /// Octets behind a length of two octets.
    pub(crate) fn long(
        &mut self,
        field: &'static str,
        allowed: usize,
    ) -> Result<&'a [u8], ParseError> {
        let offset = self.offset;
        let found = usize::from(self.u16(field)?);
        self.bounded(field, offset, found, allowed)
    }

    fn bounded(
        &mut self,
        field: &'static str,
        offset: usize,
        found: usize,
        allowed: usize,
    ) -> Result<&'a [u8], ParseError> {
        if found > allowed {
            return Err(ParseError::TooLong {
                field,
                offset,
                found,
                allowed,
            });
        }
        self.take(field, found)
    }

    /// A count of one octet, at most `allowed`.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        allowed: usize,
    ) -> Result<usize, ParseError> {
        let offset = self.offset;
        let found = usize::from(self.u8(field)?);
        if found > allowed {
            return Err(ParseError::TooLong {
                field,
                offset,
                found,
                allowed,
            });
        }
        Ok(found)
    }

    /// Fixed octets: what the structure is and in which format.
    pub(crate) fn head(&mut self, head: Head) -> Result<(), ParseError> {
        let offset = self.offset;
        let [kind, format] = self.array("kind and format")?;
        if kind != head.kind {
            return Err(ParseError::Value {
                field: "kind",
                offset,
                found: u64::from(kind),
                allowed: "the kind of this structure",
            });
        }
        if format != FORMAT {
            return Err(ParseError::Value {
                field: "format",
                offset: offset + 1,
                found: u64::from(format),
                allowed: "1",
            });
        }
        Ok(())
    }

    /// Text of UTF-8 without control characters.
    pub(crate) fn text(
        &mut self,
        field: &'static str,
        allowed: usize,
    ) -> Result<&'a str, ParseError> {
        let offset = self.offset;
        let octets = self.short(field, allowed)?;
        core::str::from_utf8(octets)
            .ok()
            .filter(|text| is_clean(text))
            .ok_or(ParseError::Text { field, offset })
    }

    pub(crate) fn key(&mut self, field: &'static str) -> Result<PublicIdentity, ParseError> {
        let offset = self.offset;
        PublicIdentity::from_octets(self.array(field)?)
            .map_err(|_| ParseError::Key { field, offset })
    }

    pub(crate) fn signature(&mut self) -> Result<[u8; SIGNATURE_LEN], ParseError> {
        self.array("signature")
    }

    /// A node's id as it stands in a header; not empty.
    pub(crate) fn node_id(&mut self, field: &'static str) -> Result<NodeId, ParseError> {
        let offset = self.offset;
        NodeId::from_field(self.array(field)?)
            .ok()
            .filter(|id| !id.is_empty())
            .ok_or(ParseError::Text { field, offset })
    }

    /// A message's id as it stands in a header; not zero.
    pub(crate) fn message_id(&mut self, field: &'static str) -> Result<MessageId, ParseError> {
        let offset = self.offset;
        MessageId::from_field(self.array(field)?)
            .ok()
            .filter(|id| !id.is_zero())
            .ok_or(ParseError::Text { field, offset })
    }

    pub(crate) fn end(self) -> Result<(), ParseError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(ParseError::Trailing { count }),
        }
    }
}

/// The one format of every structure of profile 1.1.
pub(crate) const FORMAT: u8 = 1;

/// What a structure is: its first octet, and the domain of signatures over it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) domain: &'static str,
}

/// Declares the kinds, each once: two structures can never be taken for each other.
macro_rules! heads {
    ($($name:ident = $kind:literal, $domain:literal;)*) => {
        $(pub(crate) const $name: Head = Head { kind: $kind, domain: $domain };)*

        #[cfg(test)]
        pub(crate) const ALL_HEADS: &[Head] = &[$($name),*];
    };
}

heads! {
    CREDENTIAL = b'C', "vmdt 1.1 credential";
    PROFILE = b'P', "vmdt 1.1 profile";
    PREKEYS = b'K', "vmdt 1.1 prekey store";
    DETAILS = b'A', "vmdt 1.1 sealed details";
    GROUP_DETAILS = b'G', "vmdt 1.1 group details";
    PLACEMENT = b'L', "vmdt 1.1 placement";
    DESCRIPTOR = b'D', "vmdt 1.1 cluster descriptor";
    INVITE = b'I', "vmdt 1.1 invite";
    MEMBERSHIP = b'M', "vmdt 1.1 membership";
    REVOCATION = b'X', "vmdt 1.1 revocation";
    RECEIPTS = b'R', "vmdt 1.1 receipts";
    HANDOVERS = b'H', "vmdt 1.1 hand-overs";
    ROTATION = b'O', "vmdt 1.1 key rotation";
    EXPRESS = b'E', "vmdt 1.1 express opening";
    TICKET = b'T', "vmdt 1.1 ticket";
}

/// Begins a structure.
pub(crate) fn begin(head: Head, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.extend([head.kind, FORMAT]);
    out
}

/// Appends octets behind a length of one octet. The caller has bounded them.
pub(crate) fn put_short(out: &mut Vec<u8>, octets: &[u8]) {
    debug_assert!(octets.len() <= usize::from(u8::MAX));
    out.push(u8::try_from(octets.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(octets);
}

/// Appends octets behind a length of two octets. The caller has bounded them.
pub(crate) fn put_long(out: &mut Vec<u8>, octets: &[u8]) {
    debug_assert!(octets.len() <= usize::from(u16::MAX));
    let len = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(octets);
}

/// Whether a text shows as it is: no control characters, none that turn the reading direction.
pub(crate) fn is_clean(text: &str) -> bool {
    !text.chars().any(|c| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL_HEADS;

    #[test]
    fn kinds_and_domains_are_unique_and_hold_no_nul() {
        let kinds: BTreeSet<u8> = ALL_HEADS.iter().map(|head| head.kind).collect();
        let domains: BTreeSet<&str> = ALL_HEADS.iter().map(|head| head.domain).collect();
        assert_eq!(kinds.len(), ALL_HEADS.len());
        assert_eq!(domains.len(), ALL_HEADS.len());
        assert!(domains.iter().all(|domain| !domain.contains('\0')));
    }
}
