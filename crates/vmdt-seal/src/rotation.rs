//! A node's new key, vouched for by its old one.

use bytes::Bytes;
use thiserror::Error;

use crate::codec::{self, Reader};
use crate::error::VerifyError;
use crate::identity::{PublicIdentity, SIGNATURE_LEN, SecretIdentity};

/// A chain of rotations is followed for at most so many steps.
pub const MAX_STEPS: usize = 16;
/// Octets of a [`Rotation`].
pub const ROTATION_LEN: usize = 2 + 32 + 32 + 8 + 2 * SIGNATURE_LEN;

/// The statement that the owner of one key goes on under another. Both keys sign, so that nobody
/// can lay claim to the name of a key that is not theirs, nor give their name to another's.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `O`, format 1 |
/// | 32 | old identity key |
/// | 32 | new identity key |
/// | 8 | when, milliseconds since 1970 |
/// | 64 | the old key's signature over all before, context `vmdt 1.1 key rotation` |
/// | 64 | the new key's signature over all before, same context |
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::identity::SecretIdentity;
/// use vmdt_seal::rotation::{Rotation, follow};
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let old = SecretIdentity::generate(&mut rng);
/// let new = SecretIdentity::generate(&mut rng);
/// let rotation = Rotation::sign(&old, &new, 1_000);
/// let read = Rotation::parse(rotation.octets())?;
/// assert_eq!(follow(old.public(), &[read])?, new.public());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    old: PublicIdentity,
    new: PublicIdentity,
    when_ms: u64,
    octets: Bytes,
}

impl Rotation {
    /// Signs with both keys.
    #[must_use]
    pub fn sign(old: &SecretIdentity, new: &SecretIdentity, when_ms: u64) -> Self {
        let mut out = codec::begin(codec::ROTATION, ROTATION_LEN);
        out.extend_from_slice(old.public().as_octets());
        out.extend_from_slice(new.public().as_octets());
        out.extend_from_slice(&when_ms.to_be_bytes());
        old.sign_onto(codec::ROTATION, &mut out);
        new.sign_onto(codec::ROTATION, &mut out);
        Self {
            old: old.public(),
            new: new.public(),
            when_ms,
            octets: out.into(),
        }
    }

    /// Reads a statement and checks both signatures.
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not right.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::ROTATION)?;
        let old = reader.key("old key")?;
        let new = reader.key("new key")?;
        let when_ms = reader.u64("when")?;
        let first = reader.offset();
        let by_old = reader.signature()?;
        let second = reader.offset();
        let by_new = reader.signature()?;
        reader.end()?;
        let before = |end| octets.get(..end).unwrap_or_default();
        old.verify(codec::ROTATION, before(first), &by_old, "the old key")?;
        new.verify(codec::ROTATION, before(second), &by_new, "the new key")?;
        Ok(Self {
            old,
            new,
            when_ms,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// The key that is given up.
    #[must_use]
    pub const fn old_key(&self) -> PublicIdentity {
        self.old
    }

    /// The key that replaces it.
    #[must_use]
    pub const fn new_key(&self) -> PublicIdentity {
        self.new
    }

    /// When, in milliseconds since 1970, by the owner's clock.
    #[must_use]
    pub const fn when_ms(&self) -> u64 {
        self.when_ms
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

/// Why a chain of rotations leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RotationError {
    /// More than [`MAX_STEPS`] statements.
    #[error("{found} rotations, allowed are at most {MAX_STEPS}")]
    TooMany {
        /// How many were given.
        found: usize,
    },
    /// A key has two successors: its owner, or a thief, said two things.
    #[error("the key {key} has two successors")]
    Fork {
        /// The key.
        key: PublicIdentity,
    },
    /// The chain comes back to a key that was given up.
    #[error("the rotations come back to the key {key}")]
    Loop {
        /// The key.
        key: PublicIdentity,
    },
}

/// The key that the owner of `from` uses now, according to statements in any order. Statements of
/// other keys are ignored.
///
/// # Errors
/// [`RotationError`]: too many statements, two different successors of one key, or a loop.
pub fn follow(
    from: PublicIdentity,
    rotations: &[Rotation],
) -> Result<PublicIdentity, RotationError> {
    if rotations.len() > MAX_STEPS {
        return Err(RotationError::TooMany {
            found: rotations.len(),
        });
    }
    let mut key = from;
    for _ in 0..=rotations.len() {
        let mut successors = rotations
            .iter()
            .filter(|rotation| rotation.old == key)
            .map(|rotation| rotation.new);
        let Some(next) = successors.next() else {
            return Ok(key);
        };
        if successors.any(|other| other != next) {
            return Err(RotationError::Fork { key });
        }
        key = next;
    }
    Err(RotationError::Loop { key })
}
