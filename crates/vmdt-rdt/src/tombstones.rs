//! A bounded memory of flows that have ended.

use std::collections::{BTreeMap, VecDeque};

use vmdt_wire::FlowId;

/// Remembers a value for each of the newest `capacity` flows that ended.
#[derive(Debug)]
pub(crate) struct Tombstones<T> {
    capacity: usize,
    by_id: BTreeMap<FlowId, (u64, T)>,
    /// In order of burial. An entry whose stamp is not the map's was removed or renewed.
    order: VecDeque<(u64, FlowId)>,
    stamp: u64,
}

impl<T> Tombstones<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            by_id: BTreeMap::new(),
            order: VecDeque::new(),
            stamp: 0,
        }
    }

    /// Remembers a flow, forgetting the oldest at the bound.
    pub(crate) fn bury(&mut self, id: FlowId, value: T) {
        self.stamp += 1;
        self.by_id.insert(id, (self.stamp, value));
        self.order.push_back((self.stamp, id));
        while self.order.len() > self.capacity {
            if let Some((stamp, oldest)) = self.order.pop_front()
                && self
                    .by_id
                    .get(&oldest)
                    .is_some_and(|entry| entry.0 == stamp)
            {
                self.by_id.remove(&oldest);
            }
        }
    }

    pub(crate) fn find(&self, id: &FlowId) -> Option<&T> {
        self.by_id.get(id).map(|entry| &entry.1)
    }

    pub(crate) fn find_mut(&mut self, id: &FlowId) -> Option<&mut T> {
        self.by_id.get_mut(id).map(|entry| &mut entry.1)
    }

    /// Forgets a flow.
    pub(crate) fn remove(&mut self, id: &FlowId) -> Option<T> {
        self.by_id.remove(id).map(|entry| entry.1)
    }
}

#[cfg(test)]
mod tests {
    use vmdt_wire::{MessageId, ShareIndex};

    use super::*;

    fn id(n: u16) -> FlowId {
        FlowId::new(MessageId::ZERO, ShareIndex::new(n).unwrap())
    }

    #[test]
    fn the_oldest_is_forgotten_at_the_bound() {
        let mut stones = Tombstones::new(3);
        for n in 1..=4 {
            stones.bury(id(n), n);
        }
        assert_eq!(stones.find(&id(1)), None);
        assert_eq!(stones.find(&id(2)), Some(&2));
        assert_eq!(stones.find(&id(4)), Some(&4));
    }

    #[test]
    fn burying_and_removing_the_same_flow_keeps_memory_bounded() {
        let mut stones = Tombstones::new(3);
        for n in 0..1000 {
            stones.bury(id(1), n);
            if n % 2 == 0 {
                stones.remove(&id(1));
            }
        }
        assert_eq!(stones.find(&id(1)), Some(&999));
        assert!(stones.order.len() <= 3 && stones.by_id.len() <= 3);
    }
}
