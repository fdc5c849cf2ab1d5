//! Servers measured in turns, beside a second instance of one of them.
//!
//! Two runs on a shared machine differ by more than two good servers do. So slices are short, the
//! servers take turns in a random order, and what is compared is the ratio within a round. The
//! control (the same server twice) shows what ratio means nothing.

mod args;
mod contender;
mod look;
mod record;
mod report;
mod turns;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Error, Result, anyhow, bail};

use crate::cpu::CpuClock;
use crate::load::{self, Loader};
use crate::outcome::{Status, WithStatus, ends};
use crate::result::{Kind, RunResult, unix_ms};
use crate::{interrupt, limits, pattern};

pub(crate) use args::Args;
use args::{Contestant, Plan};
use contender::Contender;
use look::Look;
use record::record;
use turns::Turns;
use watch::{Seen, Watch};

/// How long a server's end may trail the loss of its connections.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// In the order of the plan's contestants.
type Measured = Vec<Turns>;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let descriptors = limits::raise_descriptor_limit()?;
    let plan = Plan::new(args, limits::ephemeral_ports()?).status(Status::Usage)?;
    limits::ensure_descriptors(plan.connections_in_all(), descriptors).status(Status::HostLimits)?;
    let output = args.output.open()?;
    let stop = interrupt::flag()?;

    let mut result = RunResult::begin(Kind::Compare, "compare", &plan)?;
    let mut measured: Measured = plan.contestants.iter().map(|_| Turns::default()).collect();
    let outcome = measure(&plan, &stop, &mut measured).map_err(|error| with_status(error, &stop));
    let kept = report::fill(&mut result, &plan, measured);
    output.deliver(result, outcome.and(kept))
}

/// Every failure of a measurement has to do with a server, unless it says otherwise.
fn with_status(error: Error, stop: &AtomicBool) -> Error {
    let status = match Status::of(&error) {
        _ if stop.load(Ordering::Relaxed) => Status::Interrupted,
        Status::Failed if error.is::<pattern::Mismatch>() => Status::WrongData,
        Status::Failed => Status::Unreachable,
        known => known,
    };
    ends(status, error)
}

fn measure(plan: &Plan, stop: &AtomicBool, measured: &mut [Turns]) -> Result<()> {
    // Only to be told now, and clearly, if the servers could not use theirs.
    plan.server_cpus.pin_this_thread()?;
    // Before any thread is started, as they all inherit this.
    plan.load.cpus.pin_this_thread()?;
    let mut servers = start(plan, stop)?;
    for (turns, server) in measured.iter_mut().zip(&servers) {
        (turns.address, turns.begun_unix_ms) = (Some(server.address), unix_ms(SystemTime::now()));
    }
    let loader = Loader::new(plan.load.clone(), plan.server_cpus.union(&plan.load.cpus));
    let counting = loader.counting_calls();
    for contestant in 0..servers.len() {
        let look = Look::take(plan, &counting, &servers[contestant], stop)
            .and_then(|look| ensure_alive(plan, &mut servers).map(|()| look))
            .map_err(|error| explain(error, plan, &mut servers, contestant, "before the rounds"))?;
        measured[contestant].look = Some(look);
    }
    let mut order: Vec<usize> = (0..servers.len()).collect();
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    for round in 0..plan.rounds {
        rng.shuffle(&mut order);
        for (position, &contestant) in order.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let OneSlice { slice, others, seen } = one_slice(&loader, &servers, contestant, stop)
                .and_then(|measured| ensure_alive(plan, &mut servers).map(|()| measured))
                .map_err(|error| {
                    explain(error, plan, &mut servers, contestant, &format!("round {}", round + 1))
                })?;
            let turns = &mut measured[contestant];
            turns.count(&slice.tally, seen)?;
            turns.slices.push(record(round, position, &slice, others, plan));
        }
        report::progress(plan, round, measured);
    }
    Ok(())
}

fn start(plan: &Plan, stop: &AtomicBool) -> Result<Vec<Contender>> {
    let start = |contestant: &Contestant| {
        let contender = Contender::new(plan, contestant, stop)?;
        eprintln!("{}: {}", contestant.label, contender.address);
        Ok::<_, Error>(contender)
    };
    plan.contestants.iter().map(start).collect()
}

/// What was measured and seen in one slice.
#[derive(Debug)]
struct OneSlice {
    slice: load::Slice,
    /// The share of a CPU that the other servers took meanwhile.
    others: f64,
    seen: Seen,
}

/// Measures one server.
fn one_slice(
    loader: &Loader,
    servers: &[Contender],
    contestant: usize,
    stop: &AtomicBool,
) -> Result<OneSlice> {
    let server = &servers[contestant];
    // One that runs already may be measured under two names.
    let others = servers.iter().filter(|other| other.address != server.address);
    let clocks: Vec<CpuClock> = others.filter_map(Contender::clock).collect();
    let used = || clocks.iter().map(|clock| clock.read()).sum::<Result<Duration>>();
    let begun = Instant::now();
    let before = used()?;
    let pids = server.pids();
    let watch = Watch::new(&pids, stop);
    let slice = loader.run(server.target(), &watch)?;
    if slice.tally.partial {
        bail!("interrupted");
    }
    let idle = used()?.saturating_sub(before);
    let others = idle.as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(OneSlice { slice, others, seen: watch.seen() })
}

/// Fails if a server has ended.
fn ensure_alive(plan: &Plan, servers: &mut [Contender]) -> Result<()> {
    for (contestant, server) in plan.contestants.iter().zip(servers) {
        if let Some(status) = server.ended(Duration::ZERO) {
            bail!("the server {} ended: {status}", contestant.label);
        }
    }
    Ok(())
}

/// Says where a slice failed, and whether its server had ended.
fn explain(error: Error, plan: &Plan, servers: &mut [Contender], contestant: usize, when: &str) -> Error {
    let label = &plan.contestants[contestant].label;
    let place = format!("{when}, {label}");
    match servers[contestant].ended(END_PATIENCE) {
        Some(status) => anyhow!("{place}: the server ended ({status}): {error:#}"),
        None => error.context(place),
    }
}
