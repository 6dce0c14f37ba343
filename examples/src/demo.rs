//! A server and a whole cluster in one process, and one file through it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;
use tokio::time::timeout;
use vmdt_node::{
    Carrier, Event, Events, Node, NodeId, Paths, Policy, Progress, Receipt, Sending, Server,
};

use crate::names::Names;
use crate::terminal::{grouped, hex, octets, rate, table};

/// The names of the first nodes; the second one receives.
const NAMES: [&str; 8] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi",
];
/// How long the cluster may take to become ready: all of it is on this machine.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often progress is told although there is none.
const TICK: Duration = Duration::from_millis(250);

/// What to show.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The file to send; without one, pseudo-random octets.
    pub path: Option<PathBuf>,
    /// Octets of the file that is made.
    pub size: u64,
    /// Nodes, and shares of a message.
    pub nodes: u8,
    /// Shares that rebuild it.
    pub k: u8,
    /// Datagrams of every node lost on purpose, 0 to 1.
    pub loss: f64,
    /// Where the received file goes and stays; without it a temporary folder.
    pub out: Option<PathBuf>,
    /// How long the transfer may stand still.
    pub stall: Option<Duration>,
}

impl Default for Demo {
    fn default() -> Self {
        Demo {
            path: None,
            size: 32 << 20,
            nodes: 5,
            k: 3,
            loss: 0.06,
            out: None,
            stall: None,
        }
    }
}

/// A node's datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    /// Whose.
    pub node: NodeId,
    /// Handed to the network, those lost on purpose included.
    pub sent: u64,
    /// Lost on purpose.
    pub dropped: u64,
    /// Segments that were sent again.
    pub resent: u64,
}

/// How it went.
#[derive(Debug)]
pub struct Summary {
    /// Who sent.
    pub from: NodeId,
    /// Who received.
    pub to: NodeId,
    /// The sender's side.
    pub receipt: Receipt,
    /// The receiver's side.
    pub used: Paths,
    /// Where the received file is, or was if the folder was temporary.
    pub path: PathBuf,
    /// Whether it is still there.
    pub kept: bool,
    /// Of the source as it was read from disk before anything was sent.
    pub sent: [u8; 32],
    /// Of the received file, read back from disk.
    pub received: [u8; 32],
    /// By node.
    pub datagrams: Vec<Datagrams>,
    /// Of the nodes.
    pub names: Names,
}

impl Summary {
    /// Whether the received file is the one that was sent.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.sent == self.received && self.sent == self.receipt.digest
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Receipt {
            octets: size, took, ..
        } = self.receipt;
        writeln!(
            f,
            "{} -> {}: {} in {:.2} s, {}\n",
            self.names.show(self.from),
            self.names.show(self.to),
            octets(size),
            took.as_secs_f64(),
            rate(size, took)
        )?;
        writeln!(
            f,
            "{}",
            carried(
                &[("given", self.receipt.paths()), ("used", &self.used)],
                &self.names
            )
        )?;
        writeln!(f, "{}", self.datagram_table())?;
        writeln!(f, "digest of what was sent:     {}", hex(&self.sent))?;
        let verdict = if self.is_same() {
            "the same"
        } else {
            "NOT THE SAME"
        };
        write!(
            f,
            "digest of what was received: {}  {verdict}",
            hex(&self.received)
        )
    }
}

impl Summary {
    fn datagram_table(&self) -> String {
        let mut rows = vec![
            ["datagrams", "sent", "lost on purpose", "resent"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let (mut sent, mut dropped, mut resent) = (0, 0, 0);
        for d in &self.datagrams {
            (sent, dropped, resent) = (sent + d.sent, dropped + d.dropped, resent + d.resent);
            let name = self.names.show(d.node);
            rows.push(datagram_row(&name, d.sent, d.dropped, d.resent));
        }
        rows.push(datagram_row("all", sent, dropped, resent));
        table(&rows)
    }
}

fn datagram_row(name: &str, sent: u64, dropped: u64, resent: u64) -> Vec<String> {
    let percent = if sent == 0 {
        0.0
    } else {
        dropped as f64 * 100.0 / sent as f64
    };
    vec![
        name.to_owned(),
        grouped(sent),
        format!("{} ({percent:.1}%)", grouped(dropped)),
        grouped(resent),
    ]
}

/// Who carried how much, side by side as several parties saw it.
#[must_use]
pub fn carried(sides: &[(&str, &Paths)], names: &Names) -> String {
    let mut header = vec!["carrier".to_owned()];
    for (side, _) in sides {
        header.extend([format!("shares {side}"), "octets".to_owned()]);
    }
    let mut carriers: Vec<Carrier> = sides
        .iter()
        .flat_map(|(_, paths)| paths.keys().copied())
        .collect();
    carriers.sort_unstable();
    carriers.dedup();
    let mut rows = vec![header];
    for carrier in carriers {
        let mut row = vec![names.carrier(carrier)];
        for (_, paths) in sides {
            match paths.get(&carrier) {
                Some(c) => row.extend([grouped(c.shares), octets(c.octets)]),
                None => row.extend(["-".to_owned(), "-".to_owned()]),
            }
        }
        rows.push(row);
    }
    table(&rows)
}

/// What the demonstration tells while it runs.
#[derive(Debug)]
pub enum Step<'a> {
    /// Everybody is there and the transfer begins.
    Ready {
        /// The server, with the key that it proves.
        server: &'a str,
        /// The nodes and where they are, sender and receiver first.
        nodes: &'a [(NodeId, SocketAddr)],
        /// What they are called.
        names: &'a Names,
        /// What is sent.
        file: &'a Path,
        /// Its size in octets.
        size: u64,
    },
    /// It goes on. Also told when nothing happened for a while.
    Progress(&'a Progress),
}

/// Runs the demonstration. Temporary folders are gone when it returns, also if it is dropped
/// halfway.
///
/// # Errors
/// What could not be bound, read, written or sent. Different digests are not an error of this
/// function: see [`Summary::is_same`].
pub async fn run(demo: &Demo, mut tell: impl FnMut(Step<'_>)) -> Result<Summary> {
    ensure!(
        2 <= demo.k && demo.k <= demo.nodes,
        "2 <= k <= nodes is required, not k = {}, nodes = {}",
        demo.k,
        demo.nodes
    );
    let scratch = TempDir::with_prefix("vmdt-").context("no temporary folder could be made")?;
    let source = match &demo.path {
        Some(path) => path.clone(),
        None => {
            let path = scratch.path().join("random.bin");
            let (to, size) = (path.clone(), demo.size);
            tokio::task::spawn_blocking(move || make_file(&to, size)).await??;
            path
        }
    };
    // before anything is sent, so that it does not depend on what the sender reads
    let (size, sent) = digest_of(&source).await?;
    let out = demo
        .out
        .clone()
        .unwrap_or_else(|| scratch.path().join("received"));

    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::bind(local).await?;
    let at = server
        .url()
        .ok_or_else(|| anyhow!("the server has no key"))?;
    let (cluster, names) = start(demo, &at, &out).await?;
    let [sender, receiver, ..] = cluster.as_slice() else {
        bail!("fewer than two nodes")
    };
    let nodes: Vec<_> = cluster
        .iter()
        .map(|node| (node.id(), node.local_addr()))
        .collect();
    tell(Step::Ready {
        server: &at,
        nodes: &nodes,
        names: &names,
        file: &source,
        size,
    });

    let mut sending = sender.send_path(receiver.id(), &source).await?;
    let (receipt, (path, used)) = tokio::try_join!(
        watch(&mut sending, |p| tell(Step::Progress(p))),
        receive(receiver.events())
    )?;
    let mut datagrams = Vec::new();
    for node in &cluster {
        let (sent, dropped) = node.injected_loss();
        let resent = node
            .paths()
            .await?
            .iter()
            .map(|path| path.stats.segments_retransmitted)
            .sum();
        datagrams.push(Datagrams {
            node: node.id(),
            sent,
            dropped,
            resent,
        });
    }
    let (_, received) = digest_of(&path).await?;
    let summary = Summary {
        from: sender.id(),
        to: receiver.id(),
        receipt,
        used,
        path,
        kept: demo.out.is_some(),
        sent,
        received,
        datagrams,
        names,
    };
    for node in &cluster {
        node.close().await;
    }
    server.close().await;
    // unlike a drop, this tells when something stays behind
    scratch
        .close()
        .context("the temporary folder could not be removed")?;
    Ok(summary)
}

/// Binds the nodes and brings them together. The names are those given here: nobody else is in
/// the cluster.
async fn start(demo: &Demo, server: &str, out: &Path) -> Result<(Vec<Node>, Names)> {
    let mut names = Names::default();
    let mut nodes = Vec::new();
    for number in 0..usize::from(demo.nodes) {
        let name = NAMES
            .get(number)
            .map_or_else(|| format!("node{}", number + 1), |n| (*n).to_owned());
        let mut builder = Node::builder()
            .server(server)
            .name(&name)
            .local(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .inject_loss(demo.loss, number as u64 * 2 + 1);
        if number == 1 {
            builder = builder.downloads(out);
        }
        if let Some(stall) = demo.stall {
            builder = builder.stall_timeout(stall);
        }
        let node = builder.bind().await?;
        names.insert(node.id(), &name);
        nodes.push(node);
    }
    let mut members = nodes.iter();
    let first = members.next().ok_or_else(|| anyhow!("no nodes"))?;
    let cluster = first
        .create_cluster(Policy::k_of_n(demo.k, demo.nodes))
        .await?;
    let ticket = cluster.ticket().await?;
    let mut joined = vec![cluster];
    for node in members {
        joined.push(node.join(&ticket).await?);
    }
    // the sender must see everybody, and so must those who hand on
    let everybody = async {
        for cluster in &joined {
            cluster.ready().await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(READY_TIMEOUT, everybody)
        .await
        .map_err(|_| anyhow!("the cluster was not ready within {READY_TIMEOUT:?}"))??;
    Ok((nodes, names))
}

/// Tells progress until the transfer is confirmed.
pub(crate) async fn watch(
    sending: &mut Sending,
    mut tell: impl FnMut(&Progress),
) -> Result<Receipt> {
    let mut progress = sending.progress();
    let mut last: Option<Progress> = None;
    let mut tick = tokio::time::interval(TICK);
    let mut more = true;
    loop {
        tokio::select! {
            next = progress.next(), if more => match next {
                Some(next) => {
                    tell(&next);
                    last = Some(next);
                }
                None => more = false,
            },
            result = sending.delivered() => return Ok(result?),
            _ = tick.tick() => if let Some(last) = &last {
                tell(last);
            },
        }
    }
}

/// Waits for one file.
async fn receive(mut events: Events) -> Result<(PathBuf, Paths)> {
    loop {
        match events.next().await {
            Some(Event::FileReceived { path, paths, .. }) => return Ok((path, paths)),
            Some(Event::ReceiveFailed { from, error, .. }) => {
                bail!("the file from {from} did not arrive: {error}")
            }
            Some(_) => {}
            None => bail!("the receiving node was closed"),
        }
    }
}

/// Writes octets that look random and are the same every time.
fn make_file(path: &Path, size: u64) -> Result<()> {
    let fail = || format!("{} could not be written", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(fail)?);
    let mut stream = blake3::Hasher::new()
        .update(b"a file for the file_transfer example")
        .finalize_xof();
    let mut block = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let part = block.get_mut(..length).unwrap_or_default();
        stream.fill(part);
        file.write_all(part).with_context(fail)?;
        left -= length as u64;
    }
    file.flush().with_context(fail)
}

/// Size and BLAKE3 digest of a file as it is on disk.
///
/// # Errors
/// When it can't be read.
pub async fn digest_of(path: &Path) -> Result<(u64, [u8; 32])> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let fail = || format!("{} can't be read", path.display());
        let file = File::open(&path).with_context(fail)?;
        let meta = file.metadata().with_context(fail)?;
        ensure!(meta.is_file(), "{} is not a regular file", path.display());
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).with_context(fail)?;
        Ok((hasher.count(), *hasher.finalize().as_bytes()))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmdt_node::Carried;

    #[test]
    fn carriers_of_both_sides_stand_side_by_side() {
        let id = "@carol-carol-car".parse().unwrap();
        let carol = Carrier::Member(id);
        let mut names = Names::default();
        names.insert(id, "carol");
        let given = Paths::from([
            (
                Carrier::Direct,
                Carried {
                    shares: 10,
                    octets: 1_000,
                },
            ),
            (
                carol,
                Carried {
                    shares: 1_000,
                    octets: 2_000_000,
                },
            ),
        ]);
        let used = Paths::from([(
            carol,
            Carried {
                shares: 9,
                octets: 900,
            },
        )]);
        assert_eq!(
            carried(&[("given", &given), ("used", &used)], &names),
            "  carrier    shares given  octets  shares used  octets\n  \
               direct               10  1.0 kB            -       -\n  \
               via carol         1,000  2.0 MB            9   900 B\n"
        );
    }

    #[tokio::test]
    async fn the_file_that_is_made_has_the_size_and_is_the_same_every_time() {
        let dir = TempDir::new().unwrap();
        let mut digests = Vec::new();
        for (name, size) in [("a", 1_500_000), ("b", 1_500_000), ("c", 0)] {
            let path = dir.path().join(name);
            make_file(&path, size).unwrap();
            let (found, digest) = digest_of(&path).await.unwrap();
            assert_eq!(found, size);
            digests.push(digest);
        }
        assert_eq!(digests[0], digests[1]);
        assert_eq!(digests[2], *blake3::hash(b"").as_bytes());
        assert!(digest_of(dir.path()).await.is_err());
    }
}
