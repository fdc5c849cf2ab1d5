//! A great number of connections to corelane's echo server, held and used: the commands `c10k`, `c100k` and `c1m`.
//!
//! The client is built on corelane too, so it is one more test of it. How fast a server can be is for `compare` and
//! `run` to tell. Server and client are processes of this program, as many as the descriptor limit takes, and
//! `worker` speaks with them: one of each for ten thousand connections, 53 of each for a million under a limit of
//! 20,000 descriptors.

mod args;
mod caller;
pub(crate) mod client;
mod fill;
mod measure;
mod open;
mod plan;
mod run;
mod talk;

use anyhow::Result;
use serde_json::json;

use crate::outcome::{Status, WithStatus};
use crate::result::{Kind, RunResult};
use crate::{interrupt, limits, preflight};

pub(crate) use args::Args;

/// Runs the command of this name.
pub(crate) fn run(command: &str, args: &Args) -> Result<()> {
    args.check().status(Status::Usage)?;
    limits::raise_descriptor_limit()?;
    let plan = plan::Plan::new(args)?;
    let mut result =
        RunResult::begin(Kind::Stand, command, &json!({ "arguments": args, "decisions": plan }))?;
    result.title = format!("{command}: {}", plan.title());
    for limit in &plan.limits {
        result.limits.push(preflight::line(limit));
        // Before the run: a reader of its figures, or of its failure, needs to know.
        eprintln!("limit: {}", preflight::line(limit));
    }
    if let Some(note) = plan.limited(args.connections) {
        eprintln!("note: {note}");
        result.notes.push(note);
    }
    let output = args.output.open()?;
    let stop = interrupt::flag()?;
    let measured = if args.memory_slope {
        measure::slopes(args, &plan, &stop, &mut result)
    } else {
        measure::all(args, &plan, &stop, &mut result)
    };
    output.deliver(result, measured)
}
