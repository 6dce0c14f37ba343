//! From a message to a line.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding};

use super::params::as_tag;
use super::parse::MAX_INLINE_INDEX;
use super::{
    Caps, ClusterEntry, ClusterInfo, EmitError, Framing, Line, MAX_BINARY, MAX_CODE_NUMBER,
    MAX_DETAILS, MAX_PARAMETERS, MAX_SHARES, Message, ShareEntry, SharePoolAdd,
};
use crate::id::{ClusterId, MessageName, NodeId};

/// Appends the line to `out`, or an unfinished piece of it and an error.
pub(super) fn line(line: &Line, out: &mut Vec<u8>) -> Result<(), EmitError> {
    let mut writer = Writer::new(line.framing, line.message.type_word(), out);
    writer.message(&line.message)?;
    writer.finish(line)
}

/// Writes parameters one after another.
struct Writer<'a> {
    framing: Framing,
    out: &'a mut Vec<u8>,
    count: usize,
    /// Name and start of the last parameter.
    last: (&'static str, usize),
}

impl<'a> Writer<'a> {
    fn new(framing: Framing, word: &'static str, out: &'a mut Vec<u8>) -> Self {
        if framing == Framing::Slash {
            out.extend_from_slice(b"VMDT/TCP/1.0/");
        }
        out.extend_from_slice(word.as_bytes());
        let end = out.len();
        Self {
            framing,
            out,
            count: 0,
            last: (word, end),
        }
    }

    /// Adds the tag and the line end once it is known that the last parameter survives.
    fn finish(mut self, line: &Line) -> Result<(), EmitError> {
        let rest_of_line =
            self.framing == Framing::Bar && matches!(line.message, Message::SendMessage { .. });
        match line.tag {
            Some(_) if rest_of_line => return Err(EmitError::NotCarried { field: "tag" }),
            Some(tag) => {
                self.begin("tag");
                self.out.push(b'~');
                decimal(tag, self.out);
            }
            None if self.framing == Framing::Bar && self.count > 0 => {
                self.check_last(rest_of_line)?
            }
            None => {}
        }
        if self.count > MAX_PARAMETERS {
            return Err(EmitError::TooMany {
                field: "parameters",
                found: self.count,
                allowed: MAX_PARAMETERS,
            });
        }
        self.out.push(b'\n');
        Ok(())
    }

    /// The bar form has no escape for blanks that a parser strips and for what looks like a tag.
    fn check_last(&self, rest_of_line: bool) -> Result<(), EmitError> {
        let (field, start) = self.last;
        let text = self.out.get(start..).unwrap_or_default();
        if let Some(b' ' | b'\t') = text.last() {
            return Err(EmitError::EdgeBlank { field });
        }
        let tag = |text| core::str::from_utf8(text).ok().and_then(as_tag);
        if !rest_of_line && text.starts_with(b"~") && tag(text).is_some() {
            return Err(EmitError::LooksLikeTag { field });
        }
        Ok(())
    }

    fn begin(&mut self, field: &'static str) {
        self.out.push(self.framing.separator());
        self.count += 1;
        self.last = (field, self.out.len());
    }

    /// A parameter that needs no escape in either framing.
    fn plain(&mut self, field: &'static str, value: &str) {
        self.begin(field);
        self.add(value);
    }

    fn add(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, field: &'static str, number: u16) {
        self.begin(field);
        decimal(u32::from(number), self.out);
    }

    /// The same for what is seldom written.
    fn display(&mut self, field: &'static str, value: impl fmt::Display) {
        self.begin(field);
        // Writing to memory does not fail.
        let _ = write!(Octets(self.out), "{value}");
    }

    /// A parameter that may hold anything.
    fn text(&mut self, field: &'static str, text: &str) -> Result<(), EmitError> {
        self.begin(field);
        match self.framing {
            Framing::Bar => self.raw(field, text, true),
            Framing::Slash => {
                escape(text, self.out);
                Ok(())
            }
        }
    }

    fn raw(
        &mut self,
        field: &'static str,
        text: &str,
        bars_separate: bool,
    ) -> Result<(), EmitError> {
        let bad =
            |octet: u8| matches!(octet, 0 | b'\n' | b'\r') || (bars_separate && octet == b'|');
        if let Some((offset, octet)) = text.bytes().enumerate().find(|&(_, octet)| bad(octet)) {
            return Err(EmitError::BadOctet {
                field,
                offset,
                octet,
            });
        }
        self.add(text);
        Ok(())
    }

    fn node(&mut self, field: &'static str, id: &NodeId) -> Result<(), EmitError> {
        check_node(field, id)?;
        self.plain(field, id.as_str());
        Ok(())
    }

    fn name(&mut self, name: &MessageName) -> Result<(), EmitError> {
        if name.is_empty() {
            return Err(EmitError::BadId { field: "message" });
        }
        self.plain("message", name.as_str());
        Ok(())
    }

    fn cluster(&mut self, id: &ClusterId) {
        self.plain("cluster", id.as_str());
    }

    fn caps(&mut self, caps: Option<Caps>) {
        match caps {
            None => {}
            Some(Caps::RDT) => self.plain("caps", "rdt"),
            Some(caps) => self.display("caps", caps),
        }
    }

    fn info(&mut self, info: Option<ClusterInfo>) {
        if let Some(ClusterInfo { n, k, options }) = info {
            self.number("n", n);
            self.number("k", k);
            self.display("options", options);
        }
    }

    fn message(&mut self, message: &Message) -> Result<(), EmitError> {
        match message {
            Message::CreateCluster {
                client,
                n,
                k,
                options,
            } => {
                self.node("client", client)?;
                self.number("n", *n);
                self.number("k", *k);
                if let Some(options) = options {
                    self.display("options", options);
                }
            }
            Message::JoinCluster { client, cluster } => {
                self.node("client", client)?;
                self.cluster(cluster);
            }
            Message::LeaveCluster { client, cluster }
            | Message::GetClusterMembers { client, cluster } => {
                self.node("client", client)?;
                if let Some(cluster) = cluster {
                    self.cluster(cluster);
                }
            }
            Message::ListClusters { client, after } => {
                self.node("client", client)?;
                if let Some(after) = after {
                    self.plain("after", after.as_str());
                }
            }
            Message::RegisterP2pPort { client, port, caps } => {
                self.node("client", client)?;
                self.number("port", *port);
                self.caps(*caps);
            }
            Message::GetClientInfo { client, target } => {
                self.node("client", client)?;
                self.node("target", target)?;
            }
            Message::SendMessage {
                client,
                target,
                text,
            } => {
                self.node("client", client)?;
                self.node("target", target)?;
                self.rest_of_line("text", text)?;
            }
            Message::MessageShare {
                from,
                to,
                target,
                index,
                data,
            } => {
                self.node("from", from)?;
                self.node("to", to)?;
                self.node("target", target)?;
                self.number("index", *index);
                self.text("data", data)?;
            }
            Message::MessageReceived { message } | Message::SharePoolRemove { message } => {
                self.name(message)?;
            }
            Message::SharePoolAdd(add) => self.share_pool_add(add)?,
            Message::SharePoolClaim {
                message,
                claimer,
                index,
            } => {
                self.name(message)?;
                self.node("claimer", claimer)?;
                self.number("index", *index);
            }
            Message::SharePoolStored {
                message,
                holder,
                index,
            } => {
                self.name(message)?;
                self.node("holder", holder)?;
                self.number("index", *index);
            }
            Message::SharePoolAck { message, receiver } => {
                self.name(message)?;
                self.node("receiver", receiver)?;
            }
            Message::SharePoolUnfreeze { message, index } => {
                self.name(message)?;
                self.number("index", *index);
            }
            Message::ClusterReady { cluster } => self.cluster(cluster),
            Message::Error { code, text, about } => match self.framing {
                Framing::Bar if about.is_some() => {
                    return Err(EmitError::NotCarried { field: "about" });
                }
                Framing::Bar => {
                    let blank = if text.is_empty() { "" } else { " " };
                    self.text("text", &format!("{code}:{blank}{text}"))?;
                }
                Framing::Slash => {
                    self.plain("code", code.as_str());
                    self.text("text", text)?;
                    if let Some(about) = about {
                        self.name(about)?;
                    }
                }
            },
            Message::Ok { text } => {
                if let Some(text) = text {
                    self.text("text", text)?;
                }
            }
            Message::ClusterCreated { cluster, info }
            | Message::ClusterJoined { cluster, info } => {
                self.cluster(cluster);
                self.info(*info);
            }
            Message::ClusterList { clusters } => {
                for entry in clusters {
                    self.cluster_entry(entry)?;
                }
            }
            Message::ClusterMembers { members } => {
                for member in members {
                    self.node("member", member)?;
                }
            }
            Message::ClientInfo { ip, port, caps } => {
                self.ip(ip);
                self.number("port", *port);
                self.caps(*caps);
            }
            Message::Member {
                cluster,
                id,
                state,
                address,
                caps,
            } => {
                self.cluster(cluster);
                self.node("member", id)?;
                self.plain("state", state.as_str());
                match address {
                    Some(address) => self.address(address)?,
                    None if caps.is_some() => self.plain("address", "-"),
                    None => {}
                }
                self.caps(*caps);
            }
            sealed => self.sealed(sealed)?,
        }
        Ok(())
    }

    /// What profile 1.1 adds.
    fn sealed(&mut self, message: &Message) -> Result<(), EmitError> {
        match message {
            Message::PutProfile { client, profile } => {
                self.node("client", client)?;
                self.binary("profile", profile)?;
            }
            Message::GetProfile { client, target } => {
                self.node("client", client)?;
                self.node("target", target)?;
            }
            Message::Receipts { receipts } => self.binary("receipts", receipts)?,
            Message::ExpressOpen { opening } => self.binary("opening", opening)?,
            Message::ExpressOk { id } => self.display("id", id),
            Message::ShareRepair { repair } => self.binary("repair", &repair.0)?,
            Message::Profile { id, profile } => {
                self.node("id", id)?;
                self.binary("profile", profile)?;
            }
            Message::CreateSealed {
                client,
                descriptor,
                membership,
            } => {
                self.node("client", client)?;
                self.binary("descriptor", descriptor)?;
                self.binary("membership", membership)?;
            }
            Message::GetDescriptor { client, cluster } => {
                self.node("client", client)?;
                self.cluster(cluster);
            }
            Message::Descriptor {
                cluster,
                descriptor,
            } => {
                self.cluster(cluster);
                self.binary("descriptor", descriptor)?;
            }
            Message::JoinSealed {
                client,
                cluster,
                membership,
            } => {
                self.node("client", client)?;
                self.cluster(cluster);
                self.binary("membership", membership)?;
            }
            Message::GetMembership {
                client,
                cluster,
                target,
            } => {
                self.node("client", client)?;
                self.cluster(cluster);
                self.node("target", target)?;
            }
            Message::Membership {
                cluster,
                id,
                membership,
            } => {
                self.cluster(cluster);
                self.node("id", id)?;
                self.binary("membership", membership)?;
            }
            Message::Revoke {
                client,
                cluster,
                list,
            } => {
                self.node("client", client)?;
                self.cluster(cluster);
                self.binary("list", list)?;
            }
            Message::Revoked { cluster, list } => {
                self.cluster(cluster);
                self.binary("list", list)?;
            }
            Message::CodeOpen { client } => self.node("client", client)?,
            Message::Code { number } => self.code_number(*number)?,
            Message::CodeJoin { client, number } => {
                self.node("client", client)?;
                self.code_number(*number)?;
            }
            Message::CodePass {
                client,
                number,
                data,
            } => {
                if let Some(client) = client {
                    self.node("client", client)?;
                }
                self.code_number(*number)?;
                self.binary("data", data)?;
            }
            Message::CodeClose { client, number } => {
                if let Some(client) = client {
                    self.node("client", client)?;
                }
                self.code_number(*number)?;
            }
            // `message` writes all others.
            _ => {}
        }
        Ok(())
    }

    fn binary(&mut self, field: &'static str, octets: &[u8]) -> Result<(), EmitError> {
        let found = octets.len();
        if found > MAX_BINARY {
            return Err(EmitError::TooMany {
                field,
                found,
                allowed: MAX_BINARY,
            });
        }
        self.begin(field);
        self.encoded(&BASE64URL_NOPAD, octets);
        Ok(())
    }

    fn code_number(&mut self, number: u16) -> Result<(), EmitError> {
        if !(1..=MAX_CODE_NUMBER).contains(&number) {
            return Err(EmitError::OutOfRange {
                field: "number",
                found: u32::from(number),
                min: 1,
                max: u32::from(MAX_CODE_NUMBER),
            });
        }
        self.number("number", number);
        Ok(())
    }

    /// The last parameter of SEND_MESSAGE, which in bar form may hold bars.
    fn rest_of_line(&mut self, field: &'static str, text: &str) -> Result<(), EmitError> {
        match self.framing {
            Framing::Slash => self.text(field, text),
            Framing::Bar => {
                self.begin(field);
                self.raw(field, text, false)
            }
        }
    }

    /// Display leaves the flow label of an IPv6 address out.
    fn address(&mut self, address: &SocketAddr) -> Result<(), EmitError> {
        if matches!(address, SocketAddr::V6(v6) if v6.flowinfo() != 0) {
            return Err(EmitError::NotCarried {
                field: "address flow label",
            });
        }
        if let SocketAddr::V4(v4) = address {
            self.begin("address");
            octets_of(*v4.ip(), self.out);
            self.out.push(b':');
            decimal(u32::from(v4.port()), self.out);
            return Ok(());
        }
        // A scope id is written with a `%`.
        self.text("address", &address.to_string())
    }

    fn cluster_entry(&mut self, entry: &ClusterEntry) -> Result<(), EmitError> {
        let ClusterEntry {
            cluster,
            creator,
            n,
            k,
            members,
            active,
        } = entry;
        check_node("creator", creator)?;
        self.plain("cluster entry", cluster.as_str());
        self.add(":");
        self.add(creator.as_str());
        for number in [*n, *k, *members, u16::from(*active)] {
            self.add(":");
            decimal(u32::from(number), self.out);
        }
        Ok(())
    }

    fn ip(&mut self, ip: &IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                self.begin("ip");
                octets_of(*ip, self.out);
            }
            IpAddr::V6(ip) => self.display("ip", ip),
        }
    }

    /// Appends to the parameter.
    fn encoded(&mut self, encoding: &Encoding, octets: &[u8]) {
        let start = self.out.len();
        self.out
            .resize(start + encoding.encode_len(octets.len()), 0);
        if let Some(place) = self.out.get_mut(start..) {
            encoding.encode_mut(octets, place);
        }
    }

    fn share_pool_add(&mut self, add: &SharePoolAdd) -> Result<(), EmitError> {
        let found = add.shares.len();
        if found > MAX_SHARES {
            return Err(EmitError::TooMany {
                field: "shares",
                found,
                allowed: MAX_SHARES,
            });
        }
        self.name(&add.message)?;
        self.node("sender", &add.sender)?;
        self.node("receiver", &add.receiver)?;
        self.number("total", add.total);
        self.number("active", add.active);
        self.plain("content", add.content.as_str());
        self.text("filename", &add.filename)?;
        if add.version != 0 {
            self.display("version", format_args!("v={}", add.version));
        }
        if !add.details.is_empty() {
            if add.details.len() > MAX_DETAILS {
                return Err(EmitError::TooMany {
                    field: "details",
                    found: add.details.len(),
                    allowed: MAX_DETAILS,
                });
            }
            self.plain("details", "d=");
            self.encoded(&BASE64URL_NOPAD, &add.details);
        }
        for share in &add.shares {
            self.share_entry(share)?;
        }
        Ok(())
    }

    fn share_entry(&mut self, entry: &ShareEntry) -> Result<(), EmitError> {
        match entry {
            ShareEntry::Inline { index, share } => {
                check_index(*index, 0, MAX_INLINE_INDEX)?;
                self.number("share", *index);
                self.add(":");
                match self.framing {
                    Framing::Bar => self.encoded(&BASE64, share),
                    Framing::Slash => escape(&BASE64.encode(share), self.out),
                }
            }
            ShareEntry::Placed {
                index,
                holder,
                digest,
            } => {
                check_index(*index, 1, u16::from(u8::MAX))?;
                check_node("holder", holder)?;
                self.number("share", *index);
                for text in [":", holder.as_str(), ":"] {
                    self.add(text);
                }
                self.encoded(&BASE64URL_NOPAD, digest);
            }
        }
        Ok(())
    }
}

fn check_node(field: &'static str, id: &NodeId) -> Result<(), EmitError> {
    if id.is_plain() {
        Ok(())
    } else {
        Err(EmitError::BadId { field })
    }
}

fn check_index(index: u16, min: u16, max: u16) -> Result<(), EmitError> {
    if (min..=max).contains(&index) {
        return Ok(());
    }
    Err(EmitError::OutOfRange {
        field: "share index",
        found: u32::from(index),
        min: u32::from(min),
        max: u32::from(max),
    })
}

/// Escapes a slash parameter: `%`, `/`, control octets, and at its edges what a parser would
/// take for a blank around the line or for a tag.
fn escape(text: &str, out: &mut Vec<u8>) {
    let last = text.len().wrapping_sub(1);
    out.reserve(text.len());
    let mut written = 0;
    let octets = text.as_bytes();
    for (at, &octet) in octets.iter().enumerate() {
        let escaped = match octet {
            b'%' | b'/' | 0..0x20 => true,
            b' ' => at == 0 || at == last,
            b'~' => at == 0,
            _ => false,
        };
        if escaped {
            out.extend_from_slice(octets.get(written..at).unwrap_or_default());
            out.push(b'%');
            out.push(hex(octet >> 4));
            out.push(hex(octet & 0xf));
            written = at + 1;
        }
    }
    out.extend_from_slice(octets.get(written..).unwrap_or_default());
}

/// The hexadecimal digit of a number below 16.
fn hex(nibble: u8) -> u8 {
    let first = if nibble < 10 { b'0' } else { b'A' - 10 };
    first + nibble
}

/// Memory to which formatted text is appended.
struct Octets<'a>(&'a mut Vec<u8>);

impl fmt::Write for Octets<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn decimal(mut number: u32, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let mut len = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        len += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - len..).unwrap_or_default());
}

fn octets_of(ip: Ipv4Addr, out: &mut Vec<u8>) {
    let mut separator = false;
    for octet in ip.octets() {
        if core::mem::replace(&mut separator, true) {
            out.push(b'.');
        }
        decimal(u32::from(octet), out);
    }
}
