//! A transfer goes on after either side was killed, wherever that was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{World, same};

/// Eleven chunks: with ten of them there, a quarter of a second is left of [`RATE`].
const LEN: usize = 11 << 20;
/// Octets per second, so that there is time to kill somebody at a chosen point.
const RATE: &str = "4M";

/// Waits until something has arrived on the receiver's disk: at least this much.
fn wait_for_part(world: &World, least: u64) {
    let part = world.path("in/x.vmdt.part");
    let len = || std::fs::metadata(&part).map_or(0, |meta| meta.len());
    while len() < least && !world.path("in/x").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn receiver_killed_at(points: std::ops::Range<u64>) {
    let world = World::new();
    let file = world.file("x", LEN);
    for point in points {
        let _ = std::fs::remove_dir_all(world.path("in"));
        let (mut sender, code) = world.send(&["x", "--rate", RATE]);
        let mut killed = world.start("receiver", &["recv", &code, "--out", "in"]);
        killed.wait_for("offer");
        wait_for_part(&world, point << 20);
        killed.kill();
        assert!(!world.path("in/x").exists(), "it was killed halfway");
        let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
        assert_eq!((receiver.end(), sender.end()), (0, 0), "{:#?}", sender.seen);
        assert!(same(&file, &world.path("in/x")));
        let already = receiver.saw("done").unwrap()["already"].as_u64().unwrap();
        if point >= 2 {
            assert!(
                already > 0,
                "{point} of 11 chunks were there, none was kept"
            );
        }
    }
}

#[test]
fn a_receiver_that_was_killed_early_goes_on_where_it_was() {
    receiver_killed_at(0..5);
}

#[test]
fn a_receiver_that_was_killed_late_goes_on_where_it_was() {
    receiver_killed_at(5..10);
}

fn sender_killed_at(points: std::ops::Range<u64>) {
    let world = World::new();
    let file = world.file("x", LEN);
    for point in points {
        let _ = std::fs::remove_dir_all(world.path("in"));
        let (sender, code) = world.send(&["x", "--rate", RATE]);
        let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
        receiver.wait_for("offer");
        wait_for_part(&world, point << 20);
        sender.kill();
        receiver.wait_for("vanished");
        // the receiver that runs looks for it again by itself
        let (mut sender, again) = world.send(&["x", "--rate", RATE]);
        assert_eq!(again, code, "it shows the same code");
        assert_eq!(
            (receiver.end(), sender.end()),
            (0, 0),
            "{:#?}",
            receiver.seen
        );
        assert!(same(&file, &world.path("in/x")));
        let already = receiver.saw("done").unwrap()["already"].as_u64().unwrap();
        if point >= 2 {
            assert!(
                already > 0,
                "{point} of 11 chunks were there, none was kept"
            );
        }
    }
}

#[test]
fn a_sender_that_was_killed_early_goes_on() {
    sender_killed_at(0..5);
}

#[test]
fn a_sender_that_was_killed_late_goes_on() {
    sender_killed_at(5..10);
}

#[test]
fn a_sender_that_does_not_come_back_is_given_up_with_a_hint() {
    let world = World::new();
    world.file("x", LEN);
    let (sender, code) = world.send(&["x", "--rate", RATE]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in", "--wait", "1"]);
    receiver.wait_for("offer");
    wait_for_part(&world, 1);
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
    let (mut sender, code) = world.send(&["x", "--rate", RATE]);
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    receiver.wait_for("offer");
    wait_for_part(&world, 1);
    receiver.interrupt();
    assert_eq!(receiver.end(), 130);
    sender.wait_for("vanished");
    let mut receiver = world.start("receiver", &["recv", &code, "--out", "in"]);
    assert_eq!((receiver.end(), sender.end()), (0, 0));
    assert!(same(&file, &world.path("in/x")));
}
