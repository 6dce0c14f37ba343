//! Why there is no configuration, no key, or no connection.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use thiserror::Error;

use crate::identity::Hex;

/// Why a configuration could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The cryptography library refuses the key.
    #[error("the cryptography library refuses the identity key")]
    Key,
    /// The cryptography library lacks something that TLS 1.3 needs.
    #[error("the cryptography library does not offer TLS 1.3")]
    Provider,
}

/// Why a connection has no peer key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerKeyError {
    /// The peer has shown no key, or the handshake is not complete.
    #[error("the other side has shown no key")]
    None,
    /// The two sides did not agree upon [`ALPN`](crate::ALPN).
    #[error("the other side does not speak vmdt/1.1 inside TLS")]
    Protocol,
    /// What the peer has shown is another kind of key, or a certificate.
    #[error("the other side has shown something that is no Ed25519 key")]
    NotEd25519,
}

/// The server proves another key than the pinned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the server's key is {}, expected was {}", Hex(found), Hex(expected))]
pub(crate) struct WrongServerKey {
    pub(crate) expected: [u8; 32],
    pub(crate) found: [u8; 32],
}

/// Why a handshake failed, in terms that a person can act upon.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// The server proves another key than the one pinned: it is another server, its key was
    /// replaced, or somebody stands between.
    #[error("the server's key is {}, expected was {}", Hex(found), Hex(expected))]
    WrongServerKey {
        /// The pinned key.
        expected: [u8; 32],
        /// The key of whoever answered.
        found: [u8; 32],
    },
    /// The client proved no key.
    #[error("the client proved no identity key")]
    NoClientKey,
    /// What the other side sent is not TLS.
    #[error("the other side does not speak TLS")]
    NotTls,
    /// The other side speaks TLS, and not as this protocol needs it.
    #[error("the other side speaks TLS, but not TLS 1.3 with raw public keys and vmdt/1.1")]
    Incompatible,
    /// The other side refused and said only this.
    #[error("the other side refused: {0:?}")]
    Refused(AlertDescription),
    /// The connection ended before the handshake did.
    #[error("the connection ended during the handshake")]
    Ended,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
    /// Something else, which the other side should not have done.
    #[error("the handshake failed: {0}")]
    Other(TlsError),
}

impl Failure {
    /// What an error of a TLS stream means: `tokio-rustls` and `rustls::Stream` wrap the cause in
    /// an [`io::Error`].
    #[must_use]
    pub fn of(error: &io::Error) -> Failure {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match (cause, error.kind()) {
            (Some(cause), _) => Failure::from(cause),
            (None, io::ErrorKind::UnexpectedEof) => Failure::Ended,
            (None, kind) => Failure::Io(kind),
        }
    }
}

impl From<&TlsError> for Failure {
    fn from(error: &TlsError) -> Failure {
        match error {
            TlsError::InvalidCertificate(CertificateError::Other(cause)) => {
                match cause.0.downcast_ref() {
                    Some(&WrongServerKey { expected, found }) => {
                        Failure::WrongServerKey { expected, found }
                    }
                    None => Failure::Other(error.clone()),
                }
            }
            TlsError::NoCertificatesPresented => Failure::NoClientKey,
            TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => Failure::NotTls,
            TlsError::PeerIncompatible(_)
            | TlsError::NoApplicationProtocol
            | TlsError::AlertReceived(
                AlertDescription::ProtocolVersion
                | AlertDescription::NoApplicationProtocol
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::HandshakeFailure,
            ) => Failure::Incompatible,
            TlsError::AlertReceived(AlertDescription::CertificateRequired) => Failure::NoClientKey,
            TlsError::AlertReceived(alert) => Failure::Refused(*alert),
            other => Failure::Other(other.clone()),
        }
    }
}
