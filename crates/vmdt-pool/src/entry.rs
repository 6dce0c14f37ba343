//! One message at its holder.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vmdt_wire::NodeId;

use crate::announcement::Announcement;
use crate::state::{Effect, Input, ShareState, Stage};

/// One share on its way to one receiver.
#[derive(Clone)]
pub(crate) struct Delivery {
    stage: Stage,
    /// Releases and lapsed leases so far: they lengthen the next pause or lease.
    pub(crate) failures: u8,
    /// An offer is queued and not polled yet.
    pub(crate) offered: bool,
}

impl Delivery {
    fn new(active: bool) -> Self {
        Delivery {
            stage: Stage::new(active),
            failures: 0,
            offered: false,
        }
    }

    pub(crate) fn state(&self) -> ShareState {
        self.stage.state()
    }

    pub(crate) fn is_offerable(&self) -> bool {
        self.stage.is_offerable()
    }

    pub(crate) fn step(&mut self, input: Input) -> Effect {
        let (next, effect) = self.stage.step(input);
        self.stage = next;
        effect
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("state", &self.stage.state())
            .field("failures", &self.failures)
            .field("offered", &self.offered)
            .finish()
    }
}

/// One share that is placed here.
#[derive(Clone)]
pub(crate) struct Slot {
    share: Option<Bytes>,
    /// The octets are not on disk yet, and so not confirmed.
    pub(crate) pending: bool,
    /// By receiver; those that have acknowledged the message are left out.
    deliveries: BTreeMap<NodeId, Delivery>,
}

impl Slot {
    pub(crate) fn new(active: bool, receivers: impl IntoIterator<Item = NodeId>) -> Self {
        let deliveries = receivers
            .into_iter()
            .map(|receiver| (receiver, Delivery::new(active)));
        Slot {
            share: None,
            pending: false,
            deliveries: deliveries.collect(),
        }
    }

    pub(crate) fn share(&self) -> Option<&Bytes> {
        self.share.as_ref()
    }

    pub(crate) fn delivery(&self, receiver: NodeId) -> Option<&Delivery> {
        self.deliveries.get(&receiver)
    }

    pub(crate) fn delivery_mut(&mut self, receiver: NodeId) -> Option<&mut Delivery> {
        self.deliveries.get_mut(&receiver)
    }

    pub(crate) fn deliveries(&self) -> impl Iterator<Item = (NodeId, &Delivery)> + '_ {
        self.deliveries.iter().map(|(node, d)| (*node, d))
    }

    /// A receiver that wanted nothing more wants the share after all.
    pub(crate) fn admit(&mut self, receiver: NodeId, active: bool) -> Effect {
        let mut delivery = Delivery::new(active);
        let effect = match self.share {
            Some(_) => delivery.step(Input::Arrive),
            None => Effect::Nothing,
        };
        self.deliveries.insert(receiver, delivery);
        effect
    }

    /// The receiver wants nothing more.
    pub(crate) fn forget(&mut self, receiver: NodeId) {
        self.deliveries.remove(&receiver);
    }

    /// Whether some receiver's delivery is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        let mut all = self.deliveries.values();
        all.any(|delivery| delivery.state() == ShareState::Frozen)
    }

    pub(crate) fn step(&mut self, receiver: NodeId, input: Input) -> Effect {
        self.deliveries
            .get_mut(&receiver)
            .map_or(Effect::Nothing, |delivery| delivery.step(input))
    }

    /// The same for every receiver, in id order.
    pub(crate) fn step_all(&mut self, input: Input) -> Vec<(NodeId, Effect)> {
        self.deliveries
            .iter_mut()
            .map(|(receiver, delivery)| (*receiver, delivery.step(input)))
            .collect()
    }

    /// Keeps the octets; the caller has counted them.
    pub(crate) fn arrive(&mut self, share: Bytes) -> Vec<(NodeId, Effect)> {
        self.share = Some(share);
        self.step_all(Input::Arrive)
    }

    /// Gives the octets up, and says how many there were.
    pub(crate) fn vanish(&mut self) -> u64 {
        let octets = self.octets();
        self.share = None;
        self.pending = false;
        self.step_all(Input::Vanish);
        octets
    }

    pub(crate) fn octets(&self) -> u64 {
        self.share.as_ref().map_or(0, |share| share.len() as u64)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("octets", &self.share.as_ref().map(Bytes::len))
            .field("pending", &self.pending)
            .field("deliveries", &self.deliveries)
            .finish()
    }
}

/// A message some of whose shares are, or were, placed here.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Sorted; a share that was unfrozen for all receivers stands as active.
    pub(crate) announcement: Announcement,
    pub(crate) slots: BTreeMap<NonZeroU8, Slot>,
    /// Every share that was ever placed here or brought here: what the privacy rule counts.
    pub(crate) ever: BTreeSet<NonZeroU8>,
    /// The receivers that want nothing more.
    pub(crate) done: BTreeSet<NodeId>,
}

impl Entry {
    /// Everything the entry counts against the octet bounds.
    pub(crate) fn octets(&self) -> u64 {
        self.announcement.cost() + self.slots.values().map(Slot::octets).sum::<u64>()
    }

    /// Whether nobody wants anything more.
    pub(crate) fn is_done(&self) -> bool {
        let mut receivers = self.announcement.receivers();
        receivers.all(|receiver| self.done.contains(&receiver))
    }

    /// The share becomes active for one receiver, or for all. Returns who is to hear what, and
    /// whether it was frozen.
    pub(crate) fn unfreeze(
        &mut self,
        index: NonZeroU8,
        receiver: Option<NodeId>,
    ) -> Option<(bool, Vec<(NodeId, Effect)>)> {
        let slot = self.slots.get_mut(&index)?;
        let was_frozen = match receiver {
            Some(receiver) => slot
                .delivery(receiver)
                .is_some_and(|delivery| delivery.state() == ShareState::Frozen),
            None => slot.is_frozen(),
        };
        let effects = match receiver {
            Some(receiver) => vec![(receiver, slot.step(receiver, Input::Unfreeze))],
            None => slot.step_all(Input::Unfreeze),
        };
        if !slot.is_frozen()
            && let Some(listed) = self.announcement.find_mut(index)
        {
            listed.active = true;
        }
        Some((was_frozen, effects))
    }
}
