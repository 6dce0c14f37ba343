//! New shares of a sealed segment: after a refresh of its key shares, and for a replaced holder.
//!
//! Key shares can be renewed without the key ([`shamir`](crate::shamir)); here is what that takes in
//! version 2, where a manifest says what every share must be. Body, content digest and key
//! commitment stay as they are, so a manifest issued anew opens to the same plaintext or to none.
//!
//! **Refresh.** Holders deal zero sharings ([`shamir::zero_sharing`](crate::shamir::zero_sharing)).
//! Each adds what it received to its point ([`Share::point`],
//! [`shamir::refreshed`](crate::shamir::refreshed)), puts the new point into its share
//! ([`Share::with_point`]) and publishes the share's digest ([`Share::digest`]). Whoever signs puts
//! these digests into a new manifest ([`Manifest::reissued`]). Shares from before are refused under
//! it, and would not combine with the new ones.
//!
//! **A replaced holder.** `k` holders make its point
//! ([`shamir::contribution`](crate::shamir::contribution)) and hand over bodies, which are
//! ciphertext. The new holder computes its own body from `k` of them ([`Manifest::rebuild_body`],
//! which checks them), puts its share together ([`Share::from_point`]) and publishes the digest. A
//! share made again without a refresh is the one that was lost, octet for octet, and the manifest
//! holds as it is; so the share of a holder that is no longer trusted calls for a refresh first.
//!
//! Where no new holder may see k bodies either, each helper makes its summand of point and body
//! alike ([`Share::summand`]), masks it so that only the sum of all can be read, and the new holder
//! makes its share of that sum ([`Share::from_sum`]).
//!
//! Nobody who does this sees the key. What it rests on: a digest is taken from its holder on trust,
//! and a holder who publishes that of a wrong point spoils every opening that uses its share: it
//! fails with [`OpenError::KeyCommitment`](super::OpenError::KeyCommitment). Old and new manifest
//! are both signed; which is in force is for the parties to keep, as with message ids.

use core::num::NonZeroU8;

use alloc::vec::Vec;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::digest::{self, Digest};
use super::error::{ShareFault, ShareRefused};
use super::manifest::{Form, Manifest};
use super::share::Share;
use crate::dispersal::{Code, CodeError};
use crate::shamir::{self, CombineError, KeyShare};
use crate::share::KEY_LEN;

/// Why a manifest was not issued anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReissueError {
    /// Fewer digests than shares are needed to open.
    #[error("{given} share digests given, {needed} needed")]
    TooFew {
        /// How many there were.
        given: usize,
        /// The threshold.
        needed: u8,
    },
    /// Two digests for one share.
    #[error("share {index} was given twice")]
    Duplicate {
        /// The share's index.
        index: NonZeroU8,
    },
    /// The index is above `n`.
    #[error("there is no share {index}: the manifest has {n}")]
    NoSuchShare {
        /// The index.
        index: NonZeroU8,
        /// How many shares the manifest has.
        n: u8,
    },
}

/// Why a body was not rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The bodies are too few, twice there, of a wrong length or of indices that do not exist.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The bodies are not those of the manifest: one at least was altered.
    #[error("the bodies are not those of the manifest")]
    Content,
    /// The share is not one of those that are to be combined.
    #[error(transparent)]
    Points(#[from] CombineError),
}

impl Manifest {
    /// The same manifest for other shares: those whose digests are given, by index. A share that is
    /// not among them is refused from then on.
    ///
    /// It is to be signed anew. The expiry stays; so does everything else that
    /// [`Manifest::is_reissue_of`] compares.
    ///
    /// # Errors
    ///
    /// [`ReissueError`].
    pub fn reissued(&self, digests: &[(NonZeroU8, [u8; 32])]) -> Result<Manifest, ReissueError> {
        let (k, n) = (self.threshold.k(), self.threshold.n());
        let mut given: Vec<Option<Digest>> = alloc::vec![None; usize::from(n)];
        for &(index, digest) in digests {
            match given.get_mut(usize::from(index.get()) - 1) {
                Some(slot @ None) => *slot = Some(digest),
                Some(Some(_)) => return Err(ReissueError::Duplicate { index }),
                None => return Err(ReissueError::NoSuchShare { index, n }),
            }
        }
        if digests.len() < usize::from(k) {
            return Err(ReissueError::TooFew {
                given: digests.len(),
                needed: k,
            });
        }
        // No octets are known that hash to zeros.
        let shares = given.into_iter().map(Option::unwrap_or_default);
        Ok(Manifest {
            shares: shares.collect(),
            ..self.clone()
        })
    }

    /// Whether both are manifests of the same sealed segment, and differ in the digests of their
    /// shares and in the expiry at most: then they open to the same plaintext.
    #[must_use]
    pub fn is_reissue_of(&self, other: &Manifest) -> bool {
        let envelope = other.envelope.expires(self.envelope.expires);
        self.envelope == envelope
            && self.position == other.position
            && self.threshold == other.threshold
            && self.form == other.form
            && self.size == other.size
            && self.commitment == other.commitment
            && self.content == other.content
    }

    /// Computes the body of share `index` from those of others: any `k` if the form is dispersed,
    /// one if it is replicated. No key share is needed, and nothing is decrypted.
    ///
    /// # Errors
    ///
    /// [`RebuildError`]. [`RebuildError::Content`] if the bodies do not match the content digest;
    /// it does not tell which one was altered.
    pub fn rebuild_body(
        &self,
        bodies: &[(NonZeroU8, Bytes)],
        index: NonZeroU8,
    ) -> Result<Bytes, RebuildError> {
        let n = self.threshold.n();
        if index.get() > n {
            return Err(CodeError::NoSuchPiece { index, n }.into());
        }
        if self.form == Form::Replicated {
            let (_, body) = bodies.first().ok_or(CodeError::Count {
                given: 0,
                needed: 1,
            })?;
            let hash = digest::body(body);
            if digest::content(core::iter::once(&hash)) != self.content {
                return Err(RebuildError::Content);
            }
            return Ok(body.clone());
        }
        let len = usize::try_from(self.size).unwrap_or(usize::MAX);
        let pieces: Vec<(NonZeroU8, &[u8])> = bodies
            .iter()
            .map(|(index, body)| (*index, &body[..]))
            .collect();
        let code = Code::new(self.threshold);
        let data = code.rebuild(&pieces, len)?;
        let data: Vec<&[u8]> = data.pieces().collect();
        let hashes = digest::bodies(&data);
        if digest::content(hashes.iter()) != self.content {
            return Err(RebuildError::Content);
        }
        Ok(code.piece(&data, index).into())
    }
}

impl Share {
    /// The share's point of the key: what a refresh and the making of another share work on.
    #[must_use]
    pub fn point(&self) -> KeyShare {
        KeyShare::of(self.index(), &self.key_share())
    }

    /// The same share with another point in it.
    ///
    /// # Errors
    ///
    /// [`CombineError::OtherIndex`] for the point of another share.
    pub fn with_point(&self, point: &KeyShare) -> Result<Share, CombineError> {
        if point.index() != self.index() {
            return Err(CombineError::OtherIndex {
                index: point.index(),
                expected: self.index(),
            });
        }
        let mut share = self.clone();
        share.set_key_share(&point.lanes());
        Ok(share)
    }

    /// A share put together from a point and a body. Nothing but index and length is checked: what
    /// it is worth turns out when [`Share::digest`] is compared with a manifest.
    ///
    /// # Errors
    ///
    /// [`ShareFault::Index`] and [`ShareFault::BodyLength`] in a [`ShareRefused`].
    pub fn from_point(
        manifest: &Manifest,
        point: &KeyShare,
        body: Bytes,
    ) -> Result<Share, ShareRefused> {
        let index = point.index();
        let n = manifest.threshold.n();
        let fault = if index.get() > n {
            ShareFault::Index {
                found: index.get(),
                n,
            }
        } else if body.len() != manifest.body_len() {
            ShareFault::BodyLength {
                given: body.len(),
                needed: manifest.body_len(),
            }
        } else {
            let mut share = Share::blank(manifest, index, body);
            share.set_key_share(&point.lanes());
            return Ok(share);
        };
        Err(ShareRefused {
            index: Some(index),
            fault,
        })
    }

    /// What this share adds to share `new` when those of `helpers`, exactly k, are combined: the
    /// sum of all helpers' summands, octet by octet in GF(2^8) and so by exclusive or, is what
    /// [`Share::from_sum`] takes. A summand gives its share away and has to be masked.
    ///
    /// # Errors
    ///
    /// [`RebuildError`]: not k different helpers, or this share is none of them or `new` itself.
    pub fn summand(
        &self,
        manifest: &Manifest,
        helpers: &[NonZeroU8],
        new: NonZeroU8,
    ) -> Result<Zeroizing<Vec<u8>>, RebuildError> {
        let code = Code::new(manifest.threshold);
        let recovery = code.recovery(helpers, &[new])?;
        let point = shamir::summand(&self.point(), helpers, new)?;
        let len = self.body().len();
        let mut out = Zeroizing::new(alloc::vec![0; KEY_LEN + len]);
        let (key, body) = out.split_at_mut(KEY_LEN);
        key.copy_from_slice(point.value());
        match manifest.form {
            // all have the same: one adds it
            Form::Replicated if helpers.iter().min() == Some(&self.index()) => {
                body.copy_from_slice(self.body());
            }
            Form::Replicated => {}
            Form::Dispersed => {
                let none = alloc::vec![0; len];
                let present: Vec<&[u8]> = helpers
                    .iter()
                    .map(|helper| match *helper == self.index() {
                        true => &self.body()[..],
                        false => &none[..],
                    })
                    .collect();
                recovery.apply(&present, &mut [body])?;
            }
        }
        Ok(out)
    }

    /// The share that summands add up to. As with [`Share::from_point`], what it is worth turns out
    /// when its digest is compared with the manifest's.
    ///
    /// # Errors
    ///
    /// [`ShareFault::Index`] and [`ShareFault::BodyLength`] in a [`ShareRefused`].
    pub fn from_sum(
        manifest: &Manifest,
        index: NonZeroU8,
        sum: &[u8],
    ) -> Result<Share, ShareRefused> {
        let Some((point, body)) = sum.split_first_chunk::<KEY_LEN>() else {
            let fault = ShareFault::Truncated {
                given: sum.len(),
                needed: KEY_LEN,
            };
            return Err(ShareRefused {
                index: Some(index),
                fault,
            });
        };
        let point = KeyShare::new(index, point);
        Share::from_point(manifest, &point, Bytes::copy_from_slice(body))
    }

    /// Octets of a summand, and of a sum of them.
    #[must_use]
    pub fn sum_len(manifest: &Manifest) -> usize {
        KEY_LEN + manifest.body_len()
    }

    /// The share's digest, as a manifest lists it. It hides the key share as well as BLAKE3 hides
    /// 32 random octets.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest::share(self.head(), &digest::body(self.body()))
    }
}
