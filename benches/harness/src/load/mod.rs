//! The client: loads a server for one slice of time, by io_uring.
//!
//! A client built on readiness saturates its core before most servers do theirs, and then the
//! comparison is one of the client with itself.

mod broadcast;
mod churn;
mod connect;
mod echo;
mod lane;
mod memory;
mod pace;
mod ring;
mod window;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cpu::{CpuClock, CpuList};
use crate::latency;
use crate::pattern::Pattern;
pub(crate) use broadcast::SMALLEST_LINE;
use broadcast::Text;
use ring::Wait;
use window::{Clock, Tally, Watched, Window};

/// How long connections may take to be accepted and proven by a first echo.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the replies outstanding at the end of a slice may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

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
}

/// What one slice saw.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) messages: u64,
    /// Messages of the rate mode that the client sent too late.
    pub(crate) late: u64,
    pub(crate) elapsed: Duration,
    pub(crate) per_second: f64,
    pub(crate) server_cpu: Duration,
    /// CPU time of all the client's threads.
    pub(crate) client_cpu: Duration,
    /// The share of the watched CPUs that neither the server nor the client took.
    pub(crate) foreign_cpu: f64,
    pub(crate) firehose_bytes_per_second: f64,
}

/// Loads one server after the other.
#[derive(Debug)]
pub(crate) struct Loader {
    load: Load,
    watched: CpuList,
    pattern: &'static Pattern,
    /// What is published, of the broadcast mode.
    text: Option<&'static Text>,
}

/// The server to load, and where it takes publishers, if it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) publish: Option<SocketAddr>,
    pub(crate) clock: CpuClock,
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
    pattern: &'static Pattern,
    text: Option<&'static Text>,
    address: SocketAddr,
    publish: Option<SocketAddr>,
    server: CpuClock,
    watched: &'a CpuList,
    clock: Clock,
    stop: &'a AtomicBool,
    failed: AtomicBool,
    ready: AtomicUsize,
    start: OnceLock<u64>,
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

    /// What this thread's window watches.
    fn watched(&self) -> Watched<'a> {
        Watched { server: self.shared.server, cpus: (self.thread == 0).then_some(self.shared.watched) }
    }

    /// Waits until every thread is ready, and then has a window planned for all of them.
    fn rendezvous(&self) -> Result<Window<'a>> {
        let shared = self.shared;
        shared.ready.fetch_add(1, Ordering::AcqRel);
        while shared.ready.load(Ordering::Acquire) < shared.load.threads {
            shared.ensure_going()?;
            thread::sleep(Duration::from_micros(200));
        }
        let start = *shared.start.get_or_init(|| shared.clock.now());
        let Load { warmup, slice, .. } = *shared.load;
        Ok(Window::new(start, warmup, slice, self.watched()))
    }

    /// Where the `index`th connection of this thread comes from.
    fn source(&self, index: usize) -> Option<Ipv4Addr> {
        let sources = &self.shared.load.sources;
        let global = index * self.shared.load.threads + self.thread;
        (!sources.is_empty()).then(|| sources[global % sources.len()])
    }

    fn run(&self) -> Result<Tally> {
        self.shared.load.cpus.for_thread(self.thread).pin_this_thread()?;
        // Timeouts of waits are as exact as the timer can make them.
        nix::sys::prctl::set_timerslack(1).context("cannot set the timer slack")?;
        match self.shared.load.mode {
            Mode::Churn { reset } => churn::run(self, reset),
            Mode::Closed { .. } | Mode::Rate { .. } => echo::run(self),
            Mode::Broadcast { depth } => {
                broadcast::run(self, self.shared.text.context("there is no text to publish")?, depth)
            }
        }
    }
}

impl Loader {
    /// Prepares to load servers, and to watch who else uses the `watched` CPUs.
    pub(crate) fn new(load: Load, watched: CpuList) -> Self {
        let pattern = Pattern::leak(lane::largest_send(load.size));
        let text = match load.mode {
            Mode::Broadcast { depth } => Some(Text::leak(load.size, depth)),
            _ => None,
        };
        Self { load, watched, pattern, text }
    }

    /// Loads a server for one slice, after connecting and warming up.
    pub(crate) fn run(&self, target: Target, stop: &AtomicBool) -> Result<Slice> {
        let shared = Shared {
            load: &self.load,
            pattern: self.pattern,
            text: self.text,
            address: target.address,
            publish: target.publish,
            server: target.clock,
            watched: &self.watched,
            clock: Clock::start(),
            stop,
            failed: AtomicBool::new(false),
            ready: AtomicUsize::new(0),
            start: OnceLock::new(),
        };
        let failure = Mutex::new(None);
        let tallies: Vec<Option<Tally>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.load.threads)
                .map(|thread| {
                    let (shared, failure) = (&shared, &failure);
                    scope.spawn(move || match Share::new(shared, thread).run() {
                        Ok(tally) => Some(tally),
                        Err(error) => {
                            shared.failed.store(true, Ordering::Relaxed);
                            let mut failure = failure.lock().expect("no thread panics");
                            // That another thread gave up as well is not the reason.
                            if failure.as_ref().is_none_or(|earlier: &Error| earlier.is::<Aborted>()) {
                                *failure = Some(error);
                            }
                            None
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
        });
        if let Some(error) = failure.into_inner().expect("no thread panics") {
            return Err(error);
        }
        let tallies: Option<Vec<Tally>> = tallies.into_iter().collect();
        merge(&tallies.context("a thread has no tally")?, self.watched.len())
    }
}

/// The slice as all threads saw it together.
fn merge(tallies: &[Tally], watched: usize) -> Result<Slice> {
    let first = tallies.first().context("no thread ran")?;
    let mut slice = Slice {
        latencies: latency::histogram(),
        messages: 0,
        late: 0,
        elapsed: first.elapsed,
        per_second: 0.0,
        server_cpu: first.server_cpu,
        client_cpu: Duration::ZERO,
        foreign_cpu: 0.0,
        firehose_bytes_per_second: 0.0,
    };
    for tally in tallies {
        slice.latencies.add(&tally.latencies).context("cannot merge histograms")?;
        slice.messages += tally.messages;
        slice.late += tally.late;
        slice.client_cpu += tally.client_cpu;
        // Each thread's window opens and closes by its own clock readings.
        let seconds = tally.elapsed.as_secs_f64();
        slice.per_second += tally.messages as f64 / seconds;
        slice.firehose_bytes_per_second += tally.firehose_bytes as f64 / seconds;
    }
    let known = slice.server_cpu + slice.client_cpu;
    slice.foreign_cpu =
        first.busy_cpu.saturating_sub(known).as_secs_f64() / (slice.elapsed.as_secs_f64() * watched as f64);
    Ok(slice)
}
