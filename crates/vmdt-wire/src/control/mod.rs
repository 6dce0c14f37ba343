//! Control messages and the two line framings that carry them.
//!
//! The **bar** form is raw profile 1.0: `TYPE|p1|p2…`, nothing escaped. The last parameter of
//! SEND_MESSAGE is the rest of the line. The **slash** form is `VMDT/TCP/1.0/TYPE/p1/p2…`; its
//! parameters write `%`, `/`, control octets below 0x20, a leading `~` and a blank at either end
//! as `%` and two hexadecimal digits. A line is recognised as one or the other by its start.
//!
//! Both may end in a tag, `~` and a decimal number, which a reply repeats so that it can be told
//! from replies to other requests; bar SEND_MESSAGE alone has no room for one.
//!
//! Lines end in LF or CRLF, blanks around a line are ignored, and NUL, a line end inside a line
//! and anything that is not UTF-8 are errors.
//!
//! | type | parameters |
//! |---|---|
//! | CREATE_CLUSTER | client, n, k \[, options\] |
//! | JOIN_CLUSTER | client, cluster |
//! | LEAVE_CLUSTER | client \[, cluster\] |
//! | LIST_CLUSTERS | client \[, after\] |
//! | GET_CLUSTER_MEMBERS | client \[, cluster\] |
//! | REGISTER_P2P_PORT | client, port \[, caps\] |
//! | GET_CLIENT_INFO | client, target |
//! | SEND_MESSAGE | client, target, text |
//! | MESSAGE_SHARE | from, to, target, index, data |
//! | MESSAGE_RECEIVED | message |
//! | SHARE_POOL_ADD | message, sender, receiver, total, active \[, content, filename\] (, entry)* |
//! | SHARE_POOL_CLAIM | message, claimer, index |
//! | SHARE_POOL_ACK | message, receiver |
//! | SHARE_POOL_STORED | message, holder, index |
//! | SHARE_POOL_UNFREEZE | message, index |
//! | SHARE_POOL_REMOVE | message |
//! | CLUSTER_READY | cluster |
//! | ERROR | bar: `code: text`; slash: code, text \[, message\] |
//! | OK | \[text\] |
//! | CLUSTER_CREATED, CLUSTER_JOINED | cluster \[, n, k, options\] |
//! | CLUSTER_LIST | (`id:creator:n:k:members:active`)* |
//! | CLUSTER_MEMBERS | (client)* |
//! | CLIENT_INFO | ip, port \[, caps\] |
//! | MEMBER | cluster, id, state \[, address or `-` \[, caps\]\] |
//!
//! Profile 1.1 adds the following. Profiles, descriptors, memberships, lists and data are binary:
//! base64url without padding, of at most [`MAX_BINARY`] octets.
//!
//! | type | parameters |
//! |---|---|
//! | PUT_PROFILE | client, profile |
//! | GET_PROFILE | client, target |
//! | PROFILE | id, profile |
//! | RECEIPTS | receipts |
//! | EXPRESS_OPEN | opening |
//! | EXPRESS_OK | id |
//! | CREATE_SEALED | client, descriptor, membership |
//! | GET_DESCRIPTOR | client, cluster |
//! | DESCRIPTOR | cluster, descriptor |
//! | JOIN_SEALED | client, cluster, membership |
//! | GET_MEMBERSHIP | client, cluster, target |
//! | MEMBERSHIP | cluster, id, membership |
//! | REVOKE | client, cluster, list |
//! | REVOKED | cluster, list |
//! | CODE_OPEN | client |
//! | CODE | number |
//! | CODE_JOIN | client, number |
//! | CODE_PASS | \[client,\] number, data |
//! | CODE_CLOSE | \[client,\] number |

mod code;
mod emit;
mod error;
mod message;
mod params;
mod parse;
mod value;

use alloc::vec::Vec;

pub use self::code::{ErrorCode, UnknownCode};
pub use self::error::{EmitError, Excerpt, LineError, LineErrorKind};
pub use self::message::{
    ClusterEntry, ContentType, MAX_BINARY, MAX_CODE_NUMBER, MAX_DETAILS, MemberState, Message,
    Opaque, ShareEntry, SharePoolAdd,
};
pub use self::value::{Caps, ClusterInfo, ClusterOptions};

/// The most parameters in a line, a tag included.
pub const MAX_PARAMETERS: usize = 300;

/// The most share entries in a SHARE_POOL_ADD.
pub const MAX_SHARES: usize = 255;

/// What every line in slash form starts with, before the version.
const SLASH_START: &str = "VMDT/";

/// How a line separates its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Framing {
    /// `TYPE|p1|p2…`, nothing escaped: raw profile 1.0.
    Bar,
    /// `VMDT/TCP/1.0/TYPE/p1/p2…`, percent-escaped: what our own software sends.
    Slash,
}

impl Framing {
    /// Which framing a line is in, whether or not the rest of it makes sense: an answer to a line
    /// that does not parse is to be in the same framing.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        let start = line.iter().position(|octet| !matches!(octet, b' ' | b'\t'));
        let line = start
            .and_then(|start| line.get(start..))
            .unwrap_or_default();
        if line.starts_with(SLASH_START.as_bytes()) {
            Self::Slash
        } else {
            Self::Bar
        }
    }

    const fn separator(self) -> u8 {
        match self {
            Self::Bar => b'|',
            Self::Slash => b'/',
        }
    }
}

/// One line of the control layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How it is written.
    pub framing: Framing,
    /// Which request it is, or answers.
    pub tag: Option<u32>,
    /// What it says.
    pub message: Message,
}

impl Line {
    /// A line in slash form without a tag.
    #[must_use]
    pub const fn slash(message: Message) -> Self {
        Self {
            framing: Framing::Slash,
            tag: None,
            message,
        }
    }

    /// A line in bar form without a tag.
    #[must_use]
    pub const fn bar(message: Message) -> Self {
        Self {
            framing: Framing::Bar,
            tag: None,
            message,
        }
    }

    /// This line without what its framing has no place for: in bar form the tag of a SEND_MESSAGE
    /// and the message that an ERROR is about.
    #[must_use]
    pub fn fitted(mut self) -> Self {
        if self.framing == Framing::Bar {
            match &mut self.message {
                Message::SendMessage { .. } => self.tag = None,
                Message::Error { about, .. } => *about = None,
                _ => {}
            }
        }
        self
    }

    /// Reads one line, with or without its line end.
    ///
    /// Tolerated because deployed 1.0 software writes it: CRLF, blanks around the line, one empty
    /// last entry in a list, SHARE_POOL_ADD without content and filename, base64 with or without
    /// padding and with any trailing bits, ERROR without a code word.
    ///
    /// # Errors
    /// Names the first parameter that is missing or malformed, and its offset in `line`.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        parse::line(line)
    }

    /// The line with its LF.
    ///
    /// # Errors
    /// Something that this framing cannot carry, so that `parse` would not give the same line.
    pub fn emit(&self) -> Result<Vec<u8>, EmitError> {
        let mut out = Vec::with_capacity(128);
        self.emit_to(&mut out)?;
        Ok(out)
    }

    /// Appends the line with its LF to `out`.
    ///
    /// ```
    /// use vmdt_wire::{Line, Message};
    ///
    /// let mut out = b"OK|done\n".to_vec();
    /// Line::bar(Message::Ok { text: None }).emit_to(&mut out)?;
    /// assert_eq!(out, b"OK|done\nOK\n");
    /// # Ok::<(), vmdt_wire::EmitError>(())
    /// ```
    ///
    /// # Errors
    /// As [`emit`](Self::emit); then `out` is what it was.
    pub fn emit_to(&self, out: &mut Vec<u8>) -> Result<(), EmitError> {
        let start = out.len();
        let done = emit::line(self, out);
        if done.is_err() {
            out.truncate(start);
        }
        done
    }
}

#[cfg(test)]
mod tests;
