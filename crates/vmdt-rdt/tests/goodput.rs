//! Goodput over loss, round trip and rate for each controller, against the committed table
//! `goodput.txt`.
//!
//! By default a part of the table is measured again and compared. `VMDT_GOODPUT=all` compares
//! all of it, `VMDT_GOODPUT=write` measures all of it and writes the table (use `--release`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{MS, SEC, World, flow};
use vmdt_rdt::Config;
use vmdt_rdt::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use vmdt_testkit::LinkConfig;

const HEADER: &str = "\
# Goodput in percent of the link's rate, one endless flow, measured at the receiver from the start
# of the flow. The bound is 94.3% (1,388 octets of data in a datagram of 1,472) times what is not
# lost. Queue: one product of rate and round trip, at least 64 KiB. Time: 20 s up to 10 Mbit/s,
# 10 s at 100 Mbit/s, 6 s at 1 Gbit/s, the time to fill the path included; beyond some 200 Mbit/s
# at 100 ms with loss the 24,576 segments a flow may have in transit are the limit. Written by VMDT_GOODPUT=write cargo test -p vmdt-rdt
# --release --test goodput.
#
# Mbit/s  RTT ms  loss %   bound  newreno   cubic     bbr
";

/// Octets of data in a datagram, as a share.
const SHARE: f64 = 1388.0 / 1472.0;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    mbit: u64,
    rtt_ms: u32,
    /// In tenths of a percent.
    loss: u32,
}

impl Cell {
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for mbit in [1, 10, 100, 1000] {
            for rtt_ms in [1, 20, 100, 300] {
                for loss in [0, 1, 10, 30, 60, 100, 200] {
                    cells.push(Self { mbit, rtt_ms, loss });
                }
            }
        }
        cells
    }

    /// What every test run measures.
    fn is_usual(self) -> bool {
        match self.mbit {
            1 | 10 => true,
            100 => self.rtt_ms <= 100 && [0, 10, 60].contains(&self.loss),
            _ => false,
        }
    }

    fn time(self) -> Duration {
        match self.mbit {
            1000 => 6 * SEC,
            100 => 10 * SEC,
            _ => 20 * SEC,
        }
    }

    /// Tenths of a percent.
    fn bound(self) -> u64 {
        (SHARE * f64::from(1000 - self.loss)).round() as u64
    }

    /// Goodput in tenths of a percent of the link's rate.
    fn measure(self, factory: &Arc<dyn ControllerFactory>) -> u64 {
        let mut config = Config::default();
        config.set_congestion(factory.clone());
        // Windows and buffers must not be what limits the rate.
        config.set_flow_window(63 << 20).unwrap();
        config.set_session_window(128 << 20).unwrap();
        config.set_send_buffer(128 << 20).unwrap();
        let rate = self.mbit * 1_000_000;
        let bdp = rate / 8 * u64::from(self.rtt_ms) / 1000;
        let link = LinkConfig::new()
            .delay(MS * self.rtt_ms / 2)
            .loss(f64::from(self.loss) / 1000.0)
            .rate(rate, bdp.max(64 * 1024));
        let mut world = World::new(7, vec![config.clone(), config], &link);
        world.hosts[1].counts_only = true;
        world.establish();
        world.send_endless(0, 1, flow(1));
        world.run_for(self.time());
        let octets = world.hosts[1].octets_received as f64;
        (octets * 8.0 / self.time().as_secs_f64() / rate as f64 * 1000.0).round() as u64
    }
}

fn factories() -> [Arc<dyn ControllerFactory>; 3] {
    [
        Arc::new(NewRenoConfig::default()),
        Arc::new(CubicConfig),
        Arc::new(BbrConfig),
    ]
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

fn line(cell: Cell, measured: [u64; 3]) -> String {
    let [newreno, cubic, bbr] = measured.map(tenths);
    let (loss, bound) = (tenths(cell.loss.into()), tenths(cell.bound()));
    format!(
        "{:8} {:7} {loss:>7} {bound:>7} {newreno:>8} {cubic:>7} {bbr:>7}\n",
        cell.mbit, cell.rtt_ms
    )
}

/// The table's cells.
fn parse(table: &str) -> Vec<(Cell, [u64; 3])> {
    let number = |text: &str| (text.parse::<f64>().unwrap() * 10.0).round() as u64;
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let cell = Cell {
                mbit: words[0].parse().unwrap(),
                rtt_ms: words[1].parse().unwrap(),
                loss: number(words[2]) as u32,
            };
            (cell, [4, 5, 6].map(|at: usize| number(words[at])))
        })
        .collect()
}

#[test]
fn goodput_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goodput.txt");
    let mode = std::env::var("VMDT_GOODPUT").unwrap_or_default();
    if mode == "write" {
        let mut table = HEADER.to_owned();
        for cell in Cell::all() {
            let text = line(cell, factories().map(|factory| cell.measure(&factory)));
            print!("{text}");
            table.write_str(&text).unwrap();
        }
        std::fs::write(&path, table).unwrap();
        return;
    }
    let table = parse(&std::fs::read_to_string(&path).unwrap());
    let listed: Vec<Cell> = table.iter().map(|(cell, _)| *cell).collect();
    assert_eq!(listed, Cell::all(), "the table lists other cells");
    let mut wrong = String::new();
    for (cell, expected) in table {
        if mode != "all" && !cell.is_usual() {
            continue;
        }
        let measured = factories().map(|factory| cell.measure(&factory));
        // Two points, or a tenth: what a change of timing alone can move.
        let near = |(new, old): (&u64, &u64)| new.abs_diff(*old) <= 20.max(*old / 10);
        if !measured.iter().zip(&expected).all(near) {
            write!(wrong, "-{}+{}", line(cell, expected), line(cell, measured)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "goodput has changed:\n{wrong}");
}

#[test]
fn the_default_controller_holds_its_rate_under_random_loss() {
    let table =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goodput.txt"));
    for (cell, [newreno, cubic, bbr]) in parse(&table.unwrap()) {
        // A long path needs longer than the measurement to fill: 1 Gbit/s at 300 ms are 37 MB.
        let settled = cell.rtt_ms <= 20 || (cell.mbit <= 10 && cell.rtt_ms <= 100);
        if settled && cell.loss <= 100 {
            assert!(bbr * 100 >= cell.bound() * 90, "{cell:?}: {bbr}");
        }
        assert!(bbr * 100 >= newreno.max(cubic) * 93, "{cell:?}: {bbr}");
    }
}

/// 20 Mbit/s, 50 ms, 6% loss: 20 MiB take some nine seconds and a half. The mean of twelve seeds
/// over that time, and once the rate is found.
#[test]
fn the_default_controller_reaches_the_bound_once_it_has_found_the_rate() {
    let rate = 20_000_000;
    let link = LinkConfig::new()
        .delay(MS * 25)
        .loss(0.06)
        .rate(rate, 125_000);
    let (mut whole, mut settled) = (0.0, 0.0);
    for seed in 1..=12 {
        let mut config = Config::default();
        config.set_flow_window(63 << 20).unwrap();
        config.set_session_window(128 << 20).unwrap();
        config.set_send_buffer(128 << 20).unwrap();
        let mut world = World::new(seed, vec![config.clone(), config], &link);
        world.hosts[1].counts_only = true;
        world.establish();
        world.send_endless(0, 1, flow(1));
        world.run_for(3 * SEC);
        let found = world.hosts[1].octets_received as f64;
        world.run_for(MS * 6500);
        let octets = world.hosts[1].octets_received as f64;
        whole += octets * 8.0 / 9.5 / rate as f64 / 12.0;
        settled += (octets - found) * 8.0 / 6.5 / rate as f64 / 12.0;
    }
    println!("of the link's rate: {whole:.4} from the start, {settled:.4} from 3 s on");
    assert!(settled >= 0.88, "{settled}");
    assert!(whole >= 0.86, "{whole}");
}
