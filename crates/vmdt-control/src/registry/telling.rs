//! Telling the members of a cluster what has changed in it.

use std::collections::BTreeSet;

use vmdt_wire::{ClusterId, Framing, Line, MemberState, Message, NodeId};

use super::Registry;
use crate::directory::Change;
use crate::event::RegistryEvent;

impl Registry {
    pub(super) fn tell(&mut self, change: Change) {
        match change {
            Change::Created {
                cluster,
                creator,
                n,
                k,
            } => self.event(RegistryEvent::ClusterCreated {
                cluster,
                creator,
                n,
                k,
            }),
            Change::Removed { cluster } => self.event(RegistryEvent::ClusterRemoved { cluster }),
            Change::State { cluster, from, to } => {
                self.event(RegistryEvent::State { cluster, from, to });
            }
            Change::Member { cluster, id, state } => {
                self.event(RegistryEvent::Member { cluster, id, state });
                let (address, caps) = self.directory.details(id);
                let others = self.others(cluster, id);
                let message = Message::Member {
                    cluster,
                    id,
                    state,
                    address,
                    caps,
                };
                self.push(&others, &message);
            }
            Change::Roster { cluster, to } => {
                if self.directory.caps(to).is_none() {
                    return;
                }
                if let Some(list) = self.directory.revoked(cluster) {
                    let list = list.to_vec();
                    self.push(&[to], &Message::Revoked { cluster, list });
                }
                let members: Vec<(NodeId, bool)> = self.directory.places(cluster).collect();
                for (id, present) in members.into_iter().filter(|&(id, _)| id != to) {
                    self.tell_membership(&[to], cluster, id);
                    let (address, caps) = self.directory.details(id);
                    let message = Message::Member {
                        cluster,
                        id,
                        state: if present {
                            MemberState::Joined
                        } else {
                            MemberState::Away
                        },
                        address,
                        caps,
                    };
                    self.push(&[to], &message);
                }
            }
            Change::Membership { cluster, id } => {
                let others = self.others(cluster, id);
                self.tell_membership(&others, cluster, id);
            }
            Change::Revoked { cluster, removed } => {
                let Some(list) = self.directory.revoked(cluster) else {
                    return;
                };
                let list = list.to_vec();
                let mut to = self.others(cluster, NodeId::EMPTY);
                to.extend(&removed);
                self.push(&to, &Message::Revoked { cluster, list });
                for id in removed {
                    let message = Message::Member {
                        cluster,
                        id,
                        state: MemberState::Left,
                        address: None,
                        caps: None,
                    };
                    self.push(&[id], &message);
                }
            }
            Change::Profile { id } => {
                let Some(profile) = self.directory.own_profile(id) else {
                    return;
                };
                let clusters = self.directory.sealed_clusters(id);
                let others = clusters.iter().flat_map(|&c| self.others(c, id));
                let others: BTreeSet<NodeId> = others.collect();
                let others: Vec<NodeId> = others.into_iter().collect();
                let profile = profile.to_vec();
                self.push(&others, &Message::Profile { id, profile });
            }
            Change::Ready { cluster, to } => self.push(&to, &Message::ClusterReady { cluster }),
        }
    }

    /// Sends `message` to the connections of `ids`, each in its own framing.
    pub(super) fn push(&mut self, ids: &[NodeId], message: &Message) {
        let mut bar = None;
        let mut slash = None;
        for &id in ids {
            let Some(conn) = self.directory.connection(id) else {
                continue;
            };
            let Some(framing) = self.conns.get(&conn).map(|c| c.framing) else {
                continue;
            };
            let encoded = match framing {
                Framing::Bar => &mut bar,
                Framing::Slash => &mut slash,
            };
            let line = encoded.get_or_insert_with(|| {
                let line = Line {
                    framing,
                    tag: None,
                    message: message.clone(),
                };
                line.emit().unwrap_or_default()
            });
            self.write(conn, line);
        }
    }

    /// Present members of `cluster` that have capabilities, without `id`.
    fn others(&self, cluster: ClusterId, id: NodeId) -> Vec<NodeId> {
        self.directory
            .places(cluster)
            .filter(|&(other, present)| present && other != id)
            .map(|(other, _)| other)
            .filter(|&other| self.directory.caps(other).is_some())
            .collect()
    }

    fn tell_membership(&mut self, to: &[NodeId], cluster: ClusterId, id: NodeId) {
        if let Some(membership) = self.directory.membership_of(cluster, id) {
            let message = Message::Membership {
                cluster,
                id,
                membership: membership.to_vec(),
            };
            self.push(to, &message);
        }
    }

    /// Tells `id` that a code number is void.
    pub(super) fn code_closed(&mut self, id: NodeId, number: u16) {
        let client = None;
        self.push(&[id], &Message::CodeClose { client, number });
    }
}
