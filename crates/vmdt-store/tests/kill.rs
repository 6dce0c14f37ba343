//! kill -9 in the middle of writing: everything that was confirmed is there.
//!
//! The test starts itself as a child, which runs a durable pool and prints what it confirms; the
//! parent kills it at some point and looks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroU8;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::{Anchor, Announcement, Placement, Pool, PoolConfig, PoolEvent, Store};
use vmdt_store::{Options, RedbStore};
use vmdt_wire::{MessageId, NodeId};

const CHILD: &str = "VMDT_STORE_KILL_CHILD";
const ROUNDS: u64 = 20;
const SHARE: usize = 20_000;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn message(number: u64) -> MessageId {
    let mut random = [0; 12];
    random[..8].copy_from_slice(&number.to_be_bytes());
    MessageId::from_random(random)
}

fn share(number: u64) -> Bytes {
    let octets = number.to_be_bytes().repeat(SHARE / 8);
    octets.into()
}

fn digest(octets: &[u8]) -> [u8; 16] {
    let mut digest = [0_u8; 16];
    for (at, octet) in octets.iter().enumerate() {
        digest[at % 16] = digest[at % 16].rotate_left(1) ^ octet;
    }
    digest
}

fn announcement(number: u64) -> Announcement {
    let at = |i: u8, holder, octets: &[u8]| Placement {
        index: NonZeroU8::new(i).unwrap(),
        holder: node(holder),
        digest: digest(octets),
        active: false,
    };
    let shares = vec![at(1, "carol", &share(number)), at(2, "dave", b"")];
    Announcement::new(message(number), node("alice"), node("bob"), 2).with_shares(2, shares)
}

fn open(path: &Path) -> (RedbStore, Pool, Anchor) {
    let store = RedbStore::open(path, Options::default()).unwrap();
    let anchor = Anchor {
        at: Instant::now(),
        unix: Duration::from_secs(1_800_000_000),
    };
    let config = PoolConfig {
        max_octets: 1 << 30,
        max_octets_per_sender: 1 << 30,
        ..PoolConfig::new(node("carol"))
    };
    let records = store.records(Pool::RECORDS).unwrap();
    let (pool, report) = Pool::restore(config, anchor, records, digest);
    assert_eq!(report.damaged, 0, "{report:?}");
    (store, pool, anchor)
}

/// Takes shares for ever, in groups of a size that varies, and ends every third message.
fn child(path: &Path, first: u64) {
    let (mut store, mut pool, anchor) = open(path);
    let now = anchor.at;
    let mut out = std::io::stdout().lock();
    let mut number = first;
    loop {
        for _ in 0..=number % 7 {
            let octets = share(number);
            let (id, index) = (message(number), NonZeroU8::MIN);
            pool.add(now, node("alice"), &announcement(number)).unwrap();
            let digest = digest(&octets);
            pool.store(now, node("alice"), id, index, octets, digest)
                .unwrap();
            number += 1;
        }
        let ended = number.is_multiple_of(3).then(|| number - 1);
        if let Some(ended) = ended {
            writeln!(out, "ending {ended}").unwrap();
            pool.remove(now, message(ended), node("alice")).unwrap();
        }
        while let Some(batch) = pool.poll_persist() {
            store.commit(&batch.changes).unwrap();
            pool.handle_persisted(batch.op);
        }
        while let Some(event) = pool.poll_event() {
            if let PoolEvent::Stored { message, .. } = event {
                let stored = (first..number).find(|number| self::message(*number) == message);
                writeln!(out, "stored {}", stored.unwrap()).unwrap();
            }
        }
        if let Some(ended) = ended {
            writeln!(out, "ended {ended}").unwrap();
        }
        out.flush().unwrap();
    }
}

#[test]
fn what_was_confirmed_survives_being_killed_at_any_point() {
    if let Some(place) = std::env::var_os(CHILD) {
        let place = place.into_string().unwrap();
        let (first, path) = place.split_once(' ').unwrap();
        child(Path::new(path), first.parse().unwrap());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kill.vmdt");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut total = 0;
    for round in 0..ROUNDS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Some rounds begin afresh, the others continue in the file that the killed one left.
        if round % 4 == 0 {
            let _ = std::fs::remove_file(&path);
        }
        let first = round * 1_000_000;
        let mut running = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "what_was_confirmed_survives_being_killed_at_any_point",
                "--nocapture",
            ])
            .env(CHILD, format!("{first} {}", path.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
        let wanted = usize::try_from(random >> 33).unwrap() % 40;
        let pause = Duration::from_micros((random >> 20) % 3_000);
        let mut heard: Vec<String> = Vec::new();
        while heard.len() < wanted {
            match lines.next() {
                Some(line) => heard.push(line.unwrap()),
                None => panic!("the child ended by itself"),
            }
        }
        // Somewhere within the next write.
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        running.kill().unwrap();
        running.wait().unwrap();
        // What it had said before it was killed counts, too.
        heard.extend(lines.map_while(Result::ok));

        let (_store, mut pool, anchor) = open(&path);
        let numbers = |word: &str| -> Vec<u64> {
            let said = heard.iter().filter_map(|line| line.strip_prefix(word));
            said.filter_map(|number| number.parse().ok()).collect()
        };
        let ending = numbers("ending ");
        for number in numbers("stored ") {
            let (id, index) = (message(number), NonZeroU8::MIN);
            if ending.contains(&number) {
                continue;
            }
            pool.unfreeze(anchor.at, id, index, node("bob")).unwrap();
            let found = pool.claim(anchor.at, id, node("bob"), index);
            assert_eq!(found, Ok(share(number)), "round {round}, message {number}");
            total += 1;
        }
        for number in numbers("ended ") {
            assert_eq!(pool.announcement(message(number)), None, "round {round}");
        }
    }
    assert!(
        total > 50,
        "only {total} were confirmed: nothing was tested"
    );
}
