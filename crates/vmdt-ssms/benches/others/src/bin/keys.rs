//! Sharing a key of 32 octets, 3 of 5, beside other crates: `cargo run --release --bin keys` in
//! `benches/others`.

#[path = "../../../support/mod.rs"]
mod support;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use support::Table;
use vmdt_ssms::{Threshold, shamir};

/// Randomness that is given: octets of a counter, so that the generator's own cost is in no figure.
struct Given(u64);

impl rand_core::TryRng for Given {
    type Error = core::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.try_next_u64().map(|word| word as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        Ok(self.0)
    }
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        for part in to.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            part.copy_from_slice(&self.0.to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Given {}

const KEY: [u8; 32] = [0x5a; 32];

fn main() {
    let threshold = Threshold::new(3, 5).unwrap();
    let (mut ours, mut theirs) = (Given(1), Given(1));
    let mut old = <rand_chacha_03::ChaCha8Rng as rand_08::SeedableRng>::seed_from_u64(1);
    let mut share = shamir_share::ShamirShare::builder(5, 3).build().unwrap();
    let mut table = Table::new("key split, 3 of 5: ratio of our speed to theirs is 1 / ratio", 32);
    table.case("vmdt-ssms", 0, None, || shamir::split_key(&KEY, threshold, &mut ours));
    table.case("vsss-rs 6.0", 0, None, || {
        vsss_rs::Gf256::split_array(3, 5, KEY, &mut theirs).unwrap()
    });
    table.case("blahaj 0.7 (draws its own)", 0, None, || {
        blahaj::Sharks(3).dealer(&KEY).take(5).collect::<Vec<_>>()
    });
    table.case("shamir-vault 1.3", 0, None, || {
        shamir_vault::split(&KEY, 5, 3, &mut old).unwrap()
    });
    table.case("shamirsecretsharing 0.1 (draws its own)", 0, None, || {
        shamirsecretsharing::hazmat::create_keyshares(&KEY, 5, 3).unwrap()
    });
    table.case("shamir_share 0.2 (draws its own)", 0, None, || share.split(&KEY).unwrap());
    table.print();

    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut old = <rand_chacha_03::ChaCha8Rng as rand_08::SeedableRng>::seed_from_u64(2);
    let mut share = shamir_share::ShamirShare::builder(5, 3).build().unwrap();
    let ours = shamir::split_key(&KEY, threshold, &mut rng);
    let points: Vec<_> = ours[..3].iter().map(|s| (s.index(), s.value())).collect();
    let vsss = vsss_rs::Gf256::split_array(3, 5, KEY, &mut rng).unwrap();
    let blahaj: Vec<_> = blahaj::Sharks(3).dealer(&KEY).take(3).collect();
    let vault = shamir_vault::split(&KEY, 5, 3, &mut old).unwrap();
    let hazmat = shamirsecretsharing::hazmat::create_keyshares(&KEY, 5, 3).unwrap();
    let shares = share.split(&KEY).unwrap();
    let mut table = Table::new("key combine, 3 shares: ratio of our speed to theirs is 1 / ratio", 32);
    table.case("vmdt-ssms", 0, None, || shamir::combine_key(&points).unwrap());
    table.case("vsss-rs 6.0", 0, None, || vsss_rs::Gf256::combine_array(&vsss[..3]).unwrap());
    table.case("blahaj 0.7", 0, None, || blahaj::Sharks(3).recover(&blahaj).unwrap());
    table.case("shamir-vault 1.3", 0, None, || shamir_vault::combine(&vault[..3]).unwrap());
    table.case("shamirsecretsharing 0.1", 0, None, || {
        shamirsecretsharing::hazmat::combine_keyshares(&hazmat[..3]).unwrap()
    });
    table.case("shamir_share 0.2", 0, None, || {
        shamir_share::ShamirShare::reconstruct(&shares[..3]).unwrap()
    });
    table.print();
}
