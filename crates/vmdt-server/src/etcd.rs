//! The state of several servers in etcd.
//!
//! Under a prefix stand
//! - `r/` and the text of a [`RecordKey`]: the records. A client's presence is bound to the
//!   lease of the server it is connected to;
//! - `w/` and a lease: who wants to write, bound to that lease. The oldest of these keys may;
//!   it goes in the same transaction that writes, so a server whose lease has ended meanwhile
//!   cannot write;
//! - `a/` and a lease: the number of the last transaction, by which a server finds out whether
//!   one was carried out to which it has got no answer.
//!
//! Everything a server knows comes from one watch: that the records of others were taken in
//! before its turn to write comes follows from the order of the watch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, PutOptions,
    Txn, TxnOp, TxnOpResponse, WatchOptions, WatchResponse, WatchStream,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use vmdt_control::{Record, RecordKey};

use crate::store::{News, Shared, Store, StoreError};

/// Seconds after which a server that says nothing is taken for dead.
const TTL: i64 = 5;
/// How long after it has last said that it lives, successfully, a server still takes itself
/// for alive: less than etcd does, counted from an earlier moment.
const ALIVE: Duration = Duration::from_millis(4_000);
/// How often it says so.
const RENEWAL: Duration = Duration::from_millis(800);
/// How long one request may take before it is tried again, with another member.
const CALL: Duration = Duration::from_millis(1_500);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// Changes that wait for the server; beyond them no more are read.
const PENDING: usize = 64;
/// Operations of a transaction beside ours: etcd takes 128 by default.
const OPERATIONS: usize = 120;
/// Octets of a transaction: etcd takes 1.5 MiB by default.
const OCTETS: usize = 1024 * 1024;
/// Keys read at once in the beginning.
const PAGE: i64 = 256;

/// Keeps the state of several servers in [etcd](https://etcd.io).
///
/// Give every server one of its own with the same endpoints and the same prefix. Any of the
/// servers may die: its clients are away for the others within seconds, and go to them. Without
/// a majority of etcd nothing is answered, and after 4 s every client is sent away until etcd
/// is back.
#[derive(Debug)]
pub struct EtcdStore {
    commands: mpsc::UnboundedSender<Command>,
    shared: Option<Shared>,
}

#[derive(Debug)]
enum Command {
    WantWrite,
    Commit(Vec<Record>, oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<()>),
}

impl EtcdStore {
    /// Connects to the etcd at `endpoints`, such as `http://10.0.0.1:2379`, and reads what is
    /// kept under `prefix`. Must be called within a tokio runtime with time and I/O.
    ///
    /// The connection is neither encrypted nor authenticated: whoever can speak to etcd there can
    /// change every cluster. Keep it on a network of its own, or behind a tunnel.
    ///
    /// # Errors
    /// No endpoint can be used, or nothing is answered in time.
    pub async fn open(endpoints: &[String], prefix: &str) -> Result<EtcdStore, StoreError> {
        let place = Place {
            endpoints: endpoints.to_vec(),
            prefix: prefix.to_owned(),
        };
        let (session, records) = timeout(ALIVE, Session::begin(&place))
            .await
            .unwrap_or_else(|_| Err(other("etcd does not answer")))?;
        let (news, receiver) = mpsc::channel(PENDING);
        let (commands, orders) = mpsc::unbounded_channel();
        let mut keeper = Keeper {
            place,
            news,
            orders,
            pending: VecDeque::from([News::Attached(records)]),
        };
        tokio::spawn(async move { keeper.run(session).await });
        Ok(EtcdStore {
            commands,
            shared: Some(Shared::new(receiver)),
        })
    }
}

impl Store for EtcdStore {
    /// Nothing: what is kept comes as the first of the news.
    fn load(&mut self) -> Result<Vec<(RecordKey, Bytes)>, StoreError> {
        Ok(Vec::new())
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), StoreError> {
        let (reply, done) = oneshot::channel();
        let gone = |_| other("the connection to etcd has ended");
        self.commands
            .send(Command::Commit(batch.to_vec(), reply))
            .map_err(|_| other("the connection to etcd has ended"))?;
        done.blocking_recv().map_err(gone)?
    }

    fn share(&mut self) -> Option<Shared> {
        self.shared.take()
    }

    fn want_write(&mut self) {
        let _ = self.commands.send(Command::WantWrite);
    }

    fn close(&mut self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).is_ok() {
            let _ = done.blocking_recv();
        }
    }
}

fn other(what: impl std::fmt::Display) -> StoreError {
    StoreError::Other(what.to_string())
}

#[derive(Debug)]
struct Place {
    endpoints: Vec<String>,
    prefix: String,
}

/// Runs one session after the other.
struct Keeper {
    place: Place,
    news: mpsc::Sender<News>,
    orders: mpsc::UnboundedReceiver<Command>,
    pending: VecDeque<News>,
}

impl Keeper {
    async fn run(&mut self, first: Session) {
        let mut session = first;
        loop {
            let Err(error) = self.serve(&mut session).await else {
                session.revoke().await;
                return;
            };
            tracing::error!(%error, "the state in etcd is lost for now; clients are sent away");
            session.renewal.abort();
            // What was not taken in yet is read anew.
            self.pending = VecDeque::from([News::Detached]);
            session.revoke().await;
            let Some((next, records)) = self.begin_anew().await else {
                return;
            };
            tracing::info!("the state in etcd is back");
            self.pending.push_back(News::Attached(records));
            session = next;
        }
    }

    /// `None`: the server ends.
    async fn begin_anew(&mut self) -> Option<(Session, Vec<(RecordKey, Bytes)>)> {
        loop {
            let attempt = timeout(ALIVE, Session::begin(&self.place));
            tokio::pin!(attempt);
            let found = loop {
                tokio::select! {
                    found = &mut attempt => break found,
                    order = self.orders.recv() => match order? {
                        Command::WantWrite => {}
                        Command::Commit(_, reply) => {
                            let _ = reply.send(Err(other("etcd cannot be reached")));
                        }
                        Command::Close(done) => {
                            let _ = done.send(());
                            return None;
                        }
                    },
                    permit = self.news.reserve(), if !self.pending.is_empty() => {
                        if let Some(news) = self.pending.pop_front() {
                            permit.ok()?.send(news);
                        }
                    }
                }
            };
            match found {
                Ok(Ok(found)) => return Some(found),
                Ok(Err(error)) => tracing::debug!(%error, "etcd cannot be reached"),
                Err(_) => tracing::debug!("etcd does not answer"),
            }
            sleep(PAUSE * 3).await;
        }
    }

    /// Until the server ends, or the session does.
    async fn serve(&mut self, session: &mut Session) -> Result<(), StoreError> {
        loop {
            let room = self.pending.len() < PENDING;
            let alive = session.alive.clone();
            tokio::select! {
                biased;
                () = dead(alive) => return Err(other("the lease could not be renewed")),
                permit = self.news.reserve(), if !self.pending.is_empty() => {
                    let Ok(permit) = permit else {
                        return Ok(());
                    };
                    if let Some(news) = self.pending.pop_front() {
                        permit.send(news);
                    }
                }
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Command::Close(done)) => {
                        session.revoke().await;
                        let _ = done.send(());
                        return Ok(());
                    }
                    Some(Command::WantWrite) => session.queue_up().await?,
                    Some(Command::Commit(batch, reply)) => {
                        let result = session.commit(&batch).await;
                        let lost = result.as_ref().err().map(other);
                        let _ = reply.send(result);
                        if let Some(error) = lost {
                            return Err(error);
                        }
                    }
                },
                heard = session.hear(), if room => self.pending.extend(heard?),
            }
            self.pending.extend(session.turn());
        }
    }
}

/// As long as one lease lives.
struct Session {
    client: Client,
    prefix: String,
    lease: i64,
    watch: WatchStream,
    /// The last revision that was taken in.
    seen: i64,
    /// Who wants to write, the oldest first.
    queue: BTreeMap<i64, Vec<u8>>,
    /// Our place in it.
    place: Option<i64>,
    granted: bool,
    /// Our transactions whose echo is still to come.
    own: BTreeSet<i64>,
    /// Numbers our transactions.
    number: u64,
    alive: watch::Receiver<Instant>,
    renewal: JoinHandle<()>,
}

impl Session {
    async fn begin(place: &Place) -> Result<(Session, Vec<(RecordKey, Bytes)>), StoreError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CALL)
            .with_keep_alive(RENEWAL, CALL);
        let client = Client::connect(&place.endpoints, Some(options))
            .await
            .map_err(other)?;
        let sent = Instant::now();
        let granted = retry(|| {
            let mut client = client.clone();
            async move { client.lease_grant(TTL, None).await }
        });
        let lease = granted.await.id();
        let (heartbeat, alive) = watch::channel(sent + ALIVE);
        let renewal = tokio::spawn(renew(client.clone(), lease, heartbeat));

        let prefix = place.prefix.clone();
        let mut found = Vec::new();
        let mut queue = BTreeMap::new();
        let mut revision = 0;
        let mut from = prefix.clone().into_bytes();
        let mut end = from.clone();
        // The first key behind all with the prefix.
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            if revision > 0 {
                options = options.with_revision(revision);
            }
            let page = retry(|| {
                // A page of the largest records is larger than the library takes by itself.
                let mut client = client.kv_client().max_decoding_message_size(64 * OCTETS);
                let (from, options) = (from.clone(), options.clone());
                async move { client.get(from, Some(options)).await }
            })
            .await;
            if revision == 0 {
                revision = page
                    .header()
                    .map_or(0, etcd_client::ResponseHeader::revision);
            }
            for kv in page.kvs() {
                match part(&prefix, kv.key()) {
                    Some(Part::Record(key)) => {
                        found.push((key, Bytes::copy_from_slice(kv.value())));
                    }
                    Some(Part::Queue) => {
                        queue.insert(kv.create_revision(), kv.key().to_vec());
                    }
                    None => {}
                }
            }
            let last = page.kvs().last().map(|kv| kv.key().to_vec());
            match last {
                Some(mut last) if page.more() => {
                    last.push(0);
                    from = last;
                }
                _ => break,
            }
        }
        // Each attempt may meet the one member that is down: the others know the same.
        let watch = retry(|| listen(&client, &prefix, revision + 1)).await;
        let session = Session {
            client,
            prefix,
            lease,
            watch,
            seen: revision,
            queue,
            place: None,
            granted: false,
            own: BTreeSet::new(),
            number: 0,
            alive,
            renewal,
        };
        Ok((session, found))
    }

    fn until(&self) -> Instant {
        *self.alive.borrow()
    }

    fn own_key(&self, kind: char) -> Vec<u8> {
        format!("{}{kind}/{:016x}", self.prefix, self.lease).into_bytes()
    }

    /// What was written next, by others, one after the other.
    ///
    /// Cancel safe: what was read is handed out before anything is waited for.
    async fn hear(&mut self) -> Result<Vec<News>, StoreError> {
        match self.watch.message().await {
            Ok(Some(message)) if message.canceled() => Err(other("etcd has ended the watch")),
            Ok(Some(message)) => Ok(self.take_in(&message)),
            // The member that we listened to has ended: the others know the same.
            Ok(None) | Err(_) => {
                sleep(PAUSE).await;
                let again = listen(&self.client, &self.prefix, self.seen + 1);
                if let Ok(Ok(watch)) = timeout(CALL, again).await {
                    self.watch = watch;
                }
                Ok(Vec::new())
            }
        }
    }

    fn take_in(&mut self, message: &WatchResponse) -> Vec<News> {
        let mut news = Vec::new();
        let mut records: Vec<Record> = Vec::new();
        for event in message.events() {
            let Some(kv) = event.kv() else {
                continue;
            };
            let revision = kv.mod_revision();
            if revision > self.seen {
                if !records.is_empty() {
                    news.push(News::Records(std::mem::take(&mut records)));
                }
                self.own.remove(&self.seen);
                self.seen = revision;
            }
            let put = event.event_type() == EventType::Put;
            match part(&self.prefix, kv.key()) {
                Some(Part::Queue) if put => {
                    self.queue.insert(kv.create_revision(), kv.key().to_vec());
                }
                Some(Part::Queue) => self.queue.retain(|_, key| key != kv.key()),
                Some(Part::Record(_)) if self.own.contains(&revision) => {}
                Some(Part::Record(key)) => records.push(Record {
                    key,
                    value: put.then(|| Bytes::copy_from_slice(kv.value())),
                }),
                None => {}
            }
        }
        if !records.is_empty() {
            news.push(News::Records(records));
        }
        news
    }

    /// Whether our turn to write has come.
    fn turn(&mut self) -> Option<News> {
        let first = self.queue.first_key_value().map(|(&at, _)| at);
        if self.granted || self.place.is_none() || first != self.place {
            return None;
        }
        self.granted = true;
        Some(News::Granted)
    }

    /// Takes a place in the queue of those who want to write.
    async fn queue_up(&mut self) -> Result<(), StoreError> {
        if self.place.is_some() {
            return Ok(());
        }
        let key = self.own_key('w');
        let options = PutOptions::new().with_lease(self.lease);
        let txn = Txn::new()
            .when([Compare::version(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), Vec::new(), Some(options))])
            .or_else([TxnOp::get(key, None)]);
        let done = self.transact(&txn).await?;
        let place = match done.succeeded() {
            true => done.header().map(etcd_client::ResponseHeader::revision),
            // An earlier attempt has worked after all.
            false => first_kv(&done).map(|(created, ..)| created),
        };
        self.place = Some(place.ok_or_else(|| other("etcd's answer says nothing"))?);
        Ok(())
    }

    /// Writes and gives the right to do so back, together. In several transactions what is too
    /// much for one: what is put in the order of the keys, which is from what is referred to on
    /// to what refers to it, then what is deleted in reverse.
    async fn commit(&mut self, batch: &[Record]) -> Result<(), StoreError> {
        let Some(place) = self.place.filter(|_| self.granted) else {
            return Err(other("it is not this server's turn to write"));
        };
        let mut ordered: Vec<&Record> = batch.iter().collect();
        ordered.sort_by_key(|record| match record.value {
            Some(_) => (false, Some(record.key), None),
            None => (true, None, Some(std::cmp::Reverse(record.key))),
        });
        let mut pieces = vec![Vec::new()];
        let mut octets = 0;
        for Record { key, value } in ordered {
            let name = format!("{}r/{}", self.prefix, key.to_text());
            let size = name.len() + value.as_ref().map_or(0, Bytes::len) + 64;
            let operation = match value {
                None => TxnOp::delete(name, None::<DeleteOptions>),
                Some(value) => {
                    let bound = matches!(key, RecordKey::Presence(_));
                    let options = bound.then(|| PutOptions::new().with_lease(self.lease));
                    TxnOp::put(name, value.to_vec(), options)
                }
            };
            let full = pieces.last().is_none_or(|piece| piece.len() >= OPERATIONS);
            if full || octets + size > OCTETS {
                pieces.push(Vec::new());
                octets = 0;
            }
            octets += size;
            if let Some(piece) = pieces.last_mut() {
                piece.push(operation);
            }
        }
        let (lock, answer) = (self.own_key('w'), self.own_key('a'));
        let last = pieces.len() - 1;
        for (i, mut operations) in pieces.into_iter().enumerate() {
            self.number += 1;
            let number = self.number.to_be_bytes().to_vec();
            let options = PutOptions::new().with_lease(self.lease);
            operations.push(TxnOp::put(answer.clone(), number.clone(), Some(options)));
            if i == last {
                operations.push(TxnOp::delete(lock.clone(), None));
            }
            let ours = Compare::create_revision(lock.clone(), CompareOp::Equal, place);
            let txn = Txn::new()
                .when([ours])
                .and_then(operations)
                .or_else([TxnOp::get(answer.clone(), None)]);
            let done = self.transact(&txn).await?;
            let revision = match done.succeeded() {
                true => done.header().map(etcd_client::ResponseHeader::revision),
                // Carried out, and only its answer was lost; or somebody else's turn.
                false => first_kv(&done)
                    .filter(|(.., value)| *value == number)
                    .map(|(_, changed, _)| changed),
            };
            self.own
                .insert(revision.ok_or_else(|| other("the turn to write was lost"))?);
        }
        self.place = None;
        self.granted = false;
        Ok(())
    }

    /// One that may be carried out and get no answer is tried again: each says by itself
    /// whether it was.
    async fn transact(&self, txn: &Txn) -> Result<etcd_client::TxnResponse, StoreError> {
        let done = retry(|| {
            let mut client = self.client.clone();
            let txn = txn.clone();
            async move { client.txn(txn).await }
        });
        tokio::select! {
            done = done => Ok(done),
            () = dead(self.alive.clone()) => Err(other("etcd does not answer")),
        }
    }

    /// Ends the lease: the others need not wait for that. What cannot be said in time says the
    /// lease by itself.
    async fn revoke(&mut self) {
        self.renewal.abort();
        let mut client = self.client.clone();
        let lease = self.lease;
        let until = self.until().min(Instant::now() + CALL);
        let _ = timeout_at(until, client.lease_revoke(lease)).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Until the lease may have ended.
async fn dead(mut alive: watch::Receiver<Instant>) {
    loop {
        let until = *alive.borrow_and_update();
        match timeout_at(until, alive.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

enum Part {
    Record(RecordKey),
    Queue,
}

/// What a key is about.
fn part(prefix: &str, key: &[u8]) -> Option<Part> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    if key.starts_with("w/") {
        return Some(Part::Queue);
    }
    let record = RecordKey::parse(key.strip_prefix("r/")?);
    if record.is_err() {
        // Of a later version: it stays where it is.
        tracing::warn!(key, "a record of an unknown kind");
    }
    record.ok().map(Part::Record)
}

/// The first key that a transaction has found: when it was created, when it was changed, and
/// its value.
fn first_kv(done: &etcd_client::TxnResponse) -> Option<(i64, i64, Vec<u8>)> {
    done.op_responses().into_iter().find_map(|response| {
        let TxnOpResponse::Get(found) = response else {
            return None;
        };
        let kv = found.kvs().first()?;
        Some((kv.create_revision(), kv.mod_revision(), kv.value().to_vec()))
    })
}

async fn listen(
    client: &Client,
    prefix: &str,
    from: i64,
) -> Result<WatchStream, etcd_client::Error> {
    let mut client = client.clone();
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    client.watch(prefix, Some(options)).await
}

/// Says that the server lives, and reports until when etcd surely believes it.
async fn renew(client: Client, lease: i64, heartbeat: watch::Sender<Instant>) {
    loop {
        let mut renewing = client.clone();
        let Ok(Ok((mut keeper, mut answers))) =
            timeout(CALL, renewing.lease_keep_alive(lease)).await
        else {
            sleep(PAUSE).await;
            continue;
        };
        loop {
            let sent = Instant::now();
            let asked = async {
                keeper.keep_alive().await?;
                answers.message().await
            };
            match timeout(CALL, asked).await {
                // It has ended: whoever looks at the heartbeat finds out.
                Ok(Ok(Some(answer))) if answer.ttl() <= 0 => return,
                Ok(Ok(Some(_))) => {
                    if heartbeat.send(sent + ALIVE).is_err() {
                        return;
                    }
                }
                // Another member may answer.
                _ => break,
            }
            sleep(RENEWAL).await;
        }
        sleep(PAUSE).await;
    }
}

/// Until it works; whoever calls gives up in time.
async fn retry<T, F: Future<Output = Result<T, etcd_client::Error>>>(
    mut attempt: impl FnMut() -> F,
) -> T {
    loop {
        match timeout(CALL, attempt()).await {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => tracing::debug!(%error, "etcd"),
            Err(_) => tracing::debug!("etcd does not answer"),
        }
        sleep(PAUSE).await;
    }
}
