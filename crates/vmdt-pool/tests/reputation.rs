//! Scores, checks and bans.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use vmdt_pool::reputation::{Evidence, Health, Reputation, ReputationConfig, ReputationEvent};

fn fresh() -> Reputation {
    Reputation::new(ReputationConfig::default())
}

fn events(reputation: &mut Reputation) -> Vec<ReputationEvent> {
    std::iter::from_fn(|| reputation.poll_event()).collect()
}

const BAD: Evidence = Evidence::BadShare {
    message: vmdt_wire::MessageId::ZERO,
    announced: [1; 16],
    delivered: [2; 16],
};

#[test]
fn a_score_rises_with_success_falls_with_failure_and_stays_within_bounds() {
    let (mut reputation, now) = (fresh(), base());
    let peer = node("carol");
    assert_eq!(reputation.score(now, peer), 0.5);
    let mut last = 0.5;
    for _ in 0..200 {
        reputation.success(now, peer);
        let score = reputation.score(now, peer);
        assert!(score > last && score <= 1.0);
        last = score;
    }
    assert!(last > 0.98);
    reputation.failure(now, peer);
    assert!(
        reputation.score(now, peer) > 0.97,
        "one failure is forgiven"
    );
    for _ in 0..1_000 {
        reputation.failure(now, peer);
        let score = reputation.score(now, peer);
        assert!((0.0..1.0).contains(&score));
    }
    assert!(reputation.score(now, peer) < 0.2);
    let report = reputation.report(now, peer).unwrap();
    assert_eq!((report.successes, report.failures), (200, 1_001));
}

#[test]
fn in_silence_a_score_drifts_back_to_the_prior_by_halves() {
    let (mut reputation, now) = (fresh(), base());
    let peer = node("carol");
    for _ in 0..4 {
        reputation.failure(now, peer);
    }
    // (2 + 0) / (4 + 4), then / (4 + 2), then / (4 + 1).
    for (hours, expected) in [(0, 0.25), (1, 2.0 / 6.0), (2, 2.0 / 5.0), (1_000, 0.5)] {
        let score = reputation.score(now + secs(3600 * hours), peer);
        assert!((score - expected).abs() < 1e-9, "{score} after {hours} h");
    }
}

#[test]
fn a_peer_that_does_not_answer_is_checked_with_backoff_and_comes_back() {
    let (mut reputation, now) = (fresh(), base());
    let peer = node("carol");
    reputation.watch(now, peer);
    reputation.watch(now, peer);
    let mut checks = Vec::new();
    let mut told = Vec::new();
    while checks.len() < 6 {
        let at = reputation.poll_timeout().unwrap();
        reputation.handle_timeout(at);
        for event in events(&mut reputation) {
            match event {
                ReputationEvent::Check { .. } => checks.push((at - now).as_secs()),
                other => told.push(((at - now).as_secs(), other)),
            }
        }
    }
    // 2 s for an answer, then 1, 2, 4, 8, 16 s of pause.
    assert_eq!(checks, [0, 3, 7, 13, 23, 41]);
    assert_eq!(told, [(9, ReputationEvent::Down { peer })]);
    assert_eq!(reputation.report(now, peer).unwrap().health, Health::Down);
    let back = now + secs(41) + ms(120);
    reputation.answered(back, peer);
    assert_eq!(events(&mut reputation), [ReputationEvent::Up { peer }]);
    let report = reputation.report(back, peer).unwrap();
    assert_eq!((report.health, report.unanswered), (Health::Up, 0));
    assert_eq!(report.srtt, Some(ms(120)));
    assert_eq!(reputation.poll_timeout(), Some(back + secs(30)));
    reputation.unwatch(peer);
    assert_eq!(reputation.poll_timeout(), None);
}

#[test]
fn the_wait_between_checks_is_bounded_however_often_they_fail() {
    let (mut reputation, now) = (fresh(), base());
    reputation.watch(now, node("carol"));
    let mut last = now;
    for _ in 0..200 {
        let at = reputation.poll_timeout().unwrap();
        assert!(at - last <= secs(300));
        last = at;
        reputation.handle_timeout(at);
        events(&mut reputation);
    }
}

#[test]
fn only_conclusive_evidence_bans_and_a_ban_ends() {
    let (mut reputation, now) = (fresh(), base());
    let peer = node("carol");
    for _ in 0..1_000 {
        reputation.failure(now, peer);
    }
    assert!(!reputation.is_banned(now, peer), "being bad is no crime");
    let innocent = Evidence::BadShare {
        message: message(1),
        announced: [1; 16],
        delivered: [1; 16],
    };
    let repeated = Evidence::Equivocation {
        message: message(1),
        statements: [[3; 16]; 2],
    };
    let kept_word = Evidence::FalseDelivery {
        message: message(1),
        signed: [1; 16],
        delivered: [1; 16],
    };
    for weak in [innocent, repeated, kept_word] {
        assert!(!reputation.ban(now, peer, weak));
    }
    assert!(reputation.ban(now, peer, BAD));
    let banned = ReputationEvent::Banned {
        peer,
        evidence: BAD,
    };
    assert_eq!(events(&mut reputation), [banned]);
    assert_eq!(reputation.score(now, peer), 0.0);
    let day = secs(24 * 3600);
    assert!(reputation.is_banned(now + day - ms(1), peer));
    assert!(!reputation.is_banned(now + day, peer));
    reputation.pardon(peer);
    assert!(!reputation.is_banned(now, peer));
}

#[test]
fn peers_are_bounded_and_banned_ones_are_forgotten_last() {
    let now = base();
    let mut reputation = Reputation::new(ReputationConfig {
        max_peers: 3,
        ..ReputationConfig::default()
    });
    reputation.ban(now, node("bad"), BAD);
    for number in 0..100_u64 {
        reputation.success(now + secs(number), node(&format!("p{number}")));
        assert!(reputation.list(now).count() <= 3);
    }
    let left: Vec<_> = reputation.list(now).map(|r| r.peer.to_string()).collect();
    assert_eq!(left, ["bad", "p98", "p99"]);
}
