//! Runs a world for each of many seeds and names the one that failed.

use std::any::Any;
use std::fmt::Debug;
use std::ops::{Range, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What a world may return: nothing (it panics when it fails) or a `Result`.
pub trait Outcome {
    /// The failure in words, or `None` for success.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Debug> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:?}"))
    }
}

/// Calls `world` with each seed in turn, and stops at the first that panics or
/// returns an error, after writing to standard error
/// `seed N failed: <why>; replay with VMDT_SEED=N`.
///
/// Two environment variables override `seeds`:
/// - `VMDT_SEED` (decimal, or hexadecimal after `0x`): run exactly this seed;
/// - `VMDT_WORLDS`: run this many, from the range's first seed on.
///
/// ```
/// use vmdt_testkit::{SimRng, run_seeds};
///
/// run_seeds(0..20, |seed| {
///     let mut rng = SimRng::from_seed(seed);
///     assert!(rng.below(10) < 10);
/// });
/// ```
///
/// # Panics
/// With the world's own panic, or with its error. Also when there is no seed
/// to run, or a variable holds no number: a run that checks nothing must not
/// pass.
#[track_caller]
#[allow(
    clippy::panic,
    reason = "a failing world must fail the test that runs it"
)]
#[allow(
    clippy::print_stderr,
    reason = "the seed must reach whoever reads the test's output"
)]
pub fn run_seeds<O: Outcome>(seeds: Range<u64>, mut world: impl FnMut(u64) -> O) {
    let seed = std::env::var("VMDT_SEED").ok();
    let worlds = std::env::var("VMDT_WORLDS").ok();
    let plan = match plan(seeds, seed.as_deref(), worlds.as_deref()) {
        Ok(plan) => plan,
        Err(why) => panic!("{why}"),
    };
    for seed in plan {
        // A world that failed is never looked at again.
        match catch_unwind(AssertUnwindSafe(|| world(seed).failure())) {
            Ok(None) => {}
            Ok(Some(why)) => {
                let report = report(seed, &why);
                eprintln!("{report}");
                panic!("{report}");
            }
            Err(payload) => {
                eprintln!("{}", report(seed, words_of(payload.as_ref())));
                resume_unwind(payload);
            }
        }
    }
}

fn report(seed: u64, why: &str) -> String {
    format!("seed {seed} failed: {why}; replay with VMDT_SEED={seed}")
}

fn words_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// The seeds to run, given the values of the two variables.
fn plan(
    seeds: Range<u64>,
    seed: Option<&str>,
    worlds: Option<&str>,
) -> Result<RangeInclusive<u64>, String> {
    if let Some(text) = seed {
        let seed =
            number(text).ok_or_else(|| format!("VMDT_SEED={text:?} is not a 64-bit number"))?;
        return Ok(seed..=seed);
    }
    let count = match worlds {
        Some(text) => {
            number(text).ok_or_else(|| format!("VMDT_WORLDS={text:?} is not a 64-bit number"))?
        }
        None => seeds.end.saturating_sub(seeds.start),
    };
    let Some(further) = count.checked_sub(1) else {
        return Err("there is no seed to run".to_owned());
    };
    let last = seeds
        .start
        .checked_add(further)
        .ok_or_else(|| format!("{count} seeds from {} on do not fit 64 bits", seeds.start))?;
    Ok(seeds.start..=last)
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_stands_without_variables() {
        assert_eq!(plan(3..6, None, None), Ok(3..=5));
    }

    #[test]
    fn a_seed_runs_exactly_one_world() {
        assert_eq!(plan(3..6, Some("17"), Some("100")), Ok(17..=17));
        assert_eq!(plan(3..6, Some("0xff"), None), Ok(255..=255));
        let last = u64::MAX.to_string();
        assert_eq!(plan(3..6, Some(&last), None), Ok(u64::MAX..=u64::MAX));
    }

    #[test]
    fn a_count_replaces_the_length() {
        assert_eq!(plan(3..6, None, Some("10")), Ok(3..=12));
    }

    #[test]
    fn a_run_that_checks_nothing_is_refused() {
        assert!(plan(3..3, None, None).is_err());
        assert!(plan(3..6, None, Some("0")).is_err());
        assert!(plan(3..6, None, Some("many")).is_err());
        assert!(plan(3..6, Some(""), None).is_err());
        assert!(plan(u64::MAX..u64::MAX, None, Some("2")).is_err());
    }

    #[test]
    fn the_report_holds_the_line_that_replays_it() {
        assert_eq!(
            report(17, "lost"),
            "seed 17 failed: lost; replay with VMDT_SEED=17"
        );
    }
}
