//! End-to-end sealing: a secret that only the sender and the receiver of a transfer share.
//!
//! HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256, export only, to
//! the receiver's [prekey](crate::prekey). What is exported goes, per segment, into
//! `vmdt_ssms::v2::Sealer::with_bound_secret`: with it, k holders together still read nothing.
//!
//! Base mode does not say who encapsulated: the signature of the
//! [`SealedDetails`](crate::announcement::SealedDetails) does.

use core::fmt;

use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::identity::{KEY_LEN, PublicIdentity};
use crate::prekey::{Prekey, PublicPrekey};

/// Octets of an encapsulated key.
pub const ENCAPSULATED_LEN: usize = 32;

const INFO: &[u8] = b"vmdt 1.1 transfer";
const EXPORTER_CONTEXT: &[u8] = b"vmdt 1.1 transfer secret";

type Aead = ExportOnlyAead;
type Kdf = HkdfSha256;
type X25519 = X25519HkdfSha256;

/// Why there is no transfer secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum E2eError {
    /// The receiver's prekey is not a usable X25519 key.
    #[error("the receiver's prekey is no usable key")]
    BadPrekey,
    /// The encapsulated key is not a usable X25519 key.
    #[error("the encapsulated key is no usable key")]
    BadEncapsulated,
    /// The prekey is not the one that the details name.
    #[error("prekey {given} was given, the transfer is sealed to prekey {wanted}")]
    OtherPrekey {
        /// The id of the prekey that was given.
        given: u32,
        /// The id that the transfer names.
        wanted: u32,
    },
}

/// An encapsulated key: what the sender tells the receiver, in the open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encapsulated(pub [u8; ENCAPSULATED_LEN]);

/// What a transfer secret is bound to: it comes out differently when any of it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransferContext {
    /// The sender's identity key.
    pub sender: PublicIdentity,
    /// The receiver's identity key.
    pub receiver: PublicIdentity,
    /// The transfer: the `message_id` of its manifests.
    pub transfer: [u8; 16],
    /// The receiver's prekey.
    pub prekey_id: u32,
}

impl TransferContext {
    fn info(&self) -> Vec<u8> {
        [
            INFO,
            &[0],
            self.sender.as_octets(),
            self.receiver.as_octets(),
            &self.transfer,
            &self.prekey_id.to_be_bytes(),
        ]
        .concat()
    }
}

/// Draws a transfer secret and encapsulates it to a receiver's prekey.
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::e2e::{self, TransferContext};
/// use vmdt_seal::identity::SecretIdentity;
/// use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let alice = SecretIdentity::generate(&mut rng).public();
/// let bob = SecretIdentity::generate(&mut rng).public();
/// let store = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng);
/// let prekey = store.current().public();
///
/// let context = TransferContext { sender: alice, receiver: bob, transfer: [7; 16], prekey_id: prekey.id };
/// let (encapsulated, at_alice) = e2e::encapsulate(&prekey, &context, &mut rng)?;
/// let at_bob = e2e::decapsulate(store.find(prekey.id).unwrap(), &context, &encapsulated)?;
/// assert_eq!(at_alice.segment(0).as_octets(), at_bob.segment(0).as_octets());
/// # Ok::<(), vmdt_seal::e2e::E2eError>(())
/// ```
///
/// # Errors
/// [`E2eError::BadPrekey`] and [`E2eError::OtherPrekey`].
pub fn encapsulate(
    prekey: &PublicPrekey,
    context: &TransferContext,
    rng: &mut impl CryptoRng,
) -> Result<(Encapsulated, TransferSecret), E2eError> {
    same_prekey(prekey.id, context)?;
    let (encapsulated, secret) = export_to(prekey, &context.info(), EXPORTER_CONTEXT, rng)?;
    Ok((encapsulated, TransferSecret(secret)))
}

/// Draws a secret and encapsulates it: HPKE with this `info`, exported for this context.
pub(crate) fn export_to(
    prekey: &PublicPrekey,
    info: &[u8],
    exporter: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Encapsulated, Secret), E2eError> {
    let public =
        <X25519 as Kem>::PublicKey::from_bytes(&prekey.public).map_err(|_| E2eError::BadPrekey)?;
    let (encapsulated, sender) =
        hpke::setup_sender_with_rng::<Aead, Kdf, X25519>(&OpModeS::Base, &public, info, rng)
            .map_err(|_| E2eError::BadPrekey)?;
    let mut secret = Secret::default();
    sender
        .export(exporter, &mut **secret)
        .map_err(|_| E2eError::BadPrekey)?;
    let mut octets = [0; ENCAPSULATED_LEN];
    encapsulated.write_exact(&mut octets);
    Ok((Encapsulated(octets), secret))
}

/// The same secret at the receiver.
///
/// Success does not say that the sender meant this receiver or this context: a secret comes out
/// for any, and what was sealed opens only with the right one.
///
/// # Errors
/// [`E2eError::BadEncapsulated`] and [`E2eError::OtherPrekey`].
pub fn decapsulate(
    prekey: &Prekey,
    context: &TransferContext,
    encapsulated: &Encapsulated,
) -> Result<TransferSecret, E2eError> {
    same_prekey(prekey.public().id, context)?;
    export_from(prekey, &context.info(), EXPORTER_CONTEXT, encapsulated).map(TransferSecret)
}

/// What [`export_to`] gave, at the receiver.
pub(crate) fn export_from(
    prekey: &Prekey,
    info: &[u8],
    exporter: &[u8],
    encapsulated: &Encapsulated,
) -> Result<Secret, E2eError> {
    let private = <X25519 as Kem>::PrivateKey::from_bytes(prekey.secret().as_bytes())
        .map_err(|_| E2eError::BadPrekey)?;
    let encapsulated = <X25519 as Kem>::EncappedKey::from_bytes(&encapsulated.0)
        .map_err(|_| E2eError::BadEncapsulated)?;
    let receiver =
        hpke::setup_receiver::<Aead, Kdf, X25519>(&OpModeR::Base, &private, &encapsulated, info)
            .map_err(|_| E2eError::BadEncapsulated)?;
    let mut secret = Secret::default();
    receiver
        .export(exporter, &mut **secret)
        .map_err(|_| E2eError::BadEncapsulated)?;
    Ok(secret)
}

fn same_prekey(given: u32, context: &TransferContext) -> Result<(), E2eError> {
    if given == context.prekey_id {
        Ok(())
    } else {
        Err(E2eError::OtherPrekey {
            given,
            wanted: context.prekey_id,
        })
    }
}

/// Octets that stay where they are until they are wiped: what is moved leaves a copy behind.
pub(crate) type Secret = Box<Zeroizing<[u8; KEY_LEN]>>;

/// The secret of one transfer. Wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct TransferSecret(Secret);

impl TransferSecret {
    /// The secret from octets that [`TransferSecret::as_octets`] gave: a sender that resumes after
    /// a restart seals the rest of its transfer under the same secret.
    #[must_use]
    pub fn from_octets(octets: &[u8; KEY_LEN]) -> Self {
        let mut secret = Secret::default();
        secret.copy_from_slice(octets);
        Self(secret)
    }

    /// The secret's octets, to be stored where only their owner can read them.
    #[must_use]
    pub fn as_octets(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The bound secret of one segment: BLAKE3 in its key derivation mode, context
    /// `vmdt 1.1 segment secret`, of this secret and the segment's number (8 octets, big-endian).
    #[must_use]
    pub fn segment(&self, number: u64) -> SegmentSecret {
        SegmentSecret(self.derive("vmdt 1.1 segment secret", number))
    }

    pub(crate) fn derive(&self, context: &str, number: u64) -> Secret {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&**self.0);
        hasher.update(&number.to_be_bytes());
        let mut secret = Secret::default();
        let mut output = hasher.finalize_xof();
        output.fill(&mut **secret);
        output.zeroize();
        hasher.zeroize();
        secret
    }
}

impl fmt::Debug for TransferSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransferSecret(..)")
    }
}

/// What one segment is bound to. Wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SegmentSecret(Secret);

impl SegmentSecret {
    /// The octets that `with_bound_secret` and `open_bound` of `vmdt_ssms` take.
    #[must_use]
    pub fn as_octets(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for SegmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use hpke::{Deserializable, Kem, OpModeR};

    use super::{Aead, Kdf, X25519};

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// RFC 9180, appendix A.7.1: our suite, base mode, all three exports.
    #[test]
    fn exports_are_as_in_rfc_9180() {
        let private = hex("33d196c830a12f9ac65d6e565a590d80f04ee9b19c83c87f2c170d972a812848");
        let encapsulated = hex("e5e8f9bfff6c2f29791fc351d2c25ce1299aa5eaca78a757c0b4fb4bcd830918");
        let info = hex("4f6465206f6e2061204772656369616e2055726e");
        let receiver = hpke::setup_receiver::<Aead, Kdf, X25519>(
            &OpModeR::Base,
            &<X25519 as Kem>::PrivateKey::from_bytes(&private).unwrap(),
            &<X25519 as Kem>::EncappedKey::from_bytes(&encapsulated).unwrap(),
            &info,
        )
        .unwrap();
        for (context, expected) in [
            (
                "",
                "7a36221bd56d50fb51ee65edfd98d06a23c4dc87085aa5866cb7087244bd2a36",
            ),
            (
                "00",
                "d5535b87099c6c3ce80dc112a2671c6ec8e811a2f284f948cec6dd1708ee33f0",
            ),
            (
                "54657374436f6e74657874",
                "ffaabc85a776136ca0c378e5d084c9140ab552b78f039d2e8775f26efff4c70e",
            ),
        ] {
            let mut exported = [0; 32];
            receiver.export(&hex(context), &mut exported).unwrap();
            assert_eq!(HEXLOWER.encode(&exported), expected);
        }
    }
}
