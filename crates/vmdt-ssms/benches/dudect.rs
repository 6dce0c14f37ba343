//! Whether time depends on secrets: Welch's t-test between a fixed and a random class of inputs,
//! after O. Reparaz, J. Balasch and I. Verbauwhede, "Dude, is my code constant time?" (DATE 2017).
//!
//! `cargo bench -p vmdt-ssms --bench dudect`; `SAMPLES=100000` for a quick look. |t| below 4.5 is
//! no evidence of a leak; the controls leak on purpose and must be found out.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

use std::hint::black_box;
use std::num::NonZeroU8;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use vmdt_ssms::trailer::{self, TaggedShare};
use vmdt_ssms::{Threshold, shamir};

/// Running mean and variance (B. Welford).
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn t(&self, other: &Moments) -> f64 {
        let part = |m: &Moments| m.squares / (m.count - 1.0) / m.count;
        (self.mean - other.mean) / (part(self) + part(other)).sqrt()
    }
}

/// How many inputs are made at once.
const BATCH: usize = 200;

/// Measures `run` on inputs of two classes in random order, and prints the greatest |t| over all
/// samples and over those below several percentiles: interruptions lengthen the slowest ones.
fn test<I>(
    name: &str,
    must_leak: bool,
    mut input: impl FnMut(bool, &mut ChaCha8Rng) -> I,
    mut run: impl FnMut(&I),
) {
    let samples = std::env::var("SAMPLES").ok().and_then(|s| s.parse().ok());
    let samples: usize = samples.unwrap_or(1_000_000);
    let mut rng = ChaCha8Rng::seed_from_u64(0xd0de);
    let mut times = Vec::with_capacity(samples);
    // Inputs are made a batch ahead: making one leaves traces of its class in branch predictors
    // and pipelines, which must not reach the measurement that follows.
    while times.len() < samples + BATCH {
        let batch: Vec<(bool, I)> = (0..BATCH)
            .map(|_| {
                let class = rng.next_u32() & 1 == 1;
                (class, input(class, &mut rng))
            })
            .collect();
        for (class, input) in &batch {
            let from = Instant::now();
            run(black_box(input));
            times.push((*class, from.elapsed().as_nanos() as f64));
        }
    }
    // The first batch warms up.
    times.drain(..BATCH);
    times.truncate(samples);
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let mut worst = 0.0f64;
    for part in [0.5, 0.75, 0.9, 0.95, 0.99, 1.0] {
        let limit = sorted[((samples - 1) as f64 * part) as usize];
        let mut classes = [Moments::default(); 2];
        for (class, time) in times.iter().filter(|(_, time)| *time <= limit) {
            classes[usize::from(*class)].add(*time);
        }
        let t = classes[0].t(&classes[1]);
        if t.abs() > worst.abs() {
            worst = t;
        }
    }
    let verdict = match (worst.abs() < 4.5, must_leak) {
        (true, false) => "no leak seen",
        (false, true) => "leak found, as it must be",
        (false, false) => "LEAK",
        (true, true) => "LEAK NOT FOUND",
    };
    println!(
        "| {name} | {:.0} | {:.2} | {verdict} |",
        sorted[samples / 2],
        worst.abs()
    );
}

fn octets<const N: usize>(random: bool, rng: &mut ChaCha8Rng) -> [u8; N] {
    let mut drawn = [0; N];
    rng.fill_bytes(&mut drawn);
    // Drawn in both classes, so that what comes before the measurement is the same.
    if random { drawn } else { [0; N] }
}

/// Interpolation at 0 as many crates do it: logarithm tables indexed by key shares, and a branch
/// for zero.
fn leaky_combine(values: &[[u8; 32]; 3], exp: &[u8; 512], log: &[u8; 256]) -> [u8; 32] {
    let weights = [1u8, 2, 3].map(|own| {
        [1u8, 2, 3]
            .into_iter()
            .filter(|&x| x != own)
            .fold(0usize, |sum, x| {
                (sum + usize::from(log[usize::from(x)]) + 255
                    - usize::from(log[usize::from(x ^ own)]))
                    % 255
            })
    });
    let mut key = [0; 32];
    for (i, octet) in key.iter_mut().enumerate() {
        for (value, weight) in values.iter().zip(weights) {
            if value[i] != 0 {
                *octet ^= exp[usize::from(log[usize::from(value[i])]) + weight];
            }
        }
    }
    key
}

fn main() {
    println!("| operation | median ns | greatest t | |\n|---|---|---|---|");
    let threshold = Threshold::new(3, 5).unwrap();

    let mut dealer = ChaCha8Rng::seed_from_u64(1);
    test("key split, 3 of 5", false, octets::<32>, |key| {
        black_box(shamir::split_key(key, threshold, &mut dealer));
    });

    let three = |random: bool, rng: &mut ChaCha8Rng| [(); 3].map(|()| octets::<32>(random, rng));
    test("key combine, 3 shares", false, three, |values| {
        let index = |i| NonZeroU8::new(i).unwrap();
        let points = [1, 2, 3].map(|i| (index(i), &values[usize::from(i) - 1]));
        black_box(shamir::combine_key(&points).unwrap());
    });

    // Tags that are wrong in their first octet against tags that are wrong in their last.
    let genuine = trailer::split(Threshold::new(2, 2).unwrap(), vec![7; 64], &mut dealer).unwrap();
    let octets_of = [0, 1].map(|i: usize| genuine[i].to_bytes().to_vec());
    test(
        "tag check, wrong first or wrong last octet",
        false,
        |class, _| {
            // Made anew for every measurement, so that both classes lie in the same places.
            [0, 1].map(|i: usize| {
                let mut octets = octets_of[i].clone();
                let first = octets.len() - 32;
                octets[first + if class { 31 } else { 0 }] ^= 0xff;
                TaggedShare::parse(octets.into()).unwrap()
            })
        },
        |shares| {
            black_box(trailer::reconstruct(shares).unwrap_err());
        },
    );

    let (mut exp, mut log) = ([0u8; 512], [0u8; 256]);
    let mut value = 1u8;
    for (i, power) in exp.iter_mut().enumerate() {
        *power = value;
        if i < 255 {
            log[usize::from(value)] = i as u8;
        }
        value ^= (value << 1) ^ ((value >> 7) * 0x1b);
    }
    test("control: key combine by tables", true, three, |values| {
        black_box(leaky_combine(values, &exp, &log));
    });
    let reference = [7u8; 4096];
    test(
        "control: comparison that stops early",
        true,
        |class, _| {
            let mut tag = reference;
            tag[if class { 4095 } else { 0 }] ^= 1;
            tag
        },
        |tag| {
            black_box(tag.iter().zip(&reference).all(|(a, b)| a == b));
        },
    );
}
