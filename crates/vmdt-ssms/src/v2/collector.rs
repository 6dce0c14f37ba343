//! Collecting the shares of one segment.

use core::num::NonZeroU8;

use alloc::vec::Vec;

use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use super::digest::{self, ContentKey, Digest};
use super::error::{OpenError, ShareFault, ShareRefused};
use super::manifest::{Form, Manifest};
use super::share::Share;
use crate::dispersal::Code;
use crate::shamir::{Interpolation, Key};
use crate::share::KEY_LEN;

/// What became of a genuine share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Added {
    /// It was new.
    New,
    /// The same share is already there; nothing changed.
    Duplicate,
}

/// Checks shares against a manifest as they arrive, and opens the segment once there are enough.
///
/// Holds at most one share per index, `n` in all, each of the length that the manifest gives.
#[derive(Debug)]
pub struct Collector {
    manifest: Manifest,
    /// In order of arrival, with the hash of each body.
    shares: Vec<(Share, Digest)>,
}

impl Collector {
    /// For the shares of this manifest, which the caller has verified.
    #[must_use]
    pub fn new(manifest: Manifest) -> Collector {
        Collector {
            manifest,
            shares: Vec::new(),
        }
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The shares collected so far, in order of arrival.
    pub fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.iter().map(|(share, _)| share)
    }

    /// How many more shares are needed.
    #[must_use]
    pub fn missing(&self) -> usize {
        usize::from(self.manifest.threshold().k()).saturating_sub(self.shares.len())
    }

    /// Whether there are enough shares.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing() == 0
    }

    /// Checks a share and keeps it if it is genuine. Its body is a slice of `octets`.
    ///
    /// # Errors
    ///
    /// [`ShareRefused`], with the index that the share claims: see [`ShareFault`]. The collector
    /// is as it was before.
    pub fn add(&mut self, octets: Bytes) -> Result<Added, ShareRefused> {
        let share = Share::parse(octets, &self.manifest)?;
        let index = share.index();
        let hash = digest::body(share.body());
        let digest = digest::share(share.head(), &hash);
        let genuine = self
            .manifest
            .share_digest(index)
            .is_some_and(|expected| bool::from(expected.ct_eq(&digest)));
        if !genuine {
            return Err(ShareRefused {
                index: Some(index),
                fault: ShareFault::Digest,
            });
        }
        if self.shares.iter().any(|(share, _)| share.index() == index) {
            return Ok(Added::Duplicate);
        }
        self.shares.push((share, hash));
        Ok(Added::New)
    }

    /// As [`Collector::add`], for a share that must be number `index` because its holder was
    /// asked for that one: whatever is wrong, that holder is blamed.
    ///
    /// # Errors
    ///
    /// As [`Collector::add`], and [`ShareFault::Swapped`] for a share that claims another index.
    pub fn add_from(&mut self, index: NonZeroU8, octets: Bytes) -> Result<Added, ShareRefused> {
        let refused = |fault| ShareRefused {
            index: Some(index),
            fault,
        };
        match octets.get(7) {
            Some(&claimed) if octets.len() >= super::HEAD_LEN && claimed != index.get() => {
                Err(refused(ShareFault::Swapped { claimed }))
            }
            _ => self.add(octets).map_err(|error| refused(error.fault)),
        }
    }

    /// Opens the segment from `k` of the shares collected: data pieces first, so that nothing is
    /// decoded if they are there.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. The shares are genuine, so all but [`OpenError::TooFew`] blame the sender,
    /// or the lack of a bound secret.
    pub fn open(&self) -> Result<Vec<u8>, OpenError> {
        let mut message = Vec::new();
        self.open_to(None, &mut message)?;
        Ok(message)
    }

    /// As [`Collector::open`], with the secret of
    /// [`Sealer::with_bound_secret`](super::Sealer::with_bound_secret).
    ///
    /// # Errors
    ///
    /// As [`Collector::open`].
    pub fn open_bound(&self, secret: &[u8; KEY_LEN]) -> Result<Vec<u8>, OpenError> {
        let mut message = Vec::new();
        self.open_to(Some(secret), &mut message)?;
        Ok(message)
    }

    /// As [`Collector::open`], or with a bound secret [`Collector::open_bound`], but appends the
    /// segment to `out`: segments can be put together in one buffer, or a buffer used again, and
    /// each octet is written once, from the shares' bodies to its place.
    ///
    /// # Errors
    ///
    /// As [`Collector::open`]; `out` is as it was before then.
    pub fn open_to(
        &self,
        bound: Option<&[u8; KEY_LEN]>,
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let threshold = self.manifest.threshold();
        let k = usize::from(threshold.k());
        if self.shares.len() < k {
            return Err(OpenError::TooFew {
                given: self.shares.len(),
                needed: threshold.k(),
            });
        }
        let key = ContentKey::derive(self.secret(k).as_bytes(), bound);
        if !bool::from(key.commitment.ct_eq(&self.manifest.commitment)) {
            return Err(OpenError::KeyCommitment);
        }
        match self.manifest.form() {
            Form::Replicated => self.open_replicated(&key, out),
            Form::Dispersed => self.open_dispersed(&key, out),
        }
    }

    fn secret(&self, k: usize) -> Key {
        let points = self.shares.iter().take(k);
        let points = points.map(|(share, _)| (share.index(), share.key_share()));
        let mut value = Interpolation::through(points).at(0);
        let key = Key::from_lanes(&value);
        value.zeroize();
        key
    }

    fn open_replicated(&self, key: &ContentKey, out: &mut Vec<u8>) -> Result<(), OpenError> {
        // A sender can have given different bodies to different holders: one of them at most is
        // the one committed to.
        let (share, _) = self
            .shares
            .iter()
            .find(|(_, hash)| digest::content(core::iter::once(hash)) == self.manifest.content)
            .ok_or(OpenError::Content)?;
        out.reserve_exact(share.body().len());
        let body = share.body();
        key.cipher().stream(0).append(body, out, body.len());
        Ok(())
    }

    fn open_dispersed(&self, key: &ContentKey, out: &mut Vec<u8>) -> Result<(), OpenError> {
        let code = Code::for_recovery(self.manifest.threshold());
        let pieces: Vec<(NonZeroU8, &[u8])> = self
            .shares
            .iter()
            .map(|(share, _)| (share.index(), &share.body()[..]))
            .collect();
        let len = usize::try_from(self.manifest.size()).unwrap_or(usize::MAX);
        // Counts, lengths and indices are right: every share was held against the manifest.
        let rebuilt = code.rebuild(&pieces, len).map_err(|_| OpenError::Content)?;

        let k = self.manifest.threshold().k();
        let mut hashes: Vec<(u8, Digest)> = self
            .shares
            .iter()
            .map(|(share, hash)| (share.index().get(), *hash))
            .filter(|(index, _)| *index <= k)
            .collect();
        let (indices, computed): (Vec<u8>, Vec<&[u8]>) = rebuilt.computed().unzip();
        hashes.extend(indices.into_iter().zip(digest::bodies(&computed)));
        hashes.sort_unstable_by_key(|(index, _)| *index);
        if digest::content(hashes.iter().map(|(_, hash)| hash)) != self.manifest.content {
            return Err(OpenError::Content);
        }
        rebuilt.decrypt_to(&key.cipher(), out);
        Ok(())
    }
}
