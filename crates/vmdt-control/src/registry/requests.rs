//! What the registry answers to each line.

use std::time::Instant;

use vmdt_wire::{ClusterEntry, Framing, Line, MAX_PARAMETERS, Message, NodeId};

use super::{Registry, error_line};
use crate::accounts::Kind;
use crate::error::Refusal;
use crate::event::{ConnId, RegistryEvent};

/// Octets of a list in bar form: software of profile 1.0 reads a reply with one
/// `recv` of at most 4,095 octets.
const BAR_LIST: usize = 4_000;

/// Octets of a list in slash form, below the line limit of its readers.
const SLASH_LIST: usize = 60_000;

/// Tokens of a record that a request changes, beyond those of the request: a store
/// that syncs to a disk takes so much longer for it than the registry for a
/// question. A small burst pays at most a quarter of itself for one.
const KEEPING: u32 = 20;

impl Registry {
    /// Reads one line and answers it: with one reply, one ERROR, or for one-way
    /// messages nothing. False: it changes what servers share, and has to wait until
    /// this one may.
    pub(super) fn handle_line(&mut self, now: Instant, conn: ConnId, octets: &[u8]) -> bool {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return true;
        };
        connection.last_line = Some(now);
        let limit = self.config.max_line;
        let long = octets.len() > limit;
        let may_be_long = |registry: &Registry| {
            let connection = registry.conns.get(&conn);
            connection.is_some_and(|c| registry.line_limit(c) > limit)
        };
        if long && !may_be_long(self) {
            self.stats.lines += 1;
            self.end(now, conn, Refusal::LineTooLong { limit });
            return true;
        }
        let (framing, tag, parsed) = match Line::parse(octets) {
            Ok(line) => (line.framing, line.tag, Ok(line.message)),
            Err(error) => {
                let (framing, tag) = framing_and_tag(octets);
                (framing, tag, Err(Refusal::Malformed(error)))
            }
        };
        let cost = parsed.as_ref().map_or(1, Registry::cost);
        let mut keeping = 0;
        if let Ok(message) = &parsed
            && self.shares(conn, message)
        {
            // The servers agree on it, even if it turns out to change nothing.
            keeping = 1;
            if self.must_wait(now, conn, cost) {
                return false;
            }
        }
        self.stats.lines += 1;
        if long && !matches!(parsed, Ok(Message::MessageShare { .. })) {
            self.end(now, conn, Refusal::LineTooLong { limit });
            return true;
        }
        let mut within_rate = false;
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.framing = framing;
            within_rate = connection.bucket.take(now, cost);
        }
        let answer = match parsed {
            // An ERROR is never answered with an ERROR, nor is an acknowledgement.
            Ok(Message::Error { .. } | Message::MessageReceived { .. }) => Ok(None),
            _ if !within_rate => Err(Refusal::RateLimited {
                per_second: self.config.rate,
            }),
            Ok(message) => {
                let before = self.directory.marks();
                let answer = self.answer(now, conn, framing, message);
                let records = (self.directory.marks() - before).max(keeping);
                if records > 0
                    && let Some(connection) = self.conns.get_mut(&conn)
                {
                    let each = KEEPING.min(self.config.burst / 4);
                    let records = u32::try_from(records).unwrap_or(u32::MAX);
                    connection.bucket.owe(each.saturating_mul(records));
                }
                answer
            }
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(message)) => {
                let line = Line {
                    framing,
                    tag,
                    message,
                };
                if self.write_line(conn, &line).is_err() {
                    self.write(conn, &error_line(framing, tag, &Refusal::Internal));
                }
            }
            Err(refusal) => {
                self.stats.refused += 1;
                let line = error_line(framing, tag, &refusal);
                self.write(conn, &line);
                self.event(RegistryEvent::Refused { conn, refusal });
            }
        }
        true
    }

    fn answer(
        &mut self,
        now: Instant,
        conn: ConnId,
        framing: Framing,
        message: Message,
    ) -> Result<Option<Message>, Refusal> {
        let ours = framing == Framing::Slash;
        if let Some(answer) = self.answer_signed(now, conn, &message) {
            return answer.map(Some);
        }
        match message {
            Message::RegisterP2pPort { client, port, caps } => {
                self.identify(now, conn, client)?;
                self.directory.register(client, port, caps)?;
                // Capabilities decide which idle deadline holds.
                if let Some((deadline, _)) = self.conns.get(&conn).map(|c| self.deadline(c)) {
                    self.set_timer(conn, deadline);
                }
                Ok(ok("P2P port registered"))
            }
            Message::CreateCluster {
                client,
                n,
                k,
                options,
            } => {
                self.identify(now, conn, client)?;
                let single = self.single(client, framing);
                let (cluster, info) = self.directory.create(client, n, k, options, single)?;
                let info = ours.then_some(info);
                Ok(Some(Message::ClusterCreated { cluster, info }))
            }
            Message::JoinCluster { client, cluster } => {
                self.identify(now, conn, client)?;
                let single = self.single(client, framing);
                let info = self.directory.join(client, cluster, single)?;
                let info = ours.then_some(info);
                Ok(Some(Message::ClusterJoined { cluster, info }))
            }
            Message::LeaveCluster { client, cluster } => {
                self.identify(now, conn, client)?;
                self.directory.leave(client, cluster)?;
                Ok(ok("Left cluster"))
            }
            Message::ListClusters { client, after } => {
                self.identify(now, conn, client)?;
                let clusters = fitting(self.directory.list(client, after), framing, entry_len);
                Ok(Some(Message::ClusterList { clusters }))
            }
            Message::GetClusterMembers { client, cluster } => {
                self.identify(now, conn, client)?;
                let members = self.directory.members(client, cluster)?;
                let len = |id: &NodeId| id.as_str().len() + 1;
                let members = fitting(members.into_iter(), framing, len);
                Ok(Some(Message::ClusterMembers { members }))
            }
            Message::GetClientInfo { client, target } => {
                self.identify(now, conn, client)?;
                let (address, caps) = self.directory.address(client, target)?;
                let knows_caps = ours && self.directory.caps(client).is_some();
                Ok(Some(Message::ClientInfo {
                    ip: address.ip(),
                    port: address.port(),
                    caps: caps.filter(|_| knows_caps),
                }))
            }
            Message::MessageShare {
                from,
                to,
                target,
                index,
                data,
            } => {
                self.relay(now, conn, from, to, target, index, data)?;
                Ok(None)
            }
            other => Err(not_for_server(&other)),
        }
    }

    /// Checks that the connection speaks for `client`; its first request says so.
    pub(super) fn identify(
        &mut self,
        now: Instant,
        conn: ConnId,
        client: NodeId,
    ) -> Result<(), Refusal> {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return Err(Refusal::Internal);
        };
        match connection.proven {
            Some(proven) if proven != client => {
                return Err(Refusal::NotProven {
                    proven,
                    named: client,
                });
            }
            None if client.is_sealed() || !self.config.plain => {
                return Err(Refusal::Unauthenticated);
            }
            _ => {}
        }
        match connection.id {
            Some(bound) if bound == client => return Ok(()),
            Some(bound) => {
                return Err(Refusal::WrongId {
                    bound,
                    named: client,
                });
            }
            None => {}
        }
        let proven = connection.proven.is_some();
        let superseded = self
            .directory
            .bind(now, client, conn, connection.ip, proven)?;
        connection.id = Some(client);
        self.codes.back(client);
        // A new connection is no way to a new allowance.
        let spent = match superseded.and_then(|old| self.conns.get(&old)) {
            Some(old) => Some(old.bucket.clone()),
            None => self.directory.take_bucket(client),
        };
        if let (Some(spent), Some(connection)) = (spent, self.conns.get_mut(&conn)) {
            connection.bucket = spent;
        }
        if let Some(old) = superseded {
            self.doom(old, Refusal::Superseded { id: client });
        }
        self.event(RegistryEvent::Bound { conn, id: client });
        Ok(())
    }

    /// Whether the client is software of profile 1.0, which knows one cluster.
    fn single(&self, client: NodeId, framing: Framing) -> bool {
        framing == Framing::Bar && self.directory.caps(client).is_none()
    }

    /// Passes a share or a control line on from member to member.
    #[allow(clippy::too_many_arguments)]
    fn relay(
        &mut self,
        now: Instant,
        conn: ConnId,
        from: NodeId,
        to: NodeId,
        target: NodeId,
        index: u16,
        data: String,
    ) -> Result<(), Refusal> {
        match self.conns.get(&conn).and_then(|c| c.id) {
            None => return Err(Refusal::NotBound),
            Some(bound) if bound != from => return Err(Refusal::WrongId { bound, named: from }),
            Some(_) => {}
        }
        let recipient = self.directory.route(from, to, target, index)?;
        let limit = self.config.max_backlog / 4 * 3;
        let Some((framing, queued)) = self.conns.get(&recipient).map(|c| (c.framing, c.backlog()))
        else {
            return Err(Refusal::Away { id: to });
        };
        let line = Line {
            framing,
            tag: None,
            message: Message::MessageShare {
                from,
                to,
                target,
                index,
                data,
            },
        };
        let line = line.emit().map_err(|_| Refusal::Uncarriable { to })?;
        // Escaping may have made it longer than its reader accepts.
        if line.len() > self.config.max_relay_line {
            return Err(Refusal::Uncarriable { to });
        }
        if queued + line.len() > limit {
            return Err(Refusal::RelayBacklog { to, queued, limit });
        }
        let octets = line.len() as u64;
        let kind = match index {
            0 => Kind::Datagram,
            _ => Kind::Share,
        };
        let booked = self.accounts.charge(now, from, kind, octets);
        self.stats.relay_refused += u64::from(booked.is_err());
        booked?;
        self.stats.relayed_lines += 1;
        self.stats.relayed_octets += octets;
        if kind == Kind::Datagram {
            self.stats.relayed_datagrams += 1;
            self.stats.relayed_datagram_octets += octets;
        }
        self.write(recipient, &line);
        Ok(())
    }
}

fn ok(text: &str) -> Option<Message> {
    Some(Message::Ok {
        text: Some(text.to_owned()),
    })
}

/// As many whole items, from the first, as fit in one reply: in octets, and in
/// parameters beside a tag.
fn fitting<T>(
    items: impl Iterator<Item = T>,
    framing: Framing,
    len: impl Fn(&T) -> usize,
) -> Vec<T> {
    let mut room = match framing {
        Framing::Bar => BAR_LIST,
        Framing::Slash => SLASH_LIST,
    } - "VMDT/TCP/1.0/CLUSTER_MEMBERS/~4294967295\r\n".len();
    let mut taken = Vec::new();
    for item in items.take(MAX_PARAMETERS - 1) {
        match room.checked_sub(len(&item)) {
            Some(rest) => room = rest,
            None => break,
        }
        taken.push(item);
    }
    taken
}

/// The octets of `id:creator:n:k:members:active` and its separator.
fn entry_len(entry: &ClusterEntry) -> usize {
    let digits = |number: u16| number.checked_ilog10().map_or(1, |log| log as usize + 1);
    let numbers: usize = [entry.n, entry.k, entry.members].map(digits).iter().sum();
    let rest = ":::::1|".len();
    entry.cluster.as_str().len() + entry.creator.as_str().len() + numbers + rest
}

/// What can still be read of a line that is none: the form its sender used, and
/// the tag by which it will recognise the answer.
fn framing_and_tag(octets: &[u8]) -> (Framing, Option<u32>) {
    let framing = Framing::of(octets);
    let separator = match framing {
        Framing::Bar => b'|',
        Framing::Slash => b'/',
    };
    let line = octets.trim_ascii();
    let last = line.rsplit(|&octet| octet == separator).next();
    let tag = last
        .and_then(|last| last.strip_prefix(b"~"))
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok());
    (framing, tag)
}

fn not_for_server(message: &Message) -> Refusal {
    let what = message.type_word();
    let instead = match message {
        Message::SendMessage { .. } => {
            "split the text and give the shares to members, a server must not see it"
        }
        Message::SharePoolAdd(_)
        | Message::SharePoolClaim { .. }
        | Message::SharePoolAck { .. }
        | Message::SharePoolStored { .. }
        | Message::ShareRepair { .. }
        | Message::SharePoolUnfreeze { .. }
        | Message::SharePoolRemove { .. } => "members send it to each other",
        _ => "a server sends it",
    };
    Refusal::NotForServer { what, instead }
}
