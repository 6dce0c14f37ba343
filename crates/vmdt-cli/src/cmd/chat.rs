//! `vmdt chat`: a room of a terminal each.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vmdt_node::Event;

use super::serve::describe;
use super::speaking::{Said, Speaker};
use super::transfers;
use crate::cli::ChatArgs;
use crate::console::{Console, Printer};
use crate::failure::{Failure, Outcome};
use crate::net::link::{Carried, Happened, Link, Membership, NodeSettings, add, waiting_for};
use crate::net::local::LocalServer;
use crate::net::names::{Names, resolve};
use crate::net::who::Who;
use crate::net::{ClusterId, Peer};
use crate::out::Out;
use crate::rendezvous::entrance::{Given, is_ticket};
use crate::rendezvous::online::Online;
use crate::rendezvous::opener::{Opened, Opener, always};
use crate::rendezvous::{Invitation, Key, Purpose};
use crate::settings::Settings;
use crate::stop;
use crate::text::{octets, printable};
use crate::tui::Shown;
use crate::tui::view::{MemberRow, PathRow};
use crate::xfer::wire::Message;

const COMMANDS: &[&str] = &[
    "/members", "/paths", "/send", "/verify", "/explain", "/help", "/quit",
];
const HELP: &[&str] = &[
    "a line without a slash goes to everybody who is here; // begins a line with a slash",
    "/members         who is here",
    "/paths           the direct paths, their round trip and loss",
    "/send WHO PATH   send a file to a member, by its id or name",
    "/verify          what to compare to know who is who",
    "/explain         how the last message came here",
    "/quit            leave (also Ctrl-D and Ctrl-C)",
];
/// Texts for one member that wait to be delivered.
const BACKLOG: usize = 100;
/// How often a full screen is looked after.
const LOOK: Duration = Duration::from_millis(500);
/// How long the end waits for what is on its way.
const FINISH: Duration = Duration::from_secs(5);

/// Where the room is.
enum Room {
    /// A cluster of the configured server, in the open profile.
    Cluster(ClusterId),
    /// Where a code or a ticket leads.
    Given(Box<Given>),
    New,
}

/// Runs the chat.
pub(crate) async fn run(args: ChatArgs, settings: &Settings, out: &Out) -> Outcome<()> {
    stop::listen();
    if args.tui && out.is_json() {
        return Err(Failure::usage("--tui and --json don't go together"));
    }
    if !(2..=args.n).contains(&args.k) {
        return Err(Failure::usage(format!(
            "2 <= k <= n is needed, not k = {}, n = {}",
            args.k, args.n
        )));
    }
    let room = match args.room.as_deref() {
        None => Room::New,
        Some(text) if settings.is_on("open") && !is_ticket(text) => match text.parse() {
            Ok(given) => Room::Given(Box::new(given)),
            Err(no_code) => Room::Cluster(super::cluster_id(text).map_err(|_| no_code)?),
        },
        Some(text) => Room::Given(Box::new(text.parse()?)),
    };
    let open = settings.is_on("open");
    let mut local = None;
    let (mut node, membership) = match &room {
        Room::Cluster(id) => {
            let servers = super::servers(settings).await?;
            (NodeSettings::new(settings, servers)?, Membership::Open(*id))
        }
        Room::New => {
            let mut servers = super::servers(settings).await?;
            if servers.is_empty() {
                let server = LocalServer::start(settings.bind(), open).await?;
                servers.clone_from(&server.names);
                local = Some(server);
            }
            let membership = Membership::Create {
                n: args.n,
                k: args.k,
            };
            (NodeSettings::new(settings, servers)?, membership)
        }
        Room::Given(given) => {
            let search = super::search(settings, Duration::from_secs(30));
            let entrance = stop::unless(given.enter(Purpose::Chat, &search, settings)).await?;
            (entrance.node(settings)?, entrance.membership)
        }
    };
    node.name = settings.name(true);
    node.call(args.name.as_deref());
    node.downloads.clone_from(&args.out);
    let servers = node.servers.clone();
    let link = stop::unless(Link::open(&node, &membership)).await?;
    let cluster = link
        .cluster()
        .ok_or_else(|| Failure::failed("the node entered no cluster"))?;
    let mut line = None;
    let opener = if matches!(room, Room::New) {
        let ticket = link.ticket().await?;
        let text = ticket.map(|ticket| ticket.encode().to_string());
        if local.is_none() {
            line.clone_from(&text);
        }
        let invitation = Invitation {
            version: if text.is_some() { 2 } else { 1 },
            purpose: Purpose::Chat,
            servers: if text.is_some() { Vec::new() } else { servers },
            cluster: cluster.to_string(),
            from: link.id().to_string(),
            token: String::new(),
            ticket: text,
        };
        let invitations = always(invitation.encode());
        let discovery = super::discovery_port(settings);
        let online = (local.is_none() && !open).then(|| Online {
            node: link.node.clone(),
            again: true,
        });
        Some(Opener::start(settings.bind(), None, invitations, discovery, online).await?)
    } else {
        None
    };
    let own = match &link.who {
        Who::Open(_) => link.id().to_string(),
        _ => crate::net::names::tidy(&node.name).map_or_else(
            || link.id().to_string(),
            |name| format!("{name} ({})", link.id()),
        ),
    };
    out.say(format!(
        "you are {own} in cluster {cluster}; /help lists the commands"
    ));
    if let Some(opener) = &opener {
        show(out, &opener.key, line.as_deref());
    }
    let shown = args.tui.then(Shown::default);
    let console = match &shown {
        Some(shown) => {
            let title = opener.as_ref().map_or_else(
                || "vmdt chat".to_owned(),
                |o| format!("vmdt chat {}", o.key.code),
            );
            shown.update(|board| board.title = title);
            Console::full_screen(shown.clone(), COMMANDS)?
        }
        None => Console::start("> ", COMMANDS, None)?,
    };
    let chat = Chat {
        own,
        shown,
        printer: console.printer.clone(),
        out: out.clone(),
        link,
        opener,
        speaking: None,
        sending: JoinSet::new(),
        held: Vec::new(),
        said: String::new(),
        last: None,
    };
    let result = chat.run(console).await;
    if let Some(local) = local {
        local.close().await;
    }
    result
}

fn show(out: &Out, key: &Key, ticket: Option<&str>) {
    out.say(format!(
        "\n    {}\n\nothers come in with:  vmdt chat {}",
        out.bold(&key.code.to_string()),
        key.code
    ));
    out.say(format!(
        "on another network:   vmdt chat {}",
        out.dim(ticket.unwrap_or(&key.ticket()))
    ));
}

struct Chat {
    /// What this node is called.
    own: String,
    /// What fills the screen, where it is filled.
    shown: Option<Shown>,
    printer: Printer,
    out: Out,
    link: Link,
    opener: Option<Opener>,
    /// What is said, one text after the other to stay in order.
    speaking: Option<mpsc::Sender<Said>>,
    sending: JoinSet<()>,
    /// From a script, lines that wait until somebody is there.
    held: Vec<String>,
    said: String,
    /// The last message: who from, and who carried it.
    last: Option<(Peer, Carried)>,
}

impl Chat {
    async fn run(mut self, mut console: Console) -> Outcome<()> {
        self.announce().await;
        let mut open = true;
        let mut looked = tokio::time::interval(LOOK);
        loop {
            let opened = async {
                match &mut self.opener {
                    Some(opener) => opener.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop::asked() => break,
                opened = opened => {
                    if let Opened::Renewed { why, key } = opened {
                        if let Some(shown) = &self.shown {
                            shown.update(|board| board.title = format!("vmdt chat {}", key.code));
                        }
                        self.printer.print(format!("{why}: {}", key.code)).await;
                    }
                }
                line = console.lines.recv(), if open => match line {
                    None => {
                        open = false;
                        // what a script said before anybody was there is still to be said
                        if console.interactive || self.held.is_empty() {
                            break;
                        }
                    }
                    Some(line) if line == "/quit" => break,
                    Some(line) => self.act(line, console.interactive).await,
                },
                happened = self.link.next() => match happened {
                    Some(happened) => self.happened(happened).await,
                    None => break,
                },
                Some(_) = self.sending.join_next() => {}
                _ = looked.tick(), if self.shown.is_some() => self.look().await,
            }
            if !self.held.is_empty() && !self.present().await.is_empty() {
                for line in std::mem::take(&mut self.held) {
                    self.say(&line).await;
                }
                if !open {
                    break;
                }
            }
        }
        self.speaking = None;
        let rest = async { while self.sending.join_next().await.is_some() {} };
        if timeout(FINISH, rest).await.is_err() {
            self.printer
                .print("some of what you said may not have arrived")
                .await;
        }
        self.link.settle().await;
        self.link.close().await;
        drop(self.printer);
        console.finish().await;
        Ok(())
    }

    /// Shows members, paths and shares as they are now.
    async fn look(&self) {
        let Some(shown) = &self.shown else { return };
        let (names, status) = (self.link.names().await, self.link.status().await.ok());
        let (paths, shares) = (self.link.paths().await, self.link.shares().await);
        let own = self.link.id();
        let mut members = vec![MemberRow {
            name: self.own.clone(),
            state: "you",
        }];
        let others = status.iter().flat_map(|status| &status.members);
        members.extend(others.filter(|m| m.id != own).map(|m| MemberRow {
            name: names.show(m.id),
            state: if m.present { "here" } else { "away" },
        }));
        let paths = paths
            .into_iter()
            .map(|path| PathRow {
                who: names
                    .name(path.peer)
                    .map_or_else(|| path.peer.to_string(), str::to_owned),
                round_trip: path.stats.srtt,
                loss: path.stats.packets_lost as f64 / path.stats.packets_sent.max(1) as f64,
                sent: path.stats.octets_sent,
            })
            .collect();
        shown.update(|board| {
            board.members = members;
            board.paths = paths;
            board.shares = shares;
            if let Some(status) = &status {
                board.shares_of = (status.n, status.k);
            }
        });
    }

    /// The others, once messages can be sent.
    async fn present(&self) -> Vec<Peer> {
        let own = self.link.id();
        match self.link.status().await {
            Ok(status) if status.ready => status
                .members
                .iter()
                .filter(|m| m.present && m.id != own)
                .map(|m| m.id)
                .collect(),
            _ => Vec::new(),
        }
    }

    async fn announce(&mut self) {
        let line = match self.link.status().await {
            Ok(status) => waiting_for(&status).unwrap_or_else(|| "the room is ready".into()),
            Err(failure) => printable(&failure.message),
        };
        if line != self.said {
            self.printer.print(line.clone()).await;
            self.said = line;
        }
    }

    async fn act(&mut self, line: String, interactive: bool) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        match word {
            "/help" => {
                for line in HELP {
                    self.printer.print(*line).await;
                }
            }
            "/members" => self.members().await,
            "/paths" => self.paths().await,
            "/verify" => {
                let line = format!(
                    "you are {}. {}",
                    self.link.id(),
                    if self.link.is_open() {
                        "Profile 1.0 has no keys: ids can be claimed by anybody, and nothing here proves who is who."
                    } else {
                        "Ids are made from keys and can't be claimed by others, names can: compare ids by another way, such as a call. /members shows them."
                    }
                );
                self.printer.print(line).await;
            }
            "/explain" => self.explain().await,
            "/send" => self.send_file(rest.trim()).await,
            _ if line.starts_with("//") => {
                self.deliver(line.get(1..).unwrap_or_default(), interactive)
                    .await
            }
            _ if line.starts_with('/') => {
                self.printer
                    .print(format!(
                        "there is no command {}; /help lists them",
                        printable(word)
                    ))
                    .await;
            }
            _ => self.deliver(&line, interactive).await,
        }
    }

    async fn deliver(&mut self, line: &str, interactive: bool) {
        if self.present().await.is_empty() {
            if interactive {
                self.printer.print("not sent: nobody else is here").await;
            } else {
                self.held.push(line.to_owned());
            }
            return;
        }
        self.say(line).await;
    }

    /// One message to the members that are here.
    async fn say(&mut self, line: &str) {
        let names = self.link.names().await;
        let named = |peer| (peer, names.show(peer));
        let said = Said {
            text: Bytes::copy_from_slice(line.as_bytes()),
            to: self.present().await.into_iter().map(named).collect(),
        };
        let (link, printer, sending) = (&self.link, &self.printer, &mut self.sending);
        let speaking = self.speaking.get_or_insert_with(|| {
            let (speaking, said) = mpsc::channel(BACKLOG);
            let speaker = Speaker::new(link.messenger(), printer.clone());
            sending.spawn(speaker.run(said));
            speaking
        });
        if speaking.try_send(said).is_err() {
            self.printer
                .print(format!("not sent: {BACKLOG} lines still wait"))
                .await;
        }
    }

    async fn members(&self) {
        match self.link.status().await {
            Ok(status) => {
                let names = Names::of(&status.members);
                self.printer
                    .print(format!("  {}  you", self.link.id()))
                    .await;
                for member in status.members.iter().filter(|m| m.id != self.link.id()) {
                    let how = if member.present { "here" } else { "away" };
                    let shown = names.show(member.id);
                    self.printer.print(format!("  {shown}  {how}")).await;
                }
                self.printer
                    .print(format!(
                        "any {} of {} shares rebuild a message",
                        status.k, status.n
                    ))
                    .await;
            }
            Err(failure) => self.printer.print(printable(&failure.message)).await,
        }
    }

    async fn paths(&self) {
        let paths = self.link.paths().await;
        if paths.is_empty() {
            self.printer.print("no direct paths yet").await;
        }
        for path in paths {
            let lost =
                path.stats.packets_lost as f64 * 100.0 / path.stats.packets_sent.max(1) as f64;
            let line = format!(
                "  {}  round trip {:.1} ms  loss {lost:.1}%  sent {}",
                path.peer,
                path.stats.srtt.as_secs_f64() * 1e3,
                octets(path.stats.octets_sent)
            );
            self.printer.print(line).await;
        }
    }

    async fn explain(&self) {
        let Some((from, carried)) = &self.last else {
            self.printer.print("no message has come yet").await;
            return;
        };
        self.printer
            .print(format!("the last message, from {from}, came by:"))
            .await;
        for (name, (shares, carried)) in carried {
            self.printer
                .print(format!("  {name}: {shares} shares, {}", octets(*carried)))
                .await;
        }
    }

    async fn send_file(&mut self, rest: &str) {
        let Some((to, path)) = rest.split_once(char::is_whitespace) else {
            self.printer
                .print("a member and a file are needed: /send WHO PATH")
                .await;
            return;
        };
        let members = match self.link.status().await {
            Ok(status) => status.members,
            Err(_) => Vec::new(),
        };
        let here: Vec<_> = members
            .into_iter()
            .filter(|member| member.present)
            .collect();
        let peer = match resolve(to, &here) {
            Ok(peer) => peer,
            Err(failure) => {
                self.printer.print(printable(&failure.message)).await;
                return;
            }
        };
        let (messenger, printer, path, board) = (
            self.link.messenger(),
            self.printer.clone(),
            path.trim().to_owned(),
            self.shown.clone(),
        );
        self.sending.spawn(async move {
            let shown = printable(&path);
            let sent = transfers::send(&messenger, peer, &path, board.as_ref()).await;
            let line = match sent {
                Ok(receipt) => format!("{peer} has {shown} ({})", octets(receipt.octets)),
                Err(failure) => format!(
                    "{shown} did not reach {peer}: {}",
                    printable(&failure.message)
                ),
            };
            printer.print(line).await;
        });
    }

    async fn happened(&mut self, happened: Happened) {
        let line = match happened {
            // somebody took this for a transfer
            Happened::Message { data, .. } if Message::decode(&data).is_some() => return,
            Happened::Message {
                from,
                data,
                carried,
            } => {
                let text = printable(&String::from_utf8_lossy(&data));
                let mut sum = Carried::new();
                add(&mut sum, &carried);
                let names = self.link.names().await;
                self.out.event("message", serde_json::json!({ "from": from.as_str(), "name": names.name(from), "text": String::from_utf8_lossy(&data) }));
                self.last = Some((from, sum));
                format!("{}: {text}", names.show(from))
            }
            Happened::Gone(peer) => {
                format!("{} is away", self.link.names().await.show(peer))
            }
            Happened::ServerLost(reason) => {
                format!("the server is gone ({}); trying again", printable(&reason))
            }
            Happened::ClusterLost(reason) => format!("the room is gone: {}", printable(&reason)),
            Happened::Other(
                Event::PathUp { .. }
                | Event::PathDown { .. }
                | Event::ClusterReady { .. }
                | Event::Registered,
            ) => {
                self.announce().await;
                return;
            }
            Happened::Other(Event::Member { id, .. }) if id == self.link.id() => return,
            Happened::Other(event) => {
                if let Some(shown) = &self.shown {
                    transfers::arrives(shown, &event);
                }
                match describe(&event, &self.link.names().await) {
                    Some(line) => line,
                    None => return,
                }
            }
        };
        self.printer.print(line).await;
        self.announce().await;
    }
}
