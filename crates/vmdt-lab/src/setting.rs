//! What was measured, and on which machine: written down when measurements are made, so that a
//! report that is rendered later or elsewhere tells of then and there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::peers::vmdt_peer;

const FILE: &str = "setting.txt";
/// The line that says which congestion control the kernel has.
pub(crate) const CONGESTION_CONTROL: &str = "TCP congestion control";
/// The workspace's lock file, as of when the lab was built.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));

/// What lies beside the raw data in a folder; where nothing does, what is true here and now.
pub(crate) fn read(folder: &Path) -> Vec<(String, String)> {
    let Ok(text) = fs::read_to_string(folder.join(FILE)) else {
        return current();
    };
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(what, value)| (what.to_owned(), value.to_owned()))
        .collect()
}

/// Writes down what is true here and now.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let lines = current().into_iter();
    let text: String = lines
        .map(|(what, value)| format!("{what}: {value}\n"))
        .collect();
    let file = folder.join(FILE);
    fs::write(&file, text).with_context(|| file.display().to_string())
}

fn current() -> Vec<(String, String)> {
    let cpu = proc("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let mut lines = vec![
        ("machine", format!("{cores} × {model}")),
        ("kernel", kernel()),
        (
            CONGESTION_CONTROL,
            proc("/proc/sys/net/ipv4/tcp_available_congestion_control"),
        ),
    ];
    for key in ["tcp_rmem", "tcp_wmem"] {
        let value = proc(&format!("/proc/sys/net/ipv4/{key}"));
        lines.push((key, value.replace('\t', " ")));
    }
    lines.push((
        "MPTCP",
        format!(
            "enabled {}, scheduler {}; add_addr_timeout 1",
            proc("/proc/sys/net/mptcp/enabled"),
            proc("/proc/sys/net/mptcp/scheduler")
        ),
    ));
    for package in [
        "quinn",
        "quinn-proto",
        "noq",
        "noq-proto",
        "rustls",
        "tokio",
    ] {
        lines.push((package, locked(package).unwrap_or("unknown").to_owned()));
    }
    lines.push(("VMDT", vmdt_peer::describe()));
    let owned = |(what, value): (&str, String)| (what.to_owned(), value);
    lines.into_iter().map(owned).collect()
}

fn kernel() -> String {
    let output = Command::new("uname").arg("-sr").output();
    output.map_or("unknown".to_owned(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

fn proc(path: &str) -> String {
    fs::read_to_string(path).map_or("absent".to_owned(), |text| text.trim().to_owned())
}

/// The version of a package in the lock file.
fn locked(name: &str) -> Option<&'static str> {
    let wanted = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != wanted).skip(1);
    Some(lines.next()?.strip_prefix("version = ")?.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_of_the_machine_that_measured() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vmdt-lab-setting-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        assert_eq!(read(&folder), current());
        write(&folder)?;
        assert_eq!(read(&folder), current());
        fs::write(folder.join(FILE), "machine: 64 × another: one\n")?;
        let (what, value) = ("machine".to_owned(), "64 × another: one".to_owned());
        assert_eq!(read(&folder), [(what, value)]);
        fs::remove_dir_all(&folder)?;
        Ok(())
    }

    #[test]
    fn versions_are_those_that_were_built() {
        assert!(locked("quinn").is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())));
        assert_eq!(locked("no such package"), None);
    }
}
