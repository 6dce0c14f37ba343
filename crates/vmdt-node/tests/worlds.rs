//! Worlds of six nodes and a server on bad networks: what was sent arrives, whole and once.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::{Received, World};
use vmdt_testkit::{LinkConfig, SimRng, run_seeds};

const SIZES: [usize; 8] = [0, 1, 1_392, 1_393, 5_000, 16_384, 40_000, 100_000];

/// Nodes with small segments, so that a few thousand octets are many of them.
fn small(config: &mut vmdt_node::CoreConfig) {
    config.set_segment(16 * 1024).unwrap();
    config
        .set_request_timeout(Duration::from_secs(120))
        .unwrap();
    config.set_stall_timeout(Duration::from_secs(300)).unwrap();
}

/// One world from a seed: random links (up to 30% loss, reordering, duplication, corruption),
/// random transfers, up to n - k holders crash, a partition comes and goes.
fn world(sealed: bool, seed: u64) -> Result<u64, String> {
    let rng = SimRng::from_seed(seed);
    let mut dice = rng.fork("world");
    let link = LinkConfig::sample(&mut dice.fork("link"), 0.3);
    let mut w = World::of(sealed, seed, 6, link, small);
    let (n, k) = (5, 3);
    w.cluster(n, k, false);

    // endpoints live; of the others up to n - k crash
    let mut order: Vec<usize> = (0..6).collect();
    dice.shuffle(&mut order);
    let (ends, holders) = order.split_at(2);
    let mut expected: Vec<(usize, vmdt_node::MessageId, Bytes, bool)> = Vec::new();
    for _ in 0..dice.range(2..=4u64) {
        let (from, to) = if dice.chance(0.5) {
            (ends[0], ends[1])
        } else {
            (ends[1], ends[0])
        };
        let size = *dice.pick(&SIZES).unwrap();
        let content = Bytes::from(dice.bytes(size));
        let file = dice.chance(0.5);
        let name = file.then_some("a file");
        let id = w
            .send(from, to, name, content.clone())
            .map_err(|e| e.to_string())?;
        expected.push((from, id, content, file));
        w.run_for(dice.duration(Duration::from_secs(2)));
    }
    let crashes = dice.below(u64::from(n - k) + 1) as usize;
    for holder in holders.iter().take(crashes) {
        w.kill(*holder);
        w.run_for(dice.duration(Duration::from_secs(2)));
        if dice.chance(0.3) {
            w.restart(*holder);
        }
    }
    if dice.chance(0.5) {
        let size = dice.range(1..=3u64) as usize;
        let mut island: Vec<usize> = (0..6).collect();
        dice.shuffle(&mut island);
        island.truncate(size);
        w.isolate(&island);
        w.run_for(dice.duration(Duration::from_secs(10)));
        w.heal();
    }
    let all_done = |w: &World| {
        expected
            .iter()
            .all(|(from, id, ..)| w.hosts[*from].done.contains_key(id))
    };
    w.run_until(Duration::from_secs(900), all_done)?;
    w.run_for(Duration::from_secs(5));

    for (from, id, content, file) in &expected {
        let result = &w.hosts[*from].done[id];
        let receipt = result.as_ref().map_err(|e| format!("{id}: {e}"))?;
        if receipt.digest != *blake3::hash(content).as_bytes() {
            return Err("the receipt has another digest".into());
        }
        let to = if *from == ends[0] { ends[1] } else { ends[0] };
        let copies: Vec<&Received> = w.hosts[to]
            .received
            .iter()
            .filter(|r| match r {
                Received::Message { id: i, .. } | Received::File { id: i, .. } => i == id,
            })
            .collect();
        let whole = match copies.as_slice() {
            [Received::Message { data, .. }] => !file && data == content,
            [
                Received::File {
                    content: c, name, ..
                },
            ] => *file && c == content && name == "a file",
            other => return Err(format!("{} copies of {id}", other.len())),
        };
        if !whole {
            return Err(format!("{id} arrived changed"));
        }
    }
    w.check_privacy(usize::from(k), ends)?;
    let ids: BTreeSet<_> = expected.iter().map(|e| e.1).collect();
    let total: usize = ends.iter().map(|e| w.hosts[*e].received.len()).sum();
    if total != ids.len() {
        return Err(format!("{total} deliveries of {} transfers", ids.len()));
    }
    Ok(w.network.trace())
}

#[test]
fn what_is_sent_arrives_whole_and_once() {
    run_seeds(0..60, |seed| world(true, seed).map(drop));
}

#[test]
fn what_is_sent_in_the_open_profile_arrives_whole_and_once() {
    run_seeds(0..60, |seed| world(false, seed).map(drop));
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..5 {
        for sealed in [true, false] {
            assert_eq!(world(sealed, seed), world(sealed, seed));
        }
    }
    assert_ne!(world(true, 0), world(true, 1));
}

/// Five nodes, k = 3, on good links of 20 Mbit/s and 10 ms.
fn five(seed: u64, tune: impl Fn(&mut vmdt_node::CoreConfig)) -> World {
    five_of(true, seed, tune)
}

/// The same in either profile.
fn five_of(sealed: bool, seed: u64, tune: impl Fn(&mut vmdt_node::CoreConfig)) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024);
    let mut w = World::of(sealed, seed, 5, link, |config| {
        small(config);
        config.set_stall_timeout(Duration::from_secs(20)).unwrap();
        tune(config);
    });
    w.cluster(5, 3, false);
    w
}

fn content(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i / 7) as u8 ^ i as u8)
        .collect::<Vec<u8>>()
        .into()
}

/// Sends a file from node 0 to node 1, and does something when a third of it is confirmed.
fn midway(
    w: &mut World,
    content: &Bytes,
    f: impl FnOnce(&mut World),
) -> Result<vmdt_node::Receipt, vmdt_node::TransferError> {
    let id = w.send(0, 1, Some("f"), content.clone()).unwrap();
    let third = content.len() as u64 / 3;
    w.run_until(Duration::from_secs(60), |w| {
        w.hosts[1].events.iter().any(
            |e| matches!(e, vmdt_node::Event::FileProgress { received, .. } if *received >= third),
        )
    })
    .unwrap();
    f(w);
    w.run_until(Duration::from_secs(600), |w| {
        w.hosts[0].done.contains_key(&id)
    })
    .unwrap();
    w.run_for(Duration::from_secs(30));
    w.check_privacy(3, &[0, 1]).unwrap();
    w.hosts[0].done[&id].clone()
}

fn files(w: &World, i: usize) -> Vec<&Bytes> {
    w.hosts[i]
        .received
        .iter()
        .filter_map(|r| match r {
            Received::File { content, .. } => Some(content),
            Received::Message { .. } => None,
        })
        .collect()
}

#[test]
fn any_two_holders_may_die_in_the_middle() {
    let content = content(1_000_000);
    for dead in [[2, 3], [2, 4], [3, 4]] {
        let mut w = five(1, |_| {});
        midway(&mut w, &content, |w| dead.iter().for_each(|i| w.kill(*i))).unwrap();
        assert_eq!(files(&w, 1), [&content]);
    }
}

#[test]
fn with_three_dead_it_goes_on_by_the_direct_link_alone() {
    let content = content(600_000);
    let mut w = five(2, |_| {});
    midway(&mut w, &content, |w| {
        [2, 3, 4].iter().for_each(|i| w.kill(*i))
    })
    .unwrap();
    assert_eq!(files(&w, 1), [&content]);
}

#[test]
fn with_the_receiver_behind_the_server_alone_a_sealed_session_goes_through_it() {
    let content = content(200_000);
    let mut w = five(2, |_| {});
    for other in [0, 2, 3, 4] {
        w.block_pair(1, other);
    }
    let id = w.send(0, 1, Some("f"), content.clone()).unwrap();
    w.run_until(Duration::from_secs(200), |w| {
        w.hosts[0].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[0].done[&id].as_ref().unwrap();
    assert_eq!(files(&w, 1), [&content]);
    let relayed: u64 = w
        .hosts
        .iter()
        .map(|h| h.core.stats().relayed_datagrams)
        .sum();
    assert!(relayed > 0, "there is no other way");
    assert!(w.hosts.iter().all(|h| h.core.stats().relayed_shares == 0));
}

#[test]
fn in_the_open_profile_with_three_dead_the_server_helps_within_the_rule() {
    let content = content(600_000);
    let mut w = five_of(false, 2, |_| {});
    let receipt = midway(&mut w, &content, |w| {
        [2, 3, 4].iter().for_each(|i| w.kill(*i))
    })
    .unwrap();
    assert_eq!(files(&w, 1), [&content]);
    assert!(receipt.paths().contains_key(&vmdt_node::Carrier::Server));
}

#[test]
fn in_the_open_profile_with_three_dead_and_no_relay_both_ends_get_an_error_and_no_file_is_left() {
    let content = content(600_000);
    let mut w = five_of(false, 3, |c| {
        c.set_allow_relay(false);
    });
    let begun = w.now();
    let error = midway(&mut w, &content, |w| {
        [2, 3, 4].iter().for_each(|i| w.kill(*i))
    })
    .unwrap_err();
    assert!(error.to_string().contains("only 2 of 3 shares"), "{error}");
    assert!(w.now() - begun < Duration::from_secs(90), "bounded time");
    assert!(files(&w, 1).is_empty());
    let told = w.hosts[1].events.iter().find_map(|e| match e {
        vmdt_node::Event::ReceiveFailed { error, .. } => Some(error.to_string()),
        _ => None,
    });
    assert!(
        told.is_some_and(|t| t.contains("only 2 of 3 shares")),
        "the receiver knows why"
    );
}

#[test]
fn a_blocked_direct_path_is_gone_around() {
    let content = content(300_000);
    let mut w = five(4, |_| {});
    w.block_pair(0, 1);
    let id = w.send(0, 1, Some("f"), content.clone()).unwrap();
    w.run_until(Duration::from_secs(120), |w| {
        w.hosts[0].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[0].done[&id].as_ref().unwrap();
    assert_eq!(files(&w, 1), [&content]);
    w.check_privacy(3, &[0, 1]).unwrap();
}

#[test]
fn a_sender_that_dies_leaves_the_receiver_an_error_and_no_file() {
    let content = content(600_000);
    let mut w = five(5, |_| {});
    w.send(0, 1, Some("f"), content.clone()).unwrap();
    w.run_until(Duration::from_secs(60), |w| {
        w.hosts[1]
            .events
            .iter()
            .any(|e| matches!(e, vmdt_node::Event::FileProgress { .. }))
    })
    .unwrap();
    w.kill(0);
    w.run_until(Duration::from_secs(60), |w| {
        w.hosts[1].events.iter().any(|e| {
            matches!(
                e,
                vmdt_node::Event::ReceiveFailed {
                    error: vmdt_node::TransferError::SenderSilent { .. },
                    ..
                }
            )
        })
    })
    .unwrap();
    assert!(files(&w, 1).is_empty());
}

#[test]
fn a_receiver_that_dies_and_returns_leaves_the_sender_an_error() {
    let content = content(600_000);
    let mut w = five(6, |_| {});
    let result = midway(&mut w, &content, |w| {
        w.kill(1);
        w.run_for(Duration::from_secs(2));
        w.restart(1);
    });
    let error = result.unwrap_err().to_string();
    assert!(error.contains(w.id(1).as_str()), "{error}");
    assert!(files(&w, 1).is_empty());
}

#[test]
fn members_go_on_without_the_server() {
    let content = content(600_000);
    let mut w = five(7, |_| {});
    midway(&mut w, &content, |w| w.kill_server()).unwrap();
    assert_eq!(files(&w, 1), [&content]);
    let id = w
        .send(2, 3, None, Bytes::from_static(b"still here"))
        .unwrap();
    w.run_until(Duration::from_secs(60), |w| {
        w.hosts[2].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[2].done[&id].as_ref().unwrap();
}

#[test]
fn memory_is_given_back_when_all_is_delivered() {
    let content = content(500_000);
    let mut w = five(8, |_| {});
    midway(&mut w, &content, |_| {}).unwrap();
    for host in &w.hosts {
        let usage = host.core.pool_usage();
        assert_eq!(
            (usage.entries, usage.octets),
            (0, 0),
            "{} still holds shares",
            host.id
        );
    }
}

#[test]
fn six_percent_loss_costs_little_in_virtual_time() {
    let content = content(2_000_000);
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024)
        .loss(0.06);
    let mut w = World::new(9, 5, link, small);
    w.cluster(5, 3, false);
    let receipt = midway(&mut w, &content, |_| {}).unwrap();
    // 2 MB at 20 Mbit/s take 0.8 s on one link; AIMD at 6% loss gets a part of that
    assert!(receipt.took < Duration::from_secs(20), "{:?}", receipt.took);
}

#[test]
fn holders_with_little_room_slow_a_transfer_but_do_not_stop_it() {
    let content = content(3_000_000);
    let mut w = five(10, |c| {
        c.set_pool_octets(1 << 20).unwrap();
        c.set_segment(64 * 1024).unwrap();
    });
    midway(&mut w, &content, |_| {}).unwrap();
    assert_eq!(files(&w, 1), [&content]);
}

#[test]
fn many_transfers_at_once_all_arrive() {
    let mut w = five(11, |_| {});
    let mut all = Vec::new();
    for i in 0..20 {
        let (from, to) = (i % 5, (i + 1 + i / 5) % 5);
        if from == to {
            continue;
        }
        let data = content(10_000 + 7_919 * i);
        let id = w
            .send(from, to, (i % 2 == 0).then_some("f"), data.clone())
            .unwrap();
        all.push((from, to, id, data));
    }
    w.run_until(Duration::from_secs(120), |w| {
        all.iter()
            .all(|(from, _, id, _)| w.hosts[*from].done.contains_key(id))
    })
    .unwrap();
    for (from, to, id, data) in &all {
        w.hosts[*from].done[id].as_ref().unwrap();
        let copies = w.hosts[*to].received.iter().filter(|r| match r {
            Received::Message { id: i, data: d, .. } => i == id && d == data,
            Received::File {
                id: i, content: c, ..
            } => i == id && c == data,
        });
        assert_eq!(copies.count(), 1);
    }
}

#[test]
fn two_members_that_can_not_reach_each_other_use_the_server_within_the_rule() {
    // k = 2 of n = 3: the server may have one share of each message, the third member the other
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024);
    let mut w = World::new(12, 3, link, small);
    w.cluster(3, 2, false);
    w.block_pair(0, 1);
    let data = content(200_000);
    let id = w.send(0, 1, None, data.clone()).unwrap();
    w.run_until(Duration::from_secs(120), |w| {
        w.hosts[0].done.contains_key(&id)
    })
    .unwrap();
    w.hosts[0].done[&id].as_ref().unwrap();
    w.check_privacy(2, &[0, 1]).unwrap();
}
