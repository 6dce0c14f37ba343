//! The hashes of suite 1, each in a domain of its own.

use alloc::vec::Vec;

use super::share::HEAD_LEN;
use crate::cipher::PieceKey;
use crate::share::KEY_LEN;

/// The length of a digest in octets.
pub(crate) const DIGEST_LEN: usize = 32;

pub(crate) type Digest = [u8; DIGEST_LEN];

// Each domain is BLAKE3's key: public, and different from every other.
const CONTENT_KEY: &Digest = b"vmdt-ssms v2 content key        ";
const KEY_COMMITMENT: &Digest = b"vmdt-ssms v2 key commitment     ";
const CONTENT: &Digest = b"vmdt-ssms v2 content            ";
const SHARE: &Digest = b"vmdt-ssms v2 share              ";
const MANIFEST: &Digest = b"vmdt-ssms v2 manifest           ";

/// What a segment is encrypted under, and the commitment to it.
pub(crate) struct ContentKey {
    key: zeroize::Zeroizing<[u8; KEY_LEN]>,
    pub(crate) commitment: Digest,
}

impl ContentKey {
    pub(crate) fn derive(secret: &[u8; KEY_LEN], bound: Option<&[u8; KEY_LEN]>) -> ContentKey {
        let mut hasher = blake3::Hasher::new_keyed(CONTENT_KEY);
        hasher.update(secret);
        if let Some(bound) = bound {
            hasher.update(bound);
        }
        let key = zeroize::Zeroizing::new(*hasher.finalize().as_bytes());
        zeroize::Zeroize::zeroize(&mut hasher);
        let commitment = *blake3::keyed_hash(KEY_COMMITMENT, &*key).as_bytes();
        ContentKey { key, commitment }
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.key
    }

    pub(crate) fn cipher(&self) -> PieceKey {
        PieceKey::new(&self.key)
    }
}

pub(crate) fn body(body: &[u8]) -> Digest {
    bodies(&[body]).first().copied().unwrap_or_default()
}

/// The hashes of bodies of one length.
pub(crate) fn bodies(bodies: &[&[u8]]) -> Vec<Digest> {
    super::lanes::bodies(bodies)
}

pub(crate) fn content<'a>(bodies: impl Iterator<Item = &'a Digest>) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(CONTENT);
    for body in bodies {
        hasher.update(body);
    }
    *hasher.finalize().as_bytes()
}

pub(crate) fn share(head: &[u8], body: &Digest) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(SHARE);
    hasher.update(head);
    hasher.update(body);
    let digest = *hasher.finalize().as_bytes();
    // The head holds a key share.
    zeroize::Zeroize::zeroize(&mut hasher);
    digest
}

/// The digests of all shares of a segment, from their heads and the hashes of their bodies.
pub(crate) fn shares<'a>(
    shares: impl Iterator<Item = (&'a [u8; HEAD_LEN], &'a Digest)>,
) -> Vec<Digest> {
    let mut inputs = zeroize::Zeroizing::new(Vec::with_capacity(shares.size_hint().0));
    inputs.extend(shares.map(|(head, body)| {
        let mut input = [0; HEAD_LEN + DIGEST_LEN];
        let (to_head, to_body) = input.split_at_mut(HEAD_LEN);
        to_head.copy_from_slice(head);
        to_body.copy_from_slice(body);
        input
    }));
    let inputs: Vec<&[u8]> = inputs.iter().map(|input| &input[..]).collect();
    super::lanes::hashes(&inputs, Some(SHARE))
}

pub(crate) fn manifest(octets: &[u8]) -> Digest {
    *blake3::keyed_hash(MANIFEST, octets).as_bytes()
}
