//! The replay window against a set of numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use vmdt_seal::replay::{ReplayWindow, Replayed, WINDOW};

/// Numbers near each other, with leaps now and then.
fn numbers() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![
        8 => -100_i64..=100,
        2 => -3_000_i64..=3_000,
        1 => Just(64),
        1 => Just(WINDOW as i64),
        1 => Just(-(WINDOW as i64)),
    ];
    (any::<u32>(), prop::collection::vec(step, 1..400)).prop_map(|(first, steps)| {
        let mut at = u64::from(first);
        let mut numbers = vec![at];
        for step in steps {
            at = at.saturating_add_signed(step);
            numbers.push(at);
        }
        numbers
    })
}

proptest! {
    #[test]
    fn the_window_is_a_set_of_the_last_2048_numbers(numbers in numbers(), forged: u8) {
        let mut window = ReplayWindow::new();
        let mut seen = BTreeSet::new();
        for (at, number) in numbers.into_iter().enumerate() {
            let highest = seen.last().copied();
            let expected = match highest {
                Some(highest) if number + WINDOW <= highest => {
                    Err(Replayed::TooOld { number, highest })
                }
                _ if seen.contains(&number) => Err(Replayed::Seen { number }),
                _ => Ok(()),
            };
            prop_assert_eq!(window.check(number), expected);
            // A packet that does not open is not committed, and the window stays as it was.
            let authentic = at % 256 != usize::from(forged);
            if expected.is_ok() && authentic {
                window.commit(number);
                seen.insert(number);
            }
            prop_assert_eq!(window.highest(), seen.last().copied());
        }
    }
}

#[test]
fn the_ends_of_the_window_are_exact() {
    let mut window = ReplayWindow::new();
    assert_eq!(window.check(0), Ok(()));
    window.commit(u64::MAX);
    assert_eq!(window.check(u64::MAX - WINDOW + 1), Ok(()));
    assert!(matches!(
        window.check(u64::MAX - WINDOW),
        Err(Replayed::TooOld { .. })
    ));
    window.commit(0);
    assert_eq!(window.check(u64::MAX - WINDOW + 1), Ok(()));
}
