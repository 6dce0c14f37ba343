//! VMDT as an application uses it: `vmdt-node`'s public interface and nothing else.
//!
//! This module alone knows how a node is set up, so that another profile is a change here: a
//! control server, a sender, a receiver and relays, each a process on its own host, all members of
//! one cluster with the policy k of n.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{Semaphore, watch};
use vmdt_node::{
    Cluster, ClusterMemory, Event, Node, NodeId, Policy, SecretIdentity, Sending, Server, Ticket,
};

use super::{Arrived, HEAD, Inbox, Outbox, Tag, say, setting};
use crate::clock;
use crate::process::Args;

/// The version that is measured, and how it is set.
#[must_use]
pub fn describe() -> String {
    format!(
        "vmdt-node {}, profile 1.1 (sealed to the receiver, every datagram encrypted, signed \
         manifests), default settings, one message for each message of the workload; bulk content \
         is one message, 1 GiB over loopback messages of {} MiB, {AT_ONCE} at a time",
        env!("CARGO_PKG_VERSION"),
        MESSAGE >> 20
    )
}

/// What keeps a helper process going.
pub(crate) enum Helper {
    /// The control server.
    Server(#[allow(dead_code)] Server),
    /// A relay.
    Relay(#[allow(dead_code)] Node, #[allow(dead_code)] Cluster),
}

/// The largest message of a workload.
pub(crate) const MAX_MESSAGE: usize = 256 << 20;
/// Messages that make up more than that.
pub(crate) const MESSAGE: usize = 4 << 20;
/// How many of those are on their way at once: the next one is ready when one has arrived.
const AT_ONCE: u32 = 4;

/// Whether nodes speak profile 1.0, which can be read on the way.
fn is_open(args: &Args) -> bool {
    args.get("profile").is_some_and(|profile| profile == "1.0")
}

async fn node(args: &Args, id: &str, identity: Option<SecretIdentity>) -> Result<Node> {
    let server: String = setting(args, "server")?;
    let mut builder = Node::builder();
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    if is_open(args) {
        builder = builder.open_profile(id);
    }
    let node = builder
        .server(server)
        .max_message(MAX_MESSAGE)
        .bind()
        .await?;
    Ok(node)
}

/// Joins the cluster that the receiver made, with the ticket that the lab passes on.
async fn join(node: &Node, args: &Args) -> Result<Cluster> {
    if is_open(args) {
        // the only one there is
        let clusters = node.list_clusters().await?;
        let entry = clusters.first().context("no cluster was made")?;
        return Ok(node.join_cluster(&entry.cluster).await?);
    }
    let ticket: Ticket = setting(args, "ticket")?;
    Ok(node.join(&ticket).await?)
}

/// Starts the control server, or a relay.
pub(crate) async fn help(role: &str, args: &Args) -> Result<Helper> {
    if role == "control" {
        let at: SocketAddr = setting(args, "at")?;
        let server = if is_open(args) {
            let server = Server::open(at).await?;
            say(&format!("url {at}"));
            server
        } else {
            let server = Server::bind(at).await?;
            say(&format!("url {}", server.url().context("no key")?));
            server
        };
        say("ready");
        return Ok(Helper::Server(server));
    }
    let node = node(args, role, None).await?;
    let cluster = join(&node, args).await?;
    say("ready");
    Ok(Helper::Relay(node, cluster))
}

pub(crate) async fn serve(args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let node = node(args, "receiver", None).await?;
    let policy = Policy::k_of_n(setting(args, "k")?, setting(args, "n")?);
    let cluster = node.create_cluster(policy.max_members(255)).await?;
    // the others have to know both, the lab tells them
    say(&format!("id {}", node.id()));
    let ticket = if is_open(args) {
        "none".to_owned()
    } else {
        cluster.ticket().await?.encode().to_string()
    };
    say(&format!("ticket {ticket}"));
    let (heard, from) = watch::channel(None);
    tokio::spawn(write(node.clone(), from, outbox));
    tokio::spawn(read(node, cluster, inbox, heard));
    Ok(())
}

/// A sender that has been a member before: its key, and what it knows of its cluster.
pub(crate) struct Known(SecretIdentity, ClusterMemory);

/// Makes a sender a member, as an earlier run of it would have; `None` where it is to be none
/// before it connects.
pub(crate) async fn know(args: &Args) -> Result<Option<Known>> {
    if is_open(args) || !args.contains_key("known") {
        return Ok(None);
    }
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let identity = SecretIdentity::from_seed(&seed);
    let node = node(args, "sender", Some(identity.clone())).await?;
    let cluster = join(&node, args).await?;
    cluster.ready().await?;
    loop {
        let memory = cluster
            .memory()
            .await?
            .context("no memory of the cluster")?;
        if memory.is_complete() {
            node.close().await;
            return Ok(Some(Known(identity, memory)));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn connect(
    args: &Args,
    known: Option<Known>,
    outbox: Outbox,
    inbox: Inbox,
) -> Result<()> {
    let (node, cluster) = match known {
        Some(Known(identity, memory)) => {
            let node = node(args, "sender", Some(identity)).await?;
            let cluster = node.recall(&memory).await?;
            (node, cluster)
        }
        None => {
            let node = node(args, "sender", None).await?;
            let cluster = join(&node, args).await?;
            (node, cluster)
        }
    };
    cluster.ready().await?;
    let receiver: NodeId = setting(args, "receiver")?;
    let (heard, to) = watch::channel(Some(receiver));
    tokio::spawn(write(node.clone(), to, outbox));
    tokio::spawn(read(node, cluster, inbox, heard));
    Ok(())
}

/// Sends to whom `to` names: the receiver, or whoever was heard from last.
async fn write(node: Node, to: watch::Receiver<Option<NodeId>>, mut outbox: Outbox) -> Result<()> {
    let places = Arc::new(Semaphore::new(AT_ONCE as usize));
    let mut parts = false;
    while let Some(message) = outbox.recv().await {
        let to = (*to.borrow()).context("nobody to send to")?;
        // the last part leaves when all others have arrived, so that its arrival ends it all
        let place = match message.tag {
            Tag::Piece => Some(Arc::clone(&places).acquire_owned().await?),
            Tag::Last => Some(Arc::clone(&places).acquire_many_owned(AT_ONCE).await?),
            _ => None,
        };
        parts = message.tag == Tag::Piece || parts && message.tag == Tag::Last;
        match node.send(to, &message.octets).await {
            Ok(sending) if place.is_some() => {
                let watched = !parts;
                tokio::spawn(async move {
                    follow(sending, watched).await;
                    drop(place);
                });
            }
            Ok(_) => {}
            Err(error) => say(&format!("failed {error}")),
        }
    }
    Ok(())
}

/// Waits until bulk content has arrived, and tells how far it is where it is one message.
async fn follow(mut sending: Sending, watched: bool) {
    let mut progress = sending.progress();
    while watched && let Some(now) = progress.next().await {
        say(&format!("k {} {}", now.delivered, clock::nanos()));
    }
    if let Err(error) = sending.delivered().await {
        say(&format!("failed {error}"));
    }
}

async fn read(node: Node, cluster: Cluster, inbox: Inbox, heard: watch::Sender<Option<NodeId>>) {
    let mut events = node.events();
    while let Some(event) = events.next().await {
        if let Event::Message { data, from, .. } = event
            && let Some(arrived) = data
                .get(..HEAD)
                .and_then(|head| Arrived::now(head, data.len()))
        {
            heard.send_replace(Some(from));
            let _ = inbox.send(arrived);
        }
    }
    drop(cluster);
}
