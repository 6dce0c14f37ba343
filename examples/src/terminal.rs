//! What a person sees: names that can't harm a terminal, quantities, tables, a progress line.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

/// How far back the rate that is shown looks.
const RATE_WINDOW: Duration = Duration::from_secs(4);
/// How often the line on a terminal is drawn at the most.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a plain line is written where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// The most samples of progress that are kept.
const SAMPLES: usize = 64;

/// The clock of the programs.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "a program stands above the driver and has a clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Text from elsewhere, made harmless for a terminal: control characters and those that steer
/// the direction of text or break lines stand as `\u{…}`.
///
/// ```
/// use vmdt_examples::terminal::printable;
/// assert_eq!(printable("größe"), "größe");
/// assert_eq!(printable("\u{1b}[2Jx\n"), "\\u{1b}[2Jx\\n");
/// ```
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let steers = matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
        if c.is_control() || steers {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A number of octets in decimal units.
///
/// ```
/// use vmdt_examples::terminal::octets;
/// assert_eq!(octets(999), "999 B");
/// assert_eq!(octets(33_554_432), "33.6 MB");
/// ```
#[must_use]
pub fn octets(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        // what would be rounded up to 1000 belongs to the next unit
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// Octets per second over a time, as `12.3 MB/s`.
#[must_use]
pub fn rate(count: u64, over: Duration) -> String {
    let seconds = over.as_secs_f64().max(1e-6);
    format!("{}/s", octets((count as f64 / seconds) as u64))
}

/// A number with its thousands set apart.
///
/// ```
/// assert_eq!(vmdt_examples::terminal::grouped(1_234_567), "1,234,567");
/// ```
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A digest in hexadecimal.
#[must_use]
pub fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

/// An error and its causes on one line, harmless for a terminal. A cause that the sentence before
/// it tells already is not told again.
#[must_use]
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    printable(&line)
}

/// `s` unless there is exactly one.
#[must_use]
pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Rows in aligned columns, each line indented by two blanks; the first column to the left, the
/// others to the right.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if at == 0 {
                let _ = write!(line, "  {cell:<width$}");
            } else {
                let _ = write!(line, "  {cell:>width$}");
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Shows how far something is: on a terminal one line that changes, elsewhere a plain line every
/// second. It writes to stderr.
#[derive(Debug)]
pub struct Meter {
    label: &'static str,
    total: Option<u64>,
    terminal: bool,
    done: u64,
    samples: VecDeque<(Instant, u64)>,
    drawn: Option<Instant>,
    visible: bool,
}

impl Meter {
    /// A meter that writes to stderr as it is.
    #[must_use]
    pub fn new(label: &'static str, total: Option<u64>) -> Meter {
        Meter::with(label, total, std::io::stderr().is_terminal(), now())
    }

    fn with(label: &'static str, total: Option<u64>, terminal: bool, started: Instant) -> Meter {
        let samples = VecDeque::from([(started, 0)]);
        // the first plain line is due a second from now
        let drawn = (!terminal).then_some(started);
        Meter {
            label,
            total,
            terminal,
            done: 0,
            samples,
            drawn,
            visible: false,
        }
    }

    /// Takes in how far it is and draws when it is time to.
    pub fn update(&mut self, done: u64) {
        let at = now();
        self.note(at, done);
        let every = if self.terminal { REDRAW } else { PLAIN_EVERY };
        if self
            .drawn
            .is_some_and(|drawn| at.saturating_duration_since(drawn) < every)
        {
            return;
        }
        self.drawn = Some(at);
        let line = self.line(at);
        let mut out = std::io::stderr().lock();
        // a progress line that can't be written must not end the transfer
        let _ = if self.terminal {
            write!(out, "\r{line}\x1b[K")
        } else {
            writeln!(out, "{line}")
        };
        let _ = out.flush();
        self.visible = self.terminal;
    }

    /// Draws again what is known, as time goes by.
    pub fn tick(&mut self) {
        self.update(self.done);
    }

    /// Takes the line away, so that something else can be printed.
    pub fn clear(&mut self) {
        if self.visible {
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[K");
            let _ = out.flush();
            self.visible = false;
            self.drawn = None;
        }
    }

    fn note(&mut self, at: Instant, done: u64) {
        self.done = done;
        // samples stand apart, so that they cover the window however many updates there are
        let apart = RATE_WINDOW / SAMPLES as u32;
        if self
            .samples
            .back()
            .is_none_or(|(t, _)| at.saturating_duration_since(*t) >= apart)
        {
            self.samples.push_back((at, done));
        }
        while self.samples.len() > 2
            && self
                .samples
                .get(1)
                .is_some_and(|(t, _)| at.saturating_duration_since(*t) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    fn per_second(&self, at: Instant) -> f64 {
        let Some((since, before)) = self.samples.front() else {
            return 0.0;
        };
        let time = at.saturating_duration_since(*since).as_secs_f64();
        if time < 0.05 {
            0.0
        } else {
            self.done.saturating_sub(*before) as f64 / time
        }
    }

    fn line(&self, at: Instant) -> String {
        let speed = self.per_second(at);
        let per_second = format!("{}/s", octets(speed as u64));
        let Some(total) = self.total else {
            return format!("{} {}  {per_second}", self.label, octets(self.done));
        };
        let percent = (u128::from(self.done) * 100)
            .checked_div(total.into())
            .unwrap_or(100);
        let left = total.saturating_sub(self.done);
        let remaining = if left == 0 {
            "almost done".to_owned()
        } else if speed < 1.0 {
            "waiting".to_owned()
        } else {
            format!("{} left", clock((left as f64 / speed).ceil() as u64))
        };
        format!(
            "{} {percent:>3}%  {} of {}  {per_second}  {remaining}",
            self.label,
            octets(self.done),
            octets(total)
        )
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Seconds as `m:ss` or `h:mm:ss`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// A fraction from 0 to 1.
///
/// # Errors
/// What is needed, for a person.
pub fn parse_fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("a fraction from 0 to 1 is needed, such as 0.06".into()),
    }
}

/// Whole seconds from 1 to 3600.
///
/// # Errors
/// What is needed, for a person.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(value @ 1..=3600) => Ok(Duration::from_secs(value)),
        _ => Err("whole seconds from 1 to 3600 are needed".into()),
    }
}

/// `N,K`: N shares of which K are needed.
///
/// # Errors
/// What is needed, for a person.
pub fn parse_threshold(text: &str) -> Result<(u8, u8), String> {
    let wrong = || "N,K with 2 <= K <= N <= 255 is needed, such as 5,3".to_owned();
    let (n, k) = text.split_once(',').ok_or_else(wrong)?;
    match (n.trim().parse::<u8>(), k.trim().parse::<u8>()) {
        (Ok(n), Ok(k)) if 2 <= k && k <= n => Ok((n, k)),
        _ => Err(wrong()),
    }
}

/// A number of octets, with a decimal or binary unit if need be.
///
/// # Errors
/// What is needed, for a person.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return Err("a number of octets is needed, such as 32MiB".into()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "a number of octets is needed, such as 32MiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_leaves_no_control_character() {
        for c in (0..=0x10ffff).filter_map(char::from_u32) {
            let shown = printable(&c.to_string());
            assert!(!shown.chars().any(char::is_control), "{c:?}");
        }
        assert_eq!(printable("\u{202e}fdp"), "\\u{202e}fdp");
        assert_eq!(printable("a\u{9b}b"), "a\\u{9b}b");
        assert_eq!(printable("日本 🦀"), "日本 🦀");
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || anyhow::anyhow!("refused\x07");
        assert_eq!(
            one_line(&cause().context("can't connect")),
            "can't connect: refused\\u{7}"
        );
        assert_eq!(
            one_line(&cause().context("can't connect: refused\x07")),
            "can't connect: refused\\u{7}"
        );
    }

    #[test]
    fn octets_never_show_four_digits() {
        for (count, shown) in [
            (0, "0 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(octets(count), shown);
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (10_000_000, "10,000,000"),
        ] {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let shown = table(&[
            row(["carrier", "shares", ""]),
            row(["direct", "7", "1.0 kB"]),
        ]);
        assert_eq!(shown, "  carrier  shares\n  direct        7  1.0 kB\n");
    }

    #[test]
    fn the_line_tells_percent_rate_and_remaining_time() {
        let start = now();
        let mut meter = Meter::with("sending", Some(10_000_000), false, start);
        assert_eq!(
            meter.line(start),
            "sending   0%  0 B of 10.0 MB  0 B/s  waiting"
        );
        meter.note(start + Duration::from_secs(2), 4_000_000);
        let at = start + Duration::from_secs(2);
        assert_eq!(
            meter.line(at),
            "sending  40%  4.0 MB of 10.0 MB  2.0 MB/s  0:03 left"
        );
        meter.note(at, 10_000_000);
        assert!(meter.line(at).ends_with("almost done"));
        let empty = Meter::with("sending", Some(0), false, start);
        assert!(empty.line(start).starts_with("sending 100%"));
    }

    #[test]
    fn the_rate_forgets_what_was_long_ago() {
        let start = now();
        let mut meter = Meter::with("x", Some(u64::MAX), false, start);
        for second in 1..=1000u64 {
            meter.note(start + Duration::from_secs(second), 1_000_000);
        }
        assert!(meter.samples.len() <= SAMPLES + 2);
        assert!(meter.per_second(start + Duration::from_secs(1000)) < 1.0);
    }

    #[test]
    fn remaining_time_has_minutes_and_hours() {
        assert_eq!(clock(9), "0:09");
        assert_eq!(clock(61), "1:01");
        assert_eq!(clock(3_725), "1:02:05");
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for good in ["0", "1", "0.06"] {
            assert!(parse_fraction(good).is_ok(), "{good}");
        }
        for bad in ["-0.1", "1.1", "NaN", "x"] {
            assert!(parse_fraction(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_threshold("5,3"), Ok((5, 3)));
        for bad in ["5", "3,5", "5,1", "256,3", "5,3,1", ","] {
            assert!(parse_threshold(bad).is_err(), "{bad}");
        }
        for (text, octets) in [
            ("0", 0),
            ("7", 7),
            ("2kB", 2_000),
            ("32MiB", 32 << 20),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(octets));
        }
        for bad in ["", "MiB", "-1", "1.5MB", "99999999999GiB", "1X"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert!(
            parse_seconds("0").is_err()
                && parse_seconds("3601").is_err()
                && parse_seconds("1").is_ok()
        );
    }
}
