//! The peers: programs that carry messages from one host to another, each in its own way.
//!
//! Every peer is this program, started in a host's namespace as `peer NAME ROLE key=value ..`. It
//! reads commands from its standard input and writes what happens to its standard output, with
//! times of the monotonic clock, which all processes share. A peer only has to take messages from
//! an outbox and put what arrives into an inbox; the workloads are the same code for all.

pub mod bare;
pub mod onezero;
pub mod pieces;
#[cfg(feature = "peers")]
pub mod quic;
pub mod tcp;
#[cfg(feature = "peers")]
pub mod tls;
pub mod vmdt_peer;

use std::io::BufRead;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, anyhow, bail};
use bytes::{BufMut, Bytes, BytesMut};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use tokio::sync::mpsc;

use crate::process::{Args, PRIORITY};
use crate::{clock, emulator};

/// Octets of a message's head: tag and number.
pub(crate) const HEAD: usize = 5;
/// Octets of one piece of bulk content, for peers that carry streams.
const PIECE: usize = 64 * 1024;
/// Octets of a request, and of its answer.
pub const REQUEST: usize = 1024;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Wants an answer of the same size.
    Request,
    /// The answer.
    Answer,
    /// One of a burst.
    Message,
    /// A piece of bulk content.
    Piece,
    /// Its last piece.
    Last,
}

impl Tag {
    fn octet(self) -> u8 {
        match self {
            Tag::Request => b'q',
            Tag::Answer => b'a',
            Tag::Message => b'm',
            Tag::Piece => b'k',
            Tag::Last => b'K',
        }
    }

    fn of(octet: u8) -> Option<Tag> {
        [
            Tag::Request,
            Tag::Answer,
            Tag::Message,
            Tag::Piece,
            Tag::Last,
        ]
        .into_iter()
        .find(|tag| tag.octet() == octet)
    }
}

/// A message to send. Its size is that of the octets, the head included.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) tag: Tag,
    pub(crate) octets: Bytes,
}

impl Message {
    fn new(tag: Tag, number: u32, size: usize) -> Message {
        let mut octets = BytesMut::with_capacity(size.max(HEAD));
        octets.put_u8(tag.octet());
        octets.put_u32(number);
        octets.resize(size.max(HEAD), 0x5a);
        Message {
            tag,
            octets: octets.freeze(),
        }
    }
}

/// What arrived, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    at: u64,
    tag: Tag,
    number: u32,
    octets: usize,
}

impl Arrived {
    /// Something whose first octets are `head` and that has `octets` in all; `None` if it is
    /// nothing of ours.
    pub(crate) fn now(head: &[u8], octets: usize) -> Option<Arrived> {
        let (&tag, number) = (head.first()?, head.get(1..HEAD)?);
        Some(Arrived {
            at: clock::nanos(),
            tag: Tag::of(tag)?,
            number: u32::from_be_bytes(number.try_into().ok()?),
            octets,
        })
    }

    /// A part of bulk content that has no head of its own.
    pub(crate) fn part(octets: usize, last: bool) -> Arrived {
        Arrived {
            at: clock::nanos(),
            tag: if last { Tag::Last } else { Tag::Piece },
            number: 0,
            octets,
        }
    }
}

/// Where a peer takes messages from. It is short, so that whoever fills it waits for the peer.
pub(crate) type Outbox = mpsc::Receiver<Message>;
/// Where a peer puts what arrives.
pub(crate) type Inbox = mpsc::UnboundedSender<Arrived>;

/// How a peer sends bulk content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bulk {
    /// In pieces.
    Pieces,
    /// As one message; what is more than one can be, as messages one after the other.
    Whole,
}

/// Prints a line for the lab.
#[allow(clippy::print_stdout)]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// A setting.
pub(crate) fn setting<T: std::str::FromStr>(args: &Args, key: &str) -> Result<T> {
    args.get(key)
        .ok_or_else(|| anyhow!("{key}= is missing"))?
        .parse()
        .map_err(|_| anyhow!("{key}= can't be read"))
}

/// The addresses of the other side, one for each path, the port included.
pub(crate) fn targets(args: &Args) -> Result<Vec<SocketAddr>> {
    let list: String = setting(args, "to")?;
    list.split(',')
        .map(|at| at.parse().with_context(|| format!("the address {at}")))
        .collect()
}

/// The own addresses, one for each path.
pub(crate) fn locals(args: &Args) -> Result<Vec<IpAddr>> {
    let list: String = setting(args, "at")?;
    list.split(',')
        .map(|at| at.parse().with_context(|| format!("the address {at}")))
        .collect()
}

/// Runs a peer: `NAME ROLE key=value ..`. Returns when it is told to quit.
///
/// # Errors
/// What went wrong, which is also printed for the lab as a line `error ..`.
pub fn main(words: &[String]) -> Result<()> {
    let result = start(words);
    if let Err(error) = &result {
        say(&format!("error {error:#}").replace('\n', " "));
    }
    result
}

fn start(words: &[String]) -> Result<()> {
    // the lab's thread that started this process ended, so has the lab
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let (Some(name), Some(role)) = (words.first(), words.get(1)) else {
        bail!("peer NAME ROLE key=value ..");
    };
    let args: Args = words
        .iter()
        .skip(2)
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let (forward, commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "hurry" {
                // what comes next is measured: this thread passes it on
                emulator::realtime(PRIORITY);
            }
            if forward.send(line).is_err() {
                return;
            }
        }
    });
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(name, role, args, commands))
}

async fn run(
    name: &str,
    role: &str,
    args: Args,
    mut commands: mpsc::UnboundedReceiver<String>,
) -> Result<()> {
    match role {
        "client" => client(name, args, commands).await,
        "server" => {
            let (outbox, to_send) = mpsc::channel(4);
            let (inbox, arrived) = mpsc::unbounded_channel();
            serve(name, args, to_send, inbox).await?;
            say("ready");
            tokio::select! {
                result = answer(arrived, outbox) => result,
                () = until_quit(&mut commands) => Ok(()),
            }
        }
        _ if name.starts_with("vmdt") => {
            let helper = vmdt_peer::help(role, &args).await?;
            until_quit(&mut commands).await;
            drop(helper);
            Ok(())
        }
        _ => bail!("no such role: {role}"),
    }
}

async fn until_quit(commands: &mut mpsc::UnboundedReceiver<String>) {
    while let Some(line) = commands.recv().await {
        match line.as_str() {
            "quit" => return,
            "cpu" => say_cpu(),
            "hurry" => hurry(),
            _ => {}
        }
    }
}

/// Asks for real-time priority for this thread, which does all of a peer's work.
fn hurry() {
    say(match emulator::realtime(PRIORITY) {
        true => "hurries",
        false => "hurries not",
    });
}

/// Processor time of this process so far, in microseconds.
fn say_cpu() {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let total = usage.user_time() + usage.system_time();
        say(&format!("cpu {}", total.num_microseconds()));
    }
}

/// Begins to serve; returns when clients may come.
async fn serve(name: &str, args: Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    match name {
        "tcp-cubic" | "tcp-bbr" | "mptcp-cubic" | "mptcp-bbr" => {
            tcp::serve(name, &args, outbox, inbox).await
        }
        "onezero" => onezero::serve(&args, outbox, inbox).await,
        "rdt" | "rdt-cubic" | "rdt-sealed" => bare::serve(name, &args, outbox, inbox).await,
        "pieces" | "pieces-rank" => pieces::serve(&args, outbox, inbox).await,
        "vmdt" => vmdt_peer::serve(&args, outbox, inbox).await,
        #[cfg(feature = "peers")]
        "tls-cubic" | "tls-bbr" => tls::serve(name, &args, outbox, inbox).await,
        #[cfg(feature = "peers")]
        "quinn" | "quinn-bbr" | "quinn-cubic" | "quinn-large" => {
            quic::quinn_peer::serve(name, &args, outbox, inbox).await
        }
        #[cfg(feature = "peers")]
        "noq" | "noq-bbr" => quic::noq_peer::serve(name, &args, outbox, inbox).await,
        _ => bail!("no such peer: {name} (QUIC and TLS need the feature `peers`)"),
    }
}

/// Connects; returns when messages can be sent, over all paths the peer has.
async fn connect(
    name: &str,
    args: &Args,
    known: Option<vmdt_peer::Known>,
    outbox: Outbox,
    inbox: Inbox,
) -> Result<()> {
    match name {
        "tcp-cubic" | "tcp-bbr" | "mptcp-cubic" | "mptcp-bbr" => {
            tcp::connect(name, args, outbox, inbox).await
        }
        "onezero" => onezero::connect(args, outbox, inbox).await,
        "rdt" | "rdt-cubic" | "rdt-sealed" => bare::connect(name, args, outbox, inbox).await,
        "pieces" | "pieces-rank" => pieces::connect(name, args, outbox, inbox).await,
        "vmdt" => vmdt_peer::connect(args, known, outbox, inbox).await,
        #[cfg(feature = "peers")]
        "tls-cubic" | "tls-bbr" => tls::connect(name, args, outbox, inbox).await,
        #[cfg(feature = "peers")]
        "quinn" | "quinn-bbr" | "quinn-cubic" | "quinn-large" => {
            quic::quinn_peer::connect(name, args, outbox, inbox).await
        }
        #[cfg(feature = "peers")]
        "noq" | "noq-bbr" => quic::noq_peer::connect(name, args, outbox, inbox).await,
        _ => bail!("no such peer: {name} (QUIC and TLS need the feature `peers`)"),
    }
}

/// The receiver: reports what arrives and answers requests.
async fn answer(
    mut arrived: mpsc::UnboundedReceiver<Arrived>,
    outbox: mpsc::Sender<Message>,
) -> Result<()> {
    let mut bulk = 0;
    let mut reported = 0;
    while let Some(arrived) = arrived.recv().await {
        match arrived.tag {
            Tag::Request => {
                let answer = Message::new(Tag::Answer, arrived.number, arrived.octets);
                outbox
                    .send(answer)
                    .await
                    .map_err(|_| anyhow!("the peer takes no answers any more"))?;
            }
            Tag::Message => say(&format!("m {} {}", arrived.number, arrived.at)),
            Tag::Piece | Tag::Last => {
                bulk += arrived.octets;
                if arrived.tag == Tag::Last || bulk >= reported + PIECE {
                    say(&format!("k {bulk} {}", arrived.at));
                    reported = bulk;
                }
                if arrived.tag == Tag::Last {
                    say(&format!("end {}", arrived.at));
                }
            }
            Tag::Answer => {}
        }
    }
    // the peer is done, the lab may still ask for something
    std::future::pending().await
}

/// The sender: does what it is told.
async fn client(
    name: &str,
    args: Args,
    mut commands: mpsc::UnboundedReceiver<String>,
) -> Result<()> {
    let (outbox, to_send) = mpsc::channel(4);
    let (inbox, mut arrived) = mpsc::unbounded_channel();
    let mut unconnected = Some((to_send, inbox));
    let bulk = match name {
        "vmdt" => Bulk::Whole,
        _ => Bulk::Pieces,
    };
    // numbers are never used twice: a peer may take a repeated one for a repetition
    let mut numbers = 0u32..;
    let mut fresh = move || numbers.next().unwrap_or_default();
    let mut known = match name {
        "vmdt" => vmdt_peer::know(&args).await?,
        _ => None,
    };
    say("ready");
    while let Some(line) = commands.recv().await {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let number = |at: usize| crate::process::number(&words, at);
        match words.first().map(String::as_str) {
            Some("connect") => {
                let (to_send, inbox) = unconnected.take().context("connected already")?;
                connect(name, &args, known.take(), to_send, inbox).await?;
                say(&format!("connected {}", clock::nanos()));
            }
            Some("mark") => say(&format!("mark {}", clock::nanos())),
            Some("requests") => {
                say(&format!("start {}", clock::nanos()));
                for _ in 0..number(1)? {
                    let i = fresh();
                    let begin = clock::nanos();
                    send(&outbox, Message::new(Tag::Request, i, REQUEST)).await?;
                    loop {
                        let answer = arrived.recv().await.context("the peer ended")?;
                        if answer.tag == Tag::Answer && answer.number == i {
                            say(&format!("r {i} {}", answer.at.saturating_sub(begin)));
                            break;
                        }
                    }
                }
                say(&format!("done {}", clock::nanos()));
            }
            Some("burst") => {
                let (count, size) = (u32::try_from(number(1)?)?, usize::try_from(number(2)?)?);
                let messages: Vec<Message> = (0..count)
                    .map(|_| Message::new(Tag::Message, fresh(), size))
                    .collect();
                say(&format!("start {}", clock::nanos()));
                for message in messages {
                    send(&outbox, message).await?;
                }
                say(&format!("done {}", clock::nanos()));
            }
            Some("bulk") => {
                let octets = usize::try_from(number(1)?)?;
                let piece = match bulk {
                    Bulk::Pieces => PIECE,
                    Bulk::Whole if octets <= vmdt_peer::MAX_MESSAGE => octets,
                    Bulk::Whole => vmdt_peer::MESSAGE,
                };
                say(&format!("start {}", clock::nanos()));
                let mut left = octets;
                while left > 0 {
                    let size = left.min(piece).max(HEAD);
                    left = left.saturating_sub(size);
                    let tag = if left == 0 { Tag::Last } else { Tag::Piece };
                    send(&outbox, Message::new(tag, fresh(), size)).await?;
                }
                say(&format!("done {}", clock::nanos()));
            }
            Some("cpu") => say_cpu(),
            Some("hurry") => hurry(),
            Some("quit") | None => return Ok(()),
            Some(other) => bail!("no such command: {other}"),
        }
    }
    Ok(())
}

async fn send(outbox: &mpsc::Sender<Message>, message: Message) -> Result<()> {
    outbox
        .send(message)
        .await
        .map_err(|_| anyhow!("the peer takes no messages any more"))
}
