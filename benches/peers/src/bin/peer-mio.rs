//! Echo server written by hand on mio, thread per core: the epoll loop of `peer-epoll`, as portable
//! code has it.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net;

use corelane_peers::{ACCEPT_RETRY, Peer};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// The read buffer that all connections of a thread share.
const BUFFER: usize = 64 * 1024;

/// Reads that a connection which never runs dry gets before it is the others' turn.
const TURN: usize = 16;

const LISTENER: Token = Token(usize::MAX);
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

fn main() -> ! {
    let about = "TCP echo server written by hand on mio, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(Worker::new, Worker::run)
}

struct Connection {
    stream: TcpStream,
    /// What the kernel would not take yet. Nothing is read meanwhile, so this is one buffer at
    /// most.
    pending: Vec<u8>,
    /// How much of it has been sent since.
    sent: usize,
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
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    buffer: Box<[u8]>,
    /// Accepting failed for want of resources, and the edge that announced the connections is gone.
    accept_later: bool,
}

impl Worker {
    fn new(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let connections = Slab::with_capacity(EVENTS);
        Ok(Self { poll, listener, connections, buffer: vec![0; BUFFER].into(), accept_later: false })
    }

    fn run(mut self) -> io::Result<Infallible> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, self.accept_later.then_some(ACCEPT_RETRY)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(key) => self.ready(key, event),
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
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream),
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

    fn add(&mut self, mut stream: TcpStream) {
        let entry = self.connections.vacant_entry();
        // Refused for want of memory only: dropping the connection closes it.
        if self.poll.registry().register(&mut stream, Token(entry.key()), INTEREST).is_ok() {
            entry.insert(Connection { stream, pending: Vec::new(), sent: 0 });
        }
    }

    fn ready(&mut self, key: usize, event: &Event) {
        // A connection is in a batch of events once at most, and is removed only when its event is
        // handled.
        let connection = &mut self.connections[key];
        let keep = match connection.turn(event, &mut self.buffer) {
            Next::Wait => true,
            // Queues it behind the others that are ready.
            Next::Again => {
                self.poll.registry().reregister(&mut connection.stream, Token(key), INTEREST).is_ok()
            }
            Next::Close => false,
        };
        if !keep {
            // Closing the descriptor is what deregisters it.
            self.connections.remove(key);
        }
    }
}

impl Connection {
    fn turn(&mut self, event: &Event, buffer: &mut [u8]) -> Next {
        if event.is_error() {
            return Next::Close;
        }
        if !self.pending.is_empty() {
            match send_all(&mut self.stream, &self.pending[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(_) => return Next::Close,
            }
            if self.sent < self.pending.len() {
                return Next::Wait;
            }
            // The edges of what arrived meanwhile are gone, so it is read now.
            (self.pending, self.sent) = (Vec::new(), 0);
        } else if !event.is_readable() && !event.is_read_closed() {
            return Next::Wait;
        }
        for _ in 0..TURN {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Next::Close,
                Ok(read) => read,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Next::Wait,
                    ErrorKind::Interrupted => continue,
                    _ => return Next::Close,
                },
            };
            let sent = match send_all(&mut self.stream, &buffer[..read]) {
                Ok(sent) => sent,
                Err(_) => return Next::Close,
            };
            if sent < read {
                self.pending = buffer[sent..read].to_vec();
                return Next::Wait;
            }
            // A short read has drained the socket, but for the end of the stream, which no further
            // edge announces.
            if read < buffer.len() && !event.is_read_closed() {
                return Next::Wait;
            }
        }
        Next::Again
    }
}

/// Sends until all is sent or the kernel refuses, which is what makes it report when it will take
/// more.
fn send_all(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => break,
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    Ok(sent)
}
