//! Peers that the server has not named: what they can make a node do, and for how long.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_node::NodeId;
use vmdt_node::core::{Core, CoreConfig, default_transport};
use vmdt_rdt::{CloseReason, Endpoint, Event};
use vmdt_testkit::Clock;
use vmdt_wire::FlowId;

struct Pair {
    clock: Clock,
    core: Core,
    stranger: Endpoint,
    events: Vec<Event>,
}

const NODE: &str = "10.0.0.1:1";
const STRANGER: &str = "10.0.0.2:2";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

impl Pair {
    fn new() -> Pair {
        let id: NodeId = "node".parse().unwrap();
        let server = at("10.0.0.9:9");
        Pair {
            clock: Clock::new(),
            core: Core::new(CoreConfig::new(id, 1, vec![server]), [1; 32]),
            stranger: Endpoint::new(default_transport(), "stranger".parse().unwrap(), [2; 32]),
            events: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Lets both talk for a time, without loss or delay.
    fn run(&mut self, time: Duration) {
        let end = self.now() + time;
        let mut buf = Vec::new();
        loop {
            let now = self.now();
            let mut quiet = true;
            while let Some(_transmit) = self.core.poll_transmit(now, &mut buf) {
                let datagram = Bytes::copy_from_slice(&buf);
                self.stranger.handle_datagram(now, at(NODE), datagram);
                quiet = false;
            }
            while let Some(_transmit) = self.stranger.poll_transmit(now, &mut buf) {
                let datagram = Bytes::copy_from_slice(&buf);
                self.core.handle_datagram(now, at(STRANGER), datagram);
                quiet = false;
            }
            while let Some(event) = self.stranger.poll_event() {
                self.events.push(event);
            }
            while self.core.poll_output().is_some() {}
            if !quiet {
                continue;
            }
            let next = self
                .core
                .poll_timeout()
                .into_iter()
                .chain(self.stranger.poll_timeout());
            match next.min().filter(|t| *t < end) {
                Some(t) => self.clock.advance_to(t),
                None => {
                    self.clock.advance_to(end);
                    return;
                }
            }
            let now = self.now();
            self.core.handle_timeout(now);
            self.stranger.handle_timeout(now);
        }
    }
}

#[test]
fn a_stranger_is_shown_the_door_and_leaves_nothing_behind() {
    let mut pair = Pair::new();
    let node: NodeId = "node".parse().unwrap();
    let now = pair.now();
    pair.stranger.connect(now, node, at(NODE));
    pair.run(Duration::from_secs(1));
    assert!(
        matches!(pair.events[..], [Event::Connected { .. }]),
        "{:?}",
        pair.events
    );
    assert_eq!(pair.core.sessions().count(), 1);

    // lines that are not a member's to say are dropped and counted
    let now = pair.now();
    let lines = Bytes::from_static(
        b"garbage\nVMDT/TCP/1.0/SHARE_POOL_REMOVE/abc\nVMDT/TCP/1.0/SHARE_POOL_ADD/m/a/node/3/2/STREAM/t.2\n",
    );
    pair.stranger
        .write(now, node, FlowId::CONTROL, lines)
        .unwrap();
    pair.run(Duration::from_secs(1));
    assert!(pair.core.stats().bad_lines >= 2);

    pair.run(Duration::from_secs(10));
    assert!(
        pair.events.iter().any(|e| matches!(
            e,
            Event::Closed {
                reason: CloseReason::PeerClosed { .. },
                ..
            }
        )),
        "{:?}",
        pair.events
    );
    assert_eq!(pair.core.sessions().count(), 0);
    assert_eq!(pair.core.known_peers(), 0);
}

#[test]
fn shares_of_a_stranger_are_bounded() {
    let mut pair = Pair::new();
    let node: NodeId = "node".parse().unwrap();
    let now = pair.now();
    pair.stranger.connect(now, node, at(NODE));
    pair.run(Duration::from_millis(100));
    // shares nobody announced: kept for ten seconds at the most, within 16 MiB
    for i in 0..40u8 {
        let flow = FlowId {
            message: vmdt_node::MessageId::from_random([i; 12]),
            index: std::num::NonZeroU8::MIN.into(),
        };
        let now = pair.now();
        if pair
            .stranger
            .write(now, node, flow, Bytes::from(vec![i; 500_000]))
            .is_ok()
        {
            pair.stranger.finish(now, node, flow).unwrap();
        }
        pair.run(Duration::from_millis(100));
    }
    assert!(pair.core.early_octets() <= 16 * 1024 * 1024);
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.core.early_octets(), 0);
}
