//! Version 2: shares that cannot lie.
//!
//! A message, or one segment of a stream, is sealed into `n` shares and a [`Manifest`] that says
//! what every one of them must be. The sender signs the manifest ([`Signer`]); a receiver who has
//! checked the signature ([`Verifier`]) checks each share alone, on arrival, and refuses with the
//! index blamed whatever was altered, cut short, swapped between indices, taken from another
//! message or made up. Only genuine shares reach the interpolation, and what comes out is what the
//! sender sealed or an error.
//!
//! ```
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! use vmdt_ssms::Threshold;
//! use vmdt_ssms::v2::{Added, Collector, Envelope, PartyId, Recipient, Sealer};
//!
//! let mut rng = ChaCha20Rng::from_seed([7; 32]);
//! let envelope = Envelope::new(
//!     [1; 16],
//!     PartyId::new(b"alice")?,
//!     Recipient::One(PartyId::new(b"bob")?),
//! );
//! let sealer = Sealer::new(Threshold::new(3, 5)?, envelope);
//! let sealed = sealer.seal(b"meet at noon", &mut rng)?;
//!
//! // The receiver has the manifest from a place that cannot be tampered with, or signed.
//! let mut collector = Collector::new(sealed.manifest.clone());
//! let mut forged = sealed.shares[1].to_bytes().to_vec();
//! forged[40] ^= 1;
//! let refused = collector.add(forged.into()).unwrap_err();
//! assert_eq!(refused.index().unwrap().get(), 2);
//!
//! for share in [&sealed.shares[4], &sealed.shares[0], &sealed.shares[2]] {
//!     assert_eq!(collector.add(share.to_bytes())?, Added::New);
//! }
//! assert_eq!(collector.open()?, b"meet at noon");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Construction (suite 1)
//!
//! - A secret of 32 octets is drawn for the segment and shared k of n ([`shamir`](crate::shamir)).
//! - The content key is BLAKE3, keyed with the domain "content key", of the secret, followed by
//!   the caller's bound secret if there is one ([`Sealer::with_bound_secret`]).
//! - The message is encrypted with AES-256-CTR under the content key and either dispersed
//!   ([`Code::seal`](crate::dispersal::Code::seal): each share carries `ceil(size / k)` octets) or,
//!   up to [`REPLICATED_MAX`] octets, replicated: dispersal would then save less than the heads
//!   cost, and a receiver of one body needs no decoding.
//! - The *key commitment* is BLAKE3, domain "key commitment", of the content key.
//! - The *content digest* is BLAKE3, domain "content", of the BLAKE3 hashes of the data pieces
//!   `1..=k` (of the one body, when replicated).
//! - A *share digest* is BLAKE3, domain "share", of the share's head, which holds its key share,
//!   and the BLAKE3 hash of its body.
//!
//! # What follows from it
//!
//! *Shares are authentic*: a share whose digest is in the manifest is, octet for octet, the one
//! that was sealed, unless BLAKE3 collides.
//!
//! *One manifest opens to one plaintext*, also when the sender is the cheat: before anything is
//! decrypted, the key that the shares give must match the key commitment, and all data pieces, the
//! missing ones after decoding them, must match the content digest. Two plaintexts from two
//! subsets would need two keys with one commitment or two ciphertexts with one content digest. So
//! this is encrypt-then-hash with a committing key, and the authentication of the plaintext is
//! that of the manifest: no separate tag is needed. Where no signature is at hand, carry
//! [`Manifest::digest`] over a channel that cannot be altered.
//!
//! *Secrecy*: fewer than `k` shares say nothing about the secret. The manifest publishes digests
//! of key shares and a commitment; these hide 32 uniformly random octets as well as BLAKE3 hides
//! its input. Sizes, parties and the threshold are public.
//!
//! *Renewal*: key shares can be refreshed, and a holder replaced, without the key and under the
//! same commitments: [`Manifest::reissued`], [`Share::with_point`], [`Manifest::rebuild_body`].
//!
//! *Not given*: freshness. A manifest can be replayed until it expires; remember message ids.

//! # Why there is no cipher to choose
//!
//! Suite 1 is AES-256-CTR and BLAKE3 on every machine, and there is no feature that puts another
//! library in their place. What a share carries must be checked before the key is known, by
//! whoever has the manifest, and in `n / k` times as many octets as the message has; the tag of an
//! AEAD does neither, so it would come on top of the digests. Measured beside the `aes` crate's
//! CTR from 64 KiB up, `ring`'s AES-256-GCM takes 0.86 to 0.91 of its time and BLAKE3 0.92 to 0.94:
//! handing the cipher to a backend would save 4% of sealing at most, and the pieces could no longer
//! be coded and hashed while they are in the cache. SHA-256 with SHA instructions takes 4.6 times as
//! long as BLAKE3. The `aes` and `blake3` crates find AES, VAES, AVX2 and AVX-512 by themselves
//! (`benches/others` has the comparison); here, the digests of all shares are computed side by
//! side.

mod collector;
mod digest;
mod error;
mod lanes;
mod manifest;
mod reissue;
mod sealer;
mod share;
mod sign;

pub use collector::{Added, Collector};
pub use error::{ManifestError, OpenError, PartyIdError, SealError, ShareFault, ShareRefused};
pub use manifest::{
    Envelope, Form, MANIFEST_MAX_LEN, Manifest, MessageId, PARTY_ID_MAX, PartyId, Position,
    Recipient,
};
pub use reissue::{RebuildError, ReissueError};
pub use sealer::{REPLICATED_MAX, Sealed, Sealer};
pub use share::{HEAD_LEN, Share, share_digest};
pub use sign::{SIGNATURE_MAX, SignedManifest, Signer, Verifier, VerifyError};
