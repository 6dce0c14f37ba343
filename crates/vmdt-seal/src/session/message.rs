//! The octets of handshake messages and of the payloads in them.

use super::{HandshakeError, MESSAGE_MAX_LEN, OFFER_MIN_LEN, PARAMS_MAX_LEN, Suites};
use crate::codec::Reader;
use crate::cookie::{COOKIE_LEN, Cookie};
use crate::error::{ParseError, VerifyError};
use crate::identity::{Credential, KEY_LEN, PublicIdentity, SIGNATURE_LEN};
use crate::packet::Suite;

/// The version of the handshake.
pub(super) const VERSION: u8 = 1;
/// Type, version, suites, length of the cookie.
const OFFER_HEAD: usize = 5;
/// How much of an offer's digest a cookie or restart message repeats.
const ECHO_LEN: usize = 16;
/// A credential without its X25519 key, which Noise itself carries.
const CLAIM_LEN: usize = 32 + 8 + SIGNATURE_LEN;

/// What a handshake message is.
///
/// | type | message | behind the type |
/// |---|---|---|
/// | 1 | offer, XX | version (1), suites (2), cookie length (1: 0 or 20), cookie, Noise message |
/// | 2 | offer, IK | the same |
/// | 3 | answer, XX | Noise message |
/// | 4 | answer, IK | Noise message |
/// | 5 | confirm, XX | Noise message |
/// | 6 | restart with XX | first 16 octets of the offer's digest |
/// | 7 | cookie | first 16 octets of the offer's digest, cookie (20) |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageType {
    /// An offer of either pattern.
    Offer(Pattern),
    /// The responder's answer.
    Answer(Pattern),
    /// The third message of XX.
    Confirm,
    /// The responder asks for an offer of XX.
    Restart,
    /// The responder asks for the offer again, with a cookie.
    Cookie,
}

/// A Noise pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Three messages, no keys known before.
    Xx,
    /// Two messages; the initiator knows the responder's key.
    Ik,
}

impl Pattern {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Xx => "Noise_XX_25519_ChaChaPoly_SHA256",
            Self::Ik => "Noise_IK_25519_ChaChaPoly_SHA256",
        }
    }

    pub(super) const fn offer_type(self) -> u8 {
        match self {
            Self::Xx => 1,
            Self::Ik => 2,
        }
    }

    pub(super) const fn answer_type(self) -> u8 {
        match self {
            Self::Xx => 3,
            Self::Ik => 4,
        }
    }
}

pub(super) const CONFIRM: u8 = 5;
const RESTART: u8 = 6;
const COOKIE: u8 = 7;

/// What a handshake message is, by its first octet.
#[must_use]
pub fn message_type(octets: &[u8]) -> Option<MessageType> {
    match octets.first()? {
        1 => Some(MessageType::Offer(Pattern::Xx)),
        2 => Some(MessageType::Offer(Pattern::Ik)),
        3 => Some(MessageType::Answer(Pattern::Xx)),
        4 => Some(MessageType::Answer(Pattern::Ik)),
        5 => Some(MessageType::Confirm),
        6 => Some(MessageType::Restart),
        7 => Some(MessageType::Cookie),
        _ => None,
    }
}

/// An offer as a responder sees it at first: no key was touched and no state is kept.
#[derive(Debug, Clone)]
pub struct OfferView<'a> {
    pattern: Pattern,
    suites: Suites,
    cookie: Option<Cookie>,
    noise: &'a [u8],
}

impl<'a> OfferView<'a> {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`]: no offer, another version, or a length that is not allowed.
    pub fn parse(octets: &'a [u8]) -> Result<Self, HandshakeError> {
        if octets.len() > MESSAGE_MAX_LEN {
            return Err(malformed("longer than any message"));
        }
        let mut reader = Reader::new(octets);
        let read = |_: ParseError| malformed("cut short");
        let pattern = match reader.u8("type").map_err(read)? {
            1 => Pattern::Xx,
            2 => Pattern::Ik,
            _ => return Err(malformed("not an offer")),
        };
        if reader.u8("version").map_err(read)? != VERSION {
            return Err(malformed("another version"));
        }
        let suites = Suites::from_bits(reader.u16("suites").map_err(read)?);
        let cookie = match reader.u8("cookie length").map_err(read)? {
            0 => None,
            len if usize::from(len) == COOKIE_LEN => {
                Some(Cookie(reader.array("cookie").map_err(read)?))
            }
            _ => return Err(malformed("a cookie of another length")),
        };
        let noise = reader
            .take("noise message", reader.remaining())
            .map_err(read)?;
        // Short offers would let a spoofed address be flooded with longer answers.
        if OFFER_HEAD + noise.len() < OFFER_MIN_LEN {
            return Err(malformed("an offer that is not padded"));
        }
        Ok(Self {
            pattern,
            suites,
            cookie,
            noise,
        })
    }

    /// The pattern offered.
    #[must_use]
    pub const fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The suites offered.
    #[must_use]
    pub const fn suites(&self) -> Suites {
        self.suites
    }

    /// The cookie, if the offer bears one.
    #[must_use]
    pub const fn cookie(&self) -> Option<&Cookie> {
        self.cookie.as_ref()
    }

    /// Names the offer: a hash of all of it but the cookie. A cookie is made for it, and an offer
    /// that comes again has the same.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        offer_digest(self.pattern, self.suites, self.noise)
    }

    /// The answer that asks for the same offer with a cookie.
    #[must_use]
    pub fn cookie_message(&self, cookie: &Cookie) -> Vec<u8> {
        let digest = self.digest();
        let (echo, _) = digest.split_at(ECHO_LEN);
        [&[COOKIE], echo, &cookie.0].concat()
    }

    /// The answer that asks for an offer of XX instead of IK.
    #[must_use]
    pub fn restart_message(&self) -> Vec<u8> {
        let digest = self.digest();
        let (echo, _) = digest.split_at(ECHO_LEN);
        [&[RESTART], echo].concat()
    }

    pub(super) const fn noise(&self) -> &'a [u8] {
        self.noise
    }
}

pub(super) fn offer_digest(pattern: Pattern, suites: Suites, noise: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("vmdt 1.1 offer");
    hasher.update(&[VERSION, pattern.offer_type()]);
    hasher.update(&suites.bits().to_be_bytes()).update(noise);
    *hasher.finalize().as_bytes()
}

/// An offer's octets.
pub(super) fn offer(
    pattern: Pattern,
    suites: Suites,
    cookie: Option<&Cookie>,
    noise: &[u8],
) -> Vec<u8> {
    let mut out = vec![pattern.offer_type(), VERSION];
    out.extend_from_slice(&suites.bits().to_be_bytes());
    match cookie {
        None => out.push(0),
        Some(cookie) => {
            // 20 fits an octet.
            out.push(COOKIE_LEN as u8);
            out.extend_from_slice(&cookie.0);
        }
    }
    out.extend_from_slice(noise);
    out
}

/// A message that an initiator may get.
pub(super) enum Reply<'a> {
    Answer(Pattern, &'a [u8]),
    Restart,
    Cookie(Cookie),
}

/// Reads what came for an offer of this digest.
pub(super) fn reply<'a>(octets: &'a [u8], digest: &[u8; 32]) -> Result<Reply<'a>, HandshakeError> {
    if octets.len() > MESSAGE_MAX_LEN {
        return Err(malformed("longer than any message"));
    }
    let (kind, rest) = octets
        .split_first()
        .ok_or_else(|| malformed("no octet at all"))?;
    match *kind {
        3 => Ok(Reply::Answer(Pattern::Xx, rest)),
        4 => Ok(Reply::Answer(Pattern::Ik, rest)),
        kind @ (RESTART | COOKIE) => {
            // Only who saw the offer can repeat its digest.
            let (echo, rest) = rest
                .split_at_checked(ECHO_LEN)
                .ok_or_else(|| malformed("cut short"))?;
            if !digest.starts_with(echo) {
                return Err(HandshakeError::Unexpected);
            }
            match (kind, <[u8; COOKIE_LEN]>::try_from(rest)) {
                (COOKIE, Ok(cookie)) => Ok(Reply::Cookie(Cookie(cookie))),
                (RESTART, _) if rest.is_empty() => Ok(Reply::Restart),
                _ => Err(malformed("another length than its type has")),
            }
        }
        _ => Err(HandshakeError::Unexpected),
    }
}

pub(super) const fn malformed(what: &'static str) -> HandshakeError {
    HandshakeError::Malformed { what }
}

/// A side's credential in a payload, before the X25519 key that it speaks of is known.
pub(super) struct Claim {
    identity: PublicIdentity,
    version_ms: u64,
    signature: [u8; SIGNATURE_LEN],
}

impl Claim {
    pub(super) fn credential(&self, noise: [u8; KEY_LEN]) -> Result<Credential, VerifyError> {
        Credential::from_parts(self.identity, noise, self.version_ms, self.signature)
    }
}

/// What a payload holds, each part only where the pattern has it.
pub(super) struct Payload<'a> {
    pub(super) credential: Option<&'a Credential>,
    pub(super) suite: Option<Suite>,
    pub(super) params: &'a [u8],
}

impl Payload<'_> {
    /// The payload's octets: credential (identity 32, version 8, signature 64), suite (1), length
    /// of the parameters (2), parameters, zeros up to `len` octets.
    pub(super) fn encode(&self, len: usize) -> Result<Vec<u8>, HandshakeError> {
        let found = self.params.len();
        if found > PARAMS_MAX_LEN {
            return Err(HandshakeError::Params { found });
        }
        let mut out = Vec::with_capacity(len.max(CLAIM_LEN + 3 + found));
        if let Some(credential) = self.credential {
            out.extend_from_slice(credential.identity().as_octets());
            out.extend_from_slice(&credential.version_ms().to_be_bytes());
            out.extend_from_slice(credential.signature());
        }
        if let Some(suite) = self.suite {
            out.push(suite.number());
        }
        crate::codec::put_long(&mut out, self.params);
        if out.len() < len {
            out.resize(len, 0);
        }
        Ok(out)
    }
}

/// What a payload must hold.
#[derive(Clone, Copy)]
pub(super) struct Expect {
    pub(super) credential: bool,
    pub(super) suite: bool,
    pub(super) padding: bool,
}

/// What a payload held.
pub(super) struct Found {
    pub(super) claim: Option<Claim>,
    pub(super) suite: Option<Suite>,
    pub(super) params: Vec<u8>,
}

impl Found {
    pub(super) fn read(octets: &[u8], expect: Expect) -> Result<Self, HandshakeError> {
        Self::fields(octets, expect).map_err(|error| match error {
            ParseError::Key { .. } => malformed("an identity key that is none"),
            ParseError::TooLong { found, .. } => HandshakeError::Params { found },
            ParseError::Value { .. } => HandshakeError::NoSuite,
            _ => malformed("a payload of another form"),
        })
    }

    fn fields(octets: &[u8], expect: Expect) -> Result<Self, ParseError> {
        let mut reader = Reader::new(octets);
        let claim = if expect.credential {
            Some(Claim {
                identity: reader.key("identity key")?,
                version_ms: reader.u64("credential version")?,
                signature: reader.signature()?,
            })
        } else {
            None
        };
        let suite = if expect.suite {
            let offset = reader.offset();
            let number = reader.u8("suite")?;
            Some(Suite::from_number(number).ok_or(ParseError::Value {
                field: "suite",
                offset,
                found: u64::from(number),
                allowed: "1 or 2",
            })?)
        } else {
            None
        };
        let params = reader.long("params", PARAMS_MAX_LEN)?.to_vec();
        if expect.padding {
            let offset = reader.offset();
            let padding = reader.take("padding", reader.remaining())?;
            if padding.iter().any(|octet| *octet != 0) {
                return Err(ParseError::Text {
                    field: "padding",
                    offset,
                });
            }
        }
        reader.end()?;
        Ok(Self {
            claim,
            suite,
            params,
        })
    }
}

/// How long the payload of an offer must be for the whole to have [`OFFER_MIN_LEN`] octets.
pub(super) const fn offer_payload_len(pattern: Pattern) -> usize {
    let noise = match pattern {
        // e
        Pattern::Xx => KEY_LEN,
        // e, s with its tag, the payload's tag
        Pattern::Ik => KEY_LEN + KEY_LEN + 16 + 16,
    };
    OFFER_MIN_LEN - OFFER_HEAD - noise
}
