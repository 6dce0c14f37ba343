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
//! # Shares and limits
//!
//! Flows share a session in proportion to their [`Priority`]; a [`RateLimit`] holds back one flow
//! or a whole session. Each can be set before the flow's first octet and changed at any time:
//!
//! ```
//! use std::time::Instant;
//! use vmdt_rdt::{Config, Endpoint, Priority, RateLimit};
//! use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};
//!
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! let bob: NodeId = "bob".parse()?;
//! let message: MessageId = "message".parse()?;
//! let flow = FlowId::new(message, ShareIndex::new(1).ok_or("no index")?);
//! let mut endpoint = Endpoint::new(Config::default(), "alice".parse()?, [1; 32]);
//! endpoint.connect(now, bob, "192.0.2.2:7000".parse()?);
//!
//! // Three octets for each one of a normal flow, and never more than 1 MB/s after 64 KiB at once.
//! endpoint.set_flow_priority(now, bob, flow, Priority::Highest)?;
//! endpoint.set_flow_limit(now, bob, flow, Some(RateLimit::new(64 << 10, 1_000_000)?))?;
//! // Everything to this peer, retransmissions included: 5 MB/s.
//! endpoint.set_session_limit(now, bob, Some(RateLimit::new(256 << 10, 5_000_000)?))?;
//! // No limit any more.
//! endpoint.set_session_limit(now, bob, None)?;
//! assert_eq!(endpoint.stats(bob).map(|stats| stats.send_flows), Some(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Sealed sessions (profile 1.1)
//!
//! With [`Config::set_sealing`] an endpoint speaks for an identity, and its node id is the hash of
//! that identity's key. A session is then opened by a handshake (Noise XX, or IK where the peer's
//! credential is known, which saves half a round trip) that proves to each end who the other is,
//! and every datagram of it is encrypted and authenticated, its header included:
//!
//! ```
//! use bytes::Bytes;
//! use std::time::Instant;
//! use vmdt_rdt::vmdt_seal::{identity::SecretIdentity, session::Local};
//! use vmdt_rdt::{Config, Endpoint, Event};
//! use vmdt_wire::FlowId;
//!
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! // Keep such seeds: an identity's is the identity, an endpoint's makes its session keys.
//! let sealed = |identity: [u8; 32], seed: [u8; 32]| {
//!     let local = Local::new(SecretIdentity::from_seed(&identity), 1);
//!     let mut config = Config::default();
//!     config.set_sealing(local.clone());
//!     (local.node_id(), Endpoint::new(config, local.node_id(), seed))
//! };
//! let ((alice, mut a), (bob, mut b)) = (sealed([1; 32], [2; 32]), sealed([3; 32], [4; 32]));
//! let (at_a, at_b) = ("192.0.2.1:7000".parse()?, "192.0.2.2:7000".parse()?);
//! assert!(alice.is_sealed() && bob.is_sealed());
//!
//! a.connect(now, bob, at_b);
//! a.write(now, bob, FlowId::CONTROL, Bytes::from_static(b"hello"))?;
//! let mut buf = Vec::new();
//! for _ in 0..8 {
//!     while a.poll_transmit(now, &mut buf).is_some() {
//!         assert!(!buf.windows(5).any(|octets| octets == b"hello"));
//!         b.handle_datagram(now, at_a, Bytes::copy_from_slice(&buf));
//!     }
//!     while b.poll_transmit(now, &mut buf).is_some() {
//!         a.handle_datagram(now, at_b, Bytes::copy_from_slice(&buf));
//!     }
//! }
//! // `Connected` says that the peer has proven to be the node of that id.
//! assert_eq!(b.poll_event(), Some(Event::Connected { peer: alice, address: at_a }));
//! assert_eq!(b.poll_event(), Some(Event::Readable { peer: alice, flow: FlowId::CONTROL }));
//! assert_eq!(b.read(now, alice, FlowId::CONTROL).as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - *Off the path* nothing can be injected: what does not open under a session's keys changes
//!   nothing but a counter. An offer costs memory only within a bound, and from some offers per
//!   second on only with a cookie that proves its address. No first datagram is answered by more
//!   than three times its octets.
//! - *On the path* ids, session ids, packet numbers, kinds, flow ids, sizes and times can be seen,
//!   contents not. What is altered or repeated is dropped. Whoever can drop datagrams can still
//!   keep a session from working.
//! - *Later* a stolen identity does not open recorded sessions. Keys are renewed after an hour or
//!   4 million packets, whichever is first, and the keys before them forgotten.
//! - *Addresses*: a session follows its peer to where its newest authentic packet came from. Until
//!   the peer has acknowledged a packet sent there, no more than three times of what came from
//!   there is sent; where it does not, the session returns to the address before.
//! - *Datagrams*: [`Endpoint::send_datagram`] sends octets once, outside of any flow. They arrive at
//!   most once, in no order, as [`Event::Datagram`].
//! - *Profiles do not mix*: a sealed endpoint hears and offers no open session, and the reverse.
//!
//! Handshakes and packets are those of [`vmdt_seal`]; its feature `ring`, by the feature of that
//! name here, makes the packets faster.
//!
//! # Where datagrams are made and opened
//!
//! Whatever leaves a session is written by one function and sealed in one place on its way out;
//! what arrives is opened by one function. ECN marks travel beside the octets: [`Transmit::ecn`] and
//! [`Endpoint::handle_marked_datagram`].
//!
//! Loss detection follows RFC 9002. The default congestion controller is a model of the path in
//! the manner of BBRv3 that tells random loss from congestion; [`congestion`] has it beside
//! NewReno and CUBIC (RFC 9438), and takes others. With the feature `qlog` an endpoint records its
//! sessions for viewers of QUIC traces.

mod ack;
mod answers;
mod config;
pub mod congestion;
mod datagrams;
mod delivery_rate;
mod ecn;
mod endpoint;
mod error;
mod event;
mod first_flight;
mod half_open;
mod limiter;
mod pacing;
mod packet_number;
mod path_mtu;
#[cfg(feature = "qlog")]
mod qlog;
mod ranges;
mod recv_flow;
mod recv_flows;
mod rtt;
mod sealed;
mod send_flow;
mod send_flows;
mod sent;
mod session;
mod skip;
mod state;
mod stats;
mod timers;
mod tombstones;
mod train;

pub use config::{Config, Integrity, LossDetection};
pub use ecn::EcnCodepoint;
pub use endpoint::Endpoint;
pub use error::{ConfigError, DatagramError, WriteError};
pub use event::{CODE_FALSE_ACK, CloseReason, Event, Transmit};
pub use limiter::{RateLimit, TokenBucket};
#[cfg(feature = "qlog")]
pub use qlog::QlogRecord;
pub use send_flow::Priority;
pub use state::SessionState;
pub use stats::{EndpointStats, PathStats};
/// What [`Config::set_sealing`] and [`Endpoint::set_credential`] take comes from here.
pub use vmdt_seal;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
