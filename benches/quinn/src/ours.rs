//! vmdt-rdt behind the socket of vmdt-node and a loop like its driver's.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use vmdt_rdt::vmdt_seal::identity::SecretIdentity;
use vmdt_rdt::vmdt_seal::session::{Local, Suites};
use vmdt_rdt::{Config, Endpoint, Event, WriteError};
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

use crate::socket::{Received, Socket};
use crate::{Figures, Options, Span, chunk, local_runtime};

/// Datagrams written before anything else is looked at, as in vmdt-node.
const SEND_BATCH: usize = 256;
/// What the ends' identities and seeds are made of.
const SERVER: u8 = 1;
const CLIENT: u8 = 2;

struct Driver {
    endpoint: Endpoint,
    socket: Socket,
    received: Vec<Received>,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
}

impl Driver {
    async fn new(options: &Options, sealed: bool, seed: u8) -> Self {
        let mut config = Config::default();
        let id = id(sealed, seed);
        if sealed {
            config.set_sealing(local(seed));
            if options.chacha {
                config.set_suites(Suites::CHACHA);
            }
        }
        config
            .set_flow_window(63 << 20)
            .unwrap()
            .set_session_window(64 << 20)
            .unwrap()
            .set_send_buffer(64 << 20)
            .unwrap()
            .set_max_payload(options.datagram - 80)
            .unwrap();
        if let Some(factory) = options.controller() {
            config.set_congestion(Arc::from(factory));
        }
        let io = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self {
            endpoint: Endpoint::new(config, id, [seed; 32]),
            socket: Socket::new(io).unwrap(),
            received: Vec::new(),
            buffer: Vec::with_capacity(2048),
            events: VecDeque::new(),
        }
    }

    /// Writes what is due; true when there is more than fits in one go.
    fn flush(&mut self) -> bool {
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push_back(event);
        }
        if self.socket.is_blocked() {
            self.socket.send();
            if self.socket.is_blocked() {
                return false;
            }
        }
        for _ in 0..SEND_BATCH {
            let Some(transmit) = self
                .endpoint
                .poll_transmit(Instant::now(), &mut self.buffer)
            else {
                self.socket.send();
                return false;
            };
            self.socket.queue(transmit.to, transmit.ecn, &self.buffer);
        }
        self.socket.send();
        true
    }

    /// Waits for one thing to happen, and lets it.
    async fn step(&mut self) {
        let more = self.flush();
        if !self.events.is_empty() {
            return;
        }
        let deadline = self.endpoint.poll_timeout();
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let io = self.socket.io();
        let blocked = self.socket.is_blocked();
        tokio::select! {
            biased;
            ready = io.readable() => {
                ready.unwrap();
                self.socket.receive(&mut self.received);
                let now = Instant::now();
                for (from, ecn, datagram) in self.received.drain(..) {
                    self.endpoint
                        .handle_owned_datagram(now, from, ecn, datagram);
                }
            }
            _ = io.writable(), if blocked => {}
            () = sleep => self.endpoint.handle_timeout(Instant::now()),
            () = std::future::ready(()), if more => tokio::task::yield_now().await,
        }
    }
}

fn local(seed: u8) -> Local {
    Local::new(SecretIdentity::from_seed(&[seed; 32]), 1)
}

fn id(sealed: bool, seed: u8) -> NodeId {
    if sealed {
        local(seed).node_id()
    } else {
        format!("node-{seed}").parse().unwrap()
    }
}

fn flow() -> FlowId {
    let message: MessageId = "bench".parse().unwrap();
    FlowId::new(message, ShareIndex::new(1).unwrap())
}

async fn receive(mut driver: Driver) -> u64 {
    let mut octets = 0u64;
    let mut finished: Option<Instant> = None;
    loop {
        while let Some(event) = driver.events.pop_front() {
            match event {
                Event::Readable { peer, flow } => {
                    while let Some(piece) = driver.endpoint.read(Instant::now(), peer, flow) {
                        octets += piece.len() as u64;
                    }
                }
                Event::Finished { .. } => finished = Some(Instant::now()),
                Event::Closed { .. } => return octets,
                _ => {}
            }
        }
        if finished.is_some_and(|at| at.elapsed() > Duration::from_secs(10)) {
            return octets;
        }
        driver.step().await;
    }
}

async fn send(mut driver: Driver, peer: NodeId, to: SocketAddr, total: u64) -> Figures {
    driver.endpoint.connect(Instant::now(), peer, to);
    while !driver
        .events
        .iter()
        .any(|event| matches!(event, Event::Connected { .. }))
    {
        driver.events.clear();
        driver.step().await;
    }
    driver.events.clear();
    let piece = chunk();
    let mut left = total;
    let mut writable = true;
    let span = Span::begin(Instant::now());
    loop {
        while writable && left > 0 {
            let len = left.min(piece.len() as u64);
            let part = piece.slice(..usize::try_from(len).unwrap());
            match driver.endpoint.write(Instant::now(), peer, flow(), part) {
                Ok(()) => left -= len,
                Err(WriteError::Blocked { .. }) => writable = false,
                Err(error) => panic!("{error}"),
            }
            if left == 0 {
                driver
                    .endpoint
                    .finish(Instant::now(), peer, flow())
                    .unwrap();
            }
        }
        while let Some(event) = driver.events.pop_front() {
            match event {
                Event::Writable { .. } => writable = true,
                Event::FlowDelivered { .. } => {
                    let stats = driver.endpoint.stats(peer).unwrap();
                    let figures = span.end(Instant::now(), stats.packets_sent, stats.packets_lost);
                    driver.endpoint.close(Instant::now(), peer, 0, "");
                    while driver.endpoint.state(peer).is_some() {
                        driver.step().await;
                        driver.events.clear();
                    }
                    return figures;
                }
                Event::Closed { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
        driver.step().await;
    }
}

pub fn run(options: &Options, sealed: bool) -> Figures {
    let (tell, address) = mpsc::channel::<SocketAddr>();
    let server = {
        let options = options.clone();
        std::thread::spawn(move || {
            local_runtime().block_on(async move {
                let driver = Driver::new(&options, sealed, SERVER).await;
                tell.send(driver.socket.local_addr().unwrap()).unwrap();
                receive(driver).await
            })
        })
    };
    let to = address.recv().unwrap();
    let figures = local_runtime().block_on(async {
        let driver = Driver::new(options, sealed, CLIENT).await;
        send(driver, id(sealed, SERVER), to, options.octets).await
    });
    assert_eq!(server.join().unwrap(), options.octets);
    figures
}
