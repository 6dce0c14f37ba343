//! Text for people: names that can't harm a terminal, quantities, tables.

use std::fmt::Write as _;
use std::time::Duration;

/// Text from elsewhere, made harmless for a terminal: control characters and those that steer
/// the direction of text or break lines stand as `\u{…}`.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Text of several lines, each made harmless.
pub(crate) fn printable_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => {
                out.push_str(&printable(line));
                out.push('\n');
            }
            None => out.push_str(&printable(line)),
        }
    }
    out
}

/// Characters that change how others are shown, or show as nothing.
pub(crate) fn steers(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// A number of octets in decimal units.
pub(crate) fn octets(count: u64) -> String {
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
pub(crate) fn rate(count: u64, over: Duration) -> String {
    let seconds = over.as_secs_f64().max(1e-6);
    format!("{}/s", octets((count as f64 / seconds) as u64))
}

/// Seconds as `m:ss` or `h:mm:ss`.
pub(crate) fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

/// Octets as lower-case hexadecimal.
pub(crate) fn hex(octets: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(octets)
}

/// Rows in aligned columns, the first to the left, the others to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
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

/// A number of octets from `1000`, `64k`, `10M`, `2G` (powers of 1,024) or `kB`, `MB` (of 1,000).
///
/// # Errors
/// What is accepted, for a person.
pub(crate) fn parse_octets(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "ki" | "kib" => Some(1 << 10),
        "m" | "mi" | "mib" => Some(1 << 20),
        "g" | "gi" | "gib" => Some(1 << 30),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a number of octets such as 1000, 64k, 10M or 2MB"))
}

/// A time in seconds, whole or not, from 0 to a day.
///
/// # Errors
/// What is accepted, for a person.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(Duration::from_secs_f64(value)),
        _ => Err(format!("{text:?} is not a time in seconds from 0 to 86400")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_harms_a_terminal_is_escaped_and_letters_are_not() {
        assert_eq!(printable("größe 日本"), "größe 日本");
        assert_eq!(printable("\u{1b}[2Jx\n"), "\\u{1b}[2Jx\\n");
        assert_eq!(printable("a\u{202e}gpj.exe"), "a\\u{202e}gpj.exe");
        assert_eq!(printable("\u{9b}31m\u{7f}"), "\\u{9b}31m\\u{7f}");
        assert_eq!(printable_lines("a\x07\nb\n"), "a\\u{7}\nb\n");
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(octets(999), "999 B");
        assert_eq!(octets(33_554_432), "33.6 MB");
        assert_eq!(octets(999_999), "1.0 MB");
        assert_eq!(clock(3_725), "1:02:05");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(rate(1_000_000, Duration::from_secs(2)), "500.0 kB/s");
    }

    #[test]
    fn octets_are_read_with_their_units() {
        assert_eq!(parse_octets("64k"), Ok(65_536));
        assert_eq!(parse_octets("2 MB"), Ok(2_000_000));
        assert_eq!(parse_octets("7"), Ok(7));
        for wrong in ["", "k", "-1", "1x", "99999999999G"] {
            assert!(parse_octets(wrong).is_err(), "{wrong}");
        }
    }
}
