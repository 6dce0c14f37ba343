//! Who a node is: an Ed25519 key, the id that follows from it, and its key for sessions.
//!
//! A node's id is `@` and the first 90 bits, as 15 characters of base64url, of a BLAKE3 hash of
//! the public key. It is a handle: every handshake and every signed statement carries the whole
//! key, which is checked against the id.
//!
//! The X25519 key that Noise wants is derived from the seed, so that one secret of 32 octets is
//! all there is to keep. A [`Credential`] binds it to the identity.

use core::fmt;
use core::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use thiserror::Error;
use vmdt_wire::NodeId;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::codec::{self, Head, Reader};
use crate::error::{ParseError, VerifyError};

/// Octets of a public key.
pub const KEY_LEN: usize = 32;
/// Octets of the seed that a secret identity follows from.
pub const SEED_LEN: usize = 32;
/// Octets of a signature.
pub const SIGNATURE_LEN: usize = 64;
/// Octets of a [`Credential`].
pub const CREDENTIAL_LEN: usize = 2 + KEY_LEN + KEY_LEN + 8 + SIGNATURE_LEN;

/// PKCS #8 version 1 of an Ed25519 key, up to its seed (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// SubjectPublicKeyInfo of an Ed25519 key, up to the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Octets that are no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a point of the curve, not in its canonical form, or of small order.
    #[error("the octets are no usable Ed25519 public key")]
    NotAPoint,
    /// A text that is not 43 characters of base64url.
    #[error("a public key is 43 characters of base64url")]
    Text,
    /// A SubjectPublicKeyInfo that is not of an Ed25519 key.
    #[error("not the SubjectPublicKeyInfo of an Ed25519 key")]
    Spki,
}

/// The secret half of an identity. Wiped when dropped; `Debug` shows the id only.
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::identity::SecretIdentity;
///
/// let identity = SecretIdentity::generate(&mut ChaCha20Rng::from_seed([1; 32]));
/// assert!(identity.node_id().as_str().starts_with('@'));
/// assert_eq!(identity.public().node_id(), identity.node_id());
/// ```
#[derive(Clone)]
pub struct SecretIdentity {
    signing: SigningKey,
    noise: StaticSecret,
    noise_public: [u8; KEY_LEN],
    public: PublicIdentity,
}

impl SecretIdentity {
    /// Draws an identity.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The identity that follows from a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let noise = Zeroizing::new(blake3::derive_key("vmdt 1.1 noise static", seed));
        let noise = StaticSecret::from(*noise);
        Self {
            noise_public: PublicKey::from(&noise).to_bytes(),
            noise,
            public: PublicIdentity(signing.verifying_key().to_bytes()),
            signing,
        }
    }

    /// The seed, to be stored where only its owner can read it.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; SEED_LEN]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicIdentity {
        self.public
    }

    /// The id that follows from the public half.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.public.node_id()
    }

    /// The X25519 public key of this node's sessions.
    #[must_use]
    pub const fn noise_public(&self) -> [u8; KEY_LEN] {
        self.noise_public
    }

    /// The X25519 secret key of this node's sessions.
    pub(crate) const fn noise(&self) -> &StaticSecret {
        &self.noise
    }

    /// States that [`SecretIdentity::noise_public`] is this identity's key for sessions.
    ///
    /// `version_ms` is the time in milliseconds since 1970-01-01T00:00:00Z; the newer of two
    /// credentials counts.
    #[must_use]
    pub fn credential(&self, version_ms: u64) -> Credential {
        let mut credential = Credential {
            identity: self.public,
            noise: self.noise_public,
            version_ms,
            signature: [0; SIGNATURE_LEN],
        };
        credential.signature = self.sign(codec::CREDENTIAL, &credential.body());
        credential
    }

    /// Signs octets under a context that says what they are, such as `"my program 1 greeting"`.
    ///
    /// The contexts of this crate begin with `vmdt 1.1`; use another beginning.
    #[must_use]
    pub fn sign_octets(&self, context: &str, octets: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.signing.sign(&framed(context, octets)).to_bytes()
    }

    pub(crate) fn sign(&self, head: Head, body: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.sign_octets(head.domain, body)
    }

    /// Appends this identity's signature over all that `out` holds.
    pub(crate) fn sign_onto(&self, head: Head, out: &mut Vec<u8>) {
        let signature = self.sign(head, out);
        out.extend_from_slice(&signature);
    }

    /// The key as PKCS #8 version 1, 48 octets of DER: what TLS libraries take.
    #[must_use]
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + SEED_LEN));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(&*self.seed());
        der
    }
}

impl fmt::Debug for SecretIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretIdentity")
            .field("id", &self.node_id())
            .finish_non_exhaustive()
    }
}

/// The public half of an identity: a point of the curve that is not of small order.
///
/// Its text is 43 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicIdentity([u8; KEY_LEN]);

impl PublicIdentity {
    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyError::NotAPoint`].
    pub fn from_octets(octets: [u8; KEY_LEN]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&octets).map_err(|_| KeyError::NotAPoint)?;
        // A second form of the same point would be a second id of the same key.
        let canonical = key.to_edwards().compress().to_bytes() == octets;
        if key.is_weak() || !canonical {
            return Err(KeyError::NotAPoint);
        }
        Ok(Self(octets))
    }

    /// The key's octets.
    #[must_use]
    pub const fn as_octets(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The node id: `@` and 15 characters of base64url, 90 bits of a hash of the key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        let hash = blake3::derive_key("vmdt 1.1 node id", &self.0);
        let mut head = [0; 12];
        for (to, from) in head.iter_mut().zip(hash) {
            *to = from;
        }
        NodeId::sealed(head)
    }

    /// Checks a signature made by [`SecretIdentity::sign_octets`] under the same context.
    #[must_use]
    pub fn verify_octets(
        &self,
        context: &str,
        octets: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| {
            key.verify_strict(&framed(context, octets), &Signature::from_bytes(signature))
                .is_ok()
        })
    }

    pub(crate) fn verify(
        &self,
        head: Head,
        body: &[u8],
        signature: &[u8; SIGNATURE_LEN],
        signer: &'static str,
    ) -> Result<(), VerifyError> {
        if self.verify_octets(head.domain, body, signature) {
            Ok(())
        } else {
            Err(VerifyError::Signature { signer })
        }
    }

    /// The key as SubjectPublicKeyInfo, 44 octets of DER: what raw public keys in TLS carry
    /// (RFC 7250).
    #[must_use]
    pub fn spki_der(&self) -> [u8; 44] {
        let mut der = [0; 44];
        for (to, from) in der.iter_mut().zip(SPKI_PREFIX.iter().chain(&self.0)) {
            *to = *from;
        }
        der
    }

    /// Reads what [`PublicIdentity::spki_der`] writes.
    ///
    /// # Errors
    /// [`KeyError::Spki`] and [`KeyError::NotAPoint`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        der.strip_prefix(&SPKI_PREFIX)
            .and_then(|key| <[u8; KEY_LEN]>::try_from(key).ok())
            .ok_or(KeyError::Spki)
            .and_then(Self::from_octets)
    }
}

impl fmt::Display for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({self})")
    }
}

impl FromStr for PublicIdentity {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        BASE64URL_NOPAD
            .decode(text.as_bytes())
            .ok()
            .and_then(|octets| <[u8; KEY_LEN]>::try_from(octets).ok())
            .ok_or(KeyError::Text)
            .and_then(Self::from_octets)
    }
}

/// What a signature is over: the context, a NUL, the octets. No context holds a NUL.
fn framed(context: &str, octets: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(context.len() + 1 + octets.len());
    message.extend_from_slice(context.as_bytes());
    message.push(0);
    message.extend_from_slice(octets);
    message
}

/// An identity's word that an X25519 key is its key for sessions.
///
/// | offset | octets | field |
/// |---|---|---|
/// | 0 | 1 | kind, `C` |
/// | 1 | 1 | format, 1 |
/// | 2 | 32 | identity key |
/// | 34 | 32 | X25519 key |
/// | 66 | 8 | version, milliseconds since 1970 |
/// | 74 | 64 | signature over all before, context `vmdt 1.1 credential` |
///
/// A value of this type has a signature that was checked or made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential {
    identity: PublicIdentity,
    noise: [u8; KEY_LEN],
    version_ms: u64,
    signature: [u8; SIGNATURE_LEN],
}

impl Credential {
    /// Reads a credential and checks its signature.
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not right.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        let credential = Self::read(&mut reader)?;
        reader.end()?;
        credential.checked()
    }

    /// Reads the fields; the signature is not checked.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        reader.head(codec::CREDENTIAL)?;
        Ok(Self {
            identity: reader.key("identity key")?,
            noise: reader.array("session key")?,
            version_ms: reader.u64("credential version")?,
            signature: reader.signature()?,
        })
    }

    /// The credential from its parts, when the signature is right.
    pub(crate) fn from_parts(
        identity: PublicIdentity,
        noise: [u8; KEY_LEN],
        version_ms: u64,
        signature: [u8; SIGNATURE_LEN],
    ) -> Result<Self, VerifyError> {
        Self {
            identity,
            noise,
            version_ms,
            signature,
        }
        .checked()
    }

    pub(crate) fn checked(self) -> Result<Self, VerifyError> {
        self.identity.verify(
            codec::CREDENTIAL,
            &self.body(),
            &self.signature,
            "the identity",
        )?;
        Ok(self)
    }

    fn body(&self) -> Vec<u8> {
        let mut out = codec::begin(codec::CREDENTIAL, CREDENTIAL_LEN);
        out.extend_from_slice(self.identity.as_octets());
        out.extend_from_slice(&self.noise);
        out.extend_from_slice(&self.version_ms.to_be_bytes());
        out
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.body();
        out.extend_from_slice(&self.signature);
        out
    }

    /// The identity that signed.
    #[must_use]
    pub const fn identity(&self) -> PublicIdentity {
        self.identity
    }

    /// The id of the identity.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.identity.node_id()
    }

    /// The X25519 key of the identity's sessions.
    #[must_use]
    pub const fn noise_public(&self) -> &[u8; KEY_LEN] {
        &self.noise
    }

    /// When it was made, in milliseconds since 1970; the newer of two counts.
    #[must_use]
    pub const fn version_ms(&self) -> u64 {
        self.version_ms
    }

    pub(crate) const fn signature(&self) -> &[u8; SIGNATURE_LEN] {
        &self.signature
    }
}
