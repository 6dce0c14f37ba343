//! How a pair of nodes comes to have a secret for its messages: the sender signs an opening to the
//! receiver's prekey and sends it as a control line, and uses it once the receiver has answered.

use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::paths::Redundancy;
use vmdt_seal::express::{Channel, Opening};
use vmdt_seal::profile::Profile;
use vmdt_ssms::Threshold;
use vmdt_ssms::dispersal::Code;
use vmdt_wire::{Message, MessageId, NodeId};

use super::datagram::Datagram;
use crate::core::Core;
use crate::core::peer::Path;
use crate::core::seal::EXPRESS;

/// How long an opening is sealed under.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How long before its end the next one is sent.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Messages under one opening.
const MAX_MESSAGES: u32 = 1 << 20;
/// How long an answer is waited for before another opening is sent.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a message waits for sessions and answers that are on their way. Without them it goes the
/// ordinary way, which takes many times the octets, and those of a burst delay one another.
const MOST_WAIT: Duration = Duration::from_millis(700);
/// The same in round trips to the receiver, where that is more: one for the session, one for the
/// answer, one for what is lost of either, and the way.
const MOST_ROUNDS: u32 = 4;
/// How much longer than two round trips an answer may take and be waited for.
const BUSY: Duration = Duration::from_millis(10);
/// How far the clocks of two nodes may be apart, in milliseconds.
const SKEW_MS: u64 = 3_600_000;

/// An opening that its receiver has taken.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) channel: Channel,
    /// The counter of the next message.
    pub(crate) next: u32,
    prekey_id: u32,
    since: Instant,
}

/// What is agreed on with a peer there is a session with.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    /// It has taken an opening in this session: it knows what datagrams are.
    pub(crate) able: bool,
    pub(crate) open: Option<Open>,
    asked: Option<(Open, Instant)>,
    /// How many pieces beyond k its messages take.
    pub(crate) redundancy: Option<((u8, u8), Redundancy)>,
    /// The code of the last message.
    pub(crate) code: Option<Code>,
}

impl Pair {
    /// The code for a threshold.
    pub(crate) fn code(&mut self, threshold: Threshold) -> &Code {
        match &mut self.code {
            Some(code) if code.threshold() == threshold => {}
            other => *other = Some(Code::new(threshold)),
        }
        self.code.get_or_insert_with(|| Code::new(threshold))
    }
}

impl Core {
    /// Whether a peer has taken an opening of this node in its present session.
    pub(super) fn is_express_able(&self, peer: NodeId) -> bool {
        self.express.pairs.get(&peer).is_some_and(|pair| pair.able)
    }

    /// Whether a peer understands datagrams: its profile says so, or it has answered.
    pub(super) fn knows_express(&self, peer: NodeId) -> bool {
        let profile = self.seal.as_ref().and_then(|seal| seal.profile(peer));
        let says = |profile: &Profile| profile.capabilities().any(|word| word == EXPRESS);
        profile.is_some_and(says) || self.is_express_able(peer)
    }

    /// Sees to it that messages to a peer can be sealed by express, if not now then soon.
    pub(in crate::core) fn open_express(&mut self, now: Instant, to: NodeId) {
        let up = |peer: &crate::core::peer::Peer| peer.path == Path::Up && !peer.relayed;
        if !self.config.express || !self.peers.get(&to).is_some_and(up) || !self.is_member(to) {
            return;
        }
        let Some((seal, receiver)) = self.seal.as_ref().zip(self.pinned_key(to)) else {
            return;
        };
        let unix_ms = seal.unix_ms(now);
        let Some(prekey) = seal.profile(to).map(Profile::prekey) else {
            return;
        };
        let pair = self.express.pairs.entry(to).or_default();
        let fresh = |open: &Open| {
            open.prekey_id == prekey.id
                && open.next < MAX_MESSAGES / 2
                && now < open.since + (LIFETIME - RENEW_BEFORE)
        };
        let asked =
            |(open, at): &(Open, Instant)| open.prekey_id == prekey.id && now < *at + ANSWER;
        if pair.open.as_ref().is_some_and(fresh) || pair.asked.as_ref().is_some_and(asked) {
            return;
        }
        if !prekey.is_usable(unix_ms) {
            return;
        }
        let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let not_after = unix_ms.saturating_add(lifetime);
        let signed = Opening::sign(seal.identity(), receiver, &prekey, not_after, &mut self.rng);
        let Ok((opening, channel)) = signed else {
            return;
        };
        let open = Open {
            channel,
            next: 0,
            prekey_id: prekey.id,
            since: now,
        };
        pair.asked = Some((open, now));
        let line = Message::ExpressOpen {
            opening: opening.octets().to_vec(),
        };
        self.send_line(now, to, line);
        self.send_beside(now, to, Datagram::opening(opening.octets()));
    }

    /// Sends in a datagram what a line says as well, to who understands it: a burst may wait for it, and
    /// when the packet with the line is lost, that is found out a round trip later.
    fn send_beside(&mut self, now: Instant, to: NodeId, datagram: Bytes) {
        if self.knows_express(to) {
            self.charge(now, datagram.len());
            let _ = self.rdt.send_datagram(now, to, datagram);
        }
    }

    /// When a message that can't go by express now is to be looked at again, if the receiver or a
    /// carrier is about to be able to. As soon as one is, it is looked at anyway.
    pub(super) fn express_awaits(&mut self, now: Instant, id: MessageId) -> Option<Instant> {
        let out = self.outgoing.get(&id)?;
        let to = out.to;
        let round = self
            .rdt
            .stats(to)
            .map_or(Duration::ZERO, |stats| stats.srtt);
        let latest = out.started + MOST_WAIT.max(round * MOST_ROUNDS);
        let carriers = self.carriers_for(now, out);
        let members = carriers.members.iter().map(|member| member.id);
        let soon = |peer: NodeId| {
            let known = self.peers.get(&peer).filter(|known| !known.relayed)?;
            match known.path {
                Path::Up if peer != to && self.knows_express(peer) => None,
                _ if self.is_express_able(peer) => None,
                Path::Connecting => Some(latest),
                Path::Up => {
                    let (_, asked) = self.express.pairs.get(&peer)?.asked.as_ref()?;
                    let round = self.rdt.stats(peer)?.srtt;
                    Some((*asked + round * 2 + BUSY).min(latest))
                }
                Path::Idle | Path::Down { .. } => None,
            }
        };
        let soon = members.chain([to]).filter_map(soon);
        soon.filter(|at| *at > now).min()
    }

    /// What messages to a peer are sealed under now, if that is agreed on.
    pub(super) fn express_open(&mut self, now: Instant, to: NodeId) -> Option<&mut Open> {
        let open = self.express.pairs.get_mut(&to)?.open.as_mut()?;
        (open.next < MAX_MESSAGES && now < open.since + LIFETIME).then_some(open)
    }

    /// A peer says what its messages will be sealed under.
    pub(in crate::core) fn on_express_open(&mut self, now: Instant, from: NodeId, octets: &[u8]) {
        if let Err(why) = self.take_opening(now, from, octets) {
            self.stats.bad_lines += 1;
            tracing::debug!(why, "an opening was refused");
        }
    }

    fn take_opening(
        &mut self,
        now: Instant,
        from: NodeId,
        octets: &[u8],
    ) -> Result<(), &'static str> {
        if !self.config.express {
            return Err("express is off");
        }
        let Some(key) = self.pinned_key(from).filter(|_| self.is_member(from)) else {
            return Err("its sender is no member");
        };
        let Some(seal) = &self.seal else {
            return Err("this node speaks profile 1.0");
        };
        let opening =
            Opening::parse(octets).map_err(|_| "it is malformed, or not rightly signed")?;
        if opening.sender() != key || key.node_id() != from {
            return Err("it is of another sender");
        }
        if opening.receiver() != seal.identity().public() {
            return Err("it is for another receiver");
        }
        if opening.not_after_ms().saturating_add(SKEW_MS) < seal.unix_ms(now) {
            return Err("its time is over");
        }
        if !self.express.inbox.knows(from, &opening) {
            let Some(prekey) = seal.prekeys().find(opening.prekey_id()) else {
                // it may not have heard of the new one
                self.send_profile(now, from);
                return Err("it is sealed to a key this node does not have any more");
            };
            let channel = opening
                .accept(prekey)
                .map_err(|_| "its encapsulated key is no key")?;
            if !self.express.inbox.open(now, &opening, channel) {
                return Err("its id is in use");
            }
        }
        self.send_line(now, from, Message::ExpressOk { id: opening.id() });
        self.send_beside(now, from, Datagram::opened(opening.id()));
        Ok(())
    }

    /// A peer has taken an opening.
    pub(in crate::core) fn on_express_ok(&mut self, now: Instant, from: NodeId, id: u32) {
        let pair = self.express.pairs.get_mut(&from);
        let known = |pair: &Pair| pair.open.as_ref().is_some_and(|o| o.channel.id() == id);
        if pair.as_deref().is_some_and(known) {
            // said twice
            return;
        }
        let answered = pair.and_then(|pair| {
            let (open, _) = pair.asked.take_if(|(open, _)| open.channel.id() == id)?;
            pair.open = Some(open);
            pair.able = true;
            Some(())
        });
        match answered {
            // bursts may come: how fast may the first one leave?
            Some(()) => {
                self.rdt.measure_rate(now, from);
                self.pump_sources(now);
            }
            None => self.stats.bad_lines += 1,
        }
    }
}
