//! From what a person was given to the cluster where the other side waits.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::sleep;

use super::joiner::{Search, redeem};
use super::{Invitation, Key, Purpose, online};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::link::{Membership, NodeSettings};
use crate::net::who::Who;
use crate::net::{Peer, Ticket, server_url};
use crate::settings::Settings;
use crate::state::{Entered, Memory};
use crate::xfer::wire::TOKEN_LEN;

/// What a ticket of the protocol begins with.
const TICKET_PREFIX: &str = "vmdt1";

/// How long a code is looked for nearby before the server is asked: numbers mean something else
/// there, and a wrong guess would make somebody's code void.
const NEARBY_FIRST: Duration = Duration::from_secs(1);

/// What a person was given.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    /// A code, perhaps with addresses.
    Code(Key),
    /// A ticket of the protocol.
    Ticket(Box<Ticket>),
}

/// Reads a ticket as a person gave it.
///
/// # Errors
/// [`Exit::WrongCode`] when it is none.
pub(crate) fn ticket(text: &str) -> Outcome<Ticket> {
    text.trim().parse().map_err(|e| {
        Failure::new(Exit::WrongCode, format!("the ticket can't be used: {e}"))
            .hint("copy the whole line")
    })
}

/// Whether this is meant to be a ticket of the protocol.
pub(crate) fn is_ticket(text: &str) -> bool {
    let head = text.trim().get(..TICKET_PREFIX.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(TICKET_PREFIX))
}

impl FromStr for Given {
    type Err = Failure;

    fn from_str(text: &str) -> Outcome<Given> {
        if is_ticket(text) {
            return ticket(text).map(|ticket| Given::Ticket(Box::new(ticket)));
        }
        text.parse().map(Given::Code)
    }
}

/// How to get to the other side.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// The servers, those at the address where the other side was found first.
    pub(crate) servers: Vec<String>,
    pub(crate) membership: Membership,
    /// Who invited.
    pub(crate) from: Peer,
    /// What is shown to the sender of a transfer.
    pub(crate) token: Option<[u8; TOKEN_LEN]>,
    /// Where the invitation is kept until all is there.
    memory: Option<Memory>,
    /// Whether it is profile 1.0.
    open: bool,
}

/// Looks for the other side nearby and at the servers; gives the address it was found at, nearby.
async fn anywhere(
    key: &Key,
    search: &Search,
    settings: &Settings,
) -> Outcome<(Vec<u8>, Option<SocketAddr>)> {
    let nearby = async {
        let (octets, at) = redeem(key, search).await?;
        Ok((octets, Some(at)))
    };
    let servers = settings.servers();
    // a line with addresses says where; the open profile has no codes at servers
    if servers.is_empty() || !key.addresses.is_empty() || settings.is_on("open") {
        return nearby.await;
    }
    let node = NodeSettings::new(settings, servers)?;
    let online = async {
        sleep(NEARBY_FIRST).await;
        let octets = online::redeem(&key.code, node, search.wait).await?;
        Ok((octets, None))
    };
    tokio::pin!(nearby, online);
    tokio::select! {
        found = &mut nearby => match found {
            Err(failure) if failure.exit == Exit::NotFound => online.await,
            found => found,
        },
        found = &mut online => match found {
            Err(failure) if failure.exit != Exit::WrongCode => match nearby.await {
                Err(none) if none.exit == Exit::NotFound => Err(failure),
                found => found,
            },
            found => found,
        },
    }
}

impl Given {
    /// Asks the other side for the ticket, where only a code was given: nearby, and at the
    /// configured servers.
    ///
    /// # Errors
    /// [`Exit::NotFound`] when nobody is found, [`Exit::WrongCode`] when the code is wrong,
    /// [`Exit::Usage`] when it is for something else.
    pub(crate) async fn enter(
        &self,
        purpose: Purpose,
        search: &Search,
        settings: &Settings,
    ) -> Outcome<Entrance> {
        let entrance = match self {
            Given::Ticket(ticket) => Entrance::of(ticket),
            Given::Code(key) => {
                let memory = Memory::of_code(&key.code.to_string());
                let recalled = match purpose {
                    Purpose::Transfer => memory.recall::<Entered>(),
                    Purpose::Chat => None,
                };
                match recalled {
                    Some(entered) => {
                        let octets = entered.invitation.into_bytes();
                        let mut entrance =
                            Entrance::invited(&Invitation::decode(&octets, purpose)?, None)?;
                        entrance.memory = Some(memory);
                        entrance
                    }
                    None => {
                        let (octets, found_at) = anywhere(key, search, settings).await?;
                        let invitation = Invitation::decode(&octets, purpose)?;
                        let mut entrance = Entrance::invited(&invitation, found_at)?;
                        if found_at.is_none() && purpose == Purpose::Transfer {
                            // the server gives it out once; who is killed has it still
                            memory.keep(Entered {
                                invitation: String::from_utf8_lossy(&octets).into_owned(),
                            });
                            entrance.memory = Some(memory);
                        }
                        entrance
                    }
                }
            }
        };
        if entrance.open && !settings.is_on("open") {
            return Err(Failure::usage(
                "the other side speaks profile 1.0, without any protection",
            )
            .hint("--open does so here, too; better leave it out there"));
        }
        Ok(entrance)
    }
}

impl Entrance {
    /// By a ticket alone: who issued it is the other side.
    fn of(ticket: &Ticket) -> Entrance {
        Entrance {
            servers: servers(ticket),
            membership: Membership::Ticket(Box::new(ticket.clone())),
            from: ticket.invite().issuer().node_id(),
            token: Some(token(ticket)),
            memory: None,
            open: false,
        }
    }

    fn invited(invitation: &Invitation, found_at: Option<SocketAddr>) -> Outcome<Entrance> {
        let wrong = |what: &str| Failure::new(Exit::Corrupt, format!("the invitation {what}"));
        let from = invitation.from.parse();
        let from = from.map_err(|_| wrong("names no node"))?;
        let token = match invitation.token.as_str() {
            "" => None,
            token => {
                let octets = data_encoding::HEXLOWER.decode(token.as_bytes()).ok();
                let token = octets.and_then(|octets| octets.try_into().ok());
                Some(token.ok_or_else(|| wrong("holds no token"))?)
            }
        };
        let (mut servers, membership, open) = match &invitation.ticket {
            Some(text) => {
                let ticket: Ticket = text.parse().map_err(|_| wrong("holds no ticket"))?;
                (
                    servers(&ticket),
                    Membership::Ticket(Box::new(ticket)),
                    false,
                )
            }
            None => {
                let cluster = invitation.cluster.parse();
                let cluster = cluster.map_err(|_| wrong("names no cluster"))?;
                (invitation.servers.clone(), Membership::Open(cluster), true)
            }
        };
        // the address at which the other side was found is one that works
        servers.sort_by_key(|server| {
            let at = crate::net::host_port(server).parse::<SocketAddr>();
            !at.is_ok_and(|at| found_at.is_some_and(|found| at.ip() == found.ip()))
        });
        Ok(Entrance {
            servers,
            membership,
            from,
            token,
            memory: None,
            open,
        })
    }

    /// Forgets an invitation that is of no use any more.
    pub(crate) fn forget(&self) {
        if let Some(memory) = &self.memory {
            memory.forget();
        }
    }

    /// A node that goes there.
    ///
    /// # Errors
    /// When the key of this node can't be used.
    pub(crate) fn node(&self, settings: &Settings) -> Outcome<NodeSettings> {
        let mut node = NodeSettings::new(settings, self.servers.clone())?;
        if !self.open && node.who.is_open() {
            // better than what was asked for
            node.who = Who::Passing;
        }
        Ok(node)
    }
}

/// The servers of a ticket, as nodes are told of them.
pub(crate) fn servers(ticket: &Ticket) -> Vec<String> {
    let key = ticket.server_key().to_string();
    let servers = ticket.servers().iter();
    servers
        .map(|at| server_url(&key, &at.to_string()))
        .collect()
}

/// What shows the sender of a transfer that somebody has its ticket: all that who has only the
/// ticket can show. Members who joined with another one can't.
pub(crate) fn token(ticket: &Ticket) -> [u8; TOKEN_LEN] {
    let full = blake3::derive_key("vmdt transfer 1 token", ticket.secret().seed());
    let mut token = [0; TOKEN_LEN];
    for (to, from) in token.iter_mut().zip(full) {
        *to = from;
    }
    token
}
