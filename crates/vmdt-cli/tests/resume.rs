//! A transfer goes on after either side was killed, wherever that was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Running, World, same};

/// Large enough that it does not end between two lines of progress.
const LEN: usize = 24 << 20;

/// Waits until something has arrived on the receiver's disk: at least this much.
fn wait_for_part(world: &World, _running: &mut Running, least: u64) -> u64 {
    let part = world.path("in/x.vmdt.part");
    loop {
        let len = std::fs::metadata(&part).map_or(0, |meta| meta.len());
        if len >= least || world.path("in/x").exists() {
            return len;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_receiver_that_was_killed_goes_on_where_it_was() {
    let world = World::new();
    let file = world.file("x", LEN);
    for tenth in [0, 1, 2, 4, 6, 7] {
        let _ = std::fs::remove_dir_all(world.path("in"));
        let (mut sender, code) = world.send(&["x"]);
        let mut killed = world.start("receiver", &["recv", &code, "--out", "in"]);
        killed.wait_for("offer");
        wait_for_part(&world, &mut killed, (LEN as u64) * tenth / 10);
        killed.kill();
        assert!(!world.path("in/x").exists(), "it was killed halfway");
        let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
        assert_eq!((receiver.end(), sender.end()), (0, 0), "{:#?}", sender.seen);
        assert!(same(&file, &world.path("in/x")));
        let already = receiver.saw("done").unwrap()["already"].as_u64().unwrap();
        if tenth >= 4 {
            assert!(
                already > 0,
                "nothing was kept although {tenth} tenths were there"
            );
        }
    }
}

#[test]
fn a_sender_that_was_killed_shows_the_same_code_and_goes_on() {
    let world = World::new();
    let file = world.file("x", LEN);
    for tenth in [1, 3, 5, 7] {
        let _ = std::fs::remove_dir_all(world.path("in"));
        let (sender, code) = world.send(&["x"]);
        let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
        receiver.wait_for("offer");
        wait_for_part(&world, &mut receiver, (LEN as u64) * tenth / 10);
        sender.kill();
        receiver.wait_for("vanished");
        // the receiver that runs looks for it again by itself
        let (mut sender, again) = world.send(&["x"]);
        assert_eq!(again, code);
        assert_eq!(
            (receiver.end(), sender.end()),
            (0, 0),
            "{:#?}",
            receiver.seen
        );
        assert!(same(&file, &world.path("in/x")));
        assert!(receiver.saw("done").unwrap()["already"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_sender_that_does_not_come_back_is_given_up_with_a_hint() {
    let world = World::new();
    world.file("x", LEN);
    let (sender, code) = world.send(&["x"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in", "--wait", "1"]);
    receiver.wait_for("offer");
    wait_for_part(&world, &mut receiver, 1);
    sender.kill();
    assert_eq!(receiver.end(), 4);
    let error = receiver.saw("error").unwrap();
    assert!(
        error["hint"].as_str().unwrap().contains("same command"),
        "{error}"
    );
    assert!(world.path("in/x.vmdt.part").exists() && !world.path("in/x").exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_at_the_receiver_is_told_to_the_sender_which_waits_for_it() {
    let world = World::new();
    let file = world.file("x", LEN);
    let (mut sender, code) = world.send(&["x"]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    receiver.wait_for("offer");
    wait_for_part(&world, &mut receiver, 1);
    receiver.interrupt();
    assert_eq!(receiver.end(), 130);
    sender.wait_for("vanished");
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(same(&file, &world.path("in/x")));
}
