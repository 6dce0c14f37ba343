//! How fast headers and control lines are read and written.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vmdt_wire::segment::{Ack, AckBlock};
use vmdt_wire::{
    ContentType, Flags, FlowId, Framing, HEADER_LEN, Header, Line, LineFramer, Message, MessageId,
    Packet, PacketType, RELAY_MAX_LINE, Seq, ShareEntry, ShareIndex, SharePoolAdd, checksum,
};

/// The payload of a packet on a link of 1,500 octets.
const PAYLOAD: usize = 1_392;

fn header(flags: Flags) -> Header {
    let flow = FlowId::new(
        MessageId::from_random([0x5a; 12]),
        ShareIndex::new(3).unwrap(),
    );
    let (source, dest) = (
        "client_12345".parse().unwrap(),
        "client_67890".parse().unwrap(),
    );
    Header {
        session: 0x1122_3344,
        seq: Seq(7),
        ack: Seq(3),
        flags,
        window: 512,
        packet_number: 12_345,
        ..Header::new(PacketType::Data, source, dest, flow)
    }
}

fn datagrams(c: &mut Criterion) {
    let plain = header(Flags::NONE);
    let mut out = [0; HEADER_LEN];
    let mut group = c.benchmark_group("header");
    group.bench_function("emit", |b| {
        b.iter(|| black_box(&plain).emit(1_392, black_box(&mut out)))
    });
    group.bench_function("parse", |b| b.iter(|| Header::parse(black_box(&out))));
    group.finish();

    let mut group = c.benchmark_group("packet");
    group.throughput(Throughput::Bytes((HEADER_LEN + PAYLOAD) as u64));
    for (name, flags) in [("plain", Flags::NONE), ("checksum", Flags::CHECKSUM)] {
        let packet = Packet::new(header(flags), Bytes::from(vec![0x5a; PAYLOAD]));
        let mut datagram = Vec::with_capacity(HEADER_LEN + PAYLOAD);
        packet.emit_into(&mut datagram);
        let shared = Bytes::from(datagram.clone());
        group.bench_function(format!("parse/{name}"), |b| {
            b.iter(|| Packet::parse(black_box(shared.clone())))
        });
        group.bench_function(format!("emit/{name}"), |b| {
            b.iter(|| {
                datagram.clear();
                black_box(&packet).emit_into(&mut datagram);
            });
        });
    }
    let mut datagram = vec![0x5a; HEADER_LEN + PAYLOAD];
    header(Flags::CHECKSUM).emit(PAYLOAD as u16, datagram.first_chunk_mut().unwrap());
    group.bench_function("checksum", |b| {
        b.iter(|| checksum::fill(black_box(&mut datagram)))
    });
    group.finish();
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("ack");
    for ranges in [1, 64] {
        let ack = Ack::new(
            25,
            1 << 20,
            9_999,
            7,
            vec![AckBlock { gap: 1, len: 2 }; ranges - 1],
        )
        .unwrap();
        let mut payload = Vec::new();
        ack.emit_into(&mut payload);
        group.bench_function(format!("parse/{ranges}"), |b| {
            b.iter(|| Ack::parse(black_box(&payload)))
        });
        group.bench_function(format!("emit/{ranges}"), |b| {
            b.iter(|| {
                payload.clear();
                black_box(&ack).emit_into(&mut payload);
            });
        });
    }
    group.finish();
}

fn messages() -> [(&'static str, Message); 4] {
    let node = |text: &str| text.parse().unwrap();
    let add = |shares| {
        Message::SharePoolAdd(SharePoolAdd {
            message: MessageId::from_random([7; 12]).into(),
            sender: node("client_12345"),
            receiver: node("client_67890"),
            total: 5,
            active: 3,
            content: ContentType::File,
            filename: "report 2024/25.pdf".replace('/', "-"),
            version: 0,
            details: Vec::new(),
            shares,
        })
    };
    let placed = |index| ShareEntry::Placed {
        index,
        holder: node("client_1"),
        digest: [9; 16],
    };
    // Shares look random, so one base64 character in 64 is a slash.
    let noise: Vec<u8> = (0_u32..4_096)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect();
    let inline = |index| ShareEntry::Inline {
        index,
        share: noise.clone(),
    };
    [
        (
            "create_cluster",
            Message::CreateCluster {
                client: node("client_12345"),
                n: 5,
                k: 3,
                options: None,
            },
        ),
        (
            "send_message",
            Message::SendMessage {
                client: node("client_12345"),
                target: node("client_67890"),
                text: "Sixty-four octets of text with a slash / and a percent sign: 5%.".into(),
            },
        ),
        ("share_pool_add/placed", add((1..=5).map(placed).collect())),
        ("share_pool_add/inline", add((0..5).map(inline).collect())),
    ]
}

fn control(c: &mut Criterion) {
    for (framing, form) in [(Framing::Bar, "bar"), (Framing::Slash, "slash")] {
        let mut group = c.benchmark_group(format!("control/{form}"));
        for (name, message) in messages() {
            let line = Line {
                framing,
                tag: None,
                message,
            };
            let octets = line.emit().unwrap();
            group.throughput(Throughput::Bytes(octets.len() as u64));
            group.bench_function(format!("parse/{name}"), |b| {
                b.iter(|| Line::parse(black_box(&octets)))
            });
            group.bench_function(format!("emit/{name}"), |b| {
                b.iter(|| black_box(&line).emit())
            });
        }
        group.finish();
    }

    let stream = b"JOIN_CLUSTER|client_12345|cluster_12345\n".repeat(1_000);
    let mut group = c.benchmark_group("framer");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    for size in [1, 1_400, stream.len()] {
        group.bench_function(format!("pieces_of_{size}"), |b| {
            b.iter(|| {
                let mut framer = LineFramer::new(RELAY_MAX_LINE);
                let mut lines = 0;
                for piece in stream.chunks(size) {
                    framer.push(black_box(piece));
                    while framer.next_line().is_some() {
                        lines += 1;
                    }
                }
                lines
            });
        });
    }
    group.finish();
}

criterion_group!(benches, datagrams, segments, control);
criterion_main!(benches);
