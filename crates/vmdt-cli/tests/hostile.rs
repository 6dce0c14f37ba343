//! A sender that wants to write elsewhere: it speaks the transfer's messages, and lies in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::fs;
use std::time::Duration;

use common::{Running, World};
use vmdt_node::{Event, Node, Policy, Server};

/// An entry of an offer, as it stands in the message.
struct Entry<'a> {
    kind: u8,
    path: &'a [&'a [u8]],
    target: &'a [u8],
}

const FILE: u8 = 0;
const FOLDER: u8 = 1;
const LINK: u8 = 2;

/// An offer with these entries.
fn offer(session: &[u8], entries: &[Entry<'_>]) -> Vec<u8> {
    let mut octets = b"VMX\x01\x02".to_vec();
    octets.extend(session);
    octets.extend([0, 0, 0, 0, 0, 0, 0, 1]);
    for entry in entries {
        octets.push(entry.kind);
        octets.extend(5u64.to_be_bytes());
        octets.extend(0o644u32.to_be_bytes());
        octets.extend([0; 12]);
        octets.extend((entry.target.len() as u16).to_be_bytes());
        octets.extend(entry.target);
        octets.push(entry.path.len() as u8);
        for name in entry.path {
            octets.push(name.len() as u8);
            octets.extend(*name);
        }
    }
    octets
}

/// Offers these entries to `vmdt recv`. Gives its exit code and what it said.
fn received(world: &World, entries: &[Entry<'_>]) -> (i32, Running) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let node = Node::builder()
            .server(server.url().unwrap())
            .local("127.0.0.1:0".parse().unwrap())
            .bind()
            .await
            .unwrap();
        let mut events = node.events();
        let cluster = node.create_cluster(Policy::k_of_n(2, 2)).await.unwrap();
        let ticket = cluster.ticket().await.unwrap().encode().to_string();
        let mut command = world.command("receiver", &["recv", "--out", "in", "--json"]);
        command.env("VMDT_CODE", &ticket);
        let receiver = Running::spawn(command);
        let (mut session, mut from) = (None, None);
        let end = tokio::task::spawn_blocking(move || {
            let mut receiver = receiver;
            (receiver.end(), receiver)
        });
        tokio::pin!(end);
        loop {
            tokio::select! {
                ended = &mut end => return ended.unwrap(),
                event = events.next() => match event {
                    Some(Event::Message { from: who, data, .. }) if session.is_none() => {
                        assert_eq!(&data[..5], b"VMX\x01\x01", "it says hello first");
                        session = Some(data[5..13].to_vec());
                        from = Some(who);
                        let offer = offer(session.as_ref().unwrap(), entries);
                        node.send(who, offer).await.unwrap();
                    }
                    Some(_) => {}
                    None => panic!("the node was closed"),
                },
                () = tokio::time::sleep(Duration::from_secs(90)) => panic!("{from:?} hangs"),
            }
        }
    })
}

/// Everything below a folder.
fn all(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(all(&entry.path()));
        }
    }
    found
}

#[test]
fn a_name_that_leaves_the_folder_is_refused_before_anything_is_written() {
    let file = |path| Entry {
        kind: FILE,
        path,
        target: b"",
    };
    let folder = |path| Entry {
        kind: FOLDER,
        path,
        target: b"",
    };
    let link = |path, target| Entry {
        kind: LINK,
        path,
        target,
    };
    let offers: [&[Entry<'_>]; 6] = [
        &[file(&[b"..", b"escaped"])],
        &[file(&[b"../escaped"])],
        &[file(&[b"/tmp/escaped"])],
        &[folder(&[b"d"]), file(&[b"d", b"..", b"..", b"escaped"])],
        &[file(&[b"escaped\0"])],
        // a link in the place of a folder, then a file in it
        &[link(&[b"d"], b".."), file(&[b"d", b"escaped"])],
    ];
    for entries in offers {
        let world = World::new();
        let (exit, receiver) = received(&world, entries);
        assert_eq!(exit, 8, "{:#?}", receiver.seen);
        let error = receiver.saw("error").unwrap()["message"].to_string();
        assert!(error.contains("nothing was received"), "{error}");
        let written = all(world.dir.path());
        assert!(
            !written
                .iter()
                .any(|path| path.to_string_lossy().contains("escaped")),
            "{written:?}"
        );
    }
}
