//! Processor time over loopback: alone on the machine as far as the lab goes, one contender at a
//! time, without real-time priority, which could starve the rest of the machine for seconds.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::figures::{self, Effort};
use crate::left_out;
use crate::record::{self, Record, Row};
use crate::run::{Common, Contender};
use crate::world::World;

const FIGURE: &str = "loopback";

/// Octets carried.
fn octets(quick: bool) -> u64 {
    if quick { 64 << 20 } else { 1 << 30 }
}

/// How many measurements it takes.
pub(crate) fn count(effort: Effort) -> usize {
    let mut contenders = figures::contenders(FIGURE, effort.quick);
    contenders.retain(|contender| effort.only.is_none_or(|only| only == *contender));
    figures::seeds(FIGURE, effort) as usize * contenders.len()
}

/// About how many seconds they take.
pub(crate) fn cost(effort: Effort) -> f64 {
    count(effort) as f64 * (0.5 + octets(effort.quick) as f64 / 1.5e8)
}

/// Measures what is not known yet; how many.
pub(crate) fn measure(
    common: &Common,
    effort: Effort,
    record: &mut Record,
    folder: &Path,
    log: &mut dyn Write,
) -> Result<u64> {
    let known: BTreeSet<String> = record::read(folder, FIGURE).iter().map(Row::key).collect();
    let mut contenders = figures::contenders(FIGURE, effort.quick);
    contenders.retain(|contender| effort.only.is_none_or(|only| only == *contender));
    let octets = octets(effort.quick);
    let rounds = figures::seeds(FIGURE, effort);
    let world = World::new(1, 0)?;
    let mut measured = 0;
    for round in 1..=rounds {
        for contender in &contenders {
            let mut row = row(contender, round, octets);
            if known.contains(&row.key()) {
                continue;
            }
            match common.loopback(&world.a, contender, octets) {
                Ok((took, cpu)) => {
                    row.ms = Some(took.as_secs_f64() * 1e3);
                    row.value = Some(cpu.as_secs_f64() * (1u64 << 30) as f64 / octets as f64);
                    record.add(&[row])?;
                    measured += 1;
                }
                Err(error) => {
                    writeln!(log, "  left out: {error:#}")?;
                    left_out::add(folder, FIGURE, &row.key(), &format!("{error:#}"))?;
                }
            }
        }
        writeln!(log, "  loopback: {round} of {rounds}")?;
        log.flush()?;
    }
    Ok(measured)
}

fn row(contender: &Contender, round: u64, octets: u64) -> Row {
    Row {
        figure: FIGURE.to_owned(),
        contender: contender.label.to_owned(),
        rate: 0.0,
        rtt: 0.0,
        loss: 0.0,
        kind: "ready".to_owned(),
        seed: round,
        ms: None,
        sent: octets,
        content: octets,
        value: None,
        conditions: None,
    }
}
