//! Holders that are gone for good while the sender is away: the others remake what was lost, and
//! nobody is given more than it may have.
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
use vmdt_node::{Event, MessageId, NodeId};
use vmdt_pool::repair::share::Remark;
use vmdt_testkit::LinkConfig;
use vmdt_wire::{FlowId, Message, ShareIndex};

const SENDER: usize = 0;
const RECEIVER: usize = 1;
const K: usize = 3;
const GRACE: Duration = Duration::from_secs(60);

/// Ten nodes on good links, any 3 of 5 shares, a grace of a minute.
fn ten(seed: u64) -> World {
    let link = LinkConfig::new()
        .delay(Duration::from_millis(10))
        .rate(20_000_000, 256 * 1024);
    let mut w = World::durable(
        seed,
        10,
        link,
        |_| true,
        |config| {
            config.set_segment(16 * 1024).unwrap();
            config.set_repair_after(GRACE).unwrap();
            // who is taken over is not to be reached another way
            config.set_allow_relay(false);
        },
    );
    w.cluster(5, K as u16, false);
    w
}

fn content(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i / 7) as u8 ^ i as u8)
        .collect::<Vec<u8>>()
        .into()
}

/// A message that waits at five holders while its sender and its receiver are away.
struct Deposit {
    w: World,
    id: MessageId,
    content: Bytes,
    message: MessageId,
    /// The holders, in the order of their shares.
    holders: Vec<usize>,
}

/// Which nodes were given which shares of a message by its sender.
fn placed(w: &World, message: MessageId) -> BTreeSet<(u16, NodeId)> {
    let sender = w.id(SENDER);
    let carried = w.carriage.iter();
    carried
        .filter(|((from, _, of), _)| *from == sender && *of == message)
        .flat_map(|((_, to, _), shares)| shares.iter().map(|share| (*share, *to)))
        .collect()
}

impl Deposit {
    fn new(seed: u64, len: usize) -> Deposit {
        let mut d = Deposit::attended(seed, len);
        d.w.kill(SENDER);
        d
    }

    /// The same with a sender that is still there.
    fn attended(seed: u64, len: usize) -> Deposit {
        let mut w = ten(seed);
        let content = content(len);
        w.kill(RECEIVER);
        w.run_for(Duration::from_secs(5));
        let id = w.send(SENDER, RECEIVER, None, content.clone()).unwrap();
        let deposited = |w: &World| {
            let mut events = w.hosts[SENDER].events.iter();
            events.any(|e| matches!(e, Event::Deposited { id: i, .. } if *i == id))
        };
        w.run_until(Duration::from_secs(60), deposited).unwrap();
        let messages: BTreeSet<MessageId> = w.carriage.keys().map(|(_, _, m)| *m).collect();
        assert_eq!(messages.len(), 1, "one segment");
        let message = *messages.first().unwrap();
        let index_of = |id: NodeId| w.hosts.iter().position(|host| host.id == id).unwrap();
        let holders: Vec<usize> = placed(&w, message)
            .into_iter()
            .map(|(_, id)| index_of(id))
            .collect();
        assert_eq!(holders.len(), 5);
        assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), 5);
        Deposit {
            w,
            id,
            content,
            message,
            holders,
        }
    }

    fn kill(&mut self, which: &[usize]) {
        for at in which {
            self.w.kill(self.holders[*at]);
        }
    }

    /// Nodes that say that a share was remade here.
    fn remade(&self) -> usize {
        self.parts()
            .values()
            .filter(|parts| parts.len() > 1)
            .count()
    }

    /// Parts that went over links: by new holder and attempt, the helpers and the index.
    fn parts(&self) -> BTreeMap<(NodeId, MessageId), BTreeSet<(NodeId, u16)>> {
        let mut parts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for ((from, to, attempt), indices) in &self.w.carriage {
            let between = ![*from, *to].contains(&self.w.id(SENDER)) && *to != self.w.id(RECEIVER);
            if *attempt != self.message && between {
                let of = parts.entry((*to, *attempt)).or_default();
                of.extend(indices.iter().map(|index| (*from, *index)));
            }
        }
        parts
    }

    fn repaired(&self) -> usize {
        self.count(|event| matches!(event, Event::Repaired { id, .. } if *id == self.id))
    }

    fn count(&self, of: impl Fn(&Event) -> bool) -> usize {
        let events = self.w.hosts.iter().flat_map(|host| &host.events);
        events.filter(|event| of(event)).count()
    }

    /// Waits for so many shares to be on disk at new holders, as they and who led them say.
    fn until_repaired(&mut self, shares: usize) {
        let id = self.id;
        let told = |w: &World| {
            let events = w.hosts.iter().flat_map(|host| &host.events);
            let repaired = |e: &&Event| matches!(e, Event::Repaired { id: i, .. } if *i == id);
            events.filter(repaired).count()
        };
        // a member that takes it itself is who led it
        self.w
            .run_until(Duration::from_secs(1800), |w| told(w) >= shares)
            .unwrap();
        self.w.run_for(Duration::from_secs(60));
    }

    /// The receiver comes back and has the message, once.
    fn fetch(&mut self) {
        self.w.restart(RECEIVER);
        let id = self.id;
        let copies = |w: &World| {
            let received = w.hosts[RECEIVER].received.iter();
            let of = |r: &&Received| matches!(r, Received::Message { id: i, .. } if *i == id);
            received.filter(of).cloned().collect::<Vec<_>>()
        };
        self.w
            .run_until(Duration::from_secs(600), |w| !copies(w).is_empty())
            .unwrap();
        self.w.run_for(Duration::from_secs(60));
        let copies = copies(&self.w);
        let [Received::Message { data, .. }] = copies.as_slice() else {
            panic!("{} copies", copies.len());
        };
        assert_eq!(*data, self.content);
        // who brought it, remade shares too, has signed for it, and nothing but what was brought
        let stats = self.w.hosts[RECEIVER].core.stats();
        assert!(stats.receipts > 0 && stats.bad_receipts == 0, "{stats:?}");
        self.check();
    }

    /// Nobody was given k shares, by the sender and by repairs together; and of each repair the new
    /// holder got one part of each helper, and nobody anything else.
    fn check(&self) {
        self.w.check_privacy(K, &[SENDER, RECEIVER]).unwrap();
        let mut had: BTreeMap<NodeId, BTreeSet<u16>> = BTreeMap::new();
        for (index, node) in placed(&self.w, self.message) {
            had.entry(node).or_default().insert(index);
        }
        for ((to, attempt), parts) in self.parts() {
            let indices: BTreeSet<u16> = parts.iter().map(|(_, index)| *index).collect();
            assert_eq!(indices.len(), 1, "{attempt} is about one share");
            had.entry(to).or_default().extend(indices);
        }
        for (node, had) in had {
            assert!(had.len() < K, "{node} had {had:?}");
        }
    }
}

#[test]
fn a_share_is_remade_without_its_sender_and_stands_in_for_the_lost_one() {
    // replicated, dispersed in one piece and in many packets
    for (seed, len) in [(1, 100), (2, 1_000), (3, 12_000)] {
        let mut d = Deposit::new(seed, len);
        d.kill(&[0]);
        d.until_repaired(1);
        // two more at once: without the remade share two would be left
        d.kill(&[1, 2]);
        d.w.run_for(Duration::from_secs(5));
        d.fetch();
    }
}

#[test]
fn two_shares_are_remade_and_any_three_of_the_shares_are_enough() {
    let mut d = Deposit::new(4, 5_000);
    d.kill(&[1, 3]);
    d.until_repaired(3);
    assert!(d.remade() >= 2, "{:?}", d.parts());
    d.kill(&[0, 2]);
    d.w.run_for(Duration::from_secs(5));
    d.fetch();
}

#[test]
fn new_holders_keep_it_on_disk_and_drop_it_when_the_receiver_has_the_message() {
    let mut d = Deposit::new(5, 1_000);
    d.kill(&[0]);
    d.until_repaired(1);
    for i in 2..10 {
        if d.w.hosts[i].alive {
            d.w.kill(i);
            d.w.restart(i);
        }
    }
    d.w.run_for(Duration::from_secs(30));
    d.kill(&[1, 2]);
    d.fetch();
    d.w.restart(SENDER);
    d.w.run_for(Duration::from_secs(1300));
    for host in d.w.hosts.iter().filter(|host| host.alive) {
        assert_eq!(host.core.pool_usage().entries, 0, "{}", host.id);
    }
    let told = |e: &Event| matches!(e, Event::Delivered { id, .. } if *id == d.id);
    assert_eq!(d.count(told), 1);
}

#[test]
fn nothing_is_remade_while_the_sender_is_there_or_within_the_grace() {
    let mut d = Deposit::new(6, 1_000);
    d.w.run_for(GRACE * 2);
    d.kill(&[0]);
    d.w.run_for(GRACE / 2);
    assert!(d.parts().is_empty(), "not yet");
    d.w.restart(d.holders[0]);
    d.w.run_for(GRACE * 4);
    assert!(d.parts().is_empty(), "it came back in time");
    d.w.restart(SENDER);
    d.w.run_for(Duration::from_secs(10));
    d.kill(&[1]);
    d.w.run_for(GRACE * 6);
    assert!(d.parts().is_empty(), "it is the sender's to do");
}

#[test]
fn a_sender_that_was_cut_off_gives_nobody_more_than_it_may_have_with_what_was_remade() {
    for seed in 20..26 {
        let mut d = Deposit::attended(seed, 1_000);
        d.w.isolate(&[SENDER]);
        d.kill(&[0]);
        d.until_repaired(1);
        d.w.heal();
        d.w.run_for(GRACE);
        // now it is the sender that makes good what is lost
        d.kill(&[1]);
        d.w.run_for(GRACE * 4);
        d.kill(&[2]);
        d.w.run_for(GRACE * 4);
        d.check();
        d.fetch();
    }
}

#[test]
fn with_fewer_than_k_left_nothing_happens_but_a_word_of_it() {
    let mut d = Deposit::new(7, 1_000);
    d.kill(&[0, 2, 4]);
    d.w.run_for(Duration::from_secs(1800));
    assert!(d.parts().is_empty());
    assert_eq!(d.repaired(), 0);
    let degraded = |e: &Event| matches!(e, Event::Degraded { id, shares: 3 } if *id == d.id);
    assert_eq!(d.count(degraded), 2, "each of the two that are left");
    // one of them comes back: that is enough
    d.w.restart(d.holders[2]);
    d.w.run_for(Duration::from_secs(5));
    d.fetch();
}

#[test]
fn a_lost_holder_that_returns_in_the_middle_does_no_harm() {
    let mut d = Deposit::new(8, 12_000);
    d.kill(&[0]);
    let message = d.message;
    d.w.run_until(Duration::from_secs(600), |w| {
        w.carriage.keys().any(|(_, _, of)| *of != message)
    })
    .unwrap();
    d.w.restart(d.holders[0]);
    d.w.run_for(Duration::from_secs(120));
    assert!(d.repaired() > 0, "two have it now");
    d.fetch();
}

#[test]
fn a_new_holder_that_dies_in_the_middle_is_followed_by_another() {
    let mut d = Deposit::new(9, 12_000);
    d.kill(&[0]);
    let message = d.message;
    d.w.run_until(Duration::from_secs(600), |w| {
        w.carriage.keys().any(|(_, _, of)| *of != message)
    })
    .unwrap();
    let first = d.parts().keys().next().unwrap().0;
    let at = d.w.hosts.iter().position(|host| host.id == first).unwrap();
    d.w.kill(at);
    assert_eq!(d.repaired(), 0, "it was not ready");
    d.until_repaired(1);
    let all: BTreeSet<NodeId> = d.parts().keys().map(|(to, _)| *to).collect();
    assert!(all.len() > 1, "another one has it");
    d.fetch();
}

#[test]
fn who_leads_may_die_and_the_next_in_line_does_it() {
    let mut d = Deposit::new(10, 1_000);
    // the lowest two go one after the other, the second before its turn as the first of the rest
    d.kill(&[2]);
    d.w.run_for(GRACE + Duration::from_secs(2));
    d.kill(&[0]);
    d.until_repaired(1);
    d.kill(&[1]);
    d.w.run_for(Duration::from_secs(5));
    d.fetch();
}

#[test]
fn a_helper_that_lies_is_found_out_and_done_without() {
    let mut d = Deposit::new(11, 1_000);
    let liar = d.holders[1];
    d.w.seize(liar);
    d.kill(&[0]);
    let gone = d.holders[0];
    d.w.run_for(GRACE);
    // sessions that nothing goes over end
    let others = (2..10).filter(|other| ![liar, gone].contains(other));
    for other in others {
        d.w.reach(liar, other);
    }
    // 32 octets of the key's point, and a third of the envelope and the content
    let len = 32 + (40_usize + 32 + 1_000).div_ceil(K);
    let mut lies = 0;
    let mut heard = 0;
    for _ in 0..1800 {
        d.w.run_for(Duration::from_secs(1));
        let puppet = d.w.hosts[liar].puppet.as_ref().unwrap();
        let new: Vec<(NodeId, Message)> = puppet.lines[heard..].to_vec();
        heard += new.len();
        for (from, line) in new {
            let Message::ShareRepair { repair } = line else {
                continue;
            };
            if let Ok(Remark::Help(plan)) = Remark::parse(from, &repair.0) {
                let flow = FlowId {
                    message: plan.attempt,
                    index: ShareIndex::new(plan.index.get().into()).unwrap(),
                };
                let seed = [&[1, 3][..], &plan.attempt.field(), &[7; 32]].concat();
                let own = d.w.id(liar);
                let greater = plan.nodes().into_iter().filter(|node| *node > own);
                for node in greater {
                    let at = d.w.hosts.iter().position(|host| host.id == node).unwrap();
                    d.w.reach(liar, at);
                    let repair = vmdt_wire::Opaque(seed.clone());
                    d.w.puppet(liar, |p, now| {
                        p.say(now, node, Message::ShareRepair { repair })
                    });
                }
                d.w.puppet(liar, |p, now| p.hand(now, from, flow, vec![5; len].into()));
                lies += 1;
            }
        }
        if d.repaired() > 0 {
            break;
        }
    }
    assert!(lies > 0, "it was asked");
    assert!(d.repaired() > 0, "it was done without");
    let found: u64 = d.w.hosts.iter().map(|h| h.core.stats().bad_shares).sum();
    assert!(found > 0, "the lie was seen");
    d.w.run_for(Duration::from_secs(60));
    d.kill(&[1, 2]);
    d.w.run_for(Duration::from_secs(5));
    d.fetch();
}

#[test]
fn nodes_without_a_disk_take_no_part() {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    // the holders keep nothing on disk: they are not the ones to remake anything
    let mut w = World::durable(
        12,
        10,
        link,
        |i| i < 2,
        |config| {
            config.set_repair_after(GRACE).unwrap();
            // who is taken over is not to be reached another way
            config.set_allow_relay(false);
        },
    );
    w.cluster(5, K as u16, false);
    w.kill(RECEIVER);
    w.run_for(Duration::from_secs(5));
    w.send(SENDER, RECEIVER, None, content(1_000)).unwrap();
    w.run_for(Duration::from_secs(10));
    w.kill(SENDER);
    let given: BTreeSet<MessageId> = w.carriage.keys().map(|(_, _, m)| *m).collect();
    let holder = (2..10)
        .find(|i| w.hosts[*i].core.pool_usage().entries > 0)
        .unwrap();
    w.kill(holder);
    w.run_for(Duration::from_secs(500));
    let after: BTreeSet<MessageId> = w.carriage.keys().map(|(_, _, m)| *m).collect();
    assert_eq!(given, after);
}
