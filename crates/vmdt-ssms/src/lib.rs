//! Secret sharing of whole messages, any `k` of `n`.
//!
//! A message is encrypted once, in place, with AES-256-CTR under a fresh key; the key is shared
//! with Shamir's scheme over GF(2^8). A share is a head of [`HEAD_LEN`] octets, which holds one
//! key share, and the ciphertext, which all `n` shares of a message refer to without copying it.
//! Any `k` shares give the message back; `k - 1` shares say nothing about it but its length.
//!
//! ```
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! use vmdt_ssms::{Share, Threshold, reconstruct, split};
//!
//! // Any generator that implements `rand_core::CryptoRng` does; a fixed seed is for examples only.
//! let mut rng = ChaCha20Rng::from_seed([7; 32]);
//!
//! let shares = split(Threshold::new(3, 5)?, b"meet at noon".to_vec(), &mut rng)?;
//! assert_eq!(shares.len(), 5);
//!
//! // A share travels as octets …
//! let wire = shares[4].to_bytes();
//! let fifth = Share::parse(wire)?;
//!
//! // … and any three of them, in any order, rebuild the message.
//! let message = reconstruct(&[fifth, shares[0].clone(), shares[2].clone()])?;
//! assert_eq!(message, b"meet at noon");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which layer to use
//!
//! | | shares carry | detects | module |
//! |---|---|---|---|
//! | **v2** | `1 / k` of the ciphertext each | any altered, swapped or forged share, alone and on arrival, and names it | [`v2`] |
//! | streams of v2 | the same, by segments | also missing, moved and cut-off segments | [`stream`] |
//! | v1 with a trailer | all of the ciphertext | that something was altered | [`trailer`] |
//! | v1 | all of the ciphertext | shares that contradict each other | this level |
//! | keys alone | 32 octets | nothing | [`shamir`] |
//! | dispersal alone | `1 / k` of the octets each | nothing | [`dispersal`] |
//!
//! Version 2 is for whoever has the choice. Version 1 is the format of VMDT's protocol document
//! ([`Share`] shows the layout), and interworks with every other implementation of that.
//!
//! # What version 1 protects, and what it does not
//!
//! Plain CTR beside plain Shamir gives **confidentiality** against holders of fewer than `k`
//! shares, and **availability** while `k` shares remain. It gives **no integrity**: whoever alters
//! the ciphertext or a key share alters the message that comes out, and nothing in the shares
//! tells. [`reconstruct`] refuses every set of shares that contradicts itself, but a set of exactly
//! `k` shares that were altered in agreement is not a contradiction; [`reconstruct_correcting`]
//! rebuilds although up to `(m - k) / 2` of `m` shares are wrong, and names them. Neither
//! authenticates: [`trailer`] and [`v2`] do.
//!
//! # Constant time
//!
//! Arithmetic on the key, on the polynomials' coefficients and on key shares has no branch, no
//! table look-up and no loop bound that depends on them; `benches/dudect.rs` measures it. Share indices, `k`, `n` and sizes are
//! public, and time may depend on those. AES is as constant time as the backend of the [`aes`]
//! crate: AES instructions where the processor has them, else a bit-sliced implementation.
//!
//! # Zeroization
//!
//! Keys, coefficients, the AES key schedule and the heads of dropped [`Share`]s are overwritten.
//! Octets handed out ([`Share::to_bytes`], [`Share::head`], the rebuilt message) are the
//! caller's, and so is the buffer a share was parsed from. What the compiler leaves in registers
//! and spilled temporaries is beyond what safe Rust can reach.
//!
//! # Features
//!
//! - `std` (default): turns on the `std` features of the dependencies, and finds the instructions
//!   that the processor has for coding at run time (AVX-512 with GFNI, AVX2, SSE4.2, NEON). Without
//!   it the crate is `no_std`, needs `alloc`, and codes with portable arithmetic. AES instructions
//!   are found at run time in both cases.
//! - `serde`: serialisation of thresholds, party ids and manifests; never of shares or keys.

#![no_std]

extern crate alloc;

// Runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
extern crate std;

mod cipher;
mod correct;
pub mod dispersal;
mod error;
mod gf256;
mod packed;
mod params;
mod scheme;
#[cfg(feature = "serde")]
mod serde;
pub mod shamir;
mod share;
pub mod stream;
pub mod trailer;
pub mod v2;

pub use correct::{CorrectError, Corrected, reconstruct_correcting};
pub use error::{Field, ReconstructError, ShareError, SplitError, ThresholdError};
pub use packed::{Packed, split_packed};
pub use params::Threshold;
pub use scheme::{MAX_MESSAGE_LEN, reconstruct, reconstruct_owned, split, split_slice};
pub use share::{HEAD_LEN, KEY_LEN, NONCE_LEN, Share};
