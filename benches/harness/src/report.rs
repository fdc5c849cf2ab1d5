//! Saved results, shown again.

use std::path::PathBuf;

use anyhow::Result;

use crate::outcome::{Status, ends};
use crate::output;

/// Show saved results again, in any format.
///
/// A file is a result in JSON or an HDR histogram log. The text goes to stdout; several files make
/// several texts, and one HTML page. Conditions are judged as if the results were new.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Results, as `--json` or `--hlog` wrote them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: output::Args,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.files.len() > 1 && args.output.wants_single() {
        let why = "--json, --csv and --hlog hold one result: give one FILE, or make one of them by `merge`";
        return Err(ends(Status::Usage, why));
    }
    let results = args.files.iter().map(|file| output::read(file)).collect::<Result<Vec<_>>>()?;
    args.output.open()?.publish(&results.iter().collect::<Vec<_>>())
}
