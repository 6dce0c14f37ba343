//! Prekeys: short-lived X25519 keys that messages are sealed to.
//!
//! A new one is made every day, and each is forgotten once nothing sealed to it can still be
//! waiting: a receiver whose disk is stolen later does not open what was never collected.

use core::fmt;

use rand_core::CryptoRng;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::codec::{self, Reader};
use crate::error::{BuildError, ParseError};
use crate::identity::KEY_LEN;

/// A store keeps at most so many secrets; the oldest are forgotten first.
pub const MAX_PREKEYS: usize = 64;
/// The most octets that [`PrekeyStore::encode`] writes.
pub const STORE_MAX_LEN: usize = 2 + 32 + 1 + MAX_PREKEYS * ENTRY_LEN;

const ENTRY_LEN: usize = 4 + KEY_LEN + 8 + 8;
const DAY_MS: u64 = 86_400_000;

/// When prekeys change. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrekeyConfig {
    rotate_ms: u64,
    valid_ms: u64,
    keep_ms: u64,
}

impl Default for PrekeyConfig {
    /// A new prekey every day, to be used for 7 days by those who hear of no newer one, and
    /// forgotten 7 days after that, which is how long a share waits at most.
    fn default() -> Self {
        Self {
            rotate_ms: DAY_MS,
            valid_ms: 7 * DAY_MS,
            keep_ms: 7 * DAY_MS,
        }
    }
}

impl PrekeyConfig {
    /// A new prekey every `rotate_ms`; each may be used by senders for `valid_ms` and is kept for
    /// `keep_ms` after that.
    ///
    /// # Errors
    /// When `rotate_ms` is less than a minute, `valid_ms` less than `rotate_ms`, or the sum of
    /// `valid_ms` and `keep_ms` more than [`MAX_PREKEYS`] - 1 times `rotate_ms`: secrets that are
    /// still needed would be forgotten.
    pub const fn new(rotate_ms: u64, valid_ms: u64, keep_ms: u64) -> Result<Self, BuildError> {
        if rotate_ms < 60_000 {
            return Err(BuildError::Value {
                field: "rotation",
                reason: "less than a minute",
            });
        }
        if valid_ms < rotate_ms {
            return Err(BuildError::Value {
                field: "validity",
                reason: "shorter than the rotation",
            });
        }
        let most = rotate_ms.saturating_mul(MAX_PREKEYS as u64 - 1);
        if valid_ms.saturating_add(keep_ms) > most {
            return Err(BuildError::Value {
                field: "validity and keeping",
                reason: "more than 63 rotations together",
            });
        }
        Ok(Self {
            rotate_ms,
            valid_ms,
            keep_ms,
        })
    }
}

/// The public half of a prekey, as it stands in a [`Profile`](crate::profile::Profile).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicPrekey {
    /// Names it among the receiver's.
    pub id: u32,
    /// The X25519 public key.
    pub public: [u8; KEY_LEN],
    /// Nobody is to seal to it from this time on, in milliseconds since 1970.
    pub not_after_ms: u64,
}

impl PublicPrekey {
    /// Whether senders may use it at a time in milliseconds since 1970.
    #[must_use]
    pub const fn is_usable(&self, now_ms: u64) -> bool {
        now_ms < self.not_after_ms
    }
}

/// A prekey with its secret. Wiped when dropped; `Debug` shows the id only.
#[derive(Clone)]
pub struct Prekey {
    secret: StaticSecret,
    public: PublicPrekey,
    delete_at_ms: u64,
}

impl Prekey {
    fn draw(
        id: u32,
        now_ms: u64,
        config: PrekeyConfig,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let mut octets = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(&mut *octets);
        let not_after_ms = now_ms.saturating_add(config.valid_ms);
        Self::from_parts(
            id,
            &octets,
            not_after_ms,
            not_after_ms.saturating_add(config.keep_ms),
        )
    }

    fn from_parts(id: u32, secret: &[u8; KEY_LEN], not_after_ms: u64, delete_at_ms: u64) -> Self {
        let secret = StaticSecret::from(*secret);
        Self {
            public: PublicPrekey {
                id,
                public: PublicKey::from(&secret).to_bytes(),
                not_after_ms,
            },
            secret,
            delete_at_ms,
        }
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicPrekey {
        self.public
    }

    /// When it is forgotten, in milliseconds since 1970.
    #[must_use]
    pub const fn delete_at_ms(&self) -> u64 {
        self.delete_at_ms
    }

    pub(crate) const fn secret(&self) -> &StaticSecret {
        &self.secret
    }
}

impl fmt::Debug for Prekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prekey")
            .field("id", &self.public.id)
            .field("delete_at_ms", &self.delete_at_ms)
            .finish_non_exhaustive()
    }
}

/// A node's prekeys: the current one and those that something may still be sealed to.
///
/// Call [`rotate`](Self::rotate) and [`expire`](Self::expire) when the store was loaded and
/// whenever [`next_change_ms`](Self::next_change_ms) has come, store the result of
/// [`encode`](Self::encode) each time one of them says that something changed, and publish a new
/// profile after a rotation, not before the store is on disk.
///
/// A node that was off for long calls `expire` only after it has collected what waits for it.
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let day = 86_400_000;
/// let mut store = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng);
/// let first = store.current().public().id;
/// assert!(!store.rotate(day - 1, &mut rng));
/// assert!(store.rotate(day, &mut rng));
/// assert!(store.find(first).is_some());
/// assert_eq!(store.expire(14 * day), 1);
/// assert!(store.find(first).is_none());
/// ```
#[derive(Clone)]
pub struct PrekeyStore {
    config: PrekeyConfig,
    current: Prekey,
    made_ms: u64,
    /// Oldest first.
    old: Vec<Prekey>,
}

impl PrekeyStore {
    /// A store with a first prekey.
    #[must_use]
    pub fn new(config: PrekeyConfig, now_ms: u64, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        // Random, so that a store that was lost does not give its ids to other keys.
        let id = rng.next_u32();
        Self {
            config,
            current: Prekey::draw(id, now_ms, config, rng),
            made_ms: now_ms,
            old: Vec::new(),
        }
    }

    /// Makes a new prekey if the current one is old enough, or was made in the future because
    /// the clock was wrong then. Returns whether it did.
    pub fn rotate(&mut self, now_ms: u64, rng: &mut (impl CryptoRng + ?Sized)) -> bool {
        let due = self.made_ms.saturating_add(self.config.rotate_ms);
        let fine = (self.made_ms..due).contains(&now_ms);
        if !fine {
            self.replace(now_ms, rng);
        }
        !fine
    }

    /// Makes a new prekey at once, for example after a suspected theft.
    pub fn replace(&mut self, now_ms: u64, rng: &mut (impl CryptoRng + ?Sized)) {
        let id = self.current.public.id.wrapping_add(1);
        let new = Prekey::draw(id, now_ms, self.config, rng);
        let old = core::mem::replace(&mut self.current, new);
        self.made_ms = now_ms;
        self.old.push(old);
        if self.old.len() >= MAX_PREKEYS {
            self.old.remove(0);
        }
    }

    /// Forgets the secrets whose time has come. Returns how many.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        let before = self.old.len();
        self.old.retain(|prekey| now_ms < prekey.delete_at_ms);
        before - self.old.len()
    }

    /// The prekey to publish.
    #[must_use]
    pub const fn current(&self) -> &Prekey {
        &self.current
    }

    /// The prekey of an id, if it is not forgotten.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&Prekey> {
        core::iter::once(&self.current)
            .chain(self.old.iter().rev())
            .find(|prekey| prekey.public.id == id)
    }

    /// How many secrets there are, at most [`MAX_PREKEYS`].
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.old.len()
    }

    /// When [`rotate`](Self::rotate) or [`expire`](Self::expire) is next to be called, in
    /// milliseconds since 1970.
    #[must_use]
    pub fn next_change_ms(&self) -> u64 {
        self.old
            .iter()
            .map(|prekey| prekey.delete_at_ms)
            .fold(self.made_ms.saturating_add(self.config.rotate_ms), u64::min)
    }

    /// The whole store, secrets included, to be kept where only its owner can read it.
    ///
    /// | octets | field |
    /// |---|---|
    /// | 2 | kind `K`, format 1 |
    /// | 24 | rotation, validity and keeping, 8 octets each |
    /// | 8 | when the current prekey was made |
    /// | 1 | number of prekeys p, 1 to 64 |
    /// | 52 p | for each, oldest first, the current one last: id 4, secret 32, not after 8, delete at 8 |
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(codec::begin(codec::PREKEYS, STORE_MAX_LEN + 8));
        for number in [
            self.config.rotate_ms,
            self.config.valid_ms,
            self.config.keep_ms,
            self.made_ms,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.push(u8::try_from(self.count()).unwrap_or(u8::MAX));
        for prekey in self.old.iter().chain(core::iter::once(&self.current)) {
            out.extend_from_slice(&prekey.public.id.to_be_bytes());
            out.extend_from_slice(prekey.secret.as_bytes());
            out.extend_from_slice(&prekey.public.not_after_ms.to_be_bytes());
            out.extend_from_slice(&prekey.delete_at_ms.to_be_bytes());
        }
        out
    }

    /// Reads what [`PrekeyStore::encode`] writes.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(octets: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::PREKEYS)?;
        let offset = reader.offset();
        let rotate = reader.u64("rotation")?;
        let valid = reader.u64("validity")?;
        let keep = reader.u64("keeping")?;
        let config = PrekeyConfig::new(rotate, valid, keep).map_err(|_| ParseError::Value {
            field: "rotation",
            offset,
            found: rotate,
            allowed: "a minute or more, with a validity and keeping that fit",
        })?;
        let made_ms = reader.u64("made")?;
        let offset = reader.offset();
        let count = reader.count("prekeys", MAX_PREKEYS)?;
        let mut old = Vec::with_capacity(count);
        for _ in 0..count {
            let id = reader.u32("prekey id")?;
            let secret = Zeroizing::new(reader.array("prekey secret")?);
            let not_after_ms = reader.u64("not after")?;
            old.push(Prekey::from_parts(
                id,
                &secret,
                not_after_ms,
                reader.u64("delete at")?,
            ));
        }
        reader.end()?;
        let current = old.pop().ok_or(ParseError::Value {
            field: "prekeys",
            offset,
            found: 0,
            allowed: "1 to 64",
        })?;
        Ok(Self {
            config,
            current,
            made_ms,
            old,
        })
    }
}

impl fmt::Debug for PrekeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrekeyStore")
            .field("current", &self.current)
            .field("old", &self.old)
            .finish_non_exhaustive()
    }
}
