//! Congestion control: one trait over plain values, and the controllers behind it.
//!
//! A controller sees octets of whole datagrams, instants and round-trip times, never a
//! connection, so it can be tested alone and written outside this crate.

mod bbr;
mod cubic;
mod newreno;
mod tally;

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub use bbr::{Bbr, BbrConfig};
pub use cubic::{Cubic, CubicConfig};
pub use newreno::{NewReno, NewRenoConfig};

/// How fast the path delivered around one ACK
/// (draft-cheng-iccrg-delivery-rate-estimation-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSample {
    /// Octets delivered per second, between the sending of the newest acknowledged packet and
    /// its acknowledgment.
    pub octets_per_second: u64,
    /// Octets delivered in that time.
    pub octets: u64,
    /// Octets declared lost in that time.
    pub lost: u64,
    /// Octets delivered since the path began.
    pub delivered: u64,
    /// The same when the newest acknowledged packet was sent.
    pub prior_delivered: u64,
    /// Octets in flight when that packet was sent, itself included.
    pub sent_in_flight: u64,
    /// It was sent while the application had too little to send: the path may be faster.
    pub app_limited: bool,
}

/// What one ACK newly acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// When the ACK was processed.
    pub now: Instant,
    /// When the newest of the acknowledged packets was sent.
    pub sent_at: Instant,
    /// Octets newly acknowledged, headers included.
    pub octets: u64,
    /// Octets in flight after this ACK.
    pub in_flight: u64,
    /// The sender had nothing to send or was held by flow control: the window was not the limit.
    pub app_limited: bool,
    /// Newest round-trip sample.
    pub latest_rtt: Duration,
    /// Smoothed round-trip time.
    pub smoothed_rtt: Duration,
    /// Smallest round-trip time seen on the path.
    pub min_rtt: Duration,
    /// The delivery rate; `None` when no time passed to measure it by.
    pub rate: Option<RateSample>,
}

/// What was declared lost at one time.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// When the loss was noticed.
    pub now: Instant,
    /// When the newest lost packet was sent.
    pub sent_at: Instant,
    /// Octets lost, headers included.
    pub octets: u64,
    /// Octets in flight without the lost ones.
    pub in_flight: u64,
}

/// What the network marked instead of dropping it (RFC 3168).
#[derive(Clone, Copy, Debug)]
pub struct Marked {
    /// When the ACK that told was processed.
    pub now: Instant,
    /// When the newest packet this ACK acknowledges was sent.
    pub sent_at: Instant,
    /// Packets marked.
    pub packets: u64,
    /// Octets in flight after this ACK.
    pub in_flight: u64,
}

/// Decides how many octets may be in flight.
pub trait Controller: Debug + Send {
    /// A congestion-controlled packet left; `in_flight` counts it.
    fn on_sent(&mut self, now: Instant, octets: u64, in_flight: u64);

    /// Packets were acknowledged.
    fn on_ack(&mut self, acked: &Acked);

    /// Packets were declared lost.
    fn on_loss(&mut self, lost: &Lost);

    /// Packets arrived with the mark of congestion. By default as if one had been lost, which is
    /// what RFC 3168 asks for.
    fn on_marked(&mut self, marked: &Marked) {
        self.on_loss(&Lost {
            now: marked.now,
            sent_at: marked.sent_at,
            octets: 0,
            in_flight: marked.in_flight,
        });
    }

    /// Every packet over a long period was lost (RFC 9002 section 7.6).
    fn on_persistent_congestion(&mut self, now: Instant);

    /// All packets of the last loss turned out to have arrived: the reduction may be undone.
    fn on_spurious_loss(&mut self, now: Instant);

    /// Octets declared lost have arrived after all, all of the last loss or not.
    fn on_late_arrival(&mut self, _now: Instant, _octets: u64) {}

    /// Datagrams are of up to so many octets from now on. By default nothing changes.
    fn on_datagram_size(&mut self, _octets: u64) {}

    /// Octets that may be in flight.
    fn window(&self) -> u64;

    /// Whether the window still grows by what is acknowledged (pacing is faster then).
    fn in_slow_start(&self) -> bool;

    /// The rate to pace at in octets per second, when the controller computes one; otherwise
    /// the rate follows from window and round-trip time.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// The rate the path delivers, in octets per second, when the controller has measured it.
    fn bandwidth(&self) -> Option<u64> {
        None
    }
}

/// Builds the controller of a new path.
pub trait ControllerFactory: Debug + Send + Sync {
    /// `datagram` is the largest datagram sent, in octets.
    fn build(&self, now: Instant, datagram: u64) -> Box<dyn Controller>;

    /// Whether the datagrams of a fresh session may go beyond the controller's window:
    /// [`Config::set_first_flight`](crate::Config::set_first_flight), paced over a round trip. Its
    /// ACKs and losses are told to the controller as any others. Default true.
    fn takes_first_flight(&self) -> bool {
        true
    }
}
