//! Answers to what profile 1.1 asks.

use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{Message, NodeId};

use super::Registry;
use crate::error::Refusal;
use crate::event::ConnId;

/// Tokens of a request for which signatures are verified: each costs about as
/// much time as so many plain requests.
const VERIFYING: u32 = 50;

/// Tokens of a guess at a code number.
const GUESSING: u32 = 500;

impl Registry {
    /// The tokens that a request costs.
    pub(super) fn cost(message: &Message) -> u32 {
        match message {
            Message::PutProfile { .. }
            | Message::CreateSealed { .. }
            | Message::JoinSealed { .. }
            | Message::Revoke { .. } => VERIFYING,
            Message::CodeOpen { .. } | Message::CodeJoin { .. } => GUESSING,
            _ => 1,
        }
    }

    /// The reply to a request of profile 1.1, for a connection that has proven
    /// who it is. `None`: the message is no such request.
    pub(super) fn answer_signed(
        &mut self,
        now: Instant,
        conn: ConnId,
        message: &Message,
    ) -> Option<Result<Message, Refusal>> {
        let client = match message {
            Message::PutProfile { client, .. }
            | Message::GetProfile { client, .. }
            | Message::CreateSealed { client, .. }
            | Message::JoinSealed { client, .. }
            | Message::GetDescriptor { client, .. }
            | Message::GetMembership { client, .. }
            | Message::Revoke { client, .. }
            | Message::CodeOpen { client }
            | Message::CodeJoin { client, .. } => *client,
            Message::CodePass { client, .. } | Message::CodeClose { client, .. } => (*client)?,
            _ => return None,
        };
        Some(self.answer_proven(now, conn, client, message))
    }

    fn answer_proven(
        &mut self,
        now: Instant,
        conn: ConnId,
        client: NodeId,
        message: &Message,
    ) -> Result<Message, Refusal> {
        if self.conns.get(&conn).is_none_or(|c| c.proven.is_none()) {
            return Err(Refusal::Unauthenticated);
        }
        self.identify(now, conn, client)?;
        let vec = |octets: Bytes| octets.to_vec();
        let done = Message::Ok { text: None };
        match message {
            Message::PutProfile { profile, .. } => {
                self.directory.publish(client, profile)?;
                Ok(done)
            }
            &Message::GetProfile { target, .. } => Ok(Message::Profile {
                id: target,
                profile: vec(self.directory.profile(client, target)?),
            }),
            Message::CreateSealed {
                descriptor,
                membership,
                ..
            } => {
                let now_ms = self.unix_ms(now)?;
                let directory = &mut self.directory;
                let (cluster, info) =
                    directory.create_sealed(now_ms, client, descriptor, membership)?;
                let info = Some(info);
                Ok(Message::ClusterCreated { cluster, info })
            }
            Message::JoinSealed {
                cluster,
                membership,
                ..
            } => {
                let now_ms = self.unix_ms(now)?;
                let cluster = *cluster;
                let info = self
                    .directory
                    .join_sealed(now_ms, client, cluster, membership)?;
                let info = Some(info);
                Ok(Message::ClusterJoined { cluster, info })
            }
            &Message::GetDescriptor { cluster, .. } => Ok(Message::Descriptor {
                cluster,
                descriptor: vec(self.directory.descriptor(client, cluster)?),
            }),
            &Message::GetMembership {
                cluster, target, ..
            } => Ok(Message::Membership {
                cluster,
                id: target,
                membership: vec(self.directory.membership(client, cluster, target)?),
            }),
            Message::Revoke { cluster, list, .. } => {
                self.directory.revoke(client, *cluster, list)?;
                Ok(done)
            }
            Message::CodeOpen { .. } => {
                let number = self.codes.open(now, client)?;
                Ok(Message::Code { number })
            }
            &Message::CodeJoin { number, .. } => match self.codes.join(client, number) {
                Ok(()) => Ok(done),
                Err((refusal, told)) => {
                    for (id, number) in told {
                        self.code_closed(id, number);
                    }
                    Err(refusal)
                }
            },
            Message::CodePass { number, data, .. } => {
                let to = self.codes.pass(client, *number)?;
                let message = Message::CodePass {
                    client: None,
                    number: *number,
                    data: data.clone(),
                };
                self.push(&[to], &message);
                Ok(done)
            }
            &Message::CodeClose { number, .. } => {
                for (id, number) in self.codes.close(client, number)? {
                    self.code_closed(id, number);
                }
                Ok(done)
            }
            _ => Err(Refusal::Internal),
        }
    }

    /// The wall clock time, in milliseconds since 1970.
    fn unix_ms(&self, now: Instant) -> Result<u64, Refusal> {
        let (at, unix_ms) = self.clock.ok_or(Refusal::Internal)?;
        let passed = now.saturating_duration_since(at).as_millis();
        Ok(unix_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }
}
