//! The sender's side of a session with one receiver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::entry::total;
use super::source::{Have, Source};
use super::tally::Tally;
use super::wire::{Message, offers};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::Peer;
use crate::net::link::{Carried, Messenger};

/// Digests of an earlier attempt that are taken in (4 TiB of content); beyond it everything is
/// sent.
const MAX_KNOWN: usize = 4 << 20;

/// Messages of the receiver that are kept until it is their turn; one that says more is given up.
const MAX_EARLY: usize = 1024;

/// How long what is under way may take to arrive: what stands behind it in the queue waits as
/// long, and is not to be taken for what stands still.
const UNDER_WAY: Duration = Duration::from_secs(3);

/// Frames beside those that fill the way: one that is being confirmed, one that is sent, one that
/// is next. More would cost memory and bring nothing.
const BESIDE: usize = 3;

/// Frames that may be under way at once when so many octets have arrived in this time over ways
/// that hold `window` octets. The first one is alone: how fast the way is, is not known.
fn at_once(most: usize, window: u64, arrived: u64, took: Duration) -> usize {
    let per_second = arrived as f64 / took.as_secs_f64().max(0.001);
    let frames = per_second * UNDER_WAY.as_secs_f64() / super::CHUNK as f64;
    let filling = usize::try_from(window / super::CHUNK as u64).unwrap_or(most);
    (frames as usize).clamp(1, most.min(BESIDE.saturating_add(filling)))
}

/// A session with one receiver.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) messenger: Messenger,
    pub(crate) peer: Peer,
    pub(crate) number: u64,
    /// Messages of this session from the receiver; closed when it is gone.
    pub(crate) inbox: mpsc::Receiver<Message>,
    /// Messages that came before they were asked for; not more than the receiver has to say until
    /// the offer is confirmed to this side.
    pub(crate) early: VecDeque<Message>,
    pub(crate) source: Arc<Source>,
    /// Frames under way at once.
    pub(crate) streams: usize,
    /// Whether the person chose their number.
    pub(crate) fixed: bool,
    pub(crate) tally: Tally,
}

impl Session {
    /// Offers, sends what is missing and waits until it stands at the receiver's. Gives the
    /// octets of content.
    ///
    /// # Errors
    /// [`Exit::Vanished`] when the receiver is gone; else what went wrong, told to the receiver.
    pub(crate) async fn run(mut self) -> Outcome<u64> {
        let result = self.transfer().await;
        if let Err(failure) = &result
            && failure.exit != Exit::Vanished
        {
            let failed = Message::Failed {
                exit: failure.exit as u8,
                text: failure.message.clone(),
            };
            let telling = self.messenger.send(self.peer, failed.encode(self.number));
            let _ = tokio::time::timeout(super::receiver::LAST_WORDS, telling).await;
        }
        result
    }

    async fn transfer(&mut self) -> Outcome<u64> {
        let entries = self.source.entries();
        for page in offers(&entries) {
            self.send(&page).await?;
        }
        let have = self.have().await?;
        self.tally.begin(total(&entries));
        let mut frames = self.source.read(have);
        let mut under_way: JoinSet<Outcome<(Carried, u64)>> = JoinSet::new();
        let mut reading = true;
        // what stands at the receiver's, and until when confirmations are still waited for: its
        // last word may overtake them
        let mut done: Option<(u64, Instant)> = None;
        let (begun, mut arrived) = (super::instant(), 0);
        let mut streams = if self.fixed { self.streams } else { 1 };
        while reading || !under_way.is_empty() {
            let late = done.map_or_else(super::instant, |(_, until)| until);
            tokio::select! {
                frame = frames.recv(), if reading && under_way.len() < streams => match frame {
                    Some(frame) => {
                        let frame = frame?;
                        self.tally.advance(frame.same, frame.same);
                        let (messenger, peer, number) = (self.messenger.clone(), self.peer, self.number);
                        under_way.spawn(async move {
                            let carried = frame.carried;
                            let octets = frame.packed.encode(number);
                            Ok((messenger.send(peer, octets).await?, carried))
                        });
                    }
                    None => reading = false,
                },
                Some(sent) = under_way.join_next() => {
                    let sent = sent.map_err(|_| Failure::failed("a task ended early"))?;
                    let (carried, octets) = match sent {
                        Ok(sent) => sent,
                        // it has everything, whatever became of the confirmation
                        Err(_) if done.is_some() => continue,
                        Err(failure) => return Err(failure),
                    };
                    self.tally.carried(&carried);
                    self.tally.advance(octets, 0);
                    arrived += octets;
                    if !self.fixed {
                        let took = super::instant().saturating_duration_since(begun);
                        streams = at_once(self.streams, self.tally.window(), arrived, took);
                    }
                }
                message = self.inbox.recv(), if done.is_none() => {
                    let octets = self.last_word(message)?;
                    done = octets.map(|octets| (octets, super::instant() + super::receiver::LAST_WORDS));
                }
                () = sleep_until(late), if done.is_some() => break,
            }
        }
        if let Some((octets, _)) = done {
            return Ok(octets);
        }
        loop {
            let message = self.inbox.recv().await;
            if let Some(octets) = self.last_word(message)? {
                return Ok(octets);
            }
        }
    }

    async fn send(&mut self, message: &Message) -> Outcome<()> {
        let sending = self.messenger.send(self.peer, message.encode(self.number));
        tokio::pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => {
                    self.tally.carried(&sent?);
                    return Ok(());
                }
                message = self.inbox.recv() => match message {
                    Some(Message::Failed { exit, text }) => return Err(told(self.peer, exit, &text)),
                    None => return Err(gone(self.peer)),
                    // an answer may overtake the confirmation of what it answers
                    Some(message) if self.early.len() < MAX_EARLY => self.early.push_back(message),
                    Some(_) => return Err(gone(self.peer)),
                },
            }
        }
    }

    /// What the receiver has already.
    async fn have(&mut self) -> Outcome<Have> {
        let mut have = Have::new();
        let (mut said, mut expected, mut known) = (0u32, None, 0usize);
        while expected != Some(said) {
            let message = match self.early.pop_front() {
                Some(message) => Some(message),
                None => self.inbox.recv().await,
            };
            match message {
                Some(Message::Have { runs }) => {
                    said = said.saturating_add(1);
                    for run in runs {
                        known = known.saturating_add(run.digests.len());
                        if known <= MAX_KNOWN {
                            have.entry(run.entry)
                                .or_default()
                                .extend((run.first..).zip(run.digests));
                        }
                    }
                }
                Some(Message::Go { haves }) => expected = Some(haves),
                Some(Message::Failed { exit, text }) => return Err(told(self.peer, exit, &text)),
                Some(_) => {}
                None => return Err(gone(self.peer)),
            }
        }
        Ok(have)
    }

    /// A message that ends the session; `None` when it does not.
    fn last_word(&self, message: Option<Message>) -> Outcome<Option<u64>> {
        match message {
            None => Err(gone(self.peer)),
            Some(Message::Done { octets }) => Ok(Some(octets)),
            Some(Message::Failed { exit, text }) => Err(told(self.peer, exit, &text)),
            Some(_) => Ok(None),
        }
    }
}

fn gone(peer: Peer) -> Failure {
    Failure::new(Exit::Vanished, format!("the receiver {peer} vanished"))
}

/// What the receiver said about its own end.
fn told(peer: Peer, exit: u8, text: &str) -> Failure {
    let exit = match Exit::from_number(exit) {
        // it may come back, as one that vanished
        Exit::Interrupted => Exit::Vanished,
        exit => exit,
    };
    Failure::new(exit, format!("the receiver {peer} says: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_way_has_one_frame_at_once_and_a_fast_one_as_many_as_allowed() {
        let second = Duration::from_secs(1);
        let long = 100 << 20;
        assert_eq!(at_once(8, long, 0, second), 1);
        assert_eq!(at_once(8, long, 100_000, second), 1);
        assert_eq!(at_once(8, long, 1_500_000, second), 4);
        assert_eq!(at_once(8, long, 200_000_000, second), 8);
        assert_eq!(at_once(8, long, 1 << 20, Duration::ZERO), 8);
    }

    #[test]
    fn a_short_way_that_is_fast_needs_few_frames() {
        let second = Duration::from_secs(1);
        assert_eq!(at_once(16, 0, 200_000_000, second), 3);
        assert_eq!(at_once(16, 100_000, 200_000_000, second), 3);
        assert_eq!(at_once(16, 12 << 20, 200_000_000, second), 15);
    }
}
