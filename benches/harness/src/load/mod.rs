//! The client on io_uring: loads a server for one slice of time.
//!
//! A client built on readiness saturates its core before most servers do theirs, and then the
//! comparison is one of the client with itself. Called by `compare`, and by `run` where it is asked for.
//! What is said and compared is that of `protocol`, and what is counted that of `engine`.

mod broadcast;
mod churn;
mod connect;
mod hose;
mod lane;
mod memory;
mod ring;
mod steady;
mod watch;
mod window;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use serde::Serialize;

use crate::cpu::{CpuClock, CpuList};
use crate::engine::{Gauge, Hooks, Recorder, Tally};
use crate::pattern::Pattern;
use crate::plan::Plan;
use crate::protocol::{self, Material};
use crate::result::Second;
pub(crate) use broadcast::SMALLEST_LINE;
use broadcast::Text;
use ring::Wait;
use window::{Clock, Part, Watched, Window};

/// How messages are paced.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Each connection keeps `depth` messages in flight.
    Closed { depth: usize },
    /// Messages are due at a constant rate over all connections, whatever the server does.
    Rate { per_second: f64, late_after: Duration },
    /// Each connection is used for one message; `reset` ends it with RST instead of FIN.
    Churn { reset: bool },
    /// What one publisher sends reaches every connection, and `depth` lines are on their way at a time.
    Broadcast { depth: usize },
}

impl Mode {
    /// Whether connections stay, so that any protocol is spoken on them.
    pub(crate) fn is_steady(self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Rate { .. })
    }
}

/// The load of a slice, the same for every server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) mode: Mode,
    /// The connections that are measured; for churn, how many are under way at a time.
    pub(crate) connections: usize,
    /// The bytes of a message.
    pub(crate) size: usize,
    /// The connections beside them which carry as much as they can.
    pub(crate) firehose: usize,
    pub(crate) threads: usize,
    pub(crate) cpus: CpuList,
    pub(crate) warmup: Duration,
    pub(crate) slice: Duration,
    /// Poll for completions instead of sleeping until there is one.
    pub(crate) spin: bool,
    /// Where connections come from; the kernel chooses if there are none.
    pub(crate) sources: Vec<Ipv4Addr>,
    /// Count the client's own system calls in the warm-up, or in the slice if there is none. It slows every call.
    #[serde(skip)]
    pub(crate) count_calls: bool,
}

/// What one slice saw.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    /// Zero if the server is not known.
    pub(crate) server_cpu: Duration,
    /// CPU time of all the client's threads.
    pub(crate) client_cpu: Duration,
    /// The share of the watched CPUs that neither the server nor the client took.
    pub(crate) foreign_cpu: f64,
    pub(crate) firehose_bytes_per_second: f64,
}

/// Loads one server after the other.
#[derive(Clone, Debug)]
pub(crate) struct Loader {
    load: Load,
    watched: CpuList,
    pattern: &'static Pattern,
    /// What is published, of the broadcast mode.
    text: Option<&'static Text>,
}

/// What is said to one server, and the bytes for it.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    plan: Plan,
    material: Material,
}

impl Conversation {
    /// Makes all ready, in the server too: keys that are to be asked for are set.
    pub(crate) fn prepare(plan: Plan) -> Result<Self> {
        let material = Material::new(&plan);
        if protocol::needs_keys(&plan) {
            protocol::redis::set_keys(&plan, &material)?;
        }
        Ok(Self { plan, material })
    }
}

/// The server to load, and where it takes publishers, if it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) publish: Option<SocketAddr>,
    /// Its CPU time, if it is on this machine.
    pub(crate) clock: Option<CpuClock>,
    pub(crate) conversation: &'a Conversation,
}

/// The reason a thread gave up: another one had failed, or the run was interrupted.
#[derive(Debug)]
struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl std::error::Error for Aborted {}

/// The longest sleep, after which a request to stop is noticed.
const NAP: Duration = Duration::from_millis(50);

/// What the threads of a slice share.
#[derive(Debug)]
struct Shared<'a> {
    load: &'a Load,
    plan: &'a Plan,
    material: &'a Material,
    pattern: &'static Pattern,
    text: Option<&'static Text>,
    address: SocketAddr,
    publish: Option<SocketAddr>,
    server: Option<CpuClock>,
    watched: &'a CpuList,
    clock: Clock,
    /// The run is to stop with what it has.
    stop: AtomicBool,
    failed: AtomicBool,
    /// Threads whose connections all stand.
    ready: AtomicUsize,
    /// Threads that have all their answers.
    resting: AtomicUsize,
    /// Whether connections may be closed.
    released: AtomicBool,
    /// When the load begins: set when all threads are ready.
    start: OnceLock<u64>,
    opened: AtomicU64,
    answered: AtomicU64,
    seconds: Sender<Second>,
}

impl Shared<'_> {
    /// How long a thread may wait for completions that has something to do at `next`.
    fn wait(&self, next: Option<u64>) -> Wait {
        if self.load.spin {
            return Wait::Poll;
        }
        let now = self.clock.now();
        let sleep = next.map_or(NAP, |next| Duration::from_nanos(next.saturating_sub(now)));
        Wait::Sleep(sleep.min(NAP))
    }

    /// Fails if another thread has, or the run is to stop.
    fn ensure_going(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed) {
            bail!(Aborted);
        }
        Ok(())
    }
}

/// One thread's part of the load.
#[derive(Debug)]
struct Share<'a> {
    shared: &'a Shared<'a>,
    thread: usize,
    connections: usize,
    firehose: usize,
}

impl<'a> Share<'a> {
    fn new(shared: &'a Shared<'a>, thread: usize) -> Self {
        let threads = shared.load.threads;
        let of = |total: usize| (total + threads - 1 - thread) / threads;
        Self { shared, thread, connections: of(shared.load.connections), firehose: of(shared.load.firehose) }
    }

    /// This thread's window, which is planned by [`Share::rendezvous`].
    fn window(&self) -> Window<'a> {
        let shared = self.shared;
        let watched = Watched { server: shared.server, cpus: (self.thread == 0).then_some(shared.watched) };
        let mut gauge = Gauge::new(!shared.load.warmup.is_zero());
        if shared.load.count_calls {
            gauge.count_calls();
        }
        Window::new(watched, Recorder::new(shared.plan.load.is_open(), false), gauge)
    }

    /// Waits until the load begins for every thread, and plans the window; when it began.
    fn rendezvous(&self, window: &mut Window<'_>) -> Result<u64> {
        let shared = self.shared;
        shared.ready.fetch_add(1, Ordering::AcqRel);
        let start = loop {
            if let Some(start) = shared.start.get() {
                break *start;
            }
            shared.ensure_going()?;
            thread::sleep(Duration::from_micros(200));
        };
        window.plan(start, shared.load.warmup, shared.load.slice);
        Ok(start)
    }

    /// Waits until whoever watches has seen the server with all its connections, and with nothing left to answer.
    fn rest(&self) {
        let shared = self.shared;
        shared.resting.fetch_add(1, Ordering::AcqRel);
        while !shared.released.load(Ordering::Acquire) && shared.ensure_going().is_ok() {
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Tells of seconds that are over.
    fn tell_seconds(&self, window: &mut Window<'_>) {
        while let Some(second) = window.recorder.next_to_tell() {
            // Whoever watches has gone only if the run is over.
            let _ = self.shared.seconds.send(second.clone());
        }
    }

    /// Where the `index`th connection of this thread comes from.
    fn source(&self, index: usize) -> Option<Ipv4Addr> {
        let sources = &self.shared.load.sources;
        let global = index * self.shared.load.threads + self.thread;
        (!sources.is_empty()).then(|| sources[global % sources.len()])
    }

    fn run(&self) -> Result<Part> {
        self.shared.load.cpus.for_thread(self.thread).pin_this_thread()?;
        // Timeouts of waits are as exact as the timer can make them.
        nix::sys::prctl::set_timerslack(1).context("cannot set the timer slack")?;
        match self.shared.load.mode {
            Mode::Churn { reset } => churn::run(self, reset),
            Mode::Closed { .. } | Mode::Rate { .. } => steady::run(self),
            Mode::Broadcast { depth } => {
                broadcast::run(self, self.shared.text.context("there is no text to publish")?, depth)
            }
        }
    }
}

impl Loader {
    /// Prepares to load servers, and to watch who else uses the `watched` CPUs.
    pub(crate) fn new(load: Load, watched: CpuList) -> Self {
        let pattern = Pattern::leak(load.size.max(hose::CHUNK));
        let text = match load.mode {
            Mode::Broadcast { depth } => Some(Text::leak(load.size, depth)),
            _ => None,
        };
        Self { load, watched, pattern, text }
    }

    /// The same load by a client that counts its system calls.
    pub(crate) fn counting_calls(&self) -> Self {
        let mut counting = self.clone();
        counting.load.count_calls = true;
        counting
    }

    /// Loads a server for one slice, after connecting and warming up.
    ///
    /// If the hooks say that it is to stop, the slice is partial where connections stay, and an error elsewhere.
    pub(crate) fn run(&self, target: Target<'_>, hooks: &dyn Hooks) -> Result<Slice> {
        let (sender, seconds) = mpsc::channel();
        let shared = Shared {
            load: &self.load,
            plan: &target.conversation.plan,
            material: &target.conversation.material,
            pattern: self.pattern,
            text: self.text,
            address: target.address,
            publish: target.publish,
            server: target.clock,
            watched: &self.watched,
            clock: Clock::start(),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            ready: AtomicUsize::new(0),
            resting: AtomicUsize::new(0),
            released: AtomicBool::new(false),
            start: OnceLock::new(),
            opened: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            seconds: sender,
        };
        let failure = Mutex::new(None);
        let fail = |error: Error| {
            shared.failed.store(true, Ordering::Relaxed);
            let mut failure = failure.lock().expect("no thread panics");
            // That another thread gave up as well is not the reason.
            if failure.as_ref().is_none_or(|earlier: &Error| earlier.is::<Aborted>()) {
                *failure = Some(error);
            }
        };
        let parts: Vec<Option<Part>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.load.threads)
                .map(|thread| {
                    let (shared, fail) = (&shared, &fail);
                    scope.spawn(move || Share::new(shared, thread).run().map_err(fail).ok())
                })
                .collect();
            if let Err(error) = watch::watch(&shared, &threads, &seconds, hooks) {
                fail(error);
            }
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
        });
        if let Some(error) = failure.into_inner().expect("no thread panics") {
            return Err(error);
        }
        let parts: Option<Vec<Part>> = parts.into_iter().collect();
        let mut slice = merge(&parts.context("a thread has counted nothing")?, self.watched.len())?;
        slice.tally.begun = shared.start.get().map(|start| shared.clock.instant(*start) + self.load.warmup);
        Ok(slice)
    }
}

/// The slice as all threads saw it together.
fn merge(parts: &[Part], watched: usize) -> Result<Slice> {
    let first = parts.first().context("no thread ran")?;
    let mut slice = Slice {
        tally: Tally::default(),
        elapsed: first.elapsed,
        server_cpu: first.server_cpu,
        client_cpu: Duration::ZERO,
        foreign_cpu: 0.0,
        firehose_bytes_per_second: 0.0,
    };
    for part in parts {
        slice.tally.merge(&part.tally)?;
        slice.client_cpu += part.client_cpu;
        slice.firehose_bytes_per_second += part.firehose_bytes as f64 / part.elapsed.as_secs_f64();
    }
    let known = slice.server_cpu + slice.client_cpu;
    slice.foreign_cpu =
        first.busy_cpu.saturating_sub(known).as_secs_f64() / (slice.elapsed.as_secs_f64() * watched as f64);
    Ok(slice)
}
