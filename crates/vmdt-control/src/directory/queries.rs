//! What can be asked of the directory, and what it remembers of a connection.

use std::net::SocketAddr;
use std::ops::Bound;

use vmdt_wire::{Caps, ClusterEntry, ClusterId, NodeId};

use super::{Client, Directory};
use crate::bucket::Bucket;
use crate::error::Refusal;
use crate::event::{ClusterView, ConnId, MemberView};

impl Directory {
    /// GET_CLUSTER_MEMBERS; without a cluster named, the only one the client is in.
    pub(crate) fn members(
        &self,
        id: NodeId,
        named: Option<ClusterId>,
    ) -> Result<Vec<NodeId>, Refusal> {
        let cluster = self.own_cluster(id, named)?;
        let found = self.clusters.get(&cluster);
        Ok(found
            .map(|c| c.places.keys().copied().collect())
            .unwrap_or_default())
    }

    /// LIST_CLUSTERS: the asker's own first, then those that are listed, each by
    /// id; what follows `after` in that order.
    pub(crate) fn list(
        &self,
        id: NodeId,
        after: Option<ClusterId>,
    ) -> impl Iterator<Item = ClusterEntry> {
        let all_own = self.clients.get(&id).map(|client| &client.clusters);
        let is_own = move |cluster: &ClusterId| all_own.is_some_and(|own| own.contains(cluster));
        let excluded = |after| (Bound::Excluded(after), Bound::Unbounded);
        let all = (Bound::Unbounded, Bound::Unbounded);
        let (own, others) = match after {
            None => (Some(all), all),
            Some(after) if is_own(&after) => (Some(excluded(after)), all),
            Some(after) => (None, excluded(after)),
        };
        let own = own
            .into_iter()
            .flat_map(move |range| all_own.into_iter().flat_map(move |own| own.range(range)))
            .filter_map(|cluster| self.clusters.get_key_value(cluster));
        let others = self
            .clusters
            .range(others)
            .filter(move |(cluster, found)| found.is_listed() && !is_own(cluster));
        own.chain(others).map(|(&cluster, c)| ClusterEntry {
            cluster,
            creator: c.creator,
            n: c.n,
            k: c.k,
            members: u16::try_from(c.places.len()).unwrap_or(u16::MAX),
            active: c.state.is_active(),
        })
    }

    /// GET_CLIENT_INFO. Who has an identity is shown to members of its clusters
    /// only.
    pub(crate) fn address(
        &self,
        id: NodeId,
        target: NodeId,
    ) -> Result<(SocketAddr, Option<Caps>), Refusal> {
        let client = self.visible(id, target)?;
        let address = client.address().ok_or(Refusal::NoPort { id: target })?;
        Ok((address, client.caps))
    }

    /// The connection to which a MESSAGE_SHARE goes, if it may go.
    ///
    /// The line names no cluster, so when several are common to the three the
    /// smallest k rules: the server never gets to see k shares of any of them.
    pub(crate) fn route(
        &self,
        from: NodeId,
        to: NodeId,
        target: NodeId,
        index: u16,
    ) -> Result<ConnId, Refusal> {
        let sender = self.client(from)?;
        let recipient = self.client(to)?;
        let addressee = self.client(target)?;
        let common = sender
            .clusters
            .iter()
            .filter(|c| recipient.clusters.contains(c) && addressee.clusters.contains(c))
            .filter_map(|c| self.clusters.get(c));
        let least =
            common
                .map(|c| c.k)
                .min()
                .ok_or(Refusal::NoCommonCluster { from, to, target })?;
        if index >= least {
            return Err(Refusal::RelayIndex {
                index,
                most: least - 1,
            });
        }
        recipient.conn.ok_or(Refusal::Away { id: to })
    }

    /// The client `target`, unless it has an identity and no cluster in common
    /// with `id`: then it is as if there were none.
    pub(super) fn visible(&self, id: NodeId, target: NodeId) -> Result<&Client, Refusal> {
        let found = self.client(target)?;
        let common = || {
            let own = self.clients.get(&id);
            own.is_some_and(|own| !own.clusters.is_disjoint(&found.clusters))
        };
        if target.is_sealed() && target != id && !common() {
            return Err(Refusal::UnknownClient { id: target });
        }
        Ok(found)
    }

    /// Where the profile of `id` says it is.
    fn claimed(&self, id: NodeId) -> &[SocketAddr] {
        let profile = self.clients.get(&id).and_then(|c| c.profile.as_ref());
        profile.map_or(&[], |profile| profile.addresses())
    }

    pub(crate) fn connection(&self, id: NodeId) -> Option<ConnId> {
        self.clients.get(&id)?.conn
    }

    pub(crate) fn caps(&self, id: NodeId) -> Option<Caps> {
        self.clients.get(&id)?.caps
    }

    pub(crate) fn details(&self, id: NodeId) -> (Option<SocketAddr>, Option<Caps>) {
        self.clients
            .get(&id)
            .map_or((None, None), |c| (c.address(), c.caps))
    }

    pub(crate) fn in_a_cluster(&self, id: NodeId) -> bool {
        self.clients
            .get(&id)
            .is_some_and(|c| !c.clusters.is_empty())
    }

    /// Everybody with a place in `cluster`, and whether they are present.
    pub(crate) fn places(&self, cluster: ClusterId) -> impl Iterator<Item = (NodeId, bool)> {
        self.clusters
            .get(&cluster)
            .into_iter()
            .flat_map(|c| c.places.iter().map(|(&id, place)| (id, place.present)))
    }

    pub(crate) fn client_count(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = ClusterView> {
        self.clusters.iter().map(|(&id, cluster)| ClusterView {
            id,
            creator: cluster.creator,
            n: cluster.n,
            k: cluster.k,
            options: cluster.options(),
            state: cluster.state,
            sealed: cluster.sealed.is_some(),
            members: cluster
                .places
                .iter()
                .map(|(&id, place)| {
                    let (address, caps) = self.details(id);
                    MemberView {
                        id,
                        present: place.present,
                        address,
                        caps,
                        claimed: self.claimed(id).to_vec(),
                    }
                })
                .collect(),
        })
    }

    /// Remembers how much of its allowance a client has used, while it is known.
    pub(crate) fn keep_bucket(&mut self, id: NodeId, bucket: &Bucket) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.bucket = Some(bucket.clone());
        }
    }

    pub(crate) fn take_bucket(&mut self, id: NodeId) -> Option<Bucket> {
        self.clients.get_mut(&id)?.bucket.take()
    }
}
