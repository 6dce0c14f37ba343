//! Golden conversations with a registry, from `tests/conversations/*.txt`.
//!
//! A script is a list of steps:
//! - `open N ADDRESS`: connection N is accepted from there;
//! - `N> line`: the client sends the line; `\n` inside sends several at once;
//! - `N< line`: the registry sends exactly this next; `N<+ line`: in the same write
//!   as the line before;
//! - `close N`: the client closes; `N closed`: the registry closes;
//! - `wait S`: S seconds pass, and everything due happens at its time;
//! - `{name}` stands for an id: the first time it takes what stands there, later it
//!   must be the same.
//!
//! Whatever the registry sends must be expected before the next step.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use common::base;
use vmdt_control::{ConnId, Registry, RegistryConfig, RegistryOutput};

struct Script {
    registry: Registry,
    now: Instant,
    /// Lines each connection was sent, with the number of the write.
    received: BTreeMap<u64, VecDeque<(usize, String)>>,
    closed: Vec<u64>,
    writes: usize,
    last_write: usize,
    names: BTreeMap<String, String>,
}

impl Script {
    fn run(text: &str) {
        let mut script = Script {
            registry: Registry::new(RegistryConfig::new(), [1; 32]),
            now: base(),
            received: BTreeMap::new(),
            closed: Vec::new(),
            writes: 0,
            last_write: 0,
            names: BTreeMap::new(),
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                script.step(line, &format!("line {}: {line}", number + 1));
            }
        }
        script.nothing_unexpected("the end");
    }

    fn step(&mut self, line: &str, place: &str) {
        if let Some((conn, expected)) = line.split_once("<+ ") {
            self.expect(conn.parse().unwrap(), expected, true, place);
            return;
        }
        if let Some((conn, expected)) = line.split_once("< ") {
            self.expect(conn.parse().unwrap(), expected, false, place);
            return;
        }
        if let Some(conn) = line.strip_suffix(" closed") {
            let conn = conn.parse().unwrap();
            let at = self.closed.iter().position(|&c| c == conn);
            self.closed
                .remove(at.unwrap_or_else(|| panic!("not closed at {place}")));
            return;
        }
        self.nothing_unexpected(place);
        if let Some((conn, sent)) = line.split_once("> ") {
            let mut octets = self.filled(sent).replace("\\n", "\n");
            octets.push('\n');
            let conn = ConnId(conn.parse().unwrap());
            self.registry
                .handle_bytes(self.now, conn, octets.as_bytes());
            self.drain();
            return;
        }
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["open", conn, address] => {
                let conn = ConnId(conn.parse().unwrap());
                self.registry
                    .handle_open(self.now, conn, address.parse().unwrap());
            }
            ["close", conn] => self
                .registry
                .handle_closed(self.now, ConnId(conn.parse().unwrap())),
            ["wait", seconds] => {
                let end = self.now + Duration::from_secs(seconds.parse().unwrap());
                while let Some(at) = self.registry.poll_timeout().filter(|&at| at <= end) {
                    self.now = self.now.max(at);
                    self.registry.handle_timeout(self.now);
                    self.drain();
                }
                self.now = end;
            }
            _ => panic!("no such step: {place}"),
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                RegistryOutput::Write { conn, bytes } => {
                    self.writes += 1;
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    assert!(text.ends_with('\n'), "a write of half a line: {text:?}");
                    let lines = text.lines().map(|line| (self.writes, line.to_owned()));
                    self.received.entry(conn.0).or_default().extend(lines);
                    self.registry.handle_sent(self.now, conn, bytes.len());
                }
                RegistryOutput::Close { conn } => self.closed.push(conn.0),
            }
        }
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }

    fn expect(&mut self, conn: u64, expected: &str, same_write: bool, place: &str) {
        let next = self.received.entry(conn).or_default().pop_front();
        let (write, line) = next.unwrap_or_else(|| panic!("nothing was sent at {place}"));
        let mut expected = self.filled(expected);
        if let (Some(start), Some(end)) = (expected.find('{'), expected.find('}')) {
            let tail = line.get(start..).unwrap_or_default();
            let value: String = tail
                .chars()
                .take_while(|&c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
                .collect();
            self.names
                .insert(expected[start + 1..end].to_owned(), value.clone());
            expected.replace_range(start..=end, &value);
        }
        assert_eq!(line, expected, "at {place}");
        if same_write {
            assert_eq!(write, self.last_write, "another write at {place}");
        }
        self.last_write = write;
    }

    fn nothing_unexpected(&self, place: &str) {
        for (conn, lines) in &self.received {
            assert!(
                lines.is_empty(),
                "connection {conn} was also sent {lines:?} before {place}"
            );
        }
        assert!(
            self.closed.is_empty(),
            "closed: {:?} before {place}",
            self.closed
        );
    }
}

macro_rules! conversations {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                Script::run(include_str!(concat!("conversations/", stringify!($name), ".txt")));
            }
        )*
    };
}

conversations! {
    bar_cluster_life
    bar_refusals
    slash_cluster_life
    slash_refusals
    mixed_cluster
    grace
    resume
    takeover
    relay
    deadlines
    readiness
}
