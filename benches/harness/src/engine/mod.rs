//! The client: corelane's own outbound connections, loaded as the plan says.
//!
//! [`run`] does one process's share of a run and returns what it counted; a run over several processes calls it in
//! each, with [`Hooks`] that bring them together. It opens every connection and proves it, waits, loads, and ends.
//! Called by the commands and by worker processes; the client on io_uring (`load`) counts and keeps time as this one.

mod broadcast;
mod crowd;
mod generator;
mod pace;
mod recorder;
mod session;
mod tally;
mod usage;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use corelane::{Address, Backpressure, Handler, Polling, Running, Server, SlowConsumer, Watermarks};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::outcome::{Status, WithStatus, ends};
use crate::plan::{Load, Plan};
use crate::protocol::{self, Material};
use crate::result::Second;
pub(crate) use crowd::MUCH_UNREAD;
pub(crate) use pace::{Pace, Position};
pub(crate) use recorder::Recorder;
#[cfg(test)]
pub(crate) use tally::CrowdTally;
pub(crate) use tally::{LatestSecond, ReactorUse, Tally, Wave};
pub(crate) use usage::{Gauge, Usage};

/// How often replies are looked for that are late.
const TICK: Duration = Duration::from_millis(100);

/// The longest sleep of the thread that waits for the reactors.
const NAP: Duration = Duration::from_millis(20);

/// How much longer than a reply the end of a run may take.
const MARGIN: Duration = Duration::from_secs(3);

/// Which part of a run one process has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// The number of this process among those of the run.
    pub(crate) process: usize,
    pub(crate) processes: usize,
    /// Measured connections of this process.
    pub(crate) connections: usize,
    /// Those of them that carry the load.
    pub(crate) active: usize,
    /// Connections of it that behave badly.
    pub(crate) crowd: usize,
    /// Addresses to connect from in turn; the kernel's choice if there are none.
    pub(crate) sources: Vec<Ipv4Addr>,
}

impl Share {
    /// The `process`th part of `processes`, with connections and crowd spread evenly.
    pub(crate) fn of(plan: &Plan, process: usize, processes: usize, sources: Vec<Ipv4Addr>) -> Self {
        let part = |whole: usize| (whole + processes - 1 - process) / processes;
        let (connections, active) = (part(plan.connections), part(plan.active_in_all()));
        let crowd = part(plan.crowd.count);
        Self { process, processes, connections, active, crowd, sources }
    }

    /// All of it, on this machine: with source addresses of its own where one would run out of ports.
    pub(crate) fn whole(plan: &Plan) -> Result<Self> {
        let loopback = matches!(plan.target.address(), Address::Tcp(address)
            if address.is_ipv4() && address.ip().is_loopback());
        // A connection that has ended holds its port for a while.
        let spread = match plan.load {
            Load::Churn { .. } | Load::Storm { .. } => plan.connections.max(100_000),
            _ => plan.connections + plan.crowd.count,
        };
        let sources = match loopback {
            true => limits::sources(spread as u64, limits::ephemeral_ports()?),
            false => Vec::new(),
        };
        Ok(Self::of(plan, 0, 1, sources))
    }
}

/// A moment in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Point {
    /// Every connection of this process stands; the load begins when the hook returns.
    Opened,
    /// The warm-up is over.
    Begun,
    /// What is measured is over; replies may be outstanding.
    Ended,
    /// All is answered, and every connection stands still; they are closed when the hook returns.
    Done,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) opened: u64,
    /// Replies so far, the warm-up's included.
    pub(crate) answered: u64,
    /// Since the load began; `None` before.
    pub(crate) elapsed: Option<Duration>,
}

/// Who has an interest in how a run goes. All are called on the thread that called [`run`].
pub(crate) trait Hooks {
    /// The run has come to this point. It goes on when this returns; an error ends it.
    fn reached(&self, point: Point) -> Result<()>;

    /// Called many times a second.
    fn progress(&self, progress: &Progress);

    /// A second of the measured time is over, or another reactor has told of it: this is what is known of it.
    fn second(&self, second: &Second) {
        let _ = second;
    }

    /// Whether the run is to stop now, with what it has.
    fn should_stop(&self) -> bool;
}

/// What the reactors of a process have in common.
#[derive(Debug)]
struct Common {
    plan: Plan,
    share: Share,
    /// Reactors of this process.
    reactors: usize,
    target: Address,
    material: Material,
    epoch: Instant,
    /// What turns a time of this run into one of the machine, which all its processes know.
    offset: u64,
    events: Sender<Event>,
    gauges: Gauges,
}

impl Common {
    /// Nanoseconds since the beginning of the run; never 0, which stands for none.
    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.epoch).as_nanos() as u64 + 1
    }

    /// How many of `whole` a reactor has.
    fn part(&self, whole: usize, reactor: usize) -> usize {
        (whole + self.reactors - 1 - reactor) / self.reactors
    }

    /// Which of the crowd of all processes a reactor has.
    fn crowd_of(&self, reactor: usize) -> impl Iterator<Item = usize> + use<> {
        let Share { process, processes, crowd, .. } = self.share;
        let reactors = self.reactors;
        (0..self.part(crowd, reactor)).map(move |nth| process + processes * (reactor + reactors * nth))
    }
}

/// What the reactors let see of themselves.
#[derive(Debug, Default)]
struct Gauges {
    opened: AtomicU64,
    answered: AtomicU64,
}

/// What a reactor is to do.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Begin the load, at this time of the run.
    Go { start: u64 },
    /// End at once, and tell what there is.
    Stop,
}

/// What a reactor has to tell.
#[derive(Debug)]
enum Event {
    Opened,
    /// A second of the measured time is over.
    Second(Box<Second>),
    Failed(Error),
    Finished(Box<Tally>),
}

/// Runs one process's share of a plan.
///
/// # Errors
///
/// With the status of what was wrong: the target, its data, or this host's limits.
pub(crate) fn run(plan: &Plan, share: Share, hooks: &dyn Hooks) -> Result<Tally> {
    ensure_room(&share)?;
    let material = Material::new(plan);
    if share.process == 0 && protocol::needs_keys(plan) {
        protocol::redis::set_keys(plan, &material)?;
    }
    let reactors = reactors(plan).min(share.connections.max(1));
    let (sender, events) = mpsc::channel();
    let common = Arc::new(Common {
        plan: plan.clone(),
        share,
        reactors,
        target: plan.target.address(),
        material,
        epoch: Instant::now(),
        offset: broadcast::machine_time(),
        events: sender,
        gauges: Gauges::default(),
    });
    let handed = Arc::clone(&common);
    if matches!(plan.load, Load::Broadcast { .. }) {
        let publish = broadcast::publish_address(plan)?;
        let make = move |index| broadcast::Feed::new(Arc::clone(&handed), index, publish.clone());
        Run::start(common, events, make)?.finish(hooks)
    } else {
        let make = move |index| generator::Generator::new(Arc::clone(&handed), index);
        Run::start(common, events, make)?.finish(hooks)
    }
}

fn reactors(plan: &Plan) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    plan.reactors.unwrap_or_else(available)
}

fn ensure_room(share: &Share) -> Result<()> {
    let limit = limits::raise_descriptor_limit().status(Status::HostLimits)?;
    let connections = (share.connections + share.crowd) as u64;
    limits::ensure_descriptors(connections, limit).status(Status::HostLimits)
}

/// A run under way.
struct Run {
    common: Arc<Common>,
    running: Running<Order>,
    events: Receiver<Event>,
    waiting_for: usize,
    latest: LatestSecond,
    tally: Tally,
}

impl Run {
    fn start<H: Handler<Message = Order>>(
        common: Arc<Common>,
        events: Receiver<Event>,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Result<Self> {
        let plan = &common.plan;
        let cap = (64 << 20).max(plan.largest() * 4);
        let mut server = Server::new()
            .reactors(common.reactors)
            .tick(TICK)
            .backpressure(Backpressure::Manual)
            .slow_consumer(SlowConsumer::RefuseWrites)
            .watermarks(Watermarks { high: cap / 2, low: cap / 4, cap })
            .drain_deadline(Duration::ZERO)
            .thread_name("client");
        if !plan.spin.is_zero() {
            server = server.polling(Polling::Spin(plan.spin));
        }
        let running = server
            .start(move |start| make(start.reactor()))
            .map_err(|error| anyhow!("the client did not start: {error}"))?;
        Ok(Self {
            common,
            running,
            events,
            waiting_for: 0,
            latest: LatestSecond::default(),
            tally: Tally::default(),
        })
    }

    fn finish(mut self, hooks: &dyn Hooks) -> Result<Tally> {
        let outcome = self.drive(hooks);
        self.running.stop_now();
        let report = self.running.join();
        outcome?;
        if !report.failures.is_empty() || report.total.panics > 0 {
            return Err(anyhow!("the client failed: {report}"));
        }
        Ok(self.tally)
    }

    fn drive(&mut self, hooks: &dyn Hooks) -> Result<()> {
        if !self.open(hooks)? {
            return self.stop();
        }
        hooks.reached(Point::Opened)?;
        if hooks.should_stop() {
            return self.stop();
        }
        let start = self.common.now();
        self.order(Order::Go { start })?;
        let plan = self.common.plan.clone();
        let begin = start + plan.warmup.as_nanos() as u64;
        let end = begin + plan.duration.as_nanos() as u64;
        self.tally.begun = Some(self.common.epoch + Duration::from_nanos(begin - 1));
        // First what had no room before may be sent, and then be answered.
        let patience = plan.deadline * if plan.load.is_open() { 2 } else { 1 };
        let last = end + (last_wave(&plan) + patience + plan.connect_timeout + MARGIN).as_nanos() as u64;
        let mut points = [(begin, Point::Begun), (end, Point::Ended)].into_iter().peekable();
        self.waiting_for = self.common.reactors;
        while self.waiting_for > 0 {
            let now = self.common.now();
            if let Some((_, point)) = points.next_if(|(at, _)| *at <= now) {
                hooks.reached(point)?;
                continue;
            }
            let until = points.peek().map_or(last, |(at, _)| *at);
            let nap = Duration::from_nanos(until.saturating_sub(now)).min(NAP);
            self.hear(nap)?;
            if let Some(second) = self.latest.take() {
                hooks.second(second);
            }
            hooks.progress(&self.progress(Some(start)));
            if hooks.should_stop() {
                return self.stop();
            }
            if now > last {
                return Err(anyhow!("the client did not end in time"));
            }
        }
        for (_, point) in points {
            hooks.reached(point)?;
        }
        hooks.reached(Point::Done)
    }

    /// Waits until all connections stand; `false` if the run is to stop before.
    fn open(&mut self, hooks: &dyn Hooks) -> Result<bool> {
        self.waiting_for = self.common.reactors;
        let patience = self.common.plan.connect_timeout + self.common.plan.deadline + MARGIN;
        let (mut last, mut since) = (0, Instant::now());
        while self.waiting_for > 0 {
            self.hear(NAP)?;
            let progress = self.progress(None);
            let opened = progress.opened;
            hooks.progress(&progress);
            if hooks.should_stop() {
                return Ok(false);
            }
            if opened != last {
                (last, since) = (opened, Instant::now());
            }
            if since.elapsed() > patience {
                let asked = self.common.share.connections;
                let text = format!("of {asked} connections {last} were opened, and no more for {patience:?}");
                return Err(ends(Status::Unreachable, text));
            }
        }
        Ok(true)
    }

    fn progress(&self, start: Option<u64>) -> Progress {
        let gauges = &self.common.gauges;
        let elapsed = |start| Duration::from_nanos(self.common.now().saturating_sub(start));
        Progress {
            opened: gauges.opened.load(Ordering::Relaxed),
            answered: gauges.answered.load(Ordering::Relaxed),
            elapsed: start.map(elapsed),
        }
    }

    fn hear(&mut self, patience: Duration) -> Result<()> {
        match self.events.recv_timeout(patience) {
            Ok(Event::Opened) => self.waiting_for = self.waiting_for.saturating_sub(1),
            Ok(Event::Finished(tally)) => {
                self.tally.merge(&tally)?;
                self.waiting_for = self.waiting_for.saturating_sub(1);
            }
            Ok(Event::Second(second)) => self.latest.tell(*second)?,
            Ok(Event::Failed(error)) => return Err(error),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("the client ended")),
        }
        Ok(())
    }

    /// Takes what there is from the reactors that have not finished.
    fn stop(&mut self) -> Result<()> {
        self.order(Order::Stop)?;
        let deadline = Instant::now() + MARGIN;
        let mut finished = self.tally.reactors.len();
        while finished < self.common.reactors {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left).context("the client does not stop")? {
                Event::Finished(tally) => {
                    self.tally.merge(&tally)?;
                    finished += 1;
                }
                Event::Opened | Event::Second(_) | Event::Failed(_) => {}
            }
        }
        self.tally.partial = true;
        Ok(())
    }

    fn order(&self, order: Order) -> Result<()> {
        let handle = self.running.handle();
        (0..self.common.reactors)
            .try_for_each(|reactor| handle.send(reactor, order))
            .map_err(|error| anyhow!("the client takes no order: {error}"))
    }
}

/// How long after the beginning of what is measured the last wave or storm comes.
fn last_wave(plan: &Plan) -> Duration {
    let wave = plan.waves.map_or(Duration::ZERO, |waves| waves.first + waves.every * waves.rounds);
    match plan.load {
        Load::Storm { every, rounds, .. } => wave.max(every * (rounds + 1)),
        _ => wave,
    }
}
