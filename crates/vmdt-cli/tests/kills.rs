//! A file goes over the members of a cluster, and one process is killed somewhere on the way: the
//! sender, a holder or the receiver. Whoever was killed is started again by the same command.
//!
//! Points and size can be raised; a failing run prints the point, and `VMDT_KILL_SEED` repeats it:
//!
//! ```text
//! VMDT_KILLS=20 VMDT_KILL_OCTETS=100000000 cargo test -p vmdt-cli --test kills -- --test-threads 1
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod common;

use common::{Running, World, same};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A point of the file for each round.
fn points(who: &str, octets: u64) -> impl Iterator<Item = u64> {
    let seed = setting("VMDT_KILL_SEED", 1);
    let mut stream = blake3::Hasher::new()
        .update(who.as_bytes())
        .update(&seed.to_be_bytes())
        .finalize_xof();
    (0..setting("VMDT_KILLS", 1)).map(move |_| {
        let mut number = [0; 8];
        stream.fill(&mut number);
        u64::from_be_bytes(number) % (octets * 9 / 10)
    })
}

/// A server, and two members that keep on disk what they hold.
struct Cluster {
    world: World,
    _server: Running,
    members: Vec<Running>,
}

const SECOND: [&str; 5] = ["node", "--ticket-file", "ticket", "--storage", "kept2"];

impl Cluster {
    fn new() -> Cluster {
        let world = World::new();
        let words = ["server", "--listen", "127.0.0.1:0"];
        let mut server = world.start("server", &words);
        let at = server.wait_for("listening")["url"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut first = world.start(
            "n1",
            &[
                "node",
                "--create",
                "4,2",
                "--server",
                &at,
                "--ticket-file",
                "ticket",
                "--storage",
                "kept1",
            ],
        );
        first.wait_for("ticket");
        let mut second = world.start("n2", &SECOND);
        second.wait_for("joined");
        Cluster {
            world,
            _server: server,
            members: vec![first, second],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Sender,
    Holder,
    Receiver,
}

fn killed_on_the_way(victim: Victim) {
    let octets = setting("VMDT_KILL_OCTETS", 11 << 20);
    // so that it takes two seconds, and there is time to kill somebody at the point
    let rate = (octets / 2).to_string();
    let mut cluster = Cluster::new();
    let world = &cluster.world;
    let file = world.file("x", usize::try_from(octets).unwrap());
    let sending = ["x", "--via", "ticket", "--rate", &rate];
    for point in points(&format!("{victim:?}"), octets) {
        println!("{victim:?} is killed at {point} of {octets} octets");
        let _ = std::fs::remove_dir_all(world.path("in"));
        let (mut sender, code) = world.send(&sending);
        let receiving = ["recv", &code, "--out", "in"];
        let mut receiver = world.start("receiver", &receiving);
        receiver.wait_for("offer");
        let part = world.path("in/x.vmdt.part");
        let here = || std::fs::metadata(&part).map_or(0, |meta| meta.len());
        while here() < point {
            assert!(!world.path("in/x").exists(), "whole before it was killed");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        match victim {
            Victim::Sender => {
                sender.kill();
                let again;
                (sender, again) = world.send(&sending);
                assert_eq!(again, code, "the same command shows the same code");
            }
            Victim::Holder => {
                cluster.members.pop().unwrap().kill();
                let mut member = world.start("n2", &SECOND);
                member.wait_for("joined");
                cluster.members.push(member);
            }
            Victim::Receiver => {
                receiver.kill();
                assert!(!world.path("in/x").exists(), "it was killed halfway");
                receiver = world.start("receiver", &receiving);
            }
        }
        assert_eq!(
            (receiver.end(), sender.end()),
            (0, 0),
            "{:#?}\n{:#?}",
            sender.seen,
            receiver.seen
        );
        assert!(same(&file, &world.path("in/x")));
        let left = std::fs::read_dir(world.path("in")).unwrap().count();
        assert_eq!(left, 1, "something is left beside the file");
    }
}

#[test]
fn with_a_sender_killed_anywhere_the_file_arrives_whole_and_once() {
    killed_on_the_way(Victim::Sender);
}

#[test]
fn with_a_holder_killed_anywhere_the_file_arrives_whole_and_once() {
    killed_on_the_way(Victim::Holder);
}

#[test]
fn with_a_receiver_killed_anywhere_the_file_arrives_whole_and_once() {
    killed_on_the_way(Victim::Receiver);
}
