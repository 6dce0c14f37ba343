//! Repair without the sender: holders remake a lost share among themselves (`docs/protocol.md`,
//! section 12.15; [`vmdt_pool::repair::share`] has the mathematics and says what nobody learns).
//!
//! | part | who | does |
//! |---|---|---|
//! | lead | the present holder of the lowest index; the next one when nothing comes of it | finds a member that may have the share, and tells it who holds others |
//! | new holder | that member | asks k holders, adds up their parts, checks the digest, keeps the share and tells |
//! | helper | a holder | gives its masked part, if it finds itself that sender and holder are gone |
//!
//! Nothing of it outlives the process: whoever leads begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::Announcement;
use vmdt_pool::repair::share::{
    Helper, Holders, MAX_HELPERS, NewHolder, Plan, Remark, Seed, add, may_take,
};
use vmdt_rdt::Priority;
use vmdt_seal::announcement::SealedDetails;
use vmdt_ssms::v2::{self, Collector, Manifest};
use vmdt_wire::{Message, MessageId, MessageName, NodeId, Opaque};
use zeroize::Zeroizing;

use crate::core::event::Event;
use crate::core::links::Parcel;
use crate::core::peer::Turn;
use crate::core::{Core, seal};

/// How often a holder looks for lost shares.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often while it takes part in a repair.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// Messages that are looked at together.
const MAX_LOOKED_AT: usize = 512;
/// How long the first in line, and then each further one, waits for the one before it.
const STEP: Duration = Duration::from_secs(15);
/// Repairs that one look begins, and that one node leads without having heard of their end.
const MAX_BEGUN: usize = 4;
const MAX_LED: usize = 16;
/// How long one that leads waits before it turns to another member; doubled each time.
const LEAD_AGAIN: Duration = Duration::from_secs(300);
/// Lost shares that are remembered as led, or as remade elsewhere.
const MAX_REMEMBERED: usize = 4096;
/// Shares that a node takes at once.
const MAX_TAKEN: usize = 4;
/// How long a new holder waits for the parts of a set of helpers, and how many sets it tries.
const SET_TIME: Duration = Duration::from_secs(20);
const MAX_SETS: u32 = 12;
/// Repairs that a node helps with at once, for all and for one new holder, and for how long.
const MAX_HELPED: usize = 16;
const MAX_HELPED_ONE: usize = 4;
const HELP_TIME: Duration = Duration::from_secs(30);
/// Parts that a node makes between two looks.
const MAX_PARTS: u32 = 32;
/// Seeds that came before the new holder's word, in all and of one helper.
const MAX_SEEDS: usize = 256;
const MAX_SEEDS_OF_ONE: usize = 16;
/// Announcements of other holders that wait for their word, one of each.
const MAX_TOLD: usize = 16;

type Lost = (MessageId, NonZeroU8);

/// A repair that this node leads.
struct Lead {
    to: NodeId,
    tries: u32,
    again: Instant,
}

/// A share that this node is to have.
struct Taking {
    announcement: Announcement,
    manifest: Manifest,
    holders: Holders,
    /// How often a share was in a set from which nothing came.
    failed: BTreeMap<NonZeroU8, u32>,
    sets: u32,
    attempt: Option<(Plan, NewHolder)>,
    until: Instant,
    /// It is made and about to be on disk.
    made: bool,
}

/// A repair that this node helps with.
struct Helping {
    helper: Helper,
    until: Instant,
}

/// The repairs that a node takes part in.
#[derive(Default)]
pub(super) struct Remaking {
    look_at: Option<Instant>,
    after: Option<MessageId>,
    /// Since when members are gone for good.
    since: BTreeMap<NodeId, Instant>,
    led: BTreeMap<Lost, Lead>,
    moved: BTreeMap<Lost, NodeId>,
    taking: BTreeMap<Lost, Taking>,
    helping: BTreeMap<(MessageId, NodeId), Helping>,
    /// Repairs that this node began to help with since it looked last.
    parts: u32,
    seeds: BTreeMap<(MessageId, NodeId), (Seed, Instant)>,
    told: BTreeMap<NodeId, Announcement>,
    /// Messages that the application was told of.
    degraded: BTreeSet<MessageId>,
}

impl Remaking {
    pub(super) fn new(now: Instant) -> Remaking {
        Remaking {
            look_at: Some(now + LOOK_EVERY),
            ..Remaking::default()
        }
    }

    fn is_busy(&self) -> bool {
        !(self.taking.is_empty() && self.helping.is_empty() && self.seeds.is_empty())
    }
}

impl Core {
    /// When lost shares are looked for next.
    pub(super) fn remaking_at(&self) -> Option<Instant> {
        let remaking = &self.durable.as_ref()?.remaking;
        let idle = self.seal.is_none() || self.pool.usage().entries == 0 && !remaking.is_busy();
        remaking.look_at.filter(|_| !idle)
    }

    /// Looks for lost shares, and at repairs that take too long.
    pub(super) fn look_for_lost(&mut self, now: Instant) {
        if self.remaking_at().is_none_or(|at| at > now) {
            return;
        }
        self.end_late(now);
        if self.member.is_registered() {
            self.lead(now);
        }
        self.look_again(now);
    }

    /// Sets when to look next.
    fn look_again(&mut self, now: Instant) {
        if let Some(durable) = &mut self.durable {
            let soon = durable.remaking.is_busy();
            let every = if soon { LOOK_SOON } else { LOOK_EVERY };
            durable.remaking.look_at = Some(now + every);
        }
    }

    /// Whether a member has been away for longer than the grace period, as this node sees it.
    fn is_gone(&mut self, now: Instant, member: NodeId) -> bool {
        let there = member == self.config.id || self.is_present(member);
        let Some(durable) = &mut self.durable else {
            return false;
        };
        if there {
            durable.remaking.since.remove(&member);
            return false;
        }
        if durable.gone.contains(&member) {
            durable.remaking.since.entry(member).or_insert(now);
            return true;
        }
        // it may have been away already when this process began
        durable.watch.lost(now, member);
        false
    }

    // ---- the sender's part

    /// The server is lost: holders may remake shares of this node's messages until it is back, and
    /// from then on it gives members only what they may have as well.
    pub(in crate::core) fn lost_sight(&mut self) {
        let local = self.config.id;
        let sealed = self
            .spreads
            .values()
            .filter(|spread| !spread.details.is_empty());
        let unseen: Vec<_> = sealed
            .filter(|spread| spread.unseen.is_none())
            .map(|spread| {
                let mut ann = spread.announcement(local);
                // as holders know it that help: shares became active at the most
                ann.version = if spread.relocated { 2 } else { 1 };
                (ann, !self.is_present(spread.to))
            })
            .collect();
        for (ann, away) in unseen {
            if let Some(spread) = self.spreads.get_mut(&ann.message) {
                spread.unseen = Some((Box::new(ann), away));
            }
        }
    }

    /// All holders of a message whose shares were moved are to know of it, each once: who does not
    /// would let a member have more than it may.
    pub(in crate::core) fn tell_moved(&mut self, now: Instant, message: MessageId) {
        let Some(spread) = self.spreads.get(&message) else {
            return;
        };
        let version = spread.version;
        if !spread.relocated || spread.details.is_empty() {
            return;
        }
        let add = crate::core::receive::add_line(&spread.announcement(self.config.id));
        for holder in spread.holders() {
            if self.is_present(holder) && self.peer(now, holder).tell(message, version) {
                self.send_line(now, holder, add.clone());
            }
        }
    }

    // ---- lead

    /// Finds lost shares, and members that may have them.
    fn lead(&mut self, now: Instant) {
        let Some(durable) = &self.durable else { return };
        let after = durable.remaking.after;
        let looked: Vec<MessageId> = self
            .pool
            .messages()
            .map(|ann| ann.message)
            .filter(|message| after.is_none_or(|after| *message > after))
            .take(MAX_LOOKED_AT)
            .collect();
        let more = looked.len() == MAX_LOOKED_AT;
        let last = looked.last().copied().filter(|_| more);
        let mut begun = 0;
        for message in looked {
            begun += self.lead_message(now, message, MAX_BEGUN.saturating_sub(begun));
        }
        if let Some(durable) = &mut self.durable {
            durable.remaking.after = last;
        }
    }

    /// Looks at one message, and begins at most so many repairs. Returns how many.
    fn lead_message(&mut self, now: Instant, message: MessageId, most: usize) -> usize {
        let Some(ann) = self.pool.announcement(message) else {
            return 0;
        };
        // who knows of it from another holder alone can't help
        if ann.version == 0 || ann.details.is_empty() || !ann.group.is_empty() {
            return 0;
        }
        let (sender, receiver, k) = (ann.sender, ann.receiver, usize::from(ann.k));
        let holders: Holders = ann.shares.iter().map(|s| (s.index, s.holder)).collect();
        // a sender that is there moves shares itself, and a receiver that is there has them
        let alone = self.is_gone(now, sender) && !self.is_present(receiver);
        let mut live: Holders = Vec::new();
        let mut lost: Holders = Vec::new();
        for (index, holder) in holders.into_iter().filter(|(_, holder)| *holder != sender) {
            if holder == self.config.id || self.is_present(holder) {
                live.push((index, holder));
            } else if self.is_gone(now, holder) {
                lost.push((index, holder));
            }
        }
        lost.retain(|(index, _)| !self.is_elsewhere((message, *index)));
        if !alone || lost.is_empty() {
            return 0;
        }
        live.truncate(MAX_HELPERS);
        let mut nodes: Vec<NodeId> = Vec::new();
        for (_, node) in &live {
            if !nodes.contains(node) {
                nodes.push(*node);
            }
        }
        let Some(rank) = nodes.iter().position(|node| *node == self.config.id) else {
            return 0;
        };
        if live.len() < k || nodes.len() < 2 {
            self.tell_degraded(message, lost.len());
            return 0;
        }
        let wait = STEP.saturating_mul(u32::try_from(rank + 1).unwrap_or(u32::MAX));
        let mut begun = 0;
        for (index, holder) in lost {
            let since = self
                .durable
                .as_ref()
                .and_then(|durable| durable.remaking.since.get(&holder).copied());
            if begun >= most || since.is_none_or(|since| since + wait > now) {
                continue;
            }
            begun += usize::from(self.lead_share(now, (message, index), &live));
        }
        begun
    }

    /// Whether a share is known to have been remade at a member that is there.
    fn is_elsewhere(&self, lost: Lost) -> bool {
        let durable = self.durable.as_ref();
        let moved = durable.and_then(|durable| durable.remaking.moved.get(&lost));
        let here = self.pool.share(lost.0, lost.1).is_some();
        here || moved.is_some_and(|node| self.is_present(*node))
    }

    fn tell_degraded(&mut self, message: MessageId, shares: usize) {
        let id = self.pool.announcement(message).map(|ann| ann.label.parse());
        if let Some(Ok(id)) = id
            && let Some(durable) = &mut self.durable
            && durable.remaking.degraded.insert(message)
        {
            while durable.remaking.degraded.len() > MAX_REMEMBERED {
                durable.remaking.degraded.pop_first();
            }
            self.event(Event::Degraded { id, shares });
        }
    }

    /// Tells a member that may have a lost share to take it. Returns whether it did.
    fn lead_share(&mut self, now: Instant, lost: Lost, live: &Holders) -> bool {
        let (message, index) = lost;
        let Some((durable, ann)) = self.durable.as_ref().zip(self.pool.announcement(message))
        else {
            return false;
        };
        let known = durable.remaking.led.get(&lost);
        let led = &durable.remaking.led;
        let waiting = led.values().filter(|lead| lead.again > now);
        if known.is_some_and(|lead| lead.again > now && self.is_here(lead.to))
            || known.is_none() && (waiting.count() >= MAX_LED || led.len() >= MAX_REMEMBERED)
        {
            return false;
        }
        let tries = known.map_or(0, |lead| lead.tries);
        let others = self
            .member
            .roster()
            .filter(|(_, c)| c.member(ann.sender).is_some());
        let members: BTreeSet<NodeId> = others
            .flat_map(|(_, c)| c.members().filter(|(_, m)| m.present).map(|(id, _)| id))
            .chain([self.config.id])
            .filter(|id| id.is_sealed() && may_take(ann, *id, index))
            .filter(|id| !self.reputation.is_banned(now, *id))
            .collect();
        // who has fewer first
        let mut members: Vec<(usize, NodeId)> = members
            .into_iter()
            .map(|id| (ann.placed_at(id).count(), id))
            .collect();
        members.sort_unstable();
        let at = usize::try_from(tries).unwrap_or(0) % members.len().max(1);
        let Some((_, to)) = members.get(at).copied() else {
            self.tell_degraded(message, 1);
            return false;
        };
        let add = crate::core::receive::add_line(ann);
        let again = now + LEAD_AGAIN.saturating_mul(1 << tries.min(8));
        let tries = tries.saturating_add(1);
        if let Some(durable) = &mut self.durable {
            durable.remaking.led.insert(lost, Lead { to, tries, again });
        }
        let holders = live.clone();
        let remark = Remark::Take {
            message,
            index,
            holders,
        };
        if to != self.config.id {
            self.send_line(now, to, add);
        }
        self.remark(now, to, &remark);
        true
    }

    fn is_here(&self, node: NodeId) -> bool {
        node == self.config.id || self.is_present(node)
    }

    /// A holder speaks of a share of a message that this node holds shares of for somebody else: it
    /// was remade there. Returns whether it is of such a message.
    pub(in crate::core) fn note_remade(
        &mut self,
        from: NodeId,
        message: MessageId,
        index: NonZeroU8,
    ) -> bool {
        let Some(ann) = self.pool.announcement(message) else {
            return false;
        };
        let (allowed, id) = (may_take(ann, from, index), ann.label.parse());
        if let Some(durable) = self.durable.as_mut().filter(|_| allowed) {
            let remaking = &mut durable.remaking;
            let lost = (message, index);
            remaking.moved.insert(lost, from);
            while remaking.moved.len() > MAX_REMEMBERED {
                remaking.moved.pop_first();
            }
            if remaking.led.remove(&lost).is_some()
                && let Ok(id) = id
            {
                self.event(Event::Repaired { id, shares: 1 });
            }
        }
        true
    }

    // ---- what is said

    fn remark(&mut self, now: Instant, to: NodeId, remark: &Remark) {
        if to == self.config.id {
            return self.on_remark(now, to, remark.clone());
        }
        let repair = Opaque(remark.octets());
        self.send_line(now, to, Message::ShareRepair { repair });
    }

    /// A node says something about a repair.
    pub(in crate::core) fn on_repair(&mut self, now: Instant, from: NodeId, octets: &[u8]) {
        match Remark::parse(from, octets) {
            Ok(remark) if self.seal.is_some() && self.is_member(from) => {
                if self.durable.is_some() {
                    self.on_remark(now, from, remark);
                }
            }
            _ => self.stats.bad_lines += 1,
        }
    }

    fn on_remark(&mut self, now: Instant, from: NodeId, remark: Remark) {
        match remark {
            Remark::Take {
                message,
                index,
                holders,
            } => self.take_lost(now, from, (message, index), holders),
            Remark::Help(plan) => self.help(now, plan),
            Remark::Seed { attempt, seed } => self.take_seed(now, from, attempt, seed),
        }
        if let Some(durable) = &mut self.durable {
            // what begins is looked at soon; what is due already is not put off
            let look_at = &mut durable.remaking.look_at;
            *look_at = look_at.map(|at| at.min(now + LOOK_SOON));
        }
    }

    /// What another holder tells of a message before it says what is to be done about it.
    pub(in crate::core) fn note_told(&mut self, from: NodeId, ann: Announcement) {
        if let Some(durable) = &mut self.durable {
            let told = &mut durable.remaking.told;
            while told.len() >= MAX_TOLD && !told.contains_key(&from) {
                told.pop_first();
            }
            told.insert(from, ann);
        }
    }

    // ---- new holder

    /// This node is to have a lost share.
    fn take_lost(&mut self, now: Instant, from: NodeId, lost: Lost, holders: Holders) {
        let (message, index) = lost;
        if self.pool.share(message, index).is_some() {
            return self.tell_remade(now, lost, Some(from));
        }
        let Some(durable) = &mut self.durable else {
            return;
        };
        let told = durable.remaking.told.remove(&from);
        let known = self.pool.announcement(message).cloned();
        let Some(ann) = known.or(told.filter(|ann| ann.message == message)) else {
            return;
        };
        let taking = &durable.remaking.taking;
        let same = taking.keys().filter(|(other, _)| *other == message).count();
        let ever = self.pool.ever(message).filter(|had| *had != index).count();
        if taking.contains_key(&lost)
            || taking.len() >= MAX_TAKEN
            || ever + same + 1 >= usize::from(ann.k)
            || self.pool.is_ended(message)
            || ann
                .receivers()
                .chain([ann.sender])
                .any(|id| id == self.config.id)
            || self.is_present(ann.sender)
        {
            return;
        }
        let Ok(details) = SealedDetails::parse(&ann.details) else {
            return;
        };
        let taking = Taking {
            manifest: details.manifest().clone(),
            announcement: ann,
            holders,
            failed: BTreeMap::new(),
            sets: 0,
            attempt: None,
            until: now,
            made: false,
        };
        if let Some(durable) = &mut self.durable {
            durable.remaking.taking.insert(lost, taking);
        }
        self.ask_helpers(now, lost);
    }

    /// Asks the next set of helpers: those that were in the fewest sets from which nothing came.
    fn ask_helpers(&mut self, now: Instant, lost: Lost) {
        let attempt = self.new_message_id();
        let local = self.config.id;
        let Some(durable) = &mut self.durable else {
            return;
        };
        let Some(taking) = durable.remaking.taking.get_mut(&lost) else {
            return;
        };
        taking.sets += 1;
        let mut order: Vec<(u32, NonZeroU8, NodeId)> = taking
            .holders
            .iter()
            .map(|(i, node)| (taking.failed.get(i).copied().unwrap_or(0), *i, *node))
            .collect();
        order.sort_unstable();
        let k = taking.announcement.k;
        let mut helpers: Holders = order.into_iter().map(|(_, i, node)| (i, node)).collect();
        helpers.truncate(usize::from(k));
        helpers.sort_unstable();
        let plan = Plan {
            attempt,
            message: lost.0,
            index: lost.1,
            to: local,
            helpers,
        };
        let (n, len) = (taking.announcement.n, v2::Share::sum_len(&taking.manifest));
        match NewHolder::begin(&plan, n, k, len) {
            Ok(holder) if taking.sets <= MAX_SETS => {
                taking.attempt = Some((plan.clone(), holder));
                taking.until = now + SET_TIME;
            }
            _ => {
                durable.remaking.taking.remove(&lost);
                return;
            }
        }
        for node in plan.nodes() {
            self.remark(now, node, &Remark::Help(plan.clone()));
        }
    }

    /// Something came that names an attempt rather than a message. Returns whether it did.
    pub(in crate::core) fn part_arrived(
        &mut self,
        now: Instant,
        from: NodeId,
        attempt: MessageId,
        part: &[u8],
    ) -> bool {
        let Some(durable) = &mut self.durable else {
            return false;
        };
        let mut all = durable.remaking.taking.iter_mut();
        let found = all.find_map(|(lost, taking)| match &mut taking.attempt {
            Some((plan, holder)) if plan.attempt == attempt => Some((*lost, holder)),
            _ => None,
        });
        let Some((lost, holder)) = found else {
            return false;
        };
        match holder.receive(from, part) {
            Ok(Some(sum)) => self.put_together(now, lost, &sum),
            Ok(None) => {}
            Err(error) => {
                self.stats.refused_shares += 1;
                tracing::debug!(%error, "a part of a share was refused");
            }
        }
        true
    }

    /// All parts are here: keeps the share, if it is the one that was lost.
    fn put_together(&mut self, now: Instant, lost: Lost, sum: &[u8]) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let Some(taking) = durable.remaking.taking.get_mut(&lost) else {
            return;
        };
        let share = v2::Share::from_sum(&taking.manifest, lost.1, sum).ok();
        let right = share
            .filter(|share| taking.manifest.share_digest(lost.1).copied() == Some(share.digest()));
        let Some(share) = right else {
            // a helper lied, and nothing tells which
            self.stats.bad_shares += 1;
            self.set_failed(now, lost, |_| true);
            return;
        };
        taking.attempt = None;
        taking.made = true;
        taking.until = now + HELP_TIME;
        let octets = share.to_bytes();
        let (_, digest) = seal::share_digest(&octets);
        let ann = taking.announcement.clone();
        self.handovers.stored(lost);
        if let Err(error) = self.pool.adopt(now, &ann, lost.1, octets, digest) {
            tracing::debug!(%error, "a share that was remade is not held");
            if let Some(durable) = &mut self.durable {
                durable.remaking.taking.remove(&lost);
            }
        }
    }

    /// Nothing came of a set of helpers: those to blame are asked last from now on.
    fn set_failed(&mut self, now: Instant, lost: Lost, blame: impl Fn(NodeId) -> bool) {
        let durable = self.durable.as_mut();
        let taking = durable.and_then(|durable| durable.remaking.taking.get_mut(&lost));
        if let Some(taking) = taking
            && let Some((plan, _)) = taking.attempt.take()
        {
            for (index, _) in plan.helpers.iter().filter(|(_, node)| blame(*node)) {
                *taking.failed.entry(*index).or_default() += 1;
            }
        }
        self.ask_helpers(now, lost);
    }

    /// A share is on disk here: if it was remade, its holders hear of it.
    pub(super) fn remade_stored(&mut self, now: Instant, message: MessageId, index: NonZeroU8) {
        let lost = (message, index);
        let Some(durable) = &mut self.durable else {
            return;
        };
        if durable.remaking.taking.remove(&lost).is_none() {
            return;
        }
        durable.remaking.led.remove(&lost);
        let label = self.pool.announcement(message).map(|ann| ann.label.parse());
        if let Some(Ok(id)) = label {
            self.event(Event::Repaired { id, shares: 1 });
        }
        self.tell_remade(now, lost, None);
    }

    /// A share that was remade is not on disk.
    pub(super) fn remade_lost(&mut self, message: MessageId, index: NonZeroU8) {
        if let Some(durable) = &mut self.durable {
            durable.remaking.taking.remove(&(message, index));
        }
    }

    fn tell_remade(&mut self, now: Instant, (message, index): Lost, only: Option<NodeId>) {
        let local = self.config.id;
        let Some(ann) = self.pool.announcement(message) else {
            return;
        };
        let holders: BTreeSet<NodeId> = match only {
            Some(one) => [one].into(),
            None => ann.shares.iter().map(|share| share.holder).collect(),
        };
        for holder in holders {
            if holder != local && self.is_present(holder) {
                let line = Message::SharePoolStored {
                    message: MessageName::from(message),
                    holder: local,
                    index: index.get().into(),
                };
                self.send_line(now, holder, line);
            }
        }
    }

    // ---- helper

    /// A member asks for what this node's shares add to a lost one.
    fn help(&mut self, now: Instant, plan: Plan) {
        let local = self.config.id;
        let (message, to) = (plan.message, plan.to);
        let Some(ann) = self.pool.announcement(message).cloned() else {
            return;
        };
        let holder = ann.placement(plan.index).map(|share| share.holder);
        let member = self
            .member
            .roster()
            .any(|(_, c)| c.member(ann.sender).is_some() && c.member(to).is_some());
        // this node's own view counts, and what the sender itself told it
        let lost = holder.is_some_and(|holder| holder != ann.sender && self.is_gone(now, holder));
        let alone = self.is_gone(now, ann.sender) && !self.is_present(ann.receiver);
        if !lost || !alone || !(member || to == local) {
            tracing::debug!(%to, "no help with a share that is not lost as seen from here");
            return;
        }
        let Some(durable) = &mut self.durable else {
            return;
        };
        let remaking = &mut durable.remaking;
        let of_one = remaking.helping.keys().filter(|(_, other)| *other == to);
        if of_one.count() >= MAX_HELPED_ONE
            || remaking.helping.len() >= MAX_HELPED
            || remaking.parts >= MAX_PARTS
            || remaking.helping.contains_key(&(plan.attempt, to))
        {
            return;
        }
        let moved = remaking.moved.get(&(message, plan.index)).copied();
        let attempt = plan.attempt;
        let begun = Helper::begin(plan, local, &ann, &mut self.rng);
        let (mut helper, send) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(%error, %to, "no help with a lost share");
                return;
            }
        };
        if moved.is_some_and(|at| at != to && self.is_here(at))
            || helper
                .own()
                .any(|own| self.pool.share(message, own).is_none())
        {
            return;
        }
        if let Some(durable) = &mut self.durable {
            let remaking = &mut durable.remaking;
            for node in helper.plan().nodes() {
                if let Some((seed, _)) = remaking.seeds.remove(&(attempt, node)) {
                    // one that is not due is dropped
                    let _ = helper.receive(node, seed);
                }
            }
            let until = now + HELP_TIME;
            let helping = Helping { helper, until };
            remaking.helping.insert((attempt, to), helping);
            remaking.parts += 1;
        }
        for (node, seed) in send {
            self.remark(now, node, &Remark::Seed { attempt, seed });
        }
        self.give_part(now, attempt, to);
    }

    fn take_seed(&mut self, now: Instant, from: NodeId, attempt: MessageId, seed: Seed) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let remaking = &mut durable.remaking;
        let range = (attempt, NodeId::EMPTY)..;
        let mut helping = remaking.helping.range_mut(range);
        if let Some((&(found, to), helping)) = helping.next()
            && found == attempt
        {
            match helping.helper.receive(from, seed) {
                Ok(()) => self.give_part(now, attempt, to),
                Err(_) => self.stats.bad_lines += 1,
            }
            return;
        }
        let of_one = remaking.seeds.keys().filter(|(_, other)| *other == from);
        if of_one.count() < MAX_SEEDS_OF_ONE && remaking.seeds.len() < MAX_SEEDS {
            let until = now + HELP_TIME;
            remaking
                .seeds
                .entry((attempt, from))
                .or_insert((seed, until));
        }
    }

    /// Sends this node's part, when all seeds are here.
    fn give_part(&mut self, now: Instant, attempt: MessageId, to: NodeId) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let all = &mut durable.remaking.helping;
        let Some(helping) = all.get(&(attempt, to)).filter(|h| h.helper.is_ready()) else {
            return;
        };
        let plan = helping.helper.plan().clone();
        let own: Vec<NonZeroU8> = helping.helper.own().collect();
        let helping = all.remove(&(attempt, to));
        let Some(sum) = self.summands(&plan, &own) else {
            return;
        };
        let Some(part) = helping.and_then(|helping| helping.helper.masked(sum)) else {
            return;
        };
        if to == self.config.id {
            let _ = self.part_arrived(now, to, attempt, &part);
            return;
        }
        let parcel = Parcel {
            receiver: to,
            message: attempt,
            index: plan.index,
            k: u8::MAX,
            parts: vec![part],
            from_pool: false,
            turn: Turn::Frozen,
            priority: Priority::Normal,
            segment: None,
        };
        if !self.send_share(now, to, parcel) {
            tracing::debug!(%to, "a part of a share has no way now");
        }
    }

    /// What shares of this node add to a lost one.
    fn summands(&self, plan: &Plan, own: &[NonZeroU8]) -> Option<Zeroizing<Vec<u8>>> {
        let ann = self.pool.announcement(plan.message)?;
        let details = SealedDetails::parse(&ann.details).ok()?;
        let manifest = details.manifest();
        let indices = plan.indices();
        let mut sum = Zeroizing::new(vec![0; v2::Share::sum_len(manifest)]);
        for index in own {
            let octets: Bytes = self.pool.share(plan.message, *index)?.clone();
            let mut one = Collector::new(manifest.clone());
            one.add_from(*index, octets).ok()?;
            let share = one.shares().next()?;
            let summand = share.summand(manifest, &indices, plan.index).ok()?;
            add(&mut sum, &summand);
        }
        Some(sum)
    }

    /// Ends what has waited for too long.
    fn end_late(&mut self, now: Instant) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let remaking = &mut durable.remaking;
        remaking.parts = 0;
        remaking.helping.retain(|_, helping| helping.until > now);
        remaking.seeds.retain(|_, (_, until)| *until > now);
        let known = |lost: &Lost| self.pool.announcement(lost.0).is_some();
        remaking.led.retain(|lost, _| known(lost));
        remaking
            .taking
            .retain(|_, taking| !taking.made || taking.until > now);
        let late: Vec<(Lost, BTreeSet<NodeId>)> = remaking
            .taking
            .iter()
            .filter(|(_, taking)| !taking.made && taking.until <= now)
            .map(|(lost, taking)| {
                let attempt = taking.attempt.as_ref();
                let silent = attempt.map(|(_, holder)| holder.missing().collect());
                (*lost, silent.unwrap_or_default())
            })
            .collect();
        for (lost, silent) in late {
            self.set_failed(now, lost, |node| silent.contains(&node));
        }
    }
}
