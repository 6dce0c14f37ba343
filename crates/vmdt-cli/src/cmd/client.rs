//! `vmdt client`: the interactive session.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vmdt_node::Event;

use super::serve::describe;
use crate::cli::ClientArgs;
use crate::clock::now;
use crate::console::{Console, Printer};
use crate::failure::{Failure, Outcome};
use crate::net::link::{Happened, Link, Membership, NodeSettings, by_name, waiting_for};
use crate::net::mode::{Mode, ModeName};
use crate::net::names::{Names, resolve};
use crate::net::{Peer, host_port};
use crate::out::Out;
use crate::settings::{Settings, Source, state_dir};
use crate::stop;
use crate::text::{octets, printable, rate};

const COMMANDS: &[&str] = &[
    "create_cluster",
    "list",
    "join",
    "ticket",
    "status",
    "members",
    "send",
    "send-file",
    "leave",
    "list-peers",
    "health-check",
    "reconnect",
    "set-mode",
    "congestion",
    "help",
    "quit",
];

const HELP: &[&str] = &[
    "create_cluster N K       make a cluster: N shares, any K rebuild a message",
    "list                     the clusters of the server",
    "join TICKET              enter a cluster; in the open profile: join ID",
    "ticket                   print a ticket for the cluster: whoever has it can enter",
    "leave                    leave the cluster",
    "status                   where this node is and what it waits for",
    "members                  who is in the cluster",
    "send WHO TEXT            send a text to a member, by id or name (quotes around it are not sent)",
    "send-file WHO PATH       send a file to a member",
    "list-peers               the direct paths to members and what is measured on them",
    "health-check HOST PORT   see whether a server answers there",
    "reconnect SERVER         go to another server, vmdt://KEY@HOST:PORT, or to the same one again;",
    "                         reconnect HOST PORT for one whose key is known",
    "set-mode MODE [OPTION]   normal, token-bucket RATE, aimd, qos PRIORITY, parallel STREAMS,",
    "                         multicast: holds from the next reconnect",
    "congestion window|min-window|max-window KIB, congestion timeout|dupack on|off",
    "                         AIMD windows and detections: hold from the next reconnect",
    "help                     this",
    "quit                     end (also exit, Ctrl-D, Ctrl-C)",
];

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Command {
    Create {
        n: u8,
        k: u8,
    },
    List,
    Join(String),
    Ticket,
    Leave,
    Status,
    Members,
    Send {
        to: String,
        text: String,
    },
    SendFile {
        to: String,
        path: String,
    },
    Peers,
    Check {
        host: String,
        port: u16,
    },
    Reconnect(String),
    SetMode {
        mode: String,
        option: Option<String>,
    },
    Congestion {
        what: String,
        value: String,
    },
    Help,
    Quit,
    Wrong(String),
}

impl Command {
    fn parse(line: &str) -> Command {
        let wrong = |usage: &str| Command::Wrong(format!("usage: {usage}"));
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let words: Vec<&str> = rest.split_whitespace().collect();
        let host_port = |usage: &str, make: fn(String, u16) -> Command| match words.as_slice() {
            [host, port] => port
                .parse()
                .map_or_else(|_| wrong(usage), |port| make((*host).to_owned(), port)),
            _ => wrong(usage),
        };
        match word {
            "create_cluster" | "create-cluster" => match words.as_slice() {
                [n, k] => match (n.parse(), k.parse()) {
                    (Ok(n), Ok(k)) => Command::Create { n, k },
                    _ => wrong("create_cluster N K, such as create_cluster 5 3"),
                },
                _ => wrong("create_cluster N K, such as create_cluster 5 3"),
            },
            "list" => Command::List,
            "join" if words.len() == 1 => Command::Join(rest.to_owned()),
            "join" => wrong("join TICKET (join ID in the open profile)"),
            "ticket" => Command::Ticket,
            "leave" => Command::Leave,
            "status" => Command::Status,
            "members" => Command::Members,
            "send" | "send-file" => {
                let Some((to, what)) = rest.split_once(char::is_whitespace) else {
                    return wrong(if word == "send" {
                        "send WHO TEXT"
                    } else {
                        "send-file WHO PATH"
                    });
                };
                let what = unquoted(what.trim()).to_owned();
                if word == "send" {
                    Command::Send {
                        to: to.to_owned(),
                        text: what,
                    }
                } else {
                    Command::SendFile {
                        to: to.to_owned(),
                        path: what,
                    }
                }
            }
            "list-peers" | "peers" => Command::Peers,
            "health-check" => host_port("health-check HOST PORT", |host, port| Command::Check {
                host,
                port,
            }),
            "reconnect" => match words.as_slice() {
                [server] => Command::Reconnect((*server).to_owned()),
                _ => host_port(
                    "reconnect vmdt://KEY@HOST:PORT, or reconnect HOST PORT",
                    |host, port| Command::Reconnect(format!("{host}:{port}")),
                ),
            },
            "set-mode" => match words.as_slice() {
                [mode, option @ ..] if option.len() < 2 => Command::SetMode {
                    mode: (*mode).to_owned(),
                    option: option.first().map(|option| (*option).to_owned()),
                },
                _ => wrong(
                    "set-mode normal | token-bucket RATE | aimd | qos PRIORITY | parallel STREAMS | multicast",
                ),
            },
            "congestion" => match words.as_slice() {
                [what, value] => Command::Congestion {
                    what: (*what).to_owned(),
                    value: (*value).to_owned(),
                },
                _ => wrong("congestion window|min-window|max-window KIB, or timeout|dupack on|off"),
            },
            "help" | "?" => Command::Help,
            "quit" | "exit" => Command::Quit,
            _ => Command::Wrong(format!("there is no command {word:?}; `help` lists them")),
        }
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text)
}

/// Runs the session.
pub(crate) async fn run(args: ClientArgs, settings: &Settings, out: &Out) -> Outcome<()> {
    stop::listen();
    let mut settings = settings.clone();
    if let Some(host) = &args.host {
        let has_port = host_port(host)
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let server = if has_port {
            host.clone()
        } else {
            format!("{host}:{}", args.port)
        };
        let server = with_key(&server, &settings.servers());
        settings.set("server", server, Source::Flag)?;
    }
    let mode = Mode::resolve(&args.mode, &settings)?;
    let mut node = NodeSettings::new(&settings, super::servers(&settings).await?)?;
    node.name = settings.name(true);
    node.call(args.name.as_deref());
    node.downloads = Some(args.out.clone().unwrap_or_else(|| settings.downloads()));
    node.mode = Some(mode);
    let link = stop::unless(Link::open(&node, &Membership::None)).await?;
    let history = state_dir().join("client_history");
    let _ = crate::state::history_file("client_history");
    let console = Console::start("vmdt> ", COMMANDS, Some(history))?;
    out.say(format!(
        "you are {} at {}; help lists the commands",
        link.id(),
        node.servers.join(", ")
    ));
    Client {
        printer: console.printer.clone(),
        settings,
        node,
        link,
        membership: Membership::None,
        sending: JoinSet::new(),
    }
    .run(console)
    .await
}

/// A server's address with the key that is known for it, where one is.
fn with_key(server: &str, known: &[String]) -> String {
    if crate::net::server_key(server).is_some() {
        return server.to_owned();
    }
    let same = |other: &&String| host_port(other) == host_port(server);
    known
        .iter()
        .find(same)
        .cloned()
        .unwrap_or_else(|| server.to_owned())
}

struct Client {
    printer: Printer,
    settings: Settings,
    node: NodeSettings,
    link: Link,
    /// How it came into its cluster, to come back.
    membership: Membership,
    sending: JoinSet<()>,
}

impl Client {
    async fn run(mut self, mut console: Console) -> Outcome<()> {
        loop {
            tokio::select! {
                () = stop::asked() => break,
                line = console.lines.recv() => match line.as_deref().map(Command::parse) {
                    None | Some(Command::Quit) => break,
                    Some(command) => {
                        if let Err(failure) = self.act(command, console.interactive).await {
                            self.fail(&failure).await;
                        }
                    }
                },
                happened = self.link.next() => match happened {
                    Some(happened) => self.tell(happened).await,
                    None => break,
                },
                Some(_) = self.sending.join_next() => {}
            }
        }
        // from a script, what was sent is to arrive
        let rest = async { while self.sending.join_next().await.is_some() {} };
        if !console.interactive {
            let _ = timeout(Duration::from_secs(30), rest).await;
        }
        self.link.settle().await;
        self.link.close().await;
        drop(self.printer);
        console.finish().await;
        Ok(())
    }

    async fn fail(&self, failure: &Failure) {
        self.printer
            .print(format!("error: {}", printable(&failure.message)))
            .await;
        if let Some(hint) = &failure.hint {
            self.printer.print(format!("  {}", printable(hint))).await;
        }
    }

    async fn tell(&self, happened: Happened) {
        let names = self.link.names().await;
        let line = match happened {
            Happened::Message {
                from,
                data,
                carried,
            } => {
                let text = String::from_utf8_lossy(&data);
                let carriers: Vec<&str> = carried.keys().map(String::as_str).collect();
                let from = names.show(from);
                format!("{from}: {}  [{}]", printable(&text), carriers.join(", "))
            }
            Happened::Gone(id) => format!("{} is away", names.show(id)),
            Happened::ServerLost(reason) => {
                format!("the server is gone ({}); trying again", printable(&reason))
            }
            Happened::ClusterLost(reason) => format!("the cluster is gone: {}", printable(&reason)),
            Happened::Other(Event::PathUp { .. } | Event::PathDown { .. }) => return,
            Happened::Other(event) => match describe(&event, &names) {
                Some(line) => line,
                None => return,
            },
        };
        self.printer.print(line).await;
    }

    async fn act(&mut self, command: Command, interactive: bool) -> Outcome<()> {
        let line = match command {
            Command::Help => HELP.join("\n"),
            Command::Wrong(why) => return Err(Failure::usage(why)),
            Command::Quit => return Ok(()),
            Command::Create { n, k } => {
                let id = self.link.enter(&Membership::Create { n, k }).await?;
                let way = self.way_in().await?;
                format!("created cluster {id}; others enter it with:\njoin {way}")
            }
            Command::Join(way) => {
                let (membership, _) = super::named_cluster(&way, &self.settings)?;
                let id = self.link.enter(&membership).await?;
                self.membership = membership;
                format!("joined cluster {id}")
            }
            Command::Ticket => format!("join {}", self.way_in().await?),
            Command::Leave => {
                self.link.leave().await?;
                self.membership = Membership::None;
                "left".into()
            }
            Command::List => self.list().await?,
            Command::Status => self.status().await,
            Command::Members => self.members().await?,
            Command::Peers => self.peers().await,
            Command::Send { to, text } => {
                if self.settings.is_on("auto_detect_files") && Path::new(&text).is_file() {
                    return self.send_file(&to, text.into(), interactive).await;
                }
                return self.send(&to, text, interactive).await;
            }
            Command::SendFile { to, path } => {
                return self.send_file(&to, path.into(), interactive).await;
            }
            Command::Check { host, port } => self.check(&host, port).await?,
            Command::Reconnect(server) => self.reconnect(&server).await?,
            Command::SetMode { mode, option } => self.set_mode(mode, option)?,
            Command::Congestion { what, value } => {
                let key = match what.as_str() {
                    "window" => "aimd_window",
                    "min-window" => "aimd_min_window",
                    "max-window" => "aimd_max_window",
                    "timeout" => "aimd_timeout",
                    "dupack" => "aimd_dupack",
                    _ => {
                        return Err(Failure::usage(
                            "usage: congestion window|min-window|max-window KIB, or timeout|dupack on|off",
                        ));
                    }
                };
                let value = match value.as_str() {
                    "on" => "true".to_owned(),
                    "off" => "false".to_owned(),
                    _ => value,
                };
                self.settings.set(key, value, Source::Flag)?;
                self.apply_mode()?
            }
        };
        for line in line.lines() {
            self.printer.print(line).await;
        }
        Ok(())
    }

    /// What others enter the cluster with.
    async fn way_in(&mut self) -> Outcome<String> {
        let id = self
            .link
            .cluster()
            .ok_or_else(|| Failure::failed("this node is in no cluster"))?;
        match self.link.ticket().await? {
            Some(ticket) => {
                let text = ticket.encode().to_string();
                if !matches!(self.membership, Membership::Ticket(_)) {
                    self.membership = Membership::Ticket(Box::new(ticket));
                }
                Ok(text)
            }
            None => {
                self.membership = Membership::Open(id);
                Ok(id.to_string())
            }
        }
    }

    fn set_mode(&mut self, mode: String, option: Option<String>) -> Outcome<String> {
        if let Some(option) = option {
            let key = match mode.parse().map_err(Failure::usage)? {
                ModeName::TokenBucket => "rate",
                ModeName::Qos => "priority",
                ModeName::Parallel => "parallel_threads",
                name => return Err(Failure::usage(format!("mode {name} takes no option"))),
            };
            self.settings.set(key, option, Source::Flag)?;
        }
        self.settings.set("default_mode", mode, Source::Flag)?;
        self.apply_mode()
    }

    fn apply_mode(&mut self) -> Outcome<String> {
        let mode = Mode::resolve(&Default::default(), &self.settings)?;
        let name = mode.name;
        self.node.mode = Some(mode);
        Ok(match name {
            ModeName::Normal => "mode normal from the next reconnect".into(),
            name => {
                format!("mode {name} from the next reconnect; `reconnect HOST PORT` does it now")
            }
        })
    }

    async fn list(&self) -> Outcome<String> {
        let clusters = self.link.clusters().await?;
        if clusters.is_empty() {
            return Ok("the server has no clusters; create_cluster N K makes one".into());
        }
        let lines: Vec<String> = clusters
            .iter()
            .map(|c| {
                let state = if c.active { "active" } else { "waiting" };
                format!(
                    "  {}  by {}  n={} k={}  {} members  {state}",
                    c.cluster, c.creator, c.n, c.k, c.members
                )
            })
            .collect();
        Ok(lines.join("\n"))
    }

    async fn status(&self) -> String {
        let mode = self
            .node
            .mode
            .as_ref()
            .map_or(ModeName::Normal, |mode| mode.name);
        let mut lines = vec![
            format!("  id       {}", self.link.id()),
            format!("  server   {}", self.node.servers.join(", ")),
            format!("  mode     {mode}"),
        ];
        match self.link.status().await {
            Ok(status) => {
                lines.push(format!(
                    "  cluster  {} (n={} k={})",
                    status.id, status.n, status.k
                ));
                lines.push(format!(
                    "  state    {}",
                    waiting_for(&status).unwrap_or_else(|| "ready".into())
                ));
            }
            Err(_) => lines.push("  cluster  none".into()),
        }
        lines.join("\n")
    }

    async fn members(&self) -> Outcome<String> {
        let status = self.link.status().await?;
        let names = Names::of(&status.members);
        let mut lines = vec![format!("  {}  you", self.link.id())];
        for member in status
            .members
            .iter()
            .filter(|member| member.id != self.link.id())
        {
            let how = if member.present { "here" } else { "away" };
            lines.push(format!("  {}  {how}", names.show(member.id)));
        }
        Ok(lines.join("\n"))
    }

    async fn peers(&self) -> String {
        let (paths, names) = (self.link.paths().await, self.link.names().await);
        if paths.is_empty() {
            return "no direct paths yet: they are made when something is sent".into();
        }
        let line = |p: &vmdt_node::PathReport| {
            let lost = p.stats.packets_lost as f64 * 100.0 / p.stats.packets_sent.max(1) as f64;
            let score = (1.0 - lost / 100.0).clamp(0.0, 1.0);
            format!(
                "  {}  reliability {score:.2}  round trip {:.1} ms  loss {lost:.1}%  window {}",
                names.show(p.peer),
                p.stats.srtt.as_secs_f64() * 1e3,
                octets(p.stats.cwnd)
            )
        };
        paths.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    async fn check(&self, host: &str, port: u16) -> Outcome<String> {
        let started = now();
        let patience = self.settings.time("connection_timeout");
        match timeout(patience, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => {
                let took = now().saturating_duration_since(started);
                Ok(format!(
                    "{}:{port} answers ({:.1} ms)",
                    printable(host),
                    took.as_secs_f64() * 1e3
                ))
            }
            Ok(Err(cause)) => Err(Failure::failed(format!(
                "{host}:{port} does not answer: {cause}"
            ))),
            Err(_) => Err(Failure::failed(format!(
                "{host}:{port} does not answer within {} s",
                patience.as_secs_f64()
            ))),
        }
    }

    async fn reconnect(&mut self, server: &str) -> Outcome<String> {
        let mut node = self.node.clone();
        node.servers = vec![with_key(server, &self.node.servers)];
        let membership = self.membership.clone();
        // one id can be registered once
        self.link.close().await;
        match Link::open(&node, &membership).await {
            Ok(link) => self.link = link,
            Err(first) => match Link::open(&node, &Membership::None).await {
                Ok(link) => {
                    self.link = link;
                    self.fail(&first).await;
                }
                Err(failure) => {
                    self.link = Link::open(&self.node, &Membership::None)
                        .await
                        .map_err(|_| failure.clone())?;
                    return Err(failure);
                }
            },
        }
        self.node = node;
        Ok(format!("connected to {}", printable(host_port(server))))
    }

    /// The member with this id, once the cluster is ready; a script waits for that.
    async fn receiver(&mut self, to: &str, interactive: bool) -> Outcome<Peer> {
        let deadline = now() + self.node.stall;
        loop {
            let status = self.link.status().await?;
            let found = resolve(to, &status.members);
            let here = |peer: &Peer| status.members.iter().any(|m| m.id == *peer && m.present);
            match &found {
                Ok(peer) if status.ready && here(peer) => return Ok(*peer),
                _ if !interactive && now() < deadline => {}
                Ok(peer) => {
                    return Err(Failure::failed(waiting_for(&status).unwrap_or_else(|| {
                        format!("{peer} is not here; `members` shows who is")
                    })));
                }
                Err(_) => return found,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send(&mut self, to: &str, text: String, interactive: bool) -> Outcome<()> {
        let peer = self.receiver(to, interactive).await?;
        let shown_peer = self.link.names().await.show(peer);
        let (messenger, printer) = (self.link.messenger(), self.printer.clone());
        self.sending.spawn(async move {
            let line = match messenger.send_for_receipt(peer, text.into()).await {
                Ok(receipt) => {
                    let carriers: Vec<String> = by_name(receipt.paths()).into_keys().collect();
                    format!(
                        "{shown_peer} has it ({:.0} ms; {})",
                        receipt.took.as_secs_f64() * 1e3,
                        carriers.join(", ")
                    )
                }
                Err(failure) => format!("error: {}", printable(&failure.message)),
            };
            printer.print(line).await;
        });
        Ok(())
    }

    async fn send_file(&mut self, to: &str, path: PathBuf, interactive: bool) -> Outcome<()> {
        let peer = self.receiver(to, interactive).await?;
        let shown_peer = self.link.names().await.show(peer);
        let (messenger, printer) = (self.link.messenger(), self.printer.clone());
        self.sending.spawn(async move {
            let shown = printable(&path.to_string_lossy());
            let line = match messenger.send_file(peer, &path).await {
                Ok(receipt) => {
                    format!(
                        "{shown_peer} has {shown}: {}, {}",
                        octets(receipt.octets),
                        rate(receipt.octets, receipt.took)
                    )
                }
                Err(failure) => format!("error: {}", printable(&failure.message)),
            };
            printer.print(line).await;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_the_original_session_are_read() {
        assert_eq!(
            Command::parse("create_cluster 5 3"),
            Command::Create { n: 5, k: 3 }
        );
        assert_eq!(
            Command::parse("send bob \"hello there\""),
            Command::Send {
                to: "bob".into(),
                text: "hello there".into()
            }
        );
        assert_eq!(
            Command::parse("send-file bob my file.txt"),
            Command::SendFile {
                to: "bob".into(),
                path: "my file.txt".into()
            }
        );
        assert_eq!(
            Command::parse("reconnect h 80"),
            Command::Reconnect("h:80".into())
        );
        assert_eq!(
            Command::parse("congestion min-window 8"),
            Command::Congestion {
                what: "min-window".into(),
                value: "8".into()
            }
        );
        for wrong in [
            "create_cluster 5",
            "create_cluster 300 2",
            "join",
            "send bob",
            "reconnect h x",
            "reconnect",
            "dance",
        ] {
            assert!(
                matches!(Command::parse(wrong), Command::Wrong(_)),
                "{wrong}"
            );
        }
        for word in COMMANDS {
            let line = format!("{word} 1 2");
            assert!(
                !matches!(Command::parse(&line), Command::Wrong(why) if why.contains("no command")),
                "{word}"
            );
        }
    }
}
