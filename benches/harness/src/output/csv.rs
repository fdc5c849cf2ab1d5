//! Results as CSV: one table of percentiles, one of seconds.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::latency::Latencies;
use crate::result::RunResult;

/// The percentiles in the table.
const PERCENTILES: [(&str, f64); 9] = [
    ("p10_us", 0.1),
    ("p25_us", 0.25),
    ("p50_us", 0.5),
    ("p75_us", 0.75),
    ("p90_us", 0.9),
    ("p99_us", 0.99),
    ("p99_9_us", 0.999),
    ("p99_99_us", 0.9999),
    ("max_us", 1.0),
];

/// Where the table of seconds goes if the one of percentiles goes to `path`.
pub(super) fn series_path(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(|| "csv".into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}-series.{extension}"))
}

/// A row for every histogram.
pub(super) fn write_percentiles(mut file: impl Write, result: &RunResult) -> Result<()> {
    write!(file, "target,phase,kind,messages_per_second,count,mean_us")?;
    for (name, _) in PERCENTILES {
        write!(file, ",{name}")?;
    }
    writeln!(file)?;
    for target in &result.targets {
        for (phase, histograms) in target.phases.named() {
            for (kind, latencies) in [("corrected", &histograms.corrected), ("raw", &histograms.raw)] {
                let Some(latencies) = latencies else { continue };
                let (label, rate) = (field(&target.label), target.messages_per_second);
                write!(file, "{label},{phase},{kind},{rate:.3},{}", latencies.count())?;
                write!(file, ",{}", number(latencies.mean_us()))?;
                for (_, quantile) in PERCENTILES {
                    write!(file, ",{}", number(latencies.quantile_us(quantile)))?;
                }
                writeln!(file)?;
            }
        }
    }
    Ok(())
}

/// A row for every second of every target.
pub(super) fn write_series(mut file: impl Write, result: &RunResult) -> Result<()> {
    writeln!(
        file,
        "target,second,unix_ms,connections,opened,sent,received,late,errors,p50_us,p99_us,p99_9_us,max_us"
    )?;
    for target in &result.targets {
        for second in &target.series {
            let unix_ms = target.started_unix_ms + u64::from(second.second) * 1_000;
            let connections = second.connections.map_or_else(String::new, |count| count.to_string());
            write!(file, "{},{},{unix_ms},{connections}", field(&target.label), second.second)?;
            let counts = [second.opened, second.sent, second.received, second.late, second.errors];
            for count in counts {
                write!(file, ",{count}")?;
            }
            for quantile in [0.5, 0.99, 0.999, 1.0] {
                let latency = second.latency.as_ref();
                write!(file, ",{}", number(latency.and_then(|all: &Latencies| all.quantile_us(quantile))))?;
            }
            writeln!(file)?;
        }
    }
    Ok(())
}

/// A number, or nothing.
fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

/// A text in quotation marks if it needs them.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_stand_beside_the_percentiles() {
        assert_eq!(series_path(Path::new("a/b.csv")), Path::new("a/b-series.csv"));
        assert_eq!(series_path(Path::new("b.x.tsv")), Path::new("b.x-series.tsv"));
        assert_eq!(series_path(Path::new("b")), Path::new("b-series.csv"));
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(field("plain name"), "plain name");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
