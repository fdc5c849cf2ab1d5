//! What this host allows and what a run would need: read before every run of `stand`, and by the command
//! `preflight` for people and scripts. Reads only, needs no privileges.

mod args;
mod cgroup;
mod host;
mod layout;
mod limit;
mod text;

use std::io::{Write, stdout};

use anyhow::{Context, Result};

use crate::outcome::{self, Status, WithStatus};

pub(crate) use args::Args;
pub(crate) use host::Host;
pub(crate) use layout::{Asked, Layout};
pub(crate) use limit::{Limit, Need, Role, Verdict, judge};
pub(crate) use text::line;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check().status(Status::Usage)?;
    let host = Host::read()?;
    let report = text::Report::new(&host, args);
    let text = match args.format {
        args::Format::Text => report.text(),
        args::Format::Json => report.json()?,
    };
    stdout().write_all(text.as_bytes()).context("cannot print the limits")?;
    match report.lacking() {
        None => Ok(()),
        Some(why) => Err(outcome::ends(Status::HostLimits, why)),
    }
}
