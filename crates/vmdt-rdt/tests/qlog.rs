//! The traces of a transfer: JSON-SEQ of qlog 0.3 with the events that viewers draw.
#![cfg(feature = "qlog")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{MS, SEC, World, flow};
use serde_json::Value;
use vmdt_rdt::Endpoint;
use vmdt_testkit::LinkConfig;

/// Parses what an endpoint has recorded of its one session.
fn records(endpoint: &mut Endpoint) -> Vec<Value> {
    let mut sessions = BTreeSet::new();
    let mut records = Vec::new();
    while let Some(record) = endpoint.poll_qlog() {
        sessions.insert(record.session);
        let json = record.line.strip_prefix('\u{1e}').unwrap();
        assert!(json.ends_with('\n') && !json[..json.len() - 1].contains('\n'));
        records.push(serde_json::from_str(json).unwrap());
    }
    assert_eq!(sessions.len(), 1);
    assert_eq!(endpoint.qlog_dropped(), 0);
    records
}

fn numbers(records: &[Value], name: &str) -> Vec<u64> {
    records
        .iter()
        .filter(|record| record["name"] == name)
        .map(|record| record["data"]["header"]["packet_number"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_transfer_leaves_a_trace_at_both_ends() {
    let link = LinkConfig::new()
        .delay(10 * MS)
        .loss(0.02)
        .rate(20_000_000, 1 << 20);
    let mut world = World::pair(3, &link);
    for host in &mut world.hosts {
        host.endpoint.set_qlog(true);
    }
    world.establish();
    world.send(0, 1, flow(1), vec![7; 2 << 20]);
    let key = (world.hosts[1].id, flow(1));
    assert!(world.run_until(30 * SEC, |world| {
        world.hosts[0].delivered.contains(&key)
    }));
    let stats = [0, 1].map(|end: usize| {
        let peer = world.hosts[1 - end].id;
        world.hosts[end].endpoint.stats(peer).unwrap()
    });
    let traces = [0, 1].map(|end: usize| records(&mut world.hosts[end].endpoint));
    for (end, records) in traces.iter().enumerate() {
        let head = &records[0];
        assert_eq!(head["qlog_version"], "0.3");
        assert_eq!(head["qlog_format"], "JSON-SEQ");
        let common = &head["trace"]["common_fields"];
        assert_eq!(common["time_format"], "relative");
        let kind = ["client", "server"][end];
        assert_eq!(head["trace"]["vantage_point"]["type"], kind);
        let mut last = 0.0;
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &records[1..] {
            let time = record["time"].as_f64().unwrap();
            assert!(time >= last, "time goes on");
            last = time;
            *names.entry(record["name"].as_str().unwrap()).or_default() += 1;
        }
        assert_eq!(names["transport:parameters_set"], 2);
        let accepted = stats[end].packets_received;
        assert_eq!(names["transport:packet_received"] as u64, accepted);
    }
    let sender = &traces[0];
    let lost = numbers(sender, "recovery:packet_lost");
    assert_eq!(lost.len() as u64, stats[0].packets_lost);
    let sent = numbers(sender, "transport:packet_sent");
    assert!(lost.iter().all(|number| sent.contains(number)));
    // Packets have the same numbers at both ends.
    let received = numbers(&traces[1], "transport:packet_received");
    assert!(received.iter().all(|number| sent.contains(number)));
    let mut metrics = sender
        .iter()
        .filter(|record| record["name"] == "recovery:metrics_updated");
    let last = metrics.next_back().unwrap();
    assert_eq!(last["data"]["congestion_window"], stats[0].cwnd);
    assert!(last["data"]["smoothed_rtt"].as_f64().unwrap() > 19.0);
    let states: Vec<&str> = sender
        .iter()
        .filter(|record| record["name"] == "recovery:congestion_state_updated")
        .map(|record| record["data"]["new"].as_str().unwrap())
        .collect();
    assert!(states.contains(&"slow_start") && states.contains(&"congestion_avoidance"));
    // Every ACK frame names what was sent.
    let frames = sender
        .iter()
        .filter(|record| record["name"] == "transport:packet_received")
        .flat_map(|record| record["data"]["frames"].as_array().unwrap());
    let acks: Vec<&Value> = frames
        .filter(|frame| frame["frame_type"] == "ack")
        .collect();
    assert!(acks.len() > 100);
    let newest = *sent.iter().max().unwrap();
    for range in acks
        .iter()
        .flat_map(|ack| ack["acked_ranges"].as_array().unwrap())
    {
        assert!(range[0].as_u64() <= range[1].as_u64() && range[1].as_u64() <= Some(newest));
    }
    let data = sender
        .iter()
        .filter(|record| record["name"] == "transport:packet_sent")
        .map(|record| &record["data"]["frames"][0])
        .filter(|frame| frame["frame_type"] == "stream");
    let fin = data.filter(|frame| frame["fin"] == true).count();
    assert!(fin >= 1);
}

#[test]
fn nothing_is_recorded_until_asked_and_no_more_after() {
    let link = LinkConfig::new().delay(10 * MS);
    let mut world = World::pair(3, &link);
    world.hosts[0].endpoint.set_qlog(true);
    world.hosts[0].endpoint.set_qlog(false);
    world.establish();
    for host in &mut world.hosts {
        assert_eq!(host.endpoint.poll_qlog(), None);
    }
}

#[test]
fn a_datagram_is_traced_as_one() {
    let mut world = World::sealed_pair(4, &LinkConfig::new().delay(10 * MS));
    for host in &mut world.hosts {
        host.endpoint.set_qlog(true);
    }
    world.establish();
    world.run_for(SEC);
    let (now, peer) = (world.now(), world.hosts[1].id);
    let payload = bytes::Bytes::from_static(b"seven..");
    let endpoint = &mut world.hosts[0].endpoint;
    endpoint.send_datagram(now, peer, payload).unwrap();
    world.drive(0);
    world.run_for(SEC);
    for (host, name) in [
        (0, "transport:packet_sent"),
        (1, "transport:packet_received"),
    ] {
        let frame = serde_json::json!([{ "frame_type": "datagram", "length": 7 }]);
        let records = records(&mut world.hosts[host].endpoint);
        let traced = |record: &&Value| record["data"]["frames"] == frame;
        let found: Vec<&Value> = records.iter().filter(traced).collect();
        assert_eq!(found.len(), 1, "at host {host}");
        assert_eq!(found[0]["name"], name);
        assert_eq!(found[0]["data"]["raw"]["length"], 80 + 7 + 16);
    }
}
