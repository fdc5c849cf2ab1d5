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
use super::watch::{Due, Watch};
use crate::{ConnId, Core, Written};

/// Gathered output leaves when it is this much, so that the peer's slowness is noticed in the middle of many requests.
const FLUSH_AT: usize = 32 * 1024;

/// Bytes from which on a body is not copied to what has gathered.
pub(super) const UNCOPIED: usize = 8 * 1024;

/// A large body is passed on in pieces of so many bytes, until the peer is slower. A sixteenth of the output cap, unless
/// that was set.
pub(super) const PIECE: usize = 256 * 1024;

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
    pub(super) deadlines: Watch,
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
            deadlines: Watch::default(),
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

    /// Has a connection looked at when this time has come, unless it is looked at before.
    pub(super) fn watch(&mut self, index: usize, at: u64) {
        let Self { connections, deadlines, .. } = self;
        let connection = &mut connections[index];
        if at < connection.watched {
            connection.watched = at;
            let due = Due { at, index, id: connection.id };
            deadlines
                .add(due, |due| connections.get(due.index).is_some_and(|connection| connection.knows(due)));
        }
    }

    /// A connection whose time has come.
    pub(super) fn due(&mut self) -> Option<usize> {
        while let Some(due) = self.deadlines.pop(self.now) {
            if let Some(connection) = self.connections.get_mut(due.index)
                && connection.knows(&due)
            {
                connection.watched = u64::MAX;
                return Some(due.index);
            }
        }
        None
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
        if queue.len() != 1 || queue[0].sample.is_some() || !queue[0].held.is_empty() {
            return false;
        }
        let took = self.now.saturating_sub(queue[0].started);
        drop(queue.pop_back());
        self.counters.reply(status, sent, took);
        true
    }

    /// Passes on what was held of the replies whose turn it is, and ends the exchanges whose reply is whole.
    pub(super) fn complete(&mut self, core: &mut Core<'_>, index: usize) {
        self.select(core, index);
        while self.release(core, index) {
            let connection = &mut self.connections[index];
            if !connection.queue.front().is_some_and(|entry| entry.flags.has(part::DONE)) {
                return;
            }
            let Some(entry) = connection.queue.pop_front() else { return };
            if entry.flags.has(part::BODY) {
                connection.flags.set(conn::DISCARD);
                (connection.since, connection.received, connection.dropped) = (self.now, 0, 0);
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
            if entry.flags.has(part::CLOSE) {
                connection.flags.set(conn::CLOSING);
            } else if !connection.queue.is_empty() {
                connection.flags.set(conn::WAKE);
            }
            let is_last = entry.flags.has(part::CLOSE);
            self.account(index, entry);
            if is_last {
                return;
            }
        }
    }

    /// Counts an exchange that is over, and tells the access log of it.
    fn account(&mut self, index: usize, entry: Entry<T>) {
        let took = self.now.saturating_sub(entry.started);
        match () {
            () if entry.flags.has(part::CUT) => {}
            () if entry.flags.has(part::INTERNAL) => self.counters.refusal(entry.status),
            () => self.counters.reply(entry.status, entry.sent, took),
        }
        self.log(index, entry.sample, entry.status, entry.sent, took);
    }

    /// Has the access log told of an exchange, if it is one of those.
    pub(super) fn log(
        &mut self,
        index: usize,
        sample: Option<Box<Sample>>,
        status: u16,
        bytes: u64,
        took: u64,
    ) {
        if let Some(sample) = sample {
            let id = self.connections[index].id;
            self.finished.push(Finished { sample, id, status, bytes, took });
        }
    }

    /// Passes on what is held of the first reply; whether all of it is. Else `on_drained` comes.
    fn release(&mut self, core: &mut Core<'_>, index: usize) -> bool {
        let connection = &mut self.connections[index];
        let is_high = connection.flags.has(conn::HIGH);
        let Some(first) = connection.queue.front_mut().filter(|first| !first.held.is_empty()) else {
            return true;
        };
        if is_high {
            return false;
        }
        let mut held = std::mem::take(&mut first.held);
        let passed = self.pass_on(core, held.left());
        held.pass(passed);
        let is_all = held.is_empty();
        if let Some(first) = self.connections[index].queue.front_mut() {
            first.held = held;
        }
        is_all
    }

    /// Passes on what has gathered and as much of `bytes` as the peer takes without delay; how much. The rest must be
    /// held: written at once, it could be more than the server's output cap allows.
    pub(super) fn pass_on(&mut self, core: &mut Core<'_>, bytes: &[u8]) -> usize {
        if bytes.len() < UNCOPIED {
            self.out.extend_from_slice(bytes);
            self.flush_if_much(core);
            return bytes.len();
        }
        let mut passed = 0;
        for piece in bytes.chunks(PIECE) {
            match self.flush_with(core, &[piece]) {
                Written::Accepted => passed += piece.len(),
                Written::High => return passed + piece.len(),
                // The connection ends.
                Written::Refused | Written::Closed => return bytes.len(),
            }
        }
        passed
    }

    pub(super) fn id(&self, index: usize) -> Option<ConnId> {
        self.connections.get(index).map(|connection| connection.id)
    }
}
