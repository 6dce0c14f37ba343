//! Statistics of a transfer in a file: JSON, or CSV.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::net::link::Carried;
use crate::xfer::tally::{Sample, Tally};

/// The head of the CSV form.
pub(crate) const CSV_HEAD: &str = "seconds,octets,rate,cwnd,in_flight,rtt_ms,sent,lost";

/// A transfer in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// The format: 1.
    pub(crate) version: u32,
    pub(crate) direction: String,
    pub(crate) mode: String,
    pub(crate) octets: u64,
    pub(crate) seconds: f64,
    /// Octets per second over all.
    pub(crate) rate: f64,
    /// Shares and octets by carrier.
    pub(crate) paths: Carried,
    pub(crate) samples: Vec<Sample>,
}

impl Stats {
    pub(crate) fn of(tally: &Tally, direction: &str, mode: &str) -> Stats {
        let (octets, same, paths, took) = tally.summary();
        let seconds = took.as_secs_f64();
        Stats {
            version: 1,
            direction: direction.into(),
            mode: mode.into(),
            octets,
            seconds,
            rate: octets.saturating_sub(same) as f64 / seconds.max(1e-9),
            paths,
            samples: tally.samples(),
        }
    }

    /// Writes them; a name that ends in `.csv` gets the samples alone as CSV.
    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        let text = if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("csv"))
        {
            self.csv()
        } else {
            serde_json::to_string_pretty(self).map_err(Failure::failed)? + "\n"
        };
        fs::write(path, text).map_err(|e| Failure::disk(&e, "writing", path))
    }

    fn csv(&self) -> String {
        let mut text = format!("{CSV_HEAD}\n");
        for s in &self.samples {
            text.push_str(&format!(
                "{:.3},{},{:.0},{},{},{:.3},{},{}\n",
                s.seconds, s.octets, s.rate, s.cwnd, s.in_flight, s.rtt_ms, s.sent, s.lost
            ));
        }
        text
    }

    /// Samples of either form.
    pub(crate) fn read(path: &Path) -> Outcome<Vec<Sample>> {
        let text = fs::read_to_string(path).map_err(|e| Failure::disk(&e, "reading", path))?;
        if let Some(body) = text.strip_prefix(CSV_HEAD) {
            return body
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| parse_row(line, path))
                .collect();
        }
        serde_json::from_str::<Stats>(&text)
            .map(|stats| stats.samples)
            .map_err(|e| {
                Failure::usage(format!(
                    "{} is not what --stats writes: {e}",
                    path.display()
                ))
            })
    }
}

fn parse_row(line: &str, path: &Path) -> Outcome<Sample> {
    let fields: Option<Vec<f64>> = line
        .split(',')
        .map(|field| field.trim().parse().ok())
        .collect();
    match fields.as_deref() {
        Some(&[seconds, octets, rate, cwnd, in_flight, rtt_ms, sent, lost]) => Ok(Sample {
            seconds,
            octets: octets as u64,
            rate,
            cwnd: cwnd as u64,
            in_flight: in_flight as u64,
            rtt_ms,
            sent: sent as u64,
            lost: lost as u64,
        }),
        _ => Err(Failure::usage(format!(
            "{} has a row that is no sample: {line:?}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let sample = Sample {
            seconds: 0.25,
            octets: 7,
            rate: 28.0,
            cwnd: 14720,
            in_flight: 3,
            rtt_ms: 1.5,
            sent: 9,
            lost: 1,
        };
        let stats = Stats {
            version: 1,
            direction: "sent".into(),
            mode: "normal".into(),
            octets: 7,
            seconds: 0.25,
            rate: 28.0,
            paths: Carried::from([("direct".into(), (1, 7))]),
            samples: vec![sample.clone()],
        };
        for name in ["s.json", "s.csv"] {
            let path = dir.path().join(name);
            stats.write(&path).unwrap();
            assert_eq!(
                Stats::read(&path).unwrap(),
                std::slice::from_ref(&sample),
                "{name}"
            );
        }
        fs::write(dir.path().join("x"), "nonsense").unwrap();
        assert!(Stats::read(&dir.path().join("x")).is_err());
    }
}
