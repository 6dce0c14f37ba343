//! Repair: shares whose holder is gone are made good at another one.
//!
//! A sender that is there does it alone: in its memory or source the content is, and it places the
//! same shares elsewhere, or seals the segment anew. While nobody waits for the shares, a holder that
//! has them on disk is given a grace period to come back. While the sender is away, holders remake
//! what is lost among themselves ([`remaking`](super::remaking)).

use std::collections::BTreeSet;
use std::time::Instant;

use vmdt_wire::{MessageId, NodeId};

use crate::core::Core;

impl Core {
    /// A member is away.
    pub(in crate::core) fn holder_away(&mut self, now: Instant, holder: NodeId) {
        if let Some(durable) = &mut self.durable {
            durable.watch.lost(now, holder);
        }
    }

    /// It is back.
    pub(super) fn holder_back(&mut self, holder: NodeId) {
        if let Some(durable) = &mut self.durable {
            durable.watch.back(holder);
            durable.gone.remove(&holder);
        }
    }

    /// Whether the shares of a message stay with a holder that is away: they are on its disk, nobody
    /// waits for them, and its grace is not over.
    pub(in crate::core) fn in_grace(&self, message: MessageId, holder: NodeId) -> bool {
        let Some(durable) = &self.durable else {
            return false;
        };
        let Some(kept) = durable.spreads.get(&message) else {
            return false;
        };
        kept.stored.values().any(|at| *at == holder)
            && !kept.record.awaited().iter().any(|to| self.is_present(*to))
            && !durable.gone.contains(&holder)
    }

    /// Makes good what holders had that have been away for too long.
    pub(super) fn repair(&mut self, now: Instant) {
        while let Some(holder) = self
            .durable
            .as_mut()
            .and_then(|durable| durable.watch.poll_gone(now))
        {
            let Some(durable) = &mut self.durable else {
                return;
            };
            durable.gone.insert(holder);
            let left: BTreeSet<MessageId> = durable
                .spreads
                .values()
                .filter(|kept| kept.left && kept.record.holders.contains(&holder))
                .map(|kept| kept.record.transfer)
                .collect();
            self.replace_carrier(now, holder);
            for transfer in left {
                // this process never had those shares: the segments are sealed anew
                let _ = self.take_back(now, transfer, Some(holder));
            }
        }
    }
}
