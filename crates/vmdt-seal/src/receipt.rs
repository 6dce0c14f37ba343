//! Receipts: who carried which share, and that the addressee has the message.

use core::num::NonZeroU8;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::codec::{self, Head, Reader};
use crate::error::{ParseError, VerifyError};
use crate::identity::{PublicIdentity, SecretIdentity};

/// A holder's word that it was given a share, or has passed it on.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `H`, format 1 |
/// | 32 | the holder's identity key |
/// | 16 | message id |
/// | 1 | share index, 1 to 255 |
/// | 32 | digest of the share |
/// | 16 | id of the node it was given to |
/// | 8 | when, milliseconds since 1970 |
/// | 64 | signature over all before, context `vmdt 1.1 holder receipt` |
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::identity::SecretIdentity;
/// use vmdt_seal::receipt::HolderReceipt;
/// use vmdt_wire::MessageId;
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let holder = SecretIdentity::generate(&mut rng);
/// let bob = SecretIdentity::generate(&mut rng).node_id();
/// let message = MessageId::from_random([7; 12]);
/// let receipt = HolderReceipt::sign(&holder, message, 2.try_into()?, [9; 32], bob, 1_000);
/// assert_eq!(HolderReceipt::parse(receipt.octets())?.holder(), holder.public());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderReceipt {
    holder: PublicIdentity,
    message: MessageId,
    index: NonZeroU8,
    digest: [u8; 32],
    given_to: NodeId,
    when_ms: u64,
    octets: Bytes,
}

/// Octets of a [`HolderReceipt`].
pub const HOLDER_RECEIPT_LEN: usize = 2 + 32 + 16 + 1 + 32 + 16 + 8 + 64;
/// Octets of a [`DeliveryReceipt`].
pub const DELIVERY_RECEIPT_LEN: usize = 2 + 32 + 16 + 32 + 16 + 8 + 64;

impl HolderReceipt {
    /// Signs as the holder that share `index` of `message`, which has this digest, was given to
    /// `given_to`.
    #[must_use]
    pub fn sign(
        holder: &SecretIdentity,
        message: MessageId,
        index: NonZeroU8,
        digest: [u8; 32],
        given_to: NodeId,
        when_ms: u64,
    ) -> Self {
        let mut out = codec::begin(codec::HOLDER_RECEIPT, HOLDER_RECEIPT_LEN);
        out.extend_from_slice(holder.public().as_octets());
        out.extend_from_slice(&message.field());
        out.push(index.get());
        out.extend_from_slice(&digest);
        out.extend_from_slice(&given_to.field());
        out.extend_from_slice(&when_ms.to_be_bytes());
        holder.sign_onto(codec::HOLDER_RECEIPT, &mut out);
        Self {
            holder: holder.public(),
            message,
            index,
            digest,
            given_to,
            when_ms,
            octets: out.into(),
        }
    }

    /// Reads a receipt and checks its signature.
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not the holder's.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::HOLDER_RECEIPT)?;
        let holder = reader.key("holder key")?;
        let message = reader.message_id("message id")?;
        let offset = reader.offset();
        let index = NonZeroU8::new(reader.u8("share index")?).ok_or(ParseError::Value {
            field: "share index",
            offset,
            found: 0,
            allowed: "1 to 255",
        })?;
        let digest = reader.array("digest")?;
        let given_to = reader.node_id("given to")?;
        let when_ms = reader.u64("when")?;
        finish(reader, octets, codec::HOLDER_RECEIPT, holder, "the holder")?;
        Ok(Self {
            holder,
            message,
            index,
            digest,
            given_to,
            when_ms,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// Who signed.
    #[must_use]
    pub const fn holder(&self) -> PublicIdentity {
        self.holder
    }

    /// The message.
    #[must_use]
    pub const fn message(&self) -> MessageId {
        self.message
    }

    /// The share.
    #[must_use]
    pub const fn index(&self) -> NonZeroU8 {
        self.index
    }

    /// The digest of the share: compare with the manifest's.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Who the share was given to: the holder itself, when it confirms that it has it, or the
    /// node it passed it on to.
    #[must_use]
    pub const fn given_to(&self) -> NodeId {
        self.given_to
    }

    /// When, in milliseconds since 1970, by the holder's clock.
    #[must_use]
    pub const fn when_ms(&self) -> u64 {
        self.when_ms
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

/// The addressee's word that it has a message, whole and checked.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `R`, format 1 |
/// | 32 | the receiver's identity key |
/// | 16 | message id |
/// | 32 | digest of the last segment's manifest |
/// | 16 | id of the sender |
/// | 8 | when, milliseconds since 1970 |
/// | 64 | signature over all before, context `vmdt 1.1 delivery receipt` |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryReceipt {
    receiver: PublicIdentity,
    message: MessageId,
    manifest_digest: [u8; 32],
    sender: NodeId,
    when_ms: u64,
    octets: Bytes,
}

impl DeliveryReceipt {
    /// Signs as the receiver that the message of this manifest has come from `sender`.
    #[must_use]
    pub fn sign(
        receiver: &SecretIdentity,
        message: MessageId,
        manifest_digest: [u8; 32],
        sender: NodeId,
        when_ms: u64,
    ) -> Self {
        let mut out = codec::begin(codec::DELIVERY_RECEIPT, DELIVERY_RECEIPT_LEN);
        out.extend_from_slice(receiver.public().as_octets());
        out.extend_from_slice(&message.field());
        out.extend_from_slice(&manifest_digest);
        out.extend_from_slice(&sender.field());
        out.extend_from_slice(&when_ms.to_be_bytes());
        receiver.sign_onto(codec::DELIVERY_RECEIPT, &mut out);
        Self {
            receiver: receiver.public(),
            message,
            manifest_digest,
            sender,
            when_ms,
            octets: out.into(),
        }
    }

    /// Reads a receipt and checks its signature.
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not the receiver's.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::DELIVERY_RECEIPT)?;
        let receiver = reader.key("receiver key")?;
        let message = reader.message_id("message id")?;
        let manifest_digest = reader.array("manifest digest")?;
        let sender = reader.node_id("sender")?;
        let when_ms = reader.u64("when")?;
        finish(
            reader,
            octets,
            codec::DELIVERY_RECEIPT,
            receiver,
            "the receiver",
        )?;
        Ok(Self {
            receiver,
            message,
            manifest_digest,
            sender,
            when_ms,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// Who signed.
    #[must_use]
    pub const fn receiver(&self) -> PublicIdentity {
        self.receiver
    }

    /// The message.
    #[must_use]
    pub const fn message(&self) -> MessageId {
        self.message
    }

    /// The digest of the manifest that the receiver checked the message against.
    #[must_use]
    pub const fn manifest_digest(&self) -> &[u8; 32] {
        &self.manifest_digest
    }

    /// Whose message it was.
    #[must_use]
    pub const fn sender(&self) -> NodeId {
        self.sender
    }

    /// When, in milliseconds since 1970, by the receiver's clock.
    #[must_use]
    pub const fn when_ms(&self) -> u64 {
        self.when_ms
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

/// Reads the signature at the end and checks it over all before.
pub(crate) fn finish(
    mut reader: Reader<'_>,
    octets: &[u8],
    head: Head,
    key: PublicIdentity,
    signer: &'static str,
) -> Result<(), VerifyError> {
    let end = reader.offset();
    let signature = reader.signature()?;
    reader.end()?;
    let body = octets.get(..end).unwrap_or_default();
    key.verify(head, body, &signature, signer)
}
