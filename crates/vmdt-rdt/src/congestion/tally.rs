//! Losses as a share of what was sent.

/// Losses against what was sent, in octets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) lost: f64,
    pub(super) total: f64,
}

impl Tally {
    /// The share lost, of no less than `floor` octets: a share of little is not known.
    pub(super) fn ratio(self, floor: f64) -> f64 {
        self.lost / self.total.max(floor).max(1.0)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.total += other.total;
    }

    pub(super) fn scale(&mut self, factor: f64) {
        self.lost *= factor;
        self.total *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_little_counts_for_less() {
        let mut tally = Tally {
            lost: 10.0,
            total: 100.0,
        };
        assert_eq!(tally.ratio(0.0), 0.1);
        assert_eq!(tally.ratio(1000.0), 0.01);
        tally.add(Tally {
            lost: 0.0,
            total: 100.0,
        });
        tally.scale(0.5);
        assert_eq!(tally.ratio(0.0), 0.05);
        assert_eq!(Tally::default().ratio(0.0), 0.0);
    }
}
