//! The state as records, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{ClusterId, NodeId};

use super::{Client, Cluster, Directory};
use crate::record::{ClusterValue, PlaceValue, Record, RecordKey, Restored};
use crate::sealed::{KeptProfile, Sealed};
use crate::state::ClusterState;

impl Directory {
    /// From now on changes are recorded.
    pub(crate) fn begin_recording(&mut self) {
        self.dirty.get_or_insert_default();
    }

    /// The next key that has changed, with its value as it is now.
    pub(crate) fn next_record(&mut self) -> Option<Record> {
        let key = self.dirty.as_mut()?.pop_first()?;
        let value = match key {
            RecordKey::Cluster(cluster) => self.cluster_value(cluster).map(|v| v.encode()),
            RecordKey::Place(cluster, id) => self.place_value(cluster, id).map(|v| v.encode()),
            RecordKey::Profile(id) => self.own_profile(id),
            RecordKey::Presence(id) => self.presence_value(id).map(|v| v.encode()),
        };
        Some(Record { key, value })
    }

    fn cluster_value(&self, cluster: ClusterId) -> Option<ClusterValue> {
        let found = self.clusters.get(&cluster)?;
        let sealed = found.sealed.as_ref();
        Some(ClusterValue {
            creator: found.creator,
            n: found.n,
            k: found.k,
            max: found.max,
            open: found.open,
            been_ready: found.state.has_been_ready(),
            descriptor: sealed.map(|sealed| sealed.descriptor().clone()),
            list: sealed.and_then(|sealed| sealed.list().cloned()),
        })
    }

    fn place_value(&self, cluster: ClusterId, id: NodeId) -> Option<PlaceValue> {
        let found = self.clusters.get(&cluster)?;
        found.places.get(&id)?;
        Some(PlaceValue {
            caps: self.caps(id),
            membership: self.membership_of(cluster, id),
        })
    }

    /// Takes in what was recorded before a restart. Everybody is away, and has
    /// the grace period from now on to come back.
    pub(crate) fn restore(
        &mut self,
        now: Instant,
        records: impl IntoIterator<Item = (RecordKey, Bytes)>,
    ) -> Restored {
        let mut restored = Restored::default();
        let mut clusters = BTreeMap::new();
        let mut places = Vec::new();
        let mut profiles = Vec::new();
        let mut presences = Vec::new();
        for (key, value) in records {
            match key {
                RecordKey::Cluster(cluster) => {
                    clusters.insert(cluster, value);
                }
                RecordKey::Place(cluster, id) => places.push((cluster, id, value)),
                RecordKey::Profile(id) => profiles.push((id, value)),
                RecordKey::Presence(id) => presences.push(Record {
                    key,
                    value: Some(value).filter(|_| self.shared && id != NodeId::EMPTY),
                }),
            }
        }
        let known: BTreeSet<ClusterId> = clusters.keys().copied().collect();
        for (cluster, value) in clusters {
            match self.restore_cluster(cluster, &value) {
                Some(()) => restored.clusters += 1,
                None => restored.skipped += 1,
            }
        }
        for (cluster, id, value) in places {
            match self.restore_place(now, cluster, id, &value) {
                Some(()) => restored.places += 1,
                None => restored.skipped += 1,
            }
            if !known.contains(&cluster) {
                self.owe(RecordKey::Place(cluster, id));
            }
        }
        let (_, unread) = self.apply(now, presences);
        restored.skipped += unread;
        for (id, octets) in profiles {
            match (KeptProfile::parse(id, &octets), self.clients.get_mut(&id)) {
                (Ok(profile), Some(client)) => {
                    client.profile = Some(Box::new(profile));
                    restored.profiles += 1;
                }
                (Ok(_), None) => {
                    restored.skipped += 1;
                    self.owe(RecordKey::Profile(id));
                }
                _ => restored.skipped += 1,
            }
        }
        // A cluster without places has ended; what is left was cut off by a crash.
        let empty = |(_, found): &(&ClusterId, &Cluster)| found.places.is_empty();
        let ended: BTreeSet<ClusterId> = self
            .clusters
            .iter()
            .filter(empty)
            .map(|(&c, _)| c)
            .collect();
        for cluster in ended {
            self.clusters.remove(&cluster);
            self.owe(RecordKey::Cluster(cluster));
            restored.clusters -= 1;
            restored.skipped += 1;
        }
        restored
    }

    pub(super) fn restore_cluster(&mut self, cluster: ClusterId, value: &[u8]) -> Option<()> {
        let value = ClusterValue::parse(value).ok()?;
        if self.clusters.len() >= self.max_clusters {
            return None;
        }
        let sealed = match &value.descriptor {
            None => None,
            Some(descriptor) => {
                let mut sealed = Sealed::new(0, descriptor).ok()?;
                if sealed.cluster() != cluster || sealed.n() != value.n || sealed.k() != value.k {
                    return None;
                }
                if let Some(list) = &value.list {
                    sealed.revoke(list).ok()?;
                }
                Some(Box::new(sealed))
            }
        };
        let state = match value.been_ready {
            true => ClusterState::Suspended,
            false => ClusterState::Creating,
        };
        let made = Cluster {
            creator: value.creator,
            n: value.n,
            k: value.k,
            open: value.open,
            max: value.max,
            state,
            places: BTreeMap::new(),
            sealed,
        };
        self.clusters.insert(cluster, made);
        Some(())
    }

    pub(super) fn restore_place(
        &mut self,
        now: Instant,
        cluster: ClusterId,
        id: NodeId,
        value: &[u8],
    ) -> Option<()> {
        let value = PlaceValue::parse(value).ok()?;
        let until = now + self.grace_of(cluster);
        if !self.clients.contains_key(&id) && self.clients.len() >= self.max_clients {
            return None;
        }
        let found = self.clusters.get_mut(&cluster)?;
        if let Some(sealed) = &mut found.sealed {
            sealed.readmit(id, value.membership.as_deref()?).ok()?;
        }
        found.places.insert(id, Directory::absent(until));
        self.deadlines.insert((until, cluster, id));
        let client = self.clients.entry(id).or_insert_with(|| Client {
            caps: value.caps,
            ..Client::absent()
        });
        client.clusters.insert(cluster);
        Some(())
    }
}
