//! The octets of a rendezvous: frames with a length in front.
//!
//! | from | frame | |
//! |---|---|---|
//! | receiver | `VMR` 0x01, number u16, first octets of the PAKE | |
//! | sender | first octets of the PAKE | or empty: no such number |
//! | receiver | confirmation | whoever confirms first shows that it knows the code |
//! | sender | confirmation | or empty: a wrong guess |
//! | sender | the sealed invitation | |

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the first frame begins with.
pub(crate) const MARK: &[u8; 4] = b"VMR\x01";
/// The longest frame.
const MAX_FRAME: u16 = 8 * 1024;

/// Reads a frame.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    if len > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame of a rendezvous is too long",
        ));
    }
    let mut frame = vec![0; usize::from(len)];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Writes a frame.
pub(crate) async fn write(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let len = u16::try_from(frame.len())
        .ok()
        .filter(|len| *len <= MAX_FRAME);
    let len =
        len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too long"))?;
    let mut octets = Vec::with_capacity(frame.len() + 2);
    octets.extend(len.to_be_bytes());
    octets.extend(frame);
    stream.write_all(&octets).await?;
    stream.flush().await
}
