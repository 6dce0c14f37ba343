//! Ratios of interleaved measurements in the processor time of this thread.
//!
//! Every round runs every case once, one after the other, and a ratio is taken within its round;
//! what is printed is the median over the rounds. A machine that is busy with something else
//! changes the speed of neighbouring cases alike, and time spent waiting for the processor is not
//! counted.
#![allow(dead_code)]

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of this thread so far, in nanoseconds.
pub(crate) fn processor_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(crate) struct Case<'a> {
    name: String,
    /// Against which case, by position, and the ratio asked for.
    asked: Option<f64>,
    base: usize,
    run: Box<dyn FnMut() + 'a>,
    per_call: u64,
}

/// Cases that are measured together.
pub(crate) struct Table<'a> {
    title: String,
    octets: usize,
    cases: Vec<Case<'a>>,
}

fn rounds() -> usize {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(41)
}

impl<'a> Table<'a> {
    pub(crate) fn new(title: impl Into<String>, octets: usize) -> Table<'a> {
        Table {
            title: title.into(),
            octets,
            cases: Vec::new(),
        }
    }

    /// Adds a case; its ratio is taken to case number `base`, and `asked` is the figure to reach.
    pub(crate) fn case<T>(
        &mut self,
        name: impl Into<String>,
        base: usize,
        asked: Option<f64>,
        mut run: impl FnMut() -> T + 'a,
    ) {
        self.cases.push(Case {
            name: name.into(),
            asked,
            base,
            run: Box::new(move || {
                black_box(run());
            }),
            per_call: 1,
        });
    }

    /// Measures and prints, as rows of a Markdown table.
    pub(crate) fn print(mut self) {
        // Calls per measurement: about a millisecond, so that the clock's own cost vanishes.
        for case in &mut self.cases {
            let mut calls = 1;
            loop {
                let from = processor_ns();
                for _ in 0..calls {
                    (case.run)();
                }
                if processor_ns() - from > 1_000_000 || calls > 1 << 20 {
                    break;
                }
                calls *= 2;
            }
            case.per_call = calls;
        }
        let mut times = vec![Vec::new(); self.cases.len()];
        for _ in 0..rounds() {
            for (case, times) in self.cases.iter_mut().zip(&mut times) {
                let from = processor_ns();
                for _ in 0..case.per_call {
                    (case.run)();
                }
                times.push((processor_ns() - from) as f64 / case.per_call as f64);
            }
        }
        println!("\n### {}\n", self.title);
        println!("| case | ns | GB/s | ratio | quartiles | asked |");
        println!("|---|---|---|---|---|---|");
        for (case, own) in self.cases.iter().zip(&times) {
            let mut ratios: Vec<f64> = own
                .iter()
                .zip(&times[case.base])
                .map(|(own, base)| base / own)
                .collect();
            let at =
                |sorted: &[f64], part: f64| sorted[(part * (sorted.len() - 1) as f64) as usize];
            ratios.sort_by(f64::total_cmp);
            let mut own = own.clone();
            own.sort_by(f64::total_cmp);
            let ns = at(&own, 0.5);
            let verdict = case.asked.map_or(String::new(), |asked| {
                let reached = if at(&ratios, 0.5) >= asked {
                    "reached"
                } else {
                    "missed"
                };
                format!("{asked} {reached}")
            });
            println!(
                "| {} | {ns:.0} | {:.2} | {:.2} | {:.2}..{:.2} | {verdict} |",
                case.name,
                self.octets as f64 / ns,
                at(&ratios, 0.5),
                at(&ratios, 0.25),
                at(&ratios, 0.75),
            );
        }
    }
}
