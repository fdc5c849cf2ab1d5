//! A target that is ready to be loaded, and what is measured around a run of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use serde_json::{Map, json};

use super::probe::{self, Probe};
use super::verdict::ServerUse;
use super::watch::Watch;
use super::{correction, uring, verdict};
use crate::cpu::CpuList;
use crate::engine::{self, Share, Tally};
use crate::outcome::{Status, WithStatus};
use crate::plan::{self, Engine, Load, Plan, Refusal, Settings};
use crate::protocol;
use crate::result::{Check, Cost, Generator, ServerInfo, Target};
use crate::scenario::{self, Facts, Scenario};
use crate::servers::{self, Started};
use crate::worker::spread;
use crate::{interrupt, limits, listener};

/// A target, started here or elsewhere, and the plan for it.
#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    plan: Plan,
    started: Option<Started>,
    /// The processes behind the target that are known, if it is on this machine.
    server: Vec<u32>,
    stop: Arc<AtomicBool>,
}

/// What came of one run.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    pub(super) target: Target,
    /// Why the schedule was not kept, if it was not.
    pub(super) broken_schedule: Option<String>,
    /// Whether it was, as a check; `None` where there is none.
    pub(super) schedule: Option<Check>,
}

impl Session {
    /// Starts the server if one is to be started, and makes the plan.
    pub(super) fn start(settings: Settings) -> Result<Self> {
        // What makes no sense is refused before anything is started.
        let stand_in = settings.server.as_ref().map(|_| {
            let dialect = settings.protocol.unwrap_or(crate::plan::Dialect::Echo);
            plan::Target::new(dialect, &std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into())
        });
        if settings.protocol.is_some() || settings.server.is_none() {
            settings.target(stand_in).and_then(|target| settings.plan(target)).status(Status::Usage)?;
        }
        if let Some(pid) =
            settings.server_pid.filter(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
        {
            return Err(Refusal::new("server-pid", format!("there is no process {pid}")))
                .status(Status::Usage);
        }
        ensure_server_has_room(&settings)?;
        let stop = interrupt::flag()?;
        let is_broadcast = settings.scenario().status(Status::Usage)? == Scenario::Broadcast;
        let start = |name: &String| {
            let cpus = settings.server_cpus.as_ref();
            Started::start(name, settings.server_reactors, cpus, is_broadcast, &stop)
        };
        let started = settings.server.as_ref().map(start).transpose()?;
        let target = settings.target(started.as_ref().map(Started::target)).status(Status::Usage)?;
        let mut plan = settings.plan(target).status(Status::Usage)?;
        if let Some(address) = started.as_ref().and_then(|started| started.server.publish()) {
            plan.publish.get_or_insert(address.to_string());
        }
        let server = match &started {
            Some(started) => vec![started.server.pid()],
            None => match settings.server_pid {
                Some(pid) => vec![pid],
                None => listener::processes(&plan.target.address()),
            },
        };
        // Only now: a server that is started here must not inherit it.
        if let Some(cpus) = &settings.client_cpus {
            cpus.pin_this_thread().status(Status::Usage)?;
        }
        Ok(Self { settings, plan, started, server, stop })
    }

    /// The same target under other settings.
    pub(super) fn with(mut self, settings: Settings) -> Result<Self> {
        ensure_server_has_room(&settings)?;
        let known = self.started.as_ref().map(Started::target);
        let publish = self.plan.publish.take();
        self.plan = settings.target(known).and_then(|target| settings.plan(target)).status(Status::Usage)?;
        self.plan.publish = self.plan.publish.take().or(publish);
        self.settings = settings;
        Ok(self)
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Loads the target as the plan says.
    pub(super) fn measure(&self, plan: &Plan, label: &str) -> Result<Measured> {
        let hooks = Watch::new(plan, &self.server, &self.stop);
        let outcome = match (self.settings.engine, plan.workers) {
            (Some(Engine::Uring), _) => uring::run(plan, &self.server, self.cpus()?, &hooks),
            (_, 1) => engine::run(plan, Share::whole(plan)?, &hooks),
            (_, workers) => spread::run(plan, workers, &hooks),
        };
        let mut tally = outcome.map_err(|error| self.explain(error))?;
        correction::fill_in(plan, &mut tally);
        if tally.partial {
            // It was stopped before the end of the measured time.
            hooks.probe.borrow_mut().ended(plan);
        }
        let kernel = hooks.kernel();
        let probe = hooks.probe.take();
        let server_cost = probe.cost(&tally, self.server_cpus());
        let server_share = server_cost.as_ref().and_then(|cost| cost.utilisation);
        let generator =
            verdict::generator(plan, &tally, probe.server_use().map(ServerUse::demand), server_share);
        let vanished = hooks.vanished.take();
        let facts = Facts { plan, tally: &tally, vanished: vanished.as_ref() };
        let checks = if tally.partial { Vec::new() } else { scenario::checks(&facts) };
        let target = Target {
            label: label.to_owned(),
            server: self.server_info(plan, &probe),
            settings: of_plan(plan),
            started_unix_ms: hooks.begun_unix_ms.get(),
            seconds: tally.seconds,
            messages_per_second: tally.per_second(),
            phases: tally.phases.clone(),
            counts: tally.counts.clone(),
            series: tally.series.clone(),
            memory: probe.memory_series(),
            server_cost,
            client_cost: Some(client_cost(&tally, &generator)),
            skew: probe.skew(plan, &tally),
            kernel,
            notes: notes(plan, &tally, &probe),
            generator: Some(generator),
            checks,
            ..Target::default()
        };
        let broken_schedule = verdict::broken_schedule(plan, &tally);
        let schedule = verdict::schedule(plan, &tally, broken_schedule.as_ref());
        Ok(Measured { tally, target, broken_schedule, schedule })
    }

    /// Which CPUs the server has, as far as that is said, and which the client.
    fn cpus(&self) -> Result<uring::Cpus> {
        let client = self.settings.client_cpus.clone().map_or_else(CpuList::allowed, Ok)?;
        let server = self.settings.server_cpus.clone().unwrap_or_else(|| client.clone());
        Ok(uring::Cpus { server, client })
    }

    /// If the server has ended, that is why a run failed.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let is_gone =
            |pid: u32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), None).is_err();
        let is_over = self.started.is_none() && !self.server.is_empty();
        match is_over && self.server.iter().all(|pid| is_gone(*pid)) {
            true => error.context("the server has ended"),
            false => error,
        }
    }

    /// How many CPUs the server may use.
    fn server_cpus(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.settings.server_cpus.as_ref().map_or_else(available, CpuList::len)
    }

    fn server_info(&self, plan: &Plan, probe: &Probe) -> ServerInfo {
        ServerInfo {
            address: Some(plan.target.to_string()),
            command: self.started.as_ref().map(|started| started.command.clone()),
            version: self.server.first().and_then(|&pid| servers::version(pid)),
            processes: probe.processes(),
            reactors: self.settings.server_reactors.and_then(|reactors| reactors.try_into().ok()),
            cpus: self.settings.server_cpus.as_ref().map(CpuList::numbers),
        }
    }
}

/// Fails if a server that is started here, as one process, could not have all the connections.
fn ensure_server_has_room(settings: &Settings) -> Result<()> {
    if settings.server.is_none() {
        return Ok(());
    }
    let connections = settings.connections_at_a_time().status(Status::Usage)? as u64;
    // The server inherits it.
    let limit = limits::raise_descriptor_limit().status(Status::HostLimits)?;
    limits::ensure_server_descriptors(connections, limit).status(Status::HostLimits)
}

/// In what a run differs from others, for tables.
fn of_plan(plan: &Plan) -> Map<String, serde_json::Value> {
    let mut settings = Map::new();
    settings.insert("scenario".to_owned(), json!(plan.scenario.name()));
    settings.insert("connections".to_owned(), json!(plan.connections));
    settings.insert("size".to_owned(), json!(plan.largest()));
    match &plan.load {
        Load::Closed { depth, .. } => settings.insert("depth".to_owned(), json!(depth)),
        Load::Open { profile, .. } => {
            settings.insert("rate".to_owned(), json!(profile.count() / profile.seconds()))
        }
        Load::Broadcast { per_second } => settings.insert("rate".to_owned(), json!(per_second)),
        _ => None,
    };
    settings
}

fn client_cost(tally: &Tally, generator: &Generator) -> Cost {
    let cpu_s: f64 = tally.reactors.iter().map(|reactor| reactor.cpu_s).sum();
    let messages = tally.counts.received;
    let each = |value: f64| (messages > 0).then(|| value / messages as f64);
    let mut cost = Cost {
        cpu_s,
        cpu_us_per_message: each(cpu_s * 1e6),
        utilisation: Some(generator.utilisation),
        ..Cost::default()
    };
    if let Some(toll) = &tally.toll {
        let switches = toll.voluntary + toll.involuntary;
        cost.voluntary_switches = Some(toll.voluntary);
        cost.involuntary_switches = Some(toll.involuntary);
        cost.switches_per_message = each(switches as f64);
        let counted = toll.uncounted.is_none().then_some(toll.system_calls);
        probe::tell_calls(&mut cost, counted, tally);
    }
    cost
}

fn notes(plan: &Plan, tally: &Tally, probe: &Probe) -> Vec<String> {
    let mut notes = vec![format!("verified: {}", protocol::verification(plan))];
    match &plan.load {
        Load::Closed { .. } => notes.push(correction::note(tally)),
        Load::Open { .. } => notes.push(format!(
            "open loop: latency counts from when a message was due; raw from when it was sent; {} late sends had to \
             wait for a connection with room",
            tally.held_back
        )),
        _ => {}
    }
    if !tally.waves.is_empty() {
        let at = |quantile| tally.wave_latency.quantile_us(quantile).unwrap_or_default() / 1e3;
        notes.push(format!(
            "{} rounds of all connections at once: p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
            tally.waves.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        ));
    }
    if tally.cycles > 0 {
        let rate = tally.cycles as f64 / tally.seconds.max(f64::MIN_POSITIVE);
        notes.push(format!("{} connections ended and were replaced, {rate:.0}/s", tally.cycles));
    }
    if let (Some(server), Load::Idle) = (probe.server_use(), &plan.load) {
        notes.push(format!("the server took {:.3} ms of CPU in the measured time", server.cpu_s * 1e3));
    }
    notes.extend(probe.notes(plan, tally));
    let uncounted = tally.toll.as_ref().and_then(|toll| toll.uncounted.as_ref());
    notes.extend(uncounted.map(|why| format!("of the client {why}")));
    notes
}
