//! The octets of a transfer's messages.
//!
//! Every message: `VMX` 0x01 | type u8 | session u64 | body. Numbers are big-endian; lengths are
//! checked against what is there before anything is allocated.

use std::io::{self, Read};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::Digest;
use super::entry::{Entry, Kind, MAX_DEPTH, MAX_NAME, MAX_PATH};

/// What every message begins with.
const MARK: &[u8; 4] = b"VMX\x01";
/// Octets of a ticket's token.
pub(crate) const TOKEN_LEN: usize = 16;
/// The longest sentence of a failure.
const MAX_TEXT: usize = 1024;
/// Octets of offered entries in one page, about.
const PAGE: usize = 512 * 1024;
/// Digests in one message.
pub(crate) const MAX_DIGESTS: usize = 16 * 1024;

/// A message of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The receiver is there and holds the ticket's token.
    Hello { token: [u8; TOKEN_LEN] },
    /// A page of entries.
    Offer {
        page: u32,
        pages: u32,
        entries: Vec<Entry>,
    },
    /// Digests of chunks that the receiver has.
    Have { runs: Vec<Run> },
    /// The receiver is ready, and said `Have` this many times.
    Go { haves: u32 },
    /// Content.
    Frame { records: Vec<Record> },
    /// Everything stands under its final name.
    Done { octets: u64 },
    /// It ended without success.
    Failed { exit: u8, text: String },
}

/// Digests of consecutive chunks of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) entry: u32,
    pub(crate) first: u64,
    pub(crate) digests: Vec<Digest>,
}

/// A piece of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A chunk of an entry.
    Chunk {
        entry: u32,
        number: u64,
        octets: Bytes,
    },
    /// The sender found this chunk at the receiver's already.
    Same { entry: u32, number: u64 },
    /// An entry is complete: its size and [`super::file_digest`].
    End {
        entry: u32,
        size: u64,
        digest: Digest,
    },
}

/// Octets of a chunk record beside its content.
pub(crate) const RECORD_HEAD: usize = 1 + 4 + 8 + 4;
/// Octets before the body of a message.
const MESSAGE_HEAD: usize = 4 + 1 + 8;
/// Octets of an [`End`](Record::End).
const END: usize = 1 + 4 + 8 + 32;

/// A [`Frame`](Message::Frame) that is put together in its place: content is read into the message
/// that carries it, and copied no more.
#[derive(Debug, Default)]
pub(crate) struct Packed(Vec<u8>);

impl Packed {
    /// Octets of the body.
    pub(crate) fn len(&self) -> usize {
        self.0.len().saturating_sub(MESSAGE_HEAD)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn begin(&mut self, room: usize) {
        if self.0.is_empty() {
            self.0.reserve_exact(MESSAGE_HEAD + room + END);
            self.0.extend(MARK);
            self.0.push(5);
            self.0.extend([0; 8]);
        }
    }

    /// Reads a chunk of at most `most` octets: gives its digest and length, unless nothing came.
    /// When `known` says so the content is left out again.
    ///
    /// # Errors
    /// What the source says.
    pub(crate) fn chunk(
        &mut self,
        (entry, number): (u32, u64),
        most: usize,
        from: &mut impl Read,
        known: impl FnOnce(&Digest) -> bool,
    ) -> io::Result<Option<(Digest, usize, bool)>> {
        self.begin(RECORD_HEAD + most);
        let start = self.0.len();
        self.0.push(0);
        self.0.extend(entry.to_be_bytes());
        self.0.extend(number.to_be_bytes());
        let len_at = self.0.len();
        self.0.extend([0; 4]);
        let read = from.take(most as u64).read_to_end(&mut self.0);
        let content = self.0.get(start + RECORD_HEAD..).unwrap_or_default();
        let (len, digest) = (content.len(), super::chunk_digest(content));
        if read.is_err() || len == 0 {
            self.0.truncate(start);
            return read.map(|_| None);
        }
        let same = known(&digest);
        if same {
            self.0.truncate(start);
            self.record(&Record::Same { entry, number });
        } else if let Some(field) = self.0.get_mut(len_at..len_at + 4) {
            field.copy_from_slice(&(len as u32).to_be_bytes());
        }
        Ok(Some((digest, len, same)))
    }

    /// Adds a record without content.
    pub(crate) fn record(&mut self, record: &Record) {
        self.begin(0);
        let mut octets = BytesMut::new();
        put_record(&mut octets, record);
        self.0.extend(octets);
    }

    /// The octets of the message.
    pub(crate) fn encode(mut self, session: u64) -> Bytes {
        self.begin(0);
        if let Some(field) = self.0.get_mut(MESSAGE_HEAD - 8..MESSAGE_HEAD) {
            field.copy_from_slice(&session.to_be_bytes());
        }
        self.0.into()
    }
}

impl Message {
    /// The octets of the message.
    pub(crate) fn encode(&self, session: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(MARK);
        out.put_u8(match self {
            Message::Hello { .. } => 1,
            Message::Offer { .. } => 2,
            Message::Have { .. } => 3,
            Message::Go { .. } => 4,
            Message::Frame { .. } => 5,
            Message::Done { .. } => 6,
            Message::Failed { .. } => 7,
        });
        out.put_u64(session);
        match self {
            Message::Hello { token } => out.put_slice(token),
            Message::Offer {
                page,
                pages,
                entries,
            } => {
                out.put_u32(*page);
                out.put_u32(*pages);
                for entry in entries {
                    put_entry(&mut out, entry);
                }
            }
            Message::Have { runs } => {
                for run in runs {
                    out.put_u32(run.entry);
                    out.put_u64(run.first);
                    out.put_u32(run.digests.len() as u32);
                    for digest in &run.digests {
                        out.put_slice(digest);
                    }
                }
            }
            Message::Go { haves } => out.put_u32(*haves),
            Message::Frame { records } => {
                let octets: usize = records
                    .iter()
                    .map(|record| match record {
                        Record::Chunk { octets, .. } => octets.len() + RECORD_HEAD,
                        _ => 64,
                    })
                    .sum();
                out.reserve(octets);
                for record in records {
                    put_record(&mut out, record);
                }
            }
            Message::Done { octets } => out.put_u64(*octets),
            Message::Failed { exit, text } => {
                out.put_u8(*exit);
                let mut cut = text.len().min(MAX_TEXT);
                while !text.is_char_boundary(cut) {
                    cut -= 1;
                }
                out.put_slice(text.get(..cut).unwrap_or_default().as_bytes());
            }
        }
        out.freeze()
    }

    /// Reads a message and its session. `None` for octets that are none: they are somebody
    /// else's.
    pub(crate) fn decode(octets: &Bytes) -> Option<(u64, Message)> {
        let mut body = Body(octets.clone());
        if body.take(4)?.as_ref() != MARK {
            return None;
        }
        let kind = body.u8()?;
        let session = body.u64()?;
        let message = match kind {
            1 => Message::Hello {
                token: body.array()?,
            },
            2 => {
                let (page, pages) = (body.u32()?, body.u32()?);
                let mut entries = Vec::new();
                while !body.0.is_empty() {
                    entries.push(body.entry()?);
                }
                Message::Offer {
                    page,
                    pages,
                    entries,
                }
            }
            3 => {
                let mut runs = Vec::new();
                while !body.0.is_empty() {
                    let (entry, first) = (body.u32()?, body.u64()?);
                    let count = body.u32()? as usize;
                    if count > MAX_DIGESTS {
                        return None;
                    }
                    let octets = body.take(count * 32)?;
                    let digests = octets.as_ref().as_chunks::<32>().0.to_vec();
                    runs.push(Run {
                        entry,
                        first,
                        digests,
                    });
                }
                Message::Have { runs }
            }
            4 => Message::Go { haves: body.u32()? },
            5 => {
                let mut records = Vec::new();
                while !body.0.is_empty() {
                    records.push(body.record()?);
                }
                Message::Frame { records }
            }
            6 => Message::Done {
                octets: body.u64()?,
            },
            7 => {
                let exit = body.u8()?;
                let text = body.take(body.0.len().min(MAX_TEXT))?;
                Message::Failed {
                    exit,
                    text: String::from_utf8_lossy(&text).into_owned(),
                }
            }
            _ => return None,
        };
        body.0.is_empty().then_some((session, message))
    }
}

/// Divides entries into pages.
pub(crate) fn offers(entries: &[Entry]) -> Vec<Message> {
    let mut pages: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut octets = 0;
    for entry in entries {
        let len = 64 + entry.path.iter().map(|c| c.len() + 2).sum::<usize>();
        if octets + len > PAGE {
            pages.push(Vec::new());
            octets = 0;
        }
        octets += len;
        if let Some(page) = pages.last_mut() {
            page.push(entry.clone());
        }
    }
    let count = pages.len() as u32;
    (0..)
        .zip(pages)
        .map(|(page, entries)| Message::Offer {
            page,
            pages: count,
            entries,
        })
        .collect()
}

/// Divides digests into messages.
pub(crate) fn haves(runs: impl IntoIterator<Item = Run>) -> Vec<Message> {
    let mut messages = Vec::new();
    let (mut packed, mut octets) = (Vec::new(), 0);
    for run in runs {
        let len = 16 + run.digests.len() * 32;
        if octets + len > MAX_DIGESTS * 32 + 16 && !packed.is_empty() {
            messages.push(Message::Have {
                runs: std::mem::take(&mut packed),
            });
            octets = 0;
        }
        octets += len;
        packed.push(run);
    }
    if !packed.is_empty() {
        messages.push(Message::Have { runs: packed });
    }
    messages
}

fn put_entry(out: &mut BytesMut, entry: &Entry) {
    let (kind, size, target): (u8, u64, &[u8]) = match &entry.kind {
        Kind::File { size } => (0, *size, b""),
        Kind::Folder => (1, 0, b""),
        Kind::Link { target } => (2, 0, target),
        Kind::Stream => (3, 0, b""),
        Kind::Text { size } => (4, *size, b""),
    };
    out.put_u8(kind);
    out.put_u64(size);
    out.put_u32(entry.mode);
    out.put_i64(entry.modified.0);
    out.put_u32(entry.modified.1);
    out.put_u16(target.len() as u16);
    out.put_slice(target);
    out.put_u8(entry.path.len() as u8);
    for component in &entry.path {
        out.put_u8(component.len() as u8);
        out.put_slice(component);
    }
}

fn put_record(out: &mut BytesMut, record: &Record) {
    match record {
        Record::Chunk {
            entry,
            number,
            octets,
        } => {
            out.put_u8(0);
            out.put_u32(*entry);
            out.put_u64(*number);
            out.put_u32(octets.len() as u32);
            out.put_slice(octets);
        }
        Record::Same { entry, number } => {
            out.put_u8(1);
            out.put_u32(*entry);
            out.put_u64(*number);
        }
        Record::End {
            entry,
            size,
            digest,
        } => {
            out.put_u8(2);
            out.put_u32(*entry);
            out.put_u64(*size);
            out.put_slice(digest);
        }
    }
}

/// What is left to read.
struct Body(Bytes);

impl Body {
    fn take(&mut self, len: usize) -> Option<Bytes> {
        (self.0.len() >= len).then(|| self.0.split_to(len))
    }

    fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    fn entry(&mut self) -> Option<Entry> {
        let kind = self.u8()?;
        let size = self.u64()?;
        let mode = self.u32()?;
        let modified = (self.0.try_get_i64().ok()?, self.u32()?);
        let target_len = usize::from(self.u16()?);
        if target_len > MAX_PATH || modified.1 >= 1_000_000_000 {
            return None;
        }
        let target = self.take(target_len)?.to_vec();
        let depth = usize::from(self.u8()?);
        if depth > MAX_DEPTH {
            return None;
        }
        let mut path = Vec::with_capacity(depth);
        let mut octets = 0;
        for _ in 0..depth {
            let len = usize::from(self.u8()?);
            octets += len + 1;
            if len > MAX_NAME || octets > MAX_PATH {
                return None;
            }
            path.push(self.take(len)?.to_vec());
        }
        let kind = match kind {
            0 => Kind::File { size },
            1 => Kind::Folder,
            2 => Kind::Link { target },
            3 => Kind::Stream,
            4 => Kind::Text { size },
            _ => return None,
        };
        Some(Entry {
            path,
            kind,
            mode,
            modified,
        })
    }

    fn record(&mut self) -> Option<Record> {
        match self.u8()? {
            0 => {
                let (entry, number) = (self.u32()?, self.u64()?);
                let len = self.u32()? as usize;
                if len > super::CHUNK {
                    return None;
                }
                Some(Record::Chunk {
                    entry,
                    number,
                    octets: self.take(len)?,
                })
            }
            1 => Some(Record::Same {
                entry: self.u32()?,
                number: self.u64()?,
            }),
            2 => Some(Record::End {
                entry: self.u32()?,
                size: self.u64()?,
                digest: self.array()?,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<Message> {
        let file = Entry {
            path: vec![b"d".to_vec(), b"x.bin".to_vec()],
            kind: Kind::File { size: 9 },
            mode: 0o640,
            modified: (-5, 999_999_999),
        };
        let link = Entry {
            kind: Kind::Link {
                target: b"../y".to_vec(),
            },
            ..file.clone()
        };
        vec![
            Message::Hello {
                token: [7; TOKEN_LEN],
            },
            Message::Offer {
                page: 0,
                pages: 1,
                entries: vec![file, link],
            },
            Message::Have {
                runs: vec![Run {
                    entry: 1,
                    first: 2,
                    digests: vec![[1; 32], [2; 32]],
                }],
            },
            Message::Go { haves: 1 },
            Message::Frame {
                records: vec![
                    Record::Chunk {
                        entry: 0,
                        number: 3,
                        octets: Bytes::from_static(b"abc"),
                    },
                    Record::Same {
                        entry: 0,
                        number: 4,
                    },
                    Record::End {
                        entry: 0,
                        size: 9,
                        digest: [9; 32],
                    },
                ],
            },
            Message::Done { octets: 9 },
            Message::Failed {
                exit: 7,
                text: "no space".into(),
            },
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for message in messages() {
            let octets = message.encode(42);
            assert_eq!(Message::decode(&octets), Some((42, message)));
        }
    }

    #[test]
    fn a_frame_put_together_in_place_reads_as_one_made_of_records() {
        let mut packed = Packed::default();
        assert!(packed.is_empty());
        let mut source = &b"abcdefgh"[..];
        let read = packed.chunk((3, 7), 3, &mut source, |_| false).unwrap();
        let digest = super::super::chunk_digest(b"abc");
        assert_eq!(read, Some((digest, 3, false)));
        // what the receiver has is told, not sent
        let read = packed.chunk((3, 8), 3, &mut source, |_| true).unwrap();
        assert_eq!(read.map(|(_, len, same)| (len, same)), Some((3, true)));
        let read = packed.chunk((3, 9), 3, &mut source, |_| false).unwrap();
        assert_eq!(read.map(|(_, len, _)| len), Some(2), "the rest");
        let before = packed.len();
        assert_eq!(
            packed.chunk((3, 10), 3, &mut source, |_| false).unwrap(),
            None
        );
        assert_eq!(packed.len(), before, "nothing came");
        let end = Record::End {
            entry: 3,
            size: 8,
            digest: [9; 32],
        };
        packed.record(&end);
        let chunk = |number, octets: &'static [u8]| Record::Chunk {
            entry: 3,
            number,
            octets: Bytes::from_static(octets),
        };
        let same = Record::Same {
            entry: 3,
            number: 8,
        };
        let records = vec![chunk(7, b"abc"), same, chunk(9, b"gh"), end];
        let wanted = Message::Frame { records }.encode(42);
        assert_eq!(packed.encode(42), wanted);
        assert_eq!(
            Packed::default().encode(1),
            Message::Frame { records: vec![] }.encode(1)
        );
    }

    #[test]
    fn rejects_every_truncation_but_those_between_items() {
        for message in messages() {
            let octets = message.encode(1);
            for len in 0..octets.len() {
                if let Some((_, shorter)) = Message::decode(&octets.slice(..len)) {
                    assert_ne!(shorter, message);
                    assert!(len >= 13);
                }
            }
            let mut longer = octets.to_vec();
            longer.push(0xee);
            let longer = Bytes::from(longer);
            let read = Message::decode(&longer);
            assert!(
                read.is_none() || matches!(message, Message::Failed { .. }),
                "{message:?}"
            );
        }
        assert_eq!(
            Message::decode(&Bytes::from_static(b"hello there, nice to meet you")),
            None
        );
    }

    #[test]
    fn a_chunk_longer_than_a_chunk_is_rejected() {
        let octets = Bytes::from(vec![0; super::super::CHUNK + 1]);
        let frame = Message::Frame {
            records: vec![Record::Chunk {
                entry: 0,
                number: 0,
                octets,
            }],
        };
        assert_eq!(Message::decode(&frame.encode(0)), None);
    }

    #[test]
    fn digests_of_many_files_share_a_message() {
        let run = |entry, count| Run {
            entry,
            first: 0,
            digests: vec![[7; 32]; count],
        };
        assert_eq!(haves((0..1000).map(|entry| run(entry, 1))).len(), 1);
        let messages = haves((0..4).map(|entry| run(entry, MAX_DIGESTS)));
        assert_eq!(messages.len(), 4);
        for message in messages {
            let octets = message.encode(0);
            assert!(octets.len() <= 600 * 1024);
            assert_eq!(Message::decode(&octets), Some((0, message)));
        }
        assert!(haves([]).is_empty());
    }

    #[test]
    fn many_entries_come_in_several_pages() {
        let entry = Entry {
            path: vec![vec![b'n'; 200]],
            kind: Kind::File { size: 0 },
            mode: 0,
            modified: (0, 0),
        };
        let entries = vec![entry; 5000];
        let pages = offers(&entries);
        assert!(pages.len() > 1);
        let mut seen = 0;
        for page in &pages {
            assert!(page.encode(0).len() <= 600 * 1024);
            let Message::Offer {
                entries,
                pages: count,
                ..
            } = page
            else {
                panic!()
            };
            assert_eq!(*count as usize, pages.len());
            seen += entries.len();
        }
        assert_eq!(seen, 5000);
        assert_eq!(offers(&[]).len(), 1);
    }
}
