//! A running hash of what happened.

use std::time::Duration;

use crate::rng::mix;

/// A cheap running hash of events: two runs with the same value saw the same
/// events in the same order.
///
/// Each 64-bit word w enters as `h = (rotate_left(h, 23) ^ w) * K` with K the
/// odd golden-ratio constant; octets enter eight at a time, little-endian,
/// after their count, so neither padding nor a shifted boundary goes unseen.
/// It detects accidents and resists nobody.
///
/// ```
/// use vmdt_testkit::TraceHash;
///
/// let (mut one, mut other) = (TraceHash::new(), TraceHash::new());
/// one.octets(b"ab");
/// one.octets(b"c");
/// other.octets(b"a");
/// other.octets(b"bc");
/// assert_ne!(one.value(), other.value());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceHash(u64);

impl TraceHash {
    /// The hash of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds one word.
    pub fn u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Adds octets with their count.
    pub fn octets(&mut self, octets: &[u8]) {
        self.u64(octets.len() as u64);
        let (words, rest) = octets.as_chunks::<8>();
        for word in words {
            self.u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let last = rest
                .iter()
                .rev()
                .fold(0, |word, octet| word << 8 | u64::from(*octet));
            self.u64(last);
        }
    }

    /// Adds text: its octets with their count.
    pub fn str(&mut self, text: &str) {
        self.octets(text.as_bytes());
    }

    /// Adds a virtual time, as [`Clock::elapsed`](crate::Clock::elapsed) gives
    /// it; an `Instant` itself differs from run to run.
    pub fn time(&mut self, elapsed: Duration) {
        self.u64(elapsed.as_secs());
        self.u64(u64::from(elapsed.subsec_nanos()));
    }

    /// The hash of everything added so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        mix(self.0)
    }
}

impl Default for TraceHash {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TraceHash({:016x})", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: impl Fn(&mut TraceHash)) -> u64 {
        let mut hash = TraceHash::new();
        add(&mut hash);
        hash.value()
    }

    #[test]
    fn sees_every_bit_of_the_octets() {
        let octets = [0x5a_u8; 21];
        let plain = of(|h| h.octets(&octets));
        for bit in 0..octets.len() * 8 {
            let mut flipped = octets;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(|h| h.octets(&flipped)), plain, "bit {bit}");
        }
    }

    #[test]
    fn sees_order_padding_and_boundaries() {
        assert_ne!(
            of(|h| {
                h.u64(1);
                h.u64(2)
            }),
            of(|h| {
                h.u64(2);
                h.u64(1)
            })
        );
        assert_ne!(of(|h| h.octets(&[1])), of(|h| h.octets(&[1, 0])));
        assert_ne!(of(|h| h.octets(&[])), of(|_| ()));
    }

    #[test]
    fn top_bits_of_two_words_do_not_cancel() {
        let top = 1 << 63;
        assert_ne!(
            of(|h| {
                h.u64(0);
                h.u64(0)
            }),
            of(|h| {
                h.u64(top);
                h.u64(top)
            })
        );
    }

    #[test]
    fn the_same_events_give_the_same_value() {
        let events = |h: &mut TraceHash| {
            h.time(Duration::from_millis(1_500));
            h.str("open");
        };
        assert_eq!(of(events), of(events));
    }
}
