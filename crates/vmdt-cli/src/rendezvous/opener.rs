//! The side that shows a code: it waits for whoever knows it.

use std::io;
use std::net::{IpAddr, SocketAddr};
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
    /// Somebody who knows the code was given an invitation.
    Redeemed(SocketAddr),
    /// Somebody guessed wrong: there is another code now.
    Voided { by: SocketAddr, key: Key },
    /// Too many guessed wrong: there is no code any more.
    Closed,
}

/// A code that is open. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Opener {
    /// The code and the addresses.
    pub(crate) key: Key,
    /// Where it listens.
    pub(crate) port: u16,
    pub(crate) events: mpsc::Receiver<Opened>,
    task: AbortHandle,
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A new code with a number from 1 to 999.
fn new_code() -> Outcome<Code> {
    let number = u16::from_be_bytes(crate::random()?) % MAX_NUMBER + 1;
    Code::generate(number, &mut UnwrapErr(SysRng)).map_err(Failure::failed)
}

/// What all rendezvous of one code share.
#[derive(Debug)]
struct Shared {
    /// One invitation for each that comes.
    invitations: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
    /// The code that is good now; none after too many wrong guesses.
    code: Mutex<Option<Code>>,
}

impl Shared {
    fn code(&self) -> std::sync::MutexGuard<'_, Option<Code>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opener {
    /// Shows a code for invitations, one for each that comes: whoever makes them is waited for.
    /// An earlier code and port are used again where they can be.
    ///
    /// # Errors
    /// When no socket can be had.
    pub(crate) async fn start(
        bind: IpAddr,
        earlier: Option<(Code, u16)>,
        invitations: mpsc::Receiver<Vec<u8>>,
        discovery_port: Option<u16>,
    ) -> Outcome<Opener> {
        let fail = |e: io::Error| Failure::failed(format!("no socket on {bind} can be had: {e}"));
        let port = earlier.as_ref().map_or(0, |(_, port)| *port);
        let listener = match TcpListener::bind((bind, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((bind, 0)).await.map_err(fail)?,
        };
        let port = listener.local_addr().map_err(fail)?.port();
        let code = match earlier {
            Some((code, _)) => code,
            None => new_code()?,
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
        let shared = Arc::new(Shared {
            invitations: invitations.into(),
            code: Mutex::new(Some(code)),
        });
        let (report, events) = mpsc::channel(16);
        let task =
            tokio::spawn(accept(listener, shared, responder, addresses, report)).abort_handle();
        Ok(Opener {
            key,
            port,
            events,
            task,
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

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    responder: Option<Responder>,
    addresses: Vec<SocketAddr>,
    report: mpsc::Sender<Opened>,
) {
    let room = Arc::new(Semaphore::new(MAX_AT_ONCE));
    let mut meetings: JoinSet<(SocketAddr, End)> = JoinSet::new();
    let mut wrong = 0;
    loop {
        tokio::select! {
            Ok(permit) = Arc::clone(&room).acquire_owned() => {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    // ends are to be heard of while nobody new comes
                    Some(ended) = meetings.join_next() => {
                        if !on_end(ended, &shared, &responder, &addresses, &report, &mut wrong).await {
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
                if !on_end(ended, &shared, &responder, &addresses, &report, &mut wrong).await {
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
    responder: &Option<Responder>,
    addresses: &[SocketAddr],
    report: &mpsc::Sender<Opened>,
    wrong: &mut u32,
) -> bool {
    let opened = match ended {
        Ok((from, End::Redeemed)) => Opened::Redeemed(from),
        Ok((from, End::WrongGuess)) => {
            *wrong += 1;
            let next = if *wrong < MAX_WRONG {
                new_code().ok()
            } else {
                None
            };
            shared.code().clone_from(&next);
            if let Some(responder) = responder {
                responder.set_number(next.as_ref().map(Code::number));
            }
            match next {
                Some(code) => Opened::Voided {
                    by: from,
                    key: Key {
                        code,
                        addresses: addresses.to_vec(),
                    },
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
    let Some(invitation) = shared.invitations.lock().await.recv().await else {
        return Ok(End::Nothing);
    };
    let Ok(sealed) = channel.seal(&invitation) else {
        return Ok(End::Nothing);
    };
    frames::write(&mut stream, &sealed).await?;
    Ok(End::Redeemed)
}
