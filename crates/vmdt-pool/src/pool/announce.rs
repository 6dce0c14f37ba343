//! Announcements at a holder: what is placed here, and what that makes of what came early.

use std::collections::BTreeSet;
use std::num::NonZeroU8;
use std::time::Instant;

use vmdt_wire::{MessageId, NodeId};

use super::{Pool, Timer};
use crate::announcement::{Announcement, Standing};
use crate::early::EarlyKey;
use crate::entry::{Entry, Slot};
use crate::error::AddError;
use crate::event::{Added, PoolEvent};
use crate::journal::Key;
use crate::state::Input;
use crate::timers::after;

impl Pool {
    /// Takes an announcement from `from`.
    ///
    /// The same announcement again is [`Added::Known`]. The sender may move shares: one that moves
    /// away is dropped here, one that moves here is awaited. A frozen share that is announced as
    /// active is unfrozen; an active one announced as frozen stays active. The time to live counts
    /// from the first announcement. The highest version says where shares are: what was overtaken is
    /// [`Added::Known`]. Announcements that are not numbered (version 0) have to be handed in in the
    /// order in which they were sent.
    ///
    /// # Errors
    ///
    /// `from` is not the sender, or not the one that announced the message first; the announcement
    /// contradicts itself or changes what is fixed; no share was ever placed here; the privacy rule
    /// (the distinct shares ever placed at this node would reach k while it is neither sender nor
    /// receiver); a bound. Nothing is changed then.
    pub fn add(
        &mut self,
        now: Instant,
        from: NodeId,
        announcement: &Announcement,
    ) -> Result<Added, AddError> {
        self.handle_timeout(now);
        let &Announcement {
            message, sender, ..
        } = announcement;
        if from != sender {
            return Err(AddError::NotSender { from, sender });
        }
        announcement.check()?;
        if let Some((owner, _)) = self.frame.tombstones.get(message) {
            if owner != sender {
                return Err(AddError::ForeignSender { message, from });
            }
            return Ok(Added::Finished);
        }
        let mut newer = announcement.sorted();
        self.activate_requested(&mut newer);
        if self.entries.contains_key(&message) {
            self.update(now, newer)
        } else {
            self.add_new(now, newer)
        }
    }

    /// Marks as active what its sender, or every receiver, unfroze before it was announced.
    fn activate_requested(&self, newer: &mut Announcement) {
        let asked = |by, index| {
            let requests = self.frame.requests.get(newer.message, by);
            requests.is_some_and(|asked| asked.unfreeze.contains(&index))
        };
        let wanted: BTreeSet<_> = newer
            .placed_at(self.config.local)
            .filter(|index| {
                asked(newer.sender, *index)
                    || newer.receivers().all(|receiver| asked(receiver, *index))
            })
            .collect();
        for share in &mut newer.shares {
            share.active |= wanted.contains(&share.index);
        }
    }

    /// Unfreezes what single receivers of a group asked for before it was placed here.
    fn unfreeze_requested(&mut self, now: Instant, message: MessageId) {
        let Some(entry) = self.entries.get(&message) else {
            return;
        };
        let asked: Vec<(NodeId, NonZeroU8)> = entry
            .announcement
            .receivers()
            .filter_map(|receiver| Some((receiver, self.frame.requests.get(message, receiver)?)))
            .flat_map(|(receiver, asked)| asked.unfreeze.iter().map(move |i| (receiver, *i)))
            .collect();
        for (receiver, index) in asked {
            let entry = self.entries.get_mut(&message);
            let found = entry.and_then(|entry| entry.unfreeze(index, Some(receiver)));
            for (receiver, effect) in found.map(|(_, effects)| effects).unwrap_or_default() {
                self.apply(now, message, index, receiver, effect);
            }
        }
    }

    fn add_new(&mut self, now: Instant, newer: Announcement) -> Result<Added, AddError> {
        let local = self.config.local;
        let &Announcement {
            message, sender, ..
        } = &newer;
        if newer.placed_at(local).next().is_none() {
            return Err(AddError::NotAHolder { local });
        }
        let ever = self.ever_with(BTreeSet::new(), &newer);
        self.check_privacy(&newer, &ever)?;
        let ended_by = |by, acked| {
            let requests = self.frame.requests.get(message, by);
            requests.is_some_and(|asked| asked.removed || acked && asked.acked)
        };
        let done: BTreeSet<NodeId> = newer
            .receivers()
            .filter(|receiver| ended_by(*receiver, true))
            .collect();
        if ended_by(sender, false) || newer.receivers().all(|receiver| done.contains(&receiver)) {
            let receivers = newer.receivers().collect();
            self.frame.bury(now, message, sender, receivers);
            return Ok(Added::Finished);
        }
        self.ledger.charge(sender, 1, newer.cost())?;
        let slots = newer
            .shares
            .iter()
            .filter(|share| share.holder == local)
            .map(|share| {
                let open = newer
                    .receivers()
                    .filter(|receiver| !done.contains(receiver));
                (share.index, Slot::new(share.active, open))
            })
            .collect();
        self.frame
            .timers
            .set(Timer::Entry(message), after(now, self.config.ttl));
        self.entries.insert(
            message,
            Entry {
                announcement: newer,
                slots,
                ever,
                done,
            },
        );
        self.frame.journal.mark(Key::Entry(message));
        self.unfreeze_requested(now, message);
        self.take_early(now, message);
        Ok(Added::New)
    }

    fn update(&mut self, now: Instant, mut newer: Announcement) -> Result<Added, AddError> {
        let local = self.config.local;
        let message = newer.message;
        let Some(entry) = self.entries.get(&message) else {
            return self.add_new(now, newer);
        };
        if entry.announcement.check_update(&newer)? == Standing::Stale {
            return Ok(Added::Known);
        }
        newer.keep_active(&entry.announcement);
        if newer == entry.announcement {
            return Ok(Added::Known);
        }
        let ever = self.ever_with(entry.ever.clone(), &newer);
        self.check_privacy(&newer, &ever)?;
        // An update lists at least what was listed before: it never costs less.
        let more = newer.cost().saturating_sub(entry.announcement.cost());
        self.ledger.charge(newer.sender, 0, more)?;

        let Some(entry) = self.entries.get_mut(&message) else {
            return Ok(Added::Known);
        };
        let mut effects = Vec::new();
        let mut freed = 0;
        entry.slots.retain(|&index, slot| {
            let stays = newer.find(index).is_some_and(|share| share.holder == local);
            if !stays {
                freed += slot.octets();
                for (receiver, _) in slot.deliveries() {
                    let timer = Timer::Share(message, index, receiver);
                    self.frame.timers.cancel(timer);
                }
                self.frame.journal.mark(Key::Share(message, index));
            }
            stays
        });
        let open = newer
            .receivers()
            .filter(|receiver| !entry.done.contains(receiver));
        let open: Vec<NodeId> = open.collect();
        for share in newer.shares.iter().filter(|share| share.holder == local) {
            let slot = entry
                .slots
                .entry(share.index)
                .or_insert_with(|| Slot::new(share.active, open.iter().copied()));
            if share.active {
                effects.push((share.index, slot.step_all(Input::Unfreeze)));
            }
        }
        self.ledger.refund(newer.sender, 0, freed);
        entry.ever = ever;
        entry.announcement = newer;
        self.frame.journal.mark(Key::Entry(message));
        for (index, effects) in effects {
            for (receiver, effect) in effects {
                self.apply(now, message, index, receiver, effect);
            }
        }
        self.unfreeze_requested(now, message);
        self.take_early(now, message);
        Ok(Added::Updated)
    }

    /// The shares of `newer` that are placed here or wait here, on top of `ever`.
    fn ever_with(
        &self,
        mut ever: BTreeSet<NonZeroU8>,
        newer: &Announcement,
    ) -> BTreeSet<NonZeroU8> {
        ever.extend(newer.placed_at(self.config.local));
        ever.extend(self.frame.early.indices_from(newer.message, newer.sender));
        ever
    }

    fn check_privacy(
        &self,
        announcement: &Announcement,
        ever: &BTreeSet<NonZeroU8>,
    ) -> Result<(), AddError> {
        let (would_hold, threshold) = (ever.len(), announcement.k);
        if would_hold >= usize::from(threshold) && !announcement.is_owner(self.config.local) {
            return Err(AddError::Privacy {
                would_hold,
                threshold,
            });
        }
        Ok(())
    }

    /// Moves what came early to where the announcement says it belongs.
    fn take_early(&mut self, now: Instant, message: MessageId) {
        let waiting: Vec<EarlyKey> = self.frame.early.keys(message).collect();
        for key in waiting {
            let (from, index, digest) = key;
            let Some(entry) = self.entries.get(&message) else {
                return;
            };
            let listed = entry.announcement.find(index);
            let settled = from != entry.announcement.sender
                || entry.slots.contains_key(&index)
                || listed.is_some_and(|share| share.digest != digest);
            // A share that is placed elsewhere may be on its way ahead of the announcement that
            // moves it here.
            if !settled {
                continue;
            }
            if let Some(share) = self.frame.early.take(message, key)
                && let Err(reason) = self.store(now, from, message, index, share, digest)
            {
                self.events.push_back(PoolEvent::Dropped {
                    message,
                    index,
                    from,
                    reason,
                });
            }
        }
    }
}
