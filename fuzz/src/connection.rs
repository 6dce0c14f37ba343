//! A scripted pair of endpoints in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use vmdt_rdt::vmdt_seal::identity::SecretIdentity;
use vmdt_rdt::vmdt_seal::session::Local;
use vmdt_rdt::{CloseReason, Config, Endpoint, Event, SessionState};
use vmdt_testkit::Clock;
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

/// Flows that a script can name; number 0 is the control flow.
const FLOWS: u16 = 6;
/// Operations in a script.
const MAX_OPS: usize = 200;
/// Datagrams in transit at a time; a burst beyond is lost, as it would be in a router.
const MAX_IN_FLIGHT: usize = 512;
/// Octets of the largest write.
const MAX_WRITE: usize = 8 << 10;
/// How far a script can move the time; operations beyond it take no time.
const SCRIPTED: Duration = Duration::from_secs(300);
/// How far the time may go once the script has ended and the network is perfect.
const FINALE: Duration = Duration::from_secs(60);
/// Things that may happen in a case; the busiest scripts come to a small part of it.
const MAX_STEPS: usize = 200_000;
const DELAY: Duration = Duration::from_millis(5);
const MAX_SESSIONS: usize = 4;
const SEND_BUFFER: usize = 64 << 10;
const CONTROL_BUFFER: usize = 16 << 10;
const SESSION_WINDOW: usize = 64 << 10;
const MAX_FLOWS: usize = 8;

/// Two endpoints, a network, and a script that says what their applications do and what becomes
/// of each datagram: lost, doubled, delayed, damaged. Once the script ends, the network is
/// perfect and both applications read.
///
/// At all times: no panic, a bounded number of datagrams at a time, timers that fire to some
/// effect, and what is held and queued is within the configured bounds. What a flow delivers is
/// always the beginning of what was written. In the end all of it has been delivered, unless one
/// side knows that the session has ended.
///
/// In a hostile script datagrams are also forged, from captured ones and with a checksum that is
/// right. Profile 1.0 has no protection against that, so there only the first sentence holds.
///
/// In a sealed script the sessions are those of profile 1.1, and the applications send datagrams too:
/// what arrives was sent, and comes once.
pub fn connection_pair(data: &[u8]) {
    let mut script = Unstructured::new(data);
    let Ok(kind) = script.arbitrary::<u8>().map(|octet| octet % 4) else {
        return;
    };
    let mut pair = Pair::new(kind == 0, kind == 3);
    for _ in 0..MAX_OPS {
        if script.is_empty() || pair.operation(&mut script).is_err() {
            break;
        }
        pair.check();
    }
    pair.finale();
}

/// What one side has done and seen with a flow in the present session.
#[derive(Default)]
struct Flow {
    written: usize,
    finished_writing: bool,
    delivered: bool,
    read: usize,
    finished_reading: bool,
}

struct Side {
    endpoint: Endpoint,
    id: NodeId,
    address: SocketAddr,
    flows: BTreeMap<u16, Flow>,
    reads: bool,
    /// The other side has dropped the session that this one may still hold.
    abandoned: bool,
    lives: u8,
    /// The last datagram that came for it, for forgers.
    captured: Bytes,
    /// Numbers of the other side's datagrams that have arrived.
    datagrams: BTreeSet<u32>,
}

struct InFlight {
    at: Instant,
    order: usize,
    to: usize,
    octets: Bytes,
}

struct Pair {
    clock: Clock,
    sides: [Side; 2],
    air: Vec<InFlight>,
    /// Damage to the datagrams that are sent next, as drawn from the script.
    fates: Vec<u8>,
    /// Flows that were reset or stopped: how much of them arrives is open.
    given_up: BTreeSet<u16>,
    hostile: bool,
    sealed: bool,
    /// Datagrams that were taken, in all; the next one's number.
    datagrams: u32,
    order: usize,
    steps: usize,
}

fn config() -> Config {
    let mut config = Config::default();
    let set = |config: &mut Config| {
        config.set_max_sessions(MAX_SESSIONS)?;
        config.set_max_half_open(4)?;
        config.set_max_recv_flows(MAX_FLOWS)?;
        config.set_max_send_flows(MAX_FLOWS)?;
        config.set_send_buffer(SEND_BUFFER)?;
        config.set_control_buffer(CONTROL_BUFFER)?;
        config.set_session_window(SESSION_WINDOW as u32)?;
        config.set_flow_window(16 << 10)?;
        config.set_idle_timeout(Duration::from_secs(600))?;
        Ok::<(), vmdt_rdt::ConfigError>(())
    };
    set(&mut config).expect("settings within their bounds");
    config
}

fn flow_id(number: u16) -> FlowId {
    if number == 0 {
        return FlowId::CONTROL;
    }
    let message: MessageId = "message".parse().expect("an id");
    FlowId::new(message, ShareIndex::new(number).expect("an index"))
}

fn number(flow: FlowId) -> Option<u16> {
    (0..FLOWS).find(|number| flow_id(*number) == flow)
}

/// The octet at a place of a flow, the same whoever writes it and however often. The period is a
/// prime, so that no octet stands where another would by a power of two.
fn octet(flow: u16, at: usize) -> u8 {
    ((at * 7 + at / 251 + usize::from(flow) * 37) % 251) as u8
}

impl Side {
    fn new(index: u8, life: u8, sealed: bool) -> Self {
        let mut id = ["alice", "bob"][usize::from(index)].parse().expect("an id");
        let mut config = config();
        if sealed {
            let local = Local::new(SecretIdentity::from_seed(&[index; 32]), 1);
            id = local.node_id();
            config.set_sealing(local);
        }
        Self {
            endpoint: Endpoint::new(config, id, [index + 2 * life; 32]),
            id,
            address: SocketAddr::from(([192, 0, 2, index + 1], 7000)),
            flows: BTreeMap::new(),
            reads: true,
            abandoned: false,
            lives: life,
            captured: Bytes::new(),
            datagrams: BTreeSet::new(),
        }
    }

    fn flow(&mut self, number: u16) -> &mut Flow {
        self.flows.entry(number).or_default()
    }
}

impl Pair {
    fn new(hostile: bool, sealed: bool) -> Self {
        Self {
            clock: Clock::new(),
            sides: [0, 1].map(|index| Side::new(index, 0, sealed)),
            air: Vec::new(),
            fates: Vec::new(),
            given_up: BTreeSet::new(),
            hostile,
            sealed,
            datagrams: 0,
            order: 0,
            steps: 0,
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn operation(&mut self, script: &mut Unstructured<'_>) -> Result<()> {
        let choice = script.arbitrary::<u8>()?;
        let side = usize::from(choice >> 7);
        let peer = self.sides[1 - side].id;
        let now = self.now();
        match choice & 0x1f {
            0 | 1 => {
                let address = self.sides[1 - side].address;
                self.sides[side].endpoint.connect(now, peer, address);
            }
            2..=6 => {
                let number = script.int_in_range(0..=FLOWS - 1)?;
                let len = script.int_in_range(0..=MAX_WRITE)?;
                self.write(side, number, len);
            }
            7 | 8 => {
                let number = script.int_in_range(0..=FLOWS - 1)?;
                let done = self.sides[side].endpoint.finish(now, peer, flow_id(number));
                if done.is_ok() {
                    self.sides[side].flow(number).finished_writing = true;
                }
            }
            9 => {
                let number = script.int_in_range(1..=FLOWS - 1)?;
                self.given_up.insert(number);
                let code = script.arbitrary()?;
                let endpoint = &mut self.sides[side].endpoint;
                endpoint.reset(now, peer, flow_id(number), code);
            }
            10 => {
                let number = script.int_in_range(1..=FLOWS - 1)?;
                self.given_up.insert(number);
                let code = script.arbitrary()?;
                let endpoint = &mut self.sides[side].endpoint;
                endpoint.stop(now, peer, flow_id(number), code);
            }
            11 => self.sides[side].reads = false,
            12 => {
                self.sides[side].reads = true;
                self.read_all(side);
            }
            13 => {
                let code = script.arbitrary()?;
                self.sides[side].endpoint.close(now, peer, code, "closing");
            }
            14 => self.restart(side),
            15 => {
                // Octets of no particular kind from anywhere.
                let len = usize::from(script.arbitrary::<u8>()?).min(script.len());
                let octets = Bytes::copy_from_slice(script.bytes(len)?);
                let from = SocketAddr::from(([198, 51, 100, 1], 9));
                self.sides[side].endpoint.handle_datagram(now, from, octets);
            }
            16..=18 if self.hostile => self.forge(side, script)?,
            16..=22 => {
                // What happens to the next datagrams.
                let count = usize::from(script.arbitrary::<u8>()? % 32).min(script.len());
                let fates = script.bytes(count)?;
                self.fates.clear();
                self.fates.extend(fates.iter().rev());
            }
            23 => {
                let len = script.int_in_range(4..=1400)?;
                self.send_datagrams(side, len, script.int_in_range(1..=64)?);
            }
            _ => {
                let ms = [1, 5, 20, 100, 400, 1_500, 6_000, 30_000];
                let ms = ms[usize::from(script.arbitrary::<u8>()? % 8)];
                let end = self.clock.at(SCRIPTED);
                self.run_until((now + Duration::from_millis(ms)).min(end));
            }
        }
        self.drive(side);
        Ok(())
    }

    fn write(&mut self, side: usize, number: u16, len: usize) {
        let (now, peer) = (self.now(), self.sides[1 - side].id);
        let at = self.sides[side].flow(number).written;
        let data: Vec<u8> = (at..at + len).map(|at| octet(number, at)).collect();
        let endpoint = &mut self.sides[side].endpoint;
        let result = endpoint.write(now, peer, flow_id(number), Bytes::from(data));
        if result.is_ok() {
            self.sides[side].flow(number).written += len;
        }
    }

    /// Hands over datagrams that say which they are; some are refused.
    fn send_datagrams(&mut self, side: usize, len: usize, count: u32) {
        let (now, peer) = (self.now(), self.sides[1 - side].id);
        for _ in 0..count {
            let mut payload = vec![octet(0, len); len];
            payload[..4].copy_from_slice(&self.datagrams.to_be_bytes());
            let endpoint = &mut self.sides[side].endpoint;
            let fits = endpoint.max_datagram(peer).is_some_and(|max| len <= max);
            let taken = endpoint.send_datagram(now, peer, payload.into());
            assert!(fits || taken.is_err(), "more than fits was taken");
            assert!(self.sealed || taken.is_err(), "an open session took one");
            self.datagrams += u32::from(taken.is_ok());
        }
    }

    /// Loses all state, and begins again at the same address under the same id.
    fn restart(&mut self, side: usize) {
        let old = &self.sides[side];
        // The seed, and with it the session ids, are of this life alone.
        let Some(life) = old.lives.checked_add(1).filter(|life| *life < 100) else {
            return;
        };
        let captured = old.captured.clone();
        // What came to the life before must not come again.
        let datagrams = old.datagrams.clone();
        self.end_session(side);
        self.sides[side] = Side::new(side as u8, life, self.sealed);
        self.sides[side].captured = captured;
        self.sides[side].datagrams = datagrams;
        self.sides[1 - side].abandoned = true;
    }

    /// A datagram that the other side has really sent, with some octets replaced.
    fn forge(&mut self, side: usize, script: &mut Unstructured<'_>) -> Result<()> {
        let mut octets = self.sides[side].captured.to_vec();
        let body = octets.len().saturating_sub(4);
        octets.truncate(body);
        for _ in 0..script.int_in_range(1..=4)? {
            let at = usize::from(script.arbitrary::<u16>()?) % (octets.len() + 1);
            let len = usize::from(script.arbitrary::<u8>()? % 16).min(script.len());
            for (octet, new) in octets.iter_mut().skip(at).zip(script.bytes(len)?) {
                *octet = *new;
            }
        }
        octets.extend_from_slice(&crc32fast::hash(&octets).to_be_bytes());
        let (now, from) = (self.now(), self.sides[1 - side].address);
        let endpoint = &mut self.sides[side].endpoint;
        endpoint.handle_datagram(now, from, Bytes::from(octets));
        Ok(())
    }

    /// Takes everything that a side has to say.
    fn drive(&mut self, side: usize) {
        let now = self.now();
        let mut sent = 0;
        let mut buf = Vec::new();
        loop {
            let mut quiet = true;
            // All events first: what is read below belongs to the session that stands then.
            let mut readable = Vec::new();
            while let Some(event) = self.sides[side].endpoint.poll_event() {
                quiet = false;
                self.on_event(side, &event);
                if let Event::Readable { flow, .. } = event {
                    readable.push(flow);
                }
            }
            if self.sides[side].reads {
                for flow in readable {
                    self.read(side, flow);
                }
            }
            while let Some(transmit) = self.sides[side].endpoint.poll_transmit(now, &mut buf) {
                quiet = false;
                assert_eq!(transmit.len, buf.len());
                assert!(buf.len() <= 1472, "a datagram of {} octets", buf.len());
                sent += 1;
                assert!(sent < 4_000, "a burst of {sent} datagrams");
                self.send(1 - side, transmit.to, &buf);
            }
            if quiet {
                break;
            }
        }
    }

    fn on_event(&mut self, side: usize, event: &Event) {
        match event {
            Event::Closed { reason, .. } => {
                self.end_session(side);
                // The peer that replaces a session holds the new one.
                if *reason != CloseReason::Replaced {
                    self.sides[1 - side].abandoned = true;
                }
            }
            Event::ConnectFailed { .. } => self.end_session(side),
            Event::FlowDelivered { flow, .. } => {
                if let Some((flow, exact)) = self.event_flow(side, *flow) {
                    assert!(!exact || flow.finished_writing, "delivered unfinished");
                    assert!(!exact || !flow.delivered, "delivered twice");
                    flow.delivered = true;
                }
            }
            Event::Finished { flow, .. } => {
                if let Some((flow, exact)) = self.event_flow(side, *flow) {
                    assert!(!exact || !flow.finished_reading, "finished twice");
                    flow.finished_reading = true;
                }
            }
            Event::Datagram { payload, .. } => {
                assert!(self.sealed, "a datagram in an open session");
                let number = payload
                    .first_chunk()
                    .map(|octets| u32::from_be_bytes(*octets));
                let number = number.expect("at least four octets");
                assert!(number < self.datagrams, "a datagram that nobody sent");
                let rest = payload.get(4..).unwrap_or_default();
                let fill = octet(0, payload.len());
                assert!(rest.iter().all(|octet| *octet == fill), "other octets");
                let new = self.sides[side].datagrams.insert(number);
                assert!(new, "datagram {number} came twice");
            }
            _ => {}
        }
    }

    /// One side's session is over. What it has sent may still be on its way, and must not be
    /// taken for a part of the next session.
    fn end_session(&mut self, side: usize) {
        self.sides[side].flows.clear();
        self.sides[side].abandoned = false;
    }

    /// The record of a flow that an event is about, and whether it must make sense. A flow that
    /// was given up may begin anew under its id.
    fn event_flow(&mut self, side: usize, flow: FlowId) -> Option<(&mut Flow, bool)> {
        let number = number(flow)?;
        let exact = !self.hostile && !self.given_up.contains(&number);
        Some((self.sides[side].flow(number), exact))
    }

    fn read(&mut self, side: usize, flow: FlowId) {
        let (now, peer) = (self.now(), self.sides[1 - side].id);
        while let Some(piece) = self.sides[side].endpoint.read(now, peer, flow) {
            assert!(!piece.is_empty(), "an empty piece");
            let Some(number) = number(flow) else {
                assert!(self.hostile, "octets of a flow that nobody wrote");
                continue;
            };
            let place = self.sides[side].flow(number);
            let at = place.read;
            place.read += piece.len();
            if !self.hostile && !self.given_up.contains(&number) {
                let exact = (at..)
                    .zip(&piece)
                    .all(|(at, found)| octet(number, at) == *found);
                assert!(exact, "flow {number} at {at}: not what was written");
            }
        }
    }

    fn read_all(&mut self, side: usize) {
        for number in 0..FLOWS {
            self.read(side, flow_id(number));
        }
    }

    /// Puts a datagram on the wire and has its fate happen to it.
    fn send(&mut self, to: usize, address: SocketAddr, octets: &[u8]) {
        if address != self.sides[to].address {
            // Answers to addresses that forgers made up.
            return;
        }
        let fate = self.fates.pop().unwrap_or(0);
        let extra = u32::from(fate >> 3);
        let late = DELAY * (1 + extra);
        let mut octets = octets.to_vec();
        match fate & 7 {
            1 | 2 => return,
            3 => self.deliver(to, DELAY, Bytes::copy_from_slice(&octets)),
            4 => {
                // Within four octets: a burst of 32 bits, which a CRC-32 never misses.
                let at = usize::from(fate) * 13 % octets.len();
                for octet in octets.iter_mut().skip(at).take(4) {
                    *octet ^= fate | 1;
                }
            }
            _ => {}
        }
        self.deliver(to, late, Bytes::from(octets));
    }

    fn deliver(&mut self, to: usize, delay: Duration, octets: Bytes) {
        if self.air.len() < MAX_IN_FLIGHT {
            self.order += 1;
            self.air.push(InFlight {
                at: self.now() + delay,
                order: self.order,
                to,
                octets,
            });
        }
    }

    /// Lets everything happen that is due up to `end`.
    fn run_until(&mut self, end: Instant) {
        loop {
            let arrival = self.air.iter().map(|datagram| datagram.at).min();
            let timers = self.sides.iter().map(|side| side.endpoint.poll_timeout());
            let next = timers.chain([arrival]).flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.clock.advance_to(end);
                return;
            };
            self.clock.advance_to(next);
            self.steps += 1;
            assert!(self.steps < MAX_STEPS, "the pair does not come to rest");
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now();
        for side in 0..2 {
            let due = |pair: &Self| {
                let next = pair.sides[side].endpoint.poll_timeout();
                next.is_some_and(|at| at <= now)
            };
            if due(self) {
                self.sides[side].endpoint.handle_timeout(now);
                self.drive(side);
                assert!(!due(self), "a timer fires without effect");
            }
        }
        let due = |datagram: &InFlight| (datagram.at, datagram.order);
        while let Some(at) = (0..self.air.len()).min_by_key(|at| due(&self.air[*at]))
            && self.air[at].at <= now
        {
            let datagram = self.air.swap_remove(at);
            let from = self.sides[1 - datagram.to].address;
            let side = &mut self.sides[datagram.to];
            side.captured = datagram.octets.clone();
            side.endpoint.handle_datagram(now, from, datagram.octets);
            self.drive(datagram.to);
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        for side in &self.sides {
            let peers: Vec<NodeId> = side.endpoint.peers().collect();
            assert!(peers.len() <= MAX_SESSIONS, "{} sessions", peers.len());
            for peer in peers {
                let Some(stats) = side.endpoint.stats(peer) else {
                    panic!("a peer without a session");
                };
                let queued = SEND_BUFFER + CONTROL_BUFFER + 2 * MAX_WRITE;
                assert!(stats.queued <= queued, "{} octets queued", stats.queued);
                assert!(
                    stats.held <= 2 * SESSION_WINDOW,
                    "{} octets held",
                    stats.held
                );
                // 64 KiB is the default.
                let datagrams = stats.datagrams_queued;
                assert!(datagrams <= 64 << 10, "{datagrams} octets of datagrams");
                // One more each: the control flow.
                assert!(
                    stats.send_flows <= MAX_FLOWS + 1,
                    "{} flows",
                    stats.send_flows
                );
                assert!(
                    stats.recv_flows <= MAX_FLOWS + 1,
                    "{} flows",
                    stats.recv_flows
                );
            }
        }
    }

    /// The network recovers, both applications read: everything written arrives or a session
    /// has ended and its owner knows.
    fn finale(&mut self) {
        self.fates.clear();
        for side in 0..2 {
            self.sides[side].reads = true;
            self.read_all(side);
            self.drive(side);
        }
        self.run_until(self.now() + FINALE);
        self.check();
        if self.hostile {
            return;
        }
        for side in 0..2 {
            let (here, there) = (&self.sides[side], &self.sides[1 - side]);
            let established = here.endpoint.state(there.id) == Some(SessionState::Established);
            if !established || here.abandoned {
                continue;
            }
            for (number, flow) in &here.flows {
                if self.given_up.contains(number) {
                    continue;
                }
                let empty = Flow::default();
                let arrived = there.flows.get(number).unwrap_or(&empty);
                assert_eq!(
                    arrived.read, flow.written,
                    "flow {number}: written and read differ"
                );
                if flow.finished_writing {
                    assert!(flow.delivered, "flow {number}: FlowDelivered never came");
                    assert!(
                        arrived.finished_reading,
                        "flow {number}: Finished never came"
                    );
                }
            }
        }
    }
}
