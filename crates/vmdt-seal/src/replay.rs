//! Which packet numbers have been seen.

use thiserror::Error;

/// Numbers this far below the highest are still told apart, in packets.
pub const WINDOW: u64 = 2_048;

/// One word more than the window, so that a word can be cleared while the window keeps its width
/// (RFC 6479).
const WORDS: usize = 33;

/// Why a packet number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Replayed {
    /// It was committed before.
    #[error("packet {number} was received before")]
    Seen {
        /// The number.
        number: u64,
    },
    /// It is [`WINDOW`] or more below the highest one.
    #[error("packet {number} is too old: the highest is {highest}")]
    TooOld {
        /// The number.
        number: u64,
        /// The highest number committed.
        highest: u64,
    },
}

/// The packet numbers received of late: 2,048 of them in 33 words.
///
/// [`check`](Self::check) before a packet is opened and [`commit`](Self::commit) once its tag has
/// verified: a forgery then moves nothing.
///
/// ```
/// use vmdt_seal::replay::ReplayWindow;
///
/// let mut window = ReplayWindow::new();
/// window.check(7)?;
/// window.commit(7);
/// assert!(window.check(7).is_err());
/// window.commit(7 + 2_048);
/// assert!(window.check(8).is_ok());
/// assert!(window.check(7).is_err());
/// # Ok::<(), vmdt_seal::replay::Replayed>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    highest: Option<u64>,
    /// A ring: number n is bit n % 64 of word (n / 64) % 33.
    words: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayWindow {
    /// A window that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            highest: None,
            words: [0; WORDS],
        }
    }

    /// The highest number committed.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether a packet may be opened. Changes nothing.
    ///
    /// # Errors
    /// [`Replayed`], when it was committed before or is too old to tell.
    pub fn check(&self, number: u64) -> Result<(), Replayed> {
        let Some(highest) = self.highest else {
            return Ok(());
        };
        if number > highest {
            Ok(())
        } else if highest - number >= WINDOW {
            Err(Replayed::TooOld { number, highest })
        } else if self.word(number) & bit(number) != 0 {
            Err(Replayed::Seen { number })
        } else {
            Ok(())
        }
    }

    /// Marks a number that [`check`](Self::check) allowed and whose packet's tag has verified. A
    /// number that is too old is left out.
    pub fn commit(&mut self, number: u64) {
        match self.highest {
            Some(highest) if number <= highest => {
                if highest - number >= WINDOW {
                    return;
                }
            }
            highest => {
                let newer = highest.map_or(WORDS as u64, |highest| number / 64 - highest / 64);
                for step in 0..newer.min(WORDS as u64) {
                    let at = place((number / 64).wrapping_sub(step));
                    if let Some(word) = self.words.get_mut(at) {
                        *word = 0;
                    }
                }
                self.highest = Some(number);
            }
        }
        if let Some(word) = self.words.get_mut(place(number / 64)) {
            *word |= bit(number);
        }
    }

    fn word(&self, number: u64) -> u64 {
        self.words
            .get(place(number / 64))
            .copied()
            .unwrap_or_default()
    }
}

const fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

const fn place(word: u64) -> usize {
    (word % WORDS as u64) as usize
}
