//! Writes capture files in the classic format, with raw IP packets and nanoseconds.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The magic number of the variant with nanoseconds, in the writer's byte order.
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// LINKTYPE_RAW: the packet begins with its IP header.
const LINKTYPE_RAW: u32 = 101;
const SNAPLEN: u32 = 65_535;

/// A capture file.
#[derive(Debug)]
pub struct Pcap<W: Write = BufWriter<File>> {
    to: W,
}

impl Pcap {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        Pcap::new(BufWriter::new(File::create(path)?))
    }
}

impl<W: Write> Pcap<W> {
    /// Writes the file's head.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(mut to: W) -> io::Result<Self> {
        to.write_all(&MAGIC_NANOS.to_le_bytes())?;
        to.write_all(&2u16.to_le_bytes())?;
        to.write_all(&4u16.to_le_bytes())?;
        to.write_all(&[0; 8])?;
        to.write_all(&SNAPLEN.to_le_bytes())?;
        to.write_all(&LINKTYPE_RAW.to_le_bytes())?;
        Ok(Pcap { to })
    }

    /// Adds a packet, seen so long after 1970.
    ///
    /// # Errors
    /// What the writer says.
    pub fn packet(&mut self, at: Duration, packet: &[u8]) -> io::Result<()> {
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        self.to.write_all(&seconds.to_le_bytes())?;
        self.to.write_all(&at.subsec_nanos().to_le_bytes())?;
        self.to.write_all(&len.to_le_bytes())?;
        self.to.write_all(&len.to_le_bytes())?;
        self.to.write_all(packet)
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// What the writer says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The wall clock, for captures alone.
#[allow(clippy::disallowed_methods)]
pub(crate) fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_format_octet_by_octet() {
        let mut out = Vec::new();
        let mut pcap = Pcap::new(&mut out).unwrap();
        pcap.packet(Duration::new(1, 2), &[0x45, 0, 7]).unwrap();
        pcap.flush().unwrap();
        let mut expected = vec![0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0];
        expected.extend([0; 8]);
        expected.extend([0xff, 0xff, 0, 0, 101, 0, 0, 0]);
        expected.extend([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0]);
        expected.extend([0x45, 0, 7]);
        assert_eq!(out, expected);
    }
}
