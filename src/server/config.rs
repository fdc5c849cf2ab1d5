use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConfigError, StartError};
use crate::connection::Periods;
use crate::net::{Address, AddressError, SocketOptions};
use crate::reactor::{Backpressure, Settings};
use crate::time::{nanos, ticks};

/// Whether reactors stay on one CPU each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pinning {
    /// The scheduler moves them as it likes.
    #[default]
    Off,
    /// Reactor i runs on the i-th CPU that the process may use, counted round. Linux and FreeBSD.
    Cores,
}

/// How connections are spread over the reactors.
///
/// Unix sockets know no `SO_REUSEPORT`: where one of the first two is set, their connections are handed
/// out by one acceptor in round robin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Balance {
    /// A listener for each reactor (`SO_REUSEPORT`), and the kernel chooses one by a hash of the addresses.
    /// Where a platform's kernel does not spread connections (macOS and the BSDs but FreeBSD), one acceptor
    /// hands them out in round robin instead.
    #[default]
    Kernel,
    /// As `Kernel`, but a connection goes to the reactor of the CPU that received it (classic BPF,
    /// `SO_ATTACH_REUSEPORT_CBPF`). Needs [`Pinning::Cores`]; Linux.
    CpuSteering,
    /// Reactor 0 accepts and hands out, in turn.
    RoundRobin,
    /// Reactor 0 accepts; the reactor with the fewest connections gets the next.
    LeastConnections,
    /// Reactor 0 accepts; connections from one IP address all go to one reactor, whichever of the server's
    /// addresses they come to. A Unix connection has no address and goes in turn.
    SourceHash,
}

/// What a reactor does when nothing is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Polling {
    /// Sleep until an event comes.
    #[default]
    Block,
    /// Look for events again and again for this long after the last one, then sleep. Takes the wake-up
    /// (some 20 us) out of the latency and costs CPU instead. 1 us to 1 s.
    Spin(Duration),
}

/// What a panic in a callback does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PanicPolicy {
    /// It resets the connection that the callback was about, is counted, logged, and kept for the report.
    #[default]
    CloseConnection,
    /// It is logged and the process aborts.
    AbortProcess,
}

/// What happens to a connection whose output would exceed the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SlowConsumer {
    /// It is reset, with [`CloseReason::SlowConsumer`](crate::CloseReason::SlowConsumer).
    #[default]
    Close,
    /// The write is refused and the connection stays: the handler must look at what `write` returns, or
    /// its peer misses bytes in the middle of the stream.
    RefuseWrites,
}

/// Bounds on a connection's output, in bytes that the kernel has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Above this, writes answer [`Written::High`](crate::Written::High). 64 KiB unless set.
    pub high: usize,
    /// `on_drained` comes when output falls to this. At most `high`; 16 KiB unless set.
    pub low: usize,
    /// A write that would exceed this is refused whole. At least `high`; 4 MiB unless set.
    pub cap: usize,
}

impl Default for Watermarks {
    fn default() -> Self {
        Self { high: 64 * 1024, low: 16 * 1024, cap: 4 * 1024 * 1024 }
    }
}

/// How slowly the rest of a message may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumRate {
    /// On average since the handler first left input unconsumed. 1 to 2^31.
    pub bytes_per_second: u32,
    /// The rate is not looked at earlier than this. 10 ms to 24 days.
    pub grace: Duration,
}

/// How long a connection may keep the server waiting. `None`: for ever. All are kept to 20 ms, never early,
/// and reach from 10 ms to 24 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From the accept to the first byte received. Not while the handler has the connection paused.
    pub first_byte: Option<Duration>,
    /// Without a byte in either direction, while it is the peer from which one could come: where no output waits, not while
    /// the handler has the connection paused; where output waits, only if `write_stall` is not set.
    pub idle: Option<Duration>,
    /// With output waiting and the peer taking none of it.
    pub write_stall: Option<Duration>,
    /// From the end of our side, in a graceful close, to the end of the peer's. Zero: do not wait, and risk
    /// the last bytes if the peer is still sending. 5 s unless set; it also bounds how long a closing
    /// connection may take no output, where `write_stall` does not.
    pub linger: Duration,
    /// Of a message of which a part has come.
    pub minimum_rate: Option<MinimumRate>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_byte: None,
            idle: None,
            write_stall: None,
            linger: Duration::from_secs(5),
            minimum_rate: None,
        }
    }
}

/// A server to be: its addresses and settings. [`Server::start`] checks and starts it.
///
/// Every setting has a default that suits a service on its own machine; each method says which.
///
/// ```no_run
/// # use corelane::*;
/// # use std::time::Duration;
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type Session = (); type Message = ();
/// #     fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> { Open::Accept(()) }
/// #     fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
/// #         conn.write(input.take_all());
/// #         Flow::Continue
/// #     }
/// # }
/// # fn main() -> Result<(), StartError> {
/// let server = Server::new()
///     .listen("0.0.0.0:7000")
///     .listen("unix:/run/echo.sock")
///     .max_connections(100_000)
///     .deadlines(Deadlines { idle: Some(Duration::from_secs(60)), ..Deadlines::default() })
///     .handle_signals()
///     .start(|_| Echo)?;
/// println!("{}", server.join());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a server does nothing before it is started"]
pub struct Server {
    pub(super) config: Config,
}

/// The settings themselves.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(super) addresses: Vec<Result<Address, AddressError>>,
    pub(super) reactors: Option<usize>,
    pub(super) pinning: Pinning,
    pub(super) balance: Balance,
    pub(super) share_port: bool,
    pub(super) options: SocketOptions,
    pub(super) backlog: u32,
    deadlines: Deadlines,
    watermarks: Watermarks,
    input_cap: usize,
    pub(super) read_buffer: usize,
    byte_budget: usize,
    pub(super) max_connections: Option<usize>,
    pub(super) max_connections_per_source: Option<usize>,
    pub(super) mailbox: usize,
    pub(super) mailbox_bytes: usize,
    backpressure: Backpressure,
    slow_consumer: SlowConsumer,
    panic_policy: PanicPolicy,
    polling: Polling,
    tick: Option<Duration>,
    drain_deadline: Duration,
    pub(super) handle_signals: bool,
    pub(super) thread_name: String,
}

/// Connections that one turn accepts at most from one listener: some 0.2 ms of work.
const ACCEPT_BUDGET: usize = 64;
/// Commands that one turn takes from the mailbox at most.
const MAILBOX_BUDGET: usize = 256;
/// Timers that fire in one turn at most.
const TIMER_BUDGET: usize = 256;

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server with no address and every default.
    pub fn new() -> Self {
        Self {
            config: Config {
                addresses: Vec::new(),
                reactors: None,
                pinning: Pinning::default(),
                balance: Balance::default(),
                share_port: false,
                options: SocketOptions::default(),
                backlog: 4096,
                deadlines: Deadlines::default(),
                watermarks: Watermarks::default(),
                input_cap: 1024 * 1024,
                read_buffer: 64 * 1024,
                byte_budget: 256 * 1024,
                max_connections: None,
                max_connections_per_source: None,
                mailbox: 4096,
                mailbox_bytes: 64 * 1024 * 1024,
                backpressure: Backpressure::default(),
                slow_consumer: SlowConsumer::default(),
                panic_policy: PanicPolicy::default(),
                polling: Polling::default(),
                tick: None,
                drain_deadline: Duration::from_secs(30),
                handle_signals: false,
                thread_name: "corelane".to_owned(),
            },
        }
    }

    /// Listens on this address too. May be called many times, or never by a server that only dials.
    ///
    /// Port 0 takes a free port, the same for every reactor; [`Running::addresses`](crate::Running::addresses)
    /// tells which. An IPv6 address takes no IPv4 connections: listen on both. A Unix path that is left over
    /// from a dead server is replaced, anything else at that path is an error; it is removed at the end.
    pub fn listen<A>(mut self, address: A) -> Self
    where
        A: TryInto<Address>,
        A::Error: Into<AddressError>,
    {
        self.config.addresses.push(address.try_into().map_err(Into::into));
        self
    }

    /// How many reactors, and so threads. 1 to 1,024. By default as many as there are CPUs for the process,
    /// by affinity and cgroup quota.
    pub fn reactors(mut self, count: usize) -> Self {
        self.config.reactors = Some(count);
        self
    }

    /// Off by default.
    pub fn pinning(mut self, pinning: Pinning) -> Self {
        self.config.pinning = pinning;
        self
    }

    /// [`Balance::Kernel`] by default.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.config.balance = balance;
        self
    }

    /// Lets other processes of the same user listen on the same TCP addresses, if they ask for the same: the kernel
    /// then spreads connections over the listeners of all of them (`SO_REUSEPORT`, on FreeBSD `SO_REUSEPORT_LB`;
    /// other systems give them all to one listener). Off by default. Not for Unix sockets, which know no such thing.
    pub fn share_port(mut self) -> Self {
        self.config.share_port = true;
        self
    }

    /// For accepted connections; [`Dial`](crate::Dial) has its own.
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.config.options = options;
        self
    }

    /// How many accepted connections the kernel queues for each listener. The kernel caps it by
    /// `net.core.somaxconn`; [`Listening::backlog`](crate::Listening::backlog) tells what came of it.
    /// 1 to 65,535; 4,096 by default.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.config.backlog = connections;
        self
    }

    /// None by default, except that a graceful close lingers at most 5 s.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.config.deadlines = deadlines;
        self
    }

    /// Bounds on each connection's output.
    pub fn watermarks(mut self, watermarks: Watermarks) -> Self {
        self.config.watermarks = watermarks;
        self
    }

    /// How much input a handler may leave unconsumed on one connection; beyond, it closes with
    /// [`CloseReason::InputOverflow`](crate::CloseReason::InputOverflow). Where frames are taken from the input,
    /// it must have room for the largest. 1 byte to 1 GiB; 1 MiB by default.
    pub fn input_cap(mut self, bytes: usize) -> Self {
        self.config.input_cap = bytes;
        self
    }

    /// The size of the one buffer that a reactor reads all connections into. 512 bytes to 16 MiB; 64 KiB by
    /// default.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.config.read_buffer = bytes;
        self
    }

    /// How much one connection may read in one turn before the others get theirs; it may be exceeded by one
    /// read buffer. 1 byte to 1 GiB; 256 KiB by default.
    pub fn byte_budget(mut self, bytes: usize) -> Self {
        self.config.byte_budget = bytes;
        self
    }

    /// The most connections accepted and open at a time, over all reactors; beyond, they are accepted and
    /// closed at once. 1 and up; unbounded by default, except by the descriptor limit.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.config.max_connections = Some(count);
        self
    }

    /// The same for the connections from one IP address. 1 and up; unbounded by default.
    pub fn max_connections_per_source(mut self, count: usize) -> Self {
        self.config.max_connections_per_source = Some(count);
        self
    }

    /// How many commands from other threads may wait for one reactor, and how many bytes of writes among
    /// them. 1 to 2^20 and 1 to 2^40; 4,096 and 64 MiB by default.
    pub fn mailbox(mut self, commands: usize, bytes: usize) -> Self {
        self.config.mailbox = commands;
        self.config.mailbox_bytes = bytes;
        self
    }

    /// [`Backpressure::Automatic`] by default.
    pub fn backpressure(mut self, backpressure: Backpressure) -> Self {
        self.config.backpressure = backpressure;
        self
    }

    /// [`SlowConsumer::Close`] by default.
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.config.slow_consumer = policy;
        self
    }

    /// [`PanicPolicy::CloseConnection`] by default.
    pub fn on_panic(mut self, policy: PanicPolicy) -> Self {
        self.config.panic_policy = policy;
        self
    }

    /// [`Polling::Block`] by default.
    pub fn polling(mut self, polling: Polling) -> Self {
        self.config.polling = polling;
        self
    }

    /// Calls `on_tick` on every reactor once in this time. 1 ms to 24 days; never by default.
    pub fn tick(mut self, period: Duration) -> Self {
        self.config.tick = Some(period);
        self
    }

    /// How long connections may take to end at shutdown before they are cut off. Zero to 24 days; 30 s by
    /// default.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.config.drain_deadline = deadline;
        self
    }

    /// Shuts down in good order at SIGINT and SIGTERM, and at once at the second one. Without this the
    /// library touches no signal.
    pub fn handle_signals(mut self) -> Self {
        self.config.handle_signals = true;
        self
    }

    /// What the threads' names begin with, `corelane` by default. Linux keeps 15 bytes of a name.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.config.thread_name = name.into();
        self
    }
}

const MONTH: Duration = Duration::from_secs(24 * 24 * 60 * 60);

impl Config {
    /// Checks every setting and returns the addresses.
    pub(super) fn check(&self) -> Result<Vec<Address>, StartError> {
        let addresses: Result<Vec<_>, _> = self.addresses.iter().cloned().collect();
        let addresses = addresses.map_err(StartError::Address)?;
        for address in &addresses {
            address.check().map_err(StartError::Address)?;
        }
        self.check_settings()?;
        Ok(addresses)
    }

    fn check_settings(&self) -> Result<(), ConfigError> {
        if let Some(reactors) = self.reactors {
            within("reactors", reactors, 1..=1024)?;
        }
        within("backlog", self.backlog, 1..=65_535)?;
        let Watermarks { high, low, cap } = self.watermarks;
        within("watermarks.high", high, 1..=usize::MAX)?;
        within("watermarks.low", low, 0..=high)?;
        within("watermarks.cap", cap, high..=usize::MAX)?;
        within("input_cap", self.input_cap, 1..=1 << 30)?;
        within("read_buffer", self.read_buffer, 512..=16 << 20)?;
        within("byte_budget", self.byte_budget, 1..=1 << 30)?;
        for (field, cap) in [
            ("max_connections", self.max_connections),
            ("max_connections_per_source", self.max_connections_per_source),
        ] {
            within(field, cap.unwrap_or(1), 1..=usize::MAX)?;
        }
        within("mailbox (commands)", self.mailbox, 1..=1 << 20)?;
        within("mailbox (bytes)", self.mailbox_bytes, 1..=1 << 40)?;
        within_time("drain_deadline", Some(self.drain_deadline), Duration::ZERO)?;
        within_time("tick", self.tick, Duration::from_millis(1))?;
        self.check_deadlines()?;
        self.check_latency()?;
        self.options.check().map_err(|(field, value, accepted)| ConfigError {
            field,
            value,
            accepted: accepted.to_owned(),
        })
    }

    fn check_deadlines(&self) -> Result<(), ConfigError> {
        let least = Duration::from_millis(10);
        within_time("deadlines.first_byte", self.deadlines.first_byte, least)?;
        within_time("deadlines.idle", self.deadlines.idle, least)?;
        within_time("deadlines.write_stall", self.deadlines.write_stall, least)?;
        within_time("deadlines.linger", Some(self.deadlines.linger), Duration::ZERO)?;
        if let Some(rate) = self.deadlines.minimum_rate {
            within("deadlines.minimum_rate.bytes_per_second", rate.bytes_per_second, 1..=1 << 31)?;
            within_time("deadlines.minimum_rate.grace", Some(rate.grace), least)?;
        }
        Ok(())
    }

    fn check_latency(&self) -> Result<(), ConfigError> {
        if let Polling::Spin(duration) = self.polling
            && !(Duration::from_micros(1)..=Duration::from_secs(1)).contains(&duration)
        {
            return Err(refused("polling", &format!("{duration:?}"), "1us to 1s"));
        }
        let has_affinity = cfg!(any(target_os = "linux", target_os = "freebsd"));
        if self.pinning == Pinning::Cores && !has_affinity {
            return Err(refused("pinning", "Cores", "Off on this platform"));
        }
        if self.balance == Balance::CpuSteering {
            if cfg!(not(target_os = "linux")) {
                return Err(refused("balance", "CpuSteering", "another one on this platform"));
            }
            if self.pinning != Pinning::Cores {
                return Err(refused("balance", "CpuSteering", "pinning(Pinning::Cores) with it"));
            }
        }
        Ok(())
    }
}

/// The reactor's part of the configuration.
pub(crate) fn settings_of(config: &Config) -> Settings {
    let Deadlines { first_byte, idle, write_stall, linger, minimum_rate } = config.deadlines;
    let period = |deadline: Option<Duration>| deadline.map_or(0, ticks);
    let linger = if linger.is_zero() { 0 } else { ticks(linger) };
    let patience = if linger == 0 { ticks(Deadlines::default().linger) } else { linger };
    let periods = Periods {
        first_byte: period(first_byte),
        idle: period(idle),
        write_stall: period(write_stall),
        linger,
        flush_stall: write_stall.map_or(patience, ticks),
        minimum_rate: minimum_rate.map_or(0, |rate| rate.bytes_per_second),
        grace: minimum_rate.map_or(0, |rate| ticks(rate.grace)),
    };
    Settings {
        high_watermark: config.watermarks.high,
        low_watermark: config.watermarks.low,
        output_cap: config.watermarks.cap,
        input_cap: config.input_cap,
        byte_budget: config.byte_budget,
        accept_budget: ACCEPT_BUDGET,
        mailbox_budget: MAILBOX_BUDGET,
        timer_budget: TIMER_BUDGET,
        periods,
        backpressure: config.backpressure,
        close_slow_consumers: config.slow_consumer == SlowConsumer::Close,
        abort_on_panic: config.panic_policy == PanicPolicy::AbortProcess,
        spin: match config.polling {
            Polling::Block => 0,
            Polling::Spin(duration) => nanos(duration),
        },
        tick: config.tick.map(nanos),
        drain_deadline: nanos(config.drain_deadline),
    }
}

impl Config {
    /// Of two reactors on one CPU the kernel would give all connections to the first.
    pub(super) fn more_reactors_than_cpus(&self, reactors: usize, cpus: usize) -> ConfigError {
        refused("reactors", &reactors.to_string(), &format!("1 to {cpus}, as many as CPUs, with CpuSteering"))
    }
}

fn refused(field: &'static str, value: &str, accepted: &str) -> ConfigError {
    ConfigError { field, value: value.to_owned(), accepted: accepted.to_owned() }
}

fn within<T: PartialOrd + Display>(
    field: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let accepted = format!("{} to {}", range.start(), range.end());
    Err(refused(field, &value.to_string(), &accepted))
}

fn within_time(field: &'static str, value: Option<Duration>, least: Duration) -> Result<(), ConfigError> {
    match value {
        Some(value) if !(least..=MONTH).contains(&value) => {
            let accepted = format!("{least:?} to 24 days");
            Err(refused(field, &format!("{value:?}"), &accepted))
        }
        _ => Ok(()),
    }
}

/// Compile-time proof that the configuration can be handed to reactor threads.
const _: fn() = || {
    fn is_send<T: Send + Debug>() {}
    is_send::<Config>();
};
