//! Finding a sender on the same machine or the local network by the number of its code.
//!
//! The receiver asks, by multicast on every interface and by broadcast: `VMDQ` 0x01, number u16,
//! nonce (8). Whoever shows that number answers the asker: `VMDA` 0x01, nonce, TCP port u16. An
//! answer is no longer than its question, and says nothing that a port scan would not.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use crate::failure::{Exit, Failure, Outcome};

/// The group, of the block for private use within a site (RFC 2365).
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 86, 77);
const QUESTION: &[u8; 5] = b"VMDQ\x01";
const ANSWER: &[u8; 5] = b"VMDA\x01";
/// How often the question is asked.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// After the first answer, how long others are waited for.
const GATHER: Duration = Duration::from_millis(60);
/// Questions answered per second at the most.
const ANSWERS_PER_SECOND: u32 = 50;
/// The most senders that are tried for one number.
const MAX_FOUND: usize = 8;
/// No number is shown.
const NONE: u32 = u32::MAX;

/// IPv4 addresses of the interfaces to use; `bind` alone when it names one.
fn interfaces(bind: IpAddr) -> Vec<Ipv4Addr> {
    match bind {
        IpAddr::V4(ip) if !ip.is_unspecified() => vec![ip],
        _ => {
            let mut found: BTreeSet<Ipv4Addr> = if_addrs::get_if_addrs()
                .unwrap_or_default()
                .into_iter()
                .filter_map(|interface| match interface.ip() {
                    IpAddr::V4(ip) => Some(ip),
                    IpAddr::V6(_) => None,
                })
                .collect();
            found.insert(Ipv4Addr::LOCALHOST);
            found.into_iter().collect()
        }
    }
}

/// Answers questions for a number. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Responder {
    number: Arc<AtomicU32>,
    task: AbortHandle,
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Responder {
    /// Begins to answer.
    ///
    /// # Errors
    /// When the port can't be shared.
    pub(crate) fn start(bind: IpAddr, port: u16, number: u16, tcp: u16) -> Outcome<Responder> {
        let socket = listening(bind, port).map_err(|e| {
            Failure::failed(format!("nobody can find this sender: UDP port {port} can't be had: {e}"))
                .hint("VMDT_DISCOVERY_PORT chooses another port, on both sides; VMDT_DISCOVERY=false does without")
        })?;
        let number = Arc::new(AtomicU32::new(number.into()));
        let task = tokio::spawn(answer(socket, Arc::clone(&number), tcp)).abort_handle();
        Ok(Responder { number, task })
    }

    /// Answers for another number from now on, or for none.
    pub(crate) fn set_number(&self, number: Option<u16>) {
        self.number
            .store(number.map_or(NONE, u32::from), Ordering::Relaxed);
    }
}

/// A socket on a port that several programs share, in the group on every interface.
fn listening(bind: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    for interface in interfaces(bind) {
        // without multicast there is still broadcast, and the machine itself
        let _ = socket.join_multicast_v4(&GROUP, &interface);
    }
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(StdSocket::from(socket))
}

async fn answer(socket: UdpSocket, number: Arc<AtomicU32>, tcp: u16) {
    let mut buffer = [0; 64];
    let mut second = crate::clock::now();
    let mut answered = 0;
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            // an earlier answer could not be delivered: not of interest
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Some((asked, nonce)) = buffer.get(..len).and_then(question) else {
            continue;
        };
        if number.load(Ordering::Relaxed) != u32::from(asked) {
            continue;
        }
        let now = crate::clock::now();
        if now.saturating_duration_since(second) >= Duration::from_secs(1) {
            (second, answered) = (now, 0);
        }
        answered += 1;
        if answered > ANSWERS_PER_SECOND {
            continue;
        }
        let mut reply = ANSWER.to_vec();
        reply.extend(nonce);
        reply.extend(tcp.to_be_bytes());
        let _ = socket.send_to(&reply, from).await;
    }
}

fn question(octets: &[u8]) -> Option<(u16, [u8; 8])> {
    let (number, rest) = octets.strip_prefix(QUESTION)?.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest.try_into().ok()?))
}

fn reply(octets: &[u8], nonce: &[u8; 8]) -> Option<u16> {
    let port = octets.strip_prefix(ANSWER)?.strip_prefix(nonce)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    (port != 0).then_some(port)
}

/// Where senders with this number listen.
///
/// # Errors
/// [`Exit::NotFound`] when nobody answers until the deadline.
pub(crate) async fn find(
    bind: IpAddr,
    port: u16,
    number: u16,
    deadline: Instant,
) -> Outcome<Vec<SocketAddr>> {
    let started = crate::clock::now();
    let fail = |e: io::Error| Failure::failed(format!("no UDP socket can be had: {e}"));
    let local = match bind {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let socket = UdpSocket::bind((local, 0)).await.map_err(fail)?;
    let _ = socket.set_broadcast(true);
    let nonce: [u8; 8] = crate::random()?;
    let mut ask = QUESTION.to_vec();
    ask.extend(number.to_be_bytes());
    ask.extend(nonce);
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut buffer = [0; 64];
    loop {
        send_everywhere(&socket, bind, port, &ask).await;
        let mut until = (crate::clock::now() + ASK_EVERY).min(deadline.max(crate::clock::now()));
        while let Ok(received) = timeout_at(until.into(), socket.recv_from(&mut buffer)).await {
            let Ok((len, from)) = received else { continue };
            let Some(port) = buffer.get(..len).and_then(|octets| reply(octets, &nonce)) else {
                continue;
            };
            let at = SocketAddr::new(from.ip(), port);
            if found.is_empty() {
                until = crate::clock::now() + GATHER;
            }
            // one sender on this machine answers from several of its addresses
            if !found.contains(&at) && found.len() < MAX_FOUND {
                found.push(at);
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        if crate::clock::now() >= deadline {
            return Err(not_found(
                number,
                crate::clock::now()
                    .saturating_duration_since(started)
                    .as_secs(),
            ));
        }
    }
}

async fn send_everywhere(socket: &UdpSocket, bind: IpAddr, port: u16, ask: &[u8]) {
    for interface in interfaces(bind) {
        if SockRef::from(socket)
            .set_multicast_if_v4(&interface)
            .is_ok()
        {
            let _ = socket.send_to(ask, SocketAddrV4::new(GROUP, port)).await;
        }
    }
    if !bind.is_loopback() {
        let _ = socket
            .send_to(ask, SocketAddrV4::new(Ipv4Addr::BROADCAST, port))
            .await;
    }
    let _ = socket
        .send_to(ask, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
        .await;
}

pub(crate) fn not_found(number: u16, seconds: u64) -> Failure {
    Failure::new(Exit::NotFound, format!("nobody on this network shows a code with the number {number} ({seconds} s)"))
        .hint("is the sender running, and is the code right? On another network, use the ticket line it shows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_port() -> u16 {
        StdSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    #[tokio::test]
    async fn a_sender_is_found_by_its_number_beside_others() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let port = free_port();
        let first = Responder::start(local, port, 7, 1111).unwrap();
        let _second = Responder::start(local, port, 8, 2222).unwrap();
        let soon = || crate::clock::now() + Duration::from_secs(5);
        for (number, tcp) in [(7, 1111), (8, 2222)] {
            let found = find(local, port, number, soon()).await.unwrap();
            assert_eq!(found, [SocketAddr::new(local, tcp)]);
        }
        first.set_number(Some(9));
        assert!(find(local, port, 9, soon()).await.is_ok());
        let error = find(local, port, 7, crate::clock::now()).await.unwrap_err();
        assert_eq!(error.exit, Exit::NotFound);
    }

    #[test]
    fn an_answer_is_no_longer_than_its_question_and_needs_its_nonce() {
        let mut ask = QUESTION.to_vec();
        ask.extend([0, 7, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(question(&ask), Some((7, [1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(question(&ask[..14]), None);
        let mut answer = ANSWER.to_vec();
        answer.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x01]);
        assert!(answer.len() <= ask.len());
        assert_eq!(reply(&answer, &[1, 2, 3, 4, 5, 6, 7, 8]), Some(0x1001));
        assert_eq!(reply(&answer, &[0; 8]), None);
    }
}
