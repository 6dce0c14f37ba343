//! One message sealed to several receivers.
//!
//! The shares of a message are the same for all of them, and so is the transfer secret that they
//! are bound to: it is random, and the details of each segment carry it once for each receiver,
//! wrapped under what HPKE ([`e2e`]) exports for that receiver's prekey. Who is no
//! receiver learns no more from the details than who is one.
//!
//! Every receiver can read what every other one reads, and the sender signs the list: a receiver
//! sees who else has the message. No receiver can alter it for another one, since what shares and
//! content must be stands in the manifest, which the sender signs.

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use rand_core::CryptoRng;
use thiserror::Error;
use vmdt_ssms::v2::{Envelope, Manifest, ManifestError, PartyId, PartyIdError, Recipient};
use vmdt_wire::NodeId;
use zeroize::Zeroizing;

use bytes::Bytes;

use crate::codec::{self, Reader};
use crate::e2e::{self, E2eError, ENCAPSULATED_LEN, Encapsulated, TransferSecret};
use crate::error::{BuildError, ParseError, VerifyError};
use crate::identity::{KEY_LEN, PublicIdentity, SecretIdentity};
use crate::prekey::{Prekey, PublicPrekey};
use crate::receipt::finish;

/// The most receivers of one message.
pub const MAX_RECEIVERS: usize = 64;
/// Octets of a wrapped transfer secret: the secret and a tag.
pub const WRAPPED_LEN: usize = KEY_LEN + 16;
/// Octets of one receiver in [`GroupDetails`].
pub const RECEIVER_LEN: usize = KEY_LEN + 4 + ENCAPSULATED_LEN + WRAPPED_LEN;
/// The longest encoding of [`GroupDetails`], in octets. It is below the 16 KiB that a control line
/// takes.
pub const GROUP_DETAILS_MAX_LEN: usize =
    2 + KEY_LEN + 16 + 1 + MAX_RECEIVERS * RECEIVER_LEN + 2 + vmdt_ssms::v2::MANIFEST_MAX_LEN + 64;

const INFO: &[u8] = b"vmdt 1.1 group transfer";
const EXPORTER_CONTEXT: &[u8] = b"vmdt 1.1 group wrap";
const GROUP_ID: &str = "vmdt 1.1 group";

/// Why details of a message to a group are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A field cannot be encoded.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Malformed octets, or a signature that is not right.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The manifest is none.
    #[error("the manifest is malformed: {0}")]
    Manifest(#[from] ManifestError),
    /// The manifest speaks of another sender, group or transfer than the details.
    #[error("the manifest's {field} is not that of the details")]
    Mismatch {
        /// Which field.
        field: &'static str,
    },
    /// The sender is among the receivers.
    #[error("the sender is among the receivers")]
    SenderReceives,
    /// The node is not among the receivers.
    #[error("{0} is not among the receivers")]
    NotReceiver(NodeId),
    /// There is no secret for the receiver.
    #[error(transparent)]
    E2e(#[from] E2eError),
    /// The wrapped secret does not open with the receiver's prekey.
    #[error("the wrapped secret does not open with prekey {prekey_id}")]
    Wrapped {
        /// The prekey that was tried.
        prekey_id: u32,
    },
}

impl From<ParseError> for GroupError {
    fn from(error: ParseError) -> Self {
        Self::Verify(error.into())
    }
}

impl From<PartyIdError> for GroupError {
    fn from(_: PartyIdError) -> Self {
        // a key and a hash are shorter than the longest party id
        Self::Mismatch { field: "parties" }
    }
}

/// Sorted by their octets, none twice.
fn sorted(receivers: &[PublicIdentity]) -> Vec<PublicIdentity> {
    let mut keys = receivers.to_vec();
    keys.sort_unstable_by_key(|key| *key.as_octets());
    keys.dedup();
    keys
}

/// Sender, receivers and transfer: what everything about a message to a group is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    sender: PublicIdentity,
    transfer: [u8; 16],
    receivers: Vec<PublicIdentity>,
    id: [u8; 32],
}

impl Group {
    /// A transfer of `sender` to these receivers, in any order; who is named twice counts once.
    ///
    /// # Errors
    /// [`GroupError::Build`] for none or more than [`MAX_RECEIVERS`], and
    /// [`GroupError::SenderReceives`].
    pub fn new(
        sender: PublicIdentity,
        transfer: [u8; 16],
        receivers: &[PublicIdentity],
    ) -> Result<Self, GroupError> {
        let receivers = sorted(receivers);
        if receivers.is_empty() {
            return Err(BuildError::Value {
                field: "receivers",
                reason: "there is none",
            }
            .into());
        }
        crate::profile::at_most("receivers", receivers.len(), MAX_RECEIVERS)?;
        if receivers.contains(&sender) {
            return Err(GroupError::SenderReceives);
        }
        let mut hasher = blake3::Hasher::new_derive_key(GROUP_ID);
        for key in &receivers {
            hasher.update(key.as_octets());
        }
        Ok(Self {
            sender,
            transfer,
            receivers,
            id: *hasher.finalize().as_bytes(),
        })
    }

    /// The group's id: BLAKE3 in its key derivation mode, context `vmdt 1.1 group`, of the
    /// receivers' identity keys in ascending order.
    #[must_use]
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Who sends.
    #[must_use]
    pub const fn sender(&self) -> PublicIdentity {
        self.sender
    }

    /// Which transfer.
    #[must_use]
    pub const fn transfer(&self) -> [u8; 16] {
        self.transfer
    }

    /// The receivers, ascending by their keys' octets.
    #[must_use]
    pub fn receivers(&self) -> &[PublicIdentity] {
        &self.receivers
    }

    /// The envelope that a manifest of the transfer must have.
    ///
    /// # Errors
    /// None that can occur: a key and a hash are shorter than the longest party id.
    pub fn envelope(&self) -> Result<Envelope, PartyIdError> {
        let sender = PartyId::new(self.sender.as_octets())?;
        let group = PartyId::new(&self.id)?;
        Ok(Envelope::new(
            self.transfer,
            sender,
            Recipient::Group(group),
        ))
    }

    /// Draws the secret of the transfer.
    #[must_use]
    pub fn secret(rng: &mut impl CryptoRng) -> TransferSecret {
        let mut octets = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(&mut *octets);
        TransferSecret::from_octets(&octets)
    }

    /// Wraps the secret of the transfer for one of its receivers.
    ///
    /// # Errors
    /// [`GroupError::NotReceiver`], and [`GroupError::E2e`] for a prekey that is no key.
    pub fn wrap(
        &self,
        secret: &TransferSecret,
        receiver: PublicIdentity,
        prekey: &PublicPrekey,
        rng: &mut impl CryptoRng,
    ) -> Result<Wrapped, GroupError> {
        if !self.receivers.contains(&receiver) {
            return Err(GroupError::NotReceiver(receiver.node_id()));
        }
        let info = self.info(receiver, prekey.id);
        let (encapsulated, key) = e2e::export_to(prekey, &info, EXPORTER_CONTEXT, rng)?;
        let prekey_id = prekey.id;
        // the key is fresh with the encapsulation and seals this alone
        let sealed = ChaCha20Poly1305::new(&Key::from(**key))
            .encrypt(&Nonce::default(), &secret.as_octets()[..])
            .ok()
            .and_then(|sealed| <[u8; WRAPPED_LEN]>::try_from(sealed).ok())
            .ok_or(GroupError::Wrapped { prekey_id })?;
        Ok(Wrapped {
            receiver,
            prekey_id,
            encapsulated,
            sealed,
        })
    }

    fn info(&self, receiver: PublicIdentity, prekey_id: u32) -> Vec<u8> {
        [
            INFO,
            &[0],
            self.sender.as_octets(),
            receiver.as_octets(),
            &self.transfer,
            &prekey_id.to_be_bytes(),
            &self.id,
        ]
        .concat()
    }

    fn agree(&self, manifest: &Manifest) -> Result<(), GroupError> {
        let to_group = matches!(
            manifest.recipient(),
            Recipient::Group(id) if id.as_bytes() == self.id
        );
        let field = if manifest.sender().as_bytes() != self.sender.as_octets() {
            "sender"
        } else if !to_group {
            "recipient"
        } else if manifest.message_id() != self.transfer {
            "message id"
        } else {
            return Ok(());
        };
        Err(GroupError::Mismatch { field })
    }
}

/// The secret of a transfer for one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    receiver: PublicIdentity,
    prekey_id: u32,
    encapsulated: Encapsulated,
    sealed: [u8; WRAPPED_LEN],
}

impl Wrapped {
    /// For whom.
    #[must_use]
    pub const fn receiver(&self) -> PublicIdentity {
        self.receiver
    }

    /// To which of its prekeys.
    #[must_use]
    pub const fn prekey_id(&self) -> u32 {
        self.prekey_id
    }

    /// The encapsulated key.
    #[must_use]
    pub const fn encapsulated(&self) -> &Encapsulated {
        &self.encapsulated
    }
}

/// What a sender announces about one segment of a transfer to a group. A value of this type was
/// signed here, or its signature was checked; manifest and details agree.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `G`, format 1 |
/// | 32 | sender's identity key |
/// | 16 | transfer |
/// | 1 | number of receivers r, 1 to 64 |
/// | 116 r | for each, keys ascending: identity key (32), prekey id (4), encapsulated key (32), wrapped transfer secret (48) |
/// | 2 + n | length and manifest, of `vmdt_ssms::v2`, whose recipient is the group of these receivers |
/// | 64 | sender's signature over all before, context `vmdt 1.1 group details` |
///
/// A transfer secret is wrapped with ChaCha20-Poly1305, nonce of zeros and no associated data,
/// under the export of 32 octets, context `vmdt 1.1 group wrap`, of HPKE to the receiver's prekey
/// with the info `vmdt 1.1 group transfer`, 0, sender's and receiver's identity keys, transfer,
/// prekey id and group id.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupDetails {
    group: Group,
    wrapped: Vec<Wrapped>,
    manifest: Manifest,
    octets: Bytes,
}

impl GroupDetails {
    /// Signs the details of a segment. `wrapped` holds the secret for every receiver, in any order.
    ///
    /// # Errors
    /// [`GroupError::Mismatch`] when the manifest's parties or message id are not those of
    /// [`Group::envelope`], `sender` is not the group's, or `wrapped` are not its receivers.
    pub fn sign(
        sender: &SecretIdentity,
        group: &Group,
        wrapped: &[Wrapped],
        manifest: &Manifest,
    ) -> Result<Self, GroupError> {
        group.agree(manifest)?;
        if sender.public() != group.sender {
            return Err(GroupError::Mismatch { field: "sender" });
        }
        let mut wrapped = wrapped.to_vec();
        wrapped.sort_unstable_by_key(|one| *one.receiver.as_octets());
        if !wrapped.iter().map(|one| &one.receiver).eq(&group.receivers) {
            return Err(GroupError::Mismatch { field: "receivers" });
        }
        let encoded = manifest.encode();
        let room = 128 + RECEIVER_LEN * wrapped.len() + encoded.len();
        let mut out = codec::begin(codec::GROUP_DETAILS, room);
        out.extend_from_slice(group.sender.as_octets());
        out.extend_from_slice(&group.transfer);
        // at most 64
        out.push(u8::try_from(wrapped.len()).unwrap_or(u8::MAX));
        for one in &wrapped {
            out.extend_from_slice(one.receiver.as_octets());
            out.extend_from_slice(&one.prekey_id.to_be_bytes());
            out.extend_from_slice(&one.encapsulated.0);
            out.extend_from_slice(&one.sealed);
        }
        codec::put_long(&mut out, &encoded);
        sender.sign_onto(codec::GROUP_DETAILS, &mut out);
        Ok(Self {
            group: group.clone(),
            wrapped,
            manifest: manifest.clone(),
            octets: out.into(),
        })
    }

    /// Whether octets claim to be details of a message to a group, rather than to one receiver.
    #[must_use]
    pub fn is_one(octets: &[u8]) -> bool {
        octets.first() == Some(&codec::GROUP_DETAILS.kind)
    }

    /// Reads details and checks the signature, the manifest, and that both speak of the same
    /// parties and transfer.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn parse(octets: &[u8]) -> Result<Self, GroupError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::GROUP_DETAILS)?;
        let sender = reader.key("sender key")?;
        let transfer = reader.array("transfer")?;
        let count = reader.count("receivers", MAX_RECEIVERS)?;
        let mut wrapped: Vec<Wrapped> = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = reader.offset();
            let receiver = reader.key("receiver key")?;
            let after = |last: &Wrapped| last.receiver.as_octets() < receiver.as_octets();
            if !wrapped.last().is_none_or(after) {
                return Err(ParseError::Order {
                    field: "receiver key",
                    offset,
                }
                .into());
            }
            wrapped.push(Wrapped {
                receiver,
                prekey_id: reader.u32("prekey id")?,
                encapsulated: Encapsulated(reader.array("encapsulated key")?),
                sealed: reader.array("wrapped secret")?,
            });
        }
        let manifest = reader.long("manifest", vmdt_ssms::v2::MANIFEST_MAX_LEN)?;
        finish(reader, octets, codec::GROUP_DETAILS, sender, "the sender")?;
        let manifest = Manifest::parse_unverified(manifest)?;
        let receivers: Vec<PublicIdentity> = wrapped.iter().map(|one| one.receiver).collect();
        let group = Group::new(sender, transfer, &receivers)?;
        group.agree(&manifest)?;
        Ok(Self {
            group,
            wrapped,
            manifest,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// What is wrapped for a receiver.
    #[must_use]
    pub fn wrapped_for(&self, receiver: PublicIdentity) -> Option<&Wrapped> {
        self.wrapped.iter().find(|one| one.receiver == receiver)
    }

    /// The secret of the transfer, at one of its receivers. `prekey` is the one that
    /// [`wrapped_for`](Self::wrapped_for) names.
    ///
    /// # Errors
    /// [`GroupError::NotReceiver`]; [`GroupError::E2e`] for another prekey or an encapsulated key
    /// that is none; [`GroupError::Wrapped`] when the sender wrapped it so that it does not open.
    pub fn unwrap_for(
        &self,
        receiver: PublicIdentity,
        prekey: &Prekey,
    ) -> Result<TransferSecret, GroupError> {
        let wrapped = self
            .wrapped_for(receiver)
            .ok_or_else(|| GroupError::NotReceiver(receiver.node_id()))?;
        let prekey_id = wrapped.prekey_id;
        let given = prekey.public().id;
        if given != prekey_id {
            let wanted = prekey_id;
            return Err(E2eError::OtherPrekey { given, wanted }.into());
        }
        let info = self.group.info(receiver, prekey_id);
        let key = e2e::export_from(prekey, &info, EXPORTER_CONTEXT, &wrapped.encapsulated)?;
        let opened = ChaCha20Poly1305::new(&Key::from(**key))
            .decrypt(&Nonce::default(), &wrapped.sealed[..])
            .map(Zeroizing::new)
            .map_err(|_| GroupError::Wrapped { prekey_id })?;
        let octets = <&[u8; KEY_LEN]>::try_from(opened.as_slice());
        let octets = octets.map_err(|_| GroupError::Wrapped { prekey_id })?;
        Ok(TransferSecret::from_octets(octets))
    }

    /// Sender, transfer and receivers.
    #[must_use]
    pub const fn group(&self) -> &Group {
        &self.group
    }

    /// Who signed.
    #[must_use]
    pub const fn sender(&self) -> PublicIdentity {
        self.group.sender
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
