//! Medians, intervals for them by resampling, and straight lines through points.

use serde::{Deserialize, Serialize};

/// Resamples behind each interval.
const RESAMPLES: usize = 10_000;

/// A median and its 95% percentile-bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// Estimates the median of `values`, of which those that are not finite are left out.
    ///
    /// `None` if no value is left.
    pub(crate) fn of(values: &[f64], seed: u64) -> Option<Self> {
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let median = median(&finite)?;
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut resample = vec![0.0; finite.len()];
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                resample.fill_with(|| finite[rng.usize(..finite.len())]);
                median_in_place(&mut resample)
            })
            .collect();
        medians.sort_unstable_by(f64::total_cmp);
        Some(Self {
            median,
            low: quantile_of_sorted(&medians, 0.025),
            high: quantile_of_sorted(&medians, 0.975),
        })
    }

    /// Estimates the median of the pairwise ratios `numerators[i] / denominators[i]`.
    pub(crate) fn of_ratios(numerators: &[f64], denominators: &[f64], seed: u64) -> Option<Self> {
        let ratios: Vec<f64> = numerators.iter().zip(denominators).map(|(n, d)| n / d).collect();
        Self::of(&ratios, seed)
    }
}

/// The median; the mean of the middle two if their number is even.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    Some(median_in_place(&mut values.to_vec()))
}

fn median_in_place(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if odd {
        *upper
    } else {
        let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        f64::midpoint(lower, *upper)
    }
}

/// The quantile by linear interpolation between the closest ranks.
fn quantile_of_sorted(sorted: &[f64], quantile: f64) -> f64 {
    let rank = quantile * (sorted.len() - 1) as f64;
    let below = sorted[rank.floor() as usize];
    let above = sorted[rank.ceil() as usize];
    below + (above - below) * rank.fract()
}

/// A straight line through points by least squares, and how well it fits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
    /// The share of the variance of y that the line explains (R²).
    pub(crate) r_squared: f64,
}

impl Line {
    /// `None` if the points do not differ in x.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let moment = |of: fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|&(x, y)| of(x - mean_x, y - mean_y)).sum()
        };
        let (xx, xy, yy) = (moment(|x, _| x * x), moment(|x, y| x * y), moment(|_, y| y * y));
        (xx > 0.0).then(|| {
            let slope = xy / xx;
            let r_squared = if yy > 0.0 { slope * xy / yy } else { 1.0 };
            Self { slope, intercept: mean_y - slope * mean_x, r_squared }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_takes_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile_of_sorted(&sorted, 0.0), 0.0);
        assert_eq!(quantile_of_sorted(&sorted, 0.5), 2.0);
        assert_eq!(quantile_of_sorted(&sorted, 0.625), 2.5);
        assert_eq!(quantile_of_sorted(&sorted, 1.0), 4.0);
    }

    #[test]
    fn equal_values_leave_no_interval() {
        let estimate = Estimate::of(&[1.5; 20], 1).unwrap();
        assert_eq!((estimate.low, estimate.median, estimate.high), (1.5, 1.5, 1.5));
    }

    #[test]
    fn the_interval_holds_the_median_and_repeats_with_its_seed() {
        let mut rng = fastrand::Rng::with_seed(3);
        let values: Vec<f64> = (0..40).map(|_| 1.0 + (rng.f64() - 0.5) * 0.2).collect();
        let estimate = Estimate::of(&values, 9).unwrap();
        assert!(estimate.low <= estimate.median && estimate.median <= estimate.high);
        assert!(estimate.low > 0.9 && estimate.high < 1.1);
        assert!(estimate.high - estimate.low < 0.15);
        assert_eq!(Some(estimate), Estimate::of(&values, 9));
    }

    /// Of many samples from one distribution about 95% of the intervals hold the true median.
    #[test]
    fn the_interval_covers_the_true_median() {
        let mut rng = fastrand::Rng::with_seed(11);
        let trials = 60;
        let held = (0..trials)
            .filter(|&trial| {
                let values: Vec<f64> = (0..30).map(|_| rng.f64()).collect();
                let estimate = Estimate::of(&values, trial).unwrap();
                estimate.low <= 0.5 && 0.5 <= estimate.high
            })
            .count();
        assert!(held >= 50, "only {held} of {trials} intervals held it");
    }

    #[test]
    fn ratios_are_taken_in_pairs() {
        let estimate = Estimate::of_ratios(&[2.0, 20.0, 200.0], &[1.0, 10.0, 100.0], 1).unwrap();
        assert_eq!(estimate.median, 2.0);
        assert_eq!((estimate.low, estimate.high), (2.0, 2.0));
    }

    #[test]
    fn pairs_without_a_ratio_are_left_out() {
        let estimate = Estimate::of_ratios(&[1.0, 3.0, 0.0], &[0.0, 1.0, 0.0], 1).unwrap();
        assert_eq!(estimate.median, 3.0);
        assert_eq!(Estimate::of_ratios(&[1.0], &[0.0], 1), None);
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let exact = Line::through(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).unwrap();
        assert_eq!((exact.slope, exact.intercept, exact.r_squared), (2.0, 3.0, 1.0));
        let level = Line::through(&[(1.0, 5.0), (2.0, 5.0)]).unwrap();
        assert_eq!((level.slope, level.intercept, level.r_squared), (0.0, 5.0, 1.0));
        let rough = Line::through(&[(0.0, 0.0), (1.0, 3.0), (2.0, 0.0), (3.0, 3.0)]).unwrap();
        assert!((rough.slope - 0.6).abs() < 1e-12 && (rough.r_squared - 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_line_needs_two_places() {
        assert_eq!(Line::through(&[]), None);
        assert_eq!(Line::through(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }

    /// The distribution of the median's rank is known: of 101 values the 95% interval is about 41 to 61.
    #[test]
    fn the_interval_is_that_of_the_order_statistics() {
        let values: Vec<f64> = (1..=101).map(f64::from).collect();
        let Estimate { median, low, high } = Estimate::of(&values, 5).unwrap();
        assert_eq!(median, 51.0);
        assert!((39.0..=43.0).contains(&low) && (59.0..=63.0).contains(&high), "{low} {high}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(30))]

        #[test]
        fn an_interval_lies_around_its_median(values in proptest::collection::vec(-1e9_f64..1e9, 1..40)) {
            let Estimate { median, low, high } = Estimate::of(&values, 1).unwrap();
            let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
            proptest::prop_assert!(least <= low && low <= median && median <= high && high <= most);
        }

        #[test]
        fn a_line_is_found_again(
            slope in -1e4_f64..1e4,
            intercept in -1e8_f64..1e8,
            places in proptest::collection::btree_set(0_u32..1_000_000, 2..20),
        ) {
            let at = |x: u32| (f64::from(x), intercept + slope * f64::from(x));
            let points: Vec<(f64, f64)> = places.into_iter().map(at).collect();
            let line = Line::through(&points).unwrap();
            proptest::prop_assert!((line.slope - slope).abs() <= slope.abs() * 1e-6 + 1e-3);
            proptest::prop_assert!((0.0..=1.0 + 1e-9).contains(&line.r_squared));
        }
    }
}
