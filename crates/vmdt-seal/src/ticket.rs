//! Tickets: one line that holds all one needs to join a cluster.

use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;

use data_encoding::BASE32_NOPAD;
use subtle::ConstantTimeEq;
use thiserror::Error;
use vmdt_wire::ClusterId;
use zeroize::Zeroizing;

use crate::codec::{self, Reader};
use crate::descriptor::ClusterHash;
use crate::error::{BuildError, ParseError};
use crate::identity::PublicIdentity;
use crate::invite::{Invite, InviteSecret, InviteTerms, MEMBERSHIP_MAX_LEN, Rights};
use crate::membership::{Membership, MembershipError};
use crate::profile::{at_most, put_address, read_address_of};

/// Server addresses in a ticket, at most.
pub const MAX_SERVERS: usize = 4;
/// The longest host name, in octets.
pub const HOST_MAX_LEN: usize = 253;
/// The longest ticket that is read, in octets of text.
pub const TICKET_MAX_LEN: usize = 8_192;

const PREFIX: &str = "vmdt1";
const CHECK_LEN: usize = 4;

/// Why a text is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin with `vmdt1`.
    #[error("a ticket begins with vmdt1")]
    NotATicket,
    /// It is longer than any ticket.
    #[error("{found} octets, a ticket has at most {TICKET_MAX_LEN}")]
    TooLong {
        /// The length found.
        found: usize,
    },
    /// A character that no ticket has.
    #[error("character {position} does not occur in tickets (a to z and 2 to 7 do)")]
    Character {
        /// Which, counted from 1, blanks left out.
        position: usize,
    },
    /// The check does not fit: a character is wrong, missing or too many.
    #[error("the ticket is incomplete or has a typing error")]
    Checksum,
    /// What it holds is malformed, though its check fits: it is of another version.
    #[error("the ticket's content is malformed: {0}")]
    Parse(#[from] ParseError),
    /// The invite in it is not right.
    #[error("the ticket's invite is not right: {0}")]
    Invite(#[from] MembershipError),
}

/// Where a server is.
///
/// Its text is `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// An IP address.
    Ip(SocketAddr),
    /// A host name, to be looked up.
    Name {
        /// At most 253 octets of `[a-z0-9.-]`.
        host: String,
        /// The port.
        port: u16,
    },
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = BuildError;

    fn from_str(text: &str) -> Result<Self, BuildError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let bad = |reason| BuildError::Value {
            field: "server address",
            reason,
        };
        let (host, port) = text.rsplit_once(':').ok_or(bad("not host:port"))?;
        let port = port.parse().map_err(|_| bad("the port is no number"))?;
        at_most("host name", host.len(), HOST_MAX_LEN)?;
        let host = host.to_ascii_lowercase();
        if is_host(&host) {
            Ok(Self::Name { host, port })
        } else {
            Err(bad("not a host name"))
        }
    }
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

/// The right to join a cluster, and where and how. Who has it can join: its text is a secret.
/// `Debug` hides it, and there is no `Display`.
///
/// The text is `vmdt1` and, in base32 (RFC 4648, lower case, no padding):
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `T`, format 1 |
/// | 1 | number of server addresses, 1 to 4 |
/// | each | 4 or 6, IP address, port; or 1, length of the host name, host name, port |
/// | 32 | server's identity key |
/// | 16 | cluster hash |
/// | 16 | seed of the invite |
/// | 1 + 8 + 4 | the invite's rights, expiry and uses |
/// | 32 | the invite's issuer |
/// | 2 + n | length and the issuer's membership, nothing when the creator issued |
/// | 64 | the invite's signature |
/// | 4 | check: BLAKE3 of all before, context `vmdt 1.1 ticket check`, cut to 4 octets |
///
/// Case and blanks do not matter when it is read.
#[derive(Clone)]
pub struct Ticket {
    servers: Vec<ServerAddress>,
    server_key: PublicIdentity,
    cluster: ClusterId,
    invite: Invite,
    secret: InviteSecret,
}

impl Ticket {
    /// Puts a ticket together.
    ///
    /// # Errors
    /// No server or more than [`MAX_SERVERS`], a host name that is none, or a secret that is not
    /// the invite's.
    pub fn new(
        servers: Vec<ServerAddress>,
        server_key: PublicIdentity,
        invite: Invite,
        secret: InviteSecret,
    ) -> Result<Self, BuildError> {
        at_most("servers", servers.len(), MAX_SERVERS)?;
        let bad = |field, reason| BuildError::Value { field, reason };
        if servers.is_empty() {
            return Err(bad("servers", "none"));
        }
        for server in &servers {
            if let ServerAddress::Name { host, .. } = server {
                at_most("host name", host.len(), HOST_MAX_LEN)?;
                if !is_host(host) {
                    return Err(bad("server address", "not a host name"));
                }
            }
        }
        if secret.key().public() != invite.key() {
            return Err(bad("secret", "not that of the invite"));
        }
        let cluster = invite
            .cluster()
            .id()
            .map_err(|_| bad("cluster", "not a cluster id"))?;
        Ok(Self {
            servers,
            server_key,
            cluster,
            invite,
            secret,
        })
    }

    /// The ticket's text: a secret.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(codec::begin(codec::TICKET, 2_600));
        out.push(u8::try_from(self.servers.len()).unwrap_or(u8::MAX));
        for server in &self.servers {
            match server {
                ServerAddress::Ip(address) => put_address(&mut out, address),
                ServerAddress::Name { host, port } => {
                    out.push(1);
                    codec::put_short(&mut out, host.as_bytes());
                    out.extend_from_slice(&port.to_be_bytes());
                }
            }
        }
        let terms = self.invite.terms();
        let chain = self
            .invite
            .chain()
            .map_or(&[][..], |chain| chain.octets().as_ref());
        out.extend_from_slice(self.server_key.as_octets());
        out.extend_from_slice(&self.invite.cluster().0);
        out.extend_from_slice(self.secret.seed());
        out.push(terms.rights.bits());
        out.extend_from_slice(&terms.expires_ms.to_be_bytes());
        out.extend_from_slice(&terms.max_uses.to_be_bytes());
        out.extend_from_slice(self.invite.issuer().as_octets());
        codec::put_long(&mut out, chain);
        out.extend_from_slice(&self.invite.signature());
        let check = check(&out);
        out.extend_from_slice(&check);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + out.len() * 8 / 5 + 1));
        text.push_str(PREFIX);
        BASE32_NOPAD.encode_append(&out, &mut text);
        text.make_ascii_lowercase();
        text
    }

    fn parse(octets: &[u8]) -> Result<Self, TicketError> {
        let (body, given) = octets
            .split_last_chunk::<CHECK_LEN>()
            .ok_or(TicketError::Checksum)?;
        if !bool::from(check(body).ct_eq(given)) {
            return Err(TicketError::Checksum);
        }
        let mut reader = Reader::new(body);
        reader.head(codec::TICKET)?;
        let at = reader.offset();
        let count = reader.count("servers", MAX_SERVERS)?;
        if count == 0 {
            return Err(ParseError::Value {
                field: "servers",
                offset: at,
                found: 0,
                allowed: "1 to 4",
            }
            .into());
        }
        let mut servers = Vec::with_capacity(count);
        for _ in 0..count {
            servers.push(read_server(&mut reader)?);
        }
        let server_key = reader.key("server key")?;
        let hash = ClusterHash(reader.array("cluster")?);
        let seed = Zeroizing::new(reader.array("invite seed")?);
        let secret = InviteSecret::from_seed(&seed);
        let terms = InviteTerms {
            rights: Rights::from_bits(reader.u8("rights")?),
            expires_ms: reader.u64("expires")?,
            max_uses: reader.u32("uses")?,
        };
        let issuer = reader.key("issuer key")?;
        let chain = reader.long("chain", MEMBERSHIP_MAX_LEN)?;
        let chain = if chain.is_empty() {
            None
        } else {
            Some(Membership::parse(chain)?)
        };
        let signature = reader.signature()?;
        reader.end()?;
        let invite = Invite::from_parts(hash, &secret, terms, issuer, chain, &signature)?;
        let cluster = hash.id().map_err(|_| ParseError::Text {
            field: "cluster",
            offset: 0,
        })?;
        Ok(Self {
            servers,
            server_key,
            cluster,
            invite,
            secret,
        })
    }

    /// Where the server is; 1 to 4 addresses.
    #[must_use]
    pub fn servers(&self) -> &[ServerAddress] {
        &self.servers
    }

    /// The key that the server must have.
    #[must_use]
    pub const fn server_key(&self) -> PublicIdentity {
        self.server_key
    }

    /// The cluster: the descriptor that the server hands out must have this id.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The invite.
    #[must_use]
    pub const fn invite(&self) -> &Invite {
        &self.invite
    }

    /// The invite's secret, for [`Membership::accept`].
    #[must_use]
    pub const fn secret(&self) -> &InviteSecret {
        &self.secret
    }
}

fn read_server(reader: &mut Reader<'_>) -> Result<ServerAddress, ParseError> {
    let offset = reader.offset();
    let kind = reader.u8("address kind")?;
    if kind != 1 {
        return read_address_of(reader, kind, offset, "1, 4 or 6").map(ServerAddress::Ip);
    }
    let (field, offset) = ("host name", reader.offset());
    let host = reader.text(field, HOST_MAX_LEN)?;
    if !is_host(host) {
        return Err(ParseError::Text { field, offset });
    }
    Ok(ServerAddress::Name {
        host: host.to_owned(),
        port: reader.u16("port")?,
    })
}

fn check(octets: &[u8]) -> [u8; CHECK_LEN] {
    let full = blake3::derive_key("vmdt 1.1 ticket check", octets);
    let [a, b, c, d, ..] = full;
    [a, b, c, d]
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > TICKET_MAX_LEN {
            return Err(TicketError::TooLong { found: text.len() });
        }
        let mut upper = Zeroizing::new(String::with_capacity(text.len()));
        upper.extend(
            text.chars()
                .filter(|c| !c.is_whitespace())
                .map(|c| c.to_ascii_uppercase()),
        );
        let encoded = upper.strip_prefix("VMDT1").ok_or(TicketError::NotATicket)?;
        let strange = encoded
            .chars()
            .position(|c| !matches!(c, 'A'..='Z' | '2'..='7'));
        if let Some(at) = strange {
            return Err(TicketError::Character {
                position: PREFIX.len() + at + 1,
            });
        }
        let octets = BASE32_NOPAD
            .decode(encoded.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| TicketError::Checksum)?;
        Self::parse(&octets)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("servers", &self.servers)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}
