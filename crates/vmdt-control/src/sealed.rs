//! What a cluster that has a descriptor consists of, for the server.
//!
//! Everything here was signed by somebody else. The server checks it, so that it
//! keeps no rubbish, and passes it on as it came; nobody has to believe the
//! server about any of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use vmdt_seal::descriptor::Descriptor;
use vmdt_seal::membership::Membership;
use vmdt_seal::profile::Profile;
use vmdt_seal::revocation::RevocationList;
use vmdt_seal::trust::{Admitted, ClusterTrust, TrustError};
use vmdt_wire::{ClusterId, NodeId};

use crate::error::Refusal;

/// Bit of a descriptor's options: the cluster stands in the list that any client
/// may ask for. Without it only its members see it there.
pub const OPTION_LISTED: u32 = 1;

/// A descriptor older than this that the server does not know is one it has lost.
const LOST_AFTER_MS: u64 = 3_600_000;

/// How long the members of a lost cluster may come back with the memberships that
/// they joined with long ago.
const RECOVERY_MS: u64 = 30 * 60 * 1_000;

/// The signed part of a cluster.
#[derive(Debug)]
pub(crate) struct Sealed {
    descriptor: Descriptor,
    trust: ClusterTrust,
    memberships: BTreeMap<NodeId, Bytes>,
    list: Option<RevocationList>,
    /// Until then memberships count though their invite has expired since.
    recovering_until_ms: u64,
}

impl Sealed {
    /// From a descriptor alone. If that is not new, a server without a store was
    /// restarted, and somebody brings the cluster back.
    pub(crate) fn new(now_ms: u64, descriptor: &[u8]) -> Result<Sealed, Refusal> {
        let descriptor = Descriptor::parse(descriptor).map_err(|cause| Refusal::BadSignature {
            what: "descriptor",
            cause,
        })?;
        let lost = now_ms.saturating_sub(descriptor.created_ms()) > LOST_AFTER_MS;
        Ok(Sealed {
            recovering_until_ms: if lost { now_ms + RECOVERY_MS } else { 0 },
            trust: ClusterTrust::new(descriptor.clone()),
            descriptor,
            memberships: BTreeMap::new(),
            list: None,
        })
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.descriptor.cluster()
    }

    pub(crate) fn creator(&self) -> NodeId {
        self.descriptor.creator().node_id()
    }

    pub(crate) fn n(&self) -> u16 {
        u16::from(self.descriptor.n())
    }

    pub(crate) fn k(&self) -> u16 {
        u16::from(self.descriptor.k())
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.descriptor.options() & OPTION_LISTED != 0
    }

    pub(crate) fn descriptor(&self) -> &Bytes {
        self.descriptor.octets()
    }

    pub(crate) fn membership(&self, id: NodeId) -> Option<&Bytes> {
        self.memberships.get(&id)
    }

    pub(crate) fn list(&self) -> Option<&Bytes> {
        self.list.as_ref().map(RevocationList::octets)
    }

    /// Checks that `membership` is that of `id` here and follows from the
    /// descriptor. Changes nothing.
    pub(crate) fn check(&self, id: NodeId, membership: &[u8]) -> Result<Membership, Refusal> {
        let membership = Membership::parse(membership).map_err(Refusal::BadMembership)?;
        if membership.cluster() != self.descriptor.hash() || membership.node_id() != id {
            let what = "membership";
            return Err(Refusal::OtherSubject { what });
        }
        Ok(membership)
    }

    /// Takes the member in, who joins now. Whether the membership is news.
    pub(crate) fn admit(
        &mut self,
        now_ms: u64,
        id: NodeId,
        membership: &Membership,
    ) -> Result<bool, Refusal> {
        let cluster = self.cluster();
        let recovering = now_ms < self.recovering_until_ms;
        let admit = |trust: &mut ClusterTrust| match recovering {
            true => trust.admit(membership),
            false => trust.admit_joining(membership, now_ms),
        };
        let admitted = match admit(&mut self.trust) {
            Err(TrustError::Full { .. }) => {
                self.forget_who_left();
                admit(&mut self.trust)
            }
            admitted => admitted,
        };
        let admitted = admitted.map_err(|cause| match cause {
            TrustError::Removed { .. } => Refusal::Removed { id, cluster },
            cause => Refusal::NotAdmitted { cluster, cause },
        })?;
        let news = !self.memberships.contains_key(&id) || admitted != Admitted::Known;
        if news {
            self.memberships.insert(id, membership.octets().clone());
        }
        Ok(news)
    }

    /// Takes the member back in, who has joined before.
    pub(crate) fn readmit(&mut self, id: NodeId, membership: &[u8]) -> Result<(), Refusal> {
        let cluster = self.cluster();
        let membership = self.check(id, membership)?;
        self.trust
            .admit(&membership)
            .map_err(|cause| Refusal::NotAdmitted { cluster, cause })?;
        self.memberships.insert(id, membership.octets().clone());
        Ok(())
    }

    /// Takes a list of removed members in: who has lost their membership. `None`
    /// if it is the one already known.
    pub(crate) fn revoke(&mut self, list: &[u8]) -> Result<Option<Vec<NodeId>>, Refusal> {
        let what = "list of removed members";
        let list =
            RevocationList::parse(list).map_err(|cause| Refusal::BadSignature { what, cause })?;
        let cluster = self.cluster();
        if list.cluster() != self.descriptor.hash() {
            return Err(Refusal::OtherSubject { what });
        }
        if let Some(known) = &self.list {
            if known.octets() == list.octets() {
                return Ok(None);
            }
            if !list.replaces(known) {
                return Err(Refusal::Stale { what });
            }
        }
        let lost = self
            .trust
            .revoke(&list)
            .map_err(|cause| Refusal::NotAdmitted { cluster, cause })?;
        let lost: Vec<NodeId> = lost.into_iter().collect();
        for id in &lost {
            self.memberships.remove(id);
        }
        self.list = Some(list);
        Ok(Some(lost))
    }

    /// Trust remembers everybody who was ever a member; begins anew with those
    /// who still are.
    fn forget_who_left(&mut self) {
        let mut trust = ClusterTrust::new(self.descriptor.clone());
        if let Some(list) = &self.list {
            let _ = trust.revoke(list);
        }
        for membership in self.memberships.values() {
            if let Ok(membership) = Membership::parse(membership) {
                let _ = trust.admit(&membership);
            }
        }
        self.trust = trust;
    }

    /// The member left.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.memberships.remove(&id);
    }
}

/// A profile that was checked, as it is kept and passed on.
#[derive(Debug, Clone)]
pub(crate) struct KeptProfile {
    pub(crate) octets: Bytes,
    version_ms: u64,
    addresses: Vec<std::net::SocketAddr>,
}

impl KeptProfile {
    /// Reads the profile of `id`.
    pub(crate) fn parse(id: NodeId, octets: &[u8]) -> Result<KeptProfile, Refusal> {
        let what = "profile";
        let profile =
            Profile::parse_of(id, octets).map_err(|cause| Refusal::BadSignature { what, cause })?;
        Ok(KeptProfile {
            octets: profile.octets().clone(),
            version_ms: profile.version_ms(),
            addresses: profile.addresses().to_vec(),
        })
    }

    /// Whether this takes the place of `known`: `None` if it is the same.
    pub(crate) fn replaces(&self, known: Option<&KeptProfile>) -> Result<bool, Refusal> {
        match known {
            Some(known) if known.octets == self.octets => Ok(false),
            Some(known) if known.version_ms >= self.version_ms => {
                Err(Refusal::Stale { what: "profile" })
            }
            _ => Ok(true),
        }
    }

    /// Where its owner says to be reachable.
    pub(crate) fn addresses(&self) -> &[std::net::SocketAddr] {
        &self.addresses
    }
}
