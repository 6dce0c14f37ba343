//! One message to several receivers (`docs/protocol.md`, section 12.13): it is sealed and spread
//! once, and each receiver claims, confirms or fails for itself.
//!
//! At the sender a spread stays until everybody who is still to get it has confirmed it; at a
//! holder the pool keeps a lease and a state for each receiver. A receiver may hold a share for the
//! others: what it is given as a holder goes into its pool and, as the message is for it as well,
//! among what it collects.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::placement::{Carriers, Placement, PlacementError};
use vmdt_pool::policy::{OnUnmet, Policy};
use vmdt_ssms::Threshold;
use vmdt_wire::{ClusterId, ErrorCode, FlowId, Message, MessageId, MessageName, NodeId};

use super::durable::records::Fate;
use super::envelope::Kind;
use super::event::{GroupFailure, TransferError};
use super::limits::SendOptions;
use super::links::Parcel;
use super::outgoing::{Outgoing, Plan, Problem, Source};
use super::peer::{Turn, share_index};
use super::placement::{self, Carrier};
use super::send::REFUSED_PAUSE;
use super::{Core, Event, Output};

/// The most receivers of one message.
pub const MAX_RECEIVERS: usize = vmdt_seal::group::MAX_RECEIVERS;
/// Messages to groups whose holders are remembered until they are confirmed; beyond it the lowest
/// are forgotten, and their holders hear of it from the sender.
const MAX_NOTED: usize = 4096;
/// How often a receiver may come back without confirming anything and be waited for anew.
const MAX_RETURNS: u8 = 8;

/// What became of a transfer at one receiver.
#[derive(Debug)]
struct Standing {
    /// Messages that it was sent and has not confirmed.
    outstanding: usize,
    /// When it confirmed something, was sent something with nothing outstanding, or came back.
    moved: Instant,
    /// How often it came back since it confirmed something.
    returns: u8,
    /// Set when it has all of it, or when it failed.
    end: Option<Result<(), TransferError>>,
}

impl Standing {
    fn new(now: Instant) -> Standing {
        Standing {
            outstanding: 0,
            moved: now,
            returns: 0,
            end: None,
        }
    }
}

/// A transfer to several receivers.
#[derive(Debug)]
pub(crate) struct OutGroup {
    members: BTreeMap<NodeId, Standing>,
    /// Those whom it is sealed to, in order, once it is.
    sealed: Option<Arc<[NodeId]>>,
}

impl OutGroup {
    fn new(now: Instant, to: &BTreeSet<NodeId>) -> OutGroup {
        OutGroup {
            members: to.iter().map(|id| (*id, Standing::new(now))).collect(),
            sealed: None,
        }
    }

    /// As an earlier run left it; `None` if nobody is to get anything any more.
    pub(crate) fn restored(now: Instant, fates: &[(NodeId, Fate)]) -> Option<OutGroup> {
        let standing = |(id, fate): &(NodeId, Fate)| {
            let end = match fate {
                Fate::Open => None,
                Fate::Reached => Some(Ok(())),
                Fate::Failed(why) => Some(Err(TransferError::Earlier {
                    peer: *id,
                    why: why.clone(),
                })),
            };
            let standing = Standing::new(now);
            (*id, Standing { end, ..standing })
        };
        let members: BTreeMap<NodeId, Standing> = fates.iter().map(standing).collect();
        let open = members.values().any(|standing| standing.end.is_none());
        open.then_some(OutGroup {
            members,
            sealed: None,
        })
    }

    /// What became of it at each, to be kept.
    pub(crate) fn fates(&self) -> Vec<(NodeId, Fate)> {
        let fate = |(id, standing): (&NodeId, &Standing)| {
            let fate = match &standing.end {
                None => Fate::Open,
                Some(Ok(())) => Fate::Reached,
                Some(Err(TransferError::Earlier { why, .. })) => Fate::Failed(why.clone()),
                Some(Err(error)) => Fate::Failed(error.to_string()),
            };
            (*id, fate)
        };
        self.members.iter().map(fate).collect()
    }

    /// What was left for these at holders is sent anew.
    pub(crate) fn taken_back(&mut self, now: Instant, open: &[NodeId]) {
        for node in open {
            if let Some(standing) = self.members.get_mut(node) {
                standing.outstanding = standing.outstanding.saturating_sub(1);
                standing.moved = now;
            }
        }
    }

    /// A segment of an earlier run waits for a receiver at its holders.
    pub(crate) fn left_for(&mut self, node: NodeId) {
        if let Some(standing) = self.members.get_mut(&node) {
            standing.outstanding += 1;
        }
    }

    /// A receiver is there again: its silence counts anew, but not for ever.
    fn came(&mut self, now: Instant, node: NodeId) {
        if let Some(standing) = self.members.get_mut(&node)
            && standing.returns < MAX_RETURNS
        {
            standing.returns += 1;
            standing.moved = now;
        }
    }

    /// Whom it is, or is to be, sealed to.
    pub(crate) fn receivers(&self) -> Arc<[NodeId]> {
        match &self.sealed {
            Some(sealed) => Arc::clone(sealed),
            None => self.awaited().into(),
        }
    }

    /// It is sealed to these, the first of whom announcements name.
    pub(crate) fn fix(&mut self, receivers: &Arc<[NodeId]>) -> Option<NodeId> {
        self.sealed = Some(Arc::clone(receivers));
        receivers.first().copied()
    }

    pub(crate) fn awaits(&self, node: NodeId) -> bool {
        let standing = self.members.get(&node);
        standing.is_some_and(|standing| standing.end.is_none())
    }

    pub(crate) fn awaited(&self) -> Vec<NodeId> {
        let open = |(id, standing): (&NodeId, &Standing)| standing.end.is_none().then_some(*id);
        self.members.iter().filter_map(open).collect()
    }

    /// Those who have all of it.
    pub(crate) fn reached(&self) -> BTreeSet<NodeId> {
        let has = |standing: &Standing| matches!(standing.end, Some(Ok(())));
        let all = self.members.iter();
        all.filter(|(_, s)| has(s)).map(|(id, _)| *id).collect()
    }

    /// Whether a member may hold shares: the only receiver holds none for itself.
    pub(crate) fn may_hold(&self, node: NodeId) -> bool {
        self.members
            .get(&node)
            .is_none_or(|s| self.members.len() > 1 && !matches!(s.end, Some(Err(_))))
    }

    /// What a spread of its next segment begins with.
    pub(crate) fn spread(&self) -> GroupSpread {
        GroupSpread {
            receivers: self.receivers(),
            open: self.awaited().into_iter().collect(),
            given: BTreeSet::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// A segment was spread.
    pub(crate) fn spread_out(&mut self, now: Instant, spread: &GroupSpread) {
        for id in &spread.open {
            if let Some(standing) = self.members.get_mut(id) {
                if standing.outstanding == 0 {
                    standing.moved = now;
                }
                standing.outstanding += 1;
            }
        }
    }

    pub(crate) fn confirmed(&mut self, now: Instant, node: NodeId) {
        if let Some(standing) = self.members.get_mut(&node) {
            standing.outstanding = standing.outstanding.saturating_sub(1);
            standing.moved = now;
            standing.returns = 0;
        }
    }

    /// These are waited for, as they are away.
    fn waits_for(&mut self, now: Instant, waiting: &[NodeId]) {
        for node in waiting {
            if let Some(standing) = self.members.get_mut(node) {
                standing.moved = now;
            }
        }
    }

    /// Who has been silent for so long.
    fn silent(&self, now: Instant, after: Duration) -> Vec<(NodeId, Duration)> {
        self.members
            .iter()
            .filter(|(_, s)| s.end.is_none() && s.outstanding > 0)
            .map(|(id, s)| (*id, now.saturating_duration_since(s.moved)))
            .filter(|(_, still)| *still >= after)
            .collect()
    }

    /// Who did not get it, and why, if there is somebody.
    pub(crate) fn failure(&self) -> Option<GroupFailure> {
        let failed: Vec<(NodeId, TransferError)> = self
            .members
            .iter()
            .filter_map(|(id, s)| Some((*id, s.end.clone()?.err()?)))
            .collect();
        (!failed.is_empty()).then(|| GroupFailure {
            delivered: self.reached().into_iter().collect(),
            failed,
        })
    }
}

/// One message to several receivers, at its sender.
#[derive(Debug)]
pub(crate) struct GroupSpread {
    /// All whom the details name, in order.
    receivers: Arc<[NodeId]>,
    /// Those who are still to confirm it.
    pub(crate) open: BTreeSet<NodeId>,
    /// What went directly, and to whom.
    given: BTreeSet<(NonZeroU8, NodeId)>,
    /// What is to go directly because somebody asked for it.
    wanted: BTreeSet<(NonZeroU8, NodeId)>,
}

impl GroupSpread {
    pub(crate) fn receivers(&self) -> &[NodeId] {
        &self.receivers
    }

    /// All but the first, which an announcement names by itself.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        self.receivers.iter().skip(1).copied().collect()
    }

    /// A share that went directly did not arrive.
    pub(crate) fn not_given(&mut self, index: NonZeroU8, to: NodeId) {
        self.given.remove(&(index, to));
    }
}

impl Core {
    /// Begins a transfer of octets or a file to several members of one cluster, who all speak
    /// profile 1.1. It is sealed and spread once. Each receiver that has all of it is told of by
    /// [`Event::DeliveredTo`], each that fails by [`Event::NotDeliveredTo`]; the transfer ends
    /// when there is no other, well when all have it, else with [`TransferError::Group`]. Who is
    /// named twice counts once.
    ///
    /// The slowest receiver sets the pace, until it has confirmed nothing for the configured time
    /// and fails.
    ///
    /// # Errors
    /// [`TransferError`] when it can't begin: no receiver, this node among them, more than
    /// [`MAX_RECEIVERS`], no cluster that all are in, or one that is not ready, a peer of profile
    /// 1.0, too many transfers at once, a placement that would break the privacy rule.
    pub fn send_group(
        &mut self,
        now: Instant,
        to: &[NodeId],
        kind: Kind,
        name: &str,
        total: Option<u64>,
        options: SendOptions,
    ) -> Result<MessageId, TransferError> {
        let receivers: BTreeSet<NodeId> = to.iter().copied().collect();
        let (cluster, threshold) = self.check_group(&receivers, kind, total)?;
        let first = receivers
            .first()
            .copied()
            .ok_or(TransferError::EmptyGroup)?;
        let id = self.new_message_id();
        let plan = Plan {
            id,
            cluster,
            to: first,
            group: Some(OutGroup::new(now, &receivers)),
            kind,
            name: name.to_owned(),
            total,
            threshold,
            open: false,
        };
        let outgoing = Outgoing::new(now, plan, self.first_window(), options);
        let carriers = self.carriers_for(now, &outgoing);
        place(self.policy_of(&outgoing), &carriers)?;
        self.outgoing.insert(id, outgoing);
        self.keep_outgoing(now, id);
        self.pump_source(now, id);
        self.settle(now);
        Ok(id)
    }

    /// Whether a transfer to these may begin, in which cluster, and how it is shared.
    fn check_group(
        &self,
        receivers: &BTreeSet<NodeId>,
        kind: Kind,
        total: Option<u64>,
    ) -> Result<(ClusterId, Threshold), TransferError> {
        let first = receivers
            .first()
            .copied()
            .ok_or(TransferError::EmptyGroup)?;
        if receivers.len() > MAX_RECEIVERS {
            return Err(TransferError::TooManyReceivers {
                found: receivers.len(),
                limit: MAX_RECEIVERS,
            });
        }
        if receivers.contains(&self.config.id) {
            return Err(TransferError::ToSelf);
        }
        let limit = self.config.max_transfers;
        if self.outgoing.len() >= limit {
            return Err(TransferError::TooMany { limit });
        }
        let limit = self.config.max_message as u64;
        if kind == Kind::Octets && total.is_some_and(|t| t > limit) {
            let what = "a message";
            return Err(TransferError::TooLarge { what, limit });
        }
        for peer in receivers.iter().copied() {
            if self.clusters_with(peer).is_empty() {
                return Err(TransferError::UnknownPeer { peer });
            }
            if !peer.is_sealed() {
                return Err(TransferError::OpenPeer {
                    peer,
                    what: "it can't take messages to a group; send to it by itself",
                });
            }
        }
        if self.seal.is_none() {
            return Err(TransferError::Profile {
                peer: first,
                what: "it speaks profile 1.1 only, and this node 1.0 only",
            });
        }
        let all = |id: &ClusterId| {
            let view = self.member.cluster(*id);
            view.is_some_and(|c| receivers.iter().all(|peer| c.member(*peer).is_some()))
        };
        let cluster = self.clusters_with(first).into_iter().find(all);
        let cluster = cluster.ok_or(TransferError::NoCommonCluster)?;
        let found = self.member.cluster(cluster);
        let (view, info) = found
            .and_then(|c| Some((c, c.info()?)))
            .ok_or(TransferError::NoCommonCluster)?;
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
            .ok_or(TransferError::NoCommonCluster)?;
        Ok((cluster, threshold))
    }

    /// Places the shares of the next segment, and says how many of them beyond k go on at once: as
    /// many as it takes for the receiver that it takes most for.
    pub(super) fn place_group(
        &mut self,
        now: Instant,
        id: MessageId,
        policy: Policy,
        carriers: &Carriers,
    ) -> Result<(Placement, usize), PlacementError> {
        let placed = place(policy, carriers)?;
        let order: Vec<Carrier> = placed.iter().map(|(_, carrier)| carrier).collect();
        let Some(out) = self.outgoing.get(&id) else {
            return Ok((placed, 0));
        };
        let (k, n, octets) = (policy.k, policy.n, out.next_share());
        if !out.is_small() || order.len() <= usize::from(k) {
            return Ok((placed, 0));
        }
        let awaited = out.awaited();
        let more = awaited
            .into_iter()
            .map(|to| self.redundancy(now, to, (k, n), &order, octets))
            .max();
        Ok((placed, more.unwrap_or(0)))
    }

    /// Asks for the profiles that are missing.
    pub(super) fn want_profiles(&mut self, now: Instant, nodes: &[NodeId]) {
        for id in self.without_profile(now, nodes) {
            self.want_profile(now, id);
        }
    }

    fn without_profile(&self, now: Instant, nodes: &[NodeId]) -> Vec<NodeId> {
        let seal = self.seal.as_ref();
        seal.map(|seal| seal.unknown(now, nodes))
            .unwrap_or_default()
    }

    /// Sends each receiver the shares that this node brings itself and that are due.
    pub(super) fn hand_out_directly(&mut self, now: Instant, message: MessageId) {
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        let Some(group) = &spread.group else { return };
        let (transfer, k) = (spread.transfer, spread.k);
        let out = self.outgoing.get(&transfer);
        let priority = out.map_or_else(Default::default, |out| out.priority);
        let mut due: Vec<Parcel> = Vec::new();
        for (index, carrier) in spread.placement.iter() {
            let Some(own) = spread.shares.get(&index) else {
                continue;
            };
            if carrier != Carrier::Direct || own.not_before.is_some_and(|at| at > now) {
                continue;
            }
            for to in group.open.iter().copied().filter(|to| !self.is_absent(*to)) {
                let asked = group.wanted.contains(&(index, to));
                let given = group.given.contains(&(index, to));
                if !given && (asked || spread.active.contains(&index)) {
                    due.push(Parcel {
                        receiver: to,
                        message,
                        index,
                        k,
                        parts: vec![own.head.clone(), own.body.clone()],
                        from_pool: false,
                        turn: if asked || own.urgent {
                            Turn::Urgent
                        } else {
                            Turn::Active
                        },
                        priority,
                        segment: None,
                    });
                }
            }
        }
        for parcel in due {
            let (to, index, octets) = (parcel.receiver, parcel.index, parcel.octets());
            if !self.send_share(now, to, parcel) {
                continue;
            }
            let spread = self.spreads.get_mut(&message);
            if let Some(group) = spread.and_then(|spread| spread.group.as_mut()) {
                group.given.insert((index, to));
            }
            if let Some(out) = self.outgoing.get_mut(&transfer) {
                out.carried(Carrier::Direct, octets);
            }
        }
    }

    /// A receiver asks for a share of a message to several. Returns whether it is one.
    pub(super) fn wanted_by_one_of_several(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
    ) -> bool {
        let peer = self.peers.get(&from);
        let under_way = peer.is_some_and(|p| p.under_way(message, index).is_some());
        let Some(spread) = self.spreads.get_mut(&message) else {
            return false;
        };
        let Some(group) = &mut spread.group else {
            return false;
        };
        match spread.placement.carrier(index) {
            Some(Carrier::Direct) => {
                group.wanted.insert((index, from));
                if !under_way {
                    group.not_given(index, from);
                }
                self.hand_out_directly(now, message);
            }
            // it is to hold it for the others, and has not got it
            Some(Carrier::Member(holder)) if holder == from => {
                self.holder_lacks(now, from, message, index);
            }
            _ => {}
        }
        true
    }

    /// One of several receivers has a message. Returns whether others have not; what follows when
    /// all have is the caller's.
    pub(super) fn has_one_of_several(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
    ) -> bool {
        let Some(spread) = self.spreads.get_mut(&message) else {
            return false;
        };
        let (transfer, Some(group)) = (spread.transfer, &mut spread.group) else {
            return false;
        };
        group.open.remove(&from);
        let waits = !group.open.is_empty();
        self.keep_open(message);
        self.leave_alone(now, message, from);
        if let Some(out) = self.outgoing.get_mut(&transfer) {
            out.moved = now;
            if let Some(group) = &mut out.group {
                group.confirmed(now, from);
            }
        }
        if waits {
            self.note_reached(transfer);
        }
        waits
    }

    /// A receiver that has the message did not take a share that it is to hold for the others, as it
    /// was not told of that yet: it is given the share again.
    pub(super) fn holder_had_no_use(&mut self, now: Instant, holder: NodeId, flow: FlowId) {
        let Some((spread, index)) = self.spreads.get_mut(&flow.message).zip(share_index(flow))
        else {
            return;
        };
        if spread.group.is_some()
            && spread.placement.carrier(index) == Some(Carrier::Member(holder))
            && let Some(own) = spread.shares.get_mut(&index)
        {
            own.sent = false;
            own.not_before = Some(now + REFUSED_PAUSE);
        }
    }

    /// Sends a receiver nothing more of a message directly.
    fn leave_alone(&mut self, now: Instant, message: MessageId, to: NodeId) {
        let direct: Vec<NonZeroU8> = self
            .spreads
            .get(&message)
            .into_iter()
            .flat_map(|spread| spread.placement.iter())
            .filter(|(_, carrier)| *carrier == Carrier::Direct)
            .map(|(index, _)| index)
            .collect();
        for index in direct {
            self.cancel_share(now, to, message, index);
        }
    }

    /// Tells the application of the receivers that have all of a transfer now.
    pub(super) fn note_reached(&mut self, id: MessageId) {
        let Some(out) = self.outgoing.get_mut(&id) else {
            return;
        };
        let all_out = out.source == Source::Ended && out.unplaced.is_none();
        let Some(group) = out.group.as_mut().filter(|_| all_out) else {
            return;
        };
        let mut reached = Vec::new();
        for (to, standing) in &mut group.members {
            if standing.end.is_none() && standing.outstanding == 0 {
                standing.end = Some(Ok(()));
                reached.push(*to);
            }
        }
        if reached.is_empty() {
            return;
        }
        let progress = out.progress();
        self.outputs.push_back(Output::Progress {
            transfer: id,
            progress,
        });
        self.keep_fates(id);
        for to in reached {
            self.event(Event::DeliveredTo { id, to });
        }
    }

    /// One of several receivers will not have a transfer; the others may. Returns whether there
    /// are several.
    pub(super) fn fail_one_of_several(
        &mut self,
        now: Instant,
        id: MessageId,
        peer: NodeId,
        error: &TransferError,
        tell: bool,
    ) -> bool {
        let Some(out) = self.outgoing.get_mut(&id) else {
            return false;
        };
        let begun = out.next > 0;
        let Some(group) = &mut out.group else {
            return false;
        };
        if let Some(standing) = group.members.get_mut(&peer) {
            standing.end = Some(Err(error.clone()));
            standing.outstanding = 0;
        }
        // also where it is being read once more: nobody is left to read it for
        let over = group.awaited().is_empty();
        let failure = group.failure();
        self.keep_fates(id);
        if tell && begun {
            let line = Message::Error {
                code: ErrorCode::Aborted,
                text: error.to_string(),
                about: Some(MessageName::from(id)),
            };
            self.send_line(now, peer, line);
        }
        let error = error.clone();
        self.event(Event::NotDeliveredTo {
            id,
            to: peer,
            error,
        });
        if let Some(failure) = failure.filter(|_| over) {
            self.fail_outgoing(now, id, failure.into(), false);
            return true;
        }
        let waiting: Vec<MessageId> = self
            .outgoing
            .get(&id)
            .map(|out| out.in_flight.iter().copied().collect())
            .unwrap_or_default();
        for message in waiting {
            self.leave_alone(now, message, peer);
            let spread = self.spreads.get_mut(&message);
            if let Some(group) = spread.and_then(|spread| spread.group.as_mut())
                && group.open.remove(&peer)
                && group.open.is_empty()
            {
                // nobody else waits for it
                self.confirmed(now, message);
            } else {
                self.keep_open(message);
                self.left_acknowledged(now, peer, message);
            }
        }
        self.finish_outgoing(now, id);
        true
    }

    /// Gives up receivers that have confirmed nothing for too long, or that nothing can be sealed
    /// to.
    pub(super) fn tick_group(&mut self, now: Instant, id: MessageId) {
        let limit = self.config.stall_timeout;
        let Some(out) = self.outgoing.get(&id) else {
            return;
        };
        let mut waiting = out.awaited();
        waiting.retain(|peer| self.may_wait_for_receiver(out, *peer));
        if let Some(out) = self.outgoing.get_mut(&id)
            && let Some(group) = &mut out.group
        {
            // that is no silence of theirs
            group.waits_for(now, &waiting);
        }
        let Some(out) = self.outgoing.get(&id) else {
            return;
        };
        let Some(group) = &out.group else { return };
        let silent = group.silent(now, limit);
        if !silent.is_empty() && self.take_back(now, id, None) {
            return;
        }
        let Some(out) = self.outgoing.get(&id) else {
            return;
        };
        let Some(group) = &out.group else { return };
        let waits = now.saturating_duration_since(out.moved) >= limit / 3;
        let lacking = if out.last_problem == Some(Problem::NoProfile) && waits {
            self.without_profile(now, &group.awaited())
        } else {
            Vec::new()
        };
        for (peer, still) in silent {
            let after = Duration::from_secs(still.as_secs());
            let error = self.stalled(now, id, peer, after);
            self.fail_one_of_several(now, id, peer, &error, true);
        }
        for peer in lacking {
            let error = TransferError::Profile {
                peer,
                what: "its key is not known: neither the server nor the node itself has told it",
            };
            self.fail_one_of_several(now, id, peer, &error, false);
        }
    }

    /// A node is there: what it is to get as one of several it is told of anew.
    pub(super) fn receiver_came(&mut self, now: Instant, peer: NodeId) {
        let awaits = |out: &&mut Outgoing| out.awaits(peer);
        for out in self.outgoing.values_mut().filter(awaits) {
            if let Some(group) = &mut out.group {
                group.came(now, peer);
            }
        }
        let of_several = |s: &&super::Spread| s.group.is_some() && s.awaits(peer);
        let waiting = self.spreads.values().filter(of_several);
        let mut waiting: Vec<(u32, MessageId)> = waiting.map(|s| (s.number, s.id)).collect();
        // it takes them in order
        waiting.sort_unstable();
        for (_, message) in waiting {
            let Some(spread) = self.spreads.get(&message) else {
                continue;
            };
            let announcement = spread.announcement(self.config.id);
            if self.peer(now, peer).tell(message, announcement.version) {
                self.send_line(now, peer, super::receive::add_line(&announcement));
            }
            self.hand_out_directly(now, message);
        }
    }

    // ---- at holders and receivers

    /// Whether a flow brings a share that this node, which may have the message itself, is to hold
    /// for others.
    pub(super) fn holds_for_others(&self, flow: FlowId) -> bool {
        let Some((ann, index)) = self.pool.announcement(flow.message).zip(share_index(flow)) else {
            return false;
        };
        let placed = ann.placement(index);
        !ann.group.is_empty() && placed.is_some_and(|share| share.holder == self.config.id)
    }

    /// A share came of a message that this node holds a share of for others. If it is for this node
    /// as well, which an earlier run was told and this one was not, what is held says so.
    pub(super) fn expect_what_is_held(&mut self, now: Instant, message: MessageId) {
        if self.labels.contains_key(&message)
            || self.collector.is_ended(message)
            || self.later.holds(message)
        {
            return;
        }
        let known = self.pool.announcement(message);
        let own = known.filter(|ann| !ann.group.is_empty() && ann.is_receiver(self.config.id));
        if let Some(ann) = own.cloned() {
            self.on_announcement(now, ann.sender, ann);
        }
    }

    /// Holds for the other receivers a share that came for this one as well.
    pub(super) fn keep_for_others(
        &mut self,
        now: Instant,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
        octets: &Bytes,
    ) {
        let local = self.config.id;
        let placed = self.pool.announcement(message).is_some_and(|ann| {
            let here = ann.placement(index).is_some_and(|p| p.holder == local);
            ann.sender == from && here
        });
        if placed {
            self.store(now, from, message, index, octets.clone());
        }
    }

    /// A message is rebuilt here: its holders are to hear when it is confirmed, as its sender tells
    /// them only when all receivers have it.
    pub(super) fn note_group(&mut self, message: MessageId) {
        let local = self.config.id;
        let Some(ann) = self.collector.announcement(message) else {
            return;
        };
        if ann.group.is_empty() {
            return;
        }
        let others = |holder: &NodeId| *holder != local && *holder != ann.sender;
        let holders = ann.shares.iter().map(|share| share.holder).filter(others);
        self.group_holders.insert(message, holders.collect());
        while self.group_holders.len() > MAX_NOTED {
            self.group_holders.pop_first();
        }
    }

    /// A message is confirmed to its sender: so it is to those who hold shares of it for a group,
    /// this node included.
    pub(super) fn confirm_to_group(&mut self, now: Instant, message: MessageId) {
        let local = self.config.id;
        if self.pool.announcement(message).is_some() {
            // an owner of what is held here, or the message is not for several
            let _ = self.pool.ack(now, message, local);
        }
        for holder in self.group_holders.remove(&message).unwrap_or_default() {
            self.tell_have(now, holder, message);
        }
    }

    /// A share that this node is to hold has not come, and it or another receiver waits for it: its
    /// sender is asked, as nobody else has it.
    pub(super) fn own_share_late(&mut self, now: Instant, message: MessageId, index: NonZeroU8) {
        let known = self.pool.announcement(message);
        let Some(sender) = known.filter(|a| !a.group.is_empty()).map(|a| a.sender) else {
            return;
        };
        let local = self.config.id;
        let _ = self.pool.unfreeze(now, message, index, local);
        if let Ok(octets) = self.pool.claim(now, message, local, index) {
            // it is on disk since before this process began
            self.collect(now, sender, Carrier::Direct, message, index, octets);
            return;
        }
        let line = Message::SharePoolClaim {
            message: MessageName::from(message),
            claimer: local,
            index: index.get().into(),
        };
        self.send_line(now, sender, line);
    }
}

/// Places the shares of a message to several receivers: with members, receivers or not, as far as
/// the rule has room, since what they bring leaves the sender once; the rest stays with the
/// sender, who brings it to each receiver that asks, or to all where fewer than k have another
/// place.
fn place(policy: Policy, carriers: &Carriers) -> Result<Placement, PlacementError> {
    let members = Carriers {
        direct: None,
        server: false,
        ..carriers.clone()
    };
    let own = Carriers {
        members: Vec::new(),
        server: false,
        ..carriers.clone()
    };
    let direct = policy.allow_direct && carriers.direct.is_some() && carriers.sealed;
    let mut placed = match placement::spread(policy, &members) {
        Err(_) if direct && policy.min_distinct_networks == 0 => {
            let all = Policy {
                on_unmet: OnUnmet::Degrade,
                ..policy
            };
            let mut placed = Placement::choose(all, &own)?;
            for index in (1..=policy.n).filter_map(NonZeroU8::new) {
                // as far as there is room
                let _ = placed.relocate(index, &members);
            }
            return Ok(placed);
        }
        placed => placed?,
    };
    for index in (1..=policy.n).filter_map(NonZeroU8::new) {
        if direct && placed.carrier(index).is_none() {
            // the direct way of a sealed message has room for all
            let _ = placed.relocate(index, &own);
        }
    }
    Ok(placed)
}
