//! Echo servers that differ in one thing each, for the claims about servers that `benches/claims` tries.

use std::convert::Infallible;
use std::hint::black_box;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use clap::{Parser, ValueEnum};
use corelane::{
    Address, Conn, ConnId, Deadlines, Flow, Handle, Handler, Input, Open, SendError, Server, Start,
};
use corelane_peers::raw::{accept4, epoll_create, epoll_ctl, epoll_wait, recv, send_all};
use sha2::{Digest, Sha256};

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// The read buffer that all connections share.
const BUFFER: usize = 64 * 1024;

/// Output from which on a connection is not read: its client does not take it.
const ENOUGH: usize = 64 * 1024;

/// Echo server whose one difference to the next is its mode.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    addr: SocketAddr,

    /// What it does
    #[arg(long, value_enum)]
    mode: Mode,

    /// Bytes of a message (hash modes), or of a small read or write
    #[arg(long, value_name = "BYTES", default_value = "64")]
    size: NonZeroUsize,

    /// Reactors (echo and hash modes; the others are one thread)
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,

    /// Threads that hash (hash-elsewhere)
    #[arg(long, value_name = "N", default_value = "1")]
    hashers: NonZeroUsize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// On corelane: sends back each message once it is whole
    Echo,
    /// On corelane: the same, and takes its SHA-256 before, in the handler
    Hash,
    /// On corelane: the same, but a pool of threads takes the SHA-256
    HashElsewhere,
    /// By hand: a read for each record, a write for all that was read
    SmallReads,
    /// By hand: reads what there is, and writes each record by itself
    SmallWrites,
    /// By hand: reads what there is, and gathers the records for one write
    Buffered,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let ended = match flags.mode {
        Mode::Echo | Mode::Hash | Mode::HashElsewhere => serve(&flags),
        Mode::SmallReads | Mode::SmallWrites | Mode::Buffered => listen(&flags)
            .and_then(|listener| ByHand::new(&flags, listener)?.run().map(|never| match never {})),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer-claims: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(flags: &Flags) -> io::Result<TcpListener> {
    let listener = corelane_peers::listen_alone(flags.addr)?;
    corelane_peers::announce(listener.local_addr()?);
    Ok(listener)
}

fn hash(message: &[u8]) {
    black_box(Sha256::digest(message));
}

/// A message to be hashed, and where it is to go then.
type Job = (ConnId, Vec<u8>);

/// The echo on corelane.
struct Messages {
    size: usize,
    mode: Mode,
    jobs: Option<Sender<Job>>,
}

impl Handler for Messages {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
        while input.len() >= self.size {
            let message = input.take(self.size);
            if self.mode == Mode::Hash {
                hash(message);
            }
            match &self.jobs {
                // The threads outlive the reactors, so there is somebody to take it.
                Some(jobs) => drop(jobs.send((conn.id(), message.into()))),
                None => drop(conn.write(message)),
            }
        }
        Flow::Continue
    }
}

fn serve(flags: &Flags) -> io::Result<()> {
    let (jobs, queue) = channel();
    let factory = {
        let (size, mode) = (flags.size.get(), flags.mode);
        let jobs = (mode == Mode::HashElsewhere).then_some(jobs);
        move |_: &Start<()>| Messages { size, mode, jobs: jobs.clone() }
    };
    let server = Server::new()
        .listen(Address::from(flags.addr))
        .reactors(flags.threads.get())
        .deadlines(Deadlines { idle: None, ..Deadlines::default() })
        .input_cap(flags.size.get().max(BUFFER))
        .handle_signals();
    let running = server.start(factory).map_err(io::Error::other)?;
    let queue = Arc::new(Mutex::new(queue));
    if flags.mode == Mode::HashElsewhere {
        for _ in 0..flags.hashers.get() {
            let (queue, handle) = (Arc::clone(&queue), running.handle());
            thread::Builder::new()
                .name("hasher".to_owned())
                .spawn(move || hash_elsewhere(&queue, &handle))?;
        }
    }
    for address in running.addresses() {
        println!("listening on {address}");
    }
    running.join();
    Ok(())
}

/// Hashes until the server has ended. With several threads a connection's messages may change places; the claims
/// have one in flight.
fn hash_elsewhere(queue: &Mutex<Receiver<Job>>, handle: &Handle<()>) {
    loop {
        let job = queue.lock().ok().and_then(|queue| queue.recv().ok());
        let Some((id, message)) = job else { return };
        hash(&message);
        let mut reply = handle.write(id, message);
        while let Err(SendError::Full(message)) = reply {
            thread::yield_now();
            reply = handle.write(id, message);
        }
    }
}

#[derive(Default)]
struct Slot {
    connection: Option<OwnedFd>,
    /// What is to be sent.
    output: Vec<u8>,
    /// The kernel would not take it all: nothing is read until it has.
    blocked: bool,
}

/// The echo by hand: one thread, level-triggered.
struct ByHand {
    mode: Mode,
    size: usize,
    epoll: OwnedFd,
    listener: TcpListener,
    slots: Vec<Slot>,
    buffer: Vec<u8>,
}

impl ByHand {
    fn new(flags: &Flags, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll_create()?;
        epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN as u32)?;
        let (mode, size) = (flags.mode, flags.size.get());
        Ok(Self { mode, size, epoll, listener, slots: Vec::new(), buffer: vec![0; BUFFER.max(size)] })
    }

    fn run(mut self) -> io::Result<Infallible> {
        let listener = self.listener.as_raw_fd();
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let count = match epoll_wait(&self.epoll, &mut events, -1) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let fd = event.u64 as RawFd;
                if fd == listener {
                    self.accept()?;
                } else if self.turn(fd).is_err() {
                    self.slots[fd as usize] = Slot::default();
                }
            }
        }
    }

    /// One connection; if more wait, epoll says so again.
    fn accept(&mut self) -> io::Result<()> {
        match accept4(&self.listener) {
            Ok(connection) => {
                let fd = connection.as_raw_fd();
                let index = fd as usize;
                if index >= self.slots.len() {
                    self.slots.resize_with((index + 1).next_power_of_two(), Slot::default);
                }
                epoll_ctl(&self.epoll, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32)?;
                self.slots[index].connection = Some(connection);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Sends what is left, reads, and sends what that gave; an error ends the connection.
    fn turn(&mut self, fd: RawFd) -> io::Result<()> {
        let slot = &mut self.slots[fd as usize];
        if !slot.blocked {
            match self.mode {
                Mode::SmallReads => read_records(fd, slot, &mut self.buffer[..self.size])?,
                _ => read_all(fd, slot, &mut self.buffer)?,
            }
        }
        let piece = if self.mode == Mode::SmallWrites { self.size } else { usize::MAX };
        let mut sent = 0;
        while sent < slot.output.len() {
            let end = sent.saturating_add(piece).min(slot.output.len());
            let count = send_all(fd, &slot.output[sent..end])?;
            sent += count;
            if sent < end {
                break;
            }
        }
        slot.output.drain(..sent);
        let blocked = !slot.output.is_empty();
        if blocked != slot.blocked {
            slot.blocked = blocked;
            let interest = if blocked { libc::EPOLLOUT } else { libc::EPOLLIN };
            epoll_ctl(&self.epoll, libc::EPOLL_CTL_MOD, fd, interest as u32)?;
        }
        Ok(())
    }
}

/// A read for all there is.
fn read_all(fd: RawFd, slot: &mut Slot, buffer: &mut [u8]) -> io::Result<()> {
    match recv(fd, buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            slot.output.extend_from_slice(&buffer[..count]);
            Ok(())
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A read for each record, until there is none.
fn read_records(fd: RawFd, slot: &mut Slot, record: &mut [u8]) -> io::Result<()> {
    while slot.output.len() < ENOUGH {
        match recv(fd, record) {
            // What came before it is sent first; then this is seen again.
            Ok(0) if !slot.output.is_empty() => break,
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => slot.output.extend_from_slice(&record[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
