//! One message at its receiver: what is in, what is under way, and what to ask for.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_wire::NodeId;

use crate::announcement::Announcement;
use crate::hedging::Budget;
use crate::paths::PathEstimate;
use crate::subsets::Subsets;
use crate::timers::after;

/// The longest wait between two asks for one share.
const MAX_ASK_WAIT: Duration = Duration::from_secs(60);
/// How many times as long as usual a share is waited for whose holder is busy with earlier ones.
const MAX_BUSY: u32 = 8;

/// How long shares are waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits<'a> {
    /// By experience with whole messages.
    pub(crate) usual: Duration,
    /// By the estimates of their paths, for a share of so many octets, but at least so long.
    pub(crate) paths: Option<(&'a BTreeMap<NodeId, PathEstimate>, u64, Duration)>,
}

impl Waits<'_> {
    /// After how long a share from `holder` is later than its path would have it, and after how long
    /// it is late in any case.
    fn of(&self, holder: NodeId) -> (Duration, Duration) {
        let estimate = self.paths.and_then(|(paths, octets, floor)| {
            let late = paths.get(&holder)?.late_after(octets);
            Some(late.max(floor))
        });
        match estimate {
            None => (self.usual, self.usual),
            Some(soft) => (soft, self.usual.max(soft.saturating_mul(2))),
        }
    }
}

/// What has come from a holder lately.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// When the last share of it came.
    pub(crate) at: Instant,
    /// Since when the latest announced of the shares that came was expected.
    pub(crate) since: Instant,
}

/// One announced share.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) share: Option<Bytes>,
    /// Announced as active, or unfrozen: its holder is to push it.
    expected: bool,
    /// Since when it is expected.
    since: Instant,
    /// From when on it is late; with an estimate of its path, later than that.
    late_after: Instant,
    /// From when on it is late whatever its path would have.
    overdue_after: Instant,
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
    fn new(now: Instant, active: bool, (wait, overdue): (Duration, Duration)) -> Self {
        Part {
            share: None,
            expected: active,
            since: now,
            late_after: after(now, wait),
            overdue_after: after(now, overdue),
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

    /// It is later than its path would have it, but may well be on its way.
    fn is_hedged(&self, now: Instant) -> bool {
        self.share.is_none()
            && self.expected
            && !self.lost
            && self.late_after <= now
            && self.overdue_after > now
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
    /// It is known from another than the sender only.
    pub(crate) hearsay: bool,
    parts: BTreeMap<NonZeroU8, Part>,
    /// Good shares in the order in which they came.
    arrived: Vec<NonZeroU8>,
    subsets: Subsets,
    attempts: u32,
    pub(crate) verdict: Verdict,
    /// Octets of good shares.
    octets: u64,
    /// Octets of each share, where they are known before one came.
    pub(crate) share_octets: Option<u64>,
}

impl Gathering {
    pub(crate) fn new(now: Instant, announcement: Announcement, waits: Waits<'_>) -> Self {
        let parts = announcement
            .shares
            .iter()
            .map(|share| {
                let part = Part::new(now, share.active, waits.of(share.holder));
                (share.index, part)
            })
            .collect();
        Gathering {
            hearsay: false,
            parts,
            arrived: Vec::new(),
            subsets: Subsets::new(announcement.k),
            attempts: 0,
            verdict: Verdict::Collecting,
            octets: 0,
            share_octets: None,
            announcement,
        }
    }

    /// Waits for the shares that are expected and were not asked for as if they were announced with
    /// these waits.
    pub(crate) fn wait_anew(&mut self, waits: Waits<'_>) {
        for (index, part) in &mut self.parts {
            if part.share.is_some() || !part.expected || part.asks > 0 {
                continue;
            }
            let Some(placed) = self.announcement.find(*index) else {
                continue;
            };
            let (soft, overdue) = waits.of(placed.holder);
            part.late_after = after(part.since, soft);
            part.overdue_after = after(part.since, overdue);
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
    pub(crate) fn update(&mut self, now: Instant, newer: Announcement, waits: Waits<'_>) {
        for share in &newer.shares {
            let fresh = Part::new(now, share.active, waits.of(share.holder));
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

    /// As [`accept`](Self::accept), for a share that was here before a restart: when it came says
    /// nothing about its path.
    pub(crate) fn accept_restored(&mut self, now: Instant, index: NonZeroU8, share: Bytes) -> bool {
        let new = self.accept(now, index, share);
        if let Some(part) = self.parts.get_mut(&index) {
            part.took = None;
        }
        new
    }

    /// The good shares that are in, in the order in which they came.
    pub(crate) fn arrived(&self) -> impl Iterator<Item = NonZeroU8> + '_ {
        self.arrived.iter().copied()
    }

    /// The octets of a good share.
    pub(crate) fn octets_of(&self, index: NonZeroU8) -> Option<Bytes> {
        self.parts.get(&index)?.share.clone()
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

    /// A holder that delivers what it was to deliver before is busy, not late: what was announced
    /// before is sent before, and the time to wait for the next begins with each share that comes.
    /// Once something comes that was announced later, the others are late by themselves.
    pub(crate) fn allow_for(&mut self, waits: Waits<'_>, progress: &BTreeMap<NodeId, Progress>) {
        for (index, part) in &mut self.parts {
            if part.share.is_some() || !part.expected || part.lost || part.asks > 0 {
                continue;
            }
            let Some(placed) = self.announcement.find(*index) else {
                continue;
            };
            let Some(progress) = progress.get(&placed.holder) else {
                continue;
            };
            if progress.at <= part.since || progress.since > part.since {
                continue;
            }
            let (soft, overdue) = waits.of(placed.holder);
            let most = after(part.since, overdue.saturating_mul(MAX_BUSY));
            let allowed = |wait| after(progress.at, wait).min(most);
            part.late_after = part.late_after.max(allowed(soft));
            part.overdue_after = part.overdue_after.max(allowed(overdue));
        }
    }

    /// Since when share `index` is expected.
    pub(crate) fn since(&self, index: NonZeroU8) -> Option<Instant> {
        let part = self.parts.get(&index)?;
        part.expected.then_some(part.since)
    }

    /// Decides what to ask for: as many shares as are missing for the next set and are not under
    /// way. Frozen ones first, in index order; then late ones, those asked least often first, then
    /// those late for longest. Only with `last_resort` those whose holder is gone, too. The time that
    /// a share is given doubles with each ask for it. What is asked for because others are later
    /// than their paths would have them is paid from `budget`; without it they are waited for.
    pub(crate) fn asks(
        &mut self,
        now: Instant,
        waits: Waits<'_>,
        max_asks: u8,
        last_resort: bool,
        mut budget: Option<&mut Budget>,
    ) -> Vec<Ask> {
        if self.verdict != Verdict::Collecting {
            return Vec::new();
        }
        let pending = self.parts.values().filter(|p| p.is_pending(now)).count();
        let lacking = self.subsets.reach().saturating_sub(self.arrived.len());
        let mut missing = lacking.saturating_sub(pending);
        if missing == 0 {
            return Vec::new();
        }
        let hedged = self.parts.values().filter(|p| p.is_hedged(now)).count();
        let mut unpaid = hedged.min(missing);
        let octets = waits.paths.map_or(0, |(_, octets, _)| octets);
        let mut pay = || budget.as_mut().is_none_or(|budget| budget.spend(octets));
        let fresh = self.parts.values().filter(|part| !part.expected).count();
        // There is nothing to hedge with but what is frozen.
        let mut hedges = 0;
        while unpaid > 0 && missing - unpaid + hedges < fresh && pay() {
            unpaid -= 1;
            hedges += 1;
        }
        missing -= unpaid;
        if unpaid > 0 {
            for part in self.parts.values_mut().filter(|part| part.is_hedged(now)) {
                part.late_after = part.overdue_after;
            }
        }
        if missing == 0 {
            return Vec::new();
        }
        let mut candidates: Vec<_> = self
            .parts
            .iter()
            .filter(|(_, part)| {
                part.share.is_none()
                    && !part.is_pending(now)
                    && !part.is_hedged(now)
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
            let (soft, overdue) = waits.of(placed.holder);
            let doubled = |wait: Duration| {
                let wait = wait.saturating_mul(1 << part.asks.min(20));
                after(now, wait.min(MAX_ASK_WAIT))
            };
            (part.late_after, part.overdue_after) = (doubled(soft), doubled(overdue));
            part.asks += 1;
            asks.push(Ask {
                index,
                holder: placed.holder,
                unfreeze,
            });
        }
        asks
    }

    /// The shares that are under way although the message is complete, and who would bring them.
    pub(crate) fn unwanted(&self) -> Vec<(NonZeroU8, NodeId)> {
        let open = self.parts.iter().filter(|(_, part)| {
            part.share.is_none() && part.expected && !part.lost && self.attempts == 0
        });
        open.filter_map(|(index, _)| Some((*index, self.announcement.find(*index)?.holder)))
            .collect()
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
