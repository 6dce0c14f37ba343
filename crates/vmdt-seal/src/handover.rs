//! Hand-overs: what a holder says to a receiver it has brought, and what that proves when it is not
//! what the sender sealed.

use core::num::NonZeroU8;

use bytes::Bytes;
use thiserror::Error;
use vmdt_ssms::v2::Manifest;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::{DetailsError, SealedDetails, message_id};
use crate::codec::{self, Reader};
use crate::error::{BuildError, ParseError, VerifyError};
use crate::group::{GroupDetails, GroupError};
use crate::identity::{PublicIdentity, SIGNATURE_LEN, SecretIdentity};
use crate::receipt::finish;

/// Entries in one [`Handovers`] at most.
pub const MAX_HANDOVERS: usize = 60;
/// Octets of one entry.
pub const HANDOVER_LEN: usize = 32 + 1 + 32;
/// Octets of [`Handovers`] besides their entries.
pub const HANDOVERS_FIXED: usize = 2 + 32 + 16 + 8 + 1 + SIGNATURE_LEN;
/// Octets of the longest [`Handovers`].
pub const HANDOVERS_MAX_LEN: usize = HANDOVERS_FIXED + MAX_HANDOVERS * HANDOVER_LEN;

/// A share that a holder has brought.
///
/// | octets | field |
/// |---|---|
/// | 32 | digest of the manifest, from which the message's id follows |
/// | 1 | share index, 1 to 255 |
/// | 32 | digest of the share's octets as they were handed on, computed as for a manifest |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handover {
    /// The digest of the manifest that lists the share. A message's id alone would not do: it is
    /// short enough that a sender could find two manifests with one id, and have a holder that
    /// knows one of them contradict the other.
    pub manifest: [u8; 32],
    /// Which share.
    pub index: NonZeroU8,
    /// The digest of its octets.
    pub digest: [u8; 32],
}

impl Handover {
    /// The message: one segment of a transfer.
    #[must_use]
    pub fn message(&self) -> MessageId {
        message_id(&self.manifest)
    }

    fn encode(&self) -> [u8; HANDOVER_LEN] {
        let mut out = [0; HANDOVER_LEN];
        let (manifest, rest) = out.split_at_mut(32);
        let (index, digest) = rest.split_at_mut(1);
        manifest.copy_from_slice(&self.manifest);
        index.copy_from_slice(&[self.index.get()]);
        digest.copy_from_slice(&self.digest);
        out
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let manifest = reader.array("manifest digest")?;
        let offset = reader.offset();
        let index = reader.u8("share index")?;
        let index = NonZeroU8::new(index).ok_or(ParseError::Value {
            field: "share index",
            offset,
            found: 0,
            allowed: "1 to 255",
        })?;
        Ok(Self {
            manifest,
            index,
            digest: reader.array("share digest")?,
        })
    }
}

/// What a holder says to one receiver that it has brought there, under one signature. It has a kind
/// and a signature context of its own: what is said to a sender
/// ([`Receipts`](crate::receipt::Receipts)) can't be shown as said to a receiver, nor the other way
/// round.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `H`, format 1 |
/// | 32 | the holder's identity key |
/// | 16 | id of the receiver, whom it is for |
/// | 8 | when, milliseconds since 1970 |
/// | 1 | number of entries, 1 to 60 |
/// | 65 each | entries, ascending by their octets, none twice |
/// | 64 | signature over all before, context `vmdt 1.1 hand-overs` |
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::handover::{Handover, Handovers};
/// use vmdt_seal::identity::SecretIdentity;
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let holder = SecretIdentity::generate(&mut rng);
/// let bob = SecretIdentity::generate(&mut rng).node_id();
/// let brought = Handover {
///     manifest: [7; 32],
///     index: 2.try_into()?,
///     digest: [9; 32],
/// };
/// let said = Handovers::sign(&holder, bob, 1_000, &[brought])?;
/// let read = Handovers::parse(said.octets())?;
/// assert_eq!((read.holder(), read.entries()), (holder.public(), &[brought][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handovers {
    holder: PublicIdentity,
    receiver: NodeId,
    when_ms: u64,
    entries: Vec<Handover>,
    octets: Bytes,
}

impl Handovers {
    /// Signs what `holder` has brought to `receiver`. The order of the entries does not matter, and
    /// of equal ones one is taken.
    ///
    /// Sign nothing but digests that were computed over the octets handed on, and found to be the
    /// manifest's: any other is a [`Contradiction`].
    ///
    /// # Errors
    /// [`BuildError`]: no entry, or more than [`MAX_HANDOVERS`].
    pub fn sign(
        holder: &SecretIdentity,
        receiver: NodeId,
        when_ms: u64,
        entries: &[Handover],
    ) -> Result<Self, BuildError> {
        let field = "hand-overs";
        let mut entries = entries.to_vec();
        entries.sort_unstable();
        entries.dedup();
        if entries.is_empty() {
            let reason = "there is none";
            return Err(BuildError::Value { field, reason });
        }
        let count = match u8::try_from(entries.len()) {
            Ok(count) if entries.len() <= MAX_HANDOVERS => count,
            _ => {
                return Err(BuildError::TooLong {
                    field,
                    found: entries.len(),
                    allowed: MAX_HANDOVERS,
                });
            }
        };
        let len = HANDOVERS_FIXED + entries.len() * HANDOVER_LEN;
        let mut out = codec::begin(codec::HANDOVERS, len);
        out.extend_from_slice(holder.public().as_octets());
        out.extend_from_slice(&receiver.field());
        out.extend_from_slice(&when_ms.to_be_bytes());
        out.push(count);
        for entry in &entries {
            out.extend_from_slice(&entry.encode());
        }
        holder.sign_onto(codec::HANDOVERS, &mut out);
        Ok(Self {
            holder: holder.public(),
            receiver,
            when_ms,
            entries,
            octets: out.into(),
        })
    }

    /// Whether octets claim to be hand-overs.
    #[must_use]
    pub fn is_one(octets: &[u8]) -> bool {
        octets.first() == Some(&codec::HANDOVERS.kind)
    }

    /// Reads hand-overs and checks their signature.
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not the holder's.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::HANDOVERS)?;
        let holder = reader.key("holder key")?;
        let receiver = reader.node_id("receiver")?;
        let when_ms = reader.u64("when")?;
        let field = "hand-overs";
        let offset = reader.offset();
        let count = reader.count(field, MAX_HANDOVERS)?;
        if count == 0 {
            return Err(ParseError::Value {
                field,
                offset,
                found: 0,
                allowed: "1 to 60",
            }
            .into());
        }
        let mut entries: Vec<Handover> = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = reader.offset();
            let entry = Handover::read(&mut reader)?;
            if entries.last().is_some_and(|before| *before >= entry) {
                return Err(ParseError::Order { field, offset }.into());
            }
            entries.push(entry);
        }
        finish(reader, octets, codec::HANDOVERS, holder, "the holder")?;
        Ok(Self {
            holder,
            receiver,
            when_ms,
            entries,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// Who signed.
    #[must_use]
    pub const fn holder(&self) -> PublicIdentity {
        self.holder
    }

    /// To whom the shares were brought.
    #[must_use]
    pub const fn receiver(&self) -> NodeId {
        self.receiver
    }

    /// When, in milliseconds since 1970, by the holder's clock.
    #[must_use]
    pub const fn when_ms(&self) -> u64 {
        self.when_ms
    }

    /// What was brought.
    #[must_use]
    pub fn entries(&self) -> &[Handover] {
        &self.entries
    }

    /// The encoding, which proves it to others.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

/// Why two signed structures prove nothing against a holder.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoContradiction {
    /// The hand-overs are malformed, or their signature is not right.
    #[error("the hand-overs: {0}")]
    Handovers(#[from] VerifyError),
    /// The details are malformed, or their signature is not right.
    #[error("the details: {0}")]
    Details(#[from] DetailsError),
    /// The details of a message to a group are malformed, or their signature is not right.
    #[error("the details: {0}")]
    Group(#[from] GroupError),
    /// Every hand-over is about another message, or of a share as it was sealed.
    #[error("no hand-over contradicts the details")]
    Agree,
}

/// Proof for anybody that a holder signed that it had brought another share than the one that was
/// sealed. A holder that signs only digests that it computed and found in the manifest can't be
/// shown to have done so: the hand-over names the manifest that it knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contradiction {
    /// Whom it convicts.
    pub holder: PublicIdentity,
    /// To whom it said so.
    pub receiver: NodeId,
    /// When, in milliseconds since 1970, by the holder's clock.
    pub when_ms: u64,
    /// Who sealed the message.
    pub sender: PublicIdentity,
    /// The message.
    pub message: MessageId,
    /// Which share.
    pub index: NonZeroU8,
    /// The digest that the sender signed.
    pub sealed: [u8; 32],
    /// The digest that the holder signed.
    pub brought: [u8; 32],
}

impl Contradiction {
    /// Checks the octets of hand-overs against those of a message's signed details, to one receiver
    /// or to a group. Both signatures are verified, so it does not matter who shows them.
    ///
    /// # Errors
    /// [`NoContradiction`].
    pub fn find(handovers: &[u8], details: &[u8]) -> Result<Self, NoContradiction> {
        let handovers = Handovers::parse(handovers)?;
        if GroupDetails::is_one(details) {
            let details = GroupDetails::parse(details)?;
            Self::between(&handovers, details.sender(), details.manifest())
        } else {
            let details = SealedDetails::parse(details)?;
            Self::between(&handovers, details.sender(), details.manifest())
        }
    }

    fn between(
        said: &Handovers,
        sender: PublicIdentity,
        manifest: &Manifest,
    ) -> Result<Self, NoContradiction> {
        let digest = manifest.digest();
        let false_one = said.entries.iter().find_map(|entry| {
            // of a share that there is not, nothing was sealed
            let sealed = manifest.share_digest(entry.index)?;
            (entry.manifest == digest && entry.digest != *sealed).then_some((entry, *sealed))
        });
        let (entry, sealed) = false_one.ok_or(NoContradiction::Agree)?;
        Ok(Self {
            holder: said.holder,
            receiver: said.receiver,
            when_ms: said.when_ms,
            sender,
            message: entry.message(),
            index: entry.index,
            sealed,
            brought: entry.digest,
        })
    }
}
