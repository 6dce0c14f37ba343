//! Collecting and opening.

use core::fmt;
use core::num::NonZeroU8;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::SEGMENT_MAX;
use crate::params::Threshold;
use crate::share::KEY_LEN;
use crate::v2::{
    Collector, HEAD_LEN, Manifest, MessageId, OpenError, PartyId, Position, Recipient, ShareRefused,
};

/// What all manifests of a message must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The message.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender: PartyId,
    /// To whom.
    pub recipient: Recipient,
    /// How many shares there are and how many are needed.
    pub threshold: Threshold,
}

/// A segment that was opened.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where its octets belong.
    pub position: Position,
    /// Its octets.
    pub octets: Vec<u8>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("position", &self.position)
            .field("len", &self.octets.len())
            .finish()
    }
}

/// Why a manifest was refused. The combiner is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestRefused {
    /// Message, sender, recipient or threshold are not those expected.
    #[error("the manifest is not of the expected message")]
    Unexpected,
    /// The segment is longer than the combiner was told to accept.
    #[error("segment {number} has {size} octets: at most {max} are accepted")]
    TooLarge {
        /// The segment's number.
        number: u64,
        /// Its length in octets.
        size: u32,
        /// The greatest length accepted, in octets.
        max: u32,
    },
    /// The segment is too far ahead. Give its manifest again when earlier segments are done.
    #[error("segment {number} is beyond the window, which ends before {end}")]
    BeyondWindow {
        /// The segment's number.
        number: u64,
        /// The first number that is too far ahead.
        end: u64,
    },
    /// Number, offset, size and last flag do not fit those of the segments before: the sender
    /// contradicts itself.
    #[error("segment {number} contradicts the segments known before")]
    Contradiction {
        /// The segment's number.
        number: u64,
    },
}

/// Why a share gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The octets are too short to say which segment they belong to.
    #[error("share of {given} octets is cut short: its head alone is {needed}")]
    Truncated {
        /// How many octets there were.
        given: usize,
        /// The length of a head in octets.
        needed: usize,
    },
    /// There is no manifest for this segment yet.
    #[error("no manifest is there for segment {number}")]
    NoManifest {
        /// The segment's number.
        number: u64,
    },
    /// The share is not genuine.
    #[error("segment {number}: {refused}")]
    Refused {
        /// The segment's number.
        number: u64,
        /// What is wrong, and whose index is to blame.
        refused: ShareRefused,
    },
    /// All shares needed are genuine, and yet the segment cannot be opened: the sender, or a
    /// missing bound secret, is to blame. Its shares are kept; nothing that holders send helps.
    #[error("segment {number}: {error}")]
    Open {
        /// The segment's number.
        number: u64,
        /// Why.
        error: OpenError,
    },
}

/// Puts a message together from the shares of its segments.
///
/// # Bounds
///
/// At most `window` segments are worked on, each with at most n shares of its manifest's length,
/// which is at most `max_segment_len`. A segment leaves when it is opened; only numbers are kept of
/// those opened out of order, less than `window` of them.
pub struct Combiner {
    expected: Expected,
    window: u64,
    max_segment_len: u32,
    bound: Option<Zeroizing<[u8; KEY_LEN]>>,
    /// All segments below this are done.
    next: u64,
    done: BTreeSet<u64>,
    open: BTreeMap<u64, Collector>,
    /// The length of all segments but the last, once known.
    segment_len: Option<u64>,
    last: Option<u64>,
    /// The highest number seen so far.
    highest: Option<u64>,
}

impl Combiner {
    /// Expects a message from its first segment on.
    ///
    /// `window` is how many segments may be in work at once, at least 1; `max_segment_len` the
    /// greatest length of a segment in octets, cut to [`SEGMENT_MAX`].
    #[must_use]
    pub fn new(expected: Expected, window: u32, max_segment_len: u32) -> Combiner {
        Combiner::resume(expected, window, max_segment_len, 0)
    }

    /// Expects the segments from number `next` on, for a caller who kept what came before.
    #[must_use]
    pub fn resume(expected: Expected, window: u32, max_segment_len: u32, next: u64) -> Combiner {
        Combiner {
            expected,
            window: u64::from(window.max(1)),
            max_segment_len: max_segment_len.min(SEGMENT_MAX),
            bound: None,
            next,
            done: BTreeSet::new(),
            open: BTreeMap::new(),
            segment_len: None,
            last: None,
            highest: None,
        }
    }

    /// Opens with the secret of [`Sealer::with_bound_secret`](crate::v2::Sealer::with_bound_secret).
    #[must_use]
    pub fn with_bound_secret(mut self, secret: &[u8; KEY_LEN]) -> Combiner {
        self.bound = Some(Zeroizing::new(*secret));
        self
    }

    /// The first segment that is not done: where to resume.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The number of the last segment, once a manifest has said so.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Whether all segments up to the last are done. A message that was cut off never is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| self.next > last)
    }

    /// The segments within the window that are not done, ascending: what to ask for.
    pub fn wanted(&self) -> impl Iterator<Item = u64> {
        let end = self.last.map_or(u64::MAX, |last| last.saturating_add(1));
        let end = end.min(self.next.saturating_add(self.window));
        (self.next..end).filter(|number| !self.done.contains(number))
    }

    /// What has been collected of a segment in work.
    #[must_use]
    pub fn collector(&self, number: u64) -> Option<&Collector> {
        self.open.get(&number)
    }

    /// Takes the manifest of a segment, which the caller has verified. One that is already known,
    /// or whose segment is done, changes nothing.
    ///
    /// # Errors
    ///
    /// [`ManifestRefused`].
    pub fn manifest(&mut self, manifest: Manifest) -> Result<(), ManifestRefused> {
        let Position { number, last, .. } = manifest.position();
        let said = Expected {
            message_id: manifest.message_id(),
            sender: manifest.sender(),
            recipient: manifest.recipient(),
            threshold: manifest.threshold(),
        };
        if said != self.expected {
            return Err(ManifestRefused::Unexpected);
        }
        if manifest.size() > self.max_segment_len {
            return Err(ManifestRefused::TooLarge {
                number,
                size: manifest.size(),
                max: self.max_segment_len,
            });
        }
        let end = self.next.saturating_add(self.window);
        if number >= end {
            return Err(ManifestRefused::BeyondWindow { number, end });
        }
        let contradiction = ManifestRefused::Contradiction { number };
        let segment_len = self.layout(&manifest).ok_or(contradiction)?;
        if number < self.next || self.done.contains(&number) {
            return Ok(());
        }
        if let Some(known) = self.open.get(&number) {
            return if known.manifest() == &manifest {
                Ok(())
            } else {
                Err(contradiction)
            };
        }
        self.segment_len = segment_len;
        self.highest = self.highest.max(Some(number));
        if last {
            self.last = Some(number);
        }
        self.open.insert(number, Collector::new(manifest));
        Ok(())
    }

    /// The length of all segments but the last as it is known with this manifest, if the manifest
    /// fits the others.
    fn layout(&self, manifest: &Manifest) -> Option<Option<u64>> {
        let Position {
            number,
            offset,
            last,
        } = manifest.position();
        let size = u64::from(manifest.size());
        let says = match (number, last) {
            (0, true) => None,
            // The offset tells how long the others are.
            (1.., true) => Some(offset / number),
            (_, false) => Some(size),
        };
        let whole = says.unwrap_or(0);
        let fits = offset == number.checked_mul(whole)?
            && (whole > 0 || says.is_none())
            && (!last || number == 0 || (0 < size && size <= whole))
            && offset.checked_add(size).is_some()
            && (says.is_none() || self.segment_len.is_none() || says == self.segment_len)
            && match self.last {
                Some(known) => number < known || (number == known && last),
                None => !last || self.highest.is_none_or(|highest| highest <= number),
            };
        fits.then_some(says.or(self.segment_len))
    }

    /// Takes a share of a segment whose manifest is there. Returns the segment if that was the
    /// share it lacked; a share of a segment that is done is ignored.
    ///
    /// # Errors
    ///
    /// [`ShareError`].
    pub fn share(&mut self, octets: Bytes) -> Result<Option<Segment>, ShareError> {
        self.take(octets, Collector::add)
    }

    /// As [`Combiner::share`], for a share that must be number `index`, as
    /// [`Collector::add_from`].
    ///
    /// # Errors
    ///
    /// [`ShareError`].
    pub fn share_from(
        &mut self,
        index: NonZeroU8,
        octets: Bytes,
    ) -> Result<Option<Segment>, ShareError> {
        self.take(octets, |collector, octets| {
            collector.add_from(index, octets)
        })
    }

    fn take<A>(
        &mut self,
        octets: Bytes,
        add: impl FnOnce(&mut Collector, Bytes) -> Result<A, ShareRefused>,
    ) -> Result<Option<Segment>, ShareError> {
        let truncated = ShareError::Truncated {
            given: octets.len(),
            needed: HEAD_LEN,
        };
        let number = octets.get(24..32).and_then(|field| field.first_chunk());
        let number = u64::from_be_bytes(*number.ok_or(truncated)?);
        if number < self.next || self.done.contains(&number) {
            return Ok(None);
        }
        let collector = self
            .open
            .get_mut(&number)
            .ok_or(ShareError::NoManifest { number })?;
        add(collector, octets).map_err(|refused| ShareError::Refused { number, refused })?;
        if !collector.is_ready() {
            return Ok(None);
        }
        let opened = match &self.bound {
            Some(secret) => collector.open_bound(secret),
            None => collector.open(),
        };
        let octets = opened.map_err(|error| ShareError::Open { number, error })?;
        let position = collector.manifest().position();
        self.open.remove(&number);
        self.done.insert(number);
        while self.done.remove(&self.next) {
            self.next = self.next.saturating_add(1);
        }
        Ok(Some(Segment { position, octets }))
    }
}

impl fmt::Debug for Combiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Combiner")
            .field("expected", &self.expected)
            .field("next", &self.next)
            .field("last", &self.last)
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}
