//! Deadlines by key: the earliest is found, moved and removed in logarithmic time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The longest duration a configuration may ask for, so that adding it to a time cannot overflow.
const FOREVER: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// `now + wait`, with `wait` kept between a millisecond (a zero would make the caller spin) and ten
/// years.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    let wait = wait.clamp(Duration::from_millis(1), FOREVER);
    now.checked_add(wait).unwrap_or(now)
}

/// At most one deadline per key.
#[derive(Debug, Clone)]
pub(crate) struct Timers<K> {
    due: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Timers {
            due: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Sets the deadline of `key`, in place of an earlier one.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        if let Some(old) = self.by_key.insert(key, at) {
            self.due.remove(&(old, key));
        }
        self.due.insert((at, key));
    }

    pub(crate) fn cancel(&mut self, key: K) {
        if let Some(old) = self.by_key.remove(&key) {
            self.due.remove(&(old, key));
        }
    }

    /// The deadline of `key`.
    pub(crate) fn at(&self, key: K) -> Option<Instant> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Removes and returns the earliest key whose deadline is not after `now`; keys of one instant
    /// come in key order.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn pops_in_time_order_and_only_what_is_due() {
        let start = base();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::new();
        timers.set('b', at(2));
        timers.set('a', at(2));
        timers.set('c', at(1));
        timers.set('d', at(9));
        timers.set('d', at(3));
        timers.set('e', at(1));
        timers.cancel('e');
        assert_eq!(timers.next(), Some(at(1)));
        let mut popped = Vec::new();
        while let Some(key) = timers.pop_due(at(2)) {
            popped.push(key);
        }
        assert_eq!(popped, ['c', 'a', 'b']);
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.pop_due(at(3)), Some('d'));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn extreme_waits_neither_overflow_nor_stand_still() {
        let now = base();
        assert!(after(now, Duration::MAX) > now);
        assert!(after(now, Duration::ZERO) > now);
    }
}
