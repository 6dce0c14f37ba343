//! Sending: asking the source for content, spreading its segments, moving shares when a carrier
//! is lost, and hearing that they arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::paths::Scheduler;
use vmdt_ssms::Threshold;
use vmdt_wire::{ErrorCode, Message, MessageId, MessageName, NodeId};

use super::config::MAX_WINDOW;
use super::envelope::Kind;
use super::event::TransferError;
use super::limits::SendOptions;
use super::links::Parcel;
use super::outgoing::{Outgoing, Plan, Problem, Source, Unplaced};
use super::peer::{Path, Turn};
use super::placement::{self, Carrier, Carriers, Placement, PlacementError};
use super::{Core, Event, Output};

/// Octets of shares that may be under way through the server: it buffers little for a receiver
/// that is slow, and refuses the rest.
const MAX_RELAYED: usize = 384 * 1024;
/// How long a share waits whose carrier had no room.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Segments that may be under way before the first is confirmed; one more for each confirmation,
/// up to the configured window.
const FIRST_WINDOW: usize = 8;
/// The end of a transfer has so many unconfirmed segments at least for which the direct path could
/// bring another share: with fewer, members have handed on what they hold before it is there.
const FINISHING: usize = 6;

/// A share that waits at its sender until somebody asks for it.
struct Frozen {
    number: u32,
    message: MessageId,
    index: NonZeroU8,
    octets: u64,
}

impl Core {
    /// Begins a transfer of octets or a file to a member. What it holds is asked for by
    /// [`Output::NeedData`].
    ///
    /// # Errors
    /// [`TransferError`] when it can't begin: nobody by that name in a common cluster, a cluster
    /// that is not ready, too many transfers at once, a placement that would break the privacy
    /// rule.
    pub fn send(
        &mut self,
        now: Instant,
        to: NodeId,
        kind: Kind,
        name: &str,
        total: Option<u64>,
    ) -> Result<MessageId, TransferError> {
        self.send_with(now, to, kind, name, total, SendOptions::new())
    }

    /// As [`send`](Self::send), with options.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_with(
        &mut self,
        now: Instant,
        to: NodeId,
        kind: Kind,
        name: &str,
        total: Option<u64>,
        options: SendOptions,
    ) -> Result<MessageId, TransferError> {
        if to == self.config.id {
            return Err(TransferError::ToSelf);
        }
        if self.outgoing.len() >= self.config.max_transfers {
            return Err(TransferError::TooMany {
                limit: self.config.max_transfers,
            });
        }
        if kind == Kind::Octets && total.is_some_and(|t| t > self.config.max_message as u64) {
            let limit = self.config.max_message as u64;
            return Err(TransferError::TooLarge {
                what: "a message",
                limit,
            });
        }
        let Some(cluster) = self.clusters_with(to).into_iter().next() else {
            return Err(TransferError::UnknownPeer { peer: to });
        };
        let Some((view, info)) = self
            .member
            .cluster(cluster)
            .and_then(|c| Some((c, c.info()?)))
        else {
            return Err(TransferError::UnknownPeer { peer: to });
        };
        if !view.state().is_active() {
            return Err(TransferError::ClusterNotReady {
                present: view.present(),
                needed: usize::from(info.n),
                cluster,
            });
        }
        let threshold = u8::try_from(info.k)
            .ok()
            .zip(u8::try_from(info.n).ok())
            .and_then(|(k, n)| Threshold::new(k, n).ok())
            .ok_or(TransferError::UnknownPeer { peer: to })?;
        let open = !to.is_sealed() && (self.seal.is_some() || !self.speaks_rdt(to));
        if to.is_sealed() && self.seal.is_none() {
            return Err(TransferError::Profile {
                peer: to,
                what: "it speaks profile 1.1 only, and this node 1.0 only",
            });
        }
        if open {
            self.check_open(to, cluster)?;
        }
        let id = self.new_message_id();
        let plan = Plan {
            id,
            cluster,
            to,
            group: None,
            kind,
            name: name.to_owned(),
            total,
            threshold,
            open,
        };
        let outgoing = Outgoing::new(now, plan, self.first_window(), options);
        if !open {
            // fail at once, not after the first octets were read
            let carriers = self.carriers_for(now, &outgoing);
            let placed = placement::spread(self.policy_of(&outgoing), &carriers);
            // what is kept may wait for its receiver
            if !self.is_away(&outgoing) {
                placed?;
            }
        }
        self.outgoing.insert(id, outgoing);
        self.keep_outgoing(now, id);
        self.pump_source(now, id);
        self.settle(now);
        Ok(id)
    }

    /// Segments of a transfer that may be under way at first.
    pub(super) fn first_window(&self) -> usize {
        FIRST_WINDOW.min(self.config.window)
    }

    /// Octets of a transfer's content, in order; `last` says that there are no more. An empty
    /// content is one empty supply with `last` set.
    pub fn supply(&mut self, now: Instant, transfer: MessageId, data: Bytes, last: bool) {
        let Some(out) = self.outgoing.get_mut(&transfer) else {
            return;
        };
        if out.source != Source::Asked {
            return;
        }
        out.moved = now;
        out.source = if last { Source::Ended } else { Source::Waiting };
        out.unplaced = Some(Unplaced { data, last });
        if out.open {
            self.send_open(now, transfer);
        } else {
            self.place(now, transfer);
            self.pump_source(now, transfer);
        }
        self.settle(now);
    }

    /// The content of a transfer can't be read any further.
    pub fn source_failed(&mut self, now: Instant, transfer: MessageId, why: &str) {
        self.fail_outgoing(now, transfer, TransferError::Local(why.to_owned()), true);
        self.settle(now);
    }

    /// Takes a transfer back.
    pub fn cancel(&mut self, now: Instant, transfer: MessageId) {
        let peer = self.config.id;
        self.fail_outgoing(now, transfer, TransferError::Cancelled { peer }, true);
        self.settle(now);
    }

    /// The paths of a transfer as they are now, with what waits on them.
    fn paths_for(&self, to: NodeId, carriers: &Carriers, octets: u64) -> Scheduler {
        let usual = self.usual_loss();
        let direct = carriers.direct.map(|_| Carrier::Direct);
        let members = carriers.members.iter().map(|c| Carrier::Member(c.id));
        let mut paths = Scheduler::new();
        for carrier in direct.into_iter().chain(members) {
            let mut path = self.lane(to, carrier, usual, octets);
            let peer = match carrier {
                Carrier::Member(id) => id,
                Carrier::Direct | Carrier::Server => to,
            };
            if self.is_suspect(peer) {
                path.rate = 0.0;
            }
            paths.update(carrier, path);
        }
        paths
    }

    /// Places the shares of the next segment, and says how many of them beyond k go on at once.
    fn place_next(
        &mut self,
        now: Instant,
        id: MessageId,
    ) -> Result<Option<(Placement, usize)>, PlacementError> {
        let Some(out) = self.outgoing.get(&id) else {
            return Ok(None);
        };
        let (to, small, octets) = (out.to, out.is_small(), out.next_share());
        let (k, n) = (out.threshold.k(), out.threshold.n());
        let policy = self.policy_of(out);
        let carriers = self.carriers_for(now, out);
        if out.group.is_some() {
            return self.place_group(now, id, policy, &carriers).map(Some);
        }
        if !small && !self.is_away(out) {
            let octets = octets as u64;
            let mut paths = self.paths_for(to, &carriers, octets);
            if let Some(placed) = placement::stripe(policy, &carriers, &mut paths, octets) {
                return Ok(Some((placed, 0)));
            }
        }
        let placed = placement::spread(policy, &carriers)?;
        let order: Vec<Carrier> = placed.iter().map(|(_, carrier)| carrier).collect();
        let more = if small && order.len() > usize::from(k) {
            self.redundancy(now, to, (k, n), &order, octets)
        } else {
            0
        };
        Ok(Some((placed, more)))
    }

    pub(super) fn pump_sources(&mut self, now: Instant) {
        let ids: Vec<MessageId> = self.outgoing.keys().copied().collect();
        for id in ids {
            self.place(now, id);
            self.pump_source(now, id);
        }
    }

    /// Asks for more content where the window has room.
    pub(super) fn pump_source(&mut self, _now: Instant, id: MessageId) {
        let max = self.segment_of(id);
        if !self.may_read(id) {
            return;
        }
        self.leave_with_holders(id);
        let Some(out) = self.outgoing.get(&id) else {
            return;
        };
        if out.source != Source::Waiting || out.unplaced.is_some() {
            return;
        }
        let (count, oldest) = self.under_way(out);
        let room = count < out.window && out.next.wrapping_sub(oldest) < MAX_WINDOW as u32;
        let ahead = room && self.is_ahead(out);
        if ahead {
            self.ahead.insert(id);
        } else if room && let Some(out) = self.outgoing.get_mut(&id) {
            out.source = Source::Asked;
            self.outputs
                .push_back(Output::NeedData { transfer: id, max });
        }
    }

    /// Asks for more content of the transfers whose paths had enough to send.
    pub(super) fn pump_ahead(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.ahead) {
            self.pump_source(now, id);
        }
    }

    /// Once all content is spread, the direct path is idle while members hand on what they have. It
    /// then takes frozen shares of what is left, one after the other, the last segment first: members
    /// come to it last, and are told that it is not needed any more. This is redundancy, and bounded
    /// as hedges are: by their fraction of the content.
    pub(super) fn finish_early(&mut self, now: Instant) {
        if self.config.hedging.fraction <= 0.0 {
            return;
        }
        let due = |(id, out): (&MessageId, &Outgoing)| Some((*id, self.next_to_finish(out)?));
        let due: Vec<_> = self.outgoing.iter().filter_map(due).collect();
        for (id, last) in due {
            let Some(out) = self.outgoing.get_mut(&id) else {
                continue;
            };
            out.finishing += last.octets;
            let to = out.to;
            self.stats.redundant_shares += 1;
            self.own_share_wanted(now, to, last.message, last.index);
        }
    }

    /// The next share that [`finish_early`](Self::finish_early) sends of a transfer.
    fn next_to_finish(&self, out: &Outgoing) -> Option<Frozen> {
        let all_spread = out.source == Source::Ended && out.unplaced.is_none();
        let bulk = out.sealed && out.group.is_none() && !out.is_small();
        if !all_spread || !bulk || out.in_flight.len() < FINISHING || !self.is_idle(out.to) {
            return None;
        }
        let frozen = |message: &MessageId| {
            let spread = self.spreads.get(message)?;
            let (index, _) = spread.placement.iter().find(|(index, carrier)| {
                *carrier == Carrier::Direct && !spread.active.contains(index)
            })?;
            Some(Frozen {
                number: spread.number,
                message: *message,
                index,
                octets: spread.shares.get(&index)?.len() as u64,
            })
        };
        let frozen: Vec<Frozen> = out.in_flight.iter().filter_map(frozen).collect();
        if frozen.len() < FINISHING {
            return None;
        }
        let last = frozen.into_iter().max_by_key(|frozen| frozen.number)?;
        let most = out.offset as f64 * self.config.hedging.fraction;
        ((out.finishing + last.octets) as f64 <= most).then_some(last)
    }

    /// Whether a path that is well has nothing more to send.
    fn is_idle(&self, to: NodeId) -> bool {
        let free = self.peers.get(&to).is_some_and(|peer| {
            peer.path == Path::Up && !peer.pulse.suspect && peer.queue.is_empty()
        });
        let sent = |stats: vmdt_rdt::PathStats| stats.queued as u64 <= stats.bytes_in_flight;
        free && self.rdt.stats(to).is_some_and(sent)
    }

    /// How many segments of a transfer take room in the window, and the first that somebody who is
    /// there waits for: a receiver keeps so many segments while an earlier one is missing, and no
    /// more. What lies at holders for receivers that are away takes no room; nor does, while content is
    /// read once more, what comes after the place that was reached: it may be waiting for that.
    fn under_way(&self, out: &Outgoing) -> (usize, u32) {
        let (mut count, mut oldest) = (0, out.next);
        for message in &out.in_flight {
            let (number, here, wanted) = match (self.spreads.get(message), self.left(*message)) {
                (Some(spread), _) => {
                    let wanted = !self.are_absent(&spread.awaited());
                    (spread.number, true, wanted)
                }
                (None, Some(left)) => (left.number, false, !self.are_absent(left.awaited())),
                (None, None) => (out.next, true, false),
            };
            count += usize::from((here || wanted) && number <= out.next);
            if wanted {
                oldest = oldest.min(number);
            }
        }
        (count, oldest)
    }

    /// Spreads what was read, if the rule allows it now; otherwise it is tried again.
    pub(super) fn place(&mut self, now: Instant, id: MessageId) {
        let Some(out) = self.outgoing.get(&id) else {
            return;
        };
        if out.unplaced.is_none() || out.open {
            return;
        }
        if self.pass_over(now, id) || !self.outgoing.contains_key(&id) {
            return;
        }
        if self.place_express(now, id) {
            return;
        }
        let Some(out) = self.outgoing.get(&id) else {
            return;
        };
        let retry_after = self.config.retry_after;
        let to = out.to;
        if out.sealed && out.seal.is_none() {
            let group = out.group.as_ref().map(super::group::OutGroup::receivers);
            let seal = self.seal.as_ref().and_then(|seal| match &group {
                None => seal.begin(now, to, id, &mut self.rng),
                Some(group) => seal.begin_group(now, group, id, &mut self.rng),
            });
            let known = seal.is_some();
            let expires = self.expires_at(id);
            let seal = seal.map(|seal| seal.expiring(expires));
            if let Some(out) = self.outgoing.get_mut(&id) {
                out.seal = seal;
                if let Some((of, group)) = out.group.as_mut().zip(group.as_ref()).filter(|_| known)
                {
                    out.to = of.fix(group).unwrap_or(out.to);
                }
                if !known {
                    out.last_problem = Some(Problem::NoProfile);
                }
            }
            if !known {
                match group {
                    None => self.want_profile(now, to),
                    Some(group) => self.want_profiles(now, &group),
                }
                return;
            }
        }
        if let Some(at) = self
            .outgoing
            .get_mut(&id)
            .and_then(|out| out.held_until(now))
        {
            self.limits.wait(at);
            return;
        }
        let (placement, more) = match self.place_next(now, id) {
            Ok(Some(placed)) => placed,
            Ok(None) => return,
            Err(problem) => {
                if let Some(out) = self.outgoing.get_mut(&id) {
                    out.last_problem = Some(Problem::Placement(problem));
                }
                return;
            }
        };
        let Some(out) = self.outgoing.get_mut(&id) else {
            return;
        };
        let identity = self.seal.as_ref().map(super::seal::Seal::identity);
        match out.spread(now, retry_after, placement, more, identity, &mut self.rng) {
            Ok(Some(mut spread)) => {
                out.last_problem = None;
                self.receipts.sent(&mut spread);
                let beyond = spread.active.len().saturating_sub(usize::from(spread.k));
                self.stats.redundant_shares += beyond as u64;
                for (index, carrier) in spread.placement.iter() {
                    if let Some(own) = spread.shares.get(&index)
                        && (carrier != Carrier::Direct
                            || spread.active.contains(&index) && spread.group.is_none())
                    {
                        out.carried(carrier, own.len());
                    }
                }
                if let (Some(group), Some(of)) = (&mut out.group, &spread.group) {
                    group.spread_out(now, of);
                    out.moved = now;
                }
                let message = spread.id;
                self.spreads.insert(message, spread);
                // who gets a share before it is told of it keeps it until then
                self.hand_out(now, message);
                self.announce(now, message);
            }
            Ok(None) => {}
            Err(error) => self.fail_outgoing(now, id, error, true),
        }
    }

    /// Tells the receiver about a message.
    fn announce(&mut self, now: Instant, message: MessageId) {
        self.keep_spread(message);
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        let (awaited, version) = (spread.awaited(), spread.version);
        let several = spread.group.is_some();
        let add = super::receive::add_line(&spread.announcement(self.config.id));
        for to in awaited {
            if several && self.is_absent(to) {
                // it is told when it is there
                continue;
            }
            // who holds a share as well may have been told with it
            if !several || self.peer(now, to).tell(message, version) {
                self.send_line(now, to, add.clone());
            }
        }
    }

    /// Hands the shares that are due to their carriers.
    pub(super) fn hand_out(&mut self, now: Instant, message: MessageId) {
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        let (to, k) = (spread.to, spread.k);
        let segment = Some((spread.transfer, spread.number));
        let out = self.outgoing.get(&spread.transfer);
        let priority = out.map_or_else(Default::default, |out| out.priority);
        let due: Vec<(Carrier, Parcel)> = spread
            .placement
            .iter()
            .filter_map(|(index, carrier)| {
                let own = spread.shares.get(&index)?;
                let due = match carrier {
                    Carrier::Member(_) => true,
                    // to each of several receivers by itself
                    Carrier::Direct if spread.group.is_some() => false,
                    Carrier::Direct | Carrier::Server => spread.active.contains(&index),
                };
                let due = due && !own.sent && own.not_before.is_none_or(|at| at <= now);
                due.then(|| {
                    let parts = vec![own.head.clone(), own.body.clone()];
                    (
                        carrier,
                        Parcel {
                            receiver: to,
                            message,
                            index,
                            k,
                            parts,
                            from_pool: false,
                            turn: match (own.urgent, spread.active.contains(&index)) {
                                (true, _) => Turn::Urgent,
                                (false, true) => Turn::Active,
                                (false, false) => Turn::Frozen,
                            },
                            priority,
                            segment,
                        },
                    )
                })
            })
            .collect();
        let mut untold = BTreeSet::new();
        self.hand_out_directly(now, message);
        for (carrier, parcel) in due {
            let index = parcel.index;
            let sent = match carrier {
                Carrier::Direct => self.send_share(now, to, parcel),
                Carrier::Server => {
                    let octets = parcel.octets();
                    let room = self.relayed == 0 || self.relayed + octets <= MAX_RELAYED;
                    let sent = room && self.relay_share(now, to, &parcel);
                    if sent && let Some(spread) = self.spreads.get_mut(&message) {
                        spread.relayed += octets;
                        self.relayed += octets;
                    }
                    sent
                }
                Carrier::Member(holder) => {
                    if !self.is_present(holder) {
                        continue;
                    }
                    untold.insert(holder);
                    self.receipts.given(message, index, holder);
                    self.send_share(now, holder, parcel)
                }
            };
            if let Some(own) = self
                .spreads
                .get_mut(&message)
                .and_then(|s| s.shares.get_mut(&index))
            {
                own.sent = sent;
            }
        }
        if let Some(spread) = self.spreads.get(&message).filter(|_| !untold.is_empty()) {
            let version = spread.version;
            let add = super::receive::add_line(&spread.announcement(self.config.id));
            for holder in untold {
                self.peer(now, holder).tell(message, version);
                self.send_line(now, holder, add.clone());
            }
        }
    }

    /// Tells holders of a message, unless they were told of this version.
    fn tell_holders(&mut self, now: Instant, message: MessageId, holders: BTreeSet<NodeId>) {
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        let version = spread.version;
        let add = super::receive::add_line(&spread.announcement(self.config.id));
        for holder in holders {
            if self.peer(now, holder).tell(message, version) {
                self.send_line(now, holder, add.clone());
            }
        }
    }

    /// Moves the shares of a carrier that was lost.
    pub(super) fn replace_carrier(&mut self, now: Instant, lost: NodeId) {
        let mut affected: Vec<(u32, MessageId)> = self
            .spreads
            .values()
            .filter(|s| {
                s.awaits(lost) || s.placement.iter().any(|(_, c)| c == Carrier::Member(lost))
            })
            .map(|s| (s.number, s.id))
            .collect();
        // the receiver waits for the first of them
        affected.sort_unstable();
        let mut outcome: BTreeMap<MessageId, (usize, usize)> = BTreeMap::new();
        for (_, message) in affected {
            let transfer = self.spreads.get(&message).map(|spread| spread.transfer);
            let (moved, left) = self.move_shares(now, message);
            if let Some(transfer) = transfer {
                let sum = outcome.entry(transfer).or_default();
                *sum = (sum.0 + moved, sum.1 + left);
            }
        }
        for (id, (moved, left)) in outcome {
            if moved > 0 {
                self.event(Event::Repaired { id, shares: moved });
            }
            if left > 0 {
                self.event(Event::Degraded { id, shares: left });
            }
        }
    }

    /// Moves the shares of a message whose carriers are gone, as far as the rule allows.
    fn move_shares(&mut self, now: Instant, message: MessageId) -> (usize, usize) {
        let Some(spread) = self.spreads.get(&message) else {
            return (0, 0);
        };
        let Some(out) = self.outgoing.get(&spread.transfer) else {
            return (0, 0);
        };
        let mut carriers = self.carriers_for(now, out);
        // what seems dead is left if there is another way, and not turned to
        carriers.members.retain(|c| !self.is_suspect(c.id));
        if spread.group.is_none() && self.is_suspect(spread.to) {
            carriers.direct = None;
        }
        let gone: Vec<NonZeroU8> = spread
            .placement
            .iter()
            .filter(|(_, carrier)| match carrier {
                Carrier::Direct => carriers.direct.is_none(),
                Carrier::Member(id) => {
                    !carriers.members.iter().any(|c| c.id == *id) && !self.in_grace(message, *id)
                }
                Carrier::Server => !carriers.server,
            })
            .map(|(index, _)| index)
            .collect();
        let lost = gone.len();
        let there = self.is_present(spread.to);
        let mut moved = Vec::new();
        if let Some(spread) = self.spreads.get_mut(&message) {
            // shares that had no place at first may have one now
            let homeless = spread
                .shares
                .keys()
                .copied()
                .filter(|i| spread.placement.carrier(*i).is_none());
            let candidates: Vec<NonZeroU8> = gone.into_iter().chain(homeless).collect();
            for index in candidates {
                let carriers = spread.may_carry(index, &carriers, there);
                if let Ok(carrier) = spread.placement.relocate(index, &carriers) {
                    spread.version = spread.version.saturating_add(1);
                    spread.relocated = true;
                    spread.active.insert(index);
                    if let Some(own) = spread.shares.get_mut(&index) {
                        own.sent = false;
                        own.urgent = true;
                        self.stats.moved_shares += 1;
                        moved.push((carrier, own.len()));
                    }
                }
            }
        }
        let count = (moved.len(), lost.saturating_sub(moved.len()));
        if moved.is_empty() {
            return count;
        }
        if let Some(out) = self
            .spreads
            .get(&message)
            .and_then(|s| self.outgoing.get_mut(&s.transfer))
        {
            for (carrier, octets) in moved {
                out.carried(carrier, octets);
            }
        }
        self.tell_moved(now, message);
        self.hand_out(now, message);
        self.announce(now, message);
        count
    }

    /// A holder would not take a share.
    pub(super) fn share_refused(&mut self, now: Instant, message: MessageId, index: NonZeroU8) {
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        let Some(out) = self.outgoing.get(&spread.transfer) else {
            return;
        };
        let mut carriers = self.carriers_for(now, out);
        if let Some(Carrier::Member(holder)) = spread.placement.carrier(index) {
            carriers.members.retain(|m| m.id != holder);
        }
        let there = self.is_present(spread.to);
        let Some(spread) = self.spreads.get_mut(&message) else {
            return;
        };
        let carriers = spread.may_carry(index, &carriers, there);
        let moved = spread.placement.relocate(index, &carriers).is_ok();
        spread.version = spread.version.saturating_add(u32::from(moved));
        spread.relocated |= moved;
        if let Some(own) = spread.shares.get_mut(&index) {
            own.sent = false;
            // it may have room later, if nobody else has now
            own.refusals = own.refusals.saturating_add(1);
            let pause = REFUSED_PAUSE * 2u32.pow(own.refusals.min(4));
            own.not_before = (!moved).then(|| now + pause);
        }
        if moved {
            self.tell_moved(now, message);
            self.announce(now, message);
            self.hand_out(now, message);
        }
    }

    /// A holder has no room for a message, or does not take it.
    pub(super) fn holder_refused(&mut self, now: Instant, holder: NodeId, message: MessageId) {
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        let transfer = spread.transfer;
        let at_holder: Vec<NonZeroU8> = spread
            .placement
            .iter()
            .filter(|(_, c)| *c == Carrier::Member(holder))
            .map(|(index, _)| index)
            .collect();
        if at_holder.is_empty() {
            return;
        }
        if let Some(out) = self.outgoing.get_mut(&transfer)
            && now >= out.shrunk + REFUSED_PAUSE
        {
            out.shrunk = now;
            out.window = (out.window / 2).max(2);
        }
        for index in at_holder {
            self.share_refused(now, message, index);
        }
    }

    /// The server passed something not on: the newest share it can have been is sent again.
    pub(super) fn relay_refused(&mut self, now: Instant, to: NodeId, index: u16) {
        let Some(index) = u8::try_from(index).ok().and_then(NonZeroU8::new) else {
            return;
        };
        let newest = self
            .outgoing
            .values()
            .filter(|o| o.to == to)
            .flat_map(|o| &o.in_flight)
            .filter_map(|m| self.spreads.get(m))
            .filter(|s| {
                s.placement.carrier(index) == Some(Carrier::Server)
                    && s.shares.get(&index).is_some_and(|own| own.sent)
            })
            .max_by_key(|s| s.number)
            .map(|s| s.id);
        let Some(spread) = newest.and_then(|m| self.spreads.get_mut(&m)) else {
            return;
        };
        if let Some(own) = spread.shares.get_mut(&index) {
            own.sent = false;
            own.not_before = Some(now + REFUSED_PAUSE);
            let octets = own.len().min(spread.relayed);
            spread.relayed -= octets;
            self.relayed = self.relayed.saturating_sub(octets);
        }
    }

    /// The receiver asks for a share that its sender still has, or for one to be sent again.
    pub(super) fn own_share_wanted(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
    ) {
        if self.wanted_by_one_of_several(now, from, message, index) {
            return;
        }
        let Some(spread) = self.spreads.get_mut(&message) else {
            return;
        };
        let wanted_here = matches!(
            spread.placement.carrier(index),
            Some(Carrier::Direct | Carrier::Server)
        );
        if !wanted_here {
            return;
        }
        let first = spread.active.insert(index);
        spread.version = spread.version.saturating_add(u32::from(first));
        let to = spread.to;
        let under_way = self
            .peers
            .get(&to)
            .is_some_and(|p| p.under_way(message, index).is_some());
        let (transfer, octets) = {
            let Some(spread) = self.spreads.get_mut(&message) else {
                return;
            };
            let Some(own) = spread.shares.get_mut(&index) else {
                return;
            };
            own.urgent = true;
            if !under_way {
                own.sent = false;
            }
            (spread.transfer, own.len())
        };
        if first && let Some(out) = self.outgoing.get_mut(&transfer) {
            out.carried(Carrier::Direct, octets);
        }
        self.hand_out(now, message);
    }

    /// The receiver has a message.
    pub(super) fn acknowledged(&mut self, now: Instant, from: NodeId, message: MessageId) {
        if self.spreads.get(&message).is_none_or(|s| !s.awaits(from)) {
            if self.express_acknowledged(now, from, message) {
                return;
            }
            if !self.left_acknowledged(now, from, message) {
                self.receiver_has(now, message, from);
            }
            return;
        }
        if self.has_one_of_several(now, from, message) {
            // others have not
            return;
        }
        self.confirmed(now, message);
    }

    /// All that are to get a message have it.
    pub(super) fn confirmed(&mut self, now: Instant, message: MessageId) {
        let Some(spread) = self.drop_spread(now, message) else {
            return;
        };
        let limit = self.config.window;
        self.kept_acknowledged(spread.transfer, spread.number, spread.octets);
        let Some(out) = self.outgoing.get_mut(&spread.transfer) else {
            return;
        };
        out.in_flight.remove(&message);
        out.delivered += spread.octets;
        out.window = (out.window + 1).min(limit);
        out.moved = now;
        let progress = out.progress();
        self.outputs.push_back(Output::Progress {
            transfer: spread.transfer,
            progress,
        });
        if spread.relayed > 0 {
            // the server has room for the next
            self.resend_unsent(now, spread.transfer);
        }
        self.pump_source(now, spread.transfer);
        self.finish_outgoing(now, spread.transfer);
    }

    pub(super) fn finish_outgoing(&mut self, now: Instant, id: MessageId) {
        self.note_reached(id);
        if self.outgoing.get(&id).is_some_and(Outgoing::is_done)
            && let Some(out) = self.outgoing.remove(&id)
        {
            self.express_ended(id);
            let result = out.end(now);
            self.forget_outgoing(now, id, out.to, result.as_ref().err());
            self.outputs.push_back(Output::Done {
                transfer: id,
                result,
            });
        }
    }

    /// Forgets a message: nothing more of it is sent, its holders drop it.
    pub(super) fn drop_spread(
        &mut self,
        now: Instant,
        message: MessageId,
    ) -> Option<super::Spread> {
        let spread = self.spreads.remove(&message)?;
        self.forget_spread(message);
        self.relayed = self.relayed.saturating_sub(spread.relayed);
        for (index, carrier) in spread.placement.iter() {
            match carrier {
                Carrier::Member(holder) => self.cancel_share(now, holder, message, index),
                Carrier::Direct => {
                    for to in spread.awaited() {
                        self.cancel_share(now, to, message, index);
                    }
                }
                Carrier::Server => {}
            }
        }
        for peer in spread.holders().into_iter().chain(spread.awaited()) {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.forget(message);
            }
        }
        for holder in spread.holders() {
            if self.is_present(holder) {
                let line = Message::SharePoolRemove {
                    message: MessageName::from(message),
                };
                self.send_line(now, holder, line);
            }
        }
        let placement = spread.placement.clone();
        self.explained.keep(spread.transfer, message, placement);
        Some(spread)
    }

    /// Ends a transfer that failed; `tell` the receiver where it does not know.
    pub(super) fn fail_outgoing(
        &mut self,
        now: Instant,
        id: MessageId,
        error: TransferError,
        tell: bool,
    ) {
        let Some(out) = self.outgoing.remove(&id) else {
            return;
        };
        for message in &out.in_flight {
            let _ = self.drop_spread(now, *message);
        }
        self.forget_open(id);
        self.express_ended(id);
        self.forget_outgoing(now, id, out.to, Some(&error));
        if tell && !out.open && out.next > 0 {
            let about = MessageName::from(id);
            let line = match &error {
                TransferError::Cancelled { .. } => Message::SharePoolRemove { message: about },
                // the receiver's user is to learn why
                error => Message::Error {
                    code: ErrorCode::Aborted,
                    text: error.to_string(),
                    about: Some(about),
                },
            };
            for to in out.awaited() {
                self.send_line(now, to, line.clone());
            }
        }
        self.outputs.push_back(Output::Done {
            transfer: id,
            result: Err(error),
        });
    }

    /// The receiver says that it can't take a transfer.
    pub(super) fn refused_by_receiver(
        &mut self,
        now: Instant,
        from: NodeId,
        transfer: MessageId,
        code: ErrorCode,
        text: String,
    ) {
        if self.outgoing.get(&transfer).is_some_and(|o| o.awaits(from)) {
            let error = TransferError::Remote {
                peer: from,
                code,
                text,
            };
            if self.fail_one_of_several(now, transfer, from, &error, false) {
                return;
            }
            self.fail_outgoing(now, transfer, error, false);
        }
    }

    pub(super) fn tick_outgoing(&mut self, now: Instant) {
        let ids: Vec<MessageId> = self.outgoing.keys().copied().collect();
        for id in ids {
            self.place(now, id);
            self.pump_source(now, id);
            self.tick_group(now, id);
            let Some(out) = self.outgoing.get_mut(&id) else {
                continue;
            };
            if out.source == Source::Asked && out.in_flight.is_empty() {
                // waiting for our own source is no stall
                out.moved = now;
            }
            let (moved, waited) = (out.moved, out.waited);
            let still = now.saturating_duration_since(moved);
            let may_wait = self.outgoing.get(&id).is_some_and(|out| self.may_wait(out));
            if let Some(out) = self.outgoing.get_mut(&id).filter(|_| may_wait) {
                out.waited = now;
            }
            let stalled = now.saturating_duration_since(moved.max(waited));
            if stalled >= self.config.stall_timeout && !may_wait {
                if self.take_back(now, id, None) {
                    continue;
                }
                let Some(out) = self.outgoing.get(&id) else {
                    continue;
                };
                let error = match out.last_problem {
                    Some(Problem::Placement(problem)) => TransferError::Placement(problem),
                    Some(Problem::NoProfile) => TransferError::Profile {
                        peer: out.to,
                        what: "its key is not known: neither the server nor the node itself has \
                               told it",
                    },
                    None => {
                        // of several receivers one that has not got it
                        let peer = out.awaited().first().copied().unwrap_or(out.to);
                        self.stalled(now, id, peer, Duration::from_secs(stalled.as_secs()))
                    }
                };
                self.fail_outgoing(now, id, error, true);
                continue;
            }
            if still >= self.config.retry_after
                && let Some(out) = self.outgoing.get(&id)
                && !self.is_away(out)
            {
                let late: Vec<MessageId> = out
                    .in_flight
                    .iter()
                    .copied()
                    .filter(|m| {
                        let due = |s: &super::Spread| s.retry_at <= now;
                        let spread = self.spreads.get(m).filter(|s| due(s));
                        // nobody who is away hears it
                        spread.is_some_and(|s| !self.are_absent(&s.awaited()))
                    })
                    .collect();
                for message in late {
                    self.retry(now, message);
                }
            }
            self.resend_unsent(now, id);
        }
    }

    /// Shares whose carrier had no room, or was away, are tried again.
    pub(super) fn resend_unsent(&mut self, now: Instant, id: MessageId) {
        let Some(out) = self.outgoing.get(&id) else {
            return;
        };
        let messages: Vec<MessageId> = out.in_flight.iter().copied().collect();
        for message in messages {
            self.hand_out(now, message);
        }
    }

    /// Nothing was confirmed for a while: everything that could help is set free.
    fn retry(&mut self, now: Instant, message: MessageId) {
        let Some(spread) = self.spreads.get_mut(&message) else {
            return;
        };
        spread.attempts += 1;
        let wait = self.config.retry_after * 2u32.saturating_pow(spread.attempts.min(2));
        spread.retry_at = now + wait;
        // who was to bring its share long ago is asked whether it has it still
        let again = spread.attempts > 1;
        let mut asked = Vec::new();
        spread.version = spread.version.saturating_add(1);
        for (index, carrier) in spread.placement.iter() {
            let frozen = spread.active.insert(index);
            if let Carrier::Member(holder) = carrier
                && (frozen || again)
            {
                asked.push((holder, index));
            }
        }
        self.announce(now, message);
        if again {
            asked.retain(|(holder, _)| self.is_present(*holder));
            let holders: BTreeSet<NodeId> = asked.iter().map(|(holder, _)| *holder).collect();
            self.tell_holders(now, message, holders);
        }
        for (holder, index) in asked {
            let line = Message::SharePoolUnfreeze {
                message: MessageName::from(message),
                index: index.get().into(),
            };
            self.send_line(now, holder, line);
        }
        let _ = self.move_shares(now, message);
        self.hand_out(now, message);
    }

    pub(super) fn stalled(
        &self,
        now: Instant,
        id: MessageId,
        peer: NodeId,
        after: Duration,
    ) -> TransferError {
        let Some(out) = self.outgoing.get(&id) else {
            return TransferError::Closed;
        };
        let carriers = self.carriers_for(now, out);
        let present = if self.is_present(peer) {
            "is present"
        } else {
            "is away"
        };
        let direct = if carriers.direct.is_some() && !self.path_is_down(peer) {
            "works or was not tried"
        } else {
            "does not work"
        };
        let server = if self.member.is_registered() {
            ""
        } else {
            "; the server can't be reached"
        };
        TransferError::Stalled {
            peer,
            after,
            detail: format!(
                "it {present} for the server, the direct path to it {direct}, {} other member(s) \
                 can be reached{server}",
                carriers.members.len()
            ),
        }
    }

    /// Warns that a peer of profile 1.0 takes part.
    pub(super) fn note_open_peer(&mut self, peer: NodeId) {
        self.event(Event::OpenPeer { peer });
    }
}
