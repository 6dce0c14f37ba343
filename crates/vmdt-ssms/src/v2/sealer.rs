//! Making a manifest and its shares.

use core::fmt;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::digest::{self, ContentKey, Digest};
use super::error::SealError;
use super::lanes::{Bodies, STRIP};
use super::manifest::{Envelope, Form, Manifest, Position};
use super::share::Share;
use crate::dispersal::Code;
use crate::params::Threshold;
use crate::shamir::{Octets, Polynomials};
use crate::share::KEY_LEN;

/// Up to this many octets, a message is replicated unless the caller says otherwise.
///
/// At 3 of 5, dispersal of 256 octets saves 170 octets of a share's 324; below, less than a head
/// is saved, and every share alone has the whole ciphertext.
pub const REPLICATED_MAX: usize = 256;

/// A sealed segment: its manifest, still to be signed, and its shares.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What a receiver needs first.
    pub manifest: Manifest,
    /// The shares `1..=n`.
    pub shares: Vec<Share>,
}

/// Seals messages that have threshold, parties and message id in common.
///
/// Holds the coding matrices of its threshold, so keep it for all segments of a message.
pub struct Sealer {
    code: Code,
    envelope: Envelope,
    /// Boxed, so that a sealer that is moved leaves no copy behind.
    bound: Option<Box<Zeroizing<[u8; KEY_LEN]>>>,
    form: Option<Form>,
}

impl Sealer {
    /// For one message.
    #[must_use]
    pub fn new(threshold: Threshold, envelope: Envelope) -> Sealer {
        Sealer {
            code: Code::new(threshold),
            envelope,
            bound: None,
            form: None,
        }
    }

    /// Makes the content key depend also on a secret that sender and recipient share, so that `k`
    /// holders together still read nothing. The recipient opens with
    /// [`Collector::open_bound`](super::Collector::open_bound).
    #[must_use]
    pub fn with_bound_secret(mut self, secret: &[u8; KEY_LEN]) -> Sealer {
        let mut bound: Box<Zeroizing<[u8; KEY_LEN]>> = Box::default();
        bound.copy_from_slice(secret);
        self.bound = Some(bound);
        self
    }

    /// Fixes the form, which is otherwise chosen by size: see [`REPLICATED_MAX`].
    #[must_use]
    pub fn with_form(mut self, form: Form) -> Sealer {
        self.form = Some(form);
        self
    }

    /// The same sealer for another message.
    #[must_use]
    pub fn with_envelope(mut self, envelope: Envelope) -> Sealer {
        self.envelope = envelope;
        self
    }

    /// How many shares are made, and how many are needed.
    #[must_use]
    pub fn threshold(&self) -> Threshold {
        self.code.threshold()
    }

    /// Parties and message id.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Seals a message that is one segment. `32 * k` octets are drawn from `rng`.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLong`] above `2^32 - 1` octets, before any work.
    pub fn seal(
        &self,
        message: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Sealed, SealError> {
        self.seal_segment(Position::WHOLE, message, rng)
    }

    /// Seals one segment of a message. Its number, offset and whether it is the last are
    /// authenticated; that they are those of the stream is the caller's care, or that of
    /// [`Splitter`](crate::stream::Splitter).
    ///
    /// # Errors
    ///
    /// As [`Sealer::seal`].
    pub fn seal_segment(
        &self,
        position: Position,
        segment: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Sealed, SealError> {
        let size = u32::try_from(segment.len()).map_err(|_| SealError::TooLong {
            len: segment.len(),
            max: u32::MAX,
        })?;
        let form = self.form.unwrap_or(if segment.len() <= REPLICATED_MAX {
            Form::Replicated
        } else {
            Form::Dispersed
        });
        let threshold = self.code.threshold();
        let (k, n) = (usize::from(threshold.k()), usize::from(threshold.n()));

        let mut secret = Zeroizing::new(Octets::<KEY_LEN>::default());
        rng.fill_bytes(&mut secret.0);
        let polynomials = Polynomials::random(&secret.0, threshold, rng);
        let bound = self.bound.as_deref().map(|bound| &**bound);
        let key = ContentKey::derive(&secret.0, bound);

        let (bodies, hashes): (Vec<Bytes>, Vec<Digest>) = match form {
            Form::Replicated => {
                let mut body = segment.to_vec();
                key.cipher().stream(0).apply(&mut body);
                let hash = digest::body(&body);
                (vec![Bytes::from(body); n], vec![hash; n])
            }
            Form::Dispersed => {
                let len = self.code.piece_len(segment.len());
                let mut bodies = Bodies::new(n, len);
                let mut hashed = 0;
                let pieces = self
                    .code
                    .seal_and(key.as_bytes(), segment, |pieces, strip| {
                        while hashed + STRIP < len && hashed + STRIP <= strip.end {
                            let range = hashed..hashed + STRIP;
                            let parts = pieces.iter().filter_map(|piece| piece.get(range.clone()));
                            bodies.strip(parts);
                            hashed += STRIP;
                        }
                    });
                let rest = pieces.iter().filter_map(|piece| piece.get(hashed..));
                let rest: Vec<&[u8]> = rest.collect();
                let hashes = bodies.finish(&rest);
                (pieces, hashes)
            }
        };
        let content = match form {
            Form::Replicated => digest::content(hashes.iter().take(1)),
            Form::Dispersed => digest::content(hashes.iter().take(k)),
        };
        let mut manifest = Manifest {
            envelope: self.envelope,
            position,
            threshold,
            form,
            size,
            commitment: key.commitment,
            content,
            shares: Vec::new(),
        };
        // The capacity is exact so that no share is moved, which would leave a copy behind.
        let mut shares = Vec::with_capacity(n);
        let mut bodies = bodies.into_iter();
        polynomials.each(threshold.n(), |index, value| {
            let body = bodies.next().unwrap_or_default();
            shares.push(Share::blank(&manifest, index, body));
            if let Some(share) = shares.last_mut() {
                share.set_key_share(value);
            }
        });
        manifest.shares = digest::shares(shares.iter().map(Share::head).zip(&hashes));
        Ok(Sealed { manifest, shares })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("threshold", &self.threshold())
            .field("envelope", &self.envelope)
            .finish_non_exhaustive()
    }
}
