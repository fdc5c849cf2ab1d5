//! From a configuration to running threads: bind everything, then start the reactors, or leave nothing.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use super::config::{Balance, Config, Pinning, settings_of};
use super::running::{Ended, Listening, Running};
use super::signals::SignalThread;
use super::{PanicReport, Server, StartError};
use crate::connection::Admission;
use crate::driver::MioDriver;
use crate::handler::{Dispatch, Handle, Handler};
use crate::net::{Address, Listener, Sharing};
use crate::process::{self, FileLimit};
use crate::reactor::{
    Command, Control, Joint, Mailbox, Parts, Policy, Published, Reactor, Settings, Share, Stop, Then,
    panic_message,
};

/// What a handler's factory is given, on the thread of the reactor that it makes a handler for.
pub struct Start<M: Send + 'static> {
    pub(super) reactor: usize,
    pub(super) handle: Handle<M>,
    pub(super) addresses: Arc<[Address]>,
}

impl<M: Send + 'static> Start<M> {
    /// The index of the reactor, counted from 0.
    pub fn reactor(&self) -> usize {
        self.reactor
    }

    /// How many reactors there are.
    pub fn reactors(&self) -> usize {
        self.handle.reactors()
    }

    /// A handle to the whole server, to keep or to hand to other threads.
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// The server's addresses, with the ports that were taken.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl<M: Send + 'static> fmt::Debug for Start<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

impl Server {
    /// Checks the settings, raises the descriptor limit, binds every address, and starts the reactors, for
    /// each of which `factory` makes a handler on its own thread. Returns when all of them serve.
    ///
    /// # Errors
    ///
    /// [`StartError`] names the setting, the address or the reactor at fault. Nothing is left running.
    pub fn start<H, F>(self, factory: F) -> Result<Running<H::Message>, StartError>
    where
        H: Handler,
        F: Fn(&Start<H::Message>) -> H + Send + Sync + 'static,
    {
        let config = self.config;
        let addresses = config.check()?;
        let files = process::raise_file_limit().map_err(StartError::setup("cannot raise RLIMIT_NOFILE"))?;
        log_file_limit(files);
        let plan = Plan::new(&config)?;
        let bound = bind_all(&config, &plan, &addresses)?;
        launch::<H, F>(&config, plan, bound, files, factory)
    }
}

fn log_file_limit(files: FileLimit) {
    tracing::info!(before = files.before, now = files.now, hard = files.hard, "descriptor limit");
}

/// How many reactors, and on which CPUs.
#[derive(Debug)]
struct Plan {
    reactors: usize,
    /// The CPU of each reactor, where they are pinned.
    cpus: Option<Vec<usize>>,
}

impl Plan {
    fn new(config: &Config) -> Result<Self, StartError> {
        let available = || thread::available_parallelism().map_or(1, NonZero::get);
        let reactors = config.reactors.unwrap_or_else(available);
        let cpus = match config.pinning {
            Pinning::Off => None,
            Pinning::Cores => {
                let allowed =
                    process::allowed_cpus().map_err(StartError::setup("cannot read the CPU affinity"))?;
                Some(allowed.into_iter().cycle().take(reactors).collect())
            }
        };
        Ok(Self { reactors, cpus })
    }
}

/// One address: a listener for every reactor, or one for all.
#[derive(Debug)]
struct Bound {
    listening: Listening,
    /// By reactor.
    listeners: Vec<Option<Listener>>,
    /// `None` where the kernel spreads connections.
    policy: Option<Policy>,
}

/// Who spreads the connections of an address.
fn policy(config: &Config, plan: &Plan, address: &Address) -> Option<Policy> {
    let kernel_balances = cfg!(any(target_os = "linux", target_os = "freebsd"));
    let is_tcp = matches!(address, Address::Tcp(_));
    match config.balance {
        _ if plan.reactors == 1 => None,
        Balance::Kernel | Balance::CpuSteering if is_tcp && kernel_balances => None,
        Balance::Kernel | Balance::CpuSteering | Balance::RoundRobin => Some(Policy::RoundRobin),
        Balance::LeastConnections => Some(Policy::LeastConnections),
        Balance::SourceHash => Some(Policy::SourceHash),
    }
}

fn bind_all(config: &Config, plan: &Plan, addresses: &[Address]) -> Result<Vec<Bound>, StartError> {
    addresses.iter().map(|address| bind(config, plan, address)).collect()
}

fn bind(config: &Config, plan: &Plan, address: &Address) -> Result<Bound, StartError> {
    let failed = |error| StartError::Listen { address: address.clone(), error };
    let policy = policy(config, plan, address);
    let (count, sharing) = match policy {
        None if plan.reactors > 1 => (plan.reactors, Sharing::AmongReactors),
        _ => (1, Sharing::Alone),
    };
    let listen = |at: &Address| Listener::bind(at, config.backlog, &config.options, sharing);
    let first = listen(address).map_err(failed)?;
    // Where the port was left to the kernel, the others follow the first.
    let taken = first.address().map_err(failed)?;
    let listening = Listening {
        // A Unix path is told as it was given, not as the kernel may have shortened it.
        address: if matches!(taken, Address::Tcp(_)) { taken.clone() } else { address.clone() },
        backlog: first.backlog(),
        listeners: count,
    };
    let mut listeners = vec![Some(first)];
    for _ in 1..count {
        listeners.push(Some(listen(&taken).map_err(failed)?));
    }
    listeners.resize_with(plan.reactors, || None);
    if config.balance == Balance::CpuSteering && count > 1 {
        steer(&listeners, plan).map_err(failed)?;
    }
    Ok(Bound { listening, listeners, policy })
}

#[cfg(target_os = "linux")]
fn steer(listeners: &[Option<Listener>], plan: &Plan) -> std::io::Result<()> {
    match (listeners.first(), &plan.cpus) {
        (Some(Some(first)), Some(cpus)) => crate::net::steer_by_cpu(first, cpus),
        _ => Ok(()),
    }
}

/// The configuration was refused before it came to this.
#[cfg(not(target_os = "linux"))]
fn steer(_listeners: &[Option<Listener>], _plan: &Plan) -> std::io::Result<()> {
    Ok(())
}

/// What one reactor's thread is given.
struct Seat<M> {
    parts: Parts<M>,
    driver: MioDriver,
    cpu: Option<usize>,
}

/// Word from a reactor's thread about its start.
type Started = Result<(), StartError>;

fn launch<H, F>(
    config: &Config,
    plan: Plan,
    bound: Vec<Bound>,
    files: FileLimit,
    factory: F,
) -> Result<Running<H::Message>, StartError>
where
    H: Handler,
    F: Fn(&Start<H::Message>) -> H + Send + Sync + 'static,
{
    let listening: Vec<Listening> = bound.iter().map(|bound| bound.listening.clone()).collect();
    let addresses: Arc<[Address]> = listening.iter().map(|listening| listening.address.clone()).collect();
    let (seats, handle) = seats::<H::Message>(config, &plan, bound)?;
    let factory = Arc::new(factory);
    let (report_start, starts) = mpsc::channel::<Started>();
    let mut running = Running {
        listening,
        files,
        handle: handle.clone(),
        threads: Vec::new(),
        signals: None,
        started: Instant::now(),
    };
    for seat in seats {
        let start = Start {
            reactor: seat.parts.index.into(),
            handle: handle.clone(),
            addresses: Arc::clone(&addresses),
        };
        let (factory, report_start) = (Arc::clone(&factory), report_start.clone());
        let name = format!("{}-{}", config.thread_name, start.reactor);
        let body = move || serve::<H>(seat, &start, &*factory, &report_start);
        let thread = thread::Builder::new().name(name).spawn(body);
        // Dropping `running` stops what has been started.
        running.threads.push(thread.map_err(StartError::setup("cannot start a thread"))?);
    }
    drop(report_start);
    let first_failure = starts.iter().take(plan.reactors).find_map(Result::err);
    if let Some(failure) = first_failure {
        running.stop_now();
        return Err(failure);
    }
    if config.handle_signals {
        let signals = SignalThread::start(&config.thread_name, handle);
        running.signals = Some(signals.map_err(StartError::setup("cannot handle signals"))?);
    }
    Ok(running)
}

/// Makes what the reactors share and what each has for itself.
fn seats<M: Send + 'static>(
    config: &Config,
    plan: &Plan,
    bound: Vec<Bound>,
) -> Result<(Vec<Seat<M>>, Handle<M>), StartError> {
    let settings = settings_of(config);
    let published: Arc<[Published]> = (0..plan.reactors).map(|_| Published::default()).collect();
    let policies: Vec<Option<Policy>> = bound.iter().map(|bound| bound.policy).collect();
    let mut columns: Vec<_> = bound.into_iter().map(|bound| bound.listeners.into_iter()).collect();
    let mut drivers = Vec::new();
    let mut mailboxes = Vec::new();
    for _ in 0..plan.reactors {
        let listeners = columns.iter_mut().map(|column| column.next().flatten()).collect();
        let made = MioDriver::new(listeners, config.read_buffer);
        let (driver, waker) = made.map_err(StartError::setup("cannot make a poller"))?;
        drivers.push(driver);
        mailboxes.push(Mailbox::new(config.mailbox, config.mailbox_bytes, Box::new(waker)));
    }
    let mailboxes: Arc<[Mailbox<Command<M>>]> = mailboxes.into();
    let control = Arc::new(Control::new(plan.reactors));
    let admission = Admission::new(config.max_connections, config.max_connections_per_source);
    let seat = |(index, driver)| Seat {
        parts: Parts {
            index: index as u16,
            settings: Settings::clone(&settings),
            policies: policies.clone(),
            admission: admission.clone(),
            mailboxes: Arc::clone(&mailboxes),
            published: Arc::clone(&published),
            control: Arc::clone(&control),
            accepting: Share::new(Joint::Accepting, &control, &mailboxes),
            serving: Share::new(Joint::Serving, &control, &mailboxes),
        },
        driver,
        cpu: plan.cpus.as_ref().map(|cpus| cpus[index]),
    };
    let seats = drivers.into_iter().enumerate().map(seat).collect();
    Ok((seats, Handle::new(mailboxes, published, control)))
}

/// The life of a reactor's thread.
fn serve<H: Handler>(
    seat: Seat<H::Message>,
    start: &Start<H::Message>,
    factory: &dyn Fn(&Start<H::Message>) -> H,
    report_start: &mpsc::Sender<Started>,
) -> Ended {
    let Seat { parts, driver, cpu } = seat;
    let mut ended = Ended::new(start.reactor);
    let mailboxes = Arc::clone(&parts.mailboxes);
    let control = Arc::clone(&parts.control);
    let guard = CloseMailbox { mailboxes: &mailboxes, reactor: start.reactor };
    let made = pin(cpu).and_then(|()| make(start, factory));
    let handler = match made {
        Ok(handler) => handler,
        Err(error) => {
            // Who waits has gone only if another reactor failed before.
            let _ = report_start.send(Err(error));
            return ended;
        }
    };
    let callbacks = Dispatch::new(handler, parts.index);
    let mut reactor = Reactor::new(parts, driver, callbacks);
    if reactor.start() == Then::Panicked {
        let panicked = reactor.io.panics.pop().map(|caught| panicked(start.reactor, &*caught.payload));
        let _ = report_start.send(panicked.map_or(Ok(()), Err));
        return ended;
    }
    let _ = report_start.send(Ok(()));
    if let Err(error) = reactor.run() {
        tracing::error!(reactor = start.reactor, %error, "a reactor cannot go on");
        ended.failure = Some(error);
        control.stop(Stop::Drain);
    }
    drop(guard);
    ended.fill(reactor);
    ended
}

/// Closes a reactor's mailbox however its thread ends, so that nobody waits for an answer from it.
struct CloseMailbox<'a, M> {
    mailboxes: &'a [Mailbox<Command<M>>],
    reactor: usize,
}

impl<M> Drop for CloseMailbox<'_, M> {
    fn drop(&mut self) {
        self.mailboxes[self.reactor].close();
    }
}

fn pin(cpu: Option<usize>) -> Result<(), StartError> {
    match cpu {
        Some(cpu) => process::pin_to(cpu).map_err(StartError::setup("cannot pin a reactor to its CPU")),
        None => Ok(()),
    }
}

fn make<H: Handler>(
    start: &Start<H::Message>,
    factory: &dyn Fn(&Start<H::Message>) -> H,
) -> Result<H, StartError> {
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| factory(start)));
    made.map_err(|payload| panicked(start.reactor, &*payload))
}

fn panicked(reactor: usize, payload: &(dyn std::any::Any + Send)) -> StartError {
    StartError::Panicked { reactor, message: panic_message(payload).to_owned() }
}

impl Ended {
    fn new(reactor: usize) -> Self {
        Self {
            reactor,
            snapshot: Default::default(),
            open_at_shutdown: 0,
            cut_off: 0,
            panics: Vec::new(),
            failure: None,
        }
    }

    fn fill<H: Handler>(&mut self, mut reactor: Reactor<MioDriver, Dispatch<H>>) {
        self.snapshot = reactor.final_counters();
        self.open_at_shutdown = reactor.open_at_drain();
        self.cut_off = reactor.cut_off_count();
        let reports = reactor.io.panics.drain(..).map(|caught| PanicReport {
            reactor: self.reactor,
            callback: caught.callback,
            message: panic_message(&*caught.payload).to_owned(),
            payload: caught.payload,
        });
        self.panics = reports.collect();
    }
}
