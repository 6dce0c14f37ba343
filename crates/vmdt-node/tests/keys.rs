//! Nodes that change their keys, in worlds: the others follow them, and nobody else.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Received, World};
use vmdt_control::Reply;
use vmdt_node::core::{ClusterError, KeyChange};
use vmdt_node::{ClusterId, Event, NodeId};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::membership::Membership;
use vmdt_seal::rotation::Rotation;
use vmdt_testkit::LinkConfig;
use vmdt_wire::{Line, Message};

/// Five nodes of which the first four are in a cluster; the fifth is there for a new key.
fn world(seed: u64) -> (World, ClusterId) {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::new(seed, 5, link, |_| {});
    let cluster = w.cluster_of(4, 3, 2);
    (w, cluster)
}

fn changes(w: &World, at: usize) -> Vec<(NodeId, NodeId, Option<String>)> {
    let change = |event: &Event| match event {
        Event::KeyChanged {
            old, new, petname, ..
        } => Some((*old, *new, petname.clone())),
        _ => None,
    };
    w.hosts[at].events.iter().filter_map(change).collect()
}

fn is_member(w: &World, at: usize, cluster: ClusterId, id: NodeId) -> bool {
    let roster = w.hosts[at].core.member().cluster(cluster).unwrap();
    let trusted = roster.sealed().unwrap().trust().unwrap().is_member(id);
    trusted && roster.member(id).is_some()
}

/// Node 1 goes on as node 4.
fn moved(w: &mut World) -> KeyChange {
    let new = w.identity(4);
    let change = w.with(1, |core, now| core.change_key(now, &new).unwrap());
    w.kill(1);
    change
}

#[test]
fn members_follow_a_node_to_its_new_key_and_keep_its_petname() {
    let (mut w, cluster) = world(1);
    let (old, new) = (w.id(1), w.id(4));
    w.with(0, |core, _| core.set_petname(old, Some("Bob")).unwrap());
    let change = moved(&mut w);
    assert_eq!(change.statement.old_key().node_id(), old);
    let [(of, membership)] = &change.memberships[..] else {
        panic!("it was in one cluster");
    };
    assert_eq!(*of, cluster);
    let request = w.with(4, |core, now| core.rejoin(now, membership).unwrap());
    let reply = w.reply(4, request);
    assert!(matches!(reply, Ok(Reply::Joined { .. })), "{reply:?}");
    w.run_for(Duration::from_secs(5));

    for at in [0, 2, 3] {
        assert!(is_member(&w, at, cluster, new), "for {at}");
        assert!(!is_member(&w, at, cluster, old), "for {at}");
        let petname = (at == 0).then(|| "Bob".to_owned());
        assert_eq!(changes(&w, at), [(old, new, petname)], "for {at}");
    }
    let core = &w.hosts[0].core;
    assert_eq!((core.petname(old), core.petname(new)), (None, Some("Bob")));
    assert!(changes(&w, 4).is_empty(), "it knew of no other key");

    // it can be written to, and writes
    for (from, to) in [(0, 4), (4, 2)] {
        let text = Bytes::from(format!("to {to}"));
        let id = w.send(from, to, None, text.clone()).unwrap();
        w.run_until(Duration::from_secs(20), |w| {
            w.hosts[from].done.contains_key(&id)
        })
        .unwrap();
        w.hosts[from].done[&id].as_ref().unwrap();
        let got = w.hosts[to].received.last();
        assert!(matches!(got, Some(Received::Message { data, .. }) if *data == text));
    }
    // and the old id can't
    assert!(w.send(0, 1, None, Bytes::from_static(b"?")).is_err());

    // who has the old key, a thief perhaps, does not come back with it
    w.restart(1);
    w.run_for(Duration::from_secs(10));
    let stolen = Membership::parse(&change.memberships[0].1)
        .unwrap()
        .first_key();
    assert_eq!(stolen.node_id(), old);
    let own = certificate(membership);
    let request = w.with(1, |core, now| core.rejoin(now, &own).unwrap());
    assert!(w.reply(1, request).is_err());
    assert!(!is_member(&w, 0, cluster, old));
}

/// A membership without the changes behind it.
fn certificate(membership: &[u8]) -> Vec<u8> {
    let changes = Membership::parse(membership).unwrap().changes().len();
    membership[..membership.len() - changes * vmdt_seal::rotation::ROTATION_LEN].to_vec()
}

#[test]
fn a_forged_change_of_key_is_refused_by_the_server_and_by_members_whatever_the_server_says() {
    let (mut w, cluster) = world(2);
    let (old, mallory) = (w.id(1), w.id(4));
    let own = w.hosts[1].core.member().cluster(cluster).unwrap();
    let genuine = own.sealed().unwrap().own_membership().clone();
    let right = w.with(1, {
        let new = w.identity(4);
        move |core, now| core.change_key(now, &new).unwrap()
    });
    let right = &right.memberships[0].1;
    // Mallory has no signature of the old key: a flipped one, her own, or one for another node
    let mut flipped = right.to_vec();
    let at = genuine.len() + 2 + 32 + 32 + 8;
    flipped[at] ^= 1;
    let selfmade = Rotation::sign(&SecretIdentity::from_seed(&[66; 32]), &w.identity(4), 1);
    let selfmade = [&genuine[..], selfmade.octets()].concat();
    let carols = Rotation::sign(&w.identity(2), &w.identity(4), 1);
    let carols = [&genuine[..], carols.octets()].concat();
    for forged in [&flipped, &selfmade, &carols] {
        let refused = w.with(4, |core, now| core.rejoin(now, forged));
        assert!(matches!(refused, Err(ClusterError::Membership(_))));
        // a server that lies pushes it all the same
        let line = Line::slash(Message::Membership {
            cluster,
            id: mallory,
            membership: forged.clone(),
        });
        let line = line.emit().unwrap();
        w.with(0, |core, now| core.handle_control_bytes(now, &line));
        assert!(!is_member(&w, 0, cluster, mallory));
        assert!(is_member(&w, 0, cluster, old));
        assert!(changes(&w, 0).is_empty());
    }
    // nor does the genuine one make a member of another id
    let line = Line::slash(Message::Membership {
        cluster,
        id: w.id(3),
        membership: right.to_vec(),
    });
    let line = line.emit().unwrap();
    w.with(0, |core, now| core.handle_control_bytes(now, &line));
    assert!(changes(&w, 0).is_empty());
    // the genuine one does, whoever brings it
    let line = Line::slash(Message::Membership {
        cluster,
        id: mallory,
        membership: right.to_vec(),
    });
    let line = line.emit().unwrap();
    w.with(0, |core, now| core.handle_control_bytes(now, &line));
    assert_eq!(changes(&w, 0).len(), 1);
}

#[test]
fn a_node_takes_only_its_own_membership_along() {
    let (mut w, _) = world(3);
    let change = moved(&mut w);
    let id = w.id(4);
    let taken = w.with(2, |core, now| core.rejoin(now, &change.memberships[0].1));
    assert_eq!(taken, Err(ClusterError::OtherKey { id }));
    let same = w.identity(2);
    assert!(w.with(2, |core, now| core.change_key(now, &same)).is_err());
}

#[test]
fn a_server_that_lost_its_memory_hears_of_a_changed_key_again() {
    let (mut w, cluster) = world(4);
    let change = moved(&mut w);
    let request = w.with(4, |core, now| {
        core.rejoin(now, &change.memberships[0].1).unwrap()
    });
    w.reply(4, request).unwrap();
    w.run_for(Duration::from_secs(5));
    w.kill_server();
    w.restart_server();
    w.run_for(Duration::from_secs(120));
    for at in [0, 2, 3] {
        let roster = w.hosts[at].core.member().cluster(cluster).unwrap();
        assert!(roster.member(w.id(4)).is_some_and(|m| m.present), "{at}");
    }
}
