//! What can be wrong with octets and with signatures.

use thiserror::Error;
use vmdt_wire::NodeId;

/// What is wrong with an encoding. No variant holds octets of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The octets end within a field.
    #[error("the octets end within {field}, which begins at offset {offset}")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// Octets follow the last field.
    #[error("{count} octets follow the last field")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A number is not one of those allowed.
    #[error("{field} at offset {offset} is {found}, allowed is {allowed}")]
    Value {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// The number found.
        found: u64,
        /// The numbers allowed, in words.
        allowed: &'static str,
    },
    /// A length or count is beyond its bound.
    #[error("{field} at offset {offset} has the length {found}, allowed is at most {allowed}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// The length found.
        found: usize,
        /// The longest allowed.
        allowed: usize,
    },
    /// A text is not what it may be: UTF-8 without control characters, or a word of its alphabet.
    #[error("{field} at offset {offset} is not the text it should be")]
    Text {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// A public key is not a point of the curve, or one of small order.
    #[error("{field} at offset {offset} is no usable public key")]
    Key {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// Entries are not in ascending order, or one occurs twice.
    #[error("{field} at offset {offset} is not in ascending order")]
    Order {
        /// The field.
        field: &'static str,
        /// Where it begins.
        offset: usize,
    },
}

/// Why a signed statement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is not one.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A signature is not of the key that it is said to be of.
    #[error("the signature of {signer} is not right")]
    Signature {
        /// Whose signature.
        signer: &'static str,
    },
    /// It speaks of another node than expected.
    #[error("it is a statement of {found}, expected was {expected}")]
    OtherNode {
        /// The node that it is a statement of.
        found: NodeId,
        /// The node that was expected.
        expected: NodeId,
    },
}

/// Why a statement cannot be made: a value is beyond what its encoding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A text or list is too long.
    #[error("{field} has the length {found}, allowed is at most {allowed}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The length given.
        found: usize,
        /// The longest allowed.
        allowed: usize,
    },
    /// A value is not one of those allowed.
    #[error("{field} is not allowed: {reason}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}
