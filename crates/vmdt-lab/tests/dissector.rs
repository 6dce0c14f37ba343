//! The Wireshark dissector, by tshark: on packets made here, and on what nodes send.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vmdt_lab::pcap::Pcap;
use vmdt_lab::run::{Common, Plan, Workload, contender};
use vmdt_lab::world::{PathSpec, World};

const LUA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tools/wireshark/vmdt.lua"
);

/// Fields of all packets that pass a filter, one line for each packet.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command
        .arg("-X")
        .arg(format!("lua_script:{LUA}"))
        .args(["-o", "tcp.try_heuristic_first:TRUE"])
        .args(["-T", "fields", "-E", "separator=;", "-Y", filter])
        .arg("-r")
        .arg(file);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(!errors.contains("Lua"), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

fn ip(protocol: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + rest.len()).unwrap();
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(rest);
    packet
}

fn udp(datagram: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + datagram.len()).unwrap();
    let mut rest = vec![0x1b, 0x58, 0x1b, 0x59, 0, 0, 0, 0];
    rest[4..6].copy_from_slice(&len.to_be_bytes());
    rest.extend_from_slice(datagram);
    ip(17, &rest)
}

fn tcp(port: u16, number: u32, text: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend_from_slice(&port.to_be_bytes());
    rest.extend_from_slice(&8080u16.to_be_bytes());
    rest.extend_from_slice(&number.to_be_bytes());
    rest.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    rest.extend_from_slice(text);
    ip(6, &rest)
}

fn capture(name: &str, packets: &[Vec<u8>]) -> std::path::PathBuf {
    let file = common::scratch(name);
    let mut pcap = Pcap::create(&file).unwrap();
    for (i, packet) in (0u64..).zip(packets) {
        pcap.packet(Duration::from_millis(1_700_000_000_000 + i), packet)
            .unwrap();
    }
    pcap.flush().unwrap();
    file
}

/// The example of the protocol document, section 4.6, without its trailer.
fn example() -> Vec<u8> {
    let mut datagram = vec![0; 80];
    datagram[..8].copy_from_slice(b"VMDT1.0\0");
    datagram[8..13].copy_from_slice(b"alice");
    datagram[24..27].copy_from_slice(b"bob");
    datagram[40..42].copy_from_slice(b"m1");
    datagram[56..60].copy_from_slice(b"0002");
    datagram[68] = 1;
    datagram[75] = 5;
    datagram.extend_from_slice(b"hello");
    datagram
}

#[test]
fn headers_and_both_kinds_of_integrity_are_read() {
    if !common::has_tshark() {
        return;
    }
    let mut with_sum = example();
    with_sum[69] = 4;
    with_sum[72..74].copy_from_slice(&[0xfd, 0x80]);
    let mut wrong_sum = with_sum.clone();
    wrong_sum[84] ^= 1;
    let mut with_crc = example();
    with_crc.extend_from_slice(&[0xc6, 0xce, 0x32, 0xdd]);
    let mut wrong_crc = with_crc.clone();
    wrong_crc[80] ^= 1;
    let mut cut = example();
    cut.truncate(82);
    let packets = [with_sum, wrong_sum, with_crc, wrong_crc, cut].map(|d| udp(&d));
    let file = capture("headers.pcap", &packets);

    let lines = tshark(
        &file,
        "vmdt",
        &[
            "vmdt.source",
            "vmdt.destination",
            "vmdt.flow",
            "vmdt.type",
            "vmdt.profile",
            "vmdt.crc.status",
        ],
    );
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0], "alice;bob;m1/0002;1;1.0 open;");
    assert_eq!(lines[2], "alice;bob;m1/0002;1;1.0 open;good");
    assert_eq!(lines[3], "alice;bob;m1/0002;1;1.0 open;bad");
    let number = ["frame.number"];
    assert_eq!(tshark(&file, "vmdt.bad_checksum", &number), ["2"]);
    assert_eq!(tshark(&file, "vmdt.bad_crc", &number), ["4"]);
    assert_eq!(tshark(&file, "vmdt.cut_short", &number), ["5"]);

    let said = inspect(&vmdt(), &file);
    let heads = said
        .iter()
        .filter(|l| l.starts_with("Data from alice to bob"));
    assert_eq!(heads.count(), 5);
    let checks: Vec<bool> = said
        .iter()
        .filter(|line| line.starts_with("  payload"))
        .map(|line| line.ends_with("; 68656c6c6f"))
        .collect();
    // a wrong sum and a cut are named; a wrong octet under a trailer shows as it came
    assert_eq!(checks, [true, false, true, false, false], "{said:#?}");
}

#[test]
fn a_sealed_datagram_shows_its_tag_and_nothing_of_its_content() {
    if !common::has_tshark() {
        return;
    }
    let mut sealed = example();
    sealed[8..24].copy_from_slice(b"@abcdefghijklmno");
    sealed[69] = 0x80;
    sealed.extend_from_slice(&[0xaa; 16]);
    let mut short = sealed.clone();
    short.truncate(85 + 15);
    let file = capture("sealed.pcap", &[udp(&sealed), udp(&short)]);
    let lines = tshark(
        &file,
        "vmdt",
        &[
            "vmdt.source",
            "vmdt.profile",
            "vmdt.flags.key_phase",
            "vmdt.sealed",
            "vmdt.tag",
            "vmdt.payload",
        ],
    );
    let tag = "aa".repeat(16);
    assert_eq!(
        lines[0].replace("True", "1"),
        format!("@abcdefghijklmno;1.1 sealed;1;68656c6c6f;{tag};")
    );
    assert_eq!(tshark(&file, "vmdt.cut_short", &["frame.number"]), ["2"]);
}

#[test]
fn compact_headers_are_read_between_ends_that_were_seen_before_and_nowhere_else() {
    if !common::has_tshark() {
        return;
    }
    let mut whole = example();
    whole[8..24].copy_from_slice(b"@abcdefghijklmno");
    let session = [1, 2, 3, 4];
    whole[60..64].copy_from_slice(&session);
    whole.extend_from_slice(&[0xaa; 16]);
    let lead = [&[0x98, 0x82], &session[..], &[0, 0, 0, 9]].concat();
    let flow = [&whole[40..56], &[0, 2, 0, 7]].concat();
    let compact = [&lead[..], &flow, b"hello", &[0xbb; 16]].concat();
    let mut reserved = compact.clone();
    reserved[0] |= 1;
    let file = capture(
        "compact.pcap",
        &[&compact, &whole, &compact, &reserved].map(|d| udp(d)),
    );
    let lines = tshark(
        &file,
        "vmdt",
        &[
            "frame.number",
            "vmdt.flow",
            "vmdt.type",
            "vmdt.seq",
            "vmdt.number",
            "vmdt.sealed",
            "vmdt.tag",
        ],
    );
    let (own, tag) = ("68656c6c6f", "bb".repeat(16));
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(lines[1], format!("3;m1/0002;1;7;9;{own};{tag}"));

    let said = inspect(&vmdt(), &file);
    let heads: Vec<&String> = said.iter().filter(|l| l.starts_with("Data from")).collect();
    assert_eq!(heads.len(), 2, "{said:#?}");
    for head in heads {
        assert!(
            head.starts_with("Data from @abcdefghijklmno to bob"),
            "{head}"
        );
    }
}

#[test]
fn control_lines_are_read_in_both_framings_however_they_are_cut() {
    if !common::has_tshark() {
        return;
    }
    let bar = b"CREATE_CLUSTER|alice|5|3\r\nLIST_CLUSTERS|alice\n";
    let slash = b"VMDT/TCP/1.0/JOIN_CLUSTER/alice/cluster_a%2Fb/~17\n";
    let packets = [
        tcp(1001, 1, bar),
        tcp(1002, 1, &slash[..30]),
        tcp(1002, 31, &slash[30..]),
    ];
    let file = capture("control.pcap", &packets);
    let lines = tshark(
        &file,
        "vmdt_control",
        &[
            "vmdt_control.framing",
            "vmdt_control.type",
            "vmdt_control.parameter",
            "vmdt_control.tag",
        ],
    );
    assert_eq!(
        lines,
        [
            "bar,bar;CREATE_CLUSTER,LIST_CLUSTERS;alice,5,3,alice;",
            "slash;JOIN_CLUSTER;alice,cluster_a/b;17",
        ]
    );
    let said = inspect(&vmdt(), &file);
    assert_eq!(
        said.iter().filter(|l| l.starts_with("line (")).count(),
        2,
        "{said:#?}"
    );
}

/// What a sender, a receiver, two relays and a server put on the links.
fn captured(common: &Common, name: &str) -> std::path::PathBuf {
    let contender = contender("VMDT 2 of 3").unwrap();
    let world = World::new(3, contender.relays).unwrap();
    let file = common::scratch(name);
    world.emulator.capture(Some(&file)).unwrap();
    let plan = Plan {
        contender,
        paths: vec![PathSpec::new(10.0, 10, 0.03); 3],
        seed: 1,
        cold: false,
        workload: Workload::Burst {
            count: 30,
            size: 1392,
        },
        outage: None,
        competing: false,
    };
    let outcome = common.run(&world, &plan).unwrap();
    assert!(outcome.took.is_some());
    world.emulator.capture(None).unwrap();
    file
}

/// `vmdt`: the one that a test of the workspace has built beside this, else built as this test was, by
/// the cargo that runs it.
fn vmdt() -> PathBuf {
    let lab = Path::new(env!("CARGO_BIN_EXE_vmdt-lab"));
    let beside = lab.with_file_name("vmdt");
    if beside.exists() {
        return beside;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "-p", "vmdt-cli", "--bin", "vmdt"])
        .args(["--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .arg("--target-dir")
        .arg(lab.ancestors().nth(2).unwrap());
    if lab
        .parent()
        .is_some_and(|folder| folder.ends_with("release"))
    {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    beside
}

/// What `vmdt inspect` says about a file, line by line; its exit must say that it is ours.
fn inspect(vmdt: &Path, file: &Path) -> Vec<String> {
    let output = Command::new(vmdt)
        .arg("inspect")
        .arg(file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn of_what_sealed_nodes_send_the_headers_are_understood_and_nothing_else() {
    if !common::has_tshark() || !common::is_root() {
        return;
    }
    common::use_program();
    let file = captured(&Common::new().unwrap(), "sealed-nodes.pcap");
    let fields = [
        "vmdt.profile",
        "vmdt.type",
        "_ws.malformed",
        "vmdt.text",
        "vmdt.sealed",
    ];
    let lines = tshark(&file, "!icmp && udp", &fields);
    let rows: Vec<Vec<&str>> = lines.iter().map(|l| l.splitn(5, ';').collect()).collect();
    let count = |keep: &dyn Fn(&[&str]) -> bool| rows.iter().filter(|row| keep(row)).count();
    assert!(rows.len() > 100);
    assert_eq!(count(&|row| row[0].starts_with("1.1")), rows.len());
    assert!(
        count(&|row| row[1] == "7" && !row[4].is_empty()) > 30,
        "datagrams with pieces of small messages"
    );
    assert!(
        count(&|row| row[1] == "1" && !row[4].is_empty()) > 0,
        "data"
    );
    assert_eq!(count(&|row| !row[2].is_empty()), 0);
    assert_eq!(count(&|row| !row[3].is_empty()), 0, "no line can be read");

    let said = inspect(&vmdt(), &file);
    let payloads: Vec<&String> = said.iter().filter(|l| l.starts_with("  payload")).collect();
    assert_eq!(payloads.len(), rows.len(), "the same datagrams");
    // handshakes are named, of all else only octets are shown
    let sealed = payloads.iter().filter(|l| l.contains("; sealed: ")).count();
    let handshakes = said.iter().filter(|l| l.starts_with("Syn from ")).count();
    assert!(sealed > 100, "{sealed}");
    assert_eq!(sealed + handshakes, payloads.len());
}

#[test]
fn what_open_nodes_send_is_understood_to_the_last_octet() {
    if !common::has_tshark() || !common::is_root() {
        return;
    }
    common::use_program();
    let file = captured(&Common::new().unwrap().open_profile(), "nodes.pcap");

    // one look at all of it; an ICMP error quotes datagrams in part
    let lines = tshark(
        &file,
        "!icmp && (udp || vmdt_control)",
        &[
            "ip.proto",
            "vmdt.type",
            "vmdt.crc.status",
            "vmdt.share.k",
            "vmdt.ack.ranges",
            "vmdt_control.type",
            "_ws.malformed",
            "vmdt.extra",
            "_ws.expert.message",
            "vmdt.text",
        ],
    );
    let rows: Vec<Vec<&str>> = lines.iter().map(|l| l.splitn(10, ';').collect()).collect();
    let count = |keep: &dyn Fn(&[&str]) -> bool| rows.iter().filter(|row| keep(row)).count();
    let datagrams = count(&|row| row[0] == "17");
    assert!(datagrams > 100);
    assert_eq!(count(&|row| row[2] == "good"), datagrams);
    for kind in ["1", "2", "4", "5", "6"] {
        assert!(count(&|row| row[1] == kind) > 0, "type {kind}");
    }
    assert!(count(&|row| row[3] == "2") > 30, "shares");
    let holes = |row: &[&str]| row[4].parse().is_ok_and(|ranges: u32| ranges > 1);
    assert!(count(&holes) > 0, "losses make holes");
    assert!(count(&|row| row[5].contains("JOIN_CLUSTER")) > 0);
    assert!(count(&|row| row[9].contains("SHARE_POOL_ADD")) > 0);
    let odd = |row: &[&str]| {
        !row[6].is_empty() || !row[7].is_empty() || row[8].contains("Not a control line")
    };
    assert_eq!(count(&odd), 0);

    let said = inspect(&vmdt(), &file);
    let payloads = || said.iter().filter(|line| line.starts_with("  payload"));
    assert_eq!(payloads().count(), datagrams, "the same datagrams");
    let heads = |kind: &str| {
        let wanted = format!("{kind} from ");
        said.iter().filter(|line| line.starts_with(&wanted)).count()
    };
    for (name, kind) in [("Data", "1"), ("Ack", "2"), ("Heartbeat", "6")] {
        assert_eq!(heads(name), count(&|row| row[1] == kind), "{name}");
    }
    assert_eq!(
        payloads().filter(|line| line.contains("malformed")).count(),
        0
    );
    assert!(said.iter().any(|line| line.contains("JOIN_CLUSTER")));
}
