//! Ten thousand connections to corelane's echo server, held and used: a first look at it.
//!
//! The client is built on corelane too, so it is one more test of it; how fast a server can be is for
//! `compare` to tell.

mod args;
mod caller;
mod client;
mod load;
mod memory;
mod run;
mod server;
mod slope;

use std::fmt::Display;
use std::io::{Write, stdout};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{interrupt, limits, outcome};

pub(crate) use args::Args;

/// An outcome for people and for programs.
type Told = (String, Value);

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    limits::raise_descriptor_limit()?;
    let file = args.json.as_deref().map(outcome::create).transpose()?;
    let stop = interrupt::flag()?;
    let measured = measure(args, &stop);
    if let Some(file) = file {
        let (outcome, failure) = match &measured {
            Ok((_, value)) => (Some(value), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let document = json!({
            "command": "c10k",
            "version": env!("CARGO_PKG_VERSION"),
            "arguments": args,
            "failure": failure,
            "outcome": outcome,
        });
        outcome::write(file, &document)?;
    }
    let (text, _) = measured?;
    stdout().write_all(text.as_bytes()).context("cannot print the outcome")
}

fn measure(args: &Args, stop: &AtomicBool) -> Result<Told> {
    if args.memory_slope {
        let slopes = slope::measure(args, stop)?;
        Ok((slopes.text() + &note(slopes.limited.as_ref()), json!(slopes)))
    } else {
        let outcome = load::measure(args, stop)?;
        Ok((outcome.text() + &note(outcome.limited.as_ref()), json!(outcome)))
    }
}

/// What a reader of the numbers must know.
fn note(limited: Option<&impl Display>) -> String {
    limited.map_or_else(String::new, |limited| format!("\nnote: {limited}\n"))
}
