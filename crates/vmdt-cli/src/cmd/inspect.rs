//! `vmdt inspect`: what is public about shares, datagrams, captures and control lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::json;
use vmdt_wire::compact;
use vmdt_wire::segment::{Ack, Fin, Nak, Syn};
use vmdt_wire::{HEADER_LEN, Header, Line, NodeId, Packet, PacketType};

use super::capture::{Capture, Found};
use crate::cli::InspectArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::Out;
use crate::text::{hex, printable};

/// The most octets of a capture or of standard input that are read.
const MAX_INPUT: u64 = 256 << 20;
/// Octets that tell what a file is.
const PEEK: usize = 4096;
/// Octets of a payload that are shown.
const SHOWN: usize = 32;

/// Tells about every file.
///
/// # Errors
/// The first that is nothing of ours.
pub(crate) fn run(args: &InspectArgs, out: &Out) -> Outcome<()> {
    for path in &args.files {
        if path.as_os_str() == "-" {
            let octets = all(std::io::stdin().lock(), Path::new("standard input"))?;
            if !tell(&octets, out)? {
                return Err(unknown("standard input"));
            }
            continue;
        }
        let file = File::open(path).map_err(|e| Failure::disk(&e, "reading", path))?;
        let mut head = Vec::new();
        (&file)
            .take(PEEK as u64)
            .read_to_end(&mut head)
            .map_err(|e| Failure::disk(&e, "reading", path))?;
        if kind(&head) == Kind::Unknown {
            crate::shares::run_inspect(std::slice::from_ref(path), out)?;
        } else {
            let file = File::open(path).map_err(|e| Failure::disk(&e, "reading", path))?;
            tell(&all(file, path)?, out)?;
        }
    }
    Ok(())
}

fn unknown(what: &str) -> Failure {
    Failure::new(
        Exit::Corrupt,
        format!("{what} is neither datagram, capture nor control lines"),
    )
    .hint("a datagram may be raw or hexadecimal, a capture has the format of pcap or pcapng")
}

fn all(from: impl std::io::Read, path: &Path) -> Outcome<Vec<u8>> {
    let mut octets = Vec::new();
    from.take(MAX_INPUT + 1)
        .read_to_end(&mut octets)
        .map_err(|e| Failure::disk(&e, "reading", path))?;
    if octets.len() as u64 > MAX_INPUT {
        return Err(Failure::usage(format!(
            "{} is larger than {} MiB",
            path.display(),
            MAX_INPUT >> 20
        )));
    }
    Ok(octets)
}

/// Octets of a sealed datagram's tag.
const TAG: usize = 16;
/// Octets of the shortest datagram with a compact header.
const LEAST_COMPACT: usize = 26;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Datagram,
    Capture,
    Lines,
    Unknown,
}

/// Whose the sessions are of which a capture shows the beginning: compact headers name neither end.
#[derive(Debug, Default)]
struct Sessions(BTreeMap<u32, [NodeId; 2]>);

/// Sessions that are remembered; the oldest ids are as good as any to forget.
const MAX_SESSIONS: usize = 65_536;

/// A header, whole or compact.
struct Lead {
    header: Header,
    /// Octets of it.
    octets: usize,
    /// Octets of the payload, without a tag.
    payload: usize,
}

impl Sessions {
    /// Notes whose session a datagram with full headers is of.
    fn note(&mut self, header: &Header) {
        let (from, to) = (header.source, header.dest);
        if header.kind == PacketType::Syn && header.packet_number != 0 {
            self.0.insert(header.packet_number, [to, from]);
        }
        if header.session != 0 {
            self.0.insert(header.session, [from, to]);
        }
        while self.0.len() > MAX_SESSIONS {
            self.0.pop_first();
        }
    }

    /// Whether a datagram is one of a session whose beginning was seen.
    fn know(&self, octets: &[u8]) -> bool {
        compact::session_of(octets).is_some_and(|id| self.0.contains_key(&id))
    }

    fn read(&self, octets: &[u8]) -> Result<Lead, String> {
        if let Some(id) = compact::session_of(octets) {
            let unknown = [NodeId::EMPTY; 2];
            let [from, to] = self.0.get(&id).copied().unwrap_or(unknown);
            let (header, lead) = Header::parse_compact(octets, from, to)
                .ok_or_else(|| "no compact header".to_owned())?;
            return Ok(Lead {
                header,
                octets: lead,
                payload: octets.len().saturating_sub(lead + TAG),
            });
        }
        let parsed = Header::parse_sealed(octets).map_err(|error| error.to_string())?;
        Ok(Lead {
            header: parsed.header,
            octets: HEADER_LEN,
            payload: usize::from(parsed.payload_len),
        })
    }
}

/// What octets are, by how they begin.
fn kind(head: &[u8]) -> Kind {
    if Capture::begin(head).is_some() {
        return Kind::Capture;
    }
    if Header::parse_sealed(head).is_ok() {
        return Kind::Datagram;
    }
    let first = head.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii);
    match first.into_iter().find(|line| !line.is_empty()) {
        // a long line may go on beyond what is looked at
        Some(line) if unhex(line).is_some() || Line::parse(line).is_ok() => Kind::Lines,
        Some(line) if line.len() >= PEEK - 1 && line.iter().all(u8::is_ascii_hexdigit) => {
            Kind::Lines
        }
        _ => Kind::Unknown,
    }
}

/// False when it is nothing of ours.
fn tell(octets: &[u8], out: &Out) -> Outcome<bool> {
    let mut sessions = Sessions::default();
    match kind(octets.get(..PEEK).unwrap_or(octets)) {
        Kind::Unknown => return Ok(false),
        Kind::Datagram => tell_datagram(octets, &mut sessions, out)?,
        Kind::Capture => {
            let mut others = 0u64;
            for packet in Capture::begin(octets).into_iter().flatten() {
                match packet {
                    Found::Udp(datagram)
                        if Header::parse_sealed(datagram).is_ok() || sessions.know(datagram) =>
                    {
                        tell_datagram(datagram, &mut sessions, out)?;
                    }
                    // of control lines those that begin and end in one segment
                    Found::Tcp(octets) if kind(octets) == Kind::Lines => {
                        tell_lines(octets, &mut sessions, out)?;
                    }
                    _ => others += 1,
                }
            }
            if others > 0 {
                out.say(format!("{others} other packets"));
            }
        }
        Kind::Lines => tell_lines(octets, &mut sessions, out)?,
    }
    Ok(true)
}

fn tell_lines(octets: &[u8], sessions: &mut Sessions, out: &Out) -> Outcome<()> {
    for line in octets.split(|octet| *octet == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match unhex(line) {
            Some(datagram) => tell_datagram(&datagram, sessions, out)?,
            None => tell_line(line, out)?,
        }
    }
    Ok(())
}

/// Hexadecimal digits, perhaps with blanks or colons between, of at least a header: a compact one,
/// with a tag behind it, is told from others by its first octet.
fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .iter()
        .filter(|octet| !matches!(octet, b' ' | b':' | b'\t'))
        .map(u8::to_ascii_lowercase)
        .collect();
    let octets = data_encoding::HEXLOWER.decode(&digits).ok()?;
    let least = if compact::is_compact(&octets) {
        LEAST_COMPACT
    } else {
        HEADER_LEN
    };
    (octets.len() >= least).then_some(octets)
}

fn tell_line(line: &[u8], out: &Out) -> Outcome<()> {
    match Line::parse(line) {
        Ok(parsed) => {
            let text = printable(&format!("{:?}", parsed.message));
            let framing = format!("{:?}", parsed.framing);
            out.event(
                "line",
                json!({ "framing": framing, "tag": parsed.tag, "message": text }),
            );
            let tag = parsed.tag.map_or(String::new(), |tag| format!(" ~{tag}"));
            out.result(format!("line ({framing}){tag}: {text}"))
        }
        Err(error) => {
            let text = printable(&error.to_string());
            out.event("line", json!({ "error": text }));
            out.result(format!("no control line: {text}"))
        }
    }
}

fn tell_datagram(octets: &[u8], sessions: &mut Sessions, out: &Out) -> Outcome<()> {
    let lead = match sessions.read(octets) {
        Ok(lead) => lead,
        Err(text) => {
            out.event("datagram", json!({ "octets": octets.len(), "error": text }));
            return out.result(format!(
                "no datagram of VMDT ({} octets): {text}",
                octets.len()
            ));
        }
    };
    let header = lead.header;
    let short = lead.octets < HEADER_LEN;
    if !short {
        sessions.note(&header);
    }
    let sealed = short || header.source.is_sealed() || header.dest.is_sealed();
    let (check, content, trailer) = if sealed {
        let behind = octets.get(lead.octets..).unwrap_or_default();
        let payload = behind.get(..lead.payload);
        let check = payload.map_or_else(
            || format!("the payload is cut short: {} octets", behind.len()),
            |_| "good".to_owned(),
        );
        let payload = payload.unwrap_or_default();
        let trailer = behind.len().saturating_sub(lead.payload);
        (check, content(header.kind, payload, sealed), trailer)
    } else {
        match Packet::parse(Bytes::copy_from_slice(octets)) {
            Ok(packet) => {
                let content = content(header.kind, &packet.payload, sealed);
                ("good".to_owned(), content, packet.trailer.len())
            }
            Err(error) => (error.to_string(), String::new(), 0),
        }
    };
    let flow = format!("{} share {}", header.flow.message, header.flow.index);
    out.event(
        "datagram",
        json!({
            "octets": octets.len(), "type": format!("{:?}", header.kind), "source": header.source.as_str(),
            "dest": header.dest.as_str(), "message": header.flow.message.to_string(),
            "share": header.flow.index.to_string(), "session": header.session, "seq": header.seq.0,
            "ack": header.ack.0, "flags": header.flags.bits(), "window": header.window,
            "packet": header.packet_number, "payload": lead.payload, "trailer": trailer,
            "compact": short,
            "sealed": sealed, "check": check, "content": content,
        }),
    );
    let or_none = |id: &str| {
        if id.is_empty() {
            "-".to_owned()
        } else {
            printable(id)
        }
    };
    let lines = [
        format!(
            "{:?} from {} to {}, {} octets",
            header.kind,
            or_none(header.source.as_str()),
            or_none(header.dest.as_str()),
            octets.len()
        ),
        format!("  flow     {}", printable(&flow)),
        format!(
            "  session  {:#010x}  packet {}  seq {}  ack {}",
            header.session, header.packet_number, header.seq.0, header.ack.0
        ),
        format!("  flags    {:?}  window {}", header.flags, header.window),
        format!(
            "  payload  {} octets, {trailer} behind it; {}",
            lead.payload,
            if check == "good" { content } else { check }
        ),
    ];
    for line in lines {
        out.result(line)?;
    }
    Ok(())
}

/// What a payload says, where it is not sealed.
fn content(kind: PacketType, payload: &[u8], sealed: bool) -> String {
    let shown = |parsed: Result<String, String>| {
        parsed.map_or_else(
            |error| format!("malformed: {error}"),
            |text| printable(&text),
        )
    };
    let mut beginning = hex(payload.get(..SHOWN).unwrap_or(payload));
    if payload.len() > SHOWN {
        beginning.push('…');
    }
    match kind {
        // the first packets of a session carry the handshake in the clear
        PacketType::Syn => shown(read(Syn::parse(payload))),
        _ if sealed => format!("sealed: {beginning}"),
        PacketType::Ack => shown(read(Ack::parse(payload))),
        PacketType::Nak => shown(read(Nak::parse(payload))),
        PacketType::Fin => shown(read(Fin::parse(payload))),
        PacketType::Data | PacketType::Heartbeat | PacketType::Datagram => beginning,
    }
}

fn read<T: std::fmt::Debug>(parsed: Result<T, vmdt_wire::SegmentError>) -> Result<String, String> {
    parsed
        .map(|segment| format!("{segment:?}"))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmdt_wire::{Flags, FlowId, NodeId};

    fn datagram() -> Vec<u8> {
        let (alice, bob): (NodeId, NodeId) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let mut header = Header::new(PacketType::Data, alice, bob, FlowId::CONTROL);
        header.flags = Flags::CHECKSUM;
        let mut octets = Vec::new();
        Packet::new(header, Bytes::from_static(b"hello")).emit_into(&mut octets);
        octets
    }

    #[test]
    fn what_a_file_is_shows_at_its_beginning() {
        let datagram = datagram();
        assert_eq!(kind(&datagram), Kind::Datagram);
        assert_eq!(kind(hex(&datagram).as_bytes()), Kind::Lines);
        assert_eq!(kind(b"\nJOIN_CLUSTER|alice|cluster_12345\r\n"), Kind::Lines);
        for other in [&b""[..], b"hello", &datagram[..HEADER_LEN - 1], b"00ff"] {
            assert_eq!(kind(other), Kind::Unknown, "{other:?}");
        }
    }

    #[test]
    fn digits_may_stand_in_groups() {
        let datagram = datagram();
        let spaced: String = hex(&datagram)
            .as_bytes()
            .chunks(2)
            .map(|pair| format!("{}:", std::str::from_utf8(pair).unwrap().to_uppercase()))
            .collect();
        assert_eq!(unhex(spaced.as_bytes()), Some(datagram));
        assert_eq!(unhex(b"00"), None);
    }
}
