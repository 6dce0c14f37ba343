//! What a member knows about its clusters, kept through disconnections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use vmdt_seal::descriptor::Descriptor;
use vmdt_seal::membership::Membership;
use vmdt_seal::revocation::RevocationList;
use vmdt_seal::trust::{Admitted, ClusterTrust, TrustError};
use vmdt_wire::{Caps, ClusterId, ClusterInfo, MemberState, Message, NodeId};

use crate::state::{Census, ClusterState};

/// One of the other members of a cluster, as the server announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterMember {
    /// Whether its connection to the server is up; otherwise it is in its grace
    /// period.
    pub present: bool,
    /// Where it is, once it has registered a port.
    pub address: Option<SocketAddr>,
    /// What it can do; `None` for software of profile 1.0.
    pub caps: Option<Caps>,
    /// Known from before the last reconnection and not yet announced again.
    stale: bool,
}

impl RosterMember {
    /// Whether the server has announced it since our last return. Members of a sealed
    /// cluster that it has not announced count for 30 s as what they were.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        !self.stale
    }
}

/// A cluster this member is in.
///
/// While the server cannot be reached it says what was known last, so that
/// members of an active cluster go on among themselves. A member that registers no
/// capabilities is told of no other member: its state is what CLUSTER_READY said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRoster {
    info: Option<ClusterInfo>,
    state: ClusterState,
    members: BTreeMap<NodeId, RosterMember>,
    confirmed: bool,
    /// Whether the server announces the others to us, so that they can be counted.
    counts: bool,
    /// Between our return and the last announcement after it nothing is counted:
    /// who is remembered as present may be gone.
    syncing: bool,
    /// Until when those count whom the server has not announced since our return.
    settles: Option<Instant>,
    sealed: Option<Box<SealedRoster>>,
}

/// The signed part of a cluster, as its members have checked it.
#[derive(Debug, Clone)]
pub struct SealedRoster {
    /// Our own membership.
    own: Bytes,
    /// Until the descriptor is there nothing can be checked.
    trust: Option<ClusterTrust>,
    memberships: BTreeMap<NodeId, Bytes>,
    list: Option<Bytes>,
    /// What was announced before the descriptor came.
    held: Vec<Message>,
    /// Members that changed their keys, old ids and new ones, until they are taken.
    changed: Vec<(NodeId, NodeId)>,
}

impl PartialEq for SealedRoster {
    fn eq(&self, other: &Self) -> bool {
        self.own == other.own && self.memberships == other.memberships && self.list == other.list
    }
}

impl Eq for SealedRoster {}

impl SealedRoster {
    pub(crate) fn new(own: Bytes, descriptor: Option<Descriptor>) -> SealedRoster {
        SealedRoster {
            trust: descriptor.map(|descriptor| trusting(descriptor, &own)),
            own,
            memberships: BTreeMap::new(),
            list: None,
            held: Vec::new(),
            changed: Vec::new(),
        }
    }

    /// The cluster's descriptor, and who follows from it as a member; `None`
    /// until the descriptor was fetched.
    #[must_use]
    pub fn trust(&self) -> Option<&ClusterTrust> {
        self.trust.as_ref()
    }

    /// Our own membership, as it was signed.
    #[must_use]
    pub fn own_membership(&self) -> &Bytes {
        &self.own
    }

    /// Another member's membership, as it was signed.
    #[must_use]
    pub fn membership(&self, id: NodeId) -> Option<&Bytes> {
        self.memberships.get(&id)
    }

    /// The newest list of removed members, as it was signed.
    #[must_use]
    pub fn revoked(&self) -> Option<&Bytes> {
        self.list.as_ref()
    }

    /// The descriptor has come: gives back what waited for it.
    pub(crate) fn describe(&mut self, descriptor: Descriptor) -> Vec<Message> {
        self.trust = Some(trusting(descriptor, &self.own));
        std::mem::take(&mut self.held)
    }

    /// Keeps an announcement until the descriptor comes, if it has not and there
    /// is room. Whether it was kept, or is lost.
    pub(crate) fn hold(&mut self, message: &Message, most: usize) -> bool {
        let waits = self.trust.is_none();
        if waits && self.held.len() < most {
            self.held.push(message.clone());
        }
        waits
    }

    /// Whether the membership verifies and is news. `members` are those that are
    /// in the cluster now.
    fn admit(
        &mut self,
        id: NodeId,
        octets: &[u8],
        members: &BTreeMap<NodeId, RosterMember>,
    ) -> bool {
        let (Some(trust), Ok(membership)) = (&mut self.trust, Membership::parse(octets)) else {
            return false;
        };
        if membership.node_id() != id {
            return false;
        }
        let mut admitted = trust.admit(&membership);
        if matches!(admitted, Err(TrustError::Full { .. })) {
            // Most of them have left long ago.
            self.memberships.retain(|id, _| members.contains_key(id));
            let mut fresh = trusting(trust.descriptor().clone(), &self.own);
            if let Some(list) = trust.revocation() {
                let _ = fresh.revoke(list);
            }
            for octets in self.memberships.values() {
                if let Ok(membership) = Membership::parse(octets) {
                    let _ = fresh.admit(&membership);
                }
            }
            *trust = fresh;
            admitted = trust.admit(&membership);
        }
        match admitted {
            Ok(admitted) => {
                for change in membership.changes() {
                    let old = change.old_key().node_id();
                    if old != id && self.memberships.remove(&old).is_some() {
                        self.changed.push((old, id));
                    }
                }
                let octets = membership.octets().clone();
                self.memberships.insert(id, octets).is_none() || admitted != Admitted::Known
            }
            Err(_) => false,
        }
    }

    /// Members that have changed their keys since this was asked last: old ids and new ones.
    pub(crate) fn take_changed(&mut self) -> Vec<(NodeId, NodeId)> {
        std::mem::take(&mut self.changed)
    }

    /// Whether `id` has shown that it is a member.
    pub(crate) fn knows(&self, id: NodeId) -> bool {
        self.memberships.contains_key(&id)
    }

    /// Takes the list in, if it verifies and is new: who is out.
    pub(crate) fn revoke(&mut self, octets: &[u8]) -> Option<Vec<NodeId>> {
        if self.list.as_deref() == Some(octets) {
            return None;
        }
        let list = RevocationList::parse(octets).ok()?;
        let mut out = self.trust.as_mut()?.revoke(&list).ok()?;
        self.list = Some(list.octets().clone());
        // Who has left is not known to the trust, and out all the same.
        let trust = self.trust.as_ref()?;
        let more = self.memberships.keys().filter(|&&id| !trust.is_member(id));
        out.extend(more.copied());
        out.sort_unstable();
        out.dedup();
        for id in &out {
            self.memberships.remove(id);
        }
        Some(out)
    }
}

impl ClusterRoster {
    fn new(info: Option<ClusterInfo>, counts: bool) -> ClusterRoster {
        let mut roster = ClusterRoster {
            info,
            state: ClusterState::Creating,
            members: BTreeMap::new(),
            confirmed: true,
            counts,
            syncing: false,
            settles: None,
            sealed: None,
        };
        roster.recount();
        roster
    }

    /// n, k and the options; `None` if the server did not say them.
    #[must_use]
    pub fn info(&self) -> Option<&ClusterInfo> {
        self.info.as_ref()
    }

    /// Where the cluster stands, counting this member as present. Who joins a
    /// suspended cluster is not told that it has been ready before and sees it as
    /// `Creating` until it is active again.
    #[must_use]
    pub fn state(&self) -> ClusterState {
        self.state
    }

    /// Whether the server has confirmed our place since the last reconnection.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The signed part, if the cluster has a descriptor.
    #[must_use]
    pub fn sealed(&self) -> Option<&SealedRoster> {
        self.sealed.as_deref()
    }

    /// Whether a member's membership verifies and is news.
    pub(crate) fn admit(&mut self, id: NodeId, octets: &[u8]) -> bool {
        let members = &self.members;
        let sealed = self.sealed.as_deref_mut();
        sealed.is_some_and(|sealed| sealed.admit(id, octets, members))
    }

    pub(crate) fn sealed_mut(&mut self) -> Option<&mut SealedRoster> {
        self.sealed.as_deref_mut()
    }

    /// The other members, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &RosterMember)> {
        self.members.iter().map(|(&id, member)| (id, member))
    }

    /// One of the other members.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&RosterMember> {
        self.members.get(&id)
    }

    /// How many members are present, this one included.
    #[must_use]
    pub fn present(&self) -> usize {
        1 + self.members.values().filter(|m| m.present).count()
    }

    /// Returns the new state if it changed.
    fn recount(&mut self) -> Option<ClusterState> {
        self.move_from(self.state)
    }

    fn move_from(&mut self, from: ClusterState) -> Option<ClusterState> {
        let to = match &self.info {
            Some(info) if self.counts && !self.syncing => from.after(Census {
                places: 1 + self.members.len(),
                present: self.present(),
                n: info.n,
                k: info.k,
            }),
            // Without a threshold or announcements only the server's word counts.
            _ => from,
        };
        let changed = to != self.state;
        self.state = to;
        changed.then_some(to)
    }

    /// CLUSTER_READY: the cluster has been ready, whatever was seen of it here.
    pub(crate) fn announced_ready(&mut self) -> Option<ClusterState> {
        if self.state.is_active() {
            return None;
        }
        self.move_from(ClusterState::Ready)
    }

    /// MEMBER: takes in one announcement, if there is room for another member.
    pub(crate) fn announced(
        &mut self,
        id: NodeId,
        state: MemberState,
        address: Option<SocketAddr>,
        caps: Option<Caps>,
        max_members: usize,
    ) -> Option<ClusterState> {
        if state == MemberState::Left {
            self.members.remove(&id);
        } else if self.members.contains_key(&id) || self.members.len() < max_members {
            let member = RosterMember {
                present: state != MemberState::Away,
                address,
                caps,
                stale: false,
            };
            self.members.insert(id, member);
        }
        self.recount()
    }

    /// The members are as an earlier run knew them; nobody has confirmed our place yet.
    pub(crate) fn recalled(&mut self, been_ready: bool) -> ClusterState {
        self.confirmed = false;
        if been_ready {
            self.move_from(ClusterState::Ready);
        }
        self.state
    }

    /// Our place is confirmed; announcements of the others follow.
    pub(crate) fn rejoined(&mut self, info: Option<ClusterInfo>) {
        self.confirmed = true;
        self.syncing = true;
        self.info = info.or(self.info.take());
        for member in self.members.values_mut() {
            member.stale = true;
        }
    }

    /// The announcements that followed [`ClusterRoster::rejoined`] are complete. A
    /// server that has lost everything hears of a sealed cluster from its members,
    /// one after the other: their memberships are signed, so that whoever it did not
    /// announce counts until `until`. In an open cluster the server's word counts at
    /// once. Returns who left while we were away.
    pub(crate) fn synced(&mut self, until: Instant) -> (Vec<NodeId>, Option<ClusterState>) {
        self.syncing = false;
        if self.sealed.is_none() || !self.members.values().any(|member| member.stale) {
            return self.settle();
        }
        self.settles = Some(until);
        (Vec::new(), self.recount())
    }

    /// Forgets whom the server has not announced since our return.
    fn settle(&mut self) -> (Vec<NodeId>, Option<ClusterState>) {
        self.settles = None;
        let stale = self.members.iter().filter(|(_, member)| member.stale);
        let left: Vec<NodeId> = stale.map(|(&id, _)| id).collect();
        self.members.retain(|_, member| !member.stale);
        (left, self.recount())
    }
}

/// Trust in what the descriptor's creator says, ourselves included.
fn trusting(descriptor: Descriptor, own: &[u8]) -> ClusterTrust {
    let mut trust = ClusterTrust::new(descriptor);
    if let Ok(own) = Membership::parse(own) {
        // A membership that does not count makes nobody a member, us neither.
        let _ = trust.admit(&own);
    }
    trust
}

/// All clusters of a member.
#[derive(Debug)]
pub(crate) struct Roster {
    clusters: BTreeMap<ClusterId, ClusterRoster>,
    counts: bool,
}

impl Roster {
    /// `counts`: whether the member registers capabilities, without which the
    /// server announces nobody to it.
    pub(crate) fn new(counts: bool) -> Roster {
        Roster {
            clusters: BTreeMap::new(),
            counts,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClusterId, &ClusterRoster)> {
        self.clusters.iter().map(|(&id, cluster)| (id, cluster))
    }

    pub(crate) fn contains(&self, cluster: ClusterId) -> bool {
        self.clusters.contains_key(&cluster)
    }

    pub(crate) fn cluster(&self, cluster: ClusterId) -> Option<&ClusterRoster> {
        self.clusters.get(&cluster)
    }

    pub(crate) fn cluster_mut(&mut self, cluster: ClusterId) -> Option<&mut ClusterRoster> {
        self.clusters.get_mut(&cluster)
    }

    pub(crate) fn insert(&mut self, cluster: ClusterId, info: Option<ClusterInfo>) {
        let roster = ClusterRoster::new(info, self.counts);
        self.clusters.insert(cluster, roster);
    }

    /// A cluster with a descriptor, which may have to be fetched yet.
    pub(crate) fn insert_sealed(
        &mut self,
        cluster: ClusterId,
        info: Option<ClusterInfo>,
        sealed: SealedRoster,
    ) {
        let mut roster = ClusterRoster::new(info, self.counts);
        roster.sealed = Some(Box::new(sealed));
        self.clusters.insert(cluster, roster);
    }

    /// Whether `id` is a member of one of the clusters with a descriptor.
    pub(crate) fn has_signed(&self, id: NodeId) -> bool {
        let mut sealed = self.clusters.values().filter_map(ClusterRoster::sealed);
        sealed.any(|sealed| sealed.knows(id))
    }

    pub(crate) fn remove(&mut self, cluster: ClusterId) -> bool {
        self.clusters.remove(&cluster).is_some()
    }

    pub(crate) fn disconnected(&mut self) {
        for cluster in self.clusters.values_mut() {
            cluster.confirmed = false;
            cluster.settles = None;
        }
    }

    /// When members that have not returned are forgotten next.
    pub(crate) fn settles(&self) -> Option<Instant> {
        self.clusters.values().filter_map(|c| c.settles).min()
    }

    /// A cluster in which that is due: who is forgotten, and its new state if it changed.
    pub(crate) fn settle_next(
        &mut self,
        now: Instant,
    ) -> Option<(ClusterId, Vec<NodeId>, Option<ClusterState>)> {
        let mut all = self.clusters.iter_mut();
        let (id, cluster) = all.find(|(_, c)| c.settles.is_some_and(|at| at <= now))?;
        let (left, state) = cluster.settle();
        Some((*id, left, state))
    }
}
