//! A client of profile 1.0, played over plain TCP in the bar form, as deployed software behaves:
//! one line a connection between peers, one request at a time to the server.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vmdt_node::{Event, Node, NodeBuilder, NodeError, Policy, Server, TransferError};
use vmdt_ssms::{Share, Threshold};

async fn within<F: Future>(what: &str, f: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(60), f).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took more than a minute"),
    }
}

fn local() -> NodeBuilder {
    Node::builder().local("127.0.0.1:0".parse().unwrap())
}

/// What a 1.0 client does.
struct OldClient {
    id: &'static str,
    server: TcpStream,
    listener: TcpListener,
}

impl OldClient {
    async fn new(id: &'static str, server: &Server) -> OldClient {
        let stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = OldClient {
            id,
            server: stream,
            listener,
        };
        let reply = client.ask(&format!("REGISTER_P2P_PORT|{id}|{port}")).await;
        assert!(reply.starts_with("OK"), "{reply}");
        client
    }

    /// One request, one read of at most 4,095 octets, as deployed clients do it.
    async fn ask(&mut self, request: &str) -> String {
        self.server
            .write_all(format!("{request}\n").as_bytes())
            .await
            .unwrap();
        let mut buffer = [0; 4095];
        let n = within(request, self.server.read(&mut buffer))
            .await
            .unwrap();
        String::from_utf8(buffer[..n].to_vec())
            .unwrap()
            .trim_end()
            .to_owned()
    }

    async fn join(&mut self, cluster: &str) -> String {
        let id = self.id;
        self.ask(&format!("JOIN_CLUSTER|{id}|{cluster}")).await
    }

    /// The line of the next connection, whatever it is.
    async fn line(&self) -> String {
        let (mut stream, _) = within("a line", self.listener.accept()).await.unwrap();
        let mut buffer = [0; 4095];
        let mut len = 0;
        // one call reads what one segment brought; loopback may split it
        while !buffer[..len].ends_with(b"\n") {
            let n = within("the line", stream.read(&mut buffer[len..]))
                .await
                .unwrap();
            assert!(n > 0, "the line is cut off at {len} octets");
            len += n;
        }
        String::from_utf8(buffer[..len].to_vec())
            .unwrap()
            .trim_end()
            .to_owned()
    }

    async fn tell(&mut self, target: &str, line: &str) {
        let id = self.id;
        let info = self.ask(&format!("GET_CLIENT_INFO|{id}|{target}")).await;
        let parts: Vec<&str> = info.split('|').collect();
        assert_eq!(parts[0], "CLIENT_INFO", "{info}");
        let mut stream = TcpStream::connect((parts[1], parts[2].parse::<u16>().unwrap()))
            .await
            .unwrap();
        stream
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Shares for everyone, as 1.0 clients broadcast them.
    fn announce(&self, message: &str, to: &str, text: &[u8], n: u8, k: u8) -> String {
        let shares = vmdt_ssms::split_slice(
            Threshold::new(k, n).unwrap(),
            text,
            &mut <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::from_seed([7; 32]),
        )
        .unwrap();
        let mut line = format!("SHARE_POOL_ADD|{message}|{}|{to}|{n}|{k}|TEXT|", self.id);
        for (i, share) in shares.iter().enumerate() {
            line.push_str(&format!("|{i}:{}", BASE64.encode(&share.to_bytes())));
        }
        line
    }
}

/// What a 1.0 receiver makes of a SHARE_POOL_ADD line.
fn read_announced(line: &str) -> (String, String, Vec<u8>) {
    let parts: Vec<&str> = line.split('|').collect();
    assert_eq!(parts[0], "SHARE_POOL_ADD");
    assert_eq!(parts[6], "TEXT");
    let active: usize = parts[5].parse().unwrap();
    let shares: Vec<Share> = parts[8..]
        .iter()
        .take(active)
        .map(|entry| {
            let (index, octets) = entry.split_once(':').unwrap();
            let share = Share::parse(BASE64.decode(octets.as_bytes()).unwrap().into()).unwrap();
            assert_eq!(index.parse::<u8>().unwrap() + 1, share.index().get());
            share
        })
        .collect();
    (
        parts[1].to_owned(),
        parts[2].to_owned(),
        vmdt_ssms::reconstruct(&shares).unwrap(),
    )
}

async fn next_message(node: &Node) -> (String, Vec<u8>, bool) {
    let mut events = node.events();
    loop {
        if let Event::Message {
            from, data, open, ..
        } = within("a message", events.next()).await.unwrap()
        {
            return (from.to_string(), data.to_vec(), open);
        }
    }
}

#[tokio::test]
async fn a_client_of_profile_1_0_joins_and_talks_in_both_directions() {
    let server = Server::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = server.local_addr().to_string();
    let ours = local()
        .server(&at)
        .open_profile("ours")
        .allow_open_peers(true)
        .bind()
        .await
        .unwrap();
    let other = local()
        .server(&at)
        .open_profile("other")
        .allow_open_peers(true)
        .bind()
        .await
        .unwrap();
    let policy = Policy::k_of_n(2, 3).open_peers(true);
    let cluster = within("creating", ours.create_cluster(policy))
        .await
        .unwrap();
    within("joining", other.join_cluster(cluster.id()))
        .await
        .unwrap();

    let mut old = OldClient::new("client_12345", &server).await;
    let list = old.ask("LIST_CLUSTERS|client_12345").await;
    assert_eq!(list, format!("CLUSTER_LIST|{}:ours:3:2:2:0", cluster.id()));
    let joined = old.join(cluster.id().as_str()).await;
    assert_eq!(
        joined,
        format!("CLUSTER_JOINED|{0}\nCLUSTER_READY|{0}", cluster.id()),
        "it has the replies it expects in one read"
    );
    let members = old.ask("GET_CLUSTER_MEMBERS|client_12345").await;
    assert_eq!(members, "CLUSTER_MEMBERS|client_12345|other|ours");
    within("ready", cluster.ready()).await.unwrap();

    // from it to us; it broadcasts all shares to all, the others make nothing of them
    for (round, text) in ["hello, new world", "again"].into_iter().enumerate() {
        let name = "client_12345_ours_1700000000";
        let line = old.announce(name, "ours", text.as_bytes(), 3, 2);
        old.tell("other", &line).await;
        old.tell("ours", &line).await;
        let (from, data, open) = next_message(&ours).await;
        assert_eq!(
            (from.as_str(), data.as_slice(), open),
            ("client_12345", text.as_bytes(), true)
        );
        assert_eq!(old.line().await, format!("SHARE_POOL_ACK|{name}|ours"));
        assert_eq!(
            round,
            usize::from(text == "again"),
            "the same name, twice in a second"
        );
    }

    // from us to it
    let to = old.id.parse().unwrap();
    let mut sending = ours.send(to, b"hello, old world").await.unwrap();
    let (name, sender, text) = read_announced(&old.line().await);
    assert_eq!(
        (sender.as_str(), text.as_slice()),
        ("ours", b"hello, old world".as_slice())
    );
    old.tell("ours", &format!("SHARE_POOL_CLAIM|{name}|client_12345|0"))
        .await;
    old.tell("ours", &format!("SHARE_POOL_ACK|{name}|client_12345"))
        .await;
    let receipt = within("delivery", sending.delivered()).await.unwrap();
    assert_eq!(receipt.octets, 16);
    assert_eq!(old.line().await, format!("SHARE_POOL_REMOVE|{name}"));

    // more than it can read is refused, not cut off
    let mut sending = ours.send(to, vec![b'x'; 4_000]).await.unwrap();
    let error = within("the refusal", sending.delivered())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("4,095 octets"), "{error}");

    // ours still talk to each other, protected as before
    let mut sending = other.send(ours.id(), b"between us").await.unwrap();
    let ((_, data, open), receipt) = tokio::join!(next_message(&ours), sending.delivered());
    assert_eq!((data.as_slice(), open), (b"between us".as_slice(), false));
    receipt.unwrap();

    let left = old.ask("LEAVE_CLUSTER|client_12345").await;
    assert!(left.starts_with("OK"), "{left}");
}

#[tokio::test]
async fn a_cluster_that_does_not_allow_them_refuses_1_0_clients() {
    let server = Server::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let ours = local()
        .server(server.local_addr().to_string())
        .open_profile("ours")
        .bind()
        .await
        .unwrap();
    let cluster = within("creating", ours.create_cluster(Policy::k_of_n(2, 3)))
        .await
        .unwrap();
    let mut old = OldClient::new("client_1", &server).await;
    let reply = old.join(cluster.id().as_str()).await;
    assert!(reply.starts_with("ERROR|"), "{reply}");
}

#[tokio::test]
async fn a_node_that_is_not_configured_for_them_neither_sends_nor_listens() {
    let server = Server::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = server.local_addr().to_string();
    let ours = local()
        .server(&at)
        .open_profile("ours")
        .bind()
        .await
        .unwrap();
    let third = local()
        .server(&at)
        .open_profile("third")
        .bind()
        .await
        .unwrap();
    let policy = Policy::k_of_n(2, 3).open_peers(true);
    let cluster = within("creating", ours.create_cluster(policy))
        .await
        .unwrap();
    within("joining", third.join_cluster(cluster.id()))
        .await
        .unwrap();
    let mut old = OldClient::new("client_1", &server).await;
    old.join(cluster.id().as_str()).await;
    within("ready", cluster.ready()).await.unwrap();
    let error = ours
        .send("client_1".parse().unwrap(), b"x")
        .await
        .unwrap_err();
    let NodeError::Transfer(TransferError::OpenPeer { what, .. }) = error else {
        panic!("{error}")
    };
    assert!(what.contains("not configured"));
    assert!(
        TcpStream::connect(ours.local_addr()).await.is_err(),
        "nobody listens for them"
    );
}
