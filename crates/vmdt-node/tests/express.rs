//! Small messages as pieces that need no announcement: whole and once whatever is lost, and nothing
//! for those who carry, forge, repeat or flood.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::{Received, World};
use vmdt_node::core::{CoreConfig, CoreStats};
use vmdt_node::{Carrier, MessageId, NodeId};
use vmdt_testkit::{LinkConfig, SimRng, run_seeds};
use vmdt_wire::Message;

/// The kinds of datagrams.
const HAND_ON: u8 = 1;
const HERE_IS: u8 = 2;

fn small(config: &mut CoreConfig) {
    config
        .set_request_timeout(Duration::from_secs(120))
        .unwrap();
    config.set_stall_timeout(Duration::from_secs(300)).unwrap();
}

fn good() -> LinkConfig {
    LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024)
}

fn content(number: usize, len: usize) -> Bytes {
    (0..len).map(|i| (number * 7 + i * 31) as u8).collect()
}

/// A world in which node 0 has sent node 1 something before, so that all sessions are there.
fn warm(seed: u64, count: usize, link: LinkConfig, tune: impl Fn(&mut CoreConfig)) -> World {
    let mut w = World::new(seed, count, link, |config| {
        small(config);
        tune(config);
    });
    w.cluster(5, 3, false);
    warm_up(&mut w);
    w
}

fn warm_up(w: &mut World) {
    for _ in 0..2 {
        let id = w.send(0, 1, None, Bytes::from_static(b"first")).unwrap();
        w.run_until(Duration::from_secs(300), |w| {
            w.hosts[0].done.contains_key(&id)
        })
        .unwrap();
        w.run_for(Duration::from_secs(2));
    }
}

fn stats(w: &World, i: usize) -> CoreStats {
    w.hosts[i].core.stats()
}

/// Sends so many messages at once; their ids and contents.
fn burst(w: &mut World, count: usize, len: usize) -> BTreeMap<MessageId, Bytes> {
    (0..count)
        .map(|number| {
            let data = content(number, len);
            (w.send(0, 1, None, data.clone()).unwrap(), data)
        })
        .collect()
}

fn arrive(w: &mut World, from: usize, sent: &BTreeMap<MessageId, Bytes>) -> Result<(), String> {
    w.run_until(Duration::from_secs(900), |w| {
        sent.keys().all(|id| w.hosts[from].done.contains_key(id))
    })?;
    for (id, data) in sent {
        let receipt = w.hosts[from].done[id]
            .as_ref()
            .map_err(|e| format!("{id}: {e}"))?;
        if receipt.digest != *blake3::hash(data).as_bytes() || receipt.octets != data.len() as u64 {
            return Err(format!("{id}: another receipt: {receipt:?}"));
        }
    }
    Ok(())
}

/// That a node got these, each once.
fn once(w: &World, at: usize, sent: &BTreeMap<MessageId, Bytes>) -> Result<(), String> {
    for (id, data) in sent {
        let copies: Vec<&Bytes> = w.hosts[at]
            .received
            .iter()
            .filter_map(|r| match r {
                Received::Message { id: i, data, .. } if i == id => Some(data),
                _ => None,
            })
            .collect();
        if copies != [data] {
            return Err(format!("{} copies of {id}, or others", copies.len()));
        }
    }
    Ok(())
}

#[test]
fn a_burst_of_small_messages_takes_about_a_round_and_no_announcement() {
    let mut w = warm(1, 5, good(), |_| {});
    let before = stats(&w, 0).express_sent;
    let begun = w.now();
    let sent = burst(&mut w, 59, 1_392);
    arrive(&mut w, 0, &sent).unwrap();
    let took = w.now() - begun;
    once(&w, 1, &sent).unwrap();
    assert_eq!(stats(&w, 0).express_sent - before, 59);
    assert_eq!(stats(&w, 0).express_fallbacks, 0);
    assert_eq!(w.hosts[1].core.pool_usage().entries, 0);
    // 20 ms a round trip, and 82 kB in thirds over three paths of 20 Mbit/s
    assert!(took < Duration::from_millis(60), "{took:?}");
    let (id, data) = sent.first_key_value().unwrap();
    let receipt = w.hosts[0].done[id].as_ref().unwrap();
    let octets: u64 = receipt.paths().values().map(|c| c.octets).sum();
    assert!(octets < 3 * data.len() as u64, "{octets} octets");
    assert!(receipt.paths().contains_key(&Carrier::Direct));
}

#[test]
fn a_burst_before_anything_is_agreed_on_waits_for_it_but_for_its_first_message() {
    let mut w = World::new(3, 6, good(), small);
    w.cluster(5, 3, false);
    let sent = burst(&mut w, 59, 1_392);
    arrive(&mut w, 0, &sent).unwrap();
    once(&w, 1, &sent).unwrap();
    let express = stats(&w, 0).express_sent;
    assert!((50..59).contains(&express), "{express}");
    // a receiver that never answers is not waited for
    let made = std::cell::Cell::new(0);
    let mut w = World::new(4, 6, good(), |config| {
        small(config);
        let i = made.replace(made.get() + 1);
        config.set_express(i != 1);
    });
    w.cluster(5, 3, false);
    let sent = burst(&mut w, 59, 1_392);
    let begun = w.now();
    arrive(&mut w, 0, &sent).unwrap();
    assert!(w.now() - begun < Duration::from_secs(2));
    once(&w, 1, &sent).unwrap();
    assert_eq!(stats(&w, 0).express_sent, 0);
}

#[test]
fn no_member_carries_k_pieces_of_a_message() {
    let mut w = warm(2, 5, good(), |_| {});
    for number in 0..20 {
        let id = w.send(0, 1, None, content(number, 500)).unwrap();
        w.run_for(Duration::from_millis(200));
        let parties = w.hosts[0].core.explain(id).unwrap().parties;
        assert!(parties.len() >= 3);
        for party in parties {
            let direct = party.carriers == [Carrier::Direct];
            assert!(direct || party.shares.len() < 3, "{party:?}");
        }
    }
}

#[test]
fn a_signed_receipt_confirms_what_came_by_express() {
    let mut w = warm(3, 5, good(), |_| {});
    let sent = burst(&mut w, 3, 100);
    arrive(&mut w, 0, &sent).unwrap();
    w.run_for(Duration::from_secs(1));
    for id in sent.keys() {
        let receipts = w.hosts[0].core.receipts(*id).unwrap();
        assert!(receipts.delivered.is_some(), "{receipts:?}");
    }
    assert_eq!(stats(&w, 0).bad_receipts, 0);
}

#[test]
fn what_is_too_large_for_it_or_a_file_takes_the_ordinary_way() {
    let mut w = warm(4, 5, good(), |_| {});
    let before = stats(&w, 0).express_sent;
    let large = w.send(0, 1, None, content(1, 20_000)).unwrap();
    let file = w.send(0, 1, Some("f"), content(2, 100)).unwrap();
    let done = |w: &World| {
        let done = &w.hosts[0].done;
        done.contains_key(&large) && done.contains_key(&file)
    };
    w.run_until(Duration::from_secs(60), done).unwrap();
    assert_eq!(stats(&w, 0).express_sent, before);
}

#[test]
fn with_express_off_at_either_end_the_ordinary_way_is_taken() {
    for off in [0, 1] {
        let rng = std::cell::Cell::new(0);
        let mut w = warm(5, 5, good(), |config| {
            let i = rng.replace(rng.get() + 1);
            config.set_express(i != off);
        });
        let sent = burst(&mut w, 5, 100);
        arrive(&mut w, 0, &sent).unwrap();
        once(&w, 1, &sent).unwrap();
        assert_eq!(stats(&w, 0).express_sent, 0, "off at {off}");
    }
}

/// A world from a seed: random links with up to 30% loss, small messages in both directions.
fn lossy(seed: u64) -> Result<CoreStats, String> {
    let rng = SimRng::from_seed(seed);
    let mut dice = rng.fork("express");
    let link = LinkConfig::sample(&mut dice.fork("link"), 0.3);
    let mut w = World::new(seed, 5, link, small);
    w.cluster(5, 3, false);
    let mut sent = [BTreeMap::new(), BTreeMap::new()];
    for number in 0..60 {
        let from = dice.below(2) as usize;
        let data = content(number, dice.below(3_000) as usize);
        let id = w
            .send(from, 1 - from, None, data.clone())
            .map_err(|e| e.to_string())?;
        sent[from].insert(id, data);
        if dice.chance(0.3) {
            w.run_for(dice.duration(Duration::from_secs(2)));
        }
    }
    for (from, sent) in sent.iter().enumerate() {
        arrive(&mut w, from, sent)?;
    }
    w.run_for(Duration::from_secs(20));
    for (from, sent) in sent.iter().enumerate() {
        once(&w, 1 - from, sent)?;
    }
    let total: usize = (0..2).map(|i| w.hosts[i].received.len()).sum();
    if total != 60 {
        return Err(format!("{total} deliveries of 60"));
    }
    Ok(stats(&w, 0))
}

#[test]
fn at_every_loss_small_messages_arrive_whole_and_once() {
    let sums = std::sync::Mutex::new((0, 0, 0));
    run_seeds(0..40, |seed| {
        let stats = lossy(seed)?;
        let mut sums = sums.lock().unwrap();
        sums.0 += stats.express_sent;
        sums.1 += stats.express_repeated;
        sums.2 += stats.express_fallbacks;
        Ok::<(), String>(())
    });
    let (sent, repeated, fallbacks) = sums.into_inner().unwrap();
    assert!(sent > 400, "{sent} went by express");
    assert!(repeated > 0 && fallbacks > 0, "{repeated}, {fallbacks}");
}

#[test]
fn when_the_receiver_dies_and_returns_nothing_is_delivered_twice() {
    let mut w = warm(7, 5, good(), |_| {});
    let sent = burst(&mut w, 20, 1_000);
    w.run_for(Duration::from_millis(5));
    w.kill(1);
    w.run_for(Duration::from_secs(1));
    w.restart(1);
    w.run_for(Duration::from_secs(30));
    // a node that keeps nothing on disk has lost what it had; what it has now it has once
    let mut seen = BTreeMap::new();
    for received in &w.hosts[1].received {
        if let Received::Message { id, data, .. } = received
            && let Some(expected) = sent.get(id)
        {
            assert_eq!(data, expected);
            *seen.entry(*id).or_insert(0) += 1;
        }
    }
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
}

#[test]
fn a_holder_that_dies_costs_a_repetition_and_nothing_else() {
    for dead in [vec![2], vec![2, 3], vec![2, 3, 4]] {
        let mut w = warm(8, 5, good(), |_| {});
        dead.iter().for_each(|i| w.kill(*i));
        let sent = burst(&mut w, 30, 1_000);
        arrive(&mut w, 0, &sent).unwrap();
        once(&w, 1, &sent).unwrap();
    }
}

#[test]
fn what_a_durable_sender_took_on_is_finished_after_a_crash_and_delivered_once() {
    let mut by_express = 0;
    for after in [0u64, 3, 8, 15, 25, 40] {
        let mut w = World::durable(9, 5, good(), |i| i < 2, small);
        w.cluster(5, 3, false);
        warm_up(&mut w);
        let sent = burst(&mut w, 20, 1_000);
        w.run_for(Duration::from_millis(after));
        // all of it is on disk by now, and so was promised
        w.run_for(Duration::from_millis(10));
        by_express += stats(&w, 0).express_sent;
        w.kill(0);
        w.run_for(Duration::from_secs(1));
        w.restart(0);
        w.run_for(Duration::from_secs(120));
        let got: Vec<MessageId> = w.hosts[1]
            .received
            .iter()
            .map(|r| match r {
                Received::Message { id, .. } | Received::File { id, .. } => *id,
            })
            .collect();
        for id in sent.keys() {
            let copies = got.iter().filter(|got| *got == id).count();
            assert_eq!(copies, 1, "{id} after {after} ms");
        }
    }
    assert!(by_express > 60, "{by_express} of 120 went by express");
}

// ---- those who carry

/// Takes holders over, and has them take openings as others do.
fn seize(w: &mut World, holders: &[usize]) {
    for holder in holders {
        w.seize(*holder);
    }
    for holder in holders {
        let all = w.hosts.len();
        for end in (0..all).filter(|end| !holders.contains(end)) {
            w.reach(*holder, end);
        }
    }
    w.run_for(Duration::from_secs(1));
    for holder in holders {
        w.puppet(*holder, |p, now| {
            for (peer, line) in p.lines.clone() {
                if let Message::ExpressOpen { opening } = line {
                    let id = opening[66..70].try_into().unwrap();
                    let id = u32::from_be_bytes(id);
                    p.say(now, peer, Message::ExpressOk { id });
                }
            }
        });
    }
    w.run_for(Duration::from_secs(1));
}

/// The pieces in a datagram.
fn pieces(datagram: &Bytes) -> Vec<Bytes> {
    let mut at = 17;
    let mut all = Vec::new();
    while at < datagram.len() {
        let len = usize::from(u16::from_be_bytes([datagram[at], datagram[at + 1]]));
        all.push(datagram.slice(at + 2..at + 2 + len));
        at += 2 + len;
    }
    all
}

fn datagram(kind: u8, id: NodeId, pieces: &[Bytes]) -> Bytes {
    let mut out = vec![kind];
    out.extend_from_slice(&id.field());
    for piece in pieces {
        out.extend_from_slice(&(piece.len() as u16).to_be_bytes());
        out.extend_from_slice(piece);
    }
    out.into()
}

/// What a holder does with what it was to hand on: it is given sender and pieces and says what it
/// sends to whom.
fn play(
    w: &mut World,
    holder: usize,
    receiver: NodeId,
    act: impl Fn(NodeId, Vec<Bytes>) -> Vec<(NodeId, Bytes)>,
) {
    w.puppet(holder, |p, now| {
        for (from, octets) in std::mem::take(&mut p.datagrams) {
            if octets[0] == HAND_ON {
                assert_eq!(octets[1..17], receiver.field());
                for (to, payload) in act(from, pieces(&octets)) {
                    let _ = p.endpoint.send_datagram(now, to, payload);
                }
            }
        }
    });
}

#[test]
fn holders_that_alter_every_piece_only_delay() {
    // nothing goes directly: of the five that carry a piece each two lie
    let mut w = warm(20, 7, good(), |config| {
        config.set_allow_direct(false).set_delivery(0.999_999);
    });
    seize(&mut w, &[2, 3]);
    let (sender, receiver) = (w.id(0), w.id(1));
    let sent = burst(&mut w, 20, 1_000);
    for _ in 0..3_000 {
        w.run_for(Duration::from_millis(1));
        for holder in [2, 3] {
            play(&mut w, holder, receiver, |from, pieces| {
                assert_eq!(from, sender);
                let altered: Vec<Bytes> = pieces
                    .iter()
                    .map(|piece| {
                        let mut piece = piece.to_vec();
                        let middle = piece.len() / 2;
                        piece[middle] ^= 1;
                        piece.into()
                    })
                    .collect();
                vec![(receiver, datagram(HERE_IS, from, &altered))]
            });
        }
    }
    arrive(&mut w, 0, &sent).unwrap();
    once(&w, 1, &sent).unwrap();
    assert!(stats(&w, 1).bad_pieces > 0, "they lied");
    assert_eq!(stats(&w, 1).bad_shares, 0, "and nobody was blamed for it");
}

#[test]
fn pieces_that_are_forged_repeated_moved_or_renamed_deliver_nothing() {
    let mut w = warm(21, 6, good(), |_| {});
    seize(&mut w, &[2, 3]);
    let (sender, receiver, other) = (w.id(0), w.id(1), w.id(4));
    let sent = burst(&mut w, 10, 1_000);
    let mut kept: Vec<Bytes> = Vec::new();
    for _ in 0..2_000 {
        w.run_for(Duration::from_millis(1));
        for holder in [2, 3] {
            let seen = std::cell::RefCell::new(Vec::new());
            play(&mut w, holder, receiver, |from, pieces| {
                seen.borrow_mut().extend(pieces.clone());
                // as they are, three times; of another sender; and to another receiver
                let right = datagram(HERE_IS, from, &pieces);
                let renamed = datagram(HERE_IS, other, &pieces);
                vec![
                    (receiver, right.clone()),
                    (receiver, right.clone()),
                    (receiver, right.clone()),
                    (receiver, renamed),
                ]
            });
            kept.extend(seen.into_inner());
        }
    }
    arrive(&mut w, 0, &sent).unwrap();
    once(&w, 1, &sent).unwrap();
    let before = w.hosts[1].received.len();
    assert!(!kept.is_empty());
    // long after: all of it again, with parts exchanged, and nonsense in the sender's name
    for (number, piece) in kept.iter().enumerate() {
        let next = &kept[(number + 1) % kept.len()];
        let mut mixed = piece.to_vec();
        if next.len() == mixed.len() {
            mixed[14..46].copy_from_slice(&next[14..46]);
        }
        let mut later = piece.to_vec();
        later[4..8].copy_from_slice(&(90_000 + number as u32).to_be_bytes());
        let nonsense = Bytes::from(vec![number as u8; 100]);
        let all = [piece.clone(), mixed.into(), later.into(), nonsense];
        w.puppet(2, |p, now| {
            for piece in &all {
                let payload = datagram(HERE_IS, sender, std::slice::from_ref(piece));
                let _ = p.endpoint.send_datagram(now, receiver, payload);
            }
        });
        w.run_for(Duration::from_millis(5));
    }
    w.run_for(Duration::from_secs(5));
    assert_eq!(w.hosts[1].received.len(), before);
    assert!(stats(&w, 1).bad_pieces > 0);
}

#[test]
fn an_opening_in_anothers_name_is_refused() {
    let mut w = warm(22, 5, good(), |_| {});
    seize(&mut w, &[2]);
    let receiver = w.id(1);
    let stolen = w.puppet(2, |p, _| {
        p.lines.iter().find_map(|(_, line)| match line {
            Message::ExpressOpen { opening } => Some(opening.clone()),
            _ => None,
        })
    });
    let before = stats(&w, 1).bad_lines;
    w.puppet(2, |p, now| {
        let opening = stolen.expect("it was sent one");
        p.say(now, receiver, Message::ExpressOpen { opening });
        p.say(
            now,
            receiver,
            Message::ExpressOpen {
                opening: vec![1; 210],
            },
        );
        p.say(now, receiver, Message::ExpressOk { id: 7 });
        p.lines.clear();
    });
    w.run_for(Duration::from_secs(1));
    assert_eq!(stats(&w, 1).bad_lines, before + 3);
    let answered = w.puppet(2, |p, _| {
        let ok = |(_, line): &(NodeId, Message)| matches!(line, Message::ExpressOk { .. });
        p.lines.iter().any(ok)
    });
    assert!(!answered);
}

#[test]
fn a_sender_that_floods_a_holder_fills_half_of_what_waits_for_a_receiver() {
    // the holder's way to the receiver is slow
    let slow = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(400_000, 64 * 1024);
    let mut w = warm(23, 5, slow, |_| {});
    seize(&mut w, &[0]);
    let (holder, receiver) = (w.id(2), w.id(1));
    let mut most = 0;
    for _ in 0..400 {
        w.puppet(0, |p, now| {
            for number in 0..20u8 {
                let piece = Bytes::from(vec![number; 1_000]);
                let payload = datagram(HAND_ON, receiver, &[piece]);
                let _ = p.endpoint.send_datagram(now, holder, payload);
            }
        });
        w.run_for(Duration::from_millis(20));
        let waiting = w.hosts[2].core.path_stats(receiver).unwrap();
        most = most.max(waiting.datagrams_queued);
    }
    assert!(most <= 24 * 1024 + 4 * 1024 + 2_000, "{most} octets wait");
    assert_eq!(w.hosts[1].received.len(), 2, "the first ones");
}

#[test]
fn who_is_no_member_is_handed_nothing_on() {
    let mut w = warm(24, 6, good(), |_| {});
    seize(&mut w, &[3]);
    let before = stats(&w, 2);
    let (holder, own) = (w.id(2), w.id(3));
    let stranger: NodeId = "@AbCdEfGhIjKlMn0".parse().unwrap();
    w.puppet(3, |p, now| {
        let piece = [Bytes::from(vec![1; 100])];
        for to in [stranger, own, holder] {
            let payload = datagram(HAND_ON, to, &piece);
            let _ = p.endpoint.send_datagram(now, holder, payload);
        }
        let _ = p
            .endpoint
            .send_datagram(now, holder, Bytes::from_static(b"\x09"));
    });
    w.run_for(Duration::from_secs(1));
    let after = stats(&w, 2);
    assert_eq!(after.pieces_handed_on, before.pieces_handed_on);
    assert_eq!(after.bad_pieces, before.bad_pieces + 4);
}
