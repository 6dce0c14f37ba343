//! One transfer over loopback through `vmdt-rdt`, sealed and open, and through `quinn`, in turns,
//! each end on a thread of its own: throughput by the clock and by the processor time of both ends together.
//!
//! ```text
//! cargo run --release -- [--mib 1024] [--rounds 5] [--only sealed|open|quinn] [--datagram 1472]
//!     [--controller bbr|cubic|newreno] [--chacha] [--quinn-bbr] [--ack-frequency]
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
    /// The cases to run; all if none is named.
    only: Vec<String>,
    /// UDP payload.
    pub datagram: u16,
    controller: Option<String>,
    pub bbr: bool,
    pub ack_frequency: bool,
    /// ChaCha20-Poly1305 instead of AES-256-GCM on our side.
    pub chacha: bool,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            octets: 1 << 30,
            rounds: 5,
            only: Vec::new(),
            datagram: 1472,
            controller: None,
            bbr: false,
            ack_frequency: false,
            chacha: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            match word.as_str() {
                "--mib" => options.octets = value().parse::<u64>().expect("a number") << 20,
                "--rounds" => options.rounds = value().parse().expect("a number"),
                "--only" => options.only.push(value()),
                "--datagram" => options.datagram = value().parse().expect("a number"),
                "--controller" => options.controller = Some(value()),
                "--quinn-bbr" => options.bbr = true,
                "--chacha" => options.chacha = true,
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

/// A case and how it is run.
type Case = (&'static str, fn(&Options) -> Figures);

const CASES: [Case; 3] = [
    ("sealed", |options| ours::run(options, true)),
    ("open", |options| ours::run(options, false)),
    ("quinn", theirs::run),
];

fn main() {
    let options = Options::parse();
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| options.only.is_empty() || options.only.iter().any(|name| name == case.0))
        .collect();
    let mut all: Vec<Vec<Figures>> = vec![Vec::new(); cases.len()];
    for round in 0..options.rounds {
        println!("round {}", round + 1);
        for (case, all) in cases.iter().zip(&mut all) {
            let figures = case.1(&options);
            report(case.0, options.octets, figures);
            all.push(figures);
        }
    }
    for (a, of_a) in cases.iter().zip(&all) {
        for (b, of_b) in cases.iter().zip(&all) {
            if std::ptr::eq(*a, *b) || (a.0 == "quinn") || (a.0, b.0) == ("open", "sealed") {
                continue;
            }
            let pairs = || of_a.iter().zip(of_b);
            let ratio = |x: Duration, y: Duration| y.as_secs_f64() / x.as_secs_f64();
            println!(
                "{} over {}, medians: {:.2} by the clock, {:.2} by processor time",
                a.0,
                b.0,
                median(pairs().map(|(a, b)| ratio(a.wall, b.wall)).collect()),
                median(pairs().map(|(a, b)| ratio(a.cpu, b.cpu)).collect()),
            );
        }
    }
}
