//! `run --engine uring`: the closed-loop client of `compare`, for one run.
//!
//! It saturates a core of the server with less than a core of its own, where the engine on corelane's connections
//! may not; it knows echo, closed loops and constant rates, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use corelane::Address;
use nix::unistd::Pid;

use crate::cpu::{CpuClock, CpuList};
use crate::engine::{ReactorUse, Share, Tally};
use crate::load::{self, Loader, Mode, Slice};
use crate::outcome::{Status, WithStatus, ends};
use crate::plan::{Arrivals, Dialect, Load, Plan, Refusal};
use crate::scenario::Scenario;

/// How the server's and the client's CPUs are known.
#[derive(Debug)]
pub(super) struct Cpus {
    pub(super) server: CpuList,
    pub(super) client: CpuList,
}

/// What the engine makes of a plan, or why it cannot.
fn mode(plan: &Plan) -> Result<Mode> {
    let refuse = |text: &str| Err(Refusal::new("engine", text)).status(Status::Usage);
    let is_plain = matches!(plan.scenario, Scenario::Load | Scenario::PingPong | Scenario::Pipelined);
    if plan.target.dialect != Dialect::Echo || plan.mix.len() > 1 || !is_plain || plan.active < 100.0 {
        return refuse("uring knows echo with one size, and no scenario but load, ping-pong and pipelined");
    }
    if plan.workers > 1 {
        return refuse("uring loads from one process, not from several workers");
    }
    match &plan.load {
        Load::Closed { depth, think: None } if plan.ramp_up.is_none() => Ok(Mode::Closed { depth: *depth }),
        Load::Open { profile, arrivals: Arrivals::Even, .. }
            if profile.0.len() == 1 && profile.0[0].from == profile.0[0].to =>
        {
            Ok(Mode::Rate { per_second: profile.0[0].from, late_after: plan.late_after })
        }
        _ => refuse("uring knows closed loops and constant rates"),
    }
}

/// Runs the plan on the server of this process.
pub(super) fn run(plan: &Plan, server: Option<u32>, cpus: Cpus, stop: &AtomicBool) -> Result<Tally> {
    let mode = mode(plan)?;
    let Address::Tcp(address) = plan.target.address() else {
        return Err(Refusal::new("engine", "uring knows TCP alone")).status(Status::Usage);
    };
    let server = server.and_then(|pid| i32::try_from(pid).ok()).context("the server's process is not known");
    let clock =
        CpuClock::of_process(Pid::from_raw(server.status(Status::Usage)?)).status(Status::Unreachable)?;
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
    };
    let loader = Loader::new(load, cpus.server.union(&cpus.client));
    match loader.run(load::Target { address, publish: None, clock }, stop) {
        Ok(slice) => Ok(tally(plan, &slice, threads)),
        Err(_) if stop.load(Ordering::Relaxed) => {
            Err(ends(Status::Interrupted, "interrupted: this engine has no partial result"))
        }
        Err(error) => Err(error).status(Status::Unreachable),
    }
}

fn tally(plan: &Plan, slice: &Slice, threads: usize) -> Tally {
    let seconds = slice.elapsed.as_secs_f64();
    let messages = (slice.per_second * seconds).round() as u64;
    let mut tally = Tally { seconds, asked: messages, answered: messages, ..Tally::default() };
    let latencies = Some(slice.latencies.clone().into());
    if plan.load.is_open() {
        tally.phases.reply.corrected = latencies;
    } else {
        tally.phases.reply.raw = latencies;
    }
    let connections = plan.connections as u64;
    tally.counts.connections_asked = connections;
    tally.counts.connections_opened = connections;
    (tally.counts.sent, tally.counts.received) = (messages, messages);
    tally.counts.verified_bytes = messages * plan.largest() as u64;
    tally.counts.late = slice.late;
    let each = ReactorUse {
        seconds,
        cpu_s: slice.client_cpu.as_secs_f64() / threads as f64,
        wait_s: 0.0,
        connections: connections / threads as u64,
        messages: messages / threads as u64,
    };
    tally.reactors = vec![each; threads];
    tally
}
