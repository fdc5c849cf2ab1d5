//! Measures corelane and its peers: one command per kind of measurement.

mod c10k;
mod commands;
mod compare;
mod cpu;
mod echo_server;
mod engine;
mod gate;
mod interrupt;
#[allow(dead_code)]
mod latency;
mod limits;
mod load;
mod merge;
#[allow(dead_code)]
mod outcome;
mod output;
mod pattern;
mod plan;
mod process;
mod protocol;
mod report;
#[allow(dead_code, unused_imports)]
mod result;
mod scenario;
mod servers;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures corelane and its peers on one machine.
#[derive(Debug, Parser)]
#[command(name = "corelane-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Each says in its arguments what it does.
#[derive(Debug, Subcommand)]
// There is one of it, for as long as the program runs.
#[allow(clippy::large_enum_variant)]
enum Command {
    C10k(c10k::Args),
    Compare(compare::Args),
    Run(commands::run::Args),
    FindMax(commands::find_max::Args),
    Sweep(commands::sweep::Args),
    SelfTest(commands::self_test::Args),
    Report(report::Args),
    Merge(merge::Args),
    #[command(hide = true)]
    EchoServer(echo_server::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::C10k(args) => c10k::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::FindMax(args) => commands::find_max::run(&args),
        Command::Sweep(args) => commands::sweep::run(&args),
        Command::SelfTest(args) => commands::self_test::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::EchoServer(args) => echo_server::run(&args),
    };
    match outcome {
        Ok(()) => outcome::Status::Fine.into(),
        Err(error) => {
            eprintln!("corelane-bench: {}", outcome::line(&error));
            outcome::Status::of(&error).into()
        }
    }
}
