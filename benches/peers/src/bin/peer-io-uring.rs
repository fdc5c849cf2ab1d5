//! Echo server written by hand on io_uring, thread per core.
//!
//! Connections are accepted into the ring's own table of files, each receives for ever into buffers that all share,
//! and a buffer is sent from where it was filled. While a send is under way, what arrives is put aside; beyond a
//! buffer's worth, receiving ends until it is sent.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;

use corelane_peers::uring::{BUFFER, BUFFERS, Completion, Ring};
use corelane_peers::{ACCEPT_RETRY, Peer};
use nix::sys::resource::{Resource, getrlimit};

/// Bytes put aside from which on a connection receives no more.
const ENOUGH: usize = BUFFER;

/// Buffers that are kept for receiving: if fewer are left, what arrives is copied, so that clients which read nothing
/// cannot hold them all.
const SPARE: u16 = BUFFERS / 4;

/// The most connections of a thread. The kernel allows no more than the limit of descriptors.
const CONNECTIONS: u64 = 64 * 1024;

fn main() -> ! {
    let about = "TCP echo server written by hand on io_uring, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(Worker::new, Worker::run)
}

/// What a tag says beside the slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Accept,
    AcceptLater,
    Receive,
    Send,
    /// A cancel or a close, after which nothing is done.
    Other,
}

impl Operation {
    fn tag(self, slot: u32) -> u64 {
        (self as u64) << 32 | u64::from(slot)
    }

    fn of(tag: u64) -> (Self, u32) {
        const ALL: [Operation; 5] = [
            Operation::Accept,
            Operation::AcceptLater,
            Operation::Receive,
            Operation::Send,
            Operation::Other,
        ];
        (ALL[(tag >> 32) as usize], tag as u32)
    }
}

/// What is being sent.
#[derive(Default)]
enum Sending {
    #[default]
    Nothing,
    Buffer(u16, u32),
    Bytes(Vec<u8>),
}

/// A connection; the default is a free slot.
#[derive(Default)]
struct Connection {
    sending: Sending,
    /// What arrived meanwhile.
    aside: Vec<u8>,
    receiving: bool,
    /// The receiving is to end, so that no more arrives.
    paused: bool,
    /// The client has finished: when all is sent the connection is closed.
    finished: bool,
    /// Nothing more can be sent.
    failed: bool,
}

struct Worker {
    ring: Ring,
    listener: TcpListener,
    connections: Vec<Connection>,
    /// Buffers that the kernel has.
    buffers: u16,
}

impl Worker {
    fn new(listener: TcpListener) -> io::Result<Self> {
        let most = getrlimit(Resource::RLIMIT_NOFILE)?.0.min(CONNECTIONS) as u32;
        let mut ring = Ring::new(most)?;
        ring.accept(&listener, Operation::Accept.tag(0));
        let mut connections = Vec::new();
        connections.resize_with(most as usize, Connection::default);
        Ok(Self { ring, listener, connections, buffers: BUFFERS })
    }

    fn run(mut self) -> io::Result<Infallible> {
        let mut completions = Vec::new();
        loop {
            self.ring.turn(&mut completions)?;
            for completion in &completions {
                let (operation, slot) = Operation::of(completion.tag);
                match operation {
                    Operation::Accept => self.accepted(completion),
                    Operation::AcceptLater => self.ring.accept(&self.listener, Operation::Accept.tag(0)),
                    Operation::Receive => self.received(slot, completion),
                    Operation::Send => self.sent(slot, completion),
                    Operation::Other => {}
                }
            }
        }
    }

    fn accepted(&mut self, completion: &Completion) {
        let accepted = completion.result();
        if let Ok(slot) = accepted {
            self.connections[slot as usize] = Connection::default();
            self.receive(slot);
        }
        if !completion.more() {
            // Only a failure ends it, be that of a client which has left already or for want of a slot.
            match accepted {
                Ok(_) => self.ring.accept(&self.listener, Operation::Accept.tag(0)),
                Err(_) => self.ring.wait(ACCEPT_RETRY, Operation::AcceptLater.tag(0)),
            }
        }
    }

    fn receive(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        (connection.receiving, connection.paused) = (true, false);
        self.ring.receive(slot, Operation::Receive.tag(slot));
    }

    fn received(&mut self, slot: u32, completion: &Completion) {
        let result = completion.result();
        if let (Ok(length), Some(buffer)) = (&result, completion.buffer()) {
            self.buffers -= 1;
            self.echo(slot, buffer, *length);
        }
        let connection = &mut self.connections[slot as usize];
        if completion.more() {
            return;
        }
        connection.receiving = false;
        match result {
            Ok(0) => connection.finished = true,
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS | libc::EINTR | libc::EAGAIN | libc::ECANCELED) => {}
                _ => (connection.finished, connection.failed) = (true, true),
            },
        }
        self.go_on(slot);
    }

    /// Sends what is in a buffer, or puts it aside.
    fn echo(&mut self, slot: u32, buffer: u16, length: u32) {
        let connection = &mut self.connections[slot as usize];
        if matches!(connection.sending, Sending::Nothing) && self.buffers >= SPARE && length > 0 {
            connection.sending = Sending::Buffer(buffer, length);
            self.ring.send_buffer(slot, buffer, length as usize, Operation::Send.tag(slot));
            return;
        }
        connection.aside.extend_from_slice(self.ring.bytes(buffer, length as usize));
        let enough = connection.aside.len() >= ENOUGH;
        if enough && connection.receiving && !connection.paused {
            connection.paused = true;
            self.ring.cancel(Operation::Receive.tag(slot), Operation::Other.tag(slot));
        }
        self.recycle(buffer);
        if matches!(self.connections[slot as usize].sending, Sending::Nothing) {
            self.send_aside(slot);
        }
    }

    fn send_aside(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let bytes = std::mem::take(&mut connection.aside);
        if !bytes.is_empty() {
            // SAFETY: the bytes stay in `sending`, and where they are on the heap, until the completion.
            unsafe { self.ring.send_bytes(slot, &bytes, Operation::Send.tag(slot)) };
            connection.sending = Sending::Bytes(bytes);
        }
    }

    fn recycle(&mut self, buffer: u16) {
        self.ring.recycle(buffer);
        self.buffers += 1;
    }

    fn sent(&mut self, slot: u32, completion: &Completion) {
        let connection = &mut self.connections[slot as usize];
        let (due, buffer) = match &connection.sending {
            Sending::Nothing => return,
            Sending::Buffer(buffer, length) => (*length, Some(*buffer)),
            Sending::Bytes(bytes) => (bytes.len() as u32, None),
        };
        connection.sending = Sending::Nothing;
        // All is sent unless the connection is broken.
        connection.failed |= completion.result().ok() != Some(due);
        if let Some(buffer) = buffer {
            self.recycle(buffer);
        }
        self.go_on(slot);
    }

    /// What comes after a send or after the end of the receiving.
    fn go_on(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.failed {
            connection.aside.clear();
            if connection.receiving && !connection.paused {
                connection.paused = true;
                self.ring.cancel(Operation::Receive.tag(slot), Operation::Other.tag(slot));
            }
        } else if matches!(connection.sending, Sending::Nothing) && !connection.aside.is_empty() {
            self.send_aside(slot);
        }
        let connection = &self.connections[slot as usize];
        let idle = matches!(connection.sending, Sending::Nothing);
        if !connection.receiving {
            if (connection.finished || connection.failed) && idle {
                self.connections[slot as usize] = Connection::default();
                self.ring.close(slot, Operation::Other.tag(slot));
            } else if !connection.finished && !connection.failed && connection.aside.len() < ENOUGH {
                self.receive(slot);
            }
        }
    }
}
