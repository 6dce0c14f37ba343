//! Who is in which cluster: the registry's state without connections' octets.
//!
//! Every operation either succeeds as a whole or refuses and changes nothing.
//! What others must be told is queued as [`Change`]s, in the order in which it
//! must be told.
//!
//! **Places and presence.** A member has a *place* in each of its clusters. The
//! place is present while the member's connection is up, away for a grace period
//! after the connection was lost, and gone after that. A client with capabilities
//! that reconnects is away until it has sent JOIN_CLUSTER for the cluster again:
//! a process that was restarted and has forgotten its clusters must not be
//! counted on, and loses its places when the grace ends. A client of profile 1.0
//! does not know that rule and is back as soon as it names itself.
//!
//! **Readiness.** In an active cluster every present member has been told so
//! once since its place was taken; [`Directory::settle`] keeps that invariant, so
//! CLUSTER_READY is pushed when it is news and never flaps.

mod persistence;
mod queries;
mod sharing;
mod signed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use vmdt_wire::{Caps, ClusterId, ClusterInfo, ClusterOptions, MemberState, NodeId};

use crate::bucket::Bucket;
use crate::config::RegistryConfig;
use crate::error::Refusal;
use crate::event::ConnId;
use crate::record::RecordKey;
use crate::sealed::{KeptProfile, Sealed};
use crate::state::{Census, ClusterState};

/// Characters after `cluster_`: 51 bits, which nobody guesses over a network.
const ID_CHARACTERS: usize = 10;

/// Something others must be told.
#[derive(Debug)]
pub(crate) enum Change {
    Created {
        cluster: ClusterId,
        creator: NodeId,
        n: u16,
        k: u16,
    },
    Removed {
        cluster: ClusterId,
    },
    State {
        cluster: ClusterId,
        from: ClusterState,
        to: ClusterState,
    },
    /// Tell every other present member that has capabilities.
    Member {
        cluster: ClusterId,
        id: NodeId,
        state: MemberState,
    },
    /// Tell every other present member that has capabilities of a membership.
    Membership {
        cluster: ClusterId,
        id: NodeId,
    },
    /// Tell every present member who was removed, and those too.
    Revoked {
        cluster: ClusterId,
        removed: Vec<NodeId>,
    },
    /// Tell everybody in a sealed cluster of the client of its new profile.
    Profile {
        id: NodeId,
    },
    /// Tell `to` about every other member.
    Roster {
        cluster: ClusterId,
        to: NodeId,
    },
    /// Tell these members that they may send.
    Ready {
        cluster: ClusterId,
        to: Vec<NodeId>,
    },
}

/// One member's place in one cluster.
#[derive(Debug)]
struct Place {
    present: bool,
    /// When the place is lost unless the member joins again.
    until: Option<Instant>,
    /// Whether JOIN_CLUSTER resumes this place instead of being an error.
    resumable: bool,
    /// Whether the member knows that the cluster is active.
    told: bool,
}

#[derive(Debug)]
struct Cluster {
    creator: NodeId,
    n: u16,
    k: u16,
    open: bool,
    max: u16,
    state: ClusterState,
    places: BTreeMap<NodeId, Place>,
    sealed: Option<Box<Sealed>>,
}

impl Cluster {
    fn present(&self) -> usize {
        self.places.values().filter(|p| p.present).count()
    }

    fn is_listed(&self) -> bool {
        self.sealed.as_ref().is_none_or(|sealed| sealed.is_listed())
    }

    fn options(&self) -> ClusterOptions {
        ClusterOptions {
            open_peers: self.open,
            max_members: Some(self.max),
        }
    }

    fn info(&self) -> ClusterInfo {
        ClusterInfo {
            n: self.n,
            k: self.k,
            options: self.options(),
        }
    }
}

#[derive(Debug)]
struct Client {
    conn: Option<ConnId>,
    /// Whether it is connected to another of the servers that share the state.
    elsewhere: bool,
    ip: IpAddr,
    port: Option<NonZeroU16>,
    caps: Option<Caps>,
    clusters: BTreeSet<ClusterId>,
    profile: Option<Box<KeptProfile>>,
    /// The allowance of its last connection.
    bucket: Option<Bucket>,
}

impl Client {
    /// Whether it is connected, to whichever server.
    fn is_connected(&self) -> bool {
        self.conn.is_some() || self.elsewhere
    }

    fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(self.ip, port.get()))
    }

    fn speaks_rdt(&self) -> bool {
        speaks_rdt(self.caps)
    }
}

fn speaks_rdt(caps: Option<Caps>) -> bool {
    caps.is_some_and(|caps| caps.contains(Caps::RDT))
}

/// The clusters and the clients.
#[derive(Debug)]
pub(crate) struct Directory {
    grace: Duration,
    grace_sealed: Duration,
    max_clients: usize,
    max_clusters: usize,
    max_clusters_per_client: usize,
    max_members: u16,
    rng: ChaCha20Rng,
    clients: BTreeMap<NodeId, Client>,
    clusters: BTreeMap<ClusterId, Cluster>,
    /// One entry for every place with an `until`.
    deadlines: BTreeSet<(Instant, ClusterId, NodeId)>,
    changes: VecDeque<Change>,
    /// What has changed since it was last recorded; `None` while nobody records.
    dirty: Option<BTreeSet<RecordKey>>,
    /// How often something has changed that is recorded, if anybody does.
    marks: u64,
    /// Whether other servers read and write the same records.
    shared: bool,
    /// Whether another server's records are being taken in.
    applying: bool,
    /// Records that belong to nothing any more and that nobody has deleted.
    owed: BTreeSet<RecordKey>,
}

impl Directory {
    pub(crate) fn new(config: &RegistryConfig, rng: ChaCha20Rng) -> Directory {
        Directory {
            grace: config.grace,
            grace_sealed: config.grace_sealed,
            max_clients: config.max_clients,
            max_clusters: config.max_clusters,
            max_clusters_per_client: config.max_clusters_per_client,
            max_members: config.max_members,
            rng,
            clients: BTreeMap::new(),
            clusters: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            changes: VecDeque::new(),
            dirty: None,
            marks: 0,
            shared: false,
            applying: false,
            owed: BTreeSet::new(),
        }
    }

    /// How often something has changed that a store keeps.
    pub(crate) fn marks(&self) -> u64 {
        self.marks
    }

    fn mark(&mut self, key: RecordKey) {
        if self.applying {
            // Who made the change has recorded it, except for what nobody made:
            // the client of a server that ended is forgotten.
            if matches!(key, RecordKey::Profile(_)) {
                self.owed.insert(key);
            }
            return;
        }
        self.marks += 1;
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(key);
        }
    }

    /// How long a place in `cluster` is kept for a member that is away.
    fn grace_of(&self, cluster: ClusterId) -> Duration {
        let found = self.clusters.get(&cluster);
        match found.is_some_and(|found| found.sealed.is_some()) {
            true => self.grace_sealed,
            false => self.grace,
        }
    }

    /// What must be told next.
    pub(crate) fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// When [`Directory::expire`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, ..)| at)
    }

    /// Gives `id` to the connection `conn` from `ip`. The id of a lost
    /// connection is free for anybody (profile 1.0 has no proof of identity);
    /// that of a live one moves only to a connection from the same address,
    /// which is then the same host reconnecting. A connection that has proven to
    /// be `id` takes it in any case. Returns the connection that lost the id.
    pub(crate) fn bind(
        &mut self,
        now: Instant,
        id: NodeId,
        conn: ConnId,
        ip: IpAddr,
        proven: bool,
    ) -> Result<Option<ConnId>, Refusal> {
        if id == NodeId::EMPTY {
            return Err(Refusal::EmptyId);
        }
        let Some(client) = self.clients.get_mut(&id) else {
            if self.clients.len() >= self.max_clients {
                return Err(Refusal::TooManyClients {
                    limit: self.max_clients,
                });
            }
            self.clients.insert(
                id,
                Client {
                    conn: Some(conn),
                    elsewhere: false,
                    ip,
                    port: None,
                    caps: None,
                    clusters: BTreeSet::new(),
                    profile: None,
                    bucket: None,
                },
            );
            self.mark_presence(id);
            return Ok(None);
        };
        if client.is_connected() && client.ip != ip && !proven {
            return Err(Refusal::IdInUse { id });
        }
        let superseded = client.conn.replace(conn);
        client.elsewhere = false;
        client.ip = ip;
        let rejoins = client.caps.is_some();
        let clusters: Vec<ClusterId> = client.clusters.iter().copied().collect();
        for cluster in clusters {
            self.returned(now, id, cluster, rejoins);
        }
        self.mark_presence(id);
        Ok(superseded)
    }

    /// The place of a client that has a connection again.
    fn returned(&mut self, now: Instant, id: NodeId, cluster: ClusterId, rejoins: bool) {
        let grace = self.grace_of(cluster);
        let Some(place) = self.place_mut(cluster, id) else {
            return;
        };
        place.resumable = true;
        let was_away = !place.present;
        let old = place.until;
        let until = match (rejoins, old) {
            (true, Some(until)) => Some(until),
            (true, None) => Some(now + grace),
            (false, _) => None,
        };
        place.until = until;
        place.present |= !rejoins;
        let back = was_away && place.present;
        self.move_deadline(cluster, id, old, until);
        if back {
            self.changes.push_back(Change::Member {
                cluster,
                id,
                state: MemberState::Back,
            });
            self.settle(cluster);
        }
    }

    /// The connection of `id` is gone: its places are kept for the grace period.
    pub(crate) fn lost(&mut self, now: Instant, id: NodeId) {
        self.mark_presence(id);
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.conn = None;
        client.elsewhere = false;
        if client.clusters.is_empty() {
            self.forget_client(id);
            return;
        }
        let clusters: Vec<ClusterId> = client.clusters.iter().copied().collect();
        for cluster in clusters {
            let until = now + self.grace_of(cluster);
            let Some(place) = self.place_mut(cluster, id) else {
                continue;
            };
            place.resumable = true;
            let was_present = std::mem::replace(&mut place.present, false);
            let old = place.until;
            let until = old.map_or(until, |old| old.min(until));
            place.until = Some(until);
            self.move_deadline(cluster, id, old, Some(until));
            if was_present {
                self.changes.push_back(Change::Member {
                    cluster,
                    id,
                    state: MemberState::Away,
                });
                self.settle(cluster);
            }
        }
    }

    /// Takes the places whose grace has ended.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(at, cluster, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            self.remove_place(cluster, id);
        }
    }

    /// REGISTER_P2P_PORT.
    pub(crate) fn register(
        &mut self,
        id: NodeId,
        port: u16,
        caps: Option<Caps>,
    ) -> Result<(), Refusal> {
        let port = NonZeroU16::new(port).ok_or(Refusal::PortZero)?;
        let client = self.client(id)?;
        if !speaks_rdt(caps) {
            let closed = client
                .clusters
                .iter()
                .find(|c| self.clusters.get(c).is_some_and(|c| !c.open));
            if let Some(&cluster) = closed {
                return Err(Refusal::ClosedToOpenPeers { cluster });
            }
        }
        let Some(client) = self.clients.get_mut(&id) else {
            return Err(Refusal::UnknownClient { id });
        };
        let before = (client.address(), client.caps);
        client.port = Some(port);
        client.caps = caps;
        if (client.address(), client.caps) == before {
            return Ok(());
        }
        if client.caps != before.1 {
            let clusters: Vec<ClusterId> = client.clusters.iter().copied().collect();
            for cluster in clusters {
                self.mark(RecordKey::Place(cluster, id));
            }
        }
        self.mark_presence(id);
        self.tell_moved(id);
        Ok(())
    }

    /// Tells the clusters of `id` that its address or capabilities have changed.
    fn tell_moved(&mut self, id: NodeId) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        // A changed address is told as a return to those who hold the old one.
        for &cluster in &client.clusters {
            let present = self
                .clusters
                .get(&cluster)
                .and_then(|c| c.places.get(&id))
                .is_some_and(|p| p.present);
            if present {
                self.changes.push_back(Change::Member {
                    cluster,
                    id,
                    state: MemberState::Back,
                });
            }
        }
    }

    /// CREATE_CLUSTER. `single`: the client may be in one cluster only.
    pub(crate) fn create(
        &mut self,
        id: NodeId,
        n: u16,
        k: u16,
        options: Option<ClusterOptions>,
        single: bool,
    ) -> Result<(ClusterId, ClusterInfo), Refusal> {
        if !(2..=255).contains(&n) || !(2..=n).contains(&k) {
            return Err(Refusal::Threshold { n, k });
        }
        let max = match options.as_ref().and_then(|o| o.max_members) {
            None => (n + 1).min(self.max_members),
            Some(max) if (n..=self.max_members).contains(&max) => max,
            Some(max) => {
                return Err(Refusal::MaxMembers {
                    max,
                    n,
                    limit: self.max_members,
                });
            }
        };
        self.may_take_a_place(id, single)?;
        if self.clusters.len() >= self.max_clusters {
            return Err(Refusal::TooManyClusters {
                limit: self.max_clusters,
            });
        }
        let open = options.is_some_and(|o| o.open_peers) || !self.client(id)?.speaks_rdt();
        let cluster = self.fresh_id()?;
        let made = Cluster {
            creator: id,
            n,
            k,
            open,
            max,
            state: ClusterState::Empty,
            places: BTreeMap::new(),
            sealed: None,
        };
        let info = made.info();
        self.clusters.insert(cluster, made);
        self.mark(RecordKey::Cluster(cluster));
        self.changes.push_back(Change::Created {
            cluster,
            creator: id,
            n,
            k,
        });
        self.add_place(cluster, id);
        Ok((cluster, info))
    }

    /// JOIN_CLUSTER: takes a place, or resumes the one kept.
    pub(crate) fn join(
        &mut self,
        id: NodeId,
        cluster: ClusterId,
        single: bool,
    ) -> Result<ClusterInfo, Refusal> {
        let client = self.client(id)?;
        let found = self
            .clusters
            .get(&cluster)
            .ok_or(Refusal::UnknownCluster { cluster })?;
        if !found.open && !client.speaks_rdt() {
            return Err(Refusal::ClosedToOpenPeers { cluster });
        }
        let info = found.info();
        match found.places.get(&id) {
            Some(place) if place.resumable => {
                self.resume(cluster, id);
                return Ok(info);
            }
            Some(_) => return Err(Refusal::AlreadyMember { id, cluster }),
            None if found.sealed.is_some() => return Err(Refusal::NeedsMembership { cluster }),
            None => {}
        }
        self.may_take_a_place(id, single)?;
        if found.places.len() >= usize::from(found.max) {
            return Err(Refusal::ClusterFull {
                cluster,
                max: found.max,
            });
        }
        self.add_place(cluster, id);
        Ok(info)
    }

    /// LEAVE_CLUSTER; without a cluster named, the only one the client is in.
    pub(crate) fn leave(&mut self, id: NodeId, named: Option<ClusterId>) -> Result<(), Refusal> {
        let cluster = self.own_cluster(id, named)?;
        self.remove_place(cluster, id);
        Ok(())
    }

    fn forget_client(&mut self, id: NodeId) {
        if let Some(client) = self.clients.remove(&id)
            && client.profile.is_some()
        {
            self.mark(RecordKey::Profile(id));
        }
    }

    fn client(&self, id: NodeId) -> Result<&Client, Refusal> {
        self.clients.get(&id).ok_or(Refusal::UnknownClient { id })
    }

    fn place_mut(&mut self, cluster: ClusterId, id: NodeId) -> Option<&mut Place> {
        self.clusters.get_mut(&cluster)?.places.get_mut(&id)
    }

    fn own_cluster(&self, id: NodeId, named: Option<ClusterId>) -> Result<ClusterId, Refusal> {
        let own = &self.client(id)?.clusters;
        match (named, own.first()) {
            (Some(cluster), _) if own.contains(&cluster) => Ok(cluster),
            (Some(cluster), _) if self.clusters.contains_key(&cluster) => {
                Err(Refusal::NotAMember { id, cluster })
            }
            (Some(cluster), _) => Err(Refusal::UnknownCluster { cluster }),
            (None, None) => Err(Refusal::InNoCluster { id }),
            (None, Some(&only)) if own.len() == 1 => Ok(only),
            (None, Some(_)) => Err(Refusal::NameACluster {
                id,
                count: own.len(),
            }),
        }
    }

    fn may_take_a_place(&self, id: NodeId, single: bool) -> Result<(), Refusal> {
        let own = &self.client(id)?.clusters;
        match own.first() {
            Some(&cluster) if single => Err(Refusal::OneClusterOnly { id, cluster }),
            _ if own.len() >= self.max_clusters_per_client => Err(Refusal::TooManyForClient {
                id,
                limit: self.max_clusters_per_client,
            }),
            _ => Ok(()),
        }
    }

    fn add_place(&mut self, cluster: ClusterId, id: NodeId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.clusters.insert(cluster);
        }
        if let Some(found) = self.clusters.get_mut(&cluster) {
            let place = Place {
                present: true,
                until: None,
                resumable: false,
                told: false,
            };
            found.places.insert(id, place);
        }
        self.mark(RecordKey::Place(cluster, id));
        self.mark_presence(id);
        self.arrived(cluster, id, Some(MemberState::Joined));
    }

    fn resume(&mut self, cluster: ClusterId, id: NodeId) {
        let Some(place) = self.place_mut(cluster, id) else {
            return;
        };
        let was_away = !place.present;
        let old = place.until.take();
        place.present = true;
        place.resumable = false;
        place.told = false;
        self.move_deadline(cluster, id, old, None);
        if was_away {
            self.mark_presence(id);
        }
        self.arrived(cluster, id, was_away.then_some(MemberState::Back));
    }

    fn arrived(&mut self, cluster: ClusterId, id: NodeId, told_as: Option<MemberState>) {
        if let Some(state) = told_as {
            self.changes
                .push_back(Change::Member { cluster, id, state });
        }
        self.changes.push_back(Change::Roster { cluster, to: id });
        self.settle(cluster);
    }

    fn remove_place(&mut self, cluster: ClusterId, id: NodeId) {
        self.changes.push_back(Change::Member {
            cluster,
            id,
            state: MemberState::Left,
        });
        self.take_place(cluster, id);
    }

    /// Takes the place without a word to the others.
    fn take_place(&mut self, cluster: ClusterId, id: NodeId) {
        let removed = self.clusters.get_mut(&cluster).and_then(|found| {
            if let Some(sealed) = &mut found.sealed {
                sealed.forget(id);
            }
            found.places.remove(&id)
        });
        self.mark(RecordKey::Place(cluster, id));
        if let Some(place) = removed {
            self.move_deadline(cluster, id, place.until, None);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.clusters.remove(&cluster);
            if !client.is_connected() && client.clusters.is_empty() {
                self.forget_client(id);
            }
        }
        self.settle(cluster);
    }

    fn move_deadline(
        &mut self,
        cluster: ClusterId,
        id: NodeId,
        old: Option<Instant>,
        new: Option<Instant>,
    ) {
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.deadlines.remove(&(at, cluster, id));
        }
        if let Some(at) = new {
            self.deadlines.insert((at, cluster, id));
        }
    }

    /// Brings the cluster's state up to date, tells present members of an active
    /// cluster that have not been told, and removes an empty cluster.
    fn settle(&mut self, cluster: ClusterId) {
        let Some(found) = self.clusters.get_mut(&cluster) else {
            return;
        };
        let from = found.state;
        let to = from.after(Census {
            places: found.places.len(),
            present: found.present(),
            n: found.n,
            k: found.k,
        });
        found.state = to;
        if from != to {
            self.changes.push_back(Change::State { cluster, from, to });
            if !from.has_been_ready() && to.has_been_ready() {
                self.mark(RecordKey::Cluster(cluster));
            }
        }
        if to == ClusterState::Empty {
            self.clusters.remove(&cluster);
            self.mark(RecordKey::Cluster(cluster));
            self.changes.push_back(Change::Removed { cluster });
            return;
        }
        if !to.is_active() {
            return;
        }
        let Some(found) = self.clusters.get_mut(&cluster) else {
            return;
        };
        let mut news = Vec::new();
        for (&id, place) in &mut found.places {
            if place.present && !place.told {
                place.told = true;
                news.push(id);
            }
        }
        if !news.is_empty() {
            self.changes.push_back(Change::Ready { cluster, to: news });
        }
    }

    /// `cluster_` and random characters of `[a-z0-9]`.
    fn fresh_id(&mut self) -> Result<ClusterId, Refusal> {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        for _ in 0..8 {
            let mut text = String::from("cluster_");
            while text.len() < "cluster_".len() + ID_CHARACTERS {
                // 252 is the largest multiple of 36: above it the draw is repeated.
                let draw = usize::from(self.rng.next_u32().to_be_bytes()[0]);
                if draw < 252 {
                    let octet = ALPHABET.get(draw % 36).copied().unwrap_or(b'0');
                    text.push(char::from(octet));
                }
            }
            let id = ClusterId::try_from(text.as_str()).map_err(|_| Refusal::Internal)?;
            if !self.clusters.contains_key(&id) {
                return Ok(id);
            }
        }
        Err(Refusal::Internal)
    }
}
