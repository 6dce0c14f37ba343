//! Entering a cluster and waiting for it.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use vmdt_node::{
    Cluster, ClusterEntry, ClusterId, ClusterStatus, Event, Events, MemberState, Node, NodeId,
    Policy, safe_name,
};

use crate::terminal::{octets, plural, printable};

/// Members beyond n that a cluster made here takes.
const SPARE_MEMBERS: u16 = 16;
/// Attempts to reach the server before a program gives up. A name may have several addresses.
const ATTEMPTS: u32 = 4;
/// How long a program that ends waits for the server's good-bye.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a receiver that ends waits until its last confirmations are there.
const LINGER: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);
/// How often the server is asked for clusters while it has none.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Someone pressed Ctrl-C, or the system asked the program to end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Ends when the program is to end: Ctrl-C, and the system's request to terminate.
pub async fn stop_requested() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                result = tokio::signal::ctrl_c() => if result.is_ok() { return },
                _ = terminate.recv() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // no such signal here: nobody can ask
        std::future::pending::<()>().await;
    }
}

/// Runs something until it is done or the program is to end.
///
/// # Errors
/// [`Interrupted`], or what it fails with.
pub async fn unless_stopped<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = stop_requested() => Err(Interrupted.into()),
    }
}

/// Which cluster to be in.
#[derive(Debug, Clone)]
pub enum Membership {
    /// A new one: any k of n shares rebuild a message.
    Create {
        /// Shares in all, and members it takes to be ready.
        n: u8,
        /// Shares that rebuild a message.
        k: u8,
    },
    /// This one.
    Join(ClusterId),
    /// The only one that the server lists.
    Only,
}

/// How a program takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`.
    pub server: String,
    /// The node's id; a random one where there is none.
    pub id: Option<String>,
    /// Which cluster.
    pub membership: Membership,
    /// Datagrams lost on purpose, 0 to 1.
    pub loss: f64,
    /// How long a transfer may stand still.
    pub stall: Option<Duration>,
    /// Where received files go; without it they are refused.
    pub downloads: Option<PathBuf>,
}

/// A node in a cluster.
#[derive(Debug)]
pub struct Session {
    /// The node.
    pub node: Node,
    /// What happens at it.
    pub events: Events,
    /// The cluster it entered.
    pub cluster: Cluster,
}

impl Session {
    /// Binds a node, registers it and enters the cluster. `note` is told what is waited for.
    ///
    /// # Errors
    /// The first thing that did not work, and what to try.
    pub async fn open(settings: &Settings, note: impl FnMut(&str)) -> Result<Session> {
        let node = bind(settings).await?;
        let mut events = node.events();
        let entered = async {
            registered(&mut events, &settings.server).await?;
            enter(&node, &settings.membership, note).await
        };
        match entered.await {
            Ok(cluster) => Ok(Session {
                node,
                events,
                cluster,
            }),
            Err(error) => {
                node.close().await;
                Err(error)
            }
        }
    }

    /// The cluster as it is now.
    ///
    /// # Errors
    /// When this node is not a member any more.
    pub async fn status(&self) -> Result<ClusterStatus> {
        self.cluster
            .status()
            .await?
            .ok_or_else(|| anyhow!("this node is no longer a member of {}", self.cluster.id()))
    }

    /// Waits until the last confirmations have reached the others, for a few seconds at the most:
    /// a sender whose confirmation is lost would wait in vain for a node that is gone.
    pub async fn settle(&self) {
        let quiet = async {
            loop {
                match self.node.paths().await {
                    Ok(paths)
                        if paths
                            .iter()
                            .any(|p| p.stats.bytes_in_flight > 0 || p.stats.queued > 0) =>
                    {
                        sleep(POLL).await
                    }
                    _ => break,
                }
            }
        };
        // what is to be confirmed may not have left yet
        sleep(POLL).await;
        let _ = timeout(LINGER, quiet).await;
    }

    /// Leaves the cluster and closes the node.
    pub async fn close(&self) {
        let _ = timeout(LEAVE_TIMEOUT, self.cluster.leave()).await;
        self.node.close().await;
    }
}

async fn bind(settings: &Settings) -> Result<Node> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|e| anyhow!("the system gives no random numbers: {e}"))?;
    let mut builder = Node::builder()
        .server(&settings.server)
        .inject_loss(settings.loss, u64::from_le_bytes(seed));
    if let Some(id) = &settings.id {
        builder = builder.id(id);
    }
    if let Some(stall) = settings.stall {
        builder = builder.stall_timeout(stall);
    }
    if let Some(downloads) = &settings.downloads {
        builder = builder.downloads(downloads);
    }
    Ok(builder.bind().await?)
}

/// Waits for the registration. A node tries for ever; a person wants to know.
async fn registered(events: &mut Events, server: &str) -> Result<()> {
    let mut attempts = 0;
    loop {
        match events.next().await {
            Some(Event::Registered) => return Ok(()),
            Some(Event::ServerLost { reason, .. }) => {
                attempts += 1;
                if attempts >= ATTEMPTS {
                    let address = server.strip_prefix("vmdt://").unwrap_or(server);
                    match TcpStream::connect(address.trim_end_matches('/')).await {
                        Ok(_) => bail!(
                            "{} (the server {server} can be reached)",
                            printable(&reason)
                        ),
                        Err(cause) => bail!(
                            "no server answers at {server}: {cause}; is one running there? \
                             `file_transfer serve --listen HOST:PORT` starts one"
                        ),
                    }
                }
            }
            Some(_) => {}
            None => bail!("the node was closed"),
        }
    }
}

/// Enters a cluster. While the server has none, [`Membership::Only`] waits for one; `note` is told.
pub(crate) async fn enter(
    node: &Node,
    membership: &Membership,
    mut note: impl FnMut(&str),
) -> Result<Cluster> {
    match membership {
        Membership::Create { n, k } => {
            let policy = Policy::k_of_n(*k, *n).max_members(u16::from(*n) + SPARE_MEMBERS);
            Ok(node.create_cluster(policy).await?)
        }
        Membership::Join(id) => Ok(node.join_cluster(id).await?),
        Membership::Only => {
            let mut noted = false;
            loop {
                let listed = node.list_clusters().await?;
                match listed.as_slice() {
                    [only] => return Ok(node.join_cluster(&only.cluster).await?),
                    [] if !noted => {
                        note(
                            "the server has no cluster yet: waiting for one (someone must join with --create N,K)",
                        );
                        noted = true;
                    }
                    [] => {}
                    several => bail!("{}", choose(several)),
                }
                sleep(ASK_AGAIN).await;
            }
        }
    }
}

fn choose(clusters: &[ClusterEntry]) -> String {
    let list: Vec<String> = clusters
        .iter()
        .map(|c| {
            format!(
                "{} (by {}, {} member{})",
                c.cluster,
                c.creator,
                c.members,
                plural(c.members.into())
            )
        })
        .collect();
    format!(
        "the server has {} clusters; choose one with --cluster ID: {}",
        clusters.len(),
        list.join(", ")
    )
}

/// What the cluster still waits for; `None` when messages can be sent.
#[must_use]
pub fn waiting_for(status: &ClusterStatus, own: NodeId) -> Option<String> {
    if status.ready {
        return None;
    }
    let present = 1 + others(status, own).len();
    let missing = usize::from(status.n).saturating_sub(present);
    Some(if missing == 0 {
        "waiting for the server to say that the cluster is ready".to_owned()
    } else {
        format!(
            "waiting for {missing} more member{} ({present} of {} are here)",
            plural(missing),
            status.n
        )
    })
}

/// The members that are there, without this node.
#[must_use]
pub fn others(status: &ClusterStatus, own: NodeId) -> Vec<NodeId> {
    status
        .members
        .iter()
        .filter(|m| m.present && m.id != own)
        .map(|m| m.id)
        .collect()
}

/// An event in a person's words; `None` for those that are no news.
#[must_use]
pub fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::Registered => "connected to the server".to_owned(),
        Event::ServerLost { reason, retry_in } => {
            format!(
                "no connection to the server: {}; trying again in {:.1} s",
                printable(reason),
                retry_in.as_secs_f64()
            )
        }
        Event::ClusterReady { cluster } => format!("cluster {cluster} is ready"),
        Event::ClusterLost { cluster, reason } => {
            format!(
                "this node is no longer in cluster {cluster}: {}",
                printable(reason)
            )
        }
        Event::Member { id, state, .. } => format!("{id} {}", happened(*state)),
        Event::Message { from, data, .. } => {
            format!("{from}: {}", printable(&String::from_utf8_lossy(data)))
        }
        Event::FileStarted {
            from, name, size, ..
        } => {
            let size = size
                .map(|s| format!(" ({})", octets(s)))
                .unwrap_or_default();
            format!("{from} sends {}{size}", printable(&safe_name(name)))
        }
        Event::FileReceived {
            from, path, size, ..
        } => {
            format!(
                "{} from {from} is complete ({})",
                printable(&path.display().to_string()),
                octets(*size)
            )
        }
        Event::ReceiveFailed { from, error, .. } => {
            format!(
                "what {from} sent did not arrive: {}",
                printable(&error.to_string())
            )
        }
        Event::PathUp { peer, address } => format!("direct path to {peer} at {address}"),
        Event::PathDown { peer } => format!("no direct path to {peer}"),
        Event::BadShare { from, index, .. } => {
            format!(
                "{from} handed over a share ({index}) that is not what was announced; it was not used"
            )
        }
        Event::OpenPeer { peer } => {
            format!("{peer} speaks profile 1.0: what goes there is not protected")
        }
        _ => return None,
    })
}

/// What became of a member.
#[must_use]
pub fn happened(state: MemberState) -> &'static str {
    match state {
        MemberState::Joined => "has joined",
        MemberState::Back => "is back",
        MemberState::Away => "has lost its connection",
        MemberState::Left => "has left",
    }
}
