//! Nodes and a server on loopback sockets: what a program that uses the crate sees.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::PathBuf;
use std::time::Duration;

use rand_chacha::rand_core::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use vmdt_node::{
    Carried, Carrier, Cluster, ClusterMemory, Event, Node, NodeBuilder, NodeError, Policy,
    SecretIdentity, Server, TransferError,
};

/// No test of this file waits longer for anything.
async fn within<F: Future>(what: &str, f: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(60), f).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took more than a minute"),
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("vmdt-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn local() -> NodeBuilder {
    Node::builder().local("127.0.0.1:0".parse().unwrap())
}

async fn server() -> Server {
    Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

/// A ready cluster of n nodes on one server.
async fn cluster(
    k: u8,
    n: u8,
    tune: impl Fn(usize, NodeBuilder) -> NodeBuilder,
) -> (Server, Vec<Node>, Cluster) {
    let server = server().await;
    let at = server.url().unwrap();
    let mut nodes = Vec::new();
    for i in 0..usize::from(n) {
        let builder = local().server(&at).name(format!("node{i}"));
        nodes.push(tune(i, builder).bind().await.unwrap());
    }
    let cluster = within("creating", nodes[0].create_cluster(Policy::k_of_n(k, n)))
        .await
        .unwrap();
    let mut all = vec![cluster.clone()];
    let ticket = cluster.ticket().await.unwrap();
    for node in &nodes[1..] {
        all.push(within("joining", node.join(&ticket)).await.unwrap());
    }
    for c in &all {
        within("becoming ready", c.ready()).await.unwrap();
    }
    (server, nodes, cluster)
}

async fn message(node: &Node) -> (vmdt_node::NodeId, Vec<u8>, vmdt_node::Paths) {
    let mut events = node.events();
    loop {
        let event = within("a message", events.next()).await;
        if let Event::Message {
            from, data, paths, ..
        } = event.expect("the node is open")
        {
            return (from, data.to_vec(), paths);
        }
    }
}

fn octets(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[tokio::test]
async fn messages_of_every_size_arrive_and_nobody_carries_k_shares() {
    let (_server, nodes, _) = cluster(3, 5, |_, b| b).await;
    for len in [0, 1, 1_392, 1_393, 100_000, 1_000_000] {
        let content = octets(len);
        let mut sending = nodes[1].send(nodes[4].id(), &content).await.unwrap();
        let (received, receipt) = tokio::join!(message(&nodes[4]), sending.delivered());
        let receipt = receipt.unwrap();
        let (from, data, paths) = received;
        assert_eq!((from, data.len()), (nodes[1].id(), len));
        assert!(data == content);
        assert_eq!(receipt.octets, len as u64);
        assert_eq!(receipt.digest, *blake3::hash(&content).as_bytes());
        let segments = (len.div_ceil(128 * 1024)).max(1) as u64;
        // the link to the receiver itself may carry what is left when the others had their turns
        let others = |(carrier, _): &(&Carrier, &Carried)| **carrier != Carrier::Direct;
        for (carrier, carried) in receipt.paths().iter().chain(&paths).filter(others) {
            assert!(
                carried.shares < 3 * segments,
                "{carrier} had {} shares of {len} octets",
                carried.shares
            );
            assert_ne!(*carrier, Carrier::Server, "no relay is needed");
        }
    }
}

#[tokio::test]
async fn a_file_arrives_under_its_name_with_six_percent_loss() {
    let folder = Folder::new("file");
    let source = folder.0.join("report.bin");
    let content = octets(3_000_000);
    std::fs::write(&source, &content).unwrap();
    let downloads = folder.0.join("in");
    let (_server, nodes, _) = cluster(3, 5, |i, b| {
        let b = b.inject_loss(0.06, i as u64);
        if i == 3 { b.downloads(&downloads) } else { b }
    })
    .await;
    for name in ["report.bin", "report (1).bin"] {
        let mut sending = nodes[0].send_path(nodes[3].id(), &source).await.unwrap();
        let mut progress = sending.progress();
        let watch = async move {
            let mut last = 0;
            while let Some(p) = progress.next().await {
                assert!(p.delivered >= last && p.total == Some(3_000_000));
                last = p.delivered;
            }
            last
        };
        let mut events = nodes[3].events();
        let received = async {
            loop {
                match events.next().await.unwrap() {
                    Event::FileReceived {
                        path, digest, size, ..
                    } => return (path, digest, size),
                    Event::ReceiveFailed { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
        };
        let (receipt, (path, digest, size), last) = within("the file", async {
            tokio::join!(sending.delivered(), received, watch)
        })
        .await;
        let receipt = receipt.unwrap();
        assert_eq!((size, last), (3_000_000, 3_000_000));
        assert_eq!(digest, receipt.digest);
        assert_eq!(path, downloads.join(name));
        assert!(std::fs::read(&path).unwrap() == content);
    }
    assert_eq!(
        std::fs::read_dir(&downloads).unwrap().count(),
        2,
        "no .part is left"
    );
    let (sent, dropped) = nodes[0].injected_loss();
    assert!(
        dropped * 100 > sent * 4 && dropped * 100 < sent * 8,
        "{dropped} of {sent}"
    );
}

#[tokio::test]
async fn an_empty_file_arrives() {
    let folder = Folder::new("empty");
    let source = folder.0.join("empty");
    std::fs::write(&source, b"").unwrap();
    let downloads = folder.0.join("in");
    let (_server, nodes, _) = cluster(
        2,
        3,
        |i, b| if i == 1 { b.downloads(&downloads) } else { b },
    )
    .await;
    let mut sending = nodes[0].send_path(nodes[1].id(), &source).await.unwrap();
    assert_eq!(
        within("delivery", sending.delivered())
            .await
            .unwrap()
            .octets,
        0
    );
    assert_eq!(std::fs::read(downloads.join("empty")).unwrap(), b"");
}

#[tokio::test]
async fn a_node_without_a_folder_refuses_files_and_says_so() {
    let folder = Folder::new("refuse");
    let source = folder.0.join("x");
    std::fs::write(&source, octets(10)).unwrap();
    let (_server, nodes, _) = cluster(2, 3, |_, b| b).await;
    let mut sending = nodes[0].send_path(nodes[1].id(), &source).await.unwrap();
    let error = within("the refusal", sending.delivered())
        .await
        .unwrap_err();
    assert!(matches!(&error, TransferError::Remote { .. }), "{error}");
    assert!(error.to_string().contains("no download folder"), "{error}");
    // messages still pass
    let mut sending = nodes[0].send(nodes[1].id(), b"x").await.unwrap();
    let (_, receipt) = tokio::join!(message(&nodes[1]), sending.delivered());
    receipt.unwrap();
}

#[tokio::test]
async fn two_members_need_nobody_else_since_the_message_is_sealed_to_its_receiver() {
    let (_server, nodes, _) = cluster(2, 2, |_, b| b.allow_relay(false)).await;
    let mut sending = nodes[0].send(nodes[1].id(), b"between us").await.unwrap();
    let (received, receipt) = tokio::join!(message(&nodes[1]), sending.delivered());
    assert_eq!(received.1, b"between us");
    let paths = receipt.unwrap().paths;
    assert_eq!(paths.keys().collect::<Vec<_>>(), [&Carrier::Direct]);
}

/// Two nodes of profile 1.0.
async fn open_pair(relay: bool) -> (Server, Vec<Node>) {
    let server = Server::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = server.local_addr().to_string();
    let mut nodes = Vec::new();
    for id in ["a", "b"] {
        let node = local().server(&at).open_profile(id).allow_relay(relay);
        nodes.push(node.bind().await.unwrap());
    }
    let cluster = within("creating", nodes[0].create_cluster(Policy::k_of_n(2, 2)))
        .await
        .unwrap();
    within("joining", nodes[1].join_cluster(cluster.id()))
        .await
        .unwrap();
    within("becoming ready", cluster.ready()).await.unwrap();
    (server, nodes)
}

#[tokio::test]
async fn in_the_open_profile_two_use_the_server_for_the_share_the_direct_link_may_not_have() {
    let (_server, nodes) = open_pair(true).await;
    let mut sending = nodes[0].send(nodes[1].id(), b"between us").await.unwrap();
    let (received, receipt) = tokio::join!(message(&nodes[1]), sending.delivered());
    assert_eq!(received.1, b"between us");
    let paths = receipt.unwrap().paths;
    assert_eq!(
        paths.keys().collect::<Vec<_>>(),
        [&Carrier::Direct, &Carrier::Server]
    );
    assert!(paths.values().all(|c| c.shares == 1));
}

#[tokio::test]
async fn in_the_open_profile_two_without_a_relay_are_told_the_numbers() {
    let (_server, nodes) = open_pair(false).await;
    let error = nodes[0].send(nodes[1].id(), b"x").await.unwrap_err();
    let NodeError::Transfer(TransferError::Placement(p)) = error else {
        panic!("{error}")
    };
    assert!(
        matches!(
            p,
            vmdt_node::PlacementError::TooFewCarriers {
                placeable: 1,
                needed: 2,
                cap: 1,
                ..
            }
        ),
        "{p}"
    );
}

#[tokio::test]
async fn wrong_requests_get_errors_that_say_what_to_do() {
    let server = server().await;
    let at = server.url().unwrap();
    let a = local().server(&at).name("a").bind().await.unwrap();
    let error = within("refusal", a.create_cluster(Policy::k_of_n(1, 3)))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("creating a cluster"), "{error}");
    let none = "cluster_none".parse().unwrap();
    let error = within("refusal", a.join_cluster(&none)).await.unwrap_err();
    assert!(error.to_string().contains("ticket"), "{error}");
    let error = a.send("nobody".parse().unwrap(), b"x").await.unwrap_err();
    assert!(
        error.to_string().contains("nobody is in no cluster"),
        "{error}"
    );
    let error = a.send(a.id(), b"x").await.unwrap_err();
    assert!(matches!(error, NodeError::Transfer(TransferError::ToSelf)));
    let cluster = within("creating", a.create_cluster(Policy::k_of_n(2, 3)))
        .await
        .unwrap();
    let b = local().server(&at).name("b").bind().await.unwrap();
    let ticket = cluster.ticket().await.unwrap();
    within("joining", b.join(&ticket)).await.unwrap();
    let error = loop {
        // the roster follows the reply by a moment
        let error = b.send(a.id(), b"x").await.unwrap_err();
        if !matches!(
            error,
            NodeError::Transfer(TransferError::UnknownPeer { .. })
        ) {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(error.to_string().contains("2 of 3 members"), "{error}");
    let error = a.send_path(b.id(), "/no/such/file").await.unwrap_err();
    assert!(
        error.to_string().contains("/no/such/file does not exist"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_in_bounded_time() {
    let key = vmdt_node::SecretIdentity::from_seed(&[9; 32]).public();
    // a port that was free a moment ago
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let a = local()
        .server(format!("vmdt://{key}@{gone}"))
        .request_timeout(Duration::from_secs(1));
    let a = a.bind().await.unwrap();
    let error = within("the error", a.create_cluster(Policy::k_of_n(2, 3)))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("creating a cluster"), "{error}");
    a.close().await;
}

#[tokio::test]
async fn a_server_with_another_key_is_not_spoken_to() {
    let server = server().await;
    let other = self::server().await;
    let key = other.url().unwrap();
    let key = key.rsplit_once('@').unwrap().0;
    let a = local()
        .server(format!("{key}@{}", server.local_addr()))
        .request_timeout(Duration::from_secs(1));
    let a = a.bind().await.unwrap();
    let error = within("the error", a.create_cluster(Policy::k_of_n(2, 3)))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("expected was"), "{error}");
    a.close().await;
}

#[tokio::test]
async fn a_ticket_of_another_cluster_or_out_of_date_opens_nothing() {
    let (_server, nodes, cluster) = cluster(2, 3, |_, b| b).await;
    let terms = vmdt_node::seal::invite::InviteTerms {
        rights: vmdt_node::seal::invite::Rights::MEMBER,
        expires_ms: 1,
        max_uses: 0,
    };
    let old = cluster.invite(terms).await.unwrap();
    let late = local().ticket(&old).bind().await.unwrap();
    let error = within("the refusal", late.join(&old)).await.unwrap_err();
    assert!(error.to_string().contains("joining a cluster"), "{error}");
    // a member without the right to invite
    let other = nodes[1].clusters().await.unwrap();
    assert_eq!(other.len(), 1);
    late.close().await;
}

#[tokio::test]
async fn a_spoken_code_hands_over_a_ticket_and_a_wrong_one_ends_it() {
    let (server, nodes, cluster) = cluster(2, 2, |_, b| b).await;
    let at = server.url().unwrap();
    let ticket = cluster.ticket().await.unwrap().encode();
    let newcomer = local().server(&at).name("newcomer").bind().await.unwrap();

    let offer = within("a code", nodes[0].offer_code()).await.unwrap();
    let code: vmdt_node::Code = offer.code().to_string().to_uppercase().parse().unwrap();
    let (given, taken) = tokio::join!(
        within("giving", offer.give(ticket.as_bytes())),
        within("taking", newcomer.redeem_code(&code))
    );
    given.unwrap();
    let taken = taken.unwrap();
    assert_eq!(&**taken, ticket.as_bytes());
    let again = within("refusal", newcomer.redeem_code(&code)).await;
    assert!(again.is_err(), "a code is used once");
    let read: vmdt_node::Ticket = std::str::from_utf8(&taken).unwrap().parse().unwrap();
    within("joining", newcomer.join(&read)).await.unwrap();

    let offer = within("a code", nodes[0].offer_code()).await.unwrap();
    let number = offer.code().number();
    let wrong = (0..)
        .map(|seed| {
            let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(seed);
            vmdt_node::Code::generate(number, &mut rng).unwrap()
        })
        .find(|other| other.to_string() != offer.code().to_string())
        .unwrap();
    let right = offer.code().clone();
    let (given, taken) = tokio::join!(
        within("giving", offer.give(b"secret")),
        within("taking", newcomer.redeem_code(&wrong))
    );
    let wrong = vmdt_node::CodeFailure::Exchange(vmdt_node::seal::code::CodeError::WrongCode);
    for error in [given.unwrap_err(), taken.unwrap_err()] {
        assert!(matches!(error, NodeError::Code(f) if f == wrong), "{error}");
    }
    assert!(
        within("refusal", newcomer.redeem_code(&right))
            .await
            .is_err()
    );
    // Who offers it again keeps the words, with the number if that is free.
    let again = nodes[0].offer_code_again(&right);
    let again = within("the code again", again).await.unwrap();
    assert_eq!(again.code().to_string(), right.to_string());
    let another = nodes[0].offer_code_again(&right);
    let another = within("another code", another).await.unwrap();
    assert_ne!(another.code().number(), right.number());
    drop(another);
    let (given, taken) = tokio::join!(
        within("giving", again.give(b"secret")),
        within("taking", newcomer.redeem_code(&right))
    );
    given.unwrap();
    assert_eq!(&**taken.unwrap(), b"secret");
}

#[tokio::test]
async fn a_removed_member_is_out_for_everybody() {
    let (_server, nodes, cluster) = cluster(2, 3, |_, b| b).await;
    let gone = nodes[2].id();
    within("removing", cluster.remove(&[gone])).await.unwrap();
    let mut events = nodes[1].events();
    within("the news", async {
        loop {
            if let Event::Member { id, state, .. } = events.next().await.unwrap()
                && id == gone
                && state == vmdt_node::MemberState::Left
            {
                return;
            }
        }
    })
    .await;
    let error = nodes[2].send(nodes[0].id(), b"still here?").await;
    if let Ok(mut sending) = error {
        assert!(within("the refusal", sending.delivered()).await.is_err());
    }
}

#[tokio::test]
async fn after_close_everything_says_closed() {
    let (server, nodes, cluster) = cluster(2, 3, |_, b| b).await;
    let mut sending = nodes[0].send(nodes[1].id(), octets(10)).await.unwrap();
    let _ = within("delivery", sending.delivered()).await;
    nodes[0].close().await;
    nodes[0].close().await;
    assert!(matches!(
        nodes[0].send(nodes[1].id(), b"x").await,
        Err(NodeError::Closed)
    ));
    assert!(matches!(nodes[0].clusters().await, Err(NodeError::Closed)));
    assert!(matches!(cluster.ready().await, Err(NodeError::Closed)));
    let mut events = nodes[0].events();
    within("the end of events", async {
        while events.next().await.is_some() {}
    })
    .await;
    server.close().await;
    server.close().await;
}

#[tokio::test]
async fn nonsense_on_every_port_changes_nothing_for_the_others() {
    let (server, nodes, _) = cluster(2, 3, |_, b| b).await;
    let noise = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for node in &nodes {
        for len in [0, 1, 3, 63, 64, 79, 80, 81, 1_472, 9_000] {
            noise
                .send_to(&octets(len), node.local_addr())
                .await
                .unwrap();
            let mut half = b"VMDT1.0\0node0\0".to_vec();
            half.extend(octets(len));
            noise.send_to(&half, node.local_addr()).await.unwrap();
        }
    }
    let at = server.local_addr();
    // a megabyte without a line end, garbage, octet by octet, and one who never reads
    let mut long = TcpStream::connect(at).await.unwrap();
    let _ = long.write_all(&vec![b'A'; 1_000_000]).await;
    let mut answer = Vec::new();
    let _ = within("the answer", long.read_to_end(&mut answer)).await;
    let mut garbage = TcpStream::connect(at).await.unwrap();
    garbage
        .write_all(b"\xff\xfe\0\n\nHELLO|x\nCREATE_CLUSTER|x|y|z\n")
        .await
        .unwrap();
    let mut slow = TcpStream::connect(at).await.unwrap();
    for octet in b"LIST_CLUSTERS|slow\n" {
        slow.write_all(&[*octet]).await.unwrap();
        slow.flush().await.unwrap();
    }
    let mut line = vec![0; 4096];
    let n = within("the answer", slow.read(&mut line)).await.unwrap();
    assert!(
        line[..n].starts_with(b"ERROR|unauthenticated"),
        "{}",
        String::from_utf8_lossy(&line[..n])
    );
    let mut deaf = TcpStream::connect(at).await.unwrap();
    for _ in 0..2_000 {
        if deaf.write_all(b"LIST_CLUSTERS|deaf\n").await.is_err() {
            break;
        }
    }
    let mut sending = nodes[0].send(nodes[2].id(), b"still here").await.unwrap();
    let (received, receipt) = tokio::join!(message(&nodes[2]), sending.delivered());
    assert_eq!(received.1, b"still here");
    receipt.unwrap();
}

#[tokio::test]
async fn a_cancelled_transfer_leaves_no_file() {
    let folder = Folder::new("cancel");
    let source = folder.0.join("big");
    std::fs::write(&source, octets(8_000_000)).unwrap();
    let downloads = folder.0.join("in");
    let (_server, nodes, _) = cluster(
        2,
        3,
        |i, b| if i == 1 { b.downloads(&downloads) } else { b },
    )
    .await;
    let mut sending = nodes[0].send_path(nodes[1].id(), &source).await.unwrap();
    let mut events = nodes[1].events();
    loop {
        if let Event::FileStarted { name, size, .. } =
            within("the start", events.next()).await.unwrap()
        {
            assert_eq!((name.as_str(), size), ("big", Some(8_000_000)));
            break;
        }
    }
    sending.cancel().await;
    let error = within("the end", sending.delivered()).await.unwrap_err();
    assert!(matches!(error, TransferError::Cancelled { .. }), "{error}");
    loop {
        match within("the end", events.next()).await.unwrap() {
            Event::ReceiveFailed { error, .. } => {
                assert!(matches!(error, TransferError::Cancelled { .. }), "{error}");
                break;
            }
            Event::FileReceived { .. } => panic!("it was cancelled"),
            _ => {}
        }
    }
    nodes[1].close().await;
    assert_eq!(std::fs::read_dir(&downloads).unwrap().count(), 0);
}

#[tokio::test]
async fn a_receiver_that_closes_at_once_has_confirmed_what_it_took() {
    let (_server, nodes, _) = cluster(2, 3, |i, b| b.inject_loss(0.2, 90 + i as u64)).await;
    for round in 0..5 {
        let mut sending = nodes[0].send(nodes[1].id(), octets(2_000)).await.unwrap();
        let (_, receipt) = tokio::join!(message(&nodes[1]), sending.delivered());
        assert!(receipt.is_ok(), "{round}");
    }
    let mut sending = nodes[0].send(nodes[1].id(), b"last words").await.unwrap();
    let close = async {
        message(&nodes[1]).await;
        nodes[1].close().await;
    };
    let ((), receipt) = within("delivery", async {
        tokio::join!(close, sending.delivered())
    })
    .await;
    assert_eq!(receipt.unwrap().octets, 10);
}

#[tokio::test]
async fn one_message_and_one_file_go_to_all_at_once() {
    let folder = Folder::new("all");
    let source = folder.0.join("plan.bin");
    let content = octets(700_000);
    std::fs::write(&source, &content).unwrap();
    let (_server, nodes, cluster) =
        cluster(3, 5, |i, b| b.downloads(folder.0.join(format!("in{i}")))).await;
    let others: std::collections::BTreeSet<_> = nodes[1..].iter().map(Node::id).collect();
    let text = octets(5_000);
    let mut sending = cluster.send_to_all(&text).await.unwrap();
    let progress = sending.progress();
    for node in &nodes[1..] {
        let (from, data, _) = message(node).await;
        assert_eq!(from, nodes[0].id());
        assert!(data == text);
    }
    let receipt = within("all have it", sending.delivered()).await.unwrap();
    assert_eq!(receipt.digest, *blake3::hash(&text).as_bytes());
    assert_eq!(progress.latest().reached, others);
    let mut told = std::collections::BTreeSet::new();
    let mut events = nodes[0].events();
    while told.len() < others.len() {
        if let Some(Event::DeliveredTo { id, to }) = within("an event", events.next()).await {
            assert_eq!(id, sending.id());
            assert!(told.insert(to), "{to} is named twice");
        }
    }
    assert_eq!(told, others);

    let mut sending = cluster.send_path_to_all(&source).await.unwrap();
    let receipt = within("all have the file", sending.delivered())
        .await
        .unwrap();
    assert_eq!(receipt.octets, content.len() as u64);
    for i in 1..5 {
        let found = std::fs::read(folder.0.join(format!("in{i}/plan.bin"))).unwrap();
        assert!(found == content, "node {i}");
    }
}

#[tokio::test]
async fn a_group_that_can_not_be_sent_to_is_an_error_at_once() {
    let (_server, nodes, cluster) = cluster(2, 3, |_, b| b).await;
    let refused = |result: Result<vmdt_node::Sending, NodeError>| match result {
        Err(NodeError::Transfer(error)) => error,
        other => panic!("{other:?}"),
    };
    let (own, other) = (nodes[0].id(), nodes[2].id());
    let error = refused(nodes[0].send_to_group(&[], b"x").await);
    assert_eq!(error, TransferError::EmptyGroup);
    let error = refused(nodes[0].send_to_group(&[own, other], b"x").await);
    assert_eq!(error, TransferError::ToSelf);
    nodes[1].close().await;
    nodes[2].close().await;
    let gone = |status: &vmdt_node::ClusterStatus| {
        status.members.iter().all(|m| !m.present || m.id == own)
    };
    while !cluster
        .status()
        .await
        .unwrap()
        .is_none_or(|status| gone(&status))
    {
        within("an event", nodes[0].events().next()).await;
    }
    let error = refused(cluster.send_to_all(b"x").await);
    assert_eq!(error, TransferError::EmptyGroup);
}

#[tokio::test]
async fn a_node_without_express_announces_its_small_messages() {
    for on in [true, false] {
        let (_server, nodes, _) =
            cluster(2, 3, |i, b| if i == 0 { b.express(on) } else { b }).await;
        // the first may come before the members have agreed on anything
        for _ in 0..8 {
            let mut sending = nodes[0].send(nodes[1].id(), octets(100)).await.unwrap();
            let (received, receipt) = tokio::join!(message(&nodes[1]), sending.delivered());
            assert_eq!(received.1, octets(100));
            receipt.unwrap();
        }
        let (sent, received) = tokio::join!(nodes[0].stats(), nodes[1].stats());
        let (sent, received) = (sent.unwrap(), received.unwrap());
        assert_eq!(sent.express_sent > 0, on, "{sent:?}");
        assert_eq!(received.express_received > 0, on, "{received:?}");
    }
}

#[tokio::test]
async fn a_node_that_kept_its_memory_sends_when_the_server_is_gone() {
    let identity = SecretIdentity::from_seed(&[41; 32]);
    let own = identity.clone();
    let (server, nodes, known) = cluster(2, 3, |i, builder| match i {
        0 => builder.identity(own.clone()),
        _ => builder,
    })
    .await;
    let at = server.url().unwrap();
    let memory = within("the others' profiles", async {
        loop {
            let memory = known.memory().await.unwrap().unwrap();
            if memory.is_complete() {
                return memory;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let file = memory.encode();
    nodes[0].close().await;
    within("closing the server", server.close()).await;

    let again = local().server(&at).identity(identity.clone());
    let again = again.bind().await.unwrap();
    let memory = ClusterMemory::parse(&file).unwrap();
    let cluster = again.recall(&memory).await.unwrap();
    assert_eq!(cluster.id(), known.id());
    let mut sending = again.send(nodes[2].id(), b"still here").await.unwrap();
    let (received, receipt) = tokio::join!(message(&nodes[2]), sending.delivered());
    assert_eq!(
        (received.0, &received.1[..]),
        (again.id(), &b"still here"[..])
    );
    receipt.unwrap();

    // and nobody else can make use of it
    let other = local().server(&at).bind().await.unwrap();
    let refused = other.recall(&memory).await.unwrap_err();
    assert!(matches!(refused, NodeError::Memory(_)), "{refused}");
}
