//! Who is there, at which address, behind which link, and who reaches whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::LinkConfig;

/// A host of a [`Network`](crate::Network), numbered from 0 in the order in
/// which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(super) u32);

impl HostId {
    /// Its number, to index what a test keeps for each host.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for HostId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {}", self.0)
    }
}

#[derive(Debug)]
pub(super) struct Topology {
    up: Vec<bool>,
    addresses: BTreeMap<IpAddr, HostId>,
    listeners: BTreeSet<SocketAddr>,
    default: LinkConfig,
    loopback: LinkConfig,
    links: BTreeMap<(HostId, HostId), LinkConfig>,
    blocked: BTreeSet<(HostId, HostId)>,
}

impl Topology {
    pub(super) fn new() -> Self {
        Self {
            up: Vec::new(),
            addresses: BTreeMap::new(),
            listeners: BTreeSet::new(),
            default: LinkConfig::new(),
            loopback: LinkConfig::new(),
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
        }
    }

    pub(super) fn add_host(&mut self) -> HostId {
        let id = HostId(self.up.len() as u32);
        self.up.push(true);
        id
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.up.len() as u32).map(HostId)
    }

    #[track_caller]
    pub(super) fn add_address(&mut self, host: HostId, address: IpAddr) {
        let owner = *self.addresses.entry(address).or_insert(host);
        assert!(owner == host, "{address} already belongs to {owner}");
    }

    pub(super) fn remove_address(&mut self, address: IpAddr) {
        self.addresses.remove(&address);
        self.listeners.retain(|listener| listener.ip() != address);
    }

    pub(super) fn host_of(&self, address: IpAddr) -> Option<HostId> {
        self.addresses.get(&address).copied()
    }

    pub(super) fn is_up(&self, host: HostId) -> bool {
        self.up.get(host.index()).copied().unwrap_or(false)
    }

    /// Its listening sockets go with its processes.
    pub(super) fn take_down(&mut self, host: HostId) {
        self.set_up(host, false);
        let addresses = &self.addresses;
        self.listeners
            .retain(|listener| addresses.get(&listener.ip()) != Some(&host));
    }

    pub(super) fn set_up(&mut self, host: HostId, up: bool) {
        if let Some(slot) = self.up.get_mut(host.index()) {
            *slot = up;
        }
    }

    pub(super) fn listen(&mut self, address: SocketAddr) {
        self.listeners.insert(address);
    }

    pub(super) fn unlisten(&mut self, address: SocketAddr) {
        self.listeners.remove(&address);
    }

    pub(super) fn listens(&self, address: SocketAddr) -> bool {
        self.listeners.contains(&address)
    }

    pub(super) fn config(&self, from: HostId, to: HostId) -> &LinkConfig {
        let fallback = if from == to {
            &self.loopback
        } else {
            &self.default
        };
        self.links.get(&(from, to)).unwrap_or(fallback)
    }

    pub(super) fn set_default(&mut self, config: LinkConfig) {
        self.default = config;
    }

    pub(super) fn set_link(&mut self, from: HostId, to: HostId, config: LinkConfig) {
        self.links.insert((from, to), config);
    }

    pub(super) fn block(&mut self, from: HostId, to: HostId) {
        if from != to {
            self.blocked.insert((from, to));
        }
    }

    pub(super) fn unblock(&mut self, from: HostId, to: HostId) {
        self.blocked.remove(&(from, to));
    }

    pub(super) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    pub(super) fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.blocked.contains(&(from, to))
    }
}
