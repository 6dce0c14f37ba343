//! Splitting and joining as ratios to AES-256-CTR over the same octets in the same run.
//!
//! The base is raw AES-256-CTR in place, key set-up included, by the crate that the shares are
//! made with. `cargo bench -p vmdt-ssms --bench ratios`; `ROUNDS=11` for a quick look, and a name
//! (`split`, `join`, `dispersed`, `digest`) to run one part.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod support;

use std::num::NonZeroU8;

use aes::Aes256;
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use support::Table;
use vmdt_ssms::dispersal::Code;
use vmdt_ssms::v2::{Collector, Envelope, PartyId, Recipient, Sealer};
use vmdt_ssms::{
    HEAD_LEN, Share, Threshold, reconstruct, reconstruct_owned, split, split_packed, split_slice,
};

fn raw(buffer: &mut [u8]) {
    Ctr32BE::<Aes256>::new(&[7; 32].into(), &[9; 16].into()).apply_keystream(buffer);
}

fn threshold(k: u8, n: u8) -> Threshold {
    Threshold::new(k, n).unwrap()
}

fn main() {
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("split") {
        for size in [64, 1 << 10, 64 << 10, 1 << 20, 16 << 20] {
            replicated_split(size);
        }
    }
    if wanted("join") {
        for size in [1 << 10, 64 << 10, 1 << 20] {
            replicated_join(size);
        }
    }
    if wanted("dispersed") {
        for size in [1_200, 64 << 10, 256 << 10, 1 << 20, 16 << 20] {
            dispersed(3, 5, size);
        }
        for size in [64 << 10, 1 << 20] {
            dispersed(7, 10, size);
        }
    }
    if wanted("digest") {
        for size in [
            64,
            1 << 10,
            64 << 10,
            128 << 10,
            192 << 10,
            512 << 10,
            1 << 20,
        ] {
            verifiable(size);
        }
    }
}

fn replicated_split(size: usize) {
    let mut text = vec![0x5a; size];
    let message = vec![0x5a; size];
    let mut buffer = message.clone();
    let mut wide_buffer = message.clone();
    let (mut a, mut b) = (ChaCha8Rng::seed_from_u64(1), ChaCha8Rng::seed_from_u64(2));
    let mut c = ChaCha8Rng::seed_from_u64(3);
    let (mut d, mut e) = (ChaCha8Rng::seed_from_u64(4), ChaCha8Rng::seed_from_u64(5));
    let (owned, slice) = match size {
        64 => (0.40, 0.40),
        1024 => (0.55, 0.55),
        _ => (0.95, 0.93),
    };
    let owned_split = |n, buffer: &mut Vec<u8>, rng: &mut ChaCha8Rng| {
        let shares = split(threshold(3, n), std::mem::take(buffer), rng).unwrap();
        let body = shares[0].body().clone();
        drop(shares);
        // The only reference left: the buffer comes back without a copy.
        *buffer = Vec::from(body);
    };
    let mut table = Table::new(format!("v1 split, 3 of 5, {size} octets"), size);
    table.case("AES-256-CTR, in place", 0, None, || raw(&mut text));
    table.case("buffer handed over", 0, Some(owned), || {
        owned_split(5, &mut buffer, &mut a);
    });
    table.case("from a slice", 0, Some(slice), || {
        split_slice(threshold(3, 5), &message, &mut b).unwrap()
    });
    if size <= 1024 {
        table.case("packed", 0, Some(slice), || {
            split_packed(threshold(3, 5), &message, &mut d).unwrap()
        });
        table.case("from a slice, as octets", 0, None, || {
            let shares = split_slice(threshold(3, 5), &message, &mut e).unwrap();
            shares.iter().map(Share::to_bytes).collect::<Vec<_>>()
        });
    }
    if size >= 64 << 10 {
        table.case("n = 32, against n = 5", 1, Some(0.95), || {
            owned_split(32, &mut wide_buffer, &mut c);
        });
    }
    table.print();
}

fn replicated_join(size: usize) {
    let mut text = vec![0x5a; size];
    let shares = split(
        threshold(3, 5),
        vec![0x5a; size],
        &mut ChaCha8Rng::seed_from_u64(1),
    )
    .unwrap();
    let heads: Vec<[u8; HEAD_LEN]> = shares.iter().map(|share| *share.head()).collect();
    let mut body = bytes::Bytes::from(shares[0].body().to_vec());
    let mut checked = bytes::Bytes::from(shares[0].body().to_vec());
    let owned = |body: &mut bytes::Bytes| {
        let octets = std::mem::take(body);
        let given: Vec<Share> = heads[..3]
            .iter()
            .map(|head| Share::from_parts(*head, octets.clone()).unwrap())
            .collect();
        drop(octets);
        // The body is the only one, so it is decrypted in place; the result is the next body.
        *body = reconstruct_owned(given).unwrap();
    };
    let high = (size >= 64 << 10).then_some(0.95);
    let low = (size >= 64 << 10).then_some(0.50);
    let mut table = Table::new(format!("v1 join, 3 of 5, {size} octets"), size);
    table.case("AES-256-CTR, in place", 0, None, || raw(&mut text));
    table.case("in place (reconstruct_owned)", 0, high, || owned(&mut body));
    table.case("with a BLAKE3 check of the body", 0, low, || {
        let hash = blake3::hash(&checked);
        owned(&mut checked);
        hash
    });
    table.case("to a new buffer (reconstruct)", 0, None, || {
        reconstruct(&shares[..3]).unwrap()
    });
    table.print();
}

fn dispersed(k: u8, n: u8, size: usize) {
    let code = Code::new(threshold(k, n));
    let mut text = vec![0x5a; size];
    let message = vec![0x5a; size];
    let pieces = code.seal(&[7; 32], &message);
    let pieces: Vec<(NonZeroU8, &[u8])> = (1..=n)
        .map(|i| NonZeroU8::new(i).unwrap())
        .zip(pieces.iter().map(|piece| &piece[..]))
        .collect();
    let (first, last) = (&pieces[..usize::from(k)], &pieces[usize::from(n - k)..]);
    let mut buffer = vec![0x5a; size + usize::from(k)];
    buffer.truncate(size);
    let split_asked = match (k, size) {
        (_, 1_200) => None,
        (7, _) => Some(0.70),
        (_, 0x100_0000) => Some(0.65),
        _ => Some(0.75),
    };
    let big = size > 1_200 && size < 16 << 20 && k == 3;
    let mut table = Table::new(format!("dispersed, {k} of {n}, {size} octets"), size);
    table.case("AES-256-CTR, in place", 0, None, || raw(&mut text));
    table.case("split, from a slice", 0, split_asked, || {
        code.seal(&[7; 32], &message)
    });
    table.case("split, buffer handed over", 0, split_asked, || {
        let pieces = code.seal_owned(&[7; 32], std::mem::take(&mut buffer));
        let whole = pieces[0].clone();
        drop(pieces);
        // The first piece is the last reference to the buffer, which comes back without a copy.
        buffer = Vec::from(whole);
        buffer.resize(size, 0x5a);
    });
    table.case("join, no loss", 0, big.then_some(0.90), || {
        code.open(&[7; 32], first, size).unwrap()
    });
    table.case("join, worst loss", 0, big.then_some(0.70), || {
        code.open(&[7; 32], last, size).unwrap()
    });
    table.print();
}

fn verifiable(size: usize) {
    let id = |name: &[u8]| PartyId::new(name).unwrap();
    let envelope = Envelope::new([1; 16], id(b"alice"), Recipient::One(id(b"bob")));
    let sealer = Sealer::new(threshold(3, 5), envelope);
    let mut text = vec![0x5a; size];
    let message = vec![0x5a; size];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let sealed = sealer.seal(&message, &mut rng).unwrap();
    let octets: Vec<bytes::Bytes> = sealed.shares.iter().map(|share| share.to_bytes()).collect();
    let asked = match size {
        0x1_0000 => Some(0.35),
        0x10_0000 => Some(0.38),
        _ => None,
    };
    let collect = |shares: &[bytes::Bytes]| {
        let mut collector = Collector::new(sealed.manifest.clone());
        for share in shares {
            collector.add(share.clone()).unwrap();
        }
        collector.open().unwrap()
    };
    let mut table = Table::new(format!("verifiable (v2), 3 of 5, {size} octets"), size);
    table.case("AES-256-CTR, in place", 0, None, || raw(&mut text));
    table.case("split with a digest of every share", 0, asked, || {
        sealer.seal(&message, &mut rng).unwrap()
    });
    table.case("check 3 and join, no loss", 0, None, || {
        collect(&octets[..3])
    });
    table.case("check 3 and join, worst loss", 0, None, || {
        collect(&octets[2..])
    });
    table.print();
}
