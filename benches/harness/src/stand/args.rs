//! The command line of `c10k`, `c100k` and `c1m`, which differ in their defaults only.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::cpu::CpuList;
use crate::output;

/// The most connections that can be asked for.
const MOST_CONNECTIONS: usize = 10_000_000;

/// The most reactors that corelane starts.
const MOST_REACTORS: usize = 1_024;

/// The most processes of a kind.
const MOST_PROCESSES: u64 = 4_096;

/// The largest message in bytes.
const LARGEST_SIZE: usize = 1 << 20;

/// The most points of a slope.
const MOST_STEPS: usize = 100;

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
    /// The share of the connections that talk in that time, in percent, more than 0 and at most 100. The wake
    /// storm after it is of all.
    #[arg(long, default_value_t = 100.0, value_name = "PERCENT")]
    pub(super) active: f64,
    /// Messages that every connection that talks carries at least, even if that takes longer.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) rounds: u32,
    /// Messages in flight at a time on all connections together, 1 or more; `all`: as many as connections, so that the
    /// wake storm is of all in the same moment [default: a quarter of the packets that the host queues for a CPU
    /// (net.core.netdev_max_backlog), so that it drops none over loopback].
    #[arg(long, value_name = "N|all")]
    pub(super) in_flight: Option<InFlight>,
    /// How long a reply may take, and a dial, before the run fails.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) deadline: Duration,
    /// How long the connections may take to end in good order at the end.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) drain_deadline: Duration,
    /// Server processes on one port (SO_REUSEPORT), 1 to 4096 [default: as few as the descriptor limit allows].
    #[arg(long, value_name = "N")]
    pub(super) server_processes: Option<u64>,
    /// Client processes, 1 to 4096 [default: as few as the descriptor limit allows, and no fewer than servers].
    #[arg(long, value_name = "N")]
    pub(super) client_processes: Option<u64>,
    /// Reactors, and so threads, of each server process, 1 to 1024 [default: the server's CPUs in one process, 1 in
    /// each of several].
    #[arg(long, value_name = "N")]
    pub(super) reactors: Option<usize>,
    /// Reactors, and so threads, of each client process, 1 to 1024 [default: the client's CPUs in one process, 1 in
    /// each of several].
    #[arg(long, value_name = "N")]
    pub(super) client_reactors: Option<usize>,
    /// CPUs of the server processes, as in `0,2-3` [default: the upper half of the CPUs available].
    #[arg(long, value_name = "CPUS", conflicts_with = "no_pin")]
    pub(super) server_cpus: Option<CpuList>,
    /// CPUs of the client processes, as in `0,2-3` [default: the lower half of the CPUs available].
    #[arg(long, value_name = "CPUS", conflicts_with = "no_pin")]
    pub(super) client_cpus: Option<CpuList>,
    /// Let servers and clients use all CPUs alike, instead of keeping them apart.
    #[arg(long)]
    pub(super) no_pin: bool,
    /// At how many numbers of connections the memory is measured on the way up, 1 to 100: the slope is fitted to
    /// them.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(super) steps: usize,
    /// Fail if an idle connection takes more of the server's memory than this many bytes, by the slope; 0: do not
    /// look.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub(super) memory_limit: u32,
    /// Do not fail if the kernel counted drops or overflows in the meantime: its counters are of all programs.
    #[arg(long)]
    pub(super) allow_drops: bool,
    /// Measure the memory alone, with connections that are idle from the start, and in a second run with
    /// connections that have each echoed 1 KiB at every step. --size, --duration, --active and --rounds do not
    /// apply.
    #[arg(long)]
    pub(super) memory_slope: bool,
    #[command(flatten)]
    #[serde(skip)]
    pub(super) output: output::Args,
}

/// How many messages may be in flight at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum InFlight {
    /// One on every connection.
    All,
    #[serde(untagged)]
    Most(u64),
}

impl FromStr for InFlight {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(most @ 1..)) => Ok(Self::Most(most)),
            _ => bail!("must be a number from 1, or `all`"),
        }
    }
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
        let processes =
            [("--server-processes", self.server_processes), ("--client-processes", self.client_processes)];
        for (name, processes) in processes {
            ensure!(
                processes.is_none_or(|n| (1..=MOST_PROCESSES).contains(&n)),
                "{name} must be 1 to {MOST_PROCESSES}"
            );
        }
        ensure!(
            self.active > 0.0 && self.active <= 100.0,
            "--active must be more than 0 and at most 100 percent"
        );
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        ensure!((1..=MOST_STEPS).contains(&self.steps), "--steps must be 1 to {MOST_STEPS}");
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
        assert_eq!((args.reactors, args.client_reactors, args.in_flight), (None, None, None));
    }

    #[test]
    fn as_many_as_are_asked_for_may_be_in_flight() {
        let in_flight = |more| parse(more).unwrap().in_flight.unwrap();
        assert_eq!(in_flight("--in-flight all"), InFlight::All);
        assert_eq!(in_flight("--in-flight 7"), InFlight::Most(7));
        let shown = |in_flight| serde_json::to_string(&in_flight).unwrap();
        assert_eq!((shown(InFlight::All), shown(InFlight::Most(7))), ("\"all\"".to_owned(), "7".to_owned()));
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
            "--server-processes 0",
            "--client-processes 5000",
            "--active 0",
            "--active 101",
            "--active NaN",
            "--steps 0",
            "--rounds 0",
            "--in-flight 0",
            "--in-flight -1",
            "--in-flight some",
            "--deadline 0s",
            "--duration soon",
            "--no-pin --server-cpus 0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
