//! Messages of any length, as segments that are recovered one by one.
//!
//! A [`Splitter`] cuts octets into segments of one length and seals each as [`v2`](crate::v2) does,
//! under a secret of its own; a [`Combiner`] opens them, in whatever order their shares arrive.
//! Segment number, offset and whether a segment is the last are part of its manifest, so segments
//! that are missing, repeated, moved or cut off at the end are noticed. Neither side holds more
//! than its window: one segment at the splitter, a chosen number of them at the combiner. Offsets
//! have 64 bits.
//!
//! ```
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! use vmdt_ssms::Threshold;
//! use vmdt_ssms::stream::{Combiner, Expected, Splitter};
//! use vmdt_ssms::v2::{Envelope, PartyId, Recipient, Sealer};
//!
//! let mut rng = ChaCha20Rng::from_seed([7; 32]);
//! let (alice, bob) = (PartyId::new(b"alice")?, Recipient::One(PartyId::new(b"bob")?));
//! let threshold = Threshold::new(2, 3)?;
//! let sealer = Sealer::new(threshold, Envelope::new([1; 16], alice, bob));
//! let message = [0x5a; 2_500];
//!
//! let mut splitter = Splitter::new(sealer, 1_000)?;
//! let mut segments = Vec::new();
//! let mut rest = &message[..];
//! while !rest.is_empty() {
//!     let (taken, segment) = splitter.push(rest, &mut rng)?;
//!     rest = &rest[taken..];
//!     segments.extend(segment);
//! }
//! segments.push(splitter.finish(&mut rng)?);
//! assert_eq!(segments.len(), 3);
//!
//! let expected = Expected { message_id: [1; 16], sender: alice, recipient: bob, threshold };
//! let mut combiner = Combiner::new(expected, 4, 1 << 20);
//! let mut out = vec![0; 2_500];
//! for segment in segments.iter().rev() {
//!     // In real life: after its signature was verified.
//!     combiner.manifest(segment.manifest.clone())?;
//!     for share in &segment.shares[1..] {
//!         if let Some(done) = combiner.share(share.to_bytes())? {
//!             out[done.position.offset as usize..][..done.octets.len()]
//!                 .copy_from_slice(&done.octets);
//!         }
//!     }
//! }
//! assert!(combiner.is_complete());
//! assert_eq!(out, message);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod combiner;
mod splitter;

pub use combiner::{Combiner, Expected, ManifestRefused, Segment, ShareError};
pub use splitter::{Splitter, SplitterError};

/// The longest segment, in octets: 1 GiB.
pub const SEGMENT_MAX: u32 = 1 << 30;
