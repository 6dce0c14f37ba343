//! The states of a cluster and the one function that moves between them.
//!
//! ```text
//!            a member           n present            n present again
//!   EMPTY ------------> CREATING --------> READY <-------------------+
//!     ^                     |                |  fewer than n         |
//!     |                     |                v                       |
//!     |  no places left     |            DEGRADED <-------> SUSPENDED
//!     +---------------------+----------------+-- at least k | fewer --+
//! ```
//!
//! `SUSPENDED` is not in the seed documents' diagram: it is their CREATING
//! (nobody may send) with the knowledge that the cluster has been READY once,
//! so that it becomes DEGRADED, not CREATING, when k members are back.

use core::fmt;

/// Where a cluster of threshold k of n stands.
///
/// Only *present* members count: those whose connection is up. A member in its
/// grace period keeps its place (the cluster does not become `Empty`), but a
/// sender must not count on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ClusterState {
    /// No member has a place. The registry removes such a cluster at once.
    #[default]
    Empty,
    /// Fewer than n members have ever been present together.
    Creating,
    /// At least n members are present.
    Ready,
    /// Has been ready; fewer than n but at least k members are present.
    Degraded,
    /// Has been ready; fewer than k members are present.
    Suspended,
}

/// What the state depends on: who is there, and the cluster's threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Members that have a place, present or in their grace period.
    pub places: usize,
    /// Members whose connection is up.
    pub present: usize,
    /// Shares in all; the number of present members that makes READY.
    pub n: u16,
    /// Shares needed; the number of present members that keeps DEGRADED.
    pub k: u16,
}

impl ClusterState {
    /// The state that follows `self` when `census` is taken.
    #[must_use]
    pub fn after(self, census: Census) -> ClusterState {
        if census.places == 0 {
            return ClusterState::Empty;
        }
        if census.present >= usize::from(census.n) {
            return ClusterState::Ready;
        }
        match self {
            ClusterState::Empty | ClusterState::Creating => ClusterState::Creating,
            ClusterState::Ready | ClusterState::Degraded | ClusterState::Suspended => {
                if census.present >= usize::from(census.k) {
                    ClusterState::Degraded
                } else {
                    ClusterState::Suspended
                }
            }
        }
    }

    /// Whether n members have been present together at some time.
    #[must_use]
    pub fn has_been_ready(self) -> bool {
        !matches!(self, ClusterState::Empty | ClusterState::Creating)
    }

    /// Whether members may send: READY or DEGRADED.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, ClusterState::Ready | ClusterState::Degraded)
    }
}

impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClusterState::Empty => "EMPTY",
            ClusterState::Creating => "CREATING",
            ClusterState::Ready => "READY",
            ClusterState::Degraded => "DEGRADED",
            ClusterState::Suspended => "SUSPENDED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ClusterState; 5] = [
        ClusterState::Empty,
        ClusterState::Creating,
        ClusterState::Ready,
        ClusterState::Degraded,
        ClusterState::Suspended,
    ];

    fn after(state: ClusterState, places: usize, present: usize) -> ClusterState {
        state.after(Census {
            places,
            present,
            n: 3,
            k: 2,
        })
    }

    /// Every transition of a 2 of 3 cluster. Columns: no place left, then 0 to 4
    /// members present of 4 places.
    const TRANSITIONS: &str = "\
EMPTY     | EMPTY CREATING  CREATING  CREATING READY READY
CREATING  | EMPTY CREATING  CREATING  CREATING READY READY
READY     | EMPTY SUSPENDED SUSPENDED DEGRADED READY READY
DEGRADED  | EMPTY SUSPENDED SUSPENDED DEGRADED READY READY
SUSPENDED | EMPTY SUSPENDED SUSPENDED DEGRADED READY READY
";

    #[test]
    fn every_transition_is_the_one_in_the_table() {
        let mut table = String::new();
        for state in STATES {
            let mut cells = vec![format!("{:<5}", after(state, 0, 0).to_string())];
            let widths = [9, 9, 8, 5, 5];
            for (present, width) in widths.into_iter().enumerate() {
                cells.push(format!(
                    "{:<width$}",
                    after(state, 4, present).to_string(),
                    width = width
                ));
            }
            table.push_str(&format!("{:<9} | {}", state.to_string(), cells.join(" ")));
            table.push('\n');
        }
        assert_eq!(table, TRANSITIONS);
    }

    #[test]
    fn only_ready_and_degraded_allow_sending() {
        let active: Vec<_> = STATES.into_iter().filter(|s| s.is_active()).collect();
        assert_eq!(active, [ClusterState::Ready, ClusterState::Degraded]);
    }

    #[test]
    fn having_been_ready_is_remembered_below_k() {
        let path = [3, 2, 1, 2, 3];
        let mut state = ClusterState::Creating;
        let mut seen = Vec::new();
        for present in path {
            state = after(state, 3, present);
            seen.push(state);
        }
        assert_eq!(
            seen,
            [
                ClusterState::Ready,
                ClusterState::Degraded,
                ClusterState::Suspended,
                ClusterState::Degraded,
                ClusterState::Ready
            ]
        );
    }
}
