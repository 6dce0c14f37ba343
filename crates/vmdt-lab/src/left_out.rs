//! Measurements that could not be made, in a file of their own: they are not silently missing.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

const FILE: &str = "left-out.csv";
const HEAD: &str = "figure,contender,rate_mbit,rtt_ms,loss_percent,kind,seed,error";

/// Lines of the file, without its head.
#[must_use]
pub(crate) fn read(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join(FILE)).unwrap_or_default();
    text.lines().skip(1).map(str::to_owned).collect()
}

/// Forgets those of a figure, or of one contender in it, which are to be measured again.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn forget(folder: &Path, figure: &str, contender: Option<&str>) -> Result<()> {
    let mut lines = read(folder);
    let before = lines.len();
    lines.retain(|line| {
        let mut words = line.split(',');
        let of = (words.next(), words.next());
        of.0 != Some(figure) || contender.is_some_and(|who| of.1 != Some(who))
    });
    if lines.len() == before {
        return Ok(());
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = folder.join(FILE);
    match lines.is_empty() {
        true => fs::remove_file(&file),
        false => fs::write(&file, format!("{HEAD}\n{text}")),
    }
    .with_context(|| file.display().to_string())
}

/// Notes one; `key` as [`crate::record::Row::key`] gives it.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn add(folder: &Path, figure: &str, key: &str, error: &str) -> Result<()> {
    let path = folder.join(FILE);
    let new = !path.exists();
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    if new {
        writeln!(file, "{HEAD}")?;
    }
    let error = error.replace([',', '\n'], ";");
    writeln!(file, "{figure},{key},{error}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_again_is_forgotten_and_nothing_else() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vmdt-lab-left-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        add(&folder, "bulk", "QUIC,20,50,0,ready,1", "ended, oddly")?;
        add(&folder, "bulk", "RDT,20,50,0,ready,1", "ended")?;
        add(&folder, "message", "QUIC,10,50,0,ready,1", "ended")?;
        forget(&folder, "bulk", Some("QUIC"))?;
        assert_eq!(
            read(&folder),
            [
                "bulk,RDT,20,50,0,ready,1,ended",
                "message,QUIC,10,50,0,ready,1,ended"
            ]
        );
        forget(&folder, "bulk", None)?;
        forget(&folder, "message", None)?;
        assert_eq!(read(&folder), Vec::<String>::new());
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
