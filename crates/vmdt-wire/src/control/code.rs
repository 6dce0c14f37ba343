//! The code words of ERROR.

use core::fmt;
use core::str::FromStr;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a request was refused, as a stable word that programs can act upon.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }

        impl FromStr for ErrorCode {
            type Err = UnknownCode;

            fn from_str(word: &str) -> Result<Self, UnknownCode> {
                match word {
                    $($word => Ok(Self::$name),)*
                    _ => Err(UnknownCode),
                }
            }
        }
    };
}

codes! {
    /// A line that is not a control line, or lacks or has a parameter too many.
    BadRequest = "bad-request",
    /// A message type that is not known.
    UnknownType = "unknown-type",
    /// A version other than 1.0.
    BadVersion = "bad-version",
    /// A line that is longer than allowed; the connection is closed.
    LineTooLong = "line-too-long",
    /// A parameter that is to be a decimal number and is not.
    NotANumber = "not-a-number",
    /// A number outside its range.
    OutOfRange = "out-of-range",
    /// A parameter that is to be an identifier and is not.
    BadId = "bad-id",
    /// A cluster that does not exist.
    UnknownCluster = "unknown-cluster",
    /// A client that does not exist.
    UnknownClient = "unknown-client",
    /// The client is not a member of the cluster.
    NotAMember = "not-a-member",
    /// The client is a member of the cluster already.
    AlreadyMember = "already-member",
    /// The cluster takes no more members.
    ClusterFull = "cluster-full",
    /// The cluster has too few members for sending.
    ClusterNotReady = "cluster-not-ready",
    /// The message is understood, and not done here.
    NotSupported = "not-supported",
    /// The client has not registered.
    NotRegistered = "not-registered",
    /// The id belongs to another live connection.
    IdInUse = "id-in-use",
    /// No more clusters may be created.
    TooManyClusters = "too-many-clusters",
    /// No more clients may connect.
    TooManyClients = "too-many-clients",
    /// Too many requests in too short a time.
    RateLimited = "rate-limited",
    /// The sender's part of a bound is used up.
    QuotaExceeded = "quota-exceeded",
    /// The server does not relay this share.
    RelayRefused = "relay-refused",
    /// No room is left to store what was sent.
    NoSpace = "no-space",
    /// The receiver does not want what was sent.
    Refused = "refused",
    /// The sender gave up.
    Aborted = "aborted",
    /// The connection has not proven who the client is, and the request needs it.
    Unauthenticated = "unauthenticated",
    /// Something signed does not verify, or says something else than it has to.
    BadSignature = "bad-signature",
    /// Something newer is known already.
    Stale = "stale",
    /// The client was removed from the cluster.
    Removed = "removed",
    /// A code number that nobody has open, or that is used up.
    UnknownNumber = "unknown-number",
    /// A fault of the one who answers.
    Internal = "internal",
    /// No code was given, or one that is not known here.
    Other = "other",
}

/// A word that is not the word of an [`ErrorCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known error code")]
pub struct UnknownCode;

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
