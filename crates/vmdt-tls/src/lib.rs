//! TLS for the control connections of VMDT.
//!
//! A control connection of profile 1.1 runs under TLS 1.3 in which neither side shows a
//! certificate. Both prove that they hold an Ed25519 key, sent as a raw public key (RFC 7250):
//! - the client knows the server's key beforehand (a ticket names it) and accepts no other;
//! - the server accepts any key and learns which one it is: the client's id follows from it.
//!
//! So there is no authority, no name to check, no expiry, and nothing to renew. Connections that
//! do not negotiate the protocol name [`ALPN`] are refused.
//!
//! This crate makes the [`rustls`] configurations, reads the peer's key, and says in plain words
//! why a handshake failed. It opens no socket; drive the configurations with `tokio-rustls` or
//! with rustls itself.
//!
//! ```
//! use std::io::{Read as _, Write as _};
//! use vmdt_tls::{Identity, client_config, peer_key, server_config, server_name};
//! use vmdt_tls::rustls::{ClientConnection, ServerConnection};
//!
//! let server = Identity::from_seed(&[1; 32])?;
//! let client = Identity::from_seed(&[2; 32])?;
//! let mut near = ClientConnection::new(client_config(&client, server.public_key())?, server_name())?;
//! let mut far = ServerConnection::new(server_config(&server)?)?;
//!
//! // The network, in memory.
//! let mut wire = Vec::new();
//! while near.is_handshaking() || far.is_handshaking() {
//!     near.write_tls(&mut wire)?;
//!     far.read_tls(&mut wire.split_off(0).as_slice())?;
//!     far.process_new_packets()?;
//!     far.write_tls(&mut wire)?;
//!     near.read_tls(&mut wire.split_off(0).as_slice())?;
//!     near.process_new_packets()?;
//! }
//! assert_eq!(peer_key(&far)?, *client.public_key());
//! assert_eq!(peer_key(&near)?, *server.public_key());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is not offered
//!
//! - Older versions than TLS 1.3, other signatures than Ed25519, X.509 certificates.
//! - Resumption and early data: a handshake costs two signatures, sessions would cost the server
//!   memory per client, and early data could be replayed.
//! - Server names: the key says who the server is. None is sent, so an observer learns no name.

mod config;
mod error;
mod identity;
mod verify;

/// Keeps the example of the README true.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use rustls;

pub use self::config::{ALPN, client_config, server_config, server_name};
pub use self::error::{ConfigError, Failure, PeerKeyError};
pub use self::identity::{Identity, peer_key};
