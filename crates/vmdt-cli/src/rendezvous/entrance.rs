//! From what a person was given to the cluster where the other side waits.

use std::net::SocketAddr;
use std::str::FromStr;

use super::joiner::{Search, redeem};
use super::{Invitation, Key, Purpose};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::link::{Membership, NodeSettings};
use crate::net::who::Who;
use crate::net::{Peer, Ticket, server_url};
use crate::settings::Settings;
use crate::xfer::wire::TOKEN_LEN;

/// What a ticket of the protocol begins with.
const TICKET_PREFIX: &str = "vmdt1";

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
    /// Whether it is profile 1.0.
    open: bool,
}

impl Given {
    /// Asks the other side for the ticket, where only a code was given.
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
                let (octets, found_at) = redeem(key, search).await?;
                let invitation = Invitation::decode(&octets, purpose)?;
                Entrance::invited(&invitation, found_at)?
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
            open: false,
        }
    }

    fn invited(invitation: &Invitation, found_at: SocketAddr) -> Outcome<Entrance> {
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
            !at.is_ok_and(|at| at.ip() == found_at.ip())
        });
        Ok(Entrance {
            servers,
            membership,
            from,
            token,
            open,
        })
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
