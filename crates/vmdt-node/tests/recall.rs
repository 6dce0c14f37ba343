//! A node that remembers its clusters: it sends to their members at once, whether a server can be
//! reached or not, and believes nothing that was not signed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::{Received, World};
use vmdt_node::core::CoreConfig;
use vmdt_node::{ClusterMemory, Event, MemoryError, MessageId};
use vmdt_testkit::{LinkConfig, run_seeds};
use vmdt_wire::ClusterId;

const DELAY: Duration = Duration::from_millis(25);
const ROUND: Duration = Duration::from_millis(50);

fn patient(config: &mut CoreConfig) {
    config
        .set_request_timeout(Duration::from_secs(120))
        .unwrap();
    config.set_stall_timeout(Duration::from_secs(300)).unwrap();
}

fn link() -> LinkConfig {
    LinkConfig::new().delay(DELAY).rate(20_000_000, 256 * 1024)
}

fn memory(w: &World, i: usize, cluster: ClusterId) -> ClusterMemory {
    let memory = w.hosts[i].core.member().memory(cluster).unwrap();
    // as it comes out of a file
    ClusterMemory::parse(&memory.encode()).unwrap()
}

/// A cluster whose members have known each other for a while, and what node 0 knows of it.
fn known(seed: u64, count: usize, link: LinkConfig) -> (World, ClusterId, ClusterMemory) {
    let mut w = World::new(seed, count, link, patient);
    let cluster = w.cluster(count as u16, 3, false);
    w.run_for(Duration::from_secs(2));
    let memory = memory(&w, 0, cluster);
    (w, cluster, memory)
}

fn burst(w: &mut World, from: usize, to: usize, count: usize) -> BTreeMap<MessageId, Bytes> {
    (0..count)
        .map(|number| {
            let data = Bytes::from(vec![number as u8; 1_000]);
            (w.send(from, to, None, data.clone()).unwrap(), data)
        })
        .collect()
}

fn arrived(w: &World, at: usize, sent: &BTreeMap<MessageId, Bytes>) -> bool {
    let copies = |id: &MessageId, data: &Bytes| {
        w.hosts[at]
            .received
            .iter()
            .filter(
                |r| matches!(r, Received::Message { id: i, data: d, .. } if i == id && d == data),
            )
            .count()
    };
    sent.iter().all(|(id, data)| copies(id, data) == 1)
}

#[test]
fn who_remembers_its_cluster_sends_before_the_server_has_answered() {
    let (mut w, cluster, memory) = known(1, 5, link());
    w.kill(0);
    w.run_for(Duration::from_secs(5));
    w.restart(0);
    let begun = w.now();
    w.with(0, |core, now| core.recall(now, &memory)).unwrap();
    let sent = burst(&mut w, 0, 1, 10);
    w.run_until(Duration::from_secs(10), |w| arrived(w, 1, &sent))
        .unwrap();
    let took = w.now() - begun;
    // one for the sessions, one for what is agreed on; carriers open theirs to the receiver
    // meanwhile, which here takes as long
    assert!(took < ROUND * 7 / 2, "{took:?}");
    assert!(!w.hosts[0].core.member().is_registered());
    w.run_for(Duration::from_secs(2));
    let roster = w.hosts[0].core.member().cluster(cluster).unwrap();
    assert!(roster.is_confirmed());
    assert!(arrived(&w, 1, &sent), "each once");
}

#[test]
fn who_remembers_its_cluster_sends_and_receives_without_any_server() {
    run_seeds(1..21, |seed| -> Result<(), String> {
        let link = link().loss(0.05);
        let (mut w, cluster, mine) = known(seed, 5, link);
        let others = memory(&w, 1, cluster);
        w.kill_server();
        // sender and receiver alike
        for (i, memory) in [(0, &mine), (1, &others)] {
            w.kill(i);
            w.restart(i);
            w.with(i, |core, now| core.recall(now, memory)).unwrap();
        }
        let sent = burst(&mut w, 0, 1, 5);
        let large = w
            .send(0, 1, None, Bytes::from(vec![7; 300_000]))
            .map_err(|e| e.to_string())?;
        let answer = burst(&mut w, 1, 0, 2);
        w.run_until(Duration::from_secs(120), |w| {
            let done = &w.hosts[0].done;
            done.contains_key(&large) && sent.keys().all(|id| done.contains_key(id))
        })?;
        w.run_until(Duration::from_secs(60), |w| arrived(w, 0, &answer))?;
        if !arrived(&w, 1, &sent) {
            return Err("not each once".into());
        }
        for result in w.hosts[0].done.values() {
            result.as_ref().map_err(|e| e.to_string())?;
        }
        w.check_privacy(3, &[0, 1])?;
        // and when a server is there again, their places are theirs
        w.restart_server();
        w.run_until(Duration::from_secs(60), |w| {
            [0, 1].iter().all(|&i| {
                let roster = w.hosts[i].core.member().cluster(cluster);
                roster.is_some_and(|roster| roster.is_confirmed())
            })
        })?;
        let lost = |e: &Event| matches!(e, Event::ClusterLost { .. });
        match w.hosts.iter().any(|host| host.events.iter().any(lost)) {
            true => Err("a cluster was lost".into()),
            false => Ok(()),
        }
    });
}

#[test]
fn a_memory_of_another_node_is_refused() {
    let (mut w, cluster, memory) = known(4, 5, link());
    w.kill(2);
    w.restart(2);
    let (owner, local) = (w.id(0), w.id(2));
    let refused = w.with(2, |core, now| core.recall(now, &memory));
    assert_eq!(refused, Err(MemoryError::OtherMember { owner, local }));
    assert!(w.hosts[2].core.member().cluster(cluster).is_none());
}

#[test]
fn durable_nodes_remember_by_themselves_and_go_on_without_any_server() {
    run_seeds(1..9, |seed| -> Result<(), String> {
        let mut w = World::durable(seed, 5, link().loss(0.03), |_| true, patient);
        let cluster = w.cluster(5, 3, false);
        w.run_for(Duration::from_secs(3));
        w.kill_server();
        for i in [0, 1, 2] {
            w.kill(i);
        }
        w.run_for(Duration::from_secs(1));
        for i in [0, 1, 2] {
            w.restart(i);
            let roster = w.hosts[i].core.member().cluster(cluster);
            if roster.is_none_or(|roster| roster.members().count() != 4) {
                return Err(format!("{i} does not remember"));
            }
        }
        let sent = burst(&mut w, 0, 1, 5);
        w.run_until(Duration::from_secs(120), |w| {
            sent.keys().all(|id| w.hosts[0].done.contains_key(id))
        })?;
        if !arrived(&w, 1, &sent) {
            return Err("not each once".into());
        }
        w.restart_server();
        w.run_until(Duration::from_secs(60), |w| {
            (0..5).all(|i| {
                let roster = w.hosts[i].core.member().cluster(cluster);
                roster.is_some_and(|roster| roster.is_confirmed())
            })
        })
    });
}

#[test]
fn a_durable_node_that_was_removed_while_it_was_down_is_told_and_forgets() {
    let mut w = World::durable(9, 5, link(), |i| i == 2, patient);
    let cluster = w.cluster(5, 3, false);
    w.run_for(Duration::from_secs(3));
    w.kill(2);
    let gone = w.id(2);
    let request = w.with(0, |core, now| {
        core.remove_members(now, cluster, &[gone]).unwrap()
    });
    w.reply(0, request).unwrap();
    for life in 0..2 {
        w.hosts[2].events.clear();
        w.restart(2);
        // the first life remembers, and hears of it; the second one has nothing to remember
        let remembers = w.hosts[2].core.member().cluster(cluster).is_some();
        assert_eq!(remembers, life == 0, "life {life}");
        w.run_for(Duration::from_secs(5));
        assert!(w.hosts[2].core.member().cluster(cluster).is_none());
        let lost = |e: &&Event| matches!(e, Event::ClusterLost { .. });
        let told = w.hosts[2].events.iter().filter(lost).count();
        assert_eq!(told, usize::from(life == 0), "life {life}");
        w.kill(2);
    }
}
