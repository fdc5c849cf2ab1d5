//! Histograms of latencies, and how they are printed.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart from longer ones.
const LONGEST_NS: u64 = 100_000_000_000;

/// The percentiles in a printed distribution.
const PRINTED: [f64; 9] = [1.0, 10.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// An empty histogram of nanoseconds, to three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are valid")
}

/// The percentiles that are compared, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.50),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// A histogram for a file: `[nanoseconds, count]` of every bucket that is not empty.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Buckets {
    percentiles: Percentiles,
    count: u64,
    buckets: Vec<(u64, u64)>,
}

impl From<&Histogram<u64>> for Buckets {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            percentiles: histogram.into(),
            count: histogram.len(),
            buckets: histogram
                .iter_recorded()
                .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
                .collect(),
        }
    }
}

/// A duration in the unit that suits it, in nine columns at most.
pub(crate) fn format_ns(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if !ns.is_finite() => return "n/a".to_owned(),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A table of percentiles with a column for each of the labelled histograms.
pub(crate) fn format_distributions(columns: &[(&str, &Histogram<u64>)]) -> String {
    let mut table = format!("{:>12}", "percentile");
    for (label, _) in columns {
        let _ = write!(table, " {label:>12}");
    }
    table.push('\n');
    for percentile in PRINTED {
        let name = if percentile < 100.0 { format!("{percentile}") } else { "max".to_owned() };
        let _ = write!(table, "{name:>12}");
        for (_, histogram) in columns {
            let value = histogram.value_at_percentile(percentile);
            let _ = write!(table, " {:>12}", format_ns(value as f64));
        }
        table.push('\n');
    }
    let _ = write!(table, "{:>12}", "samples");
    for (_, histogram) in columns {
        let _ = write!(table, " {:>12}", histogram.len());
    }
    table.push('\n');
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_a_fitting_unit() {
        assert_eq!(format_ns(1_234.0), "1.23 us");
        assert_eq!(format_ns(45_600.0), "45.6 us");
        assert_eq!(format_ns(2_500_000.0), "2.50 ms");
        assert_eq!(format_ns(3e9), "3.00 s");
        assert_eq!(format_ns(f64::NAN), "n/a");
    }

    #[test]
    fn percentiles_and_buckets_agree() {
        let mut latencies = histogram();
        for ns in 1..=1_000 {
            latencies.record(ns).unwrap();
        }
        let percentiles = Percentiles::from(&latencies);
        assert_eq!((percentiles.p50, percentiles.p99), (500, 990));
        assert_eq!((percentiles.p99_9, percentiles.max), (999, 1_000));
        let buckets = Buckets::from(&latencies);
        assert_eq!(buckets.count, 1_000);
        assert_eq!(buckets.buckets.iter().map(|b| b.1).sum::<u64>(), 1_000);
    }

    #[test]
    fn a_distribution_has_a_column_for_each() {
        let mut one = histogram();
        one.record(5_000).unwrap();
        let table = format_distributions(&[("one", &one), ("none", &histogram())]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), PRINTED.len() + 2);
        assert!(lines[0].ends_with("one         none"), "{}", lines[0]);
        assert!(lines[3].contains("5.00 us"), "{}", lines[3]);
    }
}
