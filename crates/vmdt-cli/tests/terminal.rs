//! What a person at a terminal sees and types.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::io::{Read as _, Write as _};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::World;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A program at a terminal.
struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    output: Receiver<String>,
    input: Box<dyn std::io::Write + Send>,
    _master: Box<dyn MasterPty + Send>,
    seen: String,
}

impl Terminal {
    fn start(world: &World, who: &str, words: &[&str], env: &[(&str, &str)]) -> Terminal {
        let pair = native_pty_system()
            .openpty(PtySize {
                rows: 40,
                cols: 120,
                ..PtySize::default()
            })
            .unwrap();
        let plain = world.command(who, words);
        let mut command = CommandBuilder::new(plain.get_program());
        command.args(plain.get_args());
        command.cwd(world.dir.path());
        command.env_clear();
        command.env("TERM", "xterm-256color");
        for (name, value) in plain.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        for (name, value) in env {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (to, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                if to.send(text).is_err() {
                    return;
                }
            }
        });
        Terminal {
            child,
            output,
            input: pair.master.take_writer().unwrap(),
            _master: pair.master,
            seen: String::new(),
        }
    }

    fn wait_for(&mut self, what: &str) {
        while !self.seen.contains(what) {
            let Ok(more) = self.output.recv_timeout(PATIENCE) else {
                panic!("{what:?} is not in {:?}", self.seen);
            };
            self.seen.push_str(&more);
        }
    }

    fn type_(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// The end, and all that was to be seen.
    fn end(mut self) -> (u32, String) {
        while let Ok(more) = self.output.recv_timeout(PATIENCE) {
            self.seen.push_str(&more);
        }
        (self.child.wait().unwrap().exit_code(), self.seen)
    }
}

#[test]
fn a_person_is_asked_sees_a_bar_and_can_say_no() {
    let world = World::new();
    world.file("x", 2_000_000);
    for (answer, exit) in [("n\r", 8), ("\r", 0)] {
        let (mut sender, code) = world.send(&["x"]);
        let mut terminal = Terminal::start(&world, "receiver", &["recv", "--out", "in"], &[]);
        terminal.wait_for("Code:");
        terminal.type_(&format!("{code}\r"));
        terminal.wait_for("Receive x (1 file, 2.0 MB)? [Y/n]");
        terminal.type_(answer);
        let (found, seen) = terminal.end();
        assert_eq!(found, exit, "{seen}");
        let wanted = ["the receiver said no", "received 2.0 MB"][usize::from(exit == 0)];
        assert!(seen.contains(wanted), "{seen:?}");
        assert_eq!(sender.end(), i32::try_from(exit).unwrap());
    }
}

#[test]
fn ctrl_c_at_the_question_ends_it_at_once() {
    let world = World::new();
    world.file("x", 100);
    let (mut sender, code) = world.send(&["x"]);
    let mut terminal = Terminal::start(&world, "receiver", &["recv", &code], &[]);
    terminal.wait_for("[Y/n]");
    terminal.type_("\u{3}");
    let (exit, seen) = terminal.end();
    assert_eq!(exit, 130, "{seen:?}");
    assert!(
        seen.contains("stopped") && !seen.contains("error"),
        "{seen:?}"
    );
    sender.wait_for("vanished");
}

#[test]
fn a_bar_shows_rate_time_and_ways_and_says_the_same_as_its_percentage() {
    let world = World::new();
    world.file("x", 6 << 20);
    let words = ["send", "x", "--no-qr", "--rate", "4M"];
    let mut sender = Terminal::start(&world, "sender", &words, &[]);
    sender.wait_for("vmdt recv ");
    sender.wait_for("another network");
    let (_, rest) = sender.seen.split_once("vmdt recv ").unwrap();
    let code = rest.split_whitespace().next().unwrap().to_owned();
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    sender.wait_for("MB/s");
    sender.wait_for("left");
    assert_eq!(receiver.end(), 0);
    let (exit, seen) = sender.end();
    assert_eq!(exit, 0, "{seen}");
    assert!(seen.contains("━"), "{seen:?}");
    // a bar at the end is not followed by an earlier one
    let last = seen.rfind("MB of 6.3 MB").unwrap();
    assert!(seen[last..].contains("has everything: 6.3 MB"), "{seen:?}");
}

#[test]
fn no_color_means_none_and_no_progress_means_none() {
    let world = World::new();
    world.file("x", 2_000_000);
    for env in [&[("NO_COLOR", "1")][..], &[("TERM", "dumb")]] {
        let mut sender = Terminal::start(&world, "sender", &["send", "x", "--no-progress"], env);
        sender.wait_for("another network");
        let (_, rest) = sender.seen.split_once("vmdt recv ").unwrap();
        let code = rest.split_whitespace().next().unwrap().to_owned();
        let words = [
            "recv",
            &code,
            "--out",
            "in",
            "--yes",
            "--overwrite",
            "--no-progress",
        ];
        let (exit, receiver) = Terminal::start(&world, "receiver", &words, env).end();
        assert_eq!(exit, 0, "{receiver}");
        let (exit, sender) = sender.end();
        assert_eq!(exit, 0, "{sender}");
        for seen in [sender, receiver] {
            assert!(!seen.contains('\u{1b}'), "{seen:?}");
            assert!(!seen.contains('%') || seen.contains("(100%)"), "{seen:?}");
        }
    }
}

#[test]
fn colors_are_there_otherwise() {
    let world = World::new();
    let (exit, seen) = Terminal::start(&world, "a", &["send", "nothing-here"], &[]).end();
    assert_eq!(exit, 7);
    assert!(seen.contains("\u{1b}[1;31merror:"), "{seen:?}");
}

#[test]
fn a_chat_fills_the_screen_and_gives_it_back() {
    let world = World::new();
    let mut ana = Terminal::start(&world, "ana", &["chat", "--tui"], &[]);
    ana.wait_for("members");
    ana.wait_for("ana (@");
    let code = {
        let (_, rest) = ana.seen.split_once("vmdt chat ").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let mut bob = Terminal::start(&world, "bob", &["chat", &code], &[]);
    bob.wait_for("ready");
    ana.wait_for("bob (@");
    bob.type_("hello-from-bob\r");
    ana.wait_for("hello-from-bob");
    ana.type_("hello-from-ana\r");
    bob.wait_for("hello-from-ana");
    ana.type_("/quit\r");
    let (exit, seen) = ana.end();
    assert_eq!(exit, 0);
    let (_, end) = seen
        .rsplit_once("\u{1b}[?1049l")
        .expect("the screen is given back");
    assert!(!end.contains("members"));
    bob.type_("/quit\r");
    assert_eq!(bob.end().0, 0);
}
