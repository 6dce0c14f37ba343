//! Runs random worlds of the transport against the model of a reliable channel.
//!
//! `cargo run -p vmdt-testkit --release --features soak -- soak --minutes 10 [--seed S]
//! [--threads N]`. Every 32nd world is run twice and must give the same trace. A failing seed is
//! printed and the command ends with 1; `--seed S --worlds 1` runs it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

#[path = "../../../vmdt-rdt/tests/common/mod.rs"]
mod common;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::script::run;

const USAGE: &str = "usage: vmdt-testkit soak --minutes N [--seed S] [--worlds W] [--threads T]";
/// One world in so many is run twice.
const TWICE: u64 = 32;

/// What is asked for.
struct Options {
    time: Duration,
    seed: u64,
    worlds: u64,
    threads: u64,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        if words.next()? != "soak" {
            return None;
        }
        let mut options = Self {
            time: Duration::from_secs(60),
            seed: 0,
            worlds: u64::MAX,
            threads: 1,
        };
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word.as_str() {
                "--minutes" => {
                    let minutes: f64 = value.parse().ok()?;
                    options.time = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
                }
                "--seed" => options.seed = value.parse().ok()?,
                "--worlds" => options.worlds = value.parse().ok()?,
                "--threads" => options.threads = value.parse().ok().filter(|n| *n > 0)?,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// What was run.
#[derive(Default)]
struct Totals {
    worlds: u64,
    flows: u64,
    packets: u64,
    elapsed: Duration,
    twice: u64,
    failed: Vec<(u64, String)>,
}

impl Totals {
    fn print(&self, since: Instant) {
        println!(
            "{} worlds, {} flows, {} packets, {:.1} virtual hours in {:.0} s; {} run twice; {} failed",
            self.worlds,
            self.flows,
            self.packets,
            self.elapsed.as_secs_f64() / 3600.0,
            since.elapsed().as_secs_f64(),
            self.twice,
            self.failed.len()
        );
    }
}

fn work(options: &Options, start: Instant, next: &AtomicU64, totals: &Mutex<Totals>) {
    while start.elapsed() < options.time {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= options.worlds {
            break;
        }
        let seed = options.seed.wrapping_add(index);
        let twice = index.is_multiple_of(TWICE);
        let result = catch_unwind(|| {
            let outcome = run(seed);
            if twice {
                assert_eq!(outcome, run(seed), "the second run differs");
            }
            outcome
        });
        let mut totals = totals.lock().unwrap();
        totals.worlds += 1;
        totals.twice += u64::from(twice);
        match result {
            Ok(outcome) => {
                totals.flows += outcome.flows;
                totals.packets += outcome.packets;
                totals.elapsed += outcome.elapsed;
            }
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("panicked")
                    .to_owned();
                eprintln!("seed {seed} failed: {text}");
                totals.failed.push((seed, text));
            }
        }
        if totals.worlds.is_multiple_of(10_000) {
            totals.print(start);
        }
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // A failing world is reported once, with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| work(&options, start, &next, &totals));
        }
    });
    let totals = totals.into_inner().unwrap();
    totals.print(start);
    for (seed, text) in &totals.failed {
        println!("seed {seed}: {text}; again: soak --seed {seed} --worlds 1");
    }
    if totals.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
