//! What parsers allocate, counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use allocation_counter::measure;
use bytes::Bytes;
use vmdt_wire::segment::Ack;
use vmdt_wire::{
    Flags, FlowId, HEADER_LEN, Header, Line, LineErrorKind, NodeId, Packet, PacketType, checksum,
};

fn datagram(flags: Flags, payload: usize, trailer: usize) -> Bytes {
    let mut header = Header::new(
        PacketType::Data,
        NodeId::EMPTY,
        NodeId::EMPTY,
        FlowId::CONTROL,
    );
    header.flags = flags;
    let mut packet = Packet::new(header, Bytes::from(vec![7; payload]));
    packet.trailer = Bytes::from(vec![8; trailer]);
    let mut out = Vec::new();
    packet.emit_into(&mut out);
    Bytes::from(out)
}

#[test]
fn a_packet_is_taken_apart_without_allocating() {
    for trailer in [0, 16] {
        // A `Bytes` made from a `Vec` allocates its reference count when it is first shared,
        // which the caller does once per receive buffer.
        let datagram = datagram(Flags::CHECKSUM, 1_392, trailer);
        let kept = datagram.clone();
        let mut parsed = None;
        let info = measure(|| parsed = Some(Packet::parse(datagram)));
        assert_eq!(info.count_total, 0);
        assert_eq!(parsed.unwrap().unwrap().payload.len(), 1_392);
        drop(kept);
    }
}

#[test]
fn a_damaged_packet_is_refused_without_allocating() {
    let mut damaged = datagram(Flags::CHECKSUM, 100, 0).to_vec();
    damaged[90] ^= 1;
    let damaged = Bytes::from(damaged);
    let info = measure(|| assert!(Packet::parse(damaged).is_err()));
    assert_eq!(info.count_total, 0);
}

#[test]
fn a_datagram_is_written_in_place_without_allocating() {
    let header = Header::parse(&datagram(Flags::CHECKSUM, 0, 0))
        .unwrap()
        .header;
    let mut out = vec![0; HEADER_LEN + 1_392];
    let info = measure(|| {
        header.emit(1_392, out.first_chunk_mut().unwrap());
        checksum::fill(&mut out);
    });
    assert_eq!(info.count_total, 0);
    assert!(checksum::verify(&out));
}

#[test]
fn an_ack_of_one_range_does_not_allocate() {
    let mut payload = Vec::new();
    Ack::new(0, 0, 9, 3, vec![])
        .unwrap()
        .emit_into(&mut payload);
    let info = measure(|| assert_eq!(Ack::parse(&payload).unwrap().first(), 3));
    assert_eq!(info.count_total, 0);
}

#[test]
fn twenty_thousand_parameters_are_refused_without_allocating() {
    for line in [
        format!("CLUSTER_MEMBERS{}", "|a".repeat(20_000)),
        format!("VMDT/TCP/1.0/CLUSTER_MEMBERS{}", "/a".repeat(20_000)),
        format!("OK{}", "|".repeat(20_000)),
    ] {
        let info = measure(|| {
            let error = Line::parse(line.as_bytes()).unwrap_err();
            assert_eq!(
                error.kind,
                LineErrorKind::TooMany {
                    found: 20_000,
                    allowed: 300
                }
            );
        });
        assert_eq!(info.count_total, 0);
    }
}

#[test]
fn a_line_allocates_no_more_than_a_small_multiple_of_its_length() {
    let shares = "|0:".repeat(255);
    let long = "A".repeat(60_000);
    for line in [
        format!("SHARE_POOL_ADD|m|a|b|5|3|TEXT|{shares}"),
        format!("SHARE_POOL_ADD|m|a|b|5|3|TEXT||0:{long}|1:{long}"),
        format!("VMDT/TCP/1.0/SEND_MESSAGE/a/b/{}", "%41".repeat(20_000)),
        format!("CLUSTER_LIST{}", "|c:a:5:3:2:1".repeat(300)),
    ] {
        let info = measure(|| assert!(Line::parse(line.as_bytes()).is_ok()));
        assert!(
            info.bytes_max < 32 * line.len() as u64,
            "{info:?} for {}",
            line.len()
        );
    }
}
