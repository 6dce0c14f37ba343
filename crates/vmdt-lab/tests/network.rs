//! The emulated network, with root.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vmdt_lab::check::{self, Effort};
use vmdt_lab::clock;
use vmdt_lab::run::{Common, Outcome, Plan, Workload, contender};
use vmdt_lab::world::{PathSpec, World};

#[test]
fn the_emulator_does_what_it_is_set_to() {
    if !common::is_root() {
        return;
    }
    for line in check::run(Effort::SHORT).unwrap() {
        eprintln!("{line}");
        // what a seed decides holds on any machine; what a busy machine delays, roughly
        let well = match line.unit {
            "%" if line.set > 0.0 => line.is_well(),
            "ms" => line.found >= line.set && line.found < line.set + 20.0,
            "Mbit/s" => line.found > 0.3 * line.set && line.found < 1.05 * line.set,
            _ => true,
        };
        assert!(well, "{line}");
    }
}

fn run(name: &str, paths: usize, spec: PathSpec, workload: Workload) -> Outcome {
    common::use_program();
    let contender = contender(name).unwrap();
    let world = World::new(paths, contender.relays).unwrap();
    let plan = Plan {
        contender,
        paths: vec![spec; paths],
        seed: 1,
        cold: false,
        workload,
        outage: None,
        competing: false,
    };
    Common::new().unwrap().run(&world, &plan).unwrap()
}

#[test]
fn every_peer_of_the_light_build_delivers_a_burst_under_loss() {
    if !common::is_root() {
        return;
    }
    for name in ["tcp-cubic", "rdt", "pieces", "onezero", "VMDT 2 of 3"] {
        let burst = Workload::Burst {
            count: 20,
            size: 1392,
        };
        let outcome = run(name, 3, PathSpec::new(10.0, 10, 0.03), burst);
        let took = outcome.took.expect(name);
        eprintln!("{name}: {took:?}, {} octets", outcome.sent);
        // 20 packets at the line rate of all three paths, and half a round trip
        assert!(took > Duration::from_millis(12), "{name}: {took:?}");
        assert!(outcome.sent > 20 * 1392, "{name}: {}", outcome.sent);
        assert_eq!(outcome.arrivals.len(), 20, "{name}");
    }
}

#[test]
fn bulk_content_is_not_faster_than_the_line() {
    if !common::is_root() {
        return;
    }
    let bulk = Workload::Bulk {
        octets: 500_000,
        limit: Duration::from_secs(20),
    };
    let outcome = run("tcp-cubic", 1, PathSpec::new(10.0, 10, 0.0), bulk);
    assert!(outcome.took.is_some());
    assert!(outcome.goodput() < 10e6, "{}", outcome.goodput());
    assert!(outcome.goodput() > 2e6, "{}", outcome.goodput());
}

#[test]
fn mptcp_is_faster_than_one_of_its_paths() {
    if !common::is_root() {
        return;
    }
    if fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|on| on.trim() == "1") {
        let bulk = Workload::Bulk {
            octets: 4_000_000,
            limit: Duration::from_secs(30),
        };
        let outcome = run("mptcp-cubic", 3, PathSpec::new(10.0, 10, 0.0), bulk);
        assert!(outcome.goodput() > 10e6, "{}", outcome.goodput());
    } else {
        eprintln!("SKIPPED: this kernel has no MPTCP");
    }
}

/// Processes that have this parent.
fn children(parent: u32) -> Vec<u32> {
    let wanted = format!("PPid:\t{parent}");
    let ids = fs::read_dir("/proc").unwrap().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            status.lines().any(|line| line == wanted)
        })
        .collect()
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline: Instant = clock::now() + Duration::from_secs(20);
    while !ready() {
        assert!(clock::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_left_when_the_lab_is_killed() {
    if !common::is_root() {
        return;
    }
    let mut lab = Command::new(env!("CARGO_BIN_EXE_vmdt-lab"))
        .args(["one", "1.0 style", "--seeds", "1", "--rtt", "300"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(lab.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let mut peers = Vec::new();
    wait_for("the lab starts two peers", || {
        // ip(8) comes and goes; peers stay
        peers = children(lab.id())
            .into_iter()
            .filter(|id| {
                let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
                words.windows(4).any(|w| w == b"peer")
            })
            .collect();
        peers.len() == 2
    });
    lab.kill().unwrap();
    lab.wait().unwrap();
    wait_for("its peers, and with them the namespaces, end", || {
        peers.iter().all(|id| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        })
    });
}
