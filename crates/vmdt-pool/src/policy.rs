//! What a sender demands of a placement.

use core::fmt;

/// What to do when the policy cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnmet {
    /// Refuse, and say what was lacking.
    #[default]
    Refuse,
    /// Place what can be placed: fewer than n shares, then without regard to distinctness. That no
    /// member gets k shares is never given up.
    Degrade,
}

/// How a message is to be spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Any k shares are enough, 2 to n.
    pub k: u8,
    /// Shares in all, up to 255.
    pub n: u8,
    /// Holders in at least so many distinct networks. Carriers on one host, in one /24 (IPv4) or /48
    /// (IPv6), or of one operator then count as one party, which as a whole gets fewer than k shares.
    /// 0: every member is a party of its own, wherever it is.
    pub min_distinct_networks: u8,
    /// Whether the direct way from sender to receiver may carry shares.
    pub allow_direct: bool,
    /// Whether the server may carry shares, when members and the direct way do not make k. It gets
    /// fewer than k of them, with indices below k.
    pub allow_server: bool,
    /// What to do when this cannot be met.
    pub on_unmet: OnUnmet,
}

/// A policy that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not 2 <= k <= n.
    #[error("threshold {k} of {n}: 2 <= k <= n is required")]
    Threshold {
        /// The threshold.
        k: u8,
        /// The number of shares.
        n: u8,
    },
    /// More networks than shares.
    #[error("{networks} distinct networks are demanded, but there are only {n} shares")]
    Networks {
        /// Networks demanded.
        networks: u8,
        /// The number of shares.
        n: u8,
    },
}

impl Policy {
    /// Any `k` of `n` shares, by every way there is, distinctness not looked at, refused when it
    /// cannot be met.
    pub fn k_of_n(k: u8, n: u8) -> Policy {
        Policy {
            k,
            n,
            min_distinct_networks: 0,
            allow_direct: true,
            allow_server: true,
            on_unmet: OnUnmet::Refuse,
        }
    }

    /// Checks that the policy makes sense.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], with the numbers.
    pub fn check(&self) -> Result<(), PolicyError> {
        let Policy {
            k,
            n,
            min_distinct_networks: networks,
            ..
        } = *self;
        if k < 2 || k > n {
            return Err(PolicyError::Threshold { k, n });
        }
        if networks > n {
            return Err(PolicyError::Networks { networks, n });
        }
        Ok(())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "any {} of {} shares", self.k, self.n)?;
        if self.min_distinct_networks > 0 {
            write!(f, ", in {} networks", self.min_distinct_networks)?;
        }
        if !self.allow_direct {
            f.write_str(", not directly")?;
        }
        if !self.allow_server {
            f.write_str(", not by the server")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_contradicts_itself_is_refused_with_the_numbers() {
        assert_eq!(Policy::k_of_n(2, 2).check(), Ok(()));
        assert_eq!(
            Policy::k_of_n(1, 3).check(),
            Err(PolicyError::Threshold { k: 1, n: 3 })
        );
        assert_eq!(
            Policy::k_of_n(4, 3).check(),
            Err(PolicyError::Threshold { k: 4, n: 3 })
        );
        let policy = Policy {
            min_distinct_networks: 4,
            ..Policy::k_of_n(2, 3)
        };
        let error = PolicyError::Networks { networks: 4, n: 3 };
        assert_eq!(policy.check(), Err(error));
    }

    #[test]
    fn it_reads_as_a_sentence() {
        let policy = Policy {
            min_distinct_networks: 2,
            allow_server: false,
            ..Policy::k_of_n(3, 5)
        };
        assert_eq!(
            policy.to_string(),
            "any 3 of 5 shares, in 2 networks, not by the server"
        );
    }
}
