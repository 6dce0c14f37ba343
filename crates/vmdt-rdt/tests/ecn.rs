//! Marks instead of losses: a bottleneck that marks what it queues, and drivers that lose marks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_rdt::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use vmdt_rdt::{Config, EcnCodepoint, Endpoint, Event, PathStats};
use vmdt_wire::{FlowId, MessageId, NodeId, ShareIndex};

const MS: Duration = Duration::from_millis(1);
/// Octets per second of the bottleneck.
const RATE: u64 = 2_500_000;
/// Octets queued beyond which a datagram is marked, and beyond which it is dropped.
const MARK: u64 = 40_000;
const LIMIT: u64 = 400_000;

/// What happens to marks on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Carries,
    Bleaches,
    DropsMarked,
}

struct Datagram {
    at: Instant,
    ecn: Option<EcnCodepoint>,
    octets: Bytes,
}

struct Outcome {
    sender: PathStats,
    receiver: PathStats,
    time: Duration,
    longest_queue: u64,
}

/// Sends `octets` over 20 Mbit/s and 20 ms.
fn transfer(factory: Arc<dyn ControllerFactory>, path: Path, octets: usize) -> Outcome {
    let mut config = Config::default();
    config.set_congestion(factory);
    let ids: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
    let at: [SocketAddr; 2] = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
    let mut ends =
        [0, 1].map(|end: u8| Endpoint::new(config.clone(), ids[usize::from(end)], [end; 32]));
    let message: MessageId = "message".parse().unwrap();
    let flow = FlowId::new(message, ShareIndex::new(1).unwrap());
    let start = Instant::now();
    let mut now = start;
    ends[0].connect(now, ids[1], at[1]);
    let mut left = octets;
    let mut free_at = now;
    let mut longest_queue = 0;
    let mut air: [VecDeque<Datagram>; 2] = [VecDeque::new(), VecDeque::new()];
    let mut buf = Vec::new();
    loop {
        while left > 0 {
            let piece = Bytes::from(vec![7; left.min(65_536)]);
            let len = piece.len();
            if ends[0].write(now, ids[1], flow, piece).is_err() {
                break;
            }
            left -= len;
            if left == 0 {
                ends[0].finish(now, ids[1], flow).unwrap();
            }
        }
        for from in 0..2 {
            while let Some(transmit) = ends[from].poll_transmit(now, &mut buf) {
                let mut ecn = transmit.ecn;
                let mut leaves = now;
                if from == 0 {
                    let queue =
                        (free_at.saturating_duration_since(now).as_secs_f64() * RATE as f64) as u64;
                    longest_queue = longest_queue.max(queue);
                    if queue > LIMIT || (path == Path::DropsMarked && ecn.is_some()) {
                        continue;
                    }
                    if queue > MARK && ecn.is_some() && path == Path::Carries {
                        ecn = Some(EcnCodepoint::Ce);
                    }
                    let nanos = buf.len() as u64 * 1_000_000_000 / RATE;
                    free_at = free_at.max(now) + Duration::from_nanos(nanos);
                    leaves = free_at;
                }
                if path == Path::Bleaches {
                    ecn = None;
                }
                air[1 - from].push_back(Datagram {
                    at: leaves + 10 * MS,
                    ecn,
                    octets: Bytes::copy_from_slice(&buf),
                });
            }
        }
        for end in 0..2 {
            while let Some(event) = ends[end].poll_event() {
                match event {
                    Event::Readable { peer, flow } => {
                        while ends[end].read(now, peer, flow).is_some() {}
                    }
                    Event::FlowDelivered { .. } => {
                        return Outcome {
                            sender: ends[0].stats(ids[1]).unwrap(),
                            receiver: ends[1].stats(ids[0]).unwrap(),
                            time: now - start,
                            longest_queue,
                        };
                    }
                    Event::Closed { reason, .. } => panic!("{reason:?}"),
                    _ => {}
                }
            }
        }
        let arrivals = air
            .iter()
            .filter_map(|air| air.front().map(|first| first.at));
        let timers = ends.iter().filter_map(Endpoint::poll_timeout);
        let next = arrivals.chain(timers).min().unwrap();
        now = now.max(next);
        assert!(now < start + Duration::from_secs(60), "no end");
        for end in 0..2 {
            ends[end].handle_timeout(now);
            while air[end].front().is_some_and(|first| first.at <= now) {
                let datagram = air[end].pop_front().unwrap();
                ends[end].handle_marked_datagram(now, at[1 - end], datagram.ecn, datagram.octets);
            }
        }
    }
}

fn controllers() -> [(&'static str, Arc<dyn ControllerFactory>); 3] {
    [
        ("newreno", Arc::new(NewRenoConfig::default())),
        ("cubic", Arc::new(CubicConfig)),
        ("bbr", Arc::new(BbrConfig)),
    ]
}

#[test]
fn every_controller_yields_to_marks_and_loses_nothing() {
    for (name, factory) in controllers() {
        let outcome = transfer(factory, Path::Carries, 10 << 20);
        let Outcome {
            sender, receiver, ..
        } = outcome;
        assert!(sender.ecn_capable, "{name}");
        assert!(sender.ce_reported > 0 && sender.ce_reported <= receiver.ce_received);
        assert_eq!(sender.packets_lost, 0, "{name}: {sender:?}");
        assert!(outcome.longest_queue < LIMIT, "{name}");
        let goodput = f64::from(10 << 20) / outcome.time.as_secs_f64() / RATE as f64;
        assert!(goodput > 0.75, "{name}: {goodput:.2}");
    }
}

#[test]
fn a_path_that_bleaches_marks_gets_no_more_of_them() {
    let outcome = transfer(Arc::new(BbrConfig), Path::Bleaches, 1 << 20);
    assert!(!outcome.sender.ecn_capable);
    assert_eq!(outcome.receiver.ce_received, 0);
}

#[test]
fn a_path_that_drops_marked_datagrams_is_used_without_marks() {
    let outcome = transfer(Arc::new(BbrConfig), Path::DropsMarked, 1 << 20);
    assert!(!outcome.sender.ecn_capable);
    assert!(outcome.time < Duration::from_secs(10), "{:?}", outcome.time);
}
