//! The node as a machine: it takes octets, time and verbs, and gives back octets, timers and
//! events. It imports no runtime, opens no socket and reads no clock; the simulator runs the very
//! same machine that the driver does.
//!
//! The four kinds of calls, and the one law:
//! 1. what happened outside: `handle_*`;
//! 2. what the application wants: [`Core::send`], [`Core::request`], …;
//! 3. what is to be done: [`Core::poll_transmit`] and [`Core::poll_output`];
//! 4. when to call again: [`Core::poll_timeout`] and [`Core::handle_timeout`].
//!
//! After any call of kinds 1, 2 or 4, drain kind 3 until both give `None`, then ask for the
//! timeout anew.

mod clusters;
mod config;
mod detour;
mod durable;
mod envelope;
mod event;
mod express;
mod group;
mod handovers;
mod health;
mod incoming;
mod keys;
mod later;
mod limits;
mod links;
mod open;
mod outgoing;
mod peer;
mod placement;
mod proofs;
mod rating;
mod receipts;
mod receive;
mod relay;
mod seal;
mod send;
mod statements;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use vmdt_control::{
    Member, MemberConfig, MemberEvent, MemberOutput, Reply, Request, RequestError, RequestId,
};
use vmdt_pool::reputation::{Reputation, ReputationConfig};
use vmdt_pool::{Collector, CollectorConfig, Pool, PoolConfig};
use vmdt_rdt::{EcnCodepoint, Endpoint, Transmit};
use vmdt_seal::session::Local;
use vmdt_wire::{Caps, ClusterId, MessageId, NodeId};

pub use clusters::{ClusterError, ClusterPlan};
pub use config::{
    ConfigError, CoreConfig, DEFAULT_SEGMENT, MAX_ADDRESSES, MAX_EXPIRY, MAX_NODE_NAME,
    MAX_SEGMENT, MAX_WINDOW, Sealing, default_transport,
};
pub use durable::{Content, ContentHash, Recovered, RestoreError};
pub use envelope::{DIGEST_LEN, Envelope, EnvelopeError, Kind, MAX_ENVELOPE, MAX_NAME};
pub use event::{Carried, Event, GroupFailure, Paths, Progress, Receipt, TransferError};
pub use group::MAX_RECEIVERS;
pub use keys::{KeyChange, MAX_PETNAME, MAX_PETNAMES, PetnameError};
pub use limits::SendOptions;
pub use open::PeerConn;
pub use placement::{
    Candidate, Carrier, Carriers, Explanation, Placement, PlacementError, Quality,
};
pub use proofs::Conviction;
pub use receipts::{Confirmed, SignedReceipts, SignedSegment, SignedShare};
pub use vmdt_pool::hedging::HedgeReport;
pub use vmdt_pool::reputation::{Ban, Evidence, Health, PeerReport};

use incoming::Incoming;
use outgoing::{Outgoing, Spread};
use peer::Peer;
use seal::Seal;

/// How often transfers under way are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Transfers that have ended and are still recognised, so that a late segment does not begin
/// them again. Beyond it the oldest are forgotten.
const MAX_ENDED: usize = 4096;

/// Something the driver is to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Work for the connection to the server.
    Control(MemberOutput),
    /// The answer to a request.
    Reply {
        /// The request.
        request: RequestId,
        /// Its answer.
        result: Result<Reply, RequestError>,
    },
    /// Something the application may want to know.
    Event(Event),
    /// A message for the application. Call [`Core::taken`] when it has it: only then is it
    /// confirmed to its sender.
    Deliver {
        /// What to call [`Core::taken`] with.
        handle: u64,
        /// [`Event::Message`].
        event: Event,
    },
    /// More octets of an outgoing transfer are wanted: answer with [`Core::supply`] or
    /// [`Core::source_failed`].
    NeedData {
        /// The transfer.
        transfer: MessageId,
        /// The most octets to supply.
        max: usize,
    },
    /// Work for the file of an incoming transfer.
    Sink {
        /// The transfer's number.
        handle: u64,
        /// What to do, in order.
        op: SinkOp,
    },
    /// An outgoing transfer got further.
    Progress {
        /// The transfer.
        transfer: MessageId,
        /// How far.
        progress: Progress,
    },
    /// An outgoing transfer has ended.
    Done {
        /// The transfer.
        transfer: MessageId,
        /// How.
        result: Result<Receipt, TransferError>,
    },
    /// Connect to a peer of profile 1.0, write this line, close; then call
    /// [`Core::line_sent`].
    SendLine {
        /// What to call back with.
        op: u64,
        /// Where to.
        to: SocketAddr,
        /// What to write.
        line: Bytes,
    },
    /// Close an accepted connection of a peer.
    ClosePeerConn(PeerConn),
    /// Something arrived from the other side of a code number.
    Code {
        /// The number.
        number: u16,
        /// What arrived; `None`: the number is void.
        data: Option<Bytes>,
    },
    /// The prekeys changed: keep [`Core::prekeys`] for the next run.
    PrekeysChanged,
    /// Commit this batch to the store, and say [`Core::persisted`] when it is durable. One is out
    /// at a time. Only a [restored](Core::restore) core asks.
    Persist(vmdt_pool::Persist),
    /// A transfer of an earlier run goes on: supply its content from the beginning, as
    /// [`Output::NeedData`] asks for it, or say [`Core::source_failed`]. Again for one that is
    /// known: begin anew.
    Resumed {
        /// The transfer.
        transfer: MessageId,
        /// Who is to get it, or has got it: one, or several in order.
        to: Vec<NodeId>,
        /// Octets of the content, where known.
        total: Option<u64>,
        /// Octets that are confirmed.
        delivered: u64,
        /// What [`Core::send_kept`] or [`Core::send_group_kept`] was given.
        content: Content,
    },
}

/// Work for the file of an incoming transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkOp {
    /// Make the temporary file. Failure: [`Core::sink_failed`].
    Open {
        /// The name the sender gave, as it came: it may hold anything.
        name: String,
        /// Size in octets, where known.
        size: Option<u64>,
        /// What to call the temporary file, so that it is found again after a restart; only in a
        /// durable core. Then [`Write`](SinkOp::Write) is answered when the octets are synced.
        part: Option<String>,
    },
    /// Find the temporary file of an earlier run, cut it to its length, and call
    /// [`Core::sink_resumed`] with the digest of what it holds. Failure: [`Core::sink_failed`].
    Resume {
        /// The name the sender gave.
        name: String,
        /// What the temporary file is called.
        part: String,
        /// How long it is to be, in octets.
        length: u64,
        /// It is whole, and [`Finish`](SinkOp::Finish) follows: leave it as it is, and do not call
        /// back. If it is not there any more it has its name already.
        whole: bool,
    },
    /// Append these octets, then call [`Core::sink_written`].
    Write(Bytes),
    /// The content is whole and its digest right: sync, rename, then call
    /// [`Core::sink_finished`].
    Finish,
    /// Remove the temporary file.
    Abort,
}

/// What the core dropped and why, and what it did to be sooner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreStats {
    /// Control lines of peers that could not be read or were not theirs to send.
    pub bad_lines: u64,
    /// Shares that were refused.
    pub refused_shares: u64,
    /// Shares that went through the server.
    pub relayed_shares: u64,
    /// Datagrams that went through the server, in profile 1.1.
    pub relayed_datagrams: u64,
    /// Shares that did not match what their sender announced.
    pub bad_shares: u64,
    /// Shares beyond k that were sent on at once, in case others are lost, or at the end of a long
    /// transfer on a path that had nothing else to do.
    pub redundant_shares: u64,
    /// Shares that were moved from a carrier that was lost or seemed so.
    pub moved_shares: u64,
    /// How often a path seemed dead, with its session still there.
    pub late_paths: u64,
    /// Signed receipts of others that were kept.
    pub receipts: u64,
    /// Receipts of others that were refused: not theirs, of what they were not given, or of what
    /// they did not bring here, as far as it is known.
    pub bad_receipts: u64,
    /// Small messages that were sent without an announcement, as pieces.
    pub express_sent: u64,
    /// Messages that came so.
    pub express_received: u64,
    /// How often all pieces of such a message were sent once more.
    pub express_repeated: u64,
    /// Such messages that took the ordinary way in the end.
    pub express_fallbacks: u64,
    /// Pieces of others that were handed on.
    pub pieces_handed_on: u64,
    /// Pieces that were dropped: for want of room or of a way, or of an opening that is over.
    pub pieces_dropped: u64,
    /// Datagrams and pieces that were refused: malformed, altered, or not theirs to send.
    pub bad_pieces: u64,
    /// What was asked for early, and what it cost.
    pub hedging: HedgeReport,
}

/// A node without sockets, clock or runtime.
pub struct Core {
    config: CoreConfig,
    rng: ChaCha20Rng,
    rdt: Endpoint,
    pool: Pool,
    collector: Collector,
    member: Member,
    peers: BTreeMap<NodeId, Peer>,
    /// Peers whose next share waits until the transport has sent most of the one before.
    held_back: BTreeSet<NodeId>,
    /// Transfers that go on when a path has less to send.
    ahead: BTreeSet<MessageId>,
    limits: limits::Limits,
    /// Octets of shares that are arriving from all peers.
    arriving: usize,
    outgoing: BTreeMap<MessageId, Outgoing>,
    spreads: BTreeMap<MessageId, Spread>,
    /// Octets of shares that the server was given and that are not confirmed.
    relayed: usize,
    incoming: BTreeMap<u64, Incoming>,
    incoming_by_id: BTreeMap<(NodeId, MessageId), u64>,
    next_handle: u64,
    ended: VecDeque<(NodeId, MessageId)>,
    ended_set: BTreeMap<(NodeId, MessageId), bool>,
    labels: BTreeMap<MessageId, receive::Expected>,
    /// Who holds shares of messages to several receivers that are here and not confirmed.
    group_holders: BTreeMap<MessageId, BTreeSet<NodeId>>,
    /// The message that was rebuilt last, its sender, and the octets of its largest share.
    last_rebuilt: Option<(MessageId, NodeId, usize)>,
    early: receive::Early,
    later: later::Later,
    open: open::OpenPeers,
    reputation: Reputation,
    explained: rating::Explained,
    /// When the paths were looked at last.
    looked_at: Option<Instant>,
    seal: Option<Seal>,
    relayed_peers: relay::RelayedPeers,
    /// Peers whose session makes a detour.
    detours: BTreeSet<NodeId>,
    /// Peers whose direct session was closed since nothing comes directly.
    silent: BTreeSet<NodeId>,
    receipts: receipts::Receipts,
    handovers: handovers::Handovers,
    proofs: proofs::Proofs,
    petnames: keys::Petnames,
    durable: Option<durable::Durable>,
    checks: health::Checks,
    express: express::Express,
    outputs: VecDeque<Output>,
    tick_at: Option<Instant>,
    stats: CoreStats,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("id", &self.config.id)
            .field("peers", &self.peers.len())
            .field("outgoing", &self.outgoing.len())
            .field("incoming", &self.incoming.len())
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A node that has said nothing yet. All randomness, keys included, comes from the seed.
    #[must_use]
    pub fn new(mut config: CoreConfig, seed: [u8; 32]) -> Core {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut child = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let mut rdt = config.rdt.clone();
        if let Some(sealing) = &config.sealing {
            rdt.set_sealing(Local::new(sealing.identity.clone(), sealing.unix_ms));
        }
        let rdt = Endpoint::new(rdt, config.id, child());
        let member = Member::new(
            MemberConfig::new(config.id, config.port, config.servers.clone())
                .caps(Some(Caps::RDT))
                .request_timeout(config.request_timeout),
            child(),
        );
        let sealing = config.sealing.take();
        let seal = sealing.map(|sealing| Seal::new(sealing, config.express, &mut rng));
        let pool = Pool::new(Core::pool_config(&config));
        let mut collector = Collector::new(CollectorConfig::new(config.id));
        let hedges = config.hedging.fraction > 0.0;
        collector.set_hedging(hedges.then_some(config.hedging));
        let usual = ReputationConfig::default();
        let reputation = Reputation::new(ReputationConfig {
            check_every: config.health_checks.unwrap_or(usual.check_every),
            ..usual
        });
        let mut core = Core {
            rdt,
            pool,
            collector,
            member,
            rng,
            config,
            peers: BTreeMap::new(),
            held_back: BTreeSet::new(),
            ahead: BTreeSet::new(),
            limits: limits::Limits::default(),
            arriving: 0,
            outgoing: BTreeMap::new(),
            spreads: BTreeMap::new(),
            relayed: 0,
            incoming: BTreeMap::new(),
            incoming_by_id: BTreeMap::new(),
            next_handle: 1,
            ended: VecDeque::new(),
            ended_set: BTreeMap::new(),
            labels: BTreeMap::new(),
            group_holders: BTreeMap::new(),
            last_rebuilt: None,
            early: receive::Early::default(),
            later: later::Later::default(),
            open: open::OpenPeers::default(),
            reputation,
            explained: rating::Explained::default(),
            looked_at: None,
            seal,
            relayed_peers: relay::RelayedPeers::default(),
            detours: BTreeSet::new(),
            silent: BTreeSet::new(),
            receipts: receipts::Receipts::default(),
            handovers: handovers::Handovers::default(),
            proofs: proofs::Proofs::default(),
            petnames: keys::Petnames::default(),
            durable: None,
            checks: health::Checks::default(),
            express: express::Express::default(),
            outputs: VecDeque::new(),
            tick_at: None,
            stats: CoreStats::default(),
        };
        if let Some((at, _)) = core.seal.as_ref().map(Seal::clock) {
            core.publish_profile(at);
        }
        core
    }

    fn pool_config(config: &CoreConfig) -> PoolConfig {
        PoolConfig {
            max_octets: config.pool_octets as u64,
            max_octets_per_sender: (config.pool_octets / 2) as u64,
            ..PoolConfig::new(config.id)
        }
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Counters of what was dropped, and of what was done to be sooner.
    #[must_use]
    pub fn stats(&self) -> CoreStats {
        CoreStats {
            hedging: self.hedging(),
            ..self.stats
        }
    }

    /// The path to a peer as the transport sees it.
    #[must_use]
    pub fn path_stats(&self, peer: NodeId) -> Option<vmdt_rdt::PathStats> {
        self.rdt.stats(peer)
    }

    /// Peers there is a session with.
    pub fn sessions(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.rdt.peers()
    }

    /// The clusters this node is in, and their members.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Octets and entries this node holds for others.
    #[must_use]
    pub fn pool_usage(&self) -> vmdt_pool::Usage {
        self.pool.usage()
    }

    /// Peers this node remembers something about.
    #[must_use]
    pub fn known_peers(&self) -> usize {
        self.peers.len()
    }

    /// Octets of shares that wait for their announcement; at most 16 MiB.
    #[must_use]
    pub fn early_octets(&self) -> usize {
        self.early.octets()
    }

    // ---- what happened outside -------------------------------------------------------------

    /// A datagram arrived.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: Bytes) {
        self.rdt.handle_datagram(now, from, datagram);
        self.settle(now);
    }

    /// Several datagrams arrived together, each with the ECN mark of its IP header: settles once for
    /// all. A sealed one is opened where it lies.
    pub fn handle_datagrams(
        &mut self,
        now: Instant,
        datagrams: impl IntoIterator<Item = (SocketAddr, Option<EcnCodepoint>, BytesMut)>,
    ) {
        for (from, ecn, datagram) in datagrams {
            self.rdt.handle_owned_datagram(now, from, ecn, datagram);
        }
        self.settle(now);
    }

    /// The connection to the server that [`MemberOutput::Connect`] asked for is there.
    pub fn handle_control_connected(&mut self, now: Instant, attempt: u64) {
        self.member.handle_connected(now, attempt);
        self.settle(now);
    }

    /// That connection could not be made.
    pub fn handle_control_failed(&mut self, now: Instant, attempt: u64, kind: std::io::ErrorKind) {
        self.member.handle_connect_failed(now, attempt, kind);
        self.settle(now);
    }

    /// Octets from the server.
    pub fn handle_control_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.member.handle_bytes(now, bytes);
        self.settle(now);
    }

    /// Octets that were written to the server's connection.
    pub fn handle_control_sent(&mut self, now: Instant, octets: usize) {
        self.member.handle_sent(now, octets);
        self.settle(now);
    }

    /// That connection was made, and the server or what stands there could not prove to be the one
    /// that was meant; `why` is for people.
    pub fn handle_control_refused(&mut self, now: Instant, attempt: u64, why: &str) {
        self.member
            .handle_handshake_failed(now, attempt, why.to_owned());
        self.settle(now);
    }

    /// The connection to the server ended.
    pub fn handle_control_closed(&mut self, now: Instant) {
        self.member.handle_closed(now);
        self.settle(now);
    }

    /// A timer rang.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.rdt.handle_timeout(now);
        self.look_at_paths(now);
        self.look_at_detours(now);
        if self.member.poll_timeout().is_some_and(|t| t <= now) {
            self.member.handle_timeout(now);
        }
        if self.pool.poll_timeout().is_some_and(|t| t <= now) {
            self.pool.handle_timeout(now);
        }
        if self.collector.poll_timeout().is_some_and(|t| t <= now) {
            self.collector.handle_timeout(now);
        }
        if self
            .seal
            .as_ref()
            .is_some_and(|seal| seal.renew_at() <= now)
        {
            self.renew_profile(now);
        }
        if self.receipts.poll_timeout().is_some_and(|t| t <= now) {
            self.send_receipts(now, false);
        }
        if self.handovers.poll_timeout().is_some_and(|t| t <= now) {
            self.send_handovers(now, false);
        }
        if self.limits.is_due(now) {
            self.pump_limited(now);
        }
        self.express_timeout(now);
        self.look_after_shares(now);
        self.keep_memories(now);
        self.reputation.handle_timeout(now);
        if self.tick_at.is_some_and(|t| t <= now) {
            self.tick_at = None;
            self.tick(now);
        }
        self.settle(now);
    }

    // ---- what is to be done ----------------------------------------------------------------

    /// Writes the next datagram into `buf`, which is cleared first.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            while let Some(transmit) = self.rdt.poll_transmit(now, buf) {
                if !self.relay_datagram(now, &transmit, buf) {
                    self.detour_datagram(now, &transmit, buf);
                    return Some(transmit);
                }
            }
            let shares = self.pump_held_back(now);
            if !self.pump_express(now) && !shares {
                return None;
            }
        }
    }

    /// The system refused to send a datagram of so many octets because no interface carries it.
    pub fn datagram_refused(&mut self, now: Instant, to: std::net::SocketAddr, octets: usize) {
        self.rdt.refused(now, to, octets);
        self.settle(now);
    }

    /// The next thing for the driver to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.member.poll_output() {
            return Some(Output::Control(output));
        }
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.rdt.poll_timeout(),
            self.member.poll_timeout(),
            self.pool.poll_timeout(),
            self.collector.poll_timeout(),
            self.tick_at,
            self.receipts.poll_timeout(),
            self.handovers.poll_timeout(),
            self.limits.poll_timeout(),
            self.seal.as_ref().map(Seal::renew_at),
            self.durable_timeout(),
            self.reputation.poll_timeout(),
            self.express.poll_timeout(),
            self.detour_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- what the application wants --------------------------------------------------------

    /// Asks the server for something; the answer is [`Output::Reply`].
    pub fn request(&mut self, now: Instant, request: Request) -> RequestId {
        let id = self.member.request(now, request);
        self.settle(now);
        id
    }

    /// Ends all transfers and begins no more. Go on until [`is_quiet`](Self::is_quiet), so that
    /// peers hear what they need to know, but not for long; then [`hang_up`](Self::hang_up).
    ///
    /// A [durable](Self::is_durable) node ends nothing: the next run goes on.
    pub fn close(&mut self, now: Instant) {
        if self.is_durable() {
            self.close_memories(now);
            self.express_last_words(now);
            return self.settle(now);
        }
        let ids: Vec<MessageId> = self.outgoing.keys().copied().collect();
        for id in ids {
            self.fail_outgoing(now, id, TransferError::Closed, true);
        }
        let handles: Vec<u64> = self.incoming.keys().copied().collect();
        for handle in handles {
            self.fail_incoming(now, handle, TransferError::Closed);
        }
        self.express_last_words(now);
        self.send_receipts(now, true);
        self.send_handovers(now, true);
        self.settle(now);
    }

    /// Whether nothing waits to go to a peer, or to be confirmed by one.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let written = |peer: &NodeId| {
            self.rdt
                .stats(*peer)
                .is_none_or(|s| s.bytes_in_flight == 0 && s.queued == 0)
        };
        self.peers
            .iter()
            .all(|(id, p)| (!p.has_work() || p.is_down()) && written(id))
    }

    /// Closes the sessions with all peers and leaves the server. Drain the outputs, then drop the
    /// core.
    pub fn hang_up(&mut self, now: Instant) {
        let peers: BTreeSet<NodeId> = self.rdt.peers().collect();
        for peer in peers {
            self.rdt.close(now, peer, 0, "closed");
        }
        self.member.stop();
        self.settle(now);
    }

    // ---- inside ----------------------------------------------------------------------------

    /// Lets the parts hear of each other until all is quiet.
    fn settle(&mut self, now: Instant) {
        self.look_for_answers(now);
        loop {
            let mut quiet = true;
            while let Some(event) = self.rdt.poll_event() {
                quiet = false;
                self.on_transport(now, event);
            }
            while let Some(event) = self.member.poll_event() {
                quiet = false;
                self.on_member(now, event);
            }
            while let Some(event) = self.pool.poll_event() {
                quiet = false;
                self.on_pool(now, event);
            }
            while let Some(event) = self.collector.poll_event() {
                quiet = false;
                self.on_collector(now, event);
            }
            while let Some(event) = self.reputation.poll_event() {
                self.on_reputation(now, event);
            }
            if quiet {
                break;
            }
        }
        self.pump_ahead(now);
        self.finish_early(now);
        if self.tick_at.is_none() {
            let busy = !self.outgoing.is_empty()
                || !self.incoming.is_empty()
                || !self.early.is_empty()
                || self.open.is_busy()
                || self
                    .peers
                    .iter()
                    .any(|(id, p)| p.has_work() || !self.is_member(*id));
            self.tick_at = busy.then(|| now + TICK);
        }
        self.keep(now);
    }

    /// Looks at what has been under way for too long.
    fn tick(&mut self, now: Instant) {
        self.tick_kept(now);
        self.tick_outgoing(now);
        self.tick_incoming(now);
        self.tick_open(now);
        self.tick_links(now);
    }

    fn on_member(&mut self, now: Instant, event: MemberEvent) {
        let told = matches!(
            event,
            MemberEvent::Push(_) | MemberEvent::Reply { .. } | MemberEvent::KeyChanged { .. }
        );
        self.on_member_event(now, event);
        self.keep_clusters();
        if told {
            self.remember_clusters(now);
        }
    }

    fn on_member_event(&mut self, now: Instant, event: MemberEvent) {
        match event {
            MemberEvent::Registered { .. } => self.event(Event::Registered),
            MemberEvent::Reply { request, result } => {
                if self.joined_again(now, request, &result) {
                    return;
                }
                if let Ok(Reply::Profile { id, profile }) = &result {
                    self.on_profile(now, *id, profile);
                }
                self.outputs.push_back(Output::Reply { request, result });
            }
            MemberEvent::Push(message) => self.on_push(now, message),
            MemberEvent::Disconnected { reason, retry_in } => {
                self.lost_sight();
                self.event(Event::ServerLost {
                    reason: reason.to_string(),
                    retry_in,
                });
            }
            MemberEvent::ClusterLost { cluster, reason } => {
                let reason = match reason {
                    Some(error) => error.to_string(),
                    None => "the server removed this node".into(),
                };
                self.event(Event::ClusterLost { cluster, reason });
                self.strand(now, cluster);
            }
            MemberEvent::KeyChanged { cluster, old, new } => self.key_changed(cluster, old, new),
            MemberEvent::RelayRefused { to, index, .. } => self.relay_refused(now, to, index),
            MemberEvent::State { cluster, state } => {
                self.event(Event::ClusterState { cluster, state });
                self.pump_sources(now);
            }
            _ => {}
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn new_message_id(&mut self) -> MessageId {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        MessageId::from_random(id)
    }

    fn remember_ended(&mut self, from: NodeId, transfer: MessageId, whole: bool) {
        if self.ended_set.insert((from, transfer), whole).is_none() {
            self.ended.push_back((from, transfer));
        }
        while self.ended.len() > self.max_ended() {
            if let Some(old) = self.ended.pop_front() {
                self.ended_set.remove(&old);
                self.end_forgotten(old);
            }
        }
    }

    /// The clusters that hold a member besides this node, usable ones first.
    fn clusters_with(&self, peer: NodeId) -> Vec<ClusterId> {
        let mut all: Vec<(bool, ClusterId)> = self
            .member
            .roster()
            .filter(|(_, c)| c.member(peer).is_some())
            .map(|(id, c)| (!c.state().is_active(), id))
            .collect();
        all.sort();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Where the driver put a received file.
    pub fn sink_finished(&mut self, now: Instant, handle: u64, path: PathBuf) {
        if !self.keep_named(now, handle, &path) {
            self.finish_incoming(now, handle, path);
        }
        self.settle(now);
    }
}
