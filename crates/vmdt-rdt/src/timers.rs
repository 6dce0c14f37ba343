//! The sessions' deadlines: a binary heap that knows where each entry stands, so that moving a
//! deadline allocates nothing.

use std::time::Instant;

const NOWHERE: u32 = u32::MAX;

/// At most one deadline for each slot.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(Instant, u32)>,
    /// Place in the heap by slot.
    places: Vec<u32>,
}

impl Timers {
    /// The earliest deadline and its slot; of equal ones that of the lowest slot.
    pub(crate) fn first(&self) -> Option<(Instant, u32)> {
        self.heap.first().copied()
    }

    /// The deadline of a slot.
    #[cfg(test)]
    fn get(&self, slot: u32) -> Option<Instant> {
        let place = *self.places.get(slot as usize)?;
        self.heap.get(place as usize).map(|entry| entry.0)
    }

    /// Sets or removes the deadline of a slot.
    pub(crate) fn set(&mut self, slot: u32, at: Option<Instant>) {
        if self.places.len() <= slot as usize {
            if at.is_none() {
                return;
            }
            self.places.resize(slot as usize + 1, NOWHERE);
        }
        let place = self.places.get(slot as usize).copied().unwrap_or(NOWHERE) as usize;
        match at {
            Some(at) => match self.heap.get_mut(place) {
                Some(entry) if entry.0 == at => {}
                Some(entry) => {
                    entry.0 = at;
                    self.settle(place);
                }
                None => {
                    self.heap.push((at, slot));
                    self.settle(self.heap.len() - 1);
                }
            },
            None if place < self.heap.len() => {
                self.heap.swap_remove(place);
                if let Some(entry) = self.places.get_mut(slot as usize) {
                    *entry = NOWHERE;
                }
                if place < self.heap.len() {
                    self.settle(place);
                }
            }
            None => {}
        }
    }

    fn entry(&self, place: usize) -> Option<(Instant, u32)> {
        self.heap.get(place).copied()
    }

    /// Writes down where an entry stands.
    #[allow(clippy::cast_possible_truncation)]
    fn note(&mut self, place: usize) {
        if let Some((_, slot)) = self.entry(place)
            && let Some(known) = self.places.get_mut(slot as usize)
        {
            // The sessions are bounded far below 2^32.
            *known = place as u32;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    /// Moves an entry to where it belongs.
    fn settle(&mut self, mut place: usize) {
        self.note(place);
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.entry(parent) <= self.entry(place) {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            if left >= self.heap.len() {
                break;
            }
            let right_is_less = right < self.heap.len() && self.entry(right) < self.entry(left);
            let child = if right_is_less { right } else { left };
            if self.entry(place) <= self.entry(child) {
                break;
            }
            self.swap(place, child);
            place = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(
            steps in proptest::collection::vec((0u32..40, proptest::option::of(0u64..50)), 1..400)
        ) {
            #[allow(clippy::disallowed_methods)]
            let base = Instant::now();
            let mut timers = Timers::default();
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for (slot, millis) in steps {
                let at = millis.map(|millis| base + Duration::from_millis(millis));
                timers.set(slot, at);
                match at {
                    Some(at) => model.insert(slot, at),
                    None => model.remove(&slot),
                };
                let first = model.iter().map(|(slot, at)| (*at, *slot)).min();
                prop_assert_eq!(timers.first(), first);
                for slot in 0..40 {
                    prop_assert_eq!(timers.get(slot), model.get(&slot).copied());
                }
            }
            while let Some((at, slot)) = timers.first() {
                prop_assert!(model.values().all(|other| *other >= at));
                model.remove(&slot);
                timers.set(slot, None);
            }
            prop_assert!(model.is_empty());
        }
    }
}
