//! What is signed: descriptors, memberships, removals, profiles.

use bytes::Bytes;
use vmdt_wire::{ClusterId, ClusterInfo, MemberState, NodeId};

use super::{Change, Cluster, Directory, Place};
use crate::error::Refusal;
use crate::record::RecordKey;
use crate::sealed::{KeptProfile, Sealed};
use crate::state::ClusterState;

impl Directory {
    /// CREATE_SEALED: makes the cluster, or joins it if it is there already.
    pub(crate) fn create_sealed(
        &mut self,
        now_ms: u64,
        id: NodeId,
        descriptor: &[u8],
        membership: &[u8],
    ) -> Result<(ClusterId, ClusterInfo), Refusal> {
        let mut sealed = Sealed::new(now_ms, descriptor)?;
        let cluster = sealed.cluster();
        if self.clusters.contains_key(&cluster) {
            let info = self.join_sealed(now_ms, id, cluster, membership)?;
            return Ok((cluster, info));
        }
        let checked = sealed.check(id, membership)?;
        self.may_take_a_place(id, false)?;
        if self.clusters.len() >= self.max_clusters {
            return Err(Refusal::TooManyClusters {
                limit: self.max_clusters,
            });
        }
        if !self.client(id)?.speaks_rdt() {
            return Err(Refusal::ClosedToOpenPeers { cluster });
        }
        sealed.admit(now_ms, id, &checked)?;
        let (n, k, creator) = (sealed.n(), sealed.k(), sealed.creator());
        let made = Cluster {
            creator,
            n,
            k,
            open: false,
            max: self.max_members.max(n),
            state: ClusterState::Empty,
            places: Default::default(),
            sealed: Some(Box::new(sealed)),
        };
        let info = made.info();
        self.clusters.insert(cluster, made);
        self.mark(RecordKey::Cluster(cluster));
        self.changes.push_back(Change::Created {
            cluster,
            creator,
            n,
            k,
        });
        self.add_place(cluster, id);
        Ok((cluster, info))
    }

    /// JOIN_SEALED: takes a place, or resumes the one kept.
    pub(crate) fn join_sealed(
        &mut self,
        now_ms: u64,
        id: NodeId,
        cluster: ClusterId,
        membership: &[u8],
    ) -> Result<ClusterInfo, Refusal> {
        let client = self.client(id)?;
        let found = self
            .clusters
            .get(&cluster)
            .ok_or(Refusal::UnknownCluster { cluster })?;
        let sealed = found.sealed.as_ref();
        let sealed = sealed.ok_or(Refusal::NotSealed { cluster })?;
        let checked = sealed.check(id, membership)?;
        if !client.speaks_rdt() {
            return Err(Refusal::ClosedToOpenPeers { cluster });
        }
        let info = found.info();
        // under which this member was here before it changed its key
        let former: Vec<NodeId> = checked
            .changes()
            .iter()
            .map(|change| change.old_key().node_id())
            .filter(|old| *old != id && found.places.contains_key(old))
            .collect();
        let place = found.places.get(&id);
        match place {
            Some(place) if place.resumable => {}
            Some(_) => return Err(Refusal::AlreadyMember { id, cluster }),
            None => {
                self.may_take_a_place(id, false)?;
                if found.places.len() - former.len() >= usize::from(found.max) {
                    return Err(Refusal::ClusterFull {
                        cluster,
                        max: found.max,
                    });
                }
            }
        }
        let resumes = place.is_some();
        let sealed = self.sealed_mut(cluster)?;
        let news = sealed.admit(now_ms, id, &checked)?;
        if news {
            self.mark(RecordKey::Place(cluster, id));
            self.changes.push_back(Change::Membership { cluster, id });
        }
        match resumes {
            true => self.resume(cluster, id),
            false => self.add_place(cluster, id),
        }
        for id in former {
            self.changes.push_back(Change::Member {
                cluster,
                id,
                state: MemberState::Left,
            });
            self.take_place(cluster, id);
        }
        Ok(info)
    }

    /// REVOKE: removes members. Any member may hand the creator's list in.
    pub(crate) fn revoke(
        &mut self,
        id: NodeId,
        cluster: ClusterId,
        list: &[u8],
    ) -> Result<(), Refusal> {
        self.own_cluster(id, Some(cluster))?;
        let Some(removed) = self.sealed_mut(cluster)?.revoke(list)? else {
            return Ok(());
        };
        self.mark(RecordKey::Cluster(cluster));
        self.changes.push_back(Change::Revoked {
            cluster,
            removed: removed.clone(),
        });
        for id in removed {
            let has_place = |c: &Cluster| c.places.contains_key(&id);
            if self.clusters.get(&cluster).is_some_and(has_place) {
                self.changes.push_back(Change::Member {
                    cluster,
                    id,
                    state: MemberState::Left,
                });
                self.take_place(cluster, id);
            }
        }
        Ok(())
    }

    /// PUT_PROFILE.
    pub(crate) fn publish(&mut self, id: NodeId, profile: &[u8]) -> Result<(), Refusal> {
        let profile = KeptProfile::parse(id, profile)?;
        let known = self.client(id)?.profile.as_deref();
        if !profile.replaces(known)? {
            return Ok(());
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.profile = Some(Box::new(profile));
        }
        self.mark(RecordKey::Profile(id));
        self.changes.push_back(Change::Profile { id });
        Ok(())
    }

    /// GET_PROFILE.
    pub(crate) fn profile(&self, id: NodeId, target: NodeId) -> Result<Bytes, Refusal> {
        let found = self.visible(id, target)?;
        let profile = found.profile.as_ref();
        let profile = profile.ok_or(Refusal::NoProfile { id: target })?;
        Ok(profile.octets.clone())
    }

    /// The profile of `id`, whoever asks.
    pub(crate) fn own_profile(&self, id: NodeId) -> Option<Bytes> {
        let profile = self.clients.get(&id)?.profile.as_ref()?;
        Some(profile.octets.clone())
    }

    /// GET_DESCRIPTOR, for members.
    pub(crate) fn descriptor(&self, id: NodeId, cluster: ClusterId) -> Result<Bytes, Refusal> {
        Ok(self.sealed_of(id, cluster)?.descriptor().clone())
    }

    /// GET_MEMBERSHIP, for members.
    pub(crate) fn membership(
        &self,
        id: NodeId,
        cluster: ClusterId,
        target: NodeId,
    ) -> Result<Bytes, Refusal> {
        let found = self.sealed_of(id, cluster)?.membership(target);
        let id = target;
        found.cloned().ok_or(Refusal::NotAMember { id, cluster })
    }

    /// What to tell of `id` as a member, if there is something to tell.
    pub(crate) fn membership_of(&self, cluster: ClusterId, id: NodeId) -> Option<Bytes> {
        let sealed = self.clusters.get(&cluster)?.sealed.as_ref()?;
        sealed.membership(id).cloned()
    }

    /// Who was removed from `cluster`, if anybody was.
    pub(crate) fn revoked(&self, cluster: ClusterId) -> Option<Bytes> {
        let sealed = self.clusters.get(&cluster)?.sealed.as_ref()?;
        sealed.list().cloned()
    }

    /// The clusters with a descriptor that `id` is in.
    pub(crate) fn sealed_clusters(&self, id: NodeId) -> Vec<ClusterId> {
        let own = self.clients.get(&id).map(|client| &client.clusters);
        own.into_iter()
            .flatten()
            .copied()
            .filter(|cluster| {
                let found = self.clusters.get(cluster);
                found.is_some_and(|found| found.sealed.is_some())
            })
            .collect()
    }

    fn sealed_of(&self, id: NodeId, cluster: ClusterId) -> Result<&Sealed, Refusal> {
        self.own_cluster(id, Some(cluster))?;
        let found = self.clusters.get(&cluster);
        let sealed = found.and_then(|found| found.sealed.as_deref());
        sealed.ok_or(Refusal::NotSealed { cluster })
    }

    fn sealed_mut(&mut self, cluster: ClusterId) -> Result<&mut Sealed, Refusal> {
        let found = self.clusters.get_mut(&cluster);
        let sealed = found.and_then(|found| found.sealed.as_deref_mut());
        sealed.ok_or(Refusal::NotSealed { cluster })
    }

    /// A place as it is after a restart: away, to be resumed.
    pub(super) fn absent(until: std::time::Instant) -> Place {
        Place {
            present: false,
            until: Some(until),
            resumable: true,
            told: false,
        }
    }
}
