//! Results for people and programs: text, JSON, CSV, `.hlog`, one HTML page; and the live view.
//!
//! A command takes [`Args`] into its own, calls [`Args::open`] before it measures (what cannot be
//! written should fail then) and [`Output::deliver`] at the end. `report` and `merge` read files.

pub(crate) mod format;
pub(crate) mod live;

mod csv;
mod hlog;
mod html;
mod json;
#[cfg(test)]
mod tests;
mod text;

use std::fs::{self, File};
use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};

use crate::gate::{Condition, Gate};
use crate::outcome::{self, Status, WithStatus, ends};
use crate::result::RunResult;

/// Where results go, besides stdout.
#[derive(Clone, Debug, Default, clap::Args)]
// Commands have an `Args` too, and groups of one name collide.
#[group(skip)]
#[command(next_help_heading = "Output")]
pub(crate) struct Args {
    /// Write the whole result to this file as JSON (schema 1), for `report`, `merge` and `--fail-if`.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the percentiles to this file as CSV, and beside it the seconds and all other figures: `a.csv` (a row for
    /// each target, phase, and kind of latency), `a-series.csv` (a row for each target and second), `a-figures.csv`
    /// (target, figure, value; figures are called as in the JSON, as `server_cost.cpu_s`, `checks.nothing lost.held`,
    /// and without a target `comparisons.p99 of A / B.verdict`, `environments.HOST.sysctls.net.core.somaxconn`).
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write the histograms to this file as an HDR histogram log, for the tools of HdrHistogram.
    #[arg(long, value_name = "FILE")]
    pub(crate) hlog: Option<PathBuf>,
    /// Write everything to this file as one HTML page with charts.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// End with status 1 if this holds, as in `p99>2ms`, `p99>+5% vs before.json`, `rate<50k`, `errors>0`,
    /// `late>1%`, `connect.p99>1s`, `p99 of A>3ms`; may be given several times.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Condition>,
}

/// Files that were opened for a result.
pub(crate) struct Output {
    json: Option<File>,
    csv: Option<[File; 3]>,
    hlog: Option<File>,
    html: Option<File>,
    text: Box<dyn Write>,
    gate: Gate,
}

impl Args {
    /// Reads the baselines and creates the files, in this order: a file may be both.
    pub(crate) fn open(&self) -> Result<Output> {
        let gate = Gate::new(&self.fail_if)?;
        let create = |path: &Option<PathBuf>| path.as_deref().map(create).transpose();
        let beside = |path: fn(&Path) -> PathBuf| create(&self.csv.as_deref().map(path));
        Ok(Output {
            gate,
            json: create(&self.json)?,
            csv: match (create(&self.csv)?, beside(csv::series_path)?, beside(csv::figures_path)?) {
                (Some(percentiles), Some(series), Some(figures)) => Some([percentiles, series, figures]),
                _ => None,
            },
            hlog: create(&self.hlog)?,
            html: create(&self.html)?,
            text: Box::new(stdout()),
        })
    }

    /// Whether anything but text is asked for that holds one result alone.
    pub(crate) fn wants_single(&self) -> bool {
        self.json.is_some() || self.csv.is_some() || self.hlog.is_some()
    }
}

impl Output {
    /// Ends a result with what came of its measurement, writes and prints it, and tells how the
    /// command is to end: the error of the measurement first, then a check that did not hold, then the
    /// gate.
    pub(crate) fn deliver(mut self, mut result: RunResult, outcome: Result<()>) -> Result<()> {
        result.end();
        if let Err(error) = &outcome {
            result.failure = Some(outcome::line(error));
            // A generator that fell behind has measured all there was.
            result.partial |= Status::of(error) != Status::GeneratorBehind;
        }
        let written = self.write(&[&result]);
        match (outcome, written) {
            (Ok(()), written) => written.and_then(|()| self.judge(&[&result])),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(more)) => Err(ends(Status::of(&error), format!("{error:#}; {more:#}"))),
        }
    }

    /// Writes and prints results as they are; fails if a check did not hold or a condition of the gate does.
    pub(crate) fn publish(mut self, results: &[&RunResult]) -> Result<()> {
        self.write(results)?;
        self.judge(results)
    }

    fn write(&mut self, results: &[&RunResult]) -> Result<()> {
        for result in results {
            if let Some(file) = &self.json {
                finish(file, |file| json::write(file, result))?;
            }
            if let Some([percentiles, series, figures]) = &self.csv {
                finish(percentiles, |file| csv::write_percentiles(file, result))?;
                finish(series, |file| csv::write_series(file, result))?;
                finish(figures, |file| csv::write_figures(file, result))?;
            }
            if let Some(file) = &self.hlog {
                finish(file, |file| hlog::write(file, result))?;
            }
        }
        if let Some(file) = &self.html {
            finish(file, |file| Ok(file.write_all(html::page(results).as_bytes())?))?;
        }
        let texts: Vec<String> = results.iter().map(|result| text::render(result)).collect();
        print(&mut self.text, &texts.join("\n"))
    }

    fn judge(&self, results: &[&RunResult]) -> Result<()> {
        let failed: Vec<String> = results
            .iter()
            .flat_map(|result| checks_not_held(result).into_iter().chain(self.gate.judge(result)))
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        Err(ends(Status::Failed, failed.join("; ")))
    }
}

fn finish(file: &File, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let mut file = BufWriter::new(file);
    write(&mut file).and_then(|()| file.flush().map_err(Error::from)).context("cannot write the result")
}

/// A reader that has heard enough (`| head`) is no failure.
fn print(to: &mut dyn Write, text: &str) -> Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print the result"),
    }
}

/// What was asserted and did not hold.
fn checks_not_held(result: &RunResult) -> Vec<String> {
    let failed = result.all_checks().filter(|(_, check)| !check.held);
    failed
        .map(|(label, check)| {
            let of = label.map_or_else(String::new, |label| format!(" of {label}"));
            let detail = check.detail.as_ref().map_or_else(String::new, |detail| format!(" ({detail})"));
            format!("the check `{}`{of} failed: {}{detail}", check.name, check.asserted)
        })
        .collect()
}

/// Creates a file for an outcome: better to fail now than after the measurement.
fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot create {}", path.display())).status(Status::Usage)
}

/// Reads a saved result, which may be JSON or an HDR histogram log.
pub(crate) fn read(path: &Path) -> Result<RunResult> {
    let read = || {
        let bytes = fs::read(path)?;
        let text = String::from_utf8(bytes).context("neither JSON nor an HDR histogram log")?;
        if text.trim_start().starts_with(['{', '[']) {
            json::read(&text)
        } else {
            hlog::read(&text).context("neither JSON nor an HDR histogram log")
        }
    };
    read().with_context(|| format!("cannot read {}", path.display())).status(Status::Usage)
}
