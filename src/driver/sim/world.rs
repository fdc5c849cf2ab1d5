//! The modelled network: a clock, what is scheduled, listeners, and every connection there ever was.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;

use super::faults::{Call, Calls, Faults};
use super::link::{Link, Reading, Stage};
use super::rng::Rng;
use crate::connection::{Key, Peer};
use crate::net::Address;
use crate::time::{Nanos, nanos};

/// What a segment takes at least from one end to the other.
const LATENCY: Nanos = 20_000;
/// And at most longer where it is delayed.
const DELAY: Nanos = 2_000_000;
/// When a remote asks again that a full accept queue ignored (Linux: `TCP_TIMEOUT_INIT`).
const ASK_AGAIN: Nanos = 1_000_000_000;
/// Connections that have gone whose late events may still come.
const GONE: usize = 8;

/// How a dial is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialAnswer {
    /// A remote takes it.
    Accept,
    /// Nobody listens there (`ECONNREFUSED`).
    Refuse,
    /// Nothing ever comes back.
    Silence,
    /// The system call itself fails, with this `errno`.
    Fail(i32),
}

/// What happens at some time, to the connection of this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A remote's wish to connect reaches the listener of this number.
    Ask(u16),
    /// The answer to a dial comes in; its `errno`, or 0.
    Answer(i32),
    Inbound,
    Outbound,
    /// A reset reaches the server.
    Break,
    /// A reset reaches the remote.
    Sever,
    Edge,
}

#[derive(Debug)]
struct Injection {
    call: Call,
    number: u64,
    errno: i32,
}

#[derive(Debug)]
pub(super) struct ModelListener {
    pub(super) queue: VecDeque<usize>,
    pub(super) backlog: usize,
    pub(super) has_edge: bool,
}

/// How far the clock may be moved by a poll that nothing else ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Horizon {
    /// To whatever comes next.
    Free,
    Until(Nanos),
    /// To what the network does, but not to a deadline once the network is silent.
    Network,
}

type Answerer = Box<dyn FnMut(&Address) -> DialAnswer>;

pub(crate) struct World {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) clock: Nanos,
    pub(super) calls: Calls,
    injections: Vec<Injection>,
    schedule: BinaryHeap<Reverse<(Nanos, u64, usize, Step)>>,
    scheduled: u64,
    pub(super) listeners: Vec<Option<ModelListener>>,
    pub(super) links: Vec<Link>,
    /// By slot: the connection installed there.
    pub(super) slots: Vec<Option<usize>>,
    /// Connections with an edge to report, in the order in which it came up.
    pub(super) edges: Vec<usize>,
    pub(super) gone: VecDeque<Key>,
    pub(super) answerer: Option<Answerer>,
    /// What other threads do as soon as the reactor waits.
    pub(super) while_polling: Vec<Box<dyn FnOnce()>>,
    pub(super) horizon: Horizon,
    /// The last poll found that nothing will ever happen unless somebody does something.
    pub(super) is_idle: bool,
    pub(super) leases: usize,
    /// Bytes that the reactor was given, and that it gave.
    pub(super) moved_in: u64,
    pub(super) moved_out: u64,
    /// What the reactor did that no kernel would put up with.
    pub(super) breaches: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, listeners: usize, backlog: usize) -> Self {
        let listener = || ModelListener { queue: VecDeque::new(), backlog, has_edge: false };
        Self {
            rng: Rng::new(seed),
            faults,
            clock: 0,
            calls: Calls::default(),
            injections: Vec::new(),
            schedule: BinaryHeap::new(),
            scheduled: 0,
            listeners: (0..listeners).map(|_| Some(listener())).collect(),
            links: Vec::new(),
            slots: Vec::new(),
            edges: Vec::new(),
            gone: VecDeque::new(),
            answerer: None,
            while_polling: Vec::new(),
            horizon: Horizon::Free,
            is_idle: false,
            leases: 0,
            moved_in: 0,
            moved_out: 0,
            breaches: Vec::new(),
        }
    }

    /// Notes what a call would fail with if a fault was asked for at just this one.
    pub(super) fn called(&mut self, call: Call) -> Option<i32> {
        let number = self.calls.count(call);
        let asked = |injection: &Injection| injection.call == call && injection.number == number;
        let index = self.injections.iter().position(asked)?;
        Some(self.injections.swap_remove(index).errno)
    }

    pub(crate) fn fail_call(&mut self, call: Call, nth: u64, errno: i32) {
        let number = self.calls.of(call) + nth;
        self.injections.push(Injection { call, number, errno });
    }

    pub(super) fn breach(&mut self, what: String) {
        self.breaches.push(what);
    }

    fn after(&mut self, wait: Nanos, link: usize, step: Step) {
        self.scheduled += 1;
        self.schedule.push(Reverse((self.clock + wait, self.scheduled, link, step)));
    }

    /// How long a segment takes.
    fn latency(&mut self) -> Nanos {
        if self.rng.chance(self.faults.delays) { LATENCY + self.rng.below(DELAY) } else { LATENCY }
    }

    fn soon(&mut self, link: usize, step: Step) {
        let latency = self.latency();
        self.after(latency, link, step);
    }

    /// When the network does something next.
    pub(super) fn next_step(&self) -> Option<Nanos> {
        self.schedule.peek().map(|Reverse((when, ..))| *when)
    }

    /// Does what is due, each thing at its own time: the network does not wait for the reactor.
    pub(super) fn catch_up(&mut self) {
        let now = self.clock;
        while self.next_step().is_some_and(|when| when <= now) {
            let Some(Reverse((when, _, link, step))) = self.schedule.pop() else { break };
            self.clock = when;
            match step {
                Step::Ask(listener) => self.ask(link, listener),
                Step::Answer(errno) => self.answered(link, errno),
                Step::Inbound => self.inbound(link),
                Step::Outbound => self.outbound(link),
                Step::Break => self.break_off(link),
                Step::Sever => self.links[link].far.saw_reset = true,
                Step::Edge => self.edge(link),
            }
        }
        self.clock = now;
    }

    /// A remote connects; the index of its connection.
    pub(crate) fn connect(&mut self, listener: u16, peer: Peer, limits: (usize, usize)) -> usize {
        let link = self.add(Link::new(peer, None, limits.0, limits.1));
        self.soon(link, Step::Ask(listener));
        link
    }

    pub(super) fn add(&mut self, mut link: Link) -> usize {
        if self.rng.chance(self.faults.slow_remotes) {
            let bytes = self.rng.part_of(2000);
            link.far.reading = Reading::Slowly { bytes, every: std::time::Duration::from_millis(1) };
        }
        self.links.push(link);
        self.links.len() - 1
    }

    fn ask(&mut self, index: usize, listener: u16) {
        let link = &mut self.links[index];
        if link.far.resets {
            link.stage = Stage::Refused(libc::ECONNRESET);
            return;
        }
        let Some(Some(open)) = self.listeners.get_mut(listener as usize) else {
            link.stage = Stage::Refused(libc::ECONNREFUSED);
            link.far.saw_reset = true;
            return;
        };
        if open.queue.len() >= open.backlog {
            return self.after(ASK_AGAIN, index, Step::Ask(listener));
        }
        open.queue.push_back(index);
        open.has_edge = true;
        link.stage = Stage::Established;
        self.go_on(index);
    }

    /// A dial is under way; its answer comes with the network.
    pub(super) fn answer_dial(&mut self, link: usize, errno: i32) {
        self.soon(link, Step::Answer(errno));
    }

    fn answered(&mut self, index: usize, errno: i32) {
        let link = &mut self.links[index];
        if link.near.is_closed {
            // Given up meanwhile: the remote's answer meets a reset.
            link.far.saw_reset = true;
            return;
        }
        link.stage = if errno == 0 { Stage::Established } else { Stage::Refused(errno) };
        self.edge(index);
        self.go_on(index);
    }

    /// Schedules the next steps of a connection, where there are any.
    pub(crate) fn go_on(&mut self, index: usize) {
        if self.links[index].has_inbound() && !self.links[index].inbound_due {
            self.links[index].inbound_due = true;
            self.soon(index, Step::Inbound);
        }
        if self.links[index].has_outbound() && !self.links[index].outbound_due {
            self.links[index].outbound_due = true;
            match self.links[index].far.reading {
                Reading::Slowly { every, .. } => self.after(nanos(every), index, Step::Outbound),
                _ => self.soon(index, Step::Outbound),
            }
        }
    }

    /// How much of `most` a segment carries.
    fn segment(&mut self, most: usize) -> usize {
        if self.rng.chance(self.faults.split_segments) { self.rng.part_of(most) } else { most }
    }

    /// A segment, or the end of the stream, reaches the server.
    fn inbound(&mut self, index: usize) {
        self.links[index].inbound_due = false;
        self.arrive(index);
        self.go_on(index);
    }

    pub(super) fn arrive(&mut self, index: usize) {
        if !self.links[index].has_inbound() {
            return;
        }
        if self.rng.chance(self.faults.resets) {
            return self.reset_by_remote(index);
        }
        let Link { near, far, .. } = &self.links[index];
        if near.is_closed && !far.unsent.is_empty() {
            // Nobody is there to take it: the kernel answers with a reset.
            return self.sever(index);
        }
        let room = near.receive_limit - near.received.len().min(near.receive_limit);
        let length = self.segment(far.unsent.len().min(room));
        let end_comes_later = length > 0 && self.rng.chance(self.faults.split_segments);
        let Link { near, far, .. } = &mut self.links[index];
        near.received.extend(far.unsent.drain(..length));
        near.has_end = far.is_finished && far.unsent.is_empty() && !end_comes_later;
        if !near.is_announced || !self.rng.chance(self.faults.withheld_events) {
            self.edge(index);
        }
    }

    /// Bytes, or the end of the stream, reach the remote.
    fn outbound(&mut self, index: usize) {
        self.links[index].outbound_due = false;
        if !self.links[index].has_outbound() {
            return;
        }
        if self.rng.chance(self.faults.resets) {
            return self.reset_by_remote(index);
        }
        let Link { near, far, .. } = &self.links[index];
        if far.is_closed && !near.unsent.is_empty() {
            return self.break_off(index);
        }
        let length = match far.reading {
            Reading::Slowly { bytes, .. } => near.unsent.len().min(bytes.max(1)),
            _ => self.segment(self.links[index].near.unsent.len()),
        };
        let end_comes_later = length > 0 && self.rng.chance(self.faults.split_segments);
        let Link { near, far, .. } = &mut self.links[index];
        far.received.extend(near.unsent.drain(..length));
        far.saw_end = near.is_shut && near.unsent.is_empty() && !end_comes_later;
        // The kernel says so when a third of the buffer is free (sock_writeable of Linux: half).
        if near.wants_room && near.room() * 3 >= near.send_limit {
            near.wants_room = false;
            self.edge(index);
        }
        self.go_on(index);
    }

    /// Has an event reported for a connection that is watched.
    pub(super) fn edge(&mut self, index: usize) {
        let near = &mut self.links[index].near;
        if near.key.is_some() && !near.has_edge {
            near.has_edge = true;
            self.edges.push(index);
        }
    }

    pub(super) fn edge_later(&mut self, index: usize) {
        self.soon(index, Step::Edge);
    }

    /// A reset comes in.
    pub(super) fn break_off(&mut self, index: usize) {
        let is_lost = self.rng.chance(0.5);
        let near = &mut self.links[index].near;
        near.break_off();
        // Linux keeps what has come in before the reset; others do not.
        if is_lost && self.faults.resets > 0.0 {
            near.received.clear();
        }
        self.edge(index);
    }

    /// The server's side sends a reset.
    pub(super) fn sever(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.near.is_broken = true;
        link.near.received.clear();
        link.near.unsent.clear();
        self.soon(index, Step::Sever);
    }

    pub(crate) fn reset_by_remote(&mut self, index: usize) {
        let far = &mut self.links[index].far;
        far.unsent.clear();
        (far.is_closed, far.resets) = (true, true);
        if self.links[index].stage == Stage::Established {
            self.soon(index, Step::Break);
        }
    }

    /// The server closes its socket, as the kernel does it: with unread input by a reset.
    pub(super) fn close(&mut self, index: usize, by_reset: bool) {
        let Link { near, far, .. } = &mut self.links[index];
        if let Some(key) = near.key.take() {
            self.gone.push_front(key);
            self.gone.truncate(GONE);
        }
        near.is_closed = true;
        if near.is_broken {
            if !far.resets {
                self.soon(index, Step::Sever);
            }
            return;
        }
        if by_reset || !near.received.is_empty() {
            return self.sever(index);
        }
        near.is_shut = true;
        self.go_on(index);
    }
}

/// The address of the remote of this index, one of its own for each.
pub(crate) fn remote_address(index: usize) -> SocketAddr {
    let [.., b, c, d] = (index as u32).to_be_bytes();
    ([10, b, c, d], 40_000).into()
}
