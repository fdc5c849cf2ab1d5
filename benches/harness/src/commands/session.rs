//! A target that is ready to be loaded, and what is measured around a run of the engine.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use corelane::Address;
use serde_json::{Map, json};

use super::uring;
use super::verdict::{self, ServerUse};
use crate::cpu::CpuList;
use crate::engine::{self, Hooks, Point, Progress, Share, Tally, Usage};
use crate::outcome::{Status, WithStatus};
use crate::output::live;
use crate::plan::{Engine, Load, Plan, Settings};
use crate::protocol;
use crate::result::{Cost, Generator, Second, ServerInfo, Target, unix_ms};
use crate::scenario::half_open::{self, Vanished};
use crate::scenario::{self, Facts, Scenario};
use crate::servers::Started;
use crate::worker::spread;
use crate::{interrupt, listener};

/// A target, started here or elsewhere, and the plan for it.
#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    plan: Plan,
    started: Option<Started>,
    /// The process behind the target, if it is on this machine.
    server: Option<u32>,
    stop: Arc<AtomicBool>,
}

/// What came of one run.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    pub(super) target: Target,
    /// Why the schedule was not kept, if it was not.
    pub(super) broken_schedule: Option<String>,
}

impl Session {
    /// Starts the server if one is to be started, and makes the plan.
    pub(super) fn start(settings: Settings) -> Result<Self> {
        // What makes no sense is refused before anything is started.
        let stand_in = settings.server.as_ref().map(|_| {
            let dialect = settings.protocol.unwrap_or(crate::plan::Dialect::Echo);
            (Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1))), dialect)
        });
        if settings.protocol.is_some() || settings.server.is_none() {
            let known = stand_in.as_ref().map(|(address, dialect)| (address, *dialect));
            settings.target(known).and_then(|target| settings.plan(target)).status(Status::Usage)?;
        }
        let stop = interrupt::flag()?;
        let is_broadcast = settings.scenario().status(Status::Usage)? == Scenario::Broadcast;
        let start = |name: &String| {
            let cpus = settings.server_cpus.as_ref();
            Started::start(name, settings.server_reactors, cpus, is_broadcast)
        };
        let started = settings.server.as_ref().map(start).transpose()?;
        let known = started.as_ref().map(|started| (started.address(), started.dialect));
        let target = settings.target(known).status(Status::Usage)?;
        let mut plan = settings.plan(target).status(Status::Usage)?;
        if let Some(address) = started.as_ref().and_then(|started| started.server.publish()) {
            plan.publish.get_or_insert(address.to_string());
        }
        let server = match &started {
            Some(started) => Some(started.server.pid()),
            None => settings.server_pid.or_else(|| listener::process(&plan.target.address())),
        };
        // Only now: a server that is started here must not inherit it.
        if let Some(cpus) = &settings.client_cpus {
            cpus.pin_this_thread().status(Status::Usage)?;
        }
        Ok(Self { settings, plan, started, server, stop })
    }

    /// The same target under other settings.
    pub(super) fn with(mut self, settings: Settings) -> Result<Self> {
        let known = self.started.as_ref().map(|started| (started.address(), started.dialect));
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
        let hooks = Watch::new(self, plan);
        let outcome = match (self.settings.engine, plan.workers) {
            (Some(Engine::Uring), _) => uring::run(plan, self.server, self.cpus()?, &hooks),
            (_, 1) => engine::run(plan, Share::whole(plan)?, &hooks),
            (_, workers) => spread::run(plan, workers, &hooks),
        };
        let tally = outcome.map_err(|error| self.explain(error))?;
        let server_use = hooks.server_use();
        let generator = verdict::generator(plan, &tally, server_use.as_ref());
        let facts = Facts { plan, tally: &tally, vanished: hooks.vanished.get() };
        let checks = if tally.partial { Vec::new() } else { scenario::checks(&facts) };
        let target = Target {
            label: label.to_owned(),
            server: self.server_info(plan),
            settings: of_plan(plan),
            started_unix_ms: hooks.begun_unix_ms.get(),
            seconds: tally.seconds,
            messages_per_second: tally.per_second(),
            phases: tally.phases.clone(),
            counts: tally.counts.clone(),
            series: tally.series.clone(),
            server_cost: server_use
                .as_ref()
                .map(|used| cost(used.cpu_s, used.cpus() / self.server_cpus(), &tally)),
            client_cost: Some(client_cost(&tally, &generator)),
            notes: notes(plan, &tally, server_use.as_ref(), &hooks),
            generator: Some(generator),
            checks,
            ..Target::default()
        };
        let broken_schedule = verdict::broken_schedule(plan, &tally);
        Ok(Measured { tally, target, broken_schedule })
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
        match (&self.started, self.server) {
            (None, Some(pid)) if is_gone(pid) => error.context("the server has ended"),
            _ => error,
        }
    }

    /// How many CPUs the server may use.
    fn server_cpus(&self) -> f64 {
        let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.settings.server_cpus.as_ref().map_or_else(available, CpuList::len) as f64
    }

    fn server_info(&self, plan: &Plan) -> ServerInfo {
        ServerInfo {
            address: Some(plan.target.to_string()),
            command: self.started.as_ref().map(|started| started.command.clone()),
            version: None,
            processes: self.server.map(|_| 1),
            reactors: self.settings.server_reactors.and_then(|reactors| reactors.try_into().ok()),
            cpus: self.settings.server_cpus.as_ref().map(CpuList::numbers),
        }
    }
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

fn cost(cpu_s: f64, utilisation: f64, tally: &Tally) -> Cost {
    let messages = tally.counts.received as f64;
    Cost {
        cpu_s,
        cpu_us_per_message: (messages > 0.0).then(|| cpu_s * 1e6 / messages),
        utilisation: Some(utilisation),
        ..Cost::default()
    }
}

fn client_cost(tally: &Tally, generator: &Generator) -> Cost {
    let cpu_s = tally.reactors.iter().map(|reactor| reactor.cpu_s).sum();
    Cost { utilisation: Some(generator.utilisation), ..cost(cpu_s, 0.0, tally) }
}

fn notes(plan: &Plan, tally: &Tally, server: Option<&ServerUse>, watch: &Watch<'_>) -> Vec<String> {
    let mut notes = vec![format!("verified: {}", protocol::verification(plan))];
    match &plan.load {
        Load::Closed { .. } => {
            notes.push("closed loop: nothing is due at a time of its own, so there is nothing to correct".to_owned());
        }
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
    if let (Some(server), Load::Idle) = (server, &plan.load) {
        notes.push(format!("the server took {:.3} ms of CPU in the measured time", server.cpu_s * 1e3));
    }
    notes.extend(watch.problem.borrow().clone());
    notes
}

/// What each thread of the server used, by its number.
type Threads = Vec<(u32, Usage)>;

/// Who watches a run from this process.
struct Watch<'a> {
    session: &'a Session,
    plan: &'a Plan,
    live: RefCell<live::Progress>,
    last: Cell<(Instant, u64)>,
    latest: RefCell<Option<Second>>,
    begun_unix_ms: Cell<u64>,
    begun: RefCell<Option<(Instant, Threads)>>,
    used: RefCell<Option<ServerUse>>,
    vanished: Cell<Option<Vanished>>,
    problem: RefCell<Option<String>>,
}

impl<'a> Watch<'a> {
    fn new(session: &'a Session, plan: &'a Plan) -> Self {
        Self {
            session,
            plan,
            live: RefCell::new(live::Progress::new()),
            last: Cell::new((Instant::now(), 0)),
            latest: RefCell::new(None),
            begun_unix_ms: Cell::new(0),
            begun: RefCell::new(None),
            used: RefCell::new(None),
            vanished: Cell::new(None),
            problem: RefCell::new(None),
        }
    }

    fn server_use(&self) -> Option<ServerUse> {
        self.used.borrow().clone()
    }

    /// What the server's threads used so far; `None` if it is not known, or has ended.
    fn server(&self) -> Option<Threads> {
        Usage::of_process(self.session.server?).ok()
    }

    fn tcp_target(&self) -> Option<std::net::SocketAddr> {
        match self.plan.target.address() {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) | Address::Abstract(_) => None,
        }
    }

    fn moment(&self, progress: &Progress, elapsed: Duration, rate: f64) -> live::Moment {
        let latest = self.latest.borrow();
        let latest = latest.as_ref();
        let latency = latest.and_then(|second| second.latency.as_ref());
        let quantile = |quantile| latency.and_then(|latency| latency.quantile_ns(quantile));
        live::Moment {
            elapsed,
            planned: self.plan.warmup + self.plan.duration,
            connections: latest.and_then(|second| second.connections).unwrap_or(progress.opened),
            rate,
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            late: latest.map_or(0, |second| second.late),
            errors: latest.map_or(0, |second| second.errors),
        }
    }

    fn vanish(&self) {
        let Some(target) = self.tcp_target().filter(|_| self.plan.scenario == Scenario::HalfOpen) else {
            return;
        };
        match half_open::vanish(target, self.plan.crowd.count) {
            Ok(vanished) => self.vanished.set(Some(vanished)),
            Err(error) => *self.problem.borrow_mut() = Some(format!("no peer vanished: {error:#}")),
        }
    }
}

impl Hooks for Watch<'_> {
    fn reached(&self, point: Point) -> Result<()> {
        match point {
            Point::Opened => self.vanish(),
            Point::Begun => {
                self.begun_unix_ms.set(unix_ms(SystemTime::now()));
                *self.begun.borrow_mut() = self.server().map(|usage| (Instant::now(), usage));
            }
            Point::Ended => {
                if let (Some((at, before)), Some(after)) = (&*self.begun.borrow(), self.server()) {
                    let seconds = at.elapsed().as_secs_f64();
                    *self.used.borrow_mut() = Some(ServerUse::between(before, &after, seconds));
                }
                if let (Some(mut vanished), Some(target)) = (self.vanished.get(), self.tcp_target()) {
                    vanished.held_at_the_end = half_open::half_open(target)?;
                    self.vanished.set(Some(vanished));
                }
            }
            Point::Done => {}
        }
        Ok(())
    }

    fn second(&self, second: &Second) {
        *self.latest.borrow_mut() = Some(second.clone());
    }

    fn progress(&self, progress: &Progress) {
        let (at, answered) = self.last.get();
        let since = at.elapsed();
        let rate = progress.answered.saturating_sub(answered) as f64 / since.as_secs_f64().max(1e-9);
        let mut said = false;
        self.live.borrow_mut().update(|| {
            said = true;
            match progress.elapsed {
                None => format!("{} of {} connections open", progress.opened, self.plan.connections),
                Some(elapsed) => self.moment(progress, elapsed, rate).to_string(),
            }
        });
        if said || since > Duration::from_secs(5) {
            self.last.set((Instant::now(), progress.answered));
        }
    }

    fn should_stop(&self) -> bool {
        self.session.is_interrupted()
    }
}
