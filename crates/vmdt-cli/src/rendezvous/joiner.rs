//! The side that types a code.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vmdt_seal::code::{Pake, Role};

use super::{Key, discovery, frames};
use crate::failure::{Exit, Failure, Outcome};

/// How long the exchange may take once connected.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to look for the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    pub(crate) bind: IpAddr,
    /// UDP port of discovery; none when it is switched off.
    pub(crate) port: Option<u16>,
    /// How long to look.
    pub(crate) wait: Duration,
    /// How long one connection may take.
    pub(crate) connect: Duration,
}

/// Finds the other side and gets the ticket. Gives the address it was found at, too.
///
/// # Errors
/// [`Exit::NotFound`] when nobody is found, [`Exit::WrongCode`] when the code is wrong.
pub(crate) async fn redeem(key: &Key, search: &Search) -> Outcome<(Vec<u8>, SocketAddr)> {
    let deadline = crate::clock::now() + search.wait;
    loop {
        let addresses = if key.addresses.is_empty() {
            let Some(port) = search.port else {
                return Err(Failure::new(
                    Exit::NotFound,
                    "a code alone needs discovery, which is switched off here",
                )
                .hint("use the ticket line that the sender shows, or set VMDT_DISCOVERY=true"));
            };
            discovery::find(search.bind, port, key.code.number(), deadline).await?
        } else {
            key.addresses.clone()
        };
        // one that vanishes halfway is looked for again
        if let Some((stream, from)) = connect(&addresses, search.connect).await
            && let Ok(Ok(ticket)) = timeout(PATIENCE, exchange(stream, key)).await
        {
            return ticket.map(|ticket| (ticket, from));
        }
        if crate::clock::now() >= deadline {
            return Err(nobody(key, search));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn nobody(key: &Key, search: &Search) -> Failure {
    let seconds = search.wait.as_secs();
    if key.addresses.is_empty() {
        discovery::not_found(key.code.number(), seconds)
    } else {
        let list: Vec<_> = key.addresses.iter().map(ToString::to_string).collect();
        Failure::new(
            Exit::NotFound,
            format!("nobody answered at {} for {seconds} s", list.join(", ")),
        )
        .hint("is the sender still running, and does a firewall stand between?")
    }
}

/// The first of several addresses that answers.
async fn connect(addresses: &[SocketAddr], patience: Duration) -> Option<(TcpStream, SocketAddr)> {
    let mut attempts = JoinSet::new();
    for address in addresses.iter().copied() {
        attempts.spawn(async move {
            let stream = timeout(patience, TcpStream::connect(address))
                .await
                .ok()?
                .ok()?;
            Some((stream, address))
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        if let Ok(Some(found)) = attempt {
            return Some(found);
        }
    }
    None
}

/// The words are wrong; what to do about it.
pub(super) fn wrong_code() -> Failure {
    Failure::new(Exit::WrongCode, "the code is wrong")
        .hint("the sender shows a new code now: a code is good for one guess")
}

/// Runs the exchange; the outer error is the connection's.
async fn exchange(mut stream: TcpStream, key: &Key) -> io::Result<Outcome<Vec<u8>>> {
    let _ = stream.set_nodelay(true);
    let (pake, ours) = Pake::start(Role::Joiner, &key.code, &mut UnwrapErr(SysRng));
    let mut first = frames::MARK.to_vec();
    first.extend(key.code.number().to_be_bytes());
    first.extend(ours);
    frames::write(&mut stream, &first).await?;
    let theirs = frames::read(&mut stream).await?;
    if theirs.is_empty() {
        return Ok(Err(Failure::new(
            Exit::WrongCode,
            format!(
                "the sender does not know the number {} (any more)",
                key.code.number()
            ),
        )
        .hint("ask for the code that the sender shows now")));
    }
    let Ok((confirming, confirmation)) = pake.finish(&theirs) else {
        return Ok(Err(wrong_code()));
    };
    frames::write(&mut stream, &confirmation).await?;
    let theirs = frames::read(&mut stream).await?;
    if theirs.is_empty() {
        return Ok(Err(wrong_code()));
    }
    let Ok(mut channel) = confirming.confirm(&theirs) else {
        return Ok(Err(wrong_code()));
    };
    let sealed = frames::read(&mut stream).await?;
    Ok(match channel.open(&sealed) {
        Ok(ticket) => Ok(ticket.to_vec()),
        Err(_) => Err(wrong_code()),
    })
}
