#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

//! Streams: opening, order under any chunking, closing, breaking, slow readers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use vmdt_testkit::{
    Chunking, Clock, CloseReason, HostId, LinkConfig, Network, NetworkEvent, RefuseReason, SimRng,
    StreamConfig, StreamEnd, StreamEventKind, StreamId, WriteError, run_seeds,
};

use StreamEventKind::{Closed, Data, Opened, Progress, Refused};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn ip(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, host])
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::new(ip(host), 7_000)
}

/// Two hosts 10 ms apart; the second listens. Keeps what each end has seen.
struct World {
    clock: Clock,
    network: Network,
    dialer: HostId,
    server: HostId,
    received: BTreeMap<StreamEnd, Vec<u8>>,
    pieces: Vec<usize>,
}

/// An event with its end and its time since the start.
type Seen = (Duration, StreamEnd, StreamEventKind);

impl World {
    fn new(seed: u64, config: StreamConfig) -> Self {
        let clock = Clock::new();
        let mut network = Network::new(clock.now(), &SimRng::from_seed(seed));
        network.set_default_link(LinkConfig::new().delay(10 * MS));
        network.set_stream_config(config);
        let dialer = network.add_host(ip(1));
        let server = network.add_host(ip(2));
        network.listen(at(2));
        Self {
            clock,
            network,
            dialer,
            server,
            received: BTreeMap::new(),
            pieces: Vec::new(),
        }
    }

    fn whole() -> Self {
        Self::new(1, StreamConfig::new().chunking(Chunking::Whole))
    }

    fn open(&mut self) -> StreamId {
        self.network.open_stream(self.clock.now(), at(1), at(2))
    }

    /// A stream that both ends have seen open.
    fn opened(&mut self) -> StreamId {
        let id = self.open();
        let seen = self.run();
        assert_eq!(seen.len(), 2, "{seen:?}");
        id
    }

    fn write(&mut self, end: StreamEnd, octets: &[u8]) -> usize {
        let octets = Bytes::copy_from_slice(octets);
        self.network.write(self.clock.now(), end, octets).unwrap()
    }

    /// Runs until nothing more is due, and returns what is not `Data`.
    fn run(&mut self) -> Vec<Seen> {
        self.run_until(None)
    }

    fn run_for(&mut self, time: Duration) -> Vec<Seen> {
        let end = self.clock.now() + time;
        let seen = self.run_until(Some(self.clock.elapsed() + time));
        self.clock.advance_to(end);
        seen
    }

    fn run_until(&mut self, end: Option<Duration>) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Some(due) = self.network.next_at() {
            if end.is_some_and(|end| due > self.clock.at(end)) {
                break;
            }
            self.clock.advance_to(due);
            while let Some(event) = self.network.poll(self.clock.now()) {
                let NetworkEvent::Stream(event) = event else {
                    panic!("a datagram: {event:?}");
                };
                let host = [self.dialer, self.server][event.end.side as usize];
                assert_eq!(event.host, host);
                match event.kind {
                    Data(octets) => {
                        assert!(!octets.is_empty());
                        self.pieces.push(octets.len());
                        self.received.entry(event.end).or_default().extend(octets);
                    }
                    kind => seen.push((event.at - self.clock.base(), event.end, kind)),
                }
            }
        }
        seen
    }

    fn received(&self, end: StreamEnd) -> &[u8] {
        self.received.get(&end).map_or(&[], Vec::as_slice)
    }
}

#[test]
fn opens_at_the_listener_after_a_delay_and_at_the_dialer_after_two() {
    let mut world = World::whole();
    let id = world.open();
    let opened = |local, peer| Opened { local, peer };
    let expected = [
        (10 * MS, id.listener(), opened(at(2), at(1))),
        (20 * MS, id.dialer(), opened(at(1), at(2))),
    ];
    assert_eq!(world.run(), expected);
    assert_eq!(world.network.next_at(), None);
}

#[test]
fn is_refused_after_a_round_trip_where_nobody_listens() {
    let mut world = World::whole();
    world.network.unlisten(at(2));
    let id = world.open();
    assert_eq!(
        world.run(),
        [(20 * MS, id.dialer(), Refused(RefuseReason::Refused))]
    );
    let write = world
        .network
        .write(world.clock.now(), id.dialer(), "x".into());
    assert_eq!(write, Err(WriteError::Closed));
}

#[test]
fn times_out_towards_nobody_a_host_that_is_down_and_a_partition() {
    let timed_out = |id: StreamId| [(10 * SECOND, id.dialer(), Refused(RefuseReason::TimedOut))];

    let mut world = World::whole();
    let id = world.network.open_stream(world.clock.now(), at(1), at(99));
    assert_eq!(world.run(), timed_out(id));

    let mut world = World::whole();
    world.network.power_off(world.clock.now(), world.server);
    let id = world.open();
    assert_eq!(world.run(), timed_out(id));

    let mut world = World::whole();
    world.network.isolate(world.clock.now(), &[world.server]);
    let id = world.open();
    assert_eq!(world.run(), timed_out(id));
}

#[test]
fn opens_late_when_a_partition_heals_in_time() {
    let mut world = World::whole();
    world.network.isolate(world.clock.now(), &[world.server]);
    let id = world.open();
    assert_eq!(world.run_for(5 * SECOND), []);
    world.network.heal(world.clock.now());
    let seen = world.run();
    assert!(
        matches!(seen[..], [(_, _, Opened { .. }), (when, end, Opened { .. })]
        if end == id.dialer() && when < 6 * SECOND)
    );
}

#[test]
fn cannot_be_written_before_it_is_open_or_after_it_is_closed() {
    let mut world = World::whole();
    let id = world.open();
    let now = world.clock.now();
    assert_eq!(
        world.network.write(now, id.dialer(), "x".into()),
        Err(WriteError::NotOpen)
    );
    assert_eq!(world.network.room(id.listener()), Err(WriteError::NotOpen));
    world.run();
    assert_eq!(world.write(id.dialer(), b"x"), 1);
    world.network.close(now, id.dialer());
    assert_eq!(world.network.room(id.dialer()), Err(WriteError::Closed));
}

#[test]
fn data_takes_the_delay_and_progress_comes_back_after_another() {
    let mut world = World::whole();
    let id = world.opened();
    world.write(id.dialer(), b"hello");
    assert_eq!(world.run_for(10 * MS - Duration::from_nanos(1)), []);
    assert_eq!(world.received(id.listener()), b"");
    world.run_for(Duration::from_nanos(1));
    assert_eq!(world.received(id.listener()), b"hello");
    assert_eq!(world.run(), [(40 * MS, id.dialer(), Progress(5))]);
}

#[test]
fn octets_keep_their_order_in_both_directions_under_any_chunking() {
    run_seeds(0..200, |seed| {
        let rng = SimRng::from_seed(seed);
        let mut draws = rng.fork("writes");
        let chunking = [Chunking::Random, Chunking::Whole, Chunking::Octets];
        let config = StreamConfig::new()
            .chunking(chunking[seed as usize % 3])
            .buffer(5_000);
        let mut world = World::new(seed, config);
        let link = LinkConfig::sample(&mut rng.fork("link"), 0.5);
        let id = world.opened();
        world.network.set_default_link(link);

        let ends = [id.dialer(), id.listener()];
        let mut written = [Vec::new(), Vec::new()];
        for _ in 0..30 {
            for (end, written) in ends.iter().zip(&mut written) {
                let len = draws.below(3_000) as usize;
                let octets = draws.bytes(len);
                let taken = world.write(*end, &octets);
                written.extend_from_slice(&octets[..taken]);
            }
            world.run_for(draws.duration(SECOND));
        }
        let seen = world.run();
        assert!(
            seen.iter().all(|(_, _, kind)| matches!(kind, Progress(_))),
            "{seen:?}"
        );
        // However slow the link, the buffer was full at least once.
        assert!(written[0].len() >= 5_000);
        assert_eq!(world.received(id.listener()), written[0]);
        assert_eq!(world.received(id.dialer()), written[1]);
        assert_eq!(world.network.room(id.dialer()), Ok(5_000));
        assert_eq!(world.network.room(id.listener()), Ok(5_000));
    });
}

#[test]
fn random_chunks_split_writes_and_join_them() {
    let mut world = World::new(3, StreamConfig::new());
    let id = world.opened();
    for _ in 0..200 {
        world.write(id.dialer(), b"0123456789");
        world.run_for(Duration::from_micros(100));
    }
    world.run();
    assert_eq!(world.received(id.listener()), b"0123456789".repeat(200));
    for wanted in [1..2, 2..10, 10..11, 11..2_000] {
        assert!(
            world.pieces.iter().any(|len| wanted.contains(len)),
            "{wanted:?}"
        );
    }
}

#[test]
fn octet_chunks_are_single_octets() {
    let mut world = World::new(3, StreamConfig::new().chunking(Chunking::Octets));
    let id = world.opened();
    world.write(id.dialer(), b"abc");
    world.run();
    assert_eq!(world.pieces, [1, 1, 1]);
}

#[test]
fn the_rate_of_the_link_spaces_segments() {
    let mut world = World::whole();
    let id = world.opened();
    // 1,460 octets at 11.68 Mbit/s take 1 ms.
    let link = LinkConfig::new().delay(10 * MS).rate(11_680_000, 1);
    world.network.set_link(world.dialer, world.server, link);
    world.write(id.dialer(), &[7; 14_600]);
    for arrived in 1..=10 {
        world.run_for(if arrived == 1 { 11 * MS } else { MS });
        assert_eq!(world.received(id.listener()).len(), arrived * 1_460);
    }
}

#[test]
fn loss_delays_a_stream_and_takes_nothing() {
    let mut world = World::whole();
    let id = world.opened();
    world
        .network
        .set_default_link(LinkConfig::new().delay(10 * MS).loss(0.5));
    let sent: Vec<u8> = (0..30_000u32).map(|i| i as u8).collect();
    assert_eq!(world.write(id.dialer(), &sent), sent.len());
    let before = world.clock.elapsed();
    world.run();
    assert_eq!(world.received(id.listener()), sent);
    assert!(world.clock.elapsed() - before >= 200 * MS);
}

#[test]
fn a_reader_that_does_not_read_fills_the_buffer_and_no_more() {
    let mut world = World::new(
        1,
        StreamConfig::new().chunking(Chunking::Whole).buffer(1_000),
    );
    let id = world.opened();
    world
        .network
        .set_reading(world.clock.now(), id.listener(), false);
    assert_eq!(world.write(id.dialer(), &[1; 800]), 800);
    assert_eq!(world.write(id.dialer(), &[2; 800]), 200);
    assert_eq!(world.write(id.dialer(), &[3; 800]), 0);
    assert_eq!(world.run_for(60 * SECOND), []);
    assert_eq!(world.received(id.listener()), b"");

    world
        .network
        .set_reading(world.clock.now(), id.listener(), true);
    let resumed = world.clock.elapsed();
    assert_eq!(
        world.run(),
        [(resumed + 10 * MS, id.dialer(), Progress(1_000))]
    );
    assert_eq!(
        world.received(id.listener()),
        [&[1; 800][..], &[2; 200]].concat()
    );
    assert_eq!(world.network.room(id.dialer()), Ok(1_000));
}

#[test]
fn closing_delivers_what_was_written_and_then_says_so() {
    run_seeds(0..50, |seed| {
        let mut world = World::new(seed, StreamConfig::new());
        let id = world.opened();
        world.write(id.dialer(), &[9; 20_000]);
        world.write(id.listener(), b"never read");
        world.network.close(world.clock.now(), id.dialer());
        let seen = world.run();
        assert!(
            matches!(seen[..], [(_, end, Closed(CloseReason::Finished))] if end == id.listener()),
            "{seen:?}"
        );
        assert_eq!(world.received(id.listener()), [9; 20_000]);
        assert_eq!(world.received(id.dialer()), b"");
        // Closing what is closed does nothing.
        world.network.close(world.clock.now(), id.listener());
        world.network.close(world.clock.now(), id.dialer());
        assert_eq!(world.network.next_at(), None);
    });
}

#[test]
fn a_close_waits_behind_octets_that_are_not_read() {
    let mut world = World::whole();
    let id = world.opened();
    world
        .network
        .set_reading(world.clock.now(), id.listener(), false);
    world.write(id.dialer(), b"last words");
    world.network.close(world.clock.now(), id.dialer());
    assert_eq!(world.run_for(SECOND), []);
    world
        .network
        .set_reading(world.clock.now(), id.listener(), true);
    let now = world.clock.elapsed();
    assert_eq!(
        world.run(),
        [(now, id.listener(), Closed(CloseReason::Finished))]
    );
    assert_eq!(world.received(id.listener()), b"last words");
}

#[test]
fn both_ends_may_close_at_once() {
    let mut world = World::whole();
    let id = world.opened();
    world.network.close(world.clock.now(), id.dialer());
    world.network.close(world.clock.now(), id.listener());
    assert_eq!(world.run(), []);
    assert_eq!(world.network.next_at(), None);
}

#[test]
fn a_dialer_may_close_before_the_stream_is_open() {
    let mut world = World::whole();
    let id = world.open();
    world.network.close(world.clock.now(), id.dialer());
    let kinds: Vec<_> = world
        .run()
        .into_iter()
        .map(|(_, end, kind)| (end, kind))
        .collect();
    let opened = Opened {
        local: at(2),
        peer: at(1),
    };
    let expected = [
        (id.listener(), opened),
        (id.listener(), Closed(CloseReason::Finished)),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn an_end_sees_nothing_after_it_closes_even_what_was_due() {
    let mut world = World::new(1, StreamConfig::new().chunking(Chunking::Octets));
    let id = world.opened();
    world.write(id.dialer(), b"abc");
    world.clock.advance(SECOND);
    let now = world.clock.now();
    let first = world.network.pop_due_stream(now).unwrap();
    assert_eq!(first.kind, Data("a".into()));
    world.network.close(now, id.listener());
    let seen = world.run();
    assert!(
        seen.iter().all(|(_, end, _)| *end == id.dialer()),
        "{seen:?}"
    );
    assert_eq!(world.received(id.listener()), b"");
}

#[test]
fn a_reset_loses_what_is_on_its_way() {
    let mut world = World::whole();
    let id = world.opened();
    world.write(id.dialer(), b"lost");
    let now = world.clock.elapsed();
    world.network.reset(world.clock.now(), id.dialer());
    assert_eq!(
        world.run(),
        [(now + 10 * MS, id.listener(), Closed(CloseReason::Reset))]
    );
    assert_eq!(world.received(id.listener()), b"");
}

#[test]
fn killing_a_host_resets_its_streams_and_its_listening() {
    let mut world = World::whole();
    let id = world.opened();
    world.write(id.dialer(), b"to the dead");
    let now = world.clock.elapsed();
    world.network.kill(world.clock.now(), world.server);
    assert_eq!(
        world.run(),
        [(now + 10 * MS, id.dialer(), Closed(CloseReason::Reset))]
    );
    assert_eq!(world.received(id.listener()), b"");

    world.network.bring_up(world.clock.now(), world.server);
    let id = world.open();
    assert!(
        matches!(world.run()[..], [(_, end, Refused(RefuseReason::Refused))] if end == id.dialer())
    );
    world.network.listen(at(2));
    world.opened();
}

#[test]
fn a_host_without_power_is_noticed_after_the_time_to_break() {
    let mut world = World::whole();
    let id = world.opened();
    let now = world.clock.elapsed();
    world.network.power_off(world.clock.now(), world.server);
    assert_eq!(
        world.run(),
        [(
            now + 30 * SECOND,
            id.dialer(),
            Closed(CloseReason::TimedOut)
        )]
    );
}

#[test]
fn a_host_that_is_back_soon_resets_the_streams_it_forgot() {
    let mut world = World::whole();
    let id = world.opened();
    world.network.power_off(world.clock.now(), world.server);
    assert_eq!(world.run_for(5 * SECOND), []);
    let now = world.clock.elapsed();
    world.network.bring_up(world.clock.now(), world.server);
    assert_eq!(
        world.run(),
        [(now + 10 * MS, id.dialer(), Closed(CloseReason::Reset))]
    );
}

#[test]
fn a_short_partition_holds_a_stream_up_and_loses_nothing() {
    run_seeds(0..50, |seed| {
        let mut world = World::new(seed, StreamConfig::new());
        let id = world.opened();
        world.write(id.dialer(), b"on its way, ");
        world.network.isolate(world.clock.now(), &[world.server]);
        world.write(id.dialer(), b"written meanwhile, ");
        assert_eq!(world.run_for(29 * SECOND), []);
        assert_eq!(world.received(id.listener()), b"");
        world.network.heal(world.clock.now());
        world.write(id.dialer(), b"and after");
        let seen = world.run_for(SECOND);
        assert!(
            seen.iter().all(|(_, _, kind)| matches!(kind, Progress(_))),
            "{seen:?}"
        );
        assert_eq!(
            world.received(id.listener()),
            b"on its way, written meanwhile, and after"
        );
        // The time to break starts afresh with the next partition.
        world.network.isolate(world.clock.now(), &[world.server]);
        assert_eq!(world.run_for(29 * SECOND), []);
        world.network.heal(world.clock.now());
        assert_eq!(world.run(), []);
    });
}

#[test]
fn a_long_partition_breaks_a_stream_at_both_ends() {
    let mut world = World::new(1, StreamConfig::new().break_after(3 * SECOND));
    let id = world.opened();
    let now = world.clock.elapsed();
    world
        .network
        .block(world.clock.now(), world.dialer, world.server);
    let expected = [
        (now + 3 * SECOND, id.dialer(), Closed(CloseReason::TimedOut)),
        (
            now + 3 * SECOND,
            id.listener(),
            Closed(CloseReason::TimedOut),
        ),
    ];
    assert_eq!(world.run(), expected);
    assert_eq!(world.network.room(id.dialer()), Err(WriteError::Closed));
}

#[test]
fn a_stream_of_an_address_that_is_taken_away_breaks() {
    let mut world = World::whole();
    let id = world.opened();
    world.network.remove_address(world.clock.now(), ip(1));
    world.write(id.listener(), b"x");
    let ends: Vec<_> = world
        .run()
        .into_iter()
        .map(|(_, end, kind)| (end, kind))
        .collect();
    let broken = Closed(CloseReason::TimedOut);
    assert_eq!(
        ends,
        [(id.dialer(), broken.clone()), (id.listener(), broken)]
    );
}

#[test]
#[should_panic(expected = "break_after: 18446744073709551615.999999999s is above one day")]
fn rejects_an_endless_time_to_break() {
    let _ = StreamConfig::new().break_after(Duration::MAX);
}

#[test]
#[should_panic(expected = "buffer: 0 octets pass nothing")]
fn rejects_a_buffer_of_nothing() {
    let _ = StreamConfig::new().buffer(0);
}

#[test]
#[should_panic(expected = "no host that is up has 10.0.0.1:7000")]
fn a_host_that_is_down_cannot_open_a_stream() {
    let mut world = World::whole();
    world.network.kill(world.clock.now(), world.dialer);
    world.open();
}

/// Streams opened, written, closed, reset, paused, partitioned and killed at
/// random. Checks what each end sees against the law of its events.
fn random_script(seed: u64) -> u64 {
    let mut rng = SimRng::from_seed(seed);
    let mut clock = Clock::new();
    let mut network = Network::new(clock.now(), &rng.fork("network"));
    network.set_default_link(LinkConfig::sample(&mut rng, 0.3));
    network.set_stream_config(StreamConfig::new().buffer(3_000).break_after(2 * SECOND));
    let hosts: Vec<_> = (0..3).map(|i| network.add_host(ip(i))).collect();
    (0..3).for_each(|i| network.listen(at(i)));

    let mut open: BTreeMap<StreamEnd, HostId> = BTreeMap::new();
    let mut over: Vec<StreamEnd> = Vec::new();
    let mut sent: BTreeMap<StreamEnd, Vec<u8>> = BTreeMap::new();
    let mut got: BTreeMap<StreamEnd, usize> = BTreeMap::new();
    for step in 0..601 {
        let now = clock.now();
        let host = hosts[rng.below(3) as usize];
        let ends: Vec<_> = open.keys().copied().collect();
        let end = rng.pick(&ends).copied();
        match (rng.below(40), end) {
            _ if step == 600 => {
                network.heal(now);
                ends.iter()
                    .for_each(|end| network.set_reading(now, *end, true));
            }
            (0..4, _) if network.is_up(host) => {
                let _ = network.open_stream(now, at(host.index() as u8), at(rng.below(3) as u8));
            }
            (4, _) => network.isolate(now, &[host]),
            (5..7, _) => network.heal(now),
            (7, _) => {
                network.kill(now, host);
                open.retain(|_, at| *at != host);
            }
            (8, _) => {
                network.power_off(now, host);
                open.retain(|_, at| *at != host);
            }
            (9..12, _) => {
                network.bring_up(now, host);
                network.listen(at(host.index() as u8));
            }
            (12, Some(end)) => {
                network.close(now, end);
                open.remove(&end);
                over.push(end);
            }
            (13, Some(end)) => {
                network.reset(now, end);
                open.remove(&end);
                over.push(end);
            }
            (14 | 15, Some(end)) => network.set_reading(now, end, rng.chance(0.6)),
            (_, Some(end)) => {
                let len = rng.below(2_000) as usize;
                let octets = rng.bytes(len);
                let taken = network.write(now, end, octets.clone().into()).unwrap();
                sent.entry(end)
                    .or_default()
                    .extend_from_slice(&octets[..taken]);
            }
            _ => {}
        }
        let until = if step == 600 {
            now + 60 * SECOND
        } else {
            now + rng.duration(100 * MS)
        };
        while let Some(due) = network.next_at().filter(|due| *due <= until) {
            clock.advance_to(due);
            let Some(event) = network.poll(clock.now()) else {
                continue;
            };
            let NetworkEvent::Stream(event) = event else {
                panic!("no datagram was sent");
            };
            assert!(!over.contains(&event.end), "{event:?} after the end");
            assert!(network.is_up(event.host), "{event:?} at a dead host");
            match event.kind {
                Opened { .. } => assert_eq!(open.insert(event.end, event.host), None),
                Data(octets) => {
                    assert!(open.contains_key(&event.end));
                    let from = got.entry(event.end).or_default();
                    let sent = &sent[&event.end.peer()][*from..];
                    assert_eq!(octets, sent[..octets.len()]);
                    *from += octets.len();
                }
                Progress(octets) => assert!(octets > 0 && octets <= 3_000),
                Refused(_) => over.push(event.end),
                Closed(reason) => {
                    assert!(open.remove(&event.end).is_some());
                    over.push(event.end);
                    if reason == CloseReason::Finished {
                        let all = sent.get(&event.end.peer()).map_or(0, Vec::len);
                        assert_eq!(got.get(&event.end).copied().unwrap_or(0), all);
                    }
                }
            }
        }
        clock.advance_to(until);
    }
    assert_eq!(network.next_at(), None, "nothing is left to happen");
    for end in open.keys() {
        assert!(open.contains_key(&end.peer()), "{end:?} is half open");
        let all = sent.get(end).map_or(0, Vec::len);
        assert_eq!(got.get(&end.peer()).copied().unwrap_or(0), all);
        assert_eq!(network.room(*end), Ok(3_000));
    }
    network.trace()
}

#[test]
fn random_scripts_keep_the_law_of_events_and_repeat_exactly() {
    run_seeds(0..100, |seed| {
        assert_eq!(random_script(seed), random_script(seed));
    });
}
