//! `run --engine uring`: the client of `compare`, for one run.
//!
//! It saturates a core of the server with less than a core of its own, where the engine on corelane's connections
//! may not. It speaks every protocol over TCP, on connections that stay, in a closed loop or by a schedule.

use anyhow::{Context, Result, ensure};
use corelane::Address;

use crate::cpu::{CpuClock, CpuList};
use crate::engine::{Hooks, Share, Tally};
use crate::limits;
use crate::load::{self, Conversation, Loader, Mode};
use crate::measure::with_descendants;
use crate::outcome::{Status, WithStatus, ends};
use crate::plan::{Load, Plan, Refusal};
use crate::scenario::Scenario;

/// How the server's and the client's CPUs are known.
#[derive(Debug)]
pub(super) struct Cpus {
    pub(super) server: CpuList,
    pub(super) client: CpuList,
}

/// What the engine makes of a plan, or why it cannot.
fn mode(plan: &Plan) -> Result<Mode, Refusal> {
    let refuse = |text: &str| Err(Refusal::new("engine", text));
    let is_plain = matches!(plan.scenario, Scenario::Load | Scenario::PingPong | Scenario::Pipelined);
    if !is_plain || plan.active < 100.0 {
        return refuse(
            "uring knows no scenario but load, ping-pong and pipelined, with every connection active",
        );
    }
    if plan.workers > 1 {
        return refuse("uring loads from one process, not from several workers");
    }
    match &plan.load {
        Load::Closed { depth, think: None } if plan.ramp_up.is_none() => Ok(Mode::Closed { depth: *depth }),
        Load::Open { profile, .. } => {
            Ok(Mode::Rate { per_second: profile.count() / profile.seconds(), late_after: plan.late_after })
        }
        _ => refuse("uring knows closed loops without --think and --ramp-up, and schedules"),
    }
}

/// Runs the plan on a server, whose processes are known if it is on this machine.
pub(super) fn run(plan: &Plan, server: &[u32], cpus: Cpus, hooks: &dyn Hooks) -> Result<Tally> {
    let mode = mode(plan).status(Status::Usage)?;
    let Address::Tcp(address) = plan.target.address() else {
        return Err(Refusal::new("engine", "uring knows TCP alone")).status(Status::Usage);
    };
    let limit = limits::raise_descriptor_limit().status(Status::HostLimits)?;
    limits::ensure_descriptors(plan.connections as u64, limit).status(Status::HostLimits)?;
    let threads = plan.reactors.unwrap_or(1).min(plan.connections);
    ensure!(threads <= cpus.client.len() * 4, "more threads than its CPUs can serve");
    let load = load::Load {
        mode,
        connections: plan.connections,
        size: plan.largest(),
        firehose: 0,
        threads,
        cpus: cpus.client.clone(),
        warmup: plan.warmup,
        slice: plan.duration,
        spin: !plan.spin.is_zero(),
        sources: Share::whole(plan)?.sources,
        count_calls: false,
    };
    let clock = || CpuClock::of_processes(&with_descendants(server)).context("the server's process");
    let clock = (!server.is_empty()).then(clock).transpose().status(Status::Unreachable)?;
    let conversation = Conversation::prepare(plan.clone())?;
    let loader = Loader::new(load, cpus.server.union(&cpus.client));
    let target = load::Target { address, publish: None, clock, conversation: &conversation };
    match loader.run(target, hooks) {
        Ok(slice) => Ok(slice.tally),
        Err(_) if hooks.should_stop() => {
            Err(ends(Status::Interrupted, "interrupted: the load had not begun"))
        }
        Err(error) if Status::of(&error) == Status::Failed => Err(ends(Status::Unreachable, error)),
        Err(error) => Err(error),
    }
}
