//! The command line of `compare`, and the plan that follows from it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::cpu::CpuList;
use crate::load::{Conversation, Load, Mode, SMALLEST_LINE};
use crate::outcome::{Status, WithStatus};
use crate::plan::{Dialect, Settings, Span, Target};
use crate::{limits, output};

/// Addresses that churn is spread over, as a closed connection holds its port for a while.
const CHURN_SOURCES: u64 = 4;

/// The largest message.
const LARGEST_SIZE: usize = 16 << 20;

/// The longest line that is broadcast.
const LARGEST_LINE: usize = 16 << 10;

/// Compare two servers by interleaved slices.
///
/// A server is a command which prints `listening on ADDRESS` on stdout (for `broadcast`, then `publish on ADDRESS`),
/// or the address of one that runs already: tcp://IP:PORT, http://HOST/PATH, redis://HOST, frames://HOST:PORT.
/// B is measured a second time, of a command by a second instance of it: that ratio shows the noise of the machine.
#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    /// Server A: a command line (split as by a shell, run without one) or an address.
    #[arg(long, value_name = "SERVER")]
    a: String,
    /// Server B, the yardstick.
    #[arg(long, value_name = "SERVER")]
    b: String,
    /// Name of A in the report.
    #[arg(long, default_value = "A")]
    label_a: String,
    /// Name of B in the report.
    #[arg(long, default_value = "B")]
    label_b: String,
    /// A further server, which is compared with B as A is; may be given several times.
    #[arg(long, value_name = "NAME=SERVER", value_parser = named_command)]
    also: Vec<(String, String)>,
    /// Process of a server that runs already, by its name in the report, to measure its CPU time [default: whoever
    /// listens at its address].
    #[arg(long, value_name = "NAME=PID", value_parser = named_process)]
    server_pid: Vec<(String, u32)>,
    /// What is said to servers that are commands (of `closed` and `rate`).
    #[arg(long, value_enum, default_value_t = Dialect::Echo)]
    protocol: Dialect,
    /// Path that is fetched from servers that are commands (of `http`).
    #[arg(long, default_value = "/", value_name = "PATH")]
    path: String,
    /// Requests by weight, as of `run`: `80:64,20:16k`, `80:/a,20:/b`, `90:get:64,9:set:64,1:ping` (of `closed` and
    /// `rate`).
    #[arg(long, value_name = "LIST")]
    mix: Option<String>,
    /// Keys that redis requests are spread over.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    keys: u32,
    /// Send SET and GET of redis as RESP arrays, as its clients do, instead of inline.
    #[arg(long)]
    resp: bool,
    /// CPUs of the servers.
    #[arg(long, default_value = "0", value_name = "CPUS")]
    server_cpus: CpuList,
    /// CPUs of the client.
    #[arg(long, default_value = "1", value_name = "CPUS")]
    client_cpus: CpuList,
    /// Threads of the client, each with connections of its own.
    #[arg(long, default_value_t = 1)]
    client_threads: usize,
    /// How messages are paced.
    #[arg(long, value_enum, default_value_t = Pacing::Closed)]
    mode: Pacing,
    /// Measured connections (of `closed` and `rate`), or subscribers (of `broadcast`).
    #[arg(long, short = 'c', default_value_t = 64)]
    connections: usize,
    /// Messages each connection keeps in flight (of `closed`); lines published and not everywhere yet (of
    /// `broadcast`).
    #[arg(long, short = 'd', default_value_t = 1)]
    depth: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Messages per second over all connections (of `rate`).
    #[arg(long, required_if_eq("mode", "rate"))]
    rate: Option<f64>,
    /// Sends later than this after their time are counted as late (of `rate`).
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration)]
    late_after: Duration,
    /// Percentage of sends that may be late, or never made, before the comparison fails (of `rate`).
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    tolerance: f64,
    /// Connections under way at a time (of `churn`).
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// End connections with RST instead of FIN (of `churn`).
    #[arg(long)]
    reset: bool,
    /// Further connections which carry as much as they can, beside the measured ones.
    #[arg(long, default_value_t = 0, value_name = "N")]
    background_firehose: usize,
    /// Rounds, in each of which every server is measured once.
    #[arg(long, default_value_t = 30)]
    pairs: usize,
    /// How long a server is measured at a time.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    slice: Duration,
    /// How long it is loaded before that.
    #[arg(long, default_value = "300ms", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Poll for replies instead of sleeping: spares the server the cost of waking the client.
    #[arg(long)]
    spin: bool,
    /// Seed of the order within rounds [default: from the time].
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    pub(super) output: output::Args,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pacing {
    /// Each connection keeps messages in flight.
    Closed,
    /// Messages are due at a constant rate, and latency counts from then.
    Rate,
    /// Connect, one echo, close.
    Churn,
    /// One publisher sends lines to all subscribers; a message is a line that one of them got.
    Broadcast,
}

/// What is to be done.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plan {
    pub(super) load: Load,
    pub(super) dialect: Dialect,
    pub(super) path: String,
    pub(super) mix: Option<String>,
    /// What makes the plan for each server.
    #[serde(skip)]
    settings: Settings,
    /// What the judgement of `run` goes by; servers differ in their address alone.
    #[serde(skip)]
    pub(super) judged: crate::plan::Plan,
    pub(super) server_cpus: CpuList,
    /// The percentage of sends that may be late.
    pub(super) tolerance: f64,
    pub(super) rounds: usize,
    pub(super) seed: u64,
    /// A, B, the second instance of B, and the further ones.
    pub(super) contestants: Vec<Contestant>,
}

/// A server under test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Contestant {
    pub(super) label: String,
    /// A command line, or an address.
    pub(super) server: String,
    pub(super) pid: Option<u32>,
}

impl Contestant {
    /// The address, of a server that runs already.
    pub(super) fn running(&self) -> Option<&str> {
        let schemes = ["tcp://", "http://", "redis://", "frames://"];
        schemes.iter().any(|scheme| self.server.starts_with(scheme)).then_some(self.server.as_str())
    }
}

/// The place of the yardstick among the contestants.
pub(super) const B: usize = 1;

/// The place of its second instance.
pub(super) const CONTROL: usize = 2;

/// The name and the command of a further server.
fn named_command(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.trim().is_empty() && !command.trim().is_empty() => {
            Ok((name.trim().to_owned(), command.trim().to_owned()))
        }
        _ => Err("give it as in `epoll=target/release/peer-epoll --addr 127.0.0.1:0`".to_owned()),
    }
}

/// The name of a server and its process.
fn named_process(text: &str) -> Result<(String, u32), String> {
    let parsed =
        text.split_once('=').and_then(|(name, pid)| Some((name.trim().to_owned(), pid.parse().ok()?)));
    parsed.ok_or_else(|| "give it as in `redis-server=1234`".to_owned())
}

impl Plan {
    /// Checks the arguments; `ports` are those the kernel gives to outgoing connections.
    pub(super) fn new(args: &Args, ports: (u16, u16)) -> Result<Self> {
        let mode = match (args.mode, args.rate) {
            (Pacing::Closed, _) => Mode::Closed { depth: args.depth },
            (Pacing::Broadcast, _) => Mode::Broadcast { depth: args.depth },
            (Pacing::Churn, _) => Mode::Churn { reset: args.reset },
            (Pacing::Rate, rate) => {
                Mode::Rate { per_second: rate.unwrap_or_default(), late_after: args.late_after }
            }
        };
        let churn = args.mode == Pacing::Churn;
        let connections = if churn { args.concurrency } else { args.connections };
        ensure!((1..=LARGEST_SIZE).contains(&args.size), "--size must be 1 to {LARGEST_SIZE}");
        ensure!(args.depth > 0, "--depth must be at least 1");
        ensure!(args.depth * args.size <= 4 * LARGEST_SIZE, "--depth times --size is too much");
        ensure!(args.pairs > 0, "--pairs must be at least 1");
        ensure!(!args.slice.is_zero(), "--slice must not be zero");
        ensure!(args.client_threads > 0, "--client-threads must be at least 1");
        ensure!(connections >= args.client_threads, "every client thread needs a connection");
        ensure!(
            !churn || args.background_firehose == 0,
            "--background-firehose goes with connections that stay"
        );
        if args.mode == Pacing::Broadcast {
            let sizes = SMALLEST_LINE..=LARGEST_LINE;
            ensure!(sizes.contains(&args.size), "--size of a line must be {sizes:?}");
            ensure!(args.client_threads == 1, "one thread publishes and subscribes");
            ensure!(args.background_firehose == 0, "--background-firehose goes with echo servers");
        }
        if let Mode::Rate { per_second, .. } = mode {
            ensure!(per_second.is_finite() && per_second > 0.0, "--rate must be positive");
        }
        // A port that is taken can be used again, but only after a search that takes its time.
        let ports_in_use = if churn && !args.reset {
            CHURN_SOURCES * u64::from(ports.1 - ports.0) / 2
        } else {
            (connections + args.background_firehose) as u64
        };
        let settings = settings(args, mode, connections);
        let contestants = contestants(args)?;
        let target = what_is_said(args, &contestants)?;
        let judged = settings.plan(target.clone())?;
        ensure!(
            mode.is_steady() || (target.dialect == Dialect::Echo && args.mix.is_none()),
            "other protocols and --mix go with --mode closed and rate"
        );
        Ok(Self {
            dialect: target.dialect,
            path: target.path,
            mix: args.mix.clone(),
            settings,
            judged,
            load: Load {
                mode,
                connections,
                size: args.size,
                firehose: args.background_firehose,
                threads: args.client_threads,
                cpus: args.client_cpus.clone(),
                warmup: args.warmup,
                slice: args.slice,
                spin: args.spin,
                sources: limits::sources(ports_in_use, ports),
                count_calls: false,
            },
            server_cpus: args.server_cpus.clone(),
            tolerance: args.tolerance,
            rounds: args.pairs,
            seed: args.seed.unwrap_or_else(seed_from_time),
            contestants,
        })
    }

    /// What is said to a server.
    pub(super) fn conversation(&self, target: Target) -> Result<Conversation> {
        Conversation::prepare(self.settings.plan(target).status(Status::Usage)?)
    }

    /// The connections that are open at a time.
    pub(super) fn connections_in_all(&self) -> u64 {
        let publishers = usize::from(self.broadcasts());
        (self.load.connections + self.load.firehose + publishers) as u64
    }

    pub(super) fn broadcasts(&self) -> bool {
        matches!(self.load.mode, Mode::Broadcast { .. })
    }
}

/// What is said to the servers, all of them: where is that of the first that is told of.
fn what_is_said(args: &Args, contestants: &[Contestant]) -> Result<Target> {
    let mut command = Target::new(args.protocol, &SocketAddr::from(([127, 0, 0, 1], 1)).into());
    command.path.clone_from(&args.path);
    let targets = contestants.iter().map(|contestant| match contestant.running() {
        Some(text) => Target::parse(text),
        None => Ok(command.clone()),
    });
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let first = targets[0].clone();
    for (target, contestant) in targets.iter().zip(contestants) {
        let (said, other) = (first.dialect.name(), target.dialect.name());
        ensure!(said == other, "{} is spoken to by {other}, not {said}: see --protocol", contestant.label);
    }
    Ok(first)
}

/// The settings of `run` that make the plan for one server.
fn settings(args: &Args, mode: Mode, connections: usize) -> Settings {
    let (depth, rate) = match mode {
        Mode::Rate { per_second, .. } => (None, Some(per_second)),
        // The others take from it how long to wait, no more.
        _ => (Some(args.depth), None),
    };
    Settings {
        connections: Some(connections),
        size: Some(args.size.to_string()),
        mix: args.mix.clone(),
        depth,
        rate,
        duration: Some(Span(args.slice)),
        warmup: Some(Span(args.warmup)),
        late_after: Some(Span(args.late_after)),
        tolerance: Some(args.tolerance),
        // How long does not matter to this client: it spins all the time.
        spin: args.spin.then_some(Span(Duration::from_millis(1))),
        keys: Some(args.keys),
        resp: Some(args.resp),
        ..Settings::default()
    }
}

fn contestants(args: &Args) -> Result<Vec<Contestant>> {
    let new = |label: &str, server: &str| Contestant {
        label: label.to_owned(),
        server: server.to_owned(),
        pid: args.server_pid.iter().find(|(name, _)| name == label).map(|(_, pid)| *pid),
    };
    let mut contestants = vec![
        new(&args.label_a, &args.a),
        new(&args.label_b, &args.b),
        new(&format!("{}'", args.label_b), &args.b),
    ];
    contestants[CONTROL].pid = contestants[B].pid;
    contestants.extend(args.also.iter().map(|(label, server)| new(label, server)));
    for (name, _) in &args.server_pid {
        let is_there = contestants.iter().any(|one| one.label == *name && one.running().is_some());
        ensure!(is_there, "--server-pid: no server that runs already is called `{name}`");
    }
    for (index, contestant) in contestants.iter().enumerate() {
        let same = contestants[..index].iter().any(|earlier| earlier.label == contestant.label);
        ensure!(!same, "two servers are called `{}`: give them different names", contestant.label);
    }
    Ok(contestants)
}

fn seed_from_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
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
        let required = ["compare", "--a", "server --fast", "--b", "server"];
        let words = required.into_iter().chain(more.split_whitespace());
        Ok(Cli::try_parse_from(words)?.args)
    }

    fn plan(more: &str) -> Result<Plan> {
        Plan::new(&parse(more)?, (32_768, 60_999))
    }

    #[test]
    fn the_defaults_are_a_closed_loop() {
        let plan = plan("").unwrap();
        let load = &plan.load;
        assert!(matches!(load.mode, Mode::Closed { depth: 1 }));
        assert_eq!((load.connections, load.size, load.threads), (64, 64, 1));
        assert_eq!(load.slice, Duration::from_secs(1));
        assert_eq!(load.warmup, Duration::from_millis(300));
        assert_eq!((plan.rounds, plan.server_cpus.len()), (30, 1));
        assert!(load.sources.is_empty());
        let [a, b, control] = &plan.contestants[..] else { panic!("{:?}", plan.contestants) };
        assert_eq!((a.label.as_str(), a.server.as_str()), ("A", "server --fast"));
        assert_eq!((control.label.as_str(), control.server.as_str()), ("B'", "server"));
        assert_eq!(b.server, control.server);
    }

    #[test]
    fn a_rate_is_needed_and_positive() {
        assert!(plan("--mode rate").is_err());
        assert!(plan("--mode rate --rate 0").is_err());
        assert!(plan("--mode rate --rate inf").is_err());
        let plan = plan("--mode rate --rate 5e3 --late-after 200us").unwrap();
        let Mode::Rate { per_second, late_after } = plan.load.mode else {
            panic!("another mode");
        };
        assert_eq!((per_second, late_after), (5_000.0, Duration::from_micros(200)));
        assert!(plan.judged.load.is_open() && plan.judged.late_after == late_after);
        assert_eq!((plan.tolerance, plan.judged.tolerance), (1.0, 1.0), "as of run");
    }

    #[test]
    fn churn_counts_its_concurrency_and_spreads_its_ports() {
        let spread = plan("--mode churn --concurrency 8").unwrap();
        assert_eq!(spread.connections_in_all(), 8);
        assert_eq!(spread.load.sources.len(), 4);
        assert!(plan("--mode churn --reset").unwrap().load.sources.is_empty());
        assert!(plan("--mode churn --background-firehose 1").is_err());
    }

    #[test]
    fn a_broadcast_has_a_publisher_besides() {
        let plan = plan("--mode broadcast --connections 1000 --size 100 --depth 4").unwrap();
        assert!(plan.broadcasts());
        assert_eq!(plan.connections_in_all(), 1_001);
    }

    #[test]
    fn many_connections_need_several_sources() {
        let plan = plan("--connections 14000 --background-firehose 1000").unwrap();
        assert_eq!(plan.connections_in_all(), 15_000);
        assert_eq!(plan.load.sources.len(), 2);
    }

    #[test]
    fn labels_and_cpus_are_taken() {
        let plan = plan("--label-b epoll --server-cpus 0,1 --client-cpus 2").unwrap();
        assert_eq!(plan.contestants[CONTROL].label, "epoll'");
        assert_eq!((plan.server_cpus.len(), plan.load.cpus.len()), (2, 1));
    }

    #[test]
    fn further_servers_come_after() {
        let plan = plan("--also mio=peer-mio --also c=x=1").unwrap();
        let further: Vec<_> = plan.contestants[CONTROL + 1..].iter().collect();
        assert_eq!(further.len(), 2);
        assert_eq!((further[0].label.as_str(), further[0].server.as_str()), ("mio", "peer-mio"));
        assert_eq!((further[1].label.as_str(), further[1].server.as_str()), ("c", "x=1"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--size 0",
            "--size 99999999",
            "--depth 0",
            "--pairs 0",
            "--slice 0s",
            "--client-threads 0",
            "--connections 1 --client-threads 2",
            "--server-cpus none",
            "--slice fast",
            "--mode open",
            "--label-a B",
            "--also B=server",
            "--also nameless",
            "--also =server",
            "--mode broadcast --size 5",
            "--mode broadcast --size 100000",
            "--mode broadcast --client-threads 2",
            "--mode rate --rate 10 --tolerance 101",
            "--mode rate --rate 10 --tolerance -1",
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }
}
