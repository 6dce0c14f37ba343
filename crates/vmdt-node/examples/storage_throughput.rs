//! What it costs to keep everything on disk: files and small messages through a cluster of five on
//! loopback, in memory and with storage, in turn.
//!
//! `cargo run --release -p vmdt-node --example storage_throughput [MEBIBYTES [ROUNDS]]`
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use vmdt_node::{Node, Policy, Server};

type Failure = Box<dyn Error>;

/// Messages sent one after the other.
const MESSAGES: u32 = 100;

/// Octets per second of a file, and the mean time of a small message in milliseconds.
async fn round(
    storage: bool,
    folder: &Path,
    file: &Path,
    size: u64,
) -> Result<(f64, f64), Failure> {
    let server = Server::bind("127.0.0.1:0".parse()?).await?;
    let at = server.url().ok_or("no TLS port")?;
    let mut nodes = Vec::new();
    for i in 0..5 {
        let own = folder.join(format!("node{i}"));
        let mut builder = Node::builder()
            .local("127.0.0.1:0".parse()?)
            .server(&at)
            .downloads(own.join("downloads"));
        if storage {
            builder = builder.storage(&own);
        }
        nodes.push(builder.bind().await?);
    }
    let [alice, bob, ..] = nodes.as_slice() else {
        return Err("five nodes".into());
    };
    let cluster = alice.create_cluster(Policy::k_of_n(3, 5)).await?;
    let ticket = cluster.ticket().await?;
    for node in nodes.iter().skip(1) {
        node.join(&ticket).await?;
    }
    cluster.ready().await?;
    for node in &nodes {
        let mut events = node.events();
        tokio::spawn(async move { while events.next().await.is_some() {} });
    }
    // the paths are warm
    alice.send(bob.id(), b"warm").await?.delivered().await?;
    let begun = Instant::now();
    alice.send_path(bob.id(), file).await?.delivered().await?;
    let rate = size as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for _ in 0..MESSAGES {
        alice.send(bob.id(), b"hello").await?.delivered().await?;
    }
    let each = begun.elapsed().as_secs_f64() * 1000.0 / f64::from(MESSAGES);
    for node in &nodes {
        node.close().await;
    }
    Ok((rate, each))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let mebibytes: u64 = args.next().map_or(Ok(64), |arg| arg.parse())?;
    let rounds: u32 = args.next().map_or(Ok(3), |arg| arg.parse())?;
    let folder = std::env::temp_dir().join(format!("vmdt-throughput-{}", std::process::id()));
    let size = mebibytes << 20;
    for number in 0..rounds {
        for storage in [false, true] {
            std::fs::create_dir_all(&folder)?;
            let file = folder.join("content");
            let content: Vec<u8> = (0..size).map(|i| (i * 31 + i / 251) as u8).collect();
            std::fs::write(&file, content)?;
            let (rate, each) = round(storage, &folder, &file, size).await?;
            std::fs::remove_dir_all(&folder)?;
            println!(
                "round {number} {:7} file {:7.1} MB/s, small message {each:6.2} ms",
                if storage { "storage" } else { "memory" },
                rate / 1e6,
            );
        }
    }
    Ok(())
}
