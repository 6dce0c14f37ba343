//! One transfer over loopback through `vmdt-rdt` and through `quinn`, in turns, each end on a
//! thread of its own: throughput by the clock and by the processor time of both ends together.
//!
//! ```text
//! cargo run --release -- [--mib 1024] [--rounds 5] [--only vmdt|quinn] [--datagram 1472]
//!     [--controller bbr|cubic|newreno] [--quinn-bbr] [--ack-frequency]
//! ```

mod ours;
#[path = "../../../crates/vmdt-node/src/socket.rs"]
#[allow(dead_code)]
mod socket;
mod theirs;

use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use vmdt_rdt::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};

/// Octets of both socket buffers at both ends.
pub const SOCKET_BUFFER: usize = 4 << 20;

#[derive(Clone, Debug)]
pub struct Options {
    pub octets: u64,
    rounds: usize,
    only: Option<String>,
    /// UDP payload.
    pub datagram: u16,
    controller: Option<String>,
    pub bbr: bool,
    pub ack_frequency: bool,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            octets: 1 << 30,
            rounds: 5,
            only: None,
            datagram: 1472,
            controller: None,
            bbr: false,
            ack_frequency: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            match word.as_str() {
                "--mib" => options.octets = value().parse::<u64>().expect("a number") << 20,
                "--rounds" => options.rounds = value().parse().expect("a number"),
                "--only" => options.only = Some(value()),
                "--datagram" => options.datagram = value().parse().expect("a number"),
                "--controller" => options.controller = Some(value()),
                "--quinn-bbr" => options.bbr = true,
                "--ack-frequency" => options.ack_frequency = true,
                other => panic!("unknown option {other}"),
            }
        }
        options
    }

    pub fn controller(&self) -> Option<Box<dyn ControllerFactory>> {
        Some(match self.controller.as_deref()? {
            "bbr" => Box::new(BbrConfig),
            "cubic" => Box::new(CubicConfig),
            "newreno" => Box::new(NewRenoConfig::default()),
            other => panic!("unknown controller {other}"),
        })
    }
}

/// A transfer.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    wall: Duration,
    cpu: Duration,
    sender: Duration,
    packets: u64,
    lost: u64,
}

fn clock(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap(),
    )
}

/// The time between two moments, on the clock and on the processors.
pub struct Span {
    at: Instant,
    cpu: Duration,
    sender: Duration,
}

impl Span {
    pub fn begin(at: Instant) -> Self {
        let (cpu, sender) = (
            clock(ClockId::ProcessCPUTime),
            clock(ClockId::ThreadCPUTime),
        );
        Self { at, cpu, sender }
    }

    pub fn end(self, at: Instant, packets: u64, lost: u64) -> Figures {
        Figures {
            wall: at - self.at,
            cpu: clock(ClockId::ProcessCPUTime) - self.cpu,
            sender: clock(ClockId::ThreadCPUTime) - self.sender,
            packets,
            lost,
        }
    }
}

/// What is sent, over and over.
pub fn chunk() -> Bytes {
    Bytes::from(vec![0x5a; 1 << 20])
}

pub fn local_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn report(name: &str, octets: u64, figures: Figures) {
    let mib = octets as f64 / f64::from(1 << 20);
    println!(
        "{name:6} {:8.0} MiB/s  {:8.0} MiB/s of processor  sender {:5.2} s, receiver {:5.2} s, {} packets, {} lost",
        mib / figures.wall.as_secs_f64(),
        mib / figures.cpu.as_secs_f64(),
        figures.sender.as_secs_f64(),
        (figures.cpu.saturating_sub(figures.sender)).as_secs_f64(),
        figures.packets,
        figures.lost,
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let options = Options::parse();
    let (mut by_clock, mut by_cpu) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let ours = (options.only.as_deref() != Some("quinn")).then(|| ours::run(&options));
        let theirs = (options.only.as_deref() != Some("vmdt")).then(|| theirs::run(&options));
        println!("round {}", round + 1);
        for (name, figures) in [("vmdt", ours), ("quinn", theirs)] {
            if let Some(figures) = figures {
                report(name, options.octets, figures);
            }
        }
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            by_clock.push(theirs.wall.as_secs_f64() / ours.wall.as_secs_f64());
            by_cpu.push(theirs.cpu.as_secs_f64() / ours.cpu.as_secs_f64());
        }
    }
    if !by_clock.is_empty() {
        println!(
            "vmdt over quinn, medians: {:.2} by the clock, {:.2} by processor time",
            median(by_clock),
            median(by_cpu)
        );
    }
}
