//! Hosts, the paths between them, and what travels on those.

mod pipe;
mod stream;
mod streams;
mod topology;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

pub use stream::{
    Chunking, CloseReason, RefuseReason, Side, StreamConfig, StreamEnd, StreamEvent,
    StreamEventKind, StreamId, WriteError,
};
pub use topology::HostId;

use crate::{Link, LinkConfig, LinkStats, SimRng, TraceHash};
use streams::Streams;
use topology::Topology;

/// A datagram that has reached its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it arrived.
    pub at: Instant,
    /// The address it was sent from.
    pub from: SocketAddr,
    /// The address it was sent to.
    pub to: SocketAddr,
    /// The host at that address.
    pub host: HostId,
    /// Its octets.
    pub bytes: Bytes,
}

/// What [`Network::poll`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    /// A datagram arrived.
    Datagram(Delivery),
    /// Something happened at an end of a stream.
    Stream(StreamEvent),
}

/// What has become of the datagrams of a network, apart from what its links
/// did ([`Network::link_stats`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// Calls of [`Network::send`].
    pub sent: u64,
    /// Datagrams delivered.
    pub delivered: u64,
    /// Dropped: nobody has the address they were sent from or to.
    pub unroutable: u64,
    /// Dropped: the host they were sent from or to was down.
    pub host_down: u64,
    /// Dropped: the way was blocked when they were sent or when they arrived.
    pub blocked: u64,
}

/// An emulated network in virtual time: hosts with addresses, a link for each
/// ordered pair of hosts, partitions, crashes, and reliable streams.
///
/// Nothing happens by itself: the test gives the time to each call (never
/// earlier than before), asks [`next_at`](Network::next_at) where to move its
/// clock, and takes what is due with [`poll`](Network::poll) until there is
/// nothing more. Or it takes datagrams and stream events apart, with
/// [`pop_due`](Network::pop_due) and
/// [`pop_due_stream`](Network::pop_due_stream). The order is fixed: by time,
/// then datagrams before streams, then in the order of sending. All
/// randomness comes from the generator given to [`new`](Network::new), with
/// streams of its own for each link and stream.
///
/// **Datagrams.** Paths between two hosts have the settings of
/// [`set_link`](Network::set_link) or the default ones (perfect at first);
/// a host reaches itself at once. A datagram on its way is lost when its way
/// is blocked, its addressee is down, or nobody has its address when it
/// arrives. It outlives its sender.
///
/// **Streams** are TCP as applications see it: ordered octets, in arbitrary
/// pieces ([`Chunking`]), with a bounded buffer. They take the delay, jitter
/// and rate of their link, each stream with the whole rate for itself; losses
/// become retransmission delays (200 ms, doubling); queue, MTU, duplication,
/// reordering and corruption do not reach them. A blocked way holds a stream
/// up; one blocked for longer than [`StreamConfig::break_after`] breaks it at
/// both ends.
///
/// Memory: the datagrams on their way are those the test has sent within the
/// delay of a link, and a stream holds at most [`StreamConfig::buffer`] octets
/// in each direction.
///
/// ```
/// use std::time::Duration;
/// use vmdt_testkit::{Clock, LinkConfig, Network, SimRng};
///
/// let mut clock = Clock::new();
/// let mut network = Network::new(clock.now(), &SimRng::from_seed(1));
/// let (alice, bob) = ("10.0.0.1:4000".parse()?, "10.0.0.2:4000".parse()?);
/// network.add_host("10.0.0.1".parse()?);
/// network.add_host("10.0.0.2".parse()?);
/// network.set_default_link(LinkConfig::new().delay(Duration::from_millis(5)));
///
/// network.send(clock.now(), alice, bob, "hello".into());
/// clock.advance_to(network.next_delivery_at().unwrap());
/// let delivery = network.pop_due(clock.now()).unwrap();
/// assert_eq!((delivery.from, &delivery.bytes[..]), (alice, &b"hello"[..]));
/// assert_eq!(clock.elapsed(), Duration::from_millis(5));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Network {
    start: Instant,
    rng: SimRng,
    topology: Topology,
    links: BTreeMap<(HostId, HostId), Link>,
    flight: BTreeMap<(Instant, u64), InFlight>,
    next_seq: u64,
    streams: Streams,
    stats: NetworkStats,
    trace: TraceHash,
}

#[derive(Debug)]
struct InFlight {
    from: SocketAddr,
    sender: HostId,
    to: SocketAddr,
    bytes: Bytes,
}

/// Hosts and addresses.
impl Network {
    /// A network without hosts. `start` is the zero of the times in its
    /// [`trace`](Network::trace).
    #[must_use]
    pub fn new(start: Instant, rng: &SimRng) -> Self {
        Self {
            start,
            rng: rng.fork("links"),
            topology: Topology::new(),
            links: BTreeMap::new(),
            flight: BTreeMap::new(),
            next_seq: 0,
            streams: Streams::new(rng.fork("streams")),
            stats: NetworkStats::default(),
            trace: TraceHash::new(),
        }
    }

    /// Adds a host that is up and has `address`, with all its ports.
    ///
    /// # Panics
    /// When another host has the address.
    #[track_caller]
    pub fn add_host(&mut self, address: IpAddr) -> HostId {
        let host = self.topology.add_host();
        self.topology.add_address(host, address);
        host
    }

    /// All hosts, in the order in which they were added.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        self.topology.hosts()
    }

    /// Gives a host a further address; nothing changes when it has it.
    ///
    /// # Panics
    /// When another host has the address.
    #[track_caller]
    pub fn add_address(&mut self, now: Instant, host: HostId, address: IpAddr) {
        self.topology.add_address(host, address);
        self.streams.paths_changed(now, &self.topology);
    }

    /// Takes an address away from whoever has it. Datagrams to it are lost,
    /// streams that use it are held up as by a partition, nobody listens at it
    /// any more.
    pub fn remove_address(&mut self, now: Instant, address: IpAddr) {
        self.topology.remove_address(address);
        self.streams.paths_changed(now, &self.topology);
    }

    /// The host that has `address`.
    #[must_use]
    pub fn host_of(&self, address: IpAddr) -> Option<HostId> {
        self.topology.host_of(address)
    }

    /// Whether the host is up.
    #[must_use]
    pub fn is_up(&self, host: HostId) -> bool {
        self.topology.is_up(host)
    }

    /// Kills the host's processes, as `kill -9` does: its system resets its
    /// streams at once, the peers see `Closed(Reset)` one delay later.
    /// Datagrams to it are lost, it listens nowhere, and its own ends see no
    /// further event.
    pub fn kill(&mut self, now: Instant, host: HostId) {
        self.topology.take_down(host);
        self.streams.host_down(now, host, false, &self.topology);
    }

    /// Takes the host away without a word, as a power failure does: its peers
    /// see `Closed(TimedOut)` after [`StreamConfig::break_after`], or
    /// `Closed(Reset)` when the host is back earlier.
    pub fn power_off(&mut self, now: Instant, host: HostId) {
        self.topology.take_down(host);
        self.streams.host_down(now, host, true, &self.topology);
    }

    /// Brings a host back. It has its addresses and links, no streams, and
    /// listens nowhere until [`listen`](Network::listen) is called again.
    pub fn bring_up(&mut self, now: Instant, host: HostId) {
        self.topology.set_up(host, true);
        self.streams.host_up(now, host, &self.topology);
    }
}

/// Links and partitions.
impl Network {
    /// Sets the link of every ordered pair of different hosts that has none of
    /// its own, those that are in use included.
    pub fn set_default_link(&mut self, config: LinkConfig) {
        self.topology.set_default(config);
        self.refresh_links();
    }

    /// Sets the link from one host to another (or to itself), that direction
    /// only.
    pub fn set_link(&mut self, from: HostId, to: HostId, config: LinkConfig) {
        self.topology.set_link(from, to, config);
        self.refresh_links();
    }

    /// Sets both directions between two hosts.
    pub fn set_link_both(&mut self, one: HostId, other: HostId, config: LinkConfig) {
        self.set_link(one, other, config.clone());
        self.set_link(other, one, config);
    }

    fn refresh_links(&mut self) {
        for (&(from, to), link) in &mut self.links {
            link.set_config(self.topology.config(from, to).clone());
        }
    }

    /// What the link from one host to another has done to datagrams.
    #[must_use]
    pub fn link_stats(&self, from: HostId, to: HostId) -> LinkStats {
        self.links
            .get(&(from, to))
            .map(Link::stats)
            .unwrap_or_default()
    }

    /// Blocks the way from one host to another, that direction only. A host
    /// always reaches itself.
    pub fn block(&mut self, now: Instant, from: HostId, to: HostId) {
        self.topology.block(from, to);
        self.streams.paths_changed(now, &self.topology);
    }

    /// Opens the way from one host to another again.
    pub fn unblock(&mut self, now: Instant, from: HostId, to: HostId) {
        self.topology.unblock(from, to);
        self.streams.paths_changed(now, &self.topology);
    }

    /// Blocks both directions between each host of one set and each of the
    /// other.
    pub fn partition(&mut self, now: Instant, one: &[HostId], other: &[HostId]) {
        for &a in one {
            for &b in other {
                self.topology.block(a, b);
                self.topology.block(b, a);
            }
        }
        self.streams.paths_changed(now, &self.topology);
    }

    /// Cuts a set of hosts off from all others.
    pub fn isolate(&mut self, now: Instant, island: &[HostId]) {
        let rest: Vec<HostId> = self.hosts().filter(|host| !island.contains(host)).collect();
        self.partition(now, island, &rest);
    }

    /// Opens every blocked way.
    pub fn heal(&mut self, now: Instant) {
        self.topology.unblock_all();
        self.streams.paths_changed(now, &self.topology);
    }

    /// Whether the way from one host to another is blocked.
    #[must_use]
    pub fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.topology.is_blocked(from, to)
    }
}

/// Datagrams.
impl Network {
    /// Sends a datagram. What becomes of it shows in
    /// [`stats`](Network::stats) and [`link_stats`](Network::link_stats), never
    /// to the sender.
    pub fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        self.stats.sent += 1;
        let topology = &self.topology;
        let (Some(sender), Some(receiver)) =
            (topology.host_of(from.ip()), topology.host_of(to.ip()))
        else {
            self.stats.unroutable += 1;
            return;
        };
        if !topology.is_up(sender) {
            self.stats.host_down += 1;
            return;
        }
        if topology.is_blocked(sender, receiver) {
            self.stats.blocked += 1;
            return;
        }
        let link = self.links.entry((sender, receiver)).or_insert_with(|| {
            let pair = u64::from(sender.0) << 32 | u64::from(receiver.0);
            let rng = self.rng.fork_indexed("link", pair);
            Link::new(topology.config(sender, receiver).clone(), &rng)
        });
        for arrival in link.send(now, bytes) {
            let flying = InFlight {
                from,
                sender,
                to,
                bytes: arrival.bytes,
            };
            self.flight.insert((arrival.at, self.next_seq), flying);
            self.next_seq += 1;
        }
    }

    /// When the next datagram arrives. It may turn out to be lost then.
    #[must_use]
    pub fn next_delivery_at(&self) -> Option<Instant> {
        self.flight.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next datagram that has arrived by `now`, in the order of arrival,
    /// then of sending.
    #[must_use]
    pub fn pop_due(&mut self, now: Instant) -> Option<Delivery> {
        loop {
            let first = self
                .flight
                .first_entry()
                .filter(|first| first.key().0 <= now)?;
            let (at, _) = *first.key();
            let InFlight {
                from,
                sender,
                to,
                bytes,
            } = first.remove();
            let Some(host) = self.topology.host_of(to.ip()) else {
                self.stats.unroutable += 1;
                continue;
            };
            if !self.topology.is_up(host) {
                self.stats.host_down += 1;
            } else if self.topology.is_blocked(sender, host) {
                self.stats.blocked += 1;
            } else {
                self.stats.delivered += 1;
                let delivery = Delivery {
                    at,
                    from,
                    to,
                    host,
                    bytes,
                };
                self.trace_delivery(&delivery);
                return Some(delivery);
            }
        }
    }
}

/// Streams.
impl Network {
    /// Sets how all streams behave, those that are open included; the times of
    /// [`StreamConfig`] apply to what begins later.
    pub fn set_stream_config(&mut self, config: StreamConfig) {
        self.streams.set_config(config);
    }

    /// Accepts streams at `address` from now on.
    ///
    /// # Panics
    /// When no host that is up has the address.
    #[track_caller]
    pub fn listen(&mut self, address: SocketAddr) {
        self.assert_up(address);
        self.topology.listen(address);
    }

    /// Accepts no further streams at `address`; those that are open stay.
    pub fn unlisten(&mut self, address: SocketAddr) {
        self.topology.unlisten(address);
    }

    /// Opens a stream. The dialer sees `Opened` a round trip later, or
    /// `Refused`; the listener sees `Opened` after half of that.
    ///
    /// # Panics
    /// When no host that is up has the address `from`.
    #[track_caller]
    pub fn open_stream(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) -> StreamId {
        let dialer = self.assert_up(from);
        let listener = self.topology.host_of(to.ip());
        self.streams
            .open(now, (dialer, from), (listener, to), &self.topology)
    }

    #[track_caller]
    fn assert_up(&self, address: SocketAddr) -> HostId {
        let host = self.topology.host_of(address.ip());
        let host = host.filter(|host| self.topology.is_up(*host));
        assert!(host.is_some(), "no host that is up has {address}");
        host.unwrap_or(HostId(u32::MAX))
    }

    /// Writes at one end and returns how many octets were taken, from the
    /// first: as many as the buffer has room for, perhaps none. `Progress`
    /// tells when there is room again.
    ///
    /// # Errors
    /// When the end is not open yet, or no longer.
    pub fn write(
        &mut self,
        now: Instant,
        end: StreamEnd,
        bytes: Bytes,
    ) -> Result<usize, WriteError> {
        self.streams.write(now, end, bytes, &self.topology)
    }

    /// How many octets a [`write`](Network::write) at this end would take now.
    ///
    /// # Errors
    /// As [`write`](Network::write).
    pub fn room(&self, end: StreamEnd) -> Result<usize, WriteError> {
        self.streams.room(end)
    }

    /// Closes the stream from one end. What was written there before still
    /// arrives, and then `Closed(Finished)`; what was under way to this end is
    /// dropped. Closing an end that is closed does nothing.
    pub fn close(&mut self, now: Instant, end: StreamEnd) {
        self.streams.close(now, end, &self.topology);
    }

    /// Aborts the stream from one end: what is under way is lost, and the peer
    /// sees `Closed(Reset)`.
    pub fn reset(&mut self, now: Instant, end: StreamEnd) {
        self.streams.reset(now, end, &self.topology);
    }

    /// Makes the process at one end read (as at first) or not. Octets that
    /// arrive while it does not read wait in the buffer, and so does the
    /// peer's `Closed(Finished)`. Events that were due already still come.
    pub fn set_reading(&mut self, now: Instant, end: StreamEnd, reading: bool) {
        self.streams.set_reading(now, end, reading, &self.topology);
    }

    /// When the next stream event may be due. There may turn out to be none.
    #[must_use]
    pub fn next_stream_event_at(&self) -> Option<Instant> {
        self.streams.next_at()
    }

    /// The next stream event that is due at `now`.
    #[must_use]
    pub fn pop_due_stream(&mut self, now: Instant) -> Option<StreamEvent> {
        let event = self.streams.pop_due(now, &self.topology)?;
        self.trace_stream_event(&event);
        Some(event)
    }
}

/// Both together, and what has happened.
impl Network {
    /// When anything may be due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let times = [self.next_delivery_at(), self.next_stream_event_at()];
        times.into_iter().flatten().min()
    }

    /// The next thing that is due at `now`: by time, datagrams first.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Option<NetworkEvent> {
        loop {
            let at = self.next_at().filter(|at| *at <= now)?;
            if let Some(delivery) = self.pop_due(at) {
                return Some(NetworkEvent::Datagram(delivery));
            }
            if let Some(event) = self.pop_due_stream(at) {
                return Some(NetworkEvent::Stream(event));
            }
        }
    }

    /// What has become of the datagrams so far.
    #[must_use]
    pub fn stats(&self) -> NetworkStats {
        self.stats
    }

    /// A hash of everything that was taken out of the network so far, with its
    /// times, addresses and octets: the same seed and the same calls give the
    /// same value.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace.value()
    }

    fn trace_delivery(&mut self, delivery: &Delivery) {
        self.trace
            .time(delivery.at.saturating_duration_since(self.start));
        self.trace_address(delivery.from);
        self.trace_address(delivery.to);
        self.trace.octets(&delivery.bytes);
    }

    fn trace_stream_event(&mut self, event: &StreamEvent) {
        self.trace
            .time(event.at.saturating_duration_since(self.start));
        self.trace.u64(event.end.stream.0);
        self.trace.u64(event.end.side as u64);
        match &event.kind {
            StreamEventKind::Opened { local, peer } => {
                self.trace.u64(1);
                self.trace_address(*local);
                self.trace_address(*peer);
            }
            StreamEventKind::Refused(reason) => {
                self.trace.u64(2);
                self.trace.u64(*reason as u64);
            }
            StreamEventKind::Data(octets) => {
                self.trace.u64(3);
                self.trace.octets(octets);
            }
            StreamEventKind::Progress(octets) => {
                self.trace.u64(4);
                self.trace.u64(*octets as u64);
            }
            StreamEventKind::Closed(reason) => {
                self.trace.u64(5);
                self.trace.u64(*reason as u64);
            }
        }
    }

    fn trace_address(&mut self, address: SocketAddr) {
        match address.ip() {
            IpAddr::V4(ip) => self.trace.octets(&ip.octets()),
            IpAddr::V6(ip) => self.trace.octets(&ip.octets()),
        }
        self.trace.u64(u64::from(address.port()));
    }
}
