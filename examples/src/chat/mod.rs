//! A room: what one types, the others read.

mod command;
mod console;
mod local;
mod room;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use tokio::net::TcpStream;
use vmdt_node::{SecretIdentity, Server, ServerError, Ticket};

use crate::session::{Membership, Session, Settings, unless_stopped};
use crate::terminal::printable;
use console::Console;
use local::Local;
use room::Room;

/// The port on this machine where a chat without a ticket finds the others.
pub const DEFAULT_PORT: u16 = 4840;
/// Shares of a message, and members it takes to begin, of a room made here.
const ROOM_N: u8 = 3;
/// Shares that rebuild a message in a room made here.
const ROOM_K: u8 = 2;
/// The longest name that a node can have, in octets.
const NAME_MAX: usize = 64;

/// Which room.
#[derive(Debug, Clone)]
pub enum Place {
    /// The one of the person's chats on this machine, made by the first of them, with a server on
    /// [`DEFAULT_PORT`].
    Here,
    /// A new one at a server.
    New {
        /// `vmdt://KEY@host:port`.
        server: String,
        /// Shares in all, and members it takes to begin.
        n: u8,
        /// Shares that rebuild a message.
        k: u8,
    },
    /// That of a ticket.
    Ticket(Box<Ticket>),
}

/// Who takes part, and where.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The room.
    pub room: Place,
    /// The name in the room; the login name with something random behind it otherwise.
    pub name: Option<String>,
    /// Where received files go.
    pub downloads: PathBuf,
}

fn default_server() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))
}

/// Starts the server that the person's chats on this machine look for, unless another one runs it.
pub(crate) async fn host(key: &SecretIdentity) -> Result<Option<Server>> {
    if TcpStream::connect(default_server()).await.is_ok() {
        return Ok(None);
    }
    let server = Server::builder().tls(default_server(), &key.seed());
    match server.start().await {
        Ok(server) => Ok(Some(server)),
        // another chat was faster
        Err(ServerError::Bind { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes part until the person, the input's end or a signal ends it.
///
/// # Errors
/// When the server or the room can't be had, and what to try.
pub async fn run(chat: Chat) -> Result<()> {
    let name = match &chat.name {
        Some(name) => name.clone(),
        None => default_name()?,
    };
    let (mut server, mut local) = (None, None);
    let (address, membership) = match &chat.room {
        Place::Here => {
            let here = Local::open()?;
            server = host(&here.key).await?;
            if server.is_some() {
                println!("no server on port {DEFAULT_PORT} yet: this chat runs it");
            }
            let address = format!("vmdt://{}@{}", here.key.public(), default_server());
            let membership = here.membership(server.is_some());
            local = Some(here);
            (Some(address), membership)
        }
        Place::New { server, n, k } => {
            let (n, k) = (*n, *k);
            let ticket = None;
            (Some(server.clone()), Membership::Create { n, k, ticket })
        }
        Place::Ticket(ticket) => (None, Membership::Join(ticket.clone())),
    };
    let settings = Settings {
        server: address,
        name: Some(name.clone()),
        membership,
        loss: 0.0,
        stall: None,
        downloads: Some(chat.downloads.clone()),
    };
    let session = unless_stopped(Session::open(&settings, |note| println!("{note}"))).await?;
    if matches!(chat.room, Place::New { .. }) {
        println!(
            "others, whom you trust, enter with --ticket {}",
            *session.ticket.encode()
        );
    }
    let console = Console::start(format!("{}> ", printable(&name)))?;
    Room::new(local, session, server, console.printer.clone())
        .run(console)
        .await;
    Ok(())
}

/// The login name and something random.
fn default_name() -> Result<String> {
    let login = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))?;
    Ok(name_from(&login.unwrap_or_default(), random))
}

fn name_from(login: &str, random: [u8; 4]) -> String {
    let mut name = String::new();
    for c in login.chars().filter(|c| !c.is_whitespace()) {
        // with room for what stands behind it
        if name.len() + c.len_utf8() > NAME_MAX - 5 {
            break;
        }
        name.push(c);
    }
    if name.is_empty() {
        name.push_str("guest");
    }
    name.push('-');
    // 32 letters and digits, without those that look alike
    name.extend(random.iter().map(|r| match r & 31 {
        r @ 0..=7 => char::from(b'2' + r),
        r @ 8..=18 => char::from(b'a' + r - 8),
        r => char::from(b'm' + r - 19),
    }));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_login_name_makes_a_name_that_fits_and_can_be_typed() {
        for login in ["", "alice", "Ünïcödé", "a b", "日本", &"日".repeat(99)] {
            for random in 0..=255 {
                let name = name_from(login, [random; 4]);
                assert!(name.len() <= NAME_MAX, "{name:?}");
                assert!(!name.contains(char::is_whitespace), "{name:?}");
            }
        }
        assert_eq!(name_from("alice", [0, 8, 19, 31]), "alice-2amy");
        assert_eq!(name_from("", [0; 4]), "guest-2222");
    }
}
