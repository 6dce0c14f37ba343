//! One message at its receiver: what is in, what is under way, and what to ask for.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::NodeId;

use crate::announcement::Announcement;
use crate::subsets::Subsets;
use crate::timers::after;

/// The longest wait between two asks for one share.
const MAX_ASK_WAIT: Duration = Duration::from_secs(60);

/// One announced share.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) share: Option<Bytes>,
    /// Announced as active, or unfrozen: its holder is to push it.
    expected: bool,
    /// Since when it is expected.
    since: Instant,
    /// From when on it is late.
    late_after: Instant,
    asks: u8,
    /// It was asked for a second time, so its time of arrival says nothing about its path.
    retried: bool,
    /// Its holder is gone or delivered a bad share, and it was not asked for since.
    lost: bool,
    /// From being expected to being here.
    took: Option<Duration>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("octets", &self.share.as_ref().map(Bytes::len))
            .field("expected", &self.expected)
            .field("late_after", &self.late_after)
            .field("asks", &self.asks)
            .field("lost", &self.lost)
            .finish()
    }
}

impl Part {
    fn new(now: Instant, active: bool, wait: Duration) -> Self {
        Part {
            share: None,
            expected: active,
            since: now,
            late_after: after(now, wait),
            asks: 0,
            retried: false,
            lost: false,
            took: None,
        }
    }

    /// It may still come without another ask.
    fn is_pending(&self, now: Instant) -> bool {
        self.share.is_none() && self.expected && !self.lost && self.late_after > now
    }
}

/// Where the caller's verdict on a set of shares stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No set is out: more shares are needed.
    Collecting,
    /// A set is complete; its event was not polled yet.
    Queued,
    /// The caller has the set and has not answered yet.
    Out,
}

/// What to ask a holder for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) index: NonZeroU8,
    pub(crate) holder: NodeId,
    pub(crate) unfreeze: bool,
}

/// A message that is being collected.
#[derive(Debug, Clone)]
pub(crate) struct Gathering {
    /// Sorted.
    pub(crate) announcement: Announcement,
    parts: BTreeMap<NonZeroU8, Part>,
    /// Good shares in the order in which they came.
    arrived: Vec<NonZeroU8>,
    subsets: Subsets,
    attempts: u32,
    pub(crate) verdict: Verdict,
    /// Octets of good shares.
    octets: u64,
}

impl Gathering {
    pub(crate) fn new(now: Instant, announcement: Announcement, wait: Duration) -> Self {
        let parts = announcement
            .shares
            .iter()
            .map(|share| (share.index, Part::new(now, share.active, wait)))
            .collect();
        Gathering {
            parts,
            arrived: Vec::new(),
            subsets: Subsets::new(announcement.k),
            attempts: 0,
            verdict: Verdict::Collecting,
            octets: 0,
            announcement,
        }
    }

    /// Everything the message counts against the octet bounds.
    pub(crate) fn octets(&self) -> u64 {
        self.announcement.cost() + self.octets
    }

    pub(crate) fn has(&self, index: NonZeroU8) -> bool {
        self.parts
            .get(&index)
            .is_some_and(|part| part.share.is_some())
    }

    /// Whether `ask` still makes sense: the share has not come nor moved, and a set is lacking.
    pub(crate) fn wants(&self, ask: Ask) -> bool {
        let placed = self.announcement.find(ask.index);
        self.verdict == Verdict::Collecting
            && !self.has(ask.index)
            && placed.is_some_and(|share| share.holder == ask.holder)
    }

    /// Takes over an announcement that was checked against the present one.
    pub(crate) fn update(&mut self, now: Instant, newer: Announcement, wait: Duration) {
        for share in &newer.shares {
            let fresh = Part::new(now, share.active, wait);
            let old = self.announcement.find(share.index);
            let part = self
                .parts
                .entry(share.index)
                .or_insert_with(|| fresh.clone());
            let moved = old.is_some_and(|old| old.holder != share.holder);
            let activated = share.active && !part.expected;
            if part.share.is_none() && (moved || activated) {
                // The new holder knows nothing of an unfreeze that the old one was asked for.
                *part = Part {
                    asks: part.asks,
                    retried: part.retried || moved && part.expected,
                    ..fresh
                };
            }
        }
        self.announcement = newer;
    }

    /// Keeps a good share; the caller has counted its octets. Returns whether it was new.
    pub(crate) fn accept(&mut self, now: Instant, index: NonZeroU8, share: Bytes) -> bool {
        let Some(part) = self.parts.get_mut(&index) else {
            return false;
        };
        if part.share.is_some() {
            return false;
        }
        self.octets += share.len() as u64;
        part.share = Some(share);
        part.took = (!part.retried).then(|| now.saturating_duration_since(part.since));
        self.arrived.push(index);
        true
    }

    /// Whether the set that is to be tried next is in.
    pub(crate) fn is_ready(&self) -> bool {
        self.arrived.len() >= self.subsets.reach()
    }

    /// The set that is to be tried now, in index order.
    pub(crate) fn set(&self) -> Vec<(NonZeroU8, Bytes)> {
        let mut set: Vec<_> = self
            .subsets
            .positions()
            .filter_map(|position| {
                let index = *self.arrived.get(position)?;
                let share = self.parts.get(&index)?.share.clone()?;
                Some((index, share))
            })
            .collect();
        set.sort_unstable_by_key(|(index, _)| *index);
        set
    }

    /// How long the slowest share of the first set took, among those that say something.
    pub(crate) fn collection_time(&self) -> Option<Duration> {
        if self.attempts > 0 {
            return None;
        }
        self.subsets
            .positions()
            .filter_map(|position| self.parts.get(self.arrived.get(position)?)?.took)
            .max()
    }

    /// The set did not open: goes on to the next one. False when there can be none.
    pub(crate) fn next_set(&mut self, max_attempts: u32) -> bool {
        self.attempts = self.attempts.saturating_add(1);
        self.subsets.advance();
        self.verdict = Verdict::Collecting;
        self.attempts < max_attempts && self.subsets.reach() <= usize::from(self.announcement.n)
    }

    /// The shares that `peer` was to deliver, and has not, are lost. Returns whether that is news.
    pub(crate) fn lose_holder(&mut self, peer: NodeId) -> bool {
        let held: Vec<_> = self.announcement.placed_at(peer).collect();
        let mut news = false;
        for index in held {
            news |= self.lose(index);
        }
        news
    }

    /// Share `index` cannot be relied on. Returns whether that is news.
    pub(crate) fn lose(&mut self, index: NonZeroU8) -> bool {
        let Some(part) = self.parts.get_mut(&index) else {
            return false;
        };
        if part.share.is_some() {
            return false;
        }
        !core::mem::replace(&mut part.lost, true)
    }

    /// Decides what to ask for: as many shares as are missing for the next set and are not under
    /// way. Frozen ones first, in index order; then late ones, those asked least often first, then
    /// those late for longest. Only with `last_resort` those whose holder is gone, too. `wait` is
    /// the time a share is given; it doubles with each ask for the same share.
    pub(crate) fn asks(
        &mut self,
        now: Instant,
        wait: Duration,
        max_asks: u8,
        last_resort: bool,
    ) -> Vec<Ask> {
        if self.verdict != Verdict::Collecting {
            return Vec::new();
        }
        let pending = self.parts.values().filter(|p| p.is_pending(now)).count();
        let missing = self
            .subsets
            .reach()
            .saturating_sub(self.arrived.len() + pending);
        if missing == 0 {
            return Vec::new();
        }
        let mut candidates: Vec<_> = self
            .parts
            .iter()
            .filter(|(_, part)| {
                part.share.is_none()
                    && !part.is_pending(now)
                    && part.asks < max_asks
                    && (last_resort || !part.lost)
            })
            .map(|(index, part)| {
                let fresh = !part.expected && !part.lost;
                let late_since = part.expected.then_some(part.late_after);
                (!fresh, part.asks, part.lost, late_since, *index)
            })
            .collect();
        candidates.sort_unstable();
        candidates.truncate(missing);

        let mut asks = Vec::with_capacity(candidates.len());
        for (.., index) in candidates {
            let (Some(part), Some(placed)) =
                (self.parts.get_mut(&index), self.announcement.find(index))
            else {
                continue;
            };
            let unfreeze = !part.expected;
            if unfreeze {
                part.expected = true;
                part.since = now;
            } else {
                part.retried = true;
            }
            part.lost = false;
            let doubled = wait.saturating_mul(1 << part.asks.min(20));
            part.asks += 1;
            part.late_after = after(now, doubled.min(MAX_ASK_WAIT));
            asks.push(Ask {
                index,
                holder: placed.holder,
                unfreeze,
            });
        }
        asks
    }

    /// When to look again for what to ask.
    pub(crate) fn next_look(&self, now: Instant, wait: Duration, max_asks: u8) -> Option<Instant> {
        if self.verdict != Verdict::Collecting {
            return None;
        }
        let open = || self.parts.values().filter(|part| part.share.is_none());
        let late = open()
            .filter(|part| part.is_pending(now))
            .map(|part| part.late_after)
            .min();
        // Without anything under way, what is left are shares of lost holders.
        late.or_else(|| {
            open()
                .any(|part| part.asks < max_asks)
                .then(|| after(now, wait))
        })
    }
}
