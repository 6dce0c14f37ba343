//! Loads a server on this machine and prints what it costs.
//!
//! ```text
//! ulimit -n 65536
//! cargo run --release -p vmdt-server --example loadgen -- idle 10000      (TLS; `plain` as third word: without)
//! cargo run --release -p vmdt-server --example loadgen -- rate 5 128      (seconds per round, lines on the way)
//! cargo run --release -p vmdt-server --example loadgen -- reconnect 1000
//! ```
//!
//! The server runs in a process of its own with one thread, whose memory and CPU time are read
//! from `/proc`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods
)]

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    BufWriter,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;
use vmdt_control::{Member, MemberConfig, MemberEvent, MemberOutput, RegistryConfig};
use vmdt_seal::identity::SecretIdentity;
use vmdt_server::{Limits, Server};
use vmdt_tls::Identity;

const SEED: [u8; 32] = [7; 32];
const CLUSTERS: usize = 100;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, standard| {
        words
            .get(at)
            .map_or(standard, |w| w.parse().expect("a number"))
    };
    let runtime = |threads: bool| {
        let mut builder = match threads {
            true => tokio::runtime::Builder::new_multi_thread(),
            false => tokio::runtime::Builder::new_current_thread(),
        };
        builder.enable_all().build().unwrap()
    };
    match words.first().map(String::as_str) {
        Some("server") => runtime(false).block_on(serve(words[1].parse().unwrap())),
        Some("echo-lines") => runtime(false).block_on(echo(false)),
        Some("echo-pieces") => runtime(false).block_on(echo(true)),
        Some("idle") => {
            let plain = words.get(2).is_some_and(|word| word == "plain");
            runtime(true).block_on(idle(number(1, 10_000), plain));
            // Without a farewell to each of them.
            std::process::exit(0);
        }
        Some("rate") => {
            let time = Duration::from_secs(number(1, 5) as u64);
            runtime(true).block_on(rate(time, number(2, 128)));
        }
        Some("reconnect") => runtime(true).block_on(reconnect(number(1, 1_000))),
        _ => println!("idle COUNT [plain] | rate SECONDS [AHEAD] | reconnect COUNT"),
    }
}

/// The server's process: prints its two addresses, ends with its input.
async fn serve(tls: SocketAddr) {
    let registry = RegistryConfig::new()
        .max_connections(70_000)
        .max_clients(70_000)
        .rate(10_000_000, 10_000_000);
    let mut limits = Limits::default();
    limits.connections_per_address = 100_000;
    limits.opens_per_second = 100_000;
    limits.opens_at_once = 100_000;
    let server = Server::builder()
        .tls(tls, &SEED)
        .plain("127.0.0.1:0".parse().unwrap())
        .registry(registry)
        .limits(limits)
        .start()
        .await
        .unwrap();
    println!(
        "{} {}",
        server.tls_addr().unwrap(),
        server.plain_addr().unwrap()
    );
    let mut end = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut end).await;
    server.close().await;
}

/// What the server is compared with: reads lines and sends each back. Either as one writes it with
/// tokio's own readers and writers, or with the least that finding the line ends can cost.
async fn echo(least: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    println!("{address} {address}");
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = stream.set_nodelay(true);
        if least {
            tokio::spawn(echo_pieces(stream));
        } else {
            tokio::spawn(echo_lines(stream));
        }
    }
}

async fn echo_lines(stream: TcpStream) {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(16 * 1024, reader);
    let mut writer = BufWriter::with_capacity(16 * 1024, writer);
    let mut line = String::new();
    while reader.read_line(&mut line).await.unwrap_or(0) > 0 {
        if writer.write_all(line.as_bytes()).await.is_err() {
            return;
        }
        line.clear();
        // Everything that has arrived is answered before more is waited for.
        if !reader.buffer().contains(&b'\n') && writer.flush().await.is_err() {
            return;
        }
    }
}

async fn echo_pieces(mut stream: TcpStream) {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    let mut out = Vec::new();
    while stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
        while let Some(end) = buffer.iter().position(|&o| o == b'\n') {
            out.extend_from_slice(&buffer.split_to(end + 1));
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

struct Process {
    child: Child,
    tls: SocketAddr,
    plain: SocketAddr,
}

impl Process {
    fn start(kind: &str, address: SocketAddr) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([kind, &address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let mut addresses = line.split_whitespace().map(|word| word.parse().unwrap());
        Process {
            child,
            tls: addresses.next().unwrap(),
            plain: addresses.next().unwrap(),
        }
    }

    /// Octets in memory.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            * 1_024
    }

    /// Seconds of CPU used: clock ticks are 1/100 s on Linux.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn who(index: usize) -> SecretIdentity {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(index as u64).to_be_bytes());
    SecretIdentity::from_seed(&seed)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn tls(address: SocketAddr, identity: &SecretIdentity) -> std::io::Result<Box<dyn Stream>> {
    let key = *Identity::from_seed(&SEED).unwrap().public_key();
    let config = vmdt_tls::client_config(&Identity::from_seed(&identity.seed()).unwrap(), &key);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(config.unwrap());
    Ok(Box::new(
        connector.connect(vmdt_tls::server_name(), stream).await?,
    ))
}

/// A client that reads everything and reports lines that are asked for.
struct Idle {
    writer: mpsc::UnboundedSender<String>,
    lines: mpsc::UnboundedReceiver<(Instant, String)>,
}

impl Idle {
    fn start(stream: Box<dyn Stream>) -> Idle {
        let (writer, mut queue) = mpsc::unbounded_channel::<String>();
        let (report, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (mut reader, mut out) = tokio::io::split(stream);
            let write = async move {
                while let Some(line) = queue.recv().await {
                    out.write_all(line.as_bytes()).await.unwrap();
                    out.flush().await.unwrap();
                }
                std::future::pending::<()>().await;
            };
            let read = async move {
                let mut buffer = Vec::new();
                loop {
                    assert!(
                        reader.read_buf(&mut buffer).await.unwrap() > 0,
                        "the server closed"
                    );
                    let now = Instant::now();
                    let Some(end) = buffer.iter().rposition(|&o| o == b'\n') else {
                        continue;
                    };
                    let rest = buffer.split_off(end + 1);
                    for line in String::from_utf8(std::mem::replace(&mut buffer, rest))
                        .unwrap()
                        .lines()
                    {
                        let _ = report.send((now, line.to_owned()));
                    }
                }
            };
            tokio::join!(write, read)
        });
        Idle { writer, lines }
    }

    fn send(&self, line: &str) {
        self.writer.send(format!("VMDT/TCP/1.0/{line}\n")).unwrap();
    }

    async fn find(&mut self, part: &str) -> (Instant, String) {
        loop {
            let found = self.lines.recv().await.unwrap();
            if found.1.contains(part) {
                return found;
            }
        }
    }
}

async fn idle(count: usize, plain: bool) {
    let server = Process::start("server", anywhere());
    let empty = server.memory();
    let id = |index: usize| match plain {
        true => format!("client_{index}"),
        false => who(index).node_id().to_string(),
    };
    let connect = async |index: usize| match plain {
        true => Box::new(TcpStream::connect(server.plain).await.unwrap()) as Box<dyn Stream>,
        false => tls(server.tls, &who(index)).await.unwrap(),
    };
    let mut clusters = Vec::new();
    let mut clients = Vec::new();
    let began = Instant::now();
    for index in 0..count {
        let mut client = Idle::start(connect(index).await);
        let id = id(index);
        client.send(&format!("REGISTER_P2P_PORT/{id}/9000/rdt/~1"));
        if index < CLUSTERS {
            client.send(&format!("CREATE_CLUSTER/{id}/3/2/max=500/~2"));
            let (_, line) = client.find("CLUSTER_CREATED/").await;
            clusters.push(line.split('/').nth(4).unwrap().to_owned());
        } else {
            client.send(&format!(
                "JOIN_CLUSTER/{id}/{}/~2",
                clusters[index % CLUSTERS]
            ));
            client.find("CLUSTER_JOINED/").await;
        }
        clients.push(client);
    }
    println!(
        "{count} clients registered and in {CLUSTERS} clusters after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = server.memory() - empty;
    println!(
        "memory: {} octets a client ({} MiB in all, {} MiB empty)",
        used / count,
        used >> 20,
        empty >> 20
    );
    let before = server.cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "CPU while idle: {:.2} % of one core",
        (server.cpu() - before) * 10.0
    );

    let mut replies = Vec::new();
    let mut pushes = Vec::new();
    let mut newcomer = Idle::start(connect(count).await);
    let id = id(count);
    newcomer.send(&format!("REGISTER_P2P_PORT/{id}/9000/rdt/~1"));
    newcomer.find("/~1").await;
    for round in 0..300 {
        let cluster = &clusters[round % CLUSTERS];
        let sent = Instant::now();
        newcomer.send(&format!("JOIN_CLUSTER/{id}/{cluster}/~2"));
        let (at, _) = newcomer.find("/~2").await;
        replies.push(at.duration_since(sent));
        // The last of its members in the order in which they are told.
        let witness = &mut clients[CLUSTERS + round % CLUSTERS];
        let (at, _) = witness.find(&format!("{id}/joined")).await;
        pushes.push(at.duration_since(sent));
        newcomer.send(&format!("LEAVE_CLUSTER/{id}/{cluster}/~3"));
        newcomer.find("/~3").await;
    }
    for (what, times) in [("answered", &mut replies), ("pushed", &mut pushes)] {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!(
            "a join is {what} within {:?} (median {:?}) at p99",
            at(99),
            at(50)
        );
    }
}

/// Sends pipelined lines over 64 connections; returns replies per second and per CPU second.
async fn pipelined(server: &Process, register: bool, time: Duration, ahead: usize) -> (f64, f64) {
    let half = (ahead / 2).max(1);
    let replies = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..64 {
        let mut stream = TcpStream::connect(server.plain).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let id = format!("client_{index}");
        if register {
            let line = format!("VMDT/TCP/1.0/REGISTER_P2P_PORT/{id}/9000/rdt/~1\n");
            stream.write_all(line.as_bytes()).await.unwrap();
            let mut reply = [0; 256];
            assert!(stream.read(&mut reply).await.unwrap() > 0);
        }
        let batch = format!("VMDT/TCP/1.0/GET_CLIENT_INFO/{id}/{id}/~123\n").repeat(half);
        let replies = Arc::clone(&replies);
        tasks.spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let space = Semaphore::new(2 * half);
            let write = async {
                loop {
                    space.acquire_many(half as u32).await.unwrap().forget();
                    writer.write_all(batch.as_bytes()).await.unwrap();
                }
            };
            let read = async {
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    let len = reader.read(&mut buffer).await.unwrap();
                    let lines = buffer[..len].iter().filter(|&&o| o == b'\n').count();
                    replies.fetch_add(lines, Relaxed);
                    space.add_permits(lines);
                }
            };
            tokio::select! { () = write => {} () = read => {} }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (count, cpu, began) = (replies.load(Relaxed), server.cpu(), Instant::now());
    tokio::time::sleep(time).await;
    let done = (replies.load(Relaxed) - count) as f64;
    (
        done / began.elapsed().as_secs_f64(),
        done / (server.cpu() - cpu),
    )
}

async fn rate(time: Duration, ahead: usize) {
    let server = Process::start("server", anywhere());
    let echoes = ["echo-lines", "echo-pieces"].map(|kind| (kind, Process::start(kind, anywhere())));
    for round in 0..3 {
        let (ours, ours_cpu) = pipelined(&server, true, time, ahead).await;
        println!("round {round}: server {ours:.0}/s, {ours_cpu:.0} per CPU second");
        for (kind, echo) in &echoes {
            let (bare, bare_cpu) = pipelined(echo, false, time, ahead).await;
            println!(
                "    {kind} {bare:.0}/s, {bare_cpu:.0} per CPU second: ratios {:.2} and {:.2}",
                ours / bare,
                ours_cpu / bare_cpu
            );
        }
    }
}

/// A member with its driver, until the end of the process.
async fn drive(index: usize, server: SocketAddr, registered: Arc<AtomicUsize>) {
    let identity = who(index);
    let config = MemberConfig::new(identity.node_id(), 9_000, vec![server]);
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&(index as u64).to_be_bytes());
    let mut member = Member::new(config, seed);
    let mut stream: Option<Box<dyn Stream>> = None;
    let mut up = false;
    loop {
        while let Some(output) = member.poll_output() {
            match output {
                MemberOutput::Connect { attempt, to } => match tls(to, &identity).await {
                    Ok(open) => {
                        stream = Some(open);
                        member.handle_connected(Instant::now(), attempt);
                    }
                    Err(error) => {
                        member.handle_connect_failed(Instant::now(), attempt, error.kind())
                    }
                },
                MemberOutput::Write { bytes } => {
                    if let Some(open) = &mut stream {
                        let _ = open.write_all(&bytes).await;
                        let _ = open.flush().await;
                    }
                    member.handle_sent(Instant::now(), bytes.len());
                }
                MemberOutput::Close => stream = None,
            }
        }
        while let Some(event) = member.poll_event() {
            match event {
                MemberEvent::Registered { .. } if !up => {
                    up = true;
                    registered.fetch_add(1, Relaxed);
                }
                MemberEvent::Disconnected { .. } if up => {
                    up = false;
                    registered.fetch_sub(1, Relaxed);
                }
                _ => {}
            }
        }
        let due = member
            .poll_timeout()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        let mut buffer = [0; 4_096];
        let read = async {
            match &mut stream {
                Some(open) => open.read(&mut buffer).await.unwrap_or(0),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            len = read => match len {
                0 => {
                    stream = None;
                    member.handle_closed(Instant::now());
                }
                len => member.handle_bytes(Instant::now(), &buffer[..len]),
            },
            () = tokio::time::sleep_until(due.into()) => member.handle_timeout(Instant::now()),
        }
    }
}

async fn reconnect(count: usize) {
    let mut server = Process::start("server", anywhere());
    let registered = Arc::new(AtomicUsize::new(0));
    for index in 0..count {
        tokio::spawn(drive(index, server.tls, Arc::clone(&registered)));
    }
    let all = async |expected| {
        let began = Instant::now();
        while registered.load(Relaxed) != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    };
    println!("{count} clients registered after {:?}", all(count).await);
    for pause in [0, 2, 20] {
        let address = server.tls;
        drop(server);
        all(0).await;
        tokio::time::sleep(Duration::from_secs(pause)).await;
        server = Process::start("server", address);
        println!(
            "killed, {pause} s away: all {count} back after {:?}",
            all(count).await
        );
    }
}
