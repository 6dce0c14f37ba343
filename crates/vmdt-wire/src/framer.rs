//! Cuts a byte stream into lines.

use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

use crate::control::ErrorCode;

/// The longest control line that is accepted by default, in octets without its line end.
pub const DEFAULT_MAX_LINE: usize = 64 * 1024;

/// The longest control line where lines carry shares, in octets without its line end.
pub const RELAY_MAX_LINE: usize = 512 * 1024;

/// A line is longer than allowed. The stream has no next line to go on with: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line is longer than {allowed} octets")]
pub struct LineTooLong {
    /// The longest line allowed, in octets without the line feed.
    pub allowed: usize,
}

impl LineTooLong {
    /// The code of the ERROR that answers such a line.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::LineTooLong
    }
}

/// Cuts a byte stream, arriving in pieces of any size, into lines.
///
/// A line ends in LF; a CR before it does not belong to the line. Lines of nothing but blanks
/// are skipped. After every [`push`](Self::push) the caller takes lines until there is none:
/// then at most `max_line` octets stay buffered, whatever arrives. Time is linear in the octets
/// pushed, however they are split.
///
/// ```
/// use vmdt_wire::LineFramer;
///
/// let mut framer = LineFramer::new(100);
/// framer.push(b"OK\r\nCLUSTER_REA");
/// assert_eq!(framer.next_line(), Some(Ok(b"OK".to_vec())));
/// assert_eq!(framer.next_line(), None);
/// framer.push(b"DY|c1\n");
/// assert_eq!(framer.next_line(), Some(Ok(b"CLUSTER_READY|c1".to_vec())));
/// ```
pub struct LineFramer {
    max_line: usize,
    buffer: Vec<u8>,
    /// Everything before has been handed out.
    start: usize,
    /// Everything between `start` and here holds no line feed.
    scanned: usize,
    poisoned: bool,
}

impl LineFramer {
    /// A framer for lines of at most `max_line` octets, counted without the LF. Allocates nothing
    /// before the first octet arrives.
    #[must_use]
    pub const fn new(max_line: usize) -> Self {
        Self {
            max_line,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            poisoned: false,
        }
    }

    /// The longest line allowed, in octets without the LF.
    #[must_use]
    pub const fn max_line(&self) -> usize {
        self.max_line
    }

    /// Octets that have been pushed and not yet handed out.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Whether a line was too long: nothing is accepted or handed out any more.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Takes the next octets of the stream. A poisoned framer ignores them.
    pub fn push(&mut self, octets: &[u8]) {
        if self.poisoned {
            return;
        }
        // What is left is the tail of the last push, or was left here before and `start` is 0:
        // every octet moves at most once.
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next complete line that is not blank, without its line end.
    ///
    /// # Errors
    /// [`LineTooLong`], once, as soon as a line has more than `max_line` octets, whether or not
    /// its end has arrived. From then on the framer is poisoned and the answer is `None`.
    #[must_use = "a line that is not looked at is lost"]
    pub fn next_line(&mut self) -> Option<Result<Vec<u8>, LineTooLong>> {
        loop {
            let unseen = self.buffer.get(self.scanned..)?;
            let Some(found) = unseen.iter().position(|&octet| octet == b'\n') else {
                self.scanned = self.buffer.len();
                return if self.buffered() > self.max_line {
                    Some(Err(self.poison()))
                } else {
                    self.rest()
                };
            };
            let end = self.scanned + found;
            if end - self.start > self.max_line {
                return Some(Err(self.poison()));
            }
            let line = self.buffer.get(self.start..end).and_then(content);
            self.start = end + 1;
            self.scanned = self.start;
            if let Some(line) = line {
                return Some(Ok(line));
            }
        }
    }

    /// The last line of a stream that has ended without a line end, if it is not blank. To be
    /// called when [`next_line`](Self::next_line) has no more; deployed 1.0 software closes a
    /// connection after one line that may lack its LF.
    #[must_use = "a line that is not looked at is lost"]
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if let Some(line) = self.next_line() {
            return line.ok();
        }
        let line = self.buffer.get(self.start..).and_then(content);
        self.clear();
        line
    }

    /// Nothing complete is left: gives memory back that a large push took.
    fn rest(&mut self) -> Option<Result<Vec<u8>, LineTooLong>> {
        if self.start > 0 && self.buffer.capacity() > self.max_line {
            self.buffer.drain(..self.start);
            self.buffer.shrink_to(0);
            self.scanned -= self.start;
            self.start = 0;
        }
        None
    }

    fn poison(&mut self) -> LineTooLong {
        self.clear();
        self.poisoned = true;
        LineTooLong {
            allowed: self.max_line,
        }
    }

    fn clear(&mut self) {
        self.buffer = Vec::new();
        self.start = 0;
        self.scanned = 0;
    }
}

/// Says how much is buffered, not what.
impl fmt::Debug for LineFramer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineFramer")
            .field("max_line", &self.max_line)
            .field("buffered", &self.buffered())
            .field("poisoned", &self.poisoned)
            .finish()
    }
}

/// A copy of the line without a last CR, or `None` if it is blank.
fn content(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let blank = line
        .iter()
        .all(|octet| matches!(octet, b' ' | b'\t' | b'\r'));
    (!blank).then(|| line.to_vec())
}

#[cfg(test)]
#[path = "framer_tests.rs"]
mod tests;
