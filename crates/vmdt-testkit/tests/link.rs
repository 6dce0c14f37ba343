#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

//! What a link does to datagrams, measured.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_testkit::{Arrival, BurstLoss, Clock, Link, LinkConfig, SimRng, run_seeds};

const MS: Duration = Duration::from_millis(1);

fn link(config: LinkConfig) -> Link {
    Link::new(config, &SimRng::from_seed(42))
}

fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

/// Sends `count` numbered datagrams, one every `gap`.
fn send_many(link: &mut Link, start: Instant, count: u32, gap: Duration) -> Vec<Arrival> {
    (0..count)
        .flat_map(|i| link.send(start + gap * i, numbered(i)))
        .collect()
}

/// Asserts that `hits` of `trials` fits probability `p` within five standard
/// deviations, which are `spread` times those of independent trials.
#[track_caller]
fn assert_rate(hits: u64, trials: u64, p: f64, spread: f64) {
    let trials = trials as f64;
    let sigma = (trials * p * (1.0 - p)).sqrt() * spread;
    let off = (hits as f64 - trials * p).abs();
    assert!(
        off <= 5.0 * sigma,
        "{hits} of {trials} is {:.1} sigma off {p}",
        off / sigma
    );
}

#[test]
fn a_perfect_link_delivers_at_once_and_unchanged() {
    let now = Clock::new().now();
    let arrivals: Vec<_> = link(LinkConfig::new()).send(now, "x".into()).collect();
    assert_eq!(
        arrivals,
        [Arrival {
            at: now,
            bytes: "x".into()
        }]
    );
}

#[test]
fn delay_is_exact_and_order_kept_without_jitter() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().delay(20 * MS));
    let arrivals = send_many(&mut link, now, 100, MS);
    assert_eq!(arrivals.len(), 100);
    for (i, arrival) in (0..).zip(&arrivals) {
        assert_eq!(arrival.at, now + MS * i + 20 * MS);
        assert_eq!(number(&arrival.bytes), i);
    }
}

#[test]
fn jitter_stays_in_its_bounds_and_covers_them() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().delay(20 * MS).jitter(10 * MS));
    let gap = 11 * MS; // longer than the jitter, so no datagram waits for another
    let arrivals = send_many(&mut link, now, 2_000, gap);
    let extra: Vec<Duration> = (0..)
        .zip(&arrivals)
        .map(|(i, a)| a.at - (now + gap * i) - 20 * MS)
        .collect();
    assert!(extra.iter().all(|extra| *extra <= 10 * MS));
    let mean = extra.iter().sum::<Duration>() / 2_000;
    // Uniform over 10 ms: sigma of the mean is 10/sqrt(12)/sqrt(2000) = 0.065 ms.
    assert!(
        mean.abs_diff(5 * MS) < Duration::from_micros(325),
        "{mean:?}"
    );
}

#[test]
fn jitter_never_reorders() {
    run_seeds(0..20, |seed| {
        let now = Clock::new().now();
        let config = LinkConfig::new().delay(MS).jitter(50 * MS);
        let mut link = Link::new(config, &SimRng::from_seed(seed));
        let arrivals = send_many(&mut link, now, 500, MS);
        assert!(arrivals.is_sorted_by_key(|a| a.at));
        assert!(arrivals.is_sorted_by_key(|a| number(&a.bytes)));
    });
}

#[test]
fn independent_loss_has_its_rate() {
    let now = Clock::new().now();
    for p in [0.001, 0.06, 0.3, 0.9] {
        let mut link = link(LinkConfig::new().loss(p));
        let arrivals = send_many(&mut link, now, 100_000, MS);
        let stats = link.stats();
        assert_eq!((stats.sent, stats.lost + stats.arrived), (100_000, 100_000));
        assert_eq!(stats.arrived, arrivals.len() as u64);
        assert_rate(stats.lost, 100_000, p, 1.0);
    }
}

#[test]
fn loss_is_exact_at_its_ends() {
    let now = Clock::new().now();
    assert_eq!(
        send_many(&mut link(LinkConfig::new().loss(0.0)), now, 5_000, MS).len(),
        5_000
    );
    assert_eq!(
        send_many(&mut link(LinkConfig::new().loss(1.0)), now, 5_000, MS).len(),
        0
    );
}

#[test]
fn burst_loss_has_its_rate_and_lengths() {
    let now = Clock::new().now();
    let (enter, leave) = (0.02, 0.2);
    let burst = BurstLoss::new(enter, leave);
    let mut link = link(LinkConfig::new().burst_loss(burst));
    let total = 200_000;
    let arrived: BTreeSet<u32> = send_many(&mut link, now, total, MS)
        .iter()
        .map(|a| number(&a.bytes))
        .collect();

    let lost = u64::from(total) - arrived.len() as u64;
    assert_eq!(link.stats().lost_in_bursts, lost);
    // Neighbours correlate by r = 1 - enter - leave, which spreads the count.
    let r: f64 = 1.0 - enter - leave;
    assert_rate(
        lost,
        total.into(),
        burst.mean_loss(),
        ((1.0 + r) / (1.0 - r)).sqrt(),
    );

    let bursts = (0..total)
        .filter(|i| !arrived.contains(i) && (*i == 0 || arrived.contains(&(i - 1))))
        .count() as f64;
    let mean = lost as f64 / bursts;
    // Lengths are geometric: mean 1/leave, variance (1 - leave)/leave^2.
    let sigma = ((1.0 - leave) / (leave * leave) / bursts).sqrt();
    assert!(
        (mean - 1.0 / leave).abs() < 5.0 * sigma,
        "mean burst {mean}"
    );
}

#[test]
fn duplicates_have_their_rate_and_equal_their_original() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().duplicate(0.1));
    let arrivals = send_many(&mut link, now, 50_000, MS);
    assert_rate(link.stats().duplicated, 50_000, 0.1, 1.0);
    assert_eq!(arrivals.len() as u64, 50_000 + link.stats().duplicated);
    let distinct: BTreeSet<u32> = arrivals.iter().map(|a| number(&a.bytes)).collect();
    assert_eq!(distinct.len(), 50_000);
}

#[test]
fn corruption_has_its_rate_and_flips_one_to_four_bits() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().corrupt(0.2));
    let sent = Bytes::from(vec![0xa5; 80]);
    let mut seen = [0u64; 5];
    for _ in 0..20_000 {
        for arrival in link.send(now, sent.clone()) {
            assert_eq!(arrival.bytes.len(), sent.len());
            let flipped: u32 = arrival
                .bytes
                .iter()
                .map(|octet| (octet ^ 0xa5).count_ones())
                .sum();
            seen[flipped as usize] += 1;
        }
    }
    let corrupted = seen[1..].iter().sum();
    assert_eq!(corrupted, link.stats().corrupted);
    assert_rate(corrupted, 20_000, 0.2, 1.0);
    for count in &seen[1..] {
        assert_rate(*count, corrupted, 0.25, 1.0);
    }
}

#[test]
fn corruption_leaves_an_empty_datagram_and_the_senders_octets_alone() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().corrupt(1.0));
    assert_eq!(
        link.send(now, Bytes::new()).next().unwrap().bytes,
        Bytes::new()
    );
    let sent = Bytes::from_static(b"z");
    assert_ne!(link.send(now, sent.clone()).next().unwrap().bytes, sent);
    assert_eq!(sent, "z");
}

#[test]
fn reordering_has_its_rate_and_holds_back_within_its_bound() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().delay(10 * MS).reorder(0.1, 30 * MS));
    let arrivals = send_many(&mut link, now, 20_000, MS);
    assert_rate(link.stats().reordered, 20_000, 0.1, 1.0);
    let mut late = 0;
    for arrival in &arrivals {
        let due = now + MS * number(&arrival.bytes) + 10 * MS;
        assert!(arrival.at >= due && arrival.at <= due + 30 * MS);
        late += u64::from(arrival.at > due);
    }
    // Those held back are late; the others are exactly on time.
    assert_eq!(late, link.stats().reordered);
    let mut by_time = arrivals;
    by_time.sort_by_key(|a| a.at);
    assert!(!by_time.is_sorted_by_key(|a| number(&a.bytes)));
}

#[test]
fn the_bottleneck_spaces_datagrams_by_their_transmission_time() {
    let now = Clock::new().now();
    // 1,000 octets at 8 Mbit/s take 1 ms.
    let mut link = link(LinkConfig::new().delay(5 * MS).rate(8_000_000, 10_000));
    for i in 1..=3 {
        let arrival = link.send(now, vec![0; 1_000].into()).next().unwrap();
        assert_eq!(arrival.at, now + MS * i + 5 * MS);
    }
    // An idle bottleneck starts afresh, it saves nothing up.
    let later = now + 100 * MS;
    let arrival = link.send(later, vec![0; 500].into()).next().unwrap();
    assert_eq!(arrival.at, later + MS / 2 + 5 * MS);
}

#[test]
fn a_full_queue_drops_the_newest_until_there_is_room() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().rate(8_000_000, 3_000));
    let mut send = |at| link.send(at, vec![0; 1_000].into()).count();
    assert_eq!([send(now), send(now), send(now), send(now)], [1, 1, 1, 0]);
    // One has left after exactly 1 ms, not before.
    assert_eq!(send(now + MS - Duration::from_nanos(1)), 0);
    assert_eq!([send(now + MS), send(now + MS)], [1, 0]);
    assert_eq!(link.stats().queue_full, 3);
    assert_eq!(link.queued(now + MS), 3_000);
    assert_eq!(link.queued(now + 10 * MS), 0);
}

#[test]
fn a_queue_holds_a_bounded_number_of_empty_datagrams() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().rate(8, 10));
    let passed: usize = (0..100).map(|_| link.send(now, Bytes::new()).count()).sum();
    assert_eq!(passed, 10);
}

#[test]
fn a_saturated_bottleneck_passes_exactly_its_rate() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().rate(1_000_000, 20_000));
    let arrivals: Vec<_> = (0..20_000)
        .flat_map(|i| link.send(now + Duration::from_micros(500) * i, vec![0; 1_250].into()))
        .collect();
    // 10 s at 1 Mbit/s are 1,000 datagrams of 10,000 bits.
    let passed = arrivals
        .iter()
        .filter(|a| a.at <= now + Duration::from_secs(10))
        .count();
    assert_eq!(passed, 1_000);
}

#[test]
fn the_mtu_passes_its_own_size_and_drops_one_octet_more() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().mtu(1_472));
    assert_eq!(link.send(now, vec![0; 1_472].into()).count(), 1);
    assert_eq!(link.send(now, vec![0; 1_473].into()).count(), 0);
    assert_eq!(link.stats().oversized, 1);
}

#[test]
fn one_effect_does_not_move_the_choices_of_another() {
    let now = Clock::new().now();
    let base = LinkConfig::new().loss(0.2);
    let survivors = |config: LinkConfig| -> BTreeSet<u32> {
        let arrivals = send_many(&mut link(config), now, 2_000, MS);
        arrivals.iter().map(|a| number(&a.bytes)).collect()
    };
    let plain = survivors(base.clone());
    assert_eq!(
        survivors(base.clone().duplicate(0.3).jitter(MS).reorder(0.2, MS)),
        plain
    );
    assert_ne!(survivors(base.loss(0.21)), plain);
}

#[test]
fn changed_settings_hold_from_the_next_datagram_and_keep_the_order() {
    let now = Clock::new().now();
    let mut link = link(LinkConfig::new().delay(100 * MS));
    let slow = link.send(now, numbered(0)).next().unwrap();
    link.set_config(LinkConfig::new().delay(MS));
    let held = link.send(now + MS, numbered(1)).next().unwrap();
    let fast = link.send(now + 200 * MS, numbered(2)).next().unwrap();
    assert_eq!([slow.at, held.at], [now + 100 * MS; 2]);
    assert_eq!(fast.at, now + 201 * MS);
}

#[test]
fn the_same_seed_gives_the_same_arrivals() {
    run_seeds(0..50, |seed| {
        let now = Clock::new().now();
        let config = LinkConfig::sample(&mut SimRng::from_seed(seed), 0.3);
        let run = |seed| {
            let mut link = Link::new(config.clone(), &SimRng::from_seed(seed));
            (send_many(&mut link, now, 300, MS), link.stats())
        };
        assert_eq!(run(seed), run(seed));
    });
}
