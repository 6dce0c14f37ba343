//! Keys that change, and the names that people give to keys.
//!
//! A node that changes its key signs that with both, the old and the new one. The statement goes
//! behind its memberships, so that it reaches every member and is checked by each
//! (`docs/protocol.md`, section 12.11). A petname is what this node's user calls another node: it
//! follows the node to its new key.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use vmdt_control::{Request, RequestId};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::membership::{Membership, MembershipError};
use vmdt_seal::rotation::Rotation;
use vmdt_wire::{ClusterId, NodeId};

use super::clusters::ClusterError;
use super::{Core, Event};

/// The longest petname, in octets.
pub const MAX_PETNAME: usize = 64;
/// The most petnames.
pub const MAX_PETNAMES: usize = 4096;

/// Why a petname is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PetnameError {
    /// It is empty, too long, or has characters that don't show as they are.
    #[error("a petname has 1 to {MAX_PETNAME} octets and no control characters")]
    Text,
    /// Another node is called so.
    #[error("{id} is called so already; give that another name first")]
    Taken {
        /// Which node.
        id: NodeId,
    },
    /// There are as many as may be.
    #[error("{MAX_PETNAMES} petnames are given already; take some back")]
    Full,
}

/// What a node takes along to its new key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyChange {
    /// The statement that both keys have signed.
    pub statement: Rotation,
    /// The memberships of the node, made out to the new key. They hold no secret.
    pub memberships: Vec<(ClusterId, Bytes)>,
}

/// The names that this node's user has given.
#[derive(Debug, Default)]
pub(crate) struct Petnames(BTreeMap<NodeId, String>);

impl Petnames {
    pub(crate) fn of(&self, id: NodeId) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    fn set(&mut self, id: NodeId, name: Option<&str>) -> Result<(), PetnameError> {
        let Some(name) = name else {
            self.0.remove(&id);
            return Ok(());
        };
        let clean = !name.chars().any(char::is_control);
        if name.trim() != name || name.is_empty() || name.len() > MAX_PETNAME || !clean {
            return Err(PetnameError::Text);
        }
        if let Some((other, _)) = self.0.iter().find(|(of, has)| **of != id && *has == name) {
            return Err(PetnameError::Taken { id: *other });
        }
        if self.0.len() >= MAX_PETNAMES && !self.0.contains_key(&id) {
            return Err(PetnameError::Full);
        }
        self.0.insert(id, name.to_owned());
        Ok(())
    }

    /// The node of one id goes on under another.
    fn moved(&mut self, old: NodeId, new: NodeId) -> Option<String> {
        if let Some(name) = self.0.remove(&old) {
            self.0.entry(new).or_insert(name);
        }
        self.0.get(&new).cloned()
    }
}

impl Core {
    /// States that this node goes on under `new`, and makes its memberships out to that key. Then
    /// close this node, begin one with the new identity, and have it
    /// [`rejoin`](Self::rejoin). What is under way to the old id is lost: its prekeys end with it.
    ///
    /// # Errors
    /// [`ClusterError::OpenProfile`]; [`ClusterError::Membership`] when the key has been changed
    /// too often already, or was this node's before.
    pub fn change_key(
        &self,
        now: Instant,
        new: &SecretIdentity,
    ) -> Result<KeyChange, ClusterError> {
        let seal = self.seal.as_ref().ok_or(ClusterError::OpenProfile)?;
        if new.public() == seal.identity().public() {
            return Err(MembershipError::Changes.into());
        }
        let statement = Rotation::sign(seal.identity(), new, seal.unix_ms(now));
        let memberships: Result<Vec<(ClusterId, Bytes)>, MembershipError> = self
            .member
            .roster()
            .filter_map(|(id, roster)| Some((id, roster.sealed()?.own_membership())))
            .map(|(id, own)| {
                let moved = Membership::parse(own)?.with_change(&statement)?;
                Ok((id, moved.octets().clone()))
            })
            .collect();
        Ok(KeyChange {
            memberships: memberships?,
            statement,
        })
    }

    /// Takes this node's place in a cluster that it joined under a former key, with a membership
    /// of [`KeyChange::memberships`].
    ///
    /// # Errors
    /// [`ClusterError`] when the membership is not this node's.
    pub fn rejoin(&mut self, now: Instant, membership: &[u8]) -> Result<RequestId, ClusterError> {
        let seal = self.seal.as_ref().ok_or(ClusterError::OpenProfile)?;
        let membership = Membership::parse(membership)?;
        if membership.member() != seal.identity().public() {
            return Err(ClusterError::OtherKey {
                id: membership.node_id(),
            });
        }
        let cluster = membership.cluster().id();
        let request = Request::JoinSealed {
            cluster: cluster.map_err(|_| MembershipError::BrokenChain)?,
            membership: membership.octets().clone(),
        };
        Ok(self.request(now, request))
    }

    /// What this node's user calls another node.
    #[must_use]
    pub fn petname(&self, id: NodeId) -> Option<&str> {
        self.petnames.of(id)
    }

    /// The petnames, by id.
    pub fn petnames(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.petnames.0.iter().map(|(id, name)| (*id, &name[..]))
    }

    /// Gives a node a petname, or takes it back.
    ///
    /// # Errors
    /// [`PetnameError`]; the name is then as it was.
    pub fn set_petname(&mut self, id: NodeId, name: Option<&str>) -> Result<(), PetnameError> {
        self.petnames.set(id, name)
    }

    /// A member has changed its key, as it has signed.
    pub(super) fn key_changed(&mut self, cluster: ClusterId, old: NodeId, new: NodeId) {
        let petname = self.petnames.moved(old, new);
        self.event(Event::KeyChanged {
            cluster,
            old,
            new,
            petname,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn a_petname_is_one_nodes_and_follows_it() {
        let mut names = Petnames::default();
        names.set(id("a"), Some("Ana")).unwrap();
        assert_eq!(
            names.set(id("b"), Some("Ana")),
            Err(PetnameError::Taken { id: id("a") })
        );
        names.set(id("a"), Some("Ana")).unwrap();
        assert_eq!(names.moved(id("a"), id("c")).as_deref(), Some("Ana"));
        assert_eq!((names.of(id("a")), names.of(id("c"))), (None, Some("Ana")));
        // a name that was given to the new id on purpose stays
        names.set(id("d"), Some("Dan")).unwrap();
        assert_eq!(names.moved(id("c"), id("d")).as_deref(), Some("Dan"));
        names.set(id("d"), None).unwrap();
        assert_eq!(names.of(id("d")), None);
    }

    #[test]
    fn petnames_are_bounded_and_show_as_they_are() {
        let mut names = Petnames::default();
        for wrong in ["", " a", "a\n", "\u{7}", &"x".repeat(MAX_PETNAME + 1)] {
            assert_eq!(names.set(id("a"), Some(wrong)), Err(PetnameError::Text));
        }
        for i in 0..MAX_PETNAMES {
            names
                .set(id(&format!("n{i}")), Some(&format!("{i}")))
                .unwrap();
        }
        assert_eq!(names.set(id("one"), Some("more")), Err(PetnameError::Full));
        names.set(id("n0"), Some("again")).unwrap();
    }
}
