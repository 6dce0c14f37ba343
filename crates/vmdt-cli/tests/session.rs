//! Server, members, the interactive session and the chat, as separate processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use common::{Running, World};

fn server(world: &World) -> (Running, String) {
    let mut server = world.start("server", &["server", "--listen", "127.0.0.1:0"]);
    let url = server.wait_for("listening")["url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(url.starts_with("vmdt://"), "{url}");
    (server, url)
}

#[test]
fn a_session_creates_a_cluster_and_sends_text_and_files_to_its_members() {
    let world = World::new();
    let (_server, at) = server(&world);
    fs::write(world.path("note.txt"), b"hello file").unwrap();
    let mut alice = world
        .command("alice", &["client", &at, "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = alice.stdin.take().unwrap();
    let mut lines = BufReader::new(alice.stdout.take().unwrap()).lines();
    writeln!(typed, "create_cluster 3 2").unwrap();
    let mut read = |what: &str| loop {
        let line = lines.next().expect("the session goes on").unwrap();
        if line.contains(what) {
            return line;
        }
    };
    let created = read("created cluster");
    let cluster = created.split_whitespace().nth(2).unwrap();
    let cluster = cluster.trim_end_matches(';').to_owned();
    let ticket = read("join vmdt1").replace("join ", "");
    let mut members: Vec<Running> = ["bob", "carol"]
        .map(|who| {
            let mut command = world.command(who, &["node", "--name", who, "--out", who, "--json"]);
            command.env("VMDT_TICKET", &ticket);
            Running::spawn(command)
        })
        .into();
    for member in &mut members {
        member.wait_for("joined");
    }
    // text that names a file is text
    writeln!(
        typed,
        "send bob note.txt\nsend-file carol note.txt\nmembers\nlist\nstatus"
    )
    .unwrap();
    let mut wanted = vec!["bob (@", "carol (@"];
    while !wanted.is_empty() {
        let line = read(" has ");
        wanted.retain(|who| !line.contains(who));
    }
    let received = members[1].wait_for("received")["path"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        fs::read(world.dir.path().join(received)).unwrap(),
        b"hello file"
    );
    assert!(!world.path("bob").join("note.txt").exists());
    writeln!(typed, "list\nquit").unwrap();
    read(&cluster);
    assert!(alice.wait().unwrap().success());
    // who is not a member is not told of it
    let (exit, text, _) = world.run("x", &["status", "--server", &at]);
    assert!(exit == 0 && !text.contains(&cluster), "{text}");
}

#[test]
fn the_original_session_works_in_the_open_profile() {
    let world = World::new();
    let mut server = world.start("server", &["server", "--listen", "127.0.0.1:0", "--open"]);
    let at = server.wait_for("listening")["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let (host, port) = at.split_once(':').unwrap();
    let mut alice = world
        .command(
            "alice",
            &["client", host, port, "--id", "alice", "--quiet", "--open"],
        )
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = alice.stdin.take().unwrap();
    writeln!(typed, "create_cluster 3 2").unwrap();
    let mut members: Vec<Running> = ["bob", "carol"]
        .map(|id| world.start(id, &["node", "--id", id, "--server", &at, "--open"]))
        .into();
    for member in &mut members {
        member.wait_for("joined");
    }
    writeln!(typed, "send bob hello\nquit").unwrap();
    let text = std::io::read_to_string(alice.stdout.take().unwrap()).unwrap();
    assert!(text.contains("bob has it"), "{text}");
    assert!(alice.wait().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_server_keeps_its_key_and_its_clusters_over_a_restart() {
    let world = World::new();
    let words = [
        "server",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--url-file",
        "url",
    ];
    let mut first = world.start("server", &words);
    let url = first.wait_for("listening")["url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(fs::read_to_string(world.path("url")).unwrap().trim(), url);
    let mut node = world.start(
        "n",
        &[
            "node",
            "--create",
            "2,2",
            "--server",
            &url,
            "--ticket-file",
            "t",
        ],
    );
    node.wait_for("ticket");
    // it is asked to end, and drains
    first.interrupt();
    assert_eq!(first.end(), 0);
    let key = |url: &str| url.rsplit_once('@').unwrap().0.to_owned();
    let at = url.rsplit_once('@').unwrap().1.to_owned();
    let mut second = world.start("server", &["server", "--listen", &at]);
    let again = second.wait_for("listening")["url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(key(&again), key(&url));
    // the cluster is there: its ticket is good
    let mut other = world.start("m", &["node", "--ticket-file", "t"]);
    other.wait_for("joined");
}

#[test]
fn a_member_that_was_killed_goes_on_from_its_storage() {
    let world = World::new();
    let (_server, at) = server(&world);
    let create = [
        "node",
        "--create",
        "3,2",
        "--server",
        &at,
        "--ticket-file",
        "ticket",
    ];
    let mut first = world.start("n1", &create);
    first.wait_for("ticket");
    let words = ["node", "--ticket-file", "ticket", "--storage", "kept"];
    let mut second = world.start("n2", &words);
    let joined = second.wait_for("joined");
    second.kill();
    assert!(fs::read_dir(world.path("kept")).unwrap().count() > 0);
    let mut again = world.start("n2", &words);
    // the same member of the same cluster
    assert_eq!(again.wait_for("joined"), joined);
    let file = world.file("x", 1_000_000);
    let (mut sender, code) = world.send(&["x", "--via", "ticket"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0), "{:#?}", sender.seen);
    assert!(common::same(&file, &world.path("in/x")));
    again.interrupt();
    assert_eq!(again.end(), 0);
}

#[test]
fn files_go_over_the_members_of_a_cluster() {
    let world = World::new();
    let (_server, at) = server(&world);
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
        ],
    );
    first.wait_for("ticket");
    let mut second = world.start("n2", &["node", "--ticket-file", "ticket"]);
    second.wait_for("joined");
    let file = world.file("x", 1_000_000);
    let (mut sender, code) = world.send(&["x", "--via", "ticket"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0), "{:#?}", sender.seen);
    assert!(common::same(&file, &world.path("in/x")));
    let paths = sender.saw("done").unwrap()["paths"]
        .as_object()
        .unwrap()
        .clone();
    assert!(paths.keys().any(|name| name.contains("via @")), "{paths:?}");
}

#[test]
fn with_a_server_the_ticket_alone_leads_to_the_sender() {
    let world = World::new();
    let (_server, at) = server(&world);
    let file = world.file("x", 300_000);
    let mut command = world.command("sender", &["send", "x", "--json", "--server", &at]);
    command.env("VMDT_DISCOVERY", "false");
    let mut sender = Running::spawn(command);
    let ticket = sender.wait_for("code")["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(ticket.starts_with("vmdt1"), "{ticket}");
    let mut command = world.command("receiver", &["recv", "--out", "in", "--json"]);
    command.env("VMDT_CODE", &ticket);
    let mut receiver = Running::spawn(command);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(common::same(&file, &world.path("in/x")));
}

#[test]
fn a_server_without_its_key_is_refused_with_a_hint() {
    let world = World::new();
    world.file("x", 10);
    let (exit, _, text) = world.run("a", &["send", "x", "--server", "127.0.0.1:9"]);
    assert_eq!(exit, 2, "{text}");
    assert!(text.contains("vmdt://KEY@HOST:PORT"), "{text}");
}

#[test]
fn two_people_chat_by_a_code() {
    let world = World::new();
    let chat = |who: &str, words: &[&str]| {
        world
            .command(who, words)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut alice = chat("alice", &["chat"]);
    let mut said = BufReader::new(alice.stderr.take().unwrap()).lines();
    let code = loop {
        let line = said.next().unwrap().unwrap();
        if let Some((_, code)) = line.split_once("vmdt chat ") {
            break code.to_owned();
        }
    };
    let mut bob = chat("bob", &["chat", &code, "--name", "bob"]);
    let (mut from_alice, mut from_bob) = (alice.stdin.take().unwrap(), bob.stdin.take().unwrap());
    writeln!(from_alice, "hello \u{1b}[31mbob").unwrap();
    let mut at_bob = BufReader::new(bob.stdout.take().unwrap()).lines();
    assert!(at_bob.any(|line| {
        let line = line.unwrap();
        line.starts_with("alice (@") && line.ends_with("): hello \\u{1b}[31mbob")
    }));
    writeln!(from_bob, "hello alice").unwrap();
    let mut at_alice = BufReader::new(alice.stdout.take().unwrap()).lines();
    assert!(at_alice.any(|line| {
        let line = line.unwrap();
        line.starts_with("bob (@") && line.ends_with("): hello alice")
    }));
    for (mut typed, mut child) in [(from_bob, bob), (from_alice, alice)] {
        writeln!(typed, "/explain\n/quit").unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn what_is_said_in_a_room_of_three_is_heard_by_both_others_in_order() {
    let world = World::new();
    let chat = |who: &str, words: &[&str]| {
        world
            .command(who, words)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut alice = chat("alice", &["chat"]);
    let mut said = BufReader::new(alice.stderr.take().unwrap()).lines();
    let code = loop {
        let line = said.next().unwrap().unwrap();
        if let Some((_, code)) = line.split_once("vmdt chat ") {
            break code.to_owned();
        }
    };
    let mut at_alice = BufReader::new(alice.stdout.take().unwrap()).lines();
    let mut others = Vec::new();
    for name in ["bob", "carol"] {
        let mut child = chat(name, &["chat", &code, "--name", name]);
        assert!(at_alice.any(|line| line.unwrap().ends_with(" joined")));
        let typed = child.stdin.take().unwrap();
        let shown = BufReader::new(child.stdout.take().unwrap()).lines();
        others.push((child, typed, shown));
    }
    let mut typed = alice.stdin.take().unwrap();
    let texts = ["one", "two", "three", "four"];
    for text in texts {
        writeln!(typed, "{text}").unwrap();
    }
    for (_, _, shown) in &mut others {
        let heard = shown
            .map(|line| line.unwrap())
            .filter_map(|line| Some(line.split_once("): ")?.1.to_owned()))
            .take(texts.len());
        assert_eq!(heard.collect::<Vec<_>>(), texts);
    }
    for (mut child, mut typed, _) in others {
        writeln!(typed, "/quit").unwrap();
        assert!(child.wait().unwrap().success());
    }
    writeln!(typed, "/quit").unwrap();
    assert!(alice.wait().unwrap().success());
}

/// A program that does not look for others on the local network.
fn alone(world: &World, who: &str, words: &[&str], at: &str) -> Running {
    let mut command = world.command(who, words);
    command
        .arg("--json")
        .env("VMDT_DISCOVERY", "false")
        .env("VMDT_SERVER", at);
    Running::spawn(command)
}

fn code_of(sender: &mut Running) -> String {
    sender.wait_for("code")["code"].as_str().unwrap().to_owned()
}

#[test]
fn with_a_server_a_code_leads_to_a_sender_in_another_network() {
    let world = World::new();
    let (_server, at) = server(&world);
    let file = world.file("x", 300_000);
    let mut sender = alone(&world, "sender", &["send", "x"], &at);
    let code = code_of(&mut sender);
    let mut receiver = alone(&world, "receiver", &["recv", &code, "--out", "in"], &at);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(sender.saw("joined").unwrap()["address"].is_null());
    assert!(common::same(&file, &world.path("in/x")));
    // it is used up
    let words = ["recv", &code, "--out", "in", "--wait", "1"];
    assert_eq!(alone(&world, "receiver", &words, &at).end(), 3);
}

#[test]
fn a_receiver_that_was_killed_needs_no_new_code_of_the_server() {
    let world = World::new();
    let (_server, at) = server(&world);
    let file = world.file("x", 6 << 20);
    let mut sender = alone(&world, "sender", &["send", "x", "--rate", "4M"], &at);
    let code = code_of(&mut sender);
    let words = ["recv", &code, "--out", "in"];
    let mut killed = alone(&world, "receiver", &words, &at);
    killed.wait_for("progress");
    killed.kill();
    let mut receiver = alone(&world, "receiver", &words, &at);
    assert_eq!((receiver.end(), sender.end()), (0, 0), "{:#?}", sender.seen);
    assert!(common::same(&file, &world.path("in/x")));
    let kept = fs::read_dir(world.path("state-receiver/receives")).unwrap();
    assert_eq!(
        kept.count(),
        0,
        "what was kept is a secret, and of no use any more"
    );
}

#[test]
fn a_wrong_code_at_the_server_makes_the_code_void_everywhere() {
    let world = World::new();
    let (_server, at) = server(&world);
    world.file("x", 10);
    let mut sender = alone(&world, "sender", &["send", "x"], &at);
    let code = code_of(&mut sender);
    let number = code.split('-').next().unwrap();
    let wrong = ["adroitness", "adviser"].map(|word| format!("{number}-aardvark-{word}"));
    let wrong = wrong.iter().find(|wrong| **wrong != code).unwrap();
    let words = ["recv", wrong.as_str(), "--out", "in"];
    assert_eq!(alone(&world, "receiver", &words, &at).end(), 5);
    let new = code_of(&mut sender);
    assert_ne!(new, code);
    let words = ["recv", code.as_str(), "--out", "in", "--wait", "1"];
    let mut late = alone(&world, "receiver", &words, &at);
    let exit = late.end();
    assert!(exit == 3 || exit == 5, "{:#?}", late.seen);
    // the number may be the same: then that was a wrong guess, too
    let new = if exit == 5 { code_of(&mut sender) } else { new };
    let mut receiver = alone(&world, "receiver", &["recv", &new, "--out", "in"], &at);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
}

#[test]
fn a_code_of_the_server_is_found_nearby_without_it() {
    let world = World::new();
    let (_server, at) = server(&world);
    world.file("x", 10);
    let mut sender = world.start("sender", &["send", "x", "--server", &at]);
    let code = code_of(&mut sender);
    // this one knows of no server
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(sender.saw("joined").unwrap()["address"].is_string());
}

#[test]
fn with_several_receivers_each_gets_a_code_of_the_server() {
    let world = World::new();
    let (_server, at) = server(&world);
    let file = world.file("x", 100_000);
    let mut sender = alone(&world, "sender", &["send", "x", "--receivers", "2"], &at);
    for who in ["one", "two"] {
        let code = code_of(&mut sender);
        let mut receiver = alone(&world, who, &["recv", &code, "--out", who], &at);
        assert_eq!(receiver.end(), 0, "{:#?}", sender.seen);
        assert!(common::same(&file, &world.path(who).join("x")));
    }
    assert_eq!(sender.end(), 0);
}
