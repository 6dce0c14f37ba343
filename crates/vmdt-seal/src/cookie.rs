//! Proof of address without state, and when to ask for it.
//!
//! Under load a responder answers an offer with a [`Cookie`] instead of doing cryptography: a MAC
//! over the offerer's address and the offer. Only who receives at that address can send it back.

use core::fmt;
use core::time::Duration;
use std::time::Instant;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Octets of a cookie.
pub const COOKIE_LEN: usize = 20;
/// How long a cookie is good for.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(15);

/// How long a secret makes cookies. It checks them for as long again.
const ROTATE_AFTER: Duration = Duration::from_secs(120);
const MAC_LEN: usize = 16;

/// What an offerer sends back to prove its address: seconds (4 octets, big-endian) and a MAC of
/// 16 octets. Opaque to the offerer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie(pub [u8; COOKIE_LEN]);

/// Makes and checks cookies. It holds two secrets and grows with nobody.
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::cookie::CookieJar;
///
/// # fn check(now: std::time::Instant) {
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let mut jar = CookieJar::new(now, &mut rng);
/// let cookie = jar.mint(now, b"192.0.2.1:9", &[7; 32], &mut rng);
/// assert!(jar.verify(now, b"192.0.2.1:9", &[7; 32], &cookie));
/// assert!(!jar.verify(now, b"192.0.2.2:9", &[7; 32], &cookie));
/// # }
/// ```
pub struct CookieJar {
    began: Instant,
    rotated: Instant,
    current: Zeroizing<[u8; 32]>,
    previous: Zeroizing<[u8; 32]>,
}

impl CookieJar {
    /// A jar with fresh secrets.
    #[must_use]
    pub fn new(now: Instant, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            began: now,
            rotated: now,
            current: draw(rng),
            previous: draw(rng),
        }
    }

    /// Makes a cookie for the offer of this digest from this address. The address octets must
    /// tell addresses apart: IP address and port.
    pub fn mint(
        &mut self,
        now: Instant,
        address: &[u8],
        digest: &[u8; 32],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Cookie {
        if now.saturating_duration_since(self.rotated) >= ROTATE_AFTER {
            self.previous = core::mem::replace(&mut self.current, draw(rng));
            self.rotated = now;
        }
        let seconds = self.seconds(now).to_be_bytes();
        let mut cookie = [0; COOKIE_LEN];
        let (time, tag) = cookie.split_at_mut(4);
        time.copy_from_slice(&seconds);
        tag.copy_from_slice(&mac(&self.current, seconds, address, digest));
        Cookie(cookie)
    }

    /// Whether this jar made the cookie, within [`COOKIE_LIFETIME`], for this address and offer.
    /// Compares in constant time.
    #[must_use]
    pub fn verify(&self, now: Instant, address: &[u8], digest: &[u8; 32], cookie: &Cookie) -> bool {
        let (time, tag) = cookie.0.split_at(4);
        let Ok(seconds) = <[u8; 4]>::try_from(time) else {
            return false;
        };
        let age = self.seconds(now).checked_sub(u32::from_be_bytes(seconds));
        let fresh = age.is_some_and(|age| u64::from(age) <= COOKIE_LIFETIME.as_secs());
        let current = mac(&self.current, seconds, address, digest).ct_eq(tag);
        let previous = mac(&self.previous, seconds, address, digest).ct_eq(tag);
        fresh && bool::from(current | previous)
    }

    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.began).as_secs()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieJar(..)")
    }
}

fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *secret);
    secret
}

fn mac(secret: &[u8; 32], seconds: [u8; 4], address: &[u8], digest: &[u8; 32]) -> [u8; MAC_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    // The address comes last, so that its length needs no field.
    hasher.update(b"vmdt 1.1 cookie").update(&seconds);
    hasher.update(digest).update(address);
    let mut tag = [0; MAC_LEN];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// How many offers a responder takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateConfig {
    /// Offers per second that are answered without a cookie.
    pub free_per_s: u32,
    /// How many of them at once.
    pub free_burst: u32,
    /// Offers per second with a right cookie that are answered.
    pub proven_per_s: u32,
    /// How many of them at once.
    pub proven_burst: u32,
}

impl Default for GateConfig {
    /// 50 offers per second without a cookie, 500 with one, twice that at once: about a tenth of
    /// what one core can answer.
    fn default() -> Self {
        Self {
            free_per_s: 50,
            free_burst: 100,
            proven_per_s: 500,
            proven_burst: 1_000,
        }
    }
}

/// What to do with an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// Answer it.
    Admit,
    /// Answer with a cookie.
    Cookie,
    /// Drop it.
    Drop,
}

/// Two token buckets that say what happens to an offer: few are answered at once, more when they
/// prove their address, the rest costs nothing but a cookie or not even that.
#[derive(Debug, Clone)]
pub struct LoadGate {
    free: Bucket,
    proven: Bucket,
}

impl LoadGate {
    /// A gate with full buckets.
    #[must_use]
    pub fn new(config: GateConfig, now: Instant) -> Self {
        Self {
            free: Bucket::new(config.free_per_s, config.free_burst, now),
            proven: Bucket::new(config.proven_per_s, config.proven_burst, now),
        }
    }

    /// Takes an offer that came at `now`; `proven` says that it bears a right cookie.
    #[must_use]
    pub fn offer(&mut self, now: Instant, proven: bool) -> Gate {
        if proven {
            if self.proven.take(now) {
                Gate::Admit
            } else {
                Gate::Drop
            }
        } else if self.free.take(now) {
            Gate::Admit
        } else {
            Gate::Cookie
        }
    }
}

/// Tokens in millionths.
#[derive(Debug, Clone)]
struct Bucket {
    per_s: u64,
    most: u64,
    tokens: u64,
    filled: Instant,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    fn new(per_s: u32, burst: u32, now: Instant) -> Self {
        let most = u64::from(burst) * TOKEN;
        Self {
            per_s: u64::from(per_s),
            most,
            tokens: most,
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let micros = now.saturating_duration_since(self.filled).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.tokens = self
            .tokens
            .saturating_add(micros.saturating_mul(self.per_s))
            .min(self.most);
        self.filled = self.filled.max(now);
        match self.tokens.checked_sub(TOKEN) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}
