//! The side that a session is offered to.

use core::fmt;

use rand_core::CryptoRng;
use snow::HandshakeState;
use vmdt_wire::NodeId;
use zeroize::Zeroizing;

use super::initiator::{read, write};
use super::message::{self, Expect, Found, OfferView, Pattern, Payload};
use super::{
    Established, HandshakeError, Local, MAX_SETBACKS, Prologue, Role, SessionKeys, Suites,
    check_peer, draw,
};
use crate::identity::{Credential, KEY_LEN};
use crate::packet::Suite;

/// An offer that was read. Make it only of an offer that the
/// [`LoadGate`](crate::cookie::LoadGate) admits: reading one of IK costs two Diffie-Hellman
/// operations and a signature check, answering either two more.
pub struct Responder {
    local: Local,
    prologue: Prologue,
    ephemeral: Zeroizing<[u8; KEY_LEN]>,
    offer: Vec<u8>,
    state: Box<HandshakeState>,
    credential: Option<Credential>,
    params: Vec<u8>,
}

/// What follows an answer.
#[derive(Debug)]
pub enum Answered {
    /// XX: the initiator has to confirm.
    Waiting(AwaitConfirm),
    /// IK: complete, but not confirmed until a packet opens under its keys.
    Established(Box<Established>),
}

impl Responder {
    /// Reads an offer that a node of this id is said to have sent.
    ///
    /// # Errors
    /// [`HandshakeError::StaleKey`] when an offer of IK does not decrypt;
    /// [`HandshakeError::Credential`] when it is not of the node named; malformed payloads.
    pub fn read(
        local: &Local,
        peer: NodeId,
        offer: &OfferView<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, HandshakeError> {
        if peer == local.node_id() {
            return Err(HandshakeError::Oneself);
        }
        let pattern = offer.pattern();
        let prologue = Prologue {
            pattern,
            suites: offer.suites(),
            initiator: peer,
            responder: local.node_id(),
        };
        let ephemeral = draw(rng);
        let mut state = Box::new(prologue.state(local, Role::Responder, &ephemeral)?);
        let payload = read(&mut state, offer.noise()).map_err(|error| match (pattern, error) {
            (Pattern::Ik, HandshakeError::NotAuthentic) => HandshakeError::StaleKey,
            (_, error) => error,
        })?;
        let found = Found::read(
            &payload,
            Expect {
                credential: pattern == Pattern::Ik,
                suite: false,
                padding: true,
            },
        )?;
        let credential = found
            .claim
            .map(|claim| check_peer(local, peer, &state, &claim))
            .transpose()?;
        Ok(Self {
            local: local.clone(),
            prologue,
            ephemeral,
            offer: offer.noise().to_vec(),
            state,
            credential,
            params: found.params,
        })
    }

    /// Who offers, if the offer says so (IK). A recorded offer says so too.
    #[must_use]
    pub const fn peer(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// The initiator's parameters: in an offer of XX in the open, and not authentic before the
    /// confirmation.
    #[must_use]
    pub fn params(&self) -> &[u8] {
        &self.params
    }

    /// Answers, with one of the suites that both sides have.
    ///
    /// # Errors
    /// [`HandshakeError::NoSuite`] and [`HandshakeError::Params`].
    pub fn answer(
        mut self,
        suites: Suites,
        params: &[u8],
    ) -> Result<(Vec<u8>, Answered), HandshakeError> {
        let suite = suites
            .choose(self.prologue.suites)
            .ok_or(HandshakeError::NoSuite)?;
        let payload = Payload {
            credential: (self.prologue.pattern == Pattern::Xx).then(|| self.local.credential()),
            suite: Some(suite),
            params,
        }
        .encode(0)?;
        let noise = write(&mut self.state, &payload)?;
        let answer = [&[self.prologue.pattern.answer_type()], noise.as_slice()].concat();
        let answered = match self.credential {
            Some(peer) => Answered::Established(Box::new(Established {
                keys: SessionKeys::of(&mut self.state, suite)?,
                peer,
                params: self.params,
                confirm: None,
            })),
            None => Answered::Waiting(AwaitConfirm {
                local: self.local,
                prologue: self.prologue,
                ephemeral: self.ephemeral,
                offer: self.offer,
                payload,
                suite,
                state: Some(self.state),
                params: self.params,
                setbacks: 0,
            }),
        };
        Ok((answer, answered))
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("peer", &self.prologue.initiator)
            .field("pattern", &self.prologue.pattern)
            .finish_non_exhaustive()
    }
}

/// A responder that has answered an offer of XX. It holds about 3 KiB.
pub struct AwaitConfirm {
    local: Local,
    prologue: Prologue,
    ephemeral: Zeroizing<[u8; KEY_LEN]>,
    offer: Vec<u8>,
    payload: Vec<u8>,
    suite: Suite,
    /// Absent after a confirmation that failed: it is then built anew from the parts above, so
    /// that a false confirmation does not spoil the true one.
    state: Option<Box<HandshakeState>>,
    params: Vec<u8>,
    setbacks: u32,
}

impl AwaitConfirm {
    /// Takes the initiator's confirmation. On success the machine is used up.
    ///
    /// # Errors
    /// [`HandshakeError::NotAuthentic`] for a message that is not the initiator's: wait for
    /// another. [`HandshakeError::Credential`] when the initiator is not the node named, and
    /// [`HandshakeError::GivenUp`]: drop the machine.
    pub fn read(&mut self, octets: &[u8]) -> Result<Established, HandshakeError> {
        let noise = octets
            .strip_prefix(&[message::CONFIRM])
            .ok_or(HandshakeError::Unexpected)?;
        if self.setbacks >= MAX_SETBACKS {
            return Err(HandshakeError::GivenUp);
        }
        let established = self.confirm(noise);
        if established.is_err() {
            self.setbacks += 1;
        }
        established
    }

    fn confirm(&mut self, noise: &[u8]) -> Result<Established, HandshakeError> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.again()?,
        };
        let payload = read(&mut state, noise)?;
        let found = Found::read(
            &payload,
            Expect {
                credential: true,
                suite: false,
                padding: false,
            },
        )?;
        let claim = found.claim.ok_or(HandshakeError::Library)?;
        let peer = check_peer(&self.local, self.prologue.initiator, &state, &claim)?;
        Ok(Established {
            keys: SessionKeys::of(&mut state, self.suite)?,
            peer,
            params: self.params.clone(),
            confirm: None,
        })
    }

    /// The state as it was after the answer.
    fn again(&self) -> Result<Box<HandshakeState>, HandshakeError> {
        let state = self
            .prologue
            .state(&self.local, Role::Responder, &self.ephemeral)?;
        let mut state = Box::new(state);
        read(&mut state, &self.offer)?;
        write(&mut state, &self.payload)?;
        Ok(state)
    }
}

impl fmt::Debug for AwaitConfirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitConfirm")
            .field("peer", &self.prologue.initiator)
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}
