//! The handshake that begins a session: Noise XX, or IK when the peer's key is known.
//!
//! Both patterns are `Noise_{XX,IK}_25519_ChaChaPoly_SHA256`. The messages go into SYN segments as
//! they are; their first octet says which they are.
//!
//! ```text
//!   initiator                                       responder
//!     | -- offer (XX: e; IK: e, es, s, ss) -----------> |   OfferView::parse: no state, no keys
//!     | <------------------------- cookie (under load)  |
//!     | -- the same offer with the cookie ------------> |   CookieJar::verify
//!     | <------ restart (IK only, key unknown to it)    |   then an offer of XX
//!     | <--------- answer (XX: e, ee, s, es; IK: e, ee, se)
//!     | -- confirm (XX only: s, se) ------------------> |
//! ```
//!
//! # What is bound
//!
//! The prologue holds the protocol's name, the pattern, the suites offered and both node ids: a
//! meddler who changes one of them ends the handshake. The payloads, encrypted except that of an
//! offer of XX, hold each side's [`Credential`], which ties its X25519 key to its identity, and the
//! caller's parameters. The identity is checked against the node id that the caller names.
//!
//! # Rules for the caller
//!
//! - *Crossing offers*: see [`crossing`].
//! - *Loss*: the initiator repeats [`Initiator::offer`], which stays the same; the responder
//!   repeats its answer when the same offer comes again ([`OfferView::digest`]), or answers anew;
//!   the initiator of XX repeats its confirmation when the answer comes again.
//! - An IK answer, and the session with it, is confirmed only when a packet opens under its keys:
//!   the offer may be a recorded one.
//! - A node that has pinned a peer's whole key compares it with [`Established::peer`]: the id holds
//!   90 bits of it.
//! - Before the initiator's address is proven, the responder sends one answer per offer, which is
//!   never three times as long: offers have at least [`OFFER_MIN_LEN`] octets.

mod initiator;
mod message;
mod responder;

use core::fmt;
use std::sync::Arc;
use std::time::Instant;

use rand_core::CryptoRng;
use snow::HandshakeState;
use thiserror::Error;
use vmdt_wire::NodeId;
use zeroize::Zeroizing;

pub use self::initiator::{Initiator, Step};
pub use self::message::{MessageType, OfferView, Pattern, message_type};
pub use self::responder::{Answered, AwaitConfirm, Responder};
use crate::error::VerifyError;
use crate::identity::{Credential, KEY_LEN, SecretIdentity};
use crate::noise::Primitives;
use crate::packet::{Backend, PacketKeys, Suite};

/// The most octets of parameters that a side gives.
pub const PARAMS_MAX_LEN: usize = 256;
/// The fewest octets of an offer, its cookie not counted.
pub const OFFER_MIN_LEN: usize = 256;
/// The most octets of any handshake message.
pub const MESSAGE_MAX_LEN: usize = 640;

/// After so many messages that failed, cookies or restarts a handshake is given up: somebody on
/// the path meddles with it.
const MAX_SETBACKS: u32 = 64;

const PROTOCOL: &[u8] = b"vmdt 1.1 session";

/// A set of suites, as a bit mask of 16 bits: bit 0 is [`Suite::Aes256Gcm`], bit 1
/// [`Suite::ChaCha20Poly1305`]. Bits without a meaning are carried and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suites(u16);

impl Suites {
    /// Every suite.
    pub const ALL: Self = Self(3);
    /// ChaCha20-Poly1305 only, which is fast without special instructions.
    pub const CHACHA: Self = Self(2);
    /// AES-256-GCM only.
    pub const AES: Self = Self(1);

    /// The suites that this processor is good at: AES-256-GCM only where it has instructions for
    /// it.
    #[must_use]
    pub fn detect() -> Self {
        if has_aes() { Self::ALL } else { Self::CHACHA }
    }

    /// The mask's bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The set of a mask.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Whether a suite is in the set.
    #[must_use]
    pub const fn contains(self, suite: Suite) -> bool {
        let bit = match suite {
            Suite::Aes256Gcm => 1,
            Suite::ChaCha20Poly1305 => 2,
        };
        self.0 & bit != 0
    }

    /// The suite that two sets agree on: AES-256-GCM when both have it.
    #[must_use]
    pub const fn choose(self, other: Self) -> Option<Suite> {
        let both = Self(self.0 & other.0);
        if both.contains(Suite::Aes256Gcm) {
            Some(Suite::Aes256Gcm)
        } else if both.contains(Suite::ChaCha20Poly1305) {
            Some(Suite::ChaCha20Poly1305)
        } else {
            None
        }
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
const fn has_aes() -> bool {
    false
}

/// Why a handshake message cannot be made or is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The message is shorter, longer or other than its kind allows.
    #[error("a handshake message is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The message is not one that this side waits for.
    #[error("not a message that is waited for now")]
    Unexpected,
    /// Parameters longer than [`PARAMS_MAX_LEN`].
    #[error("{found} octets of parameters, allowed are at most {PARAMS_MAX_LEN}")]
    Params {
        /// The length given.
        found: usize,
    },
    /// The message does not decrypt: it was altered, or belongs to another handshake, or the
    /// prologues differ.
    #[error("the handshake message is not authentic")]
    NotAuthentic,
    /// An offer of IK does not decrypt: most likely its sender knows an old key of ours. Answer
    /// with [`OfferView::restart_message`].
    #[error("the offer is sealed to another key")]
    StaleKey,
    /// The peer's credential is not right.
    #[error("the peer's credential is refused: {0}")]
    Credential(#[from] VerifyError),
    /// The peer is this node itself.
    #[error("the peer is this node itself")]
    Oneself,
    /// No suite is offered by one side and known to the other, or the answer names one that was
    /// not offered.
    #[error("the two sides have no suite in common")]
    NoSuite,
    /// So many messages failed that the handshake is given up.
    #[error("too many messages failed: the handshake is given up")]
    GivenUp,
    /// The Noise library refuses what it should not.
    #[error("the handshake library failed")]
    Library,
}

/// This node as a party to handshakes. Cheap to clone; `Debug` shows the id only.
#[derive(Clone)]
pub struct Local(Arc<(SecretIdentity, Credential)>);

impl Local {
    /// The node of an identity, with a credential of this version (milliseconds since 1970).
    #[must_use]
    pub fn new(identity: SecretIdentity, version_ms: u64) -> Self {
        let credential = identity.credential(version_ms);
        Self(Arc::new((identity, credential)))
    }

    /// The identity.
    #[must_use]
    pub fn identity(&self) -> &SecretIdentity {
        &self.0.0
    }

    /// What the peer will see.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.0.1
    }

    /// The node's id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.credential().node_id()
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({})", self.node_id())
    }
}

/// A handshake that is complete at this side.
#[derive(Debug)]
pub struct Established {
    /// What protects the session.
    pub keys: SessionKeys,
    /// Who the peer is. It has been checked against the node id.
    pub peer: Credential,
    /// The peer's parameters.
    pub params: Vec<u8>,
    /// What the initiator of XX still has to send, and again whenever the answer comes again.
    pub confirm: Option<Vec<u8>>,
}

/// The secrets of a session. Wiped when dropped; `Debug` shows the suite only.
pub struct SessionKeys {
    suite: Suite,
    send: Zeroizing<[u8; KEY_LEN]>,
    receive: Zeroizing<[u8; KEY_LEN]>,
    binding: [u8; 32],
}

impl SessionKeys {
    /// How packets will be sealed.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// A public value that is the same at both ends and of no other session: the hash of the
    /// handshake (Noise, section 11.2).
    #[must_use]
    pub const fn binding(&self) -> &[u8; 32] {
        &self.binding
    }

    /// The keys that protect packets, in the default backend.
    #[must_use]
    pub fn into_packet_keys(self, now: Instant) -> PacketKeys {
        self.into_packet_keys_with(Backend::default(), now)
    }

    /// The keys that protect packets, in this backend.
    #[must_use]
    pub fn into_packet_keys_with(self, backend: Backend, now: Instant) -> PacketKeys {
        PacketKeys::new(self.suite, backend, &self.send, &self.receive, now)
    }

    fn of(state: &mut HandshakeState, suite: Suite) -> Result<Self, HandshakeError> {
        let binding = state
            .get_handshake_hash()
            .first_chunk()
            .copied()
            .ok_or(HandshakeError::Library)?;
        let initiator = state.is_initiator();
        let (first, second) = state.dangerously_get_raw_split();
        let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
        let derive = |raw: &[u8; KEY_LEN]| {
            let mut hasher = blake3::Hasher::new_derive_key("vmdt 1.1 session secret");
            hasher.update(raw).update(&[suite.number()]);
            Zeroizing::new(*hasher.finalize().as_bytes())
        };
        let (send, receive) = if initiator {
            (derive(&first), derive(&second))
        } else {
            (derive(&second), derive(&first))
        };
        Ok(Self {
            suite,
            send,
            receive,
            binding,
        })
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// Whose session is kept when two nodes offer one to each other at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// The session begun by this node's offer: leave the peer's offer unanswered as long as one's
    /// own is outstanding.
    OwnWins,
    /// The session begun by the peer's offer: answer it. Do not forget one's own before the peer's
    /// is confirmed: an offer proves nothing about who sent it.
    PeerWins,
}

/// The rule for crossing offers: the offer of the node with the smaller id wins.
///
/// If both sessions come to be all the same, both nodes keep the one that the rule names.
#[must_use]
pub fn crossing(local: NodeId, peer: NodeId) -> Crossing {
    if local < peer {
        Crossing::OwnWins
    } else {
        Crossing::PeerWins
    }
}

/// What both sides must agree on before the first message.
struct Prologue {
    pattern: Pattern,
    suites: Suites,
    initiator: NodeId,
    responder: NodeId,
}

impl Prologue {
    fn octets(&self) -> Vec<u8> {
        [
            PROTOCOL,
            &[message::VERSION, self.pattern.offer_type()],
            &self.suites.bits().to_be_bytes(),
            &self.initiator.field(),
            &self.responder.field(),
        ]
        .concat()
    }

    /// A Noise state. `ephemeral` is used once, for this side's ephemeral key.
    fn state(
        &self,
        local: &Local,
        role: Role<'_>,
        ephemeral: &Zeroizing<[u8; KEY_LEN]>,
    ) -> Result<HandshakeState, HandshakeError> {
        let identity = local.identity();
        let params = self
            .pattern
            .name()
            .parse()
            .map_err(|_| HandshakeError::Library)?;
        let primitives = Primitives {
            secret: identity.noise().clone(),
            public: identity.noise_public(),
            ephemeral: ephemeral.clone(),
        };
        let prologue = self.octets();
        let builder = snow::Builder::with_resolver(params, Box::new(primitives))
            .prologue(&prologue)
            .and_then(|builder| builder.local_private_key(identity.noise().as_bytes()))
            .map_err(|_| HandshakeError::Library)?;
        match role {
            Role::Initiator(None) => builder.build_initiator(),
            Role::Initiator(Some(key)) => builder
                .remote_public_key(key)
                .and_then(snow::Builder::build_initiator),
            Role::Responder => builder.build_responder(),
        }
        .map_err(|_| HandshakeError::Library)
    }
}

enum Role<'a> {
    Initiator(Option<&'a [u8; KEY_LEN]>),
    Responder,
}

fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Zeroizing<[u8; KEY_LEN]> {
    let mut octets = Zeroizing::new([0; KEY_LEN]);
    rng.fill_bytes(&mut *octets);
    octets
}

/// Who the peer says it is, checked: the credential is right, of the key that the handshake has
/// proven, of the node that was named, and not this node's own.
fn check_peer(
    local: &Local,
    peer: NodeId,
    state: &HandshakeState,
    claim: &message::Claim,
) -> Result<Credential, HandshakeError> {
    let noise = state
        .get_remote_static()
        .and_then(|key| key.first_chunk())
        .copied()
        .ok_or(HandshakeError::Library)?;
    let credential = claim.credential(noise)?;
    let found = credential.node_id();
    if credential.identity() == local.identity().public() {
        return Err(HandshakeError::Oneself);
    }
    if found != peer {
        return Err(VerifyError::OtherNode {
            found,
            expected: peer,
        }
        .into());
    }
    Ok(credential)
}

#[cfg(test)]
mod tests;
