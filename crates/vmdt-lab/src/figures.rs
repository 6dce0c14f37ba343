//! The figures of the report: what is measured for each, and how it is written down.

use std::time::Duration;

use crate::record::Row;
use crate::run::{CONTENDERS, Contender, JOINING, Plan, Workload, contender};
use crate::world::PathSpec;

/// Paths between sender and receiver in all figures.
pub const PATHS: usize = 3;
/// Relays in all figures.
pub const RELAYS: usize = 4;
/// 59 messages of a packet each, back to back.
pub const BURST: Workload = Workload::Burst {
    count: 59,
    size: 1392,
};
/// Requests of a measurement: with 30 seeds, 150 for a quantile.
pub const REQUESTS: u32 = 5;
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
    /// Measurements that are made at once, each on links of its own.
    pub jobs: usize,
    /// Only what is not there yet.
    pub resume: bool,
}

/// One setting of a figure.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Each of its paths.
    pub path: PathSpec,
    /// `cold`, `ready`, `burst loss`.
    pub kind: &'static str,
    cold: bool,
    /// What is carried.
    pub workload: Workload,
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

    /// Loss in percent, of whichever kind.
    #[must_use]
    pub fn percent(&self) -> f64 {
        let loss = self.path.burst.map_or(self.path.loss, |(mean, _)| mean);
        (loss * 1e5).round() / 1e3
    }

    /// Whether a row is of this setting.
    #[must_use]
    pub fn is_of(&self, row: &Row) -> bool {
        row.rate == self.path.rate.unwrap_or(0) as f64 / 1e6
            && row.rtt == self.path.rtt.as_secs_f64() * 1e3
            && row.loss == self.percent()
            && row.kind == self.kind
    }

    /// A measurement in this setting.
    #[must_use]
    pub fn plan(&self, contender: &'static Contender, seed: u64) -> Plan {
        Plan {
            contender,
            paths: vec![self.path.clone(); PATHS],
            seed,
            cold: self.cold,
            workload: self.workload,
            outage: self.outage,
            competing: self.competing,
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

/// Where a row stands in its figure's file: by setting, seed and contender, as it is measured.
#[must_use]
pub fn place(figure: &Figure, row: &Row) -> (usize, u64, usize) {
    let cells = cells(figure.id, false);
    let cell = cells.iter().position(|cell| cell.is_of(row));
    let contender = CONTENDERS.iter().position(|c| c.label == row.contender);
    let last = usize::MAX;
    (cell.unwrap_or(last), row.seed, contender.unwrap_or(last))
}

/// How many seeds a figure takes of those asked for.
#[must_use]
pub fn seeds(id: &str, effort: Effort) -> u64 {
    match id {
        "picture" => effort.seeds.min(1),
        "message" | "requests" | "bulk" if effort.quick => effort.seeds.min(1),
        // processor time hardly varies, and nothing else may run meanwhile
        "loopback" => effort.seeds.min(if effort.quick { 1 } else { 3 }),
        _ => effort.seeds,
    }
}

/// The settings of a figure.
#[must_use]
pub fn cells(id: &str, quick: bool) -> Vec<Cell> {
    let bulk = Workload::Bulk {
        octets: 20 << 20,
        // what crawls is cut off: its goodput is that of what arrived
        limit: Duration::from_secs(if quick { 4 } else { 5 }),
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
            (100.0, 300),
        ]
        .map(|(mbit, rtt)| Cell::new(mbit, rtt, 0.06, BURST))
        .to_vec(),
        "burst-cold" if quick => vec![],
        "burst-cold" => [
            (10.0, 20),
            (10.0, 50),
            (10.0, 100),
            (10.0, 300),
            (100.0, 50),
        ]
        .map(|(mbit, rtt)| Cell::new(mbit, rtt, 0.06, BURST).cold())
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
            let some = Workload::Requests { count: REQUESTS };
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

/// Whether a contender is measured in a setting of a figure. The 1.0 style takes round trips for
/// each message, 9 s and more for a measurement: a setting with loss and one without show it.
#[must_use]
pub fn takes_part(contender: &Contender, id: &str, cell: &Cell) -> bool {
    match contender.name {
        "onezero" => {
            id == "burst-loss" && cell.kind == "ready" && [0.0, 6.0].contains(&cell.percent())
        }
        "vmdt" if contender.label == JOINING => cell.cold,
        // of one path, which is what the figures of several are not about
        "vmdt" => contender.relays > 0,
        // about processor time only
        "rdt-sealed" | "quinn-large" => false,
        _ => true,
    }
}

/// Who is measured for a figure.
#[must_use]
pub fn contenders(id: &str, quick: bool) -> Vec<&'static Contender> {
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
            "quinn-large",
            "noq",
            "rdt",
            "rdt-sealed",
            "VMDT 2 of 2",
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
        let slow = |c: &&Contender| (id == "burst-loss" && !quick) || c.name != "onezero";
        return CONTENDERS.iter().filter(slow).collect();
    }
    names.iter().filter_map(|name| contender(name)).collect()
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
    fn the_slow_manner_of_before_is_measured_in_two_settings() {
        let slow = contender("1.0 style").unwrap_or(&CONTENDERS[0]);
        let all = FIGURES.iter().flat_map(|figure| {
            let cells = cells(figure.id, false).into_iter();
            cells.map(|cell| takes_part(slow, figure.id, &cell))
        });
        assert_eq!(all.filter(|takes| *takes).count(), 2);
    }

    #[test]
    fn settings_of_a_figure_are_told_apart() {
        for figure in FIGURES {
            let cells = cells(figure.id, false);
            let keys: std::collections::BTreeSet<String> = cells
                .iter()
                .map(|c| {
                    format!(
                        "{:?} {} {:?} {}",
                        c.path.rate,
                        c.percent(),
                        c.path.rtt,
                        c.kind
                    )
                })
                .collect();
            assert_eq!(keys.len(), cells.len(), "{}", figure.id);
        }
    }
}
