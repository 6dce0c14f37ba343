//! Profiles between nodes, and sealed sessions whose datagrams go through the server.
//!
//! Two nodes that can't reach each other hold their session over the connection to the server:
//! each datagram is a MESSAGE_SHARE of index 0. The session is the one that they would hold
//! directly, sealed from end to end, so the server sees who talks to whom and how much.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_control::Request;
use vmdt_rdt::Transmit;
use vmdt_wire::{MAGIC, Message, NodeId, VERSION, compact};

use super::Core;

/// Peers that may be spoken to through the server; beyond it those with the lowest numbers are
/// forgotten, and their sessions time out.
const MAX_RELAYED_PEERS: usize = 4096;

/// The addresses that stand for peers behind the server: in the discard prefix of RFC 6666, which
/// no host has.
#[derive(Debug, Default)]
pub(crate) struct RelayedPeers(BTreeMap<u64, NodeId>);

/// How long the server has to hand out a profile before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

const PREFIX: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const PORT: u16 = 1;

impl RelayedPeers {
    /// The address that stands for a peer.
    fn address(&mut self, peer: NodeId) -> SocketAddr {
        let hash = blake3::hash(&peer.field());
        let mut number = [0; 8];
        number.copy_from_slice(hash.as_bytes().split_at(8).0);
        self.0.insert(u64::from_be_bytes(number), peer);
        while self.0.len() > MAX_RELAYED_PEERS {
            self.0.pop_first();
        }
        let mut octets = [0; 16];
        let (prefix, rest) = octets.split_at_mut(8);
        prefix.copy_from_slice(&PREFIX);
        rest.copy_from_slice(&number);
        SocketAddr::new(Ipv6Addr::from(octets).into(), PORT)
    }

    fn peer(&self, address: SocketAddr) -> Option<NodeId> {
        let IpAddr::V6(ip) = address.ip() else {
            return None;
        };
        let number: [u8; 8] = ip.octets().split_at(8).1.try_into().ok()?;
        self.0.get(&u64::from_be_bytes(number)).copied()
    }
}

/// Whether an address stands for a peer behind the server.
pub(crate) fn is_relayed(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V6(ip) => ip.octets().starts_with(&PREFIX),
        IpAddr::V4(_) => false,
    }
}

/// Whether what came as a line through the server is a datagram.
pub(crate) fn is_datagram(octets: &[u8]) -> bool {
    let whole = octets.strip_prefix(&MAGIC);
    compact::is_compact(octets) || whole.is_some_and(|rest| rest.starts_with(&VERSION))
}

impl Core {
    /// Whether a session with a peer may be held through the server.
    pub(super) fn may_relay(&self, peer: NodeId) -> bool {
        self.seal.is_some()
            && self.config.allow_relay
            && self.member.is_registered()
            && self.is_present(peer)
    }

    /// Opens a session with a peer through the server.
    pub(super) fn connect_relayed(&mut self, now: Instant, peer: NodeId) {
        let address = self.relayed_peers.address(peer);
        self.rdt.connect(now, peer, address);
    }

    /// Sends a datagram through the server if it goes to a peer behind it. What the connection has
    /// no room for is lost, as on any path.
    pub(super) fn relay_datagram(
        &mut self,
        now: Instant,
        transmit: &Transmit,
        octets: &[u8],
    ) -> bool {
        if !is_relayed(transmit.to) {
            return false;
        }
        if let Some(peer) = self.relayed_peers.peer(transmit.to)
            && self.member.relay(now, peer, peer, 0, octets).is_ok()
        {
            self.stats.relayed_datagrams += 1;
        }
        true
    }

    /// A datagram came through the server.
    pub(super) fn on_relayed_datagram(&mut self, now: Instant, from: NodeId, octets: Vec<u8>) {
        if self.seal.is_none() {
            self.stats.bad_lines += 1;
            return;
        }
        if let Some(octets) = self.on_detoured(now, from, Bytes::from(octets)) {
            let address = self.relayed_peers.address(from);
            self.rdt.handle_datagram(now, address, octets);
        }
    }

    // ---- profiles

    /// What this node says of itself, to be handed to others; `None` in profile 1.0.
    #[must_use]
    pub fn profile(&self) -> Option<&vmdt_seal::profile::Profile> {
        self.seal.as_ref()?.own_profile()
    }

    /// What another node says of itself, once it is known.
    #[must_use]
    pub fn profile_of(&self, peer: NodeId) -> Option<&vmdt_seal::profile::Profile> {
        self.seal.as_ref()?.profile(peer)
    }

    /// The prekeys as they are to be kept for the next run, secrets included.
    #[must_use]
    pub fn prekeys(&self) -> Option<&vmdt_seal::prekey::PrekeyStore> {
        self.seal.as_ref().map(super::seal::Seal::prekeys)
    }

    /// A new address of this node is known.
    pub fn set_addresses(&mut self, now: Instant, addresses: Vec<SocketAddr>) {
        let changed = self
            .seal
            .as_mut()
            .is_some_and(|seal| seal.set_addresses(now, addresses).is_some());
        if changed {
            self.publish_profile(now);
            self.settle(now);
        }
    }

    pub(super) fn renew_profile(&mut self, now: Instant) {
        let renewed = self
            .seal
            .as_mut()
            .is_some_and(|seal| seal.renew(now, &mut self.rng).is_some());
        self.outputs.push_back(super::Output::PrekeysChanged);
        if renewed {
            self.publish_profile(now);
        }
    }

    /// Tells the server and all peers there is a session with.
    pub(super) fn publish_profile(&mut self, now: Instant) {
        if let Some(profile) = self.profile() {
            let octets = profile.octets().clone();
            // the member hands it in again after every reconnection
            let _ = self.member.request(now, Request::PutProfile(octets));
        }
        let peers: Vec<NodeId> = self.rdt.peers().collect();
        for peer in peers {
            self.send_profile(now, peer);
        }
    }

    /// Tells a peer what this node says of itself.
    pub(super) fn send_profile(&mut self, now: Instant, to: NodeId) {
        if let Some(profile) = self.profile() {
            let line = Message::Profile {
                id: self.config.id,
                profile: profile.octets().to_vec(),
            };
            self.send_line(now, to, line);
        }
    }

    /// The whole key of a member, as its membership has it: an id is only a hash of 90 bits.
    pub(super) fn pinned_key(&self, id: NodeId) -> Option<vmdt_seal::identity::PublicIdentity> {
        self.member
            .roster()
            .filter_map(|(_, cluster)| cluster.sealed()?.trust())
            .find_map(|trust| trust.key(id))
    }

    /// A node's word about itself came, from whomever: it is signed.
    pub(super) fn on_profile(&mut self, now: Instant, id: NodeId, octets: &[u8]) {
        let pinned = self.pinned_key(id);
        let roster = &self.member;
        let Some(seal) = &mut self.seal else {
            self.stats.bad_lines += 1;
            return;
        };
        let is_member = |id| roster.roster().any(|(_, c)| c.member(id).is_some());
        match seal.learn(id, octets, pinned, is_member) {
            Ok(true) => {
                if let Some(profile) = seal.profile(id) {
                    self.rdt.set_credential(profile.credential());
                }
                self.open_express(now, id);
                self.pump_sources(now);
            }
            Ok(false) => {}
            Err(error) => {
                self.stats.bad_lines += 1;
                tracing::debug!(%error, "a profile was refused");
            }
        }
    }

    /// A profile is missing: the server has it, or the session with its node brings it.
    pub(super) fn want_profile(&mut self, now: Instant, of: NodeId) {
        let registered = self.member.is_registered();
        let peer = self.peer(now, of);
        if registered && peer.profile_asked.is_none_or(|at| now >= at + ASK_AGAIN) {
            peer.profile_asked = Some(now);
            let _ = self.member.request(now, Request::GetProfile(of));
        }
        self.ensure_path(now, of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_its_peer_and_no_host() {
        let mut peers = RelayedPeers::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (at_a, at_b) = (peers.address(a), peers.address(b));
        assert_ne!(at_a, at_b);
        assert_eq!(at_a, peers.address(a));
        assert_eq!(peers.peer(at_a), Some(a));
        assert_eq!(peers.peer(at_b), Some(b));
        assert!(is_relayed(at_a));
        for host in ["127.0.0.1:1", "[::1]:1", "[2001:db8::1]:1"] {
            assert!(!is_relayed(host.parse().unwrap()));
        }
    }

    #[test]
    fn memory_of_relayed_peers_is_bounded() {
        let mut peers = RelayedPeers::default();
        for i in 0..MAX_RELAYED_PEERS + 100 {
            let _ = peers.address(format!("n{i}").parse().unwrap());
        }
        assert_eq!(peers.0.len(), MAX_RELAYED_PEERS);
    }

    #[test]
    fn lines_and_datagrams_are_told_apart() {
        assert!(is_datagram(b"VMDT1.0\0rest"));
        assert!(!is_datagram(b"VMDT/TCP/1.0/OK\n"));
        assert!(!is_datagram(b"OK"));
        assert!(!is_datagram(b"VMDT1.0"));
    }
}
