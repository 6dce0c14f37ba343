//! `vmdt send` and `vmdt recv`, as two processes.
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
use std::io::Write as _;
use std::process::Stdio;

use common::{Running, World, same};

#[test]
fn a_file_arrives_by_its_code() {
    let world = World::new();
    let file = world.file("a file.bin", 3_000_017);
    let (mut sender, code) = world.send(&["a file.bin"]);
    assert!(code.split('-').count() == 3, "{code}");
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(same(&file, &world.path("in/a file.bin")));
    let done = receiver.saw("done").unwrap();
    assert_eq!(done["octets"], 3_000_017);
    assert!(done["saved"][0].as_str().unwrap().ends_with("a file.bin"));
    let paths = sender.saw("done").unwrap()["paths"].clone();
    let carried = paths["direct"]["octets"].as_u64().unwrap();
    assert!(
        (3_000_017..6_000_000).contains(&carried),
        "between two it goes directly, sealed, about once: {paths}"
    );
    assert_eq!(
        fs::read_dir(world.path("in")).unwrap().count(),
        1,
        "nothing else is left"
    );
    // both have a receipt, and can tell how it travelled
    for who in ["sender", "receiver"] {
        let (code, text, _) = world.run(who, &["explain"]);
        assert_eq!(code, 0);
        assert!(
            text.contains("a file.bin")
                && text.contains("2 shares")
                && text.contains("sealed to the receiver's key"),
            "{text}"
        );
    }
    let (_, text, _) = world.run("sender", &["peers"]);
    assert!(text.contains("0.67"), "{text}");
}

#[test]
fn the_open_profile_is_spoken_only_when_both_ask_for_it() {
    let world = World::new();
    let file = world.file("x", 100_000);
    let (mut sender, code) = world.send(&["x", "--open"]);
    let (exit, _, text) = world.run("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!(exit, 2, "{text}");
    assert!(text.contains("without any protection"), "{text}");
    let (exit, _, text) = world.run("receiver", &["recv", &code, "--out", "in", "--open"]);
    assert_eq!((exit, sender.end()), (0, 0), "{text}");
    assert!(text.contains("warning: profile 1.0"), "{text}");
    assert!(same(&file, &world.path("in/x")));
    // a sealed sender is received sealed all the same
    let (mut sender, code) = world.send(&["x"]);
    let (exit, ..) = world.run("receiver", &["recv", &code, "--out", "in", "--open"]);
    assert_eq!((exit, sender.end()), (0, 0));
}

#[cfg(unix)]
#[test]
fn the_key_is_made_once_and_only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let ids = [0, 1].map(|_| world.run("a", &["id"]).1);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0].trim().len(), 16, "{ids:?}");
    let key = world.path("state-a/identity");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (exit, _, text) = world.run("a", &["id"]);
    assert_eq!(exit, 2, "{text}");
    assert!(text.contains("chmod 600"), "{text}");
}

#[test]
fn a_transfer_has_a_passing_key_unless_one_is_chosen() {
    let world = World::new();
    world.file("x", 1000);
    let (_, id, _) = world.run("receiver", &["id"]);
    assert!(id.starts_with('@'), "{id}");
    for chosen in [false, true] {
        let (mut sender, code) = world.send(&["x"]);
        let mut command = world.command("receiver", &["recv", &code, "--out", "in", "--json"]);
        if chosen {
            command.env("VMDT_IDENTITY", world.path("state-receiver/identity"));
        }
        let mut receiver = Running::spawn(command);
        assert_eq!((receiver.end(), sender.end()), (0, 0));
        let peer = sender.saw("done").unwrap()["peer"].as_str().unwrap();
        assert_eq!(peer == id.trim(), chosen);
    }
}

#[test]
fn both_sides_may_be_one_person_on_one_machine() {
    let world = World::new();
    let file = world.file("x", 100_000);
    let (mut sender, code) = world.send(&["x"]);
    let mut receiver = world.start("sender", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(same(&file, &world.path("in/x")));
}

#[test]
fn the_ticket_line_needs_no_discovery() {
    let world = World::new();
    let file = world.file("x", 10);
    let mut command = world.command("sender", &["send", "x", "--json"]);
    command.env("VMDT_DISCOVERY", "false");
    let mut sender = Running::spawn(command);
    let shown = sender.wait_for("code");
    let (ticket, code) = (
        shown["ticket"].as_str().unwrap(),
        shown["code"].as_str().unwrap(),
    );
    let (exit, _, text) = world.run("receiver", &["recv", code, "--wait", "0.5"]);
    assert_eq!(exit, 3, "{text}");
    assert!(text.contains("nobody on this network"), "{text}");
    let mut receiver = world.start("receiver", &["recv", ticket, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(same(&file, &world.path("in/x")));
}

#[cfg(unix)]
#[test]
fn a_tree_arrives_with_modes_times_links_and_empty_folders() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    let world = World::new();
    fs::create_dir_all(world.path("tree/sub/empty")).unwrap();
    world.file("tree/big", 2_500_000);
    world.file("tree/sub/run.sh", 300);
    fs::set_permissions(
        world.path("tree/sub/run.sh"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    fs::File::open(world.path("tree/sub/run.sh"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_000_000))
        .unwrap();
    symlink("../big", world.path("tree/sub/link")).unwrap();
    symlink("/etc/passwd", world.path("tree/outside")).unwrap();
    for number in 0..300 {
        world.file(&format!("tree/sub/{number}"), number);
    }
    world.file("second", 5);
    let (mut sender, code) = world.send(&["tree", "second"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    let tree = world.path("in/tree");
    assert!(same(&world.path("tree/big"), &tree.join("big")));
    assert!(same(&world.path("second"), &world.path("in/second")));
    for number in 0..300 {
        assert!(same(
            &world.path(&format!("tree/sub/{number}")),
            &tree.join(format!("sub/{number}"))
        ));
    }
    let meta = fs::metadata(tree.join("sub/run.sh")).unwrap();
    assert_eq!(
        (meta.mode() & 0o777, meta.mtime(), meta.mtime_nsec()),
        (0o750, 1_234_567_890, 123_000_000)
    );
    assert_eq!(
        fs::read_link(tree.join("sub/link")).unwrap().to_str(),
        Some("../big")
    );
    assert!(
        fs::symlink_metadata(tree.join("outside")).is_err(),
        "links that lead outside are left out"
    );
    assert!(
        receiver.saw("done").unwrap()["notes"][0]
            .as_str()
            .unwrap()
            .contains("outside")
    );
    assert!(tree.join("sub/empty").is_dir());
}

#[test]
fn standard_input_becomes_standard_output() {
    let world = World::new();
    let mut command = world.command("sender", &["send", "-", "--json"]);
    command.stdin(Stdio::piped());
    let content: Vec<u8> = (0..2_100_000u32).map(|i| (i / 3) as u8).collect();
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stdout = child.stdout.take().unwrap();
    let sent = content.clone();
    std::thread::spawn(move || stdin.write_all(&sent));
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let output = world
        .command(
            "receiver",
            &["recv", line["code"].as_str().unwrap(), "-o", "-"],
        )
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout == content);
    for _ in lines {}
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_text_is_shown_with_what_harms_a_terminal_escaped() {
    let world = World::new();
    let (mut sender, code) = world.send(&["--text", "hello \u{1b}[31mred\u{7}"]);
    let (exit, text, _) = world.run("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((exit, sender.end()), (0, 0));
    assert_eq!(text, "hello \\u{1b}[31mred\\u{7}\n");
    assert_eq!(fs::read_dir(world.path("in")).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn an_escape_sequence_in_a_name_reaches_neither_terminal_nor_disk() {
    let world = World::new();
    world.file("a\u{1b}]0;owned\u{7}b", 5);
    let (mut sender, code) = world.send(&["a\u{1b}]0;owned\u{7}b"]);
    let output = world
        .command("receiver", &["recv", &code, "--out", "in"])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), sender.end()), (Some(0), 0));
    for stream in [&output.stdout, &output.stderr] {
        assert!(!stream.iter().any(|octet| matches!(octet, 0x1b | 0x07)));
    }
    assert!(world.path("in/a_]0;owned_b").exists());
}

#[test]
fn a_wrong_code_makes_the_code_void_and_another_one_is_shown() {
    let world = World::new();
    world.file("x", 10);
    let (mut sender, code) = world.send(&["x"]);
    let number = code.split('-').next().unwrap();
    let other = ["adult", "acme", "aardvark", "absurd"];
    let wrong = other
        .iter()
        .flat_map(|first| {
            ["adroitness", "adviser", "aftermath", "aggregate"]
                .map(|second| format!("{number}-{first}-{second}"))
        })
        .find(|wrong| *wrong != code)
        .unwrap();
    let (exit, _, text) = world.run("receiver", &["recv", &wrong, "--out", "in"]);
    assert_eq!(exit, 5, "{text}");
    assert!(text.contains("wrong"), "{text}");
    let new = sender.wait_for("code")["code"].as_str().unwrap().to_owned();
    assert_ne!(new, code);
    // the old one is of no use any more
    let (exit, _, text) = world.run("receiver", &["recv", &code, "--wait", "1"]);
    assert!(exit == 3 || exit == 5, "{exit} {text}");
    let mut receiver = world.start("receiver", &["recv", &new, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
}

#[test]
fn a_taken_name_is_refused_and_both_sides_know_why() {
    let world = World::new();
    world.file("x", 1000);
    fs::create_dir(world.path("in")).unwrap();
    fs::write(world.path("in/x"), b"mine").unwrap();
    let (mut sender, code) = world.send(&["x"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (6, 6));
    assert!(
        sender.saw("error").unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("exists already")
    );
    assert_eq!(fs::read(world.path("in/x")).unwrap(), b"mine");
    for (flag, name) in [("--rename", "x (1)"), ("--overwrite", "x")] {
        let (mut sender, code) = world.send(&["x"]);
        let mut receiver = world.start("receiver", &["recv", &code, "--out", "in", flag]);
        assert_eq!((receiver.end(), sender.end()), (0, 0), "{flag}");
        assert!(same(&world.path("x"), &world.path(&format!("in/{name}"))));
    }
    // the same again is no mistake: it is there already
    let (mut sender, code) = world.send(&["x"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert_eq!(receiver.saw("done").unwrap()["already"], 1000);
}

#[cfg(unix)]
#[test]
fn a_folder_that_can_not_be_written_is_named_to_both() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    world.file("x", 10);
    // a file in the place of the folder: no permissions are needed to see it fail, as root too
    world.file("blocked", 1);
    let (mut sender, code) = world.send(&["x"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "blocked/in"]);
    assert_eq!((receiver.end(), sender.end()), (7, 7));
    assert!(
        sender.saw("error").unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("blocked")
    );

    // nobody makes a folder here, not even root
    if cfg!(target_os = "linux") {
        let (mut sender, code) = world.send(&["x"]);
        let mut receiver = world.start("receiver", &["recv", &code, "--out", "/sys/vmdt"]);
        assert_eq!((receiver.end(), sender.end()), (7, 7));
        let error = receiver.saw("error").unwrap().to_string();
        assert!(error.contains("/sys/vmdt"), "{error}");
    }

    fs::create_dir(world.path("locked")).unwrap();
    fs::set_permissions(world.path("locked"), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(world.path("locked/probe"), b"").is_ok() {
        eprintln!("SKIPPED: permissions do not bind this user");
        return;
    }
    let (mut sender, code) = world.send(&["x"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "locked"]);
    assert_eq!((receiver.end(), sender.end()), (7, 7));
    assert!(
        receiver.saw("error").unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("no permission")
    );
}

#[cfg(target_os = "linux")]
#[test]
fn too_little_space_is_told_before_anything_is_sent() {
    let world = World::new();
    // far more than any disk has, and not one octet of it is stored
    fs::File::create(world.path("huge"))
        .unwrap()
        .set_len(1 << 43)
        .unwrap();
    let (mut sender, code) = world.send(&["huge"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (7, 7));
    for side in [&receiver, &sender] {
        let message = side.saw("error").unwrap()["message"].as_str().unwrap();
        assert!(
            message.contains("no space left") && message.contains("are needed"),
            "{message}"
        );
    }
    assert_eq!(fs::read_dir(world.path("in")).unwrap().count(), 0);
}

#[test]
fn a_closed_standard_input_without_a_code_is_a_usage_error() {
    let world = World::new();
    let (exit, _, text) = world.run("receiver", &["recv"]);
    assert_eq!(exit, 2, "{text}");
    assert!(text.contains("standard input ended"), "{text}");
    let (exit, _, text) = world.run("receiver", &["recv", "not a code"]);
    assert_eq!(exit, 5, "{text}");
    let (exit, _, text) = world.run("sender", &["send", "nothing-here"]);
    assert_eq!(exit, 7, "{text}");
    assert!(text.contains("nothing-here does not exist"), "{text}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_sender_says_so_and_ends_the_receiver() {
    let world = World::new();
    world.file("x", 10);
    let (mut sender, _code) = world.send(&["x"]);
    sender.interrupt();
    assert_eq!(sender.end(), 130);
    assert_eq!(sender.saw("error").unwrap()["code"], "interrupted");
}

#[test]
fn one_send_serves_several_receivers_and_none_waits_for_another() {
    let world = World::new();
    let file = world.file("x", 6_000_000);
    let (mut sender, code) = world.send(&["x", "--receivers", "3"]);
    // one takes a little and then no more, as what reads its output does not: it can't end
    let mut third = world
        .command("third", &["recv", &code, "--out", "-", "--quiet"])
        .spawn()
        .unwrap();
    sender.wait_for("begun");
    let mut first = world.start("first", &["recv", &code, "--out", "in1"]);
    let mut second = world.start("second", &["recv", &code, "--out", "in2"]);
    assert_eq!(
        (first.end(), second.end()),
        (0, 0),
        "{:#?} {:#?} {:#?}",
        first.seen,
        second.seen,
        sender.seen
    );
    assert!(same(&file, &world.path("in1/x")) && same(&file, &world.path("in2/x")));
    // the others ended while it was held up
    assert_eq!(third.try_wait().unwrap(), None);
    third.kill().unwrap();
    third.wait().unwrap();
    let mut again = world.start("third", &["recv", &code, "--out", "in3"]);
    assert_eq!((again.end(), sender.end()), (0, 0));
    assert!(same(&file, &world.path("in3/x")));
}

#[test]
fn statistics_are_written_and_drawn() {
    let world = World::new();
    world.file("x", 4_000_000);
    let (mut sender, code) = world.send(&[
        "x",
        "--stats",
        "s.json",
        "--mode",
        "aimd",
        "-w",
        "64",
        "--max-window",
        "4096",
    ]);
    let mut receiver = world.start(
        "receiver",
        &["recv", &code, "--out", "in", "--stats", "r.csv"],
    );
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    let stats: serde_json::Value =
        serde_json::from_slice(&fs::read(world.path("s.json")).unwrap()).unwrap();
    assert_eq!(
        (stats["octets"].as_u64(), stats["mode"].as_str()),
        (Some(4_000_000), Some("aimd"))
    );
    assert!(
        fs::read_to_string(world.path("r.csv"))
            .unwrap()
            .starts_with("seconds,octets,rate")
    );
    let (exit, path, text) = world.run("sender", &["plot", "s.json"]);
    assert!(exit == 0 || text.contains("too few samples"), "{text}");
    if exit == 0 {
        assert!(
            fs::read_to_string(world.path(path.trim()))
                .unwrap()
                .starts_with("<svg")
        );
    }
}
