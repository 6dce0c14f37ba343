//! The control layer of VMDT as sans-IO state machines.
//!
//! - [`Registry`] is the server: clusters with their members and thresholds, the
//!   members' addresses, who is connected, and the relay of shares between members
//!   that cannot reach each other.
//! - [`Member`] is the client: it keeps itself connected, registered and in its
//!   clusters, matches replies to requests though pushes arrive in between, and
//!   keeps a [roster](ClusterRoster) of its clusters.
//!
//! Neither opens a socket, reads a clock or draws randomness: octets and the time
//! are arguments, octets to send and the next deadline are results, and a seed
//! determines the rest. Both speak the lines of [`vmdt_wire`]; the registry answers
//! each line in the framing it was asked in and therefore serves software of
//! profile 1.0 beside ours.
//!
//! # Clusters
//!
//! See [`ClusterState`] for the states. A member whose connection is lost is *away*
//! and keeps its place for a grace period; only present members count towards n
//! and k. A member is told CLUSTER_READY once: when the cluster first is active
//! while the member is present, or in answer to its JOIN_CLUSTER. That the cluster
//! is degraded, suspended or ready again follows from the MEMBER pushes, which go
//! to members that registered capabilities, and which [`Member`] evaluates.
//!
//! # Profile 1.1
//!
//! A connection that has proven an identity ([`Registry::handle_open_as`]) acts
//! for the id of its key and for no other. On it, beyond profile 1.0:
//! - clusters made by a signed descriptor, whose hash is their id, and joined with
//!   a signed membership. They stand in nobody else's list unless the descriptor
//!   says so ([`OPTION_LISTED`]), and who is not in them learns nothing of their
//!   members. Places are kept for 30 days;
//! - removal of members by lists that the creator signs;
//! - profiles, which a member publishes for those in its clusters;
//! - code numbers, at which two clients meet to exchange keys.
//!
//! The registry verifies what it stores, so that it stores no rubbish, and passes
//! it on as it came. [`Member`] verifies everything again and believes the server
//! in nothing but addresses and presence: see [`SealedRoster`] and
//! [`Member::profile`]. A server that has lost its state gets the clusters back
//! from their members.
//!
//! # What survives a restart
//!
//! [`Registry::poll_record`] gives what a store must keep, [`Registry::restore`]
//! takes it back.
//!
//! # Several registries with one state
//!
//! A store that orders what registries write, and gives one of them at a time the
//! right to write, makes many registries one ([`Registry::begin_sharing`]). The
//! driver gives what others have written to [`Registry::handle_records`], in the
//! store's order. While [`Registry::wants_write`] it reads no more input and asks for
//! the right; when that has come, and everything written before was taken in, it
//! calls [`Registry::handle_write_granted`], writes what [`Registry::poll_record`]
//! gives while giving the right back, calls [`Registry::handle_write_ended`], and only
//! then sends the outputs. When it has lost the store, [`Registry::handle_detached`]
//! sends every client to another server, and [`Registry::handle_attached`] begins anew.
//!
//! # What the server relays
//!
//! MESSAGE_SHARE goes from a member to another of the same cluster with an index of
//! 0 (a control line between the two) or 1 to k - 1 (a share): the server never
//! carries enough shares of a message to learn anything. How much each client may
//! relay per day is bounded and accounted for. SEND_MESSAGE is refused
//! because it would show the server the text, and the SHARE_POOL messages are
//! refused because they travel between members.
//!
//! # Example
//!
//! ```
//! use std::time::Instant;
//! use vmdt_control::{ConnId, Registry, RegistryConfig, RegistryOutput};
//!
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! let mut registry = Registry::new(RegistryConfig::new(), [7; 32]);
//! let conn = ConnId(1);
//! registry.handle_open(now, conn, "192.0.2.7:50000".parse()?);
//! // Two requests of a client of profile 1.0, cut anywhere.
//! registry.handle_bytes(now, conn, b"REGISTER_P2P_PORT|alice|9001\nCREATE_CL");
//! registry.handle_bytes(now, conn, b"USTER|alice|3|2\n");
//!
//! let Some(RegistryOutput::Write { bytes, .. }) = registry.poll_output() else {
//!     return Err("no reply".into());
//! };
//! let reply = std::str::from_utf8(&bytes)?;
//! assert!(reply.starts_with("OK|P2P port registered\nCLUSTER_CREATED|cluster_"));
//! assert_eq!(registry.clusters().count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accounts;
mod bucket;
mod codes;
mod config;
mod directory;
mod error;
mod event;
mod member;
mod memory;
mod record;
mod registry;
mod roster;
mod sealed;
mod state;
#[cfg(test)]
mod testing;

pub use self::config::{MemberConfig, RegistryConfig};
pub use self::error::{LinkError, Refusal, RelayError, RequestError, ServerError};
pub use self::event::{
    ClusterView, ConnId, MemberEvent, MemberOutput, MemberView, RegistryEvent, RegistryOutput,
    RegistryStats, RelayAccount, Relayed, Reply, Request, RequestId,
};
pub use self::member::{Member, relayed_data};
pub use self::memory::{ClusterMemory, MemoryError};
pub use self::record::{Record, RecordError, RecordKey, Restored};
pub use self::registry::Registry;
pub use self::roster::{ClusterRoster, RosterMember, SealedRoster};
pub use self::sealed::OPTION_LISTED;
pub use self::state::{Census, ClusterState};
