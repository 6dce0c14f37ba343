use super::*;
use alloc::vec;
use proptest::prelude::*;

use crate::header::PacketType;
use crate::id::{FlowId, MessageId, NodeId, ShareIndex};

fn header(flags: Flags) -> Header {
    let source = "alice".parse().unwrap();
    let dest = "bob".parse().unwrap();
    let flow = FlowId::new("m1".parse().unwrap(), ShareIndex::new(2).unwrap());
    Header {
        flags,
        ..Header::new(PacketType::Data, source, dest, flow)
    }
}

fn emit(packet: &Packet) -> Vec<u8> {
    let mut out = Vec::new();
    packet.emit_into(&mut out);
    out
}

const GOLDEN: &[u8; 85] = b"VMDT1.0\0\
    alice\0\0\0\0\0\0\0\0\0\0\0\
    bob\0\0\0\0\0\0\0\0\0\0\0\0\0\
    m1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    0002\
    \0\0\0\0\
    \0\0\0\0\x01\x04\0\0\xfd\x80\0\x05\0\0\0\0\
    hello";

#[test]
fn golden_packet_with_checksum() {
    let packet = Packet::new(header(Flags::CHECKSUM), Bytes::from_static(b"hello"));
    assert_eq!(emit(&packet), GOLDEN);
    assert_eq!(Packet::parse(Bytes::from_static(GOLDEN)), Ok(packet));
}

#[test]
fn debug_shows_no_payload() {
    let packet = Packet::parse(Bytes::from_static(GOLDEN)).unwrap();
    let shown = alloc::format!("{packet:?}");
    assert!(
        shown.contains("5 octets") && !shown.contains("hello"),
        "{shown}"
    );
}

#[test]
fn emit_appends() {
    let packet = Packet::new(header(Flags::CHECKSUM), Bytes::from_static(b"hello"));
    let mut out = vec![1, 2, 3];
    packet.emit_into(&mut out);
    assert_eq!(out[..3], [1, 2, 3]);
    assert_eq!(out[3..], *GOLDEN);
}

#[test]
fn payload_and_trailer_share_the_datagram() {
    let mut octets = GOLDEN.to_vec();
    octets.extend_from_slice(b"tail");
    let datagram = Bytes::from(octets);
    let start = datagram.as_ptr() as usize;
    let packet = Packet::parse(datagram.clone()).unwrap();
    assert_eq!(packet.payload.as_ptr() as usize, start + 80);
    assert_eq!(packet.trailer.as_ptr() as usize, start + 85);
    assert_eq!(
        (&packet.payload[..], &packet.trailer[..]),
        (&b"hello"[..], &b"tail"[..])
    );
    assert_eq!(emit(&packet), datagram);
}

#[test]
fn rejects_payload_shorter_than_announced() {
    for len in HEADER_LEN..GOLDEN.len() {
        assert_eq!(
            Packet::parse(Bytes::copy_from_slice(&GOLDEN[..len])),
            Err(PacketError::PayloadTruncated {
                offset: 80,
                found: len - 80,
                needed: 5
            }),
        );
    }
}

#[test]
fn rejects_wrong_checksum_and_says_the_right_one() {
    let mut datagram = GOLDEN.to_vec();
    datagram[73] ^= 1;
    assert_eq!(
        Packet::parse(datagram.into()),
        Err(PacketError::BadChecksum {
            offset: 72,
            found: 0xfd81,
            expected: 0xfd80
        }),
    );
    let mut datagram = GOLDEN.to_vec();
    datagram[84] ^= 0x20;
    assert!(matches!(
        Packet::parse(datagram.into()),
        Err(PacketError::BadChecksum { .. })
    ));
}

#[test]
fn checksum_without_its_flag_is_ignored() {
    let mut datagram = GOLDEN.to_vec();
    datagram[69] = 0;
    datagram[72] = 0xff;
    assert!(Packet::parse(datagram.into()).is_ok());
}

#[test]
fn empty_payload_and_longest_payload() {
    for len in [0, MAX_PAYLOAD] {
        let packet = Packet::new(header(Flags::CHECKSUM), Bytes::from(vec![0x5a; len]));
        let datagram = emit(&packet);
        assert_eq!(datagram.len(), HEADER_LEN + len);
        assert_eq!(Packet::parse(datagram.into()), Ok(packet));
    }
}

#[test]
#[should_panic(expected = "payload of 1473 octets")]
fn payload_that_no_parser_accepts_is_a_bug_of_the_caller() {
    let packet = Packet::new(header(Flags::NONE), Bytes::from(vec![0; MAX_PAYLOAD + 1]));
    packet.emit_into(&mut Vec::new());
}

proptest! {
    #[test]
    fn parse_undoes_emit(
        flags: u8,
        random: [u8; 12],
        numbers: (u32, u16, u16, u16, u32),
        payload in prop::collection::vec(any::<u8>(), 0..=MAX_PAYLOAD),
        trailer in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut packet = Packet::new(header(Flags::from_bits(flags)), payload.into());
        packet.trailer = trailer.into();
        packet.header.flow.message = MessageId::from_random(random);
        packet.header.source = NodeId::EMPTY;
        packet.header.session = numbers.0;
        packet.header.seq = numbers.1.into();
        packet.header.ack = numbers.2.into();
        packet.header.window = numbers.3;
        packet.header.packet_number = numbers.4;
        let datagram = Bytes::from(emit(&packet));
        let parsed = Packet::parse(datagram.clone());
        prop_assert_eq!(parsed.as_ref(), Ok(&packet));
        prop_assert_eq!(emit(&packet), datagram);
    }

    #[test]
    fn octets_of_any_kind_never_panic(
        head in 0_usize..=85,
        damage in prop::collection::vec((0_usize..85, any::<u8>()), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let mut datagram = GOLDEN.to_vec();
        for (at, octet) in damage {
            datagram[at] = octet;
        }
        datagram.truncate(head);
        datagram.extend_from_slice(&tail);
        if let Ok(packet) = Packet::parse(datagram.into()) {
            prop_assert!(packet.payload.len() <= MAX_PAYLOAD);
        }
    }

    #[test]
    fn expected_checksum_is_the_one_that_verifies(damage in (0_usize..64, 1_u8..)) {
        let mut datagram = GOLDEN.to_vec();
        // The session id, sequence numbers and payload may hold anything.
        let at = [60, 61, 62, 63, 64, 65, 66, 67, 80, 81, 82, 83, 84][damage.0 % 13];
        datagram[at] ^= damage.1;
        let Err(PacketError::BadChecksum { expected, .. }) = Packet::parse(datagram.clone().into())
        else {
            panic!("a changed octet went unnoticed");
        };
        datagram[72..74].copy_from_slice(&expected.to_be_bytes());
        prop_assert!(Packet::parse(datagram.into()).is_ok());
    }
}
