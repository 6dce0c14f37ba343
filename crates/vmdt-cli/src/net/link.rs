//! A node in a cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use vmdt_node::{
    Cluster, ClusterEntry, ClusterStatus, Event, Events, MemberState, Node, NodeError, PathReport,
    Policy, SendOptions, Sending, TransferError,
};

use super::mode::Mode;
use super::names::Names;
use super::who::Who;
use super::{ClusterId, Peer, Ticket, host_port};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;

/// Members beyond n that a cluster of profile 1.0 takes: a receiver that was killed keeps its
/// place for a while after it is back.
const SPARE_MEMBERS: u16 = 16;
/// How long a program that ends waits for the server's good-bye.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a program that ends waits until its last confirmations are there.
const LINGER: Duration = Duration::from_secs(3);
/// Octets of a segment: a frame with a whole chunk of a file makes eight full ones, where one of
/// 128 KiB exactly would make nine.
const SEGMENT: usize = crate::xfer::CHUNK / 8 + 32;
/// Octets of a segment where the rate is limited, at least.
const SMALLEST_SEGMENT: usize = 1024;
const POLL: Duration = Duration::from_millis(50);

/// What a node is to be.
#[derive(Debug, Clone)]
pub(crate) struct NodeSettings {
    /// `vmdt://KEY@host:port`, or `host:port` in the open profile, in the order they are tried.
    pub(crate) servers: Vec<String>,
    pub(crate) who: Who,
    /// What members see this node as.
    pub(crate) name: String,
    pub(crate) bind: IpAddr,
    pub(crate) stall: Duration,
    pub(crate) attempts: u64,
    pub(crate) mode: Option<Mode>,
    /// Where files that members send by themselves go; without it they are refused.
    pub(crate) downloads: Option<PathBuf>,
    /// Where what outlives the process goes; without it all of that is in memory.
    pub(crate) storage: Option<PathBuf>,
}

impl NodeSettings {
    /// A node of these servers, the rest as configured.
    ///
    /// # Errors
    /// When the key of this node can't be used.
    pub(crate) fn new(settings: &Settings, servers: Vec<String>) -> Outcome<NodeSettings> {
        Ok(NodeSettings {
            servers,
            who: Who::of(settings)?,
            name: settings.name(false),
            bind: settings.bind(),
            stall: settings.time("stall_timeout").max(Duration::from_secs(1)),
            attempts: settings.number("max_retries") + 1,
            mode: None,
            downloads: None,
            storage: None,
        })
    }

    /// For a transfer: who is who is shown by the code, so the key is a passing one and transfers
    /// can't be linked, unless a key was chosen. One who was killed and is back is then a node of
    /// its own, which nobody takes for the one that has gone.
    pub(crate) fn for_transfer(&mut self, settings: &Settings) {
        if !self.who.is_open() && settings.text("identity").is_empty() {
            self.who = Who::Passing;
        }
    }

    /// Gives the node a name of its own, which in the open profile is its id.
    pub(crate) fn call(&mut self, name: Option<&str>) {
        let Some(name) = name else { return };
        match &mut self.who {
            Who::Open(id) => name.clone_into(id),
            _ => name.clone_into(&mut self.name),
        }
    }
}

/// Octets that each carrier brought, by its name.
pub(crate) type Carried = BTreeMap<String, (u64, u64)>;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Happened {
    /// A message for the application, and who carried how much of it.
    Message {
        from: Peer,
        data: Bytes,
        carried: Carried,
    },
    /// A member is not there any more.
    Gone(Peer),
    /// The server is not there any more.
    ServerLost(String),
    /// The cluster is not there any more.
    ClusterLost(String),
    /// Something else, which interactive commands tell.
    Other(Event),
}

/// Clusters beside the one that was entered last.
type Others = Arc<Mutex<Vec<Cluster>>>;

/// A node that is registered with a server.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) node: Node,
    events: Events,
    /// An event that is being looked at.
    held: Option<Event>,
    cluster: Option<Cluster>,
    /// Clusters that were made besides, to be left at the end.
    others: Others,
    /// Keeps the key of this node its own.
    pub(crate) who: Who,
    options: SendOptions,
}

/// Which cluster to be in.
#[derive(Debug, Clone)]
pub(crate) enum Membership {
    /// A new one.
    Create { n: u8, k: u8 },
    /// The one of a ticket.
    Ticket(Box<Ticket>),
    /// This one, in the open profile.
    Open(ClusterId),
    /// The only one the server lists, in the open profile.
    Only,
    /// None yet.
    None,
}

fn node_failure(error: NodeError) -> Failure {
    let exit = match &error {
        NodeError::Server { .. } => Exit::NotFound,
        NodeError::Id(_)
        | NodeError::Config(_)
        | NodeError::NoServer
        | NodeError::ServerKey { .. }
        | NodeError::TicketNeeded
        | NodeError::Identity(_) => Exit::Usage,
        NodeError::NoServerKey { server } => {
            return Failure::usage(format!("the key of the server {server} is missing")).hint(
                "give it as vmdt://KEY@HOST:PORT, as `vmdt server` prints it; --open speaks profile 1.0 without any protection",
            );
        }
        NodeError::Transfer(error) => return transfer_failure(error),
        NodeError::Request { .. } => Exit::Refused,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// What a failed transfer means to a person.
pub(crate) fn transfer_failure(error: &TransferError) -> Failure {
    let exit = match error {
        TransferError::Stalled { .. }
        | TransferError::SenderSilent { .. }
        | TransferError::UnknownPeer { .. }
        // it was there when the transfer began
        | TransferError::ClusterNotReady { .. } => Exit::Vanished,
        TransferError::Remote { .. } | TransferError::Cancelled { .. } => Exit::Refused,
        TransferError::DigestMismatch { .. } | TransferError::Malformed { .. } => Exit::Corrupt,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// `2 of 3`, what a cluster waits for; `None` when it is ready.
pub(crate) fn waiting_for(status: &ClusterStatus) -> Option<String> {
    (!status.ready).then(|| {
        let present = status.members.iter().filter(|m| m.present).count() + 1;
        format!(
            "waiting for members: {present} of {} are here",
            status.n.max(present as u16 + 1)
        )
    })
}

impl Link {
    /// Binds a node, registers it and enters a cluster.
    ///
    /// # Errors
    /// The first thing that did not work, and what to try.
    pub(crate) async fn open(settings: &NodeSettings, membership: &Membership) -> Outcome<Link> {
        let mut builder = Node::builder()
            .local(SocketAddr::new(settings.bind, 0))
            .segment(SEGMENT)
            .stall_timeout(settings.stall);
        for server in &settings.servers {
            builder = builder.server(server);
        }
        builder = match &settings.who {
            Who::Own(held) => builder.identity_file(&held.path),
            Who::Passing => builder,
            Who::Open(id) => builder.open_profile(id),
        }
        .name(&settings.name);
        if let Some(folder) = &settings.downloads {
            builder = builder.downloads(folder);
        }
        if let Some(folder) = &settings.storage {
            builder = builder.storage(folder);
        }
        if let Some(transport) = settings
            .mode
            .as_ref()
            .map(Mode::transport)
            .transpose()?
            .flatten()
        {
            builder = builder.transport(transport);
        }
        let options = settings
            .mode
            .as_ref()
            .map_or_else(SendOptions::new, Mode::options);
        if let Some(limit) = settings.mode.as_ref().and_then(Mode::limit) {
            // a segment a second, so that what is slow is not taken for what stands still
            let segment = usize::try_from(limit.octets_per_second()).unwrap_or(SEGMENT);
            builder = builder
                .rate_limit(limit)
                .segment(segment.clamp(SMALLEST_SEGMENT, SEGMENT));
        }
        let node = builder.bind().await.map_err(|error| {
            let none = matches!(error, NodeError::NoServer);
            let failure = node_failure(error);
            if none {
                Failure::new(Exit::Usage, "no server is configured")
                    .hint("--server vmdt://KEY@HOST:PORT, VMDT_SERVER or `server` in config.toml name one; `vmdt server` runs one and prints that")
            } else {
                failure
            }
        })?;
        let events = node.events();
        let mut link = Link {
            node,
            events,
            held: None,
            cluster: None,
            others: Others::default(),
            who: settings.who.clone(),
            options,
        };
        match link.begin(settings, membership).await {
            Ok(()) => Ok(link),
            Err(failure) => {
                link.node.close().await;
                Err(failure)
            }
        }
    }

    async fn begin(&mut self, settings: &NodeSettings, membership: &Membership) -> Outcome<()> {
        self.registered(settings).await?;
        self.cluster = match membership {
            Membership::None => None,
            membership => Some(self.entered(membership).await?),
        };
        Ok(())
    }

    async fn entered(&self, membership: &Membership) -> Outcome<Cluster> {
        match membership {
            Membership::Create { n, k } => {
                let mut policy = Policy::k_of_n(*k, *n);
                if self.is_open() {
                    policy = policy.max_members(u16::from(*n) + SPARE_MEMBERS);
                }
                self.node.create_cluster(policy).await
            }
            Membership::Ticket(ticket) => self.node.join(ticket).await,
            Membership::Open(id) => self.node.join_cluster(id).await,
            Membership::Only => return self.only().await,
            Membership::None => return Err(Failure::usage("no cluster was named")),
        }
        .map_err(node_failure)
    }

    /// Waits for the registration. A node tries for ever; a person wants to know.
    async fn registered(&mut self, settings: &NodeSettings) -> Outcome<()> {
        let mut attempts = 0;
        while let Some(event) = self.events.next().await {
            match event {
                Event::Registered => return Ok(()),
                Event::ServerLost { reason, .. } => {
                    attempts += 1;
                    // one attempt may have several addresses of one name to try
                    if attempts >= settings.attempts {
                        return Err(unreachable(&settings.servers, &reason).await);
                    }
                }
                _ => {}
            }
        }
        Err(Failure::failed("the node was closed"))
    }

    /// Waits for the server to have exactly one cluster, and joins it.
    async fn only(&self) -> Outcome<Cluster> {
        loop {
            let clusters = self.clusters().await?;
            match clusters.as_slice() {
                [] => sleep(Duration::from_millis(500)).await,
                [one] => {
                    return self
                        .node
                        .join_cluster(&one.cluster)
                        .await
                        .map_err(node_failure);
                }
                several => {
                    let ids: Vec<_> = several.iter().map(|c| c.cluster.to_string()).collect();
                    return Err(Failure::usage(format!(
                        "the server has several clusters: {}",
                        ids.join(", ")
                    ))
                    .hint("name one with --cluster ID"));
                }
            }
        }
    }

    /// The clusters the server lists.
    pub(crate) async fn clusters(&self) -> Outcome<Vec<ClusterEntry>> {
        self.node.list_clusters().await.map_err(node_failure)
    }

    /// Enters another cluster.
    pub(crate) async fn enter(&mut self, membership: &Membership) -> Outcome<ClusterId> {
        let cluster = self.entered(membership).await?;
        let id = *cluster.id();
        self.cluster = Some(cluster);
        Ok(id)
    }

    /// A ticket for the cluster that was entered last; `None` in the open profile.
    ///
    /// # Errors
    /// When this node may not invite.
    pub(crate) async fn ticket(&self) -> Outcome<Option<Ticket>> {
        match &self.cluster {
            Some(cluster) if !self.is_open() => {
                cluster.ticket().await.map(Some).map_err(node_failure)
            }
            _ => Ok(None),
        }
    }

    /// Whether it speaks profile 1.0.
    pub(crate) fn is_open(&self) -> bool {
        self.who.is_open()
    }

    /// What the members of all clusters call themselves.
    pub(crate) async fn names(&self) -> Names {
        let clusters = self.node.clusters().await.unwrap_or_default();
        Names::of(clusters.iter().flat_map(|cluster| &cluster.members))
    }

    /// Leaves the cluster it is in.
    pub(crate) async fn leave(&mut self) -> Outcome<()> {
        match self.cluster.take() {
            Some(cluster) => cluster.leave().await.map_err(node_failure),
            None => Err(Failure::failed("this node is in no cluster")),
        }
    }

    pub(crate) fn id(&self) -> Peer {
        self.node.id()
    }

    /// The cluster that was entered last.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster.as_ref().map(|cluster| *cluster.id())
    }

    /// The cluster as this node knows it.
    pub(crate) async fn status(&self) -> Outcome<ClusterStatus> {
        let gone = || Failure::new(Exit::Vanished, "this node is in no cluster any more");
        let cluster = self.cluster.as_ref().ok_or_else(gone)?;
        cluster
            .status()
            .await
            .map_err(node_failure)?
            .ok_or_else(gone)
    }

    /// Whether messages to this member can be sent now.
    pub(crate) async fn can_reach(&self, peer: Peer) -> Outcome<bool> {
        let status = self.status().await?;
        Ok(status.ready && status.members.iter().any(|m| m.id == peer && m.present))
    }

    /// A cluster of this node with this member.
    pub(crate) async fn status_with(&self, peer: Peer) -> Option<ClusterStatus> {
        let clusters = self.node.clusters().await.ok()?;
        let with = |cluster: &&ClusterStatus| cluster.members.iter().any(|m| m.id == peer);
        let there =
            |cluster: &&ClusterStatus| cluster.members.iter().any(|m| m.id == peer && m.present);
        let found = clusters.iter().find(there);
        found.or_else(|| clusters.iter().find(with)).cloned()
    }

    /// The next thing that happens; `None` once the node is closed.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Happened> {
        if self.held.is_none() {
            self.held = Some(self.events.next().await?);
        }
        // held meanwhile, so that it is not lost when this is cancelled
        let gone = match &self.held {
            Some(Event::Member {
                id,
                state: MemberState::Left | MemberState::Away,
                ..
            }) => !self.is_here(*id).await,
            _ => false,
        };
        Some(match self.held.take()? {
            Event::Message {
                from, data, paths, ..
            } => Happened::Message {
                from,
                data,
                carried: by_name(&paths),
            },
            Event::Member { id, .. } if gone => Happened::Gone(id),
            Event::ServerLost { reason, .. } => Happened::ServerLost(reason),
            Event::ClusterLost { reason, .. } => Happened::ClusterLost(reason),
            other => Happened::Other(other),
        })
    }

    /// Whether a member is present in any of the clusters: one that began anew in another cluster
    /// has left the first one and is not gone.
    async fn is_here(&self, peer: Peer) -> bool {
        let status = self.status_with(peer).await;
        status.is_some_and(|s| s.members.iter().any(|m| m.id == peer && m.present))
    }

    /// Something to send messages with, for a task of its own.
    pub(crate) fn messenger(&self) -> Messenger {
        Messenger {
            node: self.node.clone(),
            others: Arc::clone(&self.others),
            options: self.options,
        }
    }

    /// The direct paths to members.
    pub(crate) async fn paths(&self) -> Vec<PathReport> {
        self.node.paths().await.unwrap_or_default()
    }

    /// How many shares went other ways than the usual one.
    pub(crate) async fn shares(&self) -> Vec<(&'static str, u64)> {
        let Ok(stats) = self.node.stats().await else {
            return Vec::new();
        };
        vec![
            ("sent beyond k, at once", stats.redundant_shares),
            ("moved to another path", stats.moved_shares),
            ("through the server", stats.relayed_shares),
            ("refused", stats.refused_shares + stats.bad_shares),
        ]
    }

    /// Waits until the last confirmations have reached the others, for a few seconds at the most:
    /// a sender whose confirmation is lost would wait in vain for a node that is gone.
    pub(crate) async fn settle(&self) {
        let quiet = async {
            loop {
                // nobody waits for those that are gone
                let Ok(clusters) = self.node.clusters().await else {
                    return;
                };
                let members = clusters.iter().flat_map(|cluster| &cluster.members);
                let here: Vec<Peer> = members.filter(|m| m.present).map(|m| m.id).collect();
                let busy = |p: &PathReport| {
                    here.contains(&p.peer) && (p.stats.bytes_in_flight > 0 || p.stats.queued > 0)
                };
                if !self.paths().await.iter().any(busy) {
                    return;
                }
                sleep(POLL).await;
            }
        };
        // what is to be confirmed may not have left yet
        sleep(POLL).await;
        let _ = timeout(LINGER, quiet).await;
    }

    /// Leaves the clusters and closes the node.
    pub(crate) async fn close(&self) {
        let leave = async {
            let others = self.others.lock().await;
            for cluster in self.cluster.iter().chain(others.iter()) {
                let _ = cluster.leave().await;
            }
        };
        let _ = timeout(LEAVE_TIMEOUT, leave).await;
        self.node.close().await;
    }
}

/// Why no server could be used.
async fn unreachable(servers: &[String], reason: &str) -> Failure {
    let mut causes = Vec::new();
    for server in servers {
        let connecting = TcpStream::connect(host_port(server));
        match timeout(Duration::from_secs(3), connecting).await {
            Ok(Ok(_)) => causes.push(format!("{server} can be reached, but: {reason}")),
            Ok(Err(cause)) => causes.push(format!("no server answers at {server}: {cause}")),
            Err(_) => causes.push(format!("no server answers at {server} in time")),
        }
    }
    Failure::new(Exit::NotFound, causes.join("; ")).hint(
        "is it running and is the address right? `vmdt server --listen ADDRESS:PORT` runs one",
    )
}

/// Shares and octets by the carriers' names.
pub(crate) fn by_name(paths: &vmdt_node::Paths) -> Carried {
    paths
        .iter()
        .map(|(carrier, carried)| (carrier.to_string(), (carried.shares, carried.octets)))
        .collect()
}

/// Adds what was carried.
pub(crate) fn add(sum: &mut Carried, more: &Carried) {
    for (name, (shares, octets)) in more {
        let entry = sum.entry(name.clone()).or_default();
        entry.0 += shares;
        entry.1 += octets;
    }
}

/// Sends messages. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Messenger {
    node: Node,
    others: Others,
    options: SendOptions,
}

impl Messenger {
    /// Sends a message and waits until the receiver's application has it.
    ///
    /// When the future is dropped the message is taken back.
    pub(crate) async fn send(&self, to: Peer, octets: Bytes) -> Outcome<Carried> {
        let sending = self.begin(to, octets).await?;
        let mut guard = Guard(Some(sending));
        let Some(sending) = guard.0.as_mut() else {
            return Ok(Carried::new());
        };
        let result = sending.delivered().await;
        // it is over: nothing to take back
        guard.0 = None;
        result
            .map(|receipt| by_name(receipt.paths()))
            .map_err(|error| transfer_failure(&error))
    }

    async fn begin(&self, to: Peer, octets: Bytes) -> Outcome<Sending> {
        let sending = self.node.send_with(to, octets, self.options).await;
        sending.map_err(node_failure)
    }

    /// Begins to send a message to several members at once.
    pub(crate) async fn begin_group(&self, to: &[Peer], octets: Bytes) -> Outcome<Sending> {
        let sending = self.node.send_to_group_with(to, octets, self.options).await;
        sending.map_err(node_failure)
    }

    /// Makes another cluster, and a ticket for it.
    pub(crate) async fn another_cluster(&self, n: u8, k: u8) -> Outcome<Ticket> {
        let policy = Policy::k_of_n(k, n);
        let cluster = self.node.create_cluster(policy).await;
        let cluster = cluster.map_err(node_failure)?;
        self.others.lock().await.push(cluster.clone());
        cluster.ticket().await.map_err(node_failure)
    }

    /// Sends a file as the node itself does, without this program at the other end.
    pub(crate) async fn send_file(
        &self,
        to: Peer,
        path: &std::path::Path,
    ) -> Outcome<vmdt_node::Receipt> {
        receipt(self.begin_file(to, path).await?).await
    }

    /// Begins to send a file.
    pub(crate) async fn begin_file(&self, to: Peer, path: &std::path::Path) -> Outcome<Sending> {
        let sending = self.node.send_path_with(to, path, self.options).await;
        sending.map_err(node_failure)
    }

    /// Sends a message and gives the whole receipt.
    pub(crate) async fn send_for_receipt(
        &self,
        to: Peer,
        octets: Bytes,
    ) -> Outcome<vmdt_node::Receipt> {
        receipt(self.begin(to, octets).await?).await
    }
}

/// Waits until the receiver's application has it.
async fn receipt(mut sending: Sending) -> Outcome<vmdt_node::Receipt> {
    let delivered = sending.delivered().await;
    delivered.map_err(|error| transfer_failure(&error))
}

/// Takes a message back when nobody waits for it any more.
struct Guard(Option<Sending>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let (Some(sending), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move { sending.cancel().await });
        }
    }
}
