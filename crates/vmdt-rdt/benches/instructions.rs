//! Instructions per packet of the machine alone, counted by valgrind: the same on every machine
//! with the same instruction set, whatever else runs beside.
//!
//! `cargo bench -p vmdt-rdt --bench instructions` runs itself under `valgrind --tool=callgrind`
//! (which has to be installed) with two lengths of transfer; the difference is free of start-up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use vmdt_rdt::{Config, Endpoint, Event};
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

const SHORT: usize = 4 << 20;
const LONG: usize = 12 << 20;

/// Carries a flow of so many octets from one endpoint to another, 50 us apart, losing each
/// `lose`th datagram (0: none). Returns the datagrams carried, ACKs included.
fn transfer(octets: usize, lose: u64) -> u64 {
    let ids: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
    let at: [SocketAddr; 2] = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
    let mut config = Config::default();
    config.set_send_buffer(64 << 20).unwrap();
    let mut ends =
        [0, 1].map(|end: u8| Endpoint::new(config.clone(), ids[usize::from(end)], [end; 32]));
    let message: MessageId = "message".parse().unwrap();
    let flow = FlowId::new(message, ShareIndex::new(1).unwrap());
    let mut now = Instant::now();
    ends[0].connect(now, ids[1], at[1]);
    let data = Bytes::from(vec![0x5a; octets]);
    ends[0].write(now, ids[1], flow, data).unwrap();
    ends[0].finish(now, ids[1], flow).unwrap();
    let (mut packets, mut buf, mut arena) = (0, Vec::with_capacity(2048), BytesMut::new());
    loop {
        for from in 0..2 {
            now += Duration::from_micros(50);
            ends[from].handle_timeout(now);
            while ends[from].poll_transmit(now, &mut buf).is_some() {
                packets += 1;
                if lose > 0 && packets % lose == 0 {
                    continue;
                }
                // As a driver would: one large buffer, cut into datagrams.
                if arena.capacity() < buf.len() {
                    arena = BytesMut::with_capacity(64 << 10);
                }
                arena.extend_from_slice(&buf);
                let datagram = arena.split().freeze();
                ends[1 - from].handle_datagram(now, at[from], datagram);
            }
            for end in &mut ends {
                while let Some(event) = end.poll_event() {
                    match event {
                        Event::Readable { peer, flow } => {
                            while end.read(now, peer, flow).is_some() {}
                        }
                        Event::FlowDelivered { .. } => return packets,
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Instructions and datagrams of one transfer.
fn counted(octets: usize, lose: u64) -> Option<(u64, u64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--transfer", &octets.to_string(), &lose.to_string()])
        .output()
        .ok()?;
    let told = String::from_utf8(output.stderr).unwrap();
    let instructions = told
        .lines()
        .find_map(|line| line.split_once("Collected : "))?;
    let packets = String::from_utf8(output.stdout).unwrap();
    let number = |text: &str| text.trim().parse().unwrap();
    Some((number(instructions.1), number(&packets)))
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--transfer") {
        println!(
            "{}",
            transfer(
                words[at + 1].parse().unwrap(),
                words[at + 2].parse().unwrap()
            )
        );
        return;
    }
    for (name, lose) in [("no loss", 0), ("2% loss", 50)] {
        let (Some(short), Some(long)) = (counted(SHORT, lose), counted(LONG, lose)) else {
            eprintln!("valgrind is not there, or does not run: nothing was counted");
            return;
        };
        let packets = long.1 - short.1;
        println!(
            "{name}: {} instructions per datagram through both ends ({packets} datagrams)",
            (long.0 - short.0) / packets
        );
    }
}
