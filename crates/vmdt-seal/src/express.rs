//! Express: small messages as pieces that describe themselves.
//!
//! An [`Opening`] gives a sender and a receiver a secret of their own, once for many messages. Under
//! it each message is sealed by itself: its ciphertext is dispersed, its key shared, `k` of `n`, and
//! each [`Piece`] says which message it is of and carries a tag that its receiver checks alone. So
//! nothing has to be announced, signed or ordered before a piece can leave or be used.
//!
//! - `k` pieces together open nothing without the pair's secret, and the pair's secret opens
//!   nothing of a message of which fewer than `k` pieces are there.
//! - Whoever carries pieces can drop them, and can neither read nor alter nor make one: a piece that
//!   was altered has a wrong tag and counts as lost.
//! - It is authenticated to the receiver and to nobody else: both ends have the key of the tags,
//!   so a piece proves nothing to others.
//!
//! ```
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! use vmdt_seal::express::Opening;
//! use vmdt_seal::identity::SecretIdentity;
//! use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
//! use vmdt_ssms::{Threshold, dispersal::Code};
//!
//! let mut rng = ChaCha20Rng::from_seed([1; 32]);
//! let alice = SecretIdentity::generate(&mut rng);
//! let bob = SecretIdentity::generate(&mut rng);
//! let prekeys = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng);
//!
//! // Alice tells Bob once.
//! let prekey = prekeys.current().public();
//! let (opening, at_alice) = Opening::sign(&alice, bob.public(), &prekey, 3_600_000, &mut rng)?;
//! let opening = Opening::parse(opening.octets())?;
//! let at_bob = opening.accept(prekeys.find(opening.prekey_id()).unwrap())?;
//!
//! // Then each message is five pieces, of which any three do.
//! let code = Code::new(Threshold::new(3, 5)?);
//! let pieces = at_alice.seal(&code, 0, b"a small message", &mut rng)?;
//! let three: Vec<_> = pieces.iter().skip(2).map(|p| at_bob.check(p).unwrap()).collect();
//! assert_eq!(at_bob.open(&three)?, b"a small message");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod opening;
mod piece;

pub use opening::{OPENING_LEN, Opening};
pub use piece::{
    Channel, MAX_PLAIN, OpenError, PIECE_FIXED, Piece, PieceError, PieceHead, SealError,
};
