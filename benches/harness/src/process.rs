//! Servers run as child processes.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use corelane::Address;
use nix::errno::Errno;
use nix::sched::sched_setaffinity;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getppid};

use crate::cpu::{CpuClock, CpuList};
use crate::measure::with_descendants;

/// What a server prints before the address that it listens on.
const ANNOUNCEMENT: &str = "listening on ";

/// What one that takes publishers prints after that, before the address for them.
const FEED_ANNOUNCEMENT: &str = "publish on ";

/// How long a server may take to announce its address.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether a server that starts is still wanted.
const NAP: Duration = Duration::from_millis(50);

/// How long a server may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a server says on its stdout, line by line, after it has announced its address.
pub(crate) type Lines = Receiver<String>;

/// A server in a child process, which ends no later than this value or this process. What it has started itself ends
/// with this value; if this process is killed outright, it is left to the server to see to that.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: Address,
    publish: Option<SocketAddr>,
    /// Its processes when they were looked at last, and the clock of all of them.
    clock: RefCell<(Vec<u32>, CpuClock)>,
}

impl Server {
    /// Starts `command` (split as a shell would, but run without one) on `cpus`, and waits until
    /// it has announced its address.
    ///
    /// To be called on a thread that outlives the server: the kernel ends the server with it. Fails once `stop` is set.
    pub(crate) fn start(command: &str, cpus: &CpuList, stop: &AtomicBool) -> Result<Self> {
        Self::start_on(command, cpus, stop).map(|(server, _)| server)
    }

    /// As [`Server::start`], a server that announces an address for publishers too.
    pub(crate) fn start_feed(command: &str, cpus: &CpuList, stop: &AtomicBool) -> Result<Self> {
        let (mut server, lines) = Self::start_on(command, cpus, stop)?;
        server.takes_publishers(&lines, stop).with_context(|| format!("`{command}` takes no publishers"))?;
        Ok(server)
    }

    /// Waits until the server has announced where it takes publishers.
    pub(crate) fn takes_publishers(&mut self, lines: &Lines, stop: &AtomicBool) -> Result<()> {
        match announcement(lines, FEED_ANNOUNCEMENT, stop)? {
            Address::Tcp(address) => self.publish = Some(address),
            other => bail!("it takes them on {other}, where TCP is needed"),
        }
        Ok(())
    }

    /// Starts a server on these CPUs, or on any, that announces an address of whatever kind.
    pub(crate) fn start_any(
        mut command: Command,
        name: &str,
        cpus: Option<&CpuList>,
        stop: &AtomicBool,
    ) -> Result<(Self, Lines)> {
        command.stdin(Stdio::null());
        if let Some(cpus) = cpus {
            confine(&mut command, cpus)?;
        }
        Self::launch(command, name, stop)
    }

    fn start_on(command: &str, cpus: &CpuList, stop: &AtomicBool) -> Result<(Self, Lines)> {
        let words =
            shell_words::split(command).with_context(|| format!("cannot split the command `{command}`"))?;
        let [program, arguments @ ..] = words.as_slice() else {
            bail!("the command of a server is empty");
        };
        let mut command_line = Command::new(program);
        command_line.args(arguments).stdin(Stdio::null());
        confine(&mut command_line, cpus)?;
        Self::spawn(command_line, command, stop)
    }

    /// Starts a server that is called `name` in errors; otherwise as [`Server::start`]. Tells too
    /// what the server says later.
    fn spawn(command: Command, name: &str, stop: &AtomicBool) -> Result<(Self, Lines)> {
        let (server, lines) = Self::launch(command, name, stop)?;
        match &server.address {
            Address::Tcp(_) => Ok((server, lines)),
            other => bail!("`{name}` listens on {other}, where TCP is needed"),
        }
    }

    fn launch(mut command: Command, name: &str, stop: &AtomicBool) -> Result<(Self, Lines)> {
        command.stdout(Stdio::piped());
        end_with_this_one(&mut command);
        let mut child = command.spawn().with_context(|| format!("cannot start `{name}`"))?;
        match Self::wait_for_announcement(&mut child, stop) {
            Ok((address, clock, lines)) => {
                let clock = RefCell::new((vec![child.id()], clock));
                Ok((Self { child, address, publish: None, clock }, lines))
            }
            Err(error) => {
                end(&mut child);
                Err(error.context(format!("`{name}` did not start")))
            }
        }
    }

    fn wait_for_announcement(child: &mut Child, stop: &AtomicBool) -> Result<(Address, CpuClock, Lines)> {
        let lines = read_lines(child.stdout.take().context("stdout is not piped")?)?;
        let address = announcement(&lines, ANNOUNCEMENT, stop)?;
        Ok((address, CpuClock::of_processes(&[child.id()])?, lines))
    }

    /// Where to connect to, of a server that was not started by [`Server::start_any`].
    pub(crate) fn address(&self) -> SocketAddr {
        match self.address {
            Address::Tcp(address) => address,
            Address::Unix(_) | Address::Abstract(_) => unreachable!("it was looked at when it was started"),
        }
    }

    /// Where to connect to.
    pub(crate) fn listening(&self) -> &Address {
        &self.address
    }

    /// Where it takes publishers.
    pub(crate) fn publish(&self) -> Option<SocketAddr> {
        self.publish
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time of the process and of all that descend from it now: a master leaves the work to its children. One
    /// that is started later counts when it has ended.
    pub(crate) fn clock(&self) -> CpuClock {
        let pids = with_descendants(&[self.pid()]);
        let mut known = self.clock.borrow_mut();
        if known.0 != pids
            && let Ok(clock) = CpuClock::of_processes(&pids)
        {
            *known = (pids, clock);
        }
        known.1
    }

    /// How the server ended, if it did within the `patience`.
    pub(crate) fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

/// Ends a process that leads a group, and whatever else is in that.
fn end(child: &mut Child) {
    // Once it has been waited for, its number may belong to another process.
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let pid = Pid::from_raw(child.id().cast_signed());
    let _ = kill(pid, Signal::SIGTERM);
    let deadline = Instant::now() + STOP_TIMEOUT;
    // Left unreaped, it keeps its number from others, and that of its group.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), flags) == Ok(WaitStatus::StillAlive) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    // What it has started and not ended, a shell for example, goes too.
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = child.wait();
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Has the process that a command will start end with this one, whatever ends this one, and not by a Ctrl-C at the
/// terminal: that is for this process, which then ends those it has started.
///
/// The kernel goes by the thread that starts the process: it must live as long.
pub(crate) fn end_with_this_one(command: &mut Command) {
    command.process_group(0);
    let parent = Pid::this();
    let prepare = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // Had the parent died before the line above, no signal would ever come.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: `prepare` only makes system calls: it neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
}

/// Reads a server's stdout for as long as it lasts, wanted or not: it must not fill the pipe.
fn read_lines(stdout: ChildStdout) -> Result<Lines> {
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while matches!(stdout.read_until(b'\n', &mut line), Ok(1..)) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    };
    thread::Builder::new().name("server-stdout".to_owned()).spawn(read).context("cannot start a thread")?;
    Ok(receiver)
}

/// Has a process run on these CPUs alone.
fn confine(command: &mut Command, cpus: &CpuList) -> Result<()> {
    let cpus = cpus.to_set()?;
    let confine = move || sched_setaffinity(Pid::from_raw(0), &cpus).map_err(Into::into);
    // SAFETY: `confine` only makes a system call: it neither allocates nor locks.
    unsafe { command.pre_exec(confine) };
    Ok(())
}

/// Waits for an address that is announced with these words, but not on after `stop` is set.
fn announcement(lines: &Lines, words: &str, stop: &AtomicBool) -> Result<Address> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now()).min(NAP)) {
            Ok(line) => {
                if let Some(address) = announced_address(&line, words) {
                    return Ok(address);
                }
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            Err(RecvTimeoutError::Timeout) => {
                bail!("no `{words}ADDRESS` on its stdout within {START_TIMEOUT:?}")
            }
            Err(RecvTimeoutError::Disconnected) => bail!("its stdout ended without `{words}ADDRESS`"),
        }
    }
}

/// The address in a line of output, if that announces one with these words.
///
/// A server that listens on every address is reached over loopback.
fn announced_address(line: &str, words: &str) -> Option<Address> {
    let (_, rest) = line.split_once(words)?;
    let mut address: Address = rest.split_whitespace().next()?.parse().ok()?;
    if let Address::Tcp(address) = &mut address
        && address.ip().is_unspecified()
    {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    fn any_cpu() -> CpuList {
        let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpu = (0..).find(|&cpu| allowed.is_set(cpu) == Ok(true)).unwrap();
        cpu.to_string().parse().unwrap()
    }

    #[test]
    fn announcements_are_recognised() {
        let address = |line| announced_address(line, ANNOUNCEMENT).map(|address| address.to_string());
        assert_eq!(address("listening on 127.0.0.1:80\n").unwrap(), "127.0.0.1:80");
        assert_eq!(address("INFO listening on 0.0.0.0:7 (2 cores)").unwrap(), "127.0.0.1:7");
        assert_eq!(address("listening on [::]:7").unwrap(), "[::1]:7");
        assert_eq!(address("listening on unix:@name").unwrap(), "unix:@name");
        assert_eq!(address("listening on port 7"), None);
        assert_eq!(address("listening to 127.0.0.1:80"), None);
    }

    #[test]
    fn a_server_is_started_and_ended() {
        let script = "sh -c 'echo starting; echo listening on 127.0.0.1:1; exec sleep 60'";
        let mut server = Server::start(script, &any_cpu(), &GO_ON).unwrap();
        assert_eq!(server.address(), "127.0.0.1:1".parse().unwrap());
        assert!(server.clock().read().is_ok());
        assert_eq!(server.ended(Duration::ZERO), None);
        let pid = Pid::from_raw(server.child.id().try_into().unwrap());
        drop(server);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }

    #[test]
    fn what_a_server_has_started_ends_with_it() {
        let script = "sh -c 'echo listening on 127.0.0.1:1; sleep 60 & echo $!; wait'";
        let (server, lines) = Server::start_on(script, &any_cpu(), &GO_ON).unwrap();
        let child = lines.recv_timeout(START_TIMEOUT).unwrap();
        drop(server);
        let deadline = Instant::now() + START_TIMEOUT;
        // Nobody may have asked yet how it ended.
        let lives = || {
            std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        while lives() {
            assert!(Instant::now() < deadline, "{child} lives on");
            thread::yield_now();
        }
    }

    #[test]
    fn the_work_of_children_counts() {
        // The shell waits; what works is its child, until the test ends both.
        let script = "sh -c 'echo listening on 127.0.0.1:1; sh -c \"while :; do :; done\" & trap \"kill $!\" TERM; wait'";
        let server = Server::start(script, &any_cpu(), &GO_ON).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.clock().read().unwrap() < Duration::from_millis(100) {
            assert!(Instant::now() < deadline, "no CPU time is counted");
            thread::yield_now();
        }
    }

    #[test]
    fn a_server_that_ends_is_noticed() {
        let script = "sh -c 'echo listening on 127.0.0.1:1; exit 3'";
        let mut server = Server::start(script, &any_cpu(), &GO_ON).unwrap();
        let status = server.ended(Duration::from_secs(5)).unwrap();
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_server_that_does_not_start_is_named() {
        let error = |command| format!("{:#}", Server::start(command, &any_cpu(), &GO_ON).unwrap_err());
        assert!(error("true").contains("`true` did not start: its stdout ended"));
        assert!(error("/no/such/server").contains("cannot start `/no/such/server`"));
        assert!(error("echo 'unfinished").contains("cannot split"));
        assert!(error(" ").contains("empty"));
    }
}
