//! Inputs to begin from: small, valid, and of every kind that a target tells apart.

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_ssms::{Threshold, split_slice};
use vmdt_testkit::SimRng;
use vmdt_wire::segment::{Ack, AckBlock, Fin, FinKind, Hole, Nak, Syn, SynKind};
use vmdt_wire::{Flags, FlowId, Header, MessageId, NodeId, Packet, PacketType, Seq, ShareIndex};

/// Lines of all types in the bar form, whose parameters are also those of the slash form.
const LINES: [&str; 31] = [
    "CREATE_CLUSTER|client_12345|5|3",
    "CREATE_CLUSTER|client_12345|5|3|open=1,max=8|~7",
    "JOIN_CLUSTER|client_12345|cluster_12345",
    "LEAVE_CLUSTER|client_12345",
    "LEAVE_CLUSTER|client_12345|c1",
    "LIST_CLUSTERS|client_12345|~4294967295",
    "GET_CLUSTER_MEMBERS|client_12345|c1",
    "REGISTER_P2P_PORT|client_12345|40001",
    "REGISTER_P2P_PORT|client_12345|40001|rdt",
    "GET_CLIENT_INFO|client_1|client_2",
    "SEND_MESSAGE|client_1|client_2|hello there",
    "MESSAGE_SHARE|client_1|client_2|client_3|2|AQIDBA==",
    "MESSAGE_RECEIVED|client_1_client_2_1700000000",
    "SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|0:AQ==|1:AQI",
    "SHARE_POOL_ADD|m1|client_1|client_2|5|3|FILE|photo.jpg|0:AQ==|4:AQI=",
    "SHARE_POOL_ADD|m1|a|b|5|3|STREAM|t1|1:c:AAAAAAAAAAAAAAAAAAAAAA|2:d:AQEBAQEBAQEBAQEBAQEBAQ",
    "SHARE_POOL_CLAIM|m1|client_2|3",
    "SHARE_POOL_ACK|m1|client_2",
    "SHARE_POOL_UNFREEZE|m1|4",
    "SHARE_POOL_REMOVE|m1",
    "CLUSTER_READY|c1",
    "ERROR|bad-id: the id is too long",
    "ERROR|Cluster not found",
    "OK",
    "OK|P2P port registered",
    "CLUSTER_CREATED|c1|5|3|open=0,max=6|~1",
    "CLUSTER_JOINED|c1",
    "CLUSTER_LIST|c1:client_1:5:3:4:0|c2:client_2:3:2:3:1|",
    "CLUSTER_MEMBERS|client_1|client_2",
    "CLIENT_INFO|2001:db8::1|40001|rdt",
    "MEMBER|c1|client_2|back|192.0.2.7:40001|rdt",
];

fn node(id: &str) -> NodeId {
    id.parse().expect("an id")
}

fn flow(index: u16) -> FlowId {
    let message: MessageId = "message".parse().expect("an id");
    FlowId::new(message, ShareIndex::new(index).expect("an index"))
}

pub(crate) fn udp_headers() -> Vec<Vec<u8>> {
    let one = 1.try_into().expect("not 0");
    let syn = |kind| Syn {
        kind,
        max_payload: 1392,
        session: one,
        session_window: 8 << 20,
        flow_window: 1 << 20,
        idle_timeout_ms: 30_000,
    };
    let mut payloads: Vec<(PacketType, Vec<u8>)> = vec![
        (PacketType::Data, Vec::new()),
        (PacketType::Data, b"some octets of a flow".to_vec()),
        (PacketType::Heartbeat, Vec::new()),
    ];
    for kind in [SynKind::Offer, SynKind::Accept { echo: one }] {
        let mut payload = Vec::new();
        syn(kind).emit_into(&mut payload);
        payloads.push((PacketType::Syn, payload));
    }
    let blocks = |count| vec![AckBlock { gap: 2, len: 3 }; count];
    for count in [0, 1, 63] {
        let mut payload = Vec::new();
        let ack = Ack::new(250, 1 << 20, 1_000, 7, blocks(count)).expect("a valid ACK");
        ack.emit_into(&mut payload);
        payloads.push((PacketType::Ack, payload));
    }
    for count in [1, 5] {
        let hole = Hole {
            first: Seq(65_530),
            count: 9.try_into().expect("not 0"),
        };
        let holes = vec![hole; count];
        let mut payload = Vec::new();
        Nak::new(holes)
            .expect("a valid NAK")
            .emit_into(&mut payload);
        payloads.push((PacketType::Nak, payload));
    }
    for kind in [FinKind::CloseSession, FinKind::ResetFlow, FinKind::StopFlow] {
        let mut payload = Vec::new();
        Fin::new(kind, 3, "going home").emit_into(&mut payload);
        payloads.push((PacketType::Fin, payload));
    }

    let mut seeds = Vec::new();
    for (at, (kind, payload)) in payloads.into_iter().enumerate() {
        // The bare payload too: its parsers read any input.
        seeds.push(payload.clone());
        let index = if at % 2 == 0 {
            FlowId::CONTROL
        } else {
            flow(3)
        };
        let mut header = Header::new(kind, node("alice"), node("bob"), index);
        header.session = 0x0102_0304;
        header.packet_number = 77;
        header.seq = Seq(65_535);
        header.window = 1_024;
        header.flags = if at % 3 == 0 {
            Flags::CHECKSUM
        } else {
            Flags::default()
        };
        let mut packet = Packet::new(header, Bytes::from(payload));
        if at % 4 == 3 {
            packet.trailer = Bytes::from_static(b"\x01\x02\x03\x04");
        }
        let mut datagram = Vec::new();
        packet.emit_into(&mut datagram);
        seeds.push(datagram);
    }
    seeds
}

pub(crate) fn control_lines() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for line in LINES {
        // The target reads each input as a bar line and as the body of a slash line.
        seeds.push(line.as_bytes().to_vec());
        seeds.push(line.replace('|', "/").into_bytes());
    }
    seeds.push(b" \tOK|spaced out\r\n".to_vec());
    seeds.push(b"SEND_MESSAGE/a/b/50%25 %2F %7E\n".to_vec());
    seeds
}

pub(crate) fn line_framer() -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    for (at, line) in LINES.iter().take(6).enumerate() {
        stream.extend_from_slice(line.as_bytes());
        stream.extend_from_slice(if at % 2 == 0 { b"\r\n" } else { b"\n \t\r\n" });
    }
    let input = |max: u16, sizes: &[u8], stream: &[u8]| {
        let mut input = max.to_be_bytes().to_vec();
        input.push(sizes.len() as u8);
        input.extend_from_slice(sizes);
        input.extend_from_slice(stream);
        input
    };
    vec![
        input(1_000, &[], &stream),
        input(60, &[3, 0, 40], &stream),
        input(20, &[1, 2], &stream),
        input(0, &[0], b"\n\n\r\nx"),
        input(5, &[4], b"12345\n123456\n"),
        input(5, &[255], b"12345\nunended"),
    ]
}

/// The shares of a message, as octets.
fn shares(message: &[u8], k: u8, n: u8) -> Vec<Vec<u8>> {
    let threshold = Threshold::new(k, n).expect("2 <= k <= n");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let shares = split_slice(threshold, message, &mut rng).expect("a short message");
    shares
        .iter()
        .map(|share| share.to_bytes().to_vec())
        .collect()
}

pub(crate) fn share_parse() -> Vec<Vec<u8>> {
    let mut seeds = shares(b"meet at noon", 3, 5);
    seeds.extend(shares(b"", 2, 2));
    seeds.extend(shares(&[7; 500], 255, 255).into_iter().skip(254));
    // Octets behind the body.
    let mut longer = seeds[0].clone();
    longer.extend_from_slice(b"trailer");
    seeds.push(longer);
    seeds
}

pub(crate) fn share_set() -> Vec<Vec<u8>> {
    let set = |shares: &[Vec<u8>]| {
        // How many, then each with its length in front; see `any_set`.
        let mut input = vec![0, shares.len() as u8 - 1];
        for share in shares {
            input.push(share.len() as u8);
            input.extend_from_slice(share);
        }
        input
    };
    let five = shares(b"meet at noon", 3, 5);
    let mut seeds = vec![
        set(&five),
        set(&five[1..4]),
        set(&five[..2]),
        set(&[five[0].clone(), five[0].clone(), five[1].clone()]),
        set(&shares(b"", 2, 3)),
    ];
    let mut rng = SimRng::from_seed(2);
    for _ in 0..6 {
        let mut input = vec![1];
        input.extend(rng.bytes(120));
        seeds.push(input);
    }
    seeds
}

pub(crate) fn connection_pair() -> Vec<Vec<u8>> {
    // The operations are listed in `Pair::operation`: 0 connect, 2 write (flow, two octets of
    // length), 7 finish, 9 reset, 10 stop, 11 and 12 reading off and on, 13 close, 14 restart,
    // 15 garbage, 20 fates, 31 time. 0x80 is the other side.
    let open: &[u8] = &[0, 31, 3];
    let scripts: [&[&[u8]]; 9] = [
        &[&[1], open, &[2, 1, 100, 0, 7, 1, 31, 4]],
        &[
            &[1],
            open,
            &[2, 0, 0, 31, 2, 1, 255, 31, 0x82, 0, 0, 8, 31, 4],
        ],
        &[
            &[1],
            &[0, 0x80, 31, 4],
            &[2, 1, 0, 16, 0x82, 2, 0, 16, 31, 4, 7, 1, 0x87, 2, 31, 4],
        ],
        &[
            &[1],
            open,
            &[
                20, 8, 1, 3, 4, 0x18, 1, 4, 3, 1, 2, 1, 0, 31, 7, 1, 31, 5, 31, 5,
            ],
        ],
        &[
            &[1],
            open,
            &[
                0x8b, 2, 1, 0, 31, 2, 1, 0, 31, 2, 1, 0, 31, 31, 5, 0x8c, 31, 4,
            ],
        ],
        &[
            &[1],
            open,
            &[2, 1, 0, 31, 9, 1, 5, 0, 2, 2, 0, 31, 0x8a, 2, 5, 0, 31, 4],
        ],
        &[
            &[1],
            open,
            &[2, 1, 0, 31, 13, 0, 0, 31, 4, 0, 31, 4, 2, 1, 5, 0, 7, 1],
        ],
        &[
            &[1],
            open,
            &[2, 1, 0, 31, 0x8e, 31, 6, 0, 31, 4, 2, 2, 9, 0, 7, 2],
        ],
        &[
            &[0],
            open,
            &[
                2, 1, 0, 31, 31, 1, 16, 0, 60, 0, 4, 1, 2, 3, 4, 0x90, 0, 72, 0, 2, 9, 9, 31, 4,
            ],
        ],
    ];
    let mut seeds: Vec<Vec<u8>> = scripts.iter().map(|parts| parts.concat()).collect();
    let mut rng = SimRng::from_seed(3);
    for at in 0..6 {
        let mut script = vec![at, 0, 31, 3];
        script.extend(rng.bytes(300));
        seeds.push(script);
    }
    seeds
}
