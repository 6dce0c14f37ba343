//! A cluster of etcd that lives as long as a test.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vmdt_server::EtcdStore;

const MEMBERS: usize = 3;

pub(crate) struct Etcd {
    folder: tempfile::TempDir,
    clients: Vec<u16>,
    peers: Vec<u16>,
    members: Vec<Option<Child>>,
}

/// Whether there is an etcd to test with; says so loudly where there is none.
pub(crate) fn is_there() -> bool {
    let found = Command::new("etcd")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        eprintln!(
            "!! SKIPPED: there is no etcd on this machine (Debian: etcd-server); \
             several servers with one state were not tested"
        );
    }
    there
}

fn free_ports(count: usize) -> Vec<u16> {
    let open = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let open: Vec<TcpListener> = (0..count).map(open).collect();
    let ports = open.iter().map(|l| l.local_addr().unwrap().port());
    ports.collect()
}

impl Etcd {
    pub(crate) async fn start() -> Etcd {
        let ports = free_ports(2 * MEMBERS);
        let mut etcd = Etcd {
            folder: tempfile::tempdir().unwrap(),
            clients: ports[..MEMBERS].to_vec(),
            peers: ports[MEMBERS..].to_vec(),
            members: (0..MEMBERS).map(|_| None).collect(),
        };
        for member in 0..MEMBERS {
            etcd.revive(member);
        }
        // Until they have found each other.
        for _ in 0..100 {
            if EtcdStore::open(&etcd.endpoints(), "/trial/").await.is_ok() {
                return etcd;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("etcd does not start: {}", etcd.log(0));
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        self.clients.iter().map(url).collect()
    }

    fn log(&self, member: usize) -> String {
        let path = self.folder.path().join(format!("{member}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// As if its machine had lost its power.
    pub(crate) fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn revive(&mut self, member: usize) {
        let folder: &Path = self.folder.path();
        let log = folder.join(format!("{member}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let peer = |i: usize| format!("http://127.0.0.1:{}", self.peers[i]);
        let client = format!("http://127.0.0.1:{}", self.clients[member]);
        let all: Vec<String> = (0..MEMBERS).map(|i| format!("m{i}={}", peer(i))).collect();
        let child = Command::new("etcd")
            .arg("--name")
            .arg(format!("m{member}"))
            .arg("--data-dir")
            .arg(folder.join(format!("m{member}")))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(member)])
            .args(["--initial-advertise-peer-urls", &peer(member)])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--initial-cluster-state", "new"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[member] = Some(child);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
