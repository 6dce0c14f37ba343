//! One message at its holder.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::announcement::Announcement;
use crate::state::{Effect, Input, ShareState, Stage};

/// One share that is placed here.
#[derive(Clone)]
pub(crate) struct Slot {
    stage: Stage,
    share: Option<Bytes>,
    /// Releases and lapsed leases so far: they lengthen the next pause or lease.
    pub(crate) failures: u8,
    /// An offer is queued and not polled yet.
    pub(crate) offered: bool,
}

impl Slot {
    pub(crate) fn new(active: bool) -> Self {
        Slot {
            stage: Stage::new(active),
            share: None,
            failures: 0,
            offered: false,
        }
    }

    pub(crate) fn state(&self) -> ShareState {
        self.stage.state()
    }

    pub(crate) fn share(&self) -> Option<&Bytes> {
        self.share.as_ref()
    }

    pub(crate) fn is_offerable(&self) -> bool {
        self.stage.is_offerable()
    }

    pub(crate) fn step(&mut self, input: Input) -> Effect {
        let (next, effect) = self.stage.step(input);
        self.stage = next;
        effect
    }

    /// Keeps the octets; the caller has counted them.
    pub(crate) fn arrive(&mut self, share: Bytes) -> Effect {
        self.share = Some(share);
        self.step(Input::Arrive)
    }

    pub(crate) fn octets(&self) -> u64 {
        self.share.as_ref().map_or(0, |share| share.len() as u64)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("state", &self.stage.state())
            .field("octets", &self.share.as_ref().map(Bytes::len))
            .field("failures", &self.failures)
            .field("offered", &self.offered)
            .finish()
    }
}

/// A message some of whose shares are, or were, placed here.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Sorted; a share that was unfrozen stands as active.
    pub(crate) announcement: Announcement,
    pub(crate) slots: BTreeMap<NonZeroU8, Slot>,
    /// Every share that was ever placed here or brought here: what the privacy rule counts.
    pub(crate) ever: BTreeSet<NonZeroU8>,
}

impl Entry {
    /// Everything the entry counts against the octet bounds.
    pub(crate) fn octets(&self) -> u64 {
        self.announcement.cost() + self.slots.values().map(Slot::octets).sum::<u64>()
    }
}
