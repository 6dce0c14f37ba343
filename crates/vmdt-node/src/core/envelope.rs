//! The envelope: what stands in front of a segment's octets, inside the encryption.
//!
//! A message or file travels as a sequence of segments, each an independent VMDT message that is
//! split k of n. The envelope says which transfer a segment belongs to and where it stands in it;
//! holders never see it. Every segment carries all of it, so that segments can be opened in any
//! order (`docs/protocol.md`, section 7).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format, 1 |
//! | 1 | 1 | kind: 0 octets, 1 file |
//! | 2 | 1 | flags: bit 0 last segment, bit 1 total size known |
//! | 3 | 1 | length of the name, octets |
//! | 4 | 16 | transfer id |
//! | 20 | 4 | segment number, from 0, big-endian |
//! | 24 | 8 | offset of the payload in the content, big-endian |
//! | 32 | 8 | total size of the content (0 when not known), big-endian |
//! | 40 | m | name, UTF-8 |
//! | 40 + m | 32 | only in the last segment: BLAKE3 digest of the whole content |
//! | … | | payload |

use std::fmt;

use vmdt_wire::MessageId;

const FORMAT: u8 = 1;
const FIXED: usize = 40;
const FLAG_LAST: u8 = 1;
const FLAG_SIZED: u8 = 2;
/// Octets of a BLAKE3 digest.
pub const DIGEST_LEN: usize = 32;
/// The longest name an envelope can carry, in octets.
pub const MAX_NAME: usize = 255;
/// The most octets an envelope itself takes.
pub const MAX_ENVELOPE: usize = FIXED + MAX_NAME + DIGEST_LEN;

/// What a transfer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Octets handed to the receiving application as one message.
    Octets,
    /// A file, written to the receiver's folder.
    File,
}

/// The description of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the transfer carries.
    pub kind: Kind,
    /// The transfer this segment belongs to.
    pub transfer: MessageId,
    /// The segment's number, from 0.
    pub number: u32,
    /// Where the payload stands in the content, in octets.
    pub offset: u64,
    /// Size of the whole content in octets, where the sender knew it.
    pub total: Option<u64>,
    /// The name the sender gave the file; empty for octets. Not yet made safe.
    pub name: String,
    /// Set on the last segment: the digest of the whole content.
    pub last: Option<[u8; DIGEST_LEN]>,
}

/// Why an envelope was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The segment ends before the envelope does.
    #[error("segment envelope is cut off at octet {at}")]
    Truncated {
        /// Octets that were there.
        at: usize,
    },
    /// A format this version does not know.
    #[error("segment envelope has format {found}, this version reads 1")]
    Format {
        /// The format octet.
        found: u8,
    },
    /// A kind this version does not know.
    #[error("segment envelope has kind {found}, known are 0 (octets) and 1 (file)")]
    Kind {
        /// The kind octet.
        found: u8,
    },
    /// The name is not UTF-8.
    #[error("segment envelope holds a name that is not UTF-8")]
    Name,
    /// The transfer id is not a message id.
    #[error("segment envelope holds a transfer id that is not printable ASCII")]
    Transfer,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], EnvelopeError> {
    bytes
        .get(at..at + N)
        .and_then(|s| s.try_into().ok())
        .ok_or(EnvelopeError::Truncated { at: bytes.len() })
}

impl Envelope {
    /// Writes the envelope in front of where the payload goes.
    ///
    /// A name longer than [`MAX_NAME`] octets is cut at a character boundary.
    pub fn emit_into(&self, out: &mut Vec<u8>) {
        let mut cut = self.name.len().min(MAX_NAME);
        while !self.name.is_char_boundary(cut) {
            cut -= 1;
        }
        let name = self.name.get(..cut).unwrap_or_default().as_bytes();
        let mut flags = 0;
        if self.last.is_some() {
            flags |= FLAG_LAST;
        }
        if self.total.is_some() {
            flags |= FLAG_SIZED;
        }
        let kind = match self.kind {
            Kind::Octets => 0,
            Kind::File => 1,
        };
        out.extend_from_slice(&[
            FORMAT,
            kind,
            flags,
            u8::try_from(name.len()).unwrap_or(u8::MAX),
        ]);
        out.extend_from_slice(&self.transfer.field());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.total.unwrap_or(0).to_be_bytes());
        out.extend_from_slice(name);
        if let Some(digest) = &self.last {
            out.extend_from_slice(digest);
        }
    }

    /// Reads an envelope; the second value is the offset at which the payload begins.
    ///
    /// # Errors
    /// [`EnvelopeError`] when the octets are not an envelope.
    pub fn parse(bytes: &[u8]) -> Result<(Envelope, usize), EnvelopeError> {
        let [format, kind, flags, name_len] = array::<4>(bytes, 0)?;
        if format != FORMAT {
            return Err(EnvelopeError::Format { found: format });
        }
        let kind = match kind {
            0 => Kind::Octets,
            1 => Kind::File,
            found => return Err(EnvelopeError::Kind { found }),
        };
        let transfer =
            MessageId::from_field(array::<16>(bytes, 4)?).map_err(|_| EnvelopeError::Transfer)?;
        let number = u32::from_be_bytes(array(bytes, 20)?);
        let offset = u64::from_be_bytes(array(bytes, 24)?);
        let total = u64::from_be_bytes(array(bytes, 32)?);
        let name_end = FIXED + usize::from(name_len);
        let name = bytes
            .get(FIXED..name_end)
            .ok_or(EnvelopeError::Truncated { at: bytes.len() })?;
        let name = std::str::from_utf8(name)
            .map_err(|_| EnvelopeError::Name)?
            .to_owned();
        let (last, end) = if flags & FLAG_LAST != 0 {
            (
                Some(array::<DIGEST_LEN>(bytes, name_end)?),
                name_end + DIGEST_LEN,
            )
        } else {
            (None, name_end)
        };
        let total = (flags & FLAG_SIZED != 0).then_some(total);
        Ok((
            Envelope {
                kind,
                transfer,
                number,
                offset,
                total,
                name,
                last,
            },
            end,
        ))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Octets => "octets",
            Kind::File => "file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Envelope {
        Envelope {
            kind: Kind::File,
            transfer: MessageId::from_random([7; 12]),
            number: 9,
            offset: 1 << 33,
            total: Some(1 << 34),
            name: "résumé.pdf".into(),
            last: Some([3; 32]),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        let one = sample();
        one.emit_into(&mut bytes);
        let end = bytes.len();
        bytes.extend_from_slice(b"payload");
        assert_eq!(Envelope::parse(&bytes), Ok((one, end)));
        let two = Envelope {
            kind: Kind::Octets,
            total: None,
            last: None,
            name: String::new(),
            ..sample()
        };
        let mut bytes = Vec::new();
        two.emit_into(&mut bytes);
        assert_eq!(bytes.len(), FIXED);
        assert_eq!(Envelope::parse(&bytes), Ok((two, FIXED)));
    }

    #[test]
    fn refuses_every_truncation() {
        let mut bytes = Vec::new();
        sample().emit_into(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(
                Envelope::parse(&bytes[..cut]),
                Err(EnvelopeError::Truncated { at: cut })
            );
        }
    }

    #[test]
    fn refuses_unknown_formats_and_kinds() {
        let mut bytes = Vec::new();
        sample().emit_into(&mut bytes);
        let mut other = bytes.clone();
        other[0] = 2;
        assert_eq!(
            Envelope::parse(&other),
            Err(EnvelopeError::Format { found: 2 })
        );
        other = bytes.clone();
        other[1] = 9;
        assert_eq!(
            Envelope::parse(&other),
            Err(EnvelopeError::Kind { found: 9 })
        );
        other = bytes;
        other[40] = 0xff;
        assert_eq!(Envelope::parse(&other), Err(EnvelopeError::Name));
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let mut bytes = Vec::new();
        Envelope {
            name: "é".repeat(200),
            ..sample()
        }
        .emit_into(&mut bytes);
        let (read, _) = Envelope::parse(&bytes).unwrap();
        assert_eq!(read.name, "é".repeat(127));
    }
}
