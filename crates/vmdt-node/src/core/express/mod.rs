//! Express: small messages as pieces that need no announcement (`docs/protocol.md`, section 12.14).
//!
//! The ordinary way tells the receiver and every holder about each message, signed, on a flow that
//! is in order: for a message of one packet that is most of what is sent, and all of it waits for
//! whatever of it is lost. By express a message is dispersed into pieces that describe themselves,
//! each leaves in an unreliable datagram on its carrier's path, a holder hands it on as it comes,
//! and the receiver tells the sender directly which messages it has.
//!
//! - [`outbox`]: the pieces that wait for each path, and the messages until they are confirmed;
//! - [`inbox`]: the pieces that came, and what was delivered;
//! - [`openings`]: how a pair of nodes comes to have a secret for its messages;
//! - [`held`]: pieces of others, for a receiver to whom a session is being opened;
//! - [`sending`], [`arriving`]: what the core does with them;
//! - [`datagram`], [`ranges`]: octets and sets.
//!
//! What express can't do the ordinary way does: a message that is not confirmed after a repetition
//! goes that way under the same transfer id, so that it is delivered once whichever comes first.

mod arriving;
mod datagram;
mod held;
mod inbox;
mod openings;
mod outbox;
mod ranges;
mod sending;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use vmdt_wire::{Message, MessageId, MessageName, NodeId};

use super::Core;
use held::Held;
use inbox::Inbox;
use openings::Pair;
use outbox::Outbox;

/// The express side of a core.
#[derive(Debug, Default)]
pub(crate) struct Express {
    outbox: Outbox,
    inbox: Inbox,
    /// What is agreed on with the peers there is a session with.
    pairs: BTreeMap<NodeId, Pair>,
    /// Transfers that have begun to take the ordinary way.
    ordinary: BTreeSet<MessageId>,
    /// Octets that were handed on for each sender since the path to the receiver was last empty.
    handed_on: BTreeMap<NodeId, BTreeMap<NodeId, usize>>,
    /// Pieces of others for receivers to whom a session is being opened.
    held: Held,
}

impl Express {
    /// When something is to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let confirm = self.inbox.poll_timeout();
        self.outbox.poll_timeout().into_iter().chain(confirm).min()
    }
}

impl Core {
    /// What is due by now.
    pub(super) fn express_timeout(&mut self, now: Instant) {
        if self.express.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.confirm_express(now);
        self.look_after_express(now);
    }

    /// This node is about to close: what was confirmed of late is confirmed on the control flow,
    /// where nothing is lost.
    pub(super) fn express_last_words(&mut self, now: Instant) {
        for (to, transfer) in self.express.inbox.last_words(now) {
            let line = Message::SharePoolAck {
                message: MessageName::from(transfer),
                receiver: self.config.id,
            };
            self.send_line(now, to, line);
        }
    }

    /// A member has left: nothing more of it is expected.
    pub(super) fn express_left(&mut self, peer: NodeId) {
        if !self.is_member(peer) {
            self.express.inbox.forget(peer);
        }
    }

    /// A session with a peer has ended: what waited for it is lost, and it is told anew.
    pub(super) fn express_session_over(&mut self, now: Instant, peer: NodeId) {
        self.express.pairs.remove(&peer);
        self.express.handed_on.remove(&peer);
        self.express.outbox.path_lost(now, peer);
        self.express.outbox.receiver_lost(now, peer);
    }
}
