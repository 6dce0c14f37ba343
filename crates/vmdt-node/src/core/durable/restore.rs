//! A node as an earlier run left it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_control::{ClusterMemory, Reply, Request, RequestError, RequestId};
use vmdt_pool::{Anchor, Pool, StorageError, Store};
use vmdt_ssms::Threshold;
use vmdt_wire::{ClusterId, ErrorCode, Message, MessageId, MessageName, NodeId};

use super::records::{Arriving, End, Key, Reader, SPACE, Sending, SpreadRecord, Writer};
use super::{Durable, Send, Spread};
use crate::core::envelope::Kind;
use crate::core::event::TransferError;
use crate::core::group::OutGroup;
use crate::core::outgoing::{Outgoing, Plan};
use crate::core::{Core, CoreConfig, Event, SendOptions};

/// How long after a change what is known of a cluster is written down: members come and go in bursts,
/// and all of it is written anew.
const MEMORIES_AFTER: Duration = Duration::from_secs(1);

/// What [`Core::restore`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Messages of which shares are held for others.
    pub held: usize,
    /// Transfers that go on being sent.
    pub sending: usize,
    /// Transfers that go on arriving.
    pub arriving: usize,
    /// Clusters that are joined again.
    pub clusters: usize,
    /// Records that could not be read, and were left out.
    pub damaged: usize,
}

/// Why a node can't go on from what an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The store can't be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is another node's.
    #[error(
        "the storage belongs to {owner}, and this node is {local}: give each identity a folder of \
         its own"
    )]
    Foreign {
        /// Whose it is.
        owner: NodeId,
        /// This node.
        local: NodeId,
    },
}

/// The record that says whose the others are.
pub(super) fn owner(id: NodeId) -> Bytes {
    let mut out = Writer::new();
    out.node(id);
    out.finish()
}

#[derive(Default)]
struct Found {
    owner: Option<NodeId>,
    members: BTreeMap<ClusterId, Bytes>,
    memories: BTreeMap<ClusterId, ClusterMemory>,
    sending: BTreeMap<MessageId, Sending>,
    contents: BTreeMap<MessageId, Bytes>,
    spreads: BTreeMap<MessageId, SpreadRecord>,
    arriving: BTreeMap<(NodeId, MessageId), Arriving>,
    pieces: BTreeMap<(NodeId, MessageId), BTreeMap<u32, Bytes>>,
    ended: Vec<(u64, (NodeId, MessageId), End)>,
    /// Keys of records that are of no use.
    useless: Vec<Key>,
    damaged: usize,
}

impl Found {
    fn take(&mut self, name: &[u8], value: Bytes) {
        let Some(key) = Key::read(name) else {
            self.damaged += 1;
            return;
        };
        let good = match key {
            Key::Owner => Reader::new(value)
                .and_then(|mut r| r.node())
                .map(|id| self.owner = Some(id)),
            Key::Member(cluster) => {
                self.members.insert(cluster, value);
                Some(())
            }
            Key::Memory(cluster) => ClusterMemory::parse(&value)
                .ok()
                .filter(|memory| memory.cluster() == cluster)
                .map(|memory| drop(self.memories.insert(cluster, memory))),
            Key::Sending(id) => Sending::read(value).map(|r| drop(self.sending.insert(id, r))),
            Key::Content(id) => {
                self.contents.insert(id, value);
                Some(())
            }
            Key::Spread(id) => SpreadRecord::read(value).map(|r| drop(self.spreads.insert(id, r))),
            Key::Arriving(from, id) => {
                Arriving::read(value).map(|r| drop(self.arriving.insert((from, id), r)))
            }
            Key::Piece(from, id, number) => {
                let pieces = self.pieces.entry((from, id)).or_default();
                pieces.insert(number, value);
                Some(())
            }
            Key::Ended(from, id) => {
                End::read(value).map(|(until, end)| self.ended.push((until, (from, id), end)))
            }
        };
        if good.is_none() {
            self.damaged += 1;
            self.useless.push(key);
        }
    }
}

impl Core {
    /// A durable node, with what an earlier run of the same identity left in `store`; with nothing
    /// there, a new one. `anchor` says what the clock on the wall shows. From here on
    /// [`Output::Persist`](crate::core::Output::Persist) is to be committed to the same store, batch
    /// after batch, and answered with [`Core::persisted`].
    ///
    /// # Errors
    /// [`RestoreError`] when the store can't be read, or is that of another node. Nothing was
    /// changed.
    pub fn restore(
        config: CoreConfig,
        seed: [u8; 32],
        anchor: Anchor,
        store: &dyn Store,
    ) -> Result<(Core, Recovered), RestoreError> {
        let mut found = Found::default();
        store.scan(&[SPACE], &mut |key, value| found.take(key, value))?;
        let local = config.id;
        if let Some(owner) = found.owner.filter(|owner| *owner != local) {
            return Err(RestoreError::Foreign { owner, local });
        }
        let mut held = Vec::new();
        store.scan(Pool::RECORDS, &mut |key, value| {
            held.push((Bytes::copy_from_slice(key), value));
        })?;
        let mut core = Core::new(config, seed);
        let digest = |octets: &[u8]| match local.is_sealed() {
            true => crate::core::seal::share_digest(octets).1,
            false => crate::core::outgoing::digest_of(&[octets]),
        };
        let mut pool_config = Core::pool_config(&core.config);
        pool_config.ttl = core.config.expiry;
        let (pool, report) = Pool::restore(pool_config, anchor, held, digest);
        core.pool = pool;
        let mut recovered = Recovered {
            held: report.messages,
            damaged: found.damaged + report.damaged,
            ..Recovered::default()
        };
        let mut durable = Durable::new(anchor, core.config.repair_after);
        if found.owner.is_none() {
            durable.mark(Key::Owner);
        }
        for key in std::mem::take(&mut found.useless) {
            durable.mark(key);
        }
        core.durable = Some(durable);
        let now = anchor.at;
        core.restore_ended(anchor, std::mem::take(&mut found.ended));
        recovered.arriving = core.restore_arriving(now, &mut found);
        recovered.sending = core.restore_sending(now, &mut found);
        recovered.clusters = found.members.len();
        for (cluster, membership) in found.members {
            let memory = found.memories.remove(&cluster);
            core.be_in_again(now, cluster, membership, memory.as_ref());
        }
        core.settle(now);
        Ok((core, recovered))
    }

    fn restore_ended(&mut self, anchor: Anchor, mut ended: Vec<(u64, (NodeId, MessageId), End)>) {
        // those that end first were the first to end
        ended.sort_by_key(|(until, key, _)| (*until, *key));
        for (until, key, end) in ended {
            let Some(durable) = &mut self.durable else {
                return;
            };
            if anchor.until(until).is_zero() {
                durable.mark(Key::Ended(key.0, key.1));
                continue;
            }
            durable.ended_until.insert(key, until);
            // what was about to be handed over may have been: it is not handed over again, and its
            // sender is not told that it was
            self.remember_ended(key.0, key.1, end == End::Taken);
        }
    }

    fn restore_arriving(&mut self, now: Instant, found: &mut Found) -> usize {
        let mut count = 0;
        let mut useless: Vec<Key> = Vec::new();
        for (key, record) in std::mem::take(&mut found.arriving) {
            let (from, id) = key;
            let pieces = found.pieces.remove(&key).unwrap_or_default();
            let all = |pieces: &BTreeMap<u32, Bytes>| {
                pieces.keys().copied().eq(0..record.next.0)
                    && pieces.values().map(|p| p.len() as u64).sum::<u64>() == record.next.1
            };
            let over = self.ended_set.contains_key(&key);
            if over || (record.kind == Kind::Octets && !all(&pieces)) {
                // an end, or a piece that is missing though its batch was written: begin anew
                useless.push(Key::Arriving(from, id));
                useless.extend(pieces.keys().map(|number| Key::Piece(from, id, *number)));
                continue;
            }
            let content = pieces.into_values().flatten().collect();
            self.resume_arrival(now, key, record, content);
            count += 1;
        }
        for ((from, id), pieces) in std::mem::take(&mut found.pieces) {
            useless.extend(
                pieces
                    .into_keys()
                    .map(|number| Key::Piece(from, id, number)),
            );
        }
        if let Some(durable) = &mut self.durable {
            useless.into_iter().for_each(|key| durable.mark(key));
        }
        count
    }

    fn restore_sending(&mut self, now: Instant, found: &mut Found) -> usize {
        let mut resumed = Vec::new();
        for (id, record) in std::mem::take(&mut found.sending) {
            let content = found.contents.remove(&id);
            let threshold = Threshold::new(record.k, record.n).ok();
            let lost = record.kind == Kind::Octets && content.is_none();
            let group = OutGroup::restored(now, &record.group);
            let over = group.is_none() && !record.group.is_empty();
            let Some(threshold) = threshold.filter(|_| !lost && !over) else {
                if let Some(durable) = &mut self.durable {
                    durable.mark(Key::Sending(id));
                }
                continue;
            };
            let plan = Plan {
                id,
                cluster: record.cluster,
                to: record.to,
                group,
                kind: record.kind,
                name: record.name.clone(),
                total: record.total,
                threshold,
                open: false,
            };
            let mut outgoing = Outgoing::new(now, plan, self.first_window(), SendOptions::new());
            outgoing.delivered = record.low.1;
            self.outgoing.insert(id, outgoing);
            if let Some(durable) = &mut self.durable {
                let send = Send {
                    record,
                    content,
                    ready: true,
                    resumed: true,
                    done: BTreeMap::new(),
                    told_safe: false,
                };
                durable.sends.insert(id, send);
            }
            resumed.push(id);
        }
        if let Some(durable) = &mut self.durable {
            for id in std::mem::take(&mut found.contents).into_keys() {
                durable.mark(Key::Content(id));
            }
        }
        for (message, record) in std::mem::take(&mut found.spreads) {
            self.restore_spread(now, message, record);
        }
        for id in &resumed {
            self.tell_resumed(*id);
        }
        resumed.len()
    }

    /// What is safe at its holders waits for its receiver there; the rest is taken back, and sent
    /// anew.
    fn restore_spread(&mut self, now: Instant, message: MessageId, mut record: SpreadRecord) {
        let transfer = record.transfer;
        let group = self
            .outgoing
            .get(&transfer)
            .and_then(|out| out.group.as_ref());
        let several = group.is_some();
        if let Some(group) = group {
            record.open.retain(|node| group.awaits(*node));
        }
        if several && record.open.is_empty() {
            // who was to confirm it has failed, or has it by now
            self.kept_acknowledged(transfer, record.number, record.octets);
            record.safe = false;
        }
        let low = self
            .durable
            .as_ref()
            .and_then(|durable| durable.sends.get(&transfer))
            .map(|send| send.record.low.0);
        let wanted = record.safe && low.is_some_and(|low| record.number >= low);
        let Some(durable) = &mut self.durable else {
            return;
        };
        if !wanted {
            durable.mark(Key::Spread(message));
            for holder in record.holders {
                let line = Message::SharePoolRemove {
                    message: MessageName::from(message),
                };
                self.send_line(now, holder, line);
            }
            return;
        }
        for holder in &record.holders {
            // until they are seen
            durable.watch.lost(now, *holder);
        }
        let open = record.open.clone();
        let spread = Spread {
            record,
            stored: BTreeMap::new(),
            left: true,
        };
        durable.spreads.insert(message, spread);
        if let Some(out) = self.outgoing.get_mut(&transfer) {
            out.in_flight.insert(message);
            if let Some(group) = &mut out.group {
                open.into_iter().for_each(|node| group.left_for(node));
            }
        }
    }

    // ---- clusters

    /// Goes on in a cluster as it is remembered; where it is not, takes its place in it again.
    fn be_in_again(
        &mut self,
        now: Instant,
        cluster: ClusterId,
        membership: Bytes,
        memory: Option<&ClusterMemory>,
    ) {
        if let Some(durable) = &mut self.durable
            && let Some(memory) = memory
            && self.member.recall(now, memory).is_ok()
        {
            // a place that was given up meanwhile is reported by the member
            durable.clusters.insert(cluster, membership);
            return;
        }
        self.join_again(now, cluster, membership);
    }

    /// Takes its place in a cluster again.
    fn join_again(&mut self, now: Instant, cluster: ClusterId, membership: Bytes) {
        let request = if membership.is_empty() {
            Request::JoinCluster(cluster)
        } else {
            let membership = membership.clone();
            Request::JoinSealed {
                cluster,
                membership,
            }
        };
        let request = self.member.request(now, request);
        if let Some(durable) = &mut self.durable {
            durable.clusters.insert(cluster, membership);
            durable.joining.insert(request, cluster);
        }
    }

    /// The answer to a request came. Returns whether it was one of [`join_again`](Self::join_again).
    pub(in crate::core) fn joined_again(
        &mut self,
        now: Instant,
        request: RequestId,
        result: &Result<Reply, RequestError>,
    ) -> bool {
        let Some(durable) = &mut self.durable else {
            return false;
        };
        let Some(cluster) = durable.joining.remove(&request) else {
            return false;
        };
        match result {
            Ok(_) => self.pump_sources(now),
            // the application asked for it as well, and was first
            Err(RequestError::Refused(error)) if error.code == ErrorCode::AlreadyMember => {
                self.pump_sources(now);
            }
            // the node ends; the next run takes its place again
            Err(RequestError::Stopped) => {}
            Err(RequestError::Refused(error)) => {
                let reason = error.to_string();
                durable.clusters.remove(&cluster);
                durable.mark(Key::Member(cluster));
                durable.mark(Key::Memory(cluster));
                self.event(Event::ClusterLost { cluster, reason });
                self.strand(now, cluster);
            }
            Err(_) => {
                // the server can't be reached: on and on
                let membership = durable.clusters.remove(&cluster).unwrap_or_default();
                self.join_again(now, cluster, membership);
            }
        }
        true
    }

    /// This node is not in a cluster any more: what it sends there of earlier runs has nobody to go
    /// to.
    pub(in crate::core) fn strand(&mut self, now: Instant, cluster: ClusterId) {
        let sends = self.durable.iter().flat_map(|durable| &durable.sends);
        let stranded: Vec<(MessageId, NodeId)> = sends
            .filter(|(_, send)| send.record.cluster == cluster)
            .map(|(id, send)| (*id, send.record.to))
            .collect();
        for (id, peer) in stranded {
            self.fail_outgoing(now, id, TransferError::UnknownPeer { peer }, true);
        }
    }

    /// What is known of the clusters may have changed: it is written down a little later, with what
    /// changes until then.
    pub(in crate::core) fn remember_clusters(&mut self, now: Instant) {
        if let Some(durable) = &mut self.durable {
            durable.memories_at.get_or_insert(now + MEMORIES_AFTER);
        }
    }

    /// The node is about to close: what is known of the clusters is written down now.
    pub(in crate::core) fn close_memories(&mut self, now: Instant) {
        if let Some(at) = self.durable.as_mut().and_then(|d| d.memories_at.as_mut()) {
            *at = now;
        }
        self.keep_memories(now);
    }

    /// Writes down what is known of the clusters, if that is due.
    pub(in crate::core) fn keep_memories(&mut self, now: Instant) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        if durable.memories_at.take_if(|at| *at <= now).is_some() {
            let clusters: Vec<ClusterId> = durable.clusters.keys().copied().collect();
            for cluster in clusters {
                durable.mark(Key::Memory(cluster));
            }
        }
    }

    /// Writes down which clusters this node is in.
    pub(in crate::core) fn keep_clusters(&mut self) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        let joining: BTreeSet<ClusterId> = durable.joining.values().copied().collect();
        let mut here: BTreeSet<ClusterId> = joining;
        for (cluster, roster) in self.member.roster() {
            here.insert(cluster);
            let own = roster
                .sealed()
                .map(|sealed| sealed.own_membership().clone());
            let own = own.unwrap_or_default();
            if durable.clusters.get(&cluster) != Some(&own) {
                durable.clusters.insert(cluster, own);
                durable.mark(Key::Member(cluster));
            }
        }
        let gone: Vec<ClusterId> = durable
            .clusters
            .keys()
            .copied()
            .filter(|cluster| !here.contains(cluster))
            .collect();
        for cluster in gone {
            durable.clusters.remove(&cluster);
            durable.mark(Key::Member(cluster));
            durable.mark(Key::Memory(cluster));
        }
    }
}
