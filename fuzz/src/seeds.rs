//! Inputs to begin from: small, valid, and of every kind that a target tells apart.

use std::num::NonZeroU8;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_seal::announcement::{Placement, SealedDetails, envelope};
use vmdt_seal::cookie::{COOKIE_LEN, Cookie};
use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
use vmdt_seal::e2e::{self, TransferContext};
use vmdt_seal::group::{Group, GroupDetails};
use vmdt_seal::handover::{Handover, Handovers};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::invite::{Invite, InviteSecret, InviteTerms, Rights};
use vmdt_seal::membership::Membership;
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::profile::{Profile, ProfileDetails};
use vmdt_seal::receipt::{Fact, Receipts, Statement};
use vmdt_seal::revocation::{RevocationDetails, RevocationList};
use vmdt_seal::rotation::Rotation;
use vmdt_seal::session::{OfferView, Pattern, Responder, Step, Suites};
use vmdt_seal::ticket::Ticket;
use vmdt_ssms::v2::{Form, Sealer};
use vmdt_ssms::{Threshold, split_slice};
use vmdt_testkit::SimRng;
use vmdt_wire::compact::MAX_COMPACT_LEN;
use vmdt_wire::segment::{Ack, AckBlock, EcnCounts, Fin, FinKind, Hole, Nak, Syn, SynKind};
use vmdt_wire::{Flags, FlowId, Header, MessageId, NodeId, Packet, PacketType, Seq, ShareIndex};

use crate::handshake::Sides;
use crate::sealed::{EXPRESS, INVITES, person};
use crate::shares::sealed;

/// Lines of all types in the bar form, whose parameters are also those of the slash form.
const LINES: [&str; 32] = [
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
    "SHARE_POOL_STORED|m1|c|4",
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
        features: 0,
    };
    let mut payloads: Vec<(PacketType, Vec<u8>)> = vec![
        (PacketType::Data, Vec::new()),
        (PacketType::Data, b"some octets of a flow".to_vec()),
        (PacketType::Heartbeat, Vec::new()),
        (PacketType::Datagram, b"octets of no flow".to_vec()),
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
    let mut ack = Ack::new(250, 1 << 20, 1_000, 7, blocks(2)).expect("a valid ACK");
    ack.ecn = Some(EcnCounts {
        ect0: 900,
        ect1: 0,
        ce: 3,
    });
    let mut payload = Vec::new();
    ack.emit_into(&mut payload);
    payloads.push((PacketType::Ack, payload));
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
    for kind in PacketType::ALL {
        for index in [FlowId::CONTROL, flow(3)] {
            let mut header = Header::new(kind, node("alice"), node("bob"), index);
            header.session = 0x0102_0304;
            let mut compact = [0; MAX_COMPACT_LEN];
            if let Some(len) = header.emit_compact(&mut compact) {
                seeds.push([&compact[..len], &[0xaa; 16]].concat());
            }
        }
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
    // 15 garbage, 20 fates, 23 datagrams (two octets of length, count), 31 time. 0x80 is the other
    // side. The first octet is the kind of script: 0 hostile, 3 sealed.
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
    let sealed: [&[u8]; 3] = [
        // Datagrams on their own, in both directions, more than are taken at once.
        &[23, 0, 100, 40, 0x97, 5, 0, 63, 31, 4, 23, 5, 80, 63, 31, 4],
        // Beside a flow, while the network damages.
        &[
            2, 1, 255, 31, 20, 8, 1, 3, 4, 0x18, 1, 4, 3, 1, 23, 1, 0, 30, 31, 4, 7, 1, 31, 5,
        ],
        // Before and after a restart of the other side.
        &[
            23, 1, 0, 9, 31, 2, 0x8e, 23, 1, 0, 9, 31, 6, 0, 31, 4, 23, 1, 0, 9, 31, 4,
        ],
    ];
    for script in sealed {
        seeds.push([&[3], open, script].concat());
    }
    let mut rng = SimRng::from_seed(3);
    for at in 0..6 {
        let mut script = vec![at, 0, 31, 3];
        script.extend(rng.bytes(300));
        seeds.push(script);
    }
    seeds
}

pub(crate) fn manifest_parse() -> Vec<Vec<u8>> {
    [
        (2, 2, Form::Replicated, 0),
        (3, 5, Form::Replicated, 40),
        (3, 5, Form::Dispersed, 40),
        (9, 40, Form::Dispersed, 300),
    ]
    .into_iter()
    .map(|(k, n, form, len)| sealed(k, n, form, 1, &vec![7; len]).manifest.encode())
    .collect()
}

pub(crate) fn manifest_shares() -> Vec<Vec<u8>> {
    let mut rng = SimRng::from_seed(4);
    (0..8).map(|at| rng.bytes(60 + at * 30)).collect()
}

/// An invite of the first person's, or of the second's, whom the first has invited.
fn invited(descriptor: &Descriptor) -> (Vec<Invite>, Vec<InviteSecret>, Vec<Membership>) {
    let terms = InviteTerms {
        rights: Rights::ALL,
        expires_ms: u64::MAX,
        max_uses: 3,
    };
    let (mut invites, mut secrets) = (Vec::new(), Vec::new());
    let mut members = vec![Membership::of_creator(&person(1), descriptor, 1).expect("a creator")];
    for (at, seed) in INVITES.iter().enumerate() {
        let at = at as u8;
        let chain = (at > 0).then(|| members.last()).flatten();
        // the invite's seed is what is drawn first
        let mut rng = Fixed(*seed);
        let (invite, secret) =
            Invite::issue(&person(at + 1), chain, descriptor, &terms, &mut rng).expect("an invite");
        let member = Membership::accept(&invite, &secret, person(at + 2).public(), 2);
        members.push(member.expect("a membership"));
        invites.push(invite);
        secrets.push(secret);
    }
    (invites, secrets, members)
}

/// Draws the same octets again and again: whose signatures the seeds hold is known.
struct Fixed([u8; 16]);

impl rand_chacha::rand_core::TryRng for Fixed {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        for (to, from) in to.iter_mut().zip(self.0.iter().cycle()) {
            *to = *from;
        }
        Ok(())
    }
}

impl rand_chacha::rand_core::TryCryptoRng for Fixed {}

fn descriptor() -> Descriptor {
    let details = DescriptorDetails {
        k: 2,
        n: 3,
        options: 1,
        name: "friends".into(),
        created_ms: 1,
    };
    Descriptor::sign(&person(1), &details, &mut Fixed([5; 16])).expect("a descriptor")
}

fn details(alice: &SecretIdentity, bob: &SecretIdentity, prekeys: &PrekeyStore) -> SealedDetails {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let prekey = prekeys.current().public();
    let context = TransferContext {
        sender: alice.public(),
        receiver: bob.public(),
        transfer: [5; 16],
        prekey_id: prekey.id,
    };
    let threshold = Threshold::new(2, 3).expect("2 <= k <= n");
    let sealer = Sealer::new(threshold, envelope(&context).expect("an envelope"));
    let manifest = sealer.seal(b"hello", &mut rng).expect("sealed").manifest;
    let (encapsulated, secret) =
        e2e::encapsulate(&prekey, &context, &mut rng).expect("a good prekey");
    let label = Some((&secret, &b"report.pdf"[..]));
    SealedDetails::sign(alice, &context, encapsulated, &manifest, 3, label).expect("details")
}

fn group_details(
    alice: &SecretIdentity,
    receivers: &[&SecretIdentity],
    prekeys: &PrekeyStore,
) -> GroupDetails {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let prekey = prekeys.current().public();
    let keys: Vec<_> = receivers.iter().map(|receiver| receiver.public()).collect();
    let group = Group::new(alice.public(), [5; 16], &keys).expect("a group");
    let threshold = Threshold::new(2, 3).expect("2 <= k <= n");
    let sealer = Sealer::new(threshold, group.envelope().expect("an envelope"));
    let manifest = sealer.seal(b"hello", &mut rng).expect("sealed").manifest;
    let secret = Group::secret(&mut rng);
    let wrapped: Vec<_> = keys
        .iter()
        .map(|to| {
            group
                .wrap(&secret, *to, &prekey, &mut rng)
                .expect("a good prekey")
        })
        .collect();
    GroupDetails::sign(alice, &group, &wrapped, &manifest).expect("details")
}

pub(crate) fn sealed_structures() -> Vec<Vec<u8>> {
    let (alice, bob, carol) = (person(1), person(2), person(3));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let prekeys = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng);
    let said = ProfileDetails {
        name: "Alice".into(),
        addresses: vec![
            "192.0.2.1:7000".parse().expect("an address"),
            "[2001:db8::1]:7001".parse().expect("an address"),
        ],
        capabilities: vec!["mailbox".into()],
    };
    let profile = Profile::sign(&alice, &said, prekeys.current().public(), 1).expect("a profile");
    let descriptor = descriptor();
    let (invites, _, members) = invited(&descriptor);
    let message = MessageId::from_random([7; 12]);
    let index = |index| NonZeroU8::new(index).expect("not 0");
    let holders = [(index(1), carol.node_id()), (index(2), bob.node_id())];
    let placement = Placement::sign(&alice, message, 4, &holders).expect("a placement");
    let revoked = RevocationDetails {
        cluster: descriptor.hash(),
        version: 9,
        removed: vec![carol.node_id()],
        invites: invites.iter().map(Invite::id).take(1).collect(),
        kept: vec![bob.node_id()],
    };
    let revoked = RevocationList::sign(&alice, &revoked).expect("a list");
    let digest = [9; 32];
    let confirmed = [
        Fact::Taken(index(2)),
        Fact::HandedOn(index(2)),
        Fact::Delivered,
    ]
    .map(|fact| Statement {
        message,
        fact,
        digest,
    });
    let receipts = Receipts::sign(&bob, alice.node_id(), 1, &confirmed).expect("receipts");
    let brought = [2, 3].map(|at| Handover {
        manifest: [8; 32],
        index: index(at),
        digest,
    });
    let brought = Handovers::sign(&bob, carol.node_id(), 1, &brought).expect("hand-overs");
    let mut seeds = vec![
        alice.credential(1).encode(),
        profile.octets().to_vec(),
        details(&alice, &bob, &prekeys).octets().to_vec(),
        group_details(&alice, &[&bob, &carol], &prekeys)
            .octets()
            .to_vec(),
        placement.octets().to_vec(),
        descriptor.octets().to_vec(),
        revoked.octets().to_vec(),
        receipts.octets().to_vec(),
        brought.octets().to_vec(),
        Rotation::sign(&alice, &bob, 1).octets().to_vec(),
        prekeys.encode().to_vec(),
        EXPRESS.opening.octets().to_vec(),
    ];
    seeds.extend(EXPRESS.pieces.iter().map(|piece| piece.to_vec()));
    seeds.extend(invites.iter().map(|invite| invite.octets().to_vec()));
    seeds.extend(members.iter().map(|member| member.octets().to_vec()));
    seeds
}

pub(crate) fn tickets() -> Vec<Vec<u8>> {
    let (invites, secrets, _) = invited(&descriptor());
    let mut seeds = vec![b"7-crossover-clockwork".to_vec(), b" 9999 x y ".to_vec()];
    for (invite, secret) in invites.into_iter().zip(secrets) {
        let servers = ["192.0.2.1:7000", "[2001:db8::1]:1", "server.example:8443"];
        let servers = servers.map(|server| server.parse().expect("an address"));
        let ticket = Ticket::new(servers.to_vec(), person(4).public(), invite, secret);
        let text = ticket.expect("a ticket").encode().to_string();
        // What the target puts the check behind.
        let octets = text.strip_prefix("vmdt1").expect("a prefix").to_uppercase();
        let mut octets = BASE32_NOPAD.decode(octets.as_bytes()).expect("base32");
        octets.truncate(octets.len() - 4);
        seeds.push(octets);
        seeds.push(text.into_bytes());
    }
    seeds
}

pub(crate) fn session_messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for pattern in [Pattern::Xx, Pattern::Ik] {
        let mut sides = Sides::new();
        let mut initiator = sides.offer(pattern);
        let octets = initiator.offer().to_vec();
        let offer = OfferView::parse(&octets).expect("an offer");
        messages.push(offer.cookie_message(&Cookie([3; COOKIE_LEN])));
        messages.push(offer.restart_message());
        let alice = sides.alice.node_id();
        let responder =
            Responder::read(&sides.bob, alice, &offer, &mut sides.rng).expect("an offer");
        let (answer, _) = responder.answer(Suites::ALL, b"").expect("an answer");
        if let Ok(Step::Established(established)) = initiator.read(&answer, &mut sides.rng) {
            messages.extend(established.confirm);
        }
        messages.push(answer);
        messages.push(octets);
    }
    // With a cookie in it, the offer has another form.
    let mut sides = Sides::new();
    let mut initiator = sides.offer(Pattern::Xx);
    let cookie = messages.first().cloned().unwrap_or_default();
    let _ = initiator.read(&cookie, &mut sides.rng);
    messages.push(initiator.offer().to_vec());
    // The first octet chooses: even, the message as it is.
    let mut seeds: Vec<Vec<u8>> = messages
        .into_iter()
        .flat_map(|message| [0, 2].map(|choice| [&[choice], message.as_slice()].concat()))
        .collect();
    let mut rng = SimRng::from_seed(5);
    for choice in [1, 3, 1, 3] {
        seeds.push([&[choice], rng.bytes(80).as_slice()].concat());
    }
    seeds
}
