//! The octets in `docs/protocol.md` are those of `golden.txt`, which the other tests hold against
//! the code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;

use vmdt_seal::identity::SecretIdentity;

const TEXT: &str = include_str!("../../../docs/protocol.md");
const GOLDEN: &str = include_str!("golden.txt");
const HEADING: &str = "### 12.12 Octets to check against";

/// What the text must show.
const SHOWN: [&str; 24] = [
    "cluster-id",
    "credential",
    "descriptor",
    "details",
    "express-opening",
    "express-piece-1",
    "express-piece-2",
    "express-piece-3",
    "group-details",
    "hand-overs",
    "ik-answer",
    "ik-chacha-datagram",
    "ik-datagram",
    "ik-offer",
    "membership",
    "node-id",
    "profile",
    "receipts",
    "rotation",
    "ticket",
    "xx-answer",
    "xx-confirm",
    "xx-datagram",
    "xx-offer",
];

/// The section's blocks: the lines of each under the name in backquotes that stands before it.
fn blocks() -> BTreeMap<&'static str, Vec<&'static str>> {
    let (_, section) = TEXT.split_once(HEADING).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let section = section.split("\n### ").next().unwrap();
    let mut blocks = BTreeMap::new();
    let mut name = None;
    let mut block: Option<Vec<&str>> = None;
    for line in section.lines() {
        match (line, &mut block) {
            ("```text", None) => block = Some(Vec::new()),
            ("```", Some(_)) => {
                let name = name.take().expect("a block has a name of its own");
                let lines = block.take().unwrap();
                assert!(blocks.insert(name, lines).is_none(), "{name} stands twice");
            }
            (line, Some(lines)) => lines.push(line),
            (line, None) => {
                let words = line.split('`').skip(1).step_by(2);
                name = words.filter(|word| golden(word).is_some()).last().or(name);
            }
        }
    }
    assert!(block.is_none(), "a block is not closed");
    blocks
}

fn golden(name: &str) -> Option<&'static str> {
    GOLDEN
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[test]
fn octets_in_the_text_are_golden() {
    for (name, lines) in blocks() {
        assert_eq!(Some(lines.concat().as_str()), golden(name), "{name}");
    }
}

#[test]
fn the_text_shows_what_it_must() {
    let shown: Vec<&str> = blocks().into_keys().collect();
    assert_eq!(shown, SHOWN);
}

#[test]
fn blocks_are_wrapped_at_64_digits() {
    for (name, lines) in blocks() {
        let (last, full) = lines.split_last().expect("a block has lines");
        assert!(full.iter().all(|line| line.len() == 64), "{name}");
        assert!((1..=64).contains(&last.len()), "{name}");
    }
}

#[test]
fn the_people_have_the_seeds_that_the_text_names() {
    let alice = SecretIdentity::from_seed(&[1; 32]);
    let hex = |octets: &[u8]| data_encoding::HEXLOWER.encode(octets);
    let blocks = blocks();
    let id = alice.node_id();
    assert_eq!(blocks["node-id"].concat(), hex(id.as_str().as_bytes()));
    let credential = hex(&alice.credential(1_000).encode());
    assert_eq!(blocks["credential"].concat(), credential);
}
