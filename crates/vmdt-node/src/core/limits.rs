//! How fast a node sends, and in which order: the transport's own rate limits and priorities, for
//! all of a node and for one transfer.

use std::time::Instant;

use vmdt_rdt::{Priority, RateLimit, TokenBucket};

/// How one transfer is sent.
///
/// ```
/// use vmdt_node::{Priority, RateLimit, SendOptions};
///
/// let slowly = SendOptions::new().rate_limit(RateLimit::new(64 * 1024, 1_000_000)?);
/// let first = SendOptions::new().priority(Priority::Highest);
/// # assert_ne!(slowly, first);
/// # Ok::<(), vmdt_rdt::ConfigError>(())
/// ```
///
/// A transfer that goes on after a restart of its node does so without them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendOptions {
    pub(crate) priority: Priority,
    pub(crate) limit: Option<RateLimit>,
}

impl SendOptions {
    /// Normal priority, no limit.
    #[must_use]
    pub fn new() -> SendOptions {
        SendOptions::default()
    }

    /// Which part of each path the transfer gets while others of this node want it, too: those of
    /// the three priorities share it 1 : 2 : 3, and those of one are served in order.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> SendOptions {
        self.priority = priority;
        self
    }

    /// The most that is sent of the transfer's content. Segments leave whole: a bucket that is
    /// smaller than one counts as full when it is.
    ///
    /// A transfer is given up when no segment of it arrives for the
    /// [stall timeout](super::CoreConfig::set_stall_timeout): make segments small for low rates.
    #[must_use]
    pub fn rate_limit(mut self, limit: RateLimit) -> SendOptions {
        self.limit = Some(limit);
        self
    }
}

/// What holds back all that a node sends.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// Made when the first share leaves.
    bucket: Option<TokenBucket>,
    /// When something that is held back may leave.
    until: Option<Instant>,
}

impl Limits {
    /// Whether a share of so many octets has to wait; if not, it is taken to leave.
    pub(crate) fn holds(&mut self, now: Instant, limit: Option<RateLimit>, octets: u64) -> bool {
        let Some(limit) = limit else { return false };
        let bucket = self
            .bucket
            .get_or_insert_with(|| TokenBucket::new(now, limit));
        match bucket.delay(now, octets) {
            Some(at) => {
                self.wait(at);
                true
            }
            None => {
                bucket.take(octets);
                false
            }
        }
    }

    /// Whether so many octets would have to wait; nothing is taken to leave.
    pub(crate) fn is_held(&mut self, now: Instant, limit: Option<RateLimit>, octets: u64) -> bool {
        let Some(limit) = limit else { return false };
        let bucket = self
            .bucket
            .get_or_insert_with(|| TokenBucket::new(now, limit));
        let until = bucket.delay(now, octets);
        if let Some(at) = until {
            self.wait(at);
        }
        until.is_some()
    }

    /// Something waits until then.
    pub(crate) fn wait(&mut self, at: Instant) {
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
    }

    /// When to look again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Whether it is time to look at what was held back.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }
}

/// The order of shares of several priorities on one path: self-clocked fair queueing (S. J.
/// Golestani, INFOCOM '94). A share's tag grows with its octets, the slower the higher its
/// priority; the smallest tag goes first.
#[derive(Debug, Default)]
pub(crate) struct Fair {
    /// The tag of the share that began last.
    now: u64,
    /// The last tag of each priority.
    last: [u64; 3],
}

impl Fair {
    /// The tag of a share that begins to wait.
    pub(crate) fn tag(&mut self, priority: Priority, octets: usize) -> u64 {
        let [normal, high, highest] = &mut self.last;
        // inverse to the weights 1, 2 and 3 of the transport
        let (last, cost) = match priority {
            Priority::Normal => (normal, 6),
            Priority::High => (high, 3),
            Priority::Highest => (highest, 2),
        };
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        *last = (*last)
            .max(self.now)
            .saturating_add(octets.saturating_mul(cost));
        *last
    }

    /// The share with this tag begins.
    pub(crate) fn begins(&mut self, tag: u64) {
        self.now = self.now.max(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves the smallest tag so often; how often each priority was served, all of them always
    /// having something to send.
    fn served(times: usize, all: &[Priority]) -> Vec<usize> {
        let mut fair = Fair::default();
        let mut waiting: Vec<u64> = all.iter().map(|p| fair.tag(*p, 1000)).collect();
        let mut served = vec![0; all.len()];
        for _ in 0..times {
            let (first, tag) = waiting
                .iter()
                .copied()
                .enumerate()
                .min_by_key(|(_, tag)| *tag)
                .unwrap();
            fair.begins(tag);
            served[first] += 1;
            waiting[first] = fair.tag(all[first], 1000);
        }
        served
    }

    #[test]
    fn priorities_share_a_path_as_one_two_and_three() {
        let all = [Priority::Normal, Priority::High, Priority::Highest];
        assert_eq!(served(600, &all), [100, 200, 300]);
        assert_eq!(served(600, &all[..2]), [200, 400]);
    }

    #[test]
    fn one_priority_is_served_in_order() {
        let mut fair = Fair::default();
        let tags: Vec<u64> = (1..100).map(|n| fair.tag(Priority::High, n)).collect();
        assert!(tags.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn who_was_idle_has_saved_nothing() {
        let mut fair = Fair::default();
        for _ in 0..100 {
            let tag = fair.tag(Priority::Normal, 1000);
            fair.begins(tag);
        }
        let late = fair.tag(Priority::High, 1000);
        let busy = fair.tag(Priority::Normal, 1000);
        assert!(late < busy, "{late} {busy}");
        assert!(late > fair.now);
    }

    #[test]
    fn what_is_held_back_is_looked_at_when_its_time_has_come() {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let limit = Some(RateLimit::new(2048, 1000).unwrap());
        let mut limits = Limits::default();
        assert!(!limits.holds(now, None, u64::MAX), "no limit");
        assert!(
            !limits.holds(now, limit, 5000),
            "a full bucket lets a large share pass"
        );
        assert!(limits.holds(now, limit, 1));
        let at = limits.poll_timeout().unwrap();
        assert!(!limits.is_due(now) && limits.is_due(at) && !limits.is_due(at));
        assert!(!limits.holds(at, limit, 1));
    }
}
