//! Broadcast written by hand on epoll, one thread: what publishers send goes to every subscriber in turn.
//!
//! The yardstick for the example `broadcast`, and less than that: it passes lines on and knows nothing of
//! symbols. Edge-triggered; whatever lines one receive brought leave in one `send` per subscriber, straight
//! from the receive buffer. Only what the kernel refuses is copied, into the subscriber's own backlog; one
//! whose backlog grows too large is closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use clap::Parser;
use corelane_peers::listen_alone;
use corelane_peers::raw::{accept4, epoll_create, epoll_ctl, epoll_wait, recv, send_all};

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// What one receive may bring, and so the longest line.
const BUFFER: usize = 64 * 1024;

/// The most that is kept for a subscriber.
const BACKLOG: usize = 4 << 20;

const EDGES: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
const WRITABLE: u32 = libc::EPOLLOUT as u32;
const FINISHED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP) as u32;
const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// Broadcast written by hand on epoll, one thread
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Address to take subscribers at; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    addr: SocketAddr,

    /// Address to take publishers at
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001")]
    publish_addr: SocketAddr,
}

struct Subscriber {
    connection: OwnedFd,
    backlog: VecDeque<u8>,
}

struct Publisher {
    connection: OwnedFd,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

/// What a descriptor is.
#[derive(Default)]
enum Role {
    #[default]
    None,
    /// A subscriber, and where it is in the list of them.
    Subscriber(usize),
    Publisher(Publisher),
}

struct Server {
    epoll: OwnedFd,
    subscriber_listener: TcpListener,
    publisher_listener: TcpListener,
    /// Indexed by descriptor.
    roles: Vec<Role>,
    subscribers: Vec<Subscriber>,
    buffer: Box<[u8]>,
}

fn main() {
    let flags = Flags::parse();
    let failed = Server::new(&flags).and_then(Server::run);
    if let Err(error) = failed {
        eprintln!("peer-broadcast: {error}");
        std::process::exit(1);
    }
}

impl Server {
    fn new(flags: &Flags) -> io::Result<Self> {
        let epoll = epoll_create()?;
        let listen = |addr| {
            let listener = listen_alone(addr)?;
            listener.set_nonblocking(true)?;
            epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN as u32)?;
            Ok::<_, io::Error>(listener)
        };
        let (subscriber_listener, publisher_listener) = (listen(flags.addr)?, listen(flags.publish_addr)?);
        println!("listening on {}", subscriber_listener.local_addr()?);
        println!("publish on {}", publisher_listener.local_addr()?);
        io::stdout().flush()?;
        Ok(Self {
            epoll,
            subscriber_listener,
            publisher_listener,
            roles: Vec::new(),
            subscribers: Vec::new(),
            buffer: vec![0; BUFFER].into(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        let listeners = [self.subscriber_listener.as_raw_fd(), self.publisher_listener.as_raw_fd()];
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let count = match epoll_wait(&self.epoll, &mut events, -1) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let fd = event.u64 as RawFd;
                if listeners.contains(&fd) {
                    self.accept(fd == listeners[1])?;
                } else {
                    self.ready(fd, event.events);
                }
            }
        }
    }

    fn accept(&mut self, publishes: bool) -> io::Result<()> {
        let listener = if publishes { &self.publisher_listener } else { &self.subscriber_listener };
        loop {
            let connection = match accept4(listener) {
                Ok(connection) => connection,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    _ => return Err(error),
                },
            };
            let fd = connection.as_raw_fd() as usize;
            if fd >= self.roles.len() {
                self.roles.resize_with((fd + 1).next_power_of_two(), Role::default);
            }
            epoll_ctl(&self.epoll, libc::EPOLL_CTL_ADD, fd as RawFd, EDGES)?;
            self.roles[fd] = if publishes {
                Role::Publisher(Publisher { connection, partial: Vec::new() })
            } else {
                self.subscribers.push(Subscriber { connection, backlog: VecDeque::new() });
                Role::Subscriber(self.subscribers.len() - 1)
            };
        }
    }

    /// An event may be meant for an earlier owner of the descriptor; then nothing is found to do.
    fn ready(&mut self, fd: RawFd, events: u32) {
        match std::mem::take(&mut self.roles[fd as usize]) {
            Role::None => {}
            Role::Subscriber(index) => {
                self.roles[fd as usize] = Role::Subscriber(index);
                let subscriber = &mut self.subscribers[index];
                let keep = (events & WRITABLE == 0 || flush(subscriber))
                    && (events & READABLE == 0 || discard(fd, &mut self.buffer));
                if !keep {
                    self.remove(index);
                }
            }
            Role::Publisher(mut publisher) => {
                if events & READABLE == 0 || self.publish(&mut publisher, events & FINISHED != 0) {
                    self.roles[fd as usize] = Role::Publisher(publisher);
                }
            }
        }
    }

    /// Passes on what a publisher has sent; whether it is still there.
    fn publish(&mut self, publisher: &mut Publisher, finished: bool) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let fd = publisher.connection.as_raw_fd();
        let stays = loop {
            let kept = publisher.partial.len();
            if kept == buffer.len() {
                break false;
            }
            buffer[..kept].copy_from_slice(&publisher.partial);
            let read = match recv(fd, &mut buffer[kept..]) {
                Ok(0) => break false,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break false,
            };
            publisher.partial.clear();
            let received = &buffer[..kept + read];
            let whole = received.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            if whole > 0 {
                self.broadcast(&received[..whole]);
            }
            publisher.partial.extend_from_slice(&received[whole..]);
            if kept + read < buffer.len() && !finished {
                break true;
            }
        };
        self.buffer = buffer;
        stays
    }

    fn broadcast(&mut self, bytes: &[u8]) {
        let mut index = 0;
        while let Some(subscriber) = self.subscribers.get_mut(index) {
            if give(subscriber, bytes) {
                index += 1;
            } else {
                self.remove(index);
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let subscriber = self.subscribers.swap_remove(index);
        self.roles[subscriber.connection.as_raw_fd() as usize] = Role::None;
        if let Some(moved) = self.subscribers.get(index) {
            self.roles[moved.connection.as_raw_fd() as usize] = Role::Subscriber(index);
        }
    }
}

/// Sends to a subscriber, or keeps for it; whether it is still there.
#[inline]
fn give(subscriber: &mut Subscriber, bytes: &[u8]) -> bool {
    let mut sent = 0;
    if subscriber.backlog.is_empty() {
        match send_all(subscriber.connection.as_raw_fd(), bytes) {
            Ok(count) if count == bytes.len() => return true,
            Ok(count) => sent = count,
            Err(_) => return false,
        }
    }
    subscriber.backlog.extend(&bytes[sent..]);
    subscriber.backlog.len() <= BACKLOG
}

/// Sends what was kept; whether the subscriber is still there.
fn flush(subscriber: &mut Subscriber) -> bool {
    while !subscriber.backlog.is_empty() {
        let (first, _) = subscriber.backlog.as_slices();
        let length = first.len();
        match send_all(subscriber.connection.as_raw_fd(), first) {
            Ok(sent) => {
                subscriber.backlog.drain(..sent);
                if sent < length {
                    return true;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Receives what a subscriber has no reason to send; whether it is still there.
fn discard(fd: RawFd, buffer: &mut [u8]) -> bool {
    loop {
        match recv(fd, buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
