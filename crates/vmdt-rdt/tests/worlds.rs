//! Random worlds over seeds: whatever the link does, each flow arrives exactly, or the session
//! or flow ends with an event that says so; nothing is delivered twice; memory stays within
//! bounds; the same seed gives the same trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::script::run;
use vmdt_testkit::run_seeds;

#[test]
fn every_world_ends_with_exact_octets_or_a_clean_error() {
    run_seeds(0..2_000, |seed| {
        run(seed);
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 17, 202] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).trace, run(2).trace);
}
