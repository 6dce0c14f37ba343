//! A bare prototype of what VMDT is after: each message as n pieces, any k of which suffice, at
//! the line's rate over all paths, without waiting for anything.
//!
//! It shows what the links allow, not what a transport does: no congestion control, no
//! acknowledgment, no coding (a piece is filled with zeros), and messages of which fewer than k
//! pieces arrive are sent whole again after a fixed time, until the receiver has told that it has
//! all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use super::{Arrived, HEAD, Inbox, Outbox, locals, setting, targets};
use crate::clock;
use crate::process::Args;

/// Octets before a piece: the message's head, the index of the piece, the message's size.
const PREFIX: usize = HEAD + 1 + 4;
/// Octets before a piece where those of profile 1.1 are reckoned with: 80 of headers, 16 of the tag,
/// and 8 that say what the piece is.
const SEALED: usize = 80 + 16 + 8;
/// Octets of IPv4 and UDP headers.
const BELOW: usize = 28;

pub(crate) async fn serve(args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let port: u16 = setting(args, "port")?;
    let k: usize = setting(args, "k")?;
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    let back = setting(args, "back")?;
    tokio::spawn(receive(socket, k, back, Some(outbox), inbox));
    Ok(())
}

pub(crate) async fn connect(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let back: SocketAddr = setting(args, "back")?;
    let mut sockets = Vec::new();
    for (to, at) in targets(args)?.into_iter().zip(locals(args)?) {
        // answers and acknowledgments come to the first
        let port = if sockets.is_empty() { back.port() } else { 0 };
        let socket = UdpSocket::bind(SocketAddr::new(at, port)).await?;
        socket.connect(to).await?;
        sockets.push(socket);
    }
    let manner = Manner::of(name, args)?;
    let rate: f64 = setting(args, "rate")?;
    let again = Duration::from_secs_f64(2.0 * setting::<f64>(args, "rtt_ms")? / 1e3 + 0.1);
    tokio::spawn(send(sockets, manner, rate, again, outbox, inbox));
    Ok(())
}

/// How pieces are made and in which order they leave.
#[derive(Clone, Copy, Debug)]
struct Manner {
    k: usize,
    n: usize,
    /// All messages' first pieces before any second one, and pieces of messages that are whole are
    /// not sent; else one message after the other.
    by_rank: bool,
    /// Octets before the content of a piece.
    prefix: usize,
}

impl Manner {
    fn of(name: &str, args: &Args) -> Result<Manner> {
        let by_rank = name == "pieces-rank";
        Ok(Manner {
            k: setting(args, "k")?,
            n: setting(args, "n")?,
            by_rank,
            prefix: if by_rank { SEALED } else { PREFIX },
        })
    }

    /// The pieces of one message.
    fn pieces(self, octets: &[u8]) -> Vec<Vec<u8>> {
        let body = octets.len().saturating_sub(HEAD).div_ceil(self.k);
        (0..self.n)
            .map(|index| {
                let mut piece = octets.get(..HEAD).unwrap_or_default().to_vec();
                piece.push(u8::try_from(index).unwrap_or(u8::MAX));
                let size = u32::try_from(octets.len()).unwrap_or(u32::MAX);
                piece.extend_from_slice(&size.to_be_bytes());
                piece.resize(self.prefix + body, 0);
                piece
            })
            .collect()
    }
}

/// A message that is not known to be whole.
struct Open {
    again: Instant,
    octets: Vec<u8>,
}

/// What is to be sent, in the order of sending.
struct Queue {
    manner: Manner,
    /// By rank and turn, or by turn alone.
    pieces: BTreeMap<(usize, u64), ([u8; HEAD], Vec<u8>)>,
    turn: u64,
    open: BTreeMap<[u8; HEAD], Open>,
    again: Duration,
}

impl Queue {
    fn add(&mut self, octets: Vec<u8>) {
        let Some(head) = octets.first_chunk::<HEAD>().copied() else {
            return;
        };
        for (rank, piece) in self.manner.pieces(&octets).into_iter().enumerate() {
            let rank = if self.manner.by_rank { rank } else { 0 };
            self.turn += 1;
            self.pieces.insert((rank, self.turn), (head, piece));
        }
        let again = clock::now() + self.again;
        self.open.insert(head, Open { again, octets });
    }

    /// The receiver has it: its pieces need not be sent.
    fn told(&mut self, head: [u8; HEAD]) {
        self.open.remove(&head);
        self.pieces.retain(|_, (of, _)| *of != head);
    }

    fn repeat(&mut self) {
        let now = clock::now();
        let due: Vec<Vec<u8>> = self
            .open
            .values()
            .filter(|open| open.again <= now)
            .map(|open| open.octets.clone())
            .collect();
        for octets in due {
            self.add(octets);
        }
    }
}

async fn send(
    sockets: Vec<UdpSocket>,
    manner: Manner,
    rate: f64,
    again: Duration,
    mut outbox: Outbox,
    inbox: Inbox,
) -> Result<()> {
    let first = sockets.first().context("no path")?;
    let mut free: Vec<Instant> = vec![clock::now(); sockets.len()];
    let mut queue = Queue {
        manner,
        pieces: BTreeMap::new(),
        turn: 0,
        open: BTreeMap::new(),
        again,
    };
    let mut path = 0;
    let mut buffer = [0u8; 2048];
    loop {
        // paths take turns; none is more than a piece ahead of the others
        let room = (!queue.pieces.is_empty())
            .then(|| free.get(path).copied())
            .flatten();
        let due = queue.open.values().map(|open| open.again).min();
        tokio::select! {
            biased;
            message = outbox.recv() => match message {
                Some(message) => queue.add(message.octets.to_vec()),
                None => return Ok(()),
            },
            received = first.recv(&mut buffer) => {
                let got = buffer.get(..received?).unwrap_or_default();
                match got.split_first() {
                    // told: these messages are whole
                    Some((b'!', heads)) => {
                        for head in heads.chunks_exact(HEAD) {
                            if let Some(head) = head.first_chunk::<HEAD>() {
                                queue.told(*head);
                            }
                        }
                    }
                    // an answer comes as it is
                    _ => {
                        if let Some(arrived) = Arrived::now(got, got.len()) {
                            let _ = inbox.send(arrived);
                        }
                    }
                }
            }
            () = until(room) => {
                if let Some((_, (_, piece))) = queue.pieces.pop_first()
                    && let (Some(socket), Some(free)) = (sockets.get(path), free.get_mut(path))
                {
                    let time = (piece.len() + BELOW) as f64 * 8.0 / rate;
                    // a timer that fires late is made up for, up to 3 ms
                    let floor = clock::now() - Duration::from_millis(3);
                    *free = (*free).max(floor) + Duration::from_secs_f64(time);
                    let _ = socket.send(&piece).await;
                    path = (path + 1) % sockets.len();
                }
            }
            () = until(due) => queue.repeat(),
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn receive(
    socket: UdpSocket,
    k: usize,
    back: SocketAddr,
    mut outbox: Option<Outbox>,
    inbox: Inbox,
) -> Result<()> {
    let mut seen: BTreeMap<[u8; HEAD], BTreeSet<u8>> = BTreeMap::new();
    let mut buffer = [0u8; 2048];
    loop {
        let answer = async {
            match &mut outbox {
                Some(outbox) => outbox.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let len = received?;
                let got = buffer.get(..len).unwrap_or_default();
                let (Some(head), Some(index), Some(size)) = (
                    got.first_chunk::<HEAD>(),
                    got.get(HEAD),
                    got.get(HEAD + 1..).and_then(|s| s.first_chunk::<4>()),
                ) else { continue };
                let pieces = seen.entry(*head).or_default();
                let before = pieces.len();
                pieces.insert(*index);
                if pieces.len() >= k {
                    if before < k && let Some(arrived) = Arrived::now(head, u32::from_be_bytes(*size) as usize) {
                        let _ = inbox.send(arrived);
                    }
                    let mut told = vec![b'!'];
                    told.extend_from_slice(head);
                    let _ = socket.send_to(&told, back).await;
                }
            }
            message = answer => match message {
                // often enough to arrive
                Some(message) => {
                    for _ in 0..5 {
                        let _ = socket.send_to(&message.octets, back).await;
                    }
                }
                None => outbox = None,
            },
        }
    }
}
