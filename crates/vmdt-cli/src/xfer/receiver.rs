//! The receiver's side of a session.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until, timeout};

use super::entry::{Entry, Kind, MAX_ENTRIES, admit, total};
use super::instant;
use super::sink::{Saved, Sink, Target};
use super::tally::Tally;
use super::wire::{Message, Record, TOKEN_LEN};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::Peer;
use crate::net::link::{Carried, Happened, Link};
use crate::out::Out;
use crate::text::{count, octets, printable};

/// How long telling the other side about a failure may take.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often it is looked whether the sender can be reached.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The most pages of an offer.
const MAX_PAGES: u32 = 4096;
/// Frames that wait for the disk.
const QUEUE: usize = 2;
/// Octets that sessions without content bring, at most, within the patience for a silent sender.
const KEEP_ALIVES: u64 = 16 * 1024;
/// How often the paths are asked for their figures.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// What is received, from whom, and where it goes.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) link: &'a mut Link,
    pub(crate) peer: Peer,
    pub(crate) token: [u8; TOKEN_LEN],
    pub(crate) target: &'a Target,
    pub(crate) out: &'a Out,
    pub(crate) tally: &'a Tally,
    /// Silence after which the sender counts as gone.
    pub(crate) patience: Duration,
    /// Whether the person has agreed already.
    pub(crate) agreed: &'a mut bool,
}

/// A transfer that has ended well.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) saved: Saved,
    pub(crate) entries: Vec<Entry>,
}

/// What the thread that writes says.
enum Written {
    Octets { done: u64, same: u64 },
    Whole(Box<Outcome<Saved>>),
}

impl Session<'_> {
    /// Receives everything.
    ///
    /// # Errors
    /// [`Exit::Vanished`] when the sender is gone; else what went wrong, told to the sender.
    pub(crate) async fn run(mut self) -> Outcome<Received> {
        let number = u64::from_be_bytes(crate::random()?);
        let result = tokio::select! {
            result = self.receive(number) => result,
            () = crate::stop::asked() => Err(self.stopped()),
        };
        if let Err(failure) = &result
            && failure.exit != Exit::Vanished
        {
            self.give_up(number, failure).await;
        }
        result
    }

    /// The end that the person asked for.
    fn stopped(&self) -> Failure {
        let stopped = Failure::interrupted();
        match (self.target, self.tally.summary()) {
            (Target::Folder { .. }, (done, ..)) if done > 0 => {
                stopped.hint("what arrived is kept: the same command continues")
            }
            _ => stopped,
        }
    }

    async fn give_up(&self, number: u64, failure: &Failure) {
        let failed = Message::Failed {
            exit: failure.exit as u8,
            text: failure.message.clone(),
        };
        let messenger = self.link.messenger();
        let telling = messenger.send(self.peer, failed.encode(number));
        let _ = timeout(LAST_WORDS, telling).await;
    }

    async fn receive(&mut self, number: u64) -> Outcome<Received> {
        self.reach().await?;
        self.say(number, &Message::Hello { token: self.token })
            .await?;
        let entries = admit(self.offer(number).await?)?;
        self.agree(&entries).await?;
        let target = self.target.clone();
        let offered = entries.clone();
        let (mut sink, haves) = spawn_blocking(move || Sink::prepare(offered, &target))
            .await
            .map_err(|_| Failure::failed("getting ready for the files was cut short"))??;
        for have in &haves {
            self.say(number, have).await?;
        }
        self.tally.begin(total(&entries));
        self.say(
            number,
            &Message::Go {
                haves: haves.len() as u32,
            },
        )
        .await?;

        let (frames, mut queue) = mpsc::channel::<Vec<Record>>(QUEUE);
        let (report, mut written) = mpsc::channel::<Written>(QUEUE);
        std::thread::spawn(move || {
            // an offer of folders and links alone has no content to wait for
            while !sink.is_whole() {
                let Some(records) = queue.blocking_recv() else {
                    return;
                };
                let (mut done, mut same) = (0, 0);
                for record in records {
                    let known = matches!(record, Record::Same { .. });
                    match sink.apply(record) {
                        Ok(octets) => {
                            done += octets;
                            same += if known { octets } else { 0 };
                        }
                        Err(failure) => {
                            let _ = report.blocking_send(Written::Whole(Box::new(Err(failure))));
                            return;
                        }
                    }
                }
                if report
                    .blocking_send(Written::Octets { done, same })
                    .is_err()
                {
                    return;
                }
            }
            let _ = report.blocking_send(Written::Whole(Box::new(sink.finish())));
        });

        let saved = self.content(number, &frames, &mut written).await?;
        let (done, ..) = self.tally.summary();
        // it stands here whatever the sender learns of it
        let _ = timeout(
            LAST_WORDS * 2,
            self.say(number, &Message::Done { octets: done }),
        )
        .await;
        Ok(Received { saved, entries })
    }

    /// Passes content to the disk until everything stands there.
    async fn content(
        &mut self,
        number: u64,
        frames: &mpsc::Sender<Vec<Record>>,
        written: &mut mpsc::Receiver<Written>,
    ) -> Outcome<Saved> {
        let mut last = instant();
        let mut brought = 0;
        let mut sampled = tokio::time::interval(SAMPLE_EVERY);
        let mut waiting: Option<Vec<Record>> = None;
        loop {
            let silence = sleep_until(last + self.patience);
            tokio::select! {
                report = written.recv() => match report {
                    Some(Written::Octets { done, same }) => {
                        last = instant();
                        self.tally.advance(done, same);
                    }
                    Some(Written::Whole(result)) => return *result,
                    None => return Err(Failure::failed("writing the files was cut short")),
                },
                // what is on its way to the disk comes before what is new: memory is bounded
                permit = frames.reserve(), if waiting.is_some() => {
                    if let (Ok(permit), Some(records)) = (permit, waiting.take()) {
                        permit.send(records);
                    }
                }
                message = next(self.link, self.peer, number, self.tally), if waiting.is_none() => {
                    last = instant();
                    match message? {
                        Message::Frame { records } => waiting = Some(records),
                        Message::Failed { exit, text } => return Err(told(self.peer, exit, &text)),
                        _ => {}
                    }
                }
                _ = sampled.tick() => {
                    let paths = self.link.paths().await;
                    self.tally.sample(&paths);
                    // a chunk may take longer than a person's patience on a slow way
                    let now: u64 = paths.iter().map(|path| path.stats.octets_received).sum();
                    if now.saturating_sub(brought) > KEEP_ALIVES {
                        last = instant();
                    }
                    // a session that began anew counts from nothing
                    if now.abs_diff(brought) > KEEP_ALIVES {
                        brought = now;
                    }
                }
                () = silence => return Err(silent(self.peer, self.patience)),
            }
        }
    }

    /// Waits until messages to the sender can be sent.
    async fn reach(&mut self) -> Outcome<()> {
        let deadline = instant() + self.patience;
        while !self.link.can_reach(self.peer).await? {
            if instant() > deadline {
                return Err(silent(self.peer, self.patience));
            }
            tokio::select! {
                happened = self.link.next() => {
                    lost(happened, self.peer)?;
                }
                () = sleep(LOOK_AGAIN) => {}
            }
        }
        Ok(())
    }

    async fn say(&mut self, number: u64, message: &Message) -> Outcome<()> {
        let carried = self
            .link
            .messenger()
            .send(self.peer, message.encode(number))
            .await?;
        self.tally.carried(&carried);
        Ok(())
    }

    /// All pages of the offer.
    async fn offer(&mut self, number: u64) -> Outcome<Vec<Entry>> {
        let mut pages: std::collections::BTreeMap<u32, Vec<Entry>> = Default::default();
        let mut held = 0;
        loop {
            let next = timeout(
                self.patience,
                next(self.link, self.peer, number, self.tally),
            );
            match next.await.map_err(|_| silent(self.peer, self.patience))?? {
                Message::Offer {
                    page,
                    pages: all,
                    entries,
                } => {
                    held += entries.len();
                    if page >= all || all > MAX_PAGES || held > MAX_ENTRIES {
                        return Err(Failure::new(
                            Exit::Corrupt,
                            "the sender offers more than can be taken",
                        ));
                    }
                    pages.insert(page, entries);
                    if pages.len() as u32 == all {
                        return Ok(pages.into_values().flatten().collect());
                    }
                }
                Message::Failed { exit, text } => return Err(told(self.peer, exit, &text)),
                _ => {}
            }
        }
    }

    /// Shows what is offered and asks the person at a terminal.
    async fn agree(&mut self, entries: &[Entry]) -> Outcome<()> {
        let files = entries.iter().filter(|e| e.has_content()).count() as u64;
        let size = total(entries);
        let tops: Vec<String> = entries
            .iter()
            .filter(|e| e.path.len() == 1)
            .map(Entry::display)
            .collect();
        self.out.event(
            "offer",
            serde_json::json!({ "from": self.peer.as_str(), "names": tops, "files": files, "octets": size }),
        );
        if *self.agreed {
            return Ok(());
        }
        let is_text = entries.iter().any(|e| matches!(e.kind, Kind::Text { .. }));
        if is_text {
            *self.agreed = true;
            return Ok(());
        }
        let shown: Vec<String> = tops.iter().take(5).map(|name| printable(name)).collect();
        let more = if tops.len() > 5 {
            format!(" and {} more", tops.len() - 5)
        } else {
            String::new()
        };
        let what = format!(
            "{}{more} ({}, {})",
            shown.join(", "),
            count(files, "file"),
            size.map_or("size unknown".into(), octets)
        );
        if self.out.is_terminal()
            && !self.out.says_yes()
            && std::io::IsTerminal::is_terminal(&std::io::stdin())
        {
            // on a thread of its own, so that Ctrl-C is heard meanwhile
            let (out, question) = (self.out.clone(), format!("Receive {what}?"));
            let answer = spawn_blocking(move || out.confirm(&question)).await;
            if !answer.map_err(|_| Failure::failed("no answer could be read"))?? {
                return Err(Failure::new(Exit::Refused, "the receiver said no"));
            }
        } else {
            self.out.say(format!("receiving {what}"));
        }
        *self.agreed = true;
        Ok(())
    }
}

/// The next message of this session.
///
/// Cancel safe.
async fn next(link: &mut Link, peer: Peer, number: u64, tally: &Tally) -> Outcome<Message> {
    loop {
        let happened = link.next().await;
        if let Some((data, carried)) = lost(happened, peer)?
            && let Some((session, message)) = Message::decode(&data)
            && session == number
        {
            tally.carried(&carried);
            return Ok(message);
        }
    }
}

/// A message from the sender, or the news that it is gone.
fn lost(happened: Option<Happened>, peer: Peer) -> Outcome<Option<(bytes::Bytes, Carried)>> {
    let gone = |why: &str| {
        Err(Failure::new(
            Exit::Vanished,
            format!("the sender {peer} vanished{why}"),
        ))
    };
    match happened {
        Some(Happened::Message {
            from,
            data,
            carried,
        }) if from == peer => Ok(Some((data, carried))),
        Some(Happened::Gone(id)) if id == peer => gone(""),
        Some(Happened::ServerLost(reason)) => gone(&format!(
            ": the connection to its server is lost ({reason})"
        )),
        Some(Happened::ClusterLost(reason)) => gone(&format!(": {reason}")),
        None => Err(Failure::failed("the node was closed")),
        Some(_) => Ok(None),
    }
}

fn silent(peer: Peer, patience: Duration) -> Failure {
    Failure::new(
        Exit::Vanished,
        format!(
            "nothing came from the sender {peer} for {} s",
            patience.as_secs()
        ),
    )
}

fn told(peer: Peer, exit: u8, text: &str) -> Failure {
    let exit = match Exit::from_number(exit) {
        Exit::Interrupted => Exit::Vanished,
        exit => exit,
    };
    Failure::new(exit, format!("the sender {peer} says: {text}"))
}
