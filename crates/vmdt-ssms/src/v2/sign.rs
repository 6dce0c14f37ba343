//! Signatures over manifests, by whatever scheme the caller has.

use core::fmt;

use alloc::vec::Vec;

use super::error::ManifestError;
use super::manifest::{MANIFEST_MAX_LEN, Manifest};

/// The longest signature that travels with a manifest, in octets.
pub const SIGNATURE_MAX: usize = 8 << 10;

/// Signs manifests.
pub trait Signer {
    /// Why it could not.
    type Error;

    /// Signs a manifest's digest, which already is of a domain of its own.
    ///
    /// # Errors
    ///
    /// The implementation's.
    fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>, Self::Error>;
}

/// Verifies signatures over manifests.
pub trait Verifier {
    /// Why it refused.
    type Error;

    /// Verifies that whoever the id `sender` names signed the manifest's digest.
    ///
    /// # Errors
    ///
    /// The implementation's, for a signature that is not the sender's and for a sender that it
    /// does not know.
    fn verify(&self, sender: &[u8], digest: &[u8; 32], signature: &[u8])
    -> Result<(), Self::Error>;
}

/// Why a signed manifest was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError<E> {
    /// The octets are not a signed manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The verifier refused.
    #[error("the manifest's signature was refused")]
    Signature(E),
}

/// A manifest and a signature over it: the manifest's encoding, the length of the signature (16
/// bits, big-endian) and the signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedManifest {
    manifest: Manifest,
    signature: Vec<u8>,
}

impl SignedManifest {
    /// The length of the longest encoding, in octets.
    pub const MAX_LEN: usize = MANIFEST_MAX_LEN + 2 + SIGNATURE_MAX;

    /// Signs a manifest.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Signature`] with the signer's own error,
    /// [`ManifestError::SignatureTooLong`] for one above [`SIGNATURE_MAX`] octets.
    pub fn sign<S: Signer>(
        manifest: Manifest,
        signer: &S,
    ) -> Result<SignedManifest, VerifyError<S::Error>> {
        let signature = signer
            .sign(&manifest.digest())
            .map_err(VerifyError::Signature)?;
        let given = signature.len();
        if given > SIGNATURE_MAX {
            return Err(ManifestError::SignatureTooLong { given }.into());
        }
        Ok(SignedManifest {
            manifest,
            signature,
        })
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = self.manifest.encode();
        // At most SIGNATURE_MAX, as every constructor checks.
        let len = u16::try_from(self.signature.len()).unwrap_or(0);
        octets.extend(len.to_be_bytes());
        octets.extend_from_slice(&self.signature);
        octets
    }

    /// Reads a signed manifest and has the signature verified: the way to a manifest that can be
    /// relied on. The caller compares parties, message id and expiry with what it expects.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn verify<V: Verifier>(
        octets: &[u8],
        verifier: &V,
    ) -> Result<Manifest, VerifyError<V::Error>> {
        let (manifest, rest) = Manifest::parse_prefix(octets)?;
        let truncated = ManifestError::Truncated {
            given: octets.len(),
        };
        let (len, rest) = rest.split_first_chunk().ok_or(truncated)?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > SIGNATURE_MAX {
            return Err(ManifestError::SignatureTooLong { given: len }.into());
        }
        let (signature, rest) = rest.split_at_checked(len).ok_or(truncated)?;
        if !rest.is_empty() {
            return Err(ManifestError::Trailing { count: rest.len() }.into());
        }
        let sender = manifest.sender();
        verifier
            .verify(sender.as_bytes(), &manifest.digest(), signature)
            .map_err(VerifyError::Signature)?;
        Ok(manifest)
    }

    /// The manifest, which the signer of this value has made.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

impl fmt::Debug for SignedManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedManifest")
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}
