//! The side that offers a session.

use core::fmt;

use rand_core::CryptoRng;
use snow::HandshakeState;
use vmdt_wire::NodeId;
use zeroize::Zeroizing;

use super::message::{self, Expect, Found, Pattern, Payload, Reply};
use super::{
    Established, HandshakeError, Local, MAX_SETBACKS, MESSAGE_MAX_LEN, Prologue, Role, SessionKeys,
    Suites, check_peer, draw,
};
use crate::cookie::Cookie;
use crate::error::VerifyError;
use crate::identity::{Credential, KEY_LEN};

/// What a message changed.
#[derive(Debug)]
pub enum Step {
    /// The responder wants the offer with a cookie, or another offer: send
    /// [`Initiator::offer`] again.
    OfferAgain,
    /// The handshake is complete. Drop the machine.
    Established(Box<Established>),
}

/// The side that offers a session. `Debug` shows no secret.
///
/// Time and repetition are the caller's: repeat [`offer`](Self::offer) until a message leads to
/// [`Step::Established`].
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::identity::SecretIdentity;
/// use vmdt_seal::session::{Answered, Initiator, Local, OfferView, Responder, Step, Suites};
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let alice = Local::new(SecretIdentity::generate(&mut rng), 1);
/// let bob = Local::new(SecretIdentity::generate(&mut rng), 1);
///
/// let mut initiator =
///     Initiator::new(&alice, bob.node_id(), None, Suites::ALL, b"window 9", &mut rng)?;
///
/// let offer = OfferView::parse(initiator.offer())?;
/// let responder = Responder::read(&bob, alice.node_id(), &offer, &mut rng)?;
/// let (answer, Answered::Waiting(mut waiting)) = responder.answer(Suites::ALL, b"window 5")? else {
///     unreachable!("no key was known: this is XX");
/// };
///
/// let Step::Established(at_alice) = initiator.read(&answer, &mut rng)? else {
///     unreachable!("the answer is right");
/// };
/// let at_bob = waiting.read(&at_alice.confirm.unwrap())?;
/// assert_eq!(at_alice.params, b"window 5");
/// assert_eq!(at_bob.peer.node_id(), alice.node_id());
/// assert_eq!(at_alice.keys.binding(), at_bob.keys.binding());
/// # Ok::<(), vmdt_seal::session::HandshakeError>(())
/// ```
pub struct Initiator {
    local: Local,
    peer: NodeId,
    /// The peer's credential, while IK is tried.
    known: Option<Credential>,
    suites: Suites,
    params: Vec<u8>,
    ephemeral: Zeroizing<[u8; KEY_LEN]>,
    /// Absent after an answer that failed: it is then built anew from the same ephemeral key, so
    /// that a false answer does not spoil the true one.
    state: Option<Box<HandshakeState>>,
    noise: Vec<u8>,
    digest: [u8; 32],
    offer: Vec<u8>,
    setbacks: u32,
}

impl Initiator {
    /// Begins a handshake with a node: IK when its credential is known, XX otherwise.
    ///
    /// # Errors
    /// [`HandshakeError::Params`], [`HandshakeError::Oneself`], and
    /// [`HandshakeError::Credential`] when the credential is of another node.
    pub fn new(
        local: &Local,
        peer: NodeId,
        known: Option<&Credential>,
        suites: Suites,
        params: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, HandshakeError> {
        if peer == local.node_id() {
            return Err(HandshakeError::Oneself);
        }
        if let Some(found) = known.map(Credential::node_id).filter(|id| *id != peer) {
            return Err(VerifyError::OtherNode {
                found,
                expected: peer,
            }
            .into());
        }
        let mut initiator = Self {
            local: local.clone(),
            peer,
            known: known.copied(),
            suites,
            params: params.to_vec(),
            ephemeral: Zeroizing::default(),
            state: None,
            noise: Vec::new(),
            digest: [0; 32],
            offer: Vec::new(),
            setbacks: 0,
        };
        initiator.begin(rng)?;
        Ok(initiator)
    }

    /// The offer to send. It changes only with [`Step::OfferAgain`].
    #[must_use]
    pub fn offer(&self) -> &[u8] {
        &self.offer
    }

    /// The peer that the offer is for.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        self.peer
    }

    /// The pattern offered now.
    #[must_use]
    pub const fn pattern(&self) -> Pattern {
        if self.known.is_some() {
            Pattern::Ik
        } else {
            Pattern::Xx
        }
    }

    /// Takes a message from the peer.
    ///
    /// # Errors
    /// [`HandshakeError`]: the message was not the peer's answer, or the peer is not who it should
    /// be. The machine goes on waiting for the true answer, except after
    /// [`HandshakeError::GivenUp`].
    pub fn read(
        &mut self,
        octets: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Step, HandshakeError> {
        if self.setbacks >= MAX_SETBACKS {
            return Err(HandshakeError::GivenUp);
        }
        match message::reply(octets, &self.digest)? {
            Reply::Answer(pattern, noise) if pattern == self.pattern() => {
                let established = self.answer(noise);
                if established.is_err() {
                    self.setbacks += 1;
                }
                established.map(|established| Step::Established(Box::new(established)))
            }
            Reply::Restart if self.known.is_some() => {
                self.setbacks += 1;
                self.known = None;
                self.begin(rng)?;
                Ok(Step::OfferAgain)
            }
            Reply::Cookie(cookie) => {
                self.setbacks += 1;
                self.wrap(Some(&cookie));
                Ok(Step::OfferAgain)
            }
            Reply::Answer(..) | Reply::Restart => Err(HandshakeError::Unexpected),
        }
    }

    /// Makes a new offer.
    fn begin(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Result<(), HandshakeError> {
        self.ephemeral = draw(rng);
        let (state, noise) = self.first_message()?;
        self.digest = message::offer_digest(self.pattern(), self.suites, &noise);
        self.state = Some(Box::new(state));
        self.noise = noise;
        self.wrap(None);
        Ok(())
    }

    fn wrap(&mut self, cookie: Option<&Cookie>) {
        self.offer = message::offer(self.pattern(), self.suites, cookie, &self.noise);
    }

    fn first_message(&self) -> Result<(HandshakeState, Vec<u8>), HandshakeError> {
        let pattern = self.pattern();
        let prologue = Prologue {
            pattern,
            suites: self.suites,
            initiator: self.local.node_id(),
            responder: self.peer,
        };
        let role = Role::Initiator(self.known.as_ref().map(Credential::noise_public));
        let mut state = prologue.state(&self.local, role, &self.ephemeral)?;
        let payload = Payload {
            credential: self.known.is_some().then(|| self.local.credential()),
            suite: None,
            params: &self.params,
        }
        .encode(message::offer_payload_len(pattern))?;
        let noise = write(&mut state, &payload)?;
        Ok((state, noise))
    }

    fn answer(&mut self, noise: &[u8]) -> Result<Established, HandshakeError> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => Box::new(self.first_message()?.0),
        };
        let payload = read(&mut state, noise)?;
        let found = Found::read(
            &payload,
            Expect {
                credential: self.known.is_none(),
                suite: true,
                padding: false,
            },
        )?;
        let suite = found
            .suite
            .filter(|suite| self.suites.contains(*suite))
            .ok_or(HandshakeError::NoSuite)?;
        let peer = match (&self.known, &found.claim) {
            // The answer decrypts, so its sender has the secret of the credential's key.
            (Some(known), _) => *known,
            (None, Some(claim)) => check_peer(&self.local, self.peer, &state, claim)?,
            (None, None) => return Err(HandshakeError::Library),
        };
        let confirm = match self.pattern() {
            Pattern::Ik => None,
            Pattern::Xx => {
                let payload = Payload {
                    credential: Some(self.local.credential()),
                    suite: None,
                    params: &[],
                }
                .encode(0)?;
                let noise = write(&mut state, &payload)?;
                Some([&[message::CONFIRM], noise.as_slice()].concat())
            }
        };
        Ok(Established {
            keys: SessionKeys::of(&mut state, suite)?,
            peer,
            params: found.params,
            confirm,
        })
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("peer", &self.peer)
            .field("pattern", &self.pattern())
            .field("setbacks", &self.setbacks)
            .finish_non_exhaustive()
    }
}

/// Writes a Noise message.
pub(super) fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut out = vec![0; MESSAGE_MAX_LEN];
    let len = state
        .write_message(payload, &mut out)
        .map_err(|_| HandshakeError::Library)?;
    out.truncate(len);
    Ok(out)
}

/// Reads a Noise message and returns its payload, wiped when dropped.
pub(super) fn read(
    state: &mut HandshakeState,
    noise: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HandshakeError> {
    if noise.len() > MESSAGE_MAX_LEN {
        return Err(message::malformed("longer than any message"));
    }
    let mut payload = Zeroizing::new(vec![0; MESSAGE_MAX_LEN]);
    let len = state
        .read_message(noise, &mut payload)
        .map_err(|_| HandshakeError::NotAuthentic)?;
    payload.truncate(len);
    Ok(payload)
}
