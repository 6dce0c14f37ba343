//! What is signed: descriptors, memberships, removals, profiles; and code numbers.
//!
//! Nothing of it is believed because the server says so.

use std::time::Instant;

use vmdt_seal::descriptor::Descriptor;
use vmdt_seal::profile::Profile;
use vmdt_wire::{ClusterId, Message, NodeId};

use super::requests::{Purpose, Waiting};
use super::{Link, Member};
use crate::error::{LinkError, RequestError, ServerError};
use crate::event::{MemberEvent, Reply, Request, RequestId};
use crate::roster::SealedRoster;

/// Profiles being fetched at once.
const FETCHES: usize = 16;

impl Member {
    /// The line for a request of profile 1.1.
    pub(super) fn signed_request(&mut self, request: Request) -> Result<Message, RequestError> {
        let client = self.config.id;
        Ok(match request {
            Request::CreateSealed {
                descriptor,
                membership,
            } => {
                parse_descriptor(&descriptor)?;
                Message::CreateSealed {
                    client,
                    descriptor: descriptor.to_vec(),
                    membership: membership.to_vec(),
                }
            }
            Request::JoinSealed {
                cluster,
                membership,
            } => Message::JoinSealed {
                client,
                cluster,
                membership: membership.to_vec(),
            },
            Request::PutProfile(profile) => {
                let what = "profile";
                if Profile::parse_of(client, &profile).is_err() {
                    return Err(RequestError::BadSignature { what });
                }
                self.own_profile = Some(profile.clone());
                Message::PutProfile {
                    client,
                    profile: profile.to_vec(),
                }
            }
            Request::GetProfile(target) => Message::GetProfile { client, target },
            Request::Revoke { cluster, list } => Message::Revoke {
                client,
                cluster,
                list: list.to_vec(),
            },
            Request::CodeOpen => Message::CodeOpen { client },
            Request::CodeJoin(number) => Message::CodeJoin { client, number },
            Request::CodePass { number, data } => Message::CodePass {
                client: Some(client),
                number,
                data: data.to_vec(),
            },
            Request::CodeClose(number) => Message::CodeClose {
                client: Some(client),
                number,
            },
            _ => return Err(RequestError::Unwritable),
        })
    }

    /// The answer to a request of profile 1.1; `None` if it is not complete yet.
    pub(super) fn signed_answer(
        &mut self,
        id: RequestId,
        mut waiting: Waiting,
        message: Message,
    ) -> Option<Result<Reply, RequestError>> {
        Some(match (&waiting.request, message) {
            (
                Request::CreateSealed {
                    descriptor,
                    membership,
                },
                Message::ClusterCreated { cluster, info },
            ) => match parse_descriptor(descriptor) {
                Ok(descriptor) if descriptor.cluster() == cluster => {
                    let sealed = SealedRoster::new(membership.clone(), Some(descriptor));
                    self.roster.insert_sealed(cluster, info, sealed);
                    Ok(Reply::Created { cluster })
                }
                _ => Err(RequestError::UnexpectedReply),
            },
            (
                Request::JoinSealed {
                    cluster,
                    membership,
                },
                Message::ClusterJoined { info, .. },
            ) => {
                let (cluster, client) = (*cluster, self.config.id);
                let sealed = SealedRoster::new(membership.clone(), None);
                self.roster.insert_sealed(cluster, info, sealed);
                let purpose = Purpose::Describe {
                    cluster,
                    request: id,
                };
                waiting.tag = self.send(purpose, Message::GetDescriptor { client, cluster });
                self.waiting.insert(id, waiting);
                return None;
            }
            (Request::GetProfile(target), Message::Profile { id, profile }) if id == *target => {
                match Profile::parse_of(id, &profile) {
                    Ok(parsed) => {
                        let profile = parsed.octets().clone();
                        self.learned(parsed);
                        Ok(Reply::Profile { id, profile })
                    }
                    Err(_) => Err(RequestError::BadSignature { what: "profile" }),
                }
            }
            (Request::CodeOpen, Message::Code { number }) => Ok(Reply::Code { number }),
            (
                Request::PutProfile(_)
                | Request::Revoke { .. }
                | Request::CodeJoin(_)
                | Request::CodePass { .. }
                | Request::CodeClose(_),
                Message::Ok { .. },
            ) => Ok(Reply::Done),
            _ => Err(RequestError::UnexpectedReply),
        })
    }

    /// The descriptor of a cluster just joined: now its members can be checked.
    pub(super) fn described(&mut self, cluster: ClusterId, request: RequestId, message: Message) {
        let octets = match message {
            Message::Descriptor {
                cluster: named,
                descriptor,
            } if named == cluster => Ok(descriptor),
            Message::Error { code, text, .. } => {
                Err(RequestError::Refused(ServerError { code, text }))
            }
            _ => Err(RequestError::UnexpectedReply),
        };
        let what = "descriptor";
        let descriptor = octets.and_then(|octets| {
            Descriptor::parse_of(cluster, &octets).map_err(|_| RequestError::BadSignature { what })
        });
        let roster = self.roster.cluster_mut(cluster);
        let result = match (descriptor, roster) {
            (Ok(descriptor), Some(roster)) => {
                let info = roster.info().copied();
                let held = roster
                    .sealed_mut()
                    .map(|sealed| sealed.describe(descriptor));
                for message in held.into_iter().flatten() {
                    self.pushed(message);
                }
                Ok(Reply::Joined { cluster, info })
            }
            (Ok(_), None) => Err(RequestError::UnexpectedReply),
            (Err(error), _) => {
                self.roster.remove(cluster);
                self.undo(cluster);
                Err(error)
            }
        };
        if self.waiting.remove(&request).is_some() {
            self.reply(request, result);
        }
    }

    /// Whether the announcement waits for the cluster's descriptor.
    pub(super) fn held(&mut self, message: &Message) -> bool {
        let cluster = match message {
            Message::ClusterReady { cluster }
            | Message::Member { cluster, .. }
            | Message::Membership { cluster, .. }
            | Message::Revoked { cluster, .. } => *cluster,
            _ => return false,
        };
        let most = self.config.max_members.saturating_mul(2).saturating_add(16);
        let roster = self.roster.cluster_mut(cluster);
        let sealed = roster.and_then(|roster| roster.sealed_mut());
        sealed.is_some_and(|sealed| sealed.hold(message, most))
    }

    /// A push of profile 1.1.
    pub(super) fn pushed_signed(&mut self, message: Message) {
        match &message {
            Message::Membership {
                cluster,
                id,
                membership,
            } => {
                if *id == self.config.id {
                    return;
                }
                let max = self.config.max_members;
                let Some(roster) = self.roster.cluster_mut(*cluster) else {
                    return;
                };
                let full = roster.members().count() >= max;
                let known = roster.sealed().is_some_and(|sealed| sealed.knows(*id));
                if (full && !known) || !roster.admit(*id, membership) {
                    return;
                }
                let changed = roster.sealed_mut().map(SealedRoster::take_changed);
                let cluster = *cluster;
                self.want(*id);
                self.events.push_back(MemberEvent::Push(message));
                for (old, new) in changed.into_iter().flatten() {
                    self.events
                        .push_back(MemberEvent::KeyChanged { cluster, old, new });
                    self.is_out(cluster, old);
                }
                self.forget_strangers();
            }
            Message::Revoked { cluster, list } => {
                let cluster = *cluster;
                let roster = self.roster.cluster_mut(cluster);
                let sealed = roster.and_then(|roster| roster.sealed_mut());
                let Some(out) = sealed.and_then(|sealed| sealed.revoke(list)) else {
                    return;
                };
                let own = self.config.id;
                let removed = out.contains(&own);
                self.events.push_back(MemberEvent::Push(message));
                for id in out.into_iter().filter(|&id| id != own) {
                    self.is_out(cluster, id);
                }
                if removed {
                    self.lose(cluster, None);
                }
                self.forget_strangers();
            }
            Message::Profile { id, profile } => {
                if let Ok(profile) = Profile::parse_of(*id, profile)
                    && self.learned(profile)
                {
                    self.events.push_back(MemberEvent::Push(message));
                }
            }
            Message::CodePass { client: None, .. } | Message::CodeClose { client: None, .. } => {
                self.events.push_back(MemberEvent::Push(message));
            }
            _ => {}
        }
    }

    /// What was signed says that `id` is no member, whatever the server says.
    fn is_out(&mut self, cluster: ClusterId, id: NodeId) {
        let Some(roster) = self.roster.cluster_mut(cluster) else {
            return;
        };
        let max = self.config.max_members;
        let left = vmdt_wire::MemberState::Left;
        let state = roster.announced(id, left, None, None, max);
        self.events.push_back(MemberEvent::Push(Message::Member {
            cluster,
            id,
            state: left,
            address: None,
            caps: None,
        }));
        self.state_event(cluster, state);
    }

    /// Takes a profile in, if it is that of a member and newer. Whether it is.
    pub(super) fn learned(&mut self, profile: Profile) -> bool {
        let id = profile.node_id();
        if !self.roster.has_signed(id) {
            return false;
        }
        let known = self.profiles.get(&id);
        let news = known.is_none_or(|known| profile.replaces(known));
        if news {
            self.profiles.insert(id, profile);
        }
        news
    }

    /// Drops the profiles of those who are in none of our clusters any more.
    fn forget_strangers(&mut self) {
        let roster = &self.roster;
        self.profiles.retain(|&id, _| roster.has_signed(id));
        self.wanted.retain(|&id| roster.has_signed(id));
    }

    /// The profile of `id` is to be fetched.
    fn want(&mut self, id: NodeId) {
        self.wanted.insert(id);
        self.fetch();
    }

    /// All profiles of a cluster may have changed while we were away.
    pub(super) fn refetch(&mut self, cluster: ClusterId) {
        let Some(roster) = self.roster.cluster(cluster) else {
            return;
        };
        if roster.sealed().is_some() {
            let ids: Vec<NodeId> = roster.members().map(|(id, _)| id).collect();
            self.wanted.extend(ids);
            self.fetch();
        }
    }

    fn fetch(&mut self) {
        let client = self.config.id;
        while self.fetching < FETCHES && matches!(self.link, Link::Up(_)) {
            let Some(target) = self.wanted.pop_first() else {
                return;
            };
            let ask = Message::GetProfile { client, target };
            if self.send(Purpose::Fetch(target), ask).is_some() {
                self.fetching += 1;
            }
        }
    }

    /// The answer to a profile that was fetched. Who has none publishes one later.
    pub(super) fn fetched(&mut self, id: NodeId, message: Message) {
        self.fetching = self.fetching.saturating_sub(1);
        if let Message::Profile { id: named, .. } = &message
            && *named == id
        {
            self.pushed_signed(message);
        }
        self.fetch();
    }

    /// After a reconnection: the server may have lost our profile.
    pub(super) fn republish(&mut self) {
        if let Some(profile) = self.own_profile.clone() {
            let client = self.config.id;
            let profile = profile.to_vec();
            self.send(Purpose::Repeat, Message::PutProfile { client, profile });
        }
    }

    /// The server does not know the cluster: makes it anew, from what was signed.
    /// Whether that is possible.
    pub(super) fn recreate(&mut self, cluster: ClusterId) -> bool {
        let sealed = self.roster.cluster(cluster).and_then(|r| r.sealed());
        let Some((trust, sealed)) = sealed.and_then(|s| Some((s.trust()?, s))) else {
            return false;
        };
        let create = Message::CreateSealed {
            client: self.config.id,
            descriptor: trust.descriptor().octets().to_vec(),
            membership: sealed.own_membership().to_vec(),
        };
        self.send(Purpose::Recreate(cluster), create).is_some()
    }

    pub(super) fn recreated(&mut self, now: Instant, cluster: ClusterId, message: Message) {
        let info = match message {
            Message::ClusterCreated { info, .. } => info,
            Message::Error { code, text, .. } => {
                self.lose(cluster, Some(ServerError { code, text }));
                return;
            }
            _ => {
                self.drop_link(now, LinkError::BadReply);
                return;
            }
        };
        let sealed = self.roster.cluster(cluster).and_then(|r| r.sealed());
        let list = sealed.and_then(|sealed| sealed.revoked());
        if let Some(list) = list.map(|list| list.to_vec()) {
            let client = self.config.id;
            let revoke = Message::Revoke {
                client,
                cluster,
                list,
            };
            self.send(Purpose::Repeat, revoke);
        }
        self.rejoined(now, cluster, Message::ClusterJoined { cluster, info });
    }

    /// The connection is gone: clusters whose descriptor had not come are joined
    /// again by the request that still waits.
    pub(super) fn forget_undescribed(&mut self) {
        let clusters: Vec<ClusterId> = self
            .roster
            .iter()
            .filter(|(_, r)| r.sealed().is_some_and(|sealed| sealed.trust().is_none()))
            .map(|(cluster, _)| cluster)
            .collect();
        for cluster in clusters {
            self.roster.remove(cluster);
        }
    }
}

fn parse_descriptor(octets: &[u8]) -> Result<Descriptor, RequestError> {
    let what = "descriptor";
    Descriptor::parse(octets).map_err(|_| RequestError::BadSignature { what })
}
