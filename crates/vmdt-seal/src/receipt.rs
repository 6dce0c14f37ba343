//! Receipts: who carried which share, and that the addressee has the message, said to its sender.

use core::num::NonZeroU8;

use bytes::Bytes;
use vmdt_wire::{MessageId, NodeId};

use crate::codec::{self, Head, Reader};
use crate::error::{BuildError, ParseError, VerifyError};
use crate::identity::{PublicIdentity, SIGNATURE_LEN, SecretIdentity};

/// Statements in one [`Receipts`] at most.
pub const MAX_STATEMENTS: usize = 64;
/// Octets of one statement.
pub const STATEMENT_LEN: usize = 1 + 16 + 1 + 32;
/// Octets of [`Receipts`] besides their statements.
pub const RECEIPTS_FIXED: usize = 2 + 32 + 16 + 8 + 1 + SIGNATURE_LEN;
/// Octets of the longest [`Receipts`].
pub const RECEIPTS_MAX_LEN: usize = RECEIPTS_FIXED + MAX_STATEMENTS * STATEMENT_LEN;

/// What is confirmed of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// The signer was given this share, and it is the one that the manifest names. Number 1.
    Taken(NonZeroU8),
    /// The signer has passed this share on, and its receiver's transport has confirmed it.
    /// Number 2.
    HandedOn(NonZeroU8),
    /// The signer has the whole message, checked, that ends with this segment. Number 3.
    Delivered,
}

impl Fact {
    const fn octets(self) -> [u8; 2] {
        match self {
            Self::Taken(index) => [1, index.get()],
            Self::HandedOn(index) => [2, index.get()],
            Self::Delivered => [3, 0],
        }
    }
}

/// One thing that a node confirms.
///
/// | octets | field |
/// |---|---|
/// | 16 | message id, of one segment |
/// | 1 | what: 1 taken, 2 handed on, 3 delivered |
/// | 1 | share index, 1 to 255; 0 with 3 |
/// | 32 | digest of the share as in the manifest; with 3 the digest of the manifest |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Statement {
    /// The message: one segment of a transfer.
    pub message: MessageId,
    /// What is confirmed of it.
    pub fact: Fact,
    /// The digest of the share, or of the manifest of the transfer's last segment.
    pub digest: [u8; 32],
}

impl Statement {
    fn encode(&self) -> [u8; STATEMENT_LEN] {
        let mut out = [0; STATEMENT_LEN];
        let (id, rest) = out.split_at_mut(16);
        let (fact, digest) = rest.split_at_mut(2);
        id.copy_from_slice(&self.message.field());
        fact.copy_from_slice(&self.fact.octets());
        digest.copy_from_slice(&self.digest);
        out
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let message = reader.message_id("message id")?;
        let offset = reader.offset();
        let what = reader.u8("what is confirmed")?;
        let index = reader.u8("share index")?;
        let fact = match (what, NonZeroU8::new(index)) {
            (1, Some(index)) => Fact::Taken(index),
            (2, Some(index)) => Fact::HandedOn(index),
            (3, None) => Fact::Delivered,
            (1..=3, _) => {
                return Err(ParseError::Value {
                    field: "share index",
                    offset: offset + 1,
                    found: u64::from(index),
                    allowed: "1 to 255 of a share, 0 of a delivery",
                });
            }
            _ => {
                return Err(ParseError::Value {
                    field: "what is confirmed",
                    offset,
                    found: u64::from(what),
                    allowed: "1 to 3",
                });
            }
        };
        Ok(Self {
            message,
            fact,
            digest: reader.array("digest")?,
        })
    }
}

/// What a node confirms to the sender of messages, under one signature: a stream of messages costs
/// a signature for each 64 statements and no more.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `R`, format 1 |
/// | 32 | the signer's identity key |
/// | 16 | id of the sender of the messages, whom it is for |
/// | 8 | when, milliseconds since 1970 |
/// | 1 | number of statements, 1 to 64 |
/// | 50 each | statements, ascending by their octets, none twice |
/// | 64 | signature over all before, context `vmdt 1.1 receipts` |
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::identity::SecretIdentity;
/// use vmdt_seal::receipt::{Fact, Receipts, Statement};
/// use vmdt_wire::MessageId;
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let holder = SecretIdentity::generate(&mut rng);
/// let alice = SecretIdentity::generate(&mut rng).node_id();
/// let taken = Statement {
///     message: MessageId::from_random([7; 12]),
///     fact: Fact::Taken(2.try_into()?),
///     digest: [9; 32],
/// };
/// let receipts = Receipts::sign(&holder, alice, 1_000, &[taken])?;
/// let read = Receipts::parse(receipts.octets())?;
/// assert_eq!((read.signer(), read.statements()), (holder.public(), &[taken][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipts {
    signer: PublicIdentity,
    sender: NodeId,
    when_ms: u64,
    statements: Vec<Statement>,
    octets: Bytes,
}

impl Receipts {
    /// Signs what `signer` confirms to `sender`. The order of the statements does not matter, and
    /// of equal ones one is taken.
    ///
    /// # Errors
    /// [`BuildError`]: no statement, or more than [`MAX_STATEMENTS`].
    pub fn sign(
        signer: &SecretIdentity,
        sender: NodeId,
        when_ms: u64,
        statements: &[Statement],
    ) -> Result<Self, BuildError> {
        let field = "statements";
        let mut statements = statements.to_vec();
        statements.sort_unstable_by_key(Statement::encode);
        statements.dedup();
        if statements.is_empty() {
            let reason = "there is none";
            return Err(BuildError::Value { field, reason });
        }
        let count = match u8::try_from(statements.len()) {
            Ok(count) if statements.len() <= MAX_STATEMENTS => count,
            _ => {
                return Err(BuildError::TooLong {
                    field,
                    found: statements.len(),
                    allowed: MAX_STATEMENTS,
                });
            }
        };
        let len = RECEIPTS_FIXED + statements.len() * STATEMENT_LEN;
        let mut out = codec::begin(codec::RECEIPTS, len);
        out.extend_from_slice(signer.public().as_octets());
        out.extend_from_slice(&sender.field());
        out.extend_from_slice(&when_ms.to_be_bytes());
        out.push(count);
        for statement in &statements {
            out.extend_from_slice(&statement.encode());
        }
        signer.sign_onto(codec::RECEIPTS, &mut out);
        Ok(Self {
            signer: signer.public(),
            sender,
            when_ms,
            statements,
            octets: out.into(),
        })
    }

    /// Reads receipts and checks their signature.
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not the signer's.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::RECEIPTS)?;
        let signer = reader.key("signer key")?;
        let sender = reader.node_id("sender")?;
        let when_ms = reader.u64("when")?;
        let offset = reader.offset();
        let count = reader.count("statements", MAX_STATEMENTS)?;
        if count == 0 {
            return Err(ParseError::Value {
                field: "statements",
                offset,
                found: 0,
                allowed: "1 to 64",
            }
            .into());
        }
        let mut statements: Vec<Statement> = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = reader.offset();
            let statement = Statement::read(&mut reader)?;
            if statements
                .last()
                .is_some_and(|before| before.encode() >= statement.encode())
            {
                let field = "statements";
                return Err(ParseError::Order { field, offset }.into());
            }
            statements.push(statement);
        }
        finish(reader, octets, codec::RECEIPTS, signer, "the signer")?;
        Ok(Self {
            signer,
            sender,
            when_ms,
            statements,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// Who signed: a holder of shares, or an addressee.
    #[must_use]
    pub const fn signer(&self) -> PublicIdentity {
        self.signer
    }

    /// Whose messages these were.
    #[must_use]
    pub const fn sender(&self) -> NodeId {
        self.sender
    }

    /// When, in milliseconds since 1970, by the signer's clock.
    #[must_use]
    pub const fn when_ms(&self) -> u64 {
        self.when_ms
    }

    /// What is confirmed.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// The encoding, which proves it to others.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

/// Reads the signature at the end and checks it over all before.
pub(crate) fn finish(
    mut reader: Reader<'_>,
    octets: &[u8],
    head: Head,
    key: PublicIdentity,
    signer: &'static str,
) -> Result<(), VerifyError> {
    let end = reader.offset();
    let signature = reader.signature()?;
    reader.end()?;
    let body = octets.get(..end).unwrap_or_default();
    key.verify(head, body, &signature, signer)
}
