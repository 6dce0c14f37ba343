//! No secret is in what a node logs at any level, shows or says, nor in its memory when a message was
//! delivered.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr
)]

mod common;

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::World;
use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use vmdt_node::TransferError;
use vmdt_seal::announcement::SealedDetails;
use vmdt_seal::e2e;
use vmdt_testkit::LinkConfig;
use vmdt_wire::Message;

/// Takes down all that is logged, whatever its level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = self.0.lock().unwrap();
        writeln!(text, "{}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Whether a text shows a secret in any of the forms in which octets are written out. Eight octets
/// in a row are enough to give it away.
fn shows(text: &[u8], secret: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    let has = |part: &[u8]| lower.windows(part.len()).any(|window| window == part);
    let decimal = |octets: &[u8], separator: &str| {
        let items: Vec<String> = octets.iter().map(u8::to_string).collect();
        items.join(separator)
    };
    let hexadecimal = |octets: &[u8]| {
        let items: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        items.join(", ")
    };
    let encoded = |text: &str| has(text.to_lowercase().as_bytes());
    secret.windows(8).any(|part| {
        has(HEXLOWER.encode(part).as_bytes())
            || has(decimal(part, ", ").as_bytes())
            || has(decimal(part, ",\n").as_bytes())
            || has(hexadecimal(part).as_bytes())
            || text.windows(8).any(|window| window == part)
            || encoded(&part.escape_ascii().to_string())
    }) || encoded(&BASE64.encode(secret))
        || encoded(&BASE64URL_NOPAD.encode(secret))
        || encoded(&BASE32_NOPAD.encode(secret))
}

#[test]
fn the_detector_finds_what_it_should() {
    let secret: [u8; 32] = std::array::from_fn(|i| (i * 37 + 11) as u8);
    for text in [
        format!("x {secret:?} y"),
        format!("{secret:02x?}"),
        HEXLOWER.encode(&secret[8..20]),
        format!("key={}", BASE64URL_NOPAD.encode(&secret)),
        format!("{:?}", Bytes::copy_from_slice(&secret)),
    ] {
        assert!(shows(text.as_bytes(), &secret), "{text}");
    }
    assert!(shows(&[b"raw: ", &secret[..]].concat(), &secret));
    assert!(!shows(b"nothing to be seen in 1, 2, 3, 4", &secret));
}

const TEXT: &str = "the words that nobody else may read, 9f61c2";

/// A world in which much happens and much goes wrong. What its holder 3 was told stands for what
/// was announced.
fn eventful(seed: u64) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .loss(0.05);
    let mut w = World::new(seed, 7, link, |config| {
        config.set_segment(16 * 1024).unwrap();
        config.set_allow_relay(false);
        config.set_allow_direct(false);
        config.set_stall_timeout(Duration::from_secs(5)).unwrap();
    });
    w.cluster(5, 3, false);
    w.seize(3);
    w
}

/// The details of the messages that host 3 was told of.
fn announced(w: &mut World) -> Vec<SealedDetails> {
    w.puppet(3, |p, _| {
        let details = |(_, line): &(_, Message)| match line {
            Message::SharePoolAdd(add) => Some(SealedDetails::parse(&add.details).unwrap()),
            _ => None,
        };
        p.lines.iter().filter_map(details).collect()
    })
}

/// The secret beneath each segment that went to a host.
fn message_secrets(w: &World, to: usize, details: &[SealedDetails]) -> Vec<[u8; 32]> {
    let prekeys = w.hosts[to].core.prekeys().unwrap();
    let mut out = Vec::new();
    for details in details {
        let context = details.context();
        let Some(prekey) = prekeys.find(context.prekey_id) else {
            continue;
        };
        if details.receiver().node_id() == w.id(to) {
            let secret = e2e::decapsulate(prekey, context, details.encapsulated()).unwrap();
            let number = details.manifest().position().number;
            out.push(*secret.as_octets());
            out.push(*secret.segment(number).as_octets());
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

#[test]
fn nothing_secret_is_logged_or_shown_or_said_in_an_error() {
    let log = Log::default();
    let (mut w, shown) = tracing::subscriber::with_default(log.clone(), || {
        let mut w = eventful(1);
        let mut shown = String::new();
        let text = Bytes::from_static(TEXT.as_bytes());
        let done = w.send(0, 1, None, text.clone()).unwrap();
        w.send(2, 1, Some("f"), vec![7; 40_000].into()).unwrap();
        w.run_for(Duration::from_secs(10));
        w.hosts[0].done[&done].as_ref().unwrap();
        // what goes wrong speaks: garbage, an unknown peer, a peer that dies, a key that changes
        for octets in [
            &b"\xff\xff/garbage\n"[..],
            b"PROFILE/@AAAAAAAAAAAAAAA/AAAA\n",
        ] {
            w.with(0, |core, now| core.handle_control_bytes(now, octets));
        }
        w.reach(3, 0);
        let sender = w.id(0);
        w.puppet(3, |p, now| {
            let receipts = vec![0; 300];
            p.say(now, sender, Message::Receipts { receipts });
        });
        let nobody = "@AAAAAAAAAAAAAAA".parse().unwrap();
        let error = w.with(0, |core, now| {
            core.send(now, nobody, vmdt_node::core::Kind::Octets, "", Some(1))
        });
        let error: TransferError = error.unwrap_err();
        write!(shown, "{error} {error:?}").unwrap();
        let new = w.identity(50);
        let change = w.with(4, |core, now| core.change_key(now, &new).unwrap());
        write!(shown, "{change:?}").unwrap();
        w.kill(1);
        w.send(0, 1, None, text).unwrap();
        w.run_for(Duration::from_secs(60));
        for host in &w.hosts {
            write!(shown, "{:?} {:#?}", host.core, host.core).unwrap();
            write!(shown, "{:?}", host.core.prekeys()).unwrap();
            write!(shown, "{:?}", host.core.stats()).unwrap();
            for result in host.done.values() {
                write!(shown, "{result:?}").unwrap();
                if let Err(error) = result {
                    write!(shown, "{error}").unwrap();
                }
            }
            for event in &host.events {
                // what a message says is for who is given the event
                if !matches!(event, vmdt_node::Event::Message { .. }) {
                    write!(shown, "{event:?}").unwrap();
                }
            }
        }
        (w, shown)
    });
    let details = announced(&mut w);
    assert!(details.len() >= 2, "messages were sent");
    let logged = log.0.lock().unwrap().clone();
    assert!(
        logged.contains("receipts were refused"),
        "it logs: {logged}"
    );
    let mut secrets: Vec<Vec<u8>> = vec![TEXT.as_bytes().to_vec()];
    for i in 0..7 {
        secrets.push(w.identity(i).seed().to_vec());
        let prekeys = w.hosts[i].core.prekeys().unwrap().encode();
        // each prekey: id 4, secret 32, two dates of 8, behind 35 octets
        for prekey in prekeys[35..].chunks(52) {
            secrets.push(prekey[4..36].to_vec());
        }
    }
    secrets.push(w.identity(50).seed().to_vec());
    let of_messages = message_secrets(&w, 1, &details);
    assert!(!of_messages.is_empty());
    secrets.extend(of_messages.into_iter().map(Vec::from));
    for secret in &secrets {
        assert!(!shows(logged.as_bytes(), secret), "a secret is logged");
        assert!(!shows(shown.as_bytes(), secret), "a secret is shown");
    }
}

/// Set for the process whose memory is read.
const CHILD: &str = "VMDT_TEST_MEMORY_OF_A_NODE";

/// The world of the process that is read, and of the one that knows what to look for.
fn delivered() -> (World, Vec<SealedDetails>) {
    let mut w = eventful(2);
    let id = w
        .send(0, 1, None, Bytes::from_static(TEXT.as_bytes()))
        .unwrap();
    w.run_for(Duration::from_secs(10));
    w.hosts[0].done[&id].as_ref().unwrap();
    let details = announced(&mut w);
    (w, details)
}

#[test]
#[ignore = "run by `the_memory_of_a_process_that_delivered_holds_no_message_key` in a process of its own"]
fn a_process_that_delivered() {
    use std::io::{Read as _, Write as _};
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let (w, details) = delivered();
    let mut out = std::io::stdout().lock();
    // a marker that must be found, so that finding nothing means something
    let marker: Vec<u8> = (0..32u8).map(|i| i.wrapping_mul(91) ^ 0x3c).collect();
    out.write_all(b"\nREADY\n").unwrap();
    out.flush().unwrap();
    // until its parent has looked
    let _ = std::io::stdin().read(&mut [0; 1]);
    drop((w, details, std::hint::black_box(marker)));
}

#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_a_process_that_delivered_holds_no_message_key() {
    use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
    use std::process::{Command, Stdio};

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "a_process_that_delivered",
        ])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim_end() != "READY" {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the process ended");
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id()));
    let memory = std::fs::File::open(format!("/proc/{}/mem", child.id()));
    let (Ok(maps), Ok(mut memory)) = (maps, memory) else {
        child.kill().unwrap();
        child.wait().unwrap();
        eprintln!("SKIPPED: this system does not let a process read its child's memory");
        return;
    };
    // the same world here tells what to look for; what was looked for is not in the other process
    let (w, details) = delivered();
    let keys = message_secrets(&w, 1, &details);
    assert!(keys.len() >= 2);
    let marker: Vec<u8> = (0..32u8).map(|i| i.wrapping_mul(91) ^ 0x3c).collect();
    let (mut read, mut marked, mut found) = (0, false, Vec::new());
    for map in maps.lines() {
        let mut fields = map.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let to = u64::from_str_radix(to, 16).unwrap();
        let mut octets = vec![0; usize::try_from(to - from).unwrap()];
        // some maps can't be read, such as those of the kernel
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut octets).is_err() {
            continue;
        }
        read += octets.len();
        let has = |wanted: &[u8]| octets.windows(16).any(|window| window == wanted);
        marked |= has(&marker[..16]);
        for (number, _) in keys.iter().enumerate().filter(|(_, key)| has(&key[..16])) {
            found.push((number, map.to_owned()));
        }
    }
    child.stdin.take().unwrap().write_all(b".").unwrap();
    child.wait().unwrap();
    if read == 0 {
        eprintln!("SKIPPED: nothing of the child's memory could be read");
        return;
    }
    assert!(marked, "{read} octets were read, and not those of its heap");
    assert!(found.is_empty(), "{found:?} in {read} octets");
}
