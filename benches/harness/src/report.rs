//! Saved results, shown again.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::commands::correction;
use crate::outcome::{Status, ends};
use crate::output;
use crate::result::RunResult;

/// Show saved results again, in any format.
///
/// A file is a result in JSON or an HDR histogram log. The text goes to stdout; several files make
/// several texts, and one HTML page. Conditions are judged as if the results were new.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Results, as `--json` or `--hlog` wrote them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Correct latencies for coordinated omission, as of a client that meant to send a message every TIME on
    /// each connection but waited for the reply, as in `10ms`. It takes the place of the estimate that a closed
    /// loop has; what was measured stays the headline, and what conditions judge. Where latencies count from the
    /// intended start already it changes nothing.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    correct: Option<Duration>,
    #[command(flatten)]
    output: output::Args,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.files.len() > 1 && args.output.wants_single() {
        let why = "--json, --csv and --hlog hold one result: give one FILE, or make one of them by `merge`";
        return Err(ends(Status::Usage, why));
    }
    let mut results = args.files.iter().map(|file| output::read(file)).collect::<Result<Vec<_>>>()?;
    if let Some(interval) = args.correct {
        results.iter_mut().try_for_each(|result| correct(result, interval))?;
    }
    args.output.open()?.publish(&results.iter().collect::<Vec<_>>())
}

/// Adds what a client left out that waited, where it was not measured.
fn correct(result: &mut RunResult, interval: Duration) -> Result<()> {
    if interval < Duration::from_micros(1) {
        return Err(ends(Status::Usage, "--correct must be at least 1us"));
    }
    let mut any = false;
    for target in &mut result.targets {
        let mut is_corrected = false;
        for phase in [&mut target.phases.reply, &mut target.phases.first_byte] {
            if !phase.is_from_intended_start() && phase.raw.is_some() {
                phase.fill_in(interval.as_nanos() as u64);
                is_corrected = true;
            }
        }
        any |= is_corrected;
        if is_corrected {
            target.notes.retain(|note| !correction::is_note(note));
            let interval = humantime::format_duration(interval);
            target.notes.push(format!(
                "corrected for coordinated omission, as if a message was due every {interval}"
            ));
        }
    }
    if any {
        result.notes.retain(|note| !correction::is_note(note));
    }
    Ok(())
}
