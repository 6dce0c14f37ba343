//! One message to several receivers: spread once, and each claims, confirms and fails for itself.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use common::{Received, World};
use vmdt_node::core::{CoreConfig, Kind, MAX_RECEIVERS};
use vmdt_node::{Event, MessageId, NodeId, SendOptions, TransferError};
use vmdt_seal::group::GroupDetails;
use vmdt_ssms::v2::Collector;
use vmdt_testkit::{LinkConfig, SimRng, run_seeds};
use vmdt_wire::{FlowId, Message, MessageName, ShareIndex};

fn small(config: &mut CoreConfig) {
    config.set_segment(16 * 1024).unwrap();
    config.set_allow_relay(false);
}

fn link() -> LinkConfig {
    LinkConfig::new().delay(Duration::from_millis(10))
}

/// So many nodes in a cluster of k = 3, n = 5.
fn world(seed: u64, count: usize, link: LinkConfig) -> World {
    let mut w = World::new(seed, count, link, small);
    w.cluster(5, 3, false);
    w
}

fn content(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn got(w: &World, i: usize) -> Vec<&Bytes> {
    w.hosts[i]
        .received
        .iter()
        .map(|r| match r {
            Received::Message { data, .. } => data,
            Received::File { content, .. } => content,
        })
        .collect()
}

/// Whom the sender's application was told to have it, in order.
fn told(w: &World, of: MessageId) -> Vec<NodeId> {
    let reached = |event: &Event| match event {
        Event::DeliveredTo { id, to } if *id == of => Some(*to),
        _ => None,
    };
    w.hosts[0].events.iter().filter_map(reached).collect()
}

/// Whom the sender's application was told to have failed.
fn failed(w: &World, of: MessageId) -> Vec<NodeId> {
    let failed = |event: &Event| match event {
        Event::NotDeliveredTo { id, to, .. } if *id == of => Some(*to),
        _ => None,
    };
    w.hosts[0].events.iter().filter_map(failed).collect()
}

fn until_done(w: &mut World, id: MessageId) {
    w.run_until(Duration::from_secs(300), |w| {
        w.hosts[0].done.contains_key(&id)
    })
    .unwrap();
}

/// Nobody but the ends had k shares, and no receiver was given k as a holder.
fn check(w: &World, receivers: &[usize]) {
    let ends: Vec<usize> = receivers.iter().copied().chain([0]).collect();
    w.check_privacy(3, &ends).unwrap();
}

/// Shares that left the sender: how many of each message, each counted for every node it went to.
fn spread(w: &World) -> BTreeMap<MessageId, usize> {
    let mut all = BTreeMap::new();
    for ((from, _, message), shares) in &w.carriage {
        if *from == w.id(0) {
            *all.entry(*message).or_default() += shares.len();
        }
    }
    all
}

// ---- what is sent arrives

/// One world from a seed: 2 to 5 receivers of six nodes, bad links, a crash, a partition.
fn random(seed: u64) -> Result<(), String> {
    let mut dice = SimRng::from_seed(seed).fork("groups");
    let link = LinkConfig::sample(&mut dice.fork("link"), 0.3);
    let mut w = World::new(seed, 7, link, |config| {
        small(config);
        config.set_stall_timeout(Duration::from_secs(300)).unwrap();
        let patience = Duration::from_secs(120);
        config.set_request_timeout(patience).unwrap();
    });
    w.cluster(5, 3, false);
    let mut others: Vec<usize> = (1..7).collect();
    dice.shuffle(&mut others);
    let (receivers, rest) = others.split_at(dice.range(2..=5u64) as usize);
    let mut expected = Vec::new();
    for _ in 0..dice.range(1..=3u64) {
        let size = *dice.pick(&[0, 1, 1_392, 5_000, 40_000, 100_000]).unwrap();
        let data = Bytes::from(dice.bytes(size));
        let name = dice.chance(0.5).then_some("a file");
        let id = w
            .send_group(0, receivers, name, data.clone())
            .map_err(|e| e.to_string())?;
        expected.push((id, data));
        w.run_for(dice.duration(Duration::from_secs(1)));
    }
    if dice.chance(0.5) {
        // a holder that is no receiver
        w.kill(rest[0]);
    }
    if dice.chance(0.5) {
        w.isolate(&[receivers[0]]);
        w.run_for(dice.duration(Duration::from_secs(10)));
        w.heal();
    }
    let done = |w: &World| expected.iter().all(|e| w.hosts[0].done.contains_key(&e.0));
    w.run_until(Duration::from_secs(900), done)?;
    w.run_for(Duration::from_secs(5));
    let wanted: BTreeSet<NodeId> = receivers.iter().map(|i| w.id(*i)).collect();
    for (id, data) in &expected {
        let receipt = w.hosts[0].done[id].as_ref().map_err(|e| e.to_string())?;
        if receipt.digest != *blake3::hash(data).as_bytes() {
            return Err("the receipt has another digest".into());
        }
        let told = told(&w, *id);
        if told.len() != wanted.len() || told.into_iter().collect::<BTreeSet<_>>() != wanted {
            return Err("not every receiver was named once".into());
        }
    }
    for receiver in receivers {
        let mut got = got(&w, *receiver);
        let mut all: Vec<&Bytes> = expected.iter().map(|e| &e.1).collect();
        got.sort();
        all.sort();
        if got != all {
            return Err(format!("{} of {} came", got.len(), all.len()));
        }
    }
    for other in rest {
        if !w.hosts[*other].received.is_empty() {
            return Err("it came to who is no receiver".into());
        }
    }
    let ends: Vec<usize> = receivers.iter().copied().chain([0]).collect();
    w.check_privacy(3, &ends)
}

#[test]
fn what_is_sent_to_several_arrives_at_each_whole_and_once() {
    run_seeds(0..40, random);
}

#[test]
fn a_message_to_all_leaves_its_sender_once() {
    for (count, seed) in [(3, 1), (5, 2), (6, 3)] {
        let mut w = World::new(seed, count, link(), small);
        let (n, k) = (count.min(5) as u16, count.min(5) as u16 / 2 + 1);
        w.cluster(n, k, false);
        let receivers: Vec<usize> = (1..count).collect();
        let data = content(60_000);
        let id = w.send_group(0, &receivers, None, data.clone()).unwrap();
        until_done(&mut w, id);
        for receiver in &receivers {
            assert_eq!(got(&w, *receiver), [&data]);
        }
        assert_eq!(told(&w, id).len(), receivers.len());
        for (message, shares) in spread(&w) {
            assert!(shares <= usize::from(n), "{shares} shares of {message}");
        }
        w.run_for(Duration::from_secs(30));
        for host in &w.hosts {
            assert_eq!(host.core.pool_usage().entries, 0, "{} holds it", host.id);
        }
    }
}

/// Octets of datagrams that the sender sent until `receivers` had the content.
fn octets(together: bool, receivers: &[usize], data: &Bytes) -> usize {
    // segments as they are by default
    let mut w = World::new(4, 7, link(), |config| {
        config.set_allow_relay(false);
    });
    w.cluster(5, 3, false);
    w.run_for(Duration::from_secs(2));
    w.recorded = Some(Vec::new());
    let sent: Vec<MessageId> = if together {
        vec![w.send_group(0, receivers, None, data.clone()).unwrap()]
    } else {
        let one = |to: &usize| w.send(0, *to, None, data.clone()).unwrap();
        receivers.iter().map(one).collect()
    };
    w.run_until(Duration::from_secs(300), |w| {
        sent.iter().all(|id| w.hosts[0].done.contains_key(id))
    })
    .unwrap();
    for receiver in receivers {
        assert_eq!(got(&w, *receiver), [data]);
    }
    let own = w.hosts[0].address;
    let recorded = w.recorded.take().unwrap();
    let from_here = recorded.iter().filter(|(from, ..)| *from == own);
    from_here.map(|(.., octets)| octets.len()).sum()
}

#[test]
fn a_sender_sends_one_spread_and_not_one_for_each_receiver() {
    let data = content(300_000);
    // n / k of the content, and what announcements, headers and confirmations take
    let one_spread = data.len() * 5 / 3;
    for receivers in [&[1, 2][..], &[1, 2, 3, 4], &[1, 2, 3, 4, 5, 6]] {
        let (together, apart) = (
            octets(true, receivers, &data),
            octets(false, receivers, &data),
        );
        assert!(together < one_spread * 5 / 4, "{together} octets");
        // copies need k of the n shares at the least
        assert!(apart > data.len() * receivers.len());
        if receivers.len() >= 4 {
            assert!(together * 2 < apart, "{together} against {apart}");
        }
    }
}

#[test]
fn one_receiver_is_a_group_too_and_who_is_named_twice_counts_once() {
    let mut w = world(5, 5, link());
    let data = content(40_000);
    let one = w.send_group(0, &[1], None, data.clone()).unwrap();
    let two = w.send_group(0, &[2, 1, 2], None, data.clone()).unwrap();
    until_done(&mut w, one);
    until_done(&mut w, two);
    assert_eq!(told(&w, one), [w.id(1)]);
    assert_eq!(told(&w, two).len(), 2);
    assert_eq!(got(&w, 1), [&data, &data]);
    assert_eq!(got(&w, 2), [&data]);
    check(&w, &[1, 2]);
}

// ---- who fails, and who does not

#[test]
fn holders_that_crash_cost_no_receiver_the_message() {
    for seed in 0..6 {
        let mut w = world(seed, 7, link().loss(0.03));
        let data = content(200_000);
        let receivers = [1, 2, 3];
        let id = w
            .send_group(0, &receivers, Some("f"), data.clone())
            .unwrap();
        w.run_for(Duration::from_millis(80));
        w.kill(4 + seed as usize % 3);
        w.run_for(Duration::from_millis(300));
        w.kill(4 + (seed as usize + 1) % 3);
        until_done(&mut w, id);
        w.hosts[0].done[&id].as_ref().unwrap();
        for receiver in receivers {
            assert_eq!(got(&w, receiver), [&data], "seed {seed}");
        }
        check(&w, &receivers);
    }
}

#[test]
fn a_receiver_that_is_away_and_comes_back_gets_it_and_the_others_do_not_wait_for_it() {
    for seed in 0..4 {
        let mut w = world(seed, 6, link());
        let data = content(50_000);
        w.isolate(&[2]);
        let id = w.send_group(0, &[1, 2, 3], None, data.clone()).unwrap();
        let others = |w: &World| [1, 3].iter().all(|i| !w.hosts[*i].received.is_empty());
        w.run_until(Duration::from_secs(8), others).unwrap();
        w.run_for(Duration::from_secs(6));
        let early: BTreeSet<NodeId> = told(&w, id).into_iter().collect();
        assert_eq!(early, BTreeSet::from([w.id(1), w.id(3)]), "seed {seed}");
        assert!(!w.hosts[0].done.contains_key(&id));
        w.heal();
        until_done(&mut w, id);
        w.hosts[0].done[&id].as_ref().unwrap();
        assert_eq!(told(&w, id).last(), Some(&w.id(2)));
        for receiver in [1, 2, 3] {
            assert_eq!(got(&w, receiver), [&data], "seed {seed}");
        }
        check(&w, &[1, 2, 3]);
    }
}

#[test]
fn a_receiver_that_never_comes_back_fails_alone_and_is_named() {
    let mut w = world(7, 6, link());
    let data = content(50_000);
    w.kill(2);
    let id = w.send_group(0, &[1, 2, 3], None, data.clone()).unwrap();
    until_done(&mut w, id);
    let gone = w.id(2);
    let error = w.hosts[0].done[&id].clone().unwrap_err();
    let TransferError::Group(failure) = &error else {
        panic!("{error}");
    };
    assert_eq!(
        failure.delivered.iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([&w.id(1), &w.id(3)])
    );
    assert!(matches!(
        &failure.failed[..],
        [(peer, TransferError::Stalled { peer: stalled, .. })] if *peer == gone && *stalled == gone
    ));
    assert!(error.to_string().starts_with("2 of 3 receivers have it; "));
    assert!(error.to_string().contains(gone.as_str()));
    assert_eq!(failed(&w, id), [gone]);
    assert_eq!(told(&w, id).len(), 2);
    for receiver in [1, 3] {
        assert_eq!(got(&w, receiver), [&data]);
    }
    w.run_for(Duration::from_secs(5));
    for i in [0, 1, 3, 4, 5] {
        assert_eq!(w.hosts[i].core.pool_usage().entries, 0, "node {i} holds it");
    }
}

#[test]
fn when_all_receivers_fail_nobody_has_it_and_all_are_named() {
    let mut w = world(8, 6, link());
    w.kill(1);
    w.kill(2);
    let id = w.send_group(0, &[1, 2], None, content(5_000)).unwrap();
    until_done(&mut w, id);
    let error = w.hosts[0].done[&id].clone().unwrap_err();
    let TransferError::Group(failure) = error else {
        panic!("{error}");
    };
    assert!(failure.delivered.is_empty());
    assert_eq!(failure.failed.len(), 2);
    assert_eq!(failed(&w, id).len(), 2);
}

#[test]
fn a_receiver_that_takes_no_more_fails_alone() {
    let mut w = World::new(9, 5, link(), |config| {
        small(config);
    });
    w.cluster(5, 3, false);
    let refuser = w.id(2);
    let id = w.send_group(0, &[1, 2], None, content(40_000)).unwrap();
    // it says so about the transfer
    w.run_for(Duration::from_millis(25));
    w.seize(2);
    w.reach(2, 0);
    let sender = w.id(0);
    w.puppet(2, |p, now| {
        let line = Message::Error {
            code: vmdt_wire::ErrorCode::QuotaExceeded,
            text: "no room".into(),
            about: Some(MessageName::from(id)),
        };
        p.say(now, sender, line);
    });
    until_done(&mut w, id);
    let error = w.hosts[0].done[&id].clone().unwrap_err();
    let TransferError::Group(failure) = &error else {
        panic!("{error}");
    };
    assert_eq!(failure.delivered, [w.id(1)]);
    assert!(matches!(
        &failure.failed[..],
        [(peer, TransferError::Remote { .. })] if *peer == refuser
    ));
}

#[test]
fn a_group_that_is_cancelled_ends_for_all() {
    let mut w = world(10, 6, link().rate(1_000_000, 64 * 1024));
    let id = w
        .send_group(0, &[1, 2], Some("f"), content(400_000))
        .unwrap();
    w.run_for(Duration::from_millis(500));
    w.with(0, |core, now| core.cancel(now, id));
    w.run_for(Duration::from_secs(5));
    assert!(matches!(
        w.hosts[0].done[&id],
        Err(TransferError::Cancelled { .. })
    ));
    for i in 1..6 {
        assert!(got(&w, i).is_empty());
        assert_eq!(w.hosts[i].core.pool_usage().entries, 0);
    }
}

// ---- adversaries

#[test]
fn lying_holders_stop_no_receiver_and_only_they_are_blamed() {
    for seed in 0..6 {
        let mut w = world(20 + seed, 7, link());
        // one that is no receiver and one that is
        let receivers = [1, 2, 3];
        let liars = if seed % 2 == 0 { [4, 5] } else { [3, 4] };
        for liar in liars {
            w.seize(liar);
            for to in [1, 2] {
                w.reach(liar, to);
            }
        }
        let data = content(60_000);
        let id = w.send_group(0, &receivers, None, data.clone()).unwrap();
        let honest = [1, 2];
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        for _ in 0..2_000 {
            if honest.iter().all(|i| !got(&w, *i).is_empty()) {
                break;
            }
            w.run_for(Duration::from_millis(10));
            let to = honest.map(|i| w.id(i));
            for liar in liars {
                let at = seen.entry(liar).or_insert(0);
                w.puppet(liar, |p, now| {
                    for (_, flow, octets) in p.shares.clone().into_iter().skip(*at) {
                        *at += 1;
                        let mut altered = octets.to_vec();
                        let middle = altered.len() / 2;
                        altered[middle] ^= 1;
                        for to in to {
                            p.hand(now, to, flow, altered.clone().into());
                        }
                    }
                });
            }
        }
        let liars: BTreeSet<NodeId> = liars.iter().map(|i| w.id(*i)).collect();
        for i in honest {
            assert_eq!(got(&w, i), [&data], "seed {seed}");
            for event in &w.hosts[i].events {
                if let Event::BadShare { from, .. } = event {
                    assert!(liars.contains(from), "seed {seed}: {from}");
                }
            }
        }
        let told: BTreeSet<NodeId> = told(&w, id).into_iter().collect();
        assert!(told.contains(&w.id(1)) || !w.hosts[0].done.contains_key(&id));
    }
}

/// Sends to 1 and 2 with 3, no receiver, taken over and in session with everybody; gives the id
/// of the first message, once holders have shares of it.
fn with_an_outsider(seed: u64) -> (World, MessageId, MessageId) {
    let mut w = world(seed, 6, link());
    // the second receiver is away, so that holders keep it
    w.isolate(&[2]);
    w.seize(3);
    for to in [0, 1, 4, 5] {
        w.reach(3, to);
    }
    let id = w.send_group(0, &[1, 2], None, content(9_000)).unwrap();
    w.run_for(Duration::from_secs(2));
    let message = w.carriage.keys().next_back().map(|(.., message)| *message);
    (w, id, message.expect("shares were sent"))
}

#[test]
fn who_is_no_receiver_claims_in_vain() {
    let (mut w, _, message) = with_an_outsider(30);
    let own = w.id(3);
    let before = w.puppet(3, |p, _| p.shares.len());
    for to in [0, 1, 4, 5] {
        let to = w.id(to);
        for index in 1..=5 {
            w.puppet(3, |p, now| {
                for line in [
                    Message::SharePoolUnfreeze {
                        message: MessageName::from(message),
                        index,
                    },
                    Message::SharePoolClaim {
                        message: MessageName::from(message),
                        claimer: own,
                        index,
                    },
                ] {
                    p.say(now, to, line);
                }
            });
        }
    }
    w.run_for(Duration::from_secs(5));
    // what it holds itself may be given to it once more; of others' shares it gets none
    let indices: BTreeSet<u16> = w.puppet(3, |p, _| {
        let of_it = p
            .shares
            .iter()
            .filter(|(_, flow, _)| flow.message == message);
        of_it.map(|(_, flow, _)| flow.index.get() % 1000).collect()
    });
    assert!(indices.len() < 3, "{indices:?}, {before} before");
    let from_others = w.puppet(3, |p, _| p.shares.clone());
    assert!(from_others.iter().all(|(from, ..)| *from == w.id(0)));
    let refused: u64 = [1, 4, 5]
        .iter()
        .map(|i| w.hosts[*i].core.stats().bad_lines)
        .sum();
    assert!(refused > 0, "nobody refused it");
}

#[test]
fn nobody_acknowledges_for_another() {
    let (mut w, id, message) = with_an_outsider(31);
    let (own, away, sender) = (w.id(3), w.id(2), w.id(0));
    for to in [0, 1, 4, 5] {
        let to = w.id(to);
        for receiver in [own, away] {
            w.puppet(3, |p, now| {
                let line = Message::SharePoolAck {
                    message: MessageName::from(message),
                    receiver,
                };
                p.say(now, to, line);
                let line = Message::SharePoolRemove {
                    message: MessageName::from(message),
                };
                p.say(now, to, line);
            });
        }
    }
    // nor does a receiver for another one
    w.seize(1);
    w.reach(1, 0);
    w.reach(1, 4);
    for to in [sender, w.id(4)] {
        w.puppet(1, |p, now| {
            let line = Message::SharePoolAck {
                message: MessageName::from(message),
                receiver: away,
            };
            p.say(now, to, line);
        });
    }
    w.run_for(Duration::from_secs(3));
    assert!(!told(&w, id).contains(&away));
    assert!(!w.hosts[0].done.contains_key(&id));
    // and the one that it was said for still gets it
    w.heal();
    until_done(&mut w, id);
    assert_eq!(got(&w, 2), [&content(9_000)]);
    assert!(told(&w, id).contains(&away));
}

#[test]
fn holders_together_do_not_read_what_is_for_others() {
    let mut w = World::new(32, 8, link(), |config| {
        small(config);
        config.set_allow_direct(false);
    });
    w.cluster(5, 3, false);
    for holder in 3..8 {
        w.seize(holder);
    }
    let secret = Bytes::from(vec![0x53; 3_000]);
    w.send_group(0, &[1, 2], None, secret.clone()).unwrap();
    w.run_for(Duration::from_secs(5));
    let (mut shares, mut details) = (BTreeMap::new(), None);
    for holder in 3..8 {
        w.puppet(holder, |p, _| {
            for (_, flow, octets) in &p.shares {
                let index = u8::try_from(flow.index.get() % 1000).unwrap();
                shares.insert(std::num::NonZeroU8::new(index).unwrap(), octets.clone());
            }
            for (_, line) in &p.lines {
                if let Message::SharePoolAdd(add) = line {
                    details = Some(GroupDetails::parse(&add.details).unwrap());
                }
            }
        });
    }
    let details = details.expect("they were told of it");
    let mut collector = Collector::new(details.manifest().clone());
    for (index, octets) in &shares {
        assert!(!octets.windows(64).any(|w| w == &secret[..64]));
        collector.add_from(*index, octets.clone()).unwrap();
    }
    assert!(collector.is_ready(), "{} shares of 3", shares.len());
    assert!(collector.open().is_err());
    assert!(collector.open_bound(&[0; 32]).is_err());
    // either receiver could: it is a prekey of one of them that they lack
    for i in [1, 2] {
        let key = w.identity(i).public();
        let named = details.wrapped_for(key).unwrap().prekey_id();
        let prekeys = w.hosts[i].core.prekeys().unwrap();
        let prekey = prekeys.find(named).unwrap();
        let opened = details.unwrap_for(key, prekey).unwrap();
        let plain = collector.open_bound(opened.segment(0).as_octets()).unwrap();
        assert!(plain.ends_with(&secret));
    }
}

#[test]
fn an_announcement_that_names_other_receivers_than_were_signed_is_dropped() {
    let mut w = world(33, 6, link());
    w.seize(3);
    w.seize(4);
    w.reach(3, 1);
    w.isolate(&[1, 2]);
    w.send_group(0, &[1, 2], None, content(9_000)).unwrap();
    w.run_for(Duration::from_secs(1));
    let lines = w.puppet(3, |p, _| p.lines.clone());
    let add = lines.iter().find_map(|(_, line)| match line {
        Message::SharePoolAdd(add) => Some(add.clone()),
        _ => None,
    });
    let add = add.expect("it was told of it");
    w.heal();
    let (to, outsider) = (w.id(1), w.id(5));
    let before = w.hosts[1].core.stats().bad_lines;
    let mut altered = add.clone();
    altered.receiver = outsider;
    let mut forged = add;
    let middle = forged.details.len() / 2;
    forged.details[middle] ^= 1;
    for add in [altered, forged] {
        w.puppet(3, |p, now| p.say(now, to, Message::SharePoolAdd(add)));
    }
    w.run_for(Duration::from_secs(10));
    assert!(w.hosts[1].core.stats().bad_lines >= before + 2);
    let flow = FlowId {
        message: "nothing-of-it".parse().unwrap(),
        index: ShareIndex::new(1).unwrap(),
    };
    w.puppet(3, |p, now| p.hand(now, to, flow, Bytes::from_static(b"x")));
    w.run_for(Duration::from_secs(20));
    assert!(w.hosts[5].received.is_empty());
}

// ---- receipts, limits, errors

#[test]
fn each_receiver_confirms_for_itself_with_a_signature() {
    let mut w = world(40, 6, link());
    let id = w.send_group(0, &[1, 2, 3], None, content(60_000)).unwrap();
    until_done(&mut w, id);
    w.run_for(Duration::from_secs(3));
    let receipts = w.hosts[0].core.receipts(id).unwrap();
    let words: BTreeMap<NodeId, bool> = [(receipts.to, &receipts.delivered)]
        .into_iter()
        .chain(receipts.others.iter().map(|(id, word)| (*id, word)))
        .map(|(id, word)| (id, word.is_some()))
        .collect();
    let all = [1, 2, 3].map(|i| (w.id(i), true));
    assert_eq!(words, BTreeMap::from(all));
    let by = |event: &Event| match event {
        Event::Confirmed { id: of, by } if *of == id => Some(*by),
        _ => None,
    };
    let confirmed: BTreeSet<NodeId> = w.hosts[0].events.iter().filter_map(by).collect();
    assert_eq!(confirmed.len(), 3);
    let shares = receipts.segments.iter().flat_map(|s| &s.shares);
    assert!(shares.filter(|share| share.taken.is_some()).count() > 0);
}

#[test]
fn what_can_not_be_sent_to_a_group_is_refused_with_the_reason() {
    let mut w = world(50, 5, link());
    let send = |w: &mut World, to: &[NodeId]| {
        w.with(0, |core, now| {
            core.send_group(now, to, Kind::Octets, "", Some(1), SendOptions::new())
        })
    };
    let (own, other) = (w.id(0), w.id(1));
    assert_eq!(send(&mut w, &[]), Err(TransferError::EmptyGroup));
    assert_eq!(send(&mut w, &[other, own]), Err(TransferError::ToSelf));
    let stranger: NodeId = "nobody".parse().unwrap();
    assert_eq!(
        send(&mut w, &[other, stranger]),
        Err(TransferError::UnknownPeer { peer: stranger })
    );
    let many: Vec<NodeId> = (0..=MAX_RECEIVERS)
        .map(|i| format!("peer{i}").parse().unwrap())
        .collect();
    assert_eq!(
        send(&mut w, &many),
        Err(TransferError::TooManyReceivers {
            found: 65,
            limit: 64
        })
    );
    let mut open = World::of(false, 51, 5, link(), small);
    open.cluster(5, 3, false);
    let to = [open.id(1), open.id(2)];
    assert!(matches!(
        send(&mut open, &to),
        Err(TransferError::OpenPeer { peer, .. }) if peer == to[0]
    ));
}

#[test]
fn nodes_that_keep_what_they_have_receive_and_hold_for_one_that_does_not() {
    let mut w = World::durable(52, 5, link(), |i| i > 0, small);
    w.cluster(5, 3, false);
    let data = content(60_000);
    let id = w
        .send_group(0, &[1, 2, 3, 4], Some("f"), data.clone())
        .unwrap();
    w.run_for(Duration::from_millis(60));
    // a receiver and holder dies and goes on with what it has on disk
    w.kill(4);
    w.run_for(Duration::from_secs(1));
    w.restart(4);
    until_done(&mut w, id);
    w.hosts[0].done[&id].as_ref().unwrap();
    for i in 1..5 {
        assert_eq!(got(&w, i), [&data], "node {i}");
    }
}
