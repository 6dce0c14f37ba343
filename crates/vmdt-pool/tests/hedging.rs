//! Asking early: within the budget, by the estimates of the paths, and not for what is not wanted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use vmdt_pool::hedging::HedgeConfig;
use vmdt_pool::paths::PathEstimate;
use vmdt_pool::{Collector, CollectorConfig, CollectorEvent};

const HOLDERS: [&str; 5] = ["carol", "dave", "erin", "frank", "grace"];

fn bob(fraction: f64) -> Collector {
    let mut bob = Collector::new(CollectorConfig::new(node("bob")));
    bob.set_hedging(Some(HedgeConfig {
        fraction,
        burst: 1_000,
        floor: ms(10),
    }));
    for (holder, srtt) in HOLDERS.into_iter().zip([40, 80, 40, 40, 40]) {
        let mut path = PathEstimate::new(ms(srtt), 1e6);
        path.rttvar = ms(5);
        bob.set_path(node(holder), Some(path));
    }
    bob
}

/// `Unfreeze 4 frank`, `Cancel 1 carol`, `Complete`.
fn said(collector: &mut Collector) -> Vec<String> {
    std::iter::from_fn(|| collector.poll_event())
        .map(|event| match event {
            CollectorEvent::Complete { .. } => "Complete".to_owned(),
            CollectorEvent::Unfreeze { index, holder, .. } => format!("Unfreeze {index} {holder}"),
            CollectorEvent::Claim { index, holder, .. } => format!("Claim {index} {holder}"),
            CollectorEvent::Cancel { index, holder, .. } => format!("Cancel {index} {holder}"),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn bring(bob: &mut Collector, now: Instant, id: u8, own: u8) {
    let octets = share(id, own);
    let digest = digest(&octets);
    let from = node(HOLDERS[usize::from(own) - 1]);
    bob.share(now, from, message(id), index(own), octets, digest)
        .unwrap();
}

#[test]
fn a_share_later_than_its_path_is_replaced_and_the_loser_is_cancelled() {
    let (mut bob, now) = (bob(0.1), base());
    bob.announce(now, &announcement(1, 3, 3, &HOLDERS)).unwrap();
    bring(&mut bob, now + ms(30), 1, 3);
    // carol: 40 + 4 * 5 ms; dave: 80 + 4 * 5 ms.
    assert_eq!(bob.poll_timeout(), Some(now + ms(60)));
    bob.handle_timeout(now + ms(59));
    assert!(said(&mut bob).is_empty());
    bob.handle_timeout(now + ms(60));
    assert_eq!(said(&mut bob), ["Unfreeze 4 frank"]);
    bring(&mut bob, now + ms(80), 1, 4);
    bring(&mut bob, now + ms(81), 1, 2);
    assert_eq!(said(&mut bob), ["Complete", "Cancel 1 carol"]);
    let report = bob.hedging().unwrap();
    assert_eq!((report.hedges, report.denied, report.cancelled), (1, 0, 1));
    assert_eq!(report.traffic, 12);
}

/// A file after a chat: the usual share is no measure of its first ones.
#[test]
fn a_share_of_known_size_is_late_by_that_size_and_costs_it() {
    // 900 octets take 0.9 ms at 1 MB/s, and the budget of 1,000 has them
    let (mut bob, now) = (bob(0.1), base());
    let first = |bob: &mut Collector, octets| {
        bob.announce(now, &announcement(1, 3, 3, &HOLDERS)).unwrap();
        bob.set_share_octets(now, message(1), octets);
        bring(bob, now + ms(30), 1, 2);
        bring(bob, now + ms(30), 1, 3);
        bob.poll_timeout()
    };
    let late = now + ms(60) + Duration::from_micros(900);
    assert_eq!(first(&mut bob, 900), Some(late));
    bob.handle_timeout(late);
    assert_eq!(said(&mut bob), ["Unfreeze 4 frank"]);
    let report = bob.hedging().unwrap();
    assert_eq!((report.hedges, report.octets), (1, 900));

    // 20,000 take 20 ms, and are too much for it
    let (mut bob, _) = (self::bob(0.1), now);
    assert_eq!(first(&mut bob, 20_000), Some(now + ms(80)));
    bob.handle_timeout(now + ms(80));
    assert!(said(&mut bob).is_empty());
    let report = bob.hedging().unwrap();
    assert_eq!((report.hedges, report.octets, report.denied), (0, 0, 1));
}

/// Who holds a share may change; how large it is does not.
#[test]
fn a_share_that_moves_keeps_its_known_size() {
    let (mut bob, now) = (bob(0.1), base());
    let mut ann = announcement(1, 3, 3, &HOLDERS);
    bob.announce(now, &ann).unwrap();
    bob.set_share_octets(now, message(1), 20_000);
    bring(&mut bob, now + ms(5), 1, 2);
    bring(&mut bob, now + ms(5), 1, 3);
    // from carol to erin: 40 + 4 * 5 ms and 20 ms from then on
    ann.shares[0].holder = node("erin");
    ann.version += 1;
    bob.announce(now + ms(10), &ann).unwrap();
    assert_eq!(bob.poll_timeout(), Some(now + ms(90)));
}

/// Nothing is known of such a message, and nothing is kept.
#[test]
fn the_size_of_shares_of_an_unknown_message_changes_nothing() {
    let (mut bob, now) = (bob(0.1), base());
    bob.set_share_octets(now, message(1), 20_000);
    assert_eq!(bob.poll_timeout(), None);
    bob.announce(now, &announcement(1, 3, 3, &HOLDERS)).unwrap();
    assert_eq!(bob.poll_timeout(), Some(now + ms(60)));
}

#[test]
fn a_holder_that_delivers_what_was_announced_before_is_busy_and_not_late() {
    let (mut bob, now) = (bob(0.1), base());
    for id in [1, 2] {
        bob.announce(now, &announcement(id, 3, 3, &HOLDERS))
            .unwrap();
        bring(&mut bob, now + ms(30), id, 2);
        bring(&mut bob, now + ms(30), id, 3);
    }
    // carol brings the first one late enough; from then on the second has its time
    bring(&mut bob, now + ms(50), 1, 1);
    assert_eq!(said(&mut bob), ["Complete"]);
    for at in [61, 109] {
        bob.handle_timeout(now + ms(at));
        assert!(said(&mut bob).is_empty(), "{at}");
    }
    bob.handle_timeout(now + ms(111));
    assert_eq!(said(&mut bob), ["Unfreeze 4 frank"]);
}

#[test]
fn a_share_that_later_ones_overtake_is_late_by_itself() {
    let (mut bob, now) = (bob(0.1), base());
    for (id, at) in [(1, 0), (2, 10)] {
        let at = now + ms(at);
        bob.announce(at, &announcement(id, 3, 3, &HOLDERS)).unwrap();
        bring(&mut bob, now + ms(30), id, 2);
        bring(&mut bob, now + ms(30), id, 3);
    }
    bring(&mut bob, now + ms(50), 2, 1);
    assert_eq!(said(&mut bob), ["Complete"]);
    bob.handle_timeout(now + ms(61));
    assert_eq!(said(&mut bob), ["Unfreeze 4 frank"]);
}

#[test]
fn without_budget_it_waits_as_long_as_without_hedging() {
    let (mut bob, now) = (bob(0.0), base());
    bob.announce(now, &announcement(1, 3, 3, &HOLDERS)).unwrap();
    bring(&mut bob, now + ms(30), 1, 3);
    bob.handle_timeout(now + ms(60));
    bob.handle_timeout(now + ms(100));
    assert!(said(&mut bob).is_empty());
    assert!(bob.hedging().unwrap().denied >= 1);
    let usual = bob.unfreeze_after();
    assert_eq!(usual, secs(1));
    bob.handle_timeout(now + usual);
    let asked = said(&mut bob);
    assert_eq!(asked, ["Unfreeze 4 frank", "Unfreeze 5 grace"]);
    assert_eq!(bob.hedging().unwrap().hedges, 0);
}

#[test]
fn a_holder_that_is_gone_is_replaced_whatever_the_budget() {
    let (mut bob, now) = (bob(0.0), base());
    bob.announce(now, &announcement(1, 3, 3, &HOLDERS)).unwrap();
    bob.holder_lost(now, node("carol"));
    assert_eq!(said(&mut bob), ["Unfreeze 4 frank"]);
    assert_eq!(bob.hedging().unwrap().octets, 0);
}

#[test]
fn a_hedge_that_is_late_itself_is_hedged_while_there_is_something_frozen() {
    let (mut bob, now) = (bob(0.1), base());
    bob.announce(now, &announcement(1, 3, 3, &HOLDERS)).unwrap();
    let mut asked = Vec::new();
    let mut at = now;
    while at < now + ms(900) {
        at = bob.poll_timeout().unwrap();
        bob.handle_timeout(at);
        asked.extend(said(&mut bob));
    }
    let unfrozen = asked.iter().filter(|ask| ask.starts_with("Unfreeze"));
    assert_eq!(unfrozen.count(), 2);
    assert!(at >= now + secs(1) || !asked.iter().any(|ask| ask.starts_with("Claim")));
}

/// What the receiver does about late shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// It waits for them to be sent again.
    Waits,
    /// It unfreezes others by experience with whole messages.
    Unfreezes,
    /// It also hedges by the estimates of the paths.
    Hedges,
}

/// The 99th percentile of delivery times of messages of which each share is lost with 2%, and comes
/// after a second then.
fn percentile(late: Late) -> (Duration, f64) {
    let mut bob = bob(if late == Late::Hedges { 0.1 } else { 0.0 });
    let mut path = PathEstimate::new(ms(40), 1e6);
    path.rttvar = ms(5);
    bob.set_path(node("dave"), Some(path));
    let mut now = base();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut times = Vec::new();
    for round in 0..1_000_u32 {
        now += secs(10);
        let id = u8::try_from(round % 250).unwrap();
        bob.announce(now, &announcement(id, 3, 3, &HOLDERS))
            .unwrap();
        let mut coming: Vec<(Instant, u8)> = Vec::new();
        let mut send = |coming: &mut Vec<(Instant, u8)>, at: Instant, own: u8| {
            let lost = next() < 0.02;
            coming.push((at + if lost { ms(1_000) } else { ms(40) }, own));
        };
        for own in 1..=3 {
            send(&mut coming, now, own);
        }
        let mut at = now;
        loop {
            let mut done = false;
            while let Some(event) = bob.poll_event() {
                match event {
                    CollectorEvent::Complete { message, .. } => {
                        bob.delivered(at, message);
                        done = true;
                    }
                    CollectorEvent::Unfreeze { index, .. } if late != Late::Waits => {
                        send(&mut coming, at, index.get());
                    }
                    _ => {}
                }
            }
            if done {
                break;
            }
            coming.sort_unstable();
            let share = coming.first().copied();
            let timer = bob.poll_timeout().unwrap();
            match share.filter(|(arrives, _)| *arrives <= timer) {
                Some((arrives, own)) => {
                    coming.remove(0);
                    at = arrives;
                    bring(&mut bob, at, id, own);
                }
                None => {
                    at = timer;
                    bob.handle_timeout(at);
                }
            }
        }
        times.push(at - now);
        now += secs(4_000);
        bob.handle_timeout(now);
    }
    times.sort_unstable();
    (times[990], bob.hedging().unwrap().fraction())
}

#[test]
fn the_slowest_hundredth_is_at_least_twice_as_fast_within_the_budget() {
    let (waiting, _) = percentile(Late::Waits);
    let (unfreezing, _) = percentile(Late::Unfreezes);
    let (hedged, fraction) = percentile(Late::Hedges);
    assert!(hedged * 2 <= waiting, "{hedged:?} against {waiting:?}");
    assert!(hedged < unfreezing, "{hedged:?} against {unfreezing:?}");
    // The 10% of the budget, and the burst that it began with.
    let shares = 3_000.0 * 4.0;
    assert!(fraction <= 0.1 + 1_000.0 / shares, "{fraction}");
}
