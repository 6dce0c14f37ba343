//! The cryptography of VMDT profile 1.1, the *sealed* one.
//!
//! Nobody on the path, in the cluster or at the server can read, forge or impersonate. This crate
//! is what that rests on, as machines that do no input or output: times are arguments,
//! randomness is an [`rand_core::CryptoRng`] argument, and octets go in and come out. Only
//! [`keyfile`] touches a file system.
//!
//! | module | what it is |
//! |---|---|
//! | [`identity`] | Ed25519 identities, the node ids that follow from them, credentials of session keys |
//! | [`profile`], [`prekey`], [`rotation`] | what a node says about itself, signed |
//! | [`session`], [`packet`], [`replay`], [`cookie`] | Noise handshakes and the protection of packets |
//! | [`e2e`], [`announcement`], [`group`] | end-to-end sealing of messages to one and to several, placement |
//! | [`receipt`], [`handover`] | what holders and addressees sign, and what that proves |
//! | [`express`] | small messages as pieces that need no announcement |
//! | [`descriptor`], [`invite`], [`membership`], [`revocation`], [`trust`] | who belongs to a cluster |
//! | [`ticket`], [`code`] | how one comes to belong |
//! | [`keyfile`] | identities and prekeys on disk |
//!
//! # Values are verified
//!
//! A signed structure has two ways into the program: `sign` makes it, `parse` reads it and checks
//! every signature in it. There is no unverified form to confuse it with. Signatures are Ed25519
//! in its strict form (no keys of small order), each over a context of its own, a NUL and the
//! octets before it, so that no structure can stand for another.
//!
//! Every structure has one encoding: integers are big-endian, lists are sorted where their order
//! means nothing, and octets that are missing or left over are an error. No length is believed
//! before it was checked against its bound.
//!
//! # Secrets
//!
//! Types that hold secrets wipe them when dropped and have an opaque `Debug`. What libraries do
//! inside is theirs: `snow` keeps its chaining key, `spake2` its password and ring its key
//! schedules in memory that is not wiped. Comparisons of secrets are constant-time.
//!
//! # A conversation
//!
//! ```
//! use std::time::Instant;
//!
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! use vmdt_seal::identity::SecretIdentity;
//! use vmdt_seal::replay::ReplayWindow;
//! use vmdt_seal::session::{Answered, Initiator, Local, OfferView, Responder, Step, Suites};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! let mut rng = ChaCha20Rng::from_seed([1; 32]);
//! let alice = Local::new(SecretIdentity::generate(&mut rng), 1);
//! let bob = Local::new(SecretIdentity::generate(&mut rng), 1);
//!
//! // Alice knows Bob's credential, from his profile: two messages are enough.
//! let known = Some(bob.credential());
//! let mut initiator = Initiator::new(&alice, bob.node_id(), known, Suites::ALL, b"", &mut rng)?;
//! let offer = OfferView::parse(initiator.offer())?;
//! let responder = Responder::read(&bob, alice.node_id(), &offer, &mut rng)?;
//! let (answer, Answered::Established(at_bob)) = responder.answer(Suites::ALL, b"")? else {
//!     panic!("IK is complete with the answer");
//! };
//! let Step::Established(at_alice) = initiator.read(&answer, &mut rng)? else {
//!     panic!("the answer is right");
//! };
//!
//! let mut sender = at_alice.keys.into_packet_keys(now);
//! let mut receiver = at_bob.keys.into_packet_keys(now);
//! let mut window = ReplayWindow::new();
//!
//! let mut datagram = [&[0; 80][..], b"hello"].concat();
//! sender.seal_datagram(now, 1, &mut datagram)?;
//! window.check(1)?;
//! assert_eq!(receiver.open_datagram(now, 1, &mut datagram)?, b"hello");
//! window.commit(1);
//! assert!(window.check(1).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `keyfile` (default): [`keyfile`].
//! - `ring`: packets are protected by ring. The octets are the same.

mod aead;
pub mod announcement;
pub mod code;
mod codec;
pub mod cookie;
pub mod descriptor;
pub mod e2e;
pub mod error;
pub mod express;
pub mod group;
pub mod handover;
pub mod identity;
pub mod invite;
#[cfg(feature = "keyfile")]
pub mod keyfile;
pub mod membership;
mod noise;
pub mod packet;
pub mod prekey;
pub mod profile;
pub mod receipt;
pub mod replay;
pub mod revocation;
pub mod rotation;
pub mod session;
pub mod ticket;
pub mod trust;
mod words;

pub use rand_core;
