//! Results as CSV: one table of percentiles, one of seconds, one of everything else. `--csv` describes their columns.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

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
    beside(path, "series")
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(|| "csv".into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}-{what}.{extension}"))
}

/// Where the table of all other figures goes then.
pub(super) fn figures_path(path: &Path) -> PathBuf {
    beside(path, "figures")
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

/// What has tables of its own.
const TOLD: [&str; 3] = ["phases", "series", "label"];

/// A row for every other figure, called as in JSON: those of the whole first, which are of no target (the environment,
/// the plan, what was compared, checks, notes), then those of every target (counts, costs, memory, checks).
pub(super) fn write_figures(mut file: impl Write, result: &RunResult) -> Result<()> {
    writeln!(file, "target,figure,value")?;
    let mut whole = members(result)?;
    whole.remove("targets");
    for (name, comparison) in list(&mut whole, "comparisons").zip(&result.comparisons) {
        name_it(name, format!("{} of {} / {}", comparison.metric, comparison.a, comparison.b));
    }
    for (name, environment) in list(&mut whole, "environments").zip(&result.environments) {
        name_it(name, environment.host.clone());
    }
    write_rows(&mut file, "", whole)?;
    for target in &result.targets {
        let mut figures = members(target)?;
        figures.retain(|name, _| !TOLD.contains(&name.as_str()));
        write_rows(&mut file, &target.label, figures)?;
    }
    Ok(())
}

fn members(of: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(of)? {
        Value::Object(members) => Ok(members),
        _ => bail!("a result is an object"),
    }
}

fn list<'a>(members: &'a mut Map<String, Value>, name: &str) -> impl Iterator<Item = &'a mut Value> {
    members.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

fn name_it(item: &mut Value, name: String) {
    if let Value::Object(members) = item {
        members.insert("name".to_owned(), Value::String(name));
    }
}

fn write_rows(file: &mut impl Write, target: &str, figures: Map<String, Value>) -> Result<()> {
    let mut rows = Vec::new();
    flatten(&Value::Object(figures), String::new(), &mut rows);
    for (name, value) in rows {
        writeln!(file, "{},{},{}", field(target), field(&name), field(&value))?;
    }
    Ok(())
}

/// The paths of all values within a value. What has a name in a list is called by it, unless another has the same.
fn flatten(value: &Value, path: String, rows: &mut Vec<(String, String)>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flatten(value, below(name), rows));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = item["name"].as_str();
                let is_only = |name: &&str| items.iter().filter(|item| item["name"] == **name).count() == 1;
                let name = name.filter(is_only).map_or_else(|| index.to_string(), str::to_owned);
                flatten(item, below(&name), rows);
            }
        }
        Value::String(text) => rows.push((path, text.clone())),
        Value::Null => {}
        other => rows.push((path, other.to_string())),
    }
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
        assert_eq!(figures_path(Path::new("a/b.csv")), Path::new("a/b-figures.csv"));
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(field("plain name"), "plain name");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
