//! Peers of profile 1.0: lines over TCP, shares inline, nothing protected.
//!
//! What was checked on deployed 1.0 software and shapes this file: it takes one line from each
//! connection and reads it with a single call of at most 4,095 octets; it shows a message again
//! when its announcement is repeated; it names messages `<sender>_<receiver>_<seconds>`, so that
//! two messages may bear one name; it confirms with SHARE_POOL_ACK on a connection of its own.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use vmdt_ssms::Share;
use vmdt_wire::{
    ClusterId, ContentType, DEFAULT_MAX_LINE, Framing, Line, LineFramer, Message, MessageId,
    MessageName, NodeId, ShareEntry, SharePoolAdd,
};

use super::envelope::Kind;
use super::event::{Carried, Paths, TransferError};
use super::outgoing::Source;
use super::placement::Carrier;
use super::{Core, Event, Output};

/// The longest line a 1.0 peer reads whole, its LF included.
pub(crate) const MAX_OPEN_LINE: usize = 4095;
/// Connections of peers at once; a further one is closed.
const MAX_CONNS: usize = 64;
/// Lines on their way to 1.0 peers; further ones are dropped.
const MAX_LINES: usize = 64;
/// Messages of 1.0 peers that wait for the application; further ones are refused.
const MAX_WAITING: usize = 256;
/// Messages that were delivered and are recognised when they come again.
const MAX_SEEN: usize = 4096;

/// A connection that a peer made to this node's TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerConn(pub u64);

#[derive(Debug)]
struct Sending {
    transfer: MessageId,
    to: NodeId,
    octets: u64,
}

#[derive(Debug)]
struct Waiting {
    sender: NodeId,
    name: MessageName,
}

/// What goes to and comes from 1.0 peers.
#[derive(Debug, Default)]
pub(crate) struct OpenPeers {
    conns: BTreeMap<PeerConn, LineFramer>,
    sending: BTreeMap<MessageName, Sending>,
    ops: BTreeMap<u64, MessageName>,
    seen: BTreeMap<[u8; 16], ()>,
    seen_order: VecDeque<[u8; 16]>,
    waiting: BTreeMap<u64, Waiting>,
    next_op: u64,
    lines: usize,
}

impl OpenPeers {
    pub(crate) fn is_busy(&self) -> bool {
        !self.sending.is_empty()
    }
}

impl Core {
    /// A peer connected to this node's TCP port.
    pub fn handle_peer_opened(&mut self, now: Instant, conn: PeerConn) {
        if self.open.conns.len() >= MAX_CONNS || !self.config.allow_open_peers {
            self.outputs.push_back(Output::ClosePeerConn(conn));
            return;
        }
        self.open
            .conns
            .insert(conn, LineFramer::new(DEFAULT_MAX_LINE));
        self.settle(now);
    }

    /// Octets on such a connection.
    pub fn handle_peer_bytes(&mut self, now: Instant, conn: PeerConn, bytes: &[u8]) {
        let Some(mut framer) = self.open.conns.remove(&conn) else {
            return;
        };
        framer.push(bytes);
        let mut intact = true;
        while let Some(line) = framer.next_line() {
            match line {
                Ok(line) => self.on_open_line(now, &line),
                Err(_) => {
                    self.stats.bad_lines += 1;
                    intact = false;
                    break;
                }
            }
        }
        if intact {
            self.open.conns.insert(conn, framer);
        } else {
            self.outputs.push_back(Output::ClosePeerConn(conn));
        }
        self.settle(now);
    }

    /// Such a connection ended. A last line without its LF counts.
    pub fn handle_peer_closed(&mut self, now: Instant, conn: PeerConn) {
        if let Some(mut framer) = self.open.conns.remove(&conn)
            && let Some(line) = framer.finish()
        {
            self.on_open_line(now, &line);
        }
        self.settle(now);
    }

    fn on_open_line(&mut self, now: Instant, line: &[u8]) {
        match Line::parse(line).map(|l| l.message) {
            Ok(Message::SharePoolAdd(add)) => self.on_open_add(now, &add),
            Ok(Message::SharePoolAck { message, receiver }) => {
                self.open_acknowledged(now, &message, receiver);
            }
            // what else 1.0 peers tell each other about their pools concerns no share of ours
            Ok(
                Message::SharePoolClaim { .. }
                | Message::SharePoolUnfreeze { .. }
                | Message::SharePoolRemove { .. },
            ) => {}
            _ => self.stats.bad_lines += 1,
        }
    }

    /// Whether a peer is a 1.0 member of a cluster of ours that allows such members.
    fn is_open_member(&self, peer: NodeId) -> bool {
        self.config.allow_open_peers
            && !self.speaks_rdt(peer)
            && self.member.roster().any(|(_, c)| {
                c.info().is_some_and(|i| i.options.open_peers) && c.member(peer).is_some()
            })
    }

    fn on_open_add(&mut self, now: Instant, add: &SharePoolAdd) {
        // shares for others stay unread: whoever broadcasts all of them gives everyone the message
        if add.receiver != self.config.id
            || !self.is_open_member(add.sender)
            || self.open.waiting.len() >= MAX_WAITING
        {
            self.stats.refused_shares += 1;
            return;
        }
        let shares: Vec<Share> = add
            .shares
            .iter()
            .filter_map(|entry| match entry {
                ShareEntry::Inline { share, .. } => {
                    Share::parse(Bytes::copy_from_slice(share)).ok()
                }
                _ => None,
            })
            .collect();
        let plain = match vmdt_ssms::reconstruct(&shares) {
            Ok(plain) => plain,
            Err(error) => {
                self.stats.refused_shares += 1;
                tracing::debug!(%error, "shares of a 1.0 peer do not make a message");
                return;
            }
        };
        let nonce = shares
            .first()
            .map(|s| super::outgoing::digest_of(&[s.body(), &s.nonce()]));
        let key = super::outgoing::digest_of(&[
            add.message.as_str().as_bytes(),
            &nonce.unwrap_or_default(),
        ]);
        if self.open.seen.contains_key(&key) {
            self.confirm_open(now, add.sender, add.message);
            return;
        }
        self.open.seen.insert(key, ());
        self.open.seen_order.push_back(key);
        if self.open.seen_order.len() > MAX_SEEN
            && let Some(old) = self.open.seen_order.pop_front()
        {
            self.open.seen.remove(&old);
        }
        self.note_open_peer(add.sender);
        let octets = plain.len();
        let id = self.new_message_id();
        let handle = self.next_handle;
        self.next_handle += 1;
        let paths = Paths::from([(
            Carrier::Direct,
            Carried {
                shares: shares.len() as u64,
                octets: octets as u64,
            },
        )]);
        if add.content == ContentType::File {
            // a file that fits in a line needs no stream: it is opened, written and finished
            self.begin_open_file(now, handle, add, id, Bytes::from(plain), paths);
            return;
        }
        let waiting = Waiting {
            sender: add.sender,
            name: add.message,
        };
        self.open.waiting.insert(handle, waiting);
        let event = Event::Message {
            id,
            from: add.sender,
            data: Bytes::from(plain),
            paths,
            open: true,
        };
        self.outputs.push_back(Output::Deliver { handle, event });
    }

    fn begin_open_file(
        &mut self,
        now: Instant,
        handle: u64,
        add: &SharePoolAdd,
        id: MessageId,
        content: Bytes,
        paths: Paths,
    ) {
        use super::envelope::Envelope;
        use super::{SinkOp, incoming::Incoming};
        let size = content.len() as u64;
        let envelope = Envelope {
            kind: Kind::File,
            transfer: id,
            number: 0,
            offset: 0,
            total: Some(size),
            name: add.filename.clone(),
            last: Some(*blake3::hash(&content).as_bytes()),
        };
        let mut incoming = Incoming::new(now, add.sender, handle, &envelope);
        incoming.paths = paths;
        if incoming
            .segment(now, id, envelope, content.clone())
            .is_err()
            || !matches!(incoming.next_piece(), Ok(Some(_)))
        {
            return;
        }
        incoming.untaken.clear();
        self.incoming.insert(handle, incoming);
        self.incoming_by_id.insert((add.sender, id), handle);
        self.open.waiting.insert(
            handle,
            Waiting {
                sender: add.sender,
                name: add.message,
            },
        );
        let op = SinkOp::Open {
            name: add.filename.clone(),
            size: Some(size),
            part: None,
        };
        self.outputs.push_back(Output::Sink { handle, op });
        if !content.is_empty() {
            self.outputs.push_back(Output::Sink {
                handle,
                op: SinkOp::Write(content),
            });
        }
        self.outputs.push_back(Output::Sink {
            handle,
            op: SinkOp::Finish,
        });
    }

    /// The application has a message of a 1.0 peer; false when the handle is none of those.
    pub(super) fn open_taken(&mut self, now: Instant, handle: u64) -> bool {
        let Some(waiting) = self.open.waiting.remove(&handle) else {
            return false;
        };
        self.confirm_open(now, waiting.sender, waiting.name);
        true
    }

    fn confirm_open(&mut self, _now: Instant, sender: NodeId, message: MessageName) {
        let receiver = self.config.id;
        self.send_open_line(sender, Message::SharePoolAck { message, receiver }, None);
    }

    /// Queues a line for a 1.0 peer; false when its address is not known or the line has no form.
    fn send_open_line(&mut self, to: NodeId, message: Message, about: Option<MessageName>) -> bool {
        let address = self
            .member
            .roster()
            .filter_map(|(_, c)| c.member(to))
            .find_map(|m| m.address);
        let line = Line {
            framing: Framing::Bar,
            tag: None,
            message,
        };
        let (Some(to), Ok(line)) = (address, line.emit()) else {
            return false;
        };
        if self.open.lines >= MAX_LINES {
            return false;
        }
        self.open.lines += 1;
        self.open.next_op += 1;
        let op = self.open.next_op;
        if let Some(name) = about {
            self.open.ops.insert(op, name);
        }
        self.outputs.push_back(Output::SendLine {
            op,
            to,
            line: line.into(),
        });
        true
    }

    /// Whether a transfer to a 1.0 peer may begin.
    pub(super) fn check_open(&self, to: NodeId, cluster: ClusterId) -> Result<(), TransferError> {
        let refuse = |what| Err(TransferError::OpenPeer { peer: to, what });
        if !self.config.allow_open_peers {
            return refuse("this node is not configured to send to such peers");
        }
        if !self
            .member
            .cluster(cluster)
            .and_then(|c| c.info())
            .is_some_and(|i| i.options.open_peers)
        {
            return refuse("the cluster does not allow such peers");
        }
        Ok(())
    }

    /// Sends the whole content to a 1.0 peer: k shares in one line.
    pub(super) fn send_open(&mut self, now: Instant, id: MessageId) {
        let Some(out) = self.outgoing.get_mut(&id) else {
            return;
        };
        let Some(content) = out.unplaced.take() else {
            return;
        };
        let (to, threshold, kind) = (out.to, out.threshold, out.kind);
        let name = out.name.clone();
        let too_large = TransferError::OpenPeer {
            peer: to,
            what: "it reads lines of at most 4,095 octets, and this message makes a longer one",
        };
        if !content.last {
            return self.fail_outgoing(now, id, too_large, false);
        }
        out.hasher.update(&content.data);
        out.digest = Some(*out.hasher.finalize().as_bytes());
        let octets = content.data.len() as u64;
        let shares = match vmdt_ssms::split_slice(threshold, &content.data, &mut self.rng) {
            Ok(shares) => shares,
            Err(error) => {
                let error = TransferError::Local(error.to_string());
                return self.fail_outgoing(now, id, error, false);
            }
        };
        let k = threshold.k();
        let message = MessageName::from(id);
        let add = Message::SharePoolAdd(SharePoolAdd {
            message,
            sender: self.config.id,
            receiver: to,
            total: threshold.n().into(),
            active: k.into(),
            content: match kind {
                Kind::File => ContentType::File,
                Kind::Octets => ContentType::Text,
            },
            filename: name,
            version: 0,
            details: Vec::new(),
            shares: shares
                .iter()
                .take(usize::from(k))
                .map(|s| ShareEntry::Inline {
                    index: u16::from(s.index().get()) - 1,
                    share: s.to_bytes().to_vec(),
                })
                .collect(),
        });
        let line = Line {
            framing: Framing::Bar,
            tag: None,
            message: add,
        };
        match line.emit() {
            Ok(bytes) if bytes.len() <= MAX_OPEN_LINE => {}
            Ok(_) => return self.fail_outgoing(now, id, too_large, false),
            Err(_) => {
                let what = "its framing can't carry the file's name";
                let error = TransferError::OpenPeer { peer: to, what };
                return self.fail_outgoing(now, id, error, false);
            }
        }
        if !self.send_open_line(to, line.message, Some(message)) {
            let error = TransferError::OpenPeer {
                peer: to,
                what: "its address is not known",
            };
            return self.fail_outgoing(now, id, error, false);
        }
        self.note_open_peer(to);
        if let Some(out) = self.outgoing.get_mut(&id) {
            for share in shares.iter().take(usize::from(k)) {
                out.carried(Carrier::Direct, share.len());
            }
            out.in_flight.insert(id);
            out.next = 1;
        }
        self.open.sending.insert(
            message,
            Sending {
                transfer: id,
                to,
                octets,
            },
        );
    }

    /// What became of an [`Output::SendLine`].
    pub fn line_sent(&mut self, now: Instant, op: u64, result: Result<(), String>) {
        self.open.lines = self.open.lines.saturating_sub(1);
        if let Some(name) = self.open.ops.remove(&op)
            && result.is_err()
            && let Some(sending) = self.open.sending.remove(&name)
        {
            let what = "its port can't be reached";
            let error = TransferError::OpenPeer {
                peer: sending.to,
                what,
            };
            self.fail_outgoing(now, sending.transfer, error, false);
        }
        self.settle(now);
    }

    fn open_acknowledged(&mut self, now: Instant, message: &MessageName, receiver: NodeId) {
        if self
            .open
            .sending
            .get(message)
            .is_none_or(|s| s.to != receiver)
        {
            return;
        }
        let Some(sending) = self.open.sending.remove(message) else {
            return;
        };
        // 1.0 peers keep their entry until somebody says this
        let remove = Message::SharePoolRemove { message: *message };
        self.send_open_line(receiver, remove, None);
        if let Some(out) = self.outgoing.get_mut(&sending.transfer) {
            out.delivered += sending.octets;
            out.in_flight.clear();
            out.source = Source::Ended;
        }
        self.finish_outgoing(now, sending.transfer);
    }

    pub(super) fn forget_open(&mut self, transfer: MessageId) {
        self.open.sending.retain(|_, s| s.transfer != transfer);
    }

    /// 1.0 transfers stall like others, which [`Core::tick_outgoing`] sees; what is left here is
    /// to forget lines nobody will answer.
    pub(super) fn tick_open(&mut self, _now: Instant) {
        let live: Vec<MessageName> = self.open.sending.keys().copied().collect();
        self.open.ops.retain(|_, name| live.contains(name));
    }
}
