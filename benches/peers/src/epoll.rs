//! The loop of the peers that are written by hand on epoll, thread per core.
//!
//! Edge-triggered: a connection costs one `epoll_ctl`, and an exchange one `recv` and one `send`. A
//! read that did not fill the buffer has drained the socket, so no second one is made to hear that,
//! unless the peer has finished: no further edge would announce the end of the stream. While the
//! kernel refuses to take what was to be sent, nothing more is read, so a connection never holds more
//! than what one buffer is answered with.
#![allow(clippy::missing_errors_doc, reason = "each returns what the kernel says")]

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::ACCEPT_RETRY;
use crate::raw::{accept4, epoll_create, epoll_ctl, epoll_wait, recv};

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// The read buffer that all connections of a thread share.
const BUFFER: usize = 64 * 1024;

/// Reads that a connection which never runs dry gets before it is the others' turn.
const TURN: usize = 16;

/// Slots made at the start; the table doubles only if descriptors go beyond.
const SLOTS: usize = 64 * 1024;

const INTEREST: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
const WRITABLE: u32 = libc::EPOLLOUT as u32;
const FINISHED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP) as u32;
const FAILED: u32 = libc::EPOLLERR as u32;

/// What is answered.
pub trait Service {
    /// What is kept of a connection.
    type State: Default;

    /// Whether the kernel has refused to take some of the connection's replies.
    fn owes(state: &Self::State) -> bool;

    /// Sends what is owed; whether nothing is any more.
    fn pay(&mut self, fd: RawFd, state: &mut Self::State) -> io::Result<bool>;

    /// Answers what was received; whether the kernel took it all.
    fn answer(&mut self, fd: RawFd, state: &mut Self::State, received: &[u8]) -> io::Result<bool>;
}

/// What to do with a connection after its turn.
enum Next {
    /// Wait for its next edge.
    Wait,
    /// It has more to read, and there will be no edge for that.
    Again,
    Close,
}

struct Slot<T> {
    connection: Option<OwnedFd>,
    state: T,
}

impl<T: Default> Default for Slot<T> {
    fn default() -> Self {
        Self { connection: None, state: T::default() }
    }
}

/// What one thread has.
pub struct Worker<S: Service> {
    epoll: OwnedFd,
    listener: TcpListener,
    /// Indexed by descriptor. One is in a batch of events once at most, and is closed and freed for
    /// reuse only when its event is handled, so an event can never be meant for an earlier owner of
    /// its slot.
    slots: Vec<Slot<S::State>>,
    buffer: Box<[u8]>,
    service: S,
    /// Accepting failed for want of resources, and the edge that announced the connections is gone.
    accept_later: bool,
}

impl<S: Service> Worker<S> {
    /// Serves what comes in at `listener`.
    pub fn new(listener: TcpListener, service: S) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll_create()?;
        epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, listener.as_raw_fd(), (libc::EPOLLIN | libc::EPOLLET) as u32)?;
        let mut slots = Vec::new();
        slots.resize_with(SLOTS, Slot::default);
        Ok(Self { epoll, listener, slots, buffer: vec![0; BUFFER].into(), service, accept_later: false })
    }

    /// Serves for ever.
    pub fn run(mut self) -> io::Result<Infallible> {
        let listener = self.listener.as_raw_fd();
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let timeout = if self.accept_later { ACCEPT_RETRY.as_millis() as i32 } else { -1 };
            let count = match epoll_wait(&self.epoll, &mut events, timeout) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let fd = event.u64 as RawFd;
                if fd == listener {
                    self.accept();
                } else {
                    self.ready(fd, event.events);
                }
            }
            if self.accept_later {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        self.accept_later = false;
        loop {
            match accept4(&self.listener) {
                Ok(connection) => self.add(connection),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.accept_later = true;
                        return;
                    }
                },
            }
        }
    }

    fn add(&mut self, connection: OwnedFd) {
        let fd = connection.as_raw_fd();
        // Refused for want of memory only: dropping the connection closes it.
        if epoll_ctl(&self.epoll, libc::EPOLL_CTL_ADD, fd, INTEREST).is_ok() {
            let index = fd as usize;
            if index >= self.slots.len() {
                self.slots.resize_with((index + 1).next_power_of_two(), Slot::default);
            }
            self.slots[index].connection = Some(connection);
        }
    }

    fn ready(&mut self, fd: RawFd, events: u32) {
        let slot = &mut self.slots[fd as usize];
        let keep = match turn(fd, events, &mut self.service, &mut slot.state, &mut self.buffer) {
            Next::Wait => true,
            // Queues it behind the others that are ready.
            Next::Again => epoll_ctl(&self.epoll, libc::EPOLL_CTL_MOD, fd, INTEREST).is_ok(),
            Next::Close => false,
        };
        if !keep {
            *slot = Slot::default();
        }
    }
}

fn turn<S: Service>(
    fd: RawFd,
    events: u32,
    service: &mut S,
    state: &mut S::State,
    buffer: &mut [u8],
) -> Next {
    if events & FAILED != 0 {
        return Next::Close;
    }
    if S::owes(state) {
        match service.pay(fd, state) {
            Ok(true) => {}
            Ok(false) => return Next::Wait,
            Err(_) => return Next::Close,
        }
        // The edges of what arrived meanwhile are gone, so it is read now.
    } else if events & !WRITABLE == 0 {
        return Next::Wait;
    }
    for _ in 0..TURN {
        let read = match recv(fd, buffer) {
            Ok(0) => return Next::Close,
            Ok(read) => read,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Next::Wait,
                ErrorKind::Interrupted => continue,
                _ => return Next::Close,
            },
        };
        match service.answer(fd, state, &buffer[..read]) {
            Ok(true) => {}
            Ok(false) => return Next::Wait,
            Err(_) => return Next::Close,
        }
        if read < buffer.len() && events & FINISHED == 0 {
            return Next::Wait;
        }
    }
    Next::Again
}
