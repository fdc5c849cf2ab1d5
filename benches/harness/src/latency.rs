//! Histograms of latencies: recorded, merged, kept in files and printed.

use std::fmt::Write as _;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as HdrDeserializer, Serializer as _, V2DeflateSerializer};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest latency told apart from longer ones.
const LONGEST_NS: u64 = 100_000_000_000;

/// The percentiles in a printed distribution, and their shares: 99.9 / 100 is more than 0.999.
const PRINTED: [(&str, f64); 9] = [
    ("1", 0.01),
    ("10", 0.1),
    ("50", 0.5),
    ("75", 0.75),
    ("90", 0.9),
    ("99", 0.99),
    ("99.9", 0.999),
    ("99.99", 0.9999),
    ("max", 1.0),
];

/// An empty histogram of nanoseconds, to three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are valid")
}

/// Latencies in nanoseconds, from 1 ns to 100 s; what lasted longer counts as 100 s.
///
/// In a file it is the HDR histogram (V2, compressed, base64), beside the usual percentiles in
/// microseconds for whoever reads the file without a library. Only the histogram is read back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Histogram<u64>> for Latencies {
    fn from(histogram: Histogram<u64>) -> Self {
        Self(histogram)
    }
}

impl Latencies {
    /// None yet, to be kept to three significant digits (0.1%).
    pub(crate) fn new() -> Self {
        Self(histogram())
    }

    /// None yet, to be kept to two significant digits (1%): an eighth of the memory, for one of
    /// many seconds. It grows with the largest value.
    pub(crate) fn coarse() -> Self {
        Self(Histogram::new(2).expect("two digits are valid"))
    }

    /// Adds one of `ns`.
    pub(crate) fn record(&mut self, ns: u64) {
        let ns = ns.clamp(1, LONGEST_NS);
        // Only the first of the two lets a histogram grow; only one from a file may have narrower bounds.
        if self.0.record(ns).is_err() {
            self.0.saturating_record(ns);
        }
    }

    /// Adds `count` of `ns`.
    pub(crate) fn record_many(&mut self, ns: u64, count: u64) {
        let ns = ns.clamp(1, LONGEST_NS);
        if self.0.record_n(ns, count).is_err() {
            self.0.saturating_record_n(ns, count);
        }
    }

    /// Adds all of another's.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        // One that was read from a file does not grow by itself.
        self.0.auto(true);
        self.0.add(&other.0).map_err(|error| anyhow!("cannot merge histograms: {error}"))
    }

    /// These with what was left out by a client that waited for each reply before it sent again: those
    /// that were due every `expected_ns` while it waited (the correction for coordinated omission). A
    /// client that counts from the intended start needs none.
    pub(crate) fn corrected(&self, expected_ns: u64) -> Self {
        Self(self.0.clone_correct(expected_ns))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value in nanoseconds that the share `quantile` (0 to 1) does not exceed; `None` if there is
    /// no latency.
    pub(crate) fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile))
    }

    /// As [`Latencies::quantile_ns`], in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> Option<f64> {
        self.quantile_ns(quantile).map(|ns| ns as f64 / 1e3)
    }

    /// The largest in microseconds.
    pub(crate) fn max_us(&self) -> Option<f64> {
        self.quantile_us(1.0)
    }

    /// The mean in microseconds.
    pub(crate) fn mean_us(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.mean() / 1e3)
    }

    /// The histogram of nanoseconds.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// The histogram as HDR V2, compressed, in base64.
    pub(crate) fn encode(&self) -> Result<String> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(|error| anyhow!("cannot write a histogram: {error}"))?;
        Ok(BASE64_STANDARD.encode(bytes))
    }

    /// The reverse of [`Latencies::encode`].
    pub(crate) fn decode(text: &str) -> Result<Self> {
        let bytes = BASE64_STANDARD.decode(text).context("a histogram is not base64")?;
        HdrDeserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map(Self)
            .map_err(|error| anyhow!("not an HDR histogram: {error}"))
    }
}

/// How [`Latencies`] stand in a file.
#[derive(Serialize)]
struct Written {
    count: u64,
    mean_us: Option<f64>,
    stdev_us: Option<f64>,
    min_us: Option<f64>,
    p50_us: Option<f64>,
    p75_us: Option<f64>,
    p90_us: Option<f64>,
    p99_us: Option<f64>,
    p99_9_us: Option<f64>,
    p99_99_us: Option<f64>,
    max_us: Option<f64>,
    hdr_v2_ns: String,
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = |quantile| self.quantile_us(quantile);
        Written {
            count: self.count(),
            mean_us: self.mean_us(),
            stdev_us: self.mean_us().map(|_| self.0.stdev() / 1e3),
            min_us: self.mean_us().map(|_| self.0.min() as f64 / 1e3),
            p50_us: at(0.5),
            p75_us: at(0.75),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: self.max_us(),
            hdr_v2_ns: self.encode().map_err(|error| S::Error::custom(format!("{error:#}")))?,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Read {
            hdr_v2_ns: String,
        }
        let Read { hdr_v2_ns } = Read::deserialize(deserializer)?;
        Self::decode(&hdr_v2_ns).map_err(|error| D::Error::custom(format!("{error:#}")))
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
    let widths: Vec<usize> = columns.iter().map(|(label, _)| label.chars().count().max(12)).collect();
    for ((label, _), width) in columns.iter().zip(&widths) {
        let _ = write!(table, " {label:>width$}");
    }
    table.push('\n');
    for (name, quantile) in PRINTED {
        let _ = write!(table, "{name:>12}");
        for ((_, histogram), width) in columns.iter().zip(&widths) {
            let value = histogram.value_at_quantile(quantile);
            let _ = write!(table, " {:>width$}", format_ns(value as f64));
        }
        table.push('\n');
    }
    let _ = write!(table, "{:>12}", "samples");
    for ((_, histogram), width) in columns.iter().zip(&widths) {
        let _ = write!(table, " {:>width$}", histogram.len());
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
    fn a_distribution_has_a_column_for_each() {
        let mut one = histogram();
        one.record(5_000).unwrap();
        let table = format_distributions(&[("one", &one), ("none", &histogram())]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), PRINTED.len() + 2);
        assert!(lines[0].ends_with("one         none"), "{}", lines[0]);
        assert!(lines[3].contains("5.00 us"), "{}", lines[3]);
        let wide = format_distributions(&[("a label of some length", &one), ("one", &one)]);
        let ends: Vec<usize> = wide.lines().map(str::len).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{wide}");
    }

    fn of(values: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new();
        values.into_iter().for_each(|ns| latencies.record(ns));
        latencies
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let latencies = of((1..=1_000).map(|us| us * 1_000));
        for (quantile, us) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let found = latencies.quantile_us(quantile).unwrap();
            assert!((us..=us * 1.001).contains(&found), "{quantile}: {found}");
        }
        assert_eq!((Latencies::new().quantile_us(0.5), Latencies::new().mean_us()), (None, None));
    }

    #[test]
    fn what_is_out_of_bounds_is_kept_at_them() {
        let mut latencies = of([0, u64::MAX]);
        latencies.record_many(5, 3);
        assert_eq!(latencies.count(), 5);
        assert!((100_000.0e3..=100_100.0e3).contains(&latencies.max_us().unwrap()), "{latencies:?}");
    }

    /// One of 100 ms where one was due every 10 ms: those at 10, 20 .. 90 ms would have taken the rest.
    #[test]
    fn the_correction_fills_in_what_was_not_sent() {
        let measured = of(std::iter::repeat_n(1_000_000, 990).chain([100_000_000]));
        let corrected = measured.corrected(10_000_000);
        assert_eq!(corrected.count(), 990 + 10);
        let expected = of((1..=10).map(|n| n * 10_000_000).chain(std::iter::repeat_n(1_000_000, 990)));
        for quantile in [0.5, 0.99, 0.992, 0.995, 0.999, 1.0] {
            let (found, right) =
                (corrected.quantile_ns(quantile).unwrap(), expected.quantile_ns(quantile).unwrap());
            assert!(found.abs_diff(right) * 1_000 <= right * 2, "{quantile}: {found} instead of {right}");
        }
        // Nothing was held up here.
        assert_eq!(of([5, 6, 7]).corrected(1_000), of([5, 6, 7]));
    }

    /// What came over a channel or from a file has bounds that just hold its values: a larger one must still fit.
    #[test]
    fn one_that_was_decoded_grows_when_it_is_merged() {
        let decoded = |mut latencies: Latencies, ns: u64| {
            latencies.record(ns);
            Latencies::decode(&latencies.encode().unwrap()).unwrap()
        };
        for make in [Latencies::coarse, Latencies::new] {
            let (small, large) = (decoded(make(), 1_000), decoded(make(), 5_000_000_000));
            for (mut merged, other) in [(small.clone(), &large), (large.clone(), &small)] {
                merged.merge(other).unwrap();
                let most = merged.max_us().unwrap();
                assert!(merged.count() == 2 && (5e6..5.05e6).contains(&most), "{most}");
                assert!(merged.quantile_us(0.5).unwrap() < 1.02);
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(40))]

        #[test]
        fn merging_is_as_recording_all_in_one(
            one in proptest::collection::vec(0_u64..200_000_000_000, 0..200),
            other in proptest::collection::vec(0_u64..200_000_000_000, 0..200),
        ) {
            let mut merged = of(one.iter().copied());
            merged.merge(&of(other.iter().copied())).unwrap();
            let all = of(one.into_iter().chain(other));
            proptest::prop_assert_eq!(&merged, &all);
            let read = Latencies::decode(&all.encode().unwrap()).unwrap();
            proptest::prop_assert_eq!(read, all);
        }

        #[test]
        fn what_is_not_a_histogram_is_refused(text in "[A-Za-z0-9+/=]{0,80}") {
            proptest::prop_assert!(Latencies::decode(&text).is_err());
        }

        #[test]
        fn coarse_ones_can_be_merged_too(values in proptest::collection::vec(1_u64..90_000_000_000, 1..200)) {
            let mut coarse = Latencies::coarse();
            values.iter().for_each(|ns| coarse.record(*ns));
            let mut merged = Latencies::new();
            merged.merge(&coarse).unwrap();
            proptest::prop_assert_eq!(merged.count(), values.len() as u64);
            let (most, found) = (*values.iter().max().unwrap() as f64, merged.max_us().unwrap() * 1e3);
            proptest::prop_assert!((found - most).abs() <= most * 0.011, "{} {}", found, most);
        }
    }
}
