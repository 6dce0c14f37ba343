//! Discovery of the largest payload the path carries (RFC 8899), by padded HEARTBEATs.
//!
//! The sizes here are those of segments' payloads with their trailer, as the configuration
//! counts them. Probing needs a driver that forbids fragmentation: a probe that the network
//! fragments arrives and proves nothing.
//!
//! Up to 1,472 octets the largest size is tried first, since most paths carry it, then what lies
//! between by halves. Beyond, only the sizes of links that exist are tried, upwards, and none
//! before the session has carried enough to gain from it: jumbo frames and the loopback interface.

use std::time::{Duration, Instant};

/// Probes of one size lost before it counts as too large (RFC 8899 MAX_PROBES).
const MAX_PROBES: u32 = 3;
/// The search ends when it is this close.
const PRECISION: u16 = 16;
/// How long a result stands before larger sizes are tried again (PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// What fits a link of 1,500 octets under IPv4 and UDP, and less by what IPv6 takes more.
pub(crate) const ETHERNET: u16 = 1392;
pub(crate) const ETHERNET_V6: u16 = 1372;
/// The largest size of the usual search.
const USUAL: u16 = 1472;
/// What fits the larger frames of local networks, 8,896 octets at the least, under IPv6 and UDP.
const JUMBO: u16 = 8768;
/// Octets acknowledged before sizes beyond the usual are tried.
const JUMBO_AFTER: u64 = 512 * 1024;
/// Packets above the base size lost, and none acknowledged, before a black hole is suspected.
const BLACK_HOLE_LOSSES: u32 = 12;

/// The search for one path.
#[derive(Clone, Debug)]
pub(crate) struct PathMtu {
    base: u16,
    ceiling: u16,
    /// Where the usual search begins and ends.
    usual: u16,
    /// Largest size confirmed, and largest that may still be possible.
    low: u16,
    high: u16,
    in_flight: Option<u16>,
    /// Losses of probes of this size.
    tried: (u16, u32),
    /// Not before this.
    next_at: Option<Instant>,
    large_lost: u32,
    large_acked_at: Instant,
}

impl PathMtu {
    /// Sends `base` and looks for up to `ceiling`; equal sizes: there is nothing to find. Where
    /// the ceiling is beyond the usual, `ethernet` is the largest usual size.
    pub(crate) fn new(now: Instant, base: u16, ceiling: u16, ethernet: u16) -> Self {
        let usual = if ceiling > USUAL { ethernet } else { ceiling };
        Self {
            base,
            ceiling: ceiling.max(base),
            usual: usual.max(base),
            low: base,
            high: ceiling.max(base),
            in_flight: None,
            tried: (0, 0),
            next_at: None,
            large_lost: 0,
            large_acked_at: now,
        }
    }

    /// The payload to send.
    pub(crate) fn current(&self) -> u16 {
        self.low
    }

    /// The largest size that is looked for.
    pub(crate) fn ceiling(&self) -> u16 {
        self.ceiling
    }

    /// Whether packets larger than the base are sent.
    pub(crate) fn is_raised(&self) -> bool {
        self.low > self.base
    }

    /// Whether a packet with this payload counts in the search for black holes.
    pub(crate) fn is_large(&self, payload: usize) -> bool {
        payload > usize::from(self.base)
    }

    /// The size to probe now, on a path that has carried so many octets.
    pub(crate) fn due(&mut self, now: Instant, carried: u64) -> Option<u16> {
        if self.in_flight.is_some() || self.next_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.next_at.take().is_some() {
            self.high = self.ceiling;
        }
        let size = self.candidate();
        if size.is_none() && self.low < self.ceiling {
            self.next_at = Some(now + RAISE_AFTER);
        }
        size.filter(|size| *size <= self.usual || carried >= JUMBO_AFTER)
    }

    /// The next size of the search.
    fn candidate(&self) -> Option<u16> {
        if self.low < self.usual {
            if self.high >= self.usual {
                return Some(self.usual);
            }
            let wide = self.high >= self.low + PRECISION;
            return wide.then(|| self.low + (self.high - self.low).div_ceil(2));
        }
        let larger = [JUMBO, self.ceiling];
        larger
            .into_iter()
            .find(|size| (self.low + 1..=self.high).contains(size))
    }

    /// The system refuses to send a probe of this size: no interface carries it.
    pub(crate) fn on_probe_refused(&mut self, size: u16) {
        if self.in_flight == Some(size) {
            self.in_flight = None;
            self.high = (size - 1).max(self.low);
        }
    }

    /// The size of the probe that is under way.
    pub(crate) fn in_flight(&self) -> Option<u16> {
        self.in_flight
    }

    pub(crate) fn on_probe_sent(&mut self, size: u16) {
        self.in_flight = Some(size);
        if self.tried.0 != size {
            self.tried = (size, 0);
        }
    }

    /// A probe arrived, declared lost before or not.
    pub(crate) fn on_probe_acked(&mut self, now: Instant, size: u16) {
        if self.in_flight == Some(size) {
            self.in_flight = None;
        }
        self.low = self.low.max(size);
        self.high = self.high.max(self.low);
        self.large_lost = 0;
        self.large_acked_at = now;
    }

    pub(crate) fn on_probe_lost(&mut self, size: u16) {
        if self.in_flight != Some(size) {
            return;
        }
        self.in_flight = None;
        self.tried.1 += 1;
        if self.tried.1 >= MAX_PROBES {
            self.high = size.saturating_sub(1).max(self.low);
        }
    }

    /// A packet larger than the base was acknowledged.
    pub(crate) fn on_large_acked(&mut self, now: Instant) {
        self.large_lost = 0;
        self.large_acked_at = now;
    }

    pub(crate) fn on_large_lost(&mut self) {
        self.large_lost = self.large_lost.saturating_add(1);
    }

    /// Falls back to the base when large packets have stopped arriving; true when it did.
    /// Something small must have been acknowledged since, or none would count as lost.
    pub(crate) fn check_black_hole(&mut self, now: Instant, patience: Duration) -> bool {
        let silent = now.saturating_duration_since(self.large_acked_at) >= patience;
        if !self.is_raised() || self.large_lost < BLACK_HOLE_LOSSES || !silent {
            return false;
        }
        self.high = self.low - 1;
        self.low = self.base;
        self.in_flight = None;
        self.tried = (0, 0);
        self.large_lost = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    /// Searches a path that carries `limit`; the result and the probes it took.
    fn search(mtu: &mut PathMtu, now: Instant, limit: u16) -> (u16, u32) {
        let mut probes = 0;
        while let Some(size) = mtu.due(now, u64::MAX) {
            probes += 1;
            assert!(probes < 100, "the search does not end");
            mtu.on_probe_sent(size);
            assert_eq!(mtu.due(now, u64::MAX), None, "one probe at a time");
            if size <= limit {
                mtu.on_probe_acked(now, size);
            } else {
                mtu.on_probe_lost(size);
            }
        }
        (mtu.current(), probes)
    }

    #[test]
    fn a_path_that_carries_the_ceiling_costs_one_probe() {
        let t = base();
        assert_eq!(
            search(&mut PathMtu::new(t, 1120, 1472, ETHERNET), t, 1500),
            (1472, 1)
        );
    }

    #[test]
    fn a_smaller_path_is_found_to_sixteen_octets_and_never_exceeded() {
        let t = base();
        for limit in 1120..1472 {
            let (found, probes) = search(&mut PathMtu::new(t, 1120, 1472, ETHERNET), t, limit);
            assert!(
                found <= limit && found + PRECISION > limit,
                "{found} of {limit}"
            );
            assert!(probes <= 3 * 7, "{probes} probes");
        }
    }

    #[test]
    fn beyond_the_usual_only_sizes_of_real_links_are_tried_and_only_upwards() {
        let t = base();
        for (limit, found, probes) in [
            (ETHERNET, ETHERNET, 4),
            (JUMBO - 1, ETHERNET, 4),
            (JUMBO, JUMBO, 5),
            (u16::MAX, 16_296, 3),
        ] {
            let mut mtu = PathMtu::new(t, 1152, 16_296, ETHERNET);
            assert_eq!(search(&mut mtu, t, limit), (found, probes), "{limit}");
        }
        let (size, _) = search(&mut PathMtu::new(t, 1152, 16_296, ETHERNET), t, 1300);
        assert!((1285..=1300).contains(&size), "{size}");
    }

    #[test]
    fn jumbo_sizes_wait_until_there_is_something_to_gain() {
        let t = base();
        let mut mtu = PathMtu::new(t, 1152, 16_296, ETHERNET);
        assert_eq!(mtu.due(t, 0), Some(ETHERNET));
        mtu.on_probe_sent(ETHERNET);
        mtu.on_probe_acked(t, ETHERNET);
        assert_eq!(mtu.due(t, JUMBO_AFTER - 1), None);
        assert_eq!(mtu.due(t, JUMBO_AFTER), Some(JUMBO));
    }

    #[test]
    fn a_size_that_the_system_refuses_is_not_tried_again_before_ten_minutes() {
        let t = base();
        let mut mtu = PathMtu::new(t, 1392, 16_296, ETHERNET);
        assert_eq!(mtu.due(t, u64::MAX), Some(JUMBO));
        mtu.on_probe_sent(JUMBO);
        mtu.on_probe_refused(1392);
        assert_eq!(mtu.in_flight(), Some(JUMBO), "another size was meant");
        mtu.on_probe_refused(JUMBO);
        assert_eq!((mtu.due(t, u64::MAX), mtu.current()), (None, 1392));
        assert_eq!(mtu.due(t + RAISE_AFTER, u64::MAX), Some(JUMBO));
    }

    #[test]
    fn equal_sizes_are_never_probed() {
        let t = base();
        assert_eq!(
            search(&mut PathMtu::new(t, 1392, 1392, ETHERNET), t, 0),
            (1392, 0)
        );
    }

    #[test]
    fn the_search_is_repeated_after_ten_minutes() {
        let t = base();
        let mut mtu = PathMtu::new(t, 1120, 1472, ETHERNET);
        let (found, _) = search(&mut mtu, t, 1300);
        assert_eq!(mtu.due(t + RAISE_AFTER / 2, u64::MAX), None);
        let (later, _) = search(&mut mtu, t + RAISE_AFTER, 1472);
        assert!(found <= 1300 && later == 1472, "{found}, then {later}");
    }

    #[test]
    fn lost_large_packets_and_silence_about_them_are_a_black_hole() {
        let t = base();
        let patience = Duration::from_millis(100);
        let mut mtu = PathMtu::new(t, 1120, 1472, ETHERNET);
        search(&mut mtu, t, 1472);
        for _ in 0..BLACK_HOLE_LOSSES {
            assert!(!mtu.check_black_hole(t + patience, patience));
            mtu.on_large_lost();
        }
        assert!(!mtu.check_black_hole(t, patience), "an ACK is still fresh");
        assert!(mtu.check_black_hole(t + patience, patience));
        assert_eq!(mtu.current(), 1120);
        let (found, _) = search(&mut mtu, t + patience, 1250);
        assert!((1234..=1250).contains(&found), "{found}");
    }

    #[test]
    fn an_acknowledged_large_packet_clears_the_suspicion() {
        let t = base();
        let mut mtu = PathMtu::new(t, 1120, 1472, ETHERNET);
        search(&mut mtu, t, 1472);
        for _ in 0..100 {
            mtu.on_large_lost();
            mtu.on_large_lost();
            mtu.on_large_acked(t);
        }
        assert!(!mtu.check_black_hole(t + Duration::from_secs(9), Duration::ZERO));
    }
}
