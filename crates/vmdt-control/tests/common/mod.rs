//! Helpers of the integration tests.
#![allow(dead_code)]

pub(crate) mod world;

use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use vmdt_wire::NodeId;

/// The moment a test begins; everything else is this plus a duration.
#[allow(clippy::disallowed_methods)]
pub(crate) fn base() -> Instant {
    Instant::now()
}

pub(crate) fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// Seeded draws.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    pub(crate) fn new(seed: u64) -> Draw {
        Draw(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
