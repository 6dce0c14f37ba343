//! The side that shows a code: it waits for whoever knows it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use vmdt_seal::code::{Code, Pake, Role};

use super::discovery::Responder;
use super::online::{self, Online};
use super::{Key, frames};
use crate::failure::{Failure, Outcome};
use crate::net::local;

/// How long one rendezvous may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rendezvous at once; more wait to be accepted.
const MAX_AT_ONCE: usize = 16;
/// Wrong guesses after which no new code is shown.
const MAX_WRONG: u32 = 10;
/// The largest number of a code; small ones are easy to say.
const MAX_NUMBER: u16 = 999;

/// What happens while a code is shown.
#[derive(Debug, Clone)]
pub(crate) enum Opened {
    /// Somebody who knows the code was given an invitation; from where, unless it came by the
    /// server.
    Redeemed(Option<SocketAddr>),
    /// There is another code now.
    Renewed { why: Why, key: Key },
    /// Too many guessed wrong: there is no code any more.
    Closed,
}

/// Why there is another code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody guessed wrong; from where, unless it came by the server.
    WrongGuess(Option<SocketAddr>),
    /// At the server a code is used once.
    Used,
    /// At the server a code lives ten minutes, and no longer than the connection to it.
    Old,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::WrongGuess(Some(by)) => write!(
                f,
                "somebody at {} tried a wrong code; there is a new one now",
                by.ip()
            ),
            Why::WrongGuess(None) => {
                f.write_str("somebody tried a wrong code; there is a new one now")
            }
            Why::Used => f.write_str("for the next one there is a new code"),
            Why::Old => f.write_str("the server has forgotten the code; there is a new one now"),
        }
    }
}

/// What becomes of a code on the local network.
#[derive(Debug, Clone, Copy)]
pub(super) enum Nearby {
    Used,
    WrongGuess(SocketAddr),
}

/// A code that is open. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Opener {
    /// The code and the addresses.
    pub(crate) key: Key,
    /// Where it listens.
    pub(crate) port: u16,
    /// Whether the code is good at the server, too.
    pub(crate) is_online: bool,
    pub(crate) events: mpsc::Receiver<Opened>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Opener {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A new code with a number from 1 to 999.
fn new_code() -> Outcome<Code> {
    let number = u16::from_be_bytes(crate::random()?) % MAX_NUMBER + 1;
    Code::generate(number, &mut UnwrapErr(SysRng)).map_err(Failure::failed)
}

/// What all rendezvous of one code share.
#[derive(Debug)]
pub(super) struct Shared {
    /// One invitation for each that comes.
    invitations: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
    /// The code that is good now; none after too many wrong guesses.
    code: Mutex<Option<Code>>,
    /// Where it is good on the local network.
    addresses: Vec<SocketAddr>,
    responder: Option<Responder>,
    wrong: AtomicU32,
    /// Tells the one who offers codes at the server, where there is one.
    online: Option<mpsc::Sender<Nearby>>,
}

impl Shared {
    fn code(&self) -> std::sync::MutexGuard<'_, Option<Code>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An invitation for the next that comes.
    pub(super) async fn invitation(&self) -> Option<Vec<u8>> {
        self.invitations.lock().await.recv().await
    }

    /// Makes this the code that is good; gives it with its addresses.
    pub(super) fn show(&self, code: Option<Code>) -> Option<Key> {
        self.code().clone_from(&code);
        if let Some(responder) = &self.responder {
            responder.set_number(code.as_ref().map(Code::number));
        }
        code.map(|code| Key {
            code,
            addresses: self.addresses.clone(),
        })
    }

    /// Counts a wrong guess; whether there are too many now.
    pub(super) fn is_last_wrong_guess(&self) -> bool {
        self.wrong.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_WRONG
    }
}

impl Opener {
    /// Shows a code for invitations, one for each that comes: whoever makes them is waited for.
    /// An earlier code and port are used again where they can be: the code as long as the server, if
    /// there is one, gives out its number again.
    ///
    /// # Errors
    /// When no socket can be had.
    pub(crate) async fn start(
        bind: IpAddr,
        earlier: Option<(Code, u16)>,
        invitations: mpsc::Receiver<Vec<u8>>,
        discovery_port: Option<u16>,
        online: Option<Online>,
    ) -> Outcome<Opener> {
        let fail = |e: io::Error| Failure::failed(format!("no socket on {bind} can be had: {e}"));
        let port = earlier.as_ref().map_or(0, |(_, port)| *port);
        let listener = match TcpListener::bind((bind, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((bind, 0)).await.map_err(fail)?,
        };
        let port = listener.local_addr().map_err(fail)?.port();
        // a server that gives out no codes has tickets all the same
        let offered = match online {
            Some(online) => {
                let offer = match &earlier {
                    Some((code, _)) => online.node.offer_code_again(code).await,
                    None => online.node.offer_code().await,
                };
                offer.ok().map(|offer| (online, offer))
            }
            None => None,
        };
        let code = match (&offered, earlier) {
            (Some((_, offer)), _) => offer.code().clone(),
            (None, Some((code, _))) => code,
            (None, None) => new_code()?,
        };
        let addresses: Vec<SocketAddr> = local::addresses(bind)
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect();
        let key = Key {
            code: code.clone(),
            addresses: addresses.clone(),
        };
        let responder = match discovery_port {
            Some(discovery) => Some(Responder::start(bind, discovery, code.number(), port)?),
            None => None,
        };
        let (report, events) = mpsc::channel(16);
        let (near, nearby) = mpsc::channel(MAX_AT_ONCE);
        let is_online = offered.is_some();
        let shared = Arc::new(Shared {
            invitations: invitations.into(),
            code: Mutex::new(Some(code)),
            addresses,
            responder,
            wrong: AtomicU32::new(0),
            online: offered.is_some().then_some(near),
        });
        let mut tasks = Vec::new();
        if let Some((online, offer)) = offered {
            let offering = online::offer(online, offer, nearby, shared.clone(), report.clone());
            tasks.push(tokio::spawn(offering).abort_handle());
        }
        tasks.push(tokio::spawn(accept(listener, shared, report)).abort_handle());
        Ok(Opener {
            key,
            port,
            is_online,
            events,
            tasks,
        })
    }

    /// The next thing that happens; never, once the code is closed.
    pub(crate) async fn next(&mut self) -> Opened {
        match self.events.recv().await {
            Some(opened) => opened,
            None => std::future::pending().await,
        }
    }
}

/// The same invitation for everybody.
pub(crate) fn always(invitation: Vec<u8>) -> mpsc::Receiver<Vec<u8>> {
    let (give, invitations) = mpsc::channel(1);
    tokio::spawn(async move { while give.send(invitation.clone()).await.is_ok() {} });
    invitations
}

enum End {
    Redeemed,
    WrongGuess,
    Nothing,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, report: mpsc::Sender<Opened>) {
    let room = Arc::new(Semaphore::new(MAX_AT_ONCE));
    let mut meetings: JoinSet<(SocketAddr, End)> = JoinSet::new();
    loop {
        tokio::select! {
            Ok(permit) = Arc::clone(&room).acquire_owned() => {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    // ends are to be heard of while nobody new comes
                    Some(ended) = meetings.join_next() => {
                        if !on_end(ended, &shared, &report).await {
                            return;
                        }
                        continue;
                    }
                };
                match accepted {
                    Ok((stream, from)) => {
                        let shared = Arc::clone(&shared);
                        meetings.spawn(async move {
                            let _permit = permit;
                            let end = timeout(PATIENCE, meet(stream, &shared)).await;
                            (from, end.unwrap_or(Ok(End::Nothing)).unwrap_or(End::Nothing))
                        });
                    }
                    // out of descriptors, mostly: let some end first
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            Some(ended) = meetings.join_next() => {
                if !on_end(ended, &shared, &report).await {
                    return;
                }
            }
        }
    }
}

/// Deals with the end of a meeting; false when nobody listens any more.
async fn on_end(
    ended: Result<(SocketAddr, End), tokio::task::JoinError>,
    shared: &Shared,
    report: &mpsc::Sender<Opened>,
) -> bool {
    let opened = match ended {
        Ok((from, End::Redeemed)) => {
            if let Some(online) = &shared.online {
                let _ = online.send(Nearby::Used).await;
            }
            Opened::Redeemed(Some(from))
        }
        Ok((from, End::WrongGuess)) => {
            shared.show(None);
            let closed = shared.is_last_wrong_guess();
            match &shared.online {
                // the next code is the server's
                Some(online) if !closed => {
                    return online.send(Nearby::WrongGuess(from)).await.is_ok();
                }
                _ => {}
            }
            let next = if closed { None } else { new_code().ok() };
            match shared.show(next) {
                Some(key) => Opened::Renewed {
                    why: Why::WrongGuess(Some(from)),
                    key,
                },
                None => Opened::Closed,
            }
        }
        _ => return true,
    };
    report.send(opened).await.is_ok()
}

/// One rendezvous, from its beginning to its end.
async fn meet(mut stream: TcpStream, shared: &Shared) -> io::Result<End> {
    let _ = stream.set_nodelay(true);
    let first = frames::read(&mut stream).await?;
    let Some((number, theirs)) = first
        .strip_prefix(frames::MARK)
        .and_then(|rest| rest.split_first_chunk::<2>())
    else {
        return Ok(End::Nothing);
    };
    let number = u16::from_be_bytes(*number);
    let code = shared.code().clone().filter(|code| code.number() == number);
    let Some(code) = code else {
        frames::write(&mut stream, b"").await?;
        return Ok(End::Nothing);
    };
    let (pake, ours) = Pake::start(Role::Opener, &code, &mut UnwrapErr(SysRng));
    let Ok((confirming, confirmation)) = pake.finish(theirs) else {
        return Ok(End::Nothing);
    };
    frames::write(&mut stream, &ours).await?;
    let theirs = frames::read(&mut stream).await?;
    // the other side shows first that it knows the code: until then it has learnt nothing
    let Ok(mut channel) = confirming.confirm(&theirs) else {
        let _ = frames::write(&mut stream, b"").await;
        return Ok(End::WrongGuess);
    };
    // while this one was under way another one may have guessed wrong
    if shared
        .code()
        .as_ref()
        .is_none_or(|now| now.to_string() != code.to_string())
    {
        frames::write(&mut stream, b"").await?;
        return Ok(End::Nothing);
    }
    frames::write(&mut stream, &confirmation).await?;
    let Some(invitation) = shared.invitation().await else {
        return Ok(End::Nothing);
    };
    let Ok(sealed) = channel.seal(&invitation) else {
        return Ok(End::Nothing);
    };
    frames::write(&mut stream, &sealed).await?;
    Ok(End::Redeemed)
}
