//! A cluster as an earlier run of this member knew it.

use std::time::Instant;

use vmdt_seal::descriptor::Descriptor;
use vmdt_seal::membership::Membership;
use vmdt_seal::profile::Profile;
use vmdt_wire::{ClusterId, MemberState, Message};

use super::{Link, Member};
use crate::event::MemberEvent;
use crate::memory::{ClusterMemory, MemoryError, RememberedMember};
use crate::roster::SealedRoster;

impl Member {
    /// What is known of a cluster that has a descriptor, to be kept for the next run; `None` for
    /// others, and before the descriptor was fetched.
    #[must_use]
    pub fn memory(&self, cluster: ClusterId) -> Option<ClusterMemory> {
        let roster = self.roster.cluster(cluster)?;
        let sealed = roster.sealed()?;
        let descriptor = sealed.trust()?.descriptor().octets().clone();
        let members = roster.members().filter_map(|(id, member)| {
            Some(RememberedMember {
                id,
                present: member.present,
                address: member.address,
                caps: member.caps,
                membership: sealed.membership(id)?.clone(),
                profile: self.profiles.get(&id).map(|p| p.octets().clone()),
            })
        });
        Some(ClusterMemory {
            cluster,
            info: roster.info().copied(),
            been_ready: roster.state().has_been_ready(),
            own: sealed.own_membership().clone(),
            descriptor,
            list: sealed.revoked().cloned(),
            members: members.collect(),
        })
    }

    /// Goes on in a cluster as an earlier run with the same identity knew it, at once and without
    /// the server: the members are where they were, present if they were. When the server is
    /// reached, it is as after a connection that was lost: our place is taken again, what the
    /// server says replaces what was remembered, and if the place is gone,
    /// [`MemberEvent::ClusterLost`] says so.
    ///
    /// Everything signed is verified; members of whom that fails are left out. In a cluster that
    /// this member is in already, nothing changes: what it knows is newer.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing was changed then.
    pub fn recall(&mut self, now: Instant, memory: &ClusterMemory) -> Result<(), MemoryError> {
        self.wake(now);
        if matches!(self.link, Link::Stopped) {
            return Err(MemoryError::Stopped);
        }
        let (local, cluster) = (self.config.id, memory.cluster);
        if self.roster.contains(cluster) {
            return Ok(());
        }
        let own = Membership::parse(&memory.own).map_err(|_| MemoryError::Unreadable)?;
        if own.node_id() != local {
            let owner = own.node_id();
            return Err(MemoryError::OtherMember { owner, local });
        }
        let descriptor = Descriptor::parse_of(cluster, &memory.descriptor)
            .map_err(|_| MemoryError::Unreadable)?;
        let mut sealed = SealedRoster::new(memory.own.clone(), Some(descriptor));
        if let Some(list) = &memory.list {
            sealed.revoke(list);
        }
        if !sealed.trust().is_some_and(|trust| trust.is_member(local)) {
            return Err(MemoryError::NotAMember { local, cluster });
        }
        self.roster.insert_sealed(cluster, memory.info, sealed);
        let max = self.config.max_members;
        for member in memory.members.iter().take(max) {
            let Some(roster) = self.roster.cluster_mut(cluster) else {
                break;
            };
            if member.id == local || !roster.admit(member.id, &member.membership) {
                continue;
            }
            let (id, address, caps) = (member.id, member.address, member.caps);
            let state = match member.present {
                true => MemberState::Joined,
                false => MemberState::Away,
            };
            roster.announced(id, state, address, caps, max);
            self.events.push_back(MemberEvent::Push(Message::Member {
                cluster,
                id,
                state,
                address,
                caps,
            }));
            let profile = member.profile.as_deref();
            if let Some(Ok(profile)) = profile.map(|octets| Profile::parse_of(id, octets)) {
                let octets = profile.octets().to_vec();
                if self.learned(profile) {
                    let profile = octets;
                    let push = Message::Profile { id, profile };
                    self.events.push_back(MemberEvent::Push(push));
                }
            }
        }
        if let Some(roster) = self.roster.cluster_mut(cluster) {
            let state = roster.recalled(memory.been_ready);
            self.events.push_back(MemberEvent::State { cluster, state });
        }
        if matches!(self.link, Link::Up(_)) {
            self.rejoin(cluster);
        }
        Ok(())
    }
}
