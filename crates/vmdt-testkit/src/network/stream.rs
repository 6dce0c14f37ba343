//! The vocabulary of emulated streams: names, settings, events, errors.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::HostId;

/// A stream of a [`Network`](crate::Network): a reliable connection between
/// two hosts, as TCP gives. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u64);

impl StreamId {
    /// The end that opened it.
    #[must_use]
    pub fn dialer(self) -> StreamEnd {
        StreamEnd {
            stream: self,
            side: Side::Dialer,
        }
    }

    /// The end that was listening.
    #[must_use]
    pub fn listener(self) -> StreamEnd {
        StreamEnd {
            stream: self,
            side: Side::Listener,
        }
    }
}

/// One of the two ends of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that opened the stream.
    Dialer,
    /// The end that was listening.
    Listener,
}

impl Side {
    /// The opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Side::Dialer => Side::Listener,
            Side::Listener => Side::Dialer,
        }
    }
}

/// One end of one stream: what a socket is to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamEnd {
    /// The stream.
    pub stream: StreamId,
    /// Which of its ends.
    pub side: Side,
}

impl StreamEnd {
    /// The opposite end.
    #[must_use]
    pub fn peer(self) -> Self {
        Self {
            stream: self.stream,
            side: self.side.other(),
        }
    }
}

/// Something a process learns about its end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEvent {
    /// When.
    pub at: Instant,
    /// At which host.
    pub host: HostId,
    /// At which end.
    pub end: StreamEnd,
    /// What.
    pub kind: StreamEventKind,
}

/// The kinds of [`StreamEvent`].
///
/// An end sees `Opened`, then `Data` and `Progress`, then `Closed`; or only
/// `Refused`. Nothing follows `Closed` or `Refused`, nor a call of
/// [`close`](crate::Network::close) or [`reset`](crate::Network::reset) at
/// that end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEventKind {
    /// The stream is open at this end and can be written.
    Opened {
        /// The address of this end.
        local: SocketAddr,
        /// The address of the other end.
        peer: SocketAddr,
    },
    /// The stream could not be opened; only the dialer learns it.
    Refused(RefuseReason),
    /// The next octets, never none; where they are split means nothing.
    Data(Bytes),
    /// So many octets written here were read by the peer: as many may be
    /// written again.
    Progress(usize),
    /// The stream is over.
    Closed(CloseReason),
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// Nobody listens at the address.
    Refused,
    /// No answer within [`StreamConfig::connect_timeout`].
    TimedOut,
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it; everything it had written was delivered before.
    Finished,
    /// The peer aborted it or its process died; octets may be missing.
    Reset,
    /// The peer was out of reach for [`StreamConfig::break_after`]; octets may
    /// be missing.
    TimedOut,
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The end has not seen `Opened` yet.
    #[error("the stream is not open yet at this end")]
    NotOpen,
    /// The end is closed, or the stream never was.
    #[error("the stream is closed at this end")]
    Closed,
}

/// How a reader sees the octets split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Chunking {
    /// At random: single octets, short pieces, anything up to all that is
    /// there, sometimes joined with what arrives up to 1 ms later.
    #[default]
    Random,
    /// All that has arrived, at once.
    Whole,
    /// Octet by octet.
    Octets,
}

/// The settings of all streams of a network. Each setter checks its bounds and
/// panics, naming the caller's line, when a value is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    pub(super) buffer: usize,
    pub(super) connect_timeout: Duration,
    pub(super) break_after: Duration,
    pub(super) chunking: Chunking,
}

impl StreamConfig {
    /// A buffer of 64 KiB, 10 s to connect, broken after 30 s out of reach,
    /// random chunks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: 64 * 1024,
            connect_timeout: Duration::from_secs(10),
            break_after: Duration::from_secs(30),
            chunking: Chunking::Random,
        }
    }

    /// How many octets one direction of a stream holds that were written and
    /// that the writer does not yet know to be read. Default 64 KiB.
    ///
    /// # Panics
    /// When 0.
    #[track_caller]
    #[must_use]
    pub fn buffer(mut self, octets: usize) -> Self {
        assert!(octets > 0, "buffer: 0 octets pass nothing");
        self.buffer = octets;
        self
    }

    /// How long a dialer waits for an answer. Default 10 s, at most one day.
    ///
    /// # Panics
    /// Above one day.
    #[track_caller]
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = checked_time("connect_timeout", timeout);
        self
    }

    /// How long the ends may be out of each other's reach before the stream
    /// breaks. Default 30 s, at most one day.
    ///
    /// # Panics
    /// Above one day.
    #[track_caller]
    #[must_use]
    pub fn break_after(mut self, timeout: Duration) -> Self {
        self.break_after = checked_time("break_after", timeout);
        self
    }

    /// How readers see the octets split. Default at random.
    #[must_use]
    pub fn chunking(mut self, chunking: Chunking) -> Self {
        self.chunking = chunking;
        self
    }
}

/// Keeps deadlines within what an `Instant` can hold.
#[track_caller]
fn checked_time(name: &str, time: Duration) -> Duration {
    let day = Duration::from_secs(24 * 3_600);
    assert!(time <= day, "{name}: {time:?} is above one day");
    time
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self::new()
    }
}
