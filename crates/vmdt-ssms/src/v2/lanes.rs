//! BLAKE3 of many inputs of one length at once.
//!
//! The `blake3` crate works on up to 16 chunks of one input side by side, and a shorter rest takes
//! nearly as long as 16. The bodies of a segment have one length and seldom a multiple of 16 KiB,
//! and their heads are two blocks each. Here the 16 lanes are filled from all inputs together; the
//! hashes are the same. Only where there is AVX-512: narrower units leave less of a rest idle.

use alloc::vec::Vec;

use blake3::CHUNK_LEN;
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::digest::Digest;

/// How many octets of a body are hashed at a time while there are as many: a subtree.
pub(crate) const STRIP: usize = 64 << 10;
/// How many octets of one body keep 16 lanes busy.
const FULL: usize = 16 << 10;

/// The hashes of inputs that all have the same length, in their order: plain ones, or keyed.
pub(crate) fn hashes(inputs: &[&[u8]], key: Option<&Digest>) -> Vec<Digest> {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if let Some(token) = fearless_simd::Level::new().as_avx512() {
        return wide::hashes(token, inputs, key);
    }
    one_by_one(inputs, key)
}

/// The hashes of bodies of one length.
pub(crate) fn bodies(bodies: &[&[u8]]) -> Vec<Digest> {
    let len = bodies.first().map_or(0, |body| body.len());
    // A few chunks of a few bodies are too little for 16 lanes.
    if len.is_multiple_of(FULL) || len * bodies.len() <= 2 * CHUNK_LEN {
        return one_by_one(bodies, None);
    }
    let mut hashes = Bodies::new(bodies.len(), len);
    let mut at = 0;
    while len - at > STRIP {
        hashes.strip(bodies.iter().filter_map(|body| body.get(at..at + STRIP)));
        at += STRIP;
    }
    let rest = bodies.iter().filter_map(|body| body.get(at..));
    hashes.finish(&rest.collect::<Vec<&[u8]>>())
}

fn one_by_one(inputs: &[&[u8]], key: Option<&Digest>) -> Vec<Digest> {
    let hash = |input: &&[u8]| match key {
        Some(key) => *blake3::keyed_hash(key, input).as_bytes(),
        None => *blake3::hash(input).as_bytes(),
    };
    inputs.iter().map(hash).collect()
}

/// The hashes of bodies of one length, fed while their octets are in the cache.
pub(crate) struct Bodies {
    /// The chaining values of the strips so far, each strip of all bodies after the one before.
    strips: Vec<Digest>,
    count: usize,
}

impl Bodies {
    /// For `count` bodies of `len` octets.
    pub(crate) fn new(count: usize, len: usize) -> Bodies {
        Bodies {
            strips: Vec::with_capacity(count * len.div_ceil(STRIP)),
            count,
        }
    }

    /// The next [`STRIP`] octets of every body. More octets must follow in all.
    pub(crate) fn strip<'a>(&mut self, octets: impl Iterator<Item = &'a [u8]>) {
        let number = self.strips.len() / self.count.max(1);
        for octets in octets {
            debug_assert_eq!(octets.len(), STRIP);
            self.strips.push(subtree(octets, number * STRIP));
        }
    }

    /// What is left of every body: at most [`STRIP`] octets.
    pub(crate) fn finish(self, rest: &[&[u8]]) -> Vec<Digest> {
        let number = self.strips.len() / self.count.max(1);
        let last = subtrees(rest, number * STRIP, number == 0);
        if number == 0 {
            return last;
        }
        let width = number + 1;
        let mut nodes = alloc::vec![[0; 32]; self.count * width];
        let rows = self.strips.chunks(self.count).chain([&last[..]]);
        for (at, row) in rows.enumerate() {
            for (to, value) in nodes.iter_mut().skip(at).step_by(width).zip(row) {
                *to = *value;
            }
        }
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if let Some(token) = fearless_simd::Level::new().as_avx512() {
            return wide::above_all(token, nodes, width, true);
        }
        nodes.chunks_mut(width).map(root).collect()
    }
}

/// The chaining values of subtrees of one length, at most [`STRIP`], that begin at octet `offset`
/// of their bodies; or the hashes, if they are all of them.
fn subtrees(inputs: &[&[u8]], offset: usize, whole: bool) -> Vec<Digest> {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if let Some(token) = fearless_simd::Level::new().as_avx512() {
        let len = inputs.first().map_or(0, |input| input.len());
        if len == 0 || !len.is_multiple_of(FULL) {
            // What keeps the lanes busy by itself is left to the crate.
            let full = len / FULL;
            let (width, rest_at) = (full + 1, full * FULL);
            let rest: Vec<&[u8]> = inputs.iter().filter_map(|i| i.get(rest_at..)).collect();
            if full == 0 {
                return wide::subtrees(token, &rest, offset as u64 / 1024, whole);
            }
            let last = wide::subtrees(token, &rest, (offset + rest_at) as u64 / 1024, false);
            let mut nodes = Vec::with_capacity(inputs.len() * width);
            for (input, last) in inputs.iter().zip(last) {
                let parts = input.chunks_exact(FULL).enumerate();
                nodes.extend(parts.map(|(at, part)| subtree(part, offset + at * FULL)));
                nodes.push(last);
            }
            return wide::above_all(token, nodes, width, whole);
        }
    }
    if whole {
        one_by_one(inputs, None)
    } else {
        inputs.iter().map(|input| subtree(input, offset)).collect()
    }
}

/// The chaining value of a subtree that begins at octet `offset` of its body and is not all of it.
fn subtree(octets: &[u8], offset: usize) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset as u64);
    hasher.update(octets).finalize_non_root()
}

/// The hash above the chaining values of a body's strips, of which there are two at least.
///
/// Neighbours are paired, and what is left over goes up as it is: that is BLAKE3's tree.
fn root(nodes: &mut [Digest]) -> Digest {
    let mut width = nodes.len();
    while width > 2 {
        for pair in 0..width / 2 {
            if let Some([left, right]) = nodes.get(2 * pair..2 * pair + 2) {
                let parent = merge_subtrees_non_root(left, right, Mode::Hash);
                if let Some(to) = nodes.get_mut(pair) {
                    *to = parent;
                }
            }
        }
        if width % 2 == 1 {
            nodes.swap(width / 2, width - 1);
        }
        width = width.div_ceil(2);
    }
    match nodes {
        [left, right, ..] => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
        _ => [0; 32],
    }
}

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod wide;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_crate_at_every_shape_of_the_tree() {
        let text: Vec<u8> = (0..200_000usize)
            .map(|i| ((i * 131) ^ (i >> 8)) as u8)
            .collect();
        let lens = (0..200).chain((256..9_000).step_by(61));
        let lens = lens.chain([
            1_023, 1_024, 1_025, 2_048, 2_049, 3_072, 16_384, 16_385, 21_846,
        ]);
        for len in lens.chain([
            31_744, 32_768, 49_152, 60_001, 65_536, 65_537, 81_920, 131_072, 150_001,
        ]) {
            for count in [1, 2, 5, 17] {
                let inputs: Vec<&[u8]> = (0..count).map(|i| &text[i * 7..][..len]).collect();
                for key in [None, Some(&[7; 32])] {
                    let want = one_by_one(&inputs, key);
                    assert!(hashes(&inputs, key) == want, "{count} of {len} octets");
                    if key.is_none() {
                        assert!(bodies(&inputs) == want, "{count} of {len} octets");
                    }
                }
            }
        }
    }

    #[test]
    fn the_portable_tree_is_the_same() {
        let text: Vec<u8> = (0..12 * STRIP)
            .map(|i| ((i * 131) ^ (i >> 8)) as u8)
            .collect();
        for len in [
            STRIP + 1,
            2 * STRIP,
            2 * STRIP + 1,
            5 * STRIP - 3,
            11 * STRIP,
            12 * STRIP,
        ] {
            let mut nodes: Vec<Digest> = text[..len]
                .chunks(STRIP)
                .enumerate()
                .map(|(number, octets)| subtree(octets, number * STRIP))
                .collect();
            assert_eq!(root(&mut nodes), *blake3::hash(&text[..len]).as_bytes());
        }
    }
}
