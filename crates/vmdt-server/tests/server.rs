//! A server on real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Client, PATIENCE, SERVER_SEED, local, who};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use vmdt_control::{Record, RecordKey};
use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
use vmdt_seal::invite::{Invite, InviteTerms, Rights};
use vmdt_seal::membership::Membership;
use vmdt_server::{
    Limits, MemoryStore, RedbStore, RegistryConfig, Server, ServerError, Store, StoreError,
};
use vmdt_tls::Failure;
use vmdt_wire::{Line, Message};

#[tokio::test]
async fn a_client_of_profile_1_0_is_served_on_the_plain_port() {
    let server = Server::open(local()).await.unwrap();
    let mut client = Client::plain(server.local_addr()).await;
    let reply = client.ask("REGISTER_P2P_PORT|alice|9001").await;
    assert_eq!(reply, "OK|P2P port registered");
    let reply = client.ask("CREATE_CLUSTER|alice|3|2").await;
    assert!(reply.starts_with("CLUSTER_CREATED|cluster_"), "{reply}");
    assert!(server.next_event().await.is_some());
    server.close().await;
    server.close().await;
    while server.next_event().await.is_some() {}
}

#[tokio::test]
async fn a_proven_client_acts_for_itself_and_for_nobody_else() {
    let server = Server::builder()
        .tls(local(), &SERVER_SEED)
        .start()
        .await
        .unwrap();
    let (alice, bob) = (who(1), who(2));
    let (a, b) = (alice.node_id(), bob.node_id());
    let mut client = Client::tls(server.local_addr(), &alice).await;
    let reply = client
        .tagged(&format!("REGISTER_P2P_PORT/{b}/9001/rdt"))
        .await;
    assert!(reply.starts_with("ERROR/bad-id/"), "{reply}");
    let reply = client.tagged("REGISTER_P2P_PORT/alice/9001/rdt").await;
    assert!(reply.starts_with("ERROR/bad-id/"), "{reply}");
    let reply = client
        .tagged(&format!("REGISTER_P2P_PORT/{a}/9001/rdt"))
        .await;
    assert_eq!(reply, "OK/P2P port registered");
    server.close().await;
}

#[tokio::test]
async fn the_plain_port_speaks_for_no_sealed_id() {
    let server = Server::builder()
        .plain(local())
        .tls(local(), &SERVER_SEED)
        .start()
        .await
        .unwrap();
    let id = who(1).node_id();
    let mut client = Client::plain(server.plain_addr().unwrap()).await;
    let requests = [
        format!("REGISTER_P2P_PORT|{id}|9001"),
        format!("CODE_OPEN|{id}"),
        "CODE_OPEN|mallory".to_owned(),
        format!("GET_PROFILE|mallory|{id}"),
    ];
    for request in requests {
        let reply = client.ask(&request).await;
        assert!(reply.starts_with("ERROR|unauthenticated: "), "{reply}");
    }
    server.close().await;
}

#[tokio::test]
async fn another_server_key_and_plain_octets_are_told_clearly() {
    let server = Server::builder()
        .tls(local(), &SERVER_SEED)
        .start()
        .await
        .unwrap();
    let error = Client::try_tls(server.local_addr(), &who(1), &[9; 32]).await;
    let failure = Failure::of(&error.err().unwrap());
    assert!(
        matches!(failure, Failure::WrongServerKey { .. }),
        "{failure}"
    );

    let mut plain = Client::plain(server.local_addr()).await;
    plain.send("REGISTER_P2P_PORT|alice|9001").await;
    let reply = plain.line().await.unwrap();
    assert!(reply.starts_with("ERROR|unauthenticated: "), "{reply}");
    assert_eq!(plain.line().await, None, "then the end");
    server.close().await;
}

#[tokio::test]
async fn a_client_that_closes_its_direction_still_gets_its_replies() {
    let server = Server::open(local()).await.unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(b"LIST_CLUSTERS|a\nHELLO\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut replies = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut replies))
        .await
        .unwrap()
        .unwrap();
    assert!(
        replies.starts_with("CLUSTER_LIST\nERROR|unknown-type"),
        "{replies}"
    );
    server.close().await;
}

#[tokio::test]
async fn last_words_arrive_though_input_was_left_unread() {
    let config = RegistryConfig::new().max_line(256).max_relay_line(256);
    let server = Server::open_with(local(), config).await.unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    // The server stops reading at the first line that is too long.
    let _ = stream.write_all(&[b'x'; 400_000]).await;
    let mut reply = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut reply))
        .await
        .unwrap();
    let reply = String::from_utf8(reply).unwrap();
    assert!(reply.starts_with("ERROR|line-too-long: "), "{reply}");
    server.close().await;
}

#[tokio::test]
async fn a_silent_or_slow_client_is_cut() {
    let config = RegistryConfig::new().first_line(Duration::from_millis(300));
    let server = Server::open_with(local(), config).await.unwrap();
    let mut slow = Client::plain(server.local_addr()).await;
    slow.stream.write_all(b"L").await.unwrap();
    let reply = slow.line().await.unwrap();
    assert!(reply.starts_with("ERROR|aborted: "), "{reply}");
    assert_eq!(slow.line().await, None);
    server.close().await;

    let limits = {
        let mut limits = Limits::default();
        limits.handshake = Duration::from_millis(300);
        limits
    };
    let builder = Server::builder().tls(local(), &SERVER_SEED).limits(limits);
    let server = builder.start().await.unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(&[0x16, 3, 1]).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("it is cut");
    server.close().await;
}

#[tokio::test]
async fn a_slow_reader_is_shed_and_the_others_are_served() {
    let config = RegistryConfig::new().max_backlog(16 * 1024);
    let server = Server::open_with(local(), config).await.unwrap();
    let mut creator = Client::plain(server.local_addr()).await;
    for i in 0..60 {
        let mut other = Client::plain(server.local_addr()).await;
        other.ask(&format!("CREATE_CLUSTER|c{i}|3|2")).await;
        // Left open for a while: the grace keeps the cluster.
    }
    let mut greedy = TcpStream::connect(server.local_addr()).await.unwrap();
    let requests = "LIST_CLUSTERS|greedy\n".repeat(2_000);
    let (mut reader, mut writer) = greedy.split();
    let write = async {
        let _ = writer.write_all(requests.as_bytes()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = write => {}
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    let reply = creator.ask("LIST_CLUSTERS|alice").await;
    assert!(reply.starts_with("CLUSTER_LIST|"), "{reply}");
    // What had been sent before it was shed is there, and then the end.
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, reader.read_to_end(&mut rest))
        .await
        .expect("it is shed");
    server.close().await;
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let mut limits = Limits::default();
    limits.connections_per_address = 2;
    let server = Server::builder()
        .plain(local())
        .limits(limits)
        .start()
        .await
        .unwrap();
    let mut first = Client::plain(server.local_addr()).await;
    let mut second = Client::plain(server.local_addr()).await;
    assert_eq!(first.ask("LIST_CLUSTERS|a").await, "CLUSTER_LIST");
    assert_eq!(second.ask("LIST_CLUSTERS|b").await, "CLUSTER_LIST");
    let mut third = Client::plain(server.local_addr()).await;
    assert_eq!(third.line().await, None, "it is turned away");
    drop(second);
    let again = async {
        loop {
            let mut client = Client::plain(server.local_addr()).await;
            let _ = client.stream.write_all(b"LIST_CLUSTERS|c\n").await;
            if client.line().await.is_some() {
                return;
            }
        }
    };
    timeout(PATIENCE, again)
        .await
        .expect("a place is free again");
    server.close().await;
}

#[tokio::test]
async fn closing_tells_the_clients_and_is_bounded() {
    let mut limits = Limits::default();
    limits.drain = Duration::from_secs(2);
    let server = Server::builder()
        .plain(local())
        .limits(limits)
        .start()
        .await
        .unwrap();
    let mut polite = Client::plain(server.local_addr()).await;
    polite.ask("LIST_CLUSTERS|polite").await;
    let mut stubborn = Client::plain(server.local_addr()).await;
    stubborn.ask("LIST_CLUSTERS|stubborn").await;
    let began = Instant::now();
    let told = async {
        let line = polite.line().await.unwrap();
        assert!(
            line.starts_with("ERROR|aborted: the server is stopping"),
            "{line}"
        );
        assert_eq!(polite.line().await, None);
    };
    tokio::join!(server.close(), told);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(TcpStream::connect(server.local_addr()).await.is_err());
    drop(stubborn);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_server() {
    let server = Server::open(local()).await.unwrap();
    let address = server.local_addr();
    let mut client = Client::plain(address).await;
    client.ask("LIST_CLUSTERS|a").await;
    drop(server.clone());
    assert_eq!(client.ask("LIST_CLUSTERS|a").await, "CLUSTER_LIST");
    drop(server);
    let line = client.line().await.unwrap();
    assert!(line.starts_with("ERROR|aborted: "), "{line}");
}

#[tokio::test]
async fn a_server_without_a_port_or_with_a_taken_one_does_not_start() {
    let none = Server::builder().start().await;
    assert!(matches!(none, Err(ServerError::NoPort)));
    let server = Server::open(local()).await.unwrap();
    let taken = Server::open(server.local_addr()).await;
    assert!(matches!(taken, Err(ServerError::Bind { .. })));
    server.close().await;
}

async fn survives_a_restart(open: impl Fn() -> Box<dyn Store>) {
    struct Boxed(Box<dyn Store>);
    impl Store for Boxed {
        fn load(&mut self) -> Result<Vec<(RecordKey, Bytes)>, StoreError> {
            self.0.load()
        }
        fn commit(&mut self, batch: &[Record]) -> Result<(), StoreError> {
            self.0.commit(batch)
        }
    }
    let start = async || {
        let builder = Server::builder().plain(local()).store(Boxed(open()));
        builder.start().await.unwrap()
    };
    let server = start().await;
    let mut alice = Client::plain(server.local_addr()).await;
    alice.ask("REGISTER_P2P_PORT|alice|9001|rdt").await;
    let made = alice.ask("CREATE_CLUSTER|alice|3|2|max=7").await;
    let cluster = made.strip_prefix("CLUSTER_CREATED|").unwrap().to_owned();
    let mut bob = Client::plain(server.local_addr()).await;
    bob.ask("REGISTER_P2P_PORT|bob|9002|rdt").await;
    bob.ask(&format!("JOIN_CLUSTER|bob|{cluster}")).await;
    let mut carol = Client::plain(server.local_addr()).await;
    let gone = carol.ask("CREATE_CLUSTER|carol|3|2").await;
    carol.ask("LEAVE_CLUSTER|carol").await;
    server.close().await;

    let server = start().await;
    let mut bob = Client::plain(server.local_addr()).await;
    bob.ask("REGISTER_P2P_PORT|bob|9002|rdt").await;
    let joined = bob.tagged(&format!("JOIN_CLUSTER/bob/{cluster}")).await;
    assert_eq!(joined, format!("CLUSTER_JOINED/{cluster}/3/2/open=0,max=7"));
    let members = bob
        .tagged(&format!("GET_CLUSTER_MEMBERS/bob/{cluster}"))
        .await;
    assert_eq!(members, "CLUSTER_MEMBERS/alice/bob");
    let gone = gone.strip_prefix("CLUSTER_CREATED|").unwrap();
    let lost = bob.tagged(&format!("JOIN_CLUSTER/bob/{gone}")).await;
    assert!(lost.starts_with("ERROR/unknown-cluster/"), "{lost}");
    server.close().await;
}

#[tokio::test]
async fn a_restart_loses_no_cluster_in_memory() {
    let store = MemoryStore::new();
    survives_a_restart(|| Box::new(store.clone())).await;
}

#[tokio::test]
async fn a_restart_loses_no_cluster_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    survives_a_restart(|| Box::new(RedbStore::open(&path).unwrap())).await;
}

#[tokio::test]
async fn a_sealed_cluster_is_made_and_joined_over_tls_and_outlives_the_server() {
    let (alice, bob) = (who(1), who(2));
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let details = DescriptorDetails {
        k: 2,
        n: 2,
        options: 0,
        name: "garden".to_owned(),
        created_ms: unix_ms(),
    };
    let descriptor = Descriptor::sign(&alice, &details, &mut rng).unwrap();
    let terms = InviteTerms {
        rights: Rights::MEMBER,
        expires_ms: unix_ms() + 3_600_000,
        max_uses: 0,
    };
    let (invite, secret) = Invite::issue(&alice, None, &descriptor, &terms, &mut rng).unwrap();
    let cluster = descriptor.cluster();
    let create = Message::CreateSealed {
        client: alice.node_id(),
        descriptor: descriptor.octets().to_vec(),
        membership: Membership::of_creator(&alice, &descriptor, unix_ms())
            .unwrap()
            .octets()
            .to_vec(),
    };
    let join = Message::JoinSealed {
        client: bob.node_id(),
        cluster,
        membership: Membership::accept(&invite, &secret, bob.public(), unix_ms())
            .unwrap()
            .octets()
            .to_vec(),
    };
    let text = |message: &Message| {
        let line = Line::slash(message.clone()).emit().unwrap();
        let line = String::from_utf8(line).unwrap();
        line.trim_end()
            .strip_prefix("VMDT/TCP/1.0/")
            .unwrap()
            .to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let start = async || {
        let store = RedbStore::open(&path).unwrap();
        let builder = Server::builder().tls(local(), &SERVER_SEED).store(store);
        builder.start().await.unwrap()
    };
    let client = async |server: &Server, identity| {
        let mut client = Client::tls(server.local_addr(), identity).await;
        let id = identity.node_id();
        client
            .tagged(&format!("REGISTER_P2P_PORT/{id}/9000/rdt"))
            .await;
        client
    };
    let server = start().await;
    let mut a = client(&server, &alice).await;
    let made = a.tagged(&text(&create)).await;
    assert!(
        made.starts_with(&format!("CLUSTER_CREATED/{cluster}/2/2/")),
        "{made}"
    );
    let mut b = client(&server, &bob).await;
    let joined = b.tagged(&text(&join)).await;
    assert!(
        joined.starts_with(&format!("CLUSTER_JOINED/{cluster}/2/2/")),
        "{joined}"
    );
    a.find(&format!(
        "VMDT/TCP/1.0/MEMBERSHIP/{cluster}/{}/",
        bob.node_id()
    ))
    .await;
    a.find(&format!("VMDT/TCP/1.0/CLUSTER_READY/{cluster}"))
        .await;
    server.close().await;

    let server = start().await;
    let mut b = client(&server, &bob).await;
    b.send(&format!("VMDT/TCP/1.0/{}/~1", text(&join))).await;
    b.find(&format!("VMDT/TCP/1.0/CLUSTER_JOINED/{cluster}/"))
        .await;
    b.find(&format!(
        "VMDT/TCP/1.0/MEMBERSHIP/{cluster}/{}/",
        alice.node_id()
    ))
    .await;
    let away = b.find(&format!("VMDT/TCP/1.0/MEMBER/{cluster}/")).await;
    assert!(away.contains("/away"), "{away}");
    server.close().await;
}

#[allow(clippy::disallowed_methods)]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_millis() as u64
}

/// Fails as long as it is told to.
struct Moody {
    fails: Arc<AtomicBool>,
    commits: Arc<AtomicUsize>,
}

impl Store for Moody {
    fn load(&mut self) -> Result<Vec<(RecordKey, Bytes)>, StoreError> {
        Ok(Vec::new())
    }

    fn commit(&mut self, _: &[Record]) -> Result<(), StoreError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(StoreError::Other("no space left".to_owned())),
            false => {
                self.commits.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_confirmed_that_is_not_kept() {
    let fails = Arc::new(AtomicBool::new(true));
    let commits = Arc::new(AtomicUsize::new(0));
    let store = Moody {
        fails: Arc::clone(&fails),
        commits: Arc::clone(&commits),
    };
    let builder = Server::builder()
        .plain(local())
        .http(local(), None)
        .store(store);
    let server = builder.start().await.unwrap();
    let mut client = Client::plain(server.local_addr()).await;
    client.send("CREATE_CLUSTER|alice|3|2").await;
    let early = timeout(Duration::from_millis(700), client.stream.read_u8()).await;
    assert!(early.is_err(), "a reply though nothing was kept");
    let (status, _) = get(&server, "/readyz", None).await;
    assert_eq!(status, 503);
    fails.store(false, Ordering::SeqCst);
    let reply = client.line().await.unwrap();
    assert!(reply.starts_with("CLUSTER_CREATED|"), "{reply}");
    assert_eq!(commits.load(Ordering::SeqCst), 1);
    assert_eq!(get(&server, "/readyz", None).await.0, 200);

    fails.store(true, Ordering::SeqCst);
    client.send("LEAVE_CLUSTER|alice").await;
    timeout(PATIENCE, server.close())
        .await
        .expect("it closes all the same");
}

/// Status and body.
async fn get(server: &Server, path: &str, token: Option<&str>) -> (u16, String) {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let authorization = authorization.unwrap_or_default();
    request(
        server,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n"),
    )
    .await
}

async fn request(server: &Server, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.http_addr().unwrap())
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn operators_see_health_metrics_and_with_the_token_clusters() {
    const TOKEN: &str = "0123456789abcdef";
    let builder = Server::builder()
        .plain(local())
        .http(local(), Some(TOKEN.to_owned()));
    let server = builder.start().await.unwrap();
    let mut client = Client::plain(server.local_addr()).await;
    client.ask("REGISTER_P2P_PORT|alice|9001").await;
    let made = client.ask("CREATE_CLUSTER|alice|3|2").await;
    let cluster = made.strip_prefix("CLUSTER_CREATED|").unwrap();

    assert_eq!(
        get(&server, "/healthz", None).await,
        (200, "ok\n".to_owned())
    );
    assert_eq!(
        get(&server, "/readyz", None).await,
        (200, "ready\n".to_owned())
    );
    let (status, metrics) = get(&server, "/metrics", None).await;
    assert_eq!(status, 200);
    for line in [
        "vmdt_clusters 1",
        "vmdt_connections 1",
        "vmdt_lines_total 2",
        "vmdt_ready 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}: {metrics}"
        );
    }
    assert!(!metrics.contains("alice"), "no ids in metrics");

    for token in [
        None,
        Some(""),
        Some("0123456789abcdeF"),
        Some("0123456789abcdef0"),
        Some("0123"),
    ] {
        assert_eq!(
            get(&server, "/clusters.json", token).await.0,
            401,
            "{token:?}"
        );
    }
    let (status, json) = get(&server, "/clusters.json", Some(TOKEN)).await;
    assert_eq!(status, 200);
    assert_eq!(
        json.trim_end(),
        format!(
            "[{{\"id\":\"{cluster}\",\"creator\":\"alice\",\"n\":3,\"k\":2,\"state\":\"CREATING\",\
             \"sealed\":false,\"open_peers\":true,\"members\":[{{\"id\":\"alice\",\"present\":true,\
             \"address\":\"127.0.0.1:9001\",\"claimed\":[]}}]}}]"
        )
    );
    assert_eq!(get(&server, "/relay.json", None).await.0, 401);
    let (status, json) = get(&server, "/relay.json", Some(TOKEN)).await;
    assert_eq!((status, json.trim_end()), (200, "[]"));
    assert_eq!(get(&server, "/", None).await.0, 404);
    assert_eq!(
        request(&server, "POST /metrics HTTP/1.1\r\n\r\n").await.0,
        405
    );
    assert_eq!(request(&server, "NONSENSE\r\n\r\n").await.0, 400);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(9_000));
    assert_eq!(request(&server, &long).await.0, 400);
    let (status, body) = request(&server, "HEAD /healthz HTTP/1.1\r\n\r\n").await;
    assert_eq!((status, body.as_str()), (200, ""));
    server.close().await;
}

#[tokio::test]
async fn without_a_token_nobody_sees_clusters() {
    let server = Server::builder()
        .plain(local())
        .http(local(), None)
        .start()
        .await
        .unwrap();
    assert_eq!(get(&server, "/clusters.json", Some("")).await.0, 401);
    server.close().await;
}
