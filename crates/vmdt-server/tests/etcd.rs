//! Several servers with one state in a real etcd of three members. Where there is no etcd these
//! tests say so and check nothing.

#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod common;
#[path = "common/etcd.rs"]
mod etcd;

use std::net::SocketAddr;

use common::{Client, PATIENCE, local};
use etcd::Etcd;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use vmdt_server::{EtcdStore, Server};

const PREFIX: &str = "/vmdt-test/";

async fn serve(endpoints: &[String]) -> Server {
    let store = EtcdStore::open(endpoints, PREFIX).await.unwrap();
    let server = Server::builder().plain(local()).store(store);
    server.start().await.unwrap()
}

/// A server that can be killed: nobody is told, and its lease goes on for a while.
struct Mortal {
    address: SocketAddr,
    runtime: Option<Runtime>,
    _server: Server,
}

impl Mortal {
    async fn start(endpoints: Vec<String>) -> Mortal {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.spawn(async move { serve(&endpoints).await });
        let server = server.await.unwrap();
        Mortal {
            address: server.local_addr(),
            runtime: Some(runtime),
            _server: server,
        }
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn register(address: SocketAddr, id: &str) -> Client {
    let mut client = Client::plain(address).await;
    let reply = client
        .tagged(&format!("REGISTER_P2P_PORT/{id}/9001/rdt"))
        .await;
    assert!(reply.starts_with("OK/"), "{reply}");
    client
}

async fn join(address: SocketAddr, id: &str, cluster: &str) -> Client {
    let mut client = register(address, id).await;
    let reply = client.tagged(&format!("JOIN_CLUSTER/{id}/{cluster}")).await;
    assert!(reply.starts_with("CLUSTER_JOINED/"), "{reply}");
    client
}

fn told(cluster: &str, id: &str, state: &str) -> String {
    format!("VMDT/TCP/1.0/MEMBER/{cluster}/{id}/{state}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_server_and_a_member_of_etcd_may_die_and_no_cluster_is_lost() {
    if !etcd::is_there() {
        return;
    }
    let mut etcd = Etcd::start().await;
    let mut a = Mortal::start(etcd.endpoints()).await;
    let b = serve(&etcd.endpoints()).await;
    let c = serve(&etcd.endpoints()).await;

    // What happens at one server is told to the clients of the others.
    let mut alice = register(a.address, "alice").await;
    let reply = alice.tagged("CREATE_CLUSTER/alice/3/2/max=9").await;
    let cluster = reply.split('/').nth(1).unwrap().to_owned();
    let mut bob = join(b.local_addr(), "bob", &cluster).await;
    alice.find(&told(&cluster, "bob", "joined")).await;
    bob.find(&told(&cluster, "alice", "joined")).await;
    let dave = join(a.address, "dave", &cluster).await;
    bob.find(&told(&cluster, "dave", "joined")).await;
    let ready = format!("VMDT/TCP/1.0/CLUSTER_READY/{cluster}");
    alice.find(&ready).await;
    bob.find(&ready).await;

    // A member of etcd dies, whoever leads it.
    etcd.kill(0);
    let mut carol = join(c.local_addr(), "carol", &cluster).await;
    alice.find(&told(&cluster, "carol", "joined")).await;
    bob.find(&told(&cluster, "carol", "joined")).await;
    carol.find(&ready).await;

    // A server dies. One of its clients goes to another at once, one does not.
    a.kill();
    assert!(alice.line().await.is_none());
    drop(dave);
    let mut alice = join(b.local_addr(), "alice", &cluster).await;
    bob.find(&told(&cluster, "dave", "away")).await;
    carol.find(&told(&cluster, "dave", "away")).await;
    alice.find(&told(&cluster, "dave", "away")).await;
    for (client, id) in [
        (&mut alice, "alice"),
        (&mut bob, "bob"),
        (&mut carol, "carol"),
    ] {
        let request = format!("GET_CLUSTER_MEMBERS/{id}/{cluster}");
        let reply = client.tagged(&request).await;
        assert_eq!(reply, "CLUSTER_MEMBERS/alice/bob/carol/dave");
    }

    // A new server knows what the dead one knew.
    let d = serve(&etcd.endpoints()).await;
    let _dave = join(d.local_addr(), "dave", &cluster).await;
    bob.find(&told(&cluster, "dave", "back")).await;
    assert_eq!(
        bob.tagged(&format!("LEAVE_CLUSTER/bob/{cluster}")).await,
        "OK/Left cluster"
    );
    carol.find(&told(&cluster, "bob", "left")).await;
    for server in [b, c, d] {
        server.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_clients_are_sent_away_and_come_back_to_their_clusters() {
    if !etcd::is_there() {
        return;
    }
    let mut etcd = Etcd::start().await;
    let a = serve(&etcd.endpoints()).await;
    let b = serve(&etcd.endpoints()).await;
    let mut alice = register(a.local_addr(), "alice").await;
    let reply = alice.tagged("CREATE_CLUSTER/alice/2/2").await;
    let cluster = reply.split('/').nth(1).unwrap().to_owned();
    let mut bob = join(b.local_addr(), "bob", &cluster).await;

    etcd.kill(0);
    etcd.kill(1);
    // Nothing that cannot be kept is answered.
    alice.send("VMDT/TCP/1.0/CREATE_CLUSTER/alice/2/2/~5").await;
    for client in [&mut alice, &mut bob] {
        client.find("VMDT/TCP/1.0/ERROR/aborted/").await;
        assert!(client.line().await.is_none(), "then the end");
    }
    let mut early = Client::plain(a.local_addr()).await;
    let reply = early.line().await.unwrap();
    assert!(reply.starts_with("ERROR|aborted: "), "{reply}");

    etcd.revive(0);
    let back = async {
        loop {
            let mut alice = Client::plain(b.local_addr()).await;
            alice
                .send("VMDT/TCP/1.0/REGISTER_P2P_PORT/alice/9001/rdt")
                .await;
            if alice.line().await.is_some_and(|line| line.contains("/OK/")) {
                return alice;
            }
        }
    };
    let mut alice = timeout(2 * PATIENCE, back).await.expect("etcd is back");
    let reply = alice.tagged(&format!("JOIN_CLUSTER/alice/{cluster}")).await;
    assert!(reply.starts_with("CLUSTER_JOINED/"), "{reply}");
    let reply = alice.tagged("LIST_CLUSTERS/alice").await;
    assert_eq!(reply.matches("cluster_").count(), 1, "{reply}");
    a.close().await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_a_transaction_is_kept_whole() {
    if !etcd::is_there() {
        return;
    }
    let etcd = Etcd::start().await;
    let a = serve(&etcd.endpoints()).await;
    // Each in one go: two hundred clients that come, and their clusters.
    let mut clients = Vec::new();
    for i in 0..200 {
        let mut client = Client::plain(a.local_addr()).await;
        client
            .send(&format!("VMDT/TCP/1.0/REGISTER_P2P_PORT/c{i}/9001/rdt"))
            .await;
        client
            .send(&format!("VMDT/TCP/1.0/CREATE_CLUSTER/c{i}/2/2/~77"))
            .await;
        clients.push(client);
    }
    for client in &mut clients {
        client.find("VMDT/TCP/1.0/CLUSTER_CREATED/").await;
    }
    let b = serve(&etcd.endpoints()).await;
    let mut eve = register(b.local_addr(), "eve").await;
    let list = eve.tagged("LIST_CLUSTERS/eve").await;
    assert_eq!(list.matches("cluster_").count(), 200);
    // A server that ends has its clients go at once, and their clusters stay.
    a.close().await;
    let list = eve.tagged("LIST_CLUSTERS/eve").await;
    assert_eq!(list.matches("cluster_").count(), 200);
    b.close().await;
}

/// Every request of the beginning may go to the member that is down first: one attempt in three
/// would do so with each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_start_while_a_member_of_etcd_is_down() {
    if !etcd::is_there() {
        return;
    }
    let mut etcd = Etcd::start().await;
    etcd.kill(0);
    for attempt in 0..12 {
        let opened = EtcdStore::open(&etcd.endpoints(), PREFIX).await;
        assert!(opened.is_ok(), "attempt {attempt}: {opened:?}");
    }
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_an_error() {
    let nowhere = ["http://127.0.0.1:1".to_owned()];
    assert!(EtcdStore::open(&nowhere, PREFIX).await.is_err());
}
