//! Puts one peer through one workload over one set of links.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock;
use crate::emulator::Lateness;
use crate::host::Host;
use crate::peers::REQUEST;
use crate::process::{Args, Peer, number};
use crate::world::{Member, PathSpec, World, member_address, path_address};

/// Where peers listen; every host is a namespace of its own, so it is always free.
const PORT: u16 = 7000;
/// Where clients of some peers listen for what comes back.
const BACK: u16 = 7001;
/// How long carrying octets over loopback may take.
const LOOPBACK: Duration = Duration::from_secs(300);
/// How long setting up may take.
const SETUP: Duration = Duration::from_secs(30);

/// A peer with its settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contender {
    /// What it is called in tables.
    pub label: &'static str,
    /// Its name as a process.
    pub name: &'static str,
    /// k and n, where it has them.
    pub policy: Option<(u8, u8)>,
    /// Relays it is given.
    pub relays: usize,
    /// What is to be known about it.
    pub about: &'static str,
}

/// A sender that is no member yet when the time begins. Others, where set-up counts, know their
/// cluster from an earlier run, as peers of TCP and QUIC know where to connect to.
pub const JOINING: &str = "VMDT 3 of 6 joining";

/// Everybody, in the order of tables.
pub const CONTENDERS: &[Contender] = &[
    plain(
        "TCP CUBIC",
        "tcp-cubic",
        "kernel, one connection, TCP_NODELAY",
    ),
    plain(
        "TCP BBR",
        "tcp-bbr",
        "kernel, one connection, TCP_NODELAY, paced by TCP itself",
    ),
    plain(
        "TLS CUBIC",
        "tls-cubic",
        "rustls (ring), TLS 1.3 without resumption, over kernel TCP",
    ),
    plain(
        "TLS BBR",
        "tls-bbr",
        "rustls (ring), TLS 1.3 without resumption, over kernel TCP",
    ),
    plain(
        "MPTCP CUBIC",
        "mptcp-cubic",
        "kernel, default scheduler, one subflow for each path",
    ),
    plain(
        "MPTCP BBR",
        "mptcp-bbr",
        "kernel, default scheduler, one subflow for each path",
    ),
    plain(
        "QUIC",
        "quinn",
        "quinn, default settings (CUBIC), a stream for each message",
    ),
    plain(
        "QUIC BBR",
        "quinn-bbr",
        "quinn, BbrConfig::default(), a stream for each message",
    ),
    plain(
        "QUIC 16 KiB",
        "quinn-large",
        "quinn, datagrams of up to 16 KiB as RDT sealed has (processor time only)",
    ),
    plain(
        "MPQUIC",
        "noq",
        "noq, default settings (CUBIC), all paths available, a stream for each message",
    ),
    plain(
        "MPQUIC BBR",
        "noq-bbr",
        "noq, Bbr3Config::default(), all paths available, a stream for each message",
    ),
    plain(
        "1.0 style",
        "onezero",
        "kernel TCP CUBIC, a connection for each message, one after the other",
    ),
    plain(
        "RDT",
        "rdt",
        "vmdt-rdt, default settings (model-based), one path, a flow for each message, not encrypted",
    ),
    plain(
        "RDT sealed",
        "rdt-sealed",
        "vmdt-rdt as between two nodes: encrypted, datagrams of up to 16 KiB, their socket (processor time only)",
    ),
    Contender {
        label: "VMDT 3 of 6",
        name: "vmdt",
        policy: Some((3, 6)),
        relays: 4,
        about: "direct path and four relays on the two other paths; with set-up: knows its cluster",
    },
    Contender {
        label: JOINING,
        name: "vmdt",
        policy: Some((3, 6)),
        relays: 4,
        about: "the same, but the sender has a ticket only: it joins the cluster first (set-up only)",
    },
    Contender {
        label: "VMDT 2 of 3",
        name: "vmdt",
        policy: Some((2, 3)),
        relays: 2,
        about: "direct path and a relay on each of the two other paths",
    },
    Contender {
        label: "VMDT 2 of 2",
        name: "vmdt",
        policy: Some((2, 2)),
        relays: 0,
        about: "two nodes alone: all shares on the direct path (processor time only)",
    },
    Contender {
        label: "prototype 3 of 6",
        name: "pieces",
        policy: Some((3, 6)),
        relays: 0,
        about: "no transport: pieces at line rate, told when whole; the size of what is possible",
    },
    Contender {
        label: "prototype by rank",
        name: "pieces-rank",
        policy: Some((3, 6)),
        relays: 0,
        about: "the same, but all messages' first pieces before any second ones, none of messages that \
                are whole, and with the octets of profile 1.1 on each piece",
    },
];

const fn plain(label: &'static str, name: &'static str, about: &'static str) -> Contender {
    Contender {
        label,
        name,
        policy: None,
        relays: 0,
        about,
    }
}

/// The contender with this label or name.
#[must_use]
pub fn contender(name: &str) -> Option<&'static Contender> {
    CONTENDERS
        .iter()
        .find(|c| c.label.eq_ignore_ascii_case(name) || c.name == name)
}

/// What is to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Messages back to back.
    Burst {
        /// How many.
        count: u32,
        /// Octets of each.
        size: u32,
    },
    /// Bulk content, given up after a time.
    Bulk {
        /// Octets.
        octets: u64,
        /// When what has arrived counts.
        limit: Duration,
    },
    /// Requests and replies of 1 KiB, one after the other.
    Requests {
        /// How many.
        count: u32,
    },
}

/// One measurement to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who.
    pub contender: &'static Contender,
    /// Over what; one spec for each path, the last one for the rest.
    pub paths: Vec<PathSpec>,
    /// The losses' seed.
    pub seed: u64,
    /// Whether the time begins before the connection is set up.
    pub cold: bool,
    /// What.
    pub workload: Workload,
    /// A path that dies so long after the beginning, and returns so long after that.
    pub outage: Option<(usize, Duration, Duration)>,
    /// Whether a TCP CUBIC flow competes on path 0.
    pub competing: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Until everything had arrived; `None` when it did not within its time.
    pub took: Option<Duration>,
    /// When what arrived: messages, or octets of bulk content, so far.
    pub arrivals: Vec<(Duration, u64)>,
    /// Each request's time.
    pub requests: Vec<Duration>,
    /// Octets of IP packets sent by all hosts over all hops meanwhile.
    pub sent: u64,
    /// Octets of bulk content that arrived, and in which time.
    pub bulk: (u64, Duration),
    /// Octets the competing flow sent over path 0, and in which time.
    pub competing: (u64, Duration),
    /// How late packets left the emulator meanwhile.
    pub lateness: Lateness,
    /// How long the contender's processes could have run and had no processor, all together.
    pub waited: Duration,
}

impl Outcome {
    /// Bits of bulk content per second.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        let (octets, time) = self.bulk;
        octets as f64 * 8.0 / time.as_secs_f64().max(1e-9)
    }
}

/// The processes of a contender, set up.
struct Started {
    client: Peer,
    server: Peer,
    helpers: Vec<Peer>,
}

impl Started {
    fn all(&mut self) -> impl Iterator<Item = &mut Peer> {
        [&mut self.client, &mut self.server]
            .into_iter()
            .chain(&mut self.helpers)
    }

    fn waited(&mut self) -> Duration {
        self.all().map(|peer| peer.waited()).sum()
    }
}

/// Settings that the peers' processes share: credentials for those that need them.
#[derive(Clone, Debug, Default)]
pub struct Common {
    credentials: Args,
}

impl Common {
    /// Makes fresh credentials.
    ///
    /// # Errors
    /// When none can be made.
    pub fn new() -> Result<Common> {
        #[cfg(feature = "peers")]
        let credentials = crate::peers::tls::credentials()?;
        #[cfg(not(feature = "peers"))]
        let credentials = Args::new();
        Ok(Common { credentials })
    }

    /// Has VMDT's nodes speak profile 1.0, which can be read on the way.
    #[must_use]
    pub fn open_profile(mut self) -> Common {
        let setting = ("profile".to_owned(), "1.0".to_owned());
        self.credentials.extend([setting]);
        self
    }

    fn start(&self, world: &World, plan: &Plan) -> Result<Started> {
        let contender = plan.contender;
        let mut args = self.credentials.clone();
        let mut put = |key: &str, value: String| args.insert(key.to_owned(), value);
        let count = world.paths.len();
        let list = |side: u8, port: Option<u16>| -> String {
            let at = (0..count).map(|i| path_address(i, side));
            let texts: Vec<String> = at
                .map(|at| port.map_or(at.to_string(), |port| format!("{at}:{port}")))
                .collect();
            texts.join(",")
        };
        put("to", list(2, Some(PORT)));
        put("at", list(1, None));
        put("port", PORT.to_string());
        put("back", format!("{}:{BACK}", path_address(0, 1)));
        put("paths", count.to_string());
        if let Some(spec) = plan.paths.first() {
            put("rate", spec.rate.unwrap_or(1_000_000_000).to_string());
            put("rtt_ms", (spec.rtt.as_secs_f64() * 1e3).to_string());
        }
        if let Some((k, n)) = contender.policy {
            put("k", k.to_string());
            put("n", n.to_string());
        }
        let mut helpers = Vec::new();
        if contender.name == "vmdt" {
            let at = SocketAddr::from((member_address(Member::Server), PORT));
            let mut control = self.credentials.clone();
            control.insert("at".to_owned(), at.to_string());
            let control = Peer::start(&world.server, "vmdt", "control", &control)?;
            put("server", control.expect("url", SETUP)?.join(" "));
            control.expect("ready", SETUP)?;
            helpers.push(control);
        }
        let server = Peer::start(&world.b, contender.name, "server", &args)?;
        learn_id(contender, &server, &mut args)?;
        server.expect("ready", SETUP)?;
        for (i, host) in world.relays.iter().enumerate().take(contender.relays) {
            let relay = Peer::start(host, "vmdt", &format!("relay{}", i + 1), &args)?;
            relay.expect("ready", SETUP)?;
            helpers.push(relay);
        }
        if plan.cold && contender.label != JOINING {
            args.insert("known".to_owned(), "1".to_owned());
        }
        let client = Peer::start(&world.a, contender.name, "client", &args)?;
        client.expect("ready", SETUP)?;
        Ok(Started {
            client,
            server,
            helpers,
        })
    }

    /// Carries octets over one host's loopback device: how long it took, and the processor time
    /// that all processes of the contender used for it.
    ///
    /// # Errors
    /// When a peer fails, or takes more than five minutes.
    pub fn loopback(
        &self,
        host: &Host,
        contender: &'static Contender,
        octets: u64,
    ) -> Result<(Duration, Duration)> {
        self.measure_loopback(host, contender, octets)
            .with_context(|| format!("{} over loopback", contender.label))
    }

    fn measure_loopback(
        &self,
        host: &Host,
        contender: &'static Contender,
        octets: u64,
    ) -> Result<(Duration, Duration)> {
        let mut args = self.credentials.clone();
        for (key, value) in [
            ("to", "127.0.0.1:7000"),
            ("at", "127.0.0.1"),
            ("port", "7000"),
            ("back", "127.0.0.1:7001"),
            ("paths", "1"),
        ] {
            args.insert(key.to_owned(), value.to_owned());
        }
        let mut processes = Vec::new();
        if let Some((k, n)) = contender.policy {
            args.insert("k".to_owned(), k.to_string());
            args.insert("n".to_owned(), n.to_string());
            let mut control = self.credentials.clone();
            control.insert("at".to_owned(), "127.0.0.1:7000".to_owned());
            let control = Peer::start(host, "vmdt", "control", &control)?;
            args.insert("server".to_owned(), control.expect("url", SETUP)?.join(" "));
            control.expect("ready", SETUP)?;
            processes.push(control);
        }
        let server = Peer::start(host, contender.name, "server", &args)?;
        learn_id(contender, &server, &mut args)?;
        server.expect("ready", SETUP)?;
        processes.push(server);
        for i in 0..contender.relays {
            let relay = Peer::start(host, "vmdt", &format!("relay{}", i + 1), &args)?;
            relay.expect("ready", SETUP)?;
            processes.push(relay);
        }
        let mut client = Peer::start(host, contender.name, "client", &args)?;
        client.say("connect")?;
        client.expect("connected", SETUP)?;
        std::thread::sleep(settle(contender));
        client.say("requests 3")?;
        client.expect("done", SETUP)?;
        let server_at = processes.iter().position(|p| p.is_server()).unwrap_or(0);
        processes.push(client);
        let before = processor_time(&mut processes)?;
        let Some(client) = processes.last_mut() else {
            bail!("no client");
        };
        client.say(&format!("bulk {octets}"))?;
        let start = number(&client.expect("start", SETUP)?, 0)?;
        let Some(server) = processes.get(server_at) else {
            bail!("no server");
        };
        let end = number(&server.expect("end", LOOPBACK)?, 0)?;
        let after = processor_time(&mut processes)?;
        Ok((
            Duration::from_nanos(end.saturating_sub(start)),
            after.saturating_sub(before),
        ))
    }

    /// Makes one measurement.
    ///
    /// # Errors
    /// When a peer fails, or can't be set up.
    pub fn run(&self, world: &World, plan: &Plan) -> Result<Outcome> {
        self.measure(world, plan).with_context(|| {
            format!(
                "{} with seed {}, {:?}",
                plan.contender.label, plan.seed, plan.workload
            )
        })
    }

    fn measure(&self, world: &World, plan: &Plan) -> Result<Outcome> {
        // what is not measured is set up over clean links
        let clean: Vec<PathSpec> = plan.paths.iter().map(without_loss).collect();
        world.reset(&clean, plan.seed);
        let rtt = plan.paths.iter().map(|p| p.rtt).max().unwrap_or_default();
        let mut started = self.start(world, plan)?;
        let competitor = match plan.competing {
            true => Some(self.compete(world, plan)?),
            false => None,
        };
        if !plan.cold {
            started.client.say("connect")?;
            started.client.expect("connected", SETUP)?;
            // the other paths come up by themselves; a message shows that it works
            std::thread::sleep(rtt * 4 + settle(plan.contender));
            started.client.say("requests 1")?;
            started.client.expect("done", SETUP)?;
        }
        for peer in started.all() {
            peer.hurry()?;
        }
        world.reset(&plan.paths, plan.seed);
        if !plan.cold {
            started.client.say("requests 3")?;
            started.client.expect("done", SETUP)?;
            std::thread::sleep(rtt * 2 + Duration::from_millis(50));
        }

        let sent_before = world.octets();
        let path_before = world.path_octets(0).0;
        let waited_before = started.waited();
        let _ = world.emulator.take_lateness();
        let begin = clock::now();
        started.client.say("mark")?;
        if plan.cold {
            started.client.say("connect")?;
        }
        started.client.say(&match plan.workload {
            Workload::Burst { count, size } => format!("burst {count} {size}"),
            Workload::Bulk { octets, .. } => format!("bulk {octets}"),
            Workload::Requests { count } => format!("requests {count}"),
        })?;
        let mark = number(&started.client.expect("mark", SETUP)?, 0)?;
        let mut outcome = Outcome::default();
        collect(world, plan, &started, mark, &mut outcome)?;
        outcome.sent = world.octets() - sent_before;
        outcome.lateness = world.emulator.take_lateness();
        outcome.waited = started.waited().saturating_sub(waited_before);
        if competitor.is_some() {
            let octets = world.path_octets(0).0 - path_before;
            outcome.competing = (octets, clock::now() - begin);
        }
        if let Some((_, server)) = &competitor {
            let mut last = (0, 0);
            let mut first = None;
            while let Some(words) = server.next(clock::now())? {
                if words.first().map(String::as_str) == Some("k") {
                    last = (number(&words, 1)?, number(&words, 2)?);
                    if last.1 >= mark && first.is_none() {
                        first = Some(last);
                    }
                }
            }
            let first = first.unwrap_or(last);
            outcome.competing = (
                last.0 - first.0,
                Duration::from_nanos(last.1.saturating_sub(first.1)),
            );
        }
        Ok(outcome)
    }

    /// A TCP CUBIC flow over path 0, already at speed.
    fn compete(&self, world: &World, plan: &Plan) -> Result<(Peer, Peer)> {
        let mut args = Args::new();
        args.insert("port".to_owned(), "7010".to_owned());
        args.insert("to".to_owned(), format!("{}:7010", path_address(0, 2)));
        let mut server = Peer::start(&world.b, "tcp-cubic", "server", &args)?;
        server.expect("ready", SETUP)?;
        let mut client = Peer::start(&world.a, "tcp-cubic", "client", &args)?;
        client.say("connect")?;
        client.expect("connected", SETUP)?;
        server.hurry()?;
        client.hurry()?;
        client.say("bulk 1000000000")?;
        let rtt = plan.paths.first().map(|p| p.rtt).unwrap_or_default();
        std::thread::sleep(rtt * 20 + Duration::from_secs(1));
        Ok((client, server))
    }
}

/// A VMDT node's id and its cluster's ticket are its own to say.
fn learn_id(contender: &Contender, receiver: &Peer, args: &mut Args) -> Result<()> {
    if contender.name == "vmdt" {
        let id = receiver.expect("id", SETUP)?.join(" ");
        args.insert("receiver".to_owned(), id);
        let ticket = receiver.expect("ticket", SETUP)?.join(" ");
        args.insert("ticket".to_owned(), ticket);
    }
    Ok(())
}

fn processor_time(processes: &mut [Peer]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for process in processes {
        process.say("cpu")?;
        total += Duration::from_micros(number(&process.expect("cpu", SETUP)?, 0)?);
    }
    Ok(total)
}

/// How long other paths may take to come up.
pub(crate) fn settle(contender: &Contender) -> Duration {
    match contender.name {
        // the same for all who have other paths: theirs, and VMDT's sessions with relays
        "mptcp-cubic" | "mptcp-bbr" | "noq" | "noq-bbr" | "vmdt" => Duration::from_millis(300),
        _ => Duration::from_millis(20),
    }
}

fn without_loss(spec: &PathSpec) -> PathSpec {
    PathSpec {
        loss: 0.0,
        burst: None,
        reorder: (0.0, Duration::ZERO),
        duplicate: 0.0,
        corrupt: 0.0,
        ..spec.clone()
    }
}

/// Listens to the peers until the workload is done or its time is over.
fn collect(
    world: &World,
    plan: &Plan,
    started: &Started,
    mark: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    let limit = match plan.workload {
        Workload::Burst { .. } | Workload::Requests { .. } => Duration::from_secs(60),
        Workload::Bulk { limit, .. } => limit,
    };
    let begin = clock::now();
    let end = begin + limit;
    let since = |at: u64| Duration::from_nanos(at.saturating_sub(mark));
    let mut messages = BTreeMap::new();
    let mut outage = plan.outage;
    let mut down: Option<(usize, std::time::Instant)> = None;
    let mut delivered = 0;
    loop {
        let now = clock::now();
        if let Some((path, after, time)) = outage
            && now >= begin + after
        {
            set_path(world, plan, path, false);
            down = Some((path, now + time));
            outage = None;
        }
        if let Some((path, until)) = down
            && now >= until
        {
            set_path(world, plan, path, true);
            down = None;
        }
        if now >= end {
            break;
        }
        let wake = end.min(now + Duration::from_millis(2));
        let lines = [
            started.server.next(wake)?,
            started.client.next(clock::now())?,
        ];
        for words in lines.into_iter().flatten() {
            match words.first().map(String::as_str) {
                Some("m") => {
                    messages.insert(number(&words, 1)?, since(number(&words, 2)?));
                }
                Some("k") => {
                    let (octets, at) = (number(&words, 1)?, since(number(&words, 2)?));
                    if octets > delivered && at <= limit {
                        delivered = octets;
                        outcome.arrivals.push((at, octets));
                    }
                }
                Some("r") => outcome
                    .requests
                    .push(Duration::from_nanos(number(&words, 2)?)),
                Some("end") => outcome.took = Some(since(number(&words, 1)?)),
                Some("done") if matches!(plan.workload, Workload::Requests { .. }) => {
                    outcome.took = Some(since(number(&words, 1)?));
                }
                Some("failed") => bail!("{}", words.join(" ")),
                _ => {}
            }
        }
        if let Workload::Burst { count, .. } = plan.workload
            && messages.len() == count as usize
        {
            outcome.took = messages.values().max().copied();
        }
        if outcome.took.is_some() {
            break;
        }
    }
    let mut times: Vec<Duration> = messages.into_values().collect();
    times.sort_unstable();
    outcome.arrivals.extend(times.into_iter().zip(1u64..));
    if let Workload::Bulk { octets, limit } = plan.workload {
        outcome.bulk = match outcome.took {
            Some(took) => (octets, took),
            None => (delivered, limit),
        };
    }
    Ok(())
}

fn set_path(world: &World, plan: &Plan, path: usize, up: bool) {
    if let Some(spec) = plan.paths.get(path).or(plan.paths.last()) {
        world.set_path(path, spec, up);
    }
}

/// The least time in which a burst can arrive over these paths: half a round trip after the last
/// octet left at line rate, nothing lost. Each message is cut into k pieces and n of them are
/// sent, with 28 octets of IPv4 and UDP headers on each and nothing else; the n pieces are spread
/// evenly over the paths.
#[must_use]
pub fn ideal_burst(paths: &[PathSpec], (count, size): (u32, u32), (k, n): (u8, u8)) -> Duration {
    let rate: f64 = paths
        .iter()
        .map(|p| p.rate.map_or(f64::INFINITY, |r| r as f64))
        .sum();
    let rtt = paths.iter().map(|p| p.rtt).max().unwrap_or_default();
    let piece = size.div_ceil(u32::from(k)) + 28;
    let octets = f64::from(count) * f64::from(n) * f64::from(piece);
    Duration::from_secs_f64(octets * 8.0 / rate) + rtt / 2
}

/// Octets of a workload's own content.
#[must_use]
pub fn content(workload: Workload) -> u64 {
    match workload {
        Workload::Burst { count, size } => u64::from(count) * u64::from(size),
        Workload::Bulk { octets, .. } => octets,
        Workload::Requests { count } => 2 * u64::from(count) * REQUEST as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ideal_is_line_rate_and_half_a_round_trip() {
        let paths = vec![PathSpec::new(10.0, 50, 0.06); 3];
        // 59 x 6 x (464 + 28) octets at 30 Mbit/s, and 25 ms
        let ideal = ideal_burst(&paths, (59, 1392), (3, 6));
        assert_eq!(ideal.as_micros(), 46_444 + 25_000);
        assert!(ideal_burst(&paths, (59, 1392), (3, 3)) < ideal);
    }

    #[test]
    fn contenders_have_different_labels() {
        let labels: std::collections::BTreeSet<_> = CONTENDERS.iter().map(|c| c.label).collect();
        assert_eq!(labels.len(), CONTENDERS.len());
    }
}
