use super::*;
use proptest::prelude::*;

use crate::header::HEADER_LEN;

fn source() -> NodeId {
    "@0123456789abcde".parse().unwrap()
}

fn dest() -> NodeId {
    "Bob-0123456789ab".parse().unwrap()
}

fn header(kind: PacketType, flow: FlowId) -> Header {
    let mut header = Header::new(kind, source(), dest(), flow);
    header.session = 0x1122_3344;
    header.packet_number = 0xaabb_ccdd;
    header.flags = Flags::FINAL | Flags::KEY_PHASE;
    header
}

fn share() -> FlowId {
    FlowId::new(
        "mid_000000000001".parse().unwrap(),
        ShareIndex::new(300).unwrap(),
    )
}

fn emitted(header: &Header) -> Vec<u8> {
    let mut out = [0xee; MAX_COMPACT_LEN];
    let len = header.emit_compact(&mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn golden_segment() {
    let mut header = header(PacketType::Data, share());
    header.seq = Seq(0x0102);
    let octets = b"\x98\x81\x11\x22\x33\x44\xaa\xbb\xcc\xddmid_000000000001\x01\x2c\x01\x02";
    assert_eq!(emitted(&header), octets);
    assert_eq!(
        Header::parse_compact(octets, source(), dest()),
        Some((header, octets.len()))
    );
}

#[test]
fn golden_acknowledgment_and_datagram() {
    let mut ack = header(PacketType::Ack, FlowId::CONTROL);
    (ack.ack, ack.window) = (Seq(0x0304), 0x0506);
    let octets = b"\xa0\x81\x11\x22\x33\x44\xaa\xbb\xcc\xdd\x03\x04\x05\x06";
    assert_eq!(emitted(&ack), octets);
    let datagram = header(PacketType::Datagram, FlowId::CONTROL);
    assert_eq!(
        emitted(&datagram),
        b"\xf0\x81\x11\x22\x33\x44\xaa\xbb\xcc\xdd"
    );
}

#[test]
fn a_full_header_is_told_from_a_compact_one_by_its_first_octet() {
    let mut full = [0; HEADER_LEN];
    header(PacketType::Data, share()).emit(0, &mut full);
    assert!(!is_compact(&full) && session_of(&full).is_none());
    assert_eq!(Header::parse_compact(&full, source(), dest()), None);
    let compact = emitted(&header(PacketType::Fin, share()));
    assert!(is_compact(&compact));
    assert_eq!(session_of(&compact), Some(0x1122_3344));
    assert!(!is_compact(&[]) && session_of(&compact[..5]).is_none());
}

#[test]
fn what_the_compact_form_does_not_say_is_not_left_out() {
    let mut out = [0; MAX_COMPACT_LEN];
    assert_eq!(
        header(PacketType::Syn, FlowId::CONTROL).emit_compact(&mut out),
        None
    );
    let mut data = header(PacketType::Data, share());
    data.window = 1;
    assert_eq!(data.emit_compact(&mut out), None);
    let mut heartbeat = header(PacketType::Heartbeat, FlowId::CONTROL);
    heartbeat.seq = Seq(1);
    assert_eq!(heartbeat.emit_compact(&mut out), None);
    let mut checked = header(PacketType::Data, share());
    checked.flags = Flags::CHECKSUM;
    assert_eq!(checked.emit_compact(&mut out), None);
}

#[test]
fn other_forms_are_refused() {
    let octets = emitted(&header(PacketType::Data, share()));
    let with = |at: usize, octet: u8| {
        let mut octets = octets.clone();
        octets[at] = octet;
        Header::parse_compact(&octets, source(), dest())
    };
    assert!(with(0, octets[0]).is_some());
    for (at, octet, what) in [
        (0, octets[0] & !MARK, "no mark"),
        (0, octets[0] | 1, "a reserved bit"),
        (0, MARK | HAS_FLOW, "type 0"),
        (0, MARK | HAS_FLOW | 4 << 4, "a SYN"),
        (1, 4, "a checksum"),
        (26, 0xff, "an index above 9,999"),
        (10, 0x07, "an id that is none"),
    ] {
        assert_eq!(with(at, octet), None, "{what}");
    }
    let mut control = octets.clone();
    control[10..28].fill(0);
    assert_eq!(
        Header::parse_compact(&control, source(), dest()),
        None,
        "the control flow is not named"
    );
    for len in 0..octets.len() {
        assert_eq!(
            Header::parse_compact(&octets[..len], source(), dest()),
            None
        );
    }
}

proptest! {
    #[test]
    fn the_header_that_was_shortened_comes_back(
        kind in prop::sample::select(&PacketType::ALL[..]),
        flow in any::<bool>(),
        numbers: (u32, u32, u16, u16, u16),
        flags: u8,
        rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut header = header(kind, if flow { share() } else { FlowId::CONTROL });
        (header.session, header.packet_number) = (numbers.0, numbers.1);
        header.flags = Flags::from_bits(flags);
        match kind {
            PacketType::Data => header.seq = Seq(numbers.2),
            PacketType::Ack | PacketType::Nak => {
                (header.ack, header.window) = (Seq(numbers.3), numbers.4);
            }
            _ => {}
        }
        let mut out = [0; MAX_COMPACT_LEN];
        let fits = kind != PacketType::Syn && !header.flags.contains(Flags::CHECKSUM);
        let len = header.emit_compact(&mut out);
        prop_assert_eq!(len, compact_len(kind, flow).filter(|_| fits));
        if let Some(len) = len {
            let octets = [&out[..len], &rest[..]].concat();
            prop_assert_eq!(
                Header::parse_compact(&octets, source(), dest()),
                Some((header, len))
            );
        }
    }

    #[test]
    fn what_is_read_is_written_the_same(octets in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some((header, len)) = Header::parse_compact(&octets, source(), dest()) {
            prop_assert_eq!(&emitted(&header)[..], &octets[..len]);
        }
    }
}
