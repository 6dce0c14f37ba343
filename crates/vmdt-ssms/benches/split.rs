//! Split and reconstruct beside raw AES-256-CTR over the same octets, in the same run.
//!
//! Every group has the raw cipher (key set-up included, in place) as its first line, so that the
//! ratio of two lines of one group is the figure to quote; absolute figures do not travel.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;

use aes::Aes256;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_ssms::{Threshold, reconstruct, shamir, split, split_slice};

const SIZES: [usize; 5] = [64, 1 << 10, 16 << 10, 64 << 10, 1 << 20];
const PARAMETERS: [(u8, u8); 3] = [(2, 3), (3, 5), (7, 10)];

fn raw(buffer: &mut [u8]) {
    Ctr32BE::<Aes256>::new(&[7; 32].into(), &[9; 16].into()).apply_keystream(buffer);
}

fn messages(c: &mut Criterion) {
    for size in SIZES {
        let message = vec![0x5a; size];
        let throughput = Throughput::Bytes(size as u64);
        // Few buffers at a time, so that a batch stays in the cache as one message would.
        let batch = if size >= 64 << 10 {
            BatchSize::PerIteration
        } else {
            BatchSize::SmallInput
        };

        let mut group = c.benchmark_group(format!("split/{size}"));
        group.throughput(throughput.clone());
        group.bench_function("raw-aes-256-ctr", |b| {
            b.iter_batched(
                || message.clone(),
                |mut buffer| {
                    raw(&mut buffer);
                    buffer
                },
                batch,
            );
        });
        for (k, n) in PARAMETERS {
            let threshold = Threshold::new(k, n).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            group.bench_function(BenchmarkId::new("owned", format!("{k}-of-{n}")), |b| {
                b.iter_batched(
                    || message.clone(),
                    |buffer| split(threshold, buffer, &mut rng).unwrap(),
                    batch,
                );
            });
            group.bench_function(BenchmarkId::new("slice", format!("{k}-of-{n}")), |b| {
                b.iter_batched(
                    || (),
                    |()| split_slice(threshold, black_box(&message), &mut rng).unwrap(),
                    batch,
                );
            });
        }
        group.finish();

        let mut group = c.benchmark_group(format!("reconstruct/{size}"));
        group.throughput(throughput);
        group.bench_function("raw-aes-256-ctr", |b| {
            b.iter_batched(
                || message.clone(),
                |mut buffer| {
                    raw(&mut buffer);
                    buffer
                },
                batch,
            );
        });
        for (k, n) in PARAMETERS {
            let threshold = Threshold::new(k, n).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(2);
            let shares = split_slice(threshold, &message, &mut rng).unwrap();
            group.bench_function(BenchmarkId::new("k", format!("{k}-of-{n}")), |b| {
                b.iter_batched(
                    || (),
                    |()| reconstruct(black_box(&shares[..usize::from(k)])).unwrap(),
                    batch,
                );
            });
            group.bench_function(BenchmarkId::new("all-n", format!("{k}-of-{n}")), |b| {
                b.iter_batched(|| (), |()| reconstruct(black_box(&shares)).unwrap(), batch);
            });
        }
        group.finish();
    }
}

fn keys(c: &mut Criterion) {
    let mut group = c.benchmark_group("key");
    for (k, n) in PARAMETERS {
        let threshold = Threshold::new(k, n).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        group.bench_function(BenchmarkId::new("split", format!("{k}-of-{n}")), |b| {
            b.iter(|| shamir::split_key(black_box(&[7; 32]), threshold, &mut rng));
        });
        let shares = shamir::split_key(&[7; 32], threshold, &mut rng);
        let points: Vec<_> = shares[..usize::from(k)]
            .iter()
            .map(|share| (share.index(), share.value()))
            .collect();
        group.bench_function(BenchmarkId::new("combine", format!("{k}-of-{n}")), |b| {
            b.iter(|| shamir::combine_key(black_box(&points)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, messages, keys);
criterion_main!(benches);
