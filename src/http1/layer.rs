//! What the connections of one reactor share: the table of them, the output that gathers, the date, the counters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::access::Finished;
use super::config::Config;
use super::connection::{Connection, Entry, Sample, conn, part};
use super::counters::Counters;
use super::date::Date;
use super::head::Head;
use super::watch::Watch;
use crate::{ConnId, Core, Written};

/// Gathered output leaves when it is this much, so that the peer's slowness is noticed in the middle of many requests.
const FLUSH_AT: usize = 32 * 1024;

/// Bytes from which on a body is not copied to what has gathered.
pub(super) const UNCOPIED: usize = 8 * 1024;

/// Buffers of queues that are kept.
const SPARE_QUEUES: usize = 64;

#[derive(Debug)]
pub(super) struct Layer<T> {
    pub(super) config: Arc<Config>,
    pub(super) counters: Arc<Counters>,
    pub(super) connections: Slab<Connection<T>>,
    /// What was written to the connection of this index and has not been passed on.
    pub(super) out: Vec<u8>,
    pub(super) out_index: usize,
    pub(super) date: Date,
    pub(super) watch: Watch,
    /// Connections that something happened to outside of their own callback.
    pub(super) listed: VecDeque<usize>,
    /// Sampled exchanges that are over and not told of.
    pub(super) finished: Vec<Finished>,
    /// Buffers of queues that were emptied.
    pub(super) spare: Vec<VecDeque<Entry<T>>>,
    started: Instant,
    /// The time of this turn.
    turn: Option<Instant>,
    /// The same in nanoseconds since the start.
    pub(super) now: u64,
    pub(super) draining: bool,
    /// The connection whose callback runs: it is tended at the end of that.
    pub(super) current: usize,
    /// Requests until the next sample.
    pub(super) until_sample: u32,
}

impl<T: Default + 'static> Layer<T> {
    pub(super) fn new(config: Arc<Config>, counters: Arc<Counters>) -> Self {
        Self {
            until_sample: config.log_every,
            config,
            counters,
            connections: Slab::new(),
            out: Vec::new(),
            out_index: usize::MAX,
            date: Date::new(),
            watch: Watch::default(),
            listed: VecDeque::new(),
            finished: Vec::new(),
            spare: Vec::new(),
            started: Instant::now(),
            turn: None,
            now: 0,
            draining: false,
            current: usize::MAX,
        }
    }

    /// The reactor begins, and with it the layer's clock.
    pub(super) fn start(&mut self, core: &Core<'_>) {
        self.started = core.now();
    }

    /// To be called at the beginning of every callback of the reactor.
    #[inline]
    pub(super) fn begin(&mut self, core: &mut Core<'_>) {
        self.current = usize::MAX;
        let turn = core.now();
        if self.turn != Some(turn) {
            self.turn = Some(turn);
            self.now = turn.saturating_duration_since(self.started).as_nanos() as u64;
            if self.config.date {
                self.date.refresh(turn);
            }
        }
        if !self.out.is_empty() {
            self.drop_output(core);
        }
    }

    /// A callback has panicked in the middle of a reply: nobody knows what its peer would make of the rest.
    #[cold]
    fn drop_output(&mut self, core: &mut Core<'_>) {
        self.out.clear();
        if let Some(connection) = self.connections.get(self.out_index) {
            core.abort(connection.id);
        }
    }

    /// Sees to it that `out` is this connection's.
    #[inline]
    pub(super) fn select(&mut self, core: &mut Core<'_>, index: usize) {
        if self.out_index != index {
            self.flush(core);
            self.out_index = index;
        }
    }

    /// Passes on what has gathered.
    #[inline]
    pub(super) fn flush(&mut self, core: &mut Core<'_>) {
        if !self.out.is_empty() {
            self.flush_with(core, &[]);
        }
    }

    /// The same where it is a lot.
    #[inline]
    pub(super) fn flush_if_much(&mut self, core: &mut Core<'_>) {
        if self.out.len() >= FLUSH_AT {
            self.flush_with(core, &[]);
        }
    }

    /// Passes on what has gathered, and slices behind it.
    pub(super) fn flush_with(&mut self, core: &mut Core<'_>, slices: &[&[u8]]) -> Written {
        let Some(connection) = self.connections.get(self.out_index) else {
            self.out.clear();
            return Written::Closed;
        };
        let id = connection.id;
        let written = match slices {
            [] => core.write(id, &self.out),
            [one] => core.write_slices(id, &[&self.out, one]),
            [one, two] => core.write_slices(id, &[&self.out, one, two]),
            [one, two, three, ..] => core.write_slices(id, &[&self.out, one, two, three]),
        };
        self.out.clear();
        self.note(core, self.out_index, written);
        written
    }

    /// Draws the consequences of a write.
    #[inline]
    pub(super) fn note(&mut self, core: &mut Core<'_>, index: usize, written: Written) {
        if written == Written::Accepted {
            return;
        }
        let Some(connection) = self.connections.get_mut(index) else { return };
        match written {
            Written::High => {
                connection.flags.set(conn::HIGH);
                self.list(index);
            }
            // A hole in the stream: the peer would take the next reply for a part of this one.
            Written::Refused => _ = core.abort(connection.id),
            Written::Accepted | Written::Closed => {}
        }
    }

    /// Has the connection tended when the callback is over.
    #[inline]
    pub(super) fn list(&mut self, index: usize) {
        if index != self.current
            && let Some(connection) = self.connections.get_mut(index)
            && !connection.flags.has(conn::LISTED)
        {
            connection.flags.set(conn::LISTED);
            self.listed.push_back(index);
        }
    }

    /// Keeps what the access log is to tell of the last request, if it is one of those.
    #[cold]
    pub(super) fn sample(&mut self, index: usize, head: &Head<'_>) {
        self.until_sample -= 1;
        if self.until_sample == 0 {
            self.until_sample = self.config.log_every;
            let (method, target) = (head.method_name.to_owned(), head.target.to_owned());
            if let Some(last) = self.connections[index].queue.back_mut() {
                last.sample = Some(Box::new(Sample { method, target }));
            }
        }
    }

    /// Takes back the buffer of a queue that is empty.
    #[inline]
    pub(super) fn take_spare(&mut self, index: usize) {
        let queue = &mut self.connections[index].queue;
        if queue.is_empty() && queue.capacity() > 0 {
            let queue = std::mem::take(queue);
            if self.spare.len() < SPARE_QUEUES {
                self.spare.push(queue);
            }
        }
    }

    /// Ends the only exchange of a connection, of which nothing is left but its reply, which is whole; whether it is
    /// the only one.
    #[inline]
    pub(super) fn complete_only(&mut self, index: usize, status: u16, sent: u64) -> bool {
        let queue = &mut self.connections[index].queue;
        if queue.len() != 1 || queue[0].sample.is_some() {
            return false;
        }
        let took = self.now.saturating_sub(queue[0].started);
        drop(queue.pop_back());
        self.counters.reply(status, sent, took);
        true
    }

    /// Ends the exchanges whose reply is whole, as far as it is their turn.
    pub(super) fn complete(&mut self, core: &mut Core<'_>, index: usize) {
        self.select(core, index);
        let connection = &mut self.connections[index];
        while connection.queue.front().is_some_and(|entry| entry.flags.has(part::DONE)) {
            let Some(entry) = connection.queue.pop_front() else { return };
            if entry.flags.has(part::BODY) {
                connection.flags.set(conn::DISCARD);
                (connection.since, connection.received) = (self.now, 0);
                let left = match connection.reading {
                    super::connection::Reading::Body(body) => body.left(),
                    super::connection::Reading::Head { .. } => Some(0),
                };
                if left.is_some_and(|left| left > self.config.limits.discard)
                    || entry.flags.has(part::EXPECTS)
                {
                    connection.flags.set(conn::CLOSING);
                }
            }
            let is_last = entry.flags.has(part::CLOSE);
            let took = self.now.saturating_sub(entry.started);
            self.counters.reply(entry.status, entry.sent, took);
            if let Some(sample) = entry.sample {
                self.finished.push(Finished {
                    sample,
                    id: connection.id,
                    status: entry.status,
                    bytes: entry.sent,
                    took,
                });
            }
            if is_last {
                connection.flags.set(conn::CLOSING);
                return;
            }
            let Some(next) = connection.queue.front_mut() else { return };
            if !next.held.is_empty() {
                self.out.append(&mut next.held);
                next.held = Vec::new();
            }
            connection.flags.set(conn::WAKE);
        }
    }

    pub(super) fn id(&self, index: usize) -> Option<ConnId> {
        self.connections.get(index).map(|connection| connection.id)
    }
}
