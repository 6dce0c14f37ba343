//! Files and folders over messages of a node: what is offered, what is there already, the rest.
//!
//! One side sends, the other receives; both may be killed at any time and begin again:
//!
//! | who | message | says |
//! |---|---|---|
//! | receiver | `Hello` | the token of the ticket: here I am |
//! | sender | `Offer` | the entries: names, sizes, modes, times, in pages |
//! | receiver | `Have` | BLAKE3 digests of the chunks of an earlier attempt that are on its disk |
//! | receiver | `Go` | how many `Have` there were; the sender begins when it has them all |
//! | sender | `Frame` | chunks whose digests differ, and the end of each file with its digest |
//! | receiver | `Done` | everything stands under its final name |
//! | either | `Failed` | why not |
//!
//! Messages may overtake each other. Every one carries the number of the session, which the
//! receiver draws, so that those of an earlier attempt are recognised.
//!
//! What is on the disk of the receiver is its only memory: there is no journal that could disagree
//! with it after a crash. A chunk is compared by its digest with the sender's own, so a file that
//! changed in between is sent anew where it changed.

pub(crate) mod earlier;
pub(crate) mod entry;
pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod staging;
pub(crate) mod tally;
pub(crate) mod wire;

/// Octets of a chunk (1 MiB): what is compared, skipped or sent as one.
pub(crate) const CHUNK: usize = 1 << 20;

/// Digest of a chunk.
pub(crate) type Digest = [u8; 32];

/// The clock, as the runtime's timers count.
pub(crate) fn instant() -> tokio::time::Instant {
    crate::clock::now().into()
}

/// The digest of a file: BLAKE3 over its length and the digests of its chunks in order.
pub(crate) fn file_digest(size: u64, chunks: impl IntoIterator<Item = Digest>) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("vmdt transfer 1 file");
    hasher.update(&size.to_be_bytes());
    for digest in chunks {
        hasher.update(&digest);
    }
    *hasher.finalize().as_bytes()
}

/// The digest of a chunk.
pub(crate) fn chunk_digest(octets: &[u8]) -> Digest {
    *blake3::hash(octets).as_bytes()
}
