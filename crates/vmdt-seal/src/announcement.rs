//! What a sender announces about a sealed message, and who holds its shares.

use core::num::NonZeroU8;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use thiserror::Error;
use vmdt_ssms::v2::{Envelope, Manifest, ManifestError, PartyId, PartyIdError, Recipient};
use vmdt_wire::{MessageId, NodeId};
use zeroize::Zeroizing;

use crate::codec::{self, Reader};
use crate::e2e::{Encapsulated, Secret, TransferContext, TransferSecret};
use crate::error::{BuildError, ParseError, VerifyError};
use crate::identity::{PublicIdentity, SecretIdentity};
use crate::profile::at_most;
use crate::receipt::finish;

/// The longest label, in octets.
pub const LABEL_MAX_LEN: usize = 512;
/// The longest encoding of [`SealedDetails`], in octets.
pub const DETAILS_MAX_LEN: usize =
    2 + 32 + 32 + 16 + 4 + 32 + 1 + 2 + SEALED_LABEL_MAX + 2 + vmdt_ssms::v2::MANIFEST_MAX_LEN + 64;

const LABEL_NONCE_LEN: usize = 12;
const SEALED_LABEL_MAX: usize = LABEL_NONCE_LEN + LABEL_MAX_LEN + 16;

/// Why details are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DetailsError {
    /// A field cannot be encoded.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Malformed octets, or a signature that is not right.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The manifest is none.
    #[error("the manifest is malformed: {0}")]
    Manifest(#[from] ManifestError),
    /// The manifest speaks of another sender, receiver or transfer than the details.
    #[error("the manifest's {field} is not that of the details")]
    Mismatch {
        /// Which field.
        field: &'static str,
    },
    /// The label does not open with this transfer secret.
    #[error("the label does not open with this transfer secret")]
    Label,
}

impl From<ParseError> for DetailsError {
    fn from(error: ParseError) -> Self {
        Self::Verify(error.into())
    }
}

/// The envelope that a manifest of a transfer must have: the parties are named by their whole
/// identity keys, the message by its transfer.
///
/// # Errors
/// None that can occur: a key is shorter than the longest party id.
pub fn envelope(context: &TransferContext) -> Result<Envelope, PartyIdError> {
    let sender = PartyId::new(context.sender.as_octets())?;
    let receiver = PartyId::new(context.receiver.as_octets())?;
    Ok(Envelope::new(
        context.transfer,
        sender,
        Recipient::One(receiver),
    ))
}

/// The id of the message whose manifest has this digest, so that nobody can announce it under another
/// one.
#[must_use]
pub fn message_id(manifest_digest: &[u8; 32]) -> MessageId {
    let hash = blake3::derive_key("vmdt 1.1 message id", manifest_digest);
    let mut id = [0; 12];
    id.copy_from_slice(hash.split_at(12).0);
    MessageId::from_random(id)
}

/// What a sender announces about one segment of a transfer. A value of this type was signed here,
/// or its signature was checked; manifest and details agree.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `A`, format 1 |
/// | 32 | sender's identity key |
/// | 32 | receiver's identity key |
/// | 16 | transfer |
/// | 4 | receiver's prekey id |
/// | 32 | encapsulated key |
/// | 1 | kind of content, the caller's |
/// | 2 + n | length and sealed label: none, or a nonce of 12 octets, ciphertext, tag of 16 octets |
/// | 2 + n | length and manifest, of `vmdt_ssms::v2` |
/// | 64 | sender's signature over all before, context `vmdt 1.1 sealed details` |
///
/// The label, such as a file's name, is sealed to the receiver with ChaCha20-Poly1305 under a key
/// derived from the transfer secret and the segment's number. The nonce is a keyed hash of the
/// label, so two labels never share one; associated data is the digest of the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedDetails {
    context: TransferContext,
    encapsulated: Encapsulated,
    kind: u8,
    label: Bytes,
    manifest: Manifest,
    octets: Bytes,
}

impl SealedDetails {
    /// Signs the details of a segment.
    ///
    /// # Errors
    /// [`DetailsError::Mismatch`] when the manifest's parties or message id are not those of
    /// [`envelope`], or `sender` is not the context's; [`DetailsError::Build`] for a label longer
    /// than [`LABEL_MAX_LEN`].
    pub fn sign(
        sender: &SecretIdentity,
        context: &TransferContext,
        encapsulated: Encapsulated,
        manifest: &Manifest,
        kind: u8,
        label: Option<(&TransferSecret, &[u8])>,
    ) -> Result<Self, DetailsError> {
        agree(context, manifest)?;
        if sender.public() != context.sender {
            return Err(DetailsError::Mismatch { field: "sender" });
        }
        let label = match label {
            Some((secret, label)) => {
                at_most("label", label.len(), LABEL_MAX_LEN)?;
                seal_label(secret, manifest, label)?
            }
            None => Vec::new(),
        };
        let encoded = manifest.encode();
        let mut out = codec::begin(codec::DETAILS, 256 + label.len() + encoded.len());
        out.extend_from_slice(context.sender.as_octets());
        out.extend_from_slice(context.receiver.as_octets());
        out.extend_from_slice(&context.transfer);
        out.extend_from_slice(&context.prekey_id.to_be_bytes());
        out.extend_from_slice(&encapsulated.0);
        out.push(kind);
        codec::put_long(&mut out, &label);
        codec::put_long(&mut out, &encoded);
        sender.sign_onto(codec::DETAILS, &mut out);
        Ok(Self {
            context: *context,
            encapsulated,
            kind,
            label: label.into(),
            manifest: manifest.clone(),
            octets: out.into(),
        })
    }

    /// Reads details and checks the signature, the manifest, and that both speak of the same
    /// parties and transfer.
    ///
    /// # Errors
    /// [`DetailsError`].
    pub fn parse(octets: &[u8]) -> Result<Self, DetailsError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::DETAILS)?;
        let context = TransferContext {
            sender: reader.key("sender key")?,
            receiver: reader.key("receiver key")?,
            transfer: reader.array("transfer")?,
            prekey_id: reader.u32("prekey id")?,
        };
        let encapsulated = Encapsulated(reader.array("encapsulated key")?);
        let kind = reader.u8("content kind")?;
        let label = reader.long("label", SEALED_LABEL_MAX)?;
        let manifest = reader.long("manifest", vmdt_ssms::v2::MANIFEST_MAX_LEN)?;
        finish(reader, octets, codec::DETAILS, context.sender, "the sender")?;
        let manifest = Manifest::parse_unverified(manifest)?;
        agree(&context, &manifest)?;
        Ok(Self {
            context,
            encapsulated,
            kind,
            label: Bytes::copy_from_slice(label),
            manifest,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// Opens the label, at the receiver. Empty when there is none.
    ///
    /// # Errors
    /// [`DetailsError::Label`] when the secret is not the transfer's.
    pub fn open_label(&self, secret: &TransferSecret) -> Result<Zeroizing<Vec<u8>>, DetailsError> {
        if self.label.is_empty() {
            return Ok(Zeroizing::default());
        }
        let (nonce, sealed) = self
            .label
            .split_first_chunk::<LABEL_NONCE_LEN>()
            .ok_or(DetailsError::Label)?;
        let key = label_key(secret, &self.manifest);
        ChaCha20Poly1305::new(&Key::from(**key))
            .decrypt(
                &Nonce::from(*nonce),
                Payload {
                    msg: sealed,
                    aad: &self.manifest.digest(),
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| DetailsError::Label)
    }

    /// Sender, receiver, transfer and prekey: what [`decapsulate`](crate::e2e::decapsulate) wants.
    #[must_use]
    pub const fn context(&self) -> &TransferContext {
        &self.context
    }

    /// Who signed.
    #[must_use]
    pub const fn sender(&self) -> PublicIdentity {
        self.context.sender
    }

    /// Whom the transfer is sealed to.
    #[must_use]
    pub const fn receiver(&self) -> PublicIdentity {
        self.context.receiver
    }

    /// The encapsulated key.
    #[must_use]
    pub const fn encapsulated(&self) -> &Encapsulated {
        &self.encapsulated
    }

    /// The kind of content, as the sender's caller gave it.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.kind
    }

    /// What every share of the segment must be.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's digest.
    #[must_use]
    pub fn manifest_digest(&self) -> [u8; 32] {
        self.manifest.digest()
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

fn agree(context: &TransferContext, manifest: &Manifest) -> Result<(), DetailsError> {
    let to_receiver = matches!(
        manifest.recipient(),
        Recipient::One(id) if id.as_bytes() == context.receiver.as_octets()
    );
    let field = if manifest.sender().as_bytes() != context.sender.as_octets() {
        "sender"
    } else if !to_receiver {
        "recipient"
    } else if manifest.message_id() != context.transfer {
        "message id"
    } else {
        return Ok(());
    };
    Err(DetailsError::Mismatch { field })
}

fn label_key(secret: &TransferSecret, manifest: &Manifest) -> Secret {
    secret.derive("vmdt 1.1 label key", manifest.position().number)
}

fn seal_label(
    secret: &TransferSecret,
    manifest: &Manifest,
    label: &[u8],
) -> Result<Vec<u8>, DetailsError> {
    let digest = manifest.digest();
    let nonce_key = secret.derive("vmdt 1.1 label nonce", manifest.position().number);
    let mut hasher = blake3::Hasher::new_keyed(&nonce_key);
    hasher.update(&digest).update(label);
    let mut nonce = [0; LABEL_NONCE_LEN];
    hasher.finalize_xof().fill(&mut nonce);
    let key = label_key(secret, manifest);
    let sealed = ChaCha20Poly1305::new(&Key::from(**key))
        .encrypt(
            &Nonce::from(nonce),
            Payload {
                msg: label,
                aad: &digest,
            },
        )
        .map_err(|_| DetailsError::Label)?;
    Ok([&nonce[..], &sealed].concat())
}

/// Who holds the shares of a message, as its sender says; the higher version counts.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `L`, format 1 |
/// | 32 | sender's identity key |
/// | 16 | message id |
/// | 4 | version |
/// | 1 | number of holders h, 1 to 255 |
/// | 17 h | for each, indices ascending: share index (1), node id (16) |
/// | 64 | sender's signature over all before, context `vmdt 1.1 placement` |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    sender: PublicIdentity,
    message: MessageId,
    version: u32,
    holders: Vec<(NonZeroU8, NodeId)>,
    octets: Bytes,
}

impl Placement {
    /// Signs who holds which share. The order of `holders` does not matter.
    ///
    /// # Errors
    /// [`BuildError::Value`] when there is no holder, or an index has two.
    pub fn sign(
        sender: &SecretIdentity,
        message: MessageId,
        version: u32,
        holders: &[(NonZeroU8, NodeId)],
    ) -> Result<Self, BuildError> {
        let mut holders = holders.to_vec();
        holders.sort_unstable();
        let twice = holders
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.0 == b.0));
        if holders.is_empty() || twice {
            return Err(BuildError::Value {
                field: "holders",
                reason: "none, or an index with two",
            });
        }
        let mut out = codec::begin(codec::PLACEMENT, 128 + 17 * holders.len());
        out.extend_from_slice(sender.public().as_octets());
        out.extend_from_slice(&message.field());
        out.extend_from_slice(&version.to_be_bytes());
        // Indices differ and are 1 to 255.
        out.push(u8::try_from(holders.len()).unwrap_or(u8::MAX));
        for (index, holder) in &holders {
            out.push(index.get());
            out.extend_from_slice(&holder.field());
        }
        sender.sign_onto(codec::PLACEMENT, &mut out);
        Ok(Self {
            sender: sender.public(),
            message,
            version,
            holders,
            octets: out.into(),
        })
    }

    /// Reads a placement and checks its signature. Whose it is says [`Placement::sender`].
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not right.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::PLACEMENT)?;
        let sender = reader.key("sender key")?;
        let message = reader.message_id("message id")?;
        let version = reader.u32("version")?;
        let mut holders: Vec<(NonZeroU8, NodeId)> = Vec::new();
        let at = reader.offset();
        let count = reader.count("holders", 255)?;
        for _ in 0..count {
            let offset = reader.offset();
            let index = reader.u8("share index")?;
            let index = NonZeroU8::new(index)
                .filter(|index| holders.last().is_none_or(|last| last.0 < *index))
                .ok_or(ParseError::Order {
                    field: "share index",
                    offset,
                })?;
            holders.push((index, reader.node_id("holder")?));
        }
        if holders.is_empty() {
            return Err(ParseError::Value {
                field: "holders",
                offset: at,
                found: 0,
                allowed: "1 to 255",
            }
            .into());
        }
        finish(reader, octets, codec::PLACEMENT, sender, "the sender")?;
        Ok(Self {
            sender,
            message,
            version,
            holders,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// Who signed.
    #[must_use]
    pub const fn sender(&self) -> PublicIdentity {
        self.sender
    }

    /// The message.
    #[must_use]
    pub const fn message(&self) -> MessageId {
        self.message
    }

    /// The version: the higher of two counts.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Who holds a share.
    #[must_use]
    pub fn holder_of(&self, index: NonZeroU8) -> Option<NodeId> {
        self.holders
            .binary_search_by_key(&index, |holder| holder.0)
            .ok()
            .and_then(|at| self.holders.get(at))
            .map(|holder| holder.1)
    }

    /// Indices, ascending, and who holds each.
    #[must_use]
    pub fn holders(&self) -> &[(NonZeroU8, NodeId)] {
        &self.holders
    }

    /// Whether this one replaces another: same sender and message, higher version.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.sender == other.sender && self.message == other.message && self.version > other.version
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}
