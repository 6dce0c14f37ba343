//! The report: tables from the raw data in a folder, and plots beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::answers;
use crate::figures::{FIGURES, Figure, PATHS};
use crate::left_out;
use crate::measure;
use crate::record::{self, Conditions, Row, quantile};
use crate::run::{CONTENDERS, ideal_burst};
use crate::setting;
use crate::world::PathSpec;

/// What one column of a table stands for.
type Column = (String, String, String, String);

/// Writes `REPORT.md` and the plots from what lies in the folder.
///
/// # Errors
/// When the files can't be written.
pub fn render(folder: &Path) -> Result<()> {
    let mut text = String::new();
    head(&mut text, folder)?;
    text += &answers::section(&|figure| record::read(folder, figure));
    for figure in FIGURES {
        let rows = record::read(folder, figure.id);
        if rows.is_empty() {
            continue;
        }
        section(&mut text, figure, &rows)?;
        if let Some((file, title)) = plot(figure) {
            #[cfg(feature = "peers")]
            draw(figure, &rows, folder, &file, &title)?;
            // a build without plots keeps what an earlier one drew
            if folder.join(&file).exists() {
                writeln!(text, "![{title}]({file})\n")?;
            }
        }
    }
    let file = folder.join("REPORT.md");
    fs::write(&file, text).with_context(|| file.display().to_string())
}

fn head(text: &mut String, folder: &Path) -> Result<()> {
    let notes = fs::read_to_string(folder.join("NOTES.md")).unwrap_or_default();
    writeln!(
        text,
        "# Measured: VMDT and others on the same links\n\n\
         Made by `cargo run -p vmdt-lab --release -- report` from the CSV files in this folder. \
         Sender and receiver are network namespaces of one machine, joined by {PATHS} disjoint \
         paths that are emulated in user space (`-- check` measures how true they are). Peers with \
         one path use the first. Relays sit on the second and third path, with half of the delay \
         and the loss of a path on each hop. \"Ready\" connections have carried four requests and \
         replies of 1 KiB, three of them under the loss of the measurement. The bottleneck's queue \
         holds what the path carries in a round trip, at least 64 KiB. Contenders take turns, seed \
         by seed, with the same losses per packet of a link.\n"
    )?;
    writeln!(
        text,
        "Each cell: **median** / 95th percentile (nearest rank) and, after ×, the octets of IP \
         packets that all hosts sent over all hops in that time, as a multiple of the content \
         (median). A packet through a relay counts twice. `>` marks measurements that did not end \
         within their time.\n"
    )?;
    if !notes.is_empty() {
        writeln!(text, "{}\n", notes.trim())?;
    }
    writeln!(text, "## Setting\n\n| | |\n|---|---|")?;
    for (what, value) in setting::read(folder) {
        writeln!(text, "| {what} | {value} |")?;
    }
    for (what, value) in totals(folder) {
        writeln!(text, "| {what} | {value} |")?;
    }
    writeln!(text, "\n| contender | what it is |\n|---|---|")?;
    for contender in CONTENDERS {
        writeln!(text, "| {} | {} |", contender.label, contender.about)?;
    }
    let without_bbr = |(what, value): &(String, String)| {
        what == setting::CONGESTION_CONTROL && !value.contains("bbr")
    };
    if setting::read(folder).iter().any(without_bbr) {
        writeln!(text, "\n**This kernel has no BBR: its rows are missing.**")?;
    }
    writeln!(text)?;
    Ok(())
}

/// How the measurements went, all figures together.
fn totals(folder: &Path) -> Vec<(String, String)> {
    let mut all = BTreeMap::new();
    for figure in FIGURES {
        for row in record::read(folder, figure.id) {
            if let Some(conditions) = row.conditions {
                // requests are rows of one measurement
                let over = measure::is_disturbed(figure, &conditions);
                all.insert((figure.id, row.key()), (conditions, over));
            }
        }
    }
    let mut lines = Vec::new();
    if !all.is_empty() {
        let sum = |of: fn(&Conditions) -> u64| all.values().map(|(c, _)| of(c)).sum::<u64>();
        let (packets, late) = (sum(|c| c.packets), sum(|c| c.late));
        let delay: f64 = all
            .values()
            .map(|(c, _)| c.mean_us * c.packets as f64)
            .sum();
        let worst = all.values().map(|(c, _)| c.worst_us).fold(0.0, f64::max);
        let waited: Vec<f64> = all.values().map(|(c, _)| c.waited_ms).collect();
        let waited = |fraction| quantile(&waited, fraction).unwrap_or(0.0);
        let jobs: BTreeSet<u64> = all.values().map(|(c, _)| c.jobs).collect();
        let jobs: Vec<String> = jobs.iter().map(u64::to_string).collect();
        let over = all.values().filter(|(_, over)| *over).count();
        let per_cent = |part: u64| part as f64 * 100.0 / packets.max(1) as f64;
        lines.push((
            "measurements".to_owned(),
            format!(
                "{}, {} at once; {} repeated {} times in all because packets left the emulator too \
                 late; {over} were so each time, of those the least disturbed attempt counts",
                all.len(),
                jobs.join(" or "),
                all.values().filter(|(c, _)| c.repeats > 0).count(),
                sum(|c| c.repeats)
            ),
        ));
        lines.push((
            "packets left the emulator".to_owned(),
            format!(
                "{:.1} µs late on average; {:.3}% more than 200 µs; the worst {:.1} ms",
                delay / packets.max(1) as f64,
                per_cent(late),
                worst / 1e3
            ),
        ));
        lines.push((
            "a contender's processes waited for a processor".to_owned(),
            format!(
                "{:.1} ms in a measurement (median), {:.1} ms (95th percentile), all of its \
                 processes together",
                waited(0.5),
                waited(0.95)
            ),
        ));
    }
    let missing = left_out::read(folder).len();
    if missing > 0 {
        lines.push((
            "left out".to_owned(),
            format!("{missing} measurements failed twice: [left-out.csv](left-out.csv)"),
        ));
    }
    lines
}

fn column(row: &Row) -> Column {
    (
        format!("{:>8}", row.rate),
        format!("{:>8}", row.rtt),
        format!("{:>8}", row.loss),
        row.kind.clone(),
    )
}

/// How many seeds the contender with the fewest has, and the one with the most.
fn seeds(rows: &[Row]) -> (u64, u64) {
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        let of = most.entry(row.contender.as_str()).or_default();
        *of = row.seed.max(*of);
    }
    let fewest = most.values().min().copied().unwrap_or(0);
    (fewest, most.values().max().copied().unwrap_or(0))
}

fn section(text: &mut String, figure: &Figure, rows: &[Row]) -> Result<()> {
    let mut columns: Vec<Column> = Vec::new();
    let mut cells: BTreeMap<(String, Column), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let column = column(row);
        if !columns.contains(&column) {
            columns.push(column.clone());
        }
        cells
            .entry((row.contender.clone(), column))
            .or_default()
            .push(row);
    }
    let (fewest, seeds) = seeds(rows);
    writeln!(text, "## {}\n", figure.title)?;
    let unit = match figure.value {
        Some(value) => {
            format!("{value}; median / 5th percentile for goodput and shares, 95th else")
        }
        None => "milliseconds".to_owned(),
    };
    let range = match fewest == seeds {
        true if seeds == 1 => "one seed".to_owned(),
        true => format!("{seeds} seeds"),
        false => format!("{fewest} to {seeds} seeds"),
    };
    writeln!(
        text,
        "{unit}; {range}. Again: `cargo run -p vmdt-lab --release -- figure {} --seeds \
         {seeds}`. Raw data: [{}.csv]({}.csv).\n",
        figure.id, figure.id, figure.id
    )?;
    let titles: Vec<String> = columns
        .iter()
        .map(|(rate, rtt, loss, kind)| match figure.id {
            "loopback" => "loopback".to_owned(),
            _ => format!(
                "{} Mbit/s, {} ms, {}%{}",
                rate.trim(),
                rtt.trim(),
                loss.trim(),
                if kind == "ready" {
                    String::new()
                } else {
                    format!(", {kind}")
                }
            ),
        })
        .collect();
    writeln!(text, "| contender | {} |", titles.join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(columns.len()))?;
    for contender in CONTENDERS {
        let line: Vec<String> = columns
            .iter()
            .map(|column| {
                cells
                    .get(&(contender.label.to_owned(), column.clone()))
                    .map_or("".to_owned(), |rows| cell(figure, rows))
            })
            .collect();
        if line.iter().any(|cell| !cell.is_empty()) {
            writeln!(text, "| {} | {} |", contender.label, line.join(" | "))?;
        }
    }
    if figure.id.starts_with("burst") || figure.id == "picture" {
        for (name, policy) in [
            ("ideal, 3 of 6 pieces sent", (3, 6)),
            ("ideal, 3 pieces sent", (3, 3)),
        ] {
            let line: Vec<String> = columns
                .iter()
                .map(|(rate, rtt, ..)| {
                    let rate = rate.trim().parse().unwrap_or(0.0);
                    let rtt = rtt.trim().parse().unwrap_or(0.0) as u64;
                    let paths = vec![PathSpec::new(rate, rtt, 0.0); PATHS];
                    let ideal = ideal_burst(&paths, (59, 1392), policy);
                    format!("{:.0}", ideal.as_secs_f64() * 1e3)
                })
                .collect();
            writeln!(text, "| *{name}* | {} |", line.join(" | "))?;
        }
        writeln!(
            text,
            "\nIdeal: half a round trip after the last piece left at the line rate of all paths \
             together, nothing lost, 28 octets of headers on each piece, connection ready."
        )?;
    }
    writeln!(text)?;
    Ok(())
}

fn cell(figure: &Figure, rows: &[&Row]) -> String {
    let ratio: Vec<f64> = rows
        .iter()
        .filter(|r| r.content > 0)
        .map(|r| r.sent as f64 / r.content as f64)
        .collect();
    let ratio = quantile(&ratio, 0.5).unwrap_or(0.0);
    let sent = match figure.id {
        "loopback" => String::new(),
        _ => format!(" ×{ratio:.2}"),
    };
    if figure.value.is_some() {
        let values: Vec<f64> = rows.iter().filter_map(|r| r.value).collect();
        let tail = match figure.id {
            "outage" | "loopback" => 0.95,
            _ => 0.05,
        };
        let (middle, tail) = (quantile(&values, 0.5), quantile(&values, tail));
        return format!(
            "**{}** / {}{sent}",
            short(middle.unwrap_or(0.0)),
            short(tail.unwrap_or(0.0))
        );
    }
    // what did not end counts as longer than everything
    let times: Vec<f64> = rows.iter().map(|r| r.ms.unwrap_or(f64::INFINITY)).collect();
    let show = |fraction| match quantile(&times, fraction) {
        Some(ms) if ms.is_finite() => short(ms),
        _ => ">".to_owned(),
    };
    format!("**{}** / {}{sent}", show(0.5), show(0.95))
}

fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The plot of a figure that has one: its file and title.
fn plot(figure: &Figure) -> Option<(String, String)> {
    let title = match figure.id {
        "burst-loss" | "message" | "requests" => {
            format!("{}: time to delivery, 6% loss, 50 ms", figure.title)
        }
        "bulk" => format!("{}: goodput over loss, 50 ms", figure.title),
        "picture" | "outage" => figure.title.to_owned(),
        _ => return None,
    };
    Some((format!("{}.svg", figure.id), title))
}

/// Draws a figure's plot.
#[cfg(feature = "peers")]
fn draw(figure: &Figure, rows: &[Row], folder: &Path, file: &str, title: &str) -> Result<()> {
    use crate::plots::{self, Curve};

    let by_contender = |keep: &dyn Fn(&Row) -> bool| {
        let mut map: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
        for row in rows.iter().filter(|row| keep(row)) {
            if let Some(at) = CONTENDERS.iter().position(|c| c.label == row.contender) {
                map.entry(at).or_default().push(row);
            }
        }
        map
    };
    let curve = |at: usize, points: Vec<(f64, f64)>| Curve {
        label: CONTENDERS.get(at).map_or("", |c| c.label).to_owned(),
        colour: at,
        points,
    };
    let label = |at: usize| CONTENDERS.get(at).map_or("", |c| c.label).to_owned();
    match figure.id {
        "burst-loss" | "message" | "requests" => {
            let curves: Vec<Curve> = by_contender(&|r| r.loss == 6.0 && r.kind == "ready")
                .into_iter()
                .filter(|(at, _)| label(*at) != "1.0 style")
                .map(|(at, rows)| {
                    let mut times: Vec<f64> = rows.iter().filter_map(|r| r.ms).collect();
                    times.sort_by(f64::total_cmp);
                    let all = rows.len() as f64;
                    let points = times
                        .iter()
                        .zip(1..)
                        .map(|(t, i)| (*t, f64::from(i) / all * 100.0));
                    curve(at, points.collect())
                })
                .collect();
            let axes = ("milliseconds", "% delivered");
            plots::draw(&folder.join(file), title, axes, &curves, true)
        }
        "bulk" => {
            let curves: Vec<Curve> = by_contender(&|_| true)
                .into_iter()
                .map(|(at, rows)| {
                    let mut by_loss: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
                    for row in rows {
                        let key = (row.loss * 1000.0) as u64;
                        by_loss.entry(key).or_default().extend(row.value);
                    }
                    let points = by_loss.into_iter().filter_map(|(loss, values)| {
                        Some((loss as f64 / 1000.0, quantile(&values, 0.5)?))
                    });
                    curve(at, points.collect())
                })
                .collect();
            let axes = ("loss, %", "Mbit/s");
            plots::draw(&folder.join(file), title, axes, &curves, false)
        }
        "picture" | "outage" => {
            let name = format!("{}-arrivals.csv", figure.id);
            let text = fs::read_to_string(folder.join(&name)).unwrap_or_default();
            let mut by: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
            for line in text.lines().skip(1) {
                let mut words = line.split(',');
                let at = words
                    .next()
                    .and_then(|w| CONTENDERS.iter().position(|c| c.label == w));
                let (x, y) = (
                    words.next().and_then(|w| w.parse().ok()),
                    words.next().and_then(|w| w.parse().ok()),
                );
                if let (Some(at), Some(x), Some(y)) = (at, x, y) {
                    let points = by.entry(at).or_default();
                    // one curve for each contender: the first seed's
                    if points.last().is_none_or(|(_, last)| *last <= y) {
                        points.push((x, y));
                    }
                }
            }
            let curves: Vec<Curve> = by
                .into_iter()
                .map(|(at, points)| curve(at, points))
                .collect();
            let y = if figure.id == "picture" {
                "messages delivered"
            } else {
                "octets delivered"
            };
            plots::draw(
                &folder.join(file),
                title,
                ("milliseconds", y),
                &curves,
                true,
            )
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_links_the_plots_that_are_there_whichever_build_renders_it() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vmdt-lab-render-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let line = "message,QUIC,10,50,6,ready,1,152.113,93088,82128,\n";
        fs::write(
            folder.join("message.csv"),
            format!("{}\n{line}", record::HEAD),
        )?;
        if !cfg!(feature = "peers") {
            render(&folder)?;
            let text = fs::read_to_string(folder.join("REPORT.md"))?;
            assert!(
                !text.contains("message.svg"),
                "no link to what is not there"
            );
            fs::write(folder.join("message.svg"), "<svg/>")?;
        }
        render(&folder)?;
        let text = fs::read_to_string(folder.join("REPORT.md"))?;
        assert!(text.contains("](message.svg)"));
        assert!(folder.join("message.svg").exists());
        fs::remove_dir_all(&folder)?;
        Ok(())
    }

    #[test]
    fn the_setting_tells_how_the_measurements_went() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vmdt-lab-totals-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let lines = "message,QUIC,10,50,6,ready,1,152.1,9,8,,100,10.0,1,900,0.5,0,4\n\
                     message,QUIC,10,50,6,ready,2,152.1,9,8,,300,50.0,3,2500,1.5,2,4\n\
                     message,QUIC,10,50,6,ready,3,152.1,9,8,\n";
        fs::write(
            folder.join("message.csv"),
            format!("{}\n{lines}", record::HEAD),
        )?;
        left_out::add(&folder, "message", "RDT,10,50,6,ready,1", "ended")?;
        let found: BTreeMap<String, String> = totals(&folder).into_iter().collect();
        let of = |what: &str| found.get(what).cloned().unwrap_or_default();
        assert!(of("measurements").starts_with("2, 4 at once; 1 repeated 2 times"));
        assert!(of("packets left the emulator").starts_with("40.0 µs late on average; 1.000%"));
        assert!(of("left out").starts_with("1 measurements"));
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
