//! The control server of VMDT as a library that a program starts.
//!
//! A [`Server`] accepts control connections, drives the [`Registry`](vmdt_control::Registry)
//! with them, keeps what must survive a restart in a [`Store`], and ends gracefully. It has
//! up to three ports, each of which is off until it is configured:
//! - the **TLS port** of profile 1.1: both sides prove their identity keys, and a client acts only
//!   for the id that follows from its key;
//! - the **plain port** of profile 1.0, for software that knows nothing else;
//! - the **HTTP port** for operators: health, readiness, metrics, clusters.
//!
//! ```
//! use vmdt_server::Server;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder()
//!     .tls("127.0.0.1:0".parse()?, &[7; 32])
//!     .http("127.0.0.1:0".parse()?, None)
//!     .start()
//!     .await?;
//! assert!(server.tls_addr().is_some() && server.plain_addr().is_none());
//! server.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Programs with a configuration file start from [`Settings`]: file, environment and flags, in
//! rising order of precedence.
//!
//! # What is bounded
//!
//! Connections in all and per address, new connections per address and second, handshakes and
//! their time, requests per client and second, octets of a line, octets that a slow reader leaves
//! unread, relayed octets per client and day, clusters, members, HTTP requests. See
//! [`RegistryConfig`] and [`Limits`]. When too many connections are
//! open the server stops accepting: the next ones wait in the system's queue.

mod actor;
mod builder;
mod connection;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod gate;
mod http;
mod metrics;
#[cfg_attr(not(unix), path = "no_notify.rs")]
mod notify;
mod server;
mod settings;
mod store;

/// Keeps the example of the README true.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use vmdt_control::{RegistryConfig, RegistryEvent};

pub use self::builder::{Limits, ServerBuilder};
pub use self::error::{ServerError, SettingsError};
#[cfg(feature = "etcd")]
pub use self::etcd::EtcdStore;
pub use self::server::Server;
pub use self::settings::Settings;
pub use self::store::{MemoryStore, News, RedbStore, Shared, Store, StoreError};

/// The one place where this crate reads the monotonic clock.
#[allow(clippy::disallowed_methods)]
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// The one place where this crate reads the wall clock: milliseconds since 1970.
#[allow(clippy::disallowed_methods)]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
