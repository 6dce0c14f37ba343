//! A sealed node speaks no open profile, whatever it is sent, unless it was configured to; and then
//! it says so.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::World;
use vmdt_node::core::{Core, CoreConfig, Kind, PeerConn, default_transport};
use vmdt_node::{Event, NodeId, TransferError};
use vmdt_rdt::Endpoint;
use vmdt_testkit::{LinkConfig, SimRng};
use vmdt_wire::compact;
use vmdt_wire::{FlowId, Header, Line, MemberState, Message, PacketType};

/// Where the kind of a segment stands in a datagram; its flags follow.
const KIND_AT: usize = 68;
const OLD: &str = "old-client";
const TEXT: &[u8] = b"words that must not leave in the open, 5b3a90";

fn sealed_world(seed: u64, tune: impl Fn(&mut CoreConfig)) -> World {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::new(seed, 3, link, tune);
    w.cluster(3, 2, false);
    w
}

/// All that node 0 has sent since the last look is sealed: no line to a 1.0 peer, no datagram that
/// is not of a sealed session, no word of what was to be said.
fn speaks_sealed_only(w: &mut World, context: &str) {
    let own = w.hosts[0].address;
    let recorded = w.recorded.replace(Vec::new()).unwrap();
    for (_, _, octets) in recorded.iter().filter(|(from, ..)| *from == own) {
        assert!(!octets.windows(16).any(|w| w == &TEXT[..16]), "{context}");
        if compact::is_compact(octets) {
            // only sealed sessions have such headers
            continue;
        }
        let parsed = Header::parse_sealed(octets).unwrap();
        let header = parsed.header;
        assert!(header.source.is_sealed(), "{context}");
        assert!(header.dest.is_sealed(), "{context}: to {}", header.dest);
        let tag = usize::from(header.kind != PacketType::Syn) * 16;
        let len = 80 + usize::from(parsed.payload_len) + tag;
        assert_eq!(octets.len(), len, "{context}");
    }
    let host = &w.hosts[0];
    assert_eq!(host.open_lines, 0, "{context}");
    assert!(host.received.is_empty(), "{context}");
    let open = |e: &Event| matches!(e, Event::OpenPeer { .. });
    assert!(!host.events.iter().any(open), "{context}");
}

/// What a peer, a server or a stranger of profile 1.0 might say.
fn lines(cluster: &str, own: NodeId) -> Vec<String> {
    let share = data_encoding::BASE64.encode(&[1; 60]);
    let mut out: Vec<String> = vec![
        format!("SHARE_POOL_ADD|m1|{OLD}|{own}|3|2|TEXT||0:{share}|1:{share}|2:{share}"),
        format!("SHARE_POOL_ADD|m1|{OLD}|{own}|3|2|STREAM|t.2|0:{share}|1:{share}"),
        format!("SEND_MESSAGE|{OLD}|{own}|hello"),
        format!("MESSAGE_SHARE|{OLD}|{own}|{own}|1|{share}"),
        format!("MESSAGE_SHARE|{OLD}|{own}|{own}|0|{share}"),
        format!("SHARE_POOL_CLAIM|m1|{OLD}|1"),
        format!("SHARE_POOL_UNFREEZE|m1|1"),
        format!("SHARE_POOL_ACK|m1|{OLD}"),
        format!("CLUSTER_READY|{cluster}"),
        format!("CLUSTER_CREATED|{cluster}"),
        format!("CLUSTER_JOINED|{cluster}"),
        format!("CLIENT_INFO|10.0.7.7|4000"),
        format!("CLUSTER_MEMBERS|{OLD}|{own}"),
        "ERROR|unauthenticated|profile 1.0 only".into(),
        "OK".into(),
    ];
    for state in ["joined", "back", "away", "left"] {
        out.push(format!("MEMBER|{cluster}|{OLD}|{state}|10.0.7.7:4000"));
        out.push(format!("MEMBER|{cluster}|{OLD}|{state}|10.0.7.7:4000|rdt"));
    }
    out
}

#[test]
fn no_wire_input_makes_a_sealed_node_speak_open() {
    let mut w = sealed_world(1, |_| {});
    let own = w.id(0);
    let cluster = w.hosts[0].core.member().roster().next().unwrap().0;
    let stranger: SocketAddr = "10.0.7.7:4000".parse().unwrap();
    let old: NodeId = OLD.parse().unwrap();
    let mut dice = SimRng::from_seed(1);
    let lines = lines(cluster.as_str(), own);
    w.recorded = Some(Vec::new());
    let mut conn = 0;
    for round in 0..8usize {
        // each line as it is, then damaged, from the server and on a connection of a peer
        for line in &lines {
            let mut said = line.clone().into_bytes();
            if round > 0 {
                let at = dice.below(said.len() as u64) as usize;
                said[at] = b"|/@~09aZ\xff"[dice.below(9) as usize];
            }
            said.push(b'\n');
            conn += 1;
            w.with(0, |core, now| {
                core.handle_control_bytes(now, &said);
                core.handle_peer_opened(now, PeerConn(conn));
                core.handle_peer_bytes(now, PeerConn(conn), &said);
                core.handle_peer_closed(now, PeerConn(conn));
            });
            // the application writes to whom it was made to believe in
            let refused = w.with(0, |core, now| {
                core.send(now, old, Kind::Octets, "", Some(TEXT.len() as u64))
            });
            assert!(refused.is_err(), "{line}: {refused:?}");
            // a node that hung up on the liar comes back
            w.run_until(Duration::from_secs(120), |w| {
                w.hosts[0].core.member().is_registered()
            })
            .unwrap();
            speaks_sealed_only(&mut w, line);
        }
        // a datagram of an open session, of every kind
        let mut endpoint = Endpoint::new(default_transport(), old, [round as u8; 32]);
        let now = w.now();
        endpoint.connect(now, own, stranger);
        let mut buf = Vec::new();
        while endpoint.poll_transmit(now, &mut buf).is_some() {
            for at in [KIND_AT, KIND_AT + 1] {
                for octet in 0..=255u8 {
                    let mut datagram = buf.clone();
                    datagram[at] = octet;
                    w.with(0, |core, now| {
                        core.handle_datagram(now, stranger, Bytes::from(datagram));
                    });
                }
            }
        }
        w.run_for(Duration::from_secs(1));
        speaks_sealed_only(&mut w, "datagrams");
    }
    assert_eq!(w.hosts[0].core.member().roster().count(), 1);
    let roster = w.hosts[0].core.member().cluster(cluster).unwrap();
    assert!(roster.member(old).is_none());
}

#[test]
fn a_sealed_id_is_never_written_to_in_the_open() {
    // a node of 1.0, and one of 1.1 in a common cluster of 1.0, as a server might claim
    let server: SocketAddr = "10.0.0.9:9".parse().unwrap();
    let mut core = Core::new(
        CoreConfig::new("old".parse().unwrap(), 1, vec![server]),
        [1; 32],
    );
    let clock = vmdt_testkit::Clock::new();
    let now = clock.now();
    core.handle_timeout(now);
    let sealed: NodeId = "@AAAAAAAAAAAAAAA".parse().unwrap();
    let refused = core.send(now, sealed, Kind::Octets, "", Some(1));
    assert!(matches!(
        refused,
        Err(TransferError::UnknownPeer { .. } | TransferError::Profile { .. })
    ));
    let mut buf = Vec::new();
    assert!(core.poll_transmit(now, &mut buf).is_none());
}

#[test]
fn a_sealed_session_is_not_replaced_by_an_open_one_under_the_same_id() {
    let mut w = sealed_world(3, |_| {});
    let id = w.send(0, 1, None, Bytes::from_static(b"first")).unwrap();
    w.run_for(Duration::from_secs(3));
    w.hosts[0].done[&id].as_ref().unwrap();
    // an endpoint of profile 1.0 that goes by node 1's id and sends from its address
    let (victim, address) = (w.id(1), w.hosts[1].address);
    let now = w.now();
    let mut thief = Endpoint::new(default_transport(), victim, [9; 32]);
    thief.connect(now, w.id(0), w.hosts[0].address);
    let mut buf = Vec::new();
    while thief.poll_transmit(now, &mut buf).is_some() {
        let datagram = Bytes::copy_from_slice(&buf);
        w.hosts[0].core.handle_datagram(now, address, datagram);
    }
    let mut answers = Vec::new();
    while let Some(_transmit) = w.hosts[0].core.poll_transmit(now, &mut buf) {
        answers.push(Bytes::copy_from_slice(&buf));
    }
    for answer in answers {
        thief.handle_datagram(now, w.hosts[0].address, answer);
    }
    let line = Line::slash(Message::SharePoolRemove {
        message: vmdt_wire::MessageName::from(id),
    });
    let line = Bytes::from(line.emit().unwrap());
    let said = thief.write(now, w.id(0), FlowId::CONTROL, line);
    assert!(said.is_err() || thief.stats(w.id(0)).is_none_or(|s| s.packets_received == 0));
    let second = w.send(0, 1, None, Bytes::from_static(b"second")).unwrap();
    w.run_for(Duration::from_secs(5));
    w.hosts[0].done[&second].as_ref().unwrap();
    let left = |e: &Event| {
        matches!(
            e,
            Event::Member {
                state: MemberState::Left,
                ..
            }
        )
    };
    assert!(!w.hosts[0].events.iter().any(left));
}
