//! What the peers share: flags, listeners, pinning, steering and the start of one thread per core.
//!
//! Each peer is a server of echoes or of HTTP, written the way the authors of what it stands on would write it, so
//! that a comparison with corelane is against that thing at its best. They run on Linux only.
//!
//! Those that stand on little are here. The others bring 200 crates, which take longer to build than all the rest of
//! the workspace, so they are a package outside of it, in `async/`, built when they are measured. Those in Go are in
//! `go/`. All have the flags, and all announce `listening on ADDRESS` and end on SIGTERM.

use std::convert::Infallible;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

pub mod blocking;
pub mod epoll;
pub mod external;
pub mod raw;
mod steering;
pub mod tokio_serve;
pub mod uring;

/// How long a peer that is out of descriptors (or threads, or memory) leaves the accept queue
/// alone.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections the kernel queues for a listener that is busy; capped by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    addr: SocketAddr,

    /// Worker threads [default: available cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Pin thread i to the i-th CPU this process may use
    #[arg(long)]
    pin: bool,

    /// Hand a connection to the thread on the CPU that its first packet arrived on
    #[arg(long, requires = "pin")]
    steer: bool,
}

/// A peer's name and its flags, parsed and checked.
#[derive(Debug)]
pub struct Peer {
    name: &'static str,
    addr: SocketAddr,
    threads: usize,
    /// One CPU per thread, or none at all without `--pin`.
    cpus: Vec<usize>,
    steer: bool,
}

impl Peer {
    /// Parses the command line of a peer that has a listener per thread. A bad flag ends the
    /// process with status 2.
    pub fn with_listener_per_thread(name: &'static str, about: &'static str) -> Self {
        Self::parse(name, about, true)
    }

    /// As [`Peer::with_listener_per_thread`], for a peer with one listener, where there is nothing
    /// to steer.
    pub fn with_one_listener(name: &'static str, about: &'static str) -> Self {
        Self::parse(name, about, false)
    }

    fn parse(name: &'static str, about: &'static str, steerable: bool) -> Self {
        let mut command = Flags::command().name(name).about(about);
        command = command.mut_arg("steer", |flag| flag.hide(!steerable));
        let matches = command.clone().get_matches();
        let flags =
            Flags::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
        let mut reject = |reason: String| -> ! { command.error(ErrorKind::ValueValidation, reason).exit() };

        if flags.steer && !steerable {
            reject("--steer: this peer has a single listener, so there is nothing to steer".to_owned());
        }
        let threads = flags
            .threads
            .map_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get), NonZeroUsize::get);
        let mut cpus = Vec::new();
        if flags.pin {
            cpus = allowed_cpus().unwrap_or_else(|error| reject(format!("--pin: {error}")));
            if cpus.len() < threads {
                let available = cpus.len();
                reject(format!("--pin: {threads} threads, but this process may use {available} CPUs only"));
            }
            cpus.truncate(threads);
        }
        Self { name, addr: flags.addr, threads, cpus, steer: flags.steer }
    }

    /// Worker threads to run.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether each thread is to be pinned to a CPU: thread i to the i-th that the process may use.
    pub fn pinned(&self) -> bool {
        !self.cpus.is_empty()
    }

    /// Pins the calling thread to the CPU of worker `index`, if pinning was asked for.
    pub fn pin(&self, index: usize) {
        if let Some(&cpu) = self.cpus.get(index) {
            pin_to(cpu).unwrap_or_else(|error| self.die(format_args!("cannot pin to CPU {cpu}"), &error));
        }
    }

    /// The only listener of a peer that has one.
    pub fn listen(&self) -> TcpListener {
        raise_descriptor_limit();
        listen(self.addr, false)
            .unwrap_or_else(|error| self.die(format_args!("cannot listen on {}", self.addr), &error))
    }

    /// Confines the calling thread, and those it starts, to the CPUs of all the workers.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn pin_to_all(&self) -> io::Result<()> {
        let mut set = CpuSet::new();
        for &cpu in &self.cpus {
            set.set(cpu)?;
        }
        Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
    }

    /// Tells whoever started the peer that it accepts connections, and where.
    pub fn announce(&self, addr: SocketAddr) {
        announce(addr);
    }

    /// Ends the process with status 1, saying why.
    pub fn die(&self, what: impl Display, error: &io::Error) -> ! {
        eprintln!("{}: {what}: {error}", self.name);
        std::process::exit(1)
    }

    /// Runs a thread per core, each with its own listener: `setup`, then, once every thread is set
    /// up, `run`.
    ///
    /// Both run on the thread itself, after pinning, so what they allocate is local to its core.
    pub fn serve_per_thread<W: 'static>(
        self,
        setup: fn(TcpListener) -> io::Result<W>,
        run: fn(W) -> io::Result<Infallible>,
    ) -> ! {
        raise_descriptor_limit();
        let (listeners, addr) = self
            .listen_per_thread()
            .unwrap_or_else(|error| self.die(format_args!("cannot listen on {}", self.addr), &error));
        let peer = Arc::new(self);
        let ready = Arc::new(Barrier::new(peer.threads));
        let mut listeners = listeners.into_iter().enumerate();
        let first = listeners.next();
        for (index, listener) in listeners {
            let (peer_of_thread, ready) = (Arc::clone(&peer), Arc::clone(&ready));
            let body = move || {
                let peer = peer_of_thread;
                let worker = peer.set_up(index, listener, setup);
                ready.wait();
                peer.work(worker, run)
            };
            let spawned = thread::Builder::new().name(format!("worker-{index}")).spawn(body);
            if let Err(error) = spawned {
                peer.die("cannot start a worker", &error);
            }
        }
        // The first worker needs no thread of its own, and a peer of one thread is a process of one thread.
        let Some((index, listener)) = first else { unreachable!("there is a listener for each thread") };
        let worker = peer.set_up(index, listener, setup);
        ready.wait();
        peer.announce(addr);
        peer.work(worker, run)
    }

    fn set_up<W>(&self, index: usize, listener: TcpListener, setup: fn(TcpListener) -> io::Result<W>) -> W {
        self.pin(index);
        setup(listener).unwrap_or_else(|error| self.die("cannot set a worker up", &error))
    }

    fn work<W>(&self, worker: W, run: fn(W) -> io::Result<Infallible>) -> ! {
        let Err(error) = run(worker);
        self.die("a worker failed", &error)
    }

    fn listen_per_thread(&self) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
        if self.addr.port() != 0 {
            // SO_REUSEPORT would let a forgotten peer of the same user keep a share of the
            // connections.
            bind(self.addr, false)?;
        }
        let first = listen(self.addr, true)?;
        let addr = first.local_addr()?;
        let mut listeners = vec![first];
        while listeners.len() < self.threads {
            listeners.push(listen(addr, true)?);
        }
        if self.steer {
            steering::by_cpu(&listeners[0], &self.cpus)?;
        }
        Ok((listeners, addr))
    }
}

/// Tells whoever started the peer that it accepts connections, and where.
pub fn announce(addr: SocketAddr) {
    let mut stdout = io::stdout().lock();
    // Nobody may be listening any more; that is no reason not to serve.
    let _ = writeln!(stdout, "listening on {addr}").and_then(|()| stdout.flush());
}

fn bind(addr: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// A listener of a peer that has its own flags; lifts the limit of descriptors too.
///
/// # Errors
///
/// What the kernel says.
pub fn listen_alone(addr: SocketAddr) -> io::Result<TcpListener> {
    raise_descriptor_limit();
    listen(addr, false)
}

fn listen(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = bind(addr, reuse_port)?;
    // Accepted connections inherit it, which spares each of them a system call.
    socket.set_tcp_nodelay(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Lifts the soft limit of open files to the hard one: a connection is a descriptor.
pub fn raise_descriptor_limit() {
    // A peer that may not do so still serves, up to the limit it was started with.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn accepted_connections_inherit_nodelay() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(!client.nodelay().unwrap());
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn steering_picks_the_listener_of_the_clients_cpu() {
        let mut cpus = allowed_cpus().unwrap();
        // Listener i is not CPU i's, so that a program which returned the bare CPU number would
        // fail.
        cpus.reverse();
        let peer = Peer {
            name: "test",
            addr: "127.0.0.1:0".parse().unwrap(),
            threads: cpus.len(),
            cpus: cpus.clone(),
            steer: true,
        };
        let (listeners, addr) = peer.listen_per_thread().unwrap();
        for (index, &cpu) in cpus.iter().enumerate() {
            pin_to(cpu).unwrap();
            for _ in 0..8 {
                let client = TcpStream::connect(addr).unwrap();
                // Blocks for ever if the connection is in another listener's queue.
                let (_, from) = listeners[index].accept().unwrap();
                assert_eq!(from, client.local_addr().unwrap());
            }
        }
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let addr = "127.0.0.1:0".parse().unwrap();
        let mut peer = Peer { name: "test", addr, threads: 2, cpus: Vec::new(), steer: false };
        let (_listeners, addr) = peer.listen_per_thread().unwrap();
        peer.addr = addr;
        assert_eq!(peer.listen_per_thread().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
