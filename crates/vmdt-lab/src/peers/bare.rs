//! The transport of VMDT alone: one session of `vmdt-rdt` over one path, a flow for each message.
//! No shares, no relays. Bare, it is not sealed either; sealed, it is what nodes have between them,
//! with their settings and their socket, as QUIC has TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes};
use tokio::net::UdpSocket;
use vmdt_node::core::default_transport;
use vmdt_node::socket::{Received, Socket};
use vmdt_rdt::vmdt_seal::{identity::SecretIdentity, session::Local};
use vmdt_rdt::{Config, Endpoint, Event, WriteError, congestion};
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

use super::{Arrived, HEAD, Inbox, Message, Outbox, Tag, setting, targets};
use crate::clock;
use crate::process::Args;

/// Octets of bulk content written to a flow at once.
const WRITE: usize = 64 * 1024;
/// Datagrams that leave before others are looked for again.
const SEND_BATCH: usize = 256;

fn config(name: &str) -> Config {
    let mut config = Config::default();
    if name.ends_with("cubic") {
        config.set_congestion(Arc::new(congestion::CubicConfig));
    }
    config
}

/// The endpoint of one of the two, and the other's id. Their keys are no secret in the lab.
fn endpoint(name: &str, is_server: bool) -> Result<(Endpoint, NodeId)> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow!("no random numbers: {e}"))?;
    if name == "rdt-sealed" {
        let local =
            |is_server| Local::new(SecretIdentity::from_seed(&[u8::from(is_server); 32]), 1);
        let mut config = default_transport();
        config.set_sealing(local(is_server));
        let peer = local(!is_server).node_id();
        return Ok((
            Endpoint::new(config, local(is_server).node_id(), seed),
            peer,
        ));
    }
    let (id, peer) = match is_server {
        true => ("bob", "alice"),
        false => ("alice", "bob"),
    };
    Ok((
        Endpoint::new(config(name), id.parse()?, seed),
        peer.parse()?,
    ))
}

/// An incoming flow.
#[derive(Default)]
struct Incoming {
    head: Vec<u8>,
    octets: usize,
}

struct Driver {
    endpoint: Endpoint,
    socket: Socket,
    arrived: Vec<Received>,
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
        let more = self.flush();
        let sleep = async |at: Option<std::time::Instant>| match at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        };
        let deadline = self.endpoint.poll_timeout();
        let free = self.waiting.is_none() && self.connected;
        let (io, blocked) = (self.socket.io(), self.socket.is_blocked());
        tokio::select! {
            biased;
            ready = io.readable() => {
                ready?;
                self.socket.receive(&mut self.arrived);
                let now = clock::now();
                for (from, ecn, octets) in self.arrived.drain(..) {
                    self.endpoint.handle_owned_datagram(now, from, ecn, octets);
                }
            }
            ready = io.writable(), if blocked => ready?,
            message = next(&mut self.outbox), if free => match message {
                Some(message) => self.take(message),
                None => self.outbox = None,
            },
            () = sleep(deadline) => self.endpoint.handle_timeout(clock::now()),
            () = std::future::ready(()), if more => tokio::task::yield_now().await,
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.on_event(event)?;
        }
        self.retry();
        Ok(())
    }

    /// Sends what there is room for; whether there is more than was taken at once.
    fn flush(&mut self) -> bool {
        let Driver {
            endpoint,
            socket,
            buffer,
            ..
        } = self;
        let send = |socket: &mut Socket, endpoint: &mut Endpoint| {
            socket.send(|to, octets| endpoint.refused(clock::now(), to, octets));
            socket.is_blocked()
        };
        if send(socket, endpoint) {
            return false;
        }
        for _ in 0..SEND_BATCH {
            let Some(transmit) = endpoint.poll_transmit(clock::now(), buffer) else {
                send(socket, endpoint);
                return false;
            };
            socket.queue(&transmit, buffer);
        }
        !send(socket, endpoint)
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
            let part = octets.slice(..octets.len().min(WRITE));
            let (now, len) = (clock::now(), part.len());
            match self.endpoint.write(now, self.peer, flow, part) {
                Ok(()) => octets.advance(len),
                Err(WriteError::Blocked { .. }) => {
                    self.waiting = Some((flow, octets, last));
                    return;
                }
                Err(_) => return,
            }
            if !octets.is_empty() {
                self.waiting = Some((flow, octets, last));
            } else if last {
                let _ = self.endpoint.finish(now, self.peer, flow);
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
    is_server: bool,
    port: u16,
    outbox: Outbox,
    inbox: Inbox,
) -> Result<Driver> {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    let (endpoint, peer) = endpoint(name, is_server)?;
    Ok(Driver {
        endpoint,
        socket: Socket::new(socket)?,
        arrived: Vec::new(),
        peer,
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
    let mut driver = driver(name, true, port, outbox, inbox).await?;
    tokio::spawn(async move { while driver.step().await.is_ok() {} });
    Ok(())
}

pub(crate) async fn connect(name: &str, args: &Args, outbox: Outbox, inbox: Inbox) -> Result<()> {
    let mut driver = driver(name, false, 0, outbox, inbox).await?;
    let to = *targets(args)?.first().context("to= names no address")?;
    driver.endpoint.connect(clock::now(), driver.peer, to);
    while !driver.connected {
        driver.step().await?;
    }
    tokio::spawn(async move { while driver.step().await.is_ok() {} });
    Ok(())
}
