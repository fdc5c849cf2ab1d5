//! Connections that stay, and whatever protocol is spoken on them: in a closed loop or by a schedule, beside a
//! firehose.
//!
//! A turn takes in all that has come, then queues what is to be sent, one send for each connection, and hands all
//! of it over with the system call that waits for more.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use socket2::Socket;

use super::hose::{self, Hose};
use super::lane::{Due, Lane};
use super::ring::{Completion, Plan as Room, Ring, Wait};
use super::window::{Part, Window};
use super::{Aborted, Share, connect};
use crate::engine::{Pace, Position};
use crate::outcome::{Status, WithStatus, ends};
use crate::plan::{Dialect, Load};
use crate::protocol::{Answered, Purpose, Wire};

/// The most memory in buffers for replies.
const MOST_BUFFER_BYTES: usize = 32 << 20;

/// The most bytes that are sent or received at a time, but for a message that is larger.
const LARGEST_BATCH: usize = 64 * 1024;

/// The most requests of a schedule that are sent together: slow servers may get behind by any number.
const MOST_DUE_TOGETHER: usize = 4;

/// A reply of HTTP is taken to be about so long, until one is seen.
const REPLY_OF_HTTP: usize = 512;

/// How often replies are looked for that are late, in nanoseconds.
const LOOK_EVERY: u64 = 100_000_000;

const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const HOSE_RECEIVE: u64 = 2;
const HOSE_SEND: u64 = 3;

fn tag(kind: u64, index: usize) -> u64 {
    kind << 32 | index as u64
}

/// Runs one thread's connections for a slice.
pub(super) fn run(share: &Share<'_>) -> Result<Part> {
    let mut window = share.window();
    let sockets = connect::connect_all(share, &mut window)?;
    let outcome =
        Steady::new(share, &sockets).and_then(|steady| steady.run(window)).inspect(|_| share.rest());
    sockets.iter().for_each(connect::reset);
    outcome
}

/// When requests are sent, beside those that prove the connections.
#[derive(Debug)]
enum Pacing {
    /// Each reply allows the next request.
    Closed,
    Open {
        pace: Option<Pace>,
        /// Lanes that have room for a request, in turn.
        free: VecDeque<u32>,
        /// Times of requests that no lane had room for.
        backlog: VecDeque<u64>,
        /// Requests that a lane may have under way.
        depth: usize,
    },
}

/// Replies that came together to requests that were sent together.
#[derive(Debug, Default)]
struct Together {
    times: (u64, u64),
    first_byte: u64,
    count: u64,
}

impl Together {
    /// Adds a reply; those before it are counted if they differ.
    #[inline]
    fn add(&mut self, reply: &Answered, window: &mut Window<'_>, now: u64) {
        let times = (reply.request.intended, reply.request.sent);
        if (times, reply.first_byte) != (self.times, self.first_byte) {
            self.count(window, now);
            *self = Self { times, first_byte: reply.first_byte, count: 0 };
        }
        self.count += 1;
    }

    fn count(&self, window: &mut Window<'_>, now: u64) {
        if self.count > 0 {
            window.recorder.replied(self.times, self.first_byte, self.count, now);
        }
    }
}

struct Steady<'a> {
    share: &'a Share<'a>,
    ring: Ring,
    wire: Wire,
    lanes: Vec<Lane>,
    hoses: Vec<Hose>,
    pacing: Pacing,
    /// Whether all that is sent is still the proof that the connections work.
    is_proving: bool,
    /// Whether sends are told only if they fail. With a single message in flight the reply tells of the send.
    quiet: bool,
    /// Lanes that are to send at the end of the turn.
    waiting: Vec<u32>,
    /// Requests without a reply, and those that are owed.
    outstanding: usize,
    late_after: u64,
    next_look: u64,
    completions: Vec<Completion>,
}

impl<'a> Steady<'a> {
    fn new(share: &'a Share<'a>, sockets: &[Socket]) -> Result<Self> {
        let shared = share.shared;
        let (load, plan) = (shared.load, shared.plan);
        let wire = Wire::new(plan, shared.material);
        let (pacing, together) = match plan.load {
            Load::Open { depth, .. } => (
                Pacing::Open { pace: None, free: VecDeque::new(), backlog: VecDeque::new(), depth },
                MOST_DUE_TOGETHER,
            ),
            Load::Closed { depth, .. } => (Pacing::Closed, depth),
            _ => bail!("connections that stay know closed loops and schedules"),
        };
        let request = wire.longest_request();
        let reply = match plan.target.dialect {
            Dialect::Http => REPLY_OF_HTTP,
            _ => request,
        };
        let batch = |message: usize| (together * message).min(LARGEST_BATCH);
        let buffer = batch(reply).next_power_of_two().max(256);
        let buffers = (share.connections * 2).next_power_of_two();
        let room = Room {
            operations: sockets.len() * 2,
            shared_buffers: buffers.clamp(64, 4_096.min(MOST_BUFFER_BYTES / buffer)),
            shared_buffer_size: buffer,
            own_buffers: share.firehose,
            own_buffer_size: hose::CHUNK,
            outboxes: share.connections,
            outbox_size: batch(request).max(request),
        };
        let ring = Ring::new(room, shared.address.into())?;
        let files: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.use_files(&files)?;
        let number = |index: usize| index * load.threads + share.thread;
        let hose = |index: usize| {
            let file = share.connections + index;
            let tags = hose::Tags { receive: tag(HOSE_RECEIVE, index), send: tag(HOSE_SEND, index) };
            Hose::new(number(file), file as u32, index, tags)
        };
        Ok(Self {
            share,
            ring,
            wire,
            lanes: (0..share.connections).map(|index| Lane::new(number(index))).collect(),
            hoses: (0..share.firehose).map(hose).collect(),
            pacing,
            is_proving: true,
            quiet: matches!(plan.load, Load::Closed { depth: 1, .. }),
            waiting: Vec::new(),
            outstanding: 0,
            late_after: plan.late_after.as_nanos() as u64,
            next_look: 0,
            completions: Vec::new(),
        })
    }

    fn run(mut self, mut window: Window<'_>) -> Result<Part> {
        let is_partial = match self.load(&mut window) {
            Ok(()) => false,
            // What there is will do, if it was the run that is to stop.
            Err(error) if error.is::<Aborted>() && !self.share.shared.failed.load(Ordering::Relaxed) => true,
            Err(error) => return Err(error),
        };
        let now = self.share.shared.clock.now();
        let counts = &mut window.recorder.tally.counts;
        counts.connections_asked = self.lanes.len() as u64;
        counts.verified_bytes = self.wire.verified();
        self.give_up_unsent(&mut window, now);
        if let Pacing::Open { pace: Some(pace), .. } = &mut self.pacing {
            let until = window.recorder.end().min(now);
            pace.take_before(until).for_each(|due| window.recorder.never_sent(due, now));
        }
        for request in self.lanes.iter().flat_map(|lane| lane.talk.pending()) {
            window.recorder.never_answered(request.intended, now);
        }
        window.recorder.tally.partial = is_partial;
        window.finish(now)
    }

    fn load(&mut self, window: &mut Window<'_>) -> Result<()> {
        let shared = self.share.shared;
        for lane in 0..self.lanes.len() {
            self.ring.receive_again_and_again(lane as u32, tag(RECEIVE, lane));
        }
        self.owe_all(1, window);
        while self.outstanding > 0 {
            self.turn(window)?;
        }
        self.is_proving = false;
        let start = self.share.rendezvous(window)?;
        self.begin(start, window);
        while !window.is_closed() {
            self.turn(window)?;
        }
        let limit = shared.plan.deadline.as_nanos() as u64;
        let patience = limit * if shared.plan.load.is_open() { 2 } else { 1 };
        while self.is_busy() {
            self.turn(window)?;
            let now = shared.clock.now();
            let late = now.saturating_sub(window.recorder.end());
            if late > limit {
                self.give_up_unsent(window, now);
            }
            if late > patience {
                let bytes: usize = self.hoses.iter().map(Hose::unanswered).sum();
                bail!(
                    "the server stopped answering: {} messages and {bytes} bytes of the firehose are outstanding",
                    self.outstanding
                );
            }
        }
        Ok(())
    }

    /// Whether something is unanswered, or has yet to be sent.
    fn is_busy(&self) -> bool {
        let waits = matches!(&self.pacing, Pacing::Open { backlog, .. } if !backlog.is_empty());
        waits || self.outstanding > 0 || self.hoses.iter().any(|hose| hose.unanswered() > 0)
    }

    /// Takes note of what was due and will not be sent.
    fn give_up_unsent(&mut self, window: &mut Window<'_>, now: u64) {
        let Pacing::Open { backlog, .. } = &mut self.pacing else { return };
        backlog.drain(..).for_each(|due| window.recorder.never_sent(due, now));
        for due in self.lanes.iter_mut().flat_map(|lane| lane.due.drain(..)) {
            window.recorder.never_sent(due.at, now);
            self.outstanding -= 1;
        }
    }

    /// Starts the load, now that every connection is known to work.
    fn begin(&mut self, start: u64, window: &mut Window<'_>) {
        let share = self.share;
        let (load, plan) = (share.shared.load, share.shared.plan);
        match (&mut self.pacing, &plan.load) {
            (Pacing::Open { pace, free, .. }, Load::Open { profile, arrivals, .. }) => {
                let position = Position { index: share.thread, of: load.threads };
                let part = (share.connections, load.connections);
                let profile = profile.after_warmup(plan.warmup.as_secs_f64());
                *pace = position.pace(plan, profile, *arrivals, start, part);
                free.extend(0..self.lanes.len() as u32);
                self.lanes.iter_mut().for_each(|lane| lane.is_listed = true);
            }
            (_, Load::Closed { depth, .. }) => self.owe_all(*depth, window),
            _ => {}
        }
        for hose in &mut self.hoses {
            hose.open(share.shared.pattern, &mut self.ring);
        }
    }

    fn owe_all(&mut self, requests: usize, window: &mut Window<'_>) {
        for lane in 0..self.lanes.len() {
            self.lanes[lane].owed += requests;
            self.outstanding += requests;
            self.wait_to_send(lane);
        }
        self.send_waiting(window);
    }

    fn wait_to_send(&mut self, lane: usize) {
        if !std::mem::replace(&mut self.lanes[lane].is_waiting, true) {
            self.waiting.push(lane as u32);
        }
    }

    /// Waits for something to happen, and deals with all that has.
    fn turn(&mut self, window: &mut Window<'_>) -> Result<()> {
        let shared = self.share.shared;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.turn(self.wait(window), &mut completions)?;
        let now = shared.clock.now();
        window.advance(now)?;
        for completion in &completions {
            let index = (completion.tag & u64::from(u32::MAX)) as usize;
            let (pattern, ring) = (shared.pattern, &mut self.ring);
            match completion.tag >> 32 {
                RECEIVE => self.received(index, completion, window, now),
                SEND => self.sent(index, completion),
                HOSE_RECEIVE => self.hoses[index].received(pattern, ring, completion, window),
                _ => self.hoses[index].sent(pattern, ring, completion, window),
            }
            .with_context(|| self.name(completion.tag >> 32, index))?;
        }
        self.completions = completions;
        self.take_due(window, now);
        self.send_waiting(window);
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.share.tell_seconds(window);
            self.look_for_late_replies(now)?;
        }
        shared.ensure_going()
    }

    fn name(&self, kind: u64, index: usize) -> String {
        let address = self.share.shared.address;
        match kind {
            RECEIVE | SEND => format!("connection {index} to {address}"),
            _ => format!("firehose connection {index} to {address}"),
        }
    }

    fn wait(&self, window: &Window<'_>) -> Wait {
        let due = match &self.pacing {
            Pacing::Open { pace: Some(pace), .. } if !window.is_closed() => pace.next_due(),
            _ => None,
        };
        self.share.shared.wait(due.into_iter().chain(window.next_mark()).min())
    }

    fn look_for_late_replies(&self, now: u64) -> Result<()> {
        let deadline = self.share.shared.plan.deadline;
        let is_late = |lane: &&Lane| {
            let oldest = lane.talk.oldest();
            oldest.is_some_and(|request| now.saturating_sub(request.sent) > deadline.as_nanos() as u64)
        };
        match self.lanes.iter().filter(is_late).count() {
            0 => Ok(()),
            late => bail!("the server stopped answering: no reply on {late} connections within {deadline:?}"),
        }
    }

    /// Gives requests that are due to lanes that have room for them: those of the window, even when it has closed.
    fn take_due(&mut self, window: &Window<'_>, now: u64) {
        let Pacing::Open { pace: Some(pace), free, backlog, depth } = &mut self.pacing else { return };
        let mut held_back = backlog.len();
        backlog.extend(pace.take_before(window.recorder.end().min(now + 1)));
        while let (Some(&at), Some(&index)) = (backlog.front(), free.front()) {
            backlog.pop_front();
            free.pop_front();
            let lane = &mut self.lanes[index as usize];
            lane.due.push_back(Due { at, is_held_back: held_back > 0 });
            held_back = held_back.saturating_sub(1);
            self.outstanding += 1;
            lane.is_listed = lane.load() < *depth;
            if lane.is_listed {
                free.push_back(index);
            }
            if !std::mem::replace(&mut lane.is_waiting, true) {
                self.waiting.push(index);
            }
        }
    }

    fn send_waiting(&mut self, window: &mut Window<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let now = self.share.shared.clock.now();
        for lane in waiting.drain(..) {
            self.lanes[lane as usize].is_waiting = false;
            self.send(lane, window, now);
        }
        self.waiting = waiting;
    }

    /// Sends what a lane has to say, as far as its outbox has room for it.
    fn send(&mut self, index: u32, window: &mut Window<'_>, now: u64) {
        let lane = &mut self.lanes[index as usize];
        if lane.sending > 0 {
            return;
        }
        let is_load = !self.is_proving;
        let purpose = if is_load { Purpose::Load } else { Purpose::Proof };
        let is_closed = matches!(self.pacing, Pacing::Closed);
        let (mut length, mut count) = (0, 0);
        while let Some(due) = lane.next(now) {
            let mut bytes = 0;
            let ring = &mut self.ring;
            let taken = self.wire.ask(&mut lane.talk, (due.at, now), purpose, |parts| {
                let written = ring.write(index, length, parts);
                bytes = written.unwrap_or_default();
                written.is_some()
            });
            if !taken {
                break;
            }
            lane.took();
            length += bytes;
            count += 1;
            if is_load && !is_closed {
                let late = window.recorder.sent(due.at, now, bytes, self.late_after);
                if due.is_held_back {
                    window.recorder.held_back(due.at, now, late);
                }
            }
        }
        if is_load {
            window.recorder.tally.asked += count;
            if is_closed {
                window.recorder.sent_many(count, length, now);
            }
        }
        if length > 0 {
            lane.sending = if self.quiet { 0 } else { length };
            self.ring.send_written(index, length, tag(SEND, index as usize), self.quiet);
        }
    }

    fn received(
        &mut self,
        index: usize,
        completion: &Completion,
        window: &mut Window<'_>,
        now: u64,
    ) -> Result<()> {
        match completion.result() {
            Ok(0) => bail!("lost: the server closed it"),
            Ok(length) => {
                let buffer = completion.buffer().context("a receive without a buffer")?;
                window.recorder.tally.counts.received_bytes += length as u64;
                let bytes = self.ring.shared_bytes(buffer, length);
                let (mut together, mut replies, mut is_last) = (Together::default(), 0, false);
                let lane = &mut self.lanes[index];
                let is_load = !self.is_proving;
                let answered = |reply: &Answered| {
                    replies += 1;
                    is_last |= reply.is_last;
                    if is_load {
                        together.add(reply, window, now);
                    }
                };
                lane.hear(&mut self.wire, bytes, now, answered).status(Status::WrongData)?;
                together.count(window, now);
                self.ring.recycle(buffer);
                if is_last {
                    let text =
                        "lost: the server closes it behind a reply, where this client keeps connections";
                    return Err(ends(Status::Unreachable, text));
                }
                self.replied(index, replies, window);
            }
            // The buffers will do again after this turn.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("lost"),
        }
        if !completion.more() {
            self.ring.receive_again_and_again(index as u32, tag(RECEIVE, index));
        }
        Ok(())
    }

    /// What follows replies.
    fn replied(&mut self, index: usize, replies: usize, window: &mut Window<'_>) {
        self.outstanding -= replies;
        if self.is_proving {
            return;
        }
        window.answered(replies as u64);
        self.share.shared.answered.fetch_add(replies as u64, Ordering::Relaxed);
        match &mut self.pacing {
            Pacing::Closed if !window.is_closed() => {
                self.lanes[index].owed += replies;
                self.outstanding += replies;
                self.wait_to_send(index);
            }
            Pacing::Open { free, depth, .. } => {
                let lane = &mut self.lanes[index];
                if !lane.is_listed && lane.load() < *depth {
                    lane.is_listed = true;
                    free.push_back(index as u32);
                }
            }
            Pacing::Closed => {}
        }
    }

    fn sent(&mut self, index: usize, completion: &Completion) -> Result<()> {
        let length = completion.result().context("lost while sending")?;
        let lane = &mut self.lanes[index];
        if !self.quiet {
            if length != lane.sending {
                bail!("lost: {length} of {} bytes were sent", lane.sending);
            }
            lane.sending = 0;
            if lane.next(0).is_some() {
                self.wait_to_send(index);
            }
        }
        Ok(())
    }
}
