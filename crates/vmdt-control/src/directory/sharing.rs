//! The state as several servers share it: what others have changed, taken in.
//!
//! Every server holds everything. One of them writes at a time, and each takes in what
//! the others have written, in that order; so all of them have the same clusters, places
//! and presences. Their members are told of a change as if it had happened here.
//!
//! Deadlines are not shared: each server counts the grace of a place from when it has
//! heard that the member went away, and whoever is first to find it over writes so.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{ClusterId, MemberState, NodeId};

use super::{Change, Client, Directory};
use crate::event::ConnId;
use crate::record::{ClusterValue, PlaceValue, PresenceValue, Record, RecordKey};
use crate::sealed::KeptProfile;
use crate::state::ClusterState;

impl Client {
    /// One that is connected nowhere.
    pub(super) fn absent() -> Client {
        Client {
            conn: None,
            elsewhere: false,
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: None,
            caps: None,
            clusters: BTreeSet::new(),
            profile: None,
            bucket: None,
        }
    }
}

impl Directory {
    /// From now on other servers read and write the same records.
    pub(crate) fn begin_sharing(&mut self) {
        self.shared = true;
        self.begin_recording();
    }

    /// Forgets everything, to begin anew from records.
    pub(crate) fn clear(&mut self) {
        self.clients.clear();
        self.clusters.clear();
        self.deadlines.clear();
        self.changes.clear();
        self.owed.clear();
        if let Some(dirty) = &mut self.dirty {
            dirty.clear();
        }
    }

    /// Whether there are records to be deleted that belong to nothing.
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Records those: whoever writes has everything that others have written, so what
    /// belongs to nothing here belongs to nothing anywhere.
    pub(crate) fn pay(&mut self) {
        if let Some(dirty) = &mut self.dirty {
            dirty.append(&mut self.owed);
        }
    }

    /// A record that belongs to nothing was found.
    pub(super) fn owe(&mut self, key: RecordKey) {
        if self.shared {
            self.owed.insert(key);
        }
    }

    pub(super) fn mark_presence(&mut self, id: NodeId) {
        if self.shared {
            self.mark(RecordKey::Presence(id));
        }
    }

    pub(super) fn presence_value(&self, id: NodeId) -> Option<PresenceValue> {
        let client = self.clients.get(&id)?;
        client.conn?;
        let present = |cluster: &&ClusterId| {
            let found = self.clusters.get(cluster);
            let place = found.and_then(|found| found.places.get(&id));
            place.is_some_and(|place| place.present)
        };
        Some(PresenceValue {
            ip: client.ip,
            port: client.port,
            caps: client.caps,
            present: client.clusters.iter().filter(present).copied().collect(),
        })
    }

    /// Takes in what another server has written at once. Returns the connections
    /// that have lost their clients to it, and how many records could not be read.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        records: impl IntoIterator<Item = Record>,
    ) -> (Vec<(ConnId, NodeId)>, usize) {
        self.applying = true;
        // What is there before what refers to it, what is gone in reverse.
        let mut put = Vec::new();
        let mut gone = Vec::new();
        for Record { key, value } in records {
            match value {
                Some(value) => put.push((key, value)),
                None => gone.push(key),
            }
        }
        put.sort_by_key(|(key, _)| *key);
        gone.sort_by_key(|key| std::cmp::Reverse(*key));
        let mut taken = Taken::default();
        for (key, value) in put {
            let done = match key {
                RecordKey::Cluster(cluster) => self.apply_cluster(cluster, &value),
                RecordKey::Place(cluster, id) => {
                    self.apply_place(now, cluster, id, &value, &mut taken)
                }
                RecordKey::Profile(id) => self.apply_profile(id, &value),
                RecordKey::Presence(id) => self.apply_presence(now, id, &value, &mut taken),
            };
            taken.unread += usize::from(done.is_none());
        }
        for key in gone {
            match key {
                RecordKey::Presence(id) => {
                    if self.clients.get(&id).is_some_and(|c| c.elsewhere) {
                        self.lost(now, id);
                    }
                }
                RecordKey::Profile(id) => {
                    self.owed.remove(&key);
                    if let Some(client) = self.clients.get_mut(&id) {
                        client.profile = None;
                    }
                }
                RecordKey::Place(cluster, id) => {
                    let found = self.clusters.get(&cluster);
                    if found.is_some_and(|found| found.places.contains_key(&id)) {
                        self.remove_place(cluster, id);
                    }
                }
                RecordKey::Cluster(cluster) => {
                    let found = self.clusters.get(&cluster);
                    let members = found.map(|found| found.places.keys().copied().collect());
                    let members: Vec<NodeId> = members.unwrap_or_default();
                    for id in members {
                        self.remove_place(cluster, id);
                    }
                    if self.clusters.remove(&cluster).is_some() {
                        self.changes.push_back(Change::Removed { cluster });
                    }
                }
            }
        }
        // Members that have come and gone in one go.
        for (cluster, id) in taken.new {
            let found = self.clusters.get(&cluster);
            if found.is_some_and(|found| found.places.contains_key(&id)) {
                let state = MemberState::Away;
                self.changes
                    .push_back(Change::Member { cluster, id, state });
            }
            taken.touched.insert(cluster);
        }
        for cluster in taken.touched {
            self.settle(cluster);
        }
        self.applying = false;
        (taken.superseded, taken.unread)
    }

    fn apply_cluster(&mut self, cluster: ClusterId, value: &Bytes) -> Option<()> {
        let Some(found) = self.clusters.get_mut(&cluster) else {
            self.restore_cluster(cluster, value)?;
            let found = self.clusters.get(&cluster)?;
            self.changes.push_back(Change::Created {
                cluster,
                creator: found.creator,
                n: found.n,
                k: found.k,
            });
            return Some(());
        };
        let value = ClusterValue::parse(value).ok()?;
        if value.been_ready && !found.state.has_been_ready() {
            // Who has written this was the first to find it ready; settling follows.
            found.state = ClusterState::Suspended;
        }
        if let (Some(sealed), Some(list)) = (&mut found.sealed, &value.list)
            && let Some(removed) = sealed.revoke(list).ok()?
        {
            self.changes.push_back(Change::Revoked { cluster, removed });
        }
        Some(())
    }

    fn apply_place(
        &mut self,
        now: Instant,
        cluster: ClusterId,
        id: NodeId,
        value: &Bytes,
        taken: &mut Taken,
    ) -> Option<()> {
        let before = self.membership_of(cluster, id);
        let found = self.clusters.get(&cluster)?;
        if !found.places.contains_key(&id) {
            self.restore_place(now, cluster, id, value)?;
            taken.new.insert((cluster, id));
        } else {
            let value = PlaceValue::parse(value).ok()?;
            if let Some(client) = self.clients.get_mut(&id)
                && !client.is_connected()
            {
                client.caps = value.caps;
            }
            if let Some(sealed) = self.clusters.get_mut(&cluster)?.sealed.as_mut()
                && value.membership != before
            {
                sealed.readmit(id, value.membership.as_deref()?).ok()?;
            }
        }
        if self.membership_of(cluster, id) != before {
            self.changes.push_back(Change::Membership { cluster, id });
        }
        Some(())
    }

    fn apply_profile(&mut self, id: NodeId, octets: &Bytes) -> Option<()> {
        let profile = KeptProfile::parse(id, octets).ok()?;
        // A client without a place is known by its presence, which comes later.
        let client = self.clients.entry(id).or_insert_with(Client::absent);
        let known = client.profile.as_ref();
        if known.is_none_or(|known| known.octets != profile.octets) {
            client.profile = Some(Box::new(profile));
            self.changes.push_back(Change::Profile { id });
        }
        self.owed.remove(&RecordKey::Profile(id));
        Some(())
    }

    fn apply_presence(
        &mut self,
        now: Instant,
        id: NodeId,
        value: &Bytes,
        taken: &mut Taken,
    ) -> Option<()> {
        let value = PresenceValue::parse(value).ok()?;
        let client = self.clients.entry(id).or_insert_with(Client::absent);
        if let Some(conn) = client.conn.take() {
            taken.superseded.push((conn, id));
        }
        let moved = (client.address(), client.caps);
        client.elsewhere = true;
        client.ip = value.ip;
        client.port = value.port;
        client.caps = value.caps;
        let moved = moved != (client.address(), client.caps);
        let clusters: Vec<ClusterId> = client.clusters.iter().copied().collect();
        if moved {
            self.tell_moved(id);
        }
        for cluster in clusters {
            let grace = self.grace_of(cluster);
            let Some(place) = self.place_mut(cluster, id) else {
                continue;
            };
            let present = value.present.contains(&cluster);
            let changed = place.present != present;
            let old = place.until;
            place.present = present;
            place.until = match present {
                true => None,
                false => Some(old.unwrap_or(now + grace)),
            };
            let until = place.until;
            self.move_deadline(cluster, id, old, until);
            if !changed {
                continue;
            }
            taken.touched.insert(cluster);
            let new = taken.new.remove(&(cluster, id));
            let state = match (present, new) {
                (true, true) => MemberState::Joined,
                (true, false) => MemberState::Back,
                (false, _) => MemberState::Away,
            };
            self.changes
                .push_back(Change::Member { cluster, id, state });
        }
        Some(())
    }
}

/// What taking records in leads to.
#[derive(Debug, Default)]
struct Taken {
    /// Places that are new, and of which nobody was told.
    new: BTreeSet<(ClusterId, NodeId)>,
    touched: BTreeSet<ClusterId>,
    superseded: Vec<(ConnId, NodeId)>,
    unread: usize,
}
