//! Two targets compared, and what the numbers allow to say of them.

use serde::{Deserialize, Serialize};

use crate::stats::Estimate;

/// The ratio of one number of two targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// The label of the target above the line.
    pub(crate) a: String,
    /// The label of the target below it.
    pub(crate) b: String,
    /// What was compared, as in `rate` or `p99`.
    pub(crate) metric: String,
    /// Which way is better.
    pub(crate) better: Direction,
    /// A to B: the median over the rounds, and its 95% interval. Absent if no round gave a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<Estimate>,
    /// How many rounds gave one.
    pub(crate) rounds: usize,
    /// The two are instances of one server: the ratio shows the noise.
    pub(crate) control: bool,
    pub(crate) verdict: Verdict,
    /// Why there is no verdict where the interval alone would allow one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Which way a number is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Higher,
    Lower,
}

/// What may be said of A beside B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Better,
    Worse,
    /// The interval holds 1, or the noise explains as much.
    Undecided,
}

impl Verdict {
    /// What a ratio allows to say, given the ratio that the control showed for the same number.
    ///
    /// Only an interval that lies wholly on one side of 1 says anything; and where it overlaps the
    /// control's, one server differs from itself as much.
    pub(crate) fn of(ratio: Estimate, control: Option<Estimate>, better: Direction) -> Self {
        let apart = |other: Estimate| ratio.low > other.high || ratio.high < other.low;
        if (ratio.low <= 1.0 && 1.0 <= ratio.high) || !control.is_none_or(apart) {
            return Self::Undecided;
        }
        if (ratio.low > 1.0) == (better == Direction::Higher) { Self::Better } else { Self::Worse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(low: f64, high: f64) -> Estimate {
        Estimate { median: f64::midpoint(low, high), low, high }
    }

    #[test]
    fn a_verdict_needs_an_interval_beside_one() {
        let of = |low, high, better| Verdict::of(around(low, high), None, better);
        assert_eq!(of(1.01, 1.02, Direction::Higher), Verdict::Better);
        assert_eq!(of(1.01, 1.02, Direction::Lower), Verdict::Worse);
        assert_eq!(of(0.8, 0.9, Direction::Higher), Verdict::Worse);
        assert_eq!(of(0.8, 0.9, Direction::Lower), Verdict::Better);
        for (low, high) in [(0.9, 1.1), (1.0, 1.1), (0.9, 1.0), (1.0, 1.0)] {
            assert_eq!(of(low, high, Direction::Higher), Verdict::Undecided);
        }
    }

    #[test]
    fn what_the_control_shows_too_is_noise() {
        let of = |control| Verdict::of(around(1.05, 1.10), Some(control), Direction::Higher);
        assert_eq!(of(around(0.99, 1.04)), Verdict::Better);
        assert_eq!(of(around(0.99, 1.06)), Verdict::Undecided);
        assert_eq!(of(around(1.07, 1.08)), Verdict::Undecided);
        assert_eq!(of(around(1.11, 1.20)), Verdict::Better);
    }
}
