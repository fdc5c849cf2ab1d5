//! HTTP server written by hand on epoll that reads no HTTP, thread per core: the yardstick that the HTTP layer is
//! measured with.
//!
//! It counts the empty lines that end requests and answers each with the same bytes. Everything else is as in
//! `peer-epoll`: edge-triggered, one `epoll_ctl` a connection, one `recv` and one `send` for all the requests of
//! a segment, and while the kernel refuses replies nothing more is read.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use corelane_peers::raw::{accept4, epoll_create, epoll_ctl, epoll_wait, recv, send_all};
use corelane_peers::{ACCEPT_RETRY, Peer};
use memchr::memmem::Finder;

/// What a parser would answer `GET /plaintext` with, as long as the HTTP layer's own reply.
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nserver: epoll-ht\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    content-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, World!";

/// What ends a request.
const END: &[u8] = b"\r\n\r\n";

/// Replies that one `send` can hold.
const REPLIES: usize = 1024;

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

fn main() -> ! {
    let about = "HTTP server written by hand on epoll that answers all requests alike, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(Worker::new, Worker::run)
}

#[derive(Default)]
struct Slot {
    connection: Option<OwnedFd>,
    /// Bytes of replies that the kernel would not take yet.
    owed: usize,
    /// How much of [`END`] the bytes received so far end with.
    matched: usize,
}

/// What to do with a connection after its turn.
enum Next {
    /// Wait for its next edge.
    Wait,
    /// It has more to read, and there will be no edge for that.
    Again,
    Close,
}

struct Worker {
    epoll: OwnedFd,
    listener: TcpListener,
    /// Indexed by descriptor. One is in a batch of events once at most, and is closed and freed for
    /// reuse only when its event is handled, so an event can never be meant for an earlier owner of
    /// its slot.
    slots: Vec<Slot>,
    shared: Shared,
    /// Accepting failed for want of resources, and the edge that announced the connections is gone.
    accept_later: bool,
}

/// What all connections of a thread use.
struct Shared {
    buffer: Box<[u8]>,
    replies: Box<[u8]>,
    end: Finder<'static>,
}

impl Worker {
    fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll_create()?;
        epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, listener.as_raw_fd(), (libc::EPOLLIN | libc::EPOLLET) as u32)?;
        let mut slots = Vec::new();
        slots.resize_with(SLOTS, Slot::default);
        let shared = Shared {
            buffer: vec![0; BUFFER].into(),
            replies: REPLY.repeat(REPLIES).into(),
            end: Finder::new(END),
        };
        Ok(Self { epoll, listener, slots, shared, accept_later: false })
    }

    fn run(mut self) -> io::Result<Infallible> {
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
        let keep = match turn(fd, events, slot, &mut self.shared) {
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

fn turn(fd: RawFd, events: u32, slot: &mut Slot, shared: &mut Shared) -> Next {
    if events & FAILED != 0 {
        return Next::Close;
    }
    if slot.owed > 0 {
        match pay(fd, slot, &shared.replies) {
            Ok(true) => {}
            Ok(false) => return Next::Wait,
            Err(_) => return Next::Close,
        }
        // The edges of what arrived meanwhile are gone, so it is read now.
    } else if events & !WRITABLE == 0 {
        return Next::Wait;
    }
    for _ in 0..TURN {
        let read = match recv(fd, &mut shared.buffer) {
            Ok(0) => return Next::Close,
            Ok(read) => read,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Next::Wait,
                ErrorKind::Interrupted => continue,
                _ => return Next::Close,
            },
        };
        slot.owed = count_ends(&shared.buffer[..read], &mut slot.matched, &shared.end) * REPLY.len();
        match pay(fd, slot, &shared.replies) {
            Ok(true) => {}
            Ok(false) => return Next::Wait,
            Err(_) => return Next::Close,
        }
        if read < shared.buffer.len() && events & FINISHED == 0 {
            return Next::Wait;
        }
    }
    Next::Again
}

/// Sends replies until none is owed or the kernel refuses; whether none is.
fn pay(fd: RawFd, slot: &mut Slot, replies: &[u8]) -> io::Result<bool> {
    while slot.owed > 0 {
        // The rest of a reply begun before, then whole ones.
        let start = (REPLY.len() - slot.owed % REPLY.len()) % REPLY.len();
        let bytes = &replies[start..replies.len().min(start + slot.owed)];
        let sent = send_all(fd, bytes)?;
        slot.owed -= sent;
        if sent < bytes.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many requests end in `bytes`; `matched` is what is carried from one read to the next.
fn count_ends(bytes: &[u8], matched: &mut usize, end: &Finder<'_>) -> usize {
    let mut count = 0;
    if *matched > 0 {
        // The first bytes may complete what was left of the last read.
        for &byte in &bytes[..bytes.len().min(END.len() - 1)] {
            *matched = step(*matched, byte);
            if *matched == END.len() {
                count += 1;
                break;
            }
        }
    }
    count += end.find_iter(bytes).count();
    if bytes.len() >= END.len() {
        let last = &bytes[bytes.len() - END.len()..];
        *matched = if last == END { 0 } else { last.iter().fold(0, |matched, &byte| step(matched, byte)) };
    } else if count > 0 {
        *matched = 0;
    } else if *matched == 0 {
        *matched = bytes.iter().fold(0, |matched, &byte| step(matched, byte));
    }
    count
}

/// How much of [`END`] there is behind one more byte.
fn step(matched: usize, byte: u8) -> usize {
    match (matched % END.len(), byte) {
        (matched, byte) if END[matched] == byte => matched + 1,
        (_, b'\r') => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_however_they_are_split() {
        let stream = b"GET /plaintext HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n".repeat(5);
        let end = Finder::new(END);
        for size in 1..=stream.len() {
            let mut matched = 0;
            let count: usize = stream.chunks(size).map(|part| count_ends(part, &mut matched, &end)).sum();
            assert_eq!(count, 5, "in parts of {size} bytes");
        }
    }
}
