//! What a member knows about its clusters, kept through disconnections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use vmdt_wire::{Caps, ClusterId, ClusterInfo, MemberState, NodeId};

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

    /// Our place is confirmed; announcements of the others follow.
    pub(crate) fn rejoined(&mut self, info: Option<ClusterInfo>) {
        self.confirmed = true;
        self.syncing = true;
        self.info = info.or(self.info.take());
        for member in self.members.values_mut() {
            member.stale = true;
        }
    }

    /// The announcements that followed [`ClusterRoster::rejoined`] are complete:
    /// returns who left while we were away.
    pub(crate) fn synced(&mut self) -> (Vec<NodeId>, Option<ClusterState>) {
        let stale = self.members.iter().filter(|(_, member)| member.stale);
        let left: Vec<NodeId> = stale.map(|(&id, _)| id).collect();
        self.members.retain(|_, member| !member.stale);
        self.syncing = false;
        (left, self.recount())
    }
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

    pub(crate) fn remove(&mut self, cluster: ClusterId) -> bool {
        self.clusters.remove(&cluster).is_some()
    }

    pub(crate) fn disconnected(&mut self) {
        for cluster in self.clusters.values_mut() {
            cluster.confirmed = false;
        }
    }
}
