//! The figures of the report: what is measured for each, and how it is written down.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::record::{Record, Row};
use crate::run::{CONTENDERS, Common, Contender, Outcome, Plan, Workload, contender, content};
use crate::world::{PathSpec, World};

/// Paths between sender and receiver in all figures.
pub const PATHS: usize = 3;
const RELAYS: usize = 4;
/// 59 messages of a packet each, back to back.
pub const BURST: Workload = Workload::Burst {
    count: 59,
    size: 1392,
};
/// Everybody who takes part where sets of contenders are not named.
const ALL: &[&str] = &[];
/// One of each kind, for figures that take long.
const FEW: &[&str] = &[
    "tcp-cubic",
    "tcp-bbr",
    "mptcp-cubic",
    "mptcp-bbr",
    "quinn",
    "quinn-bbr",
    "noq",
    "noq-bbr",
    "rdt",
    "VMDT 2 of 3",
];

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Measurements of each kind.
    pub seeds: u64,
    /// Only a few settings of each figure, and less content.
    pub quick: bool,
    /// One contender alone; what is known of the others stays.
    pub only: Option<&'static Contender>,
}

/// One setting of a figure.
#[derive(Clone, Debug)]
struct Cell {
    path: PathSpec,
    kind: &'static str,
    cold: bool,
    workload: Workload,
    outage: Option<(usize, Duration, Duration)>,
    competing: bool,
}

impl Cell {
    fn new(mbit: f64, rtt: u64, loss: f64, workload: Workload) -> Cell {
        Cell {
            path: PathSpec::new(mbit, rtt, loss),
            kind: "ready",
            cold: false,
            workload,
            outage: None,
            competing: false,
        }
    }

    fn cold(self) -> Cell {
        Cell {
            cold: true,
            kind: "cold",
            ..self
        }
    }

    fn bursts(mut self) -> Cell {
        self.path.burst = Some((self.path.loss, 8.0));
        self.path.loss = 0.0;
        self.kind = "burst loss";
        self
    }
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name, also that of its files.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What `value` is, where it has one.
    pub value: Option<&'static str>,
}

/// All figures, in the order of the report.
pub const FIGURES: &[Figure] = &[
    Figure {
        id: "burst-loss",
        title: "59 one-packet messages back to back, over loss",
        value: None,
    },
    Figure {
        id: "burst-rtt",
        title: "59 one-packet messages back to back, over the round trip",
        value: None,
    },
    Figure {
        id: "burst-cold",
        title: "59 one-packet messages, connection set-up counted",
        value: None,
    },
    Figure {
        id: "message",
        title: "One message of 82,128 octets",
        value: None,
    },
    Figure {
        id: "requests",
        title: "Requests and replies of 1 KiB",
        value: None,
    },
    Figure {
        id: "bulk",
        title: "Bulk content over three 20 Mbit/s paths",
        value: Some("goodput, Mbit/s"),
    },
    Figure {
        id: "outage",
        title: "A path that dies for 3 s and returns, under bulk content",
        value: Some("longest standstill, ms"),
    },
    Figure {
        id: "fairness",
        title: "A competing TCP CUBIC flow on the first path",
        value: Some("its part of its fair share"),
    },
    Figure {
        id: "loopback",
        title: "Processor time over loopback",
        value: Some("CPU seconds per GiB"),
    },
    Figure {
        id: "picture",
        title: "Messages delivered over time",
        value: None,
    },
];

/// The figure of this name.
#[must_use]
pub fn figure(id: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.id == id)
}

fn cells(id: &str, quick: bool) -> Vec<Cell> {
    let bulk = Workload::Bulk {
        octets: 20 << 20,
        limit: Duration::from_secs(if quick { 4 } else { 20 }),
    };
    let steady = Workload::Bulk {
        octets: 200 << 20,
        limit: Duration::from_secs(10),
    };
    match id {
        "burst-loss" if quick => vec![Cell::new(10.0, 50, 0.06, BURST)],
        "burst-loss" => {
            let losses = [0.0, 0.01, 0.03, 0.06, 0.10];
            let mut cells: Vec<Cell> = losses
                .iter()
                .map(|loss| Cell::new(10.0, 50, *loss, BURST))
                .collect();
            cells.push(Cell::new(10.0, 50, 0.06, BURST).bursts());
            cells
        }
        "burst-rtt" if quick => vec![],
        "burst-rtt" => [
            (10.0, 20),
            (10.0, 100),
            (10.0, 300),
            (100.0, 20),
            (100.0, 50),
            (100.0, 100),
        ]
        .map(|(mbit, rtt)| Cell::new(mbit, rtt, 0.06, BURST))
        .to_vec(),
        "burst-cold" if quick => vec![],
        "burst-cold" => [20, 50, 100]
            .map(|rtt| Cell::new(10.0, rtt, 0.06, BURST).cold())
            .to_vec(),
        "message" => {
            let one = Workload::Burst {
                count: 1,
                size: 82_128,
            };
            let losses: &[f64] = if quick { &[0.06] } else { &[0.0, 0.01, 0.06] };
            losses
                .iter()
                .map(|loss| Cell::new(10.0, 50, *loss, one))
                .collect()
        }
        "requests" => {
            let some = Workload::Requests { count: 20 };
            let losses: &[f64] = if quick { &[0.06] } else { &[0.0, 0.01, 0.06] };
            losses
                .iter()
                .map(|loss| Cell::new(10.0, 50, *loss, some))
                .collect()
        }
        "bulk" => {
            let losses: &[f64] = if quick {
                &[0.06]
            } else {
                &[0.0, 0.01, 0.03, 0.06, 0.10]
            };
            losses
                .iter()
                .map(|loss| Cell::new(20.0, 50, *loss, bulk))
                .collect()
        }
        "outage" if quick => vec![],
        "outage" => vec![Cell {
            outage: Some((0, Duration::from_secs(2), Duration::from_secs(3))),
            ..Cell::new(10.0, 50, 0.0, steady)
        }],
        "fairness" if quick => vec![],
        "fairness" => vec![Cell {
            competing: true,
            ..Cell::new(10.0, 50, 0.0, steady)
        }],
        "picture" => vec![Cell::new(10.0, 50, 0.06, BURST)],
        _ => vec![],
    }
}

fn contenders(id: &str, quick: bool) -> Vec<&'static Contender> {
    let names: &[&str] = match id {
        "burst-loss" | "burst-rtt" | "burst-cold" => ALL,
        "picture" => &[
            "tcp-cubic",
            "tcp-bbr",
            "quinn",
            "quinn-bbr",
            "noq",
            "rdt",
            "VMDT 3 of 6",
            "pieces",
            "pieces-rank",
        ],
        "bulk" if quick => &[
            "tcp-cubic",
            "tcp-bbr",
            "mptcp-bbr",
            "quinn-bbr",
            "noq-bbr",
            "rdt",
            "VMDT 2 of 3",
        ],
        "requests" | "message" if quick => &["tcp-cubic", "quinn", "noq", "rdt", "VMDT 2 of 3"],
        "loopback" => &[
            "tcp-cubic",
            "tls-cubic",
            "quinn",
            "noq",
            "rdt",
            "VMDT 2 of 3",
        ],
        "fairness" => &[
            "tcp-cubic",
            "tcp-bbr",
            "quinn",
            "quinn-bbr",
            "rdt",
            "VMDT 2 of 3",
            "mptcp-cubic",
            "noq",
        ],
        _ => FEW,
    };
    if names.is_empty() {
        // the 1.0 style takes a round trip for each message: one figure shows it
        let slow = |c: &&Contender| (id == "burst-loss" && !quick) || c.name != "onezero";
        return CONTENDERS.iter().filter(slow).collect();
    }
    names.iter().filter_map(|name| contender(name)).collect()
}

/// Measures a figure and writes its raw data into `folder`. Contenders take turns: all of them
/// with one seed, then with the next.
///
/// # Errors
/// When the lab itself fails; a contender that fails is reported and left out of that round.
pub fn measure(figure: &Figure, effort: Effort, folder: &Path, log: &mut dyn Write) -> Result<()> {
    let cells = cells(figure.id, effort.quick);
    let mut contenders = contenders(figure.id, effort.quick);
    if let Some(only) = effort.only {
        contenders.retain(|contender| *contender == only);
    }
    let common = Common::new()?;
    if figure.id == "loopback" {
        return loopback(&common, &contenders, effort, folder, log);
    }
    if cells.is_empty() {
        return Ok(());
    }
    let world = World::new(PATHS, RELAYS)?;
    let mut record = record(folder, figure.id, effort)?;
    let seeds = match figure.id {
        "picture" => 1,
        "message" | "requests" | "bulk" if effort.quick => 1,
        "bulk" | "outage" | "fairness" => effort.seeds.min(10),
        _ => effort.seeds,
    };
    let mut picture = String::from("contender,ms,delivered\n");
    for cell in &cells {
        for seed in 1..=seeds {
            for contender in &contenders {
                let plan = Plan {
                    contender,
                    paths: vec![cell.path.clone(); PATHS],
                    seed,
                    cold: cell.cold,
                    workload: cell.workload,
                    outage: cell.outage,
                    competing: cell.competing,
                };
                let outcome = match common.run(&world, &plan) {
                    Ok(outcome) => outcome,
                    Err(error) => {
                        writeln!(log, "  left out: {error:#}")?;
                        continue;
                    }
                };
                for row in rows(figure, cell, &plan, &outcome) {
                    record.add(&row)?;
                }
                if figure.id == "picture" || figure.id == "outage" {
                    for (at, count) in thin(&outcome.arrivals) {
                        picture += &format!(
                            "{},{:.3},{count}\n",
                            contender.label,
                            at.as_secs_f64() * 1e3
                        );
                    }
                }
            }
            writeln!(
                log,
                "  {}: {} Mbit/s, {:?}, loss {}%, {}: seed {seed} of {seeds}",
                figure.id,
                cell.path.rate.unwrap_or(0) / 1_000_000,
                cell.path.rtt,
                percent(cell),
                cell.kind
            )?;
            log.flush()?;
        }
    }
    if figure.id == "picture" || figure.id == "outage" {
        let file = folder.join(format!("{}-arrivals.csv", figure.id));
        std::fs::write(&file, picture).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn record(folder: &Path, figure: &str, effort: Effort) -> Result<Record> {
    match effort.only {
        Some(only) => Record::without(folder, figure, only.label),
        None => Record::create(folder, figure),
    }
}

/// At most about 400 points of a curve.
fn thin(arrivals: &[(Duration, u64)]) -> impl Iterator<Item = &(Duration, u64)> {
    arrivals.iter().step_by(arrivals.len() / 400 + 1)
}

fn percent(cell: &Cell) -> f64 {
    let loss = cell.path.burst.map_or(cell.path.loss, |(mean, _)| mean);
    (loss * 1e5).round() / 1e3
}

fn rows(figure: &Figure, cell: &Cell, plan: &Plan, outcome: &Outcome) -> Vec<Row> {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let row = Row {
        figure: figure.id.to_owned(),
        contender: plan.contender.label.to_owned(),
        rate: cell.path.rate.unwrap_or(0) as f64 / 1e6,
        rtt: ms(cell.path.rtt),
        loss: percent(cell),
        kind: cell.kind.to_owned(),
        seed: plan.seed,
        ms: outcome.took.map(ms),
        sent: outcome.sent,
        content: match plan.workload {
            Workload::Bulk { .. } => outcome.bulk.0,
            workload => content(workload),
        },
        value: match figure.id {
            "bulk" => Some(outcome.goodput() / 1e6),
            "outage" => Some(ms(standstill(&outcome.arrivals))),
            "fairness" => {
                let (octets, time) = outcome.competing;
                let rate = octets as f64 * 8.0 / time.as_secs_f64().max(1e-9);
                let fair = cell.path.rate.unwrap_or(0) as f64 / 2.0;
                Some(rate / fair.max(1.0))
            }
            _ => None,
        },
    };
    if !matches!(plan.workload, Workload::Requests { .. }) {
        return vec![row];
    }
    let count = outcome.requests.len().max(1) as u64;
    outcome
        .requests
        .iter()
        .map(|time| Row {
            ms: Some(ms(*time)),
            sent: row.sent / count,
            content: row.content / count,
            ..row.clone()
        })
        .collect()
}

/// The longest time in which nothing arrived.
fn standstill(arrivals: &[(Duration, u64)]) -> Duration {
    let next = arrivals.iter().skip(1);
    arrivals
        .iter()
        .zip(next)
        .map(|((a, _), (b, _))| b.saturating_sub(*a))
        .max()
        .unwrap_or_default()
}

fn loopback(
    common: &Common,
    contenders: &[&'static Contender],
    effort: Effort,
    folder: &Path,
    log: &mut dyn Write,
) -> Result<()> {
    let world = World::new(1, 0)?;
    let mut record = record(folder, "loopback", effort)?;
    let (octets, rounds) = if effort.quick {
        (64u64 << 20, 1)
    } else {
        (256 << 20, effort.seeds.min(5))
    };
    for seed in 1..=rounds {
        for contender in contenders {
            let octets = match contender.name {
                // what a node takes as one message
                "vmdt" => octets.min(64 << 20),
                _ => octets,
            };
            match common.loopback(&world.a, contender, octets) {
                Ok((took, cpu)) => record.add(&Row {
                    figure: "loopback".to_owned(),
                    contender: contender.label.to_owned(),
                    rate: 0.0,
                    rtt: 0.0,
                    loss: 0.0,
                    kind: "ready".to_owned(),
                    seed,
                    ms: Some(took.as_secs_f64() * 1e3),
                    sent: octets,
                    content: octets,
                    value: Some(cpu.as_secs_f64() * (1u64 << 30) as f64 / octets as f64),
                })?,
                Err(error) => writeln!(log, "  left out: {error:#}")?,
            }
        }
        writeln!(log, "  loopback: {seed} of {rounds}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_names_contenders_that_exist() {
        for figure in FIGURES {
            for quick in [false, true] {
                assert!(contenders(figure.id, quick).len() >= 5, "{}", figure.id);
            }
        }
    }

    #[test]
    fn the_longest_standstill_is_found() {
        let at = |ms| (Duration::from_millis(ms), 0);
        assert_eq!(
            standstill(&[at(1), at(5), at(50), at(60)]),
            Duration::from_millis(45)
        );
        assert_eq!(standstill(&[]), Duration::ZERO);
    }
}
