//! `added-latency`: how much later than a bare client each engine sees a reply.
//!
//! A server of one blocking thread echoes on one connection. A client that only sends and receives, blocking, is the
//! floor: what it measures is the kernel and the server. What an engine measures above that is its own.

mod bare;

use std::time::Duration;

use anyhow::Result;

use super::session::Session;
use crate::cpu::CpuList;
use crate::latency::{Latencies, format_ns};
use crate::outcome::{Status, WithStatus, ends};
use crate::output;
use crate::plan::{Engine, Settings, Span};
use crate::result::{Kind, Phases, RunResult, Target, merge_phases};
use bare::BareServer;

/// So long an engine looks for events before it sleeps, where it is not to sleep at all.
const ALWAYS: Duration = Duration::from_millis(100);

/// The quantiles that are told in notes.
const TOLD: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Measure the latency that each engine adds to what a bare blocking client sees at the same rate.
///
/// One connection, a message at a time, at a constant rate; the clients take turns. The reply counts from when it was
/// sent (raw: the client's way to see it) and from when it was due (corrected: its timer too), both by clients that
/// sleep until then and by ones that spin.
#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    /// Messages per second.
    #[arg(long, short = 'r', default_value_t = 10_000.0, value_name = "N")]
    rate: f64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    size: usize,
    /// How long each client is measured at a time.
    #[arg(long, default_value = "2s", value_name = "TIME")]
    duration: Span,
    /// Rounds, in each of which every client is measured once.
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// CPUs of the server [default: the lower half of those available].
    #[arg(long, value_name = "CPUS")]
    server_cpus: Option<CpuList>,
    /// CPUs of the client [default: the upper half of those available].
    #[arg(long, value_name = "CPUS")]
    client_cpus: Option<CpuList>,
    #[command(flatten)]
    output: output::Args,
}

/// One of those that take turns.
#[derive(Clone, Copy, Debug)]
struct Client {
    label: &'static str,
    /// `None`: the bare one.
    engine: Option<Engine>,
    spins: bool,
}

const CLIENTS: [Client; 6] = [
    Client { label: "bare", engine: None, spins: false },
    Client { label: "corelane", engine: Some(Engine::Corelane), spins: false },
    Client { label: "uring", engine: Some(Engine::Uring), spins: false },
    Client { label: "bare spinning", engine: None, spins: true },
    Client { label: "corelane spinning", engine: Some(Engine::Corelane), spins: true },
    Client { label: "uring spinning", engine: Some(Engine::Uring), spins: true },
];

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.rounds == 0 {
        return Err(ends(Status::Usage, "--rounds must be at least 1"));
    }
    let output = args.output.open()?;
    let (lower, upper) = CpuList::allowed()?.halves();
    let server = BareServer::start(args.server_cpus.clone().unwrap_or(lower))?;
    let settings = Settings {
        target: Some(format!("tcp://{}", server.address())),
        rate: Some(args.rate),
        size: Some(args.size.to_string()),
        duration: Some(args.duration),
        warmup: Some(Span(Duration::from_millis(200))),
        connections: Some(1),
        // As the bare one: what is due while a reply is outstanding has to wait for it.
        depth: Some(1),
        reactors: Some(1),
        // Late sends are part of what is measured.
        tolerance: Some(100.0),
        client_cpus: Some(args.client_cpus.clone().unwrap_or(upper)),
        server_pid: Some(std::process::id()),
        ..Settings::default()
    };
    let session = Session::start(settings.clone())?;
    let mut result = RunResult::begin(Kind::Run, "added-latency", session.plan())?;
    drop(session);
    let outcome = (0..args.rounds).try_for_each(|_| one_round(&settings, &server, &mut result.targets));
    result.partial = outcome.is_err();
    result.notes.extend(CLIENTS.iter().filter_map(|client| note(client, &result.targets)));
    output.deliver(result, outcome)
}

fn one_round(settings: &Settings, server: &BareServer, targets: &mut Vec<Target>) -> Result<()> {
    for client in CLIENTS {
        let settings = Settings {
            engine: client.engine,
            spin: client.spins.then_some(Span(ALWAYS)),
            ..settings.clone()
        };
        let session = Session::start(settings)?;
        let measured = match client.engine {
            Some(_) => session.measure(session.plan(), client.label)?.target,
            None => bare::measure(session.plan(), server.address(), client.label, client.spins)
                .status(Status::Unreachable)?,
        };
        if session.is_interrupted() {
            return Err(ends(Status::Interrupted, "interrupted: the result is partial"));
        }
        match targets.iter_mut().find(|target| target.label == client.label) {
            Some(target) => {
                merge_phases(&mut target.phases, replies(measured.phases))?;
                target.seconds += measured.seconds;
                target.counts.sent += measured.counts.sent;
                target.counts.received += measured.counts.received;
                target.counts.received_bytes += measured.counts.received_bytes;
                target.counts.verified_bytes += measured.counts.verified_bytes;
                target.counts.late += measured.counts.late;
                target.counts.never_sent += measured.counts.never_sent;
            }
            // What was used and seen by the second is of one round only.
            None => targets.push(Target {
                series: Vec::new(),
                server_cost: None,
                client_cost: None,
                generator: None,
                checks: Vec::new(),
                notes: Vec::new(),
                phases: replies(measured.phases.clone()),
                ..measured
            }),
        }
    }
    Ok(())
}

/// The bare client has no other phase.
fn replies(phases: Phases) -> Phases {
    Phases { reply: phases.reply, ..Phases::default() }
}

/// What an engine adds to the bare client that waits as it does.
fn note(client: &Client, targets: &[Target]) -> Option<String> {
    client.engine?;
    let of = |label: &str| targets.iter().find(|target| target.label == label);
    let bare = CLIENTS.iter().find(|other| other.engine.is_none() && other.spins == client.spins)?;
    let (ours, floor) = (&of(client.label)?.phases.reply, &of(bare.label)?.phases.reply);
    let added = |ours: Option<&Latencies>, floor: Option<&Latencies>| {
        let told = TOLD.map(|(name, quantile)| {
            let ns = |latencies: Option<&Latencies>| latencies?.quantile_ns(quantile).map(|ns| ns as f64);
            let difference = ns(ours).zip(ns(floor)).map_or(f64::NAN, |(ours, floor)| ours - floor);
            let sign = if difference < 0.0 { '-' } else { '+' };
            format!("{name} {sign}{}", format_ns(difference.abs()))
        });
        told.join(", ")
    };
    Some(format!(
        "{} adds to {}: from the send {}; from when it was due {}",
        client.label,
        bare.label,
        added(ours.raw.as_ref(), floor.raw.as_ref()),
        added(ours.corrected.as_ref(), floor.corrected.as_ref())
    ))
}
