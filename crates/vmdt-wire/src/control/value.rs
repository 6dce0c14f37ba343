//! Parameters that have a form of their own: capabilities, cluster options.

use core::fmt;
use core::ops::BitOr;

/// What a node can do beyond profile 1.0, written as words with dots between; `none` if nothing.
///
/// Words that are not known are ignored, so that later software can add its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Caps(u32);

impl Caps {
    /// Nothing beyond profile 1.0.
    pub const NONE: Self = Self(0);
    /// `rdt`: speaks the UDP data layer with spread shares.
    pub const RDT: Self = Self(1);

    const WORDS: [(Self, &'static str); 1] = [(Self::RDT, "rdt")];

    /// Whether all capabilities of `other` are there.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These capabilities and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reads words with dots between.
    pub(super) fn read(text: &str) -> Self {
        text.split('.').fold(Self::NONE, |caps, word| {
            let known = Self::WORDS.into_iter().find(|&(_, name)| name == word);
            known.map_or(caps, |(cap, _)| caps.with(cap))
        })
    }
}

impl BitOr for Caps {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for (cap, word) in Self::WORDS {
            if self.contains(cap) {
                write!(f, "{separator}{word}")?;
                separator = ".";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caps({self})")
    }
}

/// What the creator of a cluster may choose, written `open=1,max=8`.
///
/// Keys that are not known are ignored; a key left out has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClusterOptions {
    /// `open`: whether peers of profile 1.0 may be members and get shares inline. Default no.
    pub open_peers: bool,
    /// `max`: the most members, when it is not left to the server.
    pub max_members: Option<u16>,
}

impl fmt::Display for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open={}", u8::from(self.open_peers))?;
        self.max_members
            .map_or(Ok(()), |max| write!(f, ",max={max}"))
    }
}

/// What a server tells of a cluster to software that knows more than profile 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterInfo {
    /// Shares per message.
    pub n: u16,
    /// Shares needed to rebuild one.
    pub k: u16,
    /// The cluster's options.
    pub options: ClusterOptions,
}
