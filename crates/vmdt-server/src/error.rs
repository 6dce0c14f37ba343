//! Why a server does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;
use vmdt_seal::keyfile::KeyFileError;

use crate::store::StoreError;

/// Why a server does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No port is configured.
    #[error("no port is configured: name one for TLS, or one for profile 1.0")]
    NoPort,
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        cause: io::Error,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(vmdt_tls::ConfigError),
    /// The state kept before cannot be read.
    #[error("the state kept before cannot be read: {0}")]
    Store(StoreError),
}

/// Why settings make no server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is not what it has to be; the text names line and key.
    #[error("{0}")]
    Toml(String),
    /// An environment variable cannot be read.
    #[error("{name}: {value:?} is not {needed}")]
    Environment {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What it has to be.
        needed: &'static str,
    },
    /// A port for TLS, and no file with the identity key.
    #[error("the TLS port needs an identity: set `identity` to the path of its key file")]
    NoIdentity,
    /// The system gives no randomness for a new key.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The key file cannot be used.
    #[error("the identity key: {0}")]
    Identity(KeyFileError),
    /// The store cannot be opened.
    #[error("the store {}: {cause}", path.display())]
    Store {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: StoreError,
    },
    /// Two places for one state.
    #[error("set `store` for one server, or `etcd` for several, but not both")]
    TwoStores,
    /// A program that was built without it.
    #[error("`etcd` is set, and this program was built without the feature `etcd`")]
    NoEtcd,
    /// The file with the bearer token cannot be used.
    #[error("the token file {}: {what}", path.display())]
    Token {
        /// Its path.
        path: PathBuf,
        /// Why.
        what: String,
    },
}
