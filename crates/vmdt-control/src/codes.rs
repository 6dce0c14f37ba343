//! Code numbers: where two clients that share nothing but a spoken code meet once.
//!
//! The server gives out a small number, passes a few lines between the two that
//! name it, and forgets it. What is passed is an exchange of keys under a
//! password that the server does not know. A third client at a number voids it:
//! somebody guesses, and who guesses gets one try.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vmdt_wire::NodeId;
use vmdt_wire::control::MAX_CODE_NUMBER;

use crate::error::Refusal;

/// How long a number lives.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How long a side may be without a connection.
const GRACE: Duration = Duration::from_secs(30);

/// Numbers in all.
const MAX_NUMBERS: usize = 4_096;

/// Numbers that one client may have opened or joined.
const MAX_PER_CLIENT: usize = 4;

/// Lines passed at one number, in both directions together.
const MAX_PASSED: u32 = 64;

#[derive(Debug)]
struct Slot {
    opener: NodeId,
    joiner: Option<NodeId>,
    passed: u32,
    ends: Instant,
    /// When the number is void because a side has lost its connection.
    lost: Option<Instant>,
    opener_away: bool,
    joiner_away: bool,
}

impl Slot {
    fn deadline(&self) -> Instant {
        self.lost.map_or(self.ends, |lost| lost.min(self.ends))
    }

    fn other(&self, id: NodeId) -> Option<NodeId> {
        if id == self.opener {
            self.joiner
        } else {
            Some(self.opener)
        }
    }

    fn has(&self, id: NodeId) -> bool {
        id == self.opener || self.joiner == Some(id)
    }
}

/// The numbers in use.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    slots: BTreeMap<u16, Slot>,
    deadlines: BTreeSet<(Instant, u16)>,
    by_client: BTreeMap<NodeId, BTreeSet<u16>>,
}

/// Somebody who is to be told that a number is void.
pub(crate) type Told = (NodeId, u16);

impl Codes {
    /// CODE_OPEN: the lowest free number.
    pub(crate) fn open(&mut self, now: Instant, id: NodeId) -> Result<u16, Refusal> {
        self.may_have_another(id)?;
        if self.slots.len() >= MAX_NUMBERS {
            return Err(Refusal::TooManyNumbers { limit: MAX_NUMBERS });
        }
        let free = (1..=MAX_CODE_NUMBER).find(|number| !self.slots.contains_key(number));
        let number = free.ok_or(Refusal::TooManyNumbers { limit: MAX_NUMBERS })?;
        let ends = now + LIFETIME;
        let slot = Slot {
            opener: id,
            joiner: None,
            passed: 0,
            ends,
            lost: None,
            opener_away: false,
            joiner_away: false,
        };
        self.slots.insert(number, slot);
        self.deadlines.insert((ends, number));
        self.by_client.entry(id).or_default().insert(number);
        Ok(number)
    }

    /// CODE_JOIN. A second client voids the number: the refusal comes with who
    /// is to be told.
    pub(crate) fn join(&mut self, id: NodeId, number: u16) -> Result<(), (Refusal, Vec<Told>)> {
        let unknown = || (Refusal::UnknownNumber { number }, Vec::new());
        let slot = self.slots.get_mut(&number).ok_or_else(unknown)?;
        if id == slot.opener {
            return Err(unknown());
        }
        match slot.joiner {
            Some(joiner) if joiner == id => return Ok(()),
            Some(_) => {
                let told = self.remove(number);
                return Err((Refusal::UnknownNumber { number }, told));
            }
            None => {}
        }
        if let Err(refusal) = self.may_have_another(id) {
            return Err((refusal, Vec::new()));
        }
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.joiner = Some(id);
        }
        self.by_client.entry(id).or_default().insert(number);
        Ok(())
    }

    /// CODE_PASS: whom the data is for.
    pub(crate) fn pass(&mut self, id: NodeId, number: u16) -> Result<NodeId, Refusal> {
        let slot = self.own(id, number)?;
        let other = slot.other(id).ok_or(Refusal::NobodyThere { number })?;
        let away = match other == slot.opener {
            true => slot.opener_away,
            false => slot.joiner_away,
        };
        if away {
            return Err(Refusal::NobodyThere { number });
        }
        if slot.passed >= MAX_PASSED {
            return Err(Refusal::NumberUsedUp { limit: MAX_PASSED });
        }
        slot.passed += 1;
        Ok(other)
    }

    /// CODE_CLOSE: who else is to be told.
    pub(crate) fn close(&mut self, id: NodeId, number: u16) -> Result<Vec<Told>, Refusal> {
        self.own(id, number)?;
        let told = self.remove(number);
        Ok(told.into_iter().filter(|&(other, _)| other != id).collect())
    }

    /// The connection of `id` is gone.
    pub(crate) fn lost(&mut self, now: Instant, id: NodeId) {
        self.each(id, |slot, opener| {
            slot.lost.get_or_insert(now + GRACE);
            match opener {
                true => slot.opener_away = true,
                false => slot.joiner_away = true,
            }
        });
    }

    /// `id` has a connection again.
    pub(crate) fn back(&mut self, id: NodeId) {
        self.each(id, |slot, opener| {
            match opener {
                true => slot.opener_away = false,
                false => slot.joiner_away = false,
            }
            if !slot.opener_away && !slot.joiner_away {
                slot.lost = None;
            }
        });
    }

    /// Voids what has lived too long: who is to be told.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(&(at, number)) = self.deadlines.first() {
            if at > now {
                break;
            }
            told.extend(self.remove(number));
        }
        told
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    fn may_have_another(&self, id: NodeId) -> Result<(), Refusal> {
        match self.by_client.get(&id) {
            Some(own) if own.len() >= MAX_PER_CLIENT => Err(Refusal::TooManyNumbers {
                limit: MAX_PER_CLIENT,
            }),
            _ => Ok(()),
        }
    }

    fn own(&mut self, id: NodeId, number: u16) -> Result<&mut Slot, Refusal> {
        let slot = self.slots.get_mut(&number).filter(|slot| slot.has(id));
        slot.ok_or(Refusal::UnknownNumber { number })
    }

    /// Changes all numbers of `id`; the change is told whether `id` opened the
    /// number.
    fn each(&mut self, id: NodeId, change: impl Fn(&mut Slot, bool)) {
        let Some(own) = self.by_client.get(&id) else {
            return;
        };
        for &number in own {
            let Some(slot) = self.slots.get_mut(&number) else {
                continue;
            };
            self.deadlines.remove(&(slot.deadline(), number));
            let opener = slot.opener == id;
            change(slot, opener);
            self.deadlines.insert((slot.deadline(), number));
        }
    }

    fn remove(&mut self, number: u16) -> Vec<Told> {
        let Some(slot) = self.slots.remove(&number) else {
            return Vec::new();
        };
        self.deadlines.remove(&(slot.deadline(), number));
        let sides: Vec<NodeId> = [slot.opener].into_iter().chain(slot.joiner).collect();
        for id in &sides {
            if let Some(own) = self.by_client.get_mut(id) {
                own.remove(&number);
                if own.is_empty() {
                    self.by_client.remove(id);
                }
            }
        }
        sides.into_iter().map(|id| (id, number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::base;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn two_meet_and_lines_pass_both_ways() {
        let now = base();
        let mut codes = Codes::default();
        let (a, b) = (id("a"), id("b"));
        assert_eq!(codes.open(now, a), Ok(1));
        assert_eq!(codes.open(now, a), Ok(2));
        assert_eq!(codes.pass(a, 1), Err(Refusal::NobodyThere { number: 1 }));
        assert!(codes.join(b, 1).is_ok());
        assert!(
            codes.join(b, 1).is_ok(),
            "a repeated request changes nothing"
        );
        assert_eq!(codes.pass(a, 1), Ok(b));
        assert_eq!(codes.pass(b, 1), Ok(a));
        assert_eq!(codes.pass(b, 2), Err(Refusal::UnknownNumber { number: 2 }));
        assert_eq!(codes.close(b, 1), Ok(vec![(a, 1)]));
        assert_eq!(codes.pass(a, 1), Err(Refusal::UnknownNumber { number: 1 }));
        assert_eq!(codes.open(now, b), Ok(1), "the lowest free number");
    }

    #[test]
    fn a_third_client_voids_the_number() {
        let now = base();
        let mut codes = Codes::default();
        let (a, b, c) = (id("a"), id("b"), id("c"));
        codes.open(now, a).unwrap();
        codes.join(b, 1).unwrap();
        let (refusal, told) = codes.join(c, 1).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownNumber { number: 1 });
        assert_eq!(told, [(a, 1), (b, 1)]);
        assert_eq!(codes.len(), 0);
        assert!(codes.by_client.is_empty() && codes.deadlines.is_empty());
    }

    #[test]
    fn numbers_end_after_their_time_or_when_a_side_stays_away() {
        let start = base();
        let mut codes = Codes::default();
        let (a, b) = (id("a"), id("b"));
        codes.open(start, a).unwrap();
        codes.join(b, 1).unwrap();
        codes.lost(start, b);
        assert_eq!(codes.pass(a, 1), Err(Refusal::NobodyThere { number: 1 }));
        codes.back(b);
        assert_eq!(codes.pass(a, 1), Ok(b));
        assert!(codes.expire(start + GRACE).is_empty());
        codes.lost(start + GRACE, a);
        codes.lost(start + GRACE, b);
        codes.back(a);
        assert_eq!(codes.next_deadline(), Some(start + GRACE * 2));
        assert_eq!(codes.expire(start + GRACE * 2), [(a, 1), (b, 1)]);

        codes.open(start, a).unwrap();
        assert!(codes.expire(start + LIFETIME - GRACE).is_empty());
        assert_eq!(codes.expire(start + LIFETIME), [(a, 1)]);
        assert_eq!(codes.next_deadline(), None);
    }

    #[test]
    fn numbers_and_lines_are_bounded() {
        let now = base();
        let mut codes = Codes::default();
        for _ in 0..MAX_PER_CLIENT {
            codes.open(now, id("a")).unwrap();
        }
        let limit = MAX_PER_CLIENT;
        assert_eq!(
            codes.open(now, id("a")),
            Err(Refusal::TooManyNumbers { limit })
        );
        for client in 1..MAX_NUMBERS / MAX_PER_CLIENT {
            for _ in 0..MAX_PER_CLIENT {
                codes.open(now, id(&format!("c{client}"))).unwrap();
            }
        }
        let limit = MAX_NUMBERS;
        assert_eq!(
            codes.open(now, id("z")),
            Err(Refusal::TooManyNumbers { limit })
        );
        codes.join(id("z"), 1).unwrap();
        for _ in 0..MAX_PASSED {
            codes.pass(id("z"), 1).unwrap();
        }
        let limit = MAX_PASSED;
        assert_eq!(codes.pass(id("a"), 1), Err(Refusal::NumberUsedUp { limit }));
    }

    #[test]
    fn nobody_joins_an_unknown_or_their_own_number() {
        let mut codes = Codes::default();
        let number = codes.open(base(), id("a")).unwrap();
        for (client, number) in [("a", number), ("b", 77)] {
            let (refusal, told) = codes.join(id(client), number).unwrap_err();
            assert_eq!(refusal, Refusal::UnknownNumber { number });
            assert!(told.is_empty());
        }
    }
}
