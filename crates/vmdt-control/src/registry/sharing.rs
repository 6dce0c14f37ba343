//! A registry among several that share one state.
//!
//! A store that orders what they write, and that gives one of them at a time the right to
//! write, makes many registries one. This is the contract, from the driver's side:
//!
//! 1. [`Registry::begin_sharing`], then [`Registry::handle_attached`] with everything that
//!    the store holds;
//! 2. what others write goes to [`Registry::handle_records`], in the store's order, all
//!    that was written at once in one call;
//! 3. while [`Registry::wants_write`], no more input: the driver asks the store for the
//!    right to write. When it has come *and everything written before it was taken in*:
//!    [`Registry::handle_write_granted`]; more input may follow; then `poll_record` to the
//!    end, all of it to the store, the right given back,
//!    [`Registry::handle_write_ended`], and only then the outputs;
//! 4. when the right is lost before that, or the store has lost this server:
//!    [`Registry::handle_detached`]. Nothing that was not written is told to anybody, and
//!    every client is sent to another server. [`Registry::handle_attached`] begins anew.
//!
//! Questions are answered without the right to write, by what was taken in so far.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use vmdt_wire::{Message, NodeId};

use super::Registry;
use crate::codes::Codes;
use crate::error::Refusal;
use crate::event::ConnId;
use crate::record::{Record, RecordKey, Restored};

/// What a registry keeps because it shares its state.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    attached: bool,
    granted: bool,
    /// Places whose grace is over wait.
    expiry: bool,
    /// Connections that hold a line back.
    held: VecDeque<ConnId>,
    /// Clients whose connection has ended. Bounded by the connections there were.
    lost: VecDeque<(NodeId, ConnId)>,
}

impl Registry {
    /// From now on other registries have the same state: nothing is changed without the
    /// right to write, and nobody let in before [`handle_attached`](Self::handle_attached).
    /// Call it before anything else happens.
    pub fn begin_sharing(&mut self) {
        self.directory.begin_sharing();
        self.sharing.get_or_insert_default();
    }

    /// Takes in all that the store holds, and begins to serve.
    pub fn handle_attached(
        &mut self,
        now: Instant,
        records: impl IntoIterator<Item = (RecordKey, Bytes)>,
    ) -> Restored {
        let restored = self.directory.restore(now, records);
        if let Some(sharing) = &mut self.sharing {
            sharing.attached = true;
        }
        self.settle(now);
        restored
    }

    /// The state can no longer be written, or is no longer known: ends every connection,
    /// forgets everything, and turns clients away until
    /// [`handle_attached`](Self::handle_attached).
    pub fn handle_detached(&mut self, now: Instant) {
        // What waits to be told may never have been written.
        self.outputs.clear();
        for connection in self.conns.values_mut() {
            connection.out = Vec::new();
        }
        if let Some(sharing) = &mut self.sharing {
            *sharing = Sharing::default();
        }
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            self.end(now, conn, Refusal::Detached);
        }
        self.doomed.clear();
        self.directory.clear();
        self.codes = Codes::default();
        if let Some(sharing) = &mut self.sharing {
            sharing.lost.clear();
        }
    }

    /// Takes in what another registry has written at once.
    pub fn handle_records(&mut self, now: Instant, records: impl IntoIterator<Item = Record>) {
        if self.is_detached() {
            return;
        }
        let (superseded, unread) = self.directory.apply(now, records);
        self.stats.unread_records += unread as u64;
        for (conn, id) in superseded {
            self.doom(conn, Refusal::Superseded { id });
        }
        self.settle(now);
    }

    /// Whether something waits for the right to write: read no more input until it was
    /// granted.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| {
            let waits = sharing.expiry || !sharing.held.is_empty() || !sharing.lost.is_empty();
            sharing.attached && !sharing.granted && (waits || self.directory.owes())
        })
    }

    /// This registry may write now: does what has waited for that.
    pub fn handle_write_granted(&mut self, now: Instant) {
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        if !sharing.attached {
            return;
        }
        sharing.granted = true;
        sharing.expiry = false;
        let lost = std::mem::take(&mut sharing.lost);
        let held = std::mem::take(&mut sharing.held);
        for (id, conn) in lost {
            self.lost(now, id, conn);
        }
        self.directory.expire(now);
        self.directory.pay();
        self.settle(now);
        for conn in held {
            let octets = self
                .conns
                .get_mut(&conn)
                .map(|c| std::mem::take(&mut c.held));
            self.handle_bytes(now, conn, &octets.unwrap_or_default());
        }
    }

    /// The right to write was given back.
    pub fn handle_write_ended(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            sharing.granted = false;
        }
    }

    /// Whether there is no state to serve.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.sharing.as_ref().is_some_and(|s| !s.attached)
    }

    /// Whether the state may be changed now.
    fn may_write(&self) -> bool {
        self.sharing.as_ref().is_none_or(|sharing| sharing.granted)
    }

    /// Whether a request must wait for the right to write: not one that is refused for
    /// the rate of its client anyway.
    pub(super) fn must_wait(&self, now: Instant, conn: ConnId, cost: u32) -> bool {
        !self.may_write()
            && self
                .conns
                .get(&conn)
                .is_some_and(|c| c.bucket.clone().take(now, cost))
    }

    /// Whether `message` may change a state that is shared.
    pub(super) fn shares(&self, conn: ConnId, message: &Message) -> bool {
        if self.sharing.is_none() {
            return false;
        }
        match message {
            Message::RegisterP2pPort { .. }
            | Message::CreateCluster { .. }
            | Message::JoinCluster { .. }
            | Message::LeaveCluster { .. }
            | Message::PutProfile { .. }
            | Message::CreateSealed { .. }
            | Message::JoinSealed { .. }
            | Message::Revoke { .. } => true,
            // The first request of a connection says whose it is.
            Message::ListClusters { .. }
            | Message::GetClusterMembers { .. }
            | Message::GetClientInfo { .. }
            | Message::GetProfile { .. }
            | Message::GetDescriptor { .. }
            | Message::GetMembership { .. }
            | Message::CodeOpen { .. }
            | Message::CodeJoin { .. }
            | Message::CodePass { .. }
            | Message::CodeClose { .. } => self.conns.get(&conn).is_some_and(|c| c.id.is_none()),
            // Relayed, or never answered with more than an ERROR.
            _ => false,
        }
    }

    /// Keeps what has arrived on a connection until there is the right to write.
    pub(super) fn hold(&mut self, now: Instant, conn: ConnId, octets: &[u8]) {
        let (Some(connection), Some(sharing)) = (self.conns.get_mut(&conn), &mut self.sharing)
        else {
            return;
        };
        if connection.held.is_empty() {
            sharing.held.push_back(conn);
        }
        connection.held.extend_from_slice(octets);
        // A driver that stops reading holds one piece of input back.
        if connection.held.len() > self.config.max_backlog {
            let per_second = self.config.rate;
            self.end(now, conn, Refusal::RateLimited { per_second });
            self.settle(now);
        }
    }

    /// Whether `conn` holds a line back.
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|c| !c.held.is_empty())
    }

    /// The connection of `id` has ended.
    pub(super) fn lost(&mut self, now: Instant, id: NodeId, conn: ConnId) {
        match &mut self.sharing {
            Some(sharing) if !sharing.granted => sharing.lost.push_back((id, conn)),
            _ => {
                if self.directory.connection(id) == Some(conn) {
                    self.directory.lost(now, id);
                }
            }
        }
    }

    /// Takes the places whose grace is over, or asks to be allowed that.
    pub(super) fn expire(&mut self, now: Instant) {
        match &mut self.sharing {
            Some(sharing) if !sharing.granted => {
                let due = self.directory.next_deadline().is_some_and(|at| at <= now);
                sharing.expiry |= due && sharing.attached;
            }
            _ => self.directory.expire(now),
        }
    }

    /// Whether that was asked already.
    pub(super) fn expiry_waits(&self) -> bool {
        self.sharing
            .as_ref()
            .is_some_and(|sharing| sharing.expiry || !sharing.attached)
    }
}
