//! The report: tables from the raw data in a folder, and plots beside them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::figures::{FIGURES, Figure, PATHS};
use crate::peers::vmdt_peer;
use crate::record::{self, Row, quantile};
use crate::run::{CONTENDERS, ideal_burst};
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
    for figure in FIGURES {
        let rows = record::read(folder, figure.id);
        if rows.is_empty() {
            continue;
        }
        section(&mut text, figure, &rows)?;
        for (file, title) in plots(figure, &rows, folder)? {
            writeln!(text, "![{title}]({file})\n")?;
        }
    }
    let file = folder.join("REPORT.md");
    fs::write(&file, text).with_context(|| file.display().to_string())
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output
        .ok()
        .and_then(|o| {
            String::from_utf8_lossy(&o.stdout)
                .lines()
                .next()
                .map(str::to_owned)
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_else(|_| "absent".to_owned())
}

/// The version of a package in the workspace's lock file.
fn locked(name: &str) -> String {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
    let text = fs::read_to_string(lock).unwrap_or_default();
    let mut lines = text.lines();
    let wanted = format!("name = \"{name}\"");
    while let Some(line) = lines.next() {
        if line == wanted {
            let version = lines.next().unwrap_or_default();
            return version.replace("version = ", "").replace('"', "");
        }
    }
    "unknown".to_owned()
}

fn head(text: &mut String, folder: &Path) -> Result<()> {
    let notes = fs::read_to_string(folder.join("NOTES.md")).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
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
    writeln!(text, "| machine | {cores} × {model} |")?;
    writeln!(text, "| kernel | {} |", first_line("uname", &["-sr"]))?;
    let available = read("/proc/sys/net/ipv4/tcp_available_congestion_control");
    writeln!(text, "| TCP congestion control | {available} |")?;
    for key in ["tcp_rmem", "tcp_wmem"] {
        let value = read(&format!("/proc/sys/net/ipv4/{key}")).replace('\t', " ");
        writeln!(text, "| net.ipv4.{key} | {value} |")?;
    }
    writeln!(
        text,
        "| MPTCP | enabled {}, scheduler {}; add_addr_timeout 1 |",
        read("/proc/sys/net/mptcp/enabled"),
        read("/proc/sys/net/mptcp/scheduler")
    )?;
    for package in [
        "quinn",
        "quinn-proto",
        "noq",
        "noq-proto",
        "rustls",
        "tokio",
    ] {
        writeln!(text, "| {package} | {} |", locked(package))?;
    }
    writeln!(text, "| VMDT | {} |", vmdt_peer::describe())?;
    writeln!(text, "\n| contender | what it is |\n|---|---|")?;
    for contender in CONTENDERS {
        writeln!(text, "| {} | {} |", contender.label, contender.about)?;
    }
    if !available.contains("bbr") {
        writeln!(text, "\n**This kernel has no BBR: its rows are missing.**")?;
    }
    writeln!(text)?;
    Ok(())
}

fn column(row: &Row) -> Column {
    (
        format!("{:>8}", row.rate),
        format!("{:>8}", row.rtt),
        format!("{:>8}", row.loss),
        row.kind.clone(),
    )
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
    let seeds = rows.iter().map(|r| r.seed).max().unwrap_or(0);
    writeln!(text, "## {}\n", figure.title)?;
    let unit = match figure.value {
        Some(value) => {
            format!("{value}; median / 5th percentile for goodput and shares, 95th else")
        }
        None => "milliseconds".to_owned(),
    };
    writeln!(
        text,
        "{unit}; {seeds} seeds. Again: `cargo run -p vmdt-lab --release -- figure {} --seeds \
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

/// Draws what a figure has; the files' names with their titles.
#[cfg(feature = "peers")]
fn plots(figure: &Figure, rows: &[Row], folder: &Path) -> Result<Vec<(String, String)>> {
    use crate::plots::{Curve, draw};

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
    let mut files = Vec::new();
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
            let file = format!("{}.svg", figure.id);
            let title = format!("{}: time to delivery, 6% loss, 50 ms", figure.title);
            draw(
                &folder.join(&file),
                &title,
                ("milliseconds", "% delivered"),
                &curves,
                true,
            )?;
            files.push((file, title));
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
            let title = format!("{}: goodput over loss, 50 ms", figure.title);
            draw(
                &folder.join("bulk.svg"),
                &title,
                ("loss, %", "Mbit/s"),
                &curves,
                false,
            )?;
            files.push(("bulk.svg".to_owned(), title));
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
            let file = format!("{}.svg", figure.id);
            draw(
                &folder.join(&file),
                figure.title,
                ("milliseconds", y),
                &curves,
                true,
            )?;
            files.push((file, figure.title.to_owned()));
        }
        _ => {}
    }
    Ok(files)
}

#[cfg(not(feature = "peers"))]
fn plots(_figure: &Figure, _rows: &[Row], _folder: &Path) -> Result<Vec<(String, String)>> {
    Ok(Vec::new())
}
