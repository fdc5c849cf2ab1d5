//! The command line of `c10k`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

/// The most connections that can be asked for.
const MOST_CONNECTIONS: usize = 10_000_000;

/// The most reactors that corelane starts.
const MOST_REACTORS: usize = 1_024;

/// The largest message in bytes.
const LARGEST_SIZE: usize = 1 << 20;

/// Hold 10,000 connections to corelane's echo server, then use all of them.
///
/// The server runs on all CPUs in a process of its own, the client here; both are built on
/// corelane. All connections are opened over loopback and held idle. Then each keeps one message
/// in flight, and every byte of every reply is compared with what was sent.
///
/// Fails if a byte is wrong, a connection is lost or cannot be opened, a reply is late, or the
/// server ends.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub(crate) struct Args {
    /// Connections to hold, 1 to 10000000.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(super) connections: usize,
    /// Bytes of a message, 1 to 1048576.
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub(super) size: usize,
    /// How long the connections are held idle, twice before messages are sent and once after.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) hold: Duration,
    /// How long messages go back and forth, as in `500ms`, `10s`, `2min`.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,
    /// Messages that every connection carries at least, even if that takes longer.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) rounds: u32,
    /// How long a reply may take before the run fails.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) deadline: Duration,
    /// Reactors, and so threads, of the server [default: the CPUs available].
    #[arg(long, value_name = "N")]
    pub(super) reactors: Option<usize>,
    /// Reactors, and so threads, of the client [default: the CPUs available].
    #[arg(long, value_name = "N")]
    pub(super) client_reactors: Option<usize>,
    /// Measure the server's memory at five numbers of connections instead, and tell the slope.
    ///
    /// Once with connections that are idle from the start, once with connections that have each
    /// echoed 1 KiB before. --size, --duration and --rounds do not apply.
    #[arg(long)]
    pub(super) memory_slope: bool,
    /// Write the outcome to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

impl Args {
    pub(super) fn check(&self) -> Result<()> {
        let connections = 1..=MOST_CONNECTIONS;
        ensure!(connections.contains(&self.connections), "--connections must be 1 to {MOST_CONNECTIONS}");
        ensure!((1..=LARGEST_SIZE).contains(&self.size), "--size must be 1 to {LARGEST_SIZE} bytes");
        for (name, reactors) in [("--reactors", self.reactors), ("--client-reactors", self.client_reactors)] {
            ensure!(
                reactors.is_none_or(|n| (1..=MOST_REACTORS).contains(&n)),
                "{name} must be 1 to {MOST_REACTORS}"
            );
        }
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        ensure!(!self.deadline.is_zero(), "--deadline must not be zero");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(more: &str) -> Result<Args> {
        let args = Cli::try_parse_from(["c10k"].into_iter().chain(more.split_whitespace()))?.args;
        args.check()?;
        Ok(args)
    }

    #[test]
    fn the_defaults_are_ten_thousand_for_ten_seconds() {
        let args = parse("").unwrap();
        assert_eq!((args.connections, args.size, args.rounds), (10_000, 64, 1));
        assert_eq!((args.duration, args.deadline), (Duration::from_secs(10), Duration::from_secs(10)));
        assert_eq!((args.reactors, args.client_reactors), (None, None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--connections 0",
            "--connections 99999999",
            "--size 0",
            "--size 2000000",
            "--reactors 0",
            "--client-reactors 1025",
            "--rounds 0",
            "--deadline 0s",
            "--duration soon",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
