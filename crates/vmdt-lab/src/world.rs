//! The emulated network that every peer is measured on.
//!
//! ```text
//!   sender A ==== path 0, 1, .. m-1: one subnet 10.0.i.0/24 each ==== receiver B
//!       \                                                              /
//!        +---- 10.9.0.0/24: direct over path 0's links ---------------+
//!        +---- relay R1, R3, ..  over path 1, in two hops -------------+
//!        +---- relay R2, R4, ..  over path 2, in two hops -------------+
//!   control server C: reached from all, without loss, in half the round trip
//! ```
//!
//! A relay's path has the delay and the loss of a direct one, half of it on each hop, and the
//! path's rate on each hop; relays of one path share its links. So whoever uses m paths has m
//! times one path's rate, whether it reaches the receiver itself or by relays.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tun_rs::SyncDevice;
use vmdt_testkit::{BurstLoss, LinkConfig, SimRng};

use crate::emulator::{Emulator, open_device};
use crate::fabric::{DeviceId, Fabric, LinkId};
use crate::host::Host;

/// The most paths between sender and receiver.
pub const MAX_PATHS: usize = 8;
/// The most relays.
pub const MAX_RELAYS: usize = 32;

/// One path, in both directions alike.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSpec {
    /// Bits of IP packets per second; `None` for no limit.
    pub rate: Option<u64>,
    /// Octets of IP packets the bottleneck's queue holds; `None` for the default: what the path
    /// carries in a round trip, at least 64 KiB.
    pub queue: Option<u64>,
    /// Round trip without queueing and transmission.
    pub rtt: Duration,
    /// Packets lost in each direction, as a fraction, independently.
    pub loss: f64,
    /// Packets lost in each direction in bursts, as a fraction, and the bursts' mean length in
    /// packets (Gilbert-Elliott; all is lost in a burst).
    pub burst: Option<(f64, f64)>,
    /// Extra delay of a packet, uniform up to this.
    pub jitter: Duration,
    /// Packets held back, as a fraction, and for how long at most.
    pub reorder: (f64, Duration),
    /// Packets that come twice, as a fraction.
    pub duplicate: f64,
    /// Packets with flipped bits, as a fraction. Hosts drop most of them for their checksums.
    pub corrupt: f64,
}

/// A link that carries what the interfaces at its ends do: whole IP packets.
fn any_size() -> LinkConfig {
    LinkConfig::new().mtu(usize::from(u16::MAX))
}

impl PathSpec {
    /// A path with a rate in Mbit/s, a round trip in ms, and independent loss.
    #[must_use]
    pub fn new(mbit: f64, rtt_ms: u64, loss: f64) -> Self {
        PathSpec {
            rate: Some((mbit * 1e6) as u64),
            queue: None,
            rtt: Duration::from_millis(rtt_ms),
            loss,
            burst: None,
            jitter: Duration::ZERO,
            reorder: (0.0, Duration::ZERO),
            duplicate: 0.0,
            corrupt: 0.0,
        }
    }

    /// Octets of the bottleneck's queue.
    #[must_use]
    pub fn queue_octets(&self) -> u64 {
        let rate = self.rate.unwrap_or(0) as f64;
        let in_a_round_trip = rate / 8.0 * self.rtt.as_secs_f64();
        self.queue
            .unwrap_or((in_a_round_trip as u64).max(64 * 1024))
    }

    /// The whole path in one direction.
    #[must_use]
    pub fn link(&self) -> LinkConfig {
        self.part(self.rtt / 2, self.loss, true)
    }

    /// One of the two hops of a relay's path; bursts, reordering and the like are on the first.
    #[must_use]
    pub fn hop(&self, first: bool) -> LinkConfig {
        self.part(self.rtt / 4, 1.0 - (1.0 - self.loss).sqrt(), first)
    }

    fn part(&self, delay: Duration, loss: f64, extras: bool) -> LinkConfig {
        let mut link = any_size().delay(delay).loss(loss);
        if let Some(rate) = self.rate {
            link = link.rate(rate.max(1), self.queue_octets().max(1));
        }
        if extras {
            link = link
                .jitter(self.jitter)
                .duplicate(self.duplicate)
                .corrupt(self.corrupt)
                .reorder(self.reorder.0, self.reorder.1);
            if let Some((mean, length)) = self.burst {
                let leave = (1.0 / length).clamp(0.001, 1.0);
                let enter = (leave * mean / (1.0 - mean).max(0.01)).min(1.0);
                link = link.burst_loss(BurstLoss::new(enter, leave));
            }
        }
        link
    }
}

/// The links of one path, by direction and hop.
#[derive(Clone, Copy, Debug)]
pub struct PathLinks {
    /// Sender to receiver.
    pub forward: LinkId,
    /// Receiver to sender.
    pub backward: LinkId,
    /// Sender to relay, relay to receiver, receiver to relay, relay to sender.
    pub hops: [LinkId; 4],
}

/// Hosts and the network between them.
#[derive(Debug)]
pub struct World {
    /// The sender.
    pub a: Host,
    /// The receiver.
    pub b: Host,
    /// Who relays.
    pub relays: Vec<Host>,
    /// The control server.
    pub server: Host,
    /// What moves the packets.
    pub emulator: Emulator,
    /// The paths.
    pub paths: Vec<PathLinks>,
    control: LinkId,
    between: LinkId,
}

/// The address of sender (1) or receiver (2) on a path.
#[must_use]
pub fn path_address(path: usize, side: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(path).unwrap_or(u8::MAX), side)
}

/// Addresses in the network of the members: sender, receiver, server, relay i.
#[must_use]
pub fn member_address(member: Member) -> Ipv4Addr {
    let last = match member {
        Member::Sender => 1,
        Member::Receiver => 2,
        Member::Relay(i) => 11 + u8::try_from(i).unwrap_or(u8::MAX - 11),
        Member::Server => 100,
    };
    Ipv4Addr::new(10, 9, 0, last)
}

/// Who is who in the network of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The sender.
    Sender,
    /// The receiver.
    Receiver,
    /// The i-th relay.
    Relay(usize),
    /// The control server.
    Server,
}

impl World {
    /// Builds `paths` paths and as many relays, and starts to move packets.
    ///
    /// # Errors
    /// Without root, iproute2 or /dev/net/tun.
    pub fn new(paths: usize, relays: usize) -> Result<World> {
        ensure!(
            (1..=MAX_PATHS).contains(&paths),
            "1 to {MAX_PATHS} paths, not {paths}"
        );
        ensure!(
            relays <= MAX_RELAYS && (relays == 0 || paths > 1),
            "at most {MAX_RELAYS} relays, on the paths beside the first"
        );
        let (a, b, server) = (Host::new("a")?, Host::new("b")?, Host::new("c")?);
        let relays: Vec<Host> = (0..relays)
            .map(|i| Host::new(&format!("r{}", i + 1)))
            .collect::<Result<_>>()?;

        let mut fabric = Fabric::new();
        let mut devices: Vec<SyncDevice> = Vec::new();
        let open = |devices: &mut Vec<SyncDevice>, host: &Host, name: &str, at: Ipv4Addr| {
            devices.push(open_device(host, name, &at.to_string())?);
            anyhow::Ok(DeviceId(devices.len() - 1))
        };
        let idle = SimRng::from_seed(0);
        let mut links = Vec::new();
        for i in 0..paths {
            let mut link = || fabric.add_link(any_size(), &idle);
            links.push(PathLinks {
                forward: link(),
                backward: link(),
                hops: [link(), link(), link(), link()],
            });
            let (at_a, at_b) = (path_address(i, 1), path_address(i, 2));
            let device_a = open(&mut devices, &a, &format!("p{i}"), at_a)?;
            let device_b = open(&mut devices, &b, &format!("p{i}"), at_b)?;
            if let Some(path) = links.last() {
                fabric.add_route(device_a, at_b, &[path.forward], device_b);
                fabric.add_route(device_b, at_a, &[path.backward], device_a);
            }
        }
        let control = fabric.add_link(any_size(), &idle);
        let between = fabric.add_link(any_size(), &idle);

        let mut members = vec![
            (Member::Sender, a.clone()),
            (Member::Receiver, b.clone()),
            (Member::Server, server.clone()),
        ];
        members.extend(
            relays
                .iter()
                .enumerate()
                .map(|(i, host)| (Member::Relay(i), host.clone())),
        );
        let mut at = Vec::new();
        for (member, host) in &members {
            let device = open(&mut devices, host, "v0", member_address(*member))?;
            at.push((*member, device));
        }
        let relayed = paths.saturating_sub(1).max(1);
        for (from, device) in &at {
            for (to, target) in at.iter().filter(|(to, _)| to != from) {
                let hops = match (from, to) {
                    (Member::Server, _) | (_, Member::Server) => Some(control),
                    (Member::Sender, Member::Receiver) => links.first().map(|p| p.forward),
                    (Member::Receiver, Member::Sender) => links.first().map(|p| p.backward),
                    (Member::Relay(_), Member::Relay(_)) => Some(between),
                    (Member::Relay(i), end) | (end, Member::Relay(i)) => {
                        let outward = matches!(to, Member::Relay(_));
                        let hop = match (end, outward) {
                            (Member::Sender, true) => 0,
                            (Member::Receiver, false) => 1,
                            (Member::Receiver, true) => 2,
                            _ => 3,
                        };
                        let path = links.get(1 + i % relayed);
                        path.and_then(|p| p.hops.get(hop)).copied()
                    }
                    _ => None,
                };
                let hops: Vec<LinkId> = hops.into_iter().collect();
                fabric.add_route(*device, member_address(*to), &hops, *target);
            }
        }

        for (_, host) in &members {
            for (key, value) in [
                ("net.ipv4.tcp_no_metrics_save", "1"),
                ("net.mptcp.add_addr_timeout", "1"),
                ("net.ipv6.conf.all.disable_ipv6", "1"),
            ] {
                host.sysctl(key, value)?;
            }
        }
        let world = World {
            a,
            b,
            relays,
            server,
            emulator: Emulator::start(fabric, devices)?,
            paths: links,
            control,
            between,
        };
        world.allow_mptcp();
        Ok(world)
    }

    /// Lets the kernel's MPTCP use all paths, where it has MPTCP.
    fn allow_mptcp(&self) {
        let limits = "mptcp limits set subflows 8 add_addr_accepted 8";
        let signals: Vec<String> = (1..self.paths.len())
            .map(|i| format!("mptcp endpoint add {} dev p{i} signal", path_address(i, 2)))
            .collect();
        // a kernel without MPTCP shows when the peer begins
        let _ = self.a.ip(limits);
        let _ = self.b.ip(limits);
        if !signals.is_empty() {
            let _ = self.b.ip(&signals.join("\n"));
        }
    }

    /// Makes all links anew: path i as `specs` says (the last spec stands for the rest), losses
    /// by `seed`. What was in flight is gone.
    pub fn reset(&self, specs: &[PathSpec], seed: u64) {
        let rng = SimRng::from_seed(seed);
        self.emulator.with(|fabric| {
            fabric.clear();
            let mut index = 0;
            let mut reset = |link: LinkId, config: LinkConfig| {
                index += 1;
                fabric.reset_link(link, config, &rng.fork_indexed("link", index));
            };
            for (i, links) in self.paths.iter().enumerate() {
                let Some(spec) = specs.get(i).or(specs.last()) else {
                    return;
                };
                reset(links.forward, spec.link());
                reset(links.backward, spec.link());
                for (hop, link) in links.hops.iter().enumerate() {
                    reset(*link, spec.hop(hop % 2 == 0));
                }
            }
            let rtt = specs.first().map_or(Duration::ZERO, |s| s.rtt);
            reset(self.control, any_size().delay(rtt / 4));
            reset(self.between, any_size().delay(rtt / 4));
        });
    }

    /// Takes a path down (everything on it is lost), or up again as `spec` says.
    pub fn set_path(&self, path: usize, spec: &PathSpec, up: bool) {
        let Some(links) = self.paths.get(path).copied() else {
            return;
        };
        let config = |config: LinkConfig| if up { config } else { config.loss(1.0) };
        self.emulator.with(|fabric| {
            fabric.set_config(links.forward, config(spec.link()));
            fabric.set_config(links.backward, config(spec.link()));
            for (hop, link) in links.hops.iter().enumerate() {
                fabric.set_config(*link, config(spec.hop(hop % 2 == 0)));
            }
        });
    }

    /// Octets handed to the links of the paths, each hop counted.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.emulator.with(|fabric| {
            let links = self
                .paths
                .iter()
                .flat_map(|p| [p.forward, p.backward].into_iter().chain(p.hops));
            links.map(|link| fabric.stats(link).sent_octets).sum()
        })
    }

    /// Octets that left sender and receiver over path `path`, the competing ones included.
    #[must_use]
    pub fn path_octets(&self, path: usize) -> (u64, u64) {
        let Some(links) = self.paths.get(path).copied() else {
            return (0, 0);
        };
        self.emulator.with(|fabric| {
            (
                fabric.stats(links.forward).sent_octets,
                fabric.stats(links.backward).sent_octets,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hops_lose_and_delay_as_much_as_the_whole_path() {
        let spec = PathSpec::new(10.0, 50, 0.06);
        let whole = spec.link();
        let (first, second) = (spec.hop(true), spec.hop(false));
        assert_eq!(
            first.one_way_delay() + second.one_way_delay(),
            whole.one_way_delay()
        );
        let passed = (1.0 - first.mean_loss()) * (1.0 - second.mean_loss());
        assert!((passed - (1.0 - whole.mean_loss())).abs() < 1e-12);
    }

    #[test]
    fn bursts_lose_the_fraction_asked_for() {
        let mut spec = PathSpec::new(10.0, 50, 0.0);
        spec.burst = Some((0.06, 8.0));
        assert!((spec.link().mean_loss() - 0.06).abs() < 1e-9);
        assert!(spec.hop(false).mean_loss() < 1e-9);
    }

    #[test]
    fn the_queue_holds_a_round_trip_and_at_least_64_kib() {
        assert_eq!(PathSpec::new(10.0, 20, 0.0).queue_octets(), 64 * 1024);
        assert_eq!(PathSpec::new(100.0, 100, 0.0).queue_octets(), 1_250_000);
    }
}
