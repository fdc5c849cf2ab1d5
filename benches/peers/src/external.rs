//! Servers of others, each run as this very process: what starts, measures or ends the peer has the server at hand.
//!
//! A companion process waits until the server listens and announces it, and when the server has ended, in whatever
//! way, it ends what that has left behind: processes of its own, and the directory made for it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Peer, bind};

/// What makes a process of this program the companion.
const COMPANION: &str = "companion-of-the-server";

/// How long the companion waits between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The server to become.
#[derive(Debug)]
pub struct External {
    peer: Peer,
    addr: SocketAddr,
    directory: PathBuf,
}

impl External {
    /// Takes an address, and makes a directory for the server's files. In the companion process it does the
    /// companion's work instead, and ends.
    pub fn prepare(name: &'static str, about: &'static str) -> Self {
        let arguments: Vec<_> = env::args_os().collect();
        if let [_, first, server, addr, directory] = arguments.as_slice()
            && first == COMPANION
        {
            accompany(&server.to_string_lossy(), &addr.to_string_lossy(), Path::new(directory));
        }
        let peer = Peer::with_one_listener(name, about);
        if !peer.cpus.is_empty() {
            // What is inherited here holds for all the threads and processes of the server.
            peer.pin_to_all().unwrap_or_else(|error| peer.die("cannot pin", &error));
        }
        crate::raise_descriptor_limit();
        let addr = free_address(peer.addr)
            .unwrap_or_else(|error| peer.die(format_args!("cannot listen on {}", peer.addr), &error));
        let directory = env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&directory)
            .unwrap_or_else(|error| peer.die(format_args!("cannot make {}", directory.display()), &error));
        Self { peer, addr, directory }
    }

    /// Where the server is to listen.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Threads or processes that serve.
    pub fn threads(&self) -> usize {
        self.peer.threads
    }

    /// Where the server may put files: an empty directory, which is removed when the server has ended.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file to that directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        match fs::write(&path, text) {
            Ok(()) => path,
            Err(error) => self.give_up(&format!("cannot write {}", path.display()), &error),
        }
    }

    /// Becomes the server. `package` is the Debian package that has it.
    pub fn run(self, program: &str, package: &str, arguments: &[&OsStr]) -> ! {
        // The companion reads from this pipe, whose other end only the server and its processes have: it ends with them.
        let (reading, writing) = match io::pipe() {
            Ok(ends) => ends,
            Err(error) => self.give_up("cannot make a pipe", &error),
        };
        if let Err(error) = keep_across_exec(writing.as_raw_fd()) {
            self.give_up("cannot keep a pipe", &error);
        }
        let mut companion = match env::current_exe() {
            Ok(path) => Command::new(path),
            Err(error) => self.give_up("cannot find this program", &error),
        };
        let server = std::process::id().to_string();
        companion.args([COMPANION, &server, &self.addr.to_string()]).arg(&self.directory).stdin(reading);
        // Whoever ends the server with all its group still leaves the cleaning up to do.
        companion.process_group(0);
        let mine = writing.as_raw_fd();
        let close = move || {
            // SAFETY: in the child nobody else uses the descriptor, which is a copy of the parent's.
            let result = unsafe { libc::close(mine) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: `close` only makes a system call: it neither allocates nor locks.
        unsafe { companion.pre_exec(close) };
        if let Err(error) = companion.spawn() {
            self.give_up("cannot start a process", &error);
        }
        // Standard output is for the announcement.
        let error = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).exec();
        self.give_up(&format!("cannot start {program} (Debian: {package})"), &error)
    }

    fn give_up(&self, what: &str, error: &io::Error) -> ! {
        // The companion may be doing the same.
        let _ = fs::remove_dir_all(&self.directory);
        self.peer.die(what, error)
    }
}

/// An address that nobody listens on. It is given up again, as the server makes its own listener.
fn free_address(wanted: SocketAddr) -> io::Result<SocketAddr> {
    let socket = bind(wanted, false)?;
    let addr = socket.local_addr()?;
    addr.as_socket().ok_or_else(|| io::Error::other("not an IP address"))
}

fn keep_across_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Announces the server when it listens, and cleans up when it has ended.
fn accompany(server: &str, addr: &str, directory: &Path) -> ! {
    if let (Ok(server), Ok(addr)) = (server.parse(), addr.parse::<SocketAddr>()) {
        let end = end_of(server);
        while !happened(end.as_ref(), Some(PAUSE)) {
            if TcpStream::connect(addr).is_ok() {
                crate::announce(addr);
                break;
            }
        }
        happened(end.as_ref(), None);
        end_what_is_left();
    }
    // Nothing is ever written to it.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let _ = fs::remove_dir_all(directory);
    std::process::exit(0)
}

/// A descriptor that becomes readable when the process ends; `None` if it has.
fn end_of(process: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel has just made `fd` for the caller, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether that end has come within the time; without one, however long it takes.
fn happened(end: Option<&OwnedFd>, time: Option<Duration>) -> bool {
    let Some(end) = end else { return true };
    let mut wanted = libc::pollfd { fd: end.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = time.map_or(-1, |time| time.as_millis() as i32);
    // SAFETY: the kernel reads and writes one entry, which outlives the call.
    unsafe { libc::poll(&raw mut wanted, 1, timeout) > 0 }
}

/// Ends the processes that still have the other end of the pipe: those of a server that was killed.
fn end_what_is_left() {
    let Ok(pipe) = fs::read_link("/proc/self/fd/0") else { return };
    let has_it = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|link| link == pipe))
    };
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = process.file_name().to_string_lossy().parse::<u32>().ok();
        if let Some(id) = id.filter(|&id| id != std::process::id())
            && has_it(&process.path())
        {
            // It may have ended by now.
            let _ = kill(Pid::from_raw(id as i32), Signal::SIGKILL);
        }
    }
}
