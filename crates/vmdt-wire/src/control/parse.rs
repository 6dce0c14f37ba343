//! From a line to a message.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};

use super::params::{Param, Params};
use super::{
    Caps, ClusterEntry, ClusterInfo, ClusterOptions, ContentType, ErrorCode, Excerpt, Framing,
    Line, LineError, LineErrorKind, MAX_BINARY, MAX_CODE_NUMBER, MAX_DETAILS, MAX_PARAMETERS,
    MAX_SHARES, MemberState, Message, Opaque, SLASH_START, ShareEntry, SharePoolAdd,
};
use crate::id::NodeId;

/// What stands between the start of slash form and the message type.
const PROTOCOL: &str = "TCP/1.0";

const CONTENT_WORDS: &str = "TEXT FILE STREAM, or a share";
const ENTRY_LAYOUT: &str = "index:base64 or index:holder:digest";

/// The largest index of an inline share, which counts from 0.
pub(super) const MAX_INLINE_INDEX: u16 = 254;

/// Octets of a share's digest in an announcement.
const DIGEST_LEN: usize = 16;

pub(super) fn line(line: &[u8]) -> Result<Line, LineError> {
    let (text, offset) = content(line)?;
    let framing = Framing::of(text.as_bytes());
    let (word, rest, offset) = match framing {
        Framing::Bar => split_type(text, offset, framing),
        Framing::Slash => slash_type(text, offset)?,
    };
    let mut params = Params::new(framing, rest, offset + word.len());
    let rest_of_line = framing == Framing::Bar && word == "SEND_MESSAGE";
    let tag = if rest_of_line {
        None
    } else {
        if let Some(found) = params.more_than(MAX_PARAMETERS) {
            let kind = LineErrorKind::TooMany {
                found,
                allowed: MAX_PARAMETERS,
            };
            return Err(LineError {
                kind,
                field: "parameters",
                offset: offset + word.len(),
            });
        }
        params.take_tag()?
    };
    let message = message(word, offset, framing, &mut params)?;
    params.end()?;
    Ok(Line {
        framing,
        tag,
        message,
    })
}

/// The line without its line end and the blanks around it, and where that starts.
fn content(line: &[u8]) -> Result<(&str, usize), LineError> {
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let end = line
        .iter()
        .rposition(|octet| !blank(octet) && *octet != b'\r')
        .map_or(0, |last| last + 1);
    let line = line.get(..end).unwrap_or_default();
    let start = line.iter().position(|octet| !blank(octet));
    let Some(start) = start else {
        return Err(LineError {
            kind: LineErrorKind::Blank,
            field: "line",
            offset: 0,
        });
    };
    let line = line.get(start..).unwrap_or_default();
    let bad = |octet: &u8| matches!(octet, 0 | b'\n' | b'\r');
    // Without an early end the loop takes many octets at once.
    if line.iter().fold(false, |found, octet| found | bad(octet))
        && let Some(at) = line.iter().position(bad)
    {
        let octet = line.get(at).copied().unwrap_or_default();
        return Err(LineError {
            kind: LineErrorKind::BadOctet { octet },
            field: "line",
            offset: start + at,
        });
    }
    match core::str::from_utf8(line) {
        Ok(text) => Ok((text, start)),
        Err(error) => {
            let offset = start + error.valid_up_to();
            Err(LineError {
                kind: LineErrorKind::BadUtf8,
                field: "line",
                offset,
            })
        }
    }
}

/// The message type and what follows it, and where the type starts.
fn split_type(text: &str, offset: usize, framing: Framing) -> (&str, &str, usize) {
    let separator = framing.separator();
    let end = text.bytes().position(|octet| octet == separator);
    let end = end.unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (word, rest, offset)
}

/// Reads `VMDT/TCP/1.0/` before splitting the type off.
fn slash_type(text: &str, offset: usize) -> Result<(&str, &str, usize), LineError> {
    let start = text
        .strip_prefix(SLASH_START)
        .and_then(|rest| rest.strip_prefix(PROTOCOL));
    let version_at = offset + SLASH_START.len();
    let after = match start {
        Some("") => {
            let offset = version_at + PROTOCOL.len();
            return Err(LineError {
                kind: LineErrorKind::Missing,
                field: "message type",
                offset,
            });
        }
        Some(after) => after.strip_prefix('/'),
        None => None,
    };
    let Some(after) = after else {
        let found = Excerpt::of(text.get(SLASH_START.len()..).unwrap_or_default());
        let kind = LineErrorKind::BadVersion { found };
        return Err(LineError {
            kind,
            field: "version",
            offset: version_at,
        });
    };
    Ok(split_type(
        after,
        version_at + PROTOCOL.len() + 1,
        Framing::Slash,
    ))
}

fn message(
    word: &str,
    offset: usize,
    framing: Framing,
    params: &mut Params<'_>,
) -> Result<Message, LineError> {
    Ok(match word {
        "CREATE_CLUSTER" => Message::CreateCluster {
            client: params.required("client")?.id()?,
            n: number(params, "n")?,
            k: number(params, "k")?,
            options: params
                .optional("options")?
                .map(|param| options(&param))
                .transpose()?,
        },
        "JOIN_CLUSTER" => Message::JoinCluster {
            client: params.required("client")?.id()?,
            cluster: params.required("cluster")?.id()?,
        },
        "LEAVE_CLUSTER" => Message::LeaveCluster {
            client: params.required("client")?.id()?,
            cluster: params
                .optional("cluster")?
                .map(|param| param.id())
                .transpose()?,
        },
        "LIST_CLUSTERS" => Message::ListClusters {
            client: params.required("client")?.id()?,
            after: params
                .optional("after")?
                .map(|param| param.id())
                .transpose()?,
        },
        "GET_CLUSTER_MEMBERS" => Message::GetClusterMembers {
            client: params.required("client")?.id()?,
            cluster: params
                .optional("cluster")?
                .map(|param| param.id())
                .transpose()?,
        },
        "REGISTER_P2P_PORT" => Message::RegisterP2pPort {
            client: params.required("client")?.id()?,
            port: number(params, "port")?,
            caps: caps(params)?,
        },
        "GET_CLIENT_INFO" => Message::GetClientInfo {
            client: params.required("client")?.id()?,
            target: params.required("target")?.id()?,
        },
        "SEND_MESSAGE" => Message::SendMessage {
            client: params.required("client")?.id()?,
            target: params.required("target")?.id()?,
            text: match framing {
                Framing::Bar => params.rest_of_line("text")?.into_string(),
                Framing::Slash => params.required("text")?.into_string(),
            },
        },
        "MESSAGE_SHARE" => Message::MessageShare {
            from: params.required("from")?.id()?,
            to: params.required("to")?.id()?,
            target: params.required("target")?.id()?,
            index: number(params, "index")?,
            data: params.required("data")?.into_string(),
        },
        "MESSAGE_RECEIVED" => Message::MessageReceived {
            message: params.required("message")?.id()?,
        },
        "SHARE_POOL_ADD" => Message::SharePoolAdd(share_pool_add(params)?),
        "SHARE_POOL_CLAIM" => Message::SharePoolClaim {
            message: params.required("message")?.id()?,
            claimer: params.required("claimer")?.id()?,
            index: number(params, "index")?,
        },
        "SHARE_POOL_ACK" => Message::SharePoolAck {
            message: params.required("message")?.id()?,
            receiver: params.required("receiver")?.id()?,
        },
        "SHARE_POOL_STORED" => Message::SharePoolStored {
            message: params.required("message")?.id()?,
            holder: params.required("holder")?.id()?,
            index: number(params, "index")?,
        },
        "SHARE_POOL_UNFREEZE" => Message::SharePoolUnfreeze {
            message: params.required("message")?.id()?,
            index: number(params, "index")?,
        },
        "SHARE_POOL_REMOVE" => Message::SharePoolRemove {
            message: params.required("message")?.id()?,
        },
        "CLUSTER_READY" => Message::ClusterReady {
            cluster: params.required("cluster")?.id()?,
        },
        "ERROR" => error(framing, params)?,
        "OK" => Message::Ok {
            text: params.optional("text")?.map(Param::into_string),
        },
        "CLUSTER_CREATED" => Message::ClusterCreated {
            cluster: params.required("cluster")?.id()?,
            info: cluster_info(params)?,
        },
        "CLUSTER_JOINED" => Message::ClusterJoined {
            cluster: params.required("cluster")?.id()?,
            info: cluster_info(params)?,
        },
        "CLUSTER_LIST" => Message::ClusterList {
            clusters: list(params, "cluster entry", cluster_entry)?,
        },
        "CLUSTER_MEMBERS" => Message::ClusterMembers {
            members: list(params, "member", |param| param.id())?,
        },
        "CLIENT_INFO" => {
            let ip = params.required("ip")?;
            Message::ClientInfo {
                ip: ip
                    .text
                    .parse::<IpAddr>()
                    .map_err(|_| bad_address(&ip, "an IP address"))?,
                port: number(params, "port")?,
                caps: caps(params)?,
            }
        }
        "MEMBER" => Message::Member {
            cluster: params.required("cluster")?.id()?,
            id: params.required("member")?.id()?,
            state: params.required("state")?.word(
                &MemberState::ALL,
                MemberState::as_str,
                "joined back away left",
            )?,
            address: address(params)?,
            caps: caps(params)?,
        },
        _ => match sealed(word, params)? {
            Some(message) => message,
            None => {
                let kind = LineErrorKind::UnknownType {
                    found: Excerpt::of(word),
                };
                return Err(LineError {
                    kind,
                    field: "message type",
                    offset,
                });
            }
        },
    })
}

/// What profile 1.1 adds; `None` if the word is not one of its types.
fn sealed(word: &str, params: &mut Params<'_>) -> Result<Option<Message>, LineError> {
    Ok(Some(match word {
        "PUT_PROFILE" => Message::PutProfile {
            client: params.required("client")?.id()?,
            profile: binary(params, "profile")?,
        },
        "GET_PROFILE" => Message::GetProfile {
            client: params.required("client")?.id()?,
            target: params.required("target")?.id()?,
        },
        "RECEIPTS" => Message::Receipts {
            receipts: binary(params, "receipts")?,
        },
        "EXPRESS_OPEN" => Message::ExpressOpen {
            opening: binary(params, "opening")?,
        },
        "EXPRESS_OK" => Message::ExpressOk {
            id: params.required("id")?.wide_number()?,
        },
        "SHARE_REPAIR" => Message::ShareRepair {
            repair: Opaque(binary(params, "repair")?),
        },
        "PROFILE" => Message::Profile {
            id: params.required("id")?.id()?,
            profile: binary(params, "profile")?,
        },
        "CREATE_SEALED" => Message::CreateSealed {
            client: params.required("client")?.id()?,
            descriptor: binary(params, "descriptor")?,
            membership: binary(params, "membership")?,
        },
        "GET_DESCRIPTOR" => Message::GetDescriptor {
            client: params.required("client")?.id()?,
            cluster: params.required("cluster")?.id()?,
        },
        "DESCRIPTOR" => Message::Descriptor {
            cluster: params.required("cluster")?.id()?,
            descriptor: binary(params, "descriptor")?,
        },
        "JOIN_SEALED" => Message::JoinSealed {
            client: params.required("client")?.id()?,
            cluster: params.required("cluster")?.id()?,
            membership: binary(params, "membership")?,
        },
        "GET_MEMBERSHIP" => Message::GetMembership {
            client: params.required("client")?.id()?,
            cluster: params.required("cluster")?.id()?,
            target: params.required("target")?.id()?,
        },
        "MEMBERSHIP" => Message::Membership {
            cluster: params.required("cluster")?.id()?,
            id: params.required("id")?.id()?,
            membership: binary(params, "membership")?,
        },
        "REVOKE" => Message::Revoke {
            client: params.required("client")?.id()?,
            cluster: params.required("cluster")?.id()?,
            list: binary(params, "list")?,
        },
        "REVOKED" => Message::Revoked {
            cluster: params.required("cluster")?.id()?,
            list: binary(params, "list")?,
        },
        "CODE_OPEN" => Message::CodeOpen {
            client: params.required("client")?.id()?,
        },
        "CODE" => Message::Code {
            number: code_number(params)?,
        },
        "CODE_JOIN" => Message::CodeJoin {
            client: params.required("client")?.id()?,
            number: code_number(params)?,
        },
        // The number of parameters tells whether the client is among them: a number is an id too.
        "CODE_PASS" => Message::CodePass {
            client: client_of(params, 3)?,
            number: code_number(params)?,
            data: binary(params, "data")?,
        },
        "CODE_CLOSE" => Message::CodeClose {
            client: client_of(params, 2)?,
            number: code_number(params)?,
        },
        _ => return Ok(None),
    }))
}

fn client_of(params: &mut Params<'_>, with_client: usize) -> Result<Option<NodeId>, LineError> {
    if params.count() < with_client {
        return Ok(None);
    }
    params.required("client")?.id().map(Some)
}

fn code_number(params: &mut Params<'_>) -> Result<u16, LineError> {
    params.required("number")?.number(1, MAX_CODE_NUMBER)
}

fn binary(params: &mut Params<'_>, field: &'static str) -> Result<Vec<u8>, LineError> {
    params.required(field)?.binary(MAX_BINARY)
}

fn number(params: &mut Params<'_>, field: &'static str) -> Result<u16, LineError> {
    params.required(field)?.number(0, u16::MAX)
}

fn caps(params: &mut Params<'_>) -> Result<Option<Caps>, LineError> {
    Ok(params
        .optional("caps")?
        .map(|param| Caps::read(&param.text)))
}

/// `key=value` pairs with commas between; unknown keys are skipped, the last of a kind counts.
fn options(param: &Param<'_>) -> Result<ClusterOptions, LineError> {
    let mut options = ClusterOptions::default();
    for pair in param.text.split(',') {
        match pair.split_once('=') {
            Some(("open", value)) => options.open_peers = flag(&param.part(value, "open"))?,
            Some(("max", value)) => {
                options.max_members = Some(param.part(value, "max").number(0, u16::MAX)?);
            }
            _ => {}
        }
    }
    Ok(options)
}

fn flag(param: &Param<'_>) -> Result<bool, LineError> {
    param.word(&[false, true], |value| if value { "1" } else { "0" }, "0 1")
}

fn cluster_info(params: &mut Params<'_>) -> Result<Option<ClusterInfo>, LineError> {
    let Some(n) = params.optional("n")? else {
        return Ok(None);
    };
    Ok(Some(ClusterInfo {
        n: n.number(0, u16::MAX)?,
        k: number(params, "k")?,
        options: options(&params.required("options")?)?,
    }))
}

/// Entries up to the line's end. Their number was bounded with that of all parameters.
fn list<T>(
    params: &mut Params<'_>,
    field: &'static str,
    entry: impl Fn(&Param<'_>) -> Result<T, LineError>,
) -> Result<Vec<T>, LineError> {
    let mut entries = Vec::new();
    while let Some(param) = params.entry(field)? {
        entries.push(entry(&param)?);
    }
    Ok(entries)
}

fn cluster_entry(param: &Param<'_>) -> Result<ClusterEntry, LineError> {
    let mut parts = param.text.split(':');
    let (Some(cluster), Some(creator), Some(n), Some(k), Some(members), Some(active), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        let found = param.text.split(':').count();
        let needed = "id:creator:n:k:members:active";
        return Err(param.error(LineErrorKind::BadEntry { found, needed }));
    };
    Ok(ClusterEntry {
        cluster: param.part(cluster, "cluster").id()?,
        creator: param.part(creator, "creator").id()?,
        n: param.part(n, "n").number(0, u16::MAX)?,
        k: param.part(k, "k").number(0, u16::MAX)?,
        members: param.part(members, "members").number(0, u16::MAX)?,
        active: flag(&param.part(active, "active"))?,
    })
}

/// `-` stands for an address that is not known, so that capabilities can follow.
fn address(params: &mut Params<'_>) -> Result<Option<SocketAddr>, LineError> {
    match params.optional("address")? {
        Some(param) if param.text != "-" => param
            .text
            .parse()
            .map(Some)
            .map_err(|_| bad_address(&param, "an IP address and port")),
        _ => Ok(None),
    }
}

fn bad_address(param: &Param<'_>, needed: &'static str) -> LineError {
    param.error(LineErrorKind::BadAddress {
        found: param.excerpt(),
        needed,
    })
}

fn error(framing: Framing, params: &mut Params<'_>) -> Result<Message, LineError> {
    let first = params.required("text")?;
    let second = match framing {
        Framing::Bar => None,
        Framing::Slash => params.optional("text")?,
    };
    let Some(second) = second else {
        let (code, text) = split_code(&first.text);
        return Ok(Message::Error {
            code,
            text: String::from(text),
            about: None,
        });
    };
    Ok(Message::Error {
        code: first.text.parse().unwrap_or(ErrorCode::Other),
        text: second.into_string(),
        about: params
            .optional("message")?
            .map(|param| param.id())
            .transpose()?,
    })
}

/// Splits `code: text`. Without a known code the whole is text, as 1.0 servers write it.
fn split_code(text: &str) -> (ErrorCode, &str) {
    let Some((word, sentence)) = text.split_once(':') else {
        return (ErrorCode::Other, text);
    };
    match word.parse() {
        Ok(code) => (code, sentence.strip_prefix(' ').unwrap_or(sentence)),
        Err(_) => (ErrorCode::Other, text),
    }
}

/// Which of the parameters that profile 1.1 adds to SHARE_POOL_ADD may come next.
#[derive(Clone, Copy)]
enum Addition {
    Version,
    Details,
    Done,
}

fn share_pool_add(params: &mut Params<'_>) -> Result<SharePoolAdd, LineError> {
    let mut add = SharePoolAdd {
        message: params.required("message")?.id()?,
        sender: params.required("sender")?.id()?,
        receiver: params.required("receiver")?.id()?,
        total: number(params, "total")?,
        active: number(params, "active")?,
        content: ContentType::Text,
        filename: String::new(),
        version: 0,
        details: Vec::new(),
        shares: Vec::new(),
    };
    let Some(first) = params.entry("content")? else {
        return Ok(add);
    };
    // Old 1.0 software goes straight on with the shares; no content word holds a colon.
    if first.text.contains(':') {
        add.shares.push(share_entry(&Param {
            field: "share",
            ..first
        })?);
    } else {
        add.content = first.word(&ContentType::ALL, ContentType::as_str, CONTENT_WORDS)?;
        if let Some(filename) = params.optional("filename")? {
            add.filename = filename.into_string();
        }
    }
    let mut found = add.shares.len() + params.count();
    // What profile 1.1 adds stands before the shares, none of which has an equals sign there.
    let mut next = if add.shares.is_empty() {
        Addition::Version
    } else {
        Addition::Done
    };
    while let Some(param) = params.entry("share")? {
        match (next, param.text.split_at_checked(2)) {
            (Addition::Version, Some(("v=", version))) => {
                add.version = param.part(version, "version").wide_number()?;
                (next, found) = (Addition::Details, found - 1);
                continue;
            }
            (Addition::Version | Addition::Details, Some(("d=", details))) => {
                add.details = param.part(details, "details").binary(MAX_DETAILS)?;
                (next, found) = (Addition::Done, found - 1);
                continue;
            }
            _ => next = Addition::Done,
        }
        if add.shares.len() == MAX_SHARES {
            return Err(param.error(LineErrorKind::TooMany {
                found,
                allowed: MAX_SHARES,
            }));
        }
        add.shares.push(share_entry(&param)?);
    }
    Ok(add)
}

fn share_entry(param: &Param<'_>) -> Result<ShareEntry, LineError> {
    let mut parts = param.text.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(index), Some(share), None, _) => Ok(ShareEntry::Inline {
            index: param
                .part(index, "share index")
                .number(0, MAX_INLINE_INDEX)?,
            share: base64(share)
                .ok_or_else(|| param.part(share, "share").error(LineErrorKind::BadBase64))?,
        }),
        (Some(index), Some(holder), Some(digest), None) => Ok(ShareEntry::Placed {
            index: param
                .part(index, "share index")
                .number(1, u16::from(u8::MAX))?,
            holder: param.part(holder, "holder").id::<NodeId>()?,
            digest: base64url_digest(&param.part(digest, "digest"))?,
        }),
        _ => {
            let found = param.text.split(':').count();
            Err(param.error(LineErrorKind::BadEntry {
                found,
                needed: ENTRY_LAYOUT,
            }))
        }
    }
}

/// Base64 as deployed 1.0 software writes and reads it: padding may be missing, and the bits of
/// the last character that carry nothing may be anything.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text
        .strip_suffix("==")
        .or_else(|| text.strip_suffix('='))
        .unwrap_or(text)
        .as_bytes();
    let (whole, last) = text.split_at_checked(text.len() - text.len() % 4)?;
    let mut octets = BASE64_NOPAD.decode(whole).ok()?;
    // The last group filled up with `A`, which is 0, decodes whatever its spare bits are.
    let kept = match last.len() {
        0 => return Some(octets),
        1 => return None,
        len => len - 1,
    };
    let mut group = *b"AAAA";
    group
        .iter_mut()
        .zip(last)
        .for_each(|(place, &digit)| *place = digit);
    let mut three = [0; 3];
    BASE64_NOPAD.decode_mut(&group, &mut three).ok()?;
    octets.extend_from_slice(three.get(..kept)?);
    Some(octets)
}

fn base64url_digest(param: &Param<'_>) -> Result<[u8; DIGEST_LEN], LineError> {
    let found = param.text.len();
    let needed = BASE64URL_NOPAD.encode_len(DIGEST_LEN);
    if found != needed {
        return Err(param.error(LineErrorKind::BadLength { found, needed }));
    }
    let mut digest = [0; DIGEST_LEN];
    match BASE64URL_NOPAD.decode_mut(param.text.as_bytes(), &mut digest) {
        Ok(_) => Ok(digest),
        Err(_) => Err(param.error(LineErrorKind::BadBase64)),
    }
}
