//! The emulator's deterministic core: packets enter at a device, cross links, leave at a device.
//!
//! Nothing here reads a clock or touches a device; [`crate::emulator`] does. Time must not go
//! backwards between calls.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::time::Instant;

use bytes::Bytes;
use vmdt_testkit::{Link, LinkConfig, LinkStats, SimRng};

/// Packets on their way at one time; what exceeds it is dropped and counted.
pub const MAX_IN_FLIGHT: usize = 1 << 17;

/// A device packets enter and leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId(pub usize);

/// One direction of an emulated link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub usize);

/// What the fabric could not carry, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FabricStats {
    /// No route, or not an IPv4 packet (router solicitations, mostly).
    pub unroutable: u64,
    /// Dropped at [`MAX_IN_FLIGHT`].
    pub overflowed: u64,
}

#[derive(Clone, Debug)]
struct Route {
    hops: Vec<LinkId>,
    to: DeviceId,
}

/// A packet that comes out of its hop at `at`. The order of equal times is that of entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight {
    at: Instant,
    order: u64,
    route: usize,
    hop: usize,
    packet: Bytes,
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Devices, links between them, and packets in flight.
#[derive(Clone, Debug, Default)]
pub struct Fabric {
    links: Vec<Link>,
    routes: Vec<Route>,
    table: BTreeMap<(DeviceId, Ipv4Addr), usize>,
    flights: BinaryHeap<Reverse<Flight>>,
    order: u64,
    stats: FabricStats,
}

impl Fabric {
    /// A fabric without links.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one direction of a link. Links whose `rng` has the same seed lose the same packets.
    pub fn add_link(&mut self, config: LinkConfig, rng: &SimRng) -> LinkId {
        self.links.push(Link::new(config, rng));
        LinkId(self.links.len() - 1)
    }

    /// Makes a link anew: idle, its counters 0.
    pub fn reset_link(&mut self, link: LinkId, config: LinkConfig, rng: &SimRng) {
        if let Some(slot) = self.links.get_mut(link.0) {
            *slot = Link::new(config, rng);
        }
    }

    /// Changes a link's settings; what is in flight keeps its times.
    pub fn set_config(&mut self, link: LinkId, config: LinkConfig) {
        if let Some(slot) = self.links.get_mut(link.0) {
            slot.set_config(config);
        }
    }

    /// A link's settings.
    #[must_use]
    pub fn config(&self, link: LinkId) -> Option<&LinkConfig> {
        self.links.get(link.0).map(Link::config)
    }

    /// Packets that enter at `from` for the address `dst` cross `hops` in turn and leave at `to`.
    pub fn add_route(&mut self, from: DeviceId, dst: Ipv4Addr, hops: &[LinkId], to: DeviceId) {
        self.routes.push(Route {
            hops: hops.to_vec(),
            to,
        });
        self.table.insert((from, dst), self.routes.len() - 1);
    }

    /// Forgets what is in flight.
    pub fn clear(&mut self) {
        self.flights.clear();
    }

    /// What a link has done.
    #[must_use]
    pub fn stats(&self, link: LinkId) -> LinkStats {
        self.links.get(link.0).map(Link::stats).unwrap_or_default()
    }

    /// Octets of IP packets handed to all links, each link a packet crosses counted once.
    #[must_use]
    pub fn sent_octets(&self) -> u64 {
        self.links.iter().map(|l| l.stats().sent_octets).sum()
    }

    /// What could not be carried.
    #[must_use]
    pub fn fabric_stats(&self) -> FabricStats {
        self.stats
    }

    /// A packet enters at a device.
    pub fn ingress(&mut self, now: Instant, from: DeviceId, packet: Bytes) {
        let route = destination(&packet).and_then(|dst| self.table.get(&(from, dst)));
        match route.copied() {
            Some(route) => self.hop(now, route, 0, packet),
            None => self.stats.unroutable += 1,
        }
    }

    /// The next packet that has left its last link by `now`.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Option<(DeviceId, Bytes)> {
        while self.next_at().is_some_and(|at| at <= now) {
            let Some(Reverse(flight)) = self.flights.pop() else {
                break;
            };
            let Some(route) = self.routes.get(flight.route) else {
                continue;
            };
            if flight.hop >= route.hops.len() {
                return Some((route.to, flight.packet));
            }
            self.hop(flight.at, flight.route, flight.hop, flight.packet);
        }
        None
    }

    /// When [`poll`](Self::poll) has something to do next.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.flights.peek().map(|Reverse(flight)| flight.at)
    }

    /// Sends a packet over hop `hop` of a route, or straight out behind the last.
    fn hop(&mut self, now: Instant, route: usize, hop: usize, packet: Bytes) {
        let link = self.routes.get(route).and_then(|r| r.hops.get(hop));
        match link.copied().and_then(|id| self.links.get_mut(id.0)) {
            Some(link) => {
                let arrivals: [_; 2] = {
                    let mut arrivals = link.send(now, packet);
                    [arrivals.next(), arrivals.next()]
                };
                for arrival in arrivals.into_iter().flatten() {
                    self.fly(arrival.at, route, hop + 1, arrival.bytes);
                }
            }
            None => self.fly(now, route, hop, packet),
        }
    }

    fn fly(&mut self, at: Instant, route: usize, hop: usize, packet: Bytes) {
        if self.flights.len() >= MAX_IN_FLIGHT {
            self.stats.overflowed += 1;
            return;
        }
        self.order += 1;
        self.flights.push(Reverse(Flight {
            at,
            order: self.order,
            route,
            hop,
            packet,
        }));
    }
}

/// Where an IPv4 packet goes.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let (&first, dst) = (packet.first()?, packet.get(16..20)?);
    let dst: [u8; 4] = dst.try_into().ok()?;
    (first >> 4 == 4).then(|| Ipv4Addr::from(dst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn packet(len: usize) -> Bytes {
        let mut packet = vec![0u8; len];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&DST.octets());
        packet.into()
    }

    fn two_hops(a: LinkConfig, b: LinkConfig) -> (Fabric, LinkId, LinkId) {
        let mut fabric = Fabric::new();
        let rng = SimRng::from_seed(1);
        let a = fabric.add_link(a, &rng.fork("a"));
        let b = fabric.add_link(b, &rng.fork("b"));
        fabric.add_route(DeviceId(0), DST, &[a, b], DeviceId(1));
        (fabric, a, b)
    }

    fn drain(fabric: &mut Fabric) -> Vec<(Instant, DeviceId)> {
        let mut out = Vec::new();
        while let Some(at) = fabric.next_at() {
            while let Some((to, _)) = fabric.poll(at) {
                out.push((at, to));
            }
        }
        out
    }

    #[test]
    fn a_packet_takes_the_delays_of_all_its_hops() {
        let link = LinkConfig::new().delay(ms(10));
        let (mut fabric, ..) = two_hops(link.clone(), link);
        let now = base();
        fabric.ingress(now, DeviceId(0), packet(100));
        assert!(fabric.poll(now + ms(19)).is_none());
        assert_eq!(drain(&mut fabric), [(now + ms(20), DeviceId(1))]);
    }

    #[test]
    fn the_bottleneck_spaces_packets_and_its_queue_drops_the_rest() {
        // 1,000 octets take 1 ms; three fit the queue
        let slow = LinkConfig::new().rate(8_000_000, 3_000);
        let (mut fabric, a, _) = two_hops(slow, LinkConfig::new());
        let now = base();
        for _ in 0..5 {
            fabric.ingress(now, DeviceId(0), packet(1_000));
        }
        let times: Vec<Duration> = drain(&mut fabric).iter().map(|(at, _)| *at - now).collect();
        assert_eq!(times, [ms(1), ms(2), ms(3)]);
        assert_eq!(fabric.stats(a).queue_full, 2);
        assert_eq!(fabric.sent_octets(), 5_000 + 3_000);
    }

    #[test]
    fn losses_follow_the_seed_and_nothing_else() {
        let run = |seed: u64| {
            let mut fabric = Fabric::new();
            let link = fabric.add_link(LinkConfig::new().loss(0.3), &SimRng::from_seed(seed));
            fabric.add_route(DeviceId(0), DST, &[link], DeviceId(1));
            let now = base();
            (0..200u64)
                .map(|i| {
                    fabric.ingress(now + ms(i), DeviceId(0), packet(50));
                    fabric.poll(now + ms(i)).is_some()
                })
                .collect::<Vec<bool>>()
        };
        assert_eq!(run(4), run(4));
        assert_ne!(run(4), run(5));
        assert!(run(4).contains(&false) && run(4).contains(&true));
    }

    #[test]
    fn a_link_that_is_made_anew_loses_as_it_did_at_first() {
        let config = LinkConfig::new().loss(0.5);
        let (mut fabric, a, _) = two_hops(config.clone(), LinkConfig::new());
        let now = base();
        let mut rounds = Vec::new();
        for _ in 0..2 {
            fabric.reset_link(a, config.clone(), &SimRng::from_seed(9));
            let got: Vec<bool> = (0..50)
                .map(|_| {
                    fabric.ingress(now, DeviceId(0), packet(50));
                    fabric.poll(now).is_some()
                })
                .collect();
            rounds.push(got);
        }
        assert_eq!(rounds[0], rounds[1]);
        assert_eq!(fabric.stats(a).sent, 50);
    }

    #[test]
    fn packets_without_a_route_are_counted_and_dropped() {
        let (mut fabric, ..) = two_hops(LinkConfig::new(), LinkConfig::new());
        let now = base();
        fabric.ingress(now, DeviceId(1), packet(50));
        fabric.ingress(now, DeviceId(0), Bytes::from_static(b"\x60short"));
        fabric.ingress(now, DeviceId(0), Bytes::new());
        assert_eq!(fabric.fabric_stats().unroutable, 3);
        assert!(fabric.next_at().is_none());
    }

    #[test]
    fn a_dead_link_delivers_nothing_until_it_returns() {
        let alive = LinkConfig::new().delay(ms(1));
        let (mut fabric, a, _) = two_hops(alive.clone(), LinkConfig::new());
        let now = base();
        fabric.set_config(a, alive.clone().loss(1.0));
        fabric.ingress(now, DeviceId(0), packet(50));
        assert!(drain(&mut fabric).is_empty());
        fabric.set_config(a, alive);
        fabric.ingress(now + ms(5), DeviceId(0), packet(50));
        assert_eq!(drain(&mut fabric).len(), 1);
    }
}
