//! Counts the system calls of other processes by the kernel's tracepoint for them (perf_event_open(2)).
//!
//! The processes are not stopped. But while anything counts, every call of the machine takes the long way through the
//! kernel: a small message costs a tenth more. So who measures rates or CPU time counts at another time.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail, ensure};

/// The number of the tracepoint, below the root of tracefs.
const TRACEPOINT: &str = "events/raw_syscalls/sys_enter/id";

/// Where tracefs usually is.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// `PERF_TYPE_TRACEPOINT`.
const TYPE_TRACEPOINT: u32 = 2;

/// `inherit`: what the thread starts is counted with it.
const FLAG_INHERIT: u64 = 1 << 1;

/// The first, shortest form of the kernel's structure, which every kernel takes (linux/perf_event.h).
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// Each takes a descriptor, which the client's connections need too.
const MOST_THREADS: usize = 1_024;

/// Why there is no counter.
const REFUSED: &str = "system calls are not counted: perf_event_open is refused (needs CAP_PERFMON, or \
                       kernel.perf_event_paranoid at -1)";

/// A counter for each thread of some processes.
#[derive(Debug)]
pub(crate) struct SystemCalls(Vec<File>);

impl SystemCalls {
    /// Begins to count those of all threads that these processes have.
    pub(super) fn of(pids: &[u32]) -> Result<Self> {
        let tracepoint = tracepoint().context("system calls are not counted")?;
        let mut counters = Vec::new();
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task")).context("a process has ended")? {
                let Some(task) = task?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                ensure!(
                    counters.len() < MOST_THREADS,
                    "system calls are not counted: of more than {MOST_THREADS} threads"
                );
                counters.push(open(tracepoint, task).context(REFUSED)?);
            }
        }
        Ok(Self(counters))
    }

    /// Begins to count those of the calling thread.
    pub(crate) fn of_this_thread() -> Result<Self> {
        let this = 0;
        let tracepoint = tracepoint().context("system calls are not counted")?;
        Ok(Self(vec![open(tracepoint, this).context(REFUSED)?]))
    }

    /// How many there were since the beginning.
    pub(crate) fn read(&self) -> Result<u64> {
        let mut sum = 0;
        for mut counter in &self.0 {
            let mut value = [0; 8];
            counter.read_exact(&mut value).context("cannot read a counter of system calls")?;
            sum += u64::from_ne_bytes(value);
        }
        Ok(sum)
    }
}

fn open(tracepoint: u64, task: libc::pid_t) -> io::Result<File> {
    let attributes = Attributes {
        kind: TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: tracepoint,
        flags: FLAG_INHERIT,
        ..Attributes::default()
    };
    let (any_cpu, no_group, close_on_exec) = (-1, -1, 8_u64);
    // SAFETY: the kernel reads `size` bytes of the structure, which are all of it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            task,
            any_cpu,
            no_group,
            close_on_exec,
        )
    };
    owned(result).map(File::from)
}

/// The number of the tracepoint from a mounted tracefs, or from one that is attached nowhere.
fn tracepoint() -> Result<u64> {
    for mount in MOUNTS {
        if let Ok(text) = fs::read_to_string(format!("{mount}/{TRACEPOINT}")) {
            return text.trim().parse().context("a tracepoint without a number");
        }
    }
    let Ok(root) = detached_tracefs() else {
        bail!("no tracefs is mounted (as root: mount -t tracefs nodev /sys/kernel/tracing)");
    };
    let file = nix::fcntl::openat(
        &root,
        TRACEPOINT,
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    );
    let mut text = String::new();
    File::from(file.context("the kernel has no tracepoint for system calls")?).read_to_string(&mut text)?;
    text.trim().parse().context("a tracepoint without a number")
}

/// A tracefs that nobody else sees, and that goes with its descriptor. Needs CAP_SYS_ADMIN.
fn detached_tracefs() -> io::Result<OwnedFd> {
    const CREATE: u32 = 6;
    // SAFETY: the name is a string that ends with 0.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), 1) })?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&context);
    let (none, zero) = (std::ptr::null::<u8>(), 0);
    // SAFETY: this command takes neither key nor value.
    if unsafe { libc::syscall(libc::SYS_fsconfig, number, CREATE, none, none, zero) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, number, 1, 0) })
}

/// The descriptor that a system call has just made for us.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: it is new, so nobody else has it.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}
