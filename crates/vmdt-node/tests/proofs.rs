//! Holders that lie and sign, in worlds: who convicts itself is banned, and nobody else ever is.
//! That runs without liars ban nobody is checked at the end of every world of every test
//! (`tests/common`).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::time::Duration;

use bytes::Bytes;
use common::{Received, World};
use vmdt_node::core::Conviction;
use vmdt_node::{Carrier, Event, Evidence, MessageId, NodeId};
use vmdt_seal::announcement::SealedDetails;
use vmdt_seal::group::GroupDetails;
use vmdt_seal::handover::{Contradiction, Handover, Handovers};
use vmdt_ssms::v2::share_digest;
use vmdt_testkit::LinkConfig;
use vmdt_wire::Message;

/// Seven nodes, k = 3, n = 5, segments of 16 KiB; members carry everything.
fn seven(seed: u64, loss: f64) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024)
        .loss(loss);
    let mut w = World::new(seed, 7, link, |config| {
        config.set_segment(16 * 1024).unwrap();
        config.set_allow_relay(false);
        config.set_allow_direct(false);
    });
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

/// Whom a node has banned, with the evidence that its list of peers shows.
fn banned(w: &World, i: usize) -> BTreeMap<NodeId, Evidence> {
    let reports = w.hosts[i].core.peer_reports(w.now());
    let ban = |r: vmdt_node::PeerReport| Some((r.peer, r.ban?.evidence));
    reports.into_iter().filter_map(ban).collect()
}

fn convictions(w: &World, i: usize) -> Vec<Conviction> {
    w.hosts[i].core.convictions().cloned().collect()
}

/// The digests of the manifests of all messages that a puppet was told of.
fn manifests(lines: &[(NodeId, Message)]) -> BTreeMap<MessageId, [u8; 32]> {
    let digest = |details: &[u8]| {
        if GroupDetails::is_one(details) {
            GroupDetails::parse(details).unwrap().manifest_digest()
        } else {
            SealedDetails::parse(details).unwrap().manifest_digest()
        }
    };
    let told = |(_, line): &(NodeId, Message)| match line {
        Message::SharePoolAdd(add) => Some((add.message.to_message_id()?, digest(&add.details))),
        _ => None,
    };
    lines.iter().filter_map(told).collect()
}

/// When a liar signs.
#[derive(Clone, Copy, PartialEq)]
enum Signs {
    Before,
    After,
}

/// For a while, a node that was taken over hands every share that it is given to another with one
/// bit turned, and signs what `word` makes of the hand-over as it was sealed and as it was brought.
/// Gives how many it handed over.
fn lie(
    w: &mut World,
    (liar, to): (usize, usize),
    time: Duration,
    signs: Signs,
    word: impl Fn(Handover, Handover) -> Option<Handover>,
) -> usize {
    let (receiver, identity) = (w.id(to), w.identity(liar));
    let (end, wait) = (w.now() + time, Duration::from_millis(150));
    let (mut seen, mut heard) = (0, 0);
    let mut told = BTreeMap::new();
    let mut words: Vec<(std::time::Instant, Handover)> = Vec::new();
    let mut hands = Vec::new();
    while w.now() < end {
        w.run_for(Duration::from_millis(10));
        w.puppet(liar, |p, now| {
            told.extend(manifests(&p.lines[heard..]));
            heard = p.lines.len();
            while let Some((_, flow, octets)) = p.shares.get(seen).cloned() {
                let Some(manifest) = told.get(&flow.message).copied() else {
                    break;
                };
                seen += 1;
                let mut altered = octets.to_vec();
                let middle = altered.len() / 2;
                altered[middle] ^= 1;
                let index = u8::try_from(flow.index.get() % 1000).unwrap();
                let sealed = Handover {
                    manifest,
                    index: NonZeroU8::new(index).unwrap(),
                    digest: share_digest(&octets).unwrap(),
                };
                let brought = Handover {
                    digest: share_digest(&altered).unwrap(),
                    ..sealed
                };
                let (first, then) = (now, now + wait);
                let before = signs == Signs::Before;
                hands.push((if before { then } else { first }, flow, altered));
                if let Some(said) = word(sealed, brought) {
                    words.push((if before { first } else { then }, said));
                }
            }
            hands.retain(|(at, flow, altered)| {
                if *at <= now {
                    p.hand(now, receiver, *flow, altered.clone().into());
                }
                *at > now
            });
            let due: Vec<Handover> = words.iter().filter(|w| w.0 <= now).map(|w| w.1).collect();
            words.retain(|(at, _)| *at > now);
            for batch in due.chunks(vmdt_seal::handover::MAX_HANDOVERS) {
                let signed = Handovers::sign(&identity, receiver, 1, batch).unwrap();
                let receipts = signed.octets().to_vec();
                p.say(now, receiver, Message::Receipts { receipts });
            }
        });
    }
    seen
}

/// A node that lies to 1 while 0 sends it a file, for half a minute.
fn lied_to(
    seed: u64,
    signs: Signs,
    word: impl Fn(Handover, Handover) -> Option<Handover>,
) -> (World, NodeId) {
    let mut w = seven(seed, 0.0);
    w.convicts = true;
    let liar = 2 + seed as usize % 5;
    w.seize(liar);
    w.reach(liar, 1);
    let content = content(100_000);
    let id = w.send(0, 1, Some("f"), content.clone()).unwrap();
    let lies = lie(&mut w, (liar, 1), Duration::from_secs(30), signs, word);
    assert!(lies > 0, "seed {seed}: it was given nothing");
    w.hosts[0].done[&id].as_ref().unwrap();
    assert_eq!(got(&w, 1), [&content], "seed {seed}");
    let liar = w.id(liar);
    (w, liar)
}

fn blames(w: &World, i: usize, who: NodeId) -> usize {
    let bad = |e: &&Event| matches!(e, Event::BadShare { from, .. } if *from == who);
    w.hosts[i].events.iter().filter(bad).count()
}

#[test]
fn a_holder_that_signs_another_share_than_was_sealed_is_banned_and_only_it() {
    for seed in 0..10 {
        let signs = [Signs::After, Signs::Before][seed as usize % 2];
        let (mut w, liar) = lied_to(seed, signs, |_, brought| Some(brought));
        let bans = banned(&w, 1);
        assert_eq!(bans.keys().collect::<Vec<_>>(), [&liar], "seed {seed}");
        let told = |e: &&Event| matches!(e, Event::Banned { peer } if *peer == liar);
        assert_eq!(w.hosts[1].events.iter().filter(told).count(), 1);

        // anybody can check it
        let [conviction] = &convictions(&w, 1)[..] else {
            panic!("seed {seed}: one conviction");
        };
        assert_eq!((conviction.peer, conviction.evidence), (liar, bans[&liar]));
        let shown = Contradiction::find(&conviction.handovers, &conviction.details).unwrap();
        assert_eq!(shown.holder.node_id(), liar);
        assert_eq!(shown.sender.node_id(), w.id(0));
        assert_eq!((shown.receiver, shown.index), (w.id(1), conviction.index));
        let Evidence::BadShare {
            message,
            announced,
            delivered,
        } = conviction.evidence
        else {
            panic!("seed {seed}: {conviction:?}");
        };
        assert_eq!(message, shown.message);
        assert_eq!(announced, shown.sealed[..16]);
        assert_eq!(delivered, shown.brought[..16]);

        // who was lied to gives it nothing to carry any more; the others know nothing of it
        for _ in 0..3 {
            let id = w.send(1, 0, None, content(1_000)).unwrap();
            let explained = w.hosts[1].core.explain(id).unwrap();
            assert!(!explained.holders.contains_key(&Carrier::Member(liar)));
            w.run_for(Duration::from_secs(1));
            w.hosts[1].done[&id].as_ref().unwrap();
        }
        assert!((0..7).all(|i| i == 1 || banned(&w, i).is_empty()));
    }
}

#[test]
fn a_holder_that_signs_the_sealed_share_and_brings_another_is_banned_by_who_knows() {
    let mut blamed = 0;
    for seed in 0..10 {
        let (w, liar) = lied_to(seed, Signs::After, |sealed, _| Some(sealed));
        let bans = banned(&w, 1);
        assert_eq!(bans.is_empty(), blames(&w, 1, liar) == 0, "seed {seed}");
        blamed += blames(&w, 1, liar);
        for conviction in convictions(&w, 1) {
            assert_eq!(conviction.peer, liar, "seed {seed}");
            assert!(matches!(
                conviction.evidence,
                Evidence::FalseDelivery { .. }
            ));
            assert_eq!(conviction.evidence, bans[&liar]);
            // to others it proves nothing
            assert!(Contradiction::find(&conviction.handovers, &conviction.details).is_err());
        }
    }
    assert!(blamed > 0, "nobody's lie was read");
}

#[test]
fn a_holder_that_lies_and_signs_nothing_is_rated_lower_and_not_banned() {
    let mut blamed = 0;
    for seed in 0..6 {
        let (w, liar) = lied_to(seed, Signs::After, |_, _| None);
        assert!(banned(&w, 1).is_empty() && convictions(&w, 1).is_empty());
        let reports = w.hosts[1].core.peer_reports(w.now());
        let report = reports.iter().find(|r| r.peer == liar).unwrap();
        let bad = blames(&w, 1, liar);
        assert!(report.failures >= bad as u64, "{report:?}");
        blamed += bad;
    }
    assert!(blamed > 0, "nobody's lie was read");
}

#[test]
fn what_was_signed_before_the_announcement_came_is_judged_then() {
    for seed in 0..5 {
        let mut w = seven(seed, 0.0);
        w.convicts = true;
        w.seize(2);
        w.reach(2, 1);
        // nobody else reaches the receiver at first
        for other in [0, 3, 4, 5, 6] {
            w.block_pair(1, other);
        }
        // in more than one message it has an active share
        for _ in 0..4 {
            w.send(0, 1, None, content(9_000)).unwrap();
        }
        let time = Duration::from_secs(2);
        let lies = lie(&mut w, (2, 1), time, Signs::After, |_, brought| {
            Some(brought)
        });
        assert!(lies > 0, "seed {seed}");
        assert!(banned(&w, 1).is_empty(), "it does not know yet");
        assert_eq!(w.hosts[1].core.stats().bad_receipts, 0);
        w.heal();
        w.run_for(Duration::from_secs(20));
        let liar = w.id(2);
        let bans = banned(&w, 1);
        assert_eq!(bans.keys().collect::<Vec<_>>(), [&liar], "seed {seed}");
        assert!(matches!(bans[&liar], Evidence::BadShare { .. }));
        assert_eq!(got(&w, 1).len(), 4);
    }
}

#[test]
fn forged_borrowed_and_unknown_hand_overs_are_refused_and_convict_nobody() {
    let mut w = seven(40, 0.0);
    w.seize(2);
    w.reach(2, 1);
    w.send(0, 1, Some("f"), content(40_000)).unwrap();
    w.run_for(Duration::from_secs(5));
    assert_eq!(w.hosts[1].core.stats().bad_receipts, 0);
    let (receiver, other) = (w.id(1), w.id(0));
    let (own, victim) = (w.identity(2), w.identity(3));
    let told = w.puppet(2, |p, _| manifests(&p.lines));
    let known = *told.values().next().expect("it was told of a message");
    let says = |manifest| Handover {
        manifest,
        index: NonZeroU8::MIN,
        digest: [7; 32],
    };
    let sign = |by, to, said| {
        let signed = Handovers::sign(by, to, 1, &[said]).unwrap();
        signed.octets().to_vec()
    };
    let mut forged = sign(&own, receiver, says(known));
    forged[2..34].copy_from_slice(victim.public().as_octets());
    let wrong = [
        forged,
        // though the victim had signed it: it is not the victim's session
        sign(&victim, receiver, says(known)),
        // what it said to another
        sign(&own, other, says(known)),
        // of a message that nobody knows
        sign(&own, receiver, says([5; 32])),
        b"H\x01".to_vec(),
        b"Q\x01".to_vec(),
    ];
    let count = wrong.len() as u64;
    w.puppet(2, |p, now| {
        for receipts in wrong {
            p.say(now, receiver, Message::Receipts { receipts });
        }
    });
    w.run_for(Duration::from_secs(2));
    assert_eq!(w.hosts[1].core.stats().bad_receipts, count);
    assert!((0..7).all(|i| banned(&w, i).is_empty()));
    // of a message that is here and of which nothing bad came, there is no news
    let late = sign(&own, receiver, says(known));
    w.puppet(2, |p, now| {
        p.say(now, receiver, Message::Receipts { receipts: late });
    });
    w.run_for(Duration::from_secs(2));
    assert_eq!(w.hosts[1].core.stats().bad_receipts, count);
    assert!(banned(&w, 1).is_empty());
}

#[test]
fn of_a_message_to_several_each_receiver_judges_what_was_said_to_it() {
    for seed in 0..6 {
        let mut w = seven(60 + seed, 0.0);
        w.convicts = true;
        w.seize(4);
        w.reach(4, 1);
        let data = content(60_000);
        w.send_group(0, &[1, 2], Some("f"), data.clone()).unwrap();
        let time = Duration::from_secs(30);
        let lies = lie(&mut w, (4, 1), time, Signs::After, |_, brought| {
            Some(brought)
        });
        assert!(lies > 0, "seed {seed}");
        assert_eq!(got(&w, 1), [&data], "seed {seed}");
        assert_eq!(got(&w, 2), [&data], "seed {seed}");
        let liar = w.id(4);
        let convicted: Vec<NodeId> = banned(&w, 1).into_keys().collect();
        assert_eq!(convicted, [liar], "seed {seed}");
        let [conviction] = &convictions(&w, 1)[..] else {
            panic!("seed {seed}: one conviction");
        };
        Contradiction::find(&conviction.handovers, &conviction.details).unwrap();
        assert!(banned(&w, 2).is_empty(), "it was not lied to");
    }
}

#[test]
fn honest_holders_say_what_they_brought_and_nobody_is_banned_through_loss() {
    for seed in 0..12 {
        let loss = [0.0, 0.05, 0.2][seed as usize % 3];
        let mut w = seven(80 + seed, loss);
        let data = content(120_000);
        w.send(0, 1, Some("f"), data.clone()).unwrap();
        w.send_group(3, &[1, 5], Some("g"), data.clone()).unwrap();
        for _ in 0..20 {
            w.send(1, 0, None, content(3_000)).unwrap();
            w.run_for(Duration::from_millis(200));
        }
        w.run_for(Duration::from_secs(60));
        assert_eq!(got(&w, 1).len(), 2, "seed {seed}");
        let told = w.hosts[1].core.stats();
        assert!(told.receipts > 0, "seed {seed}");
        for host in &w.hosts {
            assert_eq!(host.core.stats().bad_receipts, 0, "seed {seed}");
        }
    }
}

#[test]
fn honest_holders_that_crash_ban_nobody_and_are_not_banned() {
    for seed in 0..12 {
        let mut w = seven(100 + seed, 0.05);
        let data = content(150_000);
        w.send(0, 1, Some("f"), data.clone()).unwrap();
        for round in 0..6 {
            let victim = 2 + (seed as usize + round) % 5;
            w.run_for(Duration::from_millis(150));
            w.kill(victim);
            w.run_for(Duration::from_millis(300));
            w.restart(victim);
        }
        w.run_for(Duration::from_secs(90));
        assert_eq!(got(&w, 1), [&data], "seed {seed}");
    }
}

#[test]
fn a_holder_answers_for_what_an_earlier_run_of_it_took() {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::durable(
        120,
        7,
        link,
        |_| true,
        |config| {
            config.set_segment(16 * 1024).unwrap();
            config.set_allow_relay(false);
        },
    );
    w.cluster(5, 3, false);
    w.kill(1);
    w.run_for(Duration::from_secs(5));
    let data = content(60_000);
    w.send(0, 1, Some("f"), data.clone()).unwrap();
    w.run_for(Duration::from_secs(30));
    w.kill(0);
    for holder in 2..7 {
        w.kill(holder);
        w.restart(holder);
    }
    w.restart(1);
    w.run_for(Duration::from_secs(120));
    assert_eq!(got(&w, 1), [&data]);
    assert!(w.hosts[1].core.stats().receipts > 0, "they signed");
    assert_eq!(w.hosts[1].core.stats().bad_receipts, 0);
}
