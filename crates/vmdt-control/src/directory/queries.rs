//! What can be asked of the directory.

use std::net::SocketAddr;

use vmdt_wire::{Caps, ClusterEntry, ClusterId, NodeId};

use super::Directory;
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

    /// LIST_CLUSTERS: the asker's own first, then by id.
    pub(crate) fn list(&self, id: NodeId) -> impl Iterator<Item = ClusterEntry> {
        let (own, others): (Vec<_>, Vec<_>) = self
            .clusters
            .iter()
            .partition(|(_, c)| c.places.contains_key(&id));
        own.into_iter()
            .chain(others)
            .map(|(&cluster, c)| ClusterEntry {
                cluster,
                creator: c.creator,
                n: c.n,
                k: c.k,
                members: u16::try_from(c.places.len()).unwrap_or(u16::MAX),
                active: c.state.is_active(),
            })
    }

    /// GET_CLIENT_INFO.
    pub(crate) fn address(&self, target: NodeId) -> Result<(SocketAddr, Option<Caps>), Refusal> {
        let client = self.client(target)?;
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
                    }
                })
                .collect(),
        })
    }
}
