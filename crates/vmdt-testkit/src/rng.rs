//! Seeded randomness: one seed, many independent streams.

use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use crate::TraceHash;

/// A small seeded generator: xoshiro256++ (Blackman and Vigna, 2019), its
/// state filled by SplitMix64 from a 64-bit seed.
///
/// It is fast, its output is the same on every platform, and it is **not**
/// cryptographic: to drive code that asks for a `CryptoRng`, seed a ChaCha
/// generator with [`seed32`](SimRng::seed32).
///
/// [`fork`](SimRng::fork) derives a stream from the generator's *seed* and a
/// label, not from its current position. A draw added in one place therefore
/// shifts nothing in the streams of the others, and forking itself draws
/// nothing.
///
/// ```
/// use vmdt_testkit::SimRng;
///
/// let mut rng = SimRng::from_seed(7);
/// let before = rng.fork("loss").next_u64();
/// rng.next_u64();
/// assert_eq!(rng.fork("loss").next_u64(), before);
/// assert_ne!(rng.fork("jitter").next_u64(), before);
/// ```
#[derive(Clone, Debug)]
pub struct SimRng {
    seed: u64,
    state: [u64; 4],
}

impl SimRng {
    /// A generator whose whole output follows from `seed`; any value will do.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut filler = SplitMix64(seed);
        Self {
            seed,
            state: [filler.next(), filler.next(), filler.next(), filler.next()],
        }
    }

    /// The seed it was made from, for messages about a failing run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let out = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        out
    }

    /// A uniform number in `0..n`, without bias (Lemire's method).
    ///
    /// # Panics
    /// When `n` is 0.
    #[track_caller]
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0): there is no number to choose from");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// True with probability `p`. Draws once, whatever `p` is: 0 or less is
    /// never true, 1 or more always.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// A uniform number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A uniform number in `range`; an open end stands for the type's own.
    ///
    /// # Panics
    /// When the range is empty.
    #[track_caller]
    pub fn range(&mut self, range: impl RangeBounds<u64>) -> u64 {
        let low = match range.start_bound() {
            Bound::Included(&low) => Some(low),
            Bound::Excluded(&low) => low.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let high = match range.end_bound() {
            Bound::Included(&high) => Some(high),
            Bound::Excluded(&high) => high.checked_sub(1),
            Bound::Unbounded => Some(u64::MAX),
        };
        let span = match (low, high) {
            (Some(low), Some(high)) => high.checked_sub(low),
            _ => None,
        };
        assert!(span.is_some(), "range(): the range is empty");
        let low = low.unwrap_or(0);
        match span.unwrap_or(0).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.next_u64(),
        }
    }

    /// A uniform duration in `0..=max`, in whole nanoseconds. A `max` above
    /// 584 years counts as 584 years.
    pub fn duration(&mut self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.range(0..=nanos))
    }

    /// A uniform element, or `None` from an empty slice (which draws nothing).
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Puts the elements in a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// Fills `out` with uniform octets.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let octets = self.next_u64().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(octets) {
                *to = from;
            }
        }
    }

    /// `len` uniform octets.
    #[must_use]
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.fill_bytes(&mut out);
        out
    }

    /// A seed for a machine or a ChaCha generator; draws four times.
    pub fn seed32(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill_bytes(&mut seed);
        seed
    }

    /// An independent generator named `label`. It depends on this generator's
    /// seed and the label alone, so the same label gives the same stream.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        self.fork_indexed(label, 0)
    }

    /// [`fork`](SimRng::fork) for one of many things of the same name: a
    /// stream for each host, link or world.
    #[must_use]
    pub fn fork_indexed(&self, label: &str, index: u64) -> Self {
        let mut hash = TraceHash::new();
        hash.u64(self.seed);
        hash.str(label);
        hash.u64(index);
        Self::from_seed(hash.value())
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): turns any seed, however regular,
/// into well-spread state.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// The finalizer of SplitMix64: a bijection that spreads each input bit over
/// the whole word.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_reference_output_of_xoshiro256plusplus() {
        // First outputs of the authors' C code from the state 1, 2, 3, 4.
        let mut rng = SimRng {
            seed: 0,
            state: [1, 2, 3, 4],
        };
        for expected in [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
        ] {
            assert_eq!(rng.next_u64(), expected);
        }
    }

    #[test]
    fn follows_the_reference_output_of_splitmix64() {
        let mut filler = SplitMix64(1_477_776_061_723_855_037);
        for expected in [
            1_985_237_415_132_408_290,
            2_979_275_885_539_914_483,
            13_511_426_838_097_143_398,
        ] {
            assert_eq!(filler.next(), expected);
        }
    }

    #[test]
    fn below_is_uniform_and_in_bounds() {
        let mut rng = SimRng::from_seed(1);
        let mut counts = [0f64; 7];
        let draws = 70_000;
        for _ in 0..draws {
            counts[rng.below(7) as usize] += 1.0;
        }
        let expected = f64::from(draws) / 7.0;
        let sigma = (expected * (6.0 / 7.0)).sqrt();
        for count in counts {
            assert!((count - expected).abs() < 5.0 * sigma, "{counts:?}");
        }
    }

    #[test]
    fn range_honours_both_kinds_of_ends() {
        let mut rng = SimRng::from_seed(2);
        for _ in 0..200 {
            assert!((3..5).contains(&rng.range(3..5)));
            assert!((3..=5).contains(&rng.range(3..=5)));
            assert_eq!(rng.range(9..=9), 9);
            assert!(rng.range(u64::MAX - 1..) >= u64::MAX - 1);
        }
        rng.range(..);
    }

    #[test]
    #[should_panic(expected = "the range is empty")]
    fn range_refuses_an_empty_range() {
        SimRng::from_seed(0).range(5..5);
    }

    #[test]
    #[should_panic(expected = "below(0)")]
    fn below_refuses_zero() {
        SimRng::from_seed(0).below(0);
    }

    #[test]
    fn chance_is_exact_at_its_ends() {
        let mut rng = SimRng::from_seed(3);
        for _ in 0..1_000 {
            assert!(!rng.chance(0.0));
            assert!(rng.chance(1.0));
        }
    }

    #[test]
    fn fill_bytes_covers_every_length() {
        for len in 0..40 {
            let mut long = [0; 40];
            SimRng::from_seed(4).fill_bytes(&mut long);
            assert_eq!(SimRng::from_seed(4).bytes(len), &long[..len]);
        }
    }

    #[test]
    fn forks_do_not_depend_on_draws_and_differ_from_each_other() {
        let mut parent = SimRng::from_seed(5);
        let first = parent.fork_indexed("host", 1).next_u64();
        let _ = parent.bytes(100);
        assert_eq!(parent.fork_indexed("host", 1).next_u64(), first);

        let mut seen = std::collections::BTreeSet::from([parent.next_u64(), first]);
        for label in ["", "a", "b", "host"] {
            for index in [0, 2, 3] {
                assert!(seen.insert(parent.fork_indexed(label, index).next_u64()));
            }
        }
    }

    #[test]
    fn shuffle_keeps_every_element() {
        let mut items: Vec<u32> = (0..50).collect();
        SimRng::from_seed(6).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn pick_takes_from_the_slice_or_refuses_an_empty_one() {
        let mut rng = SimRng::from_seed(7);
        assert_eq!(rng.pick::<u8>(&[]), None);
        assert_eq!(rng.pick(&[9]), Some(&9));
    }
}
