//! What a sender says about a message, or a segment of one, and all its shares.

use core::fmt;
use core::num::NonZeroU8;

use alloc::vec::Vec;

use super::digest::{self, DIGEST_LEN, Digest};
use super::error::{ManifestError, PartyIdError};
use crate::params::Threshold;

/// The length of a party's id in octets is at most this.
pub const PARTY_ID_MAX: usize = 64;
/// The fields before the parties' ids.
const FIXED_LEN: usize = 116;
/// The longest manifest, in octets.
pub const MANIFEST_MAX_LEN: usize = FIXED_LEN + 2 * (1 + PARTY_ID_MAX) + 255 * DIGEST_LEN;

/// Octet 0 of everything that is not version 1: no version 1 share has it.
pub(crate) const MARK: u8 = 0;
/// Octet 1.
pub(crate) const VERSION: u8 = 2;
/// Octet 2 of a manifest.
const KIND: u8 = b'M';
/// AES-256-CTR, Shamir over GF(2^8), BLAKE3.
pub(crate) const SUITE: u8 = 1;

const LAST: u8 = 1;
const GROUP: u8 = 2;

/// Names a message or stream: 16 octets that the sender uses once, such as random ones.
pub type MessageId = [u8; 16];

/// A party as the caller names it: a key, a hash of one, a name. At most [`PARTY_ID_MAX`] octets,
/// which the crate compares and never interprets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartyId {
    len: u8,
    octets: [u8; PARTY_ID_MAX],
}

impl PartyId {
    /// The id that consists of these octets; none is legal.
    ///
    /// # Errors
    ///
    /// [`PartyIdError`] for more than [`PARTY_ID_MAX`] octets.
    pub fn new(id: &[u8]) -> Result<PartyId, PartyIdError> {
        let mut octets = [0; PARTY_ID_MAX];
        match (octets.get_mut(..id.len()), u8::try_from(id.len())) {
            (Some(to), Ok(len)) => {
                to.copy_from_slice(id);
                Ok(PartyId { len, octets })
            }
            _ => Err(PartyIdError { given: id.len() }),
        }
    }

    /// The id's octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.split_at(usize::from(self.len)).0
    }
}

impl fmt::Debug for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartyId({})", self.as_bytes().escape_ascii())
    }
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipient {
    /// One receiver.
    One(PartyId),
    /// All members of a group.
    Group(PartyId),
}

impl Recipient {
    fn id(&self) -> &PartyId {
        match self {
            Recipient::One(id) | Recipient::Group(id) => id,
        }
    }
}

/// What is the same in all segments of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub(crate) message_id: MessageId,
    pub(crate) sender: PartyId,
    pub(crate) recipient: Recipient,
    pub(crate) expires: u64,
}

impl Envelope {
    /// A message that does not expire.
    #[must_use]
    pub fn new(message_id: MessageId, sender: PartyId, recipient: Recipient) -> Envelope {
        Envelope {
            message_id,
            sender,
            recipient,
            expires: 0,
        }
    }

    /// The same with an expiry, in seconds since 1970-01-01T00:00:00Z; 0 means never. The crate
    /// has no clock: [`Manifest::is_expired`] takes the time.
    #[must_use]
    pub fn expires(mut self, seconds: u64) -> Envelope {
        self.expires = seconds;
        self
    }
}

/// Where a segment stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment's number, from 0.
    pub number: u64,
    /// How many octets of the message come before it.
    pub offset: u64,
    /// Whether no segment comes after it.
    pub last: bool,
}

impl Position {
    /// Of a message that is one segment.
    pub const WHOLE: Position = Position {
        number: 0,
        offset: 0,
        last: true,
    };
}

/// How the shares carry the ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Form {
    /// Every share carries all of it.
    Replicated,
    /// Every share carries a piece, `1 / k` of it.
    Dispersed,
}

impl Form {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Form::Replicated => 1,
            Form::Dispersed => 2,
        }
    }
}

/// All that a sender says about one segment: what each share must be, and what comes out.
///
/// One manifest has one encoding:
///
/// | octets | field | value |
/// |---|---|---|
/// | 0 | mark | 0 |
/// | 1 | version | 2 |
/// | 2 | kind | `M` |
/// | 3 | suite | 1 |
/// | 4 | form | 1 replicated, 2 dispersed |
/// | 5 | threshold k | 2..=n |
/// | 6 | n | k..=255 |
/// | 7 | flags | 1: last segment; 2: the recipient is a group |
/// | 8..24 | message id | |
/// | 24..32 | segment number | big-endian, as all numbers |
/// | 32..40 | offset | octets of the message before this segment |
/// | 40..44 | size | octets of the segment |
/// | 44..52 | expiry | seconds since 1970, 0 for never |
/// | 52..84 | key commitment | |
/// | 84..116 | content digest | |
/// | 116 | length s | 0..=64 |
/// | .. | sender | s octets |
/// | .. | length r | 0..=64 |
/// | .. | recipient | r octets |
/// | .. | share digests | n times 32 octets, of the shares 1..=n |
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    pub(crate) envelope: Envelope,
    pub(crate) position: Position,
    pub(crate) threshold: Threshold,
    pub(crate) form: Form,
    pub(crate) size: u32,
    pub(crate) commitment: Digest,
    pub(crate) content: Digest,
    pub(crate) shares: Vec<Digest>,
}

impl Manifest {
    /// The message's id.
    #[must_use]
    pub fn message_id(&self) -> MessageId {
        self.envelope.message_id
    }

    /// Who says to have sealed it. True only if a signature, or the channel, vouches for it.
    #[must_use]
    pub fn sender(&self) -> PartyId {
        self.envelope.sender
    }

    /// To whom it goes.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        self.envelope.recipient
    }

    /// Whether the message has expired at a time in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        self.envelope.expires != 0 && now >= self.envelope.expires
    }

    /// When the message expires, in seconds since 1970-01-01T00:00:00Z; 0 means never.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.envelope.expires
    }

    /// Where the segment stands in its message.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many shares there are, and how many are needed.
    #[must_use]
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// How the shares carry the ciphertext.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// The length of the segment's plaintext in octets.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The length of each share's body in octets.
    #[must_use]
    pub fn body_len(&self) -> usize {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        match self.form {
            Form::Replicated => size,
            Form::Dispersed => size.div_ceil(usize::from(self.threshold.k())),
        }
    }

    /// The digest of share `index`, if there is such a share.
    #[must_use]
    pub fn share_digest(&self, index: NonZeroU8) -> Option<&[u8; 32]> {
        self.shares.get(usize::from(index.get()) - 1)
    }

    /// What to sign, or to carry over a channel that cannot be altered: a digest of the encoding.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest::manifest(&self.encode())
    }

    /// The length of the encoding in octets.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        FIXED_LEN
            + 2
            + self.envelope.sender.as_bytes().len()
            + self.envelope.recipient.id().as_bytes().len()
            + self.shares.len() * DIGEST_LEN
    }

    /// The encoding, which is canonical.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.encoded_len());
        let group = matches!(self.envelope.recipient, Recipient::Group(_));
        let flags = (u8::from(self.position.last) * LAST) | (u8::from(group) * GROUP);
        let (k, n) = (self.threshold.k(), self.threshold.n());
        octets.extend([MARK, VERSION, KIND, SUITE, self.form.code(), k, n, flags]);
        octets.extend(self.envelope.message_id);
        octets.extend(self.position.number.to_be_bytes());
        octets.extend(self.position.offset.to_be_bytes());
        octets.extend(self.size.to_be_bytes());
        octets.extend(self.envelope.expires.to_be_bytes());
        octets.extend(self.commitment);
        octets.extend(self.content);
        for id in [&self.envelope.sender, self.envelope.recipient.id()] {
            octets.push(id.len);
            octets.extend_from_slice(id.as_bytes());
        }
        for share in &self.shares {
            octets.extend_from_slice(share);
        }
        octets
    }

    /// Reads a manifest of which nothing is known: whoever made these octets chose all of it.
    /// [`SignedManifest`](super::SignedManifest) is the way to one that can be relied on.
    ///
    /// # Errors
    ///
    /// [`ManifestError`], which names the field: every value that [`Manifest::encode`] would not
    /// write, octets that are missing, octets that follow. Nothing is allocated before the length
    /// has been checked against `n`.
    pub fn parse_unverified(octets: &[u8]) -> Result<Manifest, ManifestError> {
        let (manifest, rest) = Manifest::parse_prefix(octets)?;
        if rest.is_empty() {
            Ok(manifest)
        } else {
            Err(ManifestError::Trailing { count: rest.len() })
        }
    }

    /// As [`Manifest::parse_unverified`], and what follows.
    pub(crate) fn parse_prefix(octets: &[u8]) -> Result<(Manifest, &[u8]), ManifestError> {
        let mut reader = Reader {
            rest: octets,
            given: octets.len(),
        };
        let [mark, version, kind, suite, form, k, n, flags] = reader.array()?;
        if (mark, version, kind) != (MARK, VERSION, KIND) {
            return Err(ManifestError::NotAManifest);
        }
        if suite != SUITE {
            return Err(ManifestError::Suite { found: suite });
        }
        let form = match form {
            1 => Form::Replicated,
            2 => Form::Dispersed,
            found => return Err(ManifestError::Form { found }),
        };
        let threshold = Threshold::new(k, n)?;
        if flags & !(LAST | GROUP) != 0 {
            return Err(ManifestError::Flags { found: flags });
        }
        let message_id = reader.array()?;
        let position = Position {
            number: u64::from_be_bytes(reader.array()?),
            offset: u64::from_be_bytes(reader.array()?),
            last: flags & LAST != 0,
        };
        let size = u32::from_be_bytes(reader.array()?);
        let expires = u64::from_be_bytes(reader.array()?);
        let commitment = reader.array()?;
        let content = reader.array()?;
        let sender = reader.party()?;
        let recipient = reader.party()?;
        let (digests, rest) = reader
            .rest
            .split_at_checked(usize::from(n) * DIGEST_LEN)
            .ok_or(ManifestError::Truncated {
                given: octets.len(),
            })?;
        let manifest = Manifest {
            envelope: Envelope {
                message_id,
                sender,
                recipient: if flags & GROUP == 0 {
                    Recipient::One(recipient)
                } else {
                    Recipient::Group(recipient)
                },
                expires,
            },
            position,
            threshold,
            form,
            size,
            commitment,
            content,
            shares: digests.as_chunks::<DIGEST_LEN>().0.to_vec(),
        };
        Ok((manifest, rest))
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("envelope", &self.envelope)
            .field("position", &self.position)
            .field("threshold", &self.threshold)
            .field("form", &self.form)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    given: usize,
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let given = self.given;
        let (array, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(ManifestError::Truncated { given })?;
        self.rest = rest;
        Ok(*array)
    }

    fn party(&mut self) -> Result<PartyId, ManifestError> {
        let given = self.given;
        let [len] = self.array()?;
        if usize::from(len) > PARTY_ID_MAX {
            return Err(ManifestError::PartyId(PartyIdError {
                given: usize::from(len),
            }));
        }
        let (id, rest) = self
            .rest
            .split_at_checked(usize::from(len))
            .ok_or(ManifestError::Truncated { given })?;
        self.rest = rest;
        Ok(PartyId::new(id)?)
    }
}
