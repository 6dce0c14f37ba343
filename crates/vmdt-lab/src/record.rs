//! Raw data: one line for each measurement, in CSV files that can be added to.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The figure it belongs to.
    pub figure: String,
    /// Who.
    pub contender: String,
    /// Mbit/s of a path; 0 for no limit.
    pub rate: f64,
    /// Round trip in milliseconds.
    pub rtt: f64,
    /// Loss in percent.
    pub loss: f64,
    /// `cold`, `ready`, `burst loss` and the like.
    pub kind: String,
    /// The seed.
    pub seed: u64,
    /// Milliseconds; none when it was not done in time.
    pub ms: Option<f64>,
    /// Octets sent in all.
    pub sent: u64,
    /// Octets of content.
    pub content: u64,
    /// The figure's own value, where it has one.
    pub value: Option<f64>,
}

/// The first line of a file.
pub const HEAD: &str =
    "figure,contender,rate_mbit,rtt_ms,loss_percent,kind,seed,ms,sent_octets,content_octets,value";

impl Row {
    /// The line of a file.
    #[must_use]
    pub fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.3}"));
        format!(
            "{},{},{},{},{},{},{},{},{},{},{}",
            self.figure,
            self.contender,
            self.rate,
            self.rtt,
            self.loss,
            self.kind,
            self.seed,
            number(self.ms),
            self.sent,
            self.content,
            number(self.value)
        )
    }

    /// Reads a line; `None` for one that is no measurement.
    #[must_use]
    pub fn parse(line: &str) -> Option<Row> {
        let mut words = line.split(',');
        let mut next = || words.next();
        let row = Row {
            figure: next()?.to_owned(),
            contender: next()?.to_owned(),
            rate: next()?.parse().ok()?,
            rtt: next()?.parse().ok()?,
            loss: next()?.parse().ok()?,
            kind: next()?.to_owned(),
            seed: next()?.parse().ok()?,
            ms: next()?.parse().ok(),
            sent: next()?.parse().ok()?,
            content: next()?.parse().ok()?,
            value: next()?.parse().ok(),
        };
        next().is_none().then_some(row)
    }
}

/// A figure's file, written as measurements are made.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: fs::File,
}

impl Record {
    /// Begins a figure's file anew.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn create(folder: &Path, figure: &str) -> Result<Record> {
        fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
        let path = folder.join(format!("{figure}.csv"));
        let mut file =
            fs::File::create(&path).with_context(|| format!("the file {}", path.display()))?;
        writeln!(file, "{HEAD}")?;
        Ok(Record { path, file })
    }

    /// Goes on with a figure's file, without the measurements of one contender.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn without(folder: &Path, figure: &str, contender: &str) -> Result<Record> {
        let rows = read(folder, figure);
        let mut record = Record::create(folder, figure)?;
        for row in rows.iter().filter(|row| row.contender != contender) {
            record.add(row)?;
        }
        Ok(record)
    }

    /// Adds a measurement.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn add(&mut self, row: &Row) -> Result<()> {
        writeln!(self.file, "{}", row.line())
            .with_context(|| format!("the file {}", self.path.display()))
    }
}

/// Reads a figure's file; empty when there is none.
#[must_use]
pub fn read(folder: &Path, figure: &str) -> Vec<Row> {
    let text = fs::read_to_string(folder.join(format!("{figure}.csv"))).unwrap_or_default();
    text.lines().filter_map(Row::parse).collect()
}

/// The value below which a fraction of the values lies (nearest rank); `None` of nothing.
#[must_use]
pub fn quantile(values: &[f64], fraction: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_its_line() {
        let row = Row {
            figure: "burst".to_owned(),
            contender: "TCP CUBIC".to_owned(),
            rate: 10.0,
            rtt: 50.0,
            loss: 6.0,
            kind: "ready".to_owned(),
            seed: 3,
            ms: Some(1.5),
            sent: 7,
            content: 5,
            value: None,
        };
        assert_eq!(Row::parse(&row.line()), Some(row.clone()));
        let undone = Row { ms: None, ..row };
        assert_eq!(Row::parse(&undone.line()), Some(undone));
        assert_eq!(Row::parse(HEAD), None);
        assert_eq!(Row::parse("a,b"), None);
    }

    #[test]
    fn quantiles_are_values_that_were_found() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert_eq!(quantile(&values, 0.95), Some(5.0));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
