//! Several servers, and none: what members do when those they know are gone and come back.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::time::Duration;

use vmdt_node::{ClusterStatus, Event, Events, Node, NodeId, Policy, Server};

const SEED: [u8; 32] = [9; 32];

/// No test of this file waits longer for anything.
async fn within<F: Future>(what: &str, f: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(60), f).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took more than a minute"),
    }
}

async fn start(at: SocketAddr) -> Server {
    Server::builder().tls(at, &SEED).start().await.unwrap()
}

async fn event(what: &str, events: &mut Events, fits: impl Fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.next().await.expect("the node is open");
            if fits(&event) {
                return event;
            }
        }
    };
    within(what, found).await
}

/// Waits until the server has named a member to a node.
async fn knows(node: &Node, member: NodeId, events: &mut Events) {
    let named = |cluster: &ClusterStatus| cluster.members.iter().any(|m| m.id == member);
    while !node.clusters().await.unwrap().iter().any(named) {
        events.next().await.expect("the node is open");
    }
}

async fn sends(from: &Node, to: &Node, inbox: &mut Events, text: &[u8]) {
    let mut sending = from.send(to.id(), text).await.unwrap();
    let arrived = event("a message", inbox, |event| {
        matches!(event, Event::Message { .. })
    });
    let (arrived, receipt) = tokio::join!(arrived, within("the receipt", sending.delivered()));
    receipt.unwrap();
    match arrived {
        Event::Message { data, .. } => assert_eq!(data, text),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn with_every_server_down_members_go_on_and_return_to_whichever_is_back() {
    let local = "127.0.0.1:0".parse().unwrap();
    let (first, second) = (start(local).await, start(local).await);
    let urls = [first.url().unwrap(), second.url().unwrap()];
    let spare = second.tls_addr().unwrap();
    second.close().await;

    let mut nodes = Vec::new();
    let mut inboxes = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let builder = Node::builder().local(local).name(name);
        let builder = builder.server(&urls[0]).server(&urls[1]);
        let node = builder.bind().await.unwrap();
        inboxes.push(node.events());
        nodes.push(node);
    }
    let cluster = nodes[0].create_cluster(Policy::k_of_n(2, 3)).await.unwrap();
    let ticket = cluster.ticket().await.unwrap();
    let mut joined = Vec::new();
    for node in &nodes[1..] {
        joined.push(within("joining", node.join(&ticket)).await.unwrap());
    }
    within("readiness", cluster.ready()).await.unwrap();
    for cluster in &joined {
        within("readiness", cluster.ready()).await.unwrap();
    }

    // Nobody has spoken to anybody yet: what they know is what the server has said.
    first.close().await;
    for inbox in &mut inboxes {
        event("the loss", inbox, |event| {
            matches!(event, Event::ServerLost { .. })
        })
        .await;
    }
    sends(&nodes[0], &nodes[1], &mut inboxes[1], b"without a server").await;
    sends(&nodes[2], &nodes[0], &mut inboxes[0], b"nor with another").await;

    // Another server returns, which knows nothing: the members bring their cluster with them.
    let back = start(spare).await;
    for inbox in &mut inboxes {
        event("the return", inbox, |event| {
            matches!(event, Event::Registered)
        })
        .await;
    }
    // a node is told of the others when they have come back too
    within(
        "the third member",
        knows(&nodes[1], nodes[2].id(), &mut inboxes[1]),
    )
    .await;
    sends(
        &nodes[1],
        &nodes[2],
        &mut inboxes[2],
        b"with a server again",
    )
    .await;
    let builder = Node::builder().local(local).name("dave");
    let dave = builder.server(&urls[1]).bind().await.unwrap();
    let mut inbox = dave.events();
    let member = within("joining", dave.join(&ticket)).await.unwrap();
    within("readiness", member.ready()).await.unwrap();
    event(
        "word of the newcomer",
        &mut inboxes[0],
        |event| matches!(event, Event::Member { id, .. } if *id == dave.id()),
    )
    .await;
    sends(&nodes[0], &dave, &mut inbox, b"who has come later").await;
    for node in nodes.iter().chain([&dave]) {
        node.close().await;
    }
    back.close().await;
}
