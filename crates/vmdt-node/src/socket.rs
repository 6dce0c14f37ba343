//! The node's datagram socket: many datagrams a system call, where the system can (segmentation
//! offload on the way out, coalescing on the way in). For programs that drive a
//! [`vmdt_rdt::Endpoint`] of their own, too:
//!
//! ```
//! use vmdt_node::TransportConfig;
//! use vmdt_node::socket::Socket;
//! use vmdt_rdt::Endpoint;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[allow(clippy::disallowed_methods)]
//! # let now = std::time::Instant::now;
//! let mut endpoint = Endpoint::new(TransportConfig::default(), "alice".parse()?, [1; 32]);
//! let mut socket = Socket::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await?)?;
//! endpoint.connect(now(), "bob".parse()?, socket.local_addr()?);
//!
//! // What is to leave ..
//! let mut datagram = Vec::new();
//! while let Some(transmit) = endpoint.poll_transmit(now(), &mut datagram) {
//!     socket.queue(&transmit, &datagram);
//! }
//! socket.io().writable().await?;
//! socket.send(|to, octets| endpoint.refused(now(), to, octets));
//! assert!(!socket.is_blocked());
//! // .. and what has arrived.
//! let mut arrived = Vec::new();
//! socket.io().readable().await?;
//! socket.receive(&mut arrived);
//! for (from, ecn, octets) in arrived.drain(..) {
//!     endpoint.handle_owned_datagram(now(), from, ecn, octets);
//! }
//! # Ok(())
//! # }
//! ```

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use vmdt_rdt::EcnCodepoint;

/// Buffers handed to the system at once, each for what it coalesces.
const BUFFERS: usize = 8;
/// Octets of one of them: the most a coalesced datagram can have.
const BUFFER: usize = 65_536;
/// Octets of datagrams to one address that are written at once.
const MAX_BATCH: usize = 65_507;
/// Socket buffers asked of the system, in octets.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// A datagram that has arrived: from where, with which ECN mark, and its octets, which are its
/// own to change: a sealed one is opened where it lies.
pub type Received = (SocketAddr, Option<EcnCodepoint>, BytesMut);

/// Datagrams to one address that leave together: all with one mark and of one size, but for a
/// shorter last one.
struct Batch {
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    segment: usize,
    count: usize,
    closed: bool,
    octets: Vec<u8>,
}

/// How the system says that a datagram is too large: EMSGSIZE, WSAEMSGSIZE.
const TOO_LARGE: i32 = if cfg!(windows) {
    10_040
} else if cfg!(any(target_os = "linux", target_os = "android")) {
    90
} else {
    40
};

/// A UDP socket with what is to leave by it.
pub struct Socket {
    io: Arc<UdpSocket>,
    state: UdpSocketState,
    received: Vec<u8>,
    batches: Vec<Batch>,
    /// Batches whose memory is used again.
    spare: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Socket {
    /// Without what has arrived or is to leave.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("io", &self.io)
            .field("waiting", &self.batches.len())
            .finish_non_exhaustive()
    }
}

impl Socket {
    /// Takes a socket over: asks for larger buffers, forbids fragmentation, and asks for ECN marks
    /// and for datagrams together.
    ///
    /// # Errors
    /// What the system says where it has none of these.
    pub fn new(io: UdpSocket) -> io::Result<Socket> {
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let socket = socket2::SockRef::from(&io);
        // the system may give less than it was asked for, and says nothing
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        if let (Ok(receive), Ok(send)) = (socket.recv_buffer_size(), socket.send_buffer_size())
            && receive.min(send) < SOCKET_BUFFER
        {
            tracing::warn!(
                receive,
                send,
                wanted = SOCKET_BUFFER,
                "the system gives smaller socket buffers; bursts may be lost \
                 (sysctl net.core.rmem_max, net.core.wmem_max)"
            );
        }
        Ok(Socket {
            io: Arc::new(io),
            state,
            received: vec![0; BUFFERS * BUFFER],
            batches: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// The socket itself, to wait for datagrams or for room.
    #[must_use]
    pub fn io(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.io)
    }

    /// Takes what has arrived, as far as the buffers go: nothing if nothing has.
    pub fn receive(&mut self, into: &mut Vec<Received>) {
        let mut meta = [RecvMeta::default(); BUFFERS];
        let Socket {
            io,
            state,
            received,
            ..
        } = self;
        let mut slices: Vec<IoSliceMut<'_>> =
            received.chunks_mut(BUFFER).map(IoSliceMut::new).collect();
        let count = io.try_io(Interest::READABLE, || {
            state.recv(UdpSockRef::from(&**io), &mut slices, &mut meta)
        });
        drop(slices);
        let Ok(count) = count else { return };
        for (meta, buffer) in meta.iter().zip(received.chunks(BUFFER)).take(count) {
            let mut octets = BytesMut::from(buffer.get(..meta.len).unwrap_or_default());
            let ecn = meta
                .ecn
                .and_then(|mark| EcnCodepoint::from_bits(mark as u8));
            let stride = meta.stride.max(1);
            while octets.len() > stride {
                into.push((meta.addr, ecn, octets.split_to(stride)));
            }
            into.push((meta.addr, ecn, octets));
        }
    }

    /// Whether datagrams wait for room.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.batches.is_empty()
    }

    /// Queues a datagram; it leaves with the next [`send`](Self::send), with others unless it is
    /// to leave alone.
    ///
    /// What is queued is not bounded: queue a few dozen at most, then send, and queue no more while
    /// it [is blocked](Self::is_blocked).
    pub fn queue(&mut self, transmit: &vmdt_rdt::Transmit, datagram: &[u8]) {
        let (to, ecn, alone) = (transmit.to, transmit.ecn, transmit.oversized);
        let most = self.state.max_gso_segments();
        let fits = self
            .batches
            .iter_mut()
            .rev()
            .find(|b| b.to == to)
            .filter(|b| {
                !alone
                    && !b.closed
                    && b.ecn == ecn
                    && b.count < most
                    && datagram.len() <= b.segment
                    && b.octets.len() + datagram.len() <= MAX_BATCH
            });
        match fits {
            Some(batch) => {
                batch.closed = datagram.len() < batch.segment;
                batch.count += 1;
                batch.octets.extend_from_slice(datagram);
            }
            None => {
                let mut octets = self.spare.pop().unwrap_or_default();
                octets.extend_from_slice(datagram);
                let segment = datagram.len();
                self.batches.push(Batch {
                    to,
                    ecn,
                    segment,
                    count: 1,
                    closed: alone,
                    octets,
                });
            }
        }
    }

    /// Writes what is queued, as far as there is room. Where a datagram is larger than any
    /// interface carries, `refused` is told where to and how large.
    pub fn send(&mut self, mut refused: impl FnMut(SocketAddr, usize)) {
        let mut done = 0;
        for batch in &self.batches {
            let transmit = Transmit {
                destination: batch.to,
                ecn: batch
                    .ecn
                    .and_then(|mark| quinn_udp::EcnCodepoint::from_bits(mark.bits())),
                contents: &batch.octets,
                segment_size: (batch.count > 1).then_some(batch.segment),
                src_ip: None,
            };
            let result = self.io.try_io(Interest::WRITABLE, || {
                self.state.try_send(UdpSockRef::from(&*self.io), &transmit)
            });
            match result {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // a datagram may be lost; an address that can't be reached shows as silence
                Ok(()) => done += 1,
                Err(e) => {
                    if batch.count == 1 && e.raw_os_error() == Some(TOO_LARGE) {
                        refused(batch.to, batch.octets.len());
                    }
                    done += 1;
                }
            }
        }
        for batch in self.batches.drain(..done) {
            let mut octets = batch.octets;
            octets.clear();
            if self.spare.len() < 64 {
                self.spare.push(octets);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn socket() -> Socket {
        Socket::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()).unwrap()
    }

    fn to(to: SocketAddr, ecn: Option<EcnCodepoint>) -> vmdt_rdt::Transmit {
        vmdt_rdt::Transmit {
            to,
            len: 0,
            ecn,
            oversized: false,
        }
    }

    #[tokio::test]
    async fn what_no_interface_carries_is_told_and_takes_nothing_else_with_it() {
        let (mut a, mut b) = (socket().await, socket().await);
        let to_b = to(b.local_addr().unwrap(), None);
        let oversized = vmdt_rdt::Transmit {
            oversized: true,
            ..to_b
        };
        a.queue(&to_b, &[1; 1_000]);
        a.queue(&oversized, &[2; 65_508]);
        a.queue(&to_b, &[3; 900]);
        a.queue(&oversized, &[4; 1_200]);
        a.io().writable().await.unwrap();
        let mut refused = Vec::new();
        a.send(|to, octets| refused.push((to, octets)));
        assert_eq!(refused, [(to_b.to, 65_508)]);
        let mut got = Vec::new();
        while got.len() < 3 {
            b.io().readable().await.unwrap();
            b.receive(&mut got);
        }
        let lens: Vec<usize> = got.iter().map(|(_, _, d)| d.len()).collect();
        assert_eq!(lens, [1_000, 900, 1_200]);
    }

    #[tokio::test]
    async fn datagrams_arrive_one_by_one_in_order_whatever_left_together() {
        let (mut a, mut b, mut c) = (socket().await, socket().await, socket().await);
        let (to_b, to_c) = (b.local_addr().unwrap(), c.local_addr().unwrap());
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for i in 0..150u32 {
            let len = if i % 40 == 39 {
                100
            } else {
                1_472 - usize::from(i > 100) * 72
            };
            let mut datagram = vec![i as u8; len];
            datagram[0] = (i >> 8) as u8;
            let ecn = (i < 75).then_some(EcnCodepoint::Ect0);
            a.queue(&to(to_b, ecn), &datagram);
            a.queue(&to(to_c, ecn), &datagram);
            sent.push(datagram);
        }
        let fewer = a.batches.len() < 100;
        assert_eq!(
            fewer,
            a.state.max_gso_segments() > 4,
            "{} batches",
            a.batches.len()
        );
        for socket in [&mut b, &mut c] {
            let mut got = Vec::new();
            while got.len() < sent.len() {
                if a.is_blocked() {
                    a.io().writable().await.unwrap();
                    a.send(|_, _| panic!("nothing is too large"));
                }
                socket.io().readable().await.unwrap();
                socket.receive(&mut got);
            }
            assert!(
                got.iter()
                    .map(|(_, _, d)| d.to_vec())
                    .eq(sent.iter().cloned())
            );
            assert!(
                got.iter()
                    .all(|(from, _, _)| *from == a.local_addr().unwrap())
            );
            if cfg!(target_os = "linux") {
                let marked: Vec<usize> = (0..got.len()).filter(|at| got[*at].1.is_some()).collect();
                assert_eq!(
                    marked,
                    (0..75).collect::<Vec<_>>(),
                    "marks arrive with theirs"
                );
            }
        }
        assert!(!a.is_blocked());
    }

    #[tokio::test]
    async fn an_empty_datagram_is_one_datagram() {
        let (mut a, mut b) = (socket().await, socket().await);
        let to_b = to(b.local_addr().unwrap(), None);
        a.queue(&to_b, b"");
        a.queue(&to_b, b"x");
        a.io().writable().await.unwrap();
        a.send(|_, _| panic!("nothing is too large"));
        let mut got = Vec::new();
        while got.len() < 2 {
            b.io().readable().await.unwrap();
            b.receive(&mut got);
        }
        let lens: Vec<usize> = got.iter().map(|(_, _, d)| d.len()).collect();
        assert_eq!(lens, [0, 1]);
    }
}
