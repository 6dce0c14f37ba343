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
//! let at = server.local_addr().to_string();
//!
//! let alice = Node::builder().server(&at).id("alice").bind().await?;
//! let bob = Node::builder().server(&at).id("bob").bind().await?;
//! let carol = Node::builder().server(&at).id("carol").bind().await?;
//! let cluster = alice.create_cluster(Policy::k_of_n(2, 3)).await?;
//! bob.join_cluster(cluster.id()).await?;
//! carol.join_cluster(cluster.id()).await?;
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
//! This version speaks profile 1.0: shares keep members on the way from reading a message, but
//! datagrams and control lines are neither encrypted nor authenticated. Whoever sees the traffic
//! of k carriers, or of the receiver's own link, can read it; whoever can inject datagrams can
//! disturb it. Do not use it against such an adversary.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CrateReadme;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod builder;
pub mod core;
mod driver;
mod files;
mod handle;
mod sending;
mod server;
mod socket;

pub use crate::core::{
    Carried, Carrier, ConfigError, CoreConfig, Event, Paths, PlacementError, Progress, Receipt,
    TransferError,
};
pub use builder::NodeBuilder;
pub use files::safe_name;
pub use handle::{
    Cluster, ClusterStatus, Events, MemberStatus, Node, NodeError, PathReport, Policy,
};
pub use sending::{ProgressStream, Sending};
pub use server::Server;
pub use vmdt_control::{RegistryConfig, RegistryEvent};
pub use vmdt_rdt::{Config as TransportConfig, PathStats};
pub use vmdt_wire::{ClusterEntry, ClusterId, MemberState, MessageId, NodeId};
