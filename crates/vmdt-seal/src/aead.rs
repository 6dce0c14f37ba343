//! One AEAD key, in the portable implementation or another.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use crate::identity::KEY_LEN;
use crate::packet::{Backend, Suite, TAG_LEN};

/// A packet did not open, or is too long to be sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AeadFailed;

/// A key, expanded. Boxed, so that a change of keys moves pointers and not key schedules.
pub(crate) enum AeadKey {
    Aes(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
    #[cfg(feature = "ring")]
    Ring(Box<ring::aead::LessSafeKey>),
}

impl AeadKey {
    pub(crate) fn new(suite: Suite, key: &[u8; KEY_LEN], backend: Backend) -> Self {
        match backend {
            Backend::Portable => Self::portable(suite, key),
            #[cfg(feature = "ring")]
            Backend::Ring => {
                use ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
                let algorithm = match suite {
                    Suite::Aes256Gcm => &AES_256_GCM,
                    Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
                };
                UnboundKey::new(algorithm, key).map_or_else(
                    // The key has the length that the algorithm wants.
                    |_| Self::portable(suite, key),
                    |key| Self::Ring(Box::new(LessSafeKey::new(key))),
                )
            }
        }
    }

    fn portable(suite: Suite, key: &[u8; KEY_LEN]) -> Self {
        match suite {
            Suite::Aes256Gcm => Self::Aes(Box::new(Aes256Gcm::new(key.into()))),
            Suite::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(key.into()))),
        }
    }

    pub(crate) fn seal(
        &self,
        number: u64,
        associated: &[u8],
        octets: &mut [u8],
    ) -> Result<[u8; TAG_LEN], AeadFailed> {
        let nonce = nonce(number);
        match self {
            Self::Aes(key) => key
                .encrypt_inout_detached(&nonce.into(), associated, octets.into())
                .map(Into::into)
                .map_err(|_| AeadFailed),
            Self::ChaCha(key) => key
                .encrypt_inout_detached(&nonce.into(), associated, octets.into())
                .map(Into::into)
                .map_err(|_| AeadFailed),
            #[cfg(feature = "ring")]
            Self::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                let associated = ring::aead::Aad::from(associated);
                key.seal_in_place_separate_tag(nonce, associated, octets)
                    .ok()
                    .and_then(|tag| tag.as_ref().try_into().ok())
                    .ok_or(AeadFailed)
            }
        }
    }

    pub(crate) fn open(
        &self,
        number: u64,
        associated: &[u8],
        octets: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), AeadFailed> {
        let nonce = nonce(number);
        match self {
            Self::Aes(key) => key
                .decrypt_inout_detached(&nonce.into(), associated, octets.into(), tag.into())
                .map_err(|_| AeadFailed),
            Self::ChaCha(key) => key
                .decrypt_inout_detached(&nonce.into(), associated, octets.into(), tag.into())
                .map_err(|_| AeadFailed),
            #[cfg(feature = "ring")]
            Self::Ring(key) => key
                .open_in_place_separate_tag(
                    ring::aead::Nonce::assume_unique_for_key(nonce),
                    ring::aead::Aad::from(associated),
                    (*tag).into(),
                    octets,
                    0..,
                )
                .map(|_| ())
                .map_err(|_| AeadFailed),
        }
    }
}

/// Four zero octets and the number: it never repeats under a key because numbers only ascend.
fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (_, tail) = nonce.split_at_mut(4);
    tail.copy_from_slice(&number.to_be_bytes());
    nonce
}
