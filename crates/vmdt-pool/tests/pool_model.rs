//! Random scripts against a pool and against a model that keeps no index, no timer and no count:
//! it writes down what was said and looks everything up by scanning.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeSet;
use std::time::Instant;

use common::*;
use proptest::prelude::*;
use vmdt_pool::{Announcement, Pool, PoolEvent, ShareState};

const NODES: [&str; 4] = ["alice", "bob", "carol", "mallory"];

/// Placements of the four shares of a message (k = 3), and which are active.
type Spread = ([u8; 4], [bool; 4]);

#[derive(Debug, Clone)]
enum Op {
    Add {
        from: u8,
        id: u8,
        spread: Spread,
        version: u32,
    },
    Store {
        from: u8,
        id: u8,
        own: u8,
        good: bool,
    },
    Claim {
        by: u8,
        id: u8,
        own: u8,
    },
    Unfreeze {
        by: u8,
        id: u8,
        own: u8,
    },
    Ack {
        by: u8,
        id: u8,
    },
    Remove {
        by: u8,
        id: u8,
    },
    Release {
        id: u8,
        own: u8,
    },
    Wait {
        ms: u64,
    },
}

fn any_op() -> impl Strategy<Value = Op> {
    // Mostly those who are entitled, or nothing would ever happen.
    let alice = || prop_oneof![12 => Just(0_u8), 1 => 1_u8..4];
    let bob = || prop_oneof![12 => Just(1_u8), 1 => 0_u8..4];
    let id = || 1_u8..3;
    let own = || 1_u8..5;
    // Carol's shares are few enough for the privacy rule most of the time.
    let holder = || prop_oneof![Just(2_u8), Just(3), Just(3)];
    let spread = || {
        (
            [holder(), holder(), holder(), holder()],
            [any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()],
        )
    };
    prop_oneof![
        3 => (alice(), id(), spread(), prop_oneof![Just(0_u32), 0_u32..4]).prop_map(
            |(from, id, spread, version)| Op::Add { from, id, spread, version }
        ),
        6 => (alice(), id(), own(), prop::bool::weighted(0.9))
            .prop_map(|(from, id, own, good)| Op::Store { from, id, own, good }),
        4 => (bob(), id(), own()).prop_map(|(by, id, own)| Op::Claim { by, id, own }),
        3 => (bob(), id(), own()).prop_map(|(by, id, own)| Op::Unfreeze { by, id, own }),
        1 => (bob(), id()).prop_map(|(by, id)| Op::Ack { by, id }),
        1 => (alice(), id()).prop_map(|(by, id)| Op::Remove { by, id }),
        2 => (id(), own()).prop_map(|(id, own)| Op::Release { id, own }),
        4 => prop_oneof![0_u64..300, 1_000_u64..12_000, 25_000_u64..35_000, Just(700_000)]
            .prop_map(|ms| Op::Wait { ms }),
    ]
}

fn announce(id: u8, (holders, active): Spread) -> Announcement {
    let mut ann = announcement(id, 3, 0, &holders.map(|at| NODES[usize::from(at)]));
    for (share, active) in ann.shares.iter_mut().zip(active) {
        share.active = active;
    }
    ann
}

/// Applies one operation and says what came of it.
fn apply(pool: &mut Pool, now: Instant, op: &Op) -> String {
    let who = |at: u8| node(NODES[usize::from(at)]);
    match *op {
        Op::Add {
            from,
            id,
            spread,
            version,
        } => {
            let ann = announce(id, spread).with_version(version);
            format!("{:?}", pool.add(now, who(from), &ann))
        }
        Op::Store {
            from,
            id,
            own,
            good,
        } => {
            let octets = share(if good { id } else { 77 }, own);
            let digest = digest(&octets);
            let stored = pool.store(now, who(from), message(id), index(own), octets, digest);
            format!("{stored:?}")
        }
        Op::Claim { by, id, own } => {
            format!("{:?}", pool.claim(now, message(id), who(by), index(own)))
        }
        Op::Unfreeze { by, id, own } => {
            format!("{:?}", pool.unfreeze(now, message(id), index(own), who(by)))
        }
        Op::Ack { by, id } => format!("{:?}", pool.ack(now, message(id), who(by))),
        Op::Remove { by, id } => format!("{:?}", pool.remove(now, message(id), who(by))),
        Op::Release { id, own } => format!("{}", pool.release(now, message(id), index(own))),
        Op::Wait { .. } => {
            pool.handle_timeout(now);
            String::new()
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Held {
    id: u8,
    own: u8,
    state: ShareState,
    here: bool,
    /// When the lease, or the pause after a release, ends.
    until: Option<u64>,
    failures: u32,
}

/// Alice's messages to bob at carol, k = 3. Times are milliseconds since the start.
#[derive(Debug, Clone, Default)]
struct Model {
    /// Message, since when, where its shares are and which are active, and the version of that.
    open: Vec<(u8, u64, Spread, u32)>,
    ended: Vec<(u8, u64)>,
    held: Vec<Held>,
    /// Message and share that ever came here, or were to.
    ever: Vec<(u8, u8)>,
    /// From, message, share, whether its octets are the right ones, since when.
    early: Vec<(u8, u8, u8, bool, u64)>,
    /// By, message, request ("unfreeze 2"), since when the first of this peer and message.
    asked: Vec<(u8, u8, String, u64)>,
    offered: BTreeSet<(u8, u8)>,
    told: Vec<String>,
}

impl Model {
    fn pass(&mut self, now: u64) {
        self.ended.retain(|(_, at)| at + 3_600_000 > now);
        self.early.retain(|(.., at)| at + 30_000 > now);
        self.asked.retain(|(.., at)| at + 30_000 > now);
        for at in 0..self.held.len() {
            let expires = self.since(self.held[at].id).unwrap() + 600_000;
            let held = &mut self.held[at];
            if let Some(until) = held.until.filter(|until| *until <= now) {
                held.until = None;
                if held.state == ShareState::Claimed {
                    held.state = ShareState::Active;
                    held.failures += 1;
                }
                if until < expires || expires > now {
                    self.offer(at);
                }
            }
        }
        for (id, since, ..) in self.open.clone() {
            if since + 600_000 <= now {
                self.end(id, now);
                self.told.push(format!("expired {id}"));
            }
        }
    }

    fn since(&self, id: u8) -> Option<u64> {
        self.open
            .iter()
            .find(|open| open.0 == id)
            .map(|open| open.1)
    }

    fn offer(&mut self, at: usize) {
        let held = self.held[at];
        if held.here && held.state == ShareState::Active {
            self.offered.insert((held.id, held.own));
        }
    }

    fn end(&mut self, id: u8, now: u64) {
        self.open.retain(|open| open.0 != id);
        self.held.retain(|held| held.id != id);
        self.ever.retain(|ever| ever.0 != id);
        self.early.retain(|early| early.1 != id);
        self.asked.retain(|asked| asked.1 != id);
        self.offered.retain(|offered| offered.0 != id);
        self.ended.push((id, now));
    }

    fn has_ended(&self, id: u8) -> bool {
        self.ended.iter().any(|ended| ended.0 == id)
    }

    fn has_asked(&self, by: u8, id: u8, what: &str) -> bool {
        self.asked
            .iter()
            .any(|asked| (asked.0, asked.1) == (by, id) && asked.2 == what)
    }

    fn ask(&mut self, by: u8, id: u8, what: String, now: u64) {
        let first = self
            .asked
            .iter()
            .find(|asked| (asked.0, asked.1) == (by, id))
            .map_or(now, |asked| asked.3);
        if !self.has_asked(by, id, &what) {
            self.asked.push((by, id, what, first));
        }
    }

    fn find(&mut self, id: u8, own: u8) -> Option<usize> {
        self.held
            .iter()
            .position(|held| (held.id, held.own) == (id, own))
    }

    fn add(&mut self, now: u64, id: u8, (holders, active): Spread, version: u32) -> &'static str {
        if self.has_ended(id) {
            return "Ok(Finished)";
        }
        let known = self.open.iter().position(|open| open.0 == id);
        // Of numbered announcements the highest counts, whenever it came.
        if let Some(known) = known.map(|at| self.open[at].3)
            && (version < known || version == known && known > 0)
        {
            return "Ok(Known)";
        }
        let mut active = active;
        for own in 1..=4_u8 {
            let at = usize::from(own) - 1;
            let what = format!("unfreeze {own}");
            let asked = self.has_asked(0, id, &what) || self.has_asked(1, id, &what);
            active[at] |= asked && holders[at] == 2;
            if let Some(known) = known {
                let (old_holders, old_active) = self.open[known].2;
                active[at] |= old_active[at] && old_holders[at] == holders[at];
            }
        }
        if known
            .is_some_and(|at| (self.open[at].2, self.open[at].3) == ((holders, active), version))
        {
            return "Ok(Known)";
        }
        let here: Vec<u8> = (1..=4)
            .filter(|own| holders[usize::from(*own) - 1] == 2)
            .collect();
        if known.is_none() && here.is_empty() {
            return "Err(NotAHolder";
        }
        let mut ever: BTreeSet<u8> = here.iter().copied().collect();
        ever.extend(
            self.ever
                .iter()
                .filter(|ever| ever.0 == id)
                .map(|ever| ever.1),
        );
        ever.extend(
            self.early
                .iter()
                .filter(|early| early.0 == 0 && early.1 == id)
                .map(|early| early.2),
        );
        if ever.len() >= 3 {
            return "Err(Privacy";
        }
        if known.is_none()
            && (self.has_asked(0, id, "remove")
                || self.has_asked(1, id, "remove")
                || self.has_asked(1, id, "ack"))
        {
            self.end(id, now);
            return "Ok(Finished)";
        }
        self.ever.extend(ever.into_iter().map(|own| (id, own)));
        self.held
            .retain(|held| held.id != id || here.contains(&held.own));
        self.offered
            .retain(|offered| offered.0 != id || here.contains(&offered.1));
        match known {
            Some(known) => (self.open[known].2, self.open[known].3) = ((holders, active), version),
            None => self.open.push((id, now, (holders, active), version)),
        }
        for own in here {
            let active = active[usize::from(own) - 1];
            let at = self.find(id, own).unwrap_or_else(|| {
                self.held.push(Held {
                    id,
                    own,
                    state: ShareState::Frozen,
                    here: false,
                    until: None,
                    failures: 0,
                });
                self.held.len() - 1
            });
            if active && self.held[at].state == ShareState::Frozen {
                self.held[at].state = ShareState::Active;
                self.offer(at);
            }
        }
        for (from, _, own, good, since) in self
            .early
            .iter()
            .filter(|early| early.1 == id)
            .copied()
            .collect::<Vec<_>>()
        {
            let reason = if from != 0 {
                "NotSender"
            } else if !good {
                "Mismatch"
            } else if self.find(id, own).is_some() {
                ""
            } else {
                continue;
            };
            self.early
                .retain(|early| *early != (from, id, own, good, since));
            if reason.is_empty() {
                self.store(now, 0, id, own, true);
            } else {
                self.told.push(format!("dropped {id} {own} {reason}"));
            }
        }
        if known.is_some() {
            "Ok(Updated)"
        } else {
            "Ok(New)"
        }
    }

    fn store(&mut self, now: u64, from: u8, id: u8, own: u8, good: bool) -> &'static str {
        if self.has_ended(id) {
            return if from == 0 {
                "Ok(Finished)"
            } else {
                "Err(NotSender"
            };
        }
        if self.since(id).is_some() {
            if from != 0 {
                return "Err(NotSender";
            }
            if !good {
                return "Err(Mismatch";
            }
            if let Some(at) = self.find(id, own) {
                if self.held[at].here {
                    return "Ok(Duplicate)";
                }
                self.held[at].here = true;
                self.offer(at);
                return "Ok(New)";
            }
            let mut ever: BTreeSet<u8> = [own].into();
            ever.extend(
                self.ever
                    .iter()
                    .filter(|ever| ever.0 == id)
                    .map(|ever| ever.1),
            );
            ever.extend(
                self.early
                    .iter()
                    .filter(|early| early.0 == 0 && early.1 == id)
                    .map(|early| early.2),
            );
            if ever.len() >= 3 {
                return "Err(Privacy";
            }
        }
        let same = |early: &&(u8, u8, u8, bool, u64)| {
            (early.0, early.1, early.2, early.3) == (from, id, own, good)
        };
        if self.early.iter().find(same).is_none() {
            self.early.push((from, id, own, good, now));
        }
        "Ok(Early)"
    }

    fn claim(&mut self, now: u64, by: u8, id: u8, own: u8) -> &'static str {
        if self.has_ended(id) {
            return "Err(Finished";
        }
        if self.since(id).is_none() {
            return "Err(UnknownMessage";
        }
        if by != 1 {
            return "Err(NotReceiver";
        }
        let Some(at) = self.find(id, own) else {
            return "Err(NotPlacedHere";
        };
        let held = &mut self.held[at];
        match held.state {
            ShareState::Frozen => "Err(Frozen",
            ShareState::Active if !held.here => "Err(Missing",
            _ => {
                held.state = ShareState::Claimed;
                held.until = Some(now + 10_000 * 2_u64.pow(held.failures.min(4)));
                self.offered.remove(&(id, own));
                "Ok("
            }
        }
    }

    fn unfreeze(&mut self, now: u64, by: u8, id: u8, own: u8) -> &'static str {
        let known = self.has_ended(id) || self.since(id).is_some();
        if known && by > 1 {
            return "Err(NotOwner";
        }
        if self.has_ended(id) {
            return "Ok(Finished)";
        }
        let Some(at) = self.find(id, own) else {
            self.ask(by, id, format!("unfreeze {own}"), now);
            return "Ok(Early)";
        };
        if self.held[at].state != ShareState::Frozen {
            return "Ok(Already)";
        }
        self.held[at].state = ShareState::Active;
        let open = self.open.iter_mut().find(|open| open.0 == id).unwrap();
        open.2.1[usize::from(own) - 1] = true;
        self.offer(at);
        "Ok(Now)"
    }

    fn finish(&mut self, now: u64, by: u8, id: u8, ack: bool) -> &'static str {
        let known = self.has_ended(id) || self.since(id).is_some();
        if known && ack && by != 1 {
            return "Err(NotReceiver";
        }
        if known && by > 1 {
            return "Err(NotOwner";
        }
        if self.has_ended(id) {
            return "Ok(Already)";
        }
        if !known {
            let what = if ack { "ack" } else { "remove" };
            self.ask(by, id, what.to_owned(), now);
            return "Ok(Early)";
        }
        self.end(id, now);
        "Ok(Now)"
    }

    fn release(&mut self, now: u64, id: u8, own: u8) -> &'static str {
        let Some(at) = self.find(id, own) else {
            return "false";
        };
        let held = &mut self.held[at];
        if held.state != ShareState::Claimed {
            return "false";
        }
        held.state = ShareState::Active;
        held.until = Some(now + (200 * 2_u64.pow(held.failures)).min(10_000));
        held.failures += 1;
        "true"
    }

    fn apply(&mut self, now: u64, op: &Op) -> &'static str {
        self.pass(now);
        match *op {
            Op::Add { from, .. } if from != 0 => "Err(NotSender",
            Op::Add {
                id,
                spread,
                version,
                ..
            } => self.add(now, id, spread, version),
            Op::Store {
                from,
                id,
                own,
                good,
            } => self.store(now, from, id, own, good),
            Op::Claim { by, id, own } => self.claim(now, by, id, own),
            Op::Unfreeze { by, id, own } => self.unfreeze(now, by, id, own),
            Op::Ack { by, id } => self.finish(now, by, id, true),
            Op::Remove { by, id } => self.finish(now, by, id, false),
            Op::Release { id, own } => self.release(now, id, own),
            Op::Wait { .. } => "",
        }
    }

    fn drain(&mut self) -> Vec<String> {
        let mut told = std::mem::take(&mut self.told);
        for (id, own) in std::mem::take(&mut self.offered) {
            told.push(format!("offer {id} {own}"));
        }
        told.sort();
        told
    }
}

fn drain(pool: &mut Pool) -> Vec<String> {
    let number = |id| (1..3).find(|number| message(*number) == id).unwrap();
    let mut told: Vec<_> = pool_events(pool)
        .into_iter()
        .map(|event| match event {
            PoolEvent::Offer { message, index, .. } => format!("offer {} {index}", number(message)),
            PoolEvent::Expired { message } => format!("expired {}", number(message)),
            PoolEvent::Dropped {
                message,
                index,
                reason,
                ..
            } => {
                let reason = format!("{reason:?}");
                let reason = reason.split_whitespace().next().unwrap();
                format!("dropped {} {index} {reason}", number(message))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort();
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_pool_does_what_the_model_says(ops in prop::collection::vec(any_op(), 1..80)) {
        let start = base();
        let (mut pool, mut model, mut now) = (pool(), Model::default(), 0);
        for op in &ops {
            if let Op::Wait { ms } = op {
                now += ms;
            }
            let at = start + ms(now);
            let said = apply(&mut pool, at, op);
            let expected = model.apply(now, op);
            prop_assert!(said.starts_with(expected), "{op:?} at {now}: {said}, model {expected}");
            prop_assert_eq!(drain(&mut pool), model.drain(), "{:?} at {}", op, now);
            for id in 1..3 {
                for own in 1..=4 {
                    let state = model.find(id, own).map(|at| model.held[at].state);
                    prop_assert_eq!(pool.state(message(id), index(own)), state);
                }
            }
            prop_assert_eq!(pool.usage().entries, model.open.len() as u64);
            let octets = model.held.iter().filter(|held| held.here).count() as u64 * 4;
            let announced = model.open.len() as u64 * (256 + 4 * 160 + 2);
            prop_assert_eq!(pool.usage().octets, octets + announced);
            prop_assert!(pool.poll_timeout().is_none_or(|next| next > at));
        }
        // Everything ends by itself, and nothing is left behind.
        pool.handle_timeout(start + ms(now + 600_000));
        pool.handle_timeout(start + ms(now + 600_000 + 3_600_000));
        prop_assert_eq!(pool.usage(), vmdt_pool::Usage::default());
        prop_assert_eq!(pool.poll_timeout(), None);
    }

    #[test]
    fn every_request_applied_twice_equals_once(ops in prop::collection::vec(any_op(), 1..60)) {
        let (mut pool, mut now) = (pool(), base());
        for op in &ops {
            if let Op::Wait { ms: wait } = op {
                now += ms(*wait);
            }
            apply(&mut pool, now, op);
            let mut twice = pool.clone();
            apply(&mut twice, now, op);
            prop_assert_eq!(drain(&mut twice), drain(&mut pool));
            prop_assert_eq!(format!("{twice:?}"), format!("{pool:?}"), "{:?}", op);
        }
    }

    #[test]
    fn no_member_ever_holds_enough_to_read_a_message(
        ops in prop::collection::vec(any_op(), 1..60),
    ) {
        let (mut pool, mut now) = (pool(), base());
        let mut seen: BTreeSet<(u8, u8)> = BTreeSet::new();
        for op in &ops {
            if let Op::Wait { ms: wait } = op {
                now += ms(*wait);
            }
            apply(&mut pool, now, op);
            for id in 1..3 {
                let Some(known) = pool.announcement(message(id)) else {
                    seen.retain(|(other, _)| *other != id);
                    continue;
                };
                seen.extend(known.placed_at(node("carol")).map(|own| (id, own.get())));
                let count = seen.iter().filter(|(other, _)| *other == id).count();
                prop_assert!(count < 3, "{count} shares of message {id}");
            }
        }
    }
}
