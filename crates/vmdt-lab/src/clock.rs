//! The one clock of the lab: monotonic, the same in all processes of the machine.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The clock of emulator and peers.
#[allow(clippy::disallowed_methods)]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds of the system's monotonic clock: comparable between processes.
#[must_use]
pub fn nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
