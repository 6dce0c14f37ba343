//! The opening: how the two ends of a pair come to have a secret for many messages.

use bytes::Bytes;
use rand_core::CryptoRng;

use super::piece::Channel;
use crate::codec::{self, Reader};
use crate::e2e::{self, E2eError, ENCAPSULATED_LEN, Encapsulated};
use crate::error::VerifyError;
use crate::identity::{KEY_LEN, PublicIdentity, SIGNATURE_LEN, SecretIdentity};
use crate::prekey::{Prekey, PublicPrekey};

/// Octets of an [`Opening`].
pub const OPENING_LEN: usize = 2 + 2 * KEY_LEN + 4 + 4 + ENCAPSULATED_LEN + 8 + SIGNATURE_LEN;

const INFO: &[u8] = b"vmdt 1.1 express";
const EXPORTER_CONTEXT: &[u8] = b"vmdt 1.1 express secret";

/// What a sender tells a receiver once, so that both have the secret of what follows.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `E`, format 1 |
/// | 32 | sender's identity key |
/// | 32 | receiver's identity key |
/// | 4 | the opening's id, random |
/// | 4 | id of the receiver's prekey |
/// | 32 | encapsulated key |
/// | 8 | time from which on nothing is sealed under it, milliseconds since 1970 |
/// | 64 | signature over all before, context `vmdt 1.1 express opening` |
///
/// The secret is an export of HPKE as in [`e2e`](crate::e2e), bound to both identity keys, the
/// opening's id and the prekey's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    sender: PublicIdentity,
    receiver: PublicIdentity,
    id: u32,
    prekey_id: u32,
    encapsulated: Encapsulated,
    not_after_ms: u64,
    octets: Bytes,
}

impl Opening {
    /// Draws a secret, encapsulates it to a receiver's prekey and signs that.
    ///
    /// # Errors
    /// [`E2eError::BadPrekey`].
    pub fn sign(
        sender: &SecretIdentity,
        receiver: PublicIdentity,
        prekey: &PublicPrekey,
        not_after_ms: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<(Opening, Channel), E2eError> {
        let mut id = [0; 4];
        rng.fill_bytes(&mut id);
        let id = u32::from_be_bytes(id);
        let own = sender.public();
        let info = info(&own, &receiver, id, prekey.id);
        let (encapsulated, secret) = e2e::export_to(prekey, &info, EXPORTER_CONTEXT, rng)?;
        let mut out = codec::begin(codec::EXPRESS, OPENING_LEN);
        out.extend_from_slice(own.as_octets());
        out.extend_from_slice(receiver.as_octets());
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&prekey.id.to_be_bytes());
        out.extend_from_slice(&encapsulated.0);
        out.extend_from_slice(&not_after_ms.to_be_bytes());
        sender.sign_onto(codec::EXPRESS, &mut out);
        let opening = Opening {
            sender: own,
            receiver,
            id,
            prekey_id: prekey.id,
            encapsulated,
            not_after_ms,
            octets: out.into(),
        };
        let channel = Channel::new(id, own.node_id(), receiver.node_id(), &secret);
        Ok((opening, channel))
    }

    /// Reads an opening and checks its signature. Whom it is for and until when it counts is the
    /// caller's to look at.
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not right.
    pub fn parse(octets: &[u8]) -> Result<Opening, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::EXPRESS)?;
        let sender = reader.key("sender's key")?;
        let receiver = reader.key("receiver's key")?;
        let id = reader.u32("id")?;
        let prekey_id = reader.u32("prekey id")?;
        let encapsulated = Encapsulated(reader.array("encapsulated key")?);
        let not_after_ms = reader.u64("not after")?;
        let signed = octets.get(..reader.offset()).unwrap_or_default();
        let signature = reader.signature()?;
        reader.end()?;
        sender.verify(codec::EXPRESS, signed, &signature, "the sender")?;
        Ok(Opening {
            sender,
            receiver,
            id,
            prekey_id,
            encapsulated,
            not_after_ms,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// The receiver's side of the secret. Success does not say that the prekey was the right one
    /// if another of that id is given: pieces then have wrong tags.
    ///
    /// # Errors
    /// [`E2eError::OtherPrekey`] and [`E2eError::BadEncapsulated`].
    pub fn accept(&self, prekey: &Prekey) -> Result<Channel, E2eError> {
        if prekey.public().id != self.prekey_id {
            return Err(E2eError::OtherPrekey {
                given: prekey.public().id,
                wanted: self.prekey_id,
            });
        }
        let info = info(&self.sender, &self.receiver, self.id, self.prekey_id);
        let secret = e2e::export_from(prekey, &info, EXPORTER_CONTEXT, &self.encapsulated)?;
        let (sender, receiver) = (self.sender.node_id(), self.receiver.node_id());
        Ok(Channel::new(self.id, sender, receiver, &secret))
    }

    /// Who seals under it.
    #[must_use]
    pub const fn sender(&self) -> PublicIdentity {
        self.sender
    }

    /// Who opens.
    #[must_use]
    pub const fn receiver(&self) -> PublicIdentity {
        self.receiver
    }

    /// Its id, which every piece names.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The receiver's prekey that it is encapsulated to.
    #[must_use]
    pub const fn prekey_id(&self) -> u32 {
        self.prekey_id
    }

    /// Nothing is sealed under it from this time on, in milliseconds since 1970.
    #[must_use]
    pub const fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

fn info(sender: &PublicIdentity, receiver: &PublicIdentity, id: u32, prekey_id: u32) -> Vec<u8> {
    [
        INFO,
        &[0],
        sender.as_octets(),
        receiver.as_octets(),
        &id.to_be_bytes(),
        &prekey_id.to_be_bytes(),
    ]
    .concat()
}
