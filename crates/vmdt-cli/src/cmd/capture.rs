//! What a capture of network traffic carries: the formats of pcap and pcapng, UDP payloads and the
//! payloads of TCP segments. Truncated or odd records are passed over; nothing is put together that
//! was divided.

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// The payload of a UDP datagram.
    Udp(&'a [u8]),
    /// The payload of a TCP segment.
    Tcp(&'a [u8]),
    /// Something else.
    Other,
}

/// The head of a file in the format of pcap.
const FILE_HEAD: usize = 24;
/// The head of each packet in it.
const PACKET_HEAD: usize = 16;
/// Type and length of a block of pcapng, and the length again at its end.
const BLOCK_HEAD: usize = 8;
const BLOCK_TAIL: usize = 4;
/// Interfaces of a section that are remembered; packets of others count as something else.
const MAX_INTERFACES: usize = 1024;

/// A capture that is read from its beginning.
#[derive(Debug)]
pub(crate) struct Capture<'a> {
    rest: &'a [u8],
    little: bool,
    format: Format,
}

#[derive(Debug)]
enum Format {
    /// The link type of the whole file.
    Pcap(u32),
    /// The link types of the section's interfaces.
    Pcapng(Vec<u32>),
}

impl<'a> Capture<'a> {
    /// `None` when it is no capture.
    pub(crate) fn begin(octets: &'a [u8]) -> Option<Capture<'a>> {
        let little = match octets.first_chunk::<4>()? {
            // microseconds and nanoseconds
            [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => true,
            [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => false,
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                return Some(Capture {
                    rest: octets,
                    little: section_is_little(octets)?,
                    format: Format::Pcapng(Vec::new()),
                });
            }
            _ => return None,
        };
        // the upper bits hold what does not matter here
        let link = number(octets.get(20..24)?, little)? & 0x0fff_ffff;
        Some(Capture {
            rest: octets.get(FILE_HEAD..)?,
            little,
            format: Format::Pcap(link),
        })
    }

    fn next_pcap(&mut self, link: u32) -> Option<Found<'a>> {
        let (head, rest) = self.rest.split_at_checked(PACKET_HEAD)?;
        let len = number(head.get(8..12)?, self.little)? as usize;
        let (frame, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(payload(link, frame).unwrap_or(Found::Other))
    }

    /// The next block, whatever it is.
    fn block(&mut self) -> Option<(u32, &'a [u8])> {
        let kind = self.rest.first_chunk::<4>()?;
        // a section says in which order its octets stand, and its type reads the same in either
        if *kind == [0x0a, 0x0d, 0x0d, 0x0a] {
            self.little = section_is_little(self.rest)?;
        }
        let kind = number(kind, self.little)?;
        let len = number(self.rest.get(4..8)?, self.little)? as usize;
        let body = self.rest.get(BLOCK_HEAD..len.checked_sub(BLOCK_TAIL)?)?;
        self.rest = self.rest.get(len.next_multiple_of(4)..)?;
        Some((kind, body))
    }

    fn next_pcapng(&mut self) -> Option<Found<'a>> {
        loop {
            let (kind, body) = self.block()?;
            let little = self.little;
            let field = |at: usize| number(body.get(at..at.checked_add(4)?)?, little);
            let Format::Pcapng(links) = &mut self.format else {
                return None;
            };
            let (interface, frame) = match kind {
                0x0a0d_0d0a => {
                    links.clear();
                    continue;
                }
                // an interface
                1 => {
                    if links.len() < MAX_INTERFACES {
                        // its first two octets
                        let link = field(0)?;
                        links.push(if little { link & 0xffff } else { link >> 16 });
                    }
                    continue;
                }
                // a packet without anything else: of the first interface, to the end of the block
                3 => {
                    let len = field(0)? as usize;
                    let data = body.get(4..)?;
                    (0, data.get(..len).unwrap_or(data))
                }
                // a packet
                6 => (
                    field(0)? as usize,
                    body.get(20..20usize.checked_add(field(12)? as usize)?)?,
                ),
                _ => continue,
            };
            let found = links.get(interface).and_then(|link| payload(*link, frame));
            return Some(found.unwrap_or(Found::Other));
        }
    }
}

impl<'a> Iterator for Capture<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        match self.format {
            Format::Pcap(link) => self.next_pcap(link),
            Format::Pcapng(_) => self.next_pcapng(),
        }
    }
}

fn section_is_little(section: &[u8]) -> Option<bool> {
    match section.get(8..12)? {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(true),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(false),
        _ => None,
    }
}

fn number(octets: &[u8], little: bool) -> Option<u32> {
    let octets = octets.try_into().ok()?;
    Some(if little {
        u32::from_le_bytes(octets)
    } else {
        u32::from_be_bytes(octets)
    })
}

/// What a frame carries; `None` for what is neither UDP nor TCP over IP.
fn payload(link: u32, frame: &[u8]) -> Option<Found<'_>> {
    let at = match link {
        // BSD loopback, Ethernet, raw IP, Linux cooked and its second version
        0 => 4,
        1 => 14,
        101 | 12 | 228 | 229 => 0,
        113 => 16,
        276 => 20,
        _ => return None,
    };
    let packet = frame.get(at..)?;
    let (protocol, inner) = match packet.first()? >> 4 {
        4 => {
            let len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            // a frame may be longer than its packet, and offloading leaves the length out
            let whole = packet.get(..len).filter(|_| len > 0).unwrap_or(packet);
            let head = usize::from(packet.first()? & 15) * 4;
            (*packet.get(9)?, whole.get(head..)?)
        }
        6 => (*packet.get(6)?, packet.get(40..)?),
        _ => return None,
    };
    match protocol {
        17 => {
            let len = usize::from(u16::from_be_bytes([*inner.get(4)?, *inner.get(5)?]));
            inner.get(8..len.min(inner.len())).map(Found::Udp)
        }
        6 => {
            let head = usize::from(inner.get(12)? >> 4) * 4;
            inner.get(head..).map(Found::Tcp)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with this content.
    fn ip(protocol: u8, content: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        (packet[0], packet[9]) = (0x45, protocol);
        packet[2..4].copy_from_slice(&(20 + content.len() as u16).to_be_bytes());
        packet.extend(content);
        packet
    }

    fn udp(content: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0, 1, 0, 2];
        datagram.extend((content.len() as u16 + 8).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(content);
        ip(17, &datagram)
    }

    fn tcp(content: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[12] = 5 << 4;
        segment.extend(content);
        ip(6, &segment)
    }

    fn ethernet(packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame.extend(packet);
        // short frames are padded
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1];
        capture.resize(20, 0);
        capture.extend(1u32.to_le_bytes());
        for frame in frames {
            capture.extend([0; 8]);
            capture.extend((frame.len() as u32).to_le_bytes());
            capture.extend([0; 4]);
            capture.extend(frame);
        }
        capture
    }

    fn block(kind: u32, body: &[u8], bytes: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let len = bytes((padded + 12) as u32);
        let mut block = bytes(kind).to_vec();
        block.extend(len);
        block.extend(body);
        block.resize(8 + padded, 0);
        block.extend(len);
        block
    }

    /// A section with an Ethernet interface and one of raw IP.
    fn pcapng(frames: &[(u32, Vec<u8>)], bytes: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let mut head = bytes(0x1a2b_3c4d).to_vec();
        head.extend([0; 12]);
        let mut capture = block(0x0a0d_0d0a, &head, bytes);
        for link in [1u16, 101] {
            // its first two octets, whatever the order
            let mut body = bytes(u32::from(link));
            if bytes(1) == [0, 0, 0, 1] {
                body.rotate_left(2);
            }
            let mut body = body.to_vec();
            body.extend([0; 4]);
            capture.extend(block(1, &body, bytes));
        }
        capture.extend(block(5, &[0; 12], bytes));
        for (interface, frame) in frames {
            let mut body = bytes(*interface).to_vec();
            body.extend([0; 8]);
            body.extend(bytes(frame.len() as u32));
            body.extend(bytes(frame.len() as u32));
            body.extend(frame);
            capture.extend(block(6, &body, bytes));
        }
        capture
    }

    #[test]
    fn payloads_are_found_in_pcap_and_a_cut_record_ends_it() {
        let frames = [
            ethernet(&udp(b"hello")),
            vec![0; 30],
            ethernet(&tcp(b"LIST|x\n")),
        ];
        let capture = pcap(&frames);
        let found: Vec<_> = Capture::begin(&capture).unwrap().collect();
        assert_eq!(
            found,
            [Found::Udp(b"hello"), Found::Other, Found::Tcp(b"LIST|x\n")]
        );
        for len in 0..capture.len() {
            let _ = Capture::begin(&capture[..len]).map(Iterator::count);
        }
        assert_eq!(
            Capture::begin(&capture[..FILE_HEAD + 40]).unwrap().count(),
            0
        );
    }

    #[test]
    fn payloads_are_found_in_pcapng_of_either_order() {
        let frames = [
            (0, ethernet(&udp(b"hello"))),
            (1, udp(b"there")),
            (2, udp(b"no such interface")),
            (1, tcp(b"x")),
        ];
        for bytes in [u32::to_le_bytes, u32::to_be_bytes] {
            let mut capture = pcapng(&frames, bytes);
            let wanted = [
                Found::Udp(b"hello"),
                Found::Udp(b"there"),
                Found::Other,
                Found::Tcp(b"x"),
            ];
            let found: Vec<_> = Capture::begin(&capture).unwrap().collect();
            assert_eq!(found, wanted);
            for len in 0..capture.len() {
                let _ = Capture::begin(&capture[..len]).map(Iterator::count);
            }
            // a second section has interfaces of its own, and its own order
            capture.extend(pcapng(&frames[..1], u32::to_be_bytes));
            assert_eq!(Capture::begin(&capture).unwrap().count(), 5);
        }
    }

    #[test]
    fn a_packet_block_without_an_interface_is_of_the_first_one() {
        let frame = ethernet(&udp(b"hello"));
        let mut capture = pcapng(&[], u32::to_le_bytes);
        let mut body = (frame.len() as u32).to_le_bytes().to_vec();
        body.extend(&frame);
        capture.extend(block(3, &body, u32::to_le_bytes));
        let found: Vec<_> = Capture::begin(&capture).unwrap().collect();
        assert_eq!(found, [Found::Udp(b"hello")]);
    }

    #[test]
    fn a_block_whose_length_is_none_ends_the_capture() {
        for len in [0u32, 3, 8, 11, u32::MAX] {
            let mut capture = pcapng(&[(1, udp(b"x"))], u32::to_le_bytes);
            let at = capture.len();
            capture.extend(6u32.to_le_bytes());
            capture.extend(len.to_le_bytes());
            capture.extend([0; 64]);
            assert!(at < capture.len());
            assert_eq!(Capture::begin(&capture).unwrap().count(), 1, "{len}");
        }
    }
}
