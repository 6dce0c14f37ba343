//! The room as one who is in it has it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use vmdt_node::{
    Cluster, ClusterStatus, Event, MAX_RECEIVERS, MemberState, Node, NodeError, NodeId, Server,
    Ticket, TransferError,
};

use super::command::{Command, HELP};
use super::console::{Console, Printer};
use super::host;
use super::local::Local;
use crate::session::{Session, enter, others, stop_requested, waiting_for};
use crate::terminal::{octets, one_line, printable};

/// Texts that wait to be sent. Beyond it they are not.
const BACKLOG: usize = 64;
/// How long the next text waits for those who have not got the one before.
const PATIENCE: Duration = Duration::from_secs(2);
const READY: &str = "the room is ready";
/// How long the end waits for what is on its way.
const FINISH: Duration = Duration::from_secs(10);

/// One person's view of the room.
pub(crate) struct Room {
    /// Where the room is one of this machine.
    local: Option<Local>,
    session: Session,
    /// Whether this node is in the cluster.
    inside: bool,
    /// Whether it is to be: not after `/leave`.
    wants_in: bool,
    server: Option<Server>,
    out: Printer,
    /// Texts and who they are for, which are sent one after the other to stay in order.
    lines: Option<mpsc::Sender<Said>>,
    sending: JoinSet<()>,
    entering: JoinSet<Result<(Cluster, Ticket)>>,
    /// From a script, text that waits until the room is ready.
    held: VecDeque<Command>,
    said: String,
    /// Who was here when that was said.
    known: BTreeSet<NodeId>,
}

impl Room {
    pub(crate) fn new(
        local: Option<Local>,
        session: Session,
        server: Option<Server>,
        out: Printer,
    ) -> Room {
        Room {
            local,
            session,
            inside: true,
            wants_in: true,
            server,
            out,
            lines: None,
            sending: JoinSet::new(),
            entering: JoinSet::new(),
            held: VecDeque::new(),
            said: String::new(),
            known: BTreeSet::new(),
        }
    }

    /// Acts on what is typed and what happens until the end.
    pub(crate) async fn run(mut self, mut console: Console) {
        let id = self.session.node.id();
        let cluster = self.session.cluster.id();
        let name = self.session.own_name();
        self.out
            .print(format!(
                "you are {name}, {id}, in cluster {cluster}; /help lists the commands"
            ))
            .await;
        self.announce_state().await;
        let stop = stop_requested();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                command = console.commands.recv(), if self.held.is_empty() => match command {
                    None | Some(Command::Quit) => break,
                    Some(command) => self.act(command, console.interactive).await,
                },
                event = self.session.events.next() => match event {
                    Some(event) => self.on_event(event).await,
                    None => break,
                },
                Some(entered) = self.entering.join_next() => self.entered(entered).await,
                Some(_) = self.sending.join_next() => {}
            }
            self.say_held().await;
        }
        self.finish().await;
        console.finish().await;
    }

    /// Lets what is on its way arrive, then leaves.
    async fn finish(mut self) {
        self.lines = None;
        let rest = async { while self.sending.join_next().await.is_some() {} };
        if timeout(FINISH, rest).await.is_err() {
            self.out
                .print("some of what you sent may not have arrived")
                .await;
        }
        self.session.settle().await;
        self.session.close().await;
        if let Some(server) = &self.server {
            server.close().await;
        }
    }

    async fn status(&mut self) -> Option<ClusterStatus> {
        if self.inside {
            self.session.status().await.ok()
        } else {
            None
        }
    }

    async fn act(&mut self, command: Command, interactive: bool) {
        match command {
            Command::Help => {
                for line in HELP {
                    self.out.print(line).await;
                }
            }
            Command::Members => self.members().await,
            Command::Leave => self.leave().await,
            Command::Join if self.inside => self.out.print("you are in the room").await,
            Command::Join => self.enter(),
            Command::Unknown(why) => self.out.print(printable(&why)).await,
            Command::Quit => {}
            Command::Say(_) | Command::Send { .. } => match self.status().await {
                Some(status) => match waiting_for(&status, self.session.node.id()) {
                    None => self.deliver(command, &status).await,
                    // a script can't look and try again
                    Some(_) if !interactive => self.held.push_back(command),
                    Some(what) => self.out.print(format!("not sent: {what}")).await,
                },
                None if !interactive && self.wants_in => self.held.push_back(command),
                None => {
                    self.out
                        .print("not sent: you are not in the room; /join")
                        .await
                }
            },
        }
    }

    async fn say_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let Some(status) = self.status().await else {
            return;
        };
        if status.ready {
            while let Some(command) = self.held.pop_front() {
                self.deliver(command, &status).await;
            }
        }
    }

    async fn deliver(&mut self, command: Command, status: &ClusterStatus) {
        match command {
            Command::Say(text) => self.say(text, status).await,
            Command::Send { to, path } => self.send_file(to, path, status).await,
            _ => {}
        }
    }

    /// One message for all members that are here: it is spread once, and they carry it for each
    /// other.
    async fn say(&mut self, text: String, status: &ClusterStatus) {
        let to = others(status, self.session.node.id());
        if to.is_empty() {
            self.out.print("nobody else is here").await;
            return;
        }
        let names = &self.session.names;
        let to: Vec<(NodeId, String)> = to.into_iter().map(|id| (id, names.show(id))).collect();
        let lines = self.lines.get_or_insert_with(|| {
            let (lines, texts) = mpsc::channel(BACKLOG);
            let (node, out) = (self.session.node.clone(), self.out.clone());
            self.sending.spawn(send_texts(node, texts, out));
            lines
        });
        for some in to.chunks(MAX_RECEIVERS) {
            let (text, to) = (text.clone(), some.iter().cloned().collect());
            if lines.try_send(Said { text, to }).is_err() {
                self.out
                    .print(format!(
                        "not sent: {BACKLOG} lines still wait to be delivered"
                    ))
                    .await;
                return;
            }
        }
    }

    async fn send_file(&mut self, to: String, path: String, status: &ClusterStatus) {
        let here = others(status, self.session.node.id());
        let to = match self.session.names.find(&to, &here) {
            Ok(Some(id)) => id,
            Ok(None) => {
                let here = self.session.names.list(&here);
                self.out
                    .print(format!("{} is not here; here are: {here}", printable(&to)))
                    .await;
                return;
            }
            Err(several) => {
                self.out.print(one_line(&several)).await;
                return;
            }
        };
        let names = self.session.names.clone();
        let (node, out) = (self.session.node.clone(), self.out.clone());
        self.sending.spawn(async move {
            let (shown, name) = (printable(&path), names.show(to));
            let sent = async {
                let mut sending = node.send_path(to, expand(&path)).await?;
                out.print(format!("sending {shown} to {name} ({to})")).await;
                Ok::<_, anyhow::Error>(sending.delivered().await?)
            };
            match sent.await {
                Ok(receipt) => {
                    let carriers = receipt.paths().keys().copied();
                    let carriers: Vec<_> = carriers.map(|c| names.carrier(c)).collect();
                    let size = octets(receipt.octets);
                    out.print(format!(
                        "{name} has {shown} ({size}, {})",
                        carriers.join(", ")
                    ))
                    .await;
                }
                Err(e) => {
                    out.print(format!("{shown} did not reach {name}: {}", one_line(&e)))
                        .await
                }
            }
        });
    }

    async fn members(&mut self) {
        let Some(status) = self.status().await else {
            self.out.print("you are not in the room; /join").await;
            return;
        };
        let paths = self.session.node.paths().await.unwrap_or_default();
        let own = self.session.node.id();
        let shown = |name: &str| format!("{:<16}", printable(name));
        let name = self.session.own_name();
        self.out
            .print(format!("  {}  {own}  you", shown(&name)))
            .await;
        for member in status.members.iter().filter(|m| m.id != own) {
            let path = paths.iter().find(|p| p.peer == member.id);
            let how = match (path, member.address) {
                _ if !member.present => "away".to_owned(),
                (Some(path), Some(address)) if !path.stats.min_rtt.is_zero() => {
                    format!(
                        "direct, {address}, {:.1} ms",
                        path.stats.srtt.as_secs_f64() * 1e3
                    )
                }
                (_, Some(address)) => format!("at {address}"),
                (_, None) => "here".to_owned(),
            };
            self.out
                .print(format!(
                    "  {}  {}  {how}",
                    shown(member.name.as_deref().unwrap_or_default()),
                    member.id
                ))
                .await;
        }
        let state =
            waiting_for(&status, self.session.node.id()).unwrap_or_else(|| READY.to_owned());
        self.out
            .print(format!(
                "{state}; any {} of {} shares rebuild a message",
                status.k, status.n
            ))
            .await;
    }

    async fn leave(&mut self) {
        self.entering.abort_all();
        self.wants_in = false;
        if !self.inside {
            self.out.print("you are not in the room").await;
            return;
        }
        self.inside = false;
        self.said.clear();
        match self.session.cluster.leave().await {
            Ok(()) => {
                self.out
                    .print("you have left the room; /join comes back, /quit ends")
                    .await
            }
            Err(e) => self.out.print(printable(&format!("leaving: {e}"))).await,
        }
    }

    /// Begins to come back into a room; the old one if it is still there.
    fn enter(&mut self) {
        self.wants_in = true;
        if self.inside || !self.entering.is_empty() {
            return;
        }
        let node = self.session.node.clone();
        let hosting = self.server.is_some();
        let membership = self.local.as_ref().map(|local| local.membership(hosting));
        let old = self.session.ticket.clone();
        self.entering.spawn(async move {
            match (node.join(&old).await, membership) {
                (Ok(cluster), _) => Ok((cluster, old)),
                (Err(NodeError::Request { .. }), Some(membership)) => {
                    enter(&node, &membership, |_| {}).await
                }
                (Err(error), _) => Err(error.into()),
            }
        });
    }

    async fn entered(&mut self, entered: Result<Result<(Cluster, Ticket)>, JoinError>) {
        match entered {
            Ok(Ok((cluster, ticket))) if self.wants_in => {
                self.out
                    .print(format!("you are in cluster {}", cluster.id()))
                    .await;
                self.session.cluster = cluster;
                self.session.ticket = ticket;
                self.inside = true;
                self.announce_state().await;
            }
            // entered after all, although /leave came first
            Ok(Ok((cluster, _))) => drop(cluster.leave().await),
            Ok(Err(e)) => {
                let why = one_line(&e);
                self.out
                    .print(format!(
                        "no room could be entered: {why}; /join tries again"
                    ))
                    .await;
            }
            // given up by /leave
            Err(_) => {}
        }
    }

    /// Says what the room waits for, or that it waits no more, when that is news.
    async fn announce_state(&mut self) {
        let Some(status) = self.status().await else {
            return;
        };
        let own = self.session.node.id();
        let here = others(&status, own);
        let waiting = waiting_for(&status, own);
        let state = waiting.clone().unwrap_or_else(|| READY.to_owned());
        if state != self.said {
            let names = self.session.names.list(&here);
            let line = waiting.unwrap_or_else(|| format!("{READY}; here are: {names}"));
            self.out.print(line).await;
            self.said = state;
        }
        self.known = here.into_iter().collect();
    }

    async fn on_event(&mut self, event: Event) {
        match &event {
            // how shares find their way is shown by /members
            Event::PathUp { .. } | Event::PathDown { .. } | Event::ClusterReady { .. } => {}
            Event::Member { id, .. } if *id == self.session.node.id() => {}
            // the server introduces those who were here before
            Event::Member {
                id,
                state: MemberState::Joined,
                ..
            } if self.known.contains(id) => {}
            _ => {
                if let Some(text) = self.session.describe(&event).await {
                    self.out.print(text).await;
                }
            }
        }
        match event {
            Event::Member {
                state: MemberState::Left,
                ..
            } => {
                self.announce_state().await;
            }
            Event::ServerLost { .. } if self.server.is_none() => self.take_over().await,
            Event::ClusterLost { cluster, .. } if cluster == *self.session.cluster.id() => {
                self.inside = false;
                self.said.clear();
                if self.wants_in {
                    self.enter();
                }
            }
            Event::Message { .. } | Event::FileProgress { .. } => {}
            _ => self.announce_state().await,
        }
    }

    /// The chat that ran the server is gone: one of those that are left runs it from now on.
    async fn take_over(&mut self) {
        let Some(local) = &self.local else { return };
        match host(&local.key).await {
            Ok(Some(server)) => {
                self.out
                    .print("the chat that ran the server has ended: this one runs it now")
                    .await;
                self.server = Some(server);
            }
            Ok(None) => {}
            Err(e) => {
                self.out
                    .print(format!("no server could be started: {}", one_line(&e)))
                    .await
            }
        }
    }
}

/// A text, and the members that it is for, with the names they are shown by.
struct Said {
    text: String,
    to: BTreeMap<NodeId, String>,
}

/// Sends texts, each after all who are to have the one before have it, or have failed. Who takes
/// longer than [`PATIENCE`] does not hold up the others.
async fn send_texts(node: Node, mut texts: mpsc::Receiver<Said>, out: Printer) {
    let mut slow = JoinSet::new();
    while let Some(Said { text, to }) = texts.recv().await {
        let ids: Vec<NodeId> = to.keys().copied().collect();
        let what: String = text.chars().take(24).collect();
        let mut sending = match node.send_to_group(&ids, &text).await {
            Ok(sending) => sending,
            Err(e) => {
                let why = one_line(&e.into());
                out.print(format!("\"{}\" was not sent: {why}", printable(&what)))
                    .await;
                continue;
            }
        };
        let out = out.clone();
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        slow.spawn(async move {
            let delivered = sending.delivered().await;
            drop(done);
            let failed = match delivered {
                Ok(_) => return,
                Err(TransferError::Group(failure)) => failure.failed,
                Err(error) => to.keys().map(|id| (*id, error.clone())).collect(),
            };
            for (id, error) in failed {
                let name = to.get(&id).map_or("somebody", String::as_str);
                out.print(format!(
                    "\"{}\" did not reach {name}: {}",
                    printable(&what),
                    one_line(&error.into())
                ))
                .await;
            }
        });
        // an error: it has ended, or takes its time
        let _ = tokio::time::timeout(PATIENCE, ended).await;
        while slow.try_join_next().is_some() {}
    }
    while slow.join_next().await.is_some() {}
}

/// `~/` at the beginning is the home folder, as in a shell.
fn expand(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}
