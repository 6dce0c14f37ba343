//! How a node's own records look on disk: keys that begin with `n`, values that begin with their
//! format; numbers are big-endian. What is not understood is passed over and removed.

use bytes::Bytes;
use vmdt_wire::{ClusterId, MessageId, NodeId};

use crate::core::envelope::Kind;

/// The first octet of the keys.
pub(crate) const SPACE: u8 = b'n';
const FORMAT: u8 = 1;
/// Of records about transfers to several receivers.
const FORMAT_GROUP: u8 = 2;
/// The longest reason that is kept for a receiver that failed.
const MAX_REASON: usize = 512;

/// Names a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Whose records these are.
    Owner,
    /// A cluster this node is in.
    Member(ClusterId),
    /// What is known of that cluster, where it is sealed.
    Memory(ClusterId),
    /// A transfer that is sent.
    Sending(MessageId),
    /// The octets of a message that is sent.
    Content(MessageId),
    /// One segment of it that was spread: where its shares are.
    Spread(MessageId),
    /// A transfer that arrives.
    Arriving(NodeId, MessageId),
    /// A piece of a message that arrives.
    Piece(NodeId, MessageId, u32),
    /// A transfer that has ended here.
    Ended(NodeId, MessageId),
}

impl Key {
    pub(crate) fn octets(self) -> Bytes {
        let mut out = vec![SPACE];
        match self {
            Key::Owner => out.push(b'w'),
            Key::Member(cluster) => {
                out.push(b'm');
                out.extend(cluster.as_str().as_bytes());
            }
            Key::Memory(cluster) => {
                out.push(b'c');
                out.extend(cluster.as_str().as_bytes());
            }
            Key::Sending(id) => {
                out.push(b'o');
                out.extend(id.field());
            }
            Key::Content(id) => {
                out.push(b'b');
                out.extend(id.field());
            }
            Key::Spread(id) => {
                out.push(b'l');
                out.extend(id.field());
            }
            Key::Arriving(from, id) => {
                out.push(b'i');
                out.extend(from.field());
                out.extend(id.field());
            }
            Key::Piece(from, id, number) => {
                out.push(b'p');
                out.extend(from.field());
                out.extend(id.field());
                out.extend(number.to_be_bytes());
            }
            Key::Ended(from, id) => {
                out.push(b'e');
                out.extend(from.field());
                out.extend(id.field());
            }
        }
        Bytes::from(out)
    }

    /// Reads what [`octets`](Self::octets) wrote.
    pub(crate) fn read(octets: &[u8]) -> Option<Key> {
        let (&[space, kind], rest) = octets.split_first_chunk()?;
        (space == SPACE).then_some(())?;
        let mut fields = Reader(Bytes::copy_from_slice(rest));
        let key = match kind {
            b'w' => Key::Owner,
            b'm' | b'c' => {
                let cluster = std::str::from_utf8(rest).ok()?.parse().ok()?;
                return Some(match kind {
                    b'm' => Key::Member(cluster),
                    _ => Key::Memory(cluster),
                });
            }
            b'o' => Key::Sending(fields.message()?),
            b'b' => Key::Content(fields.message()?),
            b'l' => Key::Spread(fields.message()?),
            b'i' => Key::Arriving(fields.node()?, fields.message()?),
            b'p' => Key::Piece(fields.node()?, fields.message()?, fields.u32()?),
            b'e' => Key::Ended(fields.node()?, fields.message()?),
            _ => return None,
        };
        fields.0.is_empty().then_some(key)
    }
}

/// What became of a transfer at one of several receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is still to get it.
    Open,
    /// It has all of it.
    Reached,
    /// It will not have it, for this reason.
    Failed(String),
}

/// A transfer that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) cluster: ClusterId,
    pub(crate) to: NodeId,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) total: Option<u64>,
    pub(crate) k: u8,
    pub(crate) n: u8,
    /// Octets of a segment: where segments begin does not change in the middle.
    pub(crate) segment: u32,
    /// The first segment that is not confirmed, and where it begins.
    pub(crate) low: (u32, u64),
    /// When it is given up, in milliseconds since 1970.
    pub(crate) expires_ms: u64,
    /// How the driver finds the content again; empty for a message.
    pub(crate) source: Bytes,
    /// All of several receivers; none where there is one.
    pub(crate) group: Vec<(NodeId, Fate)>,
}

impl Sending {
    pub(crate) fn emit(&self) -> Bytes {
        let mut out = Writer::of(!self.group.is_empty());
        out.text(self.cluster.as_str());
        out.node(self.to);
        out.u8(u8::from(self.kind == Kind::File));
        out.text(&self.name);
        out.u8(u8::from(self.total.is_some()));
        out.u64(self.total.unwrap_or(0));
        out.u8(self.k);
        out.u8(self.n);
        out.u32(self.segment);
        out.u32(self.low.0);
        out.u64(self.low.1);
        out.u64(self.expires_ms);
        out.octets(&self.source);
        if !self.group.is_empty() {
            out.u8(u8::try_from(self.group.len()).unwrap_or(u8::MAX));
        }
        for (id, fate) in self.group.iter().take(usize::from(u8::MAX)) {
            out.node(*id);
            out.fate(fate);
        }
        out.finish()
    }

    pub(crate) fn read(value: Bytes) -> Option<Sending> {
        let (mut r, several) = Reader::of_either(value)?;
        let cluster = r.text()?.parse().ok()?;
        let to = r.node()?;
        let kind = r.kind()?;
        let name = r.text()?;
        let total = r.total()?;
        let mut found = Sending {
            cluster,
            to,
            kind,
            name,
            total,
            k: r.u8()?,
            n: r.u8()?,
            segment: r.u32()?,
            low: (r.u32()?, r.u64()?),
            expires_ms: r.u64()?,
            source: r.octets()?,
            group: Vec::new(),
        };
        let count = if several { r.u8()?.max(1) } else { 0 };
        for _ in 0..count {
            found.group.push((r.node()?, r.fate()?));
        }
        r.finish()?;
        Some(found)
    }
}

/// One segment of a transfer that was spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpreadRecord {
    pub(crate) transfer: MessageId,
    pub(crate) to: NodeId,
    pub(crate) number: u32,
    /// Octets of content in it.
    pub(crate) octets: u64,
    /// At least k of its shares are on disk at their holders.
    pub(crate) safe: bool,
    pub(crate) holders: Vec<NodeId>,
    /// Who of several receivers is still to confirm it; nobody where there is one receiver.
    pub(crate) open: Vec<NodeId>,
}

impl SpreadRecord {
    /// Who is still to confirm it.
    pub(crate) fn awaited(&self) -> &[NodeId] {
        if self.open.is_empty() {
            std::slice::from_ref(&self.to)
        } else {
            &self.open
        }
    }

    pub(crate) fn emit(&self) -> Bytes {
        let mut out = Writer::of(!self.open.is_empty());
        out.message(self.transfer);
        out.node(self.to);
        out.u32(self.number);
        out.u64(self.octets);
        out.u8(u8::from(self.safe));
        out.nodes(&self.holders);
        if !self.open.is_empty() {
            out.nodes(&self.open);
        }
        out.finish()
    }

    pub(crate) fn read(value: Bytes) -> Option<SpreadRecord> {
        let (mut r, several) = Reader::of_either(value)?;
        let mut found = SpreadRecord {
            transfer: r.message()?,
            to: r.node()?,
            number: r.u32()?,
            octets: r.u64()?,
            safe: r.flag()?,
            holders: r.nodes()?,
            open: Vec::new(),
        };
        if several {
            found.open = r.nodes()?;
            (!found.open.is_empty()).then_some(())?;
        }
        r.finish()?;
        Some(found)
    }
}

/// A transfer that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arriving {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) total: Option<u64>,
    /// The next piece, and where it begins: everything before is in the file.
    pub(crate) next: (u32, u64),
    /// When it is given up, in milliseconds since 1970.
    pub(crate) expires_ms: u64,
    /// The whole content is in the file, and this is its digest: what is missing is its name.
    pub(crate) whole: Option<[u8; 32]>,
}

impl Arriving {
    pub(crate) fn emit(&self) -> Bytes {
        let mut out = Writer::new();
        out.u8(u8::from(self.kind == Kind::File));
        out.text(&self.name);
        out.u8(u8::from(self.total.is_some()));
        out.u64(self.total.unwrap_or(0));
        out.u32(self.next.0);
        out.u64(self.next.1);
        out.u64(self.expires_ms);
        out.u8(u8::from(self.whole.is_some()));
        out.0.extend(self.whole.unwrap_or_default());
        out.finish()
    }

    pub(crate) fn read(value: Bytes) -> Option<Arriving> {
        let mut r = Reader::new(value)?;
        let kind = r.kind()?;
        let name = r.text()?;
        let total = r.total()?;
        let (next, expires_ms) = ((r.u32()?, r.u64()?), r.u64()?);
        let whole = r.flag()?;
        let digest = r.array()?;
        r.finish()?;
        Some(Arriving {
            kind,
            name,
            total,
            next,
            expires_ms,
            whole: whole.then_some(digest),
        })
    }
}

/// How a transfer ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It failed, or was taken back.
    Failed,
    /// It was about to be handed to the application.
    Handed,
    /// The application, or its folder, has it.
    Taken,
}

impl End {
    pub(crate) fn emit(self, until_ms: u64) -> Bytes {
        let mut out = Writer::new();
        out.u64(until_ms);
        out.u8(match self {
            End::Failed => 0,
            End::Handed => 1,
            End::Taken => 2,
        });
        out.finish()
    }

    pub(crate) fn read(value: Bytes) -> Option<(u64, End)> {
        let mut r = Reader::new(value)?;
        let until = r.u64()?;
        let end = match r.u8()? {
            0 => End::Failed,
            1 => End::Handed,
            2 => End::Taken,
            _ => return None,
        };
        r.finish()?;
        Some((until, end))
    }
}

/// Writes fields one after the other.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer(vec![FORMAT])
    }

    /// Of a record that may be about several receivers.
    fn of(several: bool) -> Writer {
        Writer(vec![if several { FORMAT_GROUP } else { FORMAT }])
    }

    fn nodes(&mut self, nodes: &[NodeId]) {
        self.u8(u8::try_from(nodes.len()).unwrap_or(u8::MAX));
        for node in nodes.iter().take(usize::from(u8::MAX)) {
            self.node(*node);
        }
    }

    fn fate(&mut self, fate: &Fate) {
        match fate {
            Fate::Open => self.u8(0),
            Fate::Reached => self.u8(1),
            Fate::Failed(why) => {
                self.u8(2);
                let cut = (0..=why.len().min(MAX_REASON)).rev();
                let whole = cut.filter_map(|end| why.get(..end)).next();
                self.text(whole.unwrap_or_default());
            }
        }
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn node(&mut self, id: NodeId) {
        self.0.extend(id.field());
    }

    fn message(&mut self, id: MessageId) {
        self.0.extend(id.field());
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        // everything kept is bounded far below 4 GiB
        self.u32(u32::try_from(octets.len()).unwrap_or(u32::MAX));
        self.0.extend(octets);
    }

    fn text(&mut self, text: &str) {
        self.octets(text.as_bytes());
    }

    pub(crate) fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// Reads fields one after the other; `None` when they are not what the format says.
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(value: Bytes) -> Option<Reader> {
        let mut reader = Reader(value);
        (reader.u8()? == FORMAT).then_some(reader)
    }

    /// Of a record that may be about several receivers, and whether it is.
    fn of_either(value: Bytes) -> Option<(Reader, bool)> {
        let mut reader = Reader(value);
        match reader.u8()? {
            FORMAT => Some((reader, false)),
            FORMAT_GROUP => Some((reader, true)),
            _ => None,
        }
    }

    fn nodes(&mut self) -> Option<Vec<NodeId>> {
        let count = self.u8()?;
        (0..count).map(|_| self.node()).collect()
    }

    fn fate(&mut self) -> Option<Fate> {
        Some(match self.u8()? {
            0 => Fate::Open,
            1 => Fate::Reached,
            2 => Fate::Failed(self.text()?),
            _ => return None,
        })
    }

    fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn kind(&mut self) -> Option<Kind> {
        Some(if self.flag()? {
            Kind::File
        } else {
            Kind::Octets
        })
    }

    fn total(&mut self) -> Option<Option<u64>> {
        let known = self.flag()?;
        let total = self.u64()?;
        Some(known.then_some(total))
    }

    pub(crate) fn node(&mut self) -> Option<NodeId> {
        NodeId::from_field(self.array()?).ok()
    }

    fn message(&mut self) -> Option<MessageId> {
        MessageId::from_field(self.array()?).ok()
    }

    pub(crate) fn octets(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.octets()?.to_vec()).ok()
    }

    pub(crate) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn id(n: u8) -> MessageId {
        MessageId::from_random([n; 12])
    }

    #[test]
    fn keys_are_read_as_they_were_written_and_others_are_refused() {
        for key in [
            Key::Owner,
            Key::Member("a-cluster".parse().unwrap()),
            Key::Memory("a-cluster".parse().unwrap()),
            Key::Sending(id(1)),
            Key::Content(id(1)),
            Key::Spread(id(2)),
            Key::Arriving(node("a"), id(3)),
            Key::Piece(node("a"), id(3), 7),
            Key::Ended(node("a"), id(3)),
        ] {
            let octets = key.octets();
            assert_eq!(Key::read(&octets), Some(key));
            let shorter = Key::read(&octets[..octets.len() - 1]);
            assert_ne!(shorter, Some(key));
            let mut foreign = octets.to_vec();
            foreign[0] = b'p';
            assert_eq!(Key::read(&foreign), None);
        }
        assert_eq!(Key::read(b""), None);
    }

    #[test]
    fn records_are_read_as_they_were_written_and_cut_ones_are_refused() {
        let sending = Sending {
            cluster: "c".parse().unwrap(),
            to: node("b"),
            kind: Kind::File,
            name: "größe.txt".into(),
            total: Some(77),
            k: 3,
            n: 5,
            segment: 1024,
            low: (3, 3072),
            expires_ms: 9,
            source: Bytes::from_static(b"somewhere"),
            group: Vec::new(),
        };
        let to_several = Sending {
            group: vec![
                (node("b"), Fate::Open),
                (node("c"), Fate::Reached),
                (node("d"), Fate::Failed("it was away".into())),
            ],
            ..sending.clone()
        };
        let spread = SpreadRecord {
            transfer: id(1),
            to: node("b"),
            number: 4,
            octets: 1024,
            safe: true,
            holders: vec![node("c"), node("d")],
            open: Vec::new(),
        };
        let spread_to_several = SpreadRecord {
            open: vec![node("b"), node("e")],
            ..spread.clone()
        };
        assert_eq!(spread.awaited(), [node("b")]);
        assert_eq!(spread_to_several.awaited(), spread_to_several.open);
        let arriving = Arriving {
            kind: Kind::Octets,
            name: String::new(),
            total: None,
            next: (2, 2048),
            expires_ms: 12,
            whole: Some([7; 32]),
        };
        for sending in [&sending, &to_several] {
            assert_eq!(Sending::read(sending.emit()), Some(sending.clone()));
            for cut in 0..sending.emit().len() {
                assert_eq!(Sending::read(sending.emit().slice(..cut)), None);
            }
        }
        for spread in [&spread, &spread_to_several] {
            assert_eq!(SpreadRecord::read(spread.emit()), Some(spread.clone()));
            for cut in 0..spread.emit().len() {
                assert_eq!(SpreadRecord::read(spread.emit().slice(..cut)), None);
            }
        }
        assert_eq!(Arriving::read(arriving.emit()), Some(arriving.clone()));
        for end in [End::Failed, End::Handed, End::Taken] {
            assert_eq!(End::read(end.emit(5)), Some((5, end)));
        }
        for cut in 0..arriving.emit().len() {
            assert_eq!(Arriving::read(arriving.emit().slice(..cut)), None);
        }
        let mut longer = spread.emit().to_vec();
        longer.push(0);
        assert_eq!(SpreadRecord::read(longer.into()), None);
    }
}
