//! Helpers of the unit tests.

use std::time::Instant;

/// The moment a test begins; everything else is this plus a duration.
#[allow(clippy::disallowed_methods)]
pub(crate) fn base() -> Instant {
    Instant::now()
}
