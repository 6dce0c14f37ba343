//! Requests and their replies, and what the server says unasked.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vmdt_wire::{ClusterId, ClusterInfo, ErrorCode, Framing, Line, MemberState, Message, NodeId};

use super::{Link, Member};
use crate::error::{LinkError, RequestError, ServerError};
use crate::event::{MemberEvent, Reply, Request, RequestId};
use crate::state::ClusterState;

/// How long members of a sealed cluster have to return to a server that we returned to: it may
/// know of them only by themselves. Several times the longest pause between two attempts.
const RETURN_TIME: Duration = Duration::from_secs(30);

/// A request without its result.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// Its tag, once it is sent on the present connection.
    pub(super) tag: Option<u32>,
    /// Whether it was sent before, with an effect that is not known.
    repeated: bool,
}

impl Waiting {
    pub(super) fn new(request: Request, deadline: Instant) -> Waiting {
        Waiting {
            request,
            deadline,
            tag: None,
            repeated: false,
        }
    }

    /// The cluster it is about to leave.
    pub(super) fn leaves(&self) -> Option<ClusterId> {
        match self.request {
            Request::LeaveCluster(cluster) => Some(cluster),
            _ => None,
        }
    }
}

/// What a line with a tag was sent for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Register,
    Ping,
    Rejoin(ClusterId),
    /// Brings a cluster back that the server has lost.
    Recreate(ClusterId),
    /// Fetches the descriptor of a cluster just joined.
    Describe {
        cluster: ClusterId,
        request: RequestId,
    },
    /// Fetches the profile of a member.
    Fetch(NodeId),
    /// Repeats what the server may have lost; whether it takes it does not matter.
    Repeat,
    /// Answered after the roster was announced anew: whoever was not announced
    /// by then has left.
    Sync(ClusterId),
    /// Takes back what a reply that came too late has done.
    Undo,
    /// A LEAVE_CLUSTER that has timed out and may yet be carried out.
    LateLeave(ClusterId),
    User(RequestId),
    Relay {
        to: NodeId,
        index: u16,
    },
}

impl Member {
    pub(super) fn reply(&mut self, request: RequestId, result: Result<Reply, RequestError>) {
        self.events
            .push_back(MemberEvent::Reply { request, result });
    }

    /// A tag that nothing outstanding has.
    pub(super) fn fresh_tag(&mut self) -> u32 {
        loop {
            let tag = self.next_tag;
            self.next_tag = self.next_tag.wrapping_add(1);
            if !self.tags.contains_key(&tag) {
                return tag;
            }
        }
    }

    /// Writes one tagged line; `None` if it cannot stand on a line.
    pub(super) fn send(&mut self, purpose: Purpose, message: Message) -> Option<u32> {
        let tag = self.fresh_tag();
        let line = Line {
            framing: Framing::Slash,
            tag: Some(tag),
            message,
        };
        self.out.extend(line.emit().ok()?);
        self.tags.insert(tag, purpose);
        Some(tag)
    }

    /// Sends a request that has not been sent on this connection.
    pub(super) fn send_request(&mut self, id: RequestId) {
        let Some(waiting) = self.waiting.get(&id) else {
            return;
        };
        if waiting.tag.is_some() {
            return;
        }
        let client = self.config.id;
        let message = match waiting.request.clone() {
            Request::CreateCluster { n, k, options } => Message::CreateCluster {
                client,
                n,
                k,
                options,
            },
            Request::JoinCluster(cluster) => Message::JoinCluster { client, cluster },
            Request::LeaveCluster(cluster) => Message::LeaveCluster {
                client,
                cluster: Some(cluster),
            },
            Request::ListClusters => Message::ListClusters {
                client,
                after: None,
            },
            Request::Members(cluster) => Message::GetClusterMembers {
                client,
                cluster: Some(cluster),
            },
            Request::ClientInfo(target) => Message::GetClientInfo { client, target },
            Request::ListClustersAfter(after) => Message::ListClusters {
                client,
                after: Some(after),
            },
            signed => match self.signed_request(signed) {
                Ok(message) => message,
                Err(error) => {
                    self.waiting.remove(&id);
                    self.reply(id, Err(error));
                    return;
                }
            },
        };
        let tag = self.send(Purpose::User(id), message);
        if tag.is_none() {
            self.waiting.remove(&id);
            self.reply(id, Err(RequestError::Unwritable));
        } else if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.tag = tag;
        }
    }

    /// Fails what has waited too long.
    pub(super) fn expire_requests(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.get().deadline > now {
                break;
            }
            let (id, waiting) = entry.remove_entry();
            let after = self.config.request_timeout;
            let error = match waiting.tag {
                Some(tag) => {
                    if let Some(Purpose::Describe { cluster, .. }) = self.tags.remove(&tag) {
                        self.roster.remove(cluster);
                        self.undo(cluster);
                    }
                    if let Some(cluster) = waiting.leaves() {
                        self.tags.insert(tag, Purpose::LateLeave(cluster));
                    }
                    RequestError::Timeout { after }
                }
                None => RequestError::NotConnected {
                    after,
                    last: self.last_error.clone(),
                },
            };
            self.reply(id, Err(error));
        }
    }

    /// The connection is gone: what can be repeated waits for the next one.
    pub(super) fn interrupt_requests(&mut self, reason: &LinkError) {
        let mut failed = Vec::new();
        for (&id, waiting) in &mut self.waiting {
            if waiting.tag.take().is_none() {
                continue;
            }
            waiting.repeated = true;
            let once = matches!(
                waiting.request,
                Request::CreateCluster { .. } | Request::CodeOpen | Request::CodePass { .. }
            );
            if once {
                failed.push(id);
            }
        }
        for id in failed {
            self.waiting.remove(&id);
            self.reply(id, Err(RequestError::Interrupted(reason.clone())));
        }
    }

    /// One line from the server. A line that cannot be read is skipped: it is
    /// newer than we are, or damage that its request's timeout covers.
    pub(super) fn handle_line(&mut self, now: Instant, octets: &[u8]) {
        let Ok(line) = Line::parse(octets) else {
            return;
        };
        let Some(tag) = line.tag else {
            self.pushed(line.message);
            return;
        };
        let Some(purpose) = self.tags.remove(&tag) else {
            self.late(line.message);
            return;
        };
        match purpose {
            Purpose::Register => self.registered(now, line.message),
            Purpose::Ping => self.pong(now),
            Purpose::Rejoin(cluster) => self.rejoined(now, cluster, line.message),
            Purpose::Recreate(cluster) => self.recreated(now, cluster, line.message),
            Purpose::Describe { cluster, request } => {
                self.described(cluster, request, line.message);
            }
            Purpose::Fetch(id) => self.fetched(id, line.message),
            Purpose::Sync(cluster) => self.synced(now, cluster),
            Purpose::Undo | Purpose::Repeat => {}
            Purpose::LateLeave(cluster) => {
                if matches!(line.message, Message::Ok { .. }) {
                    self.lose(cluster, None);
                } else {
                    self.rejoin_if_unconfirmed(cluster);
                }
            }
            Purpose::User(id) => self.answered(id, line.message),
            Purpose::Relay { to, index } => {
                self.relay_tags.retain(|&other| other != tag);
                if let Message::Error { code, text, .. } = line.message {
                    let error = ServerError { code, text };
                    self.events
                        .push_back(MemberEvent::RelayRefused { to, index, error });
                }
            }
        }
    }

    fn registered(&mut self, now: Instant, message: Message) {
        match message {
            Message::Ok { .. } => self.up(now),
            Message::Error { code, text, .. } => {
                self.drop_link(now, LinkError::Refused(ServerError { code, text }));
            }
            _ => self.drop_link(now, LinkError::BadReply),
        }
    }

    pub(super) fn rejoined(&mut self, now: Instant, cluster: ClusterId, message: Message) {
        let info = match message {
            Message::ClusterJoined { info, .. } => info,
            Message::Error { code, text, .. } => {
                let error = ServerError { code, text };
                match error.code {
                    // The place is ours on this very connection.
                    ErrorCode::AlreadyMember => None,
                    // Nothing is wrong with the place: try again later.
                    ErrorCode::RateLimited | ErrorCode::Internal => {
                        self.drop_link(now, LinkError::Refused(error));
                        return;
                    }
                    ErrorCode::UnknownCluster if self.recreate(cluster) => return,
                    _ => {
                        self.lose(cluster, Some(error));
                        return;
                    }
                }
            }
            _ => {
                self.drop_link(now, LinkError::BadReply);
                return;
            }
        };
        let Some(roster) = self.roster.cluster_mut(cluster) else {
            // Left meanwhile.
            return;
        };
        roster.rejoined(info);
        self.refetch(cluster);
        self.events.push_back(MemberEvent::Rejoined { cluster });
        let id = self.config.id;
        let ask = Message::GetClientInfo {
            client: id,
            target: id,
        };
        self.send(Purpose::Sync(cluster), ask);
    }

    fn synced(&mut self, now: Instant, cluster: ClusterId) {
        let Some(roster) = self.roster.cluster_mut(cluster) else {
            return;
        };
        let (left, state) = roster.synced(now + RETURN_TIME);
        self.left_meanwhile(cluster, left, state);
    }

    /// Members that have not returned in time after a server did are forgotten.
    pub(super) fn settle_rosters(&mut self, now: Instant) {
        while let Some((cluster, left, state)) = self.roster.settle_next(now) {
            self.left_meanwhile(cluster, left, state);
        }
    }

    fn left_meanwhile(
        &mut self,
        cluster: ClusterId,
        left: Vec<NodeId>,
        state: Option<ClusterState>,
    ) {
        for id in left {
            self.events.push_back(MemberEvent::Push(Message::Member {
                cluster,
                id,
                state: MemberState::Left,
                address: None,
                caps: None,
            }));
        }
        self.state_event(cluster, state);
    }

    fn answered(&mut self, id: RequestId, message: Message) {
        let Some(mut waiting) = self.waiting.remove(&id) else {
            return;
        };
        waiting.tag = None;
        let result = match (&waiting.request, message) {
            // Carried out before a connection was lost, or the server was restarted.
            (Request::LeaveCluster(cluster), Message::Error { code, .. })
                if matches!(code, ErrorCode::NotAMember | ErrorCode::UnknownCluster)
                    && (waiting.repeated || self.roster.contains(*cluster)) =>
            {
                self.left(*cluster)
            }
            (Request::LeaveCluster(cluster), Message::Error { code, text, .. }) => {
                self.rejoin_if_unconfirmed(*cluster);
                Err(RequestError::Refused(ServerError { code, text }))
            }
            (Request::JoinCluster(cluster), Message::Error { code, .. })
                if code == ErrorCode::AlreadyMember
                    && !waiting.repeated
                    && !self.roster.contains(*cluster) =>
            {
                // An earlier request of ours was carried out after it had timed
                // out. Begin anew, to be told everything a joiner is told.
                let cluster = *cluster;
                waiting.repeated = true;
                self.waiting.insert(id, waiting);
                self.undo(cluster);
                self.send_request(id);
                return;
            }
            (_, Message::Error { code, text, .. }) => {
                Err(RequestError::Refused(ServerError { code, text }))
            }
            (
                Request::CreateCluster { n, k, options },
                Message::ClusterCreated { cluster, info },
            ) => {
                let info = info.or_else(|| {
                    Some(ClusterInfo {
                        n: *n,
                        k: *k,
                        options: options.unwrap_or_default(),
                    })
                });
                self.roster.insert(cluster, info);
                Ok(Reply::Created { cluster })
            }
            (Request::JoinCluster(_), Message::ClusterJoined { cluster, info }) => {
                self.roster.insert(cluster, info);
                Ok(Reply::Joined { cluster, info })
            }
            (Request::LeaveCluster(cluster), Message::Ok { .. }) => self.left(*cluster),
            (
                Request::ListClusters | Request::ListClustersAfter(_),
                Message::ClusterList { clusters },
            ) => Ok(Reply::Clusters(clusters)),
            (Request::Members(_), Message::ClusterMembers { members }) => {
                Ok(Reply::Members(members))
            }
            (Request::ClientInfo(_), Message::ClientInfo { ip, port, caps }) => {
                let address = SocketAddr::new(ip, port);
                Ok(Reply::ClientInfo { address, caps })
            }
            (_, message) => match self.signed_answer(id, waiting, message) {
                Some(result) => result,
                // It waits for the descriptor.
                None => return,
            },
        };
        self.reply(id, result);
    }

    /// A cluster about to be left was not rejoined; now it stays.
    fn rejoin_if_unconfirmed(&mut self, cluster: ClusterId) {
        let roster = self.roster.cluster(cluster);
        if roster.is_some_and(|roster| !roster.is_confirmed()) {
            self.rejoin(cluster);
        }
    }

    pub(super) fn rejoin(&mut self, cluster: ClusterId) {
        let client = self.config.id;
        let sealed = self.roster.cluster(cluster).and_then(|r| r.sealed());
        let join = match sealed {
            None => Message::JoinCluster { client, cluster },
            Some(sealed) => Message::JoinSealed {
                client,
                cluster,
                membership: sealed.own_membership().to_vec(),
            },
        };
        self.send(Purpose::Rejoin(cluster), join);
    }

    fn left(&mut self, cluster: ClusterId) -> Result<Reply, RequestError> {
        self.roster.remove(cluster);
        Ok(Reply::Left { cluster })
    }

    /// A reply whose request has timed out. What it did is taken back: the
    /// application was told that it failed.
    fn late(&mut self, message: Message) {
        let (Message::ClusterCreated { cluster, .. } | Message::ClusterJoined { cluster, .. }) =
            message
        else {
            return;
        };
        let joining = |w: &Waiting| match &w.request {
            Request::JoinCluster(c) | Request::JoinSealed { cluster: c, .. } => *c == cluster,
            // Which one it makes is not at hand.
            Request::CreateSealed { .. } => true,
            _ => false,
        };
        let wanted = self.roster.contains(cluster) || self.waiting.values().any(joining);
        if !wanted && matches!(self.link, Link::Up(_)) {
            self.undo(cluster);
        }
    }

    pub(super) fn undo(&mut self, cluster: ClusterId) {
        let leave = Message::LeaveCluster {
            client: self.config.id,
            cluster: Some(cluster),
        };
        self.send(Purpose::Undo, leave);
    }

    /// A line that answers nothing.
    pub(super) fn pushed(&mut self, message: Message) {
        if self.held(&message) {
            return;
        }
        match &message {
            Message::ClusterReady { cluster } => {
                let cluster = *cluster;
                let Some(roster) = self.roster.cluster_mut(cluster) else {
                    return;
                };
                let state = roster.announced_ready();
                self.events.push_back(MemberEvent::Push(message));
                self.state_event(cluster, state);
            }
            Message::Member {
                cluster,
                id,
                state,
                address,
                caps,
            } => {
                let (cluster, state) = (*cluster, *state);
                if *id == self.config.id {
                    if state == MemberState::Left {
                        self.lose(cluster, None);
                    }
                    return;
                }
                let max = self.config.max_members;
                let Some(roster) = self.roster.cluster_mut(cluster) else {
                    return;
                };
                // The server's word alone makes nobody a member.
                let signed = roster.sealed().is_none_or(|sealed| sealed.knows(*id));
                if !signed && state != MemberState::Left {
                    return;
                }
                let state = roster.announced(*id, state, *address, *caps, max);
                self.events.push_back(MemberEvent::Push(message));
                self.state_event(cluster, state);
            }
            Message::MessageShare { to, .. } if *to == self.config.id => {
                self.events.push_back(MemberEvent::Push(message));
            }
            Message::Error { code, text, .. } => {
                self.parting = Some(ServerError {
                    code: *code,
                    text: text.clone(),
                });
                self.events.push_back(MemberEvent::Push(message));
            }
            // A reply to nobody, what is not for a member, or what is signed.
            _ => self.pushed_signed(message),
        }
    }

    pub(super) fn lose(&mut self, cluster: ClusterId, reason: Option<ServerError>) {
        if self.roster.remove(cluster) {
            self.events
                .push_back(MemberEvent::ClusterLost { cluster, reason });
        }
    }

    pub(super) fn state_event(&mut self, cluster: ClusterId, state: Option<ClusterState>) {
        if let Some(state) = state {
            self.events.push_back(MemberEvent::State { cluster, state });
        }
    }
}
