#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

//! Hosts, partitions, crashes, and the order of datagrams.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use vmdt_testkit::{Clock, Delivery, HostId, LinkConfig, Network, NetworkStats, SimRng, run_seeds};

const MS: Duration = Duration::from_millis(1);

fn ip(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, host])
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::new(ip(host), 4_000)
}

/// Hosts 0.. with addresses 10.0.0.0.. and 10 ms between them.
struct World {
    clock: Clock,
    network: Network,
    hosts: Vec<HostId>,
}

impl World {
    fn new(hosts: u8) -> Self {
        let clock = Clock::new();
        let mut network = Network::new(clock.now(), &SimRng::from_seed(1));
        network.set_default_link(LinkConfig::new().delay(10 * MS));
        let hosts = (0..hosts).map(|i| network.add_host(ip(i))).collect();
        Self {
            clock,
            network,
            hosts,
        }
    }

    fn send(&mut self, from: u8, to: u8, bytes: &'static [u8]) {
        self.network.send(
            self.clock.now(),
            at(from),
            at(to),
            Bytes::from_static(bytes),
        );
    }

    fn run(&mut self) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while let Some(due) = self.network.next_delivery_at() {
            self.clock.advance_to(due);
            deliveries.extend(std::iter::from_fn(|| {
                self.network.pop_due(self.clock.now())
            }));
        }
        deliveries
    }
}

#[test]
fn delivers_to_the_host_of_the_address_after_the_delay() {
    let mut world = World::new(2);
    world.send(0, 1, b"x");
    let sent_at = world.clock.now();
    assert_eq!(
        world
            .network
            .pop_due(sent_at + 10 * MS - Duration::from_nanos(1)),
        None
    );
    let expected = Delivery {
        at: sent_at + 10 * MS,
        from: at(0),
        to: at(1),
        host: world.hosts[1],
        bytes: "x".into(),
    };
    assert_eq!(world.run(), [expected]);
}

#[test]
fn datagrams_of_one_instant_come_in_the_order_of_sending() {
    let mut world = World::new(4);
    world.send(2, 0, b"a");
    world.send(1, 0, b"b");
    world.send(3, 0, b"c");
    world.send(2, 0, b"d");
    let order: Vec<_> = world.run().into_iter().map(|d| d.bytes).collect();
    assert_eq!(order, ["a", "b", "c", "d"]);
}

#[test]
fn a_link_of_its_own_holds_for_one_direction() {
    let mut world = World::new(2);
    let (a, b) = (world.hosts[0], world.hosts[1]);
    world.network.set_link(a, b, LinkConfig::new().loss(1.0));
    world.send(0, 1, b"lost");
    world.send(1, 0, b"kept");
    assert_eq!(world.run().len(), 1);
    assert_eq!(world.network.link_stats(a, b).lost, 1);
    assert_eq!(world.network.link_stats(b, a).arrived, 1);

    // The default changes links in use, but none that was set.
    world.network.set_default_link(LinkConfig::new().mtu(1));
    world.send(0, 1, b"lost");
    world.send(1, 0, b"big");
    assert_eq!(world.run().len(), 0);
    assert_eq!(world.network.link_stats(a, b).lost, 2);
    assert_eq!(world.network.link_stats(b, a).oversized, 1);
}

#[test]
fn a_host_reaches_itself_at_once_even_when_isolated() {
    let mut world = World::new(2);
    let now = world.clock.now();
    world.network.isolate(now, &[world.hosts[0]]);
    world
        .network
        .partition(now, &world.hosts.clone(), &world.hosts.clone());
    world.send(0, 0, b"self");
    assert_eq!(world.run()[0].at, now);
}

#[test]
fn a_partition_stops_both_directions_between_its_sides_only() {
    let mut world = World::new(4);
    let now = world.clock.now();
    let (left, right) = (world.hosts[..2].to_vec(), world.hosts[2..].to_vec());
    world.network.partition(now, &left, &right);
    for (from, to) in [(0, 2), (3, 1), (0, 1), (3, 2)] {
        world.send(from, to, b"x");
    }
    let reached: Vec<_> = world.run().iter().map(|d| (d.from, d.to)).collect();
    assert_eq!(reached, [(at(0), at(1)), (at(3), at(2))]);
    assert_eq!(world.network.stats().blocked, 2);

    world.network.heal(world.clock.now());
    world.send(0, 2, b"x");
    assert_eq!(world.run().len(), 1);
}

#[test]
fn a_partition_also_takes_what_is_on_its_way() {
    let mut world = World::new(2);
    world.send(0, 1, b"x");
    world.network.isolate(world.clock.now(), &[world.hosts[0]]);
    assert_eq!(world.run(), []);
    // Healed before it arrives, the datagram is not lost.
    world.network.heal(world.clock.now());
    world.send(0, 1, b"y");
    world.network.isolate(world.clock.now(), &[world.hosts[0]]);
    world.network.heal(world.clock.now() + MS);
    assert_eq!(world.run().len(), 1);
}

#[test]
fn a_blocked_way_leaves_the_way_back_open() {
    let mut world = World::new(2);
    let (a, b) = (world.hosts[0], world.hosts[1]);
    world.network.block(world.clock.now(), a, b);
    assert!(world.network.is_blocked(a, b) && !world.network.is_blocked(b, a));
    world.send(0, 1, b"lost");
    world.send(1, 0, b"kept");
    assert_eq!(world.run()[0].bytes, "kept");
    world.network.unblock(world.clock.now(), a, b);
    world.send(0, 1, b"kept");
    assert_eq!(world.run().len(), 1);
}

#[test]
fn a_host_that_is_down_neither_sends_nor_receives() {
    let mut world = World::new(2);
    let now = world.clock.now();
    world.send(1, 0, b"sent before it died");
    world.send(0, 1, b"on its way");
    world.network.kill(now, world.hosts[1]);
    assert!(!world.network.is_up(world.hosts[1]));
    world.send(1, 0, b"from the dead");
    world.send(0, 1, b"to the dead");
    let arrived: Vec<_> = world.run().into_iter().map(|d| d.bytes).collect();
    assert_eq!(arrived, ["sent before it died"]);
    assert_eq!(world.network.stats().host_down, 3);

    world.network.bring_up(world.clock.now(), world.hosts[1]);
    world.send(0, 1, b"x");
    assert_eq!(world.run().len(), 1);
}

#[test]
fn an_address_of_nobody_is_counted_and_may_move() {
    let mut world = World::new(2);
    world.send(0, 9, b"x");
    world.send(9, 0, b"x");
    assert_eq!(world.network.stats().unroutable, 2);

    world
        .network
        .add_address(world.clock.now(), world.hosts[1], ip(9));
    world.send(0, 9, b"x");
    assert_eq!(world.run()[0].host, world.hosts[1]);

    world.send(0, 9, b"x");
    world.network.remove_address(world.clock.now(), ip(9));
    assert_eq!(world.run(), []);
    let stats = NetworkStats {
        sent: 4,
        delivered: 1,
        unroutable: 3,
        ..NetworkStats::default()
    };
    assert_eq!(world.network.stats(), stats);
}

#[test]
#[should_panic(expected = "already belongs to host 0")]
fn two_hosts_cannot_have_one_address() {
    let mut world = World::new(1);
    world.network.add_host(ip(0));
}

/// A run whose links are as bad as they get, with a partition in the middle.
fn unpleasant_trace(seed: u64) -> u64 {
    let mut rng = SimRng::from_seed(seed);
    let mut clock = Clock::new();
    let mut network = Network::new(clock.now(), &rng.fork("network"));
    let hosts: Vec<_> = (0..4).map(|i| network.add_host(ip(i))).collect();
    for &from in &hosts {
        for &to in &hosts {
            network.set_link(from, to, LinkConfig::sample(&mut rng, 0.3));
        }
    }
    for step in 0..400 {
        match step {
            100 => network.isolate(clock.now(), &hosts[..1]),
            200 => network.heal(clock.now()),
            _ => {}
        }
        let (from, to) = (rng.below(4) as u8, rng.below(4) as u8);
        let len = rng.below(1_200) as usize;
        network.send(clock.now(), at(from), at(to), rng.bytes(len).into());
        clock.advance(rng.duration(2 * MS));
        while network.poll(clock.now()).is_some() {}
    }
    network.trace()
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_another() {
    run_seeds(0..20, |seed| {
        assert_eq!(unpleasant_trace(seed), unpleasant_trace(seed));
        assert_ne!(unpleasant_trace(seed), unpleasant_trace(seed ^ 1 << 40));
    });
}

#[test]
fn traffic_of_others_does_not_change_a_links_choices() {
    let survivors = |others: bool| {
        let mut world = World::new(3);
        world.network.set_default_link(LinkConfig::new().loss(0.5));
        for _ in 0..200 {
            if others {
                world.send(2, 1, b"noise");
            }
            world.send(0, 1, b"x");
        }
        let (from, to) = (world.hosts[0], world.hosts[1]);
        world.network.link_stats(from, to).lost
    };
    assert_eq!(survivors(false), survivors(true));
}
