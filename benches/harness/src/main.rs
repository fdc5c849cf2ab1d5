//! Measures corelane and its peers: one command per kind of measurement.

mod commands;
mod compare;
mod cpu;
mod echo_server;
mod engine;
mod gate;
mod interrupt;
mod latency;
mod limits;
mod listener;
mod load;
mod measure;
mod merge;
mod outcome;
mod output;
mod pattern;
mod plan;
mod preflight;
mod process;
mod protocol;
mod report;
mod result;
mod scenario;
mod servers;
mod stand;
mod stats;
mod worker;

use std::process::ExitCode;

use clap::error::ErrorKind;
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
#[allow(clippy::large_enum_variant, reason = "there is one of it, for as long as the program runs")]
enum Command {
    /// Hold 10,000 connections to corelane's echo server, then use all of them.
    ///
    /// Servers and clients are processes of their own, built on corelane, on CPUs of their own. All connections are
    /// opened over loopback and held idle. Then some keep one message in flight; then all are woken, as many at a time
    /// as the host's queue of packets takes (`--in-flight all`: all at once). Every byte of every reply is compared with
    /// what was sent. At the end the servers get SIGTERM.
    ///
    /// Fails if a byte is wrong, a connection is lost or cannot be opened, a reply is late, or a process ends.
    C10k(stand::Args),
    /// Hold 100,000 connections to corelane's echo server, spread over processes as the descriptor limit demands.
    ///
    /// As c10k, with other defaults.
    #[command(
        mut_arg("connections", |arg| arg.default_value("100000")),
        mut_arg("hold", |arg| arg.default_value("5s")),
        mut_arg("active", |arg| arg.default_value("10")),
        mut_arg("deadline", |arg| arg.default_value("60s")),
        mut_arg("drain_deadline", |arg| arg.default_value("60s")),
        mut_arg("memory_limit", |arg| arg.default_value("160"))
    )]
    C100k(stand::Args),
    /// Hold 1,000,000 connections to corelane's echo server, spread over processes as the descriptor limit demands.
    ///
    /// As c10k, with other defaults. Takes about 10 GB of memory, most of it the kernel's.
    #[command(
        mut_arg("connections", |arg| arg.default_value("1000000")),
        mut_arg("hold", |arg| arg.default_value("5s")),
        mut_arg("active", |arg| arg.default_value("10")),
        mut_arg("deadline", |arg| arg.default_value("5min")),
        mut_arg("drain_deadline", |arg| arg.default_value("10min")),
        mut_arg("memory_limit", |arg| arg.default_value("160"))
    )]
    C1m(stand::Args),
    Preflight(preflight::Args),
    Compare(compare::Args),
    Run(commands::run::Args),
    FindMax(commands::find_max::Args),
    Sweep(commands::sweep::Args),
    SelfTest(commands::self_test::Args),
    AddedLatency(commands::added_latency::Args),
    Report(report::Args),
    Merge(merge::Args),
    #[command(hide = true)]
    EchoServer(echo_server::Args),
    #[command(hide = true)]
    Worker(worker::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let outcome = match cli.command {
        Command::C10k(args) => stand::run("c10k", &args),
        Command::C100k(args) => stand::run("c100k", &args),
        Command::C1m(args) => stand::run("c1m", &args),
        Command::Preflight(args) => preflight::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::FindMax(args) => commands::find_max::run(&args),
        Command::Sweep(args) => commands::sweep::run(&args),
        Command::SelfTest(args) => commands::self_test::run(&args),
        Command::AddedLatency(args) => commands::added_latency::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::EchoServer(args) => echo_server::run(&args),
        Command::Worker(args) => worker::run(&args),
    };
    match outcome {
        Ok(()) => outcome::Status::Fine.into(),
        Err(error) => {
            eprintln!("corelane-bench: {}", outcome::line(&error));
            outcome::Status::of(&error).into()
        }
    }
}

/// What is wrong with the arguments, in one line; or the help that they asked for.
fn refused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.render().to_string();
    let about = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<_> = about.map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = words.join(" ");
    eprintln!("corelane-bench: {}", line.strip_prefix("error: ").unwrap_or(&line));
    outcome::Status::Usage.into()
}
