//! One connection: where its input is, and the exchanges that are not over, in the order of their requests. Knows no
//! socket and no clock.

use std::collections::VecDeque;

use super::body::Body;
use super::config::{Limits, Timeouts};
use super::reply::CONTINUE;
use super::watch::Due;
use super::{Problem, Responder};
use crate::ConnId;

/// Bits of a connection and of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    #[inline]
    pub(super) const fn has(self, any: u32) -> bool {
        self.0 & any != 0
    }

    #[inline]
    pub(super) fn set(&mut self, flags: u32) {
        self.0 |= flags;
    }

    #[inline]
    pub(super) fn clear(&mut self, flags: u32) {
        self.0 &= !flags;
    }

    pub(super) fn assign(&mut self, flags: u32, value: bool) {
        if value { self.set(flags) } else { self.clear(flags) }
    }

    /// Those of `mask` that are set.
    pub(super) const fn only(self, mask: u32) -> u32 {
        self.0 & mask
    }

    /// Clears a flag and says whether it was set.
    pub(super) fn take(&mut self, flag: u32) -> bool {
        let was = self.has(flag);
        self.clear(flag);
        was
    }
}

/// What is known of a connection.
pub(super) mod conn {
    /// No request is taken behind those there are; when they are answered, it closes.
    pub(in crate::http1) const LAST: u32 = 1;
    /// It closes now, whatever is unanswered.
    pub(in crate::http1) const CLOSING: u32 = 1 << 1;
    /// The reactor was asked to close it.
    pub(in crate::http1) const CLOSED: u32 = 1 << 2;
    /// Reading is paused, by the layer.
    pub(in crate::http1) const PAUSED: u32 = 1 << 3;
    /// Output is above the high watermark.
    pub(in crate::http1) const HIGH: u32 = 1 << 4;
    /// The peer has ended its side.
    pub(in crate::http1) const ENDED: u32 = 1 << 5;
    /// In the list of those to be tended.
    pub(in crate::http1) const LISTED: u32 = 1 << 6;
    /// What is left of the body is dropped: its exchange is over.
    pub(in crate::http1) const DISCARD: u32 = 1 << 8;
    /// It speaks another protocol.
    pub(in crate::http1) const TUNNEL: u32 = 1 << 9;
    /// A part of a head has come.
    pub(in crate::http1) const HEAD: u32 = 1 << 10;
    /// The first exchange may go on writing.
    pub(in crate::http1) const WAKE: u32 = 1 << 11;
    /// The idle deadline is off: the service is at work.
    pub(in crate::http1) const BUSY: u32 = 1 << 12;
    /// The idle deadline is that of a write stall.
    pub(in crate::http1) const STALL: u32 = 1 << 13;
    /// The server shuts down, and it was asked whether it may go.
    pub(in crate::http1) const ASKED: u32 = 1 << 14;
}

/// What is known of an exchange.
pub(super) mod part {
    /// The request was HEAD.
    pub(in crate::http1) const HEAD: u32 = 1;
    /// The request was of version 1.0.
    pub(in crate::http1) const HTTP10: u32 = 1 << 1;
    /// The connection closes behind the reply.
    pub(in crate::http1) const CLOSE: u32 = 1 << 2;
    /// The head of the reply is written.
    pub(in crate::http1) const BEGUN: u32 = 1 << 3;
    /// The reply is whole.
    pub(in crate::http1) const DONE: u32 = 1 << 4;
    /// The reply's body is sent in chunks.
    pub(in crate::http1) const CHUNKED: u32 = 1 << 5;
    /// The reply has no body, whatever is written.
    pub(in crate::http1) const BODILESS: u32 = 1 << 6;
    /// The request's body is still coming.
    pub(in crate::http1) const BODY: u32 = 1 << 7;
    /// The service wants no body for now.
    pub(in crate::http1) const PAUSED: u32 = 1 << 8;
    /// The client waits for `100 Continue`.
    pub(in crate::http1) const EXPECTS: u32 = 1 << 9;
    /// The service was told to wait with its writing.
    pub(in crate::http1) const BLOCKED: u32 = 1 << 10;
    /// Behind the reply's head another protocol is spoken.
    pub(in crate::http1) const UPGRADE: u32 = 1 << 11;
    /// The layer's own: no request of it was shown to the service.
    pub(in crate::http1) const INTERNAL: u32 = 1 << 12;
    /// The keep-alive of a 1.0 client is confirmed.
    pub(in crate::http1) const KEEP: u32 = 1 << 13;
    /// The client would speak another protocol behind it: what follows is not looked at before it is answered.
    pub(in crate::http1) const OFFERS: u32 = 1 << 14;
    /// The reply's status has no body, and no length.
    pub(in crate::http1) const LENGTHLESS: u32 = 1 << 15;
    /// The reply was cut short, and is none to count.
    pub(in crate::http1) const CUT: u32 = 1 << 16;
    /// The request was CONNECT.
    pub(in crate::http1) const CONNECT: u32 = 1 << 17;
}

/// What is kept of a request that is told of when it is over.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) method: String,
    pub(super) target: String,
}

/// Of a reply, what is written and must wait: for the replies before it, or for a peer that takes what it was sent.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// So many of them have been passed on.
    passed: usize,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.passed
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn left(&self) -> &[u8] {
        &self.bytes[self.passed..]
    }

    /// So many of what was left have been passed on; without a buffer once it is all.
    pub(super) fn pass(&mut self, count: usize) {
        self.passed += count;
        if self.passed == self.bytes.len() {
            *self = Self::default();
        }
    }

    /// For more to be written behind it.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// All of it, if nothing has been passed on.
    pub(super) fn fresh(&mut self) -> Option<&mut Vec<u8>> {
        (self.passed == 0).then_some(&mut self.bytes)
    }
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) state: T,
    pub(super) held: Held,
    pub(super) sample: Option<Box<Sample>>,
    /// When its head was whole.
    pub(super) started: u64,
    /// Bytes of the reply's body so far.
    pub(super) sent: u64,
    /// Bytes that the reply's body still has to have.
    pub(super) left: u64,
    pub(super) status: u16,
    pub(super) flags: Flags,
}

impl<T: Default> Entry<T> {
    #[inline]
    pub(super) fn new(flags: u32, started: u64) -> Self {
        Self {
            state: T::default(),
            held: Held::default(),
            sample: None,
            started,
            sent: 0,
            left: 0,
            status: 0,
            flags: Flags(flags),
        }
    }
}

impl<T> Entry<T> {
    /// Has the connection closed behind it. `is_waiting`: for replies before it, so that its head is held if it is made,
    /// and can be made to say so.
    pub(super) fn close(&mut self, is_waiting: bool) {
        const LINE: &[u8] = b"connection: close\r\n";
        let has_line = part::CLOSE | part::KEEP | part::UPGRADE;
        if is_waiting
            && self.flags.has(part::BEGUN)
            && !self.flags.has(has_line)
            && let Some(held) = self.held.fresh()
        {
            let start = if held.starts_with(CONTINUE) { CONTINUE.len() } else { 0 };
            if let Some(end) = memchr::memchr(b'\n', &held[start..]) {
                let at = start + end + 1;
                held.splice(at..at, LINE.iter().copied());
            }
        }
        self.flags.set(part::CLOSE);
    }
}

/// What the input of a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A head, of which so many bytes were looked at in vain.
    Head {
        seen: u32,
    },
    Body(Body),
}

#[derive(Debug)]
pub(super) struct Connection<T> {
    /// The exchanges that are not over. Without a buffer of its own while there is none.
    pub(super) queue: VecDeque<Entry<T>>,
    pub(super) reading: Reading,
    pub(super) id: ConnId,
    /// The number of the next request.
    pub(super) next: u32,
    /// When the present head or body began, or began to be read again, or was last as fast as it has to be.
    pub(super) since: u64,
    /// Bytes of the present body since then.
    pub(super) received: u64,
    /// Bytes that were dropped of it.
    pub(super) dropped: u64,
    /// The time of its entry in the heap of deadlines; `u64::MAX` where it has none.
    pub(super) watched: u64,
    pub(super) flags: Flags,
}

impl<T: Default> Connection<T> {
    /// Puts an exchange at the end of the queue, whose buffer is one of `spare` if it has none; its number.
    #[inline(always)]
    pub(super) fn push(&mut self, flags: u32, started: u64, spare: &mut Vec<VecDeque<Entry<T>>>) -> u32 {
        if self.queue.capacity() == 0 {
            // Nothing is lost: it is empty and has no buffer. What drops it would not know that.
            std::mem::forget(std::mem::replace(&mut self.queue, spare.pop().unwrap_or_default()));
        }
        self.queue.push_back(Entry::new(flags, started));
        let number = self.next;
        self.next = number.wrapping_add(1);
        number
    }
}

impl<T> Connection<T> {
    /// Whether this is its entry in the heap of deadlines.
    pub(super) fn knows(&self, due: &Due) -> bool {
        (self.id, self.watched) == (due.id, due.at)
    }

    pub(super) fn new(id: ConnId) -> Self {
        Self {
            queue: VecDeque::new(),
            reading: Reading::Head { seen: 0 },
            id,
            next: 0,
            since: 0,
            received: 0,
            dropped: 0,
            watched: u64::MAX,
            flags: Flags::default(),
        }
    }

    /// Where in the queue the exchange of this number is.
    #[inline]
    pub(super) fn position(&self, number: u32) -> Option<usize> {
        let behind = self.next.wrapping_sub(number) as usize;
        (1..=self.queue.len()).contains(&behind).then(|| self.queue.len() - behind)
    }

    pub(super) fn entry(&mut self, number: u32) -> Option<&mut Entry<T>> {
        let position = self.position(number)?;
        self.queue.get_mut(position)
    }

    pub(super) fn responder(&self, index: usize, position: usize) -> Responder {
        let behind = (self.queue.len() - position) as u32;
        Responder { id: self.id, index: index as u32, number: self.next.wrapping_sub(behind) }
    }

    /// Whether what has come may be looked at.
    #[inline]
    pub(super) fn wants_input(&self, limits: &Limits) -> bool {
        if self.flags.has(conn::CLOSING | conn::CLOSED | conn::HIGH) {
            return false;
        }
        match self.reading {
            _ if self.flags.has(conn::TUNNEL | conn::DISCARD) => true,
            Reading::Body(_) => self.queue.back().is_none_or(|entry| !entry.flags.has(part::PAUSED)),
            Reading::Head { .. } => !self.flags.has(conn::LAST) && self.has_room(limits),
        }
    }

    /// Whether it waits for a request and for nothing else: the state of most connections at most times.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.flags == Flags::default() && self.reading == Reading::Head { seen: 0 } && self.queue.is_empty()
    }

    /// Whether another request may join those that wait.
    #[inline]
    fn has_room(&self, limits: &Limits) -> bool {
        self.queue.is_empty()
            || self.queue.len() < limits.pipeline
                && !self.queue.back().is_some_and(|entry| entry.flags.has(part::OFFERS))
                && self.queue.iter().map(|entry| entry.held.len()).sum::<usize>() <= limits.held
    }

    /// Whether it is over when nothing more comes of the service.
    pub(super) fn is_over(&self) -> bool {
        self.flags.has(conn::CLOSING) || self.flags.has(conn::LAST) && self.queue.is_empty()
    }

    /// So much of a body has come. One that is fast enough has its time anew, but saves none up: else it could stop for as
    /// long as its first bytes have paid for.
    pub(super) fn came(&mut self, bytes: usize, now: u64, timeouts: &Timeouts) {
        self.received += bytes as u64;
        if self.since.saturating_add(paid_for(self.received, timeouts)) >= now {
            (self.since, self.received) = (now, 0);
        }
    }

    /// When the peer has been too slow, if it goes on like this, and what with. Not while the wait is ours.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<(u64, Problem)> {
        if self.flags.has(conn::CLOSING | conn::CLOSED | conn::PAUSED | conn::HIGH | conn::TUNNEL) {
            return None;
        }
        match self.reading {
            Reading::Head { .. } if self.flags.has(conn::HEAD) => {
                Some((self.since.saturating_add(timeouts.head.as_nanos() as u64), Problem::HeadTimeout))
            }
            Reading::Head { .. } => None,
            Reading::Body(_) => {
                let grace = timeouts.body.grace.as_nanos() as u64;
                let allowed = paid_for(self.received, timeouts).max(grace);
                Some((self.since.saturating_add(allowed), Problem::BodyRate))
            }
        }
    }
}

/// How long so many bytes of a body may take.
fn paid_for(bytes: u64, timeouts: &Timeouts) -> u64 {
    bytes.saturating_mul(1_000_000_000) / u64::from(timeouts.body.bytes_per_second).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_connection_is_small() {
        assert!(size_of::<Connection<()>>() <= 128, "{} bytes", size_of::<Connection<()>>());
    }
}
