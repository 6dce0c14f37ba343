//! How records look on disk. The first octet of each is its format; numbers are big-endian.

use core::num::NonZeroU8;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::announcement::{Announcement, Placement};

/// The format of every record written here.
const FORMAT: u8 = 1;

/// Writes fields one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Writer(vec![FORMAT])
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn node(&mut self, node: NodeId) {
        self.0.extend(node.field());
    }

    /// Octets after their length.
    pub(crate) fn octets(&mut self, octets: &[u8]) {
        // Everything kept is bounded far below 4 GiB.
        self.u32(u32::try_from(octets.len()).unwrap_or(u32::MAX));
        self.0.extend(octets);
    }

    /// Nodes after their number.
    pub(crate) fn nodes(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        let nodes: Vec<_> = nodes.into_iter().collect();
        self.u32(u32::try_from(nodes.len()).unwrap_or(u32::MAX));
        nodes.into_iter().for_each(|node| self.node(node));
    }

    /// Indices after their number.
    pub(crate) fn indices(&mut self, indices: impl IntoIterator<Item = NonZeroU8>) {
        let indices: Vec<u8> = indices.into_iter().map(NonZeroU8::get).collect();
        self.octets(&indices);
    }

    pub(crate) fn announcement(&mut self, ann: &Announcement) {
        self.0.extend(ann.message.field());
        self.node(ann.sender);
        self.node(ann.receiver);
        self.u8(ann.n);
        self.u8(ann.k);
        self.u8(ann.content);
        self.u8(u8::from(ann.sealed));
        self.u32(ann.version);
        self.octets(ann.label.as_bytes());
        self.octets(&ann.details);
        self.nodes(ann.group.iter().copied());
        self.u8(u8::try_from(ann.shares.len()).unwrap_or(u8::MAX));
        for share in &ann.shares {
            self.u8(share.index.get());
            self.u8(u8::from(share.active));
            self.node(share.holder);
            self.0.extend(share.digest);
        }
    }

    pub(crate) fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// Reads fields one after the other; `None` when they are not what the format says.
#[derive(Debug, Clone)]
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(record: Bytes) -> Option<Self> {
        let mut reader = Reader(record);
        (reader.u8()? == FORMAT).then_some(reader)
    }

    fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn node(&mut self) -> Option<NodeId> {
        NodeId::from_field(self.array()?).ok()
    }

    pub(crate) fn index(&mut self) -> Option<NonZeroU8> {
        NonZeroU8::new(self.u8()?)
    }

    pub(crate) fn octets(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    pub(crate) fn nodes(&mut self) -> Option<Vec<NodeId>> {
        let count = usize::try_from(self.u32()?).ok()?;
        // The number is checked against what is there before it sizes anything.
        (count.checked_mul(16)? <= self.0.len()).then_some(())?;
        (0..count).map(|_| self.node()).collect()
    }

    pub(crate) fn indices(&mut self) -> Option<Vec<NonZeroU8>> {
        let octets = self.octets()?;
        octets.iter().map(|octet| NonZeroU8::new(*octet)).collect()
    }

    pub(crate) fn announcement(&mut self) -> Option<Announcement> {
        let message = MessageId::from_field(self.array()?).ok()?;
        let (sender, receiver) = (self.node()?, self.node()?);
        let (n, k, content) = (self.u8()?, self.u8()?, self.u8()?);
        let (sealed, version) = (self.flag()?, self.u32()?);
        let label = String::from_utf8(self.octets()?.to_vec()).ok()?;
        let details = Bytes::copy_from_slice(&self.octets()?);
        let group = self.nodes()?;
        let count = self.u8()?;
        let shares = (0..count)
            .map(|_| {
                let (index, active) = (self.index()?, self.flag()?);
                Some(Placement {
                    index,
                    active,
                    holder: self.node()?,
                    digest: self.array()?,
                })
            })
            .collect::<Option<_>>()?;
        let ann = Announcement {
            message,
            sender,
            receiver,
            n,
            k,
            shares,
            label,
            content,
            version,
            details,
            sealed,
            group,
        };
        ann.check().is_ok().then(|| ann.sorted())
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Announcement {
        let node = |name: &str| name.parse::<NodeId>().unwrap();
        let at = |i: u8| Placement {
            index: NonZeroU8::new(i).unwrap(),
            holder: node("carol"),
            digest: [i; 16],
            active: i == 1,
        };
        Announcement::new(
            MessageId::from_random([7; 12]),
            node("alice"),
            node("bob"),
            2,
        )
        .with_shares(5, vec![at(1), at(2)])
        .with_version(9)
        .with_label("t1", 3)
        .with_details(Bytes::from("manifest"))
        .with_sealed(true)
        .with_group([node("dave"), node("erin")])
    }

    fn written() -> Bytes {
        let mut writer = Writer::new();
        writer.announcement(&sample());
        writer.u64(77);
        writer.indices([NonZeroU8::new(4).unwrap()]);
        writer.finish()
    }

    fn read(record: Bytes) -> Option<Announcement> {
        let mut reader = Reader::new(record)?;
        let ann = reader.announcement()?;
        (reader.u64()? == 77).then_some(())?;
        reader.indices()?;
        reader.finish()?;
        Some(ann)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(read(written()), Some(sample()));
    }

    #[test]
    fn the_format_on_disk_does_not_change_unnoticed() {
        let start: Vec<u8> = [
            &[1][..],
            b"BwcHBwcHBwcHBwcH",
            b"alice\0\0\0\0\0\0\0\0\0\0\0",
            b"bob\0\0\0\0\0\0\0\0\0\0\0\0\0",
            &[5, 2, 3, 1, 0, 0, 0, 9],
            &[0, 0, 0, 2],
            b"t1",
            &[0, 0, 0, 8],
            b"manifest",
            &[0, 0, 0, 2],
        ]
        .concat();
        assert_eq!(written()[..start.len()], start);
        assert_eq!(written().len(), start.len() + 32 + 1 + 2 * 34 + 8 + 5);
    }

    #[test]
    fn a_record_that_is_cut_longer_or_of_another_format_is_refused() {
        let good = written();
        for len in 0..good.len() {
            assert_eq!(read(good.slice(..len)), None, "{len}");
        }
        assert_eq!(read([&good[..], &[0]].concat().into()), None);
        let mut other = good.to_vec();
        other[0] = 2;
        assert_eq!(read(other.into()), None);
    }

    #[test]
    fn a_huge_count_sizes_nothing() {
        let mut writer = Writer::new();
        writer.u32(u32::MAX);
        assert_eq!(Reader::new(writer.finish()).unwrap().nodes(), None);
    }
}
