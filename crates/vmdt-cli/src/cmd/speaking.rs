//! What is said in a room goes to everybody in it as one message that is spread once. Who does not
//! get it in time is behind: what is said meanwhile goes to it by itself, in order, so that nobody
//! waits for it; when it has caught up it gets what the others get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use vmdt_node::{MAX_RECEIVERS, TransferError};

use crate::console::Printer;
use crate::net::Peer;
use crate::net::link::Messenger;
use crate::text::printable;

/// How long the others wait for who has not got a text.
const PACE: Duration = Duration::from_secs(2);
/// Texts that wait for somebody.
const BACKLOG: usize = 100;

/// A text, and to whom it is said: each with the name that is shown.
pub(super) struct Said {
    pub(super) text: Bytes,
    pub(super) to: BTreeMap<Peer, String>,
}

/// Somebody who has not got all that was said.
struct Behind {
    texts: mpsc::Sender<Bytes>,
    /// Texts that it has not got, that all others have perhaps got included.
    pending: Arc<AtomicUsize>,
}

/// Says one text after the other.
pub(super) struct Speaker {
    messenger: Messenger,
    printer: Printer,
    behind: BTreeMap<Peer, Behind>,
    tasks: JoinSet<()>,
}

impl Speaker {
    pub(super) fn new(messenger: Messenger, printer: Printer) -> Speaker {
        Speaker {
            messenger,
            printer,
            behind: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Says what comes, until nothing more can come and all of it has ended.
    pub(super) async fn run(mut self, mut said: mpsc::Receiver<Said>) {
        while let Some(next) = said.recv().await {
            self.say(next).await;
            while self.tasks.try_join_next().is_some() {}
        }
        self.behind.clear();
        while self.tasks.join_next().await.is_some() {}
    }

    async fn say(&mut self, Said { text, to }: Said) {
        // who has caught up, or is gone, is not behind any more
        self.behind
            .retain(|peer, b| to.contains_key(peer) && b.pending.load(Ordering::Acquire) > 0);
        let (late, abreast): (BTreeMap<_, _>, BTreeMap<_, _>) = to
            .into_iter()
            .partition(|(peer, _)| self.behind.contains_key(peer));
        for (peer, name) in late {
            self.say_to(peer, name, Some(text.clone()), None).await;
        }
        let abreast: Vec<(Peer, String)> = abreast.into_iter().collect();
        for some in abreast.chunks(MAX_RECEIVERS) {
            self.say_to_all(some, text.clone()).await;
        }
    }

    /// Says a text, if there is one, to one alone, after what it has not got; `after` says when the
    /// text before, which went to several, has ended.
    async fn say_to(
        &mut self,
        peer: Peer,
        name: String,
        text: Option<Bytes>,
        after: Option<watch::Receiver<()>>,
    ) {
        let (messenger, printer) = (self.messenger.clone(), self.printer.clone());
        let tasks = &mut self.tasks;
        let shown = name.clone();
        let behind = self.behind.entry(peer).or_insert_with(|| {
            let (texts, mut queue) = mpsc::channel::<Bytes>(BACKLOG);
            let pending = Arc::new(AtomicUsize::new(usize::from(after.is_some())));
            let left = Arc::clone(&pending);
            tasks.spawn(async move {
                if let Some(mut after) = after {
                    // an error: it has ended
                    while after.changed().await.is_ok() {}
                    left.fetch_sub(1, Ordering::Release);
                }
                while let Some(text) = queue.recv().await {
                    if let Err(failure) = messenger.send(peer, text).await {
                        let why = printable(&failure.message);
                        printer
                            .print(format!("{shown} did not get it: {why}"))
                            .await;
                    }
                    left.fetch_sub(1, Ordering::Release);
                }
            });
            Behind { texts, pending }
        });
        let Some(text) = text else { return };
        behind.pending.fetch_add(1, Ordering::AcqRel);
        if behind.texts.try_send(text).is_err() {
            behind.pending.fetch_sub(1, Ordering::AcqRel);
            self.printer
                .print(format!(
                    "not sent to {name}: {BACKLOG} lines still wait for it"
                ))
                .await;
        }
    }

    /// Says a text to several at once, and waits a while for all of them to have it.
    async fn say_to_all(&mut self, to: &[(Peer, String)], text: Bytes) {
        if let [(peer, name)] = to {
            self.say_to(*peer, name.clone(), Some(text), None).await;
            return;
        }
        let peers: Vec<Peer> = to.iter().map(|(peer, _)| *peer).collect();
        let Ok(mut sending) = self.messenger.begin_group(&peers, text.clone()).await else {
            // such as in profile 1.0: to each by itself
            for (peer, name) in to {
                self.say_to(*peer, name.clone(), Some(text.clone()), None)
                    .await;
            }
            return;
        };
        let progress = sending.progress();
        let (over, mut ended) = watch::channel(());
        let names: BTreeMap<Peer, String> = to.iter().cloned().collect();
        let printer = self.printer.clone();
        self.tasks.spawn(async move {
            let why = match sending.delivered().await {
                Ok(_) => Vec::new(),
                Err(TransferError::Group(failure)) => failure
                    .failed
                    .iter()
                    .map(|(peer, error)| {
                        let name = names.get(peer).map_or(peer.as_str(), String::as_str);
                        let why = printable(&error.to_string());
                        format!("{name} did not get it: {why}")
                    })
                    .collect(),
                Err(error) => vec![format!("not sent: {}", printable(&error.to_string()))],
            };
            for line in why {
                printer.print(line).await;
            }
            drop(over);
        });
        if timeout(PACE, ended.changed()).await.is_ok() {
            return;
        }
        let reached: BTreeSet<Peer> = progress.latest().reached;
        for (peer, name) in to.iter().filter(|(peer, _)| !reached.contains(peer)) {
            let after = Some(ended.clone());
            self.say_to(*peer, name.clone(), None, after).await;
        }
    }
}
