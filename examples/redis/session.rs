//! One connection: replies that wait for others before them, and what it has said about itself.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use corelane::{ConnId, Core};

use crate::commands::{Run, TOO_LARGE};
use crate::protocol::Parser;
use crate::reply::{Mark, Part, Reply};

/// Answers of other reactors that a connection may wait for before more of its requests are read.
const MOST_WAITING: usize = 1024;
/// Bytes that it may have on their way to other reactors, and as many in replies that wait for others.
const MOST_BYTES: usize = 1024 * 1024;
/// Buffers that are kept for the next connection that needs one.
const MOST_SPARE: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Session {
    /// What can be sent now.
    ready: Reply,
    /// Answers that others owe, and where the replies behind each end in `held`; in the order of the requests.
    pending: VecDeque<Pending>,
    /// Replies that cannot be sent yet, because an answer that is owed belongs before them.
    held: Reply,
    /// Those of them that have been passed on; they stay there until nothing is owed any more.
    released: Mark,
    /// The number of the first of these.
    first: u64,
    /// Answers that are expected, one for each key.
    waiting: usize,
    /// Whether values are among them, which may be large and are not copied.
    expects_values: bool,
    /// Whether nothing more is asked for until what was has come.
    is_held_up: bool,
    /// Bytes of requests on their way.
    pub(crate) asked: usize,
    /// Bytes of answers that came before others they have to follow.
    early: usize,
    /// A request of which a part was read.
    pub(crate) parser: Option<Box<Parser>>,
    pub(crate) is_resp3: bool,
    /// No more requests are read; it closes when it has got its replies.
    pub(crate) is_closing: bool,
    pub(crate) has_ended: bool,
    pub(crate) is_paused: bool,
    /// Whether it has no idle deadline.
    pub(crate) may_be_idle: bool,
    /// A number for CLIENT ID.
    pub(crate) number: u64,
    pub(crate) name: Vec<u8>,
    pub(crate) channels: BTreeSet<Rc<[u8]>>,
    /// Of their names.
    pub(crate) channel_bytes: usize,
}

/// The place of a reply that others have to give, or one of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    place: u64,
    part: u32,
}

impl Ticket {
    /// For one answer of several.
    pub(crate) fn part(self, part: usize) -> Self {
        Self { part: part as u32, ..self }
    }
}

#[derive(Debug)]
struct Pending {
    answer: Answer,
    /// Where the held replies to the requests before it end, and those that follow it begin.
    start: Mark,
}

#[derive(Debug)]
enum Answer {
    Expected,
    Joining(Join),
    Ready(Reply),
}

/// How several answers become one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The sum of their numbers.
    Sum,
    /// OK if all are.
    Ok,
    /// One array of what is in theirs, of at most so many bytes.
    Arrays { most: usize },
    /// The same, in the order of the keys.
    Values { most: usize },
}

#[derive(Debug)]
struct Join {
    joined: Joined,
    left: usize,
    number: i64,
    /// Where they come from, and of each key where its value does.
    parts: Vec<Reply>,
    owners: Vec<usize>,
    error: Option<Reply>,
}

impl Session {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Where the reply to the request that has just been read goes.
    #[inline]
    pub(crate) fn out(&mut self) -> &mut Reply {
        if self.pending.is_empty() { &mut self.ready } else { &mut self.held }
    }

    /// Whether requests must not be read for now whose replies would have to wait.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.is_waiting()
            && (self.waiting >= MOST_WAITING
                || self.is_held_up
                || self.asked >= MOST_BYTES
                || self.held.size() + self.early >= MOST_BYTES)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether it has got every reply.
    pub(crate) fn is_done(&self) -> bool {
        self.pending.is_empty() && self.ready.is_empty()
    }

    /// Bytes of replies and messages that are not written.
    pub(crate) fn unwritten(&self) -> usize {
        self.ready.size() + self.held.size() + self.early
    }

    /// The next reply is somebody else's to give.
    pub(crate) fn expect(&mut self) -> Ticket {
        self.wait_for(Answer::Expected, 1)
    }

    /// The next reply is made of so many answers.
    pub(crate) fn expect_parts(&mut self, joined: Joined, count: usize) -> Ticket {
        self.join(Join { joined, left: count, number: 0, parts: Vec::new(), owners: Vec::new(), error: None })
    }

    /// The next reply is made of `count` arrays of values, in which the keys of each owner are in order.
    pub(crate) fn expect_values(&mut self, most: usize, count: usize, owners: Vec<usize>) -> Ticket {
        let joined = Joined::Values { most };
        self.join(Join { joined, left: count, number: 0, parts: Vec::new(), owners, error: None })
    }

    fn join(&mut self, join: Join) -> Ticket {
        let weight = join.weight();
        self.wait_for(Answer::Joining(join), weight)
    }

    /// A request is about to be asked of others. One whose answers may be many times its size is the last
    /// until they have come, and so is one that has a value copied of which replies wait: pipelined, they
    /// would have as many answers, or states of a value, in memory at a time.
    pub(crate) fn note(&mut self, run: Run) {
        match run {
            Run::Get | Run::Mget => self.expects_values = true,
            Run::Append => self.is_held_up |= self.expects_values,
            Run::Keys => self.is_held_up = true,
            _ => {}
        }
    }

    fn wait_for(&mut self, answer: Answer, count: usize) -> Ticket {
        self.waiting += count;
        self.pending.push_back(Pending { answer, start: self.held.mark() });
        Ticket { place: self.first + self.pending.len() as u64 - 1, part: 0 }
    }

    /// Takes an answer; with it and what it held up, `ready` may grow.
    pub(crate) fn answer(&mut self, ticket: Ticket, part: Part<'_>) {
        let index = (ticket.place - self.first) as usize;
        let Some(pending) = self.pending.get_mut(index) else { return };
        match &mut pending.answer {
            Answer::Expected if index == 0 => {
                self.waiting -= 1;
                self.ready.append(part);
                self.release_first();
            }
            Answer::Joining(join) => {
                join.take(ticket.part as usize, part);
                if join.left > 0 {
                    return;
                }
                self.waiting -= join.weight();
                let reply = join.finish();
                self.early += if index == 0 { 0 } else { reply.size() };
                pending.answer = Answer::Ready(reply);
            }
            answer => {
                self.waiting -= 1;
                self.early += part.size();
                let mut reply = Reply::default();
                reply.append(part);
                *answer = Answer::Ready(reply);
            }
        }
        while let Some(Pending { answer: Answer::Ready(reply), .. }) = self.pending.front() {
            self.ready.append(reply.whole());
            self.release_first();
        }
    }

    /// The first of the answers is there: what was held for it alone follows it.
    fn release_first(&mut self) {
        self.pending.pop_front();
        self.first += 1;
        let end = self.pending.front().map_or(self.held.mark(), |next| next.start);
        self.ready.append(self.held.part(self.released, end));
        self.released = end;
        if self.pending.is_empty() {
            self.held.clear();
            self.released = Mark::default();
            self.early = 0;
            self.expects_values = false;
            self.is_held_up = false;
        }
    }

    /// Writes what is ready; whether all of it was.
    pub(crate) fn flush(&mut self, core: &mut Core<'_>, id: ConnId) -> bool {
        self.ready.write_to(core, id)
    }

    #[inline]
    pub(crate) fn ready_size(&self) -> usize {
        self.ready.size()
    }

    /// Lends it buffers for what becomes ready and what is held: an idle connection has none of its own.
    #[inline]
    pub(crate) fn lend(&mut self, spare: &mut Vec<Reply>) {
        for buffer in [&mut self.ready, &mut self.held] {
            if !buffer.has_memory()
                && let Some(lent) = spare.pop()
            {
                *buffer = lent;
            }
        }
    }

    /// Takes back what is empty.
    #[inline]
    pub(crate) fn take_back(&mut self, spare: &mut Vec<Reply>) {
        for buffer in [&mut self.held, &mut self.ready] {
            if buffer.is_empty() && buffer.has_memory() {
                let buffer = std::mem::take(buffer);
                if spare.len() < MOST_SPARE {
                    spare.push(buffer);
                }
            }
        }
    }

    /// Is as it was in the beginning; nobody tells it what it has left.
    pub(crate) fn reset(&mut self) {
        self.channels.clear();
        self.channel_bytes = 0;
        self.name.clear();
        self.is_resp3 = false;
        self.out().simple(b"RESET");
    }

    /// A client of RESP2 that has subscribed cannot tell replies from messages, so it may not ask for much.
    pub(crate) fn is_listening_only(&self) -> bool {
        !self.channels.is_empty() && !self.is_resp3
    }
}

impl Join {
    /// How many answers it counts for; it is a constant.
    fn weight(&self) -> usize {
        self.owners.len().max(1)
    }

    fn take(&mut self, index: usize, part: Part<'_>) {
        self.left -= 1;
        if part.is_error() {
            return self.fail(|error| error.append(part));
        }
        match self.joined {
            Joined::Ok => {}
            Joined::Sum => self.number += part.split_number().0,
            Joined::Arrays { most } | Joined::Values { most } => {
                let size = part.size() + self.parts.iter().map(Reply::size).sum::<usize>();
                if size > most {
                    return self.fail(|error| error.error(TOO_LARGE));
                }
                if self.error.is_none() {
                    let (count, items) = part.split_number();
                    self.number += count;
                    self.parts.resize_with(self.parts.len().max(index + 1), Reply::default);
                    self.parts[index].append(items);
                }
            }
        }
    }

    /// Its reply is an error, whatever the other answers are.
    fn fail(&mut self, write: impl FnOnce(&mut Reply)) {
        let mut error = Reply::default();
        write(&mut error);
        self.error = Some(error);
        self.parts = Vec::new();
    }

    fn finish(&mut self) -> Reply {
        if let Some(error) = self.error.take() {
            return error;
        }
        let mut reply = Reply::default();
        match self.joined {
            Joined::Ok => reply.ok(),
            Joined::Sum => reply.integer(self.number),
            Joined::Arrays { .. } => {
                reply.array(self.number as usize);
                self.parts.iter().for_each(|part| reply.append(part.whole()));
            }
            Joined::Values { .. } => {
                reply.array(self.owners.len());
                let mut parts: Vec<_> = self.parts.iter().map(Reply::whole).collect();
                for &owner in &self.owners {
                    let value;
                    (value, parts[owner]) = parts[owner].split_bulk();
                    reply.append(value);
                }
            }
        }
        reply
    }
}
