//! The erasure code alone: as ratios to AES-256-CTR over the same octets in the same run.
//! `benches/others` has it beside other crates.
//!
//! `cargo bench -p vmdt-ssms --bench coding`; `ROUNDS=11` for a quick look.

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
use support::Table;
use vmdt_ssms::Threshold;
use vmdt_ssms::dispersal::Code;

fn main() {
    for (k, n) in [(3, 5), (7, 10)] {
        for size in [1 << 10, 3 << 10, 64 << 10, 1 << 20] {
            coding(k, n, size);
        }
    }
}

fn coding(k: u8, n: u8, size: usize) {
    let code = Code::new(Threshold::new(k, n).unwrap());
    let (data_count, parity_count) = (usize::from(k), usize::from(n - k));
    // An even length: `reed-solomon-simd` takes no other.
    let len = size.div_ceil(data_count).next_multiple_of(2);
    let mut text = vec![0x5au8; size];
    let all = code.disperse(
        &(0..len * data_count)
            .map(|i| (i * 167) as u8)
            .collect::<Vec<_>>(),
    );
    let data: Vec<&[u8]> = all[..data_count].iter().map(|p| &p[..]).collect();
    let index = |i: usize| NonZeroU8::new(i as u8).unwrap();

    let mut out = vec![0; len * parity_count];
    // The worst loss: as many data pieces as there are parity pieces.
    let present: Vec<NonZeroU8> = (parity_count + 1..=usize::from(n)).map(index).collect();
    let missing: Vec<NonZeroU8> = (1..=parity_count).map(index).collect();
    let pieces: Vec<&[u8]> = all[parity_count..].iter().map(|p| &p[..]).collect();
    let mut back = vec![0; len * parity_count];
    let recovery = code.recovery(&present, &missing).unwrap();
    let mut kept = vec![0; len * parity_count];

    let asked = |of: f64, at_mib: f64| match (k, size) {
        (3, 0x1_0000) => Some(of),
        (3, 0x10_0000) => Some(at_mib),
        _ => None,
    };
    let mut table = Table::new(format!("coding {k} of {n}, {size} octets"), size);
    table.case("AES-256-CTR, in place", 0, None, || {
        Ctr32BE::<Aes256>::new(&[7; 32].into(), &[9; 16].into()).apply_keystream(&mut text);
    });
    table.case("encode", 0, asked(3.3, 3.0), || {
        let mut parity: Vec<&mut [u8]> = out.chunks_mut(len).collect();
        code.encode(&data, &mut parity).unwrap();
    });
    table.case(
        "decode, worst loss, matrix included",
        0,
        asked(2.5, 2.5),
        || {
            let recovery = code.recovery(&present, &missing).unwrap();
            let mut wanted: Vec<&mut [u8]> = back.chunks_mut(len).collect();
            recovery.apply(&pieces, &mut wanted).unwrap();
        },
    );
    table.case("decode, worst loss, matrix kept", 0, None, || {
        let mut wanted: Vec<&mut [u8]> = kept.chunks_mut(len).collect();
        recovery.apply(&pieces, &mut wanted).unwrap();
    });
    table.print();
}
