//! Protection of the packets of a session.
//!
//! The payload is sealed with the 80 header octets as associated data, the nonce is the packet's
//! full number, the tag of 16 octets follows the payload. Each direction has its own key, and
//! renews it on its own: bit 0x80 of the RDT flags (octet 69) is the *key phase*, which turns over
//! with every renewal.

use core::fmt;
use core::time::Duration;
use std::time::Instant;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::aead::AeadKey;
use crate::identity::KEY_LEN;

/// Octets of the header, which are authenticated and not encrypted.
pub const HEADER_LEN: usize = 80;
/// Octets of the tag.
pub const TAG_LEN: usize = 16;
/// Where the RDT flags stand in the header.
pub const FLAGS_OFFSET: usize = 69;
/// The key phase among the RDT flags.
pub const PHASE_FLAG: u8 = 0x80;
/// The highest packet number.
pub const MAX_NUMBER: u64 = (1 << 62) - 1;

/// After so many packets a sender renews its key.
pub const UPDATE_AFTER_PACKETS: u64 = 1 << 22;
/// After so long a sender renews its key.
pub const UPDATE_AFTER: Duration = Duration::from_secs(3_600);
/// A sender never seals more packets under one key (RFC 9001, section 6.6, for AES-GCM).
pub const CONFIDENTIALITY_LIMIT: u64 = 1 << 23;
/// How long the key before the current one still opens packets that were late.
pub const OLD_PHASE_KEPT: Duration = Duration::from_secs(10);

/// How packets are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// AES-256-GCM, number 1.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439), number 2.
    ChaCha20Poly1305,
}

impl Suite {
    /// The suite's number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite of a number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Packets that fail to open, over the life of a session, before it must end (RFC 9001,
    /// section 6.6).
    #[must_use]
    pub const fn integrity_limit(self) -> u64 {
        match self {
            Self::Aes256Gcm => 1 << 52,
            Self::ChaCha20Poly1305 => 1 << 36,
        }
    }
}

/// Which implementation protects packets. All give the same octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// RustCrypto.
    Portable,
    /// ring.
    #[cfg(feature = "ring")]
    Ring,
}

impl Default for Backend {
    /// ring with the feature `ring`, the portable one without.
    fn default() -> Self {
        #[cfg(feature = "ring")]
        {
            Self::Ring
        }
        #[cfg(not(feature = "ring"))]
        {
            Self::Portable
        }
    }
}

/// Why a packet cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The number is not above the last one: a nonce would repeat.
    #[error("packet number {number} is not above the last one, {last}")]
    NumberNotFresh {
        /// The number given.
        number: u64,
        /// The last number sealed.
        last: u64,
    },
    /// The number is above [`MAX_NUMBER`].
    #[error("packet number {number} is above the highest, 2^62 - 1")]
    NumberTooHigh {
        /// The number given.
        number: u64,
    },
    /// [`CONFIDENTIALITY_LIMIT`] packets were sealed under the key, and the peer has confirmed
    /// none of them, so that it cannot be renewed. The session must end.
    #[error("the key is used up and the peer has confirmed no packet of it")]
    KeyExhausted,
    /// The datagram is shorter than a header, or longer than an AEAD takes.
    #[error("a datagram of {len} octets cannot be sealed")]
    Length {
        /// The length given.
        len: usize,
    },
}

/// Why a packet does not open. Nothing has changed, except that it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its tag is not right: it was altered, made up, or belongs elsewhere.
    #[error("the packet's tag is not right")]
    NotAuthentic,
    /// It is of a key phase that is no longer or not yet there.
    #[error("the packet's key phase is not known")]
    UnknownPhase,
    /// It is shorter than a header and a tag.
    #[error("a datagram of {len} octets is shorter than a header and a tag")]
    Length {
        /// The length given.
        len: usize,
    },
    /// So many packets did not open that forging one has become thinkable
    /// ([`Suite::integrity_limit`]). The session must end.
    #[error("too many packets did not open: the session must end")]
    IntegrityLimit,
}

/// The number of a packet from its low 32 bits: the one nearest to the number after the largest
/// opened (RFC 9000, appendix A.3).
///
/// ```
/// use vmdt_seal::packet::expand_number;
///
/// assert_eq!(expand_number(3, Some(0xffff_fffe)), 0x1_0000_0003);
/// assert_eq!(expand_number(0xffff_ffff, Some(0x1_0000_0003)), 0xffff_ffff);
/// ```
#[must_use]
pub const fn expand_number(low: u32, largest_opened: Option<u64>) -> u64 {
    const WINDOW: u64 = 1 << 32;
    let expected = match largest_opened {
        Some(largest) => largest.saturating_add(1),
        None => 0,
    };
    let candidate = (expected & !(WINDOW - 1)) | low as u64;
    if candidate.saturating_add(WINDOW / 2) <= expected {
        candidate.saturating_add(WINDOW)
    } else if candidate > expected.saturating_add(WINDOW / 2) && candidate >= WINDOW {
        candidate - WINDOW
    } else {
        candidate
    }
}

type Secret = Zeroizing<[u8; KEY_LEN]>;

/// What the keys of one direction follow from.
#[derive(Clone)]
struct Chain {
    suite: Suite,
    backend: Backend,
    secret: Secret,
}

impl Chain {
    fn key(&self) -> AeadKey {
        let key = Zeroizing::new(blake3::derive_key("vmdt 1.1 packet key", &*self.secret));
        AeadKey::new(self.suite, &key, self.backend)
    }

    /// Steps to the next secret; the one before cannot be found again.
    fn step(&mut self) {
        let next = blake3::derive_key("vmdt 1.1 key update", &*self.secret);
        self.secret = Zeroizing::new(next);
    }
}

struct Sending {
    chain: Chain,
    key: AeadKey,
    phase: bool,
    began: Instant,
    /// Packets sealed under the current key.
    sealed: u64,
    /// The first number sealed under the current key.
    first: Option<u64>,
    last: Option<u64>,
    /// The peer has a packet of the current key, so that it knows of the phase.
    confirmed: bool,
}

struct Receiving {
    /// Of the next phase.
    chain: Chain,
    current: AeadKey,
    next: AeadKey,
    previous: Option<(AeadKey, Instant)>,
    phase: bool,
    /// The lowest number opened under the current key.
    lowest: u64,
    /// The highest number opened.
    highest: Option<u64>,
    failures: u64,
}

/// The keys of a session, both directions. `Debug` shows counters only; secrets are wiped when
/// dropped, as far as the implementation of the suite does.
///
/// Per datagram that comes in: find the number with [`expand_number`], ask the
/// [`ReplayWindow`](crate::replay::ReplayWindow), open, commit to the window. Tell
/// [`on_acked`](Self::on_acked) of acknowledgments: a key is renewed only when the peer has
/// confirmed a packet of it, since one bit tells only two phases apart.
pub struct PacketKeys {
    suite: Suite,
    sending: Sending,
    receiving: Receiving,
}

impl PacketKeys {
    /// The keys that follow from a secret for each direction, as
    /// [`SessionKeys`](crate::session::SessionKeys) holds them.
    pub(crate) fn new(
        suite: Suite,
        backend: Backend,
        send: &[u8; KEY_LEN],
        receive: &[u8; KEY_LEN],
        now: Instant,
    ) -> Self {
        let chain = |secret: &[u8; KEY_LEN]| Chain {
            suite,
            backend,
            secret: Zeroizing::new(*secret),
        };
        let sending = chain(send);
        let mut receiving = chain(receive);
        let current = receiving.key();
        receiving.step();
        Self {
            suite,
            sending: Sending {
                key: sending.key(),
                chain: sending,
                phase: false,
                began: now,
                sealed: 0,
                first: None,
                last: None,
                confirmed: false,
            },
            receiving: Receiving {
                current,
                next: receiving.key(),
                chain: receiving,
                previous: None,
                phase: false,
                lowest: 0,
                highest: None,
                failures: 0,
            },
        }
    }

    /// How packets are sealed.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The highest number that was opened.
    #[must_use]
    pub const fn highest_opened(&self) -> Option<u64> {
        self.receiving.highest
    }

    /// Packets that did not open, in all.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.receiving.failures
    }

    /// The sender's key phase.
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.sending.phase
    }

    /// Seals a payload in place and returns its tag. Sets the key phase among the header's flags;
    /// every other octet of the header must be final.
    ///
    /// # Errors
    /// [`SealError`]. The payload is then as it was, except for one that is too long.
    pub fn seal_in_place(
        &mut self,
        now: Instant,
        header: &mut [u8; HEADER_LEN],
        number: u64,
        payload: &mut [u8],
    ) -> Result<[u8; TAG_LEN], SealError> {
        let sending = &mut self.sending;
        if number > MAX_NUMBER {
            return Err(SealError::NumberTooHigh { number });
        }
        if let Some(last) = sending.last
            && number <= last
        {
            return Err(SealError::NumberNotFresh { number, last });
        }
        sending.update_if_due(now);
        if sending.sealed >= CONFIDENTIALITY_LIMIT {
            return Err(SealError::KeyExhausted);
        }
        header[FLAGS_OFFSET] = if sending.phase {
            header[FLAGS_OFFSET] | PHASE_FLAG
        } else {
            header[FLAGS_OFFSET] & !PHASE_FLAG
        };
        // Before the AEAD runs: a nonce is spent even when it fails.
        sending.last = Some(number);
        sending.first.get_or_insert(number);
        sending.sealed += 1;
        let len = payload.len();
        sending
            .key
            .seal(number, header, payload)
            .map_err(|_| SealError::Length { len })
    }

    /// Seals a datagram: header and payload become header, sealed payload and tag. Does not
    /// allocate when the vector has room for [`TAG_LEN`] octets more.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_datagram(
        &mut self,
        now: Instant,
        number: u64,
        datagram: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let len = datagram.len();
        let (header, payload) = datagram
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(SealError::Length { len })?;
        let tag = self.seal_in_place(now, header, number, payload)?;
        datagram.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens a payload in place.
    ///
    /// # Errors
    /// [`OpenError`]. The octets of the payload are then worthless.
    pub fn open_in_place(
        &mut self,
        now: Instant,
        header: &[u8; HEADER_LEN],
        number: u64,
        payload: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenError> {
        let limit = self.suite.integrity_limit();
        let receiving = &mut self.receiving;
        if receiving.failures >= limit {
            return Err(OpenError::IntegrityLimit);
        }
        let opened = receiving.open(now, header, number, payload, tag);
        if opened == Err(OpenError::NotAuthentic) {
            receiving.failures += 1;
        }
        opened
    }

    /// Opens a datagram, header, sealed payload and tag, and returns the payload.
    ///
    /// # Errors
    /// [`OpenError`]. The octets behind the header are then worthless.
    pub fn open_datagram<'a>(
        &mut self,
        now: Instant,
        number: u64,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let len = datagram.len();
        let (header, rest) = datagram
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(OpenError::Length { len })?;
        let (payload, tag) = rest
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(OpenError::Length { len })?;
        self.open_in_place(now, header, number, payload, tag)?;
        Ok(payload)
    }

    /// Tells that the peer has acknowledged a number: the largest of an acknowledgment is enough.
    /// Numbers that were not sealed under the current key change nothing.
    pub fn on_acked(&mut self, number: u64) {
        let sending = &mut self.sending;
        let sent = sending.last.is_some_and(|last| number <= last);
        if sent && sending.first.is_some_and(|first| number >= first) {
            sending.confirmed = true;
        }
    }

    /// Whether the next packet should be one that the peer acknowledges: half of what one key may
    /// seal is used, and no packet of it is confirmed.
    #[must_use]
    pub const fn needs_ack(&self) -> bool {
        !self.sending.confirmed && self.sending.sealed >= UPDATE_AFTER_PACKETS / 2
    }

    /// Renews the sending key with the next packet, if the peer has confirmed one of the current
    /// key. Returns whether it will.
    pub fn update_soon(&mut self) -> bool {
        if self.sending.confirmed {
            self.sending.sealed = self.sending.sealed.max(UPDATE_AFTER_PACKETS);
        }
        self.sending.confirmed
    }
}

impl Sending {
    fn update_if_due(&mut self, now: Instant) {
        let due = self.sealed >= UPDATE_AFTER_PACKETS
            || now.saturating_duration_since(self.began) >= UPDATE_AFTER;
        if due && self.confirmed {
            self.chain.step();
            self.key = self.chain.key();
            self.phase = !self.phase;
            self.began = now;
            self.sealed = 0;
            self.first = None;
            self.confirmed = false;
        }
    }
}

impl Receiving {
    fn open(
        &mut self,
        now: Instant,
        header: &[u8; HEADER_LEN],
        number: u64,
        payload: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenError> {
        let phase = header[FLAGS_OFFSET] & PHASE_FLAG != 0;
        if phase == self.phase {
            self.current
                .open(number, header, payload, tag)
                .map_err(|_| OpenError::NotAuthentic)?;
            self.lowest = self.lowest.min(number);
            self.highest = self.highest.max(Some(number));
            return Ok(());
        }
        // Numbers ascend over phases: below the current phase is the previous, above is the next.
        if self.highest.is_none_or(|highest| number > highest) {
            self.next
                .open(number, header, payload, tag)
                .map_err(|_| OpenError::NotAuthentic)?;
            self.advance(now, number);
            return Ok(());
        }
        if self
            .previous
            .as_ref()
            .is_some_and(|(_, until)| now >= *until)
        {
            self.previous = None;
        }
        match &self.previous {
            Some((key, _)) if number < self.lowest => key
                .open(number, header, payload, tag)
                .map_err(|_| OpenError::NotAuthentic),
            _ => Err(OpenError::UnknownPhase),
        }
    }

    /// A packet of the next phase was authentic: the sender has renewed its key.
    fn advance(&mut self, now: Instant, number: u64) {
        self.chain.step();
        let next = core::mem::replace(&mut self.next, self.chain.key());
        let old = core::mem::replace(&mut self.current, next);
        self.previous = Some((old, now + OLD_PHASE_KEPT));
        self.phase = !self.phase;
        self.lowest = number;
        self.highest = Some(number);
    }
}

impl fmt::Debug for PacketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketKeys")
            .field("suite", &self.suite)
            .field("sealed_under_key", &self.sending.sealed)
            .field("highest_opened", &self.receiving.highest)
            .field("failures", &self.receiving.failures)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
