//! The figures that were asked for, computed from the raw data: what was asked, what was found, and
//! whether that is enough.

use std::fmt::Write;

use crate::figures::PATHS;
use crate::record::{Row, quantile};
use crate::run::ideal_burst;
use crate::world::PathSpec;

/// Who answers where small messages are asked about.
const SMALL: &str = "VMDT 3 of 6";
/// Who answers where bulk content is.
const BULK: &str = "VMDT 2 of 3";
/// The same over one path, which processor time is compared on: the others carry all octets once.
const ALONE: &str = "VMDT 2 of 2";
/// The transport between two nodes alone: what QUIC is, without what shares add to it.
const SEALED: &str = "RDT sealed";
/// Peers with one path.
const SINGLE: &[&str] = &[
    "TCP CUBIC",
    "TCP BBR",
    "TLS CUBIC",
    "TLS BBR",
    "QUIC",
    "QUIC BBR",
];
/// Peers with all paths.
const MULTI: &[&str] = &["MPTCP CUBIC", "MPTCP BBR", "MPQUIC", "MPQUIC BBR"];
/// How much slower at the 95th percentile each must be, connections ready.
const READY: &[(&str, f64)] = &[
    ("TCP CUBIC", 5.0),
    ("TCP BBR", 3.0),
    ("MPTCP CUBIC", 3.0),
    ("MPTCP BBR", 3.0),
    ("QUIC", 3.0),
    ("QUIC BBR", 3.0),
    ("MPQUIC", 2.0),
    ("MPQUIC BBR", 2.0),
];

/// What is asked of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    AtLeast(f64),
    AtMost(f64),
}

impl Asked {
    fn is_met(self, got: f64) -> bool {
        match self {
            Asked::AtLeast(bound) => got >= bound,
            Asked::AtMost(bound) => got <= bound,
        }
    }
}

/// One line of a table: what, what is asked of it, and what was found in each column; nothing
/// where nothing was measured or nothing is asked.
#[derive(Clone, Debug)]
struct Line {
    what: String,
    asked: Asked,
    got: Vec<Option<f64>>,
}

/// A table of answers.
#[derive(Clone, Debug)]
struct Table {
    title: String,
    columns: Vec<String>,
    lines: Vec<Line>,
}

/// The section of the report; `rows` gives a figure's measurements.
#[must_use]
pub fn section(rows: &dyn Fn(&str) -> Vec<Row>) -> String {
    let tables = tables(rows);
    let answers: Vec<bool> = tables
        .iter()
        .flat_map(|table| &table.lines)
        .flat_map(|line| line.got.iter().flatten().map(|got| line.asked.is_met(*got)))
        .collect();
    let mut text = String::from("## What was asked for, and what was found\n\n");
    let met = answers.iter().filter(|met| **met).count();
    let _ = writeln!(
        text,
        "Computed from the raw data: **{met} of {}** are met. Small messages: {SMALL}; bulk content: \
         {BULK}. A ratio says how many times longer the other takes (time), or how many times more \
         VMDT carries (bulk). RDT and the prototypes are parts of VMDT and not compared here.\n",
        answers.len()
    );
    for table in tables.iter().filter(|table| !table.lines.is_empty()) {
        let _ = write!(text, "**{}**\n\n| | asked |", table.title);
        for column in &table.columns {
            let _ = write!(text, " {column} |");
        }
        let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(table.columns.len()));
        for line in &table.lines {
            let asked = match line.asked {
                Asked::AtLeast(bound) => format!("≥ {}", short(bound)),
                Asked::AtMost(bound) => format!("≤ {}", short(bound)),
            };
            let _ = write!(text, "| {} | {asked} |", line.what);
            for got in &line.got {
                let _ = match got {
                    None => write!(text, " |"),
                    Some(got) if line.asked.is_met(*got) => {
                        write!(text, " {} yes |", short(*got))
                    }
                    Some(got) => write!(text, " {} **no** |", short(*got)),
                };
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

fn short(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.2}")
    } else {
        "∞".to_owned()
    }
}

fn tables(rows: &dyn Fn(&str) -> Vec<Row>) -> Vec<Table> {
    let mut ready = rows("burst-loss");
    ready.extend(rows("burst-rtt"));
    ready.retain(|row| row.loss == 6.0 && row.kind == "ready");
    let cold = rows("burst-cold");
    let mut tables = small(&ready);
    tables.push(set_up(&cold));
    tables.push(bulk(&rows("bulk")));
    tables.push(rest(&rows("fairness"), &rows("loopback")));
    tables
}

/// Rate and round trip.
type Cell = (f64, f64);

fn cells(rows: &[Row]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    for row in rows {
        if !cells.contains(&(row.rate, row.rtt)) {
            cells.push((row.rate, row.rtt));
        }
    }
    cells.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    cells
}

fn names(cells: &[Cell]) -> Vec<String> {
    let name = |(rate, rtt): &Cell| format!("{rate} Mbit/s, {rtt} ms");
    cells.iter().map(name).collect()
}

/// A quantile of someone's times in a cell; what did not end took forever.
fn time(rows: &[Row], who: &str, cell: Cell, fraction: f64) -> Option<f64> {
    let times: Vec<f64> = rows
        .iter()
        .filter(|row| row.contender == who && (row.rate, row.rtt) == cell)
        .map(|row| row.ms.unwrap_or(f64::INFINITY))
        .collect();
    quantile(&times, fraction)
}

/// How many times longer another takes; 0 where VMDT did not end.
fn slower(rows: &[Row], who: &str, cell: Cell, fraction: f64) -> Option<f64> {
    let ours = time(rows, SMALL, cell, fraction)?;
    let theirs = time(rows, who, cell, fraction)?;
    Some(if ours.is_finite() { theirs / ours } else { 0.0 })
}

fn small(rows: &[Row]) -> Vec<Table> {
    let cells = cells(rows);
    let per_cell = |found: &dyn Fn(Cell) -> Option<f64>| cells.iter().map(|c| found(*c)).collect();
    let over_ideal = |fraction: f64| {
        per_cell(&|cell| {
            let paths = vec![PathSpec::new(cell.0, cell.1 as u64, 0.0); PATHS];
            let ideal = ideal_burst(&paths, (59, 1392), (3, 6)).as_secs_f64() * 1e3;
            Some(time(rows, SMALL, cell, fraction)? / ideal)
        })
    };
    let is_measured = |line: &Line| line.got.iter().any(Option::is_some);
    let table = |title: &str, lines: Vec<Line>| Table {
        title: title.to_owned(),
        columns: names(&cells),
        lines: lines.into_iter().filter(is_measured).collect(),
    };
    let ideal = [("median", 0.5), ("95th percentile", 0.95)].map(|(name, fraction)| Line {
        what: name.to_owned(),
        asked: Asked::AtMost(1.15),
        got: over_ideal(fraction),
    });
    let tail = READY.iter().map(|(who, asked)| Line {
        what: (*who).to_owned(),
        asked: Asked::AtLeast(*asked),
        got: per_cell(&|cell| slower(rows, who, cell, 0.95)),
    });
    let median = |who: &str| slower_from(rows, who, &cells, 0.0);
    let others = SINGLE.iter().chain(MULTI).chain(&["1.0 style"]);
    let mut middle = vec![Line {
        what: "TCP CUBIC, from 50 ms up".to_owned(),
        asked: Asked::AtLeast(3.0),
        got: slower_from(rows, "TCP CUBIC", &cells, 50.0),
    }];
    middle.extend(others.map(|who| Line {
        what: (*who).to_owned(),
        asked: Asked::AtLeast(1.0),
        got: median(who),
    }));
    vec![
        table(
            "59 messages, 6% loss, ready: time as a multiple of the ideal, 3 of 6 pieces sent, none lost",
            ideal.to_vec(),
        ),
        table(
            "59 messages, 6% loss, ready: 95th percentile of each as a multiple of VMDT's",
            tail.collect(),
        ),
        table(
            "59 messages, 6% loss, ready: median of each as a multiple of VMDT's",
            middle,
        ),
    ]
}

/// Medians in the cells with at least this round trip.
fn slower_from(rows: &[Row], who: &str, cells: &[Cell], rtt: f64) -> Vec<Option<f64>> {
    let found = |cell: &Cell| slower(rows, who, *cell, 0.5).filter(|_| cell.1 >= rtt);
    cells.iter().map(found).collect()
}

fn set_up(rows: &[Row]) -> Table {
    let cells = cells(rows);
    let lines = SINGLE.iter().chain(MULTI).map(|who| Line {
        what: (*who).to_owned(),
        asked: Asked::AtLeast(3.0),
        got: cells.iter().map(|c| slower(rows, who, *c, 0.95)).collect(),
    });
    Table {
        title:
            "59 messages, 6% loss, set-up counted: 95th percentile of each as a multiple of VMDT's"
                .to_owned(),
        columns: names(&cells),
        lines: lines
            .filter(|line| line.got.iter().any(Option::is_some))
            .collect(),
    }
}

/// The median of a figure's own value.
fn value(rows: &[Row], who: &str, loss: Option<f64>, fraction: f64) -> Option<f64> {
    let values: Vec<f64> = rows
        .iter()
        .filter(|row| row.contender == who && loss.is_none_or(|loss| row.loss == loss))
        .filter_map(|row| row.value)
        .collect();
    quantile(&values, fraction)
}

fn bulk(rows: &[Row]) -> Table {
    let at = |who: &str, loss: f64| value(rows, who, Some(loss), 0.5);
    let best = |of: &[&str], loss: f64| of.iter().filter_map(|who| at(who, loss)).reduce(f64::max);
    let ratio = |loss: f64, other: Option<f64>| Some(at(BULK, loss)? / other?.max(1e-9));
    // shares beyond k go on when measured losses ask for them: of bulk content none do
    let aggregate = rows.first().map(|row| row.rate * PATHS as f64);
    let lines = [
        (
            "6%: part of the aggregate rate of the paths",
            0.8,
            ratio(6.0, aggregate),
        ),
        (
            "6%: the best peer with one path",
            2.5,
            ratio(6.0, best(SINGLE, 6.0)),
        ),
        ("6%: MPTCP CUBIC", 10.0, ratio(6.0, at("MPTCP CUBIC", 6.0))),
        ("6%: MPTCP BBR", 1.15, ratio(6.0, at("MPTCP BBR", 6.0))),
        (
            "0%: the best peer with all paths",
            0.95,
            ratio(0.0, best(MULTI, 0.0)),
        ),
    ];
    one_column("Bulk content: median goodput, times that of", &lines)
}

fn rest(fairness: &[Row], loopback: &[Row]) -> Table {
    let per_second = |who: &str| value(loopback, who, None, 0.5).map(|seconds| 1.0 / seconds);
    let of_quinn = |who: &str| Some(per_second(who)? / per_second("QUIC")?);
    let lines = [
        (
            "competing TCP CUBIC flow: part of its fair share that VMDT leaves it, median",
            0.5,
            value(fairness, BULK, None, 0.5),
        ),
        (
            "the same, 5th percentile",
            0.5,
            value(fairness, BULK, None, 0.05),
        ),
        (
            "loopback: octets per processor second, VMDT 2 of 2 (one path) against QUIC",
            1.2,
            of_quinn(ALONE),
        ),
        (
            "loopback: the same, VMDT 2 of 3 with two relays, sharing one machine",
            1.2,
            of_quinn(BULK),
        ),
        (
            "loopback: octets per processor second, the transport alone (RDT sealed) against QUIC",
            1.2,
            of_quinn(SEALED),
        ),
    ];
    one_column("Fairness and processor time", &lines)
}

fn one_column(title: &str, lines: &[(&str, f64, Option<f64>)]) -> Table {
    let line = |(what, asked, got): &(&str, f64, Option<f64>)| Line {
        what: (*what).to_owned(),
        asked: Asked::AtLeast(*asked),
        got: vec![*got],
    };
    Table {
        title: title.to_owned(),
        columns: vec!["got".to_owned()],
        lines: lines
            .iter()
            .filter(|(_, _, got)| got.is_some())
            .map(line)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: &str, who: &str, loss: f64, seed: u64, ms: f64, value: f64) -> Row {
        Row {
            figure: figure.to_owned(),
            contender: who.to_owned(),
            rate: if figure == "bulk" { 20.0 } else { 10.0 },
            rtt: 50.0,
            loss,
            kind: "ready".to_owned(),
            seed,
            ms: ms.is_finite().then_some(ms),
            sent: 1,
            content: 1,
            value: Some(value),
            conditions: None,
        }
    }

    fn said(rows: Vec<Row>) -> String {
        section(&|figure| {
            let of = rows.iter().filter(|row| row.figure == figure);
            of.cloned().collect()
        })
    }

    #[test]
    fn times_are_held_against_the_ideal_and_the_others() {
        // the ideal of this cell is 71.4 ms
        let times = [
            ("VMDT 3 of 6", 80.0),
            ("TCP CUBIC", 480.0),
            ("TCP BBR", 200.0),
        ];
        let text = said(
            times
                .iter()
                .map(|(who, ms)| row("burst-loss", who, 6.0, 1, *ms, 0.0))
                .collect(),
        );
        assert!(
            text.contains("| 95th percentile | ≤ 1.15 | 1.12 yes |"),
            "{text}"
        );
        assert!(text.contains("| TCP CUBIC | ≥ 5.00 | 6.00 yes |"), "{text}");
        assert!(
            text.contains("| TCP BBR | ≥ 3.00 | 2.50 **no** |"),
            "{text}"
        );
        assert!(
            text.contains("| TCP CUBIC, from 50 ms up | ≥ 3.00 | 6.00 yes |"),
            "{text}"
        );
        // 2 of the ideal, 2 of the 95th percentile, 3 of the median
        assert!(text.contains("**6 of 7** are met"), "{text}");
    }

    #[test]
    fn what_did_not_end_took_forever() {
        let never = f64::INFINITY;
        let rows = |ours, theirs| {
            vec![
                row("burst-loss", "VMDT 3 of 6", 6.0, 1, ours, 0.0),
                row("burst-loss", "TCP CUBIC", 6.0, 1, theirs, 0.0),
            ]
        };
        let text = said(rows(70.0, never));
        assert!(text.contains("| TCP CUBIC | ≥ 5.00 | ∞ yes |"), "{text}");
        for theirs in [70.0, never] {
            let text = said(rows(never, theirs));
            assert!(
                text.contains("| TCP CUBIC | ≥ 5.00 | 0.00 **no** |"),
                "{text}"
            );
            assert!(text.contains("| median | ≤ 1.15 | ∞ **no** |"), "{text}");
        }
    }

    #[test]
    fn bulk_is_held_against_the_best_of_each_kind() {
        let rates = [("VMDT 2 of 3", 48.0), ("TCP BBR", 10.0), ("QUIC BBR", 24.0)];
        let text = said(
            rates
                .iter()
                .map(|(who, rate)| row("bulk", who, 6.0, 1, 1.0, *rate))
                .collect(),
        );
        assert!(
            text.contains("rate of the paths | ≥ 0.80 | 0.80 yes |"),
            "{text}"
        );
        assert!(text.contains("one path | ≥ 2.50 | 2.00 **no** |"), "{text}");
        assert!(!text.contains("MPTCP"), "what was not measured: {text}");
    }

    #[test]
    fn processor_time_and_fair_shares_are_held_against_what_is_asked() {
        let text = said(vec![
            row("fairness", "VMDT 2 of 3", 0.0, 1, 1.0, 0.6),
            row("fairness", "VMDT 2 of 3", 0.0, 2, 1.0, 0.4),
            row("loopback", "VMDT 2 of 2", 0.0, 1, 1.0, 4.0),
            row("loopback", "QUIC", 0.0, 1, 1.0, 2.0),
        ]);
        assert!(
            text.contains("5th percentile | ≥ 0.50 | 0.40 **no** |"),
            "{text}"
        );
        assert!(
            text.contains("(one path) against QUIC | ≥ 1.20 | 0.50 **no** |"),
            "{text}"
        );
    }
}
