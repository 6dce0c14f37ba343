//! A sender held by a window that does not open: it asks, less and less often.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_rdt::{Config, Endpoint};
use vmdt_testkit::Clock;
use vmdt_wire::FlowId;

const DELAY: Duration = Duration::from_millis(5);

struct Pair {
    clock: Clock,
    ends: [Endpoint; 2],
    addresses: [SocketAddr; 2],
    air: Vec<(Instant, usize, Bytes)>,
    datagrams: u64,
}

impl Pair {
    fn new() -> Pair {
        let ends = ["a", "b"].map(|id| {
            Endpoint::new(
                Config::default(),
                id.parse().unwrap(),
                [id.as_bytes()[0]; 32],
            )
        });
        let addresses = ["10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap()];
        Pair {
            clock: Clock::new(),
            ends,
            addresses,
            air: Vec::new(),
            datagrams: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.clock.now() + time;
        let mut buf = Vec::new();
        loop {
            let now = self.clock.now();
            for i in 0..2 {
                while self.ends[i].poll_transmit(now, &mut buf).is_some() {
                    self.datagrams += 1;
                    self.air
                        .push((now + DELAY, 1 - i, Bytes::copy_from_slice(&buf)));
                }
                while self.ends[i].poll_event().is_some() {}
            }
            let next = self.air.iter().map(|d| d.0);
            let next = next
                .chain(self.ends.iter().filter_map(Endpoint::poll_timeout))
                .min();
            match next.filter(|at| *at < end) {
                Some(at) => self.clock.advance_to(at),
                None => return self.clock.advance_to(end),
            }
            let now = self.clock.now();
            let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.air)
                .into_iter()
                .partition(|d| d.0 <= now);
            self.air = later;
            for (_, to, datagram) in due {
                self.ends[to].handle_datagram(now, self.addresses[1 - to], datagram);
            }
            for end in &mut self.ends {
                end.handle_timeout(now);
            }
        }
    }
}

#[test]
fn probes_of_a_window_that_stays_shut_become_rare_and_end_when_it_opens() {
    let mut pair = Pair::new();
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    let to = pair.addresses[1];
    let now = pair.clock.now();
    pair.ends[0].connect(now, b, to);
    pair.run(Duration::from_secs(1));
    // nobody reads at the other end: its window for the control flow fills
    let mut written = 0;
    let now = pair.clock.now();
    while pair.ends[0]
        .write(now, b, FlowId::CONTROL, Bytes::from(vec![7; 4096]))
        .is_ok()
    {
        written += 4096;
    }
    pair.run(Duration::from_secs(60));
    let before = pair.datagrams;
    pair.run(Duration::from_secs(1000));
    let asked = pair.datagrams - before;
    // one question and one answer every five seconds at the most often, and keep-alives
    assert!(
        (100..1_000).contains(&asked),
        "{asked} datagrams in 1,000 s"
    );

    // it opens: all of it arrives
    let mut read = 0;
    for _ in 0..200 {
        let now = pair.clock.now();
        while let Some(piece) = pair.ends[1].read(now, a, FlowId::CONTROL) {
            read += piece.len();
        }
        pair.run(Duration::from_millis(100));
    }
    assert_eq!(read, written);
}
