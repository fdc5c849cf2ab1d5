//! Results of several machines, made into one.

use std::path::PathBuf;

use anyhow::Result;

use crate::outcome::{Status, WithStatus};
use crate::{output, result};

/// Merge the results of several machines, or several runs, into one.
///
/// A file is a result in JSON or an HDR histogram log. Histograms are added, counts summed, and seconds put
/// beside those of the same wall time (the clocks of the machines should agree to half a second). Results
/// whose plans differ are refused; a histogram log holds no plan, so that it belongs is taken on trust.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Results, as `--json` or `--hlog` wrote them.
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: output::Args,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let read = |file: &PathBuf| Ok((file.display().to_string(), output::read(file)?));
    let parts = args.files.iter().map(read).collect::<Result<Vec<_>>>()?;
    let whole = result::merge(parts).status(Status::Usage)?;
    args.output.open()?.publish(&[&whole])
}
