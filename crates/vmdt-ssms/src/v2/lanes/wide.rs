//! BLAKE3 in 16 lanes of 32 bits, with AVX-512.

use alloc::vec;
use alloc::vec::Vec;
use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use fearless_simd::{Avx512, prelude::*, u8x64, u32x16};

use crate::v2::digest::{DIGEST_LEN, Digest};

const LANES: usize = 16;
const BLOCK: usize = 64;
const CHUNK: usize = 1024;

const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;
const KEYED: u32 = 16;

/// Which word of the message each of the 16 additions of a round takes.
#[allow(clippy::indexing_slicing, reason = "computed by the compiler")]
const SCHEDULE: [[usize; 16]; 7] = {
    const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let mut schedule = [[0; 16]; 7];
    let mut i = 0;
    while i < 16 {
        schedule[0][i] = i;
        i += 1;
    }
    let mut round = 1;
    while round < 7 {
        let mut i = 0;
        while i < 16 {
            schedule[round][i] = schedule[round - 1][PERMUTATION[i]];
            i += 1;
        }
        round += 1;
    }
    schedule
};

/// The key and the flags of all blocks of a hash.
#[derive(Clone, Copy)]
struct Mode {
    key: [u32; 8],
    flags: u32,
}

pub(super) fn hashes(token: Avx512, inputs: &[&[u8]], key: Option<&Digest>) -> Vec<Digest> {
    let mut mode = Mode { key: IV, flags: 0 };
    if let Some(key) = key {
        for (word, octets) in mode.key.iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*octets);
        }
        mode.flags = KEYED;
    }
    let (nodes, width) = chunks(token, inputs, mode, 0, ROOT);
    above(token, nodes, width, mode, ROOT)
}

/// The chaining values of subtrees of one length that begin with chunk number `first`, or the
/// hashes if they are all there is.
pub(super) fn subtrees(token: Avx512, inputs: &[&[u8]], first: u64, whole: bool) -> Vec<Digest> {
    let mode = Mode { key: IV, flags: 0 };
    let root = if whole { ROOT } else { 0 };
    let (nodes, width) = chunks(token, inputs, mode, first, root);
    above(token, nodes, width, mode, root)
}

/// What is above `width` chaining values each: hashes if they are all there is.
pub(super) fn above_all(
    token: Avx512,
    nodes: Vec<Digest>,
    width: usize,
    whole: bool,
) -> Vec<Digest> {
    let root = if whole { ROOT } else { 0 };
    above(token, nodes, width, Mode { key: IV, flags: 0 }, root)
}

/// The chaining values of all chunks, and how many each input has. One that is alone gets the
/// flag `root`.
fn chunks(
    token: Avx512,
    inputs: &[&[u8]],
    mode: Mode,
    first: u64,
    root: u32,
) -> (Vec<Digest>, usize) {
    let len = inputs.first().map_or(0, |input| input.len());
    let count = len.div_ceil(CHUNK).max(1);
    let root = if count == 1 { root } else { 0 };
    // Every input's chaining values, one input after the other.
    let mut nodes = vec![[0; DIGEST_LEN]; inputs.len() * count];
    let ends = Ends {
        flags: root,
        start: CHUNK_START,
        end: CHUNK_END,
    };
    // Whole chunks first, and then what is left of each input.
    let whole = len / CHUNK;
    let lane = |i: usize, number: usize| {
        let octets = inputs.get(i).and_then(|input| input.get(number * CHUNK..));
        let octets = octets.unwrap_or_default();
        Lane {
            octets: octets.split_at(octets.len().min(CHUNK)).0,
            number: first + number as u64,
            to: i * count + number,
        }
    };
    let all = (0..inputs.len()).flat_map(|i| (0..whole).map(move |number| (i, number)));
    let rest = (0..inputs.len())
        .map(|i| (i, whole))
        .filter(|_| whole < count);
    let lanes = all.chain(rest).map(|(i, number)| lane(i, number));
    batches(token, mode, ends, lanes, &mut nodes);
    (nodes, count)
}

/// Goes up the trees of `width` nodes each, all at once.
fn above(
    token: Avx512,
    mut nodes: Vec<Digest>,
    mut width: usize,
    mode: Mode,
    root: u32,
) -> Vec<Digest> {
    let count = nodes.len() / width.max(1);
    while width > 1 {
        let above = width.div_ceil(2);
        let mut parents = vec![[0; DIGEST_LEN]; count * above];
        let ends = Ends {
            flags: PARENT | if width == 2 { root } else { 0 },
            start: 0,
            end: 0,
        };
        let octets = nodes.as_flattened();
        let pairs = (0..count).flat_map(|i| {
            (0..width / 2).map(move |pair| {
                let from = (i * width + 2 * pair) * DIGEST_LEN;
                Lane {
                    octets: octets.get(from..from + BLOCK).unwrap_or_default(),
                    number: 0,
                    to: i * above + pair,
                }
            })
        });
        batches(token, mode, ends, pairs, &mut parents);
        if width % 2 == 1 {
            for (row, above) in nodes.chunks(width).zip(parents.chunks_mut(above)) {
                if let (Some(from), Some(to)) = (row.last(), above.last_mut()) {
                    *to = *from;
                }
            }
        }
        (nodes, width) = (parents, above);
    }
    nodes
}

/// One chunk or pair of chaining values.
#[derive(Clone, Copy)]
struct Lane<'a> {
    octets: &'a [u8],
    number: u64,
    /// Where its chaining value goes.
    to: usize,
}

/// The flags of all blocks, of the first one and of the last.
#[derive(Clone, Copy)]
struct Ends {
    flags: u32,
    start: u32,
    end: u32,
}

/// The chaining values of lanes, of which the last ones can be shorter than the others but not
/// than each other.
fn batches<'a>(
    token: Avx512,
    mode: Mode,
    ends: Ends,
    mut lanes: impl Iterator<Item = Lane<'a>>,
    nodes: &mut [Digest],
) {
    const IDLE: Lane<'static> = Lane {
        octets: &[],
        number: 0,
        to: 0,
    };
    loop {
        let mut batch = [IDLE; LANES];
        let mut filled = 0;
        for (slot, lane) in batch.iter_mut().zip(&mut lanes) {
            *slot = lane;
            filled += 1;
        }
        if filled == 0 {
            return;
        }
        // Idle lanes do what the last one does.
        let last = batch.get(filled - 1).copied().unwrap_or(IDLE);
        for lane in batch.iter_mut().skip(filled) {
            *lane = last;
        }
        let values = chain(token, mode, ends, &batch);
        for (value, lane) in values.iter().zip(&batch).take(filled) {
            if let Some(to) = nodes.get_mut(lane.to) {
                *to = *value;
            }
        }
    }
}

macro_rules! mix {
    ($v:ident, $m:ident, $a:literal, $b:literal, $c:literal, $d:literal, $x:expr, $y:expr) => {
        $v[$a] = _mm512_add_epi32(_mm512_add_epi32($v[$a], $m[$x]), $v[$b]);
        $v[$d] = _mm512_ror_epi32::<16>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi32($v[$c], $v[$d]);
        $v[$b] = _mm512_ror_epi32::<12>(_mm512_xor_si512($v[$b], $v[$c]));
        $v[$a] = _mm512_add_epi32(_mm512_add_epi32($v[$a], $m[$y]), $v[$b]);
        $v[$d] = _mm512_ror_epi32::<8>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi32($v[$c], $v[$d]);
        $v[$b] = _mm512_ror_epi32::<7>(_mm512_xor_si512($v[$b], $v[$c]));
    };
}

macro_rules! round {
    ($v:ident, $m:ident, $round:literal) => {
        mix!(
            $v,
            $m,
            0,
            4,
            8,
            12,
            SCHEDULE[$round][0],
            SCHEDULE[$round][1]
        );
        mix!(
            $v,
            $m,
            1,
            5,
            9,
            13,
            SCHEDULE[$round][2],
            SCHEDULE[$round][3]
        );
        mix!(
            $v,
            $m,
            2,
            6,
            10,
            14,
            SCHEDULE[$round][4],
            SCHEDULE[$round][5]
        );
        mix!(
            $v,
            $m,
            3,
            7,
            11,
            15,
            SCHEDULE[$round][6],
            SCHEDULE[$round][7]
        );
        mix!(
            $v,
            $m,
            0,
            5,
            10,
            15,
            SCHEDULE[$round][8],
            SCHEDULE[$round][9]
        );
        mix!(
            $v,
            $m,
            1,
            6,
            11,
            12,
            SCHEDULE[$round][10],
            SCHEDULE[$round][11]
        );
        mix!(
            $v,
            $m,
            2,
            7,
            8,
            13,
            SCHEDULE[$round][12],
            SCHEDULE[$round][13]
        );
        mix!(
            $v,
            $m,
            3,
            4,
            9,
            14,
            SCHEDULE[$round][14],
            SCHEDULE[$round][15]
        );
    };
}

/// Four rows of words from four rows of lanes, within each 128 bits.
macro_rules! quarter {
    ($a:expr, $b:expr, $c:expr, $d:expr) => {{
        let (ab, cd) = (_mm512_unpacklo_epi32($a, $b), _mm512_unpacklo_epi32($c, $d));
        let (xy, zw) = (_mm512_unpackhi_epi32($a, $b), _mm512_unpackhi_epi32($c, $d));
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(xy, zw),
            _mm512_unpackhi_epi64(xy, zw),
        ]
    }};
}

/// The words `$w`, `$w + 4`, `$w + 8` and `$w + 12` of all lanes.
macro_rules! gather {
    ($m:ident, $w:literal, $a:ident, $b:ident, $c:ident, $d:ident) => {
        let low = _mm512_shuffle_i32x4::<0x88>($a[$w], $b[$w]);
        let high = _mm512_shuffle_i32x4::<0xdd>($a[$w], $b[$w]);
        let low2 = _mm512_shuffle_i32x4::<0x88>($c[$w], $d[$w]);
        let high2 = _mm512_shuffle_i32x4::<0xdd>($c[$w], $d[$w]);
        $m[$w] = _mm512_shuffle_i32x4::<0x88>(low, low2);
        $m[$w + 4] = _mm512_shuffle_i32x4::<0x88>(high, high2);
        $m[$w + 8] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
        $m[$w + 12] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
    };
}

fearless_simd::kernel!(
    /// The chaining values of 16 lanes.
    #[allow(
        clippy::indexing_slicing,
        reason = "constant indices into arrays of 4 to 16"
    )]
    fn chain(token: Avx512, mode: Mode, ends: Ends, batch: &[Lane<'_>; LANES]) -> [Digest; LANES] {
        let all = |word: u32| _mm512_set1_epi32(word.cast_signed());
        let key = mode.key;
        let mut h = [
            all(key[0]),
            all(key[1]),
            all(key[2]),
            all(key[3]),
            all(key[4]),
            all(key[5]),
            all(key[6]),
            all(key[7]),
        ];
        let (mut low, mut high) = ([0; LANES], [0; LANES]);
        for ((low, high), lane) in low.iter_mut().zip(&mut high).zip(batch) {
            *low = lane.number as u32;
            *high = (lane.number >> 32) as u32;
        }
        let low: __m512i = u32x16::load_array(token, low).into();
        let high: __m512i = u32x16::load_array(token, high).into();
        // The lanes have one length, or some are long and the others short.
        let (len, short) = (batch[0].octets.len(), batch[LANES - 1].octets.len());
        let blocks = |len: usize| len.div_ceil(BLOCK).max(1);
        let mut early = h;
        for block in 0..blocks(len) {
            let from = block * BLOCK;
            // A chunk that is all there is is the root only in its last block.
            let start = if block == 0 { ends.start } else { 0 };
            let at = |len: usize| {
                let last = block + 1 == blocks(len);
                let end = if last {
                    ends.flags | ends.end
                } else {
                    ends.flags & !ROOT
                };
                let used = BLOCK.min(len.saturating_sub(from));
                (used as u32, mode.flags | start | end)
            };
            let (used, flags) = at(len);
            let (mut used, mut flags) = (all(used), all(flags));
            if short < len && block + 1 == blocks(short) {
                let (mut of_each, mut flags_of_each) = ([0; LANES], [0; LANES]);
                for ((used, flags), lane) in of_each.iter_mut().zip(&mut flags_of_each).zip(batch) {
                    (*used, *flags) = at(lane.octets.len());
                }
                used = u32x16::load_array(token, of_each).into();
                flags = u32x16::load_array(token, flags_of_each).into();
            }
            let mut m = [_mm512_setzero_si512(); 16];
            for (row, lane) in m.iter_mut().zip(batch) {
                *row = match lane.octets.get(from..from + BLOCK) {
                    Some(octets) => u8x64::from_slice(token, octets).into(),
                    None => {
                        let mut padded = [0; BLOCK];
                        let rest = lane.octets.get(from..).unwrap_or_default();
                        for (to, octet) in padded.iter_mut().zip(rest) {
                            *to = *octet;
                        }
                        u8x64::load_array(token, padded).into()
                    }
                };
            }
            let a = quarter!(m[0], m[1], m[2], m[3]);
            let b = quarter!(m[4], m[5], m[6], m[7]);
            let c = quarter!(m[8], m[9], m[10], m[11]);
            let d = quarter!(m[12], m[13], m[14], m[15]);
            gather!(m, 0, a, b, c, d);
            gather!(m, 1, a, b, c, d);
            gather!(m, 2, a, b, c, d);
            gather!(m, 3, a, b, c, d);

            let mut v = [
                h[0],
                h[1],
                h[2],
                h[3],
                h[4],
                h[5],
                h[6],
                h[7],
                all(IV[0]),
                all(IV[1]),
                all(IV[2]),
                all(IV[3]),
                low,
                high,
                used,
                flags,
            ];
            round!(v, m, 0);
            round!(v, m, 1);
            round!(v, m, 2);
            round!(v, m, 3);
            round!(v, m, 4);
            round!(v, m, 5);
            round!(v, m, 6);
            for i in 0..8 {
                h[i] = _mm512_xor_si512(v[i], v[i + 8]);
            }
            if block + 1 == blocks(short) {
                early = h;
            }
        }
        let (mut words, mut early_words) = ([[0u32; LANES]; 8], [[0u32; LANES]; 8]);
        for i in 0..8 {
            let (h, early): (u32x16<Avx512>, u32x16<Avx512>) =
                (h[i].simd_into(token), early[i].simd_into(token));
            h.store_array(&mut words[i]);
            early.store_array(&mut early_words[i]);
        }
        let mut digests = [[0; DIGEST_LEN]; LANES];
        for (lane, digest) in digests.iter_mut().enumerate() {
            let words = if batch[lane].octets.len() < len {
                &early_words
            } else {
                &words
            };
            for (octets, words) in digest.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *octets = words[lane].to_le_bytes();
            }
        }
        digests
    }
);
