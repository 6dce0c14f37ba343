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
    /// What the machine added; none in files of earlier versions, and over loopback.
    pub conditions: Option<Conditions>,
}

/// What the machine added to a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Packets that left the emulator.
    pub packets: u64,
    /// How late they did, in microseconds: the mean.
    pub mean_us: f64,
    /// How many were over 200 us late.
    pub late: u64,
    /// How late the worst was, in microseconds.
    pub worst_us: f64,
    /// Milliseconds in which processes of the contender could have run and had no processor, of
    /// all of them together.
    pub waited_ms: f64,
    /// How often the measurement was made again.
    pub repeats: u64,
    /// How many measurements were made at once.
    pub jobs: u64,
}

/// The first line of a file.
pub const HEAD: &str = "figure,contender,rate_mbit,rtt_ms,loss_percent,kind,seed,ms,sent_octets,\
     content_octets,value,packets,late_mean_us,late_packets,late_worst_us,waited_ms,repeats,jobs";

impl Row {
    /// Which measurement it is of, within its figure.
    #[must_use]
    pub fn key(&self) -> String {
        format!(
            "{},{},{},{},{},{}",
            self.contender, self.rate, self.rtt, self.loss, self.kind, self.seed
        )
    }

    /// The line of a file.
    #[must_use]
    pub fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.3}"));
        let conditions = self.conditions.map_or(",,,,,,".to_owned(), |c| {
            format!(
                "{},{:.1},{},{:.0},{:.1},{},{}",
                c.packets, c.mean_us, c.late, c.worst_us, c.waited_ms, c.repeats, c.jobs
            )
        });
        format!(
            "{},{},{},{},{},{},{conditions}",
            self.figure,
            self.key(),
            number(self.ms),
            self.sent,
            self.content,
            number(self.value)
        )
    }

    /// Reads a line; `None` for one that is no measurement.
    #[must_use]
    pub fn parse(line: &str) -> Option<Row> {
        let words: Vec<&str> = line.split(',').collect();
        // files of earlier versions end with the value
        let conditions = match words.get(11..)? {
            [] | ["", "", "", "", "", "", ""] => None,
            [packets, mean, late, worst, waited, repeats, jobs] => Some(Conditions {
                packets: packets.parse().ok()?,
                mean_us: mean.parse().ok()?,
                late: late.parse().ok()?,
                worst_us: worst.parse().ok()?,
                waited_ms: waited.parse().ok()?,
                repeats: repeats.parse().ok()?,
                jobs: jobs.parse().ok()?,
            }),
            _ => return None,
        };
        let mut words = words.into_iter();
        let mut next = || words.next();
        Some(Row {
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
            conditions,
        })
    }
}

/// A figure's file, written as measurements are made.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: fs::File,
}

impl Record {
    /// Begins a figure's file with what is there of it and is to be kept.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn begin(folder: &Path, figure: &str, keep: impl Fn(&Row) -> bool) -> Result<Record> {
        fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
        let mut rows = read(folder, figure);
        rows.retain(keep);
        let path = replace(folder, figure, &rows)?;
        let file = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| format!("the file {}", path.display()))?;
        Ok(Record { path, file })
    }

    /// Adds a measurement's rows, with one write: an interruption leaves all or none of them.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn add(&mut self, rows: &[Row]) -> Result<()> {
        let lines: String = rows.iter().map(|row| row.line() + "\n").collect();
        self.file
            .write_all(lines.as_bytes())
            .with_context(|| format!("the file {}", self.path.display()))
    }
}

/// Puts a figure's rows in order. Rows of one place stay as they are among themselves.
///
/// # Errors
/// When the file can't be written.
pub fn sort<K: Ord>(folder: &Path, figure: &str, place: impl Fn(&Row) -> K) -> Result<()> {
    let mut rows = read(folder, figure);
    rows.sort_by_key(place);
    replace(folder, figure, &rows)?;
    Ok(())
}

/// Writes a figure's file anew; whatever happens meanwhile, the old one or the new one is there.
fn replace(folder: &Path, figure: &str, rows: &[Row]) -> Result<PathBuf> {
    let path = folder.join(format!("{figure}.csv"));
    let new = folder.join(format!("{figure}.csv.new"));
    let lines: String = rows.iter().map(|row| row.line() + "\n").collect();
    fs::write(&new, format!("{HEAD}\n{lines}"))
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("the file {}", path.display()))?;
    Ok(path)
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(seed: u64) -> Row {
        Row {
            figure: "burst".to_owned(),
            contender: "TCP CUBIC".to_owned(),
            rate: 10.0,
            rtt: 50.0,
            loss: 6.0,
            kind: "ready".to_owned(),
            seed,
            ms: Some(1.5),
            sent: 7,
            content: 5,
            value: None,
            conditions: None,
        }
    }

    #[test]
    fn a_row_survives_its_line() {
        let row = row(3);
        assert_eq!(Row::parse(&row.line()), Some(row.clone()));
        let undone = Row {
            ms: None,
            conditions: Some(Conditions {
                packets: 300,
                mean_us: 12.5,
                late: 2,
                worst_us: 340.0,
                waited_ms: 0.4,
                repeats: 1,
                jobs: 4,
            }),
            ..row
        };
        assert_eq!(Row::parse(&undone.line()), Some(undone));
        assert_eq!(Row::parse(HEAD), None);
        assert_eq!(Row::parse("a,b"), None);
    }

    #[test]
    fn rows_of_the_version_before_are_read_and_cut_ones_are_not() {
        let old = "message,QUIC BBR,10,50,6,ready,3,152.113,93088,82128,";
        assert_eq!(Row::parse(old).unwrap().conditions, None);
        let line = Row {
            conditions: Some(Conditions::default()),
            ..row(1)
        }
        .line();
        let cut = line.rsplit_once(',').unwrap().0;
        assert_eq!(Row::parse(cut), None);
    }

    #[test]
    fn a_file_goes_on_after_an_interruption_with_what_is_whole() {
        let folder = std::env::temp_dir().join(format!("vmdt-lab-record-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut record = Record::begin(&folder, "burst", |_| false).unwrap();
        record.add(&[row(2), row(1)]).unwrap();
        let file = folder.join("burst.csv");
        let mut text = fs::read_to_string(&file).unwrap();
        text.push_str("burst,TCP CUBIC,10,50,6,rea");
        fs::write(&file, text).unwrap();

        let mut record = Record::begin(&folder, "burst", |row| row.seed != 1).unwrap();
        record.add(&[row(3), row(1)]).unwrap();
        sort(&folder, "burst", |row| row.seed).unwrap();
        let found: Vec<u64> = read(&folder, "burst").iter().map(|row| row.seed).collect();
        assert_eq!(found, [1, 2, 3]);
        fs::remove_dir_all(&folder).unwrap();
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
