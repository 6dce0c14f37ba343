//! What is offered: files, folders, links, and names that can't do harm.

use crate::failure::{Exit, Failure, Outcome};
use crate::text::steers;

/// The most entries of one transfer.
pub(crate) const MAX_ENTRIES: usize = 1_000_000;
/// The longest name of a component, in octets.
pub(crate) const MAX_NAME: usize = 255;
/// The longest path inside a transfer, and the longest target of a link, in octets.
pub(crate) const MAX_PATH: usize = 4096;
/// Folders in folders.
pub(crate) const MAX_DEPTH: usize = 128;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file of this many octets.
    File { size: u64 },
    /// A folder; what is in it comes later.
    Folder,
    /// A symbolic link with its target as it stands.
    Link { target: Vec<u8> },
    /// Octets whose number nobody knows yet.
    Stream,
    /// A text to be shown, not to be kept.
    Text { size: u64 },
}

/// One entry of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The components of its name, outermost first; at least one.
    pub(crate) path: Vec<Vec<u8>>,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Seconds since 1970 and nanoseconds.
    pub(crate) modified: (i64, u32),
}

impl Entry {
    /// Octets, where they are known.
    pub(crate) fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size } | Kind::Text { size } => size,
            _ => 0,
        }
    }

    /// Whether it has octets of its own.
    pub(crate) fn has_content(&self) -> bool {
        matches!(
            self.kind,
            Kind::File { .. } | Kind::Stream | Kind::Text { .. }
        )
    }

    /// Its name for people, components divided by `/`; not yet harmless for a terminal.
    pub(crate) fn display(&self) -> String {
        let parts: Vec<_> = self
            .path
            .iter()
            .map(|c| String::from_utf8_lossy(c))
            .collect();
        parts.join("/")
    }
}

/// Octets of all entries; `None` when one of them is a stream.
pub(crate) fn total(entries: &[Entry]) -> Option<u64> {
    entries
        .iter()
        .try_fold(0u64, |sum, entry| match entry.kind {
            Kind::Stream => None,
            _ => Some(sum.saturating_add(entry.size())),
        })
}

/// Checks what a sender offers and replaces characters in names that harm terminals and file
/// systems.
///
/// # Errors
/// A name that leaves its folder, an entry whose folder was not offered before it, two of one name.
pub(crate) fn admit(entries: Vec<Entry>) -> Outcome<Vec<Entry>> {
    let refuse = |what: &str, entry: &Entry| {
        Failure::new(
            Exit::Refused,
            format!(
                "the sender offers {:?}, {what}; nothing was received",
                entry.display()
            ),
        )
    };
    let mut admitted: Vec<Entry> = Vec::with_capacity(entries.len().min(MAX_ENTRIES));
    let mut folders = std::collections::BTreeSet::new();
    let mut names = std::collections::BTreeSet::new();
    for mut entry in entries {
        if entry.path.is_empty() || entry.path.len() > MAX_DEPTH {
            return Err(refuse("which has no name or is too deep", &entry));
        }
        if entry.path.iter().any(|name| leaves(name)) {
            return Err(refuse("a name that leaves the folder", &entry));
        }
        for (depth, name) in entry.path.iter_mut().enumerate() {
            *name = harmless(name, depth == 0);
        }
        let Some((_, parents)) = entry.path.split_last() else {
            continue;
        };
        if !parents.is_empty() && !folders.contains(parents) {
            return Err(refuse(
                "which lies in a folder that was not offered",
                &entry,
            ));
        }
        if !names.insert(entry.path.clone()) {
            return Err(refuse("a name that is there twice", &entry));
        }
        if entry.kind == Kind::Folder {
            folders.insert(entry.path.clone());
        }
        entry.mode &= 0o777;
        admitted.push(entry);
    }
    Ok(admitted)
}

/// Whether a component is none: it would lead elsewhere.
fn leaves(name: &[u8]) -> bool {
    name.is_empty()
        || name == b"."
        || name == b".."
        || name.len() > MAX_NAME
        || name.iter().any(|octet| matches!(octet, 0 | b'/'))
        || (cfg!(windows) && name.iter().any(|octet| matches!(octet, b'\\' | b':')))
}

/// A component without control characters, without characters that steer the direction of text
/// and without what Windows reserves. The outermost one does not begin with a dot either: nobody
/// gets a `.bashrc` from elsewhere.
fn harmless(name: &[u8], outermost: bool) -> Vec<u8> {
    let mut safe = match std::str::from_utf8(name) {
        Ok(text) => text
            .chars()
            .map(|c| {
                if c.is_control() || steers(c) || (outermost && c == '\\') {
                    '_'
                } else {
                    c
                }
            })
            .collect::<String>()
            .into_bytes(),
        // not text: keep the octets that no terminal acts on
        Err(_) => name
            .iter()
            .map(|octet| match octet {
                0..=31 | 127..=159 => b'_',
                octet => *octet,
            })
            .collect(),
    };
    if cfg!(windows) {
        for octet in &mut safe {
            if matches!(octet, b'<' | b'>' | b'"' | b'|' | b'?' | b'*') {
                *octet = b'_';
            }
        }
        while safe
            .last()
            .is_some_and(|octet| matches!(octet, b' ' | b'.'))
        {
            safe.pop();
        }
        let text = String::from_utf8_lossy(&safe).to_ascii_uppercase();
        let stem = text.split('.').next().unwrap_or_default();
        let numbered = stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(|c: char| c.is_ascii_digit());
        if matches!(stem, "CON" | "PRN" | "AUX" | "NUL") || numbered || safe.is_empty() {
            safe.insert(0, b'_');
        }
    }
    if let (true, Some(first @ b'.')) = (outermost, safe.first_mut()) {
        *first = b'_';
    }
    safe
}

/// Whether a link's target stays within the outermost folder of the transfer. `depth` is the
/// number of folders around the link, the outermost one included.
pub(crate) fn target_stays_inside(target: &[u8], depth: usize) -> bool {
    if depth == 0 || target.is_empty() || target.contains(&0) || target.starts_with(b"/") {
        return false;
    }
    if cfg!(windows) && target.iter().any(|octet| matches!(octet, b'\\' | b':')) {
        return false;
    }
    // the outermost folder itself may be pointed at, what is around it may not
    let mut level = depth as i64;
    for part in target.split(|octet| *octet == b'/') {
        match part {
            b"" | b"." => {}
            b".." => level -= 1,
            _ => level += 1,
        }
        if level < 1 {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[&str], kind: Kind) -> Entry {
        Entry {
            path: path.iter().map(|c| c.as_bytes().to_vec()).collect(),
            kind,
            mode: 0o644,
            modified: (0, 0),
        }
    }

    fn file(path: &[&str]) -> Entry {
        entry(path, Kind::File { size: 1 })
    }

    #[test]
    fn refuses_names_that_leave_the_folder() {
        for path in [
            &["..", "x"][..],
            &[".."],
            &["."],
            &[""],
            &["a/b"],
            &["/etc"],
            &["x\0y"],
            &[],
        ] {
            let error = admit(vec![file(path)]).unwrap_err();
            assert_eq!(error.exit, Exit::Refused, "{path:?}");
        }
        let deep = vec!["a"; MAX_DEPTH + 1];
        assert!(admit(vec![file(&deep)]).is_err());
        let long = "x".repeat(MAX_NAME + 1);
        assert!(admit(vec![file(&[&long])]).is_err());
    }

    #[test]
    fn an_entry_lies_in_a_folder_that_was_offered_before_it() {
        assert!(admit(vec![file(&["d", "x"])]).is_err());
        assert!(admit(vec![file(&["d"]), file(&["d", "x"])]).is_err());
        let link = entry(
            &["d"],
            Kind::Link {
                target: b"/etc".to_vec(),
            },
        );
        assert!(admit(vec![link, file(&["d", "passwd"])]).is_err());
        assert!(admit(vec![entry(&["d"], Kind::Folder), file(&["d", "x"])]).is_ok());
        assert!(admit(vec![file(&["x"]), file(&["x"])]).is_err());
    }

    #[test]
    fn names_lose_what_harms_terminals_and_homes() {
        let admitted = admit(vec![
            file(&["\u{1b}]0;x\u{7}a"]),
            file(&[".bashrc"]),
            entry(&["d"], Kind::Folder),
            file(&["d", ".git"]),
            file(&["a\u{202e}b\\c"]),
        ])
        .unwrap();
        let names: Vec<_> = admitted.iter().map(Entry::display).collect();
        assert_eq!(names, ["_]0;x_a", "_bashrc", "d", "d/.git", "a_b_c"]);
        // two names may become one by that
        assert!(admit(vec![file(&["a\u{7}"]), file(&["a\u{8}"])]).is_err());
        let mut odd = file(&["x"]);
        odd.path = vec![vec![0xff, 0x1b, 0x9b, b'm']];
        assert_eq!(
            admit(vec![odd]).unwrap()[0].path[0],
            [0xff, b'_', b'_', b'm']
        );
    }

    #[test]
    fn no_permission_but_reading_writing_and_running_arrives() {
        let mut bad = file(&["x"]);
        bad.mode = 0o106_755;
        assert_eq!(admit(vec![bad]).unwrap()[0].mode, 0o755);
    }

    #[test]
    fn links_point_inside_or_nowhere() {
        for (target, depth) in [
            ("x", 1),
            ("a/../x", 1),
            ("../x", 2),
            (".", 1),
            ("a/b/../../c", 1),
        ] {
            assert!(target_stays_inside(target.as_bytes(), depth), "{target}");
        }
        for (target, depth) in [
            ("/etc/passwd", 1),
            ("..", 1),
            ("../x", 1),
            ("../../x", 2),
            ("a/../../x", 1),
            ("", 1),
            ("x", 0),
        ] {
            assert!(!target_stays_inside(target.as_bytes(), depth), "{target}");
        }
    }

    #[test]
    fn a_stream_makes_the_total_unknown() {
        assert_eq!(total(&[file(&["a"]), file(&["b"])]), Some(2));
        assert_eq!(total(&[file(&["a"]), entry(&["b"], Kind::Stream)]), None);
    }
}
