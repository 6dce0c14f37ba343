//! A room: what one types, the others read.

mod command;
mod console;
mod room;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use tokio::net::TcpStream;
use vmdt_node::{ClusterId, NodeError, Server};

use crate::session::{Membership, Session, Settings, unless_stopped};
use console::Console;
use room::Room;

/// The port on this machine where a chat without `--server` finds the others.
pub const DEFAULT_PORT: u16 = 4840;
/// Shares of a message, and members it takes to begin, of a room made here.
const ROOM_N: u8 = 3;
/// Shares that rebuild a message in a room made here.
const ROOM_K: u8 = 2;

/// Who takes part, and where.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The server; without one, that on [`DEFAULT_PORT`], which is started if need be.
    pub server: Option<String>,
    /// The name in the room; the login name with something random behind it otherwise.
    pub id: Option<String>,
    /// The cluster; the only one on the server otherwise.
    pub cluster: Option<ClusterId>,
    /// A new cluster with so many shares (n) of which so many are needed (k).
    pub create: Option<(u8, u8)>,
    /// Where received files go.
    pub downloads: PathBuf,
}

fn default_server() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))
}

/// Starts the server that everybody on this machine looks for, unless someone else did.
pub(crate) async fn host() -> Result<Option<Server>> {
    if TcpStream::connect(default_server()).await.is_ok() {
        return Ok(None);
    }
    match Server::bind(default_server()).await {
        Ok(server) => Ok(Some(server)),
        // another chat was faster
        Err(NodeError::Bind { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Chat {
    /// How to come into a room, for whoever runs the server or does not.
    fn membership(&self, hosting: bool) -> Membership {
        match (self.create, &self.cluster) {
            (Some((n, k)), _) => Membership::Create { n, k },
            (None, Some(cluster)) => Membership::Join(*cluster),
            (None, None) if hosting => Membership::Create {
                n: ROOM_N,
                k: ROOM_K,
            },
            (None, None) => Membership::Only,
        }
    }
}

/// Takes part until the person, the input's end or a signal ends it.
///
/// # Errors
/// When the server or the cluster can't be had, and what to try.
pub async fn run(chat: Chat) -> Result<()> {
    let server = match &chat.server {
        Some(_) => None,
        None => host().await?,
    };
    if server.is_some() {
        println!("no server on port {DEFAULT_PORT} yet: this chat runs it");
    }
    let id = match &chat.id {
        Some(id) => id.clone(),
        None => default_id()?,
    };
    let settings = Settings {
        server: chat
            .server
            .clone()
            .unwrap_or_else(|| default_server().to_string()),
        id: Some(id.clone()),
        membership: chat.membership(server.is_some()),
        loss: 0.0,
        stall: None,
        downloads: Some(chat.downloads.clone()),
    };
    let session = unless_stopped(Session::open(&settings, |note| println!("{note}"))).await?;
    let console = Console::start(format!("{id}> "))?;
    Room::new(chat, session, server, console.printer.clone())
        .run(console)
        .await;
    Ok(())
}

/// The login name and something random.
fn default_id() -> Result<String> {
    let login = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))?;
    Ok(id_from(&login.unwrap_or_default(), random))
}

fn id_from(login: &str, random: [u8; 4]) -> String {
    let mut id: String = login
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .take(11)
        .collect();
    if id.is_empty() {
        id.push_str("guest");
    }
    id.push('-');
    // 32 letters and digits, without those that look alike
    id.extend(random.iter().map(|r| match r & 31 {
        r @ 0..=7 => char::from(b'2' + r),
        r @ 8..=18 => char::from(b'a' + r - 8),
        r => char::from(b'm' + r - 19),
    }));
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmdt_node::NodeId;

    #[test]
    fn any_login_name_makes_an_id() {
        for login in [
            "",
            "alice",
            "Ünïcödé",
            "a.very.long@login.example.org",
            "\u{1b}[2J",
            "日本",
        ] {
            for random in 0..=255 {
                let id = id_from(login, [random; 4]);
                assert!(id.parse::<NodeId>().is_ok(), "{login:?} became {id:?}");
            }
        }
        assert_eq!(id_from("alice", [0, 8, 19, 31]), "alice-2amy");
    }
}
