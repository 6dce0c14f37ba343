//! Spoken codes: `7-word-word`, good for one exchange between two people who share nothing else.
//!
//! The number says where at the server the two meet; the words are the password of SPAKE2. Who
//! does not know them, the server included, has one guess in 65,536, and a wrong guess is seen by
//! both sides. Each step consumes the machine: there is no second guess.
//!
//! ```text
//!   opener                                   joiner
//!     | -- start: 33 octets ------------------> |
//!     | <------------------ start: 33 octets -- |
//!     | -- finish: 32 octets (confirmation) --> |
//!     | <----------------- finish: 32 octets -- |
//!     | <=== sealed octets, at most 4,096 ====> |
//! ```

use core::fmt;
use core::str::FromStr;

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use rand_core::CryptoRng;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::words::{FIRST, SECOND};

/// Octets of the first message.
pub const START_LEN: usize = 33;
/// Octets of the second message.
pub const FINISH_LEN: usize = 32;
/// Octets of a sealed message, at most.
pub const SEALED_MAX_LEN: usize = 4_096;
/// Octets that can be sealed at once, at most.
pub const PLAIN_MAX_LEN: usize = SEALED_MAX_LEN - 16;
/// The highest number.
pub const MAX_NUMBER: u16 = 9_999;

/// Why a code or an exchange under it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodeError {
    /// The text is not a number and two words.
    #[error("a code is a number and two words, such as 7-bison-caravan")]
    Form,
    /// The number is not 1 to 9,999.
    #[error("the number of a code is 1 to 9999")]
    Number,
    /// A word is not in its list. [`suggest`] may know which was meant.
    #[error("word {position} is not one of the words that codes are made of")]
    UnknownWord {
        /// 1 or 2.
        position: u8,
    },
    /// A message of the other side is malformed, or one's own sent back.
    #[error("the other side sent something that is no message of this exchange")]
    Malformed,
    /// The other side has another code: it was mistyped, or somebody guesses. The code is void.
    #[error("the codes differ: this one is void, make a new one")]
    WrongCode,
    /// More octets than can be sealed at once.
    #[error("{found} octets, allowed are at most {PLAIN_MAX_LEN}")]
    TooLong {
        /// The length given.
        found: usize,
    },
    /// A sealed message does not open: it was altered, repeated or left out.
    #[error("a sealed message is not authentic")]
    NotAuthentic,
}

/// A number and two words. `Display` shows all of it, because people must read it; `Debug` shows
/// the number only.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    number: u16,
    words: Zeroizing<[u8; 2]>,
}

impl Code {
    /// Draws two words for a number that the server gave.
    ///
    /// # Errors
    /// [`CodeError::Number`].
    pub fn generate(number: u16, rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, CodeError> {
        if !(1..=MAX_NUMBER).contains(&number) {
            return Err(CodeError::Number);
        }
        let mut words = Zeroizing::new([0; 2]);
        rng.fill_bytes(&mut *words);
        Ok(Self { number, words })
    }

    /// The number at the server.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    fn password(&self) -> Password {
        Password::new(Zeroizing::new(self.to_string()).as_bytes())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = *self.words;
        let word = |list: &'static [&'static str; 256], at: u8| {
            list.get(usize::from(at)).copied().unwrap_or_default()
        };
        write!(
            f,
            "{}-{}-{}",
            self.number,
            word(&FIRST, first),
            word(&SECOND, second)
        )
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-..)", self.number)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Reads a code. Case does not matter; blanks, underscores and dashes separate.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        // Longer than any code with a blank after each character.
        if text.len() > 128 {
            return Err(CodeError::Form);
        }
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        let mut parts = lower
            .split(|c: char| c.is_whitespace() || matches!(c, '-' | '_'))
            .filter(|part| !part.is_empty());
        let (Some(number), Some(first), Some(second), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CodeError::Form);
        };
        if !number.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(CodeError::Form);
        }
        let number = number
            .parse()
            .ok()
            .filter(|number| (1..=MAX_NUMBER).contains(number))
            .ok_or(CodeError::Number)?;
        let place = |list: &[&str; 256], word: &str, position| {
            list.iter()
                .position(|known| *known == word)
                .and_then(|at| u8::try_from(at).ok())
                .ok_or(CodeError::UnknownWord { position })
        };
        Ok(Self {
            number,
            words: Zeroizing::new([place(&FIRST, first, 1)?, place(&SECOND, second, 2)?]),
        })
    }
}

/// The word of a position, 1 or 2, that a mistyped one is nearest to, if it is near any.
#[must_use]
pub fn suggest(position: u8, word: &str) -> Option<&'static str> {
    if word.len() > 32 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    list(position)?
        .iter()
        .map(|known| (distance(&word, known), *known))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, known)| known)
}

/// The words of a position, 1 or 2, that begin with a prefix, for completion.
pub fn completions(position: u8, prefix: &str) -> impl Iterator<Item = &'static str> {
    list(position)
        .into_iter()
        .flatten()
        .copied()
        .filter(move |word| word.starts_with(prefix))
}

fn list(position: u8) -> Option<&'static [&'static str; 256]> {
    match position {
        1 => Some(&FIRST),
        2 => Some(&SECOND),
        _ => None,
    }
}

/// Letters to be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, x) in a.bytes().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let changed = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

/// Which side of the exchange this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Made the code.
    Opener,
    /// Was told the code.
    Joiner,
}

/// An exchange that has begun.
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::code::{Code, Pake, Role};
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let code = Code::generate(7, &mut rng)?;
/// let told: Code = code.to_string().replace('-', " ").parse()?;
///
/// let (opener, from_opener) = Pake::start(Role::Opener, &code, &mut rng);
/// let (joiner, from_joiner) = Pake::start(Role::Joiner, &told, &mut rng);
/// let (opener, opener_confirms) = opener.finish(&from_joiner)?;
/// let (joiner, joiner_confirms) = joiner.finish(&from_opener)?;
/// let mut opener = opener.confirm(&joiner_confirms)?;
/// let mut joiner = joiner.confirm(&opener_confirms)?;
///
/// let sealed = opener.seal(b"vmdt1...")?;
/// assert_eq!(*joiner.open(&sealed)?, b"vmdt1...");
/// # Ok::<(), vmdt_seal::code::CodeError>(())
/// ```
pub struct Pake {
    role: Role,
    number: u16,
    state: Spake2<Ed25519Group>,
}

impl Pake {
    /// Begins an exchange and returns the first message, [`START_LEN`] octets.
    #[must_use]
    pub fn start(role: Role, code: &Code, rng: &mut impl CryptoRng) -> (Self, Vec<u8>) {
        let name = |role: &str| Identity::new(format!("vmdt 1.1 code {role}").as_bytes());
        let (opener, joiner) = (name("opener"), name("joiner"));
        let password = code.password();
        let (state, message) = match role {
            Role::Opener => Spake2::start_a_with_rng(&password, &opener, &joiner, rng),
            Role::Joiner => Spake2::start_b_with_rng(&password, &opener, &joiner, rng),
        };
        let pake = Self {
            role,
            number: code.number,
            state,
        };
        (pake, message)
    }

    /// Takes the other side's first message and returns the second, [`FINISH_LEN`] octets.
    ///
    /// # Errors
    /// [`CodeError::Malformed`].
    pub fn finish(self, theirs: &[u8]) -> Result<(Confirming, Vec<u8>), CodeError> {
        let key = self
            .state
            .finish(theirs)
            .map(Zeroizing::new)
            .map_err(|_| CodeError::Malformed)?;
        let derive = |context: &str| Zeroizing::new(blake3::derive_key(context, &key));
        let opener = derive("vmdt 1.1 code confirmation of the opener");
        let joiner = derive("vmdt 1.1 code confirmation of the joiner");
        let from_opener = derive("vmdt 1.1 code key of the opener");
        let from_joiner = derive("vmdt 1.1 code key of the joiner");
        let (mine, expected, send, receive) = match self.role {
            Role::Opener => (opener, joiner, from_opener, from_joiner),
            Role::Joiner => (joiner, opener, from_joiner, from_opener),
        };
        let confirming = Confirming {
            number: self.number,
            expected,
            channel: CodeChannel {
                send,
                sent: 0,
                receive,
                received: 0,
            },
        };
        Ok((confirming, mine.to_vec()))
    }
}

impl fmt::Debug for Pake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pake({:?}, {}-..)", self.role, self.number)
    }
}

/// An exchange that waits for the other side's proof that it has the same code.
pub struct Confirming {
    number: u16,
    expected: Zeroizing<[u8; 32]>,
    channel: CodeChannel,
}

impl Confirming {
    /// Takes the other side's second message.
    ///
    /// # Errors
    /// [`CodeError::WrongCode`]: the code is void.
    pub fn confirm(self, theirs: &[u8]) -> Result<CodeChannel, CodeError> {
        if bool::from(self.expected.ct_eq(theirs)) {
            Ok(self.channel)
        } else {
            Err(CodeError::WrongCode)
        }
    }
}

impl fmt::Debug for Confirming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Confirming({}-..)", self.number)
    }
}

/// What two people with the same code have: a channel through the server that it cannot read.
/// Messages must be opened in the order they were sealed in, each once.
pub struct CodeChannel {
    send: Zeroizing<[u8; 32]>,
    sent: u64,
    receive: Zeroizing<[u8; 32]>,
    received: u64,
}

impl CodeChannel {
    /// Seals a message of at most [`PLAIN_MAX_LEN`] octets.
    ///
    /// # Errors
    /// [`CodeError::TooLong`].
    pub fn seal(&mut self, octets: &[u8]) -> Result<Vec<u8>, CodeError> {
        let found = octets.len();
        if found > PLAIN_MAX_LEN {
            return Err(CodeError::TooLong { found });
        }
        let sealed = ChaCha20Poly1305::new((&*self.send).into())
            .encrypt(&nonce(self.sent), octets)
            .map_err(|_| CodeError::TooLong { found })?;
        self.sent += 1;
        Ok(sealed)
    }

    /// Opens the next message.
    ///
    /// # Errors
    /// [`CodeError::NotAuthentic`] and [`CodeError::Malformed`] for one that is too long.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CodeError> {
        if sealed.len() > SEALED_MAX_LEN {
            return Err(CodeError::Malformed);
        }
        let octets = ChaCha20Poly1305::new((&*self.receive).into())
            .decrypt(&nonce(self.received), sealed)
            .map(Zeroizing::new)
            .map_err(|_| CodeError::NotAuthentic)?;
        self.received += 1;
        Ok(octets)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    let (_, tail) = nonce.split_at_mut(4);
    tail.copy_from_slice(&number.to_be_bytes());
    nonce.into()
}

impl fmt::Debug for CodeChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeChannel(..)")
    }
}
