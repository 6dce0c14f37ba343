//! What snow needs of cryptography, by the same libraries as everything else, wiped when dropped.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::identity::KEY_LEN;

const TAG_LEN: usize = 16;

/// Resolves the primitives of `25519_ChaChaPoly_SHA256`.
pub(crate) struct Primitives {
    /// The static key pair, whose public half is then not computed again.
    pub(crate) secret: StaticSecret,
    pub(crate) public: [u8; KEY_LEN],
    /// What the one ephemeral key is made from: random octets that are used once.
    pub(crate) ephemeral: Zeroizing<[u8; KEY_LEN]>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 {
                known: Some((self.secret.clone(), self.public)),
                secret: Zeroizing::default(),
                public: [0; KEY_LEN],
            })),
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(HashSha256(Sha256::new()))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::new(ChaChaPoly(Zeroizing::default()))),
            _ => None,
        }
    }
}

/// Random octets for one key, given once.
struct Once(Option<Zeroizing<[u8; KEY_LEN]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let octets = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != octets.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*octets);
        Ok(())
    }
}

struct X25519 {
    known: Option<(StaticSecret, [u8; KEY_LEN])>,
    secret: Zeroizing<[u8; KEY_LEN]>,
    public: [u8; KEY_LEN],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, privkey: &[u8]) {
        for (to, from) in self.secret.iter_mut().zip(privkey) {
            *to = *from;
        }
        self.public = match self.known.take() {
            Some((secret, public)) if bool::from(secret.as_bytes().ct_eq(&*self.secret)) => public,
            _ => PublicKey::from(&StaticSecret::from(*self.secret)).to_bytes(),
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        rng.try_fill_bytes(&mut *self.secret)?;
        self.known = None;
        self.public = PublicKey::from(&StaticSecret::from(*self.secret)).to_bytes();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs = pubkey.first_chunk::<KEY_LEN>().ok_or(snow::Error::Dh)?;
        let shared = StaticSecret::from(*self.secret).diffie_hellman(&PublicKey::from(*theirs));
        // A key of small order would take this side's part out of the result.
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        let out = out.first_chunk_mut::<KEY_LEN>().ok_or(snow::Error::Dh)?;
        out.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

struct ChaChaPoly(Zeroizing<[u8; KEY_LEN]>);

impl ChaChaPoly {
    fn key(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.0).into())
    }

    /// Noise, section 12.3: four zero octets and the counter, little-endian.
    fn nonce(counter: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        let (_, tail) = nonce.split_at_mut(4);
        tail.copy_from_slice(&counter.to_le_bytes());
        nonce
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_LEN]) {
        *self.0 = *key;
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let Some((text, rest)) = out.split_at_mut_checked(plaintext.len()) else {
            return 0;
        };
        let Some(tag) = rest.first_chunk_mut::<TAG_LEN>() else {
            return 0;
        };
        text.copy_from_slice(plaintext);
        let sealed =
            self.key()
                .encrypt_inout_detached(&Self::nonce(nonce).into(), authtext, text.into());
        match sealed {
            Ok(made) => {
                *tag = made.into();
                plaintext.len() + TAG_LEN
            }
            Err(_) => 0,
        }
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let (text, tag) = ciphertext
            .split_last_chunk::<TAG_LEN>()
            .ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(text);
        self.key()
            .decrypt_inout_detached(&Self::nonce(nonce).into(), authtext, out.into(), tag.into())
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(text.len())
    }
}

struct HashSha256(Sha256);

impl Hash for HashSha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Sha256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.finalize_reset();
        for (to, from) in out.iter_mut().zip(hash) {
            *to = from;
        }
    }
}
