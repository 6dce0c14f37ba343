//! The bare transport of VMDT: one session of `vmdt-rdt` over one path, a flow for each message.
//! No shares, no relays, no sealing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use tokio::net::UdpSocket;
use vmdt_rdt::{Config, Endpoint, Event, WriteError, congestion};
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

use super::{Arrived, HEAD, Inbox, Message, Outbox, Tag, setting, targets};
use crate::clock;
use crate::process::Args;

/// Octets of bulk content written to a flow at once.
const WRITE: usize = 64 * 1024;

fn config(name: &str) -> Config {
    let mut config = Config::default();
    if name.ends_with("cubic") {
        config.set_congestion(Arc::new(congestion::CubicConfig));
    }
    config
}

fn endpoint(name: &str, id: &str) -> Result<Endpoint> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow!("no random numbers: {e}"))?;
    Ok(Endpoint::new(config(name), id.parse()?, seed))
}

/// An incoming flow.
#[derive(Default)]
struct Incoming {
    head: Vec<u8>,
    octets: usize,
}

struct Driver {
    endpoint: Endpoint,
    socket: UdpSocket,
    peer: NodeId,
    outbox: Option<Outbox>,
    inbox: Inbox,
    incoming: BTreeMap<FlowId, Incoming>,
    /// What the endpoint had no room for.
    waiting: Option<(FlowId, Bytes, bool)>,
    bulk: Option<FlowId>,
    number: u64,
    buffer: Vec<u8>,
    connected: bool,
}

impl Driver {
    async fn step(&mut self) -> Result<()> {
        self.flush().await?;
        let sleep = async |at: Option<std::time::Instant>| match at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        };
        let deadline = self.endpoint.poll_timeout();
        let free = self.waiting.is_none() && self.connected;
        tokio::select! {
            biased;
            ready = self.socket.readable() => {
                ready?;
                let mut buffer = [0u8; 2048];
                while let Ok((len, from)) = self.socket.try_recv_from(&mut buffer) {
                    let octets = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
                    self.endpoint.handle_datagram(clock::now(), from, octets);
                }
            }
            message = next(&mut self.outbox), if free => match message {
                Some(message) => self.take(message),
                None => self.outbox = None,
            },
            () = sleep(deadline) => self.endpoint.handle_timeout(clock::now()),
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.on_event(event)?;
        }
        self.retry();
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        while let Some(transmit) = self.endpoint.poll_transmit(clock::now(), &mut self.buffer) {
            // a datagram that the system refuses counts as lost
            let _ = self.socket.send_to(&self.buffer, transmit.to).await;
        }
        Ok(())
    }

    fn take(&mut self, message: Message) {
        let (flow, last) = match message.tag {
            Tag::Piece => (self.bulk.unwrap_or_else(|| self.flow()), false),
            Tag::Last => (self.bulk.unwrap_or_else(|| self.flow()), true),
            _ => (self.flow(), true),
        };
        self.bulk = (!last).then_some(flow);
        self.waiting = Some((flow, message.octets, last));
    }

    fn flow(&mut self) -> FlowId {
        self.number += 1;
        let text = format!("f{}", self.number);
        let message = text.parse().unwrap_or(MessageId::ZERO);
        FlowId::new(message, ShareIndex::new(1).unwrap_or(ShareIndex::CONTROL))
    }

    fn retry(&mut self) {
        while let Some((flow, mut octets, last)) = self.waiting.take() {
            let part = octets.split_to(octets.len().min(WRITE));
            let now = clock::now();
            match self.endpoint.write(now, self.peer, flow, part.clone()) {
                Ok(()) if octets.is_empty() => {
                    if last {
                        let _ = self.endpoint.finish(now, self.peer, flow);
                    }
                }
                Ok(()) => self.waiting = Some((flow, octets, last)),
                Err(WriteError::Blocked { .. }) => {
                    let rest = [part, octets].concat();
                    self.waiting = Some((flow, rest.into(), last));
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Connected { peer, .. } => {
                self.connected = true;
                self.peer = peer;
            }
            Event::ConnectFailed { .. } => bail!("the bare transport found nobody"),
            Event::Closed { reason, .. } => bail!("the session ended: {reason:?}"),
            Event::Readable { peer, flow } => {
                while let Some(bytes) = self.endpoint.read(clock::now(), peer, flow) {
                    let incoming = self.incoming.entry(flow).or_default();
                    let missing = HEAD.saturating_sub(incoming.head.len());
                    incoming.head.extend(bytes.iter().take(missing));
                    incoming.octets += bytes.len();
                    let first = incoming.head.first().copied();
                    if first == Some(Tag::Piece.octet()) || first == Some(Tag::Last.octet()) {
                        let _ = self.inbox.send(Arrived::part(bytes.len(), false));
                    }
                }
            }
            Event::Finished { flow, .. } => {
                let incoming = self.incoming.remove(&flow).unwrap_or_default();
                if let Some(mut arrived) = Arrived::now(&incoming.head, incoming.octets) {
                    if matches!(arrived.tag, Tag::Piece | Tag::Last) {
                        arrived = Arrived::part(0, true);
                    }
                    let _ = self.inbox.send(arrived);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

async fn next(outbox: &mut Option<Outbox>) -> Option<Message> {
    match outbox {
        Some(outbox) => outbox.recv().await,
        None => std::future::pending().await,
    }
}

async fn driver(
    name: &str,
    id: &str,
    peer: &str,
    port: u16,
    outbox: Outbox,
    inbox: Inbox,
) -> Result<Driver> {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    let buffers = socket2::SockRef::from(&socket);
    buffers.set_recv_buffer_size(4 << 20)?;
    buffers.set_send_buffer_size(4 << 20)?;
    Ok(Driver {
        endpoint: endpoint(name, id)?,
        socket,
        peer: peer.parse()?,
        outbox: Some(outbox),
        inbox,
        incoming: BTreeMap::new(),
        waiting: None,
        bulk: None,
        number: 0,
        buffer: Vec::with_capacity(2048),
        connected: false,
    })
}

pub(crate) async fn serve(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let port = setting(args, "port")?;
    let mut driver = driver(name, "bob", "alice", port, outbox, inbox).await?;
    tokio::spawn(async move { while driver.step().await.is_ok() {} });
    Ok(())
}

pub(crate) async fn connect(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let mut driver = driver(name, "alice", "bob", 0, outbox, inbox).await?;
    let to = *targets(args)?.first().context("to= names no address")?;
    driver.endpoint.connect(clock::now(), driver.peer, to);
    while !driver.connected {
        driver.step().await?;
    }
    tokio::spawn(async move { while driver.step().await.is_ok() {} });
    Ok(())
}
