//! Clusters of profile 1.1: described and joined by what was signed.

use std::time::Instant;

use vmdt_control::{ClusterMemory, MemoryError, OPTION_LISTED, Request, RequestId};
use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
use vmdt_seal::identity::PublicIdentity;
use vmdt_seal::invite::{Invite, InviteError, InviteTerms};
use vmdt_seal::membership::{Membership, MembershipError};
use vmdt_seal::revocation::{RevocationDetails, RevocationList};
use vmdt_seal::ticket::{ServerAddress, Ticket};
use vmdt_wire::{ClusterId, NodeId};

use super::Core;

/// Why a cluster can't be created, joined, opened to others or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The node speaks profile 1.0.
    #[error("tickets are of profile 1.1, and this node speaks 1.0")]
    OpenProfile,
    /// k, n or the name is no good.
    #[error(transparent)]
    Description(vmdt_seal::error::BuildError),
    /// The ticket or a membership is not what it should be.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// This node may not invite, or not with these rights.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The node is not in that cluster, or its descriptor has not come yet.
    #[error("this node is not a member of cluster {cluster}")]
    NotAMember {
        /// Which cluster.
        cluster: ClusterId,
    },
    /// The membership was made out to another key.
    #[error("the membership is that of {id}; build the node with that identity")]
    OtherKey {
        /// The id of that key.
        id: NodeId,
    },
    /// Only who created a cluster can remove members.
    #[error("only the creator of cluster {cluster} can remove members")]
    NotTheCreator {
        /// Which cluster.
        cluster: ClusterId,
    },
}

/// What a new cluster of profile 1.1 is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// Shares needed, at least 2.
    pub k: u8,
    /// Shares made, k to 255.
    pub n: u8,
    /// What people call it, at most 64 octets.
    pub name: String,
    /// Whether the server lists it to everybody.
    pub listed: bool,
}

impl Core {
    /// Creates a cluster of profile 1.1 with this node as its first member; the answer is a
    /// [`Output::Reply`](super::Output::Reply).
    ///
    /// # Errors
    /// [`ClusterError`] when k, n or the name is no good; nothing was asked then.
    pub fn create_sealed(
        &mut self,
        now: Instant,
        plan: &ClusterPlan,
    ) -> Result<RequestId, ClusterError> {
        let seal = self.seal.as_ref().ok_or(ClusterError::OpenProfile)?;
        let unix_ms = seal.unix_ms(now);
        let details = DescriptorDetails {
            k: plan.k,
            n: plan.n,
            options: if plan.listed { OPTION_LISTED } else { 0 },
            name: plan.name.clone(),
            created_ms: unix_ms,
        };
        let identity = seal.identity();
        let descriptor = Descriptor::sign(identity, &details, &mut self.rng)
            .map_err(ClusterError::Description)?;
        let membership = Membership::of_creator(identity, &descriptor, unix_ms)?;
        let request = Request::CreateSealed {
            descriptor: descriptor.octets().clone(),
            membership: membership.octets().clone(),
        };
        Ok(self.request(now, request))
    }

    /// Joins the cluster of a ticket. The node has to know the ticket's server already.
    ///
    /// # Errors
    /// [`ClusterError`] when the ticket can't be used by this node.
    pub fn join_sealed(
        &mut self,
        now: Instant,
        ticket: &Ticket,
    ) -> Result<RequestId, ClusterError> {
        let seal = self.seal.as_ref().ok_or(ClusterError::OpenProfile)?;
        let membership = Membership::accept(
            ticket.invite(),
            ticket.secret(),
            seal.identity().public(),
            seal.unix_ms(now),
        )?;
        let request = Request::JoinSealed {
            cluster: ticket.cluster(),
            membership: membership.octets().clone(),
        };
        Ok(self.request(now, request))
    }

    /// Goes on in a cluster as an earlier run with the same identity knew it, without waiting for
    /// the server.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing was changed then.
    pub fn recall(&mut self, now: Instant, memory: &ClusterMemory) -> Result<(), MemoryError> {
        self.member.recall(now, memory)?;
        self.settle(now);
        Ok(())
    }

    /// Makes a ticket for a cluster of this node.
    ///
    /// # Errors
    /// [`ClusterError`] when this node is not in it or may not invite.
    pub fn invite(
        &mut self,
        cluster: ClusterId,
        terms: &InviteTerms,
        servers: Vec<ServerAddress>,
        server_key: PublicIdentity,
    ) -> Result<Ticket, ClusterError> {
        let seal = self.seal.as_ref().ok_or(ClusterError::OpenProfile)?;
        let unknown = ClusterError::NotAMember { cluster };
        let roster = self
            .member
            .cluster(cluster)
            .and_then(|roster| roster.sealed())
            .ok_or(unknown)?;
        let descriptor = roster.trust().ok_or(unknown)?.descriptor();
        let own = Membership::parse(roster.own_membership())?;
        let (invite, secret) = Invite::issue(
            seal.identity(),
            Some(&own),
            descriptor,
            terms,
            &mut self.rng,
        )?;
        Ticket::new(servers, server_key, invite, secret).map_err(ClusterError::Description)
    }

    /// Removes members from a cluster that this node created. Those they invited go with them.
    ///
    /// # Errors
    /// [`ClusterError`] when this node did not create it.
    pub fn remove_members(
        &mut self,
        now: Instant,
        cluster: ClusterId,
        members: &[NodeId],
    ) -> Result<RequestId, ClusterError> {
        let seal = self.seal.as_ref().ok_or(ClusterError::OpenProfile)?;
        let unknown = ClusterError::NotAMember { cluster };
        let trust = self
            .member
            .cluster(cluster)
            .and_then(|roster| roster.sealed()?.trust())
            .ok_or(unknown)?;
        if trust.descriptor().creator() != seal.identity().public() {
            return Err(ClusterError::NotTheCreator { cluster });
        }
        let before = trust.revocation().map(RevocationList::details);
        let mut removed = before
            .map(|details| details.removed.clone())
            .unwrap_or_default();
        removed.extend_from_slice(members);
        removed.sort_unstable();
        removed.dedup();
        let details = RevocationDetails {
            cluster: trust.descriptor().hash(),
            version: before.map_or(1, |details| details.version + 1),
            removed,
            invites: before
                .map(|details| details.invites.clone())
                .unwrap_or_default(),
            kept: before
                .map(|details| details.kept.clone())
                .unwrap_or_default(),
        };
        let list =
            RevocationList::sign(seal.identity(), &details).map_err(ClusterError::Description)?;
        let request = Request::Revoke {
            cluster,
            list: list.octets().clone(),
        };
        Ok(self.request(now, request))
    }
}
