//! A VMDT node: send messages and files over several peers at once, so that no single peer, path
//! or server can read them.
//!
//! A message is encrypted, its key is secret-shared k of n, the shares travel over different
//! members of a cluster, and the receiver rebuilds the message from any k of them.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vmdt_node::{Event, Node, Policy, Server};
//!
//! let server = Server::bind("127.0.0.1:0".parse()?).await?;
//! let at = server.url().ok_or("no TLS port")?;
//!
//! let alice = Node::builder().server(&at).name("alice").bind().await?;
//! let bob = Node::builder().server(&at).name("bob").bind().await?;
//! let carol = Node::builder().server(&at).name("carol").bind().await?;
//! let cluster = alice.create_cluster(Policy::k_of_n(2, 3)).await?;
//! let ticket = cluster.ticket().await?;
//! bob.join(&ticket).await?;
//! carol.join(&ticket).await?;
//! cluster.ready().await?;
//!
//! let mut events = bob.events();
//! let receive = async {
//!     while let Some(event) = events.next().await {
//!         if let Event::Message { from, data, .. } = event {
//!             return Some((from, data));
//!         }
//!     }
//!     None
//! };
//! let mut sending = alice.send(bob.id(), b"hi").await?;
//! let (received, receipt) = tokio::join!(receive, sending.delivered());
//! assert_eq!(received, Some((alice.id(), "hi".into())));
//! assert!(receipt?.paths().len() >= 2, "no single carrier had enough shares to read it");
//! alice.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`core`] is the same node as a machine without sockets, clock or runtime, for those who bring
//! their own and for the simulator.
//!
//! # What is protected
//!
//! Nodes speak profile 1.1: each is known by its key, every session between two nodes and every
//! connection to the server is encrypted and authenticated, and every message is sealed to its
//! receiver's key beneath the secret sharing, so that even all members together, or the server,
//! read nothing. Who talks to whom, how much and when is not hidden from the server and from who
//! watches the network; `docs/security.md` has the whole account.
//!
//! [`NodeBuilder::open_profile`] is profile 1.0: shares keep members on the way from reading a
//! message, but datagrams and control lines are neither encrypted nor authenticated.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CrateReadme;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod builder;
mod code;
pub mod core;
mod driver;
mod files;
mod groups;
mod handle;
mod keeping;
mod parts;
mod recalling;
mod sending;
pub mod socket;

pub use crate::core::{
    Ban, Carried, Carrier, ClusterError, ConfigError, Confirmed, Conviction, CoreConfig, CoreStats,
    Event, Evidence, Explanation, GroupFailure, Health, HedgeReport, KeyChange, MAX_RECEIVERS,
    Paths, PeerReport, PetnameError, PlacementError, Progress, Receipt, SendOptions,
    SignedReceipts, SignedSegment, SignedShare, TransferError,
};
pub use builder::NodeBuilder;
pub use code::{CODE_MAX_LEN, CodeFailure, CodeOffer};
pub use files::safe_name;
pub use handle::{
    Cluster, ClusterStatus, Events, MemberStatus, Node, NodeError, PathReport, Policy,
};
pub use sending::{ProgressStream, Sending};
pub use vmdt_control::{ClusterMemory, MemoryError, RegistryConfig, RegistryEvent};
pub use vmdt_rdt::{Config as TransportConfig, LossDetection, PathStats, Priority, RateLimit};
pub use vmdt_seal::{self as seal, code::Code, identity::SecretIdentity, ticket::Ticket};
pub use vmdt_server::{Server, ServerBuilder, ServerError};
pub use vmdt_wire::{ClusterEntry, ClusterId, MemberState, MessageId, NodeId};
