//! Virtual time, seeded randomness and emulated networks: what a test needs to
//! run whole worlds of machines in one thread, and to run a failing one again
//! from its seed.
//!
//! - [`Clock`]: the time the test gives to its machines.
//! - [`SimRng`]: a seeded generator with independent streams.
//! - [`Link`], [`LinkConfig`]: one direction of a path, with loss, bursts,
//!   delay, jitter, reordering, duplication, corruption, a bottleneck, an MTU.
//! - [`Network`]: hosts, links, partitions, crashes, datagrams, and reliable
//!   streams in arbitrary pieces.
//! - [`TraceHash`]: shows that two runs saw the same events.
//! - [`run_seeds`]: runs a world for each seed and names the one that failed.
//!
//! Nothing here sleeps, opens a socket or starts a thread. The library
//! depends on no other VMDT crate, so that all of them can test with it; only
//! the command `soak`, behind the feature of that name, uses the transport.
//!
//! ```
//! use std::time::Duration;
//! use vmdt_testkit::{Clock, LinkConfig, Network, NetworkEvent, SimRng, run_seeds};
//!
//! // A sender repeats a datagram every 100 ms until one gets through.
//! run_seeds(0..50, |seed| {
//!     let rng = SimRng::from_seed(seed);
//!     let mut clock = Clock::new();
//!     let mut network = Network::new(clock.now(), &rng.fork("network"));
//!     let (here, there) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
//!     network.add_host("10.0.0.1".parse().unwrap());
//!     network.add_host("10.0.0.2".parse().unwrap());
//!     network.set_default_link(LinkConfig::sample(&mut rng.fork("link"), 0.3));
//!
//!     let mut resend_at = clock.now();
//!     loop {
//!         if clock.now() >= resend_at {
//!             network.send(clock.now(), here, there, "ping".into());
//!             resend_at = clock.now() + Duration::from_millis(100);
//!         }
//!         if let Some(NetworkEvent::Datagram(delivery)) = network.poll(clock.now()) {
//!             assert_eq!(delivery.to, there);
//!             break;
//!         }
//!         clock.advance_to(network.next_at().map_or(resend_at, |at| at.min(resend_at)));
//!     }
//!     assert!(clock.elapsed() < Duration::from_secs(60));
//! });
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod clock;
mod link;
mod network;
mod rng;
mod seeds;
mod trace;

pub use clock::Clock;
pub use link::{Arrival, BurstLoss, Link, LinkConfig, LinkStats};
pub use network::{
    Chunking, CloseReason, Delivery, HostId, Network, NetworkEvent, NetworkStats, RefuseReason,
    Side, StreamConfig, StreamEnd, StreamEvent, StreamEventKind, StreamId, WriteError,
};
pub use rng::SimRng;
pub use seeds::{Outcome, run_seeds};
pub use trace::TraceHash;
