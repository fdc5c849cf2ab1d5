//! HTTP server written by hand on epoll that reads no HTTP, thread per core: the yardstick that the HTTP layer is
//! measured with.
//!
//! It counts the empty lines that end requests and answers each with the same bytes. Everything else is as in
//! `peer-epoll`: one `recv` and one `send` for all the requests of a segment.

use std::io;
use std::os::fd::RawFd;

use corelane_peers::Peer;
use corelane_peers::epoll::{Service, Worker};
use corelane_peers::raw::send_all;
use memchr::memmem::Finder;

/// What a parser would answer `GET /plaintext` with, as long as the HTTP layer's own reply.
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nserver: epoll-ht\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    content-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, World!";

/// What ends a request.
const END: &[u8] = b"\r\n\r\n";

/// Replies that one `send` can hold.
const REPLIES: usize = 1024;

fn main() -> ! {
    let about = "HTTP server written by hand on epoll that answers all requests alike, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about)
        .serve_per_thread(|listener| Worker::new(listener, Alike::new()), Worker::run)
}

/// Answers all requests alike.
struct Alike {
    replies: Box<[u8]>,
    end: Finder<'static>,
}

impl Alike {
    fn new() -> Self {
        Self { replies: REPLY.repeat(REPLIES).into(), end: Finder::new(END) }
    }
}

#[derive(Default)]
struct State {
    /// Bytes of replies that the kernel would not take yet.
    owed: usize,
    /// How much of [`END`] the bytes received so far end with.
    matched: usize,
}

impl Service for Alike {
    type State = State;

    #[inline]
    fn owes(state: &State) -> bool {
        state.owed > 0
    }

    fn pay(&mut self, fd: RawFd, state: &mut State) -> io::Result<bool> {
        pay(fd, state, &self.replies)
    }

    #[inline]
    fn answer(&mut self, fd: RawFd, state: &mut State, received: &[u8]) -> io::Result<bool> {
        state.owed = count_ends(received, &mut state.matched, &self.end) * REPLY.len();
        pay(fd, state, &self.replies)
    }
}

/// Sends replies until none is owed or the kernel refuses; whether none is.
fn pay(fd: RawFd, state: &mut State, replies: &[u8]) -> io::Result<bool> {
    while state.owed > 0 {
        // The rest of a reply begun before, then whole ones.
        let start = (REPLY.len() - state.owed % REPLY.len()) % REPLY.len();
        let bytes = &replies[start..replies.len().min(start + state.owed)];
        let sent = send_all(fd, bytes)?;
        state.owed -= sent;
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
