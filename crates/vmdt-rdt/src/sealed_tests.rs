use std::time::Duration;

use vmdt_seal::identity::SecretIdentity;

use super::*;
use crate::config::Config;

#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    Instant::now()
}

fn endpoint(n: u16) -> Endpoint {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    let local = Local::new(SecretIdentity::from_seed(&seed), 1);
    let mut config = Config::default();
    config.set_sealing(local.clone());
    Endpoint::new(config, local.node_id(), seed)
}

fn addresses() -> [SocketAddr; 2] {
    ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap())
}

fn kind_of(octets: &[u8]) -> PacketType {
    if compact::is_compact(octets) {
        let nobody = NodeId::EMPTY;
        return Header::parse_compact(octets, nobody, nobody)
            .unwrap()
            .0
            .kind;
    }
    Header::parse(octets).unwrap().header.kind
}

/// Carries what both have to send for so many milliseconds; the kinds of what the second sent.
fn exchange(ends: [&mut Endpoint; 2], now: &mut Instant, millis: u32) -> Vec<PacketType> {
    let [a, b] = ends;
    let mut kinds = Vec::new();
    let mut buf = Vec::new();
    for _ in 0..millis {
        *now += Duration::from_millis(1);
        a.handle_timeout(*now);
        b.handle_timeout(*now);
        while a.poll_transmit(*now, &mut buf).is_some() {
            b.handle_datagram(*now, addresses()[0], Bytes::copy_from_slice(&buf));
        }
        while b.poll_transmit(*now, &mut buf).is_some() {
            kinds.push(kind_of(&buf));
            a.handle_datagram(*now, addresses()[1], Bytes::copy_from_slice(&buf));
        }
    }
    kinds
}

#[test]
fn answers_are_bounded_and_forgotten() {
    let mut now = base();
    let mut b = endpoint(0);
    let mut buf = Vec::new();
    for n in 1..=300u16 {
        // Slow enough to be let in without a cookie.
        now += Duration::from_millis(20);
        let mut a = endpoint(n);
        if n % 2 == 0 {
            let local = b.sealing.as_ref().unwrap().local.clone();
            a.set_credential(local.credential());
        }
        a.connect(now, b.local, addresses()[1]);
        assert!(a.poll_transmit(now, &mut buf).is_some());
        let from = SocketAddr::from(([10, 0, 1, 1], n));
        for _ in 0..2 {
            b.handle_datagram(now, from, Bytes::copy_from_slice(&buf));
        }
    }
    let answers = |b: &Endpoint| b.sealing.as_ref().unwrap().answers.len();
    assert_eq!(answers(&b), 256);
    let sent = std::iter::from_fn(|| b.poll_transmit(now, &mut buf)).count();
    assert_eq!(sent, 256, "one answer for an offer that came twice");
    while let Some(end) = b.poll_timeout() {
        b.handle_timeout(end);
    }
    assert_eq!(answers(&b), 0);
}

#[test]
fn a_side_that_only_acknowledges_asks_for_an_acknowledgment_before_its_key_is_used_up() {
    let (mut a, mut b) = (endpoint(1), endpoint(2));
    let mut now = base();
    // with a handshake of two messages, since a third is answered with a HEARTBEAT
    let local = b.sealing.as_ref().unwrap().local.clone();
    a.set_credential(local.credential());
    a.connect(now, b.local, addresses()[1]);
    exchange([&mut a, &mut b], &mut now, 10);
    let (peer, slot) = (b.local, b.by_peer[&a.local]);
    let mut carry = |b: &mut Endpoint, flow: FlowId| {
        a.write(now, peer, flow, Bytes::from_static(b"word"))
            .unwrap();
        exchange([&mut a, b], &mut now, 20)
    };
    let kinds = carry(&mut b, FlowId::CONTROL);
    assert!(!kinds.contains(&PacketType::Heartbeat), "{kinds:?}");
    for _ in 0..3 {
        let kinds = carry(&mut b, FlowId::CONTROL);
        assert!(!kinds.contains(&PacketType::Heartbeat), "{kinds:?}");
        let session = b.session_mut(slot).unwrap();
        session.burn(base(), 700_000);
    }
    let kinds = carry(&mut b, FlowId::CONTROL);
    let asked = |kinds: &[PacketType]| {
        let heartbeat = |kind: &&PacketType| **kind == PacketType::Heartbeat;
        kinds.iter().filter(heartbeat).count()
    };
    assert_eq!(asked(&kinds), 1, "{kinds:?}");
    let kinds = carry(&mut b, FlowId::CONTROL);
    assert_eq!(asked(&kinds), 0, "and no more: {kinds:?}");
}

#[test]
fn what_a_sealed_session_may_not_send_has_no_deadline() {
    let (mut a, mut b) = (endpoint(1), endpoint(2));
    let mut now = base();
    a.connect(now, b.local, addresses()[1]);
    exchange([&mut a, &mut b], &mut now, 300);
    let slot = a.by_peer[&b.local];
    a.session_mut(slot).unwrap().doubt(0);
    let peer = b.local;
    a.write(now, peer, FlowId::CONTROL, Bytes::from(vec![0; 100_000]))
        .unwrap();
    let mut buf = Vec::new();
    assert_eq!(a.poll_transmit(now, &mut buf), None);
    let mut steps = 0;
    while let Some(at) = a.poll_timeout() {
        assert!(at > now, "a timer fires without effect");
        now = at;
        a.handle_timeout(now);
        assert_eq!(
            a.poll_transmit(now, &mut buf),
            None,
            "nothing came from there"
        );
        steps += 1;
    }
    assert!(steps < 10, "{steps} timeouts");
}

#[test]
fn a_node_has_the_id_of_its_identity() {
    let local = Local::new(SecretIdentity::from_seed(&[9; 32]), 1);
    let mut config = Config::default();
    config.set_sealing(local.clone());
    let endpoint = Endpoint::new(config, "other".parse().unwrap(), [1; 32]);
    assert_eq!(endpoint.local, local.node_id());
}

#[test]
fn an_older_credential_does_not_replace_a_newer_one() {
    let mut endpoint = endpoint(1);
    let identity = SecretIdentity::from_seed(&[9; 32]);
    for (version, kept) in [(5, 5), (4, 5), (6, 6)] {
        endpoint.set_credential(&identity.credential(version));
        let sealing = endpoint.sealing.as_ref().unwrap();
        assert_eq!(sealing.credentials[&identity.node_id()].version_ms(), kept);
    }
}

#[test]
fn a_datagram_that_names_a_flow_or_is_empty_is_malformed() {
    use crate::session::Room;
    use vmdt_wire::{MessageId, Seq, ShareIndex};

    let (mut a, mut b) = (endpoint(1), endpoint(2));
    let mut now = base();
    a.connect(now, b.local, addresses()[1]);
    exchange([&mut a, &mut b], &mut now, 20);
    let (peer, slot) = (a.local, b.by_peer[&a.local]);
    let plain = Header::new(PacketType::Datagram, peer, b.local, FlowId::CONTROL);
    let message: MessageId = "message".parse().unwrap();
    let odd: [fn(&mut Header); 4] = [
        |header| header.flow.index = ShareIndex::new(1).unwrap(),
        |header| header.seq = Seq(1),
        |header| header.ack = Seq(1),
        |header| header.window = 1,
    ];
    let mut headers: Vec<(Header, &'static [u8], bool)> =
        vec![(plain, b"octets", true), (plain, b"", false)];
    for change in odd {
        let mut header = plain;
        change(&mut header);
        headers.push((header, b"octets", false));
    }
    let mut header = plain;
    header.flow.message = message;
    headers.push((header, b"octets", false));
    let room = Room {
        flow: true,
        datagram: true,
    };
    // Numbers above those that the handshake has used.
    let first = b.session(slot).unwrap().next_arrival();
    for (n, (mut header, payload, taken)) in headers.into_iter().enumerate() {
        while b.poll_event().is_some() {}
        header.packet_number = first.wrapping_add(10 + n as u32);
        let before = b.stats(peer).unwrap();
        let packet = Packet::new(header, Bytes::from_static(payload));
        let session = b.session_mut(slot).unwrap();
        session.handle(now, (addresses()[0], None), packet, 102, room);
        b.touch(slot);
        let after = b.stats(peer).unwrap();
        let counted = after.datagrams_received - before.datagrams_received;
        assert_eq!(counted, u64::from(taken), "{header:?}");
        assert_eq!(after.malformed - before.malformed, u64::from(!taken));
        let event = taken.then(|| Event::Datagram {
            peer,
            payload: Bytes::from_static(payload),
        });
        assert_eq!(b.poll_event(), event);
    }
}
