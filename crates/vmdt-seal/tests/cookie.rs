//! Cookies and the load gate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use common::base;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_seal::cookie::{COOKIE_LIFETIME, Cookie, CookieJar, Gate, GateConfig, LoadGate};

const ADDRESS: &[u8] = &[192, 0, 2, 1, 0, 9];
const DIGEST: [u8; 32] = [7; 32];

#[test]
fn a_cookie_is_good_for_one_address_one_offer_and_15_seconds() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let now = base();
    let mut jar = CookieJar::new(now, &mut rng);
    let later = now + Duration::from_secs(100);
    let cookie = jar.mint(later, ADDRESS, &DIGEST, &mut rng);
    assert!(jar.verify(later, ADDRESS, &DIGEST, &cookie));
    assert!(jar.verify(later + COOKIE_LIFETIME, ADDRESS, &DIGEST, &cookie));
    let expired = later + COOKIE_LIFETIME + Duration::from_secs(1);
    assert!(!jar.verify(expired, ADDRESS, &DIGEST, &cookie));
    assert!(
        !jar.verify(now, ADDRESS, &DIGEST, &cookie),
        "from the future"
    );
    assert!(!jar.verify(later, &[192, 0, 2, 1, 0, 8], &DIGEST, &cookie));
    assert!(!jar.verify(later, ADDRESS, &[8; 32], &cookie));
    for bit in 0..cookie.0.len() * 8 {
        let mut other = cookie;
        other.0[bit / 8] ^= 1 << (bit % 8);
        assert!(!jar.verify(later, ADDRESS, &DIGEST, &other), "bit {bit}");
    }
}

#[test]
fn a_cookie_outlives_one_change_of_the_secret_and_not_two() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let now = base();
    let mut jar = CookieJar::new(now, &mut rng);
    let before = now + Duration::from_secs(119);
    let cookie = jar.mint(before, ADDRESS, &DIGEST, &mut rng);
    let after = now + Duration::from_secs(121);
    let second = jar.mint(after, ADDRESS, &DIGEST, &mut rng);
    assert!(jar.verify(after, ADDRESS, &DIGEST, &cookie));
    assert!(jar.verify(after, ADDRESS, &DIGEST, &second));
    let third = jar.mint(after + Duration::from_secs(121), ADDRESS, &DIGEST, &mut rng);
    assert!(!jar.verify(after, ADDRESS, &DIGEST, &cookie));
    assert_ne!(second, third);
}

#[test]
fn another_jar_makes_other_cookies() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let now = base();
    let mut jar = CookieJar::new(now, &mut rng);
    let other = CookieJar::new(now, &mut rng);
    let cookie = jar.mint(now, ADDRESS, &DIGEST, &mut rng);
    assert!(!other.verify(now, ADDRESS, &DIGEST, &cookie));
    assert!(!other.verify(now, ADDRESS, &DIGEST, &Cookie([0; 20])));
}

#[test]
fn the_gate_asks_for_cookies_and_then_drops() {
    let now = base();
    let config = GateConfig {
        free_per_s: 10,
        free_burst: 5,
        proven_per_s: 20,
        proven_burst: 3,
    };
    let mut gate = LoadGate::new(config, now);
    for _ in 0..5 {
        assert_eq!(gate.offer(now, false), Gate::Admit);
    }
    for _ in 0..1_000 {
        assert_eq!(gate.offer(now, false), Gate::Cookie);
    }
    for _ in 0..3 {
        assert_eq!(gate.offer(now, true), Gate::Admit);
    }
    assert_eq!(gate.offer(now, true), Gate::Drop);
    let later = now + Duration::from_millis(100);
    assert_eq!(gate.offer(later, false), Gate::Admit);
    assert_eq!(gate.offer(later, false), Gate::Cookie);
    assert_eq!(gate.offer(later, true), Gate::Admit);
    assert_eq!(gate.offer(later, true), Gate::Admit);
    assert_eq!(gate.offer(later, true), Gate::Drop);
    let long_after = now + Duration::from_secs(1 << 40);
    for _ in 0..5 {
        assert_eq!(gate.offer(long_after, false), Gate::Admit);
    }
    assert_eq!(gate.offer(long_after, false), Gate::Cookie);
    assert_eq!(gate.offer(now, false), Gate::Cookie, "a step back in time");
}
