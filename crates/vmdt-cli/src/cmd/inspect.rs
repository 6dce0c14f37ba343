//! `vmdt inspect`: what is public about shares, datagrams, captures and control lines.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::json;
use vmdt_wire::segment::{Ack, Fin, Nak, Syn};
use vmdt_wire::{HEADER_LEN, Header, Line, Packet, PacketType};

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
    .hint("a datagram may be raw or hexadecimal, a capture has the format of pcap")
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Datagram,
    Capture,
    Lines,
    Unknown,
}

/// What octets are, by how they begin.
fn kind(head: &[u8]) -> Kind {
    if Capture::begin(head).is_some() {
        return Kind::Capture;
    }
    if Header::parse(head).is_ok() {
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
    match kind(octets.get(..PEEK).unwrap_or(octets)) {
        Kind::Unknown => return Ok(false),
        Kind::Datagram => tell_datagram(octets, out)?,
        Kind::Capture => {
            let mut others = 0u64;
            for packet in Capture::begin(octets).into_iter().flatten() {
                match packet {
                    Some(datagram) if Header::parse(datagram).is_ok() => {
                        tell_datagram(datagram, out)?;
                    }
                    _ => others += 1,
                }
            }
            if others > 0 {
                out.say(format!("{others} other packets"));
            }
        }
        Kind::Lines => {
            for line in octets.split(|octet| *octet == b'\n') {
                let line = line.trim_ascii();
                if line.is_empty() {
                    continue;
                }
                match unhex(line) {
                    Some(datagram) => tell_datagram(&datagram, out)?,
                    None => tell_line(line, out)?,
                }
            }
        }
    }
    Ok(true)
}

/// Hexadecimal digits, perhaps with blanks or colons between, of at least a header.
fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .iter()
        .filter(|octet| !matches!(octet, b' ' | b':' | b'\t'))
        .map(u8::to_ascii_lowercase)
        .collect();
    let octets = data_encoding::HEXLOWER.decode(&digits).ok()?;
    (octets.len() >= HEADER_LEN).then_some(octets)
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

fn tell_datagram(octets: &[u8], out: &Out) -> Outcome<()> {
    let parsed = match Header::parse(octets) {
        Ok(parsed) => parsed,
        Err(error) => {
            let text = error.to_string();
            out.event("datagram", json!({ "octets": octets.len(), "error": text }));
            return out.result(format!(
                "no datagram of VMDT ({} octets): {text}",
                octets.len()
            ));
        }
    };
    let header = parsed.header;
    let whole = Packet::parse(Bytes::copy_from_slice(octets));
    let sealed = header.source.is_sealed() || header.dest.is_sealed();
    let check = match &whole {
        Ok(_) => "good".to_owned(),
        Err(error) => error.to_string(),
    };
    let content = whole.as_ref().map_or_else(
        |_| String::new(),
        |packet| content(header.kind, &packet.payload, sealed),
    );
    let trailer = whole.as_ref().map_or(0, |packet| packet.trailer.len());
    let flow = format!("{} share {}", header.flow.message, header.flow.index);
    out.event(
        "datagram",
        json!({
            "octets": octets.len(), "type": format!("{:?}", header.kind), "source": header.source.as_str(),
            "dest": header.dest.as_str(), "message": header.flow.message.to_string(),
            "share": header.flow.index.to_string(), "session": header.session, "seq": header.seq.0,
            "ack": header.ack.0, "flags": header.flags.bits(), "window": header.window,
            "packet": header.packet_number, "payload": parsed.payload_len, "trailer": trailer,
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
            parsed.payload_len,
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
        PacketType::Data | PacketType::Heartbeat => beginning,
    }
}

fn read<T: std::fmt::Debug>(parsed: Result<T, vmdt_wire::SegmentError>) -> Result<String, String> {
    parsed
        .map(|segment| format!("{segment:?}"))
        .map_err(|error| error.to_string())
}

/// The UDP payloads of a capture in the classic format of pcap; `None` for other packets.
struct Capture<'a> {
    rest: &'a [u8],
    little: bool,
    link: u32,
}

/// The head of a capture.
const FILE_HEAD: usize = 24;
/// The head of each packet in it.
const PACKET_HEAD: usize = 16;

impl<'a> Capture<'a> {
    fn begin(octets: &'a [u8]) -> Option<Capture<'a>> {
        let little = match octets.first_chunk::<4>()? {
            // microseconds and nanoseconds
            [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => true,
            [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => false,
            _ => return None,
        };
        let mut capture = Capture {
            rest: octets.get(FILE_HEAD..)?,
            little,
            link: 0,
        };
        // the upper bits hold what does not matter here
        capture.link = capture.u32(octets.get(20..24)?)? & 0x0fff_ffff;
        Some(capture)
    }

    fn u32(&self, octets: &[u8]) -> Option<u32> {
        let octets = octets.try_into().ok()?;
        Some(if self.little {
            u32::from_le_bytes(octets)
        } else {
            u32::from_be_bytes(octets)
        })
    }

    /// The UDP payload in a frame.
    fn udp(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let at = match self.link {
            // BSD loopback, Ethernet, raw IP, Linux cooked and its second version
            0 => 4,
            1 => 14,
            101 | 12 | 228 | 229 => 0,
            113 => 16,
            276 => 20,
            _ => return None,
        };
        let packet = frame.get(at..)?;
        let udp = match packet.first()? >> 4 {
            4 if *packet.get(9)? == 17 => packet.get(usize::from(packet.first()? & 15) * 4..)?,
            6 if *packet.get(6)? == 17 => packet.get(40..)?,
            _ => return None,
        };
        let len = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
        udp.get(8..len.min(udp.len()))
    }
}

impl<'a> Iterator for Capture<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.rest.split_at_checked(PACKET_HEAD)?;
        let len = self.u32(head.get(8..12)?)? as usize;
        let (frame, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(self.udp(frame))
    }
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
    fn datagrams_are_found_in_a_capture_and_a_cut_one_ends_it() {
        let datagram = datagram();
        let mut frame = vec![0; 14];
        let mut ip = vec![0; 20];
        (ip[0], ip[9]) = (0x45, 17);
        frame.extend(ip);
        frame.extend([0, 1, 0, 2]);
        frame.extend((datagram.len() as u16 + 8).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(&datagram);
        let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1];
        capture.resize(20, 0);
        capture.extend(1u32.to_le_bytes());
        for frame in [&frame[..], &[0; 30]] {
            capture.extend([0; 8]);
            capture.extend((frame.len() as u32).to_le_bytes());
            capture.extend([0; 4]);
            capture.extend(frame);
        }
        let found: Vec<_> = Capture::begin(&capture).unwrap().collect();
        assert_eq!(found, [Some(&datagram[..]), None]);
        for len in 0..capture.len() {
            let _ = Capture::begin(&capture[..len]).map(Iterator::count);
        }
        assert_eq!(
            Capture::begin(&capture[..FILE_HEAD + 90]).unwrap().count(),
            0
        );
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
