//! `run`: one target under one load.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::session::Session;
use crate::outcome::{Status, WithStatus, ends};
use crate::output;
use crate::plan::Settings;
use crate::result::{Kind, RunResult};
use crate::scenario;

/// Load one target as you like: any load model, protocol and scenario.
///
/// Every connection is opened and proven by a first message; then the load runs, first unmeasured, then measured.
/// Fails if a byte is wrong (status 4), a connection is lost or a reply late (3), the generator did not keep its
/// schedule (6), or something the scenario asserts does not hold (1).
#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Scenario file: the flags above as keys of TOML (`connections = 1000`, `duration = "10s"`). Flags go before it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: output::Args,
}

/// The settings of flags and of the file, if there is one.
pub(super) fn settings(flags: &Settings, file: Option<&PathBuf>) -> Result<Settings> {
    let flags = flags.clone();
    match file {
        Some(path) => Ok(flags.or(Settings::read(path).status(Status::Usage)?)),
        None => Ok(flags),
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let settings = settings(&args.settings, args.file.as_ref())?;
    if settings.scenario.as_deref() == Some("help") {
        return list_scenarios();
    }
    let output = args.output.open()?;
    let session = Session::start(settings)?;
    let mut result = RunResult::begin(Kind::Run, "run", session.plan())?;
    result.title = session.plan().title();
    let outcome = session.measure(session.plan(), "target").and_then(|measured| {
        let partial = measured.tally.partial;
        let broken = measured.broken_schedule;
        let mut target = measured.target;
        target.checks.extend(measured.schedule);
        result.targets.push(target);
        if partial {
            result.partial = true;
            return Err(ends(Status::Interrupted, "interrupted: the result is partial"));
        }
        broken.map_or(Ok(()), |why| Err(ends(Status::GeneratorBehind, why)))
    });
    drop(session);
    output.deliver(result, outcome)
}

fn list_scenarios() -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout();
    for (_, name, what) in scenario::ALL {
        writeln!(stdout, "{name:<16} {what}").context("cannot print the scenarios")?;
    }
    Ok(())
}
