//! What authentication could be made of, as ratios to AES-256-CTR: `cargo run --release --bin suite`
//! in `benches/others`.

#[path = "../../../support/mod.rs"]
mod support;

use aes::Aes256;
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use support::Table;

fn raw(buffer: &mut [u8]) {
    Ctr32BE::<Aes256>::new(&[7; 32].into(), &[9; 16].into()).apply_keystream(buffer);
}

fn main() {
    for size in [1_200, 64 << 10, 128 << 10, 1 << 20] {
        suite(size);
    }
}

fn suite(size: usize) {
    let (mut text, message) = (vec![0x5a; size], vec![0x5a; size]);
    let mut sealed = message.clone();
    let key = ring::aead::LessSafeKey::new(
        ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &[7; 32]).unwrap(),
    );
    let mut table = Table::new(format!("authentication, {size} octets"), size);
    table.case("AES-256-CTR, in place", 0, None, || raw(&mut text));
    table.case("BLAKE3", 0, None, || blake3::hash(&message));
    table.case("SHA-256 (ring)", 0, None, || {
        ring::digest::digest(&ring::digest::SHA256, &message)
    });
    table.case("AES-256-GCM (ring), in place", 0, None, || {
        let nonce = ring::aead::Nonce::assume_unique_for_key([3; 12]);
        key.seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), &mut sealed)
            .unwrap()
    });
    table.print();
}
