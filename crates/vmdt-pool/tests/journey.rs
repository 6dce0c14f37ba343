//! A sender, five holders and a receiver on disk, any of which is killed at any moment: messages in
//! flight are lost with it, and still every message is delivered, once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use vmdt_pool::{
    Anchor, Announced, Announcement, Collector, CollectorConfig, CollectorEvent, MemoryStore,
    Outbox, OutboxConfig, OutboxEvent, Outcome, Persist, Pool, PoolConfig, PoolEvent, ShareOutcome,
    Store, Stored,
};
use vmdt_wire::{MessageId, NodeId};

const HOLDERS: [&str; 5] = ["carol", "dave", "erin", "frank", "grace"];
const MESSAGES: u8 = 3;

#[derive(Debug, Clone)]
enum Line {
    Announce(Announcement),
    Share(MessageId, u8, Bytes),
    Confirm(MessageId, u8),
    Unfreeze(MessageId, u8),
    Claim(MessageId, u8),
    Ack(MessageId),
    Remove(MessageId),
}

#[allow(clippy::large_enum_variant)]
enum Machine {
    Outbox(Outbox),
    Pool(Pool),
    Collector(Collector),
}

struct Node {
    machine: Machine,
    store: MemoryStore,
    out: Option<Persist>,
}

struct World {
    start: Instant,
    now: Instant,
    nodes: BTreeMap<NodeId, Node>,
    lines: Vec<(NodeId, NodeId, Line)>,
    /// What the receiver's user got, how often, and whether a crash came in between.
    delivered: BTreeMap<MessageId, usize>,
    crashes_of_bob: usize,
    settled: BTreeSet<MessageId>,
}

fn boot(name: NodeId, start: Instant, now: Instant, store: &MemoryStore) -> Machine {
    let anchor = Anchor {
        at: now,
        unix: secs(1_800_000_000) + (now - start),
    };
    if name == node("alice") {
        let config = OutboxConfig::new(name);
        Machine::Outbox(Outbox::restore(config, anchor, store.records(), digest).0)
    } else if name == node("bob") {
        let config = CollectorConfig::new(name);
        Machine::Collector(Collector::restore(config, anchor, store.records(), digest).0)
    } else {
        let config = PoolConfig::new(name);
        Machine::Pool(Pool::restore(config, anchor, store.records(), digest).0)
    }
}

impl World {
    fn new() -> World {
        let start = base();
        let names = HOLDERS.into_iter().chain(["alice", "bob"]).map(node);
        let nodes = names.map(|name| {
            let store = MemoryStore::new();
            let machine = boot(name, start, start, &store);
            let out = None;
            let fresh = Node {
                machine,
                store,
                out,
            };
            (name, fresh)
        });
        World {
            start,
            now: start,
            nodes: nodes.collect(),
            lines: Vec::new(),
            delivered: BTreeMap::new(),
            crashes_of_bob: 0,
            settled: BTreeSet::new(),
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, line: Line) {
        self.lines.push((from, to, line));
    }

    fn deliver(&mut self, at: usize) {
        let (from, to, line) = self.lines.swap_remove(at);
        let now = self.now;
        let mut answers = Vec::new();
        match &mut self.nodes.get_mut(&to).unwrap().machine {
            Machine::Outbox(outbox) => match line {
                Line::Confirm(id, own) => {
                    outbox.confirmed(now, id, index(own), from);
                }
                Line::Ack(id) => {
                    outbox.acknowledged(now, id, from);
                }
                _ => {}
            },
            Machine::Pool(pool) => match line {
                Line::Announce(ann) => {
                    let _ = pool.add(now, from, &ann);
                }
                Line::Share(id, own, octets) => {
                    let digest = digest(&octets);
                    let stored = pool.store(now, from, id, index(own), octets, digest);
                    if matches!(stored, Ok(Stored::Duplicate | Stored::Finished)) {
                        answers.push(Line::Confirm(id, own));
                    }
                }
                Line::Unfreeze(id, own) => drop(pool.unfreeze(now, id, index(own), from)),
                Line::Claim(id, own) => {
                    if let Ok(octets) = pool.claim(now, id, from, index(own)) {
                        answers.push(Line::Share(id, own, octets));
                    }
                }
                Line::Remove(id) => drop(pool.remove(now, id, from)),
                Line::Ack(_) | Line::Confirm(..) => {}
            },
            Machine::Collector(bob) => {
                let known = match line {
                    Line::Announce(ann) => {
                        let known = bob.announce(now, &ann) == Ok(Announced::AlreadyDelivered);
                        known.then_some(ann.message)
                    }
                    Line::Share(id, own, octets) => {
                        let digest = digest(&octets);
                        let outcome = bob.share(now, from, id, index(own), octets, digest);
                        (outcome == Ok(ShareOutcome::AlreadyDelivered)).then_some(id)
                    }
                    _ => None,
                };
                if let Some(id) = known.filter(|id| bob.is_settled(*id)) {
                    self.send(to, node("alice"), Line::Ack(id));
                }
            }
        }
        for answer in answers {
            self.send(to, from, answer);
        }
        self.settle(to);
    }

    /// Drains the events of a node, and asks for its next batch.
    fn settle(&mut self, name: NodeId) {
        let now = self.now;
        let mut lines: Vec<(NodeId, Line)> = Vec::new();
        let own = self.nodes.get_mut(&name).unwrap();
        match &mut own.machine {
            Machine::Outbox(outbox) => {
                while let Some(event) = outbox.poll_event() {
                    match event {
                        OutboxEvent::Announce { message, to } => {
                            let ann = outbox.announcement(message).unwrap().clone();
                            lines.push((to, Line::Announce(ann)));
                        }
                        OutboxEvent::Give { message, index, to } => {
                            let octets = outbox.share(message, index).unwrap();
                            lines.push((to, Line::Share(message, index.get(), octets)));
                        }
                        OutboxEvent::Ended {
                            message,
                            holders,
                            how,
                        } => {
                            assert_eq!(how, Outcome::Delivered);
                            lines.extend(holders.into_iter().map(|to| (to, Line::Remove(message))));
                        }
                        _ => {}
                    }
                }
                own.out = own.out.take().or_else(|| outbox.poll_persist());
            }
            Machine::Pool(pool) => {
                while let Some(event) = pool.poll_event() {
                    match event {
                        PoolEvent::Offer {
                            message,
                            index,
                            receiver,
                        } => {
                            let octets = pool.claim(now, message, receiver, index).unwrap();
                            let ann = pool.announcement(message).unwrap().clone();
                            lines.push((receiver, Line::Announce(ann)));
                            lines.push((receiver, Line::Share(message, index.get(), octets)));
                        }
                        PoolEvent::Stored {
                            message,
                            index,
                            from,
                        } => lines.push((from, Line::Confirm(message, index.get()))),
                        _ => {}
                    }
                }
                own.out = own.out.take().or_else(|| pool.poll_persist());
            }
            Machine::Collector(bob) => {
                while let Some(event) = bob.poll_event() {
                    match event {
                        CollectorEvent::Complete { message, shares } => {
                            let id = (1..=MESSAGES).find(|id| self::message(*id) == message);
                            for (own, octets) in shares {
                                assert_eq!(octets, share(id.unwrap(), own.get()));
                            }
                            assert!(!self.settled.contains(&message), "delivered twice");
                            *self.delivered.entry(message).or_default() += 1;
                            assert!(bob.delivered(now, message));
                        }
                        CollectorEvent::Settled { message } => {
                            self.settled.insert(message);
                            lines.push((node("alice"), Line::Ack(message)));
                        }
                        CollectorEvent::Unfreeze {
                            message,
                            index,
                            holder,
                        } => lines.push((holder, Line::Unfreeze(message, index.get()))),
                        CollectorEvent::Claim {
                            message,
                            index,
                            holder,
                        } => lines.push((holder, Line::Claim(message, index.get()))),
                        other => panic!("{other:?}"),
                    }
                }
                own.out = own.out.take().or_else(|| bob.poll_persist());
            }
        }
        for (to, line) in lines {
            self.send(name, to, line);
        }
    }

    /// The disk of a node has done what it was asked for.
    fn commit(&mut self, name: NodeId) {
        let now = self.now;
        let own = self.nodes.get_mut(&name).unwrap();
        if let Some(batch) = own.out.take() {
            own.store.commit(&batch.changes).unwrap();
            match &mut own.machine {
                Machine::Outbox(outbox) => outbox.handle_persisted(now, batch.op),
                Machine::Pool(pool) => pool.handle_persisted(batch.op),
                Machine::Collector(bob) => bob.handle_persisted(batch.op),
            }
            self.settle(name);
        }
    }

    /// kill -9: what was being written is on disk or not, what was under way to it is lost.
    fn crash(&mut self, name: NodeId, written: bool) {
        let (start, now) = (self.start, self.now);
        let own = self.nodes.get_mut(&name).unwrap();
        if let Some(batch) = own.out.take().filter(|_| written) {
            own.store.commit(&batch.changes).unwrap();
        }
        own.machine = boot(name, start, now, &own.store);
        self.lines.retain(|(_, to, _)| *to != name);
        self.crashes_of_bob += usize::from(name == node("bob"));
        self.settle(name);
    }

    /// Time passes to the next deadline. False when there is none.
    fn wait(&mut self) -> bool {
        let next = self.nodes.iter().filter_map(|(name, own)| {
            let at = match &own.machine {
                Machine::Outbox(outbox) => outbox.poll_timeout(),
                Machine::Pool(pool) => pool.poll_timeout(),
                Machine::Collector(bob) => bob.poll_timeout(),
            };
            at.map(|at| (at, *name))
        });
        let Some((at, name)) = next.min() else {
            return false;
        };
        self.now = self.now.max(at);
        match &mut self.nodes.get_mut(&name).unwrap().machine {
            Machine::Outbox(outbox) => outbox.handle_timeout(at),
            Machine::Pool(pool) => pool.handle_timeout(at),
            Machine::Collector(bob) => bob.handle_timeout(at),
        }
        self.settle(name);
        true
    }

    fn outbox(&mut self) -> &mut Outbox {
        match &mut self.nodes.get_mut(&node("alice")).unwrap().machine {
            Machine::Outbox(outbox) => outbox,
            _ => unreachable!(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_message_arrives_once_whoever_is_killed_and_nothing_is_left_behind(
        script in prop::collection::vec((0_u8..12, any::<u16>(), any::<bool>()), 0..250),
    ) {
        let mut world = World::new();
        let names: Vec<NodeId> = world.nodes.keys().copied().collect();
        let now = world.now;
        for id in 1..=MESSAGES {
            let ann = announcement(id, 3, 3, &HOLDERS).with_version(1);
            let shares = (1..=5).map(|own| (index(own), share(id, own))).collect();
            world.outbox().send(now, &ann, shares).unwrap();
        }
        world.settle(node("alice"));
        // Until here nobody was promised anything; from here on the message is under way.
        world.commit(node("alice"));
        for (action, number, flag) in script {
            let number = usize::from(number);
            let name = names[number % names.len()];
            match action {
                0 => world.crash(name, flag),
                1 => drop(world.wait()),
                2..5 => world.commit(name),
                _ if world.lines.is_empty() => world.commit(name),
                _ => world.deliver(number % world.lines.len()),
            }
        }
        // Then nobody is killed any more.
        let healed = world.now;
        let mut steps = 0;
        while world.outbox().messages().next().is_some() {
            for name in &names {
                world.commit(*name);
            }
            if world.lines.is_empty() {
                prop_assert!(world.wait());
            } else {
                world.deliver(0);
            }
            steps += 1;
            prop_assert!(steps < 50_000, "it does not end");
        }
        let took = world.now - healed;
        prop_assert!(took < secs(300), "only as some time was over: {took:?}");
        for id in 1..=MESSAGES {
            let times = world.delivered.get(&message(id)).copied().unwrap_or(0);
            prop_assert!(times >= 1 && times <= 1 + world.crashes_of_bob, "{times}");
            prop_assert!(world.settled.contains(&message(id)) || world.crashes_of_bob > 0);
        }
        while !world.lines.is_empty() {
            world.deliver(0);
            for name in &names {
                world.commit(*name);
            }
        }
        // Tombstones end, and what a holder was not told to remove expires.
        for _ in 0..50_000 {
            if !world.wait() {
                break;
            }
            while !world.lines.is_empty() {
                world.deliver(0);
            }
            for name in &names {
                world.commit(*name);
            }
        }
        for (name, own) in &world.nodes {
            prop_assert!(own.store.is_empty(), "{name} keeps {:?}", own.store);
        }
    }
}
