//! A detour for a session whose direct path has gone silent: its datagrams leave twice, directly and
//! through the server, until something comes directly again.
//!
//! A path that dies takes the receiver's confirmations and the sender's announcements with it, and
//! with these the transfer, though its shares have other ways. The session is given up after seconds
//! only, since a path may return; the detour carries it over that time. Either end begins it: the one
//! whose probes are not answered, and the other one as soon as a packet comes by the detour that did
//! not come directly.
//!
//! To the transport nothing has changed: what comes by the detour is handed to it as if it had come
//! from where the peer was, so that neither end forgets what it knows of the direct path. That is safe
//! because packets are sealed; the server sees who talks to whom and how much, as it does of any
//! session that it carries. The copy that still leaves directly is what finds out that the path is back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_rdt::Transmit;
use vmdt_wire::{Header, NodeId, PacketType};

use super::Core;
use super::peer::Path;
use super::rating::arrivals;
use super::relay::is_relayed;

/// Octets a second that one session may send by its detour: enough for the lines of a transfer of some
/// Gbit/s, and little for the server.
const RATE: u64 = 256 * 1024;
/// Octets that may leave at once.
const BURST: u64 = 64 * 1024;
/// How long a session is held like this. After that it is held through the server alone, as one whose
/// peer was never reached directly.
const LONGEST: Duration = Duration::from_secs(5);
/// After so long what was measured says more of the detour than of the path.
const LONG: Duration = Duration::from_millis(500);
/// Whether the path is back is asked once a round trip, but within these bounds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The state of a detour that is in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detour {
    since: Instant,
    /// When to ask next whether the path is back.
    ask_at: Instant,
    /// Octets that may leave, as of `filled`.
    room: u64,
    filled: Instant,
}

impl Detour {
    pub(crate) fn new(now: Instant) -> Detour {
        Detour {
            since: now,
            ask_at: now,
            room: BURST,
            filled: now,
        }
    }

    /// Takes room for so many octets; false if there is none.
    fn take(&mut self, now: Instant, octets: u64) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        let more = u64::try_from(passed * u128::from(RATE) / 1_000_000_000).unwrap_or(u64::MAX);
        if more > 0 {
            self.filled = now;
            self.room = self.room.saturating_add(more).min(BURST);
        }
        let fits = octets <= self.room;
        if fits {
            self.room -= octets;
        }
        fits
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + LONGEST
    }
}

impl Core {
    /// A direct path has gone silent.
    pub(super) fn begin_detour(&mut self, now: Instant, id: NodeId) {
        if !self.may_relay(id) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.path == Path::Up
            && !peer.relayed
            && peer.detour.is_none()
        {
            let received = self.rdt.stats(id).map_or(0, |stats| arrivals(&stats));
            peer.pulse.begin_detour(received);
            // the window is full of what is lost: the answer to the first question says so
            peer.detour = Some(Detour::new(now));
            self.detours.insert(id);
        }
    }

    /// Sends a datagram of a session whose direct path is silent by its detour as well.
    pub(super) fn detour_datagram(&mut self, now: Instant, transmit: &Transmit, octets: &[u8]) {
        if transmit.oversized {
            // a question to the direct path
            return;
        }
        let at = |id: &&NodeId| self.rdt.address(**id) == Some(transmit.to);
        let Some(id) = self.detours.iter().find(at).copied() else {
            return;
        };
        let room = self
            .peers
            .get_mut(&id)
            .and_then(|peer| peer.detour.as_mut())
            .is_some_and(|detour| detour.take(now, octets.len() as u64));
        if room && self.member.relay(now, id, id, 0, octets).is_ok() {
            self.stats.relayed_datagrams += 1;
        }
    }

    /// A datagram came through the server from a peer with a direct session, and may be of it.
    /// Returns it if it is not.
    pub(super) fn on_detoured(
        &mut self,
        now: Instant,
        from: NodeId,
        octets: Bytes,
    ) -> Option<Bytes> {
        let direct = |id| self.rdt.address(id).filter(|address| !is_relayed(*address));
        let handshake =
            Header::parse(&octets).is_ok_and(|parsed| parsed.header.kind == PacketType::Syn);
        let Some(address) = direct(from).filter(|_| !handshake) else {
            return Some(octets);
        };
        let counts = |core: &Core| {
            let stats = core.rdt.stats(from);
            stats.map_or((0, 0), |stats| (stats.packets_received, arrivals(&stats)))
        };
        let before = counts(self);
        self.rdt.handle_datagram(now, address, octets);
        let after = counts(self);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.pulse.by_detour(after.1.saturating_sub(before.1));
        }
        if after.0 > before.0 {
            self.begin_detour(now, from);
        }
        None
    }

    /// When a detour has something to do.
    pub(super) fn detour_timeout(&self) -> Option<Instant> {
        let ask_at = |id| Some(self.peers.get(id)?.detour?.ask_at);
        self.detours.iter().filter_map(ask_at).min()
    }

    /// Ends detours that are not needed any more, and those that have lasted too long; asks on the
    /// others whether the path is back. Whatever is sent asks as well, but all of it may have been
    /// acknowledged by the detour.
    pub(super) fn look_at_detours(&mut self, now: Instant) {
        let mut over = Vec::new();
        let Core {
            peers,
            detours,
            rdt,
            ..
        } = self;
        detours.retain(|id| {
            let Some(peer) = peers.get_mut(id) else {
                return false;
            };
            let Some(detour) = &mut peer.detour else {
                return false;
            };
            let direct = peer.path == Path::Up && !peer.relayed;
            if direct && !peer.pulse.has_come_directly() && !detour.is_over(now) {
                if now >= detour.ask_at {
                    let round = rdt.stats(*id).map_or(LONGEST_PAUSE, |stats| stats.srtt);
                    detour.ask_at = now + round.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                    rdt.probe(*id);
                }
                return true;
            }
            let detour = *detour;
            peer.detour = None;
            if direct && peer.pulse.has_come_directly() && now >= detour.since + LONG {
                // what was measured meanwhile was the way through the server
                rdt.restart_path(now, *id);
            }
            if direct && detour.is_over(now) && peer.pulse.suspect {
                over.push(*id);
            }
            false
        });
        for id in over {
            // goes on through the server alone when it is closed
            self.silent.insert(id);
            self.rdt.close(now, id, 0, "its direct path is silent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // any instant will do
    #[allow(clippy::disallowed_methods)]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_detour_carries_a_bounded_rate() {
        let begin = epoch();
        let mut detour = Detour::new(begin);
        assert!(detour.take(begin, BURST));
        assert!(!detour.take(begin, 1), "nothing is left");
        let later = begin + Duration::from_millis(10);
        assert!(detour.take(later, RATE / 100));
        assert!(!detour.take(later, 100));
        let much_later = begin + Duration::from_secs(3);
        assert!(!detour.take(much_later, BURST + 1), "no more than at first");
        assert!(detour.take(much_later, BURST));
    }

    #[test]
    fn a_detour_ends_after_its_time() {
        let begin = epoch();
        let detour = Detour::new(begin);
        assert!(!detour.is_over(begin + LONGEST - Duration::from_nanos(1)));
        assert!(detour.is_over(begin + LONGEST));
    }
}
