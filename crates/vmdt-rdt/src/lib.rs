//! RDT, the reliable datagram transport of VMDT: sessions between peers, many flows in each,
//! loss recovery, congestion control, pacing and flow control, as a machine without sockets,
//! clock or threads.
//!
//! An [`Endpoint`] holds all sessions of a node. The driver gives it datagrams and the time, and
//! takes datagrams, events and the next deadline:
//!
//! ```
//! use bytes::Bytes;
//! use std::time::Instant;
//! use vmdt_rdt::{Config, Endpoint, Event};
//! use vmdt_wire::{FlowId, NodeId};
//!
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! let (alice, bob): (NodeId, NodeId) = ("alice".parse()?, "bob".parse()?);
//! let (at_a, at_b) = ("192.0.2.1:7000".parse()?, "192.0.2.2:7000".parse()?);
//! let mut a = Endpoint::new(Config::default(), alice, [1; 32]);
//! let mut b = Endpoint::new(Config::default(), bob, [2; 32]);
//!
//! a.connect(now, bob, at_b);
//! a.write(now, bob, FlowId::CONTROL, Bytes::from_static(b"hello"))?;
//!
//! // A network without loss or delay.
//! let mut buf = Vec::new();
//! for _ in 0..8 {
//!     while a.poll_transmit(now, &mut buf).is_some() {
//!         b.handle_datagram(now, at_a, Bytes::copy_from_slice(&buf));
//!     }
//!     while b.poll_transmit(now, &mut buf).is_some() {
//!         a.handle_datagram(now, at_b, Bytes::copy_from_slice(&buf));
//!     }
//! }
//! assert_eq!(b.poll_event(), Some(Event::Connected { peer: alice, address: at_a }));
//! assert_eq!(b.poll_event(), Some(Event::Readable { peer: alice, flow: FlowId::CONTROL }));
//! assert_eq!(b.read(now, alice, FlowId::CONTROL).as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Loss detection follows RFC 9002. The default congestion controller is a model of the path in
//! the manner of BBRv3 that tells random loss from congestion; [`congestion`] has it beside
//! NewReno and CUBIC (RFC 9438), and takes others.

mod ack;
mod config;
pub mod congestion;
mod delivery_rate;
mod endpoint;
mod error;
mod event;
mod half_open;
mod limiter;
mod pacing;
mod packet_number;
mod path_mtu;
mod ranges;
mod recv_flow;
mod recv_flows;
mod rtt;
mod send_flow;
mod send_flows;
mod sent;
mod session;
mod state;
mod stats;
mod tombstones;

pub use config::{Config, Integrity};
pub use endpoint::Endpoint;
pub use error::{ConfigError, WriteError};
pub use event::{CloseReason, Event, Transmit};
pub use limiter::RateLimit;
pub use send_flow::Priority;
pub use state::SessionState;
pub use stats::{EndpointStats, PathStats};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
