//! Processes that are killed and started again on the same folder: `kill -9`, a store on disk,
//! loopback sockets.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use vmdt_node::{Event, Node, NodeBuilder, NodeError, NodeId, Policy, Server, Ticket};

/// No test of this file waits longer for anything.
const LONG: Duration = Duration::from_secs(90);

struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("vmdt-storage-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn builder(server: &str, folder: &Path) -> NodeBuilder {
    Node::builder()
        .local("127.0.0.1:0".parse().unwrap())
        .server(server)
        .storage(folder)
        .downloads(folder.join("downloads"))
        .segment(16 * 1024)
        .window(4)
}

fn octets(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// What a process of its own does; the test itself does nothing.
#[test]
fn a_node_in_a_process_of_its_own() {
    let Ok(folder) = std::env::var("VMDT_STORAGE_FOLDER") else {
        return;
    };
    let server = std::env::var("VMDT_STORAGE_SERVER").unwrap();
    let ticket = std::env::var("VMDT_STORAGE_TICKET").ok();
    let send = std::env::var("VMDT_STORAGE_SEND").ok();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let node = builder(&server, Path::new(&folder)).bind().await.unwrap();
        println!("\nid {}", node.id());
        if let Some(ticket) = ticket {
            let ticket: Ticket = ticket.parse().unwrap();
            node.join(&ticket).await.unwrap();
        }
        loop {
            let clusters = node.clusters().await.unwrap();
            if clusters.iter().any(|cluster| cluster.ready) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("\nready");
        let mut events = node.events();
        if let Some((to, path)) = send.as_deref().and_then(|send| send.split_once(' ')) {
            let to: NodeId = to.parse().unwrap();
            let mut sending = node.send_path(to, path).await.unwrap();
            println!("\nsending {}", sending.id());
            match sending.delivered().await {
                Ok(receipt) => println!("\ndelivered {}", receipt.octets),
                Err(error) => println!("\nfailed {error}"),
            }
        }
        while let Some(event) = events.next().await {
            match event {
                Event::FileReceived { size, .. } => println!("\nreceived {size}"),
                Event::ReceiveFailed { error, .. } => println!("\nfailed {error}"),
                _ => {}
            }
        }
    });
}

/// A process that can be killed.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn start(server: &str, folder: &Path, ticket: Option<&str>, send: Option<&str>) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_node_in_a_process_of_its_own", "--nocapture"])
            .env("VMDT_STORAGE_FOLDER", folder)
            .env("VMDT_STORAGE_SERVER", server)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        for (name, value) in [("VMDT_STORAGE_TICKET", ticket), ("VMDT_STORAGE_SEND", send)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Process { child, lines }
    }

    /// Waits for a line that begins with `word`; what follows it.
    fn until(&self, word: &str) -> String {
        #[allow(clippy::disallowed_methods)]
        let end = Instant::now() + LONG;
        loop {
            #[allow(clippy::disallowed_methods)]
            let left = end.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no {word:?} in time"));
            assert!(!line.starts_with("failed"), "{line}");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server, three holders in this process, and a ticket.
async fn world(folder: &Folder) -> (Server, Vec<Node>, String) {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = server.url().unwrap();
    let mut holders = Vec::new();
    for i in 0..3 {
        let own = folder.0.join(format!("holder{i}"));
        holders.push(builder(&at, &own).bind().await.unwrap());
    }
    let cluster = holders[0]
        .create_cluster(Policy::k_of_n(3, 5))
        .await
        .unwrap();
    let ticket = cluster.ticket().await.unwrap();
    for holder in &holders[1..] {
        holder.join(&ticket).await.unwrap();
    }
    (server, holders, ticket.encode().to_string())
}

/// Files of a folder: their names and contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap();
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

/// Octets of a file that arrives, as far as they are written.
fn arrived(downloads: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(downloads) else {
        return 0;
    };
    let sizes = entries.map(|e| e.and_then(|e| e.metadata()).map_or(0, |m| m.len()));
    sizes.max().unwrap_or(0)
}

/// Waits until so much of the file has arrived, or all of it.
fn until_arrived(downloads: &Path, octets: u64) {
    #[allow(clippy::disallowed_methods)]
    let end = Instant::now() + LONG;
    while arrived(downloads) < octets {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        assert!(now < end, "it stands still at {}", arrived(downloads));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a file from one process to another, kills one of them three times in between, and starts it
/// again on the same folder.
fn killed(test: &str, kill_sender: bool) {
    let folder = Folder::new(test);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (server, holders, ticket) = runtime.block_on(world(&folder));
    let at = server.url().unwrap();
    let content = octets(6_000_000);
    let path = folder.0.join("a file");
    std::fs::write(&path, &content).unwrap();
    let (from, to) = (folder.0.join("sender"), folder.0.join("receiver"));
    let downloads = to.join("downloads");

    let mut receiver = Process::start(&at, &to, Some(&ticket), None);
    let id = receiver.until("id ");
    let send = format!("{id} {}", path.display());
    let mut sender = Process::start(&at, &from, Some(&ticket), Some(&send));
    receiver.until("ready");
    let transfer = sender.until("sending ");
    for part in 1..=3u64 {
        until_arrived(&downloads, part * 1_400_000);
        if kill_sender {
            sender.kill();
            // the same call goes on with the same transfer
            sender = Process::start(&at, &from, None, Some(&send));
            assert_eq!(sender.until("sending "), transfer);
        } else {
            receiver.kill();
            receiver = Process::start(&at, &to, None, None);
            assert_eq!(receiver.until("id "), id, "the key is in the folder");
        }
    }
    assert_eq!(sender.until("delivered "), content.len().to_string());
    assert_eq!(receiver.until("received "), content.len().to_string());
    let found = files(&downloads);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a file"], "one file, and no part of one");
    assert!(found[0].1 == content);
    drop((sender, receiver));
    runtime.block_on(async {
        for holder in &holders {
            holder.close().await;
        }
    });
}

#[test]
fn a_sender_that_is_killed_goes_on_with_the_same_call() {
    killed("sender", true);
}

#[test]
fn a_receiver_that_is_killed_goes_on_where_it_was() {
    killed("receiver", false);
}

#[tokio::test]
async fn a_message_waits_on_disk_for_a_receiver_that_is_away() {
    let folder = Folder::new("deposit");
    let (server, mut holders, ticket) = world(&folder).await;
    let at = server.url().unwrap();
    let ticket: Ticket = ticket.parse().unwrap();
    let (from, to) = (folder.0.join("sender"), folder.0.join("receiver"));
    let sender = builder(&at, &from).bind().await.unwrap();
    let receiver = builder(&at, &to).bind().await.unwrap();
    let cluster = sender.join(&ticket).await.unwrap();
    receiver.join(&ticket).await.unwrap();
    cluster.ready().await.unwrap();
    let id = receiver.id();
    receiver.close().await;
    let mut events = sender.events();
    loop {
        let status = cluster.status().await.unwrap().unwrap();
        if status.members.iter().any(|m| m.id == id && !m.present) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sending = sender.send(id, b"for later").await.unwrap();
    let deposited = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Deposited { id, .. } if id == sending.id()) {
                return;
            }
        }
        panic!("it was not deposited");
    };
    tokio::time::timeout(LONG, deposited).await.unwrap();
    sender.close().await;
    // the holders are other processes from here on
    for (i, holder) in holders.drain(..).enumerate() {
        let own = folder.0.join(format!("holder{i}"));
        let before = holder.id();
        holder.close().await;
        let again = builder(&at, &own).bind().await.unwrap();
        assert_eq!(again.id(), before);
        tokio::spawn(async move { while again.events().next().await.is_some() {} });
    }
    let receiver = builder(&at, &to).bind().await.unwrap();
    let mut events = receiver.events();
    let message = async {
        while let Some(event) = events.next().await {
            if let Event::Message { data, .. } = event {
                return data;
            }
        }
        panic!("it did not come");
    };
    let data = tokio::time::timeout(LONG, message).await.unwrap();
    assert_eq!(data, &b"for later"[..]);
    // and its sender hears of it
    let sender = builder(&at, &from).bind().await.unwrap();
    let mut events = sender.events();
    let delivered = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Delivered { .. }) {
                return;
            }
        }
        panic!("it was not told");
    };
    tokio::time::timeout(LONG, delivered).await.unwrap();
}

#[tokio::test]
async fn a_folder_is_used_by_one_node_of_one_identity() {
    let folder = Folder::new("foreign");
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = server.url().unwrap();
    let node = builder(&at, &folder.0).bind().await.unwrap();
    let error = builder(&at, &folder.0).bind().await.unwrap_err();
    assert!(matches!(error, NodeError::Storage { .. }), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    node.close().await;
    let other = vmdt_node::seal::identity::SecretIdentity::from_seed(&[9; 32]);
    let error = builder(&at, &folder.0).identity(other).bind().await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("belongs to"), "{error}");
    builder(&at, &folder.0).bind().await.unwrap();
}
