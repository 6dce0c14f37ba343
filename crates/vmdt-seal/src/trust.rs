//! Who is a member of a cluster: descriptor, certificates and revocations put together.

use std::collections::BTreeMap;

use thiserror::Error;
use vmdt_wire::NodeId;

use crate::descriptor::Descriptor;
use crate::identity::PublicIdentity;
use crate::invite::{InviteId, Rights};
use crate::membership::Membership;
use crate::revocation::RevocationList;
use crate::rotation::{MAX_STEPS, Rotation};

/// Members that are remembered, unless set otherwise.
pub const DEFAULT_MAX_MEMBERS: usize = 1_024;
/// How far a newcomer's clock may be from that of whoever admits it, in milliseconds.
pub const CLOCK_SLACK_MS: u64 = 3_600_000;

/// Why a certificate or list does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It is of another cluster.
    #[error("it is of another cluster")]
    OtherCluster,
    /// The chain does not begin with the cluster's creator, or the list is not the creator's.
    #[error("it does not come from the cluster's creator, but from {root}")]
    NotFromCreator {
        /// The id of the key that it comes from.
        root: NodeId,
    },
    /// The member was removed.
    #[error("{id} was removed from the cluster")]
    Removed {
        /// The member.
        id: NodeId,
    },
    /// The invite, or one above it, is void, or its issuer was removed.
    #[error("the invite of {id} is void")]
    InviteVoid {
        /// The member.
        id: NodeId,
    },
    /// The membership is dated after its invite expired, or, for one who joins now, the invite has
    /// expired.
    #[error("the invite of {id} has expired")]
    InviteExpired {
        /// The member.
        id: NodeId,
    },
    /// As many have joined with the invite as may.
    #[error("the invite of {id} is used up")]
    InviteUsedUp {
        /// The member.
        id: NodeId,
    },
    /// A newcomer's clock is off by more than [`CLOCK_SLACK_MS`].
    #[error("the membership of {id} is not dated now")]
    Clock {
        /// The member.
        id: NodeId,
    },
    /// Another key already has this id. Ids are 90 bits: somebody has searched for this.
    #[error("another key already has the id {id}")]
    KeyConflict {
        /// The id.
        id: NodeId,
    },
    /// The member goes on under another key; who has the old one is no member.
    #[error("{id} has changed its key, and is no member under the old one")]
    KeyChanged {
        /// The id that was given up.
        id: NodeId,
    },
    /// The member has no right to be a member.
    #[error("{id} has no right to be a member")]
    NoRight {
        /// The member.
        id: NodeId,
    },
    /// As many members as may be are known.
    #[error("{most} members are known, which is the most")]
    Full {
        /// How many.
        most: usize,
    },
    /// A newer list is known.
    #[error("revocation list {found} is older than the one known, {known}")]
    OldRevocation {
        /// The version of the list.
        found: u64,
        /// The version known.
        known: u64,
    },
    /// Two different lists have the same version.
    #[error("two different revocation lists have version {version}")]
    RevocationFork {
        /// The version.
        version: u64,
    },
    /// A rotation is of a key that is not a member's.
    #[error("the key that was rotated is no member's")]
    UnknownKey,
}

/// What an admission changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// A member that was not known.
    New,
    /// A newer certificate of a known member.
    Updated,
    /// Nothing.
    Known,
}

#[derive(Debug, Clone)]
struct Member {
    key: PublicIdentity,
    membership: Membership,
}

/// Decides who is a member of one cluster. It believes the descriptor's creator and nobody else;
/// where certificates come from does not matter.
///
/// Holds at most [`DEFAULT_MAX_MEMBERS`] members, or as many as set; the next is refused.
#[derive(Debug, Clone)]
pub struct ClusterTrust {
    descriptor: Descriptor,
    /// The creator's key, and those it was rotated to.
    roots: Vec<PublicIdentity>,
    members: BTreeMap<NodeId, Member>,
    /// Ids that were given up, and what they became.
    rotated: BTreeMap<NodeId, NodeId>,
    revoked: Option<RevocationList>,
    most: usize,
}

impl ClusterTrust {
    /// Trusts what the creator of this cluster says. The creator is a member from the start.
    ///
    /// The descriptor must be that of the cluster one means: from
    /// [`Descriptor::parse_of`](Descriptor::parse_of).
    #[must_use]
    pub fn new(descriptor: Descriptor) -> Self {
        Self {
            roots: vec![descriptor.creator()],
            descriptor,
            members: BTreeMap::new(),
            rotated: BTreeMap::new(),
            revoked: None,
            most: DEFAULT_MAX_MEMBERS,
        }
    }

    /// Remembers at most so many members besides the creator.
    #[must_use]
    pub const fn with_max_members(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// The cluster's descriptor.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Takes the certificate of somebody who has joined at some time. Expiry is judged by the date
    /// on the certificate: who joined in time stays.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn admit(&mut self, membership: &Membership) -> Result<Admitted, TrustError> {
        self.judge(membership)?;
        let (first, now) = (membership.first_key(), membership.member());
        if membership.changes().is_empty() {
            return self.admit_first(membership);
        }
        if self.key(now.node_id()) == Some(now) {
            return Ok(Admitted::Known);
        }
        let mut admitted = Admitted::Updated;
        if !self.rotated.contains_key(&first.node_id())
            && self.admit_first(membership)? == Admitted::New
        {
            admitted = Admitted::New;
        }
        for change in membership.changes() {
            self.rotate(change)?;
        }
        Ok(admitted)
    }

    /// Takes a certificate under the key that it was made for.
    fn admit_first(&mut self, membership: &Membership) -> Result<Admitted, TrustError> {
        let id = membership.first_key().node_id();
        if self.rotated.contains_key(&id) {
            return Err(TrustError::KeyChanged { id });
        }
        if self.is_root(membership.first_key()) {
            return Ok(Admitted::Known);
        }
        let known = self.members.len();
        if let Some(member) = self.members.get_mut(&id) {
            if member.key != membership.first_key() {
                return Err(TrustError::KeyConflict { id });
            }
            if membership.when_ms() <= member.membership.when_ms() {
                return Ok(Admitted::Known);
            }
            member.membership = membership.clone();
            return Ok(Admitted::Updated);
        }
        if known >= self.most {
            return Err(TrustError::Full { most: self.most });
        }
        self.members.insert(
            id,
            Member {
                key: membership.first_key(),
                membership: membership.clone(),
            },
        );
        Ok(Admitted::New)
    }

    /// Takes the certificate of somebody who joins now, as the server does: in addition the invite
    /// must not have expired or been used up, and the certificate must be dated now.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn admit_joining(
        &mut self,
        membership: &Membership,
        now_ms: u64,
    ) -> Result<Admitted, TrustError> {
        let id = membership.node_id();
        let known = |key: PublicIdentity| {
            let id = key.node_id();
            self.members.contains_key(&id) || self.rotated.contains_key(&id)
        };
        if !known(membership.first_key())
            && !known(membership.member())
            && let Some(invite) = membership.invite()
        {
            let terms = invite.terms();
            if now_ms >= terms.expires_ms {
                return Err(TrustError::InviteExpired { id });
            }
            if membership.when_ms().abs_diff(now_ms) > CLOCK_SLACK_MS {
                return Err(TrustError::Clock { id });
            }
            if terms.max_uses != 0 && self.uses(invite.id()) >= u64::from(terms.max_uses) {
                return Err(TrustError::InviteUsedUp { id });
            }
        }
        self.admit(membership)
    }

    fn uses(&self, invite: InviteId) -> u64 {
        let uses = self
            .members
            .values()
            .filter(|member| {
                member.membership.invite().map(crate::invite::Invite::id) == Some(invite)
            })
            .count();
        u64::try_from(uses).unwrap_or(u64::MAX)
    }

    /// Whether a certificate counts now.
    fn judge(&self, membership: &Membership) -> Result<(), TrustError> {
        let id = membership.node_id();
        if membership.cluster() != self.descriptor.hash() {
            return Err(TrustError::OtherCluster);
        }
        if !self.is_root(membership.root()) {
            return Err(TrustError::NotFromCreator {
                root: membership.root().node_id(),
            });
        }
        if !membership.rights().contains(Rights::MEMBER) {
            return Err(TrustError::NoRight { id });
        }
        let mut link = Some(membership);
        while let Some(membership) = link {
            let invite = membership.invite();
            if invite.is_some_and(|invite| membership.when_ms() >= invite.terms().expires_ms) {
                return Err(TrustError::InviteExpired { id });
            }
            link = invite.and_then(crate::invite::Invite::chain);
        }
        self.judge_revoked(id, membership)
    }

    /// Whether the member of this id, which has changed its key if the certificate is of another,
    /// is out.
    fn judge_revoked(&self, id: NodeId, membership: &Membership) -> Result<(), TrustError> {
        let Some(list) = &self.revoked else {
            return Ok(());
        };
        if self.is_root(membership.first_key()) {
            return Ok(());
        }
        let first = membership.first_key().node_id();
        let mut later = membership.changes().iter().map(|c| c.new_key().node_id());
        if list.removes(id) || list.removes(first) || later.any(|id| list.removes(id)) {
            return Err(TrustError::Removed { id });
        }
        if list.keeps(id) || list.keeps(first) {
            return Ok(());
        }
        let mut link = membership.invite();
        while let Some(invite) = link {
            let issuer = invite.issuer();
            if list.voids(invite.id()) || (!self.is_root(issuer) && list.removes(issuer.node_id()))
            {
                return Err(TrustError::InviteVoid { id });
            }
            link = invite.chain().and_then(Membership::invite);
        }
        Ok(())
    }

    fn is_root(&self, key: PublicIdentity) -> bool {
        self.roots.contains(&key)
    }

    /// Takes a revocation list and returns who is no longer a member because of it. The list
    /// known already changes nothing.
    ///
    /// # Errors
    /// [`TrustError`]: a list of another cluster, not the creator's, or older than the one known.
    pub fn revoke(&mut self, list: &RevocationList) -> Result<Vec<NodeId>, TrustError> {
        if list.cluster() != self.descriptor.hash() {
            return Err(TrustError::OtherCluster);
        }
        if !self.is_root(list.signer()) {
            return Err(TrustError::NotFromCreator {
                root: list.signer().node_id(),
            });
        }
        if let Some(known) = &self.revoked {
            let (found, known_version) = (list.version(), known.version());
            if found < known_version {
                return Err(TrustError::OldRevocation {
                    found,
                    known: known_version,
                });
            }
            if found == known_version {
                return if list.details() == known.details() {
                    Ok(Vec::new())
                } else {
                    Err(TrustError::RevocationFork { version: found })
                };
            }
        }
        self.revoked = Some(list.clone());
        let out: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(id, member)| self.judge_revoked(**id, &member.membership).is_err())
            .map(|(id, _)| *id)
            .collect();
        for id in &out {
            self.members.remove(id);
        }
        Ok(out)
    }

    /// The revocation list that counts.
    #[must_use]
    pub const fn revocation(&self) -> Option<&RevocationList> {
        self.revoked.as_ref()
    }

    /// Takes a member's change of key: the new id has the rights of the old one, which is a
    /// member no longer. The creator's old key goes on counting for what it has signed.
    ///
    /// # Errors
    /// [`TrustError::UnknownKey`], [`TrustError::Removed`] when the new id was removed before,
    /// [`TrustError::Full`] after 16 rotations of the creator's key.
    pub fn rotate(&mut self, rotation: &Rotation) -> Result<(), TrustError> {
        let (old, new) = (rotation.old_key(), rotation.new_key());
        let (old_id, new_id) = (old.node_id(), new.node_id());
        if self
            .revoked
            .as_ref()
            .is_some_and(|list| list.removes(new_id))
        {
            return Err(TrustError::Removed { id: new_id });
        }
        if self.is_root(old) {
            if self.is_root(new) {
                return Ok(());
            }
            if self.roots.len() > MAX_STEPS {
                return Err(TrustError::Full { most: MAX_STEPS });
            }
            self.roots.push(new);
            return Ok(());
        }
        if self.rotated.get(&old_id) == Some(&new_id) {
            return Ok(());
        }
        if self.rotated.len() >= self.most {
            return Err(TrustError::Full { most: self.most });
        }
        if self
            .members
            .get(&new_id)
            .is_some_and(|other| other.key != new)
        {
            return Err(TrustError::KeyConflict { id: new_id });
        }
        let member = self
            .members
            .get(&old_id)
            .filter(|member| member.key == old)
            .cloned()
            .ok_or(TrustError::UnknownKey)?;
        self.members.remove(&old_id);
        self.rotated.insert(old_id, new_id);
        self.members.insert(
            new_id,
            Member {
                key: new,
                membership: member.membership,
            },
        );
        Ok(())
    }

    /// Whether an id is a member's.
    #[must_use]
    pub fn is_member(&self, id: NodeId) -> bool {
        self.rights(id).is_some()
    }

    /// What a member may do; `None` for everybody else.
    #[must_use]
    pub fn rights(&self, id: NodeId) -> Option<Rights> {
        if self.roots.iter().any(|root| root.node_id() == id) {
            return Some(Rights::ALL);
        }
        self.members
            .get(&id)
            .map(|member| member.membership.rights())
    }

    /// The whole key of a member.
    #[must_use]
    pub fn key(&self, id: NodeId) -> Option<PublicIdentity> {
        self.roots
            .iter()
            .copied()
            .find(|root| root.node_id() == id)
            .or_else(|| self.members.get(&id).map(|member| member.key))
    }

    /// The members, ascending by id, without the creator.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        self.members.keys().copied()
    }

    /// The certificate of a member.
    #[must_use]
    pub fn membership(&self, id: NodeId) -> Option<&Membership> {
        self.members.get(&id).map(|member| &member.membership)
    }
}
