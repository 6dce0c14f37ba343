use super::*;
use alloc::format;
use alloc::string::ToString as _;
use proptest::prelude::*;

use crate::error::{IdError, ShareIndexError};

/// A header with a different value in every field.
const GOLDEN: &[u8; HEADER_LEN] = b"VMDT1.0\0\
    client_12345\0\0\0\0\
    Bob-0123456789ab\
    mid_000000000001\
    0003\
    \x11\x22\x33\x44\
    \x01\x02\x03\x04\x01\x83\x05\x06\x00\x00\x00\x07\xaa\xbb\xcc\xdd";

fn golden_header() -> Header {
    Header {
        source: "client_12345".parse().unwrap(),
        dest: "Bob-0123456789ab".parse().unwrap(),
        flow: FlowId::new(
            "mid_000000000001".parse().unwrap(),
            ShareIndex::new(3).unwrap(),
        ),
        session: 0x1122_3344,
        seq: Seq(0x0102),
        ack: Seq(0x0304),
        kind: PacketType::Data,
        flags: Flags::FINAL | Flags::RETRANSMIT | Flags::from_bits(0x80),
        window: 0x0506,
        packet_number: 0xaabb_ccdd,
    }
}

fn with(offset: usize, octets: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = *GOLDEN;
    header[offset..offset + octets.len()].copy_from_slice(octets);
    header
}

#[test]
fn every_field_stands_where_the_table_says() {
    let parsed = Header::parse(GOLDEN).unwrap();
    assert_eq!(
        parsed,
        ParsedHeader {
            header: golden_header(),
            payload_len: 7,
            checksum: 0
        }
    );
    let mut out = [0xee; HEADER_LEN];
    golden_header().emit(7, &mut out);
    assert_eq!(out, *GOLDEN);
}

#[test]
fn every_packet_type_has_its_octet() {
    let table = [
        (1, PacketType::Data),
        (2, PacketType::Ack),
        (3, PacketType::Nak),
        (4, PacketType::Syn),
        (5, PacketType::Fin),
        (6, PacketType::Heartbeat),
        (7, PacketType::Datagram),
    ];
    for (octet, kind) in table {
        let datagram = with(68, &[octet]);
        let parsed = Header::parse(&datagram).unwrap();
        assert_eq!(parsed.header.kind, kind);
        let mut out = [0; HEADER_LEN];
        parsed.header.emit(7, &mut out);
        assert_eq!(out, datagram);
    }
    assert_eq!(table.map(|(_, kind)| kind), PacketType::ALL);
    for octet in (8..=255).chain([0]) {
        assert_eq!(
            Header::parse(&with(68, &[octet])),
            Err(PacketError::UnknownType {
                offset: 68,
                found: octet
            }),
        );
    }
}

#[test]
fn ack_of_deployed_software_with_empty_ids() {
    let mut datagram = [0; HEADER_LEN];
    datagram[..8].copy_from_slice(b"VMDT1.0\0");
    datagram[56..60].copy_from_slice(b"000\0");
    datagram[68] = 2;
    let header = Header::parse(&datagram).unwrap().header;
    assert_eq!(
        header,
        Header::new(
            PacketType::Ack,
            NodeId::EMPTY,
            NodeId::EMPTY,
            FlowId::CONTROL
        )
    );
}

#[test]
fn rejects_truncated_header_and_names_the_field_it_ends_in() {
    for len in 0..HEADER_LEN {
        let error = Header::parse(&GOLDEN[..len]).unwrap_err();
        let PacketError::Truncated {
            offset,
            found,
            needed,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert!(offset <= len && found == len && needed == HEADER_LEN);
    }
    let ends = [
        (0, "magic"),
        (3, "magic"),
        (4, "version"),
        (59, "share index"),
        (60, "session id"),
    ];
    for (len, field) in ends {
        assert_eq!(Header::parse(&GOLDEN[..len]).unwrap_err().field(), field);
    }
    assert_eq!(
        Header::parse(&GOLDEN[..69]).unwrap_err().to_string(),
        "datagram of 69 octets ends inside flags at octet 69, the headers need 80",
    );
}

#[test]
fn rejects_each_malformed_field_by_name_and_offset() {
    let table: [(usize, &[u8], &str, usize); 7] = [
        (0, b"VMDU", "magic", 0),
        (4, b"1.1\0", "version", 4),
        (8, b"a|b", "source id", 8),
        (24, b"a\0b", "destination id", 24),
        (40, b"a b", "message id", 40),
        (56, b"00x1", "share index", 56),
        (74, &[0x05, 0xc1], "payload length", 74),
    ];
    for (at, octets, field, offset) in table {
        let error = Header::parse(&with(at, octets)).unwrap_err();
        assert_eq!((error.field(), error.offset()), (field, offset), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(field) && text.contains(&format!("octet {offset}")),
            "{text}"
        );
    }
    assert_eq!(
        Header::parse(&with(8, b"a|b")),
        Err(PacketError::BadId {
            field: "source id",
            offset: 8,
            cause: IdError::BadOctet {
                offset: 1,
                octet: b'|',
                allowed: "printable ASCII without blank and | / % : , ~",
            },
        }),
    );
    assert_eq!(
        Header::parse(&with(56, b"\0\0\0\0")),
        Err(PacketError::BadShareIndex {
            offset: 56,
            cause: ShareIndexError::BadField { found: [0; 4] },
        }),
    );
}

#[test]
fn longest_payload_is_accepted_and_one_more_is_not() {
    let longest = (MAX_PAYLOAD as u16).to_be_bytes();
    assert_eq!(
        Header::parse(&with(74, &longest)).unwrap().payload_len,
        1_472
    );
    assert_eq!(
        Header::parse(&with(74, &1_473_u16.to_be_bytes())),
        Err(PacketError::PayloadTooLong {
            offset: 74,
            found: 1_473,
            allowed: 1_472
        }),
    );
}

#[test]
fn unknown_flags_survive() {
    for bits in 0..=255 {
        assert_eq!(
            Header::parse(&with(69, &[bits]))
                .unwrap()
                .header
                .flags
                .bits(),
            bits
        );
    }
    let flags = Flags::FINAL | Flags::from_bits(0x40);
    assert_eq!(format!("{flags:?}"), "Flags(FINAL|0x40)");
    assert_eq!(format!("{:?}", Flags::NONE), "Flags()");
    assert!(flags.contains(Flags::FINAL) && !flags.contains(Flags::FINAL | Flags::CHECKSUM));
    assert_eq!(flags.without(Flags::FINAL), Flags::from_bits(0x40));
}

fn any_header() -> impl Strategy<Value = Header> {
    let id = || {
        prop_oneof![
            Just(NodeId::EMPTY),
            "[A-Za-z0-9_.!-]{1,16}".prop_map(|text| {
                let mut field = [0; 16];
                field[..text.len()].copy_from_slice(text.as_bytes());
                NodeId::from_field(field).unwrap()
            })
        ]
    };
    let flow = (any::<[u8; 12]>(), 0_u16..=9_999).prop_map(|(random, index)| {
        FlowId::new(
            MessageId::from_random(random),
            ShareIndex::new(index).unwrap(),
        )
    });
    let numbers = any::<(u32, u16, u16, u8, u16, u32)>();
    (
        id(),
        id(),
        flow,
        prop::sample::select(&PacketType::ALL[..]),
        numbers,
    )
        .prop_map(
            |(source, dest, flow, kind, (session, seq, ack, flags, window, packet_number))| {
                Header {
                    source,
                    dest,
                    flow,
                    session,
                    seq: Seq(seq),
                    ack: Seq(ack),
                    kind,
                    flags: Flags::from_bits(flags),
                    window,
                    packet_number,
                }
            },
        )
}

proptest! {
    #[test]
    fn parse_undoes_emit(header in any_header(), payload_len in 0..=MAX_PAYLOAD as u16) {
        let mut out = [0; HEADER_LEN];
        header.emit(payload_len, &mut out);
        prop_assert_eq!(Header::parse(&out), Ok(ParsedHeader { header, payload_len, checksum: 0 }));
    }

    #[test]
    fn emit_undoes_parse_of_canonical_octets(
        tail: [u8; 20],
        index in 0_u16..=9_999,
        kind in 1_u8..=6,
    ) {
        let mut datagram = *GOLDEN;
        datagram[60..].copy_from_slice(&tail);
        datagram[56..60].copy_from_slice(format!("{index:04}").as_bytes());
        datagram[68] = kind;
        datagram[72..75].fill(0);
        let parsed = Header::parse(&datagram).unwrap();
        let mut out = [0; HEADER_LEN];
        parsed.header.emit(parsed.payload_len, &mut out);
        prop_assert_eq!(out, datagram);
    }

    #[test]
    fn octets_of_any_kind_never_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Header::parse(&octets);
    }

    #[test]
    fn damaged_headers_never_panic_and_errors_point_inside(
        damage in prop::collection::vec((0..HEADER_LEN, any::<u8>()), 1..8),
    ) {
        let mut datagram = *GOLDEN;
        for (at, octet) in damage {
            datagram[at] = octet;
        }
        if let Err(error) = Header::parse(&datagram) {
            prop_assert!(error.offset() < HEADER_LEN);
        }
    }
}
