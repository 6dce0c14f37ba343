//! How two people who share a short code come to share a ticket.
//!
//! The sender listens on TCP; the receiver finds it by the code's number on the local network
//! ([`discovery`]), or at the addresses of a ticket line. Both run SPAKE2 with the whole code as
//! password over that connection, and the sender passes on an [`Invitation`] under the key that
//! comes out. Whoever does not know the code learns nothing and has one guess: a wrong one makes
//! the code void, and the sender shows another.

pub(crate) mod discovery;
pub(crate) mod entrance;
pub(crate) mod frames;
pub(crate) mod joiner;
pub(crate) mod online;
pub(crate) mod opener;

use std::net::SocketAddr;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use vmdt_seal::code::Code;

use crate::failure::{Exit, Failure, Outcome};

/// What a ticket line begins with.
const TICKET_MARK: &str = "vmdtx1";
/// The most addresses in a ticket line.
const MAX_ADDRESSES: usize = 4;
/// Octets of the check at the end of a ticket line.
const CHECK_LEN: usize = 4;

/// What the receiver needs to reach the sender's node. It holds secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// The format of this invitation: 2, or 1 for the open profile.
    pub(crate) version: u32,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// Open profile: servers, `host:port`.
    #[serde(default)]
    pub(crate) servers: Vec<String>,
    /// Open profile: the cluster's id.
    #[serde(default)]
    pub(crate) cluster: String,
    /// The sender's id.
    pub(crate) from: String,
    /// What the receiver shows to be the one that was invited, hexadecimal.
    pub(crate) token: String,
    /// The ticket of the protocol, which names servers and cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ticket: Option<String>,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("version", &self.version)
            .field("purpose", &self.purpose)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// What somebody is invited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Purpose {
    Transfer,
    Chat,
}

impl Invitation {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // a struct of texts and numbers always has a JSON form
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn decode(octets: &[u8], purpose: Purpose) -> Outcome<Invitation> {
        let invitation: Invitation = serde_json::from_slice(octets).map_err(|_| {
            Failure::new(
                Exit::Corrupt,
                "the other side speaks another version of this program",
            )
        })?;
        // each version says where its cluster is in one way only
        let known = match invitation.version {
            1 => invitation.ticket.is_none(),
            2 => invitation.ticket.is_some(),
            _ => false,
        };
        if !known {
            return Err(Failure::new(
                Exit::Corrupt,
                "the other side speaks a newer version of this program",
            )
            .hint("update vmdt here"));
        }
        if invitation.purpose != purpose {
            let (what, command) = match invitation.purpose {
                Purpose::Transfer => ("files", "vmdt recv"),
                Purpose::Chat => ("a chat", "vmdt chat"),
            };
            return Err(Failure::usage(format!("this code is for {what}"))
                .hint(format!("use `{command}` with it")));
        }
        Ok(invitation)
    }
}

/// What a person was given: a code, or a line with a code and addresses.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) code: Code,
    /// Where the sender listens; empty when it has to be found.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Key {
    /// The line that holds everything.
    pub(crate) fn ticket(&self) -> String {
        let mut octets = Vec::new();
        let addresses = self.addresses.iter().take(MAX_ADDRESSES);
        octets.push(addresses.len() as u8);
        for address in addresses {
            match address {
                SocketAddr::V4(v4) => {
                    octets.push(4);
                    octets.extend(v4.ip().octets());
                }
                SocketAddr::V6(v6) => {
                    octets.push(6);
                    octets.extend(v6.ip().octets());
                }
            }
            octets.extend(address.port().to_be_bytes());
        }
        octets.extend(self.code.to_string().as_bytes());
        octets.extend(check(&octets));
        format!(
            "{TICKET_MARK}{}",
            BASE32_NOPAD.encode(&octets).to_ascii_lowercase()
        )
    }

    fn parse_ticket(body: &str) -> Option<Key> {
        let octets = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .ok()?;
        let (octets, found) = octets.split_at_checked(octets.len().checked_sub(CHECK_LEN)?)?;
        if found != check(octets) {
            return None;
        }
        let (&count, mut rest) = octets.split_first()?;
        if usize::from(count) > MAX_ADDRESSES {
            return None;
        }
        let mut addresses = Vec::new();
        for _ in 0..count {
            let (&family, after) = rest.split_first()?;
            let ip: std::net::IpAddr;
            let after = match family {
                4 => {
                    let (octets, after) = after.split_first_chunk::<4>()?;
                    ip = (*octets).into();
                    after
                }
                6 => {
                    let (octets, after) = after.split_first_chunk::<16>()?;
                    ip = (*octets).into();
                    after
                }
                _ => return None,
            };
            let (port, after) = after.split_first_chunk::<2>()?;
            addresses.push(SocketAddr::new(ip, u16::from_be_bytes(*port)));
            rest = after;
        }
        let code = std::str::from_utf8(rest).ok()?.parse().ok()?;
        Some(Key { code, addresses })
    }
}

/// The check of a ticket line: it finds slips of the pen, it protects nothing.
fn check(octets: &[u8]) -> [u8; CHECK_LEN] {
    let digest = blake3::derive_key("vmdt ticket line 1 check", octets);
    let mut check = [0; CHECK_LEN];
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}

impl FromStr for Key {
    type Err = Failure;

    fn from_str(text: &str) -> Outcome<Key> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        if let Some(body) = lower.strip_prefix(TICKET_MARK) {
            return Key::parse_ticket(body).ok_or_else(|| {
                Failure::new(
                    Exit::WrongCode,
                    "the ticket is damaged: some of it is missing or changed",
                )
                .hint("copy the whole line that `vmdt send` shows")
            });
        }
        match text.parse::<Code>() {
            Ok(code) => Ok(Key {
                code,
                addresses: Vec::new(),
            }),
            Err(_) => Err(Failure::new(
                Exit::WrongCode,
                format!("{text:?} is not a code such as 7-crossover-clockwork, and no ticket"),
            )
            .hint("type the code that `vmdt send` shows, with its number and both words")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code {
        use rand_core::SeedableRng as _;
        Code::generate(7, &mut rand_chacha::ChaCha20Rng::from_seed([3; 32])).unwrap()
    }

    #[test]
    fn a_ticket_line_holds_code_and_addresses_and_finds_slips() {
        let addresses = vec![
            "192.168.1.9:4242".parse().unwrap(),
            "[2001:db8::1]:99".parse().unwrap(),
        ];
        let key = Key {
            code: code(),
            addresses: addresses.clone(),
        };
        let line = key.ticket();
        assert!(line.len() < 130, "{line}");
        for text in [line.clone(), format!("  {}\n", line.to_ascii_uppercase())] {
            let read: Key = text.parse().unwrap();
            assert_eq!(
                (read.code.to_string(), &read.addresses),
                (key.code.to_string(), &addresses)
            );
        }
        for at in TICKET_MARK.len()..line.len() {
            let mut changed = line.clone().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            let error = String::from_utf8(changed)
                .unwrap()
                .parse::<Key>()
                .unwrap_err();
            assert_eq!(error.exit, Exit::WrongCode);
        }
        assert!(line[..line.len() - 1].parse::<Key>().is_err());
        assert!("vmdtx1".parse::<Key>().is_err());
    }

    #[test]
    fn what_is_no_code_is_told_so() {
        for text in ["", "7", "hello", "7-notaword-atall"] {
            assert_eq!(
                text.parse::<Key>().unwrap_err().exit,
                Exit::WrongCode,
                "{text}"
            );
        }
        let text = code().to_string();
        assert_eq!(text.parse::<Key>().unwrap().code.to_string(), text);
    }

    #[test]
    fn an_invitation_of_another_purpose_is_refused_with_the_right_command() {
        let invitation = Invitation {
            version: 1,
            purpose: Purpose::Chat,
            servers: vec!["127.0.0.1:1".into()],
            cluster: "c".into(),
            from: "n".into(),
            token: String::new(),
            ticket: None,
        };
        assert_eq!(
            Invitation::decode(&invitation.encode(), Purpose::Chat).unwrap(),
            invitation
        );
        let error = Invitation::decode(&invitation.encode(), Purpose::Transfer).unwrap_err();
        assert!(error.hint.unwrap().contains("vmdt chat"));
        assert!(Invitation::decode(b"{}", Purpose::Chat).is_err());
        // without a ticket it is one of the open profile, and says so
        let sealed = Invitation {
            version: 2,
            ..invitation
        };
        assert!(Invitation::decode(&sealed.encode(), Purpose::Chat).is_err());
        assert!(!format!("{sealed:?}").contains("127.0.0.1"));
    }
}
