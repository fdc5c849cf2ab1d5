//! From a configuration to running threads: bind everything, then start the reactors, or leave nothing.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use super::config::{Balance, Config, Pinning, settings_of};
use super::running::{Ended, Listening, Running};
use super::signals::{SIGNALS, SignalsHeard};
use super::{PanicReport, Report, Server, StartError};
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
        let (seats, mut running) = prepare::<H::Message>(self.config)?;
        let mut starts = running.spawn::<H, F>(seats, Arc::new(factory))?;
        running.await_start(&mut starts)?;
        Ok(running)
    }

    /// As [`Server::start`], and then serves on the calling thread until the server has ended; tells what it
    /// did. `serving` is called when all reactors are ready to serve.
    ///
    /// The first reactor is this thread's, so a server of one reactor needs no other thread. On Linux that
    /// makes its system calls cheaper: where a process has but one thread, the kernel need not count who uses
    /// a descriptor. The thread keeps its name, but has SIGPIPE blocked from then on and is pinned by
    /// [`Pinning::Cores`] as the others are.
    ///
    /// ```no_run
    /// # use corelane::*;
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Session = ();
    /// #     type Message = ();
    /// #     fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> { Open::Accept(()) }
    /// #     fn on_data(&mut self, _: &mut Conn<'_>, _: &mut (), _: &mut Input<'_>) -> Flow { Flow::Close }
    /// # }
    /// let server = Server::new().listen("127.0.0.1:7000").reactors(1).handle_signals();
    /// let report = server.run(|_| Echo, |running| println!("{:?}", running.listening()))?;
    /// println!("{report}");
    /// # Ok::<(), StartError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn run<H, F>(
        self,
        factory: F,
        serving: impl FnOnce(&Running<H::Message>),
    ) -> Result<Report, StartError>
    where
        H: Handler,
        F: Fn(&Start<H::Message>) -> H + Send + Sync + 'static,
    {
        let factory = Arc::new(factory);
        let (mut seats, mut running) = prepare::<H::Message>(self.config)?;
        let first = seats.remove(0);
        let mut starts = running.spawn::<H, F>(seats, Arc::clone(&factory))?;
        // Behind `running`, and so dropped before it: the other reactors wait for this one.
        let seated = Seated::<H>::new(first, &*factory)?;
        running.await_start(&mut starts)?;
        serving(&running);
        let ended = seated.serve();
        Ok(running.end(Some(ended)))
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
                if config.balance == Balance::CpuSteering && reactors > allowed.len() {
                    return Err(config.more_reactors_than_cpus(reactors, allowed.len()).into());
                }
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
        None if plan.reactors > 1 => (plan.reactors, Sharing::Among),
        _ if config.share_port => (1, Sharing::Among),
        _ => (1, Sharing::Alone),
    };
    if sharing == Sharing::Among && !config.share_port {
        // The reactors share it with each other, not with whoever else has it.
        Listener::check_free(address).map_err(failed)?;
    }
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
struct Seat<M: Send + 'static> {
    parts: Parts<M>,
    driver: MioDriver,
    cpu: Option<usize>,
    start: Start<M>,
}

/// Word from the reactors' threads about their start.
struct Starts {
    words: mpsc::Receiver<Result<(), StartError>>,
    expected: usize,
}

/// Everything that comes before the reactors have threads.
fn prepare<M: Send + 'static>(config: Config) -> Result<(Vec<Seat<M>>, Running<M>), StartError> {
    let addresses = config.check()?;
    let files = process::raise_file_limit().map_err(StartError::setup("cannot raise RLIMIT_NOFILE"))?;
    log_file_limit(files);
    let plan = Plan::new(&config)?;
    let bound = bind_all(&config, &plan, &addresses)?;
    let listening: Vec<Listening> = bound.iter().map(|bound| bound.listening.clone()).collect();
    let (mut seats, handle) = seats::<M>(&config, &plan, bound)?;
    let signals = match seats.first_mut().filter(|_| config.handle_signals) {
        Some(first) => {
            let heard = SignalsHeard::new(|| first.driver.watch_signals(&SIGNALS));
            Some(heard.map_err(StartError::setup("cannot handle signals"))?)
        }
        None => None,
    };
    let running = Running {
        listening,
        files,
        handle,
        thread_name: config.thread_name,
        threads: Vec::new(),
        signals,
        started: Instant::now(),
    };
    Ok((seats, running))
}

impl<M: Send + 'static> Running<M> {
    /// Gives each seat a thread. What has been started stops when `self` is dropped.
    fn spawn<H, F>(&mut self, seats: Vec<Seat<M>>, factory: Arc<F>) -> Result<Starts, StartError>
    where
        H: Handler<Message = M>,
        F: Fn(&Start<M>) -> H + Send + Sync + 'static,
    {
        let (report_start, words) = mpsc::channel();
        let expected = seats.len();
        for seat in seats {
            let reactor = seat.start.reactor;
            let (factory, report_start) = (Arc::clone(&factory), report_start.clone());
            let body = move || match Seated::<H>::new(seat, &*factory) {
                Ok(seated) => {
                    // Who waits has gone only if another reactor failed before.
                    let _ = report_start.send(Ok(()));
                    drop(report_start);
                    seated.serve()
                }
                Err(error) => {
                    let _ = report_start.send(Err(error));
                    Ended::new(reactor)
                }
            };
            let name = format!("{}-{reactor}", self.thread_name);
            let thread = thread::Builder::new().name(name).spawn(body);
            self.threads.push((reactor, thread.map_err(StartError::setup("cannot start a thread"))?));
        }
        Ok(Starts { words, expected })
    }

    /// Waits until all threads serve, or one cannot.
    fn await_start(&mut self, starts: &mut Starts) -> Result<(), StartError> {
        let failure = starts.words.iter().take(starts.expected).find_map(Result::err);
        match failure {
            None => Ok(()),
            Some(failure) => {
                self.stop_now();
                Err(failure)
            }
        }
    }
}

/// Makes what the reactors share and what each has for itself.
fn seats<M: Send + 'static>(
    config: &Config,
    plan: &Plan,
    bound: Vec<Bound>,
) -> Result<(Vec<Seat<M>>, Handle<M>), StartError> {
    let settings = settings_of(config);
    let addresses: Arc<[Address]> = bound.iter().map(|bound| bound.listening.address.clone()).collect();
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
    let handle = Handle::new(Arc::clone(&mailboxes), Arc::clone(&published), Arc::clone(&control));
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
        start: Start { reactor: index, handle: handle.clone(), addresses: Arc::clone(&addresses) },
    };
    let seats = drivers.into_iter().enumerate().map(seat).collect();
    Ok((seats, handle))
}

/// A reactor on its thread, ready for its first turn.
struct Seated<H: Handler> {
    reactor: Reactor<MioDriver, Dispatch<H>>,
    control: Arc<Control>,
    guard: CloseMailbox<H::Message>,
    ended: Ended,
}

impl<H: Handler> Seated<H> {
    fn new(seat: Seat<H::Message>, factory: &dyn Fn(&Start<H::Message>) -> H) -> Result<Self, StartError> {
        let Seat { parts, driver, cpu, start } = seat;
        let guard = CloseMailbox { mailboxes: Arc::clone(&parts.mailboxes), reactor: start.reactor };
        pin(cpu)?;
        // A peer that goes while a file is sent to it must be an error (see `Stream::send_file`).
        process::block_sigpipe();
        let handler = make(&start, factory)?;
        let callbacks = Dispatch::new(handler, parts.index);
        let control = Arc::clone(&parts.control);
        let mut reactor = Reactor::new(parts, driver, callbacks);
        if reactor.start() == Then::Panicked
            && let Some(caught) = reactor.io.panics.pop()
        {
            return Err(panicked(start.reactor, &*caught.payload));
        }
        Ok(Self { reactor, control, guard, ended: Ended::new(start.reactor) })
    }

    /// Turns until the end.
    fn serve(self) -> Ended {
        let Self { mut reactor, control, guard, mut ended } = self;
        if let Err(error) = reactor.run() {
            tracing::error!(reactor = ended.reactor, %error, "a reactor cannot go on");
            ended.failure = Some(error);
            control.stop(Stop::Drain);
            guard.mailboxes.iter().for_each(Mailbox::wake);
        }
        drop(guard);
        ended.fill(reactor);
        ended
    }
}

/// Closes a reactor's mailbox however its thread ends, so that nobody waits for an answer from it.
struct CloseMailbox<M> {
    mailboxes: Arc<[Mailbox<Command<M>>]>,
    reactor: usize,
}

impl<M> Drop for CloseMailbox<M> {
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
