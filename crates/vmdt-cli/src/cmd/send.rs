//! `vmdt send`

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, timeout};
use vmdt_seal::code::Code;

use crate::cli::SendArgs;
use crate::clock::{now, unix_seconds};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::link::{Happened, Link, Membership, Messenger, NodeSettings};
use crate::net::local::LocalServer;
use crate::net::mode::{Mode, ModeName};
use crate::net::{Peer, Ticket};
use crate::out::Out;
use crate::rendezvous::online::Online;
use crate::rendezvous::opener::{Opened, Opener, Why, always};
use crate::rendezvous::{Invitation, Key, Purpose, entrance};
use crate::settings::Settings;
use crate::state::{Memory, Receipt, Unfinished};
use crate::stats::Stats;
use crate::stop;
use crate::text::{count, hex, octets, printable, rate};
use crate::xfer::entry::total;
use crate::xfer::sender::Session;
use crate::xfer::source::{MAX_TEXT, Source, not_repeatable};
use crate::xfer::tally::{Tally, paths_json};
use crate::xfer::wire::{Message, TOKEN_LEN};

/// Receivers of a multicast when nothing is said.
const MULTICAST: u32 = 2;
/// Messages of a session that wait for it; a receiver that sends more is given up.
const INBOX: usize = 1024;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Sends what the arguments name.
pub(crate) async fn run(args: SendArgs, settings: &Settings, out: &Out) -> Outcome<()> {
    stop::listen();
    let mode = Mode::resolve(&args.mode, settings)?;
    let multicast = if mode.name == ModeName::Multicast {
        MULTICAST
    } else {
        1
    };
    let receivers = args.receivers.unwrap_or(multicast);
    let source = Arc::new(source_of(&args).await?);
    for skipped in &source.skipped {
        out.say(format!("left out: {}", printable(skipped)));
    }
    if receivers > 1 && !source.is_repeatable() {
        return Err(Failure::usage("standard input can go to one receiver only"));
    }
    let open = settings.is_on("open");
    let via = match &args.via {
        Some(via) => Some(super::named_cluster(via, settings)?),
        None => None,
    };
    let mut local = None;
    let servers = match &via {
        // the ticket knows the server
        Some((_, Some(ticket))) => entrance::servers(ticket),
        _ => {
            let mut servers = super::servers(settings).await?;
            if servers.is_empty() {
                if via.is_some() {
                    return Err(Failure::usage("--via needs the server of the cluster")
                        .hint("--server HOST:PORT, VMDT_SERVER or `server` in config.toml"));
                }
                let server = LocalServer::start(settings.bind(), open).await?;
                servers.clone_from(&server.names);
                local = Some(server);
            }
            servers
        }
    };
    let membership = match &via {
        Some((membership, _)) => membership.clone(),
        None => Membership::Create { n: 2, k: 2 },
    };
    let mut node = NodeSettings::new(settings, servers.clone())?;
    node.mode = Some(mode.clone());
    node.for_transfer(settings);
    let link = stop::unless(Link::open(&node, &membership)).await?;
    let result = async {
        let token: [u8; TOKEN_LEN] = crate::random()?;
        let mut tokens = vec![token];
        let mut invitation = Invitation {
            version: 1,
            purpose: Purpose::Transfer,
            servers,
            cluster: link.cluster().map(|id| id.to_string()).unwrap_or_default(),
            from: link.id().to_string(),
            token: hex(&token),
            ticket: None,
        };
        // a ticket says all when a server that both can reach has the cluster
        let mut line = None;
        let invitations = if open {
            always(invitation.encode())
        } else {
            invitation.version = 2;
            invitation.servers.clear();
            let ticket = match (link.ticket().await, via) {
                (Ok(Some(ticket)), via) => {
                    if local.is_none() && via.is_none() && receivers == 1 {
                        tokens.push(entrance::token(&ticket));
                        line = Some(ticket.encode().to_string());
                    }
                    ticket
                }
                // who may not invite passes on how it came in itself
                (_, Some((_, Some(ticket)))) => ticket,
                (Err(failure), _) => return Err(failure),
                _ => return Err(Failure::failed("the node entered no cluster")),
            };
            if receivers > 1 && args.via.is_none() {
                one_cluster_each(link.messenger(), invitation, ticket)
            } else {
                invitation.ticket = Some(ticket.encode().to_string());
                always(invitation.encode())
            }
        };
        let memory =
            (args.text.is_none() && source.is_repeatable()).then(|| Memory::of(&args.paths));
        let earlier = memory.as_ref().and_then(Memory::recall::<Unfinished>);
        let earlier = earlier.and_then(|u| Some((u.code.parse::<Code>().ok()?, u.port)));
        // a server of this process is found as this process is
        let online = (local.is_none() && !open).then(|| Online {
            node: link.node.clone(),
            again: receivers > 1,
        });
        let opener = Opener::start(
            settings.bind(),
            earlier,
            invitations,
            super::discovery_port(settings),
            online,
        )
        .await?;
        let sending = Sending {
            args: &args,
            out,
            mode,
            link,
            source,
            tokens,
            line,
            opener,
            memory,
            receivers,
            sessions: BTreeMap::new(),
            ending: JoinSet::new(),
            finished: 0,
        };
        sending.run().await
    }
    .await;
    if let Some(local) = local {
        local.close().await;
    }
    result
}

/// Invitations into clusters that each have one receiver: nobody carries for others, or holds
/// them up by leaving.
fn one_cluster_each(
    messenger: Messenger,
    mut invitation: Invitation,
    first: Ticket,
) -> mpsc::Receiver<Vec<u8>> {
    let (give, invitations) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticket = first;
        loop {
            invitation.ticket = Some(ticket.encode().to_string());
            if give.send(invitation.encode()).await.is_err() {
                return;
            }
            // without another cluster the next one shares the last
            if let Ok(another) = messenger.another_cluster(2, 2).await {
                ticket = another;
            }
        }
    });
    invitations
}

async fn source_of(args: &SendArgs) -> Outcome<Source> {
    let (text, paths, name) = (args.text.clone(), args.paths.clone(), args.name.clone());
    spawn_blocking(move || match text.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .take(MAX_TEXT as u64 + 1)
                .read_to_string(&mut text)
                .map_err(|e| Failure::failed(format!("standard input is no text: {e}")))?;
            Source::text(text)
        }
        Some(text) => Source::text(text.to_owned()),
        None => Source::paths(&paths, &name),
    })
    .await
    .map_err(|_| Failure::failed("reading the folders was cut short"))?
}

/// A session under way.
struct Running {
    number: u64,
    inbox: mpsc::Sender<Message>,
    tally: Tally,
    task: tokio::task::AbortHandle,
}

/// A send until its end.
struct Sending<'a> {
    args: &'a SendArgs,
    out: &'a Out,
    mode: Mode,
    link: Link,
    source: Arc<Source>,
    /// What receivers show, one or the other.
    tokens: Vec<[u8; TOKEN_LEN]>,
    /// The ticket that suffices by itself.
    line: Option<String>,
    opener: Opener,
    memory: Option<Memory>,
    receivers: u32,
    sessions: BTreeMap<Peer, Running>,
    ending: JoinSet<(Peer, u64, Tally, Outcome<u64>)>,
    finished: u32,
}

impl Sending<'_> {
    async fn run(mut self) -> Outcome<()> {
        let key = self.opener.key.clone();
        self.show(&key, None);
        let result = self.serve().await;
        if result.is_err() {
            self.take_leave(&result).await;
        }
        for running in self.sessions.values() {
            running.tally.clear();
        }
        // the next send of the same files is another one
        if result.is_ok()
            && let Some(memory) = &self.memory
        {
            memory.forget();
        }
        let Sending { link, opener, .. } = self;
        drop(opener);
        link.settle().await;
        link.close().await;
        result
    }

    /// Tells receivers that are still there that this is the end.
    async fn take_leave(&mut self, result: &Outcome<()>) {
        let Err(failure) = result else { return };
        for (peer, running) in &self.sessions {
            running.task.abort();
            let failed = Message::Failed {
                exit: failure.exit as u8,
                text: failure.message.clone(),
            };
            let messenger = self.link.messenger();
            let telling = messenger.send(*peer, failed.encode(running.number));
            let _ = timeout(Duration::from_secs(1), telling).await;
        }
    }

    /// Serves receivers until enough have everything.
    async fn serve(&mut self) -> Outcome<()> {
        let mut sampled = interval(SAMPLE_EVERY);
        let mut idle_since = now();
        loop {
            tokio::select! {
                () = stop::asked() => {
                    return Err(self.stopped());
                }
                opened = self.opener.next() => self.opened(opened)?,
                happened = self.link.next() => match happened {
                    Some(happened) => self.happened(happened)?,
                    None => return Err(Failure::failed("the node was closed")),
                },
                Some(ended) = self.ending.join_next() => {
                    if let Ok((peer, number, tally, result)) = ended {
                        self.ended(peer, number, &tally, result).await?;
                    }
                    if self.finished >= self.receivers {
                        return Ok(());
                    }
                }
                _ = sampled.tick() => {
                    if self.sessions.is_empty() {
                        let idle = now().saturating_duration_since(idle_since);
                        if let Some(wait) = self.args.wait.filter(|wait| idle > *wait) {
                            return Err(Failure::new(
                                Exit::NotFound,
                                format!("nobody came for {} s", wait.as_secs()),
                            ));
                        }
                    } else {
                        idle_since = now();
                        let paths = self.link.paths().await;
                        for running in self.sessions.values() {
                            running.tally.sample(&paths);
                        }
                    }
                }
            }
        }
    }

    /// The end that the person asked for.
    fn stopped(&self) -> Failure {
        let stopped = Failure::interrupted();
        if self.source.is_repeatable() && !self.sessions.is_empty() {
            stopped.hint("the same command shows the same code and continues")
        } else {
            stopped
        }
    }

    fn opened(&mut self, opened: Opened) -> Outcome<()> {
        match opened {
            Opened::Redeemed(from) => {
                let from = from.map(|from| from.to_string());
                self.out.event("joined", json!({ "address": from }));
            }
            Opened::Renewed { why, key } => self.show(&key, Some(why)),
            Opened::Closed => {
                return Err(Failure::new(
                    Exit::WrongCode,
                    "too many wrong codes were tried: somebody is guessing",
                )
                .hint("run the command again for a new code"));
            }
        }
        Ok(())
    }

    /// Shows the code and what to do with it.
    fn show(&mut self, key: &Key, why: Option<Why>) {
        if let Some(memory) = &self.memory {
            memory.keep(Unfinished {
                code: key.code.to_string(),
                port: self.opener.port,
            });
        }
        let code = key.code.to_string();
        let ticket = self.line.clone().unwrap_or_else(|| key.ticket());
        let entries = self.source.entries();
        let files = entries.iter().filter(|e| e.has_content()).count() as u64;
        self.out.event(
            "code",
            json!({ "code": code, "ticket": ticket, "files": files, "octets": total(&entries) }),
        );
        let out = self.out;
        if let Some(why) = why {
            out.insist(why.to_string());
        } else {
            let names: Vec<String> = entries
                .iter()
                .filter(|e| e.path.len() == 1)
                .take(5)
                .map(|e| printable(&e.display()))
                .collect();
            let size = total(&entries).map_or("size unknown".into(), octets);
            out.say(format!(
                "sending {} ({}, {size})",
                names.join(", "),
                count(files, "file")
            ));
        }
        if out.is_quiet() {
            out.insist(&code);
            return;
        }
        out.say(format!("\n    {}\n", out.bold(&code)));
        out.say(format!("on the other computer:  vmdt recv {code}"));
        let elsewhere = if self.opener.is_online {
            "without this server:   "
        } else {
            "on another network:    "
        };
        out.say(format!("{elsewhere} vmdt recv {}", out.dim(&ticket)));
        if out.is_terminal() && !self.args.no_qr {
            super::show_qr(out, &ticket);
        }
    }

    fn happened(&mut self, happened: Happened) -> Outcome<()> {
        match happened {
            Happened::Message { from, data, .. } => {
                let Some((number, message)) = Message::decode(&data) else {
                    return Ok(());
                };
                match message {
                    // comparing digests takes the same time whatever differs
                    Message::Hello { token }
                        if self
                            .tokens
                            .iter()
                            .any(|good| blake3::hash(&token) == blake3::hash(good)) =>
                    {
                        self.begin(from, number);
                    }
                    Message::Hello { .. } => {}
                    message => {
                        if let Some(running) = self.sessions.get(&from)
                            && running.number == number
                        {
                            let _ = running.inbox.try_send(message);
                        }
                    }
                }
            }
            // its session ends when nothing can come any more
            Happened::Gone(peer) => {
                if let Some(running) = self.sessions.get_mut(&peer) {
                    running.inbox = mpsc::channel(1).0;
                }
            }
            Happened::ServerLost(reason) => {
                self.out.say(format!(
                    "the server is gone ({}); trying to reach it again",
                    printable(&reason)
                ));
            }
            Happened::ClusterLost(reason) => {
                return Err(
                    Failure::new(Exit::Vanished, format!("the cluster is gone: {reason}"))
                        .hint("run the same command again"),
                );
            }
            Happened::Other(_) => {}
        }
        Ok(())
    }

    /// A receiver begins, or begins again.
    fn begin(&mut self, peer: Peer, number: u64) {
        if self.receivers == 1 {
            // one that was killed and is back has another id, perhaps
            for running in std::mem::take(&mut self.sessions).into_values() {
                running.task.abort();
                running.tally.clear();
            }
        } else if let Some(running) = self.sessions.remove(&peer) {
            running.task.abort();
            running.tally.clear();
        }
        let (inbox, messages) = mpsc::channel(INBOX);
        let tally = Tally::new(self.out, "sending");
        let session = Session {
            messenger: self.link.messenger(),
            peer,
            number,
            inbox: messages,
            early: Default::default(),
            source: Arc::clone(&self.source),
            streams: self.mode.streams,
            fixed: self.mode.name == ModeName::Parallel,
            tally: tally.clone(),
        };
        let shared = tally.clone();
        let task = self
            .ending
            .spawn(async move { (peer, number, shared, session.run().await) });
        self.out.event("begun", json!({ "peer": peer.as_str() }));
        self.sessions.insert(
            peer,
            Running {
                number,
                inbox,
                tally,
                task,
            },
        );
    }

    async fn ended(
        &mut self,
        peer: Peer,
        number: u64,
        tally: &Tally,
        result: Outcome<u64>,
    ) -> Outcome<()> {
        tally.clear();
        if self
            .sessions
            .get(&peer)
            .is_some_and(|running| running.number == number)
        {
            self.sessions.remove(&peer);
        }
        let (done, same, paths, took) = tally.summary();
        let status = self.link.status_with(peer).await;
        let names = self.link.names().await;
        let receipt = Receipt {
            id: hex(&number.to_be_bytes()),
            when: unix_seconds(),
            direction: "sent".into(),
            peer: peer.to_string(),
            names: self
                .source
                .entries()
                .iter()
                .filter(|e| e.path.len() == 1)
                .map(|e| e.display())
                .collect(),
            octets: done,
            same,
            seconds: took.as_secs_f64(),
            k: status.as_ref().map_or(0, |s| s.k),
            n: status.as_ref().map_or(0, |s| s.n),
            paths: paths.clone(),
            name: names.name(peer).map(str::to_owned),
            sealed: !self.link.is_open(),
            error: result.as_ref().err().map(|failure| failure.message.clone()),
        };
        receipt.keep();
        match result {
            Ok(_) => {
                self.finished += 1;
                let sent = done.saturating_sub(same);
                let known = if same > 0 {
                    format!(" ({} were there already)", octets(same))
                } else {
                    String::new()
                };
                self.out.say(format!(
                    "{} has everything: {} in {:.1} s, {}{known}",
                    names.show(peer),
                    octets(done),
                    took.as_secs_f64(),
                    rate(sent, took)
                ));
                self.out.say(super::carriers(&paths));
                self.out.event(
                    "done",
                    json!({ "id": receipt.id, "peer": peer.as_str(), "octets": done, "already": same,
                            "seconds": took.as_secs_f64(), "paths": paths_json(&paths) }),
                );
                if let Some(file) = &self.args.stats {
                    write_stats(tally, &self.mode, file)?;
                }
                Ok(())
            }
            Err(failure) if failure.exit == Exit::Vanished => {
                self.out
                    .event("vanished", json!({ "peer": peer.as_str(), "octets": done }));
                if !self.source.is_repeatable() && done > 0 {
                    return Err(not_repeatable());
                }
                self.out.say(format!(
                    "{}; waiting for it to come back: `vmdt recv` with the same code continues",
                    printable(&failure.message)
                ));
                Ok(())
            }
            Err(failure) if self.receivers == 1 => Err(failure),
            Err(failure) => {
                self.finished += 1;
                self.out.failure(&failure);
                Ok(())
            }
        }
    }
}

fn write_stats(tally: &Tally, mode: &Mode, file: &Path) -> Outcome<()> {
    Stats::of(tally, "sent", &mode.name.to_string()).write(file)
}
