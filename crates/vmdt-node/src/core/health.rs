//! Health checks: whether the members answer, asked at an interval, with retries and a growing
//! pause where they do not.
//!
//! A check is this node's profile, sent again over the session, which is opened for it where there is
//! none. Any packet that comes back answers it.

use std::collections::BTreeMap;
use std::time::Instant;

use vmdt_pool::reputation::ReputationEvent;
use vmdt_wire::NodeId;

use super::Core;
use super::event::Event;

/// Checks that wait for an answer: the packets that had come by then.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    out: BTreeMap<NodeId, u64>,
}

impl Core {
    /// A member is there: it is checked from now on.
    pub(super) fn watch_health(&mut self, now: Instant, peer: NodeId) {
        if self.config.health_checks.is_some() && self.seal.is_some() && self.is_member(peer) {
            self.reputation.watch(now, peer);
        }
    }

    /// A member left.
    pub(super) fn unwatch_health(&mut self, peer: NodeId) {
        self.reputation.unwatch(peer);
        self.checks.out.remove(&peer);
    }

    pub(super) fn on_reputation(&mut self, now: Instant, event: ReputationEvent) {
        match event {
            ReputationEvent::Check { peer } => {
                let received = self
                    .rdt
                    .stats(peer)
                    .map_or(0, |stats| stats.packets_received);
                self.checks.out.insert(peer, received);
                self.send_profile(now, peer);
            }
            ReputationEvent::Up { peer } => self.event(Event::PeerUp { peer }),
            ReputationEvent::Down { peer } => {
                self.checks.out.remove(&peer);
                self.event(Event::PeerDown { peer });
            }
            ReputationEvent::Banned { peer, .. } => self.event(Event::Banned { peer }),
            _ => {}
        }
    }

    /// Looks which checks were answered.
    pub(super) fn look_for_answers(&mut self, now: Instant) {
        let answered: Vec<NodeId> = self
            .checks
            .out
            .iter()
            .filter(|(peer, before)| {
                let stats = self.rdt.stats(**peer);
                stats.is_some_and(|stats| stats.packets_received > **before)
            })
            .map(|(peer, _)| *peer)
            .collect();
        for peer in answered {
            self.checks.out.remove(&peer);
            self.reputation.answered(now, peer);
        }
    }
}
