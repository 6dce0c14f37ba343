//! Ed25519 keys in the forms that TLS wants them in.

use std::fmt;
use std::sync::Arc;

use rustls::CommonState;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::config::ALPN;
use crate::error::{ConfigError, PeerKeyError};

/// What stands before the seed in a PKCS #8 document (RFC 8410, section 7).
const PKCS8_START: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What stands before the key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_START: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The Ed25519 key by which one side of a connection is known.
///
/// Cheap to clone. `Debug` shows the public key and nothing else.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    public: [u8; 32],
}

impl Identity {
    /// The key that `seed` makes (RFC 8032, section 5.1.5). The copies of the seed made here are
    /// wiped; the expanded key lives as long as the identity.
    ///
    /// # Errors
    /// The cryptography library refuses the key, which no seed is known to cause.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Identity, ConfigError> {
        let mut document = Zeroizing::new([0; 48]);
        let (start, rest) = document.split_at_mut(PKCS8_START.len());
        start.copy_from_slice(&PKCS8_START);
        rest.copy_from_slice(seed);
        let document = PrivatePkcs8KeyDer::from(document.as_slice());
        let key = any_eddsa_type(&document).map_err(|_| ConfigError::Key)?;
        let spki = key.public_key().ok_or(ConfigError::Key)?;
        let public = public_key(spki.as_ref()).ok_or(ConfigError::Key)?;
        let shown = CertificateDer::from(spki.as_ref().to_vec());
        Ok(Identity {
            key: Arc::new(CertifiedKey::new(vec![shown], key)),
            public,
        })
    }

    /// The public key, which others pin and from which ids are derived.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", Hex(&self.public))
    }
}

/// The Ed25519 key that the other side of a connection has proven. Ask before anything is read
/// or written: a client that names no protocol gets through the handshake, and is caught here.
///
/// # Errors
/// The two sides did not agree upon the protocol. On a connection made with other configurations
/// than those of this crate, or before its handshake is complete: there is no key, or it is not
/// an Ed25519 key.
pub fn peer_key(connection: &CommonState) -> Result<[u8; 32], PeerKeyError> {
    let key = shown_key(connection.peer_certificates())?;
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(PeerKeyError::Protocol);
    }
    Ok(key)
}

fn shown_key(shown: Option<&[CertificateDer<'_>]>) -> Result<[u8; 32], PeerKeyError> {
    match shown {
        None | Some([]) => Err(PeerKeyError::None),
        Some([key]) => public_key(key).ok_or(PeerKeyError::NotEd25519),
        Some([_, _, ..]) => Err(PeerKeyError::NotEd25519),
    }
}

/// The key in a SubjectPublicKeyInfo, if that is an Ed25519 key and nothing more.
pub(crate) fn public_key(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_START)?.try_into().ok()
}

/// Octets as hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn seed() -> [u8; 32] {
        let digits = |at: usize| u8::from_str_radix(&SEED[at..at + 2], 16).unwrap();
        std::array::from_fn(|i| digits(2 * i))
    }

    #[test]
    fn the_key_of_a_seed_is_that_of_rfc_8032() {
        let identity = Identity::from_seed(&seed()).unwrap();
        assert_eq!(Hex(identity.public_key()).to_string(), PUBLIC);
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Identity::from_seed(&seed()).unwrap());
        assert_eq!(shown, format!("Identity({PUBLIC})"));
    }

    #[test]
    fn only_a_single_ed25519_key_is_a_peer_key() {
        let identity = Identity::from_seed(&seed()).unwrap();
        let key = identity.key.cert[0].clone();
        assert_eq!(
            shown_key(Some(std::slice::from_ref(&key))),
            Ok(identity.public)
        );
        assert_eq!(shown_key(None), Err(PeerKeyError::None));
        assert_eq!(shown_key(Some(&[])), Err(PeerKeyError::None));
        let two = [key.clone(), key.clone()];
        assert_eq!(shown_key(Some(&two)), Err(PeerKeyError::NotEd25519));
        for cut in [&key[..43], &key[1..], &[&key[..], &[0]].concat()] {
            let other = [CertificateDer::from(cut.to_vec())];
            assert_eq!(shown_key(Some(&other)), Err(PeerKeyError::NotEd25519));
        }
    }
}
