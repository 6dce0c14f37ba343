//! Targets for the byte formats.

use bytes::Bytes;
use vmdt_wire::compact::{MAX_COMPACT_LEN, session_of};
use vmdt_wire::segment::{Ack, Fin, Nak, SYN_LEN, Syn};
use vmdt_wire::{
    EmitError, Flags, Framing, HEADER_LEN, Header, Line, LineFramer, LineTooLong, NodeId, Packet,
    PacketType, checksum,
};

/// Where a share index stands in a datagram; it has several spellings.
const SHARE_INDEX: std::ops::Range<usize> = 56..60;
/// Where the checksum stands; unflagged it holds anything.
const CHECKSUM: std::ops::Range<usize> = 72..74;

/// A datagram: what [`Packet::parse`] accepts comes out again as it went in, and so does a
/// payload that one of the segment parsers accepts.
///
/// The input is taken as it is, and once more with a checksum that is right, so that mutations
/// get past it.
pub fn udp_headers(data: &[u8]) {
    datagram(data);
    let mut mended = data.to_vec();
    // A payload length beyond the end makes a datagram that is refused either way.
    if mended.len() >= HEADER_LEN {
        checksum::fill(&mut mended);
        datagram(&mended);
    }
    compact(data);
    segments(data);
}

/// A compact header that is read is written the same.
fn compact(data: &[u8]) {
    let nobody = NodeId::EMPTY;
    let Some((header, len)) = Header::parse_compact(data, nobody, nobody) else {
        return;
    };
    let mut emitted = [0; MAX_COMPACT_LEN];
    assert_eq!(header.emit_compact(&mut emitted), Some(len));
    assert_eq!(emitted[..len], data[..len]);
    assert_eq!(session_of(data), Some(header.session));
}

fn datagram(data: &[u8]) {
    let packet = match Packet::parse(Bytes::copy_from_slice(data)) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(
        HEADER_LEN + packet.payload.len() + packet.trailer.len(),
        data.len(),
        "octets were lost or made up"
    );
    let mut emitted = Vec::new();
    packet.emit_into(&mut emitted);
    assert_eq!(emitted.len(), data.len());
    for (at, (ours, theirs)) in emitted.iter().zip(data).enumerate() {
        if !SHARE_INDEX.contains(&at) && !CHECKSUM.contains(&at) {
            assert_eq!(ours, theirs, "octet {at}");
        }
    }
    if emitted[SHARE_INDEX] == data[SHARE_INDEX] && packet.header.flags.contains(Flags::CHECKSUM) {
        // 0 and 0xffff are the same in one's complement arithmetic.
        let zero = |field: &[u8]| field == [0, 0] || field == [255, 255];
        let (ours, theirs) = (&emitted[CHECKSUM], &data[CHECKSUM]);
        assert!(
            ours == theirs || (zero(ours) && zero(theirs)),
            "{ours:?} {theirs:?}"
        );
    }
    let again = Packet::parse(Bytes::from(emitted.clone())).expect("what was emitted is accepted");
    assert_eq!(again, packet);
    let mut twice = Vec::new();
    again.emit_into(&mut twice);
    assert_eq!(twice, emitted, "emitting is not stable");

    let payload = &packet.payload;
    match packet.header.kind {
        PacketType::Data | PacketType::Heartbeat | PacketType::Datagram => {}
        PacketType::Syn => syn(payload),
        PacketType::Ack => ack(payload),
        PacketType::Nak => nak(payload),
        PacketType::Fin => fin(payload),
    }
}

fn segments(payload: &[u8]) {
    syn(payload);
    ack(payload);
    nak(payload);
    fin(payload);
}

fn syn(payload: &[u8]) {
    let Ok(syn) = Syn::parse(payload) else { return };
    let mut emitted = Vec::new();
    syn.emit_into(&mut emitted);
    let features = usize::from(payload.get(SYN_LEN).is_some_and(|octet| *octet != 0));
    assert_eq!(emitted, payload[..SYN_LEN + features]);
    assert_eq!(Syn::parse(&emitted), Ok(syn));
}

fn ack(payload: &[u8]) {
    let Ok(ack) = Ack::parse(payload) else { return };
    let mut emitted = Vec::new();
    ack.emit_into(&mut emitted);
    assert_eq!(emitted, payload);

    // Far enough from 0 that no range is cut off there.
    let ranges: Vec<_> = ack.ranges(1 << 40).collect();
    assert_eq!(ranges.len(), ack.blocks().len() + 1);
    for pair in ranges.windows(2) {
        assert!(pair[1].start() <= pair[1].end());
        assert!(*pair[1].end() + 1 < *pair[0].start(), "{ranges:?}");
    }
    let rebuilt = Ack::from_ranges(ack.delay_us, ack.session_window, ranges);
    // The counts of ECN are no part of the ranges.
    let rebuilt = rebuilt.map(|mut rebuilt| {
        rebuilt.ecn = ack.ecn;
        rebuilt
    });
    assert_eq!(rebuilt.as_ref(), Some(&ack));
    for near in [0, 1, u64::from(u32::MAX), u64::MAX] {
        assert!(ack.ranges(near).count() <= ack.blocks().len() + 1);
    }
}

fn nak(payload: &[u8]) {
    let Ok(nak) = Nak::parse(payload) else { return };
    let mut emitted = Vec::new();
    nak.emit_into(&mut emitted);
    assert_eq!(emitted, payload);
    assert_eq!(Nak::new(nak.holes().to_vec()), Ok(nak));
}

fn fin(payload: &[u8]) {
    let Ok(fin) = Fin::parse(payload) else { return };
    let mut emitted = Vec::new();
    fin.emit_into(&mut emitted);
    assert_eq!(emitted, payload);
    assert_eq!(Fin::new(fin.kind, fin.code, fin.reason()), fin);
}

/// A control line, as it stands and as the body of a line in slash form: what is accepted can be
/// written again, means the same then, and is written the same way ever after; in the other
/// framing it either means the same or is refused.
pub fn control_lines(data: &[u8]) {
    line(data);
    let mut slash = b"VMDT/TCP/1.0/".to_vec();
    slash.extend_from_slice(data);
    line(&slash);
}

fn line(data: &[u8]) {
    let line = match Line::parse(data) {
        Ok(line) => line,
        Err(error) => {
            assert!(error.offset <= data.len(), "{error}");
            assert!(!error.field.is_empty());
            let _ = error.code();
            return;
        }
    };
    assert_eq!(line.framing, Framing::of(data));
    match line.emit() {
        Ok(canonical) => {
            assert_eq!(
                canonical.iter().position(|octet| *octet == b'\n'),
                Some(canonical.len() - 1)
            );
            let again = Line::parse(&canonical).expect("a canonical line is accepted");
            assert_eq!(again, line);
            assert_eq!(again.emit(), Ok(canonical), "emitting is not stable");
        }
        // A separator at the end of a bar line can stand behind what would otherwise be stripped
        // or be a tag.
        Err(EmitError::EdgeBlank { .. } | EmitError::LooksLikeTag { .. }) => {
            assert_eq!(line.framing, Framing::Bar);
        }
        Err(error) => panic!("an accepted line can't be written: {error}"),
    }

    let mut other = line;
    other.framing = match other.framing {
        Framing::Bar => Framing::Slash,
        Framing::Slash => Framing::Bar,
    };
    let other = other.fitted();
    if let Ok(octets) = other.emit() {
        assert_eq!(Line::parse(&octets), Ok(other));
    }
}

/// The line framer against a plain split: whatever the pieces, the same lines, and never more
/// than a line buffered.
///
/// Input: the longest line allowed (2 octets), a count and as many sizes of pieces, the stream.
pub fn line_framer(data: &[u8]) {
    let Some(([high, low, count], rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let max = usize::from(u16::from_be_bytes([*high, *low]));
    let (sizes, stream) = rest.split_at(rest.len().min(usize::from(*count)));
    let expected = split(stream, max);

    let sizes: Vec<usize> = sizes.iter().map(|size| usize::from(*size) + 1).collect();
    assert_eq!(framed(stream, max, &sizes), expected, "pieces {sizes:?}");
    assert_eq!(framed(stream, max, &[1]), expected, "octet by octet");
    assert_eq!(framed(stream, max, &[]), expected, "at once");
}

type Lines = (Vec<Result<Vec<u8>, LineTooLong>>, Option<Vec<u8>>);

/// What a framer makes of a stream in pieces of these sizes, over and over.
fn framed(stream: &[u8], max: usize, sizes: &[usize]) -> Lines {
    let mut framer = LineFramer::new(max);
    let mut lines = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(rest.len());
        let (piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        framer.push(piece);
        while let Some(line) = framer.next_line() {
            lines.push(line);
        }
        assert!(framer.buffered() <= max, "{} buffered", framer.buffered());
    }
    assert_eq!(
        framer.is_poisoned(),
        lines.last().is_some_and(Result::is_err)
    );
    let last = framer.finish();
    assert_eq!(framer.buffered(), 0);
    (lines, last)
}

/// The same from the definition.
fn split(stream: &[u8], max: usize) -> Lines {
    let mut lines = Vec::new();
    let mut pieces: Vec<&[u8]> = stream.split(|octet| *octet == b'\n').collect();
    let unended = pieces.pop().unwrap_or_default();
    for piece in pieces {
        if piece.len() > max {
            lines.push(Err(LineTooLong { allowed: max }));
            return (lines, None);
        }
        lines.extend(content(piece).map(Ok));
    }
    if unended.len() > max {
        lines.push(Err(LineTooLong { allowed: max }));
        return (lines, None);
    }
    (lines, content(unended))
}

fn content(line: &[u8]) -> Option<Vec<u8>> {
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r');
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    (!line.iter().all(blank)).then(|| line.to_vec())
}
