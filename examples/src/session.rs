//! Entering a cluster and waiting for it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use vmdt_node::seal::keyfile::{self, KeyFileError};
use vmdt_node::seal::ticket::TICKET_MAX_LEN;
use vmdt_node::{
    Cluster, ClusterStatus, Event, Events, MemberState, Node, NodeError, NodeId, Policy, Ticket,
    safe_name,
};

use crate::names::Names;
use crate::terminal::{octets, plural, printable};

/// Attempts to reach the server before a program gives up. A name may have several addresses.
const ATTEMPTS: u32 = 4;
/// How long a program that ends waits for the server's good-bye.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a receiver that ends waits until its last confirmations are there.
const LINGER: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);
/// How often a ticket that is not there or not good yet is looked at.
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
        /// Where its ticket goes, for others to find.
        ticket: Option<PathBuf>,
    },
    /// That of this ticket.
    Join(Box<Ticket>),
    /// That of the ticket in this file, as soon as it is there and good.
    Find(PathBuf),
}

/// How a program takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `vmdt://KEY@host:port`; nothing where a ticket names the server.
    pub server: Option<String>,
    /// What the node calls itself.
    pub name: Option<String>,
    /// Which cluster.
    pub membership: Membership,
    /// Datagrams lost on purpose, 0 to 1.
    pub loss: f64,
    /// How long a transfer may stand still.
    pub stall: Option<Duration>,
    /// Where received files go; without it they are refused.
    pub downloads: Option<PathBuf>,
}

/// A ticket, from its text or from the file that it stands in: only its owner may be able to read
/// that.
///
/// # Errors
/// What is wrong, for a person.
pub fn parse_ticket(text: &str) -> Result<Ticket, String> {
    let prefix = text.trim_start().get(..5).unwrap_or_default();
    if prefix.eq_ignore_ascii_case("vmdt1") {
        return text.parse().map_err(|e| format!("{e}"));
    }
    read_ticket(Path::new(text)).map_err(|e| format!("{e:#}"))
}

/// Reads a ticket from a file.
pub(crate) fn read_ticket(path: &Path) -> Result<Ticket> {
    let octets = keyfile::read_secret(path, TICKET_MAX_LEN)?;
    let wrong = |cause: String| anyhow!("{} holds no ticket: {cause}", path.display());
    let text = std::str::from_utf8(&octets).map_err(|e| wrong(e.to_string()))?;
    text.parse().map_err(|e| wrong(format!("{e}")))
}

/// Writes a ticket to a file that only its owner can read.
fn write_ticket(path: &Path, ticket: &Ticket) -> Result<()> {
    let mut text = ticket.encode();
    text.push('\n');
    Ok(keyfile::replace_secret(path, text.as_bytes())?)
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
    /// A ticket for that cluster.
    pub ticket: Ticket,
    /// The members' names, as far as they are known.
    pub names: Names,
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
            registered(&mut events, settings).await?;
            enter(&node, &settings.membership, note).await
        };
        match entered.await {
            Ok((cluster, ticket)) => {
                let mut names = Names::default();
                names.insert(node.id(), settings.name.as_deref().unwrap_or_default());
                Ok(Session {
                    node,
                    events,
                    cluster,
                    ticket,
                    names,
                })
            }
            Err(error) => {
                node.close().await;
                Err(error)
            }
        }
    }

    /// The cluster as it is now. The members' names are taken in.
    ///
    /// # Errors
    /// When this node is not a member any more.
    pub async fn status(&mut self) -> Result<ClusterStatus> {
        let status =
            self.cluster.status().await?.ok_or_else(|| {
                anyhow!("this node is no longer a member of {}", self.cluster.id())
            })?;
        self.names.learn(&status);
        Ok(status)
    }

    /// An event in a person's words, with the names that are known by now; `None` for those that
    /// are no news.
    pub async fn describe(&mut self, event: &Event) -> Option<String> {
        // whether it is news does not depend on the names
        describe(event, &self.names)?;
        let _ = self.status().await;
        describe(event, &self.names)
    }

    /// This node as people know it.
    #[must_use]
    pub fn own_name(&self) -> String {
        self.names.show(self.node.id())
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
    let mut builder = Node::builder().inject_loss(settings.loss, u64::from_le_bytes(seed));
    if let Some(server) = &settings.server {
        builder = builder.server(server);
    }
    if let Membership::Join(ticket) = &settings.membership {
        builder = builder.ticket(ticket);
    }
    if let Some(name) = &settings.name {
        builder = builder.name(name);
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
async fn registered(events: &mut Events, settings: &Settings) -> Result<()> {
    let mut attempts = 0;
    loop {
        match events.next().await {
            Some(Event::Registered) => return Ok(()),
            Some(Event::ServerLost { reason, .. }) => {
                attempts += 1;
                if attempts >= ATTEMPTS {
                    let server = server_of(settings);
                    match TcpStream::connect(&server).await {
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

/// The first server's host and port.
fn server_of(settings: &Settings) -> String {
    match (&settings.server, &settings.membership) {
        (Some(server), _) => {
            let server = server.trim_end_matches('/');
            let server = server.strip_prefix("vmdt://").unwrap_or(server);
            let name = server.rsplit_once('@').map_or(server, |(_, name)| name);
            name.to_owned()
        }
        (None, Membership::Join(ticket)) => ticket
            .servers()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        (None, _) => String::new(),
    }
}

/// Enters a cluster, and has a ticket for it. [`Membership::Find`] waits for one; `note` is told.
pub(crate) async fn enter(
    node: &Node,
    membership: &Membership,
    mut note: impl FnMut(&str),
) -> Result<(Cluster, Ticket)> {
    match membership {
        Membership::Create { n, k, ticket: path } => {
            let cluster = node.create_cluster(Policy::k_of_n(*k, *n)).await?;
            let ticket = cluster.ticket().await?;
            if let Some(path) = path {
                write_ticket(path, &ticket)?;
            }
            Ok((cluster, ticket))
        }
        Membership::Join(ticket) => Ok((node.join(ticket).await?, (**ticket).clone())),
        Membership::Find(path) => {
            let mut noted = String::new();
            loop {
                let waiting = match read_ticket(path) {
                    Ok(ticket) => match node.join(&ticket).await {
                        Ok(cluster) => return Ok((cluster, ticket)),
                        // one from before, perhaps, which is about to be replaced
                        Err(error @ NodeError::Request { .. }) => {
                            format!("waiting for a ticket ({})", printable(&error.to_string()))
                        }
                        Err(error) => return Err(error.into()),
                    },
                    Err(error) if is_missing(&error) => "waiting for a ticket".to_owned(),
                    Err(error) => return Err(error),
                };
                if waiting != noted {
                    note(&waiting);
                    noted = waiting;
                }
                sleep(ASK_AGAIN).await;
            }
        }
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(KeyFileError::Io { source, .. })
        if source.kind() == std::io::ErrorKind::NotFound)
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
pub fn describe(event: &Event, names: &Names) -> Option<String> {
    let who = |id: &NodeId| names.show(*id);
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
        Event::Member { id, state, .. } => format!("{} {}", who(id), happened(*state)),
        Event::Message { from, data, .. } => {
            format!(
                "{}: {}",
                who(from),
                printable(&String::from_utf8_lossy(data))
            )
        }
        Event::FileStarted {
            from, name, size, ..
        } => {
            let size = size
                .map(|s| format!(" ({})", octets(s)))
                .unwrap_or_default();
            format!("{} sends {}{size}", who(from), printable(&safe_name(name)))
        }
        Event::FileReceived {
            from, path, size, ..
        } => {
            format!(
                "{} from {} is complete ({})",
                printable(&path.display().to_string()),
                who(from),
                octets(*size)
            )
        }
        Event::ReceiveFailed { from, error, .. } => {
            format!(
                "what {} sent did not arrive: {}",
                who(from),
                printable(&error.to_string())
            )
        }
        Event::PathUp { peer, address } => format!("direct path to {} at {address}", who(peer)),
        Event::PathDown { peer } => format!("no direct path to {}", who(peer)),
        Event::BadShare { from, index, .. } => {
            format!(
                "{} handed over a share ({index}) that is not what was announced; it was not used",
                who(from)
            )
        }
        Event::OpenPeer { peer } => {
            format!(
                "{} speaks profile 1.0: what goes there is not protected",
                who(peer)
            )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_without_its_key() {
        for (server, name) in [
            ("vmdt://KEY@host:1/", "host:1"),
            ("vmdt://KEY@[::1]:1", "[::1]:1"),
            ("host:1", "host:1"),
        ] {
            let settings = Settings {
                server: Some(server.into()),
                name: None,
                membership: Membership::Find(PathBuf::new()),
                loss: 0.0,
                stall: None,
                downloads: None,
            };
            assert_eq!(server_of(&settings), name);
        }
    }

    #[test]
    fn a_ticket_is_a_text_or_a_file_that_only_its_owner_reads() {
        let error = parse_ticket("VMDT1abc").unwrap_err();
        assert!(error.contains("typing error"), "{error}");
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("ticket");
        let text = path.to_str().unwrap();
        let error = parse_ticket(text).unwrap_err();
        assert!(error.contains(text), "{error}");
        assert!(is_missing(&read_ticket(&path).unwrap_err()));
        keyfile::replace_secret(&path, b"something else\n").unwrap();
        let error = parse_ticket(text).unwrap_err();
        assert!(error.contains("holds no ticket"), "{error}");
        assert!(!is_missing(&read_ticket(&path).unwrap_err()));
    }
}
